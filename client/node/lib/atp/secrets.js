// Where the secret that an agent shares with a host comes from.
"use strict";

const fs = require("node:fs");
const { AtpError } = require("./errors");

const ACCOUNT = "__atp_secret__:";

/** Read afresh for each request, so that a rotation needs no restart. */
async function secretOf(host, { secretFile, hosts }, keychain, state) {
  if (secretFile !== undefined) return fromFile(secretFile);
  const kept = await keychain.get(ACCOUNT + host);
  if (kept) return kept;
  const own = process.env[`AGENTDOM_ATP_SECRET__${host.toUpperCase().replace(/[^A-Z0-9]/g, "_")}`];
  if (own) return (warnOfEnvironment(), own);
  const plain = process.env.AGENTDOM_ATP_SECRET;
  if (!plain) throw new AtpError("NoSecret", `no secret for ${host}: set secretFile, or AGENTDOM_ATP_SECRET`);
  warnOfEnvironment();
  const bound = hosts.includes(host) ? host : await state.bindPlainSecret(host);
  if (bound !== host) throw new AtpError("NoSecret", `AGENTDOM_ATP_SECRET is used for ${bound}; to use it for ${host} too, list that in hosts`);
  return plain;
}

function fromFile(file) {
  try {
    return fs.readFileSync(file, "utf8").replace(/\r?\n$/, "");
  } catch (error) {
    throw new AtpError("NoSecret", `secretFile ${file} cannot be read (${error.code})`);
  }
}

let warned = false;
function warnOfEnvironment() {
  if (!warned) process.emitWarning("agent-tokens: the secret comes from the environment, which other processes of this user can read; secretFile is safer");
  warned = true;
}

module.exports = { secretOf };
