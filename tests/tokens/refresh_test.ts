import assert from "node:assert/strict";
import {
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import {
  accessToken,
  type AccessTokenOptions,
  authorizedShops,
  fileStore,
  memoryStore,
  type StoredTokens,
  TikTokShopError,
  type TokenStore,
} from "../../mod.ts";
import {
  type Sandbox,
  type SandboxFault,
  type SandboxOptions,
  startSandbox,
} from "../../scripts/sandbox.ts";
import {
  freePort,
  loginAsPerson,
  ROOT,
  runtimeCommand,
  start,
  startProgram,
} from "../support/helpers.ts";
import { within } from "../support/timing.ts";
import { failure, withFolder, withSandbox } from "../support/token_host.ts";
import {
  askAt,
  atEveryCall,
  type Child,
  eventually,
  goOn,
  jobAt,
  keepExpired,
  NO_STOPPING,
  overtake,
  refreshCount,
  startChild,
  withChildren,
} from "../support/child_processes.ts";

// === Helpers

/** The shortest lease there is, for tests that wait for its end. */
const LEASE = 1000;
const DAY = 86_400;
const NAME = "default";
const MODULE = JSON.stringify(pathToFileURL(join(ROOT, "mod.ts")).href);
const LOGIN_PORT = await freePort();

/** A sandbox, a store with an expired token, and how to ask for another. */
interface Setup {
  sandbox: Sandbox;
  store: TokenStore;
  /** What the store holds. */
  held: StoredTokens;
  /** The options of `accessToken()`. */
  ask: AccessTokenOptions;
}

/** Runs against a sandbox, with an expired token in a store in memory. */
function withExpired<T>(
  run: (setup: Setup) => Promise<T>,
  options: SandboxOptions = {},
  store: TokenStore = memoryStore(),
): Promise<T> {
  return withSandbox(async (sandbox) => {
    const held = await keepExpired(sandbox, store);
    return await run({ sandbox, store, held, ask: askAt(sandbox, store) });
  }, options);
}

/** The same with files, in a folder of their own. */
function withExpiredFile<T>(
  run: (setup: Setup & { folder: string }) => Promise<T>,
  options: SandboxOptions = {},
): Promise<T> {
  return withFolder((folder) => {
    const store = fileStore(folder, { lease: LEASE });
    return withExpired((setup) => run({ ...setup, folder }), options, store);
  });
}

async function storedToken(
  store: TokenStore,
  profile = NAME,
): Promise<string | undefined> {
  return (await store.load(profile))?.data.access_token;
}

// === When a request is made

test("accessToken() costs no request while the token is fresh", () =>
  withExpired(async ({ sandbox, ask }) => {
    const token = await accessToken(ask);
    assert.equal(await accessToken(ask), token);
    assert.equal(await accessToken({ ...ask, minValid: "6d" }), token);
    assert.equal(refreshCount(sandbox), 1);
  }));

for (
  const { left, minValid, requests } of [
    { left: 301, minValid: undefined, requests: 0 },
    { left: 299, minValid: undefined, requests: 1 },
    { left: 7300, minValid: "2h", requests: 0 },
    { left: 7100, minValid: "2h", requests: 1 },
    { left: 1, minValid: 0, requests: 0 },
    { left: -1, minValid: 0, requests: 1 },
  ]
) {
  test(
    `accessToken() makes ${requests} requests when ${left} s are left and ${
      minValid ?? "the usual time"
    } is wanted`,
    () =>
      withExpired(async ({ sandbox, held, ask }) => {
        const end = held.data.access_token_expire_in;
        const now = () => (end - left) * 1000;
        await accessToken({ ...ask, now, minValid });
        assert.equal(refreshCount(sandbox), requests);
      }),
  );
}

test("accessToken() without tokens says that a login is needed", async () => {
  const app = { appKey: "6f3k9d2m1x8q", appSecret: "secret" };
  const store = memoryStore();
  const error = await failure(accessToken({ ...app, store }), "login_required");
  assert.match(error.message, /no tokens under profile "default"/);
  assert.match(error.hint!, /^log in again$/);
});

// === One request for all

/** A store in memory whose reads are watched. */
function watchedStore(onRead: () => unknown): TokenStore {
  const store = memoryStore();
  const load = store.load.bind(store);
  store.load = async (profile) => {
    const tokens = await load(profile);
    await onRead();
    return tokens;
  };
  return store;
}

test("accessToken() reads the store once for 10,000 callers of one turn", () => {
  let reads = 0;
  const store = watchedStore(() => reads++);
  return withExpired(
    async ({ ask }) => {
      const token = await accessToken(ask);
      reads = 0;
      const callers = Array.from({ length: 10_000 }, () => accessToken(ask));
      assert.deepEqual([...new Set(await Promise.all(callers))], [token]);
      assert.equal(reads, 1);
    },
    {},
    store,
  );
});

test("accessToken() shares no read that began before what it must see", () => {
  let onRead: () => unknown = () => {};
  const store = watchedStore(() => onRead());
  return withExpired(
    async ({ ask }) => {
      const old = await accessToken(ask);
      const held = (await store.load(NAME))!;
      let goOn = () => {};
      const paused = new Promise<void>((resolve) => goOn = resolve);
      let first!: Promise<string>;
      await new Promise<void>((resolve) => {
        onRead = () => (resolve(), paused);
        first = accessToken(ask);
      });
      onRead = () => {};
      const data = { ...held.data, access_token: "GCP_saved_meanwhile" };
      await store.save(NAME, { ...held, data });
      assert.equal(await accessToken(ask), "GCP_saved_meanwhile");
      goOn();
      assert.equal(await first, old);
    },
    {},
    store,
  );
});

test("accessToken() lets its process end though its signal has long to go", () =>
  withExpiredFile(async ({ sandbox, ask, folder }) => {
    const { apiEndpoint } = sandbox;
    const options = { ...ask, store: undefined, apiEndpoint };
    const file = join(folder, "caller.mjs");
    await writeFile(
      file,
      `import { accessToken, callApi, fileStore } from ${MODULE};
const store = fileStore(${JSON.stringify(folder)});
// With a listener, such a signal holds a Deno process until it fires.
const signal = AbortSignal.timeout(60_000);
const options = { ...${JSON.stringify(options)}, store, signal };
await accessToken(options);
await callApi({ path: "/authorization/202309/shops" }, options);
`,
    );
    const { code, stderr } = await within(
      5000,
      () => start(runtimeCommand(file)).ended,
    );
    assert.deepEqual([code, stderr], [0, ""]);
  }));

test("accessToken() costs one request for 1,000 callers at once", () =>
  withExpiredFile(async ({ sandbox, store, folder, ask }) => {
    const other = { ...ask, store: fileStore(folder) };
    const callers = Array.from({ length: 500 }, () => [ask, other]).flat();
    const tokens = await Promise.all(callers.map((each) => accessToken(each)));
    assert.equal(refreshCount(sandbox), 1);
    assert.deepEqual([...new Set(tokens)], [await storedToken(store)]);
  }));

test("accessToken() costs one request for fifty callers in each of eight processes", () =>
  withExpiredFile(async ({ sandbox, store, folder }) => {
    const job = jobAt(sandbox, {});
    const env = { TIKTOK_SHOP_HOME: folder };
    const starting = Array.from({ length: 8 }, () => startChild(job, env));
    await withChildren(starting, async (children) => {
      for (const child of children) child.order({ callers: 50 });
      const outcomes = await Promise.all(children.map(({ next }) => next()));
      const wanted = { tokens: [await storedToken(store)], errors: [] };
      for (const outcome of outcomes) assert.deepEqual(outcome, wanted);
      assert.equal(refreshCount(sandbox), 1);
      assert.deepEqual(await readdir(folder), ["default.json"]);
    });
  }, { latency: 100 }));

test("accessToken() adopts what another process saved while it waited", () =>
  withExpiredFile(async ({ sandbox, store, held, folder, ask }) => {
    const lock = await store.lock(NAME);
    const asked = accessToken({ ...ask, store: fileStore(folder) });
    await pause(100);
    await store.save(NAME, renewed(held, { access_token: "ROW_new" }), lock);
    await lock[Symbol.asyncDispose]();
    assert.equal(await asked, "ROW_new");
    assert.equal(refreshCount(sandbox), 0);
  }));

test("accessToken() sees a refresh that brought the same access token", () =>
  withExpiredFile(async ({ sandbox, store, held, ask }) => {
    const lock = await store.lock(NAME);
    const asked = accessToken(ask);
    await pause(100);
    await store.save(NAME, renewed(held, {}), lock);
    await lock[Symbol.asyncDispose]();
    assert.equal(await asked, held.data.access_token);
    assert.equal(refreshCount(sandbox), 0);
  }));

/** Tokens as they are a week after. */
function renewed(held: StoredTokens, data: object): StoredTokens {
  const now = Math.floor(Date.now() / 1000);
  const access_token_expire_in = now + 7 * DAY;
  return {
    ...held,
    data: { ...held.data, access_token_expire_in, ...data },
    meta: { ...held.meta, obtained_at: now },
  };
}

test("accessToken() asks again after a refresh that failed", () =>
  withExpired(async ({ sandbox, store, held, ask }) => {
    sandbox.fail("refresh", "text-404");
    const callers = [ask, ask, ask].map((each) => accessToken(each));
    await Promise.all(callers.map((one) => failure(one, "invalid_response")));
    assert.equal(await storedToken(store), held.data.access_token);
    assert.notEqual(await accessToken(ask), held.data.access_token);
    assert.equal(refreshCount(sandbox), 2);
  }));

// === A caller that leaves

test("accessToken() goes on for the others when a caller aborts", () =>
  withExpired(async ({ sandbox, store, ask }) => {
    const abort = new AbortController();
    const leaving = accessToken({ ...ask, signal: abort.signal });
    const staying = accessToken(ask);
    await eventually(() => refreshCount(sandbox) === 1, "it has asked");
    abort.abort("enough");
    await failure(leaving, "cancelled");
    assert.equal(refreshCount(sandbox), 1);
    assert.equal(await staying, await storedToken(store));
    assert.equal(refreshCount(sandbox), 1);
  }, { latency: 300 }));

test("accessToken() saves what it asked for when all callers abort", () =>
  withExpired(async ({ sandbox, store, held, ask }) => {
    const abort = new AbortController();
    const leaving = accessToken({ ...ask, signal: abort.signal });
    await eventually(() => refreshCount(sandbox) === 1, "it has asked");
    abort.abort("enough");
    await failure(leaving, "cancelled");
    await eventually(
      async () => await storedToken(store) !== held.data.access_token,
      "the tokens that came are saved",
    );
  }, { latency: 300 }));

test("accessToken() stops waiting for the lock when all callers abort", () =>
  withExpired(async ({ sandbox, store, ask }) => {
    const lock = await store.lock(NAME);
    const signal = AbortSignal.timeout(50);
    await failure(accessToken({ ...ask, signal }), "cancelled");
    await lock[Symbol.asyncDispose]();
    await (await store.lock(NAME))[Symbol.asyncDispose]();
    assert.equal(refreshCount(sandbox), 0);
    await accessToken(ask);
    assert.equal(refreshCount(sandbox), 1);
  }));

for (const call of ["load", "lock"] as const) {
  test(`accessToken() hears an abort while store.${call}() hangs`, () =>
    withExpired(async ({ sandbox, store, ask }) => {
      const hangs = () => new Promise<never>(() => {});
      const options = { ...ask, store: { ...store, [call]: hangs } };
      const asked = [accessToken, authorizedShops].map((each) =>
        failure(each({ ...options, signal: AbortSignal.timeout(50) }))
      );
      for (const error of await Promise.all(asked)) {
        assert.equal(error.kind, "cancelled");
      }
      const signal = AbortSignal.abort("enough");
      await failure(accessToken({ ...options, signal }), "cancelled");
      assert.equal(refreshCount(sandbox), 0);
    }));
}

test("accessToken() asks nobody when all callers left before the lock came", () =>
  withExpired(async ({ sandbox, store, ask }) => {
    const held = await store.lock(NAME);
    // A store that does not listen to signals.
    const deaf = { ...store, lock: (profile: string) => store.lock(profile) };
    const signal = AbortSignal.timeout(50);
    const asked = accessToken({ ...ask, store: deaf, signal });
    await failure(asked, "cancelled");
    await held[Symbol.asyncDispose]();
    await (await store.lock(NAME))[Symbol.asyncDispose]();
    assert.equal(refreshCount(sandbox), 0);
  }));

// === Listeners that fail

const FAILING: [how: string, listener: () => unknown][] = [
  ["throw", () => {
    throw new Error("a bug of the caller's");
  }],
  ["reject", () => Promise.reject(new Error("a bug of the caller's"))],
];

for (const [how, listener] of FAILING) {
  test(`accessToken() keeps what it was given though listeners ${how}`, () =>
    withExpired(async ({ sandbox, store, held, ask }) => {
      const listeners = { onTrace: listener, onWarning: listener };
      const token = await accessToken({ ...ask, ...listeners, minValid: "9d" });
      const { data } = (await store.load(NAME))!;
      assert.equal(data.access_token, token);
      assert.notEqual(data.refresh_token, held.data.refresh_token);
      assert.equal(refreshCount(sandbox), 1);
    }));

  test(`a listener that fails becomes a warning: ${how}`, () =>
    withExpired(async ({ ask }) => {
      const warnings: string[] = [];
      const onWarning = (message: string) => warnings.push(message);
      await accessToken({ ...ask, onTrace: listener, onWarning });
      assert.deepEqual(warnings, ["A listener failed: a bug of the caller's"]);
    }));
}

// === What a refresh brings

test("accessToken() keeps the old refresh token if none came back", () =>
  withExpired(async ({ sandbox, store, held, ask }) => {
    sandbox.fail("refresh", "no-refresh-token");
    const token = await accessToken(ask);
    const { data } = (await store.load(NAME))!;
    const { refresh_token, refresh_token_expire_in } = held.data;
    assert.notEqual(token, held.data.access_token);
    assert.equal(data.access_token, token);
    assert.equal(data.refresh_token, refresh_token);
    assert.equal(data.refresh_token_expire_in, refresh_token_expire_in);
    await accessToken({ ...ask, minValid: "8d" });
    assert.equal(refreshCount(sandbox), 2);
  }));

test("accessToken() gives seven days to a token without expiry", () =>
  withExpired(async ({ sandbox, ask }) => {
    sandbox.fail("refresh", "no-expiry");
    const token = await accessToken(ask);
    const after = (days: number) => () => Date.now() + days * DAY * 1000;
    assert.equal(await accessToken({ ...ask, now: after(6.9) }), token);
    assert.notEqual(await accessToken({ ...ask, now: after(7.1) }), token);
    assert.equal(refreshCount(sandbox), 2);
  }));

test("accessToken() hands JSON.stringify stores what it takes", () =>
  withExpired(async ({ store, ask }) => {
    const texts: string[] = [];
    const save: TokenStore["save"] = (name, tokens, lock) => {
      texts.push(JSON.stringify(tokens));
      return store.save(name, tokens, lock);
    };
    await accessToken({ ...ask, store: { ...store, save } });
    assert.match(texts[0]!, /"meta":\{/);
  }));

for (const fault of ["expired-refresh", "deauthorized"] as SandboxFault[]) {
  test(`accessToken() says that a login is needed after ${fault}`, () =>
    withExpiredFile(async ({ sandbox, store, folder, held, ask }) => {
      sandbox.fail("refresh", fault);
      const error = await failure(accessToken(ask), "login_required");
      assert.match(error.hint!, /log in again/);
      const { meta, ...reply } = (await store.load(NAME))!;
      const { refresh_refused: refused, ...before } = meta;
      assert.deepEqual({ ...reply, meta: before }, held);
      assert.equal(refused?.code, error.code);
      assert.deepEqual(await readdir(folder), ["default.json"]);
    }));
}

// === What need not be asked again

const HOUR = 3600;

/** Options whose clock is so many seconds ahead, and the warnings. */
function later(ask: AccessTokenOptions, ahead: number) {
  const warnings: string[] = [];
  const onWarning = (message: string) => warnings.push(message);
  const now = () => Date.now() + ahead * 1000;
  return { options: { ...ask, now, onWarning }, warnings };
}

test("accessToken() asks about a grant that is gone once a minute", () =>
  withExpired(async ({ sandbox, held, ask }) => {
    sandbox.deauthorize(held.data.open_id);
    const first = await failure(accessToken(ask), "login_required");
    const callers = Array.from({ length: 25 }, () => ask);
    for (const each of callers) {
      const error = await failure(accessToken(each), "login_required");
      for (const name of ["message", "code", "hint", "requestId"] as const) {
        assert.equal(error[name], first[name]);
      }
    }
    await Promise.all(callers.map((each) => failure(accessToken(each))));
    assert.equal(refreshCount(sandbox), 1);
    await failure(accessToken(later(ask, 58).options));
    assert.equal(refreshCount(sandbox), 1);
    await failure(accessToken(later(ask, 61).options));
    await failure(accessToken(later(ask, 62).options));
    assert.equal(refreshCount(sandbox), 2);
  }));

test("callApi() asks about a grant that is gone once a minute", () =>
  withExpired(async ({ sandbox, held, ask }) => {
    sandbox.deauthorize(held.data.open_id);
    const call = () =>
      authorizedShops({ ...ask, ...sandbox, store: ask.store });
    for (let n = 0; n < 20; n++) await failure(call(), "login_required");
    assert.equal(refreshCount(sandbox), 1);
  }));

test("a grant that is gone is asked about once by fifty callers in each of four processes", () =>
  withExpiredFile(async ({ sandbox, held, folder }) => {
    sandbox.deauthorize(held.data.open_id);
    const job = jobAt(sandbox, { folder });
    const starting = Array.from({ length: 4 }, () => startChild(job));
    await withChildren(starting, async (children) => {
      for (let round = 0; round < 2; round++) {
        for (const child of children) child.order({ callers: 50 });
        for (const { next } of children) {
          const { tokens, errors } = (await next())!;
          assert.deepEqual([tokens.length, errors.length], [0, 50]);
        }
      }
      assert.equal(refreshCount(sandbox), 1);
    });
  }, { latency: 100 }));

test("a login and the refresh command end the memory of a grant that is gone", () =>
  withExpiredFile(async ({ sandbox, store, held, folder, ask }) => {
    const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder };
    sandbox.fail("refresh", "deauthorized");
    await failure(accessToken(ask), "login_required");
    const { code, stderr } = await startProgram(["refresh"], { env }).ended;
    assert.equal(code, 0, stderr);
    assert.equal(refreshCount(sandbox), 2);
    assert.equal((await store.load(NAME))!.meta.refresh_refused, undefined);

    await store.save(NAME, held);
    sandbox.fail("refresh", "deauthorized");
    await failure(accessToken(ask), "login_required");
    assert.ok((await store.load(NAME))!.meta.refresh_refused);
    const ended = await loginAsPerson(sandbox, [], { env });
    assert.equal(ended.code, 0, ended.stderr);
    assert.equal((await store.load(NAME))!.meta.refresh_refused, undefined);
  }, { redirectUrl: `http://localhost:${LOGIN_PORT}/` }));

for (
  const [host, life, minValid, says] of [
    ["lives too short", 7 * DAY, "8d", /has (7d|6d 23h) left, not 8d/],
    ["has expired", -10, undefined, /has expired/],
    ["has expired", -10, "1h", /has expired/],
    ["lives for seconds", 2, undefined, /has (\ds left, not 5m|expired)/],
  ] as const
) {
  test(`accessToken() returns a token that ${host} and asks once an hour, ${minValid} wanted`, () =>
    withExpired(async ({ sandbox, store, ask }) => {
      const wanted = { ...ask, minValid };
      for (let n = 0; n < 25; n++) {
        const { options, warnings } = later(wanted, 0);
        const token = await accessToken(options);
        assert.equal(token, await storedToken(store));
        assert.equal(warnings.length, 1);
        assert.match(warnings[0]!, says);
      }
      const many = Array.from({ length: 25 }, () => accessToken(wanted));
      await Promise.all(many);
      assert.equal(refreshCount(sandbox), 1);
      await accessToken(later(wanted, HOUR - 60).options);
      assert.equal(refreshCount(sandbox), 1);
      await accessToken(later(wanted, HOUR + 60).options);
      assert.equal(refreshCount(sandbox), 2);
    }, { accessTokenLife: life }));
}

test("a token that lives too short is asked for once by four processes", () =>
  withExpiredFile(async ({ sandbox, folder }) => {
    const job = jobAt(sandbox, { folder });
    job.options.minValid = "8d";
    const starting = Array.from({ length: 4 }, () => startChild(job));
    await withChildren(starting, async (children) => {
      for (let round = 0; round < 2; round++) {
        for (const child of children) child.order({ callers: 50 });
        for (const { next } of children) {
          assert.deepEqual((await next())!.errors, []);
        }
      }
      assert.equal(refreshCount(sandbox), 1);
    });
  }, { latency: 100 }));

test("accessToken() replaces a short-lived token once it has died", () =>
  withExpired(async ({ sandbox, ask }) => {
    const token = await accessToken(ask);
    assert.equal(await accessToken(later(ask, 100).options), token);
    assert.notEqual(await accessToken(later(ask, 130).options), token);
    assert.equal(refreshCount(sandbox), 2);
  }, { accessTokenLife: 120 }));

test("callApi() asks no more than once for a token that comes expired", () =>
  withExpired(async ({ sandbox, ask }) => {
    const call = () =>
      authorizedShops({ ...ask, ...sandbox, store: ask.store });
    for (let n = 0; n < 10; n++) await failure(call(), "rejected");
    assert.equal(refreshCount(sandbox), 1);
  }, { accessTokenLife: -10 }));

test("token --min-valid 8d prints the fresh token with a warning", () =>
  withExpiredFile(async ({ sandbox, store, folder }) => {
    const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder };
    for (let n = 0; n < 2; n++) {
      const running = startProgram(["token", "--min-valid", "8d"], { env });
      const { code, stdout, stderr } = await running.ended;
      assert.equal(stdout, `${await storedToken(store)}\n`);
      assert.match(stderr, /^warning: The access token .* left, not 8d: /);
      assert.equal(code, 0);
    }
    assert.equal(refreshCount(sandbox), 1);
  }));

