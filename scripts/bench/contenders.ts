/**
 * What the rows of the bench let run: our program and our library, and others
 * that do the same work, each as a process of its own.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { childEnvironment, ROOT, run } from "../tools.ts";
import type { Runtime } from "./runtimes.ts";

/** One measurement: how long it took, or how much it was. */
export type Sample = () => number | Promise<number>;

/** The samples of each contender, by its name. */
export type Contenders = Readonly<Record<string, Sample>>;

// Names of contenders that several rows have.
export const PROGRAM = "the program";
/** The program as it stands, on Node, and with the types stripped before. */
export const SOURCE = "node mod.ts";
export const CACHED = "node mod.ts, compile cache";
export const EMPTY = "an empty module";

// === What the rows share

/** Credentials that open nothing. */
export const APP = {
  appKey: "6f3k9d2m1x8q",
  appSecret: "5a6d0b0c5b0e1f7a92c4438be0d1725f6a3e9c81",
  serviceId: "7412345678901234567",
};

/** What a row may use. */
export interface Bench {
  readonly runtime: Runtime;
  readonly rounds: number;
  readonly quick: boolean;
  /** A temporary folder of this row's. */
  readonly folder: string;
  /** Called when the row is measured or has failed. */
  readonly cleanups: (() => unknown)[];
}

/** A script of a few lines, with its arguments in `args`, as a command. */
export async function script(
  { runtime, folder }: {
    readonly runtime: Pick<Runtime, "command">;
    readonly folder: string;
  },
  name: string,
  text: string,
): Promise<string[]> {
  const file = path.join(folder, `${name}.mjs`);
  await fs.writeFile(file, ARGUMENTS + text);
  return [...runtime.command, file];
}

/** Leaves `process` alone on Deno, where the first touch of it takes long. */
const ARGUMENTS = `
const args = globalThis.Deno?.args ?? globalThis.process.argv.slice(2);
`;

/** A reply as TikTok sends it, for tokens that live for days. */
export function tokenReply(
  name: string,
  life = 7 * 86400,
): Record<string, unknown> {
  const now = Math.floor(Date.now() / 1000);
  return {
    code: 0,
    message: "success",
    data: {
      access_token: `GCP_access_${name}`,
      access_token_expire_in: now + life,
      refresh_token: `GCP_refresh_${name}`,
      refresh_token_expire_in: 4841467787,
      open_id: `7010a${name}`,
      seller_name: `Shop ${name}`,
      seller_base_region: "GB",
      user_type: 0,
      granted_scopes: ["seller.authorization.info", "seller.order.info"],
    },
    request_id: "20240722143025A1B2",
  };
}

/** A folder of profiles, as logins leave it. */
async function fillStore(
  { folder }: Bench,
  count: number,
  life?: number,
): Promise<string> {
  const store = path.join(folder, `store of ${count}`);
  await fs.mkdir(store, { recursive: true, mode: 0o700 });
  const meta = { version: 1, app_key: APP.appKey, region: "row" };
  for (let n = 0; n < count; n++) {
    const name = n === 0 ? "default" : `shop-${n}`;
    const text = JSON.stringify({ ...tokenReply(name, life), meta }, null, 2);
    await fs.writeFile(path.join(store, `${name}.json`), text, { mode: 0o600 });
  }
  return store;
}

/** The environment of the program. */
export function programEnv(
  store: string,
  endpoint: string,
): Record<string, string> {
  return {
    HOME: path.dirname(store),
    TIKTOK_SHOP_HOME: store,
    TIKTOK_SHOP_APP_KEY: APP.appKey,
    TIKTOK_SHOP_APP_SECRET: APP.appSecret,
    TIKTOK_SHOP_SERVICE_ID: APP.serviceId,
    TIKTOK_SHOP_TOKEN_ENDPOINT: endpoint,
    TIKTOK_SHOP_REFRESH_ENDPOINT: endpoint,
  };
}

/** The ways to run our program, and what each finds in its environment. */
export function programs({ runtime, folder }: Bench): Record<string, Command> {
  const source = [...runtime.command, path.join(ROOT, "mod.ts")];
  const env = { NODE_COMPILE_CACHE: path.join(folder, "compile cache") };
  return {
    [PROGRAM]: { words: runtime.program },
    [SOURCE]: { words: source },
    [CACHED]: { words: source, env },
  };
}

// === Processes

export const STEP_LIMIT = 60_000; // ms until something is taken for stuck

/** A command, and what it finds in its environment. */
export interface Command {
  readonly words: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Whether it is told something while it runs. */
  readonly hasInput?: boolean;
}

/** A process under way, and when it said what. */
export class Child {
  readonly process: ChildProcess;
  readonly began: number = performance.now();
  /** Resolves to the time of its end. */
  readonly ended: Promise<number>;
  #text = "";
  #look = () => {};

  constructor({ words: [file = "", ...args], env, hasInput }: Command) {
    this.process = spawn(file, args, {
      cwd: tmpdir(), // away from an .env of the developer's
      env: { ...childEnvironment(process.env), ...env },
      stdio: [hasInput ? "pipe" : "ignore", "pipe", "pipe"],
    });
    for (const stream of [this.process.stdout!, this.process.stderr!]) {
      stream.setEncoding("utf8").on("data", (text) => {
        this.#text += text;
        this.#look();
      });
    }
    this.ended = new Promise((resolve, reject) => {
      this.process.once("error", reject);
      this.process.once("exit", () => resolve(performance.now()));
    });
    this.ended.catch(() => {});
  }

