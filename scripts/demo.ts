/**
 * Runs the real login end to end against the sandbox: `tiktok-shop-oauth2
 * demo`, or `deno task demo`. With a display, you click Approve in the
 * browser. Without one, or if nobody clicks, the demo approves the app itself
 * and says so. It keeps its tokens in a temporary folder and reads none of
 * your settings.
 *
 * @module
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { browserCommands, openBrowser } from "../mod.ts";
import {
  freePort,
  isProgram,
  runtimeCommand,
  unproxiedLoopback,
  withTemporaryFolder,
} from "./local.ts";
import { approve, startSandbox } from "./sandbox.ts";

const CLICK_TIMEOUT_S = 60; // then the demo clicks

const HELP = `Tries the login end to end at a sandbox, in a temporary folder.

Usage: tiktok-shop-oauth2 demo
`;

/** The program; resolves to the login's exit code. */
export async function main(args: string[]): Promise<number> {
  const [first, url = ""] = args;
  if (first === undefined) return await demo();
  if (first === "--browser") await browse(url);
  else if (first === "--help") process.stdout.write(HELP);
  else {
    console.error(`Unexpected argument "${first}": the demo takes none`);
    return 2;
  }
  return 0;
}

/** Starts the sandbox and runs the login; resolves to its exit code. */
async function demo(): Promise<number> {
  const { env, platform } = process;
  const alone = env.CI || browserCommands("-", { env, platform }).length === 0;
  console.error(
    alone
      ? "There is no display: the demo approves the app itself"
      : "Click Approve in the browser that opens, or wait a minute",
  );
  const port = await freePort();
  const redirectUrl = `http://localhost:${port}/`;
  const sandbox = await startSandbox({ redirectUrl });
  try {
    console.error(`A TikTok Shop of your own runs at ${sandbox.origin}\n`);
    return await withTemporaryFolder(
      "demo",
      (home) => runLogin(port, home, sandbox.env),
    );
  } finally {
    await sandbox.stop();
  }
}

/** Runs the program as a process, with this script as its browser. */
function runLogin(
  port: number,
  home: string,
  settings: Record<string, string>,
): Promise<number> {
  const browser = script("demo", "--browser")
    .map((word) => `"${word}"`).join(" ");
  const [command = "", ...args] = script("../mod", "login");
  args.push("--port", `${port}`, "--file", join(home, "tokens.json"));
  args.push("--browser", browser);
  const child = spawn(command, args, {
    stdio: "inherit",
    cwd: home, // where the user's .env is not found
    env: { ...process.env, ...settings },
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 1));
  });
}

/** The command that runs a script of ours, wherever it was loaded from. */
function script(name: string, ...args: string[]): string[] {
  const extension = /\.\w+$/.exec(import.meta.url)?.[0] ?? "";
  const { href } = new URL(name + extension, import.meta.url);
  const isFile = href.startsWith("file:");
  return runtimeCommand(isFile ? fileURLToPath(href) : href, ...args);
}

/** Opens the system's browser if a person can click, else clicks itself. */
async function browse(url: string): Promise<void> {
  const { env, platform } = process;
  const isShown = !env.CI &&
    browserCommands(url, { env, platform }).length > 0 &&
    await openBrowser(url);
  Object.assign(process.env, unproxiedLoopback(process.env));
  if (isShown) await waitForClick(url);
  const redirect = await approve(url);
  await fetch(redirect);
}

/** Gives a person time to click; ends this process when the demo ends. */
async function waitForClick(url: string): Promise<void> {
  for (let waited = 0; waited < CLICK_TIMEOUT_S; waited++) {
    await delay(1000);
    // The sandbox stops with the demo; then there is nothing to approve.
    await fetch(new URL("/", url)).catch(() => process.exit());
  }
}

if (isProgram(import.meta)) {
  main(process.argv.slice(2)).then((code) => process.exitCode = code);
}
