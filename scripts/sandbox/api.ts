/**
 * The signed API: judges a call as TikTok does, and answers it.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import {
  inventoryOf,
  ordersOf,
  productDetail,
  productsOf,
} from "./catalogue.ts";
import {
  type Call,
  otherSecrets,
  PARTNER,
  seconds,
  type World,
} from "./data.ts";
import {
  explainSignature,
  explainTimestamp,
  explanationHeader,
  judgeSign,
} from "./explain.ts";
import { findOperation, type Mismatch, type Operation } from "./operations.ts";
import {
  type Refusal,
  refusal,
  type Reply,
  success,
  TOKEN_ENDED,
  TOKEN_EXPIRED,
  TOKEN_UNKNOWN,
} from "./replies.ts";
import { ownRoute, routeReply } from "./routes.ts";
import type {
  SandboxExplanation,
  SandboxSeller,
  SandboxShop,
} from "./types.ts";

// === What is called

/** A call that has passed every check. */
interface Asked {
  readonly world: World;
  readonly call: Call;
  readonly seller: SandboxSeller;
  /** The shop that the cipher means, or all of the seller's. */
  readonly shops: readonly SandboxShop[];
}

/** How an operation answers: with `data`, or a refusal in its place. */
interface Known {
  readonly scope?: string;
  /** Where TikTok's reference is silent and TikTok is not. */
  readonly shopCipher?: Operation["shopCipher"];
  readonly data: (asked: Asked) => Record<string, unknown> | Refusal;
}

/** The operations with data, whatever their version. */
const KNOWN: Readonly<Record<string, Known>> = {
  "GET /authorization/shops": {
    scope: "seller.authorization.info",
    data: ({ seller: { shops } }) => ({ shops }),
  },
  "GET /authorization/category_assets": { data: categoryAssets },
  "GET /seller/shops": {
    scope: "seller.shop.info",
    data: ({ seller }) => ({
      shops: seller.shops.map(({ id, region }) => ({ id, region })),
    }),
  },
  "GET /seller/permissions": {
    scope: "seller.shop.info",
    data: () => ({ permissions: ["MANAGE_GLOBAL_PRODUCT"] }),
  },
  "POST /order/orders/search": {
    scope: "seller.order.info",
    shopCipher: "required",
    data: searchOrders,
  },
  "GET /order/orders": { scope: "seller.order.info", data: ordersById },
  "POST /product/products/search": {
    scope: "seller.product.basic",
    data: searchProducts,
  },
  "GET /product/products/{product_id}": {
    scope: "seller.product.basic",
    data: productById,
  },
  "POST /product/inventory/search": {
    scope: "seller.product.basic",
    data: searchInventory,
  },
};

/** What a path and a method lead to. */
interface Route {
  readonly scope?: string;
  readonly shopCipher: Operation["shopCipher"];
  readonly run: (asked: Asked) => Reply;
}

const MISMATCHES: Readonly<Record<Mismatch, Refusal>> = {
  path: [
    36009009,
    "Invalid path. The specified path does not match any available endpoint.",
  ],
  version: [
    36009014,
    "Invalid API version. The `version` value is invalid or unsupported.",
  ],
  method: [
    36009010,
    "Invalid method. The HTTP method used is not supported by this endpoint.",
  ],
};

function routeOf(world: World, { method, path }: Call): Route | Refusal {
  const published = findOperation(method, path);
  const found = typeof published === "string" ? undefined : published;
  const { shopCipher = "optional" } = found ?? {};
  const own = ownRoute(world.routes, method, path);
  if (own) {
    return { shopCipher, run: ({ world }) => routeReply(world, own.reply) };
  }
  if (/^\/echo\/202309\/./.test(path)) return { shopCipher, run: echo };
  if (typeof published === "string") return MISMATCHES[published];
  const known = KNOWN[`${method} ${published.path.replace(/\/\d{6}/, "")}`];
  return { shopCipher, ...known, run: (asked) => replyOf(asked, known) };
}

function replyOf(asked: Asked, known?: Known): Reply {
  const { world, call } = asked;
  const data = known ? known.data(asked) : {};
  return isRefusal(data)
    ? refusal(world, call, data)
    : success(world, JSON.stringify(data));
}

function isRefusal(value: unknown): value is Refusal {
  return Array.isArray(value) && typeof value[0] === "number";
}

// === Checks

