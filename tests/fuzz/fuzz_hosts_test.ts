/**
 * Token hosts that send anything: a generated table of statuses, headers,
 * bodies, encodings, lengths and damage. Each call ends in bounded time, with
 * tokens or with a `TikTokShopError` of the right kind, and tells no secret.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { inspect } from "node:util";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import {
  accessToken,
  callApi,
  type ErrorKind,
  exchangeCode,
  type HttpOptions,
  memoryStore,
  refreshTokens,
  startAuth,
  type StoredTokens,
  TikTokShopError,
} from "../../mod.ts";
import {
  type Ended,
  freePort,
  ON_DENO,
  runProgram,
} from "../support/helpers.ts";
import { howOften, note, Random, SEED, SOAKING } from "../support/fuzz.ts";
import {
  APP,
  type Host,
  type HostHandler,
  type HostRequest,
  REPLY,
  SERVICE_ID,
  withFolder,
  withHost,
} from "../support/token_host.ts";

const COUNT = howOften(300);
/** Many calls only wait before they try again. */
const LANES = SOAKING ? 200 : 60;
/**
 * Three retries, each after 2 s at most, on a busy machine; in a soak some
 * hosts never answer, and four calls take 30 s each.
 */
const TIME_LIMIT = SOAKING ? 150_000 : 120_000;

/** What all secrets have in them, however they are encoded. */
const READABLE = /Qz\w+Qz/;
const SECRETS = {
  appSecret: "S+/=%QzAppSecretQz",
  access: "GCP_QzAccessTokenQz",
  refresh: "GCP_QzRefreshTokenQz",
};
const LEAKY = { ...APP, appSecret: SECRETS.appSecret };

type Verdict = ErrorKind | "reply";

// === Bodies

const GOOD = {
  ...REPLY,
  data: {
    ...REPLY.data,
    access_token: SECRETS.access,
    refresh_token: SECRETS.refresh,
  },
};

/** A good reply with one member of `data` as it is written in JSON. */
function withMember(name: string, json: string): string {
  const { [name as "open_id"]: _, ...data } = GOOD.data;
  const rest = JSON.stringify(data).slice(1);
  return JSON.stringify({ ...GOOD, data: 0 })
    .replace('"data":0', `"data":{"${name}":${json},${rest}`);
}

/** Every type of JSON, and what some take for another. */
const VALUES = [
  ...["null", "true", "false", "0", "-1", "1.5", "1e3", "1e400", "-0"],
  ...["9007199254740993", "7495540735365777507", "18446744073709551616"],
  ...['""', '"0"', '"7495540735365777507"', '"NaN"', '"\\u0000\\u202e"'],
  ...["[]", "[null]", '["a"]', "{}", '{"toString":"x","valueOf":1}'],
  ...['{"__proto__":{"a":1}}', '{"constructor":{"prototype":{}}}'],
  ...['{"then":1}', '{"toJSON":"x"}', '{"length":-1}'],
];

const CODES = [
  ...[36004001, 36004004, 36004005, 36009033, 105001, 105002, 36009004],
  ...[1, -1, 2 ** 31, 12345678],
];

const MEMBERS = [...Object.keys(GOOD.data), "extra", "__proto__", "toJSON"];

type BodyMaker = (random: Random, request: HostRequest) => string | Uint8Array;

