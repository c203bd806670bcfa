// The same for `import`.
import agent from "./index.js";

export const { Agent, AgentError, Token } = agent;
