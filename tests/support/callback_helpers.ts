/** What the tests of the callback share: logins, raw requests, sockets. */
import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import {
  type AuthFlow,
  type FlowState,
  startAuth,
  type StartAuthOptions,
  type UserType,
} from "../../mod.ts";
import {
  type Sandbox,
  type SandboxDecision,
  type SandboxOptions,
  startSandbox,
} from "../../scripts/sandbox.ts";
import { freePort, isListening } from "./helpers.ts";

/** The two addresses that a login listens on. */
export const LOOPBACKS = ["127.0.0.1", "::1"];

// === Logins

export interface LoginSetup extends Partial<StartAuthOptions> {
  sandbox?: SandboxOptions;
}

/** A login under way, against a sandbox of its own. */
export interface Login {
  flow: AuthFlow;
  sandbox: Sandbox;
  states: FlowState[];
  warnings: string[];
  /** Decides as a person does; resolves to where the browser is sent. */
  redirect(decision?: SandboxDecision): Promise<URL>;
  /** The redirect with some of its parameters changed or, by null, left out. */
  changed(changes: Record<string, string | null>): Promise<URL>;
  /** How often the token host was asked. */
  exchanges(): number;
  end(): Promise<void>;
}

export async function startLogin(setup: LoginSetup = {}): Promise<Login> {
  const { sandbox: shop, port = await freePort(), ...options } = setup;
  // The last port of a range, as the first ones are taken.
  const redirectUrl = `http://localhost:${/\d+$/.exec(String(port))}/`;
  const sandbox = await startSandbox({ redirectUrl, ...shop });
  const { states, warnings }: Pick<Login, "states" | "warnings"> = {
    states: [],
    warnings: [],
  };
  try {
    const flow = await startAuth({
      ...appOf(sandbox, options.userType),
      port,
      timeout: 120,
      onState: (state) => states.push(state),
      onWarning: (message) => warnings.push(message),
      ...options,
    });
    return { ...actionsOf(flow, sandbox), flow, sandbox, states, warnings };
  } catch (error) {
    await sandbox.stop();
    throw error;
  }
}

/** The options that point a login at a sandbox. */
export function appOf(sandbox: Sandbox, userType?: UserType): StartAuthOptions {
  const { appKey, appSecret, serviceId, tokenEndpoint } = sandbox;
  const authorizationEndpoint = userType === "creator"
    ? sandbox.creatorAuthorizationEndpoint
    : sandbox.authorizationEndpoint;
  return { appKey, appSecret, serviceId, authorizationEndpoint, tokenEndpoint };
}

function actionsOf(flow: AuthFlow, sandbox: Sandbox) {
  const redirect = async (decision?: SandboxDecision) =>
    new URL(await sandbox.approve(flow.url, decision));
  return {
    redirect,
    changed: async (changes: Record<string, string | null>) => {
      const url = await redirect();
      for (const [name, value] of Object.entries(changes)) {
        if (value === null) url.searchParams.delete(name);
        else url.searchParams.set(name, value);
      }
      return url;
    },
    exchanges: () => sandbox.count("/api/v2/token/get"),
    end: async () => {
      await flow[Symbol.asyncDispose]();
      await sandbox.stop();
    },
  };
}

/** A test with a login of its own, on a port of its own. */
export function loginTest(
  name: string,
  setup: LoginSetup,
  run: (login: Login) => Promise<unknown>,
): void {
  test(name, async () => {
    const login = await startLogin(setup);
    try {
      await run(login);
    } finally {
      await login.end();
    }
  });
}

/** Asserts that the login still waits, and that its redirect still works. */
export async function assertWaits(login: Login): Promise<void> {
  assert.equal(login.flow.state, 1);
  assert.equal(login.exchanges(), 0);
  const page = await fetch(await login.redirect());
  assert.match(await page.text(), /<main class="success">/);
  assert.equal(page.status, 200);
  assert.equal((await login.flow.reply).code, 0);
  assert.equal(login.exchanges(), 1);
}

