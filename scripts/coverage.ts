/**
 * Runs all tests on Deno and prints how much of `mod.ts` they cover, by lines
 * and by branches, and the lines that no test has reached. Processes that the
 * tests start count too, unless they are killed.
 *
 * ```sh
 * deno task coverage
 * deno task coverage tests/tokens/tokens_test.ts
 * ```
 *
 * @module
 */
import * as fs from "node:fs/promises";
import * as path from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import {
  installDevelopmentPackages,
  ROOT,
  run,
  runScript,
  testFiles,
} from "./tools.ts";

const FOLDER: string = path.join(ROOT, ".cache", "coverage");

/** How much of a file the tests have reached. */
export interface Coverage {
  readonly lines: readonly [reached: number, all: number];
  readonly branches: readonly [reached: number, all: number];
  readonly functions: readonly [reached: number, all: number];
  /** The numbers of the lines that were not reached. */
  readonly missed: readonly number[];
}

/** Reads a report in the format of lcov. */
export function readLcov(text: string): Coverage {
  const sum = (name: string) =>
    [...text.matchAll(new RegExp(`^${name}:(\\d+)$`, "gm"))]
      .reduce((total, [, count]) => total + Number(count), 0);
  const missed = [...text.matchAll(/^DA:(\d+),0$/gm)]
    .map(([, line]) => Number(line));
  return {
    lines: [sum("LH"), sum("LF")],
    branches: [sum("BRH"), sum("BRF")],
    functions: [sum("FNH"), sum("FNF")],
    missed: [...new Set(missed)].sort((a, b) => a - b),
  };
}

/** Line numbers as ranges, such as `3-5`. */
export function ranges(numbers: readonly number[]): [number, number][] {
  const found: [number, number][] = [];
  for (const number of numbers) {
    const last = found.at(-1);
    if (last?.[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found;
}

function percent([reached, all]: readonly [number, number]): string {
  const share = all === 0 ? 100 : 100 * reached / all;
  return `${share.toFixed(1)} % (${reached} of ${all})`;
}

/** Runs the tests. Resolves to their output if one failed. */
async function collect(files: readonly string[]): Promise<string | undefined> {
  await fs.rm(FOLDER, { recursive: true, force: true });
  const coverage = [`--coverage=${FOLDER}`, "--coverage-raw-data-only"];
  const { ok, output } = await run(process.execPath, [
    ...["test", "-A", "--no-check", "--parallel", ...coverage],
    ...files,
    // Processes that the tests start write to the same folder.
  ], { env: { DENO_COVERAGE_DIR: FOLDER } });
  return ok ? undefined : output;
}

/** Removes the broken files of processes that were killed while writing. */
async function dropTorn(): Promise<void> {
  for (const name of await fs.readdir(FOLDER)) {
    const file = path.join(FOLDER, name);
    try {
      JSON.parse(await fs.readFile(file, "utf8"));
    } catch {
      await fs.rm(file, { recursive: true });
    }
  }
}

async function report(): Promise<Coverage> {
  await dropTorn();
  const module = pathToFileURL(path.join(ROOT, "mod.ts")).href;
  const only = `--include=^${module.replaceAll(".", "\\.")}$`;
  const { ok, stdout, output } = await run(process.execPath, [
    "coverage",
    FOLDER,
    only,
    "--lcov",
  ]);
  if (ok) return readLcov(stdout);
  throw new Error(`Cannot report the coverage: ${output}`);
}

async function print(coverage: Coverage): Promise<void> {
  const text = await fs.readFile(path.join(ROOT, "mod.ts"), "utf8");
  const source = text.split("\n");
  console.log(`lines      ${percent(coverage.lines)}`);
  console.log(`branches   ${percent(coverage.branches)}`);
  console.log(`functions  ${percent(coverage.functions)}`);
  for (const [first, last] of ranges(coverage.missed)) {
    console.log(`\nNot reached, mod.ts:${first}`);
    console.log(source.slice(first - 1, last).join("\n"));
  }
}

async function cover(files: readonly string[]): Promise<number> {
  await installDevelopmentPackages();
  const problem = await collect(files.length ? files : await testFiles());
  if (problem) console.log(problem);
  await print(await report());
  return problem ? 1 : 0;
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  process.exitCode = await runScript(args, (files) => files, cover);
}
