"""A token that was drawn. It shows nothing of itself: who wants its text says so with ``reveal()``."""

from __future__ import annotations

import re
from typing import Any

from ._errors import AgentError

_TEXT = re.compile(r"[A-Za-z0-9_-]{1,44120}")
_PROOF = re.compile(r"[A-Za-z0-9_-]{86}")


class Token:
    """One token. Good for one call."""

    __slots__ = ("_channel", "_proof", "_text", "expires_at", "tool")

    def __init__(self, text: str, tool: str, expires_at: int, proof: str | None, channel: dict[str, str] | None) -> None:
        self._text: str | None = text
        self._proof = proof
        self._channel = channel
        self.tool = tool
        #: Unix seconds.
        self.expires_at = expires_at

    def reveal(self) -> str:
        """The token, base64url. Keep it out of logs."""
        if self._text is None:
            raise AgentError("INVALID_ARGUMENT", "this token was used up in its `with`; draw another")
        return self._text

    def authorization(self) -> str:
        """The value of an ``Authorization`` header."""
        return f"TBAC {self.reveal()}"

    @property
    def proof(self) -> str | None:
        """The proof of possession for ``TBAC-PoP``."""
        return self._proof

    @property
    def channel(self) -> dict[str, str] | None:
        """The keys for sealed bodies (docs/protocol.md)."""
        return self._channel

    def forget(self) -> None:
        """Makes it unusable here."""
        self._text = self._proof = self._channel = None

    def __repr__(self) -> str:
        return f"Token({self.tool!r}, redacted)"

    def __reduce__(self) -> Any:
        raise TypeError("a token cannot be serialised")


def read_token(answer: dict[str, Any]) -> Token:
    """A Token from the sidecar's answer."""
    text, tool, expires_at, pop, channel = (answer.get(name) for name in ("token", "tool", "expiresAt", "pop", "channel"))
    proof = pop.get("sig") if isinstance(pop, dict) else None
    plain = isinstance(text, str) and _TEXT.fullmatch(text) and isinstance(tool, str) and isinstance(expires_at, int)
    proven = pop is None or (isinstance(proof, str) and _PROOF.fullmatch(proof))
    if not plain or not proven or not (channel is None or isinstance(channel, dict)):
        raise AgentError("PROTOCOL_ERROR", "the sidecar's answer cannot be understood; check its version")
    assert isinstance(text, str) and isinstance(tool, str) and isinstance(expires_at, int)
    return Token(text, tool, expires_at, proof, channel)
