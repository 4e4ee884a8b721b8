/**
 * Measures what is claimed beside something else that does the same work, both
 * alternating in one run. The figure is a ratio, the median of many pairs, so
 * it holds on any machine that is not too busy.
 *
 * ```sh
 * deno task bench                    # every row, on Deno and on Node
 * deno task bench start callers      # some rows, by name
 * deno task bench --on node24        # on one runtime
 * deno task bench --quick            # few rounds, small numbers: does it run
 * deno task bench --json --rounds 9  # for programs
 * ```
 *
 * Exit codes: 0 every row was measured, 1 one could not be, 2 no such row.
 * A missed aim is shown, and is no failure: machines differ.
 *
 * @module
 */
import { loadavg } from "node:os";
import process from "node:process";
import { parseArgs } from "node:util";
import {
  type Bench,
  CACHED,
  callers,
  type Contenders,
  EMPTY,
  imports,
  PROGRAM,
  refreshes,
  SOURCE,
  starts,
} from "./bench/contenders.ts";
import { BARE, LIBRARY, logins } from "./bench/logins.ts";
import { installPeers, type Runtime, RUNTIMES } from "./bench/runtimes.ts";
import { STORES, tokens } from "./bench/scale.ts";
import {
  chooseNamed,
  lastLine,
  messageOf,
  runScript,
  textTable,
  withTemporaryFolder,
} from "./tools.ts";

// === The rows

/** A row of the bench: contenders that do the same, and what is compared. */
export interface Row {
  /** The name on the command line. */
  readonly name: string;
  readonly what: string;
  /** @default {"ms"} */
  readonly unit?: "µs" | "MiB";
  /** How many pairs are measured. */
  readonly rounds: number;
  /** Why it cannot be measured here. */
  readonly missing?: string | false;
  readonly contenders: (bench: Bench) => Promise<Contenders>;
  readonly pairs: readonly Pair[];
}

/** Contenders, by name, and the ratio that is aimed at. */
interface Pair {
  readonly ours: string;
  /** Of several the best counts: the one with the lowest median. */
  readonly against: string | readonly string[];
  /** Where it is measured. @default {everywhere} */
  readonly on?: Runtime["kind"];
  /** The highest ratio that is good, as `Node`, or `Node 22` alone. */
  readonly aim?: Readonly<Record<string, number>>;
}

/** Packages of others, which npm must bring. */
const PEERS: readonly string[] = [
  "oauth-callback",
  "openid-client",
  "msal-node",
];

const isPeer = (name: string) => PEERS.includes(name);

/** `node mod.ts` beside the package, whose types are stripped. */
function sources(arg = ""): Pair[] {
  return [SOURCE, CACHED].map((name) => ({
    ours: `${name}${arg}`,
    against: `${PROGRAM}${arg}`,
    on: "Node",
  }));
}

/** A row for each store: tokens from 1, 4 and 8 processes, and of many. */
const TOKENS: readonly Row[] = (["files", "redis", "postgres"] as const)
  .map((name) => ({
    name,
    what: `a token (${name})`,
    unit: "µs",
    rounds: 5,
    missing: STORES[name].missing,
    contenders: (bench) => tokens(bench, name),
    pairs: ["warm", "at expiry"].flatMap((when): Pair[] => [
      { ours: `${when}, 4 processes`, against: `${when}, 1 process` },
      { ours: `${when}, 8 processes`, against: `${when}, 1 process` },
      {
        ours: `${when}, 100,000 profiles`,
        against: `${when}, 100 profiles`,
        aim: { Deno: 1.3, Node: 1.3 },
      },
    ]),
  }));

