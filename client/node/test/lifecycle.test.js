// A token's life at the agent: who asks at the same moment, what an outage does, what a restart does, and how it ends.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { fork } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { createClient } = require("../lib/agent-tokens");
const { pause: pauseOf } = require("../lib/atp/backoff");
const { dueAt, isAlive, entryOf } = require("../lib/atp/entry");
const { SealedFiles } = require("../lib/atp/keychain");
const { Revocations } = require("../lib/atp/revocations");
const { State } = require("../lib/atp/state");
const { SECRET, folder, provider, unavailable, pause, until } = require("./world");

process.on("warning", () => {});

const ISSUE = "POST /v1/agent-tokens";
const REVOKE = `${ISSUE}/revoke`;
const countOf = (target, line) => target.requests.filter((one) => one === line).length;

function clientOf(target, more = {}) {
  const { stateDir } = (more = { stateDir: folder(), ...more });
  const secretFile = path.join(stateDir, "secret");
  fs.writeFileSync(secretFile, `${SECRET}\n`, { mode: 0o600 });
  return createClient({ secretFile, keychain: "file", caFile: target.tls.file, allowPrivate: [target.host], ...more });
}

const isValid = async (client, target, token) => (await client.verifyToken(token, target.host)).valid;

test("callers who want different things at the same moment each get theirs", async () => {
  const target = await provider();
  const client = clientOf(target);
  const wants = [["read"], ["write"], ["read", "write"], ["read"], ["write"]];
  for (const ask of ["ensureToken", "requestToken"]) {
    const tokens = await Promise.all(wants.map((scopes) => client[ask](target.host, { scopes })));
    tokens.forEach((token, n) => {
      for (const scope of wants[n]) assert.ok(token.scopes_granted.includes(scope), `${ask}: ${wants[n]} got ${token.scopes_granted}`);
    });
  }
  // Control: who wants the same gets the same, by one request.
  await client.revokeToken(target.host);
  const before = countOf(target, ISSUE);
  const same = await Promise.all(Array.from({ length: 20 }, () => client.ensureToken(target.host, { scopes: ["read"] })));
  assert.equal(new Set(same.map((token) => token.access_token)).size, 1);
  assert.equal(countOf(target, ISSUE), before + 1);
  client.close();
  await target.close();
});

test("who waited for a failure shares it, and who wants something else does not", async () => {
  const target = await provider();
  const client = clientOf(target);
  const ask = (scopes) => client.ensureToken(target.host, { scopes });
  const outcomes = await Promise.allSettled([...Array.from({ length: 20 }, () => ask(["admin"])), ask(["read"])]);
  assert.ok(outcomes.slice(0, 20).every(({ reason }) => reason?.error === "invalid_scope"));
  assert.deepEqual(outcomes[20].value?.scopes_granted, ["read"], String(outcomes[20].reason));
  assert.equal(countOf(target, ISSUE), 2);
  client.close();
  await target.close();
});

test("while the provider cannot answer the kept token is handed out, as long as it lives and no longer", async () => {
  const target = await provider({ tokenTTL: 60 });
  const stateDir = folder();
  let ahead = 0;
  const now = () => Date.now() + ahead;
  const client = clientOf(target, { stateDir, now });
  const first = await client.requestToken(target.host, { scopes: ["read"] });
  target.outage = unavailable;
  ahead = 50_000;
  const begin = target.requests.length;
  for (let n = 0; n < 40; n += 1) {
    assert.equal((await client.ensureToken(target.host, { scopes: ["read"] })).access_token, first.access_token, "it is due, and lives");
  }
  assert.ok(target.requests.length - begin >= 1, "it was asked");
  assert.ok(target.requests.length - begin <= 10, `forty callers made ${target.requests.length - begin} requests: it is left alone for a while`);
  assert.ok(client.status()[target.host].failures > 0);
  await assert.rejects(client.ensureToken(target.host, { scopes: ["write"] }), { code: "Unavailable" }, "it does not cover that");
  await assert.rejects(client.requestToken(target.host, { scopes: ["read"] }), { code: "Unavailable" }, "a new one was wanted");
  ahead = 60_000;
  await assert.rejects(client.ensureToken(target.host, { scopes: ["read"] }), { code: "Unavailable" }, "it is over");
  target.outage = undefined;
  const next = await client.ensureToken(target.host, { scopes: ["read"] });
  assert.notEqual(next.access_token, first.access_token);
  assert.equal(client.status()[target.host].failures, 0);
  client.close();
  await target.close();
});

