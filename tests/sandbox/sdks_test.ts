/**
 * Clients by others log in, refresh, list the shops and post through the
 * sandbox, with nothing changed but the host: as the README says, whose lines
 * run here. The clients are pinned in sdks/ and installed outside of the
 * repository. Each test skips with its reason where that cannot be.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import { createServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import * as path from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { parseWebhook } from "../../mod.ts";
import {
  type Sandbox,
  SANDBOX_WEBHOOKS,
  type SandboxRequest,
  startSandbox,
} from "../../scripts/sandbox.ts";
import { type Finished, run, runNpm } from "../../scripts/tools.ts";
import {
  freePort,
  ON_DENO,
  ON_WINDOWS,
  quoted,
  ROOT,
  runtimeCommand,
  start,
  temporaryFolder,
  writeProgram,
} from "../support/helpers.ts";

// === Installing

const SDKS = path.join(ROOT, "tests", "sandbox", "sdks");
/** What a package manager says when no registry answers. */
const OFFLINE = new RegExp(
  "ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|" +
    "NewConnectionError|ReadTimeoutError|Temporary failure|ProxyError",
);

/**
 * A folder that holds what the pinned files name. It is installed once for a
 * machine, and appears only when it is complete.
 */
async function installed(
  files: string[],
  install: (folder: string) => Promise<Finished>,
): Promise<{ folder: string } | { skip: string }> {
  const hash = createHash("sha256");
  for (const file of files) {
    hash.update(await fs.readFile(path.join(SDKS, file)));
  }
  const folder = path.join(
    tmpdir(),
    `tiktok-shop-sdks-${hash.digest("hex").slice(0, 16)}`,
  );
  if (await fs.access(folder).then(() => true, () => false)) return { folder };
  const work = await fs.mkdtemp(`${folder}-`);
  try {
    for (const file of files) {
      await fs.copyFile(path.join(SDKS, file), path.join(work, file));
    }
    const { ok, output } = await install(work);
    if (!ok && OFFLINE.test(output)) {
      return { skip: "no registry can be reached" };
    }
    assert.ok(ok, output);
    await fs.rename(work, folder).catch(() => {}); // another one was faster
    return { folder };
  } finally {
    await fs.rm(work, { recursive: true, force: true });
  }
}

async function commandWorks(...command: string[]): Promise<boolean> {
  const [file = "", ...args] = command;
  return await run(file, args).then(({ ok }) => ok, () => false);
}

const NODE = ON_DENO ? "node" : process.execPath;
let npmPackages: ReturnType<typeof installed> | undefined;
let pythonPackages: ReturnType<typeof installed> | undefined;

async function installNpm() {
  if (!await commandWorks(NODE, "--version")) return { skip: "no Node" };
  const flags = [
    ...["--ignore-scripts", "--no-audit", "--legacy-peer-deps"],
    ...["--fetch-retries=1", "--fetch-retry-mintimeout=1000"],
  ];
  npmPackages ??= installed(
    ["package.json", "package-lock.json"],
    (cwd) => runNpm("npm", ["ci", ...flags], { cwd }),
  );
  return await npmPackages;
}

async function installPython() {
  const isNew = "import sys, pip; assert sys.version_info >= (3, 11)";
  if (!await commandWorks("python3", "-c", isNew)) {
    return { skip: "no Python 3.11 with pip" };
  }
  const flags = [
    ...["--no-deps", "--require-hashes", "--no-compile", "-q"],
    ...["--retries", "1"],
  ];
  pythonPackages ??= installed(["requirements.txt"], (cwd) => {
    const args = ["install", ...flags, "--target", cwd];
    const pip = ["-m", "pip", ...args, "-r", "requirements.txt"];
    return run("python3", pip, { cwd });
  });
  return await pythonPackages;
}

// === Running

const README = await fs.readFile(path.join(ROOT, "README.md"), "utf8");
const [SECTION] = /^## The sandbox\n[^]*?\n(?=## )/m.exec(README)!;

/** The README's lines in a language, for this sandbox. */
function lines(language: string, { port }: { port: number }): string {
  const fence = new RegExp(`^\`\`\`${language}\\b.*\n([^]*?)^\`\`\`$`, "m");
  return fence.exec(SECTION)![1]!.replaceAll("3018", String(port));
}

