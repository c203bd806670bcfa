// One process of several that want the same lock. `hold` takes it and never lets go; a number is how often it takes it, each time
// writing down that it came and that it went.
"use strict";

const fs = require("node:fs");
const { locked } = require("../lib/atp/lock");

const [file, log, times] = process.argv.slice(2);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

(async () => {
  if (times === "hold") {
    await locked(file, async () => {
      process.send("held");
      await pause(600_000);
    });
  }
  for (let n = 0; n < Number(times); n += 1) {
    await locked(file, async () => {
      fs.appendFileSync(log, `in ${process.pid}\n`);
      await pause(Math.random() * 3);
      fs.appendFileSync(log, `out ${process.pid}\n`);
    });
  }
  process.exit(0);
})();
