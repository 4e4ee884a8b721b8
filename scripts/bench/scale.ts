/**
 * Tokens of many sellers from several processes: on files, in Redis and in
 * Postgres, while they live and when they have expired.
 *
 * @module
 */
import { writeFileSync } from "node:fs";
import * as fs from "node:fs/promises";
import * as path from "node:path";
import { pathToFileURL } from "node:url";
import {
  NO_POSTGRES,
  openPool,
  startPostgres,
} from "../../tests/support/postgres.ts";
import {
  connectRedis,
  NO_REDIS,
  startRedis,
} from "../../tests/support/redis_client.ts";
import { SCHEMA } from "../../tests/examples/postgres_store.ts";
import { freePort, installDevelopmentPackages, ROOT } from "../tools.ts";
import {
  APP,
  type Bench,
  Child,
  type Contenders,
  script,
  tokenHost,
  tokenReply,
} from "./contenders.ts";

/** What is measured: how many processes share how many profiles' tokens. */
interface Load {
  readonly isExpired: boolean;
  readonly processes: number;
  readonly profiles: number;
}

/** Where tokens are kept while they are measured. */
interface Place {
  /** How a process finds it. */
  readonly at: string;
  /** Puts profiles there, named `shop-0` and so on, as text with `@` for n. */
  readonly fill: (count: number, text: string) => Promise<unknown>;
}

/** The stores, and why one cannot be measured here. */
export const STORES = {
  files: { missing: false, start: startFiles },
  redis: { missing: NO_REDIS, start: startRedisPlace },
  postgres: { missing: NO_POSTGRES, start: startPostgresPlace },
} as const;

/** The loads of a token that lives, or has expired. */
function loads(when: string, isExpired: boolean): [string, Load][] {
  const shared = [1, 4, 8].map((processes): [string, Load] => [
    `${when}, ${processes} process${processes > 1 ? "es" : ""}`,
    { isExpired, processes, profiles: 1000 },
  ]);
  const alone = [100, 100_000].map((profiles): [string, Load] => [
    `${when}, ${profiles.toLocaleString("en-US")} profiles`,
    { isExpired, processes: 1, profiles },
  ]);
  return [...shared, ...alone];
}

/** Each figure is the time of one token, over all processes. */
const LOADS = [...loads("warm", false), ...loads("at expiry", true)];

/** Takes tokens from a store of this name. */
export async function tokens(
  bench: Bench,
  name: keyof typeof STORES,
): Promise<Contenders> {
  await installDevelopmentPackages();
  const endpoint = await tokenHost(bench, 0);
  const worker = await script(bench, "worker", WORKER);
  const places = new Map<number, Promise<Place>>();
  return Object.fromEntries(
    LOADS.map(([what, load]) => [what, async () => {
      const profiles = Math.min(load.profiles, bench.quick ? 2000 : Infinity);
      const place = places.get(profiles) ?? filled(bench, name, profiles);
      places.set(profiles, place);
      const { at, fill } = await place;
      await fill(used(load), storedText(load.isExpired ? -60 : 7 * 86_400));
      const words = [...worker, bench.runtime.module, name, at, endpoint];
      return await timeOfToken(bench, words, load);
    }]),
  );
}

/** A place of its own for each number of profiles. */
async function filled(
  bench: Bench,
  name: keyof typeof STORES,
  profiles: number,
): Promise<Place> {
  const folder = path.join(bench.folder, `${name} of ${profiles}`);
  await fs.mkdir(folder, { mode: 0o700 });
  const place = await STORES[name].start(bench, folder);
  await place.fill(profiles, storedText(7 * 86_400));
  return place;
}

/** How many of the profiles are used: equal parts for all processes. */
function used({ profiles }: Load): number {
  return profiles === 1000 ? 960 : 96;
}

const ROUNDS = 10; // over the profiles whose tokens live

