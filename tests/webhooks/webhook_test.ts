/**
 * verifyWebhook() and parseWebhook(): the published vector, everything that
 * must not pass, and a server that takes webhooks as the README shows it.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
import { createServer, type Server } from "node:http";
import { test } from "node:test";
import { runInNewContext } from "node:vm";
import {
  type AuthorizationEndingEvent,
  parseWebhook,
  TikTokShopError,
  verifyWebhook,
} from "../../mod.ts";

// === Helpers

/** The official guide's app, body and signature. */
const APP = { appKey: "abcdef", appSecret: "123" };
const BODY = `{"type":1,"tts_notification_id":"7380066284010030890",` +
  `"shop_id":"7495540735365777507","timestamp":1718305585,"data":` +
  `{"is_on_hold_order":true,"order_id":"576653688135258178",` +
  `"order_status":"UNPAID","update_time":1718305585}}`;
const SIGNATURE =
  "5dec0f11ec2f6783b8deee53c9ffbf8d024302f7c7e7fa55a35d17629031ac05";

/** What TikTok would send in the header. */
function signed(body: string | Uint8Array): string {
  const { appKey, appSecret } = APP;
  return createHmac("sha256", appSecret).update(appKey).update(body)
    .digest("hex");
}

/** The body of an event; `data` is JSON text. */
function event(type: unknown, data = "{}"): string {
  return `{"type":${JSON.stringify(type)},"tts_notification_id":"N1",` +
    `"shop_id":"8600001","timestamp":1644412885,"data":${data}}`;
}

// === verifyWebhook()

test("verifyWebhook() approves the published signature", () => {
  const bytes = new TextEncoder().encode(BODY);
  assert.equal(verifyWebhook(APP, BODY, SIGNATURE), true);
  assert.equal(verifyWebhook(APP, bytes, SIGNATURE), true);
  assert.equal(verifyWebhook(APP, Buffer.from(BODY), SIGNATURE), true);
});

test("verifyWebhook() and parseWebhook() take the bytes in any form", () => {
  const whole = Buffer.from(`##${BODY}##`); // a part of a larger memory
  const bytes = whole.subarray(2, -2);
  const { buffer, byteOffset, byteLength } = bytes;
  const own = new Uint8Array(bytes);
  const shared = new SharedArrayBuffer(byteLength);
  new Uint8Array(shared).set(bytes);
  const forms = [
    bytes,
    own.buffer,
    new DataView(buffer, byteOffset, byteLength),
    new Uint8ClampedArray(own),
    new Uint8Array(shared),
    runInNewContext("ArrayBuffer.prototype.slice.call(bytes)", {
      bytes: own.buffer,
    }),
  ];
  for (const form of forms) {
    assert.equal(verifyWebhook(APP, form, SIGNATURE), true);
    assert.equal(parseWebhook(form).type, 1);
    assert.equal(verifyWebhook(APP, form, signed("{}")), false);
  }
});

test("verifyWebhook() and parseWebhook() refuse what is no raw body", () => {
  const parsed = JSON.parse(BODY);
  const others = [
    ...[parsed, {}, [parsed], [123, 125], undefined, null, 5, true, 1n],
    ...[Symbol("body"), () => BODY, new Map(), new Blob([BODY])],
    ...[new String(BODY), new Request("http://h", { method: "POST" })],
    new URLSearchParams(BODY),
  ];
  for (const body of others as string[]) {
    for (
      const call of [
        () => verifyWebhook(APP, body, SIGNATURE),
        () => verifyWebhook(APP, body, null),
        () => parseWebhook(body),
      ]
    ) {
      assert.throws(call, {
        name: "TypeError",
        code: "ERR_MISUSE",
        message:
          /^Cannot use .*: hand over .*raw body, before any JSON middlew/,
      });
    }
  }
});

test("verifyWebhook() approves upper-case hex", () => {
  assert.equal(verifyWebhook(APP, BODY, SIGNATURE.toUpperCase()), true);
});

/** Headers that prove nothing. */
const UNPROVEN: [string, string | null | undefined][] = [
  ["no header", undefined],
  ["a null header", null],
  ["an empty one", ""],
  ["a Bearer", `Bearer ${SIGNATURE}`],
  ["a space before it", ` ${SIGNATURE}`],
  ["a line end after it", `${SIGNATURE}\n`],
  ["another signature", signed("{}")],
  ["zeros", "0".repeat(64)],
  ["one digit less", SIGNATURE.slice(0, -1)],
  ["one digit more", `${SIGNATURE}0`],
  ["it twice", SIGNATURE + SIGNATURE],
  ["it on two lines", `${SIGNATURE}\n${SIGNATURE}`],
  ["what is not hex", SIGNATURE.replace(/.$/, "g")],
  ["full-width digits", SIGNATURE.replace(/5/g, "５")],
  ["Base64", Buffer.from(SIGNATURE, "hex").toString("base64")],
];

