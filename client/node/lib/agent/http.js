// One HTTP request, sent once. Nothing here follows, repeats or guesses: the platform's `fetch` sends a request again by itself
// after a 421, and does not say whether a failed one was connected. Both decide here whether a token was spent.
"use strict";

const http = require("node:http");
const https = require("node:https");
const zlib = require("node:zlib");
const { pipeline } = require("node:stream");
const { AgentError } = require("./errors");
const { originOf } = require("./url");

/** Connections to one origin; more calls wait for one of them. */
const MAX_SOCKETS = 256;
/** How long a connection is kept that nothing uses: less than servers keep theirs, for a call on one that ends is ambiguous. */
const IDLE_MS = 4_000;
const DECODERS = { gzip: zlib.createGunzip, "x-gzip": zlib.createGunzip, deflate: zlib.createInflate, br: zlib.createBrotliDecompress };
const NEEDS_NO_LENGTH = new Set(["GET", "HEAD", "OPTIONS", "DELETE"]);
const NO_BODY = new Set([204, 205, 304]);

/** Never connected: nobody has seen the request. */
class Unsent extends Error {}
/** Sent, at least in part, and no answer. `timedOut`: because the time was over. */
class Unanswered extends Error {
  timedOut = false;
}

/** `localhost` is this machine, whatever a resolver says. */
function loopback(_host, options, done) {
  const all = [{ address: "127.0.0.1", family: 4 }, { address: "::1", family: 6 }];
  return options.all ? done(null, all) : done(null, all[0].address, all[0].family);
}

class Connections {
  #agents;

  constructor() {
    const options = { keepAlive: true, maxSockets: MAX_SOCKETS, scheduling: "lifo", timeout: IDLE_MS };
    // Said here, so that no variable of the environment says otherwise.
    this.#agents = { http: new http.Agent(options), https: new https.Agent({ ...options, rejectUnauthorized: true }) };
  }