const BODIES: Record<string, BodyMaker> = {
  "a good reply": () => JSON.stringify(GOOD),
  "a refusal": (random) =>
    JSON.stringify({ ...GOOD, code: random.pick(CODES), message: "no" }),
  "a refusal that is worth a retry": (random) =>
    JSON.stringify({ code: random.pick([36009003, 36009007]), message: "no" }),
  "a refusal by IP": () =>
    JSON.stringify({ code: 9, message: "IP is not in the allow list" }),
  "an echo": (random, { target }) => {
    const message = random.pick([target, decodeURIComponent(target)]);
    return JSON.stringify({ code: 1, message, request_id: target });
  },
  "an echo as text": (_, { target }) => `No such path: ${target}`,
  "any code": (random) =>
    `{"code":${random.pick(VALUES)},"message":"x","data":{}}`,
  "any message": (random) =>
    `{"code":${random.pick(["0", "1"])},"message":${random.pick(VALUES)}}`,
  "any request id": (random) =>
    `{"code":1,"message":"x","request_id":${random.pick(VALUES)}}`,
  "any data": (random) => `{"code":0,"data":${random.pick(VALUES)}}`,
  "any token": (random) => withMember("access_token", random.pick(VALUES)),
  "any member": (random) =>
    withMember(random.pick(MEMBERS), random.pick(VALUES)),
  "members twice": (random) =>
    `{"code":${random.pick(CODES)},${JSON.stringify(GOOD).slice(1, -1)},` +
    `"data":${JSON.stringify(GOOD.data)}}`,
  "any JSON": (random) => random.pick(VALUES),
  "deep JSON": (random) => {
    const depth = random.pick([10, 1000, 100_000]);
    return `{"code":0,"data":${"[".repeat(depth)}${"]".repeat(depth)}}`;
  },
  "long text": (random) =>
    withMember(
      "seller_name",
      JSON.stringify("☃".repeat(random.below(300_000))),
    ),
  "a long number": (random) =>
    withMember("extra", "7".repeat(random.below(9e5))),
  "white space": (random) => {
    const size = random.pick([1 << 10, (1 << 20) - 2000, 1 << 20, 3 << 20]);
    return " ".repeat(size) + JSON.stringify(GOOD);
  },
  "half of it": (random) => {
    const text = JSON.stringify(GOOD);
    return text.slice(0, random.below(text.length));
  },
  "a mark before it": () => "\ufeff" + JSON.stringify(GOOD),
  "other text behind it": () => JSON.stringify(GOOD) + "{}",
  "UTF-16": () => Buffer.from(JSON.stringify(GOOD), "utf16le"),
  "broken UTF-8": () =>
    Buffer.from(withMember("seller_name", '"\xff\xc3"'), "latin1"),
  "a page": () => "<!doctype html><title>502</title><script>1</script>",
  "XML": () => "<?xml version='1.0'?><code>0</code>",
  "JSONP": () => `callback(${JSON.stringify(GOOD)})`,
  "nothing": () => "",
  "bytes": (random) => Buffer.from(random.bytes(random.below(5000)), "latin1"),
};

/** What a body means, judged without the library. */
function verdictOf(text: string): Verdict {
  // deno-lint-ignore no-explicit-any -- anything is what it is
  let value: any;
  try {
    value = JSON.parse(text);
  } catch {
    return "invalid_response";
  }
  const code = value?.code;
  const plain = typeof code === "number" || typeof code === "string";
  if (!plain || Array.isArray(value) || !/^-?\d+$/.test(`${code}`)) {
    return "invalid_response";
  }
  const gone = [36004001, 36004005, 105001, 36009005];
  if (Number(code) !== 0) {
    return gone.includes(Number(code)) ? "login_required" : "rejected";
  }
  const token = value.data?.access_token;
  const found = typeof token === "string" && token !== "";
  return found ? "reply" : "invalid_response";
}

// === How a body is sent

/** Bytes for the wire, and what a client may read in them. */
interface Sent {
  head: string[];
  body: Uint8Array;
  verdicts: Verdict[];
}

const BROKEN: Verdict[] = ["network", "invalid_response"];

/** A body, what it means, and by which coding. */
function coded(
  coding: string,
  body: Uint8Array,
  ...verdicts: Verdict[]
): Sent {
  return { head: [`Content-Encoding: ${coding}`], body, verdicts };
}

