// The agent: asks for tokens, keeps them, refreshes them ahead of their end, gives them back.
"use strict";

const { AtpError, isPassing } = require("./errors");
const { areScopes, isPurpose, parseHost, sorted } = require("./words");
const { readEntry, dueAt, isAlive, covers } = require("./entry");
const { openKeychain, SealedFiles } = require("./keychain");
const { BackOff } = require("./backoff");
const { Flights } = require("./flights");
const { Revocations } = require("./revocations");
const { secretOf } = require("./secrets");
const { State } = require("./state");
const { Wire, jsonOf } = require("./wire");
const { decode } = require("./jwt");

/** The shortest and the longest that a timer waits. */
const WAIT_MS = { least: 20, most: 0x7fffffff };
/** What could not be revoked in one go, because it was too much, goes on after this. */
const NEXT_REVOCATIONS_MS = 5_000;

/**
 * `stateDir`, `keychain` ("auto", "secret-service", "file"), `secretFile`, `caFile`; `hosts`: further hosts for the plain
 * secret; `endpoints`: endpoints elsewhere that may be used; `allowPrivate`: hosts that may be at private addresses.
 */
const createClient = (options = {}) => new Client(options);

class Client {
  #state;
  #options;
  #keychain;
  #revocations;
  #wire;
  #flights = new Flights();
  #backOff = new BackOff();
  #burials = new BackOff();
  /** By host: the timer that refreshes its token, and the one that revokes what could not be revoked. */
  #timers = new Map();
  #burialTimers = new Map();
  #status = new Map();
  #isClosed = false;
  #now;

