// Within a session with a keyring: the agent in JavaScript and the one in Rust, in turns. Prints what each found.
"use strict";

const { execFileSync } = require("node:child_process");
const { createClient } = require("../../lib/agent-tokens");

const { HOST, CA, SECRET, CONFIG, STATE, OBOL } = process.env;
const scopes = ["read"];
const clientOf = () => createClient({ stateDir: STATE, caFile: CA, allowPrivate: [HOST] });
const lookUp = (account) => {
  try {
    return execFileSync("secret-tool", ["lookup", "service", "agentdom", "account", account]).toString();
  } catch {
    return null;
  }
};
const rust = (...args) => JSON.parse(execFileSync(OBOL, ["--config", CONFIG, "atp", "request", HOST, "--scope", "read", "--json", ...args]).toString());

(async () => {
  execFileSync("secret-tool", ["store", "--label", "the secret", "service", "agentdom", "account", `__atp_secret__:${HOST}`], { input: SECRET });
  const client = clientOf();
  const first = await client.requestToken(HOST, { scopes });
  const looked_up = JSON.parse(lookUp(HOST)).access_token;
  client.close();
  const next = clientOf();
  const again = await next.ensureToken(HOST, { scopes });
  const cached = rust("--cached");
  const rust_new = rust();
  const from_rust = await next.ensureToken(HOST, { scopes });
  const script_new = await next.requestToken(HOST, { scopes });
  const rust_again = rust("--cached");
  const revoked = await next.revokeToken(HOST);
  const left = lookUp(HOST);
  const { valid } = await next.verifyToken(script_new.access_token, HOST);
  next.close();
  const tokens = { first, again, rust: cached, rust_new, from_rust, script_new, rust_again };
  const texts = Object.fromEntries(Object.entries(tokens).map(([name, token]) => [name, token.access_token]));
  console.log(JSON.stringify({ ...texts, looked_up, stored: [first.stored_in, cached.stored_in], revoked, left, valid }));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