/** Content codings, right and wrong. */
const CODINGS: Record<string, (body: Uint8Array, own: Verdict) => Sent> = {
  "plain": (body, own) => ({ head: [], body, verdicts: [own] }),
  "gzip": (body, own) => coded("gzip", gzipSync(body), own),
  "br": (body, own) => coded("br", brotliCompressSync(body), own),
  // Not every client undoes it.
  "deflate": (body, own) => coded("deflate", deflateSync(body), own, ...BROKEN),
  "no gzip": (body) =>
    coded("gzip", Buffer.concat([Buffer.from("x"), body]), ...BROKEN),
  "half of gzip": (body, own) => {
    const whole = gzipSync(Buffer.concat([body, Buffer.from(" ")]));
    const half = whole.subarray(0, whole.length >> 1);
    return coded("gzip", half, own, ...BROKEN);
  },
  "a bomb": () => {
    BOMB ??= gzipSync(Buffer.alloc(64 << 20, " "));
    return coded("gzip", BOMB, ...BROKEN);
  },
  "an unknown coding": (body, own) => coded("x-rot13", body, own, ...BROKEN),
};

let BOMB: Uint8Array | undefined;

// Node's fetch may wait without end for what it cannot decode. The limit of
// 30 s ends that; a soak has the time to see it.
if (!ON_DENO && !SOAKING) delete CODINGS["no gzip"];

function decoded(body: Uint8Array): string {
  return new TextDecoder().decode(body);
}

function chunked(body: Uint8Array, random: Random): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < body.length;) {
    const size = 1 + random.below(body.length);
    const part = body.subarray(at, at += size);
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part);
    parts.push(Buffer.from("\r\n"));
  }
  return Buffer.concat([...parts, Buffer.from("0\r\n\r\n")]);
}

/** How the end of a body is told, right and wrong. */
const FRAMINGS: Record<string, (sent: Sent, random: Random) => Sent> = {
  "its length": (sent) => withHead(sent, `Content-Length: ${sent.body.length}`),
  "its end": (sent) => sent,
  "chunks": (sent, random) => ({
    ...withHead(sent, "Transfer-Encoding: chunked"),
    body: chunked(sent.body, random),
  }),
  "too great a length": (sent, random) => {
    const length = sent.body.length + 1 + random.below(9);
    return cutOff(withHead(sent, `Content-Length: ${length}`));
  },
  "too small a length": (sent, random) => {
    const length = random.below(sent.body.length + 1);
    const own = verdictOf(decoded(sent.body.subarray(0, length)));
    const verdicts = [own, ...sent.verdicts, ...BROKEN];
    return { ...withHead(sent, `Content-Length: ${length}`), verdicts };
  },
  "half of the chunks": (sent, random) => {
    const whole = chunked(sent.body, random);
    const body = whole.subarray(0, random.below(whole.length - 4));
    return cutOff({ ...withHead(sent, "Transfer-Encoding: chunked"), body });
  },
  "two lengths": (sent) => ({
    ...withHead(sent, "Content-Length: 5", "Content-Length: 6"),
    verdicts: BROKEN,
  }),
  "length and chunks": (sent, random) => ({
    ...withHead(sent, "Content-Length: 5", "Transfer-Encoding: chunked"),
    body: chunked(sent.body, random),
    verdicts: [...sent.verdicts, ...BROKEN],
  }),
  "no number": (sent, random) => ({
    ...withHead(
      sent,
      `Content-Length: ${random.pick(["-1", "x", "0x10", "9e9"])}`,
    ),
    verdicts: BROKEN,
  }),
};

/** Ends too early; a decoder may have all the text before it notices. */
function cutOff(sent: Sent): Sent {
  const isCoded = sent.head.some((line) => line.startsWith("Content-Enc"));
  const verdicts: Verdict[] = isCoded
    ? [...sent.verdicts, ...BROKEN]
    : ["network"];
  return { ...sent, verdicts };
}

function withHead(sent: Sent, ...head: string[]): Sent {
  return { ...sent, head: [...sent.head, ...head] };
}

const STATUSES = [
  ...Array.from({ length: 400 }, (_, i) => 200 + i),
  // Statuses that mean something come more often.
  ...[200, 200, 200, 400, 401, 403, 404, 429, 500, 502, 503].flatMap((status) =>
    Array.from({ length: 40 }, () => status)
  ),
];

