/** mod.ts is one file that is walked like a folder: index, rooms, floors. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ROOT } from "../support/helpers.ts";

const TEXT = readFileSync(join(ROOT, "mod.ts"), "utf8");
const LINES = TEXT.split("\n");
const DOC_END = LINES.indexOf(" */");
const PROGRAM_LINE = LINES.indexOf("// === Program");

describe("mod.ts", () => {
  it("has an index that names every section, in order", () => {
    const index = LINES.slice(0, DOC_END)
      .flatMap((line) => /^ \* - ([A-Z][\w ]+): \S/.exec(line)?.[1] ?? []);
    const sections = LINES
      .flatMap((line) => /^\/\/ === (.+)$/.exec(line)?.[1] ?? []);
    assert.deepEqual(index, sections);
  });

  it("has sub-sections in the program alone", () => {
    const pages = LINES.indexOf("// === Pages");
    const outside = LINES.findIndex((line, i) =>
      line.startsWith("// --- ") && (i < PROGRAM_LINE || i > pages)
    );
    assert.equal(outside, -1, LINES[outside]);
  });

  it("names no flag, command, stdout or exit code above the program", () => {
    assert.ok(DOC_END > 0 && PROGRAM_LINE > DOC_END);
    const library = LINES.slice(DOC_END, PROGRAM_LINE);
    const spoken = library.filter((line) => ofProgram(line));
    assert.deepEqual(spoken, []);
  });

  it("has no line over 80 columns and stays under 7,500 lines", () => {
    assert.ok(LINES.length < 7500, `${LINES.length} lines`);
    // A character outside the BMP or a mark may take other widths.
    assert.deepEqual(LINES.filter((line) => [...line].length > 80), []);
  });
});

/** Flags of other programs that the library names or passes. */
const FOREIGN_FLAGS = ['--profile="My profile"', "--unlock", "--label="];

/** Whether a line of the library speaks of the program. */
function ofProgram(line: string): boolean {
  const text = FOREIGN_FLAGS.reduce(
    (rest, flag) => rest.replace(flag, ""),
    line,
  );
  return /(^|[^\w-])--[a-z]/.test(text) ||
    /\bstd(out|err)\b|\bexit codes?\b/i.test(text) ||
    /(tiktok-shop-oauth2|\$\{PROGRAM\}) [a-z-]/.test(text);
}
