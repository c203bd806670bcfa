// The agent: asks for tokens, keeps them, refreshes them ahead of their end, gives them back.
"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const { AtpError } = require("./errors");
const { areScopes, isPurpose, parseHost, sorted } = require("./words");
const { canonicalBody, signAtpBody } = require("./signature");
const { readDocument, lifeOf } = require("./discovery");
const { openKeychain } = require("./keychain");
const { State } = require("./state");
const { send } = require("./connect");
const { decode } = require("./jwt");

const FAILURE_LIFE_MS = 30_000;
const MAX_CLOCK_CORRECTION_MS = 15 * 60_000;
const MAX_LEAD_MS = 300_000;
const BACK_OFF_MS = { first: 1_000, last: 60_000 };
const SECRET_ACCOUNT = "__atp_secret__:";
const TOMBSTONE_ACCOUNT = "__atp_revoke__:";

/**
 * `stateDir`, `keychain` ("auto", "secret-service", "file"), `secretFile`, `caFile`; `hosts`: further hosts for the plain
 * secret; `endpoints`: endpoints elsewhere that may be used; `allowPrivate`: hosts that may be at private addresses.
 */
const createClient = (options = {}) => new Client(options);

class Client {
  #state;
  #options;
  #keychain;
  #documents = new Map();
  #flights = new Map();
  #timers = new Map();
  #status = new Map();
  #clockCorrection = new Map();
  #now;

  constructor({ stateDir, now = Date.now, ...options }) {
    this.#state = new State(stateDir);
    this.#options = { keychain: "auto", hosts: [], endpoints: [], allowPrivate: [], ...options };
    this.#now = now;
  }

  generateAgentId() {
    return this.#state.agentId();
  }

  /** A new token for these scopes, kept and refreshed from now on. */
  async requestToken(host, { scopes, purpose } = {}) {
    const place = hostOf(host);
    const request = requestOf(scopes, purpose);
    return this.#single(place.text, () => this.#state.locked(place.text, () => this.#obtain(place, request)));
  }

