"""What did not end well and waits for a person: runs that failed, and messages that were rejected."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime

from msgspec import Struct

from baton_bus.client.runs import from_the_end
from baton_bus.store.bus import Bus
from baton_schemas.run.child_runs import may_be_child, parent_of
from baton_schemas.run.state import Entry
from baton_schemas.show.cause import Cause, cause_of_error
from baton_schemas.wire.facts import Rejected
from baton_schemas.wire.messages import Handoff, Note, Result, Started
from baton_schemas.wire.outcomes import Error, Failed


class DeadStep(Struct, frozen=True, kw_only=True):
    """The step whose failure ended a run."""

    run: str
    flow: str
    at: datetime
    error: Error
    began: bool = True
    """False for a task that was refused: there is no step to go on from."""
    forked_as: str = ""
    """The latest run that goes on from this one, if there is one."""

    @property
    def cause(self) -> Cause:
        """What it has in common with other failures: those of one cause have one key, as the index has it."""
        return cause_of_error(self.flow, self.error)


class RejectedMessage(Struct, frozen=True, kw_only=True):
    """A message that no attempt would have made good. Its bytes are where `seq` says."""

    seq: int
    subject: str
    at: datetime
    """When it was rejected."""
    run: str
    reason: str


async def dead_steps(bus: Bus, limit: int) -> list[DeadStep]:
    """Return the steps that ended runs by failing, the newest first. Raises `BusUnavailable`, `NoStream`.

    Of a run that a step of another asked for, that step knows. It reads back until it has found so many: in a log with
    fewer, the beginnings and ends of all runs.
    """
    forks: dict[str, str] = {}
    found: list[DeadStep] = []
    async with aclosing(from_the_end(bus, _is_dead_or_fork)) as entries:
        async for entry in entries:
            match entry.message:
                case Handoff() as fork:
                    forks.setdefault(_origin(fork), fork.run)
                case Result() as result:  # a retry of it has begun later, so it has been seen by now
                    if may_be_child(result.run) and await _is_child(bus, result):
                        continue
                    found.append(_dead(result, entry.at, forks.get(result.run, "")))
            if len(found) >= limit:
                break
    return found


async def rejected_messages(bus: Bus, limit: int) -> list[RejectedMessage]:
    """Return the messages that were rejected, the newest first. Raises `BusUnavailable`, `NoStream`."""
    found: list[RejectedMessage] = []
    notes = from_the_end(bus, _is_rejected, [bus.subjects.rejected("*", "*", "*")])
    async with aclosing(notes) as entries:
        async for entry in entries:
            note = entry.message
            assert isinstance(note, Note)
            assert isinstance(note.fact, Rejected)
            fact = note.fact
            found.append(
                RejectedMessage(seq=fact.seq, subject=fact.subject, at=entry.at, run=note.run, reason=fact.reason)
            )
            if len(found) >= limit:
                break
    return found


async def _is_child(bus: Bus, result: Result) -> bool:
    entry = await bus.log.at(result.start_seq) if result.start_seq else None
    return entry is not None and isinstance(entry.message, Handoff) and parent_of(entry.message) is not None


def _is_rejected(entry: Entry) -> bool:
    return isinstance(entry.message, Note) and isinstance(entry.message.fact, Rejected)


def _is_dead_or_fork(entry: Entry) -> bool:
    match entry.message:
        case Result(status="failed"):
            return True
        case Handoff() as handoff:
            return bool(_origin(handoff))
        case _:
            return False


def _dead(result: Result, at: datetime, forked_as: str) -> DeadStep:
    ended = result.outcome
    error = ended.error if isinstance(ended, Failed) else Error(step=result.step, type="Failed", message=result.reason)
    return DeadStep(
        run=result.run, flow=result.flow, at=at, error=error, began=bool(result.start_seq), forked_as=forked_as
    )


def _origin(handoff: Handoff) -> str:
    """Return the run that the run of this handoff goes on from; empty unless it is the first of one that does."""
    begins = handoff.cause.begins if isinstance(handoff.cause, Started) else None
    return begins.origin.run if begins and begins.origin else ""
