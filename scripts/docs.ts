/**
 * Builds the API pages into `.cache/docs` and serves them:
 * `deno task docs [--port 8000] [--no-serve]`. The server is `@std/http` and
 * the flags are read by `@std/cli`, both from JSR. Where JSR cannot be reached,
 * the pages are built all the same; open them from the folder.
 *
 * @module
 */
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import process from "node:process";
import { ROOT } from "./tools.ts";

const FOLDER = `${ROOT}.cache/docs`;

/** Builds the pages with `deno doc`; resolves to its exit code. */
async function build(): Promise<number> {
  await mkdir(FOLDER, { recursive: true });
  const args = ["doc", "--html", "--name=tiktok-shop-oauth2"];
  const files = ["mod.ts", "scripts/sandbox.ts", "scripts/testing.ts"];
  const child = spawn(
    process.execPath,
    [...args, `--output=${FOLDER}`, ...files],
    { cwd: ROOT, stdio: "inherit" },
  );
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 1));
  });
}

/** Imports a package from JSR. A variable name, so that no check needs JSR. */
function load(name: string): Promise<Record<string, unknown>> {
  return import(name);
}

async function serve(args: string[]): Promise<void> {
  const { parseArgs } = await load("@std/cli/parse-args") as {
    parseArgs: (
      args: string[],
      options: { string: string[] },
    ) => { port?: string };
  };
  const { serveDir } = await load("@std/http/file-server") as {
    serveDir: (r: Request, o: { fsRoot: string }) => Promise<Response>;
  };
  const { port } = parseArgs(args, { string: ["port"] });
  const { Deno } = globalThis as unknown as {
    Deno: {
      serve(
        options: { hostname: string; port: number },
        handler: (request: Request) => Promise<Response>,
      ): void;
    };
  };
  const options = { hostname: "127.0.0.1", port: Number(port ?? 8000) };
  Deno.serve(options, (request) => serveDir(request, { fsRoot: FOLDER }));
}

async function main(args: string[]): Promise<number> {
  const code = await build();
  if (code !== 0 || args.includes("--no-serve")) return code;
  try {
    await serve(args);
    return 0;
  } catch (error) {
    console.error(`Cannot serve the pages: ${(error as Error).message}`);
    console.error(`Open ${FOLDER}/index.html instead`);
    return 1;
  }
}

main(process.argv.slice(2)).then((code) => process.exitCode = code);
