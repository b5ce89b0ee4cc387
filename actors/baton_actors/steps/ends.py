"""Which runs have ended, as far as this process has heard: so that no handler of such a run starts or goes on."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

from baton_bus import Bus

REMEMBERED_MAX = 100_000
"""Runs remembered: those that ended within a lease. Older handoffs are looked up in the log instead."""


class Ends:
    """Hears the ends of runs, and tells who asked to know."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._listeners: list[Callable[[str], None]] = []

    def __contains__(self, run: str) -> bool:
        return run in self._ended

    def tell(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the id of each run that ends from now on."""
        self._listeners.append(listener)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear the ends of runs while the context is open."""
        async with self._bus.hearing_ends(self._heard):
            yield

    def _heard(self, run: str) -> None:
        self._ended[run] = None
        if len(self._ended) > REMEMBERED_MAX:
            self._ended.popitem(last=False)
        for listener in self._listeners:
            listener(run)
