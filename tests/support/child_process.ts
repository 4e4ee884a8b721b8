/**
 * A child process that keeps tokens fresh, for tests that start, stop and kill
 * it; `child_processes.ts` starts it. It says "ready". For each order, a line
 * of JSON on stdin, it asks for access tokens and prints the outcome on one line.
 */
import { writeSync } from "node:fs";
import process from "node:process";
import type { TokenStore } from "../../mod.ts";
import type {
  Interruption,
  Job,
  Modules,
  Order,
  Outcome,
  Place,
} from "./child_processes.ts";

const job: Job & { modules: Modules } = JSON.parse(process.argv[2]!);
const { accessToken, fileStore, redisStore }: typeof import("../../mod.ts") =
  await import(job.modules.library);
let interruption: Interruption | undefined;
let calls = 0;

const { store, close } = await openStore();
print("ready");
// Each chunk is a whole line: the test waits for the answer to an order.
for await (const line of process.stdin) {
  const order: Order = JSON.parse(`${line}`);
  [interruption, calls] = [order.interruption, 0];
  do print(JSON.stringify(await work(order))); while (order.endless);
}
await close();

/** Asks as often as wanted, at once. */
async function work({ callers = 1, profile }: Order): Promise<Outcome> {
  const { options, app, hasteSince } = job;
  const now = hasteSince === undefined
    ? Date.now
    : () => hasteSince + (Date.now() - hasteSince) * 4_000_000;
  const ask = () => accessToken({ ...options, ...app, store, profile, now });
  const asked = await Promise.allSettled(Array.from({ length: callers }, ask));
  const outcome = {
    tokens: [] as string[],
    errors: [] as string[],
    unsaved: [] as string[],
  };
  for (const each of asked) {
    if (each.status === "fulfilled") outcome.tokens.push(each.value);
    else {
      const { kind, message, reply } = each.reason;
      outcome.errors.push(`${kind}: ${message}`);
      if (reply) outcome.unsaved.push(reply.data.refresh_token);
    }
  }
  const tokens = [...new Set(outcome.tokens)];
  // Only a test that makes calls fail asks how many there were.
  if (interruption?.error) return { ...outcome, calls, tokens };
  return { tokens, errors: outcome.errors };
}

/** Opens the store; none at all for the library's own. */
async function openStore(): Promise<
  { store?: TokenStore; close: () => Promise<void> }
> {
  const { place } = job;
  if ("redis" in place) {
    const client: typeof import("./redis_client.ts") = await import(
      job.modules.redis
    );
    const { redis, port, lease } = place;
    if (place.isCluster) {
      return await client.openClusterStore(redis, port, redisStore, lease);
    }
    const { command, close } = await client.connectRedis(redis, port);
    const counted = (...words: string[]) => (count(), command(...words));
    return { store: redisStore(counted, { lease }), close };
  }
  if ("database" in place) return await openDatabase(place);
  countCalls();
  const { folder, lease } = place;
  const store = folder === undefined ? undefined : fileStore(folder, { lease });
  return { store, close: () => Promise.resolve() };
}

/** Opens one of the examples. */
async function openDatabase(
  { database, at, lease }: Extract<Place, { database: string }>,
): Promise<{ store: TokenStore; close: () => Promise<void> }> {
  if (database === "sqlite") {
    const { DatabaseSync } = process.getBuiltinModule("node:sqlite");
    const { prepare } = DatabaseSync.prototype;
    DatabaseSync.prototype.prepare = function (sql) {
      count();
      return prepare.call(this, sql);
    };
    const { sqliteStore }: typeof import("../examples/sqlite_store.ts") =
      await import(job.modules.sqlite);
    const close = () => Promise.resolve();
    return { store: sqliteStore(at, { lease }), close };
  }
  const { openPool }: typeof import("./postgres.ts") = await import(
    job.modules.pool
  );
  const { postgresStore }: typeof import("../examples/postgres_store.ts") =
    await import(job.modules.postgres);
  const pool = openPool(at);
  const query: typeof pool.query = (...args) => (count(), pool.query(...args));
  return {
    store: postgresStore({ query }, { lease }),
    close: () => pool.end(),
  };
}

/** Stops or kills this process before the call that was ordered, or fails. */
function count(): void {
  if (++calls !== interruption?.call) return;
  const { error: code, signal } = interruption;
  if (code) throw Object.assign(new Error(`${code}: as ordered`), { code });
  print("interrupted");
  process.kill(process.pid, signal);
}

/** Prints at once; process.stdout might write later. */
function print(line: string): void {
  writeSync(1, `${line}\n`);
}

/**
 * Counts the calls of the file system, to crash between any two of them. Only
 * this process is changed.
 */
function countCalls(): void {
  const fs = process.getBuiltinModule("node:fs/promises");
  const { open } = fs;
  fs.open = async (...args: Parameters<typeof open>) => {
    const handle = await open(...args);
    countNamed(handle, ["writeFile", "sync", "truncate", "close"]);
    return handle;
  };
  // Not utimes: a timer calls it.
  const names = ["mkdir", "open", "readFile", "readdir", "realpath", "rename"];
  countNamed(fs, [...names, "rm", "rmdir", "stat", "unlink", "writeFile"]);
}

function countNamed(target: object, names: readonly string[]): void {
  const functions = target as Record<string, (...args: unknown[]) => unknown>;
  for (const name of names) {
    const original = functions[name]!.bind(target);
    // A call that fails rejects: it does not throw.
    functions[name] = async (...args) => (count(), await original(...args));
  }
}
