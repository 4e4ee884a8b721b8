/**
 * Measures what the README claims, each time against something else that did
 * the same work in the same run, in turns: the figure is a ratio, the median
 * of many pairs, and so it stands on any machine that is not too busy.
 *
 * ```sh
 * deno task bench                    # every row, on Deno and on Node
 * deno task bench start signature    # some rows, by name
 * deno task bench --quick            # few rounds: does it run at all
 * deno task bench --json --rounds 9  # for programs
 * ```
 *
 * Exit codes: 0 every row was measured, 1 one could not be, 2 no such row.
 * A missed aim is shown, and is no failure: machines differ.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import {
  createHash,
  createHmac,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import * as fs from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { loadavg, tmpdir } from "node:os";
import * as path from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import type * as Library from "../mod.ts";
import {
  childEnvironment,
  chooseNamed,
  freePort,
  lastLine,
  nodeBinary,
  ON_DENO,
  ownArguments,
  PACKAGE_NAME,
  ROOT,
  run,
  runNpm,
  runtimeCommand,
} from "./tools.ts";

// === Figures

/** What a figure should be. */
export interface Aim {
  /** The ratio, or our own value where a fixed limit is set. */
  readonly of: "ratio" | "ours";
  readonly bound: "at most" | "at least";
  readonly value: number;
}

/** One line of the table. */
export interface Figure {
  readonly row: string;
  /** What it was measured on, such as `Node 22.21.0`. */
  readonly runtime: string;
  readonly what: string;
  readonly ours: number;
  /** What it is compared to. */
  readonly against: string;
  readonly theirs: number;
  readonly unit: string;
  /** The median of ours / theirs of each pair. */
  readonly ratio: number;
  readonly rounds: number;
  readonly aim?: Aim;
}

/** A row that could not be measured here, and why. */
export interface Skipped {
  readonly row: string;
  readonly runtime: string;
  readonly why: string;
}

/** What a run brought. */
export interface Report {
  readonly figures: readonly Figure[];
  readonly skipped: readonly Skipped[];
}

/** The aims are those of the issue that asked for these figures. */
function atMost(value: number, of: Aim["of"] = "ratio"): Aim {
  return { of, bound: "at most", value };
}

function atLeast(value: number): Aim {
  return { of: "ratio", bound: "at least", value };
}

/** The middle of some numbers; of an even count, the mean of the two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2
    ? sorted[half]!
    : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Whether a figure is as it should be; undefined if nothing was aimed at. */
export function isMet({ aim, ours, ratio }: Figure): boolean | undefined {
  if (!aim) return undefined;
  const value = aim.of === "ratio" ? ratio : ours;
  // What is printed decides: nobody wants "1.25, at most 1.25, missed".
  const rounded = Number(value.toFixed(2));
  return aim.bound === "at most" ? rounded <= aim.value : rounded >= aim.value;
}

// === Contenders

/** One measurement: what it took, or how much it was. */
type Sample = () => number | Promise<number>;

/** The measurements of each contender; those of one index are a pair. */
type Measured = Record<string, number[]>;

/**
 * Lets the contenders have their turns, so that whatever else the machine does
 * meanwhile meets them all. A first round only warms up.
 */
async function race(
  rounds: number,
  contenders: Record<string, Sample>,
): Promise<Measured> {
  const names = Object.keys(contenders);
  const measured: Measured = Object.fromEntries(names.map((n) => [n, []]));
  for (let round = -1; round < rounds; round++) {
    for (const name of round % 2 ? names : names.toReversed()) {
      const value = await contenders[name]!();
      if (round >= 0) measured[name]!.push(value);
    }
  }
  return measured;
}

/** What a figure is besides its numbers. */
type Caption = Pick<Figure, "what" | "unit"> & { aim?: Aim };

/** One figure of a race: the first contender against another. */
function figure(
  measured: Measured,
  [ourName, theirName]: readonly [string, string],
  caption: Caption,
): Omit<Figure, "row" | "runtime"> {
  const [ours, theirs] = [measured[ourName]!, measured[theirName]!];
  return {
    ...caption,
    against: theirName,
    ours: median(ours),
    theirs: median(theirs),
    ratio: median(ours.map((value, i) => value / theirs[i]!)),
    rounds: ours.length,
  };
}

/** How long something takes, in ms. */
async function timed(work: () => unknown): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

// === What the rows share

const CACHE: string = path.join(ROOT, ".cache", "bench");
const PACKAGES: string = path.join(CACHE, "node_modules");

/** Other people's packages, at the versions that were read before use. */
const PEERS: Readonly<Record<string, string>> = {
  "oauth-callback": "2.2.1",
  "tiktok-shop": "2.0.0",
  "tiktok-shop-sdk": "1.0.3",
};

/** Credentials that open nothing. */
const APP = {
  appKey: "6f3k9d2m1x8q",
  appSecret: "5a6d0b0c5b0e1f7a92c4438be0d1725f6a3e9c81",
  serviceId: "7412345678901234567",
};

/** What a row may use. */
interface Bench {
  readonly rounds: number;
  readonly quick: boolean;
  /** A temporary folder of this row's. */
  readonly folder: string;
  /** What is to be done when the row is measured or has failed. */
  readonly cleanups: (() => unknown)[];
  /** Told why a part of the row was left out. */
  readonly skip: (why: string) => void;
}

type RowFigures = Promise<Omit<Figure, "row" | "runtime">[]>;

/** The program, as it is started on Deno, or as npm installs it for Node. */
function program(...args: string[]): string[] {
  const installed = path.join(PACKAGES, ".bin", PACKAGE_NAME);
  return runtimeCommand(
    ON_DENO ? path.join(ROOT, "mod.ts") : installed,
    ...args,
  );
}

/** The module, as Deno imports it, or as npm installs it for Node. */
function modulePath(): string {
  return ON_DENO
    ? path.join(ROOT, "mod.ts")
    : path.join(PACKAGES, PACKAGE_NAME, "esm", "mod.js");
}

