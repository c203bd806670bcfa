// What can go wrong on the agent's side. `code` is stable; no message holds a secret.
"use strict";

/** `code`: NotOffered, Discovery, NoSecret, Refused, WiderGrant, Unavailable, Keychain, WrongIssuer, Argument, State, Locked. */
class AtpError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = "AtpError";
    this.code = code;
    Object.assign(this, details);
  }
}

/** Whether the same request may succeed later. */
function isPassing(error) {
  if (error?.code === "Refused") return error.status === 429;
  return error instanceof AtpError && (error.code === "Unavailable" || error.code === "Locked");
}

module.exports = { AtpError, isPassing };
