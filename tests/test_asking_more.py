"""Asking under adversity: what is refused, what a handler asks otherwise when it runs again, and deaths in between."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest
from msgspec import Raw

from baton_actors import Context
from baton_actors.agents.asks import AskFailed, AskRefused
from baton_actors.steps.asking import StepAsks
from baton_actors.steps.children import Children
from baton_actors.steps.parking import Parking
from baton_actors.steps.waiting import Waiting
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.facts import Unasked
from baton_schemas.wire.outcomes import Failed

from .clients import cancel_run
from .servers import NatsServer, until
from .team import flow_of, team, value_of
from .test_asking import TOPIC, Helper, asking, children, parked
from .timed import TEXT, process, timed

REFUSED: dict[str, tuple[Any, str]] = {
    "nobody of that name": (lambda c: c.ask("helpr", topic="a"), "Did you mean 'helper'"),
    "no worker of it": (lambda c: c.ask("boss", topic="a"), "none of its workers"),
    "an argument too many": (lambda c: c.ask("helper", topic="a", more=1), "no such input"),
    "an argument too few": (lambda c: c.ask("helper"), "missing; expected str"),
    "a wrong type": (lambda c: c.ask("helper", topic=7), "found the number 7; expected str"),
    "no JSON": (lambda c: c.ask("helper", topic=object()), "cannot be JSON"),
    "half a character": (lambda c: c.ask("helper", topic="\ud800"), "lone surrogate"),
    "not a number": (lambda c: c.sleep(float("nan")), "expected seconds"),
    "a sleep of a lifetime": (lambda c: c.sleep(1e12), "a year"),
    "no time at all": (lambda c: c.ask("helper", topic="a", deadline_s=0), "expected seconds"),
    "a name that is none": (lambda c: c.record("", lambda: 1), "expected a text"),
    "what is no JSON": (lambda c: c.record("set", lambda: {1, object()}), "cannot be recorded"),
    "an answer of another type": (lambda c: c.ask("helper", topic="a", returns=int), "does not fit `returns`"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_asked_is_refused_with_what_to_do(server: NatsServer, namespace: str, what: str) -> None:
    ask, said = REFUSED[what]

    async def boss(text: str, context: Context) -> str:
        try:
            await ask(context)
        except AskRefused as error:
            return str(error)
        return "not refused"

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": Helper().helper}) as t:
        assert said in value_of((await t.run(text="a")).outcome)


async def test_too_many_and_too_deep_are_refused(server: NatsServer, namespace: str) -> None:
    async def boss(context: Context, text: str = "", topic: str = "") -> Any:
        if text == "many":
            try:
                return await context.gather(*(context.ask("helper", topic=str(number)) for number in range(5)))
            except AskRefused as error:
                return str(error)
        try:
            return await context.ask("boss", topic=topic + "+")
        except AskRefused as error:
            return str(error)

    more: dict[str, Any] = {"workers": ["helper", "boss"], "input": TOPIC, "max_asks": 4, "max_depth": 3}
    flow = asking(**more, reads=["text"])
    async with team(server.url, namespace, flow, {"boss": boss, "helper": Helper().helper}) as t:
        assert "after 4 others: max_asks" in value_of((await t.run(text="many")).outcome)
        assert "at a depth of 4: max_depth" in value_of((await t.run(text="deep")).outcome)


async def test_handler_that_asks_otherwise_each_time_is_told_the_remedy(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> Any:
        return await context.gather(
            *(context.ask("helper", topic=f"{random.random()} {each}") for each in ("quick", "slow"))
        )

    async def helper(topic: str) -> str:
        if topic.endswith("slow"):
            await asyncio.sleep(0.4)
        return topic

    flow = asking(park_after_s=0.1)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper}) as t:
        run = await t.submit(text="a")
        result = await t.result(run)
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.type == "AskRefused"
        assert "context.record" in result.outcome.error.message
        assert len(await children(t, run)) <= 10


async def test_what_is_not_asked_again_is_noted(server: NatsServer, namespace: str) -> None:
    attempts: list[int] = []

    async def boss(text: str, context: Context) -> str:
        attempts.append(context.attempt)
        answer = await context.ask("helper", topic="old" if len(attempts) == 1 else "new")
        if len(attempts) == 1:
            raise RuntimeError("again")
        return str(answer)

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": Helper().helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "NEW"
        (unasked,) = [fact for fact in await t.facts(run) if isinstance(fact, Unasked)]
        assert unasked.count == 1
        assert (await t.state(run)).steps["lead"].unasked == 1


async def test_order_of_coroutines_does_not_matter(server: NatsServer, namespace: str) -> None:
    attempts: list[int] = []

    async def boss(text: str, context: Context) -> list[str]:
        attempts.append(1)

        async def one(number: int) -> str:
            await asyncio.sleep(random.random() / 50)
            first = await context.ask("helper", topic=f"{number}")
            return str(await context.ask("helper", topic=f"{first} again"))

        found = await asyncio.gather(*map(one, range(8)))
        if len(attempts) < 3:
            raise RuntimeError("again")
        return list(found)

    helper = Helper()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == [f"{number} AGAIN" for number in range(8)]
        assert len(helper.asked) == 16


async def test_cancelled_run_cancels_its_children_and_what_waits(server: NatsServer, namespace: str) -> None:
    ended: list[str] = []

    async def boss(text: str, context: Context) -> str:
        try:
            return str(await context.ask("helper", topic="x"))
        except asyncio.CancelledError:
            ended.append("boss")
            raise

    async def helper(topic: str) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("helper")
            raise
        return topic

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper}) as t:
        run = await t.submit(text="a")
        async with asyncio.timeout(10):
            while not await children(t, run):  # noqa: ASYNC110 (the broker sets no event of ours)
                await asyncio.sleep(0.01)
        await cancel_run(t.bus, run)
        await until(lambda: sorted(ended) == ["boss", "helper"])
        await t.until_settled("handoff", "boss")
        await t.until_settled("handoff", "helper")


async def test_run_that_is_done_cancels_what_nobody_waits_for_any_more(server: NatsServer, namespace: str) -> None:
    """Its asker went on without it, as its time was up."""
    ended: list[str] = []

    async def boss(text: str, context: Context) -> str:
        try:
            return str(await context.ask("helper", topic="x", deadline_s=0.3))
        except AskFailed as error:
            return error.error.type

    async def helper(topic: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(topic)
        return topic

    async with timed(server, namespace, asking(), {"boss": boss, "helper": helper}) as t:
        assert value_of((await t.run(text="a")).outcome) == "DeadlinePassed"
        await until(lambda: ended)
        await t.until_settled("handoff", "helper")


async def test_worker_that_stops_gives_back_what_waits_at_once(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic="slow"))

    helper = Helper()
    async with timed(server, namespace, asking(), {"boss": boss, "helper": helper.helper}, start=False) as t:
        async with t.process("boss", grace_s=60.0):
            run = await t.submit(text="a")
            async with asyncio.timeout(10):
                while not await children(t, run):  # noqa: ASYNC110 (the broker sets no event of ours)
                    await asyncio.sleep(0.01)
        helper.open.set()
        async with process(t, "boss", "helper"):
            assert value_of((await t.result(run)).outcome) == "SLOW"
        assert helper.asked == ["slow"]


async def test_time_out_stands_still_while_a_handler_waits(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        await context.sleep(0.7)
        if text == "busy":
            await asyncio.Event().wait()
        return "done"

    def plain(text: str, context: Context) -> str:
        context.sleep(0.7)
        return "done"

    agents: dict[str, Any] = {"boss": {"timeout_s": 0.4, "max_attempts": 1}, "plain": {"timeout_s": 0.4}}
    steps = {"lead": Step(agent="boss"), "then": Step(agent="plain", after=["lead"])}
    flow = flow_of(steps, TEXT, agents)
    async with team(server.url, namespace, flow, {"boss": boss, "plain": plain}) as t:
        assert value_of((await t.run(text="a")).outcome) == "done"
        result = await t.run(text="busy")
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.type == "Timeout"


async def test_parked_step_leaves_nothing_in_its_worker(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic="slow"))

    flow = asking(park_after_s=0.05)
    helper = Helper()
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper.helper}) as t:
        runs = [await t.submit(text=str(number)) for number in range(20)]
        await t.until_settled("handoff", "boss")
        assert [len(await parked(t, run)) for run in runs] == [1] * 20
        await asyncio.sleep(0)
        gc.collect()
        left = [found._job for found in gc.get_objects() if type(found) in (StepAsks, Children, Waiting, Parking)]
        assert not [job for job in left if job.run in runs and job.step == "lead"]
        helper.open.set()
        for run in runs:
            assert value_of((await t.result(run)).outcome) == "SLOW"


async def test_large_arguments_and_answers_go_beside_the_log(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> int:
        return len(await context.ask("helper", topic="x" * 600_000))

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": Helper().helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == 600_000
        assert max(len(entry.data) for entry in await t.log(run)) < 300_000


async def test_default_of_an_input_is_given(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    async def helper(topic: str, loud: bool) -> str:
        return topic.upper() if loud else topic

    agents: dict[str, Any] = {
        "boss": {"workers": ["helper"]},
        "helper": {"input": {"topic": Field(), "loud": Field(type="bool", default=Raw(b"true"))}},
    }
    flow = flow_of({"lead": Step(agent="boss")}, TEXT, agents)
    async with team(server.url, namespace, flow, {"boss": boss, "helper": helper}) as t:
        assert value_of((await t.run(text="a")).outcome) == "A"
