// An agent's name: a hash of machine and user. Who knows these can compute it: it is a name, never a proof.
"use strict";

const { createHash, createHmac, randomBytes } = require("node:crypto");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");

const trimmed = (text) => text.trim();

/** The documented formula: SHA-256 over host name, user name and machine id, one behind the other. */
function fromMachine(hostname, username, machineId) {
  return createHash("sha256").update(hostname + username + trimmed(machineId), "utf8").digest("hex");
}

/** Another name at each host; the machine id stays private. */
function keyed(machineId, host) {
  return createHmac("sha256", trimmed(machineId)).update(`obol-atp-agent-id${host}`).digest("hex");
}

const reading = (read) => {
  try {
    return read();
  } catch {
    return "";
  }
};
const firstMatch = (pattern, text) => pattern.exec(text)?.[1] ?? "";

/** The system's machine id, or "" where there is none. */
function machineId() {
  if (process.platform === "darwin") {
    const listing = reading(() => execFileSync("/usr/sbin/ioreg", ["-rd1", "-c", "IOPlatformExpertDevice"], { timeout: 2000, encoding: "utf8" }));
    return firstMatch(/"IOPlatformUUID" = "([^"]+)"/, listing);
  }
  if (process.platform === "win32") {
    const listing = reading(() => execFileSync("reg", ["query", "HKLM\\SOFTWARE\\Microsoft\\Cryptography", "/v", "MachineGuid"], { timeout: 2000, encoding: "utf8" }));
    return firstMatch(/MachineGuid\s+REG_SZ\s+(\S+)/, listing);
  }
  for (const file of ["/etc/machine-id", "/var/lib/dbus/machine-id"]) {
    const id = trimmed(reading(() => fs.readFileSync(file, "utf8")));
    if (/^[0-9a-fA-F]{32}$/.test(id)) return id;
  }
  return "";
}

/** This machine's agent id: computed once; random where there is no machine id. */
function computeAgentId() {
  const id = machineId();
  if (id === "") return createHash("sha256").update(randomBytes(16)).digest("hex");
  const user = reading(() => os.userInfo().username) || String(process.getuid?.() ?? "");
  return fromMachine(os.hostname(), user, id);
}

module.exports = { fromMachine, keyed, machineId, computeAgentId };
