// The agent in JavaScript against the provider in Rust: two implementations of one page. Run by the Rust harness; OBOL is the binary.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { createClient, signAtpBody } = require("../../lib/agent-tokens");
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
