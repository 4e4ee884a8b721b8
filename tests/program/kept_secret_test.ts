/**
 * Where the app secret comes from, where it is kept, and that nothing else is
 * needed from then on. The keychain's part is in keychain_test.ts.
 */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { startSandbox } from "../../scripts/sandbox.ts";
import {
  assertFailed,
  assertUsageError,
  cliCommand,
  type CliFixture,
  NOTHING_SET,
  withCli,
} from "../support/cli_fixture.ts";
import { freePort, NO_WINDOWS, quoted, TOGETHER } from "../support/helpers.ts";
import {
  AT_HOME,
  homeStore,
  hostFlags,
  runBare,
  secretFile,
  sevenDaysLater,
} from "../support/kept.ts";
import { seed } from "../support/profiles.ts";

const SHELL = { ...TOGETHER, ...NO_WINDOWS };

const NO_SECRET = { TIKTOK_SHOP_APP_SECRET: undefined };

/** A first login that keeps the secret in a file. */
async function keepInFile(cli: CliFixture): Promise<void> {
  const args = ["--keep-secret", "file"];
  const { code, stderr } = await cli.login(args, { env: AT_HOME });
  assert.equal(code, 0, stderr);
}

/** An expired profile, and a refresh with what is given. */
async function refreshed(
  cli: CliFixture,
  args: string[],
  env: Record<string, string | undefined> = {},
) {
  await seed(cli, "default", { left: -1 });
  return await cli.run(["token", ...args], { env: { ...NO_SECRET, ...env } });
}

// === Where it comes from

describe("the app secret comes from", SHELL, () => {
  it("the first line of what --app-secret-command prints", () =>
    withCli(async (cli) => {
      const { appSecret } = cli.sandbox;
      const file = await cli.write("a secret", `${appSecret}\nuser: me\n`);
      const command = `cat "${file}"`;
      const { code, stdout } = await refreshed(
        cli,
        ["--app-secret-command", command],
      );
      assert.equal(code, 0);
      assert.match(stdout, /^ROW_\S+\n$/);
    }));

  it("a command in the environment, or in an env file that is named", () =>
    withCli(async (cli) => {
      const file = await cli.write("secret", cli.sandbox.appSecret);
      const name = "TIKTOK_SHOP_APP_SECRET_COMMAND";
      const command = `sh -c 'cat "${file}" | tr -d x'`;
      const one = await refreshed(cli, [], { [name]: command });
      assert.equal(one.code, 0, one.stderr);
      const env = await cli.write("my.env", `${name}="cat '${file}'"\n`);
      const other = await refreshed(cli, ["--env-file", env]);
      assert.equal(other.code, 0, other.stderr);
    }));

  it("a file, before a command, before the environment, before what is kept", () =>
    withCli(async (cli) => {
      const { appKey, appSecret } = cli.sandbox;
      const good = await cli.write("good", appSecret);
      const bad = await cli.write("bad", "wrong");
      await mkdir(cli.store, { mode: 0o700 });
      const kept = (secret: string) =>
        writeFile(
          secretFile(cli, cli.store),
          JSON.stringify({ app_key: appKey, home: "file", text: secret }),
        );
      const file = (path: string) => ["--app-secret-file", path];
      const command = (path: string) => [
        "--app-secret-command",
        `cat ${quoted(path)}`,
      ];
      const text = (secret: string) => ({ TIKTOK_SHOP_APP_SECRET: secret });
      const dotEnv = (secret: string) =>
        cli.write(".env", `TIKTOK_SHOP_APP_SECRET=${secret}\n`);
      await kept("wrong");
      await dotEnv("wrong");
      const works = async (...given: Parameters<typeof refreshed>) => {
        const { code, stderr } = await refreshed(...given);
        assert.equal(code, 0, stderr);
      };
      await works(cli, [...file(good), ...command(bad)], text("wrong"));
      await works(cli, command(good), text("wrong"));
      await works(cli, [], text(appSecret));
      await dotEnv(appSecret);
      await works(cli, []);
      await cli.write(".env", "");
      await kept(appSecret);
      await works(cli, []);
    }));

  it("nothing that is not needed: a valid token needs none", () =>
    withCli(async (cli) => {
      await seed(cli, "default", { left: 3600 });
      const { code, stdout } = await cli.run(
        ["token", "--app-secret-command", "no-such-command"],
        { env: NO_SECRET },
      );
      assert.equal(code, 0);
      assert.match(stdout, /^ROW_/);
    }));

  const failures: [name: string, command: string, says: RegExp][] = [
    [
      "is not there",
      "no-such-command x",
      /with "no-such-command": exit code 127/,
    ],
    [
      "fails",
      "sh -c 'echo why >&2; echo half; exit 3'",
      /with "sh": exit code 3/,
    ],
    ["prints nothing", "true", /with "true": it printed nothing/],
    ["prints an empty line", "echo", /with "echo": it printed nothing/],
  ];
  for (const [name, command, says] of failures) {
    it(`no command that ${name}`, () =>
      withCli(async (cli) => {
        const args = ["--app-secret-command", command];
        const ended = await refreshed(cli, args);
        assertFailed(ended, 1, says);
        assert.match(ended.stderr, /hint: run that command by itself/);
        assert.doesNotMatch(ended.stderr, /half/);
        // What the command says is for the person.
        if (name === "fails") assert.match(ended.stderr, /^why\n/);
        assert.equal(cli.sandbox.requests.length, 1);
      }));
  }

  it("no command that prints two words", () =>
    withCli(async (cli) => {
      const args = ["--app-secret-command", "echo two words"];
      assertUsageError(await refreshed(cli, args), /has white space in it/);
    }));

  it("no endless output of a command, and the rest of it is not read", () =>
    withCli(async (cli) => {
      const args = ["--app-secret-command", "sh -c 'yes | head -c 9000000'"];
      const { code, stderr } = await refreshed(cli, args);
      // "y" is no secret of TikTok's, but all that can be said of it.
      assert.equal(code, 6, stderr);
    }));

  it("a command that is ended by Ctrl-C at the latest", () =>
    withCli(async (cli) => {
      await seed(cli, "default", { left: -1 });
      const command = "sh -c 'echo waiting >&2; exec sleep 1000'";
      const running = cli.start(
        ["token", "--app-secret-command", command],
        { env: NO_SECRET },
      );
      await running.until(/waiting/);
      cli.signal(running, "SIGINT");
      const { code, took } = await running.ended;
      assert.equal(code, 130);
      assert.ok(took < 25_000, `${took} ms`);
    }));
});

