/**
 * The pages that a browser is shown: their languages by real requests, and
 * their looks in a real Chromium, where one is installed. The screenshots are
 * in `.cache/screenshots/`, for people to look at.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { login, memoryStore } from "../../mod.ts";
import { type SandboxSeller, startSandbox } from "../../scripts/sandbox.ts";
import {
  appOf,
  assertWaits,
  exchangeRaw,
  type Login,
  type LoginSetup,
  loginTest,
  rawRequest,
  startLogin,
} from "../support/callback_helpers.ts";
import {
  type Browser,
  launchChromium,
  look,
  lookAround,
  NO_CHROMIUM,
  overflow,
  type Tab,
  takeScreenshot,
  withTab,
} from "../support/chromium.ts";
import { freePort } from "../support/helpers.ts";

const LANGUAGES = [
  ...["en", "id", "vi", "th", "ms", "zh-Hans", "zh-Hant", "ja"],
  ...["es", "pt", "de", "fr", "it"],
] as const;
type Language = typeof LANGUAGES[number];

/** The pages, and how a login comes to each. */
const PAGES = {
  success: { status: 200, urlOf: (login: Login) => login.redirect() },
  denied: {
    status: 403,
    urlOf: (login: Login) => login.redirect({ deny: true }),
  },
  failed: {
    status: 502,
    urlOf: (login: Login) => login.redirect({ fault: "expired-code" }),
  },
  received: {
    status: 202,
    urlOf: (login: Login) => {
      login.sandbox.fail("token", "never");
      return login.redirect();
    },
  },
  waiting: {
    status: 200,
    urlOf: (login: Login) => Promise.resolve(new URL(login.flow.redirectUrl)),
  },
  held: {
    status: 202,
    urlOf: (login: Login) => login.changed({ state: null }),
  },
  other: {
    status: 400,
    urlOf: (login: Login) => login.changed({ state: "of another login" }),
  },
  missing: {
    status: 404,
    urlOf: (login: Login) =>
      Promise.resolve(new URL("/favicon", login.flow.redirectUrl)),
  },
};
type PageName = keyof typeof PAGES;
const PAGE_NAMES = Object.keys(PAGES) as PageName[];

// === Languages

interface Shown {
  status: number;
  lang: string | undefined;
  contentLanguage: string | null;
  html: string;
}

async function show(url: URL, acceptLanguage?: string): Promise<Shown> {
  const headers = acceptLanguage === undefined
    ? undefined
    : { "Accept-Language": acceptLanguage };
  const response = await fetch(url, { headers });
  const html = await response.text();
  const contentLanguage = response.headers.get("content-language");
  const lang = /<html lang="([^"]*)">/.exec(html)?.[1];
  return { status: response.status, lang, contentLanguage, html };
}

