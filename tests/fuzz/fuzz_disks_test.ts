/**
 * Disks that fail: at every call of a save and of a lock, when they are full
 * at any byte, when a process may open or write no more, and when a folder's
 * permissions forbid it. No token is lost; see never_lose_test.ts for
 * processes that are killed.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmod,
  readdir,
  rm,
  stat,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { accessToken, fileStore, TikTokShopError } from "../../mod.ts";
import {
  type Ended,
  ON_WINDOWS,
  programCommand,
  start,
} from "../support/helpers.ts";
import { howOften, note, Random, SEED, SOAKING } from "../support/fuzz.ts";
import {
  ALWAYS,
  assertKept,
  assertUsable,
  FILE,
  jobOf,
  keptToken,
  LEASE,
  type PairHost,
  withPair,
  withPairIn,
} from "../support/pairs.ts";
import { APP, type Host, withFolder } from "../support/token_host.ts";
import {
  type Child,
  type Outcome,
  startChild,
  withChildren,
} from "../support/child_processes.ts";

const COUNT = howOften(40);
const IS_ROOT = process.getuid?.() === 0;

/** What a refresh that could not clean up may leave; others sweep it up. */
const isLeft = (name: string) => /^\.default\.json\..*\.tmp$/.test(name);

// === At every call

const ERRORS = ["ENOSPC", "EIO", "EACCES", "EMFILE", "EROFS", "EDQUOT"];
/** More calls of the file system than a refresh makes. */
const MOST_CALLS = 80;

for (const error of SOAKING ? ERRORS : ERRORS.slice(0, 3)) {
  test(`accessToken() loses no token by ${error} of any file call`, () =>
    withPair((folder, host, pairs) =>
      withChildren([startChild(jobOf(host, folder))], async ([child]) => {
        let call = 1;
        while (await failAt(call, error, child, folder, pairs)) {
          await assertUsable(folder, host, pairs, isLeft);
          call++;
        }
        assert.ok(call > 5 && call < MOST_CALLS, `${call} calls were found`);
        note(`calls that failed by ${error}`, call - 1);
      })
    ));
}

/** Refreshes with one call that fails; false if there is no such call. */
async function failAt(
  call: number,
  error: string,
  child: Child,
  folder: string,
  pairs: PairHost,
): Promise<boolean> {
  const before = pairs.last;
  child.order({ interruption: { call, error } });
  const outcome = (await child.next())!;
  const found = (outcome.calls ?? 0) >= call;
  const at = `call ${call}, ${JSON.stringify(outcome)}`;
  if (!found) assert.deepEqual(outcome.errors, [], at);
  await assertNothingLost(outcome, folder, pairs, before, at);
  return found;
}

/** The caller or the file has the tokens that the host gave. */
async function assertNothingLost(
  { tokens, errors, unsaved }: Pick<Outcome, "tokens" | "errors" | "unsaved">,
  folder: string,
  pairs: PairHost,
  before: string,
  at: string,
): Promise<void> {
  await assertKept(folder, pairs);
  const kept = await keptToken(folder);
  if (tokens.length > 0) {
    assert.deepEqual(tokens.map((each) => each.replace("access", "refresh")), [
      pairs.last,
    ], at);
    assert.equal(kept, pairs.last, `given, but not kept: ${at}`);
    return;
  }
  assert.match(errors.join(), /^(store|lock_lost): /, at);
  const asked = pairs.last !== before;
  if (asked) assert.ok([...unsaved ?? [], kept].includes(pairs.last), at);
  else assert.equal(kept, before, at);
}

// === Full at any byte

const CANNOT_MOUNT = IS_ROOT && process.platform === "linux" &&
    spawnSync("unshare", ["--mount", "true"]).status === 0
  ? false
  : "only root can make a small disk, and only on Linux";

test(
  `accessToken() loses no token on ${COUNT} disks that are full, seed ${SEED}`,
  {
    skip: CANNOT_MOUNT,
  },
  () =>
    withFolder(async (disk) => {
      // Sixteen pages, and some names besides those of a refresh.
      const options = ["-t", "tmpfs", "-o", "size=64k,nr_inodes=12", "tmpfs"];
      const { status, stderr } = spawnSync("mount", [...options, disk]);
      assert.equal(status, 0, `${stderr}`);
      const random = new Random();
      try {
        const ends = await withPairIn(join(disk, "store"), async (...scene) => {
          const ends = { kept: 0, handed: 0, refused: 0 };
          for (let n = 0; n < COUNT; n++) {
            ends[await fillDisk(random, ...scene)]++;
          }
          return ends;
        });
        for (const [end, count] of Object.entries(ends)) {
          note(`full disks: tokens ${end}`, count);
        }
        assert.ok(ends.kept > 0 && ends.refused > 0, JSON.stringify(ends));
        // No tokens were asked for where none could be saved.
        assert.equal(ends.handed, 0);
      } finally {
        spawnSync("umount", ["--lazy", disk]);
      }
    }),
);

