/** The two Redis clients that the tests use, and Debian's server for them. */
import { once } from "node:events";
import { accessSync, constants, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import process from "node:process";
import type { TokenStore } from "../../mod.ts";
import { start } from "./helpers.ts";
import { isListening } from "./helpers.ts";

/** Sends one command, as `redisStore` wants it. */
export type RedisCommand = (...words: string[]) => Promise<unknown>;

/** The npm packages that are tried. */
export const REDIS_CLIENTS = ["redis", "ioredis"] as const;

/** A connection, through one of the clients. */
export interface RedisConnection {
  readonly command: RedisCommand;
  readonly close: () => Promise<void>;
}

/** The part in use of the package `redis`. */
interface NodeRedis {
  createCluster(options: { rootNodes: { url: string }[] }): {
    on(event: "error", listener: () => void): void;
    connect(): Promise<unknown>;
    close(): Promise<void>;
  };
  createClient(options: { url: string }): {
    on(event: "error", listener: () => void): void;
    connect(): Promise<unknown>;
    sendCommand(words: string[]): Promise<unknown>;
    close(): Promise<void>;
  };
}

/** The part in use of the package `ioredis`. */
interface IoRedis {
  Cluster: new (nodes: { host: string; port: number }[]) => {
    on(event: "error", listener: () => void): void;
    once(event: "ready", listener: () => void): void;
    quit(): Promise<unknown>;
  };
  Redis: new (port: number, host: string) => {
    call(name: string, ...words: string[]): Promise<unknown>;
    quit(): Promise<unknown>;
  };
}

// By path, for neither Deno nor Node finds tests/node_modules by a bare name.
const require = createRequire(import.meta.url);

/** Connects to a server on 127.0.0.1. */
export async function connectRedis(
  client: typeof REDIS_CLIENTS[number],
  port: number,
): Promise<RedisConnection> {
  if (client === "ioredis") {
    const { Redis }: IoRedis = require("ioredis");
    const connection = new Redis(port, "127.0.0.1");
    return {
      command: (name, ...words) => connection.call(name!, ...words),
      close: async () => void await connection.quit(),
    };
  }
  const { createClient }: NodeRedis = require("redis");
  const connection = createClient({ url: `redis://127.0.0.1:${port}` });
  connection.on("error", () => {});
  await connection.connect();
  return {
    command: (...words) => connection.sendCommand(words),
    close: () => connection.close(),
  };
}

/** Connects to a cluster by one of its nodes: the client's own object. */
export async function connectCluster(
  client: typeof REDIS_CLIENTS[number],
  port: number,
): Promise<{ cluster: unknown; close: () => Promise<void> }> {
  if (client === "ioredis") {
    const { Cluster }: IoRedis = require("ioredis");
    const cluster = new Cluster([{ host: "127.0.0.1", port }]);
    cluster.on("error", () => {});
    await new Promise<void>((resolve) => cluster.once("ready", resolve));
    return { cluster, close: async () => void await cluster.quit() };
  }
  const { createCluster }: NodeRedis = require("redis");
  const rootNodes = [{ url: `redis://127.0.0.1:${port}` }];
  const cluster = createCluster({ rootNodes });
  cluster.on("error", () => {});
  await cluster.connect();
  return { cluster, close: () => cluster.close() };
}

/** What mod.ts tells to write for a client's cluster. */
export function clusterExample(client: typeof REDIS_CLIENTS[number]): string {
  const text = readFileSync(new URL("../../mod.ts", import.meta.url), "utf8");
  const [, example] = new RegExp(
    `// cluster = [^\\n]* of ${client}\\n((?: \\*.*\\n)*? \\* }?\\);\\n)`,
  ).exec(text) ?? [];
  if (!example) throw new Error(`mod.ts has no cluster of ${client}`);
  return example.replace(/^ \* ?/gm, "").trim();
}

/** Opens a store on a cluster, as mod.ts tells, by the library's function. */
export async function openClusterStore(
  client: typeof REDIS_CLIENTS[number],
  port: number,
  redisStore: typeof import("../../mod.ts").redisStore,
  lease?: number,
): Promise<{ store: TokenStore; close: () => Promise<void> }> {
  const { cluster, close } = await connectCluster(client, port);
  const body = `return ${clusterExample(client)}`;
  const withLease: typeof redisStore = (command, options) =>
    redisStore(command, { ...options, lease });
  const make = new Function("redisStore", "cluster", body);
  return { store: make(withLease, cluster), close };
}

const SERVER = "redis-server";

/** Why there is no server, or false. */
export const NO_REDIS: string | false = isInstalled(SERVER)
  ? false
  : `${SERVER} is not installed`;

function isInstalled(command: string): boolean {
  return (process.env.PATH ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Starts a server that keeps nothing; the function that stops it. */
export async function startRedis(
  port: number,
  folder: string,
  options: string[] = [],
): Promise<(signal?: "SIGKILL") => Promise<void>> {
  const { child, ended } = start(
    [SERVER, "--port", `${port}`, "--bind", "127.0.0.1", "--dir", folder]
      .concat(["--save", "", "--appendonly", "no"], options),
    { input: "open" },
  );
  for (let i = 0; i < 6000 && !await isListening(port); i++) {
    if (child.exitCode !== null) throw new Error((await ended).stdout);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return async (signal) => {
    child.kill(signal);
    if (child.exitCode === null) await once(child, "exit");
  };
}
