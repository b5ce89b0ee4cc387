"""What follows when an attempt came to nothing: another one, now or later, the end of the step, or another worker.

How long a retry waits is decided in `retries.py`, and where it waits is decided here.
"""

from __future__ import annotations

import asyncio
import random

import structlog
from msgspec.structs import replace

from baton_actors.errors import HandlerMissing, HeldByOthers, OverBudget
from baton_actors.models import ModelError
from baton_bus.engine.budgets import MORE_NOW
from baton_bus.engine.journal import Journal
from baton_schemas.run.lifecycle import Ended
from baton_schemas.show.errors import at
from baton_schemas.wire.facts import BUDGET, Fact, GivenBack, Retry, Waits
from baton_schemas.wire.outcomes import Failed, State, Work

from .claim import Claim
from .job import Job
from .memory import paid_of
from .retries import as_error, delay_s, is_final
from .settlement import Ack, Nak, Park, Settlement
from .shared import Shared
from .turns import LIMITS, Later

PARK_FROM_S = 2.0
"""A wait from this on, or longer than a lease, is parked: a timer of the broker holds it, and it counts against no
`max_in_flight`. A shorter one is not worth two writes."""
HANDLER_MISSING_MAX_S = 900.0
"""A step that no worker here can do is looked at again this often at the least: somebody may have come who can."""

_HELD_S = (2.0, 6.0)
"""How long a step is let go of that waits for what others hold: what is to be settled comes first meanwhile."""
_DAY_S = 30.0
"""Over so many seconds those begin that waited for the next day."""

logger = structlog.get_logger("baton.worker")


