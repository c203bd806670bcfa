// The tarball: packed, installed into an empty folder, and used there, by `require` and by `import`.
"use strict";

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const { World } = require("./world");

const PACKAGE = path.join(__dirname, "../..");
const run = (command, args, options) => execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], ...options });

const USE = `
const [, , socket, origin] = process.argv;
const agent = new Agent({ socket, routes: [{ audience: origin, tools: ["search"] }] });
agent.fetch(origin + "/x").then((response) => response.text()).then(console.log);
`;

function installed(t) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "obol-npm-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  const [{ filename, files }] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", folder], { cwd: PACKAGE }));
  const home = path.join(folder, "home");
  fs.mkdirSync(home);
  fs.writeFileSync(path.join(home, "package.json"), '{"private": true}');
  run("npm", ["install", "--offline", "--no-audit", "--no-fund", "--silent", path.join(folder, filename)], { cwd: home });
  return { home, files: files.map((file) => file.path) };
}

test("the tarball holds the library and its types, and asks for nothing", (t) => {
  const { home, files } = installed(t);
  assert.ok(files.includes("lib/index.js") && files.includes("lib/index.mjs") && files.includes("lib/index.d.ts") && files.includes("lib/agent-tokens.js"));
  assert.ok(files.every((file) => /^(?:lib\/|README\.md$|package\.json$)/.test(file)), String(files));
  assert.deepEqual(fs.readdirSync(path.join(home, "node_modules")).filter((name) => !name.startsWith(".")), ["@obol"]);
});

test("it works where it is installed, by require and by import", async (t) => {
  const { home } = installed(t);
  const world = new World();
  t.after(() => world.end());
  const places = await world.open({ servers: { A: [] } });
  fs.writeFileSync(path.join(home, "use.cjs"), `const { Agent } = require("@obol/agent");${USE}`);
  fs.writeFileSync(path.join(home, "use.mjs"), `import { Agent } from "@obol/agent";${USE}`);
  for (const file of ["use.cjs", "use.mjs"]) {
    assert.equal(run(process.execPath, [file, places.agentSocket, places.servers.A], { cwd: home }), "ok\n");
  }
  const atp = 'console.log(typeof require("@obol/agent/lib/agent-tokens").requestToken, typeof require("@obol/agent/lib/atp-server").middleware)';
  assert.equal(run(process.execPath, ["-e", atp], { cwd: home }), "function function\n");
  const { violations, drawn } = await world.counts();
  assert.deepEqual([violations, drawn.length], [[], 2]);
});

test("the types that it ships are strict", (t) => {
  const { home } = installed(t);
  for (const file of ["use.mts", "use.cts"]) fs.copyFileSync(path.join(__dirname, "types", file), path.join(home, file));
  const tsc = path.join(process.env.MODULES, "node_modules/typescript/bin/tsc");
  run(process.execPath, [tsc, "--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom", "use.mts", "use.cts"], { cwd: home });
});
