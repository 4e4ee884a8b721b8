/**
 * Webhooks of the sandbox: each published type as a real server receives it,
 * its signature by three verifiers, repeats, and the events that send one.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { exchangeCode, parseWebhook, verifyWebhook } from "../../mod.ts";
import {
  approve,
  type Sandbox,
  SANDBOX_WEBHOOKS,
  type SandboxOptions,
  startSandbox,
} from "../../scripts/sandbox.ts";
import { runtimeCommand, start } from "../support/helpers.ts";

// === A receiver

interface Received {
  method: string;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
  /** When it came, in milliseconds. */
  time: number;
}

interface Receiver {
  url: string;
  received: Received[];
  /** Resolves with the first request. */
  arrived: Promise<unknown>;
  stop(): Promise<void>;
}

/** A status, a whole answer, `drop` for none, or `hang` for none ever. */
type Answer = number | { status: number; body: string } | "drop" | "hang";

/** An app's server. It gives its answers by turns, and the last one for ever. */
async function startReceiver(...answers: Answer[]): Promise<Receiver> {
  const received: Received[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method = "", headers } = request;
    const time = performance.now();
    received.push({ method, headers, body: Buffer.concat(chunks), time });
    const answer = answers[received.length - 1] ?? answers.at(-1) ?? 200;
    if (answer === "drop") request.socket.destroy();
    if (typeof answer === "string") return;
    const { status, body } = typeof answer === "number"
      ? { status: answer, body: "" }
      : answer;
    response.writeHead(status, { location: "/elsewhere" }).end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/hooks?from=tiktok`,
    received,
    arrived: once(server, "request"),
    stop: async () => {
      if (!server.listening) return;
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function withSandbox(
  options: SandboxOptions,
  run: (sandbox: Sandbox) => Promise<void>,
): Promise<void> {
  const sandbox = await startSandbox({ retryDelay: 10, ...options });
  try {
    await run(sandbox);
  } finally {
    await sandbox.stop();
  }
}

/** A sandbox whose app has a server for webhooks. */
async function withReceiver(
  options: SandboxOptions & { answers?: Answer[] },
  run: (sandbox: Sandbox, receiver: Receiver) => Promise<void>,
): Promise<void> {
  const { answers = [200], ...rest } = options;
  const receiver = await startReceiver(...answers);
  try {
    const webhookUrl = receiver.url;
    await withSandbox({ webhookUrl, ...rest }, (one) => run(one, receiver));
  } finally {
    await receiver.stop();
  }
}

const authorize = (sandbox: Sandbox, seller: string | number = 0) =>
  exchangeCode(sandbox, sandbox.issueCode(seller), sandbox);

// === Verifiers of others

interface Verifier {
  (app: Sandbox, body: Buffer, header: string): boolean;
}

/**
 * Two SDKs' rules, in words, and computed from the words.
 *
 * tiktok-shop-api (Python): an HMAC-SHA256 that is keyed with the secret takes
 * the bytes of the key, then the bytes of the body. Its digest in lower-case
 * hex is the header, exactly.
 *
 * tiktokshop-php: the key and the body are joined to one text. hash_hmac
 * ("sha256") of it, keyed with the secret, is lower-case hex, and equals the
 * header.
 */
const VERIFIERS: Record<string, Verifier> = {
  "tiktok-shop-api": ({ appKey, appSecret }, body, header) => {
    const mac = createHmac("sha256", Buffer.from(appSecret));
    mac.update(Buffer.from(appKey));
    mac.update(body);
    return mac.digest().toString("hex") === header;
  },
  "tiktokshop-php": ({ appKey, appSecret }, body, header) => {
    const text = appKey + body.toString("latin1");
    const mac = createHmac("sha256", appSecret);
    return mac.update(text, "latin1").digest("hex") === header;
  },
  "tiktok-shop-oauth2": (app, body, header) => verifyWebhook(app, body, header),
};

// === Types

for (const [name, type] of Object.entries(SANDBOX_WEBHOOKS)) {
  test(`trigger() sends ${name} as TikTok signs it`, () =>
    withReceiver({}, async (sandbox, { url, received }) => {
      const delivery = await sandbox.trigger(name);
      assert.equal(received.length, 1);
      const [{ method, headers, body }] = received as [Received];
      assert.equal(method, "POST");
      assert.equal(headers["content-type"], "application/json");
      const header = String(headers.authorization);
      for (const [verifier, verify] of Object.entries(VERIFIERS)) {
        assert.ok(verify(sandbox, body, header), verifier);
        const other = Buffer.from(`${body} `);
        assert.ok(!verify(sandbox, other, header), verifier);
      }
      const event = parseWebhook(body);
      assert.equal(event.type, type);
      assert.equal(event.shopId, "7495540735365777507");
      assert.match(event.notificationId, /^7\d{18}$/);
      assert.ok(Math.abs(event.timestamp - Date.now() / 1000) < 60);
      assert.ok(Object.keys(event.data).length > 0);
      const { notificationId } = event;
      assert.deepEqual(delivery, {
        name,
        type,
        notificationId,
        to: url,
        body: body.toString(),
        attempts: [{ status: 200, answer: "" }],
        delivered: true,
      });
      assert.deepEqual(sandbox.deliveries, [delivery]);
    }));
}

test("the webhooks are the 16 published ones", () => {
  assert.deepEqual(Object.values(SANDBOX_WEBHOOKS), [
    ...[1, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16, 18, 33, 36, 37],
  ]);
});

test("trigger() sends an id that no double can hold as TikTok does", () =>
  withReceiver({}, async (sandbox, { received }) => {
    await sandbox.trigger("PRODUCT_CREATION");
    const [{ body }] = received as [Received];
    const [, digits] = /"product_id":(\d{19})[,}]/.exec(body.toString()) ?? [];
    assert.ok(digits, body.toString());
    assert.notEqual(String(Number(digits)), digits);
    assert.equal(String(parseWebhook(body).data.product_id), digits);
  }));

test("trigger() puts the members of data in place of the example's", () =>
  withReceiver({}, async (sandbox, { received }) => {
    const data = {
      order_id: 2n ** 63n,
      order_status: "Ünïcødé 店\u2028",
      more: { list: [1n, null, undefined, "é"] },
    };
    await sandbox.trigger(1, { data });
    const [{ body }] = received as [Received];
    const sent = parseWebhook(body).data;
    assert.equal(sent.order_id, 2n ** 63n);
    assert.equal(sent.order_status, "Ünïcødé 店\u2028");
    assert.equal(sent.is_on_hold_order, false);
    assert.match(body.toString(), /"more":\{"list":\[1,null,null,"é"\]\}/);
  }));

test("trigger() takes a type by number, and by name in any case", () =>
  withReceiver({}, async (sandbox, { received }) => {
    for (const type of [14, "14", "new_message"]) await sandbox.trigger(type);
    const types = received.map(({ body }) => parseWebhook(body).type);
    assert.deepEqual(types, [14, 14, 14]);
  }));

test("trigger() is about the shop of the seller that is named", () => {
  const shop = { cipher: "c", code: "c", id: "77", name: "Nord", region: "DE" };
  const seller = {
    openId: "7010aNORD",
    name: "Nord & Söhne",
    region: "DE",
    userType: 0,
    scopes: [],
    shops: [{ ...shop, seller_type: "LOCAL" }],
  };
  return withReceiver({ sellers: [seller] }, async (sandbox, { received }) => {
    for (const which of ["NORD & söhne", "7010aNORD", "0", 0]) {
      await sandbox.trigger(1, { seller: which });
    }
    const ids = received.map(({ body }) => parseWebhook(body).shopId);
    assert.deepEqual(ids, ["77", "77", "77", "77"]);
  });
});

test("trigger() rejects what it cannot send", () =>
  withSandbox({}, async (sandbox) => {
    const wrong: [string | number, { to?: string; seller?: string }, RegExp][] =
      [
        [
          "ORDER",
          { to: "http://localhost/" },
          /^Unknown webhook type "ORDER"; kn/,
        ],
        [
          2,
          { to: "http://localhost/" },
          /^Unknown webhook type "2"; known are 1 /,
        ],
        [1, {}, /^Cannot send ORDER_STATUS_CHANGE: no URL is given/],
        [
          1,
          { to: "localhost:1" },
          /^Not an http or https URL for webhooks: "loc/,
        ],
        [1, { to: "file:///etc/hosts" }, /^Not an http or https URL/],
        [
          1,
          { to: "http://localhost/", seller: "Nobody" },
          /^No seller "Nobody" e/,
        ],
      ];
    for (const [type, options, message] of wrong) {
      await assert.rejects(sandbox.trigger(type, options), (error: Error) => {
        assert.match(error.message, message);
        return error instanceof TypeError || error instanceof RangeError;
      });
    }
    assert.deepEqual(sandbox.deliveries, []);
  }));

test("startSandbox() refuses a webhook URL that is none", async () => {
  await assert.rejects(startSandbox({ webhookUrl: "nowhere" }), TypeError);
});

// === Repeats

test("a webhook is repeated until it is taken, with the same id", async () => {
  const body = "no ".repeat(1000);
  const answers: Answer[] = ["drop", { status: 500, body }, 302, 204];
  const shown: string[] = [];
  await withReceiver({
    answers,
    onDelivery: ({ attempts, delivered }) =>
      shown.push(`${attempts.at(-1)?.status} ${delivered}`),
  }, async (sandbox, { received }) => {
    const delivery = await sandbox.trigger("NEW_MESSAGE");
    assert.equal(received.length, 4, "a redirect is not followed");
    assert.equal(new Set(received.map(({ body }) => `${body}`)).size, 1);
    const headers = received.map(({ headers }) => headers.authorization);
    assert.equal(new Set(headers).size, 1);
    const statuses = delivery.attempts.map(({ status }) => status);
    assert.deepEqual(statuses, [0, 500, 302, 204]);
    assert.notEqual(delivery.attempts[0]?.answer, "");
    assert.equal(delivery.attempts[1]?.answer, body.slice(0, 1024));
    assert.equal(delivery.delivered, true);
    assert.deepEqual(shown, ["0 false", "500 false", "302 false", "204 true"]);
  });
});

test("a webhook waits longer before each repeat, and ends with the third", () =>
  withReceiver({ answers: [401], retryDelay: 20 }, async (sandbox, app) => {
    const delivery = await sandbox.trigger("NEW_MESSAGE");
    assert.equal(delivery.delivered, false);
    assert.equal(delivery.attempts.length, 4);
    const times = app.received.map(({ time }) => time);
    const waits = times.slice(1).map((time, i) => time - times[i]!);
    // A timer may be early by a part of a millisecond.
    for (const [i, least] of [19, 39, 79].entries()) {
      assert.ok(waits[i]! >= least, `${waits}`);
    }
  }));

test("a webhook to a port where nothing listens says so", () =>
  withReceiver({}, async (sandbox, receiver) => {
    await receiver.stop();
    const { attempts, delivered } = await sandbox.trigger(1);
    assert.equal(delivered, false);
    assert.equal(attempts.length, 4);
    for (const { status, answer } of attempts) {
      assert.equal(status, 0);
      assert.match(answer, /ECONNREFUSED|refused/i);
    }
  }));

test("stop() ends a webhook under way", () =>
  withReceiver(
    { answers: ["hang"] },
    async (sandbox, { arrived }) => {
      const sent = sandbox.trigger(1);
      await arrived;
      await sandbox.stop();
      const { delivered, attempts } = await sent;
      assert.deepEqual([delivered, attempts.length], [false, 1]);
    },
  ));

// === Events

test("deauthorize() tells the app, once for each shop", () =>
  withReceiver({}, async (sandbox, { received }) => {
    const idle = await sandbox.deauthorize("Harbour & Finch");
    assert.deepEqual(idle, [], "it was not authorized");
    const { data } = await authorize(sandbox);
    const told = await sandbox.deauthorize(String(data.open_id));
    assert.ok(told.every(({ delivered }) => delivered));
    const events = received.map(({ body }) => parseWebhook(body));
    assert.deepEqual(events.map(({ type }) => type), [6, 6, 6]);
    const shops = events.map(({ shopId }) => shopId).sort();
    assert.deepEqual(shops, ["7495540735365777507", "8600001", "8600002"]);
    assert.match(String(events[0]?.data.message), /is deauthorized from your/);
    assert.deepEqual(await sandbox.deauthorize(0), [], "it has ended already");
  }));

test("deauthorize() sends nothing where no URL is known", () =>
  withSandbox({}, async (sandbox) => {
    await authorize(sandbox);
    assert.deepEqual(await sandbox.deauthorize(0), []);
  }));

test("an authorization that ends within 30 days is told, once a day", () => {
  const day = 86_400_000;
  let now = Date.now();
  const told: string[] = [];
  let isTold = () => {};
  const options: SandboxOptions = {
    now: () => now,
    refreshTokenLife: 30 * 86_400,
    accessTokenLife: 60,
    sellers: [{
      openId: "7010aONE",
      name: "One",
      region: "GB",
      userType: 0,
      scopes: [],
      shops: [{
        cipher: "c",
        code: "c",
        id: "71",
        name: "One",
        region: "GB",
        seller_type: "LOCAL",
      }],
    }],
    onDelivery: ({ body }) => (told.push(body), isTold()),
  };
  return withReceiver(options, async (sandbox) => {
    const { refreshEndpoint, appKey, appSecret } = sandbox;
    const refresh = async (token: string) => {
      const query = new URLSearchParams({
        app_key: appKey,
        app_secret: appSecret,
        refresh_token: token,
        grant_type: "refresh_token",
      });
      const reply = await fetch(`${refreshEndpoint}?${query}`);
      return (await reply.json()).data.refresh_token as string;
    };
    const next = () => new Promise<void>((resolve) => isTold = resolve);
    let telling = next();
    const { data } = await authorize(sandbox);
    await telling;
    const event = parseWebhook(told[0]!);
    assert.equal(event.type, 7);
    assert.equal(event.expirationTime, data.refresh_token_expire_in);
    assert.equal(typeof event.data.expiration_time, "string");
    assert.match(String(event.data.message), / is expiring in 30 days\./);
    const token = await refresh(String(data.refresh_token));
    now += day;
    telling = next();
    await refresh(token);
    await telling;
    assert.equal(told.length, 2, "not for the refresh of the first day");
    assert.match(told[1]!, / is expiring in 29 days\./);
    const ids = told.map((body) => parseWebhook(body).notificationId);
    assert.notEqual(ids[0], ids[1]);
  });
});

test("an authorization that lasts longer is not told", () =>
  withReceiver({ refreshTokenLife: 31 * 86_400 }, async (sandbox, app) => {
    await authorize(sandbox);
    await sandbox.trigger(1);
    const types = app.received.map(({ body }) => parseWebhook(body).type);
    assert.deepEqual(types, [1]);
  }));

// === The program

const PROGRAM = fileURLToPath(
  new URL("../../scripts/sandbox.ts", import.meta.url),
);
const run = (...args: string[]) => start([...runtimeCommand(PROGRAM), ...args]);

test("sandbox trigger sends a webhook and shows what came back", async () => {
  const body = '{"ok":true}\x1b[31m\x9b\u202e';
  const app = await startReceiver({ status: 202, body });
  const sandbox = await startSandbox();
  try {
    const data = '{"product_id": 9223372036854775807, "é": [1]}';
    const { code, stdout, stderr } = await run(
      ...["trigger", "product_creation", "--to", app.url, "--data", data],
      ...["--seller", "Łódź & Co,PL"],
    ).ended;
    assert.equal(code, 0, stderr);
    const [{ body: sent, headers }] = app.received as [Received];
    assert.equal(stdout, `${sent}\n`);
    assert.ok(verifyWebhook(sandbox, sent, String(headers.authorization)));
    assert.match(`${sent}`, /"product_id":9223372036854775807,.*"é":\[1\]/);
    assert.match(parseWebhook(sent).shopId, /^749\d{16}$/);
    assert.equal(
      stderr.trimEnd(),
      `webhook PRODUCT_CREATION ${app.url} 202 ` +
        String.raw`"{\"ok\":true}\u001b[31m\u009b\u202e"`,
    );
  } finally {
    await sandbox.stop();
    await app.stop();
  }
});

test("sandbox trigger says with its exit code that nobody took it", async () => {
  const app = await startReceiver(503);
  await app.stop();
  const { code, stdout, stderr } = await run("trigger", "6", "--to", app.url)
    .ended;
  assert.deepEqual([code, stdout], [1, ""]);
  const lines = stderr.trimEnd().split("\n");
  assert.equal(lines.length, 4, stderr);
  assert.match(
    lines[3]!,
    /^webhook SELLER_DE.* no answer \(4 of 4\) ".*refused/i,
  );
});

test("sandbox trigger refuses what it cannot send", async () => {
  const to = ["--to", "http://127.0.0.1:1/"];
  const wrong: [string[], RegExp][] = [
    [["trigger"], /^One TYPE of webhook is needed; see --help/],
    [["trigger", "1", "2", ...to], /^One TYPE of webhook is needed/],
    [["trigger", "1"], /^"--to URL" is missing/],
    [["trigger", "2", ...to], /^Unknown webhook type "2"; known are 1 ORDER/],
    [["trigger", "1", "--to", "x:y"], /^Not an http or https URL for webhook/],
    [["trigger", "1", ...to, "--data", "[1]"], /^Not a JSON object: "\[1\]"/],
    [["trigger", "1", ...to, "--data", '{"a":}'], /^Not a JSON object: "\{"a/],
    [["trigger", "1", ...to, "--seller", " ,DE"], /^No seller's name: " ,DE"/],
    [["trigger", "1", ...to, "--port", "1"], /^Unknown option "--port"/],
    [["--webhook", "nowhere"], /^Not an http or https URL for webhooks: "now/],
  ];
  await Promise.all(wrong.map(async ([args, message]) => {
    const { code, stdout, stderr } = await run(...args).ended;
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr, message);
  }));
});

test("--webhook and --seller serve what their names say", async () => {
  const app = await startReceiver(200);
  const program = run(
    ...["--port", "0", "--json", "--webhook", app.url],
    ...["--seller", "Łódź & Co,PL", "--seller", "Aurora"],
  );
  try {
    const [line] = await program.until(/^\{"origin".*\}$/m);
    const sandbox = JSON.parse(line!);
    const link = `${sandbox.authorizationEndpoint}?service_id=` +
      sandbox.serviceId;
    const redirect = await approve(link, { seller: "łódź & co" });
    const code = new URL(redirect).searchParams.get("code") ?? "";
    const { data } = await exchangeCode(sandbox, code, sandbox);
    assert.equal(data.seller_name, "Łódź & Co");
    assert.equal(data.seller_base_region, "PL");
    await approve(link, { seller: "Harbour & Finch" });
    await approve(link, { seller: "aurora" });
    const form = { action: "deauthorize", seller: String(data.open_id) };
    const headers = { origin: sandbox.origin };
    const body = new URLSearchParams(form);
    const init = { method: "POST", headers, body, redirect: "manual" } as const;
    await (await fetch(sandbox.origin, init)).body?.cancel();
    const [told] = await program.until(/^\{"webhook".*\}$/m);
    const { notificationId } = parseWebhook(app.received[0]!.body);
    assert.deepEqual(JSON.parse(told!), {
      webhook: "SELLER_DEAUTHORIZATION",
      type: 6,
      notificationId,
      to: app.url,
      attempt: 1,
      status: 200,
      answer: "",
      delivered: true,
    });
  } finally {
    program.child.kill("SIGINT");
    await program.ended;
    await app.stop();
  }
});
