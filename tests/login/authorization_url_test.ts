import assert from "node:assert/strict";
import { test } from "node:test";
import {
  authorizationUrl,
  type AuthorizationUrlOptions,
  type Region,
  type UserType,
} from "../../mod.ts";
import { APP, SERVICE_ID, withSandbox } from "../support/token_host.ts";

const { appKey } = APP;
const serviceId = SERVICE_ID;
const state = "st-ate_1";

function link(options: Partial<AuthorizationUrlOptions> = {}): string {
  return authorizationUrl({ appKey, serviceId, state, ...options });
}

// === Region and user type

const CREATOR = `https://shop.tiktok.com/alliance/creator/auth` +
  `?app_key=${appKey}&state=${state}`;
const QUERY = `?service_id=${serviceId}&state=${state}`;

/** Each link of the official guide. */
const LINKS: readonly [Region, UserType, string][] = [
  ["row", "seller", `https://services.tiktokshop.com/open/authorize${QUERY}`],
  ["us", "seller", `https://services.us.tiktokshop.com/open/authorize${QUERY}`],
  ["row", "partner", `https://partner.tiktokshop.com/open/authorize${QUERY}`],
  ["us", "partner", `https://partner.us.tiktokshop.com/open/authorize${QUERY}`],
  ["row", "creator", CREATOR],
  ["us", "creator", CREATOR],
];

for (const [region, userType, expected] of LINKS) {
  test(`authorizationUrl() links a ${region} ${userType}`, () => {
    assert.equal(link({ region, userType }), expected);
  });
}

test("authorizationUrl() links a seller outside the US by default", () => {
  assert.equal(link(), LINKS[0]![2]);
  assert.equal(link({ region: undefined, userType: undefined }), LINKS[0]![2]);
});

test("authorizationUrl() needs only what its link carries", () => {
  assert.equal(link({ appKey: undefined }), LINKS[0]![2]);
  const creator = { userType: "creator", serviceId: undefined } as const;
  assert.equal(link(creator), CREATOR);
});

test("authorizationUrl() refuses an unknown region or user type", () => {
  const wrong = [
    { region: "eu" },
    { region: "US" },
    { region: "" },
    { region: "__proto__" },
    { userType: "shop" },
    { userType: "" },
  ] as unknown as Partial<AuthorizationUrlOptions>[];
  const message = /use row or us, and seller, partner or creator$/;
  for (const options of wrong) {
    assert.throws(() => link(options), { name: "TypeError", message });
  }
});

// === State

test("authorizationUrl() encodes the state once", () => {
  const url = link({ state: "a+b/c=%41&d é" });
  assert.match(url, /&state=a%2Bb%2Fc%3D%2541%26d(\+|%20)%C3%A9$/);
  assert.equal(new URL(url).searchParams.get("state"), "a+b/c=%41&d é");
});

test("authorizationUrl() refuses to do without a state", () => {
  for (const none of ["", undefined]) {
    const options = { state: none } as Partial<AuthorizationUrlOptions>;
    const message = /The state is missing.*random/;
    assert.throws(() => link(options), { name: "TypeError", message });
  }
});

// === Extra parameters

test("authorizationUrl() keeps the order of extra parameters", () => {
  const url = link({ params: { z: "1", a: "2", m: "3" } });
  const names = [...new URL(url).searchParams.keys()].join();
  assert.equal(names, "z,a,m,service_id,state");
});

test("authorizationUrl() encodes extra parameters once", () => {
  const params = { "a b&c": "d e&f=g+h%20", "é": "", "toString": "x" };
  const query = new URL(link({ params })).searchParams;
  assert.deepEqual(Object.fromEntries(query), {
    ...params,
    service_id: serviceId,
    state,
  });
});

test("authorizationUrl() lets no extra parameter set its own", () => {
  const wrong: Partial<AuthorizationUrlOptions>[] = [
    { params: { state: "mine" } },
    { params: { service_id: "1" } },
    { params: { app_key: "k" }, userType: "creator" },
    { params: { a: "1", state: "" } },
  ];
  for (const options of wrong) {
    const message = /^Cannot set "(state|service_id|app_key)": the link/;
    assert.throws(() => link(options), { name: "TypeError", message });
  }
});

// === Custom endpoints

test("authorizationUrl() keeps the query of a custom endpoint", () => {
  const authorizationEndpoint = "https://relay.example/go?to=a%20b&state=old";
  const query = new URL(link({ authorizationEndpoint })).searchParams;
  assert.deepEqual([...query], [
    ["to", "a b"],
    ["state", state],
    ["service_id", serviceId],
  ]);
});

