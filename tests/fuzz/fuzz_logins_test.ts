/**
 * Whole logins while other programs keep the processors busy: each browser gets
 * its page whole, though the program closes the port and ends right after.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { withCli } from "../support/cli_fixture.ts";
import { howOften, note } from "../support/fuzz.ts";
import { ON_DENO } from "../support/helpers.ts";

const COUNT = howOften(3);

/** Runs something while two processes never rest. */
async function whileBusy(run: () => Promise<unknown>): Promise<void> {
  const args = ON_DENO ? ["eval", "for (;;);"] : ["-e", "for (;;);"];
  const loops: ChildProcess[] = [1, 2]
    .map(() => spawn(process.execPath, args, { stdio: "ignore" }));
  try {
    await run();
  } finally {
    for (const loop of loops) loop.kill("SIGKILL");
  }
}

test(`login loses no page in ${COUNT} logins beside two busy loops`, () =>
  withCli((cli) =>
    whileBusy(async () => {
      const times: number[] = [];
      for (let n = 0; n < COUNT; n++) {
        const { link, ended } = await cli.open();
        const began = performance.now();
        const shown = await fetch(await cli.decide(link));
        const page = await shown.text();
        assert.equal(shown.status, 200, `login ${n}`);
        assert.match(page, /<\/html>\s*$/, `login ${n}`);
        const { code, stderr } = await ended;
        assert.equal(code, 0, stderr);
        times.push(performance.now() - began);
      }
      note("pages", times.length);
      times.sort((a, b) => a - b);
      note("median, approved to ended", `${times[COUNT >> 1]!.toFixed(0)} ms`);
      note("slowest", `${times.at(-1)!.toFixed(0)} ms`);
    })
  ));
