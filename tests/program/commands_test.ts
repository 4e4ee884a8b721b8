/**
 * The program's commands after the login, run as processes against the
 * sandbox: what they print and where, their flags and their exit codes. No
 * run may show a secret that it was not asked for; see `run`.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import process from "node:process";
import { describe, it } from "node:test";
import { fileStore } from "../../mod.ts";
import type {
  SandboxFault,
  SandboxOptions,
  SandboxSeller,
} from "../../scripts/sandbox.ts";
import { run } from "../support/asked_secrets.ts";
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
  programCommand,
  runtimeCommand,
  TOGETHER,
} from "../support/helpers.ts";
import {
  type Change,
  KNOWN_SHOP,
  load,
  seed,
  unixTime,
} from "../support/profiles.ts";
import { REPLY } from "../support/token_host.ts";

// === Helpers

const REFRESH = "/api/v2/token/refresh";
const SHOPS = "/authorization/202309/shops";
const SEARCH = "/order/202309/orders/search";
const ECHO = "/echo/202309/x";
const HOUR = 3600;
const DAY = 86_400;

const FULL = existsSync("/dev/full")
  ? {}
  : { skip: "this system has no /dev/full" };

const POSIX = process.platform === "win32"
  ? { skip: "Windows has no sh and no signals" }
  : {};

/** Gives a profile tokens that no host knows, for tests that only show them. */
async function invent(
  { store }: CliFixture,
  profile: string,
  data: Record<string, unknown>,
  meta: Record<string, unknown> = {},
): Promise<void> {
  const tokens = { ...REPLY, data: { ...REPLY.data, ...data }, meta };
  await fileStore(store).save(profile, tokens);
}

