/** The help of every command, and the version. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { NOTHING_SET, withCli } from "../support/cli_fixture.ts";
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
    .concat("switch", "require-scope"),
  refresh: ["all", ...REQUEST],
  token: ["min-valid", ...REQUEST],
  status: ["min-valid"],
  shops: REQUEST,
  api: ["query", "body", "shop", "paginate", ...REQUEST],
  exec: ["min-valid", "shop", ...REQUEST],
  logout: [],
  doctor: CALLBACK,
  relay: [],
};
const COMMON_FLAGS = ["app-key", "app-secret-file", "service-id", "region"]
  .concat("user-type", "profile", "file", "authorization-endpoint")
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
      const named = [...stdout.matchAll(/^ +--([a-z-]+)/gm)]
        .map(([, name]) => name!);
      assert.deepEqual(named.sort(), [...own, ...COMMON_FLAGS].sort());
      assert.match(stdout, /^Usage: tiktok-shop-oauth2 \[command\] /m);
      assert.match(stdout, new RegExp(`^${command}[ .A-Z-]*: \\w`, "m"));
    });
  }

  it("no command is shown by --help, within 80 columns", async () => {
    const { stdout, stderr, code } = await cli().run(["--help"]);
    assert.deepEqual([stderr, code], ["", 0]);
    assertFits(stdout);
    assert.match(stdout, /^Usage: tiktok-shop-oauth2 \[command\] /m);
  });

  it("login starts without any setting, whatever else is wrong", async () => {
    const args = ["login", "--region", "mars", "--help"];
    const { code, stdout } = await cli().run(args, { env: NOTHING_SET });
    assert.equal(code, 0);
    assert.match(stdout, /^Usage: /m);
  });
});

describe("the version", TOGETHER, () => {
  for (const args of [["--version"], ["login", "--version"]]) {
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
