// axios over `agent.fetch`: each request has a token of its own, and the rules about redirects and repeats are the agent's.
import axios from "axios";
import { Agent } from "@obol/agent";

const API = process.env.API ?? "https://api.example";
const agent = new Agent({ routes: [{ audience: API, tools: ["search"] }] });
const client = axios.create({ adapter: "fetch", env: { fetch: (input, init) => agent.fetch(input, init) } });

const { data } = await client.post(`${API}/v1/search`, { query: "rows" });
console.log(data);
await client.get("https://elsewhere.example/").catch((error) => console.log(error.code));
