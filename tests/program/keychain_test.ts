/**
 * The app secret in the system's keychain: the commands of each system, and
 * real keychains. On macOS and Windows the login keychain of whoever runs the
 * tests is left alone, unless KEYCHAIN_TEST is set, as it is in the workflow.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import process from "node:process";
import { describe, it } from "node:test";
import { keychainAnswer, keychainCommand } from "../../mod.ts";
import {
  assertFailed,
  type CliFixture,
  NOTHING_SET,
  withCli,
} from "../support/cli_fixture.ts";
import { skipIf } from "../support/helpers.ts";
import {
  AT_HOME,
  homeStore,
  hostFlags,
  runBare,
  secretFile,
  sevenDaysLater,
} from "../support/kept.ts";
import {
  canMakeUserBus,
  type Keychain,
  NO_KEYCHAIN,
  startKeychain,
  USER_BUS,
} from "../support/keychain.ts";

const KEY = "6f3k9d2m1x8q";
const SECRET = 'a"b\\c$d`e%f';
const SYSTEMS = ["linux", "darwin", "win32"];
const ACTIONS = ["find", "unlock", "store", "remove"] as const;

describe("keychainCommand()", () => {
  it("never has the secret in an argument", () => {
    for (const system of SYSTEMS) {
      for (const action of ACTIONS) {
        const [file, args] = keychainCommand(system, action, KEY, SECRET);
        const words = [file, ...args].join(" ");
        assert.ok(!words.includes(SECRET), `${system} ${action}`);
        assert.ok(!words.includes(Buffer.from(SECRET).toString("base64")));
      }
    }
  });

  it("runs secret-tool on Linux", () => {
    const item = ["service", "tiktok-shop-oauth2", "account", KEY];
    const expected = {
      find: ["search", ...item],
      unlock: ["search", "--unlock", ...item],
      store: ["store", `--label=tiktok-shop-oauth2:${KEY}`, ...item],
      remove: ["clear", ...item],
    };
    for (const action of ACTIONS) {
      const input = action === "store" ? SECRET : "";
      assert.deepEqual(keychainCommand("linux", action, KEY, SECRET), [
        "secret-tool",
        expected[action],
        input,
      ]);
    }
  });

  it("runs security on macOS, which takes the secret as a line", () => {
    const file = "/usr/bin/security";
    const item = ["-s", "tiktok-shop-oauth2", "-a", KEY];
    const find = [file, ["find-generic-password", ...item, "-w"], ""];
    assert.deepEqual(keychainCommand("darwin", "find", KEY), find);
    assert.deepEqual(keychainCommand("darwin", "unlock", KEY), find);
    const remove = [file, ["delete-generic-password", ...item], ""];
    assert.deepEqual(keychainCommand("darwin", "remove", KEY), remove);
    const line = 'add-generic-password -U -s "tiktok-shop-oauth2" -a ' +
      `"${KEY}" -w "a\\"b\\\\c$d\`e%f"\n`;
    const store = [file, ["-i"], line];
    assert.deepEqual(keychainCommand("darwin", "store", KEY, SECRET), store);
    // One that is longer would be executed in halves.
    const longest = "x".repeat(3000);
    const [, , input] = keychainCommand("darwin", "store", KEY, longest);
    assert.ok(input.length < 4000);
  });

  it("runs PowerShell on Windows by its full path, the script encoded", () => {
    for (
      const [action, verb] of [["store", "Protect"], ["find", "Unprotect"]]
    ) {
      const [file, args, input] = keychainCommand(
        "win32",
        action as "find",
        KEY,
        SECRET,
        "D:\\Win",
      );
      assert.equal(
        file,
        "D:\\Win\\System32\\WindowsPowerShell\\v1.0\\powershell.exe",
      );
      const script = Buffer.from(args.pop()!, "base64").toString("utf16le");
      assert.deepEqual(
        args,
        ["-NoProfile", "-NonInteractive", "-EncodedCommand"],
      );
      assert.ok(
        script.includes(`[Security.Cryptography.ProtectedData]::${verb}(`),
      );
      assert.ok(!script.includes(KEY));
      const sent = action === "store" ? btoa(SECRET) : SECRET;
      assert.equal(input, sent);
    }
  });
});

describe("keychainAnswer()", () => {
  const shown = "[/1]\nlabel = x\nsecret = s3cr=t\ncreated = 2026\n";
  const answers: [string, number, string, string | RegExp][] = [
    ["linux", 0, shown, "s3cr=t"],
    ["linux", 0, "", ""],
    ["linux", 0, "[/1]\nlabel = \ncreated = \n", /it is locked/],
    ["linux", 1, "", /this session has none/],
    ["darwin", 0, "s3cret\n", "s3cret"],
    ["darwin", 44, "", ""],
    ["darwin", 36, "", /it is locked/],
    ["darwin", 128, "", /it is locked/],
    ["darwin", 1, "", /this session has none/],
    ["win32", 0, btoa("s3cret"), "s3cret"],
    ["win32", 1, "", /this session has none/],
  ];
  for (const [system, status, text, expected] of answers) {
    it(`on ${system} says ${expected} of ${status} and "${text.slice(0, 9)}"`, () => {
      const read = () => keychainAnswer(system, status, text);
      if (typeof expected === "string") assert.equal(read(), expected);
      else assert.throws(read, { name: "TikTokShopError", kind: "store" });
      if (typeof expected !== "string") assert.throws(read, expected);
    });
  }
});

/** A login that keeps its secret in a keychain. */
async function keepIn(
  cli: CliFixture,
  env: Record<string, string>,
): Promise<void> {
  const args = ["--keep-secret", "keychain"];
  const { code, stderr } = await cli.login(args, {
    env: { ...AT_HOME, ...env },
  });
  assert.equal(code, 0, stderr);
  assert.match(stderr, /The app secret is kept in the keychain\n/);
}

