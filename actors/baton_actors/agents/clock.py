"""The time that a handler has for an attempt: it stands still while the handler waits for what it asked."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Counts down to a time-out, with pauses."""

    def __init__(self, left_s: float, alarm: Callable[[float], Callable[[], None]]) -> None:
        """`alarm` has something happen after so many seconds, and returns what takes that back."""
        self._left_s, self._alarm = left_s, alarm
        self._ended = False
        self._began = time.monotonic()
        self._cancel: Callable[[], None] | None = alarm(left_s)

    def pause(self) -> None:
        """Let no time pass."""
        if self._cancel is not None:
            self._stop()
            self._left_s -= time.monotonic() - self._began

    def go_on(self) -> None:
        """Let it pass again."""
        if self._cancel is None and not self._ended:
            self._began = time.monotonic()
            self._cancel = self._alarm(max(self._left_s, 0.0))

    def end(self) -> None:
        """Have nothing happen any more."""
        self._ended = True
        self._stop()

    def _stop(self) -> None:
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
