// Locks between processes, and what a process that is killed leaves behind.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { execFileSync, fork } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { locked } = require("../lib/atp/lock");
const { createClient } = require("../lib/agent-tokens");
const { SECRET, folder, provider } = require("./world");

process.on("warning", () => {});

const start = (file, log, times) => fork(path.join(__dirname, "holder.js"), [file, log, String(times)]);

/** A lock that a killed process left behind. */
async function leftBehind(file) {
  const child = start(file, "", "hold");
  await once(child, "message");
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.ok(fs.existsSync(file), "it is still there");
}

test("a lock whose holder was killed is broken at once, and one whose holder lives is not", async () => {
  const file = path.join(folder(), "lock");
  await leftBehind(file);
  const begin = performance.now();
  assert.equal(await locked(file, async () => "mine"), "mine");
  assert.ok(performance.now() - begin < 5_000);
  const child = start(file, "", "hold");
  await once(child, "message");
  await assert.rejects(locked(file, async () => assert.fail("two at once"), 500), (error) => {
    assert.equal(error.code, "Locked");
    assert.ok(error.message.includes(String(child.pid)) && error.message.includes(file), error.message);
    return true;
  });
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.equal(await locked(file, async () => "mine"), "mine");
  assert.deepEqual(fs.readdirSync(path.dirname(file)), [], "nothing is left behind");
});

test("of many processes that break one lock, and take it again and again, one has it at a time", async () => {
  const dir = folder();
  const [file, log] = [path.join(dir, "lock"), path.join(dir, "log")];
  await leftBehind(file);
  const children = Array.from({ length: 8 }, () => start(file, log, 12));
  // Some are killed in the midst of it, wherever they are.
  const victims = Array.from({ length: 4 }, () => start(file, log, 1_000));
  for (const victim of victims) setTimeout(() => victim.kill("SIGKILL"), 300 + Math.random() * 700);
  const codes = await Promise.all(children.map(async (child) => (await once(child, "exit"))[0]));
  await Promise.all(victims.map((victim) => victim.exitCode ?? victim.signalCode ?? once(victim, "exit")));
  assert.deepEqual(codes, Array(8).fill(0));
  const dead = new Set(victims.map(({ pid }) => String(pid)));
  let [inside, entered] = [null, 0];
  for (const line of fs.readFileSync(log, "utf8").trim().split("\n")) {
    const [what, pid] = line.split(" ");
    if (what === "in") {
      assert.ok(inside === null || dead.has(inside), `${pid} came while ${inside} was inside`);
      [inside, entered] = [pid, entered + 1];
    } else {
      assert.equal(inside, pid);
      inside = null;
    }
  }
  assert.ok(entered >= 96, `${entered}`);
});

test("a lock of a process that cannot be looked at from here holds while it is touched, and no longer", async () => {
  const file = path.join(folder(), "lock");
  const foreign = JSON.stringify({ pid: 1, start: "1", place: `another ${os.hostname()}`, id: "x" });
  fs.writeFileSync(file, foreign);
  await assert.rejects(locked(file, async () => {}, 300), { code: "Locked" });
  const before = new Date(Date.now() - 31_000);
  fs.utimesSync(file, before, before);
  assert.equal(await locked(file, async () => "mine", 300), "mine");
});

test("a process that has the number of a dead one does not hold its lock", async () => {
  const file = path.join(folder(), "lock");
  const own = await locked(file, async () => fs.readFileSync(file, "utf8"));
  fs.writeFileSync(file, own);
  await assert.rejects(locked(file, async () => {}, 300), { code: "Locked" }, "control: this very process");
  fs.writeFileSync(file, JSON.stringify({ ...JSON.parse(own), start: "1" }));
  assert.equal(await locked(file, async () => "mine", 300), "mine");
});

test("a process that was killed while it asked for a token keeps nobody from asking", async () => {
  const target = await provider();
  const stateDir = folder();
  const options = { stateDir, keychain: "file", caFile: target.tls.file, allowPrivate: [target.host], secretFile: path.join(stateDir, "secret") };
  fs.writeFileSync(options.secretFile, SECRET, { mode: 0o600 });
  // Its request is never answered.
  const asked = new Promise((done) => (target.outage = (req) => req.method === "POST" && (done(), true)));
  const child = fork(path.join(__dirname, "ensure.js"), [JSON.stringify(options), target.host], { silent: true });
  await asked;
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.ok(fs.readdirSync(stateDir).some((name) => name.startsWith("lock-")), "it left its lock");
  target.outage = undefined;
  const client = createClient(options);
  const begin = performance.now();
  assert.ok((await client.ensureToken(target.host, { scopes: ["read"] })).access_token);
  assert.ok(performance.now() - begin < 5_000);
  assert.ok(!fs.readdirSync(stateDir).some((name) => name.startsWith("lock-")));
  client.close();
  await target.close();
});

test("state is kept below the home folder, and never where the program happens to run", () => {
  const home = folder();
  const kept = (XDG_STATE_HOME) => {
    const script = `console.log(new (require(${JSON.stringify(require.resolve("../lib/atp/state"))}).State)().folder)`;
    const env = { HOME: home, ...(XDG_STATE_HOME === undefined ? {} : { XDG_STATE_HOME }) };
    return execFileSync(process.execPath, ["-e", script], { cwd: os.tmpdir(), env, encoding: "utf8" }).trim();
  };
  const usual = path.join(home, ".local/state/obol/atp-node");
  for (const none of [undefined, "", "state", "./state"]) assert.equal(kept(none), usual, String(none));
  assert.equal(kept(path.join(home, "elsewhere")), path.join(home, "elsewhere/obol/atp-node"), "control");
});
