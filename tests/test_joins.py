"""Joins: who is waited for, what a failed branch means, and that each closes once with what its handoff names."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from msgspec import Raw

from baton_actors.errors import Fail
from baton_schemas.flow.flow import Field, JoinPolicy, OnFailedBranch, Step
from baton_schemas.run.refs import indices, joined, replied
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Handoff, Join, Reply, Result
from baton_schemas.wire.outcomes import Done, Error, Failed

from .servers import NatsServer, until
from .team import Team, branches_of, flow_of, kind_of, team, value_of
from .test_worker_delivery import hand_out

TEXT = {"text": Field()}
NUMBERS = {"numbers": Field(type="list[int]")}


async def echo(text: str) -> str:
    return text


async def same(item: int) -> int:
    return item


async def odd_fails(item: int) -> int:
    if item % 2:
        raise Fail(f"{item} is odd")
    return item


async def merge(each: list[Any], errors: list[Error]) -> dict[str, Any]:
    return {"each": each, "errors": [error.message for error in errors]}


def over_numbers(join: JoinPolicy | None = None, **options: Any) -> Any:
    steps = {"each": Step(agent="each", each="numbers"), "merge": Step(agent="merge", after=["each"], join=join)}
    return flow_of(steps, NUMBERS, {"each": {"concurrency": 32}}, **options)


def closing_of(entries: list[Entry]) -> Handoff:
    """The handoff that closed the only join of a run."""
    (closing,) = [entry.message for entry in entries if isinstance(entry.message, Handoff) and joined(entry.message)]
    return closing


def assert_joined_as_named(entries: list[Entry]) -> None:
    """I5 from the raw log: the merger put out what is in the replies that its handoff names, in that order."""
    replies = {replied(entry.message): entry.message for entry in entries if isinstance(entry.message, Reply)}
    outputs = []
    for branch in branches_of(closing_of(entries)):
        outcome = replies[branch].outcome
        assert isinstance(outcome, Done)
        outputs.append(bytes(outcome.output))
    (result,) = [entry.message for entry in entries if isinstance(entry.message, Result)]
    assert value_of(result.outcome)["each"] == [int(output) for output in outputs]


async def test_join_of_the_first_branches_closes_without_the_rest(server: NatsServer, namespace: str) -> None:
    async def slow_is_last(item: int) -> int:
        if item == 1:
            await asyncio.Event().wait()
        return item

    async with team(
        server.url, namespace, over_numbers(JoinPolicy(wait=2)), {"each": slow_is_last, "merge": merge}
    ) as t:
        run = await t.submit(numbers=[0, 1, 2])

        assert value_of((await t.result(run)).outcome)["each"] == [0, 2]
        entries = await t.log(run)
        assert branches_of(closing_of(entries)) == ["each-0", "each-2"]
        assert_joined_as_named(entries)


async def test_late_reply_is_kept_acked_and_shown_as_late(server: NatsServer, namespace: str) -> None:
    merging, late = asyncio.Event(), asyncio.Event()

    async def last_is_late(item: int) -> int:
        if item == 2:
            await merging.wait()
        return item

    async def waits(each: list[int]) -> list[int]:
        merging.set()
        await late.wait()
        return each

    flow = over_numbers(JoinPolicy(wait=2))
    async with team(server.url, namespace, flow, {"each": last_is_late, "merge": waits}) as t:
        run = await t.submit(numbers=[0, 1, 2])
        await merging.wait()
        await t.until_settled("handoff", "each")
        await t.until_settled("reply", "merge")
        late.set()

        assert value_of((await t.result(run)).outcome) == [0, 1]
        state = await t.state(run)
        assert (state.late, state.steps["each-2"].status) == (["each-2"], "done")


@pytest.mark.parametrize(
    ("failed", "each"),
    [("skip", [0, 2]), ("pass", [0, {"error": {"step": "each-1", "type": "Fail", "message": "1 is odd"}}, 2])],
)
async def test_failed_branch_is_left_out_or_stands_as_its_error(
    failed: OnFailedBranch, each: list[Any], server: NatsServer, namespace: str
) -> None:
    flow = over_numbers(JoinPolicy(failed=failed))
    async with team(server.url, namespace, flow, {"each": odd_fails, "merge": merge}) as t:
        result = await t.run(numbers=[0, 1, 2])
        assert value_of(result.outcome) == {"each": each, "errors": ["1 is odd"]}


async def test_failed_branch_fails_the_run_unless_the_flow_says_otherwise(server: NatsServer, namespace: str) -> None:
    merged: list[Any] = []

    async def notes_it(each: list[int]) -> None:
        merged.append(each)

    async with team(server.url, namespace, over_numbers(), {"each": odd_fails, "merge": notes_it}) as t:
        result = await t.run(numbers=[0, 1, 2])
        await t.until_settled("reply", "merge")
        await t.until_settled("handoff", "merge")

        assert (result.status, result.step) == ("failed", "each-1")
        assert merged == []


async def test_join_fails_when_too_few_branches_ended_well(server: NatsServer, namespace: str) -> None:
    merged: list[Any] = []

    async def notes_it(each: list[int]) -> None:
        merged.append(each)

    flow = over_numbers(JoinPolicy(min_done=2, failed="skip"))
    async with team(server.url, namespace, flow, {"each": odd_fails, "merge": notes_it}) as t:
        result = await t.run(numbers=[0, 1, 3])

        assert isinstance(result.outcome, Failed)
        assert (result.step, result.outcome.error.type) == ("merge", "JoinShort")
        assert "1 of 3 branches ended well; min_done is 2" in result.outcome.error.message
        assert merged == []


async def test_merger_that_fails_hands_on_what_its_branches_carried(server: NatsServer, namespace: str) -> None:
    async def fails(a: str, b: str) -> str:
        raise Fail("cannot merge")

    async def last(text: str, a: str, errors: list[Error]) -> list[str]:
        return [text, a, *(error.message for error in errors)]

    steps = {
        "a": Step(agent="echo"),
        "b": Step(agent="echo"),
        "m": Step(agent="fails", after=["a", "b"]),
        "last": Step(agent="last", after=["m"]),
    }
    flow = flow_of(steps, TEXT, {"last": {"reads": ["text", "a"]}}, on_error="continue")
    async with team(server.url, namespace, flow, {"echo": echo, "fails": fails, "last": last}) as t:
        assert value_of((await t.run(text="x")).outcome) == ["x", "x", "cannot merge"]


async def test_joins_of_several_merger_processes_close_once(server: NatsServer, namespace: str) -> None:
    calls: Counter[str] = Counter()

    async def counts(each: list[int], errors: list[Error]) -> dict[str, Any]:
        calls[str(each)] += 1
        return {"each": each}

    flow = over_numbers()
    async with team(server.url, namespace, flow, {"each": same, "merge": counts}, start=False) as t:
        async with t.process("each"), t.process("merge"), t.process("merge"), t.process("merge"):
            lists = [list(range(start, start + 40)) for start in range(6)]
            runs = [await t.submit(numbers=numbers) for numbers in lists]
            assert [value_of((await t.result(run)).outcome)["each"] for run in runs] == lists
            await t.until_settled("reply", "merge")

        assert set(calls.values()) == {1}
        for run in runs:
            entries = await t.log(run)
            assert_joined_as_named(entries)
            links = [entry.message for entry in entries if isinstance(entry.message, Join)]
            assert [link.number for link in links] == list(range(1, len(links) + 1))
            came = [index for link in links for index in indices(link.came["each"])]
            assert sorted(came) == list(range(40))


async def test_replies_of_a_merger_that_died_are_joined_by_another(server: NatsServer, namespace: str) -> None:
    async with team(
        server.url, namespace, over_numbers(), {"each": same, "merge": merge}, start=False, lease_s=0.5
    ) as t:
        async with t.process("each"):
            run = await t.submit(numbers=[0, 1, 2])
            deliveries = await hand_out(t, "reply", "merge", 3)
            assert [delivery.delivered for delivery in deliveries] == [1, 1, 1]
        async with t.process():
            assert value_of((await t.result(run)).outcome)["each"] == [0, 1, 2]
        assert_joined_as_named(await t.log(run))


async def test_replies_that_come_again_after_the_join_has_closed_change_nothing(
    server: NatsServer, namespace: str
) -> None:
    calls: list[Any] = []
    go_on = asyncio.Event()

    async def waits(each: list[int], errors: list[Error]) -> dict[str, Any]:
        calls.append(each)
        await go_on.wait()
        return {"each": each}

    async with team(server.url, namespace, over_numbers(), {"each": same, "merge": waits}) as t:
        run = await t.submit(numbers=[0, 1, 2])
        await until(lambda: calls)
        await t.until_settled("reply", "merge")
        before = await t.kinds(run)
        await t.bus.js.delete_consumer(namespace, f"reply-{t.actor('merge')}")
        async with t.process("merge"):  # it knows nothing of the join
            await until_acked(t, 3)
        assert await t.kinds(run) == before
        go_on.set()
        await t.result(run)
        assert calls == [[0, 1, 2]]


async def until_acked(t: Team, count: int) -> None:
    """Wait until the merger's new consumer has handed out as many replies, and got its acks."""
    async with asyncio.timeout(20):
        while True:
            info = await t.bus.js.consumer_info(t.bus.settings.namespace, f"reply-{t.actor('merge')}")
            if info.ack_floor and info.ack_floor.consumer_seq >= count:
                return
            await asyncio.sleep(0.01)


async def test_step_that_is_waited_for_twice_over_lists_of_different_lengths(
    server: NatsServer, namespace: str
) -> None:
    async def pair(x: list[int], y: list[int]) -> list[list[int]]:
        return [x, y]

    steps = {
        "x": Step(agent="same", each="numbers"),
        "y": Step(agent="same", each="others"),
        "pair": Step(agent="pair", after=["x", "y"]),
    }
    flow = flow_of(steps, NUMBERS | {"others": Field(type="list[int]", default=Raw(b"[]"))})
    async with team(server.url, namespace, flow, {"same": same, "pair": pair}) as t:
        assert value_of((await t.run(numbers=[1, 2, 3], others=[4])).outcome) == [[1, 2, 3], [4]]
        assert value_of((await t.run(numbers=[], others=[4])).outcome) == [[], [4]]
        assert value_of((await t.run(numbers=[1])).outcome) == [[1], []]
        run = await t.submit(numbers=[])
        assert value_of((await t.result(run)).outcome) == [[], []]
        assert [kind_of(entry) for entry in await t.log(run)] == ["handoff", "result"]
