// A call with a token: find the destination, draw, send, and go on as the rules say. Each attempt has a fresh token, and no token
// is sent twice.
"use strict";

const { required } = require("./approval");
const { argumentsHash, isJsonObject } = require("./canonical");
const { Channel, MAX_SEALED_BYTES, SEALED_TYPE, failed } = require("./channel");
const { Deadline } = require("./deadline");
const { AgentError } = require("./errors");
const { Unanswered, Unsent } = require("./http");
const { Rules, isBusy } = require("./rules");
const { readUrl, resolve, writeUrl } = require("./url");

const MAX_REDIRECTS = 5;
const MAX_PROBLEM_BYTES = 65_536;
const EMPTY = Buffer.from("{}");
/** Refusals ahead of the action, by the guard or something before it. */
const NOT_SO_FAR = new Set([401, 403, 429, 503]);

class Call {
  #agent;
  #request;
  #deadline;
  #rules;
  #url;
  #destination;
  #redirects = 0;
  /** It was sent before, and what came of that is not known. */
  #unresolved = false;
  /** A token was drawn: no human is asked after that. */
  #drew = false;

  /** `agent`: what the call asks of it, `destination`, `draw`, `drawApproved`, `askHuman`, `authenticate`, `isYoung`, `tellStolen`, `send`. */
  constructor(agent, request, deadline) {
    this.#agent = agent;
    this.#request = request;
    this.#deadline = deadline;
    this.#rules = new Rules(request);
    this.#url = readUrl(request.url);
  }

  /** The platform's Response. */
  async run() {
    const { method, tool, audience } = this.#request;
    this.#destination = await this.#agent.destination({ method, url: this.#url, tool, audience }, this.#deadline);
    try {
      for (;;) {
        const { answer, channel } = await this.#attempt();
        const opened = answer && (await this.#take(answer, channel));
        if (opened) return this.#settled(opened);
      }
    } catch (error) {
      throw this.#unresolved && error instanceof AgentError && error.code !== "OUTCOME_UNKNOWN" ? this.#unknown({ why: `then ${error.code}` }) : error;
    }
  }

  /** What an earlier attempt may have done is not forgotten over a later one that did not get so far. */
  #settled(response) {
    if (!this.#unresolved || !NOT_SO_FAR.has(response.status)) return response;
    response.body?.cancel().catch(() => {}); // Nobody reads it.
    throw this.#unknown({ why: `then status ${response.status}` });
  }

  /** Draws and sends. An attempt that is to be repeated has no answer. */
  async #attempt() {
    const token = await this.#draw();
    const channel = token.channel() && new Channel(token.channel());
    try {
      return { answer: await this.#agent.send(this.#prepared(token, channel), this.#deadline), channel };
    } catch (error) {
      await this.#failed(error);
      return {};
    }
  }

  /** Draws; of a call that takes a human's yes, once one was said. */
  async #draw() {
    const { body, stream, approvalId, approval } = this.#request;
    const popFor = stream ? undefined : argumentsHash(body);
    const asks = this.#drew ? null : approval;
    if (approvalId === undefined && !asks?.always) {
      try {
        const token = await this.#agent.draw(this.#destination, popFor, this.#deadline);
        this.#drew = true;
        return token;
      } catch (error) {
        if (error.code !== "APPROVAL_REQUIRED") throw error;
      }
    }
    const drawnBy = approvalId ?? (await this.#ask(asks));
    // There is one token, so it is sent once.
    this.#drew = true;
    this.#rules.once();
    return this.#agent.drawApproved(this.#destination, popFor, this.#deadline, drawnBy);
  }

  /** Asks a human for a yes to this call, and waits. The call's own time begins anew. */
  async #ask(approval) {
    if (!approval || !this.#agent.canAuthenticate()) throw required(this.#destination.tool);
    const body = this.#request.stream ? null : this.#request.body;
    const drawnBy = await this.#agent.askHuman(approval, this.#destination, body, this.#deadline);
    this.#deadline = new Deadline(this.#deadline.ms, this.#deadline.signal);
    return drawnBy;
  }

  #prepared(token, channel) {
    const { method, body, stream } = this.#request;
    const headers = this.#request.headers.filter(([name]) => !(channel && name === "content-type"));
    headers.push(["authorization", token.authorization()]);
    if (token.proof()) headers.push(["tbac-pop", token.proof()]);
    if (!channel) return { url: this.#destination.send, method, headers: headers.flat(), body };
    if (stream || !(body === null || isJsonObject(body))) {
      throw new AgentError("INVALID_ARGUMENT", `the body: ${this.#destination.tool} takes sealed arguments, a JSON object or nothing`);
    }
    headers.push(["content-type", SEALED_TYPE]);
    return { url: this.#destination.send, method, headers: headers.flat(), body: channel.seal(body ?? EMPTY) };
  }

  /** After a failure: waits where the call is to be made again, or says why it is not. */
  async #failed(error) {
    if (error instanceof Unsent) return this.#again(this.#rules.unsent(), this.#unreachable(error));
    if (!(error instanceof Unanswered)) throw error;
    if (error.timedOut && this.#rules.repeatable) {
      throw new AgentError("TIMEOUT", `the server did not answer within ${this.#deadline.ms} ms; allow more with \`timeout\``);
    }
    await this.#again(error.timedOut ? null : this.#rules.unanswered(), this.#unknown(error));
    this.#unresolved = !this.#rules.repeatable;
  }

  async #again(decision, otherwise) {
    if (!decision || decision.again >= this.#deadline.left()) throw otherwise;
    await this.#deadline.pause(decision.again);
  }

  #unreachable({ why }) {
    return new AgentError("UNREACHABLE", `could not connect to ${writeOrigin(this.#destination.send)} (${why}); nothing was sent. Check that it is up`);
  }

