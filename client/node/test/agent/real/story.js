// Registers, authenticates, and calls the API at BASE one after another until its input ends; says how many these were.
"use strict";

const assert = require("node:assert/strict");
const { Agent } = require("../../..");

const { BASE: url, AUDIENCE: audience } = process.env;
const agent = new Agent({ routes: [{ audience, url, tools: ["search"] }] });
const say = (text) => process.stdout.write(`${text}\n`);

async function search() {
  const response = await agent.fetch(`${url}/search`, { method: "POST" });
  assert.equal(await response.text(), "found");
}

(async () => {
  const onPrompt = (prompt) => say(JSON.stringify(prompt));
  const { agentId, expiresAt } = await agent.register({ name: "builder", roles: ["dev"], onPrompt });
  assert.ok(Date.parse(expiresAt) > Date.now());
  assert.equal((await agent.register()).agentId, agentId, "an active identity returns at once");
  say(agentId);
  const sessions = await Promise.all(Array.from({ length: 50 }, () => agent.ensureAuthenticated()));
  assert.equal(new Set(sessions.map(({ sessionId }) => sessionId)).size, 1);
  assert.equal(sessions[0].agentInstanceId, agentId);
  assert.ok(Date.parse(sessions[0].establishedAt) > 0);
  await agent.authenticate();
  let ended = false;
  process.stdin.resume().on("end", () => (ended = true));
  say("ready");
  let calls = 0;
  for (; !ended; calls += 1) await search();
  say(calls);
  await agent.close();
})();
