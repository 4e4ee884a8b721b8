import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { test } from "node:test";
import {
  fileStore,
  memoryStore,
  type StoredTokens,
  type TokenLock,
  type TokenStore,
} from "../../mod.ts";
import { testTokenStore } from "../../scripts/testing.ts";
import { withFolder } from "../support/token_host.ts";

// === Stores that hold

test("testTokenStore() accepts memoryStore()", async () => {
  const store = memoryStore();
  await testTokenStore(() => store);
});

test("testTokenStore() accepts fileStore(), and leaves nothing there", () =>
  withFolder(async (folder) => {
    const tokens = { data: { access_token: "ROW_mine" }, meta: {} };
    await fileStore(folder).save("mine", tokens as unknown as StoredTokens);
    await testTokenStore(() => fileStore(folder));
    assert.deepEqual(await fileStore(folder).load("mine"), tokens);
    assert.deepEqual(await readdir(folder), ["mine.json"]);
  }));

test("testTokenStore() accepts a store that gives large integers as text", async () => {
  const { store } = plainStore();
  await testTokenStore(() => Promise.resolve(store));
});

/** A store as its user might write it: JSON in a map, and the rest borrowed. */
function plainStore(): { store: TokenStore; texts: Map<string, string> } {
  const texts = new Map<string, string>();
  const other = memoryStore();
  const store: TokenStore = {
    ...other,
    load: (profile) => {
      const text = texts.get(profile);
      return Promise.resolve(text === undefined ? undefined : JSON.parse(text));
    },
    save: async (profile, tokens, lock) => {
      await other.save(profile, tokens, lock);
      texts.set(profile, JSON.stringify(tokens));
    },
    remove: async (profile) => {
      await other.remove(profile);
      return texts.delete(profile);
    },
  };
  return { store, texts };
}

// === Stores that are broken

/** What is changed of a good store, which is given. */
type Breaker = (good: TokenStore) => Partial<TokenStore>;

const ONE_HOLDER = "lock() has one holder at a time";
const LOST = "save() refuses a lock that is not held";
const WHOLE = "load() gives all that was saved, whatever its type";

/** The rule, what breaks it, and how. */
const BROKEN: [rule: string, what: string, Breaker][] = [
  [
    "load() gives undefined for a profile that nobody saved",
    "null for nothing",
    ({ load }) => ({
      load: async (profile) => await load(profile) ?? null as never,
    }),
  ],
  [
    WHOLE,
    "known members only",
    saveOther(({ code, data, meta, ...rest }) => {
      const { access_token, refresh_token } = data;
      const less = { access_token, refresh_token };
      return { ...rest, code, data: less as StoredTokens["data"], meta };
    }),
  ],
  [
    WHOLE,
    "rounded integers",
    saveOther((tokens) => {
      const large = Number(tokens.data.large);
      return { ...tokens, data: { ...tokens.data, large } };
    }),
  ],
  [
    WHOLE,
    "one byte a character",
    saveOther((tokens) => {
      const bytes = new TextEncoder().encode(JSON.stringify(tokens));
      return JSON.parse(String.fromCharCode(...bytes));
    }),
  ],
  [
    "save() replaces what was there as a whole",
    "members of before",
    ({ load, save }) => ({
      save: async (profile, tokens, lock) => {
        const { data } = await load(profile) ?? {};
        const mixed = { ...tokens, data: { ...data, ...tokens.data } };
        return await save(profile, mixed, lock);
      },
    }),
  ],
  [
    "profiles are kept apart",
    "names without an ending",
    (good) => {
      const bare = (name: string) => name.replace(/\.json$/, "");
      const { load, save } = good;
      const firstOf = (name: string) => name.replace(/-\d+$/, "");
      return {
        load: (profile) => load(firstOf(bare(profile))),
        save: (profile, ...rest) => save(firstOf(bare(profile)), ...rest),
      };
    },
  ],
  ["save() and load() copy", "the object that it was given", () => {
    const kept = new Map<string, StoredTokens>();
    return {
      load: (profile) => Promise.resolve(kept.get(profile)),
      save: (profile, tokens) =>
        Promise.resolve(void kept.set(profile, tokens)),
    };
  }],
  [
    "list() names every profile once, sorted",
    "the order of saving",
    ({ save }) => {
      const names = new Set<string>();
      return {
        save: (
          profile,
          ...rest
        ) => (names.add(profile), save(profile, ...rest)),
        list: () => Promise.resolve([...names]),
      };
    },
  ],
  [
    "list() names every profile once, sorted",
    "names twice",
    ({ list }) => ({
      list: async () => (await list()).flatMap((name) => [name, name]),
    }),
  ],
  [
    "list() names every profile once, sorted",
    "no names at all",
    () => ({ list: () => Promise.resolve([]) }),
  ],
  [
    "remove() forgets a profile and tells whether there was one",
    "always true",
    ({ remove }) => ({ remove: async (name) => (await remove(name), true) }),
  ],
  [
    "remove() forgets a profile and tells whether there was one",
    "nothing removed",
    ({ load }) => ({ remove: async (name) => Boolean(await load(name)) }),
  ],
  ["concurrent saves never mix", "two steps", ({ load, save }) => ({
    save: async (profile, tokens, lock) => {
      const { data } = await load(profile) ?? tokens;
      await save(profile, { ...tokens, data }, lock);
      await pause(5);
      await save(profile, tokens, lock);
    },
  })],
  [
    "each lock has an id of its own",
    "the profile for an id",
    ({ lock }) => ({
      lock: async (profile, signal) =>
        renamed(await lock(profile, signal), profile),
    }),
  ],
  [ONE_HOLDER, "no lock", () => ({
    lock: () => Promise.resolve(lockWith(() => {})),
  })],
  [ONE_HOLDER, "a lock that ends by itself", ({ lock }) => ({
    lock: async (profile, signal) => {
      const held = await lock(profile, signal);
      setTimeout(() => held[Symbol.asyncDispose](), 10);
      return held;
    },
  })],
  [
    "a lock is the profile's alone",
    "one lock for all",
    ({ lock }) => ({ lock: (_, signal) => lock("all", signal) }),
  ],
  [
    "a waiting lock() ends when its signal aborts",
    "no ear for signals",
    ({ lock }) => ({ lock: (profile) => lock(profile) }),
  ],
  [
    "a caller that stops waiting for a lock lets nobody past",
    "a queue that forgets",
    forgetfulQueue,
  ],
  [LOST, "no look at the lock", ({ save }) => ({
    save: (profile, tokens) => save(profile, tokens),
  })],
  [LOST, "another kind of error", ({ save }) => ({
    save: (...args) =>
      save(...args).catch(() => Promise.reject(new Error("no lock"))),
  })],
  [LOST, "the save, and then the error", ({ save }) => ({
    save: async (profile, tokens, lock) => {
      await save(profile, tokens);
      await save(profile, tokens, lock);
    },
  })],
  [
    "releasing a lock twice frees nobody else's",
    "the newest lock is released",
    releaseNewest,
  ],
];

