"""Forks of runs that fan out: only the branches that failed are redone, and joins close again from the copies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, JoinPolicy, Step
from baton_schemas.run.joins import Chain
from baton_schemas.wire.messages import Handoff, Reply
from baton_schemas.wire.outcomes import Done

from .calls import TEXT, Calls, fan_out, fork_of
from .clients import fork_run
from .servers import NatsServer
from .team import branches_of, flow_of, team, value_of
from .timed import until_replied

TEXTS = {"texts": Field(type="list[str]")}


async def test_only_the_branch_that_failed_is_redone_and_the_list_keeps_its_order(
    server: NatsServer, namespace: str
) -> None:
    calls = Calls("y")
    go_on = asyncio.Event()

    async def fails_last(item: str) -> str:
        if item == "y":
            await go_on.wait()
        return await calls.each(item)

    async with team(server.url, namespace, fan_out(), calls.all | {"each": fails_last}) as t:
        run = await t.submit(text="x y z")
        await until_replied(t, run, 2)
        go_on.set()
        assert (await t.result(run)).step == "each-1"
        calls.take()
        calls.broken.clear()
        forked = await fork_run(t.client, run)

        assert value_of((await t.result(forked)).outcome) == ["X", "Y", "Z"]
        assert calls.take() == {"y": 1, "merge": 1, "last": 1}
        (closing,) = [entry.message for entry in await t.log(forked) if entry.subject.endswith(".merge.join")]
        assert isinstance(closing, Handoff)
        assert branches_of(closing) == ["each-0", "each-1", "each-2"]


@pytest.mark.parametrize("broken", ["merge", "last"])
async def test_join_closes_again_but_only_what_failed_is_called(
    broken: str, server: NatsServer, namespace: str
) -> None:
    calls = Calls(broken)
    async with team(server.url, namespace, fan_out(), calls.all) as t:
        run = await t.submit(text="x y z")
        assert (await t.result(run)).step == broken
        calls.take()
        calls.broken.clear()
        assert value_of((await fork_of(t, run)).outcome) == ["X", "Y", "Z"]
        assert calls.take() == ({"merge": 1, "last": 1} if broken == "merge" else {"last": 1})


async def test_failures_that_did_not_end_the_run_are_kept(server: NatsServer, namespace: str) -> None:
    calls = Calls("y", "last")
    async with team(server.url, namespace, fan_out(on_error="continue"), calls.all) as t:
        run = await t.submit(text="x y z")
        assert (await t.result(run)).step == "last"
        calls.take()
        calls.broken.clear()
        assert value_of((await fork_of(t, run)).outcome) == ["X", "Z", "y is broken"]
        assert calls.take() == {"last": 1}


async def test_join_of_the_first_branches_is_not_merged_anew(server: NatsServer, namespace: str) -> None:
    calls = Calls("last")

    async def y_is_slow(item: str) -> str:
        if calls.broken and item == "y":
            await asyncio.Event().wait()
        return await calls.each(item)

    handlers = calls.all | {"each": y_is_slow}
    async with team(server.url, namespace, fan_out(JoinPolicy(wait=2)), handlers, start=False) as t:
        async with t.process(grace_s=0.05):
            run = await t.submit(text="x y z")
            assert (await t.result(run)).step == "last"
        calls.take()
        calls.broken.clear()
        forked = await fork_run(t.client, run)
        async with t.process("split", "each"):
            await until_replied(t, forked, 3)
        assert calls.take() == {"y": 1}
        async with t.process("merge", "last"):  # the branch that was not in the join comes with those that were
            assert value_of((await t.result(forked)).outcome) == ["X", "Z"]
        assert calls.take() == {"last": 1}


@pytest.mark.parametrize("names", [["one", "two"], ["two", "one"]])
async def test_run_with_several_first_steps_redoes_the_one_that_failed(
    names: list[str], server: NatsServer, namespace: str
) -> None:
    calls, go_on = Calls("two"), asyncio.Event()

    async def one(text: str) -> str:
        calls.note("one")
        return f"{text}1"

    async def two(text: str) -> str:
        await go_on.wait()
        calls.note("two")
        return f"{text}2"

    async def both(one: str, two: str) -> str:
        return one + two

    steps = {name: Step(agent=name) for name in names} | {"both": Step(agent="both", after=names)}
    async with team(server.url, namespace, flow_of(steps, TEXT), {"one": one, "two": two, "both": both}) as t:
        run = await t.submit(text="x")
        await until_replied(t, run, 1)
        go_on.set()
        assert (await t.result(run)).step == "two"
        calls.take()
        calls.broken.clear()
        assert value_of((await fork_of(t, run)).outcome) == "x1x2"
        assert calls.take() == {"two": 1}


@pytest.mark.parametrize("broken", ["x", "y"])
async def test_fan_out_over_the_input_redoes_the_branch_that_failed(
    broken: str, server: NatsServer, namespace: str
) -> None:
    calls, go_on = Calls(broken), asyncio.Event()

    async def fails_last(item: str) -> str:
        if item == broken:
            await go_on.wait()
        return await calls.each(item)

    steps = {"each": Step(agent="each", each="texts"), "merge": Step(agent="merge", after=["each"])}
    async with team(server.url, namespace, flow_of(steps, TEXTS), calls.all | {"each": fails_last}) as t:
        run = await t.submit(texts=["x", "y", "z"])
        await until_replied(t, run, 2)
        go_on.set()
        assert (await t.result(run)).status == "failed"
        calls.take()
        calls.broken.clear()
        assert value_of((await fork_of(t, run)).outcome) == ["X", "Y", "Z"]
        assert calls.take() == {broken: 1, "merge": 1}


@pytest.mark.parametrize("copied", [(True, False), (False, True), (True, True), (False, False)])
def test_join_with_a_copied_reply_says_that_its_step_may_be_done(copied: tuple[bool, bool]) -> None:
    plan = check_flow(fan_out(JoinPolicy(wait=2)))
    head: dict[str, Any] = {"flow": "flow", "digest": plan.digest, "run": "r", "step": "merge", "outcome": Done()}
    replies = [
        Reply(**head, source="each", index=index, count=3, each=True, copied=is_copied)
        for index, is_copied in enumerate(copied)
    ]
    together, apart = Chain(plan, replies[0]), Chain(plan, replies[0])
    for chain, batches in ((together, [replies]), (apart, [[reply] for reply in replies])):
        for batch in batches:
            link = chain.link(batch)
            assert link is not None
            chain.apply(link)
        assert chain.closed
    assert together.closing() == apart.closing()
    assert together.closing().copied == any(copied)