interface Outcome {
  /** The refresh token of the login, and that of the refresh. */
  tokens: string[];
  shops: { id: string; cipher: string }[];
  /** The ids of orders that a POST has found. */
  orders: string[];
}

/** Runs a client's script with the sandbox's settings; it prints an outcome. */
async function runClient(
  t: TestContext,
  name: string,
  client: {
    install: () => ReturnType<typeof installed>;
    command: (folder: string, script: string) => Promise<Finished>;
    script: (sandbox: Sandbox) => string;
  },
  { refusals = [], notes = [] }: { refusals?: string[]; notes?: string[] } = {},
): Promise<void> {
  const at = await client.install();
  if ("skip" in at) return t.skip(at.skip);
  const sandbox = await startSandbox();
  try {
    const script = client.script(sandbox);
    const { ok, output, stdout } = await client.command(at.folder, script);
    assert.ok(ok, output);
    const { tokens, shops, orders }: Outcome = JSON.parse(
      stdout.trim().split("\n").at(-1)!,
    );
    assert.equal(new Set(tokens).size, 2, name);
    assert.ok(tokens.every((token) => token.startsWith("ROW_")), name);
    const ids = ["7495540735365777507", "8600001", "8600002"];
    const listed = refusals.length === 0 ? ids : [];
    assert.deepEqual(shops.map(({ id }) => id), listed);
    assert.equal(orders.length, 5);
    assert.ok(orders.every((id) => /^5765\d{15}$/.test(id)), `${orders}`);
    const refused = sandbox.requests.filter(({ code }) => code !== undefined);
    assert.deepEqual(refused.map(told), refusals);
    const noted = sandbox.requests.filter(({ note, code }) => note && !code);
    assert.deepEqual(noted.map(told), notes);
  } finally {
    await sandbox.stop();
  }
}

const told = ({ method, path, code, note }: SandboxRequest) =>
  `${method} ${path} ${code ?? ""} ${note}`;

/** JavaScript that has the app, a code, and prints what `main` returns. */
const javascript = (sandbox: Sandbox, main: string): string => `
const { appKey, appSecret } = ${JSON.stringify(sandbox)};
const code = ${JSON.stringify(sandbox.issueCode())};
const axios = require("axios");
${lines("js", sandbox)}
const now = () => Math.floor(Date.now() / 1000);
(async () => { ${main} })().then((outcome) =>
  console.log(JSON.stringify(outcome))
);`;

const npmClient = (main: string) => ({
  install: installNpm,
  command: (cwd: string, script: string) => run(NODE, ["-e", script], { cwd }),
  script: (sandbox: Sandbox) => javascript(sandbox, main),
});

/** Its byte code is kept: to compile all models takes seconds each time. */
const pythonEnv = (folder: string) => ({
  PYTHONPATH: folder,
  PYTHONDONTWRITEBYTECODE: "",
  TIKTOK_SHOP_CONFIG: path.join(folder, "shops.json"),
});

const python = (sandbox: Sandbox, main: string): string => `
import json
app_key, app_secret = ${JSON.stringify(sandbox.appKey)}, ${
  JSON.stringify(sandbox.appSecret)
}
code, token = ${JSON.stringify(sandbox.issueCode())}, None
${lines("python", sandbox)}
${main}`;

const pythonClient = (main: (sandbox: Sandbox) => string) => ({
  install: installPython,
  command: (folder: string, script: string) =>
    run("python3", ["-c", script], {
      cwd: tmpdir(),
      env: pythonEnv(folder),
    }),
  script: (sandbox: Sandbox) => python(sandbox, main(sandbox)),
});

// === Clients

/** A body of {} that a client sends and does not sign. */
const UNSIGNED = {
  notes: [
    "POST /order/202309/orders/search  the body {} is accepted, though not " +
    "signed",
  ],
};

test("tiktok-shop-sdk works with nothing changed but the host", (t) =>
  runClient(
    t,
    "tiktok-shop-sdk",
    npmClient(`
      const { TikTokShopSDK } = require("tiktok-shop-sdk");
      const sdk = new TikTokShopSDK({ appKey, appSecret });
      const login = await sdk.auth.getAccessToken({ auth_code: code });
      const { refresh_token } = login.data;
      const fresh = await sdk.auth.refreshAccessToken({ refresh_token });
      sdk.setAccessToken(fresh.data.access_token);
      const { shops } = (await sdk.shop.getAuthorizedShops()).data;
      sdk.setShopCipher(shops[0].cipher);
      const query = { page_size: 5 };
      const body = { order_status: "" };
      const { orders } = (await sdk.order.getOrderList({ query, body })).data;
      await sdk.order.getOrderList({ query, body: {} });
      const tokens = [refresh_token, fresh.data.refresh_token];
      return { tokens, shops, orders: orders.map(({ id }) => id) };
    `),
    UNSIGNED,
  ));

