/**
 * The sandbox's own page: what it shows, what its buttons do and for whom, and
 * its looks in a real Chromium, where one is installed.
 */
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { exchangeCode, parseWebhook } from "../../mod.ts";
import {
  type Sandbox,
  type SandboxOptions,
  type SandboxSeller,
  startSandbox,
} from "../../scripts/sandbox.ts";
import {
  launchChromium,
  look,
  lookAround,
  NO_CHROMIUM,
  type Tab,
  withTab,
} from "../support/chromium.ts";

async function withSandbox(
  options: SandboxOptions,
  run: (sandbox: Sandbox) => Promise<void>,
): Promise<void> {
  const sandbox = await startSandbox({ retryDelay: 1, ...options });
  try {
    await run(sandbox);
  } finally {
    await sandbox.stop();
  }
}

/** The app's server: it takes webhooks and the redirect alike. */
async function withApp(
  run: (url: string, received: string[]) => Promise<void>,
): Promise<void> {
  const received: string[] = [];
  const server = createServer(async (request, response) => {
    let text = `${request.method} ${request.url} `;
    for await (const chunk of request) text += chunk;
    if (request.url !== "/favicon.ico") received.push(text);
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<!doctype html><title>The app</title>");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  try {
    await run(`http://127.0.0.1:${port}/`, received);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

interface Shown {
  status: number;
  headers: Headers;
  text: string;
}

/** A button's request, as the page's form sends it. */
async function press(
  { origin }: Sandbox,
  form: Record<string, string>,
  headers: Record<string, string> = { origin },
): Promise<Shown> {
  const body = new URLSearchParams(form);
  const init = { method: "POST", body, headers, redirect: "manual" } as const;
  const reply = await fetch(`${origin}/`, init);
  const { status } = reply;
  return { status, headers: reply.headers, text: await reply.text() };
}

async function show({ origin }: Sandbox): Promise<Shown> {
  const reply = await fetch(`${origin}/`);
  const { status, headers } = reply;
  return { status, headers, text: await reply.text() };
}

const EVIL = `"><script>alert('&')</script>`;

function seller(more: Partial<SandboxSeller> = {}): SandboxSeller {
  const shop = { cipher: "c", code: "c", id: "77", name: "Nord", region: "DE" };
  return {
    openId: "7010aNORD",
    name: "Nord & Söhne",
    region: "DE",
    userType: 0,
    scopes: ["seller.authorization.info"],
    shops: [{ ...shop, seller_type: "LOCAL" }],
    ...more,
  };
}

// === Over HTTP

test("the page says what it is, whose the sellers are, and no secret", () =>
  withSandbox({ sellers: [seller()] }, async (sandbox) => {
    const { appKey, appSecret, serviceId, origin } = sandbox;
    const { data } = await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
    const wrong = "/authorization/202309/shops?app_key=k&sign=thesign";
    await (await fetch(origin + wrong)).body?.cancel();
    const { status, headers, text } = await show(sandbox);
    assert.equal(status, 200);
    assert.match(text, /<strong>Sandbox, not TikTok\.<\/strong>/);
    for (
      const shown of [
        ...[appKey, serviceId, sandbox.tokenEndpoint, sandbox.redirectUrl],
        ...["Nord &#38; Söhne", "authorized, 1 ×", "36009004"],
        "GET /authorization/202309/shops",
        "GET /api/v2/token/get",
      ]
    ) assert.ok(text.includes(shown), shown);
    const secrets = [appSecret, data.access_token, data.refresh_token];
    for (const secret of [...secrets, "thesign"]) {
      assert.ok(!text.includes(String(secret)));
    }
    assert.equal(headers.get("cache-control"), "no-store");
    const policy = headers.get("content-security-policy") ?? "";
    assert.match(policy, /^default-src 'none'; style-src 'sha256-/);
    assert.match(policy, /frame-ancestors 'none'/);
    assert.doesNotMatch(policy, /unsafe|script-src/);
    assert.equal(sandbox.count("/"), 0, "visits are no requests");
  }));

test("the page escapes everything", () => {
  const shop = { ...seller().shops[0]!, name: EVIL, region: EVIL };
  const options = {
    serviceId: EVIL,
    appKey: EVIL,
    sellers: [
      seller({ openId: EVIL, name: EVIL, region: EVIL, shops: [shop] }),
    ],
  };
  return withSandbox(options, async (sandbox) => {
    await (await fetch(`${sandbox.origin}/<b>'?"`)).body?.cancel();
    const to = `http://127.0.0.1:1/"><script>`;
    await press(sandbox, { action: "trigger", type: "1", to, seller: EVIL });
    const { status, text } = await show(sandbox);
    assert.equal(status, 200);
    assert.doesNotMatch(text, /<script|<b>/);
  });
});

test("Approve leads to the app with a code and without state", () =>
  withSandbox({ sellers: [seller()] }, async (sandbox) => {
    const form = { action: "approve", seller: "7010aNORD" };
    const { status, headers } = await press(sandbox, form);
    assert.equal(status, 302);
    const url = new URL(headers.get("location") ?? "");
    assert.equal(url.origin + url.pathname, sandbox.redirectUrl);
    assert.deepEqual([...url.searchParams.keys()], [
      ...["app_key", "code", "locale", "shop_region"],
    ]);
    const code = url.searchParams.get("code") ?? "";
    const { data } = await exchangeCode(sandbox, code, sandbox);
    assert.equal(data.open_id, "7010aNORD");
  }));

test("Send and Deauthorize send webhooks, and the page shows the answers", () =>
  withApp((webhookUrl, received) =>
    withSandbox({ sellers: [seller()], webhookUrl }, async (sandbox) => {
      const to = `${webhookUrl}other`;
      const sent = { action: "trigger", type: "14", seller: "7010aNORD", to };
      const back = await press(sandbox, sent);
      assert.deepEqual([back.status, back.headers.get("location")], [
        ...[303, "/#webhooks"],
      ]);
      await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
      const end = { action: "deauthorize", seller: "7010aNORD" };
      assert.equal(
        (await press(sandbox, end)).headers.get("location"),
        "/#sellers",
      );
      const bodies = received.map((text) => text.slice(text.indexOf("{")));
      const types = bodies.map((body) => parseWebhook(body).type);
      assert.deepEqual(types, [14, 6]);
      assert.match(received[0]!, /^POST \/other /);
      const { text } = await show(sandbox);
      for (const body of bodies) {
        assert.ok(text.includes(parseWebhook(body).notificationId));
      }
      assert.match(text, /SELLER_DEAUTHORIZATION[\s\S]*<span>200/);
      assert.match(text, /not authorized/);
    })
  ));

test("Send comes back while the repeats go on", () =>
  withSandbox({ retryDelay: 60_000 }, async (sandbox) => {
    const to = "http://127.0.0.1:1/";
    const sent = { action: "trigger", type: "1", seller: "0", to };
    assert.equal((await press(sandbox, sent)).status, 303);
    assert.match((await show(sandbox)).text, /<span class="bad">no answer: /);
  }));

test("no page of another site presses a button", () =>
  withSandbox({}, async (sandbox) => {
    const { origin } = sandbox;
    await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
    const form = { action: "deauthorize", seller: "0" };
    const strangers: Record<string, string>[] = [
      {},
      { origin: "null" },
      { origin: "https://evil.example" },
      { origin: origin.replace("127.0.0.1", "localhost") },
      { origin: `${origin}0` },
    ];
    for (const headers of strangers) {
      const { status } = await press(sandbox, form, headers);
      assert.equal(status, 403, JSON.stringify(headers));
    }
    const rebound = request(origin, { headers: { host: "evil.example" } });
    const [answer] = await once(rebound.end(), "response");
    assert.equal(answer.statusCode, 421, "another name leads to 127.0.0.1");
    answer.resume();
    const query = new URLSearchParams(form);
    assert.equal((await fetch(`${origin}/?${query}`)).status, 200);
    assert.match((await show(sandbox)).text, /authorized, 1 ×/);
    await press(sandbox, form);
    assert.doesNotMatch((await show(sandbox)).text, /authorized, 1 ×/);
  }));

test("the page answers what no button says with a page", () =>
  withSandbox({}, async (sandbox) => {
    const wrong: Record<string, string>[] = [
      {},
      { action: "explode" },
      { action: "approve", seller: "Nobody" },
      { action: "deauthorize" },
      { action: "trigger", type: "2", to: "http://127.0.0.1:1/", seller: "0" },
      { action: "trigger", type: "1", to: "nowhere", seller: "0" },
      { action: "trigger", type: "1", to: "", seller: "0" },
    ];
    for (const form of wrong) {
      const { status, text } = await press(sandbox, form);
      assert.equal(status, 400, JSON.stringify(form));
      assert.match(text, /<h1>This cannot be done<\/h1>/);
    }
    const put = await fetch(`${sandbox.origin}/`, { method: "PUT" });
    await put.body?.cancel();
    assert.equal(put.status, 405);
    assert.equal(put.headers.get("allow"), "GET, HEAD, POST");
    const head = await fetch(`${sandbox.origin}/`, { method: "HEAD" });
    assert.equal(head.status, 200);
    assert.deepEqual(sandbox.deliveries, []);
  }));

// === A real browser

const LONG = "Donaudampfschifffahrtsgesellschaft".repeat(5);

/** A sandbox with a past, looked at in light and dark, narrow and wide. */
async function lookAtPage(tab: Tab): Promise<void> {
  const sellers = [
    seller(),
    seller({ openId: "7010aLONG", name: LONG, region: "US" }),
    seller({ openId: "7010aARAB", name: "متجر الأناقة (Dubai) 2024!" }),
  ];
  await withApp((webhookUrl) =>
    withSandbox({ sellers, webhookUrl }, async (sandbox) => {
      const { page } = tab;
      await page.goto(`${sandbox.origin}/`);
      await lookAround(tab, "home-new");
      await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
      const timestamp = Math.floor(Date.now() / 1000);
      const unsigned = "/authorization/202309/shops?sign=00&timestamp=" +
        `${timestamp}&app_key=${sandbox.appKey}`;
      await (await fetch(sandbox.origin + unsigned)).body?.cancel();
      await (await fetch(`${sandbox.origin}/${LONG}/202309/x`)).body?.cancel();
      await sandbox.trigger("PRODUCT_AUDIT_STATUS_CHANGE");
      await sandbox.trigger(1, { to: "http://127.0.0.1:1/" + LONG });
      await page.goto(`${sandbox.origin}/`);
      await lookAround(tab, "home");
      await page.emulateMedia({ forcedColors: "active", colorScheme: "dark" });
      await look(tab, "home-forced-colors");
      assert.deepEqual([...tab.complaints, ...tab.failed], []);
      const foreign = (url: string) => !url.startsWith(sandbox.origin);
      assert.deepEqual(tab.requests.filter(foreign), []);
    })
  );
}

/** A person's way through all buttons, with a keyboard's or a mouse's click. */
async function pressButtons({ page, complaints }: Tab): Promise<void> {
  await withApp((redirectUrl, received) =>
    withSandbox(
      { sellers: [seller()], redirectUrl, webhookUrl: `${redirectUrl}hooks` },
      async (sandbox) => {
        const button = (name: string) => page.getByRole("button", { name });
        await page.goto(`${sandbox.origin}/`);
        await button("Send").click();
        await page.waitForURL(/#webhooks$/);
        assert.match(received[0]!, /^POST \/hooks \{"type":1,/);
        await button("Approve Nord & Söhne").click();
        await page.waitForURL(/code=/);
        const code = new URL(page.url()).searchParams.get("code") ?? "";
        await exchangeCode(sandbox, code, sandbox);
        await page.goto(`${sandbox.origin}/`);
        await button("Deauthorize Nord & Söhne").click();
        await page.waitForURL(/#sellers$/);
        assert.match(received.at(-1)!, /^POST \/hooks \{"type":6,/);
        assert.equal(await button("Deauthorize Nord & Söhne").count(), 0);
        assert.deepEqual(complaints, []);
      },
    )
  );
}

/** Another site's form, which a person was made to press. */
async function pressElsewhere({ page }: Tab): Promise<void> {
  await withSandbox({}, (sandbox) =>
    withApp(async (elsewhere) => {
      await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
      await page.goto(elsewhere);
      await page.evaluate(`
        const form = document.createElement("form");
        form.method = "post";
        form.action = ${JSON.stringify(`${sandbox.origin}/`)};
        form.innerHTML = '<input name="action" value="deauthorize">' +
          '<input name="seller" value="0">';
        document.body.append(form);
        form.submit();
      `);
      await page.waitForURL(new RegExp(`^${sandbox.origin}/$`));
      assert.match((await show(sandbox)).text, /authorized, 1 ×/);
    }));
}

test("The sandbox's page in Chromium", { skip: NO_CHROMIUM }, async (t) => {
  const browser = await launchChromium();
  const inTab = (
    name: string,
    run: (tab: Tab) => Promise<void>,
    options: Record<string, unknown> = {},
  ) => t.test(name, () => withTab(browser, options, run));
  try {
    await inTab("can be read in light and dark, narrow and wide", lookAtPage);
    const script = { javaScriptEnabled: false };
    await inTab("works by its buttons, without script", pressButtons, script);
    await inTab("obeys no form of another site", pressElsewhere);
  } finally {
    await browser.close();
  }
});
