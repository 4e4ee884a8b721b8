/**
 * The token host, and the answers of faults at either host.
 *
 * @module
 */
import {
  type Call,
  type Grant,
  keep,
  newSecret,
  sameText,
  seconds,
  STOLEN_PATH,
  type World,
} from "./data.ts";
import type { FaultName } from "./faults.ts";
import {
  INVALID_CODE,
  JSON_TYPE,
  NO_RECORD,
  REFRESH_EXPIRED,
  type Refusal,
  refusal,
  type Reply,
  success,
  text,
  TOKEN_ENDED,
} from "./replies.ts";
import { warnOfEnd } from "./webhooks.ts";

// === Faults

const TOO_MANY: Refusal = [
  36009002,
  "Too many requests. You've made too many requests in a short period of " +
  "time.",
];

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
  "rate-limit": (world, call) => ({
    ...refusal(world, call, TOO_MANY),
    status: 429,
    headers: { "retry-after": "1" },
  }),
  "expired-code": spendCode,
  "invalid-code": spendCode,
  "rotated-refresh": (w, call) => refusal(w, call, NO_RECORD),
  "expired-refresh": (w, call) => refusal(w, call, REFRESH_EXPIRED),
  "deauthorized": (w, call) =>
    refusal(w, call, call.where === "api" ? TOKEN_ENDED : NO_RECORD),
  "internal-error": (w, call) => refusal(w, call, [36009003, "internal error"]),
  "timeout-error": (w, call) => refusal(w, call, [36009007, "timeout"]),
  "ip-not-allowed": (w, call) =>
    refusal(w, call, [
      36009033,
      "Access denied. Your IP address is not in the IP allow list configured " +
      "for this app.",
    ]),
  "echo-secret": (w, call) => refusal(w, call, [36009004, echoOf(w, call)]),
};

function spendCode(world: World, call: Call): Reply {
  world.codes.delete(call.query.get("auth_code") ?? "");
  return refusal(world, call, INVALID_CODE);
}

function echoOf(world: World, call: Call): string {
  const token = call.headers["x-tts-access-token"];
  return `cannot handle ${world.origin}${call.target}` +
    (token === undefined ? "" : ` with x-tts-access-token: ${token}`);
}

// === Token host

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
    return [36004003, "invalid app secret"];
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
  if (refused !== undefined) return refusal(world, call, refused);
  const given = call.query.get("auth_code") ?? "";
  const code = world.codes.get(given);
  world.codes.delete(given);
  if (code === undefined || code.expires <= seconds(world)) {
    return refusal(world, call, INVALID_CODE);
  }
  const grant: Grant = {
    seller: code.seller,
    expires: seconds(world) + Math.floor(world.settings.refreshTokenLife),
    ended: false,
    warned: 0,
    faults: code.refreshFaults,
    isAwkward: code.isAwkward,
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
  if (refused !== undefined) return refusal(world, call, refused);
  const given = call.query.get("refresh_token") ?? "";
  const grant = world.refreshTokens.get(given);
  if (grant === undefined || grant.ended) {
    return refusal(world, call, NO_RECORD);
  }
  if (grant.expires <= seconds(world)) {
    return refusal(world, call, REFRESH_EXPIRED);
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
  const token = newSecret(world, grant, 36);
  keep(world.refreshTokens, token, grant);
  return token;
}

function endAccessTokens(world: World, grant: Grant): void {
  for (const access of world.accessTokens.values()) {
    if (access.grant === grant) access.ended = true;
  }
}

function tokenReply(
  world: World,
  grant: Grant,
  refreshToken: string,
  faults: Set<FaultName>,
): Reply {
  const { seller } = grant;
  warnOfEnd(world, grant);
  const token = newSecret(world, grant, 48);
  const expires = seconds(world) + Math.floor(world.settings.accessTokenLife);
  keep(world.accessTokens, token, { grant, expires, ended: false });
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
