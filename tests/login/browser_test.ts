import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import {
  browserCommands,
  type BrowserOptions,
  openBrowser,
} from "../../mod.ts";
import {
  freePort,
  ROOT,
  runtimeCommand,
  start,
  writeProgram,
} from "../support/helpers.ts";
import { withFolder } from "../support/token_host.ts";
import { within } from "../support/timing.ts";

const URL_ = "https://services.tiktokshop.com/open/authorize" +
  "?service_id=7412345678901234567&state=a-b_c";

// === The commands

const XDG = [
  ["xdg-open", URL_],
  ["gio", "open", URL_],
  ["x-www-browser", URL_],
  ["sensible-browser", URL_],
];

/** What PowerShell is asked to do, as it decodes it. */
function decoded(command: readonly string[]): string[] {
  const [program = "", ...args] = command;
  if (!/powershell\.exe$/.test(program)) return [...command];
  const script = Buffer.from(args.at(-1)!, "base64").toString("utf16le");
  return [program, ...args.slice(0, -1), script];
}

/** Windows' own commands; `system` is where they are. */
function windows(system = "", shell = system): string[][] {
  return [
    [`${system}rundll32.exe`, "url.dll,FileProtocolHandler", URL_],
    [
      `${shell}powershell.exe`,
      "-NoProfile",
      "-EncodedCommand",
      `Start-Process '${URL_}'`,
    ],
  ];
}

const SYSTEM32 = "C:\\Windows\\System32\\";
const POWERSHELL = "WindowsPowerShell\\v1.0\\";
const DISPLAY = { DISPLAY: ":0" };
const WSL = { WSL_DISTRO_NAME: "Ubuntu" };
const MINE = (...words: string[]) => [...words, URL_];

/** Systems, and the commands that are tried there. */
const SYSTEMS: readonly [string, BrowserOptions, string[][]][] = [
  ["macOS", { platform: "darwin" }, [["open", URL_]]],
  [
    "Windows",
    { platform: "win32" },
    windows(SYSTEM32, `${SYSTEM32}${POWERSHELL}`),
  ],
  [
    "Windows on another disk",
    { platform: "win32", env: { SystemRoot: "D:\\Win" } },
    windows("D:\\Win\\System32\\", `D:\\Win\\System32\\${POWERSHELL}`),
  ],
  ["Linux with X11", { platform: "linux", env: DISPLAY }, XDG],
  [
    "Linux with Wayland",
    { platform: "linux", env: { WAYLAND_DISPLAY: "wayland-0" } },
    XDG,
  ],
  ["FreeBSD", { platform: "freebsd", env: DISPLAY }, XDG],
  ["Linux without a display", { platform: "linux", env: {} }, []],
  [
    "SSH without a display",
    { platform: "linux", env: { SSH_CONNECTION: "1 2 3 4", DISPLAY: "" } },
    [],
  ],
  [
    "SSH with a forwarded display",
    {
      platform: "linux",
      env: { SSH_CONNECTION: "1 2 3 4", DISPLAY: "localhost:10.0" },
    },
    XDG,
  ],
  [
    "WSL without a browser of Linux",
    { platform: "linux", env: WSL },
    [["wslview", URL_], ...windows()],
  ],
  [
    "WSL with browsers of Linux",
    { platform: "linux", env: { ...WSL, ...DISPLAY } },
    [["wslview", URL_], ...windows(), ...XDG],
  ],
  [
    "Termux",
    { platform: "android", env: { TERMUX_VERSION: "0.118" } },
    [["termux-open-url", URL_]],
  ],
  ["nothing known", {}, []],
];

for (const [name, options, expected] of SYSTEMS) {
  test(`browserCommands() knows ${name}`, () => {
    const commands = browserCommands(URL_, options).map(decoded);
    assert.deepEqual(commands, expected);
  });
}

/** `$BROWSER`, and the commands that it stands for. */
const BROWSERS: readonly [string, string[][]][] = [
  ["firefox", [MINE("firefox")]],
  ["firefox --new-window", [MINE("firefox", "--new-window")]],
  ["  firefox   -P  ", [MINE("firefox", "-P")]],
  ["firefox %s -x", [["firefox", URL_, "-x"]]],
  ["app --url=%s", [["app", `--url=${URL_}`]]],
  ["app %s %s", [["app", URL_, URL_]]],
  ['"/opt/my browser/run" -a', [MINE("/opt/my browser/run", "-a")]],
  ["'/opt/my browser/run' '-b \"c\"'", [MINE("/opt/my browser/run", '-b "c"')]],
  ['app --profile="My profile" %s', [["app", "--profile=My profile", URL_]]],
  ['app "%s"', [["app", URL_]]],
  ['app ""', [MINE("app", "")]],
  ["it's", [MINE("it's")]],
  ["a:b %s: :c", [MINE("a"), ["b", URL_], MINE("c")]],
  ["", []],
  [":", []],
  ['""', []],
];

