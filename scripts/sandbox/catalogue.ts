/**
 * The orders and products of a shop, made from a seed: the same every time.
 * Ids are decimal strings over 2^53 and names are in many scripts, as TikTok's
 * are.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { SandboxShop } from "./types.ts";

/** How many orders and products a shop has. */
const ORDERS = 25;

const TITLES = [
  "Linen tea towels, 3 pieces",
  "Świeca zapachowa „Bałtyk”",
  "保温杯 500ml",
  "帆布のトートバッグ",
  "도자기 머그컵",
  "Κεραμικό μπολ",
  "กระเป๋าผ้าแคนวาส",
  "وسادة قطنية",
  'Taza "Buenos días" ☕',
  "Плед из шерсти",
  "चाय की केतली",
  "Bougie d'hiver <édition> 🕯️",
];

const BUYERS = [
  "Siobhán O'Neill",
  "Łukasz Żółkiewski",
  "陈伟",
  "山田 太郎",
  "김민지",
  "Ελένη Παππά",
  "สมชาย ใจดี",
  "نور الهاشمي",
  "Zoë Ångström",
  "Олена Ковальчук",
  "दीपा शर्मा",
  "Nguyễn Thị Ánh",
];

const ORDER_STATUSES = [
  "AWAITING_SHIPMENT",
  "UNPAID",
  "ON_HOLD",
  "AWAITING_COLLECTION",
  "IN_TRANSIT",
  "DELIVERED",
  "COMPLETED",
  "CANCELLED",
];

const CURRENCIES: Readonly<Record<string, string>> = {
  GB: "GBP",
  IE: "EUR",
  DE: "EUR",
  ES: "EUR",
  FR: "EUR",
  IT: "EUR",
  ID: "IDR",
  JP: "JPY",
  MX: "MXN",
  MY: "MYR",
  PH: "PHP",
  SG: "SGD",
  TH: "THB",
  VN: "VND",
};

/** The newest order. Not the clock's time: a test would never repeat. */
const NEWEST = 1_767_225_600; // 2026-01-01T00:00:00Z
const HOUR = 3600;

/** A whole number from 0 to below the limit. */
type Random = (limit: number) => number;

