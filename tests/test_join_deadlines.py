"""Deadlines of joins: kept by the broker, with every worker dead, and cancelled when not needed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from baton_schemas.flow.flow import JoinPolicy, Step
from baton_schemas.wire.messages import Joined
from baton_schemas.wire.outcomes import Failed

from .clients import cancel_run
from .servers import NatsServer, until
from .team import branches_of, flow_of, value_of
from .timed import (
    NEVER_S,
    SOON_S,
    TEXT,
    Gate,
    closing_of,
    merge,
    over_texts,
    process,
    timed,
    until_replied,
    until_taken,
    until_timers,
)


async def test_join_closes_at_its_deadline_with_the_branches_that_are_there(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    async with timed(server, namespace, over_texts(SOON_S), {"branch": gate.branch, "merge": merge}) as t:
        run = await t.submit(texts=["a", "slow", "b"], title="t")

        assert value_of((await t.result(run)).outcome) == ["t", "A", "B"]
        closing = await closing_of(t, run, "merge")
        assert branches_of(closing) == ["each-0", "each-2"]
        assert isinstance(closing.cause, Joined)
        assert closing.cause.deadline
        await until(lambda: gate.cancelled == ["slow"])


async def test_branches_that_wait_when_the_deadline_ends_the_run_never_start(
    server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    flow = over_texts(SOON_S)
    flow = replace(flow, agents=flow.agents | {"branch": replace(flow.agents["branch"], concurrency=1)})
    async with timed(server, namespace, flow, {"branch": gate.branch, "merge": merge}) as t:
        run = await t.submit(texts=["slow", "a", "b"], title="t")

        assert value_of((await t.result(run)).outcome) == ["t"]
        await t.until_settled("handoff", "branch")
        assert gate.started == ["slow"]


async def test_deadline_passes_with_every_worker_dead(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    handlers = {"branch": gate.branch, "merge": merge}
    async with timed(server, namespace, over_texts(SOON_S), handlers, start=False) as t:
        async with t.process(grace_s=0.05):
            run = await t.submit(texts=["a", "slow", "b"], title="t")
            await until_replied(t, run, 2)
        (due,) = await until_timers(t, "due", 1)
        assert due.endswith(f".{run}.merge")
        assert await t.bus.log.matching([t.bus.subjects.result("flow", run)]) == []
        async with process(t):
            assert value_of((await t.result(run)).outcome) == ["t", "A", "B"]


async def test_join_that_closes_in_time_cancels_its_timer(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    async with timed(server, namespace, over_texts(NEVER_S), {"branch": gate.branch, "merge": merge}) as t:
        run = await t.submit(texts=["a", "slow", "b"], title="t")
        (timer,) = await until_timers(t, "timer", 1)
        assert timer.endswith(f".{run}.merge")
        gate.open.set()

        assert value_of((await t.result(run)).outcome) == ["t", "A", "SLOW", "B"]
        await until_timers(t, "*", 0)


async def test_reply_after_the_deadline_is_kept_acked_and_shown_as_late(server: NatsServer, namespace: str) -> None:
    gate, go_on = Gate(), asyncio.Event()

    async def waits(each: list[str], title: str) -> list[str]:
        gate.open.set()
        await go_on.wait()
        return each

    async with timed(server, namespace, over_texts(SOON_S), {"branch": gate.branch, "merge": waits}) as t:
        run = await t.submit(texts=["a", "slow"], title="t")
        await gate.open.wait()
        await t.until_settled("handoff", "branch")
        await t.until_settled("reply", "merge")
        go_on.set()

        assert value_of((await t.result(run)).outcome) == ["A"]
        state = await t.state(run)
        assert (state.late, state.steps["each-1"].status) == (["each-1"], "done")
        assert (state.steps["merge"].arrived, state.steps["merge"].expected) == (2, 2)


async def test_deadline_without_any_branch_gives_an_empty_list_and_what_was_carried(
    server: NatsServer, namespace: str
) -> None:
    gate = Gate()

    async def split(text: str) -> list[str]:
        return text.split()

    async def all_it_reads(text: str, split: list[str], each: list[str]) -> list[Any]:
        return [text, split, each]

    steps = {
        "split": Step(agent="split"),
        "each": Step(agent="branch", each="split"),
        "merge": Step(agent="merge", after=["each"], join=JoinPolicy(deadline_s=SOON_S)),
    }
    flow = flow_of(steps, TEXT, {"merge": {"reads": ["text", "split", "each"]}})
    handlers = {"split": split, "branch": gate.branch, "merge": all_it_reads}
    async with timed(server, namespace, flow, handlers) as t:
        result = await t.run(text="slow slow")
        assert value_of(result.outcome) == ["slow slow", ["slow", "slow"], []]


async def test_deadline_with_too_few_branches_fails_the_step_without_its_handler(
    server: NatsServer, namespace: str
) -> None:
    gate, merged = Gate(), []

    async def notes_it(each: list[str]) -> None:
        merged.append(each)

    async with timed(
        server, namespace, over_texts(SOON_S, min_done=1), {"branch": gate.branch, "merge": notes_it}
    ) as t:
        result = await t.run(texts=["slow"], title="t")

        assert (result.status, result.step) == ("failed", "merge")
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.type == "JoinShort"
        assert merged == []


async def test_join_after_joins_has_its_deadline_too(server: NatsServer, namespace: str) -> None:
    async def echo(text: str) -> str:
        return text

    async def pair(a: str, b: str) -> str:
        return a + b

    async def slow(c: str, d: str) -> str:
        await asyncio.Event().wait()
        return ""

    async def both(one: str = "none", two: str = "none", text: str = "none") -> list[str]:
        return [one, two, text]

    steps = {
        "a": Step(agent="echo"),
        "b": Step(agent="echo"),
        "one": Step(agent="pair", after=["a", "b"]),
        "c": Step(agent="echo"),
        "d": Step(agent="echo"),
        "two": Step(agent="slow", after=["c", "d"]),
        "both": Step(agent="both", after=["one", "two"], join=JoinPolicy(deadline_s=SOON_S)),
    }
    handlers = {"echo": echo, "pair": pair, "slow": slow, "both": both}
    async with timed(server, namespace, flow_of(steps, TEXT), handlers) as t:
        assert value_of((await t.run(text="x")).outcome) == ["xx", "none", "x"]


@pytest.mark.parametrize("due_first", [True, False])
async def test_deadline_of_a_join_starts_nothing_in_a_run_that_has_ended(
    due_first: bool, server: NatsServer, namespace: str
) -> None:
    gate, merged = Gate(), []

    async def notes_it(each: list[str]) -> None:
        merged.append(each)

    handlers = {"branch": gate.branch, "merge": notes_it}
    async with timed(server, namespace, over_texts(SOON_S), handlers, start=False) as t:
        async with t.process("branch", grace_s=0.05):
            run = await t.submit(texts=["a", "slow"], title="t")
            await until_replied(t, run, 1)
            await cancel_run(t.client, run)
        if due_first:
            await until_timers(t, "due", 1)
        async with process(t, "merge"):
            await until_taken(t, 1)
            await t.until_settled("reply", "merge")
            await t.until_settled("handoff", "merge")
        assert merged == []
