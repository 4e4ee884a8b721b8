/** A token host made of bytes: each test says what goes over the wire. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createServer, type Socket } from "node:net";
import { inspect } from "node:util";
import { type ErrorKind, TikTokShopError } from "../../mod.ts";
import {
  type Sandbox,
  type SandboxOptions,
  startSandbox,
} from "../../scripts/sandbox.ts";
import { temporaryFolder } from "./helpers.ts";

/** Credentials that open nothing. */
export const APP = {
  appKey: "6f3k9d2m1x8q",
  appSecret: "5a6d0b0c5b0e1f7a92c4438be0d1725f6a3e9c81",
};

/** A service id over 2^53, as they all are. */
export const SERVICE_ID = "7412345678901234567";

/** A reply as TikTok sends it. */
export const REPLY = {
  code: 0,
  message: "success",
  data: {
    access_token: "GCP_access",
    access_token_expire_in: 1722342011,
    refresh_token: "GCP_refresh",
    refresh_token_expire_in: 4841467787,
    open_id: "7010aAAAAAAQ5R2h",
    seller_name: "Harbour & Finch",
    seller_base_region: "GB",
    user_type: 0,
    granted_scopes: ["seller.authorization.info"],
  },
  request_id: "20240722143025A1B2",
};

/** One request, as it came. */
export interface HostRequest {
  method: string;
  /** Path and query, still encoded. */
  target: string;
  query: URLSearchParams;
  /** By lower-case name. */
  headers: Record<string, string>;
  /** What followed the head. */
  body: string;
  /** When it came, in the milliseconds of `performance.now()`. */
  time: number;
}

/** Answers the nth request, or uses its socket freely. */
export type HostHandler = (
  request: HostRequest,
  index: number,
  socket: Socket,
) => Uint8Array | string | void;

/** A listening host. */
export interface Host {
  readonly origin: string;
  readonly tokenEndpoint: string;
  readonly refreshEndpoint: string;
  readonly requests: HostRequest[];
}

/** Runs `run` against a host on a free port of 127.0.0.1. */
export async function withHost<T>(
  handler: HostHandler,
  run: (host: Host) => Promise<T>,
): Promise<T> {
  const requests: HostRequest[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    receive(socket, (request) => {
      const answered = handler(request, requests.push(request) - 1, socket);
      if (answered !== undefined) socket.end(answered);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const origin = `http://127.0.0.1:${port}`;
  const tokenEndpoint = `${origin}/api/v2/token/get`;
  const refreshEndpoint = `${origin}/api/v2/token/refresh`;
  try {
    return await run({ origin, tokenEndpoint, refreshEndpoint, requests });
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Runs `run` against a sandbox. */
export async function withSandbox<T>(
  run: (sandbox: Sandbox) => Promise<T>,
  options: SandboxOptions = {},
): Promise<T> {
  const sandbox = await startSandbox(options);
  try {
    return await run(sandbox);
  } finally {
    await sandbox.stop();
  }
}

/** Runs `run` with a temporary folder, which has a space in its name. */
export async function withFolder<T>(
  run: (path: string) => Promise<T>,
): Promise<T> {
  const folder = await temporaryFolder();
  try {
    return await run(folder.path);
  } finally {
    await folder[Symbol.asyncDispose]();
  }
}

/** Reads one request; what comes later is its body. */
function receive(socket: Socket, take: (request: HostRequest) => void): void {
  let text = "";
  let request: HostRequest | undefined;
  socket.on("data", (chunk) => {
    text += chunk.toString("latin1");
    const end = text.indexOf("\r\n\r\n");
    if (end < 0) return;
    if (request) {
      request.body = text.slice(end + 4);
    } else {
      request = parseRequest(text.slice(0, end), text.slice(end + 4));
      take(request);
    }
  });
}

function parseRequest(head: string, body: string): HostRequest {
  const [first = "", ...lines] = head.split("\r\n");
  const [method = "", target = ""] = first.split(" ");
  const query = new URL(target, "http://host").searchParams;
  const headers = Object.fromEntries(lines.map((line) => {
    const at = line.indexOf(":");
    return [line.slice(0, at).toLowerCase(), line.slice(at + 1).trim()];
  }));
  return { method, target, query, headers, body, time: performance.now() };
}

/** The bytes of an answer; without a `Date` unless one is given. */
export function answer(
  body: unknown = REPLY,
  options: { status?: number; headers?: Record<string, string | number> } = {},
): Uint8Array {
  const { status = 200 } = options;
  const bytes = body instanceof Uint8Array
    ? body
    : Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
  const headers = {
    "content-type": "application/json; charset=utf-8",
    "content-length": bytes.length,
    "connection": "close",
    ...options.headers,
  };
  const lines = Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`);
  const head = `HTTP/1.1 ${status} Answer\r\n${lines.join("")}\r\n`;
  return Buffer.concat([Buffer.from(head), bytes]);
}

/** A time in milliseconds as the header `Date` has it. */
export function httpDate(time: number): string {
  return new Date(time).toUTCString();
}

/** An answer with a `code` that is not 0. */
export function refusal(
  code: number,
  message: string,
  options: Parameters<typeof answer>[1] = {},
): Uint8Array {
  return answer({ code, message, request_id: REPLY.request_id }, options);
}

/** The error that a promise rejects with; it must be one of ours. */
export async function failure(
  promise: Promise<unknown>,
  kind?: ErrorKind,
  row = "",
): Promise<TikTokShopError> {
  const error = await promise.then(
    (value) => assert.fail(`${row} succeeded: ${inspect(value)}`),
    (reason) => reason,
  );
  assert.ok(error instanceof TikTokShopError, `${row}: ${inspect(error)}`);
  if (kind) assert.equal(error.kind, kind, `${row}: ${inspect(error)}`);
  return error;
}
