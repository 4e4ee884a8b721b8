/**
 * signature(), callApi() and authorizedShops(): against the sandbox, which
 * checks every signature, and against a server of bytes where the sandbox
 * would never answer so. No error and no trace may show a secret.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { connect, createServer as createLine } from "node:net";
import process from "node:process";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  type ApiOptions,
  type ApiRequest,
  authorizedShops,
  callApi,
  type ErrorKind,
  exchangeCode,
  memoryStore,
  type Shop,
  signature,
  type SignedRequest,
  type StoredTokens,
  type TokenMeta,
  type TokenStore,
} from "../mod.ts";
import {
  type Sandbox,
  type SandboxFault,
  type SandboxOptions,
  type SandboxSeller,
  startSandbox,
} from "../scripts/sandbox.ts";
import { APP, failure, REPLY } from "./token_host.ts";

// === Helpers

const ECHO = "/echo/202309/x";
const SEARCH = "/order/202309/orders/search";
const SHOPS = "/authorization/202309/shops";
const DAY = 86_400;

/** A profile of a sandbox's seller, and how to call the API with it. */
interface Desk {
  sandbox: Sandbox;
  store: TokenStore;
  options: ApiOptions;
  /** The calls of the API so far. */
  calls: () => Sandbox["requests"];
  /** The tokens as they are kept now. */
  tokens: () => Promise<StoredTokens>;
}

/** Runs a test with a fresh profile; `data` replaces members of its reply. */
async function withDesk(
  run: (desk: Desk) => Promise<unknown>,
  options: SandboxOptions = {},
  data: Record<string, unknown> = {},
): Promise<void> {
  const sandbox = await startSandbox(options);
  const store = memoryStore();
  const reply = await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
  const first = { ...reply, data: { ...reply.data, ...data }, meta: {} };
  await store.save("default", first);
  const traces: string[] = [];
  const calls = () =>
    sandbox.requests.filter(({ path }) => !path.startsWith("/api/v2/"));
  const tokens = async () => (await store.load("default"))!;
  const call: ApiOptions = {
    appKey: sandbox.appKey,
    appSecret: sandbox.appSecret,
    apiEndpoint: sandbox.apiEndpoint,
    refreshEndpoint: sandbox.refreshEndpoint,
    store,
    onTrace: (line) => void traces.push(line),
  };
  try {
    await run({ sandbox, store, options: call, calls, tokens });
    const secrets = [...tokensOf(first), ...tokensOf(await tokens())];
    assertSecretFree(traces.join("\n"), sandbox, secrets);
  } finally {
    await sandbox.stop();
  }
}

function tokensOf({ data }: StoredTokens): string[] {
  return [data.access_token, data.refresh_token];
}

/** No secret of the sandbox's app, nor a sign of any call, is in a text. */
function assertSecretFree(
  text: string,
  { appSecret, requests }: Pick<Sandbox, "appSecret" | "requests">,
  tokens: string[],
): void {
  const signs = requests.map(({ query }) => query.sign ?? "");
  const secrets = [appSecret, ...tokens, ...signs].filter((each) => each);
  for (const secret of secrets) {
    assert.ok(!text.includes(secret), `${secret} is shown: ${text}`);
    const encoded = encodeURIComponent(secret);
    assert.ok(!text.includes(encoded), `${encoded} is shown: ${text}`);
  }
}

/** The error of a call; nothing that a logger prints of it is secret. */
async function refused(
  { sandbox, options, tokens }: Desk,
  request: ApiRequest,
  kind?: ErrorKind,
) {
  const error = await failure(callApi(request, options), kind, request.path);
  const shown = inspect(error, { depth: 9, showHidden: true });
  assertSecretFree(
    shown + error.stack + JSON.stringify(error),
    sandbox,
    tokensOf(await tokens()),
  );
  return error;
}

/** A call as a server of bytes received it. */
interface Received {
  method: string;
  path: string;
  query: Record<string, string>;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
}

/** What the server of bytes answers; an object is JSON with HTTP 200. */
interface Answer {
  status?: number;
  headers?: Record<string, string>;
  body: unknown;
}

const GOOD: Answer = { body: { code: 0, message: "Success", data: {} } };