/** `locale`, `Accept-Language` and the language that follows from them. */
const MATCHES: [string | null, string | undefined, Language][] = [
  ["en", undefined, "en"],
  ["en_US", "de", "en"],
  ["EN-gb", "de", "en"],
  ["id", "de", "id"],
  ["in", "de", "id"],
  ["in_ID", "de", "id"],
  ["id-ID", "de", "id"],
  ["vi_VN", "de", "vi"],
  ["th-TH", "de", "th"],
  ["th-TH-u-nu-thai", "de", "th"],
  ["ms_MY", "de", "ms"],
  ["ms-Latn-SG", "de", "ms"],
  ["zh", "de", "zh-Hans"],
  ["zh_CN", "de", "zh-Hans"],
  ["zh-SG", "de", "zh-Hans"],
  ["zh-hans", "de", "zh-Hans"],
  ["zh-Hans-HK", "de", "zh-Hans"],
  ["zh-TW", "de", "zh-Hant"],
  ["zh_HK", "de", "zh-Hant"],
  ["zh-MO", "de", "zh-Hant"],
  ["zh-Hant", "de", "zh-Hant"],
  ["zh_Hant_TW", "de", "zh-Hant"],
  ["zh-Hant-CN", "de", "zh-Hant"],
  ["ja_JP", "de", "ja"],
  ["es-419", "de", "es"],
  ["es_MX", "de", "es"],
  ["pt_BR", "de", "pt"],
  ["pt-PT", "de", "pt"],
  ["de-AT", "fr", "de"],
  ["fr_CA", "de", "fr"],
  ["it-CH", "de", "it"],
  // Nothing of ours in the locale: the browser decides.
  ["", "ja", "ja"],
  [null, "ja", "ja"],
  ["fil_PH", "ms-MY,en;q=0.5", "ms"],
  ["ko", "pt-BR", "pt"],
  ["zh-Latn", "de", "de"],
  ["x", "de", "de"],
  ["_", "de", "de"],
  ['"><script>', "de", "de"],
  ["constructor", "de", "de"],
  ["toString", "de", "de"],
  // Quality, in any order; the first of two that are liked alike.
  [null, "de;q=0.5,fr;q=0.9,it;q=0.7", "fr"],
  [null, "de;q=0.5,ja", "ja"],
  [null, "de, fr", "de"],
  [null, "fr;q=0.8,de;q=0.8", "fr"],
  [null, "ko,tlh;q=0.9,zh-HK;q=0.8,en;q=0.7", "zh-Hant"],
  [null, "DE ; Q=0.3 , it;q=0.1", "de"],
  [null, "de;q=0, fr;q=0.1", "fr"],
  [null, "de;q=x, fr;q=0.1", "fr"],
  [null, "*;q=0.9, de;q=0.1", "de"],
  [null, "nl-NL,nl;q=0.9", "en"],
  [null, "*", "en"],
  [null, "", "en"],
  [null, ",,;q=1,;;,=", "en"],
  [null, "de;q=0", "en"],
];

loginTest(
  "startAuth() answers in the language of the locale, else the browser's",
  {},
  async ({ flow }) => {
    for (const [locale, accepted, language] of MATCHES) {
      const url = new URL(flow.redirectUrl);
      if (locale !== null) url.searchParams.set("locale", locale);
      const shown = await show(url, accepted);
      const both = [shown.lang, shown.contentLanguage];
      const of = `${locale} and ${accepted}`;
      assert.deepEqual(both, [language, language], of);
    }
  },
);

interface Texts {
  labels: string[];
  title: string;
  text: string;
  next: string;
}

function textsIn(html: string): Texts {
  const all = (pattern: RegExp) =>
    [...html.matchAll(pattern)].map(([, text]) =>
      text!.replaceAll("&nbsp;", " ")
    );
  const [title] = all(/<h1>([^<]*)<\/h1>/g);
  // A page that is not there says no more than its number.
  const [text] = title === "404" ? ["-"] : all(/<\/h1>\n<p>([^<]*)<\/p>/g);
  const [next] = all(/<p class="next">([^<]*)<\/p>/g);
  assert.deepEqual(all(/<title>([^<]*)<\/title>/g), [title]);
  assert.ok(title && text && next, html);
  return { labels: all(/<dt>([^<]*)<\/dt>/g), title, text, next };
}

/** The page that a login() brings which saves its tokens under a profile. */
async function savedPage(locale: string, profile = "my-shop"): Promise<string> {
  const port = await freePort();
  const redirectUrl = `http://localhost:${port}/`;
  const sandbox = await startSandbox({ redirectUrl });
  let html = "";
  try {
    await login({
      ...appOf(sandbox),
      port,
      profile,
      store: memoryStore(),
      onStart: () => {},
      open: async (link) => {
        const url = new URL(await sandbox.approve(link));
        url.searchParams.set("locale", locale);
        const page = await fetch(url);
        html = await page.text();
      },
      onReply: () => {},
    });
    return await waitFor(() => html);
  } finally {
    await sandbox.stop();
  }
}

/** The page arrives a moment after the login has ended. */
async function waitFor(read: () => string): Promise<string> {
  while (!read()) await new Promise((resolve) => setTimeout(resolve, 10));
  return read();
}

