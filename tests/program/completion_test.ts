/** The completions, at a terminal in the shells that are installed. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { withCli } from "../support/cli_fixture.ts";
import { NO_TERMINAL, withTerminal } from "../support/terminal.ts";

/** What starts each shell without a person's settings. */
const SHELLS: Record<string, string> = {
  bash: "bash --norc",
  zsh: "zsh -f",
  fish: "fish --no-config",
  powershell: "pwsh -NoProfile",
};

describe("completion", { concurrency: 2 }, () => {
  for (const [shell, line] of Object.entries(SHELLS)) {
    const [program] = line.split(" ");
    const isThere = !spawnSync(program!, ["-c", "exit"]).error;
    const skip = NO_TERMINAL || !isThere && `${program} is not installed`;
    it(
      `completes commands and flags at a key of ${shell}`,
      { skip },
      () =>
        withCli((cli) =>
          withTerminal(cli, {}, async (terminal) => {
            const { stdout, code } = await cli.run(["completion", shell]);
            assert.equal(code, 0);
            await cli.write("completion.ps1", stdout);
            await terminal.run(line);
            terminal.enter(". ./completion.ps1; echo re''ady");
            await terminal.until(/^ready$/m);
            for (
              const [begun, completed] of [
                ["sta", "status"],
                ["login --po", "login --port"],
                ["help rel", "help relay"],
              ]
            ) {
              terminal.type(`tiktok-shop-oauth2 ${begun}`);
              terminal.press("Tab");
              const shown = `tiktok-shop-oauth2 ${completed}\\b`;
              await terminal.until(new RegExp(`${shown} *$`, "m"));
              terminal.press("C-u");
            }
          })
        ),
    );
  }

  it("of a shell that it does not know is a usage error", () =>
    withCli(async (cli) => {
      const { stderr, code } = await cli.run(["completion", "bsh"]);
      assert.match(
        stderr,
        /^error: Unknown shell "bsh": did you mean bash\?\n/,
      );
      assert.equal(code, 2);
    }));
});
