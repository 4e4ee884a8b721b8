/**
 * The authorize page, and where its buttons lead.
 *
 * @module
 */
import { createHash, randomBytes } from "node:crypto";
import { PAGE_STYLE } from "../../mod.ts";
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
function candidates(world: World, call: Call): readonly SandboxSeller[] {
  const creators = call.path === CREATOR_PATH;
  const fitting = world.accounts.filter((seller) =>
    (seller.userType === CREATOR) === creators
  );
  return fitting.length > 0 ? fitting : world.accounts;
}

function chosenSeller(
  world: World,
  call: Call,
  clicked: string | null,
): SandboxSeller {
  const named = clicked ?? call.query.get("seller");
  return named === null ? candidates(world, call)[0]! : accountAt(world, named);
}

function decide(
  world: World,
  call: Call,
  seller: SandboxSeller,
  form: URLSearchParams,
  steps: Fault[][],
): Reply {
  const decision = form.get("decision");
  if (decision !== "approve" && decision !== "deny") {
    return problemPage(400, "Nothing was decided", "Go back and choose.");
  }
  const names = new Set(steps.flat().map((fault) => fault.name));
  if (decision === "deny") names.add("deny");
  const pairs = spoilRedirect(
    redirectPairs(world, call, seller, names, steps),
    names,
  );
  return redirectToApp(world, pairs);
}

/** Sends the browser on to the app. */
export function redirectToApp(world: World, pairs: Pairs): Reply {
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
  return [...approvalPairs(world, seller, steps), ...end];
}

