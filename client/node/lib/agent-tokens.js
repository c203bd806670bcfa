// The agent's side of the Agent Token Protocol: ask for tokens, keep them, refresh them, give them back.
//
//   const { requestToken } = require("@obol/agent/lib/agent-tokens");
//   const token = await requestToken("api.example.com", { scopes: ["data.read"], purpose: "Sync dashboard metrics" });
//
// These functions share one client with the usual places for state and secrets. `createClient` makes others. A program that starts
// again calls `resume()`: what was requested before is kept fresh, and what could not be revoked is revoked.
"use strict";

const { createClient } = require("./atp/client");
const { signAtpBody, verifyAtpSignature } = require("./atp/signature");
const { AtpError } = require("./atp/errors");

let shared;
const client = () => (shared ??= createClient());

module.exports = {
  requestToken: (host, options) => client().requestToken(host, options),
  ensureToken: (host, options) => client().ensureToken(host, options),
  verifyToken: (token, host) => client().verifyToken(token, host),
  revokeToken: (host) => client().revokeToken(host),
  generateAgentId: () => client().generateAgentId(),
  resume: () => client().resume(),
  status: () => client().status(),
  signAtpBody,
  verifyAtpSignature,
  createClient,
  AtpError,
};
