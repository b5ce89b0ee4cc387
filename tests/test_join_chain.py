"""What a join closes with: all that it waits for, what the chain in the log names, and what its branches carried."""

from __future__ import annotations

import asyncio
from typing import Any

from baton_actors.errors import Fail
from baton_schemas.flow.flow import Field, JoinPolicy, Step
from baton_schemas.run.refs import joined
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Join
from baton_schemas.wire.outcomes import Error

from .servers import NatsServer
from .team import Team, flow_of, kind_of, team, value_of
from .timed import until_so

NUMBERS = {"numbers": Field(type="list[int]")}
BURST = 200


class Branches:
    """Branches that end when they are told to."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Event] = {}

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self._event(number).set()

    async def branch(self, item: int) -> int:
        await self._event(item).wait()
        return item

    def _event(self, number: int) -> asyncio.Event:
        return self._open.setdefault(number, asyncio.Event())


async def same(item: int) -> int:
    return item


async def merge(each: list[int], errors: list[Error]) -> list[int]:
    return each


def over_numbers(join: JoinPolicy | None = None) -> Any:
    steps = {
        "each": Step(agent="each", each="numbers"),
        "merge": Step(agent="merge", after=["each"], join=join or JoinPolicy()),
    }
    return flow_of(steps, NUMBERS)


async def links_of(t: Team, run: str) -> list[Join]:
    return [entry.message for entry in await t.log(run) if isinstance(entry.message, Join)]


async def until_links(t: Team, run: str, count: int) -> None:
    """Wait for so many links; fail the test when the join closes with fewer."""
    links: list[Join] = []

    async def are_there() -> bool:
        entries = await t.log(run)
        links[:] = [entry.message for entry in entries if isinstance(entry.message, Join)]
        return len(links) >= count or any(kind_of(entry) == "result" for entry in entries)

    await until_so(are_there)
    assert len(links) >= count


async def closing_of(t: Team, run: str) -> Handoff:
    found: list[Handoff] = []

    async def is_there() -> bool:
        found.extend(
            entry.message
            for entry in await t.log(run)
            if isinstance(entry.message, Handoff) and joined(entry.message) is not None
        )
        return bool(found)

    await until_so(is_there)
    return found[0]


async def test_join_waits_for_the_last_of_its_branches(server: NatsServer, namespace: str) -> None:
    branches = Branches()
    async with team(server.url, namespace, over_numbers(), {"each": branches.branch, "merge": merge}) as t:
        run = await t.submit(numbers=[0, 1, 2, 3])
        for number in range(4):
            branches.end(number)
            await until_links(t, run, number + 1)
        assert value_of((await t.result(run)).outcome) == [0, 1, 2, 3]


async def test_merger_is_told_of_errors_that_its_branches_carried(server: NatsServer, namespace: str) -> None:
    async def fails(numbers: list[int]) -> int:
        raise Fail("first")

    async def goes_on() -> str:
        return "went on"

    async def tells(errors: list[Error]) -> list[str]:
        return [error.message for error in errors]

    steps = {
        "a": Step(agent="fails", on_error="continue"),
        "b": Step(agent="goes_on", after=["a"]),
        "c": Step(agent="goes_on", after=["a"]),
        "d": Step(agent="tells", after=["b", "c"]),
    }
    handlers = {"fails": fails, "goes_on": goes_on, "tells": tells}
    async with team(server.url, namespace, flow_of(steps, NUMBERS), handlers) as t:
        assert value_of((await t.run(numbers=[])).outcome) == ["first"]


async def test_join_closes_with_the_branches_that_its_chain_names_and_no_others(
    server: NatsServer, namespace: str
) -> None:
    branches = Branches()
    flow = over_numbers(JoinPolicy(wait=2))
    async with team(server.url, namespace, flow, {"each": branches.branch, "merge": merge}) as t:
        run = await t.submit(numbers=[0, 1, 2, 3])
        for count, number in enumerate((3, 1), start=1):
            branches.end(number)
            await until_links(t, run, count)
        closed = joined(await closing_of(t, run))
        assert closed is not None
        assert closed.branches == {"each": "1,3"}
        assert value_of((await t.result(run)).outcome) == [1, 3]
        branches.end(0, 2)


async def test_link_that_another_process_wrote_is_read_and_never_overwritten(
    server: NatsServer, namespace: str
) -> None:
    branches = Branches()
    async with team(server.url, namespace, over_numbers(), {"each": branches.branch, "merge": merge}) as t:
        run = await t.submit(numbers=[0, 1, 2])
        branches.end(0)
        await until_links(t, run, 1)
        (mine,) = await links_of(t, run)
        theirs = Join(
            run=run,
            flow="flow",
            digest=mine.digest,
            start_seq=mine.start_seq,
            step="merge",
            number=2,
            came={"each": "1"},
        )
        await t.bus.publisher.append(t.bus.subjects.join(t.actor("merge"), run, "merge", 2), encode(theirs))
        branches.end(1, 2)
        assert value_of((await t.result(run)).outcome) == [0, 1, 2]
        assert [(link.number, link.came) for link in await links_of(t, run)] == [
            (number + 1, {"each": str(number)}) for number in range(3)
        ]


async def test_replies_that_come_together_are_named_together(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, over_numbers(), {"each": same, "merge": merge}, start=False) as t:
        async with t.process("each"):
            run = await t.submit(numbers=list(range(BURST)))
            await t.until_settled("handoff", "each")
        async with t.process("merge"):
            assert value_of((await t.result(run)).outcome) == list(range(BURST))
        assert len(await links_of(t, run)) <= BURST // 10
