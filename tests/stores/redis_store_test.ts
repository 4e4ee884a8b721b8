import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import {
  accessToken,
  redisStore,
  type StoredTokens,
  type TokenStore,
} from "../../mod.ts";
import type { Sandbox } from "../../scripts/sandbox.ts";
import { testTokenStore } from "../../scripts/testing.ts";
import { freePort, ROOT, temporaryFolder } from "../support/helpers.ts";
import {
  clusterExample,
  connectRedis,
  NO_REDIS,
  openClusterStore,
  REDIS_CLIENTS,
  type RedisCommand,
  type RedisConnection,
  startRedis,
} from "../support/redis_client.ts";
import { failure, REPLY, withSandbox } from "../support/token_host.ts";
import {
  askAt,
  atEveryCall,
  type Child,
  eventually,
  jobAt,
  keepExpired,
  NO_STOPPING,
  refreshCount,
  startChild,
  stopAt,
  withChildren,
} from "../support/child_processes.ts";

// === A server

const LEASE = 1000;
const TOKENS: StoredTokens = { ...REPLY, meta: { version: 1 } };

let port = 0;
let command: RedisCommand;
const closing: (() => PromiseLike<void>)[] = [];

before(async () => {
  if (NO_REDIS) return;
  const folder = await temporaryFolder();
  closing.push(() => folder[Symbol.asyncDispose]());
  port = await freePort();
  closing.push(await startRedis(port, folder.path));
  command = (await connect("redis", port)).command;
});

after(async () => {
  for (const close of closing.reverse()) await close();
});

async function connect(
  client: typeof REDIS_CLIENTS[number],
  port: number,
): Promise<RedisConnection> {
  const connection = await connectRedis(client, port);
  closing.push(connection.close);
  return connection;
}

/** A test with an empty server. */
function redisTest(
  name: string,
  run: () => Promise<void>,
  skip: string | false = false,
): void {
  test(name, { skip: NO_REDIS || skip }, async () => {
    await command("FLUSHALL");
    await run();
  });
}

test("accessToken() asks for nothing where Redis would not let it save", {
  skip: NO_REDIS,
}, () =>
  withSandbox(async (sandbox) => {
    const prefix = "unproven:";
    await keepExpired(sandbox, redisStore(command, { prefix }));
    const rights = ["~*", "+@all", "-eval"];
    await command("ACL", "SETUSER", "noeval", "on", ">pass", ...rights);
    const { command: weak } = await connect("redis", port);
    await weak("AUTH", "noeval", "pass");
    const store = redisStore(weak, { prefix, lease: LEASE });
    const error = await failure(accessToken(askAt(sandbox, store)), "store");
    assert.match(error.message, /Cannot save the tokens to unproven:/);
    assert.equal(error.reply, undefined);
    assert.equal(refreshCount(sandbox), 0);
  }));

// === The rules of a store

for (const client of REDIS_CLIENTS) {
  redisTest(`redisStore() keeps the rules with ${client}`, async () => {
    const one = await connect(client, port);
    const other = await connect(client, port);
    let handles = 0;
    await testTokenStore(() =>
      redisStore((handles++ % 2 ? one : other).command, { lease: LEASE })
    );
    assert.deepEqual(await command("KEYS", "*"), []);
  });
}

redisTest(
  "redisStore() keeps tokens as JSON under the profile's key",
  async () => {
    const store = redisStore(command);
    await store.save("main", TOKENS);
    const lock = await store.lock("main");
    await store.save("main", TOKENS, lock);
    const keys = await command("KEYS", "*") as string[];
    assert.deepEqual(keys.sort(), [
      "tiktok-shop-oauth2:{main}",
      "tiktok-shop-oauth2:{main}:lock",
    ]);
    assert.deepEqual(JSON.parse(`${await command("GET", keys[0]!)}`), TOKENS);
    assert.equal(await command("TTL", keys[0]!), -1);
    assert.equal(await command("GET", keys[1]!), lock.id);
    const left = Number(await command("PTTL", keys[1]!));
    assert.ok(left > 2000 && left <= 5000, `${left}`);
    await lock[Symbol.asyncDispose]();
    assert.equal(await command("EXISTS", keys[1]!), 0);
  },
);

redisTest(
  "redisStore() renews a lock that is held beyond its lease",
  async () => {
    // Long enough to be renewed in time on a busy machine.
    const lease = 3 * LEASE;
    const store = redisStore(command, { lease });
    const lock = await store.lock("main");
    const signal = AbortSignal.timeout(1.8 * lease);
    await failure(store.lock("main", signal), "cancelled");
    await store.save("main", TOKENS, lock);
    await lock[Symbol.asyncDispose]();
    assert.deepEqual(await store.load("main"), TOKENS);
  },
);

