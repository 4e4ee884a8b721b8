/**
 * Proves everything: the driver behind `deno task test`. It runs every step,
 * even after one has failed, shows what a failed one printed, and ends by a
 * table of the tests that ran on each runtime.
 *
 * ```sh
 * deno task test                # everything
 * deno task test deno node22    # some steps, by name
 * ```
 *
 * Exit codes: 0 every step passed, 1 one failed, 2 no such step, 130
 * interrupted.
 *
 * @module
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import process from "node:process";
import { npmTool, ROOT, type ToolCommand } from "./build_npm.ts";

// === Steps

/** How many tests a step ran. A skipped test is neither passed nor failed. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** How a step ended. */
export interface Outcome {
  readonly ok: boolean;
  /** Everything it printed. */
  readonly output: string;
  /** Its tests; absent when the step is one check. */
  readonly counts?: Counts;
  /** What its tests ran on, for the table. */
  readonly runtime?: string;
}

/** What a step may use while it runs. */
interface Job {
  /** Aborted when the step's time is over or the driver is interrupted. */
  readonly signal: AbortSignal;
  /** A temporary folder of the driver's. */
  readonly folder: string;
}

/** A step of the proof, chosen by its name on the command line. */
export interface Step {
  readonly name: string;
  readonly run: (job: Job) => Promise<Outcome>;
}

const STEP_LIMIT = 600_000; // ms
const DOCUMENTS = [
  "mod.ts",
  "scripts/sandbox.ts",
  "scripts/store_conformance.ts",
  "README.md",
];

/** The steps in their order. */
export const STEPS: readonly Step[] = [
  { name: "fmt", run: (job) => deno(job, ["fmt", "--check"]) },
  { name: "lint", run: (job) => deno(job, ["lint"]) },
  {
    name: "check",
    run: (job) => deno(job, ["check", "mod.ts", "scripts", "tests"]),
  },
  { name: "types", run: checkTypesWithoutDeno },
  {
    name: "doc",
    run: (job) => deno(job, ["doc", "--lint", "mod.ts", "scripts/sandbox.ts"]),
  },
  {
    name: "fences",
    run: (job) => testOnDeno(job, ["--doc"], DOCUMENTS),
  },
  {
    name: "deno",
    run: async (job) =>
      testOnDeno(job, ["--no-check", "--parallel"], await testFiles(job)),
  },
  { name: "node22", run: (job) => testOnNode(job, 22) },
  { name: "node24", run: (job) => testOnNode(job, 24) },
  { name: "package", run: testPackage },
];

/**
 * The steps named on the command line, or all of them.
 *
 * @throws {RangeError} On a name that no step has.
 */
export function chooseSteps(args: readonly string[]): readonly Step[] {
  const names = args[0] === "--" ? args.slice(1) : args;
  return chooseNamed("step", STEPS, names);
}

/**
 * Those of a table that are named, in its order, or all of them.
 *
 * @throws {RangeError} On a name that is not in it.
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
  if (names.length === 0) return table;
  return table.filter(({ name }) => names.includes(name));
}

function deno(job: Job, args: string[]): Promise<Outcome> {
  return run(process.execPath, args, { signal: job.signal });
}

/**
 * Checks the types of what is published as a user of Node sees them: with
 * Node's declarations in place of Deno's, and with the strictest flags of the
 * runtimes that only strip types. Node 20 is the oldest one supported.
 */
async function checkTypesWithoutDeno(job: Job): Promise<Outcome> {
  await installDevelopmentPackages(job.signal);
  return run("node", [
    path.join(PACKAGES, "typescript", "bin", "tsc"),
    ...["--noEmit", "--strict", "--noUncheckedIndexedAccess"],
    ...["--target", "es2023", "--lib", "es2023"],
    ...["--module", "esnext", "--moduleResolution", "bundler"],
    ...["--erasableSyntaxOnly", "--verbatimModuleSyntax"],
    ...["--isolatedDeclarations", "--declaration"],
    "--rewriteRelativeImportExtensions",
    ...["--typeRoots", path.join(PACKAGES, "@types"), "--types", "node"],
    ...["mod.ts", "scripts/sandbox.ts", "scripts/npm_bin.ts"],
  ], { signal: job.signal });
}

async function testFiles(job: Job): Promise<string[]> {
  await installDevelopmentPackages(job.signal);
  const names = await fs.readdir(path.join(ROOT, "tests"));
  return names.filter((name) => name.endsWith("_test.ts")).sort()
    .map((name) => `tests/${name}`);
}

async function testOnDeno(
  job: Job,
  options: string[],
  files: string[],
): Promise<Outcome> {
  const report = path.join(job.folder, "deno.xml");
  await fs.rm(report, { force: true });
  const args = ["test", "-A", `--junit-path=${report}`, ...options, ...files];
  const outcome = await deno(job, args);
  return withCounts(outcome, report, `Deno ${process.versions.deno}`);
}

