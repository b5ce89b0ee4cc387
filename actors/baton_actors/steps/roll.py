"""The roll call in a worker process: whoever asks is told at once what is in hand here, and that this process is there.

One subscription a process. Nothing is said unless somebody asks, and however many ask at once are answered together:
nobody can have a worker talk instead of work.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from weakref import WeakKeyDictionary

import structlog

from baton_bus.errors import BusError
from baton_bus.store.bus import Bus
from baton_bus.subjects import ROLL, WHOLE_ROLL
from baton_schemas.wire.words import ACTORS_MAX, Here, encode_word

from .job import Job
from .live import announce

_TOGETHER_S, _TOGETHER_MAX_S = 0.01, 0.2
"""Who asks again so soon is answered together with all others who do; while somebody always does, twice as late each
time, up to so late."""
_RUNS_MAX = 1_000
"""Runs that are asked for meanwhile, and kept: of more, watchers hear within two seconds, as ever."""
_AGAIN_S = 2.0
"""How soon it is tried again to listen, when the bus would not let us."""

logger = structlog.get_logger("baton.worker")

Jobs = Callable[[], Iterable[Job]]

_ROLLS: WeakKeyDictionary[Bus, Roll] = WeakKeyDictionary()


class Roll:
    """Answers for all workers of one process. Use `answering` to have it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._jobs: dict[str, Jobs] = {}
        self._since_us = int(bus.now_s() * 1e6)
        self._asked: set[str] = set()
        self._answering: asyncio.TimerHandle | None = None
        self._pause_s = _TOGETHER_S
        self._users = 0
        self._listening: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def playing(self, actor: str, jobs: Jobs) -> Iterator[None]:
        """Answer for this actor too while the context is open; `jobs` gives what it has in hand."""
        self._jobs[actor] = jobs
        try:
            yield
        finally:
            self._jobs.pop(actor, None)

    def begin(self) -> None:
        """Answer, if nothing in this process has it do so already."""
        self._users += 1
        if self._users == 1:
            self._listening = asyncio.create_task(self._listen(), name="roll call")

    async def end(self) -> None:
        """Answer no more, if nothing else in this process has it do so."""
        self._users -= 1
        if self._users or self._listening is None:
            return
        self._listening.cancel()
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._bus.hearing(self._bus.subjects.roll("*"), self._on_asked, sure=False):
                    await asyncio.Event().wait()
            except BusError as error:
                logger.info("roll.waits", error=str(error))
            await asyncio.sleep(_AGAIN_S)

    def _on_asked(self, subject: str, body: bytes) -> None:
        of = self._bus.subjects.live_of(subject)
        if of is None or of[1] != ROLL or len(self._asked) >= _RUNS_MAX:
            return
        self._asked.add(of[0])
        if self._answering is None:
            self._answer()

    def _answer(self) -> None:
        """Answer all who have asked, and then none for a moment."""
        asked, self._asked = self._asked, set()
        if not asked:
            self._pause_s, self._answering = _TOGETHER_S, None
            return
        self._answering = asyncio.get_running_loop().call_later(self._pause_s, self._answer)
        self._pause_s = min(2 * self._pause_s, _TOGETHER_MAX_S)
        jobs = [job for each in list(self._jobs.values()) for job in each()]
        for job in jobs:
            if job.run in asked and job.in_handler and not job.waits:
                announce(self._bus, job)
        if WHOLE_ROLL in asked:
            self._bus.say_soon(self._bus.subjects.here(), encode_word(self._here(jobs)))

    def _here(self, jobs: Iterable[Job]) -> Here:
        waits = [job.waits for job in jobs if job.in_handler]
        return Here(
            host=socket.gethostname(),
            pid=os.getpid(),
            actors=tuple(sorted(self._jobs))[:ACTORS_MAX],
            version=_version(),
            since_us=self._since_us,
            in_hand=len(waits) - sum(waits),
            waits=sum(waits),
        )


@contextlib.asynccontextmanager
async def answering(bus: Bus) -> AsyncIterator[Roll]:
    """Answer over this bus while the context is open: flows that are played in one process share one who answers."""
    roll = _ROLLS.get(bus)
    if roll is None:
        roll = _ROLLS[bus] = Roll(bus)
    roll.begin()
    try:
        yield roll
    finally:
        await roll.end()


def _version() -> str:
    try:
        return version("baton-bus")
    except PackageNotFoundError:  # run from its sources
        return ""
