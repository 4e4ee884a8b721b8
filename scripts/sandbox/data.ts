/**
 * What the sandbox knows and remembers: its app and accounts, the codes and
 * tokens it has given out, the faults that wait for a request.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { setMaxListeners } from "node:events";
import { type Fault, happensAt, parseFault, parseFaults } from "./faults.ts";
import { type OwnRoute, parseRoutes } from "./routes.ts";
import type {
  SandboxDelivery,
  SandboxOptions,
  SandboxRequest,
  SandboxSeller,
  SandboxWhere,
} from "./types.ts";

// === What it knows

// Where the hosts and the pages are.
export const TOKEN_PATH = "/api/v2/token/get";
export const REFRESH_PATH = "/api/v2/token/refresh";
export const SELLER_PATH = "/open/authorize";
export const CREATOR_PATH = "/alliance/creator/auth";
/** Where the `redirect` fault leads; a client must never come here. */
export const STOLEN_PATH = "/stolen";
/** The parameter by which each authorize page knows the app. */
export const APP_PARAMETER: ReadonlyMap<string, "service_id" | "app_key"> =
  new Map([
    [SELLER_PATH, "service_id"],
    [CREATOR_PATH, "app_key"],
    ["/oauth/authorize", "app_key"],
  ]);

// Values of `user_type`.
export const CREATOR = 1;
export const PARTNER = 3;
const DAY = 86_400;

/** Fault awkward-code: by turns, as each exposes another decoding mistake. */
const AWKWARD_ENDINGS = ["+/==", "%2Fx"];

/** Invented, like everything here; they open nothing. */
const DEFAULT_APP = {
  appKey: "6f3k9d2m1x8q",
  appSecret: "5a6d0b0c5b0e1f7a92c4438be0d1725f6a3e9c81",
  serviceId: "7412345678901234567",
};

/** What a client may take for the app's secret, or kept from another run. */
export function otherSecrets(settings: Settings): string[] {
  const { appKey, serviceId, appSecret } = settings;
  return [DEFAULT_APP.appSecret, appKey, serviceId]
    .filter((secret) => secret !== appSecret);
}

export const DEFAULT_SELLER: SandboxSeller = {
  openId: "7010aAAAAAAQ5R2hZ0fV3kXw",
  name: "Harbour & Finch",
  region: "GB",
  userType: 0,
  scopes: [
    "seller.authorization.info",
    "seller.order.info",
    "seller.product.basic",
    "seller.shop.info",
  ],
  shops: [
    {
      cipher: "GCP_Zq3vAAAAAACm4e-Xn7u_0Q",
      code: "GBHF01",
      id: "7495540735365777507",
      name: "Harbour & Finch",
      region: "GB",
      seller_type: "LOCAL",
    },
    {
      cipher: "GCP_b81TAAAAAABk2wLr9pYd5A",
      code: "IEHF02",
      id: "8600001",
      name: "Harbour & Finch Éire",
      region: "IE",
      seller_type: "LOCAL",
    },
    {
      cipher: "GCP_m5JxAAAAAADs7tGf1hQc8w",
      code: "USHF03",
      id: "8600002",
      name: "Harbour Outlet",
      region: "US",
      seller_type: "CROSS_BORDER",
    },
  ],
};

/** Authorizes a creator's link if none of the given sellers is a creator. */
const DEFAULT_CREATOR: SandboxSeller = {
  openId: "7010cAAAAAB7tW1nD4sUeJpL",
  name: null,
  region: "GB",
  userType: CREATOR,
  scopes: ["creator.authorization.info"],
  shops: [],
};

// === What it remembers

interface Code {
  seller: SandboxSeller;
  /** Seconds. */
  expires: number;
  /** Faults of the exchange, one step an attempt. */
  steps: Fault[][];
  /** Faults of every refresh of the tokens this code brings. */
  refreshFaults: Fault[];
  isAwkward: boolean;
}

/** A seller's consent. It lives as long as its refresh tokens. */
export interface Grant {
  seller: SandboxSeller;
  expires: number;
  ended: boolean;
  faults: Fault[];
  /** Whether its tokens are hard to encode, as its code was. */
  isAwkward: boolean;
  /** When the app was last told that it ends, in seconds. */
  warned: number;
}

