"""A step that is parked upon several answers is brought back once: by the first, whatever the others do meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from baton_actors import Context
from baton_bus.engine.asking import Asking
from baton_schemas.wire.messages import Handoff, Parked, Woken

from .servers import NatsServer, until
from .team import Team, value_of
from .test_asking import answers, asking, parked
from .test_asking_faults import check_answers
from .test_asking_races import Apart, first
from .timed import process, timed

RUNS = 30


async def wakings(t: Team, run: str) -> list[Woken]:
    messages = [entry.message for entry in await t.log(run)]
    return [each.cause for each in messages if isinstance(each, Handoff) and isinstance(each.cause, Woken)]


async def until_answered(t: Team, run: str, count: int) -> None:
    async with asyncio.timeout(20):
        while len(await answers(t, run)) < count:  # noqa: ASYNC110 (the broker sets no event of ours)
            await asyncio.sleep(0.01)


class Boss:
    """Goes on at the first of two answers, or from there to both, once it is let through."""

    def __init__(self, *, both: bool = False) -> None:
        self.both = both
        self.began = 0
        self.came: list[str] = []
        self.hold = asyncio.Event()

    async def boss(self, text: str, context: Context) -> str:
        self.began += 1
        tasks = [asyncio.ensure_future(context.ask("helper", topic=topic)) for topic in ("one", "two")]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self.came.append("first")
        await self.hold.wait()
        if self.both:
            return "".join(map(str, await asyncio.gather(*tasks)))
        for task in tasks:
            task.cancel()
        return str(next(task.result() for task in tasks if task.done() and not task.cancelled()))


async def test_second_answer_begins_nothing_beside_the_step_that_the_first_one_woke(
    server: NatsServer, namespace: str
) -> None:
    boss, helper = Boss(), Apart()
    flow = asking(park_after_s=0.2)
    async with timed(server, namespace, flow, {"boss": boss.boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        assert len(await parked(t, run)) == 2
        helper.doors["one"].set()
        await until(lambda: boss.came)
        helper.doors["two"].set()
        await t.until_settled("handoff", "helper")  # what follows from its answer is written
        (woken,) = await wakings(t, run)
        assert {each.wakes.parked for each in await answers(t, run) if each.wakes} == {woken.parked}
        boss.hold.set()
        assert value_of((await t.result(run)).outcome) == "ONE"
        assert boss.began == 2
        await check_answers(t, run)


async def test_second_answer_is_not_lost_when_who_was_woken_by_the_first_dies(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        """What a worker does that is killed: it says nothing any more."""

    boss, helper = Boss(both=True), Apart()
    flow = asking(park_after_s=0.2)
    handlers = {"boss": boss.boss, "helper": helper.helper}
    async with timed(server, namespace, flow, handlers, start=False, lease_s=1.0) as t, process(t, "helper"):
        async with process(t, "boss"):
            run = await t.submit(text="a")
            await t.until_settled("handoff", "boss")
        with monkeypatch.context() as broken:
            broken.setattr("baton_actors.processes.worker.settle", never)
            async with t.process("boss", grace_s=0.01):
                helper.doors["one"].set()
                await until(lambda: boss.came)
                helper.doors["two"].set()
                await until_answered(t, run, 2)
        boss.hold.set()
        async with process(t, "boss"):
            assert value_of((await t.result(run)).outcome) == "ONETWO"
        assert len(await wakings(t, run)) == 1
        await check_answers(t, run)


async def test_step_that_is_parked_again_upon_the_other_is_brought_back_by_it(
    server: NatsServer, namespace: str
) -> None:
    """Its mark there is a new one: the waking of the first parking has been."""
    boss, helper = Boss(both=True), Apart()
    boss.hold.set()
    flow = asking(park_after_s=0.2)
    async with timed(server, namespace, flow, {"boss": boss.boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        helper.doors["two"].set()
        await until(lambda: boss.came)
        await t.until_settled("handoff", "boss")
        one, two, again = await parked(t, run)
        (answer,) = await answers(t, run)
        assert {again.child, answer.child} == {one.child, two.child}
        assert (one.first, again.first) == (0, 0)
        assert two.first != 0
        helper.doors["one"].set()
        assert value_of((await t.result(run)).outcome) == "ONETWO"
        assert boss.began == 3
        assert len({woken.parked for woken in await wakings(t, run)}) == 2
        await check_answers(t, run)


@pytest.mark.parametrize("comes", [0, 1], ids=["where a mark is", "where none is yet"])
async def test_answer_that_comes_while_a_step_is_being_parked_goes_to_one_worker(
    server: NatsServer, namespace: str, comes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss, helper = Boss(), Apart()
    boss.hold.set()
    real, go_on = Asking._mark, asyncio.Event()
    marked: list[Parked] = []

    async def marks(self: Asking, place: str, mark: Parked, seen: Any) -> int | None:
        if marked and not go_on.is_set():  # between the first and the second
            await go_on.wait()
        marked.append(mark)
        return await real(self, place, mark, seen)

    monkeypatch.setattr(Asking, "_mark", marks)
    flow = asking(park_after_s=0.2)
    async with timed(server, namespace, flow, {"boss": boss.boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await until(lambda: marked)
        topics = await topics_of(t, run)
        other = next(token for token in topics if token != marked[0].child)
        topic = topics[marked[0].child if comes == 0 else other]
        helper.doors[topic].set()
        await until_answered(t, run, 1)
        go_on.set()
        assert value_of((await t.result(run)).outcome) == topic.upper()
        assert boss.came == ["first"], "nobody goes on who has begun to park the step"
        assert boss.began == 2
        assert len(await wakings(t, run)) == 1


async def topics_of(t: Team, run: str) -> dict[str, str]:
    """By the tokens of what was asked."""
    asked = [each.message for each in await t.log(run) if isinstance(each.message, Handoff)]
    return {
        each.step: bytes(each.state.input["topic"]).decode().strip('"') for each in asked if "topic" in each.state.input
    }


async def test_nobody_goes_on_with_a_step_once_another_has_begun_it(server: NatsServer, namespace: str) -> None:
    began: Counter[str] = Counter()
    stale: list[str] = []

    async def boss(text: str, context: Context) -> str:
        began[text] += 1
        ours = began[text]

        async def chain(name: str) -> str:
            found = name
            for _ in range(2):
                found = str(await context.ask("helper", topic=found))
                if began[text] != ours:
                    stale.append(text)
            return found

        one = await first(*(chain(f"{text}{name}") for name in "abc"))
        both = await asyncio.gather(chain(f"{text}d"), chain(f"{text}e"))
        return f"{len(one)} {len(both)}"

    async def helper(topic: str) -> str:
        await asyncio.sleep(random.random() / 8)
        return topic + "."

    flow = asking(park_after_s=0.03, max_asks=100)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper}) as t:
        started = [await t.submit(text=f"{number:02}") for number in range(RUNS)]
        for run in started:
            assert value_of((await t.result(run)).outcome) == "5 2"
        woken = [len(await wakings(t, run)) for run in started]
        assert stale == []
        assert sum(woken) > RUNS
        assert sum(began.values()) <= RUNS + sum(woken)


async def test_what_began_while_a_step_was_being_parked_is_ended_first(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, marking, made_one = Asking._mark, asyncio.Event(), asyncio.Event()
    began: list[int] = []
    made: list[str] = []

    async def marks(self: Asking, place: str, mark: Parked, seen: Any) -> int | None:
        marking.set()
        await until(lambda: made)
        return await real(self, place, mark, seen)

    async def boss(text: str, context: Context) -> str:
        began.append(context.attempt)

        async def makes(name: str) -> str:
            made.append(name)
            await made_one.wait()
            return name

        asked = asyncio.ensure_future(context.ask("helper", topic="slow"))
        await marking.wait()
        one = await context.record("one", makes, "one")
        two = await context.record("two", makes, "two")
        return f"{one} {two} {await asked}"

    helper = Apart()
    monkeypatch.setattr(Asking, "_mark", marks)
    flow = asking(park_after_s=0.1)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        async with asyncio.timeout(20):
            while not await parked(t, run):  # noqa: ASYNC110 (the broker sets no event of ours)
                await asyncio.sleep(0.01)
        assert made == ["one"]
        made_one.set()
        await t.until_settled("handoff", "boss")
        assert made == ["one"], "nothing is begun in a step that is parked"
        helper.doors["slow"].set()
        assert value_of((await t.result(run)).outcome) == "one two SLOW"
        assert made == ["one", "two"]
        assert len(began) == 2
