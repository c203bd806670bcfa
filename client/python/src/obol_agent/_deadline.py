"""How long a call may still take. One for each call, handed to everything that waits."""

from __future__ import annotations

import time

from ._errors import wrong

MAX_SECS = 24 * 3600.0


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
