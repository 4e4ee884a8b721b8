/**
 * What a person sees of the program on a terminal of 80 columns, and that the
 * printed instructions lead to the token where no browser opens. The screens
 * are in `.cache/screenshots/`, for people to look at. Colours, hyperlinks and
 * single keys are in prompt_test.ts.
 */
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { SandboxOptions, SandboxSeller } from "../../scripts/sandbox.ts";
import {
  type CliFixture,
  NOTHING_SET,
  withCli,
} from "../support/cli_fixture.ts";
import { ROOT } from "../support/helpers.ts";
import {
  linkOn,
  NO_TERMINAL,
  type Shown,
  type Terminal,
  withTerminal,
} from "../support/terminal.ts";

const AT_TERMINAL = { concurrency: 2, skip: NO_TERMINAL };
const SCREENS = join(ROOT, ".cache", "screenshots");

/** A person at a terminal, with the app in the environment. */
function atTerminal(
  run: (cli: CliFixture, terminal: Terminal) => Promise<unknown>,
  env: Record<string, string | undefined> = {},
  sandbox: SandboxOptions = {},
): Promise<void> {
  return withCli((cli) =>
    withTerminal(
      cli,
      { ...cli.sandbox.env, ...env },
      (terminal) => run(cli, terminal),
    ), sandbox);
}

/** Starts a login and waits for its countdown; its link. */
async function startLogin(
  cli: CliFixture,
  terminal: Terminal,
  args = "--no-browser",
): Promise<string> {
  const line = `tiktok-shop-oauth2 login --port ${cli.port} ${args}`;
  await terminal.run(line.trim());
  return linkOn(await terminal.until(/^\d+:\d\d left/m));
}

/** Keeps a screen, for people to look at. */
async function keep(name: string, { screen }: Shown): Promise<void> {
  await mkdir(SCREENS, { recursive: true });
  await writeFile(join(SCREENS, `terminal-${name}.txt`), `${screen}\n`);
}

/** Keeps a screen; asserts that it matches and that no line is cut. */
async function look(
  name: string,
  shown: Shown,
  pattern: RegExp,
): Promise<void> {
  const { screen, lines } = shown;
  await keep(name, shown);
  assert.match(screen, pattern);
  for (const line of lines) {
    // Only what cannot be broken: links, tokens, pasted text.
    // A long word keeps its own line, and a command stays one to be copied.
    if (line.length > 80) assert.match(line, /\S{43,}|^run: /, line);
  }
}

/** A screen that begins by the wait and goes on by these lines. */
function afterWait(...lines: string[]): RegExp {
  return new RegExp(
    [
      "^cli\\$ tiktok-shop-oauth2 login --port \\d+ --no-browser",
      "Open this link to authorize the app:",
      "",
      "http\\S{76}",
      "\\S+",
      "",
      "Waiting for the redirect to http://localhost:\\d+/",
      "If the browser cannot open it, paste its address here",
      ...lines,
    ].join("\n"),
  );
}

