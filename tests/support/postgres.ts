/** Debian's Postgres, which the tests start, and npm's client for it. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";
import type { postgresStore } from "../examples/postgres_store.ts";
import { freePort, start, temporaryFolder } from "./helpers.ts";

/** The package's connections to one server. */
export type Pool = Parameters<typeof postgresStore>[0] & {
  on(event: "error", listener: () => void): void;
  end(): Promise<void>;
};

// By path, for neither Deno nor Node finds tests/node_modules by a bare name.
const require = createRequire(import.meta.url);

/** Opens connections to a server. */
export function openPool(url: string): Pool {
  const { Pool } = require("pg");
  const pool: Pool = new Pool({ connectionString: url, max: 4 });
  pool.on("error", () => {});
  return pool;
}

/** Debian has one folder a version, which is not on PATH. */
const VERSIONS = "/usr/lib/postgresql";
const BIN = (existsSync(VERSIONS) ? readdirSync(VERSIONS) : [])
  .map((version) => join(VERSIONS, version, "bin"))
  .find((folder) => existsSync(join(folder, "initdb")));

/** Why there is no server, or false. */
export const NO_POSTGRES: string | false = BIN === undefined
  ? "Postgres is not installed"
  : false;

/** Starts a server that keeps nothing; its URL, and how to stop it. */
export async function startPostgres(): Promise<
  { url: string; stop: () => Promise<void> }
> {
  const folder = await temporaryFolder();
  const data = join(folder.path, "data");
  const port = await freePort();
  const env = { HOME: folder.path, LC_ALL: "C" };
  const run = (name: string, ...args: string[]) =>
    start([...asPostgres(folder.path), join(BIN!, name), ...args], { env });
  const made = await run("initdb", "-D", data, "-A", "trust", "--no-sync")
    .ended;
  if (made.code !== 0) throw new Error(made.stderr);
  const address = ["-p", `${port}`, "-c", "listen_addresses=127.0.0.1"];
  const where = ["-D", data, "-k", folder.path, "-c", "fsync=off"];
  const server = run("postgres", ...where, ...address);
  await server.until(/ready to accept connections/);
  const user = process.getuid?.() === 0 ? "postgres" : process.env.USER;
  return {
    url: `postgres://${user}@127.0.0.1:${port}/postgres`,
    stop: async () => {
      server.child.kill("SIGQUIT"); // at once
      if (server.child.exitCode === null) await once(server.child, "exit");
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** The words that give up root, which the server refuses, and a folder. */
function asPostgres(folder: string): string[] {
  if (process.getuid?.() !== 0) return [];
  execFileSync("chown", ["postgres", folder]);
  const ids = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
  return ["setpriv", ...ids];
}
