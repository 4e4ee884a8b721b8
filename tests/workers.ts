/** Processes that keep tokens fresh, and what several tests do with them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import {
  type AccessTokenOptions,
  type AppCredentials,
  exchangeCode,
  type StoredTokens,
  type TokenStore,
} from "../mod.ts";
import type { Sandbox } from "../scripts/sandbox.ts";
import {
  type Ended,
  ROOT,
  type Running,
  runtimeCommand,
  start,
} from "./helpers.ts";

/** Where a worker finds the tokens: by default in the library's own store. */
export type Place =
  | { folder?: string; lease?: number }
  | { redis: "redis" | "ioredis"; port: number; lease?: number };

/** What a worker does to itself before a call of the file system or Redis. */
export interface Interruption {
  /** Which call, counted from 1. */
  call: number;
  signal: "SIGKILL" | "SIGSTOP";
}

/** What a worker is to do. */
export interface Job {
  place: Place;
  app: AppCredentials;
  /** Further options of `accessToken()`. */
  options: Pick<AccessTokenOptions, "refreshEndpoint" | "minValid" | "profile">;
  /** How many ask at once. @default {1} */
  callers?: number;
  /** Ask for ever. */
  endless?: boolean;
  interruption?: Interruption;
}

/** What came of it: the different tokens, and every error. */
export interface Outcome {
  tokens: string[];
  errors: { kind: string; message: string }[];
}

/** A worker, waiting. */
export interface Worker extends Running {
  /** Lets it begin. */
  go(): void;
  /** Whether it came to its interruption; else it has ended. */
  interrupted(): Promise<boolean>;
  /** What it printed, once it has ended. */
  outcome(): Promise<Outcome>;
}

/** Starts a worker and waits until it is ready. */
export async function startWorker(
  job: Job,
  env: Record<string, string> = {},
): Promise<Worker> {
  const command = runtimeCommand(join(ROOT, "tests", "worker.ts"));
  const words = [...command, JSON.stringify(job)];
  const running = start(words, { env, input: "open" });
  await running.until(/^ready$/m);
  return {
    ...running,
    go: () => void running.child.stdin!.write("go\n"),
    interrupted: () =>
      Promise.race([
        running.until(/^interrupted$/m).then(() => true),
        running.ended.then(({ stdout }) => /^interrupted$/m.test(stdout)),
      ]),
    outcome: async () => outcomeOf(await running.ended),
  };
}

function outcomeOf({ stdout, stderr }: Ended): Outcome {
  const line = stdout.trim().split("\n").at(-1)!;
  assert.match(line, /^\{/, `${stdout}${stderr}`);
  return JSON.parse(line);
}

/** Why no process can be stopped and continued here, or false. */
export const NO_STOPPING: string | false = process.platform === "win32"
  ? "Windows cannot stop a process"
  : false;

/** More calls of the file system or of Redis than a refresh makes. */
const MOST_CALLS = 32;
const AT_ONCE = 8;

/**
 * Runs something at the first, second, third call and so on, until it says
 * that there is no such call any more.
 */
export async function atEveryCall(
  run: (call: number) => Promise<boolean>,
): Promise<void> {
  let [call, found] = [0, 0];
  const lane = async () => {
    while (call < MOST_CALLS && await run(++call)) found++;
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  assert.ok(found > 3 && found < MOST_CALLS, `${found} calls were found`);
}

/** What a worker needs to know of a sandbox. */
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

/** Waits until something is so. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  what: string,
  ms = 15_000,
): Promise<void> {
  for (const limit = Date.now() + ms; Date.now() < limit;) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`It never came to this: ${what}`);
}