test("login() shows scopes, profile and the last day of the grant", async () => {
  const html = await savedPage("en", 'a"<b>');
  const rows = [...html.matchAll(/<dt>(.*?)<\/dt><dd>(.*?)<\/dd>/g)];
  const facts = new Map(rows.map(([, label, cell]) => [label!, cell!]));
  const labels = ["Shop", "Region", "Scopes", "Profile", "Valid until"];
  assert.deepEqual([...facts.keys()], labels);
  assert.equal(facts.get("Shop"), "<bdi>Harbour &#38; Finch</bdi>");
  assert.match(
    facts.get("Scopes")!,
    /^<code>seller\.authorization\.info<\/code> <code>seller\.order\.info</,
  );
  assert.equal(facts.get("Profile"), "<bdi>a&#34;&#60;b&#62;</bdi>");
  assert.match(
    facts.get("Valid until")!,
    /^<time datetime="(2\d{3}-\d\d-\d\d)T[\d:.]+Z">\1<\/time>$/,
  );
});

/** One page in one language, by a login of its own. */
async function pageIn(name: PageName, language: Language): Promise<Texts> {
  const login = await startLogin();
  try {
    const { status, urlOf } = PAGES[name];
    const url = await urlOf(login);
    url.searchParams.set("locale", language);
    const shown = await show(url);
    assert.deepEqual([shown.status, shown.lang], [status, language]);
    assert.ok(shown.html.includes(`<main class="${name}">`), shown.html);
    return textsIn(shown.html);
  } finally {
    await login.end();
  }
}

let received: Promise<Texts[]> | undefined;

/** That page comes after 15 s: the test waits for all of them at once. */
function receivedPages(): Promise<Texts[]> {
  received ??= Promise.all(LANGUAGES.map((each) => pageIn("received", each)));
  received.catch(() => {}); // told by the test that awaits it
  return received;
}

/** How many columns a text takes; an East Asian character takes two. */
function widthOf(text: string): number {
  const wide = text.match(/[\u2e80-\u9fff\uff00-\uff60]/g) ?? [];
  const marks = text.match(/\p{M}/gu) ?? [];
  return text.length + wide.length - marks.length;
}

