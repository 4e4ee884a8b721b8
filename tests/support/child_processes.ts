/** Child processes that keep tokens fresh, and what tests do with them. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import {
  accessToken,
  type AccessTokenOptions,
  type AppCredentials,
  exchangeCode,
  type StoredTokens,
  type TokenStore,
} from "../../mod.ts";
import type { Sandbox } from "../../scripts/sandbox.ts";
import { ON_DENO, type Running, runtimeCommand, start } from "./helpers.ts";

/** Where it finds the tokens: by default in the library's own store. */
export type Place =
  | { folder?: string; lease?: number }
  | {
    redis: "redis" | "ioredis";
    port: number;
    lease?: number;
    /** Whether the port is that of a node of a cluster. */
    isCluster?: boolean;
  }
  | { database: "postgres" | "sqlite"; at: string; lease?: number };

/** What a child process is for. */
export interface Job {
  place: Place;
  app: AppCredentials;
  /** Further options of `accessToken()`. */
  options: Pick<AccessTokenOptions, "refreshEndpoint" | "minValid">;
  /** The time since which its clock runs four million times too fast. */
  hasteSince?: number;
}

/** What a child process is to do. */
export interface Order {
  profile?: string;
  /** How many ask at once. @default {1} */
  callers?: number;
  /** Ask for ever. */
  endless?: boolean;
  interruption?: Interruption;
}

/** What it does to itself before a call of the file system or a database. */
export interface Interruption {
  /** Which call, counted from 1. */
  call: number;
  signal?: "SIGKILL" | "SIGSTOP";
  /** Or how the call fails, such as `ENOSPC`. */
  error?: string;
}

/** The outcome of an order: the different tokens, and every error. */
export interface Outcome {
  tokens: string[];
  errors: string[];
  /** The refresh tokens that errors handed over, as they could not be kept. */
  unsaved?: string[];
  /** How many calls of the file system or a database it took. */
  calls?: number;
}

