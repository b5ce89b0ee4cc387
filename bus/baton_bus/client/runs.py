"""Which runs there are: found from the end of the log backwards, without reading what is in them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime

import msgspec
from msgspec import Struct
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from baton_bus.engine.bus import Bus
from baton_bus.errors import BusError, BusUnavailable, UnknownRun
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.state import Entry, RunStatus
from baton_schemas.wire.messages import NULL, Handoff, Result
from baton_schemas.wire.names import TOKEN

_WINDOW = 4_000
"""Messages of the first look back: about a thousand runs of a pipeline. Each further look takes four times more."""
_LOOK_BACK_MAX = 10_000
"""Runs among which a part of an id is looked for: more than anyone remembers the ends of ids of."""


class AmbiguousRun(BusError):
    """Several runs have an id that starts or ends so."""

    def __init__(self, name: str, runs: list[str]) -> None:
        """`runs` are those that it may mean, the newest first."""
        self.name, self.runs = name, runs
        some = ", ".join(runs[:3]) + (", …" if len(runs) > 3 else "")
        super().__init__(f"{len(runs)} runs have an id that starts or ends with {name!r}: {some}. Give more of it.")


class RunHead(Struct, frozen=True, kw_only=True):
    """Where a run begins in the log, and how it ended if it has."""

    run: str
    flow: str
    start_seq: int
    started_at: datetime
    actors: tuple[str, ...] = ()
    """Who appears in the subjects of its messages; empty when its flow cannot be read."""
    status: RunStatus = "running"
    ended_at: datetime | None = None


async def recent_runs(bus: Bus, limit: int) -> list[RunHead]:
    """Return the runs that began last, the newest first. Raises `BusUnavailable`, `NoStream`."""
    heads: list[RunHead] = []
    async for head in _backwards(bus):
        heads.append(head)
        if len(heads) >= limit:
            break
    return heads


async def find_run(bus: Bus, name: str = "") -> RunHead:
    """Return the run with this id, or the only one whose id starts or ends so; the latest without a name.

    Raises `UnknownRun`, `AmbiguousRun`, and the errors of `recent_runs`.
    """
    if name and TOKEN.match(name) and (head := await _exact(bus, name)) is not None:
        return head
    heads = await recent_runs(bus, _LOOK_BACK_MAX if name else 1)
    found = [head for head in heads if head.run.startswith(name) or head.run.endswith(name)]
    if not found:
        raise UnknownRun(name or "latest", "" if name else "There are no runs yet: `baton run FLOW` makes one.")
    if len(found) > 1:
        raise AmbiguousRun(name, [head.run for head in found])
    return found[0]


async def read_run(bus: Bus, head: RunHead) -> list[Entry]:
    """Return every message of a run in the order of the log, all versions of a join record included."""
    return [entry async for entry in bus.log.read([bus.subjects.run(head.run)], head.start_seq)]


async def read_last(bus: Bus, head: RunHead) -> list[Entry]:
    """Return the messages of a run as `Log.run` does: enough for its state, and faster than all of them."""
    actors = (*head.actors, head.flow) if head.actors else ()  # a result has the flow in place of an actor
    return await bus.log.run(head.run, actors, head.start_seq)


async def _exact(bus: Bus, run: str) -> RunHead | None:
    ends = await bus.log.matching([bus.subjects.result("*", run)])
    for entry in await bus.log.matching([bus.subjects.run(run, kind="handoff")]):
        if _begins(entry):
            return _head(entry, ends[0] if ends else None)
    return _head(ends[0], ends[0]) if ends else None


async def from_the_end(bus: Bus, wanted: Callable[[Entry], bool]) -> AsyncGenerator[Entry, None]:
    """Yield those of the messages that begin or end runs which are `wanted`, from the newest on.

    Only they are held in memory. Raises `BusUnavailable`, `NoStream`.
    """
    first_seq, end_seq = await _bounds(bus)
    window = _WINDOW
    while end_seq > first_seq:
        low_seq = max(first_seq, end_seq - window)
        found: list[Entry] = []
        async with aclosing(bus.log.read(bus.subjects.starts(), low_seq)) as entries:
            async for entry in entries:
                if entry.seq >= end_seq:
                    break
                if wanted(entry):
                    found.append(entry)
        for entry in reversed(found):
            yield entry
        end_seq, window = low_seq, window * 4


async def _backwards(bus: Bus) -> AsyncIterator[RunHead]:
    """Yield the runs from the newest on. A result comes after its start, so it is always seen before it."""
    results: dict[str, Entry] = {}
    async for entry in from_the_end(bus, lambda entry: isinstance(entry.message, Result) or _begins(entry)):
        message = entry.message
        assert isinstance(message, Handoff | Result)
        if isinstance(message, Result):
            results[message.run] = entry
        if _begins(entry):
            yield _head(entry, results.pop(message.run, None))


async def _bounds(bus: Bus) -> tuple[int, int]:
    """Return the first sequence of the log and the one after its last."""
    try:
        state = (await bus.js.stream_info(bus.settings.namespace)).state
    except (APIError, NatsError) as error:
        raise BusUnavailable("read the log", bus.settings.request_timeout_s) from error
    return max(state.first_seq, 1), state.last_seq + 1


def _begins(entry: Entry) -> bool:
    """Say whether a run begins here: with its first handoff, or with the result of a task that could not start."""
    message = entry.message
    if isinstance(message, Result):
        return message.start_seq == 0
    return isinstance(message, Handoff) and message.start_seq == 0 and message.flow_body != NULL


def _head(begin: Entry, end: Entry | None) -> RunHead:
    message = begin.message
    assert isinstance(message, Handoff | Result)
    result = end.message if end is not None and isinstance(end.message, Result) else None
    return RunHead(
        run=message.run,
        flow=message.flow,
        start_seq=begin.seq,
        started_at=begin.at,
        actors=_actors(message) if isinstance(message, Handoff) else (),
        status=result.status if result else "running",
        ended_at=end.at if end is not None and result else None,
    )


def _actors(handoff: Handoff) -> tuple[str, ...]:
    try:
        return tuple(Plan(decode_flow(handoff.flow_body)).actors())
    except (msgspec.DecodeError, ValueError, KeyError, RecursionError):  # a flow of another release
        return ()
