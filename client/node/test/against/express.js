// The middleware in a real Express, mounted by the documented lines as docs/atp.md has them, and with the three documented options
// alone. Run by the Rust harness; EXPRESS is a folder with Express in its node_modules, OBOL the binary.
"use strict";

const { test, before } = require("node:test");
const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");
const { SECRET, certificate, folder, post } = require("../world");

process.on("warning", () => {});

const root = folder();
let express;
before(() => {
  // As it is after `npm install`: Express and this package side by side.
  fs.symlinkSync(path.join(process.env.EXPRESS, "node_modules"), path.join(root, "modules"));
  express = require(path.join(root, "modules/express"));
});

const load = (name) => (name.startsWith("@obol/agent/") ? require(path.join("../..", name.slice("@obol/agent/".length))) : require(name));

/** The code of the documentation that begins with this line. */
function documented(line) {
  const text = fs.readFileSync(path.join(__dirname, "../../../../docs/atp.md"), "utf8");
  const blocks = [...text.matchAll(/```js\n([\s\S]*?)```/g)].map(([, code]) => code);
  const found = blocks.find((code) => code.includes(line));
  assert.ok(found, line);
  return found;
}

async function listen(app, tls) {
  const server = https.createServer({ key: tls.key, cert: tls.cert }, app);
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  return { server, port: server.address().port, tls, close: () => (server.closeAllConnections(), server.close()) };
}

function get(target, url, token) {
  return new Promise((resolve, reject) => {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    https.get(url, { ca: target.tls.cert, agent: false, headers }, (res) => {
      let text = "";
      res.on("data", (piece) => (text += piece));
      res.on("end", () => resolve({ status: res.statusCode, text }));
    }).on("error", reject);
  });
}

const obol = (home, config, ...args) =>
  new Promise((resolve) => {
    fs.chmodSync(home, 0o700);
    fs.writeFileSync(path.join(home, "obol.toml"), config);
    execFile(process.env.OBOL, ["--config", path.join(home, "obol.toml"), "atp", ...args], { env: { HOME: home } }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout: stdout.trim(), stderr }));
  });

test("the documented lines serve both agents", async () => {
  process.env.ATP_SECRET = SECRET;
  const tls = certificate(folder());
  const server = https.createServer({ key: tls.key, cert: tls.cert });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const host = `localhost:${server.address().port}`;
  // Only the host's name and the folder are of this place.
  const code = documented("app.use(\"/v1/agent-tokens\"").replace("https://api.example.com/", `https://${host}/`).replace("/var/lib/api/atp", folder());
  const app = express();
  const handler = (req, res) => res.json(req.agentToken);
  new Function("require", "app", "handler", "process", code)(load, app, handler, process);
  server.on("request", app);
  const target = { tls };

  const { createClient } = require("../../lib/agent-tokens");
  const stateDir = folder();
  fs.writeFileSync(path.join(stateDir, "secret"), SECRET, { mode: 0o600 });
  const client = createClient({ stateDir, secretFile: path.join(stateDir, "secret"), keychain: "file", caFile: tls.file, allowPrivate: [host] });
  const token = await client.requestToken(host, { scopes: ["read"], purpose: "Sync dashboard metrics" });
  const opened = await get(target, `https://${host}/data`, token.access_token);
  assert.deepEqual([opened.status, JSON.parse(opened.text).agent_id], [200, token.agent_id]);
  assert.equal((await get(target, `https://${host}/data`)).status, 401, "control: without a token");
  assert.equal((await client.verifyToken(token.access_token, host)).valid, true);
  assert.deepEqual(await client.revokeToken(host), { revoked: true, remote: true });
  assert.equal((await get(target, `https://${host}/data`, token.access_token)).status, 401);
  client.close();

  const home = folder();
  fs.writeFileSync(path.join(home, "secret"), SECRET, { mode: 0o600 });
  const config = `[atp]\nkeychain = "file"\nca_file = ${JSON.stringify(tls.file)}\nallow_private = [${JSON.stringify(host)}]\nsecret_file = ${JSON.stringify(path.join(home, "secret"))}\n`;
  const rust = await obol(home, config, "request", host, "--scope", "read");
  assert.equal(rust.code, 0, rust.stderr);
  assert.equal((await get(target, `https://${host}/data`, rust.stdout)).status, 200);
  assert.equal((await obol(home, config, "verify", host)).code, 0);
  assert.equal((await obol(home, config, "revoke", host)).code, 0);
  assert.equal((await get(target, `https://${host}/data`, rust.stdout)).status, 401);
  server.closeAllConnections();
  server.close();
});

test("the three documented options are enough, and what may have been answered before the start is refused", async () => {
  process.env.ATP_SECRET = SECRET;
  const { middleware } = load("@obol/agent/lib/atp-server");
  const app = express();
  const atp = middleware({ secret: process.env.ATP_SECRET, scopes: ["read", "write"], tokenTTL: 3600 });
  app.use("/v1/agent-tokens", atp);
  app.get("/.well-known/agentdom.json", atp.wellKnown());
  const target = await listen(app, certificate(folder()));
  const url = `https://localhost:${target.port}/v1/agent-tokens`;
  const { generateAgentId, signAtpBody } = load("@obol/agent/lib/agent-tokens");
  const signed = async () => {
    const body = { agent_id: "1b".repeat(32), scopes: ["read"], timestamp: Date.now() };
    return JSON.stringify({ ...body, signature: signAtpBody(body, SECRET) });
  };
  assert.equal(typeof generateAgentId, "function");
  assert.equal((await post(target, url, await signed())).status, 503);
  await new Promise((done) => setTimeout(done, 6_500));
  const body = await signed();
  const answer = await post(target, url, body);
  assert.deepEqual([answer.status, answer.body.scopes_granted], [200, ["read"]], answer.text);
  assert.equal((await post(target, url, body)).body.error, "replayed");
  const { status } = await get(target, `https://localhost:${target.port}/.well-known/agentdom.json`);
  assert.equal(status, 503, "it does not know its name, so it publishes none");
  target.close();
});
