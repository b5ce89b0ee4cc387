"""The waiting of a step for what it asked: it holds its lease meanwhile, but no place, and its time stands still."""

from __future__ import annotations

import asyncio

from baton_actors.agents.clock import Clock
from baton_bus.engine.engine import Engine
from baton_schemas.wire.messages import Answer, AskedKind

from .asked_before import AskedBefore
from .child import Child
from .claim import Claim
from .hearing import Answers
from .job import Job
from .parking import Parking


class Waiting:
    """That of one step, in one worker's hands."""

    def __init__(self, engine: Engine, answers: Answers, job: Job, work: Claim, before: AskedBefore) -> None:
        self._answers, self._job = answers, job
        self._children: dict[str, Child] = {}
        """By token: those that it waits for."""
        self.parking = Parking(engine, answers, job, work, self._children, before, self.close)
        self._is_held = False
        """Whether it waits, and is counted among those that this process holds."""
        self._back: asyncio.Future[None] | None = None
        """Its place, which it is to have again."""
        self._comes = False
        """Whether something has come in this turn of the loop, of which parking is to be told once."""
        self._clock: Clock | None = None
        self._in_thread = False
        self.is_closed = False

    def told(self, clock: Clock | None, *, in_thread: bool) -> None:
        """Take the clock of the step, and whether a thread does the waiting."""
        self._clock, self._in_thread = clock, in_thread

    def begin(self, token: str, kind: AskedKind) -> Child:
        """Wait for a child from here on; with the first, the step lends its place."""
        child = Child(token, kind)
        if not self._children:
            self._answers.tell(self._job.run, self._job.step, self.heard)
            self._answers.held += 1
            self._job.waits = self._is_held = True
            self._job.delivery.lend()
            if self._clock is not None:
                self._clock.pause()
            self.parking.soon()
        self._children[token] = child
        return child

    def heard(self, answer: Answer) -> None:
        """Take an answer, if it is waited for."""
        child = self._children.get(answer.child)
        if child is not None:
            child.heard(answer)

    async def end(self, child: Child) -> None:
        """Wait for a child no more; with the last, the step has a place again before it goes on."""
        child.end_nap()
        if self._children.pop(child.token, None) is None or self.is_closed or self._job.cancelled is not None:
            return
        if not self._children:
            self._is_over()
            self._back = self._job.delivery.take_back()
        elif not self._comes:  # of a thousand answers that come together it is told once
            self._comes = True
            asyncio.get_running_loop().call_soon(self._came)
        if self._back is not None and not self._back.done():
            await asyncio.shield(self._back)
        if not self._children and self._clock is not None:
            self._clock.go_on()

    def _came(self) -> None:
        self._comes = False
        if self._is_held and not self.is_closed and self._job.cancelled is None:
            self.parking.soon()

    def _is_over(self) -> None:
        self._answers.forget(self._job.run, self._job.step, self.heard)
        self._answers.held -= 1
        self._job.waits = self._is_held = False
        self.parking.not_now()

    def close(self) -> None:
        """The step is done with, or parked: whoever still waits is let go."""
        self.is_closed = True
        self.parking.close()
        for child in self._children.values():
            child.answer.cancel()
            child.end_nap()
        if self._is_held:
            self._is_over()
        if self._clock is not None and self._in_thread:  # what it still does, it is to do in its time
            self._clock.go_on()
