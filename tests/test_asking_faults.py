"""Asking while things break: the server goes and comes back, two workers hold one step, parking races with answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from baton_actors import Context
from baton_actors.agents.asks import AskFailed
from baton_actors.steps.asking import StepAsks
from baton_bus.engine.asking import Asking
from baton_bus.engine.journal import Journal
from baton_bus.errors import BusUnavailable
from baton_bus.jetstream.leases import LeaseKeeper
from baton_bus.store.timers import Timers
from baton_schemas.wire.facts import Fact, Recorded, Unasked
from baton_schemas.wire.messages import Answer, Handoff, Note, Parked, Woken

from .servers import NatsServer, nats_server, until
from .team import Team, team, value_of
from .test_asking import Helper, answers, asking, children, parked
from .timed import process, timed

MANY = 60
SLOW_S = 0.6


async def until_asked(t: Team, run: str, count: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(await children(t, run)) < count:  # noqa: ASYNC110 (the broker sets no event of ours)
            await asyncio.sleep(0.01)


async def check_answers(t: Team, run: str) -> None:
    """One answer a child, behind words that the step is parked; and each that wakes is followed by that."""
    seen: dict[str, list[type]] = {}
    woken = {
        entry.message.cause.parked
        for entry in await t.log(run)
        if isinstance(entry.message, Handoff) and isinstance(entry.message.cause, Woken)
    }
    for entry in await t.log(run):
        if isinstance(entry.message, Answer | Parked):
            seen.setdefault(entry.subject, []).append(type(entry.message))
        if isinstance(entry.message, Answer) and entry.message.wakes:
            assert entry.message.wakes.parked in woken
    assert all({*found[:-1]} <= {Parked} and found[-1] is Answer for found in seen.values()), seen
    assert len(seen) == len(set(await children(t, run)))


async def test_server_that_comes_back_finds_the_step_waiting(tmp_path: Path) -> None:
    async def boss(text: str, context: Context) -> list[str]:
        return list(await context.gather(*(context.ask("helper", topic=f"slow{number}") for number in range(20))))

    helper = Helper()
    async with (
        nats_server(tmp_path) as server,
        team(server.url, "faults", asking(), {"boss": boss, "helper": helper.helper}, lease_s=2.0) as t,
    ):
        run = await t.submit(text="a")
        await until_asked(t, run, 20)
        await server.kill()
        helper.open.set()
        await server.restart()
        assert value_of((await t.result(run)).outcome) == [f"SLOW{number}" for number in range(20)]
        assert sorted(set(helper.asked)) == sorted(f"slow{number}" for number in range(20))
        await check_answers(t, run)


async def test_connection_that_is_lost_loses_no_answer(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic="slow"))

    helper = Helper()
    handlers = {"boss": boss, "helper": helper.helper}
    async with team(server.url, namespace, asking(), handlers, start=False) as t:
        async with t.process("boss") as bus, t.process("helper"):
            run = await t.submit(text="a")
            await until(lambda: helper.asked)
            bus.nc._transport.close()  # type: ignore[union-attr]  # as if a cable were pulled
            helper.open.set()
            assert value_of((await t.result(run)).outcome) == "SLOW"
        await check_answers(t, run)


async def test_two_workers_that_hold_one_step_ask_once(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        pass

    seen: list[list[Any]] = []
    began: list[int] = []

    async def boss(text: str, context: Context) -> list[Any]:
        began.append(context.attempt)
        number = await context.record("number", random.random)
        both = await context.gather(("helper", {"topic": f"slow{number}"}), ("helper", {"topic": "slow"}))
        seen.append([number, *both])
        return [number, *both]

    monkeypatch.setattr(LeaseKeeper, "_renew", never)  # leases lapse, and others are handed the step
    monkeypatch.setattr("baton_bus.jetstream.consumer.Puller._keep_leases", lambda _: None)
    helper = Helper()
    handlers = {"boss": boss, "helper": helper.helper}
    async with timed(server, namespace, asking(), handlers, start=False, lease_s=0.7) as t:
        async with process(t, "boss"), process(t, "boss"), process(t, "helper"):
            run = await t.submit(text="a")
            await until_asked(t, run, 2)
            await until(lambda: len(began) > 1)  # its lease has lapsed, and another has it too
            helper.open.set()
            result = value_of((await t.result(run)).outcome)
        assert all(each == result for each in seen)
        assert len(set(await children(t, run))) == 2
        await check_answers(t, run)


async def test_parking_and_answering_at_the_same_time_lose_nothing(server: NatsServer, namespace: str) -> None:
    runs = 0

    async def boss(text: str, context: Context) -> str:
        nonlocal runs
        runs += 1
        first = await context.ask("helper", topic=text)
        return str(await context.ask("helper", topic=first))

    async def helper(topic: str) -> str:
        await asyncio.sleep(0.05 + random.random() / 10)  # `park_after_s`, more or less
        return topic + "."

    flow = asking(park_after_s=0.1)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper}) as t:
        started = [await t.submit(text=str(number)) for number in range(MANY)]
        for number, run in enumerate(started):
            assert value_of((await t.result(run)).outcome) == f"{number}.."
            await check_answers(t, run)
        assert runs >= MANY
        found = [len(await parked(t, run)) for run in started]
        assert 0 < sum(found) < 2 * MANY, "some were parked, and some were not"


@pytest.mark.parametrize("operation", ["ask", "park", "of_step", "some", "record"])
async def test_bus_that_refuses_for_a_while_costs_no_attempt(
    server: NatsServer, namespace: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_actors.steps.sure._AGAIN_S", 0.05)
    monkeypatch.setattr("baton_actors.steps.parking._AGAIN_S", 0.05)
    monkeypatch.setattr("baton_actors.processes.worker._BUS_RETRY_S", 0.05)
    real, refused = getattr(Asking, operation), 0

    async def refuses(self: Asking, *args: Any, **more: Any) -> Any:
        nonlocal refused
        refused += 1
        if refused <= 2:
            raise BusUnavailable("a write", 0.0)
        return await real(self, *args, **more)

    attempts: list[int] = []

    async def boss(text: str, context: Context) -> str:
        attempts.append(context.attempt)
        first = await context.ask("helper", topic="quick")
        return str(first + await context.ask("helper", topic="slow"))

    helper = Helper()
    flow = asking(park_after_s=0.1)
    monkeypatch.setattr(Asking, operation, refuses)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        helper.open.set()
        assert value_of((await t.result(run)).outcome) == "QUICKSLOW"
        assert set(attempts) == {1}
        if operation != "some":  # which is for a child that another worker had asked for
            assert refused > 2
        await check_answers(t, run)
        assert len(await answers(t, run)) == 2


async def test_worker_that_dies_after_the_answer_and_before_the_wake_is_finished_by_another(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is stored and says whom it wakes; whoever holds the child's handoff next writes what follows."""

    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic="slow"))

    helper = Helper()
    handlers = {"boss": boss, "helper": helper.helper}
    async with timed(server, namespace, asking(park_after_s=0.1), handlers, start=False, lease_s=1.0) as t:
        derived = asyncio.Event()

        async def dies(*_: Any) -> None:
            derived.set()
            await asyncio.Event().wait()

        async with process(t, "boss"):
            run = await t.submit(text="a")
            await t.until_settled("handoff", "boss")
        with monkeypatch.context() as broken:
            broken.setattr("baton_bus.engine.engine.Engine.derive", dies)
            async with t.process("helper", grace_s=0.01):
                helper.open.set()
                await derived.wait()
        (answer,) = await answers(t, run)
        assert answer.wakes
        async with process(t, "boss", "helper"):
            assert value_of((await t.result(run)).outcome) == "SLOW"
        assert helper.asked == ["slow"]
        await check_answers(t, run)


