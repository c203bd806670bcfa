// TLS: a server whose certificate holds is called, one whose certificate does not is sent nothing.
"use strict";

const assert = require("node:assert/strict");
const { execFile, execFileSync } = require("node:child_process");
const fs = require("node:fs");
const https = require("node:https");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const { World } = require("./world");

const SCRIPT = `
const { Agent } = require(${JSON.stringify(path.join(__dirname, "../.."))});
const origin = process.argv[1];
const agent = new Agent({ routes: [{ audience: origin, tools: ["search"] }] });
(async () => {
  for (let call = 0; call < 2; call += 1) console.log(await agent.fetch(origin).then((r) => r.text()).catch((error) => error.code));
})();`;

test("certificates decide who is sent a token", async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "obol-tls-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  const [key, cert] = [path.join(folder, "key.pem"), path.join(folder, "cert.pem")];
  const named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert];
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", ...named], { stdio: "ignore" });
  const tokens = [];
  const server = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, (request, response) => {
    tokens.push(request.headers.authorization);
    response.end("ok");
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  t.after(() => server.close());
  const world = new World();
  t.after(() => world.end());
  const { agentSocket } = await world.open({ servers: {} });
  const outcomes = (host, trusted, more = {}) =>
    new Promise((resolve, reject) => {
      const env = { ...process.env, OBOL_ENDPOINT_SOCKET: agentSocket, ...(trusted ? { NODE_EXTRA_CA_CERTS: cert } : {}), ...more };
      const args = ["-e", SCRIPT, `https://${host}:${server.address().port}`];
      execFile(process.execPath, args, { env, encoding: "utf8" }, (error, stdout) => (error ? reject(error) : resolve(stdout.split("\n").slice(0, 2))));
    });
  assert.deepEqual(await outcomes("localhost", true), ["ok", "ok"]);
  assert.equal(new Set(tokens).size, 2);
  assert.deepEqual(await outcomes("localhost", false), ["UNREACHABLE", "UNREACHABLE"], "nobody vouches for it");
  assert.deepEqual(await outcomes("127.0.0.1", true), ["UNREACHABLE", "UNREACHABLE"], "it is of another name");
  const off = { NODE_TLS_REJECT_UNAUTHORIZED: "0", NODE_NO_WARNINGS: "1" };
  assert.deepEqual(await outcomes("localhost", false, off), ["UNREACHABLE", "UNREACHABLE"], "no variable switches that off");
  assert.equal(tokens.length, 2);
});
