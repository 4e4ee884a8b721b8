/**
 * Proves everything: the driver behind `deno task test`. It runs every step,
 * even after one has failed, and shows what a failed one printed. It ends with
 * a table of the tests on each runtime, the time it took, and the counts.
 *
 * ```sh
 * deno task test                # everything
 * deno task test quick          # format, lint, types, most tests; on Deno
 * deno task test deno node22    # some steps, by name
 * ```
 *
 * Exit codes: 0 every step passed, 1 one failed, 2 no such step, 130
 * interrupted.
 *
 * @module
 */
import * as fs from "node:fs/promises";
import { availableParallelism } from "node:os";
import * as path from "node:path";
import process from "node:process";
import {
  chooseNamed,
  installDevelopmentPackages,
  messageOf,
  nodeBinary,
  NODES,
  PACKAGES,
  PUBLISHED,
  ROOT,
  run,
  runScript,
  testFiles,
  textTable,
  withTemporaryFolder,
} from "./tools.ts";

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
  /** To be called with whatever the step prints, as it prints it. */
  readonly onOutput: (text: string) => void;
}

/** A step of the proof, chosen by its name on the command line. */
export interface Step {
  readonly name: string;
  readonly run: (job: Job) => Promise<Outcome>;
}

const STEP_TIMEOUT_MS = 600_000;

/** The documents whose examples run. */
const DOCUMENTS = [...PUBLISHED, "README.md", "npm/README.md"];

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
    run: (job) => deno(job, ["doc", "--lint", ...PUBLISHED]),
  },
  {
    name: "fences",
    run: (job) =>
      testOnDeno(job, ["--doc"], DOCUMENTS, {
        // The developer's own profiles stay out of it.
        TIKTOK_SHOP_HOME: path.join(job.folder, "fences"),
      }),
  },
  { name: "deno", run: (job) => testFilesOnDeno(job, () => true) },
  { name: "node22", run: (job) => testOnNode(job, 22, () => true) },
  { name: "node24", run: (job) => testOnNode(job, 24, runsOnBothNodes) },
  { name: "package", run: testPackage },
];

/** The step that only `quick` has; the others are in {@link STEPS}. */
const QUICK_TESTS: Step = {
  name: "quick",
  run: (job) => testFilesOnDeno(job, isQuick),
};

/** What the word `quick` stands for on the command line. */
const QUICK = ["fmt", "lint", "check", QUICK_TESTS.name];

/**
 * The steps named on the command line, or all of them.
 *
 * @throws {RangeError} for a name that no step has
 */
export function chooseSteps(names: readonly string[]): readonly Step[] {
  if (names.length === 0) return STEPS;
  const all = names.flatMap((name) => name === "quick" ? QUICK : [name]);
  return chooseNamed("step", [...STEPS, QUICK_TESTS], all);
}

/** Tests wait more than they compute, so each core runs four files. */
const JOBS: number = 4 * availableParallelism();

function deno(
  job: Job,
  args: string[],
  extra: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const { signal, onOutput } = job;
  const env = { DENO_JOBS: String(JOBS), ...extra };
  return run(process.execPath, args, { signal, onOutput, env });
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
    ...PUBLISHED,
    "scripts/npm_bin.ts",
  ], job);
}

async function testOnDeno(
  job: Job,
  options: string[],
  files: string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const report = path.join(job.folder, "deno.xml");
  await fs.rm(report, { force: true });
  const args = ["test", "-A", `--junit-path=${report}`, ...options, ...files];
  const outcome = await deno(job, args, env);
  return withCounts(outcome, report, `Deno ${process.versions.deno}`);
}

async function testFilesOnDeno(
  job: Job,
  isMeant: (file: string) => boolean,
): Promise<Outcome> {
  await installDevelopmentPackages(job.signal);
  const files = await largestFirst((await testFiles()).filter(isMeant));
  return testOnDeno(job, ["--no-check", "--parallel"], files);
}

