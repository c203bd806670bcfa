"""Frames of the local sockets (docs/protocol.md): four bytes of length, big-endian, then that many of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ._errors import AgentError, wrong

MAX_FRAME_BYTES = 65_536


def encode(message: dict[str, Any]) -> bytes:
    """A message as a frame."""
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise wrong(f"{message.get('method')}: longer than a frame of {MAX_FRAME_BYTES} bytes")
    return len(body).to_bytes(4, "big") + body


def hello(client: str) -> bytes:
    return encode({"obol": 1, "codec": "json", "client": client})


def nonsense() -> AgentError:
    return AgentError("PROTOCOL_ERROR", "the daemon's answer cannot be understood; check its version")


class Decoder:
    """Puts pieces together and takes messages out. Never keeps more than one frame and what came with it."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The messages that are whole with this piece."""
        self._rest += piece
        while len(self._rest) >= 4:
            length = int.from_bytes(self._rest[:4], "big")
            if not 1 <= length <= MAX_FRAME_BYTES:
                raise nonsense()
            if len(self._rest) < 4 + length:
                return
            body, self._rest = self._rest[4 : 4 + length], self._rest[4 + length :]
            yield _object(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise nonsense() from None
    if not isinstance(message, dict):
        raise nonsense()
    return message


def refusal(error: dict[str, Any]) -> AgentError:
    """A daemon's refusal as an error."""
    data = error.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("code"), str):
        return nonsense()
    details = {name: value for name, value in data.items() if name != "code"}
    return AgentError(data["code"], str(error.get("message", data["code"])), details)


def welcomed(message: dict[str, Any]) -> None:
    """Reads the daemon's hello."""
    if isinstance(message.get("error"), dict):
        error = message["error"]
        raise refusal({"message": error.get("message", ""), "data": {"code": error.get("code")}})
    if message.get("obol") != 1 or message.get("codec") != "json":
        raise nonsense()


def result(message: dict[str, Any]) -> dict[str, Any]:
    """The result of an answer; raises the refusal."""
    if isinstance(message.get("error"), dict):
        raise refusal(message["error"])
    if not isinstance(message.get("result"), dict):
        raise nonsense()
    found: dict[str, Any] = message["result"]
    return found
