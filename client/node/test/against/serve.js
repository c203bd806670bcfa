// `obol atp serve` as a process with TLS, for tests that speak to it from outside. OBOL is the binary.
"use strict";

const { execFileSync, spawn } = require("node:child_process");
const { createHash, randomInt } = require("node:crypto");
const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const { certificate, folder } = require("../world");

const MASTER = "the long-lived credential of the build server";

/** A port that nothing listens on, below those that the kernel gives to outgoing connections, one of which could take it meanwhile. */
const freePort = () =>
  new Promise((resolve) => {
    const port = randomInt(20_000, 32_000);
    const server = net.createServer().listen(port, "127.0.0.1", () => server.close(() => resolve(port)));
    server.once("error", () => resolve(freePort()));
  });

/** Starts one; `secrets` are the rows of its file. */
async function serve(secrets, more = []) {
  const dir = folder();
  const tls = certificate(dir);
  fs.chmodSync(path.join(dir, "key.pem"), 0o600);
  fs.chmodSync(dir, 0o700);
  const secretsFile = path.join(dir, "secrets.json");
  const write = (rows) => fs.writeFileSync(secretsFile, JSON.stringify({ obol_atp: 1, ...rows }), { mode: 0o600 });
  write(secrets);
  const [port, probePort] = [await freePort(), await freePort()];
  const host = `localhost:${port}`;
  const url = `https://${host}/v1/agent-tokens`;
  const args = ["atp", "serve", "--url", url, "--listen", `127.0.0.1:${port}`, "--http", `127.0.0.1:${probePort}`, "--secrets", secretsFile,
    "--scope", "read", "--scope", "write", "--tls-cert", tls.file, "--tls-key", path.join(dir, "key.pem"), "--store", path.join(dir, "tokens.redb"),
    "--key", path.join(dir, "atp.key"), "--spent", path.join(dir, "spent.redb"), "--audit-log", path.join(dir, "audit.jsonl"),
    "--audit-key", path.join(dir, "audit.key"), ...more];
  const env = { HOME: dir, PATH: process.env.PATH, OBOL_ATP_SERVE__AGENT_RATE: "0", OBOL_ATP_SERVE__ADDRESS_RATE: "0" };
  let child;
  let log = "";
  const start = async (first = []) => {
    child = spawn(process.env.OBOL, [...args, ...first], { env, stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.on("data", (text) => (log += text));
    for (let tries = 0; ; tries += 1) {
      const answer = await fetch(`http://127.0.0.1:${probePort}/readyz`).catch(() => undefined);
      if (answer?.status === 200) return;
      if (tries > 1500 || child.exitCode !== null) throw new Error(`not ready: ${log}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  };
  const end = (signal) => new Promise((done) => (child.once("exit", done), child.kill(signal)));
  await start(["--first-start"]);
  return {
    host, url, tls, dir, write,
    log: () => log,
    reload: async (rows) => {
      const before = log.split("secrets read again").length;
      write(rows);
      child.kill("SIGHUP");
      while (log.split("secrets read again").length === before) await new Promise((done) => setTimeout(done, 20));
    },
    metrics: async () => (await fetch(`http://127.0.0.1:${probePort}/metrics`)).text(),
    killAndStart: async () => (await end("SIGKILL"), start()),
    close: () => end("SIGTERM"),
    audit: () => execFileSync(process.env.OBOL, ["audit", "verify", path.join(dir, "audit.jsonl"), "--key", path.join(dir, "audit.key"), "--json"], { env }).toString(),
  };
}

const master = (name, credential = MASTER, more = {}) => ({ name, sha256: createHash("sha256").update(credential).digest("hex"), scopes: ["read", "write"], default_scopes: ["read"], ...more });

module.exports = { serve, master, MASTER };
