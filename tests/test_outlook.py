"""What going on from a run would do and cost: the same steps as are taken over, and sums that the log bears out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.run.fork import reused, seq_after
from baton_schemas.run.past import Logged
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.export import load
from baton_schemas.show.outlook import Outlook, outlook
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of
from baton_schemas.show.spending import Spending
from baton_schemas.wire.names import TOKEN, retry_run

from .indexed import GOLDEN


def read(path: Path) -> tuple[list[Entry], RunState, Plan | None]:
    lines = path.read_bytes().splitlines()
    entries = [load(line, number) for number, line in enumerate(lines, start=1)]
    state = fold(entries)
    return entries, state, plan_of(state)


def of(entries: list[Entry], state: RunState, plan: Plan, until_seq: int = 0) -> tuple[Outlook | None, list[Logged]]:
    log = [Logged(entry.seq, "", entry.message) for entry in entries if entry.message is not None]
    return outlook(plan, entries, log, state, plan, until_seq=until_seq), log


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_outlook_of_each_golden_log_names_the_steps_that_a_fork_takes_over(path: Path) -> None:
    entries, state, plan = read(path)
    if plan is None:
        assert state.flow_body is None
        return
    found, log = of(entries, state, plan)
    assert found is not None
    taken = reused(plan, log)
    for step in found.steps:
        if step.fate == "reused" and step.count == 1:
            assert step.step in taken
        if step.fate in ("first", "again"):
            assert step.step not in taken
        assert 0 <= step.reused <= step.count
    assert [step.step for step in found.steps if step.fate == "reused"] == [
        word for word in found.going.reused if "/" not in word
    ]
    spending = Spending()
    calls = [call for entry in entries for call in spending.take(entry)] + list(spending.rest())
    before = [step.work.cost_usd or 0.0 for step in state.steps.values() if step.reused and step.work]
    assert found.saved_usd <= math.fsum([*(call.cost_usd or 0.0 for call in calls), *before]) + 1e-12


def test_fork_of_a_run_that_was_paid_saves_what_its_steps_cost_and_costs_what_the_others_did() -> None:
    (path,) = [path for path in GOLDEN if path.stem == "pipeline" and path.parent.name == "v1"]
    entries, state, plan = read(path)
    assert plan is not None
    costs = {row.step: row.cost_usd or 0.0 for row in rows_of(state, plan)}
    assert math.fsum(costs.values()) > 0
    first, *others = plan.order
    _, log = of(entries, state, plan)
    found, _ = of(entries, state, plan, until_seq=seq_after(plan, log, first))
    assert found is not None
    assert [(step.step, step.fate) for step in found.steps] == [
        (first, "reused"),
        *((step, "again") for step in others),
    ]
    assert found.saved_usd == pytest.approx(costs[first])
    assert found.about_usd == pytest.approx(math.fsum(costs[step] for step in others))
    assert found.unknown == []


def test_branches_that_are_done_again_cost_as_much_as_those_that_were_done() -> None:
    (path,) = [path for path in GOLDEN if path.stem == "fan-out" and path.parent.name == "v1"]
    entries, state, plan = read(path)
    assert plan is not None
    rows = {row.step: row for row in rows_of(state, plan)}
    fan_out = next(row for row in rows.values() if row.count > 1)
    ends = [step.ended_at for name, step in state.steps.items() if plan.name_of(name) == fan_out.step and step.ended_at]
    seq = next(entry.seq for entry in entries if entry.at >= min(ends))
    found, _ = of(entries, state, plan, until_seq=seq)
    assert found is not None
    step = next(each for each in found.steps if each.step == fan_out.step)
    assert (step.fate, step.count, step.reused) == ("partly", fan_out.count, 1)
    assert step.about_usd == pytest.approx((fan_out.cost_usd or 0.0) / fan_out.count * (fan_out.count - 1))


def test_id_of_a_retry_follows_from_the_run_and_is_one_that_may_stand_in_a_subject() -> None:
    runs = ["01m8avphcqh0g9g61tmf2hgcry", "a" * 64, "x", retry_run("x")]
    assert [retry_run(run) for run in runs] == [retry_run(run) for run in runs]
    assert len({retry_run(run) for run in runs}) == len(runs)
    assert all(TOKEN.match(retry_run(run)) for run in runs)
