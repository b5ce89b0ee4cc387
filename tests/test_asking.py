"""Asking from a handler: children that are found again, whatever order or worker comes to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from baton_actors import Context
from baton_actors.agents.asks import AskFailed
from baton_schemas.flow.flow import Field, Flow, Step
from baton_schemas.wire.messages import Answer, Asked, Handoff, Parked
from baton_schemas.wire.outcomes import Failed

from .servers import NatsServer
from .team import Team, flow_of, team, value_of
from .timed import TEXT, process, timed

TOPIC = {"topic": Field()}


def asking(**boss: Any) -> Flow:
    """A boss that may ask a helper, and itself."""
    agents: dict[str, Any] = {"boss": {"workers": ["helper"], **boss}, "helper": {"input": TOPIC}}
    return flow_of({"lead": Step(agent="boss")}, TEXT, agents)


class Helper:
    """Answers in capitals; holds what is called `slow` until it is let through, and fails at what is called `bad`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = asyncio.Event()

    async def helper(self, topic: str) -> str:
        self.asked.append(topic)
        if topic.startswith("bad"):
            raise ValueError(topic)
        if topic.startswith("slow"):
            await self.open.wait()
        return topic.upper()


async def children(t: Team, run: str) -> list[str]:
    """The tokens of what was asked, in the order of the log."""
    messages = [entry.message for entry in await t.log(run)]
    return [each.step for each in messages if isinstance(each, Handoff) and isinstance(each.cause, Asked)]


async def answers(t: Team, run: str) -> list[Answer]:
    return [entry.message for entry in await t.log(run) if isinstance(entry.message, Answer)]


async def parked(t: Team, run: str) -> list[Parked]:
    return [entry.message for entry in await t.log(run) if isinstance(entry.message, Parked)]


