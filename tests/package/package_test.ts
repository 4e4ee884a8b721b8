/**
 * The npm package as its users get it: built, packed, installed into a folder
 * with a space in its path, and run on every version of Node it supports.
 * `deno task test package` runs this file; the tests on Deno and on Node do
 * not, so that the package is built once.
 */
import assert from "node:assert/strict";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { startSandbox } from "../../scripts/sandbox.ts";
import {
  type Finished,
  freePort,
  nodeBinary,
  NODES,
  ON_DENO,
  PACKAGE_NAME,
  PACKAGES,
  ROOT,
  run,
  runNpm,
  type RunOptions,
} from "../../scripts/tools.ts";
import { NO_WINDOWS, start } from "../support/helpers.ts";
import { sevenDaysLater } from "../support/kept.ts";

const { version: VERSION } = JSON.parse(
  await fs.readFile(path.join(ROOT, "deno.json"), "utf8"),
);

let temporary = "";
/** Where the package is installed. */
let folder = "";
let tarball = "";
let packedFiles: string[] = [];

before(async () => {
  temporary = await fs.mkdtemp(path.join(tmpdir(), "tiktok-shop-package-"));
  folder = path.join(temporary, "a folder with a space");
  await fs.mkdir(folder);
  await build();
  await pack();
  await fs.writeFile(path.join(folder, "package.json"), "{}");
  await npm(["install", "--no-audit", "--no-fund", tarball]);
});

after(() => fs.rm(temporary, { recursive: true, force: true }));

/**
 * The settings of these tests: the compiler to build with, and the folder to
 * leave the tested tarball in.
 */
const {
  PACKAGE_COMPILER: COMPILER = "auto",
  PACKAGE_DESTINATION: DESTINATION,
} = process.env;

async function build(): Promise<void> {
  const script = ["run", "-A", path.join("scripts", "build_npm.ts")];
  script.push("--compiler", COMPILER);
  const built = ON_DENO
    ? await run(process.execPath, script)
    : await runNpm("npx", ["-y", "deno@2", ...script]);
  assert.ok(built.ok, built.output);
  if (COMPILER === "dnt") assert.match(built.output, /Built npm\/ with dnt:/);
}

async function pack(): Promise<void> {
  const destination = path.resolve(ROOT, DESTINATION ?? temporary);
  await fs.mkdir(destination, { recursive: true });
  const { stdout } = await npm(
    ["pack", "--json", "--pack-destination", destination],
    path.join(ROOT, "npm"),
  );
  const [packed] = Object.values<{ filename: string; files: unknown[] }>(
    JSON.parse(stdout),
  );
  assert.ok(packed);
  tarball = path.join(destination, packed.filename);
  packedFiles = (packed.files as { path: string }[]).map((file) => file.path);
}

async function npm(args: string[], cwd = folder): Promise<Finished> {
  const finished = await runNpm("npm", args, { cwd });
  assert.ok(finished.ok, finished.output);
  return finished;
}

/** The program of a development package, as its package.json names it. */
async function developmentTool(name: string, command: string): Promise<string> {
  const base = path.join(PACKAGES, name);
  const text = await fs.readFile(path.join(base, "package.json"), "utf8");
  const { bin } = JSON.parse(text);
  return path.join(base, typeof bin === "string" ? bin : bin[command]);
}

/** Options under which `node`, for npm and for scripts, is this one. */
function on(node: string): RunOptions {
  const name = Object.keys(process.env)
    .find((key) => key.toUpperCase() === "PATH") ?? "PATH";
  const others = process.env[name] ?? "";
  const value = path.dirname(node) + path.delimiter + others;
  return { cwd: folder, env: { [name]: value } };
}

/** The link that npm makes to the program. */
function binOf(folder: string): string {
  return path.join(folder, "node_modules", ".bin", PACKAGE_NAME);
}

