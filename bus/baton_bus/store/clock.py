"""The broker's clock, as we know it: deadlines and the age of a handoff are told by it, not by ours.

Its base is `time.monotonic()`, so that a step of the local clock changes nothing. The broker is asked what time it is
every `MEASURE_S`, and at once when there is a doubt: a message was stored later than we believe it is, or the local
clock went another way than the monotonic one (a step, or a computer that slept, during which the latter may stand).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import msgspec

from baton_bus.errors import BusError
from baton_bus.jetstream.requests import Requests

MEASURE_S = 30.0
"""Between two measurements without a doubt, in seconds: one small request, and quartz drifts by a millisecond."""
_LOOK_S = 5.0
"""How often an idle process looks for a step of the local clock; whoever takes a delivery looks anyway."""
_ASK_S = 1.0
"""At most this often a doubt leads to a question."""
_STEP_S = 0.5
"""Local and monotonic clock that come apart by so much: less is a clock being set slowly."""
_NARROW_S = 0.05
"""An answer that took longer says too little of when in that time it was given, so the broker is asked once more."""
_FIRST = 5
"""Questions at the beginning, at most, until an answer is as quick: a process that begins is often short of time."""
_AHEAD_S = 1.0
"""A message stored up to this much later than now sets the clock; one beyond may come from before a step back."""


class _Info(msgspec.Struct):
    ts: datetime


class Clock:
    """Tells the time by the broker's clock. Until `measured` it is the local time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._apart_s = wall() - monotonic()
        self._offset_s = self._apart_s
        self._known = False
        self._took_s = 0.0
        self._doubt = asyncio.Event()

    def now_s(self) -> float:
        """Return the time by the broker's clock, in seconds of Unix time."""
        return self._monotonic() + self._offset_s

    @property
    def in_doubt(self) -> bool:
        """Whether the broker is to be asked, and what `now_s` says may be off by hours."""
        if abs(self._wall() - self._monotonic() - self._apart_s) > _STEP_S:
            self._doubt.set()
        return self._doubt.is_set()

    def heard(self, stored_at_s: float) -> None:
        """Take note of a message that the broker stored at this time (Unix time, seconds): it is not earlier now."""
        ahead_s = stored_at_s - self.now_s()
        if ahead_s > _AHEAD_S:
            self._doubt.set()
        elif ahead_s > 0:
            self._offset_s += ahead_s

    def measured(self, broker_s: float, asked_s: float, answered_s: float) -> None:
        """Take note that the broker's clock said this between two times of the monotonic clock, all in seconds.

        What we knew is kept as far as it can be true.
        """
        least, most = broker_s - answered_s, broker_s - asked_s
        self._offset_s = min(max(self._offset_s, least), most) if self._known else (least + most) / 2
        self._known = True
        self._took_s = answered_s - asked_s
        self._apart_s = self._wall() - self._monotonic()
        self._doubt.clear()

    async def measure(self, requests: Requests, stream: str) -> bool:
        """Ask the broker what time it is; False when it does not say."""
        asked_s = self._monotonic()
        try:
            answer = await requests.ask(requests.api.info(stream))
            info = msgspec.json.decode(answer.data, type=_Info)
        except (BusError, msgspec.DecodeError):
            return False
        self.measured(info.ts.timestamp(), asked_s, self._monotonic())
        return True

    @contextlib.asynccontextmanager
    async def kept(self, requests: Requests, stream: str) -> AsyncIterator[None]:
        """Measure now, and keep the clock right while the context is open."""
        await self.measure(requests, stream)
        keeper = asyncio.create_task(self._keep(requests, stream), name="the broker's clock")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, requests: Requests, stream: str) -> None:
        for _ in range(1, _FIRST):
            if self._took_s <= _NARROW_S:
                break
            await self.measure(requests, stream)
        measured_s = self._monotonic()
        while True:
            await asyncio.sleep(_ASK_S)
            if not self.in_doubt:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._doubt.wait()
            if (self.in_doubt or self._monotonic() - measured_s >= MEASURE_S) and await self.measure(requests, stream):
                measured_s = self._monotonic()
