"""What can go wrong. ``code`` is stable (tests/vectors/sdk/errors.json); no message holds a token, a key or a proof."""

from __future__ import annotations

from typing import Any


class AgentError(Exception):
    """What a call ends with; ``details`` is what the daemon said besides, ``retryAfterMs`` for instance."""

    def __init__(self, code: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details: dict[str, Any] = details or {}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (AgentError, (self.code, self.message, self.details))


#: What an authenticator may answer otherwise in a moment, with nothing done about it.
MAY_PASS = frozenset({"AUTHORITY_UNREACHABLE", "DAEMON_UNREACHABLE", "OVERLOADED", "UNAVAILABLE"})


class Lost(Exception):
    """A daemon's answer never came, although the request went out. For who decides whether to ask again."""


class Unsent(Exception):
    """The server was never connected: nobody has seen the request."""


class Unanswered(Exception):
    """Sent, at least in part, and no answer."""

    def __init__(self, why: str, timed_out: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.timed_out = timed_out


def wrong(what: str) -> AgentError:
    return AgentError("INVALID_ARGUMENT", what)