interface AccessToken {
  grant: Grant;
  expires: number;
  /** Whether a refresh has replaced it. */
  ended: boolean;
}

type Settings = Required<Omit<SandboxOptions, "port" | "sellers" | "routes">>;

/** One sandbox: its settings, and all that it remembers. */
export interface World {
  readonly settings: Settings;
  readonly accounts: readonly SandboxSeller[];
  readonly routes: readonly OwnRoute[];
  readonly codes: Map<string, Code>;
  readonly accessTokens: Map<string, AccessToken>;
  readonly refreshTokens: Map<string, Grant>;
  readonly queues: Record<SandboxWhere, { fault: Fault; left: number }[]>;
  readonly requests: SandboxRequest[];
  readonly deliveries: SandboxDelivery[];
  readonly counts: Map<string, number>;
  readonly stopping: AbortController;
  origin: string;
  awkwardIssued: number;
}

/**
 * What a sandbox is when it starts.
 *
 * @throws {TypeError | RangeError} for options that cannot be
 */
export function createWorld(options: SandboxOptions): World {
  const { sellers = [DEFAULT_SELLER] } = options;
  if (sellers.length === 0) {
    throw new RangeError("Cannot start the sandbox: it needs a seller");
  }
  const creators = sellers.some((one) => one.userType === CREATOR);
  const stopping = new AbortController();
  setMaxListeners(0, stopping.signal); // every delayed answer listens to it
  return {
    settings: settingsOf(options),
    accounts: creators ? sellers : [...sellers, DEFAULT_CREATOR],
    routes: parseRoutes(options.routes ?? {}),
    codes: new Map(),
    accessTokens: new Map(),
    refreshTokens: new Map(),
    queues: { authorize: [], token: [], refresh: [], api: [] },
    requests: [],
    deliveries: [],
    counts: new Map(),
    stopping,
    origin: "",
    awkwardIssued: 0,
  };
}

function settingsOf(options: SandboxOptions): Settings {
  const { fault = "", webhookUrl } = options;
  parseFaults(fault);
  return {
    appKey: options.appKey ?? DEFAULT_APP.appKey,
    appSecret: options.appSecret ?? DEFAULT_APP.appSecret,
    serviceId: options.serviceId ?? DEFAULT_APP.serviceId,
    redirectUrl: checkedUrl(
      options.redirectUrl ?? "http://localhost:3017/",
      "redirect URL",
    ),
    now: options.now ?? Date.now,
    clockOffset: options.clockOffset ?? 0,
    accessTokenLife: options.accessTokenLife ?? 7 * DAY,
    refreshTokenLife: options.refreshTokenLife ?? 36_500 * DAY,
    codeLife: options.codeLife ?? 1800,
    rotate: options.rotate ?? true,
    latency: options.latency ?? 0,
    seed: options.seed ?? "1",
    fault,
    onRequest: options.onRequest ?? (() => {}),
    webhookUrl: webhookUrl ? checkedUrl(webhookUrl, "URL for webhooks") : "",
    retryDelay: options.retryDelay ?? 500,
    onDelivery: options.onDelivery ?? (() => {}),
  };
}

/** @throws {TypeError} for what is not an http or https URL */
export function checkedUrl(text: string, what: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== "http:" && url?.protocol !== "https:") {
    throw new TypeError(`Not an http or https ${what}: "${text}"`);
  }
  url.hash = "";
  return url.href;
}

/** Milliseconds on the sandbox's clock. */
export function clock(world: World): number {
  return world.settings.now() + world.settings.clockOffset * 1000;
}

/** Seconds on the sandbox's clock. */
export function seconds(world: World): number {
  return Math.floor(clock(world) / 1000);
}

/** A code or a token, as TikTok makes them for this seller's region. */
export function newSecret(
  world: World,
  { seller, isAwkward }: { seller: SandboxSeller; isAwkward: boolean },
  bytes: number,
): string {
  const secret = prefixOf(seller.region) +
    randomBytes(bytes).toString("base64url");
  if (!isAwkward) return secret;
  return secret + AWKWARD_ENDINGS[world.awkwardIssued++ % 2];
}

