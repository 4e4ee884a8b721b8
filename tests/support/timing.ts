/**
 * Times that hold on a busy machine too: they are judged by what else the
 * machine does in the same run, or by the processor's time alone.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { ON_DENO } from "./helpers.ts";

/** How many times the slowest of the bare processes is granted. */
const FACTOR = 10;

/** How long something took, and what load may have added to it, in ms. */
export interface Timed<T> {
  value: T;
  took: number;
  slack: number;
}

/** Runs something, and bare processes beside it as a measure of the machine. */
export async function timed<T>(
  run: () => PromiseLike<T>,
): Promise<Timed<T>> {
  let over = false;
  const measuring = (async () => {
    let slowest = await bareProcess();
    for (; !over; await delay(100)) {
      slowest = Math.max(slowest, await bareProcess());
    }
    return slowest;
  })();
  const began = performance.now();
  try {
    const value = await run();
    const took = performance.now() - began;
    over = true;
    return { value, took, slack: FACTOR * await measuring };
  } finally {
    over = true;
    await measuring;
  }
}

/** Asserts that something takes no longer than this, on a quiet machine. */
export async function within<T>(
  ms: number,
  run: () => PromiseLike<T>,
): Promise<T> {
  const { value, took, slack } = await timed(run);
  assert.ok(took < ms + slack, `${took} ms, not ${ms} (and ${slack} of load)`);
  return value;
}

/** The milliseconds that a process takes that does nothing. */
export function bareProcess(): Promise<number> {
  const began = performance.now();
  const args = ON_DENO ? ["eval", ""] : ["-e", ""];
  return new Promise((resolve, reject) =>
    spawn(process.execPath, args, { stdio: "ignore" })
      .once("error", reject)
      .once("exit", () => resolve(performance.now() - began))
  );
}

/** The milliseconds of processor time that something takes in this process. */
export async function cpuTime(run: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
