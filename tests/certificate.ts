/** Certificates made by openssl, as a person would make them. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A certificate and its private key in PEM. */
export interface Certificate {
  cert: string;
  key: string;
}

/** A certificate for a host name and the loopback addresses, good for a day. */
export function makeCertificate(
  name = "localhost",
  kind = "ec -pkeyopt ec_paramgen_curve:prime256v1",
): Certificate {
  const folder = mkdtempSync(join(tmpdir(), "certificate "));
  const [key, cert] = ["key.pem", "cert.pem"].map((file) => join(folder, file));
  const names = `subjectAltName=DNS:${name},IP:127.0.0.1,IP:::1`;
  const args = `req -x509 -nodes -days 1 -newkey ${kind} -subj /CN=${name} ` +
    `-addext ${names}`;
  try {
    execFileSync(
      "openssl",
      [...args.split(" "), "-keyout", key!, "-out", cert!],
      { stdio: "ignore" },
    );
    return {
      cert: readFileSync(cert!, "utf8"),
      key: readFileSync(key!, "utf8"),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
