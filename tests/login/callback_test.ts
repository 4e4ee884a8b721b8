/** The callback: its listeners, its gate, its answers and its end. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { Buffer } from "node:buffer";
import { connect, createServer, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { runInNewContext } from "node:vm";
import {
  FlowState,
  login,
  memoryStore,
  parseRedirect,
  startAuth,
  type StartAuthOptions,
  TikTokShopError,
  type TokenLock,
} from "../../mod.ts";
import { type Sandbox, startSandbox } from "../../scripts/sandbox.ts";
import {
  afterTimeout,
  allDropped,
  appOf,
  assertSafe,
  assertWaits,
  dropSockets,
  exchangeRaw,
  type HeldSocket,
  holdSockets,
  type Login,
  type LoginSetup,
  loginTest,
  LOOPBACKS,
  portClosed,
  type RawAnswer,
  type RawRequest,
  rawRequest,
  type Shown,
  startLogin,
  targetOf,
  until,
} from "../support/callback_helpers.ts";
import { makeCertificate } from "../support/certificate.ts";
import {
  type Ended,
  freePort,
  isListening,
  ON_DENO,
  programCommand,
  ROOT,
  type Running,
  runtimeCommand,
  start,
  temporaryFolder,
} from "../support/helpers.ts";
import { cpuTime, within } from "../support/timing.ts";
import { failure } from "../support/token_host.ts";

// === Helpers

/** Opens a URL like a browser does. */
async function show(
  url: URL | string,
  headers: Record<string, string> = {},
): Promise<Shown> {
  const response = await fetch(url, { headers });
  const { status } = response;
  return { status, headers: response.headers, page: await response.text() };
}

/** A login whose exchange waits until the test lets it go. */
async function pausedLogin(
  run: (login: Login, goOn: () => void) => Promise<unknown>,
  setup: LoginSetup = {},
): Promise<void> {
  const { promise, resolve } = deferred();
  const paused: typeof fetch = async (...call) => {
    await promise;
    return await fetch(...call);
  };
  const login = await startLogin({ ...setup, fetch: paused });
  try {
    await run(login, resolve);
  } finally {
    resolve();
    await login.end();
  }
}

/** A promise that the test fulfils. */
function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => resolve = done);
  return { promise, resolve };
}

/** Listens on an address like another program would. */
async function occupy(
  host: string,
  port: number,
): Promise<{ close: () => Promise<void> }> {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port, ipv6Only: true }, resolve);
  });
  return { close: () => new Promise((done) => server.close(() => done())) };
}

const MODULE = pathToFileURL(join(ROOT, "mod.ts")).href;

/** Why no network namespace can be made here, or false. */
const NO_NAMESPACES = spawnSync("unshare", ["-n", "ip", "link"]).status !== 0 &&
  "this needs unshare(1), ip(8) and the right to make a network";

// === The page for a slow exchange

// It takes over 15 seconds, so it runs beside all other tests: the first one
// starts it, the last one looks at it.
let slowLogin: Promise<SlowLogin>;

interface SlowLogin {
  shown: Shown;
  took: number;
  name: unknown;
}

function startSlowLogin(): Promise<SlowLogin> {
  return slowLogin ??= new Promise((resolve, reject) =>
    pausedLogin(async (login, goOn) => {
      const redirect = await login.redirect();
      const began = performance.now();
      const shown = await show(redirect);
      const took = performance.now() - began;
      assert.equal(login.flow.state, 2);
      goOn();
      const name = (await login.flow.reply).data.seller_name;
      resolve({ shown, took, name });
    }).catch(reject)
  );
}

// === Listening

loginTest(
  "startAuth() listens on 127.0.0.1 and [::1] and on nothing else",
  {},
  async ({ flow: { port } }) => {
    startSlowLogin().catch(() => {}); // the last test tells
    for (const host of LOOPBACKS) assert.ok(await isListening(port, host));
    const others = Object.values(networkInterfaces()).flat()
      .filter((one) => one && !one.internal && !one.address.startsWith("fe80"))
      .map((one) => one!.address);
    if (process.platform === "linux") others.push("127.0.0.2");
    for (const host of others) {
      assert.equal(await isListening(port, host), false, host);
    }
  },
);

for (const host of ["localhost", "127.0.0.1", "[::1]"]) {
  loginTest(
    `startAuth() takes the redirect at ${host}`,
    {},
    async (login) => {
      const redirect = await login.redirect();
      redirect.hostname = host;
      assert.equal((await show(redirect)).status, 200);
      assert.equal((await login.flow.reply).message, "success");
    },
  );
}

test("startAuth() takes no port that another program has on [::1]", async () => {
  const [first, second] = await twoPorts();
  const other = await occupy("::1", first);
  try {
    const error = await failure(startLogin({ port: first }));
    assert.equal(error.kind, "port_in_use");
    assert.ok(error.message.includes(`[::1]:${first}: in use`), error.message);
    assert.equal(await isListening(first, "127.0.0.1"), false);
    const login = await startLogin({ port: `${first}-${second}` });
    try {
      assert.equal(login.flow.port, second);
      assert.deepEqual(login.warnings, []);
      await assertWaits(login);
    } finally {
      await login.end();
    }
  } finally {
    await other.close();
  }
});

test("startAuth() goes on without [::1] for the host 127.0.0.1", async () => {
  const port = await freePort();
  const other = await occupy("::1", port);
  const redirectUrl = `http://127.0.0.1:${port}/`;
  const setup = { port, host: "127.0.0.1" as const, sandbox: { redirectUrl } };
  const login = await startLogin(setup);
  try {
    assert.equal(login.flow.redirectUrl, redirectUrl);
    assert.deepEqual(login.warnings, []);
    await assertWaits(login);
  } finally {
    await login.end();
    await other.close();
  }
});

test("startAuth() goes on with 127.0.0.1 on a machine without [::1]", {
  skip: NO_NAMESPACES,
}, async () => {
  const script = `import { startAuth } from ${JSON.stringify(MODULE)};
const flow = await startAuth({ appKey: "a1", appSecret: "b", serviceId: "1" });
console.log("listens on", flow.port);
flow.cancel();`;
  const folder = await temporaryFolder();
  try {
    const file = join(folder.path, "library.mjs");
    await writeFile(file, script);
    // A new network has loopback addresses only once its device is up.
    const up = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; " +
      'ip link set lo up; exec "$@"';
    const command = ["unshare", "-n", "sh", "-c", up, "sh"];
    const { ended } = start([...command, ...runtimeCommand(file)]);
    const { stdout, stderr } = await ended;
    assert.match(stdout, /listens on 3017/, stderr);
  } finally {
    await folder[Symbol.asyncDispose]();
  }
});

/** Two adjacent ports, both free a moment ago. */
async function twoPorts(): Promise<[number, number]> {
  for (;;) {
    const first = await freePort();
    if (await freePort() === first + 1) return [first, first + 1];
  }
}

test("startAuth() takes the first free port of a range", async () => {
  const [first, second] = await twoPorts();
  const other = await occupy("127.0.0.1", first);
  const login = await startLogin({ port: `${first}-${second}` });
  try {
    assert.equal(login.flow.port, second);
    assert.equal(login.flow.redirectUrl, `http://localhost:${second}/`);
    await assertWaits(login);
  } finally {
    await login.end();
    await other.close();
  }
});

test("startAuth() names the ports that are in use", async () => {
  const [first, second] = await twoPorts();
  const others = [
    await occupy("127.0.0.1", first),
    await occupy("127.0.0.1", second),
  ];
  try {
    const one = await failure(startLogin({ port: first }));
    assert.equal(one.kind, "port_in_use");
    assert.ok(one.message.includes(`127.0.0.1:${first}: in use`), one.message);
    assert.match(one.hint!, /pass its port/);
    const range = `${first}-${second}`;
    const both = await failure(startLogin({ port: range }));
    assert.equal(both.kind, "port_in_use");
    assert.ok(both.message.includes(`from ${first} to ${second}`));
    assert.equal(await isListening(first, "::1"), false);
  } finally {
    for (const other of others) await other.close();
  }
});

test("startAuth() refuses wrong settings before it listens", async () => {
  const wrong: [Partial<StartAuthOptions>, typeof TypeError][] = [
    ...[0, -1, 65536, "", "x", "3017-", "3020-3017", "1-99999", 3017.5]
      .map((port) => [{ port }, RangeError] as [object, typeof TypeError]),
    ...[0, -1, "x", "5 m", "25d", NaN]
      .map((timeout) =>
        [{ timeout }, RangeError] as [
          object,
          typeof TypeError,
        ]
      ),
    [{ host: "0.0.0.0" as "localhost" }, TypeError],
    [{ path: "callback" }, TypeError],
    [{ path: "/a?b" }, TypeError],
    [{ redirectUrl: "http://shop.example.com/" }, TypeError],
    [{ appKey: "" }, TypeError],
    [{ appSecret: "two words" }, TypeError],
    [{ serviceId: "abc" }, TypeError],
  ];
  const sandbox = await startSandbox();
  try {
    for (const [options, type] of wrong) {
      const all = { ...appOf(sandbox), port: await freePort(), ...options };
      await assert.rejects(startAuth(all), type, JSON.stringify(options));
    }
  } finally {
    await sandbox.stop();
  }
});

/** Ports that browsers refuse, by the Fetch standard. */
const BAD_PORTS = [
  ...[1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69],
  ...[77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119],
  ...[123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515],
  ...[526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990],
  ...[993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000],
  ...[6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080],
];

test("startAuth() refuses the ports that browsers refuse", async () => {
  const wrong: Partial<StartAuthOptions>[] = [
    ...BAD_PORTS.map((port) => ({ port })),
    { port: "6000" },
    { port: "5999-6001" },
    { port: "10070-10090" },
    { redirectUrl: "http://localhost:6000/" },
    { redirectUrl: "https://shop.example.com:10080/" },
  ];
  const app = { appKey: "a1", appSecret: "b", serviceId: "1" };
  for (const options of wrong) {
    await assert.rejects(startAuth({ ...app, ...options }), {
      name: "RangeError",
      message: /Cannot use port \d+: browsers refuse/,
    }, JSON.stringify(options));
  }
});

test("Every port that fetch() refuses is refused by startAuth()", {
  skip: ON_DENO && "Deno's fetch refuses no port",
}, async () => {
  for (const port of BAD_PORTS) {
    const error = await fetch(`http://127.0.0.1:${port}/`)
      .catch((error) => error);
    assert.equal(error.cause?.message, "bad port", `${port}`);
  }
});

