"""The same with authlib, whose own signing is still what many services use: JSON in, JSON out."""

import json
import sys
import warnings

warnings.simplefilter("ignore")

from authlib.jose import JsonWebKey, JsonWebToken

asked = json.load(sys.stdin)
kinds = {"RS256": ("RSA", 2048), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
keys = {
    alg: JsonWebKey.generate_key(kind, size, {"kid": f"authlib-{alg}", "alg": alg, "use": "sig"}, is_private=True)
    for alg, (kind, size) in kinds.items()
}
tokens = []
for made in asked.get("make", []):
    alg = made["alg"]
    header = {"alg": alg, "kid": f"authlib-{alg}", "typ": "secevent+jwt"}
    tokens.append(JsonWebToken([alg]).encode(header, made["claims"], keys[alg]).decode())
answer = {"jwks": {"keys": [key.as_dict(is_private=False) for key in keys.values()]}, "tokens": tokens}
if "check" in asked:
    check = asked["check"]
    options = {
        "iss": {"essential": True, "value": check["issuer"]},
        "aud": {"essential": True, "value": check["audience"]},
    }
    key_set = JsonWebKey.import_key_set(check["jwks"])
    claims = JsonWebToken(["RS256", "ES256"]).decode(check["token"], key_set, claims_options=options)
    claims.validate()
    answer["claims"] = dict(claims)
json.dump(answer, sys.stdout)
