/**
 * The callback over https, with certificates made by openssl, and what is said
 * if http and https are mixed up: by the program, then by the library.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { request } from "node:https";
import { connect } from "node:tls";
import { describe, it, test } from "node:test";
import { type Certificate, makeCertificate } from "../support/certificate.ts";
import { type CliFixture, withCli } from "../support/cli_fixture.ts";
import {
  ENCODINGS,
  freePort,
  isListening,
  ON_DENO,
  TOGETHER,
} from "../support/helpers.ts";
import {
  allDropped,
  assertSafe,
  assertWaits,
  dropSockets,
  type HeldSocket,
  holdSockets,
  loginTest,
  LOOPBACKS,
  portClosed,
  type Shown,
  startLogin,
  targetOf,
} from "../support/callback_helpers.ts";
import { within } from "../support/timing.ts";

let made: Certificate | undefined;

/** A certificate for localhost, the same for all tests. */
function certificate(): Certificate {
  return made ??= makeCertificate();
}

/** The flags for a pair, written to files with a space in their path. */
async function tlsFlags(
  cli: CliFixture,
  { cert, key }: Certificate = certificate(),
): Promise<string[]> {
  return [
    ...["--tls-cert", await cli.write("our cert.pem", cert)],
    ...["--tls-key", await cli.write("our key.pem", key)],
  ];
}

/** Opens a URL at one address, like a browser that trusts the certificate. */
function show(url: string, address: string): Promise<string> {
  const { host, port, pathname, search } = new URL(url);
  return new Promise((resolve, reject) => {
    request({
      host: address,
      port,
      path: pathname + search,
      headers: { Host: host },
      servername: "localhost",
      ca: certificate().cert,
    }, (response) => {
      let page = `${response.statusCode} `;
      response.setEncoding("utf8").on("data", (text) => page += text);
      response.on("end", () => resolve(page));
    }).once("error", reject).end();
  });
}

/** A CLI fixture whose app redirects to https. */
async function withTlsCli(
  run: (cli: CliFixture) => Promise<unknown>,
): Promise<void> {
  await withCli(run, {
    redirectUrl: `https://localhost:${await freePort()}/`,
  });
}

// === The program

