/**
 * What the bench measures on, and the packages that npm brings for it: ours,
 * built and installed as a user would, and those of others.
 *
 * @module
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import * as path from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import {
  lastLine,
  nodeBinary,
  PACKAGE_NAME,
  ROOT,
  run,
  runNpm,
  unlessStamped,
} from "../tools.ts";

/** What is measured on. */
export interface Runtime {
  readonly kind: "Deno" | "Node";
  readonly version: string;
  /** Runs a file that comes after it. */
  readonly command: readonly string[];
  /** The same for a file that imports packages of npm. */
  readonly peerCommand: readonly string[];
  /** The URL of our module, as npm installs it for Node. */
  readonly module: string;
  /** Runs our program, as npm installs it for Node. */
  readonly program: readonly string[];
}

/** The runtimes, by their name on the command line. */
export const RUNTIMES: Readonly<Record<string, () => Promise<Runtime>>> = {
  deno: () => Promise.resolve(onDeno()),
  node22: () => onNode(22),
  node24: () => onNode(24),
};

function onDeno(): Runtime {
  const file = path.join(ROOT, "mod.ts");
  const command = [process.execPath, "run", "-A"];
  return {
    kind: "Deno",
    version: `Deno ${process.versions.deno}`,
    command,
    peerCommand: [...command, "--node-modules-dir=manual"],
    module: pathToFileURL(file).href,
    program: [...command, file],
  };
}

async function onNode(major: number): Promise<Runtime> {
  await installPackage();
  const node = await nodeBinary(major);
  const { stdout } = await run(node, ["--version"]);
  const file = path.join(INSTALLED, PACKAGE_NAME, "esm", "mod.js");
  return {
    kind: "Node",
    version: `Node ${stdout.trim().slice(1)}`,
    command: [node],
    peerCommand: [node],
    module: pathToFileURL(file).href,
    program: [node, path.join(INSTALLED, ".bin", PACKAGE_NAME)],
  };
}

const CACHE: string = path.join(ROOT, ".cache", "bench");
/** Where npm puts the packages. */
export const INSTALLED: string = path.join(CACHE, "node_modules");

/** Other people's packages, at the versions that were read before use. */
const PEERS: Readonly<Record<string, string>> = {
  "oauth-callback": "2.2.1",
  "openid-client": "6.9.0",
  "@azure/msal-node": "7.2.3",
};

/** Brings the peers from npm. */
export async function installPeers(): Promise<void> {
  await fs.mkdir(CACHE, { recursive: true });
  const wanted = Object.entries(PEERS).map(([name, at]) => `${name}@${at}`);
  await unlessStamped(path.join(CACHE, ".peers"), wanted.join(), async () => {
    const manifest = JSON.stringify({ name: "bench", private: true });
    // One that is there lists our own package, which npm would remove.
    await fs.writeFile(path.join(CACHE, "package.json"), manifest, {
      flag: "wx",
    }).catch(() => {});
    await install(wanted);
  });
}

/** Builds and installs our own package as a user would. */
async function installPackage(): Promise<void> {
  const source = await fs.readFile(path.join(ROOT, "mod.ts"));
  const hash = createHash("sha256").update(source).digest("hex");
  await unlessStamped(path.join(CACHE, ".package"), hash, async () => {
    const build = path.join(ROOT, "scripts", "build_npm.ts");
    const built = await run(process.execPath, ["run", "-A", build]);
    if (!built.ok) throw new Error(built.output);
    const args = ["pack", "--pack-destination", CACHE];
    const packed = await runNpm("npm", args, { cwd: path.join(ROOT, "npm") });
    if (!packed.ok) throw new Error(packed.output);
    await install([path.join(CACHE, lastLine(packed.stdout))]);
  });
}

async function install(packages: readonly string[]): Promise<void> {
  const quiet = ["--no-audit", "--no-fund", "--no-package-lock"];
  const args = ["install", "--ignore-scripts", ...quiet, ...packages];
  const { ok, output } = await runNpm("npm", args, { cwd: CACHE });
  if (!ok) throw new Error(output);
}
