// The provider: middleware that issues, checks and revokes tokens. Checks run in the order of docs/atp.md; before the signature
// holds, nothing that is answered depends on which agents there are.
"use strict";

const { createHash, randomBytes } = require("node:crypto");
const { MAX_BODY_BYTES, SCOPE, parseEndpoint, sorted } = require("./words");
const { verifyAtpSignature } = require("./signature");
const { BodyError, parseTokenBody, parseRevokeBody } = require("./body");
const { createKey } = require("./jwt");
const { createLimiter } = require("./rate");
const { openState, Unavailable } = require("./marks");

const MIN_SECRET_BYTES = 16;
const SHORT_SECRET_BYTES = 32;
const WINDOW_BACK_MS = 300_000;
const WINDOW_AHEAD_MS = 60_000;
/** What was signed up to so long after a start may have been answered before it. Without a folder it is refused, so it is short. */
const MEMORY_AHEAD_MS = 5_000;
const BODY_TIMEOUT_MS = 10_000;
const DEFAULT_TTL_SECS = 3600;
const MAX_TTL_SECS = 86_400;
/** What tokens name as their issuer where the middleware was not told its URL. */
const LOCAL_ORIGIN = "https://localhost";

/** A refusal of the protocol. */
class Refusal extends Error {
  constructor(status, code, description, headers = {}) {
    super(description);
    Object.assign(this, { status, code, headers });
  }
}

const WRONG_SIGNATURE = () => new Refusal(401, "invalid_signature", "the signature is not valid for this agent");
const UNAVAILABLE = () => new Refusal(503, "unavailable", "nothing can be issued at the moment", { "Retry-After": "5" });

/**
 * Middleware for the path it is mounted at.
 *
 * `secret`: a text, a list of two texts (the newest first), or a function from agent id to one of these (may be async).
 * `scopes`: what is on offer. `tokenTTL`: seconds. `url`: the endpoint as agents see it; without it only requests that name
 * no `aud`, or one at localhost, are taken. `stateDir`: keeps replay marks, revocations and the JWT key over restarts.
 * `requireAud`, `addressRate` (100), `agentRate` (1): as in docs/atp.md; a rate of 0 is none.
 */
function middleware(options) {
  const provider = new Provider(options);
  const handle = (req, res, next) => {
    provider.handle(req, res, next).catch((error) => answer(res, error));
  };
  handle.require = (scope) => (req, res, next) => provider.guard(scope, req).then(() => next(), (error) => answer(res, error));
  handle.wellKnown = (about) => (req, res) => provider.publish(about, req, res);
  return handle;
}

class Provider {
  constructor({ secret, scopes, tokenTTL = DEFAULT_TTL_SECS, url, stateDir, requireAud = false, addressRate = 100, agentRate = 1, now = Date.now }) {
    if (!Array.isArray(scopes) || scopes.length === 0 || !scopes.every((scope) => SCOPE.test(scope))) {
      throw new TypeError("atp-server: scopes must be a list of texts of 1 to 64 characters of A-Z a-z 0-9 . _ : / * -");
    }
    if (!Number.isInteger(tokenTTL) || tokenTTL < 1 || tokenTTL > MAX_TTL_SECS) {
      throw new TypeError("atp-server: tokenTTL must be 1 to 86400 seconds");
    }
    this.secretsOf = typeof secret === "function" ? secret : fixed(secret);
    this.cred = typeof secret === "function" ? undefined : "shared";
    this.scopes = new Set(scopes);
    this.ttl = tokenTTL;
    this.endpoint = url === undefined ? undefined : parseEndpoint(url, { local: true });
    if (this.endpoint === null) throw new TypeError("atp-server: url must be an HTTPS URL such as https://api.example.com/v1/agent-tokens");
    if (!this.endpoint) warn("no url was given: requests that name their endpoint in aud are refused, but for localhost");
    this.requireAud = requireAud;
    this.now = now;
    this.ahead = stateDir === undefined ? MEMORY_AHEAD_MS : WINDOW_AHEAD_MS;
    this.state = openState(stateDir, Math.floor((now() + this.ahead) / 1000));
    if (stateDir === undefined) warn("replay marks and the JWT key are in memory: tokens end with this process; requests signed before now are refused");
    this.key = createKey(this.state.kid, this.state.key);
    if (typeof secret !== "function" && [].concat(secret).some((one) => this.key.bytes.equals(Buffer.from(one)))) {
      throw new TypeError("atp-server: the JWT key must not be a secret that agents have");
    }
    this.nobody = randomBytes(32);
    this.addressLimit = createLimiter(addressRate, addressRate * 2);
    this.agentLimit = createLimiter(agentRate, 10);
  }