/** Not a static import: what is measured on Node is the installed package. */
async function library(): Promise<typeof Library> {
  return await import(pathToFileURL(modulePath()).href);
}

/** A peer that npm brought; on Node or Deno alike. */
function requirePeer(name: string): unknown {
  return createRequire(path.join(CACHE, "package.json"))(name);
}

/** Writes a program of a few lines and returns its path. */
async function programFile(
  { folder }: Bench,
  name: string,
  text: string,
): Promise<string> {
  const file = path.join(folder, name);
  await fs.writeFile(file, text);
  return file;
}

/** A reply as TikTok sends it, for tokens that live for days. */
function tokenReply(name: string, life = 7 * 86400): Record<string, unknown> {
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

// === Processes

const STEP_LIMIT = 60_000; // ms until something is taken for stuck

/** A process under way, and when it said what. */
class Child {
  readonly process: ChildProcess;
  /** Resolves to the time of its end. */
  readonly ended: Promise<number>;
  #text = "";
  #waiting = () => {};

  constructor([command = "", ...args]: string[], options: ChildOptions = {}) {
    this.process = spawn(command, args, {
      cwd: options.cwd ?? tmpdir(),
      env: { ...childEnvironment(process.env), ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [this.process.stdout!, this.process.stderr!]) {
      stream.setEncoding("utf8").on("data", (text) => {
        this.#text += text;
        this.#waiting();
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
      const look = () => {
        const match = pattern.exec(this.#text)?.[0];
        if (match === undefined) return;
        clearTimeout(timer);
        resolve({ time: performance.now(), match });
      };
      this.#waiting = look;
      look();
      this.process.once("close", () => fail("before its end"));
    });
  }

  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.ended;
  }
}

interface ChildOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** How long a command takes from its start to its end, in ms. */
async function lifetime(
  command: string[],
  options: ChildOptions = {},
): Promise<number> {
  const began = performance.now();
  const child = new Child(command, options);
  const ended = await child.ended;
  const { exitCode } = child.process;
  if (exitCode === 0) return ended - began;
  throw new Error(`${command.join(" ")} ended with exit code ${exitCode}`);
}

// === The other side: token hosts and bare servers

/** A token host in a process of its own, so that it takes nobody's turn. */
async function tokenHost(
  bench: Bench,
  latency = 0,
): Promise<string> {
  const file = await programFile(bench, `host${latency}.mjs`, TOKEN_HOST);
  const reply = JSON.stringify(tokenReply("host"));
  const child = new Child(runtimeCommand(file, String(latency), reply));
  bench.cleanups.push(() => child.kill());
  const { match } = await child.until(/^\d+$/m);
  return `http://127.0.0.1:${match}/api/v2/token/get`;
}

const TOKEN_HOST = `
import { createServer } from "node:http";
import process from "node:process";
const [latency, reply] = process.argv.slice(2);
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

/** The least program that gets a token from a redirect. */
const BARE_LOGIN_ON_DENO = `
const [port, endpoint] = Deno.args;
const stop = new AbortController();
const onListen = () => console.error("listening");
const address = { hostname: "127.0.0.1", port: Number(port), onListen };
Deno.serve({ ...address, signal: stop.signal }, async (request) => {
  const code = new URL(request.url).searchParams.get("code");
  const answer = await fetch(endpoint + "?auth_code=" + code);
  console.log(JSON.stringify(await answer.json()));
  setTimeout(() => stop.abort());
  return new Response("done", { headers: { connection: "close" } });
});
`;

const BARE_LOGIN_ON_NODE = `
import { createServer } from "node:http";
const [port, endpoint] = process.argv.slice(2);
const server = createServer(async (request, response) => {
  const code = new URL(request.url, "http://a").searchParams.get("code");
  const answer = await fetch(endpoint + "?auth_code=" + code);
  console.log(JSON.stringify(await answer.json()));
  response.setHeader("connection", "close");
  response.end("done");
  server.close();
});
server.listen(Number(port), "127.0.0.1", () => console.error("listening"));
`;

/** Our library in as many lines. */
const LIBRARY_LOGIN = `
import process from "node:process";
const [module, port, tokenEndpoint, app] = process.argv.slice(2);
const { startAuth } = await import(module);
const flow = await startAuth({
  ...JSON.parse(app),
  port,
  host: "127.0.0.1",
  tokenEndpoint,
});
console.error(flow.url);
console.log(JSON.stringify(await flow.reply));
`;

function bareText(): string {
  return ON_DENO ? BARE_LOGIN_ON_DENO : BARE_LOGIN_ON_NODE;
}

async function bareLogin(bench: Bench): Promise<string> {
  return await programFile(bench, "bare.mjs", bareText());
}

/** The environment of a login of the program. */
function loginEnv(bench: Bench, endpoint: string): Record<string, string> {
  return {
    HOME: bench.folder,
    TIKTOK_SHOP_HOME: path.join(bench.folder, "store"),
    TIKTOK_SHOP_APP_KEY: APP.appKey,
    TIKTOK_SHOP_APP_SECRET: APP.appSecret,
    TIKTOK_SHOP_SERVICE_ID: APP.serviceId,
    TIKTOK_SHOP_TOKEN_ENDPOINT: endpoint,
    TIKTOK_SHOP_REFRESH_ENDPOINT: endpoint,
  };
}

/** A login that listens: its process, and where its redirect goes. */
interface Listening {
  readonly child: Child;
  /** When it said that it listens. */
  readonly time: number;
  readonly redirect: string;
}

const READY = /listening|http\S+[?&]state=\S+/;

async function listening(
  command: string[],
  port: number,
  options: ChildOptions,
): Promise<Listening> {
  const child = new Child(command, options);
  const { time, match } = await child.until(READY);
  const state = /state=([^&\s]+)/.exec(match)?.[1] ?? "";
  const redirect = `http://127.0.0.1:${port}/?code=ROW_a&state=${state}`;
  return { child, time, redirect };
}

// === Rows: starting

/**
 * The text of our module within a function that nobody calls: what it costs to
 * read it, which no laziness can spare.
 */
async function idleText(bench: Bench): Promise<string> {
  const text = await fs.readFile(modulePath(), "utf8");
  const body = text.replace(/^export (\{.*)?/gm, "")
    .replaceAll("import.meta", "({})");
  const name = path.basename(modulePath()).replace("mod", "idle");
  const idle = `export function idle() {\n${body}\n}\n`;
  return await programFile(bench, name, idle);
}

async function startRow(bench: Bench): RowFigures {
  const empty = await programFile(bench, ON_DENO ? "e.ts" : "e.mjs", "\n");
  const idle = await idleText(bench);
  const measured = await race(bench.rounds, {
    "--version": () => lifetime(program("--version")),
    "--help": () => lifetime(program("--help")),
    "an empty module": () => lifetime(runtimeCommand(empty)),
    "our text, unused": () => lifetime(runtimeCommand(idle)),
  });
  const against = (name: string, aim?: Aim) => {
    const caption = { what: `start, ${name}`, unit: "ms", aim };
    return figure(measured, [name, "an empty module"], caption);
  };
  return [
    against("--version", atMost(1.25)),
    against("--help"),
    against("our text, unused"),
  ];
}

async function importRow(bench: Bench): RowFigures {
  const load = (name: string, file: string) => {
    const { href } = pathToFileURL(file);
    return programFile(bench, name, `import ${JSON.stringify(href)};\n`);
  };
  const empty = await programFile(bench, "empty.mjs", "export {};\n");
  const ours = await load("ours.mjs", modulePath());
  const theirs = await load("theirs.mjs", empty);
  const idle = await load("size.mjs", await idleText(bench));
  const measured = await race(bench.rounds, {
    "our module": () => lifetime(runtimeCommand(ours)),
    "an empty module": () => lifetime(runtimeCommand(theirs)),
    "our text, unused": () => lifetime(runtimeCommand(idle)),
  });
  return ["our module", "our text, unused"].map((name) =>
    figure(measured, [name, "an empty module"], {
      what: `import, ${name}`,
      unit: "ms",
      aim: name === "our module" ? atMost(1.15) : undefined,
    })
  );
}

// === Rows: a login from outside

async function listenRow(bench: Bench): RowFigures {
  const endpoint = await tokenHost(bench);
  const bare = await bareLogin(bench);
  const env = loginEnv(bench, endpoint);
  const until = async (command: (port: number) => string[]) => {
    const port = await freePort();
    const began = performance.now();
    const { child, time } = await listening(command(port), port, { env });
    await child.kill();
    return time - began;
  };
  const measured = await race(bench.rounds, {
    "login": () => until((port) => loginOn(port)),
    "a bare server": () =>
      until((port) => runtimeCommand(bare, `${port}`, "-")),
  });
  const caption = { what: "time to listening", unit: "ms" };
  return [figure(measured, ["login", "a bare server"], caption)];
}

function loginOn(port: number): string[] {
  const where = ["--host", "127.0.0.1", "--port", String(port)];
  return program("login", "--no-browser", ...where);
}

/** From the callback to the end of the process, as a person waits for it. */
async function endRow(bench: Bench): RowFigures {
  const endpoint = await tokenHost(bench);
  const bare = await bareLogin(bench);
  const env = loginEnv(bench, endpoint);
  const ending = async (command: (port: number) => string[]) => {
    const port = await freePort();
    const { child, redirect } = await listening(command(port), port, { env });
    await delay(100); // a person takes longer
    const began = performance.now();
    const page = await fetch(redirect);
    await page.body?.cancel();
    return await child.ended - began;
  };
  const measured = await race(bench.rounds, {
    "login": () => ending((port) => loginOn(port)),
    "a bare server": () =>
      ending((port) => runtimeCommand(bare, String(port), endpoint)),
  });
  return [figure(measured, ["login", "a bare server"], {
    what: "callback to end of process",
    unit: "ms",
    aim: atMost(100, "ours"),
  })];
}

/** Memory of a process in MiB: all that it holds in RAM. */
async function memoryOf({ pid }: ChildProcess): Promise<number> {
  const status = await fs.readFile(`/proc/${pid}/status`, "utf8")
    .catch(() => "");
  const listed = /VmRSS:\s+(\d+) kB/.exec(status)?.[1] ??
    (await run("ps", ["-o", "rss=", "-p", String(pid)])).stdout.trim();
  return Number(listed) / 1024;
}

async function memoryRow(bench: Bench): RowFigures {
  const endpoint = await tokenHost(bench);
  const bare = await bareLogin(bench);
  const env = loginEnv(bench, endpoint);
  const waiting = async (command: (port: number) => string[]) => {
    const port = await freePort();
    const { child } = await listening(command(port), port, { env });
    await delay(bench.quick ? 100 : 1000); // for whatever comes late
    const memory = await memoryOf(child.process);
    await child.kill();
    return memory;
  };
  const loaded = await programFile(bench, "loaded.mjs", LOADED + bareText());
  const port = "0";
  const measured = await race(bench.rounds, {
    "a waiting login": () => waiting((port) => loginOn(port)),
    "a bare server": () => waiting(() => runtimeCommand(bare, port, "-")),
    "a bare server with our node: modules": () =>
      waiting(() => runtimeCommand(loaded, port, "-")),
  });
  const { "a waiting login": _, ...others } = measured;
  return Object.keys(others).map((name, i) =>
    figure(measured, ["a waiting login", name], {
      what: "memory",
      unit: "MiB",
      aim: i === 0 ? atMost(1.15) : undefined,
    })
  );
}

/** The built-ins that a login needs, for the limit of its memory. */
const LOADED = `
import "node:child_process";
import "node:crypto";
import "node:fs/promises";
import "node:process";
import "node:util";
`;

// === Rows: a login from inside

/** Answers each request of a bare server; what the browser is told is short. */
type BareHandler = (url: URL) => unknown;

/** The barest server of this runtime, and how to stop it. */
async function bareServer(
  port: number,
  handler: BareHandler,
): Promise<() => Promise<void>> {
  if (ON_DENO) return bareServerOnDeno(port, handler);
  const server = createServer(async (request: IncomingMessage, response) => {
    await handler(new URL(request.url ?? "/", "http://127.0.0.1"));
    response.end("done");
  });
  await new Promise<void>((resolve) =>
    server.listen(port, "127.0.0.1", resolve)
  );
  return async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
}

function bareServerOnDeno(
  port: number,
  handler: BareHandler,
): () => Promise<void> {
  const abort = new AbortController();
  const server = Deno.serve(
    { hostname: "127.0.0.1", port, signal: abort.signal, onListen() {} },
    async (request) => {
      await handler(new URL(request.url));
      return new Response("done");
    },
  );
  return async () => {
    abort.abort();
    await server.finished;
  };
}

/** What a contender got, and how to clean up behind it. */
interface Attempt {
  readonly reply: Promise<unknown>;
  readonly redirect: string;
  readonly stop: () => PromiseLike<unknown>;
}

/** From the callback's request to the reply in the caller's hands. */
async function redirectTime(
  begin: (port: number) => Promise<Attempt>,
): Promise<number> {
  const { reply, redirect, stop } = await begin(await freePort());
  await delay(20); // all come from the same rest, as a redirect does
  const began = performance.now();
  // The page may be cut off when a contender stops before it is out.
  const page = fetch(redirect).then((answer) => answer.text(), () => {});
  await reply;
  const took = performance.now() - began;
  await page;
  await stop();
  return took;
}

async function ourAttempt(endpoint: string, port: number): Promise<Attempt> {
  const { startAuth } = await library();
  const host = "127.0.0.1";
  const app = { ...APP, tokenEndpoint: endpoint };
  const flow = await startAuth({ ...app, host, port });
  const state = new URL(flow.url).searchParams.get("state");
  const redirect = `${flow.redirectUrl}?code=ROW_a&state=${state}`;
  const stop = () => flow[Symbol.asyncDispose]();
  return { reply: flow.reply, redirect, stop };
}

async function exchange(endpoint: string, code: unknown): Promise<unknown> {
  return await (await fetch(`${endpoint}?auth_code=${code}`)).json();
}

async function bareAttempt(endpoint: string, port: number): Promise<Attempt> {
  let take = (_: unknown) => {};
  const reply = new Promise<unknown>((resolve) => take = resolve);
  const stop = await bareServer(port, async (url) => {
    take(await exchange(endpoint, url.searchParams.get("code")));
  });
  return { reply, redirect: `http://127.0.0.1:${port}/?code=ROW_a`, stop };
}

/** The barest login that is as careful: what the care alone costs. */
async function carefulAttempt(
  endpoint: string,
  port: number,
): Promise<Attempt> {
  const state = randomBytes(32).toString("base64url");
  let take = (_: unknown) => {};
  const reply = new Promise<unknown>((resolve) => take = resolve);
  const stop = await bareServer(port, async ({ searchParams: query }) => {
    const given = Buffer.from(query.get("state") ?? "");
    if (!timingSafeEqual(given, Buffer.from(state))) return;
    take(await boundedExchange(endpoint, query.get("code")));
  });
  const redirect = `http://127.0.0.1:${port}/?code=ROW_a&state=${state}`;
  return { reply, redirect, stop };
}

/** An exchange that is bounded in time and size, and follows no redirect. */
async function boundedExchange(
  endpoint: string,
  code: unknown,
): Promise<unknown> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), 30_000);
  const url = new URL(`${endpoint}?auth_code=${code}`);
  const { signal } = abort;
  const answer = await fetch(url, { redirect: "manual", signal });
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of answer.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > 1 << 20) throw new Error("too large");
  }
  clearTimeout(timer);
  return JSON.parse(text + decoder.decode());
}

