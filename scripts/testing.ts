/**
 * A test for a `TokenStore` of your own: does it keep every rule that the
 * library counts on? It needs no test framework. It throws an error that names
 * the broken rule.
 *
 * ```ts
 * import { memoryStore } from "tiktok-shop-oauth2";
 * import { testTokenStore } from "tiktok-shop-oauth2/testing";
 *
 * const store = memoryStore();
 * await testTokenStore(() => store);
 * ```
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import {
  accessToken,
  exchangeCode,
  memoryStore,
  type StoredTokens,
  type TokenLock,
  type TokenStore,
} from "../mod.ts";
import { type Sandbox, startSandbox } from "./sandbox.ts";

/**
 * Opens the store under test, as one more process would. Whatever is saved
 * through one handle can be loaded through the others. It may return the same
 * object each time.
 */
export type MakeTokenStore = () => TokenStore | Promise<TokenStore>;

/**
 * Tests a token store against every rule that the library counts on. It takes
 * a few seconds. Its profiles have names that begin with `conformance-`, and it
 * removes them; other profiles may be there. One rule it cannot test: what
 * happens to a lock when the process that holds it dies.
 *
 * @param makeStore opens handles on one and the same store
 * @throws {Error} that names the first rule that the store breaks; `cause` is
 * what the store itself threw
 */
export async function testTokenStore(makeStore: MakeTokenStore): Promise<void> {
  const fixture = new Fixture(makeStore);
  try {
    for (const [rule, test] of Object.entries(RULES)) {
      await test(fixture).catch((error) => {
        throw new Error(
          `The token store breaks the rule "${rule}": ${textOf(error)}`,
          { cause: error },
        );
      });
    }
  } finally {
    await fixture.clear();
  }
}

// === Handles, profiles and locks

const TIMEOUT_MS = 5000; // for what must happen
const QUIET_MS = 150; // in which what must not happen would have happened

/** What the rules use; it remembers what to remove afterwards. */
class Fixture {
  readonly #makeStore: MakeTokenStore;
  readonly #run = `conformance-${randomBytes(6).toString("hex")}`;
  readonly #profiles: string[] = [];
  readonly #locks: TokenLock[] = [];

  constructor(makeStore: MakeTokenStore) {
    this.#makeStore = makeStore;
  }