test("a document that cannot be fetched is an outage too, and a no is not", async () => {
  const target = await provider({ tokenTTL: 3600 });
  const stateDir = folder();
  const first = await clientOf(target, { stateDir }).requestToken(target.host, { scopes: ["read"] });
  target.outage = unavailable;
  const later = clientOf(target, { stateDir, now: () => Date.now() + 3_500_000 });
  assert.equal((await later.ensureToken(target.host, { scopes: ["read"] })).access_token, first.access_token);
  target.outage = undefined;
  target.restart({ secret: "another secret, that is long enough too" });
  const refused = clientOf(target, { stateDir });
  await assert.rejects(refused.requestToken(target.host, { scopes: ["read"] }), { code: "Refused", error: "invalid_signature" });
  later.close();
  refused.close();
  await target.close();
});

test("it is refreshed by itself after an outage, and a provider that says no is not asked again", async () => {
  const target = await provider({ tokenTTL: 2 });
  const client = clientOf(target);
  await client.ensureToken(target.host, { scopes: ["read"] });
  target.outage = unavailable;
  await until("it fails", () => client.status()[target.host].failures > 1);
  target.outage = undefined;
  const before = countOf(target, ISSUE);
  await until("it tries again", () => countOf(target, ISSUE) > before);
  await until("it is well", () => client.status()[target.host].failures === 0);
  target.restart({ secret: "another secret, that is long enough too" });
  await until("it ended", () => client.status()[target.host].ended === "invalid_signature");
  const asked = target.requests.length;
  await pause(2_500);
  assert.equal(target.requests.length, asked);
  target.restart();
  await client.ensureToken(target.host, { scopes: ["read"] });
  const issued = countOf(target, ISSUE);
  await until("a request by hand begins it anew", () => countOf(target, ISSUE) > issued);
  client.close();
  await target.close();
});

test("every revocation that did not get through is delivered before the next request", async () => {
  const target = await provider();
  const stateDir = folder();
  const client = clientOf(target, { stateDir });
  const tokens = [];
  // Only revocations do not get through.
  target.outage = (req, res) => req.url.endsWith("/revoke") && unavailable(req, res);
  for (let n = 0; n < 3; n += 1) {
    tokens.push((await client.requestToken(target.host, { scopes: ["read"] })).access_token);
    assert.deepEqual(await client.revokeToken(target.host), { revoked: true, remote: false });
    assert.equal(client.status()[target.host].to_be_revoked, true);
  }
  client.close();
  target.outage = undefined;
  const next = clientOf(target, { stateDir });
  for (const token of tokens) assert.equal(await isValid(next, target, token), true, "control");
  const last = await next.requestToken(target.host, { scopes: ["read"] });
  for (const token of tokens) assert.equal(await isValid(next, target, token), false);
  assert.equal(await isValid(next, target, last.access_token), true, "control");
  assert.equal(next.status()[target.host].to_be_revoked, undefined);
  next.close();
  await target.close();
});

test("revocations are delivered without any request: by resume, and by a clock", async () => {
  const target = await provider();
  const stateDir = folder();
  const before = clientOf(target, { stateDir });
  const tokens = [];
  target.outage = (req, res) => req.url.endsWith("/revoke") && unavailable(req, res);
  for (let n = 0; n < 3; n += 1) {
    tokens.push((await before.requestToken(target.host, { scopes: ["read"] })).access_token);
    await before.revokeToken(target.host);
  }
  before.close();
  const client = clientOf(target, { stateDir });
  for (const token of tokens) assert.equal(await isValid(client, target, token), true, "control");
  const tried = countOf(target, REVOKE);
  await client.resume();
  await until("it is tried", () => countOf(target, REVOKE) > tried);
  assert.equal(client.status()[target.host].to_be_revoked, true);
  target.outage = undefined;
  await until("all are over", () => client.status()[target.host] === undefined, 60_000);
  for (const token of tokens) assert.equal(await isValid(client, target, token), false);
  client.close();
  await target.close();
});