/** As the original example waits: by looking every 100 ms. */
async function pollingAttempt(
  endpoint: string,
  port: number,
): Promise<Attempt> {
  let found: unknown;
  const stop = await bareServer(port, async (url) => {
    found = await exchange(endpoint, url.searchParams.get("code"));
  });
  const poll = async () => {
    while (found === undefined) await delay(100);
    return found;
  };
  const reply = poll();
  await delay(100 * Math.random()); // a redirect comes at any time
  return { reply, redirect: `http://127.0.0.1:${port}/?code=ROW_a`, stop };
}

interface OauthCallback {
  getAuthCode(options: {
    port: number;
    hostname: string;
    callbackPath: string;
  }): Promise<{ code?: string }>;
}

async function oauthCallbackAttempt(
  endpoint: string,
  port: number,
): Promise<Attempt> {
  const file = path.join(PACKAGES, "oauth-callback", "dist", "index.js");
  const peer: OauthCallback = await import(pathToFileURL(file).href);
  const where = { port, hostname: "127.0.0.1", callbackPath: "/" };
  const reply = peer.getAuthCode(where)
    .then(({ code }) => exchange(endpoint, code));
  await delay(20); // it does not tell when it listens
  const redirect = `http://127.0.0.1:${port}/?code=ROW_a&state=a`;
  return { reply, redirect, stop: () => Promise.resolve() };
}