function assertPrints({ ok, stdout, output }: Finished, text: string): void {
  assert.ok(ok, output);
  assert.equal(stdout, `${text}\n`, output);
}

describe("the npm package", () => {
  it("holds what its users need and nothing else", () => {
    assert.deepEqual(packedFiles.toSorted(), [
      "CHANGELOG.md",
      "LICENSE",
      "README.md",
      "esm/mod.d.ts",
      "esm/mod.js",
      "esm/scripts/demo.d.ts",
      "esm/scripts/demo.js",
      "esm/scripts/local.d.ts",
      "esm/scripts/local.js",
      "esm/scripts/npm_bin.js",
      "esm/scripts/sandbox.d.ts",
      "esm/scripts/sandbox.js",
      "esm/scripts/sandbox/api.d.ts",
      "esm/scripts/sandbox/api.js",
      "esm/scripts/sandbox/catalogue.d.ts",
      "esm/scripts/sandbox/catalogue.js",
      "esm/scripts/sandbox/command.d.ts",
      "esm/scripts/sandbox/command.js",
      "esm/scripts/sandbox/data.d.ts",
      "esm/scripts/sandbox/data.js",
      "esm/scripts/sandbox/explain.d.ts",
      "esm/scripts/sandbox/explain.js",
      "esm/scripts/sandbox/faults.d.ts",
      "esm/scripts/sandbox/faults.js",
      "esm/scripts/sandbox/home.d.ts",
      "esm/scripts/sandbox/home.js",
      "esm/scripts/sandbox/hosts.d.ts",
      "esm/scripts/sandbox/hosts.js",
      "esm/scripts/sandbox/mistakes.d.ts",
      "esm/scripts/sandbox/mistakes.js",
      "esm/scripts/sandbox/operations.d.ts",
      "esm/scripts/sandbox/operations.js",
      "esm/scripts/sandbox/pages.d.ts",
      "esm/scripts/sandbox/pages.js",
      "esm/scripts/sandbox/replies.d.ts",
      "esm/scripts/sandbox/replies.js",
      "esm/scripts/sandbox/routes.d.ts",
      "esm/scripts/sandbox/routes.js",
      "esm/scripts/sandbox/server.d.ts",
      "esm/scripts/sandbox/server.js",
      "esm/scripts/sandbox/types.d.ts",
      "esm/scripts/sandbox/types.js",
      "esm/scripts/sandbox/webhooks.d.ts",
      "esm/scripts/sandbox/webhooks.js",
      "esm/scripts/testing.d.ts",
      "esm/scripts/testing.js",
      "package.json",
    ]);
  });

  it("runs from the folder in which it was built", async () => {
    // Not "./npm": npx would take that for the npm beside itself.
    const args = ["-y", "./npm/", "--version"];
    assertPrints(await runNpm("npx", args), VERSION);
  });

  it("has declarations that TypeScript resolves", async () => {
    await fs.writeFile(
      path.join(folder, "use.mts"),
      `import { main, VERSION } from "${PACKAGE_NAME}";
       import type { AuthFlow, TokenLock } from "${PACKAGE_NAME}";
       import { startSandbox } from "${PACKAGE_NAME}/sandbox";
       import { testTokenStore } from "${PACKAGE_NAME}/testing";
       export const code: Promise<number> = main([VERSION]);
       // @ts-expect-error: a number is no argument, so main() is not any
       main([1]);
       // @ts-expect-error: nor is this
       startSandbox(1);
       // @ts-expect-error: nor is this
       testTokenStore(1);
       export async function use(flow: AuthFlow, lock: TokenLock) {
         await using sandbox = await startSandbox();
         await using login = flow;
         await using held = lock;
         return [sandbox.port, login.port, held.id];
       }`,
    );
    const checked = await run("node", [
      await developmentTool("typescript", "tsc"),
      ...["--noEmit", "--strict", "--target", "es2023", "--module", "nodenext"],
      ...["--lib", "es2023,esnext.disposable"],
      ...["--typeRoots", path.join(PACKAGES, "@types"), "--types", "node"],
      "use.mts",
    ], { cwd: folder });
    assert.ok(checked.ok, checked.output);
  });

  it("has declarations that an old resolver finds", async () => {
    await fs.writeFile(
      path.join(folder, "old.ts"),
      `import { VERSION } from "${PACKAGE_NAME}";
       export const version: string = VERSION;
       // @ts-expect-error: a text is no number, so it is not any
       export const number: number = VERSION;`,
    );
    const checked = await run("node", [
      await developmentTool("typescript", "tsc"),
      ...["--noEmit", "--strict", "--target", "es2023", "--module", "esnext"],
      ...["--moduleResolution", "node10", "--lib", "es2023,esnext.disposable"],
      ...["--typeRoots", path.join(PACKAGES, "@types"), "--types", "node"],
      "old.ts",
    ], { cwd: folder });
    assert.ok(checked.ok, checked.output);
  });

  it("satisfies publint", async () => {
    const publint = await developmentTool("publint", "publint");
    const found = await run("node", [publint, tarball, "--strict"]);
    assert.ok(found.ok, found.output);
    assert.match(found.output, /All good!/);
  });

  it("satisfies arethetypeswrong", async () => {
    const attw = await developmentTool("@arethetypeswrong/cli", "attw");
    // There is no CommonJS build: Node 20.19 and later `require` the module,
    // so the resolutions before that, which it lacks, are not judged.
    const profile = ["--profile", "esm-only"];
    const found = await run("node", [attw, tarball, ...profile]);
    assert.ok(found.ok, found.output);
  });
});

