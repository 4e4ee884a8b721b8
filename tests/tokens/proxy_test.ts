/**
 * Requests of a login or a call to this machine go through no proxy: it would
 * read their secrets. A real proxy listens, and must get nothing.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createServer as createHttps } from "node:https";
import { createServer } from "node:net";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { callApi, exchangeCode, memoryStore } from "../../mod.ts";
import { issueCertificate } from "../support/certificate.ts";
import { withCli } from "../support/cli_fixture.ts";
import {
  freePort,
  ON_DENO,
  ROOT,
  runtimeCommand,
  start,
} from "../support/helpers.ts";
import {
  answer,
  APP,
  failure,
  type HostHandler,
  REPLY,
  withFolder,
  withHost,
  withSandbox,
} from "../support/token_host.ts";

const NAMES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/** The environment of a machine whose requests should all take a proxy. */
function proxied(url: string): Record<string, string> {
  const both = NAMES.flatMap((name) => [name, name.toLowerCase()]);
  const variables = Object.fromEntries(both.map((name) => [name, url]));
  const quiet = { NODE_NO_WARNINGS: "1" };
  return { ...variables, ...quiet, NODE_USE_ENV_PROXY: "1" };
}

/** Runs beside a proxy; `reached` has the first line of whatever came. */
async function withProxy(
  run: (env: Record<string, string>, reached: string[]) => Promise<unknown>,
): Promise<void> {
  const reached: string[] = [];
  const proxy = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (data) => {
      reached.push(String(data).split("\r\n")[0]!);
      socket.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    });
  });
  await new Promise<void>((done) => proxy.listen(0, "127.0.0.1", done));
  const { port } = proxy.address() as { port: number };
  try {
    await run(proxied(`http://127.0.0.1:${port}`), reached);
  } finally {
    await new Promise((done) => proxy.close(done));
  }
}

/** Runs a script that has the library, and what it printed. */
async function runScript(
  lines: string,
  env: Record<string, string>,
  permissions = ["-A"],
): Promise<string> {
  return await withFolder(async (folder) => {
    const file = join(folder, "script.ts");
    const library = JSON.stringify(
      new URL("../../mod.ts", import.meta.url).href,
    );
    await writeFile(
      file,
      `import process from "node:process";
       import { exchangeCode } from ${library};
       const app = ${JSON.stringify(APP)};
       const ask = (tokenEndpoint) =>
         exchangeCode(app, "ROW_code", { tokenEndpoint })
           .then(({ data }) => data.open_id, (error) => String(error));
       ${lines}`,
    );
    const words = runtimeCommand(file)
      .flatMap((word) => word === "-A" ? permissions : [word]);
    const { stdout, stderr, code } = await start(words, { env }).ended;
    assert.equal(code, 0, stderr);
    return stdout.trim();
  });
}

describe("a proxy is not asked for this machine", () => {
  it("by login, refresh, token, shops, api and doctor", () =>
    withProxy((env, reached) =>
      withCli(async (cli) => {
        const login = await cli.login([], { env });
        assert.equal(login.code, 0, login.stderr);
        const post = ["api", "POST", "/echo/202309/x", "--body", '{"a":"é"}'];
        for (
          const args of [["refresh"], ["token"], ["shops"], post, ["doctor"]]
        ) {
          const { code, stderr } = await cli.run(args, { env });
          assert.equal(code, 0, stderr);
        }
        assert.deepEqual(reached, []);
      })
    ));

  for (const name of NAMES.flatMap((each) => [each, each.toLowerCase()])) {
    it(`where ${name} alone is set`, () =>
      withProxy(({ HTTP_PROXY = "" }, reached) =>
        withHost(() => answer(), async ({ tokenEndpoint }) => {
          const lines = `console.log(await ask("${tokenEndpoint}"));`;
          const env = { [name]: HTTP_PROXY, NODE_USE_ENV_PROXY: "1" };
          assert.equal(await runScript(lines, env), REPLY.data.open_id);
          assert.deepEqual(reached, []);
        })
      ));
  }

  for (const host of ["localhost", "127.0.0.1", "127.8.9.10"]) {
    it(`by its address ${host}, nor after fetch was used, nor by a child`, () =>
      withProxy((env, reached) =>
        withHost(() => answer(), async ({ tokenEndpoint }) => {
          const url = tokenEndpoint.replace("127.0.0.1", host);
          const lines = `
            await fetch("http://192.0.2.1/first").catch(() => {});
            const { spawnSync } = process.getBuiltinModule("child_process");
            console.log(await ask("${url}"), process.env.NO_PROXY);
            const { stdout } = spawnSync("sh", ["-c", "echo $NO_PROXY"]);
            console.log(String(stdout).trim());`;
          const kept = { ...env, NO_PROXY: "example.com,10.0.0.0/8" };
          const [, said = "", child] =
            /^(.*)\n(.*)$/.exec(await runScript(lines, kept)) ?? [];
          // 127.8.9.10 is a loopback address, but nothing listens there.
          if (host === "127.8.9.10") assert.match(said, /network|refused/i);
          else assert.ok(said.startsWith(REPLY.data.open_id), said);
          assert.ok(said.endsWith(" example.com,10.0.0.0/8"), said);
          assert.equal(child, "example.com,10.0.0.0/8");
          assert.ok(
            reached.every((line) => /192\.0\.2\.1/.test(line)),
            `${reached}`,
          );
          assert.ok(reached.length > 0, "the proxy is in use");
        })
      ));
  }

  it(
    "though a host program has made the runtime use one",
    {
      skip: ON_DENO && "Deno has no such dispatcher",
    },
    () =>
      withProxy((env, reached) =>
        withHost(() => answer(), async ({ tokenEndpoint }) => {
          const lines = `
          for (const name of Object.keys(process.env)) {
            if (/proxy/i.test(name)) delete process.env[name];
          }
          console.log(await ask("${tokenEndpoint}"));`;
          assert.equal(await runScript(lines, env), REPLY.data.open_id);
          assert.deepEqual(reached, []);
        })
      ),
  );

  it("over https", {
    skip: spawnSync("openssl", ["version"]).status !== 0 &&
      "openssl makes the certificate",
  }, () =>
    withProxy((env, reached) =>
      withFolder(async (folder) => {
        const { authority, ...pair } = issueCertificate();
        const body = JSON.stringify(REPLY);
        const server = createHttps(pair, (_, reply) => reply.end(body));
        const port = await freePort();
        await new Promise<void>((done) =>
          server.listen(port, "127.0.0.1", done)
        );
        const file = join(folder, "authority.pem");
        await writeFile(file, authority);
        try {
          const said = await runScript(
            `console.log(await ask("https://localhost:${port}/"));`,
            { ...env, DENO_CERT: file, NODE_EXTRA_CA_CERTS: file },
          );
          assert.equal(said, REPLY.data.open_id);
          assert.deepEqual(reached, []);
        } finally {
          await new Promise((done) => server.close(done));
        }
      })
    ));

  it(
    "where the environment may not be read",
    {
      skip: !ON_DENO && "Node needs no permission",
    },
    () =>
      withProxy((env, reached) =>
        withHost(() => answer(), async ({ tokenEndpoint }) => {
          const lines = `console.log(await ask("${tokenEndpoint}"));`;
          const permissions = ["--no-prompt", "--allow-net", "--allow-read"];
          const said = await runScript(lines, env, permissions);
          assert.equal(said, REPLY.data.open_id);
          assert.deepEqual(reached, []);
        })
      ),
  );

  it("but for another host it is", () =>
    withProxy(async (env, reached) => {
      const lines = `console.log(await ask("https://token.invalid/"));`;
      await runScript(lines, env);
      assert.match(reached[0] ?? "", /^CONNECT token\.invalid:443 /);
    }));
});

