// A tool of the Vercel AI SDK whose calls each carry a token of their own. Neither the model nor its trace sees one.
import { generateText, stepCountIs, tool } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { z } from "zod";
import { Agent } from "@obol/agent";

const API = process.env.API ?? "https://api.example";
const agent = new Agent({ routes: [{ audience: API, tools: ["search"] }] });

const search = tool({
  description: "Searches the documents.",
  inputSchema: z.object({ query: z.string() }),
  execute: async (input, { abortSignal }) => {
    const response = await agent.fetch(`${API}/v1/search`, { method: "POST", body: JSON.stringify(input), signal: abortSignal });
    return response.text();
  },
});

// In place of a model: one that asks for the tool, and then says what it was told.
const usage = { inputTokens: { total: 1 }, outputTokens: { total: 1 } };
const model = new MockLanguageModelV3({
  doGenerate: async ({ prompt }) => {
    const told = prompt.at(-1);
    if (told.role !== "tool") {
      const call = { type: "tool-call", toolCallId: "call-1", toolName: "search", input: '{"query":"rows of march"}' };
      return { content: [call], finishReason: { unified: "tool-calls" }, usage, warnings: [] };
    }
    return { content: [{ type: "text", text: `I ${told.content[0].output.value}.` }], finishReason: { unified: "stop" }, usage, warnings: [] };
  },
});

const { text } = await generateText({ model, tools: { search }, prompt: "Search the rows of march.", stopWhen: stepCountIs(3) });
console.log(text);