  get origin() {
    return this.endpoint?.origin ?? LOCAL_ORIGIN;
  }

  async handle(req, res, next) {
    const route = req.path ?? req.url.split("?")[0];
    const serve = { "/": this.issue, "/verify": this.check, "/revoke": this.revoke }[route];
    if (serve === undefined) return next?.();
    if (req.method !== "POST") throw new Refusal(405, "method_not_allowed", "this route takes POST", { Allow: "POST" });
    this.limit(this.addressLimit, req.socket?.remoteAddress ?? "");
    respond(res, 200, await serve.call(this, req));
  }

  limit(limiter, name) {
    const wait = limiter(name, this.now());
    if (wait > 0) throw new Refusal(429, "too_many_requests", "too many requests", { "Retry-After": String(wait) });
  }

  async issue(req) {
    const { body, signature } = await this.authentic(req, parseTokenBody);
    await this.spend(body, signature);
    if (body.scopes.length === 0 || !body.scopes.every((scope) => this.scopes.has(scope))) {
      throw new Refusal(400, "invalid_scope", "ask for one or more scopes, all of them offered");
    }
    const scopes = sorted(body.scopes);
    const iat = Math.floor(this.now() / 1000);
    const id = `tok_${randomBytes(16).toString("hex")}`;
    const { origin, cred } = this;
    const agent = body.agent_id;
    const claims = { iss: origin, aud: origin, sub: agent, agent_id: agent, scope: scopes.join(" "), scopes, iat, exp: iat + this.ttl, jti: id, cred };
    const expires_at = claims.exp * 1000;
    return { token: this.key.mint(claims), token_type: "Bearer", expires_in: this.ttl, expires_at, scopes_granted: scopes, scopes, id, agent_id: agent };
  }

  /** A body whose signature held, that is meant for here, and not too old. */
  async authentic(req, parse) {
    const { body, signature } = read(await bytesOf(req), parse);
    const found = [].concat((await this.secretsOf(body.agent_id)) ?? []).filter(usable);
    // Always two, so that time does not tell whether there is an agent, or a second secret.
    const matches = [found[0] ?? this.nobody, found[1] ?? this.nobody].map((secret) => verifyAtpSignature({ ...body }, signature, secret));
    if (!matches.includes(true)) throw WRONG_SIGNATURE();
    this.limit(this.agentLimit, body.agent_id);
    this.checkAudience(body.aud, req);
    const now = this.now();
    if (body.timestamp < now - WINDOW_BACK_MS || body.timestamp > now + this.ahead) {
      throw new Refusal(401, "stale_timestamp", "signed too long ago, or ahead of this clock (see Date)");
    }
    return { body, signature };
  }

  checkAudience(aud, req) {
    if (aud === undefined && !this.requireAud) return;
    if (this.endpoint ? aud === this.endpoint.text : isLocal(aud, req)) return;
    throw new Refusal(401, "wrong_audience", "signed for another endpoint");
  }

  async spend(body, signature) {
    const signed = Math.floor(body.timestamp / 1000);
    if (signed <= this.state.since) throw UNAVAILABLE();
    const mark = createHash("sha256").update("obol-atp-request-v1\0").update(Buffer.from(signature, "hex")).digest().subarray(0, 16);
    if (!(await this.state.spend(mark.toString("hex"), signed, Math.floor(this.now() / 1000)))) {
      throw new Refusal(401, "replayed", "this request was answered before; sign a new one");
    }
  }

