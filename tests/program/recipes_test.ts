/**
 * The README's recipes for access that stays alive, each run as it stands. The
 * tools of others that are not here (op, pass, vault, gh, docker) have
 * stand-ins, which do what the recipe needs of them.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { copyFile, mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import {
  cliCommand,
  type CliFixture,
  NOTHING_SET,
  withCli,
} from "../support/cli_fixture.ts";
import {
  NO_WINDOWS,
  quoted,
  ROOT,
  TOGETHER,
  writeProgram,
} from "../support/helpers.ts";
import { AT_HOME, homeStore, sevenDaysLater } from "../support/kept.ts";

const [, SECTION = ""] = readFileSync(join(ROOT, "README.md"), "utf8")
  .split("## Access that stays alive");

/** The fences of the section in this language, in order. */
function fences(language: string): string[] {
  const [section = ""] = SECTION.split("\n## ");
  const fence = new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``, "g");
  return [...section.matchAll(fence)].map(([, text]) => text!);
}

/** A folder of programs, with ours, which finds the sandbox by itself. */
async function binOf(
  cli: CliFixture,
  standIns: Record<string, string> = {},
): Promise<string> {
  const bin = cli.path("bin");
  await mkdir(bin, { recursive: true });
  const { refreshEndpoint, apiEndpoint } = cli.sandbox;
  const hosts = `TIKTOK_SHOP_REFRESH_ENDPOINT=${refreshEndpoint} ` +
    `TIKTOK_SHOP_API_ENDPOINT=${apiEndpoint}`;
  const ours = `exec env ${hosts} ${cliCommand([]).map(quoted).join(" ")} "$@"`;
  const all = { "tiktok-shop-oauth2": ours, ...standIns };
  for (const [name, script] of Object.entries(all)) {
    writeProgram(join(bin, name), `#!/bin/sh\n${script}\n`);
  }
  return bin;
}

/** Runs a line of sh with a home, a PATH and nothing else. */
function sh(
  cli: CliFixture,
  bin: string,
  line: string,
  env: Record<string, string> = {},
) {
  const all = { HOME: cli.folder, PATH: `${bin}:${process.env.PATH}`, ...env };
  const words = Object.entries(all).map((pair) => pair.join("="));
  const command = ["env", "-i", ...words, "sh", "-c", line];
  return cli.startCommand(command, { env: NOTHING_SET }).ended;
}

/** A login seven days ago that kept its secret as it is told. */
async function loginOnce(cli: CliFixture, home: string): Promise<void> {
  const args = ["--keep-secret", home];
  const { code, stderr } = await cli.login(args, { env: AT_HOME });
  assert.equal(code, 0, stderr);
  await sevenDaysLater(homeStore(cli));
}

/** Asserts that the recipe has refreshed, and saved what it got. */
async function assertRefreshed(
  cli: CliFixture,
  file = join(homeStore(cli), "default.json"),
): Promise<void> {
  const path = new URL(cli.sandbox.refreshEndpoint).pathname;
  assert.equal(cli.sandbox.count(path), 1);
  const { data } = JSON.parse(await readFile(file, "utf8"));
  assert.ok(data.access_token_expire_in > Date.now() / 1000);
  const [sent] = cli.sandbox.requests
    .filter(({ query }) => query.refresh_token);
  // The sandbox rotates them: the old one is dead.
  assert.notEqual(data.refresh_token, sent!.query.refresh_token);
}

