"""The handshake of docs/handshake.md over other people's cryptography: a second implementation, to read and to compare with.

`noiseprotocol` has Noise's symmetric state, `kyber-py` ML-KEM-768, `oblivious` ristretto255, `cryptography` the rest. `noiseprotocol` knows
neither the hybrid pattern nor a third output of the last HKDF, so the pattern's tokens are written out here, for all suites alike. It
is not the agent's side for production: the authenticator is, which keeps keys out of the agent's process.
"""

from __future__ import annotations

import json
import secrets
import struct
import time
import urllib.error
import urllib.request
from hashlib import sha256, sha512
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from kyber_py.ml_kem import ML_KEM_768
from noise.backends.default import DefaultNoiseBackend
from noise.noise_protocol import NoiseProtocol
from noise.state import CipherState, SymmetricState
from oblivious.ristretto import point, scalar

SESSION, REGISTER = 1, 2
MESSAGE_TYPE = "application/vnd.obol.handshake"
NAMES = {1: "25519_AESGCM", 2: "25519_AESGCM", 3: "25519_ChaChaPoly", 4: "25519_AESGCM"}
HYBRID_NAME = b"Noise_XKhfs_25519+MLKEM768_AESGCM_SHA256"
ALL_SUITES = 0b1111
KEM_CIPHERTEXT_BYTES = 1_088
TAG_BYTES = 16
#: The order of ristretto255.
ORDER = 2**252 + 27742317777372353535851937790883648493


class Identity:
    """An agent's two keys: one for the handshake, one for the signatures of its sessions (SEK)."""

    def __init__(self) -> None:
        self.key = NoiseProtocol(b"Noise_XK_25519_AESGCM_SHA256", DefaultNoiseBackend()).dh_fn.generate_keypair()
        self._sek = secrets.randbelow(ORDER - 1) + 1
        self.sek_public = bytes(_multiple(self._sek))

    def words(self) -> str:
        """The key as people see it: five proquints."""
        digest = sha256(b"obol-words-v1" + self.key.public_bytes).digest()
        return "-".join(_proquint(int.from_bytes(digest[place : place + 2], "big")) for place in range(0, 10, 2))

    def proof(self, transcript: bytes) -> bytes:
        """Schnorr: that it has the SEK, in the handshake with this transcript."""
        nonce = secrets.randbelow(ORDER - 1) + 1
        commitment = bytes(_multiple(nonce))
        wide = sha512(b"obol-sek-proof-v1" + transcript + self.sek_public + commitment).digest()
        answer = (nonce + int.from_bytes(wide, "little") * self._sek) % ORDER
        return commitment + answer.to_bytes(32, "little")


def _proquint(number: int) -> str:
    consonants, vowels = "bdfghjklmnprstvz", "aiou"
    places = ((consonants, 12, 15), (vowels, 10, 3), (consonants, 6, 15), (vowels, 4, 3), (consonants, 0, 15))
    return "".join(signs[number >> shift & mask] for signs, shift, mask in places)


def _multiple(number: int) -> point:
    return point.base(scalar(number.to_bytes(32, "little")))


class Finished(NamedTuple):
    """What a handshake leaves."""

    answer: dict[str, Any]
    greeting: dict[str, Any]
    session_secret: bytes
    chain: bytes


