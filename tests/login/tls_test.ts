/**
 * The callback over https, with certificates made by openssl, and what a
 * person is told who mixes up http and https. The program is run as a process;
 * the library is in callback_test.ts.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { request } from "node:https";
import { connect } from "node:tls";
import { describe, it } from "node:test";
import { type Certificate, makeCertificate } from "../support/certificate.ts";
import { type CliFixture, withCli } from "../support/cli_fixture.ts";
import {
  ENCODINGS,
  freePort,
  isListening,
  ON_DENO,
} from "../support/helpers.ts";

const TOGETHER = { concurrency: 4 };

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

/** A desk whose app redirects to https. */
async function withTlsDesk(
  run: (cli: CliFixture) => Promise<unknown>,
): Promise<void> {
  await withCli(run, {
    redirectUrl: `https://localhost:${await freePort()}/`,
  });
}

describe("login with --tls-cert and --tls-key", TOGETHER, () => {
  for (const address of ["127.0.0.1", "::1"]) {
    it(`takes the redirect by https on ${address}`, () =>
      withTlsDesk(async (cli) => {
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
    withTlsDesk(async (cli) => {
      const encode = ENCODINGS["UTF-16 LE"]!;
      await writeFile(cli.path("cert"), encode(certificate().cert));
      await writeFile(cli.path("key"), encode(certificate().key));
      const flags = ["--tls-cert=~/cert", "--tls-key=~/key"];
      const { link, ended } = await cli.open(flags);
      await show(await cli.decide(link), "127.0.0.1");
      assert.equal((await ended).code, 0);
    }));

  it("goes on waiting after plain http, and after a broken handshake", () =>
    withTlsDesk(async (cli) => {
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
    withTlsDesk(async (cli) => {
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
      /go together: give both/,
    ],
    [
      "the key alone",
      async (cli) => (await tlsFlags(cli)).slice(2),
      /go together: give both/,
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
      /Cannot read the TLS certificate: it must be PEM/,
    ],
    [
      "an empty key",
      (cli) => tlsFlags(cli, { ...certificate(), key: "" }),
      /Cannot read the TLS key: it must be PEM, without a password/,
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
      await until(/The browser spoke https to the plain http callback: .*\n/);
      await fetch(await cli.decide(link));
      assert.equal((await ended).code, 0);
    }));

  it("in the hint of its timeout", () =>
    withCli(async (cli) => {
      const { ended } = await cli.open(["--timeout", "2"]);
      await assert.rejects(show(secure(cli), "127.0.0.1"));
      const { code, stderr } = await ended;
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
