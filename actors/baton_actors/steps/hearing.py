"""Hearing the answers to what the steps of one actor asked, as they are stored: one reader for all of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

import structlog

from baton_actors.agents.alarms import Alarms
from baton_bus.engine.engine import Engine
from baton_bus.errors import BusError
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Answer

_AGAIN_S = 2.0
"""After this the answers are followed again, when the bus would not let us."""
_AT_ONCE = 500
"""Children that are handed off at the same time: enough to hide round trips, bounded for the client's buffer."""
HELD_PART = 4
"""A process holds no more waiting steps than this part of what all may hold: what they wait for may be steps of the
same actor, which are not handed out while all places are held."""

logger = structlog.get_logger("baton.worker")

Heard = Callable[[Answer], None]


class Answers:
    """Tells the steps of one actor that wait in this process what was answered; follows nothing before the first."""

    def __init__(self, engine: Engine, actor: str, max_in_flight: int) -> None:
        self._engine, self._actor = engine, actor
        self.held_max = max_in_flight // HELD_PART
        self.held = 0
        """Steps that wait in this process."""
        self.places = asyncio.Semaphore(_AT_ONCE)
        """For the handoffs of children that are being written."""
        self._background: set[asyncio.Task[None]] = set()
        self.alarms = Alarms(asyncio.get_running_loop())
        self._waiting: dict[tuple[str, str], list[Heard]] = {}
        self._follower: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    @property
    def are_followed(self) -> bool:
        """Whether `begin` has been called."""
        return self._follower is not None

    async def begin(self, seq: int) -> None:
        """Have the answers followed that come from now on; they come after `seq`. Raises `BusUnavailable`."""
        async with self._lock:
            if self._follower is None:
                last = await self._engine.bus.log.last_sure(self._engine.bus.subjects.for_actor("answer", self._actor))
                next_seq = (last.seq if last is not None else seq) + 1
                # In a context of its own: it outlives the step that is the first to ask, and logs nothing in its name.
                name = f"answers to {self._actor}"
                self._follower = asyncio.create_task(self._follow(next_seq), name=name, context=Context())

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do what nobody waits for; the bus may refuse it."""

        async def do() -> None:
            try:
                await work
            except BusError as error:
                logger.warning("bus.refuses", error=str(error))
            except Exception:
                logger.exception("answers.broken", actor=self._actor)

        task = asyncio.create_task(do())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def tell(self, run: str, step: str, heard: Heard) -> None:
        """Call `heard` with each answer to this step of this run, until `forget`."""
        self._waiting.setdefault((run, step), []).append(heard)

    def forget(self, run: str, step: str, heard: Heard) -> None:
        """Do so no more."""
        left = [each for each in self._waiting.pop((run, step), []) if each != heard]
        if left:
            self._waiting[run, step] = left

    async def stop(self) -> None:
        """Follow no more."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    async def _follow(self, next_seq: int) -> None:
        pattern = self._engine.bus.subjects.for_actor("answer", self._actor)

        def heard(entry: Entry) -> None:
            nonlocal next_seq
            next_seq = entry.seq + 1
            if isinstance(entry.message, Answer):
                for tell in self._waiting.get((entry.message.run, entry.message.step), ()):
                    tell(entry.message)

        while True:
            try:
                await self._engine.bus.log.hear(pattern, next_seq, heard)
            except BusError as error:
                logger.error("bus.refuses", error=str(error), subject=pattern)
            except Exception:
                logger.exception("answers.broken", actor=self._actor)
            await asyncio.sleep(_AGAIN_S)
