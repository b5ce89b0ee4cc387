"""Redeliveries, stale workers and consumers that vanish: handlers may run twice, outcomes may not."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from msgspec import Raw
from nats.aio.msg import Msg

from baton_bus.jetstream.consumer import Delivery
from baton_schemas.flow.flow import Field, Step
from baton_schemas.run.lifecycle import Create, Ended, View, decide
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Begun
from baton_schemas.wire.messages import Handoff
from baton_schemas.wire.outcomes import Done, State

from .servers import NatsServer, subscribed, until
from .slow_worker import FLOW, LEASE_S, slow_worker
from .team import Team, flow_of, team, value_of

TEXT = {"text": Field()}
ONE = flow_of({"a": Step(agent="a")}, TEXT)
BRANCHES = flow_of(
    {
        "a": Step(agent="a"),
        "b": Step(agent="read", after=["a"]),
        "c": Step(agent="read", after=["a"]),
        "d": Step(agent="both", after=["b", "c"]),
    },
    TEXT,
)


async def read_a(a: str) -> str:
    return a


async def both(b: str, c: str) -> str:
    return b + c


async def never(text: str) -> str:
    raise AssertionError("this step was done already")


async def record_by_hand(t: Team, run: str, value: str) -> None:
    """Write the decisive record of the run's first step, as another worker would."""
    entry = (await t.log(run))[0]
    assert isinstance(entry.message, Handoff)
    done = Done(output=Raw(f'"{value}"'.encode()))
    (create,) = decide(View(t.plan), Ended(entry.message, State(), done, entry.seq))
    assert isinstance(create, Create)
    assert await t.bus.publisher.create(t.bus.subjects.of(*create), encode(create.message)) is not None


async def hand_out(t: Team, kind: str, agent: str, count: int) -> list[Delivery]:
    """Take deliveries of an agent's consumer as a worker process does that then dies: the leases lapse."""
    taken: list[Delivery] = []
    actor = t.actor(agent)
    subject = t.bus.subjects.for_actor(kind, actor)
    async with t.bus.pulling(f"{kind}-{actor}", subject, count, taken.append, max_ack_pending=1000):
        await until(lambda: len(taken) == count)
    return taken


async def test_handoff_whose_step_is_recorded_only_has_what_follows_written(server: NatsServer, namespace: str) -> None:
    handlers = {"a": never, "read": read_a, "both": both}
    async with team(server.url, namespace, BRANCHES, handlers, start=False) as t:
        run = await t.submit(text="x")
        (delivery,) = await hand_out(t, "handoff", "a", 1)
        await record_by_hand(t, run, "by hand ")
        await delivery.nak()
        async with t.process():
            assert value_of((await t.result(run)).outcome) == "by hand by hand "
        assert await t.notes(run) == []


async def test_worker_that_loses_the_race_goes_on_with_what_is_stored(server: NatsServer, namespace: str) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def late(text: str) -> str:
        started.set()
        await go_on.wait()
        return "late"

    async with team(server.url, namespace, BRANCHES, {"a": late, "read": read_a, "both": both}) as t:
        run = await t.submit(text="x")
        await started.wait()
        await record_by_hand(t, run, "first ")
        go_on.set()

        assert value_of((await t.result(run)).outcome) == "first first "


