// The middleware against requests that are wrong in one way each, with a control that is right.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { createHash, createHmac, randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { signAtpBody } = require("../lib/agent-tokens");
const { middleware } = require("../lib/atp-server");
const { createKey } = require("../lib/atp/jwt");
const { SECRET, folder, provider, post } = require("./world");

process.on("warning", () => {});
const AGENT = createHash("sha256").update("an agent").digest("hex");
const bodyOf = (more = {}) => ({ agent_id: AGENT, scopes: ["read"], purpose: "p", timestamp: Date.now(), nonce: randomBytes(9).toString("base64url"), ...more });
const signed = (body, secret = SECRET) => JSON.stringify({ ...body, signature: signAtpBody(body, secret) });

async function withProvider(options, work) {
  const target = await provider(options);
  try {
    await work(target);
  } finally {
    await target.close();
  }
}

test("a signed request gets a token that opens the API until it is revoked", () =>
  withProvider({}, async (target) => {
    const answer = await post(target, target.url, signed(bodyOf({ scopes: ["write", "read"], aud: target.url })));
    assert.equal(answer.status, 200);
    const { token } = answer.body;
    assert.deepEqual(answer.body.scopes_granted, ["read", "write"]);
    assert.equal(answer.headers["cache-control"], "no-store");
    const verify = () => post(target, `${target.url}/verify`, "", { Authorization: `Bearer ${token}` });
    assert.deepEqual((await verify()).body, { valid: true, scopes: ["read", "write"], expires_at: answer.body.expires_at, agent_id: AGENT });
    const use = (authorization) => post(target, target.url.replace("/v1/agent-tokens", "/data"), "", { Authorization: authorization });
    assert.equal((await use(`Bearer ${token}`)).status, 200);
    assert.equal((await use(`Bearer ${token}x`)).status, 401);
    const foreign = bodyOf({ agent_id: "00".repeat(32), action: "revoke", token });
    delete foreign.scopes;
    delete foreign.purpose;
    assert.deepEqual((await post(target, `${target.url}/revoke`, signed(foreign))).body, { revoked: true });
    assert.equal((await verify()).body.valid, true, "another agent's revocation has no effect");
    await post(target, `${target.url}/revoke`, signed({ ...foreign, agent_id: AGENT, nonce: "another-nonce" }));
    assert.deepEqual((await verify()).body, { valid: false });
    assert.equal((await use(`Bearer ${token}`)).status, 401);
  }));

test("one of 64 copies of a request gets a token, and none after a restart", async () => {
  const target = await provider({ stateDir: folder() });
  const text = signed(bodyOf());
  const answers = await Promise.all(Array.from({ length: 64 }, () => post(target, target.url, text)));
  assert.equal(answers.filter(({ status }) => status === 200).length, 1);
  assert.ok(answers.every(({ status, body }) => status === 200 || (status === 401 && body.error === "replayed")));
  const { token } = answers.find(({ status }) => status === 200).body;
  target.restart();
  assert.equal((await post(target, target.url, text)).body.error, "replayed");
  const verify = await post(target, `${target.url}/verify`, "", { Authorization: `Bearer ${token}` });
  assert.equal(verify.body.valid, true, "a kept key outlives the restart");
  await target.close();
});

test("without a folder what may have been answered before a restart is refused", async () => {
  let skipped = 0;
  const target = await provider({ stateDir: undefined, now: () => Date.now() + skipped });
  const at = (ms) => signed(bodyOf({ timestamp: Date.now() + ms }));
  for (const [ms, status] of [[0, 503], [4_900, 503], [6_000, 401], [60_000, 401]]) {
    assert.equal((await post(target, target.url, at(ms))).status, status, String(ms));
  }
  skipped = 7_000;
  assert.equal((await post(target, target.url, at(4_900))).status, 503, "signed ahead, sent later");
  assert.equal((await post(target, target.url, at(7_000))).status, 200);
  await target.close();
});

test("marks that were lost while the key was kept refuse what was signed before", async () => {
  const stateDir = folder();
  const target = await provider({ stateDir });
  const text = signed(bodyOf({ timestamp: Date.now() - 1500 }));
  assert.equal((await post(target, target.url, text)).status, 200);
  fs.rmSync(path.join(stateDir, "marks.log"));
  target.restart();
  assert.equal((await post(target, target.url, text)).status, 503);
  await target.close();
});

test("every refusal has its status and code", () =>
  withProvider({}, async (target) => {
    const other = "https://evil.example/v1/agent-tokens";
    for (const [body, status, error, secret] of [
      [bodyOf(), 200, undefined],
      [bodyOf(), 401, "invalid_signature", "another secret of good length"],
      [bodyOf({ aud: other }), 401, "wrong_audience"],
      [bodyOf({ timestamp: Date.now() - 301_000 }), 401, "stale_timestamp"],
      [bodyOf({ timestamp: Date.now() + 62_000 }), 401, "stale_timestamp"],
      [bodyOf({ scopes: ["admin"] }), 400, "invalid_scope"],
      [bodyOf({ scopes: ["READ"] }), 400, "invalid_scope"],
      [bodyOf({ scopes: ["rea"] }), 400, "invalid_scope"],
      [bodyOf({ scopes: [] }), 400, "invalid_scope"],
      [bodyOf({ scopes: ["read", "admin"] }), 400, "invalid_scope"],
    ]) {
      const answer = await post(target, target.url, signed(body, secret));
      assert.deepEqual([answer.status, answer.body.error], [status, error], JSON.stringify(body));
    }
    assert.equal((await post(target, target.url, signed(bodyOf()), { "Content-Type": "text/plain" })).status, 415);
    assert.equal((await post(target, `${target.url}/verify`, "", { Authorization: `Bearer ${SECRET}` })).body.valid, false);
  }));

