"""Fan-outs, static and over lists: every branch once, in the order of the flow, whatever finishes first."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.messages import Handoff

from .servers import NatsServer
from .team import branches_of, flow_of, kind_of, team, value_of

TEXT = {"text": Field()}
TEXTS = {"texts": Field(type="list[str]")}


async def echo(text: str) -> str:
    return text


async def split(text: str) -> list[str]:
    return text.split()


async def upper(item: str, index: int) -> str:
    await asyncio.sleep(0.002 * (5 - index))  # so that the last is the first to end
    return item.upper()


async def merge(each: list[str]) -> list[str]:
    return each


async def test_three_successors_of_one_step_are_joined_by_the_next(server: NatsServer, namespace: str) -> None:
    async def suffixed(a: str, context: Any = None) -> str:
        return a

    async def join(b: str, c: str, d: str) -> str:
        return f"{b} {c} {d}"

    steps = {
        "a": Step(agent="a"),
        **{name: Step(agent="same", after=["a"]) for name in "bcd"},
        "e": Step(agent="join", after=["b", "c", "d"]),
    }
    async with team(server.url, namespace, flow_of(steps, TEXT), {"a": echo, "same": suffixed, "join": join}) as t:
        run = await t.submit(text="x")
        result = await t.result(run)

        assert value_of(result.outcome) == "x x x"
        kinds = await t.kinds(run)
        assert {kind: kinds.count(kind) for kind in set(kinds) - {"join"}} == {
            "handoff": 1 + 3 + 1,
            "outcome": 1,
            "reply": 3,
            "result": 1,
        }
        assert 1 <= kinds.count("join") <= 3


async def test_flow_with_several_first_steps_begins_with_one_message(server: NatsServer, namespace: str) -> None:
    async def join(a: str, b: str) -> str:
        return a + b

    steps = {"a": Step(agent="echo"), "b": Step(agent="echo"), "c": Step(agent="join", after=["a", "b"])}
    async with team(server.url, namespace, flow_of(steps, TEXT), {"echo": echo, "join": join}, start=False) as t:
        run = await t.submit(text="x")
        assert await t.kinds(run) == ["handoff"]
        async with t.process():
            assert value_of((await t.result(run)).outcome) == "xx"


async def test_branches_over_a_list_of_the_input_keep_its_order(server: NatsServer, namespace: str) -> None:
    steps = {"each": Step(agent="upper", each="texts"), "merge": Step(agent="merge", after=["each"])}
    async with team(server.url, namespace, flow_of(steps, TEXTS), {"upper": upper, "merge": merge}) as t:
        assert value_of((await t.run(texts=["a", "b", "c", "d", "e"])).outcome) == ["A", "B", "C", "D", "E"]


async def test_branches_over_a_list_of_a_step_keep_its_order(server: NatsServer, namespace: str) -> None:
    steps = {
        "split": Step(agent="split"),
        "each": Step(agent="upper", each="split"),
        "merge": Step(agent="merge", after=["each"]),
    }
    handlers = {"split": split, "upper": upper, "merge": merge}
    async with team(server.url, namespace, flow_of(steps, TEXT), handlers) as t:
        run = await t.submit(text="a b c")
        assert value_of((await t.result(run)).outcome) == ["A", "B", "C"]
        closing = [entry.message for entry in await t.log(run) if entry.subject.endswith(".join")]
        assert [branches_of(handoff) for handoff in closing if isinstance(handoff, Handoff)] == [
            ["each-0", "each-1", "each-2"]
        ]


async def test_list_within_the_output_of_an_earlier_step_is_fanned_out_over(server: NatsServer, namespace: str) -> None:
    async def plan(text: str) -> dict[str, Any]:
        return {"plan": {"topics": text.split()}}

    async def check(first: dict[str, Any]) -> int:
        return len(first)

    steps = {
        "first": Step(agent="plan"),
        "check": Step(agent="check", after=["first"]),
        "each": Step(agent="upper", each="first.plan.topics", after=["check"]),
        "merge": Step(agent="merge", after=["each"]),
    }
    handlers = {"plan": plan, "check": check, "upper": upper, "merge": merge}
    async with team(server.url, namespace, flow_of(steps, TEXT), handlers) as t:
        assert value_of((await t.run(text="a b")).outcome) == ["A", "B"]


@pytest.mark.parametrize("first", ["input", "step"])
async def test_empty_list_closes_the_join_at_once_with_nothing(first: str, server: NatsServer, namespace: str) -> None:
    steps = {"each": Step(agent="upper", each="texts"), "merge": Step(agent="merge", after=["each"])}
    fields, given = TEXTS, cast(dict[str, Any], {"texts": []})
    if first == "step":
        steps |= {"split": Step(agent="split"), "each": Step(agent="upper", each="split")}
        fields, given = TEXT, {"text": ""}
    handlers = {"split": split, "upper": upper, "merge": merge}
    async with team(server.url, namespace, flow_of(steps, fields), handlers) as t:
        run = await t.submit(**given)
        assert value_of((await t.result(run)).outcome) == []
        assert not any("each-0" in entry.subject for entry in await t.log(run))


async def test_empty_list_beside_another_branch_holds_nothing_up(server: NatsServer, namespace: str) -> None:
    async def both(each: list[str], other: str) -> str:
        return f"{each} {other}"

    steps = {
        "each": Step(agent="upper", each="texts"),
        "other": Step(agent="echo"),
        "both": Step(agent="both", after=["each", "other"]),
    }
    handlers = {"upper": upper, "echo": echo, "both": both}
    async with team(server.url, namespace, flow_of(steps, TEXTS | TEXT), handlers) as t:
        assert value_of((await t.run(texts=[], text="x")).outcome) == "[] x"


async def test_two_mergers_after_one_fan_out_both_get_all_of_it(server: NatsServer, namespace: str) -> None:
    async def count(each: list[str]) -> int:
        return len(each)

    async def report(merge: list[str], count: int) -> str:
        return f"{count}: {' '.join(merge)}"

    steps = {
        "each": Step(agent="upper", each="texts"),
        "merge": Step(agent="merge", after=["each"]),
        "count": Step(agent="count", after=["each"]),
        "report": Step(agent="report", after=["merge", "count"]),
    }
    handlers = {"upper": upper, "merge": merge, "count": count, "report": report}
    async with team(server.url, namespace, flow_of(steps, TEXTS), handlers) as t:
        assert value_of((await t.run(texts=["a", "b", "c"])).outcome) == "3: A B C"


async def test_run_of_more_subjects_than_one_read_takes_ends_and_reads_back(server: NatsServer, namespace: str) -> None:
    async def many(text: str) -> list[int]:
        return list(range(1_100))

    async def same(item: int) -> int:
        return item

    async def check(each: list[int]) -> bool:
        return each == list(range(1_100))

    steps = {
        "many": Step(agent="many"),
        "each": Step(agent="same", each="many"),
        "check": Step(agent="check", after=["each"]),
    }
    flow = flow_of(steps, TEXT, {"same": {"concurrency": 256, "max_in_flight": 2_000}})
    async with team(server.url, namespace, flow, {"many": many, "same": same, "check": check}) as t:
        run = await t.submit(text="x")
        assert value_of((await t.result(run)).outcome) is True
        entries = await t.bus.log.run(run)
        kinds = [kind_of(entry) for entry in entries]
        assert [kinds.count(kind) for kind in ("reply", "handoff", "result")] == [1_100, 1_102, 1]
        assert [entry.seq for entry in entries] == sorted({entry.seq for entry in entries})
        assert kinds.count("join") < 50 <= len(kinds)


async def test_merger_in_another_process_reads_the_branches_from_the_log(server: NatsServer, namespace: str) -> None:
    async def numbers(text: str) -> list[int]:
        return list(range(100))

    async def same(item: int) -> int:
        return item

    async def total(each: list[int]) -> int:
        return sum(each)

    steps = {
        "numbers": Step(agent="numbers"),
        "each": Step(agent="same", each="numbers"),
        "total": Step(agent="total", after=["each"]),
    }
    flow = flow_of(steps, TEXT, {"total": {"concurrency": 1}})
    async with team(server.url, namespace, flow, {"numbers": numbers, "same": same, "total": total}, start=False) as t:
        runs = [await t.submit(text="x") for _ in range(8)]
        async with t.process("numbers", "same"), t.process("total"), t.process("total"):
            assert [value_of((await t.result(run)).outcome) for run in runs] == [4950] * 8
