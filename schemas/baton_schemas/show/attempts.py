"""The attempts at a step, as its notes and its outcome tell them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from baton_schemas.run.state import Entry, StepState
from baton_schemas.wire.facts import Begun, GivenBack, Retry
from baton_schemas.wire.messages import Note
from baton_schemas.wire.outcomes import Error, Usage, Work

CameTo = Literal["done", "failed", "given back", "died", "unknown"]
"""`died`: its worker did. `unknown`: it began, and nothing says how it ended; its worker died, or is at it."""

_NO_ATTEMPT = frozenset({"WorkerLost", "JoinShort"})
"""Errors of steps whose handler was not called for them."""


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt: what it came to, who made it and what it took."""

    number: int
    came_to: CameTo
    at: datetime
    """When the log says so: at its end, or at its beginning where that is all that is known."""
    worker: str = ""
    elapsed_s: float = 0.0
    error: Error | None = None
    reason: str = ""
    """Why it was given back."""
    retry_s: float | None = None
    """The wait before the next one."""
    model: str = ""
    rehearsed: bool = False
    request_id: str = ""
    request_sha256: str = ""
    """Of a model call that gave no answer."""
    usage: Usage | None = None
    cost_usd: float | None = None


def attempts_of(entries: Iterable[Entry], state: StepState) -> list[Attempt]:
    """Return the attempts at a step, in their order; `entries` are those of its run."""
    attempts: list[Attempt] = []
    begun: dict[int, int] = {}
    """By the number of a beginning: its place among the attempts."""
    for entry in entries:
        note = entry.message
        if not isinstance(note, Note) or note.step != state.name:
            continue
        match note.fact:
            case Begun() as fact:
                begun[fact.number] = len(attempts)
                attempts.append(Attempt(number=fact.attempt, came_to="unknown", at=entry.at, worker=note.worker))
            case Retry() as fact:
                failed = _of(fact.work, fact.attempt, entry.at, fact.work.worker or note.worker)
                failed = replace(failed, came_to="failed", error=fact.error, retry_s=fact.delay_s)
                _put(attempts, begun.get(fact.begun), failed)
            case GivenBack() as fact:
                back = Attempt(number=fact.attempt, came_to="given back", at=entry.at, worker=note.worker)
                _put(attempts, begun.get(fact.begun), replace(back, reason=fact.reason))
            case _:
                pass
    if state.ended_at is not None and state.work is not None and not state.reused:
        last = _of(state.work, state.work.attempt, state.ended_at, state.work.worker)
        if state.status == "done":
            _put(attempts, _open(attempts, last.number), replace(last, came_to="done"))
        elif state.error is not None and state.error.type not in _NO_ATTEMPT:
            _put(attempts, _open(attempts, last.number), replace(last, came_to="failed", error=state.error))
    return [
        replace(attempt, came_to="died")
        if attempt.came_to == "unknown" and (attempt is not attempts[-1] or state.ended_at is not None)
        else attempt
        for attempt in attempts
    ]


def _of(work: Work, number: int, at: datetime, worker: str) -> Attempt:
    return Attempt(
        number=number,
        came_to="unknown",
        at=at,
        worker=worker,
        elapsed_s=work.elapsed_s,
        model=work.model,
        rehearsed=work.rehearsed,
        request_id=work.request_id,
        request_sha256=work.request_sha256,
        usage=work.usage,
        cost_usd=work.cost_usd,
    )


def _put(attempts: list[Attempt], place: int | None, attempt: Attempt) -> None:
    """Add an attempt, or what it came to in the place of its beginning."""
    if place is None:
        attempts.append(attempt)
    else:
        attempts[place] = attempt


def _open(attempts: list[Attempt], number: int) -> int | None:
    """Return the place of the last attempt if it is this one, and nothing says how it ended."""
    last = len(attempts) - 1
    return last if last >= 0 and (attempts[last].number, attempts[last].came_to) == (number, "unknown") else None
