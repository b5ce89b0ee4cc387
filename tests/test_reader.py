"""Reading to the end: through purges, restarts and many messages, and nothing is left at the server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from baton_bus import Settings
from baton_bus.errors import BusUnavailable, NoStream
from baton_bus.jetstream import gets, reader
from baton_bus.store.bus import Bus, open_bus
from baton_bus.subjects import matcher
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Reply
from baton_schemas.wire.outcomes import Done

from .servers import NatsServer, nats_server, until


@contextlib.asynccontextmanager
async def bus_on(server: NatsServer, namespace: str, patience_s: float = 20.0) -> AsyncIterator[Bus]:
    settings = Settings(url=server.url, namespace=namespace, request_timeout_s=0.5, patience_s=patience_s)
    async with open_bus(settings) as bus:
        yield bus


async def write(bus: Bus, count: int, run: str = "r", first: int = 0) -> None:
    """Write the replies of this many branches of a run."""

    async def one(index: int) -> None:
        reply = Reply(flow="f", digest="x", run=run, step="s", source="b", index=index, each=True, outcome=Done())
        await bus.publisher.create(bus.subjects.of("m", reply), encode(reply))

    for start in range(first, first + count, 500):
        await asyncio.gather(*map(one, range(start, min(first + count, start + 500))))


async def consumers(bus: Bus) -> int:
    return (await bus.js.stream_info(bus.settings.namespace)).state.consumer_count


@pytest.mark.parametrize("patterns", [["*.*.*.r.>"], ["*.reply.>", "*.result.>"], [">"]])
async def test_messages_that_are_purged_while_they_are_read_do_not_hold_up_the_reader(
    patterns: list[str], server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_BATCH", 10)
    async with bus_on(server, namespace) as bus:
        await write(bus, 100)
        seen: list[int] = []
        async with asyncio.timeout(5), contextlib.aclosing(bus.log.read(patterns)) as entries:
            async for entry in entries:
                seen.append(entry.seq)
                if entry.seq == 15:
                    await bus.js.purge_stream(namespace, seq=61)
                elif entry.seq == 80:
                    await bus.js.purge_stream(namespace)

        assert seen[:15] == [*range(1, 16)]
        assert set(range(61, 81)) <= set(seen)
        assert seen == sorted(set(seen))


async def test_reader_goes_on_where_it_was_when_the_server_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_BATCH", 10)
    async with nats_server(tmp_path) as server, bus_on(server, "t") as bus:
        await write(bus, 100)
        seen: list[int] = []
        async for entry in bus.log.read([bus.subjects.run("r")]):
            seen.append(entry.seq)
            if entry.seq in (1, 55):
                await server.kill()
                await server.restart()
        assert seen == [*range(1, 101)]


async def test_reader_ends_at_what_was_the_end_when_it_began(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_BATCH", 10)
    async with bus_on(server, namespace) as bus:
        await write(bus, 25)
        seen: list[int] = []
        async for entry in bus.log.read([bus.subjects.run("r")], 3):
            seen.append(entry.seq)
            if entry.seq == 3:
                await write(bus, 25, first=25)
        assert seen == [*range(3, 26)]
        assert [entry.seq async for entry in bus.log.read([bus.subjects.run("r")], 3, 7)] == [*range(3, 8)]


async def test_a_thousand_reads_leave_no_consumer(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await write(bus, 10)
        most = 0
        for _ in range(100):
            reads = [bus.log.read([bus.subjects.run("r")]) for _ in range(10)]
            await asyncio.gather(*(anext(read) for read in reads))
            most = max(most, await consumers(bus))
            await asyncio.gather(*(read.aclose() for read in reads))
        assert most == 0


async def test_whoever_follows_leaves_no_consumer_however_it_ends(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await write(bus, 10)

        async def follow(count: int) -> None:
            async with contextlib.aclosing(bus.log.follow([bus.subjects.run("r")])) as entries:
                async for entry in entries:
                    if entry.seq == count:
                        return

        await follow(5)
        cancelled = asyncio.create_task(follow(99))
        while await consumers(bus) == 0:  # noqa: ASYNC110 (the server sets no event of ours)
            await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        async with asyncio.timeout(5):
            while await consumers(bus):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_error_of_whoever_follows_is_the_one_that_is_raised(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, bus_on(server, "t") as bus:
        await write(bus, 1)
        with pytest.raises(ZeroDivisionError):
            async with contextlib.aclosing(bus.log.follow([bus.subjects.run("r")])) as entries:
                async for _ in entries:
                    await server.stop()
                    raise ZeroDivisionError
        await server.restart()
        await until(lambda: bus.nc.is_connected)


async def test_read_of_a_stream_that_is_gone_says_so(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await bus.js.delete_stream(namespace)
        with pytest.raises(NoStream):
            await bus.log.last("x")
        with pytest.raises(NoStream):
            [entry async for entry in bus.log.read([">"])]
        with pytest.raises(NoStream):
            await anext(bus.log.follow([">"]))
        with pytest.raises(NoStream):
            await bus.log.matching_sure(["x"])


async def test_patience_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, bus_on(server, "t", patience_s=1.0) as bus:
        await write(bus, 1)
        await server.stop()

        async def read() -> None:
            [entry async for entry in bus.log.read([">"])]

        reads = (
            bus.log.last("x"),
            bus.log.last_sure("x"),
            bus.log.at(1),
            bus.log.at_sure(1),
            bus.log.run("r"),
            bus.log.run_sure("r"),
            read(),
            anext(bus.log.follow([">"])),
            bus.timers.cancel("a", "r", "s"),
            bus.timers.list(),
        )
        started = time.monotonic()
        errors = await asyncio.gather(*reads, return_exceptions=True)
        lasted_s = time.monotonic() - started
        await server.restart()
        await until(lambda: bus.nc.is_connected)
        assert {type(error) for error in errors} == {BusUnavailable}
        assert lasted_s < 3.0


async def test_reads_do_not_differ_in_family_or_form(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gets, "BATCH_BYTES", 1_000)  # so that there are pages
    async with bus_on(server, namespace) as bus:
        await write(bus, 50)
        await write(bus, 5, run="other")
        everything = await bus.log.run("r")
        subjects = [entry.subject for entry in everything]

        assert len(everything) == 50
        assert everything == await bus.log.run_sure("r") == await bus.log.run_sure("r", ["m"])
        assert everything == await bus.log.matching(subjects) == await bus.log.matching_sure(subjects)
        assert everything == [entry async for entry in bus.log.read(subjects)]
        assert everything[-1] == await bus.log.last_sure(subjects[-1]) == await bus.log.taken(subjects[-1])
        assert everything[-1] == await bus.log.last_sure(bus.subjects.run("r")) == await bus.log.at_sure(50)
        assert await bus.log.at_sure(56) is None
        assert await bus.log.matching_sure(["x"]) == []
        assert await bus.log.bounds() == (1, 55)


async def test_subject_that_was_taken_and_is_purged_is_not_waited_for(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        async with asyncio.timeout(5):
            with pytest.raises(BusUnavailable):
                await bus.log.taken(bus.subjects.result("f", "r"))


async def test_message_as_large_as_the_server_takes_is_read_by_the_leaders_word(
    server: NatsServer, namespace: str
) -> None:
    async with bus_on(server, namespace) as bus:
        body = b"x" * (bus.nc.max_payload - 200)
        seq = await bus.publisher.create(bus.subjects.task("f"), body)
        stored = await bus.log.last_sure(bus.subjects.task("f"))
        assert stored is not None
        assert (stored.seq, stored.data) == (seq, body)


async def test_ten_thousand_messages_of_a_run_are_read_fast(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        await write(bus, 10_000)
        fastest_s = 9.0
        for _ in range(3):
            started = time.perf_counter()
            assert len(await bus.log.run_sure("r", ["m"], 1)) == 10_000
            fastest_s = min(fastest_s, time.perf_counter() - started)
        assert fastest_s < 1.0  # 0.2 s on an idle machine


def test_matcher_matches_as_the_server_does() -> None:
    matches = matcher(["a.*.c", "a.>", "b.c", "x.*"])
    assert [bool(matches(subject)) for subject in ("a.b.c", "a.b", "a", "b.c", "b.cc", "x.y", "x.y.z", "b+c")] == [
        *(True, True, False),
        *(True, False),
        *(True, False),
        False,
    ]
