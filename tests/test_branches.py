"""A merger that asks for `list[Branch[T]]` gets each branch in its place: its item, and its value or why it failed."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import pytest

from baton_actors import Branch
from baton_actors.agents.handlers import Handler
from baton_actors.errors import BadHandler, Fail
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Flow, JoinPolicy, Step
from baton_schemas.wire.outcomes import Failed

from .clients import fork_run
from .servers import NatsServer
from .team import flow_of, team, value_of

NUMBERS = {"numbers": Field(type="list[int]")}


class Half(msgspec.Struct):
    of: int


async def halves(item: int) -> dict[str, int]:
    if item % 2:
        raise Fail(f"{item} is odd")
    return {"of": item // 2}


async def told(each: list[Branch[Half]]) -> list[Any]:
    return [[b.index, b.item, b.value.of if b.value is not None else str(b.error)] for b in each]


def over_numbers(join: JoinPolicy | None = None, **options: Any) -> Flow:
    steps = {"each": Step(agent="each", each="numbers"), "merge": Step(agent="merge", after=["each"], join=join)}
    agents: dict[str, Any] = {"each": {"concurrency": 64, "reads": []}, "merge": {"reads": ["each"]}}
    return flow_of(steps, NUMBERS, agents, **{"on_error": "continue", **options})


async def test_failed_branch_keeps_its_place_its_item_and_its_error(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, over_numbers(), {"each": halves, "merge": told}) as t:
        run = await t.submit(numbers=[2, 3, 4])
        assert value_of((await t.result(run)).outcome) == [[0, 2, 1], [1, 3, "Fail: 3 is odd"], [2, 4, 2]]
        assert value_of((await t.run(numbers=[])).outcome) == []
        assert value_of((await t.run(numbers=[1])).outcome) == [[0, 1, "Fail: 1 is odd"]]
        stored = [b"[2,3,4]" in entry.data for entry in await t.log(run)]
        assert stored.count(True) == 1, "the first handoff alone has the list"


async def test_plain_list_stays_as_it_is_beside_branches(server: NatsServer, namespace: str) -> None:
    async def plain(each: list[Half]) -> list[int]:
        return [half.of for half in each]

    async def both(branches: list[int], merge: list[Any]) -> list[Any]:
        return [branches, merge]

    steps = {
        "each": Step(agent="each", each="numbers"),
        "branches": Step(agent="plain", after=["each"]),
        "merge": Step(agent="told", after=["each"]),
        "last": Step(agent="both", after=["branches", "merge"]),
    }
    flow = flow_of(steps, NUMBERS, on_error="continue")
    async with team(server.url, namespace, flow, {"each": halves, "plain": plain, "told": told, "both": both}) as t:
        result = await t.run(numbers=[2, 3])
        assert value_of(result.outcome) == [[1], [[0, 2, 1], [1, 3, "Fail: 3 is odd"]]]


@pytest.mark.parametrize("large", [False, True])
async def test_items_are_found_wherever_the_list_came_from(server: NatsServer, namespace: str, large: bool) -> None:
    """In the output of the step before, in that of one far before, or beside the log as it is large."""
    pad = "x" * (400 if large else 1)

    async def plan(text: str) -> dict[str, Any]:
        return {"topics": [{"n": n, "pad": pad} for n in range(3)]}

    async def far(text: str) -> list[str]:
        return ["a" + pad, "b" + pad]

    async def between(plan: dict[str, Any]) -> str:
        return "x"

    async def one(item: Any) -> int:
        return len(item)

    async def merge(near: list[Branch[int]], away: list[Branch[int]]) -> list[Any]:
        return [[b.item["n"] for b in near], [b.item[:1] for b in away]]

    steps = {
        "plan": Step(agent="plan"),
        "far": Step(agent="far"),
        "between": Step(agent="between", after=["plan", "far"]),
        "near": Step(agent="one", each="plan.topics"),
        "away": Step(agent="one", each="far", after=["between"]),
        "merge": Step(agent="merge", after=["near", "away"]),
    }
    flow = flow_of(steps, {"text": Field()})
    handlers = {"plan": plan, "far": far, "between": between, "one": one, "merge": merge}
    async with team(server.url, namespace, flow, handlers, inline_limit_bytes=1_024) as t:
        assert value_of((await t.run(text="x")).outcome) == [[0, 1, 2], ["a", "b"]]


async def test_branches_that_did_not_come_are_not_there_and_the_others_keep_their_places(
    server: NatsServer, namespace: str
) -> None:
    async def one_hangs(item: int) -> dict[str, int]:
        if item == 4:
            await asyncio.Event().wait()
        return await halves(item)

    flow = over_numbers(JoinPolicy(wait=2))
    async with team(server.url, namespace, flow, {"each": one_hangs, "merge": told}) as t:
        branches = value_of((await t.run(numbers=[2, 4, 6])).outcome)
        assert branches == [[0, 2, 1], [2, 6, 3]]


async def test_fork_gives_the_branches_that_it_took_over(server: NatsServer, namespace: str) -> None:
    broken = True

    async def at_last(each: list[Branch[Half]]) -> list[Any]:
        if broken:
            raise Fail("not yet")
        return await told(each)

    flow = over_numbers(on_error="continue")
    async with team(server.url, namespace, flow, {"each": halves, "merge": at_last}) as t:
        run = await t.submit(numbers=[2, 3])
        assert isinstance((await t.result(run)).outcome, Failed)
        broken = False
        again = await t.result(await fork_run(t.client, run))
        assert value_of(again.outcome) == [[0, 2, 1], [1, 3, "Fail: 3 is odd"]]


async def test_ten_thousand_branches_come_with_their_items(server: NatsServer, namespace: str) -> None:
    count = 10_000

    async def one(item: int) -> int:
        if item % 1_000 == 7:
            raise Fail("seven")
        return item

    async def merge(each: list[Branch[int]]) -> list[int]:
        assert all(b.index == b.item for b in each)
        return [len(each), sum(b.value or 0 for b in each), sum(b.error is not None for b in each)]

    steps = {"each": Step(agent="one", each="numbers"), "merge": Step(agent="merge", after=["each"])}
    agents = {"one": {"concurrency": 500, "max_in_flight": 2_000, "reads": []}}
    async with team(
        server.url, namespace, flow_of(steps, NUMBERS, agents, on_error="continue"), {"one": one, "merge": merge}
    ) as t:
        run = (await t.client.start(t.plan, numbers=list(range(count)))).id
        sevens = range(7, count, 1_000)
        assert value_of((await t.result(run)).outcome) == [count, sum(range(count)) - sum(sevens), len(sevens)]


async def test_value_that_does_not_fit_is_told_with_its_branch(server: NatsServer, namespace: str) -> None:
    async def text(item: int) -> str:
        return "x"

    async with team(server.url, namespace, over_numbers(), {"each": text, "merge": told}) as t:
        outcome = (await t.run(numbers=[1])).outcome
        assert isinstance(outcome, Failed)
        assert "at `each[0].value`" in outcome.error.message


# ---- when handlers are loaded -----------------------------------------------------------------------


async def nothing(each: list[int]) -> None: ...


async def optional(each: Annotated[list[Branch[int]] | None, "x"] = None) -> None: ...


async def bare(each: list[Branch]) -> None: ...  # type: ignore[type-arg]


async def of_input(numbers: list[Branch[int]]) -> None: ...


async def of_a_dict(each: dict[str, Branch[int]]) -> None: ...


async def alone(each: Branch[int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "asks"), [(nothing, set()), (told, {"each"}), (optional, {"each"}), (bare, {"each"})]
)
def test_parameter_says_whether_it_asks_for_branches(function: Any, asks: set[str]) -> None:
    assert Handler(function).asks(frozenset({"each"})) == asks


def test_branches_of_what_is_no_fan_out_are_refused_when_the_handler_is_loaded() -> None:
    flow = over_numbers()
    agents = {name: msgspec.structs.replace(agent, reads=["numbers"]) for name, agent in flow.agents.items()}
    plan = check_flow(msgspec.structs.replace(flow, agents=agents))
    with pytest.raises(BadHandler, match=r"'numbers' asks for list\[Branch\], and is no step with `each`"):
        Handler(of_input).check(plan, "merge")
    Handler(told).check(check_flow(flow), "merge")


@pytest.mark.parametrize("function", [of_a_dict, alone])
def test_branch_that_is_in_no_list_is_refused(function: Any) -> None:
    with pytest.raises(BadHandler, match=r"a Branch comes in a list: write list\[Branch\[T\]\]"):
        Handler(function)


def test_branch_is_decoded_and_encoded_as_any_struct() -> None:
    branch = Branch(index=1, item={"id": 7}, value=Half(of=2))
    assert msgspec.json.decode(msgspec.json.encode(branch), type=Branch[Half]) == branch
