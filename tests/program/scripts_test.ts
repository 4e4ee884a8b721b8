import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import * as fs from "node:fs/promises";
import { createServer } from "node:http";
import * as path from "node:path";
import process from "node:process";
import { screenOf } from "../../scripts/picture.ts";
import { test } from "node:test";
import {
  type Figure,
  isMet,
  median,
  readSettings as readBenchSettings,
  ROWS,
  table as figureTable,
} from "../../scripts/bench.ts";
import {
  compilerFlag,
  DNT_OPTIONS,
  importBuilt,
  packageJson,
} from "../../scripts/build_npm.ts";
import { ranges, readLcov } from "../../scripts/coverage.ts";
import { withCategories } from "../../scripts/docs.ts";
import { readSettings, SOAKS, table as noteTable } from "../../scripts/soak.ts";
import {
  chooseSteps,
  duration,
  junitCounts,
  LIMITED,
  RunningCounts,
  STEPS,
  summary,
  table,
  total,
  withoutPassed,
} from "../../scripts/test.ts";
import {
  childEnvironment,
  npmTool,
  ON_DENO,
  ROOT,
  run,
  runScript,
  testFile,
  testFiles,
  textTable,
} from "../../scripts/tools.ts";
import { runtimeCommand, start } from "../support/helpers.ts";

// === scripts/tools.ts

test("runScript() ends with 2 for bad arguments, 1 for errors", async () => {
  const read = (args: string[]) => {
    if (args.includes("--bad")) throw new RangeError("a wrong argument");
    return args;
  };
  const seen: string[][] = [];
  const work = (args: string[]) => {
    seen.push(args);
    if (args.includes("fail")) throw new Error("a failure");
    return Promise.resolve(7);
  };
  assert.equal(await runScript(["--", "a", "--"], read, work), 7);
  assert.deepEqual(seen, [["a", "--"]]);
  assert.equal(await runScript(["--bad"], read, work), 2);
  assert.equal(await runScript(["fail"], read, work), 1);
});

test("testFiles() finds files at any depth, the package's apart", async () => {
  const files = await testFiles();
  assert.ok(files.some((file) => file.endsWith("/scripts_test.ts")));
  assert.deepEqual(files, [...new Set(files)].sort());
  for (const file of files) {
    assert.match(file, /^tests\/(?!package\/|node_modules\/)\S+_test\.ts$/);
    await fs.access(path.join(ROOT, file));
  }
});

test("testFile() finds a file by its name, or throws", async () => {
  assert.match(await testFile("scripts_test.ts"), /\/scripts_test\.ts$/);
  await assert.rejects(testFile("no_test.ts"), /is called "no_test\.ts"$/);
});

test("textTable() aligns numbers to the right, and ends lines early", () => {
  const lines = [["name", "n", ""], ["a", "12", "x"], ["longer", "3", ""]];
  assert.equal(
    textTable(lines, (column) => column === 1),
    "name     n\na       12  x\nlonger   3",
  );
});

test("npmTool() goes through a shell on Windows only, quoting for it", () => {
  const args = ["-p", "node@22", "a b"];
  assert.deepEqual(npmTool("npx", args, "linux"), {
    file: "npx",
    args,
    shell: false,
  });
  assert.deepEqual(npmTool("npx", args, "win32"), {
    file: "npx.cmd",
    args: ["-p", "node@22", '"a b"'],
    shell: true,
  });
});

test("childEnvironment() keeps the developer's app and npx to itself", () => {
  assert.deepEqual(
    childEnvironment({
      HOME: "/home",
      TIKTOK_SHOP_APP_SECRET: "secret",
      npm_command: "exec",
      npm_config_cache: "/cache",
      npm_config_package: "deno@2",
      npm_lifecycle_event: "npx",
      GONE: undefined,
    }),
    {
      HOME: "/home",
      npm_config_cache: "/cache",
      NO_COLOR: "1",
    },
  );
});

