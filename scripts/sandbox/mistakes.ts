/**
 * The usual mistakes of a signature, in one table: what each does to what is
 * signed, and the rule that it breaks.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import { createHash, createHmac } from "node:crypto";

/** A parameter, decoded. */
export type Pair = readonly [name: string, value: string];

/** What is signed, and how. */
export interface Recipe {
  readonly path: string;
  /** In the order in which they are joined. */
  readonly pairs: readonly Pair[];
  /** What stands between name and value, and between pairs. */
  readonly separators: readonly [inner: string, outer: string];
  readonly body: string | Buffer;
  /** The secret at either end. */
  readonly before: string;
  readonly after: string;
  /** The HMAC's key; without one a plain hash is made. */
  readonly key: string | undefined;
  readonly hash: string;
  readonly encode: (digest: Buffer) => string;
}

/** What was sent, and what the sandbox knows beside. */
export interface Facts {
  readonly method: string;
  /** Path and query, as they came. */
  readonly target: string;
  readonly host: string;
  readonly sent: readonly Pair[];
  readonly body: Buffer;
  readonly isMultipart: boolean;
  readonly token: string | undefined;
  readonly appKey: string;
  /** What may be taken for the secret, or was once. */
  readonly otherSecrets: readonly string[];
  readonly ciphers: readonly string[];
}

/** A mistake: it makes other recipes out of the right one. */
export interface Mistake {
  readonly name: string;
  /** What it changes; two mistakes that change the same are not combined. */
  readonly part: "body" | "parameters" | "path" | "secret" | "digest";
  /** What was done, and the rule. */
  readonly text: string;
  readonly tries: (recipe: Recipe, facts: Facts) => readonly Partial<Recipe>[];
  /** It has too many tries to be combined with others. */
  readonly isAlone?: true;
}

/** What a recipe makes a client sign, but for the secret at its ends. */
export function signedText({ path, pairs, separators }: Recipe): string {
  const [inner, outer] = separators;
  return path + pairs.map((pair) => pair.join(inner)).join(outer);
}

/** The sign that a recipe makes. */
export function signOf(recipe: Recipe): string {
  const { key, hash, before, after, body, encode } = recipe;
  const digest = key === undefined ? createHash(hash) : createHmac(hash, key);
  digest.update(before + signedText(recipe)).update(body).update(after);
  return encode(digest.digest());
}

export function toHex(digest: Buffer): string {
  return digest.toString("hex");
}

/** Parameters by name, as they are signed. */
export function sorted(pairs: readonly Pair[]): Pair[] {
  return pairs.toSorted(([a], [b]) => a < b ? -1 : Number(a > b));
}

// === The table

const EXACT = "sign the very bytes that are sent";

