/**
 * The faults: what each is called, where it can happen, how it is read.
 *
 * @module
 */
import type { SandboxFault } from "./types.ts";

/** A fault without its number. */
export type FaultName = Exclude<SandboxFault, `${string}:${string}`>;

/** Where a fault can happen: before or after the decision, or at a host. */
type FaultPlace = "page" | "redirect" | "token" | "refresh" | "api";

/** A fault that was asked for; the value is 0 if it takes none. */
export interface Fault {
  name: FaultName;
  value: number;
}

const REDIRECT: FaultPlace[] = ["redirect"];
const TOKEN: FaultPlace[] = ["token"];
const REFRESH: FaultPlace[] = ["refresh"];
const TOKENS: FaultPlace[] = ["token", "refresh"];
const HOSTS: FaultPlace[] = ["token", "refresh", "api"];
const ANYWHERE: FaultPlace[] = ["page", "token", "refresh", "api"];

/** Every fault: where it can happen, and the sentence for `--help`. */
export const FAULTS: Readonly<Record<FaultName, [FaultPlace[], string]>> = {
  "deny": [REDIRECT, "the seller denies, whatever button is clicked"],
  "wrong-state": [REDIRECT, "the redirect has another state"],
  "missing-state": [REDIRECT, "the redirect has no state"],
  "duplicate-parameters": [REDIRECT, "code and state come twice"],
  "no-code": [REDIRECT, "the redirect has no code"],
  "auth_code": [REDIRECT, "the code's parameter is named auth_code"],
  "awkward-code": [REDIRECT, "code and tokens with +, /, = or % in them"],
  "other-error": [REDIRECT, "the redirect says error=server_error"],
  "expired-code": [TOKEN, "36004004, as after 30 minutes"],
  "invalid-code": [TOKEN, "36004004, as for another app's code"],
  "rotated-refresh": [REFRESH, "36004005, as for a replaced refresh token"],
  "expired-refresh": [REFRESH, "36004001, the refresh token is too old"],
  "deauthorized": [HOSTS, "36004005; on the API 105001"],
  "internal-error": [HOSTS, "36009003, worth a retry"],
  "timeout-error": [HOSTS, "36009007, worth a retry"],
  "ip-not-allowed": [HOSTS, "36009033 and the IP allow list"],
  "echo-secret": [HOSTS, "the message repeats the request's secrets"],
  "no-token": [TOKENS, "code 0 without access_token"],
  "no-refresh-token": [TOKENS, "no refresh_token; an old one stays good"],
  "no-expiry": [TOKENS, "the expiry times are missing"],
  "wrong-types": [TOKENS, "members of the wrong types"],
  "rate-limit": [ANYWHERE, "HTTP 429 with Retry-After: 1"],
  "html": [ANYWHERE, "HTTP 200 with an HTML error page"],
  "text-404": [ANYWHERE, "HTTP 404 in plain text"],
  "500": [ANYWHERE, "HTTP 500 in plain text"],
  "503": [ANYWHERE, "HTTP 503 in plain text"],
  "empty": [ANYWHERE, "HTTP 200 with an empty body"],
  "truncated": [ANYWHERE, "the connection ends half-way through the body"],
  "truncated-json": [ANYWHERE, "half of the body, as if it were all"],
  "dropped": [ANYWHERE, "the connection ends without a reply"],
  "redirect": [ANYWHERE, "HTTP 302 to /stolen"],
  "huge": [ANYWHERE, "the reply behind 33 MiB of white space"],
  "never": [ANYWHERE, "no answer at all"],
  "slow": [ANYWHERE, "2 seconds late; slow:MS for another time"],
  "clock": [ANYWHERE, "Date one hour ahead; clock:SECONDS for another"],
};

/** The names of all faults, without the two forms that carry a number. */
export const SANDBOX_FAULTS: readonly SandboxFault[] = Object.keys(
  FAULTS,
) as FaultName[];

/** What a numbered fault means without its number. */
const FAULT_DEFAULTS: Readonly<Record<string, number>> = {
  slow: 2000,
  clock: 3600,
};

/** The largest value that both `setTimeout` and `Date` can take. */
const MAX_FAULT_VALUE = 2 ** 31 - 1;

/** @throws {RangeError} for a fault that does not exist */
export function parseFault(text: string): Fault {
  const [, name = "", number] = /^(.*?)(?::(-?\d+))?$/.exec(text) ?? [];
  const numbered = Object.hasOwn(FAULT_DEFAULTS, name);
  if (!Object.hasOwn(FAULTS, name) || (number !== undefined && !numbered)) {
    throw new RangeError(
      `Unknown fault "${text}"; known are ${SANDBOX_FAULTS.join(", ")}`,
    );
  }
  const value = Number(number ?? FAULT_DEFAULTS[name] ?? 0);
  const lowest = name === "clock" ? -MAX_FAULT_VALUE : 0;
  if (value < lowest || value > MAX_FAULT_VALUE) {
    throw new RangeError(`Fault "${text}" is out of range`);
  }
  return { name: name as FaultName, value };
}

/**
 * Turns `slow,503,html` into what happens to one attempt after the other:
 * slow and 503, then html. Slow and clock go along with the next fault.
 */
export function parseFaults(text: string): Fault[][] {
  const steps: Fault[][] = [];
  let open = false;
  for (const part of text.split(",").filter((part) => part !== "")) {
    const fault = parseFault(part);
    if (open) steps.at(-1)?.push(fault);
    else steps.push([fault]);
    open = Object.hasOwn(FAULT_DEFAULTS, fault.name);
  }
  return steps;
}

/** Whether a fault can happen there. */
export function happensAt(fault: Fault, place: FaultPlace): boolean {
  return FAULTS[fault.name][0].includes(place);
}

/** A fault as it is written in a link. */
export function faultText(fault: Fault): string {
  const numbered = Object.hasOwn(FAULT_DEFAULTS, fault.name);
  return numbered ? `${fault.name}:${fault.value}` : fault.name;
}
