/**
 * How a login saves its tokens: under which name, in which file, and what
 * happens if they cannot be saved; first by the library, then by the program.
 */
import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, it, test } from "node:test";
import type { SandboxSeller } from "../../scripts/sandbox.ts";
import {
  answer,
  APP,
  failure,
  type HostHandler,
  httpDate,
  REPLY,
  SERVICE_ID,
  withFolder,
  withHost,
  withSandbox,
} from "../support/token_host.ts";
import {
  type AuthFlow,
  exchangeCode,
  fileStore,
  login,
  type LoginOptions,
  memoryStore,
  type Shop,
  startAuth,
  type StoredTokens,
  type TikTokShopError,
  type TokenLock,
  type TokenMeta,
  type TokenOptions,
  type TokenReply,
  type TokenStore,
} from "../../mod.ts";
import {
  type CliFixture,
  LOCK_NOTICE,
  withCli,
} from "../support/cli_fixture.ts";
import {
  type Ended,
  freePort,
  NO_WINDOWS,
  ON_LINUX,
  ON_WINDOWS,
  ROOT,
  type Running,
  runtimeCommand,
  skipIf,
  start,
  TOGETHER,
} from "../support/helpers.ts";
import { NUMBER_REPLY, NUMBERS, PRETTY, WIRE } from "../support/replies.ts";
import { eventually } from "../support/child_processes.ts";
import { readFile } from "node:fs/promises";

const CODE = "ROW_code";

const TOKENS: StoredTokens = {
  ...REPLY,
  meta: { version: 1, app_key: APP.appKey, obtained_at: 1722342011 },
};

/** A login whose person approves at once. */
async function loginAt(
  tokenEndpoint: string,
  options: Partial<LoginOptions> = {},
): Promise<TokenReply> {
  const port = await freePort();
  return await login({
    ...APP,
    serviceId: SERVICE_ID,
    port,
    tokenEndpoint,
    store: false,
    onStart: () => {},
    open: async (url) => {
      const state = new URL(url).searchParams.get("state");
      const query = `?code=${CODE}&state=${state}`;
      await (await fetch(`http://127.0.0.1:${port}/${query}`)).text();
    },
    ...options,
  });
}

/** What a login at a token host keeps beside the reply. */
async function metaFrom(
  tokenEndpoint: string,
  options: TokenOptions = {},
): Promise<TokenMeta> {
  let kept: TokenMeta = {};
  const flow = await startAuth({
    ...APP,
    ...options,
    serviceId: SERVICE_ID,
    port: await freePort(),
    tokenEndpoint,
    onReply: (_, meta) => void (kept = meta),
  });
  const state = new URL(flow.url).searchParams.get("state");
  await flow.submit(`?code=${CODE}&state=${state}`);
  await flow.reply.finally(() => flow[Symbol.asyncDispose]());
  return kept;
}
// === What login() saves

for (
  const [how, fail] of [
    ["throw", () => {
      throw new Error("a bug of the caller's");
    }],
    ["reject", () => Promise.reject(new Error("a bug of the caller's"))],
    ["never resolve", () => new Promise(() => {})],
  ] as [string, () => unknown][]
) {
  test(`login() saves and returns the tokens though listeners ${how}`, () =>
    withHost(() => answer(), async ({ tokenEndpoint }) => {
      const store = memoryStore();
      const reply = await loginAt(tokenEndpoint, {
        store,
        onStart: how === "never resolve" ? () => {} : fail,
        onState: fail,
        onTrace: fail,
        onSaved: fail,
        onWarning: fail,
      });
      assert.deepEqual(reply, REPLY);
      assert.deepEqual((await store.load("default"))?.data, REPLY.data);
    }));
}

test("login() ends though onStart never resolves", () =>
  withHost(() => answer(), async ({ tokenEndpoint }) => {
    const onStart = (flow: AuthFlow) => {
      const state = new URL(flow.url).searchParams.get("state");
      void flow.submit(`?code=${CODE}&state=${state}`);
      return new Promise(() => {});
    };
    const open = () => {};
    assert.deepEqual(await loginAt(tokenEndpoint, { onStart, open }), REPLY);
    const late = loginAt(tokenEndpoint, {
      onStart: () => new Promise(() => {}),
      open,
      timeout: 1,
    });
    await failure(late, "timeout");
  }));

