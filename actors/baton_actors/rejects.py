"""Messages that no attempt will make good: kept in the log, noted, and never handed out again."""

from __future__ import annotations

import structlog

from baton_bus import Bus
from baton_bus.deliveries import Delivery
from baton_schemas.errors import BadMessage
from baton_schemas.messages import VERSION, Error, Note

logger = structlog.get_logger("baton.worker")


async def reject(bus: Bus, actor: str, delivery: Delivery, error: BadMessage) -> None:
    """Note why and where the bytes are, then take the message out of the way. Its bytes stay in the log."""
    parts = bus.subjects.split(delivery.subject)
    step = parts.rest[0] if parts.rest else ""
    logger.error("message.rejected", subject=delivery.subject, seq=delivery.seq, reason=error.reason, run=parts.run)
    await bus.note(
        actor,
        Note(
            v=VERSION,
            run=parts.run,
            step=step,
            type="rejected",
            message=f"sequence {delivery.seq} on {delivery.subject}: {error.reason}",
            error=Error(step=step, type="BadMessage", message=error.reason),
            seq=delivery.seq,
        ),
    )
    await delivery.term()
