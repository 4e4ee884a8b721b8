/**
 * The first runs at a terminal, before anything is configured: what a person
 * is told and asked, what is kept for next time, and how it is used then. The
 * keys of a single question are in prompt_test.ts.
 */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  type CliFixture,
  NOTHING_SET,
  withCli,
} from "../support/cli_fixture.ts";
import {
  linkOn,
  NO_TERMINAL,
  type Terminal,
  withTerminal,
} from "../support/terminal.ts";

const AT_TERMINAL = { concurrency: 2, skip: NO_TERMINAL };

/** The environment of a person who has set no app. */
function nothingSet(cli: CliFixture): Record<string, string | undefined> {
  const hosts = Object.entries(cli.sandbox.env)
    .filter(([name]) => /ENDPOINT/.test(name));
  return { ...NOTHING_SET, ...Object.fromEntries(hosts) };
}

function loginLine(cli: CliFixture, args = ""): string {
  return `tiktok-shop-oauth2 login --no-browser --port ${cli.port} ${args}`;
}

/** A person at a terminal, with nothing set. */
function atFirst(
  run: (cli: CliFixture, terminal: Terminal) => Promise<unknown>,
  env: (cli: CliFixture) => Record<string, string | undefined> = () => ({}),
): Promise<void> {
  return withCli((cli) =>
    withTerminal(
      cli,
      { ...nothingSet(cli), ...env(cli) },
      (terminal) => run(cli, terminal),
    )
  );
}

/** Answers one question after the other. */
async function answer(
  terminal: Terminal,
  ...answers: [question: RegExp, text: string][]
): Promise<void> {
  for (const [question, text] of answers) {
    await terminal.until(question);
    terminal.enter(text);
  }
}

/** The link of a login that waits. */
async function waitingLink(terminal: Terminal): Promise<URL> {
  return new URL(linkOn(await terminal.until(/Waiting for the redirect to/)));
}

const CONFIG = "config.json";

/** Where to keep the secret; a keychain is offered where there is one. */
const WHERE = /\nkeychain, file or no:$/;