  constructor({ stateDir, now = Date.now, ...options }) {
    this.#state = new State(stateDir);
    this.#options = { keychain: "auto", hosts: [], endpoints: [], allowPrivate: [], ...options };
    this.#now = now;
    this.#revocations = new Revocations(new SealedFiles(this.#state.folder), this.#state, now);
    const secret = async (host) => secretOf(host, this.#options, await this.#chain(), this.#state);
    this.#wire = new Wire({ options: this.#options, agentId: () => this.generateAgentId(), secretOf: secret, now });
  }

  generateAgentId() {
    return this.#state.agentId();
  }

  /** A new token for these scopes, kept and refreshed from now on. */
  async requestToken(host, { scopes, purpose } = {}) {
    const place = hostOf(host);
    const request = requestOf(scopes, purpose);
    return this.#result(await this.#alone(place, request, () => this.#obtain(place, request)));
  }

  /**
   * The stored token if it covers the scopes and has not to be refreshed yet, else a new one. One request, however many callers and
   * processes ask at the same moment. While the provider cannot answer, the stored one as long as it lives.
   */
  async ensureToken(host, { scopes, purpose } = {}) {
    const place = hostOf(host);
    const request = requestOf(scopes, purpose);
    const kept = await this.#spare(place, request);
    const isFresh = kept && this.#now() < dueAt(kept);
    if (isFresh && this.#timers.get(place.text)?.of === watchOf(request, kept)) return this.#result(kept);
    return this.#result(await this.#renew(place, request));
  }

  /** Asks the issuer. No answer is an error and never `valid: false`. */
  async verifyToken(token, host) {
    const place = hostOf(host);
    if (typeof token !== "string" || !(await this.#isFrom(token, place))) {
      throw new AtpError("WrongIssuer", `the token is not from ${place.text}: nothing was sent`);
    }
    return this.#wire.verify(place, token);
  }

  /** Gives the token back. The entry goes in any case; what did not get through is tried again, before the next request and by itself. */
  async revokeToken(host) {
    const place = hostOf(host);
    return this.#alone(place, undefined, async () => {
      this.#stop(place.text);
      await this.#state.changeHosts(({ fresh }) => delete fresh[place.text]);
      const entry = await this.#entry(place.text);
      if (entry) {
        await this.#revocations.bequeath(place.text, entry);
        await (await this.#chain()).delete(place.text);
      }
      const before = await this.#revocations.list(place.text);
      const left = await this.#bury(place);
      const isLeft = (one) => left.some(({ access_token }) => access_token === one.access_token);
      return { revoked: true, remote: entry ? !isLeft(entry) : before.length > 0 && left.length === 0 };
    });
  }

  /** By host: when the token ends, when it is due, how often in a row it could not be refreshed, why it is not tried any more, and whether tokens are still to be revoked. */
  status() {
    const all = Object.fromEntries(this.#status);
    for (const host of this.#burialTimers.keys()) all[host] = { ...all[host], to_be_revoked: true };
    return all;
  }

  /** Goes on after a restart: refreshes what was kept fresh before, and revokes what could not be revoked. */
  async resume() {
    const { fresh, revocations } = await this.#state.hosts();
    for (const [host, watched] of Object.entries(fresh)) {
      const place = parseHost(host);
      if (!place) continue;
      try {
        const request = requestOf(watched?.scopes, watched?.purpose);
        this.#schedule(place, request, await this.#entry(place.text));
      } catch (error) {
        // One host's entry that cannot be read does not keep the others.
        this.#status.set(place.text, { ended: error.message });
      }
    }
    for (const place of revocations.map(parseHost)) if (place) this.#buryIn(place, 0);
  }

  /** Stops all timers. */
  close() {
    this.#isClosed = true;
    for (const host of this.#timers.keys()) this.#stop(host);
    for (const timer of this.#burialTimers.values()) clearTimeout(timer);
    this.#burialTimers.clear();
  }

  /** Nobody else asks this host meanwhile, neither here nor in another process. */
  #alone(place, request, work) {
    return this.#flights.alone(place.text, JSON.stringify(request), () => this.#state.locked(place.text, work));
  }

  async #chain() {
    this.#keychain ??= openKeychain(this.#options.keychain, this.#state.folder);
    try {
      return await this.#keychain;
    } catch (error) {
      this.#keychain = undefined;
      throw error;
    }
  }

  async #entry(host) {
    return readEntry(await (await this.#chain()).get(host), host);
  }

  /** The kept token, if it covers the scopes and may still be handed out. */
  async #spare(place, request) {
    const entry = await this.#entry(place.text);
    return entry && covers(entry, request) && isAlive(entry, this.#now()) ? entry : null;
  }

  /**
   * A new token where that is due, by one request of all who want it now. While the provider cannot answer, the kept one. A timer asks
   * only for what is still to be kept fresh when its turn comes: another process may have given the token back while it waited.
   */
  #renew(place, request, isTimer = false) {
    const keep = (entry) => (isTimer ? this.#schedule(place, request, entry) : this.#watch(place, request, entry));
    return this.#flights.alone(place.text, JSON.stringify(request), async (flight) => {
      const spare = await this.#spare(place, request);
      const mayWait = spare && (this.#now() < dueAt(spare) || this.#backOff.left(place.text) > 0);
      if (mayWait) return keep(spare);
      const failed = flight.failedMeanwhile();
      if (failed) throw failed;
      try {
        return await this.#state.locked(place.text, async () => {
          if (isTimer && !(await this.#watched(place))) return this.#stop(place.text);
          // Another process may have refreshed it meanwhile.
          const found = await this.#spare(place, request);
          if (found && this.#now() < dueAt(found)) return keep(found);
          return this.#obtain(place, request);
        });
      } catch (error) {
        if (isPassing(error) && spare && isAlive(spare, this.#now())) return keep(spare);
        flight.fails(error);
        throw error;
      }
    });
  }

  /** What is to be kept fresh at this host, if anything is. */
  async #watched(place) {
    const { fresh } = await this.#state.hosts();
    return Object.hasOwn(fresh, place.text) ? requestOf(fresh[place.text]?.scopes, fresh[place.text]?.purpose) : null;
  }

  async #obtain(place, request) {
    try {
      const entry = await this.#ask(place, request);
      this.#backOff.over(place.text);
      return await this.#watch(place, request, entry);
    } catch (error) {
      if (isPassing(error)) this.#backOff.failed(place.text, error.retry_after);
      throw error;
    }
  }

  async #ask(place, request) {
    await this.#bury(place);
    const entry = await this.#wire.ask(place, request);
    if (!entry.scopes_granted.every((scope) => request.scopes.includes(scope))) {
      await this.#revocations.bequeath(place.text, entry);
      await this.#bury(place);
      throw new AtpError("WiderGrant", `${place.text} granted more than was asked for; the token was given back`);
    }
    await (await this.#chain()).set(place.text, JSON.stringify(entry));
    return entry;
  }

  async #result(entry) {
    return {
      access_token: entry.access_token,
      expires_in: Math.max(0, Math.round((entry.expires_at - this.#now()) / 1000)),
      scopes_granted: entry.scopes_granted,
      agent_id: entry.agent_id,
      id: entry.token_id,
      expires_at: entry.expires_at,
      stored_in: (await this.#chain()).storedIn,
    };
  }

  async #isFrom(token, place) {
    if ((await this.#entry(place.text))?.access_token === token) return true;
    const claims = jsonOf(decode(token.split(".")[1] ?? "") ?? Buffer.alloc(0));
    return claims?.iss === `https://${place.text}`;
  }

  /** Revokes what could not be revoked before; what is left. The caller holds the host's lock. */
  async #bury(place) {
    const { left, stopped } = await this.#revocations.bury(place.text, async ({ access_token }) => {
      const told = await this.#wire.revoke(place, access_token);
      // Where the process ended between the two, it is still kept.
      if (told && (await this.#entry(place.text))?.access_token === access_token) await (await this.#chain()).delete(place.text);
      return told;
    });
    clearTimeout(this.#burialTimers.get(place.text));
    this.#burialTimers.delete(place.text);
    if (left.length === 0) this.#burials.over(place.text);
    else this.#burials.failed(place.text, stopped?.retry_after);
    if (left.length > 0) this.#buryIn(place, Math.max(this.#burials.left(place.text), stopped ? 0 : NEXT_REVOCATIONS_MS));
    return left;
  }

  #buryIn(place, waitMs) {
    if (this.#isClosed) return;
    clearTimeout(this.#burialTimers.get(place.text));
    const again = () => {
      this.#alone(place, undefined, () => this.#bury(place)).catch(() => {
        this.#burials.failed(place.text);
        this.#buryIn(place, this.#burials.left(place.text));
      });
    };
    this.#burialTimers.set(place.text, setTimeout(again, Math.max(WAIT_MS.least, waitMs)).unref());
  }

  /** Remembers what to keep fresh, also after a restart. */
  async #watch(place, request, entry) {
    await this.#state.changeHosts(({ fresh }) => (fresh[place.text] = request));
    return this.#schedule(place, request, entry);
  }

  /** Refreshes this token when it is due; where there is none, now. Returns the token. */
  #schedule(place, request, entry) {
    this.#stop(place.text);
    if (this.#isClosed) return entry;
    const now = this.#now();
    const wait = Math.max(WAIT_MS.least, (entry ? dueAt(entry) : now) - now, this.#backOff.left(place.text));
    this.#status.set(place.text, { expires_at: entry?.expires_at, due_at: now + wait, failures: this.#backOff.count(place.text) });
    const timer = setTimeout(() => this.#refresh(place), Math.min(WAIT_MS.most, wait)).unref();
    this.#timers.set(place.text, { timer, of: watchOf(request, entry) });
    return entry;
  }

  /** Never throws. What is to be kept fresh is looked up anew: another process may have changed it. */
  async #refresh(place) {
    let request;
    try {
      request = await this.#watched(place);
      if (request === null) return this.#stop(place.text);
      await this.#renew(place, request, true);
    } catch (error) {
      const entry = await this.#entry(place.text).catch(() => null);
      if (request && isPassing(error)) this.#schedule(place, request, entry);
      else this.#end(place.text, error, entry);
    }
  }

  /** It is not tried any more until somebody requests it again. */
  #end(host, error, entry) {
    this.#stop(host);
    this.#status.set(host, { expires_at: entry?.expires_at, ended: error.error ?? error.message });
  }

  #stop(host) {
    clearTimeout(this.#timers.get(host)?.timer);
    this.#timers.delete(host);
    this.#status.delete(host);
  }
}

/** What a timer is for: another request or another token takes another. */
const watchOf = (request, entry) => JSON.stringify([request, entry?.access_token]);

function hostOf(text) {
  const host = parseHost(text);
  if (!host) throw new AtpError("Argument", "a host is a DNS name, such as api.example.com or localhost:8443, and no address");
  return host;
}

function requestOf(scopes, purpose) {
  if (!areScopes(scopes) || scopes.length === 0) throw new AtpError("Argument", "scopes must be a list of 1 to 32 distinct texts of 1 to 64 characters of A-Z a-z 0-9 . _ : / * -");
  if (purpose !== undefined && (typeof purpose !== "string" || !isPurpose(purpose))) {
    throw new AtpError("Argument", "purpose must be a text of at most 256 bytes without control or format characters");
  }
  return { scopes: sorted(scopes), purpose };
}

module.exports = { createClient };
