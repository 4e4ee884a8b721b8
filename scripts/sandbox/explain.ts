/**
 * Judges a signature and explains a refused one: which of the usual mistakes
 * makes the sign that was sent, else where the string to sign differs, if the
 * client tells it.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { type Call, sameText } from "./data.ts";
import {
  type Facts,
  type Mistake,
  MISTAKES,
  type Recipe,
  signedText,
  signOf,
  sorted,
  toHex,
} from "./mistakes.ts";
import type { SandboxExplanation } from "./types.ts";

/** What the sandbox knows beside the call. */
export type Known = Pick<Facts, "appKey" | "otherSecrets" | "ciphers">;

/** A call's signature judged: let pass, perhaps with a remark, or refused. */
export interface Judgement {
  readonly isRight: boolean;
  /** What was let pass. */
  readonly note?: string;
}

/** Larger bodies are tried with one mistake at a time. */
const COMBINED_BODY = 16 * 1024; // bytes
/** Larger bodies are not tried at all. */
const TRIED_BODY = 1024 * 1024; // bytes
/** What one mistake may hash in all its tries. */
const TRIED_BYTES = 8 * 1024 * 1024;
const LIKELY_TRIES = 8;
const SHOWN = 400; // characters of the string to sign

// === Judging

/**
 * Whether a sign is right. What TikTok does with a GET's body and with a body
 * of `{}` is not known, and its own samples differ: both ways are accepted.
 */
export function judgeSign(call: Call, secret: string): Judgement {
  const recipe = recipeOf(call, secret);
  const isMade = (recipe: Recipe) =>
    sameText(call.query.get("sign") ?? "", signOf(recipe));
  const unsigned = { ...recipe, body: "" };
  if (call.method === "GET" && recipe.body.length > 0) {
    const isRight = isMade(recipe) || isMade(unsigned);
    const way = isMade(recipe) ? "signed" : "not signed";
    const note = `the body of a GET is accepted signed or not, here ${way}`;
    return isRight ? { isRight, note } : { isRight };
  }
  if (isMade(recipe)) return { isRight: true };
  const isEmpty = call.bytes.length < 9 && /^\s*\{\}\s*$/.test(`${call.bytes}`);
  if (!isEmpty || !isMade(unsigned)) return { isRight: false };
  return { isRight: true, note: "the body {} is accepted, though not signed" };
}

/** Signs as the official guide does; its vectors are in the tests. */
function recipeOf(call: Call, secret: string): Recipe {
  const pairs = [...call.query]
    .filter(([name]) => name !== "sign" && name !== "access_token");
  return {
    path: call.target.split("?")[0]!,
    pairs: sorted(pairs),
    separators: ["", ""],
    body: isMultipart(call) ? "" : call.bytes,
    before: secret,
    after: secret,
    key: secret,
    hash: "sha256",
    encode: toHex,
  };
}

function isMultipart({ headers }: Call): boolean {
  return /^multipart\/form-data/i.test(headers["content-type"] ?? "");
}

// === Explaining

/** Why a call's sign is refused. Pure; no secret is in it. */
export function explainSignature(
  call: Call,
  secret: string,
  known: Known,
): SandboxExplanation {
  const recipe = recipeOf(call, secret);
  const facts = factsOf(call, known);
  const hide = (text: string) => mask(text, [secret, facts.token]);
  const stringToSign = cut(hide(maskedText(recipe)));
  // A "+" of base64 that was not encoded comes as a blank.
  const sign = (call.query.get("sign") ?? "").replaceAll(" ", "+");
  const isTried = call.bytes.length <= TRIED_BODY;
  const found = isTried ? findMistakes(recipe, facts, sign) : undefined;
  if (found) {
    const { mistakes, made } = found;
    return {
      mistakes: mistakes.map(({ name }) => name),
      text: mistakes.map(({ text }) => text).join("; "),
      signed: cut(hide(maskedText(made))),
      stringToSign,
    };
  }
  const told = call.headers["x-sandbox-string-to-sign"];
  if (told === undefined) {
    const text = isTried ? UNKNOWN : TOO_LARGE;
    return { mistakes: [], text, stringToSign };
  }
  const foreign = foreignSecret(recipe, told);
  return foreign !== undefined && signOf(withSecret(recipe, foreign)) === sign
    ? { ...explanationOf("another-secret"), stringToSign }
    : { mistakes: [], text: differenceText(recipe, told, hide), stringToSign };
}

