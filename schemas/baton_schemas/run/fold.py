"""The fold of a run's messages into its state, the same whether they come live or from a file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.implied import lay_out
from baton_schemas.flow.questions import expects
from baton_schemas.wire.facts import Begun, Exchange, GivenBack, ModelCall, Rejected, Retry, Spent, Unasked, Waits
from baton_schemas.wire.messages import (
    After,
    Answer,
    Asked,
    Begins,
    Decisive,
    Handoff,
    Join,
    Joined,
    Note,
    OutcomeRecord,
    Parked,
    Reply,
    Result,
    Started,
    Woken,
)
from baton_schemas.wire.names import DEADLINE, JOIN
from baton_schemas.wire.outcomes import Done, Failed, Outcome, Skipped, Work, total

from .asking import WITHDRAWN, waits_for
from .child_runs import parent_of
from .refs import StepRef, asked_name, ended_by, joined, name_of, parse, replied, source_token, tokens, whole
from .state import Entry, RunState, StepState, StepStatus

_OPEN = frozenset({"joining", "queued"})
"""Statuses of a step whose outcome is not in the log."""
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
        self._steps: dict[str, StepState] = {}
        self._in_vain: list[Work] = []
        """Of attempts that failed and were followed by another, and of calls that gave no answer."""
        self._calls: dict[str, list[Work]] = {}
        """By step: model calls that were recorded."""
        self._several: set[str] = set()
        """Steps whose handlers made calls: their outcomes tell of the sum of those that were used."""
        self._arrived: dict[str, dict[str, str]] = {}
        """By join: the branches that replied, in order: their tokens, by what the join calls them."""
        self._counts: dict[str, int] = {}
        """By step, with its round: how many branches it has."""
        self._sources: dict[str, tuple[str, ...]] = {}
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
        self._run = self._run or message.run
        if isinstance(message, Decisive):
            self._flow = self._flow or message.flow
        match message:
            case Handoff(cause=Woken()):
                self._wake(message)
            case Handoff():
                if isinstance(message.cause, After):
                    self._decide(message.cause.step, message.cause.outcome, entry.at, message.copied)
                self._queue(message, entry.at)
            case Reply():
                self._arrive(message, entry.at)
            case OutcomeRecord():
                self._decide(message.step, message.outcome, entry.at, message.copied)
            case Answer():
                self._answer(message, entry.at)
            case Parked():
                self._park(message)
            case Result():
                self._end(message, entry.at)
            case Note():
                self._note(message, entry.at)
            case Join():
                self._step(message.step, "joining")
            case _:
                pass

    @property
    def count(self) -> int:
        """How many steps, branches and children the entries so far name."""
        return len(self._steps)

    @property
    def state(self) -> RunState:
        """The state after the entries so far; later ones do not change it."""
        steps = dict(self._steps)
        for name, arrived in self._arrived.items():
            steps[name] = replace(steps[name], arrived=len(arrived), expected=self._expected(name, arrived))
        if self._result is not None:
            for name, step in steps.items():
                if step.status in _OPEN:
                    steps[name] = replace(step, status="dropped", waits="")
        # What a child run cost is told by that run.
        own = {
            name: step.work for name, step in steps.items() if step.work and not step.reused and step.asked != "flow"
        }
        in_vain = [*self._in_vain]
        # A call is paid before its step ends. Once the outcome tells of it, it is not counted twice; what a failed step
        # tells of is the call that failed, and that one is not recorded.
        told = {name for name, work in own.items() if work.usage and steps[name].status == "done"} - self._several
        # Of those that a handler made each is counted, as some may not have been used again.
        own = {name: work for name, work in own.items() if name not in self._several}
        in_use: list[Work] = []
        for name in self._calls.keys() - told:
            (in_vain if steps[name].status in ("failed", "dropped") else in_use).extend(self._calls[name])
        works = [*own.values(), *in_vain, *in_use]
        prices = [work.cost_usd for work in works if work.cost_usd is not None]
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
            cost_usd=math.fsum(prices) if prices else None,
            wasted_usd=math.fsum(work.cost_usd for work in in_vain if work.cost_usd is not None),
            unpriced=sum(1 for work in works if work.usage and work.cost_usd is None and not work.rehearsed),
            usage=total(work.usage for work in works if work.usage),
            rehearsed=any(step.work.rehearsed for step in steps.values() if step.work)
            or any(call.rehearsed for calls in self._calls.values() for call in calls),
            late=[branch for name, arrived in self._arrived.items() for branch in _late(steps[name], arrived)],
            forked_from=begins.origin.run if begins and begins.origin else "",
            parent=parent.run if parent else "",
            parent_step=parent.step if parent else "",
            source=begins.source if begins else "",
            foreign=self._foreign,
            counts=dict(self._counts),
            rejected=list(self._rejected),
        )

    @property
    def _begins(self) -> Begins | None:
        cause = self._first.cause if self._first else None
        return cause.begins if isinstance(cause, Started) else None

    def _step(self, name: str, status: StepStatus) -> StepState:
        """Return the state of a step, which begins with this status if the log has not named it before."""
        step = self._steps.get(name)
        if step is None:
            step = self._steps[name] = StepState(name=name, status=status)
        return step

    def _queue(self, handoff: Handoff, at: datetime) -> None:
        if self._first is None and isinstance(handoff.cause, Started) and handoff.cause.begins is not None:
            self._first, self._flow = handoff, handoff.flow
            self._sources = _sources(handoff.cause.begins.flow_body)
        if handoff.branch is not None:
            self._counts[whole(handoff.step)] = handoff.branch.count
        step = self._step(handoff.step, "queued")
        if step.queued_at is None:
            closing = joined(handoff)
            asked = handoff.cause if isinstance(handoff.cause, Asked) else None
            for source, why in closing.left_out.items() if closing else ():
                token = StepRef(source, round=parse(handoff.step).round).token
                self._decide(token, Skipped(reason=why, left_out=True), at)
            self._steps[step.name] = replace(
                step,
                status="queued" if step.status == "joining" else step.status,
                source=source_token(handoff),
                queued_at=at,
                error=step.error or (closing.error if closing else None),
                branches=self._branches(handoff.step, closing) if closing else [],
                asked=asked.kind if asked else None,
                arguments={**handoff.state.input, **handoff.state.blobs} if asked else {},
                answers_at=_at(asked.due_s) if asked and asked.due_s else None,
                question=asked.question.text if asked and asked.question else "",
                expects=expects(asked.question) if asked and asked.question else "",
            )

    def _wake(self, handoff: Handoff) -> None:
        """Take that a step was looked at again: what it waited for beside its time, it may wait for still."""
        step = self._step(handoff.step, "queued")
        assert isinstance(handoff.cause, Woken)
        if step.waits == handoff.cause.why or handoff.cause.parked:
            self._steps[handoff.step] = replace(step, waits="")

    def _answer(self, answer: Answer, at: datetime) -> None:
        child = self._step(answer.child, "queued")
        if child.status in _OPEN:
            self._steps[answer.child] = replace(
                child,
                source=child.source or answer.step,
                answered_by=answer.who,
                note=answer.note,
                by_itself=child.asked in ("person", "event") and not answer.say and not _is_withdrawn(answer),
            )
        self._decide(answer.child, answer.outcome, at, answer.copied)
        asker = self._steps.get(answer.step)
        if asker is not None and asker.waits == self._waits_for(answer.child):
            self._steps[answer.step] = replace(asker, waits="")

    def _park(self, parked: Parked) -> None:
        step = self._step(parked.step, "queued")
        if step.status in _OPEN:
            self._steps[parked.step] = replace(step, waits=self._waits_for(parked.child), due_at=None)

    def _waits_for(self, child: str) -> str:
        """Return what a step waits for that is parked upon a child: a person is named by the role."""
        asked = self._steps[child].asked if child in self._steps else None
        match asked:
            case "person":
                return asked_name(child)
            case "event":
                return f"the event {asked_name(child)}"
            case _:
                return waits_for(child)

    def _arrive(self, reply: Reply, at: datetime) -> None:
        self._step(reply.step, "joining")
        arrived = self._arrived.setdefault(reply.step, {})
        if reply.source == DEADLINE:
            return
        branch = ended_by(reply)
        self._decide(branch, reply.outcome, at, reply.copied)
        arrived[replied(reply)] = branch
        self._counts[whole(branch)] = reply.count

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
                    waits="",
                )
            case Failed(work=work, error=error):
                attempts = max(step.attempts, work.attempt, error.attempts)
                step = replace(step, status="failed", ended_at=at, attempts=attempts, error=error, work=work, waits="")
            case Skipped():
                step = replace(step, status="skipped", ended_at=at, reason=outcome.reason, waits="")
        self._steps[name] = replace(step, reused=copied and outcome is not None)

    def _end(self, result: Result, at: datetime) -> None:
        if self._result is not None or (self._first is not None and result.flow != self._first.flow):
            self._foreign += 1
            return
        self._result, self._ended_at = result, at
        if result.step:
            self._decide(result.step, result.outcome, at)

    def _note(self, note: Note, at: datetime) -> None:
        match note.fact:
            case Retry() as fact:
                step = self._step(note.step, "queued")
                is_open = step.status in _OPEN
                self._steps[note.step] = replace(
                    step,
                    attempts=max(step.attempts, fact.attempt),
                    retries=step.retries + 1,
                    error=fact.error if is_open else step.error,
                    waits="its retry" if is_open else "",
                    due_at=_later(at, fact.delay_s) if is_open else step.due_at,
                )
                if fact.work.usage is not None:
                    self._in_vain.append(fact.work)
            case Begun(attempt=attempt):
                step = self._step(note.step, "queued")
                self._steps[note.step] = replace(step, attempts=max(step.attempts, attempt), waits="")
            case GivenBack(attempt=attempt):
                step = self._step(note.step, "queued")
                self._steps[note.step] = replace(step, attempts=max(step.attempts, attempt))
            case Waits() as fact:
                step = self._step(note.step, "queued")
                if step.status in _OPEN:
                    self._steps[note.step] = replace(step, waits=fact.reason, due_at=None)
            case Exchange() as fact:
                self._step(note.step, "queued")
                self._calls.setdefault(note.step, []).append(_work_of(fact))
                self._several.add(note.step)
            case ModelCall() as fact:
                self._step(note.step, "queued")
                self._calls.setdefault(note.step, []).append(_work_of(fact))
            case Spent(work=work):
                self._in_vain.append(work)
            case Rejected() as fact:
                self._rejected = [*self._rejected[1 - REJECTED_MAX :], fact]
            case Unasked(count=count):
                step = self._step(note.step, "queued")
                self._steps[note.step] = replace(step, unasked=count)
            case _:
                pass

    def _expected(self, join: str, arrived: Mapping[str, str]) -> int:
        there = {name_of(branch): whole(branch) for branch in arrived.values()}
        sources = self._sources.get(name_of(join)) or tuple(there)
        tokens_ = [there.get(source) or StepRef(source, round=parse(join).round).token for source in sources]
        return sum(max(self._counts.get(token, 1), 1) for token in tokens_)

    def _branches(self, join: str, closing: Joined) -> list[str]:
        """Return the branches that a closing handoff names, as their own handoffs call them."""
        arrived = self._arrived.get(join, {})
        found: list[str] = []
        for source, text in closing.branches.items():
            with contextlib.suppress(ValueError):  # a stranger's
                found += [arrived.get(name, name) for name in tokens(source, text)]
        return found


def fold(entries: Iterable[Entry]) -> RunState:
    """Return the state of a run after these entries: all of one run, in the order of the log."""
    run = RunFold()
    for entry in entries:
        run.apply(entry)
    return run.state


def _is_withdrawn(answer: Answer) -> bool:
    return isinstance(answer.outcome, Failed) and answer.outcome.error.type == WITHDRAWN


def _later(at: datetime, delay_s: float) -> datetime:
    """Return a time that much later; what a stranger wrote may be any number."""
    try:
        return at + timedelta(seconds=delay_s)
    except (OverflowError, ValueError):
        return at


def _at(unix_s: float) -> datetime | None:
    """Return a time in seconds of Unix time; None for what is none, as a stranger may have written it."""
    try:
        return datetime.fromtimestamp(unix_s, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _sources(flow_body: Raw) -> dict[str, tuple[str, ...]]:
    try:
        flow = decode_flow(flow_body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return {}
    return lay_out(flow).sources


def _late(step: StepState, arrived: Mapping[str, str]) -> list[str]:
    closed = set(step.branches)
    return [branch for branch in arrived.values() if branch not in closed] if step.source == JOIN else []


def _work_of(call: ModelCall | Exchange) -> Work:
    return Work(
        attempt=call.attempt,
        model=call.model,
        rehearsed=call.rehearsed,
        request_id=call.request_id,
        usage=call.usage,
        cost_usd=call.cost_usd,
    )
