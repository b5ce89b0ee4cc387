"""What the doctor sees, for pages: looked up while somebody looks, by one of those who ask."""

from __future__ import annotations

import asyncio
import time

from baton_bus.doctor.facts import Vitals
from baton_bus.doctor.vitals import read_vitals
from baton_bus.store.bus import Bus

_EVERY_S = 10.0


class Examined:
    """What the doctor said last: it takes a while, and is asked by one at a time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._lock = asyncio.Lock()
        self._at = -_EVERY_S
        self._vitals: Vitals | None = None

    async def vitals(self) -> Vitals:
        """Return what it saw, some seconds old at most."""
        async with self._lock:
            if self._vitals is None or time.monotonic() - self._at >= _EVERY_S:
                self._vitals = await read_vitals(self._bus)
                self._at = time.monotonic()
            return self._vitals