describe("login on a terminal", AT_TERMINAL, () => {
  it("shows the link, what it waits for and how long", () =>
    atTerminal(async (cli, terminal) => {
      await startLogin(cli, terminal);
      await look(
        "waiting",
        terminal,
        afterWait("\\d:\\d\\d left, Ctrl-C cancels$"),
      );
    }));

  it("shows how it ended, and then TikTok's reply", () =>
    atTerminal(async (cli, terminal) => {
      const link = await startLogin(cli, terminal);
      await fetch(await cli.decide(link));
      const ended = await terminal.finish();
      assert.equal(ended.code, 0);
      await look(
        "success",
        ended,
        afterWait(
          "Redirect received, getting the tokens",
          '{\n  "code": 0,[^]*\n}',
          "Authorized by Harbour & Finch, saved to[ \n]/.*default.json",
          `  (.|\n)+${broken(" token")}`,
          `  (.|\n)+${broken(" shops")}`,
          "cli\\$$",
        ),
      );
    }));

  it("explains a wrong paste, and takes the right one", () =>
    atTerminal(async (cli, terminal) => {
      const link = await startLogin(cli, terminal);
      const redirect = await cli.decide(link);
      terminal.enter(redirect.replace("state=", "state=x"));
      await terminal.until(/printed last\n\d:\d\d left/);
      await look("wrong-paste", terminal, /The redirect belongs to ano/);
      terminal.enter(redirect);
      const ended = await terminal.finish();
      assert.equal(ended.code, 0);
      await look("paste", ended, /\}\nAuthorized by Harbour & Finch, /);
    }));

  it("asks about a redirect without state, and takes a yes", () =>
    atTerminal(async (cli, terminal) => {
      const redirect = new URL(
        await cli.decide(await startLogin(cli, terminal)),
      );
      redirect.searchParams.delete("state");
      await fetch(redirect);
      const question = afterWait(
        "A redirect without state is held: it may be forged",
        "Nothing proves that this code belongs to your login. Did you approve" +
          " the app",
        "yourself, just now, at the link above\\? \\[y/N\\]$",
      );
      await terminal.until(/y\/N\]$/);
      await look("missing-state", terminal, question);
      terminal.enter("y");
      assert.equal((await terminal.finish()).code, 0);
    }));

  it("shows that the seller denied it", () =>
    atTerminal(async (cli, terminal) => {
      const link = await startLogin(cli, terminal);
      await fetch(await cli.decide(link, { deny: true }));
      const ended = await terminal.finish();
      assert.equal(ended.code, 3);
      await look(
        "denied",
        ended,
        afterWait(
          'error: The seller denied the app access: "auth_denied"',
          "hint: ask the shop's owner to approve the app, then log in again",
          // One line, which the terminal breaks wherever its width is reached.
          `run: (.|\n)+${broken(" login --port ")}[\\d\n]+` +
            broken(" --no-browser"),
          "cli\\$$",
        ),
      );
    }));

  it("shows that nothing came in time", () =>
    atTerminal(async (cli, terminal) => {
      const args = "--timeout 1 --no-browser";
      await terminal.run(
        `tiktok-shop-oauth2 login --port ${cli.port} ${args}`,
      );
      const ended = await terminal.finish();
      assert.equal(ended.code, 4);
      await look(
        "timeout",
        ended,
        /\nerror: Timed out after 1 s .*\nhint: check that the app's redirect/,
      );
    }));

  it("shows where the tokens of another seller are kept", () =>
    atTerminal(
      async (cli, terminal) => {
        await fetch(await cli.decide(await startLogin(cli, terminal)));
        assert.equal((await terminal.finish()).code, 0);
        const link = await startLogin(cli, terminal);
        await fetch(await cli.decide(link, { seller: 1 }));
        const ended = await terminal.finish();
        assert.equal(ended.code, 0);
        await look(
          "other-seller",
          ended,
          /another seller's[^"]*"tea-house"[^]* --\s*profile\s*tea-house\s/,
        );
      },
      {},
      { sellers: [sellerNamed("Harbour & Finch"), sellerNamed("Tea House")] },
    ));

  it("has no countdown and no escape sequence in a pipe", () =>
    atTerminal(async (cli, terminal) => {
      const line = `tiktok-shop-oauth2 login --port ${cli.port} --no-browser`;
      await terminal.run(`${line} --timeout 1 2>errors.txt`);
      assert.equal((await terminal.finish()).code, 4);
      const text = await readFile(cli.path("errors.txt"), "utf8");
      // deno-lint-ignore no-control-regex -- that is what is looked for
      assert.doesNotMatch(text, /[\x00-\x09\x0b-\x1f]| left/);
      assert.match(text, /^Open this link to authorize the app:\n\nhttp/);
      assert.match(
        text,
        /\n\nWaiting for the redirect to \S+\nerror: .*\nhint/,
      );
    }));
});

function sellerNamed(name: string): SandboxSeller {
  const openId = `7010a${name.replaceAll(/\W/g, "")}`;
  return { openId, name, region: "GB", userType: 0, scopes: [], shops: [] };
}

// === Without a browser

const SSH = {
  SSH_CONNECTION: "203.0.113.7 50000 198.51.100.4 22",
  USER: "ana",
};

