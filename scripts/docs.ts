/**
 * Builds the API pages into `.cache/docs` and serves them:
 * `deno task docs [--port 8000] [--no-serve]`. The server is `@std/http` from
 * JSR. Where JSR does not answer in time, the pages are built all the same;
 * open them from the folder.
 *
 * The front page lists the sections of `mod.ts` in their order, which is that
 * of use. Each export becomes a `@category` of its section.
 *
 * @module
 */
import { spawn } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import process from "node:process";
import { parseArgs } from "node:util";
import { cacheModule, messageOf, PUBLISHED, ROOT, runScript } from "./tools.ts";

const FOLDER = `${ROOT}.cache/docs`;

/** Sections that one looks up, and does not begin with. */
const LAST: readonly string[] = ["Errors", "Types", "Texts", ""];

/**
 * A module with a `@category` on each export: the section that it stands in.
 * Categories are sorted by name, so each begins with its number. Pure.
 */
export function withCategories(text: string): string {
  const exported = /\s*\*\/(\n(?:\/\/ deno-lint.*\n)*export )/g;
  const sections = text.split(/^(?=\/\/ === )/m).map((section) => ({
    section,
    name: /^\/\/ === (.*)/.exec(section)?.[1] ?? "",
  }));
  const names = sections.filter(({ section }) => section.search(exported) >= 0)
    .map(({ name }) => name);
  const order = [...names.filter((name) => !LAST.includes(name)), ...LAST];
  return sections.map(({ section, name }) => {
    const number = String(order.indexOf(name) + 1).padStart(2, "0");
    const category = `${number} ${name || "Version"}`;
    return section.replace(exported, `\n * @category ${category}\n */$1`);
  }).join("");
}

/** Builds the pages of each module; resolves to an exit code. */
async function build(): Promise<number> {
  // `deno doc` heeds categories in a lone file of declarations only.
  const source = `${ROOT}.cache/docs-source`;
  await mkdir(source, { recursive: true });
  const text = await readFile(`${ROOT}mod.ts`, "utf8");
  await writeFile(`${source}/mod.d.ts`, withCategories(text));
  const [, ...others] = PUBLISHED;
  const codes = [await buildPages(`${source}/mod.d.ts`, "")];
  for (const file of others) {
    const name = file.replace(/.*\/(.*)\.ts/, "/$1");
    codes.push(await buildPages(file, name));
  }
  return codes.find(Boolean) ?? 0;
}

/** Builds the pages of one module with `deno doc`. */
async function buildPages(file: string, name: string): Promise<number> {
  const child = spawn(
    process.execPath,
    [
      ...["doc", "--html", `--name=tiktok-shop-oauth2${name}`],
      ...[`--output=${FOLDER}${name}`, file],
    ],
    { cwd: ROOT, stdio: "inherit" },
  );
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 1));
  });
}

/** What the command line asks for. */
interface Settings {
  readonly port: number;
  readonly serve: boolean;
}

/**
 * Reads the flags. It uses `node:util`, since JSR may not answer.
 *
 * @throws {TypeError | RangeError} for an unknown flag or an impossible port
 */
function readSettings(args: string[]): Settings {
  const { values } = parseArgs({
    args,
    options: {
      "port": { type: "string", default: "8000" },
      "no-serve": { type: "boolean", default: false },
    },
  });
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65_535) {
    throw new RangeError(`Not a port: "${values.port}"; use 0 to 65535`);
  }
  return { port, serve: !values["no-serve"] };
}

const SERVER: string = "@std/http/file-server"; // not a literal: for the check

async function serve(port: number): Promise<void> {
  cacheModule(import.meta.resolve(SERVER));
  const { serveDir }: {
    serveDir: (r: Request, o: { fsRoot: string }) => Promise<Response>;
  } = await import(SERVER);
  const { Deno } = globalThis as unknown as {
    Deno: {
      serve(
        options: { hostname: string; port: number },
        handler: (request: Request) => Promise<Response>,
      ): void;
    };
  };
  const options = { hostname: "127.0.0.1", port };
  Deno.serve(options, (request) => serveDir(request, { fsRoot: FOLDER }));
}

async function work(settings: Settings): Promise<number> {
  const code = await build();
  if (code !== 0 || !settings.serve) return code;
  try {
    await serve(settings.port);
    return 0;
  } catch (error) {
    console.error(`Cannot serve the pages: ${messageOf(error)}`);
    console.error(`Open ${FOLDER}/index.html instead`);
    return 1;
  }
}

if (import.meta.main) {
  process.exitCode = await runScript(process.argv.slice(2), readSettings, work);
}