/** A child process, waiting for orders. */
export interface Child extends Running {
  /** Orders something; see {@linkcode Child.next}. */
  order(order?: Order): void;
  /** The next outcome; undefined if the process is interrupted first. */
  next(): Promise<Outcome | undefined>;
  signal(name: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void;
}

/** Starts a child process and waits until it is ready. */
export async function startChild(
  job: Job,
  env: Record<string, string> = {},
): Promise<Child> {
  modules ??= ON_DENO ? MODULES : withoutTypes(MODULES);
  const words = runtimeCommand(fileURLToPath(modules.child));
  words.push(JSON.stringify({ ...job, modules }));
  const running = start(words, { env, input: "open" });
  await running.until(/^ready$/m);
  let read = 1;
  const next = async () => {
    const line = new RegExp(`^(?:.*\\n){${read++}}(.*)\\n`);
    const [, text] = await untilPrinted(running, line);
    return text === "interrupted" ? undefined : JSON.parse(text!);
  };
  const order = (order: Order = {}) =>
    void running.child.stdin!.write(`${JSON.stringify(order)}\n`);
  // Not child.kill(), with which Deno closes the pipes as well.
  const signal: Child["signal"] = (name) =>
    void process.kill(running.child.pid!, name);
  return { ...running, order, next, signal };
}

/** The modules of a child process, as URLs. */
export interface Modules {
  child: string;
  library: string;
  redis: string;
  pool: string;
  postgres: string;
  sqlite: string;
}

const MODULES: Modules = {
  child: new URL("child_process.ts", import.meta.url).href,
  library: new URL("../../mod.ts", import.meta.url).href,
  redis: new URL("redis_client.ts", import.meta.url).href,
  pool: new URL("postgres.ts", import.meta.url).href,
  postgres: new URL("../examples/postgres_store.ts", import.meta.url).href,
  sqlite: new URL("../examples/sqlite_store.ts", import.meta.url).href,
};

let modules: Modules | undefined;

/**
 * The same modules as JavaScript: Node needs ten times as long to remove types
 * as for the rest of a start, and the tests start a hundred processes.
 */
function withoutTypes(modules: Modules): Modules {
  const { stripTypeScriptTypes } = process.getBuiltinModule(
    "node:module",
  ) as unknown as { stripTypeScriptTypes: (text: string) => string };
  const folder = mkdtempSync(join(tmpdir(), "tiktok-shop-child-"));
  process.once("exit", () => rmSync(folder, { recursive: true }));
  const strip = (module: string, name: string) => {
    const file = join(folder, name);
    const text = readFileSync(new URL(module), "utf8")
      .replace('"../../mod.ts"', '"./mod.mjs"');
    writeFileSync(file, stripTypeScriptTypes(text));
    return pathToFileURL(file).href;
  };
  return {
    ...modules,
    child: strip(modules.child, "child_process.mjs"),
    library: strip(modules.library, "mod.mjs"),
    postgres: strip(modules.postgres, "postgres_store.mjs"),
    sqlite: strip(modules.sqlite, "sqlite_store.mjs"),
  };
}

async function untilPrinted(
  { output, ended }: Running,
  pattern: RegExp,
): Promise<RegExpExecArray> {
  let over = false;
  ended.then(() => over = true);
  await eventually(() => over || pattern.test(output.stdout), `${pattern}`);
  const match = pattern.exec(output.stdout);
  assert.ok(match, `No ${pattern} in ${output.stdout}${output.stderr}`);
  return match;
}

/** Starts child processes, and ends them in any case. */
export async function withChildren<T>(
  starting: Promise<Child>[],
  run: (children: [Child, ...Child[]]) => Promise<T>,
): Promise<T> {
  const children = await Promise.all(starting);
  try {
    return await run(children as [Child, ...Child[]]);
  } finally {
    for (const { child } of children) child.kill("SIGKILL");
    await Promise.all(children.map(({ ended }) => ended));
  }
}

/** Continues a child process that has said that it stops itself. */
export async function goOn(child: Child): Promise<Outcome | undefined> {
  // More than once: it says so first, and stops a moment later.
  const again = () => child.signal("SIGCONT");
  const timer = setInterval(again, 100);
  try {
    again();
    return await child.next();
  } finally {
    clearInterval(timer);
  }
}

/**
 * Takes over the lock of a stopped child process and continues the process
 * while the lock is held: it must change nothing. Then newer tokens are saved,
 * and the process must leave them alone as well.
 */
export async function overtake(
  store: TokenStore,
  profile: string,
  child: Child,
): Promise<Outcome | undefined> {
  const lock = await store.lock(profile);
  const tokens = (await store.load(profile))!;
  const going = goOn(child);
  await new Promise((resolve) => setTimeout(resolve, 150));
  assert.deepEqual(await store.load(profile), tokens);
  const now = Math.floor(Date.now() / 1000);
  const data = {
    ...tokens.data,
    access_token: "ROW_newer",
    access_token_expire_in: now + 7 * 86_400,
  };
  const meta = { ...tokens.meta, obtained_at: now + 60 };
  await store.save(profile, { ...tokens, data, meta }, lock);
  await lock[Symbol.asyncDispose]();
  return await going;
}

/** Why no process can be stopped and continued here, or false. */
export const NO_STOPPING: string | false = process.platform === "win32"
  ? "Windows cannot stop a process"
  : false;

/** More calls of the file system or a database than a refresh makes. */
const MOST_CALLS = 80;

/**
 * Runs something at the first, second, third call and so on, in several lanes
 * at once, until there is no such call any more (`run` returns false).
 */
export async function atEveryCall(
  lanes: number,
  run: (call: number, lane: number) => Promise<boolean>,
): Promise<void> {
  let [call, found] = [0, 0];
  const walk = async (_: unknown, lane: number) => {
    while (call < MOST_CALLS && await run(++call, lane)) found++;
  };
  await Promise.all(Array.from({ length: lanes }, walk));
  assert.ok(found > 3 && found < MOST_CALLS, `${found} calls were found`);
}

/**
 * Lets a child process stop before one of its calls for longer than a lease:
 * whoever refreshed meanwhile keeps the newer token.
 */
export async function stopAt(
  call: number,
  child: Child,
  sandbox: Sandbox,
  store: TokenStore,
): Promise<boolean> {
  const profile = `stopped-${call}`;
  await keepExpired(sandbox, store, profile);
  child.order({ profile, interruption: { call, signal: "SIGSTOP" } });
  if (await child.next()) return false;
  const outcome = await overtake(store, profile, child);
  assert.deepEqual(outcome!.errors, []);
  const kept = await store.load(profile);
  assert.equal(kept?.data.access_token, "ROW_newer");
  return true;
}

/**
 * Kills a child process before one of its calls: the next process gets a token
 * for the profile, and what is kept is that token.
 */
export async function killAt(
  call: number,
  starting: Promise<Child>,
  sandbox: Sandbox,
  store: TokenStore,
): Promise<boolean> {
  const profile = `killed-${call}`;
  await keepExpired(sandbox, store, profile);
  return await withChildren([starting], async ([child]) => {
    child.order({ profile, interruption: { call, signal: "SIGKILL" } });
    if (await child.next()) return false;
    await child.ended;
    const token = await accessToken({ ...askAt(sandbox, store), profile });
    assert.equal((await store.load(profile))?.data.access_token, token);
    const lock = await store.lock(profile);
    await lock[Symbol.asyncDispose]();
    return true;
  });
}

/** What a child process needs to know of a sandbox. */
export function jobAt(sandbox: Sandbox, place: Place): Job {
  const { appKey, appSecret, refreshEndpoint } = sandbox;
  return { place, app: { appKey, appSecret }, options: { refreshEndpoint } };
}

/** The options of `accessToken()` at a sandbox. */
export function askAt(
  sandbox: Sandbox,
  store: TokenStore,
): AccessTokenOptions {
  const { appKey, appSecret, refreshEndpoint } = sandbox;
  return { appKey, appSecret, refreshEndpoint, store };
}

/** How many refreshes a sandbox was asked for. */
export function refreshCount(sandbox: Sandbox): number {
  return sandbox.count(new URL(sandbox.refreshEndpoint).pathname);
}

/** Saves tokens of a sandbox whose access token has expired. */
export async function keepExpired(
  sandbox: Sandbox,
  store: TokenStore,
  profile = "default",
): Promise<StoredTokens> {
  const reply = await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
  const now = Math.floor(Date.now() / 1000);
  reply.data.access_token_expire_in = now - 60;
  const meta = {
    version: 1,
    app_key: sandbox.appKey,
    obtained_at: now - 7 * 86_400,
  };
  await store.save(profile, { ...reply, meta });
  return (await store.load(profile))!;
}

/** Waits until a condition holds. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  what: string,
  ms = 120_000,
): Promise<void> {
  for (const limit = Date.now() + ms; Date.now() < limit;) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`It never came to this: ${what}`);
}
