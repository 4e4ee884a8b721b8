/** The README's tables of flags say what `--help` says; its examples run. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ROOT, runProgram } from "../support/helpers.ts";

const README = readFileSync(join(ROOT, "README.md"), "utf8");

describe("README.md", () => {
  it("has a row for each flag of all commands, as --help tells them", async () => {
    const [, common] = await helpOf("login");
    assert.deepEqual(tableUnder("flag of every command"), common);
  });

  it("has a row for each flag of login, as --help tells them", async () => {
    const [own] = await helpOf("login");
    assert.deepEqual(tableUnder("flag of `login`"), own);
  });

  it("has a row for each flag of the others, as --help tells them", async () => {
    const [ofLogin] = await helpOf("login");
    const known = new Set(ofLogin);
    const rows = new Set<string>();
    for (
      const command of ["refresh", "token", "status", "shops", "api", "exec"]
    ) {
      const [own] = await helpOf(command);
      for (const row of own) if (!known.has(row)) rows.add(row);
    }
    assert.deepEqual(tableUnder("flag of other commands"), [...rows]);
  });
});

const EXAMPLES = join(ROOT, "tests", "examples");
for (const name of readdirSync(EXAMPLES)) {
  if (name.endsWith("_test.ts")) continue;
  it(`README.md shows tests/examples/${name} whole, in under 60 lines`, () => {
    const text = readFileSync(join(EXAMPLES, name), "utf8");
    const shown = text.replace('"../../mod.ts"', '"tiktok-shop-oauth2"');
    assert.ok(README.includes(`\`\`\`ts\n${shown}\`\`\`\n`));
    assert.ok(text.trimEnd().split("\n").length < 60);
  });
}

/** The rows of a command's own flags, and those of all commands. */
async function helpOf(command: string): Promise<[string[], string[]]> {
  const { stdout, code } = await runProgram([command, "--help"]);
  assert.equal(code, 0);
  const heads = /^Options of (?:\S+|every command):$/m;
  const [, own = "", common = ""] = stdout.split(heads);
  return [rowsOf(own), rowsOf(common)];
}

/** Entries of the help as rows of the README: flag, variable, default, text. */
function rowsOf(help: string): string[] {
  const entries =
    help.replace(/\n {20,}/g, " ").match(/^ {2}(?:-\w, )?--.+$/gm) ?? [];
  return entries.map((entry) => {
    const [, flag, text = ""] =
      /^ {2}(?:-\w, )?(--\S+(?: [A-Z]\S*| k=v| row\S*)?) +(.+)$/
        .exec(entry)!;
    const fact = (pattern: RegExp) => pattern.exec(text)?.[1] ?? "";
    const variable = fact(/ \[(TIKTOK_\w+)\]/);
    const initial = fact(/ \[default: ([^\]]+)\]/);
    const what = text.replace(/ \[[^\]]+\]/g, "") +
      (text.includes("[repeatable]") ? ", repeatable" : "");
    return [`\`${flag}\``, variable && `\`${variable}\``, initial, what]
      .map((cell) => cell.replaceAll("|", "\\|")).join(" | ");
  });
}

/** The rows of the README's table with this head, their padding taken out. */
function tableUnder(head: string): string[] {
  const lines = README.split("\n");
  const at = lines.findIndex((line) => line.startsWith(`| ${head} `));
  assert.ok(at >= 0, `no table "${head}"`);
  const end = lines.findIndex((line, i) => i > at && !line.startsWith("|"));
  return lines.slice(at + 2, end).map((line) =>
    line.replace(/^\| | \|$/g, "").split(/(?<!\\) *\| /)
      .map((cell) => cell.trim()).join(" | ").trimEnd()
  );
}
