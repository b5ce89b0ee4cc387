"""What was spent, as a log says it: each call that was paid, once, whoever tells of it. Pure.

A call is told of by the note of its answer; by what was spent in vain, beside failed attempts or with them; and where
no note tells of it (logs of the first release, agents without a journal), by how its step ended. What a run took over
from another was paid there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from baton_schemas.run.refs import ended_by
from baton_schemas.run.state import Entry
from baton_schemas.wire.facts import Exchange, ModelCall, Retry, Spent
from baton_schemas.wire.messages import (
    After,
    Answer,
    Handoff,
    Note,
    OutcomeRecord,
    Reply,
    Result,
    Started,
)
from baton_schemas.wire.money import Amount, amount_of
from baton_schemas.wire.outcomes import Done, Outcome, Skipped, Usage, Work, total


class PaidCall(Struct, frozen=True, kw_only=True):
    """A call of a model that was paid, or rehearsed."""

    at: datetime
    """When it was recorded."""
    run: str
    step: str
    """With its branch and round."""
    model: str
    usage: Usage
    cost_usd: float | None
    rehearsed: bool = False
    in_vain: bool = False
    """It gave no answer that was used: its attempt failed, it was cut off, or another worker had asked too."""
    held: str = ""
    """What was held for it of a budget, by its id."""

    @property
    def amount(self) -> Amount:
        """What it took, as budgets count it."""
        return Amount() if self.rehearsed else amount_of(self.usage, self.cost_usd)


class Sum(Struct, frozen=True, kw_only=True):
    """What some calls took together."""

    calls: int
    usage: Usage
    cost_usd: float
    """Of those that have a price."""
    waste_usd: float
    """The part of it that was in vain."""
    unpriced: int
    """Calls without a price."""
    rehearsed: int


NOTHING = Sum(calls=0, usage=Usage(), cost_usd=0.0, waste_usd=0.0, unpriced=0, rehearsed=0)
"""What no calls took."""


class Spending:
    """Takes the entries of a log, of one run or of all, in their order, and gives the calls."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()
        """Steps of which a note tells: what their outcome says of tokens is the sum of it."""
        self._failed: set[tuple[str, str]] = set()
        self._copies: set[tuple[str, str]] = set()
        self._going_on: set[str] = set()
        """Runs that go on from another."""
        self._untold: dict[tuple[str, str], PaidCall] = {}

    def take(self, entry: Entry) -> Sequence[PaidCall]:
        """Return the calls that an entry tells of for the first time."""
        message = entry.message
        match message:
            case Handoff():
                cause = message.cause
                if type(cause) is After:
                    if cause.outcome is not None and not message.copied:
                        return self._ended(entry, message.run, cause.step, cause.outcome)
                elif type(cause) is Started and cause.begins is not None and cause.begins.origin is not None:
                    self._going_on.add(message.run)
            case Reply():
                if not message.copied:
                    return self._ended(entry, message.run, ended_by(message), message.outcome)
            case OutcomeRecord():
                if not message.copied:
                    return self._ended(entry, message.run, message.step, message.outcome)
            case Note():
                return self._noted(entry, message)
            case Answer():
                if not message.copied:
                    return self._ended(entry, message.run, message.child, message.outcome)
            case Result():
                if message.outcome is not None:
                    return self._ended(entry, message.run, message.step, message.outcome)
            case _:
                pass
        return ()

    def _noted(self, entry: Entry, note: Note) -> Sequence[PaidCall]:
        run, step, fact = note.run, note.step, note.fact
        match fact:
            case ModelCall() | Exchange():
                self._told.add((run, step))
                if self._is_copy(run, fact):
                    return ()
                call = PaidCall(
                    at=entry.at,
                    run=run,
                    step=step,
                    model=fact.model,
                    usage=fact.usage,
                    cost_usd=fact.cost_usd,
                    rehearsed=fact.rehearsed,
                    held=fact.held,
                )
                return (call,)
            case Retry(work=work) | Spent(work=work) if work.usage is not None:
                return (_of_work(entry, run, step, work, in_vain=True),)
            case _:
                return ()

    def rest(self) -> Iterator[PaidCall]:
        """Yield the calls that only outcomes tell of, once all entries are taken."""
        yield from (call for key, call in self._untold.items() if key not in self._told)

    def _ended(self, entry: Entry, run: str, step: str, outcome: Outcome) -> Sequence[PaidCall]:
        if isinstance(outcome, Skipped) or outcome.work.usage is None or not outcome.work.model:
            return ()  # what runs within this one took, they say themselves: that has no model
        if isinstance(outcome, Done):
            if (run, step) not in self._untold:
                self._untold[run, step] = _of_work(entry, run, step, outcome.work, in_vain=False)
        elif (run, step) not in self._failed:  # a failure travels on to whatever joins it, and to the result
            self._failed.add((run, step))
            return (_of_work(entry, run, step, outcome.work, in_vain=True),)
        return ()

    def _is_copy(self, run: str, fact: ModelCall | Exchange) -> bool:
        """Say whether the same call is told of in the run that this one goes on from: logs of the first release do not
        mark what is copied.
        """
        if isinstance(fact, ModelCall) and fact.copied:
            return True
        if not fact.request_id or isinstance(fact, Exchange):
            return False
        key = (fact.request_sha256, fact.request_id)
        is_copy = key in self._copies
        self._copies.add(key)
        return is_copy and run in self._going_on


def calls_of(entries: Iterable[Entry]) -> list[PaidCall]:
    """Return the calls that the log of a run tells of."""
    spending = Spending()
    calls = [call for entry in entries for call in spending.take(entry)]
    return [*calls, *spending.rest()]


def paid_in(notes: Iterable[Note], held: str) -> Amount:
    """Return what the journal of a step has of the call for which this was held."""
    found = Amount()
    for note in notes:
        match note.fact:
            case ModelCall(rehearsed=False, copied=False) | Exchange(rehearsed=False) as call if call.held == held:
                found += amount_of(call.usage, call.cost_usd)
            case Spent(work=work) if work.held == held:
                found += amount_of(work.usage, work.cost_usd)
            case _:
                pass
    return found


def by(sums: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return what was spent on what, the most first."""
    return sorted(sums.items(), key=lambda each: (-each[1], each[0]))


def summed(calls: Iterable[PaidCall]) -> Sum:
    """Return what these took together."""
    found = list(calls)
    if not found:
        return NOTHING
    priced = [call for call in found if call.cost_usd is not None]
    return Sum(
        calls=len(found),
        usage=total(call.usage for call in found),
        cost_usd=math.fsum(call.cost_usd or 0.0 for call in priced),
        waste_usd=math.fsum(call.cost_usd or 0.0 for call in priced if call.in_vain),
        unpriced=len(found) - len(priced),
        rehearsed=sum(call.rehearsed for call in found),
    )


def _of_work(entry: Entry, run: str, step: str, work: Work, *, in_vain: bool) -> PaidCall:
    return PaidCall(
        at=entry.at,
        run=run,
        step=step,
        model=work.model,
        usage=work.usage or Usage(),
        cost_usd=work.cost_usd,
        rehearsed=work.rehearsed,
        in_vain=in_vain,
        held=work.held,
    )
