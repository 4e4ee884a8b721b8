/** Every published operation answers at the sandbox, some of them with data. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type ApiOptions,
  callApi,
  exchangeCode,
  memoryStore,
  TikTokShopError,
} from "../../mod.ts";
import {
  findOperation,
  type Operation,
  publishedOperations,
} from "../../scripts/sandbox/operations.ts";
import {
  type Sandbox,
  type SandboxOptions,
  type SandboxRoute,
  type SandboxSeller,
  type SandboxShop,
  startSandbox,
} from "../../scripts/sandbox.ts";

// === Helpers

const SHOPS: SandboxShop[] = ["GB", "DE"].map((region, index) => ({
  cipher: `GCP_only-${index}`,
  code: `${region}01`,
  id: `749554073536577750${index}`,
  name: `Quay ${region}`,
  region,
  seller_type: "LOCAL",
}));

/** A partner may call all that a seller may, and lists category assets too. */
const SELLER: SandboxSeller = {
  openId: "7010partner",
  name: "Quay",
  region: "GB",
  userType: 3,
  scopes: [
    "seller.authorization.info",
    "seller.order.info",
    "seller.product.basic",
    "seller.shop.info",
  ],
  shops: SHOPS.slice(0, 1),
};

interface Fixture {
  sandbox: Sandbox;
  options: ApiOptions;
  /** Calls with the profile's tokens; resolves to `data`. */
  // deno-lint-ignore no-explicit-any
  call: (line: string, more?: CallOptions) => Promise<any>;
  /** TikTok's code and message for a call that is refused. */
  refusal: (line: string, more?: CallOptions) => Promise<[number, string]>;
}

type CallOptions = Omit<Parameters<typeof callApi>[0], "method" | "path">;

async function withSeller(
  run: (fixture: Fixture) => Promise<unknown>,
  more: SandboxOptions = {},
  seller: Partial<SandboxSeller> = {},
): Promise<void> {
  const sellers = [{ ...SELLER, ...seller }];
  const sandbox = await startSandbox({ sellers, ...more });
  const store = memoryStore();
  const reply = await exchangeCode(sandbox, sandbox.issueCode(), sandbox);
  const shops = sellers[0]!.shops.map((shop) => ({ ...shop }));
  await store.save("default", { ...reply, meta: { shops } });
  const { appKey, appSecret, apiEndpoint, refreshEndpoint } = sandbox;
  const options = { appKey, appSecret, apiEndpoint, refreshEndpoint, store };
  const call: Fixture["call"] = async (line, more) => {
    const [method, path = ""] = line.split(" ");
    return (await callApi({ method, path, ...more }, options)).data;
  };
  const refusal: Fixture["refusal"] = async (line, more) => {
    const answer = await call(line, more).catch((error) => error);
    assert.ok(answer instanceof TikTokShopError, `${line}: ${answer}`);
    return [answer.code!, answer.message];
  };
  try {
    await run({ sandbox, options, call, refusal });
  } finally {
    await sandbox.stop();
  }
}

/** Does the same with every operation, 16 at a time. */
async function withEvery(
  work: (operation: Operation, line: string) => Promise<unknown>,
  ids: Record<string, string> = {},
): Promise<void> {
  const rest = [...publishedOperations()];
  assert.equal(rest.length, 362);
  const lane = async () => {
    for (let next = rest.pop(); next; next = rest.pop()) {
      const path = next.path.replace(
        /\{(\w+)\}/g,
        (_, name) => ids[name] ?? "7295540735365777507",
      );
      await work(next, `${next.method} ${path}`);
    }
  };
  await Promise.all(Array.from({ length: 16 }, lane));
}

/** TikTok demands a cipher here, though its reference calls it optional. */
const DEMANDED = "/order/202309/orders/search";
const PRODUCTS = "POST /product/202502/products/search";

// === Every operation

