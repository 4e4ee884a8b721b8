/**
 * Gets a TikTok Shop app its first OAuth2 access token from a desktop or a
 * script, and keeps that access alive afterwards. One module, three uses:
 *
 * - a program: `deno run -A mod.ts`, `node mod.ts`, `npx tiktok-shop-oauth2`;
 * - a library: import it by URL or from npm. Importing does nothing;
 * - a reference: TikTok's dialect of OAuth2 in one readable file.
 *
 * The login is {@linkcode login}: listen on localhost, build the authorization
 * link, open the browser, wait for the redirect, exchange the code.
 *
 * ```ts
 * import { login } from "tiktok-shop-oauth2";
 * import { startSandbox } from "tiktok-shop-oauth2/sandbox";
 *
 * // A TikTok Shop of one's own. Leave it out, and the last six options with
 * // it, to log in at TikTok's and to keep the tokens.
 * const redirectUrl = "http://localhost:3029/";
 * const sandbox = await startSandbox({ redirectUrl });
 *
 * const reply = await login({
 *   appKey: sandbox.appKey,
 *   appSecret: sandbox.appSecret,
 *   serviceId: sandbox.serviceId,
 *   port: 3029,
 *   authorizationEndpoint: sandbox.authorizationEndpoint,
 *   tokenEndpoint: sandbox.tokenEndpoint,
 *   open: async (url) => void fetch(await sandbox.approve(url)),
 *   store: false,
 * });
 * console.log(reply.data.seller_name, reply.data.granted_scopes);
 *
 * await sandbox.stop();
 * ```
 *
 * What can fail is a {@linkcode TikTokShopError} with a documented `kind` and a
 * `hint` that names the next step; wrong arguments are a `TypeError` or a
 * `RangeError`. No secret is ever part of an error's text.
 *
 * The sections of this file, each found by `// === Name`:
 *
 * - Errors: the one error class and its kinds, misuse, redacted evidence
 * - Types: TikTok's reply, what is stored beside it, shops, HTTP options
 * - Login: `login()` and `startAuth()`, saving under the seller's profile
 * - Authorization link: the link that a person opens, by region and user type
 * - Redirect: judges a redirect and a request; pure
 * - Callback: a login under way, its states and its answers
 * - Tokens: the two token requests and how their replies are judged
 * - Access tokens: a valid token for a profile, one refresh for all callers
 * - Signed API calls: `signature()`, `callApi()`, shops and their ciphers
 * - Webhooks: verifies and reads TikTok's notifications
 * - Token stores: the interface, locks, profile names, the memory store
 * - File store: one file per profile, replaced atomically, locked by a folder
 * - Database store: a store in any database, made of eight short steps
 * - Redis store: for many machines, with a fencing check
 * - Loopback server: `Deno.serve`, and `node:http` behind the same handler
 * - Browser: the commands that open a link on each system
 * - Keychain: the app secret in the keychain of each system
 * - HTTP: one bounded call, TikTok's envelope and codes, retries
 * - Values: JSON with large integers, foreign text, redaction
 * - Time: durations, waits, limits on how much runs at once
 * - Checks: app key, secret, service id, endpoints, ports
 * - Runtime: what differs between Deno, Node and the systems
 * - Program: `main()`, then flags, settings, output, terminal, and one
 *   sub-section (`// --- name`) for each command
 * - Pages: what the browser shows
 * - Texts: the pages' words in 13 languages, styles and scripts
 * - Guard: runs the program if this file was started
 *
 * @module
 */

/** The part of Deno's API in use, so that no type of Deno's is needed. */
interface DenoRuntime {
  readonly args: string[];
  readonly mainModule: string;
  readonly env: { toObject(): Record<string, string> };
  readonly permissions: { querySync(of: { name: "read" }): { state: string } };
  serve(options: object, answer: DenoAnswer): { finished: Promise<void> };
}

type DenoServed = { readonly completed: Promise<void> };
type DenoAnswer = (request: Request, info: DenoServed) => Promise<Response>;

const RUNTIME = globalThis as unknown as {
  readonly Deno?: DenoRuntime;
  readonly process: typeof import("node:process");
};

/** A built-in, loaded at its first use: an import costs Deno 10 to 40 ms. */
const node = ((id: string) => RUNTIME.process.getBuiltinModule(id)) as Load;
type Load = NodeJS.Process["getBuiltinModule"];

/** The built-ins that are used most. */
const fs = () => node("node:fs/promises");
const paths = () => node("node:path");

/** The version of this module, that of the package. */
export const VERSION: string = "1.0.0";

const PROGRAM = "tiktok-shop-oauth2";

// === Errors

/**
 * What went wrong, for programs:
 *
 * | kind | meaning |
 * | --- | --- |
 * | `access_denied` | the seller denied the app access |
 * | `timeout` | no usable redirect came in time |
 * | `cancelled` | `cancel()`, an aborted signal or Ctrl-C |
 * | `state_mismatch` | the redirect belongs to another login |
 * | `missing_state` | the redirect carries no state, or a bare code was given |
 * | `invalid_redirect` | the redirect carries an error or no code |
 * | `port_in_use` | the callback port cannot be listened on, or no longer |
 * | `network` | a host cannot be reached, or does not answer in time |
 * | `invalid_response` | a host's answer is not what TikTok would send |
 * | `rejected` | TikTok answered with a non-zero `code` |
 * | `login_required` | the grant or refresh token is gone: log in again |
 * | `missing_scope` | a required scope was not granted |
 * | `store` | tokens or app secret cannot be loaded or saved; see `reply` |
 * | `lock_lost` | a profile's lock was taken over by another process |
 */
export type ErrorKind =
  | "access_denied"
  | "timeout"
  | "cancelled"
  | "state_mismatch"
  | "missing_state"
  | "invalid_redirect"
  | "port_in_use"
  | "network"
  | "invalid_response"
  | "rejected"
  | "login_required"
  | "missing_scope"
  | "store"
  | "lock_lost";

/** What a {@linkcode TikTokShopError} carries besides kind and message. */
export type ErrorDetails = Partial<
  Omit<TikTokShopError, "kind" | "name" | "message" | "stack">
>;

/** The one error class of run time; no secret in message, stack or cause. */
export class TikTokShopError extends Error {
  /** What went wrong, for programs. */
  readonly kind: ErrorKind;
  /** TikTok's `code`, if TikTok answered with one. */
  readonly code: number | undefined;
  /** TikTok's `request_id`, to be named when asking its support. */
  readonly requestId: string | undefined;
  /** The next step, a sentence without a full stop. */
  readonly hint: string | undefined;
  /** HTTP status of the answer. */
  readonly status: number | undefined;
  /** Seconds that the host asked to wait before the next try. */
  readonly retryAfter: number | undefined;
  /** The body of a failed API call, redacted: parsed, or text if no object. */
  readonly body: unknown;
  /** The tokens, for kind `store` and `missing_scope`; not enumerable. */
  declare readonly reply: TokenReply | undefined;

  /** Makes an error; `message` and `details.hint` must be free of secrets. */
  constructor(kind: ErrorKind, message: string, details: ErrorDetails = {}) {
    const { cause } = details;
    const beneath = cause === undefined ? {} : { cause: evidence(cause) };
    super(printable(message), beneath);
    this.name = "TikTokShopError";
    this.kind = kind;
    this.code = details.code;
    this.requestId = details.requestId;
    this.hint = details.hint && printable(details.hint);
    this.status = details.status;
    this.retryAfter = details.retryAfter;
    this.body = details.body;
    Object.defineProperty(this, "reply", { value: details.reply });
  }
}

/** A caller's mistake. A TypeError of the runtime's is a bug of ours. */
function misuse(message: string, Kind: ErrorConstructor = TypeError): Error {
  return Object.assign(new Kind(printable(message)), { code: MISUSE });
}

/** A caller's mistake, of a value out of its range. */
function outOfRange(message: string): Error {
  return misuse(message, RangeError);
}

/** The `code` of every error that {@linkcode misuse} makes. */
const MISUSE = "ERR_MISUSE";

/** What a message must not show. */
type Secrets = readonly string[];

/** An error's text without secrets: fetch errors name whole URLs. */
function messageOf(error: unknown, secrets?: Secrets): string {
  const { message, errors } = (error ?? {}) as Partial<AggregateError>;
  // Node tries all addresses of a host; its own message may then be empty.
  const each = Array.isArray(errors) ? errors : [];
  const texts = [message, ...each.map((one) => one?.message)].filter(Boolean);
  const name = error instanceof Error ? error.constructor.name : `${error}`;
  const text = [...new Set(texts)].join("; ") || name;
  return printable(redact(text, secrets));
}

/** A redacted copy of an error, to be the `cause` of another. */
function evidence(error: unknown, secrets?: Secrets, depth = 0): unknown {
  if (error instanceof TikTokShopError) return error;
  const { name, code, cause } = (error ?? {}) as Record<string, unknown>;
  const copy = new Error(messageOf(error, secrets));
  copy.name = typeof name === "string" ? name : "Error";
  copy.stack = `${copy.name}: ${copy.message}`;
  if (typeof code === "string") Object.assign(copy, { code });
  // Not for ever: an error may be its own cause.
  if (cause === undefined || depth === 8) return copy;
  return Object.assign(copy, { cause: evidence(cause, secrets, depth + 1) });
}

function cancelledError(reason: unknown): TikTokShopError {
  const message = `Cancelled: ${messageOf(reason)}`;
  return new TikTokShopError("cancelled", message, { hint: "try again" });
}

function codeOf(error: unknown): string {
  return String((error as { code?: unknown } | undefined)?.code);
}

// === Types

/** `row` is everywhere but the US; the two have separate apps and hosts. */
export type Region = "row" | "us";

/** Who authorizes the app. */
export type UserType = "seller" | "partner" | "creator";

/** Seconds as a number, or text such as `90`, `5m`, `2h` or `7d`. */
export type Duration = number | string;

/** Where a login stands; the constant `FlowState` names the numbers. */
export type FlowState = 0 | 1 | 2 | 3 | 4 | 5;

/** The names of the {@linkcode FlowState} numbers. */
export const FlowState = {
  IDLE: 0,
  WAITING_FOR_REDIRECT: 1,
  WAITING_FOR_RESPONSE: 2,
  SUCCESS: 3,
  ACCESS_DENIED: 4,
  FAILED: 5,
} as const;

/** An app of Partner Center's. */
export interface App {
  /** The app key: about 12 lower-case letters and digits. */
  appKey: string;
  /**
   * The app secret, or a function that gets it, called by each request that
   * needs it. It is never logged, and never stored with the tokens.
   */
  appSecret: string | (() => string | Promise<string>);
}

/** An app whose secret is at hand. */
export interface AppCredentials extends App {
  /** The app secret. */
  appSecret: string;
}

/**
 * TikTok's reply to a token request, verbatim, unknown members included.
 * An integer beyond 2^53 is a `bigint`; `JSON.stringify(reply)` works and
 * keeps its digits.
 */
export interface TokenReply {
  /** 0: success. */
  code: number;
  /** `success`. */
  message: string;
  /** The tokens and whose they are. */
  data: TokenData;
  /** TikTok's id of the request. */
  request_id: string;
  /** Whatever else TikTok sends. */
  [name: string]: unknown;
}

/** The `data` member of a {@linkcode TokenReply}. */
export interface TokenData {
  /** Sent with every API call; lives seven days. */
  access_token: string;
  /** When it ends: absolute Unix seconds, in spite of the name. */
  access_token_expire_in: number;
  /** Gets new access tokens for as long as the seller's grant lasts. */
  refresh_token: string;
  /** When it ends: absolute Unix seconds, often far beyond 2^31. */
  refresh_token_expire_in: number;
  /** The seller, partner or creator, for this app. */
  open_id: string;
  /** The shop's name; `null` for creators. */
  seller_name: string | null;
  /** Country code of the seller, such as `GB`. */
  seller_base_region: string;
  /** 0 seller, 1 creator, 3 partner; others occur. */
  user_type: number;
  /** What the seller allowed. */
  granted_scopes?: string[];
  /** Whatever else TikTok sends. */
  [name: string]: unknown;
}

/** What we know of the tokens beside TikTok's reply. */
export interface TokenMeta {
  /** Version of this layout: 1. */
  version?: number;
  /** The app that the tokens belong to. */
  app_key?: string;
  /** When they were obtained: Unix seconds by the token host's clock. */
  obtained_at?: number;
  /** Seconds that the local clock was behind the token host's. */
  clock_offset?: number;
  /** The app's service id, which its authorization link has. */
  service_id?: string;
  /** Market of the app. */
  region?: Region;
  /** Who authorized it. */
  user_type?: UserType;
  /** The shops of the seller, once they were asked for. */
  shops?: Shop[];
  /** Seconds that the last refresh should have brought and did not bring. */
  unmet_min_valid?: number;
  /** The last refresh, if refused: its answer, and when by the host's clock. */
  refresh_refused?: {
    at: number;
    code: number;
    message: string;
    request_id?: string;
  };
  /** Whatever else was found in the file. */
  [name: string]: unknown;
}

/** A token reply as it is kept by a {@linkcode TokenStore}. */
export interface StoredTokens extends TokenReply {
  /** What we know beside the reply. */
  meta: TokenMeta;
}

/** A shop that a token may act for. */
export interface Shop {
  /** Goes into `shop_cipher` of signed calls. */
  cipher: string;
  /** The shop's code, as sellers see it. */
  code: string;
  /** The shop's id, a decimal string. */
  id: string;
  /** The shop's name. */
  name: string;
  /** Country code, such as `GB`. */
  region: string;
  /** `LOCAL` or `CROSS_BORDER`. */
  seller_type: string;
  /** Whatever else TikTok sends. */
  [name: string]: unknown;
}

/** How HTTP calls are made. */
export interface HttpOptions {
  /** Makes the request. @default {globalThis.fetch} */
  fetch?: typeof fetch;
  /** Aborts the call. */
  signal?: AbortSignal;
  /** Time for request and reply. @default {30s; 2m for calls of the API} */
  requestTimeout?: Duration;
  /** Bytes that a reply may have. @default {1 MiB; 32 MiB for the API's} */
  replyLimit?: number;
  /** Called with one redacted line for each request and reply. */
  onTrace?: (line: string) => unknown;
}

/** Options of {@linkcode refreshTokens}. */
export interface TokenOptions extends HttpOptions {
  /** Where codes are exchanged. @default {TikTok's …/api/v2/token/get} */
  tokenEndpoint?: string;
  /** Where tokens are refreshed. @default {TikTok's …/api/v2/token/refresh} */
  refreshEndpoint?: string;
  /** The local clock, in milliseconds since 1970. @default {Date.now} */
  now?: () => number;
}

// === Login

/** Options of {@linkcode login}. */
export interface LoginOptions extends StartAuthOptions {
  /** Shows the link to the person. @default {openBrowser} */
  open?: (url: string) => unknown;
  /** Called before the browser is opened. @default {prints the link} */
  onStart?: (flow: AuthFlow) => unknown;
  /** Where tokens are saved; false saves nothing. @default {fileStore()} */
  store?: TokenStore | false;
  /** Name to save them under. @default {"default"} */
  profile?: string;
  /** Replace the tokens of another seller. @default {false} */
  switch?: boolean;
  /** Called once TikTok's reply is here, before it is saved. */
  onSaving?: () => unknown;
  /** Ends saving with kind `store`; the error's `reply` has the tokens. */
  saveSignal?: AbortSignal;
  /** Called with the profile that the tokens were saved under. */
  onSaved?: (profile: string) => unknown;
  /** Fail, after saving, if one of these scopes was not granted. */
  requireScopes?: string[];
}

/**
 * The whole job in one call: listens, proves that the tokens can be saved,
 * opens the browser, waits for the redirect, exchanges the code and saves the
 * tokens.
 *
 * @returns TikTok's reply, verbatim.
 * @throws {TikTokShopError} of any kind; of kind `store`, before the link is
 * shown, if the tokens could not be saved.
 * @throws {TypeError | RangeError} if an option is wrong.
 */
export async function login(options: LoginOptions): Promise<TokenReply> {
  const { onStart = printLink, onWarning = print } = options;
  const { open = tryBrowsers, profile = "default" } = options;
  const full = { ...options, profile, onStart, onWarning };
  const flow = await startFlow(full, (...got) => saveReply(...got, full));
  try {
    const ended = new AbortController();
    flow.reply.catch(() => ended.abort());
    const proof = assertLoginSavable({ ...full, signal: ended.signal });
    await Promise.race([proof, flow.reply]);
    // Raced: a listener that never resolves must not outlive the login.
    const told = notify(onStart, flow, onWarning);
    await Promise.race([told, flow.reply.catch(() => {})]);
    // Not awaited: a browser may stay in the foreground until it is closed.
    Promise.resolve(flow.url).then(open).then((opened) => {
      if (opened === false) throw new Error("No browser could be opened");
    }).catch((error) =>
      notify(onWarning, `${messageOf(error)}: open the link yourself`)
    );
    return await flow.reply;
  } finally {
    await flow[Symbol.asyncDispose]();
  }
}

/** Prints what no listener is there for. */
function print(message: string): void {
  console.error(printable(message));
}

function printLink({ url }: AuthFlow): void {
  console.error(`Open this link to authorize the app:\n\n${url}\n`);
}

/** Saves the tokens of a login, checks their scopes; returns the profile. */
async function saveReply(
  reply: TokenReply,
  meta: TokenMeta,
  options: ExchangeOptions,
): Promise<string | undefined> {
  const { store = defaultStore(), profile, onWarning } = options;
  let saved: string | undefined;
  if (store) {
    void notify(options.onSaving, undefined, onWarning);
    saved = await saveLogin(store, { ...reply, meta }, options);
    const other = `"${profile}" holds another seller's tokens and was left ` +
      `alone: the new ones are under "${saved}"`;
    if (saved !== (profile ?? saved)) void notify(onWarning, other);
    void notify(options.onSaved, saved, onWarning);
  }
  const { granted_scopes: scopes } = reply.data;
  const missing = (options.requireScopes ?? [])
    .filter((scope) => !Array.isArray(scopes) || !scopes.includes(scope));
  if (missing.length === 0) return saved;
  const kept = saved === undefined ? "" : `, the rest is under "${saved}"`;
  const message = `The seller did not grant "${missing.join('", "')}"${kept}`;
  const hint = `enable it in Partner Center, then ${LOGIN_AGAIN}`;
  throw new TikTokShopError("missing_scope", message, { hint, reply });
}

/** Options of {@linkcode startAuth}. */
export interface StartAuthOptions
  extends App, Omit<AuthorizationUrlOptions, "appKey" | "state">, TokenOptions {
  /**
   * Port of the callback and of the registered redirect URL, or a range such as
   * `3017-3020`: the first free one is used. @default {3017}
   */
  port?: number | string;
  /** Host named in the redirect URL. @default {"localhost"} */
  host?: "localhost" | "127.0.0.1";
  /** Path of the redirect URL. @default {"/"} */
  path?: string;
  /** The registered redirect URL when it is not the loopback one. */
  redirectUrl?: string;
  /** Certificate and key in PEM, to serve the callback over https. */
  tls?: { cert: string; key: string };
  /** How long to wait for the redirect, in all. @default {300} */
  timeout?: Duration;
  /** Accept a redirect without state and a bare code. @default {false} */
  allowMissingState?: boolean;
  /**
   * Called to ask whether to accept a code that came without state, at most
   * three times for those of a browser. Left out, they are held, not used.
   */
  confirmMissingState?: () => boolean | Promise<boolean>;
  /** Called with each new state. */
  onState?: (state: FlowState) => unknown;
  /** Called with the tokens before `reply` resolves; may fail the login. */
  onReply?: (reply: TokenReply, meta: TokenMeta) => unknown;
  /** Called with what a person should know. @default {login() prints it} */
  onWarning?: (message: string) => unknown;
}

/**
 * A login under way. It ends by itself: by success, denial, failure, timeout
 * or `cancel()`. Dispose of it to be sure that it has ended and its port is
 * closed.
 */
export interface AuthFlow extends AsyncDisposable {
  /** The authorization link to open in a browser. */
  readonly url: string;
  /** The port that is listened on. */
  readonly port: number;
  /** The redirect URL, as it must be registered for the app. */
  readonly redirectUrl: string;
  /** Where the login stands. */
  readonly state: FlowState;
  /** TikTok's reply; rejects with a {@linkcode TikTokShopError}. */
  readonly reply: Promise<TokenReply>;
  /** Every parameter of the redirect; empty before it came. */
  readonly redirectParams: Readonly<Record<string, string>>;
  /** Called with each new state. */
  onState: ((state: FlowState) => unknown) | undefined;
  /**
   * Takes a redirect URL, a query string or a bare code that a person pasted.
   * Resolves once it is accepted; `reply` then brings the tokens.
   * @throws {TikTokShopError} if it is not the redirect of this login; the
   * wait goes on.
   */
  submit(urlOrCode: string): Promise<void>;
  /**
   * Ends the login; `reply` rejects with kind `cancelled`. Once TikTok's reply
   * is here, neither this nor `signal` does anything: the code is spent.
   */
  cancel(reason?: string): void;
}

/**
 * Starts a login: listens for the redirect on 127.0.0.1 and, where there is
 * one, [::1]. Both must be free; for the host 127.0.0.1, that one alone.
 * Opening `url` is left to the caller.
 *
 * @throws {TikTokShopError} of kind `port_in_use`.
 * @throws {TypeError | RangeError} if an option is wrong.
 */
export function startAuth(options: StartAuthOptions): Promise<AuthFlow> {
  return startFlow(options);
}

/** Saves the tokens of a login; returns the profile, which the page shows. */
type Save = (reply: TokenReply, meta: TokenMeta) => Promise<string | undefined>;

async function startFlow(options: StartAuthOptions, save?: Save) {
  assertWait(options);
  assertAppKey(options.appKey);
  // A function is called when the code is here: a vault may ask a person.
  const { appSecret } = options;
  if (typeof appSecret !== "function") assertAppSecret(appSecret);
  authorizationUrl({ ...options, state: "-" });
  const { signal, tls, host, port = DEFAULT_PORT } = options;
  if (signal?.aborted) throw cancelledError(signal.reason);
  let flow: LoopbackFlow | undefined;
  const server = await listenOnLoopback(portRange(port), {
    tls,
    needsBoth: host !== "127.0.0.1",
    handlerOn: (port) => {
      flow = new LoopbackFlow(options, port, save);
      return (request) => flow!.answer(request);
    },
    onUnread: (why) => flow!.note(why),
  });
  flow!.begin(server);
  return flow!;
}

const DEFAULT_PORT = 3017;
const DEFAULT_TIMEOUT = 300; // seconds

/** Proves that a login's tokens can be saved, before its code is spent. */
async function assertLoginSavable(options: LoginOptions): Promise<void> {
  try {
    const { store = defaultStore() } = options;
    if (store) await assertSavable(store, options);
  } catch (error) {
    if (options.store || !(error instanceof TikTokShopError)) throw error;
    // The caller did not choose the default store, and may do without it.
    throw extended(error, "", `${error.hint}, or keep nothing (store: false)`);
  }
}

/** Proves that a login can be saved: under this profile, or a new one. */
async function assertSavable(
  store: TokenStore,
  options: Pick<LoginOptions, "profile" | "signal" | "onWarning">,
): Promise<void> {
  const { profile = `login-${randomText(9)}`, onWarning } = options;
  await withLock(store, profile, options, async (lock) => {
    const twin = await caseTwin(store, profile);
    const why = `some disks keep it in one file with "${twin}", use another`;
    if (twin) throw misuse(`Cannot use the profile name "${profile}": ${why}`);
    await store.load(profile); // what it cannot read is not overwritten
    await store.assertWritable?.(profile, lock, onWarning);
  });
}

/** Another profile that some disks keep in the same file as this one. */
async function caseTwin(store: TokenStore, profile: string) {
  const folded = (name: string) => name.normalize().toUpperCase().toLowerCase();
  const names = await store.list();
  if (names.includes(profile)) return undefined;
  return names.find((name) => folded(name) === folded(profile));
}

/** Saves a login's tokens; returns the profile, the wanted or a new one. */
async function saveLogin(
  store: TokenStore,
  tokens: StoredTokens,
  options: ExchangeOptions,
): Promise<string> {
  const save = async () => {
    const slug = sellerSlug(tokens.data);
    for (let n = options.profile === undefined ? 1 : 0;; n++) {
      const profile = [options.profile!, slug][n] ?? `${slug}-${n}`;
      // The wanted name was judged before the link was shown.
      if (n > 0 && await caseTwin(store, profile)) continue;
      if (await saveAs(store, profile, tokens, options)) return profile;
    }
  };
  const hint = "keep the reply, as the code is spent";
  const gaveUp = (reason: unknown) =>
    storeError("The tokens were not saved", reason, hint);
  return await abortable(save(), options.saveSignal, gaveUp).catch((error) => {
    throw unsavedError(error, withoutMeta(tokens));
  });
}

/** Saves under a profile, unless it holds another seller's tokens. */
async function saveAs(
  store: TokenStore,
  profile: string,
  tokens: StoredTokens,
  { switch: overwrite, onWarning, saveSignal: signal }: ExchangeOptions,
): Promise<boolean> {
  return await withLock(store, profile, { onWarning, signal }, async (lock) => {
    const held = await store.load(profile);
    const same = held && sameSeller(held, tokens);
    if (held && !same && !overwrite) return false;
    const shops = same && held.meta.shops ? { shops: held.meta.shops } : {};
    const meta = { ...shops, ...tokens.meta };
    await store.save(profile, { ...tokens, meta }, lock);
    return true;
  });
}

/** Carries the tokens that could not be saved, so that they are not lost. */
function unsavedError(error: unknown, reply: TokenReply): TikTokShopError {
  const { hint } = (error ?? {}) as { hint?: string };
  // The error may contain the tokens: a database repeats the row.
  const secrets = tokensOf(reply);
  const cause = evidence(error, secrets);
  const details = { cause, hint, reply: withToJson({ ...reply }) };
  return new TikTokShopError("store", messageOf(error, secrets), details);
}

function sameSeller(a: StoredTokens, b: StoredTokens): boolean {
  const [x, y] = [a.meta.app_key, b.meta.app_key];
  return a.data.open_id === b.data.open_id && (!x || !y || x === y);
}

/** A profile name made of the seller's name, or of its id. */
function sellerSlug(data: TokenData): string {
  for (const name of [data.seller_name, data.open_id]) {
    const slug = textOf(name).toLowerCase()
      .replace(pattern("[^\\p{L}\\p{N}]+", "gu"), "-").replace(/^-+|-+$/g, "")
      .slice(0, 48);
    if (isProfile(slug)) return slug;
  }
  return "seller";
}

// === Authorization link

/** Where sellers, partners and creators authorize an app (official guide). */
const AUTHORIZATION_ENDPOINTS: Record<Region, Record<UserType, string>> = {
  row: {
    seller: "https://services.tiktokshop.com/open/authorize",
    partner: "https://partner.tiktokshop.com/open/authorize",
    creator: "https://shop.tiktok.com/alliance/creator/auth",
  },
  us: {
    seller: "https://services.us.tiktokshop.com/open/authorize",
    partner: "https://partner.us.tiktokshop.com/open/authorize",
    creator: "https://shop.tiktok.com/alliance/creator/auth",
  },
};

/** Options of {@linkcode authorizationUrl}. */
export interface AuthorizationUrlOptions {
  /** The app key; creators' links carry it. */
  appKey?: string;
  /** The service id, about 19 digits; sellers' and partners' links carry it. */
  serviceId?: string;
  /** Market of the app. @default {"row"} */
  region?: Region;
  /** Who authorizes the app. @default {"seller"} */
  userType?: UserType;
  /** Comes back with the redirect; random and used once. */
  state: string;
  /** Further parameters of the link. */
  params?: Record<string, string>;
  /** Another page to authorize at. @default {by region and user type} */
  authorizationEndpoint?: string;
}

/**
 * The link at which a person authorizes the app. Pure. There is no
 * `redirect_uri`: the redirect URL is the one saved in the app.
 * Source: TikTok Shop Partner Center, "Authorization overview".
 *
 * @throws {TypeError} if an option is missing or wrong.
 */
export function authorizationUrl(options: AuthorizationUrlOptions): string {
  const { region = "row", userType = "seller", state, params = {} } = options;
  const endpoint = options.authorizationEndpoint ??
    AUTHORIZATION_ENDPOINTS[region]?.[userType];
  if (!endpoint) {
    const where = `region "${region}" and user type "${userType}"`;
    const choice = "use row or us, and seller, partner or creator";
    throw misuse(`No authorization page for ${where}: ${choice}`);
  }
  const url = endpointUrl(endpoint, "authorization endpoint");
  // Creators' and legacy links name the app, the others its service.
  const identity: Record<string, string> =
    userType === "creator" || url.pathname === "/oauth/authorize"
      ? { app_key: assertAppKey(options.appKey) }
      : { service_id: assertServiceId(options.serviceId) };
  if (!state) {
    throw misuse("The state is missing: make one of random bytes, used once");
  }
  const own = { ...identity, state };
  const taken = Object.keys(own).find((name) => Object.hasOwn(params, name));
  if (taken) throw misuse(`Cannot set "${taken}": the link sets it itself`);
  return withParameters(url, { ...params, ...own }).href;
}

// === Redirect

/** What {@linkcode parseRedirect} read. */
export interface RedirectResult {
  /** The authorization code, decoded once. */
  code: string;
  /** Every parameter of the redirect; only `code` for a bare code. */
  params: Record<string, string>;
  /** Whether the state was there and right; false for a bare code only. */
  stateMatched: boolean;
}

/** What a redirect says: a code, or TikTok's error. */
type Outcome = RedirectResult & { error?: TikTokShopError | undefined };

/**
 * Reads what a person pasted, or what a redirect brought: a full URL, a query
 * string or a bare code. Pure. The state is judged before anything else, then
 * `error`, then the code.
 *
 * @throws {TikTokShopError} of kind `state_mismatch`, `missing_state`,
 * `access_denied` or `invalid_redirect`.
 */
export function parseRedirect(input: string, state: string): RedirectResult {
  const { error, ...result } = judgePasted(input, state);
  const isBare = typeof redirectQuery(input) === "string";
  if (!result.stateMatched && !isBare) throw missingStateError();
  if (error) throw error;
  return result;
}

/** What a person pasted, judged; nothing vouches for a bare code. Pure. */
function judgePasted(input: string, state: string): Outcome {
  const query = redirectQuery(input);
  if (typeof query === "string") {
    return { code: query, params: { code: query }, stateMatched: false };
  }
  const outcome = judgeRedirect(query, state);
  if (!outcome) throw redirectFault();
  return outcome;
}

/** What a redirect of this login says; undefined if nothing. Pure. */
function judgeRedirect(query: URLSearchParams, state: string) {
  const twice = repeatedName(query);
  if (twice !== undefined) {
    throw redirectFault(`The redirect names "${twice}" twice`);
  }
  const given = query.get("state");
  if (given !== null && !sameText(given, state)) {
    const message = "The redirect belongs to another login: its state differs";
    const hint = "use the redirect of the link that was printed last";
    throw new TikTokShopError("state_mismatch", message, { hint });
  }
  const code = query.get("code") || query.get("auth_code") || "";
  const error = query.get("error") || (code === "null" ? "denied" : "");
  if (!code && !error) return undefined;
  return {
    code,
    params: Object.fromEntries(query),
    stateMatched: given !== null,
    error: error ? redirectError(error) : undefined,
  };
}

/** The error that TikTok sent the browser back with. */
function redirectError(error: string): TikTokShopError {
  const shown = error.slice(0, 80);
  if (/denied/i.test(error)) {
    const message = `The seller denied the app access: "${shown}"`;
    const hint = `ask the shop's owner to approve the app, then ${LOGIN_AGAIN}`;
    return new TikTokShopError("access_denied", message, { hint });
  }
  const message = `TikTok sent the browser back with the error "${shown}"`;
  const hint = `check the app in Partner Center, then ${LOGIN_AGAIN}`;
  return new TikTokShopError("invalid_redirect", message, { hint });
}

function redirectFault(message = "No authorization code found in this text") {
  const hint = "copy the whole address that the browser was sent back to";
  return new TikTokShopError("invalid_redirect", message, { hint });
}

function missingStateError(): TikTokShopError {
  const message = "The code came without state: it may be forged";
  const hint = "if nobody sent you the link, allow a missing state";
  return new TikTokShopError("missing_state", message, { hint });
}

/** The parameters of a URL or query string, or else the bare code. */
function redirectQuery(input: string): URLSearchParams | string {
  const text = pastedRedirect(input);
  if (/^https?:\/\//i.test(text) && URL.canParse(text)) {
    return new URL(text).searchParams;
  }
  if (/(^|[?&])(code|auth_code|state|error)=/.test(text)) {
    return new URLSearchParams(text.replace(/^[^?]*\?/, "").split("#")[0]);
  }
  // A person copies the code out of the address bar, where it is encoded.
  const code = attempt(() => decodeURIComponent(text), text);
  // deno-lint-ignore no-control-regex -- no code has control characters
  if (code && code !== "null" && !/[\s\u0000-\u001f<>"]|:\/\//.test(code)) {
    return code;
  }
  throw redirectFault();
}

/** What separates a redirect from the text around it. */
const PUT_AROUND = /(?:[\s"'`<>|\u00ab\u00bb\u2018-\u201f]|\]\()+/;
/** What may stand right before or behind it; a run is tried only once. */
const PUNCTUATION = /^[([{*]+|(?<![.,;:!?)\]}*])[.,;:!?)\]}*]+$/g;

