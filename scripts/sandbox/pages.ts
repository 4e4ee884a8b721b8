/**
 * The authorize page, and where its buttons lead.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import {
  accountAt,
  APP_PARAMETER,
  type Call,
  CREATOR,
  CREATOR_PATH,
  issueCode,
  PARTNER,
  SELLER_PATH,
  type World,
} from "./data.ts";
import {
  type Fault,
  type FaultName,
  faultText,
  parseFaults,
} from "./faults.ts";
import type { Reply } from "./replies.ts";
import type { SandboxSeller } from "./types.ts";

// === Authorize page

/** Shows the page, or sends the browser back after the person's click. */
export function authorize(world: World, call: Call, faults: Fault[]): Reply {
  const parameter = APP_PARAMETER.get(call.path) ?? "service_id";
  const { appKey, serviceId } = world.settings;
  const wanted = parameter === "app_key" ? appKey : serviceId;
  if (!["GET", "HEAD", "POST"].includes(call.method)) {
    const reply = problemPage(405, "Only GET and POST work here", "");
    return {
      ...reply,
      headers: { ...reply.headers, allow: "GET, HEAD, POST" },
    };
  }
  if (call.query.get(parameter) !== wanted) {
    const advice = `The ${parameter} of the sandbox's app is ${wanted}.`;
    return problemPage(404, "This service does not exist", advice);
  }
  try {
    const steps = parseFaults(call.query.get("fault") ?? world.settings.fault);
    const form = new URLSearchParams(
      call.method === "POST" ? call.bytes.toString() : "",
    );
    const seller = chosenSeller(world, call, form.get("seller"));
    if (call.method !== "POST") return consentPage(world, call, seller, steps);
    return decide(world, call, seller, form, [faults, ...steps]);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return problemPage(400, "This link cannot work", error.message);
  }
}

/** The accounts to choose from: creators have a page of their own. */
function candidates(world: World, call: Call): number[] {
  const creators = call.path === CREATOR_PATH;
  const all = [...world.accounts.keys()];
  const fitting = all.filter((index) =>
    (accountAt(world, index).userType === CREATOR) === creators
  );
  return fitting.length > 0 ? fitting : all;
}

function chosenSeller(
  world: World,
  call: Call,
  clicked: string | null,
): number {
  const named = clicked ?? call.query.get("seller");
  const index = named === null
    ? candidates(world, call)[0] ?? 0
    : /^\d{1,6}$/.test(named)
    ? Number(named)
    : -1;
  accountAt(world, index);
  return index;
}

function decide(
  world: World,
  call: Call,
  index: number,
  form: URLSearchParams,
  steps: Fault[][],
): Reply {
  const decision = form.get("decision");
  if (decision !== "approve" && decision !== "deny") {
    return problemPage(400, "Nothing was decided", "Go back and choose.");
  }
  const names = new Set(steps.flat().map((fault) => fault.name));
  if (decision === "deny") names.add("deny");
  const seller = accountAt(world, index);
  const pairs = spoilRedirect(
    redirectPairs(world, call, seller, names, steps),
    names,
  );
  return {
    status: 302,
    type: "text/plain; charset=utf-8",
    body: "",
    headers: {
      ...PRIVATE_HEADERS,
      location: withQuery(world.settings.redirectUrl, pairs),
    },
  };
}

type Pairs = [name: string, value: string][];

function redirectPairs(
  world: World,
  call: Call,
  seller: SandboxSeller,
  faults: Set<FaultName>,
  steps: Fault[][],
): Pairs {
  const state = call.query.get("state");
  const end: Pairs = state === null ? [] : [["state", state]];
  if (faults.has("deny")) {
    return [["code", "null"], ["error", "auth_denied"], ...end];
  }
  if (faults.has("other-error")) return [["error", "server_error"], ...end];
  return [
    ["app_key", world.settings.appKey],
    ["code", issueCode(world, seller, steps)],
    ["locale", "en"],
    ["shop_region", seller.region],
    ...end,
  ];
}

