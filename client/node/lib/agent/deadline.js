// How long a call may still take. One for each call, handed to everything that waits.
"use strict";

const { AgentError } = require("./errors");

const MAX_MS = 24 * 3_600_000;

class Deadline {
  #end;
  #signal;

  constructor(ms, signal) {
    if (!(typeof ms === "number" && ms > 0 && ms <= MAX_MS)) {
      throw new AgentError("INVALID_ARGUMENT", `timeout: a number of milliseconds, more than 0 and at most ${MAX_MS}`);
    }
    this.ms = ms;
    this.#end = performance.now() + ms;
    this.#signal = signal ?? null;
  }

  get signal() {
    return this.#signal;
  }

  /** Milliseconds; 0 when it is over. Throws the signal's reason where the caller gave up. */
  left() {
    this.#signal?.throwIfAborted();
    return Math.max(0, this.#end - performance.now());
  }

  /** Waits so long, at most until the end. */
  async pause(ms) {
    const left = this.left();
    let timer;
    const over = new Promise((done) => (timer = setTimeout(done, Math.min(ms, left))));
    // Nothing is left that keeps the process where the caller gave up.
    await this.race(over).finally(() => clearTimeout(timer));
  }

  /** The promise; or what `late` makes, if the time is over first. */
  within(promise, late) {
    let timer;
    const over = new Promise((_, reject) => {
      timer = setTimeout(() => reject(late()), this.left());
    });
    return this.race(Promise.race([promise, over])).finally(() => clearTimeout(timer));
  }

  /** The promise, or the signal's reason if that comes first. */
  race(promise) {
    const signal = this.#signal;
    if (!signal) return promise;
    signal.throwIfAborted();
    return new Promise((resolve, reject) => {
      const gaveUp = () => reject(signal.reason);
      signal.addEventListener("abort", gaveUp, { once: true });
      promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", gaveUp));
    });
  }
}

/** Pauses that grow, for what may be over in a moment. */
class Pause {
  static #FIRST_MS = 20;
  static LONGEST_MS = 1_000;
  #next = Pause.#FIRST_MS;

  /** Milliseconds: as long as was asked for, or longer each time; up to a quarter more, so that those who wait together do not come together. */
  next({ retryAfterMs }) {
    const wait = Number.isFinite(retryAfterMs) ? Math.max(1, retryAfterMs) : this.#next;
    this.#next = Math.min(2 * this.#next, Pause.LONGEST_MS);
    return wait * (1 + Math.random() / 4);
  }
}

module.exports = { Deadline, Pause };
