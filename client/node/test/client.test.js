// The agent's side against a provider on a real socket, and against hosts that are up to no good.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { fork } = require("node:child_process");
const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");
const { createClient } = require("../lib/agent-tokens");
const { isPublic } = require("../lib/atp/connect");
const { SECRET, folder, provider, certificate } = require("./world");

process.on("warning", () => {});
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function clientOf(target, more = {}) {
  const stateDir = folder();
  const secretFile = path.join(stateDir, "secret");
  fs.writeFileSync(secretFile, `${SECRET}\n`, { mode: 0o600 });
  return createClient({ stateDir, secretFile, keychain: "file", caFile: target.tls.file, allowPrivate: [target.host], ...more });
}

test("a token is requested, kept sealed, verified and given back", async () => {
  const target = await provider({ stateDir: folder() });
  const stateDir = folder();
  const client = clientOf(target, { stateDir });
  const token = await client.requestToken(target.host, { scopes: ["read"], purpose: "Sync dashboard metrics" });
  assert.deepEqual([token.scopes_granted, token.stored_in], [["read"], "file"]);
  assert.ok(token.expires_in > 3500 && token.expires_in <= 3600, token.expires_in);
  for (const name of fs.readdirSync(stateDir)) {
    assert.ok(!fs.readFileSync(path.join(stateDir, name), "latin1").includes(token.access_token), name);
    assert.equal(fs.statSync(path.join(stateDir, name)).mode & 0o077, 0, name);
  }
  assert.equal((await client.verifyToken(token.access_token, target.host)).valid, true);
  const again = await client.ensureToken(target.host, { scopes: ["read"] });
  assert.equal(again.access_token, token.access_token);
  assert.deepEqual(await client.revokeToken(target.host), { revoked: true, remote: true });
  assert.deepEqual(await client.verifyToken(token.access_token, target.host), { valid: false });
  client.close();
  await target.close();
});

test("a hundred callers in one process and ten in others make one request", async () => {
  const target = await provider({ stateDir: folder() });
  const options = { stateDir: folder(), keychain: "file", caFile: target.tls.file, allowPrivate: [target.host] };
  options.secretFile = path.join(options.stateDir, "secret");
  fs.writeFileSync(options.secretFile, SECRET, { mode: 0o600 });
  const client = createClient(options);
  const here = Array.from({ length: 100 }, () => client.ensureToken(target.host, { scopes: ["read"] }));
  const there = Array.from({ length: 10 }, () => inAnotherProcess(options, target.host));
  const tokens = new Set((await Promise.all([...here, ...there])).map((token) => token.access_token));
  assert.equal(tokens.size, 1);
  assert.equal(target.requests.filter((line) => line === "POST /v1/agent-tokens").length, 1);
  client.close();
  await target.close();
});

function inAnotherProcess(options, host) {
  return new Promise((resolve, reject) => {
    const child = fork(path.join(__dirname, "ensure.js"), [JSON.stringify(options), host], { silent: true });
    child.on("message", resolve);
    child.on("exit", (code) => code !== 0 && reject(new Error(`exit ${code}`)));
  });
}

test("a token is refreshed ahead of its end", async () => {
  const target = await provider({ stateDir: folder(), tokenTTL: 2 });
  const client = clientOf(target);
  const first = await client.ensureToken(target.host, { scopes: ["read"] });
  await pause(2_400);
  const second = await client.ensureToken(target.host, { scopes: ["read"] });
  assert.notEqual(second.access_token, first.access_token);
  assert.ok(second.expires_at > Date.now());
  client.close();
  await target.close();
});

test("a clock that is wrong is corrected once, by the provider's", async () => {
  const target = await provider({ stateDir: folder() });
  for (const [offset, works] of [[-600_000, true], [600_000, true], [-3_600_000, false]]) {
    const client = clientOf(target, { now: () => Date.now() + offset });
    const attempt = client.requestToken(target.host, { scopes: ["read"] });
    if (works) assert.ok((await attempt).access_token);
    else await assert.rejects(attempt, { code: "Refused", error: "stale_timestamp" });
    client.close();
  }
  await target.close();
});

test("a revocation that does not get through is tried again", async () => {
  const dir = folder();
  const target = await provider({ stateDir: folder() }, dir);
  const client = clientOf(target);
  const { access_token } = await client.requestToken(target.host, { scopes: ["read"] });
  target.restart({ secret: "another secret for the moment" });
  assert.deepEqual(await client.revokeToken(target.host), { revoked: true, remote: false });
  target.restart();
  assert.equal((await client.verifyToken(access_token, target.host)).valid, true);
  await client.requestToken(target.host, { scopes: ["read"] });
  assert.equal((await client.verifyToken(access_token, target.host)).valid, false);
  client.close();
  await target.close();
});

test("a token goes to nobody but its issuer", async () => {
  const target = await provider({ stateDir: folder() });
  const client = clientOf(target);
  const claims = (iss) => `x.${Buffer.from(JSON.stringify({ iss })).toString("base64url")}.x`;
  const before = target.requests.length;
  await assert.rejects(client.verifyToken(claims("https://other.example"), target.host), { code: "WrongIssuer" });
  await assert.rejects(client.verifyToken("opaque", target.host), { code: "WrongIssuer" });
  assert.equal(target.requests.length, before);
  assert.deepEqual(await client.verifyToken(claims(`https://${target.host}`), target.host), { valid: false });
  client.close();
  await target.close();
});