describe("login without a browser", AT_TERMINAL, () => {
  it("leads a person over SSH to the token by what it prints", () =>
    atTerminal(async (cli, terminal) => {
      const link = await startLogin(cli, terminal, "");
      await terminal.until(/cannot be opened\.\n\d:\d\d left/);
      const ssh = `ssh -L ${cli.port}:localhost:${cli.port}`;
      await look(
        "ssh",
        terminal,
        new RegExp(
          `You are on a remote machine\\. Open the link[^]*\n\n  ${ssh} -l ana ` +
            "198\\.51\\.100\\.4\n\nOr approve without it, and paste here the " +
            "address of the page",
        ),
      );
      // The person's own browser cannot open the redirect; its address can.
      terminal.enter(await cli.decide(link));
      assert.equal((await terminal.finish()).code, 0);
      assert.match(await cli.saved(), /"access_token"/);
    }, SSH));

  it("names another port of the SSH server", () =>
    atTerminal(async (cli, terminal) => {
      await startLogin(cli, terminal, "");
      await terminal.until(/ -l ana -p 2222 fd00::4\n/);
    }, { ...SSH, SSH_CONNECTION: "fd00::7 50000 fd00::4 2222" }));

  it("leads a person in a container to the token as well", () =>
    atTerminal(async (cli, terminal) => {
      const link = await startLogin(cli, terminal, "");
      await terminal.until(/pasting\.\)\n\d:\d\d left/);
      await look(
        "container",
        terminal,
        /You are in a container\. Open the link/,
      );
      terminal.enter(await cli.decide(link));
      assert.equal((await terminal.finish()).code, 0);
    }, { container: "podman" }));

  it("goes in two steps, and the second step asks", () =>
    atTerminal(async (cli, terminal) => {
      await terminal.run(
        "tiktok-shop-oauth2 login --start --port " +
          `${cli.port} >started.json`,
      );
      assert.equal((await terminal.finish()).code, 0);
      const started = await readFile(cli.path("started.json"), "utf8");
      const redirect = await cli.decide(JSON.parse(started).authorize_url);
      await terminal.run("tiktok-shop-oauth2 login --complete -");
      await terminal.until(/\nAddress that the browser was sent to:$/);
      terminal.enter(redirect);
      const ended = await terminal.finish();
      assert.equal(ended.code, 0);
      await look(
        "complete",
        ended,
        /\}\nAuthorized by Harbour & Finch, saved to/,
      );
    }));

  it("confirms a bare code in the second step", () =>
    atTerminal(async (cli, terminal) => {
      const { stdout } = await cli.run(["login", "--start"]);
      const redirect = await cli.decide(JSON.parse(stdout).authorize_url);
      const code = new URL(redirect).searchParams.get("code");
      const line = `tiktok-shop-oauth2 login --complete '${code}'`;
      await terminal.run(line);
      await terminal.until(/\[y\/N\]$/);
      terminal.enter("");
      const refused = await terminal.finish();
      assert.equal(refused.code, 1);
      assert.match(refused.screen, /The code came without state/);
      await terminal.run(line);
      await terminal.until(/\[y\/N\]$/);
      terminal.enter("yes");
      assert.equal((await terminal.finish()).code, 0);
    }));
});

// === The other commands

