import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { spawnSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { brotliCompressSync, gzipSync } from "node:zlib";
import {
  type ErrorKind,
  exchangeCode,
  memoryStore,
  refreshTokens,
  type TokenOptions,
  type TokenReply,
} from "../../mod.ts";
import type { SandboxFault } from "../../scripts/sandbox.ts";
import {
  issueCertificate,
  type IssuedCertificate,
} from "../support/certificate.ts";
import {
  type Ended,
  freePort,
  ON_DENO,
  programCommand,
  runProgram,
  start,
  temporaryFolder,
} from "../support/helpers.ts";
import {
  answer,
  APP,
  failure,
  type Host,
  type HostHandler,
  type HostRequest,
  httpDate,
  refusal,
  REPLY,
  withFolder,
  withHost,
  withSandbox,
} from "../support/token_host.ts";
import { NUMBER_REPLY, NUMBERS, replyWith } from "../support/replies.ts";
import { cpuTime, timed } from "../support/timing.ts";

// === Helpers

const CODE = "ROW_code";

const NO_OPENSSL = spawnSync("openssl", ["version"]).status !== 0 &&
  "openssl makes the certificates";

function exchange(
  host: Pick<Host, "tokenEndpoint">,
  options: TokenOptions & { code?: string } = {},
): Promise<TokenReply> {
  const { tokenEndpoint } = host;
  const { code = CODE, ...rest } = options;
  return exchangeCode(APP, code, { tokenEndpoint, ...rest });
}

/** Exchanges a code at a host that gives one answer. */
function exchangeFor(bytes: ReturnType<HostHandler>): Promise<TokenReply> {
  return withHost(() => bytes, (host) => exchange(host));
}

/** Makes every answer ask for an hour's wait, so that nothing is retried. */
const oneTry: typeof fetch = async (url, init) => {
  const { status, headers, body } = await fetch(url, init);
  const copy = new Headers(headers);
  copy.set("retry-after", "3600");
  return new Response(body, { status, headers: copy });
};

/** The milliseconds between one request and the next. */
function gaps(requests: readonly HostRequest[]): number[] {
  return requests.slice(1).map(({ time }, i) => time - requests[i]!.time);
}

// === The request

test("exchangeCode() makes one GET with four parameters and no body", () =>
  withHost(() => answer(), async (host) => {
    await exchange(host);
    assertBareGet(host, "/api/v2/token/get", {
      app_key: APP.appKey,
      app_secret: APP.appSecret,
      auth_code: CODE,
      grant_type: "authorized_code",
    });
  }));

test("refreshTokens() makes one GET with four parameters and no body", () =>
  withHost(() => answer(), async (host) => {
    await refreshTokens(APP, "GCP_r+/=", host);
    assertBareGet(host, "/api/v2/token/refresh", {
      app_key: APP.appKey,
      app_secret: APP.appSecret,
      refresh_token: "GCP_r+/=",
      grant_type: "refresh_token",
    });
  }));

function assertBareGet(
  { requests }: Host,
  path: string,
  query: Record<string, string>,
): void {
  assert.equal(requests.length, 1);
  const request = requests[0]!;
  assert.equal(request.method, "GET");
  assert.equal(request.target.split("?")[0], path);
  assert.deepEqual([...request.query].sort(), Object.entries(query).sort());
  assert.equal(request.body, "");
  for (const name of ["content-length", "transfer-encoding", "content-type"]) {
    assert.equal(request.headers[name], undefined, name);
  }
}

const ENCODED_CODES = [
  ["ROW_a+b/c==", "ROW_a%2Bb%2Fc%3D%3D"],
  ["ROW_100%", "ROW_100%25"],
  ["ROW_%2Bx%252F", "ROW_%252Bx%25252F"],
  ["ROW_é☃😀", "ROW_%C3%A9%E2%98%83%F0%9F%98%80"],
  ["a&b=c#d?e", "a%26b%3Dc%23d%3Fe"],
] as const;

test("exchangeCode() encodes the code once", () =>
  withHost(() => answer(), async (host) => {
    for (const [code, encoded] of ENCODED_CODES) {
      await exchange(host, { code });
      const { query, target } = host.requests.at(-1)!;
      assert.equal(query.get("auth_code"), code);
      assert.equal(/auth_code=([^&]*)/.exec(target)?.[1], encoded);
    }
  }));

test("exchangeCode() gets tokens for codes with +, / and % in them", () =>
  withSandbox(async (sandbox) => {
    const codes = [1, 2].map(() => sandbox.issueCode(0, "awkward-code"));
    assert.match(codes.join(" "), /\+\/==.*%2F/);
    for (const code of codes) {
      const reply = await exchangeCode(sandbox, code, sandbox);
      assert.equal(reply.data.seller_name, "Harbour & Finch");
      assert.match(reply.data.access_token, /^ROW_/);
    }
  }));

test("refreshTokens() brings new tokens, again and again", () =>
  withSandbox(async (sandbox) => {
    const first = await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
    const again = ({ data }: TokenReply) =>
      refreshTokens(sandbox, data.refresh_token, sandbox);
    const second = await again(first);
    const third = await again(second);
    const tokens = [first, second, third].map(({ data }) => data.access_token);
    assert.equal(new Set(tokens).size, 3);
  }));

test("refreshTokens() accepts a reply without a refresh token", () =>
  withSandbox(async (sandbox) => {
    const first = await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
    const token = first.data.refresh_token;
    sandbox.fail("refresh", "no-refresh-token");
    const second = await refreshTokens(sandbox, token, sandbox);
    assert.equal("refresh_token" in second.data, false);
    await refreshTokens(sandbox, token, sandbox);
  }));

test("exchangeCode() keeps the query of a token endpoint", () =>
  withHost(() => answer(), async (host) => {
    const tokenEndpoint = `${host.tokenEndpoint}?via=a%20b&app_key=other`;
    await exchange({ tokenEndpoint });
    const { query } = host.requests[0]!;
    assert.equal(query.get("via"), "a b");
    assert.deepEqual(query.getAll("app_key"), [APP.appKey]);
  }));

const MISUSES = [
  ["an empty app key", { ...APP, appKey: "" }, {}, /app key .*Partner Center/],
  ["no app secret", { ...APP, appSecret: "" }, {}, /app secret .*Partner Cent/],
  ["a line end", { ...APP, appSecret: "secret\n" }, {}, /white space/],
  ["plain http", APP, { tokenEndpoint: "http://example.com/get" }, /https/],
  ["credentials", APP, { tokenEndpoint: "https://me:pass@host/" }, /https/],
  ["no URL", APP, { tokenEndpoint: "auth.tiktok-shops.com" }, /https/],
] as const;

test("exchangeCode() rejects wrong arguments before any request", async () => {
  for (const [name, app, options, message] of MISUSES) {
    const call = exchangeCode(app, CODE, {
      ...options,
      fetch: () => assert.fail(`${name} was requested`),
    });
    await assert.rejects(call, { name: "TypeError", message }, name);
  }
});

// === Redirects, time and size

test("exchangeCode() follows no redirect", async () => {
  for (const status of [301, 302, 303, 307, 308]) {
    await withHost((request) => {
      const location = `${request.target}&stolen=1`;
      return answer("", { status, headers: { location } });
    }, async (host) => {
      const error = await failure(exchange(host), "invalid_response");
      assert.match(error.message, /redirect, which is not followed/);
      assert.equal(error.status, status);
      assert.equal(host.requests.length, 1);
    });
  }
});

test("exchangeCode() sends nothing to the target of a redirect", () =>
  withSandbox(async (sandbox) => {
    sandbox.fail("token", "redirect");
    await failure(exchangeCode(sandbox, sandbox.issueCode(), sandbox));
    const paths = sandbox.requests.map(({ path }) => path);
    assert.deepEqual(paths, ["/api/v2/token/get"]);
  }));

/** When a call is aborted that was received 100 ms ago. */
const ABORTED: readonly [string, HostHandler][] = [
  ["before the answer", () => {}],
  [
    "in the middle of the answer",
    (_, __, socket) => void socket.write(answer().subarray(0, 150)),
  ],
  ["while backing off", () => answer("", { status: 503 })],
  [
    "while waiting as long as was asked for",
    () => answer("", { status: 429, headers: { "retry-after": 30 } }),
  ],
];

for (const [when, handler] of ABORTED) {
  test(`exchangeCode() can be aborted ${when}`, () => {
    const abort = new AbortController();
    return withHost((...args) => {
      setTimeout(() => abort.abort("enough"), 100);
      return handler(...args);
    }, async (host) => {
      const { signal } = abort;
      const error = await failure(exchange(host, { signal }), "cancelled");
      assert.match(error.message, /enough/);
      assert.ok(performance.now() - host.requests[0]!.time < 5000);
      assert.equal(host.requests.length, 1);
    });
  });
}

test("exchangeCode() makes no request once it is aborted", () =>
  withHost(() => answer(), async (host) => {
    const signal = AbortSignal.abort("enough");
    const error = await failure(exchange(host, { signal }), "cancelled");
    assert.match(error.message, /enough/);
    assert.equal(host.requests.length, 0);
  }));

test("exchangeCode() gives a call 30 seconds", {
  skip: process.env.SOAK ? false : "it takes 30 s: set SOAK=1",
}, () =>
  withHost(() => {}, async (host) => {
    const abort = new AbortController();
    const started = performance.now();
    const onTrace = () => abort.abort();
    await failure(exchange(host, { signal: abort.signal, onTrace }));
    const took = performance.now() - started;
    assert.ok(took > 29_000 && took < 33_000, `${took} ms`);
  }));

const LIMIT = 1024 * 1024;

test("exchangeCode() reads a reply of 1 MiB", async () => {
  const reply = await exchangeFor(answer(JSON.stringify(REPLY).padEnd(LIMIT)));
  assert.deepEqual(reply, REPLY);
});

test("exchangeCode() outlives a host that compresses a large reply", () => {
  const more = randomBytes(400_000).toString("hex");
  const body = JSON.stringify({ ...REPLY, more });
  const gzip = { headers: { "content-encoding": "gzip" } };
  return withHost(
    ({ headers }) =>
      /gzip/.test(headers["accept-encoding"] ?? "")
        ? answer(gzipSync(body), gzip)
        : answer(body),
    async (host) => assert.equal((await exchange(host)).more, more),
  );
});

test("exchangeCode() refuses a reply of more than 1 MiB", async () => {
  const body = JSON.stringify(REPLY).padEnd(LIMIT + 1);
  const gzip = { headers: { "content-encoding": "gzip" } };
  for (const bytes of [answer(body), answer(gzipSync(body), gzip)]) {
    const error = await failure(exchangeFor(bytes), "invalid_response");
    assert.match(error.message, /larger than 1048576 bytes/);
  }
});

test("exchangeCode() refuses the sandbox's huge reply", () =>
  withSandbox(async (sandbox) => {
    sandbox.fail("token", "huge");
    const call = exchangeCode(sandbox, sandbox.issueCode(), sandbox);
    await failure(call, "invalid_response");
  }));

test("exchangeCode() stops reading a reply that never ends", () => {
  let sent = 0;
  const endless: HostHandler = (_, __, socket) => {
    const chunk = `10000\r\n${" ".repeat(65536)}\r\n`;
    const write = () => {
      sent += chunk.length;
      if (!socket.destroyed) socket.write(chunk, () => setTimeout(write, 1));
    };
    socket.write(
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
      write,
    );
  };
  return withHost(endless, async (host) => {
    const error = await failure(exchange(host), "invalid_response");
    assert.match(error.message, /larger than/);
    assert.ok(sent < 32 * LIMIT, `${sent} bytes`);
    assert.equal(host.requests.length, 1);
  });
});

// === Retries

type Row = [name: string, handler: HostHandler, kind: ErrorKind];

const status = (code: number): HostHandler => () =>
  answer("Try later", { status: code });

/** An answer that asks for a wait, by a clock of its own. */
const busy = (seconds: number, clock = Date.now()) =>
  answer("", {
    status: 503,
    headers: {
      "date": httpDate(clock),
      "retry-after": httpDate(clock + seconds * 1000),
    },
  });

const RETRIED: readonly Row[] = [
  ["429", status(429), "invalid_response"],
  ["500", status(500), "invalid_response"],
  ["502", status(502), "invalid_response"],
  ["503", status(503), "invalid_response"],
  ["504", status(504), "invalid_response"],
  [
    "429 and an envelope",
    () => refusal(36009002, "too many requests", { status: 429 }),
    "rejected",
  ],
  ["36009002", () => refusal(36009002, "too many requests"), "rejected"],
  ["36009003", () => refusal(36009003, "internal error"), "rejected"],
  ["36009007", () => refusal(36009007, "timeout"), "rejected"],
  ["a dropped connection", (_, __, socket) => void socket.end(), "network"],
  ["a destroyed one", (_, __, socket) => void socket.destroy(), "network"],
];

const NOT_RETRIED: readonly Row[] = [
  ["36004001", () => refusal(36004001, "rt has expired"), "login_required"],
  ["36004004", () => refusal(36004004, "invalid auth code"), "rejected"],
  ["36004005", () => refusal(36004005, "no record"), "login_required"],
  [
    "36004004 and HTTP 500",
    () => refusal(36004004, "invalid auth code", { status: 500 }),
    "rejected",
  ],
  ["36009033", () => refusal(36009033, "IP allow list"), "rejected"],
  ["an unknown code", () => refusal(1, "?"), "rejected"],
  ["400", status(400), "invalid_response"],
  ["401", status(401), "invalid_response"],
  ["403", status(403), "invalid_response"],
  ["404", status(404), "invalid_response"],
  ["HTML", () => answer("<h1>Hello</h1>"), "invalid_response"],
  ["an empty body", () => answer(""), "invalid_response"],
  ["half of the JSON", () => answer('{"code":0,"da'), "invalid_response"],
  ["no token", () => answer(replyWith("{}")), "invalid_response"],
  [
    "a wait of 61 s",
    () => answer("", { status: 503, headers: { "retry-after": 61 } }),
    "invalid_response",
  ],
  ["a wait until 61 s later", () => busy(61), "invalid_response"],
  ["by a slow clock", () => busy(61, 1e12), "invalid_response"],
];

/** The requests that each row causes; all rows wait at the same time. */
function requestsOf(
  rows: readonly Row[],
  call: (host: Host) => Promise<unknown>,
): Promise<HostRequest[][]> {
  return Promise.all(
    rows.map(([name, handler, kind]) =>
      withHost(handler, async (host) => {
        await failure(call(host), kind, name);
        return host.requests;
      })
    ),
  );
}

const refresh = (host: Host) => refreshTokens(APP, "GCP_refresh", host);

test("exchangeCode() tries three times again what may pass", async () => {
  const { value, slack } = await timed(() =>
    Promise.all([
      requestsOf(RETRIED, (host) => exchange(host)),
      requestsOf([RETRIED[1]!], refresh),
    ])
  );
  const [all, refreshes] = value;
  for (const [row, requests] of [...all, ...refreshes].entries()) {
    const waits = gaps(requests);
    assert.equal(waits.length, 3, RETRIED[row]?.[0]);
    for (const [i, wait] of waits.entries()) {
      const least = 250 * 2 ** i;
      const most = 2 * least + 2000 + slack;
      assert.ok(wait > least - 20 && wait < most, `${waits}`);
    }
  }
  const firstWaits = all.map((requests) => gaps(requests)[0]!);
  const spread = Math.max(...firstWaits) - Math.min(...firstWaits);
  assert.ok(spread > 50, `no jitter: ${firstWaits}`);
});

for (
  const [name, call] of [["exchangeCode", exchange], [
    "refreshTokens",
    refresh,
  ]] as const
) {
  test(`${name}() never tries again what cannot pass`, async () => {
    const all = await requestsOf(NOT_RETRIED, (host) => call(host));
    const counts = all.map(({ length }, i) => [NOT_RETRIED[i]![0], length]);
    assert.deepEqual(counts, NOT_RETRIED.map(([row]) => [row, 1]));
  });
}

test("exchangeCode() succeeds once the host has recovered", () =>
  withHost(
    (_, i) => i === 0 ? refusal(36009003, "internal error") : answer(),
    async (host) => {
      assert.deepEqual(await exchange(host), REPLY);
      const [first, second, ...more] = host.requests;
      assert.equal(first!.target, second!.target);
      assert.deepEqual(more, []);
    },
  ));

const retryAfter = (value: string | number) =>
  answer("", { status: 503, headers: { "retry-after": value } });

/** Answers that may ask for a wait, and the shortest and longest one in ms. */
const RETRY_AFTERS: readonly [() => Uint8Array, number, number][] = [
  [() => retryAfter(1), 990, 4000],
  [() => refusal(36009003, "", { headers: { "retry-after": 1 } }), 990, 4000],
  [() => retryAfter(0), 230, 3000],
  [() => retryAfter("soon"), 230, 3000],
  [() => busy(-60), 230, 3000],
  // By the host's clock, however wrong.
  [() => busy(1, Date.now() - 86_400_000), 990, 4000],
  // By ours, where the host does not tell its own; fractions are lost.
  [() => retryAfter(httpDate(Date.now() + 2000)), 900, 5000],
];

test("exchangeCode() waits as long as Retry-After says", async () => {
  const { value: waits, slack } = await timed(() =>
    Promise.all(
      RETRY_AFTERS.map(([bytes]) =>
        withHost((_, i) => i === 0 ? bytes() : answer(), async (host) => {
          await exchange(host);
          return gaps(host.requests)[0]!;
        })
      ),
    )
  );
  for (const [row, wait] of waits.entries()) {
    const [, least, most] = RETRY_AFTERS[row]!;
    assert.ok(wait >= least && wait < most + slack, `${wait} ms in row ${row}`);
  }
});

test("exchangeCode() tells a Retry-After that it ignores", async () => {
  const headers = { "retry-after": 3600 };
  const call = exchangeFor(answer("", { status: 429, headers }));
  const error = await failure(call);
  assert.deepEqual([error.retryAfter, error.status], [3600, 429]);
});

// === TikTok's codes

const CODES: readonly [SandboxFault, number, string, ErrorKind, RegExp][] = [
  [
    "invalid-code",
    36004004,
    "invalid auth code",
    "rejected",
    /30 minutes .*another app's, log in again$/,
  ],
  [
    "internal-error",
    36009003,
    "internal error",
    "rejected",
    /internal error, try again/,
  ],
  ["timeout-error", 36009007, "timeout", "rejected", /timed out, try again/],
  [
    "ip-not-allowed",
    36009033,
    "Access denied. Your IP address is not in the IP allow list configured " +
    "for this app.",
    "rejected",
    /IP allow list in Partner Center/,
  ],
];

for (const [fault, code, message, kind, hint] of CODES) {
  test(`exchangeCode() tells what to do about ${code}`, () =>
    withSandbox(async (sandbox) => {
      sandbox.fail("token", fault);
      const options = { ...sandbox, fetch: oneTry };
      const call = exchangeCode(sandbox, sandbox.issueCode(), options);
      const error = await failure(call, kind);
      assert.deepEqual([error.code, error.status], [code, 200]);
      assert.match(error.hint!, hint);
      assert.match(error.requestId!, /^\d{14}[0-9A-F]{20}$/);
      assert.equal(
        error.message,
        `Cannot get tokens from ${sandbox.tokenEndpoint}: TikTok answered ` +
          `with code ${code}, "${message}" (request id ${error.requestId})`,
      );
    }));
}

const GRANT_CODES = [
  ["expired-refresh", 36004001, /refresh token has expired, log in again/],
  ["rotated-refresh", 36004005, /authorization is gone, log in again/],
  ["deauthorized", 36004005, /authorization is gone, log in again/],
] as const;

test("refreshTokens() asks for a login once the grant is gone", () =>
  withSandbox(async (sandbox) => {
    for (const [fault, code, hint] of GRANT_CODES) {
      sandbox.fail("refresh", fault);
      const call = refreshTokens(sandbox, "ROW_refresh", sandbox);
      const error = await failure(call, "login_required");
      assert.equal(error.code, code);
      assert.match(error.hint!, hint);
      assert.match(error.message, /Cannot get tokens from .*\/token\/refresh:/);
    }
  }));

test("exchangeCode() spends a code once and says so", () =>
  withSandbox(async (sandbox) => {
    const code = sandbox.issueCode();
    await exchangeCode(sandbox, code, sandbox);
    const error = await failure(exchangeCode(sandbox, code, sandbox));
    assert.deepEqual([error.kind, error.code], ["rejected", 36004004]);
    assert.match(error.hint!, /used before/);
  }));

test("exchangeCode() says that an earlier answer was lost", () =>
  withHost(
    (_, i, socket) =>
      i === 0 ? void socket.destroy() : refusal(36004004, "invalid auth code"),
    async (host) => {
      const error = await failure(exchange(host), "rejected");
      assert.equal(host.requests.length, 2);
      assert.equal(error.code, 36004004);
      assert.match(
        error.message,
        /; an earlier answer to the same request was/,
      );
      assert.match(error.hint!, /used before/);
    },
  ));

test("exchangeCode() says nothing of a lost answer when none was lost", () =>
  withHost(
    (_, i) =>
      i === 0
        ? refusal(36009003, "internal error")
        : refusal(36004004, "invalid auth code"),
    async (host) => {
      const error = await failure(exchange(host), "rejected");
      assert.doesNotMatch(error.message, /lost/);
    },
  ));

test("exchangeCode() tells a wrong app secret by 36004003", async () => {
  const call = exchangeFor(refusal(36004003, "invalid app secret"));
  const { hint } = await failure(call, "rejected");
  assert.equal(hint, "check the app secret");
});

const IP_MESSAGES = [
  "the IP 203.0.113.7 is not in the IP allow list",
  "ip not in allow list",
  "Access denied: IP address not in whitelist",
  "client ip is not in the white-list",
  "IP not in app allowlist",
  "your IPs are not on the allow_list",
  "White list does not contain this IP.",
];

test("exchangeCode() knows the IP allow list under any code", async () => {
  for (const message of IP_MESSAGES) {
    const call = exchangeFor(refusal(36009999, message));
    const { hint } = await failure(call, "rejected");
    assert.match(hint!, /IP allow list in Partner Center/, message);
  }
  for (const message of ["skip the allow list", "invalid ip", "shipping"]) {
    const { hint } = await failure(exchangeFor(refusal(36009999, message)));
    assert.doesNotMatch(hint!, /IP allow list/, message);
  }
});

test("exchangeCode() tells a code it does not know", async () => {
  const error = await failure(exchangeFor(refusal(-42, "odd")), "rejected");
  assert.equal(error.code, -42);
  assert.match(error.message, /code -42, "odd" \(request id 2024/);
  assert.match(error.hint!, /Partner Center.*request id/);
});

test("exchangeCode() reads a code that was sent as text", async () => {
  const body = { ...REPLY, code: "36004004", message: 5, request_id: 12 };
  const error = await failure(exchangeFor(answer(body)), "rejected");
  assert.deepEqual([error.code, error.requestId], [36004004, "12"]);
  assert.match(error.message, /"5"/);
});

// === The reply

test("exchangeCode() resolves to TikTok's reply verbatim", async () => {
  const body = {
    ...REPLY,
    code: "0",
    extra: { deep: [1, null, { "": "é" }] },
    data: { ...REPLY.data, access_token_expire_in: "1722342011", more: true },
  };
  assert.deepEqual(await exchangeFor(answer(body)), body);
});

test("exchangeCode() keeps integers beyond 2^53", async () => {
  const { data } = await exchangeFor(NUMBER_REPLY);
  assert.deepEqual(data, {
    access_token: "GCP_a",
    ...NUMBERS,
    list: [[7495540735365777507n]],
    text: "7495540735365777507",
    escaped: '"7495540735365777507',
    "7495540735365777507": 1,
    float: 1.5,
    large: 1e21,
  });
});

test("exchangeCode() brings a reply that JSON.stringify takes", async () => {
  const reply = await exchangeFor(NUMBER_REPLY);
  const copies = [
    JSON.parse(JSON.stringify(reply)).data,
    JSON.parse(JSON.stringify({ replies: [reply] })).replies[0].data,
    JSON.parse(JSON.stringify({ ...reply })).data,
    JSON.parse(JSON.stringify(reply.data)),
  ];
  for (const data of copies) {
    assert.equal(data.record, "7495540735365777507");
    assert.equal(data.least, "-9223372036854775808");
    assert.deepEqual(data.list, [["7495540735365777507"]]);
    assert.equal(data.largest_safe, 9007199254740991);
  }
  const names = ["code", "message", "data", "request_id"];
  assert.deepEqual(Object.keys(reply), names);
});

test("exchangeCode() survives __proto__ and toJSON members", async () => {
  const members = '"__proto__":{"polluted":1},"constructor":{"polluted":1}';
  const body = `{${members},"toJSON":1,"code":0,"message":"","data":{` +
    `${members},"access_token":"GCP_a","id":7495540735365777507}}`;
  const reply = await exchangeFor(answer(body));
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
  assert.equal(reply.polluted, undefined);
  assert.equal(Object.getPrototypeOf(reply), Object.prototype);
  const names = Object.keys(reply).slice(0, 2);
  assert.deepEqual(names, ["__proto__", "constructor"]);
  assert.match(JSON.stringify(reply), /"id":"7495540735365777507"/);
  const store = memoryStore();
  await store.save("p", { ...reply, meta: {} });
  const saved = await store.load("p");
  assert.equal(saved?.data.id, 7495540735365777507n);
});

const GOOD = JSON.stringify(REPLY);
const TYPE = "content-type";

/** Ways to send the good reply. */
const FORMS: readonly [string, ReturnType<HostHandler>][] = [
  ["a byte order mark", answer(`\ufeff${GOOD}`)],
  ["white space around it", answer(`\r\n\t ${GOOD}\n`)],
  [
    "another charset than JSON's",
    answer(GOOD, { headers: { [TYPE]: "text/plain; charset=iso-8859-1" } }),
  ],
  ["no content type", answer(GOOD, { headers: { [TYPE]: "" } })],
  ["gzip", answer(gzipSync(GOOD), { headers: { "content-encoding": "gzip" } })],
  [
    "Brotli",
    answer(brotliCompressSync(GOOD), { headers: { "content-encoding": "br" } }),
  ],
  ["HTTP 201", answer(GOOD, { status: 201 })],
  [
    "chunks of one byte",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
    [...GOOD].map((c) => `1\r\n${c}\r\n`).join("") + "0\r\n\r\n",
  ],
  [
    "the end of the connection as its end",
    `HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n${GOOD}`,
  ],
  ["a key twice", answer(`{"code":1,${GOOD.slice(1)}`)],
];

for (const [name, bytes] of FORMS) {
  test(`exchangeCode() reads a reply with ${name}`, async () => {
    assert.deepEqual(await exchangeFor(bytes), REPLY);
  });
}

test("exchangeCode() reads UTF-8 that was cut between chunks", async () => {
  const name = "Hafen für Éire 😀";
  const bytes = answer(GOOD.replace("Harbour & Finch", name));
  const reply = await withHost((_, __, socket) => {
    const parts = [...bytes].map((byte) => Uint8Array.of(byte));
    const next = () => {
      const part = parts.shift();
      if (part) socket.write(part, next);
      else socket.end();
    };
    socket.setNoDelay(true);
    next();
  }, (host) => exchange(host));
  assert.equal(reply.data.seller_name, name);
});

// === What is no reply

const DEEP = "[".repeat(200_000);

/** Answers that are no reply, and what the message says of them. */
const STRANGE: readonly [string, Uint8Array, RegExp][] = [
  ["an empty body", answer(""), /HTTP 200 with an empty body/],
  [
    "HTML",
    answer("<h1>Hi</h1>", { headers: { [TYPE]: "text/html" } }),
    /HTTP 200 with 11 characters of text\/html, not TikTok's JSON/,
  ],
  [
    "an unknown type",
    answer("Hi", { headers: { [TYPE]: "" } }),
    /2 characters of unknown type/,
  ],
  [
    "plain text",
    answer("404 page not found", { status: 404 }),
    /HTTP 404 with 18 characters/,
  ],
  ["HTTP 204", answer("", { status: 204 }), /HTTP 204/],
  ["HTTP 304", answer("", { status: 304 }), /HTTP 304/],
  ["HTTP 500", answer("Oh", { status: 500 }), /HTTP 500 with 2 characters/],
  ["HTTP 503", answer("", { status: 503 }), /HTTP 503 with an empty body/],
  ["half of the JSON", answer(GOOD.slice(0, 99)), /99 characters/],
  ["two JSON texts", answer(GOOD + GOOD), /not TikTok's JSON/],
  ["a NUL", answer("\0"), /not TikTok's JSON/],
  ["UTF-16", answer(Buffer.from(GOOD, "utf16le")), /not TikTok's JSON/],
  ["a deep JSON", answer(DEEP), /200000 characters .*not TikTok's JSON/],
];

test("exchangeCode() says what it got in place of a reply", async () => {
  for (const [name, bytes, message] of STRANGE) {
    await withHost(() => bytes, async (host) => {
      const call = exchange(host, { fetch: oneTry });
      const error = await failure(call, "invalid_response", name);
      assert.match(error.message, message, name);
      assert.match(error.message, /^Cannot get tokens from http:\/\/127\./);
      assert.ok(error.hint, name);
    });
  }
});

const CANNED: readonly [SandboxFault, ErrorKind][] = [
  ["html", "invalid_response"],
  ["text-404", "invalid_response"],
  ["500", "invalid_response"],
  ["503", "invalid_response"],
  ["empty", "invalid_response"],
  ["truncated-json", "invalid_response"],
  ["no-token", "invalid_response"],
  ["wrong-types", "invalid_response"],
  ["rate-limit", "rejected"],
];

test("exchangeCode() survives the faults of the sandbox", () =>
  withSandbox(async (sandbox) => {
    for (const [fault, kind] of CANNED) {
      const code = sandbox.issueCode(0, fault);
      const options = { ...sandbox, fetch: oneTry };
      await failure(exchangeCode(sandbox, code, options), kind, fault);
    }
  }));

const gzip = { headers: { "content-encoding": "gzip" } };

/** Hosts that break the connection or HTTP itself. */
const BREAKING: readonly Row[] = [
  ["a body cut off", () => answer().subarray(0, -20), "network"],
  ["broken gzip", () => answer(GOOD, gzip), "network"],
  ["another protocol", () => "SSH-2.0-OpenSSH_9.6\r\n", "network"],
];

/** Endpoints that cannot be reached. */
const UNREACHABLE = [
  ["http://localhost:1/", /refused|connect|blocked|bad port/i],
  ["https://token.invalid/", /token\.invalid|dns/i],
] as const;

/** What a `fetch` of the caller's may do. */
const FETCHES: readonly [string, () => unknown][] = [
  ["an error", () => Promise.reject(new Error("no route"))],
  ["text", () => Promise.reject("no route")],
  ["nothing", () => Promise.reject()],
  ["null", () => Promise.reject(null)],
  ["at once", () => {
    throw new TypeError("no route");
  }],
  ["many at once", () => {
    const each = ["::1", "127.0.0.1"].map((host) =>
      new Error(`connect ECONNREFUSED ${host}:9`)
    );
    const cause = new AggregateError(each, "");
    return Promise.reject(new TypeError("fetch failed", { cause }));
  }],
  ["a cause that is itself", () => {
    const error = new Error("no route");
    error.cause = error;
    return Promise.reject(error);
  }],
];

async function assertNetworkError(
  name: string,
  message: RegExp,
  options: TokenOptions & { tokenEndpoint: string },
): Promise<void> {
  const error = await failure(exchange(options, options), "network", name);
  assert.match(error.message, message, name);
  const tried = `Cannot get tokens from ${options.tokenEndpoint}: `;
  assert.ok(error.message.startsWith(tried), error.message);
  assert.match(error.hint!, /connection and the proxy/);
}

test("exchangeCode() tells network errors of all sorts", async () => {
  const refused = `http://127.0.0.1:${await freePort()}/`;
  const tokenEndpoint = "https://example.com/get";
  await Promise.all([
    ...BREAKING.map(([name, handler]) =>
      withHost(handler, (host) => assertNetworkError(name, /: ./, host))
    ),
    ...[[refused, /refused/i] as const, ...UNREACHABLE].map(([url, message]) =>
      assertNetworkError(url, message, { tokenEndpoint: url })
    ),
    ...FETCHES.map(([name, run]) => {
      const fetch = run as unknown as typeof globalThis.fetch;
      return assertNetworkError(name, /: ./, { tokenEndpoint, fetch });
    }),
  ]);
});

test("exchangeCode() names the addresses of a host that all fail", {
  skip: spawnSync("unshare", ["-m", "true"]).status !== 0 &&
    "only root can give a process another /etc/hosts",
}, () =>
  withFolder(async (folder) => {
    const hosts = join(folder, "hosts");
    await writeFile(hosts, "127.0.0.1 two.test\n::1 two.test\n");
    const port = await freePort();
    const url = `https://two.test:${port}/`;
    const script = `mount --bind "$0" /etc/hosts && exec "$@"`;
    const doctor = programCommand(["doctor", "--token-endpoint", url]);
    const words = ["unshare", "-m", "sh", "-c", script, hosts, ...doctor];
    const { stdout } = await start([...words, "--json"]).ended;
    const { message } = JSON.parse(stdout)
      .find(({ check }: { check: string }) => check === "token host");
    assert.match(message, /refused/i);
    assert.doesNotMatch(message, /AggregateError/);
    if (ON_DENO) return; // it names the URL
    for (const address of [`127.0.0.1:${port}`, `::1:${port}`]) {
      assert.ok(message.includes(`ECONNREFUSED ${address}`), message);
    }
  }));

/** Refreshes at an https host that shows a certificate. */
async function refreshAtHost(
  { cert, key, authority }: IssuedCertificate,
  trusted: boolean,
): Promise<{ ended: Ended; tries: number }> {
  const body = JSON.stringify(REPLY);
  const server = createServer({ cert, key }, (_, reply) => reply.end(body));
  server.on("tlsClientError", () => {});
  const port = await freePort();
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  const folder = await temporaryFolder();
  try {
    const meta = { version: 1, app_key: APP.appKey };
    const file = join(folder.path, "default.json");
    await writeFile(file, JSON.stringify({ ...REPLY, meta }));
    const authorities = join(folder.path, "authorities.pem");
    await writeFile(authorities, authority);
    const ended = await runProgram(["refresh", "--verbose"], {
      env: {
        TIKTOK_SHOP_HOME: folder.path,
        TIKTOK_SHOP_APP_SECRET: APP.appSecret,
        TIKTOK_SHOP_REFRESH_ENDPOINT: `https://localhost:${port}/`,
        ...(trusted
          ? { NODE_EXTRA_CA_CERTS: authorities, DENO_CERT: authorities }
          : {}),
      },
    });
    return { ended, tries: ended.stderr.match(/^GET .* ms\)$/gm)!.length };
  } finally {
    await folder[Symbol.asyncDispose]();
    await new Promise((resolve) => server.close(resolve));
  }
}

for (
  const [what, name, days, trusted] of [
    ["of an unknown authority", "localhost", 1, false],
    ["that has expired", "localhost", -1, true],
    ["of another host", "other.example", 1, true],
  ] as const
) {
  test(`refresh asks once a host with a certificate ${what}`, {
    skip: NO_OPENSSL,
  }, async () => {
    const certificate = issueCertificate(name, days);
    const { ended, tries } = await refreshAtHost(certificate, trusted);
    assert.equal(ended.code, 1, ended.stderr);
    assert.equal(tries, 1, ended.stderr);
    const [hint = ""] = /^hint: .*$/m.exec(ended.stderr) ?? [];
    for (const word of ["NODE_EXTRA_CA_CERTS", "DENO_CERT", "clock"]) {
      assert.ok(hint.includes(word), ended.stderr);
    }
    assert.doesNotMatch(hint, /proxy settings/);
  });
}

test("refresh takes a certificate that the hint's variables name", {
  skip: NO_OPENSSL,
}, async () => {
  const { ended } = await refreshAtHost(issueCertificate(), true);
  assert.equal(ended.code, 0, ended.stderr);
});

const WRONG_ENVELOPES = [
  "[]",
  "null",
  "true",
  "5",
  '"text"',
  "{}",
  '{"code":null}',
  '{"code":true}',
  '{"code":""}',
  '{"code":"x"}',
  '{"code":1.5}',
  '{"code":1e999}',
  '{"code":[]}',
  '{"code":{}}',
];

const WRONG_DATA = [
  "null",
  "[]",
  '"GCP_access"',
  "5",
  "true",
  "{}",
  '[{"access_token":"GCP_access"}]',
  '{"access_token":null}',
  '{"access_token":""}',
  '{"access_token":5}',
  '{"access_token":7495540735365777507}',
  '{"access_token":true}',
  '{"access_token":["GCP_access"]}',
  '{"access_token":{"toString":"x"}}',
  '{"refresh_token":"GCP_refresh"}',
];

test("exchangeCode() refuses a reply of the wrong types", async () => {
  const bodies = [...WRONG_ENVELOPES, ...WRONG_DATA.map(replyWith)];
  await withHost((_, i) => answer(bodies[i]), async (host) => {
    for (const body of bodies) {
      await failure(exchange(host), "invalid_response", body);
    }
    assert.equal(host.requests.length, bodies.length);
  });
});

test("exchangeCode() names the request when there is no token", async () => {
  const call = exchangeFor(answer({ ...REPLY, data: null }));
  const error = await failure(call, "invalid_response");
  assert.match(error.message, /the reply has no access token/);
  assert.equal(error.requestId, REPLY.request_id);
});

test("exchangeCode() judges a megabyte of digits in bounded time", async () => {
  const digits = "7".repeat(900_000);
  const texts = [digits, `"${digits}"`, `"${'\\"'.repeat(450_000)}"`, DEEP];
  for (const text of texts) {
    const body = replyWith(
      `{"access_token":"a","id":7495540735365777507,"extra":${text}}`,
    );
    const took = await cpuTime(() =>
      exchangeFor(answer(body)).catch((error) => {
        assert.equal(error.kind, "invalid_response");
      })
    );
    assert.ok(took < 5000, `${took} ms for ${text.slice(0, 9)}`);
  }
});

// === The clock

// === Replies that nest, and signals that many wait for

const DEPTH = 100_000;
const NESTED = `${"[".repeat(DEPTH)}7495540735365777507${"]".repeat(DEPTH)}`;
const DEEP_REPLY = JSON.stringify(REPLY).replace("{", `{"extra":${NESTED},`)
  .replace(
    '"data":{',
    `"data":{"nested":${'{"a":'.repeat(DEPTH)}1` +
      `${"}".repeat(DEPTH)},`,
  );

/** How deep the lists of a value are, and what is in the last one. */
function innermost(value: unknown): [depth: number, value: unknown] {
  let depth = 0;
  for (; Array.isArray(value); depth++) value = value[0];
  return [depth, value];
}

test("A reply nested 100,000 deep is read whole", () =>
  withHost(() => answer(DEEP_REPLY), async (host) => {
    const reply = await exchangeCode(APP, "code", host);
    assert.equal(reply.data.access_token, REPLY.data.access_token);
    assert.deepEqual(innermost(reply.extra), [DEPTH, 7495540735365777507n]);
  }));

test("A reply nested 100,000 deep is saved and printed", async () => {
  await withFolder((folder) =>
    withHost(() => answer(DEEP_REPLY), async ({ refreshEndpoint }) => {
      const file = join(folder, "deep.json");
      await writeFile(file, JSON.stringify(REPLY));
      const run = async () => {
        const { code, stdout, stderr } = await runProgram(
          ["refresh", "--file", file, "--refresh-endpoint", refreshEndpoint],
          {
            env: {
              TIKTOK_SHOP_APP_KEY: APP.appKey,
              TIKTOK_SHOP_APP_SECRET: APP.appSecret,
            },
          },
        );
        assert.equal(code, 0, stderr);
        return stdout;
      };
      await run();
      const printed = await run(); // from the deep file, too
      for (const text of [printed, await readFile(file, "utf8")]) {
        assert.ok(text.includes(NESTED));
        const { data } = JSON.parse(text);
        assert.equal(data.refresh_token, REPLY.data.refresh_token);
      }
    })
  );
});

test("Any number of calls share one listener of their signal", () =>
  withHost(() => {}, async (host) => {
    const { signal, abort } = listenedSignal();
    const calls = Array.from({ length: 30 }, (_, i) =>
      failure(
        exchangeCode(APP, `code${i}`, { ...host, signal: signal.signal }),
        "cancelled",
      ));
    while (host.requests.length < 5) await delay(5);
    assert.equal(signal.listeners(), 1);
    abort();
    await Promise.all(calls);
    assert.equal(signal.listeners(), 0);
  }));

/** A signal that counts its listeners. */
function listenedSignal() {
  const controller = new AbortController();
  const { signal } = controller;
  const listeners = new Set<unknown>();
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...[type, listener]: Parameters<typeof add>) => {
    listeners.add(listener);
    add(type, listener);
  };
  signal.removeEventListener = (
    ...[type, listener]: Parameters<typeof add>
  ) => {
    listeners.delete(listener);
    remove(type, listener);
  };
  return {
    signal: { signal, listeners: () => listeners.size },
    abort: () => controller.abort(),
  };
}

test("A reply whose tokens would command a terminal is damaged", async () => {
  for (const token of ["\x1b]52;c;ZXZpbA==\x07", "a b", "é", "\ud83d"]) {
    for (const name of ["access_token", "refresh_token"]) {
      const data = { ...REPLY.data, [name]: token };
      await withHost(() => answer({ ...REPLY, data }), async (host) => {
        const error = await failure(exchange(host), "invalid_response");
        assert.match(error.message, /the reply has damaged tokens$/);
      });
    }
  }
});