/** A way to a token, by the token host and a port. */
type Begin = (endpoint: string, port: number) => Promise<Attempt>;

async function redirectRow(bench: Bench): RowFigures {
  const endpoint = await tokenHost(bench);
  const attempt = (begin: Begin): Sample => () =>
    redirectTime((port) => begin(endpoint, port));
  const measured = await race(bench.rounds, {
    "startAuth()": attempt(ourAttempt),
    "a bare server and fetch": attempt(bareAttempt),
    "the same with our care": attempt(carefulAttempt),
    "oauth-callback and fetch": attempt(oauthCallbackAttempt),
    "a loop of 100 ms": attempt(pollingAttempt),
  });
  const { "startAuth()": _, ...others } = measured;
  const warm = Object.keys(others).map((name, i) =>
    figure(measured, ["startAuth()", name], {
      what: "redirect to token",
      unit: "ms",
      aim: i === 0 ? atMost(1.2) : undefined,
    })
  );
  const first = await firstRedirect(bench, endpoint);
  return [...warm, await farRedirect(bench), first];
}

/** With a token host as far away as real ones are, not on this machine. */
async function farRedirect(
  bench: Bench,
): Promise<Awaited<RowFigures>[number]> {
  const endpoint = await tokenHost(bench, 50);
  const attempt = (begin: Begin): Sample => () =>
    redirectTime((port) => begin(endpoint, port));
  const measured = await race(Math.ceil(bench.rounds / 5), {
    "startAuth()": attempt(ourAttempt),
    "a bare server and fetch": attempt(bareAttempt),
  });
  return figure(measured, ["startAuth()", "a bare server and fetch"], {
    what: "redirect to token, host 50 ms away",
    unit: "ms",
    aim: atMost(1.2),
  });
}