/** Statuses that each client treats in its own way. */
const ODD_STATUSES = [101, 204, 205, 304, 407, 421];

const TYPES = [
  ...["application/json", "application/json; charset=utf-16", "text/html"],
  ...["text/plain;charset=latin1", "image/png", "multipart/x; boundary=a"],
  ...["", "\xff", "application/json, text/html", "x".repeat(5000)],
];

const HEADERS: ((random: Random, request: HostRequest) => string)[] = [
  () => "X: y",
  (random) =>
    `Retry-After: ${random.pick(["0", "-1", "0.5", "61", "9e99", "x"])}`,
  (random) => `Retry-After: ${"9".repeat(1 + random.below(400))}`,
  () => "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT",
  (random) =>
    `Date: ${random.pick(["x", "0", "Thu, 01 Jan 9999 00:00:00 GMT"])}`,
  (_, { target }) => `Location: ${target}`,
  () => "Location: http://127.0.0.1:1/stolen",
  (_, { target }) => `Set-Cookie: a=${encodeURIComponent(target)}`,
  (_, { target }) => `X-Echo: ${target}`,
  (random) => `X-Long: ${"x".repeat(random.below(10_000))}`,
  () => "Content-Language: \x80\x81",
  () => "Refresh: 0; url=http://127.0.0.1:1/stolen",
];

// === Answers

/** One answer of the table. */
interface Planned {
  name: string;
  bytes: Uint8Array;
  verdicts: Verdict[];
  pace: "at once" | "in pieces" | "left open" | "never";
}

/**
 * With more bytes Node's fetch dies, if the connection ends before it has read
 * them: see `PLAIN_BODY` in mod.ts.
 */
const MOST_AT_ONCE = ON_DENO ? Infinity : 60_000;

/** What ends a connection instead of an answer. */
const WIRE: Record<string, (random: Random, whole: Buffer) => Uint8Array> = {
  "no bytes": () => new Uint8Array(),
  "a part of the head": (random, whole) =>
    whole.subarray(0, random.below(whole.indexOf("\r\n\r\n"))),
  "bytes": (random) =>
    Buffer.from(random.bytes(1 + random.below(300)), "latin1"),
  "TLS": () => Buffer.from("\x15\x03\x03\0\x02\x02\x28", "latin1"),
  "HTTP/2": () => Buffer.from("\0\0\x12\x04\0\0\0\0\0", "latin1"),
  "HTTP/0.9": (_, whole) => whole.subarray(whole.indexOf("\r\n\r\n") + 4),
  "a status that is none": (random) =>
    Buffer.from(
      `HTTP/1.1 ${random.pick(["0", "99", "1000", "abc", ""])} X\r\n\r\n`,
    ),
  "a header that is none": () =>
    Buffer.from("HTTP/1.1 200 OK\r\nno colon\r\n: x\r\n\r\n{}"),
  "zeros in the head": () => Buffer.from("HTTP/1.1 200 \0\r\nA\0: b\r\n\r\n{}"),
  "a huge head": () =>
    Buffer.from(`HTTP/1.1 200 OK\r\nX: ${"x".repeat(900_000)}\r\n\r\n{}`),
};