async function testOnNode(
  job: Job,
  major: number,
  isMeant: (file: string) => boolean,
): Promise<Outcome> {
  await installDevelopmentPackages(job.signal);
  const files = await largestFirst((await testFiles()).filter(isMeant));
  const node = await nodeBinary(major, job.signal);
  const report = path.join(job.folder, `node${major}.xml`);
  const { stdout } = await run(node, ["--version"], { signal: job.signal });
  const outcome = await run(node, [
    // Stops and names a file that hangs, long before the step times out.
    ...["--test", `--test-concurrency=${JOBS}`, "--test-timeout=240000"],
    ...["--test-reporter=spec", "--test-reporter-destination=stdout"],
    ...["--test-reporter=junit", `--test-reporter-destination=${report}`],
    ...files,
  ], job);
  return withCounts(outcome, report, `Node ${stdout.trim().slice(1)}`);
}

async function testPackage(job: Job): Promise<Outcome> {
  await installDevelopmentPackages(job.signal);
  // testFiles() leaves it out, so no other step runs it.
  const files = ["tests/package/package_test.ts"];
  const outcome = await testOnDeno(job, ["--no-check"], files);
  return { ...outcome, runtime: `npm package, Node ${NODES.join(", ")}` };
}

// === Which tests run where

/** A file of tests that does not run everywhere, and why. */
interface Limits {
  /** What it needs or takes: `quick` leaves it out. */
  readonly notQuick?: string;
  /** Why it can find nothing on Node 24 that it did not find on Node 22. */
  readonly oneNode?: string;
}

/**
 * Every file of tests runs on Deno, on Node 22 and on Node 24, unless it is
 * listed here, by its name without the folder.
 *
 * The versions of Node differ in what a program gets from them: sockets, HTTP
 * and `fetch`, files, child processes, stdin, errors. A file whose tests prove
 * something about these that no other file proves runs on both. The others, as
 * those about texts, a browser or another program, run on Node 22 only, since
 * that is the version that lacks most.
 */
export const LIMITED: Readonly<Record<string, Limits>> = {
  agency_server: { notQuick: "a browser", oneNode: "api meets fetch" },
  authorization_url: { oneNode: "it makes texts" },
  command: { oneNode: "the package starts the sandbox on each Node" },
  commands: {
    notQuick: "hundreds of processes",
    oneNode: "login_command, exec and prompt are processes as well",
  },
  completion: { notQuick: "tmux", oneNode: "shells complete texts" },
  conformance: { oneNode: "it judges stores that are made for it" },
  database_store: {
    notQuick: "Postgres",
    oneNode: "the locks are the database's",
  },
  demo: { oneNode: "the package runs the demo on each Node" },
  doctor: {
    notQuick: "it waits for hosts that never answer",
    oneNode: "callback, tls and tokens meet the same sockets",
  },
  exec: { notQuick: "hundreds of processes" },
  explain: { oneNode: "it judges texts" },
  first_run: { notQuick: "tmux", oneNode: "prompt asks at the same terminal" },
  fuzz_callers: { notQuick: "random input" },
  fuzz_disks: {
    notQuick: "random input",
    oneNode: "file_store makes the same calls",
  },
  fuzz_hosts: { notQuick: "random input" },
  fuzz_logins: {
    notQuick: "it keeps the processors busy",
    oneNode: "callback meets the same sockets",
  },
  fuzz_pages: {
    notQuick: "a browser, tmux, random input",
    oneNode: "a browser and a terminal show texts",
  },
  help: { oneNode: "it judges texts" },
  home: { notQuick: "a browser", oneNode: "a browser shows texts" },
  keychain: { notQuick: "a keychain" },
  module: { oneNode: "it judges texts" },
  never_lose: {
    notQuick: "hundreds of processes",
    oneNode: "refresh and file_store make the same calls",
  },
  operations: { oneNode: "they are calls of the sandbox" },
  pages: { notQuick: "a browser", oneNode: "a browser shows texts" },
  readme: { oneNode: "it judges texts" },
  redaction: { oneNode: "it judges texts" },
  recipes: { notQuick: "many processes" },
  redis_store: { notQuick: "Redis", oneNode: "the sockets are the client's" },
  relay: { notQuick: "a browser", oneNode: "the page runs in a browser" },
  scripts: { oneNode: "it makes texts; the scripts run on Deno" },
  sandbox: { oneNode: "the package starts the sandbox on each Node" },
  sdks: { notQuick: "clients of others", oneNode: "they run on the one Node" },
  terminal: { notQuick: "tmux" },
  two_steps: {
    notQuick: "hundreds of processes",
    oneNode: "login_command runs the same login; a file joins the steps",
  },
  usage: { notQuick: "hundreds of processes", oneNode: "it judges texts" },
  webhook: { oneNode: "it judges bytes" },
  webhooks: { oneNode: "the package starts the sandbox on each Node" },
};