/** Path first, as at TikTok's; then app, clock, sign, token, scope, cipher. */
export function api(world: World, call: Call): Reply {
  const route = routeOf(world, call);
  if (isRefusal(route)) return refusal(world, call, route);
  const unready = appRefusal(world, call);
  if (unready) {
    return explained(refusal(world, call, unready), explainTimestamp(call));
  }
  const { isRight, note } = judgeSign(call, world.settings.appSecret);
  if (!isRight) return signRefusal(world, call);
  const seller = sellerOf(world, call);
  if (isRefusal(seller)) return refusal(world, call, seller);
  const shops = shopsOf(call, route, seller);
  if (isRefusal(shops)) return refusal(world, call, shops);
  const reply = route.run({ world, call, seller, shops });
  return { ...reply, note: reply.note ?? note };
}

function signRefusal(world: World, call: Call): Reply {
  const { appKey, appSecret } = world.settings;
  const shops = world.accounts.flatMap((account) => account.shops);
  const known = {
    appKey,
    otherSecrets: otherSecrets(world.settings),
    ciphers: shops.map((shop) => shop.cipher),
  };
  return explained(
    refusal(world, call, SIGN_INVALID),
    explainSignature(call, appSecret, known),
  );
}

function explained(reply: Reply, explanation?: SandboxExplanation): Reply {
  if (!explanation) return reply;
  const headers = { "x-sandbox-explain": explanationHeader(explanation) };
  return { ...reply, headers, explanation };
}

/** App and clock, and that there is a sign. */
function appRefusal(world: World, { query }: Call): Refusal | undefined {
  if (query.get("app_key") !== world.settings.appKey) {
    return [
      36009004,
      "Invalid credentials. Invalid `app_key` query parameter.",
    ];
  }
  const timestamp = query.get("timestamp") ?? "";
  const age = seconds(world) - Number(timestamp);
  const must = !/^\d+$/.test(timestamp)
    ? "not be lesser than 0"
    : age > 300
    ? "not be earlier than 5 minutes before the current time"
    : age < -30
    ? "not exceed the current time by more than 30 seconds"
    : undefined;
  if (must !== undefined) {
    const what = "The value of the `timestamp` query parameter";
    return [36009004, `Invalid timestamp. ${what} must ${must}.`];
  }
  return query.has("sign") ? undefined : SIGN_MISSING;
}

function sellerOf(world: World, call: Call): SandboxSeller | Refusal {
  const token = call.headers["x-tts-access-token"];
  const access = world.accessTokens.get(token ?? "");
  if (access === undefined) return TOKEN_UNKNOWN;
  if (access.ended || access.grant.ended) return TOKEN_ENDED;
  if (access.expires <= seconds(world)) return TOKEN_EXPIRED;
  return access.grant.seller;
}

/** The shops that the call may see, once scope and cipher are right. */
function shopsOf(
  { query }: Call,
  { scope, shopCipher }: Route,
  seller: SandboxSeller,
): readonly SandboxShop[] | Refusal {
  if (scope !== undefined && !seller.scopes.includes(scope)) {
    return ACCESS_DENIED;
  }
  const cipher = query.get("shop_cipher");
  if (cipher === null) {
    return shopCipher === "required" ? CIPHER_MISSING : seller.shops;
  }
  if (shopCipher === "none") return CIPHER_UNWANTED;
  const shops = seller.shops.filter((shop) => shop.cipher === cipher);
  return shops.length > 0 ? shops : CIPHER_INVALID;
}

const SIGN_MISSING: Refusal = [
  36009004,
  "Missing credentials. The request does not include a required signature " +
  "in the query.",
];
const SIGN_INVALID: Refusal = [
  106001,
  "Invalid credentials. The `sign` query parameter is invalid.",
];
const ACCESS_DENIED: Refusal = [
  105005,
  "Access denied. The app is not authorized to access the endpoint because " +
  "the access scopes granted for the app or the access token do not contain " +
  "the required access scope for the endpoint.",
];
const CIPHER_MISSING: Refusal = [
  106013,
  "Missing identifier. The `shop_cipher` query parameter is required to " +
  "identify the target shop.",
];
const CIPHER_UNWANTED: Refusal = [
  36009004,
  "Unexpected identifier. The `shop_cipher` query parameter is not required " +
  "for this request.",
];
// TikTok's words for a cipher of another shop are not known.
const CIPHER_INVALID: Refusal = [
  36009004,
  "Invalid identifier. The `shop_cipher` query parameter is invalid.",
];

// === Data

function categoryAssets({ seller }: Asked): Record<string, unknown> | Refusal {
  if (seller.userType !== PARTNER) return ACCESS_DENIED;
  return {
    category_assets: seller.shops.map((shop) => ({
      cipher: shop.cipher,
      target_market: shop.region,
      category: { id: 600001, name: "Home Supplies" },
    })),
  };
}

