"""Steps in the fold of a run: where each stands, as the messages on it tell."""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from baton_schemas.flow.questions import expects
from baton_schemas.wire.facts import InBatch, Retry
from baton_schemas.wire.messages import Answer, Asked, Handoff, Parked, Reply, Woken
from baton_schemas.wire.outcomes import Done, Failed, Outcome, Skipped

from .asking import A_BATCH, WITHDRAWN, waits_for
from .fold_joins import FoldedJoins
from .refs import StepRef, asked_name, joined, parse, source_token
from .state import StepState, StepStatus

OPEN = frozenset({"joining", "queued"})
"""Statuses of a step whose outcome is not in the log."""


class FoldedSteps:
    """Those of one run, branches and children included, by token, in the order in which the log names them."""

    def __init__(self, joins: FoldedJoins) -> None:
        self.found: dict[str, StepState] = {}
        self._joins = joins
        self._batches: dict[str, str] = {}
        """What is waited for by whoever asked for these children, model calls that went with a batch."""

    def copied(self, joins: FoldedJoins) -> FoldedSteps:
        """Return the same beside other joins, to go on by itself."""
        other = copy(self)
        other.found, other._joins, other._batches = dict(self.found), joins, dict(self._batches)
        return other

    def named(self, name: str, status: StepStatus) -> StepState:
        """Return the state of a step, which begins with this status if the log has not named it before."""
        step = self.found.get(name)
        if step is None:
            step = self.found[name] = StepState(name=name, status=status)
        return step

    def queue(self, handoff: Handoff, at: datetime) -> None:
        """Take the handoff of a step."""
        step = self.named(handoff.step, "queued")
        if step.queued_at is None:
            closing = joined(handoff)
            asked = handoff.cause if isinstance(handoff.cause, Asked) else None
            for source, why in closing.left_out.items() if closing else ():
                token = StepRef(source, round=parse(handoff.step).round).token
                self.decide(token, Skipped(reason=why, left_out=True), at)
            self.found[step.name] = replace(
                step,
                status="queued" if step.status == "joining" else step.status,
                source=source_token(handoff),
                queued_at=at,
                error=step.error or (closing.error if closing else None),
                branches=self._joins.branches(handoff.step, closing) if closing else [],
                asked=asked.kind if asked else None,
                arguments={**handoff.state.input, **handoff.state.blobs} if asked else {},
                answers_at=_at(asked.due_s) if asked and asked.due_s else None,
                question=asked.question.text if asked and asked.question else "",
                expects=expects(asked.question) if asked and asked.question else "",
            )

    def wake(self, handoff: Handoff) -> None:
        """Take that a step was looked at again: what it waited for beside its time, it may wait for still."""
        step = self.named(handoff.step, "queued")
        assert isinstance(handoff.cause, Woken)
        if step.waits == handoff.cause.why or handoff.cause.parked:
            self.found[handoff.step] = replace(step, waits="")

    def answer(self, answer: Answer, at: datetime) -> None:
        """Take the answer to a child: it decides the child, and whoever waited for it goes on."""
        child = self.named(answer.child, "queued")
        if child.status in OPEN:
            self.found[answer.child] = replace(
                child,
                source=child.source or answer.step,
                answered_by=answer.who,
                note=answer.note,
                by_itself=child.asked in ("person", "event") and not answer.say and not _is_withdrawn(answer),
            )
        self.decide(answer.child, answer.outcome, at, answer.copied)
        asker = self.found.get(answer.step)
        if asker is not None and asker.waits == self._waits_for(answer.child):
            self.found[answer.step] = replace(asker, waits="")

    def park(self, parked: Parked) -> None:
        """Take that a step waits for a child, and nobody holds it."""
        step = self.named(parked.step, "queued")
        if step.status in OPEN:
            self.found[parked.step] = replace(step, waits=self._waits_for(parked.child), due_at=None)

    def _waits_for(self, child: str) -> str:
        """Return what a step waits for that is parked upon a child: a person is named by the role."""
        asked = self.found[child].asked if child in self.found else None
        match asked:
            case "person":
                return asked_name(child)
            case "event":
                return f"the event {asked_name(child)}"
            case "batch":
                return self._batches.get(child, A_BATCH)
            case _:
                return waits_for(child)

    def arrive(self, reply: Reply, at: datetime) -> None:
        """Take a reply to a join: it decides the branch."""
        self.named(reply.step, "joining")
        branch = self._joins.arrive(reply)
        if branch is not None:
            self.decide(branch, reply.outcome, at, reply.copied)

    def decide(self, name: str, outcome: Outcome | None, at: datetime, copied: bool = False) -> None:
        """Take how a step ended. The first outcome counts: what follows from it only repeats it."""
        step = self.named(name, "queued")
        if step.status not in OPEN:
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
        self.found[name] = replace(step, reused=copied and outcome is not None)

    # ---- notes -------------------------------------------------------------------------------------

    def retry(self, name: str, fact: Retry, at: datetime) -> None:
        """Take that an attempt failed, and is followed by another."""
        step = self.named(name, "queued")
        is_open = step.status in OPEN
        self.found[name] = replace(
            step,
            attempts=max(step.attempts, fact.attempt),
            retries=step.retries + 1,
            error=fact.error if is_open else step.error,
            waits="its retry" if is_open else "",
            due_at=_later(at, fact.delay_s) if is_open else step.due_at,
        )

    def attempt(self, name: str, attempt: int, *, begins: bool) -> None:
        """Take that an attempt was made, or begins: then it waits for nothing any more."""
        step = self.named(name, "queued")
        attempts = max(step.attempts, attempt)
        self.found[name] = replace(step, attempts=attempts, waits="" if begins else step.waits)

    def wait(self, name: str, reason: str) -> None:
        """Take what a step waits for."""
        step = self.named(name, "queued")
        if step.status in OPEN:
            self.found[name] = replace(step, waits=reason, due_at=None)

    def in_batch(self, name: str, fact: InBatch, at: datetime) -> None:
        """Take that a model call went with a batch: whoever is parked upon it waits for that."""
        child = self.named(name, "queued")
        before = self._waits_for(name)
        self._batches[name] = f"{A_BATCH} of {fact.count:,}, gathered at {at:%H:%M} UTC"
        self.found[name] = replace(child, batch=fact.batch)
        asker = self.found.get(child.source)
        if asker is not None and asker.waits == before:
            self.found[child.source] = replace(asker, waits=self._batches[name])

    def unasked(self, name: str, count: int) -> None:
        """Take how many children a step asked for once, and does not any more."""
        self.found[name] = replace(self.named(name, "queued"), unasked=count)


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
