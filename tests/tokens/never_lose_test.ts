import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmod,
  chown,
  mkdir,
  readdir,
  readFile,
  stat,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { accessToken, fileStore } from "../../mod.ts";
import type { Sandbox } from "../../scripts/sandbox.ts";
import {
  type Ended,
  freePort,
  loginAsPerson,
  programCommand,
  ROOT,
  runProgram,
  start,
  startProgram,
} from "../support/helpers.ts";
import { howOften, note, Random, SEED } from "../support/fuzz.ts";
import {
  ALWAYS,
  assertKept,
  assertUsable,
  FILE,
  jobOf,
  type PairHost,
  withPair,
} from "../support/pairs.ts";
import {
  failure,
  type Host,
  REPLY,
  withFolder,
  withSandbox,
} from "../support/token_host.ts";
import {
  askAt,
  atEveryCall,
  eventually,
  keepExpired,
  refreshCount,
  startChild,
  withChildren,
} from "../support/child_processes.ts";

// === Killed at any point

test("a process killed before any call of the file system loses no token", () =>
  atEveryCall(
    8,
    (call) =>
      withPair((folder, host, pairs) =>
        withChildren([startChild(jobOf(host, folder))], async ([child]) => {
          child.order({ interruption: { call, signal: "SIGKILL" } });
          if (await child.next()) return false;
          await child.ended;
          await assertKept(folder, pairs);
          await assertUsable(folder, host, pairs);
          return true;
        })
      ),
  ));

const ROUNDS = howOften(40);
const LANES = 8;

test(`a process killed at any time of ${ROUNDS} refreshes loses no token, seed ${SEED}`, async () => {
  const lanes = Array.from({ length: LANES }, (_, lane) => {
    const random = new Random(SEED + lane);
    return withPair(async (folder, host, pairs) => {
      for (let round = lane; round < ROUNDS; round += LANES) {
        await killOnce(folder, host, pairs, random.below(60_000) / 1000);
      }
      await assertUsable(folder, host, pairs);
    });
  });
  await Promise.all(lanes);
  note("kills at any time", ROUNDS);
});

/** Kills a process that refreshes for ever, some ms after it has begun. */
async function killOnce(
  folder: string,
  host: Host,
  pairs: PairHost,
  delay: number,
): Promise<void> {
  await withChildren([startChild(jobOf(host, folder))], async ([child]) => {
    child.order({ endless: true });
    const first = await child.next();
    assert.deepEqual(first?.errors, [], `seed ${SEED}`);
    await new Promise((resolve) => setTimeout(resolve, delay));
    child.signal("SIGKILL");
    await child.ended;
  });
  await assertKept(folder, pairs);
}

// === Files that are not ours to change

/** Runs the program with a file that it has to leave alone. */
function assertLeftAlone(
  text: string,
  check: (ended: Ended) => void,
): Promise<void> {
  return withSandbox((sandbox) =>
    withFolder(async (folder) => {
      const path = join(folder, FILE);
      await writeFile(path, text);
      const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder };
      const ended = await runProgram(["refresh"], { env });
      assert.equal(ended.code, 1, ended.stderr);
      assert.equal(ended.stdout, "");
      assert.ok(ended.stderr.includes(path), ended.stderr);
      check(ended);
      assert.equal(await readFile(path, "utf8"), text);
      assert.equal(refreshCount(sandbox), 0);
      assert.deepEqual(await readdir(folder), [FILE]);
    })
  );
}

test("the refresh command leaves a corrupt file alone", () =>
  assertLeftAlone('{"code":0,"data":{"access_tok', ({ stderr }) => {
    assert.match(stderr, /is no token file, or damaged/);
    assert.match(stderr, /hint: move it away/);
  }));

test("the refresh command leaves the file of a newer version alone", () => {
  const newer = { ...REPLY, meta: { version: 2, something: "new" } };
  return assertLeftAlone(JSON.stringify(newer), ({ stderr }) => {
    assert.match(stderr, /was written by a newer version/);
    assert.match(stderr, /hint: update/);
  });
});

// === Disks that take nothing

const IS_ROOT = process.getuid?.() === 0;
const CANNOT_MOUNT = canMount() ? false : "only root can make a small disk";

function canMount(): boolean {
  return IS_ROOT && process.platform === "linux" &&
    spawnSync("unshare", ["--mount", "true"]).status === 0;
}