describe("the README's recipe for", { ...TOGETHER, ...NO_WINDOWS }, () => {
  it("cron keeps the access alive", () =>
    withCli(async (cli) => {
      await loginOnce(cli, "file");
      const bin = await binOf(cli);
      const [crontab = ""] = fences("crontab");
      const [, path] = /^PATH=(.*)$/m.exec(crontab)!;
      const [, line] = /^17 \*\/6 \* \* \* (.*)$/m.exec(crontab)!;
      const { code, stderr, stdout } = await sh(cli, bin, line!, {
        PATH: `${path!.replace("/usr/local/bin", bin)}:${process.env.PATH}`,
        SHELL: "/bin/sh",
        LOGNAME: "nobody",
      });
      assert.deepEqual([code, stderr], [0, ""]);
      assert.match(stdout, /"ok":true/);
      await assertRefreshed(cli);
    }));

  it("systemd keeps the access alive", () =>
    withCli(async (cli) => {
      await loginOnce(cli, "file");
      const bin = await binOf(cli);
      const paths: string[] = [];
      for (const unit of fences("ini")) {
        const [, name] = /^# .*\/(.*)\n/.exec(unit)!;
        paths.push(await cli.write(name!, unit));
      }
      const verified = spawnSync("systemd-analyze", [
        "verify",
        "--user",
        "--man=no",
        ...paths,
      ], {
        encoding: "utf8",
        env: { ...process.env, HOME: cli.folder, XDG_RUNTIME_DIR: cli.folder },
      });
      if (!verified.error) assert.equal(verified.stderr, "");
      const [, line] = /^ExecStart=(.*)$/m.exec(fences("ini")[0]!)!;
      const { code, stderr } = await sh(cli, bin, line!);
      assert.deepEqual([code, stderr], [0, ""]);
      await assertRefreshed(cli);
    }));

  it("Docker takes the secret from a mounted file", () =>
    withCli(async (cli) => {
      await loginOnce(cli, "no");
      const secret = await cli.write("app-secret", cli.sandbox.appSecret);
      const data = cli.path("data");
      await mkdir(data);
      await copyFile(
        join(homeStore(cli), "default.json"),
        `${data}/default.json`,
      );
      // It runs what follows the image, with the variables of -e; the two
      // mounts are the paths on the left.
      const bin = await binOf(cli, {
        docker: `
          while [ "$1" != YOUR-IMAGE ]; do
            case "$1$2" in -e*) export "\${2%%=*}=$DATA";; esac
            shift
          done
          shift
          eval "set -- $(echo "$*" | sed "s|/run/secrets/|'$MOUNTED'/|")"
          exec "$@"`,
      });
      const [recipe = ""] = fences("sh");
      const { code, stderr, stdout } = await sh(cli, bin, recipe, {
        DATA: data,
        MOUNTED: join(secret, ".."),
      });
      assert.equal(code, 0, stderr);
      assert.match(stdout, /"ok":true/);
      await assertRefreshed(cli, `${data}/default.json`);
    }));

  it("GitHub Actions restores the tokens, refreshes and saves them", () =>
    withCli(async (cli) => {
      await loginOnce(cli, "no");
      const bin = await binOf(cli, { gh: 'cat > "$HOME/saved-$3.json"' });
      const [yaml = ""] = fences("yaml");
      const tokens = await readFile(
        join(homeStore(cli), "default.json"),
        "utf8",
      );
      const known: Record<string, string> = {
        TIKTOK_SHOP_APP_SECRET: cli.sandbox.appSecret,
        TIKTOK_SHOP_TOKENS: tokens,
        GH_TOKEN: "x",
      };
      const env: Record<string, string> = {};
      const all = /^ +([A-Z_]+): (.*)$/gm;
      for (const [, name, value] of yaml.matchAll(all)) {
        const [, secret] = /secrets\.(\w+)/.exec(value!) ?? [];
        env[name!] = secret ? known[secret]! : value!;
      }
      const steps = [...yaml.matchAll(/^ +- run: (.*)$/gm)];
      assert.equal(steps.length, 3);
      for (const [, line] of steps) {
        const { code, stdout, stderr } = await sh(cli, bin, line!, env);
        assert.deepEqual([code, stdout, stderr], [0, "", ""]);
      }
      await assertRefreshed(cli, cli.path("saved-TIKTOK_SHOP_TOKENS.json"));
    }));

  it("1Password, pass and Vault asks them for the secret", () =>
    withCli(async (cli) => {
      await loginOnce(cli, "no");
      const file = await cli.write("vault", cli.sandbox.appSecret);
      const asked = (words: string) =>
        `[ "$*" = "${words}" ] && cat ${quoted(file)}`;
      const bin = await binOf(cli, {
        op: asked("read op://Work/TikTok/secret"),
        pass: asked("show tiktok-shop/secret"),
        vault: asked("kv get -field=secret kv/tiktok"),
      });
      const lines = fences("sh")[1]!.trim().split("\n");
      assert.equal(lines.length, 3);
      for (const line of lines) {
        const { code, stdout, stderr } = await sh(cli, bin, line);
        assert.equal(code, 0, stderr);
        assert.match(stderr, /^(Refreshed 1 of 1 profiles\n)?$/);
        assert.match(stdout, /"ok":true/);
      }
      const path = new URL(cli.sandbox.refreshEndpoint).pathname;
      assert.equal(cli.sandbox.count(path), 3);
    }));
});
