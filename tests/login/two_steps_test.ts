/**
 * The login in two steps, `login --start` and `login --complete`, run as
 * processes against the sandbox. What needs a terminal is in terminal_test.ts.
 */
import assert from "node:assert/strict";
import {
  mkdir,
  readdir,
  readFile,
  rmdir,
  stat,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, it } from "node:test";
import type { SandboxDecision } from "../../scripts/sandbox.ts";
import {
  assertFailed,
  cliCommand,
  type CliFixture,
  NOTHING_SET,
  type RunOptions,
  withCli,
} from "../support/cli_fixture.ts";
import {
  type Ended,
  freePort,
  isListening,
  ON_WINDOWS,
  start,
  TOGETHER,
} from "../support/helpers.ts";

/** What `--start` prints. */
interface Started {
  authorize_url: string;
  redirect_url: string;
  expires_at: number;
  complete: string;
}

async function begin(
  cli: CliFixture,
  args: string[] = [],
  options: RunOptions = {},
): Promise<Started> {
  const usual = ["login", "--start", ...cli.portFlag(args), ...args];
  const { code, stdout, stderr } = await cli.run(usual, options);
  assert.equal(code, 0, stderr);
  assert.equal(stderr, "");
  return JSON.parse(stdout);
}

function complete(
  cli: CliFixture,
  redirect: string,
  args: string[] = [],
  options: RunOptions = {},
): Promise<Ended> {
  return cli.run(["login", "--complete", redirect, ...args], options);
}

/** Where the browser is sent, once a person has decided. */
async function redirectOf(
  cli: CliFixture,
  args: string[] = [],
  decision?: SandboxDecision,
): Promise<URL> {
  const { authorize_url } = await begin(cli, args);
  return new URL(await cli.decide(authorize_url, decision));
}

function assertDone({ code, stdout, stderr }: Ended): void {
  assert.equal(code, 0, stderr);
  assert.equal(JSON.parse(stdout).message, "success");
  assert.match(stderr, /^Authorized by Harbour & Finch, saved to .*\n$/);
}

function exchanges(cli: CliFixture): number {
  return cli.sandbox.count("/api/v2/token/get");
}

const PENDING = ".default.json.pending";

async function isPending(cli: CliFixture, name = PENDING): Promise<boolean> {
  const names: string[] = await readdir(cli.store).catch(() => []);
  return names.includes(name);
}

/** The parameters of a redirect, some changed or, by null, left out. */
function changed(url: URL, changes: Record<string, string | null>): string {
  const copy = new URL(url);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) copy.searchParams.delete(name);
    else copy.searchParams.set(name, value);
  }
  return copy.href;
}

// === The first step

