// The provider's side of the Agent Token Protocol, for Express and everything that calls `(req, res, next)`:
//
//   const { middleware } = require("@obol/agent/lib/atp-server");
//   app.use("/v1/agent-tokens", middleware({ secret: process.env.ATP_SECRET, scopes: ["read", "write"], tokenTTL: 3600 }));
//
// Mount it before `express.json()`: signed bodies are read to the letter, from their bytes.
"use strict";

module.exports = { middleware: require("./atp/provider").middleware };