describe("login at its first run", AT_TERMINAL, () => {
  it("shows a folder named by the environment without its escapes", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret, serviceId } = cli.sandbox;
      await terminal.run(loginLine(cli));
      await answer(
        terminal,
        [/App key:$/, appKey],
        [/Service id:$/, serviceId],
        [/App secret:$/, appSecret],
        [WHERE, "file"],
      );
      await fetch(await cli.decide((await waitingLink(terminal)).href));
      assert.equal((await terminal.finish()).code, 0);
      assert.ok(!terminal.raw.includes("\x1b]52"));
    }, (cli) => ({ TIKTOK_SHOP_HOME: `${cli.folder}/\x1b]52;c;QQ==\x07x` })));

  it("tells what each thing is, asks for it, and where to keep the secret", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret, serviceId } = cli.sandbox;
      await terminal.run(loginLine(cli));
      const file = `.app-${appKey}.json`;
      await answer(
        terminal,
        [/The app key has about 12 letters .*\nApp key:$/, appKey],
        [/The service id ends the .*\nService id:$/, serviceId],
        [
          new RegExp(
            `The app secret of ${appKey} .*not shown\\.\nApp secret:$`,
          ),
          appSecret,
        ],
        [
          new RegExp(
            `Keep the app secret [^]* cron can use before [^]*${file}` +
              WHERE.source,
          ),
          "file",
        ],
      );
      await fetch(await cli.decide((await waitingLink(terminal)).href));
      const { code, screen } = await terminal.finish();
      assert.equal(code, 0);
      assert.match(screen, /The app secret is kept in [^]*\(plain text\)/);
      assert.match(screen, /Authorized by Harbour & Finch/);
      assert.ok(!terminal.raw.includes(appSecret));
      assert.ok(!screen.split("\n").some((line) => line.length > 80));
      const path = join(cli.store, file);
      const text = await readFile(path, "utf8");
      const kept = { app_key: appKey, home: "file", text: appSecret };
      assert.deepEqual(JSON.parse(text), kept);
      assert.equal((await stat(path)).mode & 0o777, 0o600);
      assert.equal((await stat(cli.store)).mode & 0o777, 0o700);
      assert.deepEqual(await readdir(cli.store), [file, "default.json"]);
      const { meta } = JSON.parse(await cli.saved());
      assert.deepEqual([meta.app_key, meta.service_id], [appKey, serviceId]);
    }));

  it("asks again after another word, and never again after no", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret, serviceId } = cli.sandbox;
      await terminal.run(loginLine(cli));
      await answer(
        terminal,
        [/App key:$/, appKey],
        [/Service id:$/, serviceId],
        [/App secret:$/, appSecret],
        [WHERE, "yes"],
        [/Cannot use --keep-secret "yes": [^]*or no:$/, ""],
        [/Cannot use --keep-secret "": [^]*or no:$/, "no"],
      );
      await fetch(await cli.decide((await waitingLink(terminal)).href));
      assert.equal((await terminal.finish()).code, 0);
      await terminal.run(loginLine(cli));
      await answer(terminal, [/App secret:$/, appSecret]);
      await waitingLink(terminal);
      assert.doesNotMatch(terminal.screen, /App key:|Service id:|Keep the app/);
    }));

  const wrong = [
    "--timeout soon",
    "--path x",
    "--host a.example",
    "--region eu",
  ]
    .concat("--tls-cert a.pem", "--redirect-url x", "--token-endpoint x");
  it("refuses a wrong flag before it asks for anything", () =>
    atFirst(async (_, terminal) => {
      for (const flags of ["--port abc", ...wrong]) {
        await terminal.run(`tiktok-shop-oauth2 login --no-browser ${flags}`);
        const { code, screen } = await terminal.finish();
        assert.equal(code, 2, flags);
        assert.match(screen, /^error: [^]*\n/m);
        assert.doesNotMatch(screen, /App key/);
      }
    }));

  it("asks for the secret once, however many profiles are refreshed", () =>
    atFirst(async (cli, terminal) => {
      for (const name of ["a", "b", "c"]) {
        await cli.login(["--profile", name], { env: cli.sandbox.env });
      }
      await terminal.run("tiktok-shop-oauth2 refresh --all");
      await answer(
        terminal,
        [/App secret:$/, cli.sandbox.appSecret],
      );
      const { code, screen } = await terminal.finish();
      assert.equal(code, 0);
      assert.equal(screen.match(/"ok":true/g)?.length, 3);
      assert.equal(screen.match(/App secret/g)?.length, 1);
    }));

  it("keeps nothing of a login that is given up", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret, serviceId } = cli.sandbox;
      await terminal.run(loginLine(cli));
      await answer(
        terminal,
        [/App key:$/, appKey],
        [/Service id:$/, serviceId],
        [/App secret:$/, appSecret],
        [WHERE, "file"],
      );
      await waitingLink(terminal);
      terminal.press("C-c");
      assert.equal((await terminal.finish()).code, 130);
      assert.deepEqual(await readdir(cli.store).catch(() => []), []);
    }));

  it("asks again for whatever has the wrong shape, and says why", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret, serviceId } = cli.sandbox;
      await terminal.run(loginLine(cli));
      await answer(
        terminal,
        [/App key:$/, ""],
        [/app key is missing: .*\n?.*\nApp key:$/, serviceId],
        [/looks like a service id: [^]*\nApp key:$/, appKey],
        [/Service id:$/, appKey],
        [/is not a number: [^]*\nService id:$/, serviceId],
        [/App secret:$/, "two words"],
        [/app secret has white space [^]*\nApp secret:$/, ""],
        [/\n(.*\n){4,}App secret:$/, appSecret],
        [WHERE, "no"],
      );
      await waitingLink(terminal);
      assert.ok(!terminal.raw.includes("two words"));
    }));

  it("takes the whole authorization link, and the market from it", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret } = cli.sandbox;
      const link = "https://services.us.tiktokshop.com/open/authorize?" +
        "service_id=7412345678901234567";
      await terminal.run(loginLine(cli));
      await answer(
        terminal,
        [/App key:$/, `"${appKey}"`],
        [/app key has quotes around it: leave [^]*\nApp key:$/, appKey],
        [/Service id:$/, link],
        [/App secret:$/, appSecret],
        [WHERE, "no"],
      );
      const { host, searchParams } = await waitingLink(terminal);
      assert.equal(host, "services.us.tiktokshop.com");
      assert.equal(searchParams.get("service_id"), "7412345678901234567");
    }, () => ({ TIKTOK_SHOP_AUTHORIZATION_ENDPOINT: undefined })));

  it("needs no home for tokens that go to --file, and keeps no settings", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret, serviceId } = cli.sandbox;
      await terminal.run(`${loginLine(cli)} --file tokens.json`);
      await answer(
        terminal,
        [/App key:$/, appKey],
        [/Service id:$/, serviceId],
        [/App secret:$/, appSecret],
      );
      await fetch(await cli.decide((await waitingLink(terminal)).href));
      const { code, screen } = await terminal.finish();
      assert.equal(code, 0, screen);
      assert.doesNotMatch(screen, /Keep the app/);
      const text = await readFile(cli.path("tokens.json"), "utf8");
      assert.match(text, /"access_token"/);
    }, () => ({ HOME: undefined, TIKTOK_SHOP_HOME: undefined })));

  const questions: [name: string, answers: [RegExp, string][], last: RegExp][] =
    [
      ["the app key", [], /App key:$/],
      ["the service id", [[/App key:$/, "6f3k9d2m1x8q"]], /Service id:$/],
      [
        "the app secret",
        [[/App key:$/, "6f3k9d2m1x8q"], [/Service id:$/, "12"]],
        /App secret:$/,
      ],
      [
        "where to keep the secret",
        [
          [/App key:$/, "6f3k9d2m1x8q"],
          [/Service id:$/, "12"],
          [/App secret:$/, "0123456789abcdef"],
        ],
        WHERE,
      ],
    ];
  for (const [name, answers, last] of questions) {
    it(`ends at Ctrl-C when it asks for ${name}, and keeps nothing`, () =>
      atFirst(async (cli, terminal) => {
        await terminal.run(loginLine(cli));
        await answer(terminal, ...answers);
        await terminal.until(last);
        terminal.press("C-c");
        const { code, screen } = await terminal.finish();
        assert.equal(code, 130, screen);
        assert.match(screen, /\nCancelled\n+cli\$$/);
        assert.deepEqual(await readdir(cli.store).catch(() => []), []);
      }));
  }

  it("has its tokens though the secret cannot be kept, and says so", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret, serviceId } = cli.sandbox;
      const path = join(cli.store, `.app-${appKey}.json`);
      await mkdir(path, { mode: 0o700, recursive: true }); // in its place
      await terminal.run(`${loginLine(cli)} --keep-secret file`);
      await answer(
        terminal,
        [/App key:$/, appKey],
        [/Service id:$/, serviceId],
        [/App secret:$/, appSecret],
      );
      await fetch(await cli.decide((await waitingLink(terminal)).href));
      const { code, screen } = await terminal.finish();
      assert.equal(code, 1);
      assert.match(screen, /Authorized by Harbour[^]*\nerror: Cannot save /);
      assert.match(await cli.saved(), /"access_token"/);
    }));
});

