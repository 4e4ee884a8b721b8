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
import { once } from "node:events";
import { realpathSync } from "node:fs";
import { createServer, type Server } from "node:http";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  accountAt,
  createWorld,
  CREATOR_PATH,
  endGrants,
  issueCode,
  queueFault,
  REFRESH_PATH,
  SELLER_PATH,
  TOKEN_PATH,
  type World,
} from "./sandbox/data.ts";
import { FAULTS, parseFaults } from "./sandbox/faults.ts";
import { handleError, listen, serve, stopServer } from "./sandbox/server.ts";
import type {
  Sandbox,
  SandboxDecision,
  SandboxOptions,
  SandboxRequest,
} from "./sandbox/types.ts";

export { SANDBOX_FAULTS } from "./sandbox/faults.ts";
export type {
  Sandbox,
  SandboxDecision,
  SandboxFault,
  SandboxOptions,
  SandboxRequest,
  SandboxSeller,
  SandboxShop,
  SandboxWhere,
} from "./sandbox/types.ts";

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
 * @throws {Error} if the page has nothing to approve
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

/** Judges the flags itself: each runtime words the errors differently. */
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
