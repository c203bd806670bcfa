// Prints random JSON objects, each in a text of its own kind, and the signature of each: lines of JSON with `text` and `signature`. The Rust
// harness signs the same texts. Arguments: how many, the secret.
"use strict";

const { randomBytes, randomInt } = require("node:crypto");
const { signAtpBody, verifyAtpSignature } = require("../../lib/agent-tokens");

const one = (choices) => choices[randomInt(choices.length)];

function text() {
  const point = () => {
    const found = one([() => randomInt(0x20), () => randomInt(0x80), () => randomInt(0x800), () => randomInt(0xe000, 0x10000), () => randomInt(0x110000)])();
    return found >= 0xd800 && found < 0xe000 ? 0x20ac : found;
  };
  return String.fromCodePoint(...Array.from({ length: randomInt(6) }, point));
}

/** Any double but those from 2^53 to 10^21: these are written as integers, and the Rust side refuses an integer that no double holds. */
function double() {
  for (;;) {
    const found = randomBytes(8).readDoubleBE();
    if (Number.isFinite(found) && (Math.abs(found) < 2 ** 53 || Math.abs(found) >= 1e21)) return found;
  }
}

const number = () => one([double, () => randomInt(2 ** 47), () => -randomInt(1000), () => randomInt(1_000_000) / 10 ** randomInt(9), () => randomInt(1, 10) * 10 ** randomInt(-30, 16), () => -0, () => 2 ** one([randomInt(-1074, 53), randomInt(70, 1024)])])();
const name = () => one([text, text, () => String(randomInt(1000)), () => `0${randomInt(100)}`, () => one(["__proto__", "constructor", "signature", "toString", ""])])();

function value(depth) {
  const kinds = [text, number, number, () => randomInt(2) === 1, () => null];
  if (depth < 3) kinds.push(() => Array.from({ length: randomInt(4) }, () => value(depth + 1)), () => object(depth + 1));
  return one(kinds)();
}

/** Members in the order in which they are written. */
const object = (depth) => new Map(Array.from({ length: randomInt(1, 6) }, () => [name(), value(depth)]));

const space = () => " \t\r\n".charAt(randomInt(12)) || "";

function writtenText(value) {
  const unit = (character) => {
    const escaped = () => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
    const needed = JSON.stringify(character).slice(1, -1);
    if (randomInt(5) > 0 && !/[\ud800-\udfff]/.test(character)) return needed;
    return character === "/" ? "\\/" : escaped();
  };
  // Both halves of a pair are escaped, or none.
  return `"${[...value].map((character) => (character.length > 1 && randomInt(2) === 0 ? character : [...character.split("")].map(unit).join(""))).join("")}"`;
}

function writtenNumber(value) {
  const plain = Object.is(value, -0) ? "-0" : JSON.stringify(value);
  if (randomInt(2) === 0) return plain;
  if (/^-?[0-9]+$/.test(plain)) return one([`${plain}.0`, `${plain}e0`, value === 0 ? `${plain}E+1` : `${plain}0E-1`, `${plain}.000`]);
  return plain.replace("e", "E");
}

function written(value) {
  const list = (open, parts, close) => `${open}${space()}${parts.join(`${space()},${space()}`)}${space()}${close}`;
  if (value instanceof Map) return list("{", [...value].map(([name, member]) => `${writtenText(name)}${space()}:${space()}${written(member)}`), "}");
  if (Array.isArray(value)) return list("[", value.map(written), "]");
  if (typeof value === "string") return writtenText(value);
  return typeof value === "number" ? writtenNumber(value) : JSON.stringify(value);
}

const [count, secret] = process.argv.slice(2);
const lines = [];
for (let n = 0; n < Number(count); n += 1) {
  const text = written(object(0));
  const body = JSON.parse(text);
  const signature = signAtpBody(body, secret);
  if (!verifyAtpSignature(body, signature, secret)) throw new Error(text);
  lines.push(JSON.stringify({ text, signature }));
}
process.stdout.write(`${lines.join("\n")}\n`);
