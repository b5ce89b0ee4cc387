"""The fold of a run's messages into its state, the same whether they come live or from a file.

Its parts: where each step stands (`fold_steps.py`), who has replied to joins (`fold_joins.py`), what was paid
(`fold_costs.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from datetime import datetime
from functools import lru_cache
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.implied import lay_out
from baton_schemas.wire.facts import (
    Begun,
    Exchange,
    GivenBack,
    InBatch,
    ModelCall,
    Rejected,
    Retry,
    Spent,
    Unasked,
    Waits,
)
from baton_schemas.wire.messages import (
    After,
    Answer,
    Begins,
    Handoff,
    Join,
    Note,
    OutcomeRecord,
    Parked,
    Reply,
    Result,
    Started,
    Woken,
)
from baton_schemas.wire.outcomes import Usage

from .child_runs import parent_of
from .fold_costs import FoldedCosts, Paid
from .fold_joins import FoldedJoins
from .fold_steps import OPEN, FoldedSteps
from .refs import whole
from .state import Entry, RunState, StepState

_FLOWS_KEPT = 256
"""Versions of flows whose graphs are remembered: working one out takes ten times longer than folding a short run."""
REJECTED_MAX = 20
"""Rejected messages that a run's state tells of, the latest: anybody may send them."""


class RunFold:
    """Folds the entries of one run, one by one, in the order of the log.

    It takes any entry without raising, and an entry that it has seen (by its sequence) changes nothing, so a
    live feed may overlap with what was read from the log. `apply` takes constant time; `state` takes time in
    proportion to the steps.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._unreadable = self._foreign = 0
        self._run = self._flow = ""
        self._first: Handoff | None = None
        self._result: Result | None = None
        self._started_at: datetime | None = None
        self._ended_at: datetime | None = None
        self._joins = FoldedJoins()
        self._steps = FoldedSteps(self._joins)
        self._costs = FoldedCosts()
        self._rejected: list[Rejected] = []

    def apply(self, entry: Entry) -> None:
        """Fold one entry."""
        if entry.seq in self._seen:
            return
        self._seen.add(entry.seq)
        self._started_at = self._started_at or entry.at
        message = entry.message
        if message is None:
            self._unreadable += 1
            return
        if not self._run:
            self._run = message.run
        take = _TAKEN_BY.get(type(message))
        if take is not None:
            take(self, message, entry.at)

    def copied(self) -> RunFold:
        """Return another one that has taken the same entries, and goes on by itself."""
        other = copy(self)
        other._seen, other._rejected = set(self._seen), list(self._rejected)
        other._joins = self._joins.copied()
        other._steps = self._steps.copied(other._joins)
        other._costs = self._costs.copied()
        return other

    @property
    def count(self) -> int:
        """How many steps, branches and children the entries so far name."""
        return len(self._steps.found)

    @property
    def state(self) -> RunState:
        """The state after the entries so far; later ones do not change it."""
        steps = self._steps_now()
        return self._state(steps, self._costs.paid(steps))

    def unpaid(self) -> RunState:
        """Return the state without what was paid: for who reckons that from the calls, of many runs."""
        steps = self._steps_now()
        return self._state(steps, Paid(None, 0.0, 0, Usage(), self._costs.rehearsed(steps)))

    def _steps_now(self) -> dict[str, StepState]:
        joins = self._joins
        steps = dict(self._steps.found)
        for name, arrived in joins.arrived.items():
            steps[name] = replace(steps[name], arrived=len(arrived), expected=joins.expected(name))
        if self._result is not None:
            for name, step in steps.items():
                if step.status in OPEN:
                    steps[name] = replace(step, status="dropped", waits="")
        return steps

    def _state(self, steps: dict[str, StepState], paid: Paid) -> RunState:
        joins = self._joins
        begins = self._begins
        parent = parent_of(self._first) if self._first else None
        return RunState(
            run=self._run,
            flow=self._flow,
            status=self._result.status if self._result else "running",
            input=dict(self._first.state.input) if self._first else {},
            input_blobs=dict(self._first.state.blobs) if self._first else {},
            flow_body=begins.flow_body if begins else None,
            steps=steps,
            result=self._result,
            started_at=self._started_at,
            ended_at=self._ended_at,
            messages=len(self._seen),
            unreadable=self._unreadable,
            cost_usd=paid.cost_usd,
            wasted_usd=paid.wasted_usd,
            unpriced=paid.unpriced,
            usage=paid.usage,
            rehearsed=paid.rehearsed,
            late=[branch for name in joins.arrived for branch in joins.late(steps[name])],
            forked_from=begins.origin.run if begins and begins.origin else "",
            parent=parent.run if parent else "",
            parent_step=parent.step if parent else "",
            source=begins.source if begins else "",
            foreign=self._foreign,
            counts=dict(joins.counts),
            rejected=list(self._rejected),
        )

    @property
    def _begins(self) -> Begins | None:
        cause = self._first.cause if self._first else None
        return cause.begins if isinstance(cause, Started) else None

    def _handoff(self, handoff: Handoff, at: datetime) -> None:
        self._flow = self._flow or handoff.flow
        cause = handoff.cause
        if type(cause) is Woken:
            self._steps.wake(handoff)
            return
        if type(cause) is After:
            self._steps.decide(cause.step, cause.outcome, at, handoff.copied)
        elif self._first is None and type(cause) is Started and cause.begins is not None:
            self._first, self._flow = handoff, handoff.flow
            self._joins.sources = _sources(bytes(cause.begins.flow_body))
        if handoff.branch is not None:
            self._joins.counts[whole(handoff.step)] = handoff.branch.count
        self._steps.queue(handoff, at)

    def _reply(self, reply: Reply, at: datetime) -> None:
        self._flow = self._flow or reply.flow
        self._steps.arrive(reply, at)

    def _outcome(self, record: OutcomeRecord, at: datetime) -> None:
        self._flow = self._flow or record.flow
        self._steps.decide(record.step, record.outcome, at, record.copied)

    def _answer(self, answer: Answer, at: datetime) -> None:
        self._flow = self._flow or answer.flow
        self._steps.answer(answer, at)

    def _park(self, parked: Parked, at: datetime) -> None:
        self._steps.park(parked)

    def _join(self, join: Join, at: datetime) -> None:
        self._steps.named(join.step, "joining")

    def _end(self, result: Result, at: datetime) -> None:
        self._flow = self._flow or result.flow
        if self._result is not None or (self._first is not None and result.flow != self._first.flow):
            self._foreign += 1
            return
        self._result, self._ended_at = result, at
        if result.step:
            self._steps.decide(result.step, result.outcome, at)

    def _note(self, note: Note, at: datetime) -> None:
        steps = self._steps
        match note.fact:
            case Retry() as fact:
                steps.retry(note.step, fact, at)
                if fact.work.usage is not None:
                    self._costs.in_vain.append(fact.work)
            case Begun(attempt=attempt):
                steps.attempt(note.step, attempt, begins=True)
            case GivenBack(attempt=attempt):
                steps.attempt(note.step, attempt, begins=False)
            case Waits(reason=reason):
                steps.wait(note.step, reason)
            case Exchange() | ModelCall() as fact:
                steps.named(note.step, "queued")
                self._costs.called(note.step, fact)
            case Spent(work=work):
                self._costs.in_vain.append(work)
            case Rejected() as fact:
                self._rejected = [*self._rejected[1 - REJECTED_MAX :], fact]
            case InBatch() as fact:
                steps.in_batch(note.step, fact, at)
            case Unasked(count=count):
                steps.unasked(note.step, count)
            case _:
                pass


_TAKEN_BY: dict[type, Callable[[RunFold, Any, datetime], None]] = {
    Handoff: RunFold._handoff,
    Reply: RunFold._reply,
    OutcomeRecord: RunFold._outcome,
    Answer: RunFold._answer,
    Parked: RunFold._park,
    Result: RunFold._end,
    Note: RunFold._note,
    Join: RunFold._join,
}
"""By the type of the message: to try one after the other takes longer than what is done."""


def fold(entries: Iterable[Entry]) -> RunState:
    """Return the state of a run after these entries: all of one run, in the order of the log."""
    run = RunFold()
    for entry in entries:
        run.apply(entry)
    return run.state


@lru_cache(maxsize=_FLOWS_KEPT)
def _sources(flow_body: bytes) -> Mapping[str, tuple[str, ...]]:
    try:
        flow = decode_flow(Raw(flow_body))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return {}
    return lay_out(flow).sources