for (const [BROWSER, expected] of BROWSERS) {
  test(`browserCommands() reads $BROWSER as ${BROWSER || "none"}`, () => {
    const options = { platform: "linux", env: { BROWSER } };
    assert.deepEqual(browserCommands(URL_, options), expected);
  });
}

test("browserCommands() prefers $BROWSER to the system's", () => {
  for (const platform of ["linux", "darwin", "win32"]) {
    const env = { BROWSER: "mine", ...DISPLAY };
    const [first, ...others] = browserCommands(URL_, { platform, env });
    assert.deepEqual(first, MINE("mine"));
    assert.ok(others.length > 0);
  }
});

test("browserCommands() splits $BROWSER at semicolons on Windows", () => {
  const BROWSER = '"C:\\Program Files\\b.exe" -x;D:\\c.exe';
  const commands = browserCommands(URL_, {
    platform: "win32",
    env: { BROWSER },
  });
  assert.deepEqual(commands.slice(0, 2), [
    MINE("C:\\Program Files\\b.exe", "-x"),
    MINE("D:\\c.exe"),
  ]);
});

test("browserCommands() uses a browser that is named, and no other", () => {
  const env = { BROWSER: "other", ...DISPLAY };
  for (const platform of ["linux", "darwin", "win32"]) {
    const options = { browser: "mine -x:y", platform, env };
    assert.deepEqual(browserCommands(URL_, options), [MINE("mine", "-x:y")]);
  }
});

/** URLs with all that a shell, cmd or `replace` would do something with. */
const AWKWARD = [
  "https://x/?a=1&b=2|c;d`e`$(f)$HOME!g^h%PATH%",
  `https://x/?q='";'&x="y z"%20`,
  "https://x/?$&=$1$$$`$'",
  "https://x/\u2018é☃😀\u2019; calc '",
  "https://x/?%s",
];

test("browserCommands() hands an awkward URL over as one argument", () => {
  for (const url of AWKWARD) {
    const env = { ...WSL, ...DISPLAY, BROWSER: "mine --url=%s" };
    const commands = browserCommands(url, { platform: "linux", env });
    assert.deepEqual(commands.shift(), ["mine", `--url=${url}`]);
    for (const command of commands) {
      if (command[0] === "powershell.exe") continue;
      assert.equal(command.at(-1), url);
      assert.equal(command.join().split(url).length, 2);
    }
  }
});

test("browserCommands() never lets cmd or a shell read the URL", () => {
  for (const [, options] of SYSTEMS) {
    for (const [program] of browserCommands(AWKWARD[0]!, options)) {
      assert.doesNotMatch(program!, /^(cmd|sh|bash|start)\b/);
    }
  }
});

