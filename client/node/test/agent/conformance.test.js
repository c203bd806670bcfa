// The rule book's cases (tests/vectors/sdk), against scripted daemons and servers that count.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const util = require("node:util");
const { Agent, AgentError } = require("../..");
const { findDestination, readRoutes, unknownDestination } = require("../../lib/agent/destination");
const { readUrl, writeUrl } = require("../../lib/agent/url");
const { VECTORS, World } = require("./world");

const read = (name) => JSON.parse(fs.readFileSync(path.join(VECTORS, "sdk", name), "utf8"));
const CODES = new Set(read("errors.json").map(({ code }) => code));
const ONLY = process.env.ONLY;

function destination(routes, { method = "GET", url, tool, audience }) {
  const parsed = readUrl(url);
  const found = findDestination(readRoutes(routes, { strict: false }), { method, url: parsed, tool, audience });
  if (!found) throw unknownDestination(parsed);
  return { url: writeUrl(found.send), audience: found.audience, tool: found.tool };
}

test("destinations", () => {
  let cases = 0;
  for (const group of read("destinations.json")) {
    for (const one of group.cases) {
      const name = `${group.what} ${one.method ?? "GET"} ${JSON.stringify(one.url)}`;
      cases += 1;
      if (one.to) assert.deepEqual(destination(group.routes, one), one.to, name);
      else assert.throws(() => destination(group.routes, one), { code: one.error }, name);
    }
  }
  assert.ok(cases > 100);
});

/** No text that somebody may come to read shows a token. */
function assertSilent(value, name) {
  const seen = [String(value), util.inspect(value, { depth: 9, showHidden: true }), JSON.stringify(value) ?? "", value?.stack ?? "", util.format("%o", value)];
  for (const text of seen) assert.ok(!text.includes("tok_"), `${name}: a token in ${text.slice(0, 200)}`);
}

function asking(approval) {
  if (typeof approval !== "object") return approval;
  const { timeoutMs, ...more } = approval;
  return { onPrompt: () => {}, ...more, ...(timeoutMs && { timeout: timeoutMs }) };
}

function init({ url, body, stream, timeoutMs, approval, ...options }) {
  const pieces = async function* () {
    yield Buffer.from(body.slice(0, 3));
    yield Buffer.from(body.slice(3));
  };
  return { ...options, approval: asking(approval), timeout: timeoutMs, body: stream ? pieces() : body, ...(stream ? { duplex: "half" } : {}) };
}

async function perform(agent, call) {
  const [[kind, options]] = Object.entries(call);
  if (kind === "fetch") return agent.fetch(options.url, init(options));
  if (kind === "dequeueToken") return agent.dequeueToken(options.tool, options);
  if (kind === "requestApproval") {
    const { calls, lifetimeSeconds, ...more } = options;
    return agent.requestApproval(calls, { ...asking(more), ...(lifetimeSeconds && { lifetime: lifetimeSeconds * 1000 }) });
  }
  if (kind === "register") return agent.register({ onPrompt: () => {}, ...options });
  return agent[kind](options);
}

async function check(expect, outcome, name, echoes) {
  const { value, error } = await outcome;
  if (error) assertSilent(error, name);
  if (expect.error) {
    assert.ok(error, `${name}: ${expect.error} was expected, not ${value?.status}`);
    assert.equal(error.code, expect.error, `${name}: ${error.stack}`);
    assert.ok(error instanceof AgentError && CODES.has(error.code) && error.message.length > 5, name);
    return;
  }
  assert.ok(!error, `${name}: ${error?.code} ${error?.stack}`);
  if (expect.status !== undefined) {
    assert.ok(value instanceof Response);
    assert.equal(value.status, expect.status, name);
    // What a server gives back is the caller's, in the platform's own object.
    if (!echoes) assertSilent(value, name);
  }
  if (expect.bodyError) await assert.rejects(value.text(), { code: expect.bodyError }, name);
  if (expect.body !== undefined) assert.equal(await value.text(), expect.body, name);
  for (const [member, wanted] of Object.entries(expect.result ?? {})) assert.deepEqual(value[member], wanted, `${name}: ${member}`);
}

function checkCounts(one, counts, name, { told, asked }) {
  assert.deepEqual(counts.violations, [], name);
  if (one.drawn !== undefined) assert.equal(counts.drawn.length, one.drawn, `${name}: drawn`);
  for (const [server, requests] of Object.entries(counts.servers)) {
    assert.equal(requests.length, one.servers?.[server] ?? 0, `${name}: requests at ${server}`);
    (one.seen?.[server] ?? []).forEach((wanted, place) => {
      for (const [member, value] of Object.entries(wanted)) {
        if (member === "headers") for (const [header, text] of Object.entries(value)) assert.equal(requests[place].headers[header], text, `${name}: ${header}`);
        else assert.deepEqual(requests[place][member], value, `${name}: ${member} of request ${place}`);
      }
    });
  }
  for (const [method, times] of Object.entries(one.authenticator ?? {})) assert.equal(counts.authenticator[method] ?? 0, times, `${name}: ${method}`);
  for (const [method, times] of Object.entries(one.tqs ?? {})) assert.equal(counts.tqs[method] ?? 0, times, `${name}: ${method}`);
  if (one.approvalIds) assert.deepEqual(counts.drawn.map(({ approvalId }) => approvalId ?? null), one.approvalIds, `${name}: approvalIds`);
  if (asked) assert.deepEqual(counts.asked, asked, `${name}: asked`);
  if (told) assert.deepEqual(counts.told, told, `${name}: told`);
  if (one.popFor) assert.deepEqual(counts.drawn.map(({ popFor }) => popFor ?? null), one.popFor, `${name}: popFor`);
}

async function run(world, one) {
  const name = one.what;
  const places = await world.open(one.world);
  const options = { ...world.filled(one.options ?? {}), socket: places.agentSocket, authSocket: places.authSocket };
  const agent = new Agent(options);
  const call = world.filled(one.call);
  const began = performance.now();
  const settled = Array.from({ length: one.together ?? 1 }, () =>
    perform(agent, call).then((value) => ({ value }), (error) => ({ error })),
  );
  for (const outcome of settled) await check(one.expect, outcome, name, JSON.stringify(one.world).includes("{token}"));
  const took = performance.now() - began;
  if (one.atLeastMs) assert.ok(took >= one.atLeastMs, `${name}: ${took} ms`);
  if (one.withinMs) assert.ok(took <= one.withinMs, `${name}: ${took} ms`);
  const [told, asked] = [one.told, one.asked].map((list) => list && world.filled(list));
  checkCounts(one, await world.close(), name, { told, asked });
  assertSilent(agent, name);
  await agent.close();
}

for (const file of ["calls.json", "approvals.json", "attacks.json"]) {
  test(file, async (t) => {
    const world = new World();
    t.after(() => world.end());
    const cases = read(file).filter(({ what }) => !ONLY || what.includes(ONLY));
    for (const one of cases) await t.test(one.what, () => run(world, one));
  });
}
