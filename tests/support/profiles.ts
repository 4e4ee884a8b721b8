/** Profiles with tokens of a sandbox, for tests of commands after a login. */
import { exchangeCode, fileStore, type StoredTokens } from "../../mod.ts";
import type { CliFixture } from "./cli_fixture.ts";

/** How a test's profile differs from the usual one. */
export interface Change {
  /** Members in place of the reply's. */
  data?: Record<string, unknown>;
  meta?: Record<string, unknown>;
  /** Seconds that the access token has left. */
  left?: number;
  /** Index of the sandbox's seller. */
  seller?: number;
}

/** Gives a profile tokens of the sandbox. */
export async function seed(
  { sandbox, store }: CliFixture,
  profile = "default",
  { data, meta, left, seller }: Change = {},
): Promise<StoredTokens> {
  const code = sandbox.issueCode(seller);
  const reply = await exchangeCode(sandbox, code, sandbox);
  const now = unixTime();
  const access = left === undefined ? {} : {
    access_token_expire_in: now + left,
  };
  const own = { version: 1, app_key: sandbox.appKey, obtained_at: now };
  const tokens = {
    ...reply,
    data: { ...reply.data, ...access, ...data },
    meta: { ...own, ...meta },
  };
  await fileStore(store).save(profile, tokens);
  return tokens;
}

/** Now, in seconds since 1970. */
export function unixTime(): number {
  return Math.floor(Date.now() / 1000);
}

/** The only shop that a profile remembers. */
export const KNOWN_SHOP = {
  cipher: "GCP_known+/=",
  code: "GBK1",
  id: "7495540735365777507",
  name: "Known",
  region: "GB",
  seller_type: "LOCAL",
};

/** What a profile of the fixture has. */
export function load(
  cli: CliFixture,
  profile = "default",
): Promise<StoredTokens> {
  return fileStore(cli.store).load(profile) as Promise<StoredTokens>;
}
