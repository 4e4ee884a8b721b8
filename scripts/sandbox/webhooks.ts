/**
 * Webhooks: an example of each published type, TikTok's signature, and the
 * delivery with its repeats.
 *
 * Sources: TikTok Shop Partner Center, "TikTok Shop webhooks overview" and the
 * page of each topic.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { createHmac, randomBytes } from "node:crypto";
import { type IncomingMessage, request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { ordersOf, productsOf } from "./catalogue.ts";
import {
  accountAt,
  checkedUrl,
  type Grant,
  grantsOf,
  seconds,
  type World,
} from "./data.ts";
import type {
  SandboxAttempt,
  SandboxDelivery,
  SandboxShop,
  SandboxTrigger,
  SandboxWebhook,
} from "./types.ts";

/** The number of each published type. */
export const SANDBOX_WEBHOOKS: Readonly<Record<SandboxWebhook, number>> = {
  ORDER_STATUS_CHANGE: 1,
  RECIPIENT_ADDRESS_UPDATE: 3,
  PACKAGE_UPDATE: 4,
  PRODUCT_STATUS_CHANGE: 5,
  SELLER_DEAUTHORIZATION: 6,
  UPCOMING_AUTHORIZATION_EXPIRATION: 7,
  CANCELLATION_STATUS_CHANGE: 11,
  RETURN_STATUS_CHANGE: 12,
  NEW_CONVERSATION: 13,
  NEW_MESSAGE: 14,
  PRODUCT_INFORMATION_CHANGE: 15,
  PRODUCT_CREATION: 16,
  PRODUCT_CATEGORY_CHANGE: 18,
  NEW_MESSAGE_LISTENER: 33,
  INVOICE_STATUS_CHANGE: 36,
  PRODUCT_AUDIT_STATUS_CHANGE: 37,
};

/**
 * A type by its name in any case, or by its number.
 *
 * @throws {RangeError} for a type that is not published
 */
export function webhookNamed(type: string | number): SandboxWebhook {
  const wanted = String(type).toUpperCase();
  for (const [name, number] of Object.entries(SANDBOX_WEBHOOKS)) {
    if (wanted === name || wanted === `${number}`) {
      return name as SandboxWebhook;
    }
  }
  const known = Object.entries(SANDBOX_WEBHOOKS)
    .map(([name, number]) => `${number} ${name}`);
  throw new RangeError(
    `Unknown webhook type "${type}"; known are ${known.join(", ")}`,
  );
}

// === Messages

/** What a webhook is about. */
export interface Subject {
  shopId: string;
  orderId: string;
  orderStatus: string;
  productId: string;
  /** Seconds. */
  time: number;
  /** When the seller's authorization ends, in seconds. */
  authorizationEnds: number;
}

type Data = Record<string, unknown>;

const CHAT = "576486316948490001";