function spoilRedirect(pairs: Pairs, faults: Set<FaultName>): Pairs {
  let spoilt = pairs;
  if (faults.has("no-code")) {
    spoilt = spoilt.filter(([name]) => name !== "code");
  }
  if (faults.has("missing-state")) {
    spoilt = spoilt.filter(([name]) => name !== "state");
  }
  if (faults.has("wrong-state")) {
    const state = randomBytes(32).toString("base64url");
    spoilt = spoilt.map((
      [name, value],
    ) => [name, name === "state" ? state : value]);
  }
  if (faults.has("auth_code")) {
    spoilt = spoilt.map((
      [name, value],
    ) => [name === "code" ? "auth_code" : name, value]);
  }
  if (!faults.has("duplicate-parameters")) return spoilt;
  const twice = spoilt.filter(([name]) => /^(auth_)?code$|^state$/.test(name));
  return [...spoilt, ...twice];
}

/** Adds to a URL's query, and leaves what is there exactly as it is. */
function withQuery(url: string, pairs: Pairs): string {
  const query = pairs.map(([name, value]) =>
    `${encodeURIComponent(name)}=${encodeURIComponent(value)}`
  ).join("&");
  if (query === "") return url;
  return url + (url.includes("?") ? "&" : "?") + query;
}

// === HTML

const SCOPE_TEXTS: Readonly<Record<string, string>> = {
  "creator.authorization.info": "See who you are",
  "seller.authorization.info": "See which shops you have",
  "seller.order.info": "Read your orders",
  "seller.product.basic": "Read your products",
  "seller.product.write": "Create and change products",
  "seller.shop.info": "Read your shops' settings",
};

const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #f3f4f6; --card: #fff; --line: #d5d9e0; --text: #171a20;
  --quiet: #555d6b; --accent: #0b6b63; --on-accent: #fff;
  --note: #fff3d1; --on-note: #5a4200;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #101317; --card: #191d23; --line: #363d48; --text: #eceff3;
    --quiet: #a5aebb; --accent: #63d9cb; --on-accent: #06211e;
    --note: #362c12; --on-note: #ffe2a1;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 1rem/1.55 system-ui, sans-serif;
}
.note {
  margin: 0; padding: .65rem 1rem; text-align: center;
  background: var(--note); color: var(--on-note);
}
main {
  max-width: 33rem; margin: clamp(1rem, 6vh, 4.5rem) auto; width: 92%;
  padding: clamp(1.25rem, 5vw, 2.5rem); background: var(--card);
  border: 1px solid var(--line); border-radius: 1rem;
}
h1 {
  margin: 0 0 .5rem; font-size: 1.6rem; line-height: 1.25;
  letter-spacing: -.015em; text-wrap: balance;
}
h2, legend { margin: 0; padding: 0; font-size: 1rem; font-weight: 650; }
section, fieldset { margin: 1.5rem 0 0; padding: 0; border: 0; min-width: 0; }
p { margin: 0; overflow-wrap: anywhere; }
.quiet, dt, li span { color: var(--quiet); }
ul { margin: .4rem 0 0; padding: 0; list-style: none; }
li { padding: .5rem 0; border-top: 1px solid var(--line); }
li:first-child { border-top: 0; }
li span { display: block; font-size: .875rem; overflow-wrap: anywhere; }
label {
  display: flex; gap: .75rem; margin-top: .6rem; padding: .75rem 1rem;
  border: 1px solid var(--line); border-radius: .6rem; cursor: pointer;
}
label:has(:checked) { border-color: var(--accent); }
label div { flex: 1; min-width: 0; overflow-wrap: anywhere; }
input { accent-color: var(--accent); width: 1.1rem; flex: none; }
code { font: .875em ui-monospace, monospace; overflow-wrap: anywhere; }
.choice { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 2rem; }
button {
  flex: 1 1 10rem; padding: .8rem 1.25rem; font: inherit; font-weight: 650;
  border: 1px solid var(--quiet); border-radius: .6rem; cursor: pointer;
  background: transparent; color: inherit;
}
button:first-child {
  background: var(--accent); border-color: var(--accent);
  color: var(--on-accent);
}
button:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; }
footer { margin-top: 1.25rem; font-size: .875rem; color: var(--quiet); }
`;

const PRIVATE_HEADERS = {
  "cache-control": "no-store",
  // Not no-referrer: the page's own form would come with the Origin "null".
  "referrer-policy": "same-origin",
  "x-content-type-options": "nosniff",
};

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
}

/** `body` is HTML. form-action is left out: it would block the redirect. */
function page(status: number, title: string, body: string): Reply {
  const hash = createHash("sha256").update(STYLE).digest("base64");
  return {
    status,
    type: "text/html; charset=utf-8",
    headers: {
      ...PRIVATE_HEADERS,
      "content-security-policy":
        `default-src 'none'; style-src 'sha256-${hash}'; img-src data:; ` +
        "base-uri 'none'; frame-ancestors 'none'",
    },
    body: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)} (sandbox, not TikTok)</title>
<link rel="icon" href="data:,">
<style>${STYLE}</style>
</head>
<body>
<header class="note"><strong>Sandbox, not TikTok.</strong>
Nothing you do here reaches TikTok.</header>
<main>
<h1>${escapeHtml(title)}</h1>
${body}
</main>
</body>
</html>
`,
  };
}