function assertReadable({ labels, title, text, next }: Texts): void {
  for (const label of labels) assert.ok(widthOf(label) <= 12, label);
  assert.ok(widthOf(title) <= 44, title);
  assert.ok(widthOf(text) <= 76, text);
  assert.ok(widthOf(next) <= 76, next);
  for (const each of [...labels, title, text, next]) {
    assert.doesNotMatch(each, /undefined|[|<>"]|^\s|\s$|\s\s/);
  }
  for (const each of [title, ...labels]) assert.doesNotMatch(each, /[.。]$/);
}

// === A real browser

/** That a tab was quiet, went nowhere else and shows no code. */
async function assertClean(tab: Tab, origins: string[]): Promise<void> {
  assert.deepEqual([...tab.complaints, ...tab.failed], []);
  for (const url of tab.requests) {
    assert.ok(origins.includes(new URL(url).origin), url);
  }
  const session = await tab.context.newCDPSession(tab.page);
  const { entries } = await session.send("Page.getNavigationHistory");
  const urls: string[] = entries.map(({ url }: { url: string }) => url);
  for (const url of [tab.page.url(), ...urls]) {
    assert.doesNotMatch(url, /[?&](code|state|auth_code|error)=/);
  }
}

const originOf = (login: Login) => new URL(login.flow.redirectUrl).origin;

/** A login of its own, and its page in a tab. */
async function withPage(
  tab: Tab,
  name: PageName,
  setup: LoginSetup & { locale?: string },
  run: (login: Login) => Promise<unknown>,
): Promise<void> {
  const { locale, ...rest } = setup;
  const login = await startLogin(rest);
  try {
    const url = await PAGES[name].urlOf(login);
    if (locale) url.searchParams.set("locale", locale);
    await tab.page.goto(url.href);
    assert.equal(await tab.page.locator(`main.${name} h1`).count(), 1);
    await run(login);
  } finally {
    await login.end();
  }
}

function checkPage(browser: Browser, name: PageName): Promise<void> {
  return withTab(
    browser,
    {},
    (tab) =>
      withPage(tab, name, {}, async (login) => {
        await lookAround(tab, name);
        await assertClean(tab, [originOf(login)]);
      }),
  );
}

const REGIONS: [language: Language, region: string, shown: string][] = [
  ["en", "GB", "United Kingdom (GB)"],
  ["de", "GB", "Vereinigtes Königreich (GB)"],
  ["ja", "ID", "インドネシア (ID)"],
  ["en", "QM", "QM"], // nobody's
  ["en", "gb", "gb"],
];

/** The browser names the region, and never a seller with a region's name. */
async function checkRegions(tab: Tab): Promise<void> {
  for (const [locale, region, shown] of REGIONS) {
    const sandbox = { sellers: [sellerNamed("GB", region)] };
    await withPage(tab, "success", { locale, sandbox }, async () => {
      const fact = (n: number) =>
        tab.page.locator(`dd >> nth=${n}`).innerText();
      assert.deepEqual([await fact(0), await fact(1)], ["GB", shown]);
    });
  }
  assert.deepEqual(tab.complaints, []);
}

/** A failure is told in rows, and its request id can be taken along. */
async function checkFailure(tab: Tab): Promise<void> {
  const { page, context } = tab;
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await withPage(tab, "failed", {}, async ({ flow }) => {
    const error = await flow.reply.catch((error) => error);
    const all = (selector: string) =>
      page.evaluate<string[]>(
        `[...document.querySelectorAll("${selector}")].map((e) => e.innerText)`,
      );
    const labels = ["Error", "Code", "Message", "Request ID", "Next step"];
    assert.deepEqual(await all("dl[lang=en] dt"), labels);
    const cells = await all("dd");
    assert.match(cells[0]!, /^Cannot get tokens from http:\S+$/);
    assert.deepEqual(cells.slice(1, 3), ["36004004", '"invalid auth code"']);
    assert.equal(cells[3], `${error.requestId} Copy`);
    assert.equal(cells[4]!.toLowerCase(), error.hint.toLowerCase());
    await page.getByRole("button", { name: "Copy" }).click();
    await page.getByRole("button", { name: "Copied" }).waitFor();
    const copied = await page.evaluate("navigator.clipboard.readText()");
    assert.equal(copied, error.requestId);
    await page.setViewportSize({ width: 320, height: 640 });
    assert.deepEqual(await page.evaluate(BROKEN_WORDS), []);
    const font = 'getComputedStyle(document.querySelector("kbd")).fontFamily';
    assert.match(await page.evaluate(font), /monospace/);
    const wrap = await page.evaluate<string[]>(
      `[...document.querySelectorAll("p")].map((p) =>
        getComputedStyle(p).textWrapStyle)`,
    );
    assert.ok(!wrap.includes("balance"), "body text is not balanced");
  });
  assert.deepEqual(tab.complaints, []);
}

/** The words of the next step that stand on two lines. */
const BROKEN_WORDS = `(() => {
  const { firstChild: text } = document.querySelector("kbd");
  return [...text.data.matchAll(/\\S+/g)].flatMap(({ 0: word, index }) => {
    const range = document.createRange();
    range.setStart(text, index);
    range.setEnd(text, index + word.length);
    const tops = [...range.getClientRects()].map(({ top }) => Math.round(top));
    return new Set(tops).size > 1 ? [word] : [];
  });
})()`;

/** The last day in words of the page's language, by the browser. */
async function checkDays(tab: Tab): Promise<void> {
  const days: [Language, RegExp][] = [
    ["en", /^\w+ \d{1,2}, \d{4}$/],
    ["de", /^\d{1,2}\. \p{L}+ \d{4}$/u],
    ["ja", /^\d{4}年\d{1,2}月\d{1,2}日$/],
  ];
  for (const [locale, day] of days) {
    await withPage(tab, "success", { locale }, async () => {
      assert.match(await tab.page.locator("time").innerText(), day);
    });
  }
}

/** Every page once more without script: nothing is missing. */
async function checkWithoutScript(tab: Tab): Promise<void> {
  for (const name of PAGE_NAMES) {
    if (name === "received") continue; // the same layout, 15 s later
    await withPage(tab, name, {}, async () => {
      for (const part of ["h1", "h1 + p", ".next", "svg"]) {
        const shown = await tab.page.locator(part).isVisible();
        assert.ok(shown, `${name} ${part}`);
      }
      if (name === "failed") {
        // Nothing offers what needs a script, and a click selects it whole.
        assert.equal(await tab.page.locator("button").count(), 0);
        const css = 'getComputedStyle(document.querySelector("dd code"))';
        assert.equal(await tab.page.evaluate(`${css}.userSelect`), "all");
      }
      if (name !== "success") return;
      assert.equal(await tab.page.locator("dd >> nth=1").innerText(), "GB");
    });
  }
  assert.deepEqual(tab.complaints, []);
}

async function checkLanguages(tab: Tab): Promise<void> {
  const { page } = tab;
  for (const locale of LANGUAGES) {
    await withPage(tab, "success", { locale }, async () => {
      const lang = await page.evaluate("document.documentElement.lang");
      assert.equal(lang, locale);
      await page.setViewportSize({ width: 560, height: 560 });
      await takeScreenshot(page, `success-${locale}`);
      assert.equal(await overflow(page), 0, locale);
      await page.setViewportSize({ width: 320, height: 560 });
      assert.equal(await overflow(page), 0, locale);
    });
  }
}

/** Larger text, print, chosen colours, less motion. */
async function checkCircumstances(tab: Tab): Promise<void> {
  const { page } = tab;
  const fontSize = (size: string) =>
    page.evaluate(`document.documentElement.style.fontSize = "${size}"`);
  await withPage(tab, "failed", {}, async () => {
    await page.setViewportSize({ width: 640, height: 400 }); // 1280 at 200 %
    await look(tab, "failed-zoomed");
    await page.setViewportSize({ width: 320, height: 400 });
    await fontSize("200%");
    await look(tab, "failed-large");
    await fontSize("");
    await page.setViewportSize({ width: 800, height: 640 });
    await page.emulateMedia({ forcedColors: "active", colorScheme: "dark" });
    await look(tab, "failed-forced-colors");
    await page.emulateMedia({ forcedColors: "none", media: "print" });
    await look(tab, "failed-print");
    const ink = await page.evaluate("getComputedStyle(document.body).color");
    assert.equal(ink, "rgb(27, 27, 34)", "prints in dark ink");
    assert.equal(await page.evaluate("document.getAnimations().length"), 0);
  });
}

const INJECTED = '<img src=x onerror="alert(1)"><b>&lt;/b&gt;\x1b[31m\u202egnp';

const SELLERS: Record<string, string> = {
  markup: INJECTED,
  long: "Donaudampfschifffahrtsgesellschaft".repeat(40),
  arabic: "متجر الأناقة (Dubai) 2024!",
  persian: "می\u200cخواهم",
  emoji: "👩\u200d💻 Ünïcødé 店 ".repeat(60),
};

function sellerNamed(name: string, region = "GB"): SandboxSeller {
  const openId = "7010aINJECTED";
  return { openId, name, region, userType: 0, scopes: [], shops: [] };
}

async function checkSellers(tab: Tab): Promise<void> {
  await tab.page.setViewportSize({ width: 320, height: 640 });
  for (const [kind, name] of Object.entries(SELLERS)) {
    const sandbox = { sellers: [sellerNamed(name, INJECTED.slice(0, 30))] };
    await withPage(tab, "success", { sandbox }, async () => {
      await takeScreenshot(tab.page, `seller-${kind}`);
      assert.equal(await overflow(tab.page), 0, kind);
      const shown = await tab.page.locator("dd >> nth=0").innerText();
      assert.equal(shown.slice(0, 6), name.slice(0, 6));
      assert.ok([...shown].length <= 121, shown);
      assert.equal(await tab.page.locator("dd img, dd b").count(), 0);
    });
  }
  assert.deepEqual(tab.complaints, []);
}

async function checkRedirectsText(tab: Tab): Promise<void> {
  const path = `//a.example/<b>"'`;
  const login = await startLogin({ path });
  try {
    const url = await login.changed({ error: INJECTED, locale: INJECTED });
    url.pathname = path;
    await tab.page.goto(url.href);
    assert.equal(await tab.page.locator("dd img").count(), 0);
    await look(tab, "failed-injected");
    await assertClean(tab, [originOf(login)]);
  } finally {
    await login.end();
  }
}

/** The whole way: our link, the sandbox's page, a click, our page. */
async function clickThrough(
  tab: Tab,
  button: string,
  name: PageName,
): Promise<unknown> {
  const login = await startLogin();
  try {
    await tab.page.goto(login.flow.url);
    if (name === "success") await lookAround(tab, "sandbox");
    await tab.page.getByRole("button", { name: button }).click();
    await tab.page.waitForURL(/^http:\/\/localhost:\d+\/$/);
    await tab.page.locator(`main.${name} h1`).innerText();
    assert.deepEqual(tab.complaints, []);
    const origins = [originOf(login), login.sandbox.origin];
    const foreign = (url: string) => !origins.includes(new URL(url).origin);
    assert.deepEqual(tab.requests.filter(foreign), []);
    return await login.flow.reply.then(({ code }) => code, ({ kind }) => kind);
  } finally {
    await login.end();
  }
}

async function clickApprove(tab: Tab): Promise<void> {
  assert.equal(await clickThrough(tab, "Approve", "success"), 0);
}

async function clickDeny(tab: Tab): Promise<void> {
  const end = await clickThrough(tab, "Deny", "denied");
  assert.equal(end, "access_denied");
}

test("The pages in Chromium", { skip: NO_CHROMIUM }, async (t) => {
  receivedPages();
  const browser = await launchChromium();
  const late = checkPage(browser, "received"); // after 15 s
  late.catch(() => {}); // told by the test that awaits it
  const inTab = (
    name: string,
    run: (tab: Tab) => Promise<void>,
    options: Record<string, unknown> = {},
  ) => t.test(name, () => withTab(browser, options, run));
  try {
    for (const name of PAGE_NAMES) {
      if (name === "received") continue;
      await t.test(`the page "${name}"`, () => checkPage(browser, name));
    }
    await inTab("an approval at the sandbox's page", clickApprove);
    await inTab("a denial at the sandbox's page", clickDeny);
    const script = { javaScriptEnabled: false };
    await inTab("without script", checkWithoutScript, script);
    await inTab("in every language", checkLanguages);
    await inTab("naming the region", checkRegions);
    await inTab("naming the last day", checkDays);
    await inTab("telling a failure in rows", checkFailure);
    await inTab("large, printed, in forced colours", checkCircumstances);
    await inTab("with any seller's name", checkSellers);
    await inTab("with an injected redirect", checkRedirectsText);
    await t.test('the page "received"', () => late);
  } finally {
    await late.catch(() => {});
    await browser.close();
  }
});

// === Texts

for (const language of LANGUAGES) {
  test(`The pages are complete and short in ${language}`, async () => {
    const english = await pageIn("success", "en");
    const { labels } = textsIn(await savedPage(language));
    assert.equal(new Set(labels).size, 5);
    const seen = new Set<string>();
    for (const name of PAGE_NAMES) {
      const texts = name === "received"
        ? (await receivedPages())[LANGUAGES.indexOf(language)]!
        : await pageIn(name, language);
      assertReadable(name === "success" ? { ...texts, labels } : texts);
      const count = { success: 4, failed: 5 }[name as string] ?? 0;
      assert.equal(texts.labels.length, count, name);
      if (language !== "en" && name === "success") {
        assert.notDeepEqual(texts, english);
      }
      for (const each of [texts.title, texts.text]) {
        assert.ok(!seen.has(each), `${each} twice`);
        seen.add(each);
      }
    }
  });
}

loginTest("startAuth() never answers with the path or query", {}, async (l) => {
  const target = `/<script>?locale=<script>&${encodeURI(INJECTED)}`;
  const { status, headers, body } = await exchangeRaw(
    l.flow.port,
    rawRequest(l.flow.port, { target }),
  );
  assert.equal(status, 404);
  assert.equal(headers.get("content-type"), "text/html; charset=utf-8");
  assert.doesNotMatch(body, /img|locale|<script>[^]*<script>/);
  await assertWaits(l);
});
