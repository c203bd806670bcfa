// A daemon on a Unix socket: one connection for all calls of a process, requests one behind the other without waiting, and
// connected again where it ended.
"use strict";

const net = require("node:net");
const { AgentError, Lost } = require("./errors");
const { Decoder, encode } = require("./frames");
const { trustedPath } = require("./endpoint");

/** Requests that wait for an answer on one connection; the daemon takes 128. */
const MAX_IN_FLIGHT = 100;
/** Calls of this process that wait to become such requests. */
const MAX_WAITING = 10_000;
const HELLO_MS = 5_000;
/** How long a daemon is waited for that this process was never connected to. */
const FIRST_PATIENCE_MS = 1_000;
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 320;

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const nonsense = () => new AgentError("PROTOCOL_ERROR", "the daemon's answer cannot be understood; check its version");
const timedOut = (what) => new AgentError("TIMEOUT", `${what} did not answer in time; check its log, or allow more with \`timeout\``);

/** A daemon's refusal as an error. */
function refusal({ message, data }) {
  if (!isObject(data) || typeof data.code !== "string") return nonsense();
  const { code, ...more } = data;
  return new AgentError(code, typeof message === "string" ? message : code, more);
}

/** One connection. Knows which requests wait for an answer. */
class Link {
  #socket;
  #decoder = new Decoder();
  #waiting = new Map();
  #next = 1;
  #greeted;

  constructor(path, client) {
    this.over = false;
    this.hello = new Promise((resolve, reject) => (this.#greeted = { resolve, reject }));
    this.hello.catch(() => {}); // Who waits for it hears of it.
    this.#socket = net.connect({ path });
    this.#socket.on("connect", () => this.#socket.write(encode({ obol: 1, codec: "json", client })));
    this.#socket.on("data", (piece) => this.#received(piece));
    this.#socket.on("error", (error) => this.#end(error));
    this.#socket.on("close", () => this.#end(new Lost("the connection ended")));
  }

  /** An idle connection does not keep the process alive. */
  rest() {
    if (this.#waiting.size === 0) this.#socket.unref();
  }

  /** `{ answer, forget }`: the answer, and how to say that the gateway no longer waits for it, so that it does not keep the process alive. */
  request(method, params) {
    let id;
    const answer = new Promise((resolve, reject) => {
      if (this.over) return reject(new Lost("the connection ended"));
      id = this.#next++;
      const frame = encode({ jsonrpc: "2.0", id, method, params });
      this.#waiting.set(id, { resolve, reject });
      this.#socket.ref();
      this.#socket.write(frame);
    });
    const forget = () => {
      if (this.#waiting.delete(id)) this.rest();
    };
    return { answer, forget };
  }

  close() {
    this.#end(new AgentError("CLOSED", "the agent was closed"));
  }

  #received(piece) {
    try {
      for (const message of this.#decoder.push(piece)) this.#take(message);
    } catch {
      this.#end(nonsense());
    }
  }

  #take(message) {
    if (!isObject(message)) throw new TypeError("not an object");
    if (this.#greeted) return this.#welcome(message);
    if (!isObject(message.error) && !isObject(message.result)) throw new TypeError("neither a result nor an error");
    const asker = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    this.rest();
    if (isObject(message.error)) asker?.reject(refusal(message.error));
    else asker?.resolve(message.result);
  }

  #welcome(message) {
    const { resolve, reject } = this.#greeted;
    this.#greeted = null;
    if (isObject(message.error)) return reject(refusal({ message: message.error.message, data: { code: message.error.code } }));
    if (message.obol !== 1 || message.codec !== "json") return reject(nonsense());
    resolve(this);
  }

  #end(error) {
    if (this.over) return;
    this.over = true;
    this.#socket.destroy();
    this.#greeted?.reject(error);
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error instanceof AgentError ? error : new Lost("the connection ended"));
  }
}

class Daemon {
  #path;
  #user;
  #client;
  #label;
  #link = null;
  #opening = null;
  #known = false;
  #inFlight = 0;
  #queue = [];
  #closed = false;

  constructor({ path, user, client, label }) {
    this.#path = path;
    this.#user = user;
    this.#client = client;
    this.#label = label;
  }

  get path() {
    return this.#path;
  }

  /**
   * Asks, within the deadline. `repeat`: whether the request may be asked again where its answer was lost; else that is `Lost`.
   * A refusal is an AgentError with the daemon's code.
   */
  async call(method, params, deadline, { repeat }) {
    await this.#turn(deadline);
    try {
      for (;;) {
        const link = await this.#connected(deadline);
        const { answer, forget } = link.request(method, params);
        try {
          return await this.#within(deadline, answer);
        } catch (error) {
          forget();
          if (error instanceof RangeError) throw new AgentError("INVALID_ARGUMENT", `${method}: ${error.message}`);
          if (!(error instanceof Lost) || !repeat) throw error;
          await deadline.pause(FIRST_PAUSE_MS);
        }
      }
    } finally {
      this.#pass();
    }
  }

  close() {
    this.#closed = true;
    this.#link?.close();
  }

  /** Waits until there are few enough requests under way. */
  async #turn(deadline) {
    if (this.#inFlight < MAX_IN_FLIGHT) {
      this.#inFlight += 1;
      return;
    }
    if (this.#queue.length >= MAX_WAITING) {
      throw new AgentError("OVERLOADED", `more than ${MAX_WAITING} calls of this process wait for ${this.#label}; make fewer at once`);
    }
    const place = {};
    const turn = new Promise((resolve) => (place.resolve = resolve));
    this.#queue.push(place);
    try {
      await this.#within(deadline, turn);
    } catch (error) {
      const index = this.#queue.indexOf(place);
      if (index >= 0) this.#queue.splice(index, 1);
      else this.#pass();
      throw error;
    }
  }

  #pass() {
    const next = this.#queue.shift();
    if (next) next.resolve();
    else this.#inFlight -= 1;
  }

  #within(deadline, promise) {
    return deadline.within(promise, () => timedOut(this.#label));
  }

  async #connected(deadline) {
    const began = performance.now();
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      if (this.#closed) throw new AgentError("CLOSED", "the agent was closed; make a new one");
      if (this.#link && !this.#link.over) return this.#link;
      this.#opening ??= this.#open().finally(() => (this.#opening = null));
      try {
        return await this.#within(deadline, this.#opening);
      } catch (error) {
        if (error instanceof AgentError || !mayPass(error)) throw this.#explained(error);
        const patience = this.#known ? Infinity : FIRST_PATIENCE_MS - (performance.now() - began);
        if (Math.min(patience, deadline.left()) <= pause) throw this.#explained(error);
        await deadline.pause(pause);
      }
    }
  }

  async #open() {
    const link = new Link(trustedPath(this.#path, this.#user), this.#client);
    const timer = setTimeout(() => link.close(), HELLO_MS);
    try {
      await link.hello;
    } finally {
      clearTimeout(timer);
    }
    this.#known = true;
    this.#link = link;
    link.rest();
    return link;
  }

  #explained(error) {
    if (error instanceof AgentError || !(error instanceof Lost || error.code)) return error;
    const why = { ENOENT: "there is no socket", ECONNREFUSED: "nothing listens", EACCES: "this user may not connect" };
    const what = why[error.code] ?? `no connection (${error.code ?? "it ended"})`;
    return new AgentError("DAEMON_UNREACHABLE", `${what} at ${this.#path}; start ${this.#label}, or say where it listens`);
  }
}

/** Whether the daemon may just be restarting. */
const mayPass = (error) => error instanceof Lost || ["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE"].includes(error.code);

module.exports = { Daemon, isObject };
