/**
 * `exec` as a process: what its command is given, how both end, and what
 * signals do to them.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { describe, it } from "node:test";
import { fileStore } from "../../mod.ts";
import { run } from "../support/asked_secrets.ts";
import {
  assertFailed,
  cliCommand,
  type CliFixture,
  withCli,
} from "../support/cli_fixture.ts";
import { quoted, runtimeCommand, TOGETHER } from "../support/helpers.ts";
import { KNOWN_SHOP, load, seed } from "../support/profiles.ts";

const POSIX = process.platform === "win32"
  ? { skip: "Windows has no sh and no signals" }
  : {};

/** Prints what it was given, and ends as it is told. */
const CHILD = `
import process from "node:process";
const { env, argv } = process;
console.log(JSON.stringify({
  token: env.TIKTOK_SHOP_ACCESS_TOKEN,
  cipher: env.TIKTOK_SHOP_SHOP_CIPHER,
  kept: env.KEPT,
  args: argv.slice(2),
}));
console.error("to stderr");
process.exitCode = Number(env.EXIT ?? 0);
`;

/** The command line that runs the child through `exec`. */
async function childOf(
  cli: CliFixture,
  args: string[] = [],
): Promise<string[]> {
  const file = await cli.write("a child.mjs", CHILD);
  return ["--", ...runtimeCommand(file), ...args];
}

