"""Results as the server says that they are stored: one subscription per flow, whoever waits for how many runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial

from baton_bus.errors import ClientClosed
from baton_bus.store.bus import Bus
from baton_bus.store.once import Once
from baton_schemas.errors import SchemaError
from baton_schemas.run.state import known
from baton_schemas.wire.codec import decode
from baton_schemas.wire.messages import Handoff, Result

_LOOK_AGAIN_S = 5.0
"""While a result is waited for, the log is read again about this often: a word may be lost on its way."""
_LOOKS_A_SECOND = 200
"""When many are waited for, each is looked at less often: so many looks take some hundredths of a processor."""
_LOOKS_AT_ONCE = 64
"""After a lost connection all that wait look at once: so many reads hide the round trip, and flood nobody."""

KEPT_BYTES = 16 * 1024 * 1024
"""Results that are kept for whoever may ask: a program that starts runs and asks for none must not grow."""
EXPECTED_MAX = 50_000
"""Runs whose results are expected though nobody may ever ask for them; of older ones the log is read."""


class _Expected:
    """What is known of the result of a run, and who waits for it."""

    __slots__ = ("result", "waiting", "word")

    def __init__(self) -> None:
        self.result: Result | None = None
        self.waiting = 0
        self.word = asyncio.Event()
        """The result is here, or is to be looked for."""


class Results:
    """Who waits for which run. What is heard needs no read; what was missed is found by a slow look."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stack = contextlib.AsyncExitStack()
        self._heard_of = Once(self._listen)
        self._expected: OrderedDict[tuple[str, str], _Expected] = OrderedDict()
        """By flow (`*` when it is not known) and run: of a run's id, another flow's result is another's."""
        self._awaited: set[_Expected] = set()
        self._kept: OrderedDict[tuple[str, str], int] = OrderedDict()
        """Sizes of the results that were heard and that nobody has asked for."""
        self.kept_bytes = 0
        self._looking = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._closed = False
        bus.when_back(self._look_again)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Listen, for whichever flows are asked for, while the context is open."""
        clock = asyncio.create_task(self._clock(), name="results that were missed")
        async with self._stack:
            try:
                yield
            finally:
                clock.cancel()
                self._closed = True
                self._look_again()

    async def expect(self, flow: str, run: str) -> None:
        """Listen for the result of a run. Whoever expects it before it starts needs no look at the log.

        Raises `BusUnavailable`.
        """
        if not self._heard_of.has(flow):
            await self._heard_of(flow)
        if (flow, run) not in self._expected:
            self._expected[flow, run] = _Expected()
            if len(self._expected) > EXPECTED_MAX:
                self.forget(*next(iter(self._expected)))

    def forget(self, flow: str, run: str) -> None:
        """Nobody waits for this run any more."""
        self._expected.pop((flow, run), None)
        self.kept_bytes -= self._kept.pop((flow, run), 0)

    async def wait(self, flow: str, run: str) -> Result:
        """Wait for the result of a run; one that was not expected may have ended already, so the log is read first.

        Raises `BusUnavailable`, `ClientClosed`, `NewerMessage`.
        """
        was_expected = (flow, run) in self._expected
        await self.expect(flow, run)
        expected = self._expected[flow, run]
        expected.waiting += 1
        self._awaited.add(expected)
        try:
            if not was_expected:
                await self._look_for(expected, flow, run)
            while expected.result is None:
                await expected.word.wait()
                expected.word.clear()
                if self._closed and expected.result is None:
                    raise ClientClosed(run)
                if expected.result is None:
                    await self._look_for(expected, flow, run)
            return expected.result
        finally:
            expected.waiting -= 1
            if not expected.waiting:
                self._awaited.discard(expected)
                self.forget(flow, run)

    async def _look_for(self, expected: _Expected, flow: str, run: str) -> None:
        async with self._looking:
            found = await self.look(flow, run)
        expected.result = found or expected.result  # what is heard may be forged, what is read is not

    async def look(self, flow: str, run: str) -> Result | None:
        """Return the result of a run as the log has it. Raises `BusUnavailable`, `NewerMessage`."""
        if flow == "*":
            return await self._look_anywhere(run)
        message = known(await self._bus.log.last(self._bus.subjects.result(flow, run)))
        return message if isinstance(message, Result) else None

    async def _look_anywhere(self, run: str) -> Result | None:
        """Return the result of a run of any flow: of its own, if it has begun; a task may be refused under its id."""
        subjects, log = self._bus.subjects, self._bus.log
        ends = await log.matching([subjects.result("*", run)])
        starts = await log.matching([subjects.start(run)]) if ends else []
        flows = {entry.message.flow for entry in starts if isinstance(entry.message, Handoff)}
        results = [message for message in map(known, ends) if isinstance(message, Result)]
        return next((result for result in results if not flows or result.flow in flows), None)

    async def _listen(self, flow: str) -> None:
        take = partial(self._take, flow)
        await self._stack.enter_async_context(self._bus.hearing(self._bus.subjects.stored_result(flow), take))

    def _take(self, flow: str, subject: str, data: bytes) -> None:
        key = (flow, self._bus.subjects.run_of_stored(subject))
        expected = self._expected.get(key)
        if expected is None or expected.result is not None:
            return
        try:
            message = decode(data, subject)
        except SchemaError:
            return  # a later release's: the slow look says so
        if not isinstance(message, Result):
            return
        if flow == "*" and not message.start_seq:
            self._look_again()  # of a task that was refused, perhaps with the id of a run of another flow
        else:
            expected.result = message
            expected.word.set()
            if not expected.waiting:
                self._keep(key, len(data))

    def _keep(self, key: tuple[str, str], size_bytes: int) -> None:
        """Keep a result for who may ask for it; of the oldest, when they are too much, the log is read."""
        self._kept[key] = size_bytes
        self.kept_bytes += size_bytes
        while self.kept_bytes > KEPT_BYTES:
            self.forget(*next(iter(self._kept)))

    def _look_again(self) -> None:
        for expected in self._awaited:
            expected.word.set()

    async def _clock(self) -> None:
        while True:
            await asyncio.sleep(max(_LOOK_AGAIN_S, len(self._awaited) / _LOOKS_A_SECOND))
            self._look_again()
