/** What others see of the processes that a program starts: proc(5). */
import { readdirSync, readFileSync } from "node:fs";
import { ON_LINUX } from "./helpers.ts";

/**
 * Watches the processes below the one that runs the program: its command
 * begins with these words, and it is `pid` or below it. The result ends the
 * watch and returns their arguments and environments.
 */
export function watchProcesses(pid: number, command: string[]): () => string {
  if (!ON_LINUX) return () => "";
  const seen = new Map<string, string>();
  const visit = (pid: string, isBelow: boolean) => {
    const words = proc(pid, "cmdline");
    // A process begins as a copy of its parent, and becomes another.
    const isProgram = words.startsWith(command.join("\0"));
    // One without words has not yet become what it will be, or has ended.
    if (words && isBelow && !isProgram) {
      seen.set(`${pid} ${words}`, words + proc(pid, "environ"));
    }
    // What `exec` runs is given a token, and is nobody's but the user's.
    if (isProgram && words.includes("\0exec\0")) return;
    for (const child of childrenOf(pid)) visit(child, isBelow || isProgram);
  };
  const look = () => visit(String(pid), false);
  look();
  const timer = setInterval(look, 25);
  return () => {
    clearInterval(timer);
    return [...seen.values()].join("\n").replaceAll("\0", "\n");
  };
}

/** The processes that any thread of a process has started. */
function childrenOf(pid: string): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
      .flatMap((thread) => proc(pid, `task/${thread}/children`).split(" "))
      .filter(Boolean);
  } catch {
    return []; // it has ended
  }
}

function proc(pid: string, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "utf8");
  } catch {
    return ""; // it has ended
  }
}
