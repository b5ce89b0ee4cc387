"""Steps that wait hold nothing up: a long retry is parked with the broker, a missing handler is waited for."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace

from baton_actors.errors import Retry as AskAgain
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Flow, Step
from baton_schemas.wire.facts import Begun, Retry, Waits
from baton_schemas.wire.messages import Handoff, Woken
from baton_schemas.wire.outcomes import Done

from .clients import cancel_run
from .servers import NatsServer
from .team import Team, flow_of, value_of
from .timed import TEXT, process, timed, timers, until_taken, until_timers

LONG_S = 0.5
"""A wait that is parked in these tests; as a retry's wait it is a bit less than `retry_base_s`."""


@pytest.fixture(autouse=True)
def parks_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baton_actors.steps.failing.PARK_FROM_S", LONG_S / 4)
    monkeypatch.setattr("baton_actors.steps.failing.HANDLER_MISSING_MAX_S", LONG_S / 4)


def one(base_s: float, **more: Any) -> Flow:
    agent: dict[str, Any] = {"retry_base_s": base_s, "retry_max_s": base_s, "max_in_flight": 1, "concurrency": 1}
    return flow_of({"a": Step(agent="a")}, TEXT, {"a": agent | more})


class Unlucky:
    """A handler that fails at first for every text that begins with `bad`."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def a(self, text: str) -> str:
        self.calls.append(text)
        if text.startswith("bad") and self.calls.count(text) == 1:
            raise ValueError(text)
        return text


async def wakings(t: Team, run: str) -> list[Woken]:
    messages = [entry.message for entry in await t.log(run)]
    return [each.cause for each in messages if isinstance(each, Handoff) and isinstance(each.cause, Woken)]


async def test_step_that_waits_for_a_long_retry_holds_no_place(server: NatsServer, namespace: str) -> None:
    handler = Unlucky()
    async with timed(server, namespace, one(30.0), {"a": handler.a}) as t:
        waiting = [await t.submit(text=f"bad{number}") for number in range(3)]
        await until_timers(t, "timer", 3)
        assert value_of((await t.run(text="good")).outcome) == "good"

        for run in waiting:
            state = await t.state(run)
            assert (state.status, state.steps["a"].retries) == ("running", 1)
            await cancel_run(t.client, run)


async def test_parked_step_is_woken_when_its_time_has_come(server: NatsServer, namespace: str) -> None:
    handler = Unlucky()
    async with timed(server, namespace, one(LONG_S), {"a": handler.a}) as t:
        run = await t.submit(text="bad")
        result = await t.result(run)

        assert isinstance(result.outcome, Done)
        assert (value_of(result.outcome), result.outcome.work.attempt) == ("bad", 2)
        (woken,) = await wakings(t, run)
        first = (await t.log(run))[0]
        assert (woken.seq, woken.number, woken.why) == (first.seq, 1, "its retry")
        (retry,) = await t.facts(run)
        assert isinstance(retry, Retry)
        waited_s = (await t.log(run))[-1].at - first.at
        assert waited_s.total_seconds() >= retry.delay_s
        assert await timers(t, "timer") == []


@pytest.mark.parametrize("after_s", [LONG_S / 8, LONG_S], ids=["held", "parked"])
async def test_time_that_a_handler_asks_for_is_kept_to_50_ms_and_never_early(
    after_s: float, server: NatsServer, namespace: str
) -> None:
    asked: dict[str, float] = {}
    late_s: list[float] = []

    async def a(text: str) -> None:
        if text not in asked:
            await asyncio.sleep(int(text) * 0.03)  # the broker looks at its timers every 250 ms
            asked[text] = time.monotonic()
            raise AskAgain("not yet", after_s=after_s)
        late_s.append(time.monotonic() - asked[text] - after_s)

    agents = {"a": {"retry_base_s": 60.0, "retry_max_s": 60.0}}
    async with timed(server, namespace, flow_of({"a": Step(agent="a")}, TEXT, agents), {"a": a}) as t:
        for run in [await t.submit(text=str(number)) for number in range(9)]:
            await t.result(run)
    assert min(late_s) >= 0
    assert sorted(late_s)[len(late_s) // 2] <= 0.05


async def test_step_whose_time_came_with_every_worker_away_is_done_by_the_next(
    server: NatsServer, namespace: str
) -> None:
    handler = Unlucky()
    async with timed(server, namespace, one(LONG_S), {"a": handler.a}, start=False) as t:
        await t.bus.timers.ensure()
        async with t.process(grace_s=0.05):
            run = await t.submit(text="bad")
            await until_timers(t, "timer", 1)
        await until_timers(t, "due", 1)
        assert handler.calls == ["bad"]
        async with process(t):
            assert value_of((await t.result(run)).outcome) == "bad"
        assert handler.calls == ["bad", "bad"]


async def test_parked_step_of_a_run_that_was_cancelled_is_not_woken_to_be_done(
    server: NatsServer, namespace: str
) -> None:
    handler = Unlucky()
    async with timed(server, namespace, one(LONG_S), {"a": handler.a}) as t:
        run = await t.submit(text="bad")
        await until_timers(t, "timer", 1)
        await cancel_run(t.client, run)
        await until_taken(t, 1)
        await t.until_settled("handoff", "a")
        assert handler.calls == ["bad"]


async def test_waking_that_comes_twice_does_a_step_once(server: NatsServer, namespace: str) -> None:
    handler = Unlucky()
    async with timed(server, namespace, one(LONG_S), {"a": handler.a}) as t:
        run = await t.submit(text="bad")
        await t.result(run)
        await t.bus.js.delete_consumer(namespace, f"handoff-{t.actor('a')}")  # the next begins with the log
        await t.run(text="good")
        await t.until_settled("handoff", "a")
        assert handler.calls == ["bad", "bad", "good"]


# ---- a handler that is not there -----------------------------------------------------------------


async def test_step_whose_handler_no_worker_has_waits_free_of_charge_and_says_so_once(
    server: NatsServer, namespace: str
) -> None:
    handler = Unlucky()
    flow = one(0.02, max_attempts=1)
    async with timed(server, namespace, flow, {}) as t:  # its workers have older files
        run = await t.submit(text="x")
        await until_woken(t, run)
        state = await t.state(run)
        assert (state.status, state.steps["a"].attempts) == ("running", 0)
        assert "a worker that has 'team:a'" in state.steps["a"].waits
        async with Team(t.client, t.plan, {"a": handler.a}).process():
            result = await t.result(run)

        assert isinstance(result.outcome, Done)
        assert (value_of(result.outcome), result.outcome.work.attempt) == ("x", 1)
        waits = [fact for fact in await t.facts(run) if isinstance(fact, Waits)]
        assert {fact.what for fact in waits} == {"handler"}
        assert len({fact.number for fact in waits}) == len(waits)  # once, and once for each time that it was woken
        assert (await t.state(run)).steps["a"].waits == ""


async def test_step_that_waits_for_a_handler_kills_no_worker_and_is_charged_nothing(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_actors.steps.failing.PARK_FROM_S", 60.0)  # retries are given back to the broker
    async with timed(server, namespace, one(0.02, max_attempts=1), {}, lease_s=15) as t:
        run = await t.submit(text="x")
        await until_woken(t, run, 2)
        state = await t.state(run)
        assert (state.status, state.steps["a"].attempts) == ("running", 0)
        assert state.steps["a"].waits == "a worker that has 'team:a'"
        assert [fact for fact in await t.facts(run) if isinstance(fact, Begun)] == []
        await cancel_run(t.client, run)


async def test_run_of_a_renamed_handler_waits_while_others_of_its_actor_are_done(
    server: NatsServer, namespace: str
) -> None:
    handler = Unlucky()
    async with timed(server, namespace, one(0.02), {"a": handler.a}) as t:
        old = check_flow(renamed(t.plan.flow))
        run = (await t.client.start(old, text="x")).id
        await until_woken(t, run)
        assert value_of((await t.run(text="y")).outcome) == "y"
        knows_both = Team(t.client, old, {"old_name": handler.a})
        async with knows_both.process():
            assert value_of((await t.result(run)).outcome) == "x"


def renamed(flow: Flow) -> Flow:
    agent = replace(flow.agents["a"], handler="team:old_name")
    return replace(flow, agents={"a": agent})


async def until_woken(t: Team, run: str, times: int = 1) -> None:
    """Wait until a step was looked at again so many times: each time it has been parked, and was woken."""
    async with asyncio.timeout(20):
        while len(await wakings(t, run)) < times:  # noqa: ASYNC110 (the broker sets no event of ours)
            await asyncio.sleep(0.02)
