"""What steps wait for, as notes in the log say, and messages that no worker here can read. It only reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from baton_bus.doctor.facts import Consumer, Newer, Waiting
from baton_bus.store.bus import Bus
from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry
from baton_schemas.wire.codec import decode
from baton_schemas.wire.facts import BUDGET, Waits, key_of
from baton_schemas.wire.messages import Note
from baton_schemas.wire.names import TOKEN

_KINDS = ("handler", "provider", "limits", BUDGET)
_WOKEN_MAX = 8
"""A step notes what it waits for at each waking. The first of these notes are enough: few steps were woken before."""
_RUNS_MAX = 100
"""Runs of which it is read whether they wait still, the newest first: as many as anybody looks at."""
_AT_ONCE = 20
_PATIENCE_S = 3.0
_TAIL = 50_000
"""When there are too many such notes in the log for a quick answer, those among so many of its last messages count."""
_OLDEST = 20
"""Of the messages that a consumer has in hand, so many of the oldest are looked at."""


async def read_waits(bus: Bus) -> tuple[Waiting, ...]:
    """Return the steps that wait for something outside, of runs that have not ended.

    Raises `BusUnavailable`, `NoStream`, `TimeoutError`.
    """
    noted: dict[str, dict[str, Entry]] = {}
    for entry in sorted(await _notes(bus), key=lambda entry: -entry.seq):
        parts = bus.subjects.split(entry.subject)
        if TOKEN.match(parts.run) and (parts.run in noted or len(noted) < _RUNS_MAX):
            noted.setdefault(parts.run, {}).setdefault(parts.rest[0], entry)
    runs, found = list(noted), list[Waiting]()
    for start in range(0, len(runs), _AT_ONCE):
        some = runs[start : start + _AT_ONCE]
        for waiting in await asyncio.gather(*(_waiting(bus, run, noted[run]) for run in some)):
            found += waiting
    return tuple(found)


async def _notes(bus: Bus) -> list[Entry]:
    numbers = range(_WOKEN_MAX)
    keys = [key_of(Waits(what=kind, reason="", number=number)) for kind in _KINDS for number in numbers]
    patterns = [bus.subjects.note("*", "*", "*", key) for key in keys]
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await bus.log.matching(patterns)
    except TimeoutError:
        _, end_seq = await bus.log.bounds()
        async with asyncio.timeout(_PATIENCE_S):
            return await bus.log.matching(patterns, max(1, end_seq - _TAIL))


async def _waiting(bus: Bus, run: str, noted: dict[str, Entry]) -> list[Waiting]:
    """Return which of these steps of a run wait still: the same fold says it as for `baton show`."""
    state = fold(await bus.log.run(run))
    found: list[Waiting] = []
    for name, entry in noted.items():
        step, note = state.steps.get(name), entry.message
        fact = note.fact if isinstance(note, Note) else None
        # One that is parked until somebody has answered what it asked waits for something else by now.
        if step is None or step.due_at is not None or not isinstance(fact, Waits) or step.waits != fact.reason:
            continue
        actor = bus.subjects.split(entry.subject).who
        found.append(Waiting(actor=actor, flow=state.flow, run=run, step=name, what=step.waits, kind=fact.what))
    return found


async def read_newer(bus: Bus, consumers: Sequence[Consumer]) -> tuple[Newer, ...]:
    """Return the messages of later versions among the oldest that were handed out again. Raises as `read_waits`."""
    found: list[Newer] = []
    for consumer in consumers:
        if not consumer.num_redelivered or not consumer.config.filter_subject:
            continue
        async with aclosing(bus.log.read([consumer.config.filter_subject], consumer.ack_floor.stream_seq + 1)) as log:
            looked = 0
            async for entry in log:
                looked += 1
                if version := _newer(entry):
                    found.append(Newer(consumer=consumer.name, seq=entry.seq, version=version))
                    break
                if looked >= min(_OLDEST, consumer.num_ack_pending):
                    break
    return tuple(found)


def _newer(entry: Entry) -> int:
    """Return the version of a message that is newer than ours; 0 for any other."""
    try:
        decode(entry.data, entry.subject)
    except NewerMessage as error:
        return error.found
    except BadMessage:
        pass
    return 0
