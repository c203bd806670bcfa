// One process of several that want the same token.
"use strict";

const { createClient } = require("../lib/agent-tokens");

const client = createClient(JSON.parse(process.argv[2]));
client.ensureToken(process.argv[3], { scopes: ["read"] }).then((token) => process.send(token, () => process.exit(0)));
