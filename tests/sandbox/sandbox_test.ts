import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { SANDBOX_FAULTS, startSandbox } from "../../scripts/sandbox.ts";
import type {
  Sandbox,
  SandboxFault,
  SandboxOptions,
  SandboxSeller,
  SandboxWhere,
} from "../../scripts/sandbox.ts";

import { runtimeCommand, start } from "../support/helpers.ts";
import { within } from "../support/timing.ts";

// === Helpers

const PROGRAM = fileURLToPath(
  new URL("../../scripts/sandbox.ts", import.meta.url),
);

interface Tokens {
  access_token: string;
  access_token_expire_in: number;
  refresh_token: string;
  refresh_token_expire_in: number;
  [name: string]: unknown;
}

interface Answer {
  status: number;
  headers: Headers;
  text: string;
  code: number;
  message: string;
  // deno-lint-ignore no-explicit-any
  data: any;
}

async function withSandbox(
  options: SandboxOptions,
  run: (sandbox: Sandbox) => Promise<unknown>,
): Promise<void> {
  const sandbox = await startSandbox(options);
  try {
    await run(sandbox);
  } finally {
    await sandbox.stop();
  }
}

async function ask(url: string | URL, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, { redirect: "manual", ...init });
  const text = await response.text();
  let json = { code: NaN, message: "", data: undefined };
  try {
    json = JSON.parse(text);
  } catch {
    // Some faults are not JSON.
  }
  const { status, headers } = response;
  return { ...json, status, headers, text };
}

function withQuery(url: string, query: Record<string, string>): string {
  return `${url}?${new URLSearchParams(query)}`;
}

function exchange(
  sandbox: Sandbox,
  code: string,
  more: Record<string, string> = {},
): Promise<Answer> {
  return ask(withQuery(sandbox.tokenEndpoint, {
    app_key: sandbox.appKey,
    app_secret: sandbox.appSecret,
    auth_code: code,
    grant_type: "authorized_code",
    ...more,
  }));
}

function refresh(sandbox: Sandbox, token: string): Promise<Answer> {
  return ask(withQuery(sandbox.refreshEndpoint, {
    app_key: sandbox.appKey,
    app_secret: sandbox.appSecret,
    refresh_token: token,
    grant_type: "refresh_token",
  }));
}

async function login(sandbox: Sandbox, fault = ""): Promise<Tokens> {
  return (await exchange(sandbox, sandbox.issueCode(0, fault))).data;
}

interface ApiCall {
  method?: string;
  query?: Record<string, string>;
  headers?: Record<string, string>;
  body?: string;
  timestamp?: number;
}

/** A client's own signing, independent of the sandbox's. */
function callApi(
  sandbox: Sandbox,
  token: string,
  path: string,
  call: ApiCall = {},
): Promise<Answer> {
  const { method = "GET", body = "", headers = {} } = call;
  const { timestamp = Math.floor(Date.now() / 1000) } = call;
  const query: Record<string, string> = {
    app_key: sandbox.appKey,
    timestamp: String(timestamp),
    ...call.query,
  };
  const multipart = headers["content-type"]?.startsWith("multipart/form-data");
  let text = sandbox.appSecret + path;
  for (const key of Object.keys(query).sort()) text += key + query[key];
  text += (multipart ? "" : body) + sandbox.appSecret;
  const sign = createHmac("sha256", sandbox.appSecret).update(text)
    .digest("hex");
  return ask(withQuery(sandbox.apiEndpoint + path, { sign, ...query }), {
    method,
    headers: { "x-tts-access-token": token, ...headers },
    ...(body === "" ? {} : { body }),
  });
}

const SHOPS = "/authorization/202309/shops";
const ORDERS = "/order/202309/orders/search";
const ECHO = "/echo/202309/anything";

function authorizeUrl(
  sandbox: Sandbox,
  query: Record<string, string> = {},
): string {
  return withQuery(sandbox.authorizationEndpoint, {
    service_id: sandbox.serviceId,
    state: "ours",
    ...query,
  });
}

async function redirectOf(
  sandbox: Sandbox,
  fault?: SandboxFault,
): Promise<URLSearchParams> {
  const url = await sandbox.approve(authorizeUrl(sandbox), { fault });
  return new URL(url).searchParams;
}

function seller(more: Partial<SandboxSeller> = {}): SandboxSeller {
  return {
    openId: "one",
    name: "One",
    region: "GB",
    userType: 0,
    scopes: ["seller.authorization.info"],
    shops: [],
    ...more,
  };
}

// === Starting and stopping

test("startSandbox() describes itself and its app", () =>
  withSandbox({}, (sandbox) => {
    assert.equal(sandbox.origin, `http://127.0.0.1:${sandbox.port}`);
    assert.match(sandbox.appKey, /^[a-z0-9]{12}$/);
    assert.match(sandbox.appSecret, /^[0-9a-f]{40}$/);
    assert.match(sandbox.serviceId, /^\d{19}$/);
    assert.ok(BigInt(sandbox.serviceId) > 2n ** 53n);
    assert.equal(sandbox.redirectUrl, "http://localhost:3017/");
    assert.deepEqual(sandbox.env, {
      TIKTOK_SHOP_APP_KEY: sandbox.appKey,
      TIKTOK_SHOP_APP_SECRET: sandbox.appSecret,
      TIKTOK_SHOP_SERVICE_ID: sandbox.serviceId,
      TIKTOK_SHOP_AUTHORIZATION_ENDPOINT: `${sandbox.origin}/open/authorize`,
      TIKTOK_SHOP_TOKEN_ENDPOINT: `${sandbox.origin}/api/v2/token/get`,
      TIKTOK_SHOP_REFRESH_ENDPOINT: `${sandbox.origin}/api/v2/token/refresh`,
      TIKTOK_SHOP_API_ENDPOINT: sandbox.origin,
    });
    return Promise.resolve();
  }));

test("startSandbox() rejects impossible options", async () => {
  await assert.rejects(startSandbox({ port: 70_000 }), RangeError);
  await assert.rejects(startSandbox({ redirectUrl: "localhost" }), TypeError);
  await assert.rejects(startSandbox({ redirectUrl: "a:b" }), TypeError);
  await assert.rejects(startSandbox({ sellers: [] }), RangeError);
  await assert.rejects(startSandbox({ fault: "nope" }), /Unknown fault "nope"/);
});

test("startSandbox() says that its port is in use", () =>
  withSandbox({}, async ({ port }) => {
    const message = `Cannot listen on port ${port}: it is in use`;
    await assert.rejects(startSandbox({ port }), { message });
  }));

