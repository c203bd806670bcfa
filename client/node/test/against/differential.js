// Two parsers, one reading: what is malformed is refused by both providers with the same status and code. OBOL is the binary.
"use strict";

const { test } = require("node:test");
const assert = require("node:assert/strict");
const { randomInt } = require("node:crypto");
const https = require("node:https");
const { SECRET, provider, post } = require("../world");
const { serve } = require("./serve");
const { signAtpBody } = require("../../lib/agent-tokens");

process.on("warning", () => {});

const pick = (list) => list[randomInt(list.length)];
const body = () => ({ agent_id: "1b".repeat(32), scopes: ["read"], timestamp: Date.now(), nonce: `n-${randomInt(2 ** 40)}-xxxx` });
const text = (members) => JSON.stringify({ ...members, signature: signAtpBody(members, SECRET) });

/** What no value of a member may be. */
const WRONG = {
  agent_id: [1, null, "", "1B".repeat(32), "1b".repeat(31), "1b".repeat(33), "zz".repeat(32), [], {}],
  scopes: [null, "read", [1], ["a b"], [""], ["a".repeat(65)], ["é"], ["read", "read"], Array.from({ length: 33 }, (_, n) => `s${n}`), {}],
  timestamp: [null, "1767225600000", -1, 0, 1767225600, 1.5, 2 ** 53, [], true],
  nonce: [null, "short", "x".repeat(65), "with space", "plus+sign", 12345678],
  purpose: [null, 1, "x".repeat(257), "a\u0000b", "a\u200db", "a\u2028b", "a\u202eb", "\u0085"],
  aud: [null, 1, []],
  signature: [null, "", "00".repeat(31), "00".repeat(33), "0G".repeat(32), "AB".repeat(32), 7],
  extra: [1, "x", null, {}],
  action: ["revoke"],
};

/** One text that must not be read, and how it came about. */
const MALFORMED = [
  () => {
    const member = pick(Object.keys(WRONG));
    const members = { ...JSON.parse(text(body())), [member]: pick(WRONG[member]) };
    return [`${member} = ${JSON.stringify(members[member])?.slice(0, 40)}`, JSON.stringify(members)];
  },
  () => {
    const gone = pick(["agent_id", "scopes", "timestamp", "signature"]);
    const members = JSON.parse(text(body()));
    delete members[gone];
    return [`without ${gone}`, JSON.stringify(members)];
  },
  () => {
    const whole = text(body());
    const name = pick(["agent_id", "scopes", "timestamp", "nonce", "signature"]);
    const value = JSON.stringify(JSON.parse(whole)[name]);
    return [`${name} twice`, pick([`{"${name}":${value},${whole.slice(1)}`, `${whole.slice(0, -1)},"${name}":${value}}`])];
  },
  () => {
    const members = body();
    const number = String(members.timestamp);
    const form = pick([`${number}.0`, `${number}e0`, `${number.slice(0, -1)}.${number.slice(-1)}e1`, `0${number}`, `+${number}`, `-${number}`, `"${number}"`, `${number}n`]);
    return [`timestamp ${form}`, text(members).replace(`"timestamp":${number}`, `"timestamp":${form}`)];
  },
  () => {
    const whole = text(body());
    const cut = randomInt(whole.length);
    return [`cut at ${cut}`, whole.slice(0, cut)];
  },
  () => {
    const whole = text(body());
    return pick([["BOM", `\ufeff${whole}`], ["behind", `${whole}x`], ["two", whole + whole], ["list", `[${whole}]`], ["comma", `${whole.slice(0, -1)},}`], ["single quotes", whole.replaceAll('"', "'")], ["comment", `/**/${whole}`], ["__proto__", `{"__proto__":{},${whole.slice(1)}`], ["NaN", whole.replace(/"timestamp":\d+/, '"timestamp":NaN')]]);
  },
  () => {
    const whole = text(body());
    const escape = pick(["\\ud800", "\\udc00", "\\ud800\\u0041", "\\x41", "\\u12", "\t", "\u0001"]);
    return [`in a text: ${JSON.stringify(escape)}`, `{"purpose":"a${escape}b",${whole.slice(1)}`];
  },
  () => ["8,193 bytes and more", `${text(body()).slice(0, -1)}${" ".repeat(8_193)}}`],
];

