/**
 * A local TikTok Shop: the authorize page with its Approve and Deny buttons,
 * the token host and the signed API, on one loopback port. TikTok has retired
 * its own sandbox; this one lets a login be tried, and tested, with no app, no
 * shop and no network.
 *
 * It keeps TikTok's rules as far as they are known: codes work once and for
 * 30 minutes, refresh tokens rotate, every published operation answers after
 * the checks of clock, signature, token, scope and cipher, in TikTok's words.
 * Where TikTok's behaviour is unknown it does what is hardest for a client. A
 * refused signature is explained: which usual mistake makes it. On demand the
 * sandbox misbehaves: {@linkcode SANDBOX_FAULTS} lists how. It sends webhooks,
 * and `GET /` is a page for people.
 *
 * As a program it serves and prints the environment that points
 * `tiktok-shop-oauth2` at it:
 *
 * ```sh
 * npx tiktok-shop-oauth2 sandbox --env > sandbox.env
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
import { createServer, type Server } from "node:http";
import process from "node:process";
import { isProgram } from "./local.ts";
import {
  type Command,
  dataOf,
  deliveryJson,
  deliveryLine,
  envText,
  helpText,
  introduction,
  parseCommand,
  portOf,
  readRoutes,
  requestJson,
  requestLine,
  sellerOf,
  settingsOf,
} from "./sandbox/command.ts";
import {
  accountAt,
  createWorld,
  CREATOR_PATH,
  DEFAULT_SELLER,
  issueCode,
  queueFault,
  REFRESH_PATH,
  SELLER_PATH,
  TOKEN_PATH,
  type World,
} from "./sandbox/data.ts";
import { parseFaults } from "./sandbox/faults.ts";
import { deauthorize, trigger } from "./sandbox/webhooks.ts";
import { handleError, listen, serve, stopServer } from "./sandbox/server.ts";
import type {
  Sandbox,
  SandboxDecision,
  SandboxOptions,
} from "./sandbox/types.ts";

export { SANDBOX_FAULTS } from "./sandbox/faults.ts";
export { SANDBOX_WEBHOOKS } from "./sandbox/webhooks.ts";
export type {
  Sandbox,
  SandboxAttempt,
  SandboxDecision,
  SandboxDelivery,
  SandboxExplanation,
  SandboxFault,
  SandboxOptions,
  SandboxRequest,
  SandboxRoute,
  SandboxSeller,
  SandboxShop,
  SandboxTrigger,
  SandboxWebhook,
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
  const { origin, requests, deliveries } = world;
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
    deliveries,
    count: (path) => world.counts.get(path) ?? 0,
    fail: (where, fault, times = 1) => queueFault(world, where, fault, times),
    issueCode: (seller = 0, fault = world.settings.fault) =>
      issueCode(world, accountAt(world, seller), parseFaults(fault)),
    approve,
    deauthorize: (seller) => deauthorize(world, seller),
    trigger: (type, options) => trigger(world, type, options),
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

// === Program

/**
 * The program. Serves until Ctrl-C and resolves to the exit code: 130 then, 0
 * after `--help`, 1 if the port cannot be listened on, 2 for wrong usage.
 */
export async function main(args: string[]): Promise<number> {
  try {
    const command = parseCommand(args);
    if (!command.flags.has("help")) return await RUNS[command.name]!(command);
    process.stdout.write(helpText());
    return 0;
  } catch (error) {
    console.error((error as Error).message);
    return error instanceof TypeError || error instanceof RangeError ? 2 : 1;
  }
}

const RUNS: Readonly<Record<string, (command: Command) => Promise<number>>> = {
  serve: serveUntilInterrupt,
  trigger: triggerOnce,
};

async function serveUntilInterrupt({ flags }: Command): Promise<number> {
  const [json, env] = [flags.has("json"), flags.has("env")];
  if (json && env) throw new RangeError("Give --env or --json, not both");
  const [routes] = flags.get("routes")?.map(readRoutes) ?? [];
  const sandbox = await startSandbox({
    port: portOf(flags.get("port")?.[0] ?? "3018"),
    redirectUrl: flags.get("redirect-url")?.[0],
    fault: flags.get("fault")?.[0],
    seed: flags.get("seed")?.[0],
    sellers: [DEFAULT_SELLER, ...flags.get("seller")?.map(sellerOf) ?? []],
    webhookUrl: flags.get("webhook")?.[0],
    routes,
    onRequest: (request) =>
      json ? print(requestJson(request)) : console.error(requestLine(request)),
    onDelivery: (delivery) =>
      json
        ? print(deliveryJson(delivery))
        : console.error(deliveryLine(delivery)),
  });
  const interrupted = once(process, "SIGINT");
  if (json) print(JSON.stringify(settingsOf(sandbox)));
  else print(envText(sandbox, env ? "" : "export "));
  console.error(introduction(sandbox));
  await interrupted;
  await sandbox.stop();
  return 130;
}

/** A line on stdout; nobody may read it any more. */
function print(line: string): void {
  try {
    const { stdout } = process;
    if (stdout.listenerCount("error") === 0) stdout.on("error", () => {});
    stdout.write(`${line}\n`);
  } catch {
    // Deno throws what Node emits.
  }
}

/** Sends one webhook, signed with the sandbox's default app. */
async function triggerOnce({ flags, operands }: Command): Promise<number> {
  const [type, ...more] = operands;
  if (type === undefined || more.length > 0) {
    throw new RangeError("One TYPE of webhook is needed; see --help");
  }
  const [to] = flags.get("to") ?? [];
  if (to === undefined) throw new RangeError('"--to URL" is missing');
  const json = flags.has("json");
  const [named] = flags.get("seller")?.map(sellerOf) ?? [];
  const world = createWorld({
    seed: flags.get("seed")?.[0],
    sellers: [DEFAULT_SELLER, ...named ? [named] : []],
    onDelivery: (delivery) => {
      if (!json) console.error(deliveryLine(delivery));
    },
  });
  const [data] = flags.get("data")?.map(dataOf) ?? [];
  const seller = named?.name ?? 0;
  const delivery = await trigger(world, type, { to, data, seller });
  const { body, delivered } = delivery;
  if (json) process.stdout.write(`${JSON.stringify(delivery)}\n`);
  else if (delivered) process.stdout.write(`${body}\n`);
  return delivered ? 0 : 1;
}

if (isProgram(import.meta)) {
  main(process.argv.slice(2)).then((code) => process.exitCode = code);
}