  /** Opens handles on the store. */
  async stores(count: number): Promise<TokenStore[]> {
    const stores: TokenStore[] = [];
    for (let i = 0; i < count; i++) stores.push(await this.#makeStore());
    return stores;
  }

  /** A profile name that no rule has used. */
  profile(end = ""): string {
    const name = `${this.#run}-${this.#profiles.length}${end}`;
    this.#profiles.push(name);
    return name;
  }

  /** The names in a list that this test has made. */
  own(names: readonly string[]): string[] {
    return names.filter((name) => name.startsWith(this.#run));
  }

  /** Takes a free lock. */
  async lock(
    store: TokenStore,
    profile: string,
    signal?: AbortSignal,
  ): Promise<TokenLock> {
    const waited = store.lock(profile, signal);
    const lock = await soon(waited, `lock("${profile}")`);
    this.#locks.push(lock);
    return lock;
  }

  /** Removes whatever the rules have left. */
  async clear(): Promise<void> {
    try {
      const [store] = await this.stores(1);
      for (const lock of this.#locks) await release(lock);
      for (const profile of this.#profiles) await store!.remove(profile);
    } catch {
      // The error of the broken rule says more.
    }
  }
}

/** Tokens with every value that is hard to keep; a number tells them apart. */
async function sample(number: number): Promise<StoredTokens> {
  const tokens: StoredTokens = {
    code: 0,
    message: "success",
    data: {
      access_token: `ROW_access+/=%20_${number}`,
      access_token_expire_in: 4_102_444_800 + number, // the year 2100
      refresh_token: `ROW_refresh_${number}`,
      refresh_token_expire_in: 253_402_300_799, // the year 9999
      open_id: "7010aAAAAAAQ5R2hZ0fV3kXw",
      seller_name: 'Žluťoučký "Kůň" \\ & Söhne 小店 🛍️\n\u2028 </script>',
      seller_base_region: "GB",
      user_type: 0,
      granted_scopes: ["seller.authorization.info", ""],
      not_known_yet: { list: [1.5, -0.25, true, null, [], {}], empty: "" },
      large: 7_495_540_735_365_777_507n + BigInt(number),
    },
    request_id: `2024${number}`,
    something_else: [{ larger: 10n ** 40n }],
    meta: { version: 1, app_key: "6f3k9d2m1x8q", obtained_at: 1_722_000_000 },
  };
  // Through a store of the library, whose tokens can be given to
  // `JSON.stringify` in spite of their large integers.
  const store = memoryStore();
  await store.save("sample", tokens);
  return (await store.load("sample"))!;
}

// === The rules

/** The rules, in the order in which they are tested. */
const RULES: Readonly<Record<string, (fixture: Fixture) => Promise<void>>> = {
  "load() gives undefined for a profile that nobody saved": testUnknown,
  "load() gives all that was saved, whatever its type": testWhole,
  "a save is seen by every handle at once": testShared,
  "save() replaces what was there as a whole": testReplace,
  "profiles are kept apart": testApart,
  "save() and load() copy": testCopies,
  "list() names every profile once, sorted": testList,
  "remove() forgets a profile and tells whether there was one": testRemove,
  "concurrent saves never mix": testMix,
  "each lock has an id of its own": testIds,
  "lock() has one holder at a time": testExclusion,
  "a lock is the profile's alone": testFreeProfiles,
  "a waiting lock() ends when its signal aborts": testAbort,
  "a caller that stops waiting for a lock lets nobody past": testAbortedQueue,
  "save() takes a lock that is held": testHeldSave,
  "save() refuses a lock that is not held": testLostSave,
  "releasing a lock twice frees nobody else's": testTwice,
  "accessToken() on two handles costs one refresh": testRefresh,
};

async function testUnknown(fixture: Fixture): Promise<void> {
  const [store] = await fixture.stores(1);
  const found = await store!.load(fixture.profile());
  expect(found === undefined, `load() gave ${textOf(found)}`);
}

async function testWhole(fixture: Fixture): Promise<void> {
  const [store] = await fixture.stores(1);
  const profile = fixture.profile("-Zürich.小店_1");
  const tokens = await sample(1);
  await store!.save(profile, tokens);
  expectSame(await store!.load(profile), tokens);
}

async function testShared(fixture: Fixture): Promise<void> {
  const [one, other] = await fixture.stores(2);
  const profile = fixture.profile();
  for (const number of [1, 2]) {
    await one!.save(profile, await sample(number));
    expectSame(await other!.load(profile), await sample(number));
    expectSame(await one!.load(profile), await sample(number));
  }
}

async function testReplace(fixture: Fixture): Promise<void> {
  const [store] = await fixture.stores(1);
  const profile = fixture.profile();
  await store!.save(profile, await sample(1));
  const { data, ...rest } = await sample(2);
  const { not_known_yet: _, ...less } = data;
  const tokens = { ...rest, data: { ...less, large: "", seller_name: null } };
  await store!.save(profile, tokens as unknown as StoredTokens);
  expectSame(await store!.load(profile), tokens);
}

async function testApart(fixture: Fixture): Promise<void> {
  const [store] = await fixture.stores(1);
  const profiles = [
    fixture.profile(),
    fixture.profile(".json"),
    fixture.profile(),
  ];
  for (const [i, profile] of profiles.entries()) {
    await store!.save(profile, await sample(i));
  }
  for (const [i, profile] of profiles.entries()) {
    expectSame(await store!.load(profile), await sample(i));
  }
}

async function testCopies(fixture: Fixture): Promise<void> {
  const [store] = await fixture.stores(1);
  const profile = fixture.profile();
  const saved = await sample(1);
  await store!.save(profile, saved);
  saved.data.access_token = "changed after save()";
  const loaded = await store!.load(profile);
  expectSame(loaded, await sample(1));
  loaded!.data.access_token = "changed after load()";
  expectSame(await store!.load(profile), await sample(1));
}

async function testList(fixture: Fixture): Promise<void> {
  const [one, other] = await fixture.stores(2);
  const profiles = ["-b", "-a10", "-ä", "-a9", "-A"].map((end) =>
    fixture.profile(end)
  );
  for (const profile of profiles) await one!.save(profile, await sample(1));
  const lock = await fixture.lock(one!, profiles[0]!);
  const names = await other!.list();
  await release(lock);
  const found = fixture.own(names).filter((name) => profiles.includes(name));
  expect(
    isDeepStrictEqual(found, profiles.toSorted()),
    `list() gave ${textOf(found)} of ${textOf(profiles.toSorted())}`,
  );
  expect(
    isDeepStrictEqual(names, [...new Set(names)].sort()),
    `list() gave ${textOf(names)}`,
  );
}

async function testRemove(fixture: Fixture): Promise<void> {
  const [one, other] = await fixture.stores(2);
  const profile = fixture.profile();
  expectIs(await one!.remove(profile), false, "remove() of none gave");
  await one!.save(profile, await sample(1));
  expectIs(await other!.remove(profile), true, "remove() gave");
  expectIs(await one!.load(profile), undefined, "load() then gave");
  expectIs((await one!.list()).includes(profile), false, "list() has it still");
  expectIs(await one!.remove(profile), false, "a second remove() gave");
}

async function testMix(fixture: Fixture): Promise<void> {
  const [one, two, ...readers] = await fixture.stores(4);
  const profile = fixture.profile();
  const samples = await Promise.all([1, 2, 3, 4].map(longSample));
  await one!.save(profile, samples[0]!);
  let writing = true;
  const write = async (store: TokenStore, first: number) => {
    for (let i = first; i < first + 8; i++) {
      await store.save(profile, samples[i % 4]!);
      await delay(2 * Math.random());
    }
  };
  const read = async (store: TokenStore) => {
    while (writing) {
      const found = await store.load(profile);
      const whole = samples.some((tokens) => isSame(found, tokens));
      expect(whole, `load() gave what nobody saved: ${textOf(found)}`);
      await delay(1);
    }
  };
  const written = Promise.all([write(one!, 0), write(two!, 2)])
    .finally(() => writing = false);
  await Promise.all([written, ...readers.map(read)]);
}

/** Too long to be written at once, and each of another length. */
async function longSample(number: number): Promise<StoredTokens> {
  const tokens = await sample(number);
  tokens.data.filler = String(number).repeat(number * 30_000);
  return tokens;
}

async function testIds(fixture: Fixture): Promise<void> {
  const [store] = await fixture.stores(1);
  const profile = fixture.profile();
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) {
    const lock = await fixture.lock(store!, profile);
    expect(lock.id !== "", "an id is empty");
    ids.push(lock.id);
    await release(lock);
  }
  expect(new Set(ids).size === ids.length, `the ids are ${textOf(ids)}`);
}

async function testExclusion(fixture: Fixture): Promise<void> {
  const stores = await fixture.stores(4);
  const profile = fixture.profile();
  let holders = 0;
  const visit = async (store: TokenStore) => {
    const lock = await fixture.lock(store, profile);
    expect(++holders === 1, `there were ${holders} at once`);
    await delay(QUIET_MS / 3);
    holders--;
    await release(lock);
  };
  await Promise.all([...stores, ...stores].map(visit));
}

async function testFreeProfiles(fixture: Fixture): Promise<void> {
  const [one, other] = await fixture.stores(2);
  const lock = await fixture.lock(one!, fixture.profile());
  await release(await fixture.lock(other!, fixture.profile()));
  await release(await fixture.lock(one!, fixture.profile()));
  await release(lock);
}

async function testAbort(fixture: Fixture): Promise<void> {
  const [one, other] = await fixture.stores(2);
  const profile = fixture.profile();
  const held = await fixture.lock(one!, profile);
  const abort = new AbortController();
  const waiting = outcome(other!.lock(profile, abort.signal));
  await delay(QUIET_MS);
  abort.abort("enough");
  const { value } = await soon(waiting, "the rejection");
  expect(value === undefined, "it got the lock that another one holds");
  await release(held);
  // It must not get the lock later either: no one would release it.
  await release(await fixture.lock(one!, profile));
}

async function testAbortedQueue(fixture: Fixture): Promise<void> {
  const [one, other] = await fixture.stores(2);
  const profile = fixture.profile();
  const held = await fixture.lock(one!, profile);
  const abort = new AbortController();
  const leaving = outcome(other!.lock(profile, abort.signal));
  abort.abort("enough");
  await soon(leaving, "the rejection");
  const next = fixture.lock(one!, profile);
  const early = await Promise.race([next, delay(QUIET_MS)]);
  expect(early === undefined, "the next one got what is still held");
  await release(held);
  await release(await next);
}

async function testHeldSave(fixture: Fixture): Promise<void> {
  const [store] = await fixture.stores(1);
  const profile = fixture.profile();
  const lock = await fixture.lock(store!, profile);
  for (const number of [1, 2]) {
    await store!.save(profile, await sample(number), lock);
    expectSame(await store!.load(profile), await sample(number));
  }
  await release(lock);
}

async function testLostSave(fixture: Fixture): Promise<void> {
  const [one, other] = await fixture.stores(2);
  const profile = fixture.profile();
  await one!.save(profile, await sample(1));
  const released = await fixture.lock(one!, profile);
  await release(released);
  await expectRefusal(one!, profile, released, "that was released");
  const held = await fixture.lock(other!, profile);
  await expectRefusal(one!, profile, released, "that is another's by now");
  await release(held);
  const foreign = await fixture.lock(one!, fixture.profile());
  await expectRefusal(one!, profile, foreign, "of another profile");
  await release(foreign);
}

async function testTwice(fixture: Fixture): Promise<void> {
  const [one, other] = await fixture.stores(2);
  const profile = fixture.profile();
  const first = await fixture.lock(one!, profile);
  await release(first);
  const second = await fixture.lock(other!, profile);
  await release(first);
  const next = fixture.lock(one!, profile);
  const early = await Promise.race([next, delay(QUIET_MS)]);
  expect(early === undefined, "the next one got what is still held");
  await one!.save(profile, await sample(1), second);
  await release(second);
  await release(await next);
}

async function testRefresh(fixture: Fixture): Promise<void> {
  const sandbox = await startSandbox({ latency: 50 });
  try {
    await testRefreshAt(sandbox, fixture);
  } finally {
    await sandbox.stop();
  }
}

async function testRefreshAt(
  sandbox: Sandbox,
  fixture: Fixture,
): Promise<void> {
  const stores = await fixture.stores(2);
  const profile = fixture.profile();
  const reply = await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
  const meta = { version: 1, app_key: sandbox.appKey, obtained_at: 1 };
  reply.data.access_token_expire_in = 2; // long ago
  await stores[0]!.save(profile, { ...reply, meta });
  const { appKey, appSecret, refreshEndpoint } = sandbox;
  const app = { appKey, appSecret, refreshEndpoint, profile };
  const callers = [...stores, ...stores].map((store) =>
    accessToken({ ...app, store })
  );
  const tokens = new Set(await soon(Promise.all(callers), "accessToken()"));
  const requests = sandbox.count(new URL(refreshEndpoint).pathname);
  expect(requests === 1, `there were ${requests} requests`);
  expect(tokens.size === 1, `there were ${tokens.size} tokens`);
  const stored = await stores[1]!.load(profile);
  expect(tokens.has(stored?.data.access_token ?? ""), "it was not saved");
}

// === Expectations

function expect(condition: boolean, message: string): void {
  if (!condition) throw new Error(message);
}

function expectIs(found: unknown, wanted: unknown, what: string): void {
  expect(found === wanted, `${what} ${textOf(found)}, not ${textOf(wanted)}`);
}

function expectSame(found: unknown, wanted: unknown): void {
  if (isSame(found, wanted)) return;
  throw new Error(`load() gave ${textOf(found)}, not ${textOf(wanted)}`);
}

async function expectRefusal(
  store: TokenStore,
  profile: string,
  lock: TokenLock,
  which: string,
): Promise<void> {
  const { error } = await outcome(store.save(profile, await sample(9), lock));
  const { kind } = (error ?? {}) as { kind?: unknown };
  expectIs(kind, "lock_lost", `save() with a lock ${which} rejected with kind`);
  expectSame(await store.load(profile), await sample(1));
}

/** Whether the JSON is the same; a store may load large integers as text. */
function isSame(a: unknown, b: unknown): boolean {
  return isDeepStrictEqual(plain(a), plain(b));
}

function plain(value: unknown): unknown {
  return value === undefined ? value : JSON.parse(jsonOf(value));
}

function jsonOf(value: unknown): string {
  return JSON.stringify(
    value,
    (_, member) => typeof member === "bigint" ? String(member) : member,
  );
}

/** A value or an error as one line that is not too long. */
function textOf(value: unknown): string {
  if (value instanceof Error) return value.message;
  const text = value === undefined ? "undefined" : jsonOf(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

/** How a promise ended. It never rejects. */
async function outcome<T>(
  promise: Promise<T>,
): Promise<{ value?: T; error?: unknown }> {
  return await promise.then((value) => ({ value }), (error) => ({ error }));
}

/** The value of a promise, which must come in time. */
async function soon<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(new Error(`${what} took longer than ${TIMEOUT_MS / 1000} s`)),
      TIMEOUT_MS,
    );
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function release(lock: TokenLock): Promise<void> {
  await soon(Promise.resolve(lock[Symbol.asyncDispose]()), "the release");
}

function delay(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), ms));
}
