"""How a delivery is settled: running a step says which of these it is to be, and `settle` does it, in one place."""

from __future__ import annotations

from typing import assert_never

import structlog
from msgspec import Struct

from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.engine.runs import REASON_MAX
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.wire.facts import Rejected
from baton_schemas.wire.messages import Handoff
from baton_schemas.wire.names import REJECTED, TOKEN
from baton_schemas.wire.values import clean_text

logger = structlog.get_logger("baton.worker")


class Ack(Struct, frozen=True):
    """Done with it."""


class Nak(Struct, frozen=True):
    """It comes again after a short wait, in seconds."""

    delay_s: float = 0.0


class Park(Struct, frozen=True):
    """It comes again after a long wait: this handoff, in the log at `seq`, for the `number`-th time."""

    handoff: Handoff
    seq: int
    number: int
    delay_s: float
    why: str


class Term(Struct, frozen=True):
    """No attempt will make it good: it stays in the log, a note says why, and it is never handed out again."""

    reason: str


Settlement = Ack | Nak | Park | Term


async def settle(engine: Engine, actor: str, delivery: Delivery, how: Settlement) -> None:
    """Settle a delivery, once. Raises the errors of `Publisher.create`: then it is not settled."""
    match how:
        case Ack():
            await delivery.ack()
        case Nak(delay_s=delay_s):
            await delivery.nak(delay_s)
        case Park():
            # 1. The timer holds it. 2. Let go of it. In between, it is there twice, which changes nothing.
            await engine.park(actor, how.handoff, how.seq, how.number, how.delay_s, how.why)
            await delivery.ack()
        case Term(reason=reason):
            # 1. Say why, and where its bytes are. 2. Take it out of the way.
            await _note_rejection(engine, actor, delivery, reason)
            await delivery.term()
        case _:
            assert_never(how)


async def _note_rejection(engine: Engine, actor: str, delivery: Delivery, reason: str) -> None:
    subjects = engine.bus.subjects
    run = subjects.split(delivery.subject).run
    reason = clean_text(reason, REASON_MAX)
    logger.error("message.rejected", subject=delivery.subject, seq=delivery.seq, reason=reason, run=run)
    fact = Rejected(seq=delivery.seq, subject=delivery.subject, reason=reason)
    await Journal(engine.bus, actor, run if TOKEN.match(run) else "-", REJECTED, "").write(fact)
