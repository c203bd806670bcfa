// The words of the protocol, each with its own rules: hosts, endpoints, scopes, purposes, ids.
"use strict";

const MAX_BODY_BYTES = 8192;
const MAX_ENDPOINT_BYTES = 512;
const MAX_SCOPES = 32;
const MAX_PURPOSE_BYTES = 256;

const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const SCOPE = /^[A-Za-z0-9._:/*-]{1,64}$/;
const NONCE = /^[A-Za-z0-9_-]{8,64}$/;
const HEX64 = /^[0-9a-f]{64}$/;
const SEGMENT = /^[A-Za-z0-9._~!$&'()*+,;=:@-]+$/;
// Categories Cc and Cf (Unicode 16), U+2028 and U+2029, written out so that no two runtimes differ.
const INVISIBLE =
  /[\u{0}-\u{1F}\u{7F}-\u{9F}\u{AD}\u{600}-\u{605}\u{61C}\u{6DD}\u{70F}\u{890}\u{891}\u{8E2}\u{180E}\u{200B}-\u{200F}\u{2028}-\u{202E}\u{2060}-\u{2064}\u{2066}-\u{206F}\u{FEFF}\u{FFF9}-\u{FFFB}\u{110BD}\u{110CD}\u{13430}-\u{1343F}\u{1BCA0}-\u{1BCA3}\u{1D173}-\u{1D17A}\u{E0001}\u{E0020}-\u{E007F}]/u;

/** A DNS name in lower case, no address, with an optional port; `null` if it is not one. */
function parseHost(text) {
  if (typeof text !== "string" || text.length > 260) return null;
  const match = /^([A-Za-z0-9.-]+)(?::([1-9][0-9]{0,4}))?$/.exec(text);
  if (!match) return null;
  const name = match[1].toLowerCase();
  const port = match[2] === undefined ? 443 : Number(match[2]);
  const labels = name.split(".");
  const last = labels[labels.length - 1];
  // A name that ends in a number is an address to some readers: 127.1, 0x7f.1.
  if (name.length > 253 || port > 65535 || !labels.every((label) => LABEL.test(label))) return null;
  if (/^[0-9]+$/.test(last) || /^0x[0-9a-f]*$/.test(last)) return null;
  return { name, port, text: port === 443 ? name : `${name}:${port}` };
}

/** An HTTPS URL in its one spelling; `null` if it is not one. `local` also takes http://localhost. */
function parseEndpoint(text, { local = false } = {}) {
  if (typeof text !== "string" || text.length > MAX_ENDPOINT_BYTES) return null;
  const match = /^(https?):\/\/([^/]+)(\/.+)$/.exec(text);
  if (!match) return null;
  const [, scheme, authority, path] = match;
  const host = parseHost(authority);
  if (!host) return null;
  if (scheme === "http" && !(local && host.name === "localhost")) return null;
  if (authority !== host.text && !(scheme === "http" && authority === `${host.name}:443`)) return null;
  const segments = path.slice(1).split("/");
  if (!segments.every((part) => SEGMENT.test(part) && part !== "." && part !== "..")) return null;
  return { text, scheme, host, authority, origin: `${scheme}://${authority}`, path };
}

/** Whether `other` may serve `host`: the same name or one below it, at the same port or 443. */
function covers(host, other) {
  const below = other.name === host.name || other.name.endsWith(`.${host.name}`);
  return below && (other.port === host.port || other.port === 443);
}

/** Whether these are at most 32 distinct scopes. An empty list has a sound form. */
function areScopes(scopes) {
  return (
    Array.isArray(scopes) &&
    scopes.length <= MAX_SCOPES &&
    scopes.every((scope) => typeof scope === "string" && SCOPE.test(scope)) &&
    new Set(scopes).size === scopes.length
  );
}

const byteOrder = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const sorted = (scopes) => [...scopes].sort(byteOrder);
const isPurpose = (text) => Buffer.byteLength(text) <= MAX_PURPOSE_BYTES && !INVISIBLE.test(text);

module.exports = { MAX_BODY_BYTES, HEX64, NONCE, SCOPE, parseHost, parseEndpoint, covers, areScopes, sorted, isPurpose };