export const MISTAKES: readonly Mistake[] = [
  {
    name: "body-not-signed",
    part: "body",
    text: "The body was not signed: append its exact bytes to the parameters",
    tries: () => [{ body: "" }],
  },
  {
    name: "body-reserialised",
    part: "body",
    text: `Another text of the same JSON was signed: ${EXACT}`,
    tries: (_, { body }) => jsonTexts(body).map((text) => ({ body: text })),
  },
  {
    name: "multipart-signed",
    part: "body",
    text:
      "The multipart body was signed: with multipart/form-data sign no body",
    tries: (_, { isMultipart, body }) => isMultipart ? [{ body }] : [],
  },
  {
    name: "body-not-sent",
    part: "body",
    text: `A body was signed that was not sent: ${EXACT}`,
    tries: (_, { body }) =>
      body.length > 0
        ? []
        : ["{}", "null", "[]", '""', "undefined"].map((body) => ({ body })),
  },
  {
    name: "body-in-parameters",
    part: "body",
    text: "The members of the body were signed as parameters: " +
      "append the body's exact bytes behind the parameters",
    tries: ({ pairs }, { body }) => {
      const pairLists = memberPairs(body);
      return pairLists.map((more) => ({
        pairs: sorted([...pairs, ...more]),
        body: "",
      }));
    },
  },
  {
    name: "not-sorted",
    part: "parameters",
    text: "The parameters were not sorted: sort them by name, in the order " +
      "of the bytes",
    tries: ({ pairs }, { sent }) => {
      const isSigned = ([name]: Pair) => pairs.some(([one]) => one === name);
      const byLetters = pairs.toSorted(([a], [b]) => {
        const [one, other] = [a.toLowerCase(), b.toLowerCase()];
        return one < other ? -1 : Number(one > other);
      });
      const asSent = sent.filter(isSigned);
      return [asSent, byLetters, pairs.toReversed()]
        .map((pairs) => ({ pairs }));
    },
  },
  {
    name: "sign-included",
    part: "parameters",
    text: "The parameter sign was signed itself: leave it out",
    tries: ({ pairs }) =>
      ["", "undefined", "null", "None"].map((value) => ({
        pairs: sorted([...pairs, ["sign", value]]),
      })),
  },
  {
    name: "access-token-included",
    part: "parameters",
    text: "The access token was signed: leave access_token out",
    tries: ({ pairs }, { sent, token }) => {
      const [, inQuery] = sent.find(([name]) => name === "access_token") ?? [];
      const tokens = [inQuery, token].filter((one) => one !== undefined);
      return tokens.flatMap((token) =>
        ["access_token", "x-tts-access-token"].map((name) => ({
          pairs: sorted([...pairs, [name, token]]),
        }))
      );
    },
  },
  {
    name: "values-encoded",
    part: "parameters",
    text: "The values were signed as the URL encodes them: sign them decoded",
    tries: ({ pairs }) =>
      ENCODERS.map((encode) => ({
        pairs: pairs.map(([name, value]) => [name, encode(value)] as const),
      })),
  },
  {
    name: "separators-signed",
    part: "parameters",
    text: 'The parameters were joined with "=" or "&": join names and values ' +
      "with nothing between",
    tries: () =>
      ([["=", "&"], ["=", ""], ["", "&"], ["=", ","], [":", ""]] as const)
        .map((separators) => ({ separators })),
  },
  {
    name: "parameter-not-signed",
    part: "parameters",
    text:
      "Not every parameter was signed: sign all of the query but sign and " +
      "access_token",
    tries: ({ pairs }) =>
      [
        ...pairs.map(([left]) => pairs.filter(([name]) => name !== left)),
        pairs.filter(([, value]) => value !== ""),
        pairs.filter(([name]) => name === "app_key" || name === "timestamp"),
      ].map((pairs) => ({ pairs })),
  },
  {
    name: "parameter-not-sent",
    part: "parameters",
    text: "A parameter was signed that was not sent: send what is signed",
    tries: ({ pairs }, { ciphers, target }) => {
      const version = /\/(\d{6})\//.exec(target)?.[1] ?? "";
      const unsent: Pair[] = [
        ...["", ...ciphers].map((one) => ["shop_cipher", one] as const),
        ["version", version],
        ["shop_id", ""],
      ];
      return unsent.map((pair) => ({ pairs: sorted([...pairs, pair]) }));
    },
  },
  {
    name: "timestamp-in-ms",
    part: "parameters",
    text: "The timestamp was signed in milliseconds: send and sign seconds",
    tries: ({ pairs }) => withTimestamps(pairs, 1000, (time, n) => time + n),
    isAlone: true,
  },
  {
    name: "timestamp-differs",
    part: "parameters",
    text: "Another timestamp was signed than the one that was sent: read the " +
      "clock once",
    tries: ({ pairs }) =>
      withTimestamps(pairs, 61, (time, n) => time / 1000 + n - 30),
    isAlone: true,
  },
  {
    name: "host-in-path",
    part: "path",
    text: "The host was signed: sign the path alone",
    tries: ({ path }, { host }) =>
      [host, host.replace(/:\d+$/, ""), "open-api.tiktokglobalshop.com"]
        .flatMap((host) =>
          ["", "http://", "https://"].map((scheme) => ({
            path: scheme + host + path,
          }))
        ),
  },
  {
    name: "query-in-path",
    part: "path",
    text:
      "The query was signed with the path: sign the path alone, up to the ?",
    tries: ({ path }, { target }) => {
      const query = target.split("?")[1] ?? "";
      const unsigned = query.split("&").filter((pair) => !/^sign=/.test(pair));
      return [query, unsigned.join("&"), ""].map((query) => ({
        path: `${path}?${query}`,
      }));
    },
  },
  {
    name: "path-not-signed",
    part: "path",
    text: "The path was not signed: put it in front of the parameters",
    tries: () => [{ path: "" }],
  },
  {
    name: "path-changed",
    part: "path",
    text: "Another path was signed than the one that was sent: sign it as it " +
      "is sent, with its first slash and its version",
    tries: ({ path }) =>
      [
        path.slice(1),
        `${path}/`,
        path.replace(/\/$/, ""),
        decoded(path),
        path.toLowerCase(),
        path.replace(/\/\d{6}\//, "/"),
        path.replace(/.*\/\d{6}\//, "/"),
        `/api${path}`,
      ].map((path) => ({ path })),
  },
  {
    name: "method-signed",
    part: "path",
    text: "The method was signed: sign the path, then the parameters",
    tries: ({ path }, { method }) =>
      ["", " ", "\n"].map((gap) => ({ path: method + gap + path })),
  },
  {
    name: "secret-not-around",
    part: "secret",
    text: "The secret was not put around: put it before and after what is " +
      "signed, and key the HMAC with it too",
    tries: () => [{ before: "", after: "" }, { after: "" }, { before: "" }],
  },
  {
    name: "secret-not-key",
    part: "secret",
    text: "The HMAC was not keyed with the secret: it is the key too",
    tries: (_, { appKey, token }) =>
      ["", appKey, ...token ? [token] : []].map((key) => ({ key })),
  },
  {
    name: "another-secret",
    part: "secret",
    text: "It was made with another secret than this app's: copy the secret " +
      "that belongs to the app_key, without blanks around",
    tries: ({ key = "" }, { otherSecrets }) =>
      [...otherSecrets, ...miscopied(key)].map((secret) => ({
        key: secret,
        before: secret,
        after: secret,
      })),
  },
  {
    name: "no-hmac",
    part: "digest",
    text: "A plain hash was made: make an HMAC-SHA256, keyed with the secret",
    tries: () => [{ key: undefined }],
  },
  ...["sha1", "md5", "sha512"].map((hash): Mistake => ({
    name: hash,
    part: "digest",
    text: `The hash was ${hash.toUpperCase()}: make it SHA-256`,
    tries: () => [{ hash }],
  })),
  {
    name: "upper-case",
    part: "digest",
    text: "The sign was in upper-case hex: write it in lower case",
    tries: () => [{ encode: (digest) => toHex(digest).toUpperCase() }],
  },
  {
    name: "base64",
    part: "digest",
    text: "The sign was in base64: write it in lower-case hex",
    tries: () => [
      { encode: (digest) => digest.toString("base64") },
      { encode: (digest) => digest.toString("base64url") },
      { encode: (digest) => btoa(toHex(digest)) },
    ],
  },
];

// === What they try

const ENCODERS: readonly ((value: string) => string)[] = [
  encodeURIComponent,
  (value) => new URLSearchParams({ "": value }).toString().slice(1),
  (value) => encodeURI(value),
];

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function withTimestamps(
  pairs: readonly Pair[],
  count: number,
  timestamp: (ms: number, n: number) => number,
): { pairs: Pair[] }[] {
  const [, sent] = pairs.find(([name]) => name === "timestamp") ?? [];
  return Array.from({ length: count }, (_, n) => {
    const signed = String(timestamp(Number(sent) * 1000, n));
    return {
      pairs: pairs.map(([name, value]) =>
        [name, name === "timestamp" ? signed : value] as const
      ),
    };
  });
}

/** A secret as it is when it was not copied well. */
function miscopied(secret: string): string[] {
  const { length } = secret;
  return [
    ...["\n", "\r\n", " ", "\t"].flatMap((blank) => [
      secret + blank,
      blank + secret,
    ]),
    `"${secret}"`,
    `'${secret}'`,
    secret.toUpperCase(),
    secret.slice(1),
    secret.slice(0, length - 1),
  ];
}

/** The members of a JSON object as parameters, in two ways. */
function memberPairs(body: Buffer): Pair[][] {
  const value = parsed(body);
  if (typeof value !== "object" || value === null) return [];
  const texts = [String, (value: unknown) => JSON.stringify(value)];
  return texts.map((text) =>
    Object.entries(value).map(([name, value]) => [name, text(value)] as const)
  );
}

function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch {
    return undefined;
  }
}

const JSON_TOKEN = /("(?:[^"\\]|\\.)*")|\s+|[:,]/g;

