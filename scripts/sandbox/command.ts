/**
 * The sandbox's command line: its flags, its help, and what it prints.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { parseWebhook } from "../../mod.ts";
import { FAULTS } from "./faults.ts";
import { newSeller } from "./data.ts";
import { REPEATS, SANDBOX_WEBHOOKS } from "./webhooks.ts";
import type {
  Sandbox,
  SandboxDelivery,
  SandboxExplanation,
  SandboxRequest,
  SandboxRoute,
  SandboxSeller,
} from "./types.ts";

// === Flags

/** What a flag takes (`...`: it may be repeated), and what it does. */
type Flags = Readonly<Record<string, readonly [value: string, help: string]>>;

const HELP: Flags = { "help": ["", "this text"] };

/** The flags of every command; what names no command serves. */
const COMMANDS: Readonly<Record<string, Flags>> = {
  serve: {
    "port": ["N", "port on 127.0.0.1, 0 for any free one (3018)"],
    "redirect-url": ["URL", "the app's redirect URL (http://localhost:3017/)"],
    "fault": ["NAME[,NAME]", "a fault for every authorization; names below"],
    "routes": ["FILE", "answers of your own, as JSON"],
    "seed": ["TEXT", "makes other orders and products (1)"],
    "seller": ["NAME...", "one more seller, or NAME,REGION; may be repeated"],
    "webhook": ["URL", "where webhooks go"],
    "env": ["", "print NAME=value lines instead of export NAME=value"],
    "json": ["", "print settings and requests as lines of JSON"],
    ...HELP,
  },
  trigger: {
    "to": ["URL", "where the webhook goes"],
    "data": ["JSON", "members for data, in place of the example's"],
    "seller": ["NAME", "whose shop it is about, or NAME,REGION"],
    "seed": ["TEXT", "as the sandbox was given it (1)"],
    "json": ["", "print what was sent and what came back as JSON"],
    ...HELP,
  },
};

/** A command line that was read. */
export interface Command {
  readonly name: string;
  readonly operands: readonly string[];
  readonly flags: ReadonlyMap<string, readonly string[]>;
}

/**
 * Reads the arguments. It judges the flags itself: each runtime words the
 * errors differently.
 *
 * @throws {RangeError} for what cannot be understood
 */
export function parseCommand(args: readonly string[]): Command {
  const isNamed = Object.hasOwn(COMMANDS, args[0] ?? "");
  const name = isNamed ? args[0]! : "serve";
  const known = COMMANDS[name]!;
  const options = Object.fromEntries(
    Object.entries(known).map(([flag, [value]]) =>
      [flag, { type: value ? "string" : "boolean" }] as const
    ),
  );
  const operands: string[] = [];
  const flags = new Map<string, string[]>();
  const given = args.slice(isNamed ? 1 : 0);
  const { tokens } = parseArgs({
    args: given,
    options,
    strict: false,
    tokens: true,
  });
  for (const token of tokens) {
    if (token.kind === "positional") operands.push(token.value);
    if (token.kind !== "option") continue;
    const value = flagValue(known, token);
    const before = flags.get(token.name) ?? [];
    if (before.length > 0 && !known[token.name]![0].endsWith("...")) {
      throw new RangeError(`Option "--${token.name}" is given twice`);
    }
    flags.set(token.name, [...before, value]);
  }
  if (name === "serve" && operands.length > 0) {
    throw new RangeError(`Unexpected argument "${operands[0]}"; see --help`);
  }
  return { name, operands, flags };
}

function flagValue(
  known: Flags,
  token: { name: string; rawName: string; value?: string },
): string {
  const { name, rawName, value } = token;
  if (!Object.hasOwn(known, name) || rawName !== `--${name}`) {
    throw new RangeError(`Unknown option "${rawName}"; see --help`);
  }
  const takesValue = known[name]![0] !== "";
  if (takesValue && !value) throw new RangeError(`"${rawName}" needs a value`);
  if (!takesValue && value !== undefined) {
    throw new RangeError(`"${rawName}" takes no value`);
  }
  return value ?? "";
}

/** @throws {RangeError} for what is no port */
export function portOf(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) < 65_536) return Number(text);
  throw new RangeError(`Not a port: "${text}"; use 0 to 65535`);
}

