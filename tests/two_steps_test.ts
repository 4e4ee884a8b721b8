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
import process from "node:process";
import { describe, it } from "node:test";
import type { SandboxDecision } from "../scripts/sandbox.ts";
import {
  type Desk,
  deskCommand,
  NOTHING_SET,
  type RunOptions,
  withDesk,
} from "./desk.ts";
import { type Ended, freePort, isListening, start } from "./helpers.ts";
import { sharedDesk } from "./shared_desk.ts";

/** Node runs this many tests of a group at once; Deno one after the other. */
const TOGETHER = { concurrency: 4 };
const ON_WINDOWS = process.platform === "win32";

/** What `--start` prints. */
interface Started {
  authorize_url: string;
  redirect_url: string;
  expires_at: number;
  complete: string;
}

async function begin(
  desk: Desk,
  args: string[] = [],
  options: RunOptions = {},
): Promise<Started> {
  const usual = ["login", "--start", ...desk.portFlag(args), ...args];
  const { code, stdout, stderr } = await desk.run(usual, options);
  assert.equal(code, 0, stderr);
  assert.equal(stderr, "");
  return JSON.parse(stdout);
}

function complete(
  desk: Desk,
  redirect: string,
  args: string[] = [],
  options: RunOptions = {},
): Promise<Ended> {
  return desk.run(["login", "--complete", redirect, ...args], options);
}

/** Where the browser is sent, once a person has decided. */
async function redirectOf(
  desk: Desk,
  args: string[] = [],
  decision?: SandboxDecision,
): Promise<URL> {
  const { authorize_url } = await begin(desk, args);
  return new URL(await desk.decide(authorize_url, decision));
}

function assertDone({ code, stdout, stderr }: Ended): void {
  assert.equal(code, 0, stderr);
  assert.equal(JSON.parse(stdout).message, "success");
  assert.match(stderr, /^Saved to .*\nAuthorized by Harbour & Finch\n$/);
}

function assertFailed(ended: Ended, code: number, message: RegExp): void {
  assert.equal(ended.code, code, ended.stderr);
  assert.equal(ended.stdout, "");
  assert.match(ended.stderr, message);
}

function exchanges(desk: Desk): number {
  return desk.sandbox.count("/api/v2/token/get");
}

const PENDING = ".default.json.pending";