// === A refresh that fails while the old token lives

for (
  const [fault, kind] of [
    ["text-404", "invalid_response"],
    ["ip-not-allowed", "rejected"],
    ["deauthorized", "login_required"],
  ] as const
) {
  test(`accessToken() uses a token that still lives after ${fault}`, () =>
    withExpired(async ({ sandbox, held, ask }) => {
      const end = held.data.access_token_expire_in;
      const now = () => (end - 200) * 1000;
      sandbox.fail("refresh", fault, Infinity);
      const { options, warnings } = later(ask, 0);
      const living = { ...options, now };
      assert.equal(await accessToken(living), held.data.access_token);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0]!, /is used while it lives: Cannot get tokens/);
      // Asked for and not met.
      await failure(accessToken({ ...living, minValid: "5m" }), kind);
      const dead = { ...options, now: () => (end + 1) * 1000 };
      await failure(accessToken(dead), kind);
    }));
}

test("accessToken() uses a token that still lives when it cannot be locked", () =>
  withExpired(async ({ held, store, ask }) => {
    const now = () => (held.data.access_token_expire_in - 200) * 1000;
    const lock = () =>
      Promise.reject(new TikTokShopError("store", "The disk is read-only"));
    const options = { ...ask, now, store: { ...store, lock } };
    assert.equal(await accessToken(options), held.data.access_token);
  }));

