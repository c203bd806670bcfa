// The agent's folder: its name, the hosts whose tokens are kept fresh, and locks between processes.
"use strict";

const fs = require("node:fs/promises");
const os = require("node:os");
const path = require("node:path");
const { computeAgentId } = require("./agent-id");
const { HEX64 } = require("./words");

const LOCK_PATIENCE_MS = 15_000;
const LOCK_STALE_MS = 30_000;
const LOCK_PAUSE_MS = 40;

function usualFolder() {
  const home = process.env.XDG_STATE_HOME ?? path.join(os.homedir(), ".local/state");
  return path.join(home, "obol", "atp-node");
}

class State {
  constructor(folder = usualFolder()) {
    this.folder = folder;
  }

  async write(name, text, flag = "w") {
    await fs.mkdir(this.folder, { recursive: true, mode: 0o700 });
    await fs.writeFile(path.join(this.folder, name), text, { mode: 0o600, flag, flush: true });
  }

  read(name) {
    return fs.readFile(path.join(this.folder, name), "utf8").catch((error) => {
      if (error.code === "ENOENT") return null;
      throw error;
    });
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

  async hosts() {
    try {
      return JSON.parse((await this.read("hosts.json")) ?? "{}");
    } catch {
      return {};
    }
  }

  async remember(host, request) {
    await this.locked("hosts", async () => {
      const hosts = await this.hosts();
      if (request === undefined) delete hosts[host];
      else hosts[host] = request;
      await this.write("hosts.json.new", JSON.stringify(hosts));
      await fs.rename(path.join(this.folder, "hosts.json.new"), path.join(this.folder, "hosts.json"));
    });
  }

  /** Runs one process at a time. A lock that was left behind is broken after a while. */
  async locked(name, work) {
    const file = `lock-${Buffer.from(name).toString("base64url")}`;
    const until = Date.now() + LOCK_PATIENCE_MS;
    for (;;) {
      try {
        await this.write(file, `${process.pid}\n`, "wx");
        break;
      } catch (error) {
        if (error.code !== "EEXIST" || Date.now() > until) throw error;
      }
      const age = await fs.stat(path.join(this.folder, file)).then((found) => Date.now() - found.mtimeMs, () => 0);
      if (age > LOCK_STALE_MS) await fs.rm(path.join(this.folder, file), { force: true });
      await new Promise((done) => setTimeout(done, LOCK_PAUSE_MS * (0.5 + Math.random())));
    }
    try {
      return await work();
    } finally {
      await fs.rm(path.join(this.folder, file), { force: true });
    }
  }
}

module.exports = { State };
