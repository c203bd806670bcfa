// What is said to a provider: its document is fetched, requests are signed, tokens are shown to their issuer.
"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const { AtpError } = require("./errors");
const { canonicalBody, signAtpBody } = require("./signature");
const { readDocument, lifeOf } = require("./discovery");
const { entryOf } = require("./entry");
const { send } = require("./connect");

const FAILURE_LIFE_MS = 30_000;
const MAX_CLOCK_CORRECTION_MS = 15 * 60_000;

class Wire {
  #options;
  #agentId;
  #secretOf;
  #now;
  #documents = new Map();
  #clockCorrection = new Map();

  constructor({ options, agentId, secretOf, now }) {
    this.#options = options;
    this.#agentId = agentId;
    this.#secretOf = secretOf;
    this.#now = now;
  }

  /** Asks for a token; the entry that it makes. */
  async ask(place, request) {
    const { token: endpoint } = await this.#discover(place);
    const answer = await this.#signed(place, endpoint, request);
    // A document that led nowhere is fetched anew next time.
    if (answer.status === 404 || answer.status === 410) this.#documents.delete(place.text);
    if (answer.status !== 200) throw refused(place, answer);
    const entry = entryOf(endpoint, jsonOf(answer.body), this.#now());
    if (entry === null) throw new AtpError("Unavailable", `${place.text} answered without a token of the right form`);
    return entry;
  }

  /** What the issuer says of a token. */
  async verify(place, token) {
    const { verify } = await this.#discover(place);
    const answer = await this.#send(verify, { headers: { Authorization: `Bearer ${token}` } });
    const body = jsonOf(answer.body);
    if (answer.status !== 200 || typeof body?.valid !== "boolean") throw refused(place, answer);
    const { scopes, expires_at, agent_id } = body;
    return body.valid ? { valid: true, scopes, expires_at, agent_id } : { valid: false };
  }

  /** Whether the provider says that a token is over. */
  async revoke(place, token) {
    const { token: endpoint, revoke } = await this.#discover(place);
    const answer = await this.#signed(place, revoke, { action: "revoke", token }, endpoint.text);
    if (answer.status !== 200) throw refused(place, answer);
    return jsonOf(answer.body)?.revoked === true;
  }

  /** Signs and sends; once more with the clock corrected, or with a secret that was changed meanwhile. */
  async #signed(place, endpoint, members, aud = endpoint.text, mayRepeat = true) {
    const secret = await this.#secretOf(place.text);
    const body = {
      ...members,
      agent_id: await this.#agentId(),
      aud,
      nonce: randomBytes(16).toString("base64url"),
      timestamp: Math.floor(this.#now() + (this.#clockCorrection.get(place.text) ?? 0)),
    };
    const text = canonicalBody({ ...body });
    const signed = `${text.slice(0, -1)},"signature":"${signAtpBody(body, secret)}"}`;
    const answer = await this.#send(endpoint, { headers: { "Content-Type": "application/json" }, body: signed });
    const repeat = () => this.#signed(place, endpoint, members, aud, false);
    if (mayRepeat && answer.status === 401) {
      const code = jsonOf(answer.body)?.error;
      if (code === "stale_timestamp" && this.#correctClock(place.text, answer.headers.date)) return repeat();
      if (code === "invalid_signature" && (await this.#secretOf(place.text)) !== secret) return repeat();
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
      if (answer.status >= 500) throw refused(place, answer);
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
    const ca = caFile === undefined ? undefined : authority(caFile);
    return send(endpoint, { ...request, ca, mayBePrivate: allowPrivate.includes(endpoint.host.text) });
  }
}

function authority(file) {
  try {
    return fs.readFileSync(file);
  } catch (error) {
    throw new AtpError("Argument", `caFile ${file} cannot be read (${error.code})`);
  }
}

function refused(place, answer) {
  const error = jsonOf(answer.body)?.error;
  const code = typeof error === "string" && /^[a-z_]{1,40}$/.test(error) ? error : `status_${answer.status}`;
  const seconds = /^[0-9]{1,6}$/.exec(answer.headers["retry-after"] ?? "")?.[0];
  const details = { status: answer.status, error: code, retry_after: seconds === undefined ? undefined : Number(seconds) };
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

module.exports = { Wire, jsonOf };
