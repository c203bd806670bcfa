// Registers, calls, and calls again at each line of its input: after its agent was disabled, and after it was enabled.
"use strict";

const readline = require("node:readline");
const { Agent } = require("../../..");

const say = (text) => process.stdout.write(`${text}\n`);

(async () => {
  const agent = new Agent();
  const call = async () => {
    // The header is what a reverse proxy says to the resource server.
    const response = await agent.fetch("https://api.example/v1/authorize", { method: "POST", headers: { "x-obol-tool": "search" } });
    return response.status;
  };
  await agent.register({ name: "builder", roles: ["dev"], onPrompt: (prompt) => say(JSON.stringify(prompt)) });
  say([await call(), await call(), await call()].join(" "));
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  await lines.next();
  say(await call().catch((error) => error.code));
  await lines.next();
  // For a second the last refusal is what whoever asks is told.
  let outcome = await call().catch((error) => error.code);
  for (const end = Date.now() + 20_000; outcome !== 200 && Date.now() < end; ) {
    await new Promise((done) => setTimeout(done, 200));
    outcome = await call().catch((error) => error.code);
  }
  say(outcome);
  process.exit(0);
})();