test("accessToken() hands over what it could not save though the old token lives", () =>
  withExpired(async ({ held, store, ask }) => {
    const now = () => (held.data.access_token_expire_in - 200) * 1000;
    const save = () => Promise.reject(new Error("The disk is full"));
    const options = { ...ask, now, store: { ...store, save } };
    const { reply } = await failure(accessToken(options), "store");
    assert.notEqual(reply!.data.refresh_token, held.data.refresh_token);
  }));

test("accessToken() says that a login is needed without a refresh token", () =>
  withExpired(async ({ sandbox, store, held, ask }) => {
    const { refresh_token: _, ...data } = held.data;
    await store.save(NAME, { ...held, data } as unknown as StoredTokens);
    const error = await failure(accessToken(ask), "login_required");
    assert.match(error.message, /has no refresh token/);
    assert.equal(refreshCount(sandbox), 0);
  }));

test("accessToken() refuses another app's profile before any request", () =>
  withExpired(async ({ sandbox, ask }) => {
    await assert.rejects(accessToken({ ...ask, appKey: "another1app2" }), {
      name: "TypeError",
      message: /belongs to the app key "6f3k9d2m1x8q", not to "another1app2"/,
    });
    assert.equal(refreshCount(sandbox), 0);
  }));

// === A reply that cannot be saved

