// The agent in Rust (`obol atp`) at a host whose document offers nothing but tokens under a master credential: the dialect of the npm
// client, against the provider in Rust. Run by the Rust harness; OBOL is the binary.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");
const { folder, post } = require("../world");
const { serve, master, MASTER } = require("./serve");

process.on("warning", () => {});

/** A host that has a document of its own and sends on to the provider what the document names. */
async function front(provider, auth) {
  const seen = [];
  const server = https.createServer({ key: provider.tls.key, cert: provider.tls.cert }, (req, res) => {
    if (req.url === "/.well-known/agentdom.json") return res.end(JSON.stringify({ auth: auth(`localhost:${server.address().port}`) }));
    seen.push({ line: `${req.method} ${req.url}`, authorization: req.headers.authorization });
    const on = https.request(`https://${provider.host}${req.url}`, { method: req.method, headers: { ...req.headers, host: provider.host }, ca: provider.tls.cert, agent: false }, (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
    });
    req.pipe(on);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  return { host: `localhost:${server.address().port}`, seen, close: () => (server.closeAllConnections(), server.close()) };
}

const E = (host) => `https://${host}/v1/agent-tokens`;
const masterOnly = (host) => ({ method: "api_key", agent_tokens: { issue: `POST ${E(host)}/issue`, rotate: `POST ${E(host)}/{id}/rotate`, revoke: `DELETE ${E(host)}/{id}` } });

function agentOf(provider, hosts, masters, more = "") {
  const home = folder();
  fs.chmodSync(home, 0o700);
  fs.writeFileSync(path.join(home, "master"), `${MASTER}\n`, { mode: 0o600 });
  const quoted = (list) => `[${list.map((one) => JSON.stringify(one)).join(", ")}]`;
  const named = masters.map((host) => `${host}=${path.join(home, "master")}`);
  fs.writeFileSync(path.join(home, "obol.toml"), `[atp]\nkeychain = "file"\nca_file = ${JSON.stringify(provider.tls.file)}\nallow_private = ${quoted(hosts)}\nmasters = ${quoted(named)}\n${more}`);
  const run = (...args) =>
    new Promise((resolve) => {
      const env = { HOME: home };
      execFile(process.env.OBOL, ["--config", path.join(home, "obol.toml"), "atp", ...args], { env }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr, json: () => JSON.parse(stdout) }));
    });
  return Object.assign(run, { home });
}

const isValid = async (provider, token) => (await post(provider, `${provider.url}/verify`, "", { Authorization: `Bearer ${token}` })).body.valid;

test("issue, revocation, and a tombstone for one that did not get through", async () => {
  const provider = await serve({ masters: [master("build")] });
  const host = await front(provider, masterOnly);
  const agent = agentOf(provider, [host.host], [host.host]);
  const first = (await agent("request", host.host, "--scope", "read", "--json")).json();
  assert.match(first.id, /^tok_[0-9a-f]{32}$/);
  assert.equal(first.agent_id, (await agent("agent-id")).stdout.trim());
  assert.ok(await isValid(provider, first.access_token));
  assert.equal((await agent("request", host.host, "--scope", "read", "--cached")).stdout.trim(), first.access_token);
  assert.equal((await agent("revoke", host.host)).code, 0);
  assert.equal(await isValid(provider, first.access_token), false);
  const wider = await agent("request", host.host, "--scope", "admin");
  assert.equal(wider.code, 3, wider.stderr);

  const last = (await agent("request", host.host, "--scope", "write", "--json")).json();
  fs.writeFileSync(path.join(agent.home, "master"), "another credential for a moment\n", { mode: 0o600 });
  assert.equal((await agent("revoke", host.host)).code, 4, "gone here, and the provider could not be told");
  assert.equal((await agent("status", "--json")).json().hosts[host.host].to_be_revoked, true);
  fs.writeFileSync(path.join(agent.home, "master"), MASTER, { mode: 0o600 });
  assert.equal((await agent("revoke", host.host)).code, 0);
  assert.equal(await isValid(provider, last.access_token), false);
  for (const name of fs.readdirSync(path.join(agent.home, ".local/state/obol/atp"))) {
    assert.ok(!fs.readFileSync(path.join(agent.home, ".local/state/obol/atp", name), "latin1").includes(MASTER), name);
  }
  host.close();
  await provider.close();
});

test("a refresh rotates: another token under the same id, and none is issued besides", async () => {
  const provider = await serve({ masters: [master("build")] }, ["--ttl", "15", "--max-ttl", "15"]);
  const host = await front(provider, masterOnly);
  const agent = agentOf(provider, [host.host], [host.host]);
  const first = (await agent("request", host.host, "--scope", "read", "--json")).json();
  let next = first;
  for (const end = Date.now() + 40_000; next.access_token === first.access_token; ) {
    assert.ok(Date.now() < end, "it was never refreshed");
    await new Promise((done) => setTimeout(done, 100));
    next = (await agent("request", host.host, "--scope", "read", "--cached", "--json")).json();
  }
  assert.equal(next.id, first.id);
  assert.ok(await isValid(provider, next.access_token));
  const lines = host.seen.map((request) => request.line);
  assert.deepEqual(lines, ["POST /v1/agent-tokens/issue", `POST /v1/agent-tokens/${first.id}/rotate`]);
  host.close();
  await provider.close();
});

test("a master goes to the host it was named for, and only where nothing else is offered", async () => {
  const provider = await serve({ masters: [master("build")] });
  const named = await front(provider, masterOnly);
  const other = await front(provider, masterOnly);
  const both = await front(provider, (host) => ({ ...masterOnly(host), agent_token_endpoint: E(host) }));
  const elsewhere = await front(provider, () => masterOnly(other.host));
  const hosts = [named.host, other.host, both.host, elsewhere.host];
  const agent = agentOf(provider, hosts, [named.host, both.host, elsewhere.host]);
  const control = await agent("request", named.host, "--scope", "read");
  assert.equal(control.code, 0, control.stderr);
  assert.equal(named.seen[0].authorization, `Bearer ${MASTER}`);
  assert.equal((await agent("request", other.host, "--scope", "read")).code, 2, "no master is named for it");
  assert.equal((await agent("request", both.host, "--scope", "read")).code, 2, "a secret is wanted there, and a master is not used instead");
  assert.equal((await agent("request", elsewhere.host, "--scope", "read")).code, 3, "routes of another host");
  for (const host of [other, both, elsewhere]) assert.deepEqual(host.seen, []);
  for (const host of [named, other, both, elsewhere]) host.close();
  await provider.close();
});

test("a keyed agent id is another for each provider", async () => {
  const provider = await serve({ masters: [master("build")] });
  const [first, second] = [await front(provider, masterOnly), await front(provider, masterOnly)];
  const hosts = [first.host, second.host];
  const keyed = agentOf(provider, hosts, hosts, 'agent_id_mode = "keyed"\n');
  const plain = agentOf(provider, hosts, hosts);
  const name = async (agent, host) => (await agent("request", host, "--scope", "read", "--json")).json().agent_id;
  assert.equal(await name(plain, first.host), await name(plain, second.host), "control: one name everywhere");
  assert.notEqual(await name(keyed, first.host), await name(keyed, second.host));
  assert.equal(await name(keyed, first.host), (await keyed("agent-id", "--keyed", first.host)).stdout.trim());
  for (const host of [first, second]) host.close();
  await provider.close();
});
