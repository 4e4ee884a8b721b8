/**
 * Logins as whole processes: ours, those of the packages that others use for
 * it, and the least that gets a token from a redirect.
 *
 * @module
 */
import { connect } from "node:net";
import * as path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { freePort } from "../tools.ts";
import {
  APP,
  type Bench,
  Child,
  type Command,
  type Contenders,
  memoryOf,
  programEnv,
  programs,
  type Sample,
  script,
  STEP_LIMIT,
  tokenHost,
} from "./contenders.ts";
import { INSTALLED, type Runtime } from "./runtimes.ts";

// Names of contenders.
export const LIBRARY = "startAuth()";
export const BARE = "a bare server";

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
  const rest = wanted === "memory" && !bench.quick ? 1000 : 300;
  const all = {
    ...await ours(bench, endpoint),
    ...await peers(bench, endpoint),
  };
  const samples = Object.entries(all)
    .map(([name, command]): [string, Sample] => [name, async () => {
      const port = await freePort();
      return (await login(command(String(port)), port, rest))[wanted];
    }]);
  return Object.fromEntries(samples);
}

/** One that logs in at a port. */
type LoginCommand = (port: string) => Command & {
  /** Takes the redirect as a form, by POST. */
  readonly takesForm?: boolean;
};

/** Our program and library, and the bare server. */
async function ours(
  bench: Bench,
  endpoint: string,
): Promise<Record<string, LoginCommand>> {
  const { kind, module } = bench.runtime;
  const library = await script(bench, "library", OURS);
  const bare = await script(bench, "bare", BARE_EXCHANGE + SERVER_ON[kind]);
  const more = [module, JSON.stringify(APP)];
  const store = programEnv(path.join(bench.folder, "store"), endpoint);
  const args = ["login", "--no-browser", "--host", "127.0.0.1", "--port"];
  const ways = Object.entries(programs(bench))
    .map(([name, { words, env }]): [string, LoginCommand] => [
      name,
      (port) => ({
        words: [...words, ...args, port],
        env: { ...store, ...env },
      }),
    ]);
  return {
    ...Object.fromEntries(ways),
    [LIBRARY]: (port) => ({ words: [...library, port, endpoint, ...more] }),
    [BARE]: (port) => ({ words: [...bare, port, endpoint] }),
  };
}

/** The packages of others, by their names. */
async function peers(
  bench: Bench,
  endpoint: string,
): Promise<Record<string, LoginCommand>> {
  const { kind, peerCommand: command } = bench.runtime;
  const peer = async (file: string, text: string, takesForm?: boolean) => {
    const name = file.replace(/\W+/g, "-");
    const words = await script({ ...bench, runtime: { command } }, name, text);
    const { href } = pathToFileURL(path.join(INSTALLED, file));
    return (port: string) => ({
      words: [...words, port, endpoint, href],
      takesForm,
    });
  };
  const openid = OPENID_EXCHANGE + SERVER_ON[kind];
  const loopback = "@azure/msal-node/dist/network/LoopbackClient.mjs";
  return {
    "oauth-callback": await peer("oauth-callback/dist/index.js", CALLBACK),
    "openid-client": await peer("openid-client/build/index.js", openid),
    "msal-node": await peer(loopback, LOOPBACK_CLIENT, true),
  };
}

/** One login, from the start of its process to the end of it. */
async function login(
  command: ReturnType<LoginCommand>,
  port: number,
  rest: number,
): Promise<Login> {
  const child = new Child(command);
  try {
    const { match } = await child.until(/listening|http\S+[?&]state=\S+/);
    const state = /state=([^&\s]+)/.exec(match)?.[1] ?? "";
    await untilOpen(port);
    const listening = performance.now() - child.began;
    await delay(rest); // a person takes longer
    const memory = await memoryOf(child.process);
    const began = performance.now();
    const page = redirect(port, state, command.takesForm)
      // It may be cut off when a contender stops before its page is out.
      .then((answer) => answer.text()).catch(() => {});
    const token = await child.until(/"access_token"/);
    const [end] = await Promise.all([child.ended, page]);
    return { listening, memory, token: token.time - began, end: end - began };
  } finally {
    child.process.kill("SIGKILL");
  }
}

