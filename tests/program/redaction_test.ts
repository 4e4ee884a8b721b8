import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  exchangeCode,
  login,
  memoryStore,
  refreshTokens,
  startAuth,
  type StartAuthOptions,
  TikTokShopError,
} from "../../mod.ts";
import { freePort } from "../support/helpers.ts";
import {
  answer,
  APP,
  failure,
  type HostHandler,
  type HostRequest,
  refusal,
  REPLY,
  SERVICE_ID,
  withHost,
  withSandbox,
} from "../support/token_host.ts";
import { cpuTime } from "../support/timing.ts";

// === Helpers

// Each secret has characters that URLs and JSON escape, around letters that
// nothing escapes: where those letters are found, the secret can be read.
const SECRETS = {
  app_secret: `S+/=%"\\'~!(*)QzAppSecretQz&x`,
  auth_code: `ROW_c+/==%2F"\\QzAuthCodeQz#?☃&y`,
  refresh_token: `GCP_r+/==%2F"QzRefreshTokenQz😀&z`,
  access_token: "GCP_QzAccessTokenQz",
};
const READABLE = /Qz\w+Qz/i;

const LEAKY = { ...APP, appSecret: SECRETS.app_secret };
const CODE = SECRETS.auth_code;

/** An error as the most talkative logger would print it. */
function printed(error: unknown): string {
  const { message, stack, hint, requestId } = error as TikTokShopError;
  return [
    message,
    stack,
    hint,
    requestId,
    inspect(error, { showHidden: false, depth: Infinity }),
    JSON.stringify(error),
    ...causes(error).flatMap((cause) => [cause.message, cause.stack]),
  ].join("\n");
}

function causes(error: unknown): Error[] {
  const { cause } = error as Error;
  return cause instanceof Error ? [cause, ...causes(cause)] : [];
}

function assertSecretFree(text: string, row = ""): void {
  assert.doesNotMatch(text, READABLE, row);
}

/** A failing exchange, and all that is told of it. */
async function tellsOf(
  tokenEndpoint: string,
  options: { fetch?: typeof fetch } = {},
): Promise<{ error: TikTokShopError; text: string }> {
  const lines: string[] = [];
  const onTrace = (line: string) => void lines.push(line);
  const error = await failure(
    exchangeCode(LEAKY, CODE, { ...options, tokenEndpoint, onTrace }),
  );
  assert.ok(lines.length > 0);
  return { error, text: [printed(error), ...lines].join("\n") };
}

// === What a host repeats

const json = (text: string) => JSON.stringify(text).slice(1, -1);
const lower = (text: string) =>
  text.replace(/%[0-9A-F]{2}/g, (hex) => hex.toLowerCase());

/** The ways in which a host may write what it was sent. */
const SPELLINGS: Record<string, (text: string) => string> = {
  "as it is": (text) => text,
  "in capitals": (text) => text.toUpperCase(),
  "percent-encoded": encodeURIComponent,
  "percent-encoded in lower case": (text) => lower(encodeURIComponent(text)),
  "percent-encoded twice": (text) =>
    encodeURIComponent(encodeURIComponent(text)),
  "as a URL": encodeURI,
  "as a form": (text) => `${new URLSearchParams({ "": text })}`.slice(1),
  "in JSON": json,
  "in JSON with escaped slashes": (text) => json(text).replaceAll("/", "\\/"),
  "in ASCII JSON": (text) =>
    text.replace(
      /[^\w %]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
    ),
  "in JSON in JSON": (text) => json(json(text)),
};

/** All that a request tells: its URL, its pieces, JSON of them. */
function pieces({ target, query }: HostRequest): string[] {
  const url = `http://host${target}`;
  const values = [...query].map(([, value]) => value);
  const members = JSON.stringify(Object.fromEntries(query));
  return [url, members, ...values, inspect(Object.fromEntries(query))];
}

