"""Costs in the fold of a run: what was paid for its calls, each counted once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from typing import NamedTuple

from baton_schemas.wire.facts import Exchange, ModelCall
from baton_schemas.wire.outcomes import Usage, Work, total

from .state import StepState


class Paid(NamedTuple):
    """What was paid, as in `RunState`."""

    cost_usd: float | None
    wasted_usd: float
    unpriced: int
    usage: Usage
    rehearsed: bool


class FoldedCosts:
    """Those of one run."""

    def __init__(self) -> None:
        self.in_vain: list[Work] = []
        """Of attempts that failed and were followed by another, and of calls that gave no answer."""
        self._calls: dict[str, list[Work]] = {}
        """By step: model calls that were recorded."""
        self._several: set[str] = set()
        """Steps whose handlers made calls: their outcomes tell of the sum of those that were used."""
        self._taken_over: set[str] = set()
        """Steps with answers of the run that this one goes on from, paid there: their outcomes tell of them too."""
        self._rehearsed = False
        """Whether any of these was rehearsed."""

    def copied(self) -> FoldedCosts:
        """Return the same, to go on by itself."""
        other = copy(self)
        other.in_vain = list(self.in_vain)
        other._calls = {step: list(calls) for step, calls in self._calls.items()}
        other._several, other._taken_over = set(self._several), set(self._taken_over)
        return other

    def called(self, step: str, call: ModelCall | Exchange) -> None:
        """Take a call that was recorded."""
        if isinstance(call, ModelCall) and call.copied:
            self._taken_over.add(step)
            self._rehearsed = self._rehearsed or call.rehearsed
            return
        work = Work(
            attempt=call.attempt,
            model=call.model,
            rehearsed=call.rehearsed,
            request_id=call.request_id,
            usage=call.usage,
            cost_usd=call.cost_usd,
        )
        self._calls.setdefault(step, []).append(work)
        if isinstance(call, Exchange):
            self._several.add(step)

    def paid(self, steps: Mapping[str, StepState]) -> Paid:
        """Return what was paid so far for a run whose steps are these."""
        # What a child run cost is told by that run.
        own = {
            name: step.work for name, step in steps.items() if step.work and not step.reused and step.asked != "flow"
        }
        in_vain = [*self.in_vain]
        # A call is paid before its step ends. Once the outcome tells of it, it is not counted twice; what a failed step
        # tells of is the call that failed, and that one is not recorded.
        by_notes = self._several | {name for name in self._taken_over & own.keys() if steps[name].status == "done"}
        told = {name for name, work in own.items() if work.usage and steps[name].status == "done"} - by_notes
        # Of those that a handler made each is counted, as some may not have been used again.
        own = {name: work for name, work in own.items() if name not in by_notes}
        in_use: list[Work] = []
        for name in self._calls.keys() - told:
            (in_vain if steps[name].status in ("failed", "dropped") else in_use).extend(self._calls[name])
        works = [*own.values(), *in_vain, *in_use]
        prices = [work.cost_usd for work in works if work.cost_usd is not None]
        return Paid(
            cost_usd=math.fsum(prices) if prices else None,
            wasted_usd=math.fsum(work.cost_usd for work in in_vain if work.cost_usd is not None),
            unpriced=sum(1 for work in works if work.usage and work.cost_usd is None and not work.rehearsed),
            usage=total(work.usage for work in works if work.usage),
            rehearsed=self.rehearsed(steps),
        )

    def rehearsed(self, steps: Mapping[str, StepState]) -> bool:
        """Say whether the rehearsal model answered any step of a run whose steps are these."""
        return (
            self._rehearsed
            or any(step.work.rehearsed for step in steps.values() if step.work)
            or any(call.rehearsed for calls in self._calls.values() for call in calls)
        )
