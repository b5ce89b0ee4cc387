"""How the steps of a flow do over several runs: what they took and cost, and what is in each now. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import name_of
from baton_schemas.run.state import RunState

from .rows import rows_of
from .summary import Summary


class StepTook(Struct, frozen=True):
    """What a step took in one run, its waits included: a fan-out as a whole, a step of a loop once a round."""

    step: str
    elapsed_s: float
    cost_usd: float | None
    """None where nothing has a price, or it was rehearsed."""


class StepFigures(Struct, frozen=True, kw_only=True):
    """What a step took in several runs."""

    times: int
    """How often it was done."""
    p50_s: float | None
    p95_s: float | None
    p50_usd: float | None
    p95_usd: float | None
    """Of those that have a price; None without any."""


class StepNow(Struct, frozen=True, kw_only=True):
    """What is in a step now."""

    open: int = 0
    """How often it, or a branch of it, is queued or being done."""
    joining: int = 0
    """In how many runs it waits for branches."""
    failed: int = 0
    """How many of its branches have failed in the runs that go on."""


def took_in(state: RunState, plan: Plan | None) -> tuple[StepTook, ...]:
    """Return what the steps that are done took in a run, what was reused left out."""
    return tuple(
        StepTook(name_of(row.step), row.elapsed_s, None if row.rehearsed else row.cost_usd)
        for row in rows_of(state, plan)
        if not row.depth and row.status == "done" and not row.reused and row.elapsed_s is not None
    )


def figures_of(runs: Iterable[Sequence[StepTook]]) -> dict[str, StepFigures]:
    """Return how each step did in these runs, by its name."""
    by_step: dict[str, list[StepTook]] = {}
    for each in (took for run in runs for took in run):
        by_step.setdefault(each.step, []).append(each)
    found = {}
    for step, own in by_step.items():
        times = sorted(each.elapsed_s for each in own)
        costs = sorted(each.cost_usd for each in own if each.cost_usd is not None)
        found[step] = StepFigures(
            times=len(own),
            p50_s=nearest(times, 0.5),
            p95_s=nearest(times, 0.95),
            p50_usd=nearest(costs, 0.5),
            p95_usd=nearest(costs, 0.95),
        )
    return found


def now_in(runs: Iterable[Summary]) -> dict[str, StepNow]:
    """Return what is in each step of these runs, by its name; steps in which nothing is are left out."""
    sums: dict[str, list[int]] = {}
    for cell in (cell for run in runs if run.status == "running" for cell in run.cells):
        each = sums.setdefault(name_of(cell.step), [0, 0, 0])
        if cell.status in ("queued", "running"):
            each[0] += cell.count - cell.ended if cell.count else 1
        each[1] += cell.status == "joining"
        each[2] += cell.failed
    return {step: StepNow(open=each[0], joining=each[1], failed=each[2]) for step, each in sums.items() if any(each)}


def nearest(sorted_: Sequence[float], share: float) -> float | None:
    """Return the smallest value that this share of all does not exceed; None of none."""
    return sorted_[max(math.ceil(share * len(sorted_)), 1) - 1] if sorted_ else None
