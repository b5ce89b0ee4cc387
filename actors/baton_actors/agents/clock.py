"""The time that a handler has for an attempt: it stands still while the handler waits for what it asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class Clock:
    """Counts down to a time-out, with pauses."""

    def __init__(self, left_s: float, alarm: Callable[[float], Callable[[], None]]) -> None:
        """`alarm` has something happen after so many seconds, and returns what takes that back."""
        self._left_s, self._alarm = left_s, alarm
        self._paused = self._ended = False
        self._waits = 0
        self._began = time.monotonic()
        self._cancel: Callable[[], None] | None = alarm(left_s)

    def pause(self) -> None:
        """Let no time pass."""
        self._paused = True
        self._look()

    def go_on(self) -> None:
        """Let it pass again."""
        self._paused = False
        self._look()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let no time pass while the context is open, or any other that was opened besides."""
        with self._waiting(1):
            yield

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """Let it pass while the context is open, within one that stops it."""
        with self._waiting(-1):
            yield

    def end(self) -> None:
        """Have nothing happen any more."""
        self._ended = True
        self._look()

    @contextlib.contextmanager
    def _waiting(self, more: int) -> Iterator[None]:
        self._waits += more
        self._look()
        try:
            yield
        finally:
            self._waits -= more
            self._look()

    def _look(self) -> None:
        """Stop, or go on, as it has become."""
        stands = self._ended or self._paused or self._waits > 0
        if stands and self._cancel is not None:
            self._cancel()
            self._cancel = None
            self._left_s -= time.monotonic() - self._began
        elif not stands and self._cancel is None:
            self._began = time.monotonic()
            self._cancel = self._alarm(max(self._left_s, 0.0))
