// @obol/agent: an agent that calls APIs with single-use tokens.
//
//   const { Agent } = require("@obol/agent");
//   const agent = new Agent();
//   const response = await agent.fetch("https://api.example/v1/search", { method: "GET" });
"use strict";

const { Agent } = require("./agent/agent");
const { AgentError } = require("./agent/errors");
const { Token } = require("./agent/token");

module.exports = { Agent, AgentError, Token };
