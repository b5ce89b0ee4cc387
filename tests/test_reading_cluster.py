"""Reading in a cluster of three whose replicas lag: what is there is found, whoever answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from baton_bus import Settings
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.run.state import Entry
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Reply
from baton_schemas.wire.outcomes import Done

from .clusters import Cluster, cluster
from .servers import WAIT_S

COUNT = 2_000
ROUNDS = 2
WAKES = 10


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as ours:
        yield ours


@contextlib.asynccontextmanager
async def bus_on(url: str) -> AsyncIterator[Bus]:
    settings = Settings(url=url, namespace="log", replicas=3, request_timeout_s=0.5, patience_s=2 * WAIT_S)
    async with open_bus(settings) as bus:
        yield bus


async def write(bus: Bus, count: int, run: str) -> int:
    """Write the replies of this many branches of a run, and return the sequence of the last."""

    async def one(index: int) -> int:
        reply = Reply(flow="f", digest="x", run=run, step="s", source="b", index=index, each=True, outcome=Done())
        return await bus.publisher.create(bus.subjects.of("m", reply), encode(reply)) or 0

    last = 0
    for start in range(0, count, 500):
        last = max(last, *await asyncio.gather(*map(one, range(start, min(count, start + 500)))))
    return last


async def test_all_is_read_from_a_replica_that_catches_up(three: Cluster) -> None:
    async with bus_on(three.url) as bus:
        await three.until_current("log")
        for round_ in range(ROUNDS):
            run, few, value = f"r{round_}", f"few{round_}", os.urandom(500_000)
            follower = (await three.leader("log") + 1) % 3
            await three.kill(follower)
            await write(bus, COUNT, run)
            last_seq = await write(bus, 3, few)
            blob = await bus.blobs.put(value)
            await three.start(follower)
            async with bus_on(three.servers[follower].url) as reader:
                for _ in range(10):
                    read = [entry async for entry in reader.log.read([bus.subjects.run(run)])]
                    assert len(read) == COUNT
                    assert len(await reader.log.run_sure(few)) == 3
                    assert (await reader.log.at_sure(last_seq)) is not None
                    assert (await reader.log.last_sure(bus.subjects.run(few))) is not None
                    reader.blobs._cache.clear()
                    assert await reader.blobs.get(blob) == value
                assert len(await reader.log.run_sure(run)) == COUNT
            await three.until_current("log")


async def test_all_is_read_from_a_follower_that_wakes(three: Cluster) -> None:
    async with bus_on(three.servers[await leader_of(three)].url) as bus:
        await bus.blobs.put(b"first")
        await three.until_current("log-blobs")
        for round_ in range(WAKES):
            leaders = {await three.leader("log"), await three.leader("log-blobs")}
            follower = next(index for index in range(3) if index not in leaders)
            await read_while_paused(three, bus, follower, f"p{round_}")


async def test_leader_that_wakes_is_not_believed(three: Cluster) -> None:
    await leader_of(three)
    async with bus_on(three.url) as bus:
        await bus.blobs.put(b"first")
        await three.until_current("log-blobs")
    for stream in ("log", "log-blobs"):
        leader = await three.leader(stream)
        async with bus_on(three.servers[(leader + 1) % 3].url) as bus:
            await read_while_paused(three, bus, leader, stream)  # the others elect another leader meanwhile
        await three.until_current("log")
        await three.until_current("log-blobs")


async def leader_of(three: Cluster) -> int:
    """Return the index of the leader of the log, made if it is missing, once its replicas are there."""
    async with bus_on(three.url):
        await three.until_current("log")
        return await three.leader("log")


async def read_while_paused(three: Cluster, bus: Bus, index: int, run: str) -> None:
    """Write while a server is paused, and ask that one for it: it answers as soon as it wakes, before it catches up."""
    value = os.urandom(200_000)
    async with bus_on(three.servers[index].url) as reader:
        with paused(three, index):
            last_seq = await write(bus, 300, run)
            blob = await bus.blobs.put(value)
            last_subject = await subject_of(bus, last_seq)
            runs = asyncio.gather(
                everything(reader, run),
                reader.log.run_sure(run),
                reader.log.matching_sure([reader.subjects.run(run)] * 10),
            )
            lasts = asyncio.gather(
                reader.log.at_sure(last_seq),
                reader.log.last_sure(last_subject),
                reader.log.taken(last_subject),
            )
            got = asyncio.create_task(reader.blobs.get(blob))
            await asyncio.sleep(0.05)  # until they are sent
        assert [last.seq if last else None for last in await lasts] == [last_seq, last_seq, last_seq]
        assert [len(read) for read in await runs] == [300, 300, 300]
        assert await got == value


async def subject_of(bus: Bus, seq: int) -> str:
    entry = await bus.log.at_sure(seq)
    assert entry is not None
    return entry.subject


async def everything(bus: Bus, run: str) -> list[Entry]:
    return [entry async for entry in bus.log.read([bus.subjects.run(run)])]


@contextlib.contextmanager
def paused(three: Cluster, index: int) -> Iterator[None]:
    pid = three.servers[index].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_absence_is_the_leaders_word_at_once(three: Cluster) -> None:
    async with bus_on(three.url) as bus:
        await three.until_current("log")
        await write(bus, 1, "r")
        async with asyncio.timeout(2):
            assert await bus.log.run_sure("none") == []
            assert await bus.log.at_sure(99) is None
            assert await bus.log.last_sure(bus.subjects.run("none")) is None
            many = [bus.subjects.reply("m", "none", "s", f"b-{index}") for index in range(20)]
            assert await bus.log.matching_sure(many) == []
