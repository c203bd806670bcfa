// Calls at each line of its input, which says whether a human is asked; says what they decide by, and what came of it.
"use strict";

const readline = require("node:readline");
const { Agent } = require("../../..");

const say = (text) => process.stdout.write(`${text}\n`);

(async () => {
  const agent = new Agent();
  const onPrompt = ({ approvalId }) => say(JSON.stringify({ approval_id: approvalId }));
  const asking = { purpose: "invoice 7", action: "pay", resource: "accounts/7", onPrompt };
  for await (const word of readline.createInterface({ input: process.stdin })) {
    const options = { method: "POST", headers: { "content-type": "application/json" }, body: '{"amount":"12.50"}' };
    try {
      const response = await agent.fetch("https://api.example/v1/pay", { ...options, approval: word === "wait" ? asking : word });
      say(`${response.status} ${await response.text()}`);
    } catch (error) {
      say(error.code);
    }
  }
  await agent.close();
})();
