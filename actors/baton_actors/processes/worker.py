"""The worker: takes the handoffs and replies of one actor, and lets go of them in good order when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NamedTuple

import structlog

from baton_actors.steps.doing import Doing
from baton_actors.steps.hearing import Answers
from baton_actors.steps.job import Job
from baton_actors.steps.joiner import NEWER_RETRY_S, Joiner
from baton_actors.steps.live import announce
from baton_actors.steps.reading import Reading
from baton_actors.steps.settlement import Nak, Settlement, Term, settle
from baton_actors.steps.shared import Shared
from baton_bus.errors import BusError
from baton_bus.jetstream.consumer import Delivery
from baton_bus.jetstream.streams import REPLIES_IN_FLIGHT
from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.flow.flow import Agent

REPLIES_IN_HAND = 4_000
"""Replies that one merger process holds: a burst of a thousand is taken at once, and still fits in memory."""
ANNOUNCE_AFTER_S = 0.1
"""A handler that runs longer is announced to watchers; a shorter one is done before anybody could look."""
_ANNOUNCE_AGAIN_S = 2.0
_BUS_RETRY_S = 2.0
"""While the bus refuses what a step needs, the step is tried again this often, under the same lease."""
_BROKEN_RETRY_S = 2.0
"""A handoff that the worker cannot process for a reason of its own (a bug) is given back for so long."""

logger = structlog.get_logger("baton.worker")


class Retires(NamedTuple):
    """How a worker is told to let go of its work for one that has begun in its place."""

    asked: asyncio.Event
    """Set before its context is left."""
    enough: asyncio.Event
    """Set when it is to stop at once, with its grace."""


class Worker:
    """Plays one actor. Use `working` to run it; the workers of one process share what they can."""

    def __init__(self, shared: Shared, actor: str, agent: Agent, concurrency: int) -> None:
        """`concurrency` bounds this worker, `agent.max_in_flight` all of them; the rest comes with each run's flow."""
        self._engine, self._actor, self._agent = shared.engine, actor, agent
        self._concurrency = concurrency
        self._joiner = Joiner(shared.engine, actor, shared.plans, shared.ends)
        reading = Reading(shared.engine, actor, self._joiner.in_hand)
        self._answers = Answers(shared.engine, actor, agent.max_in_flight)
        self._doing = Doing(shared, actor, reading, self._answers)
        self._jobs: dict[int, Job] = {}
        self._roll = shared.roll
        self._in_hand = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        shared.ends.tell(self._run_ended)

    @contextlib.asynccontextmanager
    async def working(
        self, *, joins: bool, grace_s: float = 10.0, retires: Retires | None = None
    ) -> AsyncIterator[None]:
        """Take work while the context is open; then finish what is in hand, or give it back after `grace_s`.

        `joins` says whether the actor is a merger and takes replies too. One that `retires` has all the time it needs
        before that.
        """
        bus, subjects = self._engine.bus, self._engine.bus.subjects
        bus.when_back(self._look_for_ends)
        async with contextlib.AsyncExitStack() as stack:
            announcer = asyncio.create_task(self._announce(), name=f"announce {self._actor}")
            stack.callback(announcer.cancel)
            stack.enter_context(self._roll.playing(self._actor, self._jobs.values))
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
                        self._concurrency,
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
                if retires is not None and retires.asked.is_set():
                    await self._let_go(retires.enough)
                await self._finish(grace_s)
                await self._answers.stop()
                await self._joiner.stop()

    def _on_delivery(self, delivery: Delivery) -> None:
        job = Job(delivery, self._engine.bus.epoch)
        self._jobs[delivery.seq] = job
        self._in_hand.set()
        job.task = asyncio.get_running_loop().create_task(self._run(job))

    async def _run(self, job: Job) -> None:
        """Do a job, and settle its delivery: here and nowhere else."""
        try:
            how: Settlement | None = None
            while True:
                try:
                    how = how or await self._do(job)
                    await settle(self._engine, self._actor, job.delivery, how)
                    return
                except BusError as error:
                    # It stays ours, and no attempt is lost by it.
                    logger.error("bus.refuses", error=str(error), subject=job.delivery.subject, seq=job.delivery.seq)
                    job.again = True
                    await asyncio.sleep(_BUS_RETRY_S)
                except Exception:  # of the settling: no word of ours may leave a place taken for ever
                    logger.exception("worker.broken", subject=job.delivery.subject, seq=job.delivery.seq)
                    how = Nak(_BROKEN_RETRY_S)
        finally:
            self._jobs.pop(job.delivery.seq, None)

    async def _do(self, job: Job) -> Settlement:
        try:
            return await self._doing.do(job)
        except BadMessage as error:
            return Term(error.reason)
        except NewerMessage as error:
            logger.warning("message.newer", subject=job.delivery.subject, error=str(error))
            return Nak(NEWER_RETRY_S)
        except (BusError, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("worker.broken", subject=job.delivery.subject, seq=job.delivery.seq)
            return Nak(_BROKEN_RETRY_S)

    def _run_ended(self, flow: str, run: str) -> None:
        for job in self._jobs.values():
            if job.run == run and job.flow == flow:
                job.cancel("run ended")

    def _look_for_ends(self) -> None:
        """The connection was away: a run in hand may have ended unheard."""
        for job in self._jobs.values():
            if job.run and job.came_to is None:
                self._in_background(self._look_for_end(job), f"has {job.run} ended")

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _look_for_end(self, job: Job) -> None:
        subjects = self._engine.bus.subjects
        with contextlib.suppress(BusError):
            if await self._engine.bus.log.last_sure(subjects.result(job.flow, job.run)) is not None:
                job.cancel("run ended")

    async def _let_go(self, enough: asyncio.Event) -> None:
        """Wait until all that is in hand is done, or until it is enough."""
        stopped = asyncio.create_task(enough.wait())
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        try:
            while not stopped.done() and (tasks := [task for task in tasks if not task.done()]):
                await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()

    async def _finish(self, grace_s: float) -> None:
        for job in list(self._jobs.values()):
            if job.waits:  # what it waits for is not to be waited for here
                job.cancel("worker stops")
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
        bus = self._engine.bus
        job: Job | None
        while True:
            if not self._jobs:
                self._in_hand.clear()
                await self._in_hand.wait()
            await asyncio.sleep(ANNOUNCE_AFTER_S)
            for job in list(self._jobs.values()):
                if _is_to_be_announced(job):
                    job.announced_at = time.monotonic()
                    announce(bus, job)
            job = None  # while nothing is in hand, this keeps nothing alive


def _is_to_be_announced(job: Job) -> bool:
    """Say whether watchers are to be told, for the first time or again, that a handler runs."""
    last = job.announced_at
    ran_s = time.monotonic() - (last or job.started)
    return job.in_handler and not job.waits and ran_s > (_ANNOUNCE_AGAIN_S if last else ANNOUNCE_AFTER_S)