/** The nth answer of this seed, the same at every try. */
function plan(index: number, request: HostRequest): Planned {
  const random = new Random(SEED * 1_000_003 + index);
  const turn = <T>(table: Record<string, T>, often: number): [string, T] => {
    // Every entry has its turn; the first, which does no harm, more often.
    const entries = Object.entries(table);
    return random.below(100) < often ? entries[0]! : random.pick(entries);
  };
  const [bodyName, make] = Object.entries(BODIES)[
    index % Object.keys(BODIES).length
  ]!;
  const text = make(random, request);
  const body = typeof text === "string" ? Buffer.from(text) : text;
  const [codingName, encode] = turn(CODINGS, 60);
  const [framingName, frame] = turn(FRAMINGS, 60);
  const drawn = random.pick(STATUSES);
  // Node's fetch dies of a large 407, however it is sent.
  const status = drawn === 407 && body.length > MOST_AT_ONCE ? 408 : drawn;
  const made = frame(encode(body, verdictOf(decoded(body))), random);
  const name = [bodyName, codingName, framingName, status].join(", ");
  const whole = wholeAnswer(status, made, random, request);
  if (random.oneIn(12)) {
    const [wireName, spoil] = random.pick(Object.entries(WIRE));
    const bytes = spoil(random, whole);
    return { name: wireName, bytes, verdicts: BROKEN, pace: "at once" };
  }
  const odd = ODD_STATUSES.includes(status) ? BROKEN : [];
  // Node takes a head of 16 KiB.
  const long = whole.indexOf("\r\n\r\n") > 16_000 ? BROKEN : [];
  // A body over the limit is refused, whatever it means.
  const large = body.length > 1 << 20;
  const verdicts = large ? BROKEN : [...made.verdicts, ...odd, ...long];
  if (SOAKING && random.oneIn(500)) {
    return { name, bytes: whole, verdicts: ["network"], pace: "never" };
  }
  const pace = random.oneIn(8) ? "in pieces" : "at once";
  const isFatal = whole.length > MOST_AT_ONCE;
  return { name, bytes: whole, verdicts, pace: isFatal ? "left open" : pace };
}

function wholeAnswer(
  status: number,
  sent: Sent,
  random: Random,
  request: HostRequest,
): Buffer {
  const more = Array.from(
    { length: random.below(4) },
    () => random.pick(HEADERS)(random, request),
  );
  const type = `Content-Type: ${random.pick(TYPES)}`;
  const lines = [`HTTP/1.1 ${status} Answer`, type, ...sent.head, ...more];
  const head = `${lines.join("\r\n")}\r\nConnection: close\r\n\r\n`;
  return Buffer.concat([Buffer.from(head, "latin1"), sent.body]);
}

/** Marks a request with the number of its answer. */
const marked = (index: number) => `ROW_QzAnswer${index}nQz+/=`;

function numberOf({ target }: HostRequest): number {
  const [, index] = /Answer(\d+)n/.exec(target) ?? [];
  assert.ok(index, `a request that nobody made: ${target}`);
  return Number(index);
}

/** What was sent last by each answer's number, without its bytes. */
const sent = new Map<number, Omit<Planned, "bytes">>();

const sendPlanned: HostHandler = (request, _, socket) => {
  const index = numberOf(request);
  const { bytes, ...rest } = plan(index, request);
  sent.set(index, rest);
  const { pace } = rest;
  if (pace === "at once") return bytes;
  if (pace === "never") return;
  if (pace === "left open") {
    socket.write(bytes);
    return void setTimeout(() => socket.end(), 1000);
  }
  void (async () => {
    const size = Math.ceil(bytes.length / 4) || 1;
    for (let at = 0; at < bytes.length; at += size) {
      socket.write(bytes.subarray(at, at + size));
      await delay(5);
    }
    socket.end();
  })();
};

// === Calls

/** Every way in which an answer comes in. Resolves to what a page told. */
type Call = (
  index: number,
  host: Host,
  options: HttpOptions,
) => Promise<unknown>;

const CALLS: Record<string, Call> = {
  "exchangeCode()": (index, host, options) =>
    exchangeCode(LEAKY, marked(index), { ...host, ...options }),
  "refreshTokens()": (index, host, options) =>
    refreshTokens(LEAKY, marked(index), { ...host, ...options }),
  "accessToken()": async (index, host, options) => {
    const { store, kept } = await expiredStore(index);
    const asked = { ...LEAKY, ...host, ...options, store };
    try {
      return await accessToken(asked);
    } catch (error) {
      // An error never deletes a token.
      assert.deepEqual(await store.load("default"), kept);
      throw error;
    }
  },
  "callApi()": async (index, host, options) => {
    const { store } = await expiredStore(index, 3600);
    const asked = { ...LEAKY, ...host, ...options, store };
    const path = `/order/202309/Answer${index}n`; // a path is no secret
    return await callApi({ path }, { ...asked, apiEndpoint: host.origin });
  },
  "startAuth()": logIn,
};

