/**
 * A local TikTok Shop: the authorize page with its Approve and Deny buttons,
 * the token host and the signed API, on one loopback port. TikTok has retired
 * its own sandbox; this one lets a login be tried, and tested, with no app, no
 * shop and no network.
 *
 * It keeps TikTok's rules as far as they are known: codes work once and for
 * 30 minutes, refresh tokens rotate, signatures and clocks are checked, errors
 * come as HTTP 200 with a non-zero `code`. Where TikTok's behaviour is unknown
 * it does what is hardest for a client. On demand it misbehaves:
 * {@linkcode SANDBOX_FAULTS} lists how.
 *
 * As a program it serves and prints the environment that points
 * `tiktok-shop-oauth2` at it:
 *
 * ```sh
 * deno run -A scripts/sandbox.ts --env > sandbox.env
 * ```
 *
 * As a library it is the other half of a test:
 *
 * ```ts
 * import { startSandbox } from "./sandbox.ts";
 *
 * const sandbox = await startSandbox();
 * const link = new URL(sandbox.authorizationEndpoint);
 * link.searchParams.set("service_id", sandbox.serviceId);
 * link.searchParams.set("state", "ours");
 * const redirect = new URL(await sandbox.approve(link.href));
 * console.log(redirect.searchParams.get("code")); // "ROW_…"
 * await sandbox.stop();
 * ```
 *
 * Nothing runs on import. It listens on 127.0.0.1 only, answers to a loopback
 * Host only and to no page of another origin, and remembers no more than the
 * last requests and tokens. Its default credentials open nothing anywhere else.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import {
  createHash,
  createHmac,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import { once } from "node:events";
import { realpathSync } from "node:fs";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

// === Options and types

/** A shop, in the members of TikTok's `data.shops[]`. */
export interface SandboxShop {
  /** Goes into the `shop_cipher` parameter of calls for this shop. */
  cipher: string;
  /** The seller's short code for the shop. */
  code: string;
  /** A decimal string; it may be over 2^53. */
  id: string;
  /** The shop's name. */
  name: string;
  /** The market, such as `GB`. */
  region: string;
  /** `LOCAL` or `CROSS_BORDER`. */
  seller_type: string;
}

/** An account that can authorize the app: a seller, creator or partner. */
export interface SandboxSeller {
  /** The reply's `open_id`. */
  openId: string;
  /** The reply's `seller_name`; creators have none. */
  name: string | null;
  /** The reply's `seller_base_region` and the redirect's `shop_region`. */
  region: string;
  /** 0 seller, 1 creator, 3 partner. */
  userType: number;
  /** The reply's `granted_scopes`. The API answers 105005 beyond them. */
  scopes: readonly string[];
  /** The shops that one token of this seller reaches. */
  shops: readonly SandboxShop[];
}

/** A request that {@linkcode Sandbox.fail} can spoil, by where it goes. */
export type SandboxWhere = "authorize" | "token" | "refresh" | "api";

/**
 * A way to misbehave. {@linkcode SANDBOX_FAULTS} lists them at run time and
 * `--help` of the program tells what each does. `slow` takes milliseconds
 * (`slow:500`), `clock` takes seconds (`clock:-600`).
 *
 * A fault that refuses (an error code, an HTTP status, a dropped connection)
 * leaves code and tokens as they were, but for `expired-code` and
 * `invalid-code`. One that spoils the answer (`truncated`, `huge`, `no-token`
 * and the like) comes after the code is spent or the tokens are rotated.
 */
export type SandboxFault =
  | "deny"
  | "wrong-state"
  | "missing-state"
  | "duplicate-parameters"
  | "no-code"
  | "auth_code"
  | "other-error"
  | "expired-code"
  | "invalid-code"
  | "rotated-refresh"
  | "expired-refresh"
  | "deauthorized"
  | "internal-error"
  | "timeout-error"
  | "ip-not-allowed"
  | "echo-secret"
  | "no-token"
  | "no-refresh-token"
  | "no-expiry"
  | "wrong-types"
  | "rate-limit"
  | "html"
  | "text-404"
  | "500"
  | "503"
  | "empty"
  | "truncated"
  | "truncated-json"
  | "dropped"
  | "redirect"
  | "huge"
  | "never"
  | "slow"
  | `slow:${number}`
  | "clock"
  | `clock:${number}`;

/** Options of {@linkcode startSandbox}. All of them have defaults. */
export interface SandboxOptions {
  /**
   * The port on 127.0.0.1; 0 takes any free one.
   * @default {0}
   */
  port?: number;
  /** The app's key, about 12 lower-case alphanumerics. */
  appKey?: string;
  /** The app's secret, 40 hexadecimal digits. */
  appSecret?: string;
  /** The app's service id, a decimal number of about 19 digits. */
  serviceId?: string;
  /**
   * The redirect URL saved in the app. Its own query is kept.
   * @default {"http://localhost:3017/"}
   */
  redirectUrl?: string;
  /** Who can authorize. By default one British seller with three shops. */
  sellers?: readonly SandboxSeller[];
  /**
   * The time in milliseconds since 1970.
   * @default {Date.now}
   */
  now?: () => number;
  /**
   * Seconds added to the sandbox's clock and its `Date` header.
   * @default {0}
   */
  clockOffset?: number;
  /**
   * Seconds an access token works.
   * @default {604800}
   */
  accessTokenLife?: number;
  /**
   * Seconds a seller's grant lasts, and with it every refresh token. The
   * default, about 100 years, makes `refresh_token_expire_in` exceed 2^32.
   * @default {3153600000}
   */
  refreshTokenLife?: number;
  /**
   * Seconds a code works.
   * @default {1800}
   */
  codeLife?: number;
  /**
   * Whether a refresh returns a new refresh token and ends the old one, and
   * the old access token with it.
   * @default {true}
   */
  rotate?: boolean;
  /**
   * Milliseconds added to every token and API reply.
   * @default {0}
   */
  latency?: number;
  /** A fault, or several by comma, for every authorization. */
  fault?: string;
  /** Called with every request once it has been answered. */
  onRequest?: (request: SandboxRequest) => void;
}

/** One request the sandbox received. It holds secrets, as it came. */
export interface SandboxRequest {
  /** The HTTP method. */
  method: string;
  /** The path, percent-encoded, without the query. */
  path: string;
  /** The decoded query; the last one wins where a name is repeated. */
  query: Record<string, string>;
  /** The headers, by lower-case name. */
  headers: Record<string, string>;
  /** The first 16 KiB of the body as UTF-8 text. */
  body: string;
  /** The HTTP status of the answer; 0 as long as there is none. */
  status: number;
  /** When it arrived, in milliseconds on the sandbox's clock. */
  time: number;
  /** The faults its answer suffered. */
  faults: string[];
}

/** How the person decides, for {@linkcode Sandbox.approve}. */
export interface SandboxDecision {
  /** Click Deny instead of Approve. */
  deny?: boolean;
  /** Index of the seller to choose. */
  seller?: number;
  /** A fault, or several by comma, to add to the link. */
  fault?: SandboxFault | string;
}

