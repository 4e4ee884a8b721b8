/**
 * Usage errors of every command: exit code 2, nothing on stdout, and one
 * sentence that says what is wrong. No request is made.
 */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { describe, it } from "node:test";
import {
  assertFailed,
  assertUsageError,
  withCli,
} from "../support/cli_fixture.ts";
import { TOGETHER } from "../support/helpers.ts";
import { seed } from "../support/profiles.ts";
import { sharedCli } from "../support/shared_cli.ts";

const REFRESH = "/api/v2/token/refresh";
const SEARCH = "/order/202309/orders/search";
const ECHO = "/echo/202309/x";

describe("an error with --json", TOGETHER, () => {
  it("is one line of JSON, and nothing is on stdout", () =>
    withCli(async (cli) => {
      for (
        const [args, kind, code] of [
          [["login", "--port", "x"], "usage", 2],
          [["token"], "login_required", 5],
        ] as const
      ) {
        const ended = await cli.run([...args, "--json"]);
        assert.deepEqual([ended.code, ended.stdout], [code, ""]);
        assert.match(ended.stderr, /^\{.*\}\n$/);
        const { error } = JSON.parse(ended.stderr);
        assert.equal(error.kind, kind);
        assert.ok(error.message && error.hint, ended.stderr);
      }
    }));

  it("has TikTok's code and request id", () =>
    withCli(async (cli) => {
      assert.equal((await cli.login()).code, 0);
      const call = ["api", "GET", "/no/202309/such", "--json"];
      const { stderr, code } = await cli.run(call);
      const { error } = JSON.parse(stderr);
      assert.deepEqual([code, error.kind, error.code], [
        6,
        "rejected",
        36009009,
      ]);
      assert.match(error.request_id, /^\w+$/);
    }));

  it("is not what a command after -- was told", () =>
    withCli(async (cli) => {
      const { stderr } = await cli.run(["exec", "--", "x", "--json"]);
      assert.match(stderr, /^error: There are no tokens/);
    }));
});

// === Login