  /** What its output matches first, and when it did. */
  until(pattern: RegExp): Promise<{ time: number; match: string }> {
    return new Promise((resolve, reject) => {
      const fail = (why: string) =>
        reject(new Error(`No ${pattern} ${why}: ${this.#text}`));
      const timer = setTimeout(() => fail("in time"), STEP_LIMIT);
      this.#look = () => {
        const match = pattern.exec(this.#text)?.[0];
        if (match === undefined) return;
        clearTimeout(timer);
        resolve({ time: performance.now(), match });
      };
      this.#look();
      this.process.once("close", () => fail("before its end"));
    });
  }
}

/** How long a command takes from its start to its end, in ms. */
async function lifetime(command: Command): Promise<number> {
  const child = new Child(command);
  const ended = await child.ended;
  const { exitCode } = child.process;
  if (exitCode === 0) return ended - child.began;
  throw new Error(`${command.words.join(" ")}: exit code ${exitCode}`);
}

/** Memory of a process in MiB: all that it holds in RAM. */
export async function memoryOf({ pid }: ChildProcess): Promise<number> {
  const status = await fs.readFile(`/proc/${pid}/status`, "utf8")
    .catch(() => "");
  const listed = /VmRSS:\s+(\d+) kB/.exec(status)?.[1] ??
    (await run("ps", ["-o", "rss=", "-p", String(pid)])).stdout.trim();
  return Number(listed) / 1024;
}

// === Starting

/** Our program's short commands. */
export async function starts(bench: Bench): Promise<Contenders> {
  const empty = await script(bench, "empty", "");
  const store = await fillStore(bench, 1);
  const samples = Object.entries(programs(bench)).flatMap(([name, program]) =>
    ["--version", "--help", "status"].map((arg): [string, Sample] => {
      const env = {
        ...programEnv(store, "http://127.0.0.1:9/"),
        ...program.env,
      };
      const command = { words: [...program.words, arg], env };
      return [`${name} ${arg}`, () => lifetime(command)];
    })
  );
  return {
    ...Object.fromEntries(samples),
    [EMPTY]: () => lifetime({ words: empty }),
  };
}

/** A program that imports our module and does no more. */
export async function imports(bench: Bench): Promise<Contenders> {
  const empty = path.join(bench.folder, "nothing.mjs");
  await fs.writeFile(empty, "export {};\n");
  const load = async (name: string, url: string): Promise<Sample> => {
    const words = await script(bench, name, `import ${JSON.stringify(url)};\n`);
    return () => lifetime({ words });
  };
  return {
    "our module": await load("ours", bench.runtime.module),
    [EMPTY]: await load("theirs", pathToFileURL(empty).href),
  };
}

// === Tokens

/** A token host in a process of its own, so that it takes nobody's turn. */
export async function tokenHost(
  bench: Bench,
  latency: number,
): Promise<string> {
  // What OAuth2 wants stands beside TikTok's envelope, for the others.
  const standard = { access_token: "GCP_access_host", token_type: "bearer" };
  const reply = JSON.stringify({ ...tokenReply("host"), ...standard });
  const host = await script(bench, "host", TOKEN_HOST);
  const child = new Child({ words: [...host, String(latency), reply] });
  bench.cleanups.push(() => child.process.kill("SIGKILL"));
  const { match } = await child.until(/^\d+$/m);
  return `http://127.0.0.1:${match}/api/v2/token/get`;
}

const TOKEN_HOST = `
import { createServer } from "node:http";
const [latency, reply] = args;
const server = createServer((request, response) => {
  const answer = () => {
    response.setHeader("content-type", "application/json");
    response.end(reply);
  };
  if (latency === "0") answer();
  else setTimeout(answer, Number(latency));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
`;

/** Callers who ask at once when the token has expired, and one alone. */
export async function callers(bench: Bench): Promise<Contenders> {
  const endpoint = await tokenHost(bench, 50);
  const folder = await fillStore(bench, 1, -60);
  const words = await script(bench, "callers", CALLERS);
  words.push(bench.runtime.module, endpoint, folder, JSON.stringify(APP));
  const crowd = (count: number) => async () => {
    await fillStore(bench, 1, -60);
    const child = new Child({ words: [...words, String(count)] });
    const { match } = await child.until(/(?<=took )\S+/);
    await child.ended;
    return Number(match);
  };
  const count = bench.quick ? 1000 : 10_000;
  return { "10,000 callers": crowd(count), "one caller": crowd(1) };
}

/** Times the second time, when all that is needed is loaded. */
const CALLERS = `
const [module, refreshEndpoint, folder, app, count] = args;
const { accessToken, fileStore } = await import(module);
const store = fileStore(folder);
const expired = await store.load("default");
const ask = () => accessToken({ ...JSON.parse(app), store, refreshEndpoint });
await ask();
await store.save("default", expired);
const began = performance.now();
await Promise.all(Array.from({ length: Number(count) }, ask));
console.log("took", performance.now() - began);
`;

/** Our program refreshing, beside the time that the host alone takes. */
export async function refreshes(bench: Bench): Promise<Contenders> {
  const endpoint = await tokenHost(bench, 50);
  const profiles = bench.quick ? 48 : 1000;
  const env = programEnv(await fillStore(bench, profiles), endpoint);
  const words = [...bench.runtime.program, "refresh", "--all"];
  return {
    "refresh --all": () => lifetime({ words, env }),
    "16 at a time, 50 ms each": () => Math.ceil(profiles / 16) * 50,
  };
}