/** A running sandbox, from {@linkcode startSandbox}. */
export interface Sandbox {
  /** `http://127.0.0.1:PORT`. */
  readonly origin: string;
  /** The port it listens on. */
  readonly port: number;
  /** The app's key. */
  readonly appKey: string;
  /** The app's secret. */
  readonly appSecret: string;
  /** The app's service id. */
  readonly serviceId: string;
  /** The redirect URL saved in the app. */
  readonly redirectUrl: string;
  /** Where sellers and partners authorize, by `service_id`. */
  readonly authorizationEndpoint: string;
  /** Where creators authorize, by `app_key`. */
  readonly creatorAuthorizationEndpoint: string;
  /** Exchanges a code. */
  readonly tokenEndpoint: string;
  /** Refreshes the tokens. */
  readonly refreshEndpoint: string;
  /** The origin of the signed API. */
  readonly apiEndpoint: string;
  /** The `TIKTOK_SHOP_…` variables that point a program at this sandbox. */
  readonly env: Record<string, string>;
  /** The last 1,000 requests, oldest first. */
  readonly requests: SandboxRequest[];
  /** How many requests came for a path, those too that are forgotten. */
  count(path: string): number;
  /**
   * Makes the next `times` (by default 1, `Infinity` for all) requests there
   * suffer a fault. At `"authorize"` a fault of the redirect or of the tokens
   * waits for the next decision, and goes along with the code.
   *
   * @throws {RangeError} for a fault that does not exist or cannot happen there
   */
  fail(where: SandboxWhere, fault: SandboxFault, times?: number): void;
  /**
   * A fresh authorization code, without the page.
   *
   * @throws {RangeError} for a seller or a fault that does not exist
   */
  issueCode(seller?: number, fault?: SandboxFault | string): string;
  /**
   * Opens an authorize URL and clicks, over HTTP. Returns the URL the browser
   * is sent to, without opening it.
   *
   * @throws {Error} if the page has no form, or the click leads nowhere
   */
  approve(authorizeUrl: string, decision?: SandboxDecision): Promise<string>;
  /**
   * The seller ends every grant: a refresh is answered 36004005 and an API
   * call 105001 until the next authorization.
   *
   * @throws {RangeError} if no seller has that `open_id`
   */
  deauthorize(openId: string): void;
  /** Closes the port and every connection at once. */
  stop(): Promise<void>;
  /** The same as {@linkcode Sandbox.stop}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

// === Constants

const TOKEN_PATH = "/api/v2/token/get";
const REFRESH_PATH = "/api/v2/token/refresh";
const SELLER_PATH = "/open/authorize";
const CREATOR_PATH = "/alliance/creator/auth";
/** Where the `redirect` fault leads; a client must never come here. */
const STOLEN_PATH = "/stolen";
/** The parameter by which each authorize page knows the app. */
const APP_PARAMETER: ReadonlyMap<string, "service_id" | "app_key"> = new Map([
  [SELLER_PATH, "service_id"],
  [CREATOR_PATH, "app_key"],
  ["/oauth/authorize", "app_key"],
]);

const CREATOR = 1;
const PARTNER = 3;
const DAY = 86_400;
/** More than a client takes, also of the API. */
const HUGE = 33 * 1024 * 1024;
const BODY_LIMIT = 64 * 1024 * 1024; // bytes; TikTok takes no larger upload
/** What is kept of requests: with less, a long run would fill the memory. */
const KEPT_REQUESTS = 1000;
const KEPT_BODY = 16 * 1024; // bytes
const KEPT_ENTRIES = 10_000; // codes, tokens and paths, of each
const JSON_TYPE = "application/json; charset=utf-8";
const ORDERS_PER_SHOP = 25;

/** Rotating endings of codes: each shows another decoding mistake. */
const CODE_ENDINGS = ["+/==", "%2Fx", ""];

/** Invented, like everything here; they open nothing. */
const DEFAULT_APP = {
  appKey: "6f3k9d2m1x8q",
  appSecret: "5a6d0b0c5b0e1f7a92c4438be0d1725f6a3e9c81",
  serviceId: "7412345678901234567",
};

const DEFAULT_SELLER: SandboxSeller = {
  openId: "7010aAAAAAAQ5R2hZ0fV3kXw",
  name: "Harbour & Finch",
  region: "GB",
  userType: 0,
  scopes: ["seller.authorization.info", "seller.order.info"],
  shops: [
    {
      cipher: "GCP_Zq3vAAAAAACm4e+Xn7u/0Q==",
      code: "GBHF01",
      id: "7495540735365777507",
      name: "Harbour & Finch",
      region: "GB",
      seller_type: "LOCAL",
    },
    {
      cipher: "GCP_b81TAAAAAABk2wLr9pYd5A==",
      code: "IEHF02",
      id: "8600001",
      name: "Harbour & Finch Éire",
      region: "IE",
      seller_type: "LOCAL",
    },
    {
      cipher: "GCP_m5JxAAAAAADs7tGf1hQc8w==",
      code: "USHF03",
      id: "8600002",
      name: "Harbour Outlet",
      region: "US",
      seller_type: "CROSS_BORDER",
    },
  ],
};

/** Who answers a creator's link when no seller given is a creator. */
const DEFAULT_CREATOR: SandboxSeller = {
  openId: "7010cAAAAAB7tW1nD4sUeJpL",
  name: null,
  region: "GB",
  userType: CREATOR,
  scopes: ["creator.authorization.info"],
  shops: [],
};

const SCOPE_TEXTS: Readonly<Record<string, string>> = {
  "creator.authorization.info": "See who you are",
  "seller.authorization.info": "See which shops you have",
  "seller.order.info": "Read your orders",
  "seller.product.basic": "Read your products",
  "seller.product.write": "Create and change products",
  "seller.shop.info": "Read your shops' settings",
};

// === Faults

type FaultName = Exclude<SandboxFault, `${string}:${string}`>;

/** Where a fault can happen: before or after the decision, or at a host. */
type FaultPlace = "page" | "redirect" | "token" | "refresh" | "api";

interface Fault {
  name: FaultName;
  value: number;
}

const REDIRECT: FaultPlace[] = ["redirect"];
const TOKEN: FaultPlace[] = ["token"];
const REFRESH: FaultPlace[] = ["refresh"];
const TOKENS: FaultPlace[] = ["token", "refresh"];
const HOSTS: FaultPlace[] = ["token", "refresh", "api"];
const ANYWHERE: FaultPlace[] = ["page", "token", "refresh", "api"];

/** Every fault: where it can happen, and the sentence for `--help`. */
const FAULTS: Readonly<Record<FaultName, [FaultPlace[], string]>> = {
  "deny": [REDIRECT, "the seller denies, whatever button is clicked"],
  "wrong-state": [REDIRECT, "the redirect has another state"],
  "missing-state": [REDIRECT, "the redirect has no state"],
  "duplicate-parameters": [REDIRECT, "code and state come twice"],
  "no-code": [REDIRECT, "the redirect has no code"],
  "auth_code": [REDIRECT, "the code's parameter is named auth_code"],
  "other-error": [REDIRECT, "the redirect says error=server_error"],
  "expired-code": [TOKEN, "36004004, as after 30 minutes"],
  "invalid-code": [TOKEN, "36004004, as for another app's code"],
  "rotated-refresh": [REFRESH, "36004005, as for a replaced refresh token"],
  "expired-refresh": [REFRESH, "36004001, the refresh token is too old"],
  "deauthorized": [HOSTS, "36004005; on the API 105001"],
  "internal-error": [HOSTS, "36009003, worth a retry"],
  "timeout-error": [HOSTS, "36009007, worth a retry"],
  "ip-not-allowed": [HOSTS, "36009033 and the IP allow list"],
  "echo-secret": [HOSTS, "the message repeats the request's secrets"],
  "no-token": [TOKENS, "code 0 without access_token"],
  "no-refresh-token": [TOKENS, "no refresh_token; an old one stays good"],
  "no-expiry": [TOKENS, "the expiry times are missing"],
  "wrong-types": [TOKENS, "members of the wrong types"],
  "rate-limit": [ANYWHERE, "HTTP 429 with Retry-After: 1"],
  "html": [ANYWHERE, "HTTP 200 with an HTML error page"],
  "text-404": [ANYWHERE, "HTTP 404 in plain text"],
  "500": [ANYWHERE, "HTTP 500 in plain text"],
  "503": [ANYWHERE, "HTTP 503 in plain text"],
  "empty": [ANYWHERE, "HTTP 200 with an empty body"],
  "truncated": [ANYWHERE, "the connection ends half-way through the body"],
  "truncated-json": [ANYWHERE, "half of the body, as if it were all"],
  "dropped": [ANYWHERE, "the connection ends without a reply"],
  "redirect": [ANYWHERE, "HTTP 302 to /stolen"],
  "huge": [ANYWHERE, "the reply behind 33 MiB of white space"],
  "never": [ANYWHERE, "no answer at all"],
  "slow": [ANYWHERE, "2 seconds late; slow:MS for another time"],
  "clock": [ANYWHERE, "Date one hour ahead; clock:SECONDS for another"],
};

/** The names of all faults, without the two forms that carry a number. */
export const SANDBOX_FAULTS: readonly SandboxFault[] = Object.keys(
  FAULTS,
) as FaultName[];

/** What a numbered fault means without its number. */
const FAULT_DEFAULTS: Readonly<Record<string, number>> = {
  slow: 2000,
  clock: 3600,
};

/** `setTimeout` and `Date` both stay sane within this. */
const MAX_FAULT_VALUE = 2 ** 31 - 1;

function parseFault(text: string): Fault {
  const [, name = "", number] = /^(.*?)(?::(-?\d+))?$/.exec(text) ?? [];
  const numbered = Object.hasOwn(FAULT_DEFAULTS, name);
  if (!Object.hasOwn(FAULTS, name) || (number !== undefined && !numbered)) {
    throw new RangeError(
      `Unknown fault "${text}"; known are ${SANDBOX_FAULTS.join(", ")}`,
    );
  }
  const value = Number(number ?? FAULT_DEFAULTS[name] ?? 0);
  const lowest = name === "clock" ? -MAX_FAULT_VALUE : 0;
  if (value < lowest || value > MAX_FAULT_VALUE) {
    throw new RangeError(`Fault "${text}" is out of range`);
  }
  return { name: name as FaultName, value };
}

/**
 * Turns `slow,503,html` into what happens to one attempt after the other:
 * slow and 503, then html. Slow and clock only colour the next.
 */
function parseFaults(text: string): Fault[][] {
  const steps: Fault[][] = [];
  let open = false;
  for (const part of text.split(",").filter((part) => part !== "")) {
    const fault = parseFault(part);
    if (open) steps.at(-1)?.push(fault);
    else steps.push([fault]);
    open = Object.hasOwn(FAULT_DEFAULTS, fault.name);
  }
  return steps;
}

function happensAt(fault: Fault, place: FaultPlace): boolean {
  return FAULTS[fault.name][0].includes(place);
}

function queueFault(
  world: World,
  where: SandboxWhere,
  name: string,
  times: number,
): void {
  const fault = parseFault(name);
  const queue = world.queues[where];
  if (queue === undefined) {
    throw new RangeError(
      `Unknown place "${where}"; known are authorize, token, refresh, api`,
    );
  }
  if (where !== "authorize" && !happensAt(fault, where)) {
    throw new RangeError(`Fault "${name}" cannot happen at "${where}"`);
  }
  if (!(times >= 1)) {
    throw new RangeError(`Cannot fail ${times} times: at least 1 is needed`);
  }
  queue.push({ fault, left: times });
}

function takeQueued(
  world: World,
  where: SandboxWhere,
  accepts: (fault: Fault) => boolean,
): Fault[] {
  const first = world.queues[where][0];
  if (first === undefined || !accepts(first.fault)) return [];
  first.left -= 1;
  if (first.left < 1) world.queues[where].shift();
  return [first.fault];
}

/** The faults this request suffers; each is used up by being asked for. */
function takeFaults(world: World, call: Call): Fault[] {
  const { where, query } = call;
  if (where === "authorize") {
    const page = call.method !== "POST";
    return takeQueued(world, where, (one) => happensAt(one, "page") === page);
  }
  const queued = takeQueued(world, where, () => true);
  if (queued.length > 0) return queued;
  if (where === "token") {
    return world.codes.get(query.get("auth_code") ?? "")?.steps.shift() ?? [];
  }
  if (where === "refresh") {
    return world.refreshTokens.get(query.get("refresh_token") ?? "")?.faults ??
      [];
  }
  return [];
}

// === The world: what the sandbox remembers

interface Code {
  seller: SandboxSeller;
  /** Seconds. */
  expires: number;
  /** Faults of the exchange, one step an attempt. */
  steps: Fault[][];
  /** Faults of every refresh of the tokens this code brings. */
  refreshFaults: Fault[];
}

/** A seller's consent: it lives as long as its refresh tokens. */
interface Grant {
  seller: SandboxSeller;
  expires: number;
  ended: boolean;
  faults: Fault[];
}

interface AccessToken {
  grant: Grant;
  expires: number;
}

type Settings = Required<Omit<SandboxOptions, "port" | "sellers">>;

interface World {
  readonly settings: Settings;
  readonly accounts: readonly SandboxSeller[];
  readonly codes: Map<string, Code>;
  readonly accessTokens: Map<string, AccessToken>;
  readonly refreshTokens: Map<string, Grant>;
  readonly queues: Record<SandboxWhere, { fault: Fault; left: number }[]>;
  readonly requests: SandboxRequest[];
  readonly counts: Map<string, number>;
  readonly stopping: AbortController;
  origin: string;
  codesIssued: number;
}

function createWorld(options: SandboxOptions): World {
  const { sellers = [DEFAULT_SELLER] } = options;
  if (sellers.length === 0) {
    throw new RangeError("Cannot start the sandbox: it needs a seller");
  }
  const creators = sellers.some((one) => one.userType === CREATOR);
  return {
    settings: settingsOf(options),
    accounts: creators ? sellers : [...sellers, DEFAULT_CREATOR],
    codes: new Map(),
    accessTokens: new Map(),
    refreshTokens: new Map(),
    queues: { authorize: [], token: [], refresh: [], api: [] },
    requests: [],
    counts: new Map(),
    stopping: new AbortController(),
    origin: "",
    codesIssued: 0,
  };
}

function settingsOf(options: SandboxOptions): Settings {
  const { fault = "" } = options;
  parseFaults(fault);
  return {
    appKey: options.appKey ?? DEFAULT_APP.appKey,
    appSecret: options.appSecret ?? DEFAULT_APP.appSecret,
    serviceId: options.serviceId ?? DEFAULT_APP.serviceId,
    redirectUrl: checkedRedirectUrl(
      options.redirectUrl ?? "http://localhost:3017/",
    ),
    now: options.now ?? Date.now,
    clockOffset: options.clockOffset ?? 0,
    accessTokenLife: options.accessTokenLife ?? 7 * DAY,
    refreshTokenLife: options.refreshTokenLife ?? 36_500 * DAY,
    codeLife: options.codeLife ?? 1800,
    rotate: options.rotate ?? true,
    latency: options.latency ?? 0,
    fault,
    onRequest: options.onRequest ?? (() => {}),
  };
}

function checkedRedirectUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "http:" && url?.protocol !== "https:") {
    throw new TypeError(`Not an http or https redirect URL: "${text}"`);
  }
  url.hash = "";
  return url.href;
}

