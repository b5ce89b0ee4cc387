"""Attempts of a step: which one this is, and what is noted when it is tried again or given back."""

from __future__ import annotations

import asyncio
import random
import time

import structlog

from baton_actors.steps.job import Job
from baton_actors.steps.retries import as_error, delay_s
from baton_bus import Bus
from baton_schemas.flow.flow import Agent
from baton_schemas.wire.messages import VERSION, Error, Failed, Note, Work

logger = structlog.get_logger("baton.worker")


class Attempts:
    """The attempts that one worker makes at the steps of its actor."""

    def __init__(self, bus: Bus, actor: str, worker: str) -> None:
        """`worker` is how the log calls this worker."""
        self.worker = worker
        self._bus, self._actor = bus, actor
        self._dice = random.Random()

    async def count(self, job: Job, *, first: bool) -> list[Note]:
        """Set which attempt this is, and return what earlier ones noted: nothing, when it is known to be the `first`.

        An attempt is a delivery, less those that a worker gave back.
        """
        notes = [] if first else await self._bus.notes(self._actor, job.run, job.step)
        job.attempt = max(1, job.delivery.delivered - sum(1 for note in notes if note.type == "given_back"))
        return notes

    def lost(self, job: Job) -> Failed:
        """Return the outcome of a step whose workers all died of it."""
        message = f"handed out {job.attempt} times, and no worker finished it"
        return self.failed(job, Error(step=job.step, type="WorkerLost", message=message, attempts=job.attempt))

    def failed(self, job: Job, error: Error | BaseException) -> Failed:
        """Return the outcome of a step whose last attempt ended with this error."""
        recorded = error if isinstance(error, Error) else as_error(job.step, job.attempt, error)
        elapsed_s = round(time.monotonic() - job.started, 4)
        return Failed(error=recorded, work=Work(attempt=job.attempt, worker=self.worker, elapsed_s=elapsed_s))

    async def retry(self, job: Job, agent: Agent, error: BaseException) -> None:
        """Note why an attempt failed, and give the handoff back for as long as the policy says."""
        wait_s = round(delay_s(agent, job.attempt, error, self._dice), 3)
        recorded = as_error(job.step, job.attempt, error)
        logger.warning("step.retry", error=recorded.message, type=recorded.type, attempt=job.attempt, delay_s=wait_s)
        await self._note(job, "retry", error=recorded, delay_s=wait_s)
        await job.delivery.nak(wait_s)

    async def cancelled(self, job: Job) -> None:
        """Let go of a handoff whose handler was cancelled: for good when its run ended, else for another worker.

        Raises CancelledError when it was not the job that was cancelled.
        """
        task = asyncio.current_task()
        if task is None or job.cancelled is None:
            raise asyncio.CancelledError
        task.uncancel()
        if job.cancelled == "run ended":
            await job.delivery.ack()
            return
        await self._note(job, "given_back", message="the worker stops")
        await job.delivery.nak()

    async def _note(
        self, job: Job, kind: str, *, error: Error | None = None, message: str = "", delay_s: float = 0.0
    ) -> None:
        note = Note(
            v=VERSION,
            run=job.run,
            step=job.step,
            type=kind,
            attempt=job.attempt,
            worker=self.worker,
            error=error,
            message=message,
            delay_s=delay_s,
        )
        await self._bus.note(self._actor, note, waits=True)
