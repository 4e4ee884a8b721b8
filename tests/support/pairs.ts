/**
 * Pairs of tokens that a host gives one after the other, for the tests of
 * "never lose a token": which of them must be there after a failure.
 */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { accessToken, fileStore } from "../../mod.ts";
import {
  answer,
  APP,
  type Host,
  type HostRequest,
  refusal,
  REPLY,
  withFolder,
  withHost,
} from "./token_host.ts";
import type { Job } from "./child_processes.ts";

/** Short, as a killed holder is waited for that long. */
export const LEASE = 1000;

/** The profile's file. */
export const FILE = "default.json";

/**
 * A token host that rotates. It takes a refresh token until the next one comes
 * back, since its answer may have gone to a process that was killed. It numbers
 * the pairs, so that two of them cannot be mixed up.
 */
export class PairHost {
  /** The refresh tokens that it still takes: the last two. */
  alive: string[] = ["refresh-0"];
  #given = 0;

  answer(request: HostRequest): Uint8Array {
    const token = request.query.get("refresh_token")!;
    if (!this.alive.includes(token)) {
      return refusal(36004005, "can not find related auth record");
    }
    this.alive = [token, `refresh-${++this.#given}`];
    return answer({ ...REPLY, data: pair(this.#given) });
  }

  /** The refresh token that was given last. */
  get last(): string {
    return this.alive.at(-1)!;
  }
}

function pair(number: number): typeof REPLY.data {
  return {
    ...REPLY.data,
    access_token: `access-${number}`,
    access_token_expire_in: Math.floor(Date.now() / 1000) + 7 * 86_400,
    refresh_token: `refresh-${number}`,
  };
}

/** Runs against a host and a file with its first pair. */
export function withPair<T>(
  run: (folder: string, host: Host, pairs: PairHost) => Promise<T>,
): Promise<T> {
  return withFolder((folder) => withPairIn(folder, run));
}

/** The same in a folder that is there. */
export async function withPairIn<T>(
  folder: string,
  run: (folder: string, host: Host, pairs: PairHost) => Promise<T>,
): Promise<T> {
  const pairs = new PairHost();
  const meta = { version: 1, app_key: APP.appKey, obtained_at: 1 };
  await fileStore(folder).save("default", { ...REPLY, data: pair(0), meta });
  return await withHost(
    (request) => pairs.answer(request),
    (host) => run(folder, host, pairs),
  );
}

/** When the clock of {@linkcode ALWAYS} was right. */
const BEGIN = Date.now();

/**
 * Options with which each call refreshes: the tokens live seven days, and by
 * this clock the hour until the next refresh is over in a millisecond.
 */
export const ALWAYS = {
  minValid: "8d",
  now: (): number => BEGIN + (Date.now() - BEGIN) * 4_000_000,
};

/** The job of a child process that refreshes this file. */
export function jobOf({ refreshEndpoint }: Host, folder: string): Job {
  const place = { folder, lease: LEASE };
  const { minValid } = ALWAYS;
  const options = { refreshEndpoint, minValid };
  return { place, app: APP, options, hasteSince: BEGIN };
}

/** The refresh token in the file, which is whole and not made of two pairs. */
export async function keptToken(folder: string): Promise<string> {
  const text = await readFile(join(folder, FILE), "utf8");
  const { data, meta } = JSON.parse(text);
  const { access_token, refresh_token } = data;
  assert.equal(access_token.replace("access", "refresh"), refresh_token);
  assert.equal(meta.app_key, APP.appKey);
  return refresh_token;
}

/** Asserts that the file is whole and has the last pair or the one before. */
export async function assertKept(
  folder: string,
  { alive }: PairHost,
): Promise<void> {
  const kept = await keptToken(folder);
  assert.ok(alive.includes(kept), `${kept}, not ${alive}`);
}

/** Asserts that the next refresh works, and tidies up. */
export async function assertUsable(
  folder: string,
  { refreshEndpoint }: Host,
  pairs: PairHost,
  tidied: (name: string) => boolean = () => false,
): Promise<void> {
  const store = fileStore(folder, { lease: LEASE });
  const ask = { ...APP, refreshEndpoint, store, ...ALWAYS };
  const token = await accessToken(ask);
  assert.equal(token.replace("access", "refresh"), pairs.last);
  await assertKept(folder, pairs);
  const names = (await readdir(folder)).filter((name) => !tidied(name));
  assert.deepEqual(names, [FILE]);
}
