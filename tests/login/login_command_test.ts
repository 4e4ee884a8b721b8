/**
 * The program's `login`, run as a process against the sandbox: what it prints
 * and where, every flag and every exit code. What needs a terminal is in
 * prompt_test.ts, what is saved in saving_test.ts. No run may show a secret.
 */
import assert from "node:assert/strict";
import {
  chmod,
  mkdir,
  readdir,
  readFile,
  stat,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import type { SandboxFault } from "../../scripts/sandbox.ts";
import {
  assertUsageError,
  cliCommand,
  type CliFixture,
  NOTHING_SET,
  type OpenLogin,
  type RunOptions,
  withCli,
} from "../support/cli_fixture.ts";
import {
  ENCODINGS,
  type Ended,
  freePort,
  isListening,
  NO_WINDOWS,
  ON_DENO,
  ON_LINUX,
  programCommand,
  ROOT,
  runtimeCommand,
  skipIf,
  TOGETHER,
  writeProgram,
} from "../support/helpers.ts";
import { PRETTY, WIRE } from "../support/replies.ts";
import { answer, refusal, withHost } from "../support/token_host.ts";
import { bareProcess, within } from "../support/timing.ts";

const ONLY_DENO = skipIf(!ON_DENO, "Node has no such permissions");

// === What login prints and saves

describe("the program's login", TOGETHER, () => {
  it("prints TikTok's reply on stdout, digit for digit", () =>
    withCli((cli) =>
      withHost(() => answer(WIRE), async ({ tokenEndpoint }) => {
        const { code, stdout } = await cli.login([
          ...["--token-endpoint", tokenEndpoint],
        ]);
        assert.equal(stdout, PRETTY);
        assert.equal(code, 0);
      })
    ));

  it("is what runs when no command is named", () =>
    withCli(async (cli) => {
      const running = cli.start(["--no-browser", ...cli.portFlag([])]);
      const { link } = await cli.linkOf(running);
      await fetch(await cli.decide(link));
      const { code, stdout } = await running.ended;
      assert.equal(code, 0);
      assert.equal(JSON.parse(stdout).message, "success");
    }));

  it("tells each step on stderr, and in which file the tokens are", () =>
    withCli(async (cli) => {
      const { link, ended } = await cli.open();
      await fetch(await cli.decide(link));
      const { stderr } = await ended;
      assert.equal(
        stderr,
        `Open this link to authorize the app:

${link}

Waiting for the redirect to http://localhost:${cli.port}/
Redirect received, getting the tokens
Authorized by Harbour & Finch, saved to ${join(cli.store, "default.json")}
`,
      );
    }));

  it("ends within a second of the redirect, its port closed", () =>
    withCli(async (cli) => {
      const { link, ended } = await cli.open();
      const redirect = await cli.decide(link);
      await (await fetch(redirect)).text();
      await within(1000, () => ended);
      assert.equal(await isListening(cli.port), false);
    }));
});

// === Flags

/** Links by region and user type, without `?…&state=…`. */
const LINKS: [args: string[], env: Record<string, string>, link: string][] = [
  [[], {}, "https://services.tiktokshop.com/open/authorize?service_id="],
  [
    ["--region", "us"],
    {},
    "https://services.us.tiktokshop.com/open/authorize?service_id=",
  ],
  [
    ["--region", "US", "--user-type", "partner"],
    {},
    "https://partner.us.tiktokshop.com/open/authorize?service_id=",
  ],
  [
    ["--user-type", "partner"],
    {},
    "https://partner.tiktokshop.com/open/authorize?service_id=",
  ],
  [
    ["--user-type", "creator"],
    { TIKTOK_SHOP_SERVICE_ID: "" },
    "https://shop.tiktok.com/alliance/creator/auth?app_key=",
  ],
  [
    [],
    { TIKTOK_SHOP_REGION: "us", TIKTOK_SHOP_USER_TYPE: "partner" },
    "https://partner.us.tiktokshop.com/open/authorize?service_id=",
  ],
  [
    ["--region", "row"],
    { TIKTOK_SHOP_REGION: "us" },
    "https://services.tiktokshop.com/open/authorize?service_id=",
  ],
];

describe("a flag of login", TOGETHER, () => {
  it("--json prints the reply on one line", () =>
    withCli((cli) =>
      withHost(() => answer(WIRE), async ({ tokenEndpoint }) => {
        const args = ["--token-endpoint", tokenEndpoint, "--json"];
        const { stdout } = await cli.login(args);
        const line = WIRE.replace("\u202e", "\\u202e");
        assert.equal(stdout, `${line}\n`);
      })
    ));

  it("--quiet leaves only the link on stderr", () =>
    withCli(async (cli) => {
      const { link, ended } = await cli.open(["--quiet"]);
      await fetch(await cli.decide(link));
      const { code, stderr } = await ended;
      assert.equal(code, 0);
      assert.equal(stderr, `${link}\n`);
    }));

  it("--verbose tells each request, without its secrets", () =>
    withCli(async (cli) => {
      const { stderr } = await cli.login(["--verbose"]);
      const { origin, appKey } = cli.sandbox;
      const lines = stderr.split("\n").filter((line) => /^GET/.test(line));
      assert.equal(
        lines.join("\n").replace(/\d+ ms/, "N ms"),
        `GET ${origin}/api/v2/token/get?app_key=${appKey}&app_secret=***&` +
          "auth_code=***&grant_type=authorized_code HTTP 200 (N ms)",
      );
    }));

  it("--port takes the first free port of a range, and says which", () =>
    withCli(async (cli) => {
      const [first, second] = await twoPorts();
      const taken = createServer().listen(first, "127.0.0.1");
      const args = ["--port", `${first}-${second}`];
      const env = { SSH_CONNECTION: "203.0.113.7 50000 198.51.100.4 22" };
      const { link, until, ended } = await cli.open(args, { env });
      await until(new RegExp(`redirect to http://localhost:${second}/$`, "m"));
      await until(new RegExp(`ssh -L ${second}:localhost:${second} `));
      const redirect = new URL(await cli.decide(link));
      redirect.port = `${second}`;
      assert.equal((await fetch(redirect)).status, 200);
      assert.equal((await ended).code, 0);
      taken.close();
    }));

  it("--host and --path make the redirect URL", () =>
    freePort().then((port) =>
      withCli(async (cli) => {
        const args = ["--host", "127.0.0.1", "--path", "/tts/callback"];
        const { stderr, code } = await cli.login(args);
        const url = `http://127.0.0.1:${port}/tts/callback`;
        assert.ok(stderr.includes(`redirect to ${url}\n`), stderr);
        assert.equal(code, 0);
      }, { redirectUrl: `http://127.0.0.1:${port}/tts/callback` })
    ));

  for (const [timeout, waited] of [["1", "1 s"], ["1s", "1 s"]]) {
    it(`--timeout ${timeout} ends the wait, and says what to check`, () =>
      withCli(async (cli) => {
        const args = ["login", "--no-browser", ...cli.portFlag([])];
        const { code, stdout, stderr, took } = await cli.run(
          [...args, "--timeout", timeout!],
        );
        assert.equal(code, 4);
        assert.equal(stdout, "");
        assert.match(stderr, new RegExp(`error: Timed out after ${waited} `));
        assert.match(stderr, /hint: check that the app's redirect URL is /);
        assert.ok(stderr.includes(` is ${cli.sandbox.redirectUrl}`), stderr);
        assert.ok(took > 1000, `${took} ms`);
      }));
  }

  it("--timeout tells how many redirects were not used", () =>
    withCli(async (cli) => {
      const { code, stderr } = await cli.timeOut(async () => {
        for (const query of ["code=1&state=forged", "code=1&code=2&state=3"]) {
          const url = `http://127.0.0.1:${cli.port}/?${query}`;
          assert.equal((await fetch(url)).status, 400);
        }
      });
      assert.equal(code, 4);
      assert.match(stderr, /redirect \(2 of another login\)\n/);
    }));

  it("--param reaches the authorize page, as often as it is given", () =>
    withCli(async (cli) => {
      const args = ["--param", "lang=en GB", "--param", "x=a=b&c"];
      await cli.login([...args, "--param", "toString=1"]);
      const [shown] = cli.sandbox.requests;
      assert.equal(shown!.query.lang, "en GB");
      assert.equal(shown!.query.x, "a=b&c");
      assert.equal(shown!.query.toString, "1");
    }));

  for (const [args, env, expected] of LINKS) {
    const named = [...args, ...Object.keys(env)].join(" ") || "no flag";
    it(`makes the link to ${expected.slice(8)} of ${named}`, () =>
      withCli(async (cli) => {
        const { appKey, serviceId } = cli.sandbox;
        const running = await cli.open(args, {
          env: { TIKTOK_SHOP_AUTHORIZATION_ENDPOINT: undefined, ...env },
        });
        const { link, ended } = running;
        const id = expected.endsWith("app_key=") ? appKey : serviceId;
        assert.equal(link.replace(/&state=[\w-]{43}$/, ""), expected + id);
        cli.signal(running, "SIGINT");
        await ended;
      }));
  }

  it("--profile names the file, and so does its variable", () =>
    withCli(async (cli) => {
      await cli.login(["--profile", "北京.shop_1"]);
      await cli.login([], { env: { TIKTOK_SHOP_PROFILE: "other" } });
      const names = (await readdir(cli.store)).sort();
      assert.deepEqual(names, ["other.json", "北京.shop_1.json"]);
    }));

  it("--file keeps the tokens there, and makes the folders", () =>
    withCli(async (cli) => {
      const file = "qa_data/tokens/tiktok-shops.json";
      const { code, stderr } = await cli.login(["--file", file]);
      assert.equal(code, 0);
      const saved = await readFile(cli.path(file), "utf8");
      assert.match(JSON.parse(saved).data.access_token, /./);
      assert.match(stderr, /, saved to .*tiktok-shops\.json$/m);
      assert.deepEqual(await readdir(cli.folder), ["qa_data"]);
    }));

  it(
    "--file leaves a folder that was there as it was",
    NO_WINDOWS,
    () =>
      withCli(async (cli) => {
        await mkdir(cli.path("shared"));
        await chmod(cli.path("shared"), 0o755);
        const env = { TIKTOK_SHOP_TOKEN_FILE: cli.path("shared/tokens") };
        await cli.login([], { env });
        const mode = async (name: string) =>
          (await stat(cli.path(name))).mode & 0o777;
        assert.equal(await mode("shared"), 0o755);
        assert.equal(await mode("shared/tokens"), 0o600);
      }),
  );

  it("--no-show keeps the tokens off the screen, and saves them", () =>
    withCli(async (cli) => {
      const { code, stdout, stderr } = await cli.login(["--no-show"]);
      assert.deepEqual([code, stdout], [0, ""]);
      assert.match(stderr, /\nAuthorized by Harbour & Finch, saved to .*\n$/);
      const saved = JSON.parse(await cli.saved());
      assert.ok(!stderr.includes(saved.data.access_token));
    }));

  it("--require-scope fails after saving, with nothing on stdout", () =>
    withCli(async (cli) => {
      const scopes = "seller.order.info, seller.product.write,x";
      const ended = await cli.login(["--require-scope", scopes]);
      assert.equal(ended.code, 1);
      assert.equal(ended.stdout, "");
      assert.match(
        ended.stderr,
        /: The seller did not grant "seller\.product\.write", "x", the rest /,
      );
      assert.match(ended.stderr, /hint: enable it in Partner Center/);
      assert.match(await cli.saved(), /"access_token"/);
    }));

  it("--require-scope lets pass what was granted", () =>
    withCli(async (cli) => {
      const scopes = "seller.order.info,seller.authorization.info";
      const { code, stdout } = await cli.login(["--require-scope", scopes]);
      assert.equal(code, 0);
      assert.notEqual(stdout, "");
    }));
});

/** Two free ports, one after the other. */
async function twoPorts(): Promise<[number, number]> {
  for (let first = await freePort();;) {
    const second = await freePort();
    if (second === first + 1) return [first, second];
    first = second;
  }
}

// === The browser

/** Follows a link as a person would, then stays open for a while. */
const BROWSER = `
import { appendFileSync } from "node:fs";
const [, , log, link] = process.argv;
appendFileSync(log, JSON.stringify(process.argv.slice(3)) + "\\n");
const page = await (await fetch(link)).text();
const [, action] = /<form method="post" action="([^"]*)"/.exec(page);
const target = action.replace(/&#(\\d+);/g, (_, c) => String.fromCharCode(c));
const body = new URLSearchParams({ decision: "approve" });
await (await fetch(new URL(target, link), { method: "POST", body })).text();
await new Promise((resolve) => setTimeout(resolve, 60_000));
`;

/** A browser in the fixture's folder, which has a space in its name. */
async function installBrowser(cli: CliFixture) {
  const script = await cli.write("browser.mjs", BROWSER);
  const log = cli.path("opened");
  const command = [...runtimeCommand(script), log]
    .map((word) => `'${word}'`).join(" ");
  const text = `#!/bin/sh\nexec ${command} "$@"\n`;
  const path = cli.path("my browser");
  writeProgram(path, text);
  return { path, log };
}

describe("login's browser", { ...TOGETHER, ...NO_WINDOWS }, () => {
  const ways: [name: string, (path: string) => [string[], RunOptions]][] = [
    ["--browser CMD", (path) => [["--browser", `"${path}"`], {}]],
    ["--browser 'CMD %s'", (path) => [["--browser", `'${path}' %s`], {}]],
    ["$BROWSER", (path) => [[], { env: { BROWSER: `"${path}"` } }]],
    [
      "the second command of $BROWSER",
      (path) => [[], { env: { BROWSER: `/no/such/command:"${path}"` } }],
    ],
  ];
  for (const [name, way] of ways) {
    it(`is ${name}, and the login does not wait for its end`, () =>
      withCli(async (cli) => {
        const { path, log } = await installBrowser(cli);
        const [args, options] = way(path);
        const all = ["login", ...cli.portFlag([]), ...args];
        const running = cli.start(all, options);
        const { link } = await cli.linkOf(running);
        const { code, took } = await running.ended;
        assert.equal(code, 0);
        assert.ok(took < 60_000, `${took} ms`);
        assert.equal(await readFile(log, "utf8"), `["${link}"]\n`);
      }));
  }

  it("is not opened with --no-browser", () =>
    withCli(async (cli) => {
      const { path, log } = await installBrowser(cli);
      await cli.login([], { env: { BROWSER: `"${path}"` } });
      await assert.rejects(readFile(log), { code: "ENOENT" });
    }));

  it("is no reason to fail: the link is there to be opened", () =>
    withCli(async (cli) => {
      const args = ["login", ...cli.portFlag([]), "--browser", "/no/such"];
      const running = cli.start(args);
      const { link } = await cli.linkOf(running);
      await running.until(/^The link could not be opened with "\/no\/such"$/m);
      await running.until(/^No browser could be opened: open the link/m);
      await fetch(await cli.decide(link));
      assert.equal((await running.ended).code, 0);
    }));
});

// === Settings

/** The app's settings as an env file, and an environment with the others. */
function ownSettings(
  cli: CliFixture,
): [lines: string, env: Record<string, string | undefined>] {
  const all = Object.entries(cli.sandbox.env);
  const isOwn = ([name]: [string, string]) => !name.endsWith("_ENDPOINT");
  const lines = all.filter(isOwn).map(([name, value]) => `${name}=${value}\n`);
  const others = all.filter((one) => !isOwn(one));
  return [lines.join(""), { ...NOTHING_SET, ...Object.fromEntries(others) }];
}

/** Keys as people copy them, and what is said of them. */
const COPIED: [value: string, says: RegExp][] = [
  ['"KEY"', /has quotes around it: leave them out/],
  ["\u201cKEY\u201d", /has quotes around it/],
  ["'KEY", /has quotes around it/],
  ["KEY\u200b", /has an invisible or full-width character: copy it/],
  ["\ufeffKEY", /has (white space|an invisible)/],
  ["\uff21\uff22\uff23", /has an invisible or full-width/],
  ["app_key=KEY", /has a name in front of it: leave it out/],
  ["TIKTOK_SHOP_APP_SECRET=KEY", /has a name in front of it/],
  ["App-Key:KEY", /has a name in front of it/],
  ["<KEY>", /is in brackets: put your own/],
  ["{{app_key}}", /is in brackets/],
  ["${APP_KEY}", /is in brackets/],
  ["KEY 2", /has white space in it: copy it alone/],
];

describe("a key that was not copied well", TOGETHER, () => {
  const sources: [what: string, name: string, flag?: string][] = [
    ["app key", "APP_KEY", "--app-key"],
    ["app secret", "APP_SECRET"],
    ["service id", "SERVICE_ID", "--service-id"],
  ];
  for (const [what, name, flag] of sources) {
    it(`is refused at once: ${what}`, () =>
      withCli(async (cli) => {
        for (const [form, says] of COPIED) {
          const value = form.replace("KEY", "6f3k9d2m1x8q");
          const env = { [`TIKTOK_SHOP_${name}`]: value };
          for (
            const ended of [
              await cli.run(["login"], { env }),
              ...flag ? [await cli.run(["login", `${flag}=${value}`])] : [],
            ]
          ) {
            assertUsageError(ended, new RegExp(`The ${what} ${says.source}`));
            assert.doesNotMatch(ended.stderr, /6f3k9d2m1x8q/);
          }
        }
      }));
  }
});

describe("a setting of login", TOGETHER, () => {
  it("is read from --env-file, all of them", () =>
    withCli(async (cli) => {
      const lines = Object.entries(cli.sandbox.env)
        .map(([name, value]) => `export ${name}="${value}"\n`);
      const file = await cli.write("my env", lines.join(""));
      const args = ["--env-file", file];
      assert.equal((await cli.login(args, { env: NOTHING_SET })).code, 0);
    }));

  it("is read from ./.env if there is one", () =>
    withCli(async (cli) => {
      const [lines, env] = ownSettings(cli);
      const more = "PATH=/nowhere\nTIKTOK_SHOP_REGION=row\n";
      await cli.write(".env", `# mine\n${lines}${more}`);
      assert.equal((await cli.login([], { env })).code, 0);
    }));

  const foreign = ["HOME", "TOKEN_FILE", "ACCESS_TOKEN", "NO_SUCH_NAME"]
    .concat("AUTHORIZATION_ENDPOINT", "TOKEN_ENDPOINT", "REFRESH_ENDPOINT")
    .concat("API_ENDPOINT", "APP_SECRET_COMMAND", "APP_KEY_");
  it("is refused in a ./.env that was not named, except the app's own", () =>
    withCli(async (cli) => {
      assert.equal((await cli.login()).code, 0);
      const before = cli.sandbox.requests.length;
      for (const name of foreign) {
        // Also beside what the environment sets, and even if it is empty.
        const value = name === "HOME" ? "" : "http://127.0.0.1:9/";
        await cli.write(".env", `TIKTOK_SHOP_${name}=${value}\n`);
        const ended = await cli.run(["token"]);
        const says = `Cannot take TIKTOK_SHOP_${name} from .*--env-file \\.env`;
        assertUsageError(ended, new RegExp(says));
      }
      assert.equal(cli.sandbox.requests.length, before);
    }));

  it("that is refused ends each command, except those without settings", () =>
    withCli(async (cli) => {
      await cli.write(".env", "TIKTOK_SHOP_API_ENDPOINT=https://a.example\n");
      const refused = [["login"], ["login", "--start"], ["refresh"], ["token"]]
        .concat([["status"], ["shops"], ["api", "GET", "/x"], ["logout"]])
        .concat([["exec", "--", "env"], ["doctor"]]);
      for (const args of refused) {
        const says = /Cannot take TIKTOK_SHOP_API_ENDPOINT from /;
        assertUsageError(await cli.run(args), says);
      }
      for (
        const args of [["relay"], ["--help"], ["--version"], ["api", "--help"]]
      ) {
        assert.equal((await cli.run(args)).code, 0);
      }
    }));

  it("is read from a ./.env that is named, whatever it is", () =>
    withCli(async (cli) => {
      const lines = Object.entries(cli.sandbox.env)
        .map(([name, value]) => `${name}=${value}\n`);
      await cli.write(".env", lines.join(""));
      const args = ["--env-file", ".env"];
      assert.equal((await cli.login(args, { env: NOTHING_SET })).code, 0);
    }));

  for (const [name, encode] of Object.entries(ENCODINGS)) {
    it(`is read from text files in ${name}`, () =>
      withCli(async (cli) => {
        const { appKey, appSecret, serviceId, env } = cli.sandbox;
        const write = (file: string, text: string) =>
          writeFile(cli.path(file), encode(text));
        await mkdir(cli.store);
        await write("store/config.json", `{"service_id":"${serviceId}"}`);
        await write(".env", `TIKTOK_SHOP_APP_KEY=${appKey}\n`);
        await write("secret", `${appSecret}\r\n`);
        const set = { ...env, TIKTOK_SHOP_APP_KEY: undefined };
        const bare = {
          TIKTOK_SHOP_SERVICE_ID: undefined,
          TIKTOK_SHOP_APP_SECRET: undefined,
        };
        const args = ["--app-secret-file", cli.path("secret")];
        const ended = await cli.login(args, { env: { ...set, ...bare } });
        assert.equal(ended.code, 0, ended.stderr);

        const lines = Object.entries(env).map(([key, v]) => `${key}=${v}\r\n`);
        await write("all.env", lines.join(""));
        await write("tokens.json", await cli.saved());
        const refresh = ["refresh", "--env-file", cli.path("all.env")];
        const file = ["--file", cli.path("tokens.json")];
        const run = await cli.run([...refresh, ...file], { env: NOTHING_SET });
        assert.equal(run.code, 0, run.stderr);
      }));
  }

  it("is read from paths that begin with ~/, in flags and environment", () =>
    withCli(async (cli) => {
      const { appSecret, env } = cli.sandbox;
      await cli.write("secret", appSecret);
      const lines = Object.entries(env).map(([name, v]) => `${name}=${v}\n`);
      await cli.write("all.env", lines.join(""));
      const ended = await cli.login(
        ["--env-file=~/all.env", "--app-secret-file=~/secret"],
        { env: { ...NOTHING_SET, TIKTOK_SHOP_HOME: "~/my store" } },
      );
      assert.equal(ended.code, 0, ended.stderr);
      const saved = cli.path("my store", "default.json");
      await writeFile(cli.path("t.json"), await readFile(saved));
      for (
        const [args, TIKTOK_SHOP_TOKEN_FILE] of [
          [["--file=~/t.json"]],
          [[], "~/t.json"],
        ] as [string[], string?][]
      ) {
        const run = await cli.run(["refresh", ...args], {
          env: { TIKTOK_SHOP_TOKEN_FILE },
        });
        assert.equal(run.code, 0, run.stderr);
      }
      await cli.write("body.json", '{"a":1}');
      const call = ["api", "POST", "/order/202309/orders/search", "--dry-run"];
      const missing = await cli.run(
        [...call.slice(0, 3), "--file=~/t.json", "--body", "@~/none.json"],
      );
      assert.match(
        missing.stderr,
        new RegExp(`from ${cli.path("none.json")}`),
      );
      const names = await readdir(cli.folder);
      assert.ok(!names.includes("~"), names.join());
    }));

  const sources: [name: string, args: string[], env: string, id: string][] = [
    ["the file if nothing else sets it", [], "", "11"],
    ["the environment before the file", [], "22", "22"],
    ["the flag before both", ["--service-id", "33"], "22", "33"],
  ];
  for (const [name, args, env, id] of sources) {
    it(`is taken from ${name}; an empty variable is not set`, () =>
      withCli(async (cli) => {
        await cli.write(".env", "TIKTOK_SHOP_SERVICE_ID=11\n");
        const options = { env: { TIKTOK_SHOP_SERVICE_ID: env } };
        const running = await cli.open(args, options);
        const { searchParams } = new URL(running.link);
        assert.equal(searchParams.get("service_id"), id);
        cli.signal(running, "SIGINT");
        await running.ended;
      }));
  }

  it("is a usage error if --env-file cannot be read", () =>
    withCli(async (cli) => {
      const missing = cli.path("no such file");
      const ended = await cli.run(["login", "--env-file", missing]);
      assertUsageError(ended, / Cannot read the env file .*no such file: /);
    }));

  it("is a usage error if it is missing, and all such are named", () =>
    withCli(async (cli) => {
      const ended = await cli.run(["login"], { env: NOTHING_SET });
      assertUsageError(
        ended,
        /TIKTOK_SHOP_APP_KEY .*TIKTOK_SHOP_SERVICE_ID .*TIKTOK_SHOP_APP_SECRET/,
      );
    }));

  it("is named alone if it alone is missing", () =>
    withCli(async (cli) => {
      const env = { TIKTOK_SHOP_APP_SECRET: undefined };
      const ended = await cli.run(["login"], { env });
      assertUsageError(ended, /TIKTOK_SHOP_APP_SECRET, --app-secret-file/);
      assert.doesNotMatch(ended.stderr, /APP_KEY|SERVICE_ID/);
    }));

  it("is the secret in --app-secret-file, before the variable", () =>
    withCli(async (cli) => {
      const file = await cli.write("secret", `${cli.sandbox.appSecret}\n`);
      const env = { TIKTOK_SHOP_APP_SECRET: "wrong" };
      const { code } = await cli.login(["--app-secret-file", file], { env });
      assert.equal(code, 0);
    }));

  it("is the secret on stdin with --app-secret-file -", () =>
    withCli(async (cli) => {
      const { code } = await cli.login(["--app-secret-file", "-"], {
        env: { TIKTOK_SHOP_APP_SECRET: undefined },
        input: `${cli.sandbox.appSecret}\n`,
      });
      assert.equal(code, 0);
    }));

  it("is the secret on stdin, however long its writer takes", () =>
    withCli(async (cli) => {
      const args = ["login", "--no-browser", ...cli.portFlag([])];
      const running = cli.start([...args, "--app-secret-file", "-"], {
        env: { TIKTOK_SHOP_APP_SECRET: undefined },
        input: "open",
      });
      await new Promise((resolve) => setTimeout(resolve, 500));
      running.child.stdin!.end(cli.sandbox.appSecret);
      const { link } = await cli.linkOf(running);
      await fetch(await cli.decide(link));
      assert.equal((await running.ended).code, 0);
    }));

  it("is a usage error if the secret file cannot be read", () =>
    withCli(async (cli) => {
      for (const file of [cli.path("none"), cli.folder]) {
        const ended = await cli.run(["login", "--app-secret-file", file]);
        assertUsageError(ended, / Cannot read the app secret from /);
      }
    }));

  it("is a usage error if the secret file is empty", () =>
    withCli(async (cli) => {
      const file = await cli.write("secret", "\n");
      const ended = await cli.run(["login", "--app-secret-file", file]);
      assertUsageError(ended, / The app secret is missing/);
    }));
});

// === Pasting

/** Starts a login that reads stdin, pastes into it and ends the input. */
async function paste(
  cli: CliFixture,
  lines: (redirect: URL) => string,
  args: string[] = [],
): Promise<Ended> {
  const all = ["--paste", ...args];
  const { link, child, ended } = await cli.open(all, { input: "open" });
  child.stdin!.end(lines(new URL(await cli.decide(link))));
  return await ended;
}

describe("login --paste", TOGETHER, () => {
  const pasted: [name: string, (redirect: URL) => string][] = [
    ["the redirect URL", ({ href }) => `${href}\n`],
    ["one without a line's end", ({ href }) => href],
    ["one with Windows' line's end", ({ href }) => `  ${href} \r\n`],
    ["a query string", ({ search }) => `${search}\n`],
    ["a query string without ?", ({ search }) => `${search.slice(1)}\n`],
  ];
  for (const [name, lines] of pasted) {
    it(`takes ${name} from a pipe`, () =>
      withCli(async (cli) => {
        const { code, stdout } = await paste(cli, lines);
        assert.equal(code, 0);
        assert.equal(JSON.parse(stdout).message, "success");
      }));
  }

  it("explains what is wrong, and goes on to what is right", () =>
    withCli(async (cli) => {
      const { code, stderr } = await paste(cli, ({ href }) => {
        const foreign = href.replace(/state=[^&]*/, "state=foreign");
        return `what now?\n\n${foreign}\n${href}\n`;
      });
      assert.equal(code, 0);
      assert.match(
        stderr,
        /^No authorization code found in this text: copy the/m,
      );
      assert.match(stderr, /^The redirect belongs to another login: /m);
    }));

  it("does not end the wait when the input ends", () =>
    withCli(async (cli) => {
      assert.equal((await cli.login(["--paste"])).code, 0);
    }));

  const bare = ({ searchParams }: URL) => `${searchParams.get("code")}\n`;
  const stateless = (redirect: URL) => {
    const url = new URL(redirect);
    url.searchParams.delete("state");
    return `${url.href}\n`;
  };
  for (const [name, lines] of Object.entries({ bare, stateless })) {
    it(`refuses a ${name} code unless that is allowed`, () =>
      withCli(async (cli) => {
        const running = await cli.open(["--paste"], { input: "open" });
        const redirect = new URL(await cli.decide(running.link));
        running.child.stdin!.write(lines(redirect));
        await running.until(/code came without state.*--allow-missing-state/);
        assert.equal(cli.sandbox.count("/api/v2/token/get"), 0);
        await fetch(redirect);
        await running.ended;
      }));

    it(`takes a ${name} code with --allow-missing-state`, () =>
      withCli(async (cli) => {
        const { code } = await paste(cli, lines, ["--allow-missing-state"]);
        assert.equal(code, 0);
      }));
  }
});

describe("login and a redirect without state", TOGETHER, () => {
  const decision = { fault: "missing-state" };

  it("hold it, and name --allow-missing-state when time is over", () =>
    withCli(async (cli) => {
      const { code, stderr } = await cli.timeOut(async ({ link }) => {
        const redirect = await cli.decide(link, decision);
        assert.equal((await fetch(redirect)).status, 202);
      });
      assert.equal(code, 4);
      assert.match(stderr, /^A redirect without state is held/m);
      assert.match(stderr, /\nflag: --allow-missing-state\n/);
      assert.equal(cli.sandbox.count("/api/v2/token/get"), 0);
    }));

  it("go together with --allow-missing-state", () =>
    withCli(async (cli) => {
      const args = ["--allow-missing-state"];
      const { code, status } = await cli.login(args, { decision });
      assert.equal(status, 200);
      assert.equal(code, 0);
    }));
});

// === Exit codes

/** A fault, the exit code it leads to, what is said, the browser's status. */
const FAULTS: [
  fault: SandboxFault,
  code: number,
  says: RegExp,
  status: number,
][] = [
  ["html", 1, /HTTP 200 with \d+ characters of text\/html.*\nhint: ch/, 502],
  ["no-token", 1, /the reply has no access token\nhint: /, 502],
  ["deny", 3, /error: The seller denied the app access: "auth_denied"\n/, 403],
  ["other-error", 1, /back with the error "server_error"\nhint: check/, 502],
  ["deauthorized", 5, /code 36004005, .*request id.*\nhint: .* log in/, 502],
  ["invalid-code", 6, /code 36004004, "invalid auth code" .*\nhint: th/, 502],
  ["ip-not-allowed", 6, /code 36009033.*\nhint: add this machine's IP/, 502],
  ["echo-secret", 6, /code 36009004, "cannot handle .*\*\*\*/, 502],
];

describe("login's exit code", TOGETHER, () => {
  for (const [fault, expected, says, status] of FAULTS) {
    it(`is ${expected} after ${fault}, with the reason and the next step`, () =>
      withCli(async (cli) => {
        const ended = await cli.login([], { decision: { fault } });
        assert.equal(ended.code, expected, ended.stderr);
        assert.equal(ended.stdout, "");
        assert.match(ended.stderr, says);
        assert.equal(ended.status, status);
        assert.deepEqual(await readdir(cli.store), []);
      }));
  }

  it("is 5 when the token host says that the grant has expired", () =>
    withCli((cli) =>
      withHost(
        () => refusal(36004001, "rt has expired"),
        async ({ tokenEndpoint }) => {
          const args = ["--token-endpoint", tokenEndpoint];
          const { code, stderr } = await cli.login(args);
          assert.equal(code, 5);
          assert.match(stderr, /code 36004001, "rt has expired"/);
          assert.match(
            stderr,
            /hint: .*log in again\nrun: .*mod\.m?[jt]s'? login /,
          );
        },
      )
    ));

  it("is 1 when the token host cannot be reached, which is named", () =>
    withCli(async (cli) => {
      const endpoint = `http://127.0.0.1:${await freePort()}/token`;
      const ended = await cli.login(["--token-endpoint", endpoint]);
      assert.equal(ended.code, 1);
      assert.equal(ended.stdout, "");
      assert.ok(ended.stderr.includes(`Cannot get tokens from ${endpoint}: `));
    }));

  it("is 1 when the port is in use, which is named", () =>
    withCli(async (cli) => {
      const taken = createServer().listen(cli.port, "127.0.0.1");
      const ended = await cli.run(["login", ...cli.portFlag([])]);
      taken.close();
      assert.equal(ended.code, 1);
      assert.equal(ended.stdout, "");
      assert.equal(
        ended.stderr,
        `error: Cannot listen on 127.0.0.1:${cli.port}: in use or reserved
hint: end the program that uses it, or register another URL and pass its port
flag: --port PORT\n`,
      );
    }));

  it("is 1 when every port of a range is in use", () =>
    withCli(async (cli) => {
      const ports = await twoPorts();
      const servers = ports.map((port) =>
        createServer().listen(port, "127.0.0.1")
      );
      const ended = await cli.run(["login", "--port", ports.join("-")]);
      servers.forEach((server) => server.close());
      assert.equal(ended.code, 1);
      const [first, last] = ports;
      const where = `any port from ${first} to ${last}`;
      assert.ok(ended.stderr.includes(`Cannot listen on ${where}: `));
    }));

  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    it(
      `is 130 after ${signal} while waiting`,
      NO_WINDOWS,
      () =>
        withCli(async (cli) => {
          await assertInterrupted(cli, await cli.open(), signal);
        }),
    );
  }

  it(
    "is 130 after Ctrl-C during the exchange",
    NO_WINDOWS,
    () =>
      withCli(async (cli) => {
        cli.sandbox.fail("token", "never");
        const running = await cli.open();
        const shown = fetch(await cli.decide(running.link));
        await running.until(/getting the tokens/);
        await assertInterrupted(cli, running);
        assert.equal((await shown).status, 502);
      }),
  );

  it(
    "is 130 after Ctrl-C between two tries",
    NO_WINDOWS,
    () =>
      withCli(async (cli) => {
        cli.sandbox.fail("token", "rate-limit", Infinity);
        const running = await cli.open(["--verbose"]);
        const shown = fetch(await cli.decide(running.link));
        await running.until(/HTTP 429/);
        await assertInterrupted(cli, running);
        await shown;
      }),
  );
});

async function assertInterrupted(
  cli: CliFixture,
  running: OpenLogin,
  signal: "SIGINT" | "SIGTERM" | "SIGHUP" = "SIGINT",
): Promise<void> {
  cli.signal(running, signal);
  const { code, stdout, stderr } = await within(1000, () => running.ended);
  assert.equal(code, 130);
  assert.equal(stdout, "");
  assert.match(stderr, /error: Cancelled: interrupted\nhint: /);
  assert.equal(await isListening(cli.port), false);
}

// === Closed streams

/** The program by a shell that redirects or closes its streams. */
function throughShell(redirection: string, args: string[]): string[] {
  // It has its own limit, since it outlives a shell that is killed.
  const [command, ...rest] = cliCommand([...args, "--timeout", "120"]);
  return ["sh", "-c", `"$0" "$@" ${redirection}`, command!, ...rest];
}

describe("login survives", { ...TOGETHER, ...NO_WINDOWS }, () => {
  const redirections: [name: string, redirection: string][] = [
    ["a stdout that nobody reads", "| head -0 >&2"],
    ["a closed stdout", ">&-"],
    ["a closed stdin", "<&-"],
    ["a stdin that is a folder", "</"],
    ["a full disk behind stdout", ">/dev/full"],
  ];
  for (const [name, redirection] of redirections) {
    const skip = skipIf(!ON_LINUX && /full/.test(redirection), "no /dev/full");
    it(`${name}, and saves the tokens`, skip, () =>
      withCli(async (cli) => {
        const args = ["login", "--no-browser", ...cli.portFlag([])];
        const command = throughShell(redirection, args);
        const running = cli.startCommand(command);
        const { link } = await cli.linkOf(running);
        await fetch(await cli.decide(link));
        assertNoCrash(await running.ended);
        assert.match(await cli.saved(), /"access_token"/);
      }));
  }

  const silent: [name: string, redirection: string][] = [
    ["a closed stderr", "2>&-"],
    ["a stderr that nobody reads", "2>&1 >out.json | head -0"],
    ["a full disk behind stderr", "2>/dev/full"],
    ["all streams closed", "<&- >&- 2>&-"],
  ];
  for (const [name, redirection] of silent) {
    const skip = skipIf(!ON_LINUX && /full/.test(redirection), "no /dev/full");
    it(`${name}, and saves the tokens`, skip, () =>
      withCli(async (cli) => {
        // The link can only be passed to a "browser".
        const { path, log } = await installBrowser(cli);
        const args = ["login", ...cli.portFlag([]), "--browser", `"${path}"`];
        const ended = await cli.startCommand(throughShell(redirection, args))
          .ended;
        assert.match(await readFile(log, "utf8"), /authorize/);
        assertNoCrash(ended);
        assert.match(await cli.saved(), /"access_token"/);
      }));
  }
});

/** No runtime's own words for an error that nobody caught. */
function assertNoCrash({ stderr }: Ended): void {
  assert.doesNotMatch(stderr, /\bat .*mod\.ts|Uncaught|panicked|EPIPE/);
}

// === Importing, and permissions

/** A module that imports mod.ts, then runs `code`. */
function importer(cli: CliFixture, code = ""): Promise<string> {
  const url = JSON.stringify(new URL("../../mod.ts", import.meta.url).href);
  return cli.write("import.mjs", `await import(${url});\n${code}`);
}

describe("mod.ts", () => {
  it("does nothing when it is imported, and needs no permission", () =>
    withCli(async (cli) => {
      const file = await importer(cli);
      const run = ON_DENO ? ["run", "--no-prompt", file] : [file];
      const command = [process.execPath, ...run];
      const { code, stdout, stderr } = await cli.startCommand(command).ended;
      assert.deepEqual([code, stdout, stderr], [0, "", ""]);
      assert.deepEqual(cli.sandbox.requests, []);
    }));

  it("does not delay the end of a process that imports it", () =>
    withCli(async (cli) => {
      // Without the runtime's start, and Node's 0.2 s for stripping types.
      const file = await importer(cli, "console.log(Date.now());\n");
      await assertFast(async () => {
        const command = runtimeCommand(file);
        const { stdout } = await cli.startCommand(command).ended;
        return Date.now() - Number(stdout);
      });
    }));

  it(
    "is imported in less time than ten runtimes need to start",
    ONLY_DENO,
    () =>
      withCli(async (cli) => {
        const command = [process.execPath, "run", await importer(cli)];
        await assertFast(async () =>
          (await cli.startCommand(command).ended).took
        );
      }),
  );

  it("is the program: it runs as it stands", () =>
    withCli(async (cli) => {
      const args = ["login", "--no-browser", ...cli.portFlag([])];
      const running = cli.startCommand(programCommand(args));
      const { link } = await cli.linkOf(running);
      await fetch(await cli.decide(link));
      const { code, stdout } = await running.ended;
      assert.equal(code, 0);
      assert.equal(JSON.parse(stdout).message, "success");
    }));
});

/** Less than ten bare processes take, each at its fastest of five. */
async function assertFast(measure: () => Promise<number>): Promise<void> {
  let [least, bare] = [Infinity, Infinity];
  for (let times = 0; times < 5; times++) {
    bare = Math.min(bare, await bareProcess());
    least = Math.min(least, await measure());
  }
  assert.ok(least < 10 * bare, `${least} ms, a bare process ${bare} ms`);
}

/** A permission, and what is said where it alone is missing. */
const PERMISSIONS: [flag: string, code: number, says: RegExp][] = [
  ["env", 1, /^error: Requires env access to "TIKTOK_SHOP_\w+".*--allow-env/],
  ["net", 1, /error: Cannot listen on .*: Requires net access .*--allow-net/],
  ["read", 1, /error: Cannot \w+ .*: Requires read access .*--allow-read/],
  ["write", 1, /error: Cannot \w+ .*: Requires write access .*--allow-write/],
  ["run", 0, /^No browser could be opened: open the link yourself$/m],
];

/** The least that a login needs: what the README tells to allow. */
function leastPermissions(cli: CliFixture, browser: string): string[] {
  const { host } = new URL(cli.sandbox.tokenEndpoint);
  const own = ["127.0.0.1", "[::1]"].map((name) => `${name}:${cli.port}`);
  return [
    "--allow-env",
    `--allow-net=${[...own, host]}`,
    `--allow-read=${cli.store}`,
    `--allow-write=${cli.store}`,
    `--allow-run=${browser}`,
  ];
}

/** Starts a login with these permissions and no others. */
function startAllowed(cli: CliFixture, flags: string[], browser: string) {
  const deno = [process.execPath, "run", "--no-prompt", ...flags];
  const login = ["login", "--verbose", ...cli.portFlag([])];
  const args = [...login, "--browser", `"${browser}"`];
  return cli.startCommand([...deno, `${ROOT}mod.ts`, ...args]);
}

describe("mod.ts on Deno", { ...ONLY_DENO, ...NO_WINDOWS }, () => {
  it("logs in with the least permissions, and a browser", () =>
    withCli(async (cli) => {
      const { path } = await installBrowser(cli);
      const flags = leastPermissions(cli, path);
      const { code, stdout, stderr } = await startAllowed(cli, flags, path)
        .ended;
      assert.equal(code, 0, stderr);
      assert.equal(JSON.parse(stdout).message, "success");
      assert.doesNotMatch(stderr, /Requires/);
    }));

  for (const [name, expected, says] of PERMISSIONS) {
    it(`says what is missing without --allow-${name}`, () =>
      withCli(async (cli) => {
        const { path } = await installBrowser(cli);
        const flags = leastPermissions(cli, path)
          .filter((flag) => !flag.startsWith(`--allow-${name}`));
        const running = startAllowed(cli, flags, path);
        if (name === "run") {
          const { link } = await cli.linkOf(running);
          await fetch(await cli.decide(link));
        }
        const { code, stdout, stderr } = await running.ended;
        assert.equal(code, expected, stderr);
        assert.match(stderr, says);
        assert.equal(stdout !== "", name === "run");
        const asked = cli.sandbox.count("/api/v2/token/get");
        assert.equal(asked, name === "run" ? 1 : 0);
      }));
  }

  it("names the host that it may not reach", () =>
    withCli(async (cli) => {
      const { path } = await installBrowser(cli);
      const { host } = new URL(cli.sandbox.tokenEndpoint);
      const flags = leastPermissions(cli, path)
        .map((flag) => flag.replace(`,${host}`, ""));
      const { code, stderr } = await startAllowed(cli, flags, path).ended;
      assert.equal(code, 1);
      assert.match(stderr, /error: Cannot get tokens from .*: Requires net/);
      assert.equal(stderr.match(/^GET .* failed/gm)?.length, 1, stderr);
    }));
});