describe("login --start", TOGETHER, () => {
  it("prints the link, the redirect URL, the end and the next step", () =>
    withCli(async (cli) => {
      const before = Math.floor(Date.now() / 1000);
      const started = await begin(cli);
      assert.deepEqual(Object.keys(started), [
        "authorize_url",
        "redirect_url",
        "expires_at",
        "complete",
      ]);
      const { authorize_url, redirect_url, expires_at } = started;
      const link = new URL(authorize_url);
      const { authorizationEndpoint, serviceId } = cli.sandbox;
      assert.equal(link.origin + link.pathname, authorizationEndpoint);
      assert.equal(link.searchParams.get("service_id"), serviceId);
      assert.match(link.searchParams.get("state")!, /^[\w-]{43}$/);
      assert.equal(redirect_url, cli.sandbox.redirectUrl);
      const left = expires_at - before;
      assert.ok(left >= 1800 && left < 1810, `${left}`);
    }));

  it("prints one line of JSON with --json", () =>
    withCli(async (cli) => {
      const { stdout } = await cli.run(["login", "--start", "--json"]);
      assert.match(stdout, /^\{.*\}\n$/);
      assert.ok(JSON.parse(stdout).authorize_url);
    }));

  it("keeps only the state, and for its owner alone", () =>
    withCli(async (cli) => {
      const { authorize_url, expires_at } = await begin(cli);
      assert.deepEqual(await readdir(cli.store), [PENDING]);
      const path = join(cli.store, PENDING);
      assert.deepEqual(JSON.parse(await readFile(path, "utf8")), {
        state: new URL(authorize_url).searchParams.get("state"),
        expires_at,
        app_key: cli.sandbox.appKey,
        service_id: cli.sandbox.serviceId,
      });
      if (ON_WINDOWS) return;
      assert.equal((await stat(path)).mode & 0o777, 0o600);
      assert.equal((await stat(cli.store)).mode & 0o777, 0o700);
    }));

  it("needs neither app key nor secret, and opens no port", () =>
    withCli(async (cli) => {
      const env = {
        TIKTOK_SHOP_APP_KEY: undefined,
        TIKTOK_SHOP_APP_SECRET: undefined,
      };
      const options = { env, input: "open" as const };
      const { redirect_url } = await begin(cli, [], options);
      assert.equal(
        await isListening(Number(new URL(redirect_url).port)),
        false,
      );
      assert.equal(cli.sandbox.requests.length, 0);
    }));

  it("works while another program has the port", () =>
    withCli(async (cli) => {
      const { ended } = await cli.open();
      await begin(cli);
      await cli.close();
      await ended;
    }));

  it("says so if the state cannot be kept", () =>
    withCli(async (cli) => {
      const file = await cli.write("no folder", "");
      const env = { TIKTOK_SHOP_HOME: join(dirname(file), "no folder", "x") };
      const ended = await cli.run(["login", "--start"], { env });
      assertFailed(ended, 1, /Cannot lock .*\nhint: check the folder's/);
    }));

  it("replaces a login that was begun before", () =>
    withCli(async (cli) => {
      const old = await redirectOf(cli);
      const redirect = await redirectOf(cli);
      assertFailed(
        await complete(cli, old.href),
        1,
        /belongs to another login: its state differs/,
      );
      assertDone(await complete(cli, redirect.href));
    }));

  it("names the port in the state when the redirect goes to a relay", () =>
    withCli(async (cli) => {
      const relay = "https://relay.example/tiktok/";
      const args = ["--redirect-url", relay, "--port", "3021-3025"];
      const { authorize_url, redirect_url } = await begin(cli, args);
      assert.equal(redirect_url, relay);
      const state = new URL(authorize_url).searchParams.get("state")!;
      assert.match(state, /^[\w-]{43}\.3021$/);
      const redirect = await cli.decide(authorize_url);
      assertDone(await complete(cli, redirect));
    }));

  const urls: [args: string[], url: string][] = [
    [["--port", "3020-3029"], "http://localhost:3020/"],
    [["--host", "127.0.0.1", "--path", "/cb"], "http://127.0.0.1:3017/cb"],
    [[], "http://localhost:3017/"],
  ];
  for (const [args, url] of urls) {
    it(`has the redirect URL ${url}`, () =>
      withCli(async (cli) => {
        const { stdout } = await cli.run(["login", "--start", ...args]);
        assert.equal(JSON.parse(stdout).redirect_url, url);
      }));
  }
});

// === The second step

describe("login --complete", TOGETHER, () => {
  const ways: [name: string, given: (redirect: URL) => string][] = [
    ["the address", ({ href }) => href],
    ["the address at another host", ({ search }) => `https://a.b/c${search}`],
    ["the query", ({ search }) => search],
    ["the query without its question mark", ({ search }) => search.slice(1)],
  ];
  for (const [name, given] of ways) {
    it(`gets the tokens for ${name}`, () =>
      withCli(async (cli) => {
        assertDone(await complete(cli, given(await redirectOf(cli))));
        assert.deepEqual(await readdir(cli.store), ["default.json"]);
        assert.equal(exchanges(cli), 1);
      }));

    it(`gets the tokens for ${name} on stdin`, () =>
      withCli(async (cli) => {
        const input = `${given(await redirectOf(cli))}\n`;
        assertDone(await complete(cli, "-", [], { input }));
      }));
  }

  it("needs no service id, and the app key that the first step had", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      const env = {
        TIKTOK_SHOP_APP_KEY: undefined,
        TIKTOK_SHOP_SERVICE_ID: undefined,
      };
      assertDone(await complete(cli, href, [], { env }));
    }));

  it("takes the secret from stdin, but not the redirect as well", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      const args = ["--app-secret-file", "-"];
      const input = `${cli.sandbox.appSecret}\n`;
      const env = { TIKTOK_SHOP_APP_SECRET: undefined };
      const both = await complete(cli, "-", args, { env, input });
      assertFailed(both, 2, /Cannot read both secret and redirect from stdin/);
      assertDone(await complete(cli, href, args, { env, input }));
    }));

  it("says what is missing, and spends nothing", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      const env = { TIKTOK_SHOP_APP_SECRET: undefined };
      const ended = await complete(cli, href, [], { env });
      assertFailed(ended, 2, /Missing settings: TIKTOK_SHOP_APP_SECRET, /);
      assert.doesNotMatch(ended.stderr, /APP_KEY|SERVICE_ID/);
      assertDone(await complete(cli, href));
    }));

  const refused: [name: string, given: (url: URL) => string, RegExp][] = [
    [
      "the state of another login",
      (url) => changed(url, { state: "another" }),
      /belongs to another login: its state differs\nhint: use the redirect of/,
    ],
    [
      "no state",
      (url) => changed(url, { state: null, locale: "en" }),
      /The code came without state.*\nhint: .*\nflag: --allow-missing-state/,
    ],
    [
      "a bare code",
      (url) => url.searchParams.get("code")!,
      /The code came without state.*\nhint: .*\nflag: --allow-missing-state/,
    ],
    [
      "two codes",
      (url) => `${url}&code=other`,
      /The redirect names "code" twice\nhint: /,
    ],
    [
      "something else",
      () => "hello there",
      /No authorization code found in this text/,
    ],
    [
      "a denial with another state",
      (url) =>
        changed(url, { code: "null", error: "auth_denied", state: "another" }),
      /belongs to another login/,
    ],
  ];
  for (const [name, given, message] of refused) {
    it(`refuses ${name}, and the login can still be completed`, () =>
      withCli(async (cli) => {
        const redirect = await redirectOf(cli);
        assertFailed(await complete(cli, given(redirect)), 1, message);
        assert.equal(exchanges(cli), 0);
        assertDone(await complete(cli, redirect.href));
      }));
  }

  it("refuses an empty stdin, and the login can still be completed", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      const ended = await complete(cli, "-", [], { input: "" });
      assertFailed(ended, 1, /No authorization code found in this text/);
      assertDone(await complete(cli, href));
    }));

  it("takes a bare code with --allow-missing-state", () =>
    withCli(async (cli) => {
      const { searchParams } = await redirectOf(cli);
      const code = encodeURIComponent(searchParams.get("code")!);
      assertDone(await complete(cli, code, ["--allow-missing-state"]));
    }));

  it("takes a URL without state with --allow-missing-state", () =>
    withCli(async (cli) => {
      const forms: ((url: URL) => string)[] = [
        (url) => changed(url, { state: null, locale: "en" }),
        (url) => changed(url, { state: null }),
        (url) => changed(url, { state: null }).split("//")[1]!,
      ];
      for (const form of forms) {
        const redirect = await redirectOf(cli);
        const args = ["--allow-missing-state"];
        assertDone(await complete(cli, form(redirect), args));
      }
    }));

  it("refuses another state though a missing one is allowed", () =>
    withCli(async (cli) => {
      const redirect = changed(await redirectOf(cli), { state: "another" });
      const ended = await complete(cli, redirect, ["--allow-missing-state"]);
      assertFailed(ended, 1, /belongs to another login/);
    }));

  it("says that a URL was cut by the shell, whatever it begins with", {
    skip: ON_WINDOWS && "it is a line of a POSIX shell",
  }, () =>
    withCli(async (cli) => {
      const redirect = await redirectOf(cli);
      const { code, state } = Object.fromEntries(redirect.searchParams);
      const base = `${redirect.origin}/?`;
      const urls = [
        `code=${code}&state=${state}`,
        `state=${state}&code=${code}`,
        `app_key=a&code=${code}&state=${state}`,
        `code=${code}&amp;state=${state}`,
      ].map((query) => base + query);
      const command = cliCommand(["login", "--complete"]).join("' '");
      for (const [i, url] of urls.entries()) {
        const line = `'${command}' ${url}`; // as somebody pastes it
        const script = await cli.write(`cut${i}.sh`, `${line}\nwait\n`);
        const { stderr } = await cli.startCommand(["sh", script]).ended;
        assert.match(stderr, /ends at its first "&".*in quotes/);
        assert.doesNotMatch(stderr, /missing-state/);
        assert.equal(exchanges(cli), 0);
      }
      const args = ["--allow-missing-state"];
      const bare = await complete(cli, `${base}app_key=a`, args);
      assertFailed(bare, 2, /put it in quotes/);
      assertDone(await complete(cli, redirect.href));
    }));

  it("ends with exit code 3 after a denial, which ends the login", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli, [], { deny: true });
      assertFailed(await complete(cli, href), 3, /denied the app access/);
      assertFailed(await complete(cli, href), 1, NONE_PENDING);
      assert.equal(exchanges(cli), 0);
    }));

  it("works once", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      assertDone(await complete(cli, href));
      assertFailed(await complete(cli, href), 1, NONE_PENDING);
      assert.equal(exchanges(cli), 1);
    }));

  it("spends one code if two run at once", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      const ends = await Promise.all([1, 2, 3].map(() => complete(cli, href)));
      const codes = ends.map(({ code }) => code).sort();
      assert.deepEqual(codes, [0, 1, 1]);
      assert.equal(exchanges(cli), 1);
    }));

  it("ends with exit code 6 if TikTok rejects the code", () =>
    withCli(async (cli) => {
      const decision = { fault: "expired-code" as const };
      const { href } = await redirectOf(cli, [], decision);
      assertFailed(await complete(cli, href), 6, /36004004/);
      assert.equal(await isPending(cli), false);
    }));

  it("can be tried again after the token host was out of reach", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      const nobody = `http://127.0.0.1:${await freePort()}/`;
      const args = ["--token-endpoint", nobody];
      const ended = await complete(cli, href, args);
      assertFailed(ended, 1, /Cannot get tokens.*\nhint: .*try again/);
      assertDone(await complete(cli, href));
    }));

  it("spends no code whose tokens cannot be saved, and can be tried again", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      // A folder where the file should be.
      const file = join(cli.store, "default.json");
      await mkdir(file);
      assertFailed(
        await complete(cli, href),
        1,
        /Cannot read .*default\.json/,
      );
      assert.equal(cli.sandbox.count("/api/v2/token/get"), 0);
      await rmdir(file);
      assertDone(await complete(cli, href));
    }));

  it("shows no link for tokens that cannot be saved, or for a name's twin", () =>
    withCli(async (cli) => {
      await mkdir(cli.store);
      await writeFile(join(cli.store, "bad.json"), "{");
      await writeFile(join(cli.store, "Shop.json"), "{");
      for (
        const [profile, code, says] of [
          ["bad", 1, /bad\.json is no token file, or damaged/],
          ["shop", 2, /Cannot use the profile name "shop": some disks keep/],
        ] as const
      ) {
        const args = ["login", "--start", "--profile", profile];
        const ended = await cli.run(args);
        assertFailed(ended, code, says);
        assert.equal(ended.stdout, "");
      }
    }));

  it("says so if no login was begun", () =>
    withCli(async (cli) => {
      const ended = await complete(cli, "?code=a&state=b");
      assertFailed(ended, 1, NONE_PENDING);
      assert.deepEqual(await readdir(cli.store).catch(() => []), []);
    }));

  const stale: [name: string, pending: (state: string) => string][] = [
    ["that has expired", (state) => entry(state, -1)],
    ["with no end", (state) => JSON.stringify({ state })],
    ["with no state", () => entry(undefined, 60)],
    ["that is damaged", () => '{"state":'],
    ["that is empty", () => ""],
  ];
  for (const [name, pending] of stale) {
    it(`refuses a login ${name}`, () =>
      withCli(async (cli) => {
        const { href, searchParams } = await redirectOf(cli);
        const path = join(cli.store, PENDING);
        await writeFile(path, pending(searchParams.get("state")!));
        assertFailed(await complete(cli, href), 1, NONE_PENDING);
        assert.equal(exchanges(cli), 0);
      }));
  }

  it("takes a login that has a minute left", () =>
    withCli(async (cli) => {
      const { href, searchParams } = await redirectOf(cli);
      const text = entry(searchParams.get("state")!, 60);
      await writeFile(join(cli.store, PENDING), text);
      assertDone(await complete(cli, href));
    }));

  it("keeps the logins of two profiles apart", () =>
    withCli(async (cli) => {
      const [one, two] = [["--profile", "one"], ["--profile", "two"]];
      const first = await begin(cli, one);
      const second = await begin(cli, two);
      const [a, b] = [
        await cli.decide(first.authorize_url),
        await cli.decide(second.authorize_url),
      ];
      const mixed = await complete(cli, a, two);
      assertFailed(mixed, 1, /belongs to another login/);
      assertDone(await complete(cli, b, two));
      assertDone(await complete(cli, a, one));
      assert.deepEqual(await readdir(cli.store), ["one.json", "two.json"]);
    }));

  it("fails after saving if a required scope was not granted", () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      const ended = await complete(cli, href, ["--require-scope", "no.such"]);
      assertFailed(ended, 1, /did not grant "no.such"/);
      assert.match(await cli.saved(), /"access_token"/);
    }));

  it("can be interrupted", {
    skip: ON_WINDOWS && "Windows has no signals",
  }, () =>
    withCli(async (cli) => {
      const { href } = await redirectOf(cli);
      cli.sandbox.fail("token", "never");
      const running = cli.start(["login", "--complete", href]);
      while (exchanges(cli) === 0) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      cli.signal(running, "SIGINT");
      assert.equal((await running.ended).code, 130);
    }));
});

