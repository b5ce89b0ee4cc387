"""The fold of a run's messages into its state, the same whether they come live or from a file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import sources_of
from baton_schemas.run.state import Entry, RunState, StepState, StepStatus
from baton_schemas.wire.messages import (
    NULL,
    Done,
    Failed,
    Handoff,
    Join,
    Note,
    Outcome,
    OutcomeRecord,
    Reply,
    Result,
    Skipped,
    Usage,
)
from baton_schemas.wire.names import DEADLINE, JOIN, START, step_of

_OPEN = frozenset({"joining", "queued"})
"""Statuses of a step whose outcome is not in the log."""


class RunFold:
    """Folds the entries of one run, one by one, in the order of the log.

    It takes any entry without raising, and an entry that it has seen (by its sequence) changes nothing, so a
    live feed may overlap with what was read from the log. `apply` takes constant time; `state` takes time in
    proportion to the steps.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._unreadable = 0
        self._run = self._flow = ""
        self._first: Handoff | None = None
        self._result: Result | None = None
        self._started_at: datetime | None = None
        self._ended_at: datetime | None = None
        self._steps: dict[str, StepState] = {}
        self._arrived: dict[str, dict[str, None]] = {}
        """By join: the branches that replied, in order."""
        self._counts: dict[str, int] = {}
        """By step: how many branches it has."""
        self._sources: dict[str, tuple[str, ...]] = {}

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
        self._run = self._run or message.run
        if isinstance(message, Handoff | Reply | OutcomeRecord | Result):
            self._flow = self._flow or message.flow
        match message:
            case Handoff():
                if message.source not in (START, JOIN):
                    self._decide(message.source, message.outcome, entry.at, message.copied)
                self._queue(message, entry.at)
            case Reply():
                self._arrive(message, entry.at)
            case OutcomeRecord():
                self._decide(message.step, message.outcome, entry.at, message.copied)
            case Result() if self._result is None:
                self._result, self._ended_at = message, entry.at
                if message.step:
                    self._decide(message.step, message.outcome, entry.at)
            case Note(type="retry" | "given_back"):
                self._note(message)
            case Join():
                self._step(message.step, "joining")
            case _:
                pass

    @property
    def state(self) -> RunState:
        """The state after the entries so far; later ones do not change it."""
        steps = dict(self._steps)
        for name, arrived in self._arrived.items():
            steps[name] = replace(steps[name], arrived=len(arrived), expected=self._expected(name, arrived))
        if self._result is not None:
            for name, step in steps.items():
                if step.status in _OPEN:
                    steps[name] = replace(step, status="dropped")
        works = [step.work for step in steps.values() if step.work and not step.reused]
        prices = [work.cost_usd for work in works if work.cost_usd is not None]
        return RunState(
            run=self._run,
            flow=self._flow,
            status=self._result.status if self._result else "running",
            input=dict(self._first.state.input) if self._first else {},
            input_blobs=dict(self._first.state.blobs) if self._first else {},
            flow_body=self._first.flow_body if self._first else None,
            steps=steps,
            result=self._result,
            started_at=self._started_at,
            ended_at=self._ended_at,
            messages=len(self._seen),
            unreadable=self._unreadable,
            cost_usd=math.fsum(prices) if prices else None,
            unpriced=sum(1 for work in works if work.usage and work.cost_usd is None and not work.rehearsed),
            usage=_total([work.usage for work in works if work.usage]),
            rehearsed=any(step.work.rehearsed for step in steps.values() if step.work),
            late=[branch for name, arrived in self._arrived.items() for branch in _late(steps[name], arrived)],
            forked_from=self._first.forked_from if self._first else "",
        )

    def _step(self, name: str, status: StepStatus) -> StepState:
        """Return the state of a step, which begins with this status if the log has not named it before."""
        step = self._steps.get(name)
        if step is None:
            step = self._steps[name] = StepState(name=name, status=status)
        return step

    def _queue(self, handoff: Handoff, at: datetime) -> None:
        if self._first is None and handoff.start_seq == 0 and handoff.flow_body != NULL:
            self._first = handoff
            self._sources = _sources(handoff.flow_body)
        if handoff.count:
            self._counts[step_of(handoff.step)] = handoff.count
        step = self._step(handoff.step, "queued")
        if step.queued_at is None:
            self._steps[step.name] = replace(
                step,
                status="queued" if step.status == "joining" else step.status,
                source=handoff.source,
                queued_at=at,
                error=step.error or handoff.error,
                branches=[branch.name for branch in handoff.branches],
            )

    def _arrive(self, reply: Reply, at: datetime) -> None:
        self._step(reply.step, "joining")
        arrived = self._arrived.setdefault(reply.step, {})
        if reply.branch == DEADLINE:
            return
        self._decide(reply.branch, reply.outcome, at, reply.copied)
        arrived[reply.branch] = None
        self._counts[step_of(reply.branch)] = reply.count

    def _decide(self, name: str, outcome: Outcome | None, at: datetime, copied: bool = False) -> None:
        """Note how a step ended. The first outcome counts: what follows from it only repeats it."""
        step = self._step(name, "queued")
        if step.status not in _OPEN:
            return
        match outcome:
            case Done(work=work):
                step = replace(
                    step,
                    status="done",
                    ended_at=at,
                    attempts=max(step.attempts, work.attempt),
                    output=outcome.output if outcome.blob is None else None,
                    blob=outcome.blob,
                    truncated=outcome.truncated,
                    error=None,
                    work=work,
                )
            case Failed(work=work, error=error):
                attempts = max(step.attempts, work.attempt, error.attempts)
                step = replace(step, status="failed", ended_at=at, attempts=attempts, error=error, work=work)
            case Skipped():
                step = replace(step, status="skipped", ended_at=at, reason=outcome.reason)
        self._steps[name] = replace(step, reused=copied and outcome is not None)

    def _note(self, note: Note) -> None:
        step = self._step(note.step, "queued")
        self._steps[note.step] = replace(
            step,
            attempts=max(step.attempts, note.attempt),
            retries=step.retries + (note.type == "retry"),
            error=note.error or step.error if step.status in _OPEN else step.error,
        )

    def _expected(self, join: str, arrived: Iterable[str]) -> int:
        sources = self._sources.get(join) or {step_of(branch) for branch in arrived}
        return sum(max(self._counts.get(source, 1), 1) for source in sources)


def fold(entries: Iterable[Entry]) -> RunState:
    """Return the state of a run after these entries: all of one run, in the order of the log."""
    run = RunFold()
    for entry in entries:
        run.apply(entry)
    return run.state


def _sources(flow_body: Raw) -> dict[str, tuple[str, ...]]:
    try:
        flow = decode_flow(flow_body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return {}
    return {name: sources_of(flow, name) for name in flow.steps}


def _late(step: StepState, arrived: Iterable[str]) -> list[str]:
    joined = set(step.branches)
    return [branch for branch in arrived if branch not in joined] if step.source == JOIN else []


def _total(usages: list[Usage]) -> Usage:
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cache_read_tokens=sum(usage.cache_read_tokens for usage in usages),
        cache_write_tokens=sum(usage.cache_write_tokens for usage in usages),
    )