/** What a browser does when a person has approved. */
function redirect(port: number, state: string, asForm = false) {
  const url = `http://127.0.0.1:${port}/`;
  const body = new URLSearchParams({ code: "ROW_a", state });
  return asForm
    ? fetch(url, { method: "POST", body })
    : fetch(`${url}?${body}`);
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
    await delay(1);
  }
  throw new Error(`Nothing listens on port ${port}`);
}

// === The programs

/** Our library in the fewest lines. */
const OURS = `
const [port, tokenEndpoint, module, app] = args;
const { startAuth } = await import(module);
const where = { port, host: "127.0.0.1", tokenEndpoint };
const flow = await startAuth({ ...JSON.parse(app), ...where });
console.error(flow.url);
console.log(JSON.stringify(await flow.reply));
`;

/** The least that gets a token from a redirect, before a server. */
const BARE_EXCHANGE = `
const [port, endpoint] = args;
const link = "listening";
const tokensOf = async (url) => {
  const code = url.searchParams.get("code");
  return await (await fetch(endpoint + "?auth_code=" + code)).json();
};
`;

/** openid-client has no server of its own. */
const OPENID_EXCHANGE = `
const [port, endpoint, module] = args;
const client = await import(module);
const { origin } = new URL(endpoint);
const server = {
  issuer: origin,
  authorization_endpoint: origin + "/authorize",
  token_endpoint: endpoint,
};
const config = new client.Configuration(server, "app", "secret");
client.allowInsecureRequests(config);
const state = client.randomState();
const redirect_uri = "http://127.0.0.1:" + port + "/";
const link = client.buildAuthorizationUrl(config, { redirect_uri, state });
const tokensOf = (url) =>
  client.authorizationCodeGrant(config, url, { expectedState: state });
`;

/** A server that takes one redirect, prints the tokens and ends. */
const SERVER_ON: Readonly<Record<Runtime["kind"], string>> = {
  Deno: `
const stop = new AbortController();
const onListen = () => console.error(String(link));
const address = { hostname: "127.0.0.1", port: Number(port), onListen };
Deno.serve({ ...address, signal: stop.signal }, async (request) => {
  console.log(JSON.stringify(await tokensOf(new URL(request.url))));
  setTimeout(() => stop.abort());
  return new Response("done", { headers: { connection: "close" } });
});
`,
  Node: `
const { createServer } = await import("node:http");
const base = "http://127.0.0.1:" + port;
const callback = createServer(async (request, response) => {
  console.log(JSON.stringify(await tokensOf(new URL(request.url, base))));
  response.setHeader("connection", "close");
  response.end("done");
  callback.close();
});
callback.listen(Number(port), "127.0.0.1", () => console.error(String(link)));
`,
};

/** oauth-callback; it does not tell when it listens. */
const CALLBACK = `
const [port, endpoint, module] = args;
const { getAuthCode } = await import(module);
const where = { hostname: "127.0.0.1", callbackPath: "/" };
const waiting = getAuthCode({ port: Number(port), ...where });
console.error("listening");
const { code } = await waiting;
const answer = await fetch(endpoint + "?auth_code=" + code);
console.log(JSON.stringify(await answer.json()));
`;

/** What MSAL Node listens with, on its own; it takes a form alone. */
const LOOPBACK_CLIENT = `
const [port, endpoint, module] = args;
const { LoopbackClient } = await import(module);
const loopback = new LoopbackClient(Number(port));
const state = crypto.randomUUID();
const waiting = loopback.listenForAuthCode(state);
const link = "http://127.0.0.1/?state=" + state;
loopback.server.once("listening", () => console.error(link));
const { code } = await waiting;
const answer = await fetch(endpoint + "?auth_code=" + code);
console.log(JSON.stringify(await answer.json()));
loopback.closeServer();
`;
