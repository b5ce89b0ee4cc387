"""Three real servers on loopback: what a leader's death, a lagging replica and too few servers do to runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from baton_bus import Settings
from baton_bus.errors import BusUnavailable, NoLeader, TooFewServers
from baton_bus.store.bus import open_bus
from baton_schemas.flow.flow import Field, Flow, Step
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Result

from .clients import start_run
from .clusters import Cluster, cluster
from .servers import WAIT_S, nats_server, until
from .team import Team, assert_one_outcome_a_step, flow_of, team, value_of

RUNS = 200
FAN_OUTS = 4
RACES = 300


def chain() -> Flow:
    return flow_of(
        {"a": Step(agent="a"), "b": Step(agent="b", after=["a"]), "c": Step(agent="c", after=["b"])},
        {"text": Field()},
    )


def spread() -> Flow:
    steps = {
        "split": Step(agent="split"),
        "each": Step(agent="each", each="split"),
        "merge": Step(agent="merge", after=["each"]),
    }
    return flow_of(steps)


async def a(text: str) -> str:
    return f"{text}a"


async def b(a: str) -> str:
    return f"{a}b"


async def c(b: str) -> str:
    return f"{b}c"


async def split() -> list[int]:
    return list(range(20))


async def each(item: int) -> int:
    return item


async def merge(each: list[int]) -> list[int]:
    return each


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as servers:
        yield servers


async def test_every_run_ends_once_when_the_leader_of_the_log_is_killed_and_comes_back(three: Cluster) -> None:
    lone, many = {"a": a, "b": b, "c": c}, {"split": split, "each": each, "merge": merge}
    async with (
        team(three.url, "chain", chain(), lone, replicas=3, lease_s=2.0) as chains,
        team(three.url, "spread", spread(), many, replicas=3, lease_s=2.0) as spreads,
    ):
        results: list[Result] = []

        async def load(runs: range) -> None:
            for number in runs:
                run = await start_run(chains.client, chains.plan, {"text": str(number)}, run=f"r{number}")
                results.append(await chains.result(run))

        async with asyncio.TaskGroup() as group:
            for first in range(16):
                group.create_task(load(range(first, RUNS, 16)))
            joined = [group.create_task(spreads.run()) for _ in range(FAN_OUTS)]
            await until(lambda: len(results) >= RUNS // 4)
            killed = await three.leader("chain")
            await three.kill(killed)
        await three.start(killed)
        for log in ("chain", "spread"):
            await three.until_current(log)

        assert sorted(value_of(result.outcome) for result in results) == sorted(f"{n}abc" for n in range(RUNS))
        assert [value_of(task.result().outcome) for task in joined] == [list(range(20))] * FAN_OUTS
        logged = await whole_log(chains)
        assert len(logged) == RUNS
        for entries in logged.values():
            assert_one_outcome_a_step(entries)
            assert sum(isinstance(entry.message, Result) for entry in entries) == 1


async def test_two_writers_never_both_win_a_subject_and_the_loser_reads_what_won(three: Cluster) -> None:
    leader = await log_of_three(three)
    followers = [server.url for index, server in enumerate(three.servers) if index != leader]
    async with AsyncExitStack() as stack:
        left, right = [
            await stack.enter_async_context(open_bus(Settings(url=url, namespace="log", replicas=3)))
            for url in followers
        ]
        won = 0
        for number in range(RACES):
            if number == RACES // 2:
                await three.step_down("log")
            subject = left.subjects.join("merger", f"r{number}", "s", 1)
            bodies = (b"left", b"right")
            writing = (bus.publisher.create(subject, body) for bus, body in zip((left, right), bodies, strict=True))
            seqs = await asyncio.gather(*writing)
            winners = [body for seq, body in zip(seqs, bodies, strict=True) if seq is not None]
            read = await asyncio.gather(left.log.taken(subject), right.log.taken(subject))
            assert len(winners) <= 1
            assert read[0].data == read[1].data
            assert winners in ([], [read[0].data])
            won += len(winners)
        # Nobody wins where the answer was lost with the old leader, and the second try found the first.
        assert won > RACES * 0.9
        assert (await left.js.stream_info("log")).state.messages == RACES


async def test_reader_on_a_server_that_has_to_catch_up_gets_what_is_stored(three: Cluster) -> None:
    leader = await log_of_three(three)
    behind = (leader + 1) % 3
    await three.kill(behind)
    body = b"x" * 10_000
    async with open_bus(Settings(url=three.servers[leader].url, namespace="log", replicas=3)) as bus:
        for start in range(0, 3_000, 500):
            subjects = [bus.subjects.join("merger", f"r{number}", "s", 1) for number in range(start, start + 500)]
            await asyncio.gather(*(bus.publisher.create(subject, body) for subject in subjects))
        await three.start(behind)
        async with open_bus(Settings(url=three.servers[behind].url, namespace="log", replicas=3)) as reader:
            async with asyncio.timeout(WAIT_S):
                read = await asyncio.gather(*(reader.log.taken(subject) for subject in subjects))
        assert {entry.data for entry in read} == {body}


async def test_stream_with_fewer_replicas_than_the_setting_gets_as_many_and_never_fewer(three: Cluster) -> None:
    def settings(replicas: int) -> Settings:
        return Settings(url=three.url, namespace="log", replicas=replicas)

    async def replicas() -> list[int]:
        names = ("log", "log-timers", "log-blobs")
        return [(await three.ask(f"STREAM.INFO.{name}"))["config"]["num_replicas"] for name in names]

    async with open_bus(settings(1)) as bus:
        await bus.timers.ensure()
        blob = await bus.blobs.put(b"kept")
        assert await replicas() == [1, 1, 1]
    async with open_bus(settings(3)) as bus:
        await bus.timers.ensure()
        assert await bus.blobs.get(blob) == b"kept"
        assert await replicas() == [3, 3, 1]  # who only reads changes nothing
        await bus.blobs.put(b"kept")
        await three.until_current("log")
        assert await replicas() == [3, 3, 3]
    async with open_bus(settings(1)) as bus:
        await bus.timers.ensure()
        await bus.blobs.put(b"more")
        assert await replicas() == [3, 3, 3]


async def test_two_clients_with_other_replicas_make_one_stream(three: Cluster) -> None:
    async def connected(replicas: int) -> int:
        async with open_bus(Settings(url=three.url, namespace="log", replicas=replicas)) as bus:
            return (await bus.js.stream_info("log")).config.num_replicas or 0

    await asyncio.gather(connected(1), connected(3), connected(1), connected(3))
    assert (await three.ask("STREAM.INFO.log"))["config"]["num_replicas"] == 3


async def test_more_replicas_than_servers_are_refused_with_what_to_do(three: Cluster) -> None:
    told = r"'log' cannot have 5 replicas: no suitable peers.*BATON_REPLICAS\."
    with pytest.raises(TooFewServers, match=told) as caught:
        async with open_bus(Settings(url=three.url, namespace="log", replicas=5)):
            pass
    assert (caught.value.stream, caught.value.replicas, caught.value.placement) == ("log", 5, "")


async def test_placement_that_no_server_has_is_refused_and_one_that_fits_is_kept(tmp_path: Path) -> None:
    async with cluster(tmp_path, server_tags=["ssd", "az:1"]) as three:

        def settings(tags: str) -> Settings:
            return Settings(url=three.url, namespace="log", replicas=3, placement_cluster="team", placement_tags=tags)

        told = r"on servers with cluster team and tags hdd, az:1: .*BATON_PLACEMENT_TAGS"
        with pytest.raises(TooFewServers, match=told):
            async with open_bus(settings("hdd, az:1")):
                pass
        async with open_bus(settings("ssd,az:1")):
            placed = (await three.ask("STREAM.INFO.log"))["config"]["placement"]
        assert placed == {"cluster": "team", "tags": ["ssd", "az:1"]}


async def test_replicas_on_a_server_of_no_cluster_are_refused(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        with pytest.raises(TooFewServers, match="non-clustered"):
            async with open_bus(Settings(url=server.url, replicas=3)):
                pass


async def test_client_of_a_cluster_without_a_majority_is_told_so(three: Cluster) -> None:
    await asyncio.gather(three.kill(0), three.kill(1))
    alone = Settings(url=three.servers[2].url, replicas=3, patience_s=1.0)
    with pytest.raises(NoLeader, match="More than half of its servers must run"):
        async with open_bus(alone):
            pass


async def test_client_of_a_cluster_that_loses_its_majority_is_told_so_after_its_patience(three: Cluster) -> None:
    await log_of_three(three)
    async with open_bus(Settings(url=three.url, namespace="log", replicas=3)) as bus:
        await asyncio.gather(three.kill(0), three.kill(1))
        with pytest.raises(BusUnavailable, match="the same run id cannot start a second run"):
            await bus.publisher.create(bus.subjects.task("flow"), b"{}", patience_s=1.0)


async def log_of_three(three: Cluster) -> int:
    """Make a log with three replicas and return the index of its leader."""
    async with open_bus(Settings(url=three.url, namespace="log", replicas=3)):
        await three.until_current("log")
        return await three.leader("log")


async def whole_log(ours: Team) -> dict[str, list[Entry]]:
    """Every message by its run."""
    runs: dict[str, list[Entry]] = {}
    async for entry in ours.bus.log.read([f"{ours.bus.settings.namespace}.>"]):
        runs.setdefault(ours.bus.subjects.split(entry.subject).run, []).append(entry)
    return runs