for (const major of NODES) {
  describe(`the npm package on Node ${major}`, () => {
    let node = "";

    before(async () => {
      node = await nodeBinary(major);
    });

    it("runs through its link in .bin", async () => {
      const windows = process.platform === "win32";
      const link = path.join("node_modules", ".bin", PACKAGE_NAME);
      const options = { ...on(node), shell: windows };
      const file = windows ? `${link}.cmd` : path.join(folder, link);
      assertPrints(await run(file, ["--version"], options), VERSION);
    });

    it("serves a sandbox through its link in .bin", NO_WINDOWS, async () => {
      const { env } = on(node);
      const serving = start(
        [binOf(folder), "sandbox", "--port", "0", "--env"],
        { env },
      );
      try {
        const [, origin] = await serving.until(/API_ENDPOINT=(http\S+)/);
        const answer = await fetch(`${origin}/nothing`);
        assert.equal((await answer.json()).code, 36009009);
        await serving.until(/^GET \/nothing 404 36009009 Invalid path/m);
      } finally {
        // After child.kill() Deno tells the signal and not the exit code.
        process.kill(serving.child.pid!, "SIGINT");
      }
      assert.equal((await serving.ended).code, 130);
    });

    it("runs the demo through its link in .bin", NO_WINDOWS, async () => {
      const { env } = on(node);
      const ended = await start([binOf(folder), "demo"], {
        env: { ...env, CI: "1" },
      }).ended;
      assert.equal(ended.code, 0, ended.stderr);
      assert.equal(
        JSON.parse(ended.stdout).data.seller_name,
        "Harbour & Finch",
      );
    });

    it(
      "needs no environment seven days after a login",
      NO_WINDOWS,
      async () => {
        const port = await freePort();
        const redirectUrl = `http://localhost:${port}/`;
        await using sandbox = await startSandbox({ redirectUrl });
        const home = path.join(folder, `home ${major}`);
        await fs.mkdir(home);
        const bare = { HOME: home, PATH: on(node).env!.PATH };
        const login = start([
          ...[binOf(folder), "login", "--port", String(port), "--no-browser"],
          ...["--keep-secret", "file"],
        ], { env: { ...bare, ...sandbox.env } });
        const [link] = await login.until(/http\S+[?&]state=\S+/);
        await (await fetch(await sandbox.approve(link))).text();
        assert.equal((await login.ended).code, 0);
        await sevenDaysLater(path.join(home, ".config", PACKAGE_NAME));
        const words = Object.entries(bare).map((pair) => pair.join("="));
        const { ended } = start([
          ...["env", "-i", ...words, binOf(folder), "token"],
          ...["--refresh-endpoint", sandbox.refreshEndpoint],
        ]);
        const { code, stdout, stderr } = await ended;
        assert.equal(code, 0, stderr);
        assert.match(stdout, /^ROW_\S+\n$/);
      },
    );

    it("runs through npx", async () => {
      const args = [PACKAGE_NAME, "--version"];
      assertPrints(await runNpm("npx", args, on(node)), VERSION);
    });

    it("prints commands that start it as it was started", async () => {
      const wrong = "--nonsense";
      const { output } = await runNpm("npx", [PACKAGE_NAME, wrong], on(node));
      assert.match(output, /hint: see npx tiktok-shop-oauth2 --help\n/);
      const bin = `node_modules/${PACKAGE_NAME}/esm/scripts/npm_bin.js`;
      const { env } = on(node);
      // As in a person's shell, though npm may have started this test.
      const options = { cwd: folder, env: { ...env, npm_command: "" } };
      const ended = await run(node, [bin, wrong], options);
      const line = /hint: see (.*) --help\n/.exec(ended.output)?.[1] ?? "";
      assert.match(line, /^\S*node(\.exe)? -- .*npm_bin\.js['"]?$/);
    });

    it("ends with the exit code of the program", async () => {
      const bin = `node_modules/${PACKAGE_NAME}/esm/scripts/npm_bin.js`;
      const { code, stdout } = await run(node, [bin, "--nonsense"], on(node));
      assert.deepEqual({ code, stdout }, { code: 2, stdout: "" });
    });

    for (
      const [what, script, name] of [
        ["import", "import { VERSION } from 'NAME'", "use.mjs"],
        ["require", "const { VERSION } = require('NAME')", "use.cjs"],
      ] as const
    ) {
      it(`can be had by ${what}`, async () => {
        const text = `${script.replace("NAME", PACKAGE_NAME)};
          console.log(VERSION);`;
        await fs.writeFile(path.join(folder, name), text);
        assertPrints(await run(node, [name], on(node)), VERSION);
      });
    }

    it("loads by node -e, by require and by import", async () => {
      const required = `console.log(require('${PACKAGE_NAME}').VERSION)`;
      assertPrints(await run(node, ["-e", required], on(node)), VERSION);
      const imported = `import('${PACKAGE_NAME}')
        .then((module) => console.log(module.VERSION))`;
      assertPrints(await run(node, ["-e", imported], on(node)), VERSION);
    });

    it("makes many calls under one signal without a warning", async () => {
      const text = `
        import { exchangeCode } from "${PACKAGE_NAME}";
        import { startSandbox } from "${PACKAGE_NAME}/sandbox";
        const sandbox = await startSandbox({ latency: 50 });
        const { signal } = new AbortController();
        const calls = Array.from({ length: 30 }, () =>
          exchangeCode(sandbox, sandbox.issueCode(), { ...sandbox, signal }));
        console.log((await Promise.all(calls)).length);
        await sandbox.stop();`;
      await fs.writeFile(path.join(folder, "many.mjs"), text);
      const ended = await run(node, ["many.mjs"], on(node));
      assertPrints(ended, "30");
      assert.equal(ended.stderr, "");
    });

    for (
      const [module, name] of [
        ["sandbox", "startSandbox"],
        ["testing", "testTokenStore"],
      ] as const
    ) {
      it(`has ./${module}`, async () => {
        const script = `import('${PACKAGE_NAME}/${module}')
          .then((module) => console.log(typeof module.${name}))`;
        assertPrints(await run(node, ["-e", script], on(node)), "function");
      });
    }
  });
}
