/**
 * databaseStore(): what it does with a database's answers, and the two stores
 * of the README on a real Postgres and on SQLite.
 */
import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, it, test } from "node:test";
import { inspect } from "node:util";
import {
  accessToken,
  databaseStore,
  type LeaseOptions,
  type StoredTokens,
  type TokenDatabase,
  type TokenStore,
} from "../../mod.ts";
import type { Sandbox } from "../../scripts/sandbox.ts";
import { testTokenStore } from "../../scripts/testing.ts";
import { postgresStore, SCHEMA } from "../examples/postgres_store.ts";
import {
  askAt,
  atEveryCall,
  eventually,
  jobAt,
  keepExpired,
  killAt,
  NO_STOPPING,
  refreshCount,
  startChild,
  stopAt,
  withChildren,
} from "../support/child_processes.ts";
import { NO_WINDOWS, temporaryFolder } from "../support/helpers.ts";
import {
  NO_POSTGRES,
  openPool,
  type Pool,
  startPostgres,
} from "../support/postgres.ts";
import { failure, REPLY, withSandbox } from "../support/token_host.ts";

const LEASE = 1000;
const TOKENS: StoredTokens = { ...REPLY, meta: { version: 1 } };

// === Any database

/** A database in a map; each test spoils a step of it. */
function mapDatabase(changes: Partial<TokenDatabase> = {}): TokenDatabase {
  const values = new Map<string, string>();
  const holders = new Map<string, string>();
  const isHeld = (profile: string, holder: string) =>
    holders.get(profile) === holder;
  return {
    place: (profile) => `row ${profile} of tokens`,
    read: (profile) => values.get(profile) ?? null,
    write: (profile, text) => void values.set(profile, text),
    writeHeld: (profile, text, holder) =>
      isHeld(profile, holder) && Boolean(values.set(profile, text)),
    remove: (profile) => values.delete(profile),
    names: () => [...values.keys(), ...values.keys()].reverse(),
    take: (profile, holder) =>
      !holders.has(profile) && Boolean(holders.set(profile, holder)),
    renew: isHeld,
    release: (profile, holder) =>
      isHeld(profile, holder) && holders.delete(profile),
    ...changes,
  };
}

test("databaseStore() keeps the rules with steps that answer at once", async () => {
  const database = mapDatabase();
  await testTokenStore(() => databaseStore(database));
});

test("databaseStore() fails with kind store when its database does", async () => {
  const { access_token: token } = TOKENS.data;
  const why = `duplicate row (main, ${token}) at pg://me:pass@host`;
  const fails = [
    () => Promise.reject(new Error(why)),
    () => {
      throw new Error(why);
    },
  ];
  for (const fail of fails) {
    const steps = ["read", "write", "writeHeld", "remove", "names", "take"];
    const broken = Object.fromEntries(
      [...steps, "renew", "release"].map((name) => [name, fail]),
    );
    const store = databaseStore(mapDatabase(broken));
    const lock = { id: "holder", [Symbol.asyncDispose]: async () => {} };
    const calls: [string, Promise<unknown>][] = [
      ["read row main", store.load("main")],
      ["save the tokens to row main", store.save("main", TOKENS)],
      ["save the tokens to row main", store.save("main", TOKENS, lock)],
      ["save the tokens to row main", store.assertWritable!("main", lock)],
      ["remove row main", store.remove("main")],
      ["list row *", store.list()],
      ["lock row main", store.lock("main")],
    ];
    for (const [what, call] of calls) {
      const error = await failure(call, "store");
      const start = `Cannot ${what} of tokens: duplicate row (main, `;
      assert.ok(error.message.startsWith(start), error.message);
      assert.match(error.hint!, /can be reached/);
      assert.doesNotMatch(inspect(error), /me:pass/);
    }
    const saved = await failure(store.save("main", TOKENS), "store");
    assert.ok(!inspect(saved, { depth: 9 }).includes(token));
  }
});

test("databaseStore() frees a lock though the release fails", async () => {
  const release = () => Promise.reject(new Error("gone"));
  const store = databaseStore(mapDatabase({ release }));
  const lock = await store.lock("main");
  await lock[Symbol.asyncDispose]();
});

test("databaseStore() refuses names that a file could not have", async () => {
  const store = databaseStore(mapDatabase());
  for (const name of ["", "a b", "../x", "*", "config"]) {
    const actions: (() => Promise<unknown>)[] = [
      () => store.load(name),
      () => store.save(name, TOKENS),
      () => store.lock(name),
      () => store.remove(name),
    ];
    for (const act of actions) await assert.rejects(act, TypeError);
  }
});

test("databaseStore() refuses a lease that is too short or too long", () => {
  for (const lease of [0, 999, NaN, 1e9, Infinity, 1000.5]) {
    assert.throws(() => databaseStore(mapDatabase(), { lease }), RangeError);
  }
});

test("databaseStore() leaves a value alone that is not ours", async () => {
  for (const text of ["", "{", "[]", '{"data":{}}']) {
    const store = databaseStore(mapDatabase({ read: () => text }));
    const error = await failure(store.load("main"), "store");
    assert.match(error.message, /^The value of row main of tokens is no token/);
  }
});

// === The examples

