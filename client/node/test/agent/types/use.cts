// The same by `require`.
import obol = require("@obol/agent");
const agent: obol.Agent = new obol.Agent();
void agent.close();
