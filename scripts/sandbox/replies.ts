/**
 * The answers of the token host and of the API: TikTok's envelope, and its own
 * words for what it refuses.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { type Call, clock, type World } from "./data.ts";
import type { SandboxExplanation } from "./types.ts";

/** An HTTP answer before any fault spoils it. */
export interface Reply {
  status: number;
  type: string;
  body: string;
  headers?: Record<string, string>;
  /** TikTok's code, where the body has one. */
  code?: number;
  /** For people: why it was refused, or what was accepted all the same. */
  note?: string;
  /** What is wrong with a signature. */
  explanation?: SandboxExplanation;
}

/** TikTok's code and message. */
export type Refusal = readonly [code: number, message: string];

export const INVALID_CODE: Refusal = [36004004, "invalid auth code"];
export const NO_RECORD: Refusal = [
  36004005,
  "can not find related auth record",
];
export const REFRESH_EXPIRED: Refusal = [36004001, "rt has expired"];
export const TOKEN_ENDED: Refusal = [105001, "access token is invalid"];
export const TOKEN_EXPIRED: Refusal = [
  105002,
  "Expired credentials. The `access_token` or `x-tts-access-token` header " +
  "has expired.",
];
export const TOKEN_UNKNOWN: Refusal = [
  36009004,
  "Invalid credentials. The `x-tts-access-token` header is invalid.",
];

export const JSON_TYPE = "application/json; charset=utf-8";

/** TikTok's envelope around `data`, which is JSON text. */
export function success(world: World, data: string): Reply {
  const body = envelope(world, 0, "success", data);
  return { status: 200, type: JSON_TYPE, body, code: 0 };
}

/** The token host refuses with HTTP 200, the API with a status. */
export function refusal(
  world: World,
  call: Call,
  [code, message]: Refusal,
): Reply {
  const isApi = call.where === "api";
  const status = isApi ? apiStatus(code, message) : 200;
  const body = envelope(world, code, message, isApi ? "null" : undefined);
  return { status, type: JSON_TYPE, body, code, note: message };
}

function apiStatus(code: number, message: string): number {
  if (code === 36009009) return 404;
  if (code === 36009002) return 429;
  const isAboutToken = /access_token|x-tts-access-token/.test(message);
  return [105001, 105002, 105005, 106001].includes(code) || isAboutToken
    ? 401
    : 400;
}

/** An answer in plain text. */
export function text(status: number, body: string): Reply {
  return { status, type: "text/plain; charset=utf-8", body };
}

/** `data` is JSON text, so that it can hold integers over 2^53. */
function envelope(
  world: World,
  code: number,
  message: string,
  data?: string,
): string {
  const middle = data === undefined ? "" : `,"data":${data}`;
  return `{"code":${code},"message":${JSON.stringify(message)}${middle},` +
    `"request_id":"${requestId(world)}"}`;
}

function requestId(world: World): string {
  const time = new Date(clock(world)).toISOString().replace(/\D/g, "");
  const random = randomBytes(10).toString("hex").toUpperCase();
  return time.slice(0, 14) + random;
}
