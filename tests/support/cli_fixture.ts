/**
 * The CLI fixture: a home folder, an app at a sandbox of its own, a callback
 * port, and the program run from there. Whatever a run prints, and what others
 * see of its child processes, is searched for secrets, so that no test can
 * forget to look.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { watchProcesses } from "./processes.ts";
import { startSandbox } from "../../scripts/sandbox.ts";
import type {
  Sandbox,
  SandboxDecision,
  SandboxOptions,
} from "../../scripts/sandbox.ts";
import {
  type Ended,
  freePort,
  ON_DENO,
  ROOT,
  type Running,
  runtimeCommand,
  start,
  temporaryFolder,
} from "./helpers.ts";

/** How a run differs from the usual one; see `start` of the helpers. */
export interface RunOptions extends NonNullable<Parameters<typeof start>[1]> {
  /** Where stdout is a terminal: what of it the program itself has shown. */
  shown?: (stdout: string) => string;
}

/** A login that has printed its link. */
export interface OpenLogin extends Running {
  readonly link: string;
}

/** A login that a person has approved or denied. */
export interface EndedLogin extends Ended {
  /** Status of the page that the browser was shown last. */
  readonly status: number;
  readonly page: string;
}

/** Every variable that the sandbox sets, as one that is not set. */
export const NOTHING_SET: Record<string, undefined> = Object.fromEntries(
  ["APP_KEY", "APP_SECRET", "SERVICE_ID", "AUTHORIZATION_ENDPOINT"]
    .concat("TOKEN_ENDPOINT", "REFRESH_ENDPOINT", "API_ENDPOINT")
    .map((name) => [`TIKTOK_SHOP_${name}`, undefined]),
);

/** A link alone on its line: the only place where the state may be shown. */
const LINK = /^https?:\/\/\S+[?&]state=\S+$/gm;

/** The command that runs the program in a CLI fixture. */
export function cliCommand(args: string[]): string[] {
  program ??= ON_DENO ? join(ROOT, "mod.ts") : strippedProgram();
  return [...runtimeCommand(program), ...args];
}

let program: string | undefined;