/**
 * Does something to a login, lets it time out, and then looks at it. If that
 * takes longer than the login waits, it tries again with twice the time.
 */
export async function afterTimeout(
  act: (login: Login) => Promise<unknown>,
  check: (login: Login, timeout: number) => Promise<unknown>,
  timeout = 1,
): Promise<void> {
  const login = await startLogin({ timeout });
  try {
    const acted = await act(login).then(() => true, (error) => {
      if (login.flow.state === 1) throw error;
      return false;
    });
    if (acted && login.flow.state === 1) {
      await login.flow.reply.catch(() => {});
      return void await check(login, timeout);
    }
  } finally {
    await login.end();
  }
  assert.ok(timeout < 60, "no machine is that slow");
  await afterTimeout(act, check, 2 * timeout);
}

// === Raw requests

export interface RawRequest {
  method?: string;
  target?: string;
  version?: string;
  /** The Host header; null for none. */
  host?: string | null;
  headers?: Record<string, string>;
  body?: string;
}

/** A request in bytes, as no well-behaved client would send it. */
export function rawRequest(port: number, request: RawRequest = {}): string {
  const { method = "GET", target = "/", version = "HTTP/1.1" } = request;
  const { host = `localhost:${port}`, body = "" } = request;
  const length = body ? { "Content-Length": String(body.length) } : {};
  const lines = Object.entries({ ...request.headers, ...length })
    .map(([name, value]) => `${name}: ${value}\r\n`);
  if (host !== null) lines.unshift(`Host: ${host}\r\n`);
  return `${method} ${target} ${version}\r\n${lines.join("")}\r\n${body}`;
}

export interface RawAnswer {
  status: number;
  headers: Headers;
  body: string;
}

/** The first answer in `text`, once it is complete. */
function completeAnswer(text: string, bodiless: boolean) {
  const final = text.replace(/^(HTTP\/1\.1 1\d\d [^]*?\r\n\r\n)+/, "");
  const [, code, lines, rest = ""] =
    /^HTTP\/1\.[01] (\d{3}) ?[^\r]*\r\n([^]*?)\r\n\r\n([^]*)$/.exec(final) ??
      [];
  if (code === undefined) return;
  const headers = new Headers(
    lines!.split("\r\n").map((line) =>
      line.split(/:\s*(.*)/s, 2) as [
        string,
        string,
      ]
    ),
  );
  const status = Number(code);
  const length = Number(headers.get("content-length") ?? NaN);
  const whole = bodiless || status === 204 || rest.length >= length ||
    (headers.has("transfer-encoding") && /(^|\r\n)0\r\n\r\n$/.test(rest));
  const body = new TextDecoder().decode(
    Uint8Array.from(rest, (c) => c.charCodeAt(0)),
  );
  return { status, headers, body, whole };
}

/** Sends bytes and reads the first answer to them. */
export function exchangeRaw(
  port: number,
  bytes: string,
  options: { host?: string; ms?: number } = {},
): Promise<RawAnswer> {
  const { host = "127.0.0.1", ms = 60_000 } = options;
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = connect({ port, host }, () => socket.write(bytes, "latin1"));
    const end = (last: boolean) => {
      const answer = completeAnswer(text, bytes.startsWith("HEAD "));
      if (!last && !answer?.whole) return;
      clearTimeout(timer);
      socket.destroy();
      if (answer) resolve(answer);
      else reject(new Error(`No answer: ${JSON.stringify(text)}`));
    };
    const timer = setTimeout(() => end(true), ms);
    socket.setEncoding("latin1");
    socket.on("data", (data) => (text += data, end(false)));
    socket.on("end", () => end(true));
    socket.on("error", () => end(true));
  });
}

// === Sockets that are held open

