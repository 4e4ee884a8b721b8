/**
 * What the fuzz tests share: random input from a seed, how much of it, and
 * where the outcome is noted. `deno task soak` sets the two variables.
 *
 * - `FUZZ_SEED`: the same seed makes the same input.
 * - `FUZZ_COUNT`: how many attacks, hosts, disks or texts are tried.
 */
import { appendFileSync } from "node:fs";
import process from "node:process";

/** The seed of this run. */
export const SEED: number = Number(process.env.FUZZ_SEED ?? 3017);

/** How often something is tried: `FUZZ_COUNT`, or the test's own number. */
export function howOften(few: number): number {
  return Number(process.env.FUZZ_COUNT ?? few);
}

/** Whether this is a soak, which may take minutes. */
export const SOAKING: boolean = process.env.FUZZ_COUNT !== undefined;

/** Random numbers that are the same for the same seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number = SEED) {
    this.#state = seed;
  }

  /** From 0 to below `end`. */
  below(end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor(((t ^ (t >>> 14)) >>> 0) / 2 ** 32 * end);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** True as often as 1 in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  /** Any bytes, as latin1. */
  bytes(length: number): string {
    return Array.from(
      { length },
      () => String.fromCharCode(this.below(256)),
    ).join("");
  }

  word(length = 1 + this.below(60)): string {
    const letters = "abcdefghijklmnopqrstuvwxyzABCDEF0123456789-_";
    return Array.from({ length }, () => this.pick([...letters])).join("");
  }
}

/** Adds what was counted or measured to the soak's table. */
export function note(what: string, value: number | string): void {
  const file = process.env.FUZZ_NOTES;
  if (file) appendFileSync(file, `${JSON.stringify({ what, value })}\n`);
}
