"""Whose turn it is, where one step is done at a time: a step that waits for what it asked lets others have theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from msgspec import Raw

from baton_actors.agents.asks import Asks
from baton_actors.agents.clock import Clock
from baton_schemas.wire.messages import NO_DEFAULT, Note, Question

T = TypeVar("T")


class Turn:
    """That of one step, among all that share a lock."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self._taking: asyncio.Task[bool] | None = None
        """The step has its turn once this is done."""
        self._waits = 0
        """How many answers it waits for."""
        self._is_over = False

    async def take(self) -> None:
        """Wait until it is the step's turn, or until it needs none: it waits for an answer again, or has ended."""
        while not self._waits and not self._is_over:
            taking = self._begin_taking()
            await asyncio.wait([taking])  # it may be given up meanwhile
            if not taking.cancelled():
                return

    async def without(self, asked: Awaitable[T]) -> T:
        """Await an answer; the turn is another's as long as the step waits for any."""
        self._waits += 1
        self._give()
        is_cancelled = False
        try:
            return await asked
        except asyncio.CancelledError:
            is_cancelled = True  # and must end now, though the step may go on
            raise
        finally:
            self._waits -= 1
            if not self._waits and not self._is_over:
                self._begin_taking()
            if not is_cancelled:
                await self.take()

    def end(self) -> None:
        """The step has ended: its turn is over, whatever its handler still does."""
        self._is_over = True
        self._give()

    def _begin_taking(self) -> asyncio.Task[bool]:
        if self._taking is None:
            self._taking = asyncio.create_task(self._lock.acquire())
        return self._taking

    def _give(self) -> None:
        taking, self._taking = self._taking, None
        if taking is not None and not taking.cancel():
            self._lock.release()


class AsksInTurn:
    """The asks of a step that lets others have their turn while it waits."""

    def __init__(self, asks: Asks, turn: Turn) -> None:
        self._asks, self._turn = asks, turn

    # ---- what is waited for ------------------------------------------------------------------------

    async def ask(self, agent: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Ask an agent."""
        return await self._turn.without(self._asks.ask(agent, arguments, deadline_s=deadline_s))

    async def run(self, flow: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Have a flow run."""
        return await self._turn.without(self._asks.run(flow, arguments, deadline_s=deadline_s))

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await self._turn.without(self._asks.sleep(seconds))

    async def person(
        self, role: str, question: Question, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT
    ) -> Raw:
        """Ask a person."""
        asked = self._asks.person(role, question, deadline_s=deadline_s, default=default)
        return await self._turn.without(asked)

    async def event(self, name: str, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT) -> Raw:
        """Wait for an event."""
        return await self._turn.without(self._asks.event(name, deadline_s=deadline_s, default=default))

    # ---- what is not -------------------------------------------------------------------------------

    async def record(self, name: str, make: Callable[[], Awaitable[Any]]) -> Raw:
        """Record in the step's own turn: `make` is the handler's code."""
        return await self._asks.record(name, make)

    def told(self, clock: Clock, *, in_thread: bool = False) -> None:
        """Hand the clock on."""
        self._asks.told(clock, in_thread=in_thread)

    def busy(self) -> AbstractContextManager[None]:
        """As it is without turns."""
        return self._asks.busy()

    def knows(self, notes: Sequence[Note]) -> None:
        """Hand the notes on."""
        self._asks.knows(notes)

    def close(self) -> None:
        """As it is without turns."""
        self._asks.close()

    async def note_unasked(self) -> None:
        """As it is without turns."""
        await self._asks.note_unasked()