async function testOnNode(job: Job, major: number): Promise<Outcome> {
  const files = await testFiles(job);
  const node = await nodeBinary(major, job.signal);
  const report = path.join(job.folder, `node${major}.xml`);
  const { stdout } = await run(node, ["--version"], { signal: job.signal });
  const outcome = await run(node, [
    // A file that hangs is ended and named, long before the step is.
    ...["--test", "--test-concurrency=2", "--test-timeout=240000"],
    ...["--test-reporter=spec", "--test-reporter-destination=stdout"],
    ...["--test-reporter=junit", `--test-reporter-destination=${report}`],
    ...files,
  ], { signal: job.signal });
  return withCounts(outcome, report, `Node ${stdout.trim().slice(1)}`);
}

async function testPackage(job: Job): Promise<Outcome> {
  await installDevelopmentPackages(job.signal);
  // In a folder of its own, so that the other steps do not run it too.
  const files = ["tests/package/package_test.ts"];
  const outcome = await testOnDeno(job, ["--no-check"], files);
  return { ...outcome, runtime: `npm package, Node ${NODES.join(", ")}` };
}

// === Counting

async function withCounts(
  outcome: Outcome,
  report: string,
  runtime: string,
): Promise<Outcome> {
  const xml = await fs.readFile(report, "utf8").catch(() => "");
  const counts = junitCounts(xml);
  if (counts.passed + counts.failed > 0) return { ...outcome, counts, runtime };
  const output = `${outcome.output}\nNo test ran on ${runtime}\n`;
  return { ok: false, output, counts, runtime };
}

/**
 * Counts the tests in the JUnit report of Deno or of Node. Only tests without
 * subtests count, so that both runtimes come to the same number: Deno reports
 * a test and its steps side by side, Node makes a suite of the test.
 */
export function junitCounts(xml: string): Counts {
  const cases = [...xml.matchAll(
    /<testcase((?:\s+[\w-]+="[^"]*")*)\s*(?:\/>|>([\s\S]*?)<\/testcase>)/g,
  )].map(([, attributes = "", body = ""]) => ({
    name: /\sname="([^"]*)"/.exec(attributes)?.[1] ?? "",
    failed: /<(failure|error)\b/.test(body),
    skipped: /<skipped\b/.test(body),
  }));
  const parents = new Set(cases.flatMap(({ name }) => parentNames(name)));
  const tests = cases.filter(({ name }) => !parents.has(name));
  const failed = tests.filter((test) => test.failed).length;
  const skipped = tests.filter((test) => !test.failed && test.skipped).length;
  return { passed: tests.length - failed - skipped, failed, skipped };
}

/** `a &gt; b &gt; c` has the parents `a` and `a &gt; b`. */
function parentNames(name: string): string[] {
  const parts = name.split(" &gt; ");
  return parts.slice(1).map((_, i) => parts.slice(0, i + 1).join(" &gt; "));
}

/**
 * Adds up the outcomes. A step without tests counts as one, and so does a
 * failure that no test shows: a crash, a leak, a step out of time.
 */
export function total(outcomes: readonly Outcome[]): Counts {
  const sum = { passed: 0, failed: 0, skipped: 0 };
  for (const { ok, counts } of outcomes) {
    sum.passed += counts?.passed ?? (ok ? 1 : 0);
    sum.failed += Math.max(counts?.failed ?? 0, ok ? 0 : 1);
    sum.skipped += counts?.skipped ?? 0;
  }
  return sum;
}

/** The last line of the driver, which CI reads. */
export function summary({ passed, failed, skipped }: Counts): string {
  const line = `${passed} passed, ${failed} failed`;
  return skipped === 0 ? line : `${line}, ${skipped} skipped`;
}

/** The table of the tests that ran on each runtime. */
export function table(
  rows: readonly { readonly name: string; readonly outcome: Outcome }[],
): string {
  const cells = rows.flatMap(({ name, outcome: { counts, runtime } }) =>
    counts === undefined ? [] : [[
      name,
      runtime ?? "",
      ...[counts.passed, counts.failed, counts.skipped].map(String),
    ]]
  );
  if (cells.length === 0) return "";
  const lines = [["step", "runtime", "passed", "failed", "skipped"], ...cells];
  const width = (column: number) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0));
  return lines.map((line) =>
    line.map((cell, i) =>
      i < 2 ? cell.padEnd(width(i)) : cell.padStart(width(i))
    ).join("  ").trimEnd()
  ).join("\n");
}

// === Packages and runtimes from npm

/** The versions of Node that the package is proved on. */
export const NODES: readonly number[] = [20, 22, 24];

const PACKAGES: string = path.join(ROOT, "tests", "node_modules");

