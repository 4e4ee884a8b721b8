import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import {
  fileStore,
  memoryStore,
  type StoredTokens,
  type TokenStore,
} from "../../mod.ts";
import {
  ENCODINGS,
  ON_WINDOWS,
  ROOT,
  runtimeCommand,
  start,
} from "../support/helpers.ts";
import { APP, failure, REPLY, withFolder } from "../support/token_host.ts";

// === Helpers

const TOKENS: StoredTokens = {
  ...REPLY,
  meta: { version: 1, app_key: APP.appKey, obtained_at: 1722342011 },
};

function tokensWith(access_token: string): StoredTokens {
  return { ...TOKENS, data: { ...TOKENS.data, access_token } };
}

const NO_MODES = ON_WINDOWS && "Windows has no such modes";

async function modeOf(path: string): Promise<string> {
  return ((await fs.stat(path)).mode & 0o777).toString(8);
}

// === What all stores do

const STORES: Record<string, (folder: string) => TokenStore> = {
  fileStore: (folder) => fileStore(join(folder, "a new", "folder")),
  memoryStore: () => memoryStore(),
};

for (const [name, make] of Object.entries(STORES)) {
  const title = (text: string) => `${name}() ${text}`;
  const withStore = (run: (store: TokenStore) => Promise<void>) => () =>
    withFolder((folder) => run(make(folder)));

  test(
    title("is empty at first"),
    withStore(async (store) => {
      assert.equal(await store.load("default"), undefined);
      assert.deepEqual(await store.list(), []);
      assert.equal(await store.remove("default"), false);
    }),
  );

  test(
    title("loads what was saved"),
    withStore(async (store) => {
      const more = { extra: { deep: [1, null, "é☃😀\u202e\x1b"] } };
      const tokens = { ...TOKENS, ...more, meta: { ...TOKENS.meta, ...more } };
      await store.save("default", tokens);
      assert.deepEqual(await store.load("default"), tokens);
      await store.save("default", tokensWith("GCP_new"));
      assert.deepEqual(await store.load("default"), tokensWith("GCP_new"));
    }),
  );

  test(
    title("keeps profiles apart and lists them sorted"),
    withStore(async (store) => {
      const names = ["zoe", "default", "Éire", "b.c-d_e", "constructor", "7"];
      for (const each of names) {
        await store.save(each, tokensWith(encodeURIComponent(each)));
      }
      assert.deepEqual(await store.list(), [...names].sort());
      for (const each of names) {
        const { data } = (await store.load(each))!;
        assert.equal(data.access_token, encodeURIComponent(each));
      }
    }),
  );

  test(
    title("removes one profile"),
    withStore(async (store) => {
      await store.save("one", TOKENS);
      await store.save("two", TOKENS);
      assert.equal(await store.remove("one"), true);
      assert.equal(await store.remove("one"), false);
      assert.equal(await store.load("one"), undefined);
      assert.deepEqual(await store.list(), ["two"]);
    }),
  );

  test(
    title("gives and takes copies"),
    withStore(async (store) => {
      const tokens = tokensWith("GCP_kept");
      await store.save("default", tokens);
      tokens.data.access_token = "changed by the saver";
      const loaded = (await store.load("default"))!;
      loaded.data.access_token = "changed by the loader";
      loaded.meta.app_key = "changed too";
      assert.deepEqual(await store.load("default"), tokensWith("GCP_kept"));
    }),
  );

  test(
    title("keeps integers beyond 2^53"),
    withStore(async (store) => {
      const id = 7495540735365777507n;
      const meta = { ...TOKENS.meta, ids: [id, -id], nested: { id } };
      await store.save("default", { ...TOKENS, id, meta });
      const once = (await store.load("default"))!;
      assert.deepEqual(once, { ...TOKENS, id, meta });
      await store.save("default", once);
      assert.deepEqual(await store.load("default"), { ...TOKENS, id, meta });
      assert.match(
        JSON.stringify(once),
        /"nested":\{"id":"7495540735365777507"/,
      );
    }),
  );

  test(
    title("is not harmed by members named __proto__"),
    withStore(async (store) => {
      const text = JSON.stringify(TOKENS)
        .replaceAll("{", '{"__proto__":{"polluted":true},');
      await store.save("default", JSON.parse(text));
      const loaded = (await store.load("default"))!;
      assert.deepEqual(loaded, JSON.parse(text));
      assert.equal(loaded.polluted, undefined);
      assert.equal(({} as Record<string, unknown>).polluted, undefined);
    }),
  );
}

test("memoryStore() takes __proto__ as a name like any other", async () => {
  const store = memoryStore();
  await store.save("__proto__", TOKENS);
  assert.deepEqual(await store.list(), ["__proto__"]);
  assert.deepEqual(await store.load("__proto__"), TOKENS);
  assert.equal(await store.load("toString"), undefined);
  assert.equal(({} as Record<string, unknown>).data, undefined);
});

test("memoryStore() shares nothing with another one", async () => {
  const store = memoryStore();
  await store.save("default", TOKENS);
  assert.equal(await memoryStore().load("default"), undefined);
});

// === The file

test("fileStore() writes TikTok's reply at the top of a JSON file", () =>
  withFolder(async (folder) => {
    await fileStore(folder).save("default", TOKENS);
    const text = await fs.readFile(join(folder, "default.json"), "utf8");
    assert.deepEqual(JSON.parse(text), TOKENS);
    assert.ok(text.startsWith('{\n  "code": 0,\n'));
    assert.ok(text.endsWith("}\n"));
  }));

test("fileStore() escapes what could forge a terminal", () =>
  withFolder(async (folder) => {
    const name = "\x1b[2J\u202eshop\u200b\x9b";
    const data = { ...TOKENS.data, seller_name: name };
    await fileStore(folder).save("default", { ...TOKENS, data });
    const text = await fs.readFile(join(folder, "default.json"), "utf8");
    // deno-lint-ignore no-control-regex -- they are what must not be there
    assert.doesNotMatch(text, /[\x1b\x9b\u202e\u200b]/);
    assert.equal(JSON.parse(text).data.seller_name, name);
  }));

test("fileStore() sees what another process has saved", () =>
  withFolder(async (folder) => {
    const [one, two] = [fileStore(folder), fileStore(folder)];
    await one.save("default", tokensWith("one"));
    await two.save("default", tokensWith("two"));
    assert.deepEqual(await one.load("default"), tokensWith("two"));
  }));

test("fileStore() leaves files of others out of its list", () =>
  withFolder(async (folder) => {
    const others = [
      ...["notes.txt", ".hidden.json", "config.json", "con.json", "a b.json"],
      ...["json", ".json", "default.json.bak", "default.json.lock"],
    ];
    for (const name of others) await fs.writeFile(join(folder, name), "{}");
    await fileStore(folder).save("default", TOKENS);
    assert.deepEqual(await fileStore(folder).list(), ["default"]);
  }));

// === Modes

test(
  "fileStore() makes a 0600 file in 0700 folders",
  { skip: NO_MODES },
  () =>
    withFolder(async (folder) => {
      await fileStore(join(folder, "a", "b")).save("default", TOKENS);
      assert.equal(await modeOf(join(folder, "a")), "700");
      assert.equal(await modeOf(join(folder, "a", "b")), "700");
      assert.equal(await modeOf(join(folder, "a", "b", "default.json")), "600");
    }),
);

test("fileStore() closes a file that was open to others", {
  skip: NO_MODES,
}, () =>
  withFolder(async (folder) => {
    await fs.writeFile(join(folder, "default.json"), "{}");
    await fs.chmod(join(folder, "default.json"), 0o666);
    await fileStore(folder).save("default", TOKENS);
    assert.equal(await modeOf(join(folder, "default.json")), "600");
  }));

test("fileStore() leaves the mode of every folder that was there", {
  skip: NO_MODES,
}, () =>
  withFolder(async (folder) => {
    const link = join(folder, "link");
    await fs.symlink(join(folder, "store"), link);
    await fs.mkdir(join(folder, "store"));
    for (const mode of [0o755, 0o777, 0o1777, 0o2775, 0o750, 0o700]) {
      await fs.chmod(join(folder, "store"), mode);
      for (const place of [join(folder, "store"), link]) {
        const store = fileStore(place);
        const lock = await store.lock("default");
        await store.save("default", TOKENS, lock);
        await lock[Symbol.asyncDispose]();
        const file = join(place, "default.json");
        assert.equal(await modeOf(file), "600");
        const { mode: now } = await fs.stat(place);
        assert.equal((now & 0o7777).toString(8), mode.toString(8));
      }
    }
  }));

/** Runs a program of a few lines that imports the module. */
async function runLines(
  folder: string,
  lines: string,
  options: { umask?: string; env?: Record<string, string | undefined> } = {},
): Promise<string> {
  const file = join(folder, "program.ts");
  const module = JSON.stringify(join(ROOT, "mod.ts"));
  await fs.writeFile(
    file,
    `import { fileStore } from ${module};\n` +
      `const tokens = ${JSON.stringify(TOKENS)};\n${lines}\n`,
  );
  const { env, umask } = options;
  const shell = umask ? ["sh", "-c", `umask ${umask}; exec "$@"`, "sh"] : [];
  const command = [...shell, ...runtimeCommand(file)];
  const { code, stdout, stderr } = await start(command, { env }).ended;
  assert.equal(code, 0, stderr);
  return stdout.trim();
}

for (const umask of ["000", "022"]) {
  test(`fileStore() keeps its modes with umask ${umask}`, {
    skip: NO_MODES,
  }, () =>
    withFolder(async (folder) => {
      const store = join(folder, "store");
      const lines = `const store = fileStore(${JSON.stringify(store)});
        const lock = await store.lock("default");
        await store.save("default", tokens, lock);
        await store.save("other", tokens);
        await lock[Symbol.asyncDispose]();`;
      await runLines(folder, lines, { umask });
      assert.equal(await modeOf(store), "700");
      assert.equal(await modeOf(join(store, "default.json")), "600");
      assert.equal(await modeOf(join(store, "other.json")), "600");
    }));
}

// === Where

/** Environments, and the folder below the test's that they choose. */
const HOMES: readonly [Record<string, string>, string][] = [
  [{ TIKTOK_SHOP_HOME: "mine", XDG_CONFIG_HOME: "xdg", HOME: "home" }, "mine"],
  [{ TIKTOK_SHOP_HOME: "~/mine", HOME: "home" }, "home/mine"],
  [{ TIKTOK_SHOP_HOME: "a~/mine", HOME: "home" }, "a~/mine"],
  [{ XDG_CONFIG_HOME: "/xdg", HOME: "home" }, "/xdg/tiktok-shop-oauth2"],
  [
    { XDG_CONFIG_HOME: "./xdg", HOME: "home" },
    "home/.config/tiktok-shop-oauth2",
  ],
  [{ HOME: "home" }, "home/.config/tiktok-shop-oauth2"],
];

test("fileStore() finds its folder by the environment", {
  skip: ON_WINDOWS && "the folders are those of Unix",
}, () =>
  withFolder(async (folder) => {
    const lines = `await fileStore().save("default", tokens);`;
    for (const [names, expected] of HOMES) {
      const env = Object.fromEntries(
        Object.entries(names).map(([name, path]) => [
          name,
          /^[.~]/.test(path) ? path : join(folder, path),
        ]),
      );
      await runLines(folder, lines, { env });
      await fs.access(join(folder, expected, "default.json"));
      await fs.rm(join(folder, expected), { recursive: true });
    }
  }));

// === Atomic

/** The names in a folder that are no profile's file. */
async function leftovers(folder: string): Promise<string[]> {
  const names = await fs.readdir(folder);
  return names.filter((name) => !/^[\w-]+\.json$/.test(name));
}

test("fileStore() never lets a reader see half a file", () =>
  withFolder(async (folder) => {
    const store = fileStore(folder);
    const path = join(folder, "default.json");
    const long = (i: number) => tokensWith(`${i}_${"x".repeat(200_000)}`);
    await store.save("default", long(0));
    let reads = 0;
    let saving = true;
    const reading = async () => {
      for (; saving; reads++) {
        const text = await fs.readFile(path, "utf8");
        assert.equal(JSON.parse(text).data.access_token.length > 200_000, true);
        await store.load("default");
      }
    };
    const readers = [reading(), reading()];
    for (let i = 0; i < 200; i++) await store.save("default", long(i));
    saving = false;
    await Promise.all(readers);
    assert.ok(reads > 20, `${reads} reads`);
    assert.deepEqual(await leftovers(folder), []);
  }));

test("fileStore() keeps one of many that are saved at once", () =>
  withFolder(async (folder) => {
    const store = fileStore(folder);
    const all = Array.from({ length: 20 }, (_, i) => `token_${i}`);
    await Promise.all(all.map((one) => store.save("default", tokensWith(one))));
    const { data } = (await store.load("default"))!;
    assert.ok(all.includes(data.access_token));
    assert.deepEqual(await leftovers(folder), []);
  }));

const NO_LINKS = ON_WINDOWS && "Windows lets few make links";

test(
  "fileStore() writes through a symbolic link",
  { skip: NO_LINKS },
  () =>
    withFolder(async (folder) => {
      const elsewhere = join(folder, "elsewhere");
      await fs.mkdir(elsewhere);
      const target = join(elsewhere, "tokens");
      await fs.writeFile(target, JSON.stringify(TOKENS));
      const store = fileStore(join(folder, "store"));
      await fs.mkdir(join(folder, "store"));
      const link = join(folder, "store", "default.json");
      await fs.symlink("../elsewhere/tokens", link);
      await store.save("default", tokensWith("GCP_new"));
      assert.equal(await fs.readlink(link), "../elsewhere/tokens");
      const text = await fs.readFile(target, "utf8");
      assert.equal(JSON.parse(text).data.access_token, "GCP_new");
      assert.equal(await modeOf(target), "600");
      assert.deepEqual(await fs.readdir(elsewhere), ["tokens"]);
      assert.equal(await store.remove("default"), true);
      await fs.access(target);
    }),
);

test("fileStore() makes the file that a link waits for", {
  skip: NO_LINKS,
}, () =>
  withFolder(async (folder) => {
    const link = join(folder, "default.json");
    await fs.symlink("tokens", link);
    const store = fileStore(folder);
    assert.equal(await store.load("default"), undefined);
    await store.save("default", TOKENS);
    assert.equal(await fs.readlink(link), "tokens");
    assert.deepEqual(await store.load("default"), TOKENS);
    await fs.access(join(folder, "tokens"));
  }));

test("fileStore() writes no tokens beside a link that leads nowhere", {
  skip: NO_LINKS,
}, () =>
  withFolder(async (folder) => {
    const target = "/no/such/disk/tokens";
    const link = join(folder, "default.json");
    await fs.symlink(target, link);
    await failure(fileStore(folder).save("default", TOKENS), "store");
    assert.equal(await fs.readlink(link), target);
    assert.deepEqual(await fs.readdir(folder), ["default.json"]);
  }));

// === Files that are not ours

const JSON_OF = JSON.stringify;
const DATA = { access_token: "GCP_a" };

/** Texts of files that are no token file, or not one that we know. */
const FOREIGN: readonly [string, string][] = [
  ["nothing", ""],
  ["half of the tokens", JSON_OF(TOKENS).slice(0, 150)],
  ["a text", "hello"],
  ["NULs", "\0".repeat(500)],
  ["null", "null"],
  ["a list", JSON_OF([TOKENS])],
  ["another program's JSON", JSON_OF({ name: "x", data: { id: 1 } })],
  ["an error of TikTok's", JSON_OF({ code: 36004004, message: "" })],
  ["an empty token", JSON_OF({ code: 0, data: { access_token: "" } })],
  ["a number as token", JSON_OF({ code: 0, data: { access_token: 5 } })],
  ["a text as data", JSON_OF({ code: 0, data: "GCP_a" })],
];

for (const [name, text] of FOREIGN) {
  test(`fileStore() refuses a file with ${name} and leaves it`, () =>
    withFolder(async (folder) => {
      const path = join(folder, "default.json");
      await fs.writeFile(path, text);
      const call = fileStore(folder).load("default");
      const error = await failure(call, "store");
      assert.equal(error.message, `${path} is no token file, or damaged`);
      assert.match(error.hint!, /move it away, then log in again/);
      assert.equal(await fs.readFile(path, "utf8"), text);
    }));
}

test("fileStore() reads a file in every encoding of editors", () =>
  withFolder(async (folder) => {
    for (const encode of Object.values(ENCODINGS)) {
      const bytes = encode(JSON_OF(TOKENS));
      await fs.writeFile(join(folder, "default.json"), bytes);
      assert.deepEqual(await fileStore(folder).load("default"), TOKENS);
    }
  }));

test("fileStore() refuses a file whose tokens would command a terminal", () =>
  withFolder(async (folder) => {
    const path = join(folder, "default.json");
    const names = ["access_token", "refresh_token"];
    for (
      const token of ["\x1b]52;c;ZXZpbA==\x07", "a b", "a\nb", "é", "\x7f"]
    ) {
      for (const name of names) {
        const data = { ...TOKENS.data, [name]: token };
        await fs.writeFile(path, JSON_OF({ ...TOKENS, data }));
        const error = await failure(fileStore(folder).load("default"), "store");
        assert.match(error.message, /is no token file, or damaged/);
        assert.ok(!error.message.includes(token));
      }
    }
  }));

test("fileStore() refuses the file of a newer version", () =>
  withFolder(async (folder) => {
    const path = join(folder, "default.json");
    for (const version of [2, "2", 99]) {
      const text = JSON_OF({ ...TOKENS, meta: { version } });
      await fs.writeFile(path, text);
      const error = await failure(fileStore(folder).load("default"), "store");
      assert.match(
        error.message,
        /was written by a newer version of tiktok-sh/,
      );
      assert.match(error.hint!, /^update tiktok-shop-oauth2/);
      assert.equal(await fs.readFile(path, "utf8"), text);
    }
  }));

test("fileStore() reads a file of TikTok's reply alone", () =>
  withFolder(async (folder) => {
    const path = join(folder, "default.json");
    for (const meta of [undefined, null, [], "x", {}]) {
      await fs.writeFile(path, JSON_OF({ code: 0, data: DATA, meta }));
      const loaded = await fileStore(folder).load("default");
      assert.deepEqual(loaded, { code: 0, data: DATA, meta: {} });
    }
  }));

test("fileStore() removes nothing but a token file", () =>
  withFolder(async (folder) => {
    const path = join(folder, "default.json");
    const newer = JSON_OF({ ...TOKENS, meta: { version: 2 } });
    const texts = [...FOREIGN.map(([, text]) => text), newer];
    texts.push("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for (const text of texts) {
      await fs.writeFile(path, text);
      const error = await failure(fileStore(folder).remove("default"), "store");
      assert.ok(error.message.startsWith(path), error.message);
      assert.equal(await fs.readFile(path, "utf8"), text);
    }
  }));

// === Names

const GOOD_NAMES = [
  ...["default", "a", "7", "Zoë", "店铺", "ร", "a.b", "a-b_c"],
  ...["x".repeat(64), "configuration", "console", "com10", "null", "a..b"],
];

test("fileStore() takes names of letters and digits of any script", () =>
  withFolder(async (folder) => {
    const store = fileStore(folder);
    for (const name of GOOD_NAMES) {
      await store.save(name, tokensWith(encodeURIComponent(name)));
      const { data } = (await store.load(name))!;
      assert.equal(data.access_token, encodeURIComponent(name));
    }
    assert.deepEqual(await store.list(), [...GOOD_NAMES].sort());
  }));

const BAD_NAMES = [
  ...["", " ", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", "..\\x", "~"],
  ...["C:x", "a:b", "a\0b", "a\nb", "a b", " a", "a ", ".hidden", "-rf", "_a"],
  ...["config", "CONFIG", "config.x", "con", "Nul", "com1", "LPT9.txt", "a."],
  ...["x".repeat(65), "__proto__", "a%2Fb", "a*", "a?", '"a"', "a|b", "<a>"],
  ...["\u202ea", "a\u200b", "😀", "a\ud800"],
];

test("fileStore() refuses names that could lead elsewhere", () =>
  withFolder(async (folder) => {
    const store = fileStore(join(folder, "store"));
    await fs.writeFile(join(folder, "x.json"), JSON_OF(TOKENS));
    for (const name of BAD_NAMES) {
      const calls: Record<string, () => Promise<unknown>> = {
        load: () => store.load(name),
        save: () => store.save(name, TOKENS),
        remove: () => store.remove(name),
        lock: () => store.lock(name),
      };
      for (const [method, call] of Object.entries(calls)) {
        const message = /^Cannot use the profile name ".*use up to 64 letters/;
        const row = `${method} ${JSON_OF(name)}`;
        await assert.rejects(call, { name: "TypeError", message }, row);
      }
    }
    assert.deepEqual(await fs.readdir(folder), ["x.json"]);
  }));

// === Failures

/** What each method says where the folder is a file. */
const IN_A_FILE: Record<
  string,
  [says: string, call: (store: TokenStore) => Promise<unknown>]
> = {
  load: ["Cannot read", (store) => store.load("default")],
  save: ["Cannot save the tokens to", (store) => store.save("default", TOKENS)],
  remove: ["Cannot read", (store) => store.remove("default")],
  list: ["Cannot read the folder", (store) => store.list()],
  lock: ["Cannot lock", (store) => store.lock("default")],
};

for (const [method, [start, call]] of Object.entries(IN_A_FILE)) {
  test(
    `fileStore() says "${start}" of ${method}() where its folder is a file`,
    {
      skip: ON_WINDOWS && "Windows says that there is no such file",
    },
    () =>
      withFolder(async (folder) => {
        const path = join(folder, "file");
        await fs.writeFile(path, "precious");
        const error = await failure(call(fileStore(path)), "store");
        assert.ok(error.message.startsWith(`${start} ${path}`), error.message);
        assert.match(error.hint!, /permissions and free space, or use another/);
        assert.ok(error.cause instanceof Error);
        assert.equal(await fs.readFile(path, "utf8"), "precious");
      }),
  );
}

test("fileStore() leaves nothing behind after it failed", () =>
  withFolder(async (folder) => {
    await fs.mkdir(join(folder, "default.json", "in the way"), {
      recursive: true,
    });
    const store = fileStore(folder);
    const error = await failure(store.save("default", TOKENS), "store");
    assert.match(error.message, /Cannot save the tokens to .*default\.json: /);
    assert.doesNotMatch(error.message, /GCP_/);
    await failure(store.load("default"), "store");
    await failure(store.remove("default"), "store");
    assert.deepEqual(await fs.readdir(folder), ["default.json"]);
  }));

test("fileStore() sweeps up what a killed process left an hour ago", () =>
  withFolder(async (folder) => {
    const [old, young, others] = [
      ".default.json.AAAAAAAA.tmp",
      ".default.json.BBBBBBBB.tmp",
      ".other.json.CCCCCCCC.tmp",
    ];
    const foreign = [".default.json.backup1.tmp", ".default.json..tmp"];
    const before = new Date(Date.now() - 3_700_000);
    for (const name of [old, young, others, ...foreign]) {
      await fs.writeFile(join(folder, name), "{}");
      if (name === young) continue;
      await fs.utimes(join(folder, name), before, before);
    }
    await fileStore(folder).save("default", TOKENS);
    const names = (await fs.readdir(folder)).sort();
    const kept = [young, others, ...foreign, "default.json"];
    assert.deepEqual(names, kept.sort());
  }));

/** Runs with a disk of 32 KiB; false where none can be made. */
async function withSmallDisk(
  run: (folder: string) => Promise<void>,
): Promise<boolean> {
  return await withFolder(async (folder) => {
    const options = ["-t", "tmpfs", "-o", "size=32k", "tmpfs", folder];
    if (spawnSync("mount", options).status !== 0) return false;
    try {
      await run(folder);
    } finally {
      spawnSync("umount", [folder]);
    }
    return true;
  });
}

const NO_DISK = await withSmallDisk(() => Promise.resolve())
  ? false
  : "only root can make a small disk, and only on Linux";

test("fileStore() keeps the old tokens when the disk is full", {
  skip: NO_DISK,
}, async () => {
  await withSmallDisk(async (folder) => {
    const store = fileStore(folder);
    await store.save("default", TOKENS);
    const names = await fs.readdir(folder);
    const long = tokensWith("x".repeat(40_000));
    const error = await failure(store.save("default", long), "store");
    assert.match(error.message, /no space|ENOSPC/i);
    assert.match(error.hint!, /free space/);
    assert.deepEqual(await store.load("default"), TOKENS);
    assert.deepEqual(await fs.readdir(folder), names);
    await fs.writeFile(join(folder, "full"), "x".repeat(40_000))
      .catch(() => {});
    await failure(store.save("default", tokensWith("GCP_new")), "store");
    await failure(store.save("other", TOKENS), "store");
    assert.deepEqual(await store.load("default"), TOKENS);
    assert.deepEqual((await fs.readdir(folder)).sort(), [...names, "full"]);
  });
});

// === Files that are written in place

test("fileStore() waits for a file that is being written in place", () =>
  withFolder(async (folder) => {
    const path = join(folder, "default.json");
    const text = JSON_OF(TOKENS);
    for (const half of ["", text.slice(0, 200), `${text}${text.slice(-9)}`]) {
      await fs.writeFile(path, half);
      const loading = fileStore(folder).load("default");
      await new Promise((resolve) => setTimeout(resolve, 200));
      await fs.writeFile(path, text);
      assert.deepEqual(await loading, TOKENS);
    }
  }));
