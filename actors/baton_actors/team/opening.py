"""Opening a team: in the event loop that is there, or beside a program that has none, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from baton_actors.team.sync import LoopThread, SyncTeam
from baton_actors.team.team import Team

Make = Callable[[], AbstractAsyncContextManager[Team]]


class Opening:
    """A team that is not open yet: `async with` it for a `Team`, `with` it for a `SyncTeam`. Both may come again."""

    def __init__(self, make: Make) -> None:
        """`make` gives a context that has a team while it is open."""
        self._make = make
        self._held: _Held | None = None
        self._sync: SyncTeam | None = None

    async def __aenter__(self) -> Team:
        held = _Held(self._make)
        team = await held.open()
        self._held = held
        return team

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.close()

    def __enter__(self) -> SyncTeam:
        self._sync = self.open()
        return self._sync

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        team, self._sync = self._sync, None
        if team is not None:
            team.close()

    def open(self) -> SyncTeam:
        """Open it without `with`, as over the cells of a notebook; `SyncTeam.close` closes it.

        It works where an event loop runs already. Raises what opening it raises.
        """
        thread = LoopThread()
        held: list[_Held] = []

        async def begin() -> Team:
            held.append(_Held(self._make))
            return await held[0].open()

        async def end() -> None:
            await held[0].close()

        try:
            return SyncTeam(thread.call(begin()), thread, end)
        except BaseException:
            thread.close()
            raise


class _Held:
    """A context that is opened, kept and closed by a task of its own: who opens may be another than who closes.

    (As in pytest, whose fixtures are set up in one task and torn down in another.)
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._stop = asyncio.Event()
        self._team: asyncio.Future[Team] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Team:
        self._task = asyncio.create_task(self._hold(), name="baton team")
        try:
            waits: list[asyncio.Future[Any]] = [self._task, self._team]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._end()
            raise
        if not self._team.done():
            await self._task  # which raises
        return self._team.result()

    async def close(self) -> None:
        assert self._task is not None
        self._stop.set()
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            await self._end()
            raise

    async def _hold(self) -> None:
        async with self._make() as team:
            self._team.set_result(team)
            await self._stop.wait()

    async def _end(self) -> None:
        """Close at once: whoever waits is cancelled."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
