"""Budgets when workers die: what they held is given back, and what they paid is counted once, as the log has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from baton_actors import Flow
from baton_actors.models import Models, ModelSettings
from baton_actors.processes.hosting import hosting
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus

from .clients import result_of, start_run
from .dying import MORTAL
from .sdk_clients import HAIKU, providing
from .servers import WAIT_S, NatsServer
from .test_budgets import COST, until_settled

WRITES_MAX = 20
"""More than the run below makes."""


class Mortal:
    """A worker process that writes so often, to the log or to a counter, and no more."""

    def __init__(self, bus: Bus, writes: int) -> None:
        self.left = writes
        self._bus, self._create, self._add = bus, bus.create, bus.counters.add
        self._buried, self.died = asyncio.Event(), asyncio.Event()
        bus.create = self._mortal(bus.create)  # type: ignore[method-assign]
        bus.counters.add = self._mortal(bus.counters.add)  # type: ignore[method-assign]

    def _mortal(self, write: Any) -> Any:
        async def writes(*given: Any, **more: Any) -> Any:
            if self.left <= 0:
                self.died.set()
                await self._buried.wait()
                raise asyncio.CancelledError
            self.left -= 1
            return await write(*given, **more)

        return writes

    async def bury(self) -> None:
        await self._bus.nc.close()
        self._buried.set()


@contextlib.asynccontextmanager
async def working(settings: Settings, found: Any, models: ModelSettings, writes: int = 10**6) -> AsyncIterator[Mortal]:
    async with (
        open_bus(settings) as bus,
        Models(models) as own,
        hosting(Engine(bus), found, list(found.flow.agents), models=own, grace_s=0.1),
    ):
        process = Mortal(bus, writes)
        try:
            yield process
        finally:
            if process.left <= 0:
                await process.bury()


async def test_counters_say_what_the_log_says_wherever_between_two_writes_a_worker_dies(
    server: NatsServer, namespace: str
) -> None:
    flow = Flow("two", budget={"usd": 1.0, "tokens": 10_000, "usd_per_day": 1.0})
    flow.ask("draft", "Write of tides.", model=HAIKU, max_tokens=100)
    flow.ask("edit", "Make {draft} better.", model=HAIKU, max_tokens=100, after="draft")
    found = flow.found()
    few = asyncio.Semaphore(5)

    async def dies_after(writes: int) -> int:
        settings = Settings(url=server.url, namespace=f"{namespace}-{writes}", **MORTAL)
        async with few, providing() as provider, open_bus(settings) as bus:
            run = await start_run(bus, found.plan, {})
            async with working(settings, found, provider.settings, writes) as process:
                ended = asyncio.create_task(result_of(bus, run, timeout_s=WAIT_S))
                died = asyncio.create_task(process.died.wait())
                await asyncio.wait({ended, died}, return_when=asyncio.FIRST_COMPLETED)
                died.cancel()
            async with working(settings, found, provider.settings):
                assert (await ended).status == "done"
                spent = await until_settled(bus, run)
                assert await until_settled(bus, run, "tokens") == spent // COST * 110
            # What was asked and not recorded is unknown to the log; what was recorded is not asked again.
            assert 2 * COST == spent <= len(provider.asked) * COST <= 3 * COST
            of_day = [entry async for entry in bus.counters.entries(("flow", "two", "*", "usd"))]
            assert of_day[-1].total == spent
            return len(provider.asked)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(dies_after(writes)) for writes in range(WRITES_MAX)]
    assert {task.result() for task in tasks} == {2, 3}