  close() {
    for (const agent of Object.values(this.#agents)) agent.destroy();
  }

  /** Sends, and gives the answer once its head is there. `body`: a Buffer, null, or something to iterate over. */
  send({ url, method, headers, body }, deadline) {
    return new Promise((resolve, reject) => {
      const { request } = url.scheme === "https" ? https : http;
      const outgoing = request({
        agent: this.#agents[url.scheme],
        host: url.host.replace(/^\[|\]$/g, ""),
        port: url.port,
        path: url.path + url.query,
        method,
        insecureHTTPParser: false,
        headers: ["host", originOf(url).slice(url.scheme.length + 3), ...headers, ...framing(method, body)],
        ...(url.host === "localhost" ? { lookup: loopback } : {}),
      });
      let connected = false;
      let timedOut = false;
      const onConnected = () => (connected = true);
      outgoing.on("socket", (socket) => {
        if (outgoing.reusedSocket) connected = true;
        else socket.once(url.scheme === "https" ? "secureConnect" : "connect", onConnected);
      });
      const timer = setTimeout(() => ((timedOut = true), outgoing.destroy()), deadline.left());
      const gaveUp = () => outgoing.destroy();
      deadline.signal?.addEventListener("abort", gaveUp, { once: true });
      const settled = () => {
        clearTimeout(timer);
        deadline.signal?.removeEventListener("abort", gaveUp);
      };
      const failed = (error) => {
        settled();
        if (deadline.signal?.aborted) return reject(deadline.signal.reason);
        const failure = connected ? new Unanswered() : timedOut ? lateConnection() : new Unsent();
        failure.timedOut = timedOut;
        failure.why = whyOf(error, timedOut);
        reject(failure);
      };
      outgoing.on("error", failed);
      outgoing.on("response", (incoming) => {
        if (!isHttp(incoming)) return outgoing.destroy(notHttp());
        settled();
        resolve(new Answer(incoming, deadline));
      });
      outgoing.on("upgrade", (_incoming, socket) => {
        socket.destroy();
        failed(notHttp());
      });
      write(outgoing, body);
    });
  }
}

const notHttp = () => Object.assign(new Error(), { code: "NOT_HTTP" });

/**
 * What some read as one thing and others as another is not an answer: a version or a status that HTTP does not have, several lengths, a length
 * beside a coding, and a coding that is not chunked alone.
 */
function isHttp({ httpVersion, statusCode, headersDistinct }) {
  const { "content-length": lengths = [], "transfer-encoding": codings = [] } = headersDistinct;
  const isFramed = codings.length === 0 ? lengths.length <= 1 : lengths.length === 0 && codings.length === 1 && codings[0].toLowerCase() === "chunked";
  return isFramed && ["1.0", "1.1"].includes(httpVersion) && statusCode <= 599;
}

/** How long the body is. Beside a list of headers Node says neither this nor the host by itself. */
function framing(method, body) {
  if (body !== null) return Buffer.isBuffer(body) ? ["content-length", String(body.length)] : ["transfer-encoding", "chunked"];
  return NEEDS_NO_LENGTH.has(method) ? [] : ["content-length", "0"];
}

const lateConnection = () => new AgentError("TIMEOUT", "could not connect to the server in time; nothing was sent");
// The error itself may hold what the server sent, and that may hold the token.
const whyOf = (error, timedOut) => (timedOut ? "the time was over" : /^[A-Z][A-Z0-9_]{2,60}$/.test(error.code) ? error.code : "the connection ended");

async function write(outgoing, body) {
  if (body === null || Buffer.isBuffer(body)) return outgoing.end(body ?? undefined);
  try {
    for await (const piece of body) {
      if (outgoing.destroyed) return;
      if (!outgoing.write(typeof piece === "string" ? Buffer.from(piece) : Buffer.from(piece.buffer ?? piece, piece.byteOffset, piece.byteLength))) {
        await new Promise((ready) => outgoing.once("drain", ready).once("close", ready));
      }
    }
    outgoing.end();
  } catch {
    outgoing.destroy();
  }
}

/** An answer whose head is there. */
class Answer {
  #incoming;
  #source;
  #pauseMs;
  #signal;
  #peeked = [];
  #ended = false;

  constructor(incoming, deadline) {
    this.#incoming = incoming;
    this.#pauseMs = deadline.ms;
    this.#signal = deadline.signal;
    this.status = incoming.statusCode;
    this.statusText = incoming.statusMessage ?? "";
    // Who gives up while the body comes gives up the body.
    if (this.#signal) {
      const gaveUp = () => incoming.destroy();
      this.#signal.addEventListener("abort", gaveUp, { once: true });
      incoming.once("close", () => this.#signal.removeEventListener("abort", gaveUp));
    }
    this.noBody = NO_BODY.has(this.status) || incoming.req.method === "HEAD";
  }

  /** The only value of a header; null if there is none, undefined if there are several. */
  only(name) {
    const values = this.#incoming.headersDistinct[name] ?? [];
    return values.length > 1 ? undefined : (values[0] ?? null);
  }

  headers() {
    const headers = new Headers();
    const raw = this.#incoming.rawHeaders;
    for (let place = 0; place < raw.length; place += 2) headers.append(raw[place], raw[place + 1]);
    return headers;
  }

  /** Lets go of it. */
  drop() {
    if (this.#incoming.complete) this.#incoming.resume();
    else this.#incoming.destroy();
  }

  /** All of the body, or null if it is longer than this. Throws `Unanswered` where it is cut. */
  async bytes(limit) {
    let length = this.#peeked.reduce((sum, piece) => sum + piece.length, 0);
    while (!this.#ended && length <= limit) {
      const piece = await this.#read();
      if (piece === null) break;
      this.#peeked.push(piece);
      length += piece.length;
    }
    return length <= limit ? Buffer.concat(this.#peeked) : null;
  }

  /** The body for a `Response`: what was looked at, and what is still to come. */
  body() {
    if (this.noBody) {
      this.#incoming.resume();
      return null;
    }
    if (this.#incoming.complete && !this.#source && !this.#encoding()) {
      const whole = this.#incoming.read() ?? Buffer.alloc(0);
      this.#incoming.resume();
      return whole;
    }
    if (this.#ended) return Buffer.concat(this.#peeked);
    return new ReadableStream({ pull: (controller) => this.#pull(controller), cancel: () => void this.#incoming.destroy() }, { highWaterMark: 0 });
  }

  async #pull(controller) {
    try {
      const piece = this.#peeked.shift() ?? (await this.#read());
      if (piece === null) controller.close();
      else controller.enqueue(new Uint8Array(piece));
    } catch (error) {
      controller.error(error instanceof Unanswered ? cut(error) : error);
    }
  }

  #encoding() {
    return DECODERS[(this.only("content-encoding") ?? "").toLowerCase()];
  }

  /** The next piece, null at the end. */
  async #read() {
    if (!this.#source) {
      const decoder = this.#encoding()?.();
      const stream = decoder ? pipeline(this.#incoming, decoder, () => {}) : this.#incoming;
      this.#source = stream[Symbol.asyncIterator]();
    }
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Unanswered()), this.#pauseMs)));
    try {
      const { done, value } = await Promise.race([this.#source.next(), late]);
      this.#ended = done;
      return done ? null : value;
    } catch (error) {
      this.#incoming.destroy();
      if (this.#signal?.aborted) throw this.#signal.reason;
      throw Object.assign(new Unanswered(), { why: whyOf(error, false) });
    } finally {
      clearTimeout(timer);
    }
  }
}

const cut = () => new AgentError("OUTCOME_UNKNOWN", "the answer was cut off or stalled; the call was carried out, at least in part");

module.exports = { Answer, Connections, Unanswered, Unsent };
