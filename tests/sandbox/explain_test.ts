/** The sandbox names what is wrong with a signature, and shows no secret. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { test } from "node:test";
import { type Sandbox, startSandbox } from "../../scripts/sandbox.ts";

// === Helpers

const SHOPS = "/authorization/202309/shops";
const SEARCH = "/order/202309/orders/search";
const TOKEN = "ROW_token-that-nobody-issued";

/** What a client sends and knows when it signs. */
interface Call {
  method: string;
  path: string;
  query: Record<string, string>;
  body: string;
  contentType: string;
  secret: string;
}

/** Signs rightly, but for what a case changes. */
interface Change {
  path?: string;
  parameters?: string;
  body?: string;
  before?: string;
  after?: string;
  key?: string;
  hash?: string;
}

function parametersOf(query: Record<string, string>): string {
  return Object.keys(query).sort().map((key) => key + query[key]).join("");
}

function textOf(call: Call, change: Change = {}): string {
  const { path = call.path, body = call.body } = change;
  const { parameters = parametersOf(call.query) } = change;
  const { before = call.secret, after = call.secret } = change;
  return before + path + parameters + body + after;
}

function signed(call: Call, change: Change = {}): string {
  return createHmac(change.hash ?? "sha256", change.key ?? call.secret)
    .update(textOf(call, change)).digest("hex");
}

interface Answer {
  status: number;
  code: number;
  explain: string | undefined;
}

/** Sends a request as it is: fetch would send no body with GET. */
async function send(
  sandbox: Sandbox,
  call: Call,
  sign: string,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const query = new URLSearchParams({ ...call.query, sign });
  const sent = request(sandbox.origin + call.path + "?" + query, {
    method: call.method,
    headers: {
      "content-type": call.contentType,
      "x-tts-access-token": TOKEN,
      ...headers,
      ...(call.body && { "content-length": Buffer.byteLength(call.body) }),
    },
  });
  sent.end(call.body);
  const [answer] = await once(sent, "response") as [IncomingMessage];
  let text = "";
  for await (const chunk of answer) text += chunk;
  const explain = answer.headers["x-sandbox-explain"];
  return {
    status: answer.statusCode ?? 0,
    code: JSON.parse(text).code,
    explain: explain as string | undefined,
  };
}

function callOf(sandbox: Sandbox, more: Partial<Call> = {}): Call {
  const { query, ...rest } = more;
  return {
    method: "POST",
    path: SEARCH,
    body: '{"order_status":"UNPAID", "note":"déjà <vu>/"}',
    contentType: "application/json",
    secret: sandbox.appSecret,
    ...rest,
    query: {
      app_key: sandbox.appKey,
      timestamp: String(Math.floor(Date.now() / 1000)),
      shop_cipher: "GCP_Zq3vAAAAAACm4e-Xn7u_0Q",
      page_size: "10",
      ...query,
    },
  };
}

const GET: Partial<Call> = { method: "GET", path: SHOPS, body: "" };
const MULTIPART: Partial<Call> = {
  contentType: "multipart/form-data; boundary=b",
  body: "--b--",
};

