"""Ends of runs within runs: they are told upwards and reach down, whoever dies in between, and each is told once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_actors import Context
from baton_actors.agents.asks import AskFailed
from baton_bus.engine import runs as runs_module
from baton_bus.errors import BusUnavailable
from baton_bus.store.bus import Bus
from baton_schemas.flow.flow import JoinPolicy
from baton_schemas.run.child_runs import parent_in
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Answer, Handoff, Result, Woken
from baton_schemas.wire.outcomes import Done, Failed

from .nested_teams import Hands, NestedTeam, handled, inner, nested_team, one, over_texts
from .servers import NatsServer, until
from .team import value_of
from .test_nested import asking
from .timed import until_so

WRITES = 9
"""More than a process writes for one run within another."""


def stop_writing(bus: Bus, after: int) -> asyncio.Event:
    """Have a process write no more after so many messages, as if it were killed; the event says that it would have."""
    dead, written = asyncio.Event(), 0

    def dying(write: Any) -> Any:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal written
            written += 1
            if written > after:
                dead.set()
                await asyncio.Event().wait()
            return await write(*args, **kwargs)

        return wrapped

    bus.publisher.create = dying(bus.publisher.create)  # type: ignore[method-assign]
    bus.publisher.update = dying(bus.publisher.update)  # type: ignore[method-assign]
    return dead


@pytest.mark.parametrize("parks", [False, True])
async def test_kill_between_any_two_writes_loses_and_doubles_nothing(
    server: NatsServer, namespace: str, parks: bool
) -> None:
    async def first(text: str) -> str:
        await asyncio.sleep(0.15)
        return text.upper()

    flow = one(agent={"park_after_s": 0.05 if parks else 60.0})

    async def killed_after(writes: int) -> bool:
        handlers = {**Hands().all, "first": first}
        async with nested_team(server, f"{namespace}-{writes}", flow, handlers, start=False, lease_s=1.0) as t:
            async with t.process(grace_s=0.01) as bus:
                dead = stop_writing(bus, writes)
                run = await t.submit(text="a")
                ended = asyncio.ensure_future(t.ended(run))
                await asyncio.wait([asyncio.ensure_future(dead.wait()), ended], return_when=asyncio.FIRST_COMPLETED)
            async with t.process(grace_s=0.5):
                assert value_of((await ended).outcome) == "A!"
                answers = await t.answers(run)
                assert len(answers) == len(await t.child_runs(run)) == 1
                woken = [entry for entry in await t.log(run) if is_woken(entry.message)]
                assert len(woken) == sum(answer.wakes is not None for answer in answers)
            return dead.is_set()

    killed = await asyncio.gather(*(killed_after(writes) for writes in range(WRITES)))
    assert sum(killed) >= 6 + 2 * parks


def is_woken(message: object) -> bool:
    return isinstance(message, Handoff) and isinstance(message.cause, Woken)


async def slow_children(t: NestedTeam, hands: Hands, count: int) -> tuple[str, list[str]]:
    """A run whose children are all in their first step."""
    run = await t.submit(texts=[f"slow{number}" for number in range(count)])
    await until(lambda: len(hands.calls) == count)
    return run, await t.child_runs(run)


async def test_cancelled_run_ends_all_that_it_asked_for(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run, children = await slow_children(t, hands, 20)
        await t.client.run(run).cancel("no more money")
        ends = [await t.ended(child) for child in children]
        assert {end.status for end in ends} == {"cancelled"}
        assert {end.reason for end in ends} == {f"run {run}, which asked for it, is cancelled"}
        await until(lambda: len(hands.cancelled) == 20)
        assert await t.bus.timers.of_runs() == {}


async def test_what_a_client_left_undone_is_done_by_a_clerk(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands()
    monkeypatch.setattr(runs_module, "STOPPED_AFTER_S", 0.2)
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run, children = await slow_children(t, hands, 3)

        async def broken(*args: object) -> None:
            raise BusUnavailable("publish", 1)

        t.client.engine.writing.record = broken  # type: ignore[method-assign,assignment]
        with pytest.raises(BusUnavailable):
            await t.client.run(run).cancel()
        assert (await t.ended(run)).status == "cancelled"
        assert {(await t.ended(child)).status for child in children} == {"cancelled"}


async def test_expired_run_ends_all_that_it_asked_for(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, over_texts(deadline_s=0.8), hands.all) as t:
        run, children = await slow_children(t, hands, 3)
        assert (await t.ended(run)).status == "expired"
        assert {(await t.ended(child)).status for child in children} == {"cancelled"}
        await until(lambda: len(hands.cancelled) == 3)


async def test_failed_run_ends_what_it_asked_for_three_deep(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    middle = replace(one(), name="middle")
    async with nested_team(server, namespace, over_texts(middle), hands.all) as t:
        run = await t.submit(texts=["slow", "bad"])
        outcome = (await t.result(run)).outcome
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "RunFailed"
        assert "of flow 'middle' failed" in outcome.error.message
        assert "ValueError: bad" in outcome.error.message
        for child in await t.child_runs(run):
            status = (await t.ended(child)).status
            for grandchild in await t.child_runs(child):
                assert (await t.ended(grandchild)).status == status
        await until(lambda: hands.cancelled == ["slow"] or "first slow" not in hands.calls)


async def test_expired_child_fails_its_step(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, one(inner(deadline_s=0.3)), Hands().all) as t:
        run = await t.submit(text="slow")
        outcome = (await t.result(run)).outcome
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "RunExpired"
        assert outcome.error.message.endswith("expired: the deadline of 0.3 s")


async def test_cancelled_child_fails_its_step_and_the_run_may_go_on(server: NatsServer, namespace: str) -> None:
    async def merge(errors: list[Any]) -> list[str]:
        return [error["type"] for error in errors]

    flow = over_texts(on_error="continue")
    flow = replace(flow, agents={**flow.agents, **handled("merge", reads=[])})
    hands = Hands()
    async with nested_team(server, namespace, flow, {**hands.all, "merge": merge}) as t:
        run, children = await slow_children(t, hands, 2)
        await t.client.run(children[0]).cancel("not this one")
        hands.open.set()
        assert value_of((await t.result(run)).outcome) == ["RunCancelled"]
        cancelled = next(answer for answer in await t.answers(run) if isinstance(answer.outcome, Failed))
        assert isinstance(cancelled.outcome, Failed)
        assert cancelled.outcome.error.message.endswith("cancelled: not this one")


async def test_deadline_of_a_run_that_a_handler_asks_for(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        try:
            return str(await context.run_flow("writer", text="slow", deadline_s=0.3))
        except AskFailed as error:
            return error.error.type

    async with nested_team(server, namespace, asking(), {**Hands().all, "boss": boss}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "RunExpired"
        (child,) = await t.child_runs(run)
        assert (await t.ended(child)).status == "expired"


async def test_deadline_passes_though_nobody_does_the_run(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def boss(text: str, context: Context) -> str:
        try:
            return str(await context.run_flow("writer", text="a", deadline_s=0.1))
        except AskFailed as error:
            return error.error.type

    monkeypatch.setattr("baton_actors.steps.children._LATER_S", 0.1)
    handlers = {**Hands().all, "boss": boss}
    async with nested_team(server, namespace, asking(), handlers, start=False) as t:
        async with t.process("boss", grace_s=0.5):
            run = await t.submit(text="a")
            assert value_of((await t.result(run)).outcome) == "DeadlinePassed"
            (child,) = await t.child_runs(run)
        async with t.process("first", "second", grace_s=0.5):
            assert (await t.ended(child)).status in ("expired", "cancelled")


async def test_run_that_a_done_step_left_open_is_ended(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        asked = [context.run_flow("writer", text="slow"), context.run_flow("writer", text="bad")]
        try:
            return str(await context.gather(*asked))
        except AskFailed as error:
            return error.error.type

    hands = Hands()
    async with nested_team(server, namespace, asking(), {**hands.all, "boss": boss}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "RunFailed"
        statuses = sorted([(await t.ended(child)).status for child in await t.child_runs(run)])
        assert statuses == ["cancelled", "failed"]


async def test_no_run_begins_for_a_run_that_has_ended(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run, _ = await slow_children(t, hands, 1)
        (child,) = await t.asked(run)
        await t.client.run(run).cancel()
        other = replace(child, step="whole--k0123456789abcdefghjk")
        parent = parent_in(other, "outer--whole", 1)
        (nested,) = t.plan.nested.values()
        assert not await t.client.engine.nesting.begin(nested, {}, parent, None)


async def test_end_comes_before_the_beginning_of_a_run(server: NatsServer, namespace: str) -> None:
    """A worker has said what it asks for, and is killed before it starts that; then its run is cancelled."""
    hands = Hands()
    async with nested_team(server, namespace, one(), hands.all, start=False, lease_s=1.0) as t:
        async with t.process(grace_s=0.01) as bus:
            dead = stop_writing(bus, 1)
            run = await t.submit(text="a")
            await dead.wait()
        (child,) = await t.child_runs(run)
        await t.client.run(run).cancel()
        assert (await t.ended(child)).status == "cancelled"
        async with t.process(grace_s=0.5):
            await t.until_settled("handoff", "whole")
        assert hands.calls == []
        assert await t.kinds(child) == ["result"]


async def test_forged_parent_is_answered_nothing(server: NatsServer, namespace: str) -> None:
    """A run that names a parent, and whose id does not follow from it, is a run like any other."""
    hands = Hands()
    async with nested_team(server, namespace, one(), hands.all) as t:
        run = await t.submit(text="slow")
        await until(lambda: hands.calls == ["first slow"])
        (child,) = await t.asked(run)
        parent = parent_in(child, "outer--whole", 1)
        (nested,) = t.plan.nested.values()
        forged = f"{run}--k00000000000000000000"
        await t.client.engine.runs.start(nested, {"text": Raw(b'"b"')}, forged, parent=parent)
        assert value_of((await t.ended(forged)).outcome) == "B!"
        assert await t.answers(run) == []
        hands.open.set()
        assert value_of((await t.result(run)).outcome) == "SLOW!"


async def test_result_of_a_child_that_a_stranger_wrote_is_told_by_who_finds_it(
    server: NatsServer, namespace: str
) -> None:
    """Nothing of ours wrote the end; the worker that comes to it tells it."""
    hands = Hands()
    async with nested_team(server, namespace, one(), hands.all) as t:
        run = await t.submit(text="slow")
        await until(lambda: hands.calls == ["first slow"])
        (child,) = await t.child_runs(run)
        entry, first = await t.client.engine.runs.first(child)
        ended = Result(flow=first.flow, digest=first.digest, run=child, status="cancelled", start_seq=entry.seq)
        await t.bus.create(t.bus.subjects.of("", ended), encode(ended))
        outcome = (await t.result(run)).outcome
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "RunCancelled"
        assert all(not isinstance(answer.outcome, Done) for answer in await t.answers(run))


async def test_answers_come_once_when_many_find_the_end(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, one(), Hands().all) as t:
        run = await t.submit(text="a")
        await t.result(run)
        (child,) = await t.child_runs(run)
        result = await t.ended(child)
        for _ in range(3):
            t.client.engine.nesting._followed.clear()
            await t.client.engine.nesting.follow(result)

        async def is_one() -> bool:
            return len([m for m in await t.answers(run) if isinstance(m, Answer)]) == 1

        await until_so(is_one)


async def test_words_of_strangers_end_nothing_and_hold_up_nothing(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run, children = await slow_children(t, hands, 2)
        (child, _) = await t.asked(run)
        for step in ("nobody--k0123456789abcdefghjk", "merge--k0123456789abcdefghjk", "whole"):
            forged = replace(child, step=step)
            await t.bus.create(t.bus.subjects.of("-flow", forged), encode(forged))
        await t.bus.nc.publish(f"{namespace}.handoff.-flow.{run}.odd.odd", b"no message")
        await t.client.run(run).cancel()
        assert {(await t.ended(each)).status for each in children} == {"cancelled"}


async def test_run_whose_join_waits_for_some_ends_the_others(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    flow = over_texts()
    merge = replace(flow.steps["merge"], join=JoinPolicy(wait=1))
    async with nested_team(server, namespace, replace(flow, steps={**flow.steps, "merge": merge}), hands.all) as t:
        run = await t.submit(texts=["slow", "a"])
        assert value_of((await t.result(run)).outcome) == ["A!"]
        ends = [await t.ended(child) for child in await t.child_runs(run)]
        assert sorted(end.status for end in ends) == ["cancelled", "done"]
        await until(lambda: hands.cancelled == ["slow"])
