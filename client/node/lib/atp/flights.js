// One request for each host at a time. Who waited for one that failed shares its failure, instead of making one more; but only if it
// wants the same, or the provider could answer nobody.
"use strict";

const { isPassing } = require("./errors");

class Flights {
  #hosts = new Map();
  #clock = 0;

  /** Runs once no other flight to this host is under way; `work` gets `{ failedMeanwhile(), fails(error) }`. */
  async alone(host, wanted, work) {
    const asked = ++this.#clock;
    const line = this.#hosts.get(host) ?? { waiting: 0, tail: Promise.resolve(), last: null };
    this.#hosts.set(host, line);
    line.waiting += 1;
    const flight = {
      /** Why one failed that ended after this one was asked for. */
      failedMeanwhile: () => (line.last && line.last.when > asked && (line.last.wanted === wanted || isPassing(line.last.error)) ? line.last.error : null),
      /** Tells those who wait. */
      fails: (error) => (line.last = { when: ++this.#clock, wanted, error }),
    };
    const turn = line.tail.then(() => work(flight));
    line.tail = turn.then(() => {}, () => {});
    try {
      return await turn;
    } finally {
      line.waiting -= 1;
      if (line.waiting === 0) this.#hosts.delete(host);
    }
  }
}

module.exports = { Flights };
