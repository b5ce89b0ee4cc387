"""A log put on lines of time, one for each step: see `spans`. Pure.

What is certain is painted over what is assumed: a step is queued from its handoff to its end, but where it was in hand,
and within that where it waited. What a worker did that came too late, after its end, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import get_args

from msgspec.structs import replace

from baton_schemas.run.fold import fold
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.state import Entry, RunState, StepState
from baton_schemas.wire.facts import (
    Begun,
    Exchange,
    Fact,
    GivenBack,
    ModelCall,
    Offered,
    Recorded,
    Retry,
    Spent,
    ToolBegun,
    ToolCall,
    Waits,
)
from baton_schemas.wire.messages import Answer, Handoff, Note, Parked, Reply, Woken
from baton_schemas.wire.outcomes import Work

from .errors import told
from .moments import after, before, since
from .painting import FOREVER, Paint, flat, joined
from .spans import Ended, Lane, Timeline, Try, Waiting
from .within import bounded, within_of

_SLACK = timedelta(seconds=1)
"""How much earlier than its length says an attempt may have shown a sign: what is stored takes its way to the log."""
_KINDS: tuple[Waiting, ...] = get_args(Waiting)
_ASKED: tuple[Waiting, ...] = ("sleep", "agent", "flow", "batch", "event", "person")
"""What a step that works may wait for, the last of them first."""


def timeline_of(
    entries: Sequence[Entry], state: RunState | None = None, running: Mapping[str, datetime] | None = None
) -> Timeline:
    """Return who waited and worked when in a run; `entries` are all of it, in order, and `state` is their fold.

    `running` are the steps that workers say they have in hand, and since when by the broker's clock: no log has that.
    """
    state = state or fold(entries)
    by_step: dict[str, list[Entry]] = {name: [] for name in state.steps}
    for entry in entries:
        step = getattr(entry.message, "step", "")
        if step in by_step:
            by_step[step].append(entry)
    asked: dict[str, list[StepState]] = {}
    for each in state.steps.values():
        if key_of_child(each.name) and each.queued_at is not None and not each.reused:
            asked.setdefault(each.source, []).append(each)
    lanes = {
        name: _Line(state, step, asked.get(name, ()), by_step[name], (running or {}).get(name)).lane()
        for name, step in state.steps.items()
        if step.asked != "batch"  # that is its model, which it waits for
    }
    return Timeline(run=state.run, begin=state.started_at, end=state.ended_at, lanes=lanes)


class _Line:
    """What is known of one step, while it is gathered."""

    def __init__(
        self,
        state: RunState,
        step: StepState,
        asked: Sequence[StepState],
        entries: Sequence[Entry],
        running: datetime | None,
    ) -> None:
        self._steps, self._step = state.steps, step
        self._over_at = over_at = step.ended_at or state.ended_at
        """When it ended, or its run did; None while it goes on."""
        self._entries = entries = [entry for entry in entries if over_at is None or entry.at <= over_at]
        self._asked = [
            each for each in asked if over_at is None or (each.queued_at is not None and each.queued_at <= over_at)
        ]
        self._within, signs = within_of(entries, self._asked, over_at)
        if running is not None and over_at is None and step.queued_at is not None:
            signs.append(max(running, step.queued_at))
        self._signs = sorted(signs)
        """When it did what only a step does that is in hand."""
        self._tries: list[Try] = []
        """The last alone may go on."""
        self._waits: list[Paint] = []

    def lane(self) -> Lane:
        step, over_at = self._step, self._over_at or FOREVER
        starts = [entry.at for entry in self._entries if isinstance(entry.message, Handoff | Reply)]
        begin = min([*starts, *([step.queued_at] if step.queued_at is not None else [])], default=None)
        if step.reused or begin is None or over_at < begin:
            return Lane(step=step.name, status=step.status, reused=step.reused)
        if step.asked in (None, "agent"):
            self._gather(step.queued_at or begin)
        return Lane(
            step=step.name,
            status=step.status,
            spans=tuple(flat(self._paints(begin, over_at), begin, over_at)),
            tries=tuple(self._tries),
            within=bounded(self._within, self._tries),
        )

    # ---- attempts ----------------------------------------------------------------------------------------

    def _gather(self, free_at: datetime) -> None:
        """Take the entries in their order; `free_at` is since when nobody has it in hand, as far as is known."""
        for entry in self._entries:
            at = entry.at
            match entry.message:
                case Handoff(cause=Woken()) | Answer():
                    self._stop_waiting(at)
                case Parked(child=child):
                    self._end(free_at, at, "parked")
                    asked = self._steps[child].asked if child in self._steps else None
                    self._waits.append(Paint(at, FOREVER, asked or "other"))
                case Note(fact=fact, worker=worker):
                    self._take(fact, worker, free_at, at)
                case _:
                    pass
            if self._tries and (ended := self._tries[-1].end) is not None:
                free_at = max(free_at, ended)
        self._close(free_at)

    def _take(self, fact: Fact, worker: str, free_at: datetime, at: datetime) -> None:
        match fact:
            case Begun(attempt=attempt):
                self._stop_waiting(at)
                if self._tries and self._tries[-1].end is None:
                    self._tries[-1] = replace(self._tries[-1], end=at, came_to="died")
                self._tries.append(Try(number=attempt, begin=max(free_at, at), worker=worker))
            case Retry():
                work = replace(fact.work, attempt=fact.attempt, worker=fact.work.worker or worker)
                self._end(free_at, at, "failed", work, told(fact.error))
                self._waits.append(Paint(at, after(at, fact.delay_s), "retry", reason="its retry"))
            case GivenBack():
                self._end(free_at, at, "given back", Work(attempt=fact.attempt, worker=worker), fact.reason)
            case Waits(what=what):
                self._stop_waiting(at)
                kind = what if what in _KINDS else "other"
                self._waits.append(Paint(since(fact.since_s, free_at, at), FOREVER, kind, reason=fact.reason))
            case (
                ModelCall(copied=False, batch="")
                | Exchange()
                | Offered()
                | Recorded()
                | ToolBegun()
                | ToolCall()
                | Spent()
            ):
                self._stop_waiting(at)
            case _:
                pass

    def _end(self, free_at: datetime, at: datetime, came_to: Ended, work: Work | None = None, error: str = "") -> None:
        """Take that an attempt ended: the one that goes on; or one whose length, or first sign, tells when it began."""
        number = work.attempt if work is not None else max(self._step.attempts, 1)
        worker = work.worker if work is not None else ""
        if self._tries and self._tries[-1].end is None:
            last = self._tries.pop()
            begin, number, worker = last.begin, last.number, last.worker
        else:
            signs = [sign for sign in self._signs if free_at <= sign <= at]
            begin = signs[0] if signs else at
            if work is not None and work.elapsed_s:
                began = max(free_at, before(at, work.elapsed_s))
                early = [sign for sign in signs if sign < began - _SLACK]
                if early:  # somebody had it in hand before, and is not heard of any more
                    self._tries.append(Try(number=number, begin=early[0], end=early[-1], came_to="died"))
                begin = min([began, *(sign for sign in signs if sign >= began - _SLACK)])
        begin = min(begin, at)
        waited = self._waits[-1] if self._waits else None
        if waited is not None and waited.kind != "provider":  # for all else a step is let go of meanwhile
            begin = min(max(begin, waited.begin), at)
        within = waited is not None and waited.kind == "provider" and waited.begin >= begin
        self._stop_waiting(at if within else begin)
        self._tries.append(Try(number=number, begin=begin, end=at, came_to=came_to, worker=worker, error=error))

    def _close(self, free_at: datetime) -> None:
        """Take how it ended; or that it is in hand still, where there is a sign of that."""
        step, going = self._step, bool(self._tries) and self._tries[-1].end is None
        if step.ended_at is not None:
            if step.work is not None and (going or step.work.elapsed_s or step.work.worker):
                error = told(step.error) if step.error is not None else ""
                self._end(free_at, step.ended_at, "failed" if step.status == "failed" else "done", step.work, error)
            elif going:
                self._tries[-1] = replace(self._tries[-1], end=max(step.ended_at, free_at), came_to="died")
            self._stop_waiting(step.ended_at)
            return
        came_to: Ended = "dropped" if self._over_at is not None else ""
        if going:
            self._tries[-1] = replace(self._tries[-1], end=self._over_at, came_to=came_to)
        elif sign := next((sign for sign in self._signs if sign >= free_at), None):
            last = Try(number=max(step.attempts, 1), begin=sign, end=self._over_at, came_to=came_to)
            self._tries.append(last)

    def _stop_waiting(self, at: datetime) -> None:
        if self._waits and self._waits[-1].end > at:
            self._waits[-1] = replace(self._waits[-1], end=max(at, self._waits[-1].begin))

    # ---- paints ------------------------------------------------------------------------------------------

    def _paints(self, begin: datetime, over_at: datetime) -> list[Paint]:
        """Return what is to be painted, each over those before it."""
        step = self._step
        own: Waiting = "queued" if step.asked in (None, "agent") else step.asked
        paints = [Paint(begin, over_at, "joining")]
        if step.queued_at is not None:
            paints.append(Paint(step.queued_at, over_at, own))
        tries = [(one.begin, one.end or FOREVER, one.number) for one in self._tries]
        paints += [Paint(start, until, "working", number) for start, until, number in tries]
        for kind in _ASKED:
            times = [
                (each.queued_at, each.ended_at or over_at)
                for each in self._asked
                if each.asked == kind and each.queued_at is not None
            ]
            for start, until in joined(times):
                meets = [(max(start, one), min(until, other)) for one, other, _ in tries]
                paints += [Paint(one, other, kind) for one, other in meets]
        return paints + self._waits