// === Where it must not go

describe("a kept secret", SHELL, () => {
  it("goes to no host and no command of a .env that nobody named", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      await sevenDaysLater(homeStore(cli));
      const spy = await startSandbox({
        redirectUrl: `http://localhost:${await freePort()}/`,
      });
      try {
        const lines = [
          `TIKTOK_SHOP_TOKEN_ENDPOINT=${spy.tokenEndpoint}`,
          `TIKTOK_SHOP_REFRESH_ENDPOINT=${spy.refreshEndpoint}`,
          `TIKTOK_SHOP_API_ENDPOINT=${spy.apiEndpoint}`,
          "TIKTOK_SHOP_APP_SECRET_COMMAND=touch stolen",
          "TIKTOK_SHOP_HOME=.",
          "TIKTOK_SHOP_TOKEN_FILE=mine.json",
        ];
        for (const line of lines) {
          await cli.write(".env", `${line}\n`);
          for (const words of [["token"], ["refresh"], ["shops"]]) {
            const ended = await cli.run(words, {
              env: { ...NOTHING_SET, ...AT_HOME },
            });
            assertUsageError(ended, /from the \.env of this folder unasked/);
          }
        }
        assert.equal(spy.requests.length, 0);
        assert.ok(!(await readdir(cli.folder)).includes("stolen"));
      } finally {
        await spy.stop();
      }
    }));

  it("is not sent with the app key that such a .env names", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      await sevenDaysLater(homeStore(cli));
      await cli.write(".env", "TIKTOK_SHOP_APP_KEY=evil12345678\n");
      const before = cli.sandbox.requests.length;
      const ended = await runBare(cli, ["token"]);
      assert.equal(ended.code, 2, ended.stderr);
      assert.match(ended.stderr, /Missing settings|belongs to the app key/);
      assert.equal(cli.sandbox.requests.length, before);
    }));

  it("is a file of its owner's that no version lists as a profile", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      const path = secretFile(cli);
      assert.equal((await stat(path)).mode & 0o777, 0o600);
      const { stdout } = await runBare(cli, ["status", "--json"]);
      const list = JSON.parse(stdout);
      assert.equal(list.length, 1);
      assert.equal(list[0].app_secret, "file");
    }));

  it("is told where it is, as plain text, when it is kept", () =>
    withCli(async (cli) => {
      const args = ["--keep-secret", "file"];
      const { stderr } = await cli.login(args, { env: AT_HOME });
      const path = secretFile(cli);
      assert.ok(
        stderr.includes(`The app secret is kept in ${path} (plain text)\n`),
        stderr,
      );
    }));

  it("is gone after --keep-secret no", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      await cli.login(["--keep-secret", "no"], { env: AT_HOME });
      const text = await readFile(secretFile(cli), "utf8");
      assert.ok(!text.includes(cli.sandbox.appSecret));
      await sevenDaysLater(homeStore(cli));
      assertUsageError(
        await runBare(cli, ["token"]),
        /Missing settings: TIKTOK_SHOP_APP_SECRET, --app-secret-file FILE or /,
      );
    }));

  it("is not kept if the login fails, nor under an odd app key", () =>
    withCli(async (cli) => {
      const args = ["--keep-secret", "file"];
      const wrong = { ...AT_HOME, TIKTOK_SHOP_APP_SECRET: "wrong" };
      const failed = await cli.login(args, { env: wrong });
      assert.equal(failed.code, 6);
      assert.deepEqual(await readdir(homeStore(cli)), []);
      const { code, stderr } = await cli.run(
        ["login", "--keep-secret", "anywhere"],
      );
      assert.equal(code, 2);
      assert.match(stderr, /Cannot use --keep-secret "anywhere": use keychain/);
    }));

  it("survives two logins at once, whole", () =>
    withCli(async (cli) => {
      const args = ["--keep-secret", "file"];
      for (const turn of [1, 2]) {
        const { authorize_url: link } = JSON.parse(
          (await cli.run(
            ["login", "--start", ...cli.portFlag([]), "--profile", `p${turn}`],
          )).stdout,
        );
        cli.knowStateOf(link);
        const url = await cli.decide(link);
        await cli.write(`url${turn}`, url);
      }
      const ends = await Promise.all([1, 2].map(async (turn) => {
        const url = await readFile(cli.path(`url${turn}`), "utf8");
        const complete = ["--complete", url, "--profile", `p${turn}`];
        return await cli.run(["login", ...complete, ...args]);
      }));
      for (const { code, stderr } of ends) assert.equal(code, 0, stderr);
      const text = await readFile(secretFile(cli, cli.store), "utf8");
      assert.deepEqual(JSON.parse(text), {
        app_key: cli.sandbox.appKey,
        home: "file",
        text: cli.sandbox.appSecret,
      });
    }));
});

