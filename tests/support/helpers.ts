/** What the tests share: the program as a process, ports, folders. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { Sandbox } from "../../scripts/sandbox.ts";
import { ON_DENO, ROOT } from "../../scripts/tools.ts";

export { freePort, isListening, ON_DENO, ROOT } from "../../scripts/tools.ts";

export const ON_WINDOWS: boolean = process.platform === "win32";
export const ON_LINUX: boolean = process.platform === "linux";

/** Node runs this many tests of a group at once; Deno one after the other. */
export const TOGETHER = { concurrency: 4 };

/** A skip with its reason, where one is due. */
export function skipIf(condition: boolean, reason: string): { skip?: string } {
  return condition ? { skip: reason } : {};
}

export const NO_WINDOWS: { skip?: string } = skipIf(
  ON_WINDOWS,
  "Windows has no such thing",
);

/** The command that runs a TypeScript file on the runtime of this test. */
export function runtimeCommand(file: string): string[] {
  // Processes that are killed leave Deno's cache of code locked or damaged.
  const deno = ["run", "-A", "--no-code-cache"];
  // Without "--" Node would read the flag --env-file that follows itself.
  return [process.execPath, ...ON_DENO ? deno : ["--"], file];
}

/** The command that runs the program on the runtime of this test. */
export function programCommand(args: string[]): string[] {
  return [...runtimeCommand(join(ROOT, "mod.ts")), ...args];
}

/** A new folder with a space in its name; removed by `[asyncDispose]`. */
export async function temporaryFolder(): Promise<
  { path: string } & AsyncDisposable
> {
  const path = await mkdtemp(join(tmpdir(), "a folder "));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

/** How a process ended. */
export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
  /** Milliseconds from start to end. */
  took: number;
}

/** A process under way, its output growing. */
export interface Running {
  child: ChildProcess;
  output: { stdout: string; stderr: string };
  ended: Promise<Ended>;
  /** Waits until stderr or stdout matches, and returns the match. */
  until(pattern: RegExp, ms?: number): Promise<RegExpExecArray>;
}

/** The environment of a test's process: nothing of the user's own. */
export function cleanEnv(
  extra: Record<string, string | undefined> = {},
): Record<string, string> {
  const kept = ["PATH", "DENO_DIR", "SystemRoot", "TEMP", "TMP", "TMPDIR"]
    .concat("DENO_COVERAGE_DIR");
  const env: Record<string, string> = {
    HOME: tmpdir(),
    NO_COLOR: "1",
    // Once a day Deno asks for its newest version, which no test expects.
    DENO_NO_UPDATE_CHECK: "1",
    // One cache for all homes, or Deno would fill one in each.
    DENO_DIR: join(tmpdir(), "tiktok-shop-deno"),
  };
  for (const name of kept) {
    if (process.env[name]) env[name] = process.env[name]!;
  }
  for (const [name, value] of Object.entries(extra)) {
    if (value === undefined) delete env[name];
    else env[name] = value;
  }
  return env;
}

/** Starts a command, its stdin closed unless `input` is "open". */
export function start(
  [command = "", ...args]: string[],
  options: {
    env?: Record<string, string | undefined>;
    cwd?: string;
    input?: string | "open";
  } = {},
): Running {
  const began = performance.now();
  const { input, cwd = tmpdir() } = options;
  const child = spawn(command, args, { env: cleanEnv(options.env), cwd });
  const output = { stdout: "", stderr: "" };
  child.stdout.on("data", (data) => output.stdout += data);
  child.stderr.on("data", (data) => output.stderr += data);
  child.stdin.on("error", () => {});
  if (input !== "open") child.stdin.end(input ?? "");
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      resolve({ code, ...output, took: performance.now() - began });
    });
  });
  let isOver = false;
  ended.finally(() => isOver = true).catch(() => {});
  const until = async (pattern: RegExp, ms = 120_000) => {
    for (const limit = Date.now() + ms; Date.now() < limit;) {
      const match = pattern.exec(output.stderr) ?? pattern.exec(output.stdout);
      if (match) return match;
      if (isOver) break;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`No ${pattern} in: ${JSON.stringify(output)}`);
  };
  return { child, output, ended, until };
}

/** Starts the program; see {@linkcode start}. */
export function startProgram(
  args: string[],
  options: Parameters<typeof start>[1] = {},
): Running {
  return start(programCommand(args), options);
}

/** Runs the program to its end. */
export function runProgram(
  args: string[],
  options: Parameters<typeof start>[1] = {},
): Promise<Ended> {
  return startProgram(args, options).ended;
}

/** Starts a login against a sandbox and approves it, like a person would. */
export async function loginAsPerson(
  sandbox: Sandbox,
  args: string[],
  options: Parameters<typeof start>[1] & {
    approve?: Parameters<Sandbox["approve"]>[1];
  } = {},
): Promise<Ended & { page: string; status: number }> {
  const port = new URL(sandbox.redirectUrl).port;
  const running = startProgram(
    ["login", "--no-browser", "--port", port, ...args],
    { ...options, env: { ...sandbox.env, ...options.env } },
  );
  const [link] = await running.until(/^http\S+authorize\S+$/m);
  const redirect = await sandbox.approve(link!, options.approve);
  const answer = await fetch(redirect);
  const page = await answer.text();
  return { ...await running.ended, page, status: answer.status };
}

/** The ways in which an editor or PowerShell's ">" may save a text. */
export const ENCODINGS: Record<string, (text: string) => Uint8Array> = {
  "UTF-8 with a mark": (text) => Buffer.from(`\ufeff${text}`),
  "UTF-16 LE": (text) => Buffer.from(`\ufeff${text}`, "utf16le"),
  "UTF-16 BE": (text) => Buffer.from(`\ufeff${text}`, "utf16le").swap16(),
};

/**
 * Writes a program of sh. Another process writes it: one that this process
 * starts meanwhile would hold the file open for a moment, and a file that is
 * open for writing cannot be run ("Text file busy").
 */
export function writeProgram(path: string, script: string): void {
  const { status, stderr } = spawnSync(
    "sh",
    ["-c", 'cat > "$0" && chmod 755 "$0"', path],
    { input: script },
  );
  assert.equal(status, 0, `${stderr}`);
}

/** A word of a POSIX shell. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
