// The agent's folder: its name, what is kept fresh and what is still to be revoked, and locks between processes.
"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs/promises");
const os = require("node:os");
const path = require("node:path");
const { computeAgentId } = require("./agent-id");
const { AtpError } = require("./errors");
const { locked } = require("./lock");
const { HEX64 } = require("./words");

const HOSTS = "hosts.json";
/** The most hosts whose tokens are kept fresh. */
const MAX_HOSTS = 1_000;

/** A path that is empty or relative is none, as the XDG specification has it: it would lead wherever the program happens to run. */
function usualFolder() {
  const named = process.env.XDG_STATE_HOME ?? "";
  const home = path.isAbsolute(named) ? named : path.join(os.homedir(), ".local/state");
  return path.join(home, "obol", "atp-node");
}

class State {
  constructor(folder = usualFolder()) {
    this.folder = folder;
  }

  path = (name) => path.join(this.folder, name);

  /** A failure of the system in words that help; a "file exists" or our own error as it is. */
  async #doing(work) {
    try {
      return await work();
    } catch (error) {
      if (error instanceof AtpError || error.code === "EEXIST" || typeof error.syscall !== "string") throw error;
      throw new AtpError("State", `${this.folder}: ${error.syscall} failed (${error.code}); stateDir must be a folder that this user can write to`);
    }
  }

  write(name, text, flag = "w") {
    return this.#doing(async () => {
      await fs.mkdir(this.folder, { recursive: true, mode: 0o700 });
      await fs.writeFile(this.path(name), text, { mode: 0o600, flag, flush: true });
    });
  }

  read(name) {
    return this.#doing(() =>
      fs.readFile(this.path(name), "utf8").catch((error) => {
        if (error.code === "ENOENT") return null;
        throw error;
      }),
    );
  }

  /** Computed once and kept, whatever the host is called later. */
  async agentId() {
    const kept = (await this.read("agent-id"))?.trim();
    if (kept && HEX64.test(kept)) return kept;
    const id = computeAgentId();
    try {
      await this.write("agent-id", `${id}\n`, kept ? "w" : "wx");
    } catch (error) {
      if (error.code === "EEXIST") return this.agentId();
      throw error;
    }
    return id;
  }

  /** The first host that the plain secret is used for is the only one. Returns that host. */
  async bindPlainSecret(host) {
    await this.write("plain-secret-host", `${host}\n`, "wx").catch((error) => {
      if (error.code !== "EEXIST") throw error;
    });
    return (await this.read("plain-secret-host")).trim();
  }

  /** By host what is kept fresh, and the hosts where revocations did not get through: `{ fresh, revocations }`. */
  async hosts() {
    const text = await this.read(HOSTS);
    if (text === null) return { fresh: {}, revocations: [] };
    let all;
    try {
      all = JSON.parse(text);
    } catch {
      all = null;
    }
    if (typeof all !== "object" || all === null) {
      throw new AtpError("State", `${this.path(HOSTS)} is damaged; remove it, and request again what is to be kept fresh`);
    }
    // Before there were revocations in it, the file was what is kept fresh alone.
    return Array.isArray(all.revocations) ? all : { fresh: all, revocations: [] };
  }

  /** Changes that list; of several processes one at a time. Nearly always there is nothing to change. */
  async changeHosts(change) {
    const changed = async () => {
      const hosts = await this.hosts();
      const before = JSON.stringify(hosts);
      change(hosts);
      const after = JSON.stringify(hosts);
      if (Object.keys(hosts.fresh).length > MAX_HOSTS) {
        throw new AtpError("Argument", "tokens of 1,000 hosts are kept fresh already; revoke one first");
      }
      return after === before ? null : after;
    };
    if ((await changed()) === null) return;
    await this.locked("hosts", async () => {
      const after = await changed();
      if (after === null) return;
      const next = `${HOSTS}.${randomBytes(4).toString("hex")}`;
      await this.write(next, after, "wx");
      await this.#doing(() => fs.rename(this.path(next), this.path(HOSTS)));
    });
  }

  /** Runs while no other process has this lock, nor anybody else here. */
  locked(name, work) {
    return this.#doing(() => locked(this.path(`lock-${Buffer.from(name).toString("base64url")}`), work));
  }
}

module.exports = { State };
