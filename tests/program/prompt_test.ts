/**
 * The program's `login` at a terminal: what it asks, what it hides, what may
 * be pasted, the countdown and the colours. The terminal is made by script(1)
 * or by Python's pty module; where neither is, these tests are skipped.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import process from "node:process";
import { describe, it } from "node:test";
import {
  cliCommand,
  type CliFixture,
  NOTHING_SET,
  type RunOptions,
  withCli,
} from "../support/cli_fixture.ts";
import { isListening, quoted, type Running } from "../support/helpers.ts";

// === A terminal

/** The command that runs a line of sh at a terminal of its own. */
type TerminalMaker = (line: string) => string[];

const PYTHON = "import pty, sys; pty.spawn(['sh', '-c', sys.argv[1]])";

function terminalMaker(): TerminalMaker | undefined {
  if (process.platform === "win32") return undefined;
  const { stdout } = spawnSync("script", ["--version"], { encoding: "utf8" });
  if (/util-linux/.test(stdout ?? "")) {
    return (line) => ["script", "-qec", line, "/dev/null"];
  }
  const python = spawnSync("python3", ["-c", "import pty, termios"]);
  return python.status === 0
    ? (line) => ["python3", "-c", PYTHON, line]
    : undefined;
}

const MAKER = terminalMaker();
const AT_TERMINAL = {
  concurrency: 4,
  ...(MAKER ? {} : { skip: "neither script(1) nor Python's pty is here" }),
};

/** The program at a terminal, and the keyboard in front of it. */
interface Session extends Running {
  /** Types, or pastes; Enter is `\r`. */
  type(text: string): void;
  /** Waits for a question, then answers it. */
  answer(question: RegExp, text: string): Promise<void>;
  /** Waits for the end. */
  finish(): Promise<Finished>;
}

interface Finished {
  code: number;
  /** All that the terminal showed. */
  screen: string;
  /** The program's stdout, which went to a file. */
  reply: string;
}

const ENDED = /ended by (\d+)\r?\n([\s\S]*)/;

/** Starts the program at a terminal; stdout goes to a file. */
function sitDown(
  cli: CliFixture,
  args: string[] = [],
  options: RunOptions & { redirection?: string; bare?: boolean } = {},
): Session {
  const usual = options.bare
    ? ["login", ...args]
    : ["login", "--no-browser", ...cli.portFlag(args), ...args];
  const command = cliCommand(usual).map(quoted).join(" ");
  const { redirection = ">reply.json" } = options;
  // The trap keeps the shell alive, to tell how the program ended.
  const line = `trap : INT; ${command} ${redirection}; ` +
    'echo "ended by $?"; stty -a';
  const typed: string[] = [];
  const running = cli.startCommand(MAKER!(line), {
    ...options,
    env: {
      ...{ SHELL: "/bin/sh", TERM: "xterm", NO_COLOR: undefined },
      ...options.env,
    },
    input: "open",
    shown: (screen) => withoutTyped(screen, typed),
  });
  return sessionOf(cli, running, typed);
}

function sessionOf(
  cli: CliFixture,
  running: Running,
  typed: string[],
): Session {
  const type = (text: string) => {
    typed.push(text.trim());
    running.child.stdin!.write(text);
  };
  const answer = async (question: RegExp, text: string) => {
    await running.until(question);
    type(text);
  };
  const finish = async () => {
    const { stdout } = await running.ended;
    const [all, code, modes] = ENDED.exec(stdout) ?? [];
    assert.match(modes!, / echo /, "the terminal no longer echoes");
    assert.match(modes!, / icanon /, "the terminal is still raw");
    const reply = await readFile(cli.path("reply.json"), "utf8");
    const screen = stdout.slice(0, -all!.length);
    return { code: Number(code), screen, reply };
  };
  return { ...running, type, answer, finish };
}