test("accessToken() hands over the reply that it could not save", () =>
  withExpired(async ({ store, held, ask }) => {
    const save: TokenStore["save"] = (_, { data }) =>
      Promise.reject(new Error(`No row for ${data.access_token}`));
    const broken = { ...store, save };
    const error = await failure(accessToken({ ...ask, store: broken }));
    assert.equal(error.kind, "store");
    const { access_token, refresh_token } = error.reply!.data;
    assert.notEqual(refresh_token, held.data.refresh_token);
    assert.match(JSON.stringify(error.reply), /"code":0,.*"request_id"/);
    assert.ok(!Object.hasOwn(error.reply!, "meta"));
    const shown = inspect(error, { depth: 9 }) + error.stack;
    assert.ok(!shown.includes(access_token), shown);
    assert.match(error.message, /No row for \*\*\*/);
    assert.equal(await storedToken(store), held.data.access_token);
  }));

test("accessToken() hands over the reply when the profile has gone", () =>
  withExpiredFile(async ({ folder, ask }) => {
    const removing: typeof fetch = async (...call) => {
      const reply = await fetch(...call);
      await rm(folder, { recursive: true });
      return reply;
    };
    const asked = accessToken({ ...ask, fetch: removing });
    const { reply } = await failure(asked, "store");
    assert.equal(typeof reply?.data.refresh_token, "string");
  }));

