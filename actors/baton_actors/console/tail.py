"""The end of the log as pages show it: kept up to date while a page shows it, with back-pressure.

What is stored goes into a buffer, undecoded. A page takes from there what is new since it was made last. What has left
the buffer by then was not shown: it is counted, and said.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from baton_bus.client.browsing import Sought, before
from baton_bus.client.hub import EVERYTHING, Hub
from baton_bus.store.bus import Bus
from baton_bus.store.log import Stored
from baton_schemas.run.state import Entry

from .bell import Bell

SHOWN = 200
"""Lines of the end of the log that are shown as they come."""
_KEPT = 2_000
"""Messages between two looks: what is more goes by."""
_RATE_S = 10
"""Seconds over which it is counted how many messages come."""


class View:
    """The end of the log, of the messages that are meant."""

    def __init__(self, sought: Sought, entries: list[Entry], first_seq: int, upto_seq: int) -> None:
        self.sought = sought
        self.entries: deque[Entry] = deque(entries, maxlen=SHOWN)
        self.first_seq, self.upto_seq = first_seq, upto_seq
        """What was looked at, from and to."""
        self.dropped = 0
        """Messages that went by without being looked at, or without having been among those that are shown."""

    def take(self, buffer: deque[Stored]) -> None:
        """Take what is new."""
        if buffer and buffer[0].seq > self.upto_seq + 1:
            self.dropped += buffer[0].seq - self.upto_seq - 1
        new = [each for each in buffer if each.seq > self.upto_seq]
        found = [entry for each in new if (entry := self.sought.fits(each)) is not None]
        self.dropped += max(len(found) - SHOWN, 0)
        self.entries.extend(found[-SHOWN:])
        if new:
            self.upto_seq = new[-1].seq


class Tail:
    """The end of the log of one bus."""

    def __init__(self, bus: Bus, hub: Hub) -> None:
        self._bus, self._hub = bus, hub
        self.bell = Bell()
        """Rung with each message."""
        self._buffer: deque[Stored] = deque(maxlen=_KEPT)
        self._counts: deque[tuple[int, Counter[str]]] = deque(maxlen=_RATE_S + 1)
        self._views: dict[Sought, View] = {}
        self._watchers = 0
        self._since_s = 0.0
        self._stack: AsyncExitStack | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Bell]:
        """Hear the log while the context is open. Raises `BusUnavailable`, `NoStream`."""
        async with self._lock:
            if self._stack is None:
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(self._hub.hearing(EVERYTHING, self._on_stored, on_anew=self._anew))
                    self._stack = stack.pop_all()
                self._since_s = time.monotonic()
            self._watchers += 1
        try:
            yield self.bell
        finally:
            async with self._lock:
                self._watchers -= 1
                if not self._watchers and self._stack is not None:
                    await self._stack.aclose()
                    self._stack = None
                    self._buffer.clear()
                    self._counts.clear()
                    self._views.clear()

    async def view(self, sought: Sought) -> View:
        """Return the last of the messages that are meant. Raises `BusUnavailable`, `NoStream`."""
        view = self._views.get(sought)
        if view is None:
            found = await before(self._bus.log, sought, await self._bus.log.end() + 1, SHOWN)
            view = View(sought, found.entries, found.first_seq, found.last_seq)
            if self._stack is not None:
                self._views[sought] = view
        view.take(self._buffer)
        return view

    def rates(self) -> dict[str, float] | None:
        """Return how many messages of each kind are stored each second; None while nobody has listened for a second."""
        now_s = time.monotonic()
        if self._stack is None or now_s - self._since_s < 1:
            return None
        sums: Counter[str] = Counter()
        for second, counts in self._counts:
            if second > now_s - _RATE_S:
                sums.update(counts)
        length_s = min(now_s - self._since_s, _RATE_S)
        return {kind: count / length_s for kind, count in sums.most_common()}

    def _anew(self) -> None:
        """The log is another one."""
        self._buffer.clear()
        self._views.clear()
        self.bell.ring()

    def _on_stored(self, stored: Stored) -> None:
        if self._buffer and stored.seq <= self._buffer[-1].seq:
            return  # after a lost connection some come twice
        self._buffer.append(stored)
        second = int(time.monotonic())
        if not self._counts or self._counts[-1][0] != second:
            self._counts.append((second, Counter()))
        self._counts[-1][1][stored.subject.split(".", 2)[1]] += 1
        self.bell.ring()
