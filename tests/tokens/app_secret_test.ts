/** The app secret as a function, for a server whose secrets are in a vault. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  accessToken,
  type AccessTokenOptions,
  callApi,
  exchangeCode,
  login,
  memoryStore,
  refreshTokens,
  startAuth,
  TikTokShopError,
} from "../../mod.ts";
import { startSandbox } from "../../scripts/sandbox.ts";
import type { Sandbox } from "../../scripts/sandbox.ts";
import { freePort } from "../support/helpers.ts";
import { askAt, keepExpired } from "../support/child_processes.ts";
import { failure, withSandbox } from "../support/token_host.ts";

/** A vault that counts how often it is asked. */
function vaultOf(sandbox: Sandbox) {
  const vault = {
    asked: 0,
    appKey: sandbox.appKey,
    appSecret: async () => {
      vault.asked++;
      await Promise.resolve();
      return sandbox.appSecret;
    },
  };
  return vault;
}

const PATH = "/authorization/202309/shops";

test("exchangeCode() and refreshTokens() ask for the secret once each", () =>
  withSandbox(async (sandbox) => {
    const vault = vaultOf(sandbox);
    const { data } = await exchangeCode(vault, sandbox.issueCode(), sandbox);
    assert.equal(vault.asked, 1);
    await refreshTokens(vault, data.refresh_token, sandbox);
    assert.equal(vault.asked, 2);
  }));

test("a secret function may return text as well as a promise", () =>
  withSandbox(async (sandbox) => {
    const app = {
      appKey: sandbox.appKey,
      appSecret: () => sandbox.appSecret,
    };
    await exchangeCode(app, sandbox.issueCode(), sandbox);
  }));

test("accessToken() asks for the secret only when it refreshes", () =>
  withSandbox(async (sandbox) => {
    const store = memoryStore();
    await keepExpired(sandbox, store);
    const vault = vaultOf(sandbox);
    const options: AccessTokenOptions = {
      ...askAt(sandbox, store),
      ...vault,
    };
    const callers = Array.from({ length: 20 }, () => accessToken(options));
    const tokens = await Promise.all(callers);
    assert.equal(new Set(tokens).size, 1);
    assert.equal(vault.asked, 1);
    await accessToken(options);
    assert.equal(vault.asked, 1);
  }));

test("callApi() asks for the secret that signs the call", () =>
  withSandbox(async (sandbox) => {
    const store = memoryStore();
    await keepExpired(sandbox, store);
    const vault = vaultOf(sandbox);
    const { apiEndpoint } = sandbox;
    const options = { ...askAt(sandbox, store), ...vault, apiEndpoint };
    await callApi({ path: PATH }, options);
    assert.equal(vault.asked, 2, "one for the refresh, one for the signature");
  }));

test("login() asks for the secret when the code is there, not before", async () => {
  const redirectUrl = `http://localhost:${await freePort()}/`;
  const sandbox = await startSandbox({ redirectUrl });
  try {
    const vault = vaultOf(sandbox);
    const { authorizationEndpoint, tokenEndpoint, serviceId } = sandbox;
    const store = memoryStore();
    const options = {
      ...{ ...vault, serviceId, authorizationEndpoint, tokenEndpoint, store },
      port: new URL(redirectUrl).port,
      onStart: () => assert.equal(vault.asked, 0),
    };
    await login({
      ...options,
      open: async (url) => void fetch(await sandbox.approve(url)),
    });
    assert.equal(vault.asked, 1);
    const { meta } = (await store.load("default"))!;
    assert.equal(meta.service_id, serviceId);
    const flow = await startAuth(options);
    flow.cancel();
    await failure(flow.reply);
    assert.equal(vault.asked, 1, "a login that is given up needs none");
  } finally {
    await sandbox.stop();
  }
});

test("a vault that fails is told, and an old token is used while it lives", () =>
  withSandbox(async (sandbox) => {
    const store = memoryStore();
    const held = await keepExpired(sandbox, store);
    const { appKey } = sandbox;
    const appSecret = () => {
      throw new Error("the vault is sealed");
    };
    const warnings: string[] = [];
    const options = {
      ...askAt(sandbox, store),
      ...{
        appKey,
        appSecret,
        onWarning: (text: string) => warnings.push(text),
      },
    };
    const error = await failure(accessToken(options));
    assert.ok(error instanceof TikTokShopError);
    assert.equal(error.kind, "store");
    assert.match(error.message, /^Cannot get the app secret: the vault is/);
    held.data.access_token_expire_in = Math.floor(Date.now() / 1000) + 60;
    await store.save("default", held);
    assert.equal(await accessToken(options), held.data.access_token);
    assert.match(warnings.join(), /is used while it lives: Cannot get the app/);
  }));

for (const [what, secret] of [["nothing", undefined], ["a number", 5]]) {
  test(`a secret function that returns ${what} is misuse`, () =>
    withSandbox(async (sandbox) => {
      const app = {
        appKey: sandbox.appKey,
        appSecret: () => secret as unknown as string,
      };
      const exchange = exchangeCode(app, sandbox.issueCode(), sandbox);
      await assert.rejects(exchange, {
        name: "TypeError",
        message: /The app secret is missing/,
      });
      assert.equal(sandbox.requests.length, 0);
    }));
}

test("tokens of another app are refused before its secret is asked for", () =>
  withSandbox(async (sandbox) => {
    const store = memoryStore();
    await keepExpired(sandbox, store);
    const vault = { ...vaultOf(sandbox), appKey: "another12345" };
    const options = { ...askAt(sandbox, store), ...vault };
    await assert.rejects(accessToken(options), /belongs to the app key/);
    assert.equal(vault.asked, 0);
  }));
