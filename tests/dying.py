"""Workers that die between two writes: whatever was written is in the log, and nothing is acked or given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from baton_bus.store.bus import Bus

from .team import Team

MORTAL: dict[str, Any] = {"lease_s": 0.5, "patience_s": 3.0}
"""Settings of a team whose workers die: what they held comes back soon, and the dead do not wait for answers."""


class Dying:
    """A process of workers of a team that writes so many messages, and no more."""

    def __init__(self, bus: Bus, writes: int) -> None:
        self.left = writes
        self._bus, self._create = bus, bus.create
        self._buried = asyncio.Event()
        self._died = asyncio.Event()
        bus.create = self.create  # type: ignore[method-assign]

    async def create(self, subject: str, body: bytes) -> int | None:
        if self.left <= 0:
            self._died.set()
            await self._buried.wait()
            raise asyncio.CancelledError
        self.left -= 1
        return await self._create(subject, body)

    async def until_dead(self) -> None:
        await self._died.wait()

    async def bury(self) -> None:
        """Cut its connection: nothing that it says is heard any more."""
        await self._bus.nc.close()
        self._buried.set()


async def at_once(dies_after: Callable[[int], Coroutine[Any, Any, int]], count: int) -> list[int]:
    """Do something with workers that die after 0, 1, … writes, some at a time; return what comes of each.

    So many at least, and more until the last has writes left: on a busy machine what is held too long comes again, and
    is noted, so that the same takes more of them. Twice as many are the most.
    """
    few = asyncio.Semaphore(4)

    async def in_turn(writes: int) -> int:
        async with few:
            return await dies_after(writes)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(in_turn(writes)) for writes in range(count)]
    found = [task.result() for task in tasks]
    while found[-1] <= 0 and len(found) < 2 * count:
        found.append(await dies_after(len(found)))
    return found


@contextlib.asynccontextmanager
async def dying(t: Team, writes: int) -> AsyncIterator[Dying]:
    """Play all actors of a team until `writes` messages are written; at the end of the context it is dead."""
    async with t.process(grace_s=0.1) as bus:
        process = Dying(bus, writes)
        try:
            yield process
        finally:
            await process.bury()