test("All published operations answer callApi() with one shop", () =>
  withSeller(async ({ call, sandbox }) => {
    const { products } = await call(PRODUCTS);
    const ids = { product_id: products[0].id };
    await withEvery(async (_, line) => {
      const data = await call(line);
      assert.equal(typeof data, "object", line);
    }, ids);
    const taken = sandbox.requests
      .filter(({ query }) => "shop_cipher" in query).length;
    assert.equal(taken, 362 - 93 + 1, "93 take no cipher");
  }));

test("All published operations refuse a cipher that is wrong", () =>
  withSeller(({ refusal }) =>
    withEvery(async ({ shopCipher }, line) => {
      const query = { shop_cipher: "GCP_another" };
      const [code, message] = await refusal(line, { query });
      const says = shopCipher === "none"
        ? /Unexpected identifier\. .*`shop_cipher` .* is not required/
        : /Invalid identifier\. .*`shop_cipher` .* is invalid/;
      assert.equal(code, 36009004, line);
      assert.match(message, says, line);
    })
  ));

test("The operations that need a cipher say so, the others do without", () =>
  withSeller(({ call, refusal }) =>
    withEvery(async ({ shopCipher, path }, line) => {
      if (shopCipher !== "required" && path !== DEMANDED) {
        // A product by its id is among the others.
        return await call(line, { shop: "none" }).catch((error) =>
          assert.match(error.message, /Product not found/, line)
        );
      }
      const [code, message] = await refusal(line, { shop: "none" });
      assert.equal(code, 106013, line);
      assert.match(message, /Missing identifier\. The `shop_cipher` query/);
    })
  ));

