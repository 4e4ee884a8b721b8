/**
 * What the rows of the bench let run: our program and our library, and others
 * that do the same work, each as a process of its own.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import * as fs from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import * as path from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { childEnvironment, freePort, run } from "../tools.ts";
import { INSTALLED, type Runtime } from "./runtimes.ts";

/** One measurement: how long it took, or how much it was. */
export type Sample = () => number | Promise<number>;

/** The samples of each contender, by its name. */
export type Contenders = Readonly<Record<string, Sample>>;

// Names of contenders that several rows have.
export const PROGRAM = "the program";
export const LIBRARY = "startAuth()";
export const BARE = "a bare server";
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
  { runtime, folder }: Bench,
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
function programEnv(store: string, endpoint: string): Record<string, string> {
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

// === Processes

const STEP_LIMIT = 60_000; // ms until something is taken for stuck

/** A command, and what it finds in its environment. */
interface Command {
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
async function memoryOf({ pid }: ChildProcess): Promise<number> {
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
  const env = programEnv(await fillStore(bench, 1), "http://127.0.0.1:9/");
  const ours = (arg: string) => () =>
    lifetime({ words: [...bench.runtime.program, arg], env });
  return {
    "--version": ours("--version"),
    "--help": ours("--help"),
    "status": ours("status"),
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

// === Logins as whole processes

/** What one login took: times in ms, memory in MiB. */
interface Login {
  readonly listening: number;
  readonly memory: number;
  readonly token: number;
  readonly end: number;
}

/** Logins of everybody, of which one thing is measured. */
export async function logins(
  bench: Bench,
  wanted: keyof Login,
): Promise<Contenders> {
  const endpoint = await tokenHost(bench, 0);
  const rest = wanted === "memory" && !bench.quick ? 1000 : 50;
  const contenders = Object.entries(await loginCommands(bench, endpoint))
    .map(([name, command]): [string, Sample] => [name, async () => {
      const port = await freePort();
      return (await login(command(String(port)), port, rest))[wanted];
    }]);
  return Object.fromEntries(contenders);
}

/** The command of each contender, by the port of the redirect. */
async function loginCommands(
  bench: Bench,
  endpoint: string,
): Promise<Record<string, (port: string) => Command>> {
  const { kind, module, program } = bench.runtime;
  const ours = await script(bench, "ours", OURS);
  const bare = await script(bench, "bare", BARE_ON[kind]);
  const peer = await script(bench, "peer", OAUTH_CALLBACK);
  const file = path.join(INSTALLED, "oauth-callback", "dist", "index.js");
  const more = [module, JSON.stringify(APP)];
  const env = programEnv(path.join(bench.folder, "store"), endpoint);
  const args = ["login", "--no-browser", "--host", "127.0.0.1", "--port"];
  return {
    [PROGRAM]: (port) => ({ words: [...program, ...args, port], env }),
    [LIBRARY]: (port) => ({ words: [...ours, port, endpoint, ...more] }),
    [BARE]: (port) => ({ words: [...bare, port, endpoint] }),
    "oauth-callback": (port) => ({
      words: [...peer, port, endpoint, pathToFileURL(file).href],
    }),
  };
}

/** One login, from the start of its process to the end of it. */
async function login(
  command: Command,
  port: number,
  rest: number,
): Promise<Login> {
  const child = new Child(command);
  try {
    const { time, match } = await child.until(/listening|http\S+[?&]state=\S+/);
    const state = /state=([^&\s]+)/.exec(match)?.[1] ?? "";
    await untilOpen(port);
    await delay(rest); // a person takes longer
    const memory = await memoryOf(child.process);
    const began = performance.now();
    const page = fetch(`http://127.0.0.1:${port}/?code=ROW_a&state=${state}`)
      // It may be cut off when a contender stops before its page is out.
      .then((answer) => answer.text()).catch(() => {});
    const token = await child.until(/"access_token"/);
    const [end] = await Promise.all([child.ended, page]);
    return {
      listening: time - child.began,
      memory,
      token: token.time - began,
      end: end - began,
    };
  } finally {
    child.process.kill("SIGKILL");
  }
}

/** Waits until a port takes connections: one contender does not tell. */
async function untilOpen(port: number): Promise<void> {
  for (const limit = Date.now() + STEP_LIMIT; Date.now() < limit;) {
    const socket = connect({ port, host: "127.0.0.1" });
    const isOpen = await new Promise((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return;
    await delay(5);
  }
  throw new Error(`Nothing listens on port ${port}`);
}

/** A token host in a process of its own, so that it takes nobody's turn. */
export async function tokenHost(
  bench: Bench,
  latency: number,
): Promise<string> {
  const reply = JSON.stringify(tokenReply("host"));
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

/** Our library in the fewest lines. */
const OURS = `
const [port, tokenEndpoint, module, app] = args;
const { startAuth } = await import(module);
const where = { port, host: "127.0.0.1", tokenEndpoint };
const flow = await startAuth({ ...JSON.parse(app), ...where });
console.error(flow.url);
console.log(JSON.stringify(await flow.reply));
`;

/** The least program that gets a token from a redirect. */
const BARE_ON: Readonly<Record<Runtime["kind"], string>> = {
  Deno: `
const [port, endpoint] = args;
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
`,
  Node: `
import { createServer } from "node:http";
const [port, endpoint] = args;
const server = createServer(async (request, response) => {
  const code = new URL(request.url, "http://a").searchParams.get("code");
  const answer = await fetch(endpoint + "?auth_code=" + code);
  console.log(JSON.stringify(await answer.json()));
  response.setHeader("connection", "close");
  response.end("done");
  server.close();
});
server.listen(Number(port), "127.0.0.1", () => console.error("listening"));
`,
};

/** The package of that name; it does not tell when it listens. */
const OAUTH_CALLBACK = `
const [port, endpoint, module] = args;
const { getAuthCode } = await import(module);
const where = { hostname: "127.0.0.1", callbackPath: "/" };
const waiting = getAuthCode({ port: Number(port), ...where });
console.error("listening");
const { code } = await waiting;
const answer = await fetch(endpoint + "?auth_code=" + code);
console.log(JSON.stringify(await answer.json()));
`;

// === Tokens

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
