/**
 * Judges a signature.
 *
 * @module
 */
import { createHmac } from "node:crypto";
import { type Call, sameText } from "./data.ts";
import type { Refusal } from "./replies.ts";
import type { SandboxExplanation } from "./types.ts";

/** Signs like the official guide; its vectors are in the tests. */
export function judgeSign(
  call: Call,
  secret: string,
): { note?: string; refused?: Refusal; explanation?: SandboxExplanation } {
  const sign = call.query.get("sign");
  if (sign === null) return { refused: SIGN_MISSING };
  return sameText(sign, signatureOf(secret, call))
    ? {}
    : { refused: SIGN_INVALID };
}

const SIGN_MISSING: Refusal = [
  36009004,
  "Missing credentials. The request does not include a required signature " +
  "in the query.",
];
const SIGN_INVALID: Refusal = [
  106001,
  "Invalid credentials. The `sign` query parameter is invalid.",
];

function signatureOf(secret: string, call: Call): string {
  const pairs = [...call.query]
    .filter(([key]) => key !== "sign" && key !== "access_token")
    .sort(([a], [b]) => a < b ? -1 : Number(a > b));
  const multipart = call.headers["content-type"]?.toLowerCase()
    .startsWith("multipart/form-data");
  const unsigned = call.method === "GET" || multipart;
  return createHmac("sha256", secret)
    .update(secret + call.path + pairs.flat().join(""))
    .update(unsigned ? "" : call.bytes)
    .update(secret)
    .digest("hex");
}