async function expiredStore(index: number, left = -60) {
  const store = memoryStore();
  const kept: StoredTokens = {
    ...GOOD,
    data: {
      ...GOOD.data,
      refresh_token: marked(index),
      access_token_expire_in: Math.floor(Date.now() / 1000) + left,
    },
    meta: { app_key: APP.appKey },
  };
  await store.save("default", kept);
  return { store, kept: await store.load("default") };
}

/** A whole login; its page, too, must not tell a secret. */
async function logIn(index: number, host: Host, options: HttpOptions) {
  const port = await freePort();
  const where = { port, serviceId: SERVICE_ID, host: "localhost" as const };
  const tokenEndpoint = host.tokenEndpoint;
  const flow = await startAuth({
    ...LEAKY,
    ...options,
    ...where,
    tokenEndpoint,
  });
  const redirect = new URL(flow.redirectUrl);
  redirect.searchParams.set("code", marked(index));
  const state = new URL(flow.url).searchParams.get("state")!;
  redirect.searchParams.set("state", state);
  try {
    const answer = await fetch(redirect);
    const page = await answer.text();
    assert.doesNotMatch(page, READABLE);
    assert.ok(!page.includes(state));
    return await flow.reply;
  } finally {
    await flow[Symbol.asyncDispose]();
  }
}

/** The verdicts that a call allows: the API's reply needs no token. */
function allowed(
  call: string,
  { verdicts }: Pick<Planned, "verdicts">,
): Verdict[] {
  if (call !== "callApi()" || !verdicts.includes("invalid_response")) {
    return verdicts;
  }
  return [...verdicts, "reply"];
}

/** An error as the most talkative logger would print it. */
function printed(error: Error): string {
  const cause = error.cause instanceof Error ? printed(error.cause) : "";
  return [
    error.message,
    error.stack,
    inspect(error, { depth: Infinity, showHidden: true }),
    JSON.stringify(error),
    cause,
  ].join("\n");
}

/** Makes one call and says what is wrong with how it ended, if something is. */
async function complaint(
  call: string,
  index: number,
  host: Host,
): Promise<string | undefined> {
  const traces: string[] = [];
  const onTrace = (line: string) => void traces.push(line);
  const began = performance.now();
  const end = await CALLS[call]!(index, host, { onTrace })
    .then(() => "reply" as const, (error: unknown) => error);
  const took = performance.now() - began;
  if (took > TIME_LIMIT) return `took ${took} ms`;
  const known = end === "reply" || end instanceof TikTokShopError;
  if (!known) return `not a TikTokShopError: ${inspect(end)}`.slice(0, 500);
  const told = end === "reply" ? "" : printed(end) + end.hint;
  const secret = READABLE.exec(told + traces.join("\n"));
  if (secret) return `told ${secret[0]}: ${told}`.slice(0, 1000);
  const planned = sent.get(index);
  if (!planned) return `made no request: ${told}`.slice(0, 500);
  const wanted = allowed(call, planned);
  const kind = end === "reply" ? end : end.kind;
  if (wanted.includes(kind)) return undefined;
  const [line] = told.split("\n");
  return `${kind} in place of ${wanted.join(" or ")}: ${line}`;
}

