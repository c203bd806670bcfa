"""How long a call may still take. One for each call, handed to everything that waits."""

from __future__ import annotations

import random
import time
from typing import Any

from ._errors import wrong

MAX_SECS = 24 * 3600.0
FIRST_PAUSE_SECS = 0.02
LONGEST_PAUSE_SECS = 1.0


class Deadline:
    __slots__ = ("_end", "secs")

    def __init__(self, secs: float) -> None:
        if isinstance(secs, bool) or not isinstance(secs, (int, float)) or not 0 < secs <= MAX_SECS:
            raise wrong(f"timeout: a number of seconds, more than 0 and at most {MAX_SECS:.0f}")
        self.secs = float(secs)
        self._end = time.monotonic() + secs

    def left(self) -> float:
        """Seconds; 0 when it is over."""
        return max(0.0, self._end - time.monotonic())


class Pause:
    """Pauses that grow, for what may be over in a moment."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE_SECS

    def next(self, asked_ms: Any) -> float:
        """Seconds: as long as was asked for, or longer each time; up to a quarter more, so that those who wait together do not come together."""
        said = isinstance(asked_ms, (int, float)) and not isinstance(asked_ms, bool)
        wait = max(0.001, asked_ms / 1_000) if said else self._next
        self._next = min(2 * self._next, LONGEST_PAUSE_SECS)
        return wait * (1 + random.random() / 4)
