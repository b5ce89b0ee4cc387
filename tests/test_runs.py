"""Finding runs in a log, and watching one as it happens."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from baton_bus import Settings, connect
from baton_bus.client import runs as runs_module
from baton_bus.client.runs import AmbiguousRun, find_run, read_last, read_run, recent_runs
from baton_bus.client.watching import Running, watch_all
from baton_bus.errors import UnknownRun
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Result
from baton_schemas.wire.words import Word

from .clients import cancel_run, start_run
from .servers import WAIT_S, NatsServer

PLAN = check_flow(
    Flow(name="ask", input={"q": Field()}, agents={"a": Agent(handler="m:f")}, steps={"answer": Step(agent="a")})
)

OTHER = check_flow(msgspec.structs.replace(PLAN.flow, name="other"))


def settings(server: NatsServer, namespace: str) -> Settings:
    return Settings(url=server.url, namespace=namespace)


async def submit(bus: Bus, *runs: str) -> None:
    for run in runs:
        await start_run(bus, PLAN, {"q": "?"}, run=run)


async def test_runs_come_from_the_newest_however_far_back_they_are(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "_WINDOW", 3)
    async with open_bus(settings(server, namespace)) as bus:
        assert await recent_runs(bus, 5) == []
        await submit(bus, *(f"r{number}" for number in range(20)))
        await cancel_run(bus, "r3", "enough")
        heads = await recent_runs(bus, 100)
        assert [head.run for head in heads] == [f"r{number}" for number in reversed(range(20))]
        assert {head.run for head in heads if head.status == "cancelled"} == {"r3"}
        assert [head.run for head in await recent_runs(bus, 2)] == ["r19", "r18"]


async def test_runs_are_those_of_a_flow_or_that_stand_so(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "_WINDOW", 3)
    async with connect(settings(server, namespace)) as client:
        for number in range(6):
            await client.start(OTHER if number % 2 else PLAN, q="?", run_id=f"r{number}")
        for run in ("r0", "r1", "r4"):
            await client.run(run).cancel()
        assert [head.run for head in await client.runs(flow="ask")] == ["r4", "r2", "r0"]
        assert [head.run for head in await client.runs(status="running")] == ["r5", "r3", "r2"]
        assert [head.run for head in await client.runs(flow="ask", status="cancelled")] == ["r4", "r0"]
        assert [head.run for head in await client.runs(1, flow="other")] == ["r5"]
        assert await client.runs(flow="none") == []
        with pytest.raises(ValueError, match="finished"):
            await client.runs(status="finished")  # type: ignore[arg-type]


async def test_run_is_found_by_id_start_or_end_and_the_latest_without(server: NatsServer, namespace: str) -> None:
    async with open_bus(settings(server, namespace)) as bus:
        await submit(bus, "day-one", "day-two", "day")
        assert (await find_run(bus, "day")).run == "day"
        assert (await find_run(bus, "one")).run == "day-one"
        assert (await find_run(bus)).run == "day"
        with pytest.raises(AmbiguousRun) as several:
            await find_run(bus, "da")
        assert several.value.runs == ["day", "day-two", "day-one"]
        with pytest.raises(UnknownRun):
            await find_run(bus, "night")


async def test_run_is_read_with_its_result(server: NatsServer, namespace: str) -> None:
    async with open_bus(settings(server, namespace)) as bus:
        await submit(bus, "a", "b")
        await cancel_run(bus, "a")
        head = await find_run(bus, "a")
        assert (head.flow, head.actors, head.status, head.start_seq) == ("ask", ("ask--a",), "cancelled", 1)
        read = await read_run(bus, head)
        assert [entry.seq for entry in read] == [1, 3]
        assert fold(await read_last(bus, head)) == fold(read)


async def test_watcher_hears_who_is_at_work_and_stops_at_the_result(server: NatsServer, namespace: str) -> None:
    async with open_bus(settings(server, namespace)) as bus:
        await submit(bus, "a")
        heard: list[Entry | Running | Word] = []
        async with asyncio.timeout(WAIT_S):
            async for event in watch_all(bus, "a"):
                heard.append(event)
                if len(heard) == 1:
                    await bus.say(bus.subjects.live("a", "running", "answer"), b'{"attempt":2}')
                elif isinstance(event, Running):
                    await cancel_run(bus, "a")
        assert heard[1] == Running(step="answer", attempt=2)
        assert isinstance(heard[2], Entry)
        assert isinstance(heard[2].message, Result)
        assert len(heard) == 3
