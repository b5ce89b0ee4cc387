"""Runs as a whole: starting one, going on from another, ending one beside its steps, and finding where one begins."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Raw

from baton_bus.errors import NotAllowed, RunExists, UnknownRun
from baton_schemas.errors import InputError
from baton_schemas.flow.budgets import with_budget
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import check_input
from baton_schemas.flow.limits import DEADLINE_MAX_S
from baton_schemas.run.child_runs import has_to_be_followed
from baton_schemas.run.fork import forked_start, going_on
from baton_schemas.run.lifecycle import Create, Submitted, View, decide
from baton_schemas.run.past import Logged, past_of
from baton_schemas.run.state import Entry, known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Origin, Parent, Result, Started
from baton_schemas.wire.money import Budget
from baton_schemas.wire.names import STOPPED
from baton_schemas.wire.outcomes import ResultStatus, State
from baton_schemas.wire.values import clean_text

from .forking import given_to, with_source_of, without_source

if TYPE_CHECKING:
    from .engine import Engine

STOPPED_AFTER_S = 5.0
"""After so long a clerk does what follows from a client's ending a run, unless the client has done it."""
REASON_MAX = 2_000
"""Characters of a reason that are kept: it stands in a result, which is read often."""


class Runs:
    """Does this on one bus."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._bus = engine, engine.bus

    # ---- starting ----------------------------------------------------------------------------------

    async def start(
        self,
        plan: Plan,
        given: Mapping[str, Raw],
        run: str,
        *,
        deadline_s: float | None = None,
        parent: Parent | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Start a run; it is durable once this returns. Starting it again with the same input changes nothing.

        `parent` is the step of another run that asks for it (see `Nesting.begin`). `budget` goes over that of the flow.

        Raises `FlowError` for a budget that cannot be kept, `InputError`, `RunExists` (the id is that of another run)
        and the errors of `Publisher.create`.
        """
        if deadline_s is not None and not 0 < deadline_s <= DEADLINE_MAX_S:
            reason = f"{deadline_s:g} s; expected more than 0 and at most {DEADLINE_MAX_S:.0f} (a year)"
            raise InputError(plan.flow.name, "deadline_s", reason)
        deadline_s = deadline_s or plan.flow.deadline_s or 0.0
        await self._start(await self._first_of(with_budget(plan, budget), given, run, deadline_s, parent, budget))

    async def fork(
        self,
        run: str,
        new_run: str,
        *,
        plan: Plan | None = None,
        until_seq: int = 0,
        failed: bool = False,
        budget: Budget | None = None,
    ) -> None:
        """Start a run that goes on from another, with the steps that it had finished.

        With a `plan` it does so under that version of the flow, and what that changes is done again, with all that
        comes after it (see `baton_schemas.run.keeping`). Steps whose failure ended the other run are done again; with
        `failed`, those whose failure did not are too. With `until_seq` only what was recorded up to that stream
        sequence counts as finished. It has a budget of its own: the one given here, or as the other one had. Raises
        `UnknownRun`, `InputError` when the changed flow does not take the input of the other run, and as `start`.
        """
        forking = self._engine.forking
        entry, first = await self.first(run)
        past = past_of([Logged(entry.seq, "", first)])
        given = budget or given_to(first)
        if given is not None and (plan or past):
            plan = with_budget(plan or past.plan, given)  # type: ignore[union-attr]
        if plan is None or plan.digest == first.digest:
            start = forked_start(first, new_run, until_seq, failed=failed)
            await self._start(Create(self._bus.subjects.split(entry.subject).who, start))
            return
        deadline_s = forking.deadline_s(plan, past.plan if past else None, first)
        actor, begins = await self._first_of(plan, await forking.input(plan, first), new_run, deadline_s, budget=given)
        assert isinstance(begins, Handoff)
        origin = Origin(run=first.run, until_seq=until_seq, failed=failed)
        await self._start(Create(actor, with_source_of(first, going_on(begins, origin))))

    async def _first_of(
        self,
        plan: Plan,
        given: Mapping[str, Raw],
        run: str,
        deadline_s: float,
        parent: Parent | None = None,
        budget: Budget | None = None,
    ) -> Create:
        """Return the handoff that starts a run with this input, checked. Raises as `start`."""
        checked = check_input(plan.flow, given)
        if plan.takes_files:
            checked = await self._engine.files.settled(plan.flow.name, plan.flow.input, checked)
        spread = await self._engine.fan_outs.first(plan, checked)
        state = await self._engine.values.fitted(State(input=checked))
        (first,) = decide(View(plan, 0.0, *spread), Submitted(run, state, deadline_s, parent, budget))
        assert isinstance(first, Create)
        return first

    async def _start(self, first: Create) -> None:
        """Write the handoff that starts a run: whatever its first step or actor, a run id starts once."""
        pattern = self._bus.subjects.start(first.message.run)
        subject, body = self._bus.subjects.of(*first), encode(first.message)
        patience_s = self._bus.settings.patience_s
        if await self._bus.publisher.create(subject, body, patience_s=patience_s, once_in=pattern) is None:
            entry, there = await self.first(first.message.run)
            ours = first.message
            assert isinstance(ours, Handoff)
            if entry.data != body and encode(without_source(there)) != encode(without_source(ours)):
                raise RunExists(ours.run)

    # ---- finding, and ending -----------------------------------------------------------------------

    async def first(self, run: str) -> tuple[Entry, Handoff]:
        """Return the first handoff of a run, by the leader's word. Raises `UnknownRun`, `BusUnavailable`."""
        pattern = self._bus.subjects.start(run)
        entry = await self._bus.log.last_sure(pattern)
        if entry is not None and not begins_run(entry) and isinstance(entry.message, Handoff):
            # Another of its first steps, which says where the first handoff is.
            entry = await self._bus.log.at_sure(entry.message.start_seq)
        if entry is not None and not (begins_run(entry) and entry.message.run == run):  # type: ignore[union-attr]
            found = await self._bus.log.matching_sure([pattern])
            entry = next((each for each in found if begins_run(each)), None)
            if entry is None:
                for each in found:
                    known(each)
        if entry is None or not isinstance(entry.message, Handoff):
            raise UnknownRun(run)
        return entry, entry.message

    async def stop(self, first: Handoff, start_seq: int, status: ResultStatus, reason: str) -> Result:
        """End a run beside its steps; return the result that it then has, this one or an earlier one.

        `first` is the handoff that it began with, which is at `start_seq`. What a step that asked for the run, and the
        runs that it asked for, are to hear of it is written too. Raises the errors of `Publisher.create`.
        """
        bus, nesting = self._bus, self._engine.nesting
        result = Result(
            flow=first.flow,
            digest=first.digest,
            run=first.run,
            status=status,
            reason=clean_text(reason, REASON_MAX),
            start_seq=start_seq,
            children=nesting.may_leave_children(first),
        )
        has_relatives = has_to_be_followed(result)
        # 1. Whatever becomes of us, a clerk does all of it. 2. Do it. 3. No clerk has to.
        if has_relatives:
            due_s = bus.now_s() + STOPPED_AFTER_S
            await bus.timers.at(result.flow, result.run, STOPPED, due_s, encode(result))
        stored = await self._engine.writing.record(Create("", result), bus.settings.patience_s)
        assert isinstance(stored, Result)
        if has_relatives:
            with contextlib.suppress(NotAllowed):  # to people a clerk's work may be forbidden
                await nesting.follow(stored)
                await bus.timers.cancel(result.flow, result.run, STOPPED)
        return stored


def begins_run(entry: Entry) -> bool:
    """Say whether an entry is the handoff that a run starts with, and not another of its first steps."""
    message = entry.message
    return isinstance(message, Handoff) and isinstance(message.cause, Started) and message.cause.begins is not None
