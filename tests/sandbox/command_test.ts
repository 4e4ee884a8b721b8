/** The sandbox as a program: by itself, as a command, and by URL. */
import assert from "node:assert/strict";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { SANDBOX_FAULTS, startSandbox } from "../../scripts/sandbox.ts";
import {
  type Ended,
  NO_WINDOWS,
  ON_DENO,
  ON_WINDOWS,
  programCommand,
  ROOT,
  type Running,
  runProgram,
  runtimeCommand,
  skipIf,
  start,
  temporaryFolder,
} from "../support/helpers.ts";

// === Helpers

const SCRIPT = runtimeCommand(join(ROOT, "scripts", "sandbox.ts"));

function run(...args: string[]): Promise<Ended> {
  return start([...SCRIPT, ...args]).ended;
}

/** Serves while a test works, and ends by Ctrl-C. */
async function serving(
  command: string[],
  work: (running: Running) => Promise<void>,
): Promise<Ended> {
  const running = start([...command, "--port", "0"], { input: "open" });
  try {
    await running.until(/Ctrl-C stops it/);
    await work(running);
  } finally {
    // After child.kill() Deno tells the signal and not the exit code.
    process.kill(running.child.pid!, "SIGINT");
  }
  const ended = await running.ended;
  // Windows has no signals: there it is simply ended.
  if (!ON_WINDOWS) assert.equal(ended.code, 130, ended.stderr);
  return ended;
}

function variablesOf(stdout: string): Record<string, string> {
  const lines = stdout.trim().split("\n");
  return Object.fromEntries(
    lines.map((line) => [line.split("=")[0], line.replace(/^.*?=/, "")]),
  );
}

const NAMES = [
  "TIKTOK_SHOP_APP_KEY",
  "TIKTOK_SHOP_APP_SECRET",
  "TIKTOK_SHOP_SERVICE_ID",
  "TIKTOK_SHOP_AUTHORIZATION_ENDPOINT",
  "TIKTOK_SHOP_TOKEN_ENDPOINT",
  "TIKTOK_SHOP_REFRESH_ENDPOINT",
  "TIKTOK_SHOP_API_ENDPOINT",
];

async function ask(
  url: string,
  query: Record<string, string> = {},
  init: RequestInit = {},
): Promise<Response> {
  const answer = await fetch(`${url}?${new URLSearchParams(query)}`, {
    redirect: "manual",
    ...init,
  });
  await answer.text();
  return answer;
}

// === Serving