// === Nothing else is needed

describe("after a login that keeps the secret", SHELL, () => {
  it("every command works seven days later with HOME and PATH alone", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      const commands: [words: string[], says: RegExp][] = [
        [["token"], /^ROW_\S+\n$/],
        [["refresh"], /"access_token"/],
        [["refresh", "--all"], /"ok":true/],
        [["api", "GET", "/authorization/202309/shops"], /"code": 0/],
        [["shops"], /^ID +NAME/],
        [
          ["exec", "--", "sh", "-c", "echo $TIKTOK_SHOP_ACCESS_TOKEN"],
          /^ROW_\S+\n$/,
        ],
      ];
      for (const [words, says] of commands) {
        await sevenDaysLater(homeStore(cli));
        const { code, stdout, stderr } = await runBare(cli, words);
        assert.equal(code, 0, stderr);
        assert.match(stdout, says);
      }
      assert.equal(
        cli.sandbox.count(new URL(cli.sandbox.refreshEndpoint).pathname),
        commands.length,
      );
    }));

  it("the next login needs no more either", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      const running = cli.startCommand([
        ...["env", "-i", `HOME=${cli.folder}`, `PATH=${process.env.PATH}`],
        ...cliCommand(["login", "--no-browser", ...cli.portFlag([])]),
        ...["--authorization-endpoint", cli.sandbox.authorizationEndpoint],
        ...hostFlags(cli, "login"),
      ]);
      const { link, ended } = await cli.linkOf(running);
      await fetch(await cli.decide(link));
      const { code, stderr } = await ended;
      assert.equal(code, 0, stderr);
    }));

  it("several apps are refreshed, each with its own secret", () =>
    withCli(async (cli) => {
      const redirectUrl = `http://localhost:${await freePort()}/`;
      const other = await startSandbox({
        redirectUrl,
        appKey: "us9f3k2m1x8q",
        appSecret: "f00dfeedf00dfeedf00dfeedf00dfeedf00dfeed",
      });
      try {
        await keepInFile(cli);
        const { stdout, code } = await runBare(cli, ["refresh", "--all"]);
        assert.equal(code, 0);
        assert.equal(stdout.split("\n").length, 2);
        // The other app's profile, and what is kept of it.
        const us = { ...cli, sandbox: other, store: homeStore(cli) };
        await seed(us as CliFixture, "us", { left: -1 });
        await writeFile(
          join(homeStore(cli), `.app-${other.appKey}.json`),
          JSON.stringify({
            app_key: other.appKey,
            home: "file",
            text: other.appSecret,
          }),
        );
        const both = await runBare(cli, ["refresh", "--all"]);
        // The hosts are two here, so each takes its own app alone.
        assert.match(both.stdout, /"profile":"default","ok":true/);
        assert.match(both.stdout, /"profile":"us","ok":false/);
        const [sent] = cli.sandbox.requests.slice(-2)
          .filter(({ query }) => query.app_key === other.appKey);
        assert.equal(sent?.query.app_secret, other.appSecret);
        // The app that the environment names is not meant for both.
        const env = { ...cli.sandbox.env, ...AT_HOME };
        const named = await cli.run(["refresh", "--all"], { env });
        assert.match(named.stdout, /"profile":"default","ok":true/);
        assert.doesNotMatch(named.stdout, /belongs to the app key/);
      } finally {
        await other.stop();
      }
    }));

  it("exec gives a server key and secret with --with-secret alone", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      const show = [
        ...["--", "sh", "-c"],
        'echo "$TIKTOK_SHOP_APP_KEY $TIKTOK_SHOP_APP_SECRET" > env.txt',
      ];
      const { appKey, appSecret } = cli.sandbox;
      const shown = async (args: string[], env?: typeof NO_SECRET) => {
        const { code, stderr } = env
          ? await cli.run(["exec", ...args], { env: { ...AT_HOME, ...env } })
          : await runBare(cli, ["exec", ...args]);
        assert.equal(code, 0, stderr);
        return await readFile(cli.path("env.txt"), "utf8");
      };
      assert.equal(
        await shown(["--with-secret", ...show]),
        `${appKey} ${appSecret}\n`,
      );
      assert.equal(await shown(show), " \n");
      // Not from our own environment either, where it was not asked for.
      assert.equal(await shown(show, {} as typeof NO_SECRET), `${appKey} \n`);
    }));

  it("logout says that the secret stays, and logout --app forgets the app", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      const path = secretFile(cli);
      const one = await runBare(cli, ["logout"]);
      assert.match(one.stderr, /^Removed profile default; /);
      assert.ok(one.stderr.includes(`stays in ${path} (plain text); `));
      const line = /forget it: .* (logout --app --app-key \S+)\n$/
        .exec(one.stderr)![1]!;
      const two = await runBare(cli, line.split(" "));
      assert.match(two.stderr, /Forgot the app 6f3k9d2m1x8q and its secret\n/);
      const three = await runBare(cli, line.split(" "));
      assert.match(three.stderr, /Nothing is kept of the app 6f3k9d2m1x8q\n/);
      assert.deepEqual(await readdir(homeStore(cli)), []);
      const none = await runBare(cli, ["logout", "--app"]);
      assertUsageError(
        { ...none, stderr: none.stderr.replace(/^There is no.*\n/, "") },
        /Cannot tell which app to forget: pass --app-key KEY/,
      );
    }));

  it("logout --app forgets the settings that version 1.0.0 kept, too", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      const path = join(homeStore(cli), "config.json");
      const kept = { app_key: cli.sandbox.appKey, service_id: "1", other: 1 };
      await writeFile(path, JSON.stringify(kept));
      const { code } = await runBare(cli, ["logout", "--app"]);
      assert.equal(code, 0);
      assert.deepEqual(JSON.parse(await readFile(path, "utf8")), { other: 1 });
    }));

  it("doctor tells where each value comes from, and where the secret is", () =>
    withCli(async (cli) => {
      await keepInFile(cli);
      const { stdout } = await runBare(cli, ["doctor", "--json"]);
      const found = Object.fromEntries(
        JSON.parse(stdout).map((
          { check, message }: { check: string; message: string },
        ) => [check, message]),
      );
      const { appKey, serviceId, appSecret } = cli.sandbox;
      assert.equal(found["app key"], `${appKey}, from the profile`);
      assert.equal(found["service id"], `${serviceId}, from the profile`);
      const path = secretFile(cli);
      assert.equal(found["app secret"], `is set, from ${path} (plain text)`);
      assert.ok(!stdout.includes(appSecret.slice(0, 6)));
      const args = ["--app-secret-command", "cat secret", "--region", "us"];
      await cli.write("secret", appSecret);
      await cli.write(".env", "TIKTOK_SHOP_SERVICE_ID=12\n");
      const env = { ...AT_HOME, TIKTOK_SHOP_SERVICE_ID: undefined };
      const other = await cli.run(["doctor", ...args], { env });
      assert.match(other.stdout, /app secret +is set, from "cat"\n/);
      assert.match(other.stdout, /app key +\w+, from the environment\n/);
      assert.match(other.stdout, /service id +12, from the env file\n/);
      const link = other.stdout.replace(/\s+/g, " ");
      assert.match(
        link,
        /region us .* region from the command line; user-type/,
      );
    }));
});