/** Milliseconds on the sandbox's clock. */
function clock(world: World): number {
  return world.settings.now() + world.settings.clockOffset * 1000;
}

function seconds(world: World): number {
  return Math.floor(clock(world) / 1000);
}

function newSecret(seller: SandboxSeller, bytes: number): string {
  const prefix = seller.region === "US" ? "TTP_" : "ROW_";
  return prefix + randomBytes(bytes).toString("base64url");
}

/** Sets a member; the oldest one makes room for it. */
function keep<T>(map: Map<string, T>, key: string, value: T): void {
  map.set(key, value);
  if (map.size <= KEPT_ENTRIES) return;
  for (const oldest of map.keys()) return void map.delete(oldest);
}

function accountAt(world: World, index: number): SandboxSeller {
  const seller = world.accounts[index];
  if (seller === undefined) throw new RangeError(`No seller ${index} exists`);
  return seller;
}

/** Redirect faults in `steps` have had their turn and are left out. */
function issueCode(
  world: World,
  seller: SandboxSeller,
  steps: Fault[][],
): string {
  const ending = CODE_ENDINGS[world.codesIssued % CODE_ENDINGS.length] ?? "";
  world.codesIssued += 1;
  const code = newSecret(seller, 24) + ending;
  const atToken = steps.map((step) =>
    step.filter((fault) => happensAt(fault, "token"))
  );
  keep(world.codes, code, {
    seller,
    expires: seconds(world) + world.settings.codeLife,
    steps: atToken.filter((step) => step.length > 0),
    refreshFaults: steps.flat().filter((fault) =>
      happensAt(fault, "refresh") && !happensAt(fault, "token")
    ),
  });
  return code;
}

