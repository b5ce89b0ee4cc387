"""Looking whether a step is still to be done, by the leader's word, and what earlier attempts left."""

from __future__ import annotations

import asyncio

from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_schemas.wire.messages import Note

from .claim import Claim


async def look(engine: Engine, work: Claim, journal: Journal) -> list[Note] | None:
    """Return the notes on the step; None when it or its run has ended: what follows from its record is written.

    Raises the errors of the bus.
    """
    # At once: what a cluster does not have is asked for twice, a quarter of a second apart.
    ended, record, notes = await asyncio.gather(
        engine.ended(work.plan.flow.name, work.handoff.run),
        engine.decided(work.plan, work.handoff),
        journal.read(),
    )
    if ended is not None:
        await engine.nesting.follow(ended)
        return None
    if record is None:
        return notes
    await engine.derive(work.plan, record, work.handoff)
    # Whoever recorded it may have died before it took back what the step had asked people, or waits for, and is open.
    if work.plan.agent(work.handoff.step).handler:
        await engine.saying.withdraw(work.handoff.run, work.handoff.step)
    return None
