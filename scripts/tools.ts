/**
 * What the scripts share: the project's folders, arguments, processes, the
 * packages and runtimes that npm brings, files and tables.
 *
 * @module
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import * as path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { unproxiedLoopback } from "./local.ts";

export {
  freePort,
  isListening,
  ON_DENO,
  runtimeCommand,
  unproxiedLoopback,
  withTemporaryFolder,
} from "./local.ts";

// === The project

/** The folder of the repository, with a slash at its end. */
export const ROOT: string = fileURLToPath(new URL("../", import.meta.url));

/** The name of the npm package and of its command. */
export const PACKAGE_NAME = "tiktok-shop-oauth2";

/** The modules that others import, by their path in the sources. */
export const PUBLISHED: readonly string[] = [
  "mod.ts",
  "scripts/sandbox.ts",
  "scripts/testing.ts",
];

/** The package's tests have a step of their own. */
const NOT_SEARCHED = ["tests/node_modules", "tests/package"];

/** Every file of tests but the package's, at any depth below `tests/`. */
export async function testFiles(folder = "tests"): Promise<string[]> {
  const options = { withFileTypes: true } as const;
  const found: string[] = [];
  for (const entry of await fs.readdir(path.join(ROOT, folder), options)) {
    const file = `${folder}/${entry.name}`;
    if (NOT_SEARCHED.includes(file)) continue;
    if (entry.isDirectory()) found.push(...await testFiles(file));
    else if (file.endsWith("_test.ts")) found.push(file);
  }
  return found.sort();
}

/** The file of tests of this name, in whatever folder it is. */
export async function testFile(name: string): Promise<string> {
  const found = (await testFiles()).find((file) => file.endsWith(`/${name}`));
  if (found) return found;
  throw new Error(`No file of tests is called "${name}"`);
}

// === Command line

/**
 * Runs a script and resolves to its exit code: 2 if `read` throws, since the
 * arguments are wrong, and 1 if `work` throws.
 */
export async function runScript<T>(
  args: readonly string[],
  read: (args: string[]) => T,
  work: (settings: T) => Promise<number>,
): Promise<number> {
  let code = 2;
  try {
    const settings = read(ownArguments(args));
    code = 1;
    code = await work(settings);
  } catch (error) {
    console.error(messageOf(error));
  }
  return code;
}

/** The arguments without a leading `--`, which `deno task` hands on. */
export function ownArguments(args: readonly string[]): string[] {
  return args[0] === "--" ? args.slice(1) : [...args];
}

/** The message of an error, or whatever was thrown in place of one. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * The members of a table that are named, in the table's order.
 *
 * @throws {RangeError} for a name that the table does not have
 */
export function chooseNamed<T extends { readonly name: string }>(
  kind: string,
  table: readonly T[],
  names: readonly string[],
): readonly T[] {
  const known = table.map(({ name }) => name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new RangeError(
      `No ${kind} is called "${unknown}": there are ${known.join(", ")}`,
    );
  }
  return table.filter(({ name }) => names.includes(name));
}

// === Processes

const JSR_TIMEOUT_MS = 10_000;

/**
 * Loads a module into Deno's cache, in a process of its own: an import cannot
 * be given up, and a host that accepts and stays silent would hold it for ever.
 *
 * @throws {Error} If it cannot be loaded in time.
 */
export function cacheModule(
  specifier: string,
  flags: readonly string[] = [],
  timeout = JSR_TIMEOUT_MS,
): void {
  const { status, error, stderr } = spawnSync(
    process.execPath,
    ["cache", ...flags, specifier],
    {
      cwd: ROOT,
      stdio: ["ignore", "ignore", "pipe"],
      encoding: "utf8",
      timeout,
      killSignal: "SIGKILL",
    },
  );
  if (status === 0) return;
  const late = error && `no answer within ${timeout / 1000} s`;
  const said = stderr?.split("\n").find((line) => /error/i.test(line));
  throw new Error(`${specifier}: ${late ?? said ?? "it cannot be loaded"}`);
}

/** How a process ended and what it printed. */
export interface Finished {
  /** The exit code; `null` if it was killed or could not be started. */
  readonly code: number | null;
  /** Whether the exit code is 0. */
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
  /** Both, in the order in which they came. */
  readonly output: string;
}

/** Options of {@linkcode run}. */
export interface RunOptions {
  /**
   * The folder to run in.
   *
   * @default {ROOT}
   */
  readonly cwd?: string;
  /** Variables to add to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Run by a shell, which batch files need on Windows. */
  readonly shell?: boolean;
  /** Kills the process and all that it started. */
  readonly signal?: AbortSignal;
  /** Called with every piece of output. */
  readonly onOutput?: (text: string) => void;
}

/**
 * Runs a command with no input and gathers its output. It never rejects: a
 * command that cannot be started has failed, and its output says why.
 */
