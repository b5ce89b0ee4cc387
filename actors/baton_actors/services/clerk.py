"""The clerk: writes what is due (a join's deadline, the end of a run that expired, a scheduled task) into the log.

A timer's body is the message itself, so any process can do it, whatever flows it knows. One runs in every worker
process and in `baton steward`; they share a consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from msgspec.structs import replace

from baton_bus import Bus
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import Reply, Result, Task
from baton_schemas.wire.names import run_of_firing

IN_HAND = 64
"""Due messages held at once: each is one short publish."""
_RETRY_S = 2.0

logger = structlog.get_logger("baton.clerk")


class Clerk:
    """Takes due messages and writes each into the log, create-only: doing it twice changes nothing."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Take what is due while the context is open."""
        subject = self._bus.subjects.due("*", "*", "*")
        async with self._bus.pulling("due", subject, IN_HAND, self._on_delivery, max_ack_pending=1000, due=True) as due:
            try:
                yield
            finally:
                await due.stop()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._take(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, delivery: Delivery) -> None:
        try:
            await self._write(delivery)
        except BadMessage as error:
            logger.error("due.rejected", subject=delivery.subject, seq=delivery.seq, reason=error.reason)
            await delivery.term()
        except Exception:
            logger.exception("due.broken", subject=delivery.subject, seq=delivery.seq)
            await delivery.nak(_RETRY_S)
        else:
            await delivery.ack()

    async def _write(self, delivery: Delivery) -> None:
        subjects, publisher = self._bus.subjects, self._bus.publisher
        parts = subjects.split(delivery.subject)
        match decode(delivery.data, delivery.subject):
            case Reply() as reply:
                await publisher.create(subjects.of(parts.who, reply), encode(reply))
            case Result() as result:
                # Announced by whoever comes second too: the first may have died before it could.
                await publisher.create(subjects.of("", result), encode(result))
                await self._bus.announce_end(result.run)
            case Task() as task:
                # The run id follows from the firing: written twice, it still is one run.
                named = replace(task, run=run_of_firing(delivery.stored_at_ns, delivery.seq))
                await publisher.append(subjects.task(parts.run), encode(named))
            case _:
                raise BadMessage("expected a reply, a result or a task", delivery.subject)
