/**
 * `doctor`, run as a process: each finding in each of its states, brought
 * about for real. It must spend nothing, leave nothing behind and end soon.
 */
import assert from "node:assert/strict";
import { chmod, mkdir, readdir, writeFile } from "node:fs/promises";
import { createServer as createHttp } from "node:http";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { describe, it, test } from "node:test";
import { makeCertificate } from "../support/certificate.ts";
import {
  type CliFixture,
  NOTHING_SET,
  withCli,
} from "../support/cli_fixture.ts";
import {
  freePort,
  isListening,
  ON_DENO,
  ON_WINDOWS,
  writeProgram,
} from "../support/helpers.ts";
import { sharedCli } from "../support/shared_cli.ts";
import { within } from "../support/timing.ts";

/** Node runs this many tests of a group at once; Deno one after the other. */
const TOGETHER = { concurrency: 3 };

interface Finding {
  check: string;
  status: string;
  message: string;
  hint?: string;
}

type Env = Record<string, string | undefined>;

/** What differs from a machine on which all is well. */
interface Condition {
  args?: string[];
  env?: Env;
  /** Ends what was set up for it. */
  end?: () => unknown;
}

/** A machine with a screen and a browser. */
async function screenEnv(cli: CliFixture): Promise<Env> {
  const folder = cli.path("bin");
  await mkdir(folder, { recursive: true });
  const opener = join(folder, "xdg-open");
  writeProgram(opener, "#!/bin/sh\n");
  return { DISPLAY: ":0", PATH: `${folder}:${process.env.PATH}` };
}

async function examine(
  cli: CliFixture,
  { args = [], env = {} }: Condition = {},
): Promise<{ code: number | null; findings: Finding[] }> {
  const port = args.includes("--port")
    ? []
    : ["--port", String(await freePort())];
  const { code, stdout, stderr } = await cli.run(
    ["doctor", "--json", ...port, ...args],
    { env: { ...await screenEnv(cli), ...env } },
  );
  // Node 22 says so when it is told to use a proxy.
  assert.match(stderr, /^(\(node:\d+\) \[UNDICI-EHPA\] .*\n\(Use .*\n)?$/);
  assert.match(stdout, /^\[.*\]\n$/);
  return { code, findings: JSON.parse(stdout) };
}

/** Listens on a port of one address, as another program. */
async function take(port: number, host: string): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve) =>
    server.listen({ port, host, ipv6Only: true }, resolve)
  );
  return server;
}

/** A port that another program has on [::1] alone. */
async function takenOnIpv6(...args: string[]): Promise<Condition> {
  const port = await freePort();
  const server = await take(port, "::1");
  args.push("--port", `${port}`);
  return { args, end: () => server.close() };
}

/** A range of ports, with the first `taken` ports in use by IPv4. */
async function takenRange(count: number, taken: number): Promise<Condition> {
  for (;;) {
    // All of them at once, so that no other test gets one of them.
    const ports = await Promise.all(Array.from({ length: count }, freePort));
    ports.sort((a, b) => a - b);
    const first = ports[0]!;
    if (ports.at(-1) !== first + count - 1) continue;
    const servers: Server[] = [];
    for (const port of ports.slice(0, taken)) {
      servers.push(await take(port, "127.0.0.1"));
    }
    return {
      args: ["--port", `${first}-${first + count - 1}`],
      end: () => servers.forEach((server) => server.close()),
    };
  }
}

let folders = 0;

/** A store of its own, with a profile's file in it. */
async function storeWith(
  cli: CliFixture,
  text: string,
  modes: { file?: number; folder?: number } = {},
): Promise<Condition> {
  const folder = cli.path(`store ${folders++}`);
  await mkdir(folder, { mode: 0o700 });
  await writeFile(join(folder, "default.json"), text, { mode: 0o600 });
  if (modes.file) await chmod(join(folder, "default.json"), modes.file);
  if (modes.folder) await chmod(folder, modes.folder);
  return { env: { TIKTOK_SHOP_HOME: folder } };
}

const TOKENS = `{"code":0,"message":"success","data":{"access_token":"GCP_abc",
"refresh_token":"GCP_def","open_id":"1"},"request_id":"1"}`;

