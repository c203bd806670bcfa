// `Agent`: what a program holds. It draws tokens from the sidecar, has sessions opened by the authenticator, and sends requests.
// No key is in this process.
"use strict";

const fs = require("node:fs");
const { askHuman, readApprovalId, requestApproval, usedUp } = require("./approval");
const { Daemon } = require("./daemon");
const { Deadline, Pause } = require("./deadline");
const { findDestination, readRoutes, unknownDestination } = require("./destination");
const { agentSocket, authSocket, userNumber } = require("./endpoint");
const { AgentError, Lost, mayPass } = require("./errors");
const { Call } = require("./fetch");
const { Connections } = require("./http");
const { register } = require("./register");
const { readRequest } = require("./request");
const { readToken } = require("./token");

const DEFAULT_TIMEOUT_MS = 30_000;
/** As long as a human has to decide. */
const REGISTER_TIMEOUT_MS = 15 * 60_000;
const MAX_WAIT_MS = 30_000;
/** How much earlier than the deadline the sidecar is to answer. */
const ANSWER_MS = 100;
const DEFAULT_RETRY_MS = 100;
const UNAVAILABLE_PATIENCE_MS = 5_000;
const YOUNG_SESSION_MS = 2_000;
const ROUTES_LIFE_MS = 60_000;
const ROUTES_PAUSE_MS = 1_000;
/** How long a call waits for newer routes where it has some, and how much later they are asked for again. */
const ROUTES_PATIENCE_MS = 1_000;
const ROUTES_RETRY_MS = 5_000;
/** How long a call waits to tell that a token of its was stolen, before it ends with that error. */
const TELL_MS = 1_000;
const MAX_PAGES = 10_000;
const TOOL = /^[\x21-\x7e]{1,256}$/;

const ambiguousDraw = () =>
  new AgentError("OUTCOME_UNKNOWN", "the connection ended after a token was requested; the token may have been handed out and lost. Asking again draws another");

class Agent {
  #sidecar;
  #authenticator;
  #connections = new Connections();
  #timeout;
  #named;
  #session = { routes: [], askedAt: -Infinity };
  #flights = new Map();
  /** Why the authenticator is waited for; null while it is asked. */
  #away = null;
  #authenticatorSeen = false;