/** Puts a config.json into the store. */
async function keep(cli: CliFixture, config: unknown): Promise<void> {
  await mkdir(cli.store, { recursive: true, mode: 0o700 });
  const text = typeof config === "string" ? config : JSON.stringify(config);
  await writeFile(join(cli.store, CONFIG), text, { mode: 0o600 });
}

describe("login at its next run", AT_TERMINAL, () => {
  it("asks for the secret alone", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, appSecret, serviceId } = cli.sandbox;
      await keep(cli, { app_key: appKey, service_id: serviceId });
      await terminal.run(loginLine(cli));
      const screen = await terminal.until(/App secret:$/);
      assert.doesNotMatch(screen, /App key:|Service id:/);
      terminal.enter(appSecret);
      await answer(terminal, [WHERE, "no"]);
      const link = await waitingLink(terminal);
      assert.equal(link.searchParams.get("service_id"), serviceId);
      await fetch(await cli.decide(link.href));
      assert.equal((await terminal.finish()).code, 0);
    }));

  it("asks for nothing if the secret is set", () =>
    atFirst(async (cli, terminal) => {
      const { appKey, serviceId } = cli.sandbox;
      await keep(cli, { app_key: appKey, service_id: serviceId });
      await terminal.run(loginLine(cli));
      await waitingLink(terminal);
      assert.doesNotMatch(terminal.screen, /(key|id|secret):|Keep the app/);
    }, ({ sandbox }) => ({ TIKTOK_SHOP_APP_SECRET: sandbox.appSecret })));
});