/** The same in a fresh process, where nothing has been loaded or compiled. */
async function firstRedirect(
  bench: Bench,
  endpoint: string,
): Promise<Awaited<RowFigures>[number]> {
  const bare = await bareLogin(bench);
  const ours = await programFile(bench, "library.mjs", LIBRARY_LOGIN);
  const module = pathToFileURL(modulePath()).href;
  const app = JSON.stringify(APP);
  const answered = async (command: (port: string) => string[]) => {
    const port = await freePort();
    const { child, redirect } = await listening(command(`${port}`), port, {});
    await delay(50);
    const began = performance.now();
    const page = fetch(redirect).then((answer) => answer.text());
    const { time } = await child.until(/"access_token"/);
    await Promise.all([page, child.ended]);
    return time - began;
  };
  const measured = await race(Math.ceil(bench.rounds / 10), {
    "startAuth()": () =>
      answered((port) => runtimeCommand(ours, module, port, endpoint, app)),
    "a bare program": () =>
      answered((port) => runtimeCommand(bare, port, endpoint)),
  });
  const caption = { what: "redirect to token, the first", unit: "ms" };
  return figure(measured, ["startAuth()", "a bare program"], caption);
}

// === Rows: signatures

/** How often something can be done in a second; `work` does it `n` times. */
function perSecond(n: number, work: (n: number) => unknown): Sample {
  return () => {
    const began = performance.now();
    work(n);
    return n / ((performance.now() - began) / 1000);
  };
}

type Signer = () => unknown;

interface SdkSigner {
  generateSignature(request: {
    appSecret: string;
    path: string;
    query: Record<string, string>;
    body: unknown;
  }): string;
}

/** The SDK keeps its signer, its first module, to itself: a copy exports it. */
async function sdkSigner(): Promise<SdkSigner["generateSignature"]> {
  const folder = path.join(PACKAGES, "tiktok-shop-sdk", "dist");
  const text = await fs.readFile(path.join(folder, "index.mjs"), "utf8");
  const copy = path.join(CACHE, "sdk_signer.mjs");
  const [signer] = text.split("\n// src/utils/handleResponse.ts");
  await fs.writeFile(copy, `${signer}\nexport { generateSignature };\n`);
  const module: SdkSigner = await import(pathToFileURL(copy).href);
  return module.generateSignature;
}

interface TikTokShopPeer {
  signByUrl(
    url: string,
    appSecret: string,
    body?: unknown,
  ): { signature: string };
}

const SIGNED = {
  path: "/order/202309/orders/search",
  query: {
    app_key: APP.appKey,
    page_size: "100",
    shop_cipher: "GCP_Zq3vAAAAAACm4eXn7u0Qfkq9s8",
    sort_order: "ASC",
    timestamp: "1722342011",
  },
};

/** An order search's filter, blown up to about 100 kB of JSON. */
function largeBody(): { ids: string[] } {
  return {
    ids: Array.from({ length: 4760 }, (_, i) => `5764613215${i + 1e7}`),
  };
}

/** The least that has to be done: sort, join, one HMAC. */
function bareSignature(query: Record<string, string>, body: string): string {
  const { appSecret } = APP;
  const names = Object.keys(query).sort();
  const text = names.map((name) => name + query[name]).join("");
  return createHmac("sha256", appSecret)
    .update(appSecret + SIGNED.path + text + body + appSecret).digest("hex");
}

/** Ours, and the least that has to be done. */
async function ownSigners(body?: unknown): Promise<Record<string, Signer>> {
  const { signature } = await library();
  const { query } = SIGNED;
  const json = body ? JSON.stringify(body) : "";
  const { appSecret } = APP;
  return {
    "signature()": () => signature(appSecret, { ...SIGNED, body: json }),
    "signature() of an object": () =>
      signature(appSecret, {
        ...SIGNED,
        body: body ? JSON.stringify(body) : "",
      }),
    "bare node:crypto": () => bareSignature(query, json),
  };
}

/** The peers' signers; each makes JSON of the body by itself. */
async function peerSigners(
  bench: Bench,
  body?: unknown,
): Promise<Record<string, Signer>> {
  const { path: route, query } = SIGNED;
  const { appSecret } = APP;
  const generateSignature = await sdkSigner();
  const sdk = () => generateSignature({ appSecret, path: route, query, body });
  const url = `https://open-api.tiktokglobalshop.com${route}?` +
    new URLSearchParams(query);
  try {
    const { signByUrl } = requirePeer("tiktok-shop") as TikTokShopPeer;
    const signer = () => signByUrl(url, appSecret, body).signature;
    return { "tiktok-shop-sdk": sdk, "tiktok-shop": signer };
  } catch (error) {
    const [why] = `${(error as Error).message}`.split("\n");
    bench.skip(`tiktok-shop cannot be loaded: ${why}`);
    return { "tiktok-shop-sdk": sdk };
  }
}

