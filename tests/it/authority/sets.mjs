// Makes security event tokens with jose, and checks one of ours: JSON in, JSON out.
import { readFileSync } from "node:fs";
import { createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify, SignJWT } from "jose";

const asked = JSON.parse(readFileSync(0, "utf8"));
const keys = {};
for (const alg of ["RS256", "ES256", "EdDSA"]) {
  const options = alg === "EdDSA" ? { crv: "Ed25519", extractable: true } : { modulusLength: 2048, extractable: true };
  const pair = await generateKeyPair(alg, options);
  keys[alg] = { pair, public: { ...(await exportJWK(pair.publicKey)), kid: `node-${alg}`, alg, use: "sig" } };
}
const tokens = [];
for (const { alg, claims } of asked.make ?? []) {
  const header = { alg, kid: `node-${alg}`, typ: "secevent+jwt" };
  tokens.push(await new SignJWT(claims).setProtectedHeader(header).sign(keys[alg].pair.privateKey));
}
const answer = { jwks: { keys: Object.values(keys).map((key) => key.public) }, tokens };
if (asked.check) {
  const { jwks, token, issuer, audience } = asked.check;
  const options = { issuer, audience, typ: "secevent+jwt", algorithms: ["RS256", "ES256"] };
  answer.claims = (await jwtVerify(token, createLocalJWKSet(jwks), options)).payload;
}
process.stdout.write(JSON.stringify(answer));
