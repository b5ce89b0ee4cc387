"""What need not begin does not, and what was no attempt of the step's is not charged."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec import Raw

from baton_schemas.flow.flow import Field, Step
from baton_schemas.run.lifecycle import Ended
from baton_schemas.wire.facts import Begun, GivenBack
from baton_schemas.wire.outcomes import Done, State

from .clients import cancel_run
from .servers import WAIT_S, NatsServer, nats_server, until
from .team import Team, flow_of, team, value_of
from .test_worker_delivery import hand_out
from .timed import process, timed, until_timers

FLOW = flow_of({"a": Step(agent="a")}, {"text": Field()}, {"a": {"max_attempts": 1}})


class Slow:
    """A handler that goes on until it is let go."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.go = asyncio.Event()

    async def a(self, text: str) -> str:
        self.began.append(text)
        await self.go.wait()
        return text


async def suspects(t: Team, *texts: str) -> list[str]:
    """Start runs whose handoffs were handed out once, to somebody who let them go without a word."""
    runs = [(await t.client.start(t.plan, text=text)).id for text in texts]
    for delivery in await hand_out(t, "handoff", "a", len(runs)):
        await t.bus.nc.publish(delivery.reply, b"-NAK")
    return runs


async def test_suspect_that_waits_for_its_turn_does_not_begin_once_its_worker_stops(
    server: NatsServer, namespace: str
) -> None:
    handler = Slow()
    async with team(server.url, namespace, FLOW, {"a": handler.a}, start=False) as t:
        runs = await suspects(t, "x", "y")
        async with t.process(grace_s=0.2):
            await until(lambda: handler.began)
            await t.bus.nc.flush()
        assert len(handler.began) == 1
        for run in runs:
            facts = await t.facts(run)
            begun = [fact for fact in facts if isinstance(fact, Begun)]
            assert len(begun) == len([fact for fact in facts if isinstance(fact, GivenBack) and fact.begun])
        handler.go.set()
        async with t.process():
            assert [value_of((await t.result(run)).outcome) for run in runs] == ["x", "y"]


async def test_suspect_that_waits_for_its_turn_does_not_begin_once_its_run_has_ended(
    server: NatsServer, namespace: str
) -> None:
    handler = Slow()
    async with team(server.url, namespace, FLOW, {"a": handler.a}, start=False) as t:
        runs = await suspects(t, "x", "y")
        async with t.process() as bus:
            await until(lambda: handler.began)
            waiting = runs[1] if handler.began == ["x"] else runs[0]
            await cancel_run(t.client, waiting)
            await bus.nc.flush()
            await bus.nc.flush()
            handler.go.set()
            await t.until_settled("handoff", "a")
        assert len(handler.began) == 1


async def test_suspects_of_one_process_begin_one_at_a_time_whichever_actors_they_are(
    server: NatsServer, namespace: str
) -> None:
    """What kills the process kills all that is in it: only one that is alone can be charged."""
    slow = Slow()

    async def b(a: str) -> str:
        return await slow.a(f"b of {a}")

    flow = flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])}, {"text": Field()})
    async with team(server.url, namespace, flow, {"a": slow.a, "b": b}, start=False) as t:
        run = (await t.client.start(t.plan, text="x")).id
        slow.go.set()
        async with t.process("a"):
            await until(lambda: slow.began == ["x"])
            await t.until_settled("handoff", "a")
        slow.go.clear()
        runs = [run, *await suspects(t, "y")]
        (delivery,) = await hand_out(t, "handoff", "b", 1)
        await t.bus.nc.publish(delivery.reply, b"-NAK")
        async with t.process() as bus:
            await until(lambda: len(slow.began) == 2)
            await until_in_hand(t, "handoff", "a", "b")
            await bus.nc.flush()
            assert slow.began in (["x", "y"], ["x", "b of x"])
            slow.go.set()
            assert [value_of((await t.result(run)).outcome) for run in runs] == ["b of x", "b of y"]


async def until_in_hand(t: Team, kind: str, *agents: str) -> None:
    for agent in agents:
        async with asyncio.timeout(WAIT_S):
            consumer = f"{kind}-{t.actor(agent)}"
            while (  # noqa: ASYNC110 (the broker sets no event of ours)
                await t.bus.js.consumer_info(t.bus.settings.namespace, consumer)
            ).num_ack_pending != 1:
                await asyncio.sleep(0.01)


async def test_suspect_that_waits_for_its_turn_does_not_begin_once_another_worker_has_done_it(
    server: NatsServer, namespace: str
) -> None:
    handler = Slow()
    async with team(server.url, namespace, FLOW, {"a": handler.a}, start=False) as t:
        runs = await suspects(t, "x", "y")
        async with t.process():
            await until(lambda: handler.began)
            waiting = runs[1] if handler.began == ["x"] else runs[0]
            entry, handoff = await t.client.engine.runs.first(waiting)
            done = Done(output=Raw(b'"done by another"'))
            await t.client.engine.record(t.plan, Ended(handoff, State(), done, entry.seq))
            handler.go.set()
            await t.until_settled("handoff", "a")
        assert len(handler.began) == 1


async def test_step_that_no_worker_can_do_is_not_charged_for_being_looked_at(
    server: NatsServer, namespace: str
) -> None:
    handler = Slow()
    handler.go.set()
    async with timed(server, namespace, FLOW, {}, start=False) as t:
        (run,) = await suspects(t, "x")
        async with process(t):
            await until_timers(t, "timer", 1)
            assert not [fact for fact in await t.facts(run) if isinstance(fact, Begun)]
            await cancel_run(t.client, run)


async def test_suspect_that_ended_well_while_the_server_was_away_is_not_taken_for_its_workers_death(
    tmp_path: Path,
) -> None:
    handler = Slow()

    async def a(text: str) -> str:
        return await handler.a(text) * 1_000

    async with (
        nats_server(tmp_path) as server,
        team(server.url, "t", FLOW, {"a": a}, start=False, inline_limit_bytes=100, patience_s=0.3) as t,
    ):
        (run,) = await suspects(t, "x")
        async with t.process():
            await until(lambda: handler.began)
            await server.stop()
            handler.go.set()
            await asyncio.sleep(3 * t.bus.settings.patience_s)  # all that time the value is not taken
            await server.restart()
            outcome = (await t.result(run)).outcome
        assert isinstance(outcome, Done)
        assert outcome.work.attempt == 1
        assert handler.began == ["x"]