/** Places of an answer that a text can be in. */
const PLACES: Record<string, (text: string) => ReturnType<HostHandler>> = {
  "the message": (text) => refusal(36009004, text),
  "the message of a code it knows": (text) => refusal(36004004, text),
  "the request id": (text) =>
    answer({ code: 36009004, message: "", request_id: text }),
  "the request id of a reply without tokens": (text) =>
    answer({ ...REPLY, data: {}, request_id: text }),
  "a body that is not JSON": (text) => answer(text),
  "the code": (text) => answer({ ...REPLY, code: text }),
  "a member": (text) => answer({ ...REPLY, data: { [text]: text } }),
};

for (const [place, write] of Object.entries(PLACES)) {
  test(`A secret that a host repeats in ${place} is hidden`, async () => {
    for (const [name, spell] of Object.entries(SPELLINGS)) {
      let part = 0;
      let parts = 1;
      await withHost((request) => {
        const all = pieces(request);
        parts = all.length;
        return write(`oops ${spell(all[part]!)} oops`);
      }, async ({ tokenEndpoint }) => {
        for (; part < parts; part++) {
          const { text } = await tellsOf(tokenEndpoint);
          assertSecretFree(text, `${name}, piece ${part}`);
        }
      });
    }
  });
}

/** Headers, which hold only a part of all characters. */
const HEADERS = ["content-type", "location", "retry-after", "date", "x-echo"];

for (const header of HEADERS) {
  test(`A secret that a host repeats in ${header} is hidden`, async () => {
    for (const spelling of ["percent-encoded", "as a form"]) {
      const spell = SPELLINGS[spelling]!;
      const echo: HostHandler = ({ query, target }, i) => {
        const all = [CODE, LEAKY.appSecret].map(spell);
        const text = [target, ...all, `x;${all}`][i] ?? `${query}`;
        const status = header === "location" ? 302 : 200;
        return answer("<h1>", { status, headers: { [header]: text } });
      };
      await withHost(echo, async ({ tokenEndpoint }) => {
        for (let i = 0; i < 5; i++) {
          const { text } = await tellsOf(tokenEndpoint);
          assertSecretFree(text, `${spelling} ${i}`);
        }
      });
    }
  });
}

test("No part of a secret is left where a text is cut", async () => {
  for (let length = 0; length < 120; length += 7) {
    const text = " ".repeat(length) + LEAKY.appSecret + CODE;
    const id = { code: 1, message: "", request_id: `${text}` };
    for (const bytes of [answer(id), refusal(1, `${" ".repeat(200)}${text}`)]) {
      await withHost(() => bytes, async ({ tokenEndpoint }) => {
        const { error } = await tellsOf(tokenEndpoint);
        assert.doesNotMatch(printed(error), /Qz|ROW_c/);
      });
    }
  }
});

test("A secret that contains another one is hidden", () =>
  withHost(
    ({ query }) => refusal(1, `${query.get("auth_code")}`),
    async (host) => {
      const code = `QzHead${APP.appSecret}TailQz`;
      const error = await failure(exchangeCode(APP, code, host));
      assert.match(error.message, /"\*\*\*"/);
      assert.doesNotMatch(printed(error), /Head|Tail/);
    },
  ));

test("A secret that a host makes up under a known name is hidden", async () => {
  const echoes = [
    "GET /x?app_key=1&access_token=QzMadeUpQz&sign=QzMadeUpQz failed",
    'got {"access_token":"QzMadeUpQz","refresh_token": "QzMadeUpQz"}',
    'got {\\"access_token\\":\\"QzMadeUpQz\\"}',
    "x-tts-access-token: QzMadeUpQz",
    "Authorization: Bearer QzMadeUpQz",
    "u=http%3A%2F%2Fh%2F%3Fcode%3DQzMadeUpQz%26state%3DQzMadeUpQz%26a%3D1",
    "u=%253Fapp_key%253D1%2526app_secret%253DQzMadeUpQz",
  ];
  for (const text of echoes) {
    await withHost(() => refusal(1, text), async ({ tokenEndpoint }) => {
      assertSecretFree((await tellsOf(tokenEndpoint)).text, text);
    });
  }
});

