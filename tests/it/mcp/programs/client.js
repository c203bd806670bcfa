// An MCP client of the official SDK that knows nothing of tokens: does what each line of standard input says.
"use strict";

const { createRequire } = require("node:module");
const readline = require("node:readline");

const modules = createRequire(`${process.env.MODULES}/`);
const { Client } = modules("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = modules("@modelcontextprotocol/sdk/client/stdio.js");
const { StreamableHTTPClientTransport } = modules("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { ElicitRequestSchema } = modules("@modelcontextprotocol/sdk/types.js");

async function step(client, said) {
  if (said.call) return client.callTool({ name: said.call, arguments: said.arguments });
  if (said.read) return client.readResource({ uri: said.read });
  return client.listTools();
}

async function main() {
  const [, , command, ...args] = process.argv;
  const client = new Client({ name: "client", version: "1.0.0" }, { capabilities: { elicitation: {} } });
  client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: { sure: true } }));
  // Without anything in between a server over HTTP is its address.
  const transport = command.startsWith("http://")
    ? new StreamableHTTPClientTransport(new URL(command))
    : new StdioClientTransport({ command, args, env: process.env });
  await client.connect(transport);
  console.log(JSON.stringify({ version: "legacy" }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const answer = await step(client, JSON.parse(line)).catch((error) => ({ error: String(error) }));
    console.log(JSON.stringify(answer));
  }
  await client.close();
}

main();