test("the refresh command prints the reply that it could not save", () =>
  withExpiredFile(async ({ sandbox, folder }) => {
    const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder };
    const running = startProgram(["refresh"], { env });
    await eventually(() => refreshCount(sandbox) === 1, "it has asked");
    await rm(folder, { recursive: true });
    await writeFile(folder, "");
    const { code, stdout, stderr } = await running.ended;
    const { data } = JSON.parse(stdout);
    assert.equal(code, 1);
    assert.match(data.refresh_token, /^ROW_/);
    assert.match(stderr, /error: Cannot save the tokens to .*default\.json/);
    assert.ok(!stderr.includes(data.access_token), stderr);
  }, { latency: 2000 }));

// === A holder that is dead or stopped

test("accessToken() goes on when a holder was killed while it asked", () =>
  withExpiredFile(async ({ sandbox, store, folder }) => {
    sandbox.fail("refresh", "slow:60000");
    const job = jobAt(sandbox, { folder, lease: 2 * LEASE });
    const starting = Array.from({ length: 5 }, () => startChild(job));
    await withChildren(starting, async ([first, ...others]) => {
      first.order();
      await eventually(() => refreshCount(sandbox) === 1, "it has asked");
      first.signal("SIGKILL");
      for (const child of others) child.order();
      const outcomes = await Promise.all(others.map(({ next }) => next()));
      const wanted = { tokens: [await storedToken(store)], errors: [] };
      for (const outcome of outcomes) assert.deepEqual(outcome, wanted);
      assert.equal(refreshCount(sandbox), 2);
      assert.deepEqual(await readdir(folder), ["default.json"]);
    });
  }));

