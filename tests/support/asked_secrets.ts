/** Runs of the program that may show only the secrets they are asked for. */
import { readdir, readFile } from "node:fs/promises";
import {
  assertAbsent,
  type CliFixture,
  type RunOptions,
} from "./cli_fixture.ts";
import type { Ended } from "./helpers.ts";

/** Secrets that a command may print if it is asked for them. */
export type Asked = "tokens" | "ciphers";

/** Runs the program; it may show only the secrets that it is asked for. */
export async function run(
  cli: CliFixture,
  args: string[],
  { asked, ...options }: RunOptions & { asked?: Asked } = {},
): Promise<Ended> {
  const before = await secretsOf(cli);
  const ended = await cli.run(args, options);
  const after = await secretsOf(cli);
  for (const kind of ["tokens", "ciphers"] as const) {
    const secrets = [...before[kind], ...after[kind]];
    assertAbsent(secrets, ended.stderr, "stderr");
    if (asked !== kind) assertAbsent(secrets, ended.stdout, "stdout");
  }
  return ended;
}

/** The secrets in the files and in the signed calls. */
async function secretsOf(cli: CliFixture): Promise<Record<Asked, string[]>> {
  const names = await readdir(cli.folder, { recursive: true });
  const files = names.filter((name) => name.endsWith(".json"))
    .map((name) => readFile(cli.path(name), "utf8").catch(() => ""));
  const text = (await Promise.all(files)).join();
  const values = (pattern: RegExp) =>
    [...text.matchAll(pattern)].map(([, value]) => value!);
  const signs = cli.sandbox.requests.map(({ query }) => query.sign ?? "");
  return {
    tokens: values(/"(?:access|refresh)_token":\s*"([^"]+)"/g)
      .concat(signs.filter((sign) => sign)),
    ciphers: values(/"cipher":\s*"([^"]+)"/g),
  };
}