test("malformed bodies are answered as in the vectors", () =>
  withProvider({}, async (target) => {
    const cases = JSON.parse(fs.readFileSync(path.join(__dirname, "../../../tests/vectors/atp/malformed.json"), "utf8"));
    for (const { name, text, status, error } of cases) {
      const answer = await post(target, target.url, text);
      assert.deepEqual([answer.status, answer.body.error], [status, error], name);
    }
  }));

test("an unknown agent is refused in the same bytes as a wrong secret", () =>
  withProvider({ secret: (agent) => (agent === AGENT ? SECRET : undefined) }, async (target) => {
    assert.equal((await post(target, target.url, signed(bodyOf()))).status, 200);
    const wrong = await post(target, target.url, signed(bodyOf(), "another secret of good length"));
    const unknown = await post(target, target.url, signed(bodyOf({ agent_id: "00".repeat(32) })));
    assert.equal(wrong.status, 401);
    assert.equal(wrong.text, unknown.text);
  }));

test("two secrets hold while they are rotated", () =>
  withProvider({ secret: ["the new secret of good length", SECRET] }, async (target) => {
    for (const [secret, status] of [["the new secret of good length", 200], [SECRET, 200], ["a third secret of good length", 401]]) {
      assert.equal((await post(target, target.url, signed(bodyOf(), secret))).status, status);
    }
  }));

test("a token made with the agents' secret is not one", () =>
  withProvider({}, async (target) => {
    const { body } = await post(target, target.url, signed(bodyOf()));
    const [header, claims] = body.token.split(".");
    const forged = `${header}.${claims}.${createHmac("sha256", SECRET).update(`${header}.${claims}`).digest("base64url")}`;
    const none = `${Buffer.from('{"alg":"none","typ":"at+jwt"}').toString("base64url")}.${claims}.`;
    for (const [token, valid] of [[body.token, true], [forged, false], [none, false]]) {
      const answer = await post(target, `${target.url}/verify`, "{}", { Authorization: `Bearer ${token}` });
      assert.equal(answer.body.valid, valid);
    }
  }));

test("a single-use token is spent once, and verifying alone spends nothing", async () => {
  const stateDir = folder();
  await withProvider({ stateDir }, async (target) => {
    const key = createKey("file-1", Buffer.from(fs.readFileSync(path.join(stateDir, "jwt.key"), "utf8").trim(), "hex"));
    const origin = new URL(target.url).origin;
    const iat = Math.floor(Date.now() / 1000);
    const mint = (use) => key.mint({ iss: origin, aud: origin, sub: AGENT, agent_id: AGENT, scope: "read", scopes: ["read"], iat, exp: iat + 60, jti: `tok_${randomBytes(16).toString("hex")}`, use });
    const verify = async (token, body) => (await post(target, `${target.url}/verify`, body, { Authorization: `Bearer ${token}` })).body.valid;
    const data = async (token) => (await post(target, target.url.replace("/v1/agent-tokens", "/data"), "", { Authorization: `Bearer ${token}` })).status;
    const once = mint("once");
    assert.deepEqual([await verify(once, ""), await verify(once, '{"spend":false}'), await verify(once, "{}")], [true, true, true]);
    const spent = await Promise.all(Array.from({ length: 16 }, () => verify(once, ' {"spend": true} ')));
    assert.equal(spent.filter(Boolean).length, 1);
    assert.deepEqual([await verify(once, ""), await data(once)], [true, 401], "what it is, and what it is good for");
    target.restart();
    assert.equal(await verify(once, '{"spend":true}'), false, "also after a restart");
    const other = mint("once");
    assert.deepEqual([await data(other), await data(other), await verify(other, '{"spend":true}')], [200, 401, false]);
    const usual = mint();
    assert.deepEqual([await verify(usual, '{"spend":true}'), await verify(usual, '{"spend":true}'), await data(usual), await data(usual)], [true, true, 200, 200], "control");
    assert.equal(await data(mint("twice")), 401);
  });
});

test("agents are held to their rate", () =>
  withProvider({ agentRate: 1 }, async (target) => {
    const answers = [];
    for (let n = 0; n < 12; n += 1) answers.push(await post(target, target.url, signed(bodyOf())));
    assert.equal(answers.filter(({ status }) => status === 200).length >= 10, true);
    const refused = answers.at(-1);
    assert.deepEqual([refused.status, refused.headers["retry-after"]], [429, "1"]);
  }));

test("options that would not be safe are refused at the start", () => {
  const base = { secret: SECRET, scopes: ["read"], tokenTTL: 3600 };
  assert.doesNotThrow(() => middleware(base));
  for (const wrong of [{ secret: "short" }, { secret: undefined }, { secret: [SECRET, SECRET, SECRET] }, { scopes: [] }, { scopes: ["a b"] }, { tokenTTL: 0 }, { url: "http://api.example.com/x" }]) {
    assert.throws(() => middleware({ ...base, ...wrong }), TypeError, JSON.stringify(wrong));
  }
});
