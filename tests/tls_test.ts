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
import { type Certificate, makeCertificate } from "./certificate.ts";
import { type Desk, withDesk } from "./desk.ts";
import { ENCODINGS, freePort, isListening, ON_DENO } from "./helpers.ts";

const TOGETHER = { concurrency: 4 };

let made: Certificate | undefined;

/** A certificate for localhost, the same for all tests. */
function certificate(): Certificate {
  return made ??= makeCertificate();
}

/** The flags for a pair, written to files with a space in their path. */
async function tlsFlags(
  desk: Desk,
  { cert, key }: Certificate = certificate(),
): Promise<string[]> {
  return [
    ...["--tls-cert", await desk.write("our cert.pem", cert)],
    ...["--tls-key", await desk.write("our key.pem", key)],
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
  run: (desk: Desk) => Promise<unknown>,
): Promise<void> {
  await withDesk(run, {
    redirectUrl: `https://localhost:${await freePort()}/`,
  });
}

describe("login with --tls-cert and --tls-key", TOGETHER, () => {
  for (const address of ["127.0.0.1", "::1"]) {
    it(`takes the redirect by https on ${address}`, () =>
      withTlsDesk(async (desk) => {
        const { link, ended, until } = await desk.open(await tlsFlags(desk));
        const { redirectUrl } = desk.sandbox;
        await until(new RegExp(`Waiting for the redirect to ${redirectUrl}`));
        const redirect = await desk.decide(link);
        assert.ok(redirect.startsWith(redirectUrl));
        const page = await show(redirect, address);
        assert.match(page, /^200 /);
        assert.match(page, /Access granted/);
        const { code, stdout, stderr } = await ended;
        assert.equal(code, 0, stderr);
        assert.equal(JSON.parse(stdout).message, "success");
        assert.equal(await isListening(desk.port), false);
      }));
  }

  it("reads certificate and key in UTF-16, and from ~/", () =>
    withTlsDesk(async (desk) => {
      const encode = ENCODINGS["UTF-16 LE"]!;
      await writeFile(desk.path("cert"), encode(certificate().cert));
      await writeFile(desk.path("key"), encode(certificate().key));
      const flags = ["--tls-cert=~/cert", "--tls-key=~/key"];
      const { link, ended } = await desk.open(flags);
      await show(await desk.decide(link), "127.0.0.1");
      assert.equal((await ended).code, 0);
    }));

  it("goes on waiting after plain http, and after a broken handshake", () =>
    withTlsDesk(async (desk) => {
      const { link, ended } = await desk.open(await tlsFlags(desk));
      await assert.rejects(fetch(`http://localhost:${desk.port}/`));
      // A browser that does not trust the certificate hangs up.
      await assert.rejects(
        new Promise((_, reject) =>
          connect({ port: desk.port, host: "localhost" }).on("error", reject)
        ),
      );
      await show(await desk.decide(link), "127.0.0.1");
      assert.equal((await ended).code, 0);
    }));

  it("names https in the redirect URL of --start", () =>
    withTlsDesk(async (desk) => {
      const flags = [...desk.portFlag([]), ...await tlsFlags(desk)];
      const { stdout } = await desk.run(["login", "--start", ...flags]);
      assert.equal(JSON.parse(stdout).redirect_url, desk.sandbox.redirectUrl);
    }));

  type Files = (desk: Desk) => Promise<string[]>;
  const other = makeCertificate;
  const wrong: [name: string, flags: Files, message: RegExp][] = [
    [
      "the certificate alone",
      async (desk) => (await tlsFlags(desk)).slice(0, 2),
      /go together: give both/,
    ],
    [
      "the key alone",
      async (desk) => (await tlsFlags(desk)).slice(2),
      /go together: give both/,
    ],
    [
      "the key of another certificate",
      (desk) => tlsFlags(desk, { ...certificate(), key: other().key }),
      /The TLS key belongs to another certificate/,
    ],
    [
      "a key of another kind",
      (desk) =>
        tlsFlags(desk, { ...certificate(), key: other("a", "rsa:2048").key }),
      /The TLS key belongs to another certificate/,
    ],
    [
      "certificate and key mixed up",
      (desk) =>
        tlsFlags(desk, { cert: certificate().key, key: certificate().cert }),
      /Cannot read the TLS certificate: it must be PEM/,
    ],
    [
      "an empty key",
      (desk) => tlsFlags(desk, { ...certificate(), key: "" }),
      /Cannot read the TLS key: it must be PEM, without a password/,
    ],
    [
      "a file that is not there",
      async (desk) => [
        ...(await tlsFlags(desk)).slice(0, 3),
        desk.path("no such key.pem"),
      ],
      /Cannot read .*no such key\.pem: /,
    ],
    [
      "a folder",
      async (desk) => [...(await tlsFlags(desk)).slice(0, 3), desk.folder],
      /Cannot read .*a folder.*: /,
    ],
  ];
  for (const [name, flags, message] of wrong) {
    it(`refuses ${name} at once`, () =>
      withDesk(async (desk) => {
        const args = [...desk.portFlag([]), ...await flags(desk)];
        const ended = await desk.run(["login", "--no-browser", ...args]);
        assert.equal(ended.code, 2, ended.stderr);
        assert.match(ended.stderr, message);
        assert.equal(ended.stdout, "");
        assert.doesNotMatch(ended.stderr, /Open this link|PRIVATE KEY/);
        assert.equal(await isListening(desk.port), false);
      }));
  }
});

describe("login explains https at its plain port", TOGETHER, () => {
  const secure = (desk: Desk) => `https://localhost:${desk.port}/?code=a`;

  it("at once, and goes on waiting", {
    skip: ON_DENO && "Deno.serve does not tell of bytes that are no HTTP",
  }, () =>
    withDesk(async (desk) => {
      const { link, ended, until } = await desk.open();
      await assert.rejects(show(secure(desk), "127.0.0.1"));
      await until(/The browser spoke https to the plain http callback: .*\n/);
      await fetch(await desk.decide(link));
      assert.equal((await ended).code, 0);
    }));

  it("in the hint of its timeout", () =>
    withDesk(async (desk) => {
      const { ended } = await desk.open(["--timeout", "2"]);
      await assert.rejects(show(secure(desk), "127.0.0.1"));
      const { code, stderr } = await ended;
      assert.equal(code, 4);
      const { redirectUrl } = desk.sandbox;
      assert.match(
        stderr,
        new RegExp(`the app's redirect URL is ${redirectUrl} \\(not https\\)`),
      );
    }));

  it("by the address in the browser, which can be pasted", () =>
    withDesk(async (desk) => {
      const { link, child, ended } = await desk.open(["--paste"], {
        input: "open",
      });
      const redirect = await desk.decide(link);
      const typed = redirect.replace("http:", "https:");
      await assert.rejects(show(typed, "127.0.0.1"));
      child.stdin!.write(`${typed}\n`);
      assert.equal((await ended).code, 0);
    }));
});
