"""Batches when workers die: wherever that is between two writes, no call is sent twice, and each is paid for once."""

from __future__ import annotations

import asyncio

import pytest

from baton_actors.batches import one, sending
from baton_bus import Settings
from baton_bus.store.bus import open_bus
from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.messages import Note

from .batch_server import BatchApi, batching
from .batch_worker import batch_worker, two
from .clients import result_of, start_run
from .dying import MORTAL
from .servers import WAIT_S, NatsServer
from .test_budget_crashes import working
from .test_budgets import COST, until_settled

WRITES_MAX = 30
"""More than the run below makes."""


@pytest.fixture(autouse=True)
def looks_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (one, sending):
        monkeypatch.setattr(module, "LOOK_S", (0.05, 0.1))


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


@pytest.mark.parametrize("at", ["POST /v1/messages/batches", "GET /v1/messages/batches/msgbatch_1/results"])
async def test_batch_of_a_killed_worker_is_found_again_by_another(server: NatsServer, namespace: str, at: str) -> None:
    settings = Settings(url=server.url, namespace=namespace, **MORTAL)
    found = two()
    async with batching() as api, open_bus(settings) as bus, batch_worker(server, namespace, api.url) as process:

        def kill(method: str, path: str) -> bool:
            is_it = f"{method} {path}" == at
            if is_it and process.returncode is None:
                process.kill()
            return is_it and process.returncode is None

        api.cuts = kill
        run = await start_run(bus, found.plan, {"items": ["tides", "moons"]})
        assert await process.wait() == -9
        api.cuts = lambda method, path: False
        async with working(settings, found, api.settings):
            assert (await result_of(bus, run, timeout_s=WAIT_S)).status == "done"
            assert await until_settled(bus, run) == COST
        assert set(api.asked.values()) == {1}
        assert api.sizes == [2]
