/** Tokens in Postgres, for many machines; with the npm package `pg`. */
import {
  databaseStore,
  type LeaseOptions,
  type TokenStore,
} from "../../mod.ts";

/** To be run once, before the first process starts. */
export const SCHEMA = `
  create table tiktok_tokens (profile text primary key, value text not null);
  create table tiktok_locks (profile text primary key,
    holder text not null, until timestamptz not null)`;

/** The part in use of a `Pool` of `pg`. */
interface Pool {
  query(sql: string, values: unknown[]): Promise<{
    rows: { profile: string; value: string }[];
    rowCount: number | null;
  }>;
}

/** `postgresStore(new Pool())`. Time is that of the server, for everybody. */
export function postgresStore(pool: Pool, options?: LeaseOptions): TokenStore {
  const select = async (sql: string, ...values: unknown[]) =>
    (await pool.query(sql, values)).rows;
  // $1, $2, $3 are what a step is given; it says whether a row was changed.
  const change = (sql: string) => async (...values: unknown[]) =>
    (await pool.query(sql, values)).rowCount! > 0;
  const value = "select value from tiktok_tokens where profile = $1";
  const profiles = "select profile from tiktok_tokens";
  return databaseStore({
    place: (profile) => `"${profile}" in Postgres`,
    read: async (profile) => (await select(value, profile))[0]?.value,
    names: async () => (await select(profiles)).map((row) => row.profile),
    write: change(`insert into tiktok_tokens values ($1, $2)
      on conflict (profile) do update set value = $2`),
    // "for update": who takes the lock over waits until this is written.
    writeHeld: change(`insert into tiktok_tokens
      select profile, $2 from tiktok_locks
      where profile = $1 and holder = $3 for update
      on conflict (profile) do update set value = $2`),
    remove: change("delete from tiktok_tokens where profile = $1"),
    take: change(`insert into tiktok_locks as held
      values ($1, $2, now() + $3 * interval '1 ms')
      on conflict (profile) do update
      set holder = $2, until = now() + $3 * interval '1 ms'
      where held.until < now()`),
    renew: change(`update tiktok_locks
      set until = now() + $3 * interval '1 ms'
      where profile = $1 and holder = $2`),
    release: change(`delete from tiktok_locks
      where profile = $1 and holder = $2`),
  }, options);
}