function limitsOf(file: string): Limits {
  return LIMITED[path.basename(file, "_test.ts")] ?? {};
}

function isQuick(file: string): boolean {
  return limitsOf(file).notQuick === undefined;
}

function runsOnBothNodes(file: string): boolean {
  return limitsOf(file).oneNode === undefined;
}

/** The largest files first: a long one at the end would run alone. */
async function largestFirst(files: readonly string[]): Promise<string[]> {
  const sized = await Promise.all(files.map(async (file) => {
    const { size } = await fs.stat(path.join(ROOT, file));
    return { file, size };
  }));
  return sized.sort((a, b) => b.size - a.size).map(({ file }) => file);
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
  const parents = new Set(
    cases.flatMap(({ name }) => parentNames(name, " &gt; ")),
  );
  const tests = cases.filter(({ name }) => !parents.has(name));
  const failed = tests.filter((test) => test.failed).length;
  const skipped = tests.filter((test) => !test.failed && test.skipped).length;
  return { passed: tests.length - failed - skipped, failed, skipped };
}

/** `a > b > c` has the parents `a` and `a > b`. */
function parentNames(name: string, separator: string): string[] {
  const parts = name.split(separator);
  return parts.slice(1).map((_, i) => parts.slice(0, i + 1).join(separator));
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

/** The last line that the driver prints; CI reads it. */
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
  const head = ["step", "runtime", "passed", "failed", "skipped"];
  return textTable([head, ...cells], (column) => column > 1);
}

// === Progress

/** The line that opens a group of tests: Node's, Deno's. */
const OPENED = /^(\s*)(?:▶ (.+)|(.+) \.\.\.)$/;

/** The line of a test or a group that has ended. */
const ENDED_ON_NODE = /^(\s*)([✔✖﹣]) (.+) \(\S+ms\)/;
const ENDED_ON_DENO = /^(\s*)(.+) \.\.\. (ok|FAILED|ignored)( \(.*\))+$/;

/**
 * Counts the tests of Deno and of Node while they print their lines. The
 * report counts once more in the end; this only shows that things go on.
 */
export class RunningCounts {
  readonly counts: { -readonly [name in keyof Counts]: number } = {
    passed: 0,
    failed: 0,
    skipped: 0,
  };
  /** Groups under way: their own lines are not tests. */
  readonly #groups = new Set<string>();
  #rest = "";
  #isOver = false;

  add(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#addLine(line);
  }

  #addLine(line: string): void {
    // Node then repeats the failed ones.
    if (line === "✖ failing tests:") this.#isOver = true;
    if (this.#isOver) return;
    const [, indent = "", onNode, onDeno] = OPENED.exec(line) ?? [];
    const group = onNode ?? onDeno;
    if (group !== undefined) this.#groups.add(indent + group);
    const node = ENDED_ON_NODE.exec(line);
    if (node) this.#end(node[1]! + node[3]!, node[2]!);
    const own = ENDED_ON_DENO.exec(line);
    if (own) this.#end(own[1]! + own[2]!, own[3]!);
  }