/** Saves something else than what it is given. */
function saveOther(change: (tokens: StoredTokens) => StoredTokens): Breaker {
  return ({ save }) => ({
    save: (profile, tokens, lock) => save(profile, change(tokens), lock),
  });
}

function lockWith(release: () => void): TokenLock {
  const id = crypto.randomUUID();
  return { id, [Symbol.asyncDispose]: () => Promise.resolve(release()) };
}

function renamed(lock: TokenLock, id: string): TokenLock {
  return { id, [Symbol.asyncDispose]: () => lock[Symbol.asyncDispose]() };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A mistake the library once made: a caller that leaves ends the queue. */
function forgetfulQueue({ lock }: TokenStore): Partial<TokenStore> {
  let turn = 0;
  return {
    lock: async (profile, signal) => {
      const place = `${profile}-${turn}`;
      try {
        return await lock(place, signal);
      } catch (error) {
        turn++;
        throw error;
      }
    },
  };
}

/** Releases the profile's lock, no matter which holder has it. */
function releaseNewest({ lock }: TokenStore): Partial<TokenStore> {
  const holders = new Map<string, TokenLock>();
  return {
    lock: async (profile, signal) => {
      const held = await lock(profile, signal);
      holders.set(profile, held);
      return {
        id: held.id,
        [Symbol.asyncDispose]: async () =>
          await holders.get(profile)![Symbol.asyncDispose](),
      };
    },
  };
}

/** What comes of all of them; at once, for some have to be waited for. */
const errors = new Map<string, Promise<Error>>();

function errorOf(wanted: string): Promise<Error> {
  for (const [, what, breaker] of errors.size ? [] : BROKEN) {
    const good = memoryStore();
    const store = { ...good, ...breaker(good) };
    errors.set(what, rejection(testTokenStore(() => store)));
  }
  return errors.get(wanted)!;
}

for (const [rule, what] of BROKEN) {
  test(`testTokenStore() names the rule that is broken by ${what}`, async () => {
    const { message, cause } = await errorOf(what);
    const start = `The token store breaks the rule "${rule}": `;
    assert.equal(message.slice(0, start.length), start);
    assert.ok(cause instanceof Error);
  });
}

test("testTokenStore() names the rule that is broken by handles apart", async () => {
  const error = await rejection(testTokenStore(() => memoryStore()));
  assert.match(error.message, /"a save is seen by every handle at once"/);
});

test("testTokenStore() names the rule in which a store fails", async () => {
  const store = memoryStore();
  const failing = new Error("no connection");
  store.list = () => Promise.reject(failing);
  const error = await rejection(testTokenStore(() => store));
  assert.match(error.message, /"list\(\) names every .*: no connection$/);
  assert.equal(error.cause, failing);
});

async function rejection(promise: Promise<void>): Promise<Error> {
  return await promise.then(() => new Error("accepted"), (error) => error);
}
