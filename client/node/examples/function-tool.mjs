// A tool in the form that OpenAI's and compatible APIs take: a schema for the model, a function for its calls.
import { Agent, AgentError } from "@obol/agent";

const API = process.env.API ?? "https://api.example";
const agent = new Agent({ routes: [{ audience: API, tools: ["search"] }] });

export const tools = [
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
export async function answer({ id, function: { name, arguments: body } }) {
  try {
    const response = await agent.fetch(`${API}/v1/${name}`, { method: "POST", tool: name, body, headers: { "content-type": "application/json" } });
    return { role: "tool", tool_call_id: id, content: await response.text() };
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    // The model may be told: there is no secret in it.
    return { role: "tool", tool_call_id: id, content: `${error.code}: ${error.message}` };
  }
}

console.log((await answer({ id: "call-1", type: "function", function: { name: "search", arguments: '{"query":"rows"}' } })).content);
console.log((await answer({ id: "call-2", type: "function", function: { name: "pay", arguments: "{}" } })).content);