describe("sandbox serves", () => {
  it("until Ctrl-C, and tells no secret of a request", async () => {
    let code = "";
    const { stdout, stderr } = await serving(
      [...SCRIPT, "--env", "--fault", "503"],
      async ({ output, until }) => {
        const env = variablesOf(output.stdout);
        const link = env.TIKTOK_SHOP_AUTHORIZATION_ENDPOINT!;
        const query = {
          service_id: env.TIKTOK_SHOP_SERVICE_ID!,
          state: "my-state",
        };
        const clicked = await ask(link, query, {
          method: "POST",
          body: new URLSearchParams({ decision: "approve" }),
        });
        const redirect = new URL(clicked.headers.get("location")!);
        code = redirect.searchParams.get("code")!;
        const spoilt = await ask(env.TIKTOK_SHOP_TOKEN_ENDPOINT!, {
          app_key: env.TIKTOK_SHOP_APP_KEY!,
          app_secret: env.TIKTOK_SHOP_APP_SECRET!,
          auth_code: code,
          grant_type: "authorized_code",
        });
        assert.equal(spoilt.status, 503);
        await until(/auth_code=\*{3}&grant_type=authorized_code 503 \[503\]/);
      },
    );
    const env = variablesOf(stdout);
    assert.deepEqual(Object.keys(env), NAMES);
    // Its own credentials open nothing elsewhere, and are there to be pasted.
    const [, lines = ""] = stderr.split("Ctrl-C stops it.");
    for (const secret of [code, env.TIKTOK_SHOP_APP_SECRET!, "my-state"]) {
      assert.equal(lines.includes(secret), false, secret);
    }
  });

  it("exports for a shell, and tells what other clients need", async () => {
    const { stdout, stderr } = await serving(SCRIPT, () => Promise.resolve());
    const env = variablesOf(stdout);
    const names = NAMES.map((name) => `export ${name}`);
    assert.deepEqual(Object.keys(env), names);
    assert.match(stderr, /not TikTok/);
    for (const value of Object.values(env)) {
      assert.ok(stderr.includes(value), value);
    }
  });

  it("lines of JSON, the settings first", async () => {
    const { stdout, stderr } = await serving(
      [...SCRIPT, "--json"],
      async ({ output, until }) => {
        const settings = JSON.parse(output.stdout);
        await ask(`${settings.apiEndpoint}/authorization/202309/shops`, {
          app_key: settings.appKey,
          timestamp: `${Math.floor(Date.now() / 1000)}`,
          sign: "not-a-sign",
          access_token: "not-a-token",
        });
        await until(/106001/);
      },
    );
    const [settings, request] = stdout.trim().split("\n")
      .map((line) => JSON.parse(line));
    assert.equal(settings.env.TIKTOK_SHOP_API_ENDPOINT, settings.origin);
    assert.equal(settings.tokenEndpoint, `${settings.origin}/api/v2/token/get`);
    assert.deepEqual(request.explanation.mistakes, []);
    const { time, query, explanation: _, ...rest } = request;
    assert.ok(Math.abs(Date.parse(time) - Date.now()) < 600_000);
    assert.deepEqual([query.sign, query.access_token], ["***", "***"]);
    assert.deepEqual(rest, {
      method: "GET",
      path: "/authorization/202309/shops",
      status: 401,
      code: 106001,
      note: "Invalid credentials. The `sign` query parameter is invalid.",
      faults: [],
    });
    assert.doesNotMatch(stdout + stderr, /not-a-(sign|token)/);
  });

  it("and says what is wrong with a signature", async () => {
    const { stderr } = await serving(SCRIPT, async ({ output, until }) => {
      const env = variablesOf(output.stdout.replaceAll("export ", ""));
      await ask(`${env.TIKTOK_SHOP_API_ENDPOINT}/order/202309/orders`, {
        app_key: env.TIKTOK_SHOP_APP_KEY!,
        timestamp: `${Date.now()}`,
        sign: "x",
      });
      await until(/^ {2}The timestamp was signed in milliseconds/m);
    });
    const line =
      /^GET \/order.* 400 36009004 Invalid timestamp\. The value of/m;
    assert.match(stderr, line);
  });

  it("and hides secrets that an answer repeats", async () => {
    const { stderr } = await serving(
      [...SCRIPT, "--env"],
      async ({ output, until }) => {
        const env = variablesOf(output.stdout);
        const query = {
          service_id: env.TIKTOK_SHOP_SERVICE_ID!,
          fault: "awkward-code,echo-secret",
        };
        const link = env.TIKTOK_SHOP_AUTHORIZATION_ENDPOINT!;
        const clicked = await ask(link, query, {
          method: "POST",
          body: new URLSearchParams({ decision: "approve" }),
        });
        const redirect = new URL(clicked.headers.get("location")!);
        const code = redirect.searchParams.get("code")!;
        await ask(env.TIKTOK_SHOP_TOKEN_ENDPOINT!, {
          app_secret: "of-mine",
          auth_code: code,
        });
        await until(/36009004 cannot handle http\S+app_secret=\*{3}&auth_code/);
      },
    );
    assert.doesNotMatch(stderr, /of-mine|ROW_/);
  });

  it("answers of one's own from a file", async (t) => {
    const folder = await temporaryFolder();
    t.after(folder[Symbol.asyncDispose]);
    const file = join(folder.path, "routes.json");
    await writeFile(file, '\ufeff{"GET /x/202309/y": {"data": {"id": "1"}}}');
    await serving([...SCRIPT, "--routes", file], async ({ output, until }) => {
      const env = variablesOf(output.stdout.replaceAll("export ", ""));
      await ask(`${env.TIKTOK_SHOP_API_ENDPOINT}/x/202309/y`);
      await until(/^GET \/x\/202309\/y 400 36009004 .*`app_key`/m);
      await ask(`${env.TIKTOK_SHOP_API_ENDPOINT}/x/202309/z`);
      await until(/^GET \/x\/202309\/z 404 36009009/m);
    });
  });

  it("on, when nobody reads its stdout any more", NO_WINDOWS, async () => {
    await serving([...SCRIPT, "--json"], async (running) => {
      const { origin } = JSON.parse(running.output.stdout);
      running.child.stdout!.destroy();
      for (let n = 0; n < 20; n++) await ask(`${origin}/x`);
      assert.equal((await ask(`${origin}/x`)).status, 404);
    });
  });
});

// === Usage

/** Command lines that are refused, and what is said. */
const WRONG: [string[], string | RegExp][] = [
  [["--colour"], 'Unknown option "--colour"; see --help\n'],
  [["-p", "1"], 'Unknown option "-p"; see --help\n'],
  [["serve-it"], 'Unexpected argument "serve-it"; see --help\n'],
  [["--port"], '"--port" needs a value\n'],
  [["--port", "70000"], 'Not a port: "70000"; use 0 to 65535\n'],
  [["--env=yes"], '"--env" takes no value\n'],
  [["--seed", "1", "--seed", "2"], 'Option "--seed" is given twice\n'],
  [["--env", "--json"], "Give --env or --json, not both\n"],
  [["--fault", "nope"], /^Unknown fault "nope"; known are .*deny/],
  [["--redirect-url", "x"], /^Not an http or https redirect URL: "x"\n$/],
  [["--routes", "no/such.json"], /^Cannot read the routes in "no\/such\.json"/],
];

