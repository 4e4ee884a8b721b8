/**
 * The page of `relay` in a real Chromium: on another origin, over http and
 * over https, on the program's machine and on another one. The screenshots
 * are in `.cache/screenshots/`, for people to look at.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer as createHttp, type RequestListener } from "node:http";
import { createServer as createHttps } from "node:https";
import type { Server } from "node:net";
import { after, before, describe, it, test } from "node:test";
import {
  type Browser,
  launchChromium,
  lookAround,
  NO_CHROMIUM,
  openTab,
  type Tab,
  takeScreenshot,
  withTab,
} from "../support/chromium.ts";
import { type CliFixture, withCli } from "../support/cli_fixture.ts";
import { freePort, isListening, runProgram } from "../support/helpers.ts";
import { makeCertificate } from "../support/certificate.ts";
import { timed } from "../support/timing.ts";

/** A state as the program makes it, without the port. */
const RANDOM = "Zm9v-_".repeat(7) + "x";

let printed: Promise<string> | undefined;

/** What `relay` prints. */
function relayPage(): Promise<string> {
  return printed ??= runProgram(["relay"]).then(({ stdout }) => stdout);
}

// === What is printed

test("relay prints the same static page each time, and needs no setting", async () => {
  const { code, stdout, stderr } = await runProgram(["relay"]);
  assert.equal(stderr, "");
  assert.equal(code, 0);
  assert.match(stdout, /^<!doctype html>\n<html lang="en">/);
  assert.match(stdout, /<\/html>\n$/);
  assert.equal(stdout, await relayPage());
});

