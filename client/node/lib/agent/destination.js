// Where a request may go with a token, and with which: the routes of the session decide, and nothing else does.
"use strict";

const { AgentError } = require("./errors");
const { originOf, readUrl } = require("./url");

const MAX_ROUTES = 100_000;

const segmentsOf = (path) => path.split("/").slice(1);
const isText = (value) => typeof value === "string" && value.length > 0;
const optional = (value) => value === undefined || value === null || isText(value);

/** A URL that others lie under, as `{ origin, prefix, url }`. A slash at the end means nothing. */
function readBase(text) {
  const url = readUrl(text);
  if (url.query) throw new AgentError("INVALID_ARGUMENT", "the URL of a route has no query");
  const prefix = segmentsOf(url.path);
  if (prefix.at(-1) === "") prefix.pop();
  return { origin: originOf(url), prefix, url };
}

function readRoute(route) {
  const tools = route?.tools;
  const named = Array.isArray(tools) && tools.length > 0 && tools.every(isText) && isText(route.audience);
  if (!named || ![route.url, route.method, route.path, route.via].every(optional)) {
    throw new AgentError("INVALID_ARGUMENT", "a route has an `audience`, `tools`, and maybe `url`, `method`, `path` and `via`, all text");
  }
  const base = readBase(route.url ?? route.audience);
  const pattern = route.path ? segmentsOf(readUrl(`https://pattern${route.path.startsWith("/") ? "" : "/"}${route.path}`).path) : null;
  const via = route.via ? readBase(route.via).url : null;
  return { ...base, audience: route.audience, tools: [...tools], method: route.method ?? null, pattern, via, sealed: route.sealed === true };
}

/** The routes that name destinations. Of the session's, one whose audience is not a URL names none; of an option's, that is an error. */
function readRoutes(routes, { strict }) {
  if (!Array.isArray(routes) || routes.length > MAX_ROUTES) {
    throw new AgentError("INVALID_ARGUMENT", `routes: a list of at most ${MAX_ROUTES}`);
  }
  return routes.flatMap((route) => {
    try {
      return [readRoute(route)];
    } catch (error) {
      if (strict && (route?.url || !isText(route?.audience) || /^https?:/i.test(route.audience))) throw error;
      return [];
    }
  });
}

/** Whether segments match a pattern: `*` is one that is not empty, `**` any number. */
function matches(pattern, segments) {
  let reached = new Set([0]);
  const skip = (places) => {
    for (const place of places) if (pattern[place] === "**") places.add(place + 1);
    return places;
  };
  reached = skip(reached);
  for (const segment of segments) {
    const next = new Set();
    for (const place of reached) {
      if (pattern[place] === "**") next.add(place);
      else if (pattern[place] === "*" ? segment !== "" : pattern[place] === segment) next.add(place + 1);
    }
    reached = skip(next);
  }
  return reached.has(pattern.length);
}

const within = (prefix, segments) => prefix.every((segment, place) => segments[place] === segment);

/** The routes that a request could be a call of. */
function candidates(routes, method, url) {
  const origin = originOf(url);
  const segments = segmentsOf(url.path);
  let found = routes.filter(
    (route) =>
      route.origin === origin &&
      within(route.prefix, segments) &&
      (route.method === null || route.method === method) &&
      (route.pattern === null || matches(route.pattern, segments)),
  );
  const longest = Math.max(...found.map((route) => route.prefix.length));
  found = found.filter((route) => route.prefix.length === longest);
  return found.some((route) => route.pattern) ? found.filter((route) => route.pattern) : found;
}

/** Where the request goes, `{ audience, tool, send }`, or null where nothing matches. */
function findDestination(routes, { method, url, tool, audience }) {
  const pairs = new Map();
  for (const route of candidates(routes, method, url)) {
    if (audience !== undefined && route.audience !== audience) continue;
    for (const name of route.tools) {
      const key = JSON.stringify([route.audience, name]);
      if ((tool === undefined || name === tool) && !pairs.has(key)) pairs.set(key, { route, tool: name });
    }
  }
  if (pairs.size === 0) return null;
  if (pairs.size > 1) {
    const names = [...pairs.values()].slice(0, 10).map((pair) => `${pair.tool} (${pair.route.audience})`);
    throw new AgentError("TOOL_REQUIRED", `several tools are granted there; name one with \`tool\`: ${names.join(", ")}`);
  }
  const [{ route, tool: name }] = pairs.values();
  return { audience: route.audience, tool: name, send: gated(url, route.via), sealed: route.sealed };
}

/** The request's URL behind its gateway, if it has one. */
function gated(url, via) {
  if (!via) return url;
  const front = via.path.endsWith("/") ? via.path.slice(0, -1) : via.path;
  return { ...via, path: front + url.path, query: url.query };
}

const unknownDestination = (url) =>
  new AgentError(
    "UNKNOWN_DESTINATION",
    `no token goes to ${originOf(url)}: the session names no such destination, or not for this path, method and tool; ` +
      "ask for a grant, or name it with `routes` if the session was made by hand",
  );

module.exports = { findDestination, readRoutes, unknownDestination };
