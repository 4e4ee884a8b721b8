/**
 * Makes `.github/login.svg`, the picture of the README: a login at the sandbox
 * on a real terminal, and the page that a real Chromium shows at its end.
 *
 * ```sh
 * deno run -A scripts/picture.ts
 * ```
 *
 * It needs `script` (util-linux) and `chromium`.
 *
 * @module
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { startSandbox } from "./sandbox.ts";
import { freePort, ROOT, withTemporaryFolder } from "./tools.ts";

const LINE = 17; // px
const CHARACTER = 7.83; // px, of a monospace font of 13 px
const COLUMNS = 84;
const PAGE = { width: 460, height: 660 };

/** What a terminal shows of its bytes: the text with its colours, by line. */
export function screenOf(bytes: string): string[] {
  return bytes.replaceAll("\r\n", "\n")
    // deno-lint-ignore no-control-regex -- escape sequences are controls
    .replace(/\x1b\]8;;[^\x1b]*\x1b\\/g, "") // links are text here
    .split("\n")
    // A line that was cleared shows what came after.
    .map((line) => line.split("\r\x1b[2K").at(-1)!)
    .filter((line, i, all) => line !== "" || all[i - 1] !== "");
}

const COLOURS: Record<string, string> = {
  "1": "#fff",
  "2": "#8b8b99",
  "31": "#ff7b72",
  "32": "#56d364",
  "33": "#e3b341",
  "36": "#76e3ea",
};

/** A line of the screen as SVG, cut where the picture ends. */
function textOf(line: string, y: number): string {
  let room = COLUMNS;
  // deno-lint-ignore no-control-regex -- escape sequences are controls
  const parts = line.matchAll(/(?:\x1b\[([\d;]*)m)?([^\x1b]*)/g);
  const spans = [...parts].map(([, style = "", text = ""]) => {
    const shown = text.length > room ? `${text.slice(0, room - 1)}…` : text;
    room -= shown.length;
    const fill = COLOURS[style.split(";").at(-1)!];
    const markup = shown.replaceAll(" ", "\xa0")
      .replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);
    return fill ? `<tspan fill="${fill}">${markup}</tspan>` : markup;
  });
  return `<text x="20" y="${y}">${spans.join("")}</text>`;
}

/** The terminal with the page beside it. */
function pictureOf(lines: string[], page: Uint8Array): string {
  const width = 40 + COLUMNS * CHARACTER;
  const height = Math.max(70 + lines.length * LINE, 500);
  const total = width + PAGE.width + 30;
  const image = btoa(String.fromCharCode(...page));
  const dots = ["#ff5f57", "#febc2e", "#28c840"]
    .map((fill, i) =>
      `<circle cx="${24 + 20 * i}" cy="24" r="6" fill="${fill}"/>`
    );
  const text = lines.map((line, i) => textOf(line, 62 + i * LINE));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total} ${height}" role="img" aria-label="A login on a terminal, and the page that the browser shows">
<rect width="${width}" height="${height}" rx="12" fill="#16161d"/>
${dots.join("")}
<g fill="#e6e6ef" font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13">
${text.join("\n")}
</g>
<image x="${
    width + 30
  }" width="${PAGE.width}" height="${height}" preserveAspectRatio="xMidYMid meet" href="data:image/png;base64,${image}"/>
</svg>
`;
}

/** Runs a login on a terminal; its bytes, and the browser's last page. */
async function login(home: string): Promise<{ bytes: string; page: string }> {
  const port = await freePort();
  const sandbox = await startSandbox({
    redirectUrl: `http://localhost:${port}/`,
  });
  const program = `${process.execPath} run -A ${join(ROOT, "mod.ts")}`;
  const line = `${program} login --no-browser --no-show --port ${port}`;
  const child = spawn("script", ["-qefc", line, "/dev/null"], {
    cwd: home,
    env: {
      ...{ PATH: process.env.PATH, HOME: home, TERM: "xterm-256color" },
      ...sandbox.env,
      DENO_DIR: process.env.DENO_DIR ??
        join(process.env.HOME ?? "", ".cache/deno"),
    },
  });
  let bytes = "";
  let page: Promise<string> | undefined;
  child.stdout.setEncoding("utf8").on("data", (text) => {
    bytes += text;
    // deno-lint-ignore no-control-regex -- the link ends where a control comes
    const link = /http:\S+?state=[^\s\x1b]+(?=[\s\x1b])/.exec(bytes)?.[0];
    // The countdown says that everything is printed.
    if (!link || page || !bytes.includes("Ctrl-C")) return;
    page = sandbox.approve(link).then(async (url) => (await fetch(url)).text());
  });
  await new Promise((resolve) => child.once("close", resolve));
  await sandbox.stop();
  return { bytes, page: await page! };
}

/** What Chromium shows of a page. */
async function photograph(html: string, folder: string): Promise<Uint8Array> {
  const [file, image] = [join(folder, "page.html"), join(folder, "page.png")];
  await writeFile(file, html);
  const { width, height } = PAGE;
  const { status, stderr } = spawnSync("chromium", [
    ...["--headless", "--no-sandbox", "--hide-scrollbars"],
    ...[`--window-size=${width},${height}`, "--force-device-scale-factor=2"],
    ...[`--screenshot=${image}`, file],
  ], { encoding: "utf8" });
  if (status !== 0) throw new Error(`Chromium failed: ${stderr}`);
  return await readFile(image);
}

if (import.meta.main) {
  await withTemporaryFolder("picture", async (folder) => {
    const { bytes, page } = await login(folder);
    const command = "\x1b[1m$ npx tiktok-shop-oauth2 login --no-show";
    const lines = [command, ...screenOf(bytes)];
    const home = new RegExp(folder, "g");
    // As a person reads it, who has started it by npx from their home.
    const own = /\S*deno run -A \S*mod\.ts/g;
    const shown = lines.map((line) =>
      line.replace(home, "~").replace(own, "npx tiktok-shop-oauth2")
    );
    const picture = pictureOf(shown, await photograph(page, folder));
    await mkdir(join(ROOT, ".github"), { recursive: true });
    await writeFile(join(ROOT, ".github", "login.svg"), picture);
    console.log(`.github/login.svg: ${picture.length >> 10} KiB`);
  });
}
