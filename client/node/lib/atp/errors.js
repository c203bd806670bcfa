// What can go wrong on the agent's side. `code` is stable; no message holds a secret.
"use strict";

/** `code`: NotOffered, Discovery, NoSecret, Refused, WiderGrant, Unavailable, Keychain, WrongIssuer, Argument. */
class AtpError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = "AtpError";
    this.code = code;
    Object.assign(this, details);
  }
}

module.exports = { AtpError };
