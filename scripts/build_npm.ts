/**
 * Builds the npm package into `npm/`: with dnt where JSR answers, otherwise
 * with the TypeScript compiler from npm. Layout and package.json are the same.
 * It says on stderr which compiler it used.
 *
 * ```sh
 * deno task build:npm
 * deno task build:npm --compiler dnt
 * ```
 *
 * @module
 */
import * as fs from "node:fs/promises";
import * as path from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
// deno-lint-ignore no-import-prefix -- for the reason given at TYPESCRIPT
import type ts from "npm:typescript@5.9.3";
import {
  cacheModule,
  messageOf,
  PACKAGE_NAME,
  ROOT,
  runNpm,
  runScript,
} from "./tools.ts";

// === The package

const REPOSITORY = `https://github.com/${PACKAGE_NAME}/${PACKAGE_NAME}`;
const OUTPUT: string = path.join(ROOT, "npm");

/**
 * A module that the package exports or runs, by its path in the sources. A
 * script is loaded by the program, by a name that is computed.
 */
interface EntryPoint {
  readonly kind: "export" | "bin" | "script";
  readonly name: string;
  readonly path: string;
}

const ENTRY_POINTS: readonly EntryPoint[] = [
  { kind: "export", name: ".", path: "mod.ts" },
  { kind: "export", name: "./sandbox", path: "scripts/sandbox.ts" },
  { kind: "export", name: "./testing", path: "scripts/testing.ts" },
  { kind: "script", name: "./demo", path: "scripts/demo.ts" },
  { kind: "bin", name: PACKAGE_NAME, path: "scripts/npm_bin.ts" },
];

/** What dnt leaves, and no user of the package needs. */
const LEFTOVERS: readonly string[] = [
  ".npmignore",
  "src",
  "esm/package.json",
  "esm/scripts/npm_bin.d.ts",
];

/** The package.json of the npm package, whichever compiler makes it. */
export function packageJson(version: string): Record<string, unknown> {
  return {
    name: PACKAGE_NAME,
    version,
    description: "OAuth2 for TikTok Shop from a desktop or a script: the " +
      "first access token, and a valid one ever after",
    keywords: [
      "tiktok",
      "tiktok-shop",
      "oauth2",
      "access-token",
      "refresh-token",
      "login",
      "cli",
    ],
    homepage: `${REPOSITORY}#readme`,
    bugs: `${REPOSITORY}/issues`,
    repository: { type: "git", url: `git+${REPOSITORY}.git` },
    license: "MIT",
    type: "module",
    sideEffects: false,
    engines: { node: ">=20.16" },
    bin: packageBin(),
    // For resolvers that do not read `exports`.
    main: "./esm/mod.js",
    types: "./esm/mod.d.ts",
    exports: packageExports(),
    files: ["esm", "CHANGELOG.md"],
    publishConfig: { access: "public", provenance: true },
  };
}

function packageBin(): Record<string, string> {
  const bins = ENTRY_POINTS.filter((entry) => entry.kind === "bin");
  return Object.fromEntries(
    bins.map((entry) => [entry.name, `esm/${builtPath(entry.path, ".js")}`]),
  );
}

function packageExports(): Record<string, unknown> {
  const modules = ENTRY_POINTS.filter((entry) => entry.kind === "export");
  return {
    ...Object.fromEntries(modules.map((entry) => [entry.name, {
      types: `./esm/${builtPath(entry.path, ".d.ts")}`,
      default: `./esm/${builtPath(entry.path, ".js")}`,
    }])),
    "./package.json": "./package.json",
  };
}

function builtPath(source: string, extension: ".js" | ".d.ts"): string {
  return source.replace(/\.ts$/, extension);
}

// === The choice of the compiler

/** The compilers that `--compiler` names. */
export type Compiler = "auto" | "dnt" | "tsc";

const COMPILERS: readonly string[] = ["auto", "dnt", "tsc"];

/**
 * Reads the flags. It uses `node:util`, since JSR may not answer.
 *
 * @throws {TypeError} for an unknown flag or an unknown compiler
 */
export function compilerFlag(args: string[]): Compiler {
  const { values } = parseArgs({
    args,
    options: { compiler: { type: "string", default: "auto" } },
  });
  if (!COMPILERS.includes(values.compiler)) {
    throw new TypeError(
      `Unknown compiler "${values.compiler}": use ${COMPILERS.join(", ")}`,
    );
  }
  return values.compiler as Compiler;
}

