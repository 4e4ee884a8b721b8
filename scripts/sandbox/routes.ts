/**
 * Answers of one's own: which calls they are for, and what they say.
 *
 * @module
 */
import type { World } from "./data.ts";
import { pathPattern } from "./operations.ts";
import { JSON_TYPE, type Reply, success } from "./replies.ts";
import type { SandboxRoute } from "./types.ts";

/** An answer of one's own, read. */
export interface OwnRoute {
  readonly method: string;
  readonly path: RegExp;
  readonly reply: SandboxRoute;
}

const WHOLE_REPLY = ["status", "headers", "body"];
/** What says where a reply ends is the server's. */
const FRAMING = ["connection", "content-length", "transfer-encoding"];

/**
 * Reads the option `routes`.
 *
 * @throws {RangeError} for a route that cannot be
 */
export function parseRoutes(
  routes: Readonly<Record<string, SandboxRoute>>,
): OwnRoute[] {
  return Object.entries(routes).map(([name, reply]) => {
    const [, method, path] = /^([A-Z]+) (\/[^?#\s]+)$/.exec(name) ?? [];
    if (method === undefined || path === undefined) {
      throw new RangeError(
        `Cannot read the route "${name}": write "METHOD /path"`,
      );
    }
    assertReply(name, reply);
    return { method, path: pathPattern(path), reply };
  });
}

function assertReply(name: string, reply: SandboxRoute): void {
  if (isReply(reply)) return;
  throw new RangeError(
    `Cannot answer "${name}" so: give {"data": …}, or {"status": 200 to 599, ` +
      `"headers": {…}, "body": …}`,
  );
}

function isReply(reply: unknown): reply is SandboxRoute {
  if (typeof reply !== "object" || reply === null) return false;
  const given = Object.keys(reply);
  const { status = 200, headers = {} } = reply as SandboxRoute;
  const isData = given.join() === "data";
  if (!isData && !given.includes("body")) return false;
  if (!given.every((one) => isData || WHOLE_REPLY.includes(one))) return false;
  if (!Number.isInteger(status) || status < 200 || status > 599) return false;
  try {
    JSON.stringify(reply); // a BigInt, or a circle
    const names = [...new Headers(headers).keys()];
    return !names.some((header) => FRAMING.includes(header));
  } catch {
    return false;
  }
}

/** The route for a call; of several, the last one that was given. */
export function ownRoute(
  routes: readonly OwnRoute[],
  method: string,
  path: string,
): OwnRoute | undefined {
  return routes.findLast((route) =>
    route.method === method && route.path.test(path)
  );
}

/** The answer of a route. */
export function routeReply(world: World, route: SandboxRoute): Reply {
  if ("data" in route) return success(world, JSON.stringify(route.data));
  const { status = 200, headers, body } = route;
  const isText = typeof body === "string";
  return {
    status,
    type: isText ? "text/plain; charset=utf-8" : JSON_TYPE,
    body: isText ? body : JSON.stringify(body),
    // Their names in lower case, as the server's: no header comes twice.
    headers: Object.fromEntries(new Headers(headers)),
  };
}