test("browserCommands() quotes the URL for PowerShell", () => {
  for (const url of AWKWARD) {
    const command = browserCommands(url, { platform: "win32" })[1]!;
    const script = decoded(command).at(-1)!;
    // PowerShell's rule: any of its single quotes, twice, is the second one.
    const [, quoted] = /^Start-Process '(.*)'$/.exec(script)!;
    const quotes = /['\u2018-\u201b]/g;
    assert.doesNotMatch(quoted!.replace(/(['\u2018-\u201b])\1/g, ""), quotes);
    assert.equal(quoted!.replace(/(['\u2018-\u201b])\1/g, "$1"), url);
  }
});

// === Opening for real

const NO_SH = process.platform === "win32" && "the browsers are scripts for sh";

/** Writes browsers: scripts that note their arguments beside themselves. */
function browsers(
  folder: string,
  scripts: Record<string, string>,
): string[] {
  return Object.entries(scripts).map(([name, script]) => {
    const path = join(folder, name);
    const note = `{ echo $#; printf '%s\\n' "$@"; } > "$0.args"`;
    writeProgram(path, `#!/bin/sh\n${note}\n${script}\n`);
    return `"${path}"`;
  });
}

/** What a browser noted: how many arguments, and each; undefined if not run. */
async function argumentsOf(
  folder: string,
  name: string,
): Promise<string[] | undefined> {
  const noted = readFile(join(folder, `${name}.args`), "utf8");
  const text = await noted.catch(() => undefined);
  return text?.trimEnd().split("\n");
}

function openWith(url: string, BROWSER: string): Promise<boolean> {
  return openBrowser(url, { platform: "linux", env: { BROWSER } });
}

/** Scripts in their order: whether one opens, and which of them ran. */
const CHOICES: readonly [string, Record<string, string>, boolean, string[]][] =
  [
    ["the first", { one: "exit 0", two: "exit 0" }, true, ["one"]],
    ["the next if one fails", { one: "exit 1", two: "" }, true, ["one", "two"]],
    [
      "the next if one is killed",
      { one: "kill -9 $$", two: "" },
      true,
      ["one", "two"],
    ],
    ["none if all fail", { one: "exit 1", two: "exit 3" }, false, [
      "one",
      "two",
    ]],
  ];

for (const [name, scripts, opened, run] of CHOICES) {
  test(
    `openBrowser() uses ${name}`,
    { skip: NO_SH },
    () =>
      withFolder(async (folder) => {
        const commands = browsers(folder, scripts);
        assert.equal(await openWith(URL_, commands.join(":")), opened);
        for (const script of Object.keys(scripts)) {
          const expected = run.includes(script) ? ["1", URL_] : undefined;
          assert.deepEqual(await argumentsOf(folder, script), expected);
        }
      }),
  );
}

test(
  "openBrowser() goes on if a command cannot start",
  { skip: NO_SH },
  () =>
    withFolder(async (folder) => {
      const commands = browsers(folder, { good: "exit 0" });
      await writeFile(join(folder, "plain"), "no program");
      writeProgram(join(folder, "gone"), "#!/no/such/interpreter\n");
      const unfit = ["missing", "plain", "gone", ".", "plain/x"]
        .map((name) => `"${join(folder, name)}"`);
      for (const command of [...unfit, "no-such-program-anywhere", '""']) {
        assert.equal(await openWith(URL_, command), false, command);
        assert.equal(await openWith(URL_, `${command}:${commands[0]}`), true);
      }
    }),
);

test(
  "openBrowser() opens none where a URL cannot be an argument",
  { skip: NO_SH },
  () =>
    withFolder(async (folder) => {
      const [browser] = browsers(folder, { browser: "exit 0" });
      assert.equal(await openWith("https://x/\0", browser!), false);
      const long = `https://x/${"x".repeat(3_000_000)}`;
      assert.equal(await openWith(long, browser!), false);
      const options = { platform: "linux", env: {} };
      assert.equal(await openBrowser("https://x/\ud800\0", options), false);
    }),
);

test("openBrowser() refuses what is no http or https URL", {
  skip: NO_SH,
}, () =>
  withFolder(async (folder) => {
    const [browser] = browsers(folder, { browser: "exit 0" });
    const urls = ["", "x", "file:///etc/passwd", "javascript:alert(1)"]
      .concat("-a", "ms-settings:", "%s", "ssh://x/?code=SECRETCODE");
    for (const url of urls) {
      await assert.rejects(openWith(url, browser!), (error: Error) => {
        assert.ok(error instanceof TypeError);
        assert.match(error.message, /: give an http or https URL$/);
        assert.doesNotMatch(error.message, /SECRETCODE/);
        return true;
      });
    }
    assert.equal(await argumentsOf(folder, "browser"), undefined);
  }));

test("browserCommands() takes a text that names a file as a command", () => {
  const files = ["/opt/My Browser", "C:\\Program Files\\b.exe", "/a:b/c;d"];
  const isFile = (path: string) => files.includes(path);
  for (const file of files) {
    for (const platform of ["linux", "win32"]) {
      const own = browserCommands(URL_, { platform, isFile, browser: file });
      assert.deepEqual(own, [MINE(file)]);
      const env = { BROWSER: file };
      const [first] = browserCommands(URL_, { platform, isFile, env });
      assert.deepEqual(first, MINE(file));
    }
  }
  const env = { BROWSER: "a b:/opt/My Browser" };
  const commands = browserCommands(URL_, { platform: "linux", isFile, env });
  assert.deepEqual(commands, [MINE("a", "b"), MINE("/opt/My Browser")]);
});

test("openBrowser() finds a browser whose path has spaces in it", {
  skip: NO_SH,
}, () =>
  withFolder(async (folder) => {
    browsers(folder, { "my own browser": "exit 0" });
    const path = join(folder, "my own browser");
    assert.equal(await openWith(URL_, path), true);
    assert.deepEqual(await argumentsOf(folder, "my own browser"), ["1", URL_]);
    const browser = path;
    assert.equal(await openBrowser(URL_, { browser }), true);
  }));

test("openBrowser() keeps what is secret in the environment to itself", {
  skip: NO_SH,
}, () =>
  withFolder(async (folder) => {
    const script = 'env > "$0.env"';
    const [browser] = browsers(folder, { browser: script });
    const lines = `console.log(await openBrowser("https://x/"));`;
    const { ended } = await startOpening(folder, browser!, lines, {
      TIKTOK_SHOP_APP_SECRET: "S-1",
      TIKTOK_SHOP_ACCESS_TOKEN: "S-2",
      TIKTOK_SHOP_SHOP_CIPHER: "S-3",
      TIKTOK_SHOP_APP_KEY: "key",
    });
    assert.equal((await ended).stdout, "true\n");
    const env = await readFile(join(folder, "browser.env"), "utf8");
    assert.match(env, /^TIKTOK_SHOP_APP_KEY=key$/m);
    assert.match(env, /^PATH=/m);
    assert.doesNotMatch(env, /S-\d|SECRET/);
  }));

test("openBrowser() opens nothing where there is nothing", async () => {
  assert.equal(await openBrowser(URL_, { platform: "linux", env: {} }), false);
});

test(
  "openBrowser() hands over an awkward URL unharmed",
  { skip: NO_SH },
  () =>
    withFolder(async (folder) => {
      const [browser] = browsers(folder, { "my browser": "exit 0" });
      for (const url of AWKWARD) {
        assert.equal(await openWith(url, browser!), true);
        const noted = await argumentsOf(folder, "my browser");
        assert.deepEqual(noted, ["1", url]);
        assert.equal(await openWith(url, `${browser} -a --to=%s "b c"`), true);
        const words = await argumentsOf(folder, "my browser");
        assert.deepEqual(words, ["3", "-a", `--to=${url}`, "b c"]);
      }
    }),
);

// === A browser and our process

/** Writes a program of two lines, and starts it with a browser in its way. */
async function startOpening(
  folder: string,
  browser: string,
  lines: string,
  env: Record<string, string> = {},
): Promise<ReturnType<typeof start>> {
  const file = join(folder, "program.ts");
  const module = JSON.stringify(join(ROOT, "mod.ts"));
  const names = "{ login, openBrowser }";
  await writeFile(file, `import ${names} from ${module};\n${lines}\n`);
  return start(runtimeCommand(file), { env: { BROWSER: browser, ...env } });
}

const LASTING = `echo $$ > "$0.pid"; exec sleep 180`;

/** Ends a lasting browser; whether it was still there. */
async function endBrowser(folder: string): Promise<boolean> {
  for (let tries = 0; tries < 6000; tries++) {
    const noted = readFile(join(folder, "lasting.pid"), "utf8");
    const pid = Number(await noted.catch(() => ""));
    if (pid > 0) return process.kill(pid, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}

test(
  "openBrowser() keeps a browser's words to itself",
  { skip: NO_SH },
  () =>
    withFolder(async (folder) => {
      const scripts = { loud: "echo loud; echo loud >&2; read line; exit 1" };
      const [loud] = browsers(folder, scripts);
      const lines = `console.log(await openBrowser("https://x/"));`;
      const { ended } = await startOpening(folder, `${loud}:${loud}`, lines);
      const { code, stdout, stderr } = await ended;
      assert.deepEqual([code, stdout, stderr], [0, "false\n", ""]);
    }),
);

test("openBrowser() is content with a browser that stays open", {
  skip: NO_SH,
}, () =>
  withFolder(async (folder) => {
    const [browser] = browsers(folder, { lasting: LASTING });
    const lines = `console.log(await openBrowser("https://x/"));`;
    const { ended } = await startOpening(folder, browser!, lines);
    const { code, stdout, stderr } = await within(8000, () => ended);
    assert.equal(await endBrowser(folder), true);
    assert.deepEqual([code, stdout, stderr], [0, "true\n", ""]);
  }));

test(
  "login() does not wait for its browser to be closed",
  { skip: NO_SH },
  () =>
    withFolder(async (folder) => {
      const [browser] = browsers(folder, { lasting: LASTING });
      const port = await freePort();
      const lines = `
      const data = { access_token: "GCP_a" };
      const reply = { code: 0, message: "", data, request_id: "1" };
      await login({
        appKey: "k", appSecret: "s", serviceId: "1", port: ${port}, store: false,
        fetch: () => Promise.resolve(Response.json(reply)),
        onStart: ({ url }) => setTimeout(() => {
          const state = new URL(url).searchParams.get("state");
          fetch(\`http://127.0.0.1:${port}/?code=c&state=\${state}\`);
        }, 100),
      });
      console.log("done");`;
      const running = await startOpening(folder, browser!, lines);
      await running.until(/done/);
      const { code, stderr } = await within(1500, () => running.ended);
      assert.equal(await endBrowser(folder), true);
      assert.deepEqual([code, stderr], [0, ""]);
    }),
);
