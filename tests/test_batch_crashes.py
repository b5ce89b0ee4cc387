"""Batches when workers die: wherever that is between two writes, no call is sent twice, and each is paid for once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from baton_actors import Flow
from baton_actors.agents.loading import FoundFlow
from baton_actors.batches import one, sending
from baton_bus import Settings
from baton_bus.store.bus import open_bus
from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.messages import Note

from .batch_server import BatchApi, batching
from .clients import result_of, start_run
from .dying import MORTAL
from .sdk_clients import HAIKU
from .servers import WAIT_S, NatsServer
from .test_budget_crashes import working
from .test_budgets import COST, until_settled

WRITES_MAX = 30
"""More than the run below makes."""


@pytest.fixture(autouse=True)
def looks_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (one, sending):
        monkeypatch.setattr(module, "LOOK_S", (0.05, 0.1))


def two() -> FoundFlow:
    """Two calls that go in one batch, in a run with a budget."""
    flow = Flow("two", input={"items": "list[str]"}, budget={"usd": 1.0, "tokens": 10_000})
    policy = {"count": 2, "seconds": 0.1}
    given: dict[str, Any] = {"model": HAIKU, "max_tokens": 100, "delivery": "batch", "batch": policy, "timeout_s": 1.0}
    flow.ask("tell", "Of {item}.", each="items", **given)
    return flow.found()


async def test_no_batch_is_sent_twice_wherever_between_two_writes_a_worker_dies(
    server: NatsServer, namespace: str
) -> None:
    found = two()
    few = asyncio.Semaphore(8)

    async def dies_after(writes: int) -> BatchApi:
        settings = Settings(url=server.url, namespace=f"{namespace}-{writes}", **MORTAL)
        async with few, batching() as api, open_bus(settings) as bus:
            run = await start_run(bus, found.plan, {"items": ["tides", "moons"]})
            async with working(settings, found, api.settings, writes) as process:
                ended = asyncio.create_task(result_of(bus, run, timeout_s=WAIT_S))
                died = asyncio.create_task(process.died.wait())
                await asyncio.wait({ended, died}, return_when=asyncio.FIRST_COMPLETED)
                died.cancel()
            async with working(settings, found, api.settings):
                assert (await ended).status == "done"
                assert await until_settled(bus, run) == COST
                assert await until_settled(bus, run, "tokens") == 220
            assert len(api.asked) == 2
            assert set(api.asked.values()) == {1}
            notes = [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, Note)]
            assert sum(isinstance(note.fact, ModelCall) for note in notes) == 2
            return api

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(dies_after(writes)) for writes in range(WRITES_MAX)]
    assert {sum(task.result().sizes) for task in tasks} == {2}
