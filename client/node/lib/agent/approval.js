// A human's yes to a call that is granted with one alone: asked for at the authenticator, shown to whoever can fetch a human, and
// waited for.
"use strict";

const { argumentsHash, isJsonObject } = require("./canonical");
const { Deadline } = require("./deadline");
const { AgentError, Lost, mayPass } = require("./errors");

/** Longer than somebody may decide. */
const WAIT_MS = 6 * 60_000;
/** How long the authenticator is to wait for news, each time it is asked, and how much later it is asked again. */
const POLL_MS = 5_000;
const POLL_PAUSE_MS = 100;
const MEMBERS = new Set(["purpose", "action", "resource", "constraints", "showArguments", "always", "timeout", "onPrompt"]);
const CALL_MEMBERS = new Set(["tool", "audience", "action", "resource", "constraints", "arguments", "count"]);
const LIST_MEMBERS = new Set(["purpose", "lifetime", "count", "timeout", "onPrompt"]);
const LABEL = /^[\x21-\x7e]{1,128}$/;

const wrong = (what) => new AgentError("INVALID_ARGUMENT", what);
const nonsense = () => new AgentError("PROTOCOL_ERROR", "the authenticator's answer cannot be understood; check its version");

/** The option `approval` as an object; null where nobody is to be asked. */
function readApproval(given) {
  if (given === undefined || given === "never") return null;
  const approval = given === "wait" ? {} : given;
  if (typeof approval !== "object" || approval === null) throw wrong('approval: "never", "wait", or an object');
  const unknown = Object.keys(approval).find((name) => !MEMBERS.has(name));
  if (unknown !== undefined) throw wrong(`approval: ${unknown} is none of ${[...MEMBERS].join(", ")}`);
  new Deadline(approval.timeout ?? WAIT_MS);
  return approval;
}

/** The option `approvalId`, checked. */
function readApprovalId(given) {
  if (given !== undefined && !(typeof given === "string" && LABEL.test(given))) {
    throw wrong("approvalId: what a call is drawn by, 1 to 128 visible ASCII characters");
  }
  return given;
}

/** What is asked for, for one call. */
function wanted(approval, { tool, audience }, body) {
  const call = { tool, audience };
  if (approval.action !== undefined) call.actions = [approval.action].flat();
  if (approval.resource !== undefined) call.resource = approval.resource;
  if (approval.constraints !== undefined) call.constraints = JSON.stringify(approval.constraints);
  const isShown = approval.showArguments !== false && Buffer.isBuffer(body) && isJsonObject(body);
  if (isShown && argumentsHash(body) !== undefined) call.arguments = body.toString("utf8");
  return { calls: [call], ...(approval.purpose !== undefined && { purpose: approval.purpose }) };
}

/** Of several calls: what is asked for. */
function wantedList(calls, options) {
  const list = [calls].flat();
  if (list.length === 0) throw wrong("calls: at least one");
  const text = (value) => (value === undefined || typeof value === "string" ? value : JSON.stringify(value));
  const each = (call) => {
    if (typeof call !== "object" || call === null || typeof call.tool !== "string") throw wrong("calls: each is an object with a tool");
    const unknown = Object.keys(call).find((name) => !CALL_MEMBERS.has(name));
    if (unknown !== undefined) throw wrong(`calls: ${unknown} is none of ${[...CALL_MEMBERS].join(", ")}`);
    const { tool, audience, action, resource, constraints, arguments: said, count = options.count } = call;
    const given = { tool, audience, actions: action && [action].flat(), resource, constraints: text(constraints), arguments: text(said), count };
    return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  };
  const { purpose, lifetime } = options;
  if (lifetime !== undefined && !(Number.isFinite(lifetime) && lifetime >= 1_000)) throw wrong("lifetime: milliseconds, a second at least");
  const lifetimeSeconds = lifetime === undefined ? undefined : Math.floor(lifetime / 1_000);
  return { calls: list.map(each), ...(purpose !== undefined && { purpose }), ...(lifetimeSeconds && { lifetimeSeconds }) };
}

/** What is shown where nothing else is asked for. */
function prompt({ approvalId, expiresAt }, tool) {
  process.stderr.write(`A human must approve a call of ${tool} before ${expiresAt}. Where the service runs:\n    obol approve ${approvalId}\n`);
}

