"""Steps that may have killed their last worker: they begin one at a time, so that those beside them are not charged.

What begins for the first time says nothing, and may kill its process beside a suspect, which is charged then. So a
suspect whose next death would be the end of it is done quite alone: nothing else begins meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from baton_schemas.wire.outcomes import Error

from .attempts import Tries
from .job import Job

ALONE_S = 10.0
"""A suspect that has run so long lets the next begin: what kills a worker mostly does so at once, and a worker that was
killed with a hundred long steps in hand must not do them one by one."""
ALONE_MODEL_S = 1.0
"""The same for a step that asks a model: no code of the user's runs in it, and its answer takes seconds."""
_LOOK_S = 0.1
"""How often it is looked whether those that are being done only wait for what they asked: nobody says so."""


class Suspects:
    """The suspects of one process."""

    def __init__(self, how_it_died: Callable[[str], str]) -> None:
        self._how_it_died = how_it_died
        self._turn = asyncio.Lock()
        self._doing: set[Job] = set()
        """Whose agents are at work."""
        self._shut_out: dict[Job, asyncio.Future[None]] = {}
        self._is_shut = False
        """Whether one is quite alone, or waits until it is."""
        self._shut_at_s = 0.0
        """Since when, by the loop's clock."""
        self._quite_next = 0
        """Those that wait for their turn, and are to be quite alone."""
        self._left = asyncio.Event()

    # ---- those beside them -------------------------------------------------------------------------

    @property
    def is_shut(self) -> bool:
        """Whether nothing may begin right now but a suspect whose turn it is."""
        return self._is_shut

    @contextlib.asynccontextmanager
    async def admitted(self, job: Job) -> AsyncIterator[None]:
        """Wait until a step that is no suspect may begin; it counts as begun while the context is open."""
        may_begin = self._shut_out[job] = asyncio.get_running_loop().create_future()
        if not self._is_shut:
            may_begin.set_result(None)
        try:
            await may_begin
            yield
        finally:
            del self._shut_out[job]
            self.ended(job)

    def begins(self, job: Job) -> None:
        """Count a step among those whose agents are at work."""
        self._doing.add(job)

    def ended(self, job: Job) -> None:
        """Count it no more."""
        self._doing.discard(job)
        self._left.set()

    # ---- suspects ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def alone(self, asks_models: bool, *, quite: bool = False) -> AsyncIterator[None]:
        """Wait for the turn of a suspect, and have it while the context is open, or for some seconds.

        With `quite`, wait until the others in this process are done, for as many seconds at the most, and shut out
        those that would begin.
        """
        alone_s = ALONE_MODEL_S if asks_models else ALONE_S
        await self._have_turn(quite)
        has_turn = True

        def let_go() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._open_if_due()
                self._turn.release()

        later: asyncio.TimerHandle | None = None
        try:
            if quite:
                self._shut()
                await self._others_done(alone_s)
            later = asyncio.get_running_loop().call_later(alone_s, let_go)
            yield
        finally:
            if later is not None:
                later.cancel()
            let_go()

    async def _have_turn(self, quite: bool) -> None:
        self._quite_next += quite
        try:
            await self._turn.acquire()
        except asyncio.CancelledError:
            if self._quite_next == quite and not self._turn.locked():  # it was kept shut for this one
                self._open()
            raise
        finally:
            self._quite_next -= quite

    async def _others_done(self, at_most_s: float) -> None:
        """Wait until nobody is at work; those that wait for what they asked are not."""
        loop = asyncio.get_running_loop()
        until = loop.time() + at_most_s
        while any(not job.waits for job in self._doing) and loop.time() < until:
            self._left.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._left.wait()

    def _shut(self) -> None:
        if not self._is_shut:
            self._is_shut, self._shut_at_s = True, asyncio.get_running_loop().time()

    def _open_if_due(self) -> None:
        """Let others in, unless the next that is to be quite alone would have to wait for them, and it is not for long.

        What those that only wait have asked begins as soon as it may: each would wait for that of the one before it.
        """
        shut_s = asyncio.get_running_loop().time() - self._shut_at_s
        if not (self._is_shut and self._quite_next and shut_s < ALONE_S):
            self._open()

    def _open(self) -> None:
        """Let those in that were shut out, before the next suspect has its turn: it waits for them."""
        self._is_shut = False
        for job, may_begin in self._shut_out.items():
            if not may_begin.done():
                self._doing.add(job)
                may_begin.set_result(None)

    def error_of(self, step: str, tries: Tries) -> Error:
        """Return the error of a step whose workers died of it."""
        died = len(tries.died_with)
        how = ", ".join(dict.fromkeys(self._how_it_died(worker) or "no word of how" for worker in tries.died_with))
        times = "once" if died == 1 else f"{died} times"
        message = f"its worker died {times} while doing it ({how})"
        return Error(step=step, type="WorkerLost", message=message, attempts=tries.failed + died)