test("Sandbox.stop() ends open connections within 500 ms", async () => {
  const sandbox = await startSandbox();
  sandbox.fail("token", "never");
  sandbox.fail("refresh", "slow");
  const waiting = [
    exchange(sandbox, "any"),
    refresh(sandbox, "any"),
  ].map((promise) => assert.rejects(promise));
  const half = connect(sandbox.port, "127.0.0.1");
  half.on("error", () => {});
  await once(half, "connect");
  half.write("GET /half HTTP/1.1\r\n");
  while (sandbox.requests.length < 2) await new Promise(setImmediate);
  await within(500, async () => {
    await sandbox.stop();
    await sandbox.stop();
  });
  await Promise.all(waiting);
  half.destroy();
});

test("Sandbox[Symbol.asyncDispose]() stops it", async () => {
  const sandbox = await startSandbox();
  await sandbox[Symbol.asyncDispose]();
  await assert.rejects(fetch(sandbox.origin));
});

/** The status that a raw request gets. */
async function statusOf(
  { port }: Sandbox,
  method: string,
  target: string,
  headers: Record<string, string>,
): Promise<number> {
  const socket = connect(port, "127.0.0.1");
  const lines = Object.entries({ ...headers, Connection: "close" })
    .map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const body = "decision=approve";
  socket.write(
    `${method} ${target} HTTP/1.1\r\n${lines}` +
      (method === "POST"
        ? `Content-Length: ${body.length}\r\n\r\n${body}`
        : "\r\n"),
  );
  let answer = "";
  for await (const chunk of socket) answer += chunk;
  return Number(answer.split(" ")[1]);
}

test("The sandbox answers to a loopback Host only", () =>
  withSandbox({}, async (sandbox) => {
    const { port } = sandbox;
    const status = (Host: string) =>
      statusOf(sandbox, "GET", "/open/authorize", { Host });
    for (const name of ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"]) {
      assert.equal(await status(`${name}:${port}`), 404, name);
      assert.equal(await status(name), 404, name);
    }
    const others = ["evil.com", `evil.com:${port}`, "localhost.evil.com", ""];
    for (const name of [...others, "127.0.0.1.evil.com", "192.168.0.7"]) {
      assert.equal(await status(name), 421, name);
    }
    assert.equal(sandbox.count("/open/authorize"), 8);
  }));

test("A page of another origin approves nothing at the sandbox", () =>
  withSandbox({}, async (sandbox) => {
    const url = new URL(authorizeUrl(sandbox));
    const target = url.pathname + url.search;
    const Host = url.host;
    const post = (headers: Record<string, string>) =>
      statusOf(sandbox, "POST", target, { Host, ...headers });
    const own: Record<string, string>[] = [{}, { Origin: sandbox.origin }];
    for (const headers of own) assert.equal(await post(headers), 302);
    const others = ["https://evil.com", "null", "http://127.0.0.1:1", ""];
    for (const Origin of [...others, `https://${Host}`]) {
      assert.equal(await post({ Origin }), 403, Origin);
    }
  }));

test("The sandbox forgets old requests and the ends of large bodies", () =>
  withSandbox({}, async (sandbox) => {
    const send = (path: string, body?: Uint8Array) =>
      ask(sandbox.origin + path, { method: "POST", body: body as BodyInit });
    const body = new Uint8Array(1 << 20).fill(97);
    for (let i = 0; i < 3; i++) await send("/large", body);
    const [large] = sandbox.requests;
    assert.equal(large!.body.length, 16 * 1024);
    const lane = async () => {
      for (let i = 0; i < 260; i++) await send("/small");
    };
    await Promise.all([lane(), lane(), lane(), lane()]);
    assert.equal(sandbox.requests.length, 1000);
    assert.ok(!sandbox.requests.includes(large!));
    assert.equal(sandbox.count("/small"), 1040);
    assert.equal(sandbox.count("/large"), 3);
  }));

test("The sandbox's memory does not grow with what it is sent", {
  skip: process.platform !== "linux" && "it reads /proc",
}, async () => {
  const line = [...runtimeCommand(PROGRAM), "--port", "0", "--env"];
  const { child, until } = start(line, { input: "open" });
  try {
    const [, origin] = await until(/API_ENDPOINT=(http\S+)/);
    const body = new Uint8Array(8 << 20).fill(98);
    const send = async (count: number) => {
      for (let i = 0; i < count; i++) {
        await ask(`${origin}/large`, { method: "POST", body });
      }
    };
    await send(5);
    const before = residentMiB(child.pid!);
    await send(25); // 200 MiB
    const grown = residentMiB(child.pid!) - before;
    assert.ok(grown < 120, `${grown} MiB`);
  } finally {
    child.kill();
  }
});

function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
}

test("Sandbox.requests holds every request, answered or not", async () => {
  const seen: string[] = [];
  const options: SandboxOptions = {
    now: () => 5000,
    onRequest: (request) => seen.push(`${request.status} ${request.faults}`),
  };
  await withSandbox(options, async (sandbox) => {
    await ask(`${sandbox.origin}/echo/x?a=%2B&a=b`, {
      method: "POST",
      headers: { "X-Test": "yes" },
      body: "héllo",
    });
    sandbox.fail("api", "dropped");
    await assert.rejects(ask(`${sandbox.origin}/echo/x`));
    assert.equal(sandbox.count("/echo/x"), 2);
    assert.equal(sandbox.count("/echo"), 0);
    const first = sandbox.requests[0]!;
    assert.equal(first.headers["x-test"], "yes");
    assert.deepEqual({ ...first, headers: {} }, {
      method: "POST",
      path: "/echo/x",
      query: { a: "b" },
      headers: {},
      body: "héllo",
      status: 404,
      code: 36009009,
      note: "Invalid path. The specified path does not match any available " +
        "endpoint.",
      time: 5000,
      faults: [],
    });
    assert.equal(sandbox.requests[1]!.status, 0);
    assert.deepEqual(seen, ["404 ", "0 dropped"]);
  });
});

// === Authorize page

