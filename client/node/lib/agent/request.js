// What a caller asks for, in the forms that the platform's `fetch` takes, as plain values.
"use strict";

const { readApproval, readApprovalId } = require("./approval");
const { AgentError } = require("./errors");

const NOT_THE_CALLERS =
  /^(?:authorization|tbac-pop|host|connection|content-length|expect|idempotency-key|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade)$/i;
const REDIRECTS = ["follow", "manual", "error"];
const PRINTABLE = /^[\x21-\x7e]{1,255}$/;

const wrong = (what) => new AgentError("INVALID_ARGUMENT", what);

/** The body as a Buffer, null, or what can be iterated over once; and the type that follows from its form. */
async function readBody(body) {
  if (body === undefined || body === null) return { body: null };
  if (typeof body === "string") return { body: Buffer.from(body, "utf8"), type: "text/plain;charset=UTF-8" };
  if (ArrayBuffer.isView(body)) return { body: Buffer.from(body.buffer, body.byteOffset, body.byteLength) };
  if ([Object.prototype, Array.prototype, null].includes(Object.getPrototypeOf(body))) {
    throw wrong("body: an object is not one; write it with JSON.stringify, or as URLSearchParams or FormData");
  }
  if (typeof body[Symbol.asyncIterator] === "function" && !(body instanceof Blob)) return { body, stream: true };
  // Forms, blobs, buffers: the platform knows how they are written.
  const written = new Response(body);
  return { body: Buffer.from(await written.arrayBuffer()), type: written.headers.get("content-type") ?? undefined };
}

function readHeaders(given) {
  let headers;
  try {
    headers = new Headers(given);
  } catch {
    throw wrong("headers: names of letters, digits and -, values without line breaks");
  }
  const list = [];
  for (const [name, value] of headers) {
    if (NOT_THE_CALLERS.test(name)) throw wrong(`headers: ${name} is set by fetch itself${name === "idempotency-key" ? ", from the option idempotencyKey" : ""}`);
    list.push([name, value]);
  }
  return list;
}

function setDefault(headers, name, value) {
  if (value && !headers.some(([given]) => given === name)) headers.push([name, value]);
}

/** `{ url, method, headers, body, stream, redirect, idempotencyKey, tool, audience, approval, approvalId, timeout, signal }`; `url` as text. */
async function readRequest(input, init) {
  // Also one of another library, or of another realm.
  const isRequest = typeof input?.url === "string" && typeof input.arrayBuffer === "function";
  const request = isRequest ? input : null;
  const url = request ? request.url : String(input);
  const method = String(init.method ?? request?.method ?? "GET").toUpperCase();
  if (!/^[A-Z]{1,20}$/.test(method) || ["CONNECT", "TRACE", "TRACK"].includes(method)) throw wrong("method: GET, POST and the like");
  const redirect = init.redirect ?? request?.redirect ?? "follow";
  if (!REDIRECTS.includes(redirect)) throw wrong(`redirect: one of ${REDIRECTS.join(", ")}`);
  const key = init.idempotencyKey;
  if (key !== undefined && !(typeof key === "string" && PRINTABLE.test(key))) throw wrong("idempotencyKey: 1 to 255 visible ASCII characters");
  const headers = readHeaders(init.headers ?? request?.headers);
  // A Request does not say whether its body came as a stream: it is read first, so that it can be hashed, sealed and sent again.
  const given = init.body ?? (request?.body ? await request.arrayBuffer() : undefined);
  const { body, type, stream = false } = await readBody(given);
  if (body !== null && (method === "GET" || method === "HEAD")) throw wrong(`a ${method} has no body`);
  setDefault(headers, "content-type", type);
  setDefault(headers, "accept", "*/*");
  setDefault(headers, "user-agent", "obol-agent-node/0.1.0");
  if (key !== undefined) headers.push(["idempotency-key", key]);
  const { tool, audience, timeout, signal = request?.signal } = init;
  const approval = readApproval(init.approval);
  const approvalId = readApprovalId(init.approvalId);
  return { url, method, headers, body, stream, redirect, idempotencyKey: key, tool, audience, approval, approvalId, timeout, signal };
}

module.exports = { readRequest };