/** What is wrong, told by a name, arguments and the start of the message. */
const LOGIN_ERRORS: [name: string, args: string[], message: RegExp][] = [
  [
    "an unknown command",
    ["logn"],
    /Unknown command "logn": did you mean login\?/,
  ],
  [
    "an unknown flag",
    ["login", "--prot", "1"],
    /Unknown flag --prot for login/,
  ],
  ["a command like none", ["x"], /Unknown command "x": use login, refresh, /],
  ["a flag with two slips", ["--tmeout=1"], /did you mean --timeout\?/],
  ["an unknown short flag", ["-p", "1"], /Unknown flag -p for login/],
  ["an argument", ["login", "now"], /Unexpected argument "now" for login/],
  ["an argument after --", ["login", "--", "x"], /Unexpected argument "--"/],
  ["no value at the end", ["--port"], /Missing the value of --port: give N/],
  [
    "no value before a flag",
    ["--port", "--quiet"],
    /Missing the value of --po/,
  ],
  ["an empty value", ["--profile="], /Missing the value of --profile/],
  ["an empty argument", ["--file", ""], /Missing the value of --file/],
  [
    "a flag twice",
    ["--profile", "a", "--profile=a"],
    /--profile is given twice: give it once/,
  ],
  ["a switch twice", ["--quiet", "--quiet"], /--quiet is given twice/],
  ["a switch's value", ["--paste=yes"], /--paste takes no value/],
  ["a switch's argument", ["--switch", "yes"], /Unexpected argument "yes"/],
  ["a key as service id", ["--service-id", "6f3k9d2m1x8q"], /is not a number/],
  ["a key with a space", ["--app-key", "a b"], /The app key .* white space/],
  ["port 0", ["--port", "0"], /Cannot listen on port "0": use 1 to 65535/],
  ["a port too high", ["--port", "65536"], /Cannot listen on port "65536"/],
  ["a port's name", ["--port", "http"], /Cannot listen on port "http"/],
  ["a range backwards", ["--port", "20-10"], /Cannot listen on port "20-10"/],
  [
    "a port that browsers refuse",
    ["--port", "6000"],
    /Cannot use port 6000: b/,
  ],
  ["a range with one", ["--port", "5055-5065"], /Cannot use port 5060: brow/],
  [
    "a port that browsers refuse in --start",
    ["login", "--start", "--port", "10080"],
    /Cannot use port 10080: browsers refuse/,
  ],
  [
    "a redirect URL that browsers refuse",
    ["--redirect-url", "http://127.0.0.1:2049/"],
    /Cannot use port 2049: browsers refuse/,
  ],
  ["a foreign host", ["--host", "0.0.0.0"], /Cannot use the host "0.0.0.0"/],
  ["a path's name", ["--path", "back"], /Cannot use the path "back": use "\//],
  ["a path's query", ["--path", "/?a"], /Cannot use the path "\/\?a"/],
  ["no time", ["--timeout", "0"], /Cannot read the duration "0": use 90/],
  ["a unit of time", ["--timeout", "1w"], /Cannot read the duration "1w"/],
  ["time below zero", ["--timeout=-1"], /Cannot read the duration "-1"/],
  ["too much time", ["--timeout", "25d"], /Cannot wait longer than 24 days/],
  ["a region", ["--region", "eu"], /Cannot use --region "eu": use row or us/],
  ["a user type", ["--user-type", "shop"], /Cannot use --user-type "shop"/],
  ["a profile's path", ["--profile", "../x"], /Cannot use the profile name/],
  ["a profile's name", ["--profile", "config"], /Cannot use the profile name/],
  ["a parameter", ["--param", "lang"], /Cannot read --param "lang": write na/],
  ["a nameless one", ["--param", "=en"], /Cannot read --param "=en"/],
  ["a parameter of ours", ["--param", "state=1"], /Cannot set "state": the l/],
  ["half a certificate", ["--tls-key", "k"], /--tls-cert and --tls-key go to/],
  [
    "a certificate that is not there",
    ["--tls-key", "k", "--tls-cert", "c"],
    /Cannot read the TLS certificate c: /,
  ],
  ...["authorization", "token"].flatMap((name) => endpointErrors(name)),
];

function endpointErrors(name: string): typeof LOGIN_ERRORS {
  const cannot = new RegExp(`Cannot use the ${name} endpoint "`);
  return [
    ["http://shop.example/", "over http"],
    ["shop.example", "without a scheme"],
    ["file:///etc/passwd", "that is a file"],
    ["https://me:hunter2@shop.example/", "with a password"],
    ["https://shop.example/#here", "with a fragment"],
  ].map(([url, what]) => [
    `an ${name} endpoint ${what}`,
    [`--${name}-endpoint`, url!],
    cannot,
  ]);
}

describe("login exits 2 on", TOGETHER, () => {
  for (const [name, args, message] of LOGIN_ERRORS) {
    it(name, () =>
      withCli(async (cli) => {
        const ended = await cli.run(args);
        assertUsageError(ended, message);
        assert.ok(!ended.stderr.includes("hunter2"), ended.stderr);
        assert.deepEqual(cli.sandbox.requests, []);
      }));
  }

  for (const flag of ["--app-secret", "--secret", "--app_secret"]) {
    it(`the secret after ${flag}, and does not repeat it`, () =>
      withCli(async (cli) => {
        const { appSecret } = cli.sandbox;
        for (const args of [[flag, appSecret], [`${flag}=${appSecret}`]]) {
          const ended = await cli.run(["login", ...args]);
          assertUsageError(ended, /Cannot take the app secret as a flag, .*: /);
        }
      }));
  }

  const variables: [name: string, value: string][] = [
    ["REGION", "eu"],
    ["USER_TYPE", "shop"],
    ["PROFILE", "a/b"],
    ["SERVICE_ID", "6f3k9d2m1x8q"],
    ["TOKEN_ENDPOINT", "http://shop.example/"],
  ];
  for (const [name, value] of variables) {
    it(`a wrong TIKTOK_SHOP_${name}`, () =>
      withCli(async (cli) => {
        const env = { [`TIKTOK_SHOP_${name}`]: value };
        assertUsageError(await cli.run(["login"], { env }), /error: /);
      }));
  }
});

// === Logins in two steps

const TWO_STEP_ERRORS: [args: string[], message: RegExp][] = [
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
  [
    ["--start", "--tls-cert", "cert.pem"],
    /--tls-cert and --tls-key go together/,
  ],
  [["--start=yes"], /--start takes no value/],
  [["--complete"], /Missing the value of --complete/],
  [["--complete", "a", "--complete", "b"], /--complete is given twice/],
];

describe("login in two steps exits 2 on", TOGETHER, () => {
  const cli = sharedCli();

  for (const [args, message] of TWO_STEP_ERRORS) {
    it(args.join(" "), async () => {
      assertFailed(await cli().run(["login", ...args]), 2, message);
      assert.deepEqual(await readdir(cli().store).catch(() => []), []);
    });
  }
});

// === The other commands

/** Arguments that cannot be meant, and the start of what is said. */
const COMMAND_ERRORS: [args: string[], message: RegExp][] = [
  [["refresh", "now"], /Unexpected argument "now" for refresh: write .* refr/],
  [["refresh", "--min-valid", "5m"], /--min-valid belongs to token, not to re/],
  [["refresh", "--all", "--all"], /--all is given twice/],
  [["refresh", "--all=yes"], /--all takes no value/],
  [["token", "default"], /Unexpected argument "default" for token/],
  [["token", "--min-valid"], /Missing the value of --min-valid: give TIME/],
  [["token", "--min-valid", "soon"], /Cannot read the duration "soon": use 90/],
  [["token", "--min-valid", "1w"], /Cannot read the duration "1w"/],
  [["token", "--min-valid=-1"], /Cannot read the duration "-1"/],
  [["token", "--profile", "../x"], /Cannot use the profile name "\.\.\/x"/],
  [
    ["token", "--min-valid=8d", "--refresh-endpoint=http://evil.example"],
    /Cannot use the refresh endpoint "http:\/\/evil.example"/,
  ],
  [["status", "--min-valid", "soon"], /Cannot read the duration "soon"/],
  [["status", "all"], /Unexpected argument "all" for status/],
  [["status", "--all"], /--all belongs to refresh, not to status/],
  [["shops", "GB"], /Unexpected argument "GB" for shops/],
  [["shops", "--shop", "1"], /--shop belongs to api, not to shops/],
  [
    ["shops", "--api-endpoint", "http://evil.example"],
    /Cannot use the API endpoint "http:\/\/evil.example"/,
  ],
  [["api"], /Missing arguments: write .*mod\.m?[jt]s'? api METHOD PATH/],
  [["api", "GET"], /Missing arguments: write .*mod\.m?[jt]s'? api METHOD PATH/],
  [["api", "GET", ECHO, "x"], /Unexpected argument "x" for api: write .* api /],
  [["api", ECHO, "GET"], /Cannot call with the method "\/ECHO\/202309\/X"/],
  [["api", "PSOT", ECHO], /Cannot call with the method "PSOT": use GET, POST/],
  [["api", "GET", "echo"], /Cannot call the path "echo": it starts with "\/"/],
  [["api", "GET", "https://evil.example/x"], /Cannot call the path "https:/],
  [["api", "GET", ECHO, "--body", "{}"], /Cannot send a body with GET: use t/],
  [["api", "POST", ECHO, "--body", "@gone"], /Cannot read the body from gone/],
  [["api", "GET", ECHO, "--query", "a"], /Cannot read --query "a": write nam/],
  [["api", "GET", ECHO, "--query", "=a"], /Cannot read --query "=a"/],
  [["api", "GET", ECHO, "--query=a=1", "--query=a=2"], /--query a is given tw/],
  [["api", "GET", SEARCH, "--shop", "nowhere"], /There is no shop "nowhere"/],
  [["exec"], /Missing arguments: write .*mod\.m?[jt]s'? exec -- CMD \.\.\./],
  [["exec", "--"], /Missing arguments: write .*mod\.m?[jt]s'? exec -- CMD/],
  [["exec", "env"], /Unexpected argument "env" for exec: write .* exec -- CMD/],
  [["exec", "env", "--", "x"], /Unexpected argument "env" for exec/],
  [["exec", "--all", "--", "env"], /--all belongs to refresh, not to exec/],
  [["logout", "default"], /Unexpected argument "default" for logout/],
  [["logout", "--all"], /--all belongs to refresh, not to logout/],
  [["logout", "--profile", "a", "--profile", "b"], /--profile is given twice/],
  [["relay", "3017"], /Unexpected argument "3017" for relay/],
  [["doctor", "--timeout", "5"], /--timeout belongs to login, not to doctor/],
];

describe("a command exits 2 on", TOGETHER, () => {
  for (const [args, message] of COMMAND_ERRORS) {
    it(args.join(" "), () =>
      withCli(async (cli) => {
        await seed(cli);
        const ended = await cli.run(args);
        assertFailed(ended, 2, message);
        assert.match(
          ended.stderr,
          /^error: [^\n]+\nhint: see [^\n]+ --help\n$/,
        );
        assert.equal(cli.sandbox.count(REFRESH), 0);
        assert.equal(cli.sandbox.count(ECHO), 0);
      }));
  }
});