function endGrants(world: World, openId: string): void {
  if (!world.accounts.some((seller) => seller.openId === openId)) {
    throw new RangeError(`No seller has the open_id "${openId}"`);
  }
  const grants = [
    ...world.refreshTokens.values(),
    ...[...world.accessTokens.values()].map((token) => token.grant),
  ];
  for (const grant of grants) {
    if (grant.seller.openId === openId) grant.ended = true;
  }
}

// === Replies

interface Reply {
  status: number;
  type: string;
  body: string;
  headers?: Record<string, string>;
}

/** A request as the handlers see it. */
interface Call {
  readonly where: SandboxWhere;
  readonly method: string;
  /** Path and query, as they came. */
  readonly target: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Record<string, string>;
  readonly bytes: Buffer;
}

function requestId(world: World): string {
  const time = new Date(clock(world)).toISOString().replace(/\D/g, "");
  const random = randomBytes(10).toString("hex").toUpperCase();
  return time.slice(0, 14) + random;
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

function success(world: World, data: string): Reply {
  const body = envelope(world, 0, "success", data);
  return { status: 200, type: JSON_TYPE, body };
}

/** The token host refuses with HTTP 200, the API with a status. */
function refusal(
  world: World,
  call: Call,
  code: number,
  message: string,
): Reply {
  const status = call.where === "api" ? apiStatus(code) : 200;
  return { status, type: JSON_TYPE, body: envelope(world, code, message) };
}

function apiStatus(code: number): number {
  if (code === 36009009) return 404;
  return [105001, 105002, 105005, 36009005].includes(code) ? 401 : 400;
}

function text(status: number, body: string): Reply {
  return { status, type: "text/plain; charset=utf-8", body };
}

/** Faults that answer in place of the handler, which never sees the call. */
const CANNED: Partial<Record<FaultName, (w: World, call: Call) => Reply>> = {
  "html": () => ({
    status: 200,
    type: "text/html; charset=utf-8",
    body: "<!doctype html><title>Error</title><h1>Something went wrong</h1>",
  }),
  "text-404": () => text(404, "404 page not found"),
  "500": () => text(500, "Internal Server Error"),
  "503": () => text(503, "Service Unavailable"),
  "empty": () => ({ status: 200, type: JSON_TYPE, body: "" }),
  "redirect": (world) => ({
    ...text(302, ""),
    headers: { location: world.origin + STOLEN_PATH },
  }),
  "rate-limit": (world) => ({
    status: 429,
    type: JSON_TYPE,
    body: envelope(world, 36009002, "too many requests"),
    headers: { "retry-after": "1" },
  }),
  "expired-code": spendCode,
  "invalid-code": spendCode,
  "rotated-refresh": (w, call) => refusal(w, call, ...NO_RECORD),
  "expired-refresh": (w, call) => refusal(w, call, ...REFRESH_EXPIRED),
  "deauthorized": (w, call) =>
    refusal(w, call, ...(call.where === "api" ? TOKEN_INVALID : NO_RECORD)),
  "internal-error": (w, call) => refusal(w, call, 36009003, "internal error"),
  "timeout-error": (w, call) => refusal(w, call, 36009007, "timeout"),
  "ip-not-allowed": (w, call) =>
    refusal(
      w,
      call,
      36009033,
      "the IP 203.0.113.7 is not in the IP allow list of this app",
    ),
  "echo-secret": (w, call) => refusal(w, call, 36009004, echoOf(w, call)),
};

function spendCode(world: World, call: Call): Reply {
  world.codes.delete(call.query.get("auth_code") ?? "");
  return refusal(world, call, ...INVALID_CODE);
}

function echoOf(world: World, call: Call): string {
  const token = call.headers["x-tts-access-token"];
  return `cannot handle ${world.origin}${call.target}` +
    (token === undefined ? "" : ` with x-tts-access-token: ${token}`);
}

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

// === Token host

type Refusal = [code: number, message: string];

const INVALID_CODE: Refusal = [36004004, "invalid auth code"];
const NO_RECORD: Refusal = [36004005, "can not find related auth record"];
const REFRESH_EXPIRED: Refusal = [36004001, "rt has expired"];
const TOKEN_INVALID: Refusal = [105001, "access token is invalid"];
const TOKEN_EXPIRED: Refusal = [
  105002,
  "access token is expired, please refresh it",
];

/** An integer no JavaScript number can hold: see that it survives. */
const EXTRA_MEMBER = `"auth_record_id":7495540735365777507`;

/** Judges the app and the grant type; TikTok's codes for these are unknown. */
function appRefusal(
  world: World,
  call: Call,
  grantType: string,
): Refusal | undefined {
  const { query } = call;
  const { appKey, appSecret } = world.settings;
  if (query.get("app_key") !== appKey) return [36004002, "invalid app_key"];
  if (!sameText(query.get("app_secret") ?? "", appSecret)) {
    return [36004003, "invalid app_secret"];
  }
  if (query.get("grant_type") !== grantType) {
    return [36009004, `invalid grant_type, ${grantType} is wanted`];
  }
}

function exchange(world: World, call: Call, faults: Set<FaultName>): Reply {
  const refused = appRefusal(world, call, "authorized_code");
  if (refused !== undefined) return refusal(world, call, ...refused);
  const given = call.query.get("auth_code") ?? "";
  const code = world.codes.get(given);
  world.codes.delete(given);
  if (code === undefined || code.expires <= seconds(world)) {
    return refusal(world, call, ...INVALID_CODE);
  }
  const grant: Grant = {
    seller: code.seller,
    expires: seconds(world) + Math.floor(world.settings.refreshTokenLife),
    ended: false,
    faults: code.refreshFaults,
  };
  return tokenReply(world, grant, newRefreshToken(world, grant), faults);
}

function refresh(world: World, call: Call, faults: Set<FaultName>): Reply {
  const refused = appRefusal(world, call, "refresh_token");
  if (refused !== undefined) return refusal(world, call, ...refused);
  const given = call.query.get("refresh_token") ?? "";
  const grant = world.refreshTokens.get(given);
  if (grant === undefined || grant.ended) {
    return refusal(world, call, ...NO_RECORD);
  }
  if (grant.expires <= seconds(world)) {
    return refusal(world, call, ...REFRESH_EXPIRED);
  }
  if (!world.settings.rotate) return tokenReply(world, grant, given, faults);
  endAccessTokens(world, grant);
  // A client that is given no new refresh token must keep the old one, so
  // the old one must go on working.
  if (faults.has("no-refresh-token")) {
    return tokenReply(world, grant, given, faults);
  }
  world.refreshTokens.delete(given);
  return tokenReply(world, grant, newRefreshToken(world, grant), faults);
}

function newRefreshToken(world: World, grant: Grant): string {
  const token = newSecret(grant.seller, 36);
  keep(world.refreshTokens, token, grant);
  return token;
}

function endAccessTokens(world: World, grant: Grant): void {
  for (const [token, access] of world.accessTokens) {
    if (access.grant === grant) world.accessTokens.delete(token);
  }
}

function tokenReply(
  world: World,
  grant: Grant,
  refreshToken: string,
  faults: Set<FaultName>,
): Reply {
  const { seller } = grant;
  const token = newSecret(seller, 48);
  const expires = seconds(world) + Math.floor(world.settings.accessTokenLife);
  keep(world.accessTokens, token, { grant, expires });
  const data = spoilData({
    access_token: token,
    access_token_expire_in: expires,
    refresh_token: refreshToken,
    refresh_token_expire_in: grant.expires,
    open_id: seller.openId,
    seller_name: seller.name,
    seller_base_region: seller.region,
    user_type: seller.userType,
    granted_scopes: seller.scopes,
  }, faults);
  return success(
    world,
    `${JSON.stringify(data).slice(0, -1)},${EXTRA_MEMBER}}`,
  );
}

function spoilData(
  data: Record<string, unknown>,
  faults: Set<FaultName>,
): Record<string, unknown> {
  if (faults.has("no-token")) delete data.access_token;
  if (faults.has("no-refresh-token")) delete data.refresh_token;
  if (faults.has("no-expiry")) {
    delete data.access_token_expire_in;
    delete data.refresh_token_expire_in;
  }
  if (!faults.has("wrong-types")) return data;
  return {
    ...data,
    access_token: 12345,
    access_token_expire_in: "soon",
    refresh_token: null,
    refresh_token_expire_in: [],
    user_type: "seller",
    granted_scopes: "all",
  };
}

// === Signed API

interface Route {
  method: string;
  path: string;
  scope?: string;
  /** Whether a `shop_cipher` is needed. */
  cipher: boolean;
  run: (world: World, call: Call, seller: SandboxSeller) => Reply;
}

const ROUTES: readonly Route[] = [
  {
    method: "GET",
    path: "/authorization/202309/shops",
    scope: "seller.authorization.info",
    cipher: false,
    run: (world, _call, { shops }) => success(world, JSON.stringify({ shops })),
  },
  {
    method: "GET",
    path: "/authorization/202405/category_assets",
    cipher: false,
    run: categoryAssets,
  },
  {
    method: "POST",
    path: "/order/202309/orders/search",
    scope: "seller.order.info",
    cipher: true,
    run: searchOrders,
  },
];

/** Signature first, then path and method, then token, scope and cipher. */
function api(world: World, call: Call): Reply {
  const unsigned = signRefusal(world, call);
  if (unsigned !== undefined) return refusal(world, call, ...unsigned);
  const route = routeOf(call);
  if (Array.isArray(route)) return refusal(world, call, ...route);
  const seller = sellerOf(world, call);
  if (Array.isArray(seller)) return refusal(world, call, ...seller);
  const denied = accessRefusal(call, route, seller);
  if (denied !== undefined) return refusal(world, call, ...denied);
  return route.run(world, call, seller);
}

function signRefusal(world: World, call: Call): Refusal | undefined {
  const { query } = call;
  if (query.get("app_key") !== world.settings.appKey) {
    return [36009004, "app_key is missing or invalid"];
  }
  const timestamp = query.get("timestamp") ?? "";
  const age = seconds(world) - Number(timestamp);
  if (!/^\d+$/.test(timestamp) || age > 300 || age < -30) {
    return [36009004, "timestamp is missing, invalid or expired"];
  }
  const sign = query.get("sign");
  if (sign === null) return [36009004, "sign is missing"];
  if (!sameText(sign, signatureOf(world.settings.appSecret, call))) {
    return [106001, "sign is invalid"];
  }
}

/** Signs like the official guide; its vectors are in the tests. */
function signatureOf(secret: string, call: Call): string {
  const pairs = [...call.query]
    .filter(([key]) => key !== "sign" && key !== "access_token")
    .sort(([a], [b]) => a < b ? -1 : Number(a > b));
  const multipart = call.headers["content-type"]?.toLowerCase()
    .startsWith("multipart/form-data");
  const unsigned = call.method === "GET" || multipart;
  return createHmac("sha256", secret)
    .update(secret + call.path + pairs.flat().join(""))
    .update(unsigned ? "" : call.bytes)
    .update(secret)
    .digest("hex");
}

/** Compares in constant time; hashing first makes the lengths equal. */
function sameText(one: string, other: string): boolean {
  const [a, b] = [one, other].map((text) =>
    createHash("sha256").update(text).digest()
  ) as [Buffer, Buffer];
  return timingSafeEqual(a, b);
}

function routeOf(call: Call): Route | Refusal {
  const { method, path } = call;
  if (/^\/echo\/202309\/./.test(path)) {
    return { method, path, cipher: false, run: echo };
  }
  const route = ROUTES.find((route) => route.path === path);
  if (route?.method === method) return route;
  if (route !== undefined) return [36009010, "method is not supported"];
  const version = /\/\d{6}\//;
  const bare = path.replace(version, "/");
  return ROUTES.some((other) => other.path.replace(version, "/") === bare)
    ? [36009014, "version is not supported"]
    : [36009009, "path is invalid"];
}

function sellerOf(world: World, call: Call): SandboxSeller | Refusal {
  const token = call.headers["x-tts-access-token"];
  if (token === undefined) {
    return [36009005, "x-tts-access-token header is missing"];
  }
  const access = world.accessTokens.get(token);
  if (access === undefined || access.grant.ended) return TOKEN_INVALID;
  if (access.expires <= seconds(world)) return TOKEN_EXPIRED;
  return access.grant.seller;
}

function accessRefusal(
  call: Call,
  route: Route,
  seller: SandboxSeller,
): Refusal | undefined {
  if (route.scope !== undefined && !seller.scopes.includes(route.scope)) {
    return [105005, `access denied: ${route.scope} was not granted`];
  }
  const cipher = call.query.get("shop_cipher");
  if (call.path.startsWith("/authorization/") && cipher !== null) {
    return [36009004, "shop_cipher is not wanted here"];
  }
  if (!route.cipher) return;
  if (cipher === null) return [106013, "shop_cipher is missing"];
  if (!seller.shops.some((shop) => shop.cipher === cipher)) {
    return [36009004, "shop_cipher is invalid"];
  }
}

function categoryAssets(
  world: World,
  call: Call,
  seller: SandboxSeller,
): Reply {
  if (seller.userType !== PARTNER) {
    return refusal(world, call, 105005, "access denied: partners only");
  }
  const assets = seller.shops.map((shop) => ({
    cipher: shop.cipher,
    target_market: shop.region,
    category: { id: "600001", name: "Home Supplies" },
  }));
  return success(world, JSON.stringify({ category_assets: assets }));
}

/** Replies what came, but for the sign, which nobody should log. */
function echo(world: World, call: Call): Reply {
  const query = Object.fromEntries(call.query);
  delete query.sign;
  return success(
    world,
    JSON.stringify({
      method: call.method,
      path: call.path,
      query,
      body: call.bytes.toString(),
      content_type: call.headers["content-type"] ?? null,
    }),
  );
}

function searchOrders(world: World, call: Call): Reply {
  const size = Number(call.query.get("page_size") ?? 20);
  const start = pageStart(call.query.get("page_token") ?? "");
  if (!Number.isInteger(size) || size < 1 || size > 100) {
    return refusal(world, call, 36009004, "page_size must be 1 to 100");
  }
  if (start === undefined) {
    return refusal(world, call, 36009004, "page_token is invalid");
  }
  if (!isJson(call.bytes.toString() || "{}")) {
    return refusal(world, call, 36009004, "body is not JSON");
  }
  const end = Math.min(start + size, ORDERS_PER_SHOP);
  const orders = Array.from(
    { length: end - start },
    (_, index) => orderAt(world, start + index),
  );
  const next = end < ORDERS_PER_SHOP ? pageToken(end) : "";
  return success(
    world,
    JSON.stringify({
      orders,
      next_page_token: next,
      total_count: ORDERS_PER_SHOP,
    }),
  );
}

/** Base64 that ends in `=`, so that a client must encode it. */
function pageToken(start: number): string {
  return Buffer.from(`after:${start}`).toString("base64");
}

function pageStart(token: string): number | undefined {
  if (token === "") return 0;
  const start = Number(Buffer.from(token, "base64").toString().slice(6));
  const known = token === pageToken(start) && start < ORDERS_PER_SHOP;
  return known ? start : undefined;
}

function orderAt(world: World, index: number): Record<string, unknown> {
  return {
    id: `5766536881352${String(index + 1).padStart(5, "0")}`,
    status: index % 2 === 0 ? "AWAITING_SHIPMENT" : "DELIVERED",
    create_time: seconds(world) - index * 3600,
    payment: { currency: "GBP", total_amount: `${index + 9}.50` },
  };
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// === Authorize page

/** Shows the page, or sends the browser back after the person's click. */
function authorize(world: World, call: Call, faults: Fault[]): Reply {
  const parameter = APP_PARAMETER.get(call.path) ?? "service_id";
  const { appKey, serviceId } = world.settings;
  const wanted = parameter === "app_key" ? appKey : serviceId;
  if (!["GET", "HEAD", "POST"].includes(call.method)) {
    const reply = problemPage(405, "Only GET and POST work here", "");
    return {
      ...reply,
      headers: { ...reply.headers, allow: "GET, HEAD, POST" },
    };
  }
  if (call.query.get(parameter) !== wanted) {
    const advice = `The ${parameter} of the sandbox's app is ${wanted}.`;
    return problemPage(404, "This service does not exist", advice);
  }
  try {
    const steps = parseFaults(call.query.get("fault") ?? world.settings.fault);
    const form = new URLSearchParams(
      call.method === "POST" ? call.bytes.toString() : "",
    );
    const seller = chosenSeller(world, call, form.get("seller"));
    if (call.method !== "POST") return consentPage(world, call, seller, steps);
    return decide(world, call, seller, form, [faults, ...steps]);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return problemPage(400, "This link cannot work", error.message);
  }
}

/** The accounts a link can mean: creators have a page of their own. */
function candidates(world: World, call: Call): number[] {
  const creators = call.path === CREATOR_PATH;
  const all = [...world.accounts.keys()];
  const fitting = all.filter((index) =>
    (accountAt(world, index).userType === CREATOR) === creators
  );
  return fitting.length > 0 ? fitting : all;
}

function chosenSeller(
  world: World,
  call: Call,
  clicked: string | null,
): number {
  const named = clicked ?? call.query.get("seller");
  const index = named === null
    ? candidates(world, call)[0] ?? 0
    : /^\d{1,6}$/.test(named)
    ? Number(named)
    : -1;
  accountAt(world, index);
  return index;
}

function decide(
  world: World,
  call: Call,
  index: number,
  form: URLSearchParams,
  steps: Fault[][],
): Reply {
  const decision = form.get("decision");
  if (decision !== "approve" && decision !== "deny") {
    return problemPage(400, "Nothing was decided", "Go back and choose.");
  }
  const names = new Set(steps.flat().map((fault) => fault.name));
  if (decision === "deny") names.add("deny");
  const seller = accountAt(world, index);
  const pairs = spoilRedirect(
    redirectPairs(world, call, seller, names, steps),
    names,
  );
  return {
    status: 302,
    type: "text/plain; charset=utf-8",
    body: "",
    headers: {
      ...PRIVATE_HEADERS,
      location: withQuery(world.settings.redirectUrl, pairs),
    },
  };
}

type Pairs = [name: string, value: string][];

function redirectPairs(
  world: World,
  call: Call,
  seller: SandboxSeller,
  faults: Set<FaultName>,
  steps: Fault[][],
): Pairs {
  const state = call.query.get("state");
  const end: Pairs = state === null ? [] : [["state", state]];
  if (faults.has("deny")) {
    return [["code", "null"], ["error", "auth_denied"], ...end];
  }
  if (faults.has("other-error")) return [["error", "server_error"], ...end];
  return [
    ["app_key", world.settings.appKey],
    ["code", issueCode(world, seller, steps)],
    ["locale", "en"],
    ["shop_region", seller.region],
    ...end,
  ];
}

function spoilRedirect(pairs: Pairs, faults: Set<FaultName>): Pairs {
  let spoilt = pairs;
  if (faults.has("no-code")) {
    spoilt = spoilt.filter(([name]) => name !== "code");
  }
  if (faults.has("missing-state")) {
    spoilt = spoilt.filter(([name]) => name !== "state");
  }
  if (faults.has("wrong-state")) {
    const state = randomBytes(32).toString("base64url");
    spoilt = spoilt.map((
      [name, value],
    ) => [name, name === "state" ? state : value]);
  }
  if (faults.has("auth_code")) {
    spoilt = spoilt.map((
      [name, value],
    ) => [name === "code" ? "auth_code" : name, value]);
  }
  if (!faults.has("duplicate-parameters")) return spoilt;
  const twice = spoilt.filter(([name]) => /^(auth_)?code$|^state$/.test(name));
  return [...spoilt, ...twice];
}

/** Leaves the URL's own query exactly as it is. */
function withQuery(url: string, pairs: Pairs): string {
  const query = pairs.map(([name, value]) =>
    `${encodeURIComponent(name)}=${encodeURIComponent(value)}`
  ).join("&");
  if (query === "") return url;
  return url + (url.includes("?") ? "&" : "?") + query;
}

// === HTML

const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #f3f4f6; --card: #fff; --line: #d5d9e0; --text: #171a20;
  --quiet: #555d6b; --accent: #0b6b63; --on-accent: #fff;
  --note: #fff3d1; --on-note: #5a4200;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #101317; --card: #191d23; --line: #363d48; --text: #eceff3;
    --quiet: #a5aebb; --accent: #63d9cb; --on-accent: #06211e;
    --note: #362c12; --on-note: #ffe2a1;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 1rem/1.55 system-ui, sans-serif;
}
.note {
  margin: 0; padding: .65rem 1rem; text-align: center;
  background: var(--note); color: var(--on-note);
}
main {
  max-width: 33rem; margin: clamp(1rem, 6vh, 4.5rem) auto; width: 92%;
  padding: clamp(1.25rem, 5vw, 2.5rem); background: var(--card);
  border: 1px solid var(--line); border-radius: 1rem;
}
h1 {
  margin: 0 0 .5rem; font-size: 1.6rem; line-height: 1.25;
  letter-spacing: -.015em; text-wrap: balance;
}
h2, legend { margin: 0; padding: 0; font-size: 1rem; font-weight: 650; }
section, fieldset { margin: 1.5rem 0 0; padding: 0; border: 0; min-width: 0; }
p { margin: 0; overflow-wrap: anywhere; }
.quiet, dt, li span { color: var(--quiet); }
ul { margin: .4rem 0 0; padding: 0; list-style: none; }
li { padding: .5rem 0; border-top: 1px solid var(--line); }
li:first-child { border-top: 0; }
li span { display: block; font-size: .875rem; overflow-wrap: anywhere; }
label {
  display: flex; gap: .75rem; margin-top: .6rem; padding: .75rem 1rem;
  border: 1px solid var(--line); border-radius: .6rem; cursor: pointer;
}
label:has(:checked) { border-color: var(--accent); }
label div { flex: 1; min-width: 0; overflow-wrap: anywhere; }
input { accent-color: var(--accent); width: 1.1rem; flex: none; }
code { font: .875em ui-monospace, monospace; overflow-wrap: anywhere; }
.choice { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 2rem; }
button {
  flex: 1 1 10rem; padding: .8rem 1.25rem; font: inherit; font-weight: 650;
  border: 1px solid var(--quiet); border-radius: .6rem; cursor: pointer;
  background: transparent; color: inherit;
}
button:first-child {
  background: var(--accent); border-color: var(--accent);
  color: var(--on-accent);
}
button:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; }
footer { margin-top: 1.25rem; font-size: .875rem; color: var(--quiet); }
`;

const PRIVATE_HEADERS = {
  "cache-control": "no-store",
  // Not no-referrer: the page's own form would come with the Origin "null".
  "referrer-policy": "same-origin",
  "x-content-type-options": "nosniff",
};

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
}

/** `body` is HTML. form-action is left out: it would block the redirect. */
function page(status: number, title: string, body: string): Reply {
  const hash = createHash("sha256").update(STYLE).digest("base64");
  return {
    status,
    type: "text/html; charset=utf-8",
    headers: {
      ...PRIVATE_HEADERS,
      "content-security-policy":
        `default-src 'none'; style-src 'sha256-${hash}'; img-src data:; ` +
        "base-uri 'none'; frame-ancestors 'none'",
    },
    body: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)} (sandbox, not TikTok)</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<header class="note"><strong>Sandbox, not TikTok.</strong>
Nothing you do here reaches TikTok.</header>
<main>
<h1>${escapeHtml(title)}</h1>
${body}
</main>
</body>
</html>
`,
  };
}