  /** Whether a token may be used now: a single-use one is spent by that. */
  async spendOnce({ use, jti, iat, exp }) {
    if (use !== "once") return true;
    if (iat <= this.state.since) throw UNAVAILABLE();
    const mark = createHash("sha256").update(`obol-atp-jti-v1\0${jti}`).digest().subarray(0, 16);
    return this.state.spend(mark.toString("hex"), exp, Math.floor(this.now() / 1000));
  }

  claims(token) {
    const claims = this.key.read(token, this.origin, Math.floor(this.now() / 1000));
    return claims && !this.state.isRevoked(claims.jti) ? claims : null;
  }

  async check(req) {
    const spend = isToSpend((await bytesOf(req, { json: false })).toString("utf8"));
    const claims = this.claims(bearer(req));
    if (!claims || (spend && !(await this.spendOnce(claims)))) return { valid: false };
    return { valid: true, scopes: claims.scopes, expires_at: claims.exp * 1000, agent_id: claims.agent_id };
  }

  async revoke(req) {
    const own = bearer(req);
    const now = () => Math.floor(this.now() / 1000);
    const end = async (claims) => claims && this.state.revoke(claims.jti, claims.exp, now());
    if (own !== undefined) {
      await bytesOf(req, { json: false });
      await end(this.claims(own));
      return { revoked: true };
    }
    const { body, signature } = await this.authentic(req, parseRevokeBody);
    await this.spend(body, signature);
    const claims = this.claims(body.token);
    if (claims?.sub === body.agent_id) await end(claims);
    return { revoked: true };
  }

  /** Lets a request through with a token for `scope`, and leaves `req.agentToken`. */
  async guard(scope, req) {
    const token = bearer(req);
    const claims = token === undefined ? null : this.claims(token);
    const challenge = token === undefined ? "Bearer" : 'Bearer error="invalid_token"';
    const invalid = () => new Refusal(401, "invalid_token", "a valid token is needed", { "WWW-Authenticate": challenge });
    if (!claims) throw invalid();
    if (!claims.scopes.includes(scope)) {
      const lacking = `Bearer error="insufficient_scope", scope="${scope}"`;
      throw new Refusal(403, "insufficient_scope", "the token lacks the scope", { "WWW-Authenticate": lacking });
    }
    if (!(await this.spendOnce(claims))) throw invalid();
    req.agentToken = { agent_id: claims.agent_id, scopes: claims.scopes, id: claims.jti, cred: claims.cred };
  }

  publish({ name = this.endpoint?.host.name, capabilities = [] } = {}, req, res) {
    if (!this.endpoint) return answer(res, UNAVAILABLE());
    const E = this.endpoint.text;
    const auth = {
      method: "agent_token", agent_token_endpoint: E, scopes: sorted(this.scopes),
      agent_token_verify_endpoint: `${E}/verify`, agent_token_revoke_endpoint: `${E}/revoke`,
      atp_version: "1", canonicalization: "jcs", signature_alg: "HMAC-SHA256", timestamp_unit: "ms",
    };
    const document = { version: "1.0", agentdom: "0.1", host: this.endpoint.authority, name, auth, capabilities };
    const etag = `"${createHash("sha256").update(JSON.stringify(document)).digest("hex").slice(0, 32)}"`;
    const headers = { "Cache-Control": "public, max-age=300", ETag: etag };
    if (req.headers["if-none-match"] === etag) return res.writeHead(304, headers).end();
    return respond(res, 200, document, headers);
  }
}

const warn = (message) => process.emitWarning(`atp-server: ${message}`);
const usable = (secret) => Buffer.byteLength(secret) >= MIN_SECRET_BYTES;

function fixed(secret) {
  const secrets = Array.isArray(secret) ? secret : [secret];
  if (secrets.length < 1 || secrets.length > 2 || !secrets.every((one) => typeof one === "string" && usable(one))) {
    throw new TypeError(`atp-server: secret must be one text or two, each of ${MIN_SECRET_BYTES} bytes or more`);
  }
  if (secrets.some((one) => Buffer.byteLength(one) < SHORT_SECRET_BYTES)) warn(`a secret has fewer than ${SHORT_SECRET_BYTES} bytes`);
  return () => secrets;
}