/** That all do the same work: a wrong signature would be no contender. */
function assertSame(all: Record<string, Signer>): void {
  const results = new Set(Object.values(all).map((sign) => sign()));
  if (results.size === 1) return;
  throw new Error(`Signatures differ: ${[...results].join(", ")}`);
}

async function signatureRow(bench: Bench): RowFigures {
  const bodies = { "GET": undefined, "100 kB": largeBody() };
  const figures: Awaited<RowFigures> = [];
  for (const [what, body] of Object.entries(bodies)) {
    const own = await ownSigners(body);
    const peers = await peerSigners(bench, body);
    figures.push(...await signersRace(bench, what, { ...own, ...peers }));
  }
  return figures;
}

async function signersRace(
  bench: Bench,
  what: string,
  all: Record<string, Signer>,
): RowFigures {
  assertSame(all);
  const count = (what === "GET" ? 4000 : 40) / (bench.quick ? 10 : 1);
  const contenders = Object.entries(all).map(([name, sign]) => [
    name,
    perSecond(count, (n) => {
      for (let i = 0; i < n; i++) sign();
    }),
  ]);
  const measured = await race(bench.rounds, Object.fromEntries(contenders));
  const caption = { what: `signature, ${what}`, unit: "/s" };
  const object = "signature() of an object";
  const peers = ["tiktok-shop-sdk", "tiktok-shop"].filter((name) => all[name]);
  return [
    figure(measured, ["signature()", "bare node:crypto"], {
      ...caption,
      aim: atLeast(0.8),
    }),
    ...peers.map((peer) => figure(measured, [object, peer], caption)),
  ];
}

// === Rows: tokens

async function tokenRow(bench: Bench): RowFigures {
  const { accessToken, fileStore, memoryStore } = await library();
  const folder = await fillStore(bench, 1);
  const file = fileStore(folder);
  const memory = memoryStore();
  await memory.save("default", (await file.load("default"))!);
  const count = bench.quick ? 20 : 200;
  const many = (work: () => Promise<unknown>): Sample => async () =>
    await timed(async () => {
      for (let i = 0; i < count; i++) await work();
    }) * 1000 / count;
  const name = path.join(folder, "default.json");
  const measured = await race(bench.rounds, {
    "file store": many(() => accessToken({ ...APP, store: file })),
    "memory store": many(() => accessToken({ ...APP, store: memory })),
    "reading and parsing the file": many(async () =>
      JSON.parse(await fs.readFile(name, "utf8"))
    ),
  });
  return ["file store", "memory store"].map((store) =>
    figure(measured, [store, "reading and parsing the file"], {
      what: `accessToken(), ${store}`,
      unit: "µs",
      aim: atMost(1.3),
    })
  );
}