test("A wrong path, version or method is told before all else", () =>
  withSeller(async ({ sandbox }) => {
    const ask = async (line: string) => {
      const [method, path] = line.split(" ");
      const answer = await fetch(sandbox.origin + path, { method });
      return [answer.status, (await answer.json()).code];
    };
    await withEvery(async (operation, line) => {
      const [method = "", path = ""] = line.split(" ");
      assert.equal(findOperation(method, path), operation, line);
      const older = path.replace(/\/\d{6}\//, "/201901/");
      assert.equal(findOperation("PATCH", path), "method", line);
      assert.equal(findOperation(method, older), "version", line);
      assert.equal(findOperation(method, `${path}/x/y`), "path", line);
      if (operation.shopCipher !== "none" || method !== "GET") return;
      assert.deepEqual(await ask(`PATCH ${path}`), [400, 36009010], line);
      assert.deepEqual(await ask(`${method} ${older}`), [400, 36009014], line);
      assert.deepEqual(await ask(`${line}/x/y`), [404, 36009009], line);
    });
  }));

// === Data

test("Orders and products are the same every time, by their seed", async () => {
  const seen: Record<string, string> = {};
  for (const [run, seed] of [["a", "1"], ["b", "1"], ["c", "2"]] as const) {
    await withSeller(async ({ call }) => {
      const orders = await call(`POST ${DEMANDED}`);
      const products = await call(PRODUCTS);
      seen[run] = JSON.stringify([orders, products]);
    }, { seed, now: () => Date.now() + 1000 });
  }
  assert.equal(seen.a, seen.b);
  assert.notEqual(seen.a, seen.c);
});

test("Orders have large ids, names in many scripts and real products", () =>
  withSeller(async ({ call }) => {
    const query = { page_size: 100 };
    const { orders } = await call(`POST ${DEMANDED}`, { query });
    const { products } = await call(PRODUCTS, { query });
    const ids = new Set(products.map(({ id }: { id: string }) => id));
    for (const { id, line_items: items } of orders) {
      assert.match(id, /^\d{19}$/);
      assert.ok(BigInt(id) > 2n ** 53n);
      for (const item of items) assert.ok(ids.has(item.product_id));
    }
    const text = JSON.stringify([orders, products]);
    const scripts = ["Latin", "Greek", "Cyrillic", "Han", "Hangul", "Arabic"]
      .concat("Thai", "Devanagari", "Hiragana");
    for (const script of scripts) {
      assert.match(text, new RegExp(`\\p{Script=${script}}`, "u"), script);
    }
    assert.equal(new Set(orders.map((one: { id: string }) => one.id)).size, 25);
  }));

test("Every list has pages that next_page_token walks", () =>
  withSeller(async ({ call, refusal }) => {
    const lists: [string, string, number][] = [
      [`POST ${DEMANDED}`, "orders", 25],
      [PRODUCTS, "products", 12],
      ["POST /product/202309/inventory/search", "inventory", 12],
    ];
    for (const [line, name, count] of lists) {
      const found: unknown[] = [];
      let pages = 0;
      for (let page_token = ""; pages === 0 || page_token; pages++) {
        const data = await call(line, { query: { page_size: 5, page_token } });
        found.push(...data[name]);
        assert.equal(data.total_count, count);
        page_token = data.next_page_token;
      }
      const texts = new Set(found.map((one) => JSON.stringify(one)));
      assert.deepEqual([texts.size, pages], [count, Math.ceil(count / 5)]);
      for (const page_token of ["x", "YWZ0ZXI6OTk5"]) {
        const [code] = await refusal(line, { query: { page_token } });
        assert.equal(code, 36009004);
      }
    }
  }));

test("Orders are found by status, time and id", () =>
  withSeller(async ({ call, refusal }) => {
    const search = async (body: unknown) =>
      (await call(`POST ${DEMANDED}`, { body })).orders;
    const all = await search({});
    const unpaid = await search({ order_status: "UNPAID" });
    assert.ok(unpaid.length > 0 && unpaid.length < all.length);
    for (const { status } of unpaid) assert.equal(status, "UNPAID");
    const { create_time } = all[3];
    const later = await search({ create_time_ge: create_time });
    const earlier = await search({ create_time_lt: create_time });
    assert.equal(later.length, 4);
    assert.ok(
      earlier.every((one: { create_time: number }) =>
        one.create_time < create_time
      ),
    );
    const ids = [all[1].id, "1", all[2].id].join(",");
    for (const version of ["202309", "202507"]) {
      const line = `GET /order/${version}/orders`;
      const { orders } = await call(line, { query: { ids } });
      assert.deepEqual(orders, [all[1], all[2]]);
    }
    for (const body of ["[]", "1", "null", '"x"']) {
      const [, message] = await refusal(`POST ${DEMANDED}`, { body });
      assert.match(message, /Invalid request format/);
    }
  }));

test("A product has a page of its own and a stock", () =>
  withSeller(async ({ call, refusal }) => {
    const { products: [first, second] } = await call(PRODUCTS);
    const detail = await call(`GET /product/202309/products/${first.id}`);
    assert.equal(detail.title, first.title);
    assert.ok(detail.description && detail.category_chains.length > 0);
    const [code] = await refusal("GET /product/202309/products/1");
    assert.equal(code, 12052048);
    const stock = (body: unknown) =>
      call("POST /product/202309/inventory/search", { body });
    const byProduct = await stock({ product_ids: [second.id] });
    const bySku = await stock({ sku_ids: [second.skus[1].id] });
    assert.deepEqual(byProduct.inventory, bySku.inventory);
    assert.equal(byProduct.inventory[0].product_id, second.id);
    const [, said] = await refusal("POST /product/202309/inventory/search", {
      body: { product_ids: "1" },
    });
    assert.match(said, /must be arrays/);
  }));

test("Shops, permissions and category assets are told", () =>
  withSeller(
    async ({ call }) => {
      const { shops } = await call("GET /authorization/202309/shops");
      assert.deepEqual(shops, SHOPS);
      const active = await call("GET /seller/202309/shops");
      const expected = SHOPS.map(({ id, region }) => ({ id, region }));
      assert.deepEqual(active.shops, expected);
      const { permissions } = await call("GET /seller/202309/permissions");
      assert.ok(permissions.length > 0);
      const assets = await call("GET /authorization/202405/category_assets");
      assert.equal(assets.category_assets.length, 2);
      assert.ok(Number.isInteger(assets.category_assets[0].category.id));
    },
    {},
    { shops: SHOPS },
  ));

test("Without a cipher the data are of all shops, with one of that shop", () =>
  withSeller(
    async ({ call }) => {
      const totals = [];
      for (const shop of ["none", SHOPS[0]!.id, SHOPS[1]!.name]) {
        const { products, total_count } = await call(PRODUCTS, { shop });
        totals.push([total_count, products[0].skus[0].price.currency]);
      }
      assert.deepEqual(totals, [[24, "GBP"], [12, "GBP"], [12, "EUR"]]);
    },
    {},
    { shops: SHOPS },
  ));

test("The operations with data want their scope", () =>
  withSeller(
    async ({ refusal, call }) => {
      const lines = [
        "GET /authorization/202309/shops",
        "GET /seller/202309/permissions",
        "GET /order/202309/orders",
        PRODUCTS,
      ];
      for (const line of lines) {
        const [code, message] = await refusal(line);
        assert.equal(code, 105005, line);
        assert.match(message, /Access denied\. The app is not authorized/);
      }
      assert.deepEqual(await call("GET /event/202309/webhooks"), {});
    },
    {},
    { scopes: [] },
  ));

// === Own routes

const ROUTES: Record<string, SandboxRoute> = {
  "GET /order/202309/orders": { data: { orders: "mine" } },
  "GET /own/202701/{a}/x.y/{b}": { data: ["ünï"] },
  "POST /own/202701/busy": {
    status: 503,
    headers: { "Retry-After": "0", "X-Mine": "1" },
    body: "wait",
  },
  "DELETE /own/202701/json": { body: { code: 7, message: "no" } },
};

test("Own routes come first, after the same checks", () =>
  withSeller(async ({ sandbox, call, refusal }) => {
    const own = await call("GET /order/202309/orders");
    assert.deepEqual(own, { orders: "mine" });
    const named = "GET /own/202701/1/x.y/a%2Fb";
    assert.deepEqual(await call(named), ["ünï"]);
    const query = { shop_cipher: "wrong" };
    assert.equal((await refusal(named, { query }))[0], 36009004);
    assert.equal((await refusal("GET /own/202701/1/x_y/2"))[0], 36009009);
    const [code, said] = await refusal("DELETE /own/202701/json");
    assert.deepEqual([code, /"no"/.test(said)], [7, true]);
    const unsigned = await fetch(`${sandbox.origin}/own/202701/1/x.y/2`);
    assert.equal((await unsigned.json()).code, 36009004);
    await assert.rejects(call("POST /own/202701/busy"), /HTTP 503/);
  }, { routes: ROUTES }));

test("startSandbox() refuses routes that cannot be", async () => {
  const wrong: [string, unknown][] = [
    ["/own", { data: 1 }],
    ["get /own", { data: 1 }],
    ["GET own", { data: 1 }],
    ["GET /own?a=b", { data: 1 }],
    ["GET /own", null],
    ["GET /own", {}],
    ["GET /own", "text"],
    ["GET /own", { data: 1, body: 2 }],
    ["GET /own", { data: 1, status: 200 }],
    ["GET /own", { body: 1, status: 99 }],
    ["GET /own", { body: 1, status: "200" }],
    ["GET /own", { body: 1, statuss: 200 }],
    ["GET /own", { body: 1, headers: { "a b": "c" } }],
    ["GET /own", { body: 1, headers: { a: "b\nc" } }],
    ["GET /own", { body: 1, headers: 1 }],
    ["GET /own", { body: 1, headers: { "Content-Length": "9" } }],
  ];
  for (const [name, route] of wrong) {
    const routes = { [name]: route as SandboxRoute };
    const message = JSON.stringify(routes);
    await assert.rejects(startSandbox({ routes }), RangeError, message);
  }
});
