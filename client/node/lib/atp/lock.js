// Locks between processes: files that name their holder. One whose holder was killed is known for what it is, and broken at once.
"use strict";

const { createHash, randomBytes } = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { AtpError } = require("./errors");

const PATIENCE_MS = 60_000;
const PAUSE_MS = 40;
/** A holder touches its file so often. Only where its process cannot be looked at, silence is taken for its end. */
const BEAT_MS = 5_000;
const SILENCE_MS = 30_000;
/** How many processes may have been killed one behind the other while they broke a lock, each in the moment of it. */
const MAX_DEPTH = 4;

const orUndefined = (read) => {
  try {
    return read();
  } catch {
    return undefined;
  }
};

/** When a process began, in the kernel's own words; `undefined` where there is none, or it has ended and is only not yet collected. */
function startOf(pid) {
  const stat = orUndefined(() => fs.readFileSync(`/proc/${pid}/stat`, "latin1"));
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields === undefined || /^[ZX]$/.test(fields[0]) ? undefined : fields[19];
}

const OWN_START = startOf(process.pid);
/** Where a process number means the same: this start of this machine, and these processes. */
const PLACE = [
  os.hostname(),
  orUndefined(() => fs.readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()),
  orUndefined(() => fs.readlinkSync("/proc/self/ns/pid")),
].join(" ");

/** Who holds a lock: `{ text, pid, start, place }`; `undefined` if nobody does. */
function holderOf(file) {
  let text;
  try {
    text = fs.readFileSync(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
  const { pid, start, place } = orUndefined(() => JSON.parse(text)) ?? {};
  return { text, pid, start, place };
}

function isAlive(file, { pid, start, place }) {
  if (place === PLACE && Number.isSafeInteger(pid) && pid > 0) {
    if (OWN_START !== undefined) return startOf(pid) === start;
    try {
      process.kill(pid, 0);
    } catch (error) {
      if (error.code === "ESRCH") return false;
    }
  }
  const touched = orUndefined(() => fs.statSync(file).mtimeMs);
  return touched !== undefined && Date.now() - touched < SILENCE_MS;
}

/** Takes the lock if nobody has it; returns what it says then. All in one go, so that hardly anything can come between. */
function take(file, depth = 0) {
  const holder = holderOf(file);
  if (holder !== undefined) {
    if (!isAlive(file, holder)) breakDead(file, holder, depth);
    return null;
  }
  const id = randomBytes(8).toString("hex");
  const text = JSON.stringify({ pid: process.pid, start: OWN_START, place: PLACE, id });
  // Whole from the first moment that anybody can read it.
  const draft = `${file}.${id}`;
  fs.writeFileSync(draft, text, { mode: 0o600, flag: "wx" });
  try {
    fs.linkSync(draft, file);
    return text;
  } catch (error) {
    if (error.code === "EEXIST") return null;
    throw error;
  } finally {
    fs.unlinkSync(draft);
  }
}

/**
 * Removes a lock whose holder is dead. Only who has another lock, one that is named after the dead one, may do that, and looks again
 * first: so nobody removes what was taken since.
 */
function breakDead(file, holder, depth) {
  if (depth >= MAX_DEPTH) throw new AtpError("Locked", `${file} was left behind many times over; remove it while no program uses this folder`);
  const right = `${file}.${createHash("sha256").update(holder.text).digest("hex").slice(0, 16)}`;
  const own = take(right, depth + 1);
  if (own === null) return;
  try {
    if (holderOf(file)?.text === holder.text) fs.unlinkSync(file);
  } finally {
    release(right, own);
  }
}

function release(file, own) {
  if (orUndefined(() => fs.readFileSync(file, "utf8")) === own) fs.rmSync(file, { force: true });
}

/** Who in this process waits for which lock: they come in turn, and only the first looks at the file. */
const queues = new Map();

/** Runs while no other process, and nobody else here, has the lock. */
async function locked(file, work, patienceMs = PATIENCE_MS) {
  const before = queues.get(file);
  const turn = (async () => {
    await before;
    return holding(file, work, patienceMs);
  })();
  const settled = turn.then(() => {}, () => {});
  queues.set(file, settled);
  try {
    return await turn;
  } finally {
    if (queues.get(file) === settled) queues.delete(file);
  }
}

async function holding(file, work, patienceMs) {
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const until = performance.now() + patienceMs;
  let own;
  while ((own = take(file)) === null) {
    if (performance.now() > until) {
      const pid = holderOf(file)?.pid ?? "unknown";
      throw new AtpError("Locked", `another process (${pid}) has held ${file} for ${patienceMs / 1000} s; end it, or remove the file if no program uses this folder`);
    }
    await new Promise((done) => setTimeout(done, PAUSE_MS * (0.5 + Math.random())));
  }
  const beat = setInterval(() => orUndefined(() => fs.utimesSync(file, new Date(), new Date())), BEAT_MS).unref();
  try {
    return await work();
  } finally {
    clearInterval(beat);
    release(file, own);
  }
}

module.exports = { locked };