async function isPending(desk: Desk, name = PENDING): Promise<boolean> {
  const names: string[] = await readdir(desk.store).catch(() => []);
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
    withDesk(async (desk) => {
      const before = Math.floor(Date.now() / 1000);
      const started = await begin(desk);
      assert.deepEqual(Object.keys(started), [
        "authorize_url",
        "redirect_url",
        "expires_at",
        "complete",
      ]);
      const { authorize_url, redirect_url, expires_at } = started;
      const link = new URL(authorize_url);
      const { authorizationEndpoint, serviceId } = desk.sandbox;
      assert.equal(link.origin + link.pathname, authorizationEndpoint);
      assert.equal(link.searchParams.get("service_id"), serviceId);
      assert.match(link.searchParams.get("state")!, /^[\w-]{43}$/);
      assert.equal(redirect_url, desk.sandbox.redirectUrl);
      const left = expires_at - before;
      assert.ok(left >= 1800 && left < 1810, `${left}`);
    }));

  it("prints one line of JSON with --json", () =>
    withDesk(async (desk) => {
      const { stdout } = await desk.run(["login", "--start", "--json"]);
      assert.match(stdout, /^\{.*\}\n$/);
      assert.ok(JSON.parse(stdout).authorize_url);
    }));

  it("keeps the state, and nothing else of worth, for its owner alone", () =>
    withDesk(async (desk) => {
      const { authorize_url, expires_at } = await begin(desk);
      assert.deepEqual(await readdir(desk.store), [PENDING]);
      const path = join(desk.store, PENDING);
      assert.deepEqual(JSON.parse(await readFile(path, "utf8")), {
        state: new URL(authorize_url).searchParams.get("state"),
        expires_at,
        app_key: desk.sandbox.appKey,
      });
      if (ON_WINDOWS) return;
      assert.equal((await stat(path)).mode & 0o777, 0o600);
      assert.equal((await stat(desk.store)).mode & 0o777, 0o700);
    }));

  it("needs neither app key nor secret, and opens no port", () =>
    withDesk(async (desk) => {
      const env = {
        TIKTOK_SHOP_APP_KEY: undefined,
        TIKTOK_SHOP_APP_SECRET: undefined,
      };
      const options = { env, input: "open" as const };
      const { redirect_url } = await begin(desk, [], options);
      assert.equal(
        await isListening(Number(new URL(redirect_url).port)),
        false,
      );
      assert.equal(desk.sandbox.requests.length, 0);
    }));

  it("works while another program has the port", () =>
    withDesk(async (desk) => {
      const { ended } = await desk.open();
      await begin(desk);
      await desk.close();
      await ended;
    }));

  it("replaces a login that was begun before", () =>
    withDesk(async (desk) => {
      const old = await redirectOf(desk);
      const redirect = await redirectOf(desk);
      assertFailed(
        await complete(desk, old.href),
        1,
        /belongs to another login: its state differs/,
      );
      assertDone(await complete(desk, redirect.href));
    }));

  it("names the port in the state when the redirect goes to a relay", () =>
    withDesk(async (desk) => {
      const relay = "https://relay.example/tiktok/";
      const args = ["--redirect-url", relay, "--port", "3021-3025"];
      const { authorize_url, redirect_url } = await begin(desk, args);
      assert.equal(redirect_url, relay);
      const state = new URL(authorize_url).searchParams.get("state")!;
      assert.match(state, /^[\w-]{43}\.3021$/);
      const redirect = await desk.decide(authorize_url);
      assertDone(await complete(desk, redirect));
    }));

  const urls: [args: string[], url: string][] = [
    [["--port", "3020-3029"], "http://localhost:3020/"],
    [["--host", "127.0.0.1", "--path", "/cb"], "http://127.0.0.1:3017/cb"],
    [[], "http://localhost:3017/"],
  ];
  for (const [args, url] of urls) {
    it(`has the redirect URL ${url}`, () =>
      withDesk(async (desk) => {
        const { stdout } = await desk.run(["login", "--start", ...args]);
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
      withDesk(async (desk) => {
        assertDone(await complete(desk, given(await redirectOf(desk))));
        assert.deepEqual(await readdir(desk.store), ["default.json"]);
        assert.equal(exchanges(desk), 1);
      }));

    it(`gets the tokens for ${name} on stdin`, () =>
      withDesk(async (desk) => {
        const input = `${given(await redirectOf(desk))}\n`;
        assertDone(await complete(desk, "-", [], { input }));
      }));
  }

  it("needs no service id, and the app key that the first step had", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      const env = {
        TIKTOK_SHOP_APP_KEY: undefined,
        TIKTOK_SHOP_SERVICE_ID: undefined,
      };
      assertDone(await complete(desk, href, [], { env }));
    }));

  it("takes the secret from stdin, but not the redirect as well", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      const args = ["--app-secret-file", "-"];
      const input = `${desk.sandbox.appSecret}\n`;
      const env = { TIKTOK_SHOP_APP_SECRET: undefined };
      const both = await complete(desk, "-", args, { env, input });
      assertFailed(both, 2, /Cannot read both secret and redirect from stdin/);
      assertDone(await complete(desk, href, args, { env, input }));
    }));

  it("says what is missing, and spends nothing", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      const env = { TIKTOK_SHOP_APP_SECRET: undefined };
      const ended = await complete(desk, href, [], { env });
      assertFailed(ended, 2, /set TIKTOK_SHOP_APP_SECRET or /);
      assert.doesNotMatch(ended.stderr, /APP_KEY|SERVICE_ID/);
      assertDone(await complete(desk, href));
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
      /There is no state with the code.*\nhint: .*--allow-missing-state/,
    ],
    [
      "a bare code",
      (url) => url.searchParams.get("code")!,
      /There is no state with the code.*\nhint: .*--allow-missing-state/,
    ],
    [
      "two codes",
      (url) => `${url}&code=other`,
      /The redirect names "code" twice\nhint: /,
    ],
    ["something else", () => "hello there", /This is no redirect: /],
    [
      "a denial with another state",
      (url) =>
        changed(url, { code: "null", error: "auth_denied", state: "another" }),
      /belongs to another login/,
    ],
  ];
  for (const [name, given, message] of refused) {
    it(`refuses ${name}, and the login can still be completed`, () =>
      withDesk(async (desk) => {
        const redirect = await redirectOf(desk);
        assertFailed(await complete(desk, given(redirect)), 1, message);
        assert.equal(exchanges(desk), 0);
        assertDone(await complete(desk, redirect.href));
      }));
  }

  it("refuses an empty stdin, and the login can still be completed", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      const ended = await complete(desk, "-", [], { input: "" });
      assertFailed(ended, 1, /This is no redirect: there is no code in it/);
      assertDone(await complete(desk, href));
    }));

  it("takes a bare code with --allow-missing-state", () =>
    withDesk(async (desk) => {
      const { searchParams } = await redirectOf(desk);
      const code = encodeURIComponent(searchParams.get("code")!);
      assertDone(await complete(desk, code, ["--allow-missing-state"]));
    }));

  it("takes a URL without state with --allow-missing-state", () =>
    withDesk(async (desk) => {
      const forms: ((url: URL) => string)[] = [
        (url) => changed(url, { state: null, locale: "en" }),
        (url) => changed(url, { state: null }),
        (url) => changed(url, { state: null }).split("//")[1]!,
      ];
      for (const form of forms) {
        const redirect = await redirectOf(desk);
        const args = ["--allow-missing-state"];
        assertDone(await complete(desk, form(redirect), args));
      }
    }));

  it("refuses another state though a missing one is allowed", () =>
    withDesk(async (desk) => {
      const redirect = changed(await redirectOf(desk), { state: "another" });
      const ended = await complete(desk, redirect, ["--allow-missing-state"]);
      assertFailed(ended, 1, /belongs to another login/);
    }));

  it("says that a URL was cut by the shell, whatever it begins with", {
    skip: ON_WINDOWS && "it is a line of a POSIX shell",
  }, () =>
    withDesk(async (desk) => {
      const redirect = await redirectOf(desk);
      const { code, state } = Object.fromEntries(redirect.searchParams);
      const base = `${redirect.origin}/?`;
      const urls = [
        `code=${code}&state=${state}`,
        `state=${state}&code=${code}`,
        `app_key=a&code=${code}&state=${state}`,
        `code=${code}&amp;state=${state}`,
      ].map((query) => base + query);
      const command = deskCommand(["login", "--complete"]).join("' '");
      for (const [i, url] of urls.entries()) {
        const line = `'${command}' ${url}`; // as somebody pastes it
        const script = await desk.write(`cut${i}.sh`, `${line}\nwait\n`);
        const { stderr } = await desk.startCommand(["sh", script]).ended;
        assert.match(stderr, /lost what follows its first "&".*in quotes/);
        assert.doesNotMatch(stderr, /missing-state/);
        assert.equal(exchanges(desk), 0);
      }
      const args = ["--allow-missing-state"];
      const bare = await complete(desk, `${base}app_key=a`, args);
      assertFailed(bare, 2, /put it in quotes/);
      assertDone(await complete(desk, redirect.href));
    }));

  it("ends with exit code 3 after a denial, which ends the login", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk, [], { deny: true });
      assertFailed(await complete(desk, href), 3, /denied the app access/);
      assertFailed(await complete(desk, href), 1, NONE_PENDING);
      assert.equal(exchanges(desk), 0);
    }));

  it("works once", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      assertDone(await complete(desk, href));
      assertFailed(await complete(desk, href), 1, NONE_PENDING);
      assert.equal(exchanges(desk), 1);
    }));

  it("spends one code if two run at once", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      const ends = await Promise.all([1, 2, 3].map(() => complete(desk, href)));
      const codes = ends.map(({ code }) => code).sort();
      assert.deepEqual(codes, [0, 1, 1]);
      assert.equal(exchanges(desk), 1);
    }));

  it("ends with exit code 6 if TikTok rejects the code", () =>
    withDesk(async (desk) => {
      const decision = { fault: "expired-code" as const };
      const { href } = await redirectOf(desk, [], decision);
      assertFailed(await complete(desk, href), 6, /36004004/);
      assert.equal(await isPending(desk), false);
    }));

  it("can be tried again after the token host was out of reach", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      const nobody = `http://127.0.0.1:${await freePort()}/`;
      const args = ["--token-endpoint", nobody];
      const ended = await complete(desk, href, args);
      assertFailed(ended, 1, /Cannot get tokens.*\nhint: .*try again/);
      assertDone(await complete(desk, href));
    }));

  it("spends no code whose tokens cannot be saved, and can be tried again", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      // A folder where the file should be.
      const file = join(desk.store, "default.json");
      await mkdir(file);
      assertFailed(
        await complete(desk, href),
        1,
        /Cannot read .*default\.json/,
      );
      assert.equal(desk.sandbox.count("/api/v2/token/get"), 0);
      await rmdir(file);
      assertDone(await complete(desk, href));
    }));

  it("shows no link for tokens that cannot be saved, or for a name's twin", () =>
    withDesk(async (desk) => {
      await mkdir(desk.store);
      await writeFile(join(desk.store, "bad.json"), "{");
      await writeFile(join(desk.store, "Shop.json"), "{");
      for (
        const [profile, code, says] of [
          ["bad", 1, /bad\.json is no token file, or damaged/],
          ["shop", 2, /Cannot use the profile name "shop": some disks keep/],
        ] as const
      ) {
        const args = ["login", "--start", "--profile", profile];
        const ended = await desk.run(args);
        assertFailed(ended, code, says);
        assert.equal(ended.stdout, "");
      }
    }));

  it("says so if no login was begun", () =>
    withDesk(async (desk) => {
      const ended = await complete(desk, "?code=a&state=b");
      assertFailed(ended, 1, NONE_PENDING);
      assert.deepEqual(await readdir(desk.store).catch(() => []), []);
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
      withDesk(async (desk) => {
        const { href, searchParams } = await redirectOf(desk);
        const path = join(desk.store, PENDING);
        await writeFile(path, pending(searchParams.get("state")!));
        assertFailed(await complete(desk, href), 1, NONE_PENDING);
        assert.equal(exchanges(desk), 0);
      }));
  }

  it("takes a login that has a second left", () =>
    withDesk(async (desk) => {
      const { href, searchParams } = await redirectOf(desk);
      const text = entry(searchParams.get("state")!, 5);
      await writeFile(join(desk.store, PENDING), text);
      assertDone(await complete(desk, href));
    }));

  it("keeps the logins of two profiles apart", () =>
    withDesk(async (desk) => {
      const [one, two] = [["--profile", "one"], ["--profile", "two"]];
      const first = await begin(desk, one);
      const second = await begin(desk, two);
      const [a, b] = [
        await desk.decide(first.authorize_url),
        await desk.decide(second.authorize_url),
      ];
      const mixed = await complete(desk, a, two);
      assertFailed(mixed, 1, /belongs to another login/);
      assertDone(await complete(desk, b, two));
      assertDone(await complete(desk, a, one));
      assert.deepEqual(await readdir(desk.store), ["one.json", "two.json"]);
    }));

  it("fails after saving if a required scope was not granted", () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      const ended = await complete(desk, href, ["--require-scope", "no.such"]);
      assertFailed(ended, 1, /did not grant "no.such"/);
      assert.match(await desk.saved(), /"access_token"/);
    }));

  it("can be interrupted", {
    skip: ON_WINDOWS && "Windows has no signals",
  }, () =>
    withDesk(async (desk) => {
      const { href } = await redirectOf(desk);
      desk.sandbox.fail("token", "never");
      const running = desk.start(["login", "--complete", href]);
      while (exchanges(desk) === 0) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      desk.signal(running, "SIGINT");
      assert.equal((await running.ended).code, 130);
    }));
});