/** A compiler that is loaded, before the last build is removed. */
export interface Builder {
  /** For people: which one it is, and why. */
  readonly name: string;
  readonly build: (version: string) => Promise<void>;
}

/**
 * Loads a compiler. `auto` is dnt, or the TypeScript compiler where dnt cannot
 * be loaded.
 *
 * @throws {Error} if a compiler that is asked for by name cannot be loaded
 */
export async function loadBuilder(wanted: Compiler): Promise<Builder> {
  let why = "";
  if (wanted !== "tsc") {
    try {
      const dnt = await loadDnt();
      return { name: "dnt", build: (version) => buildWithDnt(dnt, version) };
    } catch (error) {
      const reason = `Cannot load dnt: ${messageOf(error)}`;
      if (wanted === "dnt") throw new Error(reason);
      why = ` (${reason})`;
    }
  }
  const { default: typescript }: { default: TypeScript } = await import(
    TYPESCRIPT
  );
  return {
    name: `the TypeScript compiler${why}`,
    build: () => buildWithTypeScript(typescript),
  };
}

// === dnt

/** The part of dnt in use; its own types could only be had from JSR. */
interface Dnt {
  build(options: Record<string, unknown>): Promise<void>;
}

const DNT: string = "@deno/dnt"; // not a literal, so checking needs no JSR

/**
 * Loads dnt if JSR answers. A small package is loaded again first, since Deno's
 * cache would answer in place of JSR.
 */
async function loadDnt(): Promise<Dnt> {
  const small = import.meta.resolve("@std/cli/parse-args");
  cacheModule(small, ["--reload"]);
  cacheModule(import.meta.resolve(DNT), [], 120_000);
  return await import(DNT);
}

/**
 * The options of dnt that decide what the package is. Types are not checked
 * and tests are not run here: the test driver does both, and so nothing has to
 * be installed into `npm/`.
 */
export const DNT_OPTIONS = {
  shims: {},
  scriptModule: false,
  // Needs dnt 0.43. All of them: an import of any polyfill is put before the
  // first line of the bin, and Node answers with a SyntaxError.
  polyfills: false,
  declaration: "inline",
  compilerOptions: {
    target: "ES2023",
    // Without it the declarations lose [Symbol.asyncDispose].
    lib: ["ES2023", "ESNext.Disposable"],
  },
  typeCheck: false,
  test: false,
  skipNpmInstall: true,
} as const;

async function buildWithDnt(dnt: Dnt, version: string): Promise<void> {
  await dnt.build({
    ...DNT_OPTIONS,
    entryPoints: ENTRY_POINTS.map((entry) => ({
      ...entry,
      kind: entry.kind === "bin" ? "bin" : "export", // dnt knows no scripts
      path: path.join(ROOT, entry.path),
    })),
    outDir: OUTPUT,
    package: { name: PACKAGE_NAME, version },
  });
}

// === The TypeScript compiler

/** The compiler's module. */
type TypeScript = typeof ts;

// Not in deno.json: every `deno task`, the demo too, would download it first.
const TYPESCRIPT: string = "npm:typescript@5.9.3";

async function buildWithTypeScript(compiler: TypeScript): Promise<void> {
  const files = new Set(ENTRY_POINTS.map((entry) => entry.path));
  for (const file of files) { // a set grows while it is walked
    const text = await fs.readFile(path.join(ROOT, file), "utf8");
    const imports = compiler.preProcessFile(text).importedFiles;
    for (const name of relativeImports(imports)) {
      files.add(path.posix.join(path.posix.dirname(file), name));
    }
    await compileFile(compiler, file, importBuilt(text, imports));
  }
}

/** Where a source names a module: `pos` is that of the opening quote. */
export interface ImportReference {
  readonly fileName: string;
  readonly pos: number;
}

function relativeImports(imports: readonly ImportReference[]): string[] {
  return imports.map((reference) => reference.fileName)
    .filter((name) => /^\.\.?\/.*\.ts$/.test(name));
}

/**
 * Lets a source import the built modules: `"../mod.ts"` becomes
 * `"../mod.js"`. It is done before compiling, as dnt does, since the
 * compiler's own option leaves the declarations as they were.
 */