export function run(
  file: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Finished> {
  const child = spawn(file, [...args], {
    cwd: options.cwd ?? ROOT,
    env: { ...childEnvironment(process.env), ...options.env },
    shell: options.shell ?? false,
    stdio: ["ignore", "pipe", "pipe"],
    detached: process.platform !== "win32", // leads a group that can be killed
  });
  return finish(child, options);
}

function finish(child: ChildProcess, options: RunOptions): Promise<Finished> {
  const { signal, onOutput } = options;
  const texts = { stdout: "", stderr: "", output: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      texts[name] += text;
      texts.output += text;
      onOutput?.(text);
    });
  }
  return new Promise((resolve) => {
    const stop = () => killTree(child);
    const end = (code: number | null, why = "") => {
      signal?.removeEventListener("abort", stop);
      resolve({ ...texts, code, ok: code === 0, output: texts.output + why });
    };
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
    child.on("error", (error) => end(null, `${error.message}\n`));
    child.on("exit", stop); // what it left behind would hold the pipes open
    child.on("close", (code) => {
      end(code, signal?.aborted ? `\n${signal.reason}\n` : "");
    });
  });
}

function killTree(child: ChildProcess): void {
  if (child.pid === undefined) return;
  if (process.platform === "win32") {
    if (child.exitCode !== null) return;
    spawnSync("taskkill", ["/pid", String(child.pid), "/t", "/f"]);
    return;
  }
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // Nothing of the group is left.
  }
}

const NOT_HANDED_DOWN: readonly RegExp[] = [
  /^TIKTOK_SHOP_/,
  /^FORCE_COLOR$/,
  /^npm_(command$|lifecycle_|package_)/,
  /^npm_config_(call|package|local_prefix)$/,
];

/**
 * The environment of a child process: without the developer's own app, and
 * without what an `npx` around the script would tell an `npm` inside it. Where
 * a proxy is set, it is for the package registry.
 */
export function childEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const kept = Object.entries(env).filter((entry): entry is [string, string] =>
    entry[1] !== undefined &&
    !NOT_HANDED_DOWN.some((pattern) => pattern.test(entry[0]))
  );
  const handed = { ...Object.fromEntries(kept), ...unproxiedLoopback(env) };
  return { ...handed, NO_COLOR: "1" };
}

// === Packages and runtimes from npm

/** The versions of Node that the package is proved on. */
export const NODES: readonly number[] = [20, 22, 24];

/** The packages that `tests/package.json` names. */
export const PACKAGES: string = path.join(ROOT, "tests", "node_modules");

/** A command of npm's as `node:child_process` starts it. */
export interface ToolCommand {
  readonly file: string;
  readonly args: string[];
  readonly shell: boolean;
}

/** `npm` and `npx` are batch files on Windows, which only a shell runs. */
export function npmTool(
  name: string,
  args: readonly string[],
  platform: string = process.platform,
): ToolCommand {
  if (platform !== "win32") {
    return { file: name, args: [...args], shell: false };
  }
  const quoted = args.map((arg) => /[^\w@./:=-]/.test(arg) ? `"${arg}"` : arg);
  return { file: `${name}.cmd`, args: quoted, shell: true };
}

/** Runs `npm` or `npx`, as {@linkcode run} does. */
export function runNpm(
  name: "npm" | "npx",
  args: readonly string[],
  options: RunOptions = {},
): Promise<Finished> {
  const { file, args: words, shell } = npmTool(name, args);
  return run(file, words, { ...options, shell });
}

/** Installs what `tests/package.json` names, unless that has been done. */
export async function installDevelopmentPackages(
  signal?: AbortSignal,
): Promise<void> {
  const cwd = path.dirname(PACKAGES);
  const hash = createHash("sha256");
  for (const name of ["package.json", "package-lock.json"]) {
    hash.update(await fs.readFile(path.join(cwd, name)));
  }
  const stamp = path.join(PACKAGES, ".installed");
  await unlessStamped(stamp, hash.digest("hex"), async () => {
    const args = ["ci", "--ignore-scripts", "--no-audit"];
    const { ok, output } = await runNpm("npm", args, { cwd, signal });
    if (ok) return;
    throw new Error(
      "Cannot install the packages of tests/package.json: npm failed, " +
        `is a registry within reach?\n${output}`,
    );
  });
}

/**
 * The path of a Node of the given major version, which npx brings. A call by
 * path leaves npx out, with its time and with the settings that it hands down.
 */
export async function nodeBinary(
  major: number,
  signal?: AbortSignal,
): Promise<string> {
  const args = ["-y", "-p", `node@${major}`, "node", "-p", "process.execPath"];
  const { ok, stdout, output } = await runNpm("npx", args, { signal });
  const binary = lastLine(stdout);
  if (ok && binary !== "") return binary;
  throw new Error(
    `Cannot get Node ${major}: npx failed, is a registry within reach?\n` +
      output,
  );
}

// === Files

/** Does `work` once for what is wanted; the stamp says what was done last. */
export async function unlessStamped(
  stamp: string,
  wanted: string,
  work: () => Promise<void>,
): Promise<void> {
  if (await fs.readFile(stamp, "utf8").catch(() => "") === wanted) return;
  await work();
  await fs.writeFile(stamp, wanted);
}

// === Texts

/** Lines of cells as columns; those of numbers are aligned to the right. */
export function textTable(
  lines: readonly (readonly string[])[],
  isRight: (column: number) => boolean,
): string {
  const width = (column: number) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0));
  const cell = (text: string, column: number) =>
    isRight(column) ? text.padStart(width(column)) : text.padEnd(width(column));
  return lines.map((line) => line.map(cell).join("  ").trimEnd()).join("\n");
}

/** The last line that is not empty. */
export function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}
