"""Schedules at the broker: what is to come is listed, and each firing is one run, whoever dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from nats.js.errors import NotFoundError

from baton_actors.services.clerk import Clerk
from baton_actors.services.steward import Steward
from baton_bus import Settings
from baton_bus.client.runs import recent_runs
from baton_bus.engine.engine import Engine
from baton_bus.errors import BadSchedule, PayloadTooLarge
from baton_bus.jetstream import gets
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.flow.inputs import encode_input
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Task
from baton_schemas.wire.names import run_of_firing

from .servers import WAIT_S, NatsServer
from .timed import until_so

PLAN = check_flow(
    Flow(name="ask", input={"q": Field()}, agents={"a": Agent(handler="m:f")}, steps={"answer": Step(agent="a")})
)
BODY = encode(Task(input=encode_input({"q": "?"})))
HOUR_S = 3600.0


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)
        try:
            await bus.js.delete_stream(bus.timers.stream)
        except NotFoundError:
            return


async def first_firing(bus: Bus, name: str) -> str:
    """Wait until a schedule has fired, and return the id of the run that is to come of it."""
    subject = bus.subjects.due("task", "ask", name)
    async with asyncio.timeout(WAIT_S):
        while True:
            msg = await bus.nc.request(f"$JS.API.DIRECT.GET.{bus.timers.stream}.{subject}", b"")
            headers = msg.headers or {}
            if "Nats-Sequence" in headers:
                fired_at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
                return run_of_firing(int(fired_at.timestamp() * 1e9), int(headers["Nats-Sequence"]))
            await asyncio.sleep(0.01)


async def test_schedules_are_listed_with_what_is_known_of_their_times(bus: Bus) -> None:
    assert await bus.timers.list() == ()
    due_s = time.time() + HOUR_S
    await bus.timers.repeat("ask", "daily", "0 0 6 * * *", BODY)
    await bus.timers.once("ask", "later", due_s, b"{}")
    await bus.timers.at("ask", "a-run", "end", due_s, BODY)  # a deadline is no schedule
    daily, later = await bus.timers.list()
    assert (daily.flow, daily.name, daily.cron, daily.body) == ("ask", "daily", "0 0 6 * * *", BODY)
    assert (daily.next_at, daily.last_at) == (None, None)
    assert (later.name, later.cron, later.body) == ("later", "", b"{}")
    assert later.next_at == datetime.fromtimestamp(due_s, UTC)


async def test_schedule_that_has_fired_says_when_and_when_it_will_again(bus: Bus) -> None:
    await bus.timers.repeat("ask", "often", "* * * * * *", BODY)
    await first_firing(bus, "often")
    (often,) = await bus.timers.list()
    assert often.next_at is not None
    assert often.last_at is not None
    assert 0 < (often.next_at - often.last_at).total_seconds() <= 1


async def test_schedule_of_a_name_replaces_the_one_before(bus: Bus) -> None:
    await bus.timers.repeat("ask", "one", "* * * * * *", BODY)
    await first_firing(bus, "one")
    await bus.timers.repeat("ask", "one", "@yearly", BODY)
    (yearly,) = await bus.timers.list()
    assert (yearly.cron, yearly.next_at) == ("@yearly", None)
    await bus.timers.once("ask", "one", time.time() + HOUR_S, BODY)
    (once,) = await bus.timers.list()
    assert (once.cron, once.next_at is None) == ("", False)
    assert await bus.timers.cancel("task", "ask", "one")
    assert await bus.timers.list() == ()


async def test_more_schedules_than_one_request_reads_are_all_listed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gets, "PATTERNS_AT_ONCE", 2)
    monkeypatch.setattr(gets, "BATCH_BYTES", 100)
    names = [f"s{number}" for number in range(5)]
    for name in names:
        await bus.timers.repeat("ask", name, "@yearly", BODY)
    assert [schedule.name for schedule in await bus.timers.list()] == names


@pytest.mark.parametrize(
    "cron", ["", " ", "nope", "0 6 * * *", "60 * * * * *", "@every 0s", "@at 2030-01-01T00:00:00Z"]
)
async def test_cron_that_is_none_is_refused(bus: Bus, cron: str) -> None:
    with pytest.raises(BadSchedule, match="expected six fields"):
        await bus.timers.repeat("ask", "bad", cron, BODY)
    assert await bus.timers.list() == ()


async def test_body_over_the_payload_limit_is_refused(bus: Bus) -> None:
    with pytest.raises(PayloadTooLarge):
        await bus.timers.once("ask", "big", time.time() + HOUR_S, b"x" * bus.nc.max_payload)
    assert await bus.timers.list() == ()


async def test_firing_whose_clerk_died_before_its_ack_is_one_run(bus: Bus) -> None:
    await bus.timers.once("ask", "soon", time.time() + 0.1, BODY)
    run = await first_firing(bus, "soon")
    # What the clerk that died had written.
    written = encode(Task(input=encode_input({"q": "?"}), run=run))
    await bus.publisher.append(bus.subjects.task("ask"), written)
    async with Clerk(Engine(bus)).working(), Steward(Engine(bus), {"ask": PLAN}).working():
        await until_acked(bus, bus.timers.stream, "due", 1)
        await until_acked(bus, bus.settings.namespace, "steward-ask", 2)
    tasks = [entry.data async for entry in bus.log.read([bus.subjects.tasks()])]
    assert tasks == [written, written]
    assert [head.run for head in await recent_runs(bus, 9)] == [run]


async def test_task_that_came_due_with_every_process_down_waits_for_one(bus: Bus) -> None:
    await bus.timers.once("ask", "soon", time.time() + 0.1, BODY)
    run = await first_firing(bus, "soon")
    assert await bus.timers.list() == ()
    async with Clerk(Engine(bus)).working(), Steward(Engine(bus), {"ask": PLAN}).working():
        await until_so(lambda: has_begun(bus, run))
    (head,) = await recent_runs(bus, 9)
    assert (head.flow, head.status) == ("ask", "running")


async def has_begun(bus: Bus, run: str) -> bool:
    return [head.run for head in await recent_runs(bus, 9)] == [run]


async def until_acked(bus: Bus, stream: str, consumer: str, count: int) -> None:
    """Wait until so many messages were acked by those who share a consumer."""

    async def are_acked() -> bool:
        info = await bus.js.consumer_info(stream, consumer)
        return info.ack_floor is not None and info.ack_floor.consumer_seq >= count

    await until_so(are_acked)
