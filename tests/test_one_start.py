"""One run id, one run: whatever its first step, its input, its flow, and whoever starts it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from msgspec.structs import replace

from baton_actors.services.steward import Steward
from baton_bus.engine.engine import Engine
from baton_bus.errors import RunExists
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import encode_input
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Task

from .clients import fork_run, start_run
from .servers import WAIT_S, NatsServer
from .team import Team, flow_of, kind_of, team, value_of

TEXT = {"text": Field()}
ONE = flow_of({"a": Step(agent="a")}, TEXT)
LISTS = {"texts": Field(type="list[str]"), "others": Field(type="list[str]")}


async def echo(text: str) -> str:
    return text


async def starts_of(t: Team, run: str) -> int:
    return len([entry for entry in await t.log(run) if entry.subject.endswith(".start")])


async def test_id_is_refused_after_the_first_step_was_renamed(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": echo}) as t:
        await t.submit("mine", text="x")
        renamed = check_flow(flow_of({"b": Step(agent="a")}, TEXT))
        with pytest.raises(RunExists, match="take another id"):
            await start_run(t.client, renamed, {"text": "x"}, run="mine")
        assert value_of((await t.result("mine")).outcome) == "x"
        assert await starts_of(t, "mine") == 1


async def test_id_is_refused_with_an_input_that_starts_elsewhere(server: NatsServer, namespace: str) -> None:
    async def same(item: str) -> str:
        return item

    async def merge(each: list[str]) -> list[str]:
        return each

    async def last(merge: list[str], other: list[str]) -> list[str]:
        return merge + other

    steps = {
        "each": Step(agent="same", each="texts"),
        "merge": Step(agent="merge", after=["each"]),
        "other": Step(agent="same", each="others"),
        "last": Step(agent="last", after=["merge", "other"]),
    }
    handlers = {"same": same, "merge": merge, "last": last}
    async with team(server.url, namespace, flow_of(steps, LISTS), handlers, start=False) as t:
        await t.submit("mine", texts=["a"], others=["b"])
        for texts in ([], ["a", "c"]):  # the first begins with the join, the second with the same branch
            with pytest.raises(RunExists):
                await t.submit("mine", texts=texts, others=["b"])
        assert await starts_of(t, "mine") == 1
        async with t.process():
            assert value_of((await t.result("mine")).outcome) == ["a", "b"]


async def test_id_is_refused_to_another_flow(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": echo}) as t:
        await t.submit("mine", text="x")
        with pytest.raises(RunExists):
            await start_run(t.client, other_flow(), {"text": "x"}, run="mine")
        assert value_of((await t.result("mine")).outcome) == "x"
        assert await starts_of(t, "mine") == 1


async def test_id_is_refused_to_a_fork(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": echo}) as t:
        await t.submit("origin", text="x")
        await t.submit("mine", text="y")
        for run in ("origin", "mine"):
            await t.result(run)
        with pytest.raises(RunExists):
            await fork_run(t.client, "origin", new_run="mine")
        assert value_of((await t.result("mine")).outcome) == "y"
        assert await starts_of(t, "mine") == 1


async def test_of_many_clients_that_start_one_id_in_other_ways_one_has_it(server: NatsServer, namespace: str) -> None:
    renamed = check_flow(flow_of({"b": Step(agent="a")}, TEXT))
    async with team(server.url, namespace, ONE, {"a": echo}, start=False) as t:
        ways = [(t.plan, "x"), (t.plan, "y"), (renamed, "x"), (other_flow(), "x")] * 5
        starting = (start_run(t.client, plan, {"text": text}, run="mine") for plan, text in ways)
        ended = await asyncio.gather(*starting, return_exceptions=True)
        assert [type(each) for each in ended if not isinstance(each, RunExists)] == [str] * 5
        assert await starts_of(t, "mine") == 1


async def test_task_with_the_id_of_another_flows_run_is_told_so_under_its_own_flow(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, ONE, {"a": echo}, start=False) as t:
        await t.submit("mine", text="x")
        body = encode(Task(input=encode_input({"text": "x"}), run="mine"))
        await t.bus.publisher.append(t.bus.subjects.task("other"), body)
        async with Steward(Engine(t.bus), {"other": other_flow()}).working():
            refused = await t.client.run("mine", "other").ended(WAIT_S)
        assert (refused.status, refused.flow) == ("failed", "other")
        assert "take another id" in refused.reason
        waiting = asyncio.create_task(t.client.run("mine").ended(WAIT_S))
        watching = asyncio.create_task(seen(t, "mine"))
        async with t.process():
            assert value_of((await t.result("mine")).outcome) == "x"
        assert await waiting == await t.result("mine") == await t.client.run("mine").ended(WAIT_S)
        assert await watching == ["handoff", "result", "result"]


async def seen(t: Team, run: str) -> list[str]:
    async with contextlib.aclosing(t.client.run(run).events()) as entries:
        return [kind_of(entry) async for entry in entries]


def other_flow() -> Plan:
    return check_flow(replace(ONE, name="other"))
