// A provider on a real TLS socket, with a certificate made for the run.
"use strict";

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const https = require("node:https");
const os = require("node:os");
const path = require("node:path");
const { middleware } = require("../lib/atp-server");

const MOUNT = "/v1/agent-tokens";
const SECRET = "a secret that is long enough, truly";

const folders = [];
process.on("exit", () => folders.forEach((folder) => fs.rmSync(folder, { recursive: true, force: true })));

/** A folder that is gone at the end. */
function folder() {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), "obol-atp-"));
  folders.push(made);
  return made;
}

function certificate(dir) {
  const [key, cert] = [path.join(dir, "key.pem"), path.join(dir, "cert.pem")];
  const args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
    "-addext", "subjectAltName=DNS:localhost,DNS:other.localhost,DNS:api.example.com", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert];
  execFileSync("openssl", args, { stdio: "ignore" });
  return { key: fs.readFileSync(key), cert: fs.readFileSync(cert), file: cert };
}

/** Mounts as Express does. */
function mount(handler, extra = () => false) {
  return (req, res) => {
    if (extra(req, res)) return;
    if (req.url === MOUNT || req.url.startsWith(`${MOUNT}/`)) {
      req.baseUrl = MOUNT;
      req.url = req.url.slice(MOUNT.length) || "/";
      return handler(req, res, () => res.writeHead(404).end());
    }
    res.writeHead(404).end();
  };
}

/** Starts a provider; `options` are the middleware's, without `url`. While its `outage` is set, what that answers (and says so) nobody else does. */
async function provider(options = {}, dir = folder(), tls = certificate(dir)) {
  let handler;
  const target = { outage: undefined };
  const stateDir = folder();
  const requests = [];
  const server = https.createServer({ key: tls.key, cert: tls.cert }, (req, res) => {
    requests.push(`${req.method} ${req.url}`);
    if (target.outage?.(req, res)) return undefined;
    return mount(handler, (req, res) => {
      if (req.url === "/.well-known/agentdom.json") return (handler.wellKnown()(req, res), true);
      if (req.url === "/data") return (handler.require("read")(req, res, () => res.end(JSON.stringify(req.agentToken))), true);
      return false;
    })(req, res);
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const host = `localhost:${server.address().port}`;
  const url = `https://${host}${MOUNT}`;
  const set = (more = {}) => (handler = middleware({ secret: SECRET, scopes: ["read", "write"], tokenTTL: 3600, agentRate: 0, addressRate: 0, url, stateDir, ...options, ...more }));
  set();
  const close = () => (server.closeAllConnections(), new Promise((done) => server.close(done)));
  return Object.assign(target, { host, url, tls, requests, restart: set, close, dir });
}

/** Answers that a provider has at a bad moment. */
const unavailable = (req, res) => Boolean(res.writeHead(503, { "Content-Type": "application/json" }).end('{"error":"unavailable"}'));

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until it holds, and fails if it never does. */
async function until(what, holds, longestMs = 30_000) {
  for (const end = Date.now() + longestMs; !(await holds()); await pause(25)) {
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`);
  }
}

/** One request as it is, without any client of ours. */
function post(target, url, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const req = https.request(url, { method: "POST", ca: target.tls.cert, agent: false, headers: { "Content-Type": "application/json", ...headers } }, (res) => {
      const pieces = [];
      res.on("data", (piece) => pieces.push(piece));
      res.on("end", () => {
        const text = Buffer.concat(pieces).toString();
        resolve({ status: res.statusCode, headers: res.headers, text, body: text && JSON.parse(text) });
      });
    });
    req.on("error", reject);
    req.end(body);
  });
}

module.exports = { MOUNT, SECRET, folder, certificate, provider, post, unavailable, pause, until };