test("tiktok-shop works with nothing changed but the host", (t) =>
  runClient(
    t,
    "tiktok-shop",
    npmClient(`
      const TikTokShop = require("tiktok-shop");
      const shop = new TikTokShop({ appKey, appSecret });
      const login = (await shop.authCodeToken(code)).data;
      const fresh = await shop.refreshToken(login.refresh_token);
      const call = async (method, path, query, data) => {
        const host = "https://open-api.tiktokglobalshop.com";
        const url = host + path + "?app_key=" + appKey + query +
          "&timestamp=" + now();
        const { signature } = shop.signByUrl(url, data);
        const headers = {
          "content-type": "application/json",
          "x-tts-access-token": fresh.access_token,
        };
        const signed = url + "&sign=" + signature;
        return (await axios({ method, url: signed, data, headers })).data.data;
      };
      const { shops } = await call("GET", "/authorization/202309/shops", "");
      const query = "&page_size=5&shop_cipher=" + shops[0].cipher;
      const search = "/order/202309/orders/search";
      const { orders } = await call("POST", search, query, { create_time_ge: 1 });
      await call("POST", search, query, {});
      const tokens = [login.refresh_token, fresh.refresh_token];
      return { tokens, shops, orders: orders.map(({ id }) => id) };
    `),
    UNSIGNED,
  ));

/**
 * This one sends a shop_cipher, empty or not, to every operation: TikTok refuses
 * the list of shops, which takes none, in the words below.
 */
test("tiktok-shop-client works but for what TikTok refuses it", (t) =>
  runClient(
    t,
    "tiktok-shop-client",
    npmClient(`
      const sdk = require("tiktok-shop-client");
      const login = (await sdk.authCodeToken({ appKey, appSecret }, code)).data;
      const { refresh_token } = login;
      const fresh = await sdk.generateToken({ appKey, appSecret }, refresh_token);
      const accessToken = fresh.access_token;
      const client = sdk.TikTokClient({ appKey, appSecret, accessToken });
      await client.getShops().catch(({ response }) => response.data.code);
      client.setShop({ shopCipher: "GCP_Zq3vAAAAAACm4e-Xn7u_0Q", shopId: "1" });
      const { orders } = (await client.getOrders({ create_time_ge: 1 })).data;
      await client.searchInventory({});
      const tokens = [refresh_token, fresh.refresh_token];
      return { tokens, shops: [], orders: orders.slice(0, 5).map(({ id }) => id) };
    `),
    {
      refusals: [
        "GET /authorization/202309/shops 36009004 Unexpected identifier. The " +
        "`shop_cipher` query parameter is not required for this request.",
      ],
    },
  ));

test("n8n-nodes-tiktokshop works with nothing changed but the host", (t) =>
  runClient(
    t,
    "n8n-nodes-tiktokshop",
    npmClient(`
      const from = "./node_modules/n8n-nodes-tiktokshop/dist/services/";
      const httpClient = axios.create({ baseURL: to("https://tiktok") });
      const { TokenService } = require(from + "token-service");
      const { BaseService } = require(from + "base-service");
      const { OrdersService } = require(from + "orders-service");
      const { SellerService } = require(from + "seller-service");
      const service = new TokenService({ httpClient });
      const app = { appKey, appSecret };
      const login = (await service.accessToken({ ...app, authCode: code })).data;
      const refreshToken = login.refresh_token;
      const fresh = (await service.refreshToken({ ...app, refreshToken })).data;
      const options = { ...app, accessToken: fresh.access_token, httpClient };
      await new SellerService(options).getActiveShops();
      const path = "/authorization/202309/shops";
      const { shops } = (await new BaseService(options).request({ path })).data;
      const found = await new OrdersService(options).getOrderList({
        shopCipher: shops[0].cipher,
        pageSize: 5,
      });
      const orders = found.data.orders.map(({ id }) => id);
      return { tokens: [refreshToken, fresh.refresh_token], shops, orders };
    `),
    UNSIGNED,
  ));

