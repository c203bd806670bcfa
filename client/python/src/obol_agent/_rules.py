"""The retry table (tests/vectors/sdk/README.md), as a function: what to do after an answer or a failure.

It decides, and does nothing; budgets are those of one call.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
NEW_SESSION_PAUSE_SECS = 0.25
BUSY = frozenset({"UNAVAILABLE", "OVERLOADED"})
_STALE = frozenset({"STALE_TIMESTAMP", "EPOCH_EXPIRED"})
_ENDED = frozenset({"SESSION_EXPIRED", "SESSION_NOT_FOUND"})


class Decision(NamedTuple):
    #: ``answer``, ``again``, ``authenticate``, ``young`` (``again`` if the session is new, else as if it had ended), ``stolen``
    #: or ``redirect``.
    verb: str
    pause_secs: float = 0.0


ANSWER = Decision("answer")


def _jitter(secs: float) -> float:
    # The module `random` takes longer to import than all that is here.
    return secs * (0.5 + os.urandom(1)[0] / 256)


def _retry_after_secs(text: str | None) -> float:
    """A ``Retry-After`` in whole seconds; anything else counts as one second."""
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,6}", text) else 1.0


class Rules:
    def __init__(self, method: str, stream: bool, idempotent: bool) -> None:
        self._left = {"connect": 2, "ambiguous": 1, "stale": 1, "young": 1, "ended": 1, "busy": 2}
        #: Nothing is sent again.
        self.is_once = stream
        self._idempotent = idempotent
        #: Whether doing it twice is as good as once.
        self.repeatable = method in REPEATABLE

    def once(self) -> None:
        """From now on nothing is sent again: there is one token for the call."""
        self.is_once = True

    def _spend(self, budget: str) -> bool:
        if self.is_once or self._left[budget] == 0:
            return False
        self._left[budget] -= 1
        return True

    def _ambiguous(self) -> Decision:
        may = self.repeatable or self._idempotent
        return Decision("again", _jitter(0.1)) if may and self._spend("ambiguous") else ANSWER

    def unsent(self) -> Decision:
        """Never connected."""
        return Decision("again", _jitter(0.1 if self._left["connect"] == 1 else 0.2)) if self._spend("connect") else ANSWER

    def unanswered(self) -> Decision:
        """Sent and not answered."""
        return self._ambiguous()

    def answered(self, status: int, code: str | None, retry_after: str | None) -> Decision:
        if status == 401:
            return self._unauthorized(code)
        if status == 409 and retry_after is not None and self._idempotent and not self.is_once:
            return Decision("again", max(0.01, _retry_after_secs(retry_after)))
        if status == 503 and code in BUSY:
            return Decision("again", _retry_after_secs(retry_after)) if self._spend("busy") else ANSWER
        if status >= 500:
            return self._ambiguous()
        return Decision("redirect") if status in REDIRECTS else ANSWER

    def _unauthorized(self, code: str | None) -> Decision:
        if code == "TOKEN_REPLAYED":
            return Decision("stolen")
        if code in _STALE:
            return Decision("again") if self._spend("stale") else ANSWER
        if code == "SESSION_NOT_FOUND" and self._left["young"] and not self.is_once:
            return Decision("young", NEW_SESSION_PAUSE_SECS)
        return self.ended() if code in _ENDED else ANSWER

    def young(self) -> bool:
        """The session is new, and was not known yet."""
        return self._spend("young")

    def ended(self) -> Decision:
        return Decision("authenticate") if self._spend("ended") else ANSWER