/** A relay cannot make agents sign for localhost, so this endpoint may be taken from the request. */
function isLocal(aud, req) {
  const endpoint = parseEndpoint(aud, { local: true });
  const mounted = req.baseUrl ? endpoint?.path === req.baseUrl : true;
  return mounted && endpoint?.host.name === "localhost" && endpoint.authority === req.headers.host;
}

function read(bytes, parse) {
  try {
    return parse(bytes);
  } catch (error) {
    if (!(error instanceof BodyError)) throw error;
    throw error.tooLarge ? tooLarge() : new Refusal(400, "invalid_request", error.message);
  }
}

/** What the body of a verification says: nothing, `{}`, or whether a single-use token is spent. */
function isToSpend(text) {
  const trimmed = text.replace(/^[ \t\n\f\r]+|[ \t\n\f\r]+$/g, "");
  if (trimmed === "") return false;
  const wrong = () => new Refusal(400, "invalid_request", 'body: must be empty, {} or {"spend":true}');
  let body;
  try {
    body = JSON.parse(trimmed);
  } catch {
    throw wrong();
  }
  // No member has a text, so that there are as many colons as members: none stands there twice.
  const members = typeof body === "object" && body !== null && !Array.isArray(body) ? Object.entries(body) : [["", body]];
  const sound = members.every(([name, value]) => name === "spend" && typeof value === "boolean");
  if (!sound || trimmed.split(":").length - 1 > members.length) throw wrong();
  return body.spend === true;
}

const tooLarge = () => new Refusal(413, "request_too_large", `the body is longer than ${MAX_BODY_BYTES} bytes`, { Connection: "close" });

function bearer(req) {
  const header = req.headers.authorization;
  return header === undefined ? undefined : /^Bearer ([A-Za-z0-9._~+/-]+=*)$/i.exec(header)?.[1] ?? "";
}

/** The body's bytes, as they came. */
function bytesOf(req, { json = true } = {}) {
  if (json && !/^application\/json\s*(;\s*charset=utf-8\s*)?$/i.test(req.headers["content-type"] ?? "")) {
    throw new Refusal(415, "unsupported_media_type", "the body must be application/json");
  }
  if (Buffer.isBuffer(req.rawBody)) return req.rawBody;
  if (req.body !== undefined && req.readableEnded) {
    process.emitWarning("atp-server: mount the middleware before express.json(): signed bodies are read from their bytes");
    throw UNAVAILABLE();
  }
  return new Promise((resolve, reject) => {
    const pieces = [];
    let size = 0;
    const late = setTimeout(() => reject(new Refusal(408, "invalid_request", "body: did not arrive in time", { Connection: "close" })), BODY_TIMEOUT_MS);
    const settle = (then) => (value) => (clearTimeout(late), then(value));
    req.on("data", (piece) => {
      size += piece.length;
      if (size > MAX_BODY_BYTES) return settle(reject)(tooLarge());
      pieces.push(piece);
    });
    req.on("end", settle(() => resolve(Buffer.concat(pieces))));
    req.on("error", settle(reject));
    req.on("aborted", settle(() => reject(new Refusal(400, "invalid_request", "body: was cut off"))));
  });
}

function respond(res, status, body, headers = {}) {
  if (res.headersSent) return;
  const bytes = Buffer.from(JSON.stringify(body));
  res.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store", "Content-Length": bytes.length, ...headers });
  res.end(bytes);
}

function answer(res, error) {
  if (error instanceof Unavailable) error = UNAVAILABLE();
  if (!(error instanceof Refusal)) {
    process.emitWarning(`atp-server: ${error?.name ?? "error"} while answering`);
    error = UNAVAILABLE();
  }
  respond(res, error.status, { error: error.code, error_description: error.message }, error.headers);
}

module.exports = { middleware };