redisTest(
  "redisStore() lists its own profiles among a thousand keys",
  async () => {
    const prefix = "a*[b]?\\c^:";
    const store = redisStore(command, { prefix });
    const names = Array.from({ length: 300 }, (_, i) => `shop-${i}`).sort();
    for (const name of names) await store.save(name, TOKENS);
    const others = ["aX:{x}", `${prefix}{x}:lock`, `${prefix}x`, `${prefix}{}`];
    for (const key of others) await command("SET", key, "1");
    for (let i = 0; i < 700; i++) await command("SET", `other-${i}`, "1");
    assert.deepEqual(await store.list(), names);
    assert.deepEqual(await redisStore(command).list(), []);
  },
);

test("redisStore() sends what version 1.0.0 sends", async () => {
  const sent: string[][] = [];
  const store = redisStore((...words) => {
    sent.push(words);
    const replies: Record<string, unknown> = { SET: "OK", SCAN: ["0", []] };
    return Promise.resolve(replies[words[0]!] ?? 1);
  });
  const lock = await store.lock("main");
  await store.save("main", TOKENS, lock);
  await store.assertWritable!("main", lock);
  await lock[Symbol.asyncDispose]();
  await store.save("main", TOKENS);
  await store.remove("main");
  await store.list();
  const key = "tiktok-shop-oauth2:{main}";
  const text = JSON.stringify(TOKENS);
  const act = (action: string, ...words: string[]) => {
    const script = `if redis.call("get", KEYS[1]) ~= ARGV[1] then return 0 end
${action}
return 1`;
    return ["EVAL", script, "2", `${key}:lock`, key, lock.id, ...words];
  };
  assert.deepEqual(sent, [
    ["SET", `${key}:lock`, lock.id, "NX", "PX", "5000"],
    act('redis.call("set", KEYS[2], ARGV[2])', text),
    act('redis.call("pexpire", KEYS[1], ARGV[2])', "5000"),
    act('redis.call("del", KEYS[1])'),
    ["SET", key, text],
    ["DEL", key],
    ["SCAN", "0", "MATCH", "tiktok-shop-oauth2:{*}", "COUNT", "1000"],
  ]);
});

// === A cluster

/** A node of the cluster, which keeps on disk what it is told. */
interface Node extends RedisConnection {
  readonly port: number;
  readonly bus: number;
  start(): Promise<void>;
  stop(signal?: "SIGKILL"): Promise<void>;
}

let nodes: Promise<readonly Node[]> | undefined;

/** The three nodes, started by the first test that needs them. */
function clusterNodes(): Promise<readonly Node[]> {
  return nodes ??= startCluster();
}

const DURABLE = "--cluster-enabled yes --cluster-node-timeout 1000 " +
  "--appendonly yes --appendfsync always --cluster-port";

async function startNode(): Promise<Node> {
  const folder = await temporaryFolder();
  closing.push(() => folder[Symbol.asyncDispose]());
  const [port, bus] = [await freePort(), await freePort()];
  let stop: Awaited<ReturnType<typeof startRedis>>;
  const start = async () => {
    stop = await startRedis(port, folder.path, [
      ...DURABLE.split(" "),
      `${bus}`,
    ]);
  };
  await start();
  closing.push(() => stop());
  const connection = await connect("redis", port);
  return { port, bus, start, stop: (signal) => stop(signal), ...connection };
}

async function startCluster(): Promise<readonly Node[]> {
  const nodes = await Promise.all([startNode(), startNode(), startNode()]);
  const [first, ...others] = nodes as [Node, ...Node[]];
  for (const { port, bus } of others) {
    const words = ["MEET", "127.0.0.1", `${port}`, `${bus}`];
    await first.command("CLUSTER", ...words);
  }
  for (const [i, { command }] of nodes.entries()) {
    const slots = [i * 5461, i === 2 ? 16383 : i * 5461 + 5460].map(String);
    await command("CLUSTER", "ADDSLOTSRANGE", ...slots);
  }
  for (const node of nodes) await untilWhole(node);
  return nodes;
}

async function untilWhole({ command }: Node): Promise<void> {
  await eventually(async () => {
    const info = `${await command("CLUSTER", "INFO").catch(() => "")}`;
    return /state:ok/.test(info) && /known_nodes:3/.test(info);
  }, "the cluster is ready");
}