/** TikTok sends some ids of products as numbers that no double can hold. */
const EXAMPLES: Readonly<Record<SandboxWebhook, (about: Subject) => Data>> = {
  ORDER_STATUS_CHANGE: ({ orderId, orderStatus, time }) => ({
    is_on_hold_order: orderStatus === "ON_HOLD",
    order_id: orderId,
    order_status: orderStatus,
    update_time: time,
  }),
  RECIPIENT_ADDRESS_UPDATE: ({ orderId, time }) => ({
    order_id: orderId,
    update_time: time,
  }),
  PACKAGE_UPDATE: ({ orderId, time }) => ({
    sc_type: "SPLIT",
    role_type: "ROLE_SELLER",
    package_list: [
      { package_id: "1152921504606900001", order_id_list: [orderId] },
      { package_id: "1152921504606900002", order_id_list: [orderId] },
    ],
    update_time: time,
  }),
  PRODUCT_STATUS_CHANGE: ({ productId, time }) => ({
    product_id: BigInt(productId),
    status: "PRODUCT_AUDIT_FAILURE",
    suspended_reason: "The main image shows another brand",
    update_time: time,
  }),
  SELLER_DEAUTHORIZATION: ({ shopId }) => ({
    message: `Shop_id ${shopId} is deauthorized from your APP by merchant.`,
  }),
  UPCOMING_AUTHORIZATION_EXPIRATION: (about) => ({
    message: `Authorization of shop_id ${about.shopId} is expiring in ` +
      `${Math.ceil((about.authorizationEnds - about.time) / 86_400)} days. ` +
      "Please direct the merchant to re-authorize.",
    expiration_time: String(about.authorizationEnds),
  }),
  CANCELLATION_STATUS_CHANGE: ({ orderId, time }) => ({
    order_id: orderId,
    cancellations_role: "BUYER",
    cancel_status: "CANCELLATION_REQUEST_PENDING",
    cancel_id: "4035318504086604100",
    create_time: time,
  }),
  RETURN_STATUS_CHANGE: ({ orderId, time }) => ({
    order_id: orderId,
    return_role: "BUYER",
    return_type: "REFUND",
    return_status: "RETURN_OR_REFUND_REQUEST_PENDING",
    return_id: "4035318504086604101",
    create_time: time,
    update_time: time,
  }),
  NEW_CONVERSATION: ({ time }) => ({
    conversation_id: CHAT,
    create_time: time,
  }),
  NEW_MESSAGE: ({ time }) => ({
    content: JSON.stringify({ content: "Bonjour, où est ma commande ? 👋" }),
    conversation_id: CHAT,
    create_time: time,
    is_visible: true,
    message_id: "7494560109732334263",
    index: "7494560109732334274",
    type: "TEXT",
    sender: { im_user_id: "7494560109732334261", role: "BUYER" },
  }),
  PRODUCT_INFORMATION_CHANGE: ({ productId, time }) => ({
    product_id: productId,
    change_source: "SELLER_CENTER",
    changed_fields: ["title", "main_images"],
    update_time: time,
  }),
  PRODUCT_CREATION: ({ productId, time }) => ({
    product_id: BigInt(productId),
    product_types: ["COMBINED_PRODUCT"],
    update_time: time,
  }),
  PRODUCT_CATEGORY_CHANGE: ({ productId, time }) => ({
    product_id: productId,
    previous_category_id: "600001",
    current_category_id: "600009",
    update_time: time,
  }),
  NEW_MESSAGE_LISTENER: ({ time }) => ({
    index: "1735032460678899",
    message_id: "7451907556216407553",
    conversation_id: "7451873679308620048",
    msg_type: "TEXT",
    content: JSON.stringify({ content: "May I have a sample?" }),
    create_time: String(time),
    sender: { sender_im_user_id: "2368694990397660924" },
  }),
  INVOICE_STATUS_CHANGE: ({ orderId }) => ({
    package_id: "1152921504606900001",
    order_ids: [orderId],
    invoice_status: "INVALID",
    invalid_reason: "NOT_FOUND",
  }),
  PRODUCT_AUDIT_STATUS_CHANGE: ({ productId, time }) => ({
    product_id: BigInt(productId),
    audit: { status: "PRE_APPROVED", pre_approved_reasons: ["KYC_PENDING"] },
    integrated_platform_statuses: { platform: "TOKOPEDIA", status: "AUDITING" },
    update_time: time,
  }),
};

/** A webhook to send. Members of `data` replace those of the example. */
export function newDelivery(
  name: SandboxWebhook,
  to: string,
  subject: Subject,
  data: Data = {},
): SandboxDelivery {
  const digits = randomBytes(8).readBigUInt64BE() % 10n ** 18n;
  const notificationId = `7${String(digits).padStart(18, "0")}`;
  const type = SANDBOX_WEBHOOKS[name];
  const body = jsonText({
    type,
    tts_notification_id: notificationId,
    shop_id: subject.shopId,
    timestamp: subject.time,
    data: { ...EXAMPLES[name](subject), ...data },
  });
  return {
    name,
    type,
    notificationId,
    to,
    body,
    attempts: [],
    delivered: false,
  };
}

