"""A handler that goes on at the first of several answers, and is parked: whichever comes first brings it back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from baton_actors import Context

from .servers import NatsServer
from .team import value_of
from .test_asking import Helper, asking, parked
from .timed import timed


class Apart(Helper):
    """Holds what is called `slow` until it is let through by name."""

    def __init__(self) -> None:
        super().__init__()
        self.doors: dict[str, asyncio.Event] = {}

    async def helper(self, topic: str) -> str:
        self.asked.append(topic)
        await self.doors.setdefault(topic, asyncio.Event()).wait()
        return topic.upper()


async def first(*asked: Any) -> Any:
    tasks = [asyncio.ensure_future(each) for each in asked]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for each in others:
        each.cancel()
    return done.pop().result()


class Found(Exception):
    """How a group is left."""

    def __init__(self, what: str) -> None:
        self.what = what


async def first_of_group(*asked: Any) -> Any:
    async def one(each: Any) -> None:
        raise Found(await each)

    try:
        async with asyncio.TaskGroup() as group:
            for each in asked:
                group.create_task(one(each))
    except BaseExceptionGroup as group_left:
        (found,) = group_left.exceptions
        assert isinstance(found, Found)
        return found.what


@pytest.mark.parametrize("comes", ["one", "two", "three"])
@pytest.mark.parametrize("race", [first, first_of_group])
async def test_any_of_several_answers_wakes_a_step_that_may_go_on_with_it(
    server: NatsServer, namespace: str, race: Any, comes: str
) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await race(*(context.ask("helper", topic=topic) for topic in ("one", "two", "three"))))

    helper = Apart()
    async with timed(server, namespace, asking(park_after_s=0.2), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        assert len(await parked(t, run)) == 3
        helper.doors[comes].set()
        assert value_of((await t.result(run)).outcome) == comes.upper()


async def test_race_among_what_is_gathered_is_won_by_whoever_comes_first(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> list[str]:
        async def either() -> str:
            return str(await first(context.ask("helper", topic="two"), context.ask("helper", topic="three")))

        return list(await context.gather(context.ask("helper", topic="one"), either()))

    helper = Apart()
    async with timed(server, namespace, asking(park_after_s=0.2), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        assert len(await parked(t, run)) == 3
        helper.doors["one"].set()
        helper.doors["three"].set()
        assert value_of((await t.result(run)).outcome) == ["ONE", "THREE"]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_step_that_needs_all_that_it_gathers_is_parked_upon_one(
    server: NatsServer, namespace: str, in_thread: bool
) -> None:
    topics = ["one", "two", "three"]

    async def boss(text: str, context: Context) -> list[str]:
        return list(await context.gather(*(context.ask("helper", topic=topic) for topic in topics)))

    def plain(text: str, context: Context) -> list[str]:
        return list(context.gather(*(("helper", {"topic": topic}) for topic in topics)))

    helper = Apart()
    handlers = {"boss": plain if in_thread else boss, "helper": helper.helper}
    async with timed(server, namespace, asking(park_after_s=0.2), handlers) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        assert len(await parked(t, run)) == 1
        for topic in topics:
            helper.doors[topic].set()
        assert value_of((await t.result(run)).outcome) == ["ONE", "TWO", "THREE"]


async def test_step_is_parked_upon_no_more_than_anybody_asks_to_hear_the_first_of(
    server: NatsServer, namespace: str
) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await first(*(context.ask("helper", topic=f"{number}") for number in range(25))))

    helper = Apart()
    async with timed(server, namespace, asking(park_after_s=0.2), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        assert len(await parked(t, run)) == 20
        for door in list(helper.doors.values()):
            door.set()
        assert value_of((await t.result(run)).outcome) in [str(number) for number in range(25)]