/** What the program showed: not the links, not the echo of the keyboard. */
function withoutTyped(screen: string, typed: string[]): string {
  const plain = screen.replace(HYPERLINK, "").replaceAll("\r\n", "\n");
  const rest = plain.replace(/^https?:\S+$/gm, "");
  // A hidden answer is never shown, so it is not taken out.
  const echoed = typed.filter((text) => /^https?:|^\w+_[\w+/=-]+$/.test(text));
  return echoed.reduce((text, one) => text.replaceAll(one, ""), rest);
}

// deno-lint-ignore no-control-regex -- that is what a hyperlink is made of
const HYPERLINK = /\x1b\]8;;.*?\x1b\\/g;

/** A session that has printed its link. */
async function linkOf(cli: CliFixture, session: Session): Promise<string> {
  await session.until(/Waiting for the redirect to /);
  const text = session.output.stdout.replace(HYPERLINK, "");
  const link = /^http\S+authorize\S+/m.exec(text)![0];
  cli.knowStateOf(link);
  return link;
}

/** The redirect of a session, approved but not opened. */
async function redirectOf(cli: CliFixture, session: Session): Promise<URL> {
  return new URL(await cli.decide(await linkOf(cli, session)));
}

function assertDone({ code, reply, screen }: Finished): void {
  assert.equal(code, 0, screen);
  assert.equal(JSON.parse(reply).message, "success");
  assert.match(screen, /Authorized by Harbour & Finch/);
}

// === Questions

/** Where to keep the secret; a keychain is offered where there is one. */
const WHERE = /keychain, file or no: $/;