/** Installs what `tests/package.json` names, unless that has been done. */
export async function installDevelopmentPackages(
  signal?: AbortSignal,
): Promise<void> {
  const folder = path.dirname(PACKAGES);
  const hash = createHash("sha256");
  for (const name of ["package.json", "package-lock.json"]) {
    hash.update(await fs.readFile(path.join(folder, name)));
  }
  const stamp = path.join(PACKAGES, ".installed");
  const wanted = hash.digest("hex");
  if (await fs.readFile(stamp, "utf8").catch(() => "") === wanted) return;
  const npm = npmTool("npm", ["ci", "--ignore-scripts", "--no-audit"]);
  const { ok, output } = await runTool(npm, { cwd: folder, signal });
  if (!ok) {
    throw new Error(
      "Cannot install the packages of tests/package.json: npm failed, " +
        `is a registry within reach?\n${output}`,
    );
  }
  await fs.writeFile(stamp, wanted);
}

/**
 * The path of a Node of the given major version, which npx brings. Running it
 * by its path leaves npx out of every later call, with its time and with the
 * settings that it hands down.
 */
export async function nodeBinary(
  major: number,
  signal?: AbortSignal,
): Promise<string> {
  const args = ["-y", "-p", `node@${major}`, "node", "-p", "process.execPath"];
  const { ok, stdout, output } = await runTool(npmTool("npx", args), {
    signal,
  });
  const binary = stdout.trim().split("\n").at(-1) ?? "";
  if (ok && binary !== "") return binary;
  throw new Error(
    `Cannot get Node ${major}: npx failed, is a registry within reach?\n` +
      output,
  );
}

// === Processes

/** How a process ended and what it printed. */
export interface Finished {
  /** The exit code; `null` if it was killed or could not be started. */
  readonly code: number | null;
  /** Whether that is 0. */
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
  /** Both, as they came. */
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
  return finish(child, options.signal);
}

/** Runs `npm` or `npx` as {@linkcode npmTool} prepared it. */
export function runTool(
  { file, args, shell }: ToolCommand,
  options: RunOptions = {},
): Promise<Finished> {
  return run(file, args, { ...options, shell });
}

function finish(child: ChildProcess, signal?: AbortSignal): Promise<Finished> {
  const texts = { stdout: "", stderr: "", output: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      texts[name] += text;
      texts.output += text;
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
 * The environment of the steps: without the developer's own app, and without
 * what an `npx` around the driver would tell an `npm` or `npx` inside it.
 */
export function childEnvironment(
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const kept = Object.entries(env).filter((entry): entry is [string, string] =>
    entry[1] !== undefined &&
    !NOT_HANDED_DOWN.some((pattern) => pattern.test(entry[0]))
  );
  return { ...Object.fromEntries(kept), NO_COLOR: "1", DENO_JOBS: "2" };
}

// === The driver

async function runStep(
  step: Step,
  folder: string,
  interrupt: AbortSignal,
): Promise<Outcome> {
  const limit = new AbortController();
  const timer = setTimeout(
    () => limit.abort(`Stopped after ${STEP_LIMIT / 1000} s`),
    STEP_LIMIT,
  );
  const signal = AbortSignal.any([interrupt, limit.signal]);
  const started = performance.now();
  const outcome = await step.run({ signal, folder }).catch((error: Error) => ({
    ok: false,
    output: `${error.message}\n`,
  }));
  clearTimeout(timer);
  report(step.name, outcome, performance.now() - started);
  return outcome;
}

function report(name: string, outcome: Outcome, time: number): void {
  const seconds = `${(time / 1000).toFixed(1)} s`.padStart(8);
  const counts = outcome.counts ? `  ${summary(outcome.counts)}` : "";
  const verdict = outcome.ok ? "ok    " : "FAILED";
  console.log(`${verdict}  ${name.padEnd(8)}${seconds}${counts}`);
  if (!outcome.ok) console.log(`\n${withoutPassed(outcome.output).trim()}\n`);
}

/**
 * What a failed step printed, without the lines of tests that passed: a log
 * that is cut short would show nothing else.
 */
export function withoutPassed(output: string): string {
  const passed = /^(\s*[✔﹣] .* \(\S+ms\).*|.* \.\.\. (ok|ignored) \(\S+\))$/;
  return output.split("\n").filter((line) => !passed.test(line)).join("\n");
}

async function prove(
  steps: readonly Step[],
  interrupt: AbortSignal,
): Promise<number> {
  const folder = await fs.mkdtemp(path.join(tmpdir(), "tiktok-shop-test-"));
  const rows: { name: string; outcome: Outcome }[] = [];
  for (const step of steps) {
    if (interrupt.aborted) break;
    rows.push({
      name: step.name,
      outcome: await runStep(step, folder, interrupt),
    });
  }
  await fs.rm(folder, { recursive: true, force: true });
  const counts = total(rows.map((row) => row.outcome));
  console.log(["", table(rows), "", summary(counts)].join("\n"));
  if (interrupt.aborted) return 130;
  return counts.failed === 0 ? 0 : 1;
}

async function main(args: string[]): Promise<number> {
  const interrupt = new AbortController();
  process.once("SIGINT", () => interrupt.abort("Interrupted"));
  process.once("SIGTERM", () => interrupt.abort("Interrupted"));
  let steps: readonly Step[];
  try {
    steps = chooseSteps(args);
  } catch (error) {
    console.error((error as Error).message);
    return 2;
  }
  return await prove(steps, interrupt.signal);
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