test("A message made to be slow is redacted in bounded time", async () => {
  const codes = [
    "\\".repeat(30) + "QzCodeQz",
    "++==%%QzCodeQz",
    "a".repeat(99),
  ];
  const texts = ["\\", "\\u005c", "%25", "+", "a", "code%3D", '"code":"\\'];
  for (const code of codes) {
    for (const text of texts) {
      const message = text.repeat(300_000 / text.length);
      const took = await cpuTime(() =>
        withHost(
          () => refusal(1, message),
          ({ tokenEndpoint }) =>
            failure(exchangeCode(LEAKY, code, { tokenEndpoint })),
        )
      );
      assert.ok(took < 4000, `${took} ms for ${text} and ${code}`);
    }
  }
});

/** What is told of an exchange whose reply is a refusal with a message. */
function toldOf(code: string, message: string): Promise<TikTokShopError> {
  const reply = { code: 1, message, request_id: "" };
  const fetch = () => Promise.resolve(Response.json(reply));
  return failure(exchangeCode(APP, code, { fetch }));
}

test("A secret that is too long for a RegExp is hidden too", async () => {
  for (
    const piece of ["(", "Qz[+/=", "\\Qz", "Qz%2F", "Qz\\u0041", "{9999}Qz"]
  ) {
    const code = piece.repeat(48_000 / piece.length);
    for (const text of [code, encodeURIComponent(code), json(code)]) {
      const error = await toldOf(code, `no code ${text} here`);
      assert.match(error.message, /"no code [%5C\\]*\*{3} here"/, piece);
    }
  }
});

test("A secret that cannot be found hides the whole text", async () => {
  const code = "\u6388\u6743\u7801\u2603";
  for (const text of [code, encodeURIComponent(code)]) {
    const { message } = await toldOf(code, `no code ${text} here`);
    assert.ok(!message.includes(text), message);
    assert.match(message, /could not be redacted/);
  }
});

test("A secret is hidden beside what could be half of an escape", async () => {
  for (const piece of ["x", "%", "%2", "\\", "u00", "\u2603", "abab", "+"]) {
    const code = `abab${"cdCD".repeat(5)}/${piece}z`;
    for (const text of [code, encodeURIComponent(code), json(code)]) {
      const { message } = await toldOf(code, `in ${piece}${text};${piece} out`);
      // At either end a few characters may be taken for the escape's own.
      assert.match(message, /"in \S{0,9}\*{3}\S{0,9};\S* out"/, piece);
    }
  }
});

test("No secret and no text of 1 MiB make the redactor slow", async () => {
  const took = (code: string, text: string) => {
    const message = text.repeat(400_000 / text.length);
    return cpuTime(() => toldOf(code, message));
  };
  const plain = "QzCodeQz".repeat(4);
  const texts = [
    "\\",
    "\\u005c",
    "%25",
    "%2525",
    "+",
    "a",
    "aaab",
    "u0025",
    "%",
  ];
  const codes = [
    plain,
    "\\!".repeat(40),
    "a".repeat(24_000) + "b" + "a".repeat(24_000),
    "%25".repeat(100) + "zzzz",
    "aaaa",
  ];
  await took(plain, "x");
  const usual = Math.max(await took(plain, "x"), await took(plain, "x"));
  for (const code of codes) {
    for (const text of texts) {
      const time = await took(code, text);
      assert.ok(time < 100 * usual + 1000, `${time} ms: ${code} in ${text}`);
    }
  }
});

test("A redacted message still tells what is no secret", () =>
  withHost(
    ({ target }) => refusal(36009004, `no such app: http://host${target}`),
    async ({ tokenEndpoint }) => {
      const { error } = await tellsOf(tokenEndpoint);
      assert.match(error.message, /no such app: http:\/\/host\/api\/v2/);
      assert.ok(error.message.includes(`app_key=${APP.appKey}&`));
      assert.match(error.message, /app_secret=\*\*\*&auth_code=\*\*\*&grant/);
    },
  ));

