"""Parking: a step that waits for long is let go of, and whoever answers brings it back. It holds nothing meanwhile.

One worker does a step at a time. So a step that has begun to be parked is parked (`Asking.park`), and an answer that
comes meanwhile is held back from the handler: whoever answered has another worker do the step, or we do, and nobody
here goes on with it beside that one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import structlog

from baton_bus.engine.engine import Engine
from baton_bus.errors import BusError
from baton_schemas.errors import NewerMessage
from baton_schemas.run.asking import by_itself
from baton_schemas.run.refs import asked_name
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Asked, AskedKind, Handoff, Parked

from .asked_before import STRAYS_MAX, AskedBefore
from .child import Child
from .claim import Claim
from .hearing import Answers
from .job import Job
from .sure import sure

_AGAIN_S = 5.0
"""A step that cannot be parked now, as it records something or the bus refuses, is so after this many seconds."""
_ASKS_S = 0.05
"""One that is asking for something right now, after this many."""
_SOON = frozenset({"agent", "flow"})
"""Whose answers are expected soon."""
_NOT_SOON = frozenset({"person", "batch"})
"""Whose answers are not waited for here at all."""
_PATIENCE: tuple[AskedKind, ...] = ("agent", "flow", "sleep", "batch", "event", "person")
"""Who is likely to have answered before whom."""
_UPON_MAX = 20
"""Children any of which brings a step back, of those expected soon and of the others: more than anybody asks to hear
the first of. Each costs a write."""

logger = structlog.get_logger("baton.worker")


class Parking:
    """That of one step, in one worker's hands."""

    def __init__(
        self,
        engine: Engine,
        answers: Answers,
        job: Job,
        work: Claim,
        children: Mapping[str, Child],
        before: AskedBefore,
        let_go: Callable[[], None],
    ) -> None:
        """`children` are those that it waits for, at any time; `let_go` ends its waiting once it is parked."""
        self._engine, self._answers, self._job, self._work = engine, answers, job, work
        self._children, self._before, self._let_go = children, before, let_go
        self._actor = work.plan.actor(job.step)
        self._park_after_s = work.plan.agent(job.step).park_after_s
        self._alarm: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._busy = 0
        """What is under way in the step, and is not to be done again."""
        self._is_closed = False
        self._is_parked = False
        """It is another's to do from now on. Here it is let go of, once nothing is under way in it."""

    def soon(self, after_s: float | None = None) -> None:
        """Park the step when nothing has come for a while; at once where it must not be held."""
        self.not_now()
        if self._is_parked:
            return
        if after_s is None and self._job.begun and not self._is_trying:
            # What may have killed its last worker is not to be charged with the deaths of a worker that it waits in,
            # and others wait for their turn until it is parked: not for an alarm, then, which rings at its next tick.
            if self._are_asked(self._open()):
                self._begin()
            return
        if after_s is None:
            at_once = self._job.begun or self._answers.held > self._answers.held_max or self._waits_for_nothing_soon()
            after_s = 0.0 if at_once else self._park_after_s
        self._alarm = self._answers.alarms.set(after_s, self._begin)

    def asked(self, child: Child) -> None:
        """A child is written, with all that it needs to be answered though nobody is here."""
        child.is_asked = True
        if child.kind in _NOT_SOON or self._job.begun:
            self.soon()

    def not_now(self) -> None:
        """Do not park it, until `soon` is called again."""
        if self._alarm is not None:
            self._alarm()
            self._alarm = None

    @contextlib.contextmanager
    def put_off(self) -> Iterator[None]:
        """Do not park it while the context is open: what is under way in it would be done again.

        Raises `CancelledError` when it is parked by now: nothing is begun in it any more.
        """
        if self._is_parked and not self._busy:
            raise asyncio.CancelledError
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if self._is_parked:
                self._end()

    def close(self) -> None:
        """The step is done with, or parked."""
        self._is_closed = True
        self.not_now()
        if self._task is not None:
            self._task.cancel()

    async def set_timer(self, child: Handoff) -> None:
        """Have the broker see to it that a child is answered when its time is up. Raises the errors of the bus."""
        assert isinstance(child.cause, Asked)
        body = encode(by_itself(child, self._work.start_seq))
        await self._engine.bus.timers.at(self._actor, self._job.run, child.step, child.cause.due_s, body)

    def _waits_for_nothing_soon(self) -> bool:
        """Say whether all that it waits for are people and batches."""
        waits = self._open()
        return bool(waits) and all(child.kind in _NOT_SOON for child in waits)

    def _open(self) -> list[Child]:
        return [child for child in self._children.values() if child.is_open]

    def _are_asked(self, waits: Sequence[Child]) -> bool:
        return bool(waits) and all(child.is_asked for child in waits)

    @property
    def _is_trying(self) -> bool:
        return self._task is not None and not self._task.done()

    def _begin(self) -> None:
        if not self._is_trying and not self._is_parked:
            self._task = asyncio.create_task(self._try(), name=f"park {self._job.run} {self._job.step}")

    async def _try(self) -> None:
        waits = self._open()
        if not waits or self._is_closed:
            return
        if self._busy:
            self.soon(_AGAIN_S)
            return
        if not self._are_asked(waits):
            self.soon(_ASKS_S)
            return
        strays = self._before.strays()
        if strays >= STRAYS_MAX:
            self._refuse(waits)
            return
        upon = _upon(waits)
        marks = [self._parked(child.token, strays) for child in upon]
        is_parked = False
        try:
            # 1. What answers by itself will do so with nobody here.
            await self._before.note_unasked()
            for child in upon:
                if child.sleep is not None:
                    await self.set_timer(child.sleep)
            # 2. The marks, and nobody here hears anything from now on. 3. Bring it back if something has come.
            is_parked = await self._is_put(waits, upon, marks)
        except (BusError, NewerMessage) as error:
            logger.error("bus.refuses", error=str(error), child=upon[-1].token)
            self.soon(_AGAIN_S)
            return
        finally:
            if not is_parked:
                for child in waits:
                    child.let_through()
        if not is_parked:
            self.soon(_ASKS_S if all(child.is_open for child in waits) else None)
            return
        # 4. Let go of it.
        logger.info("step.parked", waits_for=asked_name(upon[-1].token).lstrip("-"))
        self._is_parked = True
        self._end()

    async def _is_put(self, waits: Sequence[Child], upon: Sequence[Child], marks: Sequence[Parked]) -> bool:
        """Park it upon these, if nothing has come before; what comes meanwhile brings it back. Raises as `Asking.park`.

        Whatever its handler waits for is held back then.
        """
        if self._busy or not all(child.is_open for child in waits):
            return False
        for child in waits:
            child.hold_back()
        put = await self._engine.asking.park(self._actor, marks)
        for answer in put.answers:
            next(child for child in upon if child.token == answer.child).heard(answer)
        if not put.seq:
            return False
        is_new = any(child not in waits for child in self._open())
        if is_new or not put.is_whole or not all(child.is_open for child in upon):
            await sure(lambda: self._engine.asking.wake(self._actor, marks[0], put.seq))
        return True

    def _end(self) -> None:
        if not self._busy:
            self._job.cancel("parked")
            self._let_go()

    def _refuse(self, waits: Sequence[Child]) -> None:
        """Have a step fail that would come back for ever."""
        error = self._before.straying()
        for child in waits:
            child.answer.set_exception(error)

    def _parked(self, child: str, strays: int) -> Parked:
        work = self._work
        return Parked(
            run=self._job.run,
            flow=work.handoff.flow,
            digest=work.handoff.digest,
            start_seq=work.start_seq,
            step=self._job.step,
            child=child,
            seq=work.seq,
            number=work.woken,
            strays=strays,
        )


def _upon(waits: Sequence[Child]) -> list[Child]:
    """Return the children whose answers are to bring the step back, the one that may well be the first at the end.

    Nobody knows whether a handler that waits for several needs all of them or the first, but of what it gathers: of the
    agents and flows among that it is one. Whoever answers from outside may be the only one who ever does; so may a
    sleep that somebody else is asked beside.
    """
    found = sorted(waits, key=lambda child: _PATIENCE.index(child.kind))
    gathered: set[object] = set()
    soon: list[Child] = []
    for child in found:
        if child.kind in _SOON and child.together not in gathered:
            soon.append(child)
            if child.together is not None:
                gathered.add(child.together)
    late = [child for child in found if child.kind not in _SOON][:_UPON_MAX]
    return [*reversed(late), *reversed(soon[:_UPON_MAX])]
