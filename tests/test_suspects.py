"""A step that kills its worker fails alone: those beside it, and other runs, are not charged for it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from baton_actors import Context
from baton_schemas.flow.flow import Field, Flow, Step
from baton_schemas.wire.facts import Begun, GivenBack
from baton_schemas.wire.outcomes import Done, Failed

from .clients import cancel_run
from .deadly_worker import FLOW, LEASE_S, POISON, deadly_worker
from .servers import WAIT_S, NatsServer, until
from .slow_worker import FLOW as SLOW
from .slow_worker import slow_worker
from .team import Team, flow_of, team, value_of
from .test_asking import Helper, asking, parked
from .test_worker_delivery import hand_out
from .timed import process, timed


async def merge(each: list[str]) -> list[str]:
    return each


async def work_of(t: Team, run: str) -> dict[str, int]:
    """At which attempt each branch of a run was done."""
    steps = (await t.state(run)).steps
    return {name: step.work.attempt for name, step in steps.items() if step.work is not None and "each-" in name}


async def test_step_that_kills_its_worker_fails_alone_after_its_attempts(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with team(server.url, namespace, FLOW, {"merge": merge}, start=False, lease_s=LEASE_S) as t:
        run = await t.submit(texts=["a", POISON, "b", "c"])
        beside = await t.submit(texts=["d", "e"])
        async with deadly_worker(server, namespace, tmp_path) as died, t.process("merge"):
            await until(lambda: len(list(tmp_path.glob("began-*"))) == 6)  # all are in the same hands
            (tmp_path / "go").touch()
            assert value_of((await t.result(run)).outcome) == ["A", "B", "C"]
            assert value_of((await t.result(beside)).outcome) == ["D", "E"]

        poisoned = (await t.state(run)).steps["each-1"]
        assert poisoned.error is not None
        assert (poisoned.error.type, poisoned.error.attempts) == ("WorkerLost", 2)
        assert "died 2 times while doing it" in poisoned.error.message
        # The first death could have been anyone's; from then on the poisoned step said that it began, alone.
        assert died == [7, 7, 7]
        assert await work_of(t, run) == {"each-0": 1, "each-1": 2, "each-2": 1, "each-3": 1}
        assert await work_of(t, beside) == {"each-0": 1, "each-1": 1}


async def test_stopped_worker_whose_handler_never_began_is_charged_nothing(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def quick(text: str) -> str:
        return "the quick one"

    flow = flow_of(SLOW.steps, {"text": Field()}, {"a": {"max_attempts": 1}})
    async with team(server.url, namespace, flow, {"a": quick}, start=False, lease_s=LEASE_S) as t:
        async with slow_worker(server, namespace, tmp_path) as slow:
            await until(lambda: (tmp_path / "ready").exists())
            slow.send_signal(signal.SIGSTOP)  # it asks for work, and cannot take what it is given
            run = await t.submit(text="x")
            for _ in range(2):
                await hand_out_again(t, run)
            async with t.process():
                result = await t.result(run)
        assert isinstance(result.outcome, Done)
        assert (value_of(result.outcome), result.outcome.work.attempt) == ("the quick one", 1)
        assert started(tmp_path) == 0


def started(folder: Path) -> int:
    return len(list(folder.glob("started-*")))


async def hand_out_again(t: Team, run: str) -> None:
    (delivery,) = await hand_out(t, "handoff", "a", 1)
    await t.bus.nc.publish(delivery.reply, b"-NAK")


async def test_suspect_that_fails_with_a_reason_is_charged_once(server: NatsServer, namespace: str) -> None:
    async def broken(text: str) -> str:
        raise ValueError("no")

    flow = flow_of({"a": Step(agent="a")}, {"text": Field()}, {"a": {"max_attempts": 2}})
    async with team(server.url, namespace, flow, {"a": broken}, start=False) as t:
        run = await t.submit(text="x")
        (delivery,) = await hand_out(t, "handoff", "a", 1)
        await t.bus.nc.publish(delivery.reply, b"-NAK")
        async with t.process():
            result = await t.result(run)
        assert isinstance(result.outcome, Failed)
        assert (result.outcome.error.type, result.outcome.error.attempts) == ("ValueError", 2)
        assert len([fact for fact in await t.facts(run) if isinstance(fact, Begun)]) == 1


class Gated:
    """A handler that goes on with each text once that is let go."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.go: set[str] = set()

    async def a(self, text: str) -> str:
        self.began.append(text)
        await until(lambda: text in self.go)
        return text


def gated_flow(max_attempts: int) -> Flow:
    return flow_of({"a": Step(agent="a")}, {"text": Field()}, {"a": {"max_attempts": max_attempts, "concurrency": 4}})