test("500 malformed bodies are refused alike by both providers, and sound ones by neither", async () => {
  const [rust, script] = [await serve({ shared: [{ secret: SECRET }] }), await provider()];
  const ask = async (target, sent) => {
    const { status, body: answer } = await post(target, target.url, sent);
    return `${status} ${answer.error ?? ""}`;
  };
  for (let n = 0; n < 20; n += 1) {
    const sound = text(body());
    assert.deepEqual([await ask(rust, sound), await ask(script, sound)], ["200 ", "200 "], "control");
  }
  const seen = new Map();
  for (let n = 0; n < 500; n += 1) {
    const [name, sent] = MALFORMED[n % MALFORMED.length]();
    const [one, other] = await Promise.all([ask(rust, sent), ask(script, sent)]);
    assert.equal(one, other, `${name}: ${JSON.stringify(sent).slice(0, 600)}`);
    assert.match(one, /^4(00 invalid_request|13 request_too_large|00 invalid_scope)$/, `${name}: ${JSON.stringify(sent).slice(0, 600)}`);
    seen.set(one, (seen.get(one) ?? 0) + 1);
  }
  assert.ok(seen.get("400 invalid_request") > 300, JSON.stringify([...seen]));
  await script.close();
  await rust.close();
});

const get = (target, url, headers = {}) =>
  new Promise((resolve, reject) => {
    https.get(url, { ca: target.tls.cert, agent: false, headers }, (res) => {
      const pieces = [];
      res.on("data", (piece) => pieces.push(piece));
      res.on("end", () => resolve({ status: res.statusCode, headers: res.headers, text: Buffer.concat(pieces).toString() }));
    }).on("error", reject);
  });

test("both providers publish a document that is not sent again to who has it", async () => {
  const [rust, script] = [await serve({ shared: [{ secret: SECRET }] }, ["--signed-only"]), await provider()];
  const members = [];
  for (const target of [rust, script]) {
    const url = `https://${target.host}/.well-known/agentdom.json`;
    const first = await get(target, url);
    assert.deepEqual([first.status, first.headers["cache-control"]], [200, "public, max-age=300"]);
    assert.match(first.headers.etag, /^"[0-9a-f]{32}"$/);
    const again = await get(target, url, { "If-None-Match": first.headers.etag });
    assert.deepEqual([again.status, again.text, again.headers.etag, again.headers["cache-control"]], [304, "", first.headers.etag, "public, max-age=300"]);
    assert.equal((await get(target, url, { "If-None-Match": '"another"' })).status, 200, "control");
    const document = JSON.parse(first.text);
    members.push([Object.keys(document).sort(), Object.keys(document.auth).sort()]);
  }
  assert.deepEqual(members[0], members[1], "the same members");
  await script.close();
  await rust.close();
});

test("the body of a verification is read alike by both providers", async () => {
  const [rust, script] = [await serve({ shared: [{ secret: SECRET }] }), await provider()];
  const tokenOf = async (target) => (await post(target, target.url, text(body()))).body.token;
  const tokens = new Map([[rust, await tokenOf(rust)], [script, await tokenOf(script)]]);
  const ask = async (target, sent, token = tokens.get(target)) => {
    const answer = await post(target, `${target.url}/verify`, sent, { Authorization: `Bearer ${token}` });
    return [answer.status, answer.body.error ?? answer.body.valid];
  };
  for (const [sent, expected] of [
    ["", [200, true]], ["{}", [200, true]], [" {}\n", [200, true]], ['{"spend":true}', [200, true]], ['{"spend":true}', [200, true]], ['{ "spend" : false }', [200, true]],
    ['{"spend":null}', [400, "invalid_request"]], ['{"spend":1}', [400, "invalid_request"]], ['{"spend":"true"}', [400, "invalid_request"]],
    ['{"spend":true,"spend":true}', [400, "invalid_request"]], ['{"spend":false,"\\u0073pend":true}', [400, "invalid_request"]], ['{"\\u0073pend":true}', [200, true]],
    ['{"spend":true,"other":true}', [400, "invalid_request"]], ['{"other":true}', [400, "invalid_request"]], ["[]", [400, "invalid_request"]], ["true", [400, "invalid_request"]],
    ["{", [400, "invalid_request"]], ["\ufeff{}", [400, "invalid_request"]], ["\u00a0{}", [400, "invalid_request"]], ['{"spend":true}x', [400, "invalid_request"]],
    [`{"spend":true${" ".repeat(9_000)}}`, [413, "request_too_large"]],
  ]) {
    assert.deepEqual([await ask(rust, sent), await ask(script, sent)], [expected, expected], JSON.stringify(sent).slice(0, 80));
    if (expected[0] === 200) assert.deepEqual([await ask(rust, sent, "none"), await ask(script, sent, "none")], [[200, false], [200, false]]);
  }
  await script.close();
  await rust.close();
});

test("verifying tells what a spent token is; asking to spend it says no", async () => {
  const rust = await serve({ shared: [{ secret: SECRET }] }, ["--single-use", "write"]);
  const { token } = (await post(rust, rust.url, text({ ...body(), scopes: ["write"] }))).body;
  const verify = async (sent) => (await post(rust, `${rust.url}/verify`, sent, { Authorization: `Bearer ${token}` })).body.valid;
  assert.deepEqual([await verify(""), await verify('{"spend":true}'), await verify('{"spend":true}'), await verify("")], [true, true, false, true]);
  await rust.close();
});
