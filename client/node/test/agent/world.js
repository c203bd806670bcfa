// The scripted world of tests/vectors/sdk, as a child process that answers a line with a line.
"use strict";

const { spawn } = require("node:child_process");
const path = require("node:path");
const readline = require("node:readline");

const VECTORS = path.join(__dirname, "../../../../tests/vectors");

class World {
  #child;
  #answers = [];
  #opened;

  constructor() {
    const python = process.env.PYTHON ?? "python3";
    this.#child = spawn(python, [path.join(VECTORS, "sdk/world.py")], { stdio: ["pipe", "pipe", "inherit"] });
    readline.createInterface({ input: this.#child.stdout }).on("line", (line) => this.#answers.shift()(JSON.parse(line)));
  }

  #say(step) {
    const answer = new Promise((resolve) => this.#answers.push(resolve));
    this.#child.stdin.write(`${JSON.stringify(step)}\n`);
    return answer;
  }

  /** Opens a world; gives its places. */
  async open(world) {
    this.#opened = await this.#say({ open: world });
    return this.#opened;
  }

  /** What was seen so far. */
  counts() {
    return this.#say("counts");
  }

  close() {
    return this.#say("close");
  }

  /** `{A}` and `{A.port}` put in, anywhere in a value. */
  filled(value) {
    let text = JSON.stringify(value);
    for (const [name, origin] of Object.entries(this.#opened.servers)) {
      text = text.replaceAll(`{${name}}`, origin).replaceAll(`{${name}.port}`, new URL(origin).port);
    }
    return JSON.parse(text);
  }

  async end() {
    this.#child.stdin.end();
    await new Promise((resolve) => this.#child.once("exit", resolve));
  }
}

module.exports = { VECTORS, World };
