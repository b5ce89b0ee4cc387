"""Counters of the broker: each who adds is told the total that it made, and each id is added once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from baton_bus import Settings
from baton_bus.errors import StreamMismatch
from baton_bus.store.bus import Bus, open_bus
from baton_bus.store.counters import Entry

from .servers import NatsServer, nats_server

RUN = ("run", "r1", "usd")


@asynccontextmanager
async def bus_on(server: NatsServer, namespace: str = "t") -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        yield bus


async def entries(bus: Bus, name: tuple[str, ...] = RUN, start_seq: int = 0) -> list[Entry]:
    return [entry async for entry in bus.counters.entries(name, start_seq)]


async def test_each_who_adds_is_told_the_total_that_it_made(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus, bus_on(server, namespace) as other:
        added = await asyncio.gather(
            *(each.counters.add(RUN, 3, f"{of}-{i}") for i in range(100) for of, each in enumerate((bus, other)))
        )
        assert sorted(each.total for each in added) == [3 * (i + 1) for i in range(200)]
        assert await other.counters.read(RUN) == 600


async def test_what_was_added_already_is_not_added_again_and_tells_the_total_of_then(
    server: NatsServer, namespace: str
) -> None:
    async with bus_on(server, namespace) as bus:
        first = await bus.counters.add(RUN, 10**30, "call")
        await bus.counters.add(RUN, -4, "another")
        again = await bus.counters.add(RUN, 10**30, "call")
        assert (again.total, again.seq, again.again) == (first.total, first.seq, True)
        assert await bus.counters.read(RUN) == 10**30 - 4


async def test_counter_is_a_ledger_of_what_was_added_for_whom(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await bus.counters.add(RUN, 5, "a", {"Baton-Of": "r1/write"})
        await bus.counters.add(("day", "2026-11-25", "usd"), 1, "b")
        last = await bus.counters.add(RUN, -2, "c", {"Baton-Of": "r1/edit"})
        found = await entries(bus)
        assert [(each.by, each.total, each.id, each.about) for each in found] == [
            (5, 5, "a", {"Baton-Of": "r1/write"}),
            (-2, 3, "c", {"Baton-Of": "r1/edit"}),
        ]
        assert [each.id for each in await entries(bus, RUN, last.seq)] == ["c"]
        assert {each.name for each in await entries(bus, ("*", "*", "usd"))} == {RUN, ("day", "2026-11-25", "usd")}


async def test_counter_that_nothing_was_added_to_stands_at_zero(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        assert await bus.counters.read(RUN) == 0
        assert await entries(bus) == []
        assert await bus.counters.remove(RUN) == 0
        await bus.counters.add(RUN, 1, "a")
        assert await bus.counters.read(("run", "r2", "usd")) == 0


async def test_removed_counter_begins_anew_and_leaves_the_others(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await bus.counters.add(RUN, 7, "a")
        await bus.counters.add(RUN, 7, "b")
        await bus.counters.add(("run", "r2", "usd"), 7, "c")
        assert await bus.counters.remove(("run", "r1", "*")) == 2
        assert (await bus.counters.add(RUN, 1, "d")).total == 1
        assert await bus.counters.read(("run", "r2", "usd")) == 7


async def test_stream_that_was_deleted_is_made_again(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await bus.counters.add(RUN, 7, "a")
        await bus.js.delete_stream(bus.counters.stream)
        assert (await bus.counters.add(RUN, 2, "b")).total == 2


async def test_stream_without_counters_is_refused_by_name(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await bus.js.add_stream(StreamConfig(name=bus.counters.stream, subjects=[f"{namespace}-spend.>"]))
        with pytest.raises(StreamMismatch, match="allow_msg_counter") as caught:
            await bus.counters.add(RUN, 1, "a")
        assert bus.counters.stream in str(caught.value)


async def test_ids_are_known_again_after_the_server_was_killed(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, bus_on(server) as bus:
        await bus.counters.add(RUN, 5, "a")
        await server.kill()
        adding = asyncio.create_task(bus.counters.add(RUN, 5, "a"))
        await server.restart()
        assert (await adding).again
        assert await bus.counters.read(RUN) == 5
