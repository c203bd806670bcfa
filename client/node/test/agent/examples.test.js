// The examples, with the libraries that they are for (MODULES), against a scripted sidecar and API that count.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { execFileSync, spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const { World } = require("./world");

const ROOT = path.join(__dirname, "../..");
const EXAMPLES = path.join(ROOT, "examples");
const PYTHON = process.env.PYTHON ?? "python3";
const MCP_SERVER = [PYTHON, path.join(ROOT, "../python/tests/mcp_server.py"), "{A}"];

/** What each prints and how many tokens it takes. */
const EXPECTED = {
  "first.mjs": [[], "200 found\n", 1],
  "vercel-ai.mjs": [[], "I found.\n", 1],
  "openai-tools.mjs": [[], "found\nUNKNOWN_DESTINATION: no token goes to ", 1],
  "axios.mjs": [[], "found\nUNKNOWN_DESTINATION\n", 1],
  "mcp-client.mjs": [MCP_SERVER, "found rows of march\nfound rows of may\n", 2],
};

/** A folder in which the examples find this package and the libraries. */
function home(t) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "obol-examples-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  const modules = path.join(folder, "node_modules");
  fs.mkdirSync(path.join(modules, "@obol"), { recursive: true });
  fs.symlinkSync(ROOT, path.join(modules, "@obol/agent"));
  const fetched = path.join(process.env.MODULES, "node_modules");
  for (const name of ["ai", "openai", "zod", "axios", "@modelcontextprotocol"]) fs.symlinkSync(path.join(fetched, name), path.join(modules, name));
  for (const name of Object.keys(EXPECTED)) fs.copyFileSync(path.join(EXAMPLES, name), path.join(folder, name));
  return folder;
}

/** A model's service, and where the examples find it. */
async function model(t) {
  const server = spawn(PYTHON, [path.join(ROOT, "../python/tests/model_server.py")], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => server.kill());
  const [address] = await once(server.stdout, "data");
  return { OPENAI_BASE_URL: String(address).trim(), OPENAI_API_KEY: "none" };
}

test("each is here", () => {
  assert.deepEqual(fs.readdirSync(EXAMPLES).filter((name) => name.endsWith(".mjs")).sort(), Object.keys(EXPECTED).sort());
});

for (const [name, [args, said, tokens]] of Object.entries(EXPECTED)) {
  test(`${name} does what it says`, async (t) => {
    const world = new World();
    t.after(() => world.end());
    const places = await world.open({ servers: { A: [{ body: "found" }] } });
    const env = { ...process.env, ...(name === "openai-tools.mjs" && (await model(t))), API: places.servers.A, OBOL_ENDPOINT_SOCKET: places.agentSocket };
    const text = execFileSync(process.execPath, [name, ...world.filled(args)], { cwd: home(t), env, encoding: "utf8", timeout: 60_000 });
    assert.ok(text.startsWith(said), text);
    assert.ok(!text.includes("tok_"), text);
    const { violations, drawn, servers } = await world.counts();
    assert.deepEqual([violations, drawn.length, servers.A.map((request) => request.token)], [[], tokens, Array(tokens).fill(true)]);
  });
}