describe("login asks at a terminal", AT_TERMINAL, () => {
  it("for what is missing, and hides the secret", () =>
    withCli(async (cli) => {
      const { appKey, appSecret, serviceId, env } = cli.sandbox;
      const session = sitDown(cli, [], { env: onlyHosts(env) });
      await session.answer(/App key: $/, `${appKey}\r`);
      await session.answer(/Service id: $/, `${serviceId}\r`);
      const typo = appSecret.replace("b", "xy\x7f\x7fb");
      await session.answer(/App secret: $/, `oops\x15${typo}\r`);
      await session.answer(WHERE, "no\r");
      await fetch(await redirectOf(cli, session));
      const ended = await session.finish();
      assertDone(ended);
      assert.match(ended.screen, new RegExp(`App key: ${appKey}\r\n`));
      assert.match(ended.screen, /App secret: \r\n/);
    }));

  it("for the secret alone if nothing else is missing", () =>
    withCli(async (cli) => {
      const env = { TIKTOK_SHOP_APP_SECRET: undefined };
      const session = sitDown(cli, [], { env });
      await session.answer(/App secret: $/, `${cli.sandbox.appSecret}\r`);
      await session.answer(WHERE, "no\r");
      await fetch(await redirectOf(cli, session));
      const ended = await session.finish();
      assertDone(ended);
      assert.doesNotMatch(ended.screen, /App key:|Service id/);
    }));

  it("for the secret, and hides it, with --app-secret-file -", () =>
    withCli(async (cli) => {
      const session = sitDown(cli, ["--app-secret-file", "-"]);
      await session.answer(/App secret: $/, `${cli.sandbox.appSecret}\r`);
      await session.answer(WHERE, "no\r");
      await fetch(await redirectOf(cli, session));
      assertDone(await session.finish());
    }));

  it("again if an answer cannot be right, and says why", () =>
    withCli(async (cli) => {
      const env = { TIKTOK_SHOP_SERVICE_ID: undefined };
      const session = sitDown(cli, [], { env });
      await session.answer(/Service id: $/, "\r");
      await session.answer(/id is missing.*\s+Service id: $/, "6f3k9d2m1x8q\r");
      await session.answer(/is not a number.*\s+Service id: $/, "12\r");
      const { searchParams } = new URL(await linkOf(cli, session));
      assert.equal(searchParams.get("service_id"), "12");
      session.type("\x03");
      assert.equal((await session.finish()).code, 130);
    }));

  it("for the secret, and drops what a terminal adds to it", () =>
    withCli(async (cli) => {
      const { appSecret } = cli.sandbox;
      const [start, end] = [appSecret.slice(0, 9), appSecret.slice(9)];
      const typed = [
        `\x1b[200~${appSecret}\x1b[201~\r`,
        `${start}\x1b[D\x1b[1;5C\x1bOP\x1b[[A${end}\r`,
        `\x1b]11;rgb:0/0/0\x07${start}\x1b]0;x\x1b\\${end}\x1b[3~\r`,
        `wrong\x17${start}\x1bP1$r\x1b\\x\x7f${end}\x1b\r`,
      ];
      for (const text of typed) {
        const session = sitDown(cli, ["--app-secret-file", "-"]);
        await session.until(/App secret: $/);
        // In pieces, as a slow line brings it.
        for (const piece of text.match(/[^]{1,3}/g)!) {
          session.child.stdin!.write(piece);
          await new Promise((resolve) => setTimeout(resolve, 3));
        }
        if (text === typed[0]) await session.answer(WHERE, "no\r");
        await fetch(await redirectOf(cli, session));
        assertDone(await session.finish());
      }
    }));

  it("once: the profile knows the app, and the file its secret", () =>
    withCli(async (cli) => {
      const { appKey, appSecret, serviceId, env } = cli.sandbox;
      const session = sitDown(cli, [], { env: onlyHosts(env) });
      await session.answer(/App key: $/, `${appKey}\r`);
      await session.answer(/Service id: $/, `${serviceId}\r`);
      await session.answer(/App secret: $/, `${appSecret}\r`);
      await session.answer(WHERE, "file\r");
      await fetch(await redirectOf(cli, session));
      assertDone(await session.finish());
      const again = sitDown(cli, [], { env: onlyHosts(env) });
      await fetch(await redirectOf(cli, again));
      const ended = await again.finish();
      assertDone(ended);
      assert.doesNotMatch(ended.screen, /App|Service|Keep/);
    }));

  it("nothing if stderr is no terminal", () =>
    withCli(async (cli) => {
      const { env } = cli.sandbox;
      const redirection = ">reply.json 2>errors.txt";
      const options = { env: onlyHosts(env), redirection };
      const { code, screen } = await sitDown(cli, [], options).finish();
      assert.equal(code, 2);
      assert.equal(screen, "");
      const errors = await readFile(cli.path("errors.txt"), "utf8");
      assert.match(errors, /^error: Missing settings: /);
    }));

  const ends: [name: string, key: string, says: string][] = [
    ["Ctrl-C", "\x03", "\nCancelled"],
    ["Ctrl-D", "\x04", "error:.* Cancelled: the input has ended"],
  ];
  for (const [name, key, says] of ends) {
    it(`and ${name} at a question ends it`, () =>
      withCli(async (cli) => {
        const env = { TIKTOK_SHOP_APP_KEY: undefined };
        const session = sitDown(cli, [], { env });
        await session.answer(/App key: $/, key);
        const { code, screen } = await session.finish();
        assert.equal(code, 130);
        assert.match(screen, new RegExp(`${says}\r?\n`));
      }));

    it(`and ${name} at the hidden one ends it, and echo is back`, () =>
      withCli(async (cli) => {
        const env = { TIKTOK_SHOP_APP_SECRET: undefined };
        const session = sitDown(cli, [], { env });
        const half = cli.sandbox.appSecret.slice(0, 20);
        await session.answer(/App secret: $/, `${half}${key}`);
        const { code, screen, reply } = await session.finish();
        assert.equal(code, 130);
        assert.equal(reply, "");
        assert.ok(!screen.includes(half), screen);
      }));
  }
});

/** The environment of a person who has set no app. */
function onlyHosts(
  env: Record<string, string>,
): Record<string, string | undefined> {
  const hosts = Object.entries(env).filter(([name]) => /ENDPOINT/.test(name));
  return { ...NOTHING_SET, ...Object.fromEntries(hosts) };
}

// === Pasting

