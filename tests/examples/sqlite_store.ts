/** Tokens in one SQLite file, for the processes of one machine. */
import { closeSync, openSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import {
  databaseStore,
  type LeaseOptions,
  type TokenStore,
} from "../../mod.ts";

// Without busy_timeout, one of two that write at once fails.
const SCHEMA = `
  pragma busy_timeout = 30000;
  create table if not exists tokens (profile text primary key, value text);
  create table if not exists locks (profile text primary key,
    holder text, until integer)`;

/** Milliseconds since 1970. */
const NOW = "cast(unixepoch('subsec') * 1000 as integer)";

export function sqliteStore(file: string, options?: LeaseOptions): TokenStore {
  closeSync(openSync(file, "a", 0o600)); // nobody else reads the tokens
  const database = new DatabaseSync(file);
  database.exec(SCHEMA);
  const select = (sql: string, ...values: string[]) =>
    database.prepare(sql).all(...values) as Record<string, string>[];
  // ?1, ?2, ?3 are what a step is given; it says whether a row was changed.
  const change = (sql: string) => (...values: (string | number)[]) =>
    database.prepare(sql).run(...values).changes > 0;
  const value = "select value from tokens where profile = ?1";
  return databaseStore({
    place: (profile) => `"${profile}" in ${file}`,
    read: (profile) => select(value, profile)[0]?.value,
    names: () =>
      select("select profile from tokens").map((row) => row.profile!),
    write: change("insert or replace into tokens values (?1, ?2)"),
    writeHeld: change(`insert or replace into tokens
      select profile, ?2 from locks where profile = ?1 and holder = ?3`),
    remove: change("delete from tokens where profile = ?1"),
    take: change(`insert into locks values (?1, ?2, ${NOW} + ?3)
      on conflict do update set holder = ?2, until = ${NOW} + ?3
      where until < ${NOW}`),
    renew: change(`update locks set until = ${NOW} + ?3
      where profile = ?1 and holder = ?2`),
    release: change("delete from locks where profile = ?1 and holder = ?2"),
  }, options);
}
