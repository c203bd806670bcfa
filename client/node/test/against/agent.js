// The agent in JavaScript against the provider in Rust: two implementations of one page. Run by the Rust harness; OBOL is the binary.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { randomBytes, randomInt } = require("node:crypto");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { createClient, signAtpBody, verifyAtpSignature } = require("../../lib/agent-tokens");
const { SECRET, folder, post } = require("../world");
const { serve } = require("./serve");

process.on("warning", () => {});

test("request, verify, revoke, rotation of the secret, replay after kill -9", async () => {
  const provider = await serve({ shared: [{ secret: SECRET }] });
  const stateDir = folder();
  const secretFile = path.join(stateDir, "secret");
  fs.writeFileSync(secretFile, SECRET, { mode: 0o600 });
  const client = createClient({ stateDir, secretFile, keychain: "file", caFile: provider.tls.file, allowPrivate: [provider.host] });
  const token = await client.requestToken(provider.host, { scopes: ["write", "read"], purpose: "Größe\u00a0messen" });
  assert.deepEqual(token.scopes_granted, ["read", "write"]);
  const verdict = await client.verifyToken(token.access_token, provider.host);
  assert.deepEqual([verdict.valid, verdict.scopes, verdict.agent_id], [true, ["read", "write"], await client.generateAgentId()]);

  const newer = "a newer secret that is long enough, truly";
  await provider.reload({ shared: [{ secret: newer }, { secret: SECRET, until: Math.floor(Date.now() / 1000) + 3600 }] });
  await client.requestToken(provider.host, { scopes: ["read"] });
  assert.match(await provider.metrics(), /obol_atp_previous_secret_total [1-9]/);
  fs.writeFileSync(secretFile, newer);
  const last = await client.requestToken(provider.host, { scopes: ["read"] });
  await provider.reload({ shared: [{ secret: newer }] });

  const body = { agent_id: await client.generateAgentId(), scopes: ["read"], timestamp: Date.now(), nonce: randomBytes(16).toString("base64url"), aud: provider.url };
  const text = JSON.stringify({ ...body, signature: signAtpBody(body, newer) });
  const answers = await Promise.all(Array.from({ length: 64 }, () => post(provider, provider.url, text)));
  assert.equal(answers.filter(({ status }) => status === 200).length, 1);
  assert.deepEqual(await client.revokeToken(provider.host), { revoked: true, remote: true });
  await provider.killAndStart();
  assert.equal((await post(provider, provider.url, text)).body.error, "replayed");
  assert.deepEqual(await client.verifyToken(last.access_token, provider.host), { valid: false }, "revoked before the kill");
  assert.equal((await client.verifyToken(token.access_token, provider.host)).valid, true);

  const lines = fs.readFileSync(path.join(provider.dir, "audit.jsonl"), "utf8");
  for (const secret of [SECRET, newer, token.access_token, token.id]) assert.ok(!lines.includes(secret));
  assert.ok(lines.includes('"event":"token_issue"') && lines.includes('"event":"token_revoke"') && lines.includes("Gr\\\\u{f6}"));
  assert.equal(JSON.parse(provider.audit()).ok, true);
  client.close();
  await provider.close();
});

/** Random JSON objects: names and texts from everywhere in Unicode, numbers that doubles hold. */
function randomBody() {
  const text = () => String.fromCodePoint(...Array.from({ length: randomInt(6) }, () => {
    const point = [randomInt(0x80), randomInt(0x800), randomInt(0x110000)][randomInt(3)];
    return point >= 0xd800 && point < 0xe000 ? 0x20ac : point;
  }));
  const value = (depth) => [text, () => randomInt(2 ** 47), () => -randomInt(1000), () => randomInt(2) === 1, () => null,
    () => (depth > 2 ? text() : Array.from({ length: randomInt(4) }, () => value(depth + 1))),
    () => (depth > 2 ? text() : object(depth + 1))][randomInt(7)]();
  const object = (depth) => Object.fromEntries(Array.from({ length: randomInt(1, 6) }, () => [text(), value(depth)]).filter(([name]) => name !== "__proto__" && !/^[0-9]+$/.test(name)));
  return object(0);
}

test("10,000 random bodies have the same signature in both languages", () => {
  const dir = folder();
  const secretFile = path.join(dir, "secret");
  fs.writeFileSync(secretFile, SECRET, { mode: 0o600 });
  const run = (input, ...args) => execFileSync(process.env.OBOL, ["atp", "sign", "--secret-file", secretFile, ...args], { input, env: { HOME: dir } }).toString().trim();
  for (let n = 0; n < 40; n += 1) {
    const body = { many: Array.from({ length: 250 }, randomBody), signature: "left out" };
    const text = JSON.stringify(body, null, n % 4);
    const signature = run(text);
    assert.equal(signature, signAtpBody(body, SECRET), text);
    assert.ok(verifyAtpSignature(body, signature, SECRET));
    if (n === 0) run(text, "--check", signature);
  }
  assert.throws(() => run("{}", "--check", "00".repeat(32)), { status: 3 });
});