/** A token host in this process that counts, 50 ms away. */
async function countingHost(
  bench: Bench,
): Promise<{ endpoint: string; count: () => number }> {
  let count = 0;
  const server = createServer(async (_, response) => {
    count++;
    await delay(50);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(tokenReply(`fresh${count}`)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  bench.cleanups.push(() => server.closeAllConnections());
  bench.cleanups.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: `http://127.0.0.1:${port}/api/v2/token/refresh`,
    count: () => count,
  };
}

async function callersRow(bench: Bench): RowFigures {
  const { accessToken, fileStore, memoryStore } = await library();
  const host = await countingHost(bench);
  const callers = bench.quick ? 1000 : 10_000;
  const folder = await fillStore(bench, 1, -60);
  const expired = (await fileStore(folder).load("default"))!;
  const requests: Measured = { "one request": [] };
  const crowd =
    (store: Library.TokenStore, n: number, name = ""): Sample => async () => {
      await store.save("default", expired);
      const before = host.count();
      const one = () =>
        accessToken({ ...APP, store, refreshEndpoint: host.endpoint });
      const took = await timed(() =>
        Promise.all(Array.from({ length: n }, one))
      );
      if (name) (requests[name] ??= []).push(host.count() - before);
      return took;
    };
  const stores = { file: fileStore(folder), memory: memoryStore() };
  const measured = await race(bench.rounds, {
    "file store": crowd(stores.file, callers, "file store"),
    "memory store": crowd(stores.memory, callers, "memory store"),
    "one caller": crowd(stores.file, 1),
  });
  return ["file store", "memory store"].flatMap((name) => {
    const what = `${callers} callers at once, ${name}`;
    requests["one request"] = requests[name]!.map(() => 1);
    return [
      figure(requests, [name, "one request"], {
        what,
        unit: "requests",
        aim: atMost(1),
      }),
      figure(measured, [name, "one caller"], { what, unit: "ms" }),
    ];
  });
}

async function refreshRow(bench: Bench): RowFigures {
  const endpoint = await tokenHost(bench, 50);
  const profiles = bench.quick ? 48 : 1000;
  const folder = await fillStore(bench, profiles);
  const env = {
    ...loginEnv(bench, endpoint),
    TIKTOK_SHOP_HOME: folder,
  };
  const ideal = Math.ceil(profiles / 16) * 50;
  const measured = await race(bench.rounds, {
    "refresh --all": () => lifetime(program("refresh", "--all"), { env }),
    "16 at a time": () => ideal,
  });
  return [figure(measured, ["refresh --all", "16 at a time"], {
    what: `refresh --all, ${profiles} profiles at 50 ms`,
    unit: "ms",
    aim: bench.quick ? undefined : atMost(1.3),
  })];
}

/** Tells on stderr how long `status` takes for each of two folders. */
const STATUS_TIMES = `
import process from "node:process";
const [module, rounds, ...folders] = process.argv.slice(2);
const { main } = await import(module);
for (let round = 0; round <= rounds; round++) {
  for (const folder of folders) {
    process.env.TIKTOK_SHOP_HOME = folder.replace(/^\\d+x/, "");
    const times = Number(/^\\d+/.exec(folder)[0]);
    const began = performance.now();
    for (let n = 0; n < times; n++) await main(["status"]);
    console.error("took", (performance.now() - began) / times);
  }
}
`;

async function statusRow(bench: Bench): RowFigures {
  const [few, many] = bench.quick ? [10, 100] : [100, 10_000];
  const folders = [
    `${many / few}x${await fillStore(bench, few)}`,
    `1x${await fillStore(bench, many)}`,
  ];
  const file = await programFile(bench, "status.mjs", STATUS_TIMES);
  const module = pathToFileURL(modulePath()).href;
  const [command = "", ...args] = runtimeCommand(
    file,
    module,
    `${bench.rounds}`,
  );
  const { ok, stderr } = await run(command, [...args, ...folders]);
  const times = [...stderr.matchAll(/^took (.+)$/gm)].map(([, ms]) => +ms!);
  if (!ok) throw new Error(`status failed: ${stderr}`);
  const each = (size: number, at: number) =>
    times.slice(2).filter((_, i) => i % 2 === at)
      .map((ms) => ms * 1000 / size);
  const measured = {
    [`of ${many}`]: each(many, 1),
    [`of ${few}`]: each(few, 0),
  };
  return [figure(measured, [`of ${many}`, `of ${few}`], {
    what: `status, a profile of ${many}`,
    unit: "µs",
    aim: atMost(1.25),
  })];
}

// === The rows

/** One row of the table, chosen by its name on the command line. */
export interface Row {
  readonly name: string;
  /** How many pairs are measured. */
  readonly rounds: number;
  /** The peers that it needs. */
  readonly peers?: readonly string[];
  readonly measure: (bench: Bench) => RowFigures;
}

/** The rows in their order. */
export const ROWS: readonly Row[] = [
  { name: "start", rounds: 41, measure: startRow },
  { name: "import", rounds: 41, measure: importRow },
  { name: "listen", rounds: 15, measure: listenRow },
  {
    name: "redirect",
    rounds: 101,
    peers: ["oauth-callback"],
    measure: redirectRow,
  },
  { name: "end", rounds: 15, measure: endRow },
  { name: "memory", rounds: 5, measure: memoryRow },
  {
    name: "signature",
    rounds: 41,
    peers: ["tiktok-shop", "tiktok-shop-sdk"],
    measure: signatureRow,
  },
  { name: "token", rounds: 41, measure: tokenRow },
  { name: "callers", rounds: 5, measure: callersRow },
  { name: "refresh", rounds: 3, measure: refreshRow },
  { name: "status", rounds: 7, measure: statusRow },
];

const QUICK_ROUNDS = 3;

/**
 * The rows named on the command line, or all of them.
 *
 * @throws {RangeError} On a name that no row has.
 */
export function chooseRows(names: readonly string[]): readonly Row[] {
  return names.length === 0 ? ROWS : chooseNamed("row", ROWS, names);
}

// === Packages

/** The peers that are not there though a row needs them. */
async function missingPeers({ peers = [] }: Row): Promise<string[]> {
  const found = await Promise.all(
    peers.map((name) =>
      fs.access(path.join(PACKAGES, name)).then(() => true, () => false)
    ),
  );
  return peers.filter((_, i) => !found[i]);
}

/** Brings the peers from npm; what went wrong, if something did. */
async function installPeers(): Promise<string | undefined> {
  await fs.mkdir(CACHE, { recursive: true });
  const wanted = Object.entries(PEERS).map(([name, at]) => `${name}@${at}`);
  return await oncePer(path.join(CACHE, ".peers"), wanted.join(), async () => {
    const manifest = JSON.stringify({ name: "bench", private: true });
    await fs.writeFile(path.join(CACHE, "package.json"), manifest);
    return await install(wanted);
  });
}

/** Builds and installs our own package as a user would. */
async function installPackage(): Promise<string | undefined> {
  const source = await fs.readFile(path.join(ROOT, "mod.ts"));
  const hash = createHash("sha256").update(source).digest("hex");
  return await oncePer(path.join(CACHE, ".package"), hash, async () => {
    const build = path.join(ROOT, "scripts", "build_npm.ts");
    const built = await run(process.execPath, ["run", "-A", build]);
    if (!built.ok) return built.output;
    const pack = ["pack", "--pack-destination", CACHE];
    const { stdout, ok, output } = await runNpm("npm", pack, {
      cwd: path.join(ROOT, "npm"),
    });
    if (!ok) return output;
    return await install([path.join(CACHE, stdout.trim().split("\n").at(-1)!)]);
  });
}

async function install(
  packages: readonly string[],
): Promise<string | undefined> {
  const quiet = ["--no-audit", "--no-fund", "--no-package-lock"];
  const args = ["install", "--ignore-scripts", ...quiet, ...packages];
  const { ok, output } = await runNpm("npm", args, { cwd: CACHE });
  return ok ? undefined : output;
}

/** Does something unless the stamp says that it has been done. */
async function oncePer(
  stamp: string,
  wanted: string,
  work: () => Promise<string | undefined>,
): Promise<string | undefined> {
  if (await fs.readFile(stamp, "utf8").catch(() => "") === wanted) return;
  const problem = await work();
  if (problem === undefined) await fs.writeFile(stamp, wanted);
  return problem;
}

// === The driver

interface Settings {
  readonly quick: boolean;
  readonly json: boolean;
  readonly rounds: number | undefined;
  /** Set in the process that measures: the row is done there and then. */
  readonly here: boolean;
  readonly rows: readonly Row[];
}

/** Reads the command line; an error of it is a `TypeError`. */
function readSettings(args: string[]): Settings {
  const { values, positionals } = parseArgs({
    args: ownArguments(args),
    allowPositionals: true,
    options: {
      quick: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      here: { type: "boolean", default: false },
      rounds: { type: "string" },
    },
  });
  const rounds = values.rounds === undefined ? undefined : +values.rounds;
  if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0)) {
    throw new RangeError(`Cannot run ${values.rounds} rounds: give a number`);
  }
  return { ...values, rounds, rows: chooseRows(positionals) };
}

