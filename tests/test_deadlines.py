"""Deadlines of runs: kept by the broker, with every worker dead; and what no clock could keep is refused."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from baton_schemas.errors import FlowError, InputError
from baton_schemas.flow.file import load_flow
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Result

from .clients import cancel_run, start_run
from .servers import NatsServer, until
from .team import team
from .timed import NEVER_S, SOON_S, Gate, merge, over_texts, process, timed, until_taken, until_timers


@pytest.mark.parametrize("given_by", ["flow", "submit"])
async def test_run_expires_its_handlers_are_cancelled_and_what_is_queued_is_dropped(
    given_by: str, server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    flow = over_texts(None)
    flow = replace(
        flow,
        agents=flow.agents | {"branch": replace(flow.agents["branch"], concurrency=1)},
        deadline_s=SOON_S if given_by == "flow" else NEVER_S,
    )
    async with timed(server, namespace, flow, {"branch": gate.branch, "merge": merge}) as t:
        given = {"texts": ["slow", "a", "b"], "title": "t"}
        run = await start_run(t.client, t.plan, given, deadline_s=None if given_by == "flow" else SOON_S)
        result = await t.result(run)
        async with asyncio.timeout(1.0):
            await until(lambda: gate.cancelled)

        assert (result.status, result.reason) == ("expired", f"the deadline of {SOON_S:g} s")
        await t.until_settled("handoff", "branch")
        assert gate.started == ["slow"]
        state = await t.state(run)
        assert (state.status, {step.status for step in state.steps.values()}) == ("expired", {"dropped"})


async def test_run_expires_with_every_worker_dead(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    flow = replace(over_texts(None), deadline_s=SOON_S)
    async with timed(server, namespace, flow, {"branch": gate.branch, "merge": merge}, start=False) as t:
        async with t.process(grace_s=0.05):
            run = await t.submit(texts=["slow"], title="t")
            await until(lambda: gate.started)
        await until_timers(t, "due", 1)
        async with process(t):
            assert (await t.result(run)).status == "expired"
            await t.until_settled("handoff", "branch")


async def test_run_that_no_worker_took_before_its_deadline_starts_no_handler(
    server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    flow = replace(over_texts(None), deadline_s=0.01)
    async with timed(server, namespace, flow, {"branch": gate.branch, "merge": merge}, start=False) as t:
        run = await t.submit(texts=["slow"], title="t")
        first = await t.bus.log.run(run)
        await until(lambda: t.bus.now_s() > first[0].at.timestamp() + 0.01)
        async with process(t):
            assert (await t.result(run)).status == "expired"
            await t.until_settled("handoff", "branch")
        assert gate.started == []


@pytest.mark.parametrize("given_by", ["flow", "submit"])
async def test_deadline_of_a_run_that_has_ended_changes_nothing(
    given_by: str, server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    flow = replace(over_texts(None), deadline_s=SOON_S if given_by == "flow" else None)
    async with timed(server, namespace, flow, {"branch": gate.branch, "merge": merge}) as t:
        run = await start_run(t.client, t.plan, {"texts": ["a"], "title": "t"}, deadline_s=SOON_S)
        result = await t.result(run)
        before = await t.kinds(run)
        if given_by == "flow":
            await until_timers(t, "*", 0)
        else:
            await until_taken(t, 1)

        assert result.status == "done"
        assert await t.result(run) == result
        assert await t.kinds(run) == before


@pytest.mark.parametrize("ended_by", ["clerk", "client"])
async def test_handlers_are_cancelled_although_whoever_ended_the_run_died_before_saying_so(
    ended_by: str, server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    flow = replace(over_texts(None), deadline_s=SOON_S if ended_by == "clerk" else NEVER_S)
    async with timed(server, namespace, flow, {"branch": gate.branch, "merge": merge}) as t:
        run = await t.submit(texts=["slow"], title="t")
        await until(lambda: gate.started)
        unsaid = Result(v=1, flow="flow", run=run, status="cancelled")
        await t.bus.publisher.create(t.bus.subjects.of("", unsaid), encode(unsaid))
        if ended_by == "client":
            assert await cancel_run(t.client, run) == unsaid
        await until(lambda: gate.cancelled)
        assert await t.result(run) == unsaid


FILE = """
name = "f"
{flow}
[agents.a]
handler = "m:f"
[steps.a]
agent = "a"
[steps.b]
agent = "a"
[steps.c]
agent = "a"
after = ["a", "b"]
join = {{ {join} }}
"""


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf", "31622401"])
@pytest.mark.parametrize("place", ["deadline_s", "steps.c.join.deadline_s"])
def test_deadline_that_no_clock_can_keep_is_refused_in_a_flow(place: str, seconds: str) -> None:
    setting = f"deadline_s = {seconds}"
    text = FILE.format(flow=setting, join="") if place == "deadline_s" else FILE.format(flow="", join=setting)
    with pytest.raises(FlowError, match=r"more than 0, at most 31622400 \(a year\)") as raised:
        load_flow(text)
    assert raised.value.place.endswith(f" {place}")


@pytest.mark.parametrize("seconds", [-1.0, 0.0, float("nan"), float("inf"), 31_622_401])
async def test_deadline_that_no_clock_can_keep_is_refused_at_submit(
    seconds: float, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, over_texts(None), {}, start=False) as t:
        with pytest.raises(InputError, match=r"'deadline_s': .*expected more than 0"):
            await start_run(t.client, t.plan, {"texts": [], "title": ""}, deadline_s=seconds)
        assert (await t.bus.js.stream_info(namespace)).state.messages == 0