/** JSON, in which a bigint is a number. */
function jsonText(value: unknown): string {
  if (typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map(jsonText).join(",")}]`;
  if (typeof value !== "object" || value === null) {
    return JSON.stringify(value) ?? "null";
  }
  const members = Object.entries(value)
    .map(([name, member]) => `${JSON.stringify(name)}:${jsonText(member)}`);
  return `{${members.join(",")}}`;
}

// === Delivery

/** How webhooks are sent. */
export interface Sender {
  appKey: string;
  appSecret: string;
  /** Milliseconds until the first repeat. */
  retryDelay: number;
  signal: AbortSignal;
  /** Called after each attempt, the first and the repeats. */
  onAttempt: (delivery: SandboxDelivery) => void;
}

/** How often a webhook is repeated that the app does not take. */
export const REPEATS = 3;
const ANSWER_TIMEOUT_MS = 10_000;
const KEPT_ANSWER = 1024; // characters

/**
 * Sends a webhook until the app takes it with a 2xx. Each repeat is the same
 * bytes, after a longer wait. The waits are ours: TikTok's are unknown.
 */
export async function deliver(
  delivery: SandboxDelivery,
  sender: Sender,
): Promise<SandboxDelivery> {
  const { retryDelay, signal, onAttempt } = sender;
  for (let turn = 0; turn <= REPEATS; turn++) {
    const wait = turn === 0 ? 0 : retryDelay * 2 ** (turn - 1);
    await delay(wait, undefined, { signal }).catch(() => {});
    if (signal.aborted) break;
    const attempt = await post(delivery, sender);
    delivery.attempts.push(attempt);
    delivery.delivered = attempt.status >= 200 && attempt.status < 300;
    onAttempt(delivery);
    if (delivery.delivered) break;
  }
  return delivery;
}

/** HMAC-SHA256 of key and body, keyed with the secret, as lower-case hex. */
function signatureOf(body: string, { appKey, appSecret }: Sender): string {
  return createHmac("sha256", appSecret).update(appKey + body).digest("hex");
}

/** Sends it once: through no proxy, and no redirect is followed. */
function post(
  { to, body }: SandboxDelivery,
  sender: Sender,
): Promise<SandboxAttempt> {
  const request = to.startsWith("https:") ? httpsRequest : httpRequest;
  const timeout = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  return new Promise((resolve) => {
    const fail = (error: unknown) => {
      const late = `No answer within ${ANSWER_TIMEOUT_MS / 1000} seconds`;
      const reason = timeout.aborted ? late : (error as Error).message;
      resolve({ status: 0, answer: reason });
    };
    const sent = request(to, {
      method: "POST",
      agent: false,
      signal: AbortSignal.any([sender.signal, timeout]),
      headers: {
        "content-type": "application/json",
        "content-length": Buffer.byteLength(body),
        "authorization": signatureOf(body, sender),
      },
    }, (response) => {
      const status = response.statusCode ?? 0;
      startOf(response).then((answer) => resolve({ status, answer }), fail);
    });
    sent.once("error", fail);
    sent.end(body);
  });
}

/** Reads an answer to its end, and keeps only its start. */
async function startOf(response: IncomingMessage): Promise<string> {
  let text = "";
  response.setEncoding("utf8");
  for await (const chunk of response) {
    text += chunk.slice(0, KEPT_ANSWER - text.length);
  }
  return text;
}

// === Events

const KEPT_DELIVERIES = 100;
/** TikTok warns of the end of an authorization this long before, daily. */
const WARNING_DAYS = 30;
const DAY = 86_400; // seconds

/**
 * Sends a webhook of a type to a URL, or to the app's own.
 *
 * @throws {RangeError} for a type or a seller that does not exist
 * @throws {TypeError} without an http or https URL
 */
// deno-lint-ignore require-await -- it rejects, and does not throw
export async function trigger(
  world: World,
  type: string | number,
  options: SandboxTrigger = {},
): Promise<SandboxDelivery> {
  const { to = world.settings.webhookUrl, seller = 0, data } = options;
  const name = webhookNamed(type);
  if (to === "") throw new TypeError(`Cannot send ${name}: no URL is given`);
  const account = accountAt(world, seller);
  const [shop] = account.shops;
  return send(world, name, checkedUrl(to, "URL for webhooks"), shop, { data });
}

/**
 * Ends the grants of a seller, and tells the app so for each shop.
 *
 * @throws {RangeError} for a seller that does not exist
 */
export function deauthorize(
  world: World,
  which: string | number,
): Promise<SandboxDelivery[]> {
  const seller = accountAt(world, which);
  const grants = grantsOf(world, seller);
  for (const grant of grants) grant.ended = true;
  const { webhookUrl } = world.settings;
  const shops = webhookUrl === "" || grants.length === 0 ? [] : seller.shops;
  return Promise.all(
    shops.map((shop) =>
      send(world, "SELLER_DEAUTHORIZATION", webhookUrl, shop)
    ),
  );
}

/** Warns the app, once a day, that an authorization ends within 30 days. */
export function warnOfEnd(world: World, grant: Grant): void {
  const { webhookUrl } = world.settings;
  const now = seconds(world);
  const isNear = grant.expires - now <= WARNING_DAYS * DAY;
  if (webhookUrl === "" || !isNear || now - grant.warned < DAY) return;
  grant.warned = now;
  const name = "UPCOMING_AUTHORIZATION_EXPIRATION";
  for (const shop of grant.seller.shops) {
    void send(world, name, webhookUrl, shop, { ends: grant.expires });
  }
}

function send(
  world: World,
  name: SandboxWebhook,
  to: string,
  shop: SandboxShop | undefined,
  { data, ends }: { data?: Data; ends?: number } = {},
): Promise<SandboxDelivery> {
  const { appKey, appSecret, seed, retryDelay, onDelivery } = world.settings;
  const time = seconds(world);
  const subject = { ...subjectOf(seed, shop), time };
  const authorizationEnds = ends ?? time + WARNING_DAYS * DAY;
  const delivery = newDelivery(
    name,
    to,
    { ...subject, authorizationEnds },
    data,
  );
  world.deliveries.push(delivery);
  if (world.deliveries.length > KEPT_DELIVERIES) world.deliveries.shift();
  const { signal } = world.stopping;
  const sender = { appKey, appSecret, retryDelay, signal };
  return deliver(delivery, { ...sender, onAttempt: onDelivery });
}

/** The newest order and the first product of a shop: the API knows them. */
function subjectOf(seed: string, shop: SandboxShop | undefined) {
  if (shop === undefined) { // a creator's
    return { shopId: "", orderId: "0", orderStatus: "UNPAID", productId: "0" };
  }
  const [order] = ordersOf(seed, shop);
  const [product] = productsOf(seed, shop);
  return {
    shopId: shop.id,
    orderId: order!.id,
    orderStatus: order!.status,
    productId: product!.id,
  };
}
