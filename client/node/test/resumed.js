// A program as it is started again: it only goes on with what it kept, by the documented functions. With scopes it asks first.
"use strict";

const { ensureToken, resume } = require("../lib/agent-tokens");

const [host, ...scopes] = process.argv.slice(2);
const first = scopes.length > 0 ? ensureToken(host, { scopes }) : resume();
first.then((token) => process.send(token ?? {}));
setInterval(() => {}, 1_000);