/** Runs a test with a keychain; `more` is what `env -i` lets through. */
function inKeychain(
  run: (
    cli: CliFixture,
    keychain: Keychain,
    more: string[],
  ) => Promise<unknown>,
  bus?: string,
): Promise<void> {
  return withCli(async (cli) => {
    const keychain = await startKeychain(bus);
    const more = Object.entries(keychain.env).map((pair) => pair.join("="));
    await run(cli, keychain, more).finally(() => keychain.stop());
  });
}

const ITEM = ["service", "tiktok-shop-oauth2", "account", KEY];

describe("a keychain of Linux", { concurrency: 2, skip: NO_KEYCHAIN }, () => {
  it("keeps the secret, and no file has it", () =>
    inKeychain(async (cli, keychain, more) => {
      const { appSecret } = cli.sandbox;
      await keepIn(cli, keychain.env);
      assert.equal(keychain.tool("lookup", ...ITEM), appSecret);
      for (const name of await readdir(homeStore(cli))) {
        const text = await readFile(`${homeStore(cli)}/${name}`, "utf8");
        assert.ok(!text.includes(appSecret), name);
      }
      await sevenDaysLater(homeStore(cli));
      const { code, stdout, stderr } = await runBare(cli, ["token"], { more });
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^ROW_\S+\n$/);
      const status = await runBare(cli, ["status", "--json"], { more });
      assert.equal(JSON.parse(status.stdout)[0].app_secret, "keychain");
      const doctor = await runBare(cli, ["doctor"], { more });
      assert.match(doctor.stdout, /app secret +is set, from the keychain\n/);
    }));

  it("takes it out of the file, and the file takes it out of it", () =>
    inKeychain(async (cli, keychain) => {
      const { appSecret } = cli.sandbox;
      const env = { ...AT_HOME, ...keychain.env };
      await cli.login(["--keep-secret", "file"], { env });
      assert.match(await readFile(secretFile(cli), "utf8"), /"file"/);
      await keepIn(cli, keychain.env);
      const record = await readFile(secretFile(cli), "utf8");
      assert.ok(!record.includes(appSecret));
      await cli.login(["--keep-secret", "file"], { env });
      assert.equal(keychain.tool("lookup", ...ITEM), "");
      await keepIn(cli, keychain.env);
      await cli.login(["--keep-secret", "no"], { env });
      assert.equal(keychain.tool("lookup", ...ITEM), "");
      await keepIn(cli, keychain.env);
      const { stderr } = await cli.run(["logout", "--app"], { env });
      assert.match(stderr, /Forgot the app/);
      assert.equal(keychain.tool("lookup", ...ITEM), "");
    }));

  it("that is locked is said to be, and plain text is not fallen back to", () =>
    inKeychain(async (cli, keychain, more) => {
      await keepIn(cli, keychain.env);
      await keychain.lock();
      await sevenDaysLater(homeStore(cli));
      const said =
        /^error: Cannot use the keychain: it is locked\nhint: unlock/;
      for (const words of [["token"], ["refresh"], ["logout", "--app"]]) {
        const { code, stderr } = await runBare(cli, words, { more });
        assert.equal(code, 1, stderr);
        assert.match(stderr.replace(/^Removed.*\n/, ""), said);
      }
      const again = ["--keep-secret", "keychain"];
      const env = { ...AT_HOME, ...keychain.env };
      assertFailed(await cli.run(["login", ...again], { env }), 1, said);
      const text = await readFile(secretFile(cli), "utf8");
      assert.ok(!text.includes(cli.sandbox.appSecret));
    }));

  it("that is locked takes nothing new, and costs no tokens", () =>
    inKeychain(async (cli, keychain) => {
      await keychain.lock();
      const args = ["--keep-secret", "keychain"];
      const env = { ...AT_HOME, ...keychain.env };
      const { code, stdout, stderr } = await cli.login(args, { env });
      assert.equal(code, 1);
      assert.match(stderr, /error: Cannot use the keychain: it is locked\n/);
      assert.match(stdout, /"access_token"/);
      assert.deepEqual(await readdir(homeStore(cli)), ["default.json"]);
    }));

  it("that does not answer is given up after five seconds", () =>
    inKeychain(async (cli, keychain, more) => {
      await keepIn(cli, keychain.env);
      await sevenDaysLater(homeStore(cli));
      keychain.pause();
      const ended = await runBare(cli, ["token"], { more });
      assertFailed(
        ended,
        1,
        /Cannot use the keychain: it does not answer/,
      );
      assert.ok(ended.took > 4900, `${ended.took} ms`);
    }));

  it("that is not there is said to be missing", () =>
    withCli(async (cli) => {
      const says = /^error: Cannot use the keychain: this session has none\n/;
      const bus = { DBUS_SESSION_BUS_ADDRESS: "unix:path=/none" };
      const args = ["login", "--keep-secret", "keychain"];
      for (const env of [bus, { ...bus, PATH: "/none" }]) {
        assertFailed(await cli.run(args, { env }), 1, says);
      }
    }));

  it("that has lost the secret is the same as none", () =>
    inKeychain(async (cli, keychain, more) => {
      await keepIn(cli, keychain.env);
      keychain.tool("clear", ...ITEM);
      await sevenDaysLater(homeStore(cli));
      const { code, stderr } = await runBare(cli, ["token"], { more });
      assert.equal(code, 2);
      assert.match(stderr, /Missing settings: TIKTOK_SHOP_APP_SECRET, /);
      await rm(secretFile(cli));
      await writeFile(secretFile(cli), "{");
      assert.equal((await runBare(cli, ["token"], { more })).code, 2);
    }));

  const noBus = canMakeUserBus() ? false : "there is a user's bus already";
  it("is found by cron, which knows no bus, where a user has it", {
    skip: noBus,
  }, () =>
    inKeychain(async (cli, keychain) => {
      await keepIn(cli, keychain.env);
      await sevenDaysLater(homeStore(cli));
      const { code, stdout, stderr } = await runBare(cli, ["token"]);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^ROW_\S+\n$/);
    }, USER_BUS));
});

const FOREIGN = process.platform === "linux" || !process.env.KEYCHAIN_TEST;

describe("the keychain of macOS and Windows", {
  ...skipIf(FOREIGN, "it is somebody's own: set KEYCHAIN_TEST to use it"),
}, () => {
  it("keeps a secret, finds it and forgets it", () =>
    withCli(async (cli) => {
      // The login keychain of macOS belongs to the home folder.
      const env = {
        HOME: process.env.HOME,
        APPDATA: process.env.APPDATA,
        USERPROFILE: process.env.USERPROFILE,
        ...NOTHING_SET,
      };
      const args = ["--keep-secret", "keychain"];
      const own = { ...cli.sandbox.env, HOME: process.env.HOME };
      const { code, stderr } = await cli.login(args, { env: own });
      assert.equal(code, 0, stderr);
      const words = ["refresh", ...hostFlags(cli, "refresh")];
      const { code: found, stderr: why } = await cli.run(words, { env });
      assert.equal(found, 0, why);
      const file = await readFile(secretFile(cli, cli.store), "utf8");
      assert.ok(!file.includes(cli.sandbox.appSecret));
      const ended = await cli.run(["logout", "--app"], { env });
      assert.equal(ended.code, 0, ended.stderr);
    }));
});
