/**
 * An agency's server as the README shows it: on Deno, on Node and under Hono,
 * in a real Chromium, and among hostile requests.
 */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createRequire } from "node:module";
import { describe, it, test } from "node:test";
import { memoryStore, type TokenStore } from "../../mod.ts";
import type { Sandbox, SandboxOptions } from "../../scripts/sandbox.ts";
import { exchangeRaw, rawRequest } from "../support/callback_helpers.ts";
import { eventually } from "../support/child_processes.ts";
import {
  type Browser,
  launchChromium,
  NO_CHROMIUM,
  type Tab,
  withTab,
} from "../support/chromium.ts";
import { Random } from "../support/fuzz.ts";
import { freePort, ON_DENO } from "../support/helpers.ts";
import { withSandbox } from "../support/token_host.ts";
import { type Agency, serveAgency } from "./agency_server.ts";
import { serveOnNode } from "./node_adapter.ts";

// === Where it runs

type Handler = (request: Request) => Promise<Response>;
type Serve = (port: number, handler: Handler) => Promise<() => Promise<void>>;

const serveOnDeno: Serve = async (port, handler) => {
  const { Deno } = globalThis as unknown as {
    Deno: {
      serve(options: object, handler: Handler): { shutdown(): Promise<void> };
    };
  };
  const address = { hostname: "127.0.0.1", port, onListen: () => {} };
  const server = Deno.serve(address, handler);
  return await Promise.resolve(() => server.shutdown());
};

const serveByAdapter: Serve = async (port, handler) => {
  const server = serveOnNode(`http://localhost:${port}`, handler);
  await once(server.listen(port, "127.0.0.1"), "listening");
  return async () => {
    server.closeAllConnections();
    await once(server.close(), "close");
  };
};

/** Under Hono, on what this test runs on. */
const serveByHono: Serve = (port, handler) => {
  // By path, for Deno does not find tests/node_modules by a bare name.
  const { Hono } = createRequire(import.meta.url)("hono");
  const app = new Hono();
  app.all(
    "*",
    (context: { req: { raw: Request } }) => handler(context.req.raw),
  );
  const serve = ON_DENO ? serveOnDeno : serveByAdapter;
  return serve(port, (request) => app.fetch(request));
};

const HOSTS: Record<string, Serve> = {
  ...ON_DENO && { "Deno.serve": serveOnDeno },
  "node_adapter.ts": serveByAdapter,
  "Hono": serveByHono,
};

// === An agency, and browsers

interface Setup {
  serve?: Serve;
  sandbox?: SandboxOptions;
  agency?: Partial<Agency>;
}

/** A running server, its sandbox, and what it was asked. */
interface Running {
  url: string;
  port: number;
  sandbox: Sandbox;
  store: TokenStore;
  app: Agency;
  /** Method, path, status and cookie of each request. */
  seen: { line: string; cookie: string | null }[];
  /** How often the token host was asked. */
  exchanges: () => number;
}

async function withAgency(
  run: (agency: Running) => Promise<void>,
  { serve = serveByAdapter, sandbox: options, agency }: Setup = {},
): Promise<void> {
  const port = await freePort();
  const url = `http://localhost:${port}/tiktok/`;
  const [redirectUrl, webhookUrl] = [`${url}callback`, `${url}webhook`];
  const all = { redirectUrl, webhookUrl, ...options };
  await withSandbox(async (sandbox) => {
    const store = memoryStore();
    const app = { ...appAt(sandbox, url, store), ...agency };
    const seen: Running["seen"] = [];
    const stop = await serve(port, async (request) => {
      const { method, headers } = request;
      const note = { line: "", cookie: headers.get("cookie") };
      seen.push(note);
      const response = await serveAgency(app, request);
      const { pathname } = new URL(request.url);
      note.line = `${method} ${pathname} ${response.status}`;
      return response;
    });
    const exchanges = () => sandbox.count("/api/v2/token/get");
    try {
      await run({ url, port, sandbox, store, app, seen, exchanges });
    } finally {
      await stop();
    }
  }, all);
}

