/**
 * Attacks and byte streams while a login waits: none ends the wait, none
 * spends the code, and the good callback works after all of them.
 */
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { inspect } from "node:util";
import type { Sandbox } from "../../scripts/sandbox.ts";
import { attackAll, type Scene } from "../support/attacks.ts";
import {
  type Login,
  portClosed,
  startLogin,
} from "../support/callback_helpers.ts";
import {
  freePort,
  ROOT,
  type Running,
  runtimeCommand,
  start,
  startProgram,
} from "../support/helpers.ts";
import { howOften, note, Random, SEED, SOAKING } from "../support/fuzz.ts";
import { withFolder, withSandbox } from "../support/token_host.ts";
import { timed, within } from "../support/timing.ts";

const COUNT = howOften(1000);

/** What an attacker knows at most: even the redirect itself. */
function sceneOf(redirect: URL): Scene {
  return {
    random: new Random(SEED),
    port: Number(redirect.port),
    target: redirect.pathname + redirect.search,
    state: redirect.searchParams.get("state")!,
  };
}

// === The library

/** The good callback, with the attackers' sockets still there. */
async function assertSucceeds(login: Login, redirect: URL): Promise<void> {
  await within(1000, async () => {
    const answer = await fetch(redirect);
    assert.match(await answer.text(), /<main class="success">/);
    await login.flow.reply;
  });
  assert.equal(login.exchanges(), 1);
  assert.deepEqual(login.states, [1, 2, 3]);
  await within(1000, () => portClosed(login.flow.port));
}

const FEW = Math.min(COUNT, 1000);

test(`startAuth() outlives ${FEW} attacks, seed ${SEED}`, async () => {
  const login = await startLogin();
  const held: Socket[] = [];
  try {
    const redirect = await login.redirect();
    const wrong = await attackAll(sceneOf(redirect), FEW, held);
    await delay(50); // whatever is on its way
    assert.deepEqual(wrong, []);
    assert.deepEqual([login.flow.state, ...login.states], [1, 1]);
    assert.equal(login.exchanges(), 0);
    // One of each kind, no flood of them.
    assert.equal(new Set(login.warnings).size, login.warnings.length);
    assert.ok(login.warnings.length <= 7, login.warnings.join());
    await assertSucceeds(login, redirect);
  } finally {
    for (const socket of held) socket.destroy();
    await login.end();
  }
});

// === The program

const GROWTH = 32; // MiB
const MANY = SOAKING ? COUNT : 500;

/** What a process holds in RAM, in MiB; NaN where that cannot be known. */
async function memoryOf({ pid }: ChildProcess): Promise<number> {
  if (process.platform !== "linux") return NaN;
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) / 1024;
}

/** A login of the program that waits, and where its redirect will go. */
async function waitingLogin(
  sandbox: Sandbox,
  folder: string,
): Promise<{ running: Running; redirect: URL }> {
  const { port } = new URL(sandbox.redirectUrl);
  const args = ["login", "--no-browser", "--port", port, "--timeout", "2h"];
  const env = { ...sandbox.env, HOME: folder, TIKTOK_SHOP_HOME: folder };
  const running = startProgram(args, { env });
  const [link] = await running.until(/^http\S+authorize\S+$/m);
  return { running, redirect: new URL(await sandbox.approve(link!)) };
}

/** The good callback and the end of the program, in the usual time. */
async function assertEnds(running: Running, redirect: URL): Promise<void> {
  const { value, took, slack } = await timed(async () => {
    const answer = await fetch(redirect);
    assert.match(await answer.text(), /<main class="success">/);
    return await running.ended;
  });
  assert.equal(value.code, 0);
  assert.equal(JSON.parse(value.stdout).code, 0);
  assert.ok(took < 2000 + slack, `the end took ${took} ms`);
  note("ms from the good callback to the end", Math.round(took));
}

/** How a process has grown, in MiB: by the first half of all, and by all. */
interface Growth {
  half: number;
  whole: number;
  wrong: string[];
}

/** Attacks a process, and how much that made it grow. */
async function growthBy({ child }: Running, scene: Scene): Promise<Growth> {
  const held: Socket[] = [];
  try {
    const before = await memoryOf(child);
    const half = Math.ceil(MANY / 2);
    const wrong = await attackAll(scene, half, held);
    const between = await memoryOf(child);
    wrong.push(...await attackAll(scene, MANY - half, held));
    if (SOAKING) await delay(2000); // for what is collected late
    const after = await memoryOf(child);
    note("sockets held open at the end", held.length);
    return { half: between - before, whole: after - before, wrong };
  } finally {
    for (const socket of held) socket.destroy();
  }
}

/** What a bare server grows by: a soak's numbers make any server grow. */
async function bareGrowth(redirect: URL): Promise<number> {
  const port = await freePort();
  const file = join(ROOT, "tests", "bare_server.ts");
  const bare = start([...runtimeCommand(file), String(port)]);
  try {
    await bare.until(/listening/);
    const growth = await growthBy(bare, { ...sceneOf(redirect), port });
    note("MiB of growth of a bare server", growth.whole.toFixed(1));
    return growth.whole;
  } finally {
    bare.child.kill("SIGKILL");
  }
}

/** Asserts that the process grows little, and that its growth ends. */
async function assertSmall(growth: Growth, redirect: URL): Promise<void> {
  if (Number.isNaN(growth.whole)) return;
  note("MiB of growth by the first half", growth.half.toFixed(1));
  note("MiB of growth", growth.whole.toFixed(1));
  assert.ok(growth.whole - growth.half < GROWTH / 4, inspect(growth));
  const own = SOAKING ? await bareGrowth(redirect) : 0;
  assert.ok(growth.whole - own < GROWTH, `${inspect(growth)}, bare ${own}`);
}

test(`The program outlives ${MANY} attacks and stays small, seed ${SEED}`, () =>
  withFolder(async (folder) => {
    const redirectUrl = `http://localhost:${await freePort()}/`;
    await withSandbox(async (sandbox) => {
      const { running, redirect } = await waitingLogin(sandbox, folder);
      try {
        const began = performance.now();
        const growth = await growthBy(running, sceneOf(redirect));
        note("attacks", MANY);
        note("seconds", Math.round((performance.now() - began) / 1000));
        assert.deepEqual(growth.wrong, []);
        assert.equal(sandbox.count("/api/v2/token/get"), 0);
        await assertEnds(running, redirect);
        assert.equal(sandbox.count("/api/v2/token/get"), 1);
        await assertSmall(growth, redirect);
      } finally {
        running.child.kill("SIGKILL");
      }
    }, { redirectUrl });
  }));
