"""What is in the log, run by run, counted in one pass over it: for whoever is about to remove some of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from datetime import datetime

import msgspec
from msgspec import Struct

from baton_bus.errors import BlobMissing
from baton_bus.store.blobs import Kept
from baton_bus.store.bus import Bus
from baton_bus.store.log import Stored
from baton_bus.subjects import Parts
from baton_schemas.run.child_runs import parent_of
from baton_schemas.run.state import RunStatus, is_newer, read_entry
from baton_schemas.wire.messages import Batch, Handoff, Result, Started, Task
from baton_schemas.wire.names import BATCH, END, TOKEN, run_of_task
from baton_schemas.wire.outcomes import Blob

_NAMES_BLOBS = b'"sha256"'
_SHA256 = re.compile(rb"[0-9a-f]{64}")
_NAMES_FILES = b'"files":true'
_WITH_FILES = re.compile(rb'"sha256":"([0-9a-f]{64})","size_bytes":\d+,"files":true')
"""A large value that may name files in turn: the messages do not name those."""
_NOBODY = "-"
"""In place of a run, in notes on messages that name none."""
_DECODED = frozenset({"task", "handoff", "result"})


class Counted(Struct, kw_only=True):
    """A run as one pass over the log finds it."""

    run: str
    flow: str = ""
    start_seq: int = 0
    """0 when its first handoff is not there: a task that was refused, or what a broken purge left."""
    started_at: datetime
    """When its first message was stored that is still there."""
    last_at: datetime
    ends: dict[str, int] = {}
    """Sequences of its results by flow. One of another flow is that of a refused task with its id."""
    status: RunStatus = "running"
    ended_at: datetime | None = None
    purged: bool = False
    """It was removed, and what is counted here came too late, or was left."""
    origin: str = ""
    """The run that it goes on from."""
    parent: str = ""
    """The run that asked for it."""
    is_batch: bool = False
    """It is no run, but a batch of model calls: those of one or more runs."""
    messages: int = 0
    size_bytes: int = 0
    tasks: list[int] = []
    """Sequences of the tasks that asked for it: their subjects do not name it."""
    timers: list[str] = []
    """Subjects of what is set or due for it."""
    blobs: set[str] = set()
    """Large values that its messages name, by SHA-256."""

    @property
    def began(self) -> bool:
        """Whether its first handoff is in the log."""
        return self.start_seq > 0

    @property
    def is_over(self) -> bool:
        """Whether nothing goes on with it: it has ended, or there is no beginning to go on from."""
        return self.status != "running" or not self.began


class Survey(Struct, kw_only=True):
    """All runs that there are, in the order in which they began, and the large values."""

    runs: dict[str, Counted]
    end_seq: int
    """The last message that was looked at."""
    blobs: dict[str, Kept]
    named_by_others: set[str]
    """Large values that are named by what belongs to no run."""
    with_files: set[str] = set()
    """Large values that may name files."""


async def survey(bus: Bus) -> Survey:
    """Count what is in the log, by run. It reads all of it, some 30,000 messages a second.

    Raises `BusUnavailable`, `NoStream`.
    """
    found = Survey(runs={}, end_seq=0, blobs={}, named_by_others=set())
    tasks: list[tuple[str, Stored]] = []
    async with aclosing(bus.log.raw()) as log:
        async for each in log:
            found.end_seq = each.seq
            parts = bus.subjects.split(each.subject)
            found.with_files |= values_with_files(each.data)
            if parts.kind == "task":
                tasks.append((_run_of_task(each), each))
            elif TOKEN.match(parts.run) and parts.run != _NOBODY:
                _count(found.runs, parts, each)
            else:
                found.named_by_others |= names_in(each.data)
    for run, each in tasks:
        if (of := found.runs.get(run)) is not None:  # one that was not started yet waits for its steward
            of.tasks.append(each.seq)
            _add(of, each)
    for run, timers in (await bus.timers.of_runs()).items():
        for each in timers:
            if (of := found.runs.get(run)) is not None:
                of.timers.append(each.subject)
                found.with_files |= values_with_files(each.data)
                of.blobs = of.blobs | names_in(each.data)
            else:
                found.named_by_others |= names_in(each.data)
                found.with_files |= values_with_files(each.data)
    for schedule in await bus.timers.list():  # it holds what runs to come are given
        found.named_by_others |= names_in(schedule.body)
    found.blobs = await bus.blobs.kept()
    files = await _files_within(bus, found.with_files & found.blobs.keys(), found.blobs)
    if files:
        for counted in found.runs.values():
            counted.blobs = _with_theirs(counted.blobs, files)
        found.named_by_others = _with_theirs(found.named_by_others, files)
    return found


async def _files_within(bus: Bus, values: Iterable[str], kept: Mapping[str, Kept]) -> dict[str, set[str]]:
    """Return the files that large values name, by the value. Raises `BusUnavailable`."""
    within: dict[str, set[str]] = {}
    for sha256 in values:
        with contextlib.suppress(BlobMissing):
            within[sha256] = names_in(await bus.blobs.get(Blob(sha256=sha256, size_bytes=kept[sha256].size_bytes)))
    return within


def _with_theirs(named: set[str], files: Mapping[str, set[str]]) -> set[str]:
    return named.union(*(files[sha256] for sha256 in named & files.keys()))


async def named_since(bus: Bus, seq: int) -> set[str]:
    """Return the large values that messages after this sequence name, and all timers. Raises as `survey`."""
    named: set[str] = set()
    with_files: set[str] = set()
    async with aclosing(bus.log.raw(seq + 1)) as log:
        async for each in log:
            named |= names_in(each.data)
            with_files |= values_with_files(each.data)
    for timers in (await bus.timers.of_runs()).values():
        named.update(*(names_in(each.data) for each in timers))
        with_files.update(*(values_with_files(each.data) for each in timers))
    named.update(*(names_in(each.body) for each in await bus.timers.list()))
    if not with_files:
        return named
    kept = await bus.blobs.kept()
    return _with_theirs(named, await _files_within(bus, with_files & kept.keys(), kept))


async def forked_since(bus: Bus, seq: int) -> set[str]:
    """Return the runs that runs which began after this sequence go on from. Raises as `survey`."""
    runs: dict[str, Counted] = {}
    async with aclosing(bus.log.raw(seq + 1)) as log:
        async for each in log:
            parts = bus.subjects.split(each.subject)
            if parts.kind == "handoff":
                _count(runs, parts, each)
    return {run.origin for run in runs.values()} - {""}


def names_in(data: bytes) -> set[str]:
    """Return the large values that a message may name: rather one too many, as these are kept."""
    if _NAMES_BLOBS not in data:
        return set()
    return {found.decode() for found in _SHA256.findall(data)}


def values_with_files(data: bytes) -> set[str]:
    """Return the large values that a message names and that may name files."""
    return {found.decode() for found in _WITH_FILES.findall(data)} if _NAMES_FILES in data else set()


def named_by(runs: Iterable[Counted]) -> set[str]:
    """Return the large values that these runs name."""
    return set().union(*(run.blobs for run in runs))


def _count(runs: dict[str, Counted], parts: Parts, each: Stored) -> None:
    run = runs.get(parts.run)
    if run is None:
        run = runs[parts.run] = Counted(run=parts.run, started_at=each.at, last_at=each.at)
    if parts.kind in _DECODED:
        _look(run, parts, each)
    elif parts.kind == "note" and parts.rest == (BATCH, "ended"):
        run.status, run.ended_at = "done", each.at
    _add(run, each)


def _add(run: Counted, each: Stored) -> None:
    run.messages += 1
    run.size_bytes += len(each.subject) + len(each.data)
    run.started_at, run.last_at = min(run.started_at, each.at), max(run.last_at, each.at)
    if named := names_in(each.data):
        run.blobs = run.blobs | named


def _look(run: Counted, parts: Parts, each: Stored) -> None:
    """Take in what a message says of the whole run."""
    if parts.kind == "handoff" and parts.rest[-1:] != ("start",) and run.began:
        return
    entry = read_entry(each.seq, each.at, each.subject, each.data)
    match parts.kind, entry.message:
        case "handoff", Handoff(cause=Started(begins=begins)) as first if begins is not None and not run.began:
            run.flow, run.start_seq = first.flow, each.seq
            run.origin = begins.origin.run if begins.origin is not None else ""
            run.parent = parent.run if (parent := parent_of(first)) is not None else ""
            _end_of(run, first.flow)
        case "handoff", Batch(actor=actor):
            run.flow, run.start_seq, run.is_batch = actor, each.seq, True
        case "handoff", None if parts.rest[-1:] == ("start",) and is_newer(entry):
            run.start_seq = each.seq  # of a later release, which may go on with it
        case "result", message if parts.rest == (END,):
            run.ends = {**run.ends, parts.who: each.seq}
            if run.began and parts.who != run.flow:  # of a refused task
                return
            run.flow = parts.who
            run.status, run.ended_at = "failed", each.at  # when it cannot be read, it still is an end
            if isinstance(message, Result):
                run.status, run.purged = message.status, message.purged


def _end_of(run: Counted, flow: str) -> None:
    """The run begins here: a result that came before is that of a refused task, with the same id."""
    if flow not in run.ends:
        run.status, run.ended_at, run.purged = "running", None, False


def _run_of_task(task: Stored) -> str:
    try:
        return msgspec.json.decode(task.data, type=Task).run or run_of_task(task.seq)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return run_of_task(task.seq)
