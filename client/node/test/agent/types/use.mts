// Must compile in strict mode against the types that the package ships; nothing of it is run.
import { Agent, AgentError, Token, type SessionInfo } from "@obol/agent";
const agent = new Agent({ routes: [{ audience: "https://api.example", tools: ["search"] }] });
const info: SessionInfo = await agent.ensureAuthenticated();
const response: Response = await agent.fetch(new URL("https://api.example/"), { method: "POST", body: "{}", tool: "search", idempotencyKey: "k" });
const token: Token = await agent.dequeueToken("mcp:git_push", { arguments: { a: 1 } });
const { queueDepth, ttl, sessionActive, renewalPending } = await agent.tokenStatus();
try { await agent.register({ name: "x", onPrompt: ({ code }) => console.log(code) }); } catch (e) { if (e instanceof AgentError) console.log(e.code); }
console.log(info.algorithmSuite, response.status, token.authorization(), queueDepth, ttl, sessionActive, renewalPending);
await agent.fetch(new Request("https://api.example/"), { body: (async function* () { yield "piece"; })(), signal: AbortSignal.timeout(9) });
const sealed: boolean | undefined = (await agent.tokenStatus("x")).sealed;
console.log(sealed);
await agent.fetch("https://api.example/", { approval: "wait" });
await agent.fetch("https://api.example/", { approval: { purpose: "x", action: ["pay"], constraints: { max_rows: 1 }, onPrompt: ({ approvalId }) => console.log(approvalId) } });
await agent.dequeueToken("pay", { approvalId: "apr_x.1" });
const { calls } = await agent.requestApproval([{ tool: "pay", arguments: { cents: 1 }, count: 2 }], { purpose: "x", lifetime: 60_000 });
await agent.fetch("https://api.example/", { approvalId: calls[0] });
// @ts-expect-error neither of the words that there are
await agent.fetch("https://api.example/", { approval: "maybe" });
// @ts-expect-error a number is no URL
await agent.fetch(7);