function python(body: string): string {
  return JSON.stringify(JSON.parse(body))
    .replace(/("(?:[^"\\]|\\.)*")|[:,]/g, (all, text) => text ?? `${all} `)
    .replace(
      /[^\x20-\x7e]/g,
      (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
    );
}

const plus = (query: Record<string, string>, name: string, value: string) =>
  parametersOf({ ...query, [name]: value });

/** Wrong signatures, by the name that the sandbox gives. */
const WRONG: [string, string, Partial<Call>, (call: Call) => string][] = [
  ["body-not-signed", "a body left out", {}, (c) => signed(c, { body: "" })],
  [
    "body-reserialised",
    "JSON without blanks",
    {},
    (c) => signed(c, { body: JSON.stringify(JSON.parse(c.body)) }),
  ],
  [
    "body-reserialised",
    "JSON as Python writes it",
    {},
    (c) => signed(c, { body: python(c.body) }),
  ],
  [
    "body-reserialised",
    "JSON as PHP escapes it",
    {},
    (c) =>
      signed(c, {
        body: JSON.stringify(JSON.parse(c.body)).replace("/", "\\/")
          .replaceAll("é", "\\u00e9").replaceAll("à", "\\u00e0"),
      }),
  ],
  [
    "body-reserialised",
    "a large integer, without blanks",
    { body: '{"id": 7495540735365777507}' },
    (c) => signed(c, { body: '{"id":7495540735365777507}' }),
  ],
  [
    "body-reserialised",
    "a line's end behind the body",
    {},
    (c) => signed(c, { body: `${c.body}\n` }),
  ],
  [
    "multipart-signed",
    "a multipart body",
    MULTIPART,
    (c) => signed(c, { body: "--b--" }),
  ],
  [
    "body-not-sent",
    "a body of {} that was not sent",
    GET,
    (c) => signed(c, { body: "{}" }),
  ],
  [
    "body-in-parameters",
    "the body's members among the parameters",
    { body: '{"b":"x","a":1}' },
    (c) =>
      signed(c, {
        parameters: parametersOf({ ...c.query, b: "x", a: "1" }),
        body: "",
      }),
  ],
  [
    "not-sorted",
    "parameters in the order of the URL",
    {},
    (c) => signed(c, { parameters: Object.entries(c.query).flat().join("") }),
  ],
  [
    "sign-included",
    "an empty sign among the parameters",
    {},
    (c) => signed(c, { parameters: plus(c.query, "sign", "") }),
  ],
  [
    "access-token-included",
    "the header's token among the parameters",
    {},
    (c) => signed(c, { parameters: plus(c.query, "access_token", TOKEN) }),
  ],
  [
    "values-encoded",
    "values as in the URL",
    { query: { title: "a b/é" } },
    (c) => signed(c, { parameters: plus(c.query, "title", "a%20b%2F%C3%A9") }),
  ],
  [
    "separators-signed",
    "a query string",
    {},
    (c) =>
      signed(c, {
        parameters: Object.entries(c.query).sort()
          .map((pair) => pair.join("=")).join("&"),
      }),
  ],
  [
    "parameter-not-signed",
    "the shop_cipher left out",
    {},
    (c) => {
      const { shop_cipher: _, ...query } = c.query;
      return signed(c, { parameters: parametersOf(query) });
    },
  ],
  [
    "parameter-not-sent",
    "a shop_cipher that was not sent",
    GET,
    (c) => signed(c, { parameters: plus(c.query, "version", "202309") }),
  ],
  [
    "timestamp-in-ms",
    "a timestamp in milliseconds",
    {},
    (c) =>
      signed(c, {
        parameters: plus(c.query, "timestamp", `${c.query.timestamp}123`),
      }),
  ],
  [
    "timestamp-differs",
    "the clock read twice",
    {},
    (c) => {
      const later = String(Number(c.query.timestamp) + 1);
      return signed(c, { parameters: plus(c.query, "timestamp", later) });
    },
  ],
  [
    "host-in-path",
    "the whole URL",
    {},
    (c) =>
      signed(c, { path: `https://open-api.tiktokglobalshop.com${c.path}` }),
  ],
  [
    "query-in-path",
    "the path with its query",
    {},
    (c) => signed(c, { path: `${c.path}?${new URLSearchParams(c.query)}` }),
  ],
  ["path-not-signed", "no path", {}, (c) => signed(c, { path: "" })],
  [
    "path-changed",
    "no first slash",
    {},
    (c) => signed(c, { path: c.path.slice(1) }),
  ],
  [
    "path-changed",
    "the path decoded",
    { path: "/customer_service/202309/conversations/a%20b/messages" },
    (c) => signed(c, { path: decodeURIComponent(c.path) }),
  ],
  [
    "method-signed",
    "the method in front",
    {},
    (c) => signed(c, { path: c.method + c.path }),
  ],
  [
    "secret-not-around",
    "no secret around",
    {},
    (c) => signed(c, { before: "", after: "" }),
  ],
  ["secret-not-around", "none behind", {}, (c) => signed(c, { after: "" })],
  ["secret-not-key", "no key", {}, (c) => signed(c, { key: "" })],
  [
    "secret-not-key",
    "the app key as the key",
    {},
    (c) => signed(c, { key: c.query.app_key! }),
  ],
  [
    "another-secret",
    "the secret with a line's end",
    {},
    (c) => signed({ ...c, secret: `${c.secret}\n` }),
  ],
  [
    "another-secret",
    "the service id",
    {},
    (c) => signed({ ...c, secret: "7412345678901234567" }),
  ],
  [
    "no-hmac",
    "a plain hash",
    {},
    (c) => createHash("sha256").update(textOf(c)).digest("hex"),
  ],
  ["sha1", "HMAC-SHA1", {}, (c) => signed(c, { hash: "sha1" })],
  ["md5", "HMAC-MD5", {}, (c) => signed(c, { hash: "md5" })],
  ["upper-case", "upper-case hex", {}, (c) => signed(c).toUpperCase()],
  [
    "base64",
    "base64",
    {},
    (c) => Buffer.from(signed(c), "hex").toString("base64"),
  ],
  [
    "body-not-signed + secret-not-around",
    "two mistakes",
    {},
    (c) => signed(c, { body: "", before: "", after: "" }),
  ],
  [
    "values-encoded + upper-case",
    "two others",
    { query: { title: "a b" } },
    (c) =>
      signed(c, { parameters: plus(c.query, "title", "a%20b") }).toUpperCase(),
  ],
];

async function withSandbox(
  run: (sandbox: Sandbox) => Promise<unknown>,
): Promise<void> {
  const sandbox = await startSandbox();
  try {
    await run(sandbox);
  } finally {
    await sandbox.stop();
  }
}

function assertHidesSecrets(text: string, { appSecret }: Sandbox): void {
  for (const secret of [appSecret, appSecret.slice(4, 16), TOKEN]) {
    assert.ok(!text.includes(secret), text);
  }
}

// === Tests

for (const [name, what, more, sign] of WRONG) {
  test(`A sign over ${what} is explained as ${name}`, () =>
    withSandbox(async (sandbox) => {
      const call = callOf(sandbox, more);
      const { status, code, explain = "" } = await send(
        sandbox,
        call,
        sign(call),
      );
      assert.deepEqual([status, code], [401, 106001]);
      assert.match(explain, /^[\x20-\x7e]+$/);
      assert.equal(explain.split(": ")[0], name);
      assertHidesSecrets(explain, sandbox);
      const { explanation, note } = sandbox.requests[0]!;
      assert.deepEqual(explanation!.mistakes, name.split(" + "));
      assert.ok(explain.includes(explanation!.text));
      assert.match(explanation!.stringToSign, /^\*{3}\/.*\*{3}$/s);
      assert.match(note, /^Invalid credentials\. The `sign` query/);
      assertHidesSecrets(JSON.stringify(explanation), sandbox);
    }));
}

test("An explanation shows what was signed and what should have been", () =>
  withSandbox(async (sandbox) => {
    const call = callOf(sandbox, { body: '{"a":"é"}' });
    const cases: [string, string | undefined, Change][] = [
      ["without its body", "", { body: "" }],
      ["without secrets", undefined, { before: "", after: "" }],
    ];
    const middle = call.path + parametersOf(call.query);
    for (const [what, body = call.body, change] of cases) {
      const { explain = "" } = await send(sandbox, call, signed(call, change));
      const { signed: was, stringToSign } = sandbox.requests.at(-1)!
        .explanation!;
      const mask = change.before === "" ? "" : "***";
      assert.equal(was, mask + middle + body + mask, what);
      assert.equal(stringToSign, `***${middle}${call.body}***`);
      const ascii = stringToSign.replace("é", "\\u00e9");
      assert.ok(explain.endsWith(`. Should be: ${ascii}`), explain);
    }
  }));

test("A right sign is explained by nothing", () =>
  withSandbox(async (sandbox) => {
    const calls = [callOf(sandbox), callOf(sandbox, MULTIPART)];
    for (const [at, call] of calls.entries()) {
      const body = at === 0 ? call.body : "";
      const answer = await send(sandbox, call, signed(call, { body }));
      assert.equal(answer.explain, undefined);
      assert.equal(answer.code, 36009004, "the token is next");
    }
  }));

test("A timestamp sent in milliseconds is explained", () =>
  withSandbox(async (sandbox) => {
    const call = callOf(sandbox, { query: { timestamp: `${Date.now()}` } });
    const answer = await send(sandbox, call, signed(call));
    assert.deepEqual([answer.status, answer.code], [400, 36009004]);
    assert.match(answer.explain!, /^timestamp-in-ms: .*seconds$/);
    assert.match(
      sandbox.requests[0]!.note,
      /must not exceed the current time by more than 30/,
    );
  }));

test("A GET with a body is accepted signed either way, and says so", () =>
  withSandbox(async (sandbox) => {
    const call = callOf(sandbox, { ...GET, body: '{"a":1}' });
    for (const body of [call.body, ""]) {
      const answer = await send(sandbox, call, signed(call, { body }));
      assert.equal(answer.code, 36009004, "the token is next");
    }
    const wrong = await send(sandbox, call, signed(call, { body: "{}" }));
    assert.equal(wrong.code, 106001);
  }));

test("A body of {} is accepted signed or not, and the latter is told", () =>
  withSandbox(async (sandbox) => {
    const tokens = await tokensOf(sandbox);
    const call = callOf(sandbox, { body: "{}" });
    const headers = { "x-tts-access-token": tokens.access_token };
    for (const body of ["{}", ""]) {
      const sign = signed(call, { body });
      assert.equal((await send(sandbox, call, sign, headers)).code, 0);
    }
    const get = callOf(sandbox, { ...GET, body: "{}" });
    delete get.query.shop_cipher;
    const sign = signed(get, { body: "" });
    assert.equal((await send(sandbox, get, sign, headers)).code, 0);
    const notes = sandbox.requests.slice(-3).map(({ note }) => note);
    assert.deepEqual(notes, [
      "",
      "the body {} is accepted, though not signed",
      "the body of a GET is accepted signed or not, here not signed",
    ]);
  }));

async function tokensOf(sandbox: Sandbox): Promise<{ access_token: string }> {
  const query = new URLSearchParams({
    app_key: sandbox.appKey,
    app_secret: sandbox.appSecret,
    auth_code: sandbox.issueCode(),
    grant_type: "authorized_code",
  });
  const answer = await fetch(`${sandbox.tokenEndpoint}?${query}`);
  return (await answer.json()).data;
}

/** What the sandbox says of a string to sign, of no usual mistake. */
const TOLD: [string, (call: Call) => string, RegExp][] = [
  [
    "another path",
    (c) => textOf(c, { path: "/order/202309/orders" }),
    /in the path, from character 21 .*: "\/search.*" is right, "app_key/,
  ],
  [
    "another value",
    (c) => textOf({ ...c, query: { ...c.query, page_size: "20" } }),
    /in the parameter page_size, .*: "10shop_cipher/,
  ],
  [
    "another body",
    (c) => textOf(c, { body: c.body.replace("é", "e") }),
    /in the body, .*: "\\u00e9.*" is right, "e/,
  ],
  [
    "no secret in front",
    (c) => textOf(c, { before: "" }),
    /differ in the secret: put that of the app_key before and after/,
  ],
  [
    "half of the secret behind",
    (c) => textOf(c, { after: c.secret.slice(0, 20) }),
    /in the end, from character .*: put the secret there/,
  ],
  [
    "no body, and half of the secret behind",
    (c) => textOf(c, { body: "", after: c.secret.slice(0, 30) }),
    /in the body, .* is right, \*{3} was signed/,
  ],
  [
    "another app's secret",
    (c) => textOf({ ...c, secret: "a-secret-of-another-app" }),
    /^unknown: The strings to sign differ in the secret: put that of/,
  ],
  [
    "what is right",
    (c) => textOf(c),
    /The string to sign is right, so the HMAC is not/,
  ],
];

for (const [what, told, says] of TOLD) {
  test(`The sandbox compares strings to sign: ${what}`, () =>
    withSandbox(async (sandbox) => {
      const call = callOf(sandbox);
      const text = told(call);
      const sign = createHmac("sha256", "a-key-that-nobody-knows")
        .update(text).digest("hex");
      const name = "x-sandbox-string-to-sign";
      const { explain = "" } = await send(sandbox, call, sign, {
        [name]: encodeURIComponent(text),
      });
      assert.match(explain, says);
      assertHidesSecrets(explain, sandbox);
      assert.ok(!explain.includes("a-secret-of"), explain);
    }));
}

test("Another app's secret is named by the string that was signed", () =>
  withSandbox(async (sandbox) => {
    const call = { ...callOf(sandbox), secret: "a-secret-of-another-app" };
    const sign = signed(call);
    const unknown = await send(sandbox, call, sign);
    assert.match(unknown.explain!, /^unknown: .* likely .* another app's/);
    const { explain } = await send(sandbox, call, sign, {
      "x-sandbox-string-to-sign": encodeURIComponent(textOf(call)),
    });
    assert.match(explain!, /^another-secret: /);
    assert.ok(!explain!.includes(call.secret), explain);
  }));

test("The sandbox takes a string to sign that is not encoded", () =>
  withSandbox(async (sandbox) => {
    const call = callOf(sandbox, { body: '{"a":"100%25"}' });
    const text = textOf(call, { body: '{"a":"100%26"}' });
    const { explain } = await send(sandbox, call, "0".repeat(64), {
      "x-sandbox-string-to-sign": text,
    });
    assert.match(explain!, /in the body, .*"5\\"}.* is right, "6\\"}/);
  }));