test("startAuth() keeps two logins apart", async () => {
  const [one, two] = [await startLogin(), await startLogin()];
  try {
    const strayed = await one.redirect();
    strayed.port = String(two.flow.port);
    assert.equal((await show(strayed)).status, 400);
    assert.notEqual(one.flow.url, two.flow.url);
    await assertWaits(two);
    await assertWaits(one);
  } finally {
    await one.end();
    await two.end();
  }
});

loginTest(
  "startAuth() takes the redirect at the path of its options",
  { path: "/shop/callback" },
  async (login) => {
    const { port, redirectUrl } = login.flow;
    assert.equal(redirectUrl, `http://localhost:${port}/shop/callback`);
    const redirect = await login.redirect();
    redirect.pathname = "/shop/callback";
    assert.equal((await show(redirect)).status, 200);
    await login.flow.reply;
  },
);

for (const path of ["/", "/shop", "/shop/callback/", "/%2f", "/favicon.ico"]) {
  loginTest(
    `startAuth() takes its own state on the path ${path}`,
    { path: "/shop/callback" },
    async (login) => {
      const redirect = await login.redirect();
      redirect.pathname = path;
      const { status, page } = await show(redirect);
      assert.equal(status, 200);
      assert.match(page, /<main class="success">/);
      assert.equal((await login.flow.reply).code, 0);
      assert.deepEqual(login.warnings, []);
    },
  );
}

loginTest(
  "startAuth() tells once of a code without state on another path",
  { allowMissingState: true },
  async (login) => {
    const redirect = await login.changed({ state: null });
    for (const path of ["/callback", "/other", "/callback"]) {
      redirect.pathname = path;
      const { status, headers, page } = await show(redirect);
      assert.equal(status, 404);
      assert.match(page, /<main class="missing">/);
      assertSafe(headers, path);
    }
    assert.equal(login.warnings.length, 1);
    assert.match(login.warnings[0]!, /another path/);
    assert.ok(login.warnings[0]!.includes(login.flow.redirectUrl));
    await assertWaits(login);
  },
);

for (const query of ["", "?error=x", "?code=", "?code=C&state=foreign"]) {
  loginTest(
    `startAuth() shows a page for "/other${query}", and tells nothing`,
    {},
    async (login) => {
      const shown = await show(`${login.flow.redirectUrl}other${query}`);
      assert.equal(shown.status, 404);
      assert.match(shown.page, /<main class="missing">/);
      assert.deepEqual(login.warnings, []);
      await assertWaits(login);
    },
  );
}

loginTest(
  "startAuth() tells once of a redirect of its own for another host",
  {},
  async (login) => {
    const { port, redirectUrl } = login.flow;
    const target = targetOf(await login.redirect());
    for (const host of ["shop.test", `localhost:${port + 1}`, "two words"]) {
      const answer = await exchangeRaw(
        port,
        rawRequest(port, { target, host }),
      );
      assert.equal(answer.status, 421);
      assertSafe(answer.headers, host);
    }
    assert.equal(login.warnings.length, 1);
    assert.match(login.warnings[0]!, /another host or port/);
    assert.ok(login.warnings[0]!.includes(redirectUrl));
    await assertWaits(login);
  },
);

for (const name of ["code", "state", "locale"]) {
  loginTest(
    `startAuth() tells of its own redirect that gives "${name}" twice`,
    {},
    async (login) => {
      const redirect = await login.redirect();
      redirect.searchParams.append(name, "other");
      const { status, page } = await show(redirect);
      assert.equal(status, 400);
      assert.match(page, /gives a parameter twice/);
      assert.equal((await show(redirect)).status, 400);
      assert.equal(login.warnings.length, 1);
      assert.match(login.warnings[0]!, /gives a parameter twice/);
      await assertWaits(login);
    },
  );
}

loginTest(
  "startAuth() takes a redirect with 100 KiB of cookies",
  {},
  async (login) => {
    const { port } = login.flow;
    const target = targetOf(await login.redirect());
    // Deno's own limit is 64 KiB.
    const size = (ON_DENO ? 60 : 100) << 10;
    const headers = { Cookie: `a=${"b".repeat(size)}` };
    const bytes = rawRequest(port, { target, headers });
    assert.equal((await exchangeRaw(port, bytes)).status, 200);
    await login.flow.reply;
  },
);

loginTest(
  "startAuth() tells of headers that are too large",
  {},
  async (login) => {
    const { port } = login.flow;
    const target = targetOf(await login.redirect());
    const headers = { Cookie: `a=${"b".repeat(300 << 10)}` };
    const bytes = rawRequest(port, { target, headers });
    const answer = await exchangeRaw(port, bytes);
    if (ON_DENO) { // it answers by itself, and reports nothing
      assert.ok([400, 431].includes(answer.status), `${answer.status}`);
    } else {
      assert.equal(answer.status, 431);
      assertSafe(answer.headers, "too large headers");
      assert.match(answer.body, /<main class="other">[^]*cookies of localhost/);
      assert.equal(login.warnings.length, 1);
      assert.match(login.warnings[0]!, /cookies of localhost/);
    }
    await assertWaits(login);
  },
);

loginTest(
  "startAuth() names headers and https in its timeout where it sees neither",
  { timeout: 0.1 },
  async ({ flow }) => {
    const { hint } = await failure(flow.reply);
    assert.match(hint!, /\(not https\)/);
    if (ON_DENO) assert.match(hint!, /cookies of localhost/);
  },
);

// === The gate

/** What is done to the good redirect, and the answer that it gets. */
interface Refusal {
  what: string;
  request: (port: number, target: string) => RawRequest;
  status: number;
  /** Deno's own HTTP parser answers it, with headers of its own. */
  denoRefuses?: true;
}

function hostRefusal(what: string, host: (port: number) => string): Refusal {
  const request = (port: number, target: string) => ({
    target,
    host: host(port),
  });
  return { what: `the Host "${what}"`, request, status: 421 };
}

function methodRefusal(method: string): Refusal {
  const request = (_: number, target: string) => ({ method, target });
  return { what: `the method ${method}`, request, status: 405 };
}

function headerRefusal(headers: Record<string, string>): Refusal {
  const request = (_: number, target: string) => ({ target, headers });
  const [[name, value]] = Object.entries(headers) as [[string, string]];
  return { what: `${name}: ${value}`, request, status: 204 };
}

function queryRefusal(more: string): Refusal {
  const request = (_: number, target: string) => ({ target: target + more });
  return { what: `${more} added to the query`, request, status: 400 };
}

function targetRefusal(
  what: string,
  status: number,
  target: (target: string, port: number) => string,
): Refusal {
  const request = (port: number, good: string) => ({
    target: target(good, port),
  });
  return { what, request, status };
}

const REFUSALS: Refusal[] = [
  hostRefusal("evil.example", () => "evil.example"),
  hostRefusal("evil.example:PORT", (port) => `evil.example:${port}`),
  hostRefusal("localhost", () => "localhost"),
  hostRefusal("localhost:1", () => "localhost:1"),
  hostRefusal("localhost.:PORT", (port) => `localhost.:${port}`),
  hostRefusal("localhost:PORT0", (port) => `localhost:${port}0`),
  hostRefusal("localhost:PORT@evil", (port) => `localhost:${port}@evil`),
  hostRefusal("a@localhost:PORT", (port) => `a@localhost:${port}`),
  hostRefusal("localhost:PORT/", (port) => `localhost:${port}/`),
  hostRefusal("127.0.0.1.evil:PORT", (port) => `127.0.0.1.evil:${port}`),
  hostRefusal("0.0.0.0:PORT", (port) => `0.0.0.0:${port}`),
  hostRefusal("[::]:PORT", (port) => `[::]:${port}`),
  hostRefusal("::1:PORT", (port) => `::1:${port}`),
  hostRefusal("two words", () => "two words"),
  hostRefusal("", () => ""),
  {
    what: "HTTP/1.0 without Host",
    request: (_, target) => ({ target, host: null, version: "HTTP/1.0" }),
    status: 421,
  },
  {
    what: "HTTP/1.1 without Host",
    request: (_, target) => ({ target, host: null }),
    status: 421,
  },
  {
    what: "a second Host",
    request: (_, target) => ({ target, headers: { Host: "evil.example" } }),
    status: ON_DENO ? 400 : 421,
    denoRefuses: true,
  },
  targetRefusal(
    "the target http://evil.example/",
    421,
    (good, port) => `http://evil.example:${port}${good}`,
  ),
  {
    what: "our target with the Host evil.example",
    request: (port, target) => ({
      target: `http://localhost:${port}${target}`,
      host: "evil.example",
    }),
    status: 421,
  },
  ...["/favicon.ico", "//", "//localhost:PORT/", "/%2f", "/index.html"]
    .map((path) =>
      targetRefusal(
        `the path ${path}`,
        404,
        (_, port) => `${path.replace("PORT", `${port}`)}?code=C&state=other`,
      )
    ),
  ..."POST PUT PATCH DELETE TRACE TRACK PROPFIND M-SEARCH BREW get Get"
    .split(" ").map(methodRefusal),
  {
    what: "the method CONNECT",
    request: (port) => ({ method: "CONNECT", target: `localhost:${port}` }),
    status: 405,
  },
  {
    what: "the good parameters in the body of a POST",
    request: (_, target) => ({ method: "POST", body: target.slice(2) }),
    status: 405,
  },
  headerRefusal({ "Sec-Purpose": "prefetch" }),
  headerRefusal({ "Sec-Purpose": "prefetch;prerender" }),
  headerRefusal({ "Purpose": "prefetch" }),
  headerRefusal({ "X-Purpose": "preview" }),
  headerRefusal({ "X-Moz": "prefetch" }),
  ...["image", "iframe", "empty", "script", ""].map((dest): Refusal => ({
    what: `Sec-Fetch-Dest: ${dest}`,
    request: (_, target) => ({ target, headers: { "Sec-Fetch-Dest": dest } }),
    status: 400,
  })),
  queryRefusal("&code=other"),
  queryRefusal("&state=other"),
  queryRefusal("&st%61te=other"),
  queryRefusal("&locale=en"),
  queryRefusal("&=1&=2"),
  {
    what: "HEAD",
    request: (_, target) => ({ method: "HEAD", target }),
    status: 200,
  },
  {
    what: "OPTIONS",
    request: (_, target) => ({ method: "OPTIONS", target }),
    status: 204,
  },
  // A request with two faults is told the first, in the order of the gate.
  {
    what: "a wrong Host, path and method",
    request: () => ({ host: "evil.example", target: "/no", method: "POST" }),
    status: 421,
  },
  {
    what: "a wrong path and method",
    request: () => ({ target: "/no", method: "DELETE" }),
    status: 405,
  },
  {
    what: "a wrong path and HEAD",
    request: () => ({ target: "/no", method: "HEAD" }),
    status: 200,
  },
  {
    what: "a picture on a wrong path",
    request: () => ({ target: "/no", headers: { "Sec-Fetch-Dest": "image" } }),
    status: 400,
  },
  {
    what: "prefetch of a picture",
    request: () => ({
      headers: { "Sec-Fetch-Dest": "image", "Purpose": "prefetch" },
    }),
    status: 204,
  },
  {
    what: "a wrong method and prefetch",
    request: () => ({ method: "PUT", headers: { Purpose: "prefetch" } }),
    status: 405,
  },
  {
    what: "prefetch of a doubled parameter",
    request: () => ({ target: "/?a&a", headers: { Purpose: "prefetch" } }),
    status: 204,
  },
];

