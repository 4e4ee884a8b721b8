/**
 * Builds the API pages into `.cache/docs` and serves them:
 * `deno task docs [--port 8000] [--no-serve]`. The server is `@std/http` from
 * JSR. Where JSR does not answer in time, the pages are built all the same;
 * open them from the folder.
 *
 * @module
 */
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import process from "node:process";
import { parseArgs } from "node:util";
import { cacheModule, messageOf, PUBLISHED, ROOT, runScript } from "./tools.ts";

const FOLDER = `${ROOT}.cache/docs`;

/** Builds the pages with `deno doc`; resolves to its exit code. */
async function build(): Promise<number> {
  await mkdir(FOLDER, { recursive: true });
  const args = ["doc", "--html", "--name=tiktok-shop-oauth2"];
  const child = spawn(
    process.execPath,
    [...args, `--output=${FOLDER}`, ...PUBLISHED],
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

process.exitCode = await runScript(process.argv.slice(2), readSettings, work);