test("A sign of no usual mistake is answered with what to do next", () =>
  withSandbox(async (sandbox) => {
    for (const sign of ["", "x", "0".repeat(64), "é".repeat(9)]) {
      const { explain } = await send(sandbox, callOf(sandbox), sign);
      assert.match(
        explain!,
        /^unknown: .*-string-to-sign\. Should be: \*{3}\//,
      );
    }
  }));

test("Large bodies are explained, and very large ones are refused fast", () =>
  withSandbox(async (sandbox) => {
    const large = callOf(sandbox, { body: `"${"é".repeat(300_000)}"` });
    const unsigned = await send(sandbox, large, signed(large, { body: "" }));
    assert.match(unsigned.explain!, /^body-not-signed: /);
    assert.ok(unsigned.explain!.length < 5000);
    const slow = await send(sandbox, large, "0".repeat(64));
    assert.match(slow.explain!, /^unknown: /);
    const deep = `${"[".repeat(7000)}${"]".repeat(7000)}`;
    const nested = await send(sandbox, callOf(sandbox, { body: deep }), "x");
    assert.match(nested.explain!, /^unknown: /);
    const huge = callOf(sandbox, { body: `"${"x".repeat(8 << 20)}"` });
    const refused = await send(sandbox, huge, signed(huge, { body: "" }));
    assert.match(refused.explain!, /^unknown: The body is too large to try/);
  }));
