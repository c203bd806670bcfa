// The lines of README.md run as they stand, with the package beside the program and from a clone.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { SECRET, folder, provider } = require("./world");
const { verifyAtpSignature } = require("../lib/agent-tokens");

process.on("warning", () => {});

const blocks = (file) => [...fs.readFileSync(file, "utf8").matchAll(/```js\n([\s\S]*?)```/g)].map(([, code]) => code);
const readme = path.join(__dirname, "../README.md");
const page = path.join(__dirname, "../../../docs/atp.md");

/** Runs lines in a folder, in a process of their own that has nothing but a home, a secret and trust in our certificate. */
function run(code, cwd, target, env = { AGENTDOM_ATP_SECRET: SECRET }) {
  const script = `(async () => { ${code}; return { token, valid, agentId, body, signature, holds, revoked }; })().then((all) => (console.log(JSON.stringify(all)), process.exit(0)), (error) => (console.error(error), process.exit(1)));`;
  const usual = { HOME: folder(), PATH: process.env.PATH, NODE_EXTRA_CA_CERTS: target.tls.file, ATP_SECRET: SECRET, PORT: target.host.split(":")[1] };
  return new Promise((resolve, reject) => {
    execFile(process.execPath, ["--require", path.join(__dirname, "internet.js"), "-e", script], { cwd, env: { ...usual, ...env } }, (error, stdout, stderr) => (error ? reject(new Error(stderr)) : resolve(JSON.parse(stdout))));
  });
}

test("the lines for an agent run as they stand", async () => {
  const target = await provider({ url: "https://api.example.com/v1/agent-tokens" });
  const code = blocks(readme).find((lines) => lines.includes("requestToken("));
  // As it is after `npm install ./client/node`.
  const installed = folder();
  fs.mkdirSync(path.join(installed, "node_modules/@obol"), { recursive: true });
  fs.symlinkSync(path.join(__dirname, ".."), path.join(installed, "node_modules/@obol/agent"));
  const clone = path.join(__dirname, "../../..");
  const fromClone = code.replaceAll("@obol/agent/", "./client/node/");
  for (const [lines, cwd] of [[code, installed], [fromClone, clone]]) {
    const all = await run(lines, cwd, target);
    assert.deepEqual([all.valid, all.holds, all.revoked, all.token.scopes_granted], [true, true, true, ["read"]]);
    assert.deepEqual([all.token.agent_id, all.token.stored_in], [all.agentId, "file"]);
    assert.ok(verifyAtpSignature(all.body, all.signature, SECRET));
  }
  await assert.rejects(run(code, installed, target, {}), /NoSecret|no secret/, "control: without a secret");
  await target.close();
});

test("both pages have the same lines for a provider", () => {
  const provides = (file) => blocks(file).find((lines) => lines.includes("middleware("));
  assert.ok(provides(readme));
  assert.equal(provides(readme), provides(page));
});
