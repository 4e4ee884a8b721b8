/**
 * The barest server on a port of both loopback addresses, for comparison: if
 * it grows under attack, the runtime is the cause. It says "listening" and
 * refuses everything.
 */
import { createServer } from "node:http";
import process from "node:process";

const port = Number(process.argv[2]);
const HEADERS = { connection: "close" };

for (const hostname of ["127.0.0.1", "::1"]) {
  if ("Deno" in globalThis) {
    const refusal = { status: 400, headers: HEADERS };
    Deno.serve(
      { hostname, port, onListen() {} },
      () => new Response("no", refusal),
    );
  } else {
    const server = createServer((_, reply) => {
      reply.writeHead(400, HEADERS);
      reply.end("no");
    });
    server.on("connect", (_, socket) => socket.destroy());
    server.listen({ port, host: hostname, ipv6Only: true });
  }
}
console.log("listening");