class Service:
    """An Authentication Service, as an agent pins it: `ORIGIN#KEY`, the key in hex."""

    def __init__(self, pin: str) -> None:
        self.origin, _, key = pin.partition("#")
        self.key = bytes.fromhex(key)

    def post(self, route: str, message: bytes) -> bytes:
        request = urllib.request.Request(self.origin + route, data=message, headers={"Content-Type": MESSAGE_TYPE})
        with urllib.request.urlopen(request, timeout=10) as answer:
            body: bytes = answer.read(1 << 20)
            return body

    def register(self, identity: Identity, suite: int, wanted: dict[str, Any]) -> dict[str, Any]:
        """Asks a human for approval; gives `user_code`, and what to ask with what became of it."""
        made = Handshake(self, identity, REGISTER, suite)
        return made.run("/v1/agents", lambda: {"wanted": wanted}).answer

    def registration(self, registered: dict[str, Any]) -> dict[str, Any]:
        """What became of it."""
        url = f"{self.origin}/v1/agents/registrations/{registered['registration_id']}"
        request = urllib.request.Request(url, headers={"Authorization": f"Obol-Poll {registered['poll_token']}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read(1 << 16))
            return found

    def authenticate(self, identity: Identity, suite: int, chain: bytes | None = None) -> Finished:
        """Opens a session. `chain`: what the last one left, without which this looks like a copy of the key."""
        more = {"chain": [chain.hex()]} if chain else {}
        made = Handshake(self, identity, SESSION, suite)
        return made.run("/v1/sessions", lambda: {"now": int(time.time()), "client": "example.py/1", **more})


class Handshake:
    """One handshake, as its initiator."""

    def __init__(self, service: Service, identity: Identity, purpose: int, suite: int) -> None:
        self.service, self.identity, self.suite = service, identity, suite
        self.protocol = NoiseProtocol(f"Noise_XK_{NAMES[suite]}_SHA256".encode(), DefaultNoiseBackend())
        if suite == 4:
            self.protocol.name = HYBRID_NAME
        self.state = SymmetricState.initialize_symmetric(self.protocol)
        self.ephemeral = self.protocol.dh_fn.generate_keypair()
        self.header = bytes([1, purpose, suite, ALL_SUITES]) + sha256(service.key).digest()[:8]
        origin = service.origin.encode()
        self.state.mix_hash(b"obol-handshake-v1\0" + self.header + struct.pack(">H", len(origin)) + origin)
        self.state.mix_hash(service.key)

    def run(self, route: str, payload: Any) -> Finished:
        version, length = struct.unpack_from(">BH", reply := self.service.post("/v1/handshake", self.header + self.first()))
        cookie, second = reply[3 : 3 + length], reply[3 + length :]
        assert version == 1
        greeting = json.loads(self.second(second))
        proof = {"sek_pk": self.identity.sek_public.hex(), "sek_proof": self.identity.proof(self.state.h).hex()}
        third = self.third(json.dumps({**payload(), **proof}).encode())
        answer = self.service.post(route, struct.pack(">BH", 1, length) + cookie + third)
        return self.finish(answer, greeting)

    def _mix_dh(self, private: Any, public: bytes) -> None:
        self.state.mix_key(self.protocol.dh_fn.dh(private.private, self.protocol.keypair_class.from_public_bytes(public).public))

    def first(self) -> bytes:
        """e, es, in suite 4 e1."""
        message = self.ephemeral.public_bytes
        self.state.mix_hash(message)
        self._mix_dh(self.ephemeral, self.service.key)
        if self.suite == 4:
            public, self.kem_secret = ML_KEM_768.keygen()
            message += self.state.encrypt_and_hash(public)
        return message + self.state.encrypt_and_hash(b"")

    def second(self, message: bytes) -> bytes:
        """e, ee, in suite 4 ekem1; the service's payload."""
        self.their_ephemeral, rest = message[:32], message[32:]
        self.state.mix_hash(self.their_ephemeral)
        self._mix_dh(self.ephemeral, self.their_ephemeral)
        if self.suite == 4:
            sealed, rest = rest[: KEM_CIPHERTEXT_BYTES + TAG_BYTES], rest[KEM_CIPHERTEXT_BYTES + TAG_BYTES :]
            self.state.mix_key(ML_KEM_768.decaps(self.kem_secret, self.state.decrypt_and_hash(sealed)))
        payload: bytes = self.state.decrypt_and_hash(rest)
        return payload

    def third(self, payload: bytes) -> bytes:
        """s, se, and the payload."""
        message: bytes = self.state.encrypt_and_hash(self.identity.key.public_bytes)
        self._mix_dh(self.identity.key, self.their_ephemeral)
        return message + self.state.encrypt_and_hash(payload)

    def finish(self, answer: bytes, greeting: dict[str, Any]) -> Finished:
        """Opens the answer, and derives what both sides now have."""
        _, to_client, exported = self.protocol.hkdf(self.state.ck, b"", 3)
        opener, text = CipherState(self.protocol), b""
        opener.initialize_key(to_client)
        while True:
            (length,) = struct.unpack_from(">H", answer)
            piece, answer = opener.decrypt_with_ad(b"", answer[2 : 2 + length]), answer[2 + length :]
            text += piece[1:]
            if piece[0] == 1:
                break
        assert not answer, "something follows the last message"
        exporter = HKDF.extract(hashes.SHA256(), self.state.h, exported)

        def export(what: str) -> bytes:
            return HKDFExpand(hashes.SHA256(), 32, f"obol-s{self.suite}-{what}-v1".encode()).derive(exporter)

        return Finished(json.loads(text), greeting, export("session"), export("chain"))


def keys_for(finished: Finished, audience: str) -> dict[str, str]:
    """A resource server's keys, in hex."""
    suite, session_id = finished.answer["suite"], bytes.fromhex(finished.answer["session_id"])
    info = f"obol-s{suite}-audience-v1".encode() + session_id + sha256(audience.encode()).digest()
    extracted = HKDF.extract(hashes.SHA256(), bytes(32), finished.session_secret)
    keys = HKDFExpand(hashes.SHA256(), 96, info).derive(extracted)
    return {"K_session": keys[:32].hex(), "verifier_secret": keys[32:64].hex(), "mutual_auth": keys[64:].hex()}