/**
 * The seller that `NAME` or `NAME,REGION` means.
 *
 * @throws {RangeError} without a name
 */
export function sellerOf(text: string): SandboxSeller {
  const [, name = "", region] = /^(.*?)(?:,\s*([a-z]{2}))?$/i.exec(text) ?? [];
  if (name.trim() === "") throw new RangeError(`No seller's name: "${text}"`);
  return newSeller(name.trim(), region?.toUpperCase());
}

/**
 * Reads the JSON of `--data`; integers of any size stay what they are.
 *
 * @throws {RangeError} if it is no JSON object
 */
export function dataOf(text: string): Record<string, unknown> {
  try {
    if (/^\s*\{/.test(text) && JSON.parse(text)) {
      return parseWebhook(`{"type":0,"data":${text}}`).data;
    }
  } catch {
    // told below
  }
  throw new RangeError(`Not a JSON object: "${text}"; write {"name":"value"}`);
}

/** What JSON.parse would change: integers that no number can hold. */
const LARGE_INTEGER = /"(?:[^"\\]|\\.)*"|-?\d+(?![\d.eE])/g;

/**
 * Reads the file of `--routes`.
 *
 * @throws {RangeError} if it cannot be read or is no JSON object
 */
export function readRoutes(file: string): Record<string, SandboxRoute> {
  try {
    const text = readFileSync(file, "utf8").replace(/^\ufeff/, "");
    const routes = JSON.parse(text);
    const large = text.match(LARGE_INTEGER)?.find((token) =>
      token[0] !== '"' && !Number.isSafeInteger(Number(token))
    );
    if (large) throw new Error(`write the number ${large} as a text`);
    if (typeof routes === "object" && routes && !Array.isArray(routes)) {
      return routes;
    }
    throw new Error('write {"METHOD /path": {"data": …}}');
  } catch (error) {
    const { message } = error as Error;
    throw new RangeError(`Cannot read the routes in "${file}": ${message}`);
  }
}

// === Texts

/** The text of `--help`. */
export function helpText(): string {
  const rows = (flags: Flags) =>
    Object.entries(flags).map(([name, [value, help]]) =>
      `  ${`--${name} ${value}`.trim().padEnd(21)} ${help}\n`
    ).join("");
  const faults = Object.entries(FAULTS)
    .map(([name, [, text]]) => `  ${name.padEnd(21)} ${text}\n`).join("");
  const types = Object.entries(SANDBOX_WEBHOOKS)
    .map(([name, type]) => `  ${String(type).padStart(2)} ${name}\n`).join("");
  return `A local TikTok Shop, to try a client with. Ctrl-C stops it.

Usage: tiktok-shop-oauth2 sandbox [options]
       tiktok-shop-oauth2 sandbox trigger TYPE --to URL [options]

${rows(COMMANDS.serve!)}
Options of trigger, which sends a signed webhook and shows what came back:

${rows(COMMANDS.trigger!)}
Types, by name or number:
${types}
Faults, also by "fault=NAME" in the authorize URL:
${faults}`;
}

/** The lines to paste: for a shell, or for an env file. */
export function envText({ env }: Sandbox, prefix: string): string {
  return Object.entries(env)
    .map(([name, value]) => `${prefix}${name}=${value}`).join("\n");
}

/** What the sandbox is, for programs. */
export function settingsOf(sandbox: Sandbox): Record<string, unknown> {
  const { origin, port, appKey, appSecret, serviceId, redirectUrl } = sandbox;
  const { authorizationEndpoint, creatorAuthorizationEndpoint } = sandbox;
  const { tokenEndpoint, refreshEndpoint, apiEndpoint, env } = sandbox;
  return {
    ...{ origin, port, appKey, appSecret, serviceId, redirectUrl },
    ...{ authorizationEndpoint, creatorAuthorizationEndpoint },
    ...{ tokenEndpoint, refreshEndpoint, apiEndpoint, env },
  };
}