test("README.md tells the same of a cluster as mod.ts", async () => {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const example = clusterExample("redis").replace(/\s+/g, " ");
  const [, line] = /`(\(\.\.\.words\) => cluster[^`]*)`/.exec(readme)!;
  assert.ok(example.includes(line!), example);
});

/** A test on the cluster, with a store of each client. */
function clusterTest(
  name: string,
  run: (nodes: readonly Node[], stores: TokenStore[]) => Promise<void>,
): void {
  test(name, { skip: NO_REDIS }, async () => {
    const nodes = await clusterNodes();
    const [{ port }] = nodes as [Node];
    const opened = await Promise.all(
      REDIS_CLIENTS.map((client) =>
        openClusterStore(client, port, redisStore, LEASE)
      ),
    );
    try {
      await run(nodes, opened.map(({ store }) => store));
    } finally {
      for (const { store } of opened.slice(0, 1)) {
        for (const name of await store.list()) await store.remove(name);
      }
      for (const { close } of opened) await close();
    }
  });
}

clusterTest(
  "redisStore() works on a cluster as mod.ts tells",
  async (_, stores) => {
    for (const store of stores) {
      await testTokenStore(() => store);
      const names = Array.from({ length: 30 }, (_, i) => `shop-${i}`).sort();
      for (const name of names) await store.save(name, TOKENS);
      // Whatever node the others are on, all of them are found.
      assert.deepEqual(await store.list(), names);
      for (const name of names) assert.ok(await store.remove(name));
      assert.deepEqual(await store.list(), []);
    }
  },
);

clusterTest(
  "redisStore() costs one request for eight processes on a cluster",
  ([first], [store]) =>
    withSandbox(async (sandbox) => {
      await keepExpired(sandbox, store!);
      const place = { port: first!.port, isCluster: true };
      const children = Array.from(
        { length: 8 },
        (_, i) =>
          startChild(
            jobAt(sandbox, { ...place, redis: REDIS_CLIENTS[i % 2]! }),
          ),
      );
      await withChildren(children, async (children) => {
        for (const child of children) child.order({ callers: 50 });
        const outcomes = await Promise.all(children.map(({ next }) => next()));
        const kept = (await store!.load("default"))?.data.access_token;
        const wanted = { tokens: [kept], errors: [] };
        for (const outcome of outcomes) assert.deepEqual(outcome, wanted);
        assert.equal(refreshCount(sandbox), 1);
      });
    }, { latency: 100 }),
);

clusterTest(
  "redisStore() loses no token while a node of a cluster is gone",
  (nodes, stores) =>
    withSandbox(async (sandbox) => {
      const node = nodes[2]!;
      const names: string[] = [];
      for (let i = 0; names.length < stores.length; i++) {
        const key = `tiktok-shop-oauth2:{shop-${i}}`;
        const slot = Number(await node.command("CLUSTER", "KEYSLOT", key));
        if (slot >= 2 * 5461) names.push(`shop-${i}`);
      }
      for (const name of names) await keepExpired(sandbox, stores[0]!, name);
      await node.stop("SIGKILL");
      for (const [i, store] of stores.entries()) {
        const ask = { ...askAt(sandbox, store), profile: names[i]! };
        const error = await failure(accessToken(ask), "store");
        assert.match(error.message, /^Cannot read .*\} in Redis: \w/);
        assert.equal(error.reply, undefined);
      }
      assert.equal(refreshCount(sandbox), 0);
      await node.start();
      for (const node of nodes) await untilWhole(node);
      for (const [i, store] of stores.entries()) {
        const ask = { ...askAt(sandbox, store), profile: names[i]! };
        const load = () => store.load(names[i]!).catch(() => undefined);
        await eventually(async () => await load() !== undefined, "it is back");
        const token = await accessToken(ask);
        assert.equal((await load())?.data.access_token, token);
      }
      assert.equal(refreshCount(sandbox), stores.length);
    }),
);

// === Wrong arguments and values

const NOTHING = () => Promise.resolve(null);

test("redisStore() refuses a prefix with braces", () => {
  for (const prefix of ["{", "a}b", "{}:", "{tag}:"]) {
    assert.throws(() => redisStore(NOTHING, { prefix }), TypeError);
  }
});

test("redisStore() refuses a lease that is too short or too long", () => {
  for (const lease of [0, 999, NaN, 1e9, Infinity, 1000.5]) {
    assert.throws(() => redisStore(NOTHING, { lease }), RangeError);
  }
});

test("redisStore() refuses names that a file could not have", async () => {
  const store = redisStore(NOTHING);
  for (const name of ["", "a b", "../x", "a}", "{a", "a:lock", "config"]) {
    await assert.rejects(store.load(name), TypeError);
    await assert.rejects(store.save(name, TOKENS), TypeError);
    await assert.rejects(store.lock(name), TypeError);
    await assert.rejects(store.remove(name), TypeError);
  }
});

test("redisStore() redacts what a client says", async () => {
  const { access_token, refresh_token } = TOKENS.data;
  const said = `Unknown command "EVAL", with args ${access_token}, ` +
    `'{"refresh_token":"${refresh_token}"}' at redis://me:pass@host:6379`;
  const cause = Object.assign(new Error(said), { code: "ERR", command: said });
  const store = redisStore(() => Promise.reject(cause));
  const lock = { id: "lock", [Symbol.asyncDispose]: () => Promise.resolve() };
  for (const held of [undefined, lock]) {
    const error = await failure(store.save("main", TOKENS, held), "store");
    const shown = inspect(error, { depth: 9 });
    assert.match(
      error.message,
      /tiktok-shop-oauth2:\{main\} in Redis: Unknown/,
    );
    for (const secret of [access_token, refresh_token, "me:pass"]) {
      assert.ok(!shown.includes(secret), shown);
    }
  }
});

