// Registers, and calls the API at BASE with what the session says alone.
"use strict";

const { Agent } = require("../../..");

const { BASE: url } = process.env;
const say = (text) => process.stdout.write(`${text}\n`);

(async () => {
  const agent = new Agent();
  await agent.register({ name: "builder", roles: ["dev"], onPrompt: (prompt) => say(JSON.stringify(prompt)) });
  for (let call = 0; call < 2; call += 1) say(await (await agent.fetch(`${url}/v1/search?q=rows`, { method: "GET" })).text());
  say(await agent.fetch(`${url}/v2/search`).catch((error) => error.code));
  say(await agent.fetch(`${url}/v1/search`, { method: "POST" }).catch((error) => error.code));
  await agent.close();
})();
