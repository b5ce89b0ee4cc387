"""The worker: takes the handoffs of one actor and gets each step done, in five steps that are written once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import AsyncIterator

import structlog
from msgspec import Raw

from baton_bus import Bus
from baton_bus.deliveries import Delivery
from baton_bus.errors import PayloadTooLarge
from baton_bus.topology import REPLIES_IN_FLIGHT
from baton_schemas.carry import state_at, with_outcome
from baton_schemas.codec import decode, encode
from baton_schemas.errors import BadMessage
from baton_schemas.flow import Agent
from baton_schemas.messages import (
    VERSION,
    Blob,
    Done,
    Error,
    Failed,
    Handoff,
    Note,
    Outcome,
    Reply,
    Result,
    State,
    Work,
)
from baton_schemas.names import END
from baton_schemas.plan import Plan
from baton_schemas.routing import base_of, decide, follow, spreads, start

from .ends import Ends
from .errors import BadOutput
from .handlers import Context
from .job import Job
from .joiner import Joiner
from .memory import Memory
from .performing import Performed, Performer
from .plans import Plans
from .records import Records
from .rejects import reject
from .retries import as_error, delay_s, is_final
from .values import NotAList, TooManyBranches, Values

REPLIES_IN_HAND = 4_000
"""Replies that one merger process holds: a burst of a thousand is taken at once, and still fits in memory."""
ANNOUNCE_AFTER_S = 0.1
"""A handler that runs longer is announced to watchers; a shorter one is done before anybody could look."""
_ANNOUNCE_AGAIN_S = 2.0
_BROKEN_RETRY_S = 2.0
"""A handoff that the worker itself cannot process (the bus refuses, a bug) is given back for so long."""

logger = structlog.get_logger("baton.worker")


class Worker:
    """Plays one actor. Use `working` to run it; several workers may share one bus, one `Plans`, one `Ends`."""

    def __init__(self, bus: Bus, actor: str, agent: Agent, performer: Performer, plans: Plans, ends: Ends) -> None:
        """`agent` gives the bounds (`concurrency`, `max_in_flight`); the rest comes with each run's own flow."""
        self.name = f"{socket.gethostname()[:40]}:{os.getpid()}"
        self._bus, self._actor, self._agent, self._performer = bus, actor, agent, performer
        self._plans, self._ends = plans, ends
        in_hand: dict[tuple[str, str], dict[str, Reply]] = {}
        self._values = Values(bus, in_hand)
        self._records = Records(bus, self._values)
        self._joiner = Joiner(bus, actor, plans, self._records, ends, in_hand)
        self._jobs: dict[int, Job] = {}
        self._dice = random.Random()
        ends.tell(self._run_ended)

    @contextlib.asynccontextmanager
    async def working(self, *, joins: bool, grace_s: float = 10.0) -> AsyncIterator[None]:
        """Take work while the context is open; then finish what is in hand, or give it back after `grace_s`.

        `joins` says whether the actor is a merger and takes replies too.
        """
        bus, subjects = self._bus, self._bus.subjects
        async with contextlib.AsyncExitStack() as stack:
            announcer = asyncio.create_task(self._announce(), name=f"announce {self._actor}")
            stack.callback(announcer.cancel)
            pullers = []
            if joins:
                pullers.append(
                    await stack.enter_async_context(
                        bus.pulling(
                            f"reply-{self._actor}",
                            subjects.for_actor("reply", self._actor),
                            REPLIES_IN_HAND,
                            self._joiner.on_delivery,
                            max_ack_pending=REPLIES_IN_FLIGHT,
                        )
                    )
                )
            pullers.append(
                await stack.enter_async_context(
                    bus.pulling(
                        f"handoff-{self._actor}",
                        subjects.for_actor("handoff", self._actor),
                        self._agent.concurrency,
                        self._on_delivery,
                        max_ack_pending=self._agent.max_in_flight,
                    )
                )
            )
            try:
                yield
            finally:
                for puller in pullers:
                    await puller.stop()
                await self._finish(grace_s)
                await self._joiner.stop()

    # ---- the five steps --------------------------------------------------------------------------

    async def _do(self, job: Job) -> None:
        # 1. Take the handoff. Its lease is kept alive by the puller.
        handoff = decode(job.delivery.data, job.delivery.subject)
        if not isinstance(handoff, Handoff):
            raise BadMessage("expected a handoff", job.delivery.subject)
        plan = await self._plans.of(handoff)
        self._know(job, plan, handoff)
        start_seq = handoff.start_seq or job.delivery.seq

        # 2. Is it still to be done? On a fresh first delivery nobody else can have done it.
        if job.run in self._ends:
            await job.delivery.ack()
            return
        if handoff.forked_from and not handoff.start_seq:
            await self._records.copy(plan, handoff, start_seq)
        if self._may_be_done(job.delivery, handoff) and await self._was_done(plan, handoff):
            await job.delivery.ack()
            return
        await self._write_what_comes_with(plan, handoff, start_seq, job.delivery.stored_at_s)
        ended = await self._outcome(job, plan, handoff)
        if ended is None:
            return
        state, outcome = ended

        # 3. Record: the one message that decides the outcome, ours or that of whoever was first.
        try:
            record = await self._records.record(decide(plan, handoff, state, outcome, start_seq))
        except PayloadTooLarge as error:
            too_large = Failed(error=as_error(job.step, job.attempt, error), work=outcome_work(outcome))
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

    def _may_be_done(self, delivery: Delivery, handoff: Handoff) -> bool:
        waited_s = self._bus.now_s() - delivery.stored_at_s
        again = delivery.delivered > 1 or waited_s > self._bus.settings.lease_s
        return again or handoff.copied or bool(handoff.forked_from)

    async def _was_done(self, plan: Plan, handoff: Handoff) -> bool:
        """Say whether the run or the step has ended; if only the step, finish what follows from its record."""
        if await self._bus.log.last(self._bus.subjects.result(plan.flow.name, handoff.run)) is not None:
            return True
        record = await self._records.decided(plan, handoff)
        if record is None:
            return False
        await self._records.follow(plan, record)
        return True

    async def _write_what_comes_with(self, plan: Plan, handoff: Handoff, start_seq: int, stored_at_s: float) -> None:
        """Write what follows from the handoff itself: other first steps, deadlines, the end of a run that failed."""
        if not handoff.start_seq:
            await self._begin(plan, handoff, start_seq, stored_at_s)
        elif handoff.outcome is not None and plan.timed_joins:
            await self._records.set_join_timers(plan, handoff.run, [handoff.step], state_at(handoff), start_seq)
        if isinstance(handoff.outcome, Failed):
            await self._records.write(plan, follow(plan, handoff, {}))

    async def _begin(self, plan: Plan, first: Handoff, start_seq: int, stored_at_s: float) -> None:
        """Write what the first handoff of a run stands for: the deadlines and the other first messages."""
        if first.deadline_s:
            reason = f"the deadline of {first.deadline_s:g} s"
            expired = Result(
                v=VERSION,
                flow=plan.flow.name,
                digest=plan.digest,
                run=first.run,
                status="expired",
                reason=reason,
                start_seq=start_seq,
            )
            due_s = stored_at_s + first.deadline_s
            await self._bus.timers.at(plan.flow.name, first.run, END, due_s, encode(expired))
        await self._records.set_join_timers(plan, first.run, plan.first, first.state, start_seq)
        if plan.starts_many:
            lists = await self._values.lists(spreads(plan, None), first.state)
            await self._records.write(plan, start(plan, first.run, first.state, lists, start_seq)[1:])

    async def _outcome(self, job: Job, plan: Plan, handoff: Handoff) -> tuple[State, Outcome] | None:
        """Do the step; return what it saw and how it ended, or None when the handoff is not ours any more."""
        if isinstance(handoff.outcome, Failed) and plan.fails_run(handoff.source):
            await job.delivery.ack()
            return None
        notes = await self._notes_of_earlier(job, handoff)
        job.attempt = max(1, job.delivery.delivered - sum(1 for note in notes if note.type == "given_back"))
        agent = plan.agent(job.step)
        state = state_at(handoff)
        if job.attempt > agent.max_attempts:
            lost = f"handed out {job.attempt} times, and no worker finished it"
            return state, self._failed(job, Error(step=job.step, type="WorkerLost", message=lost, attempts=job.attempt))
        if job.run in self._ends:
            await job.delivery.ack()
            return None
        job.in_handler = True
        try:
            state = await self._values.state(plan, handoff, self._actor)
            if handoff.error is not None:
                return state, self._failed(job, handoff.error)
            values = await self._values.read(plan, handoff, state)
            context = Context(run=job.run, step=job.step, attempt=job.attempt)
            memory = Memory(self._bus, self._actor, self.name, context, notes)
            performed = await self._performer.perform(plan, job.step, values, context, memory)
            return state, await self._done(job, plan, handoff, state, performed)
        except (Exception, asyncio.CancelledError) as error:
            job.in_handler = False
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                await self._cancelled(job)
                return None
            if not is_final(error) and job.attempt < agent.max_attempts:
                await self._retry(job, agent, error)
                return None
            logger.warning("step.failed", error=str(error), type=type(error).__name__, attempt=job.attempt)
            return state, self._failed(job, as_error(job.step, job.attempt, error))
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
                worker=self.name,
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

    def _failed(self, job: Job, error: Error) -> Failed:
        elapsed_s = round(time.monotonic() - job.started, 4)
        return Failed(error=error, work=Work(attempt=job.attempt, worker=self.name, elapsed_s=elapsed_s))

    async def _notes_of_earlier(self, job: Job, handoff: Handoff) -> list[Note]:
        """Return what earlier attempts noted; on a first delivery there was none, unless the consumer is new.

        An attempt is a delivery, less those that a worker gave back.
        """
        if not self._may_be_done(job.delivery, handoff):
            return []
        return await self._bus.notes(self._actor, handoff.run, handoff.step)

    async def _retry(self, job: Job, agent: Agent, error: Exception) -> None:
        wait_s = round(delay_s(agent, job.attempt, error, self._dice), 3)
        recorded = as_error(job.step, job.attempt, error)
        logger.warning("step.retry", error=recorded.message, type=recorded.type, attempt=job.attempt, delay_s=wait_s)
        await self._bus.note(self._actor, self._note(job, "retry", error=recorded, delay_s=wait_s))
        await job.delivery.nak(wait_s)

    async def _cancelled(self, job: Job) -> None:
        task = asyncio.current_task()
        if task is None or job.cancelled is None:
            raise asyncio.CancelledError
        task.uncancel()
        if job.cancelled == "run ended":
            await job.delivery.ack()
            return
        await self._bus.note(self._actor, self._note(job, "given_back", message="the worker stops"))
        await job.delivery.nak()

    def _note(self, job: Job, kind: str, *, error: Error | None = None, message: str = "", delay_s: float = 0) -> Note:
        return Note(
            v=VERSION,
            run=job.run,
            step=job.step,
            type=kind,
            attempt=job.attempt,
            worker=self.name,
            error=error,
            message=message,
            delay_s=delay_s,
        )

    # ---- jobs ------------------------------------------------------------------------------------

    def _on_delivery(self, delivery: Delivery) -> None:
        job = self._jobs.get(delivery.seq)
        if job is not None:
            renewing = asyncio.ensure_future(job.renew(delivery))
            renewing.add_done_callback(lambda _: None)
            return
        job = Job(delivery)
        self._jobs[delivery.seq] = job
        job.task = asyncio.create_task(self._run(job))

    async def _run(self, job: Job) -> None:
        try:
            await self._do(job)
        except BadMessage as error:
            await reject(self._bus, self._actor, job.delivery, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("worker.broken", subject=job.delivery.subject, seq=job.delivery.seq)
            await job.delivery.nak(_BROKEN_RETRY_S)
        finally:
            self._jobs.pop(job.delivery.seq, None)

    def _run_ended(self, run: str) -> None:
        for job in self._jobs.values():
            if job.run == run:
                job.cancel("run ended")

    async def _finish(self, grace_s: float) -> None:
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for job in list(self._jobs.values()):
            job.cancel("worker stops")
        rest = [task for task in tasks if not task.done()]
        if rest:
            await asyncio.wait(rest, timeout=grace_s)
        for task in rest:
            task.cancel()

    async def _announce(self) -> None:
        while True:
            await asyncio.sleep(ANNOUNCE_AFTER_S)
            now = time.monotonic()
            for job in list(self._jobs.values()):
                last = job.announced_at
                if job.in_handler and now - (last or job.started) > (_ANNOUNCE_AGAIN_S if last else ANNOUNCE_AFTER_S):
                    job.announced_at = now
                    with contextlib.suppress(Exception):
                        await self._bus.say_running(job.run, job.step, job.attempt)


def _is_cancelled() -> bool:
    """Say whether it is this task that was cancelled, and not something that its handler waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def outcome_work(outcome: Outcome) -> Work:
    """Return how a step was done, as its outcome has it."""
    return outcome.work if isinstance(outcome, Done | Failed) else Work()
