/** One CLI fixture for a group of tests that change nothing in it. */
import { after, before } from "node:test";
import { type CliFixture, withCli } from "./cli_fixture.ts";

/** Opens a CLI fixture before the tests of this group, closes it after them. */
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