for (const [name, header] of UNPROVEN) {
  test(`verifyWebhook() refuses ${name}`, () => {
    assert.equal(verifyWebhook(APP, BODY, header), false);
  });
}

test("verifyWebhook() refuses a signature with any one bit changed", () => {
  const bytes = Buffer.from(SIGNATURE, "hex");
  for (let bit = 0; bit < 256; bit++) {
    const changed = Buffer.from(bytes);
    changed[bit >> 3]! ^= 1 << (bit & 7);
    const header = changed.toString("hex");
    assert.equal(verifyWebhook(APP, BODY, header), false, `bit ${bit}`);
  }
});

test("verifyWebhook() refuses a body with any one bit changed", () => {
  const bytes = Buffer.from(BODY);
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed[at]! ^= 1 << (at & 7);
    assert.equal(verifyWebhook(APP, changed, SIGNATURE), false, `byte ${at}`);
  }
});

test("verifyWebhook() refuses a body that was parsed and written again", () => {
  const spaced = BODY.replace("{", "{ ");
  const again = JSON.stringify(JSON.parse(spaced));
  assert.equal(verifyWebhook(APP, spaced, signed(spaced)), true);
  assert.equal(verifyWebhook(APP, again, signed(spaced)), false);
});

test("verifyWebhook() refuses another app's key or secret", () => {
  for (const other of [{ appKey: "abcdeF" }, { appSecret: "1234" }]) {
    assert.equal(verifyWebhook({ ...APP, ...other }, BODY, SIGNATURE), false);
  }
});

test("verifyWebhook() approves bodies that are not ASCII, or no text", () => {
  const text = event(1, '{"name":"東京 é 😀"}');
  assert.equal(verifyWebhook(APP, text, signed(text)), true);
  const bytes = new TextEncoder().encode(text);
  assert.equal(verifyWebhook(APP, bytes, signed(text)), true);
  const odd = Uint8Array.of(0xff, 0xfe, 0x00, 0x80);
  assert.equal(verifyWebhook(APP, odd, signed(odd)), true);
  // The text it would be decoded to is another body.
  const decoded = new TextDecoder().decode(odd);
  assert.equal(verifyWebhook(APP, decoded, signed(odd)), false);
  assert.equal(verifyWebhook(APP, "", signed("")), true);
});

test("verifyWebhook() throws a TypeError when there is no app secret", () => {
  // Anybody could sign with an empty secret.
  const header = createHmac("sha256", "").update(APP.appKey).update(BODY)
    .digest("hex");
  assert.throws(
    () => verifyWebhook({ ...APP, appSecret: "" }, BODY, header),
    { name: "TypeError", message: /app secret is missing/ },
  );
});

// === parseWebhook()

test("parseWebhook() reads the published event", () => {
  const expected = {
    type: 1,
    notificationId: "7380066284010030890",
    shopId: "7495540735365777507",
    timestamp: 1718305585,
    data: {
      is_on_hold_order: true,
      order_id: "576653688135258178",
      order_status: "UNPAID",
      update_time: 1718305585,
    },
  };
  assert.deepEqual(parseWebhook(BODY), expected);
  assert.deepEqual(parseWebhook(new TextEncoder().encode(BODY)), expected);
});

test("parseWebhook() knows that the seller deauthorized the app", () => {
  const data = '{"message":"The seller has unlinked the app"}';
  const parsed = parseWebhook(event(6, data));
  assert.equal(parsed.type, 6);
  assert.deepEqual(parsed.data, JSON.parse(data));
  assert.equal("expirationTime" in parsed, false);
});

test("parseWebhook() knows when an authorization ends, sent as text", () => {
  for (const time of ['"1627587506"', "1627587506", '"4841467787"']) {
    const data = `{"message":"Soon","expiration_time":${time}}`;
    const parsed = parseWebhook(event(7, data));
    assert.ok(parsed.type === 7 && parsed.expirationTime !== undefined);
    const { type, expirationTime }: AuthorizationEndingEvent = parsed;
    assert.equal(expirationTime, Number(time.replaceAll('"', "")));
    assert.equal(type, 7);
  }
});

test("parseWebhook() keeps an event 7 whose time is missing or no time", () => {
  for (const data of ["{}", '{"expiration_time":"soon"}', "null", "[]"]) {
    const parsed = parseWebhook(event(7, data));
    assert.ok(Number.isNaN(parsed.expirationTime), data);
  }
});

