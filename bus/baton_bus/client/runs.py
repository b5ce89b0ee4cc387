"""Which runs there are: found from the end of the log backwards, without reading what is in them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import lru_cache
from typing import get_args

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from baton_bus.engine.runs import begins_run
from baton_bus.errors import BusError, RunPurged, UnknownRun
from baton_bus.store.bus import Bus
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.child_runs import parent_of
from baton_schemas.run.state import Entry, RunStatus
from baton_schemas.wire.messages import Handoff, Result, Started
from baton_schemas.wire.names import ASKED_BESIDES, TOKEN, gatherer_of
from baton_schemas.wire.outcomes import NULL

_WINDOW = 4_000
"""Messages of the first look back: about a thousand runs of a pipeline. Each further look takes four times more."""
_FLOWS_KEPT = 256
"""Versions of flows whose actors are remembered."""
_ODD_MAX = 100
"""Among so many of the latest runs one is looked for that has an id of ours."""
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
    parent: str = ""
    """The run that asked for it; empty for one that nobody's step asked for."""
    purged: bool = False
    """It was removed: this is all that is known of it."""


async def recent_runs(
    bus: Bus,
    limit: int,
    *,
    flow: str = "",
    status: RunStatus | None = None,
    parent: str = "",
    children: bool = False,
) -> list[RunHead]:
    """Return the runs that began last, the newest first: those of a flow, or that stand so, if these are given.

    Runs that steps of other runs asked for are left out, unless `children`; with a `parent` they are those that it did.

    Where few are, that reads the log to its beginning. Raises `BusUnavailable`, `NoStream`;
    `ValueError` for a status that there is not.
    """
    if status is not None and status not in get_args(RunStatus):
        raise ValueError(f"the status {status!r} is none of {', '.join(get_args(RunStatus))}")
    heads: list[RunHead] = []
    async with aclosing(_backwards(bus)) as runs:
        async for head in runs:
            if (flow and head.flow != flow) or (status and head.status != status):
                continue
            if head.parent != parent if parent else (head.parent and not children):
                continue
            heads.append(head)
            if len(heads) >= limit:
                break
    return heads


async def find_run(bus: Bus, name: str = "") -> RunHead:
    """Return the run with this id, or the only one whose id starts or ends so; the latest without a name.

    Raises `UnknownRun`, `AmbiguousRun`, and the errors of `recent_runs`.
    """
    if name and TOKEN.match(name) and (head := await exact_run(bus, name)) is not None:
        if head.purged:
            raise RunPurged(name)
        return head
    heads = await recent_runs(bus, _LOOK_BACK_MAX if name else _ODD_MAX, children=bool(name))
    # What a stranger published under an id that no subject of ours can have is listed, and cannot be named.
    heads = [head for head in heads if TOKEN.match(head.run)]
    found = [head for head in heads if head.run.startswith(name) or head.run.endswith(name)]
    # The ids of runs that a run asked for begin as its own does.
    found = [head for head in found if not head.parent] or found
    if not found:
        raise UnknownRun(name or "latest", "" if name else "There are no runs yet: `baton run FLOW` makes one.")
    if name and len(found) > 1:
        raise AmbiguousRun(name, [head.run for head in found])
    return found[0]


async def read_run(bus: Bus, head: RunHead) -> list[Entry]:
    """Return every message of a run in the order of the log, all versions of a join record included."""
    return [entry async for entry in bus.log.read([bus.subjects.run(head.run)], head.start_seq)]


async def read_last(bus: Bus, head: RunHead) -> list[Entry]:
    """Return the messages of a run as `Log.run_sure` does: enough for its state, and faster than all of them."""
    # A result has the flow in place of an actor, and what no worker is asked for a word.
    actors = (*head.actors, head.flow, *ASKED_BESIDES) if head.actors else ()
    return await bus.log.run_sure(head.run, actors, head.start_seq)


async def exact_run(bus: Bus, run: str) -> RunHead | None:
    """Return the run of this id, purged or not; None by the leader's word. Raises `BadToken`, and as `recent_runs`."""
    ends = await bus.log.matching_sure([bus.subjects.result("*", run)])
    begins = [entry for entry in await bus.log.matching_sure([bus.subjects.start(run)]) if is_beginning(entry)] or ends
    if not begins:  # of one whose first handoff was purged, say
        handoffs = await bus.log.matching_sure([bus.subjects.run(run, kind="handoff")])
        begins = [entry for entry in handoffs if is_beginning(entry)] or handoffs
    return _head(bus, begins[0], ends[0] if ends else None) if begins else None


