// Sealed bodies, with the keys that came with a token (docs/protocol.md).
"use strict";

const { createCipheriv, createDecipheriv, randomBytes } = require("node:crypto");
const { AgentError } = require("./errors");

const SEALED_TYPE = "application/vnd.obol.sealed";
const MAX_PLAIN_BYTES = 1 << 20;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const CIPHERS = { "AES-256-GCM": "aes-256-gcm", "ChaCha20-Poly1305": "chacha20-poly1305" };

const failed = (why) => new AgentError("CHANNEL_FAILED", `the answer ${why}; it may not be the resource server's, and the call may have been carried out`);

class Channel {
  #cipher;
  #keys;

  constructor({ alg, requestKey, requestAad, responseKey, responseAad }) {
    this.#cipher = CIPHERS[alg];
    this.#keys = Object.fromEntries(
      Object.entries({ requestKey, requestAad, responseKey, responseAad }).map(([name, text]) => [name, Buffer.from(String(text), "base64url")]),
    );
    if (!this.#cipher || this.#keys.requestKey.length !== 32 || this.#keys.responseKey.length !== 32) {
      throw new AgentError("PROTOCOL_ERROR", "the keys for sealed bodies cannot be used; check the sidecar's version");
    }
  }

  seal(plain) {
    if (plain.length > MAX_PLAIN_BYTES) throw new AgentError("INVALID_ARGUMENT", `the body: at most ${MAX_PLAIN_BYTES} bytes where it is sealed`);
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(this.#cipher, this.#keys.requestKey, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(this.#keys.requestAad, { plaintextLength: plain.length });
    return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  /** Under the nonce that the answer begins with: the agreed one, or a random one. */
  open(sealed) {
    if (sealed.length < NONCE_BYTES + TAG_BYTES) throw failed("is too short to be sealed");
    const [nonce, text] = [sealed.subarray(0, NONCE_BYTES), sealed.subarray(NONCE_BYTES, -TAG_BYTES)];
    const decipher = createDecipheriv(this.#cipher, this.#keys.responseKey, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(this.#keys.responseAad, { plaintextLength: text.length });
    decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
    try {
      return Buffer.concat([decipher.update(text), decipher.final()]);
    } catch {
      throw failed("does not open");
    }
  }
}

const MAX_SEALED_BYTES = NONCE_BYTES + MAX_PLAIN_BYTES + TAG_BYTES;

module.exports = { Channel, MAX_SEALED_BYTES, SEALED_TYPE, failed };
