/**
 * A process that keeps tokens fresh, for tests that start, stop and kill it;
 * `workers.ts` starts it. It says "ready", waits for a line on stdin, asks for
 * access tokens and prints what came of it as one line of JSON.
 */
import { writeSync } from "node:fs";
import process from "node:process";
import { accessToken, fileStore, redisStore, type TokenStore } from "../mod.ts";
import { connectRedis } from "./redis_client.ts";
import type { Interruption, Job, Outcome, Place } from "./workers.ts";

const job: Job = JSON.parse(process.argv[2]!);
const { store, close } = await openStore(job.place);

console.log("ready");
await new Promise((resolve) => process.stdin.once("data", resolve));
process.stdin.pause();
if (job.interruption && !("redis" in job.place)) countCalls(job.interruption);
do console.log(JSON.stringify(await work())); while (job.endless);
await close();

/** Asks as often as wanted, at once. */
async function work(): Promise<Outcome> {
  const ask = () => accessToken({ ...job.options, ...job.app, store });
  const asked = Array.from({ length: job.callers ?? 1 }, ask);
  const outcome: Outcome = { tokens: [], errors: [] };
  for (const { value, reason } of await settled(asked)) {
    if (value) outcome.tokens.push(value);
    else outcome.errors.push({ kind: reason.kind, message: `${reason}` });
  }
  outcome.tokens = [...new Set(outcome.tokens)];
  return outcome;
}

// deno-lint-ignore no-explicit-any -- of a failure nothing is known
type Settled = { value?: string; reason?: any };

async function settled(promises: Promise<string>[]): Promise<Settled[]> {
  return await Promise.allSettled(promises);
}

/** Opens the store; none at all for the library's own. */
async function openStore(
  place: Place,
): Promise<{ store?: TokenStore; close: () => Promise<void> }> {
  if ("redis" in place) {
    const { port, lease } = place;
    const { command, close } = await connectRedis(place.redis, port);
    const interrupt = interruptor(job.interruption);
    const counted = (...words: string[]) => (interrupt(), command(...words));
    return { store: redisStore(counted, { lease }), close };
  }
  const { folder, lease } = place;
  const store = folder === undefined ? undefined : fileStore(folder, { lease });
  return { store, close: () => Promise.resolve() };
}

/** Stops or kills this process at its nth call. */
function interruptor(interruption?: Interruption): () => void {
  let calls = 0;
  return () => {
    if (++calls !== interruption?.call) return;
    // Not by process.stdout, which might write it later.
    writeSync(1, "interrupted\n");
    process.kill(process.pid, interruption.signal);
  };
}

/**
 * Counts the calls of the file system, to be interrupted before the nth one:
 * a crash between any two of them can be had in no other way. Only this
 * process is changed by it.
 */
function countCalls(interruption: Interruption): void {
  const interrupt = interruptor(interruption);
  const wrap = (target: object, names: readonly string[]) => {
    const functions = target as Record<string, (...args: unknown[]) => unknown>;
    for (const name of names) {
      const original = functions[name]!.bind(target);
      functions[name] = (...args) => (interrupt(), original(...args));
    }
  };
  const fs = process.getBuiltinModule("node:fs/promises");
  const { open } = fs;
  fs.open = async (...args: Parameters<typeof open>) => {
    const handle = await open(...args);
    wrap(handle, ["writeFile", "sync", "close"]);
    return handle;
  };
  // Not utimes: a timer calls it.
  const names = ["mkdir", "open", "readFile", "readdir", "realpath", "rename"];
  wrap(fs, [...names, "rm", "rmdir", "stat", "unlink", "writeFile"]);
}