/** Runs with a disk of a few pages, which root alone can make. */
function withDisk<T>(
  options: string,
  run: (path: string) => Promise<T>,
): Promise<T> {
  return withFolder(async (folder) => {
    mount("-t", "tmpfs", "-o", options, "tmpfs", folder);
    try {
      return await run(folder);
    } finally {
      spawnSync("umount", ["--lazy", folder]);
    }
  });
}

function mount(...words: string[]): void {
  const { status, stderr } = spawnSync("mount", words);
  assert.equal(status, 0, `${stderr}`);
}

/** Keeps an expired token in a folder, and runs the refresh command there. */
async function refreshIn(
  folder: string,
  sandbox: Sandbox,
  spoil: () => Promise<void> | void,
): Promise<Ended & { before: string }> {
  await keepExpired(sandbox, fileStore(folder));
  const before = await readFile(join(folder, FILE), "utf8");
  await spoil();
  const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder };
  return { ...await runProgram(["refresh"], { env }), before };
}

test("the refresh command asks for nothing on a disk that is full", {
  skip: CANNOT_MOUNT,
}, () =>
  withSandbox((sandbox) =>
    withDisk("size=64k", async (disk) => {
      const folder = join(disk, "store");
      const fill = () => fillUp(disk);
      const { code, stdout, stderr, before } = await refreshIn(
        folder,
        sandbox,
        fill,
      );
      assert.deepEqual([code, stdout], [1, ""]);
      assert.match(stderr, /Cannot save the tokens to .*no space left/i);
      assert.match(stderr, /hint: .*free space/);
      assert.equal(refreshCount(sandbox), 0);
      assert.equal(await readFile(join(folder, FILE), "utf8"), before);
      assert.deepEqual(await readdir(folder), [FILE]);
    })
  ));

test("the refresh command prints what a disk that fills up does not take", {
  skip: CANNOT_MOUNT,
}, () =>
  withSandbox((sandbox) =>
    withDisk("size=64k", async (disk) => {
      const folder = join(disk, "store");
      await keepExpired(sandbox, fileStore(folder));
      const before = await readFile(join(folder, FILE), "utf8");
      const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder };
      const running = startProgram(["refresh"], { env });
      await eventually(() => refreshCount(sandbox) === 1, "it has asked");
      await fillUp(disk);
      const { code, stdout, stderr } = await running.ended;
      assert.equal(code, 1);
      assert.match(stderr, /Cannot save the tokens to .*no space left/i);
      const { data } = JSON.parse(stdout);
      assert.notEqual(data.refresh_token, JSON.parse(before).refresh_token);
      assert.ok(!stderr.includes(data.access_token));
      assert.equal(await readFile(join(folder, FILE), "utf8"), before);
      assert.deepEqual(await readdir(folder), [FILE]);
    }), { latency: 2000 }));

/** Leaves not one byte. */
async function fillUp(disk: string): Promise<void> {
  await writeFile(join(disk, "filler"), new Uint8Array(1 << 20)).catch(
    () => {},
  );
}

test(
  "the refresh command asks for nothing on a disk without room for a lock",
  {
    skip: CANNOT_MOUNT,
  },
  () =>
    withSandbox((sandbox) =>
      withDisk("size=64k,nr_inodes=4", async (disk) => {
        const folder = join(disk, "store");
        const { code, stdout, stderr, before } = await refreshIn(
          folder,
          sandbox,
          () => fillUp(disk),
        );
        assert.equal(code, 1);
        assert.equal(stdout, "");
        assert.match(stderr, /Cannot lock .*default\.json/);
        assert.equal(refreshCount(sandbox), 0);
        assert.equal(await readFile(join(folder, FILE), "utf8"), before);
      })
    ),
);

test("the refresh command asks for nothing on a disk that is read-only", {
  skip: CANNOT_MOUNT,
}, () =>
  withSandbox((sandbox) =>
    withDisk("size=64k", async (disk) => {
      const folder = join(disk, "store");
      const { code, stdout, stderr, before } = await refreshIn(
        folder,
        sandbox,
        () => mount("-o", "remount,ro", disk),
      );
      assert.equal(code, 1);
      assert.equal(stdout, "");
      assert.match(stderr, /Cannot lock .*default\.json/);
      assert.match(stderr, /hint: .*permissions/);
      assert.equal(refreshCount(sandbox), 0);
      assert.equal(await readFile(join(folder, FILE), "utf8"), before);
    })
  ));

test("accessToken() reads a fresh token from a folder that is read-only", {
  skip: CANNOT_MOUNT,
}, () =>
  withSandbox((sandbox) =>
    withDisk("size=64k", async (disk) => {
      const store = fileStore(join(disk, "store"));
      await keepExpired(sandbox, store);
      const ask = askAt(sandbox, store);
      const token = await accessToken(ask);
      mount("-o", "remount,ro", disk);
      assert.equal(await accessToken(ask), token);
      const error = await failure(accessToken({ ...ask, ...ALWAYS }), "store");
      assert.match(error.message, /Cannot lock/);
    })
  ));