test("relay's page has a policy that allows its own source, and no other", async () => {
  const page = await relayPage();
  const [, policy = ""] = /Content-Security-Policy" content="([^"]+)"/
    .exec(page) ?? [];
  const hash = (tag: string) => {
    const [, source = "", ...more] = page.split(new RegExp(`</?${tag}>`));
    assert.equal(more.length, 1, `one <${tag}>`);
    return `'sha256-${createHash("sha256").update(source).digest("base64")}'`;
  };
  assert.deepEqual(policy.split("; "), [
    "default-src 'none'",
    `style-src ${hash("style")}`,
    `script-src ${hash("script")}`,
    "connect-src http://localhost:*",
    "base-uri 'none'",
    "form-action 'none'",
  ]);
  assert.doesNotMatch(page, /\s(on\w+|style)=|javascript:|https:\/\//);
  assert.match(page, /<meta name="referrer" content="no-referrer">/);
});

// === In Chromium

/** A web server that has the page, and nothing else. */
interface Host {
  origin: string;
  server: Server;
}

async function host(
  origin: string,
  make: (handler: RequestListener) => Server,
): Promise<Host> {
  const page = await relayPage();
  const server = make((_, response) => {
    response.setHeader("Content-Type", "text/html; charset=utf-8");
    response.end(page);
  });
  const port = Number(new URL(origin).port);
  await new Promise<void>((resolve) =>
    server.listen({ port, host: "127.0.0.1" }, resolve)
  );
  return { origin, server };
}

/** Ports that a state may name, but no redirect may be sent to. */
const STATES: [what: string, state: string | null][] = [
  ["port 80", `${RANDOM}.80`],
  ["port 1023", `${RANDOM}.1023`],
  ["port 0", `${RANDOM}.0`],
  ["port 65536", `${RANDOM}.65536`],
  ["port 99999", `${RANDOM}.99999`],
  ["port 022222", `${RANDOM}.022222`],
  ["port -3017", `${RANDOM}.-3017`],
  ["port 3017.5", `${RANDOM}.3017.5`],
  ["port 0x2000", `${RANDOM}.0x2000`],
  ["port 3e3", `${RANDOM}.3e3`],
  ["full-width digits", `${RANDOM}.３０１７`],
  ["a line after the port", `${RANDOM}.3017\n`],
  ["a user name for a port", `${RANDOM}.3017@evil.example`],
  ["a host after the port", `${RANDOM}.3017.evil.example`],
  ["a path after the port", `${RANDOM}.3017/../evil`],
  ["a space before the port", `${RANDOM}. 3017`],
  ["no port", RANDOM],
  ["no random part", ".3017"],
  ["a short random part", "abc.3017"],
  ["script", `<img src=x onerror=alert(1)>${RANDOM}.3017`],
  ["a URL", `https://evil.example/${RANDOM}.3017`],
  ["nothing", ""],
  ["no state at all", null],
];

/** Asserts that a tab has made requests to these origins only. */
function assertOnly(origins: string[], requests: string[]): void {
  const asked = new Set(requests.map((url) => new URL(url).origin));
  assert.deepEqual([...asked], origins);
}

describe("relay's page in Chromium", { skip: NO_CHROMIUM }, () => {
  /** On the machine of the program, and on another. */
  let here: Browser;
  let away: Browser;
  /** The page by http, and by https on an address that is not local. */
  let plain: Host;
  let secure: Host;
  let shared: Tab;

  before(async () => {
    plain = await host(`http://127.0.0.1:${await freePort()}`, createHttp);
    const port = await freePort();
    const { cert, key } = makeCertificate("relay.example");
    secure = await host(
      `https://relay.example:${port}`,
      (handler) => createHttps({ cert, key }, handler),
    );
    const args = [
      // Chromium takes it for a public host, as relays are.
      `--ip-address-space-overrides=127.0.0.1:${port}=public`,
      "--ignore-certificate-errors",
    ];
    const relay = "MAP relay.example 127.0.0.1";
    here = await launchChromium([...args, `--host-resolver-rules=${relay}`]);
    // Another machine's loopback: nothing of ours listens there.
    const rules = `${relay},MAP localhost 127.0.0.1:1`;
    away = await launchChromium([...args, `--host-resolver-rules=${rules}`]);
    shared = await openTab(away);
  });

  after(async () => {
    for (const browser of [here, away]) await browser?.close();
    for (const { server } of [plain, secure]) server.close();
  });

  /** A login with the relay's URL, and a person at its link. */
  function withLogin(
    relay: () => Host,
    browser: () => Browser,
    tab: Record<string, unknown>,
    run: (login: Login) => Promise<unknown>,
  ): Promise<void> {
    const redirectUrl = `${relay().origin}/`;
    return withCli(async (cli) => {
      const port = await freePort();
      const running = await cli.open(
        ["--port", String(port), "--redirect-url", redirectUrl, "--paste"],
        { input: "open" },
      );
      const local = `http://localhost:${port}`;
      const redirect = new URL(await cli.decide(running.link));
      await withTab(
        browser(),
        tab,
        (tab) => run({ cli, ...running, ...tab, port, local, redirect }),
      );
    }, { redirectUrl });
  }

  type Login = Awaited<ReturnType<CliFixture["open"]>> & Tab & {
    cli: CliFixture;
    port: number;
    local: string;
    redirect: URL;
  };

  async function assertDone({ ended }: Login) {
    const { code, stdout, stderr } = await ended;
    assert.equal(code, 0, stderr);
    assert.equal(JSON.parse(stdout).code, 0);
  }

  for (const name of ["http", "https"]) {
    const relay = () => name === "http" ? plain : secure;

    it(`moves a login on to the program, by ${name}`, () =>
      withLogin(relay, () => here, {}, async (login) => {
        const { page, link, local, cli } = login;
        await page.goto(link);
        await page.getByRole("button", { name: "Approve" }).click();
        await page.waitForURL(new RegExp(`^${local}/`));
        const title = await page.locator("h1").innerText();
        assert.equal(title, "Access granted");
        await assertDone(login);
        const known = [cli.sandbox.origin, relay().origin, local];
        assertOnly(known, login.requests);
        assert.deepEqual(login.complaints, []);
      }));

    it(`hands a denial on too, by ${name}`, () =>
      withLogin(relay, () => here, {}, async ({ page, link, ended }) => {
        await page.goto(link);
        await page.getByRole("button", { name: "Deny" }).click();
        await page.waitForURL(/^http:\/\/localhost/);
        assert.equal((await ended).code, 3);
      }));
  }

  it("shows the address where nothing listens, and it can be pasted", () =>
    withLogin(() => plain, () => away, {}, async (login) => {
      const { page, redirect, local, child } = login;
      await page.goto(redirect.href);
      await page.locator("#paste").waitFor();
      const shown = await page.locator("#url").inputValue();
      assert.equal(shown, `${local}/${redirect.search}`);
      assert.equal(await page.locator("#link").getAttribute("href"), shown);
      assert.equal(page.url(), redirect.href);
      // It says one thing: that it goes on, or that it could not.
      assert.equal(await page.locator("#on").isVisible(), false);
      child.stdin!.write(`${shown}\n`);
      await assertDone(login);
      assert.deepEqual(login.complaints, []);
    }));

  it("leads to an address that can be pasted where it may not look", () =>
    withLogin(() => secure, () => away, {}, async (login) => {
      const { page, redirect, local, child, failed } = login;
      const refused = page.waitForEvent("requestfailed");
      await page.goto(redirect.href);
      await refused;
      assert.deepEqual(failed, [`${local}/${redirect.search}`]);
      child.stdin!.write(`${failed[0]}\n`);
      await assertDone(login);
    }));

  it("shows the address by https too, if it may look", () =>
    withLogin(() => secure, () => away, {}, async (login) => {
      const { page, redirect, local, context, child } = login;
      await context.grantPermissions(["local-network-access"]);
      await page.goto(redirect.href);
      await page.locator("#paste").waitFor();
      const shown = await page.locator("#url").inputValue();
      assert.equal(shown, `${local}/${redirect.search}`);
      child.stdin!.write(`${shown}\n`);
      await assertDone(login);
    }));

  it("can do without script: its own address can be pasted", () =>
    withLogin(
      () => secure,
      () => here,
      { javaScriptEnabled: false },
      async (login) => {
        const { page, redirect, child } = login;
        await page.goto(redirect.href);
        const text = await page.locator("main").innerText();
        assert.doesNotMatch(text, /goes on/);
        assert.match(text, /Copy the whole address out of the address bar/);
        for (const part of ["#paste", "#other"]) {
          assert.equal(await page.locator(part).isVisible(), false);
        }
        await takeScreenshot(page, "relay-without-script");
        child.stdin!.write(`${page.url()}\n`);
        await assertDone(login);
      },
    ));

  it("shows a code without state for pasting, and the program asks", () =>
    withLogin(() => plain, () => here, {}, async (login) => {
      const { page, redirect, child, until, cli } = login;
      redirect.searchParams.delete("state");
      await page.goto(redirect.href);
      const shown = await page.locator("#url").inputValue();
      assert.equal(shown, redirect.href);
      assert.equal(await page.locator("#here").isVisible(), false);
      child.stdin!.write(`${shown}\n`);
      await until(/without state.*--allow-missing-state/);
      assert.equal(cli.sandbox.count("/api/v2/token/get"), 0);
    }));

  it("copies the address by its button", () =>
    withTab(away, {}, async ({ page, context }) => {
      const permissions = ["clipboard-read", "clipboard-write"];
      await context.grantPermissions(permissions);
      const query = `?code=a%2Bb&state=${RANDOM}.3017&locale=en`;
      await page.goto(`${plain.origin}/${query}`);
      await page.getByRole("button", { name: "Copy the address" }).click();
      await page.getByRole("button", { name: "Copied" }).waitFor();
      assert.equal(
        await page.evaluate("navigator.clipboard.readText()"),
        `http://localhost:3017/${query}`,
      );
    }));

  for (const [what, state] of STATES) {
    it(`goes nowhere for a state with ${what}`, async () => {
      const url = new URL(`${plain.origin}/?code=abc`);
      if (state !== null) url.searchParams.set("state", state);
      const { page } = shared;
      await visit(url.href);
      assert.equal(await page.locator("#url").inputValue(), url.href);
      assert.equal(await page.locator("#here").isVisible(), false);
      assertOnly([plain.origin], shared.requests);
      assert.deepEqual(shared.complaints, []);
    });
  }

  for (
    const [state, port] of [
      [`${RANDOM}.1024`, 1024],
      [`${RANDOM}.65535`, 65535],
      [`${"x".repeat(8000)}.3017`, 3017],
    ]
  ) {
    it(`looks at localhost alone for ${`${state}`.slice(-16)}`, async () => {
      await visit(`${plain.origin}/?code=a&state=${state}`);
      assertOnly([plain.origin, `http://localhost:${port}`], shared.requests);
      assert.deepEqual(shared.complaints, []);
    });
  }

  /** Goes to a URL in the one tab, which is faster than a tab for each. */
  async function visit(url: string): Promise<void> {
    shared.requests.length = 0;
    shared.complaints.length = 0;
    await shared.page.goto(url);
    await shared.page.locator("#paste").waitFor();
  }

  it("shows the address after 3 s where the port does not answer", async () => {
    const deaf = createHttp(() => {});
    const port = await freePort();
    await new Promise<void>((resolve) =>
      deaf.listen({ port, host: "127.0.0.1" }, resolve)
    );
    try {
      await withTab(here, {}, async ({ page }) => {
        const { took, slack } = await timed(async () => {
          await page.goto(`${plain.origin}/?code=a&state=${RANDOM}.${port}`);
          await page.locator("#paste").waitFor();
        });
        assert.ok(took > 2900 && took < 4500 + slack, `${took} ms`);
      });
    } finally {
      deaf.closeAllConnections();
      deaf.close();
    }
    assert.equal(await isListening(port), false);
  });

  it("says what to do when no answer came with it", () =>
    withTab(here, {}, async (tab) => {
      const { page, requests, complaints } = tab;
      await page.goto(`${plain.origin}/`);
      await page.locator("#other").waitFor();
      for (const part of ["#on", "#paste"]) {
        assert.equal(await page.locator(part).isVisible(), false);
      }
      assertOnly([plain.origin], requests);
      await lookAround(tab, "relay-other");
      assert.deepEqual(complaints, []);
    }));

  it("is calm in light and dark, narrow and wide", () =>
    withTab(away, {}, async (tab) => {
      const query = `?code=ROW_${"aB3-".repeat(20)}&state=${RANDOM}.3017` +
        "&app_key=6f3k9d2m1x8q&locale=en&shop_region=GB";
      await tab.page.goto(`${plain.origin}/${query}`);
      await tab.page.locator("#paste").waitFor();
      await lookAround(tab, "relay-paste");
    }));
});