/** The rows in their order. */
export const ROWS: readonly Row[] = [
  {
    name: "start",
    what: "start to end",
    rounds: 41,
    contenders: starts,
    pairs: [
      { ours: `${PROGRAM} --version`, against: EMPTY, aim: { Deno: 1.3 } },
      { ours: `${PROGRAM} --help`, against: EMPTY, aim: { Deno: 1.8 } },
      { ours: `${PROGRAM} status`, against: EMPTY, aim: { Deno: 2.2 } },
      ...sources(" status"),
    ],
  },
  {
    name: "import",
    what: "import",
    rounds: 41,
    contenders: imports,
    pairs: [{ ours: "our module", against: EMPTY, aim: { Deno: 1.25 } }],
  },
  {
    name: "listen",
    what: "start to listening",
    rounds: 15,
    contenders: (bench) => logins(bench, "listening"),
    pairs: [
      { ours: PROGRAM, against: BARE, aim: { Deno: 2 } },
      {
        ours: PROGRAM,
        against: PEERS,
        aim: { "Node 22": 0.9, "Node 24": 0.85 },
      },
      ...sources(),
    ],
  },
  {
    name: "redirect",
    what: "redirect to token",
    rounds: 15,
    contenders: (bench) => logins(bench, "token"),
    pairs: [
      { ours: LIBRARY, against: BARE, aim: { Deno: 1.3, "Node 24": 1.1 } },
      { ours: LIBRARY, against: PEERS },
      // Ours is saved before it is printed, and theirs is not saved.
      { ours: PROGRAM, against: BARE, aim: { Deno: 3 } },
      ...PEERS.map((peer): Pair => ({
        ours: PROGRAM,
        against: peer,
        aim: peer === "openid-client" ? { "Node 22": 1, "Node 24": 1.1 } : {},
      })),
      ...sources(),
    ],
  },
  {
    name: "end",
    what: "redirect to end of process",
    rounds: 15,
    contenders: (bench) => logins(bench, "end"),
    pairs: [{ ours: PROGRAM, against: BARE, aim: { Deno: 1.5 } }],
  },
  {
    name: "memory",
    what: "memory of a waiting login",
    unit: "MiB",
    rounds: 5,
    contenders: (bench) => logins(bench, "memory"),
    pairs: [{ ours: PROGRAM, against: BARE, aim: { Deno: 1.4 } }],
  },
  {
    name: "callers",
    what: "accessToken() at expiry",
    rounds: 5,
    contenders: callers,
    pairs: [
      {
        ours: "10,000 callers",
        against: "one caller",
        aim: { Deno: 3, Node: 3 },
      },
    ],
  },
  {
    name: "refresh",
    what: "refresh of 1,000 profiles",
    rounds: 3,
    contenders: refreshes,
    pairs: [{
      ours: "refresh --all",
      against: "16 at a time, 50 ms each",
      aim: { Deno: 1.3, Node: 1.3 },
    }],
  },
  ...TOKENS,
];

/**
 * The rows named on the command line, or all of them.
 *
 * @throws {RangeError} for a name that no row has
 */
export function chooseRows(names: readonly string[]): readonly Row[] {
  return names.length === 0 ? ROWS : chooseNamed("row", ROWS, names);
}

// === Figures

/** One line of the table. */
export interface Figure {
  readonly row: string;
  /** What it was measured on, such as `Node 22.21.0`. */
  readonly runtime: string;
  readonly what: string;
  /** The median of what we took. */
  readonly ours: number;
  /** What it is compared to. */
  readonly against: string;
  /** The median of what the other one took. */
  readonly theirs: number;
  readonly unit: string;
  /** The median of ours / theirs of each pair. */
  readonly ratio: number;
  readonly rounds: number;
  /** The highest ratio that is good. */
  readonly aim?: number;
}

/** The middle of some numbers; of an even count, the mean of the two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2
    ? sorted[half]!
    : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Whether a figure is as it should be; undefined if nothing is aimed at. */
export function isMet({ aim, ratio }: Figure): boolean | undefined {
  // What is printed decides: nobody wants "1.25, at most 1.25, missed".
  return aim === undefined ? undefined : Number(ratio.toFixed(2)) <= aim;
}

/**
 * Runs the contenders alternately, so that other load on the machine slows all
 * of them. A first round only warms up.
 */
async function race(
  rounds: number,
  names: readonly string[],
  contenders: Contenders,
): Promise<ReadonlyMap<string, number[]>> {
  const measured = new Map(names.map((name) => [name, [] as number[]]));
  for (let round = -1; round < rounds; round++) {
    for (const name of round % 2 ? names : names.toReversed()) {
      const value = await contenders[name]!();
      if (round >= 0) measured.get(name)!.push(value);
    }
  }
  return measured;
}

/** Measures some pairs of a row here and now. */
async function measure(
  row: Row,
  pairs: readonly Pair[],
  bench: Bench,
): Promise<Figure[]> {
  const names = new Set(pairs.flatMap(namesOf));
  const contenders = await row.contenders(bench);
  const measured = await race(bench.rounds, [...names], contenders);
  const middle = (name: string) => median(measured.get(name)!);
  const [major = ""] = bench.runtime.version.split(".");
  return pairs.map(({ ours, against, aim }) => {
    const rivals = [against].flat().sort((a, b) => middle(a) - middle(b));
    const best = rivals[0]!;
    const their = measured.get(best)!;
    return {
      row: row.name,
      runtime: bench.runtime.version,
      what: `${row.what}: ${ours}`,
      ours: middle(ours),
      against: rivals.length > 1 ? `${best}, best of ${rivals.length}` : best,
      theirs: middle(best),
      unit: row.unit ?? "ms",
      ratio: median(measured.get(ours)!.map((value, i) => value / their[i]!)),
      rounds: bench.rounds,
      aim: bench.quick ? undefined : aim?.[major] ?? aim?.[bench.runtime.kind],
    };
  });
}

