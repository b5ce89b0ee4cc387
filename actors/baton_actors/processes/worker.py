"""The worker: takes the handoffs and replies of one actor, and lets go of them in good order when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator

import structlog

from baton_actors.agents.performing import Performer
from baton_actors.steps.attempts import Attempts
from baton_actors.steps.doing import Doing
from baton_actors.steps.ends import Ends
from baton_actors.steps.job import Job
from baton_actors.steps.joiner import Joiner
from baton_actors.steps.plans import Plans
from baton_actors.steps.records import Records
from baton_actors.steps.rejects import reject
from baton_actors.steps.values import Values
from baton_bus import Bus, BusError
from baton_bus.jetstream.consumer import Delivery
from baton_bus.jetstream.streams import REPLIES_IN_FLIGHT
from baton_schemas.errors import BadMessage
from baton_schemas.flow.flow import Agent
from baton_schemas.wire.messages import Reply

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


class Worker:
    """Plays one actor. Use `working` to run it; several workers may share one bus, one `Plans`, one `Ends`."""

    def __init__(self, bus: Bus, actor: str, agent: Agent, performer: Performer, plans: Plans, ends: Ends) -> None:
        """`agent` gives the bounds (`concurrency`, `max_in_flight`); the rest comes with each run's own flow."""
        self._bus, self._actor, self._agent = bus, actor, agent
        in_hand: dict[tuple[str, str], dict[str, Reply]] = {}
        values = Values(bus, in_hand)
        records = Records(bus, values)
        attempts = Attempts(bus, actor, f"{socket.gethostname()[:40]}:{os.getpid()}")
        self._doing = Doing(bus, actor, performer, plans, ends, values, records, attempts)
        self._joiner = Joiner(bus, actor, plans, records, ends, in_hand)
        self._jobs: dict[int, Job] = {}
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
            while not await self._did(job):
                job.again = True
                await asyncio.sleep(_BUS_RETRY_S)
        except BadMessage as error:
            await reject(self._bus, self._actor, job.delivery, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("worker.broken", subject=job.delivery.subject, seq=job.delivery.seq)
            await job.delivery.nak(_BROKEN_RETRY_S)
        finally:
            self._jobs.pop(job.delivery.seq, None)

    async def _did(self, job: Job) -> bool:
        """Do the job; False when the bus did not let us: the handoff stays ours, and no attempt is lost by it."""
        try:
            await self._doing.do(job)
            return True
        except BusError as error:
            logger.error("bus.refuses", error=str(error), subject=job.delivery.subject, seq=job.delivery.seq)
            return False

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