def slow(real: Callable[..., Any]) -> Callable[..., Any]:
    async def slowly(*args: Any, **more: Any) -> Any:
        await asyncio.sleep(SLOW_S)
        return await real(*args, **more)

    return slowly


async def test_step_that_is_parked_at_once_is_not_so_before_its_deadline_is_set(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def boss(text: str, context: Context) -> str:
        try:
            return str(await context.ask("helper", topic="slow", deadline_s=1.0))
        except AskFailed as error:
            return error.error.type

    helper = Helper()
    monkeypatch.setattr("baton_actors.steps.hearing.HELD_PART", 10**9)  # none is held
    monkeypatch.setattr(Timers, "at", slow(Timers.at))
    async with timed(server, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "DeadlinePassed"
        assert len(await parked(t, run)) == 1
        helper.open.set()
        await t.until_settled("handoff", "helper")


async def test_sleep_of_a_worker_that_is_gone_is_parked_with_its_timer(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was short, so that the first meant to wait for it here; the next finds it, and may be parked at once."""
    attempts: list[int] = []

    async def boss(text: str, context: Context) -> int:
        attempts.append(1)
        sleep = asyncio.ensure_future(context.sleep(SLOW_S / 3))
        if len(attempts) == 1:
            await until_asked(t, context.run)
            raise RuntimeError("as if it had died")
        await sleep
        return len(attempts)

    monkeypatch.setattr(Asking, "some", slow(Asking.some))
    flow = asking(retry_base_s=0.01, park_after_s=SLOW_S / 2)
    async with timed(server, namespace, flow, {"boss": boss, "helper": Helper().helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) >= 2
        await check_answers(t, run)


async def test_what_was_recorded_while_a_suspect_waited_for_its_turn_is_not_made_again(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second worker looks at the log, waits for its turn, and looks again: that look counts."""
    made: list[int] = []
    hold = asyncio.Event()

    def draw() -> int:
        made.append(1)
        return len(made)

    async def boss(text: str, context: Context) -> int:
        drawn = await context.record("drawn", draw)
        if not hold.is_set():
            hold.set()
            await asyncio.Event().wait()  # until its worker is gone
        return int(drawn)

    seen: list[int] = []
    real = StepAsks.knows

    def knows(self: StepAsks, notes: Sequence[Note]) -> None:
        seen.append(sum(isinstance(note.fact, Recorded) for note in notes))
        real(self, notes)

    async def blind(*_: Any) -> list[Note]:
        return []

    monkeypatch.setattr(StepAsks, "knows", knows)
    async with timed(
        server, namespace, asking(), {"boss": boss, "helper": Helper().helper}, start=False, lease_s=1.0
    ) as t:
        with monkeypatch.context() as broken:
            broken.setattr("baton_bus.jetstream.consumer.Puller.settle", _never)
            async with t.process("boss", grace_s=0.01):
                run = await t.submit(text="a")
                await hold.wait()
        with monkeypatch.context() as broken:
            broken.setattr("baton_actors.steps.doing.look", blind)  # as if it had looked before anything was recorded
            async with process(t, "boss"):
                assert value_of((await t.result(run)).outcome) == 1
        assert made == [1]
        assert seen == [1]


async def _never(*_: Any) -> None:
    """What a worker does that is killed: it says nothing any more."""


async def test_step_whose_note_on_what_it_asks_no_more_is_refused_is_parked_all_the_same(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_actors.steps.parking._AGAIN_S", 0.05)
    real, refused = Journal.write, 0

    async def refuses(self: Journal, fact: Fact) -> Fact:
        nonlocal refused
        if isinstance(fact, Unasked) and refused < 2:
            refused += 1
            raise BusUnavailable("a note", 0.0)
        return await real(self, fact)

    attempts: list[int] = []

    async def boss(text: str, context: Context) -> str:
        attempts.append(context.attempt)
        if context.attempt == 1:
            await context.ask("helper", topic="quick")
            raise RuntimeError("again")
        return str(await context.ask("helper", topic="slow"))

    helper = Helper()
    monkeypatch.setattr(Journal, "write", refuses)
    async with timed(server, namespace, asking(park_after_s=0.1), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        async with asyncio.timeout(20):
            while not await parked(t, run):  # noqa: ASYNC110 (the broker sets no event of ours)
                await asyncio.sleep(0.01)
        helper.open.set()
        assert value_of((await t.result(run)).outcome) == "SLOW"
        assert refused == 2
        assert set(attempts) == {1, 2}
        await check_answers(t, run)
