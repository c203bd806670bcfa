// Signed bodies, read to the letter. JSON.parse takes the last of two names and forgets how a number was written; here a name
// stands once, a timestamp is an integer literal, and nothing stands before or behind the object.
"use strict";

const { MAX_BODY_BYTES, HEX64, NONCE, areScopes, isPurpose } = require("./words");

/** A refusal of the form. `field` is a member's name or `body`; no value is repeated. */
class BodyError extends Error {
  constructor(field, problem, tooLarge = false) {
    super(`${field}: ${problem}`);
    this.field = field;
    this.tooLarge = tooLarge;
  }
}

const TOKEN = /[ \t\n\r]*(?:("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|([0-9]+(?![0-9.eE]))|([{}[\]:,]))/y;

const END = /[ \t\n\r]*$/y;

function isEnd(text, at) {
  END.lastIndex = at;
  return END.test(text);
}

/** Cuts the text into strings, whole numbers and punctuation; anything else is not part of a signed body. */
function* tokens(text) {
  for (let at = 0; !isEnd(text, at); ) {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    if (!match) throw new BodyError("body", "is not JSON, or has a member of the wrong type");
    at = TOKEN.lastIndex;
    if (match[1] !== undefined) {
      const string = JSON.parse(match[1]);
      if (!string.isWellFormed()) throw new BodyError("body", "holds a lone surrogate");
      yield { kind: "text", value: string };
    } else if (match[2] !== undefined) {
      if (match[2].length > 1 && match[2][0] === "0") throw new BodyError("body", "is not JSON");
      yield { kind: "number", value: Number(match[2]), literal: match[2] };
    } else {
      yield { kind: match[3] };
    }
  }
  yield { kind: "end" };
}

/** One flat object of texts, lists of texts and whole numbers. */
function readObject(text, known) {
  const stream = tokens(text);
  const next = () => stream.next().value ?? { kind: "end" };
  const expect = (token, kind) => {
    if (token.kind !== kind) throw new BodyError("body", "must be one JSON object of texts, lists of texts and whole numbers");
    return token;
  };
  expect(next(), "{");
  const members = new Map();
  for (let token = next(); token.kind !== "}" || members.size > 0; token = next()) {
    const name = expect(token, "text").value;
    if (!known.includes(name)) throw new BodyError("body", "has an unknown member");
    if (members.has(name)) throw new BodyError(name, "appears twice");
    expect(next(), ":");
    members.set(name, readValue(next, expect));
    const after = next();
    if (after.kind === "}") break;
    expect(after, ",");
  }
  expect(next(), "end");
  return members;
}

function readValue(next, expect) {
  const token = next();
  if (token.kind === "text" || token.kind === "number") return token;
  expect(token, "[");
  const values = [];
  for (let item = next(); item.kind !== "]" || values.length > 0; item = next()) {
    values.push(expect(item, "text").value);
    const after = next();
    if (after.kind === "]") break;
    expect(after, ",");
  }
  return { kind: "list", value: values };
}

const isText = (test) => (token) => token.kind === "text" && test(token.value);
const RULES = {
  action: [isText((text) => text === "revoke"), 'must be "revoke"'],
  agent_id: [isText((text) => HEX64.test(text)), "must be 64 lower-case hex digits"],
  aud: [isText((text) => text !== "" && Buffer.byteLength(text) <= 512), "must be the endpoint's URL, at most 512 bytes"],
  nonce: [isText((text) => NONCE.test(text)), "must be 8 to 64 characters of A-Z a-z 0-9 _ -"],
  purpose: [isText(isPurpose), "must have at most 256 bytes and no control or format characters"],
  scopes: [(token) => token.kind === "list" && areScopes(token.value), "must be at most 32 distinct scopes"],
  timestamp: [
    (token) => token.kind === "number" && token.value >= 1e12 && token.value < 2 ** 53 && String(token.value) === token.literal,
    "must be Unix time in milliseconds, an integer",
  ],
  token: [isText(() => true), "must be a text"],
  signature: [isText((text) => HEX64.test(text)), "must be 64 lower-case hex digits"],
};
const TOKEN_BODY = { needed: ["agent_id", "scopes", "timestamp", "signature"], optional: ["aud", "nonce", "purpose"] };
const REVOKE_BODY = { needed: ["action", "agent_id", "timestamp", "token", "signature"], optional: ["aud", "nonce"] };

/** Reads bytes as a body of one kind. Returns its members without the signature, and the signature. */
function parse(bytes, { needed, optional }) {
  if (bytes.length > MAX_BODY_BYTES) throw new BodyError("body", "has more than 8192 bytes", true);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new BodyError("body", "is not UTF-8");
  }
  const members = readObject(text, [...needed, ...optional]);
  const body = Object.create(null);
  for (const name of [...needed, ...optional]) {
    const token = members.get(name);
    if (token === undefined) {
      if (needed.includes(name)) throw new BodyError(name, "is missing");
      continue;
    }
    const [holds, problem] = RULES[name];
    if (!holds(token)) throw new BodyError(name, problem);
    body[name] = token.value;
  }
  const { signature } = body;
  delete body.signature;
  return { body, signature };
}

module.exports = {
  BodyError,
  parseTokenBody: (bytes) => parse(bytes, TOKEN_BODY),
  parseRevokeBody: (bytes) => parse(bytes, REVOKE_BODY),
};