// === Profiles

describe("use", TOGETHER, () => {
  it("makes a profile the default, which status marks, until its logout", () =>
    withCli(async (cli) => {
      await seed(cli, "default");
      const us = await seed(cli, "us", { seller: 1 });
      const { code, stdout, stderr } = await cli.run(["use", "us"]);
      assert.deepEqual([code, stdout], [0, ""]);
      assert.match(stderr, /^Profile us is used where no other is named\n$/);
      const token = await cli.run(["token"]);
      assert.equal(token.stdout.trim(), us.data.access_token);
      const table = (await cli.run(["status"])).stdout;
      assert.match(table, / \* us /);
      assert.match(table, / {2}default {2}/);
      const ended = await cli.run(["logout"]);
      assert.match(
        ended.stderr,
        /Removed profile us; .*\nWhere no profile is named, default is used again\n/,
      );
      assert.match((await cli.run(["status"])).stdout, / \* default /);
    }));

  it("gives way to --profile, to its variable and to --file", () =>
    withCli(async (cli) => {
      const { data } = await seed(cli, "default");
      await seed(cli, "us", { seller: 1 });
      await cli.run(["use", "us"]);
      const file = await cli.write("t.json", await cli.saved());
      for (
        const [args, env] of [
          [["--profile", "default"], {}],
          [[], { TIKTOK_SHOP_PROFILE: "default" }],
          [["--file", file], {}],
        ] as const
      ) {
        const { stdout } = await cli.run(["token", ...args], { env });
        assert.equal(stdout.trim(), data.access_token);
      }
    }));

  it("and any other command names the profiles there are", () =>
    withCli(async (cli) => {
      for (const name of ["eu", "us"]) await seed(cli, name);
      const commands = [["use", "uk"], ["token", "--profile", "uk"]];
      commands.push(["status", "--profile", "uk"], ["shops"]);
      for (const words of commands) {
        const ended = await cli.run(words);
        assertFailed(ended, 5, /There are no tokens .*: there are eu, us\n/);
      }
      assertUsageError(await cli.run(["use", "../x"]), /profile name/);
    }));
});

