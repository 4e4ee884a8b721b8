/**
 * Injected texts with markup, terminal controls and characters that turn the
 * writing direction, in every value that reaches a page or a terminal. They are
 * shown, and do nothing, in a real Chromium and in tmux.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { SandboxSeller } from "../../scripts/sandbox.ts";
import { type Login, startLogin } from "../support/callback_helpers.ts";
import {
  launchChromium,
  NO_CHROMIUM,
  type Tab,
  withTab,
} from "../support/chromium.ts";
import { type CliFixture, withCli } from "../support/cli_fixture.ts";
import { ON_DENO } from "../support/helpers.ts";
import { howOften, note, Random, SEED } from "../support/fuzz.ts";
import {
  NO_TERMINAL,
  type Terminal,
  withTerminal,
} from "../support/terminal.ts";
import { refusal, withHost } from "../support/token_host.ts";

const COUNT = howOften(12);

// === Texts

const MARKUP = [
  "<script>window.injected=1;alert(1)</script>",
  "<img src=x onerror=window.injected=1>",
  "<svg/onload=window.injected=1>",
  "<b>bold</b><style>*{display:none}</style>",
  "</p></main></body></html><!--",
  "]]>--><plaintext>",
  "&lt;script&gt;&#60;b&#62;&amp;amp;&quot;",
  '" onmouseover=window.injected=1 x="',
  "' autofocus onfocus=window.injected=1 '",
  "javascript:window.injected=1//",
  "<meta http-equiv=refresh content=0;url=http://evil.example/>",
  "<base href=http://evil.example/><link rel=stylesheet href=/x>",
  "<iframe src=http://evil.example/></iframe>",
  "${window.injected=1}{{injected}}<%=1%>",
  "<title>other</title><h1>other</h1>",
];

const CONTROLS = [
  "\x1b[31;1m", // colour
  "\x1b[2J\x1b[H", // clears all
  "\x1b]0;injected title\x07", // names the window
  "\x1b]8;;http://evil.example/\x1b\\link\x1b]8;;\x1b\\",
  "\x1b]52;c;aG9zdGlsZQ==\x07", // fills the clipboard
  "\x1b[6n\x1b[c\x1b[>q", // lets the terminal type an answer
  "\x1b[?1049h\x1b[?1000h", // another screen, the mouse
  '\x1bP$q"p\x1b\\\x1bc', // asks, resets
  "\x9b31m\x9d0;x\x9c", // the same in one byte each
  "\r\x1b[Kerror: none\r",
  "\b\b\b\b\b\x7f\x7f",
  "\x00\x01\x02\x0e\x0f\x1a",
  "\n\nhint: injected line\n",
  "\v\f\x85\u2028\u2029",
];

const TURNERS = [
  "\u202egnp.exe\u202c",
  "\u2066\u2067\u2068\u2069\u061c",
  "\u200e\u200f\u202a\u202b",
  "\u200b\u200c\u200d\u2060\ufeff",
  "\u{e0001}\u{e0061}\ufff9\ufffb",
];

/** A text of all of these. */
function hostileText(random: Random, parts = 6): string {
  const tables = [MARKUP, CONTROLS, TURNERS, [
    "Ünïcødé 店 👩‍💻",
    "\ud800",
    "%0a%1b",
  ]];
  const text = Array.from(
    { length: 1 + random.below(parts) },
    () => random.pick(random.pick(tables)) + random.word(3),
  );
  return text.join("");
}

// Characters that are invisible or turn the writing direction. The joiner of
// emoji and of some scripts is harmless between letters.
// deno-lint-ignore no-control-regex -- these are what is looked for
const TURNING = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u202a-\u202e\u2066-\u2069]/;

// === Pages

/** Shows the page of a login that tells the text. */
type ShowText = (text: string, show: ShowPage) => Promise<void>;
type ShowPage = (login: Login, url: URL) => Promise<void>;

function sellerOf(text: string): SandboxSeller {
  const name = text.toWellFormed(); // for the URL of the redirect
  const seller = { name, region: name, scopes: [name], shops: [] };
  return { openId: "7010aHOSTILE", userType: 0, ...seller };
}