function assertRefused(answer: RawAnswer, refusal: Refusal): void {
  const { what, status, denoRefuses } = refusal;
  assert.equal(answer.status, status, `status of the answer to ${what}`);
  if (ON_DENO && denoRefuses) return;
  assertSafe(answer.headers, what);
  const allow = status === 405 || what === "OPTIONS"
    ? "GET, HEAD, OPTIONS"
    : null;
  assert.equal(answer.headers.get("allow"), allow);
}

for (const [i, refusal] of REFUSALS.entries()) {
  loginTest(
    `startAuth() answers ${refusal.what} with ${refusal.status}, and waits on`,
    {},
    async (login) => {
      const { port } = login.flow;
      const target = targetOf(await login.redirect());
      const bytes = rawRequest(port, refusal.request(port, target));
      const host = LOOPBACKS[i % 2];
      assertRefused(await exchangeRaw(port, bytes, { host }), refusal);
      await assertWaits(login);
    },
  );
}

for (
  const [what, request] of Object.entries<Refusal["request"]>({
    "the Host LOCALHOST": (port) => ({ host: `LOCALHOST:${port}` }),
    "the Host 127.0.0.1": (port) => ({ host: `127.0.0.1:${port}` }),
    "the Host [::1]": (port) => ({ host: `[::1]:${port}` }),
    "a whole URL for a target": (port, target) => ({
      target: `http://localhost:${port}${target}`,
    }),
    "HTTP/1.0 with Host": () => ({ version: "HTTP/1.0" }),
    "Sec-Fetch-Dest: document": () => ({
      headers: { "Sec-Fetch-Dest": "document" },
    }),
    "an Upgrade": () => ({
      headers: { Connection: "Upgrade", Upgrade: "websocket" },
    }),
    "an expectation": () => ({ headers: { Expect: "wonders" } }),
    "a body": () => ({ body: "code=other&state=other" }),
  })
) {
  loginTest(`startAuth() takes a redirect with ${what}`, {}, async (login) => {
    const { port, reply } = login.flow;
    const target = targetOf(await login.redirect());
    const bytes = rawRequest(port, { target, ...request(port, target) });
    const answer = await exchangeRaw(port, bytes);
    assert.equal(answer.status, 200);
    assertSafe(answer.headers, what);
    assert.match(answer.body, /<main class="success">/);
    await reply;
  });
}

// === State

/** Wrong states that are near the right one. */
const WRONG_STATES: Record<string, (state: string) => string> = {
  "an empty state": () => "",
  "a foreign state": () => "foreign",
  "another state of the right length": (state) =>
    (state[0] === "A" ? "B" : "A") + state.slice(1),
  "the right state without its end": (state) => state.slice(0, -1),
  "the right state with more": (state) => `${state}A`,
  "the right state with a space": (state) => `${state} `,
  "the right state in capitals": (state) => state.toUpperCase(),
  "a state named null": () => "null",
};

for (const [what, wrong] of Object.entries(WRONG_STATES)) {
  loginTest(
    `startAuth() keeps waiting after a callback with ${what}`,
    {},
    async (login) => {
      const redirect = await login.redirect();
      const { searchParams } = redirect;
      searchParams.set("state", wrong(searchParams.get("state")!));
      const { status, headers, page } = await show(redirect);
      assert.equal(status, 400);
      assert.match(page, /<main class="other">/);
      assertSafe(headers, what);
      await assertWaits(login);
    },
  );
}

loginTest(
  "startAuth() judges the state before a denial",
  {},
  async (login) => {
    const redirect = await login.redirect({ deny: true });
    redirect.searchParams.set("state", "foreign");
    assert.equal((await show(redirect)).status, 400);
    await assertWaits(login);
  },
);

test("startAuth() tells what came and was not used when it times out", () =>
  afterTimeout(async (login) => {
    const foreign = await login.changed({ state: "foreign" });
    for (let n = 0; n < 3; n++) await show(foreign);
    const stray = await login.changed({ state: null });
    stray.pathname = "/stray";
    await show(stray);
  }, async (login, timeout) => {
    const error = await failure(login.flow.reply);
    assert.equal(error.kind, "timeout");
    assert.equal(
      error.message,
      `Timed out after ${timeout} s without a usable redirect (3 of another ` +
        "login, 1 on another path)",
    );
    assert.ok(error.hint!.includes(login.flow.redirectUrl));
    assert.deepEqual(login.states, [1, 5]);
  }));

loginTest(
  "startAuth() counts no redirect in its timeout when none came",
  { timeout: 0.1 },
  async ({ flow }) => {
    assert.equal(
      (await failure(flow.reply)).message,
      "Timed out after 0.1 s without a usable redirect",
    );
  },
);

test("startAuth() does not time out any more once the redirect came", async () => {
  let came = false;
  // Twice as long where the redirect took longer than that to come.
  for (let timeout = 1; !came && timeout < 60; timeout *= 2) {
    await pausedLogin(async (login, goOn) => {
      const shown = show(await login.redirect()).catch(() => undefined);
      await until(() => login.flow.state !== 1);
      came = login.flow.state === 2;
      if (!came) return;
      await delay(1000 * timeout); // the time to wait is over
      goOn();
      assert.equal((await shown)?.status, 200);
      assert.equal((await login.flow.reply).code, 0);
      assert.deepEqual(login.states, [1, 2, 3]);
    }, { timeout });
  }
  assert.ok(came);
});

for (const query of ["", "?", "?utm_source=tiktok", "?locale=en", "?code="]) {
  loginTest(
    `startAuth() shows a friendly page for "/${query}", and waits on`,
    {},
    async (login) => {
      const { status, page } = await show(login.flow.redirectUrl + query);
      assert.equal(status, 200);
      assert.match(page, /<main class="waiting">/);
      assert.equal(login.warnings.length, 0);
      await assertWaits(login);
    },
  );
}

// === Denial and errors

const DENIALS: Record<string, string>[] = [
  { code: "null", error: "auth_denied" },
  { code: "null" },
  { error: "access_denied" },
  { error: "access_denied", code: "ROW_code" },
];

for (const query of DENIALS) {
  const shown = new URLSearchParams(query);
  loginTest(
    `startAuth() ends with access_denied after "${shown}"`,
    {},
    async (login) => {
      const { flow, sandbox } = login;
      const state = new URL(flow.url).searchParams.get("state")!;
      const params = new URLSearchParams({ ...query, state });
      const { status, headers, page } = await show(
        `${flow.redirectUrl}?${params}`,
      );
      assert.equal(status, 403);
      assert.match(page, /<main class="denied">/);
      assertSafe(headers, "a denial");
      assert.equal((await failure(flow.reply)).kind, "access_denied");
      assert.equal(flow.state, FlowState.ACCESS_DENIED);
      assert.deepEqual(login.states, [1, 4]);
      assert.equal(sandbox.requests.length, 0);
    },
  );
}

loginTest(
  "startAuth() ends with access_denied when the sandbox's seller denies",
  {},
  async (login) => {
    const { status } = await show(await login.redirect({ deny: true }));
    assert.equal(status, 403);
    const error = await failure(login.flow.reply);
    assert.equal(error.kind, "access_denied");
    assert.match(error.message, /"auth_denied"/);
    assert.match(error.hint!, /approve/);
    assert.deepEqual({ ...login.flow.redirectParams, state: "" }, {
      code: "null",
      error: "auth_denied",
      state: "",
    });
  },
);

