// Where a provider's endpoints are. Whoever serves the document says where signed requests go, so nothing is taken from it that is
// not an HTTPS endpoint at the host that was asked or below it, or one that was listed.
"use strict";

const { AtpError } = require("./errors");
const { parseEndpoint, covers } = require("./words");

const KNOWN = { atp_version: "1", canonicalization: "jcs", signature_alg: "HMAC-SHA256", timestamp_unit: "ms" };

/** Reads the document of `host`: `{ token, verify, revoke }`. */
function readDocument(bytes, host, listed) {
  let document;
  try {
    document = JSON.parse(bytes.toString("utf8"));
  } catch {
    throw new AtpError("Discovery", `${host.text}: the discovery document is not JSON`);
  }
  const auth = document?.auth;
  if (typeof auth?.agent_token_endpoint !== "string") throw new AtpError("NotOffered", `${host.text} offers no signed agent tokens`);
  for (const [member, known] of Object.entries(KNOWN)) {
    if (auth[member] !== undefined && auth[member] !== known) {
      throw new AtpError("Discovery", `${host.text}: the discovery document asks for something unknown in auth.${member}`);
    }
  }
  const endpoint = (member, text) => {
    const found = parseEndpoint(text);
    if (found && (covers(host, found.host) || listed.includes(found.text))) return found;
    throw new AtpError("Discovery", `${host.text}: auth.${member} is not an HTTPS endpoint at that host; if it is right, list it in endpoints`);
  };
  const token = endpoint("agent_token_endpoint", auth.agent_token_endpoint);
  const named = (member, suffix) => endpoint(member, auth[member] ?? `${token.text}${suffix}`);
  return { token, verify: named("agent_token_verify_endpoint", "/verify"), revoke: named("agent_token_revoke_endpoint", "/revoke") };
}

/** How long a document is good for, in milliseconds. */
function lifeOf(headers) {
  const seconds = Number(/(?:^|[\s,])max-age=([0-9]{1,9})/.exec(headers["cache-control"] ?? "")?.[1] ?? 300);
  return Math.min(3600, Math.max(60, seconds)) * 1000;
}

module.exports = { readDocument, lifeOf };
