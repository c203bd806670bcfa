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

const MAY_PASS = new Set(["AUTHORITY_UNREACHABLE", "DAEMON_UNREACHABLE", "OVERLOADED", "UNAVAILABLE"]);

/** Whether an authenticator may answer otherwise in a moment, with nothing done about it. */
const mayPass = (error) => error instanceof AgentError && MAY_PASS.has(error.code);

module.exports = { AgentError, Lost, mayPass };