async def test_worker_that_was_stopped_beyond_its_lease_changes_nothing(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def quick(text: str) -> str:
        return "the quick one"

    async with team(server.url, namespace, FLOW, {"a": quick}, start=False, lease_s=LEASE_S) as t:
        async with slow_worker(server, namespace, tmp_path) as slow:
            run = await t.submit(text="x")
            await until(lambda: list(tmp_path.glob("started-*")))
            written: list[bytes] = []

            async def on_result(msg: Msg) -> None:
                written.append(msg.data)

            await subscribed(t.bus.nc, t.bus.subjects.result("flow", run), cb=on_result)
            slow.send_signal(signal.SIGSTOP)
            async with t.process():
                result = await t.result(run)
            (tmp_path / "go").touch()
            slow.send_signal(signal.SIGCONT)
            await until(lambda: len(written) == 2)

        assert value_of(result.outcome) == "the quick one"
        assert b"the slow one" in written[1]
        assert [kind for kind in await t.kinds(run) if kind != "note"] == ["handoff", "result"]
        assert await t.result(run) == result


async def test_step_of_a_killed_worker_is_done_by_another(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async def quick(text: str) -> str:
        return "the quick one"

    async with team(server.url, namespace, FLOW, {"a": quick}, start=False, lease_s=LEASE_S) as t:
        async with slow_worker(server, namespace, tmp_path) as slow:
            run = await t.submit(text="x")
            await until(lambda: list(tmp_path.glob("started-*")))
            slow.kill()
        async with t.process():
            result = await t.result(run)

        assert value_of(result.outcome) == "the quick one"
        (begun,) = await t.facts(run)  # nobody knows what the first died of, so the next says that it begins
        assert isinstance(begun, Begun)
        assert (begun.attempt, begun.number) == (1, 1)


async def test_deliveries_that_no_handler_began_are_no_attempts(server: NatsServer, namespace: str) -> None:
    async def echo(text: str) -> str:
        return text

    flow = flow_of({"a": Step(agent="a")}, TEXT, {"a": {"max_attempts": 2}})
    async with team(server.url, namespace, flow, {"a": echo}, start=False) as t:
        run = await t.submit(text="x")
        for _ in range(5):
            (delivery,) = await hand_out(t, "handoff", "a", 1)
            await t.bus.nc.publish(delivery.reply, b"-NAK")
        async with t.process():
            result = await t.result(run)

        assert isinstance(result.outcome, Done)
        assert (value_of(result.outcome), result.outcome.work.attempt) == ("x", 1)


async def test_same_handoff_twice_in_one_worker_runs_its_handler_once(server: NatsServer, namespace: str) -> None:
    started: list[str] = []
    go_on = asyncio.Event()
    kept: list[str] = []

    async def slow(text: str) -> str:
        started.append(text)
        await go_on.wait()
        return text

    async def on_keep(msg: Msg) -> None:
        if msg.data == b"+WPI":
            kept.append(msg.subject)

    async with team(server.url, namespace, ONE, {"a": slow}, lease_s=0.5) as t:
        await subscribed(t.bus.nc, f"$JS.ACK.{namespace}.>", cb=on_keep)
        run = await t.submit(text="x")
        await until(lambda: kept)
        await t.bus.nc.publish(kept[0], b"-NAK")
        await until(lambda: len(set(kept)) == 2)
        go_on.set()

        assert value_of((await t.result(run)).outcome) == "x"
        await t.until_settled("handoff", "a")
        assert started == ["x"]


async def test_no_more_steps_than_max_in_flight_are_in_the_hands_of_all_processes_together(
    server: NatsServer, namespace: str
) -> None:
    at_once, most, may_end = 0, 0, asyncio.Semaphore(0)

    async def counts(text: str) -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await may_end.acquire()
        at_once -= 1
        return text

    flow = flow_of({"a": Step(agent="a")}, TEXT, {"a": {"max_in_flight": 2, "concurrency": 8}})
    async with team(server.url, namespace, flow, {"a": counts}, start=False) as t:
        async with t.process(), t.process():
            runs = [await t.submit(text=f"{number}") for number in range(6)]
            await until(lambda: at_once == 2)
            for _ in runs:
                may_end.release()
            assert {(await t.result(run)).status for run in runs} == {"done"}
        assert most == 2


async def test_long_step_keeps_its_lease(server: NatsServer, namespace: str) -> None:
    started: list[str] = []

    async def slow(text: str) -> str:
        started.append(text)
        await asyncio.sleep(1.2)
        return text

    async with team(server.url, namespace, ONE, {"a": slow}, lease_s=0.5) as t:
        async with t.process():
            assert value_of((await t.run(text="x")).outcome) == "x"
        assert started == ["x"]


async def test_consumer_that_was_deleted_is_made_again_and_work_goes_on(server: NatsServer, namespace: str) -> None:
    started: list[str] = []

    async def echo(text: str) -> str:
        started.append(text)
        return text

    async with team(server.url, namespace, ONE, {"a": echo}) as t:
        await t.run(text="before")
        await t.bus.js.delete_consumer(namespace, f"handoff-{t.actor('a')}")
        assert value_of((await t.run(text="after")).outcome) == "after"
        await t.until_settled("handoff", "a")
        assert started == ["before", "after"]


async def test_worker_on_an_old_log_does_no_step_again(server: NatsServer, namespace: str) -> None:
    async def echo(text: str) -> str:
        return text

    started: list[str] = []

    async def again(text: str) -> str:
        started.append(text)
        return text

    async with team(server.url, namespace, ONE, {"a": echo}, start=False) as t:
        async with t.process():
            runs = [(await t.run(text=f"{number}")).run for number in range(20)]
        await t.bus.js.delete_consumer(namespace, f"handoff-{t.actor('a')}")
        other = Team(t.client, t.plan, {"a": again})
        async with other.process():
            await other.until_settled("handoff", "a")
        assert started == []
        assert [await t.kinds(run) for run in runs] == [["handoff", "result"]] * 20