test("the plain secret of the environment is bound to the first host", async () => {
  const [dir, tls] = [folder(), certificate(folder())];
  const [first, second] = [await provider({ stateDir: folder() }, dir, tls), await provider({ stateDir: folder() }, dir, tls)];
  const client = createClient({ stateDir: folder(), keychain: "file", caFile: first.tls.file, allowPrivate: [first.host, second.host] });
  process.env.AGENTDOM_ATP_SECRET = SECRET;
  try {
    assert.ok((await client.requestToken(first.host, { scopes: ["read"] })).access_token);
    const before = second.requests.length;
    await assert.rejects(client.requestToken(second.host, { scopes: ["read"] }), { code: "NoSecret" });
    assert.ok(second.requests.slice(before).every((line) => line.startsWith("GET /.well-known/")), "nothing signed was sent");
  } finally {
    delete process.env.AGENTDOM_ATP_SECRET;
  }
  client.close();
  await Promise.all([first.close(), second.close()]);
});

/** A host that answers every request in one way, and counts what it is sent. */
async function hostile(answer) {
  const tls = certificate(folder());
  const seen = [];
  const server = https.createServer({ key: tls.key, cert: tls.cert }, (req, res) => {
    seen.push(`${req.method} ${req.url}`);
    answer(req, res, `localhost:${server.address().port}`);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  return { tls, seen, host: `localhost:${server.address().port}`, close: () => (server.closeAllConnections(), server.close()) };
}

test("nothing is signed for what a document should not say", async () => {
  const document = (url) => (req, res) => res.end(JSON.stringify({ auth: { agent_token_endpoint: url } }));
  const cases = {
    redirect: (req, res) => res.writeHead(302, { Location: "https://localhost:1/" }).end(),
    http: document("http://localhost/x"),
    metadata: document("https://169.254.169.254/x"),
    mapped: document("https://[::ffff:127.0.0.1]/x"),
    foreign: document("https://evil.example/x"),
    user: document("https://user@localhost/x"),
    "65 KiB": (req, res) => res.end("x".repeat(66_000)),
    slow: () => {},
    "not JSON": (req, res) => res.end("<html>"),
  };
  for (const [name, answer] of Object.entries(cases)) {
    const host = await hostile(answer);
    const client = clientOf(host);
    await assert.rejects(client.requestToken(host.host, { scopes: ["read"] }), (error) => ["Discovery", "NotOffered", "Unavailable"].includes(error.code), name);
    assert.deepEqual(host.seen, ["GET /.well-known/agentdom.json"], name);
    host.close();
  }
});

test("a redirect of the token endpoint is not followed", async () => {
  const host = await hostile((req, res, self) => {
    if (req.method === "GET") return res.end(JSON.stringify({ auth: { agent_token_endpoint: `https://${self}/t` } }));
    return res.writeHead(307, { Location: `https://${self}/elsewhere` }).end();
  });
  const client = clientOf(host);
  await assert.rejects(client.requestToken(host.host, { scopes: ["read"] }), { code: "Refused", error: "status_307" });
  assert.ok(!host.seen.includes("POST /elsewhere"));
  host.close();
});

test("a grant wider than asked is given back", async () => {
  const host = await hostile((req, res, self) => {
    if (req.method === "GET") return res.end(JSON.stringify({ auth: { agent_token_endpoint: `https://${self}/t` } }));
    if (req.url === "/t/revoke") return res.end('{"revoked":true}');
    return res.end('{"token":"t","expires_in":60,"scopes_granted":["read","write"]}');
  });
  const client = clientOf(host);
  await assert.rejects(client.requestToken(host.host, { scopes: ["read"] }), { code: "WiderGrant" });
  assert.ok(host.seen.includes("POST /t/revoke"));
  host.close();
});

test("private addresses are not connected to unless the host is named", async () => {
  const target = await provider({ stateDir: folder() });
  const client = clientOf(target, { allowPrivate: [] });
  await assert.rejects(client.requestToken(target.host, { scopes: ["read"] }), { code: "Unavailable" });
  assert.deepEqual(target.requests, []);
  await target.close();
  for (const address of ["8.8.8.8", "1.1.1.1", "2606:4700::1111"]) assert.ok(isPublic(address), address);
  for (const address of [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
    "192.0.2.1", "198.18.0.1", "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "2001:db8::1", "2001::1", "not an address",
  ]) assert.ok(!isPublic(address), address);
});

test("the agent id is computed once and kept", async () => {
  const stateDir = folder();
  const id = await createClient({ stateDir }).generateAgentId();
  assert.match(id, /^[0-9a-f]{64}$/);
  assert.equal(await createClient({ stateDir }).generateAgentId(), id);
  const kept = "ab".repeat(32);
  fs.writeFileSync(path.join(stateDir, "agent-id"), `${kept}\n`);
  assert.equal(await createClient({ stateDir }).generateAgentId(), kept);
});