export function importBuilt(
  text: string,
  imports: readonly ImportReference[],
): string {
  let built = "";
  let done = 0;
  for (const { fileName, pos } of imports) {
    if (relativeImports([{ fileName, pos }]).length === 0) continue;
    built += text.slice(done, pos + 1) + builtPath(fileName, ".js");
    done = pos + 1 + fileName.length;
  }
  return built + text.slice(done);
}

async function compileFile(
  compiler: TypeScript,
  file: string,
  text: string,
): Promise<void> {
  const compilerOptions = {
    target: compiler.ScriptTarget.ES2023,
    module: compiler.ModuleKind.ESNext,
    newLine: compiler.NewLineKind.LineFeed,
    verbatimModuleSyntax: true,
  };
  const input = { compilerOptions, fileName: file, reportDiagnostics: true };
  const js = compiler.transpileModule(text, input);
  const types = compiler.transpileDeclaration(text, {
    ...input,
    compilerOptions: {
      ...compilerOptions,
      declaration: true,
      isolatedDeclarations: true,
    },
  });
  failOn(compiler, [...js.diagnostics ?? [], ...types.diagnostics ?? []]);
  await writeOutput(builtPath(file, ".js"), js.outputText);
  await writeOutput(builtPath(file, ".d.ts"), types.outputText);
}

function failOn(compiler: TypeScript, found: readonly ts.Diagnostic[]): void {
  if (found.length === 0) return;
  throw new Error(compiler.formatDiagnostics(found, {
    getCanonicalFileName: (name) => name,
    getCurrentDirectory: () => ROOT,
    getNewLine: () => "\n",
  }));
}

async function writeOutput(file: string, text: string): Promise<void> {
  const target = path.join(OUTPUT, "esm", file);
  await fs.mkdir(path.dirname(target), { recursive: true });
  await fs.writeFile(target, text);
}

// === The build

/** Removes the last build. The README stays: it is a source. */
async function emptyOutput(): Promise<void> {
  await fs.mkdir(OUTPUT, { recursive: true });
  const names = await fs.readdir(OUTPUT);
  await removeOutput(names.filter((name) => name !== "README.md"));
}

async function removeOutput(names: readonly string[]): Promise<void> {
  for (const name of names) {
    const target = path.join(OUTPUT, name);
    await fs.rm(target, { recursive: true, force: true });
  }
}

/** Does what is the same for both compilers. */
async function finishPackage(version: string): Promise<void> {
  await removeOutput(LEFTOVERS);
  const text = JSON.stringify(packageJson(version), null, 2) + "\n";
  await fs.writeFile(path.join(OUTPUT, "package.json"), text);
  for (const name of ["LICENSE", "CHANGELOG.md"]) {
    await fs.copyFile(path.join(ROOT, name), path.join(OUTPUT, name));
  }
  for (const bin of Object.values(packageBin())) {
    await fs.chmod(path.join(OUTPUT, bin), 0o755);
  }
}

/** What npm would pack, in a line for people. */
async function packedSize(): Promise<string> {
  const args = ["pack", "--dry-run", "--json"];
  const { ok, stdout, output } = await runNpm("npm", args, { cwd: OUTPUT });
  if (!ok) throw new Error(`Cannot pack npm/: ${output}`);
  const [packed] = Object.values<Packed>(JSON.parse(stdout));
  if (packed === undefined) throw new Error("Cannot pack npm/: npm is silent");
  const [size, unpacked] = [packed.size, packed.unpackedSize].map((bytes) =>
    `${(bytes / 1000).toFixed(1)} kB`
  );
  return `${packed.files.length} files, ${size} packed, ${unpacked} unpacked`;
}

/** The part in use of what `npm pack --json` tells of a package. */
interface Packed {
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly unknown[];
}

async function build(wanted: Compiler): Promise<number> {
  const config = await fs.readFile(path.join(ROOT, "deno.json"), "utf8");
  const { version } = JSON.parse(config);
  const builder = await loadBuilder(wanted);
  await emptyOutput();
  await builder.build(version);
  await finishPackage(version);
  console.error(`Built npm/ with ${builder.name}: ${await packedSize()}`);
  return 0;
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  process.exitCode = await runScript(args, compilerFlag, build);
}