const OURS = "Bearer of the agency's own programs";

function appAt(sandbox: Sandbox, url: string, store: TokenStore): Agency {
  const { appKey, appSecret, serviceId, authorizationEndpoint } = sandbox;
  const { tokenEndpoint, refreshEndpoint, apiEndpoint } = sandbox;
  const endpoints = { tokenEndpoint, refreshEndpoint, apiEndpoint };
  return {
    ...{ appKey, appSecret, serviceId, authorizationEndpoint, ...endpoints },
    ...{ url, store },
    isOurs: ({ headers }) => headers.get("authorization") === OURS,
  };
}

/** What a browser keeps and sends: cookies by name, the oldest first. */
class Visitor {
  readonly cookies = new Map<string, string>();

  async get(url: string | URL): Promise<Response> {
    const cookie = [...this.cookies].map((pair) => pair.join("=")).join("; ");
    const headers: Record<string, string> = cookie ? { cookie } : {};
    const response = await fetch(url, { headers, redirect: "manual" });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)!;
      this.cookies.delete(name!);
      if (!line.includes("Max-Age=0;")) this.cookies.set(name!, value!);
    }
    return response;
  }

  /** The link that `GET /connect` leads to. */
  async connect(url: string): Promise<string> {
    const response = await this.get(`${url}connect`);
    await response.body?.cancel();
    assert.equal(response.status, 302);
    return response.headers.get("location")!;
  }

  async status(url: string | URL): Promise<number> {
    const response = await this.get(url);
    await response.body?.cancel();
    return response.status;
  }
}

async function askOrders(url: string, query: string): Promise<Response> {
  const headers = { authorization: OURS };
  return await fetch(`${url}orders?${query}`, { headers });
}

/** Once the shops of a seller are known. */
function knowsShops(store: TokenStore, name: string): Promise<void> {
  const shops = async () => (await store.load(name))?.meta.shops ?? [];
  return eventually(async () => (await shops()).length > 0, "shops are kept");
}

