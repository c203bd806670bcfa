// A token as it is kept, and when it is due. The form is that of the Rust client, which shares the Secret Service with this one.
"use strict";

const { createHash } = require("node:crypto");
const { AtpError } = require("./errors");
const { areScopes, sorted } = require("./words");

/** The most that a token is refreshed ahead of its end, in milliseconds; of short ones a fifth of their life. */
const MAX_LEAD_MS = 300_000;
/** How long before its end a token is not handed out any more, in milliseconds; at most a tenth of the lead. */
const LAST_MS = 5_000;
/** A provider that gives its end in seconds is not believed. */
const LEAST_TIME_MS = 1e12;

/** Reads an answer; `null` if it holds no token of the right form with an end and scopes. */
function entryOf(endpoint, body, now) {
  const granted = body?.scopes_granted ?? body?.scopes;
  const plain = typeof body?.token === "string" && /^[\x21-\x7e]+$/.test(body.token);
  if (!plain || !areScopes(granted)) return null;
  // The end by this machine's clock, where the provider says how long.
  const given = body.expires_at >= LEAST_TIME_MS ? body.expires_at : NaN;
  const end = body.expires_in === undefined ? given : Number.isSafeInteger(body.expires_in) ? now + body.expires_in * 1000 : NaN;
  if (!Number.isSafeInteger(end) || end <= now) return null;
  return {
    method: "agent_token",
    access_token: body.token,
    expires_at: end,
    scopes_granted: sorted(granted),
    agent_id: String(body.agent_id ?? ""),
    token_id: String(body.id ?? ""),
    endpoint: endpoint.text,
    obtained_at: now,
  };
}

/** What a keychain holds; `null` where it holds nothing. */
function readEntry(text, account) {
  if (text === null) return null;
  let entry;
  try {
    entry = JSON.parse(text);
  } catch {
    entry = null;
  }
  if (typeof entry?.access_token === "string" && areScopes(entry.scopes_granted) && Number.isFinite(entry.expires_at) && Number.isFinite(entry.obtained_at)) return entry;
  throw new AtpError("Keychain", `the entry ${account} of the keychain is not a token of ours; remove it`);
}

const leadOf = ({ expires_at, obtained_at }) => Math.min(MAX_LEAD_MS, Math.max(0, Math.floor((expires_at - obtained_at) / 5)));

/**
 * When it is refreshed: a fifth of its life ahead of its end, at most five minutes, and up to a tenth of that earlier or later, so
 * that agents that began together do not come together. By the token itself, which is random: all who ask agree.
 */
function dueAt(entry) {
  const lead = leadOf(entry);
  const random = createHash("sha256").update(entry.access_token).digest().readUInt32LE(0) / 0xffffffff;
  return entry.expires_at - (lead - Math.floor(lead / 10) + Math.floor(Math.floor(lead / 5) * random));
}

/** Whether it may still be handed out, though it is due. */
const isAlive = (entry, now) => now < entry.expires_at - Math.min(LAST_MS, leadOf(entry) / 10);
const covers = (entry, { scopes }) => scopes.every((scope) => entry.scopes_granted.includes(scope));

module.exports = { entryOf, readEntry, dueAt, isAlive, covers };