/** The sockets that a browser may leave open, one of every kind. */
export const HELD: Record<string, (port: number) => string> = {
  "idle": () => "",
  "half a request line": () => "GET / HT",
  "half a header": (port) => `GET / HTTP/1.1\r\nHost: localhost:${port}\r\nX`,
  "half a body": (port) =>
    rawRequest(port, { method: "POST", headers: { "Content-Length": "999" } }),
  "keep-alive": (port) =>
    rawRequest(port, { headers: { Connection: "keep-alive" } }),
  "CONNECT": (port) =>
    rawRequest(port, { method: "CONNECT", target: `localhost:${port}` }),
  "upgrade": (port) =>
    rawRequest(port, {
      headers: { Connection: "Upgrade", Upgrade: "websocket" },
    }),
  "garbage": () => "\0\x01\x02\r\n\r\n",
  "TLS hello": () => "\x16\x03\x01\0\x05\x01\0\0\x01\x03\r\n\r\n",
  "HTTP/2": () => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
};

export interface HeldSocket {
  name: string;
  socket: Socket;
  closed: Promise<void>;
}

/** Opens a socket, sends its bytes, and never closes it by itself. */
function holdSocket(
  name: string,
  address: { port: number; host: string },
  bytes: string,
): Promise<HeldSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...address, allowHalfOpen: true });
    const closed = new Promise<void>((resolve) => {
      for (const event of ["end", "close"]) socket.once(event, () => resolve());
    });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.on("error", () => {});
      socket.write(bytes, "latin1");
      resolve({ name: `${name} on ${address.host}`, socket, closed });
    });
  });
}

/** One socket of every kind on both families, and one that reads nothing. */
export async function holdSockets(port: number): Promise<HeldSocket[]> {
  const held: HeldSocket[] = [];
  for (const host of LOOPBACKS) {
    const deaf = await holdSocket(
      "deaf",
      { port, host },
      rawRequest(port).repeat(1000),
    );
    deaf.socket.pause();
    // A socket that does not read does not see the end either.
    held.push({ ...deaf, closed: Promise.resolve() });
    for (const [name, bytes] of Object.entries(HELD)) {
      const one = await holdSocket(name, { port, host }, bytes(port));
      one.socket.resume();
      held.push(one);
    }
  }
  await delay(50); // let the bytes arrive
  return held;
}

export function dropSockets(held: HeldSocket[]): void {
  for (const { socket } of held) socket.destroy();
}

/** Waits until nothing listens on the port. */
export async function portClosed(port: number): Promise<void> {
  for (const limit = performance.now() + 60_000; performance.now() < limit;) {
    const open = await Promise.all(
      LOOPBACKS.map((host) => isListening(port, host)),
    );
    if (!open.includes(true)) return;
    await delay(10);
  }
  throw new Error(`Port ${port} is still open after 60 s`);
}

/** Waits until something holds. */
export async function until(holds: () => boolean, ms = 60_000): Promise<void> {
  for (const limit = performance.now() + ms; !holds();) {
    if (performance.now() > limit) throw new Error(`Not within ${ms} ms`);
    await delay(5);
  }
}

/** Waits until the login has let go of every socket that is held. */
export async function allDropped(held: HeldSocket[]): Promise<void> {
  const open = new Set(held.map(({ name }) => name));
  for (const { name, closed } of held) {
    closed.then(() => open.delete(name));
  }
  await until(() => open.size === 0).catch(() => {});
  assert.deepEqual([...open], []);
}

// === Answers

/** What a browser is shown. */
export interface Shown {
  status: number;
  headers: Headers;
  page: string;
}

/** The headers that every answer must carry. */
export function assertSafe(headers: Headers, what: string): void {
  const expected: Record<string, RegExp> = {
    "connection": /^close$/,
    "cache-control": /^no-store$/,
    "referrer-policy": /^no-referrer$/,
    "x-content-type-options": /^nosniff$/,
    "content-security-policy": /^default-src 'none'; style-src 'sha256-/,
  };
  for (const [name, pattern] of Object.entries(expected)) {
    // Deno's parser adds a second "close" where a body was left unread.
    const [value = ""] = (headers.get(name) ?? "").split(", ");
    assert.match(value, pattern, `${name} of the answer to ${what}`);
  }
}

/** Path and query of a URL, as a request line has them. */
export function targetOf(url: URL): string {
  return url.pathname + url.search;
}