  #unknown({ why }) {
    return new AgentError(
      "OUTCOME_UNKNOWN",
      `the request was sent and not answered (${why ?? "the connection ended"}); it may have been carried out. Check before repeating it, ` +
        "or give an `idempotencyKey` where the server knows these",
    );
  }

  /** The Response where this is the answer; undefined where the call is made again. */
  async #take(answer, channel) {
    const code = await refusalCode(answer);
    const decision = this.#rules.answered(answer.status, code, answer.only("retry-after"));
    if (decision?.stolen) {
      answer.drop();
      await this.#agent.tellStolen(this.#destination);
      throw stolen();
    }
    if (decision?.redirect) return this.#redirected(answer, channel);
    if (answer.status === 409 && code === "OUTCOME_UNKNOWN" && this.#request.idempotencyKey !== undefined) {
      throw this.#dropped(answer, this.#unknown({ why: "the server began it under this key, and does not know what became of it" }));
    }
    const wait = await this.#wait(decision, answer);
    if (wait === null || wait >= this.#deadline.left()) return this.#finished(answer, channel);
    answer.drop();
    // Still running under this key, or failed somewhere in it.
    this.#unresolved ||= !this.#rules.repeatable && (answer.status === 409 || (answer.status >= 500 && !isBusy(code)));
    await this.#deadline.pause(wait);
  }

  #dropped(answer, error) {
    answer.drop();
    return error;
  }

  /** Milliseconds until the next attempt, after whatever must be done before; null where there is none. */
  async #wait(decision, answer) {
    if (!decision) return null;
    if (decision.again !== undefined) return decision.again;
    if (decision.young !== undefined) {
      if ((await this.#agent.isYoung(this.#deadline)) && this.#rules.young()) return decision.young;
      decision = this.#rules.ended();
    }
    if (!decision || !this.#agent.canAuthenticate()) return null;
    try {
      await this.#agent.authenticate(this.#deadline);
      return 0;
    } catch (error) {
      throw this.#dropped(answer, error);
    }
  }

  /** Follows within the audience and tool, with a fresh token; undefined then. */
  async #redirected(answer, channel) {
    const { redirect } = this.#request;
    const location = answer.only("location");
    if (redirect === "manual" || location === null) return this.#finished(answer, channel);
    answer.drop();
    const target = redirect === "follow" && !this.#rules.isOnce && ["GET", "HEAD"].includes(this.#request.method) && this.#redirects < MAX_REDIRECTS && (await this.#target(location));
    if (!target) {
      throw new AgentError(
        "REDIRECT_REFUSED",
        "the server redirects, and the token does not go with it: only GET and HEAD follow, five times at most, and only to where the session " +
          'names the same audience and tool. Ask for the answer as it is with `redirect: "manual"`',
      );
    }
    this.#redirects += 1;
    [this.#url, this.#destination] = target;
  }

  async #target(location) {
    const { audience, tool } = this.#destination;
    try {
      const url = readUrl(resolve(location, this.#url) ?? "");
      return [url, await this.#agent.destination({ method: this.#request.method, url, tool, audience }, this.#deadline)];
    } catch (error) {
      if (error.code === "INVALID_ARGUMENT" || error.code === "UNKNOWN_DESTINATION") return null;
      throw error;
    }
  }

  async #finished(answer, channel) {
    const isSealed = answer.only("content-type") === SEALED_TYPE;
    if (channel && !isSealed && mustBeSealed(answer.status)) throw this.#dropped(answer, failed("is not sealed"));
    if (!channel || !isSealed) return this.#response(answer, answer.headers(), answer.body());
    let sealed;
    try {
      sealed = await answer.bytes(MAX_SEALED_BYTES);
    } catch (error) {
      return this.#failed(error);
    }
    answer.drop();
    if (!sealed) throw failed("is longer than a sealed one may be");
    const headers = answer.headers();
    headers.set("content-type", headers.get("tbac-sealed-type") ?? "application/octet-stream");
    headers.delete("content-length");
    return this.#response(answer, headers, channel.open(sealed));
  }

  #response(answer, headers, body) {
    const { status, statusText } = answer;
    let response;
    try {
      response = new Response(body, { status, headers, statusText });
    } catch {
      answer.drop();
      throw this.#unknown({ why: "the answer is not HTTP" });
    }
    Object.defineProperty(response, "url", { value: writeUrl(this.#url) });
    Object.defineProperty(response, "redirected", { value: this.#redirects > 0 });
    return response;
  }
}

/** A refusal comes from whoever stands in front as well, and 204 has no body. */
const mustBeSealed = (status) => status >= 200 && status <= 299 && status !== 204;

const writeOrigin = ({ scheme, host, port }) => `${scheme}://${host}:${port}`;

const stolen = () =>
  new AgentError(
    "TOKEN_STOLEN",
    "the server says that this token was spent, and this agent did not spend it: somebody else has it. Flush the sidecar " +
      "(`obol flush --all`), and see the audit logs for what was done",
  );

/** The code of a refusal, if it names one. */
async function refusalCode(answer) {
  if (![401, 409, 503].includes(answer.status)) return null;
  const challenge = /^TBAC (?:.*[ ,])?error="([A-Z_]{1,64})"/.exec(answer.only("www-authenticate") ?? "");
  if (answer.status === 401 && challenge) return challenge[1];
  const type = (answer.only("content-type") ?? "").split(";")[0].trim().toLowerCase();
  if (type !== "application/problem+json") return null;
  try {
    const body = await answer.bytes(MAX_PROBLEM_BYTES);
    const code = body && JSON.parse(body.toString("utf8"))?.code;
    return typeof code === "string" ? code : null;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof Unanswered) return null;
    throw error;
  }
}

module.exports = { Call };
