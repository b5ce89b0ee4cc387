"""How runs and workers end: cancelled handlers, dropped handoffs, and work given back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from baton_bus.errors import UnknownRun
from baton_schemas.flow.flow import Field, JoinPolicy, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import GivenBack
from baton_schemas.wire.messages import Result
from baton_schemas.wire.outcomes import Done

from .clients import cancel_run
from .servers import WAIT_S, NatsServer, until
from .team import Team, flow_of, team, value_of

TEXT = {"text": Field()}
ONE = {"a": Step(agent="a")}


class Gate:
    """A handler that waits until it is let through, and notes what befell it."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.open = asyncio.Event()

    async def handler(self, text: str) -> str:
        self.started.append(text)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        return text


async def until_nobody_pulls(t: Team, agent: str) -> None:
    """Wait until the server knows that the worker of an agent takes no more."""
    async with asyncio.timeout(WAIT_S):
        while True:
            info = await t.bus.js.consumer_info(t.bus.settings.namespace, f"handoff-{t.actor(agent)}")
            if not info.num_waiting:
                return
            await asyncio.sleep(0.01)


async def until_older(t: Team, run: str, age_s: float) -> None:
    """Wait until the first message of a run is older than this."""
    stored_at = (await t.log(run))[0].at.timestamp()
    await until(lambda: t.bus.now_s() - stored_at > age_s)


async def test_running_handler_of_a_cancelled_run_is_cancelled_within_a_second(
    server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    async with team(server.url, namespace, flow_of(ONE, TEXT), {"a": gate.handler}) as t:
        run = await t.submit(text="x")
        await until(lambda: gate.started)
        result = await cancel_run(t.client, run, "not needed")
        async with asyncio.timeout(1.0):
            await until(lambda: gate.cancelled)

        assert await t.result(run) == result
        assert (result.status, result.reason) == ("cancelled", "not needed")
        await t.until_settled("handoff", "a")
        assert await t.kinds(run) == ["handoff", "result"]
        assert gate.started == ["x"]


async def test_queued_handoffs_of_a_cancelled_run_are_dropped(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    async with team(server.url, namespace, flow_of(ONE, TEXT, {"a": {"concurrency": 1}}), {"a": gate.handler}) as t:
        first, second = await t.submit(text="first"), await t.submit(text="second")
        await until(lambda: gate.started)
        await cancel_run(t.client, second)
        gate.open.set()

        assert (await t.result(first)).status == "done"
        await t.until_settled("handoff", "a")
        assert gate.started == ["first"]


@pytest.mark.parametrize("lease_s", [0.5, 15.0])
async def test_worker_that_starts_after_a_run_was_cancelled_drops_its_handoff(
    lease_s: float, server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    async with team(server.url, namespace, flow_of(ONE, TEXT), {"a": gate.handler}, start=False, lease_s=lease_s) as t:
        run = await t.submit(text="x")
        await cancel_run(t.client, run)
        if lease_s < 1:
            await until_older(t, run, lease_s)
        async with t.process():
            await t.until_settled("handoff", "a")
        assert gate.started == []


async def test_run_that_has_ended_keeps_its_result_when_it_is_cancelled(server: NatsServer, namespace: str) -> None:
    async def echo(text: str) -> str:
        return text

    async with team(server.url, namespace, flow_of(ONE, TEXT), {"a": echo}) as t:
        run = await t.submit(text="x")
        result = await t.result(run)
        assert await cancel_run(t.client, run) == result
        with pytest.raises(UnknownRun, match="no run 'never'"):
            await cancel_run(t.client, "never")


async def test_branches_that_a_finished_run_did_not_need_are_cancelled(server: NatsServer, namespace: str) -> None:
    gate = Gate()

    async def echo(text: str) -> str:
        return text

    async def first(a: str = "", b: str = "") -> str:
        return a + b

    steps = {
        "a": Step(agent="echo"),
        "b": Step(agent="gate"),
        "c": Step(agent="first", after=["a", "b"], join=JoinPolicy(wait=1)),
    }
    handlers = {"echo": echo, "gate": gate.handler, "first": first}
    async with team(server.url, namespace, flow_of(steps, TEXT), handlers) as t:
        run = await t.submit(text="x")
        assert value_of((await t.result(run)).outcome) == "x"
        await t.until_settled("handoff", "gate")
        assert gate.cancelled == gate.started
        assert (await t.state(run)).steps["b"].status == "dropped"


async def test_worker_that_stops_finishes_what_it_has_in_hand(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    async with team(server.url, namespace, flow_of(ONE, TEXT), {"a": gate.handler}, start=False) as t:
        async with t.process():
            run = await t.submit(text="x")
            await until(lambda: gate.started)
            asyncio.get_running_loop().call_later(0.05, gate.open.set)
        assert await t.kinds(run) == ["handoff", "result"]


async def test_work_that_a_stopping_worker_gives_back_is_not_an_attempt(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    flow = flow_of(ONE, TEXT, {"a": {"max_attempts": 1}})
    async with team(server.url, namespace, flow, {"a": gate.handler}, start=False) as t:
        async with t.process(grace_s=0.05):
            run = await t.submit(text="x")
            await until(lambda: gate.started)
        assert gate.cancelled == ["x"]
        (note,) = await t.notes(run)
        assert isinstance(note.fact, GivenBack)
        gate.open.set()
        async with t.process():
            result = await t.result(run)
        assert isinstance(result.outcome, Done)
        assert (value_of(result.outcome), result.outcome.work.attempt) == ("x", 1)


async def test_handoff_that_reaches_a_stopping_worker_is_not_an_attempt(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    flow = flow_of(ONE, TEXT, {"a": {"max_attempts": 1, "concurrency": 4}})
    async with team(server.url, namespace, flow, {"a": gate.handler}, start=False) as t:
        stack = contextlib.AsyncExitStack()
        await stack.enter_async_context(t.process())
        first = await t.submit(text="first")
        await until(lambda: gate.started)
        stopping = asyncio.create_task(stack.aclose())
        await until_nobody_pulls(t, "a")
        second = await t.submit(text="second")
        gate.open.set()
        await stopping
        assert (await t.result(first)).status == "done"
        assert gate.started == ["first"]
        async with t.process():
            assert value_of((await t.result(second)).outcome) == "second"


async def test_result_is_what_the_log_holds_and_not_what_lost_the_race_for_it(
    server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    async with team(server.url, namespace, flow_of(ONE, TEXT), {"a": gate.handler}) as t:
        run = await t.submit(text="x")
        waiting = asyncio.create_task(t.result(run))
        subject = t.bus.subjects.result("flow", run)
        await until(lambda: gate.started)
        loses = {"Nats-Expected-Last-Subject-Sequence": "999999"}
        await t.bus.nc.publish(subject, encode(Result(flow="flow", run=run, status="expired")), headers=loses)
        await t.bus.nc.flush()
        gate.open.set()

        result = await waiting
        stored = await t.bus.log.last(subject)
        assert stored is not None
        assert isinstance(stored.message, Result)
        assert result == stored.message
        assert value_of(result.outcome) == "x"
