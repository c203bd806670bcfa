// Where the daemons' sockets are, and whether they are those of somebody to trust.
//
// Node cannot ask the kernel who listens behind a socket. So the socket must belong to a trusted user, and lie where nobody
// else can put one: each folder on its real path belongs to a trusted user and is closed to others, or is sticky. Trusted are
// this process's own user, root, the one that OBOL_ENDPOINT_USER or the option `user` names, and the owner of the socket's
// folder where root alone decides about everything above it (`/run/obol`).
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { AgentError } = require("./errors");

const MAX_PATH_BYTES = 107;
const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;
const SYSTEMS = "/run/obol/agent.sock";

function named(text, where) {
  const place = text.startsWith("unix://") ? text.slice("unix://".length) : text;
  if (!place || place.includes("\0") || Buffer.byteLength(place) > MAX_PATH_BYTES) {
    throw new AgentError("INVALID_ARGUMENT", `${where}: the path of a socket, at most ${MAX_PATH_BYTES} bytes long`);
  }
  return path.resolve(place);
}

/** The agent's socket: the option, the variable, the user's, the system's. */
function agentSocket(option, environment) {
  if (option) return named(option, "socket");
  if (environment.OBOL_ENDPOINT_SOCKET) return named(environment.OBOL_ENDPOINT_SOCKET, "OBOL_ENDPOINT_SOCKET");
  const runtime = environment.XDG_RUNTIME_DIR ?? "";
  const users = path.isAbsolute(runtime) ? path.join(runtime, "obol/agent.sock") : null;
  return users && (fs.existsSync(users) || !fs.existsSync(SYSTEMS)) ? users : SYSTEMS;
}

/** The authenticator's: the option, the variable, beside the agent's. */
function authSocket(option, environment, agent) {
  if (option) return named(option, "authSocket");
  if (environment.OBOL_AUTH_SOCKET) return named(environment.OBOL_AUTH_SOCKET, "OBOL_AUTH_SOCKET");
  return path.join(path.dirname(agent), "auth.sock");
}

/** The number of a user who is named by number or by name; null if nobody is named. */
function userNumber(option, environment) {
  const user = String(option ?? environment.OBOL_ENDPOINT_USER ?? "");
  if (!user) return null;
  if (/^[0-9]{1,10}$/.test(user) && Number(user) < 2 ** 32 - 1) return Number(user);
  const lines = fs.readFileSync("/etc/passwd", "utf8").split("\n").map((line) => line.split(":"));
  const found = lines.find(([name]) => name === user);
  if (!found) throw new AgentError("INVALID_ARGUMENT", `user: there is no user ${JSON.stringify(user)} on this machine`);
  return Number(found[2]);
}

const above = (place) => (place === "/" ? [] : [path.dirname(place), ...above(path.dirname(place))]);
const closed = (folder) => (folder.mode & WRITABLE_BY_OTHERS) === 0 || (folder.mode & STICKY) !== 0;

/** The owner of a folder where only root can have put it there. */
function keeper(folder) {
  const roots = above(folder).map((place) => fs.statSync(place));
  return roots.every((place) => place.uid === 0 && closed(place)) ? fs.statSync(folder).uid : null;
}

function untrusted(place, owner) {
  return new AgentError(
    "UNTRUSTED_DAEMON",
    `the socket ${place} lies where user #${owner} or others could have put it, who are neither this user nor root; ` +
      "if that is the daemon's user, say so with OBOL_ENDPOINT_USER, and close its folder to others",
  );
}

/** The socket's real path, to connect to; throws where it is not to be trusted. `ENOENT` passes through. */
function trustedPath(socket, user) {
  const real = fs.realpathSync(socket);
  const entry = fs.statSync(real);
  if (!entry.isSocket()) throw new AgentError("DAEMON_UNREACHABLE", `${socket} is not a socket; check where the daemon listens`);
  const folder = path.dirname(real);
  const trusted = new Set([process.geteuid(), 0, user, keeper(folder)]);
  if (!trusted.has(entry.uid)) throw untrusted(socket, entry.uid);
  for (const place of above(real)) {
    const stat = fs.statSync(place);
    if (!trusted.has(stat.uid) || !closed(stat)) throw untrusted(place, stat.uid);
  }
  return named(real, "socket");
}

module.exports = { agentSocket, authSocket, trustedPath, userNumber };