test("a revocation that is refused keeps no other from being delivered, and what has ended is forgotten", async () => {
  const state = new State(folder());
  const revocations = new Revocations(new SealedFiles(state.folder), state, () => 1_000);
  const tomb = (n, expires_at) => ({ access_token: `token ${n}`, expires_at });
  for (const [n, end] of [[1, 9_000], [2, 8_000], [3, 7_000], [4, 500]]) await revocations.bequeath("a.example", tomb(n, end));
  assert.deepEqual((await state.hosts()).revocations, ["a.example"]);
  const told = [];
  const tell = ({ access_token }) => {
    told.push(access_token);
    return access_token !== "token 1";
  };
  const { left } = await revocations.bury("a.example", tell);
  assert.deepEqual(told, ["token 1", "token 2", "token 3"]);
  assert.deepEqual(left, [tomb(1, 9_000)]);
  assert.deepEqual((await revocations.bury("a.example", () => true)).left, []);
  assert.deepEqual((await state.hosts()).revocations, []);
});

test("tombstones are bounded: what ends first makes room, and a few are sent in one go", async () => {
  const state = new State(folder());
  const revocations = new Revocations(new SealedFiles(state.folder), state, () => 0);
  for (let n = 1; n <= 70; n += 1) await revocations.bequeath("a.example", { access_token: `token ${n}`, expires_at: n });
  assert.deepEqual((await revocations.list("a.example")).map((entry) => entry.expires_at), Array.from({ length: 64 }, (_, n) => 70 - n));
  let told = 0;
  for (let rounds = 0; rounds < 13; rounds += 1) {
    const before = told;
    await revocations.bury("a.example", () => (told += 1) > 0);
    assert.ok(told - before <= 5);
  }
  assert.equal(told, 64);
  assert.deepEqual(await revocations.list("a.example"), []);
});

test("a grant wider than asked that cannot be given back is given back later", async () => {
  const target = await provider();
  const client = clientOf(target);
  await client.requestToken(target.host, { scopes: ["read", "write"] });
  const { access_token, id } = await client.ensureToken(target.host, { scopes: ["read"] });
  const wide = { token: access_token, expires_in: 3_600, scopes_granted: ["read", "write"], id };
  target.outage = (req, res) => (req.url.endsWith("/revoke") ? unavailable(req, res) : Boolean(res.end(JSON.stringify(wide))));
  await assert.rejects(client.requestToken(target.host, { scopes: ["read"] }), { code: "WiderGrant" });
  target.outage = undefined;
  assert.equal(await isValid(client, target, access_token), true, "control");
  await until("it is over", async () => !(await isValid(client, target, access_token)));
  client.close();
  await target.close();
});

/** A program of its own that has nothing but a home, a secret and trust in our certificate. */
function program(target, home, scopes = []) {
  const env = { HOME: home, PATH: process.env.PATH, NODE_EXTRA_CA_CERTS: target.tls.file, AGENTDOM_ATP_SECRET: SECRET, PORT: target.host.split(":")[1] };
  const execArgv = ["--require", path.join(__dirname, "internet.js")];
  return fork(path.join(__dirname, "resumed.js"), ["api.example.com", ...scopes], { env, execArgv, silent: true });
}

async function killed(child) {
  child.kill("SIGKILL");
  await once(child, "exit");
}