async def suspect(t: Team, text: str, wait_s: float = 0.0) -> str:
    """Start a run whose handoff was handed out once, and comes again after so long."""
    run = (await t.client.start(t.plan, text=text)).id
    (delivery,) = await hand_out(t, "handoff", "a", 1)
    await t.bus.nc.publish(delivery.reply, b'-NAK {"delay": %d}' % (wait_s * 1e9))
    return run


async def start(t: Team, text: str) -> str:
    return (await t.client.start(t.plan, text=text)).id


async def until_in_hand(t: Team, count: int) -> None:
    stream, consumer = t.bus.settings.namespace, f"handoff-{t.actor('a')}"
    async with asyncio.timeout(WAIT_S):
        while (await t.bus.js.consumer_info(stream, consumer)).num_ack_pending != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await t.bus.nc.flush()


async def test_nothing_begins_beside_a_suspect_whose_next_death_would_be_its_end(
    server: NatsServer, namespace: str
) -> None:
    """What begins for the first time may kill its process, and the suspect beside it would be lost for that."""
    handler = Gated()
    async with team(server.url, namespace, gated_flow(1), {"a": handler.a}, start=False) as t:
        runs = [await suspect(t, "suspected")]
        async with t.process():
            await until(lambda: handler.began)
            runs += [await start(t, "new"), await start(t, "of a run that ends")]
            await until_in_hand(t, 3)
            await cancel_run(t.client, runs.pop())
            await until_in_hand(t, 2)
            assert handler.began == ["suspected"]
            handler.go = {"suspected", "new"}
            assert [value_of((await t.result(run)).outcome) for run in runs] == ["suspected", "new"]
        assert handler.began == ["suspected", "new"]


async def test_suspect_whose_next_death_would_be_its_end_begins_when_those_beside_it_are_done(
    server: NatsServer, namespace: str
) -> None:
    handler = Gated()
    async with team(server.url, namespace, gated_flow(1), {"a": handler.a}, start=False) as t:
        runs = [await suspect(t, "suspected", wait_s=0.5)]
        async with t.process():
            runs.append(await start(t, "new"))
            await until(lambda: handler.began)
            await until_delivered_again(t)
            assert handler.began == ["new"]
            assert not [fact for fact in await t.facts(runs[0]) if isinstance(fact, Begun)]
            handler.go = {"suspected", "new"}
            assert [value_of((await t.result(run)).outcome) for run in runs] == ["suspected", "new"]
        assert handler.began == ["new", "suspected"]


async def until_delivered_again(t: Team) -> None:
    stream, consumer = t.bus.settings.namespace, f"handoff-{t.actor('a')}"
    async with asyncio.timeout(WAIT_S):
        while (await t.bus.js.consumer_info(stream, consumer)).delivered.consumer_seq < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await t.bus.nc.flush()


async def test_others_begin_beside_a_suspect_that_has_attempts_left(server: NatsServer, namespace: str) -> None:
    handler = Gated()
    async with team(server.url, namespace, gated_flow(2), {"a": handler.a}, start=False) as t:
        runs = [await suspect(t, "suspected")]
        async with t.process():
            await until(lambda: handler.began)
            runs.append(await start(t, "new"))
            await until(lambda: handler.began == ["suspected", "new"])
            handler.go = {"suspected", "new"}
            assert [value_of((await t.result(run)).outcome) for run in runs] == ["suspected", "new"]


@pytest.mark.parametrize("max_attempts", [1, 2])
async def test_suspects_that_only_wait_make_way_for_each_other_at_once_and_are_not_charged(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, max_attempts: int
) -> None:
    """Of 200 that waited in a worker which was killed, each took a tick of the alarms: ten seconds for all."""
    monkeypatch.setattr("baton_actors.agents.alarms.TICK_S", 60.0)

    async def boss(text: str, context: Context) -> list[str]:
        return list(await context.gather(*(context.ask("helper", topic=f"slow {text} {each}") for each in "ab")))

    helper = Helper()
    handlers = {"boss": boss, "helper": helper.helper}
    async with timed(server, namespace, asking(max_attempts=max_attempts), handlers, start=False) as t:
        runs = [await start(t, f"{number}") for number in range(20)]
        for delivery in await hand_out(t, "handoff", "boss", len(runs)):
            await t.bus.nc.publish(delivery.reply, b"-NAK")
        async with process(t):
            for run in runs:
                async with asyncio.timeout(WAIT_S):
                    while not await parked(t, run):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            helper.open.set()
            for number, run in enumerate(runs):
                assert value_of((await t.result(run)).outcome) == [f"SLOW {number} A", f"SLOW {number} B"]
        for run in runs:
            facts = [type(fact) for fact in await t.facts(run)]
            assert facts == [Begun, GivenBack]
            work = (await t.state(run)).steps["lead"].work
            assert work is not None
            assert work.attempt == 1
