"""Makes security event tokens with joserfc, and checks one of ours: JSON in, JSON out."""

import json
import sys

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

asked = json.load(sys.stdin)
keys = {
    "RS256": RSAKey.generate_key(2048, {"kid": "py-rsa", "alg": "RS256", "use": "sig"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "py-ec", "alg": "ES256", "use": "sig"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "py-ed", "alg": "EdDSA", "use": "sig"}),
}
tokens = []
for made in asked.get("make", []):
    key = keys[made["alg"]]
    header = {"alg": made["alg"], "kid": key.kid, "typ": "secevent+jwt"}
    tokens.append(jwt.encode(header, made["claims"], key, algorithms=[made["alg"]]))
answer = {"jwks": {"keys": [key.as_dict(private=False) for key in keys.values()]}, "tokens": tokens}
if "check" in asked:
    check = asked["check"]
    read = jwt.decode(check["token"], KeySet.import_key_set(check["jwks"]), algorithms=["RS256", "ES256"])
    assert read.header["typ"] == "secevent+jwt", read.header
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": check["issuer"]}, aud={"essential": True, "value": check["audience"]}
    )
    registry.validate(read.claims)
    answer["claims"] = read.claims
json.dump(answer, sys.stdout)
