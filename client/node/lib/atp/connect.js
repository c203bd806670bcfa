// One HTTPS request, to an address that was looked at. No redirect is followed, no proxy is used, and everything is bounded.
"use strict";

const dns = require("node:dns");
const https = require("node:https");
const net = require("node:net");
const { AtpError } = require("./errors");

const TIMEOUT_MS = 4_000;
const MAX_ANSWER_BYTES = 64 * 1024;

const blocked = new net.BlockList();
for (const [address, bits] of [
  ["0.0.0.0", 8], ["10.0.0.0", 8], ["100.64.0.0", 10], ["127.0.0.0", 8], ["169.254.0.0", 16], ["172.16.0.0", 12],
  ["192.0.0.0", 24], ["192.0.2.0", 24], ["192.88.99.0", 24], ["192.168.0.0", 16], ["198.18.0.0", 15], ["198.51.100.0", 24],
  ["203.0.113.0", 24], ["224.0.0.0", 4], ["240.0.0.0", 4],
]) {
  blocked.addSubnet(address, bits, "ipv4");
}

/** Whether an address is one of the public internet. Of IPv6 only 2000::/3, without what stands for an IPv4 address. */
function isPublic(address) {
  if (net.isIPv4(address)) return !blocked.check(address, "ipv4");
  if (!net.isIPv6(address)) return false;
  return globalUnicast.check(address, "ipv6") && !embedded.check(address, "ipv6");
}

const globalUnicast = new net.BlockList();
globalUnicast.addSubnet("2000::", 3, "ipv6");
const embedded = new net.BlockList();
// Teredo and the rest of 2001::/23, documentation, 6to4, documentation again.
for (const [address, bits] of [["2001::", 23], ["2001:db8::", 32], ["2002::", 16], ["3fff::", 20]]) embedded.addSubnet(address, bits, "ipv6");

/** Resolves a name, and gives its addresses only if all of them may be connected to. */
function checkedLookup(mayBePrivate) {
  return (name, options, callback) => {
    dns.lookup(name, { all: true, family: options.family }, (error, found) => {
      if (error) return callback(error);
      if (found.length === 0 || !(mayBePrivate || found.every(({ address }) => isPublic(address)))) {
        return callback(Object.assign(new Error("the name resolves to an address that is not public"), { code: "ENOTPUBLIC" }));
      }
      return options.all ? callback(null, found) : callback(null, found[0].address, found[0].family);
    });
  };
}

/** Sends one request. Resolves to `{ status, headers, body }`; rejects with Unavailable. */
function send(endpoint, { method = "POST", headers = {}, body, mayBePrivate = false, ca, timeoutMs = TIMEOUT_MS }) {
  return new Promise((resolve, reject) => {
    const fail = (why) => reject(new AtpError("Unavailable", `${endpoint.host.text}: ${why}`));
    const request = https.request({
      host: endpoint.host.name,
      port: endpoint.host.port,
      path: endpoint.path,
      method,
      agent: new https.Agent({ keepAlive: false }),
      lookup: checkedLookup(mayBePrivate),
      servername: endpoint.host.name,
      ca,
      minVersion: "TLSv1.2",
      rejectUnauthorized: true,
      headers: { ...headers, Host: endpoint.authority, ...(body === undefined ? {} : { "Content-Length": Buffer.byteLength(body) }) },
      signal: AbortSignal.timeout(timeoutMs),
    });
    request.on("error", (error) => fail(error.name === "TimeoutError" || error.name === "AbortError" ? "no answer in time" : error.code ?? "failed"));
    request.on("response", (response) => {
      const pieces = [];
      let size = 0;
      response.on("data", (piece) => {
        size += piece.length;
        if (size > MAX_ANSWER_BYTES) return request.destroy(Object.assign(new Error(), { code: "ETOOLONG" }));
        pieces.push(piece);
      });
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces) }));
      response.on("error", (error) => fail(error.code ?? "cut off"));
    });
    request.end(body);
  });
}

module.exports = { send, isPublic };
