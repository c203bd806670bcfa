// Loaded before a program in a test: api.example.com has a public address, and what is sent there arrives at a port of this machine.
"use strict";

const dns = require("node:dns");
const https = require("node:https");

const PUBLIC = "93.184.215.14";
const lookup = dns.lookup;
dns.lookup = (name, options, callback) =>
  name === "api.example.com" ? callback(null, [{ address: PUBLIC, family: 4 }]) : lookup(name, options, callback);

const request = https.request;
https.request = (options) => {
  // The client's own look at the address comes first.
  const here = (name, how, callback) =>
    options.lookup(name, how, (error) => (error ? callback(error) : how.all ? callback(null, [{ address: "127.0.0.1", family: 4 }]) : callback(null, "127.0.0.1", 4)));
  return request({ ...options, port: Number(process.env.PORT), lookup: here });
};