/** Asks; again only where nobody can have heard of it. */
async function request(authenticator, params, deadline) {
  for (;;) {
    try {
      return await authenticator.call("requestApproval", params, deadline, { repeat: false });
    } catch (error) {
      if (error instanceof Lost) {
        throw new AgentError(
          "DAEMON_UNREACHABLE",
          "the authenticator went away while it was asking a human; nothing was sent, and the request may still wait for them. Ask again",
        );
      }
      const wait = Math.max(10, Number(error.retryAfterMs) || POLL_PAUSE_MS);
      if (error.code !== "OVERLOADED" || wait >= deadline.left()) throw error;
      await deadline.pause(wait);
    }
  }
}

/** Waits until somebody decided, or the time is over. */
async function decided(authenticator, asked, until) {
  let away;
  let answer = asked;
  const { approvalId } = asked;
  while (answer.state === "waiting") {
    if (until.left() <= POLL_PAUSE_MS) throw away ?? failure("waiting", asked);
    await until.pause(POLL_PAUSE_MS);
    const waitMs = Math.max(0, Math.floor(Math.min(POLL_MS, until.left()) - POLL_PAUSE_MS));
    try {
      answer = await authenticator.call("approvalStatus", { approvalId, waitMs }, until, { repeat: true });
      away = undefined;
    } catch (error) {
      if (error.code === "INVALID_ARGUMENT") throw failure("forgotten");
      if (mayPass(error)) away = error;
      else if (error.code !== "TIMEOUT") throw error;
    }
  }
  return answer;
}

const failure = (state, asked) =>
  ({
    waiting: new AgentError(
      "APPROVAL_PENDING",
      `a human has not yet approved the call: obol approve ${asked?.approvalId} where the service runs; nothing was sent. Wait longer, or ask again later`,
      { approvalId: asked?.approvalId },
    ),
    denied: new AgentError("APPROVAL_DENIED", "a human denied the call; nothing was sent. Ask them why before you ask again"),
    expired: new AgentError("EXPIRED", "nobody approved the call in time, or the approval has expired; nothing was sent. Ask again"),
    forgotten: new AgentError(
      "EXPIRED",
      "the authenticator no longer knows the request: it was restarted, or the time is over; nothing was sent. Ask again",
    ),
  })[state] ?? nonsense();

/** Asks a human for a yes to one call, and gives what its token is drawn by. `deadline` is for the asking alone. */
async function askHuman(authenticator, approval, destination, body, deadline) {
  const { calls } = await askOnce(authenticator, wanted(approval, destination, body), approval, destination.tool, deadline);
  return calls[0];
}

/** The same for several calls, each of which may be drawn as often as it says. */
async function requestApproval(authenticator, calls, options, deadline) {
  const unknown = Object.keys(options).find((name) => !LIST_MEMBERS.has(name) && name !== "signal");
  if (unknown !== undefined) throw wrong(`${unknown} is none of ${[...LIST_MEMBERS].join(", ")}`);
  const params = wantedList(calls, options);
  return askOnce(authenticator, params, options, params.calls.map(({ tool }) => tool).join(", "), deadline);
}

/** Asks once, and waits. */
async function askOnce(authenticator, params, approval, what, deadline) {
  const asked = await request(authenticator, params, deadline);
  if (typeof asked.approvalId !== "string" || !LABEL.test(asked.approvalId)) throw nonsense();
  if (asked.state === "waiting") {
    const { approvalId, expiresAt, page } = asked;
    const shown = { approvalId, expiresAt, ...(page && { page }) };
    await (approval.onPrompt ?? ((seen) => prompt(seen, what)))(shown);
  }
  const until = new Deadline(approval.timeout ?? WAIT_MS, deadline.signal);
  const { state, calls, expiresAt } = await decided(authenticator, asked, until);
  if (state !== "approved") throw failure(state);
  const isLabel = (call) => typeof call === "string" && LABEL.test(call);
  if (!Array.isArray(calls) || calls.length !== params.calls.length || !calls.every(isLabel)) throw nonsense();
  return { approvalId: asked.approvalId, calls, expiresAt };
}

const required = (tool) =>
  new AgentError(
    "APPROVAL_REQUIRED",
    `a human must approve each call of ${tool}, and nobody was asked; nothing was sent. The option \`approval: "wait"\` asks and waits`,
  );

const usedUp = () =>
  new AgentError(
    "DAEMON_UNREACHABLE",
    "the sidecar went away while the token of the approved call was drawn; nothing was sent, and the approval may be used up. Ask for another",
  );

module.exports = { askHuman, readApproval, readApprovalId, requestApproval, required, usedUp };