loginTest(
  "startAuth() ends with invalid_redirect after any other error",
  {},
  async (login) => {
    const redirect = await login.changed({ error: "<b>server\x1b_error" });
    const { status, page } = await show(redirect);
    assert.equal(status, 502);
    assert.match(page, /<main class="failed">/);
    assert.match(page, /&#60;b&#62;server/);
    assert.ok(!page.includes("<b>") && !page.includes("\x1b"));
    const error = await failure(login.flow.reply);
    assert.equal(error.kind, "invalid_redirect");
    assert.ok(!error.message.includes("\x1b"));
    assert.deepEqual(login.states, [1, 5]);
    assert.equal(login.exchanges(), 0);
  },
);

// === Success

loginTest(
  "startAuth() goes through the states 1, 2 and 3",
  {},
  async (login) => {
    const { flow, states } = login;
    const seen: number[] = [];
    flow.onState = (state) => seen.push(state, flow.state);
    assert.deepEqual(states, [1]);
    assert.equal(flow.state, FlowState.WAITING_FOR_REDIRECT);
    await show(await login.redirect());
    await flow.reply;
    assert.deepEqual(seen, [2, 2, 3, 3]);
  },
);

loginTest(
  "startAuth() goes through the states 1, 2 and 5 when the exchange fails",
  {},
  async (login) => {
    const redirect = await login.redirect({ fault: "expired-code" });
    const { status, headers, page } = await show(redirect);
    assert.equal(status, 502);
    assertSafe(headers, "a failed exchange");
    assert.match(page, /<main class="failed">/);
    assert.match(page, /36004004/);
    const error = await failure(login.flow.reply);
    assert.deepEqual([error.kind, error.code], ["rejected", 36004004]);
    assert.deepEqual(login.states, [1, 2, 5]);
  },
);

loginTest(
  "AuthFlow.redirectParams has every parameter of the redirect",
  {},
  async ({ flow, redirect }) => {
    assert.deepEqual(flow.redirectParams, {});
    const url = await redirect();
    url.searchParams.set("__proto__", "polluted");
    url.searchParams.set("constructor", "x");
    await show(url);
    await flow.reply;
    const { redirectParams } = flow;
    assert.deepEqual(Object.entries(redirectParams), [...url.searchParams]);
    assert.equal(redirectParams.shop_region, "GB");
    assert.ok(Object.isFrozen(redirectParams));
    assert.equal(Object.getPrototypeOf(redirectParams), Object.prototype);
  },
);

loginTest(
  "startAuth() takes a code that is named auth_code",
  { sandbox: { fault: "auth_code" } },
  async (login) => {
    const redirect = await login.redirect();
    assert.equal(redirect.searchParams.get("code"), null);
    assert.equal((await show(redirect)).status, 200);
    assert.equal((await login.flow.reply).code, 0);
  },
);

// Awkward codes alternate: every other one fails another wrong decoding.
for (const ending of ["+/==", "%2Fx"]) {
  loginTest(
    `startAuth() decodes a code that ends in ${ending} exactly once`,
    { sandbox: { fault: "awkward-code" } },
    async (login) => {
      if (ending !== "+/==") login.sandbox.issueCode();
      const redirect = await login.redirect();
      await show(redirect);
      await login.flow.reply;
      const [exchange] = login.sandbox.requests
        .filter(({ path }) => path === "/api/v2/token/get");
      const code = redirect.searchParams.get("code");
      assert.ok(code?.endsWith(ending), ending);
      assert.equal(exchange!.query.auth_code, code);
    },
  );
}

test("startAuth() shows a second copy the page of the first", () =>
  pausedLogin(async (login, goOn) => {
    const redirect = await login.redirect();
    const first = show(redirect);
    await until(() => login.flow.state === 2);
    // The same code by another path and without state is the same code too.
    const copy = new URL(redirect);
    copy.searchParams.delete("state");
    const others = [show(redirect), show(copy)];
    const foreign = await show(await login.changed({ code: "ROW_other" }));
    assert.equal(foreign.status, 409);
    assertSafe(foreign.headers, "another code");
    assert.match(foreign.page, /<main class="other">/);
    const denied = await show(await login.changed({ error: "auth_denied" }));
    assert.equal(denied.status, 409);
    goOn();
    for (const { status, page } of await Promise.all([first, ...others])) {
      assert.equal(status, 200);
      assert.match(page, /<main class="success">/);
    }
    await login.flow.reply;
    assert.equal(login.exchanges(), 1);
    assert.deepEqual(login.states, [1, 2, 3]);
  }));

test("startAuth() spends the code once for 20 copies of the callback", () =>
  pausedLogin(async (login, goOn) => {
    const { port, reply } = login.flow;
    const bytes = rawRequest(port, {
      target: targetOf(await login.redirect()),
    });
    const answers = Array.from(
      { length: 20 },
      (_, i) =>
        exchangeRaw(port, bytes, { host: LOOPBACKS[i % 2], ms: 60_000 }),
    );
    await until(() => login.flow.state === 2);
    goOn();
    assert.equal((await reply).code, 0);
    // Some may find the port closed, or get no answer.
    const settled = await Promise.allSettled(answers);
    const statuses = settled
      .flatMap((one) => one.status === "fulfilled" ? [one.value.status] : []);
    assert.deepEqual([...new Set(statuses)], [200]);
    assert.equal(login.exchanges(), 1);
  }));

// === Missing state

loginTest(
  "startAuth() holds a callback without state, warns once, spends nothing",
  {},
  async (login) => {
    const redirect = await login.changed({ state: null });
    for (let n = 0; n < 3; n++) {
      const { status, headers, page } = await show(redirect);
      assert.equal(status, 202);
      assert.match(page, /<main class="held">/);
      assertSafe(headers, "a callback without state");
    }
    assert.equal(login.warnings.length, 1);
    assert.match(login.warnings[0]!, /without state/);
    assert.deepEqual(login.flow.redirectParams, {});
    await assertWaits(login);
  },
);

test("startAuth() tells in its timeout that a callback without state was held", () =>
  afterTimeout(async (login) => {
    await show(await login.changed({ state: null }));
  }, async (login) => {
    const error = await failure(login.flow.reply);
    assert.equal(error.kind, "timeout");
    assert.match(error.message, / \(1 without state\)$/);
    assert.match(error.hint!, /nobody sent you the link, allow a missing/);
    assert.equal(login.exchanges(), 0);
  }));

loginTest(
  "startAuth() never counts a picture without state",
  { allowMissingState: true },
  async (login) => {
    const { redirectUrl } = login.flow;
    const picture = { "Sec-Fetch-Dest": "image" };
    for (const query of ["?code=A", "?error=auth_denied", "?code=null"]) {
      const { status } = await show(redirectUrl + query, picture);
      assert.equal(status, 400);
    }
    assert.deepEqual(login.warnings, []);
    const redirect = await login.changed({ state: null });
    assert.equal((await show(redirect)).status, 200);
    assert.equal((await login.flow.reply).code, 0);
    assert.equal(login.exchanges(), 1);
  },
);

loginTest(
  "startAuth() takes the good callback after one without state",
  {},
  async (login) => {
    await show(await login.changed({ state: null }));
    await assertWaits(login);
  },
);

for (const allowMissingState of [false, true]) {
  loginTest(
    `startAuth() ignores errors without state, allowed: ${allowMissingState}`,
    { allowMissingState },
    async (login) => {
      const { redirectUrl } = login.flow;
      for (const query of ["?error=auth_denied&code=null", "?error=oops"]) {
        const { status, page } = await show(redirectUrl + query);
        assert.equal(status, 400);
        assert.match(page, /<main class="other">/);
        const pasted = await failure(login.flow.submit(query));
        assert.equal(pasted.kind, "missing_state");
      }
      assert.deepEqual(login.warnings, []);
      await assertWaits(login);
    },
  );
}

loginTest(
  "startAuth() spends a code without state under allowMissingState",
  { allowMissingState: true, sandbox: { fault: "missing-state" } },
  async (login) => {
    const { status, page } = await show(await login.redirect());
    assert.equal(status, 200);
    assert.match(page, /<main class="success">/);
    await login.flow.reply;
    assert.deepEqual(login.warnings, []);
  },
);

loginTest(
  "startAuth() refuses a wrong state even under allowMissingState",
  { allowMissingState: true },
  async (login) => {
    const redirect = await login.changed({ state: "" });
    assert.equal((await show(redirect)).status, 400);
    await assertWaits(login);
  },
);

test("startAuth() spends a held code once confirmMissingState says yes", () =>
  askedLogin(async (login, answers) => {
    const { status } = await show(await login.changed({ state: null }));
    assert.equal(status, 202);
    assert.equal(login.exchanges(), 0);
    answers[0]!(true);
    assert.equal((await login.flow.reply).code, 0);
    assert.deepEqual(login.states, [1, 2, 3]);
    assert.equal(login.exchanges(), 1);
  }));

for (
  const [what, confirmMissingState] of Object.entries<
    () => boolean | Promise<boolean>
  >({
    "says no": () => false,
    "fails": () => Promise.reject(new Error("no terminal")),
  })
) {
  loginTest(
    `startAuth() waits on after confirmMissingState ${what}`,
    { confirmMissingState },
    async (login) => {
      await show(await login.changed({ state: null }));
      await delay(20);
      await assertWaits(login);
    },
  );
}

/** A login whose questions are answered by the test, in their order. */
async function askedLogin(
  run: (
    login: Login,
    answers: ((answer: boolean) => void)[],
  ) => Promise<unknown>,
): Promise<void> {
  const answers: ((answer: boolean) => void)[] = [];
  const confirmMissingState = () =>
    new Promise<boolean>((resolve) => answers.push(resolve));
  const login = await startLogin({ confirmMissingState });
  try {
    await run(login, answers);
  } finally {
    await login.end();
  }
}

/** A callback with a code of its own and no state; its status. */
async function showCode(login: Login, code: string): Promise<number> {
  return (await show(`${login.flow.redirectUrl}?code=${code}`)).status;
}

test("startAuth() asks once, and a later yes spends nothing", () =>
  askedLogin(async (login, answers) => {
    const redirect = await login.changed({ state: null });
    for (let n = 0; n < 3; n++) await show(redirect);
    await assertWaits(login);
    answers[0]!(true);
    await login.end();
    assert.deepEqual([answers.length, login.exchanges()], [1, 1]);
  }));

test("startAuth() voids two different codes without state", () =>
  askedLogin(async (login, answers) => {
    const redirect = await login.changed({ state: null });
    assert.equal(await showCode(login, "FORGED"), 202);
    assert.equal((await show(redirect)).status, 400);
    answers[0]!(true);
    // A code that comes after them is not surely the person's either.
    assert.equal(await showCode(login, "FORGED_2"), 400);
    assert.equal((await show(redirect)).status, 400);
    assert.equal(answers.length, 1);
    assert.equal(login.warnings.length, 2);
    assert.match(login.warnings[1]!, /different codes, so neither/);
    await assertWaits(login);
  }));

test("startAuth() asks about another code after a no", () =>
  askedLogin(async (login, answers) => {
    assert.equal(await showCode(login, "FORGED"), 202);
    answers[0]!(false);
    // The page of a code that was refused is that of another attempt.
    await until(() => login.flow.state === 1);
    assert.equal(await showCode(login, "FORGED"), 400);
    const redirect = await login.changed({ state: null });
    assert.equal((await show(redirect)).status, 202);
    // The refused one comes again, and voids nothing.
    assert.equal(await showCode(login, "FORGED"), 400);
    answers[1]!(true);
    assert.equal((await login.flow.reply).code, 0);
    assert.deepEqual([answers.length, login.exchanges()], [2, 1]);
    const { code } = login.flow.redirectParams;
    assert.equal(code, redirect.searchParams.get("code"));
  }));

test("startAuth() asks at most three questions in one login", () =>
  askedLogin(async (login, answers) => {
    for (const [n, status] of [202, 202, 202, 400, 400].entries()) {
      assert.equal(await showCode(login, `FORGED_${n}`), status);
      answers[n]?.(false);
    }
    assert.equal(answers.length, 3);
    assert.equal(login.warnings.length, 1);
    await assertWaits(login);
  }));

// === Answers

/** The page's parts that a policy with hashes must name. */
function assertPolicyFits(page: string, headers: Headers): void {
  const policy = headers.get("content-security-policy")!;
  for (const tag of ["style", "script"]) {
    const parts = [
      ...page.matchAll(new RegExp(`<${tag}>([^]*?)</${tag}>`, "g")),
    ]
      .map(([, text]) => createHash("sha256").update(text!).digest("base64"))
      .map((hash) => `'sha256-${hash}'`);
    assert.equal(parts.length, 1);
    const sources = new RegExp(`${tag}-src ([^;]*)`).exec(policy)![1];
    assert.equal(sources, parts.join(" "));
  }
}

/** That a page loads, links and runs nothing but its own two parts. */
function assertSelfContained(page: string): void {
  assert.doesNotMatch(page, /\s(src|href|action|style|on\w+)\s*=/i);
  assert.doesNotMatch(page, /@import|url\(/i);
  assert.match(page, /^<!doctype html>\n<html lang="en">/);
}

/** How to get each page from a login; its setup. */
const PAGES: [string, number, LoginSetup, (login: Login) => Promise<URL>][] = [
  ["success", 200, {}, (login) => login.redirect()],
  ["denied", 403, {}, (login) => login.redirect({ deny: true })],
  ["failed", 502, {}, (login) => login.redirect({ fault: "echo-secret" })],
  ["waiting", 200, {}, (login) => login.changed({ code: null })],
  ["held", 202, {}, (login) => login.changed({ state: null })],
  ["other", 400, {}, (login) => login.changed({ state: "foreign" })],
  [
    "missing",
    404,
    {},
    ({ flow: { redirectUrl } }) => Promise.resolve(new URL("/no", redirectUrl)),
  ],
];

for (const [page, status, setup, redirectOf] of PAGES) {
  loginTest(
    `startAuth() sends the page "${page}" self-contained and without secrets`,
    setup,
    async (login) => {
      const redirect = await redirectOf(login);
      const shown = await show(redirect);
      assert.equal(shown.status, status);
      assert.ok(shown.page.includes(`<main class="${page}">`), shown.page);
      assertSafe(shown.headers, page);
      assertPolicyFits(shown.page, shown.headers);
      assertSelfContained(shown.page);
      assertNoSecret(shown.page, login, redirect);
    },
  );
}

function assertNoSecret(page: string, login: Login, redirect: URL): void {
  const { searchParams } = redirect;
  const secrets = [
    login.sandbox.appSecret,
    new URL(login.flow.url).searchParams.get("state")!,
    searchParams.get("code") ?? "",
  ].filter((secret) => secret.length > 4);
  for (const secret of secrets) {
    for (const form of [secret, encodeURIComponent(secret)]) {
      assert.ok(!page.includes(form));
    }
  }
}

loginTest(
  "startAuth() takes the code out of the address bar",
  {},
  async (login) => {
    const redirect = await login.redirect();
    const { page } = await show(redirect);
    const [, script] = /<script>([^]*?)<\/script>/.exec(page)!;
    let shown = redirect.href;
    const replaceState = (_: unknown, __: unknown, url: string) => {
      shown = new URL(url, redirect).href;
    };
    const document = { documentElement: {}, querySelectorAll: () => [] };
    const world = { history: { replaceState }, location: redirect, document };
    runInNewContext(script!, world);
    assert.equal(shown, login.flow.redirectUrl);
  },
);

loginTest(
  "startAuth() sends the browser no byte before the exchange is done",
  {},
  async (login) => {
    login.sandbox.fail("token", "slow:300");
    const { port, reply } = login.flow;
    const target = targetOf(await login.redirect());
    const socket = connect(port, "127.0.0.1");
    socket.write(rawRequest(port, { target }));
    const [first, after] = await new Promise<[string, boolean]>((resolve) =>
      socket.once("data", (data) => resolve([`${data}`, replied(login)]))
    );
    assert.match(first, /^HTTP\/1\.1 200 /);
    assert.ok(after);
    await reply;
    socket.destroy();
  },
);

/** Whether the token host has answered. */
function replied({ sandbox }: Login): boolean {
  return sandbox.requests
    .some(({ path, status }) => path === "/api/v2/token/get" && status > 0);
}

const MARKUP = `<script>alert(1)</script>"'&amp;\u202e`;

loginTest(
  "startAuth() escapes the seller's name and region in the page",
  {
    sandbox: {
      sellers: [{
        openId: "7010aMARKUP",
        name: MARKUP,
        region: "<i>GB",
        userType: 0,
        scopes: [],
        shops: [],
      }],
    },
  },
  async (login) => {
    const shown = await show(await login.redirect());
    const name = "&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;&#38;amp;";
    assert.ok(shown.page.includes(`>${name}\ufffd<`), shown.page);
    assert.ok(shown.page.includes(">&#60;i&#62;GB<"));
    assert.doesNotMatch(shown.page, /<script>alert|<i>/);
    assertPolicyFits(shown.page, shown.headers);
    assert.equal((await login.flow.reply).data.seller_name, MARKUP);
  },
);

loginTest(
  "startAuth() names no shop for a creator",
  { userType: "creator" },
  async (login) => {
    const { page } = await show(await login.redirect());
    assert.match(page, /<main class="success">/);
    assert.doesNotMatch(page, />\s*(null|undefined)/);
    assert.equal((await login.flow.reply).data.seller_name, null);
  },
);

for (
  const [locale, accepted] of [
    ["", ""],
    ["tlh", "tlh,*;q=0.5"],
    ["en-GB", "tlh"],
    ["en_US", ""],
    ["__proto__", "constructor, toString;q=0.9"],
    ["tlh", ", ;q=,en;q=0.1"],
    ["x".repeat(2000), "y,".repeat(2000)],
  ] as const
) {
  const shown = `"${locale.slice(0, 9)}" and "${accepted.slice(0, 9)}"`;
  loginTest(
    `startAuth() answers in English for the languages ${shown}`,
    {},
    async ({ flow }) => {
      const { headers, page } = await show(
        `${flow.redirectUrl}?${new URLSearchParams({ locale })}`,
        accepted ? { "Accept-Language": accepted } : {},
      );
      assert.equal(headers.get("content-language"), "en");
      assert.match(page, /<main class="waiting">/);
    },
  );
}

// === The end

/** Each way to end a login, for the library. */
const ENDINGS: Record<string, (login: Login) => Promise<unknown>> = {
  "success": async (login) => {
    const { status, page } = await show(await login.redirect());
    assert.equal(status, 200);
    assert.match(page, /<\/html>/);
  },
  "denial": async (login) => {
    const { page } = await show(await login.redirect({ deny: true }));
    assert.match(page, /<\/html>/);
  },
  "a failed exchange": async (login) => {
    await show(await login.redirect({ fault: "invalid-code" }));
  },
  "timeout": ({ flow }) => flow.reply.catch(() => {}),
  "cancel()": ({ flow }) => Promise.resolve(flow.cancel()),
  "an aborted signal": () => Promise.resolve(abort.abort()),
};

let abort = new AbortController();

for (const [what, end] of Object.entries(ENDINGS)) {
  test(`startAuth() closes its port within 1 s of ${what}`, async () => {
    // Twice as long where the sockets are not there before the timeout.
    let timeout = what === "timeout" ? 1 : 120;
    while (!await endHeldLogin(timeout, end)) timeout *= 2;
  });
}

/** Ends a login with sockets held; false if its time was over before. */
async function endHeldLogin(
  timeout: number,
  end: (login: Login) => Promise<unknown>,
): Promise<boolean> {
  abort = new AbortController();
  const login = await startLogin({ timeout, signal: abort.signal });
  let held: HeldSocket[] = [];
  try {
    held = await holdSockets(login.flow.port).catch(() => []);
    if (held.length === 0 || login.flow.state !== 1) return false;
    await end(login);
    await login.flow.reply.catch(() => {});
    await within(1000, async () => {
      await portClosed(login.flow.port);
      await allDropped(held);
    });
    return true;
  } finally {
    dropSockets(held);
    await login.end();
  }
}

test("AuthFlow[asyncDispose] cancels and closes the port", async () => {
  const login = await startLogin();
  const { flow } = login;
  let held: HeldSocket[] = [];
  try {
    held = await holdSockets(flow.port);
    await within(1200, () => flow[Symbol.asyncDispose]());
    for (const host of LOOPBACKS) {
      assert.equal(await isListening(flow.port, host), false);
    }
    assert.equal((await failure(flow.reply)).kind, "cancelled");
    assert.deepEqual(login.states, [1, 5]);
    await flow[Symbol.asyncDispose]();
    assert.deepEqual(login.states, [1, 5]);
  } finally {
    dropSockets(held);
    await login.end();
  }
});

test("AuthFlow[asyncDispose] leaves a finished login as it is", async () => {
  const login = await startLogin();
  await show(await login.redirect());
  await login.end();
  assert.equal((await login.flow.reply).code, 0);
  assert.deepEqual(login.states, [1, 2, 3]);
});

test("startAuth() frees its port for the next login at once", async () => {
  // A process of its own: one that another test starts holds what is open
  // here for a moment, and so a port that was closed.
  const folder = await temporaryFolder();
  try {
    const file = join(folder.path, "logins.mjs");
    const sandbox = new URL("../../scripts/sandbox.ts", import.meta.url);
    await writeFile(
      file,
      `import { startAuth } from ${JSON.stringify(MODULE)};
import { startSandbox } from "${sandbox}";
const port = ${await freePort()};
const redirectUrl = "http://localhost:" + port + "/";
const sandbox = await startSandbox({ redirectUrl });
for (let n = 0; n < 3; n++) {
  const flow = await startAuth({ ...sandbox, port });
  const redirect = fetch(await sandbox.approve(flow.url));
  const page = redirect.then((answer) => answer.text());
  await Promise.all([flow.reply, page]);
  await flow[Symbol.asyncDispose]();
}
await sandbox.stop();
`,
    );
    const { code, stderr } = await start(runtimeCommand(file)).ended;
    assert.equal(code, 0, stderr);
  } finally {
    await folder[Symbol.asyncDispose]();
  }
});

test("startAuth() rejects when its signal was aborted before", async () => {
  const port = await freePort();
  const signal = AbortSignal.abort("not today");
  const error = await failure(startLogin({ port, signal }));
  assert.equal(error.kind, "cancelled");
  assert.match(error.message, /not today/);
  assert.equal(await isListening(port), false);
});

test("startAuth() heeds a signal that is aborted while it starts", async () => {
  const [port, sandbox] = [await freePort(), await startSandbox()];
  const abort = new AbortController();
  const { signal } = abort;
  const starting = startAuth({ ...appOf(sandbox), port, signal });
  abort.abort("changed my mind");
  const error = await failure(starting.then(({ reply }) => reply));
  assert.equal(error.kind, "cancelled");
  assert.match(error.message, /changed my mind/);
  await within(1000, () => portClosed(port));
  await sandbox.stop();
});

test("startAuth() ends with the reason of its aborted signal", async () => {
  const abort = new AbortController();
  const login = await startLogin({ signal: abort.signal });
  abort.abort("enough");
  const error = await failure(login.flow.reply);
  assert.equal(error.kind, "cancelled");
  assert.match(error.message, /enough/);
  assert.deepEqual(login.states, [1, 5]);
  await login.end();
});

loginTest(
  "AuthFlow.cancel() ends an exchange under way and answers the browser",
  {},
  async (login) => {
    const { flow, sandbox } = login;
    sandbox.fail("token", "never");
    const shown = show(await login.redirect());
    await until(() => login.exchanges() === 1);
    await within(1000, async () => {
      flow.cancel("no longer wanted");
      const error = await failure(flow.reply);
      assert.deepEqual([error.kind, flow.state], ["cancelled", 5]);
      assert.match(error.message, /no longer wanted/);
      const { status, page } = await shown;
      assert.equal(status, 502);
      assert.match(page, /no longer wanted/);
      await portClosed(flow.port);
    });
    assert.deepEqual(login.states, [1, 2, 5]);
  },
);

/** The ways to give a login up, which must not lose its reply. */
const GIVEN_UP: Record<
  string,
  (login: Login, abort: AbortController) => unknown
> = {
  "cancel()": ({ flow }) => flow.cancel("changed my mind"),
  "an aborted signal": (_, abort) => abort.abort("interrupted"),
  "[asyncDispose]": ({ flow }) => void flow[Symbol.asyncDispose](),
};

for (const [what, giveUp] of Object.entries(GIVEN_UP)) {
  test(`startAuth() keeps a reply that is here, in spite of ${what}`, async () => {
    const abort = new AbortController();
    const saving = deferred();
    const saved = deferred();
    const onReply = () => (saving.resolve(), saved.promise);
    const login = await startLogin({ onReply, signal: abort.signal });
    const shown = show(await login.redirect());
    await saving.promise;
    giveUp(login, abort);
    assert.equal(login.flow.state, FlowState.WAITING_FOR_RESPONSE);
    saved.resolve();
    assert.equal((await login.flow.reply).code, 0);
    assert.equal((await shown).status, 200);
    assert.deepEqual(login.states, [1, 2, 3]);
    await login.end();
  });
}

test("login() gives up saving by saveSignal, and its error has the tokens", async () => {
  const redirectUrl = `http://localhost:${await freePort()}/`;
  const sandbox = await startSandbox({ redirectUrl });
  const store = memoryStore();
  let lock: TokenLock | undefined;
  const abort = new AbortController();
  try {
    const error = await failure(login({
      ...appOf(sandbox),
      port: Number(new URL(redirectUrl).port),
      store,
      saveSignal: abort.signal,
      onSaving: () => abort.abort("enough"),
      open: async (url) => {
        lock = await store.lock("default");
        void fetch(await sandbox.approve(url));
      },
    }));
    assert.equal(error.kind, "store");
    assert.match(error.message, /not saved: enough/);
    assert.equal(error.reply!.message, "success");
    await lock![Symbol.asyncDispose]();
    assert.equal(await store.load("default"), undefined);
  } finally {
    await sandbox.stop();
  }
});

loginTest(
  "AuthFlow.cancel() changes nothing after the end",
  {},
  async (login) => {
    await show(await login.redirect());
    login.flow.cancel();
    assert.equal((await login.flow.reply).code, 0);
    assert.deepEqual(login.states, [1, 2, 3]);
  },
);

for (const [what, deny] of [["success", false], ["denial", true]] as const) {
  test(`startAuth() settles by ${what} though a listener throws`, async () => {
    const onState = () => {
      throw new Error("a bug of the caller's");
    };
    const login = await startLogin({ onState });
    try {
      const { status } = await show(await login.redirect({ deny }));
      assert.equal(status, deny ? 403 : 200);
      const settled = await login.flow.reply.catch((error) => error);
      assert.equal(settled[deny ? "kind" : "code"], deny ? "access_denied" : 0);
      await within(1000, () => portClosed(login.flow.port));
    } finally {
      await login.end();
    }
  });
}

loginTest(
  "startAuth() fails when onReply does, and says so in the browser",
  {
    onReply: () => {
      throw new TikTokShopError("store", "The disk is full");
    },
  },
  async (login) => {
    const { status, page } = await show(await login.redirect());
    assert.equal(status, 502);
    assert.match(page, /The disk is full/);
    assert.equal((await failure(login.flow.reply)).kind, "store");
    assert.deepEqual(login.states, [1, 2, 5]);
  },
);

// === The end of a process

/** A process with a login in it, and what is held open against it. */
interface LoginProcess {
  running: Running;
  link: string;
  sandbox: Sandbox;
}

interface ProcessEnding {
  /** The exit code of the program. */
  code: number;
  timeout?: number;
  end: (one: LoginProcess) => unknown;
}

const PROCESS_ENDINGS: Record<string, ProcessEnding> = {
  "success": {
    code: 0,
    end: async ({ sandbox, link }) => show(await sandbox.approve(link)),
  },
  "denial": {
    code: 3,
    end: async ({ sandbox, link }) =>
      show(await sandbox.approve(link, { deny: true })),
  },
  "timeout": {
    code: 4,
    timeout: 1.5,
    end: ({ running }) => running.until(/Timed out/),
  },
  "cancel": {
    code: 130,
    // Not child.kill(): Deno takes any end after it for the signal's.
    end: ({ running }) => process.kill(running.child.pid!, "SIGINT"),
  },
};

/**
 * Ends a login in a process with sockets held, and asserts that the process
 * ends within a second of that; nothing if the login's time was over before.
 */
async function endProcess(
  running: Running,
  sandbox: Sandbox,
  port: number,
  end: (one: LoginProcess) => unknown,
): Promise<Ended | undefined> {
  let held: HeldSocket[] = [];
  try {
    const [link] = await running.until(/^http\S+authorize\S+$/m);
    held = await holdSockets(port).catch(() => []);
    if (held.length === 0 || /Timed out/.test(running.output.stderr)) return;
    await end({ running, sandbox, link: link! });
    return await within(1000, () => running.ended);
  } finally {
    running.child.kill("SIGKILL");
    dropSockets(held);
  }
}

/** Runs a login in a process, with sockets held, to its end. */
async function endProgram(
  ending: ProcessEnding,
  command: (options: StartAuthOptions, folder: string) => Promise<string[]>,
  more: Partial<StartAuthOptions> = {},
): Promise<Ended> {
  const { timeout = 120, end } = ending;
  const port = await freePort();
  const redirectUrl = `http://localhost:${port}/`;
  const sandbox = await startSandbox({ redirectUrl });
  const folder = await temporaryFolder();
  try {
    const options = { ...appOf(sandbox), port, timeout, ...more };
    const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder.path };
    const running = start(await command(options, folder.path), { env });
    const ended = await endProcess(running, sandbox, port, end);
    if (ended) return ended;
  } finally {
    await sandbox.stop();
    await folder[Symbol.asyncDispose]();
  }
  assert.ok(timeout < 120, "no machine is that slow");
  return await endProgram({ ...ending, timeout: 2 * timeout }, command, more);
}

/** Ends the login of a program that uses the library and never exits. */
function endLibrary(
  ending: ProcessEnding,
  more: Partial<StartAuthOptions> = {},
  signal = "undefined",
): ReturnType<typeof endProgram> {
  const command = async (options: StartAuthOptions, folder: string) => {
    const file = join(folder, "library.mjs");
    await writeFile(
      file,
      `import { startAuth } from ${JSON.stringify(MODULE)};
const signal = ${signal};
const flow = await startAuth({ ...${JSON.stringify(options)}, signal });
console.log(flow.url);
process.once("SIGINT", () => flow.cancel());
flow.reply.catch((error) => console.error(error.message));
`,
    );
    return runtimeCommand(file);
  };
  return endProgram(ending, command, more);
}

for (const [what, ending] of Object.entries(PROCESS_ENDINGS)) {
  // Windows has no signal that a process can handle.
  const skip = what === "cancel" && process.platform === "win32";

  test(`login, the program, ends within 1 s of ${what}`, { skip }, async () => {
    const command = (options: StartAuthOptions) =>
      Promise.resolve(programCommand([
        ...["login", "--no-browser"],
        ...["--port", `${options.port}`, "--timeout", `${options.timeout}`],
      ]));
    const ended = await endProgram(ending, command);
    assert.equal(ended.code, ending.code, ended.stderr);
  });

  test(`startAuth() lets its process end within 1 s of ${what}`, {
    skip,
  }, async () => {
    await endLibrary(ending);
  });
}

test("startAuth() lets its process end within 1 s over https too", async () => {
  await endLibrary(PROCESS_ENDINGS.timeout!, { tls: makeCertificate() });
});

// With a listener, such a signal holds a Deno process until it fires.
for (
  const signal of [
    "AbortSignal.timeout(60_000)",
    "AbortSignal.any([AbortSignal.timeout(60_000)])",
  ]
) {
  test(`startAuth() lets its process end within 1 s, its signal ${signal}`, async () => {
    for (const ending of ["success", "denial", "timeout"]) {
      await endLibrary(PROCESS_ENDINGS[ending]!, {}, signal);
    }
  });
}

test("startAuth() on Deno needs no process and no node: module", {
  skip: !ON_DENO && "Node has no other",
}, async () => {
  const port = await freePort();
  const redirectUrl = `http://localhost:${port}/`;
  const sandbox = await startSandbox({ redirectUrl });
  const folder = await temporaryFolder();
  try {
    const file = join(folder.path, "library.mjs");
    const options = JSON.stringify({ ...appOf(sandbox), port });
    await writeFile(
      file,
      `const get = () => { throw new Error("process was touched"); };
Object.defineProperty(globalThis, "process", { get });
const { startAuth } = await import(${JSON.stringify(MODULE)});
const flow = await startAuth(${options});
console.log(flow.url);
console.log((await flow.reply).message);
`,
    );
    const running = start(runtimeCommand(file));
    const [link] = await running.until(/^http\S+authorize\S+$/m);
    assert.equal((await show(await sandbox.approve(link!))).status, 200);
    const { code, stdout, stderr } = await running.ended;
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(stdout, /^success$/m);
  } finally {
    await sandbox.stop();
    await folder[Symbol.asyncDispose]();
  }
});

// === Too many open files

/** A process whose limit of open files is low. */
function withFewFiles(command: string[]): string[] {
  return ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", ...command];
}

/** Opens idle connections until the process has no file left for more. */
async function exhaust(port: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  for (let n = 0; n < 400; n++) {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", () => {});
    sockets.push(socket);
    if (n % 20 === 0) await delay(5);
  }
  return sockets;
}

const NO_LIMITS = { skip: process.platform === "win32" && "no ulimit" };

test(
  "startAuth() outlives too many connections, or fails with a reason",
  NO_LIMITS,
  async () => {
    const script = `import { startAuth } from ${JSON.stringify(MODULE)};
const flow = await startAuth(JSON.parse(process.argv[2]));
console.log(flow.url);
flow.reply.then(() => console.log("success"), (error) => {
  console.log(error.kind, error.message, "|", error.hint);
  // The program that this is a part of goes on.
  setTimeout(() => console.log("alive"), 200);
});`;
    const port = await freePort();
    const redirectUrl = `http://localhost:${port}/`;
    const sandbox = await startSandbox({ redirectUrl });
    const folder = await temporaryFolder();
    let sockets: Socket[] = [];
    try {
      const file = join(folder.path, "library.mjs");
      await writeFile(file, `import process from "node:process";\n${script}`);
      const options = JSON.stringify({ ...appOf(sandbox), port });
      const running = start(
        withFewFiles([...runtimeCommand(file), options]),
      );
      const [link] = await running.until(/^http\S+authorize\S+$/m);
      sockets = await exhaust(port);
      if (ON_DENO) {
        // Deno's listener ends with the error.
        await running.until(/^port_in_use .*too many open files.*\|.*limit/im);
      } else {
        for (const socket of sockets) socket.destroy();
        await show(await sandbox.approve(link!));
      }
      const { code, stdout, stderr } = await running.ended;
      assert.equal(code, 0, stderr);
      assert.match(stdout, ON_DENO ? /^alive$/m : /^success$/m);
      assert.equal(stderr, "");
    } finally {
      for (const socket of sockets) socket.destroy();
      await sandbox.stop();
      await folder[Symbol.asyncDispose]();
    }
  },
);

test("login, the program, fails with a reason at too many connections", {
  skip: !ON_DENO && "Node's listener lives on",
}, async () => {
  const port = await freePort();
  const redirectUrl = `http://localhost:${port}/`;
  const sandbox = await startSandbox({ redirectUrl });
  const folder = await temporaryFolder();
  let sockets: Socket[] = [];
  try {
    const args = ["login", "--no-browser", "--port", `${port}`];
    const env = { ...sandbox.env, TIKTOK_SHOP_HOME: folder.path };
    const running = start(withFewFiles(programCommand(args)), { env });
    await running.until(/^http\S+authorize\S+$/m);
    sockets = await exhaust(port);
    const { code, stdout, stderr } = await running.ended;
    assert.equal(code, 1, stderr);
    assert.equal(stdout, "");
    assert.match(
      stderr,
      /error: Cannot listen on .*too many open/i,
    );
    assert.match(stderr, /hint: close connections or raise the limit/);
    assert.doesNotMatch(stderr, /Uncaught|fault of this program/);
  } finally {
    for (const socket of sockets) socket.destroy();
    await sandbox.stop();
    await folder[Symbol.asyncDispose]();
  }
});

// === submit()

const PASTED: Record<string, (redirect: URL) => string> = {
  "a URL": (redirect) => redirect.href,
  "a URL without its scheme": (redirect) => redirect.href.slice(7),
  "a URL in white space": (redirect) => ` \n${redirect.href}\r\n`,
  "a URL that the terminal has wrapped": ({ href }) =>
    `${href.slice(0, 40)}\n${href.slice(40)}`,
  "a query string": (redirect) => redirect.search,
  "a query string without its question mark": (redirect) =>
    redirect.search.slice(1),
};

for (const [what, pasted] of Object.entries(PASTED)) {
  loginTest(`AuthFlow.submit() takes ${what}`, {}, async (login) => {
    const redirect = await login.redirect();
    await login.flow.submit(pasted(redirect));
    assert.equal((await login.flow.reply).code, 0);
    assert.deepEqual(login.states, [1, 2, 3]);
    const entries = Object.entries(login.flow.redirectParams);
    assert.deepEqual(entries, [...redirect.searchParams]);
  });
}

/** A bare code, under what options it is taken. */
const BARE: [string, LoginSetup, boolean][] = [
  ["takes a confirmed bare code", { confirmMissingState: () => true }, true],
  ["refuses an unconfirmed code", { confirmMissingState: () => false }, false],
  ["refuses a bare code that nobody is asked about", {}, false],
  ["takes a bare code if allowed", { allowMissingState: true }, true],
];

for (const [what, setup, taken] of BARE) {
  loginTest(`AuthFlow.submit() ${what}`, setup, async (login) => {
    const { flow, sandbox } = login;
    const code = sandbox.issueCode();
    if (taken) {
      await flow.submit(code);
      assert.equal((await flow.reply).code, 0);
      assert.deepEqual(flow.redirectParams, { code });
      return;
    }
    const error = await failure(flow.submit(code));
    assert.equal(error.kind, "missing_state");
    assert.match(error.hint!, /nobody sent you the link, allow a missing/);
    await assertWaits(login);
  });
}

loginTest(
  "AuthFlow.submit() takes a bare code as the address bar encodes it",
  { allowMissingState: true },
  async ({ flow, sandbox }) => {
    const code = sandbox.issueCode(0, "awkward-code");
    await flow.submit(encodeURIComponent(code));
    assert.equal((await flow.reply).code, 0);
  },
);

const NO_CODE = /^No authorization code found in this text$/;

/** What is pasted and refused, the kind of its error and a word of its text. */
const REFUSED: [string, (redirect: URL) => string, string, RegExp][] = [
  ["nothing", () => "  ", "invalid_redirect", NO_CODE],
  ["a sentence", () => "what now?", "invalid_redirect", NO_CODE],
  [
    "a URL without code",
    () => "http://localhost:3017/",
    "invalid_redirect",
    NO_CODE,
  ],
  [
    "a URL with the state of another login",
    ({ href }) => href.replace(/state=[^&]*/, "state=foreign"),
    "state_mismatch",
    /belongs to another login/,
  ],
  [
    "a URL with an empty state",
    ({ href }) => href.replace(/state=[^&]*/, "state="),
    "state_mismatch",
    /belongs to another login/,
  ],
  [
    "a URL without state",
    ({ href }) => href.replace(/&?state=[^&]*/, ""),
    "missing_state",
    /without state/,
  ],
  [
    "a URL with two codes",
    ({ href }) => `${href}&code=other`,
    "invalid_redirect",
    /"code" twice/,
  ],
];

for (const [what, pasted, kind, message] of REFUSED) {
  loginTest(
    `AuthFlow.submit() explains why it refuses ${what}, and waits on`,
    {},
    async (login) => {
      const redirect = await login.redirect();
      const error = await failure(login.flow.submit(pasted(redirect)));
      assert.equal(error.kind, kind);
      assert.match(error.message, message);
      assert.ok(error.hint);
      await assertWaits(login);
    },
  );
}

loginTest(
  "AuthFlow.submit() ends the login for a pasted denial",
  {},
  async (login) => {
    await login.flow.submit((await login.redirect({ deny: true })).href);
    assert.equal((await failure(login.flow.reply)).kind, "access_denied");
    assert.deepEqual(login.states, [1, 4]);
  },
);

loginTest("AuthFlow.submit() spends a code once", {}, async (login) => {
  const { href } = await login.redirect();
  const both = [login.flow.submit(href), login.flow.submit(href), show(href)];
  const [first, second, page] = await Promise.allSettled(both);
  assert.equal(first!.status, "fulfilled");
  assert.equal(second!.status, "rejected");
  if (page!.status === "fulfilled") {
    assert.equal((page!.value as Shown).status, 200);
  }
  await login.flow.reply;
  assert.equal(login.exchanges(), 1);
});

loginTest(
  "AuthFlow.submit() says that the login is over after its end",
  { allowMissingState: true },
  async (login) => {
    const redirect = await login.redirect();
    await show(redirect);
    await login.flow.reply;
    for (const pasted of [redirect.href, redirect.search, "ROW_a_code"]) {
      const error = await failure(login.flow.submit(pasted));
      assert.match(error.message, /over/);
      assert.ok(error.hint);
    }
    assert.equal(login.exchanges(), 1);
  },
);

// === parseRedirect()

const STATE = "our-state";

/** Input, the code in it, and whether the input has the state. */
const CODES: [string, string, string, boolean][] = [
  ["a URL", `http://localhost:3017/?code=C&state=${STATE}`, "C", true],
  ["a URL of any host", `https://a.example/b?state=${STATE}&code=C`, "C", true],
  ["a URL in capitals", `HTTP://LOCALHOST/?code=C&state=${STATE}`, "C", true],
  ["a URL with a fragment", `http://a/?code=C&state=${STATE}#_`, "C", true],
  ["a URL in quotes", `"http://a/?code=C&state=${STATE}"`, "C", true],
  ["a URL in brackets", `<http://a/?code=C&state=${STATE}>`, "C", true],
  ["no scheme, a fragment", `a:1/?code=C&state=${STATE}#`, "C", true],
  ["a query string", `?code=C&state=${STATE}`, "C", true],
  ["a query string without ?", `code=C&state=${STATE}`, "C", true],
  ["auth_code", `auth_code=C&state=${STATE}`, "C", true],
  [
    "an empty code beside auth_code",
    `code=&auth_code=C&state=${STATE}`,
    "C",
    true,
  ],
  ["white space around", `\t\n code=C&state=${STATE} \r\n`, "C", true],
  ["an encoded code", `code=a%2B%2F%3D%253D&state=${STATE}`, "a+/=%3D", true],
  ["&amp; from a page's source", `?code=C&amp;state=${STATE}`, "C", true],
  ...Object.entries({
    "&amp; escaped twice": `http://a/?code=C&amp;amp;state=${STATE}`,
    "an attribute": `href="http://a/?code=C&#38;state=${STATE}"`,
    "markup as text": `&lt;http://a/?code=C&amp;state=${STATE}&gt;`,
    "JSON": `{"url":"http:\\/\\/a\\/?code=C\\u0026state=${STATE}"}`,
    "a full stop": `It was http://a/?code=C&state=${STATE}.`,
    "a closing bracket": `(sent to http://a/?code=C&state=${STATE})`,
    "a comma": `a:1/?code=C&state=${STATE}, as you said`,
    "backticks": `\`http://a/?code=C&state=${STATE}\``,
    "smart quotes": `\u201chttp://a/?code=C&state=${STATE}\u201d`,
    "guillemets": `\u00ab http://a/?code=C&state=${STATE} \u00bb`,
    "a markdown link": `[here](http://a/?code=C&state=${STATE})`,
    "a markdown link to itself":
      `[http://a/?code=C&state=${STATE}](http://a/?code=C&state=${STATE}).`,
    "bold text": `**http://a/?code=C&state=${STATE}**`,
    "a chat's link": `<http://a/?code=C&state=${STATE}|a:1/?code=C>`,
    "a curl line": `curl -i 'http://a/?code=C&state=${STATE}' -H 'A: b://c'`,
    "a curl line of cmd": `curl ^"http://a/?code=C^&state=${STATE}^" ^`,
    "a shell's backslashes": `http://a/\\?code\\=C\\&state\\=${STATE}`,
    "a log's request line": `GET /?code=C&state=${STATE} HTTP/1.1`,
    "a wrapped line": `http://a/?code=C&sta\r\nte=${STATE}\r\n`,
    "invisible characters": `\ufeffhttp://a/?code=C\u200b&state=${STATE}\u2060`,
  }).map(([what, input]): [string, string, string, boolean] => [
    what,
    input,
    "C",
    true,
  ]),
  ["a bare code", "ROW_abc-DEF.123", "ROW_abc-DEF.123", false],
  ["a bare code in backticks, a stop", "`ROW_abc-_`.", "ROW_abc-_", false],
  ["a bare code with + / =", "ROW_a+b/c==", "ROW_a+b/c==", false],
  ["a bare code, encoded", "ROW_a%2Bb%2Fc%3D%3D", "ROW_a+b/c==", false],
  ["a bare code, encoded twice", "ROW_%252F", "ROW_%2F", false],
  ["a bare code with a stray %", "ROW_%zz%", "ROW_%zz%", false],
  ["a bare code of broken UTF-8", "ROW_%E0%A4%A", "ROW_%E0%A4%A", false],
  ["a bare code in white space", "  ROW_abc\n", "ROW_abc", false],
];

for (const [what, input, code, stateMatched] of CODES) {
  test(`parseRedirect() reads ${what}`, () => {
    const result = parseRedirect(input, STATE);
    assert.equal(result.code, code);
    assert.equal(result.stateMatched, stateMatched);
  });
}

/** Input that brings no code, and the kind of the error. */
const NO_CODES: [string, string, string][] = [
  ["nothing", "", "invalid_redirect"],
  ["white space", " \n\t ", "invalid_redirect"],
  ["the word null", "null", "invalid_redirect"],
  ["a sentence", "it did not work", "invalid_redirect"],
  ["markup", "<a>b</a>", "invalid_redirect"],
  ["a control character", "ROW_\x1b[2J", "invalid_redirect"],
  ["a hidden line break", "ROW_a%0Ab", "invalid_redirect"],
  ["a URL without query", "http://localhost:3017/", "invalid_redirect"],
  ["a URL of another scheme", "ftp://a.example/x", "invalid_redirect"],
  ["a state alone", `?state=${STATE}`, "invalid_redirect"],
  ["an empty code", `?code=&state=${STATE}`, "invalid_redirect"],
  ["a code twice", `?code=C&code=D&state=${STATE}`, "invalid_redirect"],
  ["a state twice", `?code=C&state=${STATE}&state=x`, "invalid_redirect"],
  ["another state", "?code=C&state=other", "state_mismatch"],
  ["an empty state", "?code=C&state=", "state_mismatch"],
  ["a state with more", `?code=C&state=${STATE}x`, "state_mismatch"],
  ["another state and an error", "?error=x&state=other", "state_mismatch"],
  ["another state and a denial", "?code=null&state=other", "state_mismatch"],
  ["no state", "?code=C", "missing_state"],
  ["no state and a denial", "?error=auth_denied", "missing_state"],
  ["STATE in capitals", `?code=C&STATE=${STATE}`, "missing_state"],
  ["a denial", `?code=null&error=auth_denied&state=${STATE}`, "access_denied"],
  ["code=null", `?code=null&state=${STATE}`, "access_denied"],
  [
    "a denial and a code",
    `?code=C&error=access_denied&state=${STATE}`,
    "access_denied",
  ],
  [
    "an error and a code",
    `?code=C&error=oops&state=${STATE}`,
    "invalid_redirect",
  ],
];

for (const [what, input, kind] of NO_CODES) {
  test(`parseRedirect() throws ${kind} for ${what}`, async () => {
    const read = async () => await parseRedirect(input, STATE);
    const error = await failure(read());
    assert.equal(error.kind, kind);
    assert.ok(error.hint);
    assert.ok(!error.message.includes(STATE));
  });
}

test("parseRedirect() keeps parameters named like those of objects", () => {
  const names = ["__proto__", "constructor", "toString", "hasOwnProperty"];
  const more = names.map((name) => `&${name}=x`).join("");
  const { params } = parseRedirect(`?code=C&state=${STATE}${more}`, STATE);
  assert.deepEqual(Object.keys(params), ["code", "state", ...names]);
  assert.equal(Object.getPrototypeOf(params), Object.prototype);
  assert.equal(({} as Record<string, unknown>).x, undefined);
});

const MEGABYTE = 1 << 20;

/** Input of a megabyte that a careless pattern would chew on for ever. */
const LARGE: Record<string, string> = {
  "a bare code": "R".repeat(MEGABYTE),
  "a URL": `http://a/?code=${"C".repeat(MEGABYTE)}&state=other`,
  "white space": " ".repeat(MEGABYTE),
  "white space in a code": `a${" ".repeat(MEGABYTE)}b`,
  "question marks": "?".repeat(MEGABYTE),
  "question marks before a letter": `${"?".repeat(MEGABYTE)}a`,
  "brackets": "](".repeat(MEGABYTE / 2),
  "entities": "&amp;".repeat(MEGABYTE / 5),
  "percent signs": "%41".repeat(MEGABYTE / 3),
  "separators": `code=C${"&".repeat(MEGABYTE)}`,
  "distinct parameters": `?${
    Array.from({ length: MEGABYTE / 8 }, (_, i) => `p${i}=`).join("&")
  }&code=C`,
  "repeated names": "code=".repeat(MEGABYTE / 5),
  "slashes": "http:" + "/".repeat(MEGABYTE),
};

for (const [what, input] of Object.entries(LARGE)) {
  test(`parseRedirect() reads a megabyte of ${what} in linear time`, async () => {
    const took = await cpuTime(() => {
      try {
        parseRedirect(input, STATE);
      } catch (error) {
        assert.ok(error instanceof TikTokShopError);
        assert.ok(error.message.length < 500);
      }
    });
    // With the square of its length it would take hours.
    assert.ok(took < 30_000, `${took} ms`);
  });
}

// === Another redirect URL

const TUNNEL = "https://shop.example.com/tiktok/callback";

for (
  const [host, path] of [
    ["shop.example.com", "/tiktok/callback"],
    ["localhost:PORT", "/tiktok/callback"],
    ["localhost:PORT", "/"],
    ["shop.example.com", "/"],
  ] as const
) {
  loginTest(
    `startAuth() takes what a tunnel sends to ${host}${path}`,
    { redirectUrl: TUNNEL, sandbox: { redirectUrl: TUNNEL } },
    async (login) => {
      const { port, redirectUrl, reply } = login.flow;
      assert.equal(redirectUrl, TUNNEL);
      const { search } = await login.redirect();
      const answer = await exchangeRaw(
        port,
        rawRequest(port, {
          target: path + search,
          host: host.replace("PORT", String(port)),
        }),
      );
      assert.equal(answer.status, 200);
      await reply;
    },
  );
}

loginTest(
  "startAuth() names its port in the state for a redirect URL elsewhere",
  { redirectUrl: TUNNEL, sandbox: { redirectUrl: TUNNEL } },
  async (login) => {
    const { port, url } = login.flow;
    const [random, named, ...more] = new URL(url).searchParams.get("state")!
      .split(".");
    assert.match(random!, /^[\w-]{43}$/);
    assert.deepEqual([named, ...more], [String(port)]);
    const refused = await exchangeRaw(
      port,
      rawRequest(port, { host: "other.example.com" }),
    );
    assert.equal(refused.status, 421);
    const { search } = await login.changed({ state: random! });
    assert.equal(
      (await show(`http://localhost:${port}/${search}`)).status,
      400,
    );
  },
);

loginTest(
  "startAuth() has a state of 256 random bits",
  {},
  ({ flow }) => {
    const state = new URL(flow.url).searchParams.get("state")!;
    assert.equal(Buffer.from(state, "base64url").length, 32);
    return Promise.resolve();
  },
);

// === The page for a slow exchange, ended

test("startAuth() lets the browser go after 15 s and finishes", async () => {
  const { shown, took, name } = await startSlowLogin();
  assert.equal(shown.status, 202);
  assert.match(shown.page, /<main class="received">/);
  assertSafe(shown.headers, "a slow exchange");
  assertPolicyFits(shown.page, shown.headers);
  assertSelfContained(shown.page);
  assert.ok(took >= 14_900, `${took} ms`);
  assert.equal(name, "Harbour & Finch");
});