function problemPage(status: number, title: string, advice: string): Reply {
  return page(status, title, `<p class="quiet">${escapeHtml(advice)}</p>`);
}

function consentPage(
  world: World,
  call: Call,
  chosen: number,
  steps: Fault[][],
): Reply {
  const choices = candidates(world, call);
  const indices = choices.includes(chosen) ? choices : [chosen];
  const sellers = indices.map((index) => accountAt(world, index));
  const app = call.path === SELLER_PATH
    ? `service id <code>${escapeHtml(world.settings.serviceId)}</code>`
    : `key <code>${escapeHtml(world.settings.appKey)}</code>`;
  const body = `<p class="quiet">The app with the ${app} asks for access.</p>
<form method="post" action="${escapeHtml(call.target)}">
${accountSection(world, indices, chosen)}
${scopeSection(new Set(sellers.flatMap((seller) => seller.scopes)))}
<div class="choice">
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</div>
</form>
<footer>${footerText(world, steps)}</footer>`;
  return page(200, "Let this app use your account?", body);
}

function accountSection(
  world: World,
  indices: number[],
  chosen: number,
): string {
  if (indices.length === 1) {
    return `<section>
<h2>Account</h2>
${accountText(accountAt(world, chosen))}
<input type="hidden" name="seller" value="${chosen}">
</section>`;
  }
  const labels = indices.map((index) =>
    `<label><input type="radio" name="seller" value="${index}"${
      index === chosen ? " checked" : ""
    }><div>${accountText(accountAt(world, index))}</div></label>`
  );
  return `<fieldset>
<legend>Choose an account</legend>
${labels.join("\n")}
</fieldset>`;
}