/** Why a timestamp is refused, where the reason is a usual one. */
export function explainTimestamp(call: Call): SandboxExplanation | undefined {
  const isInMs = /^\d{13}$/.test(call.query.get("timestamp") ?? "");
  return isInMs ? explanationOf("timestamp-in-ms") : undefined;
}

function explanationOf(name: string): SandboxExplanation {
  const { text } = MISTAKES.find((mistake) => mistake.name === name)!;
  return { mistakes: [name], text, stringToSign: "" };
}

const UNKNOWN = "No usual mistake makes this sign. Most likely the secret is " +
  "another app's. To learn where it differs, send the string that you sign, " +
  "percent-encoded, in the header x-sandbox-string-to-sign";

const TOO_LARGE = "The body is too large to try the usual mistakes: sign a " +
  "small one to learn which it is";

function factsOf(call: Call, known: Known): Facts {
  const { method, target, headers, bytes } = call;
  return {
    ...{ method, target, body: bytes },
    host: headers.host ?? "",
    sent: [...call.query],
    isMultipart: isMultipart(call),
    token: headers["x-tts-access-token"],
    ...known,
  };
}

/** Mistakes that make a sign, and the recipe they lead to. */
interface Found {
  readonly mistakes: readonly Mistake[];
  readonly made: Recipe;
}

/** The one mistake that makes the sign, else the two. */
function findMistakes(
  recipe: Recipe,
  facts: Facts,
  sign: string,
): Found | undefined {
  const makes = (recipe: Recipe) => signOf(recipe) === sign;
  const most = Math.floor(TRIED_BYTES / (facts.body.length + 1));
  for (const mistake of MISTAKES) {
    const made = changedBy(mistake, recipe, facts, most).find(makes);
    if (made) return { mistakes: [mistake], made };
  }
  if (facts.body.length > COMBINED_BODY) return undefined;
  return findTwoMistakes(recipe, facts, makes);
}

/** Only the likeliest tries of each: all would take half a second. */
function findTwoMistakes(
  recipe: Recipe,
  facts: Facts,
  makes: (recipe: Recipe) => boolean,
): Found | undefined {
  const likely = (mistake: Mistake, of: Recipe) =>
    changedBy(mistake, of, facts, LIKELY_TRIES);
  const combined = MISTAKES.filter((mistake) => !mistake.isAlone);
  for (const [index, first] of combined.entries()) {
    const others = combined.slice(index + 1)
      .filter((other) => other.part !== first.part);
    for (const changed of likely(first, recipe)) {
      for (const second of others) {
        const made = likely(second, changed).find(makes);
        if (made) return { mistakes: [first, second], made };
      }
    }
  }
  return undefined;
}

function changedBy(
  mistake: Mistake,
  recipe: Recipe,
  facts: Facts,
  most: number,
): Recipe[] {
  try {
    const changes = mistake.tries(recipe, facts).slice(0, most);
    return changes.map((change) => ({ ...recipe, ...change }));
  } catch {
    return []; // JSON that is nested too deep to be written again
  }
}

// === The first difference

