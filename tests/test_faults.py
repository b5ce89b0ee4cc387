"""Faults of the bus: streams deleted, connections cut, a full log. Work goes on, and nothing is doubled."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from nats.js.errors import NotFoundError

from baton_bus import connect
from baton_bus.errors import UnknownRun
from baton_bus.jetstream.consumer import Delivery
from baton_bus.jetstream.streams import REPLIES_IN_FLIGHT
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.flow import Field, Flow, Step
from baton_schemas.run.refs import tokens
from baton_schemas.wire.messages import Join
from baton_schemas.wire.outcomes import Done

from .chaos.proxy import Proxy
from .clients import start_run
from .servers import NatsServer, until
from .team import Team, flow_of, team, value_of
from .timed import NEVER_S, SOON_S, Gate, merge, over_texts, timed, timers, until_so

TEXT = {"text": Field()}
ONE = flow_of({"a": Step(agent="a")}, TEXT)


def fan_out() -> Flow:
    steps = {
        "split": Step(agent="split"),
        "each": Step(agent="each", each="split"),
        "merge": Step(agent="merge", after=["each"]),
    }
    return flow_of(steps, TEXT)


class Counted:
    """The handlers of `fan_out`, which count who asked for what."""

    def __init__(self) -> None:
        self.items: Counter[str] = Counter()

    async def split(self, text: str) -> list[str]:
        return [f"{text}.{number}" for number in range(5)]

    async def each(self, item: str) -> str:
        self.items[item] += 1
        await asyncio.sleep(0.01)
        return item

    async def merge(self, each: list[str]) -> str:
        return " ".join(each)

    async def until(self, count: int) -> None:
        await until(lambda: self.items.total() >= count)

    @property
    def all(self) -> dict[str, Any]:
        return {"split": self.split, "each": self.each, "merge": self.merge}


async def assert_all_end(t: Team, runs: dict[str, str]) -> None:
    for text, run in runs.items():
        assert value_of((await t.result(run)).outcome) == " ".join(f"{text}.{number}" for number in range(5))


# ---- what is deleted -----------------------------------------------------------------------------


async def echo(text: str) -> str:
    return text


async def test_log_that_was_deleted_is_made_again_and_new_runs_are_done(server: NatsServer, namespace: str) -> None:
    counted = Counted()
    async with team(server.url, namespace, fan_out(), counted.all) as t:
        before = await start_run(t.client, t.plan, {"text": "before"})
        await t.result(before)
        await t.bus.js.delete_stream(namespace)
        await until_so(lambda: exists(t.bus, namespace))

        for call in (t.client.run(before).cancel, t.client.run(before).fork):
            with pytest.raises(UnknownRun, match=f"no run '{before}'"):
                await call()
        await assert_all_end(t, {text: await t.submit(text=text) for text in ("x", "y")})
        assert counted.items["x.0"] == 1


async def test_log_that_was_deleted_while_a_handler_ran_holds_nobody_up(server: NatsServer, namespace: str) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def waits(text: str) -> str:
        if text == "before":
            started.set()
            await go_on.wait()
        return text

    async with team(server.url, namespace, ONE, {"a": waits}) as t:
        await start_run(t.client, t.plan, {"text": "before"})
        await started.wait()
        await t.bus.js.delete_stream(namespace)
        await until_so(lambda: exists(t.bus, namespace))
        go_on.set()
        assert value_of((await t.run(text="after")).outcome) == "after"


async def exists(bus: Bus, stream: str) -> bool:
    try:
        await bus.js.stream_info(stream)
    except NotFoundError:
        return False
    return True


async def test_timers_that_were_deleted_are_made_again(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    async with timed(server, namespace, over_texts(SOON_S), {"branch": gate.branch, "merge": merge}) as t:
        assert value_of((await t.run(texts=["slow"], title="before")).outcome) == ["before"]
        await t.bus.js.delete_stream(t.bus.timers.stream)
        assert value_of((await t.run(texts=["slow"], title="after")).outcome) == ["after"]


async def test_timer_is_set_in_a_new_stream_when_the_old_one_was_deleted(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, ONE, {}, start=False) as t:
        await t.bus.timers.at("flow", "r1", "end", t.bus.now_s() + NEVER_S, b"{}")
        await t.bus.js.delete_stream(t.bus.timers.stream)
        await t.bus.timers.at("flow", "r2", "end", t.bus.now_s() + NEVER_S, b"{}")
        assert await timers(t) == [f"{namespace}.timer.flow.r2.end"]


async def test_blobs_that_were_deleted_are_kept_anew(server: NatsServer, namespace: str) -> None:
    async def large(text: str) -> str:
        return text * 300_000

    async with team(server.url, namespace, ONE, {"a": large}) as t:
        await t.run(text="x")
        await t.bus.js.delete_stream(t.bus.blobs.stream)
        result = await t.run(text="y")
        assert isinstance(result.outcome, Done)
        assert result.outcome.blob is not None
        assert await t.bus.blobs.get(result.outcome.blob) == b'"%s"' % (b"y" * 300_000)


@contextlib.asynccontextmanager
async def rogue(t: Team) -> AsyncIterator[list[int]]:
    """A process that takes replies to the merger and gives each of them back at once."""
    given_back: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    def on_delivery(delivery: Delivery) -> None:
        given_back.append(delivery.seq)
        tasks.append(asyncio.create_task(delivery.nak()))

    actor = t.actor("merge")
    subject = t.bus.subjects.for_actor("reply", actor)
    async with open_bus(t.bus.settings) as bus:
        async with bus.pulling(f"reply-{actor}", subject, 20, on_delivery, max_ack_pending=REPLIES_IN_FLIGHT):
            yield given_back
        await asyncio.gather(*tasks)


async def test_join_closes_once_with_replies_given_back_and_consumers_deleted(
    server: NatsServer, namespace: str
) -> None:
    branches = list(range(300))
    calls: list[list[int]] = []

    async def same(item: int) -> int:
        return item

    async def collect(each: list[int]) -> list[int]:
        calls.append(each)
        return each

    steps = {"each": Step(agent="each", each="numbers"), "merge": Step(agent="merge", after=["each"])}
    flow = flow_of(steps, {"numbers": Field(type="list[int]")}, {"each": {"concurrency": 32}})
    async with team(server.url, namespace, flow, {"each": same, "merge": collect}, start=False) as t:
        mergers = t.process("merge"), t.process("merge"), t.process("merge")
        async with mergers[0], mergers[1], mergers[2], t.process("each"), rogue(t) as given_back:
            run = await t.submit(numbers=branches)

            async def has_begun() -> bool:
                return await t.bus.log.last(t.bus.subjects.join(t.actor("merge"), run, "merge", 1)) is not None

            await until_so(has_begun)
            for kind in ("reply", "handoff"):
                await t.bus.js.delete_consumer(namespace, f"{kind}-{t.actor('merge')}")
            result = await t.result(run)

        assert value_of(result.outcome) == branches
        assert calls
        assert all(call == branches for call in calls)
        assert given_back
        links = [entry.message for entry in await t.log(run) if isinstance(entry.message, Join)]
        assert [link.number for link in links] == list(range(1, len(links) + 1))
        came = [name for link in links for name in tokens("each", link.came["each"])]
        assert sorted(came) == sorted(f"each-{number}" for number in branches)


# ---- what is cut, or full ------------------------------------------------------------------------


async def test_runs_end_although_the_workers_are_cut_off_again_and_again(server: NatsServer, namespace: str) -> None:
    counted = Counted()
    proxy = Proxy(server.port)
    async with (
        proxy.working(),
        team(server.url, namespace, fan_out(), counted.all, start=False, lease_s=1.0) as t,
        connect(replace(t.bus.settings, url=proxy.url)) as far,
        Team(far, t.plan, counted.all).process(),
    ):
        runs = {f"r{number}": await t.submit(text=f"r{number}") for number in range(20)}
        for count in (5, 30, 60):
            await counted.until(count)
            proxy.cut_all()
        await assert_all_end(t, runs)
        assert counted.items.keys() == {f"{text}.{number}" for text in runs for number in range(5)}


@contextlib.asynccontextmanager
async def full(t: Team) -> AsyncIterator[None]:
    """The log takes nothing more while the context is open."""
    info = await t.bus.js.stream_info(t.bus.settings.namespace)
    await t.bus.js.update_stream(info.config.evolve(max_bytes=max(info.state.bytes, 1)))
    yield
    await t.bus.js.update_stream(info.config.evolve(max_bytes=-1))


async def test_run_that_expires_while_the_log_is_full_has_its_result_when_there_is_room(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_bus.store.bus._FULL_RETRY_S", 0.02)
    # A logger that an earlier test used may be bound to that test's processors, past which nothing is captured.
    monkeypatch.setattr("baton_bus.store.bus.logger", structlog.get_logger("baton.bus"))
    gate = Gate()
    flow = replace(over_texts(None), deadline_s=SOON_S)
    async with timed(server, namespace, flow, {"branch": gate.branch, "merge": merge}) as t:
        run = await t.submit(texts=["slow"], title="t")
        await until(lambda: gate.started)
        with structlog.testing.capture_logs() as logs:
            async with full(t):
                await until(lambda: [entry for entry in logs if entry["event"] == "log.full"])
            assert (await t.result(run)).status == "expired"
        await until(lambda: gate.cancelled)