test("parseWebhook() reads a type that was sent as text", () => {
  assert.equal(parseWebhook(event("6")).type, 6);
  assert.ok("expirationTime" in parseWebhook(event("7")));
});

test("parseWebhook() passes on events that it does not know", () => {
  const parsed = parseWebhook(event(9001, '{"new":[1]}'));
  assert.equal(parsed.type, 9001);
  assert.deepEqual(parsed.data, { new: [1] });
});

test("parseWebhook() keeps 64-bit ids exact, even if sent as numbers", () => {
  const parsed = parseWebhook(
    `{"type":1,"tts_notification_id":7380066284010030890,` +
      `"shop_id":7495540735365777507,"timestamp":1718305585,` +
      `"data":{"order_id":576653688135258178,"list":[9007199254740993]}}`,
  );
  assert.equal(parsed.notificationId, "7380066284010030890");
  assert.equal(parsed.shopId, "7495540735365777507");
  assert.deepEqual(parsed.data, {
    order_id: 576653688135258178n,
    list: [9007199254740993n],
  });
});

test("parseWebhook() brings data that JSON.stringify takes", () => {
  const parsed = parseWebhook(event(1, '{"order_id":576653688135258178}'));
  assert.match(JSON.stringify(parsed.data), /:"?576653688135258178"?}/);
  assert.match(JSON.stringify(parsed), /"order_id":"?576653688135258178"?}/);
});

test("parseWebhook() fills in what an event leaves out", () => {
  assert.deepEqual(parseWebhook('{"type":6}'), {
    type: 6,
    notificationId: "",
    shopId: "",
    timestamp: NaN,
    data: {},
  });
});

/** Bodies that are no events. */
const GARBAGE: [string, string | Uint8Array][] = [
  ["nothing", ""],
  ["text", "Hello"],
  ["HTML", "<h1>Hello</h1>"],
  ["half of an event", BODY.slice(0, 90)],
  ["null", "null"],
  ["a list", `[${BODY}]`],
  ["a number", "6"],
  ["no type", '{"shop_id":"1"}'],
  ["a type that is no number", '{"type":"six"}'],
  ["a broken type", '{"type":6.5}'],
  ["bytes that are no text", Uint8Array.of(0xff, 0xfe, 0x00)],
];

for (const [name, body] of GARBAGE) {
  test(`parseWebhook() refuses ${name}`, () => {
    assert.throws(() => parseWebhook(body), (error) => {
      assert.ok(error instanceof TikTokShopError);
      assert.equal(error.kind, "invalid_response");
      assert.equal(error.message, "This is no webhook event");
      assert.match(error.hint!, /raw body/);
      return true;
    });
  });
}

// === A server

const told: string[] = [];

/** A whole server, as short as it can be. */
function webhookServer(app: typeof APP): Server {
  return createServer(async (request, response) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks); // raw, not parsed
    const proven = verifyWebhook(app, body, request.headers.authorization);
    response.writeHead(proven ? 200 : 401).end();
    if (!proven) return;
    const event = parseWebhook(body);
    const { shopId, expirationTime } = event;
    if (event.type === 6) told.push(`${shopId} has left`);
    if (expirationTime) told.push(`${shopId} ends at ${expirationTime}`);
  });
}

/** Delivers webhooks to the server; resolves to the statuses. */
async function deliver(
  webhooks: [body: string | Uint8Array, header?: string][],
): Promise<number[]> {
  const server = webhookServer(APP);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const statuses: number[] = [];
  for (const [body, authorization] of webhooks) {
    const headers: Record<string, string> = authorization
      ? { authorization, connection: "close" }
      : { connection: "close" };
    const init = { method: "POST", headers, body: Buffer.from(body as string) };
    const response = await fetch(`http://127.0.0.1:${port}/`, init);
    await response.arrayBuffer();
    statuses.push(response.status);
  }
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  return statuses;
}

test("verifyWebhook() guards a node:http server by the raw body", async () => {
  const ending = event(7, '{"expiration_time":"1627587506","shop":"東京 é"}');
  const leaving = event(6);
  const statuses = await deliver([
    [BODY, SIGNATURE],
    [leaving, signed(leaving)],
    [ending, signed(ending)],
    [ending, SIGNATURE],
    [`${ending} `, signed(ending)],
    [ending, `Bearer ${signed(ending)}`],
    [ending],
    ["", signed(ending)],
  ]);
  assert.deepEqual(statuses, [200, 200, 200, 401, 401, 401, 401, 401]);
  const said = ["8600001 has left", "8600001 ends at 1627587506"];
  assert.deepEqual(told, said);
});
