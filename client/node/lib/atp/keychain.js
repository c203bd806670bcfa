// Where tokens are kept: the Secret Service by way of `secret-tool` where that is, else a sealed file. `storedIn` says which.
"use strict";

const { createCipheriv, createDecipheriv, hkdfSync, randomBytes } = require("node:crypto");
const { execFile } = require("node:child_process");
const fs = require("node:fs/promises");
const path = require("node:path");
const { AtpError } = require("./errors");

const SERVICE = "agentdom";
const TOOL_TIMEOUT_MS = 2_000;
const LABEL = "obol-atp-keychain-v1";

/** Runs `secret-tool`; a secret goes through its standard input, never through its arguments. */
function run(args, input) {
  return new Promise((resolve, reject) => {
    const child = execFile("secret-tool", args, { timeout: TOOL_TIMEOUT_MS, maxBuffer: 1 << 20 }, (error, stdout) => {
      if (!error) resolve(stdout);
      // 1 is its answer for "not found".
      else if (error.code === 1 && stdout === "") resolve(null);
      else reject(new AtpError("Keychain", `the Secret Service does not answer (secret-tool ${args[0]}: ${error.code ?? error.signal ?? "failed"}); is the keyring unlocked?`));
    });
    child.stdin.on("error", () => {});
    child.stdin.end(input ?? "");
  });
}

class SecretService {
  storedIn = "secret-service";
  attributes = (account) => ["service", SERVICE, "account", account];
  async get(account) {
    return run(["lookup", ...this.attributes(account)]);
  }
  async set(account, value) {
    await run(["store", "--label", `${SERVICE} ${account}`, ...this.attributes(account)], value);
    if ((await this.get(account)) !== value) throw new AtpError("Keychain", "the Secret Service did not keep the token");
  }
  async delete(account) {
    await run(["clear", ...this.attributes(account)]);
  }
}

/** One AES-256-GCM file for each account, under a key that is derived from a master key beside them. */
class SealedFiles {
  storedIn = "file";
  constructor(folder) {
    this.folder = folder;
  }
  async key() {
    const file = path.join(this.folder, "master.key");
    await fs.mkdir(this.folder, { recursive: true, mode: 0o700 });
    await fs.writeFile(file, `${randomBytes(32).toString("hex")}\n`, { mode: 0o600, flag: "wx", flush: true }).catch(ignore("EEXIST"));
    if (((await fs.stat(file)).mode & 0o077) !== 0) throw new AtpError("Keychain", `${file} is readable by others; run chmod 600 on it`);
    const text = (await fs.readFile(file, "utf8")).trim();
    if (!/^[0-9a-f]{64}$/.test(text)) throw new AtpError("Keychain", `${file} must hold 64 lower-case hex digits`);
    return Buffer.from(hkdfSync("sha256", Buffer.from(text, "hex"), "", LABEL, 32));
  }
  file = (account) => path.join(this.folder, `${Buffer.from(account).toString("base64url")}.sealed`);
  async get(account) {
    const sealed = await fs.readFile(this.file(account)).catch(ignore("ENOENT"));
    if (sealed === undefined) return null;
    try {
      const opener = createDecipheriv("aes-256-gcm", await this.key(), sealed.subarray(0, 12)).setAAD(Buffer.from(account));
      opener.setAuthTag(sealed.subarray(12, 28));
      return Buffer.concat([opener.update(sealed.subarray(28)), opener.final()]).toString("utf8");
    } catch (error) {
      if (error instanceof AtpError) throw error;
      throw new AtpError("Keychain", `${this.file(account)} does not open with this master key; remove it to start over`);
    }
  }
  async set(account, value) {
    const nonce = randomBytes(12);
    const sealer = createCipheriv("aes-256-gcm", await this.key(), nonce).setAAD(Buffer.from(account));
    const text = Buffer.concat([sealer.update(value, "utf8"), sealer.final()]);
    const next = `${this.file(account)}.${randomBytes(4).toString("hex")}`;
    await fs.writeFile(next, Buffer.concat([nonce, sealer.getAuthTag(), text]), { mode: 0o600, flag: "wx", flush: true });
    await fs.rename(next, this.file(account));
  }
  async delete(account) {
    await fs.unlink(this.file(account)).catch(ignore("ENOENT"));
  }
}

const ignore = (code) => (error) => {
  if (error.code !== code) throw error;
};

/** `chosen`: "auto", "secret-service" or "file". */
async function openKeychain(chosen, folder) {
  if (chosen === "file") return new SealedFiles(folder);
  const usable = process.env.DBUS_SESSION_BUS_ADDRESS !== undefined && (await run(["lookup", "service", SERVICE, "account", "__probe__"]).then(() => true, () => false));
  if (usable) return new SecretService();
  if (chosen === "secret-service") throw new AtpError("Keychain", "the Secret Service does not answer: secret-tool, a session bus and an unlocked keyring are needed");
  process.emitWarning(`agent-tokens: no Secret Service here; tokens are kept in sealed files in ${folder}, whose key lies beside them`);
  return new SealedFiles(folder);
}

module.exports = { openKeychain, SealedFiles };
