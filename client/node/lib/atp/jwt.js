// Tokens: made in one form, and looked at only if their first segment is, byte for byte, that of a live key, which alone says which
// algorithm is used.
"use strict";

const { createHmac, createPublicKey, timingSafeEqual, verify } = require("node:crypto");

const MAX_TOKEN_BYTES = 7 * 1024;
const CLAIMS = ["iss", "aud", "sub", "agent_id", "scope", "scopes", "iat", "exp", "jti", "cred", "use"];
const OPTIONAL = ["cred", "use"];

const encode = (text) => Buffer.from(text).toString("base64url");

/** Reads base64url that encodes back to itself: no padding, no stray bits, no other alphabet. */
function decode(text) {
  const bytes = Buffer.from(text, "base64url");
  return bytes.toString("base64url") === text ? bytes : null;
}

const firstOf = (alg, kid) => `${encode(`{"alg":"${alg}","typ":"at+jwt","kid":"${kid}"}`)}.`;

/** An HS256 key of 32 random bytes. */
function createKey(kid, bytes) {
  const first = firstOf("HS256", kid);
  const sign = (message) => createHmac("sha256", bytes).update(message).digest();
  const holds = (message, signature) => signature.length === 32 && timingSafeEqual(signature, sign(message));

  return {
    kid,
    bytes,
    mint(claims) {
      const ordered = {};
      for (const name of CLAIMS) if (claims[name] !== undefined) ordered[name] = claims[name];
      const message = first + encode(JSON.stringify(ordered));
      return `${message}.${sign(message).toString("base64url")}`;
    },
    read: reader(first, holds),
  };
}

/** An Ed25519 key of somebody else, as `x` of the provider's JWK set has it: it only reads. */
function createReadingKey(kid, x) {
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  return { kid, read: reader(firstOf("EdDSA", kid), (message, signature) => signature.length === 64 && verify(null, Buffer.from(message), key, signature)) };
}

/** Reads a token of one key: the claims, or `null` whatever is wrong. `now` in Unix seconds. */
function reader(first, holds) {
  return (token, origin, now) => {
    if (typeof token !== "string" || token.length > MAX_TOKEN_BYTES || !token.startsWith(first)) return null;
    const end = token.lastIndexOf(".");
    const [message, signature] = [token.slice(0, end), decode(token.slice(end + 1))];
    const claims = message.length < first.length ? null : decode(message.slice(first.length));
    return signature && claims && holds(message, signature) ? sound(claims.toString("utf8"), origin, now) : null;
  };
}

function sound(text, origin, now) {
  let claims;
  try {
    claims = JSON.parse(text);
  } catch {
    return null;
  }
  // What was minted here encodes back to itself: no claim twice, none out of order, none unknown.
  const ordered = {};
  for (const name of CLAIMS) if (claims?.[name] !== undefined) ordered[name] = claims[name];
  if (JSON.stringify(ordered) !== text) return null;
  const needed = CLAIMS.filter((name) => !OPTIONAL.includes(name));
  if (!needed.every((name) => claims[name] !== undefined)) return null;
  if (claims.iss !== origin || claims.aud !== origin || claims.sub !== claims.agent_id) return null;
  if (![undefined, "once"].includes(claims.use) || ![undefined, "shared", "master"].includes(claims.cred)) return null;
  if (!Number.isSafeInteger(claims.exp) || !(now < claims.exp) || !Array.isArray(claims.scopes)) return null;
  return claims;
}

module.exports = { createKey, createReadingKey, decode, MAX_TOKEN_BYTES };