/** The program as Node runs it: without this, each run strips its types. */
function strippedProgram(): string {
  const folder = mkdtempSync(join(tmpdir(), "tiktok-shop-program-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const script = `
    import { readFileSync, writeFileSync } from "node:fs";
    import { stripTypeScriptTypes } from "node:module";
    const [from, to] = process.argv.slice(1);
    writeFileSync(to, stripTypeScriptTypes(readFileSync(from, "utf8")));`;
  const file = join(folder, "mod.mjs");
  const flags = [
    "--disable-warning=ExperimentalWarning",
    "--input-type=module",
  ];
  const args = [...flags, "-e", script, join(ROOT, "mod.ts"), file];
  const { status, stderr } = spawnSync(process.execPath, args);
  assert.equal(status, 0, `${stderr}`);
  return file;
}

/** What the program says on a slow disk, though the lock is free. */
export const LOCK_NOTICE: RegExp = /^Waiting for the lock of profile .*\n/gm;

const RUN_LIMIT = 180_000; // ms; no run may hang a test

/** See {@linkcode withCli}. */
export class CliFixture {
  /** Home and working folder of every run. */
  readonly folder: string;
  /** The folder of the profiles. */
  readonly store: string;
  readonly sandbox: Sandbox;
  /** The port of the redirect URL saved in the app. */
  readonly port: number;
  readonly #runs: Running[] = [];
  readonly #secrets = new Set<string>();

  constructor(folder: string, sandbox: Sandbox) {
    this.folder = folder;
    this.store = join(folder, "store");
    this.sandbox = sandbox;
    this.port = Number(new URL(sandbox.redirectUrl).port);
    this.#secrets.add(sandbox.appSecret);
  }

  /** Starts a command in this folder, with the sandbox in its environment. */
  startCommand(command: string[], options: RunOptions = {}): Running {
    const env = {
      HOME: this.folder,
      TIKTOK_SHOP_HOME: this.store,
      ...this.sandbox.env,
      ...options.env,
    };
    const running = start(command, { cwd: this.folder, ...options, env });
    const limit = setTimeout(() => running.child.kill("SIGKILL"), RUN_LIMIT);
    const { pid } = running.child;
    const watched = pid ? watchProcesses(pid, cliCommand([])) : () => "";
    running.ended.catch(watched);
    const ended = running.ended.then(async (end) => {
      clearTimeout(limit);
      const processes = watched();
      const { stdout, stderr } = end;
      const { shown } = options;
      await this.#checkForSecrets(
        shown ? { stdout: "", stderr: shown(stdout) } : { stdout, stderr },
        processes,
      );
      return { ...end, stderr: stderr.replace(LOCK_NOTICE, "") };
    });
    ended.catch(() => {}); // the waiting test or withCli() gets the error
    this.#runs.push({ ...running, ended });
    return { ...running, ended };
  }

  /** Starts the program. */
  start(args: string[], options: RunOptions = {}): Running {
    return this.startCommand(cliCommand(args), options);
  }

  /** Runs the program to its end. */
  run(args: string[], options: RunOptions = {}): Promise<Ended> {
    return this.start(args, options).ended;
  }

  /** Starts a login at this fixture's port and waits for its link. */
  async open(
    args: string[] = [],
    options: RunOptions = {},
  ): Promise<OpenLogin> {
    const usual = ["login", "--no-browser", ...this.portFlag(args), ...args];
    return await this.linkOf(this.start(usual, options));
  }

  /** A login that somebody started, once it has printed its link. */
  async linkOf(running: Running): Promise<OpenLogin> {
    const [link] = await running.until(new RegExp(LINK.source, "m"));
    this.knowStateOf(link!);
    return { ...running, link: link! };
  }

  /** From now on the state of this link is a secret to look for. */
  knowStateOf(link: string): void {
    this.#secrets.add(new URL(link).searchParams.get("state")!);
  }

  portFlag(args: string[]): string[] {
    return args.includes("--port") ? [] : ["--port", String(this.port)];
  }

  /** Decides at the authorize page; resolves to where the browser is sent. */
  async decide(link: string, decision?: SandboxDecision): Promise<string> {
    const redirect = await this.sandbox.approve(link, decision);
    const code = new URL(redirect).searchParams.get("code");
    if (code && code !== "null") this.#secrets.add(code);
    return redirect;
  }

  /** A whole login, by a person who approves it unless told otherwise. */
  async login(
    args: string[] = [],
    options: RunOptions & { decision?: SandboxDecision } = {},
  ): Promise<EndedLogin> {
    const { link, ended } = await this.open(args, options);
    const shown = await fetch(await this.decide(link, options.decision));
    const page = await shown.text();
    return { ...await ended, status: shown.status, page };
  }

  /**
   * Does something to a login and lets it time out. If that takes longer than
   * the login waits, it tries again with twice the time.
   */
  async timeOut(
    act: (login: OpenLogin) => Promise<unknown>,
    timeout = 1,
  ): Promise<Ended> {
    const args = ["login", "--no-browser", ...this.portFlag([])];
    const running = this.start([...args, "--timeout", `${timeout}`]);
    try {
      await act(await this.linkOf(running));
      return await running.ended;
    } catch (error) {
      if (timeout > 60) throw error;
      await running.ended;
    }
    return await this.timeOut(act, 2 * timeout);
  }

  /** Signals a run. Deno's `child.kill()` would make up how it ended. */
  signal({ child }: Running, signal: "SIGINT" | "SIGTERM" | "SIGHUP"): void {
    process.kill(child.pid!, signal);
  }

  /** The path of a file in this fixture's folder. */
  path(...names: string[]): string {
    return join(this.folder, ...names);
  }

  /** Writes a file into this fixture's folder, and returns its path. */
  async write(name: string, text: string, mode = 0o600): Promise<string> {
    await writeFile(this.path(name), text, { mode });
    return this.path(name);
  }

  /** The text of a profile's file. */
  saved(profile = "default"): Promise<string> {
    return readFile(join(this.store, `${profile}.json`), "utf8");
  }

  /** Ends what still runs; rejects if any run has shown a secret. */
  async close(): Promise<void> {
    for (const { child } of this.#runs) {
      if (child.exitCode === null) child.kill("SIGKILL");
    }
    await Promise.all(this.#runs.map(({ ended }) => ended));
  }

  async #checkForSecrets(
    { stdout, stderr }: { stdout: string; stderr: string },
    processes: string,
  ): Promise<void> {
    for (const { query } of this.sandbox.requests) {
      for (const name of ["auth_code", "state", "refresh_token"]) {
        if (query[name]) this.#secrets.add(query[name]);
      }
    }
    const secrets = [...this.#secrets];
    assertAbsent(secrets, stdout, "stdout");
    // The link is the browser's, and --complete may be given a code.
    assertAbsent([this.sandbox.appSecret], processes, "a process's words");
    const tokens = tokensIn(stdout + await this.#files());
    assertAbsent([...secrets, ...tokens], stderr.replace(LINK, ""), "stderr");
  }

  /** The text of every token file under this fixture's folder. */
  async #files(): Promise<string> {
    const names = await this.#names();
    const texts = names.filter((name) => name.endsWith(".json"))
      .map((name) => readFile(this.path(name), "utf8").catch(() => ""));
    return (await Promise.all(texts)).join();
  }

  /** Every path below this fixture's folder. */
  async #names(): Promise<string[]> {
    for (;;) {
      try {
        return await readdir(this.folder, { recursive: true });
      } catch (error) {
        // Another run removes folders while they are read.
        if (!existsSync(this.folder)) throw error;
        if ((error as { code?: string }).code !== "ENOENT") throw error;
      }
    }
  }
}

/** Asserts that a text has none of the secrets, encoded or not. */
export function assertAbsent(
  secrets: Iterable<string>,
  text: string,
  where: string,
): void {
  for (const secret of secrets) {
    for (const form of [secret, encodeURIComponent(secret)]) {
      assert.ok(!text.includes(form), `a secret on ${where}: ${text}`);
    }
  }
}

/** A command that fails: its exit code, nothing on stdout, and why. */
export function assertFailed(
  ended: Ended,
  code: number,
  says: RegExp,
  stdout = /^$/,
): void {
  assert.match(ended.stderr, says);
  assert.equal(ended.code, code, ended.stderr);
  assert.match(ended.stdout, stdout);
}

/** Exit 2, nothing on stdout, one sentence that says what is wrong. */
export function assertUsageError(ended: Ended, message: RegExp): void {
  assert.equal(ended.code, 2, ended.stderr);
  assert.equal(ended.stdout, "");
  assert.match(ended.stderr, /^error: [^\n]+\nhint: see [^\n]+ --help\n$/);
  assert.match(ended.stderr, message);
}

/** The tokens in the JSON that a text has in it. */
export function tokensIn(text: string): string[] {
  const tokens = /"(?:access|refresh)_token":\s*"([^"]+)"/g;
  return [...text.matchAll(tokens)].map(([, token]) => token!);
}

/** Runs a test with a CLI fixture, and removes the fixture in any case. */
export async function withCli(
  run: (cli: CliFixture) => Promise<unknown>,
  options: SandboxOptions = {},
): Promise<void> {
  const folder = await temporaryFolder();
  const redirectUrl = `http://localhost:${await freePort()}/`;
  const sandbox = await startSandbox({ redirectUrl, ...options });
  const cli = new CliFixture(folder.path, sandbox);
  let failed = true;
  try {
    await run(cli);
    failed = false;
  } finally {
    // The test's own failure tells more than those that follow from it.
    await cli.close().catch((error) => {
      if (!failed) throw error;
    }).finally(async () => {
      // An open sandbox would keep the process alive.
      await sandbox.stop();
      await folder[Symbol.asyncDispose]();
    });
  }
}
