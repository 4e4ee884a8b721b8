/** The help of every command, and the version. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import {
  type CliFixture,
  NOTHING_SET,
  withCli,
} from "../support/cli_fixture.ts";
import { ROOT, TOGETHER } from "../support/helpers.ts";
import { sharedCli } from "../support/shared_cli.ts";

/** The flags of the callback's address. */
const CALLBACK = ["port", "host", "path", "redirect-url"]
  .concat("tls-cert", "tls-key");
/** Those of each command that makes requests. */
const REQUEST = ["request-timeout", "reply-limit"];
/** Each command's own flags. */
const OWN_FLAGS: Record<string, string[]> = {
  login: [...CALLBACK, ...REQUEST, "timeout", "param", "no-browser"]
    .concat("browser", "paste", "start", "complete", "allow-missing-state")
    .concat("switch", "require-scope", "no-show", "keep-secret"),
  refresh: ["all", ...REQUEST],
  token: ["min-valid", ...REQUEST],
  status: ["min-valid"],
  shops: REQUEST,
  api: ["query", "body", "shop", "paginate", ...REQUEST],
  exec: ["min-valid", "shop", "with-secret", ...REQUEST],
  use: [],
  logout: ["app"],
  doctor: CALLBACK,
  relay: [],
  completion: [],
};
const COMMON_FLAGS = ["app-key", "app-secret-file", "service-id", "region"]
  .concat("app-secret-command", "user-type", "profile", "file")
  .concat("authorization-endpoint")
  .concat("token-endpoint", "refresh-endpoint", "api-endpoint", "env-file")
  .concat("json", "quiet", "verbose", "help", "version");

/** Lines of 80 columns, three for a flag at most. */
function assertFits(help: string): void {
  const lines = help.split("\n");
  assert.deepEqual(lines.filter((line) => line.length > 80), []);
  assert.doesNotMatch(help, /(\n {26}.*){3}/);
}

describe("the help of", TOGETHER, () => {
  const cli = sharedCli();

  for (const [command, own] of Object.entries(OWN_FLAGS)) {
    it(`${command} lists its flags within 80 columns`, async () => {
      const { stdout, stderr, code } = await cli().run([command, "--help"], {
        env: NOTHING_SET,
      });
      assert.deepEqual([stderr, code], ["", 0]);
      assertFits(stdout);
      const named = [...stdout.matchAll(/^ +(?:-\w, )?--([a-z-]+)/gm)]
        .map(([, name]) => name!);
      assert.deepEqual(named.sort(), [...own, ...COMMON_FLAGS].sort());
      const usage = `^Usage: tiktok-shop-oauth2 ${command} \\[options\\]`;
      assert.match(stdout, new RegExp(usage));
      const again = await cli().run(["help", command], { env: NOTHING_SET });
      assert.equal(again.stdout, stdout);
    });
  }

  it("the program fits a screen, however it is asked for", async () => {
    const { stdout, stderr, code } = await cli().run(["--help"]);
    assert.deepEqual([stderr, code], ["", 0]);
    assertFits(stdout);
    assert.ok(stdout.split("\n").length < 40, stdout);
    assert.match(stdout, /^Usage: tiktok-shop-oauth2 \[command\] /m);
    for (const args of [["-h"], ["help"]]) {
      assert.equal((await cli().run(args)).stdout, stdout);
    }
  });

  it("each command has examples that run", async () => {
    await withCli(async (cli) => {
      assert.equal((await cli.login()).code, 0);
      await cli.write("report.js", "console.log(1)");
      const others = Object.keys(OWN_FLAGS).filter((name) => name !== "logout");
      for (const command of [...others, "logout"]) {
        const { stdout } = await cli.run([command, "--help"]);
        const [, examples = ""] = stdout.split("\nExamples:\n");
        const lines = [...examples.matchAll(/^ {2}tiktok-shop-oauth2 (.+)$/gm)];
        assert.notEqual(lines.length, 0, command);
        for (const [, line] of lines) await runExample(cli, line!);
      }
    });
  });

  it("login starts without any setting, whatever else is wrong", async () => {
    const args = ["login", "--region", "mars", "--help"];
    const { code, stdout } = await cli().run(args, { env: NOTHING_SET });
    assert.equal(code, 0);
    assert.match(stdout, /^Usage: /m);
  });
});

/** Runs an example of the help; what it prints goes where it says. */
async function runExample(cli: CliFixture, line: string): Promise<void> {
  const args = line.replace(/ > .+/, "").split(" ");
  const isLogin = args[0] === "login" && !args.includes("--start");
  const { code, stderr } = isLogin
    ? await cli.login(args.slice(1))
    : await cli.run(args);
  // The sandbox's port is not the callback's.
  const expected = args[0] === "doctor" ? [0, 1] : [0];
  assert.ok(expected.includes(code!), `${line}: ${code} ${stderr}`);
}

describe("the version", TOGETHER, () => {
  for (const args of [["--version"], ["-V"], ["login", "--version"]]) {
    it(`is that of deno.json, shown by ${args.join(" ")}`, () =>
      withCli(async (cli) => {
        const { code, stdout, stderr } = await cli.run(args);
        const text = await readFile(`${ROOT}deno.json`, "utf8");
        assert.equal(stdout, `${JSON.parse(text).version}\n`);
        assert.equal(stderr, "");
        assert.equal(code, 0);
      }));
  }
});
