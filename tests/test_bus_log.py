"""Reading the log: both ways of reading agree, and no answer is cut short unseen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from baton_bus import Settings
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Join, Reply
from baton_schemas.wire.outcomes import Done

from .servers import NatsServer, nats_server, until


@contextlib.asynccontextmanager
async def bus_on(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


async def write_replies(bus: Bus, count: int, size_bytes: int = 10) -> None:
    """Write the replies of this many branches of run `r`."""

    async def write(index: int) -> None:
        reply = Reply(
            flow="f", digest="x" * size_bytes, run="r", step="s", source="b", index=index, each=True, outcome=Done()
        )
        await bus.publisher.create(bus.subjects.of("m", reply), encode(reply))

    for start in range(0, count, 500):
        await asyncio.gather(*map(write, range(start, min(count, start + 500))))


@pytest.mark.parametrize("count", [1, 1_000, 1_200])
async def test_run_reads_the_same_however_it_is_read(count: int, server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await write_replies(bus, count)
        read = [entry async for entry in bus.log.read([bus.subjects.run("r")])]

        assert len(read) == count
        assert await bus.log.run("r") == read
        assert await bus.log.run("r", ["m"]) == read
        assert await bus.log.last(read[-1].subject) == await bus.log.at(read[-1].seq) == read[-1]


async def test_answer_that_the_server_cuts_short_is_read_to_its_end(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await write_replies(bus, 100, 700_000)  # 70 MB; the server stops at 64 MiB

        assert len(await bus.log.run("r")) == 100


@pytest.mark.parametrize("branches", [10, 1_200])
async def test_all_links_of_a_joins_chain_are_in_a_run(branches: int, server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await write_replies(bus, branches)
        links = [Join(flow="f", digest="x", run="r", step="s", number=k, came={"b": f"{k}"}) for k in (1, 2, 3)]
        for link in links:
            assert await bus.publisher.create(bus.subjects.join("m", "r", "s", link.number), encode(link)) is not None

        assert [entry.message for entry in await bus.log.run("r") if isinstance(entry.message, Join)] == links


async def test_absent_messages_are_read_as_none(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        assert await bus.log.last(bus.subjects.result("f", "r")) is None
        assert await bus.log.at(5) is None
        assert await bus.log.run("r") == []
        assert [entry async for entry in bus.log.read([bus.subjects.run("r")])] == []


async def test_end_is_that_of_what_is_left_when_the_last_message_was_removed(
    server: NatsServer, namespace: str
) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        for run in ("r1", "r2", "r3"):
            await bus.publisher.create(bus.subjects.result("f", run), b"{}")
        await bus.log.purge(bus.subjects.run("r3"))
        assert (await bus.log.bounds(), await bus.log.end()) == ((1, 2), 2)
        assert [each.seq async for each in bus.log.read([bus.subjects.run("r2")])] == [2]
        assert [each.seq async for each in bus.log.raw()] == [1, 2]


async def test_create_is_refused_where_a_message_is_and_update_where_another_is(
    server: NatsServer, namespace: str
) -> None:
    async with bus_on(server, namespace) as bus:
        subject = bus.subjects.join("m", "r", "s", 1)
        seq = await bus.publisher.create(subject, b"1")
        assert seq is not None
        assert await bus.publisher.create(subject, b"2") is None
        assert await bus.publisher.update(subject, b"3", seq + 7) is None
        assert await bus.publisher.update(subject, b"4", seq) == seq + 1
        entry = await bus.log.last(subject)
        assert entry is not None
        assert entry.data == b"4"


async def test_of_many_who_create_at_once_one_is_told_that_it_did(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus, open_bus(bus.settings) as other:
        subject = bus.subjects.result("f", "r")
        writers = [bus, other] * 20
        stored = await asyncio.gather(
            *(writer.publisher.create(subject, str(n).encode()) for n, writer in enumerate(writers))
        )

        assert len([seq for seq in stored if seq is not None]) == 1


async def test_reader_that_follows_misses_nothing_when_the_server_is_killed(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, bus_on(server, "t") as bus:
        seen: list[int] = []

        async def follow() -> None:
            async with contextlib.aclosing(bus.log.follow([bus.subjects.run("r")])) as entries:
                async for entry in entries:
                    seen.append(entry.seq)  # noqa: PERF401 (it is looked at while it grows)

        following = asyncio.create_task(follow())
        await write_replies(bus, 50)
        await until(lambda: len(seen) == 50)
        await server.kill()
        await server.restart()
        await write_replies(bus, 100)
        async with asyncio.timeout(8):  # well before a heartbeat would be missed
            await until(lambda: len(seen) == 100)
        following.cancel()

        assert seen == sorted(set(seen))