const NONE_PENDING = new RegExp(
  '^error: No login of profile "default" was begun in the last 30 minutes' +
    "\nhint: begin with .*mod\\.m?[jt]s'? login --start\n$",
);

function entry(state: string | undefined, left: number): string {
  const expires_at = Math.floor(Date.now() / 1000) + left;
  return JSON.stringify({ state, expires_at });
}

// === The line that leads from one to the other

describe("the line `complete` of login --start", {
  ...TOGETHER,
  skip: ON_WINDOWS && "it is a line of a POSIX shell",
}, () => {
  /** Runs the line as a script would, the redirect in the place of URL. */
  async function runLine(
    cli: CliFixture,
    line: string,
    redirect: string,
    env: Record<string, string | undefined>,
  ): Promise<Ended> {
    // In a file: Deno rewrites a line for `sh -c` that starts Deno.
    const script = await cli.write("line.sh", line.replace("URL", redirect));
    return await start(["sh", script], {
      cwd: cli.folder,
      env: { HOME: cli.folder, TIKTOK_SHOP_HOME: cli.store, ...env },
    }).ended;
  }

  const cases: [
    name: string,
    args: (cli: CliFixture) => string[],
    saved: string,
  ][] = [
    ["as it stands", () => [], "store/default.json"],
    ["with a profile", () => ["--profile", "Łódź_2"], "store/Łódź_2.json"],
    [
      "with a file that has spaces and quotes in its name",
      (cli) => ["--file", cli.path("it's my $HOME.json")],
      "it's my $HOME.json",
    ],
  ];
  for (const [name, args, saved] of cases) {
    it(`runs in a shell ${name}`, () =>
      withCli(async (cli) => {
        const { authorize_url, complete } = await begin(cli, args(cli));
        const redirect = await cli.decide(authorize_url);
        const { env } = cli.sandbox;
        const ended = await runLine(cli, complete, redirect, env);
        assert.equal(ended.code, 0, ended.stderr);
        assert.equal(JSON.parse(ended.stdout).message, "success");
        assert.match(await readFile(cli.path(saved), "utf8"), /access_token/);
      }));
  }

  it("needs nothing but the secret beside it", () =>
    withCli(async (cli) => {
      const { appKey, appSecret, serviceId, tokenEndpoint } = cli.sandbox;
      const secret = await cli.write("app secret.txt", appSecret);
      const { authorize_url, complete } = await begin(cli, [
        ...["--app-key", appKey, "--service-id", serviceId],
        ...["--app-secret-file", secret, "--token-endpoint", tokenEndpoint],
        ...["--authorization-endpoint", cli.sandbox.authorizationEndpoint],
        ...["--region", "us", "--user-type", "partner", "--switch"],
        ...["--require-scope", "seller.authorization.info"],
      ], { env: NOTHING_SET });
      const redirect = await cli.decide(authorize_url);
      const ended = await runLine(cli, complete, redirect, {});
      assert.equal(ended.code, 0, ended.stderr);
      const { meta } = JSON.parse(await cli.saved());
      assert.equal(meta.app_key, appKey);
      assert.equal(meta.region, "us");
      assert.equal(meta.user_type, "partner");
    }));

  it("omits the secret, and quotes the redirect", () =>
    withCli(async (cli) => {
      const { complete } = await begin(cli);
      assert.ok(!complete.includes(cli.sandbox.appSecret));
      assert.match(complete, / login .*--complete 'URL'$/);
    }));

  it("reads the same env file again", () =>
    withCli(async (cli) => {
      const lines = Object.entries(cli.sandbox.env)
        .map(([name, value]) => `${name}=${value}\n`);
      const file = await cli.write("the app.env", lines.join(""));
      const { authorize_url, complete } = await begin(
        cli,
        ["--env-file", file],
        { env: NOTHING_SET },
      );
      const redirect = await cli.decide(authorize_url);
      const ended = await runLine(cli, complete, redirect, {});
      assert.equal(ended.code, 0, ended.stderr);
    }));
});