/** Starts the processes, lets all of them go at once, and waits for the last. */
async function timeOfToken(
  bench: Bench,
  words: readonly string[],
  load: Load,
): Promise<number> {
  const { isExpired, processes } = load;
  const count = used(load) * (isExpired || bench.quick ? 1 : ROUNDS);
  const children = Array.from({ length: processes }, (_, i) => {
    const part = [i, i + 1].map((n) => String(count / processes * n));
    const more = [JSON.stringify(APP), ...part, String(used(load))]
      .concat(CLIENTS, POSTGRES_STORE);
    return new Child({ words: [...words, ...more], hasInput: true });
  });
  try {
    await Promise.all(children.map((child) => child.until(/^ready$/m)));
    const began = performance.now();
    for (const child of children) child.process.stdin!.write("go\n");
    const ends = await Promise.all(
      children.map((child) => child.until(/^done$/m)),
    );
    const last = Math.max(...ends.map(({ time }) => time));
    return (last - began) * 1000 / count;
  } finally {
    for (const child of children) child.process.kill("SIGKILL");
  }
}

const CLIENTS = path.join(ROOT, "tests", "package.json");
const POSTGRES_STORE =
  pathToFileURL(path.join(ROOT, "tests", "examples", "postgres_store.ts")).href;

/** Eight callers at a time, each for the next profile. */
const WORKER = `
import { createRequire } from "node:module";
import process from "node:process";
const [module, kind, at, refreshEndpoint, app, from, to, used] = args;
const [clients, example] = args.slice(8);
const { accessToken, fileStore, redisStore } = await import(module);
const require = createRequire(clients);
const open = {
  files: () => fileStore(at),
  redis: async () => {
    const client = require("redis").createClient({ url: at });
    await client.connect();
    return redisStore((...words) => client.sendCommand(words));
  },
  postgres: async () => {
    const { Pool } = require("pg");
    const { postgresStore } = await import(example);
    return postgresStore(new Pool({ connectionString: at, max: 8 }));
  },
};
const store = await open[kind]();
const options = { ...JSON.parse(app), store, refreshEndpoint };
// What is measured is no start: it has run before.
const profile = "worker-" + from;
for (let i = 0; i < 10; i++) {
  const tokens = await store.load("shop-99");
  tokens.data.access_token_expire_in = 2;
  await store.save(profile, tokens);
  await accessToken({ ...options, profile });
}
console.log("ready");
for await (const _ of process.stdin) break;
let next = Number(from);
const lane = async () => {
  while (next < Number(to)) {
    await accessToken({ ...options, profile: "shop-" + next++ % used });
  }
};
await Promise.all(Array.from({ length: 8 }, lane));
console.log("done");
`;

/** What a store keeps of a profile; \`@\` stands for its number. */
function storedText(life: number): string {
  const meta = { version: 1, app_key: APP.appKey, region: "row" };
  return JSON.stringify({ ...tokenReply("@", life), meta });
}

// === Places

function startFiles(_: Bench, folder: string): Promise<Place> {
  const fill = (count: number, text: string) => {
    for (let n = 0; n < count; n++) {
      const file = path.join(folder, `shop-${n}.json`);
      // At once: 100,000 promises take ten times as long as the files.
      writeFileSync(file, text.replaceAll("@", String(n)), { mode: 0o600 });
    }
    return Promise.resolve();
  };
  return Promise.resolve({ at: folder, fill });
}

async function startRedisPlace(bench: Bench, folder: string): Promise<Place> {
  const port = await freePort();
  const stop = await startRedis(port, folder);
  const { command, close } = await connectRedis("redis", port);
  bench.cleanups.push(async () => {
    await close();
    await stop();
  });
  const fill = (count: number, text: string) =>
    command("EVAL", FILL_REDIS, "0", String(count), text);
  return { at: `redis://127.0.0.1:${port}`, fill };
}

const FILL_REDIS = `for n = 0, ARGV[1] - 1 do
  local text = string.gsub(ARGV[2], "@", n)
  redis.call("set", "tiktok-shop-oauth2:{shop-" .. n .. "}", text)
end`;

async function startPostgresPlace(bench: Bench): Promise<Place> {
  const { url, stop } = await startPostgres();
  const pool = openPool(url);
  bench.cleanups.push(async () => {
    await pool.end();
    await stop();
  });
  await pool.query(SCHEMA, []);
  const fill = (count: number, text: string) =>
    pool.query(FILL_POSTGRES, [count - 1, text]);
  return { at: url, fill };
}

const FILL_POSTGRES = `insert into tiktok_tokens
  select 'shop-' || n, replace($2, '@', n::text)
  from generate_series(0, $1::int) n
  on conflict (profile) do update set value = excluded.value`;
