/**
 * The HTTP server. It reads a request, has it answered, and sends the answer,
 * with the faults that were asked for.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { once } from "node:events";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import {
  APP_PARAMETER,
  type Call,
  clock,
  keep,
  REFRESH_PATH,
  STOLEN_PATH,
  takeFaults,
  TOKEN_PATH,
  type World,
} from "./data.ts";
import { type Fault, faultText, happensAt } from "./faults.ts";
import { api } from "./api.ts";
import { home, HOME_PATH } from "./home.ts";
import { CANNED, exchange, refresh } from "./hosts.ts";
import { authorize } from "./pages.ts";
import { type Reply, text } from "./replies.ts";
import type { SandboxRequest, SandboxWhere } from "./types.ts";

/** More than any client takes. */
const HUGE = 33 * 1024 * 1024; // bytes
/** TikTok takes no larger upload. */
const BODY_LIMIT = 64 * 1024 * 1024; // bytes

// What is remembered has limits, so that a long run does not fill the memory.
const KEPT_REQUESTS = 1000;
const KEPT_BODY = 16 * 1024; // bytes

// === Requests

/** Reads one request and answers it. */
export async function serve(
  world: World,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const target = request.url ?? "";
  if (!target.startsWith("/") || !URL.canParse(world.origin + target)) {
    return send(world, response, text(400, "Bad Request"), []);
  }
  const foreign = foreignRefusal(request);
  if (foreign) return send(world, response, foreign, []);
  const url = new URL(world.origin + target);
  if (url.pathname === HOME_PATH) return visit(world, request, response);
  const record = recordOf(world, request, url);
  remember(world, record);
  const bytes = await readBody(request);
  if (bytes === undefined) {
    return send(world, response, text(413, "Content Too Large"), []);
  }
  record.body = bytes.subarray(0, KEPT_BODY).toString();
  const { method, path, headers } = record;
  const where = whereOf(path);
  const query = url.searchParams;
  const call: Call = { where, method, target, path, query, headers, bytes };
  const faults = path === STOLEN_PATH ? [] : takeFaults(world, call);
  record.faults = faults.map(faultText);
  await pause(world, call, faults);
  const reply = replyTo(world, call, faults);
  if (reply === undefined) {
    if (faults.some((fault) => fault.name === "dropped")) {
      request.socket.destroy();
    }
  } else {
    const { status, note = "", code, explanation } = reply;
    const facts = { ...code && { code }, ...explanation && { explanation } };
    Object.assign(record, { status, note, ...facts });
    send(world, response, reply, faults);
  }
  world.settings.onRequest(record);
}

/** Answers a person; neither recorded nor spoiled. */
async function visit(
  world: World,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { method = "", headers: { origin } } = request;
  const form = new URLSearchParams((await readBody(request))?.toString());
  send(world, response, await home(world, { method, origin, form }), []);
}

/** The host that a path belongs to. */
function whereOf(path: string): SandboxWhere {
  if (APP_PARAMETER.has(path)) return "authorize";
  if (path === TOKEN_PATH) return "token";
  return path === REFRESH_PATH ? "refresh" : "api";
}

/**
 * Refuses what a page of another site sends: by a name of its own that leads
 * to 127.0.0.1, or with its own origin.
 */
function foreignRefusal({ headers }: IncomingMessage): Reply | undefined {
  const { host = "", origin } = headers;
  if (!/^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i.test(host)) {
    return text(421, "Misdirected Request: the Host is none of loopback's");
  }
  if (origin === undefined || origin === `http://${host}`) return undefined;
  return text(403, "Forbidden: this comes from a page of another origin");
}

/** Keeps a request for the tests to look at. */
function remember(world: World, record: SandboxRequest): void {
  const { requests, counts } = world;
  requests.push(record);
  if (requests.length > KEPT_REQUESTS) requests.shift();
  keep(counts, record.path, (counts.get(record.path) ?? 0) + 1);
}