describe("login with --tls-cert and --tls-key", TOGETHER, () => {
  for (const address of ["127.0.0.1", "::1"]) {
    it(`takes the redirect by https on ${address}`, () =>
      withTlsCli(async (cli) => {
        const { link, ended, until } = await cli.open(await tlsFlags(cli));
        const { redirectUrl } = cli.sandbox;
        await until(new RegExp(`Waiting for the redirect to ${redirectUrl}`));
        const redirect = await cli.decide(link);
        assert.ok(redirect.startsWith(redirectUrl));
        const page = await show(redirect, address);
        assert.match(page, /^200 /);
        assert.match(page, /Access granted/);
        const { code, stdout, stderr } = await ended;
        assert.equal(code, 0, stderr);
        assert.equal(JSON.parse(stdout).message, "success");
        assert.equal(await isListening(cli.port), false);
      }));
  }

  it("reads certificate and key in UTF-16, and from ~/", () =>
    withTlsCli(async (cli) => {
      const encode = ENCODINGS["UTF-16 LE"]!;
      await writeFile(cli.path("cert"), encode(certificate().cert));
      await writeFile(cli.path("key"), encode(certificate().key));
      const flags = ["--tls-cert=~/cert", "--tls-key=~/key"];
      const { link, ended } = await cli.open(flags);
      await show(await cli.decide(link), "127.0.0.1");
      assert.equal((await ended).code, 0);
    }));

  it("goes on waiting after plain http, and after a broken handshake", () =>
    withTlsCli(async (cli) => {
      const { link, ended } = await cli.open(await tlsFlags(cli));
      await assert.rejects(fetch(`http://localhost:${cli.port}/`));
      // A browser that does not trust the certificate hangs up.
      await assert.rejects(
        new Promise((_, reject) =>
          connect({ port: cli.port, host: "localhost" }).on("error", reject)
        ),
      );
      await show(await cli.decide(link), "127.0.0.1");
      assert.equal((await ended).code, 0);
    }));

  it("names https in the redirect URL of --start", () =>
    withTlsCli(async (cli) => {
      const flags = [...cli.portFlag([]), ...await tlsFlags(cli)];
      const { stdout } = await cli.run(["login", "--start", ...flags]);
      assert.equal(JSON.parse(stdout).redirect_url, cli.sandbox.redirectUrl);
    }));

  type Files = (cli: CliFixture) => Promise<string[]>;
  const other = makeCertificate;
  const wrong: [name: string, flags: Files, message: RegExp][] = [
    [
      "the certificate alone",
      async (cli) => (await tlsFlags(cli)).slice(0, 2),
      /--tls-cert and --tls-key go together/,
    ],
    [
      "the key alone",
      async (cli) => (await tlsFlags(cli)).slice(2),
      /--tls-cert and --tls-key go together/,
    ],
    [
      "the key of another certificate",
      (cli) => tlsFlags(cli, { ...certificate(), key: other().key }),
      /The TLS key belongs to another certificate/,
    ],
    [
      "a key of another kind",
      (cli) =>
        tlsFlags(cli, { ...certificate(), key: other("a", "rsa:2048").key }),
      /The TLS key belongs to another certificate/,
    ],
    [
      "certificate and key mixed up",
      (cli) =>
        tlsFlags(cli, { cert: certificate().key, key: certificate().cert }),
      /Cannot read the TLS certificate: use PEM/,
    ],
    [
      "an empty key",
      (cli) => tlsFlags(cli, { ...certificate(), key: "" }),
      /Cannot read the TLS key: use PEM, without a password/,
    ],
    [
      "a file that is not there",
      async (cli) => [
        ...(await tlsFlags(cli)).slice(0, 3),
        cli.path("no such key.pem"),
      ],
      /Cannot read .*no such key\.pem: /,
    ],
    [
      "a folder",
      async (cli) => [...(await tlsFlags(cli)).slice(0, 3), cli.folder],
      /Cannot read .*a folder.*: /,
    ],
  ];
  for (const [name, flags, message] of wrong) {
    it(`refuses ${name} at once`, () =>
      withCli(async (cli) => {
        const args = [...cli.portFlag([]), ...await flags(cli)];
        const ended = await cli.run(["login", "--no-browser", ...args]);
        assert.equal(ended.code, 2, ended.stderr);
        assert.match(ended.stderr, message);
        assert.equal(ended.stdout, "");
        assert.doesNotMatch(ended.stderr, /Open this link|PRIVATE KEY/);
        assert.equal(await isListening(cli.port), false);
      }));
  }
});

describe("login explains https at its plain port", TOGETHER, () => {
  const secure = (cli: CliFixture) => `https://localhost:${cli.port}/?code=a`;

  it("at once, and goes on waiting", {
    skip: ON_DENO && "Deno.serve does not tell of bytes that are no HTTP",
  }, () =>
    withCli(async (cli) => {
      const { link, ended, until } = await cli.open();
      await assert.rejects(show(secure(cli), "127.0.0.1"));
      await until(
        /The browser spoke https to the plain http callback: .*: --tls-cert FILE/,
      );
      await fetch(await cli.decide(link));
      assert.equal((await ended).code, 0);
    }));

  it("in the hint of its timeout", () =>
    withCli(async (cli) => {
      const { code, stderr } = await cli.timeOut(() =>
        assert.rejects(show(secure(cli), "127.0.0.1"))
      );
      assert.equal(code, 4);
      const { redirectUrl } = cli.sandbox;
      assert.match(
        stderr,
        new RegExp(`the app's redirect URL is ${redirectUrl} \\(not https\\)`),
      );
    }));

  it("by the address in the browser, which can be pasted", () =>
    withCli(async (cli) => {
      const { link, child, ended } = await cli.open(["--paste"], {
        input: "open",
      });
      const redirect = await cli.decide(link);
      const typed = redirect.replace("http:", "https:");
      await assert.rejects(show(typed, "127.0.0.1"));
      child.stdin!.write(`${typed}\n`);
      assert.equal((await ended).code, 0);
    }));
});

