"""Messages that no attempt will make good: kept in the log, noted, and never handed out again."""

from __future__ import annotations

import structlog

from baton_bus import Bus, BusError
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import VERSION, Error, Note

_AGAIN_S = 2.0
"""When the note cannot be written (the log is full), the message comes again after this."""

logger = structlog.get_logger("baton.worker")


async def reject(bus: Bus, actor: str, delivery: Delivery, error: BadMessage) -> None:
    """Note why and where the bytes are, then take the message out of the way. Its bytes stay in the log."""
    parts = bus.subjects.split(delivery.subject)
    step = parts.rest[0] if parts.rest else ""
    logger.error("message.rejected", subject=delivery.subject, seq=delivery.seq, reason=error.reason, run=parts.run)
    note = Note(
        v=VERSION,
        run=parts.run,
        step=step,
        type="rejected",
        message=f"sequence {delivery.seq} on {delivery.subject}: {error.reason}",
        error=Error(step=step, type="BadMessage", message=error.reason),
        seq=delivery.seq,
    )
    try:
        await bus.publisher.create(bus.subjects.rejected(actor, parts.run, str(delivery.seq)), encode(note))
    except BusError as refused:
        logger.error("message.not_noted", subject=delivery.subject, seq=delivery.seq, error=str(refused))
        await delivery.nak(_AGAIN_S)
        return
    await delivery.term()
