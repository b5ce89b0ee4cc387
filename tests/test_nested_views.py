"""What people see of runs within runs, and what a purge takes with it."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from baton_actors.cli.show.run_page import run_page
from baton_actors.cli.show.step_page import step_page
from baton_bus.client.dead import dead_steps
from baton_bus.client.left import left_alone
from baton_bus.client.purge import Choice, plan_purge, purge
from baton_bus.client.runs import find_run
from baton_bus.client.seen import see_step
from baton_bus.client.survey import survey
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of

from .nested_teams import Hands, NestedTeam, nested_team, one, over_texts
from .servers import NatsServer, until
from .timed import until_so


def printed(page: object) -> str:
    out = Console(file=io.StringIO(), width=120)
    out.print(page)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


async def shown(t: NestedTeam, run: str) -> str:
    state = await t.state(run)
    return printed(run_page(state, rows_of(state, plan_of(state)), datetime.now(UTC)))


async def test_runs_within_runs_are_left_out_of_the_list(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, over_texts(), Hands().all) as t:
        run = await t.submit(texts=["a", "b", "c"])
        await t.result(run)
        children = set(await t.child_runs(run))
        assert [head.run for head in await t.client.runs()] == [run]
        assert {head.run for head in await t.client.runs(parent=run)} == children
        assert {head.run for head in await t.client.runs(children=True)} == {run, *children}
        assert {head.run for head in await t.client.runs(flow="inner", children=True)} == children


async def test_failed_run_that_a_run_asked_for_waits_for_nobody(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, one(), Hands().all) as t:
        run = await t.submit(text="bad")
        await t.result(run)
        assert [dead.run for dead in await dead_steps(t.bus, 10)] == [run]


async def test_a_part_of_an_id_means_the_run_that_asked(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, over_texts(), Hands().all) as t:
        run = await t.submit(texts=["a", "b", "c"])
        await t.result(run)
        assert (await find_run(t.bus, run[:12])).run == run
        assert (await find_run(t.bus)).run == run
        for child in await t.child_runs(run):
            head = await find_run(t.bus, child[-8:])
            assert (head.run, head.parent) == (child, run)


async def test_each_says_who_the_other_is(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, one(), hands.all) as t:
        run = await t.submit(text="slow")
        await until(lambda: bool(hands.calls))
        (child,) = await t.child_runs(run)
        assert f"whole asked for run {child}" in await shown(t, run)
        assert f"asked for by step whole of run {run}" in await shown(t, child)
        hands.open.set()
        await t.result(run)
        page = await shown(t, run)
        assert "1 of 1 steps" in page
        assert "1 asked" in page
        seen = await see_step(t.bus, await find_run(t.bus, run), "whole")
        assert seen.runs == [child]
        assert f"baton show {child}" in printed(step_page(seen, 120))


async def test_branches_name_their_runs(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, over_texts(), Hands().all) as t:
        run = await t.submit(texts=["a", "b"])
        await t.result(run)
        page = await shown(t, run)
        assert f"all 2: baton runs --of {run}" not in page
        seen = await see_step(t.bus, await find_run(t.bus, run), "each")
        assert sorted(child for branch in seen.branches for child in branch.runs) == sorted(await t.child_runs(run))
        row = next(row for row in rows_of(await t.state(run), t.plan) if row.depth)
        assert (row.kind, row.status) == ("flow", "done")


async def test_purge_takes_what_a_run_asked_for(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run = await t.submit(texts=["a", "b"])
        await t.result(run)
        other = await t.submit(texts=["c"])
        await t.result(other)
        children = await t.child_runs(run)
        found = await survey(t.bus)
        # Runs that a run asked for are no runs of their own to `--keep-last`.
        plan = plan_purge(found, Choice(keep_last=1), datetime.now(UTC))
        assert {each.run for each in plan.runs} == {run, *children}
        assert (await purge(t.bus, plan)).runs == 3
        assert {head.run for head in await t.client.runs(children=True)} == {other, *await t.child_runs(other)}
        t._live.pop(run)


async def test_purge_of_a_run_that_goes_on_ends_all_of_it(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run = await t.submit(texts=["slow1", "slow2"])
        await until(lambda: len(hands.calls) == 2)
        plan = plan_purge(await survey(t.bus), Choice(runs=(run,), unended=True), datetime.now(UTC))
        assert len(plan.runs) == 3
        await purge(t.bus, plan)
        await until(lambda: len(hands.cancelled) == 2)
        left = [each for each in (await survey(t.bus)).runs.values() if not each.purged or each.messages > 1]
        assert left == []
        await t._live.pop(run).stop()


async def test_run_says_that_nobody_plays_what_it_asked_for(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, one(), Hands().all, start=False) as t, t.process("whole", grace_s=0.1):
        run = await t.submit(text="a")
        await until_so(lambda: has_asked(t, run))
        left = await left_alone(t.bus, t.plan, await t.state(run))
        assert [each.actor for each in left] == ["inner--first", "inner--second"]
        await t.client.run(run).cancel()


async def has_asked(t: NestedTeam, run: str) -> bool:
    return bool(await t.asked(run))
