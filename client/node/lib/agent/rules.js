// The retry table (tests/vectors/sdk/README.md), as a function: what to do after an answer or a failure. It decides, and does
// nothing; budgets are those of one call.
"use strict";

const REPEATABLE = new Set(["GET", "HEAD", "OPTIONS"]);
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const NEW_SESSION_PAUSE_MS = 250;
const BUSY = new Set(["UNAVAILABLE", "OVERLOADED"]);
const STALE = new Set(["STALE_TIMESTAMP", "EPOCH_EXPIRED"]);
const ENDED = new Set(["SESSION_EXPIRED", "SESSION_NOT_FOUND"]);

/** The guard could not decide, and nothing was run. */
const isBusy = (code) => BUSY.has(code);
const jitter = (ms) => ms * (0.5 + Math.random());

/** Milliseconds of a `Retry-After` in whole seconds; anything else counts as one second. */
const retryAfterMs = (text) => (/^[0-9]{1,6}$/.test(text ?? "") ? Number(text) * 1_000 : 1_000);

class Rules {
  #left = { connect: 2, ambiguous: 1, stale: 1, young: 1, ended: 1, busy: 2 };
  #request;
  #once;

  /** `request`: `method`, `stream`, `idempotencyKey`. */
  constructor(request) {
    this.#request = request;
    this.#once = request.stream;
  }

  /** From now on nothing is sent again: there is one token for the call. */
  once() {
    this.#once = true;
  }

  /** Whether what was sent was all that is. */
  get isOnce() {
    return this.#once;
  }

  /** Whether doing it twice is as good as once. */
  get repeatable() {
    return REPEATABLE.has(this.#request.method);
  }

  #spend(budget) {
    if (this.#once || this.#left[budget] === 0) return false;
    this.#left[budget] -= 1;
    return true;
  }

  #ambiguous() {
    return (this.repeatable || this.#request.idempotencyKey !== undefined) && this.#spend("ambiguous");
  }

  /** Never connected: `{ again }` milliseconds later, or null. */
  unsent() {
    return this.#spend("connect") ? { again: jitter(this.#left.connect === 1 ? 100 : 200) } : null;
  }

  /** Sent and not answered. */
  unanswered() {
    return this.#ambiguous() ? { again: jitter(100) } : null;
  }

  /**
   * After an answer: `{ again: ms }`, `{ authenticate: true }`, `{ young: ms }` (if the session is new, else as if it had ended),
   * `{ stolen: true }`, `{ redirect: true }`, or null: it is the answer.
   */
  answered(status, code, retryAfter) {
    if (status === 401) return this.#unauthorized(code);
    if (status === 409 && retryAfter !== null && this.#request.idempotencyKey !== undefined && !this.#once) {
      return { again: Math.max(10, retryAfterMs(retryAfter)) };
    }
    if (status === 503 && isBusy(code)) return this.#spend("busy") ? { again: retryAfterMs(retryAfter) } : null;
    if (status >= 500) return this.#ambiguous() ? { again: jitter(100) } : null;
    return REDIRECTS.has(status) ? { redirect: true } : null;
  }

  #unauthorized(code) {
    if (code === "TOKEN_REPLAYED") return { stolen: true };
    if (STALE.has(code)) return this.#spend("stale") ? { again: 0 } : null;
    if (code === "SESSION_NOT_FOUND" && this.#left.young > 0 && !this.#once) return { young: NEW_SESSION_PAUSE_MS };
    return ENDED.has(code) ? this.ended() : null;
  }

  /** The session is new, and was not known yet. */
  young() {
    return this.#spend("young");
  }

  ended() {
    return this.#spend("ended") ? { authenticate: true } : null;
  }
}

module.exports = { Rules, isBusy };
