"""An attempt at a step: what it reads is fetched, its agent is called, and what that came to is made an outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

import structlog

from baton_actors.agents.asks import NO_ASKS, Asks
from baton_actors.agents.context import Context
from baton_actors.agents.kinds import AgentKind, Performed, StepTask
from baton_actors.errors import BadOutput, HandlerMissing
from baton_bus.engine.journal import Journal
from baton_bus.errors import BlobMissing, BranchesMissing, TooManyBranches
from baton_schemas.flow.inputs import NotAList
from baton_schemas.run.branches import ends_seen
from baton_schemas.run.carry import state_at
from baton_schemas.run.leaving_out import left_out_before
from baton_schemas.run.lifecycle import Ended, Entered, spreads
from baton_schemas.run.refs import base_of, joined, key_of_child
from baton_schemas.wire.facts import Begun
from baton_schemas.wire.messages import Asked, Note, OutcomeRecord
from baton_schemas.wire.outcomes import NULL, Blob, Done, Error, Failed, Outcome, Skipped, State, Work

from .asking import StepAsks
from .attempts import Tries, is_suspect, tries_of
from .claim import Claim
from .failing import Failing
from .hearing import Answers
from .job import Job
from .live import live_of
from .looking import look
from .memory import Memory
from .not_recorded import NotRecorded
from .reading import Reading, Seen
from .retries import as_error
from .settlement import Ack, Settlement
from .shared import Shared

NO_NOTES: list[Note] = []
"""In place of the notes on a step that is done for the first time."""

logger = structlog.get_logger("baton.worker")


class Attempting:
    """Makes attempts at the steps of one actor."""

    def __init__(self, shared: Shared, reading: Reading, answers: Answers) -> None:
        self._shared, self._engine, self._agents, self._worker = shared, shared.engine, shared.agents, shared.worker
        self._answers, self._reading = answers, reading
        self._suspects, self._held = shared.suspects, shared.held
        self._failing = Failing(shared)

    async def attempt(self, job: Job, work: Claim, journal: Journal, notes: list[Note]) -> Ended | Settlement:
        """Do a step, and say how it ended, or when it is to come again; `notes` are those of earlier attempts.

        Raises the errors of the bus.
        """
        tries = tries_of(notes, ours=job.begun)
        if job.came_to is None:
            job.attempt = tries.next
        state = state_at(work.handoff)
        try:
            seen = Seen(state) if self._reading.has_all(work, state) else await self._reading.seen(work)
            state = seen.state
            if job.came_to is None and (ended := await self._not_to_be_done(job, work, state)) is not None:
                return self._ended(work, state, ended)
            asks: Asks = NO_ASKS
            agent = self._agents.found(work.plan, job.step)
            if not isinstance(agent, HandlerMissing) and (agent.may_ask or work.plan.by_batch(job.step)):
                asks = StepAsks(self._engine, self._answers, job, work, journal, None if notes is NO_NOTES else notes)
            task = await self._task(job, work, seen, asks)
        except (BlobMissing, BranchesMissing) as error:
            return self._ended(work, state, self._failed(job, as_error(job.step, job.attempt, error)))
        if job.came_to is None:
            if tries.died_with and job.attempt > work.plan.agent(job.step).max_attempts:
                return self._ended(work, state, self._failed(job, self._suspects.error_of(job.step, tries)))
            if isinstance(agent, HandlerMissing):  # this worker lacks it: then it is not begun
                job.came_to = agent
            elif not await self._begin(job, work, agent, task, journal, notes, tries):
                return Ack()
        came_to = job.came_to
        if isinstance(came_to, Performed):
            outcome = await self._done(job, work, state, came_to)
            if isinstance(outcome, Done):
                return self._ended(work, state, outcome)
            came_to = outcome
        assert came_to is not None
        return await self._failing.what_follows(job, work, state, journal, came_to)

    async def _task(self, job: Job, work: Claim, seen: Seen, asks: Asks) -> StepTask:
        """Return what the step's agent is given. Raises `BlobMissing`, `BusUnavailable`."""
        plan, step = work.plan, base_of(work.handoff)
        values = await self._reading.values(work, seen.state)
        # What neither asks nor has a model write says nothing.
        job.live = live_of(self._engine.bus, job) if asks is not NO_ASKS or work.asks_models else None
        context = Context(run=job.run, step=job.step, attempt=job.attempt, asks=asks, _live=job.live)
        joins = bool(seen.replies) or bool(plan.opening(step))
        asked = self._agents.asks(plan, step) if joins else frozenset[str]()
        if not asked:
            return StepTask(plan=plan, step=job.step, values=values, context=context, asks=asks)
        came = await self._reading.came(work, seen.state)
        branches = ends_seen(plan, step, seen.replies, came, values, asked)
        # A prompt shows no items, and a list has no need of them.
        shows_items = not work.asks_models and step not in plan.implied
        items = {name: await self._reading.items(work, name) for name in asked} if shows_items else {}
        return StepTask(
            plan=plan, step=job.step, values=values, context=context, asks=asks, branches=branches, items=items
        )

    async def _not_to_be_done(self, job: Job, work: Claim, state: State) -> Failed | Skipped | None:
        """Return how the step ends without an attempt: its join fell short, or it is left out.

        Raises `BlobMissing`, and the errors of the bus.
        """
        if not work.plan.skips and joined(work.handoff) is None:
            return None
        if key_of_child(job.step):
            return None
        closing = joined(work.handoff)
        if closing is not None:
            await self._engine.apply(work.plan, Entered(work.handoff, state, work.start_seq))
            if closing.error is not None:
                return self._failed(job, closing.error)
        why = left_out_before(work.plan, work.handoff)
        if not why and work.handoff.branch is None:  # of a fan-out, who handed it on has seen to it
            why = await self._engine.values.unmet(work.plan, job.step, state)
        if not why:
            return None
        logger.info("step.skipped", reason=why)
        return Skipped(reason=why, left_out=True)

    async def _begin(
        self,
        job: Job,
        work: Claim,
        agent: AgentKind,
        task: StepTask,
        journal: Journal,
        notes: list[Note],
        tries: Tries,
    ) -> bool:
        """Call the agent; one that may have killed its last worker is called alone, and not without a note.

        Where its next death would be the end of it, others do not begin beside it.
        False when there is nothing to do any more: it was done elsewhere while it waited for its turn, or for the bus.
        """
        suspect = is_suspect(notes, job.delivery)
        if not suspect and not self._suspects.is_shut:
            await self._perform(job, agent, task, Memory(self._shared, work, journal, task, notes))
            return True
        is_last = job.attempt >= work.plan.agent(job.step).max_attempts
        turn = self._suspects.alone(work.asks_models, quite=is_last) if suspect else self._suspects.admitted(job)
        async with contextlib.AsyncExitStack() as stack:
            await self._wait_for_turn(job, stack.enter_async_context(turn))
            if job.cancelled is None and job.came_to is None:
                if suspect:
                    job.begun = job.begun or tries.begun + 1
                    await journal.write(Begun(attempt=job.attempt, number=job.begun))
                # Somebody else may have done it meanwhile, or have paid for an answer.
                now = await look(self._engine, work, journal)
                if now is None:
                    return False
                notes = now
                task.asks.knows(now)
            await self._perform(job, agent, task, Memory(self._shared, work, journal, task, notes))
        return True

    async def _wait_for_turn(self, job: Job, turn: Awaitable[None]) -> None:
        """Wait until a step may begin that is a suspect, or beside one, or until it need not any more."""
        job.waits_for_turn = True
        try:
            await turn
        except asyncio.CancelledError as error:
            job.came_to = error
        finally:
            job.waits_for_turn = False

    async def _perform(self, job: Job, agent: AgentKind, task: StepTask, memory: Memory) -> None:
        """Call the agent, unless the job was cancelled meanwhile. Whatever comes out of it is kept in the job.

        Only the bus's errors are raised.
        """
        if job.cancelled is not None:
            job.came_to = job.came_to or asyncio.CancelledError()
        if job.came_to is not None:
            return
        job.in_handler = True
        self._suspects.begins(job)
        slot = self._held.take(job.run, job.step)
        try:
            came_to: Performed | BaseException = await agent.perform(task, memory)
        except NotRecorded as error:
            raise error.because from error
        except (Exception, asyncio.CancelledError) as error:
            came_to = error
        finally:
            job.in_handler = False
            self._suspects.ended(job)
            self._held.free(slot)
            task.asks.close()
            if job.live is not None:
                job.live.close()
        if job.cancelled == "parked" or (job.cancelled is not None and job.let_go is not None):
            came_to = asyncio.CancelledError()  # whatever a handler made of being let go
        elif isinstance(came_to, Performed):
            await task.asks.note_unasked()
        job.came_to = came_to
        if not memory.is_settled:
            await memory.close()

    async def _done(self, job: Job, work: Claim, state: State, performed: Performed) -> Done | BadOutput:
        """Return how a step ended well, unless what it put out is no list where one is needed."""
        plan, base = work.plan, base_of(work.handoff)
        if job.announced_at is not None:
            rehearsed = {"rehearsed": True} if performed.rehearsed else {}
            logger.info("step.done", attempt=job.attempt, elapsed_s=job.elapsed_s, **rehearsed)
        value = await self._engine.values.stored(performed.output)
        done = Done(
            output=NULL if isinstance(value, Blob) else value,
            blob=value if isinstance(value, Blob) else None,
            truncated=performed.truncated,
            work=Work(
                attempt=job.attempt,
                worker=self._worker,
                elapsed_s=job.elapsed_s,
                model=performed.model,
                rehearsed=performed.rehearsed,
                request_id=performed.request_id,
                usage=performed.usage,
                cost_usd=performed.cost_usd,
            ),
        )
        if not isinstance(work.handoff.cause, Asked) and spreads(plan, base):
            handoff = work.handoff
            record = OutcomeRecord(run=job.run, flow=job.flow, step=handoff.step, state=state, outcome=done)
            try:
                await self._engine.fan_outs.after_record(plan, record)
            except (NotAList, TooManyBranches) as error:
                return BadOutput(str(error))
        return done

    def _ended(self, work: Claim, state: State, outcome: Outcome) -> Ended:
        return Ended(work.handoff, state, outcome, work.start_seq)

    def _failed(self, job: Job, error: Error) -> Failed:
        return Failed(error=error, work=Work(attempt=error.attempts, worker=self._worker, elapsed_s=job.elapsed_s))
