/**
 * What a sandbox is started with and what it hands back.
 *
 * @module
 */

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
  | "awkward-code"
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

/** An answer of your own: `data` in TikTok's envelope, or a whole reply. */
export interface SandboxRoute {
  /** The `data` of a success. */
  data?: unknown;
  /** The HTTP status of a whole reply. @default {200} */
  status?: number;
  /** Headers of a whole reply. */
  headers?: Readonly<Record<string, string>>;
  /** The body of a whole reply: text as it is, anything else as JSON. */
  body?: unknown;
}

/** Why a signature was refused. No secret is in it. */
export interface SandboxExplanation {
  /**
   * The mistakes that make the sign that was sent, such as `body-not-signed`:
   * mostly one, at times two. None if it is no usual one.
   */
  mistakes: string[];
  /** The same in plain words. */
  text: string;
  /** What was signed, where the mistakes tell; secret and tokens as `***`. */
  signed?: string;
  /** What was to be signed, in the same way. */
  stringToSign: string;
}

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
  /**
   * What orders and products are made from. The same seed makes the same
   * ones, whenever it is used: their times too, the newest being of the first
   * of January 2026.
   * @default {"1"}
   */
  seed?: string;
  /**
   * Answers of your own, by method and path, such as
   * `{"GET /order/202309/orders/{id}/gift": {"data": {"gift": true}}}`. They
   * come before the sandbox's, after the same checks.
   */
  routes?: Readonly<Record<string, SandboxRoute>>;
  /** A fault, or several by comma, for every authorization. */
  fault?: string;
  /** Called with every request once it has been answered. */
  onRequest?: (request: SandboxRequest) => void;
  /**
   * Where webhooks go: those of {@linkcode Sandbox.trigger}, of a seller who
   * deauthorizes, and of an authorization that ends within 30 days.
   * @default {""} none are sent
   */
  webhookUrl?: string;
  /**
   * Milliseconds until a webhook that was not answered with a 2xx is repeated.
   * The second and the third repeat wait 2 and 4 times as long.
   * @default {500}
   */
  retryDelay?: number;
  /** Called whenever a webhook was sent; its last attempt is the new one. */
  onDelivery?: (delivery: SandboxDelivery) => void;
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
  /** TikTok's `code` in the answer, if it is a refusal. */
  code?: number;
  /** Why it was refused, or what was let pass; empty if nothing is to say. */
  note: string;
  /** What is wrong with its signature, if that was refused. */
  explanation?: SandboxExplanation;
  /** When it arrived, in milliseconds on the sandbox's clock. */
  time: number;
  /** The faults its answer suffered. */
  faults: string[];
}

/** How the person decides, for {@linkcode Sandbox.approve}. */
export interface SandboxDecision {
  /** Click Deny instead of Approve. */
  deny?: boolean;
  /** The seller to choose, by name, `open_id` or index. */
  seller?: string | number;
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
  /** The last 100 webhooks, oldest first, those under way too. */
  readonly deliveries: SandboxDelivery[];
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
  issueCode(seller?: string | number, fault?: SandboxFault | string): string;
  /**
   * Opens an authorize URL and clicks, over HTTP. Returns the URL the browser
   * is sent to, without opening it.
   *
   * @throws {Error} if the page has no form, or the click leads nowhere
   */
  approve(authorizeUrl: string, decision?: SandboxDecision): Promise<string>;
  /**
   * The seller ends every grant: a refresh is answered 36004005 and an API
   * call 105001 until the next authorization. With the option `webhookUrl` the
   * app is told, once for each shop; resolves once that is over.
   *
   * @throws {RangeError} for a seller that does not exist
   */
  deauthorize(seller: string | number): Promise<SandboxDelivery[]>;
  /**
   * Sends a webhook of a type (`ORDER_STATUS_CHANGE`, or its number), signed
   * as TikTok signs it. It is repeated three times unless it is answered with
   * a 2xx; resolves once it is taken or given up.
   *
   * @throws {RangeError} for a type or a seller that does not exist
   * @throws {TypeError} without an http or https URL
   */
  trigger(
    type: string | number,
    options?: SandboxTrigger,
  ): Promise<SandboxDelivery>;
  /** Closes the port and every connection at once. */
  stop(): Promise<void>;
  /** The same as {@linkcode Sandbox.stop}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** The published types of webhooks, by their names. */
export type SandboxWebhook =
  | "ORDER_STATUS_CHANGE"
  | "RECIPIENT_ADDRESS_UPDATE"
  | "PACKAGE_UPDATE"
  | "PRODUCT_STATUS_CHANGE"
  | "SELLER_DEAUTHORIZATION"
  | "UPCOMING_AUTHORIZATION_EXPIRATION"
  | "CANCELLATION_STATUS_CHANGE"
  | "RETURN_STATUS_CHANGE"
  | "NEW_CONVERSATION"
  | "NEW_MESSAGE"
  | "PRODUCT_INFORMATION_CHANGE"
  | "PRODUCT_CREATION"
  | "PRODUCT_CATEGORY_CHANGE"
  | "NEW_MESSAGE_LISTENER"
  | "INVOICE_STATUS_CHANGE"
  | "PRODUCT_AUDIT_STATUS_CHANGE";

/** What a webhook is sent with, for {@linkcode Sandbox.trigger}. */
export interface SandboxTrigger {
  /**
   * The URL to send it to.
   * @default {the option `webhookUrl`}
   */
  to?: string;
  /** Members for `data`, which replace those of the example. */
  data?: Readonly<Record<string, unknown>>;
  /**
   * The seller whose shop it is about, by name, `open_id` or index.
   * @default {0}
   */
  seller?: string | number;
}

/** A webhook that was sent, and what came back. */
export interface SandboxDelivery {
  /** The name of its type. */
  name: SandboxWebhook;
  /** The number of its type. */
  type: number;
  /** The `tts_notification_id`, the same in every repeat. */
  notificationId: string;
  /** Where it was sent to. */
  to: string;
  /** The signed body. */
  body: string;
  /** One for each time it was sent. */
  attempts: SandboxAttempt[];
  /** Whether it was answered with a 2xx in the end. */
  delivered: boolean;
}

/** What came back when a webhook was sent once. */
export interface SandboxAttempt {
  /** The HTTP status; 0 if there was no answer. */
  status: number;
  /** The first 1,024 characters of the answer, or why there was none. */
  answer: string;
}
