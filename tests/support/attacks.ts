/**
 * Everything that may come to a waiting login besides its redirect: wrong,
 * huge, broken, half-sent and foreign requests, drawn at random.
 */
import { connect, type Socket } from "node:net";
import {
  exchangeRaw,
  LOOPBACKS,
  type RawRequest,
  rawRequest,
} from "./callback_helpers.ts";
import type { Random } from "./fuzz.ts";

const AT_ONCE = 40;

/** What an attacker knows: even the good redirect. */
export interface Scene {
  random: Random;
  port: number;
  target: string;
  state: string;
}

/** Bytes to send, what may be answered (0: nothing), and how they are sent. */
interface Attack {
  bytes: string;
  statuses: number[];
  way?: "hold" | "drip" | "reset";
}

/** What the runtime's own parser may say. */
const PARSER = [0, 400, 405, 413, 414, 431];

function ask(
  { port }: Scene,
  request: RawRequest,
  ...statuses: number[]
): Attack {
  return { bytes: rawRequest(port, request), statuses };
}

/** A state that is not ours, near or far. */
function wrongState({ random, state }: Scene): string {
  const at = random.below(state.length);
  const other = state[at] === "x" ? "y" : "x";
  return random.pick([
    "",
    "null",
    random.word(),
    random.word(state.length),
    state.slice(0, at),
    state + random.word(),
    state.slice(0, at) + other + state.slice(at + 1),
    `%00${state}`,
    `${state}%0a`,
    `${state.slice(0, at)}%20${state.slice(at)}`,
  ]);
}

function wrongTarget(scene: Scene): string {
  const { random } = scene;
  const more = random.pick(["", "&error=auth_denied", "&locale=%3Cb%3E"]);
  return `/?code=${random.word()}${more}&state=${wrongState(scene)}`;
}

/** Every kind of attack; each is drawn as often as the others. */
const ATTACKS: Record<string, (scene: Scene) => Attack> = {
  "wrong state": (scene) => ask(scene, { target: wrongTarget(scene) }, 400),
  "cross-site": (scene) => {
    const headers = { "Origin": "https://evil.example", "Cookie": "a=b" };
    return ask(scene, { target: wrongTarget(scene), headers }, 400);
  },
  "doubled parameter": (scene) => {
    const { random, target, state } = scene;
    const name = random.pick(["state", "code", "locale", "st%61te", "app_key"]);
    const value = random.pick(["", state, random.word()]);
    return ask(scene, { target: `${target}&${name}=${value}` }, 400);
  },
  "no state": (scene) =>
    ask(scene, { target: `/?code=${scene.random.word()}` }, 202, 400),
  "denial without state": (scene) =>
    ask(scene, { target: "/?code=null&error=auth_denied" }, 400),
  "nothing to say": (scene) =>
    ask(scene, { target: `/?x=${scene.random.word()}` }, 200),
  "bad Host": (scene) => {
    const { random, port, target } = scene;
    const host = random.pick([
      random.word(),
      `${random.word()}:${port}`,
      `localhost:${random.below(65536)}0`,
      `localhost:${port}.evil.example`,
      `evil@localhost:${port}`,
      `localhost:${port}, evil.example`,
      "",
      "[::1]:",
      "two words",
      null,
    ]);
    return ask(scene, { target, host }, 421);
  },
  "foreign target": (scene) => {
    const target = `http://${scene.random.word()}.example${scene.target}`;
    return ask(scene, { target }, 421, 400);
  },
  "other path": (scene) => {
    const path = scene.random.pick(["favicon.ico", "/", "%2f", ".env", "a/b"]);
    return ask(
      scene,
      { target: `/${path}${wrongTarget(scene).slice(1)}` },
      404,
    );
  },
  "code on another path": (scene) =>
    ask(scene, { target: `/${scene.random.word()}?code=C` }, 404),
  "picture": (scene) => {
    const dest = scene.random.pick(["image", "iframe", "empty", "script"]);
    const headers = { "Sec-Fetch-Dest": dest };
    return ask(scene, { target: scene.target, headers }, 400);
  },
  "odd method": (scene) => {
    const method = scene.random.pick(
      ["PUT", "DELETE", "TRACE", "get", "PROPFIND", "BREW", "PATCH"],
    );
    return ask(scene, { target: scene.target, method }, 405);
  },
  "CONNECT": (scene) => {
    const target = `localhost:${scene.port}`;
    return ask(scene, { method: "CONNECT", target }, 405);
  },
  "POST": (scene) => {
    const { random, target } = scene;
    const body = target.slice(2) + "x".repeat(random.below(100_000));
    return ask(scene, { target, method: "POST", body }, 405);
  },
  "POST without its body": (scene) => {
    const headers = { "Content-Length": "100000" };
    return ask(scene, { target: scene.target, method: "POST", headers }, 405);
  },
  "HEAD": (scene) => ask(scene, { target: scene.target, method: "HEAD" }, 200),
  "OPTIONS": (scene) =>
    ask(scene, { target: scene.target, method: "OPTIONS" }, 204),
  "prefetch": (scene) => {
    const name = scene.random.pick(["Sec-Purpose", "Purpose", "X-Moz"]);
    const headers = { [name]: "prefetch" };
    return ask(scene, { target: scene.target, headers }, 204);
  },
  "upgrade": (scene) => {
    const headers = { Connection: "Upgrade", Upgrade: "websocket" };
    return ask(scene, { target: wrongTarget(scene), headers }, 400);
  },
  "huge URL": (scene) => {
    const more = "x".repeat(1000 + scene.random.below(300_000));
    const target = `${wrongTarget(scene)}${more}`;
    return ask(scene, { target }, ...PARSER);
  },
  "many parameters": (scene) => {
    const more = Array.from({ length: 1500 }, (_, i) => `&${i}`).join("");
    return ask(scene, { target: `${wrongTarget(scene)}${more}` }, 400);
  },
  "huge header": (scene) => {
    const headers = { "X": "x".repeat(1000 + scene.random.below(300_000)) };
    return ask(scene, { target: wrongTarget(scene), headers }, ...PARSER);
  },
  "many headers": (scene) => {
    const { port, random } = scene;
    const more = "X: y\r\n".repeat(random.below(5000));
    const bytes = rawRequest(port, { target: wrongTarget(scene) });
    return {
      bytes: bytes.replace("\r\n\r\n", `\r\n${more}\r\n`),
      statuses: PARSER,
    };
  },
  "pipelined": (scene) => {
    const bytes = Array.from(
      { length: 2 + scene.random.below(8) },
      () => rawRequest(scene.port, { target: wrongTarget(scene) }),
    ).join("");
    return { bytes, statuses: [400] };
  },
  "two lengths": (scene) => {
    const headers = { "Content-Length": "5", "Transfer-Encoding": "chunked" };
    return ask(scene, { method: "POST", headers }, ...PARSER);
  },
  "garbage": ({ random }) => ({
    bytes: `${random.bytes(1 + random.below(500))}\r\n\r\n`,
    statuses: PARSER,
  }),
  "broken request line": ({ random, target }) => ({
    bytes: random.pick([
      `GET ${target}\r\n\r\n`,
      `GET ${target} HTTP/9.9\r\n\r\n`,
      `${target}\r\n\r\n`,
      `GET  ${target}  HTTP/1.1\r\n\r\n`,
      "\r\n".repeat(random.below(50)) + "\0",
    ]),
    statuses: [...PARSER, 404, 421, 505],
  }),
  "TLS hello": ({ random }) => ({
    bytes: `\x16\x03\x01${random.bytes(200)}`,
    statuses: PARSER,
  }),
  "HTTP/2": ({ random }) => ({
    bytes: `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${random.bytes(random.below(99))}`,
    statuses: PARSER,
  }),
  "half-open": ({ random, port, target }) => {
    const whole = rawRequest(port, { target });
    return {
      bytes: whole.slice(0, random.below(whole.length - 1)),
      statuses: [],
      way: "hold",
    };
  },
  "slow": ({ port, target }) => ({
    bytes: rawRequest(port, { target }).slice(0, -1),
    statuses: [],
    way: "drip",
  }),
  "reset": ({ random, port, target }) => {
    const whole = rawRequest(port, { target });
    const end = random.below(whole.length - 1);
    return { bytes: whole.slice(0, end), statuses: [], way: "reset" };
  },
};

