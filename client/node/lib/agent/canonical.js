// The hash of a call's arguments, over which a proof of possession is made: SHA-256 of their canonical form (RFC 8785).
"use strict";

const { createHash } = require("node:crypto");

const MAX_BYTES = 1 << 20;
const MAX_DEPTH = 64;
const MAX_EXACT = 2 ** 53;
/** Texts, with the colon behind those that are names, and numbers. */
const TOKENS = /"(?:[^"\\]|\\.)*"(\s*:)?|-?[0-9][0-9.eE+-]*/g;

const NONE = createHash("sha256").update("{}").digest("base64url");

/** A number without its sign, as digits that neither begin nor end with 0, and the power of ten of the last one. */
function decimal(text) {
  const [mantissa, exponent = "0"] = text.toLowerCase().split("e");
  const [whole, fraction = ""] = mantissa.split(".");
  const all = whole + fraction;
  const digits = all.replace(/0+$/, "");
  if (!digits) return "0";
  return `${digits.replace(/^0+/, "")}e${Number(exponent) - fraction.length + all.length - digits.length}`;
}

/** Whether everybody reads the number alike. */
function isExact(text) {
  const number = Number(text);
  return Math.abs(number) <= MAX_EXACT && decimal(text.replace(/^-/, "")) === decimal(Math.abs(number).toExponential());
}

/** The canonical form, and how many names it holds. */
function write(value, depth, count) {
  if (depth > MAX_DEPTH) throw new RangeError("too deep");
  if (Array.isArray(value)) return `[${value.map((item) => write(item, depth + 1, count)).join(",")}]`;
  if (typeof value === "string" && !value.isWellFormed()) throw new RangeError("half a character");
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const names = Object.keys(value).sort();
  count.names += names.length;
  if (!names.every((name) => name.isWellFormed())) throw new RangeError("half a character");
  return `{${names.map((name) => `${JSON.stringify(name)}:${write(value[name], depth + 1, count)}`).join(",")}}`;
}

/** The canonical form of a JSON object that is written like this; null where it is not one, or has none. */
function canonical(text) {
  try {
    const value = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
    const count = { names: 0 };
    const form = write(value, 1, count);
    for (const [token, isName] of text.matchAll(TOKENS)) {
      if (isName) count.names -= 1;
      else if (token[0] !== '"' && !isExact(token)) return null;
    }
    return count.names === 0 ? form : null;
  } catch {
    return null;
  }
}

/** `popFor` for this body; undefined where its arguments have no canonical form. `body`: a Buffer, or null for none. */
function argumentsHash(body) {
  if (body === null) return NONE;
  if (body.length > MAX_BYTES || (body[0] !== 0x7b && !/^\s*\{/.test(body.toString("latin1", 0, 64)))) return undefined;
  const text = body.toString("utf8");
  if (Buffer.byteLength(text) !== body.length) return undefined;
  const form = canonical(text);
  return form === null ? undefined : createHash("sha256").update(form, "utf8").digest("base64url");
}

/** Whether this is the text of a JSON object, as a sealed body must be. */
function isJsonObject(body) {
  try {
    const value = JSON.parse(body.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

module.exports = { argumentsHash, canonical, isJsonObject };