test("refreshTokens() does not tell the refresh token", () =>
  withHost(
    (request) => refusal(36004005, pieces(request).join(" ")),
    async ({ refreshEndpoint }) => {
      const lines: string[] = [];
      const error = await failure(
        refreshTokens(LEAKY, SECRETS.refresh_token, {
          refreshEndpoint,
          onTrace: (line) => void lines.push(line),
        }),
        "login_required",
      );
      assertSecretFree([printed(error), ...lines].join("\n"));
    },
  ));

test("A secret that the sandbox repeats is hidden", () =>
  withSandbox(async (sandbox) => {
    sandbox.fail("token", "echo-secret");
    const code = sandbox.issueCode();
    const call = exchangeCode(sandbox, code, sandbox);
    const text = printed(await failure(call, "rejected"));
    for (const secret of [code, sandbox.appSecret, encodeURIComponent(code)]) {
      assert.ok(!text.includes(secret));
    }
  }));

// === What a failing fetch says

/** Errors of a `fetch`, made of the URL. */
const FETCH_ERRORS: Record<string, (url: string) => unknown> = {
  "as Deno does": (url) =>
    new TypeError(`error sending request for url (${url})`, {
      cause: new Error(`client error (Connect) for url (${url})`),
    }),
  "in quotes": (url) => new TypeError(`Failed to parse URL from "${url}"`),
  "as text": (url) => `no route to ${url}`,
  "decoded": (url) => new Error(decodeURIComponent(url.replace(/%$/, ""))),
  "encoded": (url) => new Error(encodeURIComponent(url)),
  "in a chain": (url) => {
    const root = Object.assign(new Error(`GET ${url}`), { code: "ECONNRESET" });
    return new TypeError("fetch failed", {
      cause: new AggregateError([root], `all of ${url}`, { cause: root }),
    });
  },
  "beside the message": (url) =>
    Object.assign(new Error("no route"), { url, config: { url }, data: url }),
  "in JSON": (url) =>
    new Error(JSON.stringify(Object.fromEntries(new URL(url).searchParams))),
};

test("The errors of a failing fetch are told without secrets", async () => {
  const rows = Object.entries(FETCH_ERRORS).map(async ([name, make]) => {
    const { error, text } = await tellsOfFetch((url) => make(url));
    assert.equal(error.kind, "network");
    assertSecretFree(text, name);
  });
  await Promise.all([
    ...rows,
    assertRealFetchIsRedacted(),
    assertCausesAreKept(),
    assertCausesAreInert(),
  ]);
});

/** What is told of a fetch that fails, each time. */
function tellsOfFetch(
  make: (url: string) => unknown,
): ReturnType<typeof tellsOf> {
  const fetch = (url: unknown) => Promise.reject(make(`${url}`));
  return tellsOf("https://example.com/get", {
    fetch: fetch as typeof globalThis.fetch,
  });
}

/** Deno's own errors name the whole URL. */
async function assertRealFetchIsRedacted(): Promise<void> {
  const port = await freePort();
  const hosts = [`http://127.0.0.1:${port}/`, "https://token.invalid/"];
  await Promise.all(hosts.map(async (host) => {
    const { error, text } = await tellsOf(host);
    assertSecretFree(text, host);
    assert.ok(causes(error).length > 0, "no cause");
  }));
}

async function assertCausesAreKept(): Promise<void> {
  const { error } = await tellsOfFetch(FETCH_ERRORS["in a chain"]!);
  const [first, second, third] = causes(error);
  assert.equal(first!.message, "fetch failed");
  assert.equal(first!.name, "TypeError");
  assert.equal(second!.name, "AggregateError");
  assert.equal((third as { code?: string }).code, "ECONNRESET");
}