test(
  "accessToken() leaves the lock to a holder that was stopped along with it",
  {
    skip: NO_STOPPING,
  },
  () =>
    withExpiredFile(async ({ sandbox, store, folder }) => {
      sandbox.fail("refresh", "slow:600");
      const job = jobAt(sandbox, { folder, lease: LEASE });
      const starting = [startChild(job), startChild(job)];
      await withChildren(starting, async ([holder, ...[waiter]]) => {
        holder.order();
        await eventually(() => refreshCount(sandbox) === 1, "it has asked");
        waiter!.order();
        await pause(100);
        for (const each of [holder, waiter!]) each.signal("SIGSTOP");
        await pause(1.3 * LEASE);
        waiter!.signal("SIGCONT");
        await pause(150);
        holder.signal("SIGCONT");
        const wanted = await holder.next();
        assert.deepEqual(await waiter!.next(), wanted);
        assert.deepEqual(wanted!.tokens, [await storedToken(store)]);
        assert.equal(refreshCount(sandbox), 1);
      });
    }),
);

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

test("accessToken() lets no stopped holder overwrite a newer token", {
  skip: NO_STOPPING,
}, () =>
  stopEverywhere({ rotate: false }, async ({ ask, child, stored }) => {
    const outcome = await overtake(ask.store!, ask.profile!, child);
    assert.deepEqual(outcome!.errors, []);
    assert.equal(await stored(), "ROW_newer");
  }));

test("accessToken() loses nothing that a stopped holder was given", {
  skip: NO_STOPPING,
}, () =>
  stopEverywhere({}, async ({ ask, asked, child, stored }) => {
    // Only one of the two gets an answer, as the sandbox rotates.
    const token = await accessToken(ask).catch((error) => {
      assert.equal(error.kind, "login_required");
      assert.equal(asked(), 2);
    });
    const { tokens, errors } = (await goOn(child))!;
    assert.deepEqual(errors, []);
    assert.deepEqual(tokens, [token ?? await stored()]);
    assert.equal(await accessToken(ask), tokens[0]);
  }));

/** A child process that has stopped itself while it refreshed a profile. */
interface Stopped extends Setup {
  /** How many refreshes of the profile were asked for. */
  asked: () => number;
  child: Child;
  /** The token that is kept now. */
  stored: () => Promise<string | undefined>;
}

const LANES = 8;

/** Lets child processes stop before every call of the file system. */
async function stopEverywhere(
  options: SandboxOptions,
  check: (stopped: Stopped) => Promise<void>,
): Promise<void> {
  const lanes = Array.from({ length: LANES }, () => startSandbox(options));
  const sandboxes = await Promise.all(lanes);
  await withFolder((folder) => {
    const place = { folder, lease: LEASE };
    const starting = sandboxes.map((each) => startChild(jobAt(each, place)));
    return withChildren(
      starting,
      (children) =>
        atEveryCall(LANES, (call, lane) => {
          const store = fileStore(folder, place);
          return stopAt(call, children[lane]!, sandboxes[lane]!, store, check);
        }),
    );
  });
  for (const sandbox of sandboxes) await sandbox.stop();
}

/** The same at one call; false if there is no such call. */
async function stopAt(
  call: number,
  child: Child,
  sandbox: Sandbox,
  store: TokenStore,
  check: (stopped: Stopped) => Promise<void>,
): Promise<boolean> {
  const profile = `stopped-${call}`;
  const held = await keepExpired(sandbox, store, profile);
  const before = refreshCount(sandbox);
  child.order({ profile, interruption: { call, signal: "SIGSTOP" } });
  if (await child.next()) return false;
  const ask = { ...askAt(sandbox, store), profile };
  const asked = () => refreshCount(sandbox) - before;
  const stored = () => storedToken(store, profile);
  await check({ sandbox, store, held, ask, asked, child, stored });
  return true;
}

// === What is left of a lock

/** Makes something where a lock should be. */
type Makers = Readonly<Record<string, (path: string) => Promise<unknown>>>;

