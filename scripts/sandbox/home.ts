/**
 * The page that shows a person the sandbox: the app, the sellers, what was
 * sent and what came, with buttons that act as a seller or as TikTok would.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { withoutSecrets } from "./command.ts";
import {
  accountAt,
  CREATOR_PATH,
  grantsOf,
  REFRESH_PATH,
  SELLER_PATH,
  TOKEN_PATH,
  type World,
} from "./data.ts";
import { parseFaults } from "./faults.ts";
import {
  accountText,
  approvalPairs,
  escapeHtml,
  page,
  problemPage,
  redirectToApp,
} from "./pages.ts";
import type { Reply } from "./replies.ts";
import type {
  SandboxDelivery,
  SandboxRequest,
  SandboxSeller,
} from "./types.ts";
import { deauthorize, SANDBOX_WEBHOOKS, trigger } from "./webhooks.ts";

export const HOME_PATH = "/";

/** A visit; its Host and Origin have been judged. */
export interface Visit {
  method: string;
  /** The page that it comes from; browsers name it for each POST. */
  origin: string | undefined;
  form: URLSearchParams;
}

/** Shows the page, or does what a button says and shows it again. */
export async function home(world: World, visit: Visit): Promise<Reply> {
  const { method, origin, form } = visit;
  if (method === "GET" || method === "HEAD") return homePage(world);
  if (method !== "POST") {
    const reply = problemPage(405, "Only GET and POST work here", "");
    return {
      ...reply,
      headers: { ...reply.headers, allow: "GET, HEAD, POST" },
    };
  }
  if (origin === undefined) {
    return problemPage(403, "This is for buttons of the page", "");
  }
  try {
    return await act(world, form);
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) {
      return problemPage(400, "This cannot be done", error.message);
    }
    throw error;
  }
}

async function act(world: World, form: URLSearchParams): Promise<Reply> {
  const action = form.get("action");
  const seller = form.get("seller") ?? "";
  if (action === "approve") {
    const steps = parseFaults(world.settings.fault);
    const account = accountAt(world, seller);
    return redirectToApp(world, approvalPairs(world, account, steps));
  }
  if (action === "deauthorize") {
    await soon(deauthorize(world, seller));
    return backTo("sellers");
  }
  if (action !== "trigger") {
    throw new RangeError(`No button "${action}" exists`);
  }
  const to = form.get("to") ?? "";
  await soon(trigger(world, form.get("type") ?? "", { to, seller }));
  return backTo("webhooks");
}

/** Waits for what comes at once: the repeats may take long. */
function soon(result: Promise<unknown>): Promise<unknown> {
  return Promise.race([result, delay(1000, undefined, { ref: false })]);
}

function backTo(section: string): Reply {
  const location = `${HOME_PATH}#${section}`;
  return { ...page(303, "Done", ""), body: "", headers: { location } };
}

// === HTML

const SHOWN_DELIVERIES = 10;
const SHOWN_REQUESTS = 20;

function homePage(world: World): Reply {
  return page(
    200,
    "A TikTok Shop of your own",
    `<p>Point a client at <code>${escapeHtml(world.origin)}</code> in place of
TikTok’s hosts. The app secret is in the terminal.</p>
${appSection(world)}
${sellerSection(world)}
${webhookSection(world)}
${requestSection(world)}`,
    { wide: true },
  );
}

function appSection({ origin, settings }: World): string {
  const { appKey, serviceId, redirectUrl, webhookUrl } = settings;
  const facts = [
    ["App key", appKey],
    ["Service id", serviceId],
    ["Redirect URL", redirectUrl],
    ["Webhook URL", webhookUrl || "none (--webhook URL)"],
    ["Authorize", `${origin}${SELLER_PATH}?service_id=${serviceId}`],
    ["As a creator", `${origin}${CREATOR_PATH}?app_key=${appKey}`],
    ["Get tokens", origin + TOKEN_PATH],
    ["Refresh", origin + REFRESH_PATH],
    ["API", origin],
  ].map(([name, value]) =>
    `<div><dt>${name}</dt><dd><code>${escapeHtml(value!)}</code></dd></div>`
  );
  return `<section>
<h2>The app</h2>
<dl>${facts.join("\n")}</dl>
</section>`;
}

