// Known answers that were not computed by this code: tests/vectors/atp, and another folder where OBOL_ATP_VECTORS names one.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { createHash, createHmac } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { signAtpBody, verifyAtpSignature } = require("../lib/agent-tokens");
const { canonicalBody } = require("../lib/atp/signature");
const { parseTokenBody, parseRevokeBody, BodyError } = require("../lib/atp/body");
const { createKey, createReadingKey } = require("../lib/atp/jwt");
const { fromMachine, keyed } = require("../lib/atp/agent-id");

const folders = [path.join(__dirname, "../../../tests/vectors/atp"), process.env.OBOL_ATP_VECTORS].filter(Boolean);
const read = (name) => folders.map((folder) => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8")));

test("every text of a value has the signature of the vectors", () => {
  for (const vector of read("hmac.json").flatMap((file) => file.vectors)) {
    assert.equal(canonicalBody(vector.body), vector.canonical, vector.name);
    assert.equal(signAtpBody(vector.body, vector.secret), vector.signature, vector.name);
    for (const text of vector.texts ?? []) {
      assert.ok(verifyAtpSignature(JSON.parse(text), vector.signature, vector.secret), `${vector.name}: ${text}`);
    }
  }
});

test("a token endpoint reads exactly the vectors within the schema", () => {
  let taken = 0;
  for (const vector of read("hmac.json").flatMap((file) => file.vectors)) {
    const parse = vector.body.action ? parseRevokeBody : parseTokenBody;
    for (const text of vector.texts ?? []) {
      const bytes = Buffer.from(JSON.stringify({ ...JSON.parse(text), signature: vector.signature }));
      if (vector.outside_the_schema === undefined) {
        const { body, signature } = parse(bytes);
        assert.ok(verifyAtpSignature({ ...body }, signature, vector.secret), vector.name);
        taken += 1;
      } else if (!/secret|scopes/.test(vector.outside_the_schema)) {
        assert.throws(() => parse(bytes), BodyError, vector.name);
      }
    }
  }
  assert.ok(taken > 10);
});

test("malformed bodies are refused before any key is looked at", () => {
  const cases = JSON.parse(fs.readFileSync(path.join(folders[0], "malformed.json"), "utf8"));
  for (const { name, text, status } of cases) {
    assert.throws(() => parseTokenBody(Buffer.from(text)), (error) => error instanceof BodyError && error.tooLarge === (status === 413), name);
  }
  assert.ok(cases.length > 100);
});

test("agent ids are those of the vectors", () => {
  for (const file of read("agent-id.json")) {
    for (const seed of file.seed) assert.equal(fromMachine(seed.hostname, seed.username, seed.machine_id_as_read), seed.agent_id, seed.name);
    for (const one of file.keyed) assert.equal(keyed(one.machine_id, one.host), one.agent_id);
  }
});

test("tokens are made and refused as in the vectors", () => {
  for (const file of read("jwt.json")) {
    const keys = new Map();
    for (const { key_hex, public_key, header, claims, token } of file.accepted) {
      const { alg, kid } = JSON.parse(header);
      const key = alg === "EdDSA" ? createReadingKey(kid, public_key) : createKey(kid, Buffer.from(key_hex, "hex"));
      keys.set(alg, key);
      if (key.mint) assert.equal(key.mint(JSON.parse(claims)), token);
      assert.deepEqual(key.read(token, file.issuer, file.now), JSON.parse(claims), header);
      const cut = `${token.slice(0, -6)}${token.at(-6) === "A" ? "B" : "A"}${token.slice(-5)}`;
      assert.equal(key.read(cut, file.issuer, file.now), null, "another signature");
    }
    assert.deepEqual([...keys.keys()].sort(), ["EdDSA", "HS256"]);
    for (const key of keys.values()) {
      for (const { why, token } of file.refused) assert.equal(key.read(token, file.issuer, file.now), null, why);
    }
  }
});

test("a signature that is malformed is wrong and never throws", () => {
  const good = signAtpBody({ a: 1 }, "k");
  assert.ok(verifyAtpSignature({ a: 1 }, good, "k"));
  for (const bad of ["", good.slice(1), `${good}0`, good.toUpperCase(), null, undefined, 5, {}]) {
    assert.equal(verifyAtpSignature({ a: 1 }, bad, "k"), false);
  }
  assert.equal(verifyAtpSignature({ a: "\ud800" }, good, "k"), false);
  assert.throws(() => signAtpBody({ a: "\ud800" }, "k"), TypeError);
  assert.throws(() => signAtpBody([], "k"), TypeError);
  assert.throws(() => signAtpBody({ a: new Date() }, "k"), TypeError);
  assert.equal(signAtpBody({ a: 1, purpose: undefined }, "k"), good, "a member that is undefined is absent");
});
