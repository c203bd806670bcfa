// How long a provider that could not answer is left alone.
"use strict";

/** The first and the longest pause; what is waited is a random part of it. */
const PAUSE_MS = { first: 1_000, longest: 60_000 };
/** The most that a provider can ask to wait. */
const MAX_RETRY_AFTER_SECS = 3_600;

/** A random part (0 to 1) of what doubles with each failure. */
const pause = (failures, random) => Math.min(PAUSE_MS.longest, PAUSE_MS.first * 2 ** failures) * random;

/** Failures in a row, by host. */
class BackOff {
  #all = new Map();

  /** One more failure; the provider may have said how many seconds to wait. */
  failed(host, retryAfter = 0) {
    const count = this.count(host);
    const wait = Math.max(pause(count, Math.random()), Math.min(retryAfter, MAX_RETRY_AFTER_SECS) * 1000);
    this.#all.set(host, { count: count + 1, until: performance.now() + wait });
  }

  over(host) {
    this.#all.delete(host);
  }

  /** How many milliseconds it still is. */
  left(host) {
    return Math.max(0, (this.#all.get(host)?.until ?? 0) - performance.now());
  }

  count(host) {
    return this.#all.get(host)?.count ?? 0;
  }
}

module.exports = { BackOff, pause };