/** A login whose redirect is changed by a stranger. */
function changed(
  changes: (text: string) => Record<string, string | null>,
): ShowText {
  return async (text, show) => {
    const login = await startLogin();
    await show(login, await login.changed(changes(text)));
  };
}

const SHOWN: Record<string, ShowText> = {
  "the seller's name and region": async (text, show) => {
    const login = await startLogin({ sandbox: { sellers: [sellerOf(text)] } });
    await show(login, await login.redirect());
  },
  "the redirect's error and locale": changed((text) => ({
    error: text,
    locale: text,
    code: null,
  })),
  "the state, the code and more": changed((text) => ({
    state: text,
    code: text,
    locale: text,
    [text]: text,
  })),
  "the state": changed((text) => ({ state: text, locale: "de" })),
  "the message of the token host": (text, show) =>
    withHost(() => refusal(1, text), async ({ tokenEndpoint }) => {
      const login = await startLogin({ tokenEndpoint });
      await show(login, await login.redirect());
    }),
};

/** All elements of a page and their attributes, without any text. */
const OUTLINE = `[...document.querySelectorAll("*")].map((element) =>
  element.tagName + [...element.attributes].map(({ name }) => name)).join()`;

/** Opens the page of a login in the tab; its outline. */
async function outlineOf(tab: Tab, login: Login, url: URL): Promise<string> {
  tab.requests.length = 0;
  try {
    await tab.page.goto(url.href);
    return await tab.page.evaluate<string>(OUTLINE);
  } finally {
    await login.end();
  }
}

/** Asserts that no text of the page has run. */
async function assertInert({ page, ...tab }: Tab, url: URL): Promise<void> {
  const text = await page.evaluate<string>("document.body.innerText");
  assert.doesNotMatch(text, TURNING);
  const title = await page.evaluate<string>("document.title");
  assert.doesNotMatch(title, /injected|other$/);
  assert.equal(await page.evaluate("typeof window.injected"), "undefined");
  for (const request of tab.requests) {
    assert.equal(new URL(request).origin, url.origin);
  }
  assert.deepEqual([...tab.complaints, ...tab.failed], []);
}

/** One page with harmless text, then with injected ones. */
async function checkPage(
  tab: Tab,
  show: ShowText,
  random: Random,
): Promise<void> {
  let expected = "";
  await show("Shop", async (login, url) => {
    expected = await outlineOf(tab, login, url);
  });
  for (let round = 0; round < COUNT; round++) {
    await show(hostileText(random), async (login, url) => {
      assert.equal(await outlineOf(tab, login, url), expected);
      await assertInert(tab, url);
    });
  }
}

test(`${COUNT} injected texts are inert on each page, seed ${SEED}`, {
  skip: NO_CHROMIUM,
}, async () => {
  const browser = await launchChromium();
  const random = new Random();
  try {
    await withTab(browser, {}, async (tab) => {
      for (const [what, show] of Object.entries(SHOWN)) {
        await checkPage(tab, show, random).catch((error) => {
          throw new Error(`By ${what}, seed ${SEED}`, { cause: error });
        });
      }
    });
    note("pages with injected texts", COUNT * Object.keys(SHOWN).length);
  } finally {
    await browser.close();
  }
});

// === Terminals

/**
 * What the program is made to say. `$H` is the text; each command ends as it
 * likes, but says nothing that the terminal obeys.
 */
const COMMANDS = [
  "status",
  "status --json",
  "shops",
  "shops --json",
  "api GET /authorization/202309/shops",
  'api GET /order/202309/orders/search --shop "$H"',
  'api GET "/$H"',
  'api "$H" /x',
  "refresh",
  'refresh --verbose --refresh-endpoint "$REFUSING"',
  'refresh --all --refresh-endpoint "$REFUSING"',
  "token",
  'doctor --port "$H"',
  'logout --profile "$H"',
  'status --profile "$H"',
  'status --file "/$H"',
  // Node reads that file itself, and prints its own messages.
  ...(ON_DENO ? ['status --env-file "$H"'] : []),
  '"$H"',
  '--"$H"',
  'login --no-browser --timeout 1 --port "$H"',
  'login --no-browser --timeout 1 --path "/$H"',
  'login --no-browser --timeout 1 --host "$H"',
  'login --no-browser --timeout 1 --region "$H"',
  'login --no-browser --timeout 1 --param "$H"',
  'login --no-browser --timeout "$H"',
  'login --no-browser --timeout 1 --redirect-url "$H"',
  '--tls-cert "$H" --tls-key "$H"',
  '--complete "?error=$H&state=$S"',
  '--complete "$H"',
  'exec -- "$H"',
];