function problemPage(status: number, title: string, advice: string): Reply {
  return page(status, title, `<p class="quiet">${escapeHtml(advice)}</p>`);
}

function consentPage(
  world: World,
  call: Call,
  chosen: number,
  steps: Fault[][],
): Reply {
  const choices = candidates(world, call);
  const indices = choices.includes(chosen) ? choices : [chosen];
  const sellers = indices.map((index) => accountAt(world, index));
  const app = call.path === SELLER_PATH
    ? `service id <code>${escapeHtml(world.settings.serviceId)}</code>`
    : `key <code>${escapeHtml(world.settings.appKey)}</code>`;
  const body = `<p class="quiet">The app with the ${app} asks for access.</p>
<form method="post" action="${escapeHtml(call.target)}">
${accountSection(world, indices, chosen)}
${scopeSection(new Set(sellers.flatMap((seller) => seller.scopes)))}
<div class="choice">
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</div>
</form>
<footer>${footerText(world, steps)}</footer>`;
  return page(200, "Let this app use your account?", body);
}

function accountSection(
  world: World,
  indices: number[],
  chosen: number,
): string {
  if (indices.length === 1) {
    return `<section>
<h2>Account</h2>
${accountText(accountAt(world, chosen))}
<input type="hidden" name="seller" value="${chosen}">
</section>`;
  }
  const labels = indices.map((index) =>
    `<label><input type="radio" name="seller" value="${index}"${
      index === chosen ? " checked" : ""
    }><div>${accountText(accountAt(world, index))}</div></label>`
  );
  return `<fieldset>
<legend>Choose an account</legend>
${labels.join("\n")}
</fieldset>`;
}

function accountText(seller: SandboxSeller): string {
  const kinds: Record<number, string> = {
    0: "seller",
    [CREATOR]: "creator",
    [PARTNER]: "partner",
  };
  const kind = kinds[seller.userType] ?? `type ${seller.userType}`;
  const shops = seller.shops.map((shop) => `${shop.name} (${shop.region})`);
  const list = shops.length === 0 ? "" : `: ${shops.join(", ")}`;
  return `<p>${escapeHtml(seller.name ?? "Unnamed account")}</p>
<p class="quiet">${escapeHtml(`${seller.region} ${kind}${list}`)}</p>`;
}

function scopeSection(scopes: Set<string>): string {
  if (scopes.size === 0) return "";
  return `<section>
<h2>It will be able to</h2>
<ul>${[...scopes].map(scopeItem).join("")}</ul>
</section>`;
}

function scopeItem(scope: string): string {
  const text = SCOPE_TEXTS[scope];
  const name = escapeHtml(scope);
  return text === undefined
    ? `<li><code>${name}</code></li>`
    : `<li>${escapeHtml(text)}<span><code>${name}</code></span></li>`;
}

function footerText(world: World, steps: Fault[][]): string {
  const back = escapeHtml(world.settings.redirectUrl);
  const names = steps.flat().map(faultText).join(", ");
  return `<p>Either button leads to <code>${back}</code></p>` +
    (names === "" ? "" : `<p>Faults to come: ${escapeHtml(names)}</p>`);
}
