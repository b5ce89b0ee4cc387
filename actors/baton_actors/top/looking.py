"""How a view is kept up to date.

It looks when something has come, at most eight times a second, and not while another one is on top of it, while it is
frozen, or while the server is away: nothing pretends to be live.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from textual.screen import Screen

from baton_actors.console.bell import Bell
from baton_actors.errors import ActorError
from baton_bus.errors import BusError
from baton_bus.index.errors import IndexUnusable
from baton_schemas.errors import SchemaError

from .palette import Cell

if TYPE_CHECKING:
    from baton_actors.console.core import Console

    from .app import Top

_AGAIN_S = 1.0
"""How soon it is tried again when there is nothing to look at, or the server is away."""
_EVERY_S = 0.125
"""At most eight times a second."""
_SHARE = 4
"""Looking takes at most a fifth of the time."""
_CONNECTED_EVERY_S = 0.5
ERRORS = (BusError, SchemaError, ActorError, ValueError)


class Looking(Screen[None]):
    """A screen that is kept up to date."""

    app: Top

    every_s = 10.0
    """It looks at least so often."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.frozen = False
        self.looks = 0
        """How often it was painted."""
        self._awake = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._live: asyncio.Task[None] | None = None
        self._again = Bell()
        self._painted_at: datetime | None = None
        self._stored_at_s = 0.0
        self._lag_ms: float | None = None
        self._lost_at: float | None = None

    def hearing(self) -> contextlib.AbstractAsyncContextManager[list[Bell]]:
        """Have what it is of heard while the context is open; yield what rings when there is more."""
        return _only([self.console.index.bell])

    async def look(self) -> Any:
        """Return what is shown. Raises `ERRORS`."""
        raise NotImplementedError

    def paint(self, facts: Any) -> None:
        """Show it."""
        raise NotImplementedError

    def put(self, where: str, lines: list[Cell]) -> None:
        """Write lines on one of its texts."""
        raise NotImplementedError

    def tell(self, error: BaseException) -> None:
        """Say what is amiss, and what to do next."""
        raise NotImplementedError

    def paint_status(self) -> None:
        """Say how live it is."""
        raise NotImplementedError

    def begin(self) -> None:
        """Begin to look."""
        self._awake.set()
        self._live = asyncio.create_task(self._keep_looking(), name="look")
        self._live.add_done_callback(self._ended)

    async def on_unmount(self) -> None:
        """End it."""
        if self._live is not None:
            self._live.cancel()
            await asyncio.gather(self._live, return_exceptions=True)

    def again(self) -> None:
        """Look again, as soon as may be."""
        self._again.ring()

    def stored(self, at_s: float) -> None:
        """Say when the last message was stored that is shown (Unix time)."""
        if at_s > self._stored_at_s:
            if self._stored_at_s:
                self._lag_ms = max(self.console.bus.now_s() - at_s, 0.0) * 1_000
            self._stored_at_s = at_s

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.app.broken(error)

    async def _keep_looking(self) -> None:
        while True:
            try:
                async with self.hearing() as bells:
                    await self._follow([*bells, self._again])
            except ERRORS as error:
                self.tell(error)
                await asyncio.sleep(_AGAIN_S)

    async def _follow(self, bells: list[Bell]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._awake.wait()
            await self._thawed.wait()
            counts = [bell.count for bell in bells]
            began = loop.time()
            if self._is_connected():
                await self._look()
            self.paint_status()
            took_s = loop.time() - began
            await asyncio.sleep(max(_EVERY_S - took_s, took_s * _SHARE))
            await self._news(bells, counts)

    async def _look(self) -> None:
        try:
            facts = await self.look()
        except IndexUnusable as error:
            self.console.index.broken(error)
            return
        except ERRORS as error:
            self.tell(error)
            return
        if self.frozen:
            return
        self.put("said", [])
        self.paint(facts)
        self.looks += 1
        self._painted_at = datetime.now(UTC)

    async def _news(self, bells: Sequence[Bell], counts: Sequence[int]) -> None:
        """Wait for something that came, or until it is time; while the server is away, a second."""
        waiting = [asyncio.create_task(bell.wait(count)) for bell, count in zip(bells, counts, strict=True)]
        left_s = _AGAIN_S if self._lost_at is not None else self.every_s
        try:
            while left_s > 0:
                done, _ = await asyncio.wait(
                    waiting, timeout=min(left_s, _CONNECTED_EVERY_S), return_when=asyncio.FIRST_COMPLETED
                )
                if done or self.console.bus.is_connected != (self._lost_at is None):
                    return
                left_s -= _CONNECTED_EVERY_S
        finally:
            for task in waiting:
                task.cancel()

    def _is_connected(self) -> bool:
        """Say whether the server is there; remember since when it is not."""
        if self.console.bus.is_connected:
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = time.monotonic()
        self.set_class(self._lost_at is not None, "away")
        return self._lost_at is None


@asynccontextmanager
async def _only(bells: list[Bell]) -> AsyncIterator[list[Bell]]:
    yield bells