test("The authorize page can be read and used without script", () =>
  withSandbox({}, async (sandbox) => {
    const page = await ask(authorizeUrl(sandbox));
    assert.equal(page.status, 200);
    assert.match(page.text, /<html lang="en">/);
    assert.match(page.text, /Sandbox, not TikTok\./);
    assert.match(page.text, /<h1>/);
    assert.match(page.text, new RegExp(sandbox.serviceId));
    assert.match(page.text, /seller\.order\.info/);
    assert.match(page.text, /Harbour &#38; Finch Éire/);
    assert.match(page.text, /<button name="decision" value="approve">/);
    assert.match(
      page.text,
      /<button name="decision" value="deny" class="plain">/,
    );
    assert.match(page.text, /prefers-color-scheme:dark/);
    assert.doesNotMatch(page.text, /<script|(src|href)="(?!data:,")/);
    const policy = page.headers.get("content-security-policy") ?? "";
    assert.match(policy, /^default-src 'none'; style-src 'sha256-/);
    assert.doesNotMatch(policy, /form-action|unsafe/);
    assert.equal(page.headers.get("cache-control"), "no-store");
    assert.equal(page.headers.get("referrer-policy"), "same-origin");
    assert.equal(page.headers.get("x-content-type-options"), "nosniff");
  }));

test("The authorize page escapes everything", async () => {
  const evil = `"><script>alert('&')</script>`;
  const shop = {
    cipher: evil,
    code: evil,
    id: evil,
    name: evil,
    region: evil,
    seller_type: evil,
  };
  const options: SandboxOptions = {
    serviceId: evil,
    redirectUrl: "http://localhost:3017/?a='b'&c=d",
    sellers: [
      seller({ name: evil, region: evil, scopes: [evil], shops: [shop] }),
      seller(),
    ],
  };
  await withSandbox(options, async (sandbox) => {
    const pages = [
      await ask(authorizeUrl(sandbox, { state: evil, [evil]: evil })),
      await ask(authorizeUrl(sandbox, { service_id: evil + evil })),
      await ask(authorizeUrl(sandbox, { fault: evil })),
      await ask(authorizeUrl(sandbox, { seller: evil + evil })),
    ];
    assert.deepEqual(pages.map((one) => one.status), [200, 404, 400, 400]);
    for (const { text } of pages) assert.doesNotMatch(text, /<script|"">/);
    const redirect = await sandbox.approve(authorizeUrl(sandbox, {
      state: evil,
    }));
    assert.equal(new URL(redirect).searchParams.get("state"), evil);
  });
});

test("The authorize page knows its app by service_id or app_key", () =>
  withSandbox({}, async (sandbox) => {
    const { origin, appKey, serviceId } = sandbox;
    const statuses = [];
    for (
      const target of [
        `/open/authorize?service_id=${serviceId}`,
        `/open/authorize?service_id=${appKey}`,
        `/open/authorize?app_key=${appKey}`,
        `/oauth/authorize?app_key=${appKey}`,
        `/alliance/creator/auth?app_key=${appKey}`,
        `/alliance/creator/auth?service_id=${serviceId}`,
      ]
    ) {
      const page = await ask(origin + target);
      statuses.push(page.status);
      const refused = page.text.includes("This service does not exist");
      assert.equal(refused, page.status === 404, target);
    }
    assert.deepEqual(statuses, [200, 404, 404, 200, 200, 404]);
    const put = await ask(authorizeUrl(sandbox), { method: "PUT" });
    assert.equal(put.status, 405);
    assert.equal(put.headers.get("allow"), "GET, HEAD, POST");
    const undecided = await ask(authorizeUrl(sandbox), { method: "POST" });
    assert.equal(undecided.status, 400);
  }));

test("The authorize page lets the person choose the seller", async () => {
  const sellers = [
    seller(),
    seller({ openId: "two", region: "US" }),
    seller({ openId: "three", userType: 1, name: null }),
  ];
  await withSandbox({ sellers }, async (sandbox) => {
    const page = await ask(authorizeUrl(sandbox));
    const choices = (text: string) =>
      text.match(/value="(one|two)"( checked)?/g);
    assert.deepEqual(choices(page.text), [
      'value="one" checked',
      'value="two"',
    ]);
    const preselected = await ask(authorizeUrl(sandbox, { seller: "1" }));
    assert.match(preselected.text, /value="two" checked/);
    const url = authorizeUrl(sandbox);
    const redirect = new URL(await sandbox.approve(url, { seller: 1 }));
    assert.equal(redirect.searchParams.get("shop_region"), "US");
    const code = redirect.searchParams.get("code") ?? "";
    assert.match(code, /^TTP_/);
    assert.equal((await exchange(sandbox, code)).data.open_id, "two");
    const clicked = await fetch(authorizeUrl(sandbox, { seller: "0" }), {
      method: "POST",
      body: new URLSearchParams({ decision: "approve", seller: "two" }),
      redirect: "manual",
    });
    await clicked.body?.cancel();
    assert.match(clicked.headers.get("location") ?? "", /shop_region=US/);
    await assert.rejects(
      sandbox.approve(url, { seller: 9 }),
      { message: "Cannot approve: HTTP 400, This link cannot work" },
    );
  });
});

test("A seller is found by name, open_id and index everywhere", async () => {
  const sellers = [
    seller({ openId: "a", name: "1" }),
    seller({ openId: "b", name: "Łódź & Söhne" }),
    seller({ openId: "1", name: "Third" }),
  ];
  await withSandbox({ sellers }, async (sandbox) => {
    const authorized = async (which: string | number) => {
      const url = authorizeUrl(sandbox);
      const redirect = new URL(await sandbox.approve(url, { seller: which }));
      const clicked = redirect.searchParams.get("code") ?? "";
      const codes = [clicked, sandbox.issueCode(which)];
      const [one, two] = await Promise.all(
        codes.map(async (code) => (await exchange(sandbox, code)).data),
      );
      assert.equal(one.open_id, two.open_id);
      await sandbox.deauthorize(which);
      const dead = await refresh(sandbox, one.refresh_token);
      assert.equal(dead.code, 36004005);
      return one.open_id;
    };
    assert.equal(await authorized("łódź & SÖHNE"), "b");
    assert.equal(await authorized("b"), "b");
    assert.equal(await authorized("0"), "a");
    assert.equal(await authorized("Third"), "1");
    assert.equal(await authorized("1"), "1", "an open_id, then a name");
    const unknown =
      /^RangeError: No seller "Nobody" exists; there are "1", "Łó/;
    assert.throws(() => sandbox.issueCode("Nobody"), unknown);
    assert.throws(() => sandbox.deauthorize("Nobody"), unknown);
    const url = authorizeUrl(sandbox, { seller: "Nobody" });
    assert.match((await ask(url)).text, /No seller &#34;Nobody&#34; exists/);
  });
});

test("The creator's page answers with a creator", () =>
  withSandbox({}, async (sandbox) => {
    const url = withQuery(sandbox.creatorAuthorizationEndpoint, {
      app_key: sandbox.appKey,
    });
    const redirect = new URL(await sandbox.approve(url));
    assert.equal(redirect.searchParams.has("state"), false);
    const code = redirect.searchParams.get("code") ?? "";
    const { data } = await exchange(sandbox, code);
    assert.equal(data.user_type, 1);
    assert.equal(data.seller_name, null);
  }));

test("Sandbox.approve() returns the redirect with code and state", () =>
  withSandbox({}, async (sandbox) => {
    const state = "a b+c/%2F=é&~'\u{1f600}";
    const url = await sandbox.approve(authorizeUrl(sandbox, { state }));
    assert.ok(url.startsWith("http://localhost:3017/?"));
    const query = new URL(url).searchParams;
    assert.deepEqual([...query.keys()], [
      "app_key",
      "code",
      "locale",
      "shop_region",
      "state",
    ]);
    assert.equal(query.get("state"), state);
    assert.equal(query.get("app_key"), sandbox.appKey);
    assert.equal(query.get("locale"), "en");
    assert.equal(query.get("shop_region"), "GB");
    assert.equal((await exchange(sandbox, query.get("code")!)).code, 0);
  }));

test("Sandbox.approve() can deny", () =>
  withSandbox({}, async (sandbox) => {
    const url = await sandbox.approve(authorizeUrl(sandbox), { deny: true });
    assert.equal(
      url,
      "http://localhost:3017/?code=null&error=auth_denied&state=ours",
    );
  }));

test("Sandbox.approve() keeps the redirect URL's own query", () =>
  withSandbox(
    { redirectUrl: "https://example.com/back?a=b%20c&d#fragment" },
    async (sandbox) => {
      const url = await sandbox.approve(authorizeUrl(sandbox), { deny: true });
      const own = "https://example.com/back?a=b%20c&d";
      assert.equal(url, `${own}&code=null&error=auth_denied&state=ours`);
    },
  ));

test("Sandbox.approve() fails where there is nothing to click", () =>
  withSandbox({}, async (sandbox) => {
    await assert.rejects(
      sandbox.approve(authorizeUrl(sandbox, { service_id: "1" })),
      { message: "Cannot approve: HTTP 404, This service does not exist" },
    );
    sandbox.fail("authorize", "500");
    await assert.rejects(
      sandbox.approve(authorizeUrl(sandbox)),
      { message: "Cannot approve: HTTP 500, no form" },
    );
  }));

// === Token host

test("The token host replies in TikTok's shape, over 2^53 too", async () => {
  const time = 1_722_342_011_999;
  await withSandbox({ now: () => time }, async (sandbox) => {
    const reply = await exchange(sandbox, sandbox.issueCode());
    const { access_token, refresh_token, ...data } = reply.data;
    assert.equal(reply.status, 200);
    assert.equal(reply.message, "success");
    assert.match(reply.text, /"request_id":"20240730122011[0-9A-F]{20}"}$/);
    assert.match(access_token, /^ROW_/);
    assert.match(refresh_token, /^ROW_/);
    assert.equal(typeof data.auth_record_id, "number");
    assert.match(reply.text, /,"auth_record_id":7495540735365777507}/);
    delete data.auth_record_id;
    assert.ok(data.refresh_token_expire_in > 2 ** 32);
    assert.deepEqual(data, {
      access_token_expire_in: 1_722_342_011 + 604_800,
      refresh_token_expire_in: 1_722_342_011 + 3_153_600_000,
      open_id: "7010aAAAAAAQ5R2hZ0fV3kXw",
      seller_name: "Harbour & Finch",
      seller_base_region: "GB",
      user_type: 0,
      granted_scopes: [
        "seller.authorization.info",
        "seller.order.info",
        "seller.product.basic",
        "seller.shop.info",
      ],
    });
    const date = reply.headers.get("date") ?? "";
    assert.equal(Date.parse(date), 1_722_342_011_000);
  });
});