function accountText(seller: SandboxSeller): string {
  const kinds: Record<number, string> = {
    0: "seller",
    [CREATOR]: "creator",
    [PARTNER]: "partner",
  };
  const kind = kinds[seller.userType] ?? `type ${seller.userType}`;
  const shops = seller.shops.map((shop) => `${shop.name} (${shop.region})`);
  const list = shops.length === 0 ? "" : `: ${shops.join(", ")}`;
  return `<p>${escapeHtml(seller.name ?? "Unnamed account")}</p>
<p class="quiet">${escapeHtml(`${seller.region} ${kind}${list}`)}</p>`;
}

function scopeSection(scopes: Set<string>): string {
  if (scopes.size === 0) return "";
  return `<section>
<h2>It will be able to</h2>
<ul>${[...scopes].map(scopeItem).join("")}</ul>
</section>`;
}

function scopeItem(scope: string): string {
  const text = SCOPE_TEXTS[scope];
  const name = escapeHtml(scope);
  return text === undefined
    ? `<li><code>${name}</code></li>`
    : `<li>${escapeHtml(text)}<span><code>${name}</code></span></li>`;
}

function footerText(world: World, steps: Fault[][]): string {
  const back = escapeHtml(world.settings.redirectUrl);
  const names = steps.flat().map(faultText).join(", ");
  return `<p>Either button leads to <code>${back}</code></p>` +
    (names === "" ? "" : `<p>Faults to come: ${escapeHtml(names)}</p>`);
}