/** What a host does, and how the exchange of a code ends. */
const HOSTS: [name: string, handler: HostHandler, message: RegExp][] = [
  [
    "follows no redirect",
    () => answer("", { status: 302, headers: { location: "/x" } }),
    /a redirect/,
  ],
  ["tells a body cut off", () => answer().subarray(0, -20), /Cannot get/],
  [
    "tells a connection cut off",
    (_, __, socket) => void socket.destroy(),
    /Cannot get/,
  ],
  ["tells another protocol", () => "SSH-2.0-OpenSSH\r\n\r\n", /Cannot get/],
  ["tells an empty reply", () => answer(""), /an empty body/],
  ["tells HTTP 204", () => answer("", { status: 204 }), /HTTP 204/],
  ["refuses an endless body", (_, __, socket) => {
    socket.write("HTTP/1.1 200 OK\r\n\r\n");
    const timer = setInterval(() => socket.write(" ".repeat(1 << 18)), 2);
    socket.on("close", () => clearInterval(timer));
  }, /larger than 1048576 bytes/],
];

describe("past a proxy that is set", () => {
  /**
   * Sets a variable that mod.ts heeds and no runtime does: the files of tests
   * that run at the same time share one environment on Deno.
   */
  const withVariable = async (run: () => Promise<unknown>) => {
    process.env.Http_Proxy = "http://127.0.0.1:9";
    try {
      await run();
    } finally {
      delete process.env.Http_Proxy;
    }
  };

  for (const [name, handler, message] of HOSTS) {
    it(`exchangeCode() ${name}`, () =>
      withVariable(() =>
        withHost(handler, async ({ tokenEndpoint }) => {
          const asked = exchangeCode(APP, "ROW_code", { tokenEndpoint });
          assert.match((await failure(asked)).message, message);
        })
      ));
  }

  it("exchangeCode() waits no longer than it should", () =>
    withVariable(() =>
      withHost(() => {}, async ({ tokenEndpoint }) => {
        const options = { tokenEndpoint, requestTimeout: "1s" };
        const asked = exchangeCode(APP, "ROW_code", options);
        assert.match((await failure(asked)).message, /no answer within 1 s/);
      })
    ));

  it("exchangeCode() can be aborted", () =>
    withVariable(() =>
      withHost(() => {}, async ({ tokenEndpoint }) => {
        const signal = AbortSignal.timeout(100);
        const options = { tokenEndpoint, signal };
        await failure(exchangeCode(APP, "ROW_code", options), "cancelled");
      })
    ));

  it("callApi() has its signatures accepted for every kind of body", () =>
    withVariable(() =>
      withSandbox(async (sandbox) => {
        const store = memoryStore();
        const code = sandbox.issueCode();
        const reply = await exchangeCode(sandbox, code, sandbox);
        await store.save("default", { ...reply, meta: {} });
        const form = new FormData();
        form.append("data", new Blob(["é"]), "a.txt");
        const bodies = [undefined, { a: "é" }, '{"a":1}', form];
        for (const body of [...bodies, new TextEncoder().encode("[1]")]) {
          const request = { method: "POST", path: "/echo/202309/x", body };
          const options = { ...sandbox, store };
          assert.equal((await callApi(request, options)).code, 0);
        }
      })
    ));
});

describe("a machine that sends every request through a proxy", () => {
  it("runs the demo", async () => {
    const demo = runtimeCommand(join(ROOT, "scripts", "demo.ts"));
    const env = proxied("http://127.0.0.1:9");
    const { code, stdout, stderr } = await start(demo, { env }).ended;
    assert.equal(code, 0, stderr);
    assert.equal(JSON.parse(stdout).message, "success");
  });
});
