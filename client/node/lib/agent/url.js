// URLs, read strictly from their text, so that no two readers take one for different places. The rules are numbered in
// tests/vectors/sdk/README.md; nothing here depends on the platform's lenient parser.
"use strict";

const net = require("node:net");
const { AgentError } = require("./errors");

const MAX_CHARACTERS = 8_192;
const FORM = /^(https?):\/\/([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?$/is;
const AUTHORITY = /^(\[[0-9a-fA-F:]+\]|[0-9A-Za-z._-]+)(?::([1-9][0-9]{0,4}))?$/;
const DEFAULT_PORTS = { http: 80, https: 443 };
const LIKE_DOTS = /^\.{1,2}(?:$|[;:]|%3[AB])/;
/** Some write an address that stands for an IPv4 one so, and others so. */
const FOR_IPV4 = /^\[::ffff:[0-9a-f]{1,4}:[0-9a-f]{1,4}\]$/;
const ESCAPED = new RegExp("%(?:2F|5C|25|[01][0-9A-F]|7F)");

const wrong = (what) => new AgentError("INVALID_ARGUMENT", `the URL ${what}`);

/** `{ scheme, host, port, path, query }`, normalised. `host` is as in a URL; `path` begins with `/`; `query` is empty or begins with `?`. */
function readUrl(text) {
  if (text.length > MAX_CHARACTERS) throw wrong(`is longer than ${MAX_CHARACTERS} characters`);
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f-\u009f\\]/.test(text)) throw wrong("holds a control character or a backslash");
  if (!text.isWellFormed()) throw wrong("holds half a character");
  const parts = FORM.exec(text);
  if (!parts) throw wrong("must begin with https:// and a host, or with http:// and a host on loopback");
  const scheme = parts[1].toLowerCase();
  const { host, port } = readAuthority(parts[2], scheme);
  if (scheme === "http" && !isLoopback(host)) throw wrong("must begin with https://; http is for loopback only");
  return { scheme, host, port, path: readPath(parts[3]), query: escaped(parts[4] ?? "") };
}

function readAuthority(text, scheme) {
  const parts = AUTHORITY.exec(text);
  const port = Number(parts?.[2] ?? DEFAULT_PORTS[scheme]);
  const host = parts && readHost(parts[1].toLowerCase());
  if (!host || port > 65_535) throw wrong("needs a plain host and maybe a port: no user, no dot at its end, other scripts as xn--");
  return { host, port };
}

/** Null for what is not a host. */
function readHost(host) {
  if (host.startsWith("[")) {
    const address = net.isIPv6(host.slice(1, -1)) ? new URL(`http://${host}`).hostname : null;
    return address && !FOR_IPV4.test(address) ? address : null;
  }
  const labels = host.split(".");
  if (host.length > 253 || !labels.every((label) => label.length >= 1 && label.length <= 63)) return null;
  const last = labels.at(-1);
  return /^(?:[0-9]+|0x.*)$/.test(last) && !net.isIPv4(host) ? null : host;
}

function readPath(text) {
  const path = escaped(text || "/").replace(/%(?:[0-9A-Fa-f]{2})?/g, unescape);
  if (!isUtf8(path)) throw wrong("has a path that is not UTF-8 once it is decoded");
  if (ESCAPED.test(path)) throw wrong("holds an encoded slash, backslash, percent sign or control character in its path");
  const segments = path.split("/").slice(1);
  if (segments.slice(0, -1).includes("")) throw wrong("has an empty segment in its path");
  if (segments.some((segment) => LIKE_DOTS.test(segment))) throw wrong("has a segment . or .. in its path, or one that could be read as such");
  return path;
}

function isUtf8(path) {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}

/** One `%XX` in its only form. */
function unescape(text) {
  if (text.length !== 3) throw wrong("has a % in its path without two hex digits behind it");
  const sign = String.fromCharCode(parseInt(text.slice(1), 16));
  return /[0-9A-Za-z._~-]/.test(sign) ? sign : text.toUpperCase();
}

/** Writes what may not stand in a path or a query as `%XX`. */
const escaped = (text) => text.replace(/[^!$%&'()*+,\-./0-9:;=?@A-Z_a-z~]/gu, encodeURIComponent);

function isLoopback(host) {
  return host === "localhost" || host === "[::1]" || (net.isIPv4(host) && host.startsWith("127."));
}

const originOf = ({ scheme, host, port }) => `${scheme}://${host}${port === DEFAULT_PORTS[scheme] ? "" : `:${port}`}`;
const writeUrl = (url) => `${originOf(url)}${url.path}${url.query}`;

/** What `Location` leads to from here, as text that has yet to be read. Null where there is no telling. */
function resolve(location, from) {
  if (!location || !/^[!-[\]-~]+$/.test(location)) return null;
  if (/^[A-Za-z][A-Za-z0-9+.-]*:/.test(location)) return location;
  if (location.startsWith("//")) return `${from.scheme}:${location}`;
  if (location.startsWith("/")) return originOf(from) + location;
  if (location.startsWith("?")) return originOf(from) + from.path + location;
  if (location.startsWith("#")) return writeUrl(from);
  return originOf(from) + from.path.slice(0, from.path.lastIndexOf("/") + 1) + location;
}

module.exports = { isLoopback, originOf, readUrl, resolve, writeUrl };
