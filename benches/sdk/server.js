// An HTTP server that answers everything with the same few bytes, in a process of its own. Prints its port.
"use strict";

const server = require("node:http").createServer((request, response) => {
  request.resume();
  response.writeHead(200, { "content-type": "text/plain", "content-length": 2 }).end("ok");
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