test("The token host's Date follows clockOffset", () =>
  withSandbox(
    { now: () => 1_700_000_000_000, clockOffset: -3600 },
    async (sandbox) => {
      const reply = await exchange(sandbox, sandbox.issueCode());
      assert.equal(
        Date.parse(reply.headers.get("date") ?? ""),
        1_699_996_400_000,
      );
      assert.equal(
        reply.data.access_token_expire_in,
        1_699_996_400 + 604_800,
      );
    },
  ));

test("The token host refuses a wrong app, secret, grant type or method", () =>
  withSandbox({}, async (sandbox) => {
    const code = sandbox.issueCode();
    const wrong: Record<string, string>[] = [
      { app_key: "x" },
      { app_secret: "x" },
      { grant_type: "authorization_code" },
    ];
    for (const more of wrong) {
      const reply = await exchange(sandbox, code, more);
      assert.equal(reply.status, 200);
      assert.notEqual(reply.code, 0);
      assert.match(reply.text, /^{"code":\d+,"message":"[^"]+","request_id":"/);
    }
    for (const url of [sandbox.tokenEndpoint, sandbox.refreshEndpoint]) {
      const post = await ask(url, { method: "POST", body: "{}" });
      assert.equal(post.status, 404);
      assert.match(post.headers.get("content-type") ?? "", /^text\/plain/);
    }
    assert.equal((await exchange(sandbox, code)).code, 0);
  }));

test("Sandbox.issueCode() issues codes that work once", () =>
  withSandbox({}, async (sandbox) => {
    const codes = Array.from({ length: 3 }, () => sandbox.issueCode());
    for (const code of codes) assert.match(code, /^ROW_[\w-]{32}$/);
    for (const code of codes) {
      assert.equal((await exchange(sandbox, code)).code, 0);
      const second = await exchange(sandbox, code);
      assert.equal(second.code, 36004004);
      assert.equal(second.message, "invalid auth code");
    }
    assert.throws(() => sandbox.issueCode(7), RangeError);
    assert.throws(() => sandbox.issueCode(0, "nope"), RangeError);
  }));

test("Sandbox.issueCode() issues codes that work for 30 minutes", async () => {
  let time = 1_700_000_000_000;
  await withSandbox({ now: () => time }, async (sandbox) => {
    const [early, late] = [sandbox.issueCode(), sandbox.issueCode()];
    time += 1_799_000;
    assert.equal((await exchange(sandbox, early)).code, 0);
    time += 1000;
    assert.equal((await exchange(sandbox, late)).code, 36004004);
  });
});