/** Measures a row in this process. */
async function measureHere(row: Row, settings: Settings): Promise<Report> {
  const runtime = ON_DENO
    ? `Deno ${process.versions.deno}`
    : `Node ${process.versions.node}`;
  const missing = await missingPeers(row);
  if (missing.length > 0) {
    const why = `npm did not bring ${missing.join(" and ")}`;
    return { figures: [], skipped: [{ row: row.name, runtime, why }] };
  }
  const folder = await fs.mkdtemp(path.join(tmpdir(), "tiktok-shop-bench-"));
  const { quick } = settings;
  const rounds = settings.rounds ?? (quick ? QUICK_ROUNDS : row.rounds);
  const cleanups: Bench["cleanups"] = [
    () => fs.rm(folder, { recursive: true, force: true }),
  ];
  const skipped: Skipped[] = [];
  const skip = (why: string) => {
    if (skipped.some((each) => each.why === why)) return;
    skipped.push({ row: row.name, runtime, why });
  };
  try {
    const bench = { rounds, quick, folder, cleanups, skip };
    const found = await row.measure(bench);
    const figures = found.map((each) => ({ row: row.name, runtime, ...each }));
    return { figures, skipped };
  } finally {
    for (const cleanUp of cleanups.reverse()) await cleanUp();
  }
}

/** A runtime, and the command that runs this file on it. */
interface Runtime {
  readonly name: string;
  readonly command: readonly string[];
}

const SELF: string = path.join(ROOT, "scripts", "bench.ts");

/** Deno, and Node if npm brings one. */
async function runtimes(skipped: Skipped[]): Promise<Runtime[]> {
  const deno = { name: "Deno", command: [process.execPath, "run", "-A", SELF] };
  const skip = (why: string) =>
    skipped.push({ row: "all", runtime: "Node", why });
  const peers = await installPeers();
  if (peers) skip(`npm did not bring the peers: ${lastLine(peers)}`);
  const problem = await installPackage();
  if (problem) skip(`the package cannot be built: ${lastLine(problem)}`);
  try {
    const node = await nodeBinary(22);
    // Node 22 does not know import.meta.main.
    const start = `import(${JSON.stringify(pathToFileURL(SELF).href)})` +
      ".then((bench) => bench.main(process.argv.slice(1)))" +
      ".then((code) => process.exitCode = code)";
    if (problem) return [deno];
    return [deno, { name: "Node", command: [node, "-e", start, "--"] }];
  } catch (error) {
    skip(lastLine((error as Error).message));
    return [deno];
  }
}

/** Measures a row in a process of its own, on one runtime. */
async function measureThere(
  row: Row,
  runtime: Runtime,
  settings: Settings,
): Promise<Report> {
  const [command = "", ...args] = runtime.command;
  const { quick, rounds } = settings;
  const { ok, stdout, output } = await run(command, [
    ...args,
    ...["--here", "--json", row.name],
    ...(quick ? ["--quick"] : []),
    ...(rounds === undefined ? [] : ["--rounds", String(rounds)]),
  ]);
  if (ok) return JSON.parse(stdout);
  throw new Error(`Cannot measure ${row.name} on ${runtime.name}: ${output}`);
}

async function measureAll(settings: Settings): Promise<Report> {
  const figures: Figure[] = [];
  const skipped: Skipped[] = [];
  for (const runtime of await runtimes(skipped)) {
    for (const row of settings.rows) {
      console.error(`${runtime.name}: ${row.name}`);
      const report = await measureThere(row, runtime, settings);
      figures.push(...report.figures);
      skipped.push(...report.skipped);
    }
  }
  return { figures, skipped };
}

// === The table

function shown(value: number, unit: string): string {
  const digits = value >= 100 || unit === "requests" ? 0 : 1;
  const [amount, suffix] = value >= 1e6
    ? [(value / 1e6).toFixed(2), "M"]
    : value >= 1e4
    ? [(value / 1e3).toFixed(0), "k"]
    : [value.toFixed(digits), ""];
  return unit === "/s" ? `${amount}${suffix}/s` : `${amount}${suffix} ${unit}`;
}

function aimText({ aim, unit }: Figure): string {
  if (!aim) return "";
  const sign = aim.bound === "at most" ? "≤" : "≥";
  const of = aim.of === "ours" ? ` ${unit}` : "";
  return `${sign} ${aim.value}${of}`;
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
    aimText(each),
    { true: "met", false: "MISSED", undefined: "" }[`${isMet(each)}`]!,
  ]);
  const head = ["row", "on", "what", "ours", "against", "theirs", "ratio"];
  const lines = [[...head, "aim", ""], ...rows];
  const widths = lines[0]!.map((_, i) =>
    Math.max(...lines.map((line) => line[i]!.length))
  );
  const right = [3, 5, 6];
  return lines.map((line) =>
    line.map((cell, i) =>
      right.includes(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)
    ).join("  ").trimEnd()
  ).join("\n");
}

function print({ figures, skipped }: Report, loads: number[]): void {
  console.log(table(figures));
  for (const { row, runtime, why } of skipped) {
    console.log(`skipped: ${row} on ${runtime}: ${why}`);
  }
  const text = loads.map((load) => load.toFixed(1)).join(" and ");
  console.log(`\nLoad average before and after: ${text}`);
}

/** The driver. Resolves to the exit code. */
export async function main(args: string[]): Promise<number> {
  let settings: Settings;
  try {
    settings = readSettings(args);
  } catch (error) {
    console.error((error as Error).message);
    return 2;
  }
  const before = loadavg()[0]!;
  const [first] = settings.rows;
  try {
    const report = settings.here
      ? await measureHere(first!, settings)
      : await measureAll(settings);
    if (settings.json) console.log(JSON.stringify(report, null, 2));
    else print(report, [before, loadavg()[0]!]);
    return 0;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return 1;
  }
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
