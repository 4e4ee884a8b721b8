/**
 * A terminal: tmux(1), whose screen can be read as a person would see it. A
 * shell runs on it and finds the program by its name.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { cliCommand, type CliFixture } from "./cli_fixture.ts";
import { cleanEnv, quoted, writeProgram } from "./helpers.ts";

/** Why there is no terminal; false if there is one. */
export const NO_TERMINAL: string | false =
  (process.platform === "win32" || spawnSync("tmux", ["-V"]).status !== 0) &&
  "tmux is not installed";

const PROMPT = "cli$ ";
const LIMIT = 120_000; // ms to wait for what must appear

/** What stands on a screen. */
export interface Shown {
  /** As a person sees it. */
  readonly screen: string;
  /** Each line whole, even if the screen's edge cuts it. */
  readonly lines: string[];
}

let terminals = 0;

/** See {@linkcode withTerminal}. */
export class Terminal implements Shown {
  readonly #socket: string;
  readonly #raw: string;

  constructor(cli: CliFixture, env: Record<string, string | undefined>) {
    const n = ++terminals;
    this.#socket = cli.path(`tmux${n}`);
    this.#raw = cli.path(`typescript${n}`);
    const bin = cli.path("bin");
    mkdirSync(bin, { recursive: true });
    const line = cliCommand([]).map(quoted).join(" ");
    writeProgram(`${bin}/tiktok-shop-oauth2`, `#!/bin/sh\n${line} "$@"\n`);
    const profile = cli.path("profile.sh");
    writeFileSync(profile, `PS1='${PROMPT}'\n`);
    const settings = cli.path("tmux.conf");
    writeFileSync(settings, "set -g default-terminal xterm-256color\n");
    const all = cleanEnv({
      ...{ HOME: cli.folder, TIKTOK_SHOP_HOME: cli.store, ENV: profile },
      ...{ NO_COLOR: undefined, LANG: "C.UTF-8", ...env },
      PATH: `${bin}:${process.env.PATH}`,
    });
    const size = ["-x", "80", "-y", "50"];
    // On Deno a child's environment is added to ours instead of replacing it.
    const foreign = Object.keys(process.env)
      .filter((name) => /^\w+$/.test(name) && !(name in all))
      .filter((name) => !/^(TERM|TMUX)/.test(name)) // tmux's own, inside
      .map((name) => `-u ${name}`);
    const shell = ["exec env", ...foreign, "sh"].join(" ");
    execFileSync(
      "tmux",
      [
        "-u",
        "-S",
        this.#socket,
        "-f",
        settings,
        "new-session",
        "-d",
        ...size,
        shell,
      ],
      { env: all, cwd: cli.folder },
    );
    writeFileSync(this.#raw, "");
    this.#tmux("pipe-pane", `cat >> ${quoted(this.#raw)}`);
  }

  #tmux(...args: string[]): string {
    return execFileSync("tmux", ["-S", this.#socket, ...args], {
      encoding: "utf8",
    });
  }

  get screen(): string {
    return this.#tmux("capture-pane", "-p").trimEnd();
  }

  get lines(): string[] {
    return this.#tmux("capture-pane", "-p", "-J").trimEnd().split("\n")
      .map((line) => line.trimEnd());
  }

  /** Every byte that came to the terminal. */
  get raw(): string {
    return readFileSync(this.#raw, "utf8");
  }

  /** Gives the window another width. */
  resize(columns: number): void {
    this.#tmux("resize-window", "-x", `${columns}`, "-y", "50");
  }

  /** Types a text without Enter. */
  type(text: string): void {
    this.#tmux("send-keys", "-l", text);
  }

  /** Presses a key, such as `Enter` or `C-c`. */
  press(key: string): void {
    this.#tmux("send-keys", key);
  }

  /** Types a line. */
  enter(text: string): void {
    if (text) this.type(text);
    this.press("Enter");
  }

  /** Starts a command, on a screen without anything else. */
  async run(command: string): Promise<void> {
    if (await this.until(/cli\$$/) !== "cli$") {
      this.enter("clear");
      await this.until(/^cli\$$/);
    }
    this.enter(command);
  }

  /** Waits until the screen matches. */
  async until(pattern: RegExp): Promise<string> {
    for (const limit = Date.now() + LIMIT; Date.now() < limit;) {
      const { screen } = this;
      if (pattern.test(screen)) return screen;
      await delay(40);
    }
    throw new Error(`No ${pattern} on the screen:\n${this.screen}`);
  }

  /** Waits for the prompt; the screen, and how the command ended. */
  async finish(): Promise<Shown & { code: number }> {
    await this.until(/\ncli\$$/);
    const { screen, lines } = this;
    this.enter(
      'echo "[$?]"; stty -a | tr " " "\\n" | grep -cx -e echo -e icanon',
    );
    const after = await this.until(/^\[\d+\]\n\d\ncli\$$/m);
    assert.match(after, /\n2\ncli\$$/, "the terminal is not as it was");
    return { code: Number(/^\[(\d+)\]$/m.exec(after)![1]), screen, lines };
  }

  close(): void {
    this.#tmux("kill-server");
  }
}

/** Runs a test with a terminal in the fixture's folder, and closes it. */
export async function withTerminal(
  cli: CliFixture,
  env: Record<string, string | undefined>,
  run: (terminal: Terminal) => Promise<unknown>,
): Promise<void> {
  const terminal = new Terminal(cli, env);
  try {
    await run(terminal);
  } finally {
    terminal.close();
  }
}

/** The link on a screen, which takes more than one line. */
export function linkOn(screen: string): string {
  const [, link] = /^(http\S+authorize\S*(?:\n\S+)*)\n\n/m.exec(screen)!;
  return link!.replaceAll("\n", "");
}