function jsonLines(text: string): Record<string, unknown>[] {
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

/** Ends a server that a test has started. */
async function closeServer(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

/** Starts a server on a free port of 127.0.0.1, and tells its origin. */
async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
}

// === Errors of every command that needs tokens

/** A fault of the token host, the exit code, and what is said. */
const HOST_FAULTS: [SandboxFault, number, RegExp][] = [
  ["deauthorized", 5, /code 36004005, .*\nhint: .* log in .*\nrun: .* login\n/],
  [
    "expired-refresh",
    5,
    /code 36004001, .*\nhint: .* log in again\nrun: .* login\n/,
  ],
  ["ip-not-allowed", 6, /code 36009033, .*\nhint: add this machine's IP/],
  ["echo-secret", 6, /code 36009004, "cannot handle .*\*\*\*/],
  ["html", 1, /HTTP 200 with .*\nhint: check the endpoint/],
  ["no-token", 1, /the reply has no access token\nhint: /],
];

/** The arguments of each command that fails before it does anything. */
const NEEDING_TOKENS: Record<string, string[]> = {
  refresh: ["refresh"],
  token: ["token"],
  shops: ["shops"],
  api: ["api", "GET", ECHO],
  exec: ["exec", "--", ...runtimeCommand("never.mjs")],
};

/** Asserts that all is as before; a refusal may be remembered. */
function assertTokensKept(after: string, before: string): void {
  const { meta, ...reply } = JSON.parse(after);
  const { refresh_refused: _, ...rest } = meta;
  assert.deepEqual({ ...reply, meta: rest }, JSON.parse(before));
}

describe("a command that needs tokens", TOGETHER, () => {
  for (const [name, args] of Object.entries(NEEDING_TOKENS)) {
    it(`exits 5 when there are none: ${name}`, () =>
      withCli(async (cli) => {
        const says =
          /There are no tokens under profile "default"\nhint: log in/;
        assertFailed(await run(cli, args), 5, says);
        assert.deepEqual(cli.sandbox.requests, []);
      }));

    it(`names the profile of the login that is needed: ${name}`, () =>
      withCli(async (cli) => {
        const [command, ...rest] = args;
        const says = /under profile "eu"\n.*\nrun: .* login --profile eu\n$/;
        const named = [command!, "--profile", "eu", ...rest];
        assertFailed(await run(cli, named), 5, says);
      }));

    it(`names the file of the login that is needed: ${name}`, () =>
      withCli(async (cli) => {
        const [command, ...rest] = args;
        const named = [command!, "--file", "a shop.json", ...rest];
        const says = /\nrun: .* login --file 'a shop\.json'\n$/;
        assertFailed(await run(cli, named), 5, says);
      }));

    it(`exits 5 when the grant is gone: ${name}`, () =>
      withCli(async (cli) => {
        const { data } = await seed(cli, "default", { left: -1 });
        cli.sandbox.deauthorize(data.open_id);
        const before = await cli.saved();
        const says =
          /36004005.*\(request id \w+\)\nhint: .* log in again\nrun: /;
        assertFailed(await run(cli, args), 5, says);
        assertTokensKept(await cli.saved(), before);
      }));

    it(`exits 1 on a damaged file, and leaves it alone: ${name}`, () =>
      withCli(async (cli) => {
        await seed(cli);
        const damaged = (await cli.saved()).slice(0, 200);
        await writeFile(`${cli.store}/default.json`, damaged);
        const says = /default\.json is no token file, or damaged\nhint: move/;
        assertFailed(await run(cli, args), 1, says);
        assert.equal(await cli.saved(), damaged);
      }));

    it(`exits 2 without the secret, and names where it goes: ${name}`, () =>
      withCli(async (cli) => {
        await seed(cli, "default", { left: -1 });
        const says =
          /Missing settings: TIKTOK_SHOP_APP_SECRET, --app-secret-file FILE or --app-secret-command CMD \(or log in with --keep-secret\)\n/;
        const env = { ...cli.sandbox.env, TIKTOK_SHOP_APP_SECRET: undefined };
        assertFailed(await run(cli, args, { env }), 2, says);
        assert.equal(cli.sandbox.count(REFRESH), 0);
      }));
  }

  for (const [fault, code, says] of HOST_FAULTS) {
    it(`exits ${code} when the token host answers ${fault}`, () =>
      withCli(async (cli) => {
        await seed(cli);
        const before = await cli.saved();
        cli.sandbox.fail("refresh", fault, Infinity);
        assertFailed(await run(cli, ["refresh", "--verbose"]), code, says);
        assertTokensKept(await cli.saved(), before);
      }));
  }

  it("exits 2 when the tokens are another app's", () =>
    withCli(async (cli) => {
      const meta = { app_key: "another" };
      await seed(cli, "default", { meta });
      const says = /Profile "default" belongs to the app key "another", not to/;
      for (const args of [["refresh"], ["api", "GET", ECHO], ["shops"]]) {
        assertFailed(await run(cli, args), 2, says);
      }
      assert.equal(cli.sandbox.requests.length, 1); // that of the seed
    }));
});

// === refresh

describe("refresh", TOGETHER, () => {
  it("prints the reply, having saved it", () =>
    withCli(async (cli) => {
      const meta = { shops: [{ id: "1" }], later: true };
      const old = await seed(cli, "default", { meta });
      const { code, stdout, stderr } = await run(cli, ["refresh"], {
        asked: "tokens",
      });
      assert.equal(code, 0);
      assert.equal(stderr, "Refreshed profile default\n");
      const { meta: kept, ...reply } = JSON.parse(await cli.saved());
      assert.deepEqual(JSON.parse(stdout), reply);
      assert.match(stdout, /^{\n {2}"code": 0,\n {2}"message": "success",\n/);
      assert.match(stdout, /"auth_record_id": 7495540735365777507\n/);
      assert.notEqual(reply.data.access_token, old.data.access_token);
      assert.deepEqual(kept.shops, [{ id: "1" }]);
      assert.equal(kept.later, true);
    }));

  it("prints one line with --json, and nothing else with --quiet", () =>
    withCli(async (cli) => {
      await seed(cli, "other");
      const args = ["refresh", "--profile", "other", "--json", "--quiet"];
      const ended = await run(cli, args, { asked: "tokens" });
      assert.match(ended.stdout, /^{"code":0,[^\n]+}\n$/);
      assert.equal(ended.stderr, "");
      assert.equal(ended.code, 0);
    }));

  it("takes the app key from the profile, and keeps a --file", () =>
    withCli(async (cli) => {
      await seed(cli);
      const file = await cli.write("my tokens.json", await cli.saved());
      const env = { ...cli.sandbox.env, TIKTOK_SHOP_APP_KEY: undefined };
      const args = ["refresh", "--file", file];
      const { code } = await run(cli, args, { env, asked: "tokens" });
      assert.equal(code, 0);
      assert.notEqual(await readFile(file, "utf8"), await cli.saved());
      const names = await readdir(cli.folder);
      assert.deepEqual(names.sort(), ["my tokens.json", "store"]);
    }));
});

// === refresh --all

/** Passes requests on to the sandbox, but drops those for one token. */
async function withProxy(
  { sandbox }: CliFixture,
  dropped: string,
  use: (endpoint: string) => Promise<unknown>,
): Promise<void> {
  const server = createServer(async (request, response) => {
    const url = request.url ?? "";
    if (
      new URLSearchParams(url.split("?")[1]).get("refresh_token") === dropped
    ) {
      request.socket.destroy();
      return;
    }
    const answer = await fetch(sandbox.origin + url);
    response.writeHead(answer.status, { connection: "close" });
    response.end(await answer.text());
  });
  const origin = await listen(server);
  try {
    await use(origin + REFRESH);
  } finally {
    await closeServer(server);
  }
}

/** How many requests for tokens were answered at the same time, at most. */
function watchCrowd(): SandboxOptions & { most: () => number } {
  const spans: [from: number, to: number][] = [];
  return {
    onRequest: ({ path, time }) => {
      if (path === REFRESH) spans.push([time, Date.now()]);
    },
    most: () =>
      Math.max(
        ...spans.map(([at]) =>
          spans.filter(([from, to]) => from <= at && at < to).length
        ),
      ),
  };
}

describe("refresh --all", TOGETHER, () => {
  it("ends with a summary, and refuses --profile", () =>
    withCli(async (cli) => {
      for (const name of ["a", "b", "c"]) await seed(cli, name);
      const gone = await seed(cli, "gone");
      const data = { ...gone.data, refresh_token: "ROW_none" };
      await invent(cli, "gone", data, gone.meta);
      const ended = await run(cli, ["refresh", "--all"]);
      assert.equal(ended.code, 5);
      assert.equal(
        ended.stderr,
        "Refreshed 3 of 4 profiles, 1 failed\n",
      );
      const quiet = await run(cli, ["refresh", "--all", "--quiet"]);
      assert.equal(quiet.stderr, "");
      const args = ["refresh", "--all", "--profile", "a"];
      const { code, stdout, stderr } = await run(cli, args);
      assert.deepEqual([code, stdout], [2, ""]);
      assert.match(stderr, /^error: --all refreshes every profile: leave out/);
    }));

  it("prints a JSON line a profile, and goes on when one fails", () =>
    withCli(async (cli) => {
      for (const name of ["good1", "good2", "good3"]) await seed(cli, name);
      await seed(cli, "gone", { data: { refresh_token: "ROW_gone" } });
      const { data } = await seed(cli, "offline");
      await writeFile(`${cli.store}/damaged.json`, '{"code":0,');
      await withProxy(cli, data.refresh_token, async (endpoint) => {
        const args = ["refresh", "--all", "--refresh-endpoint", endpoint];
        const ended = await run(cli, args);
        assertMixedLines(ended.stdout);
        assert.equal(ended.code, 5, ended.stderr);
      });
      assert.equal(await cli.saved("damaged"), '{"code":0,');
      assert.equal(
        (await load(cli, "offline")).data.refresh_token,
        data.refresh_token,
      );
    }));

  it("refreshes 16 profiles at a time, no more", () => {
    const { most, ...options } = watchCrowd();
    return withCli(async (cli) => {
      const profiles = Array.from({ length: 40 }, (_, i) => `p${i}`);
      await Promise.all(profiles.map((name) => seed(cli, name)));
      const { stdout, code } = await run(cli, ["refresh", "--all"]);
      assert.equal(code, 0);
      const lines = jsonLines(stdout);
      assert.ok(lines.every(({ ok }) => ok), stdout);
      const told = lines.map(({ profile }) => profile);
      assert.deepEqual(told.sort(), profiles.sort());
      assert.equal(cli.sandbox.count(REFRESH), 40);
      // Nearly as many as that even where the program starts them slowly.
      assert.ok(most() <= 16 && most() > 8, `${most()} at a time`);
    }, { ...options, latency: 1500 });
  });

  /** What alone is wrong, and the exit code. */
  const alone: [string, (cli: CliFixture) => Promise<unknown>, number][] = [
    [
      "6 when TikTok rejects a request",
      async (cli) => {
        await seed(cli, "b");
        cli.sandbox.fail("refresh", "ip-not-allowed");
      },
      6,
    ],
    [
      "1 when a file is damaged",
      (cli) => writeFile(`${cli.store}/b.json`, "{"),
      1,
    ],
    [
      "2 when the tokens are another app's",
      (cli) => seed(cli, "b", { meta: { app_key: "another" } }),
      2,
    ],
  ];
  for (const [what, spoil, expected] of alone) {
    it(`exits ${what}, the grants being good`, () =>
      withCli(async (cli) => {
        await seed(cli, "a");
        await spoil(cli);
        const { code, stdout } = await run(cli, ["refresh", "--all"]);
        assert.equal(code, expected);
        const oks = jsonLines(stdout).map(({ ok }) => ok);
        assert.deepEqual(oks.sort(), [false, true]);
      }));
  }

  it("has nothing to do where there are no profiles", () =>
    withCli(async (cli) => {
      const { code, stdout, stderr } = await run(cli, ["refresh", "--all"]);
      assert.deepEqual([code, stdout], [0, ""]);
      assert.match(stderr, /^There are no profiles yet/);
    }));

  it("takes --file for the only one, not the folder around it", () =>
    withCli(async (cli) => {
      await seed(cli);
      const file = await cli.write("mine.json", await cli.saved());
      await cli.write("package.json", "{}");
      const args = ["refresh", "--all", "--file", file];
      const { code, stdout } = await run(cli, args);
      assert.deepEqual(jsonLines(stdout).map((line) => line.profile), ["mine"]);
      assert.equal(code, 0);
    }));
});

/** Three good ones, and three that failed each in its own way. */
function assertMixedLines(stdout: string): void {
  const lines = jsonLines(stdout).sort((a, b) =>
    String(a.profile) < String(b.profile) ? -1 : 1
  );
  const told = lines.map(({ profile, ok, kind }) => [profile, ok, kind]);
  assert.deepEqual(told, [
    ["damaged", false, "store"],
    ["gone", false, "login_required"],
    ["good1", true, undefined],
    ["good2", true, undefined],
    ["good3", true, undefined],
    ["offline", false, "network"],
  ]);
  for (const { ok, message, hint, ...line } of lines) {
    const { access_token_expire_in: end } = line;
    const types = [typeof end, typeof message, typeof hint];
    const failed = ["undefined", "string", "string"];
    const good = ["number", "undefined", "undefined"];
    assert.deepEqual(types, ok ? good : failed);
  }
  assert.equal(lines[1]!.code, 36004005);
  assert.match(String(lines[1]!.run), / login --profile gone$/);
}

// === token

/** `--min-valid`, the seconds a token has left, and the refreshes it takes. */
const MIN_VALIDS: [flag: string[], left: number, refreshes: number][] = [
  [[], 7 * DAY, 0],
  [[], 320, 0],
  [[], 280, 1],
  [[], -5, 1],
  [["--min-valid", "90"], 110, 0],
  [["--min-valid", "90"], 80, 1],
  [["--min-valid=5m"], 320, 0],
  [["--min-valid=5m"], 280, 1],
  [["--min-valid", "8d"], 7 * DAY, 1],
  [["--min-valid", "0"], 10, 0],
];

describe("token", TOGETHER, () => {
  it(
    "fails when stdout takes no data, as on a full disk",
    FULL,
    () =>
      withCli(async (cli) => {
        await seed(cli);
        const shell = ["sh", "-c", '"$@" > /dev/full', "sh"];
        const command = [...shell, ...programCommand(["token"])];
        const ended = await cli.startCommand(command).ended;
        assert.equal(ended.code, 1, ended.stderr);
        assert.match(ended.stderr, /^error: Cannot write to stdout: .*space/);
      }),
  );

  it("takes --profile before a file that the environment names", () =>
    withCli(async (cli) => {
      const { data } = await seed(cli, "named");
      const env = { TIKTOK_SHOP_TOKEN_FILE: cli.path("absent.json") };
      const args = ["token", "--profile", "named"];
      const { stdout } = await run(cli, args, { env, asked: "tokens" });
      assert.equal(stdout, `${data.access_token}\n`);
    }));

  it("prints the token without a request, a secret or a word", () =>
    withCli(async (cli) => {
      const { data } = await seed(cli);
      const requests = cli.sandbox.requests.length;
      const ended = await run(cli, ["token"], {
        env: NOTHING_SET,
        asked: "tokens",
      });
      assert.equal(ended.stdout, `${data.access_token}\n`);
      assert.equal(ended.stderr, "");
      assert.equal(ended.code, 0);
      assert.equal(cli.sandbox.requests.length, requests);
    }));

  for (const [flag, left, refreshes] of MIN_VALIDS) {
    const what = refreshes ? "refreshes" : "prints";
    const name = ["token", ...flag].join(" ");
    it(`${what} what has ${left} s left: ${name}`, () =>
      withCli(async (cli) => {
        const old = await seed(cli, "default", { left });
        const asked = "tokens";
        const ended = await run(cli, ["token", ...flag], { asked });
        const { data } = await load(cli);
        assert.equal(ended.stdout, `${data.access_token}\n`);
        assert.equal(ended.code, 0, ended.stderr);
        assert.equal(cli.sandbox.count(REFRESH), refreshes);
        const kept = data.access_token === old.data.access_token;
        assert.equal(kept, refreshes === 0);
      }));
  }
});

// === status

/** A time that is safely within a minute, whatever the test takes. */
function inFuture(seconds: number): number {
  return unixTime() + seconds + 30;
}

/** The years and days until a time, as status shows them. */
function yearsLeft(end: number): string {
  const days = Math.floor((end - unixTime()) / DAY);
  return `${Math.floor(days / 365)}y ${days % 365}d`;
}

const FAR = 4841467787; // in 2123

/** Names of sellers, how they are shown and the columns that this takes. */
const NAMES: [string, string, number][] = [
  ["東京ストア", "東京ストア", 10],
  ["𠮷野家", "𠮷野家", 6],
  ["서울 상점", "서울 상점", 9],
  ["Fish 🐟 & Chips", "Fish 🐟 & Chips", 15],
  ["Love ❤️", "Love ❤️", 7],
  ["Acme® ©™", "Acme® ©™", 8],
  ["Cafe\u0301", "Cafe\u0301", 4],
  ["ＦＵＬＬ", "ＦＵＬＬ", 8],
  ["\x1b[31mRed\x1b[0m", "\ufffd[31mRed\ufffd[0m", 12],
  ["a\u202eb\u2066c\u200b", "a\ufffdb\ufffdc\ufffd", 6],
  ["two\nlines\ttab", "two lines\ufffdtab", 13],
];

describe("status", TOGETHER, () => {
  it("shows a table of every profile, by name", () =>
    withCli(async (cli) => {
      const data = { refresh_token_expire_in: FAR };
      await seed(cli, "shop", { data, left: 3 * HOUR + 25 * 60 + 59 });
      await seed(cli, "creator", { seller: 1, data, left: DAY + 59 });
      const { stdout, stderr, code } = await run(cli, ["status"]);
      const far = yearsLeft(FAR);
      assert.equal(
        stdout,
        `\
GRANT${
          " ".repeat(far.length - 5)
        }  ACCESS  PROFILE  SELLER                    REGION  TYPE     SECRET  SCOPES
${far}  1d      creator  7010cAAAAAB7tW1nD4sUeJpL  GB      creator  no      1
${far}  3h 25m  shop     Harbour & Finch           GB      seller   no      4
`,
      );
      assert.deepEqual([stderr, code], ["", 0]);
    }));

  it("prints an array with --json, and asks nobody", () =>
    withCli(async (cli) => {
      const data = { refresh_token_expire_in: FAR };
      await seed(cli, "shop", { data, left: HOUR });
      await run(cli, ["shops", "--profile", "shop"]);
      const requests = cli.sandbox.requests.length;
      const args = ["status", "--json"];
      const { stdout, stderr } = await run(cli, args, { env: NOTHING_SET });
      assert.equal(cli.sandbox.requests.length, requests);
      assert.equal(stderr, "");
      assert.match(stdout, /^\[{[^\n]+}\]\n$/);
      assertStatus(JSON.parse(stdout), cli);
    }));

  it("aligns names of any script, and lets none forge the terminal", () =>
    withCli(async (cli) => {
      for (const [i, [seller_name]] of NAMES.entries()) {
        await invent(cli, `n${i}`.padEnd(4, "x"), { seller_name });
      }
      const { stdout } = await run(cli, ["status"]);
      const widest = Math.max(...NAMES.map(([, , columns]) => columns));
      const rows = stdout.trimEnd().split("\n").slice(1);
      const starts = NAMES.map(([, shown, columns], i) => {
        const name = `n${i}`.padEnd(4, "x");
        return `${name}     ${shown}${" ".repeat(widest - columns)}  GB   `;
      });
      const sorted = starts.sort();
      const at = stdout.indexOf("PROFILE");
      const found = rows.map((row, i) => row.slice(at, at + sorted[i]!.length));
      assert.deepEqual(found, sorted);
    }));

  it("tells what has ended, ends soon or is damaged, and shows the rest", () =>
    withCli(async (cli) => {
      await inventAges(cli);
      const { stdout, stderr, code } = await run(cli, ["status"]);
      assert.deepEqual(columnsOf(stdout), [
        ["unreadable", "unknown", "0-damaged", ""],
        ["ended", "ended", "1-ended", "Harbour & Finch"],
        ["29d 23h", "ended", "2-soon", "Harbour & Finch"],
        ["30d", "1h", "3-month", "Harbour & Finch"],
        [yearsLeft(FAR), "6d 23h", "4-far", "Harbour & Finch"],
        ["unknown", "unknown", "5-endless", "Harbour & Finch"],
        [yearsLeft(99_999_999_999), "1h 2m", "6-late", "Harbour & Finch"],
      ]);
      assert.equal(code, 0);
      const again = (name: string) =>
        `log in again\nrun: OURS login --profile ${name}`;
      const told = stderr.replace(/(?<=^run: ).*(?= login)/gm, "OURS");
      assert.deepEqual(told.trimEnd().split(/\n(?!run)/), [
        `warning: ${cli.store}/0-damaged.json is no token file, or damaged`,
        "warning: the seller's grant of profile 1-ended has ended, " +
        again("1-ended"),
        "warning: the seller's grant of profile 2-soon ends in 29d 23h, " +
        again("2-soon"),
      ]);
    }));

  it("shows a profile whose members are of odd types", () =>
    withCli(async (cli) => {
      await invent(cli, "odd", {
        seller_name: ["x"],
        user_type: "seller",
        granted_scopes: null,
        access_token_expire_in: "soon",
        refresh_token_expire_in: String(inFuture(90 * DAY)),
      }, { shops: { none: true }, clock_offset: "x" });
      const { stdout, stderr, code } = await run(cli, ["status"]);
      // Where there is no name, the open id takes its place.
      assert.match(stdout, /\n90d +unknown +odd +7010\w+ +GB +seller +no\n$/);
      assert.deepEqual([stderr, code], ["", 0]);
    }));

  it("reckons by the token host's clock", () =>
    withCli(async (cli) => {
      const end = { access_token_expire_in: inFuture(2 * HOUR) };
      const clock_offset = HOUR;
      await invent(cli, "ahead", end, {
        clock_offset,
        obtained_at: unixTime(),
      });
      const { stdout } = await run(cli, ["status"]);
      assert.match(stdout, / 1h +ahead /);
    }));

  /** `--min-valid` over tokens with 2 h left, and the exit code. */
  const floors: [string[], number][] = [
    [["--min-valid", "1h"], 0],
    [["--min-valid", "7000"], 0],
    [["--min-valid", "3h"], 5],
    [["--min-valid=1d", "--json"], 5],
  ];
  it("exits 5 when less than --min-valid is left, having shown it", () =>
    withCli(async (cli) => {
      const end = { access_token_expire_in: inFuture(2 * HOUR) };
      await invent(cli, "default", end);
      for (const [flags, expected] of floors) {
        const { code, stdout } = await run(cli, ["status", ...flags]);
        assert.equal(code, expected, flags.join(" "));
        assert.match(stdout, /default/);
      }
      await invent(cli, "late", { access_token_expire_in: unixTime() - 1 });
      const one = ["status", "--min-valid", "1h"];
      assert.equal((await run(cli, one)).code, 5);
      const chosen = [...one, "--profile", "default"];
      assert.equal((await run(cli, chosen)).code, 0);
    }));

  it("says of which profile --min-valid is not met", () =>
    withCli(async (cli) => {
      const least = { access_token_expire_in: inFuture(2 * HOUR) };
      await invent(cli, "short", least);
      await invent(cli, "long", { access_token_expire_in: inFuture(DAY) });
      await invent(cli, "over", { access_token_expire_in: unixTime() - 1 });
      const args = ["status", "--min-valid", "3h"];
      const { code, stderr } = await run(cli, args);
      assert.equal(code, 5);
      assert.deepEqual(
        stderr.split("\n").filter((line) => /min-valid/.test(line)),
        [
          "warning: --min-valid is not met by profile over: ended",
          "warning: --min-valid is not met by profile short: 2h",
        ],
      );
    }));

  it("shows all of one profile, its scopes and shops by name", () =>
    withCli(async (cli) => {
      const data = { refresh_token_expire_in: FAR };
      await seed(cli, "shop", { data, left: 3 * HOUR + 25 * 60 + 59 });
      await run(cli, ["shops", "--profile", "shop"]);
      const { stdout, stderr } = await run(cli, [
        "status",
        "--profile",
        "shop",
      ]);
      assert.equal(stderr, "");
      const far = yearsLeft(FAR);
      assert.equal(
        stdout,
        `\
GRANT    ${far}
ACCESS   3h 25m
PROFILE  shop
SELLER   Harbour & Finch
REGION   GB
TYPE     seller
SECRET   no
SCOPES   seller.authorization.info
         seller.order.info
         seller.product.basic
         seller.shop.info
SHOPS    Harbour & Finch (GB)
         Harbour & Finch Éire (IE)
         Harbour Outlet (US)
`,
      );
    }));

  it("shows one profile by --profile, its variable or --file", () =>
    withCli(async (cli) => {
      for (const name of ["a", "b"]) await invent(cli, name, {});
      const file = await cli.write("c.json", await cli.saved("a"));
      const of = async (args: string[], env = {}) => {
        const command = ["status", "--json", ...args];
        const { stdout } = await run(cli, command, { env });
        return JSON.parse(stdout).map((each: { profile: string }) =>
          each.profile
        );
      };
      assert.deepEqual(await of([]), ["a", "b"]);
      assert.deepEqual(await of(["--profile", "b"]), ["b"]);
      assert.deepEqual(await of([], { TIKTOK_SHOP_PROFILE: "b" }), ["b"]);
      assert.deepEqual(await of(["--file", file]), ["c"]);
    }));

  const absent = [["--profile", "nobody"], ["--file", "none.json"]];
  it("exits 5 when the one that is asked for is not there", () =>
    withCli(async (cli) => {
      await invent(cli, "default", {});
      for (const flags of absent) {
        for (const floor of [[], ["--min-valid", "1h"]]) {
          const args = ["status", ...flags, ...floor];
          const { code, stdout, stderr } = await run(cli, args);
          assert.deepEqual([code, stdout], [5, ""], flags.join(" "));
          assert.match(stderr, /^error: There are no tokens .*\nhint: log in/);
        }
      }
    }));

  it("has nothing to show where there are no profiles", () =>
    withCli(async (cli) => {
      const none = await run(cli, ["status"]);
      assert.deepEqual([none.stdout, none.code], ["", 0]);
      assert.match(
        none.stderr,
        /^There are no profiles yet, log in: .* login\n$/,
      );
      const json = await run(cli, ["status", "--json"]);
      assert.deepEqual([json.stdout, json.code], ["[]\n", 0]);
      const late = await run(cli, ["status", "--min-valid", "1h"]);
      assert.equal(late.code, 5);
    }));
});

/** Profiles near and far from their ends, and one that is damaged. */
async function inventAges(cli: CliFixture): Promise<void> {
  const rows: [string, number | undefined, number | undefined][] = [
    ["1-ended", unixTime() - 1, unixTime() - 1],
    ["2-soon", unixTime() - 1, inFuture(30 * DAY - HOUR)],
    ["3-month", inFuture(HOUR), inFuture(30 * DAY)],
    ["4-far", inFuture(7 * DAY - HOUR), FAR],
    ["5-endless", undefined, undefined],
    ["6-late", inFuture(HOUR + 120), 99_999_999_999],
  ];
  for (const [name, access, refresh] of rows) {
    await invent(cli, name, {
      access_token_expire_in: access,
      refresh_token_expire_in: refresh,
    });
  }
  await writeFile(`${cli.store}/0-damaged.json`, "{");
}

/** The two times, profile and seller that each row of a table shows. */
function columnsOf(stdout: string): string[][] {
  const [head = "", ...rows] = stdout.trimEnd().split("\n");
  const at = ["GRANT", "ACCESS", "PROFILE", "SELLER", "REGION"]
    .map((name) => head.indexOf(name));
  return rows.map((row) =>
    at.slice(0, 4).map((start, i) => row.slice(start, at[i + 1]).trim())
  );
}

/** What `status --json` says of a seller of the sandbox with its shops. */
function assertStatus(
  list: Record<string, unknown>[],
  { sandbox }: CliFixture,
): void {
  const [{ access_token_left, refresh_token_left, ...rest }] = list as [
    Record<string, number>,
  ];
  assert.equal(list.length, 1);
  assert.ok(access_token_left! > HOUR - 300 && access_token_left! <= HOUR);
  assert.ok(Math.abs(FAR - unixTime() - refresh_token_left!) < 300);
  const { access_token_expire_in, shops, ...plain } = rest as unknown as
    & Record<string, number>
    & { shops: Record<string, string>[] };
  assert.ok(Math.abs(access_token_expire_in! - unixTime() - HOUR) < 30);
  assert.deepEqual(shops.map((shop) => Object.keys(shop)), [
    ["id", "name", "region"],
    ["id", "name", "region"],
    ["id", "name", "region"],
  ]);
  assert.deepEqual(plain, {
    profile: "shop",
    default: false,
    app_secret: "no",
    seller_name: "Harbour & Finch",
    open_id: "7010aAAAAAAQ5R2hZ0fV3kXw",
    app_key: sandbox.appKey,
    region: "GB",
    user_type: "seller",
    scopes: [
      "seller.authorization.info",
      "seller.order.info",
      "seller.product.basic",
      "seller.shop.info",
    ],
    refresh_token_expire_in: FAR,
  });
}

// === shops

const SHOPLESS: SandboxSeller = {
  openId: "7010bAAAAAAX",
  name: "Quay",
  region: "GB",
  userType: 0,
  scopes: ["seller.authorization.info"],
  shops: [],
};

describe("shops", TOGETHER, () => {
  it("prints a table of all shops, and remembers them", () =>
    withCli(async (cli) => {
      await seed(cli);
      const { stdout, stderr, code } = await run(cli, ["shops"]);
      assert.equal(
        stdout,
        `\
ID                   NAME                  REGION  TYPE          CODE
7495540735365777507  Harbour & Finch       GB      LOCAL         GBHF01
8600001              Harbour & Finch Éire  IE      LOCAL         IEHF02
8600002              Harbour Outlet        US      CROSS_BORDER  USHF03
`,
      );
      assert.deepEqual([stderr, code], ["", 0]);
      assert.equal((await load(cli)).meta.shops?.length, 3);
    }));

  it("prints them as TikTok sent them with --json", () =>
    withCli(async (cli) => {
      await seed(cli);
      const args = ["shops", "--json"];
      const { stdout, code } = await run(cli, args, { asked: "ciphers" });
      assert.match(stdout, /^\[{[^\n]+}\]\n$/);
      assert.deepEqual(JSON.parse(stdout), (await load(cli)).meta.shops);
      assert.equal(code, 0);
    }));

  it("says so when there are none", () =>
    withCli(async (cli) => {
      await seed(cli);
      const table = await run(cli, ["shops"]);
      assert.equal(table.stdout, "ID  NAME  REGION  TYPE  CODE\n");
      assert.equal(table.stderr, "This token has no shops\n");
      const json = await run(cli, ["shops", "--json"]);
      assert.deepEqual([json.stdout, json.code], ["[]\n", 0]);
    }, { sellers: [SHOPLESS] }));

  it("exits 6 when the scope is missing, and says what to do", () =>
    withCli(async (cli) => {
      await seed(cli, "default", { seller: 1 });
      const says = /code 105005, .*\(request id \w+\)\nhint: enable the scope/;
      assertFailed(await run(cli, ["shops"]), 6, says);
      assert.equal((await load(cli)).meta.shops, undefined);
    }));
});

// === api

/** What the sandbox's echo saw of a call. */
interface Echo {
  data: {
    method: string;
    path: string;
    query: Record<string, string>;
    body: string;
    content_type: string;
  };
}

async function echoed(
  cli: CliFixture,
  args: string[],
  options: RunOptions = {},
): Promise<Echo["data"]> {
  const { stdout, stderr, code } = await run(cli, ["api", ...args], options);
  assert.equal(code, 0, stderr);
  return (JSON.parse(stdout) as Echo).data;
}

describe("api", TOGETHER, () => {
  it("prints the response body, its large integers exact", () =>
    withCli(async (cli) => {
      await seed(cli);
      const { stdout, stderr, code } = await run(cli, ["api", "GET", ECHO]);
      assert.match(stdout, /^{\n {2}"code": 0,\n {2}"message": "success",\n/);
      assert.deepEqual([stderr, code], ["", 0]);
      const body = '{"code":0,"data":{"id":7495540735365777507}}';
      await withAnswers(() => body, async (endpoint) => {
        const args = ["api", "GET", "/x/y", "--api-endpoint", endpoint];
        const one = await run(cli, [...args, "--json"]);
        assert.equal(one.stdout, `${body}\n`);
        const pretty = await run(cli, args);
        assert.match(pretty.stdout, /^ {4}"id": 7495540735365777507$/m);
      });
    }));

  it("sends --query decoded, and takes the method in lower case", () =>
    withCli(async (cli) => {
      await seed(cli);
      const path = `${ECHO}?a=1&b=x%20y`;
      const args = ["get", path, "--query", "c=é+/=&", "--query=d==", "--json"];
      const { query, method, content_type } = await echoed(cli, args);
      const { app_key: _, timestamp: __, ...rest } = query;
      assert.deepEqual(rest, { a: "1", b: "x y", c: "é+/=&", d: "=" });
      assert.equal(method, "GET");
      assert.equal(content_type, "application/json");
    }));

  it("takes a reply up to --reply-limit, and waits up to --request-timeout", () =>
    withCli(async (cli) => {
      await seed(cli);
      const body = `{"code":0,"data":"${"x".repeat(2000)}"}`;
      await withAnswers(() => body, async (endpoint) => {
        const args = ["api", "GET", "/x/y", "--api-endpoint", endpoint];
        const call = (...more: string[]) => run(cli, [...args, ...more]);
        const narrow = await call("--reply-limit", "1k");
        assert.match(narrow.stderr, /the reply is larger than 1024 bytes/);
        assert.deepEqual([narrow.stdout, narrow.code], ["", 1]);
        const wide = ["--reply-limit", "4M", "--request-timeout", "5m"];
        assert.equal((await call(...wide)).code, 0);
        assert.equal((await call("--reply-limit", "2100")).code, 0);
        for (const wrong of ["0", "x", "1G", "1.5M", "-1"]) {
          const { code, stderr } = await call("--reply-limit", wrong);
          assert.equal(code, 2, stderr);
        }
        assert.equal((await call("--request-timeout", "soon")).code, 2);
      });
    }));

  it("sends --body exactly: JSON, @FILE or - for stdin", () =>
    withCli(async (cli) => {
      await seed(cli);
      const text = ' {"id": 7495540735365777507, "é": "😀"}\r\n';
      const file = await cli.write("a body.json", text);
      const bodies: [string, string, string?][] = [
        [text, text],
        [`@${file}`, text],
        ["@a body.json", text],
        ["-", text, text],
        ["-", "", ""],
        ["[]", "[]"],
      ];
      for (const [flag, expected, input] of bodies) {
        const args = ["POST", ECHO, "--body", flag];
        const data = await echoed(
          cli,
          args,
          input === undefined ? {} : { input },
        );
        assert.equal(data.body, expected, flag);
      }
    }));

  it("sends bytes that are no text", () =>
    withCli(async (cli) => {
      await seed(cli);
      const bytes = Uint8Array.of(0xff, 0xfe, 0x00, 0x80);
      await writeFile(cli.path("bytes"), bytes);
      // The sandbox takes the signature over the very bytes, or refuses.
      const { body } = await echoed(cli, ["POST", ECHO, "--body", "@bytes"]);
      assert.equal(body, new TextDecoder().decode(bytes));
    }));

  it("acts for the --shop named by id, name, code or cipher", () =>
    withCli(async (cli) => {
      await seed(cli);
      const cipher = "GCP_b81TAAAAAABk2wLr9pYd5A";
      for (
        const shop of ["8600001", "harbour & finch éire", "IEHF02", cipher]
      ) {
        const args = ["api", "POST", SEARCH, "--shop", shop];
        const { code, stderr } = await run(cli, args);
        assert.equal(code, 0, stderr);
        const { query } = cli.sandbox.requests.at(-1)!;
        assert.equal(query.shop_cipher, cipher);
      }
      assert.equal(cli.sandbox.count(SHOPS), 1);
    }));

  it("prints a JSON line a page with --paginate", () =>
    withCli(async (cli) => {
      await seed(cli);
      const args = ["POST", SEARCH, "--shop", "8600001", "--body", "{}"];
      const page = ["--paginate", "--query", "page_size=10"];
      const { stdout, code } = await run(cli, ["api", ...args, ...page]);
      assert.equal(code, 0);
      const lines = jsonLines(stdout) as {
        data?: { orders: { id: string }[] };
      }[];
      const orders = lines.map(({ data }) => data!.orders);
      assert.deepEqual(orders.map((list) => list.length), [10, 10, 5]);
      assert.equal(new Set(orders.flat().map(({ id }) => id)).size, 25);
    }));

  it("ends when the pages go round in a circle", () =>
    withCli(async (cli) => {
      await seed(cli);
      const pages = (url: URL) => {
        const token = url.searchParams.get("page_token");
        const next = token === "a" ? "b" : "a";
        return `{"code":0,"data":{"next_page_token":"${next}"}}`;
      };
      await withAnswers(pages, async (endpoint) => {
        const args = ["api", "GET", "/x/y", "--paginate"];
        const { stdout, code } = await run(cli, [
          ...args,
          ...["--api-endpoint", endpoint],
        ]);
        assert.equal(jsonLines(stdout).length, 3);
        assert.equal(code, 0);
      });
    }));

  it("prints no page when a later one fails", () =>
    withCli(async (cli) => {
      await seed(cli);
      await run(cli, ["shops"]);
      cli.sandbox.fail("api", "slow:0");
      cli.sandbox.fail("api", "ip-not-allowed");
      const args = ["api", "POST", SEARCH, "--shop", "8600001", "--paginate"];
      const says = /code 36009033, .*\nhint: add this machine's IP/;
      assertFailed(
        await run(cli, args),
        6,
        says,
        /^\{"code":36009033,.*\}\n$/,
      );
      assert.equal(cli.sandbox.count(SEARCH), 2);
    }));

  it("reads the secret from stdin once, for every page", () =>
    withCli(async (cli) => {
      await seed(cli);
      const args = ["api", "POST", SEARCH, "--shop", "8600001", "--paginate"];
      const { code, stdout } = await run(
        cli,
        [...args, "--app-secret-file", "-"],
        {
          env: { TIKTOK_SHOP_APP_SECRET: undefined },
          input: `${cli.sandbox.appSecret}\n`,
        },
      );
      assert.equal(code, 0);
      assert.ok(stdout.trimEnd().split("\n").length > 1);
    }));

  it("does not read both its body and the secret from stdin", () =>
    withCli(async (cli) => {
      await seed(cli);
      const args = ["api", "POST", SEARCH, "--body", "-"];
      const both = [...args, "--app-secret-file", "-"];
      const says = /--body and --app-secret-file cannot both be read from/;
      assertFailed(await run(cli, both, { input: "{}" }), 2, says);
    }));

  it("exits 6 with TikTok's code, message and request id", () =>
    withCli(async (cli) => {
      await seed(cli);
      const says = new RegExp(
        `^error: Cannot call POST ${SEARCH}: TikTok answered with code ` +
          '106013, "Missing identifier\\. The `shop_cipher` .*" ' +
          "\\(request id \\w{34}\\)\n" +
          "hint: name the shop.*\nflag: --shop ID\n$",
      );
      const args = ["api", "POST", SEARCH];
      const body =
        /^\{\n {2}"code": 106013,\n {2}"message": "Missing id.*\n\}\n$/s;
      assertFailed(await run(cli, args), 6, says, body);
    }));

  it("prints the body of a failed call, without secrets and escapes", () =>
    withCli(async (cli) => {
      await seed(cli);
      const errors = [{ code: 12052091, message: "\x1b[2J", id: "A" }];
      const json = ({ searchParams: query }: URL) =>
        JSON.stringify({
          code: 12052700,
          message: "no",
          data: { errors, sign: query.get("sign"), at: query.get("sign") },
        });
      await withAnswers(json, async (endpoint) => {
        const to = ["--api-endpoint", endpoint];
        const ended = await run(cli, ["api", "POST", "/x/y", "--json", ...to]);
        const data = { errors, sign: "***", at: "***" };
        assert.deepEqual(jsonLines(ended.stdout), [
          { code: 12052700, message: "no", data },
        ]);
        assert.ok(!ended.stdout.includes("\x1b"));
        assert.equal(ended.code, 6, ended.stderr);
      });
      const page = () => "<h1>\n\x1b]52;c;AAAA\x07</h1>";
      await withAnswers(page, async (endpoint) => {
        const args = ["api", "GET", "/x/y", "--api-endpoint", endpoint];
        const { stdout, code } = await run(cli, args);
        assert.equal(stdout, "<h1>\n\ufffd]52;c;AAAA\ufffd</h1>\n");
        assert.equal(code, 1);
      });
    }));

  it("sends no shop with --shop none, and the one that is named", () =>
    withCli(async (cli) => {
      await seed(cli, "default", { meta: { shops: [KNOWN_SHOP] } });
      const shopless = "/authorization/202309/widget_token";
      for (
        const [path, shop, cipher] of [
          [ECHO, undefined, KNOWN_SHOP.cipher],
          [ECHO, "none", undefined],
          [shopless, undefined, undefined],
          [shopless, KNOWN_SHOP.id, KNOWN_SHOP.cipher],
        ] as const
      ) {
        const args = ["GET", path, ...shop ? ["--shop", shop] : []];
        await run(cli, ["api", ...args], { asked: "ciphers" });
        const { query } = cli.sandbox.requests.at(-1)!;
        assert.equal(query.shop_cipher, cipher, `${path} ${shop}`);
      }
    }));

  /** Faults of the API, the exit code and what is said. */
  const faults: [SandboxFault, number, RegExp, RegExp?][] = [
    ["deauthorized", 5, /code 105001, .*\nhint: .*log in again/, /^\{\n/],
    ["echo-secret", 6, /code 36009004, "cannot handle .*\*\*\*/, /\*\*\*/],
    ["html", 1, /HTTP 200 with .* text\/html/, /^<!doctype html>/i],
    ["redirect", 1, /a redirect, which is not followed/],
  ];
  it("maps what goes wrong to its exit code, and shows no secret", () =>
    withCli(async (cli) => {
      await seed(cli);
      for (const [fault, code, says, body] of faults) {
        cli.sandbox.fail("api", fault);
        const args = ["api", "GET", `${ECHO}?code=hush`, "--verbose"];
        const ended = await run(cli, args);
        assertFailed(ended, code, says, body);
        assert.doesNotMatch(ended.stdout, /hush/);
        assert.match(ended.stderr, /^GET http:\S+[?&]code=\*\*\*&\S+ /);
        assert.doesNotMatch(ended.stderr, /hush/);
      }
    }));

  it("exits 130 after Ctrl-C", POSIX, () =>
    withCli(async (cli) => {
      await seed(cli);
      cli.sandbox.fail("api", "503");
      cli.sandbox.fail("api", "never");
      const running = cli.start(["api", "GET", ECHO, "--verbose"]);
      await running.until(/HTTP 503/);
      cli.signal(running, "SIGINT");
      const ended = await running.ended;
      assertFailed(
        ended,
        130,
        /Cancelled: interrupted\nhint: try/,
      );
    }));

  it("refreshes what has expired, and prints only the body", () =>
    withCli(async (cli) => {
      await seed(cli, "default", { left: -1 });
      const { method } = await echoed(cli, ["DELETE", ECHO]);
      assert.equal(method, "DELETE");
      assert.equal(cli.sandbox.count(REFRESH), 1);
    }));
});

/** A server that answers every GET with a text made from its URL. */
async function withAnswers(
  answer: (url: URL) => string,
  use: (endpoint: string) => Promise<unknown>,
): Promise<void> {
  const server = createServer((request, response) => {
    response.writeHead(200, { connection: "close" });
    response.end(answer(new URL(request.url ?? "", "http://host")));
  });
  const origin = await listen(server);
  try {
    await use(origin);
  } finally {
    await closeServer(server);
  }
}

// === logout

describe("logout", TOGETHER, () => {
  it("removes the profile's file, and leaves the others", () =>
    withCli(async (cli) => {
      for (const name of ["default", "other"]) await invent(cli, name, {});
      const first = await run(cli, ["logout"], { env: NOTHING_SET });
      assert.deepEqual([first.code, first.stdout], [0, ""]);
      assert.match(first.stderr, /^Removed profile default; the app stays /);
      assert.deepEqual(await readdir(cli.store), ["other.json"]);
      assert.deepEqual(cli.sandbox.requests, []);
    }));

  it("does no harm when there is nothing to remove", () =>
    withCli(async (cli) => {
      await invent(cli, "other", {});
      for (const flags of [[], ["--quiet"]]) {
        const ended = await run(cli, ["logout", ...flags]);
        assert.deepEqual([ended.code, ended.stdout], [0, ""]);
        const says = flags.length ? /^$/ : /^There is no profile default: noth/;
        assert.match(ended.stderr, says);
      }
      assert.deepEqual(await readdir(cli.store), ["other.json"]);
    }));

  it("removes a token file that --file names", () =>
    withCli(async (cli) => {
      await invent(cli, "other", {});
      const file = await cli.write("mine.tok", await cli.saved("other"));
      const { code, stderr } = await run(cli, ["logout", "--file", file]);
      assert.equal(code, 0, stderr);
      assert.deepEqual(await readdir(cli.folder), ["store"]);
      assert.deepEqual(await readdir(cli.store), ["other.json"]);
    }));

  it("removes no other file, and names it", () =>
    withCli(async (cli) => {
      await invent(cli, "other", {});
      await writeFile(`${cli.store}/bad.json`, "{");
      const key = "-----BEGIN OPENSSH PRIVATE KEY-----";
      const file = await cli.write("id_rsa", key);
      const package_ = await cli.write("package.json", '{"name":"x"}');
      for (
        const [flags, path] of [
          [["--profile", "bad"], `${cli.store}/bad.json`],
          [["--file", file], file],
          [["--file", package_], package_],
          [["--file", cli.store], cli.store],
        ] as [string[], string][]
      ) {
        const ended = await run(cli, ["logout", ...flags]);
        assertFailed(ended, 1, /is no token file, or damaged|Cannot read/);
        assert.ok(ended.stderr.includes(path), ended.stderr);
      }
      const names = ["id_rsa", "package.json", "store"];
      assert.deepEqual((await readdir(cli.folder)).sort(), names);
      const profiles = ["bad.json", "other.json"];
      assert.deepEqual((await readdir(cli.store)).sort(), profiles);
    }));

  it("makes no folder, and leaves a link that leads nowhere", () =>
    withCli(async (cli) => {
      const link = cli.path("link.json");
      await symlink("nowhere", link);
      for (const file of [cli.path("no", "such", "file"), link]) {
        const { code, stderr } = await run(cli, ["logout", "--file", file]);
        assert.equal(code, 0, stderr);
        assert.match(stderr, /nothing to remove/);
      }
      assert.deepEqual(await readdir(cli.folder), ["link.json"]);
    }));
});

// === Commands that are printed

describe("a command in a hint", POSIX, () => {
  it("starts the program as it was started, whatever its folder", () =>
    withCli(async (cli) => {
      const { stderr } = await run(cli, ["refresh", "--no-such-flag"]);
      const [, line] = /\nhint: see (.+ --help)\n$/.exec(stderr)!;
      const script = await cli.write("hint.sh", `cd /\n${line}\n`);
      const { code, stdout } = await cli.startCommand(["sh", script]).ended;
      assert.equal(code, 0);
      assert.match(stdout, /^tiktok-shop-oauth2 \d/);
    }));

  it("logs in to the profile and the file that the error was about", () =>
    withCli(async (cli) => {
      for (const [flag, value] of [["--profile", "b"], ["--file", "it's b"]]) {
        const { stderr } = await run(cli, ["token", flag!, value!]);
        const [, line] = /\nrun: (.+ login --.+)\n$/.exec(stderr)!;
        const script = await cli.write("hint.sh", `${line} --start\n`);
        const { code, stdout } = await cli.startCommand(["sh", script]).ended;
        assert.equal(code, 0);
        const { complete } = JSON.parse(stdout);
        const word = value!.replace("'", "'\\''");
        assert.ok(
          complete.includes(`${flag} ${word}`) ||
            complete.includes(`${flag} '${word}'`),
          complete,
        );
      }
    }));

  it("is quoted for cmd and for PowerShell on Windows", () =>
    withCli(async (cli) => {
      // No Windows is needed: only the name of the system differs.
      const module = JSON.stringify(new URL("../../mod.ts", import.meta.url));
      const file = await cli.write(
        "windows.mjs",
        `import process from "node:process";
        Object.defineProperty(process, "platform", { value: "win32" });
        const { main } = await import(${module});
        const files = ["C:\\\\a b\\\\", "@x", 'say "a"', "it's", "a,b", "a&b"];
        for (const secret of files) {
          await main(["login", "--start", "--app-secret-file", secret]);
        }`,
      );
      const running = cli.startCommand(runtimeCommand(file));
      const { stdout } = await running.ended;
      const lines = [...stdout.matchAll(/"complete": (".*")/g)]
        .map(([, text]) => JSON.parse(text!));
      const words = ['"C:\\a b\\\\"', '"@x"', '"say \\"a\\""', '"it\'s"']
        .concat('"a,b"', '"a&b"');
      assert.equal(lines.length, words.length);
      for (const [i, word] of words.entries()) {
        const flag = `--app-secret-file ${word}`;
        assert.ok(lines[i].includes(` ${flag} `), lines[i]);
        assert.match(lines[i], / --complete "URL"$/);
      }
    }));
});

// === Damaged profiles, and faults of ours

/** What is wrong in a token file whose access token can still be read. */
const DAMAGES: Record<string, Change> = {
  "shops-null": { meta: { shops: [null] } },
  "shops-number": { meta: { shops: 5 } },
  "shops-empty-shop": { meta: { shops: [{}] } },
  "shops-odd-shop": { meta: { shops: [{ id: 1, name: [], cipher: {} }] } },
  "shops-text": { meta: { shops: "none" } },
  "meta-texts": { meta: { app_key: 7, region: [], user_type: null } },
  "meta-times": { meta: { obtained_at: "soon", clock_offset: {} } },
  "meta-version": { meta: { version: "x" } },
  "scopes-object": { data: { granted_scopes: { a: 1 } } },
  "scopes-null": { data: { granted_scopes: [null, 1] } },
  "times-text": {
    data: { access_token_expire_in: "soon", refresh_token_expire_in: [] },
  },
  "times-null": {
    data: { access_token_expire_in: null, refresh_token_expire_in: null },
  },
  "seller-number": { data: { seller_name: 5, open_id: {}, user_type: [] } },
  "seller-null": { data: { open_id: null, seller_base_region: { a: 1 } } },
  "refresh-number": { data: { refresh_token: 5 } },
  "refresh-missing": { data: { refresh_token: undefined } },
};

describe("a damaged profile", () => {
  it("works, or is an error that names it, whatever the command", () =>
    withCli(async (cli) => {
      await seed(cli);
      const good = JSON.parse(await cli.saved());
      const texts: Record<string, string> = {
        "not-json": "{",
        "a-list": "[]",
        "no-data": '{"code":0,"data":null}',
        "no-token": '{"code":0,"data":{"access_token":7}}',
        "meta-null": JSON.stringify({ ...good, meta: null }),
        "meta-list": JSON.stringify({ ...good, meta: [null] }),
      };
      for (const [name, { data, meta }] of Object.entries(DAMAGES)) {
        texts[name] = JSON.stringify({
          ...good,
          data: { ...good.data, ...data },
          meta: { ...good.meta, ...meta },
        });
      }
      const commands = [
        ...[["status"], ["status", "--json"], ["shops"], ["token"]],
        ...[["api", "GET", "/order/202309/orders"], ["doctor"], ["refresh"]],
        ["exec", "--", process.execPath, "--version"],
      ];
      // One process for all of them: it is the same main().
      const lines = `
        import { writeFileSync } from "node:fs";
        import { main } from ${
        JSON.stringify(new URL("../../mod.ts", import.meta.url))
      };
        const { texts, commands, store } = JSON.parse(process.argv[2]);
        for (const [name, text] of Object.entries(texts)) {
          for (const args of commands) {
            writeFileSync(store + "/" + name + ".json", text, { mode: 0o600 });
            const at = args.indexOf("--");
            const words = args.toSpliced(at < 0 ? args.length : at, 0,
              "--profile", name);
            const code = await main(words);
            console.error("RAN", name, args[0], code);
          }
        }`;
      const file = await cli.write("fuzz.mjs", lines);
      const given = JSON.stringify({ texts, commands, store: cli.store });
      const running = cli.startCommand([...runtimeCommand(file), given], {
        shown: () => "", // tokens are what it prints
      });
      const { stderr } = await running.ended;
      assert.doesNotMatch(stderr, /a fault of this program|Cannot read prop/);
      const ran = [...stderr.matchAll(/^RAN (\S+) (\S+) (\d+)$/gm)];
      assert.equal(ran.length, Object.keys(texts).length * commands.length);
      const codes = new Set(ran.map(([, , , code]) => code));
      // 6: the sandbox ended the token that all of them share.
      for (const code of codes) assert.match(code!, /^[0156]$/, stderr);
    }));
});

describe("a fault of the program", () => {
  const NAMED = /^error: a fault of this program: [^\n]*\nhint: please report/;

  /** Runs main() in a way that breaks it. */
  async function broken(cli: CliFixture, args: string[]): Promise<Ended> {
    const module = JSON.stringify(new URL("../../mod.ts", import.meta.url));
    const lines = `import { main } from ${module};
      import process from "node:process";
      const args = ["status", ...process.argv.slice(2)];
      // It stands for our own mistake: no caller may pass it to main().
      args.slice = () => args.get("app_secret");
      process.exitCode = await main(args);`;
    const file = await cli.write("broken.mjs", lines);
    return await cli.startCommand([...runtimeCommand(file), ...args]).ended;
  }

  it("says that it is one and where to report it, and exits 1", () =>
    withCli(async (cli) => {
      const { code, stderr } = await broken(cli, []);
      assert.equal(code, 1);
      assert.match(stderr, NAMED);
      assert.match(stderr, /https:\/\/\S+\/issues/);
      assert.doesNotMatch(stderr, /--help/);
    }));

  it("shows its stack with --verbose", () =>
    withCli(async (cli) => {
      const { code, stderr } = await broken(cli, ["--verbose"]);
      assert.equal(code, 1);
      assert.match(stderr, NAMED);
      assert.match(stderr, /\n +at .*mod\.ts:\d+/);
    }));

  it("is not what a full disk is called", FULL, () =>
    withCli(async (cli) => {
      await seed(cli);
      const line = cliCommand(["status"]).join("' '");
      const script = await cli.write("full.sh", `'${line}' >/dev/full\n`);
      const { code, stderr } = await cli.startCommand(["sh", script]).ended;
      assert.equal(code, 1);
      assert.match(stderr, /^error: Cannot write to stdout: .*\n$/);
    }));
});