/** Runs a test with a server that gives the nth call the nth answer. */
async function withServer(
  answer: (call: Received, index: number) => Answer,
  run: (options: ApiOptions, calls: Received[]) => Promise<unknown>,
): Promise<void> {
  const calls: Received[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(Buffer.from(chunk));
    } catch {
      return; // whoever called has hung up
    }
    const { method = "", headers, url = "" } = request;
    const [path = "", search] = url.split("?");
    const query = Object.fromEntries(new URLSearchParams(search));
    const call = { method, path, query, headers, body: Buffer.concat(chunks) };
    const reply = answer(call, calls.push(call) - 1);
    const { status = 200 } = reply;
    response.writeHead(status, { connection: "close", ...reply.headers });
    const text = typeof reply.body === "string";
    response.end(text ? reply.body : JSON.stringify(reply.body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const apiEndpoint = `http://127.0.0.1:${port}`;
  const refreshEndpoint = `${apiEndpoint}/api/v2/token/refresh`;
  const store = memoryStore();
  await store.save("default", longLived());
  try {
    await run({ ...APP, apiEndpoint, refreshEndpoint, store }, calls);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Tokens that need no refresh for a day, and their shops. */
function longLived(shops?: Shop[]): StoredTokens {
  const data = { ...REPLY.data, access_token_expire_in: unixTime() + DAY };
  return { ...REPLY, data, meta: shops ? { shops } : {} };
}

function unixTime(): number {
  return Math.floor(Date.now() / 1000);
}

/** A seller of the sandbox with some shops; the nth one has the id 860000n. */
function sellerWith(...names: string[]): SandboxSeller {
  return {
    openId: "7010bAAAAAAX",
    name: "Quay",
    region: "GB",
    userType: 0,
    scopes: ["seller.authorization.info", "seller.order.info"],
    shops: names.map((name, i) => ({
      cipher: `GCP_${i}+cipher/${i}==`,
      code: `GBQ${i}`,
      id: `860000${i}`,
      name,
      region: "GB",
      seller_type: "LOCAL",
    })),
  };
}

// === signature()

/** Published signatures. */
const VECTORS: {
  from: string;
  secret: string;
  path: string;
  query: Record<string, string>;
  sign: string;
}[] = [
  {
    from: "the official signing guide",
    secret: "e59af819cc",
    path: "/authorization/202309/shops",
    query: { app_key: "29a39d", timestamp: "1623812664" },
    sign: "b596b73e0cc6de07ac26f036364178ab16b0a907af13d43f0a0cd2345f582dc8",
  },
  {
    from: "EcomPHP/tiktokshop-php",
    secret: "app_secret",
    path: "/test-api",
    query: { foo: "bar" },
    sign: "d3cb7fe11ecae942802ceeca67e7cf10120cc12f1517d45fbc1c8cfe5413c80f",
  },
  {
    from: "ipfans/tiktok",
    secret: "123",
    path: "/api/shop/get_authorized_shop",
    query: {
      app_key: "12abcd",
      timestamp: "1600000000",
      access_token: "abc1c123-3128-aa17-125e-2d2d51ab814fa",
    },
    sign: "f0f368ecacccb0839e5291d375f9171e1ab93b65fb2bc4ece556e1f42466249f",
  },
];

for (const { from, secret, path, query, sign } of VECTORS) {
  test(`signature() makes the one that ${from} published`, () => {
    assert.equal(signature(secret, { path, query }), sign);
    assert.equal(signature(secret, { path, query, body: "" }), sign);
  });
}

const BYTES = Uint8Array.of(0xff, 0xfe, 0x00, 0x80, 0x0a);
const BOUNDARY = "multipart/form-data; boundary=x";

/** What is signed, and what stands between the two secrets for it. */
const SIGNED: [
  string,
  Omit<SignedRequest, "path">,
  ...(string | Uint8Array)[],
][] = [
  ["nothing but the path", {}],
  ["an empty query", { query: {} }],
  [
    "values as they are, decoded",
    { query: { q: "a b&c=d+e%20/é" } },
    "qa b&c=d+e%20/é",
  ],
  ["an empty value", { query: { b: "", a: "1" } }, "a1b"],
  [
    "names by code units, not by a language's order",
    { query: { b: "6", a_b: "5", ab: "4", a: "3", _c: "2", A_b: "1", Z: "0" } },
    "A_b1Z0_c2a3a_b5ab4b6",
  ],
  ["numbers as names by their text", { query: { 10: "x", 9: "y" } }, "10x9y"],
  ["all but sign and access_token", {
    query: { sign: "s", access_token: "t", signs: "u", Sign: "v" },
  }, "Signvsignsu"],
  ["characters beyond the BMP", { query: { "😀": "東京" } }, "😀東京"],
  ["a text body as UTF-8", { body: '{"a":"é😀"}' }, '{"a":"é😀"}'],
  ["bytes that are no UTF-8", { body: BYTES }, BYTES],
  ["white space of a body", { body: " {}\r\n" }, " {}\r\n"],
  ["no multipart body", { body: "x", contentType: BOUNDARY }],
  ["no Multipart body", { body: "x", contentType: "Multipart/Form-Data" }],
  ["no multipart bytes", { body: BYTES, contentType: "MULTIPART/FORM-DATA" }],
  ["other multiparts", { body: "x", contentType: "multipart/mixed" }, "x"],
  ["what only mentions multipart", {
    body: "x",
    contentType: "application/json; not=multipart/form-data",
  }, "x"],
  ["query before body", { query: { z: "1" }, body: "a" }, "z1a"],
];

for (const [what, request, ...between] of SIGNED) {
  test(`signature() signs ${what}`, () => {
    const hmac = createHmac("sha256", "sécret").update("sécret/p");
    for (const part of between) hmac.update(part);
    const expected = hmac.update("sécret").digest("hex");
    const sign = signature("sécret", { path: "/p", ...request });
    assert.equal(sign, expected);
    assert.match(sign, /^[0-9a-f]{64}$/);
  });
}

test("signature() leaves the query it is given alone", () => {
  const query = Object.freeze({ b: "1", a: "2", sign: "3" });
  signature("secret", { path: "/p", query });
  assert.deepEqual(Object.keys(query), ["b", "a", "sign"]);
});

// === callApi(): the request

test("callApi() sends the query of the path and that of the request", () =>
  withDesk(async ({ options, sandbox, calls }) => {
    const reply = await callApi({
      path: `${ECHO}?a=1&b=x%20y%26%2Bz&c=lost`,
      query: { c: "é+/= 東京", "d e": "&=#?" },
    }, options);
    const { query, method } = reply.data as {
      query: Record<string, string>;
      method: string;
    };
    const { app_key, timestamp, ...rest } = query;
    assert.equal(method, "GET");
    assert.deepEqual(rest, {
      "a": "1",
      "b": "x y&+z",
      "c": "é+/= 東京",
      "d e": "&=#?",
    });
    assert.equal(app_key, sandbox.appKey);
    assert.ok(Math.abs(Number(timestamp) - unixTime()) < 5, timestamp);
    assert.equal(calls().length, 1);
  }));

test("callApi() sends the token in a header, and never in the query", () =>
  withDesk(async ({ options, calls, tokens }) => {
    await callApi({ path: ECHO }, options);
    const [{ headers, query }] = calls() as [Sandbox["requests"][0]];
    const { data } = await tokens();
    assert.equal(headers["x-tts-access-token"], data.access_token);
    assert.equal(headers["content-type"], "application/json");
    const names = ["app_key", "sign", "timestamp"];
    assert.deepEqual(Object.keys(query).sort(), names);
  }));

test("callApi() resolves to TikTok's reply, its large integers exact", () =>
  withServer(() => ({
    body: '{"code":0,"data":{"id":7495540735365777507,"n":[1,null]},"more":{}}',
  }), async (options) => {
    const reply = await callApi({ path: ECHO }, options);
    const data = { id: 7495540735365777507n, n: [1, null] };
    assert.deepEqual(reply.data, data);
    assert.deepEqual(Object.keys(reply), ["code", "data", "more"]);
    assert.match(JSON.stringify(reply), /"id":"?7495540735365777507"?,/);
  }));

const JSON_TYPE = "application/json";

/** A body, the bytes it must become and their content type. */
const BODIES: [string, unknown, string | Uint8Array, string?][] = [
  ["an object", { a: 1, b: [null, "é"] }, '{"a":1,"b":[null,"é"]}'],
  ["an array", [1, "2"], '[1,"2"]'],
  [
    "a large integer",
    { id: 7495540735365777507n },
    '{"id":7495540735365777507}',
  ],
  ["null", null, "null"],
  ["text", ' {"a" : 1.0}\n', ' {"a" : 1.0}\n'],
  ["unicode text", '{"name":"東京 😀"}', '{"name":"東京 😀"}'],
  ["bytes", BYTES, BYTES],
  ["a Buffer", Buffer.from(BYTES), BYTES],
  ["a part of a buffer", BYTES.subarray(1, 3), BYTES.slice(1, 3)],
  ["no body", undefined, ""],
];

test("callApi() sends each body exactly, and signs what it sends", () =>
  withServer(() => GOOD, async (options, calls) => {
    for (const [name, body, expected] of BODIES) {
      await callApi({ method: "POST", path: ECHO, body }, options);
      const { query, ...call } = calls.at(-1)!;
      assert.deepEqual(call.body, Buffer.from(expected as string), name);
      assert.equal(call.headers["content-type"], JSON_TYPE, name);
      const sign = signature(APP.appSecret, {
        path: ECHO,
        query,
        body: call.body,
      });
      assert.equal(query.sign, sign, name);
    }
  }));

test("callApi() has its signatures accepted for every body and method", () =>
  withDesk(async ({ options, calls }) => {
    for (const [name, body] of BODIES) {
      for (const method of ["POST", "PUT", "PATCH", "DELETE"]) {
        await callApi({ method, path: ECHO, body }, options);
        assert.equal(calls().at(-1)!.method, method, name);
      }
    }
  }));

test("callApi() sends a FormData as multipart, which it does not sign", () =>
  withServer(() => GOOD, async (options, calls) => {
    const body = new FormData();
    body.append("use_case", "MAIN_IMAGE");
    body.append("data", new Blob([BYTES]), "é.png");
    const path = "/product/202309/images/upload";
    await callApi({ method: "POST", path, body }, options);
    const { query, ...call } = calls[0]!;
    const type = String(call.headers["content-type"]);
    assert.match(type, /^multipart\/form-data; ?boundary=/);
    const headers = { "content-type": type };
    const sent = await new Response(new Uint8Array(call.body), { headers })
      .formData();
    const file = sent.get("data") as File;
    assert.equal(sent.get("use_case"), "MAIN_IMAGE");
    assert.deepEqual(new Uint8Array(await file.arrayBuffer()), BYTES);
    assert.equal(query.sign, signature(APP.appSecret, { path, query }));
  }));

test("callApi() has the signature of a FormData accepted", () =>
  withDesk(async ({ options }) => {
    const body = new FormData();
    body.append("use_case", "MAIN_IMAGE");
    const request = { method: "POST", path: ECHO, body };
    const { data } = await callApi(request, options);
    const { content_type, body: sent } = data as Record<string, string>;
    assert.match(content_type!, /^multipart\/form-data/);
    assert.match(sent!, /MAIN_IMAGE/);
  }));

test("callApi() takes a method in lower case", () =>
  withDesk(async ({ options, calls }) => {
    for (const method of ["get", "post", "patch"]) {
      await callApi({ method, path: ECHO }, options);
      assert.equal(calls().at(-1)!.method, method.toUpperCase());
    }
  }));

/** Requests that cannot be made, and what is said about them. */
const MISUSES: [ApiRequest, RegExp][] = [
  ...["", "/", "order/202309/orders", "//evil.example/x", "/\\evil.example"]
    .concat("https://evil.example/", "/a b", "/a\nb", "/a#b", "?a=b")
    .map((path): [ApiRequest, RegExp] => [{ path }, /^Cannot call the path "/]),
  ...["", "G ET", "GET\r\nX: y", "TRACE", "CONNECT", "HEAD", "PSOT"]
    .map((method): [ApiRequest, RegExp] => [
      { method, path: ECHO },
      /^Cannot call with the method "/,
    ]),
  ...["GET", "get"].map((method): [ApiRequest, RegExp] => [
    { method, path: ECHO, body: {} },
    /^Cannot send a body with GET: use the query/,
  ]),
  [{ path: `${ECHO}?a=1&b=2&a=3` }, /^Cannot send "a" twice/],
];

test("callApi() throws a TypeError for a request that cannot be made", () =>
  withDesk(
    async ({ options, sandbox }) => {
      const before = sandbox.requests.length;
      for (const [request, message] of MISUSES) {
        const call = callApi(request, options);
        const row = JSON.stringify(request);
        await assert.rejects(call, { name: "TypeError", message }, row);
      }
      assert.equal(sandbox.requests.length, before);
    },
    {},
    { access_token_expire_in: 1 },
  ));

test("callApi() refuses a wrong endpoint or secret before any request", () =>
  withDesk(
    async ({ options, sandbox }) => {
      const before = sandbox.requests.length;
      const wrong: [Partial<ApiOptions>, RegExp][] = [
        [{ apiEndpoint: "http://open-api.example/" }, /API endpoint .* https/],
        [{ apiEndpoint: "http://127.0.0.1.evil.example" }, /https/],
        [{ apiEndpoint: "open-api.tiktokglobalshop.com" }, /https/],
        [{ apiEndpoint: "https://me:hunter2@shop.example/" }, /https/],
        [{ refreshEndpoint: "http://auth.example/" }, /refresh endpoint/],
        [{ appSecret: "" }, /app secret is missing/],
        [{ appSecret: "secret\n" }, /white space/],
        [{ appKey: "" }, /app key is missing/],
      ];
      for (const [change, message] of wrong) {
        const call = callApi({ path: ECHO }, { ...options, ...change });
        const row = inspect(change);
        await assert.rejects(call, { name: "TypeError", message }, row);
      }
      assert.equal(sandbox.requests.length, before);
    },
    {},
    { access_token_expire_in: 1 },
  ));

test("callApi() stays at the endpoint's host whatever the path is", () =>
  withServer(() => GOOD, async (options, calls) => {
    for (const path of ["/..//evil.example/x", "/.//evil.example", "/a\\b"]) {
      await callApi({ path }, options);
      const { query, path: called } = calls.at(-1)!;
      const sign = signature(APP.appSecret, { path: called, query });
      assert.equal(query.sign, sign, path);
    }
    assert.equal(calls.length, 3);
  }));

// === callApi(): the shop

const ONLY_SHOP: Shop = {
  cipher: "GCP_only+/=",
  code: "GBO1",
  id: "7495540735365777507",
  name: "Only",
  region: "GB",
  seller_type: "LOCAL",
};

/** Paths, and whether TikTok wants the cipher of a shop there. */
const CIPHER_PATHS: [string, boolean][] = [
  ["/order/202309/orders", true],
  ["/order/202309/orders?ids=576653688135258178", true],
  ["/product/202309/products/search", true],
  ["/product/202309/products/1729592969712207008/global", true],
  ["/logistics/202309/warehouses", true],
  ["/sellers/202309/x", true],
  ["/order/202309/orders?from=/files/upload", true],
  ["/order/202309/orders?from=/global_products", true],
  ["/authorization/202309/shops", false],
  ["/authorization/202405/category_assets", false],
  ["/seller/202309/shops", false],
  ["/seller/202309/permissions", false],
  ["/product/202309/global_products", false],
  ["/product/202309/global_products?page_size=10", false],
  ["/product/202309/global_products/search", false],
  ["/product/202309/global_products/172959/publish", false],
  ["/product/202309/images/upload", false],
  ["/product/202309/files/upload", false],
  ["/customer_service/202309/images/upload", false],
];

test("callApi() adds the shop's cipher where it belongs, and only there", () =>
  withServer(() => GOOD, async (options, calls) => {
    await options.store!.save("default", longLived([ONLY_SHOP]));
    for (const shop of [undefined, ONLY_SHOP.id]) {
      for (const [path, wanted] of CIPHER_PATHS) {
        await callApi({ path, shop }, options);
        const { query } = calls.at(-1)!;
        const cipher = wanted ? ONLY_SHOP.cipher : undefined;
        assert.equal(query.shop_cipher, cipher, path);
        assert.equal(query.sign?.length, 64);
      }
    }
  }));

test("callApi() leaves a cipher that is in the query alone", () =>
  withServer(() => GOOD, async (options, calls) => {
    await options.store!.save("default", longLived([ONLY_SHOP]));
    const own = { shop_cipher: "GCP_own" };
    await callApi({ path: "/order/202309/orders", query: own }, options);
    await callApi(
      { path: "/order/202309/orders?shop_cipher=GCP_own" },
      options,
    );
    const sent = calls.map(({ query }) => query.shop_cipher);
    assert.deepEqual(sent, ["GCP_own", "GCP_own"]);
  }));

test("callApi() acts for the only shop there is, known or not", () =>
  withDesk(async ({ options, sandbox, tokens }) => {
    const search = { method: "POST", path: SEARCH };
    const { data } = await callApi(search, options);
    assert.equal((data as { total_count: number }).total_count, 25);
    const [shop] = sellerWith("Quay").shops;
    assert.deepEqual((await tokens()).meta.shops, [shop]);
    await callApi(search, options);
    // The shops were asked for once, for the first call only.
    assert.equal(sandbox.count(SHOPS), 1);
    assert.equal(sandbox.requests.at(-1)!.query.shop_cipher, shop!.cipher);
  }, { sellers: [sellerWith("Quay")] }));

test("callApi() names --shop when there are several shops", () =>
  withDesk(async (desk) => {
    const search = { method: "POST", path: SEARCH };
    for (const known of [false, true]) {
      if (known) await authorizedShops(desk.options);
      const error = await refused(desk, search, "rejected");
      assert.equal(error.code, 106013);
      assert.match(error.hint!, /--shop/);
    }
  }));

test("callApi() finds a shop by its id, name, code or cipher", () =>
  withDesk(async ({ options, sandbox, calls }) => {
    const sellers = sellerWith("Quay", "Pier Shop");
    for (const { id, name, code, cipher } of sellers.shops) {
      for (const shop of [id, name, name.toUpperCase(), code, cipher]) {
        await callApi({ method: "POST", path: SEARCH, shop }, options);
        assert.equal(calls().at(-1)!.query.shop_cipher, cipher, shop);
      }
    }
    assert.equal(sandbox.count(SHOPS), 1);
  }, { sellers: [sellerWith("Quay", "Pier Shop")] }));

test("callApi() finds a shop that was authorized meanwhile", () =>
  withDesk(async ({ options, store, tokens, sandbox }) => {
    const [old] = sellerWith("Quay").shops;
    await store.save("default", {
      ...await tokens(),
      meta: { shops: [{ ...old! }] },
    });
    const search = { method: "POST", path: SEARCH, shop: "Pier" };
    await callApi(search, options);
    assert.equal(sandbox.count(SHOPS), 1);
    assert.equal((await tokens()).meta.shops?.length, 2);
  }, { sellers: [sellerWith("Quay", "Pier")] }));

test("callApi() refuses a name that two shops have, and names both ids", () =>
  withDesk(async ({ options, calls }) => {
    const call = callApi({ path: SEARCH, shop: "quay" }, options);
    const message = /Several shops are named "quay": .* 8600000, 8600002/;
    await assert.rejects(call, { name: "TypeError", message });
    assert.deepEqual(calls().map(({ path }) => path), [SHOPS]);
    const byId = { method: "POST", path: SEARCH, shop: "8600002" };
    await callApi(byId, options);
  }, { sellers: [sellerWith("Quay", "Pier", "QUAY")] }));

test("callApi() refuses a shop that it cannot find", () =>
  withDesk(async ({ options, calls }) => {
    for (const shop of ["Nowhere\x1b[31m", "", "860000"]) {
      const call = callApi({ path: SEARCH, shop }, options);
      const message = /There is no shop "[^"]*": .* shops prints/;
      await assert.rejects(call, { name: "TypeError", message });
    }
    assert.equal(calls().filter(({ path }) => path === SEARCH).length, 0);
  }));

// === callApi(): expired tokens

/** Tokens that the sandbox takes for expired and we do not. */
const LONG = { access_token_expire_in: unixTime() + 7 * DAY };

/** A sandbox whose clock can be put forward. */
function clockwork(life: number): SandboxOptions & { forward: () => void } {
  let ahead = 0;
  return {
    accessTokenLife: life,
    now: () => Date.now() + ahead * 1000,
    forward: () => ahead = life + 1,
  };
}

test("callApi() refreshes after 105002 and calls once more", () => {
  const clock = clockwork(200);
  return withDesk(
    async ({ options, sandbox, calls, tokens }) => {
      clock.forward();
      const { data } = await callApi(
        { path: ECHO, query: { a: "1" } },
        options,
      );
      assert.equal((data as { query: { a: string } }).query.a, "1");
      assert.deepEqual(calls().map(({ status }) => status), [401, 200]);
      assert.equal(sandbox.count("/api/v2/token/refresh"), 1);
      const sent = calls().map(({ headers }) => headers["x-tts-access-token"]);
      assert.notEqual(sent[0], sent[1]);
      assert.equal(sent[1], (await tokens()).data.access_token);
    },
    clock,
    LONG,
  );
});

test("callApi() refreshes once for many calls that get 105002", () => {
  const clock = clockwork(200);
  return withDesk(
    async ({ options, sandbox, calls }) => {
      clock.forward();
      const call = () => callApi({ method: "POST", path: ECHO }, options);
      await Promise.all(Array.from({ length: 12 }, call));
      assert.equal(sandbox.count("/api/v2/token/refresh"), 1);
      assert.equal(calls().length, 24);
    },
    clock,
    LONG,
  );
});

/** Calls a server that takes the first token for invalid. */
async function callAmid(
  meanwhile: (store: TokenStore) => Promise<void>,
  judge: (call: Promise<unknown>, calls: Received[]) => Promise<void>,
): Promise<void> {
  const invalid = { status: 401, body: { code: 105001, message: "invalid" } };
  const answer = (_: Received, index: number) => index === 0 ? invalid : GOOD;
  await withServer(answer, async (options, calls) => {
    const gated: typeof fetch = async (input, init) => {
      if (calls.length === 0) await meanwhile(options.store!);
      return await fetch(input, init);
    };
    const call = callApi({ path: ECHO }, { ...options, fetch: gated });
    await judge(call, calls);
  });
}

test("callApi() adopts what another process refreshed amid the call", () =>
  callAmid(async (store) => {
    const tokens = longLived();
    tokens.data.access_token = "GCP_newer";
    await store.save("default", tokens);
  }, async (call, calls) => {
    await call;
    const sent = calls.map(({ headers }) => headers["x-tts-access-token"]);
    assert.deepEqual(sent, ["GCP_access", "GCP_newer"]);
  }));

test("callApi() asks for a login when the token is invalid as it is", () =>
  callAmid(() => Promise.resolve(), async (call, calls) => {
    const error = await failure(call, "login_required");
    assert.equal(error.code, 105001);
    assert.equal(calls.length, 1);
  }));

test("callApi() gives up when 105002 comes twice", () =>
  withDesk(
    async (desk) => {
      const error = await refused(desk, { path: ECHO });
      assert.equal(error.code, 105002);
      assert.match(error.hint!, /refresh/);
      assert.deepEqual(desk.calls().map(({ status }) => status), [401, 401]);
      assert.equal(desk.sandbox.count("/api/v2/token/refresh"), 1);
    },
    { accessTokenLife: 0 },
    LONG,
  ));

test("callApi() asks for a login when the grant is gone after 105002", () => {
  const clock = clockwork(200);
  return withDesk(
    async (desk) => {
      clock.forward();
      desk.sandbox.fail("refresh", "deauthorized");
      const error = await refused(desk, { path: ECHO }, "login_required");
      assert.equal(error.code, 36004005);
      assert.equal(desk.calls().length, 1);
    },
    clock,
    LONG,
  );
});

test("callApi() refreshes beforehand what is about to expire", () =>
  withDesk(async ({ options, sandbox, calls }) => {
    await callApi({ path: ECHO }, { ...options, minValid: "2m" });
    assert.equal(sandbox.count("/api/v2/token/refresh"), 0);
    await callApi({ path: ECHO }, options);
    assert.equal(sandbox.count("/api/v2/token/refresh"), 1);
    assert.deepEqual(calls().map(({ status }) => status), [200, 200]);
  }, { accessTokenLife: 200 }));

test("callApi() needs a login where there are no tokens", () =>
  withDesk(async (desk) => {
    const options = { ...desk.options, profile: "nobody" };
    const call = callApi({ path: ECHO }, options);
    const { hint } = await failure(call, "login_required");
    assert.match(hint!, /login/);
    assert.equal(desk.calls().length, 0);
  }));

test("callApi() signs by the token host's clock, which is TikTok's", () =>
  withDesk(async ({ options, store, tokens, calls }) => {
    const meta = { clock_offset: 7200, obtained_at: unixTime() + 7200 };
    await store.save("default", { ...await tokens(), meta });
    await callApi({ path: ECHO }, options);
    assert.deepEqual(calls().map(({ status }) => status), [200]);
  }, { clockOffset: 7200 }));

const CLOCKS: [string, meta: Partial<TokenMeta>, local: number][] = [
  ["is wrong", {}, -400],
  ["has become wrong", { clock_offset: 0, obtained_at: unixTime() }, 90],
  [
    "was put right",
    { clock_offset: 7200, obtained_at: unixTime() - 60 },
    0,
  ],
];

for (const [what, changes, seconds] of CLOCKS) {
  test(`callApi() signs again by TikTok's time if a clock ${what}`, () =>
    withDesk(async ({ options, store, tokens, calls }) => {
      const { meta, ...reply } = await tokens();
      await store.save("default", { ...reply, meta: { ...meta, ...changes } });
      const now = () => Date.now() + seconds * 1000;
      await callApi({ path: ECHO }, { ...options, now });
      assert.deepEqual(calls().map(({ status }) => status), [400, 200]);
    }));
}

test("callApi() signs only once more, and only if the time is another", () =>
  withServer((_, index) => ({
    status: 400,
    headers: { date: new Date(index < 1 ? 0 : Date.now()).toUTCString() },
    body: { code: 36009004, message: "something is wrong" },
  }), async (options, calls) => {
    await failure(callApi({ path: ECHO }, options), "rejected");
    assert.equal(calls.length, 2);
    assert.equal(calls[1]!.query.timestamp, "0");
    await failure(callApi({ path: ECHO }, options), "rejected");
    assert.equal(calls.length, 3);
  }));

// === callApi(): limits, codes and strange answers

test("callApi() waits out a 429 as long as Retry-After says", () =>
  withDesk(async ({ options, sandbox, calls }) => {
    sandbox.fail("api", "rate-limit");
    const started = performance.now();
    await callApi({ path: ECHO }, options);
    const took = performance.now() - started;
    assert.ok(took > 990 && took < 4000, `${took} ms`);
    assert.deepEqual(calls().map(({ status }) => status), [429, 200]);
    const stamps = new Set(calls().map(({ query }) => query.timestamp));
    assert.equal(stamps.size, 2, "each try is stamped and signed anew");
  }));

test("callApi() tells a 429 whose wait is too long", () =>
  withServer(() => ({
    status: 429,
    headers: { "retry-after": "3600" },
    body: { code: 36009002, message: "too many requests" },
  }), async (options, calls) => {
    const error = await failure(callApi({ path: ECHO }, options), "rejected");
    assert.deepEqual([error.retryAfter, error.status], [3600, 429]);
    assert.equal(calls.length, 1);
  }));

test("callApi() tries again after 36009002, whatever the status is", () =>
  withServer(
    (_, index) =>
      index === 0
        ? { status: 400, body: { code: 36009002, message: "rate limit" } }
        : GOOD,
    async (options, calls) => {
      await callApi({ path: ECHO }, options);
      assert.equal(calls.length, 2);
    },
  ));

/** TikTok's codes: HTTP status, kind, hint and how many calls they cause. */
const CODES: [number, number, ErrorKind, RegExp, number][] = [
  [105001, 401, "login_required", /log in again: tiktok-shop-oauth2 login/, 1],
  [36009005, 401, "login_required", /log in again/, 1],
  [105005, 401, "rejected", /enable the scope .* log in again/, 1],
  [106001, 400, "rejected", /signature .* check the app secret/, 1],
  [106013, 400, "rejected", /--shop/, 1],
  [36009002, 429, "rejected", /too many calls, wait/, 4],
  [36009004, 400, "rejected", /read TikTok's message/, 1],
  [36009009, 404, "rejected", /no such path/, 1],
  [36009010, 400, "rejected", /another method/, 1],
  [36009014, 400, "rejected", /no such version/, 1],
  [36009033, 200, "rejected", /IP allow list/, 1],
  [36009003, 200, "rejected", /internal error, try again/, 4],
  [36009007, 500, "rejected", /timed out, try again/, 4],
  [12052700, 200, "rejected", /look the code up in Partner Center/, 1],
  [-1, 403, "rejected", /look the code up/, 1],
];

test("callApi() knows TikTok's codes, whatever the HTTP status", async () => {
  await Promise.all(
    CODES.map(([code, status, kind, hint, count]) =>
      withServer(
        (call) =>
          call.path === SHOPS ? { body: { code: 0, data: { shops: [] } } } : {
            status,
            body: { code, message: `No ${code}`, request_id: "R1" },
          },
        async (options, calls) => {
          const call = callApi({ path: ECHO }, options);
          const error = await failure(call, kind, String(code));
          assert.deepEqual([error.code, error.status], [code, status]);
          assert.match(error.hint!, hint);
          assert.equal(error.requestId, "R1");
          const said = `Cannot call GET ${ECHO}: TikTok answered with code ` +
            `${code}, "No ${code}" (request id R1)`;
          assert.equal(error.message, said);
          const tries = calls.filter(({ path }) => path === ECHO).length;
          assert.equal(tries, count, String(code));
        },
      )
    ),
  );
});

/** What the sandbox really answers, by what was wrong with the call. */
const REFUSALS: [string, ApiRequest, Partial<ApiOptions>, number, number][] = [
  ["another secret", { path: ECHO }, { appSecret: "wrong" }, 106001, 400],
  ["another app key", { path: ECHO }, { appKey: "wrong" }, 36009004, 400],
  ["another path", { path: "/nothing/202309/x" }, {}, 36009009, 404],
  ["another method", { path: SEARCH }, {}, 36009010, 400],
  [
    "another version",
    { path: "/authorization/202001/shops" },
    {},
    36009014,
    400,
  ],
];

test("callApi() tells what the sandbox refuses", () =>
  withDesk(async (desk) => {
    for (const [name, request, options, code, status] of REFUSALS) {
      const changed = { ...desk, options: { ...desk.options, ...options } };
      const error = await refused(changed, request, "rejected");
      assert.deepEqual([error.code, error.status], [code, status], name);
    }
    desk.sandbox.deauthorize((await desk.tokens()).data.open_id);
    const error = await refused(desk, { path: ECHO }, "login_required");
    assert.deepEqual([error.code, error.status], [105001, 401]);
  }));

/** Faults of the API, what they become, and how many calls they cause. */
const FAULTS: [SandboxFault, ErrorKind, RegExp, number][] = [
  ["html", "invalid_response", /HTTP 200 with \d+ characters of text\/html/, 1],
  ["text-404", "invalid_response", /HTTP 404 with 18 characters of text\//, 1],
  ["empty", "invalid_response", /HTTP 200 with an empty body/, 1],
  ["truncated-json", "invalid_response", /HTTP 200 with .* not TikTok's/, 1],
  ["redirect", "invalid_response", /a redirect, which is not followed/, 1],
  ["huge", "invalid_response", /larger than 33554432 bytes/, 1],
  ["ip-not-allowed", "rejected", /36009033/, 1],
  ["echo-secret", "rejected", /36009004, "cannot handle .*\*\*\*/, 1],
  ["503", "invalid_response", /HTTP 503/, 4],
  ["truncated", "network", /Cannot call GET \/echo/, 4],
  ["dropped", "network", /Cannot call GET \/echo/, 4],
];

test("callApi() says what it got in place of a reply", async () => {
  await Promise.all(
    FAULTS.map(([fault, kind, message, count]) =>
      withDesk(async (desk) => {
        desk.sandbox.fail("api", fault, Infinity);
        const error = await refused(desk, { path: `${ECHO}?code=hush` }, kind);
        assert.match(error.message, message, fault);
        assert.doesNotMatch(inspect(error), /hush/, fault);
        assert.ok(error.hint, fault);
        assert.equal(desk.calls().length, count, fault);
        assert.equal(desk.sandbox.count("/stolen"), 0);
      })
    ),
  );
});

/** A page of `GET …/orders` with so many bytes in each of 100 orders. */
function page(size: number): Answer {
  const note = "x".repeat(size);
  const orders = Array.from({ length: 100 }, (_, id) => ({ id, note }));
  return { body: { code: 0, message: "Success", data: { orders } } };
}

test("callApi() reads a page of 100 orders of 11 KiB, and one of 30 MiB", () =>
  withServer((_, n) => page(n === 0 ? 11_264 : 314_573), async (options) => {
    for (let n = 0; n < 2; n++) {
      const { data } = await callApi({ path: ECHO }, options);
      assert.equal((data as { orders: unknown[] }).orders.length, 100);
    }
  }));

test("callApi() refuses a reply of more than 32 MiB, or than replyLimit", () =>
  withServer((_, n) => page(n === 0 ? 340_000 : 100), async (options) => {
    const wide = await failure(callApi({ path: ECHO }, options));
    assert.match(wide.message, /larger than 33554432 bytes/);
    const narrow = { ...options, replyLimit: 5000 };
    const error = await failure(callApi({ path: ECHO }, narrow));
    assert.equal(error.kind, "invalid_response");
    assert.match(error.message, /larger than 5000 bytes/);
    await callApi({ path: ECHO }, { ...options, replyLimit: 50_000 });
  }));

test("callApi() refuses limits that are none before any request", () =>
  withServer(() => GOOD, async (options, calls) => {
    for (const replyLimit of [0, -1, 1.5, NaN, Infinity]) {
      const call = callApi({ path: ECHO }, { ...options, replyLimit });
      await assert.rejects(call, { name: "RangeError", message: /replies/ });
    }
    for (const requestTimeout of [0, "soon", "25d"]) {
      const call = callApi({ path: ECHO }, { ...options, requestTimeout });
      await assert.rejects(call, { name: "RangeError" });
    }
    assert.equal(calls.length, 0);
  }));

/** Runs against a host that takes a body of 4 MiB in so many ms. */
function withSlowLine(
  ms: number,
  run: (options: ApiOptions) => Promise<unknown>,
): Promise<void> {
  return withServer(() => GOOD, async (options, calls) => {
    const target = Number(new URL(options.apiEndpoint!).port);
    const proxy = createLine((socket) => {
      const line = connect(target, "127.0.0.1");
      for (const end of [socket, line]) end.on("error", () => {});
      line.pipe(socket);
      socket.on("data", (chunk) => {
        line.write(chunk);
        socket.pause();
        setTimeout(() => socket.resume(), ms * chunk.length / UPLOAD.length);
      }).on("close", () => line.destroy());
    });
    await new Promise<void>((done) => proxy.listen(0, "127.0.0.1", done));
    const { port } = proxy.address() as { port: number };
    try {
      await run({ ...options, apiEndpoint: `http://127.0.0.1:${port}` });
      assert.ok(calls.every(({ body }) => body.equals(UPLOAD)));
    } finally {
      proxy.close();
    }
  });
}

const UPLOAD = Buffer.alloc(4 << 20, "u");
const UPLOADING = { method: "POST", path: ECHO, body: UPLOAD };

test("callApi() uploads 4 MiB over a slow line within two minutes", {
  skip: process.env.SOAK ? false : "it takes 40 s: set SOAK=1",
}, () =>
  withSlowLine(40_000, async (options) => {
    assert.equal((await callApi(UPLOADING, options)).code, 0);
  }));

test("callApi() gives an upload as long as requestTimeout says, in all", () =>
  withSlowLine(2500, async (options) => {
    // Nothing is repeated: a caller's signal ends the wait for another try.
    const abort = new AbortController();
    let took = 0;
    const asked = callApi(UPLOADING, {
      ...options,
      requestTimeout: "1s",
      signal: abort.signal,
      onTrace: (line) => {
        took = Number(/ failed \((\d+) ms\)$/.exec(line)?.[1]);
        abort.abort();
      },
    });
    await failure(asked);
    assert.ok(took > 900, `${took} ms`);
    const slow = { ...options, requestTimeout: "60s" };
    assert.equal((await callApi(UPLOADING, slow)).code, 0);
  }));

test("callApi() follows no redirect, of whatever status", async () => {
  await Promise.all(
    [301, 302, 303, 307, 308].map((status) =>
      withServer(
        () => ({ status, headers: { location: "/x" }, body: "" }),
        async (options, calls) => {
          const call = callApi(
            { method: "POST", path: ECHO, body: {} },
            options,
          );
          await failure(call, "invalid_response", String(status));
          assert.equal(calls.length, 1);
        },
      )
    ),
  );
});

test("callApi() can be aborted while it waits", () =>
  withDesk(async ({ options, sandbox }) => {
    sandbox.fail("api", "never");
    const signal = AbortSignal.timeout(100);
    const call = callApi({ path: ECHO }, { ...options, signal });
    const error = await failure(call, "cancelled");
    assert.match(error.message, /^The call was cancelled: /);
  }));

/** Secrets of every character that URLs, JSON and headers can carry. */
const ODD_APP = { appKey: "key", appSecret: `S+/=%"\\'~!(*)éQzSecretQz&x` };
const ODD_TOKEN = `GCP_+/==%2F"'&;QzTokenQz`;

/** The forms in which a host may repeat what it was sent. */
const FORMS: ((text: string) => string)[] = [
  (text) => text,
  encodeURIComponent,
  (text) => encodeURIComponent(encodeURIComponent(text)),
  (text) => `sent ${text} to us`,
  (text) => JSON.stringify({ access_token: text, app_secret: text }),
  (text) => `x-tts-access-token: ${text}`,
  (text) => String(new URLSearchParams({ q: text })),
];

test("callApi() shows no secret that a host repeats in any form", async () => {
  await Promise.all([ODD_APP.appSecret, ODD_TOKEN].map((secret) =>
    withServer(
      (_, index) => ({
        status: 400,
        headers: { "content-type": `text/${encodeURIComponent(secret)}` },
        body: { code: 1, message: FORMS[index % FORMS.length]!(secret) },
      }),
      async (options) => {
        const tokens = longLived();
        tokens.data.access_token = ODD_TOKEN;
        await options.store!.save("default", tokens);
        for (const form of FORMS) {
          const call = callApi({ path: ECHO }, { ...options, ...ODD_APP });
          const error = await failure(call, "rejected");
          const shown = inspect(error, { depth: 9, showHidden: true });
          assert.doesNotMatch(shown + error.stack, /Qz\w+Qz/, String(form));
        }
      },
    )
  ));
});

test("callApi() traces each call on one line, without its secrets", () =>
  withDesk(async ({ options, sandbox }) => {
    const lines: string[] = [];
    const onTrace = (line: string) => void lines.push(line);
    sandbox.fail("api", "503");
    await callApi({ path: `${ECHO}?a=1` }, { ...options, onTrace });
    assert.equal(lines.length, 2);
    for (const [i, line] of lines.entries()) {
      assert.match(line, /^GET http:\S+\/echo\/202309\/x\?a=1&\S+ HTTP \d+ \(/);
      assert.match(line, /[?&]sign=\*\*\*/);
      assert.match(line, i === 0 ? /HTTP 503/ : /HTTP 200/);
    }
  }));

// === authorizedShops()

test("authorizedShops() keeps all shops, and remembers them", () =>
  withDesk(async ({ options, tokens, store }) => {
    const before = await tokens();
    const meta = { app_key: "6f3k9d2m1x8q", later: { kept: true } };
    await store.save("default", { ...before, meta });
    const shops = await authorizedShops(options);
    assert.deepEqual(shops.map(({ id }) => id), [
      "7495540735365777507",
      "8600001",
      "8600002",
    ]);
    assert.equal(shops[2]!.seller_type, "CROSS_BORDER");
    const after = await tokens();
    assert.deepEqual(after.meta, { ...meta, shops });
    assert.deepEqual(after.data, before.data);
  }));

test("authorizedShops() resolves to none where there are none", () =>
  withDesk(async ({ options, tokens }) => {
    assert.deepEqual(await authorizedShops(options), []);
    assert.deepEqual((await tokens()).meta.shops, []);
  }, { sellers: [sellerWith()] }));

test("authorizedShops() tells that the scope is missing", () =>
  withDesk(async ({ options, tokens }) => {
    const error = await failure(authorizedShops(options), "rejected");
    assert.equal(error.code, 105005);
    assert.equal((await tokens()).meta.shops, undefined);
  }, { sellers: [{ ...sellerWith("Quay"), scopes: [] }] }));

/** The nth shop, in the members of TikTok's reply. */
function shopAt(n: number): Shop {
  return { ...ONLY_SHOP, id: `74955407353657775${n}`, name: `Shop ${n}` };
}

/** A page of shops, and the token of the next. */
function pageOf(shops: Shop[], next?: string): Answer {
  const data = { shops, next_page_token: next, total_count: 3 };
  return { body: { code: 0, message: "Success", data } };
}

test("authorizedShops() follows next_page_token to the last page", () =>
  withServer(({ query }) => {
    const { page_token: token } = query;
    if (token === "after:1+/=") return pageOf([shopAt(12)], "after:2+/=");
    if (token === "after:2+/=") return pageOf([shopAt(13)], "");
    return pageOf([shopAt(10), shopAt(11)], "after:1+/=");
  }, async (options, calls) => {
    const shops = await authorizedShops(options);
    assert.deepEqual(shops, [10, 11, 12, 13].map(shopAt));
    const kept = await options.store!.load("default");
    assert.deepEqual(kept!.meta.shops, shops);
    const tokens = calls.map(({ query }) => query.page_token);
    assert.deepEqual(tokens, [undefined, "after:1+/=", "after:2+/="]);
    for (const { path, query } of calls) {
      assert.equal(query.sign, signature(APP.appSecret, { path, query }));
    }
  }));

/** Page tokens that lead nowhere: what each page says is next. */
const LOOPS: [string, (token?: string) => unknown, number][] = [
  ["the same token again", () => "a", 2],
  ["a cycle of two", (token) => token === "a" ? "b" : "a", 3],
  ["a cycle of three", (t) => t === "a" ? "b" : t === "b" ? "c" : "a", 4],
  ["null", () => null, 1],
  ["no text", () => ({}), 1],
];

for (const [name, next, pages] of LOOPS) {
  test(`authorizedShops() ends when the next page is ${name}`, () =>
    withServer((call, index) => {
      assert.ok(index < 10, "asked for pages without end");
      const token = next(call.query.page_token) as string;
      return pageOf([shopAt(10 + index)], token);
    }, async (options, calls) => {
      const shops = await authorizedShops(options);
      assert.equal(calls.length, pages);
      assert.equal(shops.length, pages);
    }));
}

test("authorizedShops() keeps ids that come as numbers exact", () =>
  withServer((call) => ({
    body: call.path === SHOPS
      ? `{"code":0,"data":{"shops":[{"id":7495540735365777507,` +
        `"name":"N","code":"C","cipher":"K"}]}}`
      : GOOD.body,
  }), async (options, calls) => {
    const [shop] = await authorizedShops(options);
    assert.equal(String(shop!.id), "7495540735365777507");
    const shopOf = { path: "/order/202309/orders", shop: String(shop!.id) };
    await callApi(shopOf, options);
    assert.equal(calls.at(-1)!.query.shop_cipher, "K");
    assert.equal(calls.length, 2);
  }));

test("authorizedShops() keeps what a refresh saved meanwhile", () =>
  withDesk(async ({ options, tokens, sandbox }) => {
    const before = await tokens();
    await authorizedShops(options);
    const after = await tokens();
    assert.equal(sandbox.count("/api/v2/token/refresh"), 1);
    assert.notEqual(after.data.access_token, before.data.access_token);
    assert.equal(after.meta.shops?.length, 3);
  }, { accessTokenLife: 200 }));
