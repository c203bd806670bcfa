// Frames of the local sockets (docs/protocol.md): four bytes of length, big-endian, then that many of JSON.
"use strict";

const MAX_FRAME_BYTES = 65_536;

/** A message as a frame. Throws a RangeError for one that does not fit. */
function encode(message) {
  const body = Buffer.from(JSON.stringify(message), "utf8");
  if (body.length > MAX_FRAME_BYTES) throw new RangeError(`longer than a frame of ${MAX_FRAME_BYTES} bytes`);
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length);
  body.copy(frame, 4);
  return frame;
}

/** Puts pieces together and takes messages out. Never keeps more than one frame and what came with it. */
class Decoder {
  #rest = Buffer.alloc(0);

  /** The messages that are whole with this piece. Throws where what came is not a frame of JSON. */
  *push(piece) {
    let rest = this.#rest.length === 0 ? piece : Buffer.concat([this.#rest, piece]);
    try {
      while (rest.length >= 4) {
        const length = rest.readUInt32BE();
        if (length < 1 || length > MAX_FRAME_BYTES) throw new RangeError("a frame of an invalid length");
        if (rest.length < 4 + length) return;
        const body = rest.subarray(4, 4 + length);
        rest = rest.subarray(4 + length);
        yield JSON.parse(body.toString("utf8"));
      }
    } finally {
      this.#rest = Buffer.from(rest);
    }
  }
}

module.exports = { Decoder, MAX_FRAME_BYTES, encode };