/** An entry as a holder makes it, and what it writes before it saves. */
const ENTRY = "AbCdEfGhIjKlMnOpQrStUv-_";
const SAVING = `${ENTRY}.0a1B-_2c`;

const LEFT: Makers = {
  "an empty folder": (path) => mkdir(path),
  "an entry from long ago": (path) => leave(path, { [ENTRY]: new Date(0) }),
  "an entry of a clock ahead": (path) =>
    leave(path, { [ENTRY]: new Date("2101-01-01") }),
  "what a killed saver left": (path) =>
    leave(path, { [ENTRY]: now(), [SAVING]: now() }),
  "what only a killed saver left": (path) => leave(path, { [SAVING]: now() }),
};

const DEEP = { recursive: true };

function now(): Date {
  return new Date();
}

async function leave(path: string, times: Record<string, Date>): Promise<void> {
  await mkdir(path);
  for (const [name, time] of Object.entries(times)) {
    await writeFile(join(path, name), '{"data":{"access_to');
    await utimes(join(path, name), time, time);
  }
}

test("accessToken() takes over whatever is left of a lock, after the lease", async () => {
  await Promise.all(Object.entries(LEFT).map(takeOver));
});

function takeOver([what, make]: [string, typeof LEFT[string]]): Promise<void> {
  return withExpiredFile(async ({ sandbox, folder, ask }) => {
    await make(join(folder, "default.json.lock"));
    const began = performance.now();
    await accessToken(ask);
    assert.ok(performance.now() - began > LEASE * 0.9, what);
    assert.equal(refreshCount(sandbox), 1);
    assert.deepEqual(await readdir(folder), ["default.json"], what);
  });
}

/** Makes what stands in a lock's place and is none; "precious" has a text. */
const FOREIGN: Makers = {
  "an empty file": (path) => writeFile(path, ""),
  "a file, as Cargo makes one": (path) => writeFile(path, "# by Cargo"),
  "a link to a folder": (path) => linkTo(path, "precious.txt"),
  "a link to a folder with an entry": (path) => linkTo(path, ENTRY),
  "a link that leads nowhere": (path) => symlink("nowhere", path),
  "a folder with a file": (path) => leave(path, { "notes.txt": now() }),
  "a folder with a file beside an entry": (path) =>
    leave(path, { [ENTRY]: now(), "entry.tmp": now() }),
  "a process id": (path) => leave(path, { [process.pid]: now() }),
  "a folder in the folder": (path) => mkdir(join(path, "in", "it"), DEEP),
  "a folder with an entry's name": (path) =>
    mkdir(join(path, ENTRY, "it"), DEEP),
};

async function linkTo(path: string, name: string): Promise<void> {
  const folder = join(path, "..", "elsewhere");
  await leave(folder, { [name]: now() });
  await symlink(folder, path);
}

/** Every path below a folder, what it is, and its text. */
async function contents(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return await Promise.all(
    names.sort().map(async (name) => {
      const path = join(folder, name);
      const { mode } = await lstat(path);
      return `${name} ${mode} ${await readFile(path, "utf8").catch(() => "")}`;
    }),
  );
}

for (const [what, make] of Object.entries(FOREIGN)) {
  test(`accessToken() leaves ${what} in a lock's place alone`, {
    skip: what.includes("link") && process.platform === "win32" &&
      "Windows lets few make links",
  }, () =>
    withExpiredFile(async ({ sandbox, folder, ask }) => {
      const path = join(folder, "default.json.lock");
      await make(path);
      const before = await contents(folder);
      // Two at once, and something that changes it for ever.
      const touching = setInterval(() => {
        const time = now();
        void utimes(path, time, time).catch(() => {});
      }, 100);
      const stores = [ask.store!, fileStore(folder, { lease: LEASE })];
      try {
        for (const store of stores) {
          const error = await failure(accessToken({ ...ask, store }), "store");
          assert.ok(error.message.includes(path), error.message);
          assert.match(
            error.message,
            /^Cannot lock .*" is in the lock's place$/,
          );
          assert.match(error.hint!, /delete it if nobody needs it, or use/);
        }
      } finally {
        clearInterval(touching);
      }
      assert.deepEqual(await contents(folder), before);
      assert.equal(refreshCount(sandbox), 0);
    }));
}

test("The program says that it waits for a lock, and leaves another program's file", () =>
  withExpiredFile(async ({ sandbox, folder }) => {
    await keepExpired(sandbox, fileStore(folder), "Cargo");
    const file = join(folder, "Cargo");
    await rename(join(folder, "Cargo.json"), file);
    await writeFile(`${file}.lock`, "# by Cargo");
    for (const args of [["refresh"], ["logout"]]) {
      const running = startProgram([...args, "--file", file], {
        env: sandbox.env,
      });
      await running.until(
        /^warning: Waiting for the lock of profile "Cargo", which .*$/m,
      );
      const { code, stdout, stderr } = await running.ended;
      assert.deepEqual([code, stdout], [1, ""]);
      assert.match(
        stderr,
        /Cannot lock .*Cargo: ".*Cargo\.lock" is in the lock's place/,
      );
      assert.match(stderr, /hint: .* use another token file/);
    }
    assert.equal(await readFile(`${file}.lock`, "utf8"), "# by Cargo");
    assert.ok((await readFile(file, "utf8")).includes("refresh_token"));
    assert.equal(refreshCount(sandbox), 0);
  }));

