"""Sealed bodies, with the keys that came with a token (docs/protocol.md). Needs ``obol-agent[channel]``."""

from __future__ import annotations

import functools
import os
from importlib.util import find_spec
from typing import Any

from ._errors import AgentError, wrong

SEALED_TYPE = "application/vnd.obol.sealed"
MAX_PLAIN_BYTES = 1 << 20
NONCE_BYTES = 12
TAG_BYTES = 16
MAX_SEALED_BYTES = NONCE_BYTES + MAX_PLAIN_BYTES + TAG_BYTES


@functools.cache
def is_supported() -> bool:
    """Whether what seals bodies is installed."""
    return find_spec("cryptography") is not None


def unsupported(tool: str) -> AgentError:
    return AgentError("CHANNEL_UNSUPPORTED", f"{tool} takes sealed bodies: install obol-agent[channel]")


def failed(why: str) -> AgentError:
    return AgentError(
        "CHANNEL_FAILED", f"the answer {why}; it may not be the resource server's, and the call may have been carried out"
    )


class Channel:
    """Seals one request and opens one answer."""

    def __init__(self, keys: dict[str, str]) -> None:
        from base64 import urlsafe_b64decode

        try:
            parts = {name: urlsafe_b64decode(keys[name] + "==") for name in ("requestKey", "requestAad", "responseKey", "responseAad")}
            self._request = _cipher(keys["alg"], parts["requestKey"])
            self._response = _cipher(keys["alg"], parts["responseKey"])
        except (KeyError, TypeError, ValueError):
            raise AgentError("PROTOCOL_ERROR", "the keys for sealed bodies cannot be used; check the sidecar's version") from None
        self._request_aad, self._response_aad = parts["requestAad"], parts["responseAad"]

    def seal(self, plain: bytes) -> bytes:
        if len(plain) > MAX_PLAIN_BYTES:
            raise wrong(f"the body: at most {MAX_PLAIN_BYTES} bytes where it is sealed")
        nonce = os.urandom(NONCE_BYTES)
        sealed: bytes = self._request.encrypt(nonce, plain, self._request_aad)
        return nonce + sealed

    def open(self, sealed: bytes) -> bytes:
        """Under the nonce that the answer begins with: the agreed one, or a random one."""
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise failed("is too short to be sealed")
        from cryptography.exceptions import InvalidTag

        try:
            plain: bytes = self._response.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._response_aad)
        except InvalidTag:
            raise failed("does not open") from None
        return plain


def _cipher(algorithm: str, key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

    if len(key) != 32:
        raise ValueError
    return {"AES-256-GCM": AESGCM, "ChaCha20-Poly1305": ChaCha20Poly1305}[algorithm](key)