/** What the sandbox is, for people. */
export function introduction(sandbox: Sandbox): string {
  const { authorizationEndpoint, serviceId } = sandbox;
  return `
A TikTok Shop of your own, not TikTok, listens on ${sandbox.origin}

  authorize     ${authorizationEndpoint}?service_id=${serviceId}
  get tokens    ${sandbox.tokenEndpoint}
  refresh       ${sandbox.refreshEndpoint}
  API           ${sandbox.apiEndpoint}
  app key       ${sandbox.appKey}
  app secret    ${sandbox.appSecret}
  service id    ${serviceId}
  redirect URL  ${sandbox.redirectUrl}
  a page        ${sandbox.origin}/

Point a client at these. For tiktok-shop-oauth2, paste the lines above into
another terminal, or write them to a file with --env and give that file to its
--env-file. Ctrl-C stops it.
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

/** A webhook that was sent just now, and what came back, for people. */
export function deliveryLine(delivery: SandboxDelivery): string {
  const { name, to, attempts, delivered } = delivery;
  const { status = 0, answer = "" } = attempts.at(-1) ?? {};
  const count = delivered ? "" : ` (${attempts.length} of ${REPEATS + 1})`;
  const shown = printable(JSON.stringify(answer.slice(0, 200)));
  const body = answer === "" ? "" : ` ${shown}`;
  return `webhook ${name} ${to} ${status || "no answer"}${count}${body}`;
}

/** The same for programs. */
export function deliveryJson(delivery: SandboxDelivery): string {
  const { name, type, notificationId, to, attempts, delivered } = delivery;
  const { status, answer } = attempts.at(-1) ?? {};
  return JSON.stringify({
    ...{ webhook: name, type, notificationId, to },
    ...{ attempt: attempts.length, status, answer, delivered },
  });
}

/** Parameters that tell a person nothing. */
const OF_EVERY_CALL = ["app_key", "timestamp", "sign"];

/** A request and its answer, for people. */
export function requestLine(request: SandboxRequest): string {
  const { method, path, status, code, note, explanation } = request;
  const isSigned = "sign" in request.query;
  const shownPairs = Object.entries(shownQuery(request))
    .filter(([name]) => !isSigned || !OF_EVERY_CALL.includes(name));
  const query = shownPairs.map(([name, value]) => {
    const shown = value === "***" ? value : encodeURIComponent(value);
    return `${encodeURIComponent(name)}=${shown}`;
  }).join("&");
  const faults = request.faults.length > 0
    ? ` [${request.faults.join(", ")}]`
    : "";
  const words = [
    `${method} ${path}${query && `?${query}`} ${status || "no reply"}${faults}`,
    ...code ? [` ${code}`] : [],
    ...note ? [` ${printable(withoutSecrets(request, note))}`] : [],
    ...explanation ? [explanationLines(explanation)] : [],
  ];
  return words.join("");
}

function explanationLines(explanation: SandboxExplanation): string {
  const { text, signed, stringToSign } = explanation;
  const lines = [
    text,
    ...signed ? [`was signed  ${signed}`] : [],
    ...stringToSign ? [`should be   ${stringToSign}`] : [],
  ];
  return lines.map((line) => `\n  ${printable(line)}`).join("");
}

/** A text on one line, with nothing that a terminal would obey. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (sign) => {
    const hex = sign.codePointAt(0)!.toString(16).padStart(4, "0");
    return sign === "\n" ? "\\n" : `\\u${hex}`;
  });
}

/** The same for programs. */
export function requestJson(request: SandboxRequest): string {
  const { method, path, status, code, note, explanation, faults } = request;
  return JSON.stringify({
    time: new Date(request.time).toISOString(),
    ...{ method, path, query: shownQuery(request), status },
    ...{ code, note: withoutSecrets(request, note), explanation, faults },
  });
}

function shownQuery({ query }: SandboxRequest): Record<string, string> {
  const shown = Object.entries(query).map(([name, value]) =>
    [name, SECRET_PARAMETERS.includes(name) ? "***" : value] as const
  );
  return Object.fromEntries(shown);
}

/** A text of the answer, which may repeat what the request said. */
export function withoutSecrets(request: SandboxRequest, text: string): string {
  const { query, headers } = request;
  const secrets = SECRET_PARAMETERS.map((name) => query[name])
    .concat(headers["x-tts-access-token"])
    .filter((secret): secret is string => Boolean(secret));
  return secrets.reduce(
    (shown, secret) =>
      shown.replaceAll(secret, "***")
        .replaceAll(encodeURIComponent(secret), "***"),
    text,
  );
}