/** Replies with what came, without the sign, which nobody should log. */
function echo({ world, call }: Asked): Reply {
  const query = Object.fromEntries(call.query);
  delete query.sign;
  return success(
    world,
    JSON.stringify({
      method: call.method,
      path: call.path,
      query,
      body: call.bytes.toString(),
      content_type: call.headers["content-type"] ?? null,
    }),
  );
}

function ordersIn({ world, shops }: Asked) {
  return shops.flatMap((shop) => ordersOf(world.settings.seed, shop));
}

function productsIn({ world, shops }: Asked) {
  return shops.flatMap((shop) => productsOf(world.settings.seed, shop));
}

function searchOrders(asked: Asked): Record<string, unknown> | Refusal {
  const wanted = bodyOf(asked.call);
  if (isRefusal(wanted)) return wanted;
  const orders = ordersIn(asked).filter((order) =>
    isWanted(wanted.order_status, order.status) && isInTime(wanted, order)
  );
  return pageOf(asked.call, "orders", orders);
}

function ordersById(asked: Asked): Record<string, unknown> {
  const ids = (asked.call.query.get("ids") ?? "").split(",");
  return { orders: ordersIn(asked).filter(({ id }) => ids.includes(id)) };
}

function searchProducts(asked: Asked): Record<string, unknown> | Refusal {
  const wanted = bodyOf(asked.call);
  if (isRefusal(wanted)) return wanted;
  const status = wanted.status === "ALL" ? undefined : wanted.status;
  const products = productsIn(asked).filter((product) =>
    isWanted(status, product.status) && isInTime(wanted, product)
  );
  return pageOf(asked.call, "products", products);
}

function productById(asked: Asked): Record<string, unknown> | Refusal {
  const wanted = asked.call.path.split("/").at(-1);
  const product = productsIn(asked).find(({ id }) => id === wanted);
  return product ? productDetail(product) : [12052048, "Product not found"];
}

function searchInventory(asked: Asked): Record<string, unknown> | Refusal {
  const wanted = bodyOf(asked.call);
  if (isRefusal(wanted)) return wanted;
  const { product_ids: products = [], sku_ids: skus = [] } = wanted as {
    product_ids?: unknown[];
    sku_ids?: unknown[];
  };
  const isAsked = [products, skus].every(Array.isArray);
  if (!isAsked) return [36009004, "product_ids and sku_ids must be arrays"];
  const found = productsIn(asked).filter((product) =>
    products.length + skus.length === 0 || products.includes(product.id) ||
    product.skus.some(({ id }) => skus.includes(id))
  );
  return pageOf(asked.call, "inventory", found.map(inventoryOf));
}

function isWanted(wanted: unknown, actual: string): boolean {
  return wanted === undefined || wanted === "" || wanted === actual;
}

/** Judges by `create_time_ge`, `update_time_lt` and their like. */
function isInTime(
  wanted: Record<string, unknown>,
  actual: { create_time: number; update_time: number },
): boolean {
  return (["create_time", "update_time"] as const).every((name) =>
    actual[name] >= Number(wanted[`${name}_ge`] ?? 0) &&
    actual[name] <= Number(wanted[`${name}_le`] ?? Infinity) &&
    actual[name] < Number(wanted[`${name}_lt`] ?? Infinity)
  );
}

function bodyOf(call: Call): Record<string, unknown> | Refusal {
  try {
    const body = JSON.parse(call.bytes.toString() || "{}");
    if (typeof body === "object" && body !== null && !Array.isArray(body)) {
      return body;
    }
  } catch {
    // Refused below, as what is no object is.
  }
  return [36009004, "Invalid request format. The body is no JSON object."];
}

/** The page of a list that `page_size` and `page_token` ask for. */
function pageOf(
  { query }: Call,
  name: string,
  items: readonly unknown[],
): Record<string, unknown> | Refusal {
  const size = Number(query.get("page_size") ?? 20);
  const start = pageStart(query.get("page_token") ?? "", items.length);
  if (!Number.isInteger(size) || size < 1 || size > 100) {
    return [36009004, "page_size must be 1 to 100"];
  }
  if (start === undefined) return [36009004, "page_token is invalid"];
  const end = start + size;
  return {
    [name]: items.slice(start, end),
    next_page_token: end < items.length ? pageToken(end) : "",
    total_count: items.length,
  };
}

/** Base64 that ends in `=`, so that a client must encode it. */
function pageToken(start: number): string {
  return Buffer.from(`after:${start}`).toString("base64");
}

function pageStart(token: string, count: number): number | undefined {
  if (token === "") return 0;
  const start = Number(Buffer.from(token, "base64").toString().slice(6));
  return token === pageToken(start) && start < count ? start : undefined;
}