// === The library

/** Opens an https URL at an address, like a browser that trusts `ca`. */
function showTls(url: URL, host: string, ca: string): Promise<Shown> {
  return new Promise((resolve, reject) => {
    const asking = request({
      host,
      port: url.port,
      path: targetOf(url),
      headers: { Host: url.host },
      ca,
    }, (response) => {
      let page = "";
      response.setEncoding("utf8");
      response.on("data", (data) => page += data);
      response.on("end", () => {
        const headers = new Headers(response.headers as HeadersInit);
        resolve({ status: response.statusCode!, headers, page });
      });
    });
    asking.once("error", reject);
    asking.end();
  });
}

test("startAuth() serves https on both families", async () => {
  const tls = makeCertificate();
  for (const host of LOOPBACKS) {
    const port = await freePort();
    const redirectUrl = `https://localhost:${port}/`;
    const login = await startLogin({ port, tls, sandbox: { redirectUrl } });
    let held: HeldSocket[] = [];
    try {
      held = await holdSockets(port);
      assert.equal(login.flow.redirectUrl, redirectUrl);
      const redirect = await login.redirect();
      const shown = await showTls(redirect, host, tls.cert);
      assert.equal(shown.status, 200);
      assert.match(shown.page, /<main class="success">/);
      assertSafe(shown.headers, "https");
      await login.flow.reply;
      await within(1000, () => portClosed(port));
      // Deno keeps a socket that never began its handshake.
      const known = (one: HeldSocket) => ON_DENO && /^idle/.test(one.name);
      await allDropped(held.filter((one) => !known(one)));
    } finally {
      dropSockets(held);
      await login.end();
    }
  }
});

/** The status of an answer by HTTP/2, which browsers speak over TLS. */
function showHttp2(url: URL, authority: string, ca: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const client = connectHttp2(`https://127.0.0.1:${url.port}`, {
      ca,
      servername: "localhost",
    });
    client.once("error", reject);
    const request = client.request({
      ":path": targetOf(url),
      ":authority": authority,
    });
    request.once("error", reject);
    request.once("response", (headers) => {
      resolve(headers[":status"]);
      client.destroy();
    });
    request.end();
  });
}

test("startAuth() judges the host of HTTP/2 too", {
  skip: !ON_DENO && "Node's https server speaks HTTP/1.1 only",
}, async () => {
  const [port, tls] = [await freePort(), makeCertificate()];
  const redirectUrl = `https://localhost:${port}/`;
  const login = await startLogin({ port, tls, sandbox: { redirectUrl } });
  try {
    const redirect = await login.redirect();
    const answer = (host: string) => showHttp2(redirect, host, tls.cert);
    assert.equal(await answer(`evil.example:${port}`), 421);
    assert.equal(login.flow.state, 1);
    assert.equal(await answer(redirect.host), 200);
    await login.flow.reply;
  } finally {
    await login.end();
  }
});

test("startAuth() fails on a broken certificate", async () => {
  const port = await freePort();
  const tls = { cert: "no certificate", key: "no key" };
  await assert.rejects(startLogin({ port, tls }));
  assert.equal(await isListening(port), false);
});

loginTest(
  "startAuth() warns once of https to its plain port",
  {},
  async (login) => {
    const url = new URL(login.flow.redirectUrl);
    for (const host of [...LOOPBACKS, ...LOOPBACKS]) {
      await assert.rejects(showTls(url, host, ""));
    }
    // Deno's server does not report bytes that are no HTTP.
    const warned = login.warnings.filter((text) => /spoke https/.test(text));
    assert.equal(warned.length, ON_DENO ? 0 : 1);
    await assertWaits(login);
  },
);
