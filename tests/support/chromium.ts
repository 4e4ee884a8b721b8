/** A real Chromium, where one is installed, and what is checked in it. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";
import { ROOT } from "./helpers.ts";

/** The part of playwright-core in use; it is loaded where it is needed. */
export interface Browser {
  newContext(options: Record<string, unknown>): Promise<Context>;
  close(): Promise<void>;
}

export interface Context {
  newPage(): Promise<Page>;
  grantPermissions(permissions: string[]): Promise<void>;
  newCDPSession(page: Page): Promise<ProtocolSession>;
  close(): Promise<void>;
}

export interface ProtocolSession {
  // deno-lint-ignore no-explicit-any -- as the protocol has it
  send(method: string): Promise<any>;
}

export interface Page {
  on(event: string, listener: (event: PageEvent) => void): void;
  goto(url: string, options?: { waitUntil: string }): Promise<unknown>;
  url(): string;
  waitForURL(url: RegExp): Promise<void>;
  waitForEvent(event: string): Promise<unknown>;
  setViewportSize(size: { width: number; height: number }): Promise<void>;
  emulateMedia(options: Record<string, string>): Promise<void>;
  screenshot(options: { path: string; fullPage: boolean }): Promise<unknown>;
  evaluate<T>(script: string): Promise<T>;
  locator(selector: string): Locator;
  getByRole(role: string, options?: { name: string }): Locator;
}

export interface Locator {
  click(): Promise<void>;
  count(): Promise<number>;
  waitFor(): Promise<void>;
  isVisible(): Promise<boolean>;
  innerText(): Promise<string>;
  inputValue(): Promise<string>;
  getAttribute(name: string): Promise<string | null>;
}

/** A request, an error, a dialog or a line of the console. */
export interface PageEvent {
  url(): string;
  text(): string;
  message?: unknown;
}

const PATHS = [
  process.env.CHROMIUM ?? "",
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
];
const PATH = PATHS.find((path) => path && existsSync(path));

/** Why there is no Chromium; false if there is one. */
export const NO_CHROMIUM: string | false = PATH === undefined &&
  "no Chromium is installed";

const SCREENSHOTS = join(ROOT, ".cache", "screenshots");
const require = createRequire(import.meta.url);

/** Starts a Chromium that talks to nobody by itself. */
export async function launchChromium(args: string[] = []): Promise<Browser> {
  await mkdir(SCREENSHOTS, { recursive: true });
  const { chromium } = require("playwright-core");
  return await chromium.launch({
    executablePath: PATH,
    args: ["--disable-gpu", "--disable-quic", "--disable-sync", ...args],
  });
}

/** A tab, and all that it asked for and complained about. */
export interface Tab {
  context: Context;
  page: Page;
  requests: string[];
  /** The requests that nobody answered. */
  failed: string[];
  complaints: string[];
}

/** Opens a tab; its context is to be closed. */
export async function openTab(
  browser: Browser,
  options: Record<string, unknown> = {},
): Promise<Tab> {
  const context = await browser.newContext({ locale: "en-US", ...options });
  const page = await context.newPage();
  const tab: Tab = { context, page, requests: [], failed: [], complaints: [] };
  page.on("request", (request) => tab.requests.push(request.url()));
  page.on("requestfailed", (request) => tab.failed.push(request.url()));
  page.on("pageerror", (error) => tab.complaints.push(`${error.message}`));
  page.on("dialog", () => tab.complaints.push("a dialog"));
  page.on("console", (line) => {
    // Chromium logs each request that fails, expected or not.
    if (/^Failed to load resource: /.test(line.text())) return;
    tab.complaints.push(line.text());
  });
  return tab;
}

/** Opens a tab, runs `run` with it and closes it. */
export async function withTab<T>(
  browser: Browser,
  options: Record<string, unknown>,
  run: (tab: Tab) => Promise<T>,
): Promise<T> {
  const tab = await openTab(browser, options);
  try {
    return await run(tab);
  } finally {
    await tab.context.close();
  }
}

/** Looks at a page in light and dark, narrow and wide. */
export async function lookAround(tab: Tab, name: string): Promise<void> {
  for (const colorScheme of ["light", "dark"]) {
    await tab.page.emulateMedia({ colorScheme });
    for (const [size, width] of [["narrow", 320], ["wide", 1280]] as const) {
      await tab.page.setViewportSize({ width, height: 640 });
      await look(tab, `${name}-${colorScheme}-${size}`);
    }
  }
}

/** Takes a picture; asserts that nothing is cut off, and asks axe. */
export async function look({ page }: Tab, name: string): Promise<void> {
  await takeScreenshot(page, name);
  assert.equal(await overflow(page), 0, `${name} scrolls sideways`);
  assert.deepEqual(await violations(page), [], name);
}

/** Takes a picture of a page, for people to look at. */
export async function takeScreenshot(page: Page, name: string): Promise<void> {
  const path = join(SCREENSHOTS, `${name}.png`);
  await page.screenshot({ path, fullPage: true });
}

/** How many pixels the page, or a part of it, is wider than the window. */
export function overflow(page: Page): Promise<number> {
  return page.evaluate(`Math.max(
    document.documentElement.scrollWidth - innerWidth,
    ...[...document.querySelectorAll("body *")].map((element) =>
      Math.ceil(element.getBoundingClientRect().right) - innerWidth
    ),
    0,
  )`);
}

/** What axe-core finds wrong with a page. */
async function violations(page: Page): Promise<string[]> {
  if (!await page.evaluate("'axe' in window")) {
    const source = require.resolve("axe-core/axe.min.js");
    await page.evaluate(readFileSync(source, "utf8"));
  }
  return await page.evaluate(`axe.run({
    preload: false,
    resultTypes: ["violations"],
  }).then(({ violations }) => violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) =>
      id + ": " + html + " " + failureSummary)))`);
}