test("A refresh rotates the tokens but not the grant's end", async () => {
  let time = 1_700_000_000_000;
  await withSandbox(
    { now: () => time, refreshTokenLife: 1000 },
    async (sandbox) => {
      const old = await login(sandbox);
      time += 500_000;
      const { data } = await refresh(sandbox, old.refresh_token);
      assert.notEqual(data.access_token, old.access_token);
      assert.notEqual(data.refresh_token, old.refresh_token);
      assert.equal(data.refresh_token_expire_in, 1_700_001_000);
      assert.equal(data.access_token_expire_in, 1_700_000_500 + 604_800);
      const replaced = await refresh(sandbox, old.refresh_token);
      assert.equal(replaced.code, 36004005);
      const timestamp = time / 1000;
      const stale = await callApi(sandbox, old.access_token, SHOPS, {
        timestamp,
      });
      assert.equal(stale.code, 105001);
      const fresh = await callApi(sandbox, data.access_token, SHOPS, {
        timestamp,
      });
      assert.equal(fresh.code, 0);
      time += 500_000;
      const expired = await refresh(sandbox, data.refresh_token);
      assert.equal(expired.code, 36004001);
      assert.equal(expired.message, "rt has expired");
    },
  );
});

test("A refresh keeps both tokens alive where rotate is false", () =>
  withSandbox({ rotate: false }, async (sandbox) => {
    const old = await login(sandbox);
    const { data } = await refresh(sandbox, old.refresh_token);
    assert.equal(data.refresh_token, old.refresh_token);
    assert.notEqual(data.access_token, old.access_token);
    for (const token of [old.access_token, data.access_token]) {
      assert.equal((await callApi(sandbox, token, SHOPS)).code, 0);
    }
  }));

test("Sandbox.deauthorize() ends the tokens until the next login", () =>
  withSandbox({ rotate: false }, async (sandbox) => {
    const old = await login(sandbox);
    sandbox.deauthorize(String(old.open_id));
    const refused = await refresh(sandbox, old.refresh_token);
    assert.equal(refused.code, 36004005);
    const call = await callApi(sandbox, old.access_token, SHOPS);
    assert.equal(call.code, 105001);
    const again = await login(sandbox);
    assert.equal((await refresh(sandbox, again.refresh_token)).code, 0);
    assert.throws(() => sandbox.deauthorize("nobody"), RangeError);
  }));

test("startSandbox() delays token replies by latency", () =>
  withSandbox({ latency: 60 }, async (sandbox) => {
    const start = performance.now();
    await login(sandbox);
    assert.ok(performance.now() - start >= 55);
  }));

// === Signed API

const VECTOR = {
  appKey: "29a39d",
  appSecret: "e59af819cc",
  now: () => 1_623_812_664_000,
};
const TOKEN_HEADER =
  "Invalid credentials. The `x-tts-access-token` header is invalid.";
const VECTOR_SIGN =
  "b596b73e0cc6de07ac26f036364178ab16b0a907af13d43f0a0cd2345f582dc8";

test("The API accepts the signature of the official guide", () =>
  withSandbox(VECTOR, async (sandbox) => {
    const headers = {
      "x-tts-access-token": (await login(sandbox)).access_token,
    };
    const url = `${sandbox.origin}${SHOPS}?timestamp=1623812664` +
      "&app_key=29a39d&sign=";
    const right = await ask(url + VECTOR_SIGN, { headers });
    assert.equal(right.code, 0);
    const wrong = await ask(url + VECTOR_SIGN.replace("b", "c"), { headers });
    assert.equal(wrong.code, 106001);
    assert.equal(wrong.status, 401);
    const missing = await ask(url.replace("&sign=", ""), { headers });
    assert.equal(missing.code, 36009004);
  }));

test("The API leaves access_token out of the signature", () =>
  withSandbox(
    {
      appKey: "12abcd",
      appSecret: "123",
      now: () => 1_600_000_000_000,
      routes: { "GET /api/shop/get_authorized_shop": { data: {} } },
    },
    async (sandbox) => {
      const sign =
        "f0f368ecacccb0839e5291d375f9171e1ab93b65fb2bc4ece556e1f42466249f";
      const query = {
        app_key: "12abcd",
        timestamp: "1600000000",
        access_token: "abc1c123-3128-aa17-125e-2d2d51ab814fa",
        sign,
      };
      const url = `${sandbox.origin}/api/shop/get_authorized_shop`;
      const right = await ask(withQuery(url, query));
      assert.equal(right.message, TOKEN_HEADER);
      const wrong = await ask(withQuery(url, { ...query, sign: "00" }));
      assert.equal(wrong.code, 106001);
    },
  ));

test("The API signs decoded values and the exact body, except multipart", () =>
  withSandbox({}, async (sandbox) => {
    const { access_token: token } = await login(sandbox);
    const echoed = await callApi(sandbox, token, ECHO, {
      method: "PUT",
      query: { zeta: "a b+c/é", Alpha: "&=%2F" },
      headers: { "content-type": "application/json" },
      body: '{ "a": "é" }\n',
    });
    assert.equal(echoed.code, 0);
    const { app_key, timestamp, ...query } = echoed.data.query;
    assert.equal(app_key, sandbox.appKey);
    assert.match(timestamp, /^\d+$/);
    assert.deepEqual({ ...echoed.data, query }, {
      method: "PUT",
      path: ECHO,
      query: { zeta: "a b+c/é", Alpha: "&=%2F" },
      body: '{ "a": "é" }\n',
      content_type: "application/json",
    });
    const multipart = await callApi(sandbox, token, ECHO, {
      method: "POST",
      headers: { "content-type": "multipart/form-data; boundary=x" },
      body: "--x--",
    });
    assert.equal(multipart.code, 0);
    const post = await callApi(sandbox, token, ECHO, { method: "POST" });
    assert.equal(post.data.body, "");
  }));

test("The API checks app_key and the clock, -5 min to +30 s", () =>
  withSandbox(
    { now: () => 1_700_000_000_000, clockOffset: 100 },
    async (sandbox) => {
      const { access_token: token } = await login(sandbox);
      const code = async (call: ApiCall) =>
        (await callApi(sandbox, token, SHOPS, call)).code;
      const time = 1_700_000_100;
      assert.equal(await code({ timestamp: time - 300 }), 0);
      assert.equal(await code({ timestamp: time - 301 }), 36009004);
      assert.equal(await code({ timestamp: time + 30 }), 0);
      assert.equal(await code({ timestamp: time + 31 }), 36009004);
      assert.equal(await code({ query: { timestamp: "" } }), 36009004);
      const query = { app_key: "x" };
      assert.equal(await code({ timestamp: time, query }), 36009004);
    },
  ));