/** Files of routes that are refused. */
const WRONG_ROUTES: [string, RegExp][] = [
  ["{", /Cannot read the routes in ".*": .*JSON/],
  ["[]", /write \{"METHOD \/path": \{"data": …\}\}/],
  ['{"GET /x": {"data": 1}, "y": 1}', /Cannot read the route "y"/],
  ['{"GET /x": {"dat": 1}}', /Cannot answer "GET \/x" so: give \{"data": …\}/],
  [
    '{"GET /x": {"data": [7495540735365777507]}}',
    /write the number 7495540735365777507 as a text/,
  ],
];

describe("sandbox refuses", () => {
  it("wrong usage, in one line", async () => {
    for (const [args, says] of WRONG) {
      const { code, stdout, stderr } = await run(...args);
      assert.deepEqual([code, stdout], [2, ""], stderr);
      if (typeof says === "string") assert.equal(stderr, says);
      else assert.match(stderr, says);
    }
  });

  it("routes that it cannot use", async (t) => {
    const folder = await temporaryFolder();
    t.after(folder[Symbol.asyncDispose]);
    const file = join(folder.path, "routes.json");
    for (const [text, says] of WRONG_ROUTES) {
      await writeFile(file, text);
      const { code, stderr } = await run("--port", "0", "--routes", file);
      assert.equal(code, 2, stderr);
      assert.match(stderr, says);
    }
  });

  it("a port that is in use, in one sentence", async () => {
    const { port, stop } = await startSandbox();
    const { code, stdout, stderr } = await run(`--port=${port}`);
    await stop();
    const says = `Cannot listen on port ${port}: it is in use\n`;
    assert.deepEqual([code, stdout, stderr], [1, "", says]);
  });
});

// === As a command

describe("the program's sandbox", () => {
  it("has its flags and faults in its help, within 80 columns", async () => {
    const { code, stdout } = await runProgram(["sandbox", "--help"]);
    assert.equal(code, 0);
    assert.match(stdout, /^Usage: tiktok-shop-oauth2 sandbox/m);
    for (const fault of SANDBOX_FAULTS) {
      assert.ok(stdout.includes(`\n  ${fault} `), fault);
    }
    const lines = stdout.split("\n");
    assert.deepEqual(lines.filter((line) => line.length > 80), []);
    const { stdout: own } = await runProgram(["--help"]);
    assert.match(own, /^ {2}sandbox {2,}\w.*\n {2}demo {2,}\w/m);
  });

  it("reads its own flags, and ends with its own exit code", async () => {
    await serving(
      programCommand(["sandbox", "--env"]),
      async ({ output }) => {
        const env = variablesOf(output.stdout);
        const answer = await ask(env.TIKTOK_SHOP_TOKEN_ENDPOINT!);
        assert.equal(answer.status, 200);
      },
    );
    const wrong = await runProgram(["sandbox", "--app-key", "x"]);
    assert.equal(wrong.stderr, 'Unknown option "--app-key"; see --help\n');
    assert.equal(wrong.code, 2);
    const demo = await runProgram(["demo", "now"]);
    assert.deepEqual([demo.code, demo.stdout], [2, ""]);
  });

  it("says what is missing where mod.ts stands alone", async (t) => {
    const folder = await temporaryFolder();
    t.after(folder[Symbol.asyncDispose]);
    const copy = join(folder.path, "mod.ts");
    await copyFile(join(ROOT, "mod.ts"), copy);
    for (const name of ["sandbox", "demo"]) {
      const command = [...runtimeCommand(copy), name];
      const { code, stdout, stderr } = await start(command).ended;
      assert.deepEqual([code, stdout], [1, ""]);
      const says = `^error: Cannot load ".*/scripts/${name}\\.ts", which the ` +
        "repository and the npm package have: ";
      assert.match(stderr, new RegExp(says));
    }
  });

  it("runs by URL, and is downloaded by nobody else", {
    ...skipIf(!ON_DENO, "Node imports nothing by URL"),
  }, async () => {
    const asked: string[] = [];
    const server = createServer(async (request, response) => {
      asked.push(request.url!);
      response.setHeader("content-type", "application/typescript");
      response.end(await readFile(join(ROOT, request.url!)));
    });
    await new Promise<void>((resolve) =>
      server.listen(0, "127.0.0.1", resolve)
    );
    const { port } = server.address() as AddressInfo;
    const module = `http://127.0.0.1:${port}/mod.ts`;
    try {
      const version = await start([...runtimeCommand(module), "--help"]).ended;
      assert.equal(version.code, 0, version.stderr);
      assert.deepEqual(asked, ["/mod.ts"]);
      const command = [...runtimeCommand(module), "sandbox", "--env"];
      const { stdout } = await serving(command, () => Promise.resolve());
      assert.deepEqual(Object.keys(variablesOf(stdout)), NAMES);
      const demo = await start([...runtimeCommand(module), "demo"], {
        env: { CI: "1" },
      }).ended;
      assert.equal(demo.code, 0, demo.stderr);
      assert.equal(JSON.parse(demo.stdout).code, 0);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });
});
