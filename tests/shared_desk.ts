/** One desk for a group of tests that change nothing at it. */
import { after, before } from "node:test";
import { type Desk, withDesk } from "./desk.ts";

/** Opens a desk before the tests of this group and clears it after them. */
export function sharedDesk(): () => Desk {
  let desk: Desk;
  let leave: () => void;
  let left: Promise<void>;
  before(() =>
    new Promise<void>((resolve) => {
      left = withDesk((one) => {
        desk = one;
        resolve();
        return new Promise<void>((resolve) => leave = resolve);
      });
    })
  );
  after(async () => {
    leave();
    await left;
  });
  return () => desk;
}