/** Saved settings give way to every other source. */
describe("config.json", { concurrency: 4 }, () => {
  const KEPT = { app_key: "keptkeptkept", service_id: "111", region: "us" };

  /** The link of a `--start`, with the environment of the sandbox's hosts. */
  async function linkWith(
    cli: CliFixture,
    args: string[],
    env: Record<string, string | undefined> = {},
  ): Promise<{ link: URL; line: string }> {
    const { stdout, stderr } = await cli.run(["login", "--start", ...args], {
      env: { ...NOTHING_SET, ...env },
    });
    assert.equal(stderr, "");
    const { authorize_url, complete } = JSON.parse(stdout);
    return { link: new URL(authorize_url), line: complete };
  }

  const sources: [
    name: string,
    args: string[],
    env: Record<string, string>,
    id: string,
  ][] = [
    ["is used where nothing else is set", [], {}, "111"],
    ["gives way to the environment", [], { TIKTOK_SHOP_SERVICE_ID: "2" }, "2"],
    ["gives way to a flag", ["--service-id", "333"], {}, "333"],
  ];
  for (const [name, args, env, id] of sources) {
    it(name, () =>
      withCli(async (cli) => {
        await keep(cli, KEPT);
        const { link, line } = await linkWith(cli, args, env);
        assert.equal(link.searchParams.get("service_id"), id);
        assert.equal(link.host, "services.us.tiktokshop.com");
        assert.match(line, /--app-key keptkeptkept/);
      }));
  }

  it("gives way to an env file", () =>
    withCli(async (cli) => {
      await keep(cli, KEPT);
      await cli.write(".env", "TIKTOK_SHOP_SERVICE_ID=444\n");
      const { link } = await linkWith(cli, ["--region", "row"]);
      assert.equal(link.searchParams.get("service_id"), "444");
      assert.equal(link.host, "services.tiktokshop.com");
    }));

  it("sets the app key, service id, market and kind of user alone", () =>
    withCli(async (cli) => {
      const endpoint = "https://evil.example/";
      await keep(cli, {
        ...KEPT,
        user_type: "partner",
        authorization_endpoint: endpoint,
        token_endpoint: endpoint,
        profile: "other",
        file: "/tmp/x",
      });
      const { link, line } = await linkWith(cli, []);
      assert.equal(link.host, "partner.us.tiktokshop.com");
      assert.doesNotMatch(line, /evil|other|\/tmp\/x/);
    }));

  for (const text of ["", "{", "[]", '"text"', "null"]) {
    it(`is refused if it is ${JSON.stringify(text)}`, () =>
      withCli(async (cli) => {
        await keep(cli, text);
        const { code, stdout, stderr } = await cli.run(["login"], {
          env: NOTHING_SET,
        });
        assert.equal(code, 2);
        assert.equal(stdout, "");
        assert.match(
          stderr,
          /^error: Cannot read .*store\/config\.json, which is no JSON object: /,
        );
        assert.equal(await readFile(join(cli.store, CONFIG), "utf8"), text);
      }));
  }
});
