// Tokens that were given back here and whose providers could not be told yet. They lie in sealed files, whatever the keychain is,
// until the provider has answered or the token has ended.
"use strict";

const { AtpError, isPassing } = require("./errors");

/** The account of a host's tombstones, before its name. */
const ACCOUNT = "__atp_revoke__:";
/** The most tombstones of one host; what ends first makes room. */
const MAX_TOMBSTONES = 64;
/** How many are sent in one go: an agent has a rate, and its next token counts in it too. */
const MAX_AT_ONCE = 5;

class Revocations {
  #files;
  #state;
  #now;

  constructor(files, state, now) {
    this.#files = files;
    this.#state = state;
    this.#now = now;
  }

  /** The tokens that are still to be revoked. */
  async list(host) {
    const text = await this.#files.get(ACCOUNT + host);
    if (text === null) return [];
    try {
      // Once there was one for each host.
      const entries = [].concat(JSON.parse(text));
      if (entries.every((entry) => typeof entry?.access_token === "string" && Number.isFinite(entry.expires_at))) return entries;
    } catch {
      // Below.
    }
    throw new AtpError("Keychain", `the list of tokens of ${host} to be revoked is damaged; remove ${this.#files.file(ACCOUNT + host)}`);
  }

  /** Leaves a tombstone. The caller holds the host's lock. */
  async bequeath(host, entry) {
    const left = (await this.list(host)).filter((one) => one.access_token !== entry.access_token);
    left.push(entry);
    left.sort((one, other) => other.expires_at - one.expires_at);
    if (left.length > MAX_TOMBSTONES) {
      process.emitWarning(`agent-tokens: so many tokens of ${host} could not be revoked that the one that ends first is left to end`);
      left.length = MAX_TOMBSTONES;
    }
    await this.#set(host, left);
  }

  /**
   * Revokes what could not be revoked before, by `tell(entry)`: whether the provider says it is over. Returns what is left, and the
   * error that stopped it, if one did. One that is refused does not keep the others. The caller holds the host's lock.
   */
  async bury(host, tell) {
    const before = await this.list(host);
    if (before.length === 0) return { left: [] };
    const [refused, untried] = [[], []];
    let [sent, stopped] = [0, undefined];
    for (const entry of before.filter(({ expires_at }) => expires_at >= this.#now())) {
      if (stopped !== undefined || sent === MAX_AT_ONCE) {
        untried.push(entry);
        continue;
      }
      sent += 1;
      try {
        if (!(await tell(entry))) refused.push(entry);
      } catch (error) {
        if (isPassing(error)) stopped = error;
        refused.push(entry);
      }
    }
    const left = [...untried, ...refused];
    await this.#set(host, left);
    return { left, stopped };
  }

  async #set(host, left) {
    // First where they are, then that there are some: what is listed and not there does no harm.
    if (left.length === 0) await this.#files.delete(ACCOUNT + host);
    else await this.#files.set(ACCOUNT + host, JSON.stringify(left));
    await this.#state.changeHosts((hosts) => {
      hosts.revocations = hosts.revocations.filter((one) => one !== host);
      if (left.length > 0) hosts.revocations.push(host);
    });
  }
}

module.exports = { Revocations };
