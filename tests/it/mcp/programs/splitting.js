// A server whose reader of lines ends them where few others do. Writes each of its lines to the file that is its first argument.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");

readline.createInterface({ input: process.stdin }).on("line", (line) => fs.appendFileSync(process.argv[2], `${line}\n`));
