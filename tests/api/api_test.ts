/**
 * signature(), callApi() and authorizedShops(): against the sandbox, which
 * checks every signature, and against a server of bytes that answers what the
 * sandbox never would. No error and no trace may show a secret.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect, createServer as createLine } from "node:net";
import process from "node:process";
import { Readable } from "node:stream";
import { test } from "node:test";
import { inspect } from "node:util";
import { runInNewContext } from "node:vm";
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
} from "../../mod.ts";
import {
  type Sandbox,
  type SandboxFault,
  type SandboxOptions,
  type SandboxSeller,
  startSandbox,
} from "../../scripts/sandbox.ts";
import {
  type Operation,
  publishedOperations,
} from "../../scripts/sandbox/operations.ts";
import { freePort } from "../support/helpers.ts";
import {
  answer,
  APP,
  failure,
  type HostHandler,
  refusal,
  REPLY,
  withHost,
} from "../support/token_host.ts";
import { timed } from "../support/timing.ts";

// === Helpers

const ECHO = "/echo/202309/x";
const SEARCH = "/order/202309/orders/search";
const SHOPS = "/authorization/202309/shops";
const DAY = 86_400;

/** A profile of a sandbox's seller, and how to call the API with it. */
interface CliFixture {
  sandbox: Sandbox;
  store: TokenStore;
  options: ApiOptions;
  /** The calls of the API so far. */
  calls: () => Sandbox["requests"];
  /** The tokens as they are kept now. */
  tokens: () => Promise<StoredTokens>;
}