function namesOf({ ours, against }: Pair): string[] {
  return [ours, ...[against].flat()];
}

// === The driver

interface Settings {
  readonly quick: boolean;
  readonly json: boolean;
  readonly rounds: number | undefined;
  readonly rows: readonly Row[];
  /** Names in {@linkcode RUNTIMES}. */
  readonly runtimes: readonly string[];
}

/**
 * Reads the command line.
 *
 * @throws {TypeError | RangeError} for what it does not know
 */
export function readSettings(args: string[]): Settings {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      quick: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      on: { type: "string", multiple: true },
      rounds: { type: "string" },
    },
  });
  const rounds = values.rounds === undefined ? undefined : +values.rounds;
  if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0)) {
    throw new RangeError(`Cannot run ${values.rounds} rounds: give a number`);
  }
  const known = Object.keys(RUNTIMES);
  const runtimes = values.on ?? known;
  const unknown = runtimes.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new RangeError(
      `Cannot run on "${unknown}": use ${known.join(", ")}`,
    );
  }
  return { ...values, rounds, runtimes, rows: chooseRows(positionals) };
}

const QUICK_ROUNDS = 3;

/** Measures some pairs of a row on one runtime. */
async function measureOn(
  runtime: Runtime,
  row: Row,
  pairs: readonly Pair[],
  { quick, rounds = quick ? QUICK_ROUNDS : row.rounds }: Settings,
): Promise<Figure[]> {
  return await withTemporaryFolder("bench", async (folder) => {
    const cleanups: Bench["cleanups"] = [];
    try {
      const bench = { runtime, rounds, quick, folder, cleanups };
      return await measure(row, pairs, bench);
    } finally {
      for (const cleanUp of cleanups.reverse()) await cleanUp();
    }
  });
}

/** What a run brought: figures, and a sentence for what was left out. */
interface Report {
  readonly figures: Figure[];
  readonly skipped: string[];
}

async function measureAll(settings: Settings): Promise<Report> {
  const report: Report = { figures: [], skipped: [] };
  const skip = (what: string) => (error: unknown) => {
    report.skipped.push(`${what}: ${lastLine(messageOf(error))}`);
  };
  for (const { name, missing } of settings.rows) {
    if (missing) skip(name)(new Error(missing));
  }
  const rows = settings.rows.filter(({ missing }) => !missing);
  const isForeign = (pair: Pair) => namesOf(pair).some(isPeer);
  const isWanted = rows.some(({ pairs }) => pairs.some(isForeign));
  const found = !isWanted || await installPeers().then(() => true)
    .catch(skip("packages of others"));
  for (const name of settings.runtimes) {
    const runtime = await RUNTIMES[name]!().catch(skip(name));
    for (const row of runtime ? rows : []) {
      const { kind, version } = runtime!;
      console.error(`${version}: ${row.name}`);
      const pairs = row.pairs.filter((pair) =>
        (pair.on ?? kind) === kind && (found || !isForeign(pair))
      );
      const figures = await measureOn(runtime!, row, pairs, settings);
      report.figures.push(...figures);
    }
  }
  return report;
}

// === The table

function shown(value: number, unit: string): string {
  return `${value.toFixed(value >= 100 ? 0 : 1)} ${unit}`;
}

/** The figures as lines of columns. */
export function table(figures: readonly Figure[]): string {
  const rows = figures.map((each) => [
    each.row,
    each.runtime,
    each.what,
    shown(each.ours, each.unit),
    each.against,
    shown(each.theirs, each.unit),
    each.ratio.toFixed(2),
    each.aim === undefined ? "" : `≤ ${each.aim}`,
    { true: "met", false: "MISSED", undefined: "" }[`${isMet(each)}`]!,
  ]);
  const head = ["row", "on", "what", "ours", "against", "theirs", "ratio"];
  const isRight = (column: number) => [3, 5, 6].includes(column);
  return textTable([[...head, "aim", ""], ...rows], isRight);
}

function print({ figures, skipped }: Report, loads: number[]): void {
  console.log(table(figures));
  for (const what of skipped) console.log(`Left out: ${what}`);
  const text = loads.map((load) => load.toFixed(1)).join(" and ");
  console.log(`\nLoad average before and after: ${text}`);
}

async function bench(settings: Settings): Promise<number> {
  const before = loadavg()[0]!;
  const report = await measureAll(settings);
  if (settings.json) console.log(JSON.stringify(report, null, 2));
  else print(report, [before, loadavg()[0]!]);
  return 0;
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  process.exitCode = await runScript(args, readSettings, bench);
}