const [major, minor] = process.versions.node.split(".").map(Number);
const NO_SQLITE = major! > 22 || (major === 22 && minor! >= 18)
  ? false
  : "node:sqlite is missing";

let pool: Pool | undefined;
let file = "";
const closing: (() => Promise<void>)[] = [];

/** The examples: how to open them here, and how a child process does. */
const EXAMPLES = {
  postgres: {
    skip: NO_POSTGRES,
    open: (options?: LeaseOptions) =>
      Promise.resolve(postgresStore(pool!, options)),
    at: "",
  },
  sqlite: {
    skip: NO_SQLITE,
    open: async (options?: LeaseOptions) => {
      const { sqliteStore } = await import("../examples/sqlite_store.ts");
      return sqliteStore(file, options);
    },
    at: "",
  },
};

before(async () => {
  const folder = await temporaryFolder();
  closing.push(() => Promise.resolve(folder[Symbol.asyncDispose]()));
  file = EXAMPLES.sqlite.at = join(folder.path, "tokens.db");
  if (NO_POSTGRES) return;
  const { url, stop } = await startPostgres();
  closing.push(stop);
  EXAMPLES.postgres.at = url;
  pool = openPool(url);
  closing.push(() => pool!.end());
  await pool.query(SCHEMA, []);
});

after(async () => {
  for (const close of closing.reverse()) await close();
});

for (const [name, example] of Object.entries(EXAMPLES)) {
  const database = name as keyof typeof EXAMPLES;
  const skip = example.skip || undefined;
  const start = (sandbox: Sandbox, lease = LEASE) =>
    startChild(jobAt(sandbox, { database, at: example.at, lease }));
  const children = (sandbox: Sandbox, count: number, lease?: number) =>
    Array.from({ length: count }, () => start(sandbox, lease));

  describe(`tests/examples/${name}_store.ts`, { skip }, () => {
    it("keeps the rules of a store", async () => {
      await testTokenStore(() => example.open({ lease: LEASE }));
      const store = await example.open();
      assert.deepEqual(await store.list(), []);
    });

    it("costs one request for eight processes of fifty callers each", () =>
      withSandbox(async (sandbox) => {
        const store = await example.open();
        await keepExpired(sandbox, store);
        await withChildren(children(sandbox, 8, 5000), async (started) => {
          for (const child of started) child.order({ callers: 50 });
          const ended = await Promise.all(started.map(({ next }) => next()));
          const wanted = { tokens: [await storedToken(store)], errors: [] };
          for (const outcome of ended) assert.deepEqual(outcome, wanted);
          assert.equal(refreshCount(sandbox), 1);
        });
      }, { latency: 100 }));

    it("goes on when a holder was killed during its request", () =>
      withSandbox(async (sandbox) => {
        const store = await example.open();
        await keepExpired(sandbox, store);
        sandbox.fail("refresh", "slow:60000");
        await withChildren(children(sandbox, 3), async ([first, ...others]) => {
          first.order();
          await eventually(() => refreshCount(sandbox) === 1, "it has asked");
          first.signal("SIGKILL");
          for (const child of others) child.order();
          const ended = await Promise.all(others.map(({ next }) => next()));
          const wanted = { tokens: [await storedToken(store)], errors: [] };
          for (const outcome of ended) assert.deepEqual(outcome, wanted);
          assert.equal(refreshCount(sandbox), 2);
        });
      }));

    it("loses nothing wherever a holder is killed", () =>
      withSandbox(async (sandbox) => {
        const store = await example.open({ lease: LEASE });
        await atEveryCall(
          2,
          (call) => killAt(call, start(sandbox), sandbox, store),
        );
      }, { rotate: false }));

    it("lets no holder overwrite a newer token, wherever it is paused", {
      skip: NO_STOPPING || undefined,
    }, () =>
      withSandbox(async (sandbox) => {
        const store = await example.open({ lease: LEASE });
        await withChildren(children(sandbox, 2), (started) =>
          atEveryCall(2, (call, lane) =>
            stopAt(call, started[lane]!, sandbox, store)));
      }, { rotate: false }));
  });
}

async function storedToken(store: TokenStore): Promise<string | undefined> {
  return (await store.load("default"))?.data.access_token;
}

test("tests/examples/sqlite_store.ts makes a file that only its owner reads", {
  ...NO_WINDOWS,
  ...NO_SQLITE && { skip: NO_SQLITE },
}, async () => {
  await EXAMPLES.sqlite.open();
  assert.equal((await stat(file)).mode & 0o777, 0o600);
});

test("accessToken() tells that Postgres is gone, and loses no token", {
  skip: NO_POSTGRES || undefined,
}, () =>
  withSandbox(async (sandbox) => {
    const store = await EXAMPLES.postgres.open();
    await keepExpired(sandbox, store, "gone");
    const query = () => Promise.reject(new Error("Connection terminated"));
    const gone = {
      ...askAt(sandbox, postgresStore({ query })),
      profile: "gone",
    };
    const error = await failure(accessToken(gone), "store");
    assert.match(error.message, /^Cannot read "gone" in Postgres: Connection/);
    assert.equal(refreshCount(sandbox), 0);
    const there = { ...askAt(sandbox, store), profile: "gone" };
    assert.equal((await accessToken(there)).slice(0, 4), "ROW_");
  }));
