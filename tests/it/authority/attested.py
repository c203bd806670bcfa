"""Makes tokens that stand in for a human with joserfc, good ones and forged ones: JSON in, JSON out."""

import base64
import hashlib
import hmac
import json
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey


def part(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def by_hand(header, claims, secret):
    """What no library makes: a token without a signature, or with a public key as the secret of a MAC."""
    message = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    signature = b"" if secret is None else hmac.new(secret, message, hashlib.sha256).digest()
    return (message + b"." + part(signature)).decode()


def signed_by_hand(header, claims, key):
    message = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    signature = key.private_key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return (message + b"." + part(signature)).decode()


def pair():
    return {
        "RS256": RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS256", "use": "sig"}),
        "ES256": ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256", "use": "sig"}),
        "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed", "alg": "EdDSA", "use": "sig"}),
    }


asked = json.load(sys.stdin)
own, others = pair(), pair()
tokens = []
for made in asked:
    alg, header = made["alg"], {"alg": made["alg"], **made.get("header", {})}
    if "crit" in header:
        # No library makes a token whose critical member it does not know.
        tokens.append(signed_by_hand({**header, "kid": "rsa"}, made["claims"], own["RS256"]))
    elif alg == "none":
        tokens.append(by_hand(header, made["claims"], None))
    elif alg == "HS256":
        tokens.append(by_hand({**header, "kid": "rsa"}, made["claims"], own["RS256"].as_pem(private=False)))
    else:
        key = (others if made.get("others") else own)[alg]
        tokens.append(jwt.encode({**header, "kid": key.kid}, made["claims"], key, algorithms=[alg]))
sets = [{"keys": [key.as_dict(private=False) for key in keys.values()]} for keys in (own, others)]
json.dump({"jwks": sets[0], "others": sets[1], "tokens": tokens}, sys.stdout)
