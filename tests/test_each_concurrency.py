"""`concurrency` on a step with `each`: so many branches of a run at once, and in the end all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from baton_actors.errors import Fail
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Flow, JoinPolicy, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fork import decided_by
from baton_schemas.run.lifecycle import Create, Ended, Recorded, View, decide, next_branch
from baton_schemas.run.refs import name_of, parse
from baton_schemas.show.rows import rows_of
from baton_schemas.show.seeing import see
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Message, OutcomeRecord, Reply, Result, Started
from baton_schemas.wire.outcomes import Done, Error, Failed, State

from .clients import fork_run
from .dying import MORTAL, at_once, dying
from .servers import NatsServer
from .simulator import Simulator
from .strategies import flows
from .team import Team, encode_items, first_of, flow_of, team, value_of
from .timed import until_so

ITEMS = {"items": Field(type="list[int]")}


def limited(concurrency: int | None, *, join: JoinPolicy | None = None, **more: Any) -> Flow:
    step = Step(agent="do", each="items", concurrency=concurrency, **more)
    return flow_of({"do": step, "merge": Step(agent="merge", after=["do"], join=join)}, ITEMS)


async def do(item: int) -> int:
    return item * 10


async def merge(do: list[int]) -> list[int]:
    return do


HANDLERS = {"do": do, "merge": merge}


def most_at_once(messages: Iterable[Message | None], step: str) -> int:
    """How many branches of a step were handed on and not ended, at the most, by the order of the log."""
    under_way: set[str] = set()
    most = 0
    for message in messages:
        if isinstance(message, Reply | OutcomeRecord) and name_of(decided_by(message)) == step:
            under_way.discard(decided_by(message))
        if isinstance(message, Handoff) and message.branch is not None and name_of(message.step) == step:
            under_way.add(message.step)
            most = max(most, len(under_way))
    return most


# ---- the lifecycle ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(flows(steps_max=5), st.randoms(use_true_random=False))
def test_no_more_branches_are_under_way_than_the_step_says_in_any_order_of_events(flow: Flow, choose: Random) -> None:
    simulator = Simulator(flow, choose)
    simulator.run()
    for name, step in flow.steps.items():
        most = most_at_once([stored.message for stored in simulator.log], name)
        assert step.concurrency is None or most <= step.concurrency


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(0, 12), st.randoms(use_true_random=False))
def test_every_branch_gets_its_turn(concurrency: int, count: int, choose: Random) -> None:
    flow = limited(concurrency, on_error="continue")
    topics = {"topics": Field(type="list[int]")}
    steps = {**flow.steps, "do": replace(flow.steps["do"], each="topics")}
    simulator = Simulator(replace(flow, input=topics, steps=steps), choose)
    simulator.input = State(input={"topics": encode_items([list(range(count))])[0]})
    simulator.run()
    calls = Counter(call.handoff.step for call in simulator.calls)
    assert {step for step in calls if name_of(step) == "do"} == {f"do-{index}" for index in range(count)}
    handed = [stored.message for stored in simulator.log if isinstance(stored.message, Handoff)]
    items = {message.branch.index: message.branch.item for message in handed if message.branch is not None}
    assert items == dict(enumerate(encode_items(list(range(count)))))


def branch_of(plan: Plan, count: int) -> Handoff:
    first = first_of(plan, "r", {"do": list(range(count))}, items=list(range(count))).message
    assert isinstance(first, Handoff)
    return first


def test_branch_that_ends_is_followed_by_the_one_so_many_places_on_and_by_none_past_the_end() -> None:
    plan = check_flow(limited(3))
    first = branch_of(plan, 5)
    assert next_branch(plan, first) == 3
    (reply,) = decide(View(plan), Ended(first, first.state, Done(), 7))
    assert isinstance(reply, Create)
    assert isinstance(reply.message, Reply)
    (item,) = encode_items([3])
    (create,) = decide(View(plan, item=item), Recorded(reply.message, first))
    assert isinstance(create, Create)
    following = create.message
    assert isinstance(following, Handoff)
    assert (following.step, following.start_seq, following.copied, following.v) == ("do-3", 7, False, 1)
    assert following.branch is not None
    assert (following.branch.index, following.branch.count, following.branch.item) == (3, 5, item)
    assert next_branch(plan, following) is None
    assert decide(View(plan, item=item), Recorded(reply.message)) == []
    assert decide(View(plan), Recorded(reply.message, first)) == []  # its join has closed
    assert next_branch(check_flow(limited(None)), first) is None


@pytest.mark.parametrize("joined_twice", [False, True])
def test_branch_whose_failure_ends_the_run_is_followed_by_none(joined_twice: bool) -> None:
    flow = limited(1)
    if joined_twice:  # then how it ended is in a record of its own
        more = {"other": Step(agent="merge", after=["do"]), "last": Step(agent="merge", after=["merge", "other"])}
        flow = replace(flow, steps={**flow.steps, **more})
    plan = check_flow(flow)
    first = branch_of(plan, 2)
    failure = Failed(error=Error(step="do-0", type="Oops", message="no"))
    (record,) = decide(View(plan), Ended(first, first.state, failure, 7))
    assert isinstance(record, Create)
    assert isinstance(record.message, OutcomeRecord if joined_twice else Reply)
    (item,) = encode_items([1])
    (only,) = decide(View(plan, item=item), Recorded(record.message, first))
    assert isinstance(only, Create)
    assert isinstance(only.message, Result)
    assert (only.message.status, only.message.step) == ("failed", "do-0")


# ---- runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("concurrency", "count"), [(1, 4), (3, 10), (3, 3), (5, 2), (2, 0)])
async def test_all_branches_are_done_and_so_many_at_once(
    concurrency: int, count: int, server: NatsServer, namespace: str
) -> None:
    now, most = 0, 0

    async def counts(item: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        return item

    async with team(server.url, namespace, limited(concurrency), {**HANDLERS, "do": counts}) as t:
        run = await t.submit(items=list(range(count)))
        assert value_of((await t.result(run)).outcome) == list(range(count))
        assert most <= min(concurrency, count)
        assert most_at_once([entry.message for entry in await t.log(run)], "do") == min(concurrency, count)


async def test_fan_out_over_what_a_step_puts_out_and_with_two_joins_after_it(
    server: NatsServer, namespace: str
) -> None:
    async def split(items: list[int]) -> dict[str, Any]:
        return {"parts": [{"n": item, "pad": "x" * 300_000 if item == 2 else ""} for item in items]}

    async def part(item: dict[str, Any], split: dict[str, Any]) -> int:
        assert len(split["parts"]) == 6
        return int(item["n"]) + len(item["pad"])

    async def total(do: list[int]) -> int:
        return sum(do)

    async def both(first: int, second: int) -> list[int]:
        return [first, second]

    steps = {
        "split": Step(agent="split"),
        "do": Step(agent="part", each="split.parts", concurrency=2),
        "first": Step(agent="total", after=["do"]),
        "second": Step(agent="total", after=["do"]),
        "both": Step(agent="both", after=["first", "second"]),
    }
    handlers = {"split": split, "part": part, "total": total, "both": both}
    async with team(server.url, namespace, flow_of(steps, ITEMS), handlers) as t:
        run = await t.submit(items=list(range(6)))
        assert value_of((await t.result(run)).outcome) == [300_015, 300_015]
        assert most_at_once([entry.message for entry in await t.log(run)], "do") == 2


async def test_show_tells_of_the_branches_whose_turn_is_to_come(server: NatsServer, namespace: str) -> None:
    go_on = asyncio.Event()

    async def waits(item: int) -> int:
        if item:
            await go_on.wait()
        return item

    async with team(server.url, namespace, limited(2), {**HANDLERS, "do": waits}) as t:
        run = await t.submit(items=list(range(1_500)))

        async def is_third_handed_on() -> bool:
            return (await t.kinds(run)).count("handoff") == 3

        await until_so(is_third_handed_on)
        state = await t.state(run)
        row = rows_of(state, t.plan)[0]
        assert (row.step, row.status, row.ended, row.count) == ("do", "running", 1, 1_500)
        says = see(t.plan, state, await t.log(run), "do").says
        assert says == "1,500 branches: 1 done, 2 queued, 1,497 not begun"
        await t.client.run(run).cancel()
        go_on.set()
        row = rows_of(await t.state(run), t.plan)[0]
        assert row.status == "dropped"


async def test_branch_that_is_tried_again_keeps_its_place_and_its_turn(server: NatsServer, namespace: str) -> None:
    tries: Counter[int] = Counter()

    async def fails_once(item: int) -> int:
        tries[item] += 1
        if item % 2 and tries[item] == 1:
            raise ValueError("once")
        return item

    async with team(server.url, namespace, limited(2), {**HANDLERS, "do": fails_once}) as t:
        run = await t.submit(items=list(range(6)))
        assert value_of((await t.result(run)).outcome) == list(range(6))
        assert tries == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 2}
        assert most_at_once([entry.message for entry in await t.log(run)], "do") == 2


async def test_failure_that_ends_the_run_lets_no_other_branch_begin(server: NatsServer, namespace: str) -> None:
    async def fails(item: int) -> int:
        raise Fail(f"{item} is no good")

    async with team(server.url, namespace, limited(1), {**HANDLERS, "do": fails}) as t:
        run = await t.submit(items=[0, 1, 2])
        assert (await t.result(run)).step == "do-0"
        await t.until_settled("handoff", "do")
        assert {entry.message.step for entry in await t.log(run) if isinstance(entry.message, Handoff)} == {"do-0"}


async def test_failed_branches_that_do_not_end_the_run_are_followed_too(server: NatsServer, namespace: str) -> None:
    async def fails(item: int) -> int:
        if item < 4:
            raise Fail(f"{item} is no good")
        return item

    flow = limited(2, on_error="continue")
    async with team(server.url, namespace, flow, {**HANDLERS, "do": fails}) as t:
        assert value_of((await t.run(items=list(range(6)))).outcome) == [4, 5]


async def test_no_branch_begins_once_its_join_has_closed(server: NatsServer, namespace: str) -> None:
    merged, go_on = asyncio.Event(), asyncio.Event()

    async def waits(item: int) -> int:
        if item == 1:
            await merged.wait()
        return item

    async def merges(do: list[int]) -> list[int]:
        merged.set()
        await go_on.wait()
        return do

    flow = limited(2, join=JoinPolicy(wait=1))
    async with team(server.url, namespace, flow, {"do": waits, "merge": merges}) as t:
        run = await t.submit(items=list(range(200)))
        await merged.wait()
        await t.until_settled("handoff", "do")
        begun = {entry.message.step for entry in await t.log(run) if isinstance(entry.message, Handoff)}
        go_on.set()
        assert value_of((await t.result(run)).outcome)[0] == 0
        assert {"do-0", "do-1", "merge"} <= begun
        assert "do-3" not in begun  # the turn of which came when `do-1` had ended
        assert len(begun) < 200


# ---- crashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["items", "split"])
async def test_workers_that_die_between_any_two_writes_are_taken_over(
    over: str, server: NatsServer, namespace: str
) -> None:
    """Also between a reply and the handoff that follows it."""

    async def split(items: list[int]) -> list[int]:
        return items

    steps = {
        "do": Step(agent="do", each=over, concurrency=1),
        "merge": Step(agent="merge", after=["do"]),
        **({"split": Step(agent="split")} if over == "split" else {}),
    }
    flow, handlers = flow_of(steps, ITEMS), {**HANDLERS, "split": split}

    async def dies_after(writes: int) -> int:
        async with team(server.url, f"{namespace}-{writes}", flow, handlers, start=False, **MORTAL) as t:
            async with dying(t, writes) as process:
                run = await t.submit(items=[1, 2, 3])
                ends = asyncio.create_task(t.result(run))
                dead = asyncio.create_task(process.until_dead())
                await asyncio.wait([ends, dead], return_when=asyncio.FIRST_COMPLETED)
                dead.cancel()
            async with t.process(grace_s=0.5):
                assert value_of((await ends).outcome) == [10, 20, 30]
            assert most_at_once([entry.message for entry in await t.log(run)], "do") == 1
            return process.left

    left = await at_once(dies_after, 14)
    assert left[:7] == [0] * 7  # three replies, two handoffs that follow, the join, the end, and links of its chain
    assert left[-1] > 0  # and no more: it died in each of them


# ---- going on --------------------------------------------------------------------------------------


async def test_fork_of_a_fan_out_that_is_half_done_goes_on_where_each_place_was(
    server: NatsServer, namespace: str
) -> None:
    calls: Counter[int] = Counter()
    broken = {3}

    async def fails(item: int) -> int:
        calls[item] += 1
        if item in broken:
            raise Fail("not yet")
        return item

    async with team(server.url, namespace, limited(2), {**HANDLERS, "do": fails}) as t:
        run = await t.submit(items=list(range(9)))
        assert (await t.result(run)).step == "do-3"
        await t.until_settled("handoff", "do")
        done = await ended(t, run) - {3}
        calls.clear()
        broken.clear()
        forked = await fork_run(t.client, run)
        assert value_of((await t.result(forked)).outcome) == list(range(9))
        assert calls == Counter(set(range(9)) - done)
        assert most_at_once([entry.message for entry in await t.log(forked) if not copied(entry.message)], "do") <= 2


def copied(message: Message | None) -> bool:
    return bool(getattr(message, "copied", False))


@pytest.mark.parametrize("was_done", [True, False])
@pytest.mark.parametrize("concurrency", [1, 3, 20, None])
async def test_fork_under_a_changed_number_keeps_what_was_done(
    concurrency: int | None, was_done: bool, server: NatsServer, namespace: str
) -> None:
    """Whether the branch beside the one that failed has ended by then, or is under way and comes too late."""
    calls: Counter[int] = Counter()
    may_fail = asyncio.Event()

    async def fails(item: int) -> int:
        calls[item] += 1
        if item == 5 and not may_fail.is_set():
            await may_fail.wait()
            raise Fail("not yet")
        if item == 6 and not was_done and not may_fail.is_set():
            await asyncio.Event().wait()
        return item

    async with team(server.url, namespace, limited(2), {**HANDLERS, "do": fails}) as t:
        run = await t.submit(items=list(range(9)))
        done = {0, 1, 2, 3, 4, *([6, 8] if was_done else [])}  # and 7 is to follow 5

        async def is_so_far() -> bool:
            return calls[5] == calls[6] == 1 and await ended(t, run) == done

        await until_so(is_so_far)
        may_fail.set()
        assert (await t.result(run)).step == "do-5"
        await t.until_settled("handoff", "do")
        assert await ended(t, run) == done | {5}
        calls.clear()
        forked = (await t.client.fork(run, plan=check_flow(limited(concurrency)))).id
        assert value_of((await t.result(forked)).outcome) == list(range(9))
        assert calls == Counter(set(range(9)) - done)
        state = await t.state(forked)
        assert {parse(name).index for name, step in state.steps.items() if step.reused} == done


async def ended(t: Team, run: str) -> set[int | None]:
    """Which branches have their replies in the log."""
    return {entry.message.index for entry in await t.log(run) if isinstance(entry.message, Reply)}


# ---- what it costs ---------------------------------------------------------------------------------


async def test_list_is_read_once_by_a_worker_however_many_branches_follow(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[Engine] = []
    init = Engine.__init__

    def remembered(self: Engine, *arguments: Any) -> None:
        init(self, *arguments)
        engines.append(self)

    monkeypatch.setattr(Engine, "__init__", remembered)
    async with team(server.url, namespace, limited(10), HANDLERS) as t:
        run = await t.submit(items=list(range(400)))
        assert value_of((await t.result(run)).outcome) == [item * 10 for item in range(400)]
        assert sum(engine.spread.reads for engine in engines) == 1
        assert most_at_once([entry.message for entry in await t.log(run)], "do") == 10


async def test_lists_in_hand_are_bounded_and_the_last_is_kept(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with team(server.url, namespace, limited(1), HANDLERS) as t:
        runs = [await t.submit(items=[number, number]) for number in range(3)]
        for run in runs:
            await t.result(run)
        async with open_bus(t.bus.settings) as bus:
            engine = Engine(bus)
            starts = {run: (await engine.runs.first(run))[0].seq for run in runs}
            monkeypatch.setattr("baton_bus.engine.spread.IN_HAND_BYTES", 1)
            for run, seq in [*starts.items(), *list(starts.items())[-1:]]:
                await asyncio.gather(*(engine.spread.items(t.plan, run, seq, "do") for _ in range(5)))
            assert engine.spread.reads == 3
            assert await engine.spread.items(t.plan, "no-such-run", 10**6, "do") == []


async def test_what_branches_share_is_beside_the_log_though_few_are_handed_on_at_once(
    server: NatsServer, namespace: str
) -> None:
    async def long(items: list[int]) -> str:
        return "x" * 20_000

    async def uses(item: int, long: str) -> int:
        return item + len(long)

    steps = {
        "long": Step(agent="long"),
        "do": Step(agent="uses", after=["long"], each="items", concurrency=2),
        "merge": Step(agent="merge", after=["do"]),
    }
    handlers = {"long": long, "uses": uses, "merge": merge}
    async with team(server.url, namespace, flow_of(steps, ITEMS), handlers) as t:
        run = await t.submit(items=list(range(40)))
        assert value_of((await t.result(run)).outcome) == [20_000 + item for item in range(40)]
        handed = [entry for entry in await t.log(run) if isinstance(entry.message, Handoff) and entry.message.branch]
        assert len(handed) == 40
        assert max(len(entry.data) for entry in handed) < 1_000


async def test_branch_that_was_never_in_the_list_ends_the_run_rather_than_wait_for_more(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, limited(2), HANDLERS, start=False) as t:
        run = await t.submit(items=[0, 1])
        (entry,) = await t.log(run)
        first = entry.message
        assert isinstance(first, Handoff)
        assert first.branch is not None
        branch = replace(first.branch, index=6, count=9)
        forged = replace(first, v=1, step="do-6", start_seq=entry.seq, branch=branch, cause=Started())
        await t.bus.create(t.bus.subjects.of(t.actor("do"), forged), encode(forged))
        async with t.process("do"):
            result = await t.result(run)
        assert (result.status, result.step) == ("failed", "do-6")
        assert "2 items in the log, and branch 8" in result.reason
