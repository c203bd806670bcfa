// An identity provider for tests: the published `oidc-provider`, with people who log in without being asked, and a front that can change
// the ID tokens it makes, and what it says of itself. Usage: node idp.mjs FOLDER-WITH-NODE_MODULES REDIRECT-URI... Prints its issuer URL.
import { createServer, request as httpRequest } from "node:http";
import { createHmac } from "node:crypto";
import { pathToFileURL } from "node:url";

const [folder, ...redirectUris] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${folder}/node_modules/${path}`));
const { Provider, errors } = await load("oidc-provider/lib/index.js");
const jose = await load("jose/dist/webapi/index.js");

const SECRET = "a-client-secret-of-the-tests-0123456789";
const people = { anna: ["dev", "ops"], bert: ["dev"], carl: [], dora: ["dev", "privileged"] };
// Questions to humans (CIBA): what was asked, when it was asked what came of it, and what they say: wait, yes, no, over, or another.
const asked = [];
const GRANT = "urn:openid:params:grant-type:ciba";
// What the next logins do: who logs in, how the ID token is changed, and when they last logged in. Of the provider itself: what it says of
// itself in place of the truth, and whether its answers lack their issuer (RFC 9207).
const control = { account: "anna", spoil: null, ageSecs: 0, groups: null, word: "wait", slowDowns: 0, metadata: {}, omitIss: false };
// What it was asked: the codes that were to be exchanged, and how often each path.
const seen = { codes: [], paths: {} };
// Keys that it signed with, the newest first.
const keys = [];

const key = async (kid) => {
  const { privateKey } = await jose.generateKeyPair("RS256", { extractable: true });
  return { ...(await jose.exportJWK(privateKey)), kid, alg: "RS256", use: "sig" };
};

const front = createServer();
await new Promise((resolve) => front.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${front.address().port}`;
let current;

// Signs with a new key from now on, and publishes it alone, or those before it as well.
async function begin(kid, keep = false) {
  const jwk = await key(kid);
  keys.unshift(jwk);
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "obol",
        client_secret: SECRET,
        redirect_uris: redirectUris,
        grant_types: ["authorization_code", GRANT],
        backchannel_token_delivery_mode: "poll",
      },
    ],
    jwks: { keys: keep ? keys : [jwk] },
    claims: { openid: ["sub"], profile: ["name", "groups"] },
    conformIdTokenClaims: false,
    cookies: { keys: ["the-cookies-of-the-tests"] },
    features: {
      devInteractions: { enabled: false },
      ciba: {
        enabled: true,
        processLoginHint: (_context, hint) => (people[hint] ? hint : undefined),
        validateRequestContext: () => {},
        verifyUserCode: () => {},
        triggerAuthenticationDevice: (context, request) => {
          const { binding_message: code, login_hint: who } = context.oidc.params;
          asked.push({ code, who, request, provider, polls: [] });
        },
      },
    },
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    ttl: { Interaction: 600, Session: 600, Grant: 600, IdToken: 600, AccessToken: 600 },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, name: `${id} <b>of</b> the tests`, groups: (control.groups ?? people)[id] }),
    }),
    async loadExistingGrant(context) {
      const grant = new context.oidc.provider.Grant({
        clientId: context.oidc.client.clientId,
        accountId: context.oidc.session.accountId,
      });
      grant.addOIDCScope("openid profile");
      await grant.save();
      return grant;
    },
  });
  const answer = provider.callback();
  const inner = createServer(async (request, response) => {
    if (!request.url.startsWith("/interaction/")) return answer(request, response);
    const ts = Math.floor(Date.now() / 1000) - control.ageSecs;
    const result = { login: { accountId: control.account, remember: false, ts } };
    await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  });
  await new Promise((resolve) => inner.listen(0, "127.0.0.1", resolve));
  current = { jwk, port: inner.address().port };
}

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const sign = async (claims, jwk) =>
  new jose.SignJWT(claims).setProtectedHeader({ alg: "RS256", kid: jwk.kid }).sign(await jose.importJWK(jwk, "RS256"));
const header = async (claims, header, jwk, options) =>
  new jose.SignJWT(claims).setProtectedHeader(header).sign(await jose.importJWK(jwk, "RS256"), options);