test("authorizationUrl() names the app at the legacy page", () => {
  const authorizationEndpoint = "https://auth.tiktok-shops.com/oauth/authorize";
  const query = `?app_key=${appKey}&state=${state}`;
  assert.equal(link({ authorizationEndpoint }), authorizationEndpoint + query);
});

test("authorizationUrl() makes links that the sandbox takes", () =>
  withSandbox(async (sandbox) => {
    const seller = await sandbox.approve(authorizationUrl({
      ...sandbox,
      state,
    }));
    const creator = await sandbox.approve(authorizationUrl({
      ...sandbox,
      state,
      userType: "creator",
      authorizationEndpoint: sandbox.creatorAuthorizationEndpoint,
    }));
    for (const redirect of [seller, creator]) {
      const { searchParams: query } = new URL(redirect);
      assert.equal(query.get("state"), state);
      assert.ok(query.get("code"));
    }
  }));

const ALLOWED = [
  "https://example.com",
  "https://example.com:8443/a",
  "http://localhost:3018/open/authorize",
  "http://127.0.0.1:1/",
  "http://127.8.9.10/",
  "http://[::1]:3018/",
];

for (const authorizationEndpoint of ALLOWED) {
  test(`authorizationUrl() accepts ${authorizationEndpoint}`, () => {
    const url = new URL(link({ authorizationEndpoint }));
    assert.equal(url.origin, new URL(authorizationEndpoint).origin);
  });
}

const REFUSED = [
  "http://example.com/",
  "http://localhost.example.com/",
  "http://127.0.0.1.example.com/",
  "http://10.0.0.1/",
  "http://0.0.0.0/",
  "http://[::ffff:127.0.0.1]/",
  "https://me:QzPasswordQz@example.com/",
  "https://me@example.com/",
  "http://me:QzPasswordQz@localhost/",
  "https://example.com/#fragment",
  "ftp://localhost/",
  "javascript:alert(1)",
  "file:///etc/passwd",
  "example.com/authorize",
  "/authorize",
  "https://",
  " ",
];

for (const authorizationEndpoint of REFUSED) {
  test(`authorizationUrl() refuses "${authorizationEndpoint}"`, () => {
    assert.throws(() => link({ authorizationEndpoint }), (error) => {
      const { name, message } = error as Error;
      assert.equal(name, "TypeError");
      assert.match(message, /^Cannot use the authorization endpoint ".*https/);
      assert.doesNotMatch(message, /QzPasswordQz/);
      return true;
    });
  });
}

test("authorizationUrl() shows no secret of an endpoint it refuses", () => {
  const authorizationEndpoint = "http://example.com/?app_secret=QzSecretQz" +
    "&x=\x1b[2J";
  assert.throws(() => link({ authorizationEndpoint }), (error) => {
    const { message } = error as Error;
    assert.match(message, /app_secret=\*\*\*&x=/);
    // deno-lint-ignore no-control-regex -- it must not be there
    assert.doesNotMatch(message, /QzSecretQz|\x1b/);
    return true;
  });
});

// === Mix-ups

/** What people pass by mistake, and what they are told. */
const MIX_UPS: readonly [
  string,
  Partial<AuthorizationUrlOptions>,
  RegExp,
][] = [
  [
    "an app key as service id",
    { serviceId: appKey },
    /"6f3k9d2m1x8q" is not a number: .*19 digits.*; the app key is something/,
  ],
  [
    "a service id as app key",
    { appKey: serviceId, userType: "creator" },
    /"7412345678901234567" looks like a service id: an app key has about 12/,
  ],
  [
    "no service id",
    { serviceId: undefined },
    /The service id is missing: .*at the end of Partner Center's authorization/,
  ],
  ["an empty service id", { serviceId: "" }, /The service id is missing: /],
  [
    "a whole link as service id",
    {
      serviceId: "https://services.tiktokshop.com/open/authorize?service_id=1",
    },
    /is not a number: .*at the end of Partner Center's authorization link/,
  ],
  ["a number with a space", { serviceId: `${serviceId} ` }, /white space/],
  ["a fraction", { serviceId: "7.4e18" }, /is not a number/],
  [
    "no app key",
    { appKey: undefined, userType: "creator" },
    /The app key is missing: copy it from your app in Partner Center/,
  ],
  [
    "an app key with white space",
    { appKey: "6f3k9d2m 1x8q", userType: "creator" },
    /The app key has white space in it: copy it alone/,
  ],
];

for (const [name, options, message] of MIX_UPS) {
  test(`authorizationUrl() says what to do about ${name}`, () => {
    assert.throws(() => link(options), { name: "TypeError", message });
  });
}

test("authorizationUrl() keeps every digit of a service id", () => {
  const id = "7412345678901234567890";
  assert.equal(
    new URL(link({ serviceId: id })).searchParams.get("service_id"),
    id,
  );
});