test("accessToken() tells that it waits for a holder that lives", () =>
  withExpired(async ({ store, ask }) => {
    const lock = await store.lock(NAME);
    const told: string[] = [];
    const onWarning = (message: string) => {
      told.push(message);
      throw new Error("a listener that fails");
    };
    const asked = accessToken({ ...ask, onWarning });
    await eventually(() => told.length > 0, "it is told");
    await lock[Symbol.asyncDispose]();
    await asked;
    assert.deepEqual(told, [
      'Waiting for the lock of profile "default", which another process may hold',
    ]);
  }));

test("fileStore() leaves the lock to a holder that lives", () =>
  withFolder(async (folder) => {
    const stores = [0, 1, 2].map(() => fileStore(folder, { lease: LEASE }));
    const lock = await stores[0]!.lock(NAME);
    const signal = AbortSignal.timeout(1.6 * LEASE);
    const waiting = stores.map((store) => store.lock(NAME, signal));
    await Promise.all(waiting.map((each) => failure(each, "cancelled")));
    await lock[Symbol.asyncDispose]();
    await (await stores[1]!.lock(NAME))[Symbol.asyncDispose]();
    assert.deepEqual(await readdir(folder), []);
  }));

test("fileStore() has one holder at a time though many take over at once", () =>
  withFolder(async (folder) => {
    await LEFT["what a killed saver left"]!(join(folder, "default.json.lock"));
    let holders = 0;
    await Promise.all(Array.from({ length: 20 }, async () => {
      const lock = await fileStore(folder, { lease: LEASE }).lock(NAME);
      assert.equal(++holders, 1);
      await pause(10);
      holders--;
      await lock[Symbol.asyncDispose]();
    }));
    assert.deepEqual(await readdir(folder), []);
  }));

test("fileStore() refuses a lease that is too short or too long", () => {
  for (const lease of [0, 999, -1, NaN, 1e9, Infinity, 1000.5]) {
    assert.throws(() => fileStore("/nowhere", { lease }), RangeError);
  }
});

// === Time

/** The sandbox's clock in ms, and how many days the client's is ahead. */
interface Clocks {
  host: number;
  ahead: number;
}

const SPRING = Date.UTC(2031, 3, 1);

/** Runs with tokens that were refreshed a moment ago by these clocks. */
function withClocks<T>(
  clocks: Clocks,
  run: (setup: Setup) => Promise<T>,
): Promise<T> {
  return withExpired(async (setup) => {
    const now = () => clocks.host + clocks.ahead * DAY * 1000;
    const ask = { ...setup.ask, now };
    await accessToken({ ...ask, minValid: "8d" });
    const held = (await setup.store.load(NAME))!;
    return await run({ ...setup, held, ask });
  }, { now: () => clocks.host, rotate: false });
}

/** How many requests are made when so many days have passed since. */
async function requestsAfter(
  days: number,
  clocks: Clocks,
  { sandbox, store, held, ask }: Setup,
): Promise<number> {
  await store.save(NAME, held);
  clocks.host += days * DAY * 1000;
  const before = refreshCount(sandbox);
  await accessToken(ask);
  await accessToken(ask);
  clocks.host -= days * DAY * 1000;
  return refreshCount(sandbox) - before;
}

for (const ahead of [-400, -30, -3, 0, 3, 30, 400]) {
  const clock = `a clock that is ${ahead} days ahead`;

  test(`accessToken() is right by ${clock}`, () => {
    const clocks = { host: SPRING, ahead };
    return withClocks(clocks, async (setup) => {
      assert.equal(await requestsAfter(0, clocks, setup), 0);
      assert.equal(await requestsAfter(0.04, clocks, setup), 0);
      assert.equal(await requestsAfter(6.999, clocks, setup), 1);
      assert.equal(await requestsAfter(30, clocks, setup), 1);
    });
  });

  test(`accessToken() is right once ${clock} was put right`, () => {
    const clocks = { host: SPRING, ahead };
    return withClocks(clocks, async (setup) => {
      clocks.ahead = 0;
      // The clock was a week behind and is right now: the token seems too old.
      const wasted = ahead < -7 ? 1 : 0;
      assert.equal(await requestsAfter(0.1, clocks, setup), wasted);
      for (const days of [6.999, 9.5, 29.5, 30.5, 36, 399.5, 400.5, 406]) {
        const made = await requestsAfter(days, clocks, setup);
        assert.equal(made, 1, `after ${days} days`);
      }
    });
  });
}

test("accessToken() refreshes once when the clock has gone back", () => {
  const clocks = { host: SPRING, ahead: 0 };
  return withClocks(clocks, async (setup) => {
    clocks.ahead = -30;
    assert.equal(await requestsAfter(1, clocks, setup), 1);
    clocks.ahead = -0.01; // a quarter of an hour, as between two machines
    assert.equal(await requestsAfter(0, clocks, setup), 0);
  });
});

for (const year of [2038, 2100, 2106]) {
  test(`accessToken() is right in the year ${year}`, () => {
    const clocks = { host: Date.UTC(year, 11, 31), ahead: 0 };
    return withClocks(clocks, async (setup) => {
      const { data } = setup.held;
      const seconds = clocks.host / 1000;
      assert.equal(data.access_token_expire_in, seconds + 7 * DAY);
      assert.ok(data.refresh_token_expire_in > seconds + 99 * 365 * DAY);
      assert.equal(await requestsAfter(6, clocks, setup), 0);
      assert.equal(await requestsAfter(7, clocks, setup), 1);
    });
  });
}
