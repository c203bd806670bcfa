// A process that makes two calls: `caller.js ORIGIN URL`.
"use strict";

const { Agent } = require("../..");

const [origin, url] = process.argv.slice(2);

(async () => {
  const agent = new Agent({ routes: [{ audience: origin, tools: ["search"] }] });
  for (let call = 0; call < 2; call += 1) {
    const response = await agent.fetch(url);
    if ((await response.text()) !== "ok") process.exit(1);
  }
})();
