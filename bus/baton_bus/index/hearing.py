"""What comes into a log while it is read: heard by a task of its own, and taken when there is time for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

from baton_bus.jetstream.gets import Stored
from baton_bus.store.log import Log

_HEARD_MAX = 20_000
"""Messages that came and are not taken yet; more wait at the server."""


class Hearing:
    """Hears one log from a sequence on."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._heard: asyncio.Queue[Stored] = asyncio.Queue(_HEARD_MAX)
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def from_seq(self, seq: int) -> AsyncIterator[None]:
        """Hear what comes, while the context is open."""
        self._task = asyncio.create_task(self._hear(seq), name="hear the log")
        try:
            yield
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def take(self) -> Iterator[Stored]:
        """Yield what came, until there is no more."""
        while not self._heard.empty():
            yield self._heard.get_nowait()

    async def wait_until(self, at: float) -> None:
        """Wait until there is something, or until this time of the loop. Raises what ended the hearing."""
        if not self._heard.empty():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(at):
                await self._came.wait()
        self._came.clear()
        if self._task is not None and self._task.done() and self._heard.empty():
            self._task.result()

    async def _hear(self, seq: int) -> None:
        try:
            async with aclosing(self._log.raw_follow(seq)) as log:
                async for each in log:
                    await self._heard.put(each)
                    self._came.set()
        finally:
            self._came.set()