const hmac = (claims, secret) => {
  const text = `${base64url({ alg: "HS256", kid: current.jwk.kid })}.${base64url(claims)}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
};
const now = () => Math.floor(Date.now() / 1000);

// Each is a token that an honest provider would not make, but for the first.
const spoilers = {
  none_at_all: (claims) => sign(claims, current.jwk),
  nonce: (claims) => sign({ ...claims, nonce: "another" }, current.jwk),
  no_nonce: ({ nonce, ...claims }) => sign(claims, current.jwk),
  audience: (claims) => sign({ ...claims, aud: "another" }, current.jwk),
  more_audiences: (claims) => sign({ ...claims, aud: ["obol", "another"] }, current.jwk),
  authorized_party: (claims) => sign({ ...claims, azp: "another" }, current.jwk),
  issuer: (claims) => sign({ ...claims, iss: "https://another.example" }, current.jwk),
  expired: (claims) => sign({ ...claims, exp: now() - 120 }, current.jwk),
  old_login: (claims) => sign({ ...claims, auth_time: now() - 3600 }, current.jwk),
  no_auth_time: ({ auth_time, ...claims }) => sign(claims, current.jwk),
  old_token: (claims) => sign({ ...claims, iat: now() - 3600 }, current.jwk),
  old_key: (claims) => sign(claims, keys[1]),
  unknown_key: async (claims) => sign(claims, await key("unknown")),
  forged_key: async (claims) => sign(claims, await key(current.jwk.kid)),
  embedded_key: async (claims) => {
    const { d, p, q, dp, dq, qi, kid, ...open } = await key("theirs");
    return header(claims, { alg: "RS256", jwk: open }, { ...open, d, p, q, dp, dq, qi });
  },
  key_by_address: async (claims) => header(claims, { alg: "RS256", kid: "theirs", jku: `${issuer}/theirs` }, await key("theirs")),
  unknown_extension: (claims) => header(claims, { alg: "RS256", kid: current.jwk.kid, crit: ["x"], x: 1 }, current.jwk, { crit: { x: true } }),
  no_expiry: ({ exp, ...claims }) => sign(claims, current.jwk),
  no_time: ({ iat, ...claims }) => sign(claims, current.jwk),
  no_audience: ({ aud, ...claims }) => sign(claims, current.jwk),
  of_tomorrow: (claims) => sign({ ...claims, iat: now() + 86400, exp: now() + 90000 }, current.jwk),
  login_of_tomorrow: (claims) => sign({ ...claims, auth_time: now() + 86400 }, current.jwk),
  unsigned_in_capitals: (claims) => `${base64url({ alg: "NONE" })}.${base64url(claims)}.`,
  unsigned_under_a_key: (claims) => `${base64url({ alg: "none", kid: current.jwk.kid })}.${base64url(claims)}.`,
  symmetric_by_modulus: (claims) => hmac(claims, Buffer.from(current.jwk.n, "base64url")),
  symmetric_by_public_jwk: (claims) => {
    const { d, p, q, dp, dq, qi, ...open } = current.jwk;
    return hmac(claims, JSON.stringify(open));
  },
  unsigned: (claims) => `${base64url({ alg: "none" })}.${base64url(claims)}.`,
  symmetric_by_secret: (claims) => hmac(claims, SECRET),
  symmetric_by_public_key: async (claims) => {
    const { d, p, q, dp, dq, qi, ...open } = current.jwk;
    return hmac(claims, await jose.exportSPKI(await jose.importJWK(open, "RS256", { extractable: true })));
  },
  another_human: (claims) => sign({ ...claims, sub: "bert" }, current.jwk),
  empty_subject: (claims) => sign({ ...claims, sub: "" }, current.jwk),
  hostile_subject: (claims) => sign({ ...claims, sub: "anna\u202e" }, current.jwk),
  groups_of_another_kind: (claims) => sign({ ...claims, groups: { dev: true } }, current.jwk),
};

async function changed(body) {
  const answer = JSON.parse(body);
  if (!control.spoil || !answer.id_token) return body;
  answer.id_token = await spoilers[control.spoil](jose.decodeJwt(answer.id_token));
  return JSON.stringify(answer);
}

// The human's word, once there is one.
async function said({ provider, request, who, isSaid }, one) {
  if (control.word === "wait" || isSaid) return;
  one.isSaid = true;
  if (control.word === "no") return provider.backchannelResult(request, new errors.AccessDenied("no"));
  const grant = new provider.Grant({ clientId: "obol", accountId: who });
  grant.addOIDCScope("openid profile");
  await grant.save();
  await provider.backchannelResult(request, grant, { authTime: now() - control.ageSecs });
}

/** What came of a question, once it is asked for. */
async function polled(id) {
  const one = asked.find(({ request }) => request.jti === id);
  one?.polls.push(Date.now());
  if (control.slowDowns > 0) {
    control.slowDowns -= 1;
    return { error: "slow_down" };
  }
  if (control.word === "over") return { error: "expired_token" };
  if (one) await said(one, one);
}

const whole = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
};

front.on("request", async (request, response) => {
  const body = await whole(request);
  if (request.url === "/control") {
    const asked = JSON.parse(body);
    if (asked.rotate) await begin(asked.rotate, asked.keep);
    Object.assign(control, asked);
    return response.end("{}");
  }
  if (request.url === "/asked") return response.end(JSON.stringify(asked.map(({ code, who, polls }) => ({ code, who, polls }))));
  if (request.url === "/seen") return response.end(JSON.stringify(seen));
  const form = new URLSearchParams(body.toString());
  const path = request.url.split("?")[0];
  seen.paths[path] = (seen.paths[path] ?? 0) + 1;
  if (path === "/token") seen.codes.push(form.get("code"));
  const early = request.url === "/token" && form.get("grant_type") === GRANT ? await polled(form.get("auth_req_id")) : undefined;
  if (early) {
    response.writeHead(400, { "content-type": "application/json" });
    return response.end(JSON.stringify(early));
  }
  const { method, url, headers } = request;
  const passed = httpRequest({ port: current.port, method, path: url, headers }, async (inner) => {
    let answered = await whole(inner);
    if (url === "/.well-known/openid-configuration") {
      answered = Buffer.from(JSON.stringify({ ...JSON.parse(answered), ...control.metadata }));
    }
    if (url === "/token") answered = Buffer.from(await changed(answered.toString()));
    // So that a test need not wait for as long as providers usually want.
    if (url === "/backchannel") answered = Buffer.from(JSON.stringify({ ...JSON.parse(answered), interval: 1 }));
    const kept = { ...inner.headers, "content-length": answered.length };
    delete kept["transfer-encoding"];
    if (control.omitIss && kept.location) kept.location = kept.location.replace(/&iss=[^&]*/, "");
    response.writeHead(inner.statusCode, kept);
    response.end(answered);
  });
  passed.end(body);
});

await begin("first");
console.log(issuer);
