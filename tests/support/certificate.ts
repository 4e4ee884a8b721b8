/** Certificates made by openssl, as a person would make them. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
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

/** A certificate that an authority of its own issued. */
export interface IssuedCertificate extends Certificate {
  /** The authority's certificate in PEM. */
  authority: string;
}

/** A certificate of a company's authority; of -1 days it has expired. */
export function issueCertificate(
  name = "localhost",
  days = 1,
): IssuedCertificate {
  const folder = mkdtempSync(join(tmpdir(), "certificate "));
  const openssl = (args: string) =>
    execFileSync("openssl", args.split(" "), { cwd: folder, stdio: "ignore" });
  const kind = "-nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
  try {
    writeFileSync(
      join(folder, "names"),
      `subjectAltName=DNS:${name}\nbasicConstraints=CA:FALSE\n`,
    );
    openssl(`req -x509 -days 1 ${kind} -subj /CN=Us -keyout ca.key -out ca`);
    openssl(`req ${kind} -subj /CN=${name} -keyout key -out request`);
    openssl(
      `x509 -req -in request -days ${days} -CA ca -CAkey ca.key ` +
        "-CAcreateserial -extfile names -out cert",
    );
    const [cert = "", key = "", authority = ""] = ["cert", "key", "ca"]
      .map((file) => readFileSync(join(folder, file), "utf8"));
    return { cert, key, authority };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