test("childEnvironment() keeps a proxy from this machine's servers", () => {
  const HTTPS_PROXY = "http://proxy.example:8080";
  const hosts = "localhost,127.0.0.1,::1,[::1]";
  for (
    const [set, wanted] of [
      [{}, hosts],
      [{ NO_PROXY: "a.example" }, `a.example,${hosts}`],
      [{ no_proxy: "b.example" }, `b.example,${hosts}`],
      [{ NO_PROXY: "a", no_proxy: "b,c" }, `a,b,c,${hosts}`],
      [{ NO_PROXY: "a", no_proxy: "a" }, `a,${hosts}`],
    ] as [Record<string, string>, string][]
  ) {
    const both = { NO_PROXY: wanted, no_proxy: wanted };
    assert.deepEqual(
      childEnvironment({ ...set, HTTPS_PROXY }),
      { ...both, HTTPS_PROXY, NO_COLOR: "1" },
    );
  }
});

test("run() tells a command that cannot be started as a failure", async () => {
  const { code, ok, output } = await run("tiktok-shop-no-such-command", []);
  assert.deepEqual({ code, ok }, { code: null, ok: false });
  assert.match(output, /tiktok-shop-no-such-command|ENOENT/);
});

test("run() kills what a command started, when it is aborted", {
  skip: process.platform === "win32",
}, async () => {
  const started = performance.now();
  const signal = AbortSignal.timeout(300);
  const script = "sleep 180 & sleep 180"; // either would hold the pipes open
  const { code, output } = await run("sh", ["-c", script], { signal });
  assert.equal(code, null);
  assert.match(output, /time/i);
  assert.ok(performance.now() - started < 120_000);
});

test("run() does not wait for what a command left behind", {
  skip: process.platform === "win32",
}, async () => {
  const started = performance.now();
  const { ok } = await run("sh", ["-c", "sleep 180 & exit 0"]);
  assert.ok(ok);
  assert.ok(performance.now() - started < 120_000);
});

// === scripts/build_npm.ts

test("compilerFlag() is auto unless one is named", () => {
  assert.equal(compilerFlag([]), "auto");
  assert.equal(compilerFlag(["--compiler", "dnt"]), "dnt");
  assert.equal(compilerFlag(["--compiler=tsc"]), "tsc");
});

test("compilerFlag() rejects what it does not know", () => {
  assert.throws(() => compilerFlag(["--compiler", "swc"]), {
    name: "TypeError",
    message: /"swc": use auto, dnt, tsc/,
  });
  assert.throws(() => compilerFlag(["--minify"]), TypeError);
  assert.throws(() => compilerFlag(["dnt"]), TypeError);
});

test("packageJson() points at the built files, declarations first", () => {
  const built = packageJson("1.2.3");
  assert.equal(built.version, "1.2.3");
  assert.deepEqual(built.bin, {
    "tiktok-shop-oauth2": "esm/scripts/npm_bin.js",
  });
  // What resolvers read that know no exports, as --moduleResolution node10.
  assert.deepEqual(
    [built.main, built.types],
    ["./esm/mod.js", "./esm/mod.d.ts"],
  );
  assert.equal(
    JSON.stringify(built.exports),
    JSON.stringify({
      ".": { types: "./esm/mod.d.ts", default: "./esm/mod.js" },
      "./sandbox": {
        types: "./esm/scripts/sandbox.d.ts",
        default: "./esm/scripts/sandbox.js",
      },
      "./testing": {
        types: "./esm/scripts/testing.d.ts",
        default: "./esm/scripts/testing.js",
      },
      "./package.json": "./package.json",
    }),
  );
});