/** Tells where the client's string to sign leaves the right one. */
function differenceText(
  recipe: Recipe,
  header: string,
  hide: (text: string) => string,
): string {
  const right = fullText(recipe);
  const [told = ""] = readingsOf(header).toSorted((a, b) =>
    commonLength(b, right) - commonLength(a, right)
  );
  if (told === right) return RIGHT_STRING;
  if (foreignSecret(recipe, header) !== undefined) return WRONG_SECRET;
  const [ours, theirs] = [hide(right), hide(told)];
  const at = commonLength(theirs, ours);
  const part = partAt(recipe, at);
  if (part === "secret") return WRONG_SECRET;
  const where = `The strings to sign differ in the ${part}, from character ` +
    `${at - MASK.length + 1} behind the first secret on`;
  if (part === "end") return `${where}: put the secret there, and no more`;
  const [rightPiece, toldPiece] = [ours, theirs].map((text) => {
    const excerpt = text.slice(at, at + EXCERPT);
    return hasPiece(excerpt, recipe.before) ? MASK : JSON.stringify(excerpt);
  });
  return `${where}: ${rightPiece} is right, ${toldPiece} was signed`;
}

const EXCERPT = 24; // characters
const RIGHT_STRING = "The string to sign is right, so the HMAC is not: make " +
  "an HMAC-SHA256, keyed with the app's secret, in lower-case hex";
const WRONG_SECRET = "The strings to sign differ in the secret: put that of " +
  "the app_key before and after the rest, and key the HMAC with it";

/** Whether a text has 8 characters in a row of the secret. */
function hasPiece(text: string, secret: string): boolean {
  return Array.from(text, (_, at) => text.slice(at, at + 8))
    .some((piece) => piece.length === 8 && secret.includes(piece));
}

/** Another secret around, where all between is right. */
function foreignSecret(recipe: Recipe, header: string): string | undefined {
  const middle = signedText(recipe) + bodyText(recipe);
  for (const told of readingsOf(header)) {
    const before = told.slice(0, Math.max(told.indexOf(middle), 0));
    const isOther = before !== "" && before !== recipe.before;
    if (isOther && told === before + middle + before) return before;
  }
  return undefined;
}

function withSecret(recipe: Recipe, secret: string): Recipe {
  return { ...recipe, before: secret, after: secret, key: secret };
}

/** What the character at this place of the masked string belongs to. */
function partAt(recipe: Recipe, at: number): string {
  const { path, pairs } = recipe;
  let end = MASK.length;
  if (at < end) return "secret";
  if (at < (end += path.length)) return "path";
  for (const [name, value] of pairs) {
    if (at < (end += name.length + value.length)) return `parameter ${name}`;
  }
  return at < end + bodyText(recipe).length ? "body" : "end";
}

/** A header has bytes; text in it is UTF-8, plain or percent-encoded. */
function readingsOf(header: string): string[] {
  const text = Buffer.from(header, "latin1").toString();
  try {
    return [text, decodeURIComponent(text)];
  } catch {
    return [text];
  }
}

function commonLength(one: string, other: string): number {
  let at = 0;
  while (at < one.length && one[at] === other[at]) at++;
  return at;
}

// === What is shown

const MASK = "***";

function mask(text: string, secrets: readonly (string | undefined)[]): string {
  return secrets.reduce<string>(
    (shown, secret) => secret ? shown.replaceAll(secret, MASK) : shown,
    text,
  );
}

/** All that a recipe signs. */
function fullText(recipe: Recipe): string {
  const { before, after } = recipe;
  return before + signedText(recipe) + bodyText(recipe) + after;
}

/** No header, and no line, has room for more of a body. */
function bodyText({ body }: Recipe): string {
  return (typeof body === "string" ? body : body.subarray(0, 1 << 16))
    .toString();
}

/** The same, its secrets hidden. */
function maskedText(recipe: Recipe): string {
  const [before, after] = [recipe.before, recipe.after]
    .map((secret) => secret && MASK) as [string, string];
  return fullText({ ...recipe, before, after });
}

function cut(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}...` : text;
}

/** An explanation as a header: printable ASCII. */
export function explanationHeader(explanation: SandboxExplanation): string {
  const { mistakes, text, signed, stringToSign } = explanation;
  const parts = [
    `${mistakes.join(" + ") || "unknown"}: ${text}`,
    ...signed ? [`Was signed: ${signed}`] : [],
    ...stringToSign ? [`Should be: ${stringToSign}`] : [],
  ];
  return parts.join(". ").replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
