"""Batches of model calls on their way: each is sent once, looked after until it has ended, and its results are given to
the steps that wait for them.

One worker has a batch at a time, by its lease; another goes on where one has died, by the record:
1. Each call is claimed for the batch. One that another batch has claimed is left to that.
2. It is recorded that the batch is about to be sent. 3. It is sent. 4. Its id at the provider is recorded.
5. It is looked at until it has ended. 6. Each result is noted in the journal of its step, and the step is answered.
7. The ack.
The API knows no idempotency for 3. So whoever finds 2 without 4 looks among the provider's batches for ours, by how
many calls it has and what those are called, and sends again only when there is none (decision 18).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from baton_actors.models import Models
from baton_actors.steps.plans import Plans
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BusError
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.wire.codec import decode
from baton_schemas.wire.facts import BatchEnded
from baton_schemas.wire.messages import Batch
from baton_schemas.wire.names import BATCH, sender_of

from .members import Member, Members
from .one import OneBatch, Record

IN_HAND = 64
"""Batches that one process looks after at once."""
IN_FLIGHT = 10_000
"""Batches that are out, over all processes."""
_RETRY_S = 2.0
_NEWER_RETRY_S = 10.0

logger = structlog.get_logger("baton.batches")


class NotHere(Exception):
    """This worker lacks what it takes to send a batch."""


class Batches:
    """Those of one actor, in one process."""

    def __init__(self, engine: Engine, plans: Plans, models: Models, actor: str, worker: str) -> None:
        """`worker` is how the log calls this process."""
        self._bus, self._models, self._actor, self._worker = engine.bus, models, actor, worker
        self._plans = plans
        self._members = Members(engine, plans, actor, worker)
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Take batches while the context is open; those that are out then go on elsewhere."""
        subject, name = self._bus.subjects.batch(self._actor, "*"), f"batches-{self._actor}"
        async with self._bus.pulling(name, subject, IN_HAND, self._on_delivery, max_ack_pending=IN_FLIGHT) as puller:
            try:
                yield
            finally:
                await puller.stop()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._take(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, delivery: Delivery) -> None:
        try:
            while True:
                try:
                    await self._do(delivery)
                    await delivery.ack()
                    return
                except BusError as error:
                    logger.error("bus.refuses", error=str(error), subject=delivery.subject, seq=delivery.seq)
                    await asyncio.sleep(_RETRY_S)
        except asyncio.CancelledError:  # at once, to whoever goes on with it
            with contextlib.suppress(BusError):
                await delivery.nak()
            raise
        except BadMessage as error:
            logger.error("batch.rejected", subject=delivery.subject, seq=delivery.seq, reason=str(error))
            await delivery.term()
        except NotHere as error:
            logger.warning("batch.not_here", subject=delivery.subject, lacks=str(error))
            await delivery.nak(_NEWER_RETRY_S)
        except NewerMessage as error:
            logger.warning("message.newer", subject=delivery.subject, error=str(error))
            await delivery.nak(_NEWER_RETRY_S)
        except Exception:
            logger.exception("batch.broken", subject=delivery.subject, seq=delivery.seq)
            await delivery.nak(_NEWER_RETRY_S)

    async def _do(self, delivery: Delivery) -> None:
        batch = decode(delivery.data, delivery.subject)
        if not isinstance(batch, Batch) or self._bus.subjects.batch(self._actor, batch.run) != delivery.subject:
            raise BadMessage("expected a batch, on its own subject", delivery.subject)
        journal = Journal(self._bus, sender_of(self._actor), batch.run, BATCH, self._worker)
        record = Record.of(await journal.read())
        members = await self._members.of(batch, is_begun=record.is_begun)
        if members:
            await self._check(members[0])
            await OneBatch(self._bus, self._models, self._members, batch, delivery.seq, members, journal).do(record)
        await journal.write(BatchEnded(at_s=self._bus.now_s()))

    async def _check(self, member: Member) -> None:
        """Raise `NotHere` for what only a worker can send that has a key, or knows the provider."""
        plan, model = await self._plans.of(member.child), member.call.model
        lacks = self._models.providers.lacks(plan.flow.name, plan.flow.providers, model)
        if lacks or (not member.call.rehearsed and self._models.where(plan.flow.name, model).settings.rehearses):
            raise NotHere(lacks or "a key")
