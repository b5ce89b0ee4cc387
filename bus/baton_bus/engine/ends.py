"""Which steps have ended, of several runs: those of a run that has, and of our own run those with an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from baton_bus.store.bus import Bus
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.run.state import known
from baton_schemas.wire.messages import Result
from baton_schemas.wire.names import BATCH

Step = tuple[str, str]
"""A run and a step of it."""
_ENDED = frozenset({"done", "failed", "skipped"})


async def ended_of(bus: Bus, plan: Plan, first_seq: int, run: str, steps: Collection[Step]) -> set[Step]:
    """Return which of these steps have ended for good, by the leader's word; `plan` and `first_seq` are those of `run`.

    A call in a batch is none of them: it may be out when its run has ended, and who has its batch settles it. Raises
    `BusUnavailable`, `NewerMessage`.
    """
    steps = [each for each in steps if each[0] and not each[1].startswith(BATCH)]
    runs = {each for each, _ in steps}
    ended = {
        each for each, has in zip(runs, await asyncio.gather(*(_has_ended(bus, r) for r in runs)), strict=True) if has
    }
    done: set[str] = set()
    if run in runs - ended:
        entries = await bus.log.run_sure(run, (*plan.actors(), plan.flow.name), first_seq)
        done = {token for token, step in fold(entries).steps.items() if step.status in _ENDED}
    return {(of, step) for of, step in steps if of in ended or (of == run and step in done)}


async def _has_ended(bus: Bus, run: str) -> bool:
    entries = await bus.log.matching_sure([bus.subjects.result("*", run)])
    return any(isinstance(known(entry), Result) for entry in entries)
