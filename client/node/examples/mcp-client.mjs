// A client of the official MCP SDK: each tool call has a token in its `_meta` (docs/protocol.md, "MCP").
//
//   node mcp-client.mjs SERVER ARGUMENT...
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { Agent } from "@obol/agent";

const KEY = "io.modelcontextprotocol/tbac";
const [command, ...args] = process.argv.slice(2);
const agent = new Agent();
const client = new Client({ name: "example", version: "1.0.0" });
await client.connect(new StdioClientTransport({ command, args }));

/** Calls a tool with a fresh token, and a proof of possession where the tool asks for one. */
async function callTool(name, input) {
  const token = await agent.dequeueToken(name, { arguments: input });
  const proof = token.proof();
  const pop = proof ? { pop: { alg: "Ed25519", sig: proof } } : {};
  return client.callTool({ name, arguments: input, _meta: { [KEY]: { token: token.reveal(), format: "opaque", ...pop } } });
}

for (const query of ["rows of march", "rows of may"]) console.log((await callTool("search", { query })).content[0].text);
await client.close();
