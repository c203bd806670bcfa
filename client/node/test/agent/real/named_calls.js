// Makes CALLS calls to the API at BASE, each under a key of its own, and finds each answered.
"use strict";

const assert = require("node:assert/strict");
const { Agent } = require("../../..");

const { BASE: url, AUDIENCE: audience, CALLS } = process.env;

(async () => {
  const agent = new Agent({ routes: [{ audience, url, tools: ["pay"] }] });
  for (let order = 0; order < Number(CALLS); order += 1) {
    const body = JSON.stringify({ order });
    const headers = { "content-type": "application/json" };
    const response = await agent.fetch(`${url}/pay`, { method: "POST", body, headers, idempotencyKey: `order-${order}` });
    assert.deepEqual([response.status, await response.json()], [200, { order }]);
  }
  await agent.close();
})();
