"""Alarms for the time-outs of handlers: most are set and never ring, so those that are due together share a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK_S = 0.05
"""How late an alarm may ring. A timer of the loop for each would be a fiftieth of what a step costs."""


class Alarms:
    """The alarms of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: dict[int, set[Callable[[], None]]] = {}

    def set(self, after_s: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Have `ring` called after so many seconds, at most `TICK_S` more; call what comes back to cancel it."""
        tick = int((self.loop.time() + after_s) / TICK_S) + 1
        together = self._due.get(tick)
        if together is None:
            together = self._due[tick] = set()
            self.loop.call_at(tick * TICK_S, self._ring, tick)
        together.add(ring)
        return lambda: together.discard(ring)

    def _ring(self, tick: int) -> None:
        for ring in self._due.pop(tick):
            ring()
