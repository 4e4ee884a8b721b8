/** One desk for a group of tests that change nothing at it. */
import { after, before } from "node:test";
import { type CliFixture, withCli } from "./cli_fixture.ts";

/** Opens a desk before the tests of this group and clears it after them. */
export function sharedCli(): () => CliFixture {
  let cli: CliFixture;
  let leave: () => void;
  let left: Promise<void>;
  before(() =>
    new Promise<void>((resolve) => {
      left = withCli((one) => {
        cli = one;
        resolve();
        return new Promise<void>((resolve) => leave = resolve);
      });
    })
  );
  after(async () => {
    leave();
    await left;
  });
  return () => cli;
}