test("redisStore() fails with kind store when its client does", async () => {
  const store = redisStore(() => {
    throw new Error("The client is closed");
  });
  const { message, hint } = await failure(store.load("main"), "store");
  assert.match(message, /^Cannot read .* in Redis: The client is closed$/);
  assert.match(hint!, /can be reached/);
  await failure(store.list(), "store");
  await failure(store.lock("main"), "store");
  await failure(store.remove("main"), "store");
});

for (
  const [what, words, message] of [
    ["text that is no JSON", ["SET", "{}"], /is no token file, or damaged/],
    ["half a reply", ["SET", '{"data":{"acc'], /is no token file, or damaged/],
    [
      "a reply of a newer version",
      ["SET", JSON.stringify({ ...REPLY, meta: { version: 2 } })],
      /was written by a newer version/,
    ],
    ["a list", ["RPUSH", "1"], /WRONGTYPE/],
  ] as const
) {
  redisTest(`accessToken() leaves ${what} in Redis alone`, async () => {
    const [name, value] = words;
    const key = "tiktok-shop-oauth2:{default}";
    await command(name, key, value);
    await withSandbox(async (sandbox) => {
      const ask = askAt(sandbox, redisStore(command));
      const error = await failure(accessToken(ask), "store");
      assert.match(error.message, message);
      assert.ok(error.message.includes(key));
      assert.equal(refreshCount(sandbox), 0);
    });
    const kept = name === "SET"
      ? await command("GET", key)
      : await command("LINDEX", key, "0");
    assert.equal(kept, value);
  });
}

// === Several processes

/** Child processes at a sandbox, by both clients in turn. */
function childrenAt(
  sandbox: Sandbox,
  count: number,
  lease?: number,
): Promise<Child>[] {
  return Array.from({ length: count }, (_, i) => {
    const redis = REDIS_CLIENTS[i % REDIS_CLIENTS.length]!;
    return startChild(jobAt(sandbox, { redis, port, lease }));
  });
}

async function storedToken(profile = "default"): Promise<string | undefined> {
  return (await redisStore(command).load(profile))?.data.access_token;
}

redisTest(
  "redisStore() costs one request for eight processes",
  () =>
    withSandbox(async (sandbox) => {
      await keepExpired(sandbox, redisStore(command));
      await withChildren(childrenAt(sandbox, 8), async (children) => {
        for (const child of children) child.order({ callers: 50 });
        const outcomes = await Promise.all(children.map(({ next }) => next()));
        const wanted = { tokens: [await storedToken()], errors: [] };
        for (const outcome of outcomes) assert.deepEqual(outcome, wanted);
        assert.equal(refreshCount(sandbox), 1);
      });
    }, { latency: 100 }),
);

redisTest(
  "redisStore() goes on when a holder was killed",
  () =>
    withSandbox(async (sandbox) => {
      await keepExpired(sandbox, redisStore(command));
      sandbox.fail("refresh", "slow:60000");
      await withChildren(
        childrenAt(sandbox, 3, 2 * LEASE),
        async ([first, ...others]) => {
          first.order();
          await eventually(() => refreshCount(sandbox) === 1, "it has asked");
          first.signal("SIGKILL");
          for (const child of others) child.order();
          const outcomes = await Promise.all(others.map(({ next }) => next()));
          const wanted = { tokens: [await storedToken()], errors: [] };
          for (const outcome of outcomes) assert.deepEqual(outcome, wanted);
          assert.equal(refreshCount(sandbox), 2);
        },
      );
    }),
);

redisTest(
  "redisStore() lets no stopped holder overwrite a newer token",
  () =>
    withSandbox(async (sandbox) => {
      const store = redisStore(command, { lease: LEASE });
      await withChildren(childrenAt(sandbox, 2, LEASE), (children) =>
        atEveryCall(2, (call, lane) =>
          stopAt(call, children[lane]!, sandbox, store)));
    }, { rotate: false }),
  NO_STOPPING,
);
