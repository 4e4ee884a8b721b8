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

const MEMBERS = ["data", "status", "headers", "body"];

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
  const isObject = typeof reply === "object" && reply !== null;
  const given = isObject ? Object.keys(reply) : [];
  const { status = 200 } = isObject ? reply : {};
  const known = given.every((member) => MEMBERS.includes(member));
  const one = given.includes("data") !== given.includes("body") &&
    (!given.includes("data") || given.length === 1);
  if (
    known && one && Number.isInteger(status) && status > 199 && status < 600
  ) {
    return;
  }
  throw new RangeError(
    `Cannot answer "${name}" so: give {"data": …}, or {"status": 200 to 599, ` +
      `"headers": {…}, "body": …}`,
  );
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
    ...(headers && { headers: lowerCased(headers) }),
  };
}

/** The server's own names are in lower case, and no header may come twice. */
function lowerCased(headers: Readonly<Record<string, string>>) {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
  );
}