function sellerSection(world: World): string {
  return `<section id="sellers">
<h2>Sellers</h2>
<p>Approve leads to the app’s redirect URL with a code, as from the app’s page
in TikTok’s store: there is no state.</p>
<ul>${world.accounts.map((seller) => sellerItem(world, seller)).join("")}</ul>
</section>`;
}

function sellerItem(world: World, seller: SandboxSeller): string {
  const count = grantsOf(world, seller).length;
  const name = escapeHtml(seller.name ?? "the creator");
  const button = (action: string, label: string, kind = "") =>
    `<button name="action" value="${action}" aria-label="${label} ${name}"` +
    `${kind}>${label}</button>`;
  const end = count === 0
    ? ""
    : button("deauthorize", "Deauthorize", ' class="plain"');
  return `<li class="row"><div>${accountText(seller)}
<small>${
    count === 0 ? "not authorized" : `authorized, ${count} ×`
  }</small></div>
<form method="post" class="buttons">
<input type="hidden" name="seller" value="${escapeHtml(seller.openId)}">
${button("approve", "Approve")}${end}
</form></li>`;
}

function webhookSection(world: World): string {
  const { accounts, deliveries, settings } = world;
  const types = Object.entries(SANDBOX_WEBHOOKS).map(([name, type]) =>
    `<option value="${type}">${type} ${name}</option>`
  );
  const sellers = accounts.map(({ openId, name }) =>
    `<option value="${escapeHtml(openId)}">${
      escapeHtml(name ?? "the creator")
    }` +
    "</option>"
  );
  const sent = deliveries.slice(-SHOWN_DELIVERIES).reverse();
  return `<section id="webhooks">
<h2>Webhooks</h2>
<form method="post" class="fields">
<label>Type <select name="type">${types.join("")}</select></label>
<label>Seller <select name="seller">${sellers.join("")}</select></label>
<label>URL <input type="url" name="to" required placeholder="http://localhost:…"
value="${escapeHtml(settings.webhookUrl)}"></label>
<button name="action" value="trigger">Send</button>
</form>
${table("What was sent", ["Webhook", "Answers"], sent.map(deliveryCells))}
</section>`;
}

function deliveryCells(delivery: SandboxDelivery): string[] {
  const { name, to, notificationId, attempts, delivered } = delivery;
  const answers = attempts.map(({ status, answer }) =>
    `${status || "no answer"}${answer && `: ${answer.slice(0, 200)}`}`
  );
  const lines = answers.length > 0 ? answers : ["under way"];
  return [
    `<code>${name}</code><small>${escapeHtml(to)}<br>${notificationId}</small>`,
    `<span${delivered ? "" : ' class="bad"'}>` +
    `${lines.map(escapeHtml).join("<br>")}</span>`,
  ];
}

function requestSection({ requests }: World): string {
  const last = requests.slice(-SHOWN_REQUESTS).reverse();
  return `<section id="requests">
<h2>Last requests</h2>
${table("", ["Request", "Answer"], last.map(requestCells))}
<p><a href="${HOME_PATH}">Show the newest</a></p>
</section>`;
}

function requestCells(request: SandboxRequest): string[] {
  const { method, path, status, code, note, explanation, time } = request;
  const why = [withoutSecrets(request, note), explanation?.text ?? ""]
    .filter((line) => line !== "").map(escapeHtml);
  const isBad = status === 0 || status >= 400 || code !== undefined;
  const clock = new Date(time).toISOString().slice(11, 19);
  return [
    `<code>${
      escapeHtml(`${method} ${path}`)
    }</code><small>${clock} UTC</small>`,
    `<span${isBad ? ' class="bad"' : ""}>${status || "no answer"} ${
      code ?? ""
    }` +
    `</span><small>${why.join("<br>")}</small>`,
  ];
}

/** The cells are HTML. */
function table(caption: string, heads: string[], rows: string[][]): string {
  if (rows.length === 0) return caption ? "" : "<p>None yet.</p>";
  const row = (cells: string[]) =>
    `<tr>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  return `<table>${caption && `<caption>${caption}</caption>`}
<thead><tr>${heads.map((head) => `<th scope="col">${head}</th>`).join("")}</tr>
</thead>
<tbody>${rows.map(row).join("\n")}</tbody></table>`;
}
