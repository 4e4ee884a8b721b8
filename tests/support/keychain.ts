/** A session bus with a keychain: gnome-keyring on a D-Bus of its own. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

const TOOLS = ["secret-tool", "gnome-keyring-daemon", "dbus-daemon"];

/** Why there is no keychain to test with here; false if there is one. */
export const NO_KEYCHAIN: string | false = process.platform !== "linux"
  ? "the keychain of this system is tested where KEYCHAIN_TEST is set"
  : TOOLS.some((tool) => spawnSync("which", [tool]).status !== 0) &&
    `${TOOLS.join(", ")} are not all installed`;

/** Where a logged-in user's bus is, which cron's jobs are not told of. */
export const USER_BUS = `/run/user/${process.getuid?.()}/bus`;

/** A keychain, and the environment of a session that has it. */
export interface Keychain {
  readonly env: Record<string, string>;
  /** Starts its daemon once more, with what was kept, still locked. */
  lock(): Promise<void>;
  /** Ends its daemons and removes what they kept. */
  stop(): Promise<void>;
  /** Stops its daemon, which then hangs. */
  pause(): void;
  /** Runs secret-tool(1) in its session. */
  tool(...args: string[]): string;
}

const BUS = `<busconfig><type>session</type><listen>%</listen>
<policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/>
</policy></busconfig>`;

/** Starts a keychain, at an address of its own or at the user's. */
export async function startKeychain(path?: string): Promise<Keychain> {
  const folder = await mkdtemp(join(tmpdir(), "keychain-"));
  const address = `unix:path=${path ?? join(folder, "bus")}`;
  if (path) mkdirSync(join(path, ".."), { recursive: true, mode: 0o700 });
  // Without services: the bus would start a second daemon, and a prompter.
  const config = join(folder, "bus.conf");
  await writeFile(config, BUS.replace("%", address));
  const words = [`--config-file=${config}`, "--nofork", "--print-address"];
  const bus = await started("dbus-daemon", words, {});
  const env = {
    HOME: folder,
    PATH: process.env.PATH!,
    DBUS_SESSION_BUS_ADDRESS: address,
  };
  let daemon: ChildProcess;
  const begin = async (password: string) => {
    const flags = ["--foreground", "--components=secrets"];
    if (password) flags.push("--unlock");
    daemon = await started("gnome-keyring-daemon", flags, env, password);
    // It answers once the bus knows its name.
    const ask = ["search", "--all", "service", "none"];
    for (const end = Date.now() + 60_000; Date.now() < end;) {
      if (spawnSync("secret-tool", ask, { env }).status === 0) return;
      assert.equal(daemon.exitCode, null, "the keyring's daemon has ended");
    }
    assert.fail("the keyring's daemon does not answer");
  };
  await begin("pw");
  const end = async () => {
    const ended = new Promise((resolve) => daemon.once("exit", resolve));
    daemon.kill("SIGKILL");
    await ended;
  };
  return {
    env: { DBUS_SESSION_BUS_ADDRESS: address },
    lock: async () => {
      await end();
      await begin("");
    },
    // Not daemon.kill(): for Deno the process would have ended.
    pause: () => void process.kill(daemon.pid!, "SIGSTOP"),
    tool: (...args) =>
      spawnSync("secret-tool", args, { env, encoding: "utf8" }).stdout,
    stop: async () => {
      await end();
      bus.kill("SIGKILL");
      if (path) await rm(path, { force: true });
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A daemon that has said that it is there. */
async function started(
  file: string,
  args: string[],
  env: Record<string, string>,
  input = "",
): Promise<ChildProcess> {
  const all = { ...env, PATH: process.env.PATH! };
  const stdio = ["pipe", "pipe", "ignore"] as ("pipe" | "ignore")[];
  const child = spawn(file, args, { env: all, stdio });
  const said = new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.stdout!.once("data", () => resolve());
    child.once("exit", () => reject(new Error(`${file} has ended`)));
  });
  child.stdin!.on("error", () => {}).end(input); // dbus-daemon reads none
  await said;
  return child;
}

/** Whether the user's bus may be made here: it belongs to nobody else. */
export function canMakeUserBus(): boolean {
  if (existsSync(USER_BUS) || process.getuid?.() !== 0) return false;
  return readFileSync("/proc/self/status", "utf8").includes("Uid:\t0");
}
