"""Doing a handoff: the five steps that take it to its outcome, written once and in this order.

What comes back says how the delivery is to be settled. Errors of the bus go through: they are nobody's failure.
"""

from __future__ import annotations

import asyncio

from baton_bus.engine.engine import CANNOT_GO_ON, WOKEN_AHEAD_S
from baton_bus.engine.journal import Journal
from baton_bus.errors import PayloadTooLarge
from baton_schemas.run.carry import state_at
from baton_schemas.run.lifecycle import Create, Ended, Entered, ends_run
from baton_schemas.wire.messages import After, Note, Result
from baton_schemas.wire.outcomes import Done, Failed, Outcome, State, Work

from .attempting import NO_NOTES, Attempting
from .claim import Claim, claim
from .hearing import Answers
from .job import Job
from .logged import log_with
from .looking import look
from .reading import Reading
from .retries import as_error
from .settlement import Ack, Settlement
from .shared import Shared


class Doing:
    """Does the handoffs of one actor. Several may be under way at once; each has a `Job`."""

    def __init__(self, shared: Shared, actor: str, reading: Reading, answers: Answers) -> None:
        self._engine, self._plans, self._ends = shared.engine, shared.plans, shared.ends
        self._actor, self._worker = actor, shared.worker
        self._attempting = Attempting(shared, reading, answers)

    async def do(self, job: Job) -> Settlement:
        """Take a handoff to its outcome, or say when it is to come again.

        Raises `BadMessage`, `NewerMessage`, and the errors of the bus.
        """
        # 1. Take the handoff. Its lease is kept alive by the puller.
        work = await claim(self._engine, self._plans, job.delivery)
        job.flow, job.run, job.step = work.plan.flow.name, work.handoff.run, work.handoff.step
        log_with(run=job.run, step=job.step, actor=self._actor)
        if not self._ends.hears(work.plan):
            await self._ends.hear(work.plan)
        if work.due_s:
            await self._until_due(work)

        # 2. Is it still to be done? On a fresh first delivery nobody else can have done it.
        journal = Journal(self._engine.bus, self._actor, job.run, job.step, self._worker)
        comes_again = bool(job.again) or job.delivery.delivered > 1 or work.is_woken
        if comes_again:
            await self._engine.budgets.mend(work.plan, work.start_seq, job.run, job.step, journal)
        notes = await self._notes_if_to_be_done(job, work, journal)
        if notes is None:
            return Ack()

        # 3. Do it.
        ended = await self._attempting.attempt(job, work, journal, notes)
        if not isinstance(ended, Ended):
            return ended

        # 4. Record: the one message that decides the outcome, ours or that of whoever was first.
        if self._may_have_ended(job) and await self._has_ended_meanwhile(job, work):
            return Ack()
        try:
            record = await self._engine.record(work.plan, ended)
        except PayloadTooLarge as error:
            too_large = Failed(error=as_error(job.step, job.attempt, error), work=_work_of(ended.outcome))
            record = await self._engine.record(work.plan, ended._replace(state=State(), outcome=too_large))

        # 5. Derive what follows from the record that is stored. Then the delivery is acked.
        if self._may_have_ended(job) and await self._has_ended_meanwhile(job, work):
            return Ack()
        await self._engine.derive(work.plan, record, work.handoff)
        if job.asks_outside and not isinstance(record, Result):
            await self._engine.saying.withdraw(job.run, job.step)
        if comes_again:  # what a dead worker held may have come since, and nobody looks for it after this
            await self._engine.budgets.mend(work.plan, work.start_seq, job.run, job.step, journal)
        return Ack()

    async def _until_due(self, work: Claim) -> None:
        """Wait for the rest of a time that was asked for: the broker's timers are woken early, as they may be late."""
        wait_s = work.due_s - self._engine.bus.now_s()
        if wait_s > 0:
            await asyncio.sleep(min(wait_s, WOKEN_AHEAD_S))

    # ---- is it to be done? -----------------------------------------------------------------------

    async def _notes_if_to_be_done(self, job: Job, work: Claim, journal: Journal) -> list[Note] | None:
        """Return what earlier attempts noted; None when the step is not to be done.

        What the handoff itself stands for is written by then.
        """
        plan, handoff = work.plan, work.handoff
        notes: list[Note] | None = NO_NOTES
        if self._ends.has(job.flow, job.run):
            if await self._has_ended(work):
                return None
            self._ends.forget(job.flow, job.run)
        begins = work.begins and not work.is_woken  # what is woken had begun before it was parked
        if begins and work.forks and not await self._begin(job, work):
            return None
        if self._may_be_done(job, work) and (notes := await look(self._engine, work, journal)) is None:
            return None
        if begins and not work.forks and not await self._begin(job, work):
            return None
        if ends_run(plan, handoff):
            await self._engine.derive(plan, handoff)
            return None
        if plan.timed_joins and isinstance(handoff.cause, After) and handoff.cause.outcome is not None:
            await self._engine.apply(plan, Entered(handoff, state_at(handoff), work.start_seq))
        return notes

    def _may_be_done(self, job: Job, work: Claim) -> bool:
        # What is paid for is looked up at every delivery: it costs a thousandth of what is asked for.
        again = work.handoff.copied or work.forks or work.is_woken or job.again
        return bool(again) or work.asks_models or not self._ends.is_fresh(work.plan, job.delivery)

    def _may_have_ended(self, job: Job) -> bool:
        """Say whether the run's end was heard, or was perhaps not heard as the connection was away."""
        bus = self._engine.bus
        return not bus.is_connected or job.epoch != bus.epoch or self._ends.has(job.flow, job.run)

    async def _has_ended_meanwhile(self, job: Job, work: Claim) -> bool:
        await self._engine.bus.connected()
        return self._may_have_ended(job) and await self._has_ended(work)

    async def _has_ended(self, work: Claim) -> bool:
        return await self._engine.ended_and_followed(work.plan.flow.name, work.handoff.run)

    async def _begin(self, job: Job, work: Claim) -> bool:
        """Write what the first handoff of a run stands for; False when the run has ended by that."""
        plan, first = work.plan, work.handoff
        try:
            actions = await self._engine.begin(plan, first, work.seq, job.delivery.stored_at_s)
        except CANNOT_GO_ON as error:  # what waits for the branches would never begin
            await self._engine.fail(plan, first.run, first.step, error, work.seq)
            return False
        return not any(isinstance(action, Create) and isinstance(action.message, Result) for action in actions)


def _work_of(outcome: Outcome) -> Work:
    """Return how a step was done, as its outcome has it."""
    return outcome.work if isinstance(outcome, Done | Failed) else Work()