async function assertCausesAreInert(): Promise<void> {
  const { error } = await tellsOfFetch(() => new Error(FORGERY));
  for (const { message } of [error, ...causes(error)]) {
    assert.match(message, /root#/);
    assert.doesNotMatch(message, FORGING);
  }
}

// === Traces

test("onTrace is told each try without secrets", () =>
  withHost(
    (_, i) => i === 0 ? answer("", { status: 503 }) : answer(),
    async ({ tokenEndpoint }) => {
      const lines: string[] = [];
      const onTrace = (line: string) => void lines.push(line);
      await exchangeCode(LEAKY, CODE, { tokenEndpoint, onTrace });
      assert.equal(lines.length, 2);
      assert.match(lines[0]!, /^GET http\S+ HTTP 503 \(\d+ ms\)$/);
      assert.match(lines[1]!, /^GET http\S+ HTTP 200 \(\d+ ms\)$/);
      const query = `app_key=${APP.appKey}&app_secret=***&auth_code=***&`;
      for (const line of lines) assert.ok(line.includes(query), line);
      assertSecretFree(lines.join("\n"));
    },
  ));

// === Pages and warnings

/** A login that is redirected to with a code, and all that it tells. */
async function told(
  options: Partial<StartAuthOptions>,
): Promise<{ page: string; text: string; error: unknown }> {
  const lines: string[] = [];
  const flow = await startAuth({
    ...LEAKY,
    serviceId: SERVICE_ID,
    port: await freePort(),
    onWarning: (line) => lines.push(line),
    onTrace: (line) => lines.push(line),
    ...options,
  });
  const redirect = new URL(flow.redirectUrl);
  const state = new URL(flow.url).searchParams.get("state")!;
  redirect.search = `${new URLSearchParams({ code: CODE, state })}`;
  const answered = await fetch(redirect);
  const page = await answered.text();
  const error = await flow.reply.catch((reason) => reason);
  await flow[Symbol.asyncDispose]();
  const text = [page, ...lines, printed(error), inspect(answered.headers)]
    .join("\n");
  assert.ok(!text.includes(state), "the state was told");
  return { page, text, error };
}

test("No secret is on the page of a failed login", () =>
  withHost(
    (request) => refusal(36009004, pieces(request).join(" ")),
    async ({ tokenEndpoint }) => {
      const { page, text } = await told({ tokenEndpoint });
      assert.match(page, /36009004/);
      assertSecretFree(text);
    },
  ));

test("No secret is on the page of a login that brought no token", () =>
  withHost(
    (request) =>
      answer({ ...REPLY, data: {}, request_id: pieces(request).join(" ") }),
    async ({ tokenEndpoint }) => {
      const { page, text } = await told({ tokenEndpoint });
      assert.match(page, /no access token/);
      assertSecretFree(text);
    },
  ));

const TOKENS = {
  ...REPLY,
  data: {
    ...REPLY.data,
    ...SECRETS,
    refresh_token: "GCP_r+/==%2FQzRefreshTokenQz", // printable, as they all are
    seller_name: "Finch",
  },
};

test("No token is on the page of a login", () =>
  withHost(() => answer(TOKENS), async ({ tokenEndpoint }) => {
    const { page } = await told({ tokenEndpoint });
    assert.match(page, /Finch/);
    assertSecretFree(page);
  }));

test("No token is on the page of a login that could not be kept", () =>
  withHost(() => answer(TOKENS), async ({ tokenEndpoint }) => {
    const { page } = await told({
      tokenEndpoint,
      onReply: ({ data }) => {
        throw new Error(`no row (${data.access_token}, ${data.refresh_token})`);
      },
    });
    assert.match(page, /no row \(\*\*\*, \*\*\*\)/i);
    assertSecretFree(page);
  }));

test("login() does not tell the state that an opener's error names", () =>
  withHost(() => answer(), async ({ tokenEndpoint }) => {
    const warnings: string[] = [];
    let state = "";
    const abort = new AbortController();
    const call = login({
      ...LEAKY,
      serviceId: SERVICE_ID,
      port: await freePort(),
      tokenEndpoint,
      signal: abort.signal,
      store: false,
      onStart: () => {},
      open: (url) => {
        state = new URL(url).searchParams.get("state")!;
        setTimeout(() => abort.abort());
        throw new Error(`cannot open ${url} or ${encodeURIComponent(url)}`);
      },
      onWarning: (message) => warnings.push(message),
    });
    await failure(call, "cancelled");
    assert.match(warnings[0]!, /cannot open http.*: open the link yourself/);
    assert.ok(!warnings.join().includes(state));
  }));

// === Tokens in errors

/** What login() rejects with when its store cannot save. */
function unsaved(
  tokenEndpoint: string,
  save: (tokens: typeof TOKENS) => Error,
): Promise<TikTokShopError> {
  const store = {
    ...memoryStore(),
    // deno-lint-ignore require-await -- the interface is asynchronous
    save: async (_: string, tokens: unknown) => {
      throw save(tokens as typeof TOKENS);
    },
  };
  return freePort().then((port) =>
    failure(
      login({
        ...LEAKY,
        serviceId: SERVICE_ID,
        port,
        tokenEndpoint,
        store,
        open: async (url) => {
          const state = new URL(url).searchParams.get("state");
          const target = `http://127.0.0.1:${port}/?code=1&state=${state}`;
          await (await fetch(target)).text();
        },
      }),
      "store",
    )
  );
}

test("login() does not tell the tokens that a store's error names", () =>
  withHost(() => answer(TOKENS), async ({ tokenEndpoint }) => {
    const error = await unsaved(tokenEndpoint, ({ data }) => {
      const row = `(${data.access_token}, ${JSON.stringify(data)})`;
      return new Error(`duplicate row ${row}`, { cause: new Error(row) });
    });
    assert.match(error.message, /duplicate row/);
    assert.equal(causes(error).length, 2);
    assertSecretFree(printed(error));
  }));

test("TikTokShopError does not show its reply to loggers", () =>
  withHost(() => answer(TOKENS), async ({ tokenEndpoint }) => {
    const error = await unsaved(tokenEndpoint, () => new Error("disk full"));
    assert.deepEqual(error.reply, TOKENS);
    assert.equal(Object.keys(error).includes("reply"), false);
    assert.equal(JSON.stringify({ ...error }).includes("Qz"), false);
    assertSecretFree(printed(error));
    assert.throws(() => Object.assign(error, { reply: 1 }), TypeError);
  }));

test("TikTokShopError redacts a cause that is given to it", () => {
  const cause = new Error("GET /?access_token=QzSecretQz", {
    cause: { message: '{"refresh_token":"QzSecretQz"}' },
  });
  const error = new TikTokShopError("network", "No route", { cause });
  assertSecretFree(printed(error));
  assert.match(inspect(error), /access_token=\*\*\*/);
});

// === Foreign text on a terminal

const FORGERY = "\x1b[2J\x1b]0;title\x07\rroot# \x9b31m\0\u202egnp.exe\u2066" +
  "\u200b\ufeff\u2028end\r\nnext line\nlast";
// deno-lint-ignore no-control-regex -- they are what must not be there
const FORGING = /[\0-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069]/;

/** Places of a text, and where it comes out. */
const SHOWN: Record<string, [(text: string) => Uint8Array, RegExp]> = {
  "a message": [(text) => refusal(1, text), /root#.*next line last/],
  "a request id": [
    (text) => answer({ code: 1, message: "", request_id: text }),
    /request id .*root#/,
  ],
  "a content type": [
    () => answer("<h1>", { headers: { "content-type": "a\x9b31m/b\u00ad" } }),
    /4 characters of/,
  ],
};

for (const [place, [write, shown]] of Object.entries(SHOWN)) {
  test(`The text of ${place} cannot forge a terminal`, () =>
    withHost(() => write(FORGERY), async ({ tokenEndpoint }) => {
      const { error } = await tellsOf(tokenEndpoint);
      assert.match(error.message, shown);
      const { message, hint, requestId } = error;
      for (const text of [message, hint, requestId ?? ""]) {
        assert.doesNotMatch(text!, FORGING);
      }
    }));
}