  #end(name: string, verdict: string): void {
    for (const parent of parentNames(name, " ... ")) this.#groups.add(parent);
    if (this.#groups.delete(name)) return;
    if (verdict === "ok" || verdict === "✔") this.counts.passed++;
    else if (verdict === "FAILED" || verdict === "✖") this.counts.failed++;
    else this.counts.skipped++;
  }
}

const NOTICE_MS = 20_000; // between two lines where there is no terminal

/** Shows that a step is under way: on a terminal in one line, which changes. */
class Progress {
  readonly #name: string;
  readonly #began: number = performance.now();
  readonly #running = new RunningCounts();
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(name: string) {
    this.#name = name;
    const ms = process.stdout.isTTY ? 1000 : NOTICE_MS;
    this.#timer = setInterval(() => this.#show(), ms);
    this.#show();
  }

  add(text: string): void {
    this.#running.add(text);
  }

  /** The last line, which says how the step ended. */
  end({ ok, counts }: Outcome): void {
    clearInterval(this.#timer);
    const line = this.#line(ok ? "ok" : "FAILED", counts);
    console.log(process.stdout.isTTY ? `\r${line}\x1b[K` : line);
  }

  #show(): void {
    const { passed, failed } = this.#running.counts;
    const counts = passed + failed > 0 ? this.#running.counts : undefined;
    const line = this.#line("...", counts);
    if (process.stdout.isTTY) process.stdout.write(`\r${line}\x1b[K`);
    else console.log(line);
  }

  #line(verdict: string, counts?: Counts): string {
    const time = duration(performance.now() - this.#began).padStart(12);
    const tests = counts ? `  ${summary(counts)}` : "";
    return `${verdict.padEnd(8)}${this.#name.padEnd(8)}${time}${tests}`;
  }
}

/** A time in ms for people. */
export function duration(ms: number): string {
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

// === The driver

async function runStep(
  step: Step,
  folder: string,
  interrupt: AbortSignal,
): Promise<Outcome> {
  const limit = new AbortController();
  const timer = setTimeout(
    () => limit.abort(`Stopped after ${duration(STEP_TIMEOUT_MS)}`),
    STEP_TIMEOUT_MS,
  );
  const signal = AbortSignal.any([interrupt, limit.signal]);
  const progress = new Progress(step.name);
  const onOutput = (text: string) => progress.add(text);
  const outcome = await step.run({ signal, folder, onOutput })
    .catch((error) => ({ ok: false, output: `${messageOf(error)}\n` }));
  clearTimeout(timer);
  progress.end(outcome);
  const { ok, output } = outcome;
  if (!ok) console.log(`\n${withoutPassed(output).trim()}\n`);
  return outcome;
}

/**
 * What a failed step printed, without the lines of tests that passed: a log
 * that is cut short would show nothing else.
 */
export function withoutPassed(output: string): string {
  const passed = /^(\s*[✔﹣] .* \(\S+ms\).*|.* \.\.\. (ok|ignored) \(\S+\))$/;
  return output.split("\n").filter((line) => !passed.test(line)).join("\n");
}

function prove(steps: readonly Step[]): Promise<number> {
  const interrupt = new AbortController();
  process.once("SIGINT", () => interrupt.abort("Interrupted"));
  process.once("SIGTERM", () => interrupt.abort("Interrupted"));
  return withTemporaryFolder("test", async (folder) => {
    const began = performance.now();
    const rows: { name: string; outcome: Outcome }[] = [];
    for (const step of steps) {
      if (interrupt.signal.aborted) break;
      const outcome = await runStep(step, folder, interrupt.signal);
      rows.push({ name: step.name, outcome });
    }
    const counts = total(rows.map((row) => row.outcome));
    const took = `Took ${duration(performance.now() - began)}`;
    const tests = table(rows);
    const last = [took, "", summary(counts)];
    console.log(["", ...(tests ? [tests, ""] : []), ...last].join("\n"));
    if (interrupt.signal.aborted) return 130;
    return counts.failed === 0 ? 0 : 1;
  });
}

if (import.meta.main) {
  process.exitCode = await runScript(
    process.argv.slice(2),
    chooseSteps,
    prove,
  );
}