/** Sends one attack; resolves to the status of the answer, 0 for none. */
async function attack(
  scene: Scene,
  { bytes, statuses, way }: Attack,
  held: Socket[],
): Promise<number | undefined> {
  const { port, random } = scene;
  const host = random.pick(LOOPBACKS);
  if (way) return void await trickle({ port, host }, bytes, way, held);
  const ms = statuses.includes(0) ? 300 : 60_000;
  const answer = await exchangeRaw(port, bytes, { host, ms }).catch(() => {});
  return answer?.status ?? 0;
}

/** Sockets that are held open at once. */
const MOST_HELD = 500;

/** Sends a part of a request, and keeps or drops the socket. */
async function trickle(
  address: { port: number; host: string },
  bytes: string,
  way: Attack["way"],
  held: Socket[],
): Promise<void> {
  const socket = connect({ ...address, allowHalfOpen: true });
  if (held.push(socket) > MOST_HELD) held.shift()!.destroy();
  await new Promise<void>((resolve) => {
    socket.once("connect", resolve);
    socket.on("error", () => resolve());
  });
  if (way !== "drip") socket.write(bytes, "latin1");
  if (way === "reset") setTimeout(() => socket.resetAndDestroy(), 1);
  if (way === "drip") drip(socket, bytes);
}

function drip(socket: Socket, bytes: string): void {
  let at = 0;
  const timer = setInterval(() => {
    if (socket.destroyed || at === bytes.length) return clearInterval(timer);
    socket.write(bytes[at++]!);
  }, 20);
}

/**
 * Runs this many attacks, some at a time; the wrong answers. Sockets that are
 * still open are left in `held`.
 */
export async function attackAll(
  scene: Scene,
  count: number,
  held: Socket[],
): Promise<string[]> {
  const wrong: string[] = [];
  const kinds = Object.keys(ATTACKS);
  let left = count;
  const work = async () => {
    while (left-- > 0) {
      const kind = scene.random.pick(kinds);
      const one = ATTACKS[kind]!(scene);
      const status = await attack(scene, one, held);
      if (status === undefined || one.statuses.includes(status)) continue;
      const shown = JSON.stringify(one.bytes.slice(0, 80));
      wrong.push(`${kind}: answered ${status} to ${shown}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return wrong;
}