describe("login --profile", TOGETHER, () => {
  it("takes that profile's app, market and kind of user", () =>
    withCli(async (cli) => {
      await seed(cli, "default");
      await seed(cli, "us", {
        meta: {
          ...{ app_key: "us9f3k2m1x8q", service_id: "99", region: "us" },
          user_type: "partner",
        },
      });
      const linkOf = async (args: string[], env = {}) => {
        const { stdout } = await cli.run(["login", "--start", ...args], {
          env: { ...NOTHING_SET, ...env },
        });
        return JSON.parse(stdout);
      };
      const us = await linkOf(["--profile", "us"]);
      assert.equal(
        us.authorize_url.split("&state")[0],
        "https://partner.us.tiktokshop.com/open/authorize?service_id=99",
      );
      assert.match(us.complete, /--app-key us9f3k2m1x8q /);
      // What is kept of one app is not mixed with another one.
      const other = { TIKTOK_SHOP_APP_KEY: "other1234567" };
      const { code, stderr } = await cli.run(
        ["login", "--start", "--profile", "us"],
        { env: { ...NOTHING_SET, ...other } },
      );
      assert.equal(code, 2);
      assert.match(stderr, /The service id is missing/);
    }));

  it("takes the default one's app for a new profile", () =>
    withCli(async (cli) => {
      const { serviceId } = cli.sandbox;
      await seed(cli, "default", { meta: { service_id: serviceId } });
      const { stdout } = await cli.run(
        ["login", "--start", "--profile", "new"],
        { env: NOTHING_SET },
      );
      const { authorize_url: link } = JSON.parse(stdout);
      assert.equal(new URL(link).searchParams.get("service_id"), serviceId);
    }));
});