test("the refresh command asks for nothing in a folder that is read-only", {
  skip: IS_ROOT
    ? "root may write everywhere"
    : process.platform === "win32" && "Windows has no such folders",
}, () =>
  withSandbox((sandbox) =>
    withFolder(async (folder) => {
      for (const mode of [0o500, 0o555]) {
        await chmod(folder, 0o700);
        const { code, stdout, stderr } = await refreshIn(
          folder,
          sandbox,
          () => chmod(folder, mode),
        );
        assert.equal(code, 1);
        assert.equal(stdout, "");
        assert.match(stderr, /Cannot lock .*permission denied/i);
        assert.equal(refreshCount(sandbox), 0);
      }
      await chmod(folder, 0o700);
    })
  ));

// === A file that cannot be replaced

/** A token file that is mounted, as Docker mounts a single file. */
interface Mounted {
  sandbox: Sandbox;
  /** The file itself, and the folder that it is mounted into. */
  real: string;
  folder: string;
  env: Record<string, string>;
}

/** Runs with an expired token in a file that is mounted. */
function withMounted(
  run: (mounted: Mounted) => Promise<void>,
  options: { disk?: string } = {},
): Promise<void> {
  return freePort().then((port) =>
    withSandbox(
      (sandbox) =>
        withDisk(options.disk ?? "size=1m", (disk) =>
          withFolder(async (home) => {
            const folder = join(home, "store");
            await keepExpired(sandbox, fileStore(disk));
            const real = join(disk, FILE);
            await mkdir(folder);
            await writeFile(join(folder, FILE), "");
            mount("--bind", real, join(folder, FILE));
            const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder };
            try {
              await run({ sandbox, real, folder, env });
            } finally {
              spawnSync("umount", ["--lazy", join(folder, FILE)]);
            }
          })),
      { redirectUrl: `http://localhost:${port}/` },
    )
  );
}

async function tokensOf(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(path, "utf8")).data;
}

test("the refresh command saves to a file that is mounted, and warns", {
  skip: CANNOT_MOUNT,
}, () =>
  withMounted(async ({ sandbox, real, folder, env }) => {
    for (const count of [1, 2]) {
      const { code, stdout, stderr } = await runProgram(["refresh"], { env });
      assert.equal(code, 0, stderr);
      const { data } = JSON.parse(stdout);
      assert.equal((await tokensOf(real)).refresh_token, data.refresh_token);
      assert.equal(stderr.match(/is written in place/g)?.length, 1, stderr);
      assert.match(stderr, /mount its folder instead/);
      assert.equal(refreshCount(sandbox), count);
      assert.deepEqual(await readdir(folder), [FILE]);
    }
    const doctor = await runProgram(["doctor", "--json"], { env });
    const findings: { check: string; status: string; message: string }[] = JSON
      .parse(doctor.stdout);
    const told = findings.filter(({ check }) => check === "store");
    assert.equal(told[0]?.status, "warning");
  }));

test("accessToken() writes a mounted file whole, whether it grows or shrinks", {
  skip: CANNOT_MOUNT,
}, () =>
  withMounted(async ({ sandbox, real, folder }) => {
    const store = fileStore(folder);
    const tokens = (await store.load("default"))!;
    const told: string[] = [];
    const onWarning = (message: string) => told.push(message);
    for (const size of [20_000, 0, 9000, 10]) {
      const lock = await store.lock("default");
      const meta = { ...tokens.meta, filler: "x".repeat(size) };
      await store.assertWritable!("default", lock, onWarning);
      await store.save("default", { ...tokens, meta }, lock);
      await lock[Symbol.asyncDispose]();
      const text = await readFile(real, "utf8");
      assert.equal(JSON.parse(text).meta.filler.length, size);
      assert.ok(text.endsWith("}\n"));
      assert.deepEqual(await store.load("default"), { ...tokens, meta });
    }
    assert.equal(told.length, 1);
    await accessToken({ ...askAt(sandbox, store), onWarning });
    assert.equal(told.length, 1);
  }));

