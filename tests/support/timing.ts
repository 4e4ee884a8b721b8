/**
 * Times that hold on a busy machine too: they are judged by what else the
 * machine does in the same run, or by the processor's time alone.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { ON_DENO } from "./helpers.ts";

/** The limit, as a multiple of the slowest bare process. */
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

/** How many milliseconds an empty process takes. */
export function bareProcess(): Promise<number> {
  const began = performance.now();
  const args = ON_DENO ? ["eval", ""] : ["-e", ""];
  return new Promise((resolve, reject) =>
    spawn(process.execPath, args, { stdio: "ignore" })
      .once("error", reject)
      .once("exit", () => resolve(performance.now() - began))
  );
}

/** How many milliseconds of processor time something takes here. */
export async function cpuTime(run: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