test("importBuilt() renames relative modules and nothing else", () => {
  const text = `import { a } from "../../mod.ts"; // not "../../mod.ts" here
import fs from "node:fs";
import b from "b.ts";
export * from './x/y.ts';
`;
  const names = ["../../mod.ts", "node:fs", "b.ts", "./x/y.ts"];
  const imports = names.map((fileName) => ({
    fileName,
    pos: text.indexOf(fileName) - 1,
  }));
  assert.equal(
    importBuilt(text, imports),
    `import { a } from "../../mod.js"; // not "../../mod.ts" here
import fs from "node:fs";
import b from "b.ts";
export * from './x/y.js';
`,
  );
});

test("DNT_OPTIONS leave out every polyfill and know disposables", () => {
  assert.equal(DNT_OPTIONS.polyfills, false);
  const { lib } = DNT_OPTIONS.compilerOptions;
  assert.deepEqual(lib, ["ES2023", "ESNext.Disposable"]);
  assert.equal(DNT_OPTIONS.scriptModule, false);
  assert.deepEqual(DNT_OPTIONS.shims, {});
});

/** Serves a JSR that has the small package, but not dnt; or that is silent. */
async function withJsr(
  kind: "without dnt" | "silent",
  work: (env: Record<string, string>) => Promise<void>,
): Promise<void> {
  const source = "export const parseArgs = undefined;\n";
  const checksum = createHash("sha256").update(source).digest("hex");
  const file = { size: source.length, checksum: `sha256-${checksum}` };
  const answers: Record<string, unknown> = {
    "/@std/cli/meta.json": {
      ...{ scope: "std", name: "cli", latest: "1.0.0" },
      versions: { "1.0.0": {} },
    },
    "/@std/cli/1.0.0_meta.json": {
      manifest: { "/parse_args.ts": file },
      exports: { "./parse-args": "./parse_args.ts" },
    },
    "/@std/cli/1.0.0/parse_args.ts": source,
  };
  const server = createServer((request, response) => {
    if (kind === "silent") return;
    const found = answers[request.url ?? ""];
    response.statusCode = found === undefined ? 404 : 200;
    response.end(typeof found === "string" ? found : JSON.stringify(found));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  try {
    await work({ JSR_URL: `http://127.0.0.1:${port}/` });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const ONLY_DENO = !ON_DENO && "these scripts run on Deno";
const script = (name: string) =>
  runtimeCommand(path.join(ROOT, "scripts", name));

test("loadBuilder() falls back where dnt itself cannot be loaded", {
  skip: ONLY_DENO,
}, () =>
  withJsr("without dnt", async (env) => {
    const url = new URL("../../scripts/build_npm.ts", import.meta.url);
    const code = `const { loadBuilder } = await import("${url}");
      console.log((await loadBuilder("auto")).name);
      await loadBuilder("dnt");`;
    const line = ["eval", "--no-check", code];
    // With this process's registry of npm, which has the other compiler.
    const ended = await run(process.execPath, line, { env });
    const { code: status, stdout, stderr } = ended;
    assert.match(stdout, /^the TypeScript compiler \(Cannot load dnt: .*dnt/);
    assert.notEqual(status, 0);
    assert.match(stderr, /Cannot load dnt: jsr:@deno\/dnt/);
  }));

test("build_npm.ts removes nothing before its compiler is loaded", {
  skip: ONLY_DENO,
}, () =>
  withJsr("without dnt", async (env) => {
    const file = path.join(ROOT, "npm", `last-build-${process.pid}`);
    await fs.writeFile(file, "");
    try {
      const line = [...script("build_npm.ts"), "--compiler", "dnt"];
      const { code, stderr } = await start(line, { env, cwd: ROOT }).ended;
      assert.equal(code, 1);
      assert.match(stderr, /^Cannot load dnt: /m);
      await fs.access(file);
    } finally {
      await fs.rm(file, { force: true });
    }
  }));

test("deno.json publishes its exports, the demo and three texts", async () => {
  const text = await fs.readFile(path.join(ROOT, "deno.json"), "utf8");
  const { exports, publish } = JSON.parse(text);
  const files = new Set<string>(
    Object.values<string>(exports).map((name) => name.replace("./", "")),
  );
  files.add("scripts/demo.ts"); // mod.ts loads it by a computed name
  for (const file of files) { // a set grows while it is walked
    const source = await fs.readFile(path.join(ROOT, file), "utf8");
    for (const [, name] of source.matchAll(/^[^*\n]*from "(\.[^"]+)";$/gm)) {
      files.add(path.posix.join(path.posix.dirname(file), name!));
    }
  }
  const needed = [...files, "README.md", "CHANGELOG.md", "LICENSE"];
  // A folder stands for all that is in it.
  const entryOf = (file: string) =>
    publish.include.find((entry: string) =>
      entry === file || (entry.endsWith("/") && file.startsWith(entry))
    );
  for (const file of needed) assert.ok(entryOf(file), file);
  const used = new Set(needed.map(entryOf));
  assert.deepEqual(publish.include.toSorted(), [...used].toSorted());
});

test("the workflow pins its actions and publishes what was tested", async () => {
  const file = path.join(ROOT, ".github", "workflows", "ci.yml");
  const text = await fs.readFile(file, "utf8");
  const actions = [...text.matchAll(/uses: (.*)/g)].map(([, name]) => name!);
  assert.ok(actions.length > 5);
  for (const action of actions) {
    assert.match(action, /^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
  }
  const [, build, publish] = text.split(/^ {2}(?:build|publish):$/m);
  assert.match(build!, /PACKAGE_COMPILER: dnt/);
  assert.match(publish!, /npm publish \.\/packed\/\*\.tgz/);
  assert.doesNotMatch(publish!, /build_npm|build:npm|checkout@/);
});

// === scripts/docs.ts

test("docs.ts refuses what it does not know, before it builds", {
  skip: ONLY_DENO,
}, async () => {
  for (
    const [flags, says] of [
      [["--prot", "8000"], /--prot/],
      [["--", "--port", "eight"], /"eight"; use 0 to 65535/],
      [["--port", "70000"], /"70000"/],
      [["here"], /here/],
    ] as const
  ) {
    const { code, stderr } = await start([...script("docs.ts"), ...flags])
      .ended;
    assert.equal(code, 2, stderr);
    assert.match(stderr, says);
  }
});

test("docs.ts puts every export of mod.ts into a category", async () => {
  const text = await fs.readFile(path.join(ROOT, "mod.ts"), "utf8");
  const found = withCategories(text).matchAll(
    /\n \* @category \d\d (.*)\n \*\/\n(?:\/\/.*\n)*export (?:async )?\w+ (\w+)/g,
  );
  const exports = [...text.matchAll(/^export (?:async )?\w+ (\w+)/gm)];
  const names = exports.map(([, name]) => name!);
  const categories = new Map([...found].map(([, of, name]) => [name!, of!]));
  assert.deepEqual([...categories.keys()], [...new Set(names)]);
  assert.equal(categories.get("callApi"), "Signed API calls");
});

test("docs.ts builds pages that begin with the login, in the order of use", {
  skip: ONLY_DENO,
}, async () => {
  const line = [...script("docs.ts"), "--no-serve"];
  const { code, stderr } = await start(line, { cwd: ROOT }).ended;
  assert.equal(code, 0, stderr);
  const page = path.join(ROOT, ".cache", "docs", "index.html");
  const html = await fs.readFile(page, "utf8");
  const at = ["Login", "Tokens", "Signed API calls", "Errors"]
    .map((name) => html.search(`\\d\\d ${name}`));
  assert.deepEqual(at, at.toSorted((a, b) => a - b));
  assert.ok(at[0]! > 0);
});

test("docs.ts gives up on a JSR that accepts and stays silent", {
  skip: ONLY_DENO,
}, () =>
  withJsr("silent", async (env) => {
    const line = [...script("docs.ts"), "--", "--port", "0"];
    const { code, stderr } = await start(line, { env, cwd: ROOT }).ended;
    assert.equal(code, 1);
    assert.match(stderr, /Cannot serve the pages: .*no answer within 10 s/);
    assert.match(stderr, /Open .*index\.html instead/);
  }));

test("the scripts of the proof import nothing that only JSR has", async () => {
  const folder = path.join(ROOT, "scripts");
  const proof = ["bench.ts", "coverage.ts", "soak.ts", "test.ts", "tools.ts"];
  for (const name of ["build_npm.ts", "npm_bin.ts", ...proof]) {
    const text = await fs.readFile(path.join(folder, name), "utf8");
    assert.doesNotMatch(text, /from "(@|jsr:)|import\("/, name);
  }
});

test("the lock file of tests/package.json names no registry", async () => {
  const lock = path.join(ROOT, "tests", "package-lock.json");
  assert.doesNotMatch(await fs.readFile(lock, "utf8"), /"resolved"/);
});

// === scripts/test.ts

test("chooseSteps() takes all steps, or the named ones in their order", () => {
  assert.equal(chooseSteps([]), STEPS);
  assert.deepEqual(
    chooseSteps(["node22", "fmt"]).map((step) => step.name),
    ["fmt", "node22"],
  );
});

test("chooseSteps() takes quick for four steps", () => {
  const names = (args: string[]) => chooseSteps(args).map((step) => step.name);
  assert.deepEqual(names(["quick"]), ["fmt", "lint", "check", "quick"]);
  assert.deepEqual(names(["package", "lint", "quick"]), [
    ...["fmt", "lint", "check", "package", "quick"],
  ]);
  assert.ok(STEPS.every((step) => step.name !== "quick"));
});

test("screenOf() shows what a terminal shows in the end", () => {
  const link = "\x1b]8;;http://a\x1b\\http://a\x1b]8;;\x1b\\";
  const bytes = `one\r\n${link}\r\n4:59 left\r\x1b[2K\x1b[32mdone\x1b[0m\r\n`;
  assert.deepEqual(screenOf(bytes), [
    "one",
    "http://a",
    "\x1b[32mdone\x1b[0m",
    "",
  ]);
});

test("chooseSteps() answers an unknown name with the known ones", () => {
  assert.throws(() => chooseSteps(["fmt", "node18"]), {
    name: "RangeError",
    message: /"node18": there are fmt, lint, .*, node24, package, quick/,
  });
});

test("Each file with limits is there, and says what they are", async () => {
  for (const [name, { notQuick, oneNode }] of Object.entries(LIMITED)) {
    await testFile(`${name}_test.ts`);
    assert.ok(notQuick || oneNode, name);
  }
  const files = await testFiles();
  const quick = files.filter((file) =>
    !LIMITED[path.basename(file, "_test.ts")]?.notQuick
  );
  assert.ok(quick.length > files.length / 2, `${quick}`);
});

/** What a run prints, line by line and in odd pieces, as counted. */
function countsOf(output: string): RunningCounts["counts"] {
  const running = new RunningCounts();
  for (let i = 0; i < output.length; i += 7) {
    running.add(output.slice(i, i + 7));
  }
  return running.counts;
}

test("RunningCounts counts Deno's tests, not those that have steps", () => {
  assert.deepEqual(
    countsOf(`running 3 tests from ./tests/a_test.ts
alone ... ok (42µs)
suite ...
  a ... ok (1ms)
  b ... c ... FAILED (12ms)
suite ... FAILED (due to 1 failed step) (13ms)
todo ... ignored (0ms)
------- output -------
told ... by the test
----- output end -----
FAILED | 1 passed (1 step) | 1 failed (1 step) | 1 ignored (13ms)
`),
    { passed: 2, failed: 1, skipped: 1 },
  );
  assert.deepEqual(
    countsOf(`./tests/a_test.ts => alone ... ok (42µs)
./tests/b_test.ts => suite ... a ... ok (1ms)
./tests/a_test.ts => todo ... ignored (0ms)
./tests/b_test.ts => suite ... b ... FAILED (12ms)
./tests/b_test.ts => suite ... FAILED (due to 1 failed step) (13ms)
`),
    { passed: 2, failed: 1, skipped: 1 },
  );
});

test("RunningCounts counts Node's tests, not the suites, and once", () => {
  assert.deepEqual(
    countsOf(`✔ alone (0.4ms)
▶ suite
  ✔ a (210.5ms)
  ▶ inner
    ✖ b (12.1ms)
  ✖ inner (13.1ms)
✖ suite (224.2ms)
﹣ todo (0.1ms) # SKIP
ℹ tests 4
✖ failing tests:

test at tests/a_test.ts:1:2
✖ b (12.1ms)
`),
    { passed: 2, failed: 1, skipped: 1 },
  );
});

test("duration() is in seconds, then in minutes", () => {
  assert.equal(duration(1234), "1.2 s");
  assert.equal(duration(59_900), "59.9 s");
  assert.equal(duration(119_900), "2 min 0 s");
  assert.equal(duration(372_000), "6 min 12 s");
});

test("The driver says what it does, how long it took, and the counts", {
  skip: !ON_DENO && "the driver runs on Deno",
}, async () => {
  const driver = runtimeCommand(path.join(ROOT, "scripts", "test.ts"));
  const { stdout } = await start([...driver, "--", "lint"]).ended;
  assert.match(stdout, /^\.\.\. +lint +0\.0 s$/m);
  assert.match(stdout, /^(ok|FAILED) +lint +\d\S+ s$/m);
  assert.match(stdout, /\nTook \d.*s\n\n\d+ passed, \d+ failed\n$/);
  const unknown = await start([...driver, "lint", "nonsense"]).ended;
  assert.deepEqual([unknown.code, unknown.stdout], [2, ""]);
});

test("junitCounts() counts in Deno's report only tests without steps", () => {
  const counts = junitCounts(`<testsuites name="deno test" tests="6">
    <testsuite name="./tests/a_test.ts" tests="4">
        <testcase name="alone" classname="a" time="0.002" line="5" col="1">
        </testcase>
        <testcase name="suite" classname="a" time="0.003" line="6" col="1">
            <failure message="1 test step failed">1 test step failed</failure>
        </testcase>
        <testcase name="todo" classname="a" time="0.000" line="17" col="6">
            <skipped/>
        </testcase>
    </testsuite>
    <testsuite name="ext:deno_node/testing.ts" tests="2">
        <testcase name="suite &gt; a" classname="e" time="0.001">
        </testcase>
        <testcase name="suite &gt; b" classname="e" time="0.001">
            <failure message="Uncaught Error">Error: 1 &gt; 0</failure>
        </testcase>
    </testsuite>
</testsuites>`);
  assert.deepEqual(counts, { passed: 2, failed: 1, skipped: 1 });
});

test("junitCounts() counts the same in Node's report", () => {
  const counts = junitCounts(`<testsuites>
	<testcase name="alone > lonely" time="0.001280" classname="test"/>
	<testsuite name="suite" time="0.001154" tests="2" failures="1" skipped="0">
		<testcase name="a" time="0.000265" classname="test"/>
		<testcase name="b" time="0.000149" classname="test" failure="1 > 0">
			<failure type="testCodeFailure" message="1 > 0">
[Error: 1 > 0]
			</failure>
		</testcase>
	</testsuite>
	<testcase name="todo" time="0.000346" classname="test">
		<skipped type="todo" message="true"/>
	</testcase>
	<!-- tests 5 -->
</testsuites>`);
  assert.deepEqual(counts, { passed: 2, failed: 1, skipped: 1 });
});

test("junitCounts() finds no test in a report that is missing", () => {
  assert.deepEqual(junitCounts(""), { passed: 0, failed: 0, skipped: 0 });
});

test("total() counts a check as one, and a failure that no test shows", () => {
  const counts = { passed: 3, failed: 0, skipped: 2 };
  const output = "";
  assert.deepEqual(
    total([
      { ok: true, output },
      { ok: false, output },
      { ok: true, output, counts },
      { ok: false, output, counts },
      { ok: false, output, counts: { passed: 1, failed: 2, skipped: 0 } },
    ]),
    { passed: 8, failed: 4, skipped: 4 },
  );
});

test("summary() is the line that CI reads", () => {
  const counts = { passed: 12, failed: 0, skipped: 0 };
  assert.equal(summary(counts), "12 passed, 0 failed");
  assert.equal(
    summary({ ...counts, skipped: 3 }),
    "12 passed, 0 failed, 3 skipped",
  );
});

test("withoutPassed() leaves of a failed run what says why", () => {
  const node = `▶ doctor
  ✔ finds port: ok (210.5ms)
  ✖ finds port: problem (12.1ms)
  ﹣ is for Windows (0.1ms) # SKIP
▶ doctor
✔ signature() signs an empty query (0.4ms)
  Error: 1 !== 2`;
  assert.equal(
    withoutPassed(node),
    "▶ doctor\n  ✖ finds port: problem (12.1ms)\n" +
      "▶ doctor\n  Error: 1 !== 2",
  );
  const deno = `running 3 tests from ./tests/a_test.ts
a ... ok (42µs)
./tests/a_test.ts => b ... FAILED (1s)
./tests/a_test.ts => c ... ignored (0ms)
error: Error: 1 !== 2`;
  assert.equal(
    withoutPassed(deno),
    "running 3 tests from ./tests/a_test.ts\n" +
      "./tests/a_test.ts => b ... FAILED (1s)\nerror: Error: 1 !== 2",
  );
});

test("table() has a line for each step that ran tests", () => {
  const counts = { passed: 12, failed: 0, skipped: 3 };
  const rows = [
    { name: "fmt", outcome: { ok: true, output: "" } },
    {
      name: "deno",
      outcome: { ok: true, output: "", counts, runtime: "Deno 2" },
    },
  ];
  assert.deepEqual(table(rows).split("\n"), [
    "step  runtime  passed  failed  skipped",
    "deno  Deno 2       12       0        3",
  ]);
  assert.equal(table(rows.slice(0, 1)), "");
});

// === scripts/bench.ts

const FIGURE: Figure = {
  row: "start",
  runtime: "Deno 2",
  what: "start, --version",
  ours: 25,
  against: "an empty module",
  theirs: 20,
  unit: "ms",
  ratio: 1.254,
  rounds: 41,
};

test("median() is the middle, or between the two in the middle", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 3, 2]), 2.5);
});

test("isMet() judges the ratio as it is printed", () => {
  assert.equal(isMet(FIGURE), undefined);
  assert.equal(isMet({ ...FIGURE, aim: 1.25 }), true);
  assert.equal(isMet({ ...FIGURE, aim: 1.24 }), false);
});

test("readBenchSettings() takes all rows, or the named ones in order", () => {
  const all = readBenchSettings([]);
  assert.deepEqual(all.rows, ROWS);
  assert.deepEqual(all.runtimes, ["deno", "node22", "node24"]);
  assert.equal(all.rounds, undefined);
  const args = ["callers", "start", "--rounds", "9", "--on", "node24"];
  const some = readBenchSettings(args);
  assert.deepEqual(some.rows.map((row) => row.name), ["start", "callers"]);
  assert.deepEqual([some.rounds, some.runtimes], [9, ["node24"]]);
});

test("readBenchSettings() rejects what it does not know", () => {
  const wrong: [string[], RegExp][] = [
    [["speed"], /"speed": there are start, import, .*, refresh/],
    [["--on", "bun"], /"bun": use deno, node22, node24/],
    [["--rounds", "0"], /0 rounds: give a number/],
  ];
  for (const [args, message] of wrong) {
    assert.throws(() => readBenchSettings(args), {
      name: "RangeError",
      message,
    });
  }
});

test("figureTable() has a line for each figure", () => {
  const large = { ...FIGURE, unit: "MiB", ours: 123.4, theirs: 100 };
  const lines = figureTable([{ ...FIGURE, aim: 1.25 }, large]).split("\n");
  const [head, first, second] = lines;
  assert.match(head!, /^row +on +what +ours +against +theirs +ratio +aim$/);
  assert.match(
    first!,
    / 25\.0 ms +an empty module +20\.0 ms +1\.25 +≤ 1\.25 +met$/,
  );
  assert.match(second!, / 123 MiB +an empty module +100 MiB +1\.25$/);
});

test("The bench measures a row and prints it as JSON", {
  skip: !ON_DENO && "the bench runs on Deno",
}, async () => {
  const bench = runtimeCommand(path.join(ROOT, "scripts", "bench.ts"));
  const args = ["--on", "deno", "--quick", "--json", "end", "callers"];
  const { code, stdout, stderr } = await start([...bench, ...args]).ended;
  assert.equal(code, 0, stderr);
  const { figures, skipped } = JSON.parse(stdout);
  assert.deepEqual(skipped, []);
  assert.equal(figures.length, 2);
  for (const { ours, theirs, ratio, rounds } of figures) {
    assert.ok(ours > 0 && theirs > 0 && ratio > 0);
    assert.equal(rounds, 3);
  }
});

// === scripts/soak.ts

test("readSettings() takes all soaks, or those that are named", () => {
  const { soaks, seed, runtimes } = readSettings([]);
  assert.deepEqual(soaks, SOAKS);
  assert.ok(Number.isInteger(seed));
  assert.deepEqual(runtimes, ["deno", "node"]);
  const some = ["kills", "--seed", "7", "--count", "9", "--on", "node"];
  assert.deepEqual(readSettings(some), {
    soaks: [{ name: "kills", file: "never_lose_test.ts", count: 9 }],
    seed: 7,
    runtimes: ["node"],
  });
});

test("readSettings() rejects what it does not know", () => {
  assert.throws(() => readSettings(["floods"]), /"floods": there are callers/);
  assert.throws(() => readSettings(["--on", "bun"]), /use deno or node/);
  assert.throws(() => readSettings(["--seed", "x"]), RangeError);
  assert.throws(() => readSettings(["--forever"]), TypeError);
});

test("The soaks are files of tests that obey their count", async () => {
  for (const { file } of SOAKS) {
    const found = path.join(ROOT, await testFile(file));
    const text = await fs.readFile(found, "utf8");
    assert.match(text, /howOften\(/, file);
  }
});

test("noteTable() has a line for each note, by runtime", () => {
  const rows = [
    { name: "kills", runtime: "deno", notes: [{ what: "kills", value: 9 }] },
    { name: "kills", runtime: "node", notes: [{ what: "kills", value: 8 }] },
  ];
  assert.deepEqual(noteTable(rows).split("\n"), [
    "soak   what   deno  node",
    "kills  kills     9     8",
  ]);
});

// === scripts/coverage.ts

test("readLcov() adds up what was reached", () => {
  const lcov = "SF:mod.ts\nFNF:4\nFNH:3\nBRF:6\nBRH:5\n" +
    "DA:1,2\nDA:2,0\nDA:3,0\nDA:7,0\nLH:1\nLF:4\nend_of_record\n";
  const { missed, ...rest } = readLcov(lcov);
  assert.deepEqual(rest, {
    lines: [1, 4],
    branches: [5, 6],
    functions: [3, 4],
  });
  assert.deepEqual(ranges(missed), [[2, 3], [7, 7]]);
});