/** The ways in which the libraries of some languages write the same JSON. */
function jsonTexts(body: Buffer): string[] {
  const value = parsed(body);
  if (value === undefined) return [];
  const text = body.toString();
  // Not parsed: large integers stay as they are.
  const between = (gap: string) =>
    text.replace(
      JSON_TOKEN,
      (token, quoted) => quoted ?? (token.trim() && token + gap),
    );
  const ordered = inOrder(value);
  const layouts = [
    between(""), // JavaScript, Go
    between(" "), // Python
    text.trim(),
    JSON.stringify(ordered),
    JSON.stringify(ordered).replace(
      JSON_TOKEN,
      (token, quoted) => quoted ?? `${token} `,
    ),
    JSON.stringify(value, null, 2),
    JSON.stringify(value, null, 4),
  ];
  const escapes: ((text: string) => string)[] = [
    (text) => text,
    ascii, // Python
    (text) => ascii(text).replaceAll("/", "\\/"), // PHP
    (text) => text.replaceAll("/", "\\/"),
    (text) => text.replace(/[<>&]/g, unicodeEscape), // Go
  ];
  const texts = escapes.flatMap((escape) => layouts.map(escape));
  return [...new Set([...texts, ...texts.map((text) => `${text}\n`)])];
}

/** The same value, the members of objects by name. */
function inOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inOrder);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1)
      .map(([name, member]) => [name, inOrder(member)]),
  );
}

function ascii(text: string): string {
  return text.replace(/[^\x20-\x7e\s]/g, unicodeEscape);
}

function unicodeEscape(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