for (const [host, serve] of Object.entries(HOSTS)) {
  test(`an agency's server takes a seller in, calls the API, and lets the seller go, by ${host}`, () =>
    withAgency(async ({ url, sandbox, store, seen, exchanges }) => {
      const visitor = new Visitor();
      const redirect = await sandbox.approve(await visitor.connect(url));
      const page = await visitor.get(redirect);
      assert.equal(page.status, 200);
      assert.match(await page.text(), /^.+ is connected$/);
      assert.equal(visitor.cookies.size, 0);
      const [seller, ...others] = await store.list();
      assert.deepEqual(others, []);
      await knowsShops(store, seller!);
      const { data, meta } = (await store.load(seller!))!;
      const shop = meta.shops![0]!.id;
      const orders = await askOrders(url, `seller=${seller}&shop=${shop}`);
      assert.match(await orders.text(), /"code":0,.*"orders":\[/);
      assert.equal(await new Visitor().status(`${url}orders?seller=x`), 403);
      await sandbox.deauthorize(data.open_id);
      assert.deepEqual(await store.list(), []);
      assert.ok(seen.some(({ line }) => line === "POST /tiktok/webhook 200"));
      assert.equal(exchanges(), 1);
    }, { serve }));
}

test("an agency's server lets many tabs finish, and keeps five cookies at most", () =>
  withAgency(async ({ url, sandbox, exchanges }) => {
    const visitor = new Visitor();
    const links: string[] = [];
    for (let i = 0; i < 7; i++) links.push(await visitor.connect(url));
    assert.equal(visitor.cookies.size, 5);
    const redirects = await Promise.all(
      links.map((link) => sandbox.approve(link)),
    );
    const statuses: number[] = [];
    for (const redirect of redirects) {
      statuses.push(await visitor.status(redirect));
    }
    // The first two were pushed out by the last two.
    assert.deepEqual(statuses, [403, 403, 200, 200, 200, 200, 200]);
    assert.equal(exchanges(), 5);
    assert.equal(visitor.cookies.size, 0);
  }));

test("an agency's server spends no code of a redirect that is not this browser's", () =>
  withAgency(async ({ url, sandbox, store, exchanges }) => {
    const [visitor, other] = [new Visitor(), new Visitor()];
    const link = await visitor.connect(url);
    const redirect = new URL(await sandbox.approve(link));
    const changed = (change: (query: URLSearchParams) => void) => {
      const url = new URL(redirect);
      change(url.searchParams);
      return url;
    };
    await other.connect(url);
    assert.equal(await other.status(redirect), 403);
    const wrong = [
      changed((query) => query.set("state", "another")),
      changed((query) => query.delete("state")),
      changed((query) => query.set("error", "auth_denied")),
      new URL(await sandbox.approve(link, { deny: true })),
    ];
    for (const url of wrong) {
      assert.equal(await visitor.status(url), 403, url.search);
    }
    const head = await fetch(redirect, { method: "HEAD" });
    assert.equal(head.status, 403);
    assert.equal(exchanges(), 0);
    assert.equal(await visitor.status(redirect), 200);
    assert.equal(await visitor.status(redirect), 403, "a second use");
    assert.equal(exchanges(), 1);
    assert.equal((await store.list()).length, 1);
  }));

test("an agency's server never minds the Host header", () =>
  withAgency(async ({ port, sandbox }) => {
    for (const host of ["evil.example", "localhost", "a@b:1", ""]) {
      const target = "/tiktok/connect";
      const request = rawRequest(port, { target, host });
      const { status, headers } = await exchangeRaw(port, request);
      if (status === 400) continue; // the runtime refuses it
      assert.equal(status, 302);
      const location = headers.get("location")!;
      assert.ok(location.startsWith(sandbox.authorizationEndpoint));
      assert.doesNotMatch(JSON.stringify([...headers]), /evil/);
    }
  }));

test("an agency's server marks its cookies for browsers", () =>
  withSandbox(async (sandbox) => {
    for (
      const [url, secure] of [
        ["http://localhost:3017/", ""],
        ["http://127.0.0.1/tiktok/", ""],
        ["https://agency.example/", "; Secure"],
        ["http://agency.example/", "; Secure"],
        ["https://localhost.evil.example/", "; Secure"],
      ]
    ) {
      const app = appAt(sandbox, url!, memoryStore());
      const request = new Request(`${url}connect`);
      const { headers } = await serveAgency(app, request);
      const [cookie, ...others] = headers.getSetCookie();
      assert.deepEqual(others, []);
      const state = new URL(headers.get("location")!).searchParams.get("state");
      assert.match(state!, /^[0-9a-f-]{72}$/);
      const marks = `Max-Age=1800; Path=/; HttpOnly; SameSite=Lax${secure}`;
      assert.equal(cookie, `connect-${state}=; ${marks}`);
    }
  }));

test("an agency's server keeps a seller who came back after an old webhook", () =>
  withAgency(async ({ url, sandbox, store, app }) => {
    const visitor = new Visitor();
    await visitor.status(await sandbox.approve(await visitor.connect(url)));
    const [seller = ""] = await store.list();
    await knowsShops(store, seller);
    const { meta } = (await store.load(seller))!;
    const tell = async (timestamp: number, signed = true) => {
      const shop_id = meta.shops!.at(-1)!.id;
      const body = JSON.stringify({ type: 6, shop_id, timestamp, data: {} });
      const authorization = createHmac("sha256", app.appSecret)
        .update(app.appKey + (signed ? body : "")).digest("hex");
      const init = { method: "POST", body, headers: { authorization } };
      const response = await fetch(`${url}webhook`, init);
      await response.body?.cancel();
      return [response.status, (await store.list()).length];
    };
    assert.deepEqual(await tell(meta.obtained_at! - 60), [200, 1]);
    assert.deepEqual(await tell(meta.obtained_at! + 60, false), [403, 1]);
    assert.deepEqual(await tell(meta.obtained_at! + 60), [200, 0]);
  }));

// === Hostile requests

test("an agency's server spends no code and leaks nothing in 10,000 hostile requests", () =>
  withAgency(async (agency) => {
    const { url, port, sandbox, store, app, exchanges } = agency;
    const victim = new Visitor();
    await victim.status(await sandbox.approve(await victim.connect(url)));
    await knowsShops(store, (await store.list())[0]!);
    const kept = JSON.stringify(await store.load((await store.list())[0]!));
    const redirect = new URL(await sandbox.approve(await victim.connect(url)));
    const state = redirect.searchParams.get("state")!;
    const { access_token, refresh_token } = JSON.parse(kept).data;
    const secrets = [app.appSecret, OURS, access_token, refresh_token];
    const attacker = new Attacker(redirect.searchParams.get("code")!, state);
    for (let i = 0; i < 10_000; i++) {
      const { target, ...init } = attacker.request();
      const { origin } = new URL(url);
      const request = new Request(origin + target, init);
      const response = await serveAgency(app, request);
      const text = await response.text() +
        JSON.stringify([...response.headers]);
      const told = secrets.filter((secret) => text.includes(secret));
      assert.deepEqual(told, [], `${init.method} ${target}`);
      assert.ok([302, 403].includes(response.status), target);
    }
    for (let i = 0; i < 300; i++) {
      const { target, method, headers = {}, body } = attacker.request();
      const request = rawRequest(port, { target, method, headers, body });
      const { status } = await exchangeRaw(port, request);
      assert.ok(status < 500, target);
    }
    assert.equal(exchanges(), 1);
    assert.equal(
      JSON.stringify(await store.load((await store.list())[0]!)),
      kept,
    );
    assert.equal(await victim.status(redirect), 200);
    assert.equal(exchanges(), 2);
  }));

interface Attack {
  target: string;
  method: string;
  headers?: Record<string, string>;
  body?: string;
}

/** Makes requests of one who knows a victim's code or state, not the cookie. */
class Attacker {
  readonly #random = new Random();
  readonly #codes: string[];
  readonly #states: string[];

  constructor(code: string, state: string) {
    this.#codes = [code, "ROW_made_up", "null", "", "%00", "%ff", "a%26b"];
    const made = "0".repeat(72);
    this.#states = [state, made, "", "undefined", "__proto__", "%0d%0aa:b"];
  }

  request(): Attack {
    const random = this.#random;
    const methods = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"];
    const method = random.oneIn(3) ? random.pick(methods) : "GET";
    const target = this.#path() + this.#query();
    const hasBody = !/^(GET|HEAD)$/.test(method) && random.oneIn(2);
    const body = hasBody ? random.word(random.below(2000)) : undefined;
    return { method, target, headers: this.#headers(), body };
  }

  #path(): string {
    const names = ["connect", "callback", "callback", "orders", "webhook"];
    const name = this.#random.pick([...names, "", "..%2f", "connect/"]);
    const bases = ["/tiktok/", "/tiktok/", "/tiktok/", "/", "//evil.example/"];
    return this.#random.pick(bases) + name;
  }

  #query(): string {
    const random = this.#random;
    const pairs = ["code", "state", "error", "seller", "shop", "__proto__"]
      .filter(() => !random.oneIn(2))
      .map((name) => {
        const values = name === "code" ? this.#codes : this.#states;
        return `${name}=${random.pick(values)}`;
      });
    return random.oneIn(9) ? `?${random.word(9)}` : `?${pairs.join("&")}`;
  }

  /** Cookies that no browser of ours would send, keys that nobody gave. */
  #headers(): Record<string, string> {
    const random = this.#random;
    const cookies = ["connect-=", "connect-other=1", "connect", "a=connect-b=1"]
      .concat(";;;", `connect-${random.word()}=`, "x".repeat(4000));
    const keys = ["Bearer", "Bearer x", "0".repeat(64), "undefined"];
    return {
      ...!random.oneIn(3) && { cookie: random.pick(cookies) },
      ...!random.oneIn(3) && { authorization: random.pick(keys) },
      ...random.oneIn(9) && { "x-forwarded-host": "evil.example" },
    };
  }
}