function recordOf(
  world: World,
  request: IncomingMessage,
  url: URL,
): SandboxRequest {
  const headers = Object.entries(request.headers)
    .map(([name, value]) => [name, String(value)]);
  return {
    method: request.method ?? "",
    path: url.pathname,
    query: Object.fromEntries(url.searchParams),
    headers: Object.fromEntries(headers),
    body: "",
    status: 0,
    note: "",
    time: clock(world),
    faults: [],
  };
}

/** The body; undefined if it is too large, once all of it was read. */
async function readBody(
  request: IncomingMessage,
): Promise<Buffer | undefined> {
  let chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_LIMIT) chunks = [];
    else chunks.push(Buffer.from(chunk));
  }
  return size > BODY_LIMIT ? undefined : Buffer.concat(chunks);
}

/** Waits as long as the latency and the faults say. */
async function pause(
  world: World,
  call: Call,
  faults: Fault[],
): Promise<void> {
  const late = faults.find((fault) => fault.name === "slow")?.value ?? 0;
  const latency = call.where === "authorize" ? 0 : world.settings.latency;
  if (late + latency === 0) return;
  await delay(late + latency, undefined, { signal: world.stopping.signal });
}

// === Answers

/** The reply; `undefined` if none is to be sent. */
function replyTo(
  world: World,
  call: Call,
  faults: Fault[],
): Reply | undefined {
  const silent = ["never", "dropped"];
  if (faults.some((fault) => silent.includes(fault.name))) return;
  if (call.path === STOLEN_PATH) return text(200, "A redirect was followed");
  return answer(world, call, faults);
}

/** The reply of the handler, or of a fault in its place. */
function answer(world: World, call: Call, faults: Fault[]): Reply {
  const place = call.where === "authorize" ? "page" : call.where;
  for (const fault of faults) {
    const canned = CANNED[fault.name];
    if (canned && happensAt(fault, place)) return canned(world, call);
  }
  const names = new Set(faults.map((fault) => fault.name));
  if (call.where === "authorize") return authorize(world, call, faults);
  if (call.where === "api") return api(world, call);
  if (call.method !== "GET") return text(404, "404 page not found");
  if (call.where === "token") return exchange(world, call, names);
  return refresh(world, call, names);
}

function send(
  world: World,
  response: ServerResponse,
  reply: Reply,
  faults: Fault[],
): void {
  const names = new Set(faults.map((fault) => fault.name));
  const shift = faults.find((fault) => fault.name === "clock")?.value ?? 0;
  let body = Buffer.from(reply.body);
  if (names.has("huge")) body = Buffer.concat([Buffer.alloc(HUGE, " "), body]);
  const half = body.subarray(0, body.length >> 1);
  if (names.has("truncated-json")) body = Buffer.from(half);
  response.writeHead(reply.status, {
    "date": new Date(clock(world) + shift * 1000).toUTCString(),
    "content-type": reply.type,
    "content-length": body.length,
    // On a connection used before, Deno's fetch repeats a dropped request by
    // itself, and the fault would pass unseen.
    "connection": "close",
    ...reply.headers,
  });
  if (names.has("truncated")) {
    response.write(half, () => response.destroy());
  } else {
    response.end(body);
  }
}

/** A client that goes away is no failure; anything else is a bug here. */
export function handleError(response: ServerResponse, error: unknown): void {
  const { name, code } = error as { name?: string; code?: string };
  if (name === "AbortError" || code === "ECONNRESET" || response.destroyed) {
    response.destroy();
    return;
  }
  console.error("The sandbox failed:", error);
  if (!response.headersSent) response.writeHead(500);
  response.end();
}

// === Listening

/** Listens on a port of 127.0.0.1; resolves to the port. */
export async function listen(server: Server, port: number): Promise<number> {
  try {
    const listening = once(server, "listening");
    server.listen(port, "127.0.0.1");
    await listening;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    const reason = code === "EADDRINUSE" ? "it is in use" : message;
    throw new Error(`Cannot listen on port ${port}: ${reason}`, {
      cause: error,
    });
  }
  return (server.address() as AddressInfo).port;
}

/** Closes the port and every connection. */
export function stopServer(world: World, server: Server): Promise<void> {
  world.stopping.abort();
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