async def test_what_is_asked_is_answered(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> list[str]:
        first = await context.ask("helper", topic=text)
        return [first, await context.ask("helper", topic=first + "!")]

    helper = Helper()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == ["A", "A!"]
        assert helper.asked == ["a", "A!"]
        assert len(set(await children(t, run))) == 2
        assert await t.kinds(run) == ["handoff", "handoff", "answer", "handoff", "answer", "result"]


async def test_many_are_asked_at_once_and_come_back_in_order(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> list[str]:
        asked = [context.ask("helper", topic=f"{text}{number}") for number in range(50)]
        return list(await context.gather(*asked))

    helper = Helper()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == [f"A{number}" for number in range(50)]


async def test_same_question_twice_is_two_questions(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> list[str]:
        return list(await context.gather(("helper", {"topic": text}), ("helper", {"topic": text})))

    helper = Helper()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == ["A", "A"]
        assert helper.asked == ["a", "a"]


async def test_plain_handler_asks_and_blocks_its_thread(server: NatsServer, namespace: str) -> None:
    def boss(text: str, context: Context) -> list[Any]:
        one = context.ask("helper", topic=text, returns=str)
        both = context.gather(("helper", {"topic": "b"}), ("helper", {"topic": "bad"}), failed="return")
        context.sleep(0.01)
        drawn = context.record("number", lambda: 7)
        return [one, both[0], isinstance(both[1], AskFailed), drawn]

    helper = Helper()
    flow = asking()
    async with team(server.url, namespace, flow, {"boss": boss, "helper": helper.helper}) as t:
        assert value_of((await t.run(text="a")).outcome) == ["A", "B", True, 7]


async def test_failed_child_is_an_error_that_may_be_caught(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        try:
            await context.ask("helper", topic=text)
        except AskFailed as error:
            return f"{error.who}: {error.error.type} after {error.error.attempts}"
        return "no"

    helper = Helper()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        assert value_of((await t.run(text="bad")).outcome) == "helper: ValueError after 3"


async def test_failed_child_that_is_not_caught_fails_the_step_at_once(server: NatsServer, namespace: str) -> None:
    calls = []

    async def boss(text: str, context: Context) -> str:
        calls.append(text)
        return str(await context.ask("helper", topic=text))

    helper = Helper()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        result = await t.run(text="bad")
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.type == "AskFailed"
        assert "ValueError" in result.outcome.error.message
        assert calls == ["bad"]


async def test_step_that_is_done_again_finds_what_it_asked(server: NatsServer, namespace: str) -> None:
    calls: list[int] = []

    async def boss(text: str, context: Context) -> list[Any]:
        calls.append(context.attempt)
        number = await context.record("number", lambda: len(calls))
        found = await context.gather(*(context.ask("helper", topic=f"{text}{each}") for each in range(3)))
        if len(calls) < 3:
            raise RuntimeError("again")
        return [number, *found]

    helper = Helper()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == [1, "A0", "A1", "A2"]
        assert sorted(helper.asked) == ["a0", "a1", "a2"]
        assert calls == [1, 2, 3]


async def test_waiting_holds_no_place_and_an_agent_may_ask_itself(server: NatsServer, namespace: str) -> None:
    async def boss(context: Context, text: str = "", topic: str = "") -> str:
        here = text or topic
        return here if len(here) >= 6 else str(await context.ask("boss", topic=here + "+"))

    agents: dict[str, Any] = {
        "boss": {"workers": ["boss"], "input": TOPIC, "concurrency": 1, "max_in_flight": 1, "reads": ["text"]}
    }
    flow = flow_of({"lead": Step(agent="boss")}, TEXT, agents)
    async with team(server.url, namespace, flow, {"boss": boss}) as t:
        assert value_of((await t.run(text="a")).outcome) == "a+++++"


async def test_step_that_waits_long_is_parked_and_comes_back(server: NatsServer, namespace: str) -> None:
    calls: list[str] = []

    async def boss(text: str, context: Context) -> list[str]:
        calls.append(text)
        return [await context.ask("helper", topic="quick"), await context.ask("helper", topic="slow")]

    helper = Helper()
    flow = asking(park_after_s=0.2)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        assert len(await parked(t, run)) == 1
        assert (await t.state(run)).steps["lead"].waits == "an answer of helper"
        helper.open.set()
        assert value_of((await t.result(run)).outcome) == ["QUICK", "SLOW"]
        assert calls == ["a", "a"]
        assert helper.asked == ["quick", "slow"]
        (woke,) = [answer for answer in await answers(t, run) if answer.wakes]
        assert woke.child.startswith("helper--k")


async def test_plain_handler_is_parked_too(server: NatsServer, namespace: str) -> None:
    calls: list[str] = []

    def boss(text: str, context: Context) -> list[str]:
        calls.append(text)
        return [context.ask("helper", topic="quick"), context.ask("helper", topic="slow")]

    helper = Helper()
    async with timed(server, namespace, asking(park_after_s=0.2), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        assert len(await parked(t, run)) == 1
        helper.open.set()
        assert value_of((await t.result(run)).outcome) == ["QUICK", "SLOW"]
        assert calls == ["a", "a"]


async def test_parked_step_outlives_its_worker(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic="slow" + text))

    helper = Helper()
    flow = asking(park_after_s=0.1)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper.helper}, start=False) as t:
        async with process(t, "boss"):
            run = await t.submit(text="a")
            await t.until_settled("handoff", "boss")
        helper.open.set()
        async with process(t, "helper", "boss"):
            assert value_of((await t.result(run)).outcome) == "SLOWA"


@pytest.mark.parametrize("seconds", [0.3, 0.9])
async def test_sleep_is_kept_or_parked(server: NatsServer, namespace: str, seconds: float) -> None:
    async def boss(text: str, context: Context) -> str:
        before = await context.record("before", asyncio.get_running_loop().time)
        await context.sleep(seconds)
        return str(asyncio.get_running_loop().time() - before >= seconds)

    flow = asking(park_after_s=0.5)
    async with timed(server, namespace, flow, {"boss": boss, "helper": Helper().helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "True"
        assert len(await parked(t, run)) == (seconds > 0.5)


async def test_nobody_answers_in_time(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        try:
            return str(await context.ask("helper", topic="slow", deadline_s=0.3))
        except AskFailed as error:
            return error.error.type

    helper = Helper()
    async with timed(server, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        assert value_of((await t.run(text="a")).outcome) == "DeadlinePassed"
        helper.open.set()
        await t.until_settled("handoff", "helper")
