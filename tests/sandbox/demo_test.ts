/** The demo and the docs, as a newcomer runs them. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import {
  ROOT,
  runtimeCommand,
  start,
  temporaryFolder,
  writeProgram,
} from "../support/helpers.ts";

const DEMO = runtimeCommand(join(ROOT, "scripts", "demo.ts"));

test("demo without a display ends with the sandbox's reply", async (t) => {
  const temporary = await temporaryFolder();
  t.after(temporary[Symbol.asyncDispose]);
  const env = { TMPDIR: temporary.path, HOME: temporary.path };
  const { code, stdout, stderr } = await start(DEMO, { env }).ended;
  assert.equal(code, 0, stderr);
  assert.equal(JSON.parse(stdout).data.seller_name, "Harbour & Finch");
  assert.match(stderr, /no display: the demo approves the app itself/);
  assert.deepEqual(await readdir(temporary.path), [], "nothing is left");
});

test("demo touches no setting and no file of the user's", async (t) => {
  const temporary = await temporaryFolder();
  t.after(temporary[Symbol.asyncDispose]);
  const file = join(temporary.path, "mine.json");
  const env = {
    HOME: temporary.path,
    TIKTOK_SHOP_TOKEN_FILE: file,
    TIKTOK_SHOP_HOME: temporary.path,
    TIKTOK_SHOP_APP_KEY: "mine",
  };
  const { code, stderr } = await start(DEMO, { env }).ended;
  assert.equal(code, 0, stderr);
  assert.deepEqual(await readdir(temporary.path), []);
});

test("demo with a display opens the person's browser", {
  skip: process.platform === "win32" && "a shell script stands for the browser",
}, async (t) => {
  const temporary = await temporaryFolder();
  t.after(temporary[Symbol.asyncDispose]);
  const browser = join(temporary.path, "browser");
  // A person who clicks Approve, with curl's help.
  writeProgram(browser, APPROVING_BROWSER);
  const env = { DISPLAY: ":99", BROWSER: `"${browser}"` };
  const { code, stdout, stderr, took } = await start(DEMO, { env }).ended;
  assert.equal(code, 0, stderr);
  assert.equal(JSON.parse(stdout).code, 0);
  assert.match(stderr, /Click Approve in the browser/);
  assert.ok(took < 60_000, "the click is what ends it, not the minute");
});

const APPROVE = JSON.stringify(
  new URL("../../scripts/sandbox.ts", import.meta.url).href,
);
const APPROVING_BROWSER = `#!/bin/sh
cat > "$0.ts" <<'END'
import process from "node:process";
import { approve } from ${APPROVE};
await fetch(await approve(process.argv[2]));
END
exec ${
  runtimeCommand("").slice(0, -1).map((word) => `'${word}'`).join(" ")
} "$0.ts" "$1"
`;
