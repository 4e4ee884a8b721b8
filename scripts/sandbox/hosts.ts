/**
 * The token host and the signed API.
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
import {
  type Call,
  clock,
  type Grant,
  keep,
  newSecret,
  PARTNER,
  seconds,
  STOLEN_PATH,
  type World,
} from "./data.ts";
import type { FaultName } from "./faults.ts";
import type { SandboxSeller } from "./types.ts";

// === Replies

const JSON_TYPE = "application/json; charset=utf-8";

/** An HTTP answer before any fault spoils it. */
export interface Reply {
  status: number;
  type: string;
  body: string;
  headers?: Record<string, string>;
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

/** An answer in plain text. */
export function text(status: number, body: string): Reply {
  return { status, type: "text/plain; charset=utf-8", body };
}

/** Faults that answer in place of the handler, which never sees the call. */
export const CANNED: Partial<
  Record<FaultName, (w: World, call: Call) => Reply>
> = {
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

/** No JavaScript number can hold this integer; a client must keep it. */
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

/** Exchanges a code for tokens, once. */
export function exchange(
  world: World,
  call: Call,
  faults: Set<FaultName>,
): Reply {
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

/** Refreshes the tokens. */
export function refresh(
  world: World,
  call: Call,
  faults: Set<FaultName>,
): Reply {
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
export function api(world: World, call: Call): Reply {
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

/** Replies with what came, without the sign, which nobody should log. */
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

const ORDERS_PER_SHOP = 25;

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
