// What a provider must not forget: which requests were answered, and which tokens were revoked.
//
// With a folder, each is a line in a file that is synced before anything is answered; without one it is in memory, and what may
// have been answered before the start is refused.
"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");

/** Seconds that a mark is kept after the second its request was signed in: as far as any window reaches back, and a margin. */
const KEEP_SECS = 1020;
const MAX_MARKS = 1_000_000;
const LOG = "marks.log";
const KEY = "jwt.key";

class Unavailable extends Error {}

/** Opens the state: `{ key, since, spend, revoke, isRevoked }`. `fence`: where nothing is known, what was signed up to then (Unix
 * seconds) may have been answered. */
function openState(folder, fence, nowSecs = Math.floor(Date.now() / 1000)) {
  const marks = new Map();
  const revoked = new Map();
  if (folder === undefined) {
    const keep = { spend: async () => {}, revoke: async () => {} };
    return view({ key: randomBytes(32), since: fence, kid: `m${randomBytes(4).toString("hex")}`, marks, revoked, ...keep });
  }
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { key, fresh } = loadKey(path.join(folder, KEY));
  const file = path.join(folder, LOG);
  const lost = !fs.existsSync(file);
  load(file, marks, revoked, nowSecs);
  const append = appender(file);
  // A key without its marks: the file of marks was lost, and with it what was answered.
  const since = lost && !fresh ? fence : 0;
  const write = {
    spend: (mark, until) => append(`m ${mark} ${until}`),
    revoke: (id, until) => append(`r ${id} ${until}`),
  };
  return view({ key, since, kid: "file-1", marks, revoked, ...write });
}

function loadKey(file) {
  let text;
  try {
    if ((fs.statSync(file).mode & 0o077) !== 0) throw new Error(`${file} is readable by others; run chmod 600 on it`);
    text = fs.readFileSync(file, "utf8").trim();
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    text = randomBytes(32).toString("hex");
    fs.writeFileSync(file, `${text}\n`, { mode: 0o600, flag: "wx", flush: true });
    return { key: Buffer.from(text, "hex"), fresh: true };
  }
  if (!/^[0-9a-f]{64}$/.test(text)) throw new Error(`${file} must hold 64 lower-case hex digits`);
  return { key: Buffer.from(text, "hex"), fresh: false };
}

/** Reads what still counts, and writes the file anew with that alone. */
function load(file, marks, revoked, nowSecs) {
  let text = "";
  try {
    text = fs.readFileSync(file, "utf8");
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const lines = [];
  // What stands behind the last line end was cut off by a crash, and was never answered.
  for (const line of text.split("\n").slice(0, -1)) {
    const [kind, name, until] = line.split(" ");
    if (!/^[mr]$/.test(kind) || !name || !/^[0-9]+$/.test(until ?? "")) throw new Error(`${file} is damaged`);
    if (Number(until) < nowSecs) continue;
    (kind === "m" ? marks : revoked).set(name, Number(until));
    lines.push(`${line}\n`);
  }
  fs.writeFileSync(`${file}.new`, lines.join(""), { mode: 0o600, flush: true });
  fs.renameSync(`${file}.new`, file);
  const folder = fs.openSync(path.dirname(file), "r");
  fs.fsyncSync(folder);
  fs.closeSync(folder);
}

/** Appends lines, as many as wait with one sync. After a failure nothing is written any more: what the file holds is unknown. */
function appender(file) {
  const handle = fs.openSync(file, "a", 0o600);
  let waiting = [];
  let running = false;
  let failed = false;
  const flush = () => {
    const batch = waiting;
    waiting = [];
    const done = (error) => {
      failed ||= Boolean(error);
      for (const { resolve, reject } of batch) error ? reject(new Unavailable()) : resolve();
      running = false;
      if (waiting.length > 0) start();
    };
    fs.write(handle, batch.map(({ line }) => `${line}\n`).join(""), (error) => (error ? done(error) : fs.fdatasync(handle, done)));
  };
  const start = () => {
    running = true;
    setImmediate(flush);
  };
  return (line) =>
    new Promise((resolve, reject) => {
      if (failed) return reject(new Unavailable());
      waiting.push({ line, resolve, reject });
      if (!running) start();
    });
}

function forget(map, nowSecs) {
  // In the order of insertion, which is nearly that of expiry.
  for (const [name, until] of map) {
    if (until >= nowSecs) return;
    map.delete(name);
  }
}

function view({ key, kid, since, marks, revoked, spend, revoke }) {
  return {
    key,
    kid,
    since,
    /** Resolves to whether the mark is new; only once it cannot be lost. */
    async spend(mark, signedSecs, nowSecs) {
      forget(marks, nowSecs);
      if (marks.has(mark)) return false;
      if (marks.size >= MAX_MARKS) throw new Unavailable();
      // In memory first: a second request that comes while the first is being written is a replay.
      marks.set(mark, signedSecs + KEEP_SECS);
      await spend(mark, signedSecs + KEEP_SECS);
      return true;
    },
    async revoke(id, until, nowSecs) {
      forget(revoked, nowSecs);
      if (revoked.has(id)) return;
      if (revoked.size >= MAX_MARKS) throw new Unavailable();
      revoked.set(id, until);
      await revoke(id, until);
    },
    isRevoked: (id) => revoked.has(id),
  };
}

module.exports = { openState, Unavailable };
