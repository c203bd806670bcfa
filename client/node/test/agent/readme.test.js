// The lines of README.md run as they stand, but for the API's name.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const { World } = require("./world");

const ROOT = path.join(__dirname, "../..");

test("the lines for an agent", async (t) => {
  const blocks = [...fs.readFileSync(path.join(ROOT, "README.md"), "utf8").matchAll(/```js\n([\s\S]*?)```/g)].map(([, code]) => code);
  const [first, rest] = [blocks.find((lines) => lines.includes("new Agent()")), blocks.find((lines) => lines.includes("dequeueToken("))];
  const world = new World();
  t.after(() => world.end());
  const places = await world.open({ servers: { A: [{ body: "found" }] }, authenticator: { routes: [[{ audience: "{A}", tools: ["search"] }]] } });
  Object.assign(process.env, { OBOL_ENDPOINT_SOCKET: places.agentSocket, OBOL_AUTH_SOCKET: places.authSocket });
  const said = [];
  const names = ["queueDepth", "ttl", "sessionActive", "renewalPending", "sessionId", "agentInstanceId", "establishedAt", "algorithmSuite"];
  const lines = (first + rest).replaceAll("https://api.example", places.servers.A);
  const body = `return (async () => { ${lines}; return { response, token, ${names} }; })()`;
  const all = await new Function("require", "console", body)((name) => require(name === "@obol/agent" ? ROOT : name), { log: (...texts) => said.push(texts) });
  assert.deepEqual(said, [[200, "found"]]);
  assert.ok(all.response instanceof Response && String(all.token).includes("redacted"));
  for (const name of names) assert.notEqual(all[name], undefined, name);
  const { authenticator, drawn } = await world.counts();
  assert.deepEqual([authenticator.register, authenticator.authenticate, drawn.map(({ tool }) => tool)], [1, 1, ["search", "mcp:git_push"]]);
});
