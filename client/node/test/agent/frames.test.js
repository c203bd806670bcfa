// The golden frames of tests/vectors/ipc, read and written; and frames that are none.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const { Decoder, MAX_FRAME_BYTES, encode } = require("../../lib/agent/frames");
const { VECTORS } = require("./world");

const files = ["hello.json", "agent.json", "auth.json"];
const lines = files.flatMap((file) => JSON.parse(fs.readFileSync(path.join(VECTORS, "ipc", file), "utf8")));
const messages = (bytes) => [...new Decoder().push(bytes)];

test("golden frames are read as their messages", () => {
  assert.ok(lines.length > 40);
  for (const { what, json, message } of lines) assert.deepEqual(messages(Buffer.from(json, "hex")), [message], what);
});

test("what is written reads as the message", () => {
  for (const { what, message } of lines) assert.deepEqual(messages(encode(message)), [message], what);
});

test("all of them behind each other, in pieces of every size", () => {
  const all = Buffer.concat(lines.map(({ json }) => Buffer.from(json, "hex")));
  for (const size of [1, 2, 3, 5, 7, 64, 1000, all.length]) {
    const decoder = new Decoder();
    const found = [];
    for (let place = 0; place < all.length; place += size) found.push(...decoder.push(all.subarray(place, place + size)));
    assert.deepEqual(found, lines.map(({ message }) => message), `pieces of ${size}`);
  }
});

test("lengths that no frame has, and what is no JSON, are refused", () => {
  for (const hex of ["00000000", "00010001", "ffffffff", "0000000178", "00000002ff22"]) assert.throws(() => messages(Buffer.from(hex, "hex")), hex);
  assert.deepEqual(messages(Buffer.from("0000", "hex")), []);
});

test("a message that does not fit a frame is not written", () => {
  const text = "x".repeat(MAX_FRAME_BYTES - '{"text":""}'.length);
  assert.equal(encode({ text }).length, 4 + MAX_FRAME_BYTES);
  assert.throws(() => encode({ text: `${text}x` }), RangeError);
});