test("The API tells an unknown, a missing and an expired token", async () => {
  let time = 1_700_000_000_000;
  await withSandbox(
    { now: () => time, accessTokenLife: 60 },
    async (sandbox) => {
      const { access_token: token } = await login(sandbox);
      const timestamp = time / 1000;
      const unknown = await callApi(sandbox, "x", SHOPS, { timestamp });
      assert.deepEqual(
        [unknown.status, unknown.code, unknown.message],
        [401, 36009004, TOKEN_HEADER],
      );
      assert.equal(
        (await callApi(sandbox, token, SHOPS, { timestamp })).code,
        0,
      );
      time += 60_000;
      const expired = await callApi(sandbox, token, SHOPS, { timestamp });
      assert.deepEqual([expired.status, expired.code], [401, 105002]);
    },
  );
  await withSandbox(VECTOR, async (sandbox) => {
    const missing = await ask(withQuery(sandbox.origin + SHOPS, {
      app_key: VECTOR.appKey,
      timestamp: "1623812664",
      sign: VECTOR_SIGN,
    }));
    assert.deepEqual([missing.status, missing.message], [401, TOKEN_HEADER]);
  });
});

test("The API lists all shops and wants no shop_cipher there", () =>
  withSandbox({}, async (sandbox) => {
    const { access_token: token } = await login(sandbox);
    const { data } = await callApi(sandbox, token, SHOPS);
    assert.equal(data.shops.length, 3);
    assert.deepEqual(Object.keys(data.shops[0]), [
      "cipher",
      "code",
      "id",
      "name",
      "region",
      "seller_type",
    ]);
    assert.ok(BigInt(data.shops[0].id) > 2n ** 53n);
    const query = { shop_cipher: data.shops[0].cipher };
    const refused = await callApi(sandbox, token, SHOPS, { query });
    assert.equal(refused.code, 36009004);
    assert.match(refused.message, /shop_cipher/);
  }));

test("The API pages through orders of one shop", () =>
  withSandbox({}, async (sandbox) => {
    const { access_token: token } = await login(sandbox);
    const { data } = await callApi(sandbox, token, SHOPS);
    const search = (query: Record<string, string>, body = "{}") =>
      callApi(sandbox, token, ORDERS, { method: "POST", query, body });
    assert.equal((await search({})).code, 106013);
    assert.equal((await search({ shop_cipher: "x" })).code, 36009004);
    const shop_cipher = data.shops[1].cipher;
    const ids = new Set<string>();
    let page_token = "";
    let pages = 0;
    do {
      const reply = await search({ shop_cipher, page_size: "10", page_token });
      for (const order of reply.data.orders) ids.add(order.id);
      assert.equal(reply.data.total_count, 25);
      page_token = reply.data.next_page_token;
      pages += 1;
    } while (page_token !== "");
    assert.deepEqual([ids.size, pages], [25, 3]);
    const wrong: Record<string, string>[] = [{ page_size: "0" }, {
      page_size: "x",
    }, { page_token: "x" }];
    for (const more of wrong) {
      assert.equal((await search({ shop_cipher, ...more })).code, 36009004);
    }
    assert.equal((await search({ shop_cipher }, "{")).code, 36009004);
    assert.equal((await search({ shop_cipher }, "")).data.orders.length, 20);
  }));

test("The API tells an unknown path, method, version and scope", async () => {
  const partner = seller({
    openId: "two",
    userType: 3,
    shops: [{
      cipher: "c",
      code: "p",
      id: "1",
      name: "P",
      region: "DE",
      seller_type: "LOCAL",
    }],
  });
  const sellers = [seller({ scopes: [] }), partner];
  await withSandbox({ sellers }, async (sandbox) => {
    const { access_token: token } = await login(sandbox);
    const answer = async (path: string, method = "GET") => {
      const { status, code } = await callApi(sandbox, token, path, { method });
      return [status, code];
    };
    const assets = "/authorization/202405/category_assets";
    assert.deepEqual(await answer("/nope"), [404, 36009009]);
    assert.deepEqual(await answer("/echo/202309/"), [404, 36009009]);
    assert.deepEqual(await answer(SHOPS, "POST"), [400, 36009010]);
    assert.deepEqual(
      await answer(SHOPS.replace("202309", "202001")),
      [400, 36009014],
    );
    assert.deepEqual(await answer(SHOPS), [401, 105005]);
    assert.deepEqual(await answer(assets), [401, 105005]);
    const other = await exchange(sandbox, sandbox.issueCode(1));
    const reply = await callApi(sandbox, other.data.access_token, assets);
    assert.deepEqual(reply.data.category_assets, [
      {
        cipher: "c",
        target_market: "DE",
        category: { id: 600001, name: "Home Supplies" },
      },
    ]);
  });
});

// === Faults

