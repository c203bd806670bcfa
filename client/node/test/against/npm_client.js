// The published npm package `agentdom` against `obol atp serve` over TLS: what must hold for it. Run by the Rust harness; OBOL is the
// binary, AGENTDOM the package's folder.
"use strict";

const { test, after, before } = require("node:test");
const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { folder, post } = require("../world");
const { serve, master, MASTER } = require("./serve");

let provider;
before(async () => (provider = await serve({ masters: [master("build"), master("other", "another credential of good length")] })));
after(() => provider.close());

/** Runs a piece of code with the package in a process of its own, which has a home and trusts our certificate. */
function npm(home, code, credential = MASTER) {
  const wallet = path.join(home, ".agentdom/wallet.json");
  if (!fs.existsSync(wallet)) {
    fs.mkdirSync(path.dirname(wallet), { recursive: true });
    fs.writeFileSync(wallet, JSON.stringify({ wallet: "0.1", providers: { [provider.host]: { token: credential } } }));
  }
  const script = `const t = require(${JSON.stringify(path.join(process.env.AGENTDOM, "lib/agent-tokens.js"))}); const host = ${JSON.stringify(provider.host)};
    (async () => { ${code} })().then((value) => console.log(JSON.stringify(value ?? null)), (error) => { console.error(error.message); process.exit(1); });`;
  const env = { HOME: home, PATH: process.env.PATH, NODE_EXTRA_CA_CERTS: provider.tls.file };
  return new Promise((resolve, reject) => {
    execFile("node", ["-e", script], { env }, (error, stdout, stderr) => (error ? reject(new Error(stderr)) : resolve(JSON.parse(stdout))));
  });
}

const isValid = async (token) => (await post(provider, `${provider.url}/verify`, "", { Authorization: `Bearer ${token}` })).body.valid;

test("it issues with options and with its defaults, and is told the true end", async () => {
  const home = folder();
  const own = await npm(home, 'return t.issueAgentToken(host, { scopes: ["write"], ttl: 900, agentId: "ci-7" })');
  assert.deepEqual(own.scopes, ["write"]);
  assert.ok(Math.abs(own.expires_at - (Date.now() + 900_000)) < 60_000);
  const usual = await npm(home, "return t.issueAgentToken(host)");
  assert.deepEqual(usual.scopes, ["read"], "the master's default scopes");
  assert.ok(Math.abs(usual.expires_at - (Date.now() + 3_600_000)) < 60_000);
  for (const [ttl, seconds] of [[1, 600], [10_000_000, 86_400]]) {
    const clamped = await npm(home, `return t.issueAgentToken(host, { scopes: ["read"], ttl: ${ttl} })`);
    assert.ok(Math.abs(clamped.expires_at - (Date.now() + seconds * 1000)) < 60_000, String(ttl));
  }
  await assert.rejects(npm(home, 'return t.issueAgentToken(host, { scopes: ["admin"] })'), /invalid_scope/);
});

test("its ids are stable over rotations, and the old token lives on for a moment", async () => {
  const home = folder();
  const first = await npm(home, 'return t.issueAgentToken(host, { scopes: ["read"] })');
  const second = await npm(home, `return t.rotateAgentToken(host, ${JSON.stringify(first.id)})`);
  assert.equal(second.id, first.id);
  assert.notEqual(second.token, first.token);
  assert.ok((await isValid(first.token)) && (await isValid(second.token)));
  const again = await npm(home, `return t.rotateAgentToken(host, ${JSON.stringify(first.id)})`);
  assert.equal(again.token, second.token, "rotated again at once");
});

test("it revokes twice without an error, and nobody else's", async () => {
  const [home, stranger] = [folder(), folder()];
  const { id, token } = await npm(home, "return t.issueAgentToken(host)");
  await npm(stranger, `return t.revokeAgentToken(host, ${JSON.stringify(id)})`, "another credential of good length");
  assert.ok(await isValid(token), "another master's revocation has no effect");
  for (let n = 0; n < 2; n += 1) {
    assert.deepEqual(await npm(home, `return t.revokeAgentToken(host, ${JSON.stringify(id)})`), { revoked: true, id });
  }
  assert.equal(await isValid(token), false);
});

test("it keeps its token, rotates near the end, and three at once agree", async () => {
  const home = folder();
  const kept = await npm(home, "const a = await t.ensureAgentToken(host); const b = await t.ensureAgentToken(host); return [a.token, b.token]");
  assert.equal(kept[0], kept[1]);
  const near = `const fs = require("fs"); const file = process.env.HOME + "/.agentdom/wallet.json"; const w = JSON.parse(fs.readFileSync(file));
    w.providers[host].agent_token.expires_at = Date.now() + 60000; fs.writeFileSync(file, JSON.stringify(w));`;
  const three = await npm(home, `${near} const all = await Promise.all([1, 2, 3].map(() => t.ensureAgentToken(host))); return all.map((one) => one.token)`);
  assert.deepEqual(three, [three[0], three[0], three[0]]);
  assert.notEqual(three[0], kept[0]);
  assert.ok(await isValid(three[0]));
});

test("its resolver gets a scoped token and never the credential, and where it falls back to that, the credential opens nothing", async () => {
  const home = folder();
  const script = `const s = require(${JSON.stringify(path.join(process.env.AGENTDOM, "lib/secrets.js"))}); return s.resolve(host)`;
  const own = await npm(home, script);
  assert.equal(own.source, "agent_tokens_protocol");
  assert.notEqual(own.token, MASTER);
  assert.ok(await isValid(own.token));
  const strange = "a credential that no provider here knows";
  const other = await npm(folder(), script, strange);
  assert.equal(other.token, strange, "it hands the credential itself to the API when issuing fails");
  for (const credential of [strange, MASTER]) {
    assert.equal(await isValid(credential), false);
    assert.equal((await post(provider, provider.url, "{}", { Authorization: `Bearer ${credential}` })).status, 400);
  }
});

test("it is refused with another credential, and the credential is nowhere to be found", async () => {
  await assert.rejects(npm(folder(), "return t.issueAgentToken(host)", "no credential of this provider"), /invalid_master/);
  await assert.rejects(npm(folder(), `return t.rotateAgentToken(host, "tok_${"0".repeat(32)}")`), /404/);
  for (const name of fs.readdirSync(provider.dir)) {
    const bytes = fs.readFileSync(path.join(provider.dir, name), "latin1");
    assert.ok(!bytes.includes(MASTER), name);
  }
  assert.ok(!provider.log().includes(MASTER));
});

test("rotations and revocations outlive kill -9", async () => {
  const home = folder();
  const revoked = await npm(home, "return t.issueAgentToken(host, { agentId: 'a' })");
  await npm(home, `return t.revokeAgentToken(host, ${JSON.stringify(revoked.id)})`);
  const first = await npm(home, "return t.issueAgentToken(host, { agentId: 'b' })");
  const second = await npm(home, `return t.rotateAgentToken(host, ${JSON.stringify(first.id)})`);
  await provider.killAndStart();
  assert.equal(await isValid(revoked.token), false);
  assert.equal(await isValid(second.token), true);
  assert.deepEqual((await npm(home, `return t.revokeAgentToken(host, ${JSON.stringify(first.id)})`)).revoked, true);
  assert.equal(await isValid(second.token), false);
});
