// The agent in Rust (`obol atp`) against the provider in JavaScript, and against hosts that are up to no good. OBOL is the binary.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");
const { SECRET, certificate, folder, provider } = require("../world");

process.on("warning", () => {});

/** An agent with a home of its own; `allowed` may be at a private address. */
function agentOf(tls, allowed, env = {}) {
  const home = folder();
  fs.chmodSync(home, 0o700);
  const quoted = (list) => list.map((one) => JSON.stringify(one)).join(", ");
  fs.writeFileSync(path.join(home, "secret"), `${SECRET}\n`, { mode: 0o600 });
  const secret = env.AGENTDOM_ATP_SECRET ? "" : `secret_file = ${JSON.stringify(path.join(home, "secret"))}\n`;
  fs.writeFileSync(path.join(home, "obol.toml"), `[atp]\nca_file = ${JSON.stringify(tls.file)}\nallow_private = [${quoted(allowed)}]\n${secret}`);
  const run = (...args) =>
    new Promise((resolve) => {
      const full = ["--config", path.join(home, "obol.toml"), "atp", ...args];
      execFile(process.env.OBOL, full, { env: { HOME: home, ...env } }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr, json: () => JSON.parse(stdout) }));
    });
  return Object.assign(run, { home });
}

test("request, verify, revoke, and a tombstone for what did not get through", async () => {
  const target = await provider();
  const agent = agentOf(target.tls, [target.host]);
  const token = (await agent("request", target.host, "--scope", "write", "--scope", "read", "--purpose", "Größe", "--json")).json();
  assert.deepEqual([token.scopes_granted, token.stored_in], [["read", "write"], "file"]);
  assert.ok(token.expires_in > 3500 && token.expires_in <= 3600, token.expires_in);
  assert.equal(token.agent_id, (await agent("agent-id")).stdout.trim());
  for (const name of fs.readdirSync(path.join(agent.home, ".local/state/obol/atp"))) {
    const file = path.join(agent.home, ".local/state/obol/atp", name);
    assert.ok(!fs.readFileSync(file, "latin1").includes(token.access_token), name);
    assert.equal(fs.statSync(file).mode & 0o077, 0, name);
  }
  assert.equal((await agent("verify", target.host, "--json")).json().valid, true);
  assert.equal((await agent("request", target.host, "--scope", "read", "--cached")).stdout.trim(), token.access_token);
  target.restart({ secret: "another secret for the moment" });
  assert.equal((await agent("revoke", target.host)).code, 4);
  assert.equal((await agent("request", target.host, "--scope", "read")).code, 3);
  target.restart();
  const next = await agent("request", target.host, "--scope", "read", "--cached");
  assert.notEqual(next.stdout.trim(), token.access_token);
  assert.equal((await agent("verify", target.host, token.access_token)).code, 3, "revoked before the next request");
  assert.equal((await agent("revoke", target.host)).code, 0);
  assert.equal((await agent("verify", target.host, next.stdout.trim())).code, 3);
  await target.close();
  assert.equal((await agent("verify", target.host, next.stdout.trim())).code, 4, "no answer is not invalid");
});

test("thirty processes make one request", async () => {
  const target = await provider();
  const agent = agentOf(target.tls, [target.host]);
  const all = await Promise.all(Array.from({ length: 30 }, () => agent("request", target.host, "--scope", "read", "--cached")));
  assert.deepEqual(new Set(all.map(({ code }) => code)), new Set([0]), all.map(({ stderr }) => stderr).join());
  assert.equal(new Set(all.map(({ stdout }) => stdout)).size, 1);
  assert.equal(target.requests.filter((line) => line === "POST /v1/agent-tokens").length, 1);
  await target.close();
});

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
  for (const [name, answer] of Object.entries({
    redirect: (req, res) => res.writeHead(302, { Location: "https://localhost:1/" }).end(),
    http: document("http://localhost/x"),
    metadata: document("https://169.254.169.254/x"),
    mapped: document("https://[::ffff:127.0.0.1]/x"),
    foreign: document("https://evil.example/x"),
    user: document("https://user@localhost/x"),
    "65 KiB": (req, res) => res.end("x".repeat(66_000)),
    slow: () => {},
  })) {
    const host = await hostile(answer);
    const agent = agentOf(host.tls, [host.host]);
    assert.notEqual((await agent("request", host.host, "--scope", "read")).code, 0, name);
    assert.deepEqual(host.seen, ["GET /.well-known/agentdom.json"], name);
    host.close();
  }
});

test("a redirect of the token endpoint is not followed, and a wider grant is given back", async () => {
  const document = (self) => JSON.stringify({ auth: { agent_token_endpoint: `https://${self}/t` } });
  const redirecting = await hostile((req, res, self) => (req.method === "GET" ? res.end(document(self)) : res.writeHead(307, { Location: `https://${self}/else` }).end()));
  const first = agentOf(redirecting.tls, [redirecting.host]);
  assert.equal((await first("request", redirecting.host, "--scope", "read")).code, 3);
  assert.ok(!redirecting.seen.includes("POST /else"));
  redirecting.close();
  const generous = await hostile((req, res, self) => {
    if (req.method === "GET") return res.end(document(self));
    return res.end(req.url === "/t/revoke" ? '{"revoked":true}' : '{"token":"t","expires_in":60,"scopes_granted":["read","write"]}');
  });
  const second = agentOf(generous.tls, [generous.host]);
  assert.equal((await second("request", generous.host, "--scope", "read")).code, 3);
  assert.ok(generous.seen.includes("POST /t/revoke"));
  generous.close();
});

test("private addresses, other certificates and a second host get nothing", async () => {
  const target = await provider();
  const closed = agentOf(target.tls, []);
  assert.equal((await closed("request", target.host, "--scope", "read")).code, 4);
  const strange = agentOf(certificate(folder()), [target.host]);
  assert.equal((await strange("request", target.host, "--scope", "read")).code, 4);
  assert.deepEqual(target.requests, []);
  const other = await provider({}, undefined, target.tls);
  const plain = agentOf(target.tls, [target.host, other.host], { AGENTDOM_ATP_SECRET: SECRET });
  assert.equal((await plain("request", target.host, "--scope", "read")).code, 0);
  const refused = await plain("request", other.host, "--scope", "read");
  assert.equal(refused.code, 2, refused.stderr);
  assert.ok(!other.requests.includes("POST /v1/agent-tokens"));
  for (const bad of ["127.0.0.1:8443", "localhost@evil.example", "https://localhost", "[::1]:443"]) assert.equal((await plain("request", bad, "--scope", "read")).code, 2, bad);
  await Promise.all([target.close(), other.close()]);
});
