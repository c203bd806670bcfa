// A token that was drawn. It shows nothing of itself: who wants its text says so with `reveal()`.
"use strict";

const inspect = Symbol.for("nodejs.util.inspect.custom");

class Token {
  #text;
  #proof;
  #channel;

  constructor({ token, tool, expiresAt, pop, channel }) {
    this.#text = token;
    this.#proof = pop?.sig ?? null;
    this.#channel = channel ?? null;
    this.tool = tool;
    /** Unix seconds. */
    this.expiresAt = expiresAt;
    Object.freeze(this);
  }

  /** The token, base64url. It is good for one call; keep it out of logs. */
  reveal() {
    return this.#text;
  }

  /** The value of an `Authorization` header. */
  authorization() {
    return `TBAC ${this.#text}`;
  }

  /** The proof of possession for `TBAC-PoP`, or null. */
  proof() {
    return this.#proof;
  }

  /** The keys for sealed bodies (docs/protocol.md), or null. */
  channel() {
    return this.#channel;
  }

  toString() {
    return `Token(${this.tool}, redacted)`;
  }

  toJSON() {
    return this.toString();
  }

  [inspect]() {
    return this.toString();
  }
}

/** A Token from the sidecar's answer; null where that makes no sense. */
function readToken(answer) {
  const { token, tool, expiresAt, pop, channel } = answer;
  const plain = typeof token === "string" && /^[A-Za-z0-9_-]{1,44120}$/.test(token) && typeof tool === "string" && Number.isSafeInteger(expiresAt);
  const proven = pop === undefined || (pop !== null && typeof pop === "object" && /^[A-Za-z0-9_-]{86}$/.test(pop.sig));
  return plain && proven ? new Token({ token, tool, expiresAt, pop, channel }) : null;
}

module.exports = { Token, readToken };