/** Values of the environment cannot hold a zero. */
const withoutZeros = (text: string) => text.replaceAll("\0", "");

async function writeScript(
  cli: CliFixture,
  commands: string[],
): Promise<string> {
  const lines = commands.map((command, i) =>
    `echo; echo "mark ${i}"; tiktok-shop-oauth2 ${command} </dev/null`
  );
  return await cli.write(
    "run.sh",
    [...lines, "echo; echo the end"].join("\n"),
  );
}

/** Removes what the shell and its echo print. */
function assertObeysNobody(raw: string): void {
  // Deno clears its own line at its start; a bare return would write over one.
  const ours = raw.replaceAll("\x1b[0G\x1b[2K\x1b[J", "")
    .replaceAll(/\r+\n/g, "\n");
  const at = ours.replaceAll("\n", " ").search(TURNING);
  const around = JSON.stringify(ours.slice(Math.max(0, at - 90), at + 60));
  assert.equal(at, -1, around);
}

async function runScript(
  cli: CliFixture,
  terminal: Terminal,
  commands: string[],
): Promise<void> {
  terminal.enter(`sh '${await writeScript(cli, commands)}'`);
  const limit = Date.now() + 180_000;
  while (!/^the end$/m.test(terminal.raw.replaceAll("\r", ""))) {
    assert.ok(Date.now() < limit, terminal.raw);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assertObeysNobody(terminal.raw);
  const [, last] = /mark (\d+)\r?\n(?![^]*mark)/.exec(terminal.raw) ?? [];
  assert.equal(Number(last), commands.length - 1);
}

/** One such seller, one such host, and all that the program says. */
async function sayAll(random: Random): Promise<void> {
  const name = hostileText(random, 3);
  const shop = { cipher: name, code: name, id: "1", name, region: name };
  const seller = {
    ...sellerOf(name),
    shops: [{ ...shop, seller_type: name }],
    scopes: ["seller.authorization.info", name],
  };
  const H = withoutZeros(hostileText(random));
  await withHost(
    () => refusal(1, H),
    ({ refreshEndpoint }) =>
      withCli(async (cli) => {
        await cli.login();
        const S = await pendingState(cli);
        const REFUSING = refreshEndpoint;
        const env = { ...cli.sandbox.env, H, S, REFUSING, NO_COLOR: "1" };
        await withTerminal(
          cli,
          env,
          (terminal) => runScript(cli, terminal, COMMANDS),
        );
      }, { sellers: [seller] }),
  );
}

async function pendingState(cli: CliFixture): Promise<string> {
  const { stdout } = await cli.run(["login", "--start"]);
  const link = new URL(JSON.parse(stdout).authorize_url);
  return link.searchParams.get("state")!;
}

const SESSIONS = Math.ceil(COUNT / 12);

test(`${SESSIONS} injected texts are inert on a terminal, seed ${SEED}`, {
  skip: NO_TERMINAL,
}, async () => {
  const random = new Random();
  for (let round = 0; round < SESSIONS; round++) await sayAll(random);
  note("commands with injected texts", SESSIONS * COMMANDS.length);
});

test(
  "An injected folder name is inert on a terminal",
  { skip: NO_TERMINAL },
  () =>
    withCli(async (cli) => {
      const home = join(cli.folder, withoutZeros(CONTROLS.join("")));
      const file = join(home, TURNERS.join("") + ".json");
      await cli.login(["--file", file]);
      await writeFile(`${file}.bad`, "{");
      const env = { ...cli.sandbox.env, NO_COLOR: "1", H: file };
      await withTerminal(cli, env, (terminal) =>
        runScript(cli, terminal, [
          'status --file "$H"',
          'refresh --file "$H"',
          'refresh --file "$H.bad"',
          'login --start --file "$H"',
          'logout --file "$H"',
          'doctor --file "$H"',
        ]));
    }),
);
