// A call, as short as it gets.
import { Agent } from "@obol/agent";

const API = process.env.API ?? "https://api.example";

// A session from the Authentication Service names its destinations itself, and `new Agent()` is enough.
const agent = new Agent({ routes: [{ audience: API, tools: ["search"] }] });
const response = await agent.fetch(`${API}/v1/search?q=rows`, { method: "GET" });
console.log(response.status, await response.text());