/** Works through the table, many calls at a time. */
async function walkTable(host: Host): Promise<string[]> {
  const wrong: string[] = [];
  const calls = Object.keys(CALLS);
  let next = 0;
  const lane = async () => {
    while (next < COUNT) {
      const index = next++;
      const call = calls[Math.floor(index / 7) % calls.length]!;
      const problem = await complaint(call, index, host);
      if (!problem) continue;
      const name = sent.get(index)?.name;
      wrong.push(`${call}, answer ${index} (${name}): ${problem}`);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return wrong;
}

test(`${COUNT} random answers of a host are errors of the right kind, seed ${SEED}`, () =>
  withHost(sendPlanned, async (host) => {
    const began = performance.now();
    assert.deepEqual(await walkTable(host), []);
    note("random answers of hosts", COUNT);
    note("requests that they got", host.requests.length);
    note("seconds", Math.round((performance.now() - began) / 1000));
  }));

// === The program

const EXIT_CODES: Partial<Record<Verdict, number>> = {
  reply: 0,
  login_required: 5,
  rejected: 6,
};

/** What a run of the program may never show, whatever a host sends. */
function assertQuiet({ code, stdout, stderr }: Ended, wanted: number[]): void {
  assert.ok(wanted.includes(code!), `${code}, not ${wanted}: ${stderr}`);
  assert.doesNotMatch(stderr.replace(/^http\S+$/gm, ""), READABLE);
  assert.doesNotMatch(stderr, /uncaught|unhandled|^\s+at /im);
  // deno-lint-ignore no-control-regex -- these are what is looked for
  assert.doesNotMatch(stderr, /[\0-\x09\x0b-\x1f\x7f-\x9f\u200b-\u202e]/);
  if (code === 0) JSON.parse(stdout);
  else assert.equal(stdout, "");
}

async function programEnv(folder: string, host: Host) {
  await writeFile(join(folder, ".env"), "");
  return {
    HOME: folder,
    TIKTOK_SHOP_HOME: folder,
    TIKTOK_SHOP_APP_KEY: APP.appKey,
    TIKTOK_SHOP_APP_SECRET: SECRETS.appSecret,
    TIKTOK_SHOP_SERVICE_ID: SERVICE_ID,
    TIKTOK_SHOP_TOKEN_ENDPOINT: host.tokenEndpoint,
    TIKTOK_SHOP_REFRESH_ENDPOINT: host.refreshEndpoint,
  };
}

/** A refresh by the program, of a profile whose token has expired. */
async function refreshByProgram(index: number, host: Host): Promise<Ended> {
  return await withFolder(async (folder) => {
    const data = { ...GOOD.data, refresh_token: marked(index) };
    const kept = JSON.stringify({ ...GOOD, data });
    await writeFile(join(folder, "default.json"), kept);
    const env = await programEnv(folder, host);
    return await runProgram(["refresh", "--verbose"], { env });
  });
}

/** A login by the program, in two steps. */
async function logInByProgram(index: number, host: Host): Promise<Ended> {
  return await withFolder(async (folder) => {
    const env = await programEnv(folder, host);
    const { stdout } = await runProgram(["login", "--start"], { env });
    const link = new URL(JSON.parse(stdout).authorize_url);
    const query = new URLSearchParams({
      code: marked(index),
      state: link.searchParams.get("state")!,
    });
    const args = ["login", "--verbose", "--complete", `?${query}`];
    return await runProgram(args, { env });
  });
}

async function checkProgram(index: number, host: Host): Promise<void> {
  const run = index % 2 ? refreshByProgram : logInByProgram;
  const ended = await run(index, host);
  const { name, verdicts } = sent.get(index)!;
  try {
    assertQuiet(ended, verdicts.map((each) => EXIT_CODES[each] ?? 1));
  } catch (error) {
    throw new Error(`Answer ${index} (${name})`, { cause: error });
  }
}

const RUNS = SOAKING ? Math.ceil(COUNT / 50) : 20;

test(`The program survives ${RUNS} random answers, seed ${SEED}`, () =>
  withHost(sendPlanned, async (host) => {
    let next = COUNT; // others than those above
    const lane = async () => {
      while (next < COUNT + RUNS) await checkProgram(next++, host);
    };
    await Promise.all(Array.from({ length: 6 }, lane));
    note("runs of the program at such hosts", RUNS);
  }));
