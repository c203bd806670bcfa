// `fetch` of `@obol/agent` beside the platform's, in turns, one call after another on connections that are kept.
"use strict";

const { Agent } = require("../../client/node");

const { URL_OF_SERVER: origin, CALLS = "5000" } = process.env;
const WARM_UP = 500;
const agent = new Agent({ routes: [{ audience: "https://api.example", url: origin, tools: ["search"] }] });

async function micros(call) {
  const began = process.hrtime.bigint();
  const response = await call();
  if ((await response.text()) !== "ok") throw new Error(`status ${response.status}`);
  return Number(process.hrtime.bigint() - began) / 1_000;
}

const at = (sorted, share) => sorted[Math.floor(sorted.length * share)];

(async () => {
  const took = { platform: [], agent: [] };
  for (let call = 0; call < WARM_UP + Number(CALLS); call += 1) {
    const [platform, own] = [await micros(() => fetch(`${origin}/x`)), await micros(() => agent.fetch(`${origin}/x`))];
    if (call >= WARM_UP) (took.platform.push(platform), took.agent.push(own));
  }
  for (const list of Object.values(took)) list.sort((a, b) => a - b);
  for (const [name, list] of Object.entries(took)) console.log(`node    ${name.padEnd(9)} p50 ${at(list, 0.5).toFixed(0)} µs, p99 ${at(list, 0.99).toFixed(0)} µs`);
  console.log(`node    added     p50 ${(at(took.agent, 0.5) - at(took.platform, 0.5)).toFixed(0)} µs`);
  await agent.close();
})();