test("login() hands a store tokens that JSON.stringify takes", async () => {
  const texts: string[] = [];
  const kept = memoryStore();
  const store = {
    ...kept,
    save: (...args: Parameters<typeof kept.save>) => {
      texts.push(JSON.stringify(args[1]));
      return kept.save(...args);
    },
  };
  await withHost(
    () => NUMBER_REPLY,
    (host) => loginAt(host.tokenEndpoint, { store }),
  );
  assert.match(texts[0]!, /"record":"7495540735365777507".*"meta":\{/);
});

for (const scopes of [undefined, null, "seller.order.info", 5, {}]) {
  test(`login() finds no scope in ${JSON.stringify(scopes)}`, async () => {
    const data = { ...REPLY.data, granted_scopes: scopes };
    const call = withHost(
      () => answer({ ...REPLY, data }),
      ({ tokenEndpoint }) =>
        loginAt(tokenEndpoint, { requireScopes: ["seller.order.info"] }),
    );
    const error = await failure(call, "missing_scope");
    assert.deepEqual(error.reply?.data.access_token, "GCP_access");
  });
}

test("login() saves the digits of large integers", () =>
  withFolder(async (folder) => {
    const store = fileStore(folder);
    await withHost(
      () => NUMBER_REPLY,
      (host) => loginAt(host.tokenEndpoint, { store }),
    );
    const text = await readFile(join(folder, "default.json"), "utf8");
    for (const [name, value] of Object.entries(NUMBERS)) {
      assert.ok(text.includes(`"${name}": ${value},`), name);
    }
    assert.match(text, /\[\s+\[\s+7495540735365777507\s+\]\s+\]/);
  }));

// === Whose tokens, and when they came

const NOON = Date.parse("2026-01-15T12:00:00Z") / 1000;

test("login() keeps whose the tokens are and when they came", () =>
  withHost(
    () => answer(REPLY, { headers: { date: httpDate(NOON * 1000) } }),
    async ({ tokenEndpoint }) => {
      const now = () => NOON * 1000 + 999;
      assert.deepEqual(await metaFrom(tokenEndpoint, { now }), {
        version: 1,
        obtained_at: NOON,
        app_key: APP.appKey,
        service_id: SERVICE_ID,
        region: "row",
        user_type: "seller",
      });
    },
  ));

/** The host's clock and ours; what is kept, and how far ours was behind. */
const CLOCKS: readonly [string, string | undefined, number, number, number?][] =
  [
    ["right", httpDate(NOON * 1000), NOON, NOON],
    ["a little behind", httpDate((NOON + 4) * 1000), NOON, NOON + 4],
    ["an hour behind", httpDate(NOON * 1000), NOON - 3600, NOON, 3600],
    ["a day ahead", httpDate(NOON * 1000), NOON + 86400, NOON, -86400],
    ["at 1970", httpDate(NOON * 1000), 0, NOON, NOON],
    ["not told the time", undefined, NOON, NOON],
    ["told nonsense", "yesterday", NOON, NOON],
  ];

for (const [name, date, ours, obtained, offset] of CLOCKS) {
  test(`login() copes with a clock that is ${name}`, async () => {
    const headers: Record<string, string> = date ? { date } : {};
    const now = () => ours * 1000;
    const meta = await withHost(
      () => answer(REPLY, { headers }),
      ({ tokenEndpoint }) => metaFrom(tokenEndpoint, { now }),
    );
    assert.equal(meta.obtained_at, obtained);
    assert.equal(meta.clock_offset, offset);
    assert.equal("clock_offset" in meta, offset !== undefined);
  });
}

test("login() saves the clock's offset with the tokens", async () => {
  const port = await freePort();
  const redirectUrl = `http://localhost:${port}/`;
  await withSandbox(async (sandbox) => {
    const store = memoryStore();
    const open = async (url: string) => {
      await (await fetch(await sandbox.approve(url))).text();
    };
    await login({ ...sandbox, redirectUrl, port, store, open });
    const { meta } = (await store.load("default"))!;
    assert.ok(
      Math.abs(meta.clock_offset! + 7200) < 300,
      `${meta.clock_offset}`,
    );
    const now = Date.now() / 1000 - 7200;
    assert.ok(Math.abs(meta.obtained_at! - now) < 300);
  }, { clockOffset: -7200, redirectUrl });
});

// === Where login() saves

/** Logs in at a token host of its own, and lets a store save the tokens. */
async function loginTo(
  store: TokenStore,
  options: Partial<LoginOptions> = {},
): Promise<void> {
  await withHost(
    () => answer(),
    ({ tokenEndpoint }) => loginAt(tokenEndpoint, { store, ...options }),
  );
}

test("login() saves the tokens without being asked where", () =>
  withFolder(async (folder) => {
    for (const store of [memoryStore(), fileStore(folder)]) {
      await loginTo(store);
      const { meta, ...reply } = (await store.load("default"))!;
      assert.deepEqual(reply, REPLY);
      assert.equal(meta.app_key, APP.appKey);
    }
  }));

test("login() leaves a file alone that it cannot read, and spends no code", () =>
  withFolder(async (folder) => {
    const newer = JSON.stringify({ ...TOKENS, meta: { version: 2 } });
    for (const text of ["{ damaged", newer]) {
      const path = join(folder, "default.json");
      await fs.writeFile(path, text);
      const error = await refusedLogin(fileStore(folder));
      assert.ok(error.message.startsWith(path));
      assert.equal(await fs.readFile(path, "utf8"), text);
      assert.deepEqual(await fs.readdir(folder), ["default.json"]);
    }
  }));

/** The error of a login that fails before a person has seen the link. */
async function refusedLogin(
  store: TokenStore,
  options: Partial<LoginOptions> = {},
): Promise<TikTokShopError> {
  const refuse = () => assert.fail("the link was shown");
  const shown = { open: refuse, onStart: refuse };
  return await failure(loginTo(store, { ...shown, ...options }), "store");
}

test("login() proves that its tokens can be saved before it shows the link", () =>
  withFolder(async (folder) => {
    const file = join(folder, "file");
    await fs.writeFile(file, "");
    const error = await refusedLogin(fileStore(file));
    assert.match(error.message, /^Cannot /);
    assert.ok(error.hint);
    assert.equal(error.reply, undefined);
    const full = new Error("the table is full");
    const assertWritable = () => Promise.reject(full);
    const store = { ...memoryStore(), assertWritable };
    await assert.rejects(() => loginTo(store), full);
  }));

test("login() takes a store that proves nothing, as of version 1.0.0", async () => {
  const { load, save, remove, list, lock } = memoryStore();
  await loginTo({ load, save, remove, list, lock });
  assert.deepEqual((await load("default"))!.data, REPLY.data);
});

test("login() never loses tokens that could not be saved", () =>
  withFolder(async (folder) => {
    const path = join(folder, "store");
    const error = await failure(
      loginTo(fileStore(path), {
        onState: (state) => {
          if (state !== 2) return;
          rmSync(path, { recursive: true });
          writeFileSync(path, "");
        },
      }),
      "store",
    );
    assert.deepEqual(error.reply, REPLY);
    assert.match(error.message, /^Cannot (lock|save)/);
    assert.ok(error.hint);
  }));

test("login() warns under which name it kept the tokens beside another seller's", async () => {
  const store = memoryStore();
  const data = { ...TOKENS.data, open_id: "another" };
  await store.save("default", { ...TOKENS, data });
  const told: string[] = [];
  await loginTo(store, { onWarning: (message) => told.push(message) });
  assert.deepEqual(told, [
    '"default" holds another seller\'s tokens and was left alone: the new ' +
    'ones are under "harbour-finch"',
  ]);
});

// === Names that differ by case

for (
  const [kept, wanted] of [
    ["Shop", "shop"],
    ["shop", "SHOP"],
    ["Éire", "éire"],
    ["straße", "STRASSE"],
    ["가", "\u1100\u1161"],
  ] as const
) {
  test(`login() refuses the new name ${wanted} beside ${kept}, before the link`, () =>
    withFolder(async (folder) => {
      const refuse = () => assert.fail("the link was shown");
      const shown = { open: refuse, onStart: refuse };
      for (const store of [fileStore(folder), memoryStore()]) {
        await store.save(kept, TOKENS);
        await assert.rejects(
          () => loginTo(store, { profile: wanted, ...shown }),
          {
            name: "TypeError",
            message: /^Cannot use the profile name ".*disks/,
          },
        );
        assert.deepEqual(await store.list(), [kept]);
        await loginTo(store, { profile: kept });
      }
    }));
}

test("login() goes on with profiles that differ only by case already", async () => {
  const store = memoryStore();
  for (const name of ["Shop", "shop"]) await store.save(name, TOKENS);
  for (const profile of ["Shop", "shop"]) await loginTo(store, { profile });
  assert.deepEqual(await store.list(), ["Shop", "shop"]);
});

test("login() gives no automatic name that differs only by case from another", async () => {
  const store = memoryStore();
  const data = { ...TOKENS.data, open_id: "another" };
  for (const name of ["default", "Harbour-Finch"]) {
    await store.save(name, { ...TOKENS, data });
  }
  await loginTo(store, { onWarning: () => {} });
  const names = ["Harbour-Finch", "default", "harbour-finch-2"];
  assert.deepEqual(await store.list(), names);
});

// === What exchangeCode() saves

/** The replies of two sellers whose shops have one name, and the first again. */
const NAMESAKES = ["7010a", "7010b", "7010a"].map((open_id, n) => ({
  ...REPLY,
  data: { ...REPLY.data, open_id, access_token: `GCP_${n}` },
}));

test("exchangeCode() keeps nothing unless it is given a store", () =>
  withFolder((HOME) =>
    withHost(() => answer(), async ({ tokenEndpoint }) => {
      const kept = process.env.HOME;
      process.env.HOME = HOME;
      try {
        for (const store of [undefined, false] as const) {
          const options = { tokenEndpoint, store, onSaved: assert.fail };
          assert.deepEqual(await exchangeCode(APP, CODE, options), REPLY);
        }
      } finally {
        process.env.HOME = kept;
      }
      assert.deepEqual(await fs.readdir(HOME), []);
    })
  ));

test("exchangeCode() keeps each seller's tokens under the seller's own profile", () =>
  withFolder((folder) =>
    withHost((_, n) => answer(NAMESAKES[n % 3]), async ({ tokenEndpoint }) => {
      for (const store of [memoryStore(), fileStore(folder)]) {
        const saved: string[] = [];
        const onSaved = (profile: string) => saved.push(profile);
        const options = { tokenEndpoint, store, onSaved };
        for (const reply of NAMESAKES) {
          assert.deepEqual(await exchangeCode(APP, CODE, options), reply);
        }
        const [first, second] = ["harbour-finch", "harbour-finch-2"];
        assert.deepEqual(saved, [first, second, first]);
        assert.deepEqual(await store.list(), [first, second]);
        const { meta, ...reply } = (await store.load("harbour-finch"))!;
        assert.deepEqual(reply, NAMESAKES[2]);
        assert.equal(meta.app_key, APP.appKey);
      }
    })
  ));

test("exchangeCode() keeps what login() keeps beside the tokens", () =>
  withHost(() => answer(), async ({ tokenEndpoint }) => {
    const [ours, theirs] = [memoryStore(), memoryStore()];
    const who = { region: "us", userType: "partner" } as const;
    const rest = { serviceId: SERVICE_ID, tokenEndpoint, now: () => 0 };
    const options = { ...who, ...rest, profile: "main" };
    const shops = [{ id: "1" }] as Shop[];
    for (const store of [ours, theirs]) {
      await store.save("main", { ...TOKENS, meta: { ...TOKENS.meta, shops } });
    }
    await exchangeCode(APP, CODE, { ...options, store: ours });
    await loginTo(theirs, options);
    assert.deepEqual(await ours.load("main"), await theirs.load("main"));
    assert.deepEqual((await ours.load("main"))!.meta, {
      shops,
      version: 1,
      app_key: APP.appKey,
      obtained_at: 0,
      service_id: SERVICE_ID,
      region: "us",
      user_type: "partner",
    });
  }));

test("exchangeCode() leaves another seller's tokens alone and says so", () =>
  withHost((_, n) => answer(NAMESAKES[n]), async ({ tokenEndpoint }) => {
    const store = memoryStore();
    const told: string[] = [];
    const onWarning = (message: string) => told.push(message);
    const options = { store, tokenEndpoint, profile: "main", onWarning };
    await exchangeCode(APP, CODE, options);
    await exchangeCode(APP, CODE, options);
    assert.match(
      told.join(),
      /^"main" holds another .* under "harbour-finch"$/,
    );
    assert.deepEqual(await store.list(), ["harbour-finch", "main"]);
    const third = { ...options, profile: "harbour-finch", switch: true };
    await exchangeCode(APP, CODE, third);
    const { data } = (await store.load("harbour-finch"))!;
    assert.equal(data.open_id, "7010a");
  }));

test("exchangeCode() spends no code whose tokens could not be saved", () =>
  withFolder((folder) =>
    withHost(() => answer(), async ({ tokenEndpoint, requests }) => {
      const file = join(folder, "file");
      await fs.writeFile(file, "");
      const refuse = () => Promise.reject(new Error("not allowed"));
      const stores: TokenStore[] = [
        fileStore(file),
        { ...memoryStore(), assertWritable: refuse },
        { ...memoryStore(), lock: refuse },
        { ...memoryStore(), list: refuse },
      ];
      for (const store of stores) {
        for (const profile of [undefined, "main"]) {
          const options = { store, tokenEndpoint, profile };
          await assert.rejects(exchangeCode(APP, CODE, options), (error) => {
            assert.equal((error as TikTokShopError).reply, undefined);
            return /not allowed|^Cannot /.test((error as Error).message);
          });
        }
      }
      const wrong = { store: memoryStore(), tokenEndpoint, profile: "default" };
      await wrong.store.save("Default", TOKENS);
      await assert.rejects(exchangeCode(APP, CODE, wrong), /some disks/);
      assert.equal(requests.length, 0);
    })
  ));

test("exchangeCode() hands over the tokens that a store then refuses", () =>
  withHost(() => answer(), async ({ tokenEndpoint }) => {
    const save = () => Promise.reject(new Error(`no room: ${CODE} GCP_access`));
    const store = { ...memoryStore(), save };
    const call = exchangeCode(APP, CODE, { store, tokenEndpoint });
    const error = await failure(call, "store");
    assert.deepEqual(error.reply, REPLY);
    assert.doesNotMatch(error.message, /GCP_access/);
  }));

test("exchangeCode() saves though its signal aborts once the reply is here", () =>
  withHost(() => answer(), async ({ tokenEndpoint }) => {
    const store = memoryStore();
    const abort = new AbortController();
    const { signal } = abort;
    const onSaving = () => abort.abort();
    const options = { store, tokenEndpoint, signal, onSaving };
    await exchangeCode(APP, CODE, options);
    assert.deepEqual(await store.list(), ["harbour-finch"]);
    await failure(exchangeCode(APP, CODE, options), "cancelled");
  }));

test("exchangeCode() keeps the tokens that lack a required scope, and fails", () =>
  withHost(() => answer(), async ({ tokenEndpoint }) => {
    const store = memoryStore();
    const options = { store, tokenEndpoint, requireScopes: ["seller.x"] };
    const error = await failure(
      exchangeCode(APP, CODE, options),
      "missing_scope",
    );
    assert.deepEqual(error.reply, REPLY);
    assert.deepEqual(await store.list(), ["harbour-finch"]);
  }));

test("exchangeCode() keeps fifty sellers apart who come at once", () =>
  withFolder((folder) => {
    const ids = Array.from({ length: 50 }, (_, n) => `7010${n}`);
    const replies = ids.map((open_id) => ({
      ...REPLY,
      data: { ...REPLY.data, open_id },
    }));
    const handler: HostHandler = (_, n) => answer(replies[n]);
    return withHost(handler, async ({ tokenEndpoint }) => {
      const options = { store: fileStore(folder), tokenEndpoint };
      await Promise.all(ids.map(() => exchangeCode(APP, CODE, options)));
      const { store } = options;
      const kept = (await store.list()).map((name) => store.load(name));
      const found = (await Promise.all(kept)).map((one) => one!.data.open_id);
      assert.deepEqual(found.sort(), [...ids].sort());
      assert.equal((await fs.readdir(folder)).length, 50);
    });
  }));

// === A login that is given nothing but the app

/** Lines that log in at a token host, approve by themselves and print. */
async function scriptedLogin(
  folder: string,
  options: string,
  env: Record<string, string | undefined>,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const port = await freePort();
  const file = join(folder, "script.ts");
  const app = JSON.stringify({ ...APP, serviceId: SERVICE_ID, port });
  await fs.writeFile(
    file,
    `import { accessToken, login } from ${JSON.stringify(join(ROOT, "mod.ts"))};
    const port = ${port};
    const approve = async (url) => {
      const state = new URL(url).searchParams.get("state");
      await (await fetch(\`http://127.0.0.1:\${port}/?code=c&state=\${state}\`))
        .text();
    };
    const app = { ...${app}, tokenEndpoint: process.env.TOKEN_HOST };
    try {
      const reply = await login({ ...app, ${options} });
      const kept = await accessToken(app)
        .catch((error) => error.kind);
      console.log(reply.data.access_token, kept);
    } catch (error) {
      console.log(error.name, error.kind, error.message, "|", error.hint);
    }`,
  );
  const access_token_expire_in = Math.floor(Date.now() / 1000) + 7 * 86_400;
  const data = { ...REPLY.data, access_token_expire_in };
  const reply = () => answer({ ...REPLY, data });
  const ended = await withHost(
    reply,
    ({ tokenEndpoint: TOKEN_HOST }) =>
      start(runtimeCommand(file), { env: { ...env, TOKEN_HOST } }).ended,
  );
  return { ...ended, stderr: ended.stderr.replace(LOCK_NOTICE, "") };
}

const LINK = /^Open this link to authorize the app:\n\n(https:\S+)\n\n/;

test("login() keeps tokens where accessToken() finds them, and prints the link once", () =>
  withFolder(async (folder) => {
    const HOME = join(folder, "home");
    const options = "open: (url) => approve(url)";
    const ended = await scriptedLogin(folder, options, { HOME });
    assert.deepEqual([ended.code, ended.stdout], [
      0,
      "GCP_access GCP_access\n",
    ]);
    assert.match(ended.stderr, LINK);
    assert.equal(ended.stderr.split("https:").length, 2);
    assert.equal(ended.stderr.replace(LINK, ""), "");
    await fs.access(
      join(HOME, ".config", "tiktok-shop-oauth2", "default.json"),
    );
  }));

test("login() with store: false keeps nothing, and needs no HOME", () =>
  withFolder(async (folder) => {
    const options = "store: false, open: (url) => approve(url)";
    const HOME = join(folder, "home");
    const ended = await scriptedLogin(folder, options, { HOME });
    assert.equal(ended.stdout, "GCP_access login_required\n", ended.stderr);
    assert.ok(!(await fs.readdir(folder)).includes("home"));
    const bare = await scriptedLogin(folder, options, { HOME: undefined });
    assert.equal(bare.stdout, "GCP_access store\n", bare.stderr);
  }));

test(
  "login() without a place for its tokens names store: false, before the link",
  {
    skip: ON_WINDOWS && "the folders are those of Unix",
  },
  () =>
    withFolder(async (folder) => {
      const file = join(folder, "file");
      await fs.writeFile(file, "");
      for (const env of [{ HOME: undefined }, { TIKTOK_SHOP_HOME: file }]) {
        const { code, stdout, stderr } = await scriptedLogin(folder, "", env);
        assert.deepEqual([code, stderr], [0, ""]);
        assert.match(
          stdout,
          /^TikTokShopError store Cannot .*\(store: false\)\n$/,
        );
      }
    }),
);

for (
  const [what, open, says] of [
    ["throws", "() => { throw new Error('no browser') }", /^no browser: open /],
    [
      "rejects",
      "() => Promise.reject(new Error('no browser'))",
      /^no browser: open /,
    ],
    ["finds none", "() => false", /^No browser could be opened: open the link/],
    [
      "finds none after a while",
      "() => Promise.resolve(false)",
      /^No browser could be opened: open the link yourself\n$/,
    ],
  ] as const
) {
  test(`login() without listeners prints that its opener ${what}`, () =>
    withFolder(async (folder) => {
      const options =
        `open: (url) => (setTimeout(approve, 300, url), (${open})())`;
      const env = { HOME: join(folder, "home") };
      const ended = await scriptedLogin(folder, options, env);
      assert.equal(ended.stdout, "GCP_access GCP_access\n", ended.stderr);
      assert.match(ended.stderr, LINK);
      assert.match(ended.stderr.replace(LINK, ""), says);
    }));
}

test("login() with listeners prints nothing", () =>
  withFolder(async (folder) => {
    const options = "open: () => false, " +
      "onStart: ({ url }) => void setTimeout(approve, 100, url), " +
      "onWarning: () => { throw new Error('a listener that fails') }";
    const env = { HOME: join(folder, "home") };
    const { stdout, stderr } = await scriptedLogin(folder, options, env);
    assert.deepEqual([stdout, stderr], ["GCP_access GCP_access\n", ""]);
  }));

// === What the program saves

describe("the program's login saves", TOGETHER, () => {
  it("saves the reply as it came, and what is known beside it", () =>
    withCli((cli) =>
      withHost(() => answer(WIRE), async ({ tokenEndpoint }) => {
        await cli.login(["--token-endpoint", tokenEndpoint, "--region", "us"]);
        const saved = await cli.saved();
        const at = saved.indexOf(',\n  "meta"');
        assert.equal(`${saved.slice(0, at)}\n}\n`, PRETTY);
        const { meta } = JSON.parse(saved);
        const age = Date.now() / 1000 - meta.obtained_at;
        assert.ok(age >= 0 && age < 300, `${age}`);
        delete meta.obtained_at;
        assert.deepEqual(meta, {
          version: 1,
          app_key: cli.sandbox.appKey,
          service_id: cli.sandbox.serviceId,
          region: "us",
          user_type: "seller",
        });
      })
    ));

  it("saves for its owner alone", NO_WINDOWS, () =>
    withCli(async (cli) => {
      await cli.login();
      const mode = async (path: string) => (await fs.stat(path)).mode & 0o777;
      assert.equal(await mode(join(cli.store, "default.json")), 0o600);
      assert.equal(await mode(cli.store), 0o700);
      assert.deepEqual(await fs.readdir(cli.store), ["default.json"]);
    }));

  it(
    "keeps tokens in ~/.config unless told otherwise",
    NO_WINDOWS,
    () =>
      withCli(async (cli) => {
        await cli.login([], { env: { TIKTOK_SHOP_HOME: undefined } });
        const path = ".config/tiktok-shop-oauth2/default.json";
        assert.match(await fs.readFile(cli.path(path), "utf8"), /"success"/);
      }),
  );
});

// === Ctrl-C while saving

/** Begins a login; the function that sends it the redirect. */
type Begin = (cli: CliFixture) => Promise<() => Running>;

const BEGINNINGS: Record<string, Begin> = {
  "login": async (cli) => {
    const running = await cli.open();
    const redirect = await cli.decide(running.link);
    return () => {
      fetch(redirect).catch(() => {}); // no page, if it is ended
      return running;
    };
  },
  "login --complete": async (cli) => {
    const flags = cli.portFlag([]);
    const { stdout } = await cli.run(["login", "--start", ...flags]);
    const link: string = JSON.parse(stdout).authorize_url;
    cli.knowStateOf(link);
    const redirect = await cli.decide(link);
    return () => cli.start(["login", "--complete", redirect]);
  },
};

/** Presses Ctrl-C while a reply waits for a lock that we hold. */
async function interruptSaving(
  cli: CliFixture,
  begin: Begin,
): Promise<{ running: Running; lock: TokenLock }> {
  const arrive = await begin(cli);
  const running = arrive();
  // After the code is spent: an earlier wait would be that of the proof.
  const { sandbox, store } = cli;
  const isSpent = () => sandbox.count("/api/v2/token/get") === 1;
  await eventually(isSpent, "the code is spent");
  const lock = await fileStore(store).lock("default");
  await running.until(/Waiting for the lock of profile "default", which/);
  cli.signal(running, "SIGINT");
  await running.until(/reply is here and waits .* Press Ctrl-C again/);
  return { running, lock };
}

describe("Ctrl-C while the tokens wait to be saved", {
  ...TOGETHER,
  ...NO_WINDOWS,
}, () => {
  for (const [what, begin] of Object.entries(BEGINNINGS)) {
    it(`does not keep ${what} from saving them`, () =>
      withCli(async (cli) => {
        const { running, lock } = await interruptSaving(cli, begin);
        await lock[Symbol.asyncDispose]();
        const { code, stdout, stderr } = await running.ended;
        assert.equal(code, 0, stderr);
        const { data } = JSON.parse(stdout);
        const saved = JSON.parse(await cli.saved());
        assert.equal(saved.data.access_token, data.access_token);
      }, { latency: 3000 }));

    it(`pressed twice has ${what} print them`, () =>
      withCli(async (cli) => {
        const { running, lock } = await interruptSaving(cli, begin);
        cli.signal(running, "SIGINT");
        const { code, stdout, stderr } = await running.ended;
        assert.equal(code, 1, stderr);
        assert.equal(JSON.parse(stdout).message, "success");
        assert.match(stderr, /error: The tokens were not saved: interrupted\n/);
        await lock[Symbol.asyncDispose]();
        await assert.rejects(cli.saved());
      }, { latency: 3000 }));
  }
});

// === Saving

/** Two sellers of one app. */
const SELLERS: SandboxSeller[] = ["First Shop", "Łódź & Söhne"]
  .map((name, i) => ({
    openId: `open-id-${i}`,
    name,
    region: "GB",
    userType: 0,
    scopes: [],
    shops: [],
  }));
const SECOND = { decision: { seller: 1 } };

/** Files that cannot be written, and why not. */
const BAD_FILES: [
  name: string,
  (cli: CliFixture) => Promise<string>,
  object?,
][] = [
  [
    "in a folder that is a file",
    async (cli) => join(await cli.write("file", ""), "tokens.json"),
  ],
  [
    "in a folder that is a device",
    () => Promise.resolve("/dev/full/tokens.json"),
    skipIf(!ON_LINUX, "only Linux has /dev/full"),
  ],
  [
    "in a folder that nobody may write to",
    () => Promise.resolve("/sys/tokens/tokens.json"),
    skipIf(!ON_LINUX, "only Linux has /sys"),
  ],
  [
    "in a folder that is read-only",
    async (cli) => {
      await fs.mkdir(cli.path("locked"), { mode: 0o500 });
      return cli.path("locked", "tokens.json");
    },
    skipIf(ON_WINDOWS || process.getuid?.() === 0, "root may write anywhere"),
  ],
  [
    "that is a folder",
    async (cli) => {
      await fs.mkdir(cli.path("tokens.json"));
      return cli.path("tokens.json");
    },
  ],
];

/** A login that ends before it shows a link. */
async function refusedRun(cli: CliFixture, args: string[]): Promise<Ended> {
  const usual = ["login", "--no-browser", ...cli.portFlag(args)];
  const ended = await cli.run([...usual, ...args]);
  assert.deepEqual([ended.code, ended.stdout], [1, ""], ended.stderr);
  return ended;
}

describe("login's tokens", TOGETHER, () => {
  for (const [name, fileAt, skip] of BAD_FILES) {
    it(
      `are proven to be savable before the link is shown, to a file ${name}`,
      skip ?? {},
      () =>
        withCli(async (cli) => {
          const file = await fileAt(cli);
          const ended = await refusedRun(cli, ["--file", file]);
          assert.match(
            ended.stderr,
            /^error: Cannot (lock|read|save) .*tokens/,
          );
          assert.match(ended.stderr, /\nhint: .*\nflag: --file FILE\n$/);
        }),
    );
  }

  for (const text of ["", "{", "[]", `{"data":{}}`, "\u0000\u0001"]) {
    const shown = JSON.stringify(text);
    it(`are asked for at no file that has ${shown}, which is left as it is`, () =>
      withCli(async (cli) => {
        const file = await cli.write("tokens.json", text);
        const { stderr } = await refusedRun(cli, ["--file", file]);
        assert.match(stderr, /^error: .*tokens\.json is no token file, or dam/);
        assert.match(stderr, /\nhint: move it away, then log in again/);
        assert.equal(await fs.readFile(file, "utf8"), text);
      }));
  }

  it("are printed if they can no longer be saved once they are here", () =>
    withCli(async (cli) => {
      const { link, ended } = await cli.open(["--json"]);
      await fs.rm(cli.store, { recursive: true });
      await fs.writeFile(cli.store, "");
      const shown = await fetch(await cli.decide(link));
      const { code, stdout, stderr } = await ended;
      assert.deepEqual([code, shown.status], [1, 502]);
      assert.match(stdout, /^{"code":0,.*}\n$/);
      const { error } = JSON.parse(stderr.trim().split("\n").at(-1)!);
      assert.match(error.message, /^Cannot (lock|read|save) .*default\.json/);
    }));

  it("never replace those of another seller, and it is said", () =>
    withCli(async (cli) => {
      await cli.login();
      const before = await cli.saved();
      const { code, stdout, stderr } = await cli.login([], SECOND);
      assert.equal(code, 0);
      assert.equal(await cli.saved(), before);
      const saved = JSON.parse(await cli.saved("łódź-söhne"));
      assert.deepEqual(saved.data, JSON.parse(stdout).data);
      assert.match(
        stderr,
        /^"default" holds another seller's tokens .* under "łódź-söhne"\n/m,
      );
    }, { sellers: SELLERS }));

  it("never replace those of another app", () =>
    withCli(async (cli) => {
      await cli.login();
      const other = (await cli.saved()).replace(/"app_key": "/, "$&x");
      await fs.writeFile(join(cli.store, "default.json"), other);
      await cli.login();
      assert.equal(await cli.saved(), other);
      assert.match(await cli.saved("first-shop"), /"open-id-0"/);
    }, { sellers: SELLERS }));

  it("replace those of another seller with --switch", () =>
    withCli(async (cli) => {
      await cli.login();
      const { stderr } = await cli.login(["--switch"], SECOND);
      assert.match(await cli.saved(), /"open-id-1"/);
      assert.deepEqual(await fs.readdir(cli.store), ["default.json"]);
      assert.doesNotMatch(stderr, /another seller/);
    }, { sellers: SELLERS }));

  it("replace those of the same seller", () =>
    withCli(async (cli) => {
      await cli.login();
      const before = await cli.saved();
      const { stdout } = await cli.login();
      assert.notEqual(await cli.saved(), before);
      const saved = JSON.parse(await cli.saved());
      assert.deepEqual(saved.data, JSON.parse(stdout).data);
      assert.deepEqual(await fs.readdir(cli.store), ["default.json"]);
    }));

  it("go beside the file that holds another seller's", () =>
    withCli(async (cli) => {
      const args = ["--file", cli.path("shop.json")];
      await cli.login(args);
      const { code, stderr } = await cli.login(args, SECOND);
      assert.equal(code, 0);
      const path = cli.path("łódź-söhne.json");
      assert.match(await fs.readFile(path, "utf8"), /"open-id-1"/);
      assert.ok(stderr.includes(`Use --file '${path}' from now on`), stderr);
      assert.doesNotMatch(stderr, /--profile/);
    }, { sellers: SELLERS }));
});
