// An answer that is cut at every byte; a thousand calls at once; sockets of somebody else; what objects show of themselves.
"use strict";

const assert = require("node:assert/strict");
const { execFileSync, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const util = require("node:util");
const { Agent } = require("../..");
const { World } = require("./world");

/** How long the answer `ok` of a scripted server is, and how much of that is its head. */
const ANSWER_BYTES = 46;
const HEAD_BYTES = 44;
const ROUTES = [{ audience: "{A}", tools: ["search"] }];

async function opened(t, servers, more = {}) {
  const world = new World();
  t.after(() => world.end());
  const places = await world.open({ servers, ...more });
  const agent = new Agent({ socket: places.agentSocket, authSocket: places.authSocket, routes: world.filled(ROUTES), timeout: 60_000 });
  t.after(() => agent.close());
  return { world, places, agent, url: `${places.servers.A}/x` };
}

const everyByte = Array.from({ length: ANSWER_BYTES + 1 }, (_, cut) => ({ cut }));

test("an answer that is cut at every byte: POST is sent once", async (t) => {
  const { world, agent, url } = await opened(t, { A: everyByte });
  for (const { cut } of everyByte) {
    const outcome = await agent.fetch(url, { method: "POST", body: "{}" }).then((r) => r.text()).catch((error) => error.code);
    assert.equal(outcome, cut < ANSWER_BYTES ? "OUTCOME_UNKNOWN" : "ok", `cut at ${cut}`);
    assert.equal((await world.counts()).servers.A.length, cut + 1, `cut at ${cut}: sent once`);
  }
  assert.deepEqual((await world.counts()).violations, []);
});

test("an answer that is cut at every byte: GET has it by a second token, or says that it is cut", async (t) => {
  const { world, agent, url } = await opened(t, { A: everyByte.flatMap((step) => (step.cut < HEAD_BYTES ? [step, {}] : [step])) });
  for (const { cut } of everyByte) {
    const outcome = await agent.fetch(url).then((r) => r.text()).catch((error) => error.code);
    assert.equal(outcome, cut < HEAD_BYTES || cut === ANSWER_BYTES ? "ok" : "OUTCOME_UNKNOWN", `cut at ${cut}`);
  }
  const { violations, servers, drawn } = await world.counts();
  assert.deepEqual(violations, []);
  assert.equal(servers.A.length, drawn.length);
});

test("a request that is cut while it is sent is not sent again", async (t) => {
  // At its beginning, within its head, and within a body that no buffer holds.
  const steps = [0, 1, 20, 60, 120, 300, 70_000, 1 << 20].map((cutRequest) => ({ cutRequest }));
  const { world, agent, url } = await opened(t, { A: [...steps, {}] });
  const post = (body) => agent.fetch(url, { method: "POST", body }).then((r) => r.text()).catch((error) => error.code);
  for (const [place, step] of steps.entries()) {
    assert.equal(await post(Buffer.alloc(8 << 20, "x")), "OUTCOME_UNKNOWN", JSON.stringify(step));
    assert.equal((await world.counts()).servers.A.length, place + 1, JSON.stringify(step));
  }
  assert.equal(await post("{}"), "ok", "control: what is not cut arrives");
  const { violations, drawn, servers } = await world.counts();
  assert.deepEqual([violations, drawn.length, servers.A.length], [[], steps.length + 1, steps.length + 1]);
});

test("calls one after the other share a connection, also after a refusal", async (t) => {
  const { world, agent, url } = await opened(t, { A: [{}, { status: 404, body: "no" }, { status: 204, body: "" }, { status: 503, problem: "UNAVAILABLE", headers: { "Retry-After": "0" } }, {}] });
  for (let call = 0; call < 20; call += 1) await (await agent.fetch(url, { method: "POST", body: "{}" })).text();
  const { violations, servers, connections } = await world.counts();
  assert.deepEqual([violations, servers.A.length, connections.A], [[], 21, 1]);
});

test("control: a server that ends each connection is connected to each time", async (t) => {
  const { world, agent, url } = await opened(t, { A: [{ headers: { Connection: "close" }, close: true }] });
  for (let call = 0; call < 5; call += 1) await (await agent.fetch(url, { method: "POST", body: "{}" })).text();
  assert.deepEqual((await world.counts()).connections, { A: 5 });
});

test("a thousand calls at once, each with a token of its own", async (t) => {
  const { world, agent, url } = await opened(t, { A: [] }, { tqs: { dequeueToken: [{ afterMs: 5 }] } });
  const bodies = await Promise.all(Array.from({ length: 1_000 }, () => agent.fetch(url).then((r) => r.text())));
  assert.ok(bodies.every((body) => body === "ok"));
  const { violations, drawn, servers } = await world.counts();
  assert.deepEqual(violations, []);
  assert.deepEqual([drawn.length, servers.A.length], [1_000, 1_000]);
});

test("the answers to a thousand calls go to who asked", async (t) => {
  const { agent } = await opened(t, {});
  const tools = Array.from({ length: 1_000 }, (_, number) => `tool-${number}`);
  const tokens = await Promise.all(tools.map((tool) => agent.dequeueToken(tool)));
  assert.deepEqual(tokens.map(({ tool }) => tool), tools);
});

test("a caller who gives up is heard, and the token that comes later goes nowhere", async (t) => {
  const { world, agent, url } = await opened(t, { A: [] }, { tqs: { dequeueToken: [{ afterMs: 300 }, {}] } });
  await assert.rejects(agent.fetch(url, { signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
  assert.equal(await (await agent.fetch(url)).text(), "ok");
  assert.equal((await world.counts()).servers.A.length, 1);
});

test("routes stay what they are while the authenticator is away", async (t) => {
  const routes = [[{ audience: "{A}", tools: ["search"] }]];
  const { world, places, url } = await opened(t, { A: [] }, { authenticator: { routes, authStatus: [{}, { awayMs: 60_000 }] } });
  const agent = new Agent({ socket: places.agentSocket, authSocket: places.authSocket });
  t.after(() => agent.close());
  const now = performance.now.bind(performance);
  let later = 0;
  t.mock.method(performance, "now", () => now() + later);
  for (let call = 0; call < 3; call += 1, later += 61_000) assert.equal(await (await agent.fetch(url, { timeout: 5_000 })).text(), "ok");
  assert.equal((await world.counts()).authenticator.authStatus, 2);
});

test("who has more time goes on waiting where who asked first gives up", async (t) => {
  const away = { error: { code: "UNAVAILABLE" } };
  const ensureAuthenticated = [{ ...away, afterMs: 400 }, ...Array.from({ length: 9 }, () => away), {}];
  const { world, places } = await opened(t, {}, { authenticator: { ensureAuthenticated } });
  const agent = new Agent({ socket: places.agentSocket, authSocket: places.authSocket, timeout: 1_000 });
  t.after(() => agent.close());
  const [first, second] = await Promise.allSettled([agent.ensureAuthenticated(), agent.ensureAuthenticated({ timeout: 60_000 })]);
  assert.deepEqual([first.reason?.code, second.value?.agentInstanceId], ["UNAVAILABLE", "agt_scripted"]);
  assert.deepEqual((await world.counts()).authenticator, { ensureAuthenticated: 11 }, "one of them asked at a time");
});

test("a socket of another user, or where others can put one, is not connected to", async (t) => {
  if (process.getuid() !== 0) return t.diagnostic("only root can give a file away");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "obol-trust-"));
  const socket = path.join(folder, "agent.sock");
  const server = net.createServer(() => assert.fail("it was connected to")).listen(socket);
  t.after(() => (server.close(), fs.rmSync(folder, { recursive: true })));
  await new Promise((ready) => server.once("listening", ready));
  const code = (options = {}) => new Agent({ socket, timeout: 300, environment: {}, ...options }).sessionInfo().catch((error) => error.code);
  fs.chownSync(socket, 54_321, 54_321);
  assert.equal(await code(), "UNTRUSTED_DAEMON");
  fs.chownSync(socket, 0, 0);
  fs.chmodSync(folder, 0o777);
  assert.equal(await code(), "UNTRUSTED_DAEMON");
  fs.chmodSync(folder, 0o700);
  const link = path.join(folder, "link.sock");
  fs.mkdirSync(path.join(folder, "open"), { mode: 0o777 });
  fs.chmodSync(path.join(folder, "open"), 0o777);
  fs.renameSync(socket, path.join(folder, "open/agent.sock"));
  fs.symlinkSync(path.join(folder, "open/agent.sock"), link);
  assert.equal(await code({ socket: link }), "UNTRUSTED_DAEMON");
  assert.equal(await code({ socket: folder }), "DAEMON_UNREACHABLE");
  assert.equal(await code({ socket: path.join(folder, "none.sock") }), "DAEMON_UNREACHABLE");
});

test("the user who is named may serve", async (t) => {
  if (process.getuid() !== 0) return t.diagnostic("only root can give a file away");
  const { places } = await opened(t, {});
  fs.chownSync(places.agentSocket, 54_321, 54_321);
  await assert.rejects(new Agent({ socket: places.agentSocket }).sessionInfo(), { code: "UNTRUSTED_DAEMON" });
  const agent = new Agent({ socket: places.agentSocket, environment: { OBOL_ENDPOINT_USER: "54321" } });
  assert.equal((await agent.sessionInfo()).agentInstanceId, "agt_scripted");
  await agent.close();
});

test("neither a token nor an agent shows anything of itself", async (t) => {
  const { agent, world, url } = await opened(t, { A: [] }, { tqs: { dequeueToken: [{ token: { pop: true, channel: "AES-256-GCM" } }] } });
  const token = await agent.dequeueToken("search");
  const secrets = [token.reveal(), token.proof(), ...Object.values(token.channel()).slice(1)];
  await agent.fetch(url, { method: "POST", body: "{}" }).catch(() => {});
  const deep = { depth: 20, showHidden: true, getters: true };
  const texts = [token, agent, { token }, [token]].flatMap((value) => [
    String(value), JSON.stringify(value), util.inspect(value, deep), util.format("%s %o %O %j", value, value, value, value), `${Object.entries(value)}`,
  ]);
  for (const text of texts) for (const secret of secrets) assert.ok(!text.includes(secret), text);
  assert.deepEqual((await world.counts()).violations, []);
});

test("an idle agent does not keep a process alive, and nothing is written", async (t) => {
  const { places, url } = await opened(t, { A: [] });
  const script = `const { Agent } = require(${JSON.stringify(path.join(__dirname, "../.."))});
    new Agent({ routes: [{ audience: "${places.servers.A}", tools: ["search"] }] }).fetch("${url}").then((r) => r.text());`;
  const env = { ...process.env, OBOL_ENDPOINT_SOCKET: `unix://${places.agentSocket}`, NODE_DEBUG: "" };
  const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", script], { env, timeout: 20_000, encoding: "utf8" });
  assert.deepEqual([status, stdout, stderr], [0, "", ""]);
});

test("fifty processes on one sidecar", async (t) => {
  const { world, places, url } = await opened(t, { A: [] });
  const script = path.join(__dirname, "caller.js");
  const { spawn } = require("node:child_process");
  const env = { ...process.env, OBOL_ENDPOINT_SOCKET: places.agentSocket };
  const ends = Array.from({ length: 50 }, () => new Promise((end) => spawn(process.execPath, [script, places.servers.A, url], { env }).once("exit", end)));
  assert.ok((await Promise.all(ends)).every((code) => code === 0));
  const { violations, servers } = await world.counts();
  assert.deepEqual([violations, servers.A.length], [[], 100]);
});

test("no proxy of the environment sees a request", async (t) => {
  const { world, places, url } = await opened(t, { A: [], B: [] });
  const script = path.join(__dirname, "caller.js");
  const proxies = Object.fromEntries(["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].flatMap((name) => [[name, places.servers.B], [name.toLowerCase(), places.servers.B]]));
  const env = { ...process.env, ...proxies, NODE_USE_ENV_PROXY: "1", NO_PROXY: "", no_proxy: "", OBOL_ENDPOINT_SOCKET: places.agentSocket };
  execFileSync(process.execPath, [script, places.servers.A, url], { env });
  const { servers, violations } = await world.counts();
  assert.deepEqual([servers.A.length, servers.B.length, violations], [2, 0, []]);
});

test("a process ends although a daemon owes it an answer", async (t) => {
  const { places } = await opened(t, {}, { tqs: { sessionInfo: [{ silent: true }] } });
  const script = `const { Agent } = require(${JSON.stringify(path.join(__dirname, "../.."))});
    new Agent({ timeout: 200 }).sessionInfo().catch(({ code }) => console.log(code));
    new Agent().sessionInfo({ signal: AbortSignal.timeout(100) }).catch(({ name }) => console.log(name));`;
  const env = { ...process.env, OBOL_ENDPOINT_SOCKET: places.agentSocket };
  const { status, stdout } = spawnSync(process.execPath, ["-e", script], { env, timeout: 10_000, encoding: "utf8" });
  assert.deepEqual([status, stdout], [0, "TimeoutError\nTIMEOUT\n"]);
});

test("who gives up gives up the body as well, with the reason that they gave", async (t) => {
  const { agent, url } = await opened(t, { A: [{ body: "0123456789", dripMs: 100 }] });
  const given = new AbortController();
  const response = await agent.fetch(url, { signal: given.signal });
  const reason = new Error("enough");
  setTimeout(() => given.abort(reason), 50);
  await assert.rejects(response.text(), reason);
  const before = new AbortController();
  before.abort(reason);
  await assert.rejects(agent.fetch(url, { signal: before.signal }), reason);
});

test("bodies and requests in every form that the platform takes", async (t) => {
  const { world, agent, url } = await opened(t, { A: [] });
  const form = new FormData();
  form.set("a", "b");
  const bodies = ["a=b", new URLSearchParams({ a: "b" }), form, new Blob(["a=b"], { type: "text/x" }), Buffer.from("a=b"), new Uint8Array([97]).buffer, new DataView(new ArrayBuffer(2)), new Blob(["a"]).stream()];
  for (const body of bodies) await agent.fetch(url, { method: "POST", body, duplex: "half" });
  await agent.fetch(new Request(url, { method: "PUT", body: "a=b", headers: [["X-A", "1"]] }));
  await agent.fetch(new URL(url), { headers: new Headers({ "x-a": "1" }) });
  await agent.fetch({ url, method: "DELETE", headers: { "x-a": "1" }, arrayBuffer() {} });
  await agent.fetch(url, null);
  const seen = (await world.counts()).servers.A.map(({ method, headers, body }) => [method, (headers["content-type"] ?? headers["x-a"] ?? "-").split(";")[0], body.slice(0, 3)]);
  assert.deepEqual(seen, [
    ["POST", "text/plain", "a=b"], ["POST", "application/x-www-form-urlencoded", "a=b"], ["POST", "multipart/form-data", "---"], ["POST", "text/x", "a=b"],
    ["POST", "-", "a=b"], ["POST", "-", "a"], ["POST", "-", "\0\0"], ["POST", "-", "a"],
    ["PUT", "text/plain", "a=b"], ["GET", "1", ""], ["DELETE", "1", ""], ["GET", "-", ""],
  ]);
  for (const body of [{ a: 1 }, [1], Object.create(null)]) await assert.rejects(agent.fetch(url, { method: "POST", body }), { code: "INVALID_ARGUMENT", message: /JSON\.stringify/ });
  await assert.rejects(agent.dequeueToken("search", { arguments: { n: 2 ** 60 } }), { code: "INVALID_ARGUMENT" });
  assert.equal((await world.counts()).drawn.length, seen.length, "nothing was drawn for what cannot be sent");
});

test("require and import give the same, from a clone", () => {
  const root = path.join(__dirname, "../..");
  const byImport = `import { Agent } from ${JSON.stringify(path.join(root, "lib/index.mjs"))}; console.log(typeof Agent.prototype.fetch)`;
  const text = execFileSync(process.execPath, ["--input-type=module", "-e", byImport], { encoding: "utf8" });
  assert.equal(text, "function\n");
  assert.equal(require(root).Agent, Agent);
});

test("a POST without a body says that it has none", async (t) => {
  const { world, agent, url } = await opened(t, { A: [] });
  await agent.fetch(url, { method: "POST" });
  assert.equal((await world.counts()).servers.A[0].headers["content-length"], "0");
});
