import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmod, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { accessToken, fileStore } from "../mod.ts";
import type { Sandbox } from "../scripts/sandbox.ts";
import { type Ended, runProgram } from "./helpers.ts";
import { Dice, howOften, note, SEED } from "./hostile.ts";
import {
  ALWAYS,
  assertKept,
  assertUsable,
  FILE,
  jobOf,
  type PairHost,
  withPair,
} from "./pairs.ts";
import {
  failure,
  type Host,
  REPLY,
  withFolder,
  withSandbox,
} from "./token_host.ts";
import {
  askAt,
  atEveryCall,
  keepExpired,
  refreshCount,
  startWorker,
  withWorkers,
} from "./workers.ts";

// === Killed at any point

test("a process killed before any call of the file system loses no token", () =>
  atEveryCall(
    8,
    (call) =>
      withPair((folder, host, pairs) =>
        withWorkers([startWorker(jobOf(host, folder))], async ([worker]) => {
          worker.order({ interruption: { call, signal: "SIGKILL" } });
          if (await worker.next()) return false;
          await worker.ended;
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
    const dice = new Dice(SEED + lane);
    return withPair(async (folder, host, pairs) => {
      for (let round = lane; round < ROUNDS; round += LANES) {
        await killOnce(folder, host, pairs, dice.below(60_000) / 1000);
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
  await withWorkers([startWorker(jobOf(host, folder))], async ([worker]) => {
    worker.order({ endless: true });
    const first = await worker.next();
    assert.deepEqual(first?.errors, [], `seed ${SEED}`);
    await new Promise((resolve) => setTimeout(resolve, delay));
    worker.child.kill("SIGKILL");
    await worker.ended;
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

test("the refresh command prints what a full disk does not take", {
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
      assert.equal(code, 1);
      assert.match(stderr, /Cannot save the tokens to .*no space left/i);
      const { data } = JSON.parse(stdout);
      assert.notEqual(data.refresh_token, JSON.parse(before).refresh_token);
      assert.ok(!stderr.includes(data.access_token));
      assert.equal(await readFile(join(folder, FILE), "utf8"), before);
      assert.deepEqual(await readdir(folder), [FILE]);
    })
  ));

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
