"""What a step asked for when it was done before: the answers to it, and what of it is not asked for any more."""

from __future__ import annotations

import asyncio

import structlog

from baton_actors.agents.asks import AskRefused
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_schemas.run.refs import asked_name, parse
from baton_schemas.wire.facts import Unasked
from baton_schemas.wire.messages import Answer
from baton_schemas.wire.names import BATCH

from .claim import Claim
from .hearing import Answers
from .job import Job
from .sure import sure

STRAYS_MAX = 3
"""A step that asks for something new so often in a row, and not for what it asked before, would do so for ever."""
_NAMED_MAX = 20
"""Children that are named in a note on those that a step does not ask for any more."""

logger = structlog.get_logger("baton.worker")


class AskedBefore:
    """What one step asked for before, beside what it asks for this time. Children go by their tokens."""

    def __init__(
        self, engine: Engine, answers: Answers, job: Job, work: Claim, journal: Journal, *, again: bool
    ) -> None:
        """`again` says whether it was done before at all: if not, nothing is read."""
        self._engine, self._answers, self._journal = engine, answers, journal
        self._job, self._work = job, work
        self._again = again
        self._read: asyncio.Task[None] | None = None
        self._before: dict[str, Answer] = {}
        self._asked: dict[str, bool] = {}
        """Children that were asked for this time, and whether nobody had before."""

    async def answer(self, child: str) -> Answer | None:
        """Return what was answered before. Raises as `sure`."""
        if self._again:
            await self._remember()
        return self._before.get(child)

    async def _remember(self) -> None:
        """Read the answers, once."""
        if self._read is None:
            self._read = asyncio.ensure_future(self._read_answers())
        await asyncio.shield(self._read)

    async def _read_answers(self) -> None:
        job, actor = self._job, self._work.plan.actor(self._job.step)
        await sure(lambda: self._answers.begin(job.delivery.seq))
        self._before = await sure(lambda: self._engine.asking.of_step(actor, job.run, job.step, self._work.start_seq))

    def asks(self, child: str, *, is_new: bool) -> None:
        """Take it that the step asks for a child this time, and whether nobody had before."""
        self._asked[child] = is_new

    # ---- what it does not ask for any more ---------------------------------------------------------

    @property
    def _unasked(self) -> list[str]:
        # What a batch brought is in the journal: that is not asked for again.
        before = [child for child in self._before if asked_name(child) != BATCH]
        return [child for child in before if child not in self._asked] if self._asked else []

    def strays(self) -> int:
        """Return how often in a row the step has asked for something new, and not for what it asked before."""
        is_stray = bool(self._unasked) and any(self._asked.values())
        return self._work.strays + 1 if is_stray else 0

    def straying(self) -> AskRefused:
        """Return the error for one that has done so too often."""
        name = parse(next(child for child, is_new in self._asked.items() if is_new)).name
        return AskRefused(
            f"it asks {name} for something else each time it runs, {STRAYS_MAX + 1} times by now, and never again for "
            f"what it asked before: is there a time, a random number or an unordered set in the arguments? What may "
            f"differ goes through context.record, which gives the same every time"
        )

    async def note_unasked_if_read(self) -> None:
        """Note what was asked before, and not this time, if that is known. Raises the errors of the bus."""
        if self._again and self._read is not None and self._read.done():
            await self.note_unasked()

    async def note_unasked(self) -> None:
        """Note what was asked before, and not so far. Raises the errors of the bus."""
        unasked = self._unasked
        if unasked:
            delivery = self._job.delivery
            logger.warning("step.asks_otherwise", before=[parse(child).name for child in unasked[:_NAMED_MAX]])
            fact = Unasked(
                children=unasked[:_NAMED_MAX], count=len(unasked), seq=delivery.seq, delivered=delivery.delivered
            )
            await self._journal.write(fact)
