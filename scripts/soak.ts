/**
 * Runs the fuzz tests at full length: `deno task test` tries some hundred
 * inputs of each kind, this tries many thousand. Each test runs on Deno and on
 * Node with the same seed. A table shows what was counted and measured.
 *
 * ```sh
 * deno task soak                          # all of them, for an hour
 * deno task soak callers kills            # some, by name
 * deno task soak hosts --seed 7 --count 500 --on deno
 * ```
 *
 * Exit codes: 0 all passed, 1 one failed, 2 no such soak.
 *
 * @module
 */
import * as fs from "node:fs/promises";
import * as path from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import {
  chooseNamed,
  installDevelopmentPackages,
  nodeBinary,
  run,
  runScript,
  testFile,
  textTable,
  withTemporaryFolder,
} from "./tools.ts";

/** A file of fuzz tests, and how long it runs here. */
export interface Soak {
  readonly name: string;
  readonly file: string;
  /** How many inputs it tries. */
  readonly count: number;
}

/** The soaks in their order. */
export const SOAKS: readonly Soak[] = [
  { name: "callers", file: "fuzz_callers_test.ts", count: 100_000 },
  { name: "hosts", file: "fuzz_hosts_test.ts", count: 20_000 },
  { name: "disks", file: "fuzz_disks_test.ts", count: 1000 },
  { name: "kills", file: "never_lose_test.ts", count: 1000 },
  { name: "pages", file: "fuzz_pages_test.ts", count: 200 },
  { name: "logins", file: "fuzz_logins_test.ts", count: 1000 },
];

/** What the command line asks for. */
export interface Settings {
  readonly soaks: readonly Soak[];
  readonly seed: number;
  readonly runtimes: readonly string[];
}

const RUNTIMES = ["deno", "node"];

/**
 * Reads the command line.
 *
 * @throws {TypeError | RangeError} for what it does not know
 */
export function readSettings(args: readonly string[]): Settings {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      seed: { type: "string" },
      count: { type: "string" },
      on: { type: "string" },
    },
  });
  const { on } = values;
  if (on !== undefined && !RUNTIMES.includes(on)) {
    throw new RangeError(`Cannot run on "${on}": use ${RUNTIMES.join(" or ")}`);
  }
  const seed = values.seed ?? String(Math.floor(Math.random() * 1e9));
  const count = values.count === undefined ? undefined : integer(values.count);
  return {
    soaks: chooseSoaks(positionals)
      .map((soak) => ({ ...soak, count: count ?? soak.count })),
    seed: integer(seed),
    runtimes: on === undefined ? RUNTIMES : [on],
  };
}

function chooseSoaks(names: readonly string[]): readonly Soak[] {
  return names.length === 0 ? SOAKS : chooseNamed("soak", SOAKS, names);
}

function integer(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new RangeError(`Cannot use "${text}": give a number`);
}

/** What a soak counted or measured. */
interface Note {
  readonly what: string;
  readonly value: number | string;
}

async function commandOf(runtime: string, name: string): Promise<string[]> {
  const file = await testFile(name);
  return runtime === "deno"
    ? [process.execPath, "test", "-A", "--no-check", file]
    : [await nodeBinary(22), "--test", file];
}

/** Runs one soak on one runtime. */
function runSoak(
  { name, file, count }: Soak,
  runtime: string,
  seed: number,
): Promise<{ ok: boolean; notes: Note[] }> {
  return withTemporaryFolder("soak", async (folder) => {
    const notes = path.join(folder, "notes");
    const began = performance.now();
    const [command = "", ...args] = await commandOf(runtime, file);
    const { ok, output } = await run(command, args, {
      env: {
        FUZZ_SEED: String(seed),
        FUZZ_COUNT: String(count),
        FUZZ_NOTES: notes,
      },
    });
    const seconds = `${((performance.now() - began) / 1000).toFixed(0)} s`;
    const verdict = ok ? "ok    " : "FAILED";
    console.log(
      `${verdict}  ${name.padEnd(8)}${runtime.padEnd(6)}${seconds.padStart(6)}`,
    );
    if (!ok) console.log(`\n${output.trimEnd()}\n`);
    const text = await fs.readFile(notes, "utf8").catch(() => "");
    const lines = text.split("\n").filter((line) => line !== "");
    return { ok, notes: lines.map((line) => JSON.parse(line)) };
  });
}

/** The notes as a table: a line for each, a column for each runtime. */
export function table(
  rows: readonly { name: string; runtime: string; notes: readonly Note[] }[],
): string {
  const runtimes = RUNTIMES.filter((each) =>
    rows.some(({ runtime }) => runtime === each)
  );
  const lines = [["soak", "what", ...runtimes]];
  for (const { name, runtime, notes } of rows) {
    for (const { what, value } of notes) {
      let line = lines.find((each) => each[0] === name && each[1] === what);
      if (!line) {
        line = [name, what, ...runtimes.map(() => "")];
        lines.push(line);
      }
      line[2 + runtimes.indexOf(runtime)] = String(value);
    }
  }
  return textTable(lines, (column) => column > 1);
}

async function soakAll(settings: Settings): Promise<number> {
  await installDevelopmentPackages();
  const { soaks, seed, runtimes } = settings;
  console.log(`Seed ${seed}; again with --seed ${seed}`);
  const rows: Parameters<typeof table>[0][number][] = [];
  let failed = 0;
  for (const soak of soaks) {
    for (const runtime of runtimes) {
      const { ok, notes } = await runSoak(soak, runtime, seed);
      rows.push({ name: soak.name, runtime, notes });
      if (!ok) failed++;
    }
  }
  console.log(`\n${table(rows)}`);
  return failed === 0 ? 0 : 1;
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  process.exitCode = await runScript(args, readSettings, soakAll);
}