/** What the app is told of a seller who approved it. */
export function approvalPairs(
  world: World,
  seller: SandboxSeller,
  steps: Fault[][],
): Pairs {
  return [
    ["app_key", world.settings.appKey],
    ["code", issueCode(world, seller, steps)],
    ["locale", "en"],
    ["shop_region", seller.region],
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

/** What the sandbox's pages have beyond the other pages of the program. */
const STYLE = PAGE_STYLE + `
body{grid-template-rows:auto 1fr;padding:0}
.note{position:sticky;top:0;z-index:1;width:100%;padding:.65rem 1rem;
  border-bottom:1px solid transparent;text-align:center;
  background:var(--care);color:var(--card)}
main{width:min(35rem,100% - 3rem);margin:1.5rem 0}
main.wide{width:min(64rem,100% - 3rem);max-width:none}
p,dd,td,li{text-wrap:wrap}
h2,legend{margin-bottom:.25rem;padding:0;color:var(--ink);font-size:1.0625rem;font-weight:650}
section,fieldset{min-width:0;margin-top:2rem;padding:0;border:0}
ul{margin-top:.5rem;padding:0;list-style:none}
li{padding:.7rem 0;border-top:1px solid var(--line)}
li:first-child{border-top:0}
li span,small{display:block;color:var(--dim);font-size:.875rem}
li.row{display:flex;flex-wrap:wrap;align-items:center;gap:.25rem 1.5rem}
li.row>div:first-child{flex:1 1 16rem;min-width:0}
code{overflow-wrap:anywhere}
dd code{padding:0;background:none}
.wide dl{border:0;padding:0;margin-top:.5rem}
.wide dl div{grid-template-columns:8rem 1fr}
.wide dl::before,.wide dl::after{display:none}
label.choice{display:flex;gap:.75rem;margin-top:.6rem;padding:.75rem 1rem;
  border:1px solid var(--line);border-radius:.6rem;cursor:pointer}
label.choice:has(:checked){border-color:var(--calm)}
label.choice div{flex:1;min-width:0}
[type=radio]{flex:none;width:1.1rem;accent-color:var(--calm)}
.buttons{display:flex;flex-wrap:wrap;gap:.75rem;margin-top:1.75rem}
button{margin:0;border:1px solid var(--calm)}
.buttons button{flex:1 1 10rem;padding:.8rem 1.25rem}
button.plain{border-color:var(--dim);background:none;color:inherit}
button:hover{filter:brightness(1.1)}
li .buttons{margin:0}
li .buttons button{flex:none;padding:.4rem 1rem}
.fields{display:flex;flex-wrap:wrap;align-items:end;gap:.75rem;margin-top:.6rem}
.fields label{flex:1 1 14rem;min-width:0;color:var(--dim);font-size:.875rem}
.fields :is(input,select){display:block;width:100%;height:2.75rem;
  margin-top:.25rem;padding:0 .75rem;border:1px solid var(--dim);
  border-radius:.6rem;background:var(--paper);color:var(--ink);font:inherit}
.fields button{height:2.75rem}
table{width:100%;margin-top:.5rem;border-collapse:collapse;
  table-layout:fixed;font-size:.9375rem}
th,td{padding:.6rem 1rem .6rem 0;border-top:1px solid var(--line);
  text-align:start;vertical-align:top}
th{border:0;color:var(--dim);font-weight:400}
th:first-child{width:60%}
caption{padding-top:1rem;color:var(--dim);font-size:.875rem;text-align:start}
.bad{color:var(--bad)}
@media(max-width:30rem){
main,main.wide{width:100%;margin:0}
.wide dl div{grid-template-columns:1fr}
}
@media(forced-colors:active){
.note,button{border-color:CanvasText;color:CanvasText}
}
`;

/** The sign of a shop, as the program's other pages have theirs. */
const SHOP = `<svg viewBox="0 0 24 24" aria-hidden="true">
<path d="M4.5 11v9h15v-9M3 9.5 5 4h14l2 5.5a3 3 0 01-6 0 3 3 0 01-6 0 3 3 0 01-6 0"/>
</svg>
`;

export const PRIVATE_HEADERS = {
  "cache-control": "no-store",
  // Not no-referrer: the page's own form would come with the Origin "null".
  "referrer-policy": "same-origin",
  "x-content-type-options": "nosniff",
};

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
}

/** `body` is HTML. form-action is left out: it would block the redirect. */
export function page(
  status: number,
  title: string,
  body: string,
  { wide = false }: { wide?: boolean } = {},
): Reply {
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
<main${wide ? ' class="wide"' : ""}>
${wide ? "" : SHOP}<h1>${escapeHtml(title)}</h1>
${body}
</main>
</body>
</html>
`,
  };
}

export function problemPage(
  status: number,
  title: string,
  advice: string,
): Reply {
  return page(status, title, `<p>${escapeHtml(advice)}</p>`);
}

function consentPage(
  world: World,
  call: Call,
  chosen: SandboxSeller,
  steps: Fault[][],
): Reply {
  const choices = candidates(world, call);
  const sellers = choices.includes(chosen) ? choices : [chosen];
  const app = call.path === SELLER_PATH
    ? `service id <code>${escapeHtml(world.settings.serviceId)}</code>`
    : `key <code>${escapeHtml(world.settings.appKey)}</code>`;
  const body = `<p>The app with the ${app} asks for access.</p>
<form method="post" action="${escapeHtml(call.target)}">
${accountSection(sellers, chosen)}
${scopeSection(new Set(sellers.flatMap((seller) => seller.scopes)))}
<div class="buttons">
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny" class="plain">Deny</button>
</div>
</form>
<footer>${footerText(world, steps)}</footer>`;
  return page(200, "Let this app use your account?", body);
}

function accountSection(
  sellers: readonly SandboxSeller[],
  chosen: SandboxSeller,
): string {
  if (sellers.length === 1) {
    return `<section>
<h2>Account</h2>
<div>${accountText(chosen)}</div>
<input type="hidden" name="seller" value="${escapeHtml(chosen.openId)}">
</section>`;
  }
  const labels = sellers.map((seller) =>
    `<label class="choice"><input type="radio" name="seller" value="${
      escapeHtml(seller.openId)
    }"${seller === chosen ? " checked" : ""}><div>${
      accountText(seller)
    }</div></label>`
  );
  return `<fieldset>
<legend>Choose an account</legend>
${labels.join("\n")}
</fieldset>`;
}

export function accountText(seller: SandboxSeller): string {
  const kinds: Record<number, string> = {
    0: "seller",
    [CREATOR]: "creator",
    [PARTNER]: "partner",
  };
  const kind = kinds[seller.userType] ?? `type ${seller.userType}`;
  const shops = seller.shops.map((shop) => `${shop.name} (${shop.region})`);
  const list = shops.length === 0 ? "" : `: ${shops.join(", ")}`;
  return `${escapeHtml(seller.name ?? "Unnamed account")}
<small>${escapeHtml(`${seller.region} ${kind}${list}`)}</small>`;
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
