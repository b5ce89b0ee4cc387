"""Queues as pages show them: looked at once a second while somebody sees them, with what came and went lately."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from msgspec import Struct

from baton_bus.doctor.queues import Queue, oldest_of, queues_of
from baton_bus.doctor.vitals import read_consumers
from baton_bus.errors import BusError
from baton_bus.store.bus import Bus

from .bell import Bell

_EVERY_S = 1.0
_KEPT_S = 300
"""Seconds of which rates are kept: five minutes."""
_OLDEST_MAX = 50
"""Queues whose oldest message is looked for, those with most first: each is a question."""
_SHARE = 10
"""Seconds that one rate is of: what is in a second is mostly nothing, or a burst."""
_GONE_S = 600.0
"""What was seen is forgotten when nobody has looked for so long."""


class Rate(Struct, frozen=True):
    """What came in and went out of a queue in one second."""

    at: float
    """By the monotonic clock."""
    came: float
    went: float


class Looked(Struct, frozen=True, kw_only=True):
    """The queues, as they stood when somebody looked."""

    queues: list[Queue]
    oldest: dict[str, datetime]
    """Since when the oldest waits, by the name of the queue."""
    allowed: bool = True
    """Whether this user may see them."""


class QueueWatch:
    """Looks at the queues of one namespace while somebody does."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.bell = Bell()
        """Rung with each look."""
        self._looked: Looked | None = None
        self._looked_at = 0.0
        self._rates: dict[str, deque[Rate]] = {}
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Bell]:
        """Look every second while the context is open."""
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._keep_looking(), name="look at the queues")
        try:
            yield self.bell
        finally:
            self._watchers -= 1
            if not self._watchers and self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                self._task = None

    async def look(self) -> Looked:
        """Return the queues as they stand, at most a second old. Raises `BusUnavailable`, `NoStream`."""
        async with self._lock:
            if self._looked is None or time.monotonic() - self._looked_at >= _EVERY_S * 0.9:
                await self._look()
            assert self._looked is not None
            return self._looked

    def rates(self, queue: str) -> list[Rate]:
        """Return what came and went in each second that was looked at, the oldest first."""
        return list(self._rates.get(queue, ()))

    def rate(self, queue: str) -> tuple[float, float] | None:
        """Return what comes in and goes out a second, of the last ones; None before there are two looks."""
        now = time.monotonic()
        last = [each for each in self._rates.get(queue, ()) if now - each.at <= _SHARE]
        if not last:
            return None
        return sum(each.came for each in last) / len(last), sum(each.went for each in last) / len(last)

    async def _keep_looking(self) -> None:
        while True:
            with contextlib.suppress(BusError):
                await self.look()
                self.bell.ring()
            await asyncio.sleep(_EVERY_S)

    async def _look(self) -> None:
        consumers = await read_consumers(self._bus)
        if consumers is None:
            self._looked, self._looked_at = Looked(queues=[], oldest={}, allowed=False), time.monotonic()
            return
        queues = queues_of(consumers, self._bus.settings)
        most = sorted((each for each in queues if each.waiting), key=lambda each: -each.waiting)[:_OLDEST_MAX]
        ages = await asyncio.gather(*(oldest_of(self._bus, each) for each in most))
        oldest = {each.name: at for each, at in zip(most, ages, strict=True) if at is not None}
        now = time.monotonic()
        self._note(queues, now)
        self._looked, self._looked_at = Looked(queues=queues, oldest=oldest), now

    def _note(self, queues: list[Queue], now: float) -> None:
        """Keep what came and went since the last look: what was handed out, and is not in hand any more, is done."""
        before = {each.name: each for each in self._looked.queues} if self._looked is not None else {}
        took_s = now - self._looked_at
        if took_s > _GONE_S:
            self._rates.clear()
            return
        for queue in queues:
            if (last := before.get(queue.name)) is None or queue.handed_out < last.handed_out:
                continue
            out = queue.handed_out - last.handed_out
            came = max(out + queue.waiting - last.waiting, 0)
            went = max(out - (queue.in_hand - last.in_hand), 0)
            kept = self._rates.setdefault(queue.name, deque(maxlen=_KEPT_S))
            kept.append(Rate(now, came / took_s, went / took_s))
        for name in self._rates.keys() - {queue.name for queue in queues}:
            del self._rates[name]
