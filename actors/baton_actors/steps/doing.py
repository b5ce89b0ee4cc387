"""Doing a handoff: the five steps that take it to its outcome, written once and in this order."""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog
from msgspec import Raw

from baton_actors.agents.handlers import Context
from baton_actors.agents.performing import Performed, Performer
from baton_actors.errors import BadOutput
from baton_actors.steps.attempts import Attempts
from baton_actors.steps.ends import Ends
from baton_actors.steps.job import Job
from baton_actors.steps.memory import Memory
from baton_actors.steps.plans import Plans
from baton_actors.steps.records import Records
from baton_actors.steps.retries import is_final
from baton_actors.steps.values import BranchesMissing, NotAList, TooManyBranches, Values
from baton_bus import Bus
from baton_bus.errors import BlobMissing, PayloadTooLarge
from baton_schemas.errors import BadMessage
from baton_schemas.flow.graph import Plan
from baton_schemas.run.carry import state_at, with_outcome
from baton_schemas.run.lifecycle import Routed, base_of, decide, spreads, start
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import VERSION, Blob, Done, Failed, Handoff, Outcome, Result, State, Work
from baton_schemas.wire.names import END, JOIN

logger = structlog.get_logger("baton.worker")


class Doing:
    """Does the handoffs of one actor. Several may be under way at once; each has a `Job`."""

    def __init__(
        self,
        bus: Bus,
        actor: str,
        performer: Performer,
        plans: Plans,
        ends: Ends,
        values: Values,
        records: Records,
        attempts: Attempts,
    ) -> None:
        self._bus, self._actor, self._performer, self._plans, self._ends = bus, actor, performer, plans, ends
        self._values, self._records, self._attempts = values, records, attempts

    async def do(self, job: Job) -> None:
        """Take a handoff to its outcome, or give it back. Raises `BadMessage` and the errors of the bus."""
        # 1. Take the handoff. Its lease is kept alive by the puller.
        handoff = decode(job.delivery.data, job.delivery.subject)
        if not isinstance(handoff, Handoff):
            raise BadMessage("expected a handoff", job.delivery.subject)
        plan = await self._plans.of(handoff)
        self._know(job, plan, handoff)
        start_seq = handoff.start_seq or job.delivery.seq

        # 2. Is it still to be done? On a fresh first delivery nobody else can have done it.
        if not await self._is_to_be_done(job, plan, handoff, start_seq):
            await job.delivery.ack()
            return
        ended = await self._outcome(job, plan, handoff)
        if ended is None:
            return
        state, outcome = ended

        # 3. Record: the one message that decides the outcome, ours or that of whoever was first.
        try:
            record = await self._records.record(decide(plan, handoff, state, outcome, start_seq))
        except PayloadTooLarge as error:
            too_large = Failed(error=self._attempts.failed(job, error).error, work=_work_of(outcome))
            record = await self._records.record(decide(plan, handoff, State(), too_large, start_seq))

        # 4. Derive what follows from the record that is stored.
        await self._records.follow(plan, record)

        # 5. Ack.
        await job.delivery.ack()

    # ---- their parts -----------------------------------------------------------------------------

    def _know(self, job: Job, plan: Plan, handoff: Handoff) -> None:
        """Note whose handoff it is. Raises `BadMessage` when it is no handoff that routing could have made."""
        subject = job.delivery.subject
        if base_of(handoff) not in plan.flow.steps:
            raise BadMessage(f"flow {plan.flow.name!r} has no step {handoff.step!r}", subject)
        if subject != self._bus.subjects.of(plan.actor(handoff.step), handoff):
            raise BadMessage(f"the body is a handoff of step {handoff.step!r} of run {handoff.run!r}", subject)
        if bool(handoff.count) != bool(plan.step(handoff.step).each):
            raise BadMessage(f"count is {handoff.count}, which step {handoff.step!r} cannot have", subject)
        job.run, job.step = handoff.run, handoff.step
        structlog.contextvars.bind_contextvars(run=job.run, step=job.step, actor=self._actor)

    async def _is_to_be_done(self, job: Job, plan: Plan, handoff: Handoff, start_seq: int) -> bool:
        """Say whether the handler is to be called; what the handoff itself stands for is written by then."""
        stored_at_s = job.delivery.stored_at_s
        begins = not handoff.start_seq
        if job.run in self._ends:
            return False
        try:
            if begins and handoff.forked_from:
                await self._records.copy(plan, handoff, start_seq)
                await self._begin(plan, handoff, start_seq, stored_at_s)
            if self._may_be_done(job, handoff) and await self._was_done(plan, handoff):
                return False
            if await self._was_due(plan, handoff, start_seq, stored_at_s):
                return False
            if begins and not handoff.forked_from:
                await self._begin(plan, handoff, start_seq, stored_at_s)
        except BlobMissing as error:  # of a list to fan out over: what waits for its branches would never begin
            await self._records.fail_run(plan, handoff.run, handoff.step, error, start_seq)
            return False
        if plan.timed_joins and not begins and handoff.outcome is not None:
            await self._records.set_join_timers(plan, handoff.run, [handoff.step], state_at(handoff), start_seq)
        if isinstance(handoff.outcome, Failed) and plan.fails_run(handoff.source):
            await self._records.follow(plan, handoff)
            return False
        return True

    def _may_be_done(self, job: Job, handoff: Handoff) -> bool:
        copied = handoff.copied or bool(handoff.forked_from)
        return copied or job.again or not self._bus.is_fresh(job.delivery)

    async def _was_done(self, plan: Plan, handoff: Handoff) -> bool:
        """Say whether the run or the step has ended; if only the step, finish what follows from its record."""
        ended = await self._bus.log.last(self._bus.subjects.result(plan.flow.name, handoff.run))
        if ended is not None:
            if isinstance(ended.message, Result):  # who wrote it may have died before it could say so
                await self._records.follow(plan, ended.message)
            return True
        record = await self._records.decided(plan, handoff)
        if record is None:
            return False
        await self._records.follow(plan, record)
        return True

    async def _was_due(self, plan: Plan, first: Handoff, start_seq: int, stored_at_s: float) -> bool:
        """End a run whose deadline passed before any worker took its first handoff; say whether it did."""
        if not first.deadline_s or self._bus.now_s() < stored_at_s + first.deadline_s:
            return False
        await self._records.write(plan, [Routed("", _expired(plan, first, start_seq))])
        return True

    async def _begin(self, plan: Plan, first: Handoff, start_seq: int, stored_at_s: float) -> None:
        """Write what the first handoff of a run stands for: the deadlines and the other first messages.

        Raises `BlobMissing` when a list of the input cannot be read.
        """
        if first.deadline_s:
            due_s = stored_at_s + first.deadline_s
            expired = encode(_expired(plan, first, start_seq))
            await self._bus.timers.at(plan.flow.name, first.run, END, due_s, expired)
        await self._records.set_join_timers(plan, first.run, plan.first, first.state, start_seq)
        if plan.starts_many:
            lists = await self._values.lists(spreads(plan, None), first.state)
            await self._records.write(plan, start(plan, first.run, first.state, lists, start_seq)[1:])

    async def _outcome(self, job: Job, plan: Plan, handoff: Handoff) -> tuple[State, Outcome] | None:
        """Do the step; return what it saw and how it ended, or None when the handoff is not ours any more."""
        agent = plan.agent(job.step)
        # What was paid for is looked up at every delivery: a new leader of the consumer may count from one again.
        first = not self._may_be_done(job, handoff) and bool(agent.handler)
        notes = await self._attempts.count(job, first=first)
        state = state_at(handoff)
        if job.attempt > agent.max_attempts:
            with contextlib.suppress(BranchesMissing, BlobMissing):
                state = await self._values.state(plan, handoff, self._actor)
            return state, self._attempts.lost(job)
        if job.run in self._ends:
            await job.delivery.ack()
            return None
        job.in_handler = True
        try:
            state = await self._values.state(plan, handoff, self._actor)
            if handoff.source == JOIN:
                start_seq = handoff.start_seq or job.delivery.seq
                await self._records.set_join_timers(plan, job.run, [job.step], state, start_seq)
            if handoff.error is not None:
                return state, self._attempts.failed(job, handoff.error)
            values = await self._values.read(plan, handoff, state)
            context = Context(run=job.run, step=job.step, attempt=job.attempt)
            memory = Memory(self._bus, self._actor, self._attempts.worker, context, notes)
            performed = await self._performer.perform(plan, job.step, values, context, memory)
            return state, await self._done(job, plan, handoff, state, performed)
        except (Exception, asyncio.CancelledError) as error:
            job.in_handler = False
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                await self._attempts.cancelled(job)
                return None
            if not is_final(error) and job.attempt < agent.max_attempts:
                await self._attempts.retry(job, agent, error)
                return None
            logger.warning("step.failed", error=str(error), type=type(error).__name__, attempt=job.attempt)
            return state, self._attempts.failed(job, error)
        finally:
            job.in_handler = False

    async def _done(self, job: Job, plan: Plan, handoff: Handoff, state: State, performed: Performed) -> Done:
        elapsed_s = round(time.monotonic() - job.started, 4)
        if job.announced_at is not None:
            logger.info("step.done", attempt=job.attempt, elapsed_s=elapsed_s)
        value = await self._values.stored(performed.output)
        done = Done(
            output=Raw(b"null") if isinstance(value, Blob) else value,
            blob=value if isinstance(value, Blob) else None,
            truncated=performed.truncated,
            work=Work(
                attempt=job.attempt,
                worker=self._attempts.worker,
                elapsed_s=elapsed_s,
                model=performed.model,
                rehearsed=performed.rehearsed,
                request_id=performed.request_id,
                usage=performed.usage,
                cost_usd=performed.cost_usd,
            ),
        )
        to_spread = spreads(plan, base_of(handoff))
        if to_spread:
            try:
                await self._values.lists(to_spread, with_outcome(state, job.step, done))
            except (NotAList, TooManyBranches) as error:
                raise BadOutput(str(error)) from error
        return done


def _expired(plan: Plan, first: Handoff, start_seq: int) -> Result:
    return Result(
        v=VERSION,
        flow=plan.flow.name,
        digest=plan.digest,
        run=first.run,
        status="expired",
        reason=f"the deadline of {first.deadline_s:g} s",
        start_seq=start_seq,
    )


def _is_cancelled() -> bool:
    """Say whether it is this task that was cancelled, and not something that its handler waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _work_of(outcome: Outcome) -> Work:
    """Return how a step was done, as its outcome has it."""
    return outcome.work if isinstance(outcome, Done | Failed) else Work()