describe("exec", TOGETHER, () => {
  it("runs a command with the token, and prints nothing of its own", () =>
    withCli(async (cli) => {
      const { data } = await seed(cli);
      const args = ["a b", "", '"$HOME"', "--help", "--shop", "--", "-x"];
      const ended = await run(cli, ["exec", ...await childOf(cli, args)], {
        env: { KEPT: "kept" },
        asked: "tokens",
      });
      const given = { token: data.access_token, kept: "kept", args };
      assert.deepEqual(JSON.parse(ended.stdout), given);
      assert.equal(ended.stderr, "to stderr\n");
      assert.equal(ended.code, 0);
    }));

  it("passes no cipher on that may be another shop's", () =>
    withCli(async (cli) => {
      await seed(cli);
      const env = { KEPT: undefined, TIKTOK_SHOP_SHOP_CIPHER: "stale" };
      const args = ["exec", ...await childOf(cli)];
      const { stdout } = await cli.run(args, { env });
      assert.equal(JSON.parse(stdout).cipher, undefined);
    }));

  it("sets the cipher of --shop, and that of the only shop", () =>
    withCli(async (cli) => {
      const { data, meta } = await seed(cli);
      const child = await childOf(cli);
      const env = { KEPT: undefined };
      const cipher = "GCP_m5JxAAAAAADs7tGf1hQc8w";
      const given = async (flags: string[]) => {
        const { stdout } = await cli.run(["exec", ...flags, ...child], {
          env,
        });
        return JSON.parse(stdout);
      };
      const named = await given(["--shop", "Harbour Outlet"]);
      assert.equal(named.cipher, cipher);
      assert.equal((await given([])).cipher, undefined);
      const only = { ...await load(cli), data, meta: { ...meta } };
      only.meta.shops = (await load(cli)).meta.shops!.slice(2);
      await fileStore(cli.store).save("default", only);
      assert.equal((await given([])).cipher, cipher);
    }));

  it("gives the command a token that --min-valid holds for", () =>
    withCli(async (cli) => {
      const old = await seed(cli);
      const args = ["exec", "--min-valid", "8d", ...await childOf(cli)];
      const { stdout, code } = await run(cli, args, { asked: "tokens" });
      const { token } = JSON.parse(stdout);
      assert.equal(token, (await load(cli)).data.access_token);
      assert.notEqual(token, old.data.access_token);
      assert.equal(code, 0);
    }));

  it("ends with the command's exit code", () =>
    withCli(async (cli) => {
      await seed(cli);
      const args = ["exec", ...await childOf(cli)];
      for (const code of [1, 5, 255]) {
        const env = { EXIT: String(code) };
        assert.equal((await cli.run(args, { env })).code, code);
      }
    }));

  it("hands stdin down", POSIX, () =>
    withCli(async (cli) => {
      await seed(cli);
      const input = "one\ntwo";
      const { stdout } = await run(cli, ["exec", "--", "cat"], { input });
      assert.equal(stdout, input);
    }));

  it(
    "exits 128 and the number of the signal that ended it",
    POSIX,
    () =>
      withCli(async (cli) => {
        await seed(cli);
        for (const [name, code] of [["TERM", 143], ["KILL", 137]] as const) {
          const args = ["exec", "--", "sh", "-c", `kill -${name} $$`];
          assert.equal((await run(cli, args)).code, code);
        }
      }),
  );

  it(
    "passes SIGTERM and SIGHUP on, and waits for the command",
    POSIX,
    () =>
      withCli(async (cli) => {
        await seed(cli);
        for (const name of ["SIGTERM", "SIGHUP"] as const) {
          const trap =
            `trap 'echo got; exit 7' ${name.slice(3)}; echo ready; ` +
            "while :; do sleep 0.2; done";
          const running = cli.start(["exec", "--", "sh", "-c", trap]);
          await running.until(/ready/);
          cli.signal(running, name);
          const { code, stdout } = await running.ended;
          assert.deepEqual([code, stdout], [7, "ready\ngot\n"]);
        }
      }),
  );

  it("leaves Ctrl-C to the command", POSIX, () =>
    withCli(async (cli) => {
      await seed(cli);
      const wait = "echo ready; sleep 1; exit 9";
      const running = cli.start(["exec", "--", "sh", "-c", wait]);
      await running.until(/ready/);
      cli.signal(running, "SIGINT");
      assert.equal((await running.ended).code, 9);
    }));

  it("exits 127 when there is no such command, as a shell", () =>
    withCli(async (cli) => {
      await seed(cli);
      for (const command of ["no such command", cli.path("none")]) {
        const says = new RegExp(`^error: Cannot run "${command}": .*\n$`);
        assertFailed(await run(cli, ["exec", "--", command]), 127, says);
      }
    }));

  it(
    "exits 126 when the command cannot be run, as a shell",
    POSIX,
    () =>
      withCli(async (cli) => {
        await seed(cli);
        const script = await cli.write("script", "#!/bin/sh\n", 0o600);
        for (const command of [script, cli.folder, `${script}/x`]) {
          const says = new RegExp(`^error: Cannot run "${command}": .*\n$`);
          assertFailed(await run(cli, ["exec", "--", command]), 126, says);
        }
      }),
  );

  it("ends as its command when a signal meets their whole group", {
    skip: spawnSync("setsid", ["--version"]).status !== 0 &&
      "setsid is not here",
  }, () =>
    withCli(async (cli) => {
      await seed(cli);
      const line = cliCommand(["exec", "--", "sleep", "30"]).join("' '");
      const script = await cli.write(
        "group.sh",
        `for name in TERM HUP TERM HUP TERM HUP; do\nsetsid '${line}' &\n` +
          "until pgrep -g $! sleep >/dev/null; do sleep 0.05; done\n" +
          'kill -$name -$!; wait $!; echo "ended $?"\ndone\n',
      );
      const { stdout, stderr } = await cli.startCommand(["sh", script]).ended;
      assert.doesNotMatch(stderr, /Uncaught|ESRCH|error/);
      assert.equal(stdout, "ended 143\nended 129\n".repeat(3));
    }));

  it("leaves SIGHUP ignored if it was when it began, for its command too", {
    skip: process.platform !== "linux" && "only Linux tells",
  }, () =>
    withCli(async (cli) => {
      await seed(cli);
      const child = "trap 'echo passed' TERM; echo ready; " +
        'until read line; do :; done; kill -HUP $$; echo "still here"';
      const words = cliCommand(["exec", "--", "sh", "-c", child]);
      const line = words.map(quoted).join(" ");
      const script = await cli.write(
        "nohup.sh",
        `trap "" HUP\n${line} <&3 &\necho "pid $!"\nwait $!\necho "ended $?"\n`,
      );
      const whole = ["sh", "-c", `exec 3<&0; . '${script}'`];
      const running = cli.startCommand(whole, { input: "open" });
      await running.until(/ready/);
      const [, pid] = await running.until(/pid (\d+)/);
      process.kill(Number(pid), "SIGHUP");
      // Deno handles signals late. Once this one is passed on, so is the other.
      process.kill(Number(pid), "SIGTERM");
      await running.until(/^passed$/m);
      running.child.stdin!.end("go on\n");
      const { stdout } = await running.ended;
      assert.match(stdout, /still here\nended 0\n$/);
    }));

  it("exits 2 for an unknown shop, and runs nothing", () =>
    withCli(async (cli) => {
      await seed(cli);
      const args = ["exec", "--shop", "nowhere", ...await childOf(cli)];
      assertFailed(await run(cli, args), 2, /There is no shop "nowhere"/);
    }));

  it("gives the command no shop with --shop none", () =>
    withCli(async (cli) => {
      await seed(cli, "default", { meta: { shops: [KNOWN_SHOP] } });
      for (
        const [flags, isGiven] of [[[], true], [["--shop", "none"], false]]
      ) {
        const args = ["exec", ...flags as string[], ...await childOf(cli)];
        const env = { TIKTOK_SHOP_SHOP_CIPHER: "GCP_another" };
        const { stdout } = await cli.run(args, { env });
        const { cipher } = JSON.parse(stdout) as { cipher?: string };
        assert.equal(cipher !== undefined, isGiven, String(flags));
      }
    }));
});