function faultText(fault: Fault): string {
  const numbered = Object.hasOwn(FAULT_DEFAULTS, fault.name);
  return numbered ? `${fault.name}:${fault.value}` : fault.name;
}

// === Server

function whereOf(path: string): SandboxWhere {
  if (APP_PARAMETER.has(path)) return "authorize";
  if (path === TOKEN_PATH) return "token";
  return path === REFRESH_PATH ? "refresh" : "api";
}

async function serve(
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
    record.status = reply.status;
    send(world, response, reply, faults);
  }
  world.settings.onRequest(record);
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

/** `undefined` where no reply is to be sent. */
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
function handleError(response: ServerResponse, error: unknown): void {
  const { name, code } = error as { name?: string; code?: string };
  if (name === "AbortError" || code === "ECONNRESET" || response.destroyed) {
    response.destroy();
    return;
  }
  console.error("The sandbox failed:", error);
  if (!response.headersSent) response.writeHead(500);
  response.end();
}

async function listen(server: Server, port: number): Promise<number> {
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

function stopServer(world: World, server: Server): Promise<void> {
  world.stopping.abort();
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

// === The sandbox

/**
 * Starts a sandbox on 127.0.0.1 and resolves once it listens. Stop it with
 * {@linkcode Sandbox.stop} or `await using`.
 *
 * @throws {TypeError} for a redirect URL that is not http or https
 * @throws {RangeError} for an impossible port, an unknown fault, no sellers
 * @throws {Error} if the port cannot be listened on; `cause` tells why
 */
export async function startSandbox(
  options: SandboxOptions = {},
): Promise<Sandbox> {
  const { port = 0 } = options;
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new RangeError(`Not a port: "${port}"; use 0 to 65535`);
  }
  const world = createWorld(options);
  const server = createServer((request, response) => {
    serve(world, request, response).catch((error) =>
      handleError(response, error)
    );
  });
  const actual = await listen(server, port);
  world.origin = `http://127.0.0.1:${actual}`;
  return sandboxOf(world, server, actual);
}

function sandboxOf(world: World, server: Server, port: number): Sandbox {
  const { appKey, appSecret, serviceId, redirectUrl } = world.settings;
  const { origin, requests } = world;
  const stop = () => stopServer(world, server);
  return {
    origin,
    port,
    appKey,
    appSecret,
    serviceId,
    redirectUrl,
    authorizationEndpoint: origin + SELLER_PATH,
    creatorAuthorizationEndpoint: origin + CREATOR_PATH,
    tokenEndpoint: origin + TOKEN_PATH,
    refreshEndpoint: origin + REFRESH_PATH,
    apiEndpoint: origin,
    env: environment(world),
    requests,
    count: (path) => world.counts.get(path) ?? 0,
    fail: (where, fault, times = 1) => queueFault(world, where, fault, times),
    issueCode: (seller = 0, fault = world.settings.fault) =>
      issueCode(world, accountAt(world, seller), parseFaults(fault)),
    approve,
    deauthorize: (openId) => endGrants(world, openId),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function environment(world: World): Record<string, string> {
  const { settings, origin } = world;
  return {
    TIKTOK_SHOP_APP_KEY: settings.appKey,
    TIKTOK_SHOP_APP_SECRET: settings.appSecret,
    TIKTOK_SHOP_SERVICE_ID: settings.serviceId,
    TIKTOK_SHOP_AUTHORIZATION_ENDPOINT: origin + SELLER_PATH,
    TIKTOK_SHOP_TOKEN_ENDPOINT: origin + TOKEN_PATH,
    TIKTOK_SHOP_REFRESH_ENDPOINT: origin + REFRESH_PATH,
    TIKTOK_SHOP_API_ENDPOINT: origin,
  };
}

/**
 * Decides on an authorize page over HTTP, as a person's click would, and
 * returns the redirect URL that the browser would be sent to.
 *
 * @throws {Error} if the page has nothing to approve.
 */
export async function approve(
  authorizeUrl: string,
  decision: SandboxDecision = {},
): Promise<string> {
  const url = new URL(authorizeUrl);
  const { deny = false, seller, fault } = decision;
  if (seller !== undefined) url.searchParams.set("seller", String(seller));
  if (fault !== undefined) url.searchParams.set("fault", fault);
  const shown = await fetch(url, { redirect: "manual" });
  const html = await shown.text();
  const action = /<form method="post" action="([^"]*)"/.exec(html)?.[1];
  if (action === undefined) {
    const title = /<h1>(.*)<\/h1>/.exec(html)?.[1] ?? "no form";
    throw new Error(`Cannot approve: HTTP ${shown.status}, ${title}`);
  }
  const target = action.replace(
    /&#(\d+);/g,
    (_, code) => String.fromCharCode(code),
  );
  const body = new URLSearchParams({ decision: deny ? "deny" : "approve" });
  const answered = await fetch(new URL(target, url), {
    method: "POST",
    body,
    redirect: "manual",
  });
  await answered.body?.cancel();
  const location = answered.headers.get("location");
  if (location !== null) return location;
  throw new Error(`Cannot approve: HTTP ${answered.status} without redirect`);
}

// === Command line

interface Command {
  port: number;
  redirectUrl?: string;
  fault?: string;
  env: boolean;
  help: boolean;
}

const FLAGS = {
  "port": { type: "string" },
  "redirect-url": { type: "string" },
  "fault": { type: "string" },
  "env": { type: "boolean" },
  "help": { type: "boolean" },
} as const;

/** Parses leniently and judges itself: every runtime words errors its way. */
function parseCommand(args: string[]): Command {
  const parsed = parseArgs({
    args,
    options: FLAGS,
    strict: false,
    tokens: true,
  });
  const values = new Map<string, string | undefined>();
  for (const token of parsed.tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") {
      throw new RangeError(`Unexpected argument "${token.value}"`);
    }
    checkFlag(token.name, token.rawName, token.value);
    if (values.has(token.name)) {
      throw new RangeError(`Option "${token.rawName}" is given twice`);
    }
    values.set(token.name, token.value);
  }
  const port = values.get("port") ?? "3018";
  return {
    port: /^\d{1,5}$/.test(port) ? Number(port) : invalidPort(port),
    redirectUrl: values.get("redirect-url"),
    fault: values.get("fault"),
    env: values.has("env"),
    help: values.has("help"),
  };
}