// === In a browser

describe("an agency's server in Chromium", {
  skip: NO_CHROMIUM || undefined,
}, () => {
  const inBrowser = (
    name: string,
    run: (agency: Running, tab: Tab, browser: Browser) => Promise<void>,
  ) =>
    it(name, () =>
      withAgency(async (agency) => {
        const browser = await launchChromium();
        try {
          await withTab(browser, {}, (tab) => run(agency, tab, browser));
        } finally {
          await browser.close();
        }
      }));
  const click = async ({ page }: Pick<Tab, "page">, name: string) => {
    await page.getByRole("button", { name }).click();
    await page.waitForURL(/\/tiktok\/callback/);
    return await page.locator("body").innerText();
  };

  inBrowser("takes a seller in, once, and not one who denies", async (
    { url, store, exchanges },
    { page },
  ) => {
    await page.goto(`${url}connect`);
    assert.match(await click({ page }, "Deny"), /not approved/);
    assert.deepEqual(await store.list(), []);
    await page.goto(`${url}connect`);
    assert.match(await click({ page }, "Approve"), / is connected$/);
    const used = page.url();
    assert.equal((await store.list()).length, 1);
    await page.goto(used);
    assert.match(await page.locator("body").innerText(), /not approved/);
    assert.equal(exchanges(), 1);
  });

  inBrowser(
    "lets two tabs finish, and none with a wrong state or a stale cookie",
    async (
      { url, exchanges, sandbox },
      { page, context },
    ) => {
      const other = await context.newPage();
      await page.goto(`${url}connect`);
      await other.goto(`${url}connect`);
      const link = page.url();
      const wrong = new URL(await sandbox.approve(link));
      wrong.searchParams.set("state", "wrong");
      const third = await context.newPage();
      await third.goto(wrong.href);
      assert.match(await third.locator("body").innerText(), /not approved/);
      assert.equal(exchanges(), 0);
      assert.match(await click({ page }, "Approve"), / is connected$/);
      assert.match(await click({ page: other }, "Approve"), / is connected$/);
      // Its cookie was for one login, which is over.
      await page.goto(await sandbox.approve(link));
      assert.match(await page.locator("body").innerText(), /not approved/);
      assert.equal(exchanges(), 2);
    },
  );

  inBrowser("sends no cookie with what another site asks for", async (
    { url, exchanges, sandbox, seen },
    { page },
  ) => {
    await page.goto(`${url}connect`);
    const redirect = await sandbox.approve(page.url());
    const attack = `<img src="${redirect}"><iframe src="${redirect}"></iframe>
      <form method="post" action="${redirect}" target="frame"></form>
      <iframe name="frame"></iframe><script>
      fetch(${JSON.stringify(redirect)}, { mode: "no-cors",
        credentials: "include" });
      document.forms[0].submit()</script>`.replaceAll("&", "&amp;");
    const site = createServer((_, reply) => {
      reply.setHeader("content-type", "text/html");
      reply.end(
        attack.replace(
          /(fetch\("[^"]*")/,
          (text) => text.replaceAll("&amp;", "&"),
        ),
      );
    });
    await once(site.listen(0, "127.0.0.1"), "listening");
    const { port } = site.address() as AddressInfo;
    await page.goto(`http://127.0.0.1:${port}/`);
    const tried = () => seen.filter(({ line }) => /callback 403$/.test(line));
    await eventually(() => tried().length === 4, "all four were sent");
    assert.deepEqual(tried().map(({ cookie }) => cookie).filter(Boolean), []);
    assert.equal(exchanges(), 0);
    await page.goto(redirect);
    assert.match(await page.locator("body").innerText(), / is connected$/);
    site.closeAllConnections();
    await once(site.close(), "close");
  });
});