/** The pair of a certificate, in files. */
async function tls(cli: CliFixture, key?: string): Promise<Condition> {
  const pair = makeCertificate();
  const n = folders++;
  return {
    args: [
      ...["--tls-cert", await cli.write(`cert${n}.pem`, pair.cert)],
      ...["--tls-key", await cli.write(`key${n}.pem`, key ?? pair.key)],
    ],
  };
}

/** A host that answers each request in its own way. */
async function hostThat(
  name: string,
  answers?: (date: Date) => Record<string, string>,
): Promise<Condition> {
  const server = createHttp((_, response) => {
    if (!answers) return; // for ever
    response.writeHead(500, answers(new Date()));
    response.end("<html>");
  });
  const port = await freePort();
  await new Promise<void>((resolve) =>
    server.listen({ port, host: "127.0.0.1" }, resolve)
  );
  return {
    env: { [`TIKTOK_SHOP_${name}_ENDPOINT`]: `http://127.0.0.1:${port}/x` },
    end: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

const later = (seconds: number) => (date: Date) => ({
  Date: new Date(date.getTime() + seconds * 1000).toUTCString(),
});

const ssh = "203.0.113.7 50000 198.51.100.4 22";
const PROXY = "http://user:hunter22@127.0.0.1:9";
const PARTNER_LINK = "https://services.us.tiktokshop.com/open/authorize" +
  "?service_id=7412345678901234567";
const used = (yes: boolean) => yes ? "ok" : "warning";

type Setup = (cli: CliFixture) => Condition | Promise<Condition>;

/** Finding, its state, how that comes, and what is said. */
const STATES: [
  check: string,
  status: string,
  setup: Setup,
  message: RegExp,
  hint?: RegExp,
][] = [
  ["app key", "ok", () => ({}), /^6f3k9d2m1x8q, from the environment$/],
  [
    "app key",
    "problem",
    () => ({ env: { TIKTOK_SHOP_APP_KEY: undefined } }),
    /is missing: .*Partner Center/,
  ],
  [
    "app key",
    "problem",
    () => ({ args: ["--app-key", "7412345678901234567"] }),
    /looks like a service id: an app key has about 12 letters/,
  ],
  [
    "app key",
    "problem",
    ({ sandbox }) => ({ args: ["--app-key", sandbox.appSecret] }),
    /^The app key looks like the app secret: /,
  ],
  [
    "app key",
    "problem",
    () => ({ env: { TIKTOK_SHOP_APP_KEY: '"6f3k9d2m1x8q"' } }),
    /^The app key has quotes around it: leave them out$/,
  ],
  [
    "app secret",
    "problem",
    ({ sandbox }) => ({
      env: { TIKTOK_SHOP_APP_SECRET: `app_secret=${sandbox.appSecret}` },
    }),
    /^The app secret has a name in front of it: leave it out$/,
  ],
  [
    "service id",
    "ok",
    () => ({ env: { TIKTOK_SHOP_SERVICE_ID: PARTNER_LINK } }),
    /^7412345678901234567, from the environment$/,
  ],
  [
    "link",
    "ok",
    () => ({
      env: {
        TIKTOK_SHOP_SERVICE_ID: PARTNER_LINK,
        TIKTOK_SHOP_AUTHORIZATION_ENDPOINT: undefined,
      },
    }),
    /^sellers of region us authorize at services\.us\.tiktokshop\.com; region from the authorization link$/,
  ],
  ["app secret", "ok", () => ({}), /^is set, from the environment$/],
  [
    "app secret",
    "problem",
    () => ({ env: { TIKTOK_SHOP_APP_SECRET: undefined } }),
    /is missing/,
  ],
  [
    "app secret",
    "problem",
    ({ sandbox }) => ({ env: { TIKTOK_SHOP_APP_SECRET: sandbox.appKey } }),
    /^This is the app key or the service id once more$/,
  ],
  [
    "app secret",
    "problem",
    () => ({ args: ["--app-secret-file", "/no/such/file"] }),
    /^Cannot read the app secret from \/no\/such\/file: /,
  ],
  [
    "service id",
    "ok",
    () => ({}),
    /^7412345678901234567, from the environment$/,
  ],
  [
    "service id",
    "problem",
    () => ({ env: { TIKTOK_SHOP_SERVICE_ID: undefined } }),
    /^The service id is missing: it has about 19 digits/,
  ],
  [
    "service id",
    "problem",
    ({ sandbox }) => ({ args: ["--service-id", sandbox.appKey] }),
    /^The service id "6f3k9d2m1x8q" is not a number: .*app key is something/,
  ],
  [
    "service id",
    "problem",
    ({ sandbox }) => ({ args: ["--service-id", sandbox.appSecret] }),
    /^The service id is not a number: /,
  ],
  ["link", "ok", () => ({}), /^sellers of region row authorize at 127/],
  [
    "link",
    "ok",
    () => ({
      args: ["--region", "us", "--user-type", "partner"],
      env: { TIKTOK_SHOP_AUTHORIZATION_ENDPOINT: undefined },
    }),
    /^partners of region us authorize at partner\.us\.tiktokshop\.com; region from the command line; user-type from the command line$/,
  ],
  [
    "link",
    "problem",
    () => ({ env: { TIKTOK_SHOP_REGION: "eu" } }),
    /^Cannot use --region "eu": use row or us$/,
  ],
  [
    "link",
    "problem",
    () => ({ args: ["--authorization-endpoint", "http://a.example/"] }),
    /must be an https URL/,
  ],
  [
    "redirect URL",
    "ok",
    () => ({ args: ["--port", "3021-3023", "--path", "/cb"] }),
    /^save http:\/\/localhost:3021\/cb as the app's redirect URL in Partner/,
  ],
  [
    "redirect URL",
    "ok",
    () => ({ args: ["--redirect-url", "https://relay.example/a"] }),
    /^save https:\/\/relay\.example\/a as /,
  ],
  ["redirect URL", "ok", (cli) => tls(cli), /^save https:\/\/localhost:/],
  [
    "redirect URL",
    "problem",
    (cli) => tls(cli, makeCertificate().key),
    /^The TLS key belongs to another certificate$/,
  ],
  [
    "redirect URL",
    "problem",
    () => ({ args: ["--tls-cert", "cert.pem"] }),
    /go together/,
  ],
  [
    "redirect URL",
    "problem",
    () => ({ args: ["--redirect-url", "http://relay.example/"] }),
    /^Cannot use the redirect URL/,
  ],
  [
    "redirect URL",
    "problem",
    () => ({ args: ["--host", "example.com"] }),
    /^Cannot use the host/,
  ],
  [
    "redirect URL",
    "problem",
    () => ({ args: ["--port", "70000"] }),
    /^Cannot listen on port "70000"/,
  ],
  [
    "redirect URL",
    "problem",
    () => ({ args: ["--port", "6000"] }),
    /^Cannot use port 6000: browsers refuse/,
  ],
  ["port", "ok", () => ({}), /^is free$/],
  [
    "port",
    "problem",
    () => takenRange(1, 1),
    /^Cannot listen on 127\.0\.0\.1:\d+: in use or reserved$/,
    /^end the program that uses it, or /,
  ],
  [
    "port",
    "problem",
    () => takenOnIpv6(),
    /^Cannot listen on \[::1\]:\d+: in use or reserved$/,
  ],
  ["port", "ok", () => takenOnIpv6("--host", "127.0.0.1"), /^is free$/],
  ["port", "warning", () => takenRange(3, 1), /^Cannot listen on /],
  ["port", "problem", () => takenRange(3, 3), /^Cannot listen on /],
  ["browser", "ok", () => ({}), /^opens with xdg-open$/],
  [
    "browser",
    "ok",
    () => ({ env: { BROWSER: `"${process.execPath}" --x`, DISPLAY: "" } }),
    /^opens with .*(deno|node)/,
  ],
  [
    "browser",
    "warning",
    () => ({ env: { PATH: "/no/such/folder" } }),
    /^none can be opened here$/,
    /^install /,
  ],
  [
    "browser",
    "warning",
    () => ({ env: { DISPLAY: undefined } }),
    /^none can be opened here$/,
    /^open the link yourself, on any machine$/,
  ],
  ["machine", "ok", () => ({}), /^has a display: /],
  [
    "machine",
    "ok",
    () => ({ env: { WSL_DISTRO_NAME: "Debian", DISPLAY: undefined } }),
    /^WSL: Windows' browser reaches localhost here$/,
  ],
  [
    "machine",
    "warning",
    () => ({ env: { DISPLAY: undefined } }),
    /^has no display$/,
    /^paste the address/,
  ],
  [
    "machine",
    "warning",
    () => ({
      args: ["--port", "3025"],
      env: { SSH_CONNECTION: ssh, USER: "ana" },
    }),
    /^its browser is on another machine$/,
    /^ {2}ssh -L 3025:localhost:3025 -l ana 198\.51\.100\.4$/m,
  ],
  [
    "machine",
    "warning",
    () => ({ env: { container: "podman" } }),
    /^its browser is on another machine$/,
    /^You are in a container\..* paste /s,
  ],
  [
    "machine",
    "warning",
    () => ({ env: { KUBERNETES_SERVICE_HOST: "10.0.0.1" } }),
    /^its browser is on another machine$/,
    /^You are in a container\./,
  ],
  [
    "store",
    "ok",
    () => ({}),
    /default\.json, the default profile, can be written; there are no tok/,
  ],
  [
    "store",
    "ok",
    (cli) => storeWith(cli, TOKENS),
    /default\.json, the default profile, can be written$/,
  ],
  [
    "store",
    "ok",
    (cli) => ({ args: ["--file", cli.path("my tokens.json")] }),
    /my tokens\.json, from the (command line|environment), can be written/,
  ],
  [
    "store",
    "problem",
    (cli) => storeWith(cli, '{"data":'),
    /default\.json is no token file, or damaged$/,
    /^move it away, then log in again/,
  ],
  [
    "store",
    "problem",
    async (cli) => ({
      env: { TIKTOK_SHOP_HOME: join(await cli.write("a file", ""), "x", "y") },
    }),
    /^Cannot (read|write) /,
    /^check the folder's permissions/,
  ],
  [
    "store",
    "problem",
    () => ({ args: ["--profile", "../x"] }),
    /^Cannot use the profile name/,
  ],
  ...(ON_WINDOWS ? [] : openStores()),
  [
    "token host",
    "ok",
    () => ({}),
    /^http:\/\/127\.0\.0\.1:\d+ answers, from the environment$/,
  ],
  [
    "API host",
    "ok",
    () => ({}),
    /^http:\/\/127\.0\.0\.1:\d+ answers, from the environment$/,
  ],
  ...["TOKEN", "API"].flatMap((name): typeof STATES => {
    const check = `${name.replace("TOKEN", "token")} host`;
    const set = (url: string) => ({
      env: { [`TIKTOK_SHOP_${name}_ENDPOINT`]: url },
    });
    return [
      [
        check,
        "problem",
        async () => set(`http://127.0.0.1:${await freePort()}/a?b=c`),
        /^Cannot reach http:\/\/127\.0\.0\.1:\d+: /,
        /^check the connection and the proxy settings/,
      ],
      [
        check,
        "problem",
        () => set("https://no-such-host.invalid/"),
        /^Cannot reach https:\/\/no-such-host\.invalid: /,
      ],
      [check, "problem", () => set("http://a.example/"), /must be an https/],
      [check, "problem", () => set("nonsense"), /must be an https URL/],
      [check, "ok", () => hostThat(name, later(0)), / answers, from /],
    ];
  }),
  ["clock", "ok", () => ({}), /^agrees with the token host's$/],
  [
    "clock",
    "warning",
    () => hostThat("TOKEN", later(600)),
    /^is (10m|9m 59s) behind the token host's$/,
    /^set this machine's clock/,
  ],
  [
    "clock",
    "warning",
    () => hostThat("TOKEN", later(-7200)),
    /^is 2h( 1s)? ahead of the token host's$/,
  ],
  ["proxy", "ok", () => ({}), /^none is set$/],
  [
    "proxy",
    used(ON_DENO),
    () => ({ env: { HTTPS_PROXY: PROXY } }),
    ON_DENO
      ? /^HTTPS_PROXY is used$/
      : /^HTTPS_PROXY is set, but Node [\d.]+ does not use it$/,
    ON_DENO ? undefined : /^set NODE_USE_ENV_PROXY=1$/,
  ],
  [
    "proxy",
    used(ON_DENO),
    () => ({ env: { all_proxy: PROXY } }),
    ON_DENO ? /^all_proxy is used$/ : /^all_proxy is set, but Node/,
    ON_DENO ? undefined : /^set HTTPS_PROXY and NODE_USE_ENV_PROXY=1$/,
  ],
];

function openStores(): typeof STATES {
  return [
    [
      "store",
      "warning",
      (cli) => storeWith(cli, TOKENS, { file: 0o644 }),
      /^others may read .*default\.json$/,
      /^run: chmod 600 '.*default\.json'$/,
    ],
    [
      "store",
      "warning",
      (cli) => storeWith(cli, TOKENS, { folder: 0o755 }),
      /^others may read .*store \d+$/,
      /^run: chmod 700 '.*store \d+'$/,
    ],
  ];
}

describe("doctor", TOGETHER, () => {
  // One for all tests: doctor must not change anything.
  const cli = sharedCli();

  const seen = new Map<string, number>();
  for (const [check, status, setup, message, hint] of STATES) {
    const name = `finds ${check}: ${status}`;
    const times = (seen.get(name) ?? 0) + 1;
    seen.set(name, times);
    it(times > 1 ? `${name} (${times})` : name, async () => {
      const condition = await setup(cli());
      try {
        const { code, findings } = await examine(cli(), condition);
        const found = findings.find((each) =>
          each.check.replace(/ \d+$/, "") === check
        );
        assert.equal(found?.status, status, JSON.stringify(found));
        assert.match(found!.message, message);
        if (hint) assert.match(found!.hint ?? "", hint);
        assert.ok(!JSON.stringify(findings).includes("hunter22"));
        const bad = findings.some((each) => each.status === "problem");
        assert.equal(code, bad ? 1 : 0);
      } finally {
        await condition.end?.();
      }
    });
  }

  it("has the same findings in the same order, each of one shape", async () => {
    const { code, findings } = await examine(cli());
    assert.equal(code, 0);
    assert.deepEqual(
      findings.map(({ check }) => check.replace(/\d+/, "N")),
      [
        ...["app key", "app secret", "service id", "link", "redirect URL"],
        ...["port N", "browser", "machine", "store", "token host", "clock"],
        ...["API host", "proxy"],
      ],
    );
    for (const finding of findings) {
      assert.equal(finding.status, "ok", JSON.stringify(finding));
      assert.deepEqual(Object.keys(finding), ["check", "status", "message"]);
    }
  });

  it("asks a creator for no service id", async () => {
    const { findings } = await examine(cli(), {
      args: ["--user-type", "creator"],
      env: { TIKTOK_SHOP_SERVICE_ID: undefined },
    });
    assert.ok(!findings.some(({ check }) => check === "service id"));
    assert.match(findings[2]!.message, /^creators of region row authorize/);
  });

  it("has a finding for each port of a range", async () => {
    const condition = await takenRange(3, 1);
    try {
      const { findings } = await examine(cli(), condition);
      const ports = findings.filter(({ check }) => check.startsWith("port"));
      const states = ports.map(({ status }) => status);
      assert.deepEqual(states, ["warning", "ok", "ok"]);
    } finally {
      await condition.end?.();
    }
  });

  it("prints a table of 80 columns for people", async () => {
    const env = { ...NOTHING_SET, SSH_CONNECTION: ssh, HTTPS_PROXY: PROXY };
    const { stdout, code } = await cli().run(["doctor"], { env });
    assert.equal(code, 1);
    const lines = stdout.trimEnd().split("\n");
    for (const line of lines) {
      assert.ok(line.length <= 80, line);
      assert.match(
        line,
        /^(ok {7}|problem {2}|warning {2}) *.{13} \S| {23}\S/,
      );
    }
    assert.match(stdout, /^problem {2}app key {7}The app key is missing/m);
    assert.match(stdout, /^ {23}> You are on a remote machine/m);
    assert.match(stdout, /^ {23}ssh -L 3017:localhost:3017 -l \S+ 198/m);
  });

  it("leaves nothing behind and asks for nothing but the front pages", () =>
    withCli(async (cli) => {
      const port = await freePort();
      await screenEnv(cli);
      const list = () => readdir(cli.folder, { recursive: true });
      const names = await list();
      const args = ["--port", String(port)];
      assert.equal((await examine(cli, { args })).code, 0);
      assert.deepEqual(await list(), names);
      assert.equal(await isListening(port), false);
      // The sandbox lists each request but those for its page, which is "/".
      assert.deepEqual(cli.sandbox.requests, []);
    }));

  it("says so if config.json is damaged", async () => {
    const { env } = await storeWith(cli(), TOKENS);
    const path = join(env!.TIKTOK_SHOP_HOME!, "config.json");
    await writeFile(path, "{");
    const { code, stderr } = await cli().run(["doctor"], {
      env: { ...env, TIKTOK_SHOP_APP_KEY: undefined },
    });
    assert.equal(code, 2);
    assert.match(
      stderr,
      /config\.json, which is no JSON object: fix or delete/,
    );
  });
});

test("doctor ends within 12 s though no host ever answers", async () => {
  const conditions = [await hostThat("TOKEN"), await hostThat("API")];
  try {
    await withCli(async (cli) => {
      const env = Object.assign({}, ...conditions.map(({ env }) => env));
      const { code, findings } = await within(
        12_000,
        () => examine(cli, { env }),
      );
      assert.equal(code, 1);
      const hosts = findings.filter(({ check }) => / host$/.test(check));
      assert.equal(hosts.length, 2);
      for (const { status, message, hint } of hosts) {
        assert.equal(status, "problem");
        assert.match(message, /^Cannot reach http.*: no answer within 8 s$/);
        assert.match(hint!, /^check the connection/);
      }
    });
  } finally {
    for (const { end } of conditions) await end?.();
  }
});

/** Environment, and whether this runtime goes by the proxy then. */
const PROXIES: [env: Env, used: boolean][] = [
  [{}, false],
  [{ HTTPS_PROXY: "P" }, ON_DENO],
  [{ https_proxy: "P" }, ON_DENO],
  [{ ALL_PROXY: "P" }, ON_DENO],
  [{ HTTPS_PROXY: "P", NODE_USE_ENV_PROXY: "1" }, true],
  [{ https_proxy: "P", NODE_OPTIONS: "--use-env-proxy" }, true],
  [{ ALL_PROXY: "P", NODE_USE_ENV_PROXY: "1" }, ON_DENO],
  [{ HTTPS_PROXY: "P", NODE_USE_ENV_PROXY: "yes" }, ON_DENO],
];

test("doctor tells that no certificate is checked", () =>
  withCli(async (cli) => {
    const { code, findings } = await examine(cli, {
      env: { NODE_TLS_REJECT_UNAUTHORIZED: "0" },
    });
    const { check, status, message } = findings.at(-1)!;
    assert.equal(check, "certificates");
    // Deno does not read it.
    assert.deepEqual([status, code], ON_DENO ? ["warning", 0] : ["problem", 1]);
    assert.match(message, /NODE_TLS_REJECT_UNAUTHORIZED=0 .*app secret$/);
  }));

test("doctor tells what this runtime does with a proxy", async () => {
  const reached: string[] = [];
  const proxy = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (data) => {
      reached.push(String(data).split("\r\n")[0]!);
      socket.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    });
  });
  const port = await freePort();
  await new Promise<void>((resolve) =>
    proxy.listen({ port, host: "127.0.0.1" }, resolve)
  );
  try {
    await withCli(async (cli) => {
      for (const [variables, used] of PROXIES) {
        reached.length = 0;
        const env = Object.fromEntries(
          Object.entries(variables).map((
            [name, value],
          ) => [name, value === "P" ? `http://127.0.0.1:${port}` : value]),
        );
        const token = "https://auth.example.invalid/";
        const { findings } = await examine(cli, {
          env: { ...env, TIKTOK_SHOP_TOKEN_ENDPOINT: token },
        });
        const { message } = findings.at(-1)!;
        const name = JSON.stringify(variables);
        const asked = reached.some((line) =>
          /^CONNECT auth\.example\.invalid:443 /.test(line)
        );
        assert.equal(asked, used, name);
        assert.equal(/ is used$/.test(message), used, `${name}: ${message}`);
      }
    });
  } finally {
    proxy.close();
  }
});
