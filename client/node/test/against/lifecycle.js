// A token's life across the two languages: each agent refreshes at the other's provider, and both share the Secret Service. Run by the
// Rust harness; OBOL is the binary.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { execFile, spawn } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { createClient } = require("../../lib/agent-tokens");
const { SECRET, folder, provider, until } = require("../world");
const { serve } = require("./serve");

process.on("warning", () => {});

/** A home with the secret and the settings of an agent in Rust. */
function homeOf(target, more = "") {
  const home = folder();
  fs.chmodSync(home, 0o700);
  fs.writeFileSync(path.join(home, "secret"), `${SECRET}\n`, { mode: 0o600 });
  fs.writeFileSync(path.join(home, "obol.toml"), `[atp]\nca_file = ${JSON.stringify(target.tls.file)}\nallow_private = [${JSON.stringify(target.host)}]\n${more}`);
  return home;
}

const withFile = (home) => `secret_file = ${JSON.stringify(path.join(home, "secret"))}\n`;

test("the agent in JavaScript refreshes ahead of the end at the provider in Rust, and goes on after a restart", async () => {
  const target = await serve({ shared: [{ secret: SECRET }] }, ["--ttl", "8"]);
  const home = homeOf(target);
  const options = { stateDir: path.join(home, "state"), secretFile: path.join(home, "secret"), keychain: "file", caFile: target.tls.file, allowPrivate: [target.host] };
  const issued = async () => Number(/obol_atp_requests_total\{route="issue",code="ok"\} (\d+)/.exec(await target.metrics())?.[1] ?? 0);
  const first = createClient(options);
  const { expires_at } = await first.ensureToken(target.host, { scopes: ["read"] });
  await until("it is refreshed", async () => (await issued()) === 2);
  assert.ok(Date.now() < expires_at, "ahead of its end");
  await target.killAndStart();
  const failed = await issued();
  await until("also after a provider that was away", async () => (await issued()) > failed);
  first.close();
  const second = createClient(options);
  await second.resume();
  const before = await issued();
  await until("and after a restart", async () => (await issued()) > before);
  second.close();
  await target.close();
});

test("the agent in Rust refreshes ahead of the end at the provider in JavaScript, and goes on after an outage", async () => {
  const target = await provider({ tokenTTL: 4 });
  const home = homeOf(target);
  fs.appendFileSync(path.join(home, "obol.toml"), `keychain = "file"\n${withFile(home)}`);
  const args = ["--config", path.join(home, "obol.toml"), "atp"];
  const env = { HOME: home };
  const issued = () => target.requests.filter((line) => line === "POST /v1/agent-tokens").length;
  await new Promise((resolve, reject) => {
    execFile(process.env.OBOL, [...args, "request", target.host, "--scope", "read"], { env }, (error, stdout, stderr) => (error ? reject(new Error(stderr)) : resolve(stdout)));
  });
  assert.equal(issued(), 1);
  const refresher = spawn(process.env.OBOL, [...args, "refresh"], { env, stdio: "ignore" });
  await until("it is refreshed, and again", () => issued() >= 3);
  target.outage = (req, res) => Boolean(res.writeHead(503).end());
  const before = issued();
  await until("it is tried", () => issued() > before);
  target.outage = undefined;
  const after = issued();
  await until("and works again", () => issued() > after + 1);
  refresher.kill("SIGTERM");
  await once(refresher, "exit");
  await target.close();
});

/** Runs a script of this folder under a session bus with an unlocked gnome-keyring of its own; what it prints. */
function inSession(home, script, env) {
  const run = path.join(home, "run");
  fs.mkdirSync(run, { mode: 0o700 });
  const line = 'echo -n unlocked | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1\nexec "$NODE" "$SCRIPT"';
  const all = { HOME: home, XDG_RUNTIME_DIR: run, XDG_DATA_HOME: path.join(home, "data"), PATH: process.env.PATH, NODE: process.execPath, SCRIPT: path.join(__dirname, script), OBOL: process.env.OBOL, ...env };
  return new Promise((resolve, reject) => {
    execFile("dbus-run-session", ["--", "bash", "-euo", "pipefail", "-c", line], { env: all, timeout: 100_000 }, (error, stdout, stderr) => (error ? reject(new Error(`${error.message}\n${stdout}${stderr}`)) : resolve(JSON.parse(stdout))));
  });
}

test("the Secret Service keeps tokens and secrets for both agents, and headless sealed files do", async () => {
  const target = await serve({ shared: [{ secret: SECRET }] });
  const home = homeOf(target);
  const env = { HOST: target.host, CA: target.tls.file, SECRET, CONFIG: path.join(home, "obol.toml"), STATE: path.join(home, "state") };
  const found = await inSession(home, "session.js", env);
  assert.deepEqual(found.stored, ["secret-service", "secret-service"]);
  assert.equal(found.looked_up, found.first, "where other clients look for it");
  assert.deepEqual([found.again, found.rust], [found.first, found.first], "the next process and the other agent find it");
  assert.notEqual(found.rust_new, found.first);
  assert.equal(found.from_rust, found.rust_new, "and the other way round");
  assert.notEqual(found.script_new, found.rust_new);
  assert.equal(found.rust_again, found.script_new);
  assert.deepEqual([found.revoked, found.left], [{ revoked: true, remote: true }, null]);
  assert.equal(found.valid, false);
  const files = fs.readdirSync(env.STATE).map((name) => fs.readFileSync(path.join(env.STATE, name), "latin1"));
  assert.ok(files.length > 0 && files.every((text) => !text.includes(found.first) && !text.includes(found.script_new)), "not in a file");

  // Control: the same without a session bus.
  const options = { stateDir: folder(), secretFile: path.join(home, "secret"), caFile: target.tls.file, allowPrivate: [target.host] };
  const bus = process.env.DBUS_SESSION_BUS_ADDRESS;
  delete process.env.DBUS_SESSION_BUS_ADDRESS;
  try {
    const headless = createClient(options);
    assert.equal((await headless.requestToken(target.host, { scopes: ["read"] })).stored_in, "file");
    headless.close();
    const wanted = createClient({ ...options, keychain: "secret-service" });
    await assert.rejects(wanted.requestToken(target.host, { scopes: ["read"] }), { code: "Keychain" }, "what was asked for by name is not replaced");
  } finally {
    if (bus !== undefined) process.env.DBUS_SESSION_BUS_ADDRESS = bus;
  }
  await target.close();
});
