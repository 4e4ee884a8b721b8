/**
 * What the demo and the scripts need of this machine: the runtime's command,
 * a free port, a temporary folder, no proxy to this machine itself.
 *
 * @module
 */
import { realpathSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** Whether this process is Deno. */
export const ON_DENO: boolean = "Deno" in globalThis;

/** The command that runs a TypeScript or JavaScript file on this runtime. */
export function runtimeCommand(file: string, ...args: string[]): string[] {
  return [process.execPath, ...(ON_DENO ? ["run", "-A"] : []), file, ...args];
}

/**
 * Whether a module is what was started, for runtimes that do not tell; a
 * symlink counts as the file.
 */
export function isProgram(meta: { url: string; main?: boolean }): boolean {
  if (meta.main !== undefined) return meta.main;
  try {
    const script = realpathSync(process.argv[1] ?? "");
    return script === realpathSync(fileURLToPath(meta.url));
  } catch {
    return false;
  }
}

/** Deno knows `::1` without brackets, Node with them. */
const LOOPBACK = "localhost,127.0.0.1,::1,[::1]";

/**
 * The variables that keep this machine's own servers from a proxy, added to
 * what is there; nothing where no proxy is set. Deno prefers one, Node the
 * other.
 */
export function unproxiedLoopback(
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const isSet = Object.entries(env)
    .some(([name, value]) => /^(https?|all)_proxy$/i.test(name) && value);
  if (!isSet) return {};
  const own = [env.NO_PROXY, env.no_proxy].filter(Boolean);
  const hosts = [...new Set(own), LOOPBACK].join(",");
  return { NO_PROXY: hosts, no_proxy: hosts };
}

/** Gives `work` a temporary folder and removes it afterwards. */
export async function withTemporaryFolder<T>(
  name: string,
  work: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), `tiktok-shop-${name}-`));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const BLOCK = 64; // ports

/** The ports that are this process's alone, of those it has not given out. */
const ports = { next: 0, end: 0 };

/**
 * A port of 127.0.0.1 and [::1] that is free; no call returns it again. It is
 * asked and not listened on: a process that is started meanwhile would hold a
 * listener for a moment after it was closed.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    if (ports.next === ports.end) await claimPorts();
    const port = ports.next++;
    const hosts = ["127.0.0.1", "::1"];
    const taken = hosts.map((host) => isListening(port, host));
    if (!(await Promise.all(taken)).includes(true)) return port;
  }
}

/** Whether somebody listens on a port of this machine. */
export function isListening(
  port: number,
  host = "127.0.0.1",
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host });
    socket.once("connect", () => (socket.destroy(), resolve(true)));
    socket.once("error", () => (socket.destroy(), resolve(false)));
  });
}

/**
 * Takes a block of ports below those that a system hands out by itself. Its
 * first port stays open, which keeps other processes out: otherwise a port
 * could be looked at by one test in the moment in which another one uses it.
 */
async function claimPorts(): Promise<void> {
  for (;;) {
    const first = 10_240 + BLOCK * Math.floor(Math.random() * 340);
    const claim = createServer().unref();
    const isOurs = new Promise((resolve) => {
      claim.once("error", () => resolve(false));
      claim.listen({ port: first, host: "127.0.0.1" }, () => resolve(true));
    });
    if (!await isOurs) continue;
    Object.assign(ports, { next: first + 1, end: first + BLOCK });
    return;
  }
}