async def from_the_end(
    bus: Bus, wanted: Callable[[Entry], bool], patterns: Sequence[str] = ()
) -> AsyncGenerator[Entry, None]:
    """Yield those of the messages that begin or end runs, or match `patterns`, which are `wanted`, from the newest on.

    Only they are held in memory. Raises `BusUnavailable`, `NoStream`.
    """
    first_seq, end_seq = await bus.log.bounds()
    window = _WINDOW
    while end_seq >= first_seq:
        low_seq = max(first_seq, end_seq - window + 1)
        async with aclosing(bus.log.read(patterns or bus.subjects.starts(), low_seq, end_seq)) as entries:
            found = [
                ours
                async for entry in entries
                if (ours := _as_its_subject_says(bus, entry)) is not None and wanted(ours)
            ]
        for entry in reversed(found):
            yield entry
        end_seq, window = low_seq - 1, window * 4


async def _backwards(bus: Bus) -> AsyncGenerator[RunHead, None]:
    """Yield the runs from the newest on. A result comes after its start, so it is always seen before it."""
    results: dict[str, Entry] = {}
    seen: set[str] = set()
    read = from_the_end(bus, lambda entry: isinstance(entry.message, Result) or is_beginning(entry))
    async with aclosing(read) as entries:
        async for entry in entries:
            message = entry.message
            assert isinstance(message, Handoff | Result)
            if isinstance(message, Result):
                later = results.get(message.run)
                if later is None or not (isinstance(later.message, Result) and later.message.purged):
                    results[message.run] = entry
            if is_beginning(entry) and message.run not in seen:
                seen.add(message.run)
                head = _head(bus, entry, results.pop(message.run, None))
                if not head.purged:  # a purge of it was broken off
                    yield head


def is_beginning(entry: Entry) -> bool:
    """Say whether a run begins here: with its first handoff, or with the result of a task that could not start."""
    message = entry.message
    if isinstance(message, Result):
        return message.start_seq == 0 and not message.purged
    return begins_run(entry)


def _as_its_subject_says(bus: Bus, entry: Entry) -> Entry | None:
    """Return an entry with the run's id of its subject; None when another kind of message is there than belongs there.

    Anybody may have published it, and its body may say anything; commands find a run by its subjects.
    """
    parts = bus.subjects.split(entry.subject)
    match parts.kind, entry.message:
        case ("handoff", Handoff() as message) | ("result", Result() as message):
            return replace(entry, message=replace(message, run=parts.run))
        case (("handoff" | "result"), _):
            return None
        case _:
            return entry


def _head(bus: Bus, begin: Entry, end: Entry | None) -> RunHead:
    """Return where a run begins. Its id is the subject's: what is in the message may say anything, or be unreadable."""
    message, parts = begin.message, bus.subjects.split(begin.subject)
    result = end.message if end is not None and isinstance(end.message, Result) else None
    parent = parent_of(message) if isinstance(message, Handoff) else None
    return RunHead(
        run=parts.run,
        flow=message.flow if isinstance(message, Handoff | Result) else "",
        start_seq=begin.seq,
        started_at=begin.at,
        actors=actors_of(message) if isinstance(message, Handoff) else (),
        parent=parent.run if parent is not None else "",
        status=result.status if result else "running",
        ended_at=end.at if end is not None and result else None,
        purged=result.purged if result else False,
    )


def actors_of(first: Handoff) -> tuple[str, ...]:
    """Return who appears in the subjects of a run, by its first handoff; nobody when its flow cannot be read."""
    begins = first.cause.begins if isinstance(first.cause, Started) else None
    return _actors_in(bytes(begins.flow_body if begins else NULL))


@lru_cache(maxsize=_FLOWS_KEPT)
def _actors_in(flow_body: bytes) -> tuple[str, ...]:
    try:
        plan = Plan(decode_flow(Raw(flow_body)))
        gathers = [gatherer_of(actor) for actor, agent in plan.actors().items() if plan.gathers(agent) is not None]
    except (msgspec.DecodeError, ValueError, KeyError, RecursionError):  # a flow of another release
        return ()
    return (*plan.actors(), *gathers)