/** A redirect or code without what mails, chats and shells add. Pure. */
function pastedRedirect(input: string): string {
  const text = input.trim().replace(/[\u00ad\u200b-\u200f\u2060\ufeff]/g, "")
    .replace(/&(?:(?:amp;)+|#38;|#x26;)|\\u0026/gi, "&")
    .replace(/&(?:quot|lt|gt|#39);/gi, " ")
    .replace(/[\\^](?=[&?=/"'])/g, ""); // shells' escapes, and JSON's
  // Nothing but line breaks: one long line that was wrapped.
  const whole = /[^\S\r\n]/.test(text) ? text : text.replace(/\s+/g, "");
  const words = whole.split(PUT_AROUND)
    .map((word) => word.replace(PUNCTUATION, "")).filter(Boolean);
  return words.find((word) => /(^|[?&])(code|auth_code|error)=/.test(word)) ??
    words.find((word) => /:\/\/|(^|[?&])state=/.test(word)) ??
    (words.length === 1 ? words[0]! : whole);
}

/** An answer to a request: a page, or a line of text. */
interface PageAnswer {
  status: number;
  page?: Page;
  facts?: Facts;
  headers?: Record<string, string>;
  unused?: Unused;
}

function turnedAway(status: number, unused?: Unused): PageAnswer {
  return { status, page: status === 404 ? "missing" : "other", unused };
}

/** The gate that every request passes, in this order. Pure. */
function judgeRequest(
  request: Request,
  query: URLSearchParams,
  expected: Expected,
): PageAnswer | Outcome {
  const { method, headers } = request;
  const proven = query.getAll("state")
    .some((state) => sameText(state, expected.state));
  if (!namesOurHost(request, expected.hosts)) {
    return proven ? turnedAway(421, "for another host") : { status: 421 };
  }
  if (method === "OPTIONS") return { status: 204, headers: ALLOW };
  if (method === "HEAD") return { status: 200 };
  if (method !== "GET") return { status: 405 };
  if (isPrefetch(headers)) return { status: 204 };
  // A person sees a tab only, not a picture or a frame of some page.
  const isTab = (headers.get("sec-fetch-dest") ?? "document") === "document";
  if (!isTab) return { status: 400 };
  const { pathname } = new URL(request.url);
  const isOurs = proven || expected.paths.includes(pathname);
  try {
    const outcome = judgeRedirect(query, expected.state);
    if (isOurs) return outcome ?? { status: 200, page: "waiting" };
    const isLost = outcome && !outcome.error;
    return turnedAway(404, isLost ? "on another path" : undefined);
  } catch {
    if (!isOurs) return turnedAway(404);
    const why = proven ? "with a parameter twice" : "of another login";
    return turnedAway(400, why);
  }
}

/** Whether Host and target name us: a malicious page can change either. */
function namesOurHost(request: Request, hosts: readonly string[]): boolean {
  const host = request.headers.get("host")?.toLowerCase();
  // HTTP/2 has none. Browsers speak it over TLS only.
  const isOurs = host === undefined
    ? request.url.startsWith("https:")
    : hosts.includes(host);
  return isOurs && hosts.includes(new URL(request.url).host);
}

/** A browser that looks ahead must not spend the code. */
function isPrefetch(headers: Headers): boolean {
  return ["sec-purpose", "purpose", "x-purpose", "x-moz"].some((name) =>
    /prefetch|prerender|preview/i.test(headers.get(name) ?? "")
  );
}

/** What the gate of a login on this port lets pass; the state is new. */
function expectedOn(
  port: number,
  redirectUrl: string,
  { path, redirectUrl: registered }: StartAuthOptions,
) {
  const { host, pathname } = new URL(redirectUrl);
  const names = ["localhost", "127.0.0.1", "[::1]"];
  // Both ports: behind a tunnel the redirect URL may have the other scheme.
  const bare = port === 80 || port === 443 ? names : [];
  // A relay moves the redirect on to "/" or to our path.
  const relayed = registered ? ["/"] : [];
  return {
    hosts: [host, ...names.map((name) => `${name}:${port}`), ...bare],
    paths: [pathname, path ?? pathname, ...relayed],
    state: stateFor(randomText(32), redirectUrl, port),
  };
}

type Expected = ReturnType<typeof expectedOn>;

/** The redirect URL, as it must be registered for the app. */
function callbackUrl(options: Partial<StartAuthOptions>, port: number): string {
  if (options.redirectUrl) return options.redirectUrl;
  const { host = "localhost", path = "/", tls } = options;
  return `${tls ? "https" : "http"}://${host}:${port}${path}`;
}

/** A state that names our port, for a relay, if the redirect URL does not. */
function stateFor(random: string, redirectUrl: string, port: number): string {
  const url = new URL(redirectUrl);
  const own = isLoopback(url.hostname) && Number(url.port) === port;
  return own ? random : `${random}.${port}`;
}

// === Callback

const PAGE_TIMEOUT_MS = 15_000; // the browser waits for the exchange

/** Why a request is not used, and what a person is told of it. */
const UNUSED = {
  "of another login": "",
  "without state": "A redirect without state is held: it may be forged",
  "voided by another": "Two redirects without state came with different " +
    "codes, so neither is used: paste the address of the right one",
  "for another host": "The redirect came for another host or port: register " +
    "URL as the app's redirect URL, or paste the address of the page",
  "on another path": "A redirect came without state on another path: " +
    "register URL as the app's redirect URL, or paste the address of the page",
  "with a parameter twice":
    "The redirect gives a parameter twice: open the link again",
  "with too large headers": "The browser sent too large headers: delete the " +
    "cookies of localhost, or open the link in a private window",
  "by https": "The browser spoke https to the plain http callback: register " +
    "URL (not https) as the app's redirect URL, or serve https",
} as const;

type Unused = keyof typeof UNUSED;

/** The error of a login that timed out: what came, and what to do. Pure. */
function timeoutError(ms: number, unused: Map<Unused, number>, url: string) {
  const counts = [...unused].map(([why, n]) => `${n} ${why}`).join(", ");
  const message = `Timed out after ${ms / 1000} s without a usable redirect` +
    (counts && ` (${counts})`);
  const plain = url.startsWith("http:") ? " (not https)" : "";
  // Deno reports neither a browser that spoke https to us, nor large headers.
  const unseen = RUNTIME.Deno ? ", or delete the cookies of localhost" : "";
  const cause = unused.has("without state") ? missingStateError() : undefined;
  const hint = cause?.hint ??
    `check that the app's redirect URL is ${url}${plain}${unseen}; ` +
      "or log in again, and paste the address that the browser is sent to";
  return new TikTokShopError("timeout", message, { cause, hint });
}

/** The steps that a login may take from each state; the others end it. */
const NEXT_STATES: Readonly<Record<number, readonly FlowState[]>> = {
  [FlowState.IDLE]: [FlowState.WAITING_FOR_REDIRECT],
  [FlowState.WAITING_FOR_REDIRECT]: [
    FlowState.WAITING_FOR_RESPONSE,
    FlowState.ACCESS_DENIED,
    FlowState.FAILED,
  ],
  [FlowState.WAITING_FOR_RESPONSE]: [FlowState.SUCCESS, FlowState.FAILED],
};

/** The codes that came without state: one at a time is held and asked about. */
class HeldCodes {
  #held: string | undefined;
  /** The codes that a person was asked about, and how many may be. */
  readonly #asked = new Set<string>();
  #limit = 3;

  /** Judges a code: "new" is to be asked about, "held" already is. */
  add(code: string): "new" | "held" | Unused {
    if (code === this.#held) return "held";
    if (this.#asked.has(code)) return "of another login";
    if (this.#held !== undefined) {
      // Nobody can tell which of the two is the person's.
      this.#held = undefined;
      this.#limit = 0;
      return "voided by another";
    }
    if (this.#asked.size >= this.#limit) return "of another login";
    this.#asked.add(code);
    this.#held = code;
    return "new";
  }

  /** Takes a code out after the answer; false if another has voided it. */
  remove(code: string): boolean {
    const isHeld = code === this.#held;
    if (isHeld) this.#held = undefined;
    return isHeld;
  }
}

/** A login under way: owns its listeners, its timer and its end. */
class LoopbackFlow implements AuthFlow {
  readonly url: string;
  readonly port: number;
  readonly redirectUrl: string;
  state: FlowState = FlowState.IDLE;
  onState: ((state: FlowState) => unknown) | undefined;
  redirectParams: Readonly<Record<string, string>> = Object.freeze({});
  readonly #options: StartAuthOptions;
  readonly #save: Save | undefined;
  readonly #expected: Expected;
  readonly #settle = deferred<TokenReply>();
  readonly reply: Promise<TokenReply> = this.#settle.promise;
  readonly #exchange = new AbortController();
  readonly #unused = new Map<Unused, number>();
  readonly #held = new HeldCodes();
  /** The one redirect that is acted on, and the page that it brings. */
  #taken: Outcome & { answer: Promise<PageAnswer> } | undefined;
  #release: Close = () => Promise.resolve();

  constructor(options: StartAuthOptions, port: number, save?: Save) {
    this.#options = options;
    this.#save = save;
    this.onState = options.onState;
    this.port = port;
    this.redirectUrl = callbackUrl(options, port);
    this.#expected = expectedOn(port, this.redirectUrl, options);
    const { state } = this.#expected;
    this.url = authorizationUrl({ ...options, state });
    // A caller that only watches `state` must not see an unhandled rejection.
    this.reply.catch(() => {});
  }

  /** Waits for the redirect, once the server listens. */
  begin(server: LoopbackServer): void {
    const { signal, timeout } = this.#options;
    const time = waitingTime(timeout);
    const timer = setTimeout(() => {
      this.#giveUp(timeoutError(time, this.#unused, this.redirectUrl));
    }, time);
    const abort = () => this.cancel(signal?.reason);
    const forget = onAbort(signal, abort);
    const warm = setTimeout(warmUp, 20);
    this.#release = () => {
      clearTimeout(timer);
      clearTimeout(warm);
      forget();
      return server.close();
    };
    void server.failed.then((error) => this.#giveUp(error));
    this.#step(FlowState.WAITING_FOR_REDIRECT);
    // An abort while the port was opening fires no event any more.
    if (signal?.aborted) abort();
  }

  async submit(urlOrCode: string): Promise<void> {
    const outcome = judgePasted(urlOrCode, this.#expected.state);
    const { allowMissingState, confirmMissingState } = this.#options;
    // Nobody is asked about an error: without state it ends nothing.
    const isAllowed = outcome.stateMatched || !outcome.error &&
        (allowMissingState || await confirmMissingState?.());
    if (!isAllowed) throw missingStateError();
    if (this.#isWaiting) return void this.#take(outcome);
    const details = { hint: LOGIN_AGAIN };
    throw new TikTokShopError("invalid_redirect", "The login is over", details);
  }

  cancel(reason: unknown = "cancelled"): void {
    // An exchange ends by itself: its reply may have come a moment ago.
    this.#exchange.abort(reason);
    this.#giveUp(cancelledError(reason));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel("disposed of");
    await this.reply.catch(() => {});
    await this.#release();
  }

  async answer(request: Request): Promise<Response> {
    // Not by new URL(): with a broken Host it is none.
    const query = new URLSearchParams(request.url.replace(/^[^?]*/, ""));
    const verdict = judgeRequest(request, query, this.#expected);
    const { status, page, facts, headers, unused } = "code" in verdict
      ? await this.#receive(verdict)
      : verdict;
    const reason = unused && this.note(unused);
    if (!page) return plainAnswer(status, headers);
    const lang = pageLanguage(request.headers, query.get("locale"));
    return pageAnswer(status, page, lang, facts ?? reason);
  }

  /** Counts what is not used, and tells each kind once; says why. */
  note(why: Unused): Facts | undefined {
    const times = this.#unused.get(why) ?? 0;
    this.#unused.set(why, times + 1);
    const text = UNUSED[why].replace("URL", this.redirectUrl);
    if (text && times === 0) void notify(this.#options.onWarning, text);
    const [message, hint] = text.split(": ");
    return text ? errorFacts({ message, hint }) : undefined;
  }

  /** Acts on a redirect that passed the gate, or holds it. */
  async #receive(outcome: Outcome): Promise<PageAnswer> {
    const isAllowed = outcome.stateMatched || !outcome.error &&
        (!this.#isWaiting || this.#options.allowMissingState);
    if (!isAllowed) return this.#hold(outcome);
    const answer = this.#take(outcome);
    if (!answer) return turnedAway(409);
    return await within(answer, PAGE_TIMEOUT_MS) ??
      { status: 202, page: "received" };
  }

  /** A redirect without state: held and asked about, never spent unasked. */
  #hold(outcome: Outcome): PageAnswer {
    const { code, error } = outcome;
    const verdict = error ? "of another login" : this.#held.add(code);
    if (verdict !== "new" && verdict !== "held") {
      return turnedAway(400, verdict);
    }
    if (verdict === "new") void this.#ask(outcome);
    return { status: 202, page: "held" };
  }

  /** Asks about a held code; with nobody to ask, the timeout tells of it. */
  async #ask(outcome: Outcome): Promise<void> {
    this.note("without state");
    const { confirmMissingState: ask } = this.#options;
    if (!ask) return;
    const yes = await Promise.resolve().then(ask).catch(() => false);
    if (this.#held.remove(outcome.code) && yes) void this.#take(outcome);
  }

  /** Acts on the first redirect; a copy gets the same answer, others none. */
  #take(outcome: Outcome): Promise<PageAnswer> | undefined {
    if (this.#isWaiting) {
      this.redirectParams = Object.freeze(outcome.params);
      this.#taken = { ...outcome, answer: this.#conclude(outcome) };
    }
    const { code, error, answer } = this.#taken ?? {};
    const isCopy = code === outcome.code &&
      error?.message === outcome.error?.message;
    return isCopy ? answer : undefined;
  }

  /** Spends the code and settles; what the browser is to be told. */
  async #conclude({ code, error }: Outcome): Promise<PageAnswer> {
    if (error) return this.#fail(error);
    this.#step(FlowState.WAITING_FOR_RESPONSE);
    let secrets: string[] = [];
    try {
      const { signal } = this.#exchange;
      const options = { ...this.#options, signal };
      const { reply, meta } = await obtainFor(options, code);
      // From here on nothing cancels the login: the code is spent.
      secrets = tokensOf(reply);
      const profile = await this.#save?.(reply, meta);
      await this.#options.onReply?.(reply, meta);
      this.#step(FlowState.SUCCESS);
      this.#settle.resolve(reply);
      const facts = grantFacts(reply, profile);
      return { status: 200, page: "success", facts };
    } catch (error) {
      return this.#fail(error, secrets);
    }
  }

  /** Ends a login from outside, as long as no redirect was taken. */
  #giveUp(error: TikTokShopError): void {
    if (this.#isWaiting) this.#fail(error);
  }

  #fail(error: unknown, secrets: string[] = []): PageAnswer {
    const { kind } = (error ?? {}) as Partial<TikTokShopError>;
    const isDenial = kind === "access_denied" &&
      this.#step(FlowState.ACCESS_DENIED);
    if (!isDenial) this.#step(FlowState.FAILED);
    this.#settle.reject(error);
    if (isDenial) return { status: 403, page: "denied" };
    const facts = errorFacts(error, secrets);
    return { status: 502, page: "failed", facts };
  }

  get #isWaiting(): boolean {
    return this.state === FlowState.WAITING_FOR_REDIRECT;
  }

  /** Takes a step that {@linkcode NEXT_STATES} allows, else none. */
  #step(state: FlowState): boolean {
    if (!NEXT_STATES[this.state]?.includes(state)) return false;
    this.state = state;
    void notify(this.onState, state, this.#options.onWarning);
    if (!NEXT_STATES[state]) void this.#release();
    return true;
  }
}

/** Done while the person is at TikTok's: a first `fetch` takes 17 to 73 ms. */
function warmUp(): void {
  renderPage("success", "en");
  void fetch("data:,").then((response) => response.text()).catch(() => {});
}

/** Checks all options of a login but the app's. */
function assertWait(options: Partial<StartAuthOptions>): void {
  portRange(options.port ?? DEFAULT_PORT);
  waitingTime(options.timeout);
  const { host = "localhost", path = "/", redirectUrl, tls } = options;
  if (host !== "localhost" && host !== "127.0.0.1") {
    throw misuse(`Cannot use the host "${host}": use localhost or 127.0.0.1`);
  }
  if (!/^\/[^?#\s]*$/.test(path)) {
    throw misuse(`Cannot use the path "${path}": use "/…", no "?", no "#"`);
  }
  const url = redirectUrl && endpointUrl(redirectUrl, "redirect URL");
  if (url) assertBrowsable(Number(url.port));
  if (tls) assertTls(tls);
  limitsOf(options, TOKEN_LIMITS);
  tokenUrl(options);
}

/** How many ms to wait for the redirect. */
function waitingTime(timeout: Duration = DEFAULT_TIMEOUT): number {
  const time = seconds(timeout) * 1000;
  if (time <= 2 ** 31 - 1) return time;
  throw outOfRange("Cannot wait longer than 24 days");
}

/** Checked early: a wrong key would fail in the browser only. */
function assertTls(tls: { cert: string; key: string }): void {
  const { createPrivateKey, X509Certificate } = node("node:crypto");
  let part = "certificate";
  try {
    const cert = new X509Certificate(tls.cert);
    part = "key";
    if (cert.checkPrivateKey(createPrivateKey(tls.key))) return;
  } catch {
    throw misuse(`Cannot read the TLS ${part}: use PEM, without a password`);
  }
  throw misuse("The TLS key belongs to another certificate");
}

/** Goes with every 405, and answers OPTIONS. */
const ALLOW = { Allow: "GET, HEAD, OPTIONS" };

/** An answer without a page. */
function plainAnswer(status: number, headers?: Record<string, string>) {
  const text = status === 204 ? null : `Status ${status}\n`;
  const type = "text/plain; charset=utf-8";
  const own = status === 405 ? ALLOW : {};
  return safeAnswer(status, text, { "Content-Type": type, ...own, ...headers });
}

function pageAnswer(status: number, page: Page, lang: Language, facts?: Facts) {
  const type = "text/html; charset=utf-8";
  const headers = { "Content-Type": type, "Content-Language": lang };
  return safeAnswer(status, renderPage(page, lang, facts), headers);
}

/** An answer that is not cached, and whose page can load nothing. */
function safeAnswer(status: number, body: string | null, headers: object) {
  const safe = {
    "Connection": "close",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": PAGE_POLICY,
  };
  return new Response(body, { status, headers: { ...safe, ...headers } });
}

// === Tokens

const DEFAULT_TOKEN_ENDPOINT = "https://auth.tiktok-shops.com/api/v2/token/get";
const DEFAULT_REFRESH_ENDPOINT =
  "https://auth.tiktok-shops.com/api/v2/token/refresh";

/** Options of {@linkcode exchangeCode}. */
export interface ExchangeOptions
  extends
    TokenOptions,
    Pick<LoginOptions, "serviceId" | "region" | "userType" | "requireScopes">,
    Pick<LoginOptions, "switch" | "onSaving" | "saveSignal" | "onSaved">,
    Pick<LoginOptions, "onWarning"> {
  /** Where the tokens are saved, as {@linkcode login} does. @default {false} */
  store?: TokenStore | false;
  /** Name to save them under. @default {made of the seller's name} */
  profile?: string;
}

/**
 * Exchanges an authorization code for tokens. A code lives 30 minutes and can
 * be used once. Given a store, it proves that the tokens can be saved, spends
 * the code and saves them: all that a web server's callback needs.
 *
 * Source: TikTok Shop Partner Center, "Get access token".
 *
 * @throws {TikTokShopError} of kind `rejected`, `network` or
 * `invalid_response`; of kind `store` or `missing_scope` as {@linkcode login}.
 */
export async function exchangeCode(
  app: App,
  code: string,
  options: ExchangeOptions = {},
): Promise<TokenReply> {
  const { store = false } = options;
  if (store) await assertSavable(store, options);
  const full = { ...options, ...app, store };
  const { reply, meta } = await obtainFor(full, code);
  await saveReply(reply, meta, full);
  return reply;
}

/**
 * Gets new tokens for a refresh token. Save the reply at once: the old tokens
 * may be dead. A reply without a refresh token leaves the old one good.
 * Source: TikTok Shop Partner Center, "Refresh access token".
 *
 * @throws {TikTokShopError} of kind `login_required`, `rejected`, `network`
 * or `invalid_response`.
 */
export async function refreshTokens(
  app: App,
  refreshToken: string,
  options: TokenOptions = {},
): Promise<TokenReply> {
  return (await spendToken(app, refreshToken, options)).reply;
}

function tokenUrl(options: TokenOptions): URL {
  const { tokenEndpoint = DEFAULT_TOKEN_ENDPOINT } = options;
  return endpointUrl(tokenEndpoint, "token endpoint");
}

/** The app with its secret, fetched if it is not at hand. */
async function credentialsFrom(app: App): Promise<AppCredentials> {
  const appKey = assertAppKey(app.appKey);
  let { appSecret } = app;
  if (typeof appSecret === "function") {
    appSecret = await Promise.resolve().then(appSecret).catch((cause) => {
      const message = `Cannot get the app secret: ${messageOf(cause)}`;
      const hint = "see what keeps it";
      throw new TikTokShopError("store", message, { cause, hint });
    });
  }
  return { appKey, appSecret: assertAppSecret(appSecret) };
}

function spendToken(app: App, refresh_token: string, options: TokenOptions) {
  const { refreshEndpoint = DEFAULT_REFRESH_ENDPOINT } = options;
  const url = endpointUrl(refreshEndpoint, "refresh endpoint");
  const grant = { refresh_token, grant_type: "refresh_token" };
  return obtainTokens(url, app, grant, options);
}

/** Spends the code of a login: the reply, and what to save with it. */
async function obtainFor(options: App & ExchangeOptions, auth_code: string) {
  const { appKey: app_key, serviceId: service_id } = options;
  const { region = "row", userType: user_type = "seller" } = options;
  const grant_type = "authorized_code"; // not "authorization_code"
  const grant = { auth_code, grant_type };
  const url = tokenUrl(options);
  const { reply, meta } = await obtainTokens(url, options, grant, options);
  return { reply, meta: { ...meta, app_key, service_id, region, user_type } };
}

/** Makes a token request: the reply, and what the host's clock says. */
async function obtainTokens(
  url: URL,
  app: App,
  grant: Record<string, string>,
  options: TokenOptions,
) {
  const { signal, now = Date.now } = options;
  const { appKey: app_key, appSecret: app_secret } = await credentialsFrom(app);
  // TikTok wants a GET, with the secret in its query.
  withParameters(url, { app_key, app_secret, ...grant });
  const tried = `Cannot get tokens from ${url.origin}${url.pathname}`;
  const secrets = [...url.searchParams]
    .flatMap(([name, value]) => SECRET_NAME.test(name) ? [value] : []);
  const limits = limitsOf(options, TOKEN_LIMITS);
  return await makeCall({
    isRead: true,
    signal,
    send: () => send(url, {}, { ...options, tried, secrets, limits }),
    judge: (answer) => {
      const reply = judgeTokenAnswer(answer, tried, secrets);
      const local = Math.floor(now() / 1000);
      const obtained_at = answer.date ?? local;
      const clock_offset = obtained_at - local;
      const meta: TokenMeta = { version: 1, obtained_at };
      // A second or two is the time that the answer took.
      if (Math.abs(clock_offset) > 5) meta.clock_offset = clock_offset;
      return { reply, meta };
    },
  });
}

/** Judges the answer to a token request. Pure. */
function judgeTokenAnswer(answer: HttpAnswer, tried: string, secrets: Secrets) {
  const reply = judgeEnvelope(answer, tried, secrets);
  if (hasTokens(reply.data)) return reply as TokenReply;
  const isDamaged = isRecord(reply.data) && reply.data.access_token;
  const what = isDamaged ? "damaged tokens" : "no access token";
  const message = `${tried}: the reply has ${what}`;
  const hint = "try again; if it stays so, name the request id to TikTok";
  const requestId = requestIdOf(reply, secrets);
  const details = { status: answer.status, requestId, hint };
  throw new TikTokShopError("invalid_response", message, details);
}

/** Whether tokens can be used: a header takes printable ASCII alone. */
function hasTokens(data: unknown): boolean {
  if (!isRecord(data)) return false;
  const { access_token: access, refresh_token: refresh } = data;
  return typeof access === "string" && /^[\x21-\x7e]+$/.test(access) &&
    (typeof refresh !== "string" || /^[\x21-\x7e]*$/.test(refresh));
}

function tokensOf({ data }: TokenReply): string[] {
  return [data.access_token, data.refresh_token]
    .filter((token) => typeof token === "string");
}

function withoutMeta({ meta: _, ...reply }: StoredTokens): TokenReply {
  return reply;
}

// === Access tokens

/** Options of {@linkcode accessToken}. */
export interface AccessTokenOptions extends App, TokenOptions {
  /** Where the tokens are kept. @default {fileStore()} */
  store?: TokenStore;
  /** Name that they are kept under. @default {"default"} */
  profile?: string;
  /**
   * Refresh if less than this is left. A fresh token that has less is returned
   * with a warning, and none is asked for within an hour. @default {"5m"}
   */
  minValid?: Duration;
  /** Called with what a person should know, while the call goes on. */
  onWarning?: (message: string) => unknown;
}

/**
 * A valid access token for a profile: from the store, refreshed when it is
 * about to expire, by one request for all callers in all processes.
 *
 * A refresh that fails while the old token still lives is a warning, unless
 * `minValid` is given. If the grant is gone, TikTok is asked once a minute.
 *
 * @throws {TikTokShopError} of kind `login_required` without tokens or grant;
 * of kind `store`, and of the kinds of {@linkcode refreshTokens}.
 */
export async function accessToken(
  options: AccessTokenOptions,
): Promise<string> {
  return (await validTokens(callOptions(options))).data.access_token;
}

/** How calls are made with the tokens of a profile. */
interface CallOptions extends Omit<ApiOptions, keyof App> {
  store: TokenStore;
  profile: string;
  /** Called only when needed: a person may be asked. */
  credentials: (tokens: StoredTokens) => Promise<App>;
  /** Seconds that a refresh should bring; left out, it is made in any case. */
  least?: number;
  /** Limits how many token requests are made at a time. */
  limited?: Limit;
}

function callOptions(options: ApiOptions): CallOptions {
  const { store = defaultStore(), profile = "default" } = options;
  const credentials = () => Promise.resolve(options);
  return { ...options, store, profile, credentials };
}

/** The tokens of a profile, with at least `minValid` left. */
async function validTokens(options: CallOptions): Promise<StoredTokens> {
  const { store, profile, minValid, now = Date.now, onWarning } = options;
  const least = seconds(minValid ?? "5m", 0);
  const read = sharedRead(store, profile);
  const tokens = await loadTokens(store, profile, options.signal, read);
  if (secondsLeft(tokens, now) > least) return tokens;
  const name = `The access token of profile "${printable(profile)}"`;
  try {
    const fresh = await refreshOnce(tokens, { ...options, least });
    const left = secondsLeft(fresh, now);
    if (left > least) return fresh;
    const has = left > 0
      ? `has ${timeLeft(left)} left, not ${timeLeft(least)}`
      : "has expired";
    await notify(onWarning, `${name} ${has}: a refresh brings no more`);
    return fresh;
  } catch (error) {
    // A cancelled call and unsaved tokens are errors in any case.
    const isHarmless = error instanceof TikTokShopError &&
      error.kind !== "cancelled" && !error.reply && minValid === undefined;
    if (!isHarmless || secondsLeft(tokens, now) <= 0) throw error;
    const what = `${name} could not be refreshed and is used while it lives`;
    await notify(onWarning, `${what}: ${messageOf(error)}`);
    return tokens;
  }
}

const UNMET_PAUSE = 3600; // seconds until a longer life is asked for again
const REFUSED_PAUSE = 60; // seconds until a grant that is gone is asked for

/** Whether a refresh brought too little lately; throws if it was refused. */
function isUseless(tokens: StoredTokens, options: CallOptions): boolean {
  const { least, now = Date.now } = options;
  if (least === undefined) return false;
  const { meta } = tokens;
  const { refresh_refused: refused, unmet_min_valid: unmet } = meta;
  const age = (at: unknown) =>
    Math.abs(hostTime(meta, now) - (integerOf(at) ?? NaN));
  if (isRecord(refused) && age(refused.at) < REFUSED_PAUSE) {
    const message = textOf(refused.message);
    const code = integerOf(refused.code) ?? 0;
    const { hint = LOGIN_AGAIN } = meaningOf(code, message) ?? {};
    const requestId = requestIdOf(refused);
    throw loginRequired(message, { hint, code, requestId });
  }
  const life = expiryOf(tokens) - obtainedAt(meta);
  // A token that has expired since is refreshed, if it lived for a minute.
  return unmet !== undefined && age(meta.obtained_at) < UNMET_PAUSE &&
    life <= least && (life < 60 || secondsLeft(tokens, now) > 0);
}

type Read = ReturnType<TokenStore["load"]>;

/** The reads that begin once this turn has ended. */
const nextReads = new WeakMap<TokenStore, Map<string, Read>>();

/** One read for all callers of a turn, so that 10,000 of them cost one. */
function sharedRead(store: TokenStore, profile: string): Read {
  const reads: Map<string, Read> = nextReads.get(store) ?? new Map();
  nextReads.set(store, reads);
  const read = reads.get(profile) ?? Promise.resolve().then(() => {
    // A later caller must see what was saved before it called.
    reads.delete(profile);
    return store.load(profile);
  });
  reads.set(profile, read);
  return read;
}

async function loadTokens(
  store: TokenStore,
  profile: string,
  signal?: AbortSignal,
  read: Read = store.load(profile),
): Promise<StoredTokens> {
  const tokens = await abortable(read, signal);
  if (tokens) return tokens;
  // Not of a database: it may have a million of them.
  const names = store instanceof FileStore ? await store.list() : [];
  const others = names.length ? `: there are ${names.join(", ")}` : "";
  const message = `There are no tokens under profile "${profile}"`;
  throw loginRequired(message + others);
}

function loginRequired(message: string, details?: ErrorDetails) {
  const all = { hint: LOGIN_AGAIN, ...details };
  return new TikTokShopError("login_required", message, all);
}

/** When tokens were obtained, in Unix seconds of the token host's clock. */
function obtainedAt(meta: TokenMeta): number {
  return integerOf(meta.obtained_at) ?? 0;
}

/** "Now" by the token host's clock, in Unix seconds. */
function hostTime(meta: TokenMeta, now: () => number): number {
  const local = now() / 1000;
  const time = local + (integerOf(meta.clock_offset) ?? 0);
  // The local clock was set right since: the measured offset is wrong.
  return time < obtainedAt(meta) - 5 ? local : time;
}

/** When an access token ends, in Unix seconds; if unknown, after seven days. */
function expiryOf({ data, meta }: StoredTokens): number {
  return integerOf(data.access_token_expire_in) ?? obtainedAt(meta) + 604800;
}

/** Seconds that an access token surely has left. */
function secondsLeft(tokens: StoredTokens, now: () => number): number {
  const obtained = obtainedAt(tokens.meta);
  const time = hostTime(tokens.meta, now);
  // A clock that was set back proves nothing: a refresh measures it again.
  if (time < obtained - 3600) return 0;
  // In the first hour the measured offset holds, however large it is.
  const isFirstHour = time < obtained + 3600;
  return expiryOf(tokens) - (isFirstHour ? time : Math.max(time, now() / 1000));
}

/** The refreshes under way in this process, each with its callers. */
const refreshes = new WeakMap<TokenStore, Map<string, SharedRefresh>>();

interface SharedRefresh {
  tokens: Promise<StoredTokens>;
  callers: number;
  left: AbortController; // aborted when the last caller has left
}

/** One refresh for all callers of this process; each may stop waiting. */
async function refreshOnce(seen: StoredTokens, options: CallOptions) {
  if (isUseless(seen, options)) return seen;
  const { store, profile, signal } = options;
  const running: Map<string, SharedRefresh> = refreshes.get(store) ?? new Map();
  refreshes.set(store, running);
  let shared = running.get(profile);
  if (!shared) {
    const left = new AbortController();
    // Without this caller's signal: the others go on waiting.
    const tokens = refreshLocked(seen, { ...options, signal: left.signal });
    running.set(profile, shared = { tokens, callers: 0, left });
  }
  shared.callers++;
  try {
    return await abortable(shared.tokens, signal);
  } finally {
    shared.callers -= 1;
    if (shared.callers === 0) {
      shared.left.abort("nobody waits for the refresh any more");
      running.delete(profile);
    }
  }
}

/** Refreshes under the lock, unless another process has done so meanwhile. */
async function refreshLocked(
  seen: StoredTokens,
  options: CallOptions,
): Promise<StoredTokens> {
  const { store, profile, signal } = options;
  // Before the lock: no other process waits while a person is asked.
  const app = await credentialsOf(seen, options);
  try {
    return await withLock(store, profile, options, async (lock) => {
      const held = await loadTokens(store, profile, signal);
      if (!sameTokens(held, seen) || isUseless(held, options)) return held;
      await store.assertWritable?.(profile, lock, options.onWarning);
      // A store may ignore its signal.
      if (signal?.aborted) throw cancelledError(signal.reason);
      const fresh = await renewedTokens(held, app, lock, options);
      return await saveRenewed(held, fresh, lock, options).catch((error) => {
        throw unsavedError(error, withoutMeta(fresh));
      });
    });
  } catch (error) {
    const { kind } = error as Partial<TikTokShopError>;
    // The lock was lost before the request: begin again.
    if (kind === "lock_lost") return await refreshLocked(seen, options);
    if (kind !== "login_required") throw error;
    // A process that lost its lock may still have refreshed first.
    const now = await store.load(profile).catch(() => undefined);
    if (now && !sameTokens(now, seen)) return now;
    throw error;
  }
}

/** Whether both are of one refresh; TikTok may send the same token again. */
function sameTokens(a: StoredTokens, b: StoredTokens): boolean {
  return a.data.access_token === b.data.access_token &&
    a.data.refresh_token === b.data.refresh_token &&
    a.meta.obtained_at === b.meta.obtained_at;
}

/** The credentials of the app that a profile belongs to. */
async function credentialsOf(tokens: StoredTokens, options: CallOptions) {
  const { credentials, profile, signal } = options;
  const app = await abortable(credentials(tokens), signal);
  const owner = tokens.meta.app_key;
  const isOurs = !owner || owner === app.appKey;
  if (isOurs) return await abortable(credentialsFrom(app), signal);
  const whose = `belongs to the app key "${owner}", not to "${app.appKey}"`;
  throw misuse(`Profile "${profile}" ${whose}`);
}

/** Asks for new tokens; remembers a refusal, so that not every call asks. */
async function renewedTokens(
  held: StoredTokens,
  app: AppCredentials,
  lock: TokenLock,
  options: CallOptions,
): Promise<StoredTokens> {
  const { store, profile, least, now = Date.now } = options;
  const { refresh_token: token } = held.data;
  if (typeof token !== "string" || !token) {
    throw loginRequired(`Profile "${profile}" has no refresh token`);
  }
  // Never aborted: the reply may be the only copy of the new tokens.
  const unaborted = { ...options, signal: undefined };
  const obtain = () => spendToken(app, token, unaborted);
  try {
    const { reply, meta } = await (options.limited?.(obtain) ?? obtain());
    const fresh = mergedTokens(held, reply, { app_key: app.appKey, ...meta });
    const isUnmet = least !== undefined && secondsLeft(fresh, now) <= least;
    if (isUnmet) fresh.meta.unmet_min_valid = least;
    return fresh;
  } catch (error) {
    const { kind, code, message, requestId } = error as TikTokShopError;
    if (kind !== "login_required" || code === undefined) throw error;
    const at = Math.floor(hostTime(held.meta, now));
    const refresh_refused = { at, code, message, request_id: requestId };
    const tokens = { ...held, meta: { ...held.meta, refresh_refused } };
    // If that cannot be saved, the next call asks again: no more is lost.
    await store.save(profile, tokens, lock).catch(() => {});
    throw error;
  }
}

/** The reply verbatim, but the old refresh token if none came back. Pure. */
function mergedTokens(held: StoredTokens, reply: TokenReply, meta: TokenMeta) {
  const { refresh_token, refresh_token_expire_in } = held.data;
  const old = { refresh_token, refresh_token_expire_in };
  const open_id = reply.data.open_id ?? held.data.open_id;
  const data = { ...reply.data, open_id, ...!reply.data.refresh_token && old };
  const all = { ...held.meta, ...meta };
  for (const name of ["clock_offset", "unmet_min_valid", "refresh_refused"]) {
    if (!(name in meta)) delete all[name];
  }
  return withToJson({ ...reply, data: withToJson(data), meta: all });
}

/** Saves a refresh's tokens, even without its lock, unless newer are there. */
async function saveRenewed(
  held: StoredTokens,
  fresh: StoredTokens,
  lock: TokenLock,
  options: CallOptions,
): Promise<StoredTokens> {
  const { store, profile } = options;
  try {
    await store.save(profile, fresh, lock);
    return fresh;
  } catch (error) {
    if ((error as Partial<TikTokShopError>).kind !== "lock_lost") throw error;
  }
  return await withLock(store, profile, {}, async (again) => {
    const now = await loadTokens(store, profile);
    // With another refresh token in the store, ours may be dead.
    const isOlder = sameTokens(now, held) ||
      obtainedAt(now.meta) < obtainedAt(fresh.meta);
    return isOlder && now.data.refresh_token === held.data.refresh_token
      ? await saveRenewed(held, fresh, again, options)
      : now;
  });
}

// === Signed API calls

const DEFAULT_API_ENDPOINT = "https://open-api.tiktokglobalshop.com";

/** Query parameters, decoded; what is undefined or null is left out. */
export interface Query {
  /** A parameter. */
  [name: string]: string | number | bigint | boolean | null | undefined;
}

/** What a signature covers. */
export interface SignedRequest {
  /** The path, such as `/authorization/202309/shops`. */
  path: string;
  /** Every query parameter, decoded; `sign` and `access_token` are skipped. */
  query?: Query;
  /** The exact body; none for GET. */
  body?: string | Uint8Array;
  /** The content type; a multipart body is not signed. */
  contentType?: string;
}

/**
 * The `sign` parameter of an API call: HMAC-SHA256 in lower-case hex. Pure.
 * Source: TikTok Shop Partner Center, "Sign your API request".
 */
export function signature(appSecret: string, request: SignedRequest): string {
  const { path, contentType = "" } = request;
  const query = queryText(request.query);
  const isMultipart = /^multipart\/form-data/i.test(contentType);
  const body = isMultipart ? "" : request.body ?? "";
  const parameters = Object.keys(query)
    .filter((name) => name !== "sign" && name !== "access_token")
    .sort().map((name) => name + query[name]).join("");
  const head = appSecret + path + parameters;
  const hmac = node("node:crypto").createHmac("sha256", appSecret);
  // Text in one piece: each update is one more call into native code.
  return typeof body === "string"
    ? hmac.update(head + body + appSecret).digest("hex")
    : hmac.update(head).update(body).update(appSecret).digest("hex");
}

/** A call of TikTok Shop's API. */
export interface ApiRequest {
  /** `GET`, `POST`, `PUT`, `PATCH` or `DELETE`. @default {"GET"} */
  method?: string;
  /** The path, such as `/order/202309/orders/search`. */
  path: string;
  /** Query parameters, decoded; those of the signature are added. */
  query?: Query;
  /**
   * The body: text, bytes (a Blob, an ArrayBuffer or a view of one) as they
   * are, a FormData as multipart, plain objects and arrays as JSON.
   */
  body?: unknown;
  /**
   * The shop to act for, by id, name, code or cipher; its `shop_cipher` is
   * sent in any case. `none` sends none. @default {the only shop known}
   */
  shop?: string;
}

/** Options of {@linkcode callApi} and {@linkcode authorizedShops}. */
export interface ApiOptions extends AccessTokenOptions {
  /** Host of the API. @default {"https://open-api.tiktokglobalshop.com"} */
  apiEndpoint?: string;
}

/** TikTok's reply to an API call, verbatim; `data` is taken to be a `T`. */
export interface ApiReply<T = unknown> {
  /** 0: success. */
  code: number;
  /** `Success`. */
  message: string;
  /** What was asked for. */
  data?: T;
  /** TikTok's id of the request. */
  request_id?: string;
  /** Whatever else TikTok sends. */
  [name: string]: unknown;
}

/**
 * Makes a signed API call with the tokens of a profile, which are refreshed
 * when they are about to expire, or when TikTok says that they have. Reads
 * (GET, `POST …/search`, `POST …/query`) are tried again after a failure that
 * may pass; any other call only if TikTok surely has not carried it out.
 * Source: TikTok Shop Partner Center, "Sign your API request".
 *
 * @throws {TikTokShopError} of kind `rejected` if TikTok's `code` is not 0;
 * of the kinds of {@linkcode accessToken}.
 * @throws {TypeError} if the call cannot be made so: a wrong method, path,
 * body or shop, or tokens of another app.
 */
export async function callApi<T = unknown>(
  request: ApiRequest,
  options: ApiOptions,
): Promise<ApiReply<T>> {
  return await callWith(request, callOptions(options)) as ApiReply<T>;
}

async function callWith(request: ApiRequest, options: CallOptions) {
  const call = await prepareCall(request, options);
  const tokens = await validTokens(options);
  const app = await credentialsOf(tokens, options);
  const { operation, tried } = call;
  const time = () => hostTime(live.tokens.meta, options.now ?? Date.now);
  const secrets = [app.appSecret];
  const live: LiveCall = { ...call, app, tokens, time, secrets };
  if (request.shop !== undefined) {
    live.query.shop_cipher = await shopCipher(request.shop, tokens, options);
  } else if (!call.isExplicit && !WITHOUT_CIPHER.test(operation)) {
    live.added = onlyCipher(knownShops(tokens));
  }
  return await makeCall({
    isRead: /^GET |^POST .*\/(search|query)$/.test(operation),
    signal: options.signal,
    send: () => sendSigned(live, options),
    judge: (answer) =>
      judgeEnvelope(answer, tried, secrets, redactedBody) as ApiReply,
    cures: curesOf(live, options),
  });
}

const METHODS = "GET, POST, PUT, PATCH, DELETE";

/** A call under way, and what its cures change. */
type LiveCall = Awaited<ReturnType<typeof prepareCall>> & {
  app: AppCredentials;
  tokens: StoredTokens;
  /** The cipher that we added unasked. */
  added?: string;
  /** TikTok's time, in Unix seconds. */
  time: () => number;
  /** What was sent, and must not be shown. */
  secrets: string[];
};

/** Refuses what cannot be sent, before any request is made. */
async function prepareCall(request: ApiRequest, options: CallOptions) {
  const method = (request.method ?? "GET").toUpperCase();
  if (!METHODS.split(", ").includes(method)) {
    throw misuse(`Cannot call with the method "${method}": use ${METHODS}`);
  }
  const limits = limitsOf(options, API_LIMITS);
  const { url, path } = apiUrl(options, request.path);
  const twice = repeatedName(url.searchParams);
  // The signature could cover only one of them.
  if (twice) throw misuse(`Cannot send "${twice}" twice in the query`);
  const own = Object.fromEntries(url.searchParams);
  const query: Query = { ...own, ...queryText(request.query) };
  url.search = "";
  if (request.shop !== undefined && "shop_cipher" in query) {
    throw misuse("Cannot send both a shop and a shop_cipher: give one of them");
  }
  const isExplicit = request.shop !== undefined || "shop_cipher" in query ||
    "category_asset_cipher" in query;
  const sent = await requestBody(method, request.body);
  const operation = `${method} ${path}`;
  const tried = `Cannot call ${operation}`;
  const call = { method, url, path, operation, tried, limits };
  return { ...call, query, isExplicit, ...sent };
}

/** Query parameters as they are sent. */
function queryText(query: Query = {}): Record<string, string> {
  if (!isPlain(query)) {
    throw misuse("Cannot read the query: give a plain object of parameters");
  }
  const given = Object.entries(query)
    .filter(([, value]) => value !== undefined && value !== null);
  for (const [name, value] of given) {
    const isText = /^(string|bigint|boolean)$/.test(typeof value);
    if (isText || Number.isFinite(value)) continue;
    throw misuse(`Cannot send "${name}" in the query: give text, a number`);
  }
  return Object.fromEntries(given.map(([name, value]) => [name, `${value}`]));
}

/** How the refusals of a call are cured: see {@linkcode TIKTOK_CODES}. */
function curesOf(live: LiveCall, options: CallOptions) {
  const { store, profile, now = Date.now } = options;
  return {
    "refresh": async () => {
      live.tokens = await refreshOnce(live.tokens, { ...options, least: 0 });
      return true;
    },
    // Another process may have refreshed since they were read.
    "reload": async () => {
      const old = live.tokens;
      live.tokens = await store.load(profile) ?? old;
      return live.tokens.data.access_token !== old.data.access_token;
    },
    "without-cipher": () => {
      const isOurs = live.added !== undefined;
      live.added = undefined;
      return isOurs;
    },
    "with-cipher": async () => {
      if (live.isExplicit || live.added) return false;
      const known = knownShops(live.tokens);
      const ask = () => shopsWith(options).catch(() => []);
      live.added = onlyCipher(known.length ? known : await ask());
      return live.added !== undefined;
    },
    // A clock may have been set since the tokens came.
    "host-time": ({ date = NaN }: HttpAnswer) => {
      if (!(Math.abs(date - live.time()) > 20)) return false;
      const since = now();
      live.time = () => date + (now() - since) / 1000;
      return true;
    },
  };
}

/** The published operations that take no `shop_cipher`; see the tests. */
const WITHOUT_CIPHER = new RegExp([
  " /(affiliate_creator|affiliate_partner|open|seller|supply_chain)/",
  "^GET /authorization/",
  "^POST /product/\\d+/brands$",
  " /(affiliate_seller|product)/\\d+/(files|images)/upload$",
  "/(compliance|listing_schemas|live_rooms|sizecharts)\\b",
  "/global_(attributes|categories|products|rules|warehouses)\\b",
  "/(bundles|customs_info/\\w+|gpa_upgrade_task|orders/sync)$",
  "/videos/performances$",
].join("|"));

/** The shops that are remembered with the tokens. */
function knownShops({ meta }: StoredTokens): Shop[] {
  const shops: unknown[] = Array.isArray(meta.shops) ? meta.shops : [];
  return shops.filter((shop) => isRecord(shop) && shop.cipher) as Shop[];
}

function onlyCipher(shops: readonly Shop[]): string | undefined {
  return shops.length === 1 ? textOf(shops[0]!.cipher) : undefined;
}

/** The cipher of the shop asked for, or of the only one known. */
async function shopCipher(
  shop: string | undefined,
  tokens: StoredTokens,
  options: CallOptions,
): Promise<string | undefined> {
  const known = knownShops(tokens);
  if (shop === undefined) return onlyCipher(known);
  if (shop === "none") return undefined;
  const found = findShop(known, shop) ??
    findShop(await shopsWith(options), shop);
  if (found) return found.cipher;
  throw misuse(`There is no shop "${shop}": name one of the authorized shops`);
}

/** A shop by cipher, id, code or name; two of the same name are refused. */
function findShop(shops: readonly Shop[], wanted: string): Shop | undefined {
  const exact = shops.find(({ cipher, id, code }) =>
    [cipher, textOf(id), code].includes(wanted)
  );
  if (exact) return exact;
  const named = shops.filter(({ name }) =>
    textOf(name).toLowerCase() === wanted.toLowerCase()
  );
  if (named.length < 2) return named[0];
  const ids = named.map(({ id }) => id).join(", ");
  throw misuse(`Several shops are named "${wanted}": give one of ${ids}`);
}

/** Signs a call and makes it, once. */
async function sendSigned(live: LiveCall, options: CallOptions) {
  const { app, tokens, added, path, body, contentType } = live;
  const { method, tried, secrets, limits } = live;
  const query = queryText({
    ...live.query,
    ...(added && { shop_cipher: added }),
    app_key: app.appKey,
    timestamp: Math.floor(live.time()),
  });
  // A multipart body is not signed, and fetch alone knows its bytes.
  const signed = body instanceof FormData ? undefined : body;
  const request = { path, query, body: signed, contentType };
  query.sign = signature(app.appSecret, request);
  const token = tokens.data.access_token;
  secrets.push(token, query.sign);
  const headers = {
    "x-tts-access-token": token,
    ...(contentType && { "content-type": contentType }),
  };
  return await send(
    withParameters(new URL(live.url), query),
    { method, headers, body: body as RequestInit["body"] },
    { ...options, tried, secrets, limits },
  );
}

/** Where a call goes, and its path without that of a gateway before the API. */
function apiUrl(options: CallOptions, path: string) {
  const { apiEndpoint = DEFAULT_API_ENDPOINT } = options;
  const url = endpointUrl(apiEndpoint, "API endpoint");
  if (!/^\/[^/\\]/.test(path) || /[#\s]/.test(path)) {
    throw misuse(`Cannot call the path "${path}": it starts with "/"`);
  }
  const own = new URL(path, url);
  // Set, not parsed: "//host" would be another host.
  url.pathname = url.pathname.replace(/\/$/, "") + own.pathname;
  url.search = own.search;
  return { url, path: own.pathname };
}

/** The exact body, and its content type; fetch itself sets multipart's. */
async function requestBody(method: string, body: unknown) {
  const contentType = "application/json";
  if (body === undefined || body === "") return { contentType };
  if (method === "GET") {
    throw misuse("Cannot send a body with GET: use the query");
  }
  if (body instanceof FormData) return { body };
  if (typeof body === "string") return { body, contentType };
  const isBlob = body instanceof Blob;
  // A copy: what is signed is what is sent.
  const bytes = bytesOf(isBlob ? await body.arrayBuffer() : body)?.slice();
  if (bytes) {
    return { body: bytes, contentType: isBlob && body.type || contentType };
  }
  assertJson(body);
  return { body: stringifyJson(body, 0), contentType };
}

/** Refuses what JSON would silently lose: a Map is `{}` there, NaN is null. */
function assertJson(value: unknown, depth = 0): void {
  if (depth > 500) throw misuse("Cannot send as JSON: it is nested too deep");
  const isKept = value === null || Number.isFinite(value) ||
    /^(string|bigint|boolean|undefined)$/.test(typeof value) ||
    typeof (value as { toJSON?: unknown }).toJSON === "function";
  if (isKept) return;
  if (!Array.isArray(value) && !isPlain(value)) {
    const { name } = (value as object).constructor ?? {};
    const what = typeof value === "number" ? `${value}` : name || tagOf(value);
    const rule = "use bytes, text, Blob, global FormData, plain object, array";
    throw misuse(`Cannot send ${what.slice(0, 60)} as JSON: ${rule}`);
  }
  for (const member of Object.values(value)) assertJson(member, depth + 1);
}

/**
 * All shops that a profile's tokens may act for; the profile remembers them.
 * Source: TikTok Shop Partner Center, "Get Authorized Shops".
 *
 * @throws {TikTokShopError} of the kinds of {@linkcode callApi}.
 */
export async function authorizedShops(options: ApiOptions): Promise<Shop[]> {
  return await shopsWith(callOptions(options));
}

async function shopsWith(options: CallOptions): Promise<Shop[]> {
  const path = "/authorization/202309/shops";
  const shops: Shop[] = [];
  for await (const { data } of apiPages({ path }, options)) {
    const found = isRecord(data) ? data.shops : undefined;
    if (Array.isArray(found)) shops.push(...found.filter(isRecord) as Shop[]);
  }
  const { store, profile } = options;
  await withLock(store, profile, options, async (lock) => {
    const tokens = await loadTokens(store, profile, options.signal);
    const meta = { ...tokens.meta, shops };
    await store.save(profile, { ...tokens, meta }, lock);
  });
  return shops;
}

/** The pages of a call, one after the other, by `next_page_token`. */
async function* apiPages(request: ApiRequest, options: CallOptions) {
  const seen = new Set(["", textOf(request.query?.page_token)]);
  for (let query = request.query;;) {
    const reply = await callWith({ ...request, query }, options);
    yield reply;
    const next = isRecord(reply.data) ? reply.data.next_page_token : "";
    // A token that came before would lead round for ever.
    if (typeof next !== "string" || seen.has(next)) return;
    seen.add(next);
    query = { ...request.query, page_token: next };
  }
}

// === Webhooks

/** What TikTok told a webhook. */
export type WebhookEvent =
  | DeauthorizationEvent
  | AuthorizationEndingEvent
  | OtherWebhookEvent;

/** The members of every {@linkcode WebhookEvent}. */
export interface WebhookEnvelope {
  /** TikTok's number of the event. */
  type: number;
  /** For telling repeated deliveries apart. */
  notificationId: string;
  /** The shop's id, a decimal string. */
  shopId: string;
  /** When it happened: Unix seconds. */
  timestamp: number;
  /** TikTok's `data`, verbatim. */
  data: Record<string, unknown>;
  /** Type 7 alone has it: when the authorization ends, in Unix seconds. */
  expirationTime?: number | undefined;
}

/** Any other event. */
export type OtherWebhookEvent = WebhookEnvelope & {
  expirationTime?: undefined;
};

/** Type 6: the seller took the app's authorization back. */
export type DeauthorizationEvent = OtherWebhookEvent & { type: 6 };

/** Type 7: the authorization ends within 30 days; sent daily. */
export type AuthorizationEndingEvent = WebhookEnvelope & {
  type: 7;
  expirationTime: number;
};

/** A request's body as it came: text, or bytes such as a `Buffer`. */
export type RawBody = string | ArrayBuffer | ArrayBufferView;

/** A raw body as bytes. */
function rawBytes(body: RawBody): Uint8Array {
  const isText = typeof body === "string";
  const raw = isText ? new TextEncoder().encode(body) : bytesOf(body);
  if (raw) return raw;
  const type = tagOf(body).slice(8, -1);
  throw misuse(`Cannot use ${type} as a webhook's body: ${RAW_BODY}`);
}

const RAW_BODY = "hand over the raw body, before any JSON middleware";

/**
 * Whether a webhook's `Authorization` header proves that TikTok sent its body.
 * Compares in constant time; the body must be the raw bytes as received.
 * Source: TikTok Shop Partner Center, "TikTok Shop webhooks overview".
 *
 * @throws {TypeError} if the app secret is missing, or the body is not raw.
 */
export function verifyWebhook(
  app: AppCredentials,
  rawBody: RawBody,
  signature: string | null | undefined,
): boolean {
  assertAppSecret(app.appSecret); // an empty one would let anyone sign
  const body = rawBytes(rawBody);
  if (!signature || !/^[0-9a-f]{64}$/i.test(signature)) return false;
  const hmac = node("node:crypto").createHmac("sha256", app.appSecret);
  const expected = hmac.update(app.appKey).update(body).digest("hex");
  return sameText(expected, signature.toLowerCase());
}

/**
 * Reads a webhook's body; call {@linkcode verifyWebhook} first. Pure.
 *
 * @throws {TikTokShopError} of kind `invalid_response` if it is no event.
 * @throws {TypeError} if the body is not raw.
 */
export function parseWebhook(rawBody: RawBody): WebhookEvent {
  const body = parseJson(new TextDecoder().decode(rawBytes(rawBody)));
  const type = isRecord(body) ? integerOf(body.type) : undefined;
  if (!isRecord(body) || type === undefined) {
    const [message, hint] = ["This is no webhook event", RAW_BODY];
    throw new TikTokShopError("invalid_response", message, { hint });
  }
  const data = isRecord(body.data) ? body.data : {};
  const event = {
    type,
    notificationId: textOf(body.tts_notification_id),
    shopId: textOf(body.shop_id),
    timestamp: integerOf(body.timestamp) ?? NaN,
    data,
  };
  if (type !== 7) return event;
  const expirationTime = integerOf(data.expiration_time) ?? NaN;
  return { ...event, type, expirationTime };
}

// === Token stores

/**
 * Keeps tokens by profile name. `testTokenStore` of the package's `./testing`
 * proves that a store of your own keeps these rules.
 */
export interface TokenStore {
  /** The tokens of a profile; undefined if there are none. */
  load(profile: string): Promise<StoredTokens | undefined>;
  /**
   * Keeps the tokens of a profile; if that fails, the old ones stay. Given a
   * lock that is no longer held, it rejects with kind `lock_lost` instead.
   */
  save(profile: string, tokens: StoredTokens, lock?: TokenLock): Promise<void>;
  /** Forgets a profile; resolves to whether there was one. */
  remove(profile: string): Promise<boolean>;
  /** The names of all profiles, sorted. */
  list(): Promise<string[]>;
  /** Waits for the sole right to refresh; the signal cancels the wait. */
  lock(profile: string, signal?: AbortSignal): Promise<TokenLock>;
  /**
   * Proves that `save` will work, before a code or a refresh token is spent, or
   * rejects as `save` would. Changes nothing. A store may leave it out.
   */
  assertWritable?(
    profile: string,
    lock: TokenLock,
    onWarning?: (message: string) => unknown,
  ): Promise<void>;
}

/** The sole right to refresh a profile. Releasing it twice does nothing. */
export interface TokenLock extends AsyncDisposable {
  /** Names this holder; no other one ever has the same name. */
  readonly id: string;
}

const LOCK_NOTICE_MS = 1500;

/** Works under a profile's lock; tells of a long wait for it. */
async function withLock<T>(
  store: TokenStore,
  profile: string,
  { signal, onWarning }: Pick<LoginOptions, "signal" | "onWarning">,
  work: (lock: TokenLock) => Promise<T>,
): Promise<T> {
  // A slow disk makes wait as well, though nobody has the lock.
  const word = `Waiting for the lock of profile "${printable(profile)}", ` +
    "which another process may hold";
  const timer = setTimeout(() => void notify(onWarning, word), LOCK_NOTICE_MS);
  const lock = await store.lock(profile, signal)
    .finally(() => clearTimeout(timer));
  try {
    return await work(lock);
  } finally {
    await lock[Symbol.asyncDispose]();
  }
}

/** Options of {@linkcode databaseStore} and of every store with a lease. */
export interface LeaseOptions {
  /** Life of a killed holder's lock: 1000 to 3600000 ms. @default {5000} */
  lease?: number;
}

/** Below a second, a busy machine loses its locks. */
function assertLease(ms = 5000): number {
  if (Number.isInteger(ms) && ms >= 1000 && ms <= 3_600_000) return ms;
  throw outOfRange(`Cannot use the lease ${ms}: use 1000 to 3600000 ms`);
}

/** A store that lives as long as the process. */
export function memoryStore(): TokenStore {
  const profiles = new Map<string, string>();
  const locks = new Map<string, { id: string; released: Promise<void> }>();
  // deno-lint-ignore require-await -- the interface is asynchronous
  const run = async <T>(action: () => T): Promise<T> => action();
  return {
    load: (profile) =>
      run(() => parseJson(profiles.get(profile) ?? "") as StoredTokens),
    save: (profile, tokens, lock) =>
      run(() => {
        if (lock && locks.get(profile)?.id !== lock.id) throw lockLost(profile);
        profiles.set(profile, stringifyJson(tokens, 0));
      }),
    remove: (profile) => run(() => profiles.delete(profile)),
    list: () => run(() => [...profiles.keys()].sort()),
    async lock(profile, signal) {
      do {
        await abortable(Promise.resolve(locks.get(profile)?.released), signal);
      } while (locks.has(profile));
      const { promise: released, resolve } = deferred<void>();
      const id = randomText(9);
      const release = () =>
        run(() => {
          if (locks.get(profile)?.id === id) locks.delete(profile);
          resolve();
        });
      locks.set(profile, { id, released });
      return { id, [Symbol.asyncDispose]: release };
    },
  };
}

/** A lock that is renewed until it is released; if that fails, it expires. */
function heldLock(
  id: string,
  interval: number,
  renew: () => Promise<unknown>,
  release: () => Promise<unknown>,
): TokenLock {
  const renewal = node("node:timers")
    .setInterval(() => void renew().catch(() => {}), interval).unref();
  return {
    id,
    async [Symbol.asyncDispose]() {
      clearInterval(renewal);
      await release().catch(() => {});
    },
  };
}

function lockLost(profile: string): TikTokShopError {
  const message = `Another process took over the lock of profile "${profile}"`;
  return new TikTokShopError("lock_lost", message, { hint: "try again" });
}

/** The tokens in a text; `place` names where it is from. Pure. */
function judgeTokenFile(text: string, place: string): StoredTokens {
  const value = parseJson(text);
  const refuse = (what: string, hint: string) =>
    new TikTokShopError("store", `${place} ${what}`, { hint });
  if (!isRecord(value) || !hasTokens(value.data)) {
    const hint = "move it away, then log in again";
    throw refuse("is no token file, or damaged", hint);
  }
  const meta = isRecord(value.meta) ? value.meta : {};
  if ((integerOf(meta.version) ?? 1) > 1) {
    const what = `was written by a newer version of ${PROGRAM}`;
    throw refuse(what, `update ${PROGRAM}`);
  }
  for (const name of ["app_key", "service_id", "region", "user_type"]) {
    if (typeof meta[name] !== "string") delete meta[name];
  }
  const isList = Array.isArray(meta.shops) && meta.shops.every(isRecord);
  if (!isList) delete meta.shops; // they are asked for again
  return Object.assign(value, { meta }) as unknown as StoredTokens;
}

/** Names that are safe on every file system, and not one of our files. */
function isProfile(name: string): boolean {
  return pattern("^[\\p{L}\\p{N}][\\p{L}\\p{N}._-]{0,63}$").test(name) &&
    !/^(config|con|prn|aux|nul|com\d|lpt\d)(\.|$)|\.$/i.test(name);
}

function assertProfile(name: string): void {
  if (isProfile(name)) return;
  const rule =
    'use up to 64 letters, digits, ".", "-", "_"; config is reserved';
  throw misuse(`Cannot use the profile name "${name}": ${rule}`);
}

// === File store

/**
 * A store of one JSON file per profile, readable by its owner alone (0600 in
 * a 0700 folder) and replaced atomically.
 *
 * The lock of a profile is a folder beside its file, which the holder renews.
 * A killed or stopped holder stops renewing, and after the lease the next
 * process takes over. A holder that wakes up after that cannot save (`save`
 * rejects with kind `lock_lost`), so the newer tokens stay.
 *
 * @param folder where the files are.
 * @default {$TIKTOK_SHOP_HOME, or "tiktok-shop-oauth2" in the user's
 * configuration folder}
 * @throws {RangeError} if the lease is too short or too long.
 */
export function fileStore(
  folder: string = storeFolder(),
  options: FileStoreOptions = {},
): TokenStore {
  return new FileStore(folder, ".json", true, options.lease);
}

/** Options of {@linkcode fileStore}. */
export type FileStoreOptions = LeaseOptions;

const defaultStores = new Map<string, TokenStore>();

/** One store per folder, so that its callers share their refreshes. */
function defaultStore(): TokenStore {
  const folder = storeFolder();
  const store = defaultStores.get(folder) ?? fileStore(folder);
  defaultStores.set(folder, store);
  return store;
}

/** The store's folder by the user's environment. */
function storeFolder(env = RUNTIME.process.env): string {
  const { isAbsolute, join } = paths();
  if (env.TIKTOK_SHOP_HOME) return expandHome(env.TIKTOK_SHOP_HOME, env);
  const onWindows = RUNTIME.process.platform === "win32";
  const xdg = onWindows ? undefined : env.XDG_CONFIG_HOME;
  // A relative one is ignored (XDG Base Directory Specification).
  if (xdg && isAbsolute(xdg)) return join(xdg, PROGRAM);
  const name = onWindows ? "APPDATA" : "HOME";
  if (env[name]) return join(env[name], onWindows ? "" : ".config", PROGRAM);
  const message = `Cannot tell where to keep tokens: ${name} is not set`;
  const hint = `set ${name} or TIKTOK_SHOP_HOME, or give a store`;
  throw new TikTokShopError("store", message, { hint });
}

class FileStore implements TokenStore {
  readonly #folder: string;
  readonly #suffix: string;
  readonly #own: boolean;
  readonly #lease: number;
  readonly #warned = new Set<string>();

  /** `own`: the folder is ours alone, and so is each file in it. */
  constructor(folder: string, suffix: string, own: boolean, lease?: number) {
    this.#folder = folder;
    this.#suffix = suffix;
    this.#own = own;
    this.#lease = assertLease(lease);
  }

  path(profile: string): string {
    if (this.#own) assertProfile(profile);
    return paths().join(this.#folder, `${profile}${this.#suffix}`);
  }

  async load(profile: string): Promise<StoredTokens | undefined> {
    const path = this.path(profile);
    for (const end = performance.now() + WRITING_MS;; await sleep(50)) {
      const read = fs().readFile(path).then(decodeText);
      const text = await onDisk(`Cannot read ${path}`, ifAny(read));
      if (text === undefined) return undefined;
      // Half a file may be read while it is written in place.
      const isHalf = parseJson(text) === undefined && performance.now() < end;
      if (!isHalf) return judgeTokenFile(text, path);
    }
  }

  async save(profile: string, tokens: StoredTokens, lock?: TokenLock) {
    await this.#save(profile, `${stringifyJson(tokens)}\n`, lock);
  }

  async assertWritable(
    profile: string,
    lock: TokenLock,
    onWarning?: (message: string) => unknown,
  ): Promise<void> {
    const path = this.path(profile);
    const read = fs().readFile(path);
    const old = await onDisk(`Cannot read ${path}`, ifAny(read));
    const isReplaced = await this.#save(profile, old, lock, SPARE_BYTES);
    if (isReplaced || this.#warned.has(path)) return;
    this.#warned.add(path);
    const warning = `${path} cannot be replaced and is written in place: if ` +
      "it is a mount, mount its folder instead, or others do not see its lock";
    await notify(onWarning, warning);
  }

  async #save(
    profile: string,
    content: string | Uint8Array | undefined,
    lock?: TokenLock,
    spare?: number,
  ): Promise<boolean> {
    const path = this.path(profile);
    const replace = () => replaceFile(path, content, lock?.id, spare);
    return await this.#inFolder(`Cannot save the tokens to ${path}`, replace)
      .catch((error) => {
        throw lock && isMissing(error.cause) ? lockLost(profile) : error;
      });
  }

  async lock(profile: string, signal?: AbortSignal): Promise<TokenLock> {
    const path = this.path(profile);
    const acquire = async () =>
      await lockFile(await realPath(path), this.#lease, signal);
    return await this.#inFolder(`Cannot lock ${path}`, acquire);
  }

  async remove(profile: string): Promise<boolean> {
    const path = this.path(profile);
    // Only a token file is ever removed: the path may be a mistake.
    if (!await this.load(profile)) return false;
    const removal = fs().unlink(path).then(() => true);
    return await onDisk(`Cannot remove ${path}`, ifAny(removal)) ?? false;
  }

  async list(): Promise<string[]> {
    // The files around one that stands alone are not ours.
    if (!this.#own) return [];
    const tried = `Cannot read the folder ${this.#folder}`;
    const names = await onDisk(tried, ifAny(fs().readdir(this.#folder))) ?? [];
    return names.filter((name) => name.endsWith(this.#suffix))
      .map((name) => name.slice(0, -this.#suffix.length))
      .filter(isProfile).sort();
  }

  /** A folder that was there keeps its mode: it may be shared by design. */
  #inFolder<T>(tried: string, work: () => Promise<T>): Promise<T> {
    const made = fs().mkdir(this.#folder, { recursive: true, mode: 0o700 });
    return onDisk(tried, made.then(work));
  }
}

const WRITING_MS = 1000; // until a file that is written in place is whole
const SPARE_BYTES = 4096; // that new tokens may need more than the old

/** Replaces a file atomically; false if in place, as a mount must be. */
async function replaceFile(
  path: string,
  content: string | Uint8Array | undefined, // none: proves that there is room
  holder?: string, // writes into its lock first: without the lock, ENOENT
  spare = 0,
): Promise<boolean> {
  const target = await realPath(path);
  const entry = holder && paths().join(`${target}.lock`, holder);
  const temporary = entry
    ? `${entry}.${randomText(6)}`
    : await temporaryPath(target);
  try {
    await writeSynced(temporary, content ?? "", "wx", spare);
    // Another process may have taken the lock over just before.
    if (entry) await fs().stat(entry);
    if (content === undefined) return true;
    const refusal = await fs().rename(temporary, target).catch((e) => e);
    if (refusal) {
      // A mount or the owner of the target may forbid to replace it.
      if (!/^(EBUSY|EXDEV|EPERM|EACCES)$/.test(codeOf(refusal))) throw refusal;
      await writeSynced(target, content, "r+", spare);
      return false;
    }
    // Else a power cut may undo the rename. Some systems cannot do this.
    const folder = fs().open(paths().dirname(target), "r");
    await folder.then((open) => open.sync().finally(() => open.close()))
      .catch(() => {});
    return true;
  } finally {
    await fs().unlink(temporary).catch(() => {});
  }
}

/** Follows a symbolic link, so that no file replaces the link itself. */
async function realPath(path: string): Promise<string> {
  const { dirname, resolve } = paths();
  // A link may lead to where there is no file yet.
  const linked = () =>
    fs().readlink(path).then((to) => resolve(dirname(path), to), () => path);
  return await fs().realpath(path).catch(linked);
}

/** A new name beside a file; removes what was left there over an hour ago. */
async function temporaryPath(file: string): Promise<string> {
  const { basename, dirname, join } = paths();
  const folder = dirname(file);
  const start = `.${basename(file)}.`;
  for (const name of await fs().readdir(folder).catch(() => [])) {
    if (!name.startsWith(start)) continue;
    if (!/^[\w-]{8}\.tmp$/.test(name.slice(start.length))) continue;
    const path = join(folder, name);
    const info = await fs().lstat(path).catch(() => undefined);
    const isOld = info && Date.now() - info.mtimeMs > 3_600_000;
    if (isOld) await fs().unlink(path).catch(() => {});
  }
  return join(folder, `${start}${randomText(6)}.tmp`);
}

/** Writes a file of the owner's, and waits until it is on the disk. */
async function writeSynced(
  path: string,
  content: string | Uint8Array,
  flag: "wx" | "r+",
  spare: number,
): Promise<void> {
  const bytes = node("node:buffer").Buffer.from(content);
  const handle = await fs().open(path, flag, 0o600);
  try {
    const { size } = await handle.stat();
    // One write, with blanks over the old end, keeps it JSON at any moment.
    const padded = new Uint8Array(Math.max(size, bytes.length + spare));
    padded.fill(0x20, bytes.length).set(bytes);
    if (flag === "r+") {
      // A full disk is noticed before anything is written over.
      const blanks = padded.slice(size).fill(0x20);
      const grown = fs().appendFile(path, blanks).then(() => handle.sync());
      await grown.catch(async (error) => {
        await handle.truncate(size);
        throw error;
      });
    }
    await handle.writeFile(padded);
    await handle.sync();
    await handle.truncate(bytes.length);
  } finally {
    await handle.close();
  }
}

const LOCK_RENEWAL_MS = 250; // a quarter of the shortest lease

/**
 * A lock that outlives no process: a folder with an entry named after its
 * holder, which renews the entry's time. A waiter that sees no change for a
 * whole lease removes what it saw, each entry by name, then the empty folder:
 * never a lock that came meanwhile, nor anything that is no lock. Process ids
 * are reused, and clocks differ, so neither proves that a holder is gone.
 */
async function lockFile(file: string, lease: number, signal?: AbortSignal) {
  const path = `${file}.lock`;
  const id = randomText(18);
  let seen = "";
  let left = lease;
  if (signal?.aborted) throw cancelledError(signal.reason);
  while (!await makeLock(path, id)) {
    const { names, trace, foreign } = await lockTrace(path);
    if (trace !== seen) [seen, left] = [trace, lease];
    if (left <= 0 && foreign) {
      // It may belong to any program.
      const message =
        `Cannot lock ${file}: "${foreign}" is in the lock's place`;
      const hint = "delete it if nobody needs it, or use another token file";
      throw new TikTokShopError("store", message, { hint });
    }
    if (left <= 0) await takeAway(path, names);
    const began = performance.now();
    await sleep(15 + 20 * Math.random(), signal);
    // In a longer gap this process was stopped, perhaps the holder too.
    left -= Math.min(performance.now() - began, LOCK_RENEWAL_MS);
  }
  const entry = paths().join(path, id);
  const renew = () => fs().utimes(entry, new Date(), new Date());
  return heldLock(id, LOCK_RENEWAL_MS, renew, () => takeAway(path, [id]));
}

/** Makes the lock's folder and the holder's entry; false if it is taken. */
async function makeLock(path: string, id: string): Promise<boolean> {
  const isTaken = (error: unknown) => isLocked(error) && !isMissing(error);
  const made = fs().mkdir(path, { mode: 0o700 }).then(() => true);
  if (!await made.catch(unless(isTaken))) return false;
  let held = false;
  try {
    const entry = paths().join(path, id);
    await fs().writeFile(entry, "", { flag: "wx", mode: 0o600 });
    // Another process may have taken the empty folder away and made its own.
    held = (await fs().readdir(path)).join() === id;
  } catch (error) {
    if (!isLocked(error)) throw error;
  } finally {
    if (!held) await takeAway(path, [id]).catch(() => {});
  }
  return held;
}

/** What is in a lock's place; a new trace is a sign of life of a holder. */
async function lockTrace(path: string) {
  const names = (await fs().readdir(path).catch(() => [])).sort();
  const all = [path, ...names.map((name) => paths().join(path, name))];
  // A link is not followed: its target is no lock.
  const looks = all.map((each) => fs().lstat(each).catch(() => undefined));
  const infos = await Promise.all(looks);
  const foreign = all.find((_, i) =>
    i === 0
      ? infos[i]?.isDirectory() === false
      : !LOCK_ENTRY.test(names[i - 1]!) || infos[i]?.isFile() === false
  );
  const times = infos.map((each) => each?.mtimeMs);
  // What is foreign has no trace, for it may change for ever.
  return { names, foreign, trace: foreign ? "" : `${[...names, ...times]}` };
}

/** The entries of a lock: a holder's id, and what that holder is saving. */
const LOCK_ENTRY = /^[\w-]{24}(\.[\w-]{8})?$/;

/** Removes entries of a lock by name, and its folder if nothing else is in. */
async function takeAway(path: string, names: string[]): Promise<void> {
  for (const name of names) {
    await fs().unlink(paths().join(path, name)).catch(unless(isLocked));
  }
  await fs().rmdir(path).catch(unless(isLocked));
}

/** Whether an error means only that another process was quicker. */
function isLocked(error: unknown): boolean {
  // Windows answers like this while a process still has a file open.
  const busy = RUNTIME.process.platform === "win32" &&
    /^(EPERM|EACCES|EBUSY)$/.test(codeOf(error));
  return busy || /^(ENOENT|EEXIST|ENOTEMPTY)$/.test(codeOf(error));
}

function isMissing(error: unknown): boolean {
  return codeOf(error) === "ENOENT";
}

/** For `catch`: undefined for an expected error; others are thrown again. */
function unless(isExpected: (error: unknown) => boolean) {
  return (error: unknown): undefined => {
    if (!isExpected(error)) throw error;
  };
}

/** What work on a file brings; undefined if the file is not there. */
function ifAny<T>(work: Promise<T>): Promise<T | undefined> {
  return work.catch(unless(isMissing));
}

/** Work on files; a failure becomes an error of kind `store`. */
function onDisk<T>(tried: string, work: Promise<T>): Promise<T> {
  return work.catch((error) => {
    throw error instanceof TikTokShopError ? error : storeError(tried, error);
  });
}

function storeError(
  tried: string,
  error: unknown,
  hint = "check the folder's permissions and free space, or use another one",
  secrets?: Secrets,
): TikTokShopError {
  const message = `${tried}: ${messageOf(error, secrets)}`;
  const cause = evidence(error, secrets);
  return new TikTokShopError("store", message, { cause, hint });
}

// === Database store

/** A value, at once or later. */
export type Awaitable<T> = T | Promise<T>;

/**
 * What {@linkcode databaseStore} asks of a database: a value and a lock for
 * each profile, in steps that are atomic, as one SQL statement is. A lock has
 * a holder, a random id, and an end, after which another holder may take it.
 */
export interface TokenDatabase {
  /** Where a profile is, for errors: `"main" in Postgres`. */
  place(profile: string): string;
  /** The value of a profile, as it was written. */
  read(profile: string): Awaitable<string | null | undefined>;
  /** Writes the value of a profile, with or without a lock. */
  write(profile: string, text: string): Awaitable<unknown>;
  /** Writes it if the lock is this holder's; whether it is. */
  writeHeld(profile: string, text: string, holder: string): Awaitable<boolean>;
  /** Deletes the value, not the lock; whether there was one. */
  remove(profile: string): Awaitable<boolean>;
  /** The profiles that have a value. */
  names(): Awaitable<string[]>;
  /** Gives a lock that is free, or past its end, to a holder; whether it is. */
  take(profile: string, holder: string, ms: number): Awaitable<boolean>;
  /** Moves the lock's end if it is this holder's; whether it is. */
  renew(profile: string, holder: string, ms: number): Awaitable<boolean>;
  /** Frees the lock if it is this holder's. */
  release(profile: string, holder: string): Awaitable<unknown>;
}

/**
 * A store in any database, made of its eight steps; the README has Postgres and
 * SQLite whole. A holder of a lock may be stopped for longer than its lease
 * and not know it, as on a suspended machine; then another one refreshes. So
 * `save` with a lock writes only while the lock is still this holder's.
 *
 * @returns a store. Its methods reject with kind `store` if the database does,
 * or if a value is not ours; with a `TypeError` for a profile name that a file
 * could not have.
 * @throws {RangeError} if the lease is too short or too long.
 */
export function databaseStore(
  db: TokenDatabase,
  options: LeaseOptions = {},
): TokenStore {
  const lease = assertLease(options.lease);
  return {
    async load(profile) {
      const text = await dbStep(db, "read", profile, () => db.read(profile));
      if (text === undefined || text === null) return undefined;
      return judgeTokenFile(`${text}`, `The value of ${db.place(profile)}`);
    },
    async save(profile, tokens, lock) {
      const text = stringifyJson(tokens, 0);
      const write = () =>
        lock ? db.writeHeld(profile, text, lock.id) : db.write(profile, text);
      const secrets = tokensOf(tokens);
      const written = await dbStep(db, SAVE, profile, write, secrets);
      if (lock && !written) throw lockLost(profile);
    },
    remove: (profile) =>
      dbStep(db, "remove", profile, () => db.remove(profile)),
    async list() {
      const names = await dbStep(db, "list", undefined, () => db.names());
      return [...new Set(names)].filter(isProfile).sort();
    },
    async lock(profile, signal) {
      const id = randomText(18);
      if (signal?.aborted) throw cancelledError(signal.reason);
      const take = () => db.take(profile, id, lease);
      while (!await dbStep(db, "lock", profile, take)) {
        await sleep(20 + 30 * Math.random(), signal);
      }
      const renew = async () => await db.renew(profile, id, lease);
      const release = async () => await db.release(profile, id);
      // After the lease the lock has ended by itself.
      return heldLock(id, lease / 4, renew, () => within(release(), lease));
    },
    /** To renew the lock is to write, and proves that it is held. */
    async assertWritable(profile, { id }) {
      const renew = () => db.renew(profile, id, lease);
      const isHeld = await dbStep(db, SAVE, profile, renew);
      if (!isHeld) throw lockLost(profile);
    },
  };
}

const SAVE = "save the tokens to";

/** Takes a step of a database, for a profile or for all of them. */
async function dbStep<T>(
  db: TokenDatabase,
  what: string,
  profile: string | undefined,
  act: () => Awaitable<T>,
  secrets?: Secrets,
): Promise<T> {
  if (profile !== undefined) assertProfile(profile);
  const tried = `Cannot ${what} ${db.place(profile ?? "*")}`;
  const hint = "check that the database can be reached and lets you write";
  return await Promise.resolve().then(act).catch((error) => {
    throw storeError(tried, error, hint, secrets);
  });
}

// === Redis store

/** Options of {@linkcode redisStore}. */
export interface RedisStoreOptions extends LeaseOptions {
  /** Start of every key, without braces. @default {"tiktok-shop-oauth2:"} */
  prefix?: string;
  /** Gets the commands of a cluster's nodes. @default {the one `command`} */
  nodes?: () => Awaitable<RedisCommand[]>;
}

/** Sends one command, given as its words, to Redis; resolves to the reply. */
export type RedisCommand = (...words: string[]) => Promise<unknown>;

/**
 * A store in Redis, for many machines. It needs a client's command alone:
 *
 * | client | command |
 * | --- | --- |
 * | `redis` | `(...words) => client.sendCommand(words)` |
 * | `ioredis` | `(name, ...words) => client.call(name, ...words)` |
 *
 * On a cluster `list()` must ask every node, and `redis` must be told by
 * which key to choose the node of a command:
 *
 * ```js ignore
 * // cluster = createCluster({ rootNodes: [{ url }] }) of redis
 * redisStore(
 *   (...words) =>
 *     cluster.sendCommand(words.find((word) => /{/.test(word)), false, words),
 *   {
 *     nodes: () =>
 *       Promise.all(cluster.masters.map(async (master) => {
 *         const node = await cluster.nodeClient(master);
 *         return (...words) => node.sendCommand(words);
 *       })),
 *   },
 * );
 *
 * // cluster = new Cluster([{ host, port }]) of ioredis
 * redisStore((name, ...words) => cluster.call(name, ...words), {
 *   nodes: () =>
 *     cluster.nodes("master").map((node) => (name, ...words) =>
 *       node.call(name, ...words)
 *     ),
 * });
 * ```
 *
 * The profile `main` is kept under `tiktok-shop-oauth2:{main}`, as the JSON
 * that a file would hold, and its lock under `tiktok-shop-oauth2:{main}:lock`;
 * the braces make a cluster keep both on one node. Tokens never expire: let
 * Redis save them on disk, and evict nothing. A lock expires unless its holder
 * renews it; `save` with a lock is a script (`EVAL`).
 *
 * @returns a store that rejects as {@linkcode databaseStore} does.
 * @throws {TypeError | RangeError} if an option is wrong.
 */
export function redisStore(
  command: RedisCommand,
  options: RedisStoreOptions = {},
): TokenStore {
  const { prefix = `${PROGRAM}:`, nodes = () => [command] } = options;
  if (/[{}]/.test(prefix)) {
    throw misuse(`Cannot use the prefix "${prefix}": leave the braces out`);
  }
  const keyOf = (profile: string) => `${prefix}{${profile}}`;
  const lockOf = (profile: string) => `${keyOf(profile)}:lock`;
  /** A step that Redis takes for the lock's holder only, as a whole. */
  const act = async (call: string, profile: string, ...args: string[]) => {
    const script = `if redis.call("get", KEYS[1]) ~= ARGV[1] then return 0 end
redis.call(${call})
return 1`;
    const words = [script, "2", lockOf(profile), keyOf(profile), ...args];
    return Number(await command("EVAL", ...words)) === 1;
  };
  return databaseStore({
    place: (profile) => `${keyOf(profile)} in Redis`,
    read: (profile) => command("GET", keyOf(profile)) as Promise<string | null>,
    write: (profile, text) => command("SET", keyOf(profile), text),
    writeHeld: (profile, text, holder) =>
      act('"set", KEYS[2], ARGV[2]', profile, holder, text),
    remove: async (profile) => Number(await command("DEL", keyOf(profile))) > 0,
    names: async () => await redisNames(await nodes(), `${prefix}{`),
    take: async (profile, holder, ms) => {
      const words = [lockOf(profile), holder, "NX", "PX", `${ms}`];
      return String(await command("SET", ...words)) === "OK";
    },
    renew: (profile, holder, ms) =>
      act('"pexpire", KEYS[1], ARGV[2]', profile, holder, `${ms}`),
    release: (profile, holder) => act('"del", KEYS[1]', profile, holder),
  }, options);
}

/** What follows `start` in the keys of all nodes, without the brace. */
async function redisNames(nodes: RedisCommand[], start: string) {
  const pattern = `${start.replace(/[*?[\]\\]/g, "\\$&")}*}`;
  const names: string[] = [];
  for (const node of nodes) {
    let cursor = "0";
    do {
      const words = ["SCAN", cursor, "MATCH", pattern, "COUNT", "1000"];
      const [next, keys] = await node(...words) as [unknown, unknown[]];
      for (const key of keys) names.push(String(key).slice(start.length, -1));
      cursor = String(next);
    } while (cursor !== "0");
  }
  return names;
}

// === Loopback server

const FLUSH_TIMEOUT_MS = 500; // for answers to reach the browser

type LoopbackServer = Awaited<ReturnType<typeof listenOnPort>>;
/** Stops listening, lets answers under way out, then drops all sockets. */
type Close = () => Promise<unknown>;

interface LoopbackOptions {
  tls: { cert: string; key: string } | undefined;
  /** Whether the port must be free on [::1] too, where there is one. */
  needsBoth: boolean;
  handlerOn: (port: number) => (request: Request) => Promise<Response>;
  /** Called when a request cannot be read; returns the text for its page. */
  onUnread: (why: Unused) => Facts | undefined;
}

/** Listens on the first port that is free on both loopback addresses. */
async function listenOnLoopback(ports: number[], options: LoopbackOptions) {
  let taken: unknown;
  for (const port of ports) {
    try {
      return await listenOnPort(port, options);
    } catch (error) {
      taken = (error as TikTokShopError).cause;
      if (!isTaken(taken) || ports.length === 1) throw error;
    }
  }
  throw portError(`any port from ${ports[0]} to ${ports.at(-1)}`, taken);
}

/** Listens on 127.0.0.1, and on [::1] where there is one. */
async function listenOnPort(port: number, options: LoopbackOptions) {
  // Resolves with the reason once a listener fails by itself.
  const { promise: failed, resolve } = deferred<TikTokShopError>();
  const listeners: Close[] = [];
  const close = () => Promise.all(listeners.map((each) => each()));
  const handler = options.handlerOn(port);
  const answer = (request: Request) =>
    Promise.resolve(request).then(handler).catch(() => plainAnswer(500));
  for (const [i, hostname] of ["127.0.0.1", "::1"].entries()) {
    const where = `${i === 0 ? hostname : "[::1]"}:${port}`;
    const listen = RUNTIME.Deno?.serve ? listenOnDeno : listenOnNode;
    try {
      const onFailure = (error: unknown) => resolve(portError(where, error));
      const all = { ...options, hostname, port, answer, onFailure };
      listeners.push(await listen(all));
    } catch (error) {
      // A program that has the port on [::1] would be sent the redirect.
      const isNeeded = isTaken(error) ? options.needsBoth : isExhausted(error);
      if (i === 1 && !isNeeded) continue;
      await close();
      throw portError(where, error);
    }
  }
  return { port, failed, close };
}

/** In use, or reserved by the system (EACCES: low ports, Windows' ranges). */
function isTaken(error: unknown): boolean {
  return /^(EADDRINUSE|EACCES|AddrInUse|PermissionDenied)$/m
    .test(causesOf(error));
}

/** The process may open no more files or sockets. */
function isExhausted(error: unknown): boolean {
  return /EMFILE|ENFILE|too many open files/i.test(causesOf(error));
}

function portError(where: string, cause: unknown): TikTokShopError {
  const why = isTaken(cause) ? "in use or reserved" : messageOf(cause);
  const message = `Cannot listen on ${where}: ${why}`;
  const hint = isTaken(cause)
    ? "end the program that uses it, or register another URL and pass its port"
    : isExhausted(cause)
    ? `close connections or raise the limit of open files, then ${LOGIN_AGAIN}`
    : undefined;
  return new TikTokShopError("port_in_use", message, { cause, hint });
}

interface ListenOptions extends LoopbackOptions {
  hostname: string;
  port: number;
  answer: (request: Request) => Promise<Response>;
  onFailure: (error: unknown) => void;
}

function listenOnDeno(given: ListenOptions): Close {
  const { hostname, port, tls, answer, onFailure } = given;
  const abort = new AbortController();
  const { signal } = abort;
  const open = new Set<Promise<unknown>>();
  const options = { hostname, port, ...tls, signal, onListen() {} };
  const server = RUNTIME.Deno!.serve(options, (request, { completed }) => {
    const done = completed.catch(() => {}).finally(() => open.delete(done));
    open.add(done);
    return answer(request);
  });
  const finished = server.finished.catch(onFailure);
  return async () => {
    await within(Promise.all(open), FLUSH_TIMEOUT_MS);
    // "Completed" comes a turn before the bytes leave: without a pause all of
    // 150 pages were lost, with 0 to 5 ms none was, beside two busy loops.
    await sleep(5);
    // shutdown() waits for idle and half-open sockets, and nothing aborts it.
    abort.abort();
    await within(finished, FLUSH_TIMEOUT_MS);
  };
}

async function listenOnNode(options: ListenOptions): Promise<Close> {
  const { hostname, port, tls, onFailure } = options;
  // Browsers send the cookies of all other programs on localhost too.
  const settings = { ...tls, requireHostHeader: false, maxHeaderSize: 1 << 17 };
  const server = tls
    ? node("node:https").createServer(settings)
    : node("node:http").createServer(settings);
  // Every answer closes its connection: whatever else came on it is void.
  server.maxRequestsPerSocket = 1;
  const open = new Set<Promise<unknown>>();
  const respond = (message: NodeRequest, reply: NodeReply) => {
    const done = new Promise((resolve) => reply.on("close", resolve))
      .finally(() => open.delete(done));
    open.add(done);
    void answerOnNode(message, reply, options);
  };
  const sockets = new Set<Duplex>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on("request", respond);
  // Without these, Node would answer by itself, or not at all.
  server.on("checkExpectation", respond);
  server.on("connect", (_, socket) => refuse(socket, plainAnswer(405)));
  server.on("clientError", (error, socket) => {
    void refuse(socket, unreadAnswer(error, options));
  });
  server.listen({ host: hostname, port, ipv6Only: true });
  await node("node:events").once(server, "listening");
  server.on("error", onFailure);
  return async () => {
    server.close();
    await within(Promise.all(open), FLUSH_TIMEOUT_MS);
    // closeAllConnections() misses CONNECT, broken bytes and TLS handshakes.
    for (const socket of sockets) socket.destroy();
  };
}

type Duplex = import("node:stream").Duplex;
type NodeRequest = import("node:http").IncomingMessage;
type NodeReply = import("node:http").ServerResponse;

/** The answer to bytes that are no request, which may be the redirect. */
function unreadAnswer(error: Error, { onUnread }: LoopbackOptions): Response {
  const code = codeOf(error);
  if (code === "HPE_HEADER_OVERFLOW") {
    return pageAnswer(431, "other", "en", onUnread("with too large headers"));
  }
  const { rawPacket } = error as { rawPacket?: Uint8Array };
  // A TLS handshake stands where a request line should be.
  if (rawPacket?.[0] === 0x16 && rawPacket[1] === 0x03) onUnread("by https");
  return plainAnswer(code === "HPE_INVALID_METHOD" ? 405 : 400);
}

/** Answers on the socket where Node has made no request. */
async function refuse(socket: Duplex, response: Response): Promise<void> {
  if (!socket.writable) return void socket.destroy();
  const { status, headers } = response;
  const start = `HTTP/1.1 ${status} ${node("node:http").STATUS_CODES[status]}`;
  const lines = [...headers].map(([name, value]) => `${name}: ${value}`);
  // The body ends with the connection.
  socket.end([start, ...lines, "", await response.text()].join("\r\n"));
}

/** Hands a Node request on as a Request, and the Response to Node. */
async function answerOnNode(
  message: NodeRequest,
  reply: NodeReply,
  { port, tls, answer }: ListenOptions,
): Promise<void> {
  const { method } = message;
  const origin = `${tls ? "https" : "http"}://localhost:${port}`;
  const request = toRequest(message, origin);
  const response = request
    ? await answer(request)
    : plainAnswer(method === "TRACE" ? 405 : 400);
  reply.writeHead(response.status, Object.fromEntries(response.headers));
  // A HEAD is answered like its GET, without the body.
  reply.end(method === "HEAD" ? undefined : await response.text());
}

/** All headers of a message; Node's `headers` drops a second Host. */
function headersOf(rawHeaders: readonly string[]): Headers {
  const names = rawHeaders.filter((_, i) => i % 2 === 0);
  return new Headers(names.map((name, i) => [name, rawHeaders[2 * i + 1]!]));
}

/** A web Request, or undefined where there can be none (TRACE, a bad URL). */
function toRequest(message: NodeRequest, origin: string): Request | undefined {
  const { method = "GET", url = "/", rawHeaders } = message;
  try {
    const headers = headersOf(rawHeaders);
    // Joined: "//host/" would be resolved to another host.
    const target = url.startsWith("/") ? origin + url : url;
    return new Request(new URL(target, origin), { method, headers });
  } catch {
    return undefined;
  }
}

// === Browser

/** Options of {@linkcode openBrowser} and {@linkcode browserCommands}. */
export interface BrowserOptions {
  /** A command to use before any other; `%s` stands for the URL. */
  browser?: string;
  /** The operating system, as Node names it. @default {process.platform} */
  platform?: string;
  /** The environment. @default {process.env} */
  env?: Readonly<Record<string, string | undefined>>;
  /** Called to learn whether a text is the path of one command. */
  isFile?: (path: string) => boolean;
}

/**
 * Opens a URL in the system's browser: tries commands, never through a shell.
 *
 * @returns whether one did; false is no error, show the link instead.
 * @throws {TypeError} if it is no http or https URL.
 */
export async function openBrowser(
  url: string,
  options: BrowserOptions = {},
): Promise<boolean> {
  if (!/^https?:/i.test(url) || !URL.canParse(url)) {
    throw misuse(`Cannot open "${redact(url)}": give an http or https URL`);
  }
  return await tryBrowsers(url, { ...options, hold: true });
}

/** Without `hold`, the process may end before the outcome is known. */
type Attempt = BrowserOptions & { hold?: boolean; failed?: Set<string> };

async function tryBrowsers(url: string, options: Attempt = {}) {
  const { platform, env } = RUNTIME.process;
  const all = { platform, env, isFile: namesFile, ...options };
  for (const command of browserCommands(url, all)) {
    if (await launches(command, options.hold)) return true;
    options.failed?.add(command[0]!);
  }
  return false;
}

/** Whether a file is there, and Deno may look. */
function namesFile(path: string): boolean {
  return attempt(() => node("node:fs").statSync(path).isFile(), false);
}

/** Commands that may open a URL, best first; see xdg-open(1). Pure. */
export function browserCommands(
  url: string,
  { browser, platform = "linux", env = {}, isFile = () => false }:
    BrowserOptions,
): string[][] {
  const separator = platform === "win32" ? ";" : ":";
  const named = browser || env.BROWSER || "";
  // A file is looked for only where the text would be split.
  const isWhole = (text: string) => /[\s:;]/.test(text) && isFile(text);
  const asked = browser || isWhole(named) ? [named] : named.split(separator);
  const own = asked
    .map((text) => isWhole(text) ? [text, url] : commandLine(text, url))
    .filter((command) => command.length > 0);
  if (browser) return own;
  if (platform === "darwin") return [...own, ["open", url]];
  if (platform === "win32") {
    // By their full path: a file of that name may lie in the working folder.
    const system = `${env.SystemRoot || "C:\\Windows"}\\System32\\`;
    const shell = `${system}WindowsPowerShell\\v1.0\\`;
    return [...own, ...windowsCommands(url, system, shell)];
  }
  const linux = ["xdg-open", "gio open", "x-www-browser", "sensible-browser"]
    .map((text) => commandLine(text, url));
  return [
    ...own,
    // wslview is for links; Windows' own commands are there without it.
    ...(env.WSL_DISTRO_NAME ? [["wslview", url], ...windowsCommands(url)] : []),
    ...(env.TERMUX_VERSION ? [["termux-open-url", url]] : []),
    // Without a display, xdg-open would start a text browser in our terminal.
    ...(env.DISPLAY || env.WAYLAND_DISPLAY ? linux : []),
  ];
}

/** Not `cmd /c start`: it cuts the URL at its first `&`. */
function windowsCommands(url: string, system = "", shell = ""): string[][] {
  // PowerShell takes typographic quotes as quotes.
  const quoted = url.replace(/['\u2018-\u201b]/g, "$&$&");
  // Encoded, so that nothing of the URL is ever parsed.
  const encoded = base64(`Start-Process '${quoted}'`, "utf16le");
  return [
    [`${system}rundll32.exe`, "url.dll,FileProtocolHandler", url],
    [`${shell}powershell.exe`, "-NoProfile", "-EncodedCommand", encoded],
  ];
}

/** The words of a command line, without quotes; no shell is asked. */
function splitWords(text: string): string[] {
  // A quote may begin within a word: --profile="My profile".
  return (text.match(/(?:"[^"]*"|'[^']*'|\S)+/g) ?? [])
    .map((word) => word.replace(/"([^"]*)"|'([^']*)'/g, "$1$2"));
}

/** The words of a command with the URL put in. */
function commandLine(text: string, url: string): string[] {
  const words = splitWords(text);
  if (!words[0]) return [];
  if (!text.includes("%s")) words.push("%s");
  return words.map((word) => word.replaceAll("%s", () => url));
}

/** Whether a command starts, and does not fail within two seconds. */
async function launches([command = "", ...args]: string[], hold = false) {
  const { clearTimeout, setTimeout } = node("node:timers");
  const env = envWithoutSecrets();
  const launched = new Promise<boolean>((resolve) => {
    const child = node("node:child_process")
      .spawn(command, args, { stdio: "ignore", detached: true, env });
    // Where a command cannot start, Deno's child has nothing to unref.
    const release = () => child.pid !== undefined && child.unref();
    const end = (launched: boolean) => {
      clearTimeout(timer);
      release();
      resolve(launched);
    };
    const timer = setTimeout(() => end(true), 2000);
    child.once("error", () => end(false));
    child.once("exit", (code) => end(code === 0));
    if (hold) return;
    // Neither the browser nor this timer may keep a finished login alive.
    release();
    timer.unref();
  });
  // It throws on what cannot be an argument, or is not permitted.
  return await launched.catch(() => false);
}

// === Keychain

/** Each system's tool and arguments; % is the program, and @ the app key. */
const KEYCHAINS: Record<string, Record<string, string>> = {
  linux: {
    // Not "lookup", which does not tell a locked item from none.
    find: "secret-tool search service % account @",
    unlock: "secret-tool search --unlock service % account @",
    store: "secret-tool store --label=%:@ service % account @",
    remove: "secret-tool clear service % account @",
  },
  darwin: {
    find: "/usr/bin/security find-generic-password -s % -a @ -w",
    unlock: "/usr/bin/security find-generic-password -s % -a @ -w",
    store: "/usr/bin/security -i", // takes its command from its input
    remove: "/usr/bin/security delete-generic-password -s % -a @",
  },
};

/**
 * The tool that keeps an app's secret in a keychain, its arguments and input:
 * `security` on macOS, `secret-tool` on Linux; on Windows PowerShell encrypts
 * the text to be stored, or decrypts it. No argument has the secret in it. To
 * "unlock" is to find, and a person may be asked. Pure.
 */
export function keychainCommand(
  platform: string,
  action: "find" | "unlock" | "store" | "remove",
  appKey: string,
  text: string = "",
  systemRoot: string = "C:\\Windows",
): [file: string, args: string[], input: string] {
  const isStore = action === "store";
  if (platform === "win32") {
    const folder = `${systemRoot}\\System32\\WindowsPowerShell\\v1.0\\`;
    const script = WINDOWS_SCRIPT.replace("%", isStore ? "P" : "Unp");
    const flags = ["-NoProfile", "-NonInteractive", "-EncodedCommand"];
    const args = [...flags, base64(script, "utf16le")];
    return [`${folder}powershell.exe`, args, isStore ? base64(text) : text];
  }
  const words = (KEYCHAINS[platform] ?? KEYCHAINS.linux!)[action]!.split(" ")
    .map((word) => word.replace("%", PROGRAM).replace("@", () => appKey));
  const [file = "", ...args] = words;
  const secret = text.replace(/["\\]/g, "\\$&");
  const line = `add-generic-password -U -s "${PROGRAM}" -a "${appKey}" ` +
    `-w "${secret}"\n`;
  const input = platform === "darwin" ? line : text;
  return [file, args, isStore ? input : ""];
}

const WINDOWS_SCRIPT = `$ErrorActionPreference = 'Stop'
[void][Reflection.Assembly]::LoadWithPartialName('System.Security')
$in = [Convert]::FromBase64String([Console]::In.ReadToEnd())
$out = [Security.Cryptography.ProtectedData]::%rotect($in, $null, 'CurrentUser')
[Console]::Out.Write([Convert]::ToBase64String($out))`;

/**
 * The secret that such a tool has found, by its exit status and what it wrote;
 * "" if there is none. Pure.
 *
 * @throws {TikTokShopError} of kind `store` if the keychain cannot be used.
 */
export function keychainAnswer(
  platform: string,
  status: number,
  text: string,
): string {
  const onMac = platform === "darwin";
  if (onMac && status === 44) return ""; // errSecItemNotFound
  // 36: nobody can be asked, as over SSH; 51 and 128: it was refused.
  const isLocked = onMac && [36, 51, 128].includes(status);
  if (isLocked || status !== 0) throw noKeychain(isLocked ? undefined : status);
  if (onMac) return text.replace(/\n$/, "");
  if (platform === "win32") {
    return node("node:buffer").Buffer.from(text, "base64").toString();
  }
  const [, secret = ""] = /^secret = (.*)$/m.exec(text) ?? [];
  // A locked item is shown without its secret.
  if (!secret && text.startsWith("[")) throw noKeychain();
  return secret;
}

function noKeychain(status?: number): TikTokShopError {
  const why = status === TIMED_OUT ? SILENT : "this session has none";
  const message = `Cannot use the keychain: ${status ? why : "it is locked"}`;
  const hint = "unlock it, or keep the app secret elsewhere";
  return new TikTokShopError("store", message, { hint });
}

/** What such a tool has found, or what Windows has encrypted. */
async function useKeychain(
  action: "find" | "unlock" | "store" | "remove",
  appKey: string,
  text = "",
  signal?: AbortSignal,
): Promise<string> {
  const { platform, env: { SystemRoot } } = RUNTIME.process;
  const onWindows = platform === "win32";
  // Windows keeps nothing itself.
  if (onWindows && (action === "remove" || !text)) return "";
  const tool = keychainCommand(platform, action, appKey, text, SystemRoot);
  const limit = isInteractive() ? 60_000 : onWindows ? 20_000 : 5_000;
  const { status, text: output } = await runTool(tool, limit, signal);
  const isSought = action === "find" || action === "unlock";
  if (isSought) return keychainAnswer(platform, status, output);
  // How it ends says little, so what was stored is read back.
  const kept = onWindows ? output : "";
  if (await useKeychain("find", appKey, kept, signal) === text) return kept;
  throw noKeychain(onWindows ? status : undefined);
}

// === HTTP

/** What bounds a request: the ms it may take, the bytes of its reply. */
const TOKEN_LIMITS = { time: 30_000, size: 1 << 20 };
type Limits = typeof TOKEN_LIMITS;
/** A page of 100 orders has megabytes, and so has an upload. */
const API_LIMITS: Limits = { time: 120_000, size: 32 << 20 };

/** The caller's limits, else the usual ones. Pure. */
function limitsOf(options: HttpOptions, usual: Limits): Limits {
  const { requestTimeout, replyLimit: size = usual.size } = options;
  if (Number.isSafeInteger(size) && size > 0) {
    return { time: waitingTime(requestTimeout ?? usual.time / 1000), size };
  }
  throw outOfRange(`Cannot limit replies to ${size} bytes: use 1 or more`);
}

const LOGIN_AGAIN = "log in again";

/** What a code of TikTok's means, besides its hint. */
interface Meaning {
  kind?: ErrorKind;
  /** Tells the messages of one code apart. */
  match?: RegExp;
  /** What is done before the call is made once more (`wait`: three times). */
  cure?: keyof ReturnType<typeof curesOf> | "wait";
  /** TikTok may have carried out the call all the same. */
  isDoubtful?: true;
}

const GONE = { kind: "login_required" } as const;
const DEAD = { ...GONE, cure: "reload" } as const;
const DEAD_HEADER = { ...DEAD, match: /access.token\W+header/i };
const NO_CIPHER = /shop_cipher\b.*\bnot (required|wanted)/i;
const UNWANTED = { cure: "without-cipher", match: NO_CIPHER } as const;
const DOUBTFUL = { cure: "wait", isDoubtful: true } as const;
const IP_LIST =
  /\bips?\b.*(allow|white)[ _-]?list|(allow|white)[ _-]?list.*\bips?\b/i;
const SPENT = "the code was used before, is 30 minutes old or another app's";
const DEAD_TOKEN = `the access token is not valid, ${LOGIN_AGAIN}`;
const UNKNOWN_CODE =
  "look the code up in Partner Center, or name the request id to TikTok";
const NOT_LISTED =
  "add this machine's IP to the app's IP allow list in Partner Center";

/** TikTok's codes; the first row that fits counts. The README shows them. */
const TIKTOK_CODES: [codes: number[], hint: string, meaning?: Meaning][] = [
  [[36004001], `the refresh token has expired, ${LOGIN_AGAIN}`, GONE],
  [[36004003], "check the app secret"],
  [[36004004], `${SPENT}, ${LOGIN_AGAIN}`],
  [[36004005], `the seller's authorization is gone, ${LOGIN_AGAIN}`, GONE],
  [[105001, 36009005], DEAD_TOKEN, DEAD],
  [[36009004], DEAD_TOKEN, DEAD_HEADER],
  [[36009004], "name no shop: this call takes no shop_cipher", UNWANTED],
  [[36009004], "TikTok's message tells what is wrong", { cure: "host-time" }],
  [[105002], "the access token has expired, refresh it", { cure: "refresh" }],
  [[105005], `enable the scope in Partner Center, then ${LOGIN_AGAIN}`],
  [[106001], "the signature is wrong, check the app secret"],
  [[106013], "name the shop: this call takes one", { cure: "with-cipher" }],
  [[36009002], "too many calls, wait a minute", { cure: "wait" }],
  [[36009003], "TikTok had an internal error, try again in a minute", DOUBTFUL],
  [[36009007], "TikTok timed out, try again in a minute", DOUBTFUL],
  [[36009009], "there is no such path, check the call"],
  [[36009010], "the path takes another method, check the call"],
  [[36009014], "there is no such version, check the path"],
  [[36009033], NOT_LISTED],
  [[], NOT_LISTED, { match: IP_LIST }], // under any code
];

/** What the table says about a code, and about TikTok's message. Pure. */
function meaningOf(code: number, message: string) {
  const row = TIKTOK_CODES.find(([codes, , { match } = {}]) =>
    (codes.includes(code) || !codes.length) && (match?.test(message) ?? true)
  );
  return row && { hint: row[1], ...row[2] };
}

/** TikTok's envelope, if the answer is one, and what it means. Pure. */
function envelopeOf(answer: HttpAnswer) {
  const body = parseJson(answer.text);
  const code = isRecord(body) ? integerOf(body.code) : undefined;
  if (!isRecord(body) || code === undefined) return undefined;
  const meaning = code ? meaningOf(code, textOf(body.message)) : undefined;
  return { body, code, meaning };
}

const RETRIES = 3;
const RETRY_AFTER_LIMIT = 60; // seconds; a longer wait is left to the caller

/** A name that a query gives twice. */
function repeatedName(query: URLSearchParams): string | undefined {
  const names = new Set<string>();
  return [...query.keys()].find((name) => names.size === names.add(name).size);
}

function withParameters(url: URL, params: Record<string, string>): URL {
  // A copy: each change to url.searchParams re-serializes the URL.
  const query = new URLSearchParams(url.search);
  for (const [name, value] of Object.entries(params)) query.set(name, value);
  url.search = String(query);
  return url;
}

/** TikTok's envelope; throws if its code is not 0. Pure. */
function judgeEnvelope(
  answer: HttpAnswer,
  tried: string,
  secrets: Secrets,
  bodyOf?: typeof redactedBody,
): Record<string, unknown> {
  const { status, retryAfter, text } = answer;
  const envelope = envelopeOf(answer);
  if (envelope?.code === 0) return envelope.body;
  const details = { status, retryAfter, body: bodyOf?.(text, secrets) };
  if (!envelope) throw oddAnswer(answer, tried, details);
  const { body, code, meaning } = envelope;
  const said = shown(body.message, secrets);
  const requestId = requestIdOf(body, secrets);
  const suffix = requestId ? ` (request id ${requestId})` : "";
  const message = `${tried}: TikTok answered with code ${code}, "${said}"`;
  const { kind = "rejected", hint = UNKNOWN_CODE } = meaning ?? {};
  const all = { ...details, code, requestId, hint };
  throw new TikTokShopError(kind, message + suffix, all);
}

function requestIdOf(body: Record<string, unknown>, secrets?: Secrets) {
  return shown(body.request_id, secrets).slice(0, 100) || undefined;
}

/** An answer that is not TikTok's envelope. */
function oddAnswer(answer: HttpAnswer, tried: string, details: ErrorDetails) {
  const { status, text, type } = answer;
  const what = status >= 300 && status < 400
    ? "a redirect, which is not followed: the secret is in the query"
    : text === ""
    ? "an empty body"
    : `${text.length} characters of ${type || "unknown type"}`;
  const message = `${tried}: HTTP ${status} with ${what}, not TikTok's JSON`;
  const hint = status === 429 || status >= 500
    ? "try again in a minute"
    : "check the endpoint, and that no proxy or portal answers for TikTok";
  return new TikTokShopError("invalid_response", message, { ...details, hint });
}

interface SendOptions extends HttpOptions {
  /** What is attempted, the start of every message. */
  tried: string;
  secrets: Secrets;
  limits: Limits;
  onWarning?: (message: string) => unknown;
}

/** Giving a compressed body up can crash Node (nodejs/undici#5360). */
const PLAIN_BODY = RUNTIME.Deno ? {} : { "accept-encoding": "identity" };

/** Makes one call: bounded in time and size, redirects not followed. */
async function send(
  url: URL,
  init: RequestInit & { headers?: Record<string, string> },
  options: SendOptions,
): Promise<HttpAnswer> {
  const { signal, secrets, limits } = options;
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), limits.time);
  const forget = onAbort(signal, () => abort.abort());
  const started = performance.now();
  const trace = (outcome: string) => {
    const took = Math.round(performance.now() - started);
    const line = `${init.method ?? "GET"} ${url} ${outcome} (${took} ms)`;
    const safe = printable(redact(line, secrets));
    void notify(options.onTrace, safe, options.onWarning);
  };
  try {
    signal?.throwIfAborted();
    // A proxy would read the app secret, and reach its own loopback, not ours.
    const isDirect = isLoopback(url.hostname) && mayBeProxied();
    const make = options.fetch ?? (isDirect ? fetchDirectly : fetch);
    const headers = { ...PLAIN_BODY, ...init.headers };
    const bounds = { headers, redirect: "manual", signal: abort.signal };
    const call = make(url, { ...init, ...bounds } as RequestInit)
      .then((response) => readAnswer(response, options));
    // Raced: once the head is in, Node's fetch can forget its signal.
    const answer = await abortable(call, abort.signal, (reason) => reason);
    trace(`HTTP ${answer.status}`);
    return answer;
  } catch (error) {
    trace("failed");
    if (error instanceof TikTokShopError) throw error;
    if (signal?.aborted) throw cancelledError(signal.reason);
    throw networkError(error, abort.signal.aborted, options);
  } finally {
    clearTimeout(timer);
    forget();
  }
}

/** What is read of a response. */
type Received = Pick<Response, "status" | "headers"> & {
  body: AsyncIterable<Uint8Array> | null;
};

/** Whether `fetch` may use a proxy, by the environment or its dispatcher. */
function mayBeProxied(): boolean {
  const read = () => RUNTIME.Deno?.env.toObject() ?? RUNTIME.process.env;
  // Where Deno may not tell, there may be one.
  const env = attempt(read, { all_proxy: "unknown" });
  const names = Object.keys(env).join("\n");
  if (/^(https?|all)_proxy$/im.test(names)) return true;
  // Node keeps the dispatcher that a program has set under such a symbol.
  return Object.getOwnPropertySymbols(globalThis)
    .filter(({ description }) => description?.startsWith("undici.globalDisp"))
    .map((symbol) => (globalThis as Record<symbol, unknown>)[symbol])
    .some((dispatcher) => dispatcher?.constructor.name !== "Agent");
}

/** A fetch by Node's own client: with an agent of ours it takes no proxy. */
async function fetchDirectly(url: URL, init: RequestInit): Promise<Received> {
  const { Agent, request } = url.protocol === "https:"
    ? node("node:https")
    : node("node:http");
  const whole = new Request(url, init); // a form becomes bytes
  const { method, signal } = whole;
  const headers = Object.fromEntries(whole.headers);
  const body = new Uint8Array(await whole.arrayBuffer());
  // Deno's agent takes the environment's proxy, unless it is given another.
  const agent = new Agent({ proxyEnv: {} } as object);
  const options = { method, headers, signal, agent };
  const reply = await new Promise<NodeRequest>((resolve, reject) => {
    const sent = request(url, options, resolve).once("error", reject);
    sent.end(body.length > 0 ? body : undefined);
  });
  const { statusCode: status = 0, rawHeaders } = reply;
  return { status, headers: headersOf(rawHeaders), body: reply };
}

const REFUSED_CERTIFICATE = new RegExp(
  "^(CERT_|ERR_TLS_CERT|(DEPTH_ZERO_)?SELF_SIGNED|UNABLE_TO_|HOSTNAME_|" +
    "INVALID_(CA|PURPOSE)|PATH_LENGTH)|invalid peer certificate", // Deno's
  "m",
);
/** No connection was made: nothing was sent, nothing carried out. */
const UNSENT =
  /^(ECONNREFUSED|ENOTFOUND|EAI_|UND_ERR_CONNECT_)|client error \(Connect\)/m;

function networkError(error: unknown, isLate: boolean, options: SendOptions) {
  const { tried, secrets, limits } = options;
  const why = isLate
    ? `no answer within ${limits.time / 1000} s`
    : messageOf((error as Error | undefined)?.cause ?? error, secrets);
  return new TikTokShopError("network", `${tried}: ${why}`, {
    hint: REFUSED_CERTIFICATE.test(causesOf(error))
      ? "set this machine's clock, or trust the certificate: DENO_CERT or " +
        "DENO_TLS_CA_STORE=system on Deno, NODE_EXTRA_CA_CERTS on Node"
      : "check the connection and the proxy settings, then try again",
    cause: evidence(error, secrets),
  });
}

/** The names, codes and messages of an error and its causes, one a line. */
function causesOf(error: unknown, depth = 0): string {
  // Not for ever: an error may be its own cause.
  if (!isRecord(error) || depth === 8) return "";
  const own = [error.name, error.code, error.message].map(textOf).join("\n");
  return `${own}\n${causesOf(error.cause, depth + 1)}`;
}

/** An answer, read whole. */
type HttpAnswer = Awaited<ReturnType<typeof readAnswer>>;

async function readAnswer(response: Received, options: SendOptions) {
  const { tried, secrets, limits } = options;
  const { status, headers } = response;
  const date = Date.parse(headers.get("date") ?? "");
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > limits.size) {
      const message = `${tried}: the reply is larger than ${limits.size} bytes`;
      const details = { status, hint: "check the endpoint" };
      throw new TikTokShopError("invalid_response", message, details);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return {
    status,
    type: shown(headers.get("content-type"), secrets).slice(0, 60),
    /** The host's clock, in Unix seconds. */
    date: Number.isNaN(date) ? undefined : date / 1000,
    retryAfter: retryAfterOf(headers),
    text: text + decoder.decode(),
  };
}

/** `Retry-After` in seconds, given as such or as a date. */
function retryAfterOf(headers: Headers): number | undefined {
  const text = headers.get("retry-after") ?? "";
  if (/^\d+$/.test(text)) return Number(text);
  const since = Date.parse(headers.get("date") ?? "") || Date.now();
  const wait = (Date.parse(text) - since) / 1000;
  return wait >= 0 ? wait : undefined;
}

/** Makes a call, cures what TikTok refuses, and waits for what may pass. */
async function makeCall<T>({ isRead, signal, send, judge, cures }: {
  /** Whether making it twice does no harm. */
  isRead: boolean;
  signal: AbortSignal | undefined;
  send: () => Promise<HttpAnswer>;
  /** Throws what the answer means, if it is a failure. */
  judge: (answer: HttpAnswer) => T;
  /** Each changes the call; resolves to whether it is now worth making. */
  cures?: Record<string, (answer: HttpAnswer) => boolean | Promise<boolean>>;
}): Promise<T> {
  const left = new Map(Object.entries(cures ?? {}));
  let isLost = false;
  for (let retry = 0;;) {
    if (signal?.aborted) throw cancelledError(signal.reason);
    let answer: HttpAnswer | undefined;
    try {
      answer = await send();
      return judge(answer);
    } catch (error) {
      const meaning = answer && envelopeOf(answer)?.meaning;
      const { cure = "" } = meaning ?? {};
      const change = left.get(cure);
      left.delete(cure);
      if (answer && await change?.(answer)) continue;
      const { mayPass, mayHaveActed } = fateOf(error, meaning);
      if (mayHaveActed && !isRead) throw extended(error, DOUBT, CHECK);
      const wait = mayPass ? retryDelay(error, retry++) : undefined;
      if (wait === undefined) {
        throw isLost && !mayHaveActed ? extended(error, LOSS) : error;
      }
      isLost ||= mayHaveActed && !meaning;
      await sleep(wait, signal);
    }
  }
}

const DOUBT = "; TikTok may have carried it out";
const CHECK = "check what it did before you make the call again";
const LOSS = "; an earlier answer to the same request was lost";

/** An error of ours with more in its message; any other as it is. */
function extended(error: unknown, more: string, hint?: string): unknown {
  if (!(error instanceof TikTokShopError)) return error;
  const { kind, message, cause } = error;
  const details = { ...error, cause, hint: hint ?? error.hint };
  return new TikTokShopError(kind, message + more, details);
}

/** Whether a failed call may succeed later, and whether it was made. Pure. */
function fateOf(error: unknown, meaning?: Meaning) {
  const { kind, status = 0 } = error as Partial<TikTokShopError>;
  if (meaning) {
    const { cure, isDoubtful = false } = meaning;
    return { mayPass: cure === "wait", mayHaveActed: isDoubtful };
  }
  if (kind === "network") {
    const causes = causesOf(error);
    const mayPass = !REFUSED_CERTIFICATE.test(causes) &&
      !/^NotCapable$/m.test(causes); // a permission of Deno's
    return { mayPass, mayHaveActed: mayPass && !UNSENT.test(causes) };
  }
  const isFault = status >= 500;
  const isStrange = kind === "invalid_response" && status < 300;
  return {
    mayPass: isFault || status === 429,
    mayHaveActed: isFault || isStrange || kind === "cancelled",
  };
}

/** How many ms to wait before trying again; undefined: it is final. Pure. */
function retryDelay(error: unknown, retry: number): number | undefined {
  const { retryAfter = 0 } = error as Partial<TikTokShopError>;
  if (retry >= RETRIES || retryAfter > RETRY_AFTER_LIMIT) return undefined;
  const backOff = 250 * 2 ** retry * (1 + Math.random());
  return Math.max(backOff, retryAfter * 1000);
}

// === Values

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A foreign value as text; the `toString` of an object may be no function. */
function textOf(value: unknown): string {
  return typeof value === "object" ? "" : String(value ?? "");
}

/** An integer, also one that was sent as text. */
function integerOf(value: unknown): number | undefined {
  const text = textOf(value);
  return /^-?\d{1,300}$/.test(text) ? Number(text) : undefined;
}

/** The strings and numbers of JSON text. */
const JSON_TOKENS =
  /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON that keeps integers beyond 2^53, as `bigint`; undefined if broken. */
function parseJson(text: string): unknown {
  try {
    const plain = JSON.parse(text);
    if (!/\d{16}/.test(text)) return plain;
    const mark = `${randomText(9)}:`;
    const marked = text.replace(JSON_TOKENS, (token) => {
      const isExact = Number.isSafeInteger(Number(token));
      return isExact || !/^-?\d+$/.test(token) ? token : `"${mark}${token}"`;
    });
    return withBigInts(JSON.parse(marked), mark);
  } catch {
    return undefined;
  }
}

/** Makes numbers of marked texts; without recursion, as any depth may come. */
function withBigInts(value: unknown, mark: string): unknown {
  const top = { value };
  const rest: object[] = [top];
  for (let node = rest.pop(); node; node = rest.pop()) {
    for (const [name, member] of Object.entries(withToJson(node))) {
      if (typeof member === "object" && member !== null) rest.push(member);
      if (typeof member !== "string" || !member.startsWith(mark)) continue;
      const value = BigInt(member.slice(mark.length));
      Object.defineProperty(node, name, { value }); // also "__proto__"
    }
  }
  return top.value;
}

/** Lets plain `JSON.stringify` work in spite of bigints: as their digits. */
function withToJson<T extends object>(value: T): T {
  if (Array.isArray(value)) return value;
  return Object.defineProperty(value, "toJSON", { value: digitsToJson });
}

function digitsToJson(this: object): object {
  const plain = (member: unknown): unknown => {
    if (Array.isArray(member)) return member.map(plain);
    return typeof member === "bigint" ? String(member) : member;
  };
  const members = Object.entries(this).map(([k, v]) => [k, plain(v)]);
  return Object.fromEntries(members);
}

const JSON_DEPTH = 1 << 19; // levels, as many as 1 MiB of text can have
const INDENTED_DEPTH = 500; // levels; with more, spaces would fill memory

/** JSON with bigints as numbers, safe on a terminal, of any nesting. */
function stringifyJson(value: unknown, indent = 2): string {
  const parts: string[] = [];
  const open: Iterator<string | object>[] = [[jsonOf(value)].values()];
  while (open.length > 0) {
    const { value: piece, done } = open.at(-1)!.next();
    if (done) open.pop();
    else if (typeof piece === "string") parts.push(piece);
    else open.push(jsonPieces(piece, indent, open.length));
    // A value may contain itself.
    if (open.length > JSON_DEPTH) throw new RangeError("JSON without an end");
    if (indent && open.length > INDENTED_DEPTH) return stringifyJson(value, 0);
  }
  return parts.join("");
}

/** The JSON of an object: text, and the members that are objects. */
function* jsonPieces(value: object, indent: number, depth: number) {
  const lineAt = (depth: number) =>
    indent ? `\n${" ".repeat(indent * depth)}` : "";
  const isList = Array.isArray(value);
  const [start, end] = isList ? ["[", "]"] : ["{", "}"];
  let before = start;
  for (const [name, member] of Object.entries(isList ? [...value] : value)) {
    if (member === undefined && !isList) continue;
    const key = isList ? "" : `${jsonOf(name)}:${indent ? " " : ""}`;
    yield before + lineAt(depth) + key;
    yield jsonOf(member);
    before = ",";
  }
  yield before === start ? start + end : lineAt(depth - 1) + end;
}

/** The JSON of a value; for an object, the object to be written. */
function jsonOf(value: unknown): string | object {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object" || value === null) {
    const hex = (c: string) => c.charCodeAt(0).toString(16).padStart(4, "0");
    return (JSON.stringify(value) ?? "null")
      .replace(UNPRINTABLE, (c) => `\\u${hex(c)}`);
  }
  const { toJSON } = value as { toJSON?: unknown };
  const isOwn = typeof toJSON !== "function" || toJSON === digitsToJson;
  return isOwn ? value : jsonOf(toJSON.call(value));
}

const SECRET_NAMES = "app_secret|auth_code|code|access_token|refresh_token|" +
  "sign|state|x-tts-access-token";

/** `name=value` in URLs and forms, and in a URL inside of another. */
const SECRET_PARAMETER = new RegExp(
  `((?:\\b|(?<=%(?:25)*(?:26|3F)))(?:${SECRET_NAMES}))` +
    `(?:(=)[^&\\s"'<>#;]+|(%(?:25)*3D)(?:(?!%(?:25)*26)[^&\\s"'<>#;])+)`,
  "gi",
);
/** `"name":"value"` in JSON, and in JSON inside of JSON. */
const SECRET_MEMBER = new RegExp(
  `("(?:${SECRET_NAMES})\\\\*"\\s*:\\s*)\\\\*"(?:[^"\\\\]|\\\\.)*"?`,
  "gi",
);
/** The name of a member that is a secret, if it is text. */
const SECRET_NAME = new RegExp(`^(?:${SECRET_NAMES})$`, "i");
const SECRET_HEADER = /\b(x-tts-access-token|authorization)(\s*:\s*)[^\r\n]+/gi;
/** User and password in a URL. */
const SECRET_USER = /(:\/\/)[^\s/?#@"'<>]+@/g;

/** The one redactor: hides secrets and what bears a secret name. */
function redact(text: string, secrets: Secrets = []): string {
  // A long text may be too much for a pattern.
  const clean = () =>
    hideSecrets(text, secrets)
      .replace(SECRET_PARAMETER, "$1$2$3***")
      .replace(SECRET_MEMBER, '$1"***"')
      .replace(SECRET_HEADER, "$1$2***")
      .replace(SECRET_USER, "$1***@");
  return attempt(clean, UNSHOWN);
}

const UNSHOWN = "(a text that could not be redacted)";
const REDACTED_LIMIT = 1 << 23; // characters; more would take gigabytes
const SHORTEST_SECRET = 4; // characters
const PIECE_SIZE = 8; // characters of a secret that never show in a row

/** Hides each piece of each secret, however it is encoded, in linear time. */
function hideSecrets(text: string, secrets: Secrets): string {
  const words = secrets.filter(({ length }) => length >= SHORTEST_SECRET)
    .flatMap(foldings).map(({ codes }) => codes);
  if (words.length === 0) return text;
  // A secret with little ASCII cannot be found, so the whole text is hidden.
  const isVague = words.some(({ length }) => length < SHORTEST_SECRET);
  if (isVague || text.length > REDACTED_LIMIT) return UNSHOWN;
  const pieces = new Set<number>();
  const sizes = new Set<number>();
  for (const word of words) {
    const size = Math.min(PIECE_SIZE, word.length);
    sizes.add(size);
    piecesOf(word, size).forEach((piece) => pieces.add(piece));
  }
  const hidden = new Uint8Array(text.length + 1);
  for (const { codes, starts, ends } of foldings(text)) {
    for (const size of sizes) {
      piecesOf(codes, size).forEach((piece, i) => {
        if (pieces.has(piece)) hidden.fill(1, starts[i], ends[i + size - 1]);
      });
    }
  }
  let [result, done] = ["", 0];
  for (let from; (from = hidden.indexOf(1, done)) >= 0;) {
    result += `${text.slice(done, from)}***`;
    done = hidden.indexOf(0, from);
  }
  return result + text.slice(done);
}

/** Each piece as a number: to base 96, eight characters are exact. */
function piecesOf(codes: Uint8Array, size: number): Float64Array {
  const pieces = new Float64Array(codes.length);
  for (let i = 0, piece = 0; i < codes.length; i++) {
    const gone = i < size ? 0 : codes[i - size]! - 31; // 1 to 95
    piece = (piece - gone * 96 ** (size - 1)) * 96 + codes[i]! - 31;
    pieces[i] = piece;
  }
  return pieces.subarray(size - 1);
}

/**
 * The printable ASCII of a text in lower case, as it is and decoded, and where
 * each character was. Backslashes are dropped: `\"` is `"`, `\u0041` is
 * `u0041`. `%41` and `u0041` are decoded as often as they were encoded.
 */
function foldings(text: string) {
  return [false, true].map((isDecoded) => {
    const codes = new Uint8Array(text.length);
    const starts = new Uint32Array(text.length);
    const ends = new Uint32Array(text.length);
    let size = 0;
    for (let i = 0; i < text.length; i++) {
      let code = FOLDED[text.charCodeAt(i)];
      starts[size] = i;
      while (code) {
        codes[size] = code;
        ends[size++] = i + 1;
        if (!isDecoded) break;
        // This character may complete an escape, and that an outer one.
        const length = codes[size - 3] === 37 ? 3 : 5; // "%", else "u"
        const start = size - length;
        if (length === 5 && codes[start] !== 117) break;
        let value = 0;
        for (let k = start + 1; k < size; k++) {
          value = value * 16 + HEX[codes[k]!]!;
        }
        if (Number.isNaN(value)) break;
        code = FOLDED[value];
        size = start;
      }
    }
    return { codes: codes.subarray(0, size), starts, ends };
  });
}

const ASCII = Array.from({ length: 127 }, (_, i) => String.fromCharCode(i));
const HEX = ASCII.map((c) => parseInt(c, 16));

/** What remains of each ASCII code; 0: nothing. */
const FOLDED = ASCII.map((c, code) => {
  if (code < 32) return "btnvfr".charCodeAt(code - 8) || 0; // "\n" is n
  if (c === "+") return 32; // a space, in forms
  return c === "\\" ? 0 : c.toLowerCase().charCodeAt(0);
});

/** What could forge a terminal; not joiners, which names and emoji have. */
const UNPRINTABLE =
  // deno-lint-ignore no-control-regex -- they are what must not be there
  /[\0-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** Foreign text made safe to show on one line of a terminal. */
function printable(text: string): string {
  return text.replace(UNPRINTABLE, (c) => c === "\n" ? " " : "\ufffd");
}

/** A foreign value for a message: short, and without secrets. */
function shown(value: unknown, secrets?: Secrets): string {
  return printable(redact(textOf(value), secrets)).slice(0, 300);
}

/** Compares two texts in constant time; their lengths are no secret. */
function sameText(a: string, b: string): boolean {
  const encoder = new TextEncoder();
  const [x, y] = [encoder.encode(a), encoder.encode(b)];
  const differing = x.reduce((all, byte, i) => all | (byte ^ y[i]!), 0);
  return x.length === y.length && differing === 0;
}

/** What work brings, or something else if it throws. */
function attempt<T, U>(work: () => T, otherwise: U): T | U {
  try {
    return work();
  } catch {
    return otherwise;
  }
}

/** Random bytes as base64url; node:crypto would cost Deno's start 30 ms. */
function randomText(bytes: number): string {
  const random = crypto.getRandomValues(new Uint8Array(bytes));
  return btoa(String.fromCharCode(...random))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** A RegExp made late: literals with `\p{…}` cost Node's start 1 to 2 ms. */
function pattern(source: string, flags = "u"): RegExp {
  return new RegExp(source, flags);
}

/** The rows of a table: cells between bars; a row goes on where indented. */
function textRows(text: string): string[][] {
  const rows = text.trim().replace(/\n +/g, " ").split("\n");
  return rows.map((row) => row.split(/ \|(?= )/).map((cell) => cell.trim()));
}

/** Whether a value is an object of nothing but members, of any realm. */
function isPlain(value: unknown): value is Record<string, unknown> {
  if (!isRecord(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function tagOf(value: unknown): string {
  return Object.prototype.toString.call(value);
}

/** The bytes of a buffer, or of a view of one, of any realm. */
function bytesOf(value: unknown): Uint8Array<ArrayBuffer> | undefined {
  if (ArrayBuffer.isView(value)) {
    const { buffer, byteOffset, byteLength } = value;
    return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
  }
  const isBuffer = tagOf(value).endsWith("ArrayBuffer]");
  return isBuffer ? new Uint8Array(value as ArrayBuffer) : undefined;
}

/** A failed call's body without its secrets: JSON, or else text. Pure. */
function redactedBody(text: string, secrets: Secrets): unknown {
  const parsed = parseJson(text);
  if (isRecord(parsed)) {
    // Every other part is a string of the JSON.
    const parts = stringifyJson(parsed, 0).split(/"((?:[^"\\]|\\.)*)"/);
    const strings = parts.filter((_, i) => i % 2 === 1);
    // All at once: one by one takes a thousand times longer.
    const clean = redact(strings.join("\n"), secrets).split("\n");
    const safe = parts.map((part, i) => {
      if (i % 2 === 0) return part;
      const isSecret = parts[i - 1] === ":" && SECRET_NAME.test(parts[i - 2]!);
      // Digits alone are one of TikTok's codes.
      return `"${isSecret && /\D/.test(part) ? "***" : clean[(i - 1) / 2]}"`;
    });
    const body = parseJson(safe.join(""));
    if (isRecord(body) && clean.length === strings.length) return body;
  }
  return redact(text, secrets).slice(0, 10_000) || undefined;
}

/** Calls a listener; never rejects, as a caller's bug must cost no tokens. */
async function notify<T>(
  listener: ((value: T) => unknown) | undefined,
  value: T,
  onWarning?: (message: string) => unknown,
): Promise<void> {
  try {
    await listener?.(value);
  } catch (error) {
    await notify(onWarning, `A listener failed: ${messageOf(error)}`);
  }
}

const ABORT_CALLS = new WeakMap<EventTarget, Set<() => void>>();

function runAbortCalls({ target }: Event): void {
  ABORT_CALLS.get(target!)?.forEach((call) => call());
}

/** Calls back when a signal aborts, until the returned function is called. */
function onAbort(signal: AbortSignal | undefined, callback: () => void) {
  if (!signal) return () => {};
  // One listener for all: Node 20 warns of a leak at the eleventh.
  const calls = ABORT_CALLS.get(signal) ?? new Set();
  ABORT_CALLS.set(signal, calls.add(callback));
  signal.addEventListener("abort", runAbortCalls);
  return () => {
    calls.delete(callback);
    if (calls.size === 0) signal.removeEventListener("abort", runAbortCalls);
  };
}

// === Time

const UNITS = { y: 365 * 86400, d: 86400, h: 3600, m: 60, s: 1 };

/** A duration in seconds, at least `least`. */
function seconds(duration: Duration, least = Number.MIN_VALUE): number {
  const match = /^(\d+(?:\.\d+)?)([smhd]?)$/.exec(String(duration));
  const unit = (match?.[2] || "s") as keyof typeof UNITS;
  const value = Number(match?.[1]) * UNITS[unit];
  if (value >= least) return value;
  throw outOfRange(`Cannot read the duration "${duration}": use 90, 5m or 2h`);
}

/** A span of time in its two largest units. */
function timeLeft(span: number | undefined): string {
  if (span === undefined) return "unknown";
  if (span <= 0) return "ended";
  let rest = Math.max(span, 1);
  const parts = Object.entries(UNITS).map(([name, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count && `${count}${name}`;
  });
  const first = parts.findIndex(Boolean);
  return parts.slice(first, first + 2).filter(Boolean).join(" ");
}

/** Waits; rejects at once with kind `cancelled` when the signal aborts. */
async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  const { promise, resolve } = deferred<void>();
  const timer = setTimeout(resolve, ms);
  await abortable(promise, signal).finally(() => clearTimeout(timer));
}

/** What a promise brings within `ms`, or else undefined. */
async function within<T>(promise: Promise<T>, ms: number) {
  const late = deferred<undefined>();
  const timer = setTimeout(late.resolve, ms, undefined);
  return await Promise.race([promise, late.promise])
    .finally(() => clearTimeout(timer));
}

/** As Promise.withResolvers(), which Node 20 lacks. */
function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((...functions) => {
    [resolve, reject] = functions;
  });
  return { promise, resolve, reject };
}

/** A promise's outcome, or kind `cancelled` once the signal aborts. */
async function abortable<T>(
  promise: Promise<T>,
  signal?: AbortSignal,
  errorOf: (reason: unknown) => unknown = cancelledError,
): Promise<T> {
  if (!signal) return await promise;
  // A late rejection, with no one waiting, must not end the process.
  Promise.resolve(promise).catch(() => {});
  if (signal.aborted) throw errorOf(signal.reason);
  const aborted = deferred<never>();
  const forget = onAbort(signal, () => aborted.reject(errorOf(signal.reason)));
  return await Promise.race([promise, aborted.promise]).finally(forget);
}

/** Runs what it is given, at most so many at a time, in order. */
type Limit = <T>(work: () => Promise<T>) => Promise<T>;

function limit(width: number): Limit {
  const waiting: (() => void)[] = [];
  let free = width; // below 0: so many wait
  return async (work) => {
    const turn = deferred<void>();
    if (free-- > 0) turn.resolve();
    else waiting.push(turn.resolve);
    await turn.promise;
    return await work().finally(() => {
      free++;
      waiting.shift()?.();
    });
  };
}

// === Checks

/** What a key must not have in it, and what to do about it. */
const COPY_FAULTS: [RegExp, string][] = [
  [/\s/, "has white space in it: copy it alone"],
  [/^<|>$|^\$?\{.*\}$|^\[.*\]$/, "is in brackets: put your own there, without"],
  [
    /^["'`\u00ab\u2018-\u201f\uff02]|["'`\u00bb\u2018-\u201f\uff02]$/,
    "has quotes around it: leave them out",
  ],
  [/^[\w-]*(?:key|secret|id)[:=]/i, "has a name in front of it: leave it out"],
  [/[^\x21-\x7e]/, "has an invisible or full-width character: copy it again"],
  [/^$/, "is missing: copy it from your app in Partner Center"],
];

/** A key as it was copied from Partner Center, or what is wrong with it. */
function assertCopied(what: string, given: unknown): string {
  const text = typeof given === "string" ? given : "";
  const [, fault] = COPY_FAULTS.find(([form]) => form.test(text)) ?? [];
  if (fault) throw misuse(`The ${what} ${fault}`);
  return text;
}

function assertAppKey(appKey: string | undefined): string {
  const key = assertCopied("app key", appKey);
  const other = key.length >= 30
    ? "The app key looks like the app secret" // so it is not shown
    : /^\d{15,}$/.test(key)
    ? `"${key}" looks like a service id`
    : undefined;
  if (!other) return key;
  throw misuse(`${other}: an app key has about 12 letters and digits`);
}

function assertAppSecret(appSecret: string | undefined): string {
  return assertCopied("app secret", appSecret);
}

function assertServiceId(serviceId: string | undefined): string {
  const id = serviceId && assertCopied("service id", serviceId);
  if (id && /^\d+$/.test(id)) return id;
  // Nothing as long as an app secret is shown: it may have been mixed up.
  const named = id && id.length < 30 ? ` "${id}"` : "";
  const what = `The service id${named} is ${id ? "not a number" : "missing"}`;
  const rule = "it has about 19 digits, at the end of Partner Center's " +
    "authorization link; the app key is something else";
  throw misuse(`${what}: ${rule}`);
}

/** An endpoint as a URL: https, or http to a loopback host only. */
function endpointUrl(text: string, what: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const secure = url?.protocol === "https:" ||
    (url?.protocol === "http:" && isLoopback(url.hostname));
  if (url && secure && !url.username && !url.password && !url.hash) return url;
  const rule = 'it must be an https URL, or http to loopback, no user, no "#"';
  throw misuse(`Cannot use the ${what} "${redact(text)}": ${rule}`);
}

function isLoopback(hostname: string): boolean {
  return /^(localhost|\[::1\]|127(\.\d{1,3}){3})$/.test(hostname);
}

/** `3017` or `3017-3020` as the ports to try, in order. */
function portRange(port: number | string): number[] {
  const [, start, end = start] = /^(\d+)(?:-(\d+))?$/.exec(`${port}`) ?? [];
  const [first, last] = [Number(start), Number(end)];
  if (!(first >= 1 && first <= last && last <= 65535)) {
    throw outOfRange(`Cannot listen on port "${port}": use 1 to 65535, or N-M`);
  }
  const ports = Array.from({ length: last - first + 1 }, (_, i) => first + i);
  ports.forEach(assertBrowsable);
  return ports;
}

/** Ports that browsers open no page of (Fetch standard, "bad ports"). */
const BAD_PORTS = new Set(
  ("1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 " +
    "103 104 109 110 111 113 115 117 119 123 135 137 139 143 161 179 389 " +
    "427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 " +
    "636 989 990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 " +
    "6566 6665 6666 6667 6668 6669 6679 6697 10080").split(" ").map(Number),
);

function assertBrowsable(port: number): void {
  if (!BAD_PORTS.has(port)) return;
  throw outOfRange(`Cannot use port ${port}: browsers refuse it, use another`);
}

// === Runtime

/** The text of a file: UTF-8, or the UTF-16 that PowerShell's ">" writes. */
function decodeText(bytes: Uint8Array): string {
  const mark = bytes[0]! << 8 | bytes[1]!;
  const name = { 0xfffe: "utf-16le", 0xfeff: "utf-16be" }[mark] ?? "utf-8";
  return new TextDecoder(name).decode(bytes);
}

/** Whether a person can be asked. */
function isInteractive(): boolean {
  const { isatty } = node("node:tty");
  return isatty(0) && isatty(2);
}

function base64(text: string, encoding: "utf8" | "utf16le" = "utf8"): string {
  return node("node:buffer").Buffer.from(text, encoding).toString("base64");
}

/** A path with `~/` expanded: after a "=" the shell leaves it. */
function expandHome(path: string, env = RUNTIME.process.env): string {
  if (!path.startsWith("~/")) return path;
  const { platform } = RUNTIME.process;
  const home = platform === "win32" ? env.USERPROFILE : env.HOME;
  return home ? paths().join(home, path.slice(2)) : path;
}

/** Our environment without what a tool or a browser need not know. */
function envWithoutSecrets(): Record<string, string | undefined> {
  const env = { ...RUNTIME.process.env };
  const isSecret = /^TIKTOK_SHOP_.*(SECRET|TOKEN|CIPHER)|^PSModulePath$/i;
  for (const name in env) if (isSecret.test(name)) delete env[name];
  return env;
}

const TIMED_OUT = 124; // as timeout(1) says it
const SILENT = "it does not answer";
/** Without an input, the tool has ours. */
type Tool = [file: string, args: string[], input?: string];

/** A tool's exit status, as a shell would tell it, and 64 KiB of its output. */
async function runTool(tool: Tool, ms: number, signal?: AbortSignal) {
  const [file, args, input] = tool;
  // What a keychain's tool complains of may have the secret in it.
  const stdio: ("pipe" | "inherit" | "ignore")[] = input === undefined
    ? ["inherit", "pipe", "inherit"]
    : ["pipe", "pipe", "ignore"];
  const env = envWithoutSecrets();
  const { existsSync } = node("node:fs");
  const bus = `/run/user/${RUNTIME.process.getuid?.()}/bus`;
  // What cron starts knows no bus, and libsecret does not look there.
  if (!existsSync(`${env.XDG_RUNTIME_DIR}/bus`) && existsSync(bus)) {
    env.DBUS_SESSION_BUS_ADDRESS ||= `unix:path=${bus}`;
  }
  const options = { stdio, windowsHide: true, env };
  const child = node("node:child_process").spawn(file, args, options);
  const [into, out] = child.stdio;
  let text = "";
  out?.on("data", (chunk) => text = (text + chunk).slice(0, 65536));
  into?.on("error", () => {}).end(input); // it may end without reading
  try {
    const ended = childEnd(child).catch((e) => isMissing(e) ? 127 : 126);
    const status = await within(abortable(ended, signal), ms);
    return { status: status ?? TIMED_OUT, text };
  } finally {
    if (child.exitCode === null) child.kill("SIGKILL");
    out?.destroy(); // what the tool has started may hold it, and so us
  }
}

type ChildProcess = import("node:child_process").ChildProcess;

/** The exit status of a process, as a shell would tell it. */
function childEnd(child: ChildProcess): Promise<number> {
  const { signals } = node("node:os").constants;
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      resolve(code ?? 128 + (signal ? signals[signal] : 0));
    });
  });
}

// === Program

const EXIT_CODES: Record<string, number> = {
  usage: 2,
  access_denied: 3,
  timeout: 4,
  login_required: 5,
  rejected: 6,
  cancelled: 130,
};

/**
 * The program. Writes data to stdout and everything for people to stderr.
 *
 * @param args the arguments, without those of the runtime.
 * @returns the exit code; see the README. Never exits by itself.
 */
export async function main(args: string[]): Promise<number> {
  if (args.length === 1 && tellsAtOnce(args[0]!)) return 0;
  // A reader that is gone, or a full disk, must not cost anybody a token.
  for (const name of ["stdout", "stderr"] as const) {
    RUNTIME.process[name].off("error", ignore).on("error", ignore);
  }
  let cli: Cli | undefined;
  try {
    const isHelp = args[0] === "help";
    cli = readCommandLine(isHelp ? [...args.slice(1), "--help"] : args);
    if (cli.has("version")) cli.line(VERSION);
    else if (cli.has("help")) cli.line(helpText(cli));
    else await RUNS[cli.commandName]!(cli).finally(() => cli?.close());
    await cli.written;
    return cli.exitCode;
  } catch (error) {
    return report(error, args, cli);
  }
}

function ignore(): void {}

/** Tells what needs no built-in; what fails is told the usual, slower way. */
function tellsAtOnce(asked: string): boolean {
  const isVersion = asked === "--version" || asked === "-V";
  if (!isVersion && !/^(--help|-h|help)$/.test(asked)) return false;
  const text = isVersion ? VERSION : helpText();
  try {
    // The streams behind Node's console take longer than all the rest.
    if (RUNTIME.Deno) console.log(text);
    else node("node:fs").writeSync(1, `${text}\n`);
    return true;
  } catch {
    return false;
  }
}

/** Tells an error and its next step; returns its exit code. */
function report(error: unknown, args: readonly string[], cli?: Cli): number {
  // Without a command line that could be read, its words must do.
  const has = (flag: string) => cli?.has(flag) ?? args.includes(`--${flag}`);
  const facts = (error ?? {}) as Partial<TikTokShopError>;
  const kind = kindOf(error);
  // What could not be saved must not be lost.
  if (facts.reply && kind === "store") cli?.json(facts.reply);
  const text = (of: unknown) => messageOf(of, cli?.secrets);
  const bug = kind === "bug" ? "a fault of this program: " : "";
  const message = bug + text(error);
  const how = has("verbose") ? "" : ", with --verbose";
  const hints: Record<string, string> = {
    bug: `please report it at ${ISSUES}${how}`,
    usage: `see ${commandLineOf([...cli ? [cli.commandName] : [], "--help"])}`,
  };
  const hint = hints[kind] ?? facts.hint;
  const steps = { hint, ...nextStep(error, cli) };
  const { isTTY } = RUNTIME.process.stderr;
  if (message === "Cancelled: interrupted" && isTTY && !has("json")) {
    note("Cancelled"); // by a person, who knows why
  } else if (has("json")) {
    const { requestId: request_id } = facts;
    const code = integerOf(facts.code); // not a system's
    const all = { kind, code, request_id, message, ...steps };
    raw(`${stringifyJson({ error: all }, 0)}\n`);
  } else {
    note(message, "error");
    for (const [name, line] of Object.entries(steps)) {
      if (line) note(printable(line), name);
    }
  }
  if (has("verbose")) {
    const calls = bug && String(facts.stack).match(/^\s+at .+/gm) || [];
    for (const call of calls) note(text(call));
    for (let at = facts.cause; at; at = (at as Error).cause) {
      note(`cause: ${text(at)}`);
    }
  }
  return EXIT_CODES[kind] ?? 1;
}

/** An error's kind, also of one that is not ours. */
function kindOf(error: unknown): string {
  if (error instanceof TikTokShopError) return error.kind;
  if (codeOf(error) === MISUSE) return "usage";
  const { name } = (error ?? {}) as { name?: unknown };
  const ofSystem = /^E[A-Z0-9]+$/.test(codeOf(error)) || name === "NotCapable";
  return ofSystem ? "system" : "bug";
}

const ISSUES = `https://github.com/${PROGRAM}/${PROGRAM}/issues`;

/** The commands and flags that do as a hint says, by TikTok's code or kind. */
const NEXT_STEPS: Record<string, string> = {
  login: "36004004 105005 access_denied cancelled login_required " +
    "missing_scope state_mismatch timeout",
  refresh: "105002",
  "--shop ID": "106013",
  "--allow-missing-state": "missing_state",
  "--port PORT": "port_in_use",
  "--file FILE": "store",
};

/** The command to run next, as it works here, or the flag to add. */
function nextStep(error: unknown, cli?: Cli, profile?: string): NextStep {
  const { kind, code, cause } = (error ?? {}) as Partial<TikTokShopError>;
  if (!kind || (kind === "store" && !cause)) return {};
  // A timeout may come from a missing state.
  const { kind: beneath } = (cause ?? {}) as Partial<TikTokShopError>;
  if (beneath === "missing_state") return nextStep(cause, cli);
  // Only after a login is logging in what "try again" means.
  if (kind === "cancelled" && cli?.commandName !== "login") return {};
  const step = Object.keys(NEXT_STEPS).find((each) =>
    NEXT_STEPS[each]!.split(" ").some((of) => of === kind || of === `${code}`)
  );
  if (!step || step.startsWith("--")) return { flag: step };
  return { run: commandLineOf([step, ...wordsAgain(cli, profile)]) };
}

type NextStep = { run?: string; flag?: string };

const NEXT_FLAGS = "profile file env-file app-secret-file api-endpoint"
  .split(" ");

/** The flags that the next command needs too. */
function wordsAgain(cli?: Cli, profile?: string): string[] {
  if (profile !== undefined && !cli?.get("file")) return ["--profile", profile];
  if (cli?.commandName !== "login") {
    return cli?.words(NEXT_FLAGS) ?? [];
  }
  const names = flagNames("login").filter((name) => name !== "complete");
  const words = cli.words(names);
  return cli.has("complete") ? [...words, "--start"] : words;
}

/** An error's hint, with the flag that it speaks of. */
function hintOf(error: unknown): string | undefined {
  const { hint } = (error ?? {}) as Partial<TikTokShopError>;
  const { flag } = nextStep(error);
  return flag ? `${hint}: ${flag}` : hint;
}

// --- flags

/**
 * Every flag, for the parser, the help and the README: its usage (`...`: may be
 * repeated), its variable behind TIKTOK_SHOP_ (`*`: named alike), its default,
 * and what it does.
 */
const FLAGS = flagTable(`
--app-key KEY | * | asked for | the app key from Partner Center
--app-secret-file FILE | | asked for | file with the app secret, - for stdin
--app-secret-command CMD | * | | prints the app secret, as pass and op do
--service-id ID|LINK | * | asked for | the authorization link, or its number
--region row|us | * | the link's, else row | us: the US market, row: all others
--user-type TYPE | * | seller | seller, partner or creator
--profile NAME | * | default | name to keep the tokens under
--file FILE | TOKEN_FILE | the profile's | file to keep the tokens in
--authorization-endpoint URL | * | TikTok's | authorize at another page
--token-endpoint URL | * | TikTok's | get tokens from another host
--refresh-endpoint URL | * | TikTok's | refresh tokens at another host
--api-endpoint URL | * | TikTok's | call the API of another host
--env-file FILE | | ./.env | take variables from FILE, which may set all of them
--json | | | print JSON on one line, for programs
--quiet | | | print only the link, questions and errors on stderr
--verbose | | | print each request on stderr, without secrets
-h, --help | | | print this help
-V, --version | | | print the version
--port N[-M] | | ${DEFAULT_PORT} | callback port, or the first free of a range
--host HOST | | localhost | the redirect URL's host, or 127.0.0.1
--path PATH | | / | path of the redirect URL
--redirect-url URL | | | the registered URL when it is a relay's or a tunnel's
--tls-cert FILE | | | certificate (PEM) to serve the callback over https
--tls-key FILE | | | private key (PEM) of the certificate
--timeout TIME | | ${DEFAULT_TIMEOUT} | how long to wait, such as 90 or 5m
--param k=v ... | | | extra parameter of the link
--no-browser | | | open no browser, only print the link
--no-show | | | do not print the tokens, unless they could not be saved
--browser CMD | | $BROWSER, else the system's | opens the link, which is %s
--paste | | on a terminal | take the redirect from stdin
--start | | | print the link as JSON and end; go on with --complete
--complete URL|CODE | | | finish what --start began, - for stdin
--allow-missing-state | | | accept a redirect that carries no state
--switch | | | replace the tokens of another seller
--require-scope A,B | | | fail, after saving, if a scope was not granted
--keep-secret WHERE | | asked for | keychain, file (plain text) or no
--all | | | refresh every profile, 16 at a time
--min-valid TIME | | | time the access token must have left, as in 5m or 2h
--query k=v ... | | | parameter of the call
--body JSON | | | the body: JSON, @FILE, or - for stdin
--shop SHOP | | | shop to act for: id, name, code or cipher, or none
--with-secret | | | set TIKTOK_SHOP_APP_KEY and _APP_SECRET too
--app | | | forget the app's settings and secret too
--paginate | | | follow next_page_token, one JSON line a page
--request-timeout TIME | | 30s, for calls 2m | time a request may take
--reply-limit BYTES | | 1M, for calls 32M | size of a reply, as in 64M
`);

function flagTable(text: string) {
  const flags = textRows(text).map(([usage, env, initial, help]) => {
    const [, letter, name, value = "", many] =
      /^(?:-(\w), )?--(\S+) ?(\S*)( \.+)?$/.exec(usage!)!;
    const type = value ? "string" as const : "boolean";
    const short = letter ? { short: letter } : {};
    const own = name!.toUpperCase().replaceAll("-", "_");
    const variable = env && `TIKTOK_SHOP_${env === "*" ? own : env}`;
    const told = { value, env: variable, initial, many, help };
    return [name!, { ...told, type, ...short }] as const;
  });
  return Object.fromEntries(flags);
}

const COMMON_FLAGS = "app-key app-secret-file app-secret-command " +
  "service-id region user-type profile file authorization-endpoint " +
  "token-endpoint refresh-endpoint api-endpoint env-file json quiet verbose " +
  "help version";
/** Those that say where the redirect comes in. */
const CALLBACK_FLAGS = "port host path redirect-url tls-cert tls-key";
/** Those that bound each request. */
const REQUEST_FLAGS = "request-timeout reply-limit";

/** Every command: operands, what it does, the names of its flags, examples. */
const COMMANDS = commandTable(`
login | get a token: link, browser, wait, exchange, save |
  ${CALLBACK_FLAGS} timeout param no-browser browser paste start complete
  allow-missing-state switch require-scope no-show keep-secret
  ${REQUEST_FLAGS} |
  login, login --profile us --region us, login --start
refresh | refresh the tokens now, and save them | all ${REQUEST_FLAGS} |
  refresh, refresh --all
token | print a valid access token, refreshed if need be |
  min-valid ${REQUEST_FLAGS} | token, token --min-valid 1h
status | show every profile and the time it has left | min-valid |
  status, status --min-valid 2h
use PROFILE | make a profile the one that is used if none is named | | use us
shops | list the shops that the token may act for | ${REQUEST_FLAGS} | shops
api METHOD PATH | make a signed call of the API |
  query body shop paginate ${REQUEST_FLAGS} |
  api GET /authorization/202309/shops, api GET /product/202309/categories
exec -- CMD ... | run a command with TIKTOK_SHOP_ACCESS_TOKEN set |
  min-valid shop with-secret ${REQUEST_FLAGS} | exec -- node report.js
logout | forget the tokens of a profile | app | logout, logout --profile us
doctor | check what a login needs, without spending a code |
  ${CALLBACK_FLAGS} | doctor, doctor --port 3017-3020
relay | print a web page that moves redirects on to localhost | |
  relay > index.html
completion SHELL | print the completions for bash, zsh, fish or powershell | |
  completion bash > tiktok-shop-oauth2.bash
sandbox | run a TikTok Shop of your own, see sandbox --help | | sandbox
demo | try the login at a sandbox | | demo
`);

function commandTable(text: string) {
  const commands = textRows(text).map(([usage, help, list, lines]) => {
    const [name = "", ...operands] = usage!.split(" ");
    const flags = (list ?? "").split(" ").filter(Boolean);
    const examples = (lines ?? "").split(", ").filter(Boolean);
    return [name, { help, operands, flags, examples }] as const;
  });
  return Object.fromEntries(commands);
}

/** Other names of commands. */
const ALIASES: Record<string, string> = { whoami: "status", list: "status" };

const RUNS: Record<string, (cli: Cli) => Promise<void>> = {
  login: loginCommand,
  refresh: refreshCommand,
  token: tokenCommand,
  status: statusCommand,
  use: useCommand,
  shops: shopsCommand,
  api: apiCommand,
  exec: execCommand,
  logout: logoutCommand,
  doctor: doctorCommand,
  relay: relayCommand,
  completion: completionCommand,
  sandbox: scriptCommand,
  demo: scriptCommand,
};

/** The names of the flags that a command takes; a script knows its own. */
function flagNames(command: string): string[] {
  if (RUNS[command] === scriptCommand) return ["help"];
  return [...COMMON_FLAGS.split(" "), ...COMMANDS[command]!.flags];
}

/** A value and where it was found. */
type Source = { text: string; from: string };

/** What was given on the command line, in the environment and in its file. */
class Cli {
  exitCode = 0;
  /** What no message may show. */
  readonly secrets: string[] = [];
  /** Rejects if data could not be written: a full disk is no success. */
  written: Promise<void> = Promise.resolve();
  readonly commandName: string;
  /** Whether the command was written, and not left out. */
  readonly isNamed: boolean;
  readonly operands: string[] = [];
  readonly flags = new Map<string, string[]>();
  readonly #learnt = new Map<string, unknown>();
  #terminal: Terminal | undefined;

  constructor(commandName: string, isNamed: boolean) {
    this.commandName = commandName;
    this.isNamed = isNamed;
  }

  /** For a command that asks or can be cancelled; begins at its first use. */
  get terminal(): Terminal {
    return this.#terminal ??= new Terminal();
  }

  close(): void {
    this.#terminal?.close();
  }

  has(flag: string): boolean {
    return this.flags.has(flag);
  }

  all(flag: string): string[] {
    return this.flags.get(flag) ?? [];
  }

  /** The flags of these names, as they were given. */
  words(names: readonly string[]): string[] {
    return names.flatMap((name) =>
      this.all(name).flatMap((value) => [`--${name}`, ...value ? [value] : []])
    );
  }

  /** What a command reads or asks once, however often it needs it. */
  once<T>(what: string, learn: () => T): T {
    if (!this.#learnt.has(what)) this.#learnt.set(what, learn());
    return this.#learnt.get(what) as T;
  }

  /** A flag's value, or another source's. */
  get(flag: string): string | undefined {
    const text = this.source(flag)?.text;
    if (!text) return text;
    const isFile = FLAGS[flag]!.value === "FILE";
    return isFile ? expandHome(text) : QUESTIONS[flag]?.[1](text) ?? text;
  }

  /** The same as it was written, and where it comes from. */
  source(flag: string): Source | undefined {
    const given = this.given(flag);
    if (given || !KEPT_FLAGS.includes(flag)) return given;
    const link = flag === "region" && this.source("service-id")?.text;
    const region = linkRegion(link || "");
    if (region) return { text: region, from: "the authorization link" };
    const appKey = flag === "app-key" ? "" : this.source("app-key")?.text;
    const name = flag.replaceAll("-", "_");
    for (const [from, kept] of this.once("kept", () => keptSettings(this))) {
      const { [name]: text, app_key: owner = appKey } = kept;
      // What is kept of another app is not meant.
      const isMeant = !appKey || owner === appKey;
      if (isMeant && text && typeof text === "string") return { text, from };
    }
    return undefined;
  }

  /** What the command line says, else the environment, else its file. */
  given(flag: string): Source | undefined {
    const [text] = this.all(flag);
    if (text !== undefined) return { text, from: "the command line" };
    const { env } = FLAGS[flag]!;
    // The flag --profile beats a file that the environment names.
    const isBeaten = flag === "file" && this.has("profile");
    return env && !isBeaten ? this.variable(env) : undefined;
  }

  /** A variable of the environment or its file; "" counts as not set. */
  variable(name: string): Source | undefined {
    const file = this.once("env file", () => readEnvFile(this.get("env-file")));
    const own = RUNTIME.process.env[name];
    if (own) return { text: own, from: "the environment" };
    const text = file[name];
    return text ? { text, from: "the env file" } : undefined;
  }

  /** JSON on stdout; for programs, and one of many, on one line. */
  json(value: unknown): void {
    const isLine = ["json", "all", "paginate"].some((name) => this.has(name));
    this.line(stringifyJson(value, isLine ? 0 : 2));
  }

  /** A line of data on stdout; whether it arrived, `written` tells. */
  line(line: string): void {
    this.written = Promise.all([this.written, arrived(line)]).then(ignore);
    this.written.catch(ignore); // judged at the end
  }
}

function readCommandLine(args: string[]): Cli {
  const isNamed = args[0] !== undefined && !args[0].startsWith("-");
  const word = isNamed ? args[0]! : "login";
  const name = ALIASES[word] ?? word;
  if (!Object.hasOwn(COMMANDS, name)) {
    const names = [...Object.keys(COMMANDS), ...Object.keys(ALIASES), "help"];
    throw misuse(`Unknown command "${word}": ${meant(word, names)}`);
  }
  const cli = new Cli(name, isNamed);
  if (RUNS[name] === scriptCommand) {
    cli.operands.push(...args.slice(1)); // it reads its own flags
    return cli;
  }
  const given = args.slice(isNamed ? 1 : 0);
  const { tokens } = node("node:util")
    .parseArgs({ args: given, options: FLAGS, strict: false, tokens: true });
  for (const token of tokens) {
    if (token.kind === "option") {
      const { name: flag, rawName, value, inlineValue } = token;
      // What follows may be the next flag: "--file --json".
      const isFlag = !inlineValue && /^-./.test(value ?? "");
      addFlag(cli, flag, rawName, isFlag ? "" : value);
    } else addOperand(cli, token.kind === "positional" ? token.value : "--");
  }
  const { operands } = COMMANDS[name]!;
  const missing = cli.operands.length < Math.min(operands.length, 2);
  if (!missing || cli.has("help")) return cli;
  const line = commandLineOf([name, ...operands]);
  throw misuse(`Missing arguments: write ${line}`);
}

/** Takes an argument, or refuses it at the first place where none may stand. */
function addOperand({ commandName, operands }: Cli, text: string): void {
  const { operands: wanted } = COMMANDS[commandName]!;
  operands.push(text);
  const fits = wanted[0] === "--"
    ? operands[0] === "--"
    : operands.length <= wanted.length;
  if (fits) return;
  const how = `write ${commandLineOf([commandName, ...wanted])}`;
  throw misuse(`Unexpected argument "${text}" for ${commandName}: ${how}`);
}

function addFlag(cli: Cli, name: string, raw: string, value?: string): void {
  const isKnown = flagNames(cli.commandName).includes(name);
  if (!isKnown) throw unknownFlag(cli.commandName, raw);
  const { value: wanted, many } = FLAGS[name]!;
  if (wanted && !value) {
    throw misuse(`Missing the value of --${name}: give ${wanted}`);
  }
  if (!wanted && value !== undefined) throw misuse(`--${name} takes no value`);
  if (cli.has(name) && !many) {
    throw misuse(`--${name} is given twice: give it once`);
  }
  cli.flags.set(name, [...cli.all(name), value ?? ""]);
}

function unknownFlag(command: string, flag: string): Error {
  // With such a flag the secret is on the command line already.
  if (/^--(app[-_]?)?secret$/i.test(flag)) {
    const why = "which all users of this machine can see";
    const how = "pass --app-secret-file FILE";
    return misuse(`Cannot take the app secret as a flag, ${why}: ${how}`);
  }
  const owner = Object.keys(COMMANDS)
    .find((name) => flagNames(name).includes(flag.slice(2)));
  if (owner) return misuse(`${flag} belongs to ${owner}, not to ${command}`);
  const near = meant(flag, flagNames(command).map((name) => `--${name}`));
  return misuse(`Unknown flag ${flag} for ${command}: ${near}`);
}

/** What a mistyped name may stand for: the nearest, else all of them. */
function meant(text: string, names: readonly string[]): string {
  const ranked = names.map((name) => ({ name, steps: distance(text, name) }))
    .sort((a, b) => a.steps - b.steps);
  const { name, steps } = ranked[0]!;
  if (steps <= 2 && steps < text.length) return `did you mean ${name}?`;
  if (names.length > 20) return "see its help";
  return `use ${names.join(names.length > 3 ? ", " : " or ")}`;
}

/** How many characters must be added, dropped or changed; exact up to 2. */
function distance(from: string, to: string, most = 3): number {
  if (!from || !to || !most) return from.length + to.length;
  const [rest, end] = [from.slice(1), to.slice(1)];
  if (from[0] === to[0]) return distance(rest, end, most);
  const ways = [[rest, end], [rest, to], [from, end]] as const;
  return 1 + Math.min(...ways.map(([a, b]) => distance(a, b, most - 1)));
}

/** A number of bytes, also in KiB or MiB as in 64M. */
function byteCount(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, digits, unit = ""] = /^(\d+)([km]?)$/i.exec(text) ?? [];
  if (digits) return Number(digits) * 1024 ** " km".indexOf(unit.toLowerCase());
  throw outOfRange(`Cannot read the size "${text}": use bytes, 512K or 64M`);
}

/** The help of a command; of the program as a whole, on one screen. */
function helpText(cli?: Cli): string {
  if (cli?.isNamed) return commandHelp(cli.commandName);
  const commands = Object.entries(COMMANDS)
    .map(([name, each]) => helpEntry(name, each.help!)).join("\n");
  return `${PROGRAM} ${VERSION}: access tokens for TikTok Shop apps

Usage: ${PROGRAM} [command] [options]

Commands (login if none is given):
${commands}

Options of every command, of which "help COMMAND" lists the rest:
${["profile", "json", "quiet", "help", "version"].map(flagEntry).join("\n")}

Begin with these:
  ${PROGRAM} demo
  ${PROGRAM} login
  ${PROGRAM} api GET /authorization/202309/shops`;
}

/** A command's usage, its flags, then those of all commands, and examples. */
function commandHelp(command: string): string {
  const { help, flags, operands, examples } = COMMANDS[command]!;
  const usage = [PROGRAM, command, "[options]", ...operands].join(" ");
  const part = (title: string, lines: string[]) =>
    lines.length ? `\n\n${title}:\n${lines.join("\n")}` : "";
  return `Usage: ${usage}\n\n${help![0]!.toUpperCase()}${help!.slice(1)}.` +
    part(`Options of ${command}`, flags.map(flagEntry)) +
    part("Options of every command", COMMON_FLAGS.split(" ").map(flagEntry)) +
    part("Examples", examples.map((each) => `  ${PROGRAM} ${each}`)) + `

A flag beats the environment, which beats the env file. TIKTOK_SHOP_APP_SECRET
is the app secret, and TIKTOK_SHOP_HOME the folder of the profiles.`;
}

function flagEntry(name: string): string {
  const { value, env, initial, many, help, short } = FLAGS[name]!;
  const facts = [initial && `default: ${initial}`, env, many && "repeatable"];
  const shown = facts.filter(Boolean).map((fact) => ` [${fact}]`);
  const usage = `${short ? `-${short}, ` : ""}--${name}${value && ` ${value}`}`;
  return helpEntry(usage, help + shown.join(""));
}

/** A name and its text, wrapped at 80 columns. */
function helpEntry(name: string, text: string): string {
  const lines = wrapped(text, 54);
  if (name.length > 22) lines.unshift("");
  return `  ${name.padEnd(24)}${lines.join(`\n${" ".repeat(26)}`)}`;
}

function nameValues(cli: Cli, flag: string): Record<string, string> {
  const pairs = cli.all(flag).map((text): [string, string] => {
    const [, name, value] = /^([^=]+)=([^]*)$/.exec(text) ?? [];
    if (name) return [name, value!];
    throw misuse(`Cannot read --${flag} "${redact(text)}": write name=value`);
  });
  const twice = repeatedName(new URLSearchParams(pairs));
  if (!twice) return Object.fromEntries(pairs);
  throw misuse(`--${flag} ${twice} is given twice: give it once`);
}

function oneOf<T extends string>(cli: Cli, flag: string, values: readonly T[]) {
  const value = cli.get(flag)?.toLowerCase();
  const found = values.find((each) => each === value);
  if (value === undefined || found) return found;
  throw misuse(`Cannot use --${flag} "${value}": ${meant(value, values)}`);
}

// --- settings

/** What is in a file that a person named; `-` is stdin. */
function namedBytes(what: string, file: string): Uint8Array {
  try {
    return node("node:fs").readFileSync(file === "-" ? 0 : file);
  } catch (error) {
    throw misuse(`Cannot read ${what} ${file}: ${messageOf(error)}`);
  }
}

function namedText(what: string, file: string): string {
  return decodeText(namedBytes(what, file));
}

/** The text of a file, or another if it cannot be read. */
function textIfAny(path: string, otherwise = ""): string {
  const read = () => decodeText(node("node:fs").readFileSync(path));
  return attempt(read, otherwise);
}

/** The variables of an env file. */
function readEnvFile(file?: string): Record<string, string | undefined> {
  const { parseEnv } = node("node:util");
  if (file !== undefined) return parseEnv(namedText("the env file", file));
  const found = parseEnv(textIfAny(".env"));
  // It may come with somebody else's repository: it must not send secrets
  // away, or bring tokens. If it were ignored, TikTok would get a test's call.
  const rest = "APP_(KEY|SECRET)|SERVICE_ID|REGION|USER_TYPE|PROFILE";
  const isForeign = new RegExp(`^TIKTOK_SHOP_(?!(${rest})$)`);
  const foreign = Object.keys(found).find((name) => isForeign.test(name));
  if (foreign === undefined) return found;
  const what = `Cannot take ${foreign} from the .env of this folder unasked`;
  throw misuse(`${what}: if the file is yours, pass --env-file .env`);
}

/** The settings that may be kept for next time. Never the secret. */
const KEPT_FLAGS = ["app-key", "service-id", "region", "user-type"];

/** A path in the folder of the profiles; "" without a home. */
function homePath(cli: Cli, name = ""): string {
  const own = { TIKTOK_SHOP_HOME: cli.variable("TIKTOK_SHOP_HOME")?.text };
  const env = { ...RUNTIME.process.env, ...own };
  return attempt(() => paths().join(storeFolder(env), name), "");
}

/** The JSON object in a file; without one, an empty object. */
function recordIn(path: string): Record<string, unknown> {
  const found = parseJson(textIfAny(path));
  return isRecord(found) ? found : {};
}

/** What is known of the app: by this profile, or else by the default one. */
function keptSettings(cli: Cli): [from: string, Record<string, unknown>][] {
  const metaOf = (path: string) => {
    const { meta } = recordIn(path);
    return isRecord(meta) ? meta : {};
  };
  const [own, other] = [profileName(cli), defaultProfile(cli)]
    .map((profile) => homePath(cli, `${profile}.json`));
  return [
    ["the profile", metaOf(cli.get("file") ?? own!)],
    ["config.json", readConfig(cli)],
    ["the default profile", metaOf(other!)],
  ];
}

/** What `use` chose. */
function defaultProfile(cli: Cli): string {
  return textOf(readConfig(cli).default_profile) || "default";
}

function profileName(cli: Cli): string {
  return cli.get("profile") ?? defaultProfile(cli);
}

function readConfig(cli: Cli): Record<string, unknown> {
  const path = homePath(cli, "config.json");
  const config = parseJson(textIfAny(path, "{}"));
  if (isRecord(config)) return config;
  throw misuse(
    `Cannot read ${path}, which is no JSON object: fix or delete it`,
  );
}

type TokenPlace = { store: FileStore; profile: string };

/** Where this command line keeps its tokens. */
function tokenPlace(cli: Cli): TokenPlace {
  const file = cli.get("file");
  if (file) {
    const { dir, ext, name } = paths().parse(paths().resolve(file));
    return { store: new FileStore(dir, ext, false), profile: name };
  }
  const profile = profileName(cli);
  assertProfile(profile);
  const folder = homePath(cli);
  if (folder) return { store: new FileStore(folder, ".json", true), profile };
  const how = "set TIKTOK_SHOP_HOME or pass --file";
  throw misuse(`Cannot tell where to keep tokens: ${how}`);
}

function isCreator(cli: Cli): boolean {
  return cli.get("user-type")?.toLowerCase() === "creator";
}

/** The app's settings; on a terminal, what is missing is asked for. */
async function readApp(cli: Cli) {
  const answers = await askMissing(cli, {
    "app-key": cli.get("app-key"),
    "service-id": cli.get("service-id") ?? (isCreator(cli) ? "" : undefined),
  });
  const [appKey = "", link = "", appSecret = ""] = answers;
  const serviceId = link ? readServiceId(link) : undefined;
  const region = oneOf(cli, "region", ["row", "us"]) ?? linkRegion(link);
  return { appKey, appSecret, serviceId, region };
}

/** The service id, out of the whole authorization link too. */
function readServiceId(text: string): string {
  return assertServiceId(/[?&]service_id=(\d+)/.exec(text)?.[1] ?? text);
}

/** The region of an authorization link, by its host. Pure. */
function linkRegion(link: string): Region | undefined {
  const host = /^(?:https?:\/\/)?([\w.-]+)\/.*[?&]service_id=/i.exec(link)?.[1];
  if (!host || !/\.tiktokshops?\.[a-z]+$/i.test(host)) return undefined;
  return /\.us(\.|$)/i.test(host) ? "us" : "row";
}

/** The questions for settings, and what judges the answers. */
const QUESTIONS: Record<string, [text: string, check: typeof readServiceId]> = {
  "app-key": [
    "The app key has about 12 letters and digits: see Partner Center.\n" +
    "App key: ",
    assertAppKey,
  ],
  "service-id": [
    'The service id ends the "Copy authorization link"; the whole link will ' +
    "do.\nService id: ",
    readServiceId,
  ],
  "app-secret-file": [
    "The app secret of %s is beside it. It is not shown.\nApp secret: ",
    assertAppSecret,
  ],
  "keep-secret": [
    "Keep the app secret for later commands, in the login keychain or in a " +
    "file\nreadable by you alone, which cron can use before you log in: %s\n" +
    "keychain, file or no: ",
    assertHome,
  ],
};

/** The values of settings, and the secret; what is missing is asked for. */
async function askMissing(cli: Cli, settings: NodeJS.Dict<string>) {
  const found = { ...settings };
  const { signal } = cli.terminal;
  const ask = (flag: string, of?: string) =>
    cli.once(`${flag} ${of}`, () => askFor(cli, flag, of));
  if (isInteractive()) {
    for (const flag in settings) found[flag] ??= await ask(flag);
  }
  const appKey = found["app-key"];
  const secret = await findSecret(cli, appKey, signal).catch((error) => {
    if (!isInteractive() || signal.aborted) throw error;
    note(messageOf(error), "warning");
  });
  found["app-secret-file"] = secret?.text ??
    (isInteractive() ? await ask("app-secret-file", appKey) : undefined);
  const names = Object.keys(found).filter((flag) => found[flag] === undefined)
    .map((flag) => {
      const { env, value } = FLAGS[flag]!;
      return env ? `${env} or --${flag} ${value}` : SECRET_WAYS;
    });
  if (names.length === 0) return Object.values(found) as string[];
  throw misuse(`Missing settings: ${names.join("; ")}`);
}

const SECRET_WAYS = "TIKTOK_SHOP_APP_SECRET, --app-secret-file FILE or " +
  "--app-secret-command CMD (or log in with --keep-secret)";

/** Asks until the answer has the right shape. */
async function askFor(cli: Cli, flag: string, of = ""): Promise<string> {
  const [text, check] = QUESTIONS[flag]!;
  const first = text.replace("%s", printable(of));
  for (let question = first;; question = text.replace(/^.*\n/, "")) {
    const answer = await cli.terminal.ask(question, flag === "app-secret-file");
    try {
      check(answer);
      return answer;
    } catch (error) {
      note(messageOf(error));
    }
  }
}

async function saveJson(path: string, value: unknown): Promise<void> {
  const folder = paths().dirname(path);
  const made = fs().mkdir(folder, { recursive: true, mode: 0o700 });
  const save = () => replaceFile(path, `${stringifyJson(value)}\n`);
  await onDisk(`Cannot save ${path}`, made.then(save));
}

/** The credentials of a refresh; the app key is known from the login. */
async function readCredentials(cli: Cli, { app_key }: { app_key?: string }) {
  // Of several apps, what is given is one.
  const given = cli.has("all") ? undefined : cli.given("app-key")?.text;
  const known = given ?? app_key ?? cli.get("app-key");
  const answers = await askMissing(cli, { "app-key": known });
  const [appKey = "", appSecret = ""] = answers;
  return { appKey, appSecret };
}

/** How the requests of a command are made. */
function requestOptions(cli: Cli): HttpOptions {
  return {
    requestTimeout: cli.get("request-timeout"),
    replyLimit: byteCount(cli.get("reply-limit")),
    onTrace: cli.has("verbose") ? note : undefined,
  };
}

/** How a command keeps a profile's tokens fresh. */
function keepFor(cli: Cli): CallOptions {
  const inTurn = limit(1); // one question at a time
  return {
    ...tokenPlace(cli),
    minValid: cli.get("min-valid"),
    refreshEndpoint: cli.get("refresh-endpoint"),
    apiEndpoint: cli.get("api-endpoint"),
    signal: cli.terminal.signal,
    ...requestOptions(cli),
    ...WARNINGS,
    credentials: ({ meta }) => inTurn(() => readCredentials(cli, meta)),
  };
}

// --- output

/** Writes a line to stdout; that its reader has left is no failure. */
async function arrived(line: string): Promise<void> {
  const { promise, resolve, reject } = deferred<void>();
  const settle = (error?: unknown) => error ? reject(error) : resolve();
  try {
    RUNTIME.process.stdout.write(`${line}\n`, settle);
  } catch (error) {
    settle(error); // Deno throws what Node hands over
  }
  await promise.catch((error) => {
    const code = codeOf(error);
    if (code === "EPIPE" || code === "ERR_STREAM_DESTROYED") return;
    const message = `Cannot write to stdout: ${messageOf(error)}`;
    throw Object.assign(new Error(message), { code });
  });
}

/** A text in lines of so many columns; a longer word keeps its own line. */
function wrapped(text: string, columns: number): string[] {
  const line = `\\S{${columns},}|\\S.{0,${columns - 1}}(?= |$)`;
  return text.match(new RegExp(line, "g")) ?? [];
}

/** A text for people, broken where this terminal would cut a word. */
function fitted(text: string): string {
  const { isTTY, columns } = RUNTIME.process.stderr;
  if (!isTTY || !columns) return text;
  // What is indented is a command, to be copied.
  return text.split("\n")
    .flatMap((line) => /^( {2}|$)/.test(line) ? line : wrapped(line, columns))
    .join("\n");
}

/** How the word before a note is painted. */
const LABELS: Record<string, string> = { error: "31;1", warning: "33" };

/** A line for people on stderr. */
function note(text: string, label = ""): void {
  const start = label && `${label}:`;
  const line = label ? `${start} ${text}` : text;
  // A command stays one line, to be copied.
  const shown = label === "run" ? line : fitted(line);
  const painted = start && paint(LABELS[label] ?? "36", start);
  raw(`${painted}${shown.slice(start.length)}\n`);
}

/** Where the warnings of a command go. */
const WARNINGS = { onWarning: (text: string) => note(text, "warning") };

/** Text on stderr as it is; that it cannot be written is no failure. */
function raw(text: string): void {
  // Deno throws what Node emits as an "error", which main() ignores.
  attempt(() => RUNTIME.process.stderr.write(text), false);
}

const CLEAR_LINE = "\r\x1b[2K";

/** Whether stderr is a terminal that may be painted on. */
function isLively(): boolean {
  const { env, stderr } = RUNTIME.process;
  return Boolean(stderr.isTTY) && !env.NO_COLOR && env.TERM !== "dumb";
}

/** A link on a line of its own, which a terminal makes clickable whole. */
function linkLine(url: string): string {
  return isLively() ? `\x1b]8;;${url}\x1b\\${url}\x1b]8;;\x1b\\` : url;
}

function paint(style: string, text: string): string {
  return isLively() ? `\x1b[${style}m${text}\x1b[0m` : text;
}

/**
 * Lines of columns of text, foreign text made safe. Where they do not fit, the
 * last columns are left out, then the longest texts are cut.
 */
function table(head: string[], rows: string[][], limit = Infinity): string[] {
  const lines = [head, ...rows].map((row) => row.map(printable));
  const widths = head.map((_, i) =>
    lines.reduce((most, row) => Math.max(most, width(row[i]!)), 0)
  );
  const total = (most: number) =>
    widths.reduce((sum, each) => sum + Math.min(each, most) + 2, -2);
  while (widths.length > 1 && total(8) > limit) widths.pop();
  for (let most = Math.max(...widths); total(Infinity) > limit; most--) {
    widths.forEach((each, i) => widths[i] = Math.min(each, most));
  }
  const cell = (columns: number, text: string) =>
    text + " ".repeat(columns - width(text));
  return lines.map((row) =>
    widths.map((columns, i) => cell(columns, cut(row[i]!, columns)))
      .join("  ").trimEnd()
  );
}

/** Two columns wide: East Asian characters, and emoji shown as such. */
const WIDE = "[\\u1100-\\u115f\\u2e80-\\ua4cf\\uac00-\\ud7a3\\uf900-\\ufaff" +
  "\\ufe30-\\ufe6f\\uff00-\\uff60\\uffe0-\\uffe6\\u{20000}-\\u{3fffd}]" +
  "|\\p{Extended_Pictographic}(?:\\ufe0f|(?<=\\p{Emoji_Presentation}))";

/** What a person sees as one character, such as an emoji with joiners. */
function clusters(text: string): string[] {
  return [...new Intl.Segmenter().segment(text)].map(({ segment }) => segment);
}

/** Columns that a text takes on a terminal. */
function width(text: string): number {
  if (/^[ -~]*$/.test(text)) return text.length;
  const [wide, marks] = [WIDE, "[\\p{Mn}\\p{Me}\\p{Cf}]"]
    .map((each) => pattern(each, "gu"));
  const columns = (cluster: string) =>
    cluster.search(wide!) < 0 ? [...cluster.replace(marks!, "")].length : 2;
  return clusters(text).reduce((sum, each) => sum + columns(each), 0);
}

/** A text in so many columns, with an ellipsis where it is cut. */
function cut(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  const kept = clusters(text);
  while (kept.length && width(kept.join("")) >= columns) kept.pop();
  return `${kept.join("")}…`;
}

/** The words that start this program the way it was started. */
function ownCommand(): string[] {
  const { argv, env, execArgv, execPath } = RUNTIME.process;
  const { fileURLToPath, pathToFileURL } = node("node:url");
  const script = RUNTIME.Deno?.mainModule ??
    pathToFileURL(realFile(argv[1] ?? "")).href;
  const isBin = /\/npm_bin\.[jt]s$/.test(script);
  if (!isBin && script !== import.meta.url) return [PROGRAM]; // main() alone
  if (RUNTIME.Deno) {
    const path = script.startsWith("file:") ? fileURLToPath(script) : script;
    return [asFound(execPath), "run", "-A", path];
  }
  if (isBin && env.npm_command) return ["npx", PROGRAM];
  if (isBin && asFound(argv[1]!, PROGRAM) === PROGRAM) return [PROGRAM];
  // Without "--" Node would read the flag --env-file that follows itself.
  return [asFound(execPath), ...execArgv, "--", argv[1]!];
}

/** A file's name, if that is how a shell finds it; else its path. */
function asFound(path: string, name?: string): string {
  const file = name ?? paths().basename(path);
  const found = mayRead() && onPath(file);
  if (!found || realFile(found) !== realFile(path)) return path;
  return file.replace(/\.exe$/i, "");
}

/** The file that a shell runs by this name. */
function onPath(name: string): string | undefined {
  const { delimiter, resolve } = paths();
  return (RUNTIME.process.env.PATH ?? "").split(delimiter)
    .flatMap((folder) => ["", ".exe"].map((end) => resolve(folder, name + end)))
    .find(namesFile);
}

/** Whether all files may be read: Deno would ask a person for each. */
function mayRead(): boolean {
  const read = RUNTIME.Deno?.permissions.querySync({ name: "read" });
  return (read?.state ?? "granted") === "granted";
}

function realFile(path: string): string {
  return attempt(() => node("node:fs").realpathSync(path), path);
}

/** A text as one word of a shell: a POSIX one, or both of Windows'. Pure. */
function shellWord(text: string, platform: string): string {
  if (platform === "win32") {
    if (/^[\w.:/\\+-]+$/.test(text)) return text;
    // A backslash before a quote would escape it.
    return `"${text.replace(/(\\*)("|$)/g, "$1$1$2").replace(/"/g, '\\"')}"`;
  }
  if (/^[\w.,:/@%+-][\w.,:/@%+=-]*$/.test(text)) return text;
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A line that runs this program again, in this system's shell. */
function commandLineOf(args: readonly string[]): string {
  const { platform } = RUNTIME.process;
  return [...ownCommand(), ...args]
    .map((word) => shellWord(word, platform)).join(" ");
}

// --- terminal

/** The signals besides Ctrl-C that ask for an end. */
function passedSignals(): NodeJS.Signals[] {
  const { process } = RUNTIME;
  if (process.platform === "win32") return [];
  if (!isHangupIgnored()) return ["SIGTERM", "SIGHUP"];
  // Without a listener of ours neither runtime ignores it any longer.
  const isKept = process.listeners("SIGHUP").includes(ignore);
  if (!isKept) process.on("SIGHUP", ignore);
  return ["SIGTERM"];
}

/** Known before our first listener, which changes it. */
let hangupIgnored: boolean | undefined;

/** Whether SIGHUP was ignored when this process began, where Linux tells. */
function isHangupIgnored(): boolean {
  const says = (file: string, line: RegExp) =>
    line.test(textIfAny(`/proc/${file}`));
  const ignores = /^SigIgn:.*[13579bdf]$/m; // SIGHUP is the lowest bit
  // Node resets it when it starts: then the parent ignores it, or nohup has
  // replaced stdin by /dev/null, open for writing only.
  return hangupIgnored ??= mayRead() &&
    (says("self/status", ignores) ||
      says(`${RUNTIME.process.ppid}/status`, ignores) ||
      (says("self/fdinfo/0", /^flags:.*1$/m) &&
        realFile("/proc/self/fd/0") === "/dev/null"));
}

/**
 * A person who types or pastes lines. Ctrl-C aborts the signal, and a second
 * one kills as usual; while tokens are being saved, the first one only tells.
 */
class Terminal {
  /** Whether tokens are being saved. */
  isSaving = false;
  /** Where they were, and the flags that name them. */
  saved: { path: string; flags: string[] } | undefined;
  readonly #abort = new AbortController();
  readonly signal: AbortSignal = this.#abort.signal;
  readonly #names: NodeJS.Signals[] = ["SIGINT", ...passedSignals()];
  #text = "";
  #hidden = false;
  #listening = false;
  #ended = false;
  #asked: ReturnType<typeof deferred<string>> | undefined;
  #onLine: ((line: string) => void) | undefined;

  constructor() {
    for (const name of this.#names) RUNTIME.process.on(name, this.#stop);
  }

  close(): void {
    this.#rest();
    this.#forget();
  }

  #forget(): void {
    for (const name of this.#names) RUNTIME.process.off(name, this.#stop);
  }

  readonly #stop = () => {
    if (!this.isSaving) {
      this.#forget();
      return this.#abort.abort("interrupted");
    }
    this.isSaving = false;
    const how = "Press Ctrl-C again to print it instead";
    note(`TikTok's reply is here and waits to be saved. ${how}`);
  };

  /** Whether a question stands open. */
  get isAsking(): boolean {
    return this.#asked !== undefined;
  }

  /** Asks a question until it is answered; `hidden` shows nothing of it. */
  async ask(question: string, hidden = false): Promise<string> {
    // First hidden, then asked: what is typed at once must not be shown.
    this.#listen(hidden);
    raw(fitted(question));
    const asked = this.#asked = deferred<string>();
    this.#drain();
    try {
      return await abortable(asked.promise, this.signal);
    } finally {
      if (this.#asked === asked) this.leave();
      if (hidden) raw("\n");
      if (this.#onLine) this.#listen(false);
      else this.#rest();
    }
  }

  /** Leaves an open question, behind which the cursor still is. */
  leave(): void {
    if (this.#asked && !this.#hidden) raw("\n");
    this.#asked = undefined;
  }

  /** Hands over every line that answers no question, until `close()`. */
  lines(onLine: (line: string) => void): void {
    this.#onLine = onLine;
    this.#listen(false);
  }

  #rest(): void {
    this.#onLine = undefined;
    if (!this.#listening) return;
    this.#listening = false;
    this.#setHidden(false);
    const { stdin } = RUNTIME.process;
    stdin.off("data", this.#read).off("end", this.#end).pause().unref?.();
  }

  #listen(hidden: boolean): void {
    // Late: from then on stdin does not block, and reading it whole may fail.
    const { stdin } = RUNTIME.process;
    this.#setHidden(hidden);
    if (this.#listening) return;
    this.#listening = true;
    stdin.setEncoding("utf8").on("data", this.#read).on("end", this.#end);
    stdin.ref?.();
    stdin.resume();
  }

  #setHidden(hidden: boolean): void {
    if (hidden !== this.#hidden) RUNTIME.process.stdin.setRawMode(hidden);
    this.#hidden = hidden;
  }

  readonly #read = (chunk: string | Uint8Array) => {
    this.#text += String(chunk);
    // In raw mode Ctrl-C and Ctrl-D are characters like any others.
    if (this.#hidden && ["\x03", "\x04"].some((c) => this.#text.includes(c))) {
      this.#text = "";
      // Not kill(): on Deno that needs the permission to run programs.
      RUNTIME.process.emit("SIGINT", "SIGINT");
    }
    this.#drain();
  };

  readonly #end = () => {
    this.#ended = true;
    // The last line of a pipe often lacks its end.
    if (this.#text !== "") this.#text += "\n";
    this.#drain();
  };

  /** Hands over the whole lines, as long as there is somebody to take them. */
  #drain(): void {
    let end: RegExpExecArray | null;
    while ((end = /\r\n?|\n/.exec(this.#text))) {
      const take = this.#asked?.resolve ?? this.#onLine;
      if (!take) return;
      const line = this.#text.slice(0, end.index).replace(ESCAPES, "");
      this.#text = this.#text.slice(end.index + end[0].length);
      this.#asked = undefined;
      take(this.#hidden ? erased(line) : line.trim());
    }
    // Nobody is left to answer.
    if (this.#ended) this.#asked?.reject(cancelledError("the input has ended"));
  }
}

/** What nobody typed: marks of a paste, arrow and function keys, reports. */
const ESCAPES = new RegExp(
  "\\x1b(?:[\\]PX^_][^\\x07\\x1b]*(?:\\x07|\\x1b\\\\)|" +
    "\\[\\[?[0-?]*[ -/]*[@-~]|O?[^\\x1b]?)",
  "g",
);

/** A line typed in raw mode: backspaces applied, other controls dropped. */
function erased(line: string): string {
  const kept: string[] = [];
  for (const c of line) {
    if (c === "\x7f" || c === "\b") kept.pop();
    else if (c === "\x15" || c === "\x17") kept.length = 0; // Ctrl-U, Ctrl-W
    else if (c > "\x1f") kept.push(c);
  }
  return kept.join("").trim();
}

// --- app secret

function assertHome(text: string): string {
  if (["keychain", "file", "no"].includes(text)) return text;
  throw misuse(`Cannot use --keep-secret "${text}": use keychain, file or no`);
}

/**
 * Where the secret of an app is kept: a file beside the profiles has it, or
 * says that the keychain has it, or that nobody is to be asked again. Its name
 * begins with a dot, so that no version takes it for a profile.
 */
function keptSecret(cli: Cli, appKey = "") {
  const isName = /^\w[\w-]*$/.test(appKey);
  const path = isName ? homePath(cli, `.app-${appKey}.json`) : "";
  const kept = recordIn(path);
  const { home, text } = kept.app_key === appKey ? kept : {};
  const place = home === "file" ? `${path} (plain text)` : "the keychain";
  return { path, place, home: textOf(home), text: textOf(text) };
}

/** An app's secret; undefined if it is not known, or to be typed. */
function findSecret(cli: Cli, appKey = "", signal?: AbortSignal) {
  return cli.once(`secret of ${appKey}`, async () => {
    const isTyped = cli.get("app-secret-file") === "-";
    if (isTyped && node("node:tty").isatty(0)) return undefined;
    // What is given belongs to the app that is given with it.
    const isMeant = (cli.given("app-key")?.text ?? appKey) === appKey;
    const given = () => cli.once("secret", () => givenSecret(cli, signal));
    const found = isMeant && await given() ||
      await secretAtHome(cli, appKey, signal);
    if (found) cli.secrets.push(assertAppSecret(found.text));
    return found;
  });
}

async function secretAtHome(cli: Cli, appKey: string, signal?: AbortSignal) {
  const { home, text: kept, place: from } = keptSecret(cli, appKey);
  const action = isInteractive() ? "unlock" : "find";
  const text = home === "keychain"
    ? await useKeychain(action, appKey, kept, signal)
    : kept;
  return text ? { text, from } : undefined;
}

async function givenSecret(cli: Cli, signal?: AbortSignal) {
  const file = cli.get("app-secret-file");
  const read = (from: string) => namedText("the app secret from", from).trim();
  if (file) return { text: read(file), from: file };
  const command = cli.given("app-secret-command");
  if (!command) return cli.variable("TIKTOK_SHOP_APP_SECRET");
  const [name = "", ...args] = splitWords(command.text);
  const { status, text } = await runTool([name, args], 30_000, signal);
  const [line] = text.split(/\r?\n/);
  if (status === 0 && line) return { text: line, from: `"${name}"` };
  const said = status ? `exit code ${status}` : "it printed nothing";
  const why = status === TIMED_OUT ? SILENT : said;
  const message = `Cannot get the app secret with "${name}": ${why}`;
  const hint = "run that command by itself to see why";
  throw new TikTokShopError("store", message, { hint });
}

/** Where a login is to keep its secret; a person who typed it is asked. */
async function chooseHome(cli: Cli, appKey: string) {
  const { path, home: old } = keptSecret(cli, appKey);
  const given = cli.get("keep-secret");
  const isTyped = isInteractive() && !await findSecret(cli, appKey);
  if (!given && (!path || old || !isTyped)) return undefined;
  if (!path) throw misuse(`Cannot keep the secret of the app key "${appKey}"`);
  const { signal } = cli.terminal;
  for (;;) {
    const home = given ?? await askFor(cli, "keep-secret", path);
    try {
      // Before the link is shown: it may be locked.
      if (home === "keychain") await useKeychain("unlock", appKey, "", signal);
      return home;
    } catch (error) {
      if (given || signal.aborted) throw error;
      note(messageOf(error));
    }
  }
}

/** Keeps a secret that has proven right, in one home and in no other. */
async function keepSecret(cli: Cli, app: AppCredentials, home?: string) {
  if (!home) return;
  const { appKey: app_key, appSecret } = app;
  const { path, home: old } = keptSecret(cli, app_key);
  const isStored = home === "keychain";
  const sealed = isStored && await useKeychain("store", app_key, appSecret);
  const text = home === "file" ? appSecret : sealed || undefined;
  await saveJson(path, { app_key, home, text });
  if (old === "keychain" && !isStored) await useKeychain("remove", app_key);
  const { place } = keptSecret(cli, app_key);
  if (home === "no" || cli.has("quiet")) return;
  note(`The app secret is kept in ${printable(place)}`);
}

// --- login

async function loginCommand(cli: Cli): Promise<void> {
  assertSteps(cli);
  if (cli.has("start")) await firstStep(cli);
  else if (cli.has("complete")) await secondStep(cli);
  else await wholeLogin(cli);
}

/** Prints the tokens once they are saved; the browser's page comes after. */
function printReply(cli: Cli, reply: TokenReply): void {
  if (!cli.has("no-show")) cli.json(reply);
}

/** Tells at the end who authorized the app, where, and what to run next. */
async function tellLogin(cli: Cli, { data }: TokenReply): Promise<void> {
  await cli.written; // on a terminal the tokens stand above
  const { saved } = cli.terminal;
  if (cli.has("quiet")) return;
  const name = printable(textOf(data.seller_name) || textOf(data.open_id));
  const next = RUNTIME.process.stderr.isTTY ? ["token", "shops"] : [];
  const lines = [
    `Authorized by ${name}, saved to ${printable(saved!.path)}`,
    ...next.map((each) => `  ${commandLineOf([each, ...saved!.flags])}`),
  ];
  raw(`${paint("32", fitted(lines.join("\n")))}\n`);
}

async function wholeLogin(cli: Cli): Promise<void> {
  const wait = {
    ...loginOptions(cli),
    ...callbackOptions(cli),
    timeout: cli.get("timeout"),
    allowMissingState: cli.has("allow-missing-state"),
  };
  assertWait(wait); // before a person is asked for the rest
  const app = await readApp(cli);
  const home = await chooseHome(cli, app.appKey);
  const { options } = new Dialog(cli);
  const onReply = (reply: TokenReply) => printReply(cli, reply);
  const reply = await login({ ...wait, ...app, ...options, onReply });
  await keepSecret(cli, app, home).finally(() => tellLogin(cli, reply));
}

/** The options of a login, in one step or two. */
function loginOptions(cli: Cli) {
  const { terminal } = cli;
  const { signal } = terminal;
  const { platform } = RUNTIME.process;
  const place = tokenPlace(cli);
  return {
    ...linkOptions(cli),
    ...requestOptions(cli),
    ...place,
    tokenEndpoint: cli.get("token-endpoint"),
    signal,
    switch: cli.has("switch"),
    requireScopes: (cli.get("require-scope") ?? "").split(",")
      .map((scope) => scope.trim()).filter(Boolean),
    ...WARNINGS,
    saveSignal: signal,
    onSaving: () => terminal.isSaving = true,
    onSaved: (profile: string) => {
      terminal.isSaving = false;
      const path = place.store.path(profile);
      terminal.saved = { path, flags: cli.words(NEXT_FLAGS) };
      if (profile === place.profile) return;
      const flags = cli.get("file") ? ["--file", path] : ["--profile", profile];
      terminal.saved = { path, flags };
      const flag = flags.map((word) => shellWord(word, platform)).join(" ");
      note(`Use ${printable(flag)} from now on, or --switch to replace them`);
    },
  };
}

function linkOptions(cli: Cli): Partial<AuthorizationUrlOptions> {
  return {
    region: oneOf(cli, "region", ["row", "us"]),
    userType: oneOf(cli, "user-type", ["seller", "partner", "creator"]),
    authorizationEndpoint: cli.get("authorization-endpoint"),
    params: nameValues(cli, "param"),
  };
}

/** Where the redirect comes in. */
function callbackOptions(cli: Cli) {
  const [cert, key] = [cli.get("tls-cert"), cli.get("tls-key")];
  if (!cert !== !key) throw misuse("--tls-cert and --tls-key go together");
  const read = (part: string, file = "") => namedText(`the TLS ${part}`, file);
  return {
    port: cli.get("port") ?? DEFAULT_PORT,
    host: cli.get("host") as "localhost" | undefined,
    path: cli.get("path"),
    redirectUrl: cli.get("redirect-url"),
    tls: cert
      ? { cert: read("certificate", cert), key: read("key", key) }
      : undefined,
  };
}

/** How to reach this machine's callback from where the browser is. */
function remoteHint(ports: string | number = DEFAULT_PORT): string | undefined {
  const { env } = RUNTIME.process;
  if (env.SSH_CONNECTION || env.SSH_TTY) {
    const port = String(ports).split("-")[0];
    const [, , server = "THIS-MACHINE", sshPort = "22"] =
      env.SSH_CONNECTION?.split(" ") ?? [];
    const user = env.USER ?? env.LOGNAME ?? "USER";
    const to = sshPort === "22" ? server : `-p ${sshPort} ${server}`;
    return `\
You are on a remote machine. Open the link in the browser in front of you; first
run this there, so that the redirect comes here:

  ssh -L ${port}:localhost:${port} -l ${user} ${to}

Or approve without it, and paste here the address of the page that then
cannot be opened.`;
  }
  if (!env.container && !env.KUBERNETES_SERVICE_HOST) return undefined;
  return `\
You are in a container. Open the link in the browser in front of you, approve,
and paste here the address of the page that then cannot be opened. (A container
with the host's network needs no pasting.)`;
}

/** What a person sees of a login that waits, and what they answer. */
class Dialog {
  readonly #cli: Cli;
  #flow: AuthFlow | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #deadline = 0;

  constructor(cli: Cli) {
    this.#cli = cli;
  }

  /** What the login calls. */
  get options(): Partial<LoginOptions> {
    const told = (text: string) => this.#tell(text);
    const flags = "$&: --tls-cert FILE --tls-key FILE";
    return {
      onStart: (flow) => this.#start(flow),
      open: (url) => this.#open(url),
      confirmMissingState: isInteractive() ? () => this.#confirm() : undefined,
      onState: (state) => this.#show(state),
      onWarning: (text) => told(text.replace(/serve https$/, flags)),
      onTrace: this.#cli.has("verbose") ? told : undefined,
    };
  }

  #start(flow: AuthFlow): void {
    this.#flow = flow;
    const cli = this.#cli;
    if (isInteractive() || cli.has("paste")) {
      cli.terminal.lines((line) => void (line && this.#submit(line)));
    }
    const link = `${linkLine(flow.url)}\n`;
    if (cli.has("quiet")) return raw(link);
    note("Open this link to authorize the app:\n");
    raw(link);
    note(`\nWaiting for the redirect to ${printable(flow.redirectUrl)}`);
    if (isInteractive() && !remoteHint()) {
      note("If the browser cannot open it, paste its address here");
    }
    if (!isLively()) return;
    const limit = seconds(cli.get("timeout") ?? DEFAULT_TIMEOUT);
    this.#deadline = Date.now() + limit * 1000;
    this.#timer = setInterval(() => this.#count(), 1000);
    this.#count();
  }

  async #open(url: string): Promise<void> {
    const hint = remoteHint(this.#flow?.port);
    if (this.#cli.has("no-browser")) return void (hint && this.#tell(hint));
    const browser = this.#cli.get("browser");
    const failed = new Set<string>();
    if (await tryBrowsers(url, { browser, failed })) {
      return void (this.#timer && this.#tell("Opened your browser"));
    }
    const names = [...failed].map((name) => `"${name}"`).join(", ");
    if (names) this.#tell(`The link could not be opened with ${names}`);
    this.#tell(hint ?? "No browser could be opened: open the link yourself");
  }

  #show(state: FlowState): void {
    if (state === FlowState.WAITING_FOR_REDIRECT) return;
    this.#cli.terminal.leave();
    if (this.#timer) raw(CLEAR_LINE);
    clearInterval(this.#timer);
    this.#timer = undefined;
    if (state !== FlowState.WAITING_FOR_RESPONSE) return;
    if (this.#cli.has("quiet")) return;
    note("Redirect received, getting the tokens");
  }

  /** A text that comes while the countdown runs. */
  #tell(message: string): void {
    if (this.#timer) raw(CLEAR_LINE);
    for (const line of message.split("\n")) note(printable(line));
    if (this.#timer) this.#count();
  }

  #count(): void {
    if (this.#cli.terminal.isAsking) return;
    const left = Math.max(0, Math.round((this.#deadline - Date.now()) / 1000));
    const clock = [left / 60, left % 60]
      .map((part, i) => String(Math.floor(part)).padStart(i + 1, "0"));
    const line = paint("2", `${clock.join(":")} left, Ctrl-C cancels`);
    raw(`${CLEAR_LINE}${line} `); // a paste is echoed behind it
  }

  /** A pasted line: wrong ones are explained, and the wait goes on. */
  async #submit(line: string): Promise<void> {
    const flow = this.#flow!;
    await flow.submit(line).catch((error) => {
      // While it was asked about, another redirect may have come.
      const waits = flow.state === FlowState.WAITING_FOR_REDIRECT;
      if (error.kind !== "missing_state" || waits) this.#explain(error);
    });
  }

  #explain(error: unknown): void {
    this.#tell(`${messageOf(error)}: ${hintOf(error)}`);
  }

  /** Asks about a code without proof; a pasted redirect is submitted. */
  async #confirm(): Promise<boolean> {
    const state = new URL(this.#flow!.url).searchParams.get("state")!;
    for (;;) {
      const answer = await askAboutCode(this.#cli);
      if (!isPasted(answer)) return isYes(answer);
      try {
        judgePasted(answer, state);
        void this.#submit(answer);
        return false;
      } catch (error) {
        this.#explain(error);
      }
    }
  }
}

async function askAboutCode(cli: Cli): Promise<string> {
  if (!isInteractive()) return "";
  if (isLively()) raw(CLEAR_LINE); // the countdown
  return await cli.terminal.ask(
    "Nothing proves that this code belongs to your login. Did you approve " +
      "the app yourself, just now, at the link above? [y/N] ",
  );
}

function isYes(answer: string): boolean {
  return /^y(es)?$/i.test(answer);
}

/** Whether an answer is a redirect or a code; no word for "no" is so long. */
function isPasted(answer: string): boolean {
  const query = attempt(() => redirectQuery(answer), "");
  return typeof query !== "string" || query.length > 10;
}

// --- login in two steps

/** What `--start` leaves for `--complete`, in Unix seconds; it works once. */
interface PendingLogin {
  state: string;
  expires_at: number;
  app_key?: string | undefined;
  service_id?: string | undefined;
}

const CODE_LIFE = 1800; // seconds

/** What only a login that waits can use. */
const WAIT_FLAGS = ["timeout", "no-browser", "browser", "paste"];
/** What the link was made of, when there is one. */
const LINK_FLAGS = [...CALLBACK_FLAGS.split(" "), "param"];
/** What the second step must be told again. */
const STEP_FLAGS = ("profile file env-file app-key app-secret-file " +
  "app-secret-command region user-type token-endpoint switch require-scope " +
  `allow-missing-state keep-secret ${REQUEST_FLAGS}`).split(" ");

/** Refuses what a step would ignore. */
function assertSteps(cli: Cli): void {
  const [step, ...more] = ["start", "complete"].filter((name) => cli.has(name));
  if (step === undefined) return;
  if (more.length) throw misuse("--start and --complete are two steps");
  const ignored = step === "start" ? [] : LINK_FLAGS;
  const vain = [...WAIT_FLAGS, ...ignored].find((name) => cli.has(name));
  if (vain) throw misuse(`--${vain} does nothing with --${step}: leave it out`);
  if (cli.get("complete") === "-" && cli.get("app-secret-file") === "-") {
    throw misuse("Cannot read both secret and redirect from stdin");
  }
}

async function firstStep(cli: Cli): Promise<void> {
  const place = tokenPlace(cli);
  const options = { ...linkOptions(cli), ...callbackOptions(cli) };
  assertWait(options);
  const [port = DEFAULT_PORT] = portRange(options.port);
  const redirect_url = callbackUrl(options, port);
  const state = stateFor(randomText(32), redirect_url, port);
  const [app_key, service_id] = [cli.get("app-key"), cli.get("service-id")];
  const app = { appKey: app_key, serviceId: service_id };
  const authorize_url = authorizationUrl({ ...options, ...app, state });
  const expires_at = Math.floor(Date.now() / 1000) + CODE_LIFE;
  await assertSavable(place.store, { ...place, ...WARNINGS });
  const pending: PendingLogin = { state, expires_at, app_key, service_id };
  await saveJson(pendingPath(place), pending);
  const complete = completeLine(cli);
  cli.json({ authorize_url, redirect_url, expires_at, complete });
}

/** The second step as a line of a shell, URL standing for the redirect. */
function completeLine(cli: Cli): string {
  const flags = STEP_FLAGS.flatMap((flag) => {
    const value = cli.get(flag);
    return value ? [`--${flag}`, value] : cli.has(flag) ? [`--${flag}`] : [];
  });
  // Quoted in any case: a redirect has "&" in it.
  const url = RUNTIME.process.platform === "win32" ? '"URL"' : "'URL'";
  return `${commandLineOf(["login", ...flags, "--complete"])} ${url}`;
}

async function secondStep(cli: Cli): Promise<void> {
  const place = tokenPlace(cli);
  const pending = loadPending(place);
  const app = await readCredentials(cli, pending);
  const home = await chooseHome(cli, app.appKey);
  const code = await completedCode(cli, pending).catch(async (error) => {
    // A denial ends a login as well.
    if (error.kind === "access_denied") await removePending(place);
    throw error;
  });
  const { service_id: serviceId } = pending;
  const options = { ...loginOptions(cli), ...app, serviceId };
  await assertSavable(place.store, options);
  // Removed before the code is spent: of two that complete at once, one does.
  if (!await removePending(place)) throw noPending(place.profile);
  try {
    const reply = await exchangeCode(options, code, options);
    printReply(cli, reply);
    await keepSecret(cli, app, home).finally(() => tellLogin(cli, reply));
  } catch (error) {
    // As far as we know the code was not spent: it may be tried again.
    const { kind } = error as Partial<TikTokShopError>;
    if (kind === "network") await saveJson(pendingPath(place), pending);
    throw error;
  }
}

/** The code of a redirect, judged by the state that was kept. */
async function completedCode(cli: Cli, pending: PendingLogin): Promise<string> {
  const allowed = cli.has("allow-missing-state");
  let text = cli.get("complete")!;
  if (text !== "-") assertWhole(text, allowed);
  else if (!isInteractive()) text = namedText("the redirect from", "-");
  else text = await cli.terminal.ask("Address that the browser was sent to: ");
  for (;;) {
    const { code, error, stateMatched } = judgePasted(text, pending.state);
    const trusted = stateMatched || allowed;
    if (error) throw trusted ? error : missingStateError();
    const answer = trusted ? "y" : await askAboutCode(cli);
    if (isYes(answer)) return code;
    if (!isPasted(answer)) break;
    text = answer;
  }
  throw missingStateError();
}

/** Refuses a URL without its end: to a shell, "&" ends a command. */
function assertWhole(redirect: string, allowed: boolean): void {
  const text = pastedRedirect(redirect);
  const cut = /^[^?&]*\?[^=&]*=[^&]*$/.test(text);
  if (!cut || (allowed && /\?(auth_)?code=/.test(text))) return;
  throw misuse('The URL ends at its first "&": put it in quotes');
}

/** The file of a login under way, beside that of its tokens. */
function pendingPath({ store, profile }: TokenPlace): string {
  const { basename, dirname, join } = paths();
  const path = store.path(profile);
  return join(dirname(path), `.${basename(path)}.pending`);
}

function loadPending(place: TokenPlace): PendingLogin {
  const pending = recordIn(pendingPath(place));
  const isAlive = Number(pending.expires_at) > Date.now() / 1000;
  if (pending.state && isAlive) return pending as unknown as PendingLogin;
  throw noPending(place.profile);
}

/** Whether it was there: of two that remove it at once, one has. */
function removePending(place: TokenPlace): Promise<boolean> {
  return fs().unlink(pendingPath(place)).then(() => true, () => false);
}

function noPending(profile: string): TikTokShopError {
  const name = `profile "${printable(profile)}"`;
  const message = `No login of ${name} was begun in the last 30 minutes`;
  const hint = `begin with ${commandLineOf(["login", "--start"])}`;
  return new TikTokShopError("invalid_redirect", message, { hint });
}

// --- refresh

async function refreshCommand(cli: Cli): Promise<void> {
  if (cli.has("all") && cli.has("profile")) {
    throw misuse("--all refreshes every profile: leave out --profile");
  }
  const keep = keepFor(cli);
  if (cli.has("all")) return await refreshAll(cli, keep);
  const seen = await loadTokens(keep.store, keep.profile);
  const tokens = await refreshOnce(seen, keep);
  const profile = printable(keep.profile);
  if (!cli.has("quiet")) note(`Refreshed profile ${profile}`);
  cli.json(withoutMeta(tokens));
}

/** How many token requests `refresh --all` makes at a time. */
const CALLS_AT_ONCE = 16;

/** Refreshes every profile; one that fails does not stop the others. */
async function refreshAll(cli: Cli, keep: CallOptions): Promise<void> {
  // The folder around a --file holds more than tokens.
  const profiles = cli.get("file") ? [keep.profile] : await keep.store.list();
  const isShown = isLively() && !cli.has("quiet");
  let done = 0;
  const limited = limit(CALLS_AT_ONCE);
  // Some more, which read and write their files while the others wait.
  const wider = limit(CALLS_AT_ONCE * 1.5);
  const refresh = async (profile: string) => {
    const code = await refreshLine(cli, { ...keep, limited }, profile);
    done++;
    if (isShown) raw(`${CLEAR_LINE}${done} of ${profiles.length}`);
    return code;
  };
  const work = profiles.map((profile) => wider(() => refresh(profile)));
  const codes = await Promise.all(work);
  if (isShown) raw(CLEAR_LINE);
  const failed = codes.filter(Boolean).length;
  const sum = `Refreshed ${codes.length - failed} of ${codes.length} profiles`;
  if (codes.length === 0) note("There are no profiles yet: log in first");
  else if (!cli.has("quiet")) note(failed ? `${sum}, ${failed} failed` : sum);
  // A new login is what somebody has to do something about.
  cli.exitCode = codes.includes(5) ? 5 : codes.find(Boolean) ?? 0;
}

/** Refreshes a profile and prints a line about it; returns its exit code. */
async function refreshLine(cli: Cli, keep: CallOptions, profile: string) {
  try {
    const seen = await loadTokens(keep.store, profile);
    const { data } = await refreshOnce(seen, { ...keep, profile });
    const { access_token_expire_in, refresh_token_expire_in } = data;
    const ends = { access_token_expire_in, refresh_token_expire_in };
    cli.json({ profile, ok: true, ...ends });
    return 0;
  } catch (error) {
    const { kind, code, hint, reply } = error as Partial<TikTokShopError>;
    const told = { kind, code, message: messageOf(error), hint };
    const next = nextStep(error, cli, profile);
    cli.json({ profile, ok: false, ...told, ...next, reply });
    return EXIT_CODES[kindOf(error)] ?? 1;
  }
}

// --- token

async function tokenCommand(cli: Cli): Promise<void> {
  const keep = keepFor(cli);
  const tokens = await validTokens(keep);
  const { access_token, access_token_expire_in } = tokens.data;
  if (!cli.has("json")) return cli.line(access_token);
  const left = Math.floor(secondsLeft(tokens, Date.now));
  const life = { access_token_expire_in, access_token_left: left };
  cli.json({ profile: keep.profile, access_token, ...life });
}

// --- status

async function statusCommand(cli: Cli): Promise<void> {
  const least = seconds(cli.get("min-valid") ?? 0, 0);
  const { store, profile } = tokenPlace(cli);
  const one = cli.get("file") ?? cli.get("profile");
  if (one) await loadTokens(store, profile); // what is asked for must be there
  const profiles = one ? [profile] : await store.list();
  const limited = limit(32);
  const list = await Promise.all(
    profiles.map((name) => limited(() => profileStatus(cli, store, name))),
  );
  if (cli.has("json")) cli.json(list);
  else if (one) cli.line(statusDetail(list[0]!));
  else if (list.length) cli.line(statusTable(list));
  else note(`There are no profiles yet, log in: ${commandLineOf(["login"])}`);
  for (const each of list) warnOfEnd(cli, each);
  if (!cli.has("min-valid")) return;
  const unmet = list.filter(({ error, access_token_left: left = 0 }) =>
    error || left < least
  );
  for (const { profile, access_token_left: left } of unmet) {
    const what = `--min-valid is not met by profile ${printable(profile)}`;
    note(`${what}: ${timeLeft(left)}`, "warning");
  }
  if (unmet.length > 0 || list.length === 0) cli.exitCode = 5;
}

type ProfileStatus = Awaited<ReturnType<typeof profileStatus>>;

/** What is known of a profile, without secrets; `left` is in seconds. */
async function profileStatus(cli: Cli, store: TokenStore, profile: string) {
  try {
    const { data, meta } = await loadTokens(store, profile);
    const now = hostTime(meta, Date.now);
    const access = integerOf(data.access_token_expire_in);
    const refresh = integerOf(data.refresh_token_expire_in);
    const left = (end?: number) => end && Math.floor(end - now);
    return {
      profile,
      default: profile === defaultProfile(cli),
      seller_name: data.seller_name,
      open_id: data.open_id,
      app_key: meta.app_key,
      app_secret: keptSecret(cli, textOf(meta.app_key)).home || "no",
      region: data.seller_base_region ?? meta.region,
      user_type: USER_TYPES[integerOf(data.user_type) ?? -1] ?? data.user_type,
      scopes: data.granted_scopes,
      // Without their ciphers.
      shops: meta.shops?.map(({ id, name, region }) => ({
        id: textOf(id),
        name: textOf(name),
        region: textOf(region),
      })),
      access_token_expire_in: access,
      access_token_left: left(access),
      refresh_token_expire_in: refresh,
      refresh_token_left: left(refresh),
    };
  } catch (error) {
    return { profile, error: messageOf(error) };
  }
}

const USER_TYPES = ["seller", "creator", undefined, "partner"];

/** What is shown of a profile, first what ends. */
function statusFacts(each: ProfileStatus) {
  return {
    GRANT: each.error ? "unreadable" : timeLeft(each.refresh_token_left),
    ACCESS: timeLeft(each.access_token_left),
    PROFILE: `${each.default ? "* " : ""}${each.profile}`,
    SELLER: textOf(each.seller_name) || each.open_id,
    REGION: each.region,
    TYPE: each.user_type,
    SECRET: each.app_secret,
    SCOPES: each.scopes,
  };
}

/** A row a profile, as wide as the terminal. */
function statusTable(list: readonly ProfileStatus[]): string {
  const { isTTY, columns } = RUNTIME.process.stdout;
  const facts = list.map((each) => ({
    ...statusFacts(each),
    SCOPES: each.scopes?.length,
  }));
  const rows = facts.map((each) => Object.values(each).map(textOf));
  const limit = isTTY && columns ? columns : Infinity;
  const [top, ...lines] = table(Object.keys(facts[0]!), rows, limit);
  const painted = lines.map((line, i) => {
    const style = isTTY && endingOf(list[i]!);
    return style ? paint(style, line) : line;
  });
  return [top, ...painted].join("\n");
}

/** One profile, a line each fact, its scopes and shops by name. */
function statusDetail(status: ProfileStatus): string {
  const SHOPS = status.shops?.map((shop) => `${shop.name} (${shop.region})`);
  const [first, ...rows] = Object.entries({ ...statusFacts(status), SHOPS })
    .flatMap(([label, fact]) =>
      [fact ?? []].flat().map((text, i) => [i ? "" : label, textOf(text)])
    );
  return table(first!, rows).join("\n");
}

/** The colour of a grant that has ended, or ends within 30 days. */
function endingOf({ error, refresh_token_left: left }: ProfileStatus) {
  if (error) return "31";
  if (left === undefined || left > 30 * 86400) return undefined;
  return left <= 0 ? "31" : "33";
}

/** Tells what a person has to do something about. */
function warnOfEnd(cli: Cli, status: ProfileStatus): void {
  const { error, refresh_token_left: left = 0 } = status;
  const profile = printable(status.profile);
  if (error) return note(error, "warning");
  if (!endingOf(status)) return;
  const when = left <= 0 ? "has ended" : `ends in ${timeLeft(left)}`;
  const run = commandLineOf(["login", ...wordsAgain(cli, profile)]);
  const what = `the seller's grant of profile ${profile} ${when}`;
  note(`${what}, log in again`, "warning");
  note(run, "run");
}

// --- use

async function useCommand(cli: Cli): Promise<void> {
  const [profile = ""] = cli.operands;
  await loadTokens(tokenPlace(cli).store, profile); // it must be there
  const config = { ...readConfig(cli), default_profile: profile };
  await saveJson(homePath(cli, "config.json"), config);
  if (cli.has("quiet")) return;
  note(`Profile ${printable(profile)} is used where no other is named`);
}

// --- shops

async function shopsCommand(cli: Cli): Promise<void> {
  const shops = await shopsWith(keepFor(cli));
  if (cli.has("json")) return cli.json(shops);
  if (!shops.length && !cli.has("quiet")) note("This token has no shops");
  const rows = shops.map(({ id, name, region, seller_type, code }) =>
    [id, name, region, seller_type, code].map(textOf)
  );
  const head = ["ID", "NAME", "REGION", "TYPE", "CODE"];
  cli.line(table(head, rows).join("\n"));
}

// --- api

async function apiCommand(cli: Cli): Promise<void> {
  const [method = "GET", path = "/"] = cli.operands;
  if (cli.get("body") === "-" && cli.get("app-secret-file") === "-") {
    throw misuse("--body and --app-secret-file cannot both be read from stdin");
  }
  const request: ApiRequest = {
    method: method.toUpperCase(),
    path,
    query: nameValues(cli, "query"),
    body: bodyGiven(cli.get("body")),
    shop: cli.get("shop"),
  };
  const keep = keepFor(cli);
  try {
    if (!cli.has("paginate")) return cli.json(await callWith(request, keep));
    const pages: ApiReply[] = [];
    for await (const page of apiPages(request, keep)) pages.push(page);
    for (const page of pages) cli.json(page);
  } catch (error) {
    // The body of a failed call tells more than its message.
    const { body } = error as Partial<TikTokShopError>;
    const lines = typeof body === "string" ? body.split("\n") : [];
    if (lines.length) cli.line(lines.map(printable).join("\n"));
    else if (body !== undefined) cli.json(body);
    throw error;
  }
}

/** The exact bytes of `--body`: text, a file or stdin. */
function bodyGiven(body = ""): string | Uint8Array {
  if (body !== "-" && !body.startsWith("@")) return body;
  return namedBytes("the body from", expandHome(body.replace(/^@/, "")));
}

// --- exec

async function execCommand(cli: Cli): Promise<void> {
  const env = { ...RUNTIME.process.env };
  // Another shop's would go with the wrong token; the secret is asked for.
  for (const name of ["SHOP_CIPHER", "APP_SECRET", "APP_SECRET_COMMAND"]) {
    delete env[`TIKTOK_SHOP_${name}`];
  }
  const keep = keepFor(cli);
  const tokens = await validTokens(keep);
  const cipher = await shopCipher(cli.get("shop"), tokens, keep);
  env.TIKTOK_SHOP_ACCESS_TOKEN = tokens.data.access_token;
  if (cipher) env.TIKTOK_SHOP_SHOP_CIPHER = cipher;
  if (cli.has("with-secret")) {
    const { appKey, appSecret } = await credentialsOf(tokens, keep);
    env.TIKTOK_SHOP_APP_KEY = appKey;
    env.TIKTOK_SHOP_APP_SECRET = appSecret;
  }
  cli.close(); // the command has the terminal now
  cli.exitCode = await runChild(cli.operands.slice(1), env);
}

/** Runs a command as if it were started in our place; its exit code. */
async function runChild(command: string[], env: NodeJS.ProcessEnv) {
  const { process } = RUNTIME;
  let child: ChildProcess | undefined;
  // A terminal's Ctrl-C reaches the child by itself; kill(1) reaches only us.
  const names = passedSignals();
  const pass = (name: NodeJS.Signals) => {
    // Not child.kill(): Deno then tells the signal for the exit code.
    const isAlive = child?.exitCode === null && child.signalCode === null;
    const pid = isAlive ? child?.pid : undefined;
    // A signal to our whole group may have ended it a moment before.
    if (pid) attempt(() => process.kill(pid, name), false);
  };
  // Before the start: a signal may come as soon as the command runs.
  process.on("SIGINT", ignore);
  for (const name of names) process.on(name, pass);
  try {
    // It is to ignore SIGHUP as we do, and inherits no listener.
    const shell = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh"];
    const start = isHangupIgnored() ? shell : [];
    const [file = "", ...args] = [...start, ...command];
    const options = { stdio: "inherit", env } as const;
    child = node("node:child_process").spawn(file, args, options);
    return await childEnd(child);
  } catch (error) {
    note(printable(`Cannot run "${command[0]}": ${messageOf(error)}`), "error");
    return codeOf(error) === "ENOENT" ? 127 : 126; // as a shell
  } finally {
    process.off("SIGINT", ignore);
    for (const name of names) process.off(name, pass);
  }
}

// --- logout

async function logoutCommand(cli: Cli): Promise<void> {
  const { store, profile } = tokenPlace(cli);
  const told = (text: string) => cli.has("quiet") || note(printable(text));
  const remove = () => store.remove(profile);
  const tokens = await store.load(profile);
  const appKey = cli.given("app-key")?.text ?? tokens?.meta.app_key ??
    cli.get("app-key") ?? "";
  // Asked before the lock is taken, which would make the folder. Under the
  // lock, no refresh that is under way brings the profile back.
  const isThere = tokens && await withLock(store, profile, WARNINGS, remove);
  if (cli.has("json")) cli.json({ profile, removed: Boolean(isThere) });
  const done = `Removed profile ${profile}; the app stays authorized at TikTok`;
  told(isThere ? done : `There is no profile ${profile}: nothing to remove`);
  const config = readConfig(cli);
  if (config.default_profile === profile && !cli.get("file")) {
    delete config.default_profile;
    await saveJson(homePath(cli, "config.json"), config);
    told("Where no profile is named, default is used again");
  }
  const { path, home, place } = keptSecret(cli, appKey);
  const isKept = home === "keychain" || home === "file";
  if (!cli.has("app")) {
    const line = commandLineOf(["logout", "--app", "--app-key", appKey]);
    if (isKept) told(`The app secret stays in ${place}; forget it: ${line}`);
    return;
  }
  const what = "Cannot tell which app to forget";
  if (!path) throw misuse(`${what}: pass --app-key KEY`);
  if (home === "keychain") await useKeychain("remove", appKey);
  await fs().unlink(path).catch(unless(isMissing));
  const isSet = config.app_key === appKey;
  if (isSet) {
    for (const flag of KEPT_FLAGS) delete config[flag.replaceAll("-", "_")];
    await saveJson(homePath(cli, "config.json"), config);
  }
  const forgot = `Forgot the app ${appKey} and its secret`;
  told(home || isSet ? forgot : `Nothing is kept of the app ${appKey}`);
}

// --- doctor

type Status = "ok" | "warning" | "problem";
/** What `doctor` found out about one thing. */
type Finding = {
  check: string;
  status: Status;
  message: string;
  hint?: string;
};

/** A text is ok, an error a problem, nothing no finding. */
type Told = string | Warning | Finding[] | undefined;
type Warning = { warning: string; hint?: string };
type Check = (cli: Cli) => Told | Promise<Told>;
const CHECKS: Record<string, Check> = {
  "app key": (cli) => assertAppKey(cli.get("app-key")) + from(cli, "app-key"),
  "app secret": diagnoseSecret,
  "service id": (cli) =>
    isCreator(cli)
      ? undefined
      : assertServiceId(cli.get("service-id")) + from(cli, "service-id"),
  "link": diagnoseLink,
  "redirect URL": diagnoseRedirect,
  "browser": diagnoseBrowser,
  "machine": diagnoseMachine,
  "store": diagnoseStore,
  "token host": async (cli) => (await reach(cli, "token host")).told,
  "clock": diagnoseClock,
  "API host": async (cli) => (await reach(cli, "API host")).told,
  "proxy": diagnoseProxy,
  "certificates": diagnoseCertificates,
};

async function doctorCommand(cli: Cli): Promise<void> {
  // Settings that cannot be read end the whole command.
  for (const flag of ["file", "user-type"]) cli.get(flag);
  const findings = (await Promise.all(
    Object.entries(CHECKS).map(([name, check]) => diagnose(cli, name, check)),
  )).flat();
  if (cli.has("json")) cli.json(findings);
  else cli.line(findings.map(findingText).join("\n"));
  if (findings.some(({ status }) => status === "problem")) cli.exitCode = 1;
}

async function diagnose(cli: Cli, check: string, judge: Check) {
  const found = (status: Status, message: string, hint?: string) => [
    { check, status, message, hint },
  ];
  try {
    const told = await judge(cli) ?? [];
    if (typeof told === "string") return found("ok", told);
    return "warning" in told ? found("warning", told.warning, told.hint) : told;
  } catch (error) {
    return found("problem", messageOf(error), hintOf(error));
  }
}

/** A finding as lines of a table of 80 columns, the hint below it. */
function findingText({ check, status, message, hint }: Finding): string {
  const style = { ok: "32", warning: "33", problem: "31;1" }[status];
  const mark = status.padEnd(8);
  const shown = RUNTIME.process.stdout.isTTY ? paint(style, mark) : mark;
  const lines = [message, ...hint ? `> ${hint}`.split("\n") : []]
    .flatMap((text) => wrapped(printable(text), 57));
  return `${shown} ${check.padEnd(13)} ${lines.join(`\n${" ".repeat(23)}`)}`;
}

/** Where a setting comes from, behind its value. */
function from(cli: Cli, flag: string): string {
  const source = cli.source(flag);
  return source ? `, from ${source.from}` : "";
}

/** App key, secret and service id are easily mixed up. */
async function diagnoseSecret(cli: Cli): Promise<Told> {
  const found = await findSecret(cli, cli.get("app-key"));
  const appSecret = assertAppSecret(found?.text);
  const others = [cli.source("app-key")?.text, cli.source("service-id")?.text];
  if (!others.includes(appSecret)) return `is set, from ${found!.from}`;
  throw misuse("This is the app key or the service id once more");
}

function diagnoseLink(cli: Cli): Told {
  const { region = "row", userType = "seller", ...link } = linkOptions(cli);
  const options = { ...link, region, userType, appKey: "a", serviceId: "1" };
  const { host } = new URL(authorizationUrl({ ...options, state: "-" }));
  const origins = ["region", "user-type"].filter((flag) => cli.source(flag))
    .map((flag) => `; ${flag}${from(cli, flag).slice(1)}`);
  return `${userType}s of region ${region} authorize at ${host}` +
    origins.join("");
}

/** The URL to save, and whether a login would get its port. */
async function diagnoseRedirect(cli: Cli): Promise<Finding[]> {
  const options = callbackOptions(cli);
  assertWait(options);
  const ports = portRange(options.port).slice(0, 20);
  const url = callbackUrl(options, ports[0]!);
  const message = `save ${url} as the app's redirect URL in Partner Center`;
  const each = ports.map((port) =>
    diagnose(cli, `port ${port}`, () => diagnosePort(cli, port))
  );
  const findings = (await Promise.all(each)).flat();
  // Of a range, one free port is enough.
  if (findings.some(({ status }) => status === "ok")) {
    for (const one of findings) if (one.status !== "ok") one.status = "warning";
  }
  return [{ check: "redirect URL", status: "ok", message }, ...findings];
}

async function diagnosePort(cli: Cli, port: number): Promise<Told> {
  const server = await listenOnPort(port, {
    tls: undefined,
    needsBoth: cli.get("host") !== "127.0.0.1",
    handlerOn: () => () => Promise.resolve(plainAnswer(404)),
    onUnread: () => undefined,
  });
  await server.close();
  return "is free";
}

function diagnoseBrowser(): Told {
  const { env, platform } = RUNTIME.process;
  const options = { env, platform, isFile: namesFile };
  const names = browserCommands("-", options).map(([name = ""]) => name);
  const found = names.find(onPath);
  if (found) return `opens with ${found}`;
  const hint = names.length
    ? `install ${names.at(-1)}, or open the link yourself`
    : "open the link yourself, on any machine";
  return { warning: "none can be opened here", hint };
}

/** Whether the browser of a person reaches this machine's loopback. */
function diagnoseMachine(cli: Cli): Told {
  const { env, platform } = RUNTIME.process;
  const away = remoteHint(cli.get("port"));
  if (away) return { warning: "its browser is on another machine", hint: away };
  if (env.WSL_DISTRO_NAME) {
    return "WSL: Windows' browser reaches localhost here";
  }
  const own = ["darwin", "win32"].includes(platform);
  if (own || env.DISPLAY || env.WAYLAND_DISPLAY) {
    return "has a display: its browser reaches localhost here";
  }
  const hint = "paste the address that the browser is sent to in the terminal";
  return { warning: "has no display", hint };
}

/** Whether the tokens can be kept, and by nobody else be read. */
async function diagnoseStore(cli: Cli): Promise<Told> {
  const { store, profile } = tokenPlace(cli);
  const path = store.path(profile);
  const tokens = await store.load(profile);
  const folder = paths().dirname(path);
  // First, for saving again closes a file that is open to others.
  const open = await openToOthers(cli.get("file") ? [path] : [path, folder]);
  const warnings: Warning[] = open ? [open] : [];
  const onWarning = (warning: string) => warnings.push({ warning });
  if (!node("node:fs").existsSync(folder)) assertWritableFolder(folder);
  else await assertSavable(store, { profile, onWarning });
  const none = tokens ? "" : "; there are no tokens yet";
  const chosen = profile === defaultProfile(cli) ? ", the default profile" : "";
  const origin = from(cli, "file") || from(cli, "profile") || chosen;
  return warnings[0] ?? `${path}${origin}, can be written${none}`;
}

/** Makes something in what is there of a folder's path, and removes it. */
function assertWritableFolder(folder: string): void {
  const { existsSync, mkdtempSync, rmdirSync } = node("node:fs");
  const { dirname, join } = paths();
  let there = folder;
  while (!existsSync(there) && there !== dirname(there)) there = dirname(there);
  try {
    rmdirSync(mkdtempSync(join(there, ".doctor-")));
  } catch (error) {
    throw storeError(`Cannot write to ${there}`, error);
  }
}

/** What is said of the first that others may look into. */
async function openToOthers(paths: string[]) {
  const { platform, getuid } = RUNTIME.process;
  for (const path of platform === "win32" ? [] : paths) {
    const info = await fs().stat(path).catch(() => {});
    if (!info || (info.mode & 0o077) === 0) continue;
    const mode = info.isDirectory() ? "700" : "600";
    const hint = [0, info.uid].includes(getuid!())
      ? `run: chmod ${mode} ${shellWord(path, "posix")}`
      : "it belongs to another user: keep the tokens in a folder of your own";
    return { warning: `others may read ${path}`, hint };
  }
}

/** Asks a host for its front page, once; any answer will do. */
function reach(cli: Cli, host: "token host" | "API host") {
  return cli.once(host, async () => {
    const [flag, initial] = host === "API host"
      ? ["api-endpoint", DEFAULT_API_ENDPOINT] as const
      : ["token-endpoint", DEFAULT_TOKEN_ENDPOINT] as const;
    const url = cli.get(flag) ?? initial;
    const { origin } = endpointUrl(url, host);
    const { date } = await send(new URL(origin), {}, {
      ...requestOptions(cli),
      tried: `Cannot reach ${origin}`,
      secrets: [],
      limits: { ...TOKEN_LIMITS, time: 8000 },
    });
    return { told: `${origin} answers${from(cli, flag)}`, date };
  });
}

async function diagnoseClock(cli: Cli): Promise<Told> {
  const answer = await reach(cli, "token host").catch(() => undefined);
  if (answer?.date === undefined) return undefined;
  const off = Math.round(Date.now() / 1000 - answer.date);
  if (Math.abs(off) <= 30) return "agrees with the token host's";
  const side = off > 0 ? "ahead of" : "behind";
  const warning = `is ${timeLeft(Math.abs(off))} ${side} the token host's`;
  const hint = "set this machine's clock; until then the host's time is used";
  return { warning, hint };
}

/** Node uses a proxy only if it is told to; Deno always does. */
function diagnoseProxy(): Told {
  const { env, execArgv, versions } = RUNTIME.process;
  const names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
  const set = names.find((name) => env[name]);
  if (!set) return "none is set";
  if (RUNTIME.Deno) return `${set} is used`;
  const flag = "--use-env-proxy"; // known from Node 22.21 and 24.5 on
  const canUse = RUNTIME.process.allowedNodeEnvironmentFlags.has(flag);
  const isAsked = env.NODE_USE_ENV_PROXY === "1" ||
    [...execArgv, env.NODE_OPTIONS].join(" ").includes(flag);
  const isHttps = /^https/i.test(set);
  if (canUse && isAsked && isHttps) return `${set} is used`;
  const warning = `${set} is set, but Node ${versions.node} does not use it`;
  const hint = canUse
    ? `set ${isHttps ? "" : "HTTPS_PROXY and "}NODE_USE_ENV_PROXY=1`
    : "use Deno, or Node 24 with NODE_USE_ENV_PROXY=1";
  return { warning, hint };
}

/** Deno checks certificates whatever this variable says. */
function diagnoseCertificates(): Told {
  const name = "NODE_TLS_REJECT_UNAUTHORIZED";
  if (RUNTIME.process.env[name] !== "0") return undefined;
  const warning = `${name}=0 lets others read the app secret`;
  const hint = "unset it; NODE_EXTRA_CA_CERTS names your company's certificate";
  if (RUNTIME.Deno) return { warning, hint };
  throw new TikTokShopError("network", warning, { hint });
}

// --- relay

/**
 * Moves a redirect on to the loopback port that its state names, or shows it
 * for pasting where nothing listens. Chrome asks the person before a public
 * page may look whether something does; going there needs no leave.
 */
const RELAY_SCRIPT = `
const byId = (id) => document.getElementById(id);
const show = (id) => {
  for (const part of ["on", "paste", "other"]) byId(part).hidden = part !== id;
};
show("on");
const query = new URLSearchParams(location.search);
const named = /^[\\w-]{40,}\\.([1-9]\\d{3,4})$/.exec(query.get("state"));
const ours = named && named[1] >= 1024 && named[1] <= 65535;
const local = ours && "http://localhost:" + named[1] + "/";
const target = ours ? local + location.search : location.href;
const listens = async () => {
  const leave = await navigator.permissions
    ?.query({ name: "local-network-access" }).catch(() => undefined);
  const wouldAsk = leave && leave.state !== "granted";
  if (location.protocol === "https:" && wouldAsk) return true;
  const look = { mode: "no-cors", signal: AbortSignal.timeout(3000) };
  return fetch(local, look).then(() => true, () => false);
};
byId("url").value = byId("link").href = target;
byId("copy").onclick = () => {
  byId("url").select();
  if (document.execCommand("copy")) byId("copy").textContent = "Copied";
};
byId("here").hidden = !ours;
if (ours) {
  listens().then((yes) => {
    if (yes) location.replace(target);
    setTimeout(show, yes ? 3000 : 0, "paste");
  });
} else show(query.has("code") || query.has("error") ? "paste" : "other");
`;

const RELAY_SCRIPT_HASH = "sha256-wH4D52Lk0/GH65UTDumqy7b4MwFpKF1APFurCwJtJsc=";

/** Prints the relay's static page: self-contained, for any web host. */
// deno-lint-ignore require-await -- a command is asynchronous
async function relayCommand(cli: Cli): Promise<void> {
  const policy = `default-src 'none'; style-src '${PAGE_STYLE_HASH}'; ` +
    `script-src '${RELAY_SCRIPT_HASH}'; ` +
    "connect-src http://localhost:*; base-uri 'none'; form-action 'none'";
  cli.line(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>Back to the terminal</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<main class="relay">
<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 7l5 5-5 5m8 0h6"/></svg>
<h1>Back to the terminal</h1>
<p id="on" hidden>TikTok Shop's answer goes on to the program that waits for
it.</p>
<div id="paste" hidden>
<p class="next">TikTok Shop's answer could not be handed over. Copy this
address, and paste it into the terminal where the login waits:</p>
<p><textarea id="url" rows="6" readonly aria-label="Address"></textarea></p>
<button id="copy">Copy the address</button>
<p id="here" class="next">If the login waits on this computer, you can also
<a id="link">open the address here</a>.</p>
</div>
<p id="other" class="next" hidden>No answer came with this page. Start the login
in the terminal, and open the link that it shows.</p>
<noscript><p class="next">Copy the whole address out of the address bar, and
paste it into the terminal where the login waits.</p></noscript>
<footer>${PROGRAM}</footer>
</main>
<script>${RELAY_SCRIPT}</script>
</body>
</html>`);
}

// --- completion

/** Prints a script that completes commands and flags in a shell. */
// deno-lint-ignore require-await -- a command is asynchronous
async function completionCommand(cli: Cli): Promise<void> {
  const [shell = ""] = cli.operands;
  const names = Object.keys(COMPLETIONS);
  if (names.includes(shell)) return cli.line(COMPLETIONS[shell]!());
  throw misuse(`Unknown shell "${shell}": ${meant(shell, names)}`);
}

const COMPLETIONS: Record<string, () => string> = {
  bash: bashCompletion,
  // It runs bash's completions as they are.
  zsh: () =>
    ["compinit", "bashcompinit"]
      .map((name) => `autoload -U +X ${name} && ${name}\n`).join("") +
    bashCompletion(),
  fish: fishCompletion,
  powershell: powershellCompletion,
};

/** A line for each command, with its flags as words. */
function flagLines(lineOf: (name: string, flags: string) => string): string {
  return Object.keys(COMMANDS).map((name) =>
    lineOf(name, flagNames(name).map((flag) => `--${flag}`).join(" "))
  ).join("\n");
}

function bashCompletion(): string {
  return `_tiktok_shop_oauth2() {
  local words="${Object.keys(COMMANDS).join(" ")} help"
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "\${COMP_WORDS[1]}" in
${flagLines((name, flags) => `    ${name}) words="${flags}" ;;`)}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _tiktok_shop_oauth2 ${PROGRAM}`;
}

function fishCompletion(): string {
  const entry = (within: string, what: string, text: string) => {
    const shown = text.replace(/['\\]/g, "\\$&");
    const when = within ? `seen_subcommand_from ${within}` : "use_subcommand";
    return `complete -c ${PROGRAM} -n '__fish_${when}' ${what} -d '${shown}'`;
  };
  return Object.entries(COMMANDS).flatMap(([name, { help }]) => [
    ...["", "help"].map((within) => entry(within, `-f -a ${name}`, help!)),
    ...flagNames(name).map((flag) => {
      const { value, help } = FLAGS[flag]!;
      return entry(name, `-l ${flag}${value && " -r"}`, help!);
    }),
  ]).join("\n");
}

function powershellCompletion(): string {
  const register = "Register-ArgumentCompleter -Native -CommandName";
  return `${register} ${PROGRAM} -ScriptBlock {
  param($word, $ast)
  $flags = @{
${flagLines((name, flags) => `    ${name} = '${flags}'`)}
  }
  $command = "$($ast.CommandElements[1])"
  $known = $flags.ContainsKey($command) -and $command -ne $word
  $words = if ($known) { $flags[$command] -split ' ' } else { $flags.Keys }
  $words | Sort-Object | Where-Object { $_ -like "$word*" }
}`;
}

// --- sandbox and demo

/** Runs a script that stands beside this file. */
async function scriptCommand(cli: Cli): Promise<void> {
  const name = `scripts/${cli.commandName}`;
  // Computed: who imports this module by URL would download a literal one.
  const url = import.meta.url.replace(/[^/]*(\.\w+)(\?.*)?$/, `${name}$1`);
  const { main } = await (import(url) as Promise<Script>).catch((error) => {
    const message = `Cannot load "${url}", which the repository and the npm ` +
      `package have: ${messageOf(error)}`;
    throw Object.assign(new Error(message), { code: "ENOENT" });
  });
  cli.exitCode = await main(cli.operands);
}

type Script = { main(args: string[]): Promise<number> };

// === Pages

/** The pages, in the order of their texts, each with a sign of 24 by 24. */
const ICONS = {
  success: "M4.5 12.5l5 5 10-11",
  denied: "M4 12a8 8 0 0116 0 8 8 0 01-16 0m2.4-5.6 11.2 11.2",
  failed: "M12 3.5v10.5m0 6v.01",
  // The exchange still runs.
  received: "M6.5 3h11m0 18h-11M8 3v4l4 5 4-5V3M8 21v-4l4-5 4 5v4",
  waiting: "M3 12a9 9 0 0118 0 9 9 0 01-18 0m9-5v5l3.5 2", // without an answer
  held: "M7.5 8a4.5 4.5 0 114.5 5v1.5m0 5.5v.01", // without state
  other: "M9 9h11v11H9zM4 15V4h11", // of another login, or used before
  // No page of ours: its title is its status.
  missing: "M4 10.5a6.5 6.5 0 1113 0 6.5 6.5 0 01-13 0m11.2 4.7 5 5",
};

type Page = keyof typeof ICONS;

/** What a page tells beyond its text: cells of HTML, and their labels. */
interface Facts {
  cells: string[];
  /** In English; left out, those of the page's language. */
  labels?: readonly string[];
}

/** TikTok's `locale`, else what the browser likes best, else English. */
function pageLanguage(headers: Headers, locale: string | null): Language {
  const accepted = (headers.get("accept-language") ?? "").slice(0, 1000)
    .split(",").map((item) => {
      const [tag = "", quality] = item.split(/\s*;\s*q=/i);
      return { tag: tag.trim(), quality: Number(quality ?? 1) };
    })
    .filter(({ quality }) => quality > 0).sort((a, b) => b.quality - a.quality);
  const tags = [locale ?? "", ...accepted.map(({ tag }) => tag)];
  return tags.map(languageOf).find(Boolean) ?? "en";
}

/** `pt_BR` is pt, `in` is id; Chinese goes by the script of its region. */
function languageOf(tag: string): Language | undefined {
  const read = () => new Intl.Locale(tag.replaceAll("_", "-")).maximize();
  const { language, script } = attempt(read, { language: "", script: "" });
  const name = language === "zh" ? `zh-${script}` : language;
  return Object.hasOwn(TEXTS, name) ? name as Language : undefined;
}

/** A page: self-contained, escaped, readable without script. Pure. */
function renderPage(page: Page, lang: Language, facts?: Facts): string {
  const { title, text, next, ...own } = textsOf(page, lang);
  const { cells = [], labels = own.labels } = facts ?? {};
  const rows = cells.map((cell, i) =>
    cell && `<div><dt>${labels[i]}</dt><dd>${cell}</dd></div>`
  ).join("");
  return `<!doctype html>
<html lang="${lang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>${title}</title>
<style>${PAGE_STYLE}</style>
</head>
<body>
<main class="${page}">
<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[page]}"/></svg>
<h1>${title}</h1>
${text && `<p>${text.replace("TikTok Shop", "TikTok&nbsp;Shop")}</p>`}
${rows && `<dl${facts?.labels ? ' lang="en"' : ""}>${rows}</dl>`}
<p class="next">${next}</p>
<footer translate="no">${PROGRAM}</footer>
</main>
<script>${PAGE_SCRIPT}</script>
</body>
</html>
`;
}

/** What was granted, in the order of the labels. */
function grantFacts({ data }: TokenReply, profile?: string): Facts {
  const { granted_scopes: scopes, refresh_token_expire_in: end } = data;
  const code = escapeHtml(textOf(data.seller_base_region), 120);
  const day = new Date((integerOf(end) ?? NaN) * 1000);
  const iso = Number.isNaN(day.getTime()) ? "" : day.toISOString();
  return {
    cells: [
      tagged("bdi", data.seller_name, 120),
      // The script names the region and the day in the page's language.
      /^[A-Z]{2}$/.test(code) ? `<data value="${code}">${code}</data>` : code,
      (Array.isArray(scopes) ? scopes : []).slice(0, 50)
        .map((scope) => tagged("code", scope, 80)).join(" "),
      tagged("bdi", profile, 120),
      iso && `<time datetime="${iso}">${iso.slice(0, 10)}</time>`,
    ],
  };
}

/** What an error tells: its message is an action, a colon and a detail. */
function errorFacts(error: unknown, secrets?: Secrets): Facts {
  const { code, requestId, hint } = (error ?? {}) as Partial<TikTokShopError>;
  const [what, detail = ""] = messageOf(error, secrets).split(/: ([^]*)/);
  // They have cells of their own.
  const own = /^TikTok answered with code -?\d+, | \(request id [^)]*\)/g;
  const said = code === undefined ? detail : detail.replace(own, "");
  return {
    labels: ["Error", "Code", "Message", "Request ID", "Next step"],
    cells: [
      ...[what, code, said].map((text) => tagged("bdi", text)),
      tagged("code", requestId),
      tagged("kbd", hint),
    ],
  };
}

/** Foreign text in an element; nothing for nothing. */
function tagged(tag: string, text: unknown, limit?: number): string {
  const inert = escapeHtml(textOf(text), limit);
  return inert && `<${tag}>${inert}</${tag}>`;
}

/** Foreign text made inert, and cut before it would fill the page. */
function escapeHtml(text: string, limit = 400): string {
  const shown = Array.from(text.slice(0, 2 * limit + 2));
  if (shown.length > limit) shown.splice(limit, Infinity, "…");
  return printable(shown.join("")).replace(
    /[&<>"']/g,
    (c) => `&#${c.charCodeAt(0)};`,
  );
}

// === Texts

/**
 * The languages of TikTok Shop's markets: the labels of the facts, then a row
 * for each page with its title, what is the case, and what to do next.
 */
const TEXTS = {
  en: `Shop | Region | Scopes | Profile | Valid until
Access granted | The app can now work with this TikTok Shop account. |
  You can close this tab and go back to the terminal.
Access denied | The app was not given access. Nothing in the account has
  changed. | If that was a mistake, start the login again in the terminal.
The login failed | TikTok Shop answered, but the login could not be completed. |
  The terminal says what to do next.
Almost done | Your approval has arrived. The last step is taking a little
  longer. | Look at the terminal to see how it ends.
Waiting for TikTok Shop |
  This is the right page, but TikTok Shop has not answered yet. |
  Open the link that the terminal shows and approve the app there.
One question first | The answer came without the proof that it belongs to this
  login. | Nothing more happens until you decide in the terminal.
This tab belongs to another attempt |
  Its answer is for another login, or has been used already. |
  Close this tab. If needed, use the link that the terminal showed last.`,
  id: `Toko | Wilayah | Izin | Profil | Hingga
Akses diberikan | Aplikasi kini dapat digunakan dengan akun TikTok Shop ini. |
  Anda dapat menutup tab ini dan kembali ke terminal.
Akses ditolak | Aplikasi tidak diberi akses. Tidak ada yang berubah pada akun. |
  Jika ini tidak disengaja, mulai lagi proses login di terminal.
Login gagal | TikTok Shop telah menjawab, tetapi login tidak dapat
  diselesaikan. | Langkah selanjutnya ditampilkan di terminal.
Hampir selesai | Persetujuan Anda telah diterima. Langkah terakhir perlu sedikit
  waktu. | Lihat hasilnya di terminal.
Menunggu TikTok Shop |
  Ini halaman yang tepat, tetapi TikTok Shop belum menjawab. |
  Buka tautan yang ditampilkan di terminal, lalu setujui aplikasi di sana.
Satu pertanyaan dulu | Jawaban datang tanpa bukti bahwa jawaban itu untuk login
  ini. | Proses baru dilanjutkan setelah Anda memutuskannya di terminal.
Tab ini berasal dari percobaan lain |
  Jawabannya untuk login lain atau sudah pernah digunakan. |
  Tutup tab ini. Jika perlu, gunakan tautan terakhir di terminal.`,
  vi: `Cửa hàng | Khu vực | Quyền | Hồ sơ | Hiệu lực đến
Đã cấp quyền truy cập | Ứng dụng giờ đã có thể làm việc với tài khoản TikTok
  Shop này. | Bạn có thể đóng thẻ này và quay lại cửa sổ dòng lệnh.
Đã từ chối quyền truy cập | Ứng dụng không được cấp quyền. Tài khoản không có gì
  thay đổi. | Nếu đây là nhầm lẫn, hãy đăng nhập lại từ cửa sổ dòng lệnh.
Đăng nhập không thành công | TikTok Shop đã phản hồi, nhưng không thể hoàn tất
  đăng nhập. | Cửa sổ dòng lệnh cho biết bước tiếp theo.
Sắp xong rồi | Đã nhận được phê duyệt của bạn. Bước cuối cần thêm chút thời
  gian. | Hãy xem kết quả trong cửa sổ dòng lệnh.
Đang chờ TikTok Shop | Đây đúng là trang cần mở, nhưng TikTok Shop chưa phản
  hồi. | Hãy mở liên kết trong cửa sổ dòng lệnh và phê duyệt ứng dụng tại đó.
Còn một câu hỏi | Phản hồi không kèm bằng chứng rằng nó thuộc về lần đăng nhập
  này. | Quá trình chỉ tiếp tục khi bạn quyết định trong cửa sổ dòng lệnh.
Thẻ này thuộc về một lần thử khác |
  Phản hồi này dành cho lần đăng nhập khác hoặc đã được sử dụng. |
  Hãy đóng thẻ này. Nếu cần, dùng liên kết cuối trong cửa sổ dòng lệnh.`,
  th: `ร้านค้า | ภูมิภาค | สิทธิ์ | โปรไฟล์ | ใช้ได้ถึง
อนุญาตให้เข้าถึงแล้ว | ตอนนี้แอปใช้งานกับบัญชี TikTok Shop นี้ได้แล้ว |
  คุณปิดแท็บนี้แล้วกลับไปที่ Terminal ได้เลย
ปฏิเสธการเข้าถึงแล้ว |
  แอปไม่ได้รับสิทธิ์เข้าถึง และบัญชีไม่มีการเปลี่ยนแปลงใดๆ |
  หากเป็นความผิดพลาด โปรดเริ่มเข้าสู่ระบบใหม่จาก Terminal
เข้าสู่ระบบไม่สำเร็จ | TikTok Shop ตอบกลับแล้ว
  แต่เข้าสู่ระบบได้ไม่เสร็จสมบูรณ์ | โปรดดูขั้นตอนถัดไปใน Terminal
ใกล้เสร็จแล้ว | ได้รับการอนุมัติของคุณแล้ว ขั้นตอนสุดท้ายต้องใช้เวลาอีกสักครู่ |
  โปรดดูผลลัพธ์ใน Terminal
กำลังรอ TikTok Shop | หน้านี้ถูกต้องแล้ว แต่ TikTok Shop ยังไม่ได้ตอบกลับ |
  โปรดเปิดลิงก์ที่แสดงใน Terminal แล้วอนุมัติแอปที่นั่น
มีคำถามหนึ่งข้อก่อน | การตอบกลับไม่มีหลักฐานว่าเป็นของการเข้าสู่ระบบครั้งนี้ |
  ระบบจะดำเนินการต่อเมื่อคุณตัดสินใจใน Terminal แล้ว
แท็บนี้มาจากการลองครั้งอื่น | การตอบกลับนี้เป็นของการเข้าสู่ระบบครั้งอื่น
  หรือถูกใช้ไปแล้ว | โปรดปิดแท็บนี้ หากจำเป็น ให้ใช้ลิงก์ล่าสุดใน Terminal`,
  ms: `Kedai | Wilayah | Kebenaran | Profil | Sah hingga
Akses dibenarkan | Aplikasi kini boleh digunakan dengan akaun TikTok Shop ini. |
  Anda boleh menutup tab ini dan kembali ke terminal.
Akses ditolak | Aplikasi tidak diberi akses. Tiada apa-apa yang berubah pada
  akaun. | Jika ini tidak disengajakan, mulakan semula log masuk di terminal.
Log masuk gagal | TikTok Shop telah menjawab, tetapi log masuk tidak dapat
  diselesaikan. | Langkah seterusnya dipaparkan di terminal.
Hampir selesai | Kelulusan anda telah diterima. Langkah terakhir perlu sedikit
  masa lagi. | Lihat hasilnya di terminal.
Menunggu TikTok Shop |
  Ini halaman yang betul, tetapi TikTok Shop belum menjawab. |
  Buka pautan yang dipaparkan di terminal dan luluskan aplikasi di sana.
Satu soalan dahulu | Jawapan tiba tanpa bukti bahawa jawapan itu untuk log masuk
  ini. | Proses hanya diteruskan setelah anda membuat keputusan di terminal.
Tab ini datang daripada percubaan lain |
  Jawapannya untuk log masuk lain atau telah pun digunakan. |
  Tutup tab ini. Jika perlu, gunakan pautan terakhir di terminal.`,
  "zh-Hans": `店铺 | 地区 | 权限 | 配置文件 | 有效期至
授权成功 | 应用现在可以使用此 TikTok Shop 账号了。 |
  您可以关闭此标签页，返回终端。
授权已拒绝 | 应用未获得访问权限，账号没有任何变化。 |
  如果这是误操作，请在终端中重新登录。
登录失败 | TikTok Shop 已响应，但登录未能完成。 | 请在终端中查看下一步操作。
即将完成 | 已收到您的授权，最后一步还需要一点时间。 | 请在终端中查看结果。
正在等待 TikTok Shop | 这是正确的页面，但 TikTok Shop 尚未响应。 |
  请打开终端中显示的链接，并在打开的页面上批准授权。
还有一个问题 | 收到的响应缺少证明，无法确认它属于本次登录。 |
  请在终端中作出决定，在此之前不会继续。
此标签页属于另一次尝试 | 其中的响应属于另一次登录，或已被使用。 |
  请关闭此标签页。如有需要，请使用终端中最新的链接。`,
  "zh-Hant": `商店 | 地區 | 權限 | 設定檔 | 有效期至
授權成功 | 應用程式現在可以使用此 TikTok Shop 帳號了。 |
  您可以關閉此分頁，返回終端機。
授權已拒絕 | 應用程式未取得存取權限，帳號沒有任何變更。 |
  如果這是誤操作，請在終端機重新登入。
登入失敗 | TikTok Shop 已回應，但登入未能完成。 | 請在終端機查看下一步。
即將完成 | 已收到您的授權，最後一步還需要一點時間。 | 請在終端機查看結果。
正在等待 TikTok Shop | 這是正確的頁面，但 TikTok Shop 尚未回應。 |
  請開啟終端機顯示的連結，並在開啟的頁面核准授權。
還有一個問題 | 收到的回應缺少證明，無法確認它屬於這次登入。 |
  請在終端機做出決定，在此之前不會繼續。
此分頁屬於另一次嘗試 | 其中的回應屬於另一次登入，或已被使用。 |
  請關閉此分頁。如有需要，請使用終端機最新顯示的連結。`,
  ja: `ショップ | 地域 | 権限 | プロファイル | 有効期限
アクセスを許可しました |
  アプリがこの TikTok Shop アカウントを利用できるようになりました。 |
  このタブは閉じてかまいません。ターミナルにお戻りください。
アクセスは拒否されました |
  アプリにアクセス権はなく、アカウントに変更はありません。 |
  誤って拒否した場合は、ターミナルからログインをやり直してください。
ログインに失敗しました |
  TikTok Shop から応答がありましたが、ログインを完了できませんでした。 |
  次の手順はターミナルで確認してください。
まもなく完了します |
  承認を受け取りました。最後の処理にもう少し時間がかかります。 |
  結果はターミナルで確認してください。
TikTok Shop の応答を待っています |
  このページで間違いありませんが、TikTok Shop からまだ応答がありません。 |
  ターミナルに表示されたリンクを開き、アプリを承認してください。
確認したいことがあります |
  応答に、このログインのものであることを示す情報がありません。 |
  ターミナルで選択するまで、処理は先に進みません。
これは別のログインのタブです |
  応答が別のログインのものか、すでに使用されています。 |
  このタブを閉じ、必要ならターミナルの最新のリンクを使ってください。`,
  es: `Tienda | Región | Permisos | Perfil | Válido hasta
Acceso concedido | La aplicación ya puede trabajar con esta cuenta de TikTok
  Shop. | Puedes cerrar esta pestaña y volver a la terminal.
Acceso rechazado | La aplicación no recibió acceso. Nada ha cambiado en la
  cuenta. | Si fue un error, vuelve a iniciar sesión desde la terminal.
No se pudo iniciar sesión | TikTok Shop respondió, pero no se pudo completar el
  inicio de sesión. | La terminal indica cuál es el siguiente paso.
Ya casi está | Tu aprobación ha llegado. El último paso está tardando un poco
  más. | Consulta el resultado en la terminal.
Esperando a TikTok Shop |
  Esta es la página correcta, pero TikTok Shop aún no ha respondido. |
  Abre el enlace que muestra la terminal y aprueba allí la aplicación.
Una pregunta antes de seguir |
  La respuesta llegó sin la prueba de que es de este inicio de sesión. |
  No ocurrirá nada más hasta que decidas en la terminal.
Esta pestaña es de otro intento |
  Su respuesta es de otro inicio de sesión o ya se ha utilizado. |
  Cierra esta pestaña. Si hace falta, usa el último enlace de la terminal.`,
  pt: `Loja | Região | Permissões | Perfil | Válido até
Acesso concedido | O aplicativo já pode trabalhar com esta conta do TikTok
  Shop. | Você pode fechar esta aba e voltar ao terminal.
Acesso negado | O aplicativo não recebeu acesso. Nada mudou na conta. |
  Se foi um engano, inicie o login novamente no terminal.
O login falhou | O TikTok Shop respondeu, mas não foi possível concluir o
  login. | O terminal mostra o que fazer em seguida.
Quase pronto | Sua aprovação chegou. A última etapa está demorando um pouco
  mais. | Veja o resultado no terminal.
Aguardando o TikTok Shop | Esta é a página certa, mas o TikTok Shop ainda não
  respondeu. | Abra o link exibido no terminal e aprove o aplicativo por lá.
Uma pergunta antes de continuar | A resposta chegou sem a prova de que pertence
  a este login. | Nada mais acontece até você decidir no terminal.
Esta aba é de outra tentativa | A resposta dela é de outro login ou já foi
  usada. | Feche esta aba. Se precisar, use o link mais recente do terminal.`,
  de: `Shop | Region | Rechte | Profil | Gültig bis
Zugriff gewährt | Die App kann jetzt mit diesem TikTok-Shop-Konto arbeiten. |
  Sie können diesen Tab schließen und zum Terminal zurückkehren.
Zugriff abgelehnt |
  Die App hat keinen Zugriff erhalten. Am Konto wurde nichts geändert. |
  Falls das ein Versehen war, starten Sie die Anmeldung im Terminal neu.
Anmeldung fehlgeschlagen | TikTok Shop hat geantwortet, doch die Anmeldung kam
  nicht zustande. | Das Terminal zeigt, wie es weitergeht.
Fast geschafft | Ihre Zustimmung ist angekommen. Der letzte Schritt dauert etwas
  länger. | Das Ergebnis sehen Sie im Terminal.
Warten auf TikTok Shop |
  Hier sind Sie richtig, doch TikTok Shop hat noch nicht geantwortet. |
  Öffnen Sie den Link aus dem Terminal und stimmen Sie dort der App zu.
Zuerst eine Frage | Der Antwort fehlt der Nachweis, dass sie zu dieser Anmeldung
  gehört. | Es geht erst weiter, wenn Sie im Terminal entschieden haben.
Dieser Tab gehört zu einem anderen Versuch |
  Seine Antwort gilt einer anderen Anmeldung oder wurde schon verwendet. |
  Schließen Sie ihn. Falls nötig, nutzen Sie den letzten Link im Terminal.`,
  fr: `Boutique | Région | Droits | Profil | Expire le
Accès accordé | L’application peut maintenant utiliser ce compte TikTok Shop. |
  Vous pouvez fermer cet onglet et revenir au terminal.
Accès refusé | L’application n’a pas obtenu l’accès. Rien n’a changé sur le
  compte. | Si c’était une erreur, relancez la connexion dans le terminal.
La connexion a échoué | TikTok Shop a répondu, mais la connexion n’a pas pu
  aboutir. | Le terminal indique la marche à suivre.
C’est presque terminé | Votre accord est arrivé. La dernière étape prend un peu
  plus de temps. | Consultez le résultat dans le terminal.
En attente de TikTok Shop |
  Vous êtes au bon endroit, mais TikTok Shop n’a pas encore répondu. |
  Ouvrez le lien affiché dans le terminal et approuvez-y l’application.
Une question d’abord | La réponse est arrivée sans la preuve qu’elle vient de
  cette connexion. | Rien ne se passera avant votre décision dans le terminal.
Cet onglet vient d’une autre tentative |
  Sa réponse concerne une autre connexion ou a déjà été utilisée. |
  Fermez cet onglet. Au besoin, utilisez le dernier lien du terminal.`,
  it: `Negozio | Regione | Permessi | Profilo | Scade il
Accesso consentito | L’app ora può lavorare con questo account TikTok Shop. |
  Puoi chiudere questa scheda e tornare al terminale.
Accesso negato | L’app non ha ottenuto l’accesso. Nell’account non è cambiato
  nulla. | Se è stato un errore, ricomincia il login dal terminale.
Login non riuscito | TikTok Shop ha risposto, ma non è stato possibile
  completare il login. | Il terminale indica come proseguire.
Ci siamo quasi | La tua approvazione è arrivata. L’ultimo passaggio richiede
  ancora un po’. | Controlla il risultato nel terminale.
In attesa di TikTok Shop | Questa è la pagina giusta, ma TikTok Shop non ha
  ancora risposto. | Apri il link mostrato nel terminale e approva l’app da lì.
Prima una domanda | La risposta è arrivata senza la prova che appartenga a
  questo login. | Tutto resta fermo finché non decidi nel terminale.
Questa scheda è di un altro tentativo |
  La sua risposta riguarda un altro login o è già stata usata. |
  Chiudi questa scheda. Se serve, usa l’ultimo link del terminale.`,
};

type Language = keyof typeof TEXTS;

/** The labels of the facts, and the three texts of a page. */
function textsOf(page: Page, lang: Language) {
  const [labels = [], ...rows] = textRows(TEXTS[lang]);
  const isMissing = page === "missing";
  const name = isMissing ? "waiting" : page;
  const [title, text, next] = rows[Object.keys(ICONS).indexOf(name)]!;
  const shown = isMissing ? { title: "404", text: "" } : { title, text };
  return { labels, ...shown, next };
}

/** The stylesheet of all pages, those of the sandbox too. */
export const PAGE_STYLE: string = `
:root{color-scheme:light;--ink:#1b1b22;--dim:#5a5966;--paper:#f4f4f7;
  --card:#fff;--line:#e2e2e9;--good:#08734c;--bad:#b3261e;--care:#875200;
  --calm:#4549ad;--track:-.018em;--leading:1.6}
@media screen and (prefers-color-scheme:dark){
:root{color-scheme:dark;--ink:#f0f0f5;--dim:#aeadbb;--paper:#131317;
  --card:#1c1c22;--line:#33333d;--good:#57d3a2;--bad:#ff8f85;--care:#f3bd63;
  --calm:#aeb2ff}
}
:root:lang(th),:root:lang(zh),:root:lang(ja){--track:0;--leading:1.75}
:root:lang(th){font-size:106%}:root:lang(zh){word-break:keep-all}
:root:lang(ja){line-break:strict;word-break:auto-phrase}
*{box-sizing:border-box;margin:0}[hidden]{display:none}
body{display:grid;place-items:center;min-height:100vh;min-height:100svh;
  padding:1.5rem;background:var(--paper);color:var(--ink);
  font:1.0625rem/var(--leading) system-ui,sans-serif;overflow-wrap:anywhere}
main{--tone:var(--calm);width:100%;max-width:35rem;padding:2.75rem;
  background:var(--card);border:1px solid var(--line);border-radius:1.25rem;
  box-shadow:0 1px 2px rgb(0 0 0/.04),0 1.5rem 3rem -1.5rem rgb(0 0 0/.16)}
.success{--tone:var(--good)}.failed{--tone:var(--bad)}.held{--tone:var(--care)}
.denied,.other{--tone:var(--dim)}
svg{display:block;width:3.5rem;height:3.5rem;padding:.85rem;
  margin-bottom:1.5rem;border:1px solid transparent;border-radius:50%;
  color:var(--tone);background:color-mix(in srgb,var(--tone) 13%,transparent);
  fill:none;stroke:currentColor;stroke-width:2.25;stroke-linecap:round;
  stroke-linejoin:round}
h1{margin-bottom:.6rem;font-size:1.65rem;line-height:1.3;font-weight:650;
  letter-spacing:var(--track);text-wrap:balance}
p{color:var(--dim);text-wrap:pretty}.next{color:var(--ink)}
p+p{margin-top:.75rem}main>div,.next{margin-top:1.25rem}
dl{position:relative;margin-top:1.75rem;padding:.5rem 0;
  border:dashed var(--line);border-width:1px 0;font-size:.9375rem}
dl::before,dl::after{content:"";position:absolute;top:-.6875rem;
  width:1.375rem;height:1.375rem;border:1px solid var(--line);
  border-radius:50%;background:var(--paper)}
dl::before{left:-3.4375rem;clip-path:inset(0 0 0 calc(50% - 1px))}
dl::after{right:-3.4375rem;clip-path:inset(0 calc(50% - 1px) 0 0)}
dl div{display:grid;grid-template-columns:6rem 1fr;gap:0 1rem;
  align-items:baseline;padding:.6rem 0}
dl div+div{border-top:1px solid var(--line)}dt{color:var(--dim)}
dl:not([lang]) dd{font-weight:600}
code,kbd,textarea{font:.8125rem/1.6 ui-monospace,Menlo,Consolas,monospace}
dl code{padding:.1rem .4rem;border-radius:.3rem;background:var(--paper)}
dl[lang] code{user-select:all}a{color:var(--calm)}
:focus-visible{outline:3px solid;outline-offset:3px}
textarea{width:100%;padding:.75rem 1rem;border:1px solid var(--dim);
  border-radius:.6rem;background:var(--paper);color:inherit;resize:vertical;
  field-sizing:content;word-break:break-all}
button{margin-top:.75rem;padding:.6rem 1.2rem;border:0;border-radius:.6rem;
  background:var(--calm);color:var(--card);font:inherit;font-weight:600;
  cursor:pointer}
dl button{margin:0;padding:0 .6rem;border:1px solid var(--dim);background:none;
  color:inherit;font-size:.8125rem}
footer{margin-top:2.25rem;color:var(--dim);font-size:.8125rem}
footer[translate]::before{content:"❯ " / "";color:var(--tone)}
@media(max-width:30rem){
body{padding:0;background:var(--card)}
main{padding:1.75rem min(1.5rem,8vw);border:0;box-shadow:none}
dl div{grid-template-columns:1fr}dl::before,dl::after{display:none}
}
@media print{
body{place-items:start;min-height:0;padding:0;background:none}
main{border:0;padding:0;box-shadow:none}
dl::before,dl::after,button{display:none}
}
@media(forced-colors:active){
svg{color:CanvasText;background:none;border-color:CanvasText}
}
`;

const PAGE_STYLE_HASH = "sha256-bAsH1uhlVH+DFmw/Qbz/JF2XsnSBA591uLvDa1kWyjE=";

/**
 * Takes the code out of the address bar and the history, and names region and
 * day: here that would cost every login 15 ms, and the browser knows as well.
 * Without script a click selects the request id; with it there is a button.
 */
const PAGE_SCRIPT = `
history.replaceState(null,'',location.origin+location.pathname);
const lang=document.documentElement.lang;
for(const region of document.querySelectorAll('data')){
  const names=new Intl.DisplayNames(lang,{type:'region',fallback:'none'});
  const name=names.of(region.value);
  if(name)region.textContent=name+' ('+region.value+')'
}
for(const day of document.querySelectorAll('time')){
  const format=new Intl.DateTimeFormat(lang,{dateStyle:'long'});
  day.textContent=format.format(new Date(day.dateTime))
}
for(const id of document.querySelectorAll('dl[lang] code')){
  const copy=document.createElement('button');
  copy.textContent='Copy';
  copy.onclick=()=>{
    getSelection().selectAllChildren(id);
    if(document.execCommand('copy'))copy.textContent='Copied'
  };
  id.after(' ',copy)
}
`;

const PAGE_SCRIPT_HASH = "sha256-GKc/WonBnqSEIkZEM7BagUg7/ox1v5p72sprkUr1Lzs=";

const PAGE_POLICY = `default-src 'none'; style-src '${PAGE_STYLE_HASH}'; ` +
  `script-src '${PAGE_SCRIPT_HASH}'; ` +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

// === Guard

/** Whether this file is what was started: Node before 24.2 does not tell. */
function isEntryPoint(): boolean {
  const script = RUNTIME.process.argv[1];
  if (!script) return false;
  const url = node("node:url").pathToFileURL(realFile(script));
  return url.href === import.meta.url;
}

function exitWith(code: number): void {
  // On Deno, touching `process` costs more than `--version` as a whole.
  if (code !== 0) RUNTIME.process.exitCode = code;
}

if ((import.meta as { main?: boolean }).main ?? isEntryPoint()) {
  main(RUNTIME.Deno?.args ?? RUNTIME.process.argv.slice(2)).then(exitWith);
}