test("tiktok-shop-api works with nothing changed but the host", (t) =>
  runClient(
    t,
    "tiktok-shop-api",
    pythonClient(() => `
login = auth.exchange_code(code)
fresh = auth.refresh(login.refresh_token)
shop = shop.with_shop(access_token=fresh.access_token)
shops = [one.to_dict() for one in shop.authorization.get_authorized_shops().data.shops]
shop = shop.with_shop(shop_cipher=shops[0]["cipher"])
orders = [one.id for one in shop.orders.get_order_list(page_size=5).data.orders]
print(json.dumps({
    "tokens": [login.refresh_token, fresh.refresh_token],
    "shops": shops, "orders": orders}))`),
  ));

test("tiktok-shop-mcp works with nothing changed but the host", (t) =>
  runClient(
    t,
    "tiktok-shop-mcp",
    // It has no login: its tokens are given to it.
    pythonClient(({ origin }) => `
import asyncio
from tiktok_shop_mcp.client import TikTokShopClient
from tiktok_shop_mcp.config import ShopCredentials, config
from tiktok_shop_mcp.tools.get_orders import get_orders
config.BASE_URL = config.AUTH_URL = ${JSON.stringify(origin)}
config.save_shop = lambda name: None
login = auth.exchange_code(code)
record = ShopCredentials({
    "seller_name": "One", "app_key": app_key, "app_secret": app_secret,
    "access_token": login.access_token, "refresh_token": login.refresh_token})

async def main():
    client = TikTokShopClient(record)
    fresh = await client.refresh_access_token()
    answer = await client._make_request(
        "GET", "authorization", "shops", skip_cipher=True)
    shops = answer["data"]["shops"]
    record.shop_cipher = shops[0]["cipher"]
    found = await get_orders(client, page_size=5, create_time_ge=1)
    return {
        "tokens": [login.refresh_token, fresh["refresh_token"]],
        "shops": shops, "orders": [one["order_id"] for one in found["orders"]]}

print(json.dumps(asyncio.run(main())))`),
  ));

// === Webhooks