/** Numbers that the text decides, one after the other (mulberry32). */
function randomOf(text: string): Random {
  let state = createHash("sha256").update(text).digest().readUInt32LE();
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

/** An id of 19 digits, over 2^53. */
function idOf(prefix: string, random: Random): string {
  const digits = [7, 8].map((count) =>
    String(random(10 ** count)).padStart(count, "0")
  );
  return prefix + digits.join("");
}

function pick<T>(list: readonly T[], index: number): T {
  return list[index % list.length]!;
}

function amount(cents: number): string {
  return (cents / 100).toFixed(2);
}

/** An order, in some of the members of TikTok's `data.orders[]`. */
export interface Order {
  id: string;
  status: string;
  create_time: number;
  update_time: number;
  line_items: Record<string, string>[];
  [name: string]: unknown;
}

/** A product, in some of the members of TikTok's `data.products[]`. */
export interface Product {
  id: string;
  title: string;
  status: string;
  create_time: number;
  update_time: number;
  sales_regions: string[];
  skus: Sku[];
}

interface Sku {
  id: string;
  seller_sku: string;
  price: { currency: string; sale_price: string };
  inventory: [{ quantity: number; warehouse_id: string }];
}

/** The orders of a shop, the newest first. */
export function ordersOf(seed: string, shop: SandboxShop): Order[] {
  const products = productsOf(seed, shop);
  const random = randomOf(`${seed}/${shop.id}/orders`);
  return Array.from(
    { length: ORDERS },
    (_, index) => orderOf(index, shop, products, random),
  );
}

function orderOf(
  index: number,
  shop: SandboxShop,
  products: readonly Product[],
  random: Random,
): Order {
  const created = NEWEST - index * 6 * HOUR - random(HOUR);
  const status = pick(ORDER_STATUSES, index);
  const items = Array.from(
    { length: 1 + random(3) },
    () => lineItem(pick(products, random(products.length)), status, random),
  );
  const total = items.reduce((sum, item) => sum + Number(item.sale_price), 0);
  const currency = CURRENCIES[shop.region] ?? "USD";
  return {
    id: idOf("5765", random),
    status,
    create_time: created,
    update_time: created + random(48) * HOUR,
    user_id: idOf("7494", random),
    buyer_email: `buyer${index + 1}@example.com`,
    buyer_message: pick(["", "", "Ring twice, please", "ありがとう"], index),
    fulfillment_type: "FULFILLMENT_BY_SELLER",
    shipping_type: "TIKTOK",
    warehouse_id: warehouseOf(shop),
    payment: {
      currency,
      sub_total: total.toFixed(2),
      shipping_fee: "3.50",
      total_amount: (total + 3.5).toFixed(2),
    },
    recipient_address: {
      name: pick(BUYERS, index + random(BUYERS.length)),
      full_address: `${1 + random(200)} Harbour Street`,
      phone_number: `(+44)770*****${10 + random(90)}`,
      postal_code: `HF${random(10)} ${random(10)}XX`,
      region_code: shop.region,
    },
    line_items: items,
  };
}

function lineItem(
  product: Product,
  status: string,
  random: Random,
): Record<string, string> {
  const sku = pick(product.skus, random(product.skus.length));
  return {
    id: idOf("5766", random),
    product_id: product.id,
    product_name: product.title,
    sku_id: sku.id,
    seller_sku: sku.seller_sku,
    sale_price: sku.price.sale_price,
    currency: sku.price.currency,
    display_status: status,
  };
}

/** The products of a shop. */
export function productsOf(seed: string, shop: SandboxShop): Product[] {
  const random = randomOf(`${seed}/${shop.id}/products`);
  return TITLES.map((title, index) => productOf(title, index, shop, random));
}

function productOf(
  title: string,
  index: number,
  shop: SandboxShop,
  random: Random,
): Product {
  const created = NEWEST - (index + 30) * 24 * HOUR - random(HOUR);
  const price = {
    currency: CURRENCIES[shop.region] ?? "USD",
    sale_price: amount(500 + random(5000)),
  };
  return {
    id: idOf("1729", random),
    title,
    status: pick(
      ["ACTIVATE", "ACTIVATE", "DRAFT", "SELLER_DEACTIVATED"],
      index,
    ),
    create_time: created,
    update_time: created + random(24) * HOUR,
    sales_regions: [shop.region],
    skus: ["S", "L"].map((size) => ({
      id: idOf("1730", random),
      seller_sku: `HF-${String(index + 1).padStart(2, "0")}-${size}`,
      price,
      inventory: [{ quantity: random(90), warehouse_id: warehouseOf(shop) }],
    })),
  };
}

function warehouseOf(shop: SandboxShop): string {
  return idOf("7300", randomOf(`warehouse of ${shop.id}`));
}

/** A product with what only its own page tells. */
export function productDetail(product: Product): Record<string, unknown> {
  return {
    ...product,
    description: `<p>${product.title.replaceAll("<", "&lt;")}</p>`,
    category_chains: [
      { id: "600001", parent_id: "0", local_name: "Home", is_leaf: false },
      { id: "600024", parent_id: "600001", local_name: "Tea", is_leaf: true },
    ],
    brand: { id: "7082427311584347905", name: "Harbour & Finch" },
    main_images: [],
    package_weight: { unit: "KILOGRAM", value: "0.4" },
    is_cod_allowed: false,
  };
}

/** A product's stock, in the members of TikTok's `data.inventory[]`. */
export function inventoryOf(product: Product): Record<string, unknown> {
  return {
    product_id: product.id,
    skus: product.skus.map(({ id, seller_sku, inventory }) => {
      const [{ quantity, warehouse_id }] = inventory;
      return {
        id,
        seller_sku,
        total_available_quantity: quantity,
        total_committed_quantity: 0,
        warehouse_inventory: [
          { warehouse_id, available_quantity: quantity, committed_quantity: 0 },
        ],
      };
    }),
  };
}