class Failing:
    """Decides for the steps of one actor."""

    def __init__(self, shared: Shared) -> None:
        self._engine, self._ends, self._worker = shared.engine, shared.ends, shared.worker
        self._dice = random.Random()

    async def what_follows(
        self, job: Job, work: Claim, state: State, journal: Journal, error: BaseException
    ) -> Ended | Settlement:
        """Note why an attempt came to nothing, and say what follows. Raises the errors of the bus.

        Raises CancelledError when it was not the job that was cancelled.
        """
        note: Fact | None
        follows: Ended | Settlement
        match error:
            case asyncio.CancelledError():
                note, follows = await self._cancelled(job)
            case HandlerMissing():
                note, follows = self._handler_missing(job, work, error)
            case Later():
                note, follows = self._later_on(job, work, error)
            case OverBudget(parks=True):
                note, follows = await self._waits_for_more(job, work, journal, error)
            case HeldByOthers():
                note = self._given_back(job, error.whose) if job.begun else None
                follows = self._park(work, self._dice.uniform(*_HELD_S), f"what others hold of {error.whose}")
            case _:
                note, follows = self._failed(job, work, state, error)
        if note is not None:
            await journal.write(note)
        return follows

    def _failed(
        self, job: Job, work: Claim, state: State, error: BaseException
    ) -> tuple[Retry | None, Ended | Settlement]:
        agent, delivery = work.plan.agent(job.step), job.delivery
        recorded = as_error(job.step, job.attempt, error)
        said = recorded.message + at(recorded.at)
        paid = paid_of(error, job.attempt) if isinstance(error, ModelError) else Work(attempt=job.attempt)
        paid = replace(paid, worker=self._worker, elapsed_s=job.elapsed_s)
        if is_final(error) or job.attempt >= agent.max_attempts:
            logger.warning("step.failed", error=said, type=recorded.type, attempt=job.attempt)
            failed = Failed(error=recorded, work=paid, ends_run=isinstance(error, OverBudget))
            return None, Ended(work.handoff, state, failed, work.start_seq)
        wait_s = round(delay_s(agent, job.attempt, error, self._dice), 3)
        logger.warning("step.retry", error=said, type=recorded.type, attempt=job.attempt, delay_s=wait_s)
        note = Retry(
            attempt=job.attempt,
            error=recorded,
            delay_s=wait_s,
            work=paid,
            begun=job.begun,
            seq=delivery.seq,
            delivered=delivery.delivered,
        )
        return note, self._later(work, wait_s, "its retry")

    async def _cancelled(self, job: Job) -> tuple[GivenBack | None, Settlement]:
        """Let go of a handoff whose handler was cancelled: for good when its run ended, else for another worker."""
        task = asyncio.current_task()
        if task is None or job.cancelled is None:
            raise asyncio.CancelledError
        task.uncancel()
        if job.cancelled == "parked" and not job.begun:
            return None, Ack()
        if job.cancelled == "run ended" and await self._engine.ended_and_followed(job.flow, job.run):
            return None, Ack()
        self._ends.forget(job.flow, job.run)
        note = self._given_back(job, job.cancelled)
        return note, Ack() if job.cancelled == "parked" else Nak()

    async def _waits_for_more(
        self, job: Job, work: Claim, journal: Journal, error: OverBudget
    ) -> tuple[GivenBack | None, Settlement]:
        """Let go of a step until more may be spent: the next day, or when somebody says so. It costs no attempt."""
        budgets = self._engine.budgets
        logger.warning("step.over_budget", error=str(error), of_run=error.account.of_run)
        # 1. Say that it waits. 2. Look whether there is more by now: who says so afterwards finds that it waits.
        waits = Waits(
            what=BUDGET,
            reason=f"more to spend: {error}",
            number=work.woken,
            attempt=job.attempt,
            since_s=self._engine.bus.now_s(),
            seq=work.seq,
            of_run=error.account.of_run,
        )
        await journal.write(waits)
        note = self._given_back(job, "over budget") if job.begun else None
        if not error.account.of_run:
            return note, self._park(work, error.again_in_s + self._dice.uniform(0.0, _DAY_S), "the next day's budget")
        if await budgets.raised(error.account):
            return note, self._park(work, 0.0, MORE_NOW)
        return note, Ack()

    def _given_back(self, job: Job, reason: str) -> GivenBack:
        delivery = job.delivery
        return GivenBack(
            attempt=job.attempt, begun=job.begun, reason=reason, seq=delivery.seq, delivered=delivery.delivered
        )

    def _handler_missing(self, job: Job, work: Claim, error: HandlerMissing) -> tuple[Waits, Settlement]:
        """Give a step back that this worker cannot do, free of charge, and say so."""
        logger.warning("handler.missing", error=str(error))
        since_s = self._engine.bus.now_s()
        note = Waits(what="handler", reason=error.waits_for, number=work.woken, attempt=job.attempt, since_s=since_s)
        wait_s = min(HANDLER_MISSING_MAX_S, 0.5 * 2.0 ** min(work.woken + job.delivery.delivered, 12))
        # Parked however short it is: a redelivery without a note of how the last one ended would be a suspect.
        return note, self._park(work, wait_s, "a worker that can do it")

    def _later_on(self, job: Job, work: Claim, error: Later) -> tuple[Waits | None, Settlement]:
        """Let go of a step until its turn has come."""
        follows = self._park(work, max(error.at_s - self._engine.bus.now_s(), 0.0), error.reason)
        if error.noted:
            return None, follows
        note = Waits(
            what=LIMITS,
            reason=error.reason,
            number=work.woken,
            attempt=job.attempt,
            since_s=error.since_s,
            places=error.places,
        )
        return note, follows

    def _later(self, work: Claim, wait_s: float, why: str) -> Settlement:
        """Give a handoff back for a while: to the broker when it is short, parked when it is long."""
        if wait_s <= min(PARK_FROM_S, self._engine.bus.settings.lease_s):
            return Nak(wait_s)
        return self._park(work, wait_s, why)

    def _park(self, work: Claim, wait_s: float, why: str) -> Park:
        handoff = replace(work.handoff, start_seq=work.start_seq)
        return Park(handoff=handoff, seq=work.seq, number=work.woken + 1, delay_s=wait_s, why=why)
