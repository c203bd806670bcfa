// What can go wrong. `code` is stable (tests/vectors/sdk/errors.json); no message holds a token, a key or a proof.
"use strict";

class AgentError extends Error {
  /** `details`: `retryAfterMs`, `status`, `registration`, where there is such a thing. */
  constructor(code, message, details = {}) {
    super(message);
    this.name = "AgentError";
    this.code = code;
    Object.assign(this, details);
  }
}

/** A daemon's answer never came, although the request went out. For who decides whether to ask again. */
class Lost extends Error {}

module.exports = { AgentError, Lost };
