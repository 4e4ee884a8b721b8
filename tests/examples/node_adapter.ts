/** Node's server for a handler of requests, as Deno.serve and Hono take it. */
import { createServer, type Server } from "node:http";
import { Readable } from "node:stream";

export function serveOnNode(
  origin: string, // of this server for browsers: the Host header may lie
  handler: (request: Request) => Response | Promise<Response>,
): Server {
  return createServer(async (message, reply) => {
    try {
      const { method, headers, url } = message;
      const hasBody = method !== "GET" && method !== "HEAD";
      const body = hasBody ? Readable.toWeb(message) : null;
      const init = { method, headers, body, duplex: "half" } as RequestInit;
      const response = await handler(new Request(origin + url, init));
      const bytes = new Uint8Array(await response.arrayBuffer());
      // A list, since each cookie is a header of its own.
      reply.writeHead(response.status, [...response.headers].flat()).end(bytes);
    } catch (error) {
      console.error(error);
      reply.writeHead(500).end("That failed, please begin again");
    }
  });
}
