// Canonical form (RFC 8785) and signatures (HMAC-SHA256) over any JSON object.
"use strict";

const { createHmac, timingSafeEqual } = require("node:crypto");
const { HEX64 } = require("./words");

/** The RFC 8785 form of a JSON value. Throws a TypeError for what JSON does not have, and for lone surrogates. */
function canonical(value) {
  switch (typeof value) {
    case "string":
      if (!value.isWellFormed()) throw new TypeError("a text holds a lone surrogate");
      return JSON.stringify(value);
    case "number":
      if (!Number.isFinite(value)) throw new TypeError("a number is not finite");
      return JSON.stringify(value);
    case "boolean":
      return String(value);
    case "object":
      return value === null ? "null" : Array.isArray(value) ? list(value) : object(value);
    default:
      throw new TypeError(`JSON has no ${typeof value}`);
  }
}

const list = (values) => `[${Array.from(values, canonical).join(",")}]`;

function object(value) {
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw new TypeError("not a plain object");
  // The default order is that of UTF-16 code units, as RFC 8785 asks. A member that is undefined is absent.
  const names = Object.keys(value).filter((name) => value[name] !== undefined).sort();
  return `{${names.map((name) => `${canonical(name)}:${canonical(value[name])}`).join(",")}}`;
}

/** The bytes that a body's signature covers: all members but a top-level `signature`. */
function canonicalBody(body) {
  if (typeof body !== "object" || body === null || Array.isArray(body)) throw new TypeError("a body is an object");
  return object({ ...body, signature: undefined });
}

/** The key is the UTF-8 bytes of a text as it is: no trimming, no decoding. */
const keyOf = (secret) => (typeof secret === "string" ? Buffer.from(secret, "utf8") : Buffer.from(secret));
const mac = (bytes, secret) => createHmac("sha256", keyOf(secret)).update(bytes, "utf8").digest();

/** 64 hex digits. */
function signAtpBody(body, secret) {
  return mac(canonicalBody(body), secret).toString("hex");
}

/** Whether the signature is the secret's over this body, in constant time. What is malformed is not. */
function verifyAtpSignature(body, signature, secret) {
  if (typeof signature !== "string" || !HEX64.test(signature)) return false;
  let expected;
  try {
    expected = mac(canonicalBody(body), secret);
  } catch {
    return false;
  }
  return timingSafeEqual(expected, Buffer.from(signature, "hex"));
}

module.exports = { canonical, canonicalBody, signAtpBody, verifyAtpSignature };
