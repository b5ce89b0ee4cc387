"""Takes the words of people and programs from outside: answers to questions, and events. A part of the clerk.

What is made of a word is in `baton_bus.engine.saying`. One that is no answer to anything is rejected with a note, as
any message is that no attempt would make good, and holds nobody up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from baton_actors.steps.settlement import Ack, Nak, Settlement, Term, settle
from baton_bus.engine.engine import Engine
from baton_bus.engine.saying import WordRefused
from baton_bus.errors import BusError
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.wire.names import EVENT, PERSON, WHOLE_RUN

IN_HAND = 64
"""Words held at once: each is a few short reads and two writes."""
IN_FLIGHT = 1_000
"""Words unacked over all processes."""
_RETRY_S = 2.0
_NEWER_RETRY_S = 10.0
"""For a process of the later release to take it."""

logger = structlog.get_logger("baton.clerk")


class Words:
    """Takes words and settles each: doing it twice changes nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Take words while the context is open; all processes share one consumer."""
        bus = self._engine.bus
        pulling = bus.pulling("say", bus.subjects.words(), IN_HAND, self._on_delivery, max_ack_pending=IN_FLIGHT)
        async with pulling as puller:
            try:
                yield
            finally:
                await puller.stop()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._take(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, delivery: Delivery) -> None:
        # In a rejection's note, in place of an actor: where those look who look at the run.
        who = EVENT if self._engine.bus.subjects.split(delivery.subject).rest == (WHOLE_RUN,) else PERSON
        try:
            await settle(self._engine, who, delivery, await self._what_becomes_of(delivery))
        except Exception:
            logger.exception("say.broken", subject=delivery.subject, seq=delivery.seq)
            await delivery.nak(_RETRY_S)

    async def _what_becomes_of(self, delivery: Delivery) -> Settlement:
        try:
            # 1. The answer, and what follows from it. 2. The ack.
            await self._engine.saying.take(delivery.seq, delivery.subject, delivery.data)
        except WordRefused as error:
            return Term(str(error))
        except NewerMessage as error:
            logger.warning("message.newer", subject=delivery.subject, error=str(error))
            return Nak(_NEWER_RETRY_S)
        except (BadMessage, BusError) as error:
            logger.error("bus.refuses", error=str(error), subject=delivery.subject, seq=delivery.seq)
            return Nak(_RETRY_S)
        return Ack()