function checkFlag(name: string, raw: string, value?: string): void {
  if (!Object.hasOwn(FLAGS, name) || raw !== `--${name}`) {
    throw new RangeError(`Unknown option "${raw}"; see --help`);
  }
  const wantsValue = FLAGS[name as keyof typeof FLAGS].type === "string";
  if (wantsValue && !value) throw new RangeError(`"${raw}" needs a value`);
  if (!wantsValue && value !== undefined) {
    throw new RangeError(`"${raw}" takes no value`);
  }
}

function invalidPort(port: string): never {
  throw new RangeError(`Not a port: "${port}"; use 0 to 65535`);
}

function helpText(): string {
  const faults = Object.entries(FAULTS)
    .map(([name, [, text]]) => `  ${name.padEnd(21)} ${text}`);
  return `A local TikTok Shop to try a login with. Ctrl-C stops it.

Usage: sandbox.ts [options]

  --port N              port on 127.0.0.1, 0 for any free one (default 3018)
  --redirect-url URL    the app's redirect URL (http://localhost:3017/)
  --fault NAME[,NAME]   a fault for every authorization; names below
  --env                 print NAME=value lines instead of export NAME=value
  --help                this text

Faults, also by "fault=NAME" in the authorize URL:
${faults.join("\n")}
`;
}

const SECRET_PARAMETERS = [
  "access_token",
  "app_secret",
  "auth_code",
  "code",
  "refresh_token",
  "sign",
  "state",
];

function logLine(request: SandboxRequest): string {
  const pairs = Object.entries(request.query).map(([name, value]) =>
    SECRET_PARAMETERS.includes(name)
      ? `${encodeURIComponent(name)}=***`
      : `${encodeURIComponent(name)}=${encodeURIComponent(value)}`
  );
  const query = pairs.length === 0 ? "" : `?${pairs.join("&")}`;
  const faults = request.faults.length === 0
    ? ""
    : ` [${request.faults.join(", ")}]`;
  const status = request.status === 0 ? "no reply" : request.status;
  return `${request.method} ${request.path}${query} ${status}${faults}`;
}

function announce(sandbox: Sandbox, env: boolean): void {
  const link = `${sandbox.authorizationEndpoint}?service_id=` +
    `${sandbox.serviceId}&state=try`;
  const prefix = env ? "" : "export ";
  const lines = Object.entries(sandbox.env)
    .map(([name, value]) => `${prefix}${name}=${value}\n`);
  process.stdout.write(lines.join(""));
  console.error(`
A sandbox, not TikTok, listens on ${sandbox.origin}
Its app redirects to ${sandbox.redirectUrl}
To see the page: ${link}
Paste the lines above into another terminal, or write them to a file with
--env and give that file to the program's --env-file. Ctrl-C stops it.
`);
}

/**
 * The program. Serves until Ctrl-C and resolves to the exit code: 130 then, 0
 * after `--help`, 1 if the port cannot be listened on, 2 for wrong usage.
 */
export async function main(args: string[]): Promise<number> {
  try {
    const { env, help, ...options } = parseCommand(args);
    if (help) {
      process.stdout.write(helpText());
      return 0;
    }
    const sandbox = await startSandbox({
      ...options,
      onRequest: (request) => console.error(logLine(request)),
    });
    const interrupted = once(process, "SIGINT");
    announce(sandbox, env);
    await interrupted;
    await sandbox.stop();
    return 130;
  } catch (error) {
    console.error((error as Error).message);
    return error instanceof TypeError || error instanceof RangeError ? 2 : 1;
  }
}

/** For runtimes without `import.meta.main`; a symlink counts as the file. */
function isProgram(): boolean {
  try {
    const script = realpathSync(process.argv[1] ?? "");
    return script === realpathSync(fileURLToPath(import.meta.url));
  } catch {
    return false;
  }
}

if ((import.meta as { main?: boolean }).main ?? isProgram()) {
  main(process.argv.slice(2)).then((code) => process.exitCode = code);
}
