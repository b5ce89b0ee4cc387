"""A server that is killed in the middle of runs: all end, each with one result."""

from __future__ import annotations

import asyncio
from pathlib import Path

from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.messages import Result

from .servers import nats_server, until
from .team import flow_of, team, value_of

FLOW = flow_of(
    {
        "split": Step(agent="split"),
        "each": Step(agent="each", each="split"),
        "merge": Step(agent="merge", after=["each"]),
        "write": Step(agent="write", after=["merge"]),
    },
    {"text": Field()},
)


async def test_runs_go_on_when_the_server_is_killed_and_comes_back(tmp_path: Path) -> None:
    done: list[str] = []

    async def split(text: str) -> list[str]:
        return [f"{text}{index}" for index in range(4)]

    async def each(item: str) -> str:
        await asyncio.sleep(0.01)
        return item.upper()

    async def merge(each: list[str]) -> str:
        done.append(" ".join(each))
        return done[-1]

    async def write(merge: str) -> str:
        return merge

    async def until_joined(count: int) -> None:
        await until(lambda: len(done) >= count)

    handlers = {"split": split, "each": each, "merge": merge, "write": write}
    async with nats_server(tmp_path) as server, team(server.url, "t", FLOW, handlers, lease_s=1.0) as t:
        runs = [await t.submit(text=f"x{number}-") for number in range(40)]
        for count in (10, 25):
            await until_joined(count)
            assert len(done) < 40
            await server.kill()
            await server.restart()
        results = await asyncio.gather(*map(t.result, runs))

        for number, result in enumerate(results):
            assert value_of(result.outcome) == " ".join(f"X{number}-{index}" for index in range(4))
        for run in runs:
            assert len([entry for entry in await t.log(run) if isinstance(entry.message, Result)]) == 1


async def test_step_in_hand_is_recorded_when_the_server_is_away_as_it_ends(tmp_path: Path) -> None:
    calls: list[str] = []
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(text: str) -> str:
        calls.append(text)
        started.set()
        await go_on.wait()
        return text

    flow = flow_of({"a": Step(agent="a")}, {"text": Field()})
    async with nats_server(tmp_path) as server, team(server.url, "t", flow, {"a": slow}) as t:
        run = await t.submit(text="x")
        await started.wait()
        await server.kill()
        go_on.set()
        await server.restart()

        assert value_of((await t.result(run)).outcome) == "x"
        await t.until_settled("handoff", "a")
        assert calls == ["x"]
