// Calls of all kinds to the API at BASE, then one after another until its input ends; says how many these were.
"use strict";

const assert = require("node:assert/strict");
const { Agent } = require("../../..");

const { BASE: url, AUDIENCE: audience } = process.env;
const agent = new Agent({ routes: [{ audience, url, tools: ["list", "sign", "seal"] }] });

const posted = (tool, value) =>
  agent.fetch(`${url}/v1/${tool}`, { method: "POST", tool, body: JSON.stringify(value), headers: { "content-type": "application/json" } });

async function echoes(tool, value) {
  const response = await posted(tool, value);
  const text = await response.text();
  assert.equal(response.status, 200, `${tool}: ${text}`);
  assert.deepEqual(JSON.parse(text), { got: value });
}

async function list() {
  const response = await agent.fetch(`${url}/v1/list`, { tool: "list" });
  assert.equal(await response.text(), "listed");
}

(async () => {
  await echoes("sign", { to: "ann", amount: 5.5, note: "\u{1f4b6} ü", nested: [{ b: 1, a: null }] });
  await echoes("sign", {});
  await echoes("seal", { q: "rows of march" });
  let ended = false;
  process.stdin.resume().on("end", () => (ended = true));
  process.stdout.write("ready\n");
  let calls = 0;
  for (; !ended; calls += 1) await list();
  const status = await agent.tokenStatus("list");
  assert.ok(status.sessionActive && status.queueDepth >= 0);
  assert.equal((await agent.sessionInfo()).agentInstanceId, "agent-1");
  assert.ok("seal" in (await agent.tokenStatus()).tools);
  process.stdout.write(`${calls}\n`);
  await agent.close();
})();