describe("login takes what is pasted at a terminal", AT_TERMINAL, () => {
  it("at any time of the wait", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      const { href } = await redirectOf(cli, session);
      await session.until(/4:59 left/);
      session.type(`${href}\r`);
      assertDone(await session.finish());
    }));

  it("after it has explained what was wrong", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      const { href } = await redirectOf(cli, session);
      session.type("hello there\r");
      await session.until(/No authorization code found in this text: copy the/);
      session.type(`${href.replace("state=", "state=x")}\r`);
      await session.until(/The redirect belongs to another login: /);
      session.type(`\r${href}\r`);
      assertDone(await session.finish());
    }));

  it("if it is a bare code, once that was confirmed", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      const { searchParams } = await redirectOf(cli, session);
      session.type(`${searchParams.get("code")}\r`);
      await session.answer(/Nothing proves that [^?]*\? \[y\/N\] $/, "y\r");
      assertDone(await session.finish());
    }));

  for (const no of ["", "n", "perhaps"]) {
    it(`but no bare code after "${no}", and goes on waiting`, () =>
      withCli(async (cli) => {
        const session = sitDown(cli);
        const { href, searchParams } = await redirectOf(cli, session);
        session.type(`${searchParams.get("code")}\r`);
        await session.answer(/\[y\/N\] $/, `${no}\r`);
        await session.until(/The code came without state/);
        assert.equal(cli.sandbox.count("/api/v2/token/get"), 0);
        await fetch(href);
        assertDone(await session.finish());
      }));
  }
});

describe("login asks about a redirect without state", AT_TERMINAL, () => {
  it("and takes it after yes", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      await fetch(await statelessRedirect(cli, session));
      await session.until(/A redirect without state is held/);
      await session.answer(/\[y\/N\] $/, "yes\r");
      assertDone(await session.finish());
    }));

  it("and goes on waiting after no", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      const redirect = await redirectOf(cli, session);
      await fetch(withoutState(redirect));
      await session.answer(/\[y\/N\] $/, "\r");
      await session.until(/\[y\/N\] \r\n[^]* left, Ctrl-C/);
      assert.equal(cli.sandbox.count("/api/v2/token/get"), 0);
      await fetch(redirect);
      assertDone(await session.finish());
    }));

  it("and needs no answer once the right one comes", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      const redirect = await redirectOf(cli, session);
      await fetch(withoutState(redirect));
      await session.until(/\[y\/N\] $/);
      await fetch(redirect);
      assertDone(await session.finish());
    }));

  it("and takes the URL that is pasted instead of an answer", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      const redirect = await redirectOf(cli, session);
      const forged = withoutState(redirect);
      forged.searchParams.set("code", "forged_0123456789");
      await fetch(forged);
      await session.answer(/\[y\/N\] $/, `${redirect}\r`);
      assertDone(await session.finish());
      assert.equal(cli.sandbox.count("/api/v2/token/get"), 1);
    }));

  it("and asks again after the URL of another login", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      const redirect = await redirectOf(cli, session);
      await fetch(withoutState(redirect));
      const foreign = `${redirect}`.replace("state=", "state=x");
      await session.answer(/\[y\/N\] $/, `${foreign}\r`);
      await session.until(/belongs to another login[^]*\[y\/N\] $/);
      session.type("y\r");
      assertDone(await session.finish());
    }));

  it("and takes a redirect at the question of the second step", () =>
    withCli(async (cli) => {
      const started = await cli.run([
        "login",
        "--start",
        ...cli.portFlag([]),
      ]);
      const link = JSON.parse(started.stdout).authorize_url;
      cli.knowStateOf(link);
      const redirect = new URL(await cli.decide(link));
      const bare = redirect.searchParams.get("code")!;
      const session = sitDown(cli, ["--complete", bare], { bare: true });
      await session.answer(/\[y\/N\] $/, `${redirect}\r`);
      assertDone(await session.finish());
    }));

  it("and Ctrl-C at the question ends it", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      await fetch(await statelessRedirect(cli, session));
      await session.answer(/\[y\/N\] $/, "\x03");
      assert.equal((await session.finish()).code, 130);
      assert.equal(cli.sandbox.count("/api/v2/token/get"), 0);
    }));
});