/** What each fault does to an exchange that would succeed. */
const AT_TOKEN: Record<string, (reply: Answer) => void> = {
  "expired-code": (reply) => assert.equal(reply.code, 36004004),
  "invalid-code": (reply) => assert.equal(reply.code, 36004004),
  "deauthorized": (reply) => assert.equal(reply.code, 36004005),
  "internal-error": (reply) => assert.equal(reply.code, 36009003),
  "timeout-error": (reply) => assert.equal(reply.code, 36009007),
  "ip-not-allowed": (reply) => {
    assert.equal(reply.code, 36009033);
    assert.match(reply.message, /IP allow list/);
  },
  "echo-secret": (reply) => {
    assert.notEqual(reply.code, 0);
    assert.match(reply.message, /app_secret=[0-9a-f]{40}/);
  },
  "no-token": (reply) => {
    assert.equal(reply.code, 0);
    assert.equal("access_token" in reply.data, false);
  },
  "no-refresh-token": (reply) => {
    assert.equal(reply.code, 0);
    assert.equal("refresh_token" in reply.data, false);
  },
  "no-expiry": (reply) => {
    assert.equal(reply.code, 0);
    assert.doesNotMatch(reply.text, /expire_in/);
  },
  "wrong-types": (reply) => {
    assert.equal(reply.code, 0);
    assert.equal(reply.data.access_token, 12345);
    assert.equal(reply.data.granted_scopes, "all");
  },
  "rate-limit": (reply) => {
    assert.equal(reply.status, 429);
    assert.equal(reply.headers.get("retry-after"), "1");
  },
  "html": (reply) => {
    assert.equal(reply.status, 200);
    assert.match(reply.headers.get("content-type") ?? "", /^text\/html/);
  },
  "text-404": (reply) => assert.equal(reply.status, 404),
  "500": (reply) => assert.equal(reply.status, 500),
  "503": (reply) => assert.equal(reply.status, 503),
  "empty": (reply) => {
    assert.equal(reply.status, 200);
    assert.equal(reply.text, "");
  },
  "truncated-json": (reply) => {
    assert.equal(reply.status, 200);
    assert.match(reply.text, /^{"code":0,/);
    assert.throws(() => JSON.parse(reply.text));
  },
  "redirect": (reply) => {
    assert.equal(reply.status, 302);
    assert.match(reply.headers.get("location") ?? "", /:\d+\/stolen$/);
  },
  "huge": (reply) => {
    assert.ok(reply.text.length > 2 ** 21);
    assert.equal(reply.code, 0);
  },
  "clock": (reply) => {
    const date = Date.parse(reply.headers.get("date") ?? "");
    assert.equal(date, 1_700_003_600_000);
    assert.equal(reply.data.access_token_expire_in, 1_700_000_000 + 604_800);
  },
};

for (const [fault, check] of Object.entries(AT_TOKEN)) {
  test(`Fault "${fault}" spoils one exchange`, () =>
    withSandbox({ now: () => 1_700_000_000_000 }, async (sandbox) => {
      sandbox.fail("token", fault as SandboxFault);
      check(await exchange(sandbox, sandbox.issueCode()));
      const next = await exchange(sandbox, sandbox.issueCode());
      assert.equal(next.code, 0);
      assert.equal("access_token" in next.data, true);
      assert.deepEqual(
        sandbox.requests.map((one) => one.faults.length),
        [1, 0],
      );
    }));
}

/** What each fault does to the redirect after Approve. */
const AT_REDIRECT: Record<string, (query: URLSearchParams) => void> = {
  "deny": (query) => assert.equal(query.get("error"), "auth_denied"),
  "wrong-state": (query) => {
    assert.equal(query.getAll("state").length, 1);
    assert.notEqual(query.get("state"), "ours");
  },
  "missing-state": (query) => {
    assert.equal(query.has("state"), false);
    assert.equal(query.has("code"), true);
  },
  "duplicate-parameters": (query) => {
    assert.equal(query.getAll("code").length, 2);
    assert.deepEqual(query.getAll("state"), ["ours", "ours"]);
  },
  "no-code": (query) => {
    assert.equal(query.has("code"), false);
    assert.equal(query.get("state"), "ours");
  },
  "auth_code": (query) => {
    assert.equal(query.has("code"), false);
    assert.match(query.get("auth_code") ?? "", /^ROW_/);
  },
  "awkward-code": (query) =>
    assert.match(query.get("code") ?? "", /(\+\/==|%2Fx)$/),
  "other-error": (query) =>
    assert.equal(query.toString(), "error=server_error&state=ours"),
};

for (const [fault, check] of Object.entries(AT_REDIRECT)) {
  test(`Fault "${fault}" spoils the redirect`, () =>
    withSandbox({}, async (sandbox) => {
      check(await redirectOf(sandbox, fault as SandboxFault));
      sandbox.fail("authorize", fault as SandboxFault);
      check(await redirectOf(sandbox));
      const good = await redirectOf(sandbox);
      assert.equal(good.get("state"), "ours");
      assert.equal((await exchange(sandbox, good.get("code")!)).code, 0);
    }));
}

test('Fault "awkward-code" makes code and tokens hard to encode', () =>
  withSandbox({}, async (sandbox) => {
    const codes = [1, 2].map(() => sandbox.issueCode(0, "awkward-code"));
    for (const code of codes) {
      const twice = decodeURIComponent(code).replaceAll("+", " ");
      assert.equal((await exchange(sandbox, twice)).code, 36004004);
      const { data } = await exchange(sandbox, code);
      const tokens = data.access_token + data.refresh_token;
      assert.match(tokens, /\+\/==|%2Fx/);
      const again = await refresh(sandbox, data.refresh_token);
      assert.match(again.data.refresh_token, /(\+\/==|%2Fx)$/);
    }
  }));

/** Faults that need a test of their own. */
const ELSEWHERE = [
  "rotated-refresh",
  "expired-refresh",
  "dropped",
  "truncated",
  "never",
  "slow",
];

test("SANDBOX_FAULTS lists the faults tested here, and no other", () => {
  const tested = [
    ...Object.keys(AT_TOKEN),
    ...Object.keys(AT_REDIRECT),
    ...ELSEWHERE,
  ];
  assert.deepEqual([...SANDBOX_FAULTS].sort(), tested.sort());
});

test('Faults "dropped" and "truncated" break the connection', () =>
  withSandbox({}, async (sandbox) => {
    sandbox.fail("token", "dropped");
    const code = sandbox.issueCode();
    await assert.rejects(exchange(sandbox, code));
    sandbox.fail("api", "truncated");
    const response = await fetch(sandbox.origin + SHOPS);
    const length = Number(response.headers.get("content-length"));
    assert.ok(length > 40);
    await assert.rejects(response.text());
    // A request that was dropped was not handled: it is safe to repeat.
    assert.equal((await exchange(sandbox, code)).code, 0);
  }));

test('Faults "never" and "slow" keep the client waiting', () =>
  withSandbox({}, async (sandbox) => {
    sandbox.fail("api", "never");
    sandbox.fail("api", "slow");
    for (let i = 0; i < 2; i++) {
      const abort = new AbortController();
      const { signal } = abort;
      const asked = fetch(sandbox.origin + SHOPS, { signal });
      while (sandbox.requests.length === i) await new Promise(setImmediate);
      abort.abort();
      await assert.rejects(asked);
    }
    assert.deepEqual(
      sandbox.requests.map((one) => one.faults[0]),
      ["never", "slow:2000"],
    );
    sandbox.fail("token", "slow:60");
    const start = performance.now();
    await login(sandbox);
    assert.ok(performance.now() - start >= 55);
  }));

test('Fault "clock" takes seconds', () =>
  withSandbox({ now: () => 1_700_000_000_000 }, async (sandbox) => {
    sandbox.fail("refresh", "clock:-600");
    const reply = await refresh(sandbox, "x");
    assert.equal(
      Date.parse(reply.headers.get("date") ?? ""),
      1_699_999_400_000,
    );
  }));

test('Fault "redirect" shows who follows it', () =>
  withSandbox({}, async (sandbox) => {
    sandbox.fail("refresh", "redirect");
    const { headers } = await refresh(sandbox, "x");
    assert.equal(sandbox.count("/stolen"), 0);
    await ask(headers.get("location")!);
    assert.equal(sandbox.count("/stolen"), 1);
  }));

test('Faults "rotated-refresh" and "expired-refresh" spoil a refresh', () =>
  withSandbox({}, async (sandbox) => {
    const { refresh_token: token } = await login(sandbox);
    sandbox.fail("refresh", "rotated-refresh");
    assert.equal((await refresh(sandbox, token)).code, 36004005);
    sandbox.fail("refresh", "expired-refresh");
    assert.equal((await refresh(sandbox, token)).code, 36004001);
    assert.equal((await refresh(sandbox, token)).code, 0);
    // Given with the code, they last as long as the grant.
    const spoilt = await login(sandbox, "expired-refresh");
    for (let i = 0; i < 2; i++) {
      const reply = await refresh(sandbox, spoilt.refresh_token);
      assert.equal(reply.code, 36004001);
    }
  }));

test('Fault "no-refresh-token" leaves the old refresh token alive', () =>
  withSandbox({}, async (sandbox) => {
    const { refresh_token: token } = await login(sandbox);
    sandbox.fail("refresh", "no-refresh-token");
    const reply = await refresh(sandbox, token);
    assert.equal("refresh_token" in reply.data, false);
    const access = reply.data.access_token;
    assert.equal((await callApi(sandbox, access, SHOPS)).code, 0);
    assert.equal((await refresh(sandbox, token)).code, 0);
  }));

test("Faults of the API come with a status and TikTok's code", () =>
  withSandbox({}, async (sandbox) => {
    const { access_token: token } = await login(sandbox);
    const expected: [SandboxFault, number, number][] = [
      ["deauthorized", 401, 105001],
      ["internal-error", 400, 36009003],
      ["timeout-error", 400, 36009007],
      ["ip-not-allowed", 400, 36009033],
      ["rate-limit", 429, 36009002],
    ];
    for (const [fault, status, code] of expected) {
      sandbox.fail("api", fault);
      const reply = await callApi(sandbox, token, SHOPS);
      assert.deepEqual([reply.status, reply.code], [status, code], fault);
    }
    sandbox.fail("api", "echo-secret");
    const echoed = await callApi(sandbox, token, SHOPS);
    assert.match(echoed.message, /sign=[0-9a-f]{64}/);
    assert.ok(echoed.message.includes(token));
    assert.equal((await callApi(sandbox, token, SHOPS)).code, 0);
  }));

test("A fault in the link is remembered until the exchange", () =>
  withSandbox({}, async (sandbox) => {
    const page = await ask(authorizeUrl(sandbox, { fault: "html,slow" }));
    assert.match(page.text, /Faults to come: html, slow:2000/);
    const query = await redirectOf(sandbox, "html");
    const code = query.get("code")!;
    const spoilt = await exchange(sandbox, code);
    assert.match(spoilt.headers.get("content-type") ?? "", /^text\/html/);
    assert.equal((await exchange(sandbox, code)).code, 0);
    sandbox.fail("authorize", "expired-code");
    const expired = (await redirectOf(sandbox)).get("code")!;
    assert.equal((await exchange(sandbox, expired)).code, 36004004);
    assert.equal((await exchange(sandbox, expired)).code, 36004004);
  }));

test("Faults by comma come one after the other", () =>
  withSandbox({}, async (sandbox) => {
    const code = sandbox.issueCode(0, "slow:30,503,internal-error");
    const start = performance.now();
    assert.equal((await exchange(sandbox, code)).status, 503);
    assert.ok(performance.now() - start >= 25);
    assert.equal((await exchange(sandbox, code)).code, 36009003);
    assert.equal((await exchange(sandbox, code)).code, 0);
  }));

test("startSandbox() spoils every authorization with its fault", () =>
  withSandbox({ fault: "missing-state,500" }, async (sandbox) => {
    for (let i = 0; i < 2; i++) {
      const query = await redirectOf(sandbox);
      assert.equal(query.has("state"), false);
      assert.equal((await exchange(sandbox, query.get("code")!)).status, 500);
    }
    const code = sandbox.issueCode();
    assert.equal((await exchange(sandbox, code)).status, 500);
  }));

test("Sandbox.fail() repeats a fault as often as told", () =>
  withSandbox({}, async (sandbox) => {
    sandbox.fail("token", "503", 2);
    sandbox.fail("token", "html");
    const statuses = [];
    for (let i = 0; i < 4; i++) {
      statuses.push((await exchange(sandbox, "x")).status);
    }
    assert.deepEqual(statuses, [503, 503, 200, 200]);
    sandbox.fail("refresh", "500", Infinity);
    for (let i = 0; i < 3; i++) {
      assert.equal((await refresh(sandbox, "x")).status, 500);
    }
  }));

test("Sandbox.fail() rejects what cannot happen", () =>
  withSandbox({}, (sandbox) => {
    const wrong: [string, string, number][] = [
      ["token", "nope", 1],
      ["token", "html:5", 1],
      ["token", "slow:-1", 1],
      ["token", "slow:99999999999", 1],
      ["token", "toString", 1],
      ["token", "deny", 1],
      ["refresh", "expired-code", 1],
      ["api", "no-token", 1],
      ["token", "html", 0],
      ["nowhere", "html", 1],
    ];
    for (const [where, fault, times] of wrong) {
      const fail = () =>
        sandbox.fail(where as SandboxWhere, fault as SandboxFault, times);
      assert.throws(fail, RangeError, `${where} ${fault}`);
    }
    const unknown = () => sandbox.fail("token", "nope" as SandboxFault);
    assert.throws(unknown, /Unknown fault "nope"; known are .*deny.*clock/);
    return Promise.resolve();
  }));

test("The server survives odd requests", () =>
  withSandbox({}, async (sandbox) => {
    const status = await rawStatus(sandbox.port, "GET *");
    assert.match(status, /^HTTP\/1\.1 400/);
    const broken = connect(sandbox.port, "127.0.0.1");
    broken.write(
      "POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nab",
    );
    while (sandbox.count("/x") === 0) await new Promise(setImmediate);
    broken.destroy();
    assert.equal((await exchange(sandbox, sandbox.issueCode())).code, 0);
  }));

async function rawStatus(port: number, start: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.write(
    `${start} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`,
  );
  const [chunk] = await once(socket, "data");
  socket.destroy();
  return String(chunk);
}