describe("the program on a terminal", AT_TERMINAL, () => {
  /** Runs a command and keeps its screen. */
  async function show(
    terminal: Terminal,
    command: string,
    pattern: RegExp,
  ): Promise<number> {
    await terminal.run(`tiktok-shop-oauth2 ${command}`);
    const ended = await terminal.finish();
    const name = command.replaceAll(/[\d\W]+/g, " ").trim();
    await look(name.replaceAll(" ", "-"), ended, pattern);
    return ended.code;
  }

  it("shows the profiles as a table", () =>
    atTerminal(async (cli, terminal) => {
      await cli.login();
      assert.equal(await show(terminal, "status", STATUS), 0);
    }));

  for (const columns of [40, 80, 120, 200]) {
    it(`fits ${columns} columns, and breaks no word`, () =>
      atTerminal(async (cli, terminal) => {
        terminal.resize(columns);
        const args = "--no-browser --no-show";
        await fetch(await cli.decide(await startLogin(cli, terminal, args)));
        const ended = await terminal.finish();
        await keep(`login-${columns}`, ended);
        assertWhole(ended, columns);
        assert.match(ended.screen, /\nAuthorized by Harbour & Finch,/);
        assert.doesNotMatch(ended.screen, /access_token/);
        for (const [name, seller_name] of Object.entries(LONG_NAMES)) {
          const tokens = JSON.parse(await cli.saved());
          tokens.data.seller_name = seller_name;
          await writeFile(`${cli.store}/${name}.json`, JSON.stringify(tokens));
        }
        await terminal.run("tiktok-shop-oauth2 status");
        const shown = await terminal.finish();
        await keep(`status-${columns}`, shown);
        const [, head = "", ...rows] = shown.lines.slice(0, -1);
        assert.match(head, /^GRANT +ACCESS +PROFILE +SELLER/);
        // Each profile has one line, and its columns stand below their names.
        assert.equal(rows.length, 1 + Object.keys(LONG_NAMES).length);
        assert.deepEqual(shown.screen.split("\n").length, rows.length + 3);
        assert.equal(head.endsWith("SCOPES"), columns >= 80);
        assert.equal(shown.screen.includes("…"), columns <= 80);
      }));
  }

  it("shows what doctor found, as a table", () =>
    atTerminal(async (cli, terminal) => {
      const found = /\nok {7}app key {7}6f3k[^]*\nwarning {2}machine {7}has no/;
      const port = `${cli.port}`;
      assert.equal(await show(terminal, `doctor --port ${port}`, found), 0);
    }));

  it("shows its help", () =>
    atTerminal(async (_, terminal) => {
      const help = /\nUsage: tiktok-shop-oauth2 \[command\] \[options\]\n/;
      assert.equal(await show(terminal, "--help | head -45", help), 0);
    }));

  const wrong: [command: string, code: number, pattern: RegExp][] = [
    ["logn", 2, /\nerror: Unknown command "logn": did you mean login\?\nhint/],
    [
      "login --tiemout 5",
      2,
      /\nerror: Unknown flag --tiemout for login: did you mean --timeout\?\nhint/,
    ],
    [
      "token",
      5,
      /\nerror: There are no tokens under profile "default"\nhint: /,
    ],
    ["login --port 3017-3016", 2, /\nerror: Cannot listen on port "3017-3016"/],
  ];
  for (const [command, code, pattern] of wrong) {
    it(`explains what is wrong with "${command}"`, () =>
      atTerminal(async (_, terminal) => {
        assert.equal(await show(terminal, command, pattern), code);
      }));
  }

  it("explains that no app is known, if nobody can be asked", () =>
    atTerminal(async (_, terminal) => {
      const line = "login </dev/null";
      const pattern = /\nerror: Missing settings: TIKTOK_SHOP_APP/;
      assert.equal(await show(terminal, line, pattern), 2);
    }, NOTHING_SET));
});

/** A pattern of a text that the terminal may break anywhere. */
function broken(text: string): string {
  return [...text].join("\n?").replaceAll(" ", "[ \n]");
}

/** Names that are long, wide, or made of emoji with joiners. */
const LONG_NAMES = {
  german: "Donaudampfschifffahrtsgesellschaft mbH & Co. KG, Wien",
  japan: "東京ストア株式会社オンライン本店",
  emoji: "👩‍💻 Développeurs 👨‍👩‍👧 & Cie",
};

/** That no word of a screen is broken but what no screen is wide enough for. */
function assertWhole({ screen, lines }: Shown, columns: number): void {
  const words = new Set(screen.split(/\s+/));
  for (const line of lines) {
    // A command stays one line, to be copied.
    if (/^(cli\$| {2})/.test(line)) continue;
    for (const word of line.split(/\s+/)) {
      assert.ok(
        !word || words.has(word) || word.length > columns,
        `${word}: ${screen}`,
      );
    }
  }
}

const STATUS = new RegExp([
  "GRANT     ACCESS  PROFILE    SELLER           REGION  TYPE    SECRET  SCOPES",
  "99y 364d  6d 23h  \\* default  Harbour & Finch  GB      seller  no      4",
  "cli\\$$",
].join("\n"));