test("tiktok-shop-api verifies and reads every webhook", async (t) => {
  const at = await installPython();
  if ("skip" in at) return t.skip(at.skip);
  const received: { body: string; header: string }[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    request.setEncoding("utf8");
    for await (const chunk of request) body += chunk;
    received.push({ body, header: `${request.headers.authorization}` });
    response.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const sandbox = await startSandbox();
  try {
    for (const name of Object.keys(SANDBOX_WEBHOOKS)) {
      await sandbox.trigger(name, { to: `http://127.0.0.1:${port}/` });
    }
    const script = `
import attrs, json, sys
from tiktok_shop_api import Webhooks
for one in json.loads(sys.argv[1]):
    event = Webhooks.verify_and_parse(app_key=sys.argv[2], app_secret=sys.argv[3],
        raw_body=one["body"], signature=one["header"])
    # The page of type 3 alone does not list it.
    assert set(event.additional_properties) <= {"tts_notification_id"}, event
    assert not event.data.additional_properties, event
    members = attrs.asdict(event.data, recurse=False).items()
    missing = [name for name, value in members if type(value).__name__ == "Unset"]
    print(type(event).__name__, *missing)`;
    const args = [JSON.stringify(received), sandbox.appKey, sandbox.appSecret];
    const env = pythonEnv(at.folder);
    const ran = await run("python3", ["-c", script, ...args], { env });
    assert.ok(ran.ok, ran.output);
    const names = Object.keys(SANDBOX_WEBHOOKS).map((name) =>
      `${name.replaceAll("_", "")}WEBHOOK`
    );
    const read = ran.stdout.trim().split("\n").map((line) =>
      line.toUpperCase()
    );
    assert.deepEqual(read, names, "no member is missing, and none is unknown");
    for (const { body } of received) assert.ok(parseWebhook(body).type > 0);
  } finally {
    await sandbox.stop();
    server.close();
    server.closeAllConnections();
  }
});

// === The README's other lines

/** Logs in with whatever changes the host, in the language's own HTTP client. */
async function runLines(
  t: TestContext,
  needs: [reason: string, ...command: string[]],
  file: string,
  program: (sandbox: Sandbox, tokenUrl: string) => string,
  command: string[],
): Promise<void> {
  const [reason, ...check] = needs;
  if (!await commandWorks(...check)) return t.skip(reason);
  const sandbox = await startSandbox();
  const folder = await temporaryFolder();
  try {
    const query = new URLSearchParams({
      app_key: sandbox.appKey,
      app_secret: sandbox.appSecret,
      auth_code: sandbox.issueCode(),
      grant_type: "authorized_code",
    });
    const url = `https://auth.tiktok-shops.com/api/v2/token/get?${query}`;
    await fs.writeFile(path.join(folder.path, file), program(sandbox, url));
    const [name = "", ...args] = command;
    const env = { GO111MODULE: "off" };
    const options = { cwd: folder.path, env };
    const { ok, output, stdout } = await run(name, [...args, file], options);
    assert.ok(ok, output);
    assert.equal(JSON.parse(stdout).data.seller_name, "Harbour & Finch");
    assert.equal(sandbox.count("/api/v2/token/get"), 1);
  } finally {
    await sandbox.stop();
    await folder[Symbol.asyncDispose]();
  }
}

test("the README's lines in Go lead a client to the sandbox", (t) =>
  runLines(
    t,
    ["no Go", "go", "version"],
    "main.go",
    (sandbox, url) =>
      `package main

import (
	"io"
	"net/http"
	"os"
)

${lines("go", sandbox)}
func main() {
	reply, err := http.Get(${JSON.stringify(url)})
	if err != nil {
		panic(err)
	}
	io.Copy(os.Stdout, reply.Body)
}
`,
    ["go", "run"],
  ));

test("the README's lines in PHP lead a client to the sandbox", (t) =>
  runLines(
    t,
    ["no PHP with Guzzle", "php", "-r", 'require "GuzzleHttp/autoload.php";'],
    "main.php",
    (sandbox, url) =>
      `<?php
require "GuzzleHttp/autoload.php";
${lines("php", sandbox)}
$client = new GuzzleHttp\\Client(['handler' => $stack]);
echo $client->get('${url}')->getBody();
`,
    ["php"],
  ));

test("the README's GitHub Actions job starts the sandbox", async (t) => {
  if (ON_WINDOWS) return t.skip("the job runs on Linux");
  if (!await commandWorks("curl", "--version")) return t.skip("no curl");
  const port = await freePort();
  const script = /run: \|\n((?: {10}.*\n)+)/.exec(SECTION)![1]!
    .replace("sandbox --env", `sandbox --port ${port} --env`)
    .replaceAll("3018", `${port}`);
  const folder = await temporaryFolder();
  const bin = path.join(folder.path, "bin");
  await fs.mkdir(bin);
  const command = runtimeCommand(path.join(ROOT, "scripts", "sandbox.ts"));
  // npx -y tiktok-shop-oauth2 sandbox …, before the package is published
  const npx = `#!/bin/sh\nshift 3\necho $$ > sandbox.pid\n` +
    `exec ${command.map(quoted).join(" ")} "$@"\n`;
  writeProgram(path.join(bin, "npx"), npx);
  const env = {
    PATH: `${bin}${path.delimiter}${process.env.PATH}`,
    GITHUB_ENV: path.join(folder.path, "github.env"),
  };
  try {
    const options = { cwd: folder.path, env };
    const job = `{\n${script}} > log 2>&1`; // as a step's log does
    const { code } = await start(["bash", "-e", "-c", job], options).ended;
    const log = await fs.readFile(path.join(folder.path, "log"), "utf8");
    assert.equal(code, 0, log);
    const saved = await fs.readFile(env.GITHUB_ENV, "utf8");
    const endpoint = `http://127.0.0.1:${port}`;
    assert.match(saved, /^TIKTOK_SHOP_APP_KEY=[a-z0-9]{12}$/m);
    assert.ok(saved.includes(`TIKTOK_SHOP_API_ENDPOINT=${endpoint}\n`), saved);
    const page = await fetch(endpoint);
    assert.match(await page.text(), /Sandbox, not TikTok/);
  } finally {
    const pid = path.join(folder.path, "sandbox.pid");
    const id = await fs.readFile(pid, "utf8").catch(() => "");
    if (id !== "") process.kill(Number(id));
    await folder[Symbol.asyncDispose]();
  }
});

test("the package's README says the same of the sandbox", async () => {
  const other = await fs.readFile(path.join(ROOT, "npm", "README.md"), "utf8");
  assert.ok(other.includes(SECTION));
});
