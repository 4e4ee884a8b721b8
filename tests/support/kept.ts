/** A login that keeps the app secret, and what comes days later. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import {
  cliCommand,
  type CliFixture,
  NOTHING_SET,
  type RunOptions,
} from "./cli_fixture.ts";
import type { Ended } from "./helpers.ts";

/** The store's folder of a person who has set no other. */
export function homeStore(cli: CliFixture): string {
  return cli.path(".config", "tiktok-shop-oauth2");
}

/** The file that keeps the secret of the sandbox's app, or says where it is. */
export function secretFile(cli: CliFixture, folder = homeStore(cli)): string {
  return join(folder, `.app-${cli.sandbox.appKey}.json`);
}

/** The environment of a first login, whose store is in the home folder. */
export const AT_HOME: Record<string, undefined> = {
  TIKTOK_SHOP_HOME: undefined,
};

/** The sandbox's endpoints as flags: what a real app need not be told. */
export function hostFlags({ sandbox }: CliFixture, command: string): string[] {
  return [
    ...["--refresh-endpoint", sandbox.refreshEndpoint],
    ...["--api-endpoint", sandbox.apiEndpoint],
    ...command === "login" ? ["--token-endpoint", sandbox.tokenEndpoint] : [],
  ];
}

/** Runs the program with a home and a PATH, and nothing else: env(1). */
export function runBare(
  cli: CliFixture,
  [command = "", ...args]: string[],
  options: RunOptions & { more?: string[] } = {},
): Promise<Ended> {
  const { more = [] } = options;
  const words = cliCommand([command, ...hostFlags(cli, command), ...args]);
  const bare = [`HOME=${cli.folder}`, `PATH=${process.env.PATH}`, ...more];
  const all = ["env", "-i", ...bare, ...words];
  return cli.startCommand(all, { ...options, env: NOTHING_SET }).ended;
}

/** Lets the access token of a profile end, as it does after seven days. */
export async function sevenDaysLater(
  folder: string,
  profile = "default",
): Promise<void> {
  const path = join(folder, `${profile}.json`);
  const tokens = JSON.parse(await readFile(path, "utf8"));
  const week = 7 * 86_400;
  tokens.data.access_token_expire_in -= week;
  tokens.meta.obtained_at -= week;
  await writeFile(path, JSON.stringify(tokens));
}
