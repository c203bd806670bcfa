// Registration: asks, shows the human what to type, and waits for the answer.
"use strict";

const { AgentError, mayPass } = require("./errors");

const POLL_MS = 1_000;

/** What is shown where nothing else is asked for. */
function prompt({ code, words, expiresAt, page }) {
  process.stderr.write(
    `A human must approve this agent before ${expiresAt}:\n    ${page ?? `obol approve ${code}`}\n` +
      `The key they see must read: ${words}\n`,
  );
}

function wanted(options) {
  const params = {};
  for (const name of ["name", "class", "roles", "tools", "ticket"]) if (options[name] !== undefined) params[name] = options[name];
  return params;
}

const failure = (state, registration) =>
  ({
    waiting: new AgentError("APPROVAL_PENDING", `a human has not yet approved this agent: obol approve ${registration.code}`, { registration }),
    denied: new AgentError("APPROVAL_DENIED", "a human denied the agent; ask them why, then register again"),
    expired: new AgentError("EXPIRED", "nobody decided about the registration in time; register again"),
    none: new AgentError("NOT_REGISTERED", "the registration is gone; register again"),
  })[state] ?? new AgentError("PROTOCOL_ERROR", "the authenticator's answer cannot be understood; check its version");

/** `{ agentId, expiresAt }`. */
async function register(authenticator, options, deadline) {
  let answer = await authenticator.call("register", wanted(options), deadline, { repeat: true });
  if (answer.state === "waiting" && options.wait !== false) {
    const { code, words, expiresAt, page } = answer;
    await (options.onPrompt ?? prompt)({ code, words, expiresAt, ...(page && { page }) });
    while (answer.state === "waiting" && deadline.left() > POLL_MS) {
      await deadline.pause(POLL_MS);
      try {
        answer = await authenticator.call("registrationStatus", {}, deadline, { repeat: true });
      } catch (error) {
        if (!mayPass(error)) throw error; // A human has to look at it all the same.
      }
    }
  }
  if (answer.state !== "active") throw failure(answer.state, { code: answer.code, words: answer.words, expiresAt: answer.expiresAt });
  return { agentId: answer.agentId, expiresAt: answer.approvalExpiresAt ?? null };
}

module.exports = { register };