function withoutState(redirect: URL): URL {
  const url = new URL(redirect);
  url.searchParams.delete("state");
  return url;
}

async function statelessRedirect(
  cli: CliFixture,
  session: Session,
): Promise<URL> {
  return withoutState(await redirectOf(cli, session));
}

// === Countdown and colours

describe("login at a terminal", AT_TERMINAL, () => {
  it("counts down, and wipes that away at the end", () =>
    withCli(async (cli) => {
      const session = sitDown(cli, ["--timeout", "90"]);
      const redirect = await redirectOf(cli, session);
      await session.until(/1:[23]\d left, Ctrl-C cancels/);
      await session.until(/1:2\d left, Ctrl-C cancels/);
      await fetch(redirect);
      const { screen } = await session.finish();
      const last = screen.slice(screen.lastIndexOf(" left, "));
      // deno-lint-ignore no-control-regex -- the end of a line, and wiping it
      assert.match(last, /^ left, Ctrl-C cancels\x1b\[0m \r\x1b\[2K[^\r]/);
    }));

  it("makes the link one that can be clicked whole", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      const link = await linkOf(cli, session);
      session.type("\x03");
      const { code, screen } = await session.finish();
      assert.equal(code, 130);
      assert.ok(screen.includes(`\x1b]8;;${link}\x1b\\${link}\x1b]8;;\x1b\\`));
    }));

  it("ends at Ctrl-C, its port closed", () =>
    withCli(async (cli) => {
      const session = sitDown(cli);
      await linkOf(cli, session);
      session.type("\x03");
      const { code, screen, reply } = await session.finish();
      assert.equal(code, 130);
      assert.match(screen, /Cancelled\r?\n$/);
      assert.doesNotMatch(screen, /error|hint|run:/);
      assert.equal(reply, "");
      assert.equal(await isListening(cli.port), false);
    }));

  it("says that a browser was opened, and ends in green", () =>
    withCli(async (cli) => {
      const args = ["login", ...cli.portFlag([]), "--browser", "true"];
      const session = sitDown(cli, args.slice(1), { bare: true });
      const redirect = await redirectOf(cli, session);
      await session.until(/Opened your browser\r?\n/);
      await fetch(redirect);
      const { code, screen } = await session.finish();
      assert.equal(code, 0);
      const [green = ""] =
        // deno-lint-ignore no-control-regex -- green, and back
        /\x1b\[32mAuthorized by [^\x1b]*\x1b\[0m\r?\n$/.exec(screen) ?? [];
      assert.match(
        green,
        /saved to \S.*default\.json\r?\n {2}.* token\r?\n {2}.* shops/,
      );
    }));

  it("paints an error", () =>
    withCli(async (cli) => {
      const { code, screen } = await sitDown(cli, ["--port", "0"]).finish();
      assert.equal(code, 2);
      // deno-lint-ignore no-control-regex -- red, and back
      assert.match(screen, /^\x1b\[31;1merror:\x1b\[0m Cannot listen on port/);
    }));

  const plain: [name: string, env: Record<string, string>][] = [
    ["NO_COLOR is set", { NO_COLOR: "1" }],
    ["TERM is dumb", { TERM: "dumb" }],
  ];
  for (const [name, env] of plain) {
    it(`shows plain text alone if ${name}`, () =>
      withCli(async (cli) => {
        const session = sitDown(cli, [], { env });
        const redirect = await redirectOf(cli, session);
        await fetch(withoutState(redirect));
        await session.answer(/\[y\/N\] $/, "n\r");
        session.type("what now?\r");
        await session.until(/No authorization code found/);
        session.type("\x03");
        const { code, screen } = await session.finish();
        assert.equal(code, 130);
        assert.match(screen, /Cancelled\r?\n$/);
        assert.doesNotMatch(screen.replaceAll("\r\n", ""), CONTROLS);
        assert.doesNotMatch(screen, / left/);
      }));
  }
});

// deno-lint-ignore no-control-regex -- whatever moves or paints
const CONTROLS = /[\x00-\x09\x0b-\x1f]/;
