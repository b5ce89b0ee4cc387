"""What did not end well and waits for a person: runs that failed, and messages that were rejected."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from datetime import datetime

from msgspec import Struct

from baton_bus.client.runs import from_the_end
from baton_bus.engine.bus import Bus
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Error, Failed, Handoff, Note, Result


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


class RejectedMessage(Struct, frozen=True, kw_only=True):
    """A message that no attempt would have made good. Its bytes are where `seq` says."""

    seq: int
    subject: str
    """Empty when the message is gone from the log."""
    at: datetime
    """When it was rejected."""
    run: str
    reason: str


async def dead_steps(bus: Bus, limit: int) -> list[DeadStep]:
    """Return the steps that ended runs by failing, the newest first. Raises `BusUnavailable`, `NoStream`.

    It reads back until it has found so many: in a log with fewer, the beginnings and ends of all runs.
    """
    forks: dict[str, str] = {}
    found: list[DeadStep] = []
    async with aclosing(from_the_end(bus, _is_dead_or_fork)) as entries:
        async for entry in entries:
            match entry.message:
                case Handoff() as fork:
                    forks.setdefault(fork.forked_from, fork.run)
                case Result() as result:  # a retry of it has begun later, so it has been seen by now
                    found.append(_dead(result, entry.at, forks.get(result.run, "")))
            if len(found) >= limit:
                break
    return found


async def rejected_messages(bus: Bus, limit: int) -> list[RejectedMessage]:
    """Return the messages that were rejected, the newest first. Raises `BusUnavailable`, `NoStream`."""
    notes: deque[tuple[datetime, Note]] = deque(maxlen=limit)
    async for entry in bus.log.read([bus.subjects.rejected("*", "*", "*")]):
        if isinstance(entry.message, Note) and entry.message.type == "rejected":
            notes.append((entry.at, entry.message))
    return [await _rejected(bus, at, note) for at, note in reversed(notes)]


def _is_dead_or_fork(entry: Entry) -> bool:
    match entry.message:
        case Result(status="failed"):
            return True
        case Handoff(forked_from=forked_from):
            return bool(forked_from)
        case _:
            return False


def _dead(result: Result, at: datetime, forked_as: str) -> DeadStep:
    ended = result.outcome
    error = ended.error if isinstance(ended, Failed) else Error(step=result.step, type="Failed", message=result.reason)
    return DeadStep(
        run=result.run, flow=result.flow, at=at, error=error, began=bool(result.start_seq), forked_as=forked_as
    )


async def _rejected(bus: Bus, at: datetime, note: Note) -> RejectedMessage:
    stored = await bus.log.at(note.seq)
    return RejectedMessage(
        seq=note.seq,
        subject=stored.subject if stored else "",
        at=at,
        run=note.run,
        reason=note.error.message if note.error else note.message,
    )