/** Leaves some bytes and names free, refreshes, and makes room again. */
async function fillDisk(
  random: Random,
  folder: string,
  host: Host,
  pairs: PairHost,
): Promise<"kept" | "handed" | "refused"> {
  const before = pairs.last;
  const filled = await fill(random, join(folder, ".."));
  const outcome = await refreshOnce(folder, host);
  const at = JSON.stringify(outcome);
  await assertNothingLost(outcome, folder, pairs, before, at);
  assert.deepEqual(await readdir(folder), [FILE], at);
  for (const file of filled) await rm(file, { force: true });
  await assertUsable(folder, host, pairs);
  if (outcome.tokens.length > 0) return "kept";
  return outcome.unsaved!.length > 0 ? "handed" : "refused";
}

const PAGE = 4096; // bytes

/** Fills a disk, except some names and pages; returns the files to remove. */
async function fill(random: Random, disk: string): Promise<string[]> {
  const files: string[] = [];
  const names = random.oneIn(3) ? random.below(12) : 0;
  for (let n = 0; n < names; n++) {
    const file = join(disk, `name ${n}`);
    const made = await writeFile(file, "").then(() => true, () => false);
    if (!made) break;
    files.push(file);
  }
  const file = join(disk, "pages");
  await writeFile(file, new Uint8Array(1 << 17)).catch(() => {});
  const { size } = await stat(file).catch(() => ({ size: 0 }));
  const free = random.below(4) * PAGE;
  await truncate(file, Math.max(0, size - free)).catch(() => {});
  return [...files, file];
}

/** One refresh in this process. */
async function refreshOnce(
  folder: string,
  { refreshEndpoint }: Host,
): Promise<Pick<Outcome, "tokens" | "errors" | "unsaved">> {
  const store = fileStore(folder, { lease: LEASE });
  try {
    const ask = { ...APP, refreshEndpoint, store, ...ALWAYS };
    return { tokens: [await accessToken(ask)], errors: [], unsaved: [] };
  } catch (error) {
    assert.ok(error instanceof TikTokShopError, String(error));
    const { kind, message, reply } = error;
    const unsaved = reply ? [reply.data.refresh_token] : [];
    return { tokens: [], errors: [`${kind}: ${message}`], unsaved };
  }
}

// === The program, held short

type Scene = readonly [folder: string, host: Host, pairs: PairHost];

/** Runs `refresh` behind another command. */
function refreshBehind(
  wrapper: string[],
  [folder, { refreshEndpoint }]: Scene,
): Promise<Ended> {
  const env = {
    HOME: folder,
    TIKTOK_SHOP_HOME: folder,
    TIKTOK_SHOP_APP_SECRET: APP.appSecret,
    TIKTOK_SHOP_REFRESH_ENDPOINT: refreshEndpoint,
  };
  return start([...wrapper, ...programCommand(["refresh"])], { env }).ended;
}

/** What the host gave is in the file or on stdout; both, if all is well. */
async function assertProgramLosesNothing(
  wrapper: string[],
  scene: Scene,
  restore: () => Promise<unknown> = () => Promise.resolve(),
): Promise<void> {
  const [folder, , pairs] = scene;
  const before = pairs.last;
  const { code, stdout, stderr } = await refreshBehind(wrapper, scene);
  await restore();
  await assertKept(folder, pairs);
  const inFile = await keptToken(folder) === pairs.last;
  const printed = stdout.includes(`"${pairs.last}"`);
  const asked = pairs.last !== before;
  const at = `${wrapper.join(" ")}: ${code}, ${stderr}`;
  if (asked) assert.ok(inFile || printed, at);
  if (code === 0) assert.ok(asked && inFile && printed, at);
}

/** Limits of a process: sizes of files in blocks, and open files. */
const LIMITS = [
  ...["-f 0", "-f 1", "-f 2", "-f 3", "-f 4"],
  ...["-n 16", "-n 20", "-n 24", "-n 28", "-n 32", "-n 40"],
];

test("The program loses no token when it may open or write no more", {
  skip: ON_WINDOWS && "Windows has no such limits",
}, () =>
  withPair(async (...scene) => {
    for (const limit of LIMITS) {
      // Without the trap, a write beyond the limit would kill the process.
      const line = `ulimit ${limit}; trap "" XFSZ; exec "$@"`;
      await assertProgramLosesNothing(["sh", "-c", line, "sh"], scene);
      await assertUsable(...scene, isLeft);
    }
    note("limits of a process", LIMITS.length);
  }));

/** Root without the power to do all. */
const AS_OWNER = IS_ROOT
  ? ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
  : [];
const [SETPRIV = "true", ...POWERLESS] = AS_OWNER;
const NO_PERMISSIONS = ON_WINDOWS
  ? "Windows has no such permissions"
  : spawnSync(SETPRIV, [...POWERLESS, "true"]).status !== 0 &&
    "setpriv cannot take root's power";

const MODES = [0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600];

test("The program loses no token by any permissions", {
  skip: NO_PERMISSIONS,
}, () =>
  withPair(async (...scene) => {
    const [folder] = scene;
    for (
      const [path, usual] of [[folder, 0o700], [join(folder, FILE), 0o600]]
    ) {
      for (const mode of MODES) {
        await chmod(path as string, mode);
        const restore = () => chmod(path as string, usual!);
        await assertProgramLosesNothing(AS_OWNER, scene, restore);
        await assertUsable(...scene);
      }
    }
    note("permissions", 2 * MODES.length);
  }));