test(
  "a login saves to a file that is mounted",
  { skip: CANNOT_MOUNT },
  () =>
    withMounted(async ({ sandbox, real, folder, env }) => {
      const before = await tokensOf(real);
      const file = ["--file", join(folder, FILE)];
      const ended = await loginAsPerson(sandbox, [...file, "--switch"], {
        env,
      });
      assert.equal(ended.code, 0, ended.stderr);
      const { data } = JSON.parse(ended.stdout);
      assert.notEqual(data.access_token, before.access_token);
      assert.equal((await tokensOf(real)).access_token, data.access_token);
      assert.deepEqual(await readdir(folder), [FILE]);
    }),
);

test("fileStore() leaves a mounted file whole that a full disk cannot take", {
  skip: CANNOT_MOUNT,
}, () =>
  withMounted(async ({ real, folder }) => {
    const before = await readFile(real, "utf8");
    const store = fileStore(folder);
    const tokens = (await store.load("default"))!;
    const meta = { ...tokens.meta, filler: "x".repeat(100_000) };
    await failure(store.save("default", { ...tokens, meta }), "store");
    assert.equal(await readFile(real, "utf8"), before);
  }, { disk: "size=64k" }));

const SPOILT: Record<string, (mounted: Mounted) => Promise<void> | void> = {
  "is mounted read-only": ({ folder }) =>
    mount("-o", "remount,bind,ro", join(folder, FILE)),
  "is mounted from a full disk": ({ real }) => fillUp(join(real, "..")),
};

for (const [what, spoil] of Object.entries(SPOILT)) {
  test(`a file that ${what} costs no refresh token and no code`, {
    skip: CANNOT_MOUNT,
  }, () =>
    withMounted(async (mounted) => {
      const { sandbox, real, folder, env } = mounted;
      const before = await readFile(real, "utf8");
      await spoil(mounted);
      const pending = await runProgram(["login", "--start"], { env });
      for (const args of [["refresh"], ["login", "--no-browser"]]) {
        const port = ["--port", new URL(sandbox.redirectUrl).port];
        const { code, stdout, stderr } = await runProgram(
          args[0] === "login" ? [...args, ...port] : args,
          { env },
        );
        assert.deepEqual([code, stdout], [1, ""], stderr);
        assert.match(stderr, /Cannot save the tokens to .*default\.json/);
        assert.doesNotMatch(stderr, /authorize\?/);
      }
      assert.match(pending.stderr, /Cannot save the tokens to /);
      assert.equal(refreshCount(sandbox), 0);
      assert.equal(await readFile(real, "utf8"), before);
      assert.deepEqual(await readdir(folder), [FILE]);
    }, { disk: "size=64k" }));
}

// === A folder of another user's

const USER = 31_017;
const AS_USER = ["setpriv", `--reuid=${USER}`, `--regid=${USER}`]
  .concat("--clear-groups", "--");
const NO_USERS = CANNOT_MOUNT ||
  (spawnSync(AS_USER[0]!, [...AS_USER.slice(1), "ls", ROOT]).status !== 0 &&
    "another user may not read this repository");

test(
  "A folder of root's that is ours to write keeps tokens, as on Kubernetes",
  {
    skip: NO_USERS,
  },
  () =>
    freePort().then((port) =>
      withSandbox((sandbox) =>
        withFolder(async (home) => {
          const folder = join(home, "store");
          await mkdir(folder);
          await chmod(home, 0o755);
          await chown(folder, 0, USER);
          await chmod(folder, 0o2775);
          const cache = join(home, "cache");
          await mkdir(cache);
          await chown(cache, USER, USER);
          const env = {
            ...sandbox.env,
            HOME: cache,
            DENO_DIR: cache,
            TIKTOK_SHOP_HOME: folder,
          };
          const run = (...args: string[]) =>
            start([...AS_USER, ...programCommand(args)], { env });
          const open = run("login", "--no-browser", "--port", `${port}`);
          const [link] = await open.until(/^http\S+authorize\S+$/m);
          await (await fetch(await sandbox.approve(link!))).text();
          const login = await open.ended;
          assert.equal(login.code, 0, login.stderr);
          const refresh = await run("refresh").ended;
          assert.equal(refresh.code, 0, refresh.stderr);
          assert.doesNotMatch(login.stderr + refresh.stderr, /permi|chmod/);
          const { mode, uid } = await stat(join(folder, FILE));
          assert.deepEqual([mode & 0o777, uid], [0o600, USER]);
          assert.equal((await stat(folder)).mode & 0o7777, 0o2775);
          const doctor = await run("doctor").ended;
          assert.match(doctor.stdout, /others may read [^>]*> it belongs to/);
          assert.doesNotMatch(doctor.stdout, /chmod/);
        }), { redirectUrl: `http://localhost:${port}/` })
    ),
);
