// The middleware in Express on a loopback port, with everything in memory: node express.js PORT ENDPOINT SECRET
"use strict";

const express = require("express");
const { middleware } = require("../../client/node/lib/atp-server");

const [port, url, secret] = process.argv.slice(2);
const app = express();
app.use("/v1/agent-tokens", middleware({ secret, scopes: ["read", "write"], tokenTTL: 3600, url, agentRate: 0, addressRate: 0 }));
// What was signed before the start is refused, and for a while after it.
setTimeout(() => app.listen(Number(port), "127.0.0.1"), 7_000);