test("a program that is killed and started again goes on where it was, by the documented functions", async () => {
  const target = await provider({ tokenTTL: 4, url: "https://api.example.com/v1/agent-tokens" });
  const home = folder();
  const first = program(target, home, ["read"]);
  const [token] = await once(first, "message");
  await killed(first);
  assert.equal(countOf(target, ISSUE), 1);
  await pause(Math.max(0, token.expires_at - Date.now()));
  assert.equal(countOf(target, ISSUE), 1, "control: nobody refreshes it");
  const second = program(target, home);
  await until("it is refreshed after its end", () => countOf(target, ISSUE) === 2);
  await until("and again ahead of that", () => countOf(target, ISSUE) === 3);
  await killed(second);
  const third = program(target, home);
  await until("and by the next", () => countOf(target, ISSUE) > 3);
  await killed(third);
  await target.close();
});

test("a token that another process gave back is not asked for again", async () => {
  const target = await provider({ tokenTTL: 2 });
  const stateDir = folder();
  const [one, other] = [clientOf(target, { stateDir }), clientOf(target, { stateDir })];
  await one.ensureToken(target.host, { scopes: ["read"] });
  await other.revokeToken(target.host);
  const issued = countOf(target, ISSUE);
  await until("it stopped", () => one.status()[target.host] === undefined);
  assert.equal(countOf(target, ISSUE), issued);
  one.close();
  other.close();
  await target.close();
});

test("a refresh that waited while the token was given back asks for none", async () => {
  const target = await provider({ tokenTTL: 2 });
  const stateDir = folder();
  const client = clientOf(target, { stateDir });
  const { expires_at } = await client.ensureToken(target.host, { scopes: ["read"] });
  const state = new State(stateDir);
  // As another process that gives it back, and takes its time.
  await state.locked(target.host, async () => {
    await pause(expires_at + 300 - Date.now());
    await state.changeHosts(({ fresh }) => delete fresh[target.host]);
    await new SealedFiles(stateDir).delete(target.host);
  });
  await until("it stopped", () => client.status()[target.host] === undefined);
  assert.equal(countOf(target, ISSUE), 1);
  // Control: without that it asks.
  await client.ensureToken(target.host, { scopes: ["read"] });
  await state.locked(target.host, () => pause(2_300));
  await until("it is refreshed", () => countOf(target, ISSUE) >= 3);
  client.close();
  await target.close();
});

test("a token is due a fifth of its life or five minutes ahead, and not all at once", () => {
  for (const [ttl, lead] of [[3_600_000, 300_000], [100_000, 20_000]]) {
    const all = Array.from({ length: 200 }, (_, n) => ({ access_token: `token ${n}`, obtained_at: 1e7, expires_at: 1e7 + ttl }));
    const early = all.map((entry) => entry.expires_at - dueAt(entry));
    assert.ok(early.every((ms) => ms >= lead * 0.9 && ms <= lead * 1.1), String(early));
    assert.ok(Math.max(...early) - Math.min(...early) > lead / 10);
    for (const entry of all) assert.ok(isAlive(entry, dueAt(entry)) && !isAlive(entry, entry.expires_at));
  }
  assert.deepEqual([0, 1, 5, 6, 2_000].map((failures) => pauseOf(failures, 1)), [1_000, 2_000, 32_000, 60_000, 60_000]);
});

test("an answer without a true end is none", () => {
  const now = 1_767_225_600_000;
  const read = (body) => entryOf({ text: "https://a.example/t" }, body, now);
  assert.equal(read({ token: "t", expires_in: 60, scopes_granted: ["a"] }).expires_at, now + 60_000);
  assert.equal(read({ token: "t", expires_at: now + 60_000, scopes: ["a"] }).expires_at, now + 60_000);
  for (const bad of [
    {}, undefined, null, { token: "t", scopes: ["a"] }, { token: "t", expires_at: 1_767_225_660, scopes: ["a"] }, { token: "t", expires_in: 0, scopes: ["a"] },
    { token: "t", expires_in: 60 }, { token: "a b", expires_in: 60, scopes: ["a"] }, { token: "t\r\nx", expires_in: 60, scopes: ["a"] },
    { token: "t", expires_in: 1e300, scopes: ["a"] }, { token: "t", expires_in: "60", expires_at: now + 60_000, scopes: ["a"] },
  ]) assert.equal(read(bad), null, JSON.stringify(bad));
});
