// A model behind OpenAI's client asks for a tool, and each of its calls carries a token of its own. The model never sees one.
import { Agent, AgentError } from "@obol/agent";
import OpenAI from "openai";

const API = process.env.API ?? "https://api.example";
const MAX_TURNS = 8;

const agent = new Agent({ routes: [{ audience: API, tools: ["search"] }] });
// OPENAI_API_KEY, and OPENAI_BASE_URL for another service that speaks like it.
const client = new OpenAI();

const tools = [
  {
    type: "function",
    function: {
      name: "search",
      description: "Searches the documents.",
      parameters: { type: "object", properties: { query: { type: "string" } }, required: ["query"], additionalProperties: false },
    },
  },
];

/** The message that answers a tool call of the model. */
async function answer({ id, function: { name, arguments: body } }) {
  try {
    const response = await agent.fetch(`${API}/v1/search`, { method: "POST", tool: name, body, headers: { "content-type": "application/json" } });
    return { role: "tool", tool_call_id: id, content: await response.text() };
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    // The model may be told: there is no secret in it.
    return { role: "tool", tool_call_id: id, content: `${error.code}: ${error.message}` };
  }
}

async function ask(question) {
  const messages = [{ role: "user", content: question }];
  for (let turn = 0; turn < MAX_TURNS; turn += 1) {
    const { choices } = await client.chat.completions.create({ model: "gpt-5.1", messages, tools });
    const said = choices[0].message;
    if (!said.tool_calls?.length) return said.content;
    messages.push(said, ...(await Promise.all(said.tool_calls.map(answer))));
  }
}

console.log(await ask("What do the documents say about March?"));