const NONE_PENDING = new RegExp(
  '^error: No login of profile "default" is under way, or it is older than ' +
    "30 minutes\nhint: begin with .*mod\\.m?[jt]s'? login --start\n$",
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
    desk: Desk,
    line: string,
    redirect: string,
    env: Record<string, string | undefined>,
  ): Promise<Ended> {
    // In a file: Deno rewrites a line for `sh -c` that starts Deno.
    const script = await desk.write("line.sh", line.replace("URL", redirect));
    return await start(["sh", script], {
      cwd: desk.folder,
      env: { HOME: desk.folder, TIKTOK_SHOP_HOME: desk.store, ...env },
    }).ended;
  }

  const cases: [
    name: string,
    args: (desk: Desk) => string[],
    saved: string,
  ][] = [
    ["as it stands", () => [], "store/default.json"],
    ["with a profile", () => ["--profile", "Łódź_2"], "store/Łódź_2.json"],
    [
      "with a file that has spaces and quotes in its name",
      (desk) => ["--file", desk.path("it's my $HOME.json")],
      "it's my $HOME.json",
    ],
  ];
  for (const [name, args, saved] of cases) {
    it(`runs in a shell ${name}`, () =>
      withDesk(async (desk) => {
        const { authorize_url, complete } = await begin(desk, args(desk));
        const redirect = await desk.decide(authorize_url);
        const { env } = desk.sandbox;
        const ended = await runLine(desk, complete, redirect, env);
        assert.equal(ended.code, 0, ended.stderr);
        assert.equal(JSON.parse(ended.stdout).message, "success");
        assert.match(await readFile(desk.path(saved), "utf8"), /access_token/);
      }));
  }

  it("needs nothing but the secret beside it", () =>
    withDesk(async (desk) => {
      const { appKey, appSecret, serviceId, tokenEndpoint } = desk.sandbox;
      const secret = await desk.write("app secret.txt", appSecret);
      const { authorize_url, complete } = await begin(desk, [
        ...["--app-key", appKey, "--service-id", serviceId],
        ...["--app-secret-file", secret, "--token-endpoint", tokenEndpoint],
        ...["--authorization-endpoint", desk.sandbox.authorizationEndpoint],
        ...["--region", "us", "--user-type", "partner", "--switch"],
        ...["--require-scope", "seller.authorization.info"],
      ], { env: NOTHING_SET });
      const redirect = await desk.decide(authorize_url);
      const ended = await runLine(desk, complete, redirect, {});
      assert.equal(ended.code, 0, ended.stderr);
      const { meta } = JSON.parse(await desk.saved());
      assert.equal(meta.app_key, appKey);
      assert.equal(meta.region, "us");
      assert.equal(meta.user_type, "partner");
    }));

  it("leaves the secret out, and the redirect in quotes", () =>
    withDesk(async (desk) => {
      const { complete } = await begin(desk);
      assert.ok(!complete.includes(desk.sandbox.appSecret));
      assert.match(complete, / login .*--complete 'URL'$/);
    }));

  it("reads the same env file again", () =>
    withDesk(async (desk) => {
      const lines = Object.entries(desk.sandbox.env)
        .map(([name, value]) => `${name}=${value}\n`);
      const file = await desk.write("the app.env", lines.join(""));
      const { authorize_url, complete } = await begin(
        desk,
        ["--env-file", file],
        { env: NOTHING_SET },
      );
      const redirect = await desk.decide(authorize_url);
      const ended = await runLine(desk, complete, redirect, {});
      assert.equal(ended.code, 0, ended.stderr);
    }));
});