/** Compares in constant time; hashing first makes the lengths equal. */
export function sameText(one: string, other: string): boolean {
  const [a, b] = [one, other].map((text) =>
    createHash("sha256").update(text).digest()
  ) as [Buffer, Buffer];
  return timingSafeEqual(a, b);
}

function prefixOf(region: string): string {
  return region === "US" ? "TTP_" : "ROW_";
}

/** How many codes, tokens or paths are remembered, of each. */
const KEPT_ENTRIES = 10_000;

/** Sets a member; the oldest one makes room for it. */
export function keep<T>(map: Map<string, T>, key: string, value: T): void {
  map.set(key, value);
  if (map.size <= KEPT_ENTRIES) return;
  for (const oldest of map.keys()) return void map.delete(oldest);
}

/**
 * A seller by name, `open_id` or index. A name may be in any case.
 *
 * @throws {RangeError} for a seller that does not exist
 */
export function accountAt(
  world: World,
  seller: string | number,
): SandboxSeller {
  const { accounts } = world;
  const wanted = String(seller).toLowerCase();
  const found = accounts.find(({ openId }) => openId === seller) ??
    accounts.find(({ name }) =>
      typeof seller === "string" && name?.toLowerCase() === wanted
    ) ?? (/^\d{1,6}$/.test(wanted) ? accounts[Number(wanted)] : undefined);
  if (found !== undefined) return found;
  const names = accounts.map(({ name, openId }) => `"${name ?? openId}"`);
  throw new RangeError(
    `No seller "${seller}" exists; there are ${names.join(", ")}`,
  );
}

/** A seller with one shop; the same name makes the same seller. */
export function newSeller(name: string, region = "GB"): SandboxSeller {
  const hash = createHash("sha256").update(`${name}\n${region}`).digest();
  const id = 7_490_000_000_000_000_000n + hash.readBigUInt64BE() % 10n ** 16n;
  const text = hash.toString("base64url");
  const shop = {
    cipher: `${prefixOf(region)}${text.slice(0, 24)}`,
    code: `${region}${hash.toString("hex").slice(0, 6).toUpperCase()}`,
    id: String(id),
    name,
    region,
    seller_type: "LOCAL",
  };
  const { userType, scopes } = DEFAULT_SELLER;
  const openId = `7010a${text.slice(24)}`;
  return { openId, name, region, userType, scopes, shops: [shop] };
}

/** Leaves out the redirect faults in `steps`: they have happened already. */
export function issueCode(
  world: World,
  seller: SandboxSeller,
  steps: Fault[][],
): string {
  const faults = steps.flat();
  const isAwkward = faults.some(({ name }) => name === "awkward-code");
  const code = newSecret(world, { seller, isAwkward }, 24);
  const atToken = steps.map((step) =>
    step.filter((fault) => happensAt(fault, "token"))
  );
  keep(world.codes, code, {
    seller,
    expires: seconds(world) + world.settings.codeLife,
    steps: atToken.filter((step) => step.length > 0),
    refreshFaults: faults.filter((fault) =>
      happensAt(fault, "refresh") && !happensAt(fault, "token")
    ),
    isAwkward,
  });
  return code;
}

/** The grants of a seller that have not ended. */
export function grantsOf(world: World, seller: SandboxSeller): Grant[] {
  const grants = new Set([
    ...world.refreshTokens.values(),
    ...[...world.accessTokens.values()].map((token) => token.grant),
  ]);
  return [...grants].filter((grant) => grant.seller === seller && !grant.ended);
}

// === What it is asked

/** A request as the handlers see it. */
export interface Call {
  readonly where: SandboxWhere;
  readonly method: string;
  /** Path and query, as they came. */
  readonly target: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Record<string, string>;
  readonly bytes: Buffer;
}

// === Faults that wait

/** @throws {RangeError} for a fault that cannot happen there */
export function queueFault(
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

/** Takes the faults that this request suffers; each is then used up. */
export function takeFaults(world: World, call: Call): Fault[] {
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