/** Runs a test with a fresh profile; `data` replaces members of its reply. */
async function withCli(
  run: (cli: CliFixture) => Promise<unknown>,
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

/** Asserts that a text has no secret of the app and no sign of a call. */
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

/** The error of a call, which shows no secret to a logger. */
async function refused(
  { sandbox, options, tokens }: CliFixture,
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
      return; // the caller has hung up
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

/** An answer with a code of TikTok's. */
function refusalOf(code: number, message: string, status = 400): Answer {
  return { status, body: { code, message, data: null, request_id: "R1" } };
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

/** Requests, and the text between the two secrets that is signed for each. */
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
  withCli(async ({ options, sandbox, calls }) => {
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
  withCli(async ({ options, calls, tokens }) => {
    await callApi({ path: ECHO }, options);
    const [{ headers, query }] = calls() as [Sandbox["requests"][0]];
    const { data } = await tokens();
    assert.equal(headers["x-tts-access-token"], data.access_token);
    assert.equal(headers["content-type"], "application/json");
    const names = ["app_key", "sign", "timestamp"];
    assert.deepEqual(Object.keys(query).sort(), names);
  }));

test("callApi() takes the type of the reply's data, else it is unknown", () =>
  withCli(async ({ options }) => {
    const path = "/authorization/202309/shops";
    const { data } = await callApi<{ shops: Shop[] }>({ path }, options);
    const shops: Shop[] | undefined = data?.shops;
    assert.equal(shops?.[0]?.region, "GB");
    const reply = await callApi({ path }, options);
    // @ts-expect-error: nobody said what it is
    assert.equal(reply.data.shops.length, shops?.length);
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

const EPOCH = "1970-01-01T00:00:00.000Z";
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
  ["a Blob", new Blob([BYTES]), BYTES],
  ["a File", new File([BYTES], "x.png"), BYTES],
  ["an ArrayBuffer", BYTES.slice().buffer, BYTES],
  ["a buffer of another realm", runInNewContext("new ArrayBuffer(2)"), "\0\0"],
  ["a SharedArrayBuffer", new SharedArrayBuffer(3), "\0\0\0"],
  ["a DataView", new DataView(BYTES.slice().buffer, 1, 3), BYTES.slice(1, 4)],
  ["numbers of two bytes", Uint16Array.of(0x4141, 0x4242), "AABB"],
  ["an object of another realm", runInNewContext("({ a: [1] })"), '{"a":[1]}'],
  ["an object without prototype", Object.create(null), "{}"],
  ["members that JSON leaves out", { a: undefined, b: 1 }, '{"b":1}'],
  ["what makes its own JSON", { at: new Date(0) }, `{"at":"${EPOCH}"}`],
  ["true", true, "true"],
  ["0", 0, "0"],
];

/** Values that JSON turns into \`{}\` or null, and their names. */
const UNSENDABLE: [unknown, string][] = [
  [new Map([["a", 1]]), "Map"],
  [new Set([1]), "Set"],
  [new URLSearchParams("a=1"), "URLSearchParams"],
  [new ReadableStream(), "ReadableStream"],
  [Readable.from(["a"]), "Readable"],
  [new Headers({ a: "1" }), "Headers"],
  [Promise.resolve({}), "Promise"],
  [new (class FormData {})(), "FormData1?"],
  [new (class Order {})(), "Order"],
  [new Error("x"), "Error"],
  [/x/, "RegExp"],
  [() => {}, "Function"],
  [Symbol("s"), "Symbol"],
  [NaN, "NaN"],
  [{ price: Infinity }, "Infinity"],
  [{ image: new Blob([BYTES]) }, "Blob"],
  [{ image: [BYTES] }, "Uint8Array"],
  [{ image: { data: new Map() } }, "Map"],
];

test("callApi() refuses a body that JSON would lose, before any request", () =>
  withServer(() => GOOD, async (options, calls) => {
    for (const [body, name] of UNSENDABLE) {
      const call = callApi({ method: "POST", path: ECHO, body }, options);
      const message = new RegExp(
        `^Cannot send ${name} as JSON: use bytes, text, Blob, global Form`,
      );
      await assert.rejects(call, { name: "TypeError", message }, name);
    }
    const circle: Record<string, unknown> = {};
    circle.self = [circle];
    const deep = JSON.parse("[".repeat(9999) + "]".repeat(9999));
    for (const body of [circle, deep]) {
      const call = callApi({ method: "POST", path: ECHO, body }, options);
      await assert.rejects(call, { name: "TypeError", message: /too deep/ });
    }
    assert.equal(calls.length, 0);
  }));

test("callApi() sends a Blob with its own content type", () =>
  withServer(() => GOOD, async (options, calls) => {
    const type = "multipart/form-data; boundary=x";
    const body = new Blob(["--x--"], { type });
    await callApi({ method: "POST", path: ECHO, body }, options);
    const [{ headers, query, ...call }] = calls as [Received];
    assert.equal(headers["content-type"], type);
    assert.equal(String(call.body), "--x--");
    assert.equal(query.sign, signature(APP.appSecret, { path: ECHO, query }));
  }));

test("callApi() signs the bytes of a body as they were when it was called", () =>
  withServer(
    (_, index) => index === 0 ? refusalOf(36009002, "rate limit") : GOOD,
    async (options, calls) => {
      const body = Uint8Array.of(1, 2, 3);
      const call = callApi({ method: "POST", path: ECHO, body }, options);
      body.fill(9);
      await call;
      assert.deepEqual(calls.map(({ body }) => [...body]), [
        [1, 2, 3],
        [1, 2, 3],
      ]);
    },
  ));

test("callApi() sends numbers and booleans of the query as their text", () =>
  withServer(() => GOOD, async (options, calls) => {
    const query = {
      page_size: 10,
      id: 7495540735365777507n,
      is_new: false,
      zero: 0,
      empty: "",
      left_out: undefined,
      gone: null,
    };
    await callApi({ path: ECHO, query }, options);
    const { app_key: _, timestamp: __, sign, ...sent } = calls[0]!.query;
    assert.deepEqual(sent, {
      page_size: "10",
      id: "7495540735365777507",
      is_new: "false",
      zero: "0",
      empty: "",
    });
    const signed = { path: ECHO, query: calls[0]!.query };
    assert.equal(sign, signature(APP.appSecret, signed));
    assert.equal(
      signature("s", { path: "/p", query }),
      signature("s", { path: "/p", query: sent }),
    );
  }));

test("callApi() refuses a query that has no text", () =>
  withServer(() => GOOD, async (options, calls) => {
    const values = [{}, [], ["1", "2"], new Date(), NaN, () => {}, Symbol()];
    for (const value of values as unknown[] as string[]) {
      const call = callApi({ path: ECHO, query: { ids: value } }, options);
      const message = /^Cannot send "ids" in the query: give text, a number/;
      await assert.rejects(call, { name: "TypeError", message });
    }
    const whole = [new URLSearchParams("a=1"), new Map([["a", "1"]]), "a=1"];
    for (const query of whole as unknown[] as Record<string, string>[]) {
      const call = callApi({ path: ECHO, query }, options);
      const message = /^Cannot read the query: give a plain object/;
      await assert.rejects(call, { name: "TypeError", message });
    }
    assert.equal(calls.length, 0);
  }));

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
  withCli(async ({ options, calls }) => {
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
  withCli(async ({ options }) => {
    const body = new FormData();
    body.append("use_case", "MAIN_IMAGE");
    const request = { method: "POST", path: ECHO, body };
    const { data } = await callApi(request, options);
    const { content_type, body: sent } = data as Record<string, string>;
    assert.match(content_type!, /^multipart\/form-data/);
    assert.match(sent!, /MAIN_IMAGE/);
  }));

test("callApi() takes a method in lower case", () =>
  withCli(async ({ options, calls }) => {
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
  [
    { path: ECHO, shop: "1", query: { shop_cipher: "x" } },
    /^Cannot send both a shop and a shop_cipher/,
  ],
  [
    { path: `${ECHO}?shop_cipher=x`, shop: "none" },
    /^Cannot send both a shop and a shop_cipher/,
  ],
];

test("callApi() throws a TypeError for a request that cannot be made", () =>
  withCli(
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
  withCli(
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

test("callApi() signs the API's path, not a gateway's before it", () =>
  withServer(() => GOOD, async (options, calls) => {
    for (const prefix of ["/tiktok", "/a/b%20c/", "/"]) {
      for (const path of [ECHO, "/..//evil.example/x", "/../x", "/a%2Fb"]) {
        const apiEndpoint = options.apiEndpoint + prefix;
        await callApi({ path: `${path}?a=1` }, { ...options, apiEndpoint });
        const { query, path: called } = calls.at(-1)!;
        const gateway = prefix.replace(/\/$/, "");
        assert.ok(called.startsWith(`${gateway}/`), called);
        const own = called.slice(gateway.length);
        const sign = signature(APP.appSecret, { path: own, query });
        assert.equal(query.sign, sign, called);
      }
    }
    // The shop is found by the API's own path as well.
    await options.store!.save("default", longLived([ONLY_SHOP]));
    const apiEndpoint = `${options.apiEndpoint}/seller/1`;
    await callApi({ path: SEARCH }, { ...options, apiEndpoint });
    await callApi({ path: "/seller/202309/shops" }, {
      ...options,
      apiEndpoint,
    });
    const ciphers = calls.slice(-2).map(({ query }) => query.shop_cipher);
    assert.deepEqual(ciphers, [ONLY_SHOP.cipher, undefined]);
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

/** Calls an operation with ids for its names; resolves to the query. */
async function operationQuery(
  { method, path }: Operation,
  shop: string | undefined,
  options: ApiOptions,
  calls: Received[],
): Promise<Record<string, string>> {
  const filled = path.replace(/\{\w+\}/g, "7295540735365777507");
  await callApi({ method, path: filled, shop }, options);
  const call = calls.pop()!;
  assert.deepEqual([call.method, call.path], [method, filled]);
  return call.query;
}

test("callApi() knows which published operations take the only shop", () =>
  withServer(() => GOOD, async (options, calls) => {
    await options.store!.save("default", longLived([ONLY_SHOP]));
    assert.equal(publishedOperations().length, 362);
    for (const operation of publishedOperations()) {
      const query = await operationQuery(operation, undefined, options, calls);
      const isTaken = operation.shopCipher !== "none";
      const expected = isTaken ? ONLY_SHOP.cipher : undefined;
      const row = Object.values(operation).join(" ");
      assert.equal(query.shop_cipher, expected, row);
      assert.equal("shop_cipher" in query, isTaken, row);
    }
  }));

test("callApi() sends a shop that is named to every published operation", () =>
  withServer(() => GOOD, async (options, calls) => {
    await options.store!.save("default", longLived([ONLY_SHOP]));
    for (const operation of publishedOperations()) {
      const row = Object.values(operation).join(" ");
      const query = await operationQuery(
        operation,
        ONLY_SHOP.id,
        options,
        calls,
      );
      assert.equal(query.shop_cipher, ONLY_SHOP.cipher, row);
      const none = await operationQuery(operation, "none", options, calls);
      assert.ok(!("shop_cipher" in none), row);
    }
  }));

/** Calls that are no published operation, or look like another. */
const OTHER_CALLS: [string, string, boolean][] = [
  ["GET", "/order/202309/orders?ids=576653688135258178", true],
  ["GET", "/sellers/202309/x", true],
  ["GET", "/order/202309/orders?from=/files/upload", true],
  ["GET", "/order/202309/orders?from=/global_products", true],
  ["POST", "/product/202309/products/1729592969712207008/global", true],
  ["GET", "/product/202609/global_products?page_size=10", false],
  ["get", "/authorization/202611/shops", false],
];

test("callApi() tells operations by path and method, not by their query", () =>
  withServer(() => GOOD, async (options, calls) => {
    await options.store!.save("default", longLived([ONLY_SHOP]));
    for (const [method, path, isTaken] of OTHER_CALLS) {
      await callApi({ method, path }, options);
      assert.equal("shop_cipher" in calls.at(-1)!.query, isTaken, path);
    }
  }));

const NOT_WANTED = refusalOf(
  36009004,
  "Unexpected identifier. The `shop_cipher` query parameter is not required " +
    "for this request.",
);
const WANTED = refusalOf(
  106013,
  "Missing identifier. The `shop_cipher` query parameter is required to " +
    "identify the target shop.",
);

test("callApi() calls once more without a cipher that TikTok refuses", () =>
  withServer(
    ({ query }) => query.shop_cipher ? NOT_WANTED : GOOD,
    async (options, calls) => {
      await options.store!.save("default", longLived([ONLY_SHOP]));
      for (const method of ["GET", "POST", "DELETE"]) {
        await callApi({ method, path: "/new/202701/x" }, options);
        const sent = calls.splice(0).map(({ query }) => query.shop_cipher);
        assert.deepEqual(sent, [ONLY_SHOP.cipher, undefined], method);
      }
    },
  ));

test("callApi() shows that TikTok refuses a shop that was named", () =>
  withServer(() => NOT_WANTED, async (options, calls) => {
    await options.store!.save("default", longLived([ONLY_SHOP]));
    const path = "/new/202701/x";
    const query = { shop_cipher: ONLY_SHOP.cipher };
    for (const named of [{ shop: ONLY_SHOP.id }, { query }]) {
      const call = callApi({ path, ...named }, options);
      const { code, hint } = await failure(call, "rejected");
      assert.equal(code, 36009004);
      assert.match(hint!, /takes no shop_cipher/);
      assert.equal(calls.splice(0).length, 1);
    }
    // A cipher that was added is left out once, and not for ever.
    await failure(callApi({ path }, options), "rejected");
    assert.equal(calls.length, 2);
  }));

/** Shops that are remembered, and the calls until TikTok is content. */
const REMEMBERED: [string, unknown, string[]][] = [
  ["one, where we send none", [ONLY_SHOP], ["/seller/202701/x"]],
  ["none", [], [SHOPS, "/seller/202701/x"]],
  ["damaged ones", [null, {}, 5], [SHOPS, "/seller/202701/x"]],
  ["nothing", undefined, [SHOPS, "/seller/202701/x"]],
];

for (const [what, shops, more] of REMEMBERED) {
  test(`callApi() finds the shop that TikTok wants, with ${what} known`, () =>
    withServer(({ path, query }) => {
      if (path === SHOPS) return pageOf([ONLY_SHOP]);
      return query.shop_cipher === ONLY_SHOP.cipher ? GOOD : WANTED;
    }, async (options, calls) => {
      await options.store!.save("default", longLived(shops as Shop[]));
      const path = "/seller/202701/x";
      await callApi({ method: "POST", path }, options);
      assert.deepEqual(calls.map((call) => call.path), [path, ...more]);
    }));
}

test("callApi() adds no shop if the caller named one, or none", () =>
  withServer(() => WANTED, async (options, calls) => {
    await options.store!.save("default", longLived([ONLY_SHOP]));
    const requests: ApiRequest[] = [
      { path: SEARCH, shop: "none" },
      { path: SEARCH, query: { category_asset_cipher: "GCP_asset" } },
      { path: `${SEARCH}?shop_cipher=` },
    ];
    for (const request of requests) {
      const error = await failure(callApi(request, options), "rejected");
      assert.equal(error.code, 106013);
      const [{ query }, ...others] = calls.splice(0) as [Received];
      assert.ok(!query.shop_cipher, JSON.stringify(request));
      assert.deepEqual(others, []);
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
  withCli(async ({ options, sandbox, tokens }) => {
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

test("callApi() asks for the shop when there are several shops", () =>
  withCli(async (cli) => {
    const search = { method: "POST", path: SEARCH };
    for (const known of [false, true]) {
      if (known) await authorizedShops(cli.options);
      const error = await refused(cli, search, "rejected");
      assert.equal(error.code, 106013);
      assert.match(error.hint!, /^name the shop/);
    }
  }));

test("callApi() finds a shop by its id, name, code or cipher", () =>
  withCli(async ({ options, sandbox, calls }) => {
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
  withCli(async ({ options, store, tokens, sandbox }) => {
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
  withCli(async ({ options, calls }) => {
    const call = callApi({ path: SEARCH, shop: "quay" }, options);
    const message = /Several shops are named "quay": .* 8600000, 8600002/;
    await assert.rejects(call, { name: "TypeError", message });
    assert.deepEqual(calls().map(({ path }) => path), [SHOPS]);
    const byId = { method: "POST", path: SEARCH, shop: "8600002" };
    await callApi(byId, options);
  }, { sellers: [sellerWith("Quay", "Pier", "QUAY")] }));

test("callApi() refuses a shop that it cannot find", () =>
  withCli(async ({ options, calls }) => {
    for (const shop of ["Nowhere\x1b[31m", "", "860000"]) {
      const call = callApi({ path: SEARCH, shop }, options);
      const message =
        /There is no shop "[^"]*": name one of the authorized shops$/;
      await assert.rejects(call, { name: "TypeError", message });
    }
    assert.equal(calls().filter(({ path }) => path === SEARCH).length, 0);
  }));

// === callApi(): expired tokens

/** Tokens that have expired for the sandbox, and not for us. */
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
  return withCli(
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
  return withCli(
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

/** Calls a server that refuses the first token. */
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

test("callApi() adopts what another process refreshed during the call", () =>
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

/** How TikTok says that a token is dead, by 36009004 as well. */
const DEAD_TOKENS = [
  "Invalid credentials. The `x-tts-access-token` header is invalid.",
  "Invalid credentials. The `access_token` header is invalid.",
  "Invalid credentials. The 'x-tts-access-token' header is invalid. For more " +
  "details: https://m.tiktok.shop/s/x",
];

test("callApi() takes a 36009004 about the token for a dead token", () =>
  withServer(({ query }) => {
    const { status, at } = query as Record<string, string>;
    return refusalOf(36009004, DEAD_TOKENS[Number(at)]!, Number(status));
  }, async (options, calls) => {
    for (const status of [200, 400, 401]) {
      for (const at of DEAD_TOKENS.keys()) {
        const path = `${ECHO}?status=${status}&at=${at}`;
        const error = await failure(callApi({ path }, options));
        assert.equal(error.kind, "login_required", path);
        assert.deepEqual([error.code, error.status], [36009004, status]);
        assert.match(error.hint!, /access token is not valid, log in again/);
        assert.equal(calls.splice(0).length, 1);
      }
    }
  }));

test("callApi() adopts newer tokens after such a 36009004, in a POST too", () =>
  withServer(
    (_, index) => index === 0 ? refusalOf(36009004, DEAD_TOKENS[0]!) : GOOD,
    async (options, calls) => {
      const gated: typeof fetch = async (input, init) => {
        const tokens = longLived();
        tokens.data.access_token = "GCP_newer";
        await options.store!.save("default", tokens);
        return await fetch(input, init);
      };
      const request = { method: "POST", path: ECHO, body: { a: 1 } };
      await callApi(request, { ...options, fetch: gated });
      const sent = calls.map(({ headers }) => headers["x-tts-access-token"]);
      assert.deepEqual(sent, ["GCP_access", "GCP_newer"]);
      assert.deepEqual(calls.map(({ body }) => String(body)), [
        '{"a":1}',
        '{"a":1}',
      ]);
    },
  ));

test("callApi() leaves the tokens alone after another 36009004", () =>
  withServer(
    () => refusalOf(36009004, "Skus is a required field"),
    async (options, calls) => {
      const error = await failure(callApi({ path: ECHO }, options), "rejected");
      assert.match(error.hint!, /TikTok's message tells/);
      assert.equal(calls.length, 1);
    },
  ));

test("callApi() gives up when 105002 comes twice", () =>
  withCli(
    async (cli) => {
      const error = await refused(cli, { path: ECHO });
      assert.equal(error.code, 105002);
      assert.match(error.hint!, /refresh/);
      assert.deepEqual(cli.calls().map(({ status }) => status), [401, 401]);
      assert.equal(cli.sandbox.count("/api/v2/token/refresh"), 1);
    },
    { accessTokenLife: 0 },
    LONG,
  ));

test("callApi() asks for a login when the grant is gone after 105002", () => {
  const clock = clockwork(200);
  return withCli(
    async (cli) => {
      clock.forward();
      cli.sandbox.fail("refresh", "deauthorized");
      const error = await refused(cli, { path: ECHO }, "login_required");
      assert.equal(error.code, 36004005);
      assert.equal(cli.calls().length, 1);
    },
    clock,
    LONG,
  );
});

test("callApi() refreshes beforehand what is about to expire", () =>
  withCli(async ({ options, sandbox, calls }) => {
    await callApi({ path: ECHO }, { ...options, minValid: "2m" });
    assert.equal(sandbox.count("/api/v2/token/refresh"), 0);
    await callApi({ path: ECHO }, options);
    assert.equal(sandbox.count("/api/v2/token/refresh"), 1);
    assert.deepEqual(calls().map(({ status }) => status), [200, 200]);
  }, { accessTokenLife: 200 }));

test("callApi() needs a login where there are no tokens", () =>
  withCli(async (cli) => {
    const options = { ...cli.options, profile: "nobody" };
    const call = callApi({ path: ECHO }, options);
    const { hint } = await failure(call, "login_required");
    assert.match(hint!, /^log in again$/);
    assert.equal(cli.calls().length, 0);
  }));

test("callApi() signs by the token host's clock, which is TikTok's", () =>
  withCli(async ({ options, store, tokens, calls }) => {
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
    withCli(async ({ options, store, tokens, calls }) => {
      const { meta, ...reply } = await tokens();
      await store.save("default", { ...reply, meta: { ...meta, ...changes } });
      const now = () => Date.now() + seconds * 1000;
      for (const method of ["GET", "POST"]) {
        const before = calls().length;
        await callApi({ method, path: ECHO }, { ...options, now });
        const made = calls().slice(before).map(({ status }) => status);
        assert.deepEqual(made, [400, 200], method);
      }
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
  withCli(async ({ options, sandbox, calls }) => {
    sandbox.fail("api", "rate-limit");
    const { took, slack } = await timed(() => callApi({ path: ECHO }, options));
    assert.ok(took > 990 && took < 4000 + slack, `${took} ms`);
    assert.deepEqual(calls().map(({ status }) => status), [429, 200]);
    const stamps = new Set(calls().map(({ query }) => query.timestamp));
    assert.equal(
      stamps.size,
      2,
      "each try has a timestamp and a sign of its own",
    );
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
  [105001, 401, "login_required", /not valid, log in again$/, 1],
  [36009005, 401, "login_required", /log in again/, 1],
  [105005, 401, "rejected", /enable the scope .* log in again/, 1],
  [106001, 400, "rejected", /signature .* check the app secret/, 1],
  [106013, 400, "rejected", /name the shop/, 1],
  [36009002, 429, "rejected", /too many calls, wait/, 4],
  [36009004, 400, "rejected", /TikTok's message tells/, 1],
  [36009009, 404, "rejected", /no such path/, 1],
  [36009010, 400, "rejected", /another method/, 1],
  [36009014, 400, "rejected", /no such version/, 1],
  [36009033, 200, "rejected", /IP allow list/, 1],
  [36009003, 200, "rejected", /internal error, try again/, 4],
  [36009007, 500, "rejected", /timed out, try again/, 4],
  [12052700, 200, "rejected", /look the code up in Partner Center/, 1],
  [-1, 403, "rejected", /look the code up/, 1],
];

// === callApi(): what is repeated

/** What a host does with a call that it may have carried out. */
const DOUBTS: [string, HostHandler, ErrorKind][] = [
  ["closes", (_, __, socket) => void socket.end(), "network"],
  ["breaks off", (_, __, socket) => void socket.destroy(), "network"],
  [
    "sends half an answer",
    () => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    "network",
  ],
  ...[500, 502, 503, 504].map((status): [string, HostHandler, ErrorKind] => [
    `answers ${status}`,
    () => answer("<h1>Oh</h1>", { status }),
    "invalid_response",
  ]),
  [
    "has an unknown error",
    () => refusal(99, "?", { status: 500 }),
    "rejected",
  ],
  ["answers 36009003", () => refusal(36009003, "internal error"), "rejected"],
  ["answers 36009007", () => refusal(36009007, "timeout"), "rejected"],
];

/** Answers after which no call is tried again. */
const ODD_ANSWERS: [string, HostHandler, ErrorKind][] = [
  ["answers nothing", () => answer(""), "invalid_response"],
  ["sends half of the JSON", () => answer('{"code":0,"d'), "invalid_response"],
  ["sends a page", () => answer("<h1>Hello</h1>"), "invalid_response"],
];

const WRITES: [string, string][] = [
  ["POST", "/order/202309/orders"],
  ["POST", "/product/202309/search/queries"],
  ["PUT", "/order/202309/orders/search"],
  ["PATCH", "/x/202309/query"],
  ["DELETE", "/x/202309/y"],
];

const READS: [string, string][] = [
  ["GET", "/order/202309/orders"],
  ["POST", "/order/202309/orders/search"],
  ["POST", "/fulfillment/202309/orders/5/shipping_services/query"],
];

/** Makes each call at a host, all at once; resolves to errors and counts. */
function outcomes(
  calls: [string, string][],
  doubts: [string, HostHandler, ErrorKind][],
) {
  const rows = calls.flatMap(([method, path]) =>
    doubts.map(([name, handler, kind]) => ({
      method,
      path,
      handler,
      kind,
      name: `${method} ${path}: the host ${name}`,
    }))
  );
  return Promise.all(
    rows.map(({ method, path, handler, kind, name }) =>
      withHost(handler, async ({ origin, requests }) => {
        const store = memoryStore();
        await store.save("default", longLived());
        const options = { ...APP, store, apiEndpoint: origin };
        const call = callApi({ method, path }, options);
        const error = await failure(call, kind, name);
        return { name, error, count: requests.length };
      })
    ),
  );
}

test("callApi() never repeats a write that may have been carried out", async () => {
  const found = await outcomes(WRITES, [...DOUBTS, ...ODD_ANSWERS]);
  for (const { name, error, count } of found) {
    assert.equal(count, 1, name);
    assert.match(error.message, /; TikTok may have carried it out$/, name);
    assert.match(error.hint!, /^check what it did before you make/, name);
  }
});

test("callApi() repeats a read, a search by POST too, three times", async () => {
  const found = await outcomes(READS, DOUBTS);
  for (const { name, error, count } of found) {
    assert.equal(count, 4, name);
    assert.doesNotMatch(error.message, /carried it out/, name);
  }
  for (const { name, count } of await outcomes(READS, ODD_ANSWERS)) {
    assert.equal(count, 1, name);
  }
});

test("callApi() repeats a write that TikTok refused for its rate", () =>
  withServer(
    (_, index) =>
      index === 0
        ? refusalOf(36009002, "too many requests", 200)
        : index === 1
        ? { status: 429, body: "<h1>Slow down</h1>" }
        : GOOD,
    async (options, calls) => {
      await callApi({ method: "POST", path: ECHO, body: {} }, options);
      assert.equal(calls.length, 3);
    },
  ));

test("callApi() repeats a write while the connection is refused", async () => {
  const port = await freePort();
  let count = 0;
  const server = createServer((request, response) => {
    request.resume();
    count++;
    response.end(JSON.stringify(GOOD.body));
  });
  const store = memoryStore();
  await store.save("default", longLived());
  const lines: string[] = [];
  const onTrace = (line: string) => {
    if (lines.push(line) === 1) server.listen(port, "127.0.0.1");
  };
  const apiEndpoint = `http://127.0.0.1:${port}`;
  const options = { ...APP, store, apiEndpoint, onTrace };
  try {
    await callApi({ method: "POST", path: ECHO, body: {} }, options);
    assert.equal(count, 1);
    assert.match(lines[0]!, /failed/);
    assert.match(lines.at(-1)!, /HTTP 200/);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

test("callApi() repeats a write while its host is not found", async () => {
  const port = await freePort();
  const hosts = [`http://localhost:${port}`, "https://no-such-host.invalid"];
  await Promise.all(hosts.map(async (apiEndpoint) => {
    const store = memoryStore();
    await store.save("default", longLived());
    const lines: string[] = [];
    const onTrace = (line: string) => void lines.push(line);
    const options = { ...APP, store, apiEndpoint, onTrace };
    const call = callApi({ method: "POST", path: ECHO }, options);
    const error = await failure(call, "network", apiEndpoint);
    assert.doesNotMatch(error.message, /carried it out/, apiEndpoint);
    assert.equal(lines.length, 4, apiEndpoint);
  }));
});

test("callApi() says that a write it aborted may have been carried out", () => {
  const abort = new AbortController();
  return withHost(() => void abort.abort("enough"), async ({ origin }) => {
    const store = memoryStore();
    await store.save("default", longLived());
    const { signal } = abort;
    const options = { ...APP, store, apiEndpoint: origin, signal };
    const call = callApi({ method: "POST", path: ECHO, body: {} }, options);
    const error = await failure(call, "cancelled");
    assert.match(error.message, /^Cancelled: enough; TikTok may have carried/);
    assert.match(error.hint!, /^check what it did/);
  });
});

// === callApi(): the body of a failed call

test("callApi() keeps the body of a failed call, its secrets redacted", () =>
  withServer(({ query, headers }) => ({
    body: `{"code":12052700,"message":"no",` +
      `"data":{"errors":[{"code":"12052091","id":7495540735365777507,` +
      `"detail":"sign=${query.sign} of ${query.sign}, ${APP.appSecret}"}],` +
      `"${headers["x-tts-access-token"]}":1,` +
      `"access_token":"GCP_other","deep":{"code":"ROW_other","a":[null,1.5,` +
      `true,{"x":"x-tts-access-token: GCP_third"}]}}}`,
  }), async (options) => {
    const error = await failure(callApi({ path: ECHO }, options), "rejected");
    const errors = [{
      code: "12052091",
      id: 7495540735365777507n,
      detail: "sign=*** of ***, ***",
    }];
    assert.deepEqual(error.body, {
      code: 12052700,
      message: "no",
      data: {
        errors,
        "***": 1,
        access_token: "***",
        deep: {
          code: "***",
          a: [null, 1.5, true, { x: "x-tts-access-token: ***" }],
        },
      },
    });
    assert.match(JSON.stringify(error), /"id":"?7495540735365777507/);
  }));

test("callApi() keeps a body that is no JSON as text, of bounded length", () =>
  withServer(({ query }) => ({
    status: 502,
    body: `<p>${query.sign} ${APP.appSecret}</p>` + "x".repeat(100_000),
  }), async (options) => {
    const post = { method: "POST", path: ECHO };
    const error = await failure(callApi(post, options), "invalid_response");
    assert.equal(error.body, `<p>*** ***</p>${"x".repeat(10_000 - 14)}`);
  }));

test("callApi() survives a failed call's body of any depth and type", () => {
  const bodies = [
    "",
    "null",
    '"GCP_access"',
    "[[1]]",
    "[7495540735365777507]",
    "{}",
    '{"code":null}',
  ]
    .concat(`{"code":1,"data":${"[".repeat(3000)}${"]".repeat(3000)}}`)
    .concat('{"code":1,"__proto__":{"toString":1},"toJSON":"x"}');
  return withServer(
    (_, index) => ({ body: bodies[index]! }),
    async (options) => {
      for (const body of bodies) {
        const error = await failure(callApi({ path: ECHO }, options));
        assert.doesNotMatch(`${JSON.stringify(error)}`, /GCP_access/, body);
      }
    },
  );
});

test("exchangeCode() keeps no body: what failed may be full of tokens", () =>
  withServer(() => ({
    status: 400,
    body: { error: 1, refresh_token: "GCP_r", other: "GCP_o" },
  }), async (options) => {
    const tokenEndpoint = options.refreshEndpoint!;
    const call = exchangeCode(APP, "ROW_code", { tokenEndpoint });
    assert.equal((await failure(call)).body, undefined);
  }));

// === TikTok's codes

/** A row of the README's table: codes, message, hint, what is then done. */
type CodeRow = [codes: string, message: string, hint: string, cure: string];

async function readmeCodes(): Promise<CodeRow[]> {
  const text = await readFile(
    new URL("../../README.md", import.meta.url),
    "utf8",
  );
  const [, table = ""] = /\n\| TikTok's code .*\n.*\n((?:\|.*\n)+)/.exec(text)!;
  return table.trim().split("\n").map((line) =>
    line.split("|").slice(1, -1).map((cell) => cell.trim()) as CodeRow
  );
}

/** What a GET causes, by what the README says: calls, shops, refreshes. */
const CURED: Record<string, [number, number, number]> = {
  "": [1, 0, 0],
  "reads the profile again, for another process may have refreshed": [1, 0, 0],
  "refreshes, once": [2, 0, 1],
  "sends the only shop's, once": [2, 1, 0],
  "sends none, once": [2, 0, 0],
  "signs by TikTok's clock, once": [2, 0, 0],
  "waits, three times": [4, 0, 0],
};

test("The README tells what each of TikTok's codes causes", async () => {
  const rows = await readmeCodes();
  const samples = rows.flatMap(([codes, message, hint, cure]) =>
    (codes.match(/\d+/g) ?? ["99"])
      .map((code) => ({ code: Number(code), message, hint, cure }))
  );
  await Promise.all(
    samples.map(({ code, message, hint, cure }) =>
      withServer((call) => {
        if (call.path === SHOPS) return pageOf([ONLY_SHOP]);
        if (call.path.endsWith("/refresh")) return { body: REPLY };
        const date = new Date(Date.now() - 3_600_000).toUTCString();
        const body = { code, message: message.replace(/^"|"$/g, "") };
        return { body, headers: { date } };
      }, async (options, calls) => {
        const row = `${code} ${message}`;
        const isKnown = cure.startsWith("sends none");
        const tokens = longLived(isKnown ? [ONLY_SHOP] : undefined);
        await options.store!.save("default", tokens);
        const error = await failure(callApi({ path: ECHO }, options));
        const told = error.hint!.replace(/: tiktok-shop-oauth2 \w+/, "");
        assert.equal(told, hint, row);
        const counts = [ECHO, SHOPS, "/api/v2/token/refresh"].map((path) =>
          calls.filter((call) => call.path === path).length
        );
        assert.deepEqual(counts, CURED[cure], row);
      })
    ),
  );
});

test("The README's table has every row of the module's own", async () => {
  const source = await readFile(
    new URL("../../mod.ts", import.meta.url),
    "utf8",
  );
  const [table = ""] = /\nconst TIKTOK_CODES.*?\n\];\n/s.exec(source)!;
  const own = table.split(/\n {2}\[/).slice(1).map((row) => [
    /^\[([\d, ]+)\]/.exec(row)?.[1] ?? "any",
    /match|HEADER|UNWANTED/.test(row),
  ]);
  assert.ok(own.length > 15, table);
  const rows = await readmeCodes();
  const shown = rows.map(([codes, message]) => [codes, message !== ""]);
  assert.deepEqual(shown, own);
});

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
  ["another secret", { path: ECHO }, { appSecret: "wrong" }, 106001, 401],
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
  withCli(async (cli) => {
    for (const [name, request, options, code, status] of REFUSALS) {
      const changed = { ...cli, options: { ...cli.options, ...options } };
      const error = await refused(changed, request, "rejected");
      assert.deepEqual([error.code, error.status], [code, status], name);
    }
    cli.sandbox.deauthorize((await cli.tokens()).data.open_id);
    const error = await refused(cli, { path: ECHO }, "login_required");
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
      withCli(async (cli) => {
        cli.sandbox.fail("api", fault, Infinity);
        const error = await refused(cli, { path: `${ECHO}?code=hush` }, kind);
        assert.match(error.message, message, fault);
        assert.doesNotMatch(inspect(error), /hush/, fault);
        assert.ok(error.hint, fault);
        assert.equal(cli.calls().length, count, fault);
        assert.equal(cli.sandbox.count("/stolen"), 0);
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

/** Runs against a host that takes this many ms to read 4 MiB. */
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
  withCli(async ({ options, sandbox }) => {
    sandbox.fail("api", "never");
    const signal = AbortSignal.timeout(100);
    const call = callApi({ path: ECHO }, { ...options, signal });
    const error = await failure(call, "cancelled");
    assert.match(error.message, /^Cancelled: /);
  }));

/** Secrets of every character that URLs, JSON and headers can carry. */
const ODD_APP = { appKey: "key", appSecret: `S+/=%"\\'~!(*)QzSecretQz&x` };
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
  withCli(async ({ options, sandbox }) => {
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
  withCli(async ({ options, tokens, store }) => {
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
  withCli(async ({ options, tokens }) => {
    assert.deepEqual(await authorizedShops(options), []);
    assert.deepEqual((await tokens()).meta.shops, []);
  }, { sellers: [sellerWith()] }));

test("authorizedShops() tells that the scope is missing", () =>
  withCli(async ({ options, tokens }) => {
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
  withCli(async ({ options, tokens, sandbox }) => {
    const before = await tokens();
    await authorizedShops(options);
    const after = await tokens();
    assert.equal(sandbox.count("/api/v2/token/refresh"), 1);
    assert.notEqual(after.data.access_token, before.data.access_token);
    assert.equal(after.meta.shops?.length, 3);
  }, { accessTokenLife: 200 }));