  /** The stored token if it covers the scopes and has not to be refreshed yet, else a new one. */
  async ensureToken(host, { scopes, purpose } = {}) {
    const place = hostOf(host);
    const request = requestOf(scopes, purpose);
    const fresh = await this.#stored(place.text, request);
    if (fresh) return (this.#schedule(place, request, fresh), this.#result(fresh));
    return this.#single(place.text, () =>
      this.#state.locked(place.text, async () => {
        // Another process may have refreshed it meanwhile.
        const found = await this.#stored(place.text, request);
        if (found) return (this.#schedule(place, request, found), this.#result(found));
        return this.#obtain(place, request);
      }),
    );
  }

  /** Asks the issuer. No answer is an error and never `valid: false`. */
  async verifyToken(token, host) {
    const place = hostOf(host);
    if (typeof token !== "string" || !(await this.#isFrom(token, place))) {
      throw new AtpError("WrongIssuer", `the token is not from ${place.text}: nothing was sent`);
    }
    const { verify } = await this.#discover(place);
    const answer = await this.#send(verify, { headers: { Authorization: `Bearer ${token}` } });
    const body = jsonOf(answer.body);
    if (answer.status !== 200 || typeof body?.valid !== "boolean") throw refused(place, answer);
    return body.valid ? pick(body, ["valid", "scopes", "expires_at", "agent_id"]) : { valid: false };
  }

  /** Gives the token back. The entry goes in any case; what did not get through is tried again. */
  async revokeToken(host) {
    const place = hostOf(host);
    this.#stop(place.text);
    await this.#state.remember(place.text, undefined);
    const keychain = await this.#chain();
    const entry = parse(await keychain.get(place.text));
    if (!entry) return { revoked: true, remote: false };
    await keychain.set(TOMBSTONE_ACCOUNT + place.text, JSON.stringify(entry));
    await keychain.delete(place.text);
    return { revoked: true, remote: await this.#bury(place) };
  }

  /** By host: when the token ends, when it is due, and why it could not be refreshed. */
  status() {
    return Object.fromEntries(this.#status);
  }

  /** Goes on after a restart: refreshes what was kept fresh before, and revokes what could not be revoked. */
  async resume() {
    for (const [host, request] of Object.entries(await this.#state.hosts())) {
      const place = parseHost(host);
      const entry = place && parse(await (await this.#chain()).get(place.text));
      if (entry) this.#schedule(place, request, entry);
    }
  }

  /** Stops all timers. */
  close() {
    for (const host of this.#timers.keys()) this.#stop(host);
  }

  #single(host, work) {
    const flying = this.#flights.get(host);
    if (flying) return flying;
    const flight = work().finally(() => this.#flights.delete(host));
    this.#flights.set(host, flight);
    return flight;
  }

  async #chain() {
    return (this.#keychain ??= openKeychain(this.#options.keychain, this.#state.folder));
  }

  async #stored(host, request) {
    const entry = parse(await (await this.#chain()).get(host));
    const covers = entry && request.scopes.every((scope) => entry.scopes_granted.includes(scope));
    return covers && this.#now() < dueAt(entry, 1) ? entry : null;
  }

  async #obtain(place, request) {
    await this.#bury(place);
    const { token: endpoint } = await this.#discover(place);
    const answer = await this.#signed(place, endpoint, request, true);
    const body = jsonOf(answer.body);
    if (answer.status === 404 || answer.status === 410) this.#documents.delete(place.text);
    if (answer.status !== 200) throw refused(place, answer);
    const entry = this.#entryOf(place, endpoint, body);
    if (!entry.scopes_granted.every((scope) => request.scopes.includes(scope))) {
      await this.#sendRevocation(place, entry.access_token).catch(() => {});
      throw new AtpError("WiderGrant", `${place.text} granted more than was asked for; the token was given back`);
    }
    await (await this.#chain()).set(place.text, JSON.stringify(entry));
    await this.#state.remember(place.text, request);
    this.#schedule(place, request, entry);
    return this.#result(entry);
  }

  #entryOf(place, endpoint, body) {
    const sound = typeof body?.token === "string" && body.token !== "" && areScopes(body.scopes_granted) && Number.isSafeInteger(body.expires_in) && body.expires_in > 0;
    if (!sound) throw new AtpError("Unavailable", `${place.text} answered without a token of the right form`);
    return {
      method: "agent_token",
      access_token: body.token,
      expires_at: this.#now() + body.expires_in * 1000,
      scopes_granted: sorted(body.scopes_granted),
      agent_id: String(body.agent_id ?? ""),
      token_id: String(body.id ?? ""),
      endpoint: endpoint.text,
      obtained_at: this.#now(),
    };
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

  /** Signs and sends; once more with the clock corrected, or with a secret that was changed meanwhile. */
  async #signed(place, endpoint, members, mayRepeat, aud = endpoint.text) {
    const secret = await this.#secret(place.text);
    const body = {
      ...members,
      agent_id: await this.generateAgentId(),
      aud,
      nonce: randomBytes(16).toString("base64url"),
      timestamp: Math.floor(this.#now() + (this.#clockCorrection.get(place.text) ?? 0)),
    };
    const text = canonicalBody({ ...body });
    const signed = `${text.slice(0, -1)},"signature":"${signAtpBody(body, secret)}"}`;
    const answer = await this.#send(endpoint, { headers: { "Content-Type": "application/json" }, body: signed });
    const repeat = () => this.#signed(place, endpoint, members, false, aud);
    if (mayRepeat && answer.status === 401) {
      const code = jsonOf(answer.body)?.error;
      if (code === "stale_timestamp" && this.#correctClock(place.text, answer.headers.date)) return repeat();
      if (code === "invalid_signature" && (await this.#secret(place.text)) !== secret) return repeat();
    }
    return answer;
  }

  #correctClock(host, date) {
    const difference = Date.parse(date ?? "") - this.#now();
    if (!(Math.abs(difference) <= MAX_CLOCK_CORRECTION_MS)) return false;
    this.#clockCorrection.set(host, difference);
    return true;
  }

  async #discover(place) {
    const kept = this.#documents.get(place.text);
    if (kept && this.#now() < kept.until) {
      if (kept.error) throw kept.error;
      return kept.found;
    }
    try {
      const endpoint = { host: place, authority: place.text, path: "/.well-known/agentdom.json" };
      const answer = await this.#send(endpoint, { method: "GET" });
      if (answer.status !== 200) throw new AtpError("NotOffered", `${place.text} has no discovery document (${answer.status})`);
      const found = readDocument(answer.body, place, this.#options.endpoints);
      this.#documents.set(place.text, { found, until: this.#now() + lifeOf(answer.headers) });
      return found;
    } catch (error) {
      this.#documents.set(place.text, { error, until: this.#now() + FAILURE_LIFE_MS });
      throw error;
    }
  }

  #send(endpoint, request) {
    const { caFile, allowPrivate } = this.#options;
    const ca = caFile === undefined ? undefined : fs.readFileSync(caFile);
    return send(endpoint, { ...request, ca, mayBePrivate: allowPrivate.includes(endpoint.host.text) });
  }

  /** Read afresh for each request, so that a rotation needs no restart. */
  async #secret(host) {
    const { secretFile, hosts } = this.#options;
    if (secretFile !== undefined) return fs.readFileSync(secretFile, "utf8").replace(/\r?\n$/, "");
    const kept = await (await this.#chain()).get(SECRET_ACCOUNT + host);
    if (kept) return kept;
    const own = process.env[`AGENTDOM_ATP_SECRET__${host.toUpperCase().replace(/[^A-Z0-9]/g, "_")}`];
    if (own) return (warnOfEnvironment(), own);
    const plain = process.env.AGENTDOM_ATP_SECRET;
    if (!plain) throw new AtpError("NoSecret", `no secret for ${host}: set secretFile, or AGENTDOM_ATP_SECRET`);
    warnOfEnvironment();
    const bound = hosts.includes(host) ? host : await this.#state.bindPlainSecret(host);
    if (bound !== host) throw new AtpError("NoSecret", `AGENTDOM_ATP_SECRET is used for ${bound}; to use it for ${host} too, list that in hosts`);
    return plain;
  }

  async #isFrom(token, place) {
    const entry = parse(await (await this.#chain()).get(place.text));
    if (entry?.access_token === token) return true;
    const claims = jsonOf(decode(token.split(".")[1] ?? "") ?? Buffer.alloc(0));
    return claims?.iss === `https://${place.text}`;
  }

  async #sendRevocation(place, token) {
    const { token: endpoint, revoke } = await this.#discover(place);
    const answer = await this.#signed(place, revoke, { action: "revoke", token }, true, endpoint.text);
    return answer.status === 200 && jsonOf(answer.body)?.revoked === true;
  }

  /** Revokes what could not be revoked before. */
  async #bury(place) {
    const keychain = await this.#chain();
    const entry = parse(await keychain.get(TOMBSTONE_ACCOUNT + place.text));
    if (!entry) return true;
    const gone = entry.expires_at < this.#now() || (await this.#sendRevocation(place, entry.access_token).catch(() => false));
    if (gone) await keychain.delete(TOMBSTONE_ACCOUNT + place.text);
    return gone;
  }

  #schedule(place, request, entry, failures = 0, waitMs) {
    this.#stop(place.text);
    const at = waitMs === undefined ? dueAt(entry, 0.9 + Math.random() * 0.2) : this.#now() + waitMs;
    this.#status.set(place.text, { expires_at: entry.expires_at, due_at: at, failures });
    const timer = setTimeout(() => this.#refresh(place, request, entry, failures), Math.min(Math.max(0, at - this.#now()), 0x7fffffff));
    timer.unref();
    this.#timers.set(place.text, timer);
  }

  async #refresh(place, request, entry, failures) {
    try {
      await this.#single(place.text, () => this.#state.locked(place.text, () => this.#renew(place, request, entry)));
    } catch (error) {
      if (error.code === "Refused" && error.status !== 429 && error.status < 500) {
        this.#status.set(place.text, { expires_at: entry.expires_at, ended: error.error });
        return;
      }
      const longest = Math.min(BACK_OFF_MS.last, BACK_OFF_MS.first * 2 ** failures);
      this.#schedule(place, request, entry, failures + 1, Math.max(Math.random() * longest, (error.retry_after ?? 0) * 1000));
    }
  }

  /** A new token, unless another process has fetched one meanwhile. */
  async #renew(place, request, entry) {
    const found = await this.#stored(place.text, request);
    if (!found || found.access_token === entry.access_token) return this.#obtain(place, request);
    this.#schedule(place, request, found);
    return this.#result(found);
  }

  #stop(host) {
    clearTimeout(this.#timers.get(host));
    this.#timers.delete(host);
    this.#status.delete(host);
  }
}

/** When a token has to be refreshed: a fifth of its life before its end, at most 5 minutes, times a factor. */
function dueAt({ expires_at, obtained_at }, factor) {
  return expires_at - Math.min(MAX_LEAD_MS, (expires_at - obtained_at) / 5) * factor;
}

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

function refused(place, answer) {
  const error = jsonOf(answer.body)?.error;
  const code = typeof error === "string" && /^[a-z_]{1,40}$/.test(error) ? error : `status_${answer.status}`;
  const seconds = Number(/^[0-9]{1,6}$/.exec(answer.headers["retry-after"] ?? "")?.[0] ?? NaN);
  const details = { status: answer.status, error: code, retry_after: Number.isNaN(seconds) ? undefined : seconds };
  if (answer.status >= 500) return new AtpError("Unavailable", `${place.text} cannot answer at the moment (${code})`, details);
  return new AtpError("Refused", `${place.text} refused: ${code}`, details);
}

function jsonOf(bytes) {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return undefined;
  }
}

const parse = (text) => (text === null ? null : JSON.parse(text));
const pick = (body, names) => Object.fromEntries(names.map((name) => [name, body[name]]));

let warned = false;
function warnOfEnvironment() {
  if (!warned) process.emitWarning("agent-tokens: the secret comes from the environment, which other processes of this user can read; secretFile is safer");
  warned = true;
}

module.exports = { createClient };