  constructor(options = {}) {
    const environment = options.environment ?? process.env;
    const user = userNumber(options.user, environment);
    const client = options.client ?? "obol-agent-node/0.1.0";
    const agent = agentSocket(options.socket, environment);
    this.#timeout = options.timeout ?? DEFAULT_TIMEOUT_MS;
    this.#named = options.routes === undefined ? null : readRoutes(options.routes, { strict: true });
    this.#sidecar = new Daemon({ path: agent, user, client, label: "the sidecar (`obol tqs`)" });
    const auth = authSocket(options.authSocket, environment, agent);
    this.#authenticator = new Daemon({ path: auth, user, client, label: "the authenticator (`obol authenticator`)" });
    new Deadline(this.#timeout);
  }

  /** Asks to be registered, and waits until a human decided. An active identity returns at once. */
  async register(options = {}) {
    return register(this.#authenticator, options, this.#deadline({ timeout: REGISTER_TIMEOUT_MS, ...options }));
  }

  /** Opens a new session. */
  async authenticate(options = {}) {
    return this.#shared("authenticate", this.#deadline(options));
  }

  /** The session there is, or a new one; registers the agent where it is not registered. */
  async ensureAuthenticated(options = {}) {
    const deadline = this.#deadline(options);
    if (!this.#canAuthenticate()) return this.#sessionInfo(deadline);
    try {
      return await this.#shared("ensureAuthenticated", deadline);
    } catch (error) {
      if (error.code !== "NOT_REGISTERED") throw error;
      await this.register(options);
      return this.#shared("ensureAuthenticated", this.#deadline(options));
    }
  }

  /** One token, for who sends it by themselves. */
  async dequeueToken(tool, options = {}) {
    if (options.arguments !== undefined && options.popFor === undefined) {
      const { argumentsHash } = require("./canonical");
      options = { ...options, popFor: argumentsHash(Buffer.from(JSON.stringify(options.arguments))) };
      if (options.popFor === undefined) {
        throw new AgentError("INVALID_ARGUMENT", "arguments: an object without whole numbers beyond 2^53; send such numbers as text");
      }
    }
    const approvalId = readApprovalId(options.approvalId);
    return this.#draw({ tool, audience: options.audience }, options.popFor, this.#deadline(options), { alone: true, approvalId });
  }

  /**
   * Asks a human for one yes to several calls, and waits: `{ approvalId, calls, expiresAt }`. Each of `calls` is the `approvalId` of its call
   * in `fetch` and `dequeueToken`.
   */
  async requestApproval(calls, options = {}) {
    return requestApproval(this.#authenticator, calls, options, this.#deadline({ signal: options.signal }));
  }

  /** `{ queueDepth, ttl, sessionActive, renewalPending }`, of one tool or of all. */
  async tokenStatus(tool, options = {}) {
    const deadline = this.#deadline(options);
    const ask = (params) => this.#sidecar.call("tokenStatus", params, deadline, { repeat: true });
    if (tool !== undefined) return ask({ tool });
    const { next: first, ...status } = await ask({});
    let next = first;
    for (let page = 1; next !== undefined && page < MAX_PAGES; page += 1) {
      const more = await ask({ from: next });
      Object.assign(status.tools, more.tools);
      next = more.next;
    }
    return status;
  }

  /** `{ sessionId, agentInstanceId, establishedAt, algorithmSuite, expiresAt }`. */
  async sessionInfo(options = {}) {
    return this.#sessionInfo(this.#deadline(options));
  }

  /** As the platform's `fetch`, with a token; `init` may also have `tool`, `audience`, `idempotencyKey`, `approval`, `approvalId` and `timeout`. */
  async fetch(input, init) {
    init ??= {};
    const deadline = this.#deadline({ timeout: init.timeout, signal: init.signal ?? input?.signal });
    const request = await readRequest(input, init);
    const own = {
      destination: (wanted, until) => this.#destination(wanted, until),
      draw: (destination, popFor, until) => this.#draw(destination, popFor, until, { alone: false }),
      drawApproved: (destination, popFor, until, approvalId) => this.#drawApproved(destination, popFor, until, approvalId),
      askHuman: (approval, destination, body, until) => askHuman(this.#authenticator, approval, destination, body, until),
      authenticate: (until) => this.#shared("ensureAuthenticated", until),
      canAuthenticate: () => this.#canAuthenticate(),
      isYoung: (until) => this.#isYoung(until),
      tellStolen: (destination) => this.#tellStolen(destination),
      send: (prepared, until) => this.#connections.send(prepared, until),
    };
    return new Call(own, request, deadline).run();
  }

  /** Ends its connections. */
  async close() {
    this.#sidecar.close();
    this.#authenticator.close();
    this.#connections.close();
  }

  async [Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose")]() {
    await this.close();
  }

  #deadline({ timeout, signal }) {
    return new Deadline(timeout ?? this.#timeout, signal);
  }

  #canAuthenticate() {
    this.#authenticatorSeen ||= fs.existsSync(this.#authenticator.path);
    return this.#authenticatorSeen;
  }

  async #sessionInfo(deadline) {
    return this.#sidecar.call("sessionInfo", {}, deadline, { repeat: true });
  }

  async #isYoung(deadline) {
    const age = Date.now() - Date.parse((await this.#sessionInfo(deadline)).establishedAt);
    return Math.abs(age) < YOUNG_SESSION_MS;
  }

  /** Tells the authenticator that somebody else spent a token. Nothing depends on whether that arrives. */
  async #tellStolen({ tool, audience }) {
    if (!this.#canAuthenticate()) return;
    const session = await this.#sessionInfo(new Deadline(TELL_MS / 2)).catch(() => null);
    const params = { tool, audience, ...(session?.sessionId && { sessionId: session.sessionId }) };
    await this.#authenticator.call("tokenStolen", params, new Deadline(TELL_MS / 2), { repeat: false }).catch(() => {});
  }

  async #shared(method, deadline) {
    return this.#together(method, (own) => this.#open(method, own), deadline, "no session was opened in time");
  }

  /** One such act under way for all who ask. It goes on for those who are still there when one gives up. */
  async #together(what, act, deadline, late) {
    const failed = () => this.#away ?? new AgentError("TIMEOUT", `${late}; see \`obol auth status\``);
    for (;;) {
      let flight = this.#flights.get(what);
      if (!flight) {
        const own = new Deadline(Math.max(deadline.left(), this.#timeout));
        flight = { own, landed: act(own).finally(() => this.#flights.delete(what)) };
        flight.landed.catch(() => {}); // Who waits for it hears of it.
        this.#flights.set(what, flight);
      }
      try {
        return await deadline.within(flight.landed, failed);
      } catch (error) {
        // Who led may have had less time than this caller.
        if (!mayPass(error) || deadline.left() <= flight.own.left() + Pause.LONGEST_MS) throw error;
      }
    }
  }

  async #open(method, deadline) {
    const opened = await this.#patiently(method, {}, deadline);
    this.#session.askedAt = -Infinity;
    const { establishedAt } = await this.#sessionInfo(deadline);
    return { ...opened, establishedAt };
  }

  /** Asks the authenticator until it answers, or refuses for good, or the time is over: then why it has not answered until now. */
  async #patiently(method, params, deadline) {
    this.#away = null;
    for (const pause = new Pause(); ; ) {
      try {
        const answered = await this.#authenticator.call(method, params, deadline, { repeat: true });
        this.#away = null;
        return answered;
      } catch (error) {
        if (error.code === "TIMEOUT" && this.#away) throw this.#away;
        const wait = pause.next(error);
        if (!mayPass(error) || wait >= deadline.left()) throw error;
        this.#away = error;
        await deadline.pause(wait);
      }
    }
  }

  async #destination(wanted, deadline) {
    if (this.#named) return found(this.#named, wanted);
    const age = performance.now() - this.#session.askedAt;
    if (age > ROUTES_LIFE_MS) await this.#renewRoutes(deadline);
    const destination = findDestination(this.#session.routes, wanted);
    if (destination) return destination;
    if (performance.now() - this.#session.askedAt > ROUTES_PAUSE_MS) await this.#askRoutes(deadline);
    return found(this.#session.routes, wanted);
  }

  /** Asks for newer routes. While the authenticator is away, those of the session stay what they are. */
  async #renewRoutes(deadline) {
    if (this.#session.routes.length === 0) return this.#askRoutes(deadline);
    try {
      await this.#askRoutes(new Deadline(Math.max(1, Math.min(ROUTES_PATIENCE_MS, deadline.left())), deadline.signal));
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      this.#session.askedAt = performance.now() - ROUTES_LIFE_MS + ROUTES_RETRY_MS;
    }
  }

  /** The session's routes from the authenticator, all pages; once for all who wait. */
  async #askRoutes(deadline) {
    if (!this.#canAuthenticate()) {
      throw new AgentError("UNKNOWN_DESTINATION", "no destinations are known: there is no authenticator; for a session made by hand give `routes`");
    }
    await this.#together("routes", (own) => this.#readRoutes(own), deadline, "the authenticator did not say in time where tokens may go");
  }

  async #readRoutes(deadline) {
    const routes = [];
    let from;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const answer = await this.#patiently("authStatus", from === undefined ? {} : { from }, deadline);
      routes.push(...(answer.routes ?? []));
      from = answer.next;
      if (from === undefined) break;
    }
    if (routes.length === 0 && !this.#flights.has("ensureAuthenticated") && this.#session.askedAt === -Infinity) {
      this.#session.askedAt = performance.now();
      await this.#shared("ensureAuthenticated", deadline);
      return this.#readRoutes(deadline);
    }
    this.#session = { routes: readRoutes(routes, { strict: false }), askedAt: performance.now() };
  }

  /** The token of a call that a human said yes to. There is one, so it is not drawn again where the answer was lost. */
  async #drawApproved(destination, popFor, deadline, approvalId) {
    try {
      return await this.#draw(destination, popFor, deadline, { alone: true, approvalId });
    } catch (error) {
      throw error.code === "OUTCOME_UNKNOWN" ? usedUp() : error;
    }
  }

  /** Draws a token as the rules say. `alone`: for a caller who wants a token, and decides what follows a lost answer. */
  async #draw({ tool, audience }, popFor, deadline, { alone, approvalId }) {
    if (!TOOL.test(tool ?? "")) throw new AgentError("INVALID_ARGUMENT", "tool: 1 to 256 visible ASCII characters");
    const began = performance.now();
    let mayAuthenticate = this.#canAuthenticate();
    let refusal = null;
    for (;;) {
      const waitMs = Math.floor(Math.min(MAX_WAIT_MS, Math.max(0, deadline.left() - ANSWER_MS)));
      const said = Object.entries({ audience, popFor, approvalId }).filter(([, value]) => value !== undefined);
      const params = { tool, waitMs, ...Object.fromEntries(said) };
      try {
        const token = readToken(await this.#sidecar.call("dequeueToken", params, deadline, { repeat: !alone }));
        if (!token) throw new AgentError("PROTOCOL_ERROR", "the sidecar's answer cannot be understood; check its version");
        return token;
      } catch (error) {
        if (error instanceof Lost) throw ambiguousDraw();
        // The time is over while it was asked once more: why there was none until now says more.
        if (error.code === "TIMEOUT" && refusal) throw refusal;
        if (mayAuthenticate && (error.code === "NO_SESSION" || error.code === "SESSION_FLUSHED")) {
          mayAuthenticate = false;
          await this.#shared("ensureAuthenticated", deadline);
          continue;
        }
        const wait = drawAgainAfter(error, performance.now() - began);
        if (wait === null || wait >= deadline.left()) throw error;
        refusal = error;
        await deadline.pause(wait);
      }
    }
  }
}

/** Milliseconds until it is worth asking again; null where it is not. */
function drawAgainAfter({ code, retryAfterMs }, sinceMs) {
  if (code === "QUEUE_EMPTY" || code === "OVERLOADED") return Math.max(10, Number(retryAfterMs) || DEFAULT_RETRY_MS);
  return code === "UNAVAILABLE" && sinceMs < UNAVAILABLE_PATIENCE_MS ? DEFAULT_RETRY_MS : null;
}

function found(routes, wanted) {
  const destination = findDestination(routes, wanted);
  if (!destination) throw unknownDestination(wanted.url);
  return destination;
}

module.exports = { Agent };
