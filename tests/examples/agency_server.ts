/** An agency's server: its sellers approve in their own browsers. */
import * as tiktok from "../../mod.ts";

export type Agency = tiktok.ApiOptions & tiktok.AppCredentials & {
  url: string; // of this server for browsers, as https://agency.example/tiktok/
  serviceId: string;
  store: tiktok.TokenStore;
  isOurs: (request: Request) => boolean; // may it see a seller's orders?
};

export async function serveAgency(app: Agency, request: Request) {
  const { pathname, searchParams } = new URL(request.url); // its host may lie
  const { state, error, seller, shop } = Object.fromEntries(searchParams);
  const { hostname, pathname: base } = new URL(app.url);
  const isLocal = /^(localhost|127\.0\.0\.1)$/.test(hostname);
  const flags = `Path=/; HttpOnly; SameSite=Lax${isLocal ? "" : "; Secure"}`;
  const headers = new Headers();
  const setCookie = (state: string, age: number) =>
    headers.append("set-cookie", `connect-${state}=; Max-Age=${age}; ${flags}`);
  const attempts = (request.headers.get("cookie") ?? "").split("; ")
    .flatMap((cookie) => /^connect-(.+)=/.exec(cookie)?.[1] ?? []);
  const route = `${request.method} ${pathname.replace(base, "")}`;
  if (route === "GET connect") {
    const state = crypto.randomUUID() + crypto.randomUUID();
    for (const old of attempts.slice(0, -4)) setCookie(old, 0);
    setCookie(state, 1800); // one cookie an attempt: two tabs both finish
    headers.set("location", tiktok.authorizationUrl({ ...app, state }));
    return new Response("Go on at TikTok", { status: 302, headers });
  }
  if (route === "GET callback" && attempts.includes(state!) && !error) {
    const { code } = tiktok.parseRedirect(request.url, state!);
    const onSaved = (profile: string) =>
      // so that a webhook's shop is known
      tiktok.authorizedShops({ ...app, profile });
    const { data } = await tiktok.exchangeCode(app, code, { ...app, onSaved });
    setCookie(state!, 0); // it works once
    return new Response(`${data.seller_name} is connected`, { headers });
  }
  if (route === "GET orders" && app.isOurs(request)) {
    const call = { method: "POST", path: "/order/202309/orders/search", shop };
    return Response.json(
      await tiktok.callApi(call, { ...app, profile: seller }),
    );
  }
  if (route === "POST webhook") {
    const body = await request.text();
    const signature = request.headers.get("authorization");
    if (tiktok.verifyWebhook(app, body, signature)) {
      const { type, shopId, timestamp } = tiktok.parseWebhook(body);
      for (const name of type === 6 ? await app.store.list() : []) {
        const { shops, obtained_at } = (await app.store.load(name))!.meta;
        const left = shops?.some(({ id }) => id === shopId);
        if (left && timestamp >= obtained_at!) await app.store.remove(name);
      }
      return new Response("ok");
    }
  }
  return new Response("Not found, or not approved", { status: 403 });
}
