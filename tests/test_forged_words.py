"""Words on core NATS are advice: whoever forges or misses one loses nothing, and no step starts after the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from baton_bus import connect
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Result

from .chaos.proxy import Proxy
from .clients import cancel_run
from .servers import NatsServer, until
from .team import Team, flow_of, team, value_of

TEXT = {"text": Field()}
PIPELINE = flow_of(
    {"a": Step(agent="a"), "b": Step(agent="b", after=["a"]), "c": Step(agent="c", after=["b"])},
    TEXT,
    {name: {"concurrency": 1} for name in "abc"},
)


class Steps:
    """Three handlers, which say what they began; `a` waits until it is let through."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.open = asyncio.Event()

    async def a(self, text: str) -> str:
        self.began.append(f"a {text}")
        await self.open.wait()
        return text

    async def b(self, a: str) -> str:
        self.began.append(f"b {a}")
        return a

    async def c(self, b: str) -> str:
        self.began.append(f"c {b}")
        return b

    @property
    def all(self) -> dict[str, object]:
        return {"a": self.a, "b": self.b, "c": self.c}


def cancelled(run: str) -> Result:
    return Result(flow="flow", run=run, status="cancelled")


@pytest.mark.parametrize("body", [b"", b"\xff", b'{"kind":"result"}', encode(cancelled("mine"))])
async def test_forged_word_that_a_run_has_ended_loses_nothing(body: bytes, server: NatsServer, namespace: str) -> None:
    steps = Steps()
    async with team(server.url, namespace, PIPELINE, steps.all) as t:
        await t.submit("mine", text="x")
        await until(lambda: steps.began)
        for word in (t.bus.subjects.stored_result("flow", "mine"), t.bus.subjects.live("mine", "end")):
            await t.bus.nc.publish(word, body)
        steps.open.set()

        assert value_of((await t.result("mine")).outcome) == "x"
        assert {"b x", "c x"} <= set(steps.began)
        for agent in "abc":
            await t.until_settled("handoff", agent)
        assert (await t.kinds("mine"))[-1] == "result"


async def test_forged_word_before_a_run_begins_loses_nothing(server: NatsServer, namespace: str) -> None:
    steps = Steps()
    steps.open.set()
    async with team(server.url, namespace, PIPELINE, steps.all) as t:
        await t.bus.nc.publish(t.bus.subjects.stored_result("flow", "mine"), encode(cancelled("mine")))
        await t.bus.nc.flush()
        await t.submit("mine", text="x")
        assert value_of((await t.result("mine")).outcome) == "x"
        assert steps.began == ["a x", "b x", "c x"]


async def test_forged_word_tells_who_waits_for_a_result_what_is_not_in_the_log(
    server: NatsServer, namespace: str
) -> None:
    """Who forges results can lie to those who wait (`deploy/` keeps clients from it); the log is not changed."""
    steps = Steps()
    async with team(server.url, namespace, PIPELINE, steps.all) as t:
        run = await t.submit(text="x")
        await until(lambda: steps.began)
        steps.open.set()
        result = await t.result(run)
        await t.bus.nc.publish(t.bus.subjects.stored_result("flow", run), encode(cancelled(run)))
        assert await t.result(run) == result


async def test_client_that_dies_right_after_it_wrote_a_cancelled_result_has_cancelled_the_run(
    server: NatsServer, namespace: str
) -> None:
    steps = Steps()
    async with team(server.url, namespace, PIPELINE, steps.all) as t:
        run = await t.submit(text="x")
        await until(lambda: steps.began)
        written = cancelled(run)
        await t.bus.publisher.create(t.bus.subjects.of("", written), encode(written))
        # It does nothing after that.
        for agent in "abc":
            await t.until_settled("handoff", agent)
        steps.open.set()

        assert steps.began == ["a x"]
        assert await t.result(run) == written


@contextlib.asynccontextmanager
async def far_workers(t: Team, steps: Steps, *, beside: str = "") -> AsyncIterator[Proxy]:
    """Workers whose connections go through a proxy."""
    proxy = Proxy(server_port(t))
    async with (
        proxy.working(),
        connect(replace(t.bus.settings, url=proxy.url)) as far,
        Team(far, t.plan, steps.all).process(),
    ):
        yield proxy


def server_port(t: Team) -> int:
    return int(t.bus.settings.url.rpartition(":")[2])


async def test_no_later_step_starts_when_all_workers_were_away_while_the_run_was_cancelled(
    server: NatsServer, namespace: str
) -> None:
    steps = Steps()
    async with (
        team(server.url, namespace, PIPELINE, steps.all, start=False, lease_s=2.0) as t,
        far_workers(t, steps) as proxy,
    ):
        runs = [await t.submit(text=f"x{number}") for number in range(5)]  # one is in hand, the others wait
        await until(lambda: steps.began)
        holding = asyncio.create_task(proxy.hold(0.5))
        await asyncio.sleep(0)
        for run in runs:
            await cancel_run(t.client, run)
        proxy.cut_all()
        await holding
        steps.open.set()
        for agent in "abc":
            await t.until_settled("handoff", agent)

        assert steps.began == ["a x0"]
        assert {(await t.result(run)).status for run in runs} == {"cancelled"}
        assert [kind for run in runs for kind in await t.kinds(run)] == ["handoff", "result"] * 5


async def test_connections_lost_between_record_and_word_start_no_later_step(server: NatsServer, namespace: str) -> None:
    """The handler ends while nobody is connected: the run was cancelled meanwhile, so its outcome is not wanted."""
    steps = Steps()
    async with (
        team(server.url, namespace, PIPELINE, steps.all, start=False, lease_s=2.0) as t,
        far_workers(t, steps) as proxy,
    ):
        run = await t.submit(text="x")
        await until(lambda: steps.began)
        holding = asyncio.create_task(proxy.hold(0.3))
        await asyncio.sleep(0)
        steps.open.set()
        await cancel_run(t.client, run)
        proxy.cut_all()
        await holding
        for agent in "abc":
            await t.until_settled("handoff", agent)
        assert steps.began == ["a x"]
        assert (await t.result(run)).status == "cancelled"