// === Wrong use

const USAGE_ERRORS: [args: string[], message: RegExp][] = [
  [["--start", "--complete", "?code=a"], /--start and --complete are two ste/],
  ...["--paste", "--no-browser"].flatMap((flag) =>
    [["--start", flag], ["--complete", "?code=a", flag]].map((
      args,
    ) => [
      args,
      new RegExp(`${flag} does nothing with ${args[0]}: leave it out`),
    ]) as [string[], RegExp][]
  ),
  ...Object.entries({
    "--port": "3017",
    "--host": "localhost",
    "--path": "/",
    "--redirect-url": "https://relay.example/",
    "--tls-cert": "cert.pem",
    "--tls-key": "key.pem",
    "--param": "a=b",
    "--timeout": "60",
    "--browser": "firefox",
  }).map(([flag, value]): [string[], RegExp] => [
    ["--complete", "?code=a", flag, value],
    new RegExp(`${flag} does nothing with --complete: leave it out`),
  ]),
  [["--start", "--timeout", "60"], /--timeout does nothing with --start/],
  [["--start", "--browser", "x"], /--browser does nothing with --start/],
  [["--start", "--host", "evil.example"], /Cannot use the host/],
  [["--start", "--path", "cb"], /Cannot use the path/],
  [["--start", "--port", "0"], /Cannot listen on port/],
  [["--start", "--redirect-url", "http://a.b/"], /Cannot use the redirect URL/],
  [["--start", "--service-id", "6f3k9d2m1x8q"], /is not a number/],
  [["--start", "--profile", "../x"], /Cannot use the profile name/],
  [["--start", "--tls-cert", "cert.pem"], /go together: give both/],
  [["--start=yes"], /--start takes no value/],
  [["--complete"], /Missing the value of --complete/],
  [["--complete", "a", "--complete", "b"], /--complete is given twice/],
];

describe("login in two steps", TOGETHER, () => {
  const desk = sharedDesk();

  for (const [args, message] of USAGE_ERRORS) {
    it(`refuses ${args.join(" ")}`, async () => {
      assertFailed(await desk().run(["login", ...args]), 2, message);
      assert.deepEqual(await readdir(desk().store).catch(() => []), []);
    });
  }

  it("says so if the state cannot be kept", () =>
    withDesk(async (desk) => {
      const file = await desk.write("no folder", "");
      const env = { TIKTOK_SHOP_HOME: join(dirname(file), "no folder", "x") };
      const ended = await desk.run(["login", "--start"], { env });
      assertFailed(ended, 1, /Cannot lock .*\nhint: check the folder's/);
    }));
});
