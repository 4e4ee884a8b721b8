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
import * as fs from "node:fs/promises";
import * as path from "node:path";
import process from "node:process";
import {
  chooseNamed,
  installDevelopmentPackages,
  nodeBinary,
  NODES,
  PACKAGES,
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
    run: async (job) => {
      await installDevelopmentPackages(job.signal);
      const options = ["--no-check", "--parallel"];
      return testOnDeno(job, options, await testFiles());
    },
  },
  { name: "node22", run: (job) => testOnNode(job, 22) },
  { name: "node24", run: (job) => testOnNode(job, 24) },
  { name: "package", run: testPackage },
];

/**
 * The steps named on the command line, or all of them.
 *
 * @throws {RangeError} for a name that no step has
 */
export function chooseSteps(names: readonly string[]): readonly Step[] {
  return names.length === 0 ? STEPS : chooseNamed("step", STEPS, names);
}

function deno(job: Job, args: string[]): Promise<Outcome> {
  const env = { DENO_JOBS: "2" };
  return run(process.execPath, args, { signal: job.signal, env });
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
  await installDevelopmentPackages(job.signal);
  const node = await nodeBinary(major, job.signal);
  const report = path.join(job.folder, `node${major}.xml`);
  const { stdout } = await run(node, ["--version"], { signal: job.signal });
  const outcome = await run(node, [
    // A file that hangs is ended and named, long before the step is.
    ...["--test", "--test-concurrency=2", "--test-timeout=240000"],
    ...["--test-reporter=spec", "--test-reporter-destination=stdout"],
    ...["--test-reporter=junit", `--test-reporter-destination=${report}`],
    ...await testFiles(),
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
  const head = ["step", "runtime", "passed", "failed", "skipped"];
  return textTable([head, ...cells], (column) => column > 1);
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

function prove(steps: readonly Step[]): Promise<number> {
  const interrupt = new AbortController();
  process.once("SIGINT", () => interrupt.abort("Interrupted"));
  process.once("SIGTERM", () => interrupt.abort("Interrupted"));
  return withTemporaryFolder("test", async (folder) => {
    const rows: { name: string; outcome: Outcome }[] = [];
    for (const step of steps) {
      if (interrupt.signal.aborted) break;
      const outcome = await runStep(step, folder, interrupt.signal);
      rows.push({ name: step.name, outcome });
    }
    const counts = total(rows.map((row) => row.outcome));
    console.log(["", table(rows), "", summary(counts)].join("\n"));
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
