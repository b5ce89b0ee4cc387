"""Finding runs, by the index where there is one that reaches far enough, and else by the log: the same rows either way.

Without an index one is made in memory, of as much of the log as is affordable, and asked the same question.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from baton_bus.store.bus import Bus
from baton_bus.store.looking import look

from . import file as files
from .errors import IndexBusy, IndexUnusable
from .finding import Wanted, find, started_at
from .indexing import Indexer
from .keeping import identity_of, opened
from .row import IndexRow
from .spans import last_of
from .table import Table, spans_of

AFFORDABLE = 100_000
"""Messages that are read for one question: some seconds."""
_WAITS_S = 2.0
"""How long whoever keeps the index is waited for, to write what is in the log already."""
_LOOKS_AGAIN_S = 0.02


class Found(Struct, frozen=True, kw_only=True):
    """The runs that were found."""

    rows: list[IndexRow]
    by_index: bool
    """Whether the index had them, or the log."""
    why: str = ""
    """Why the index was not used, where there is one."""
    all_read: bool = True
    """Whether all of the log was looked through, or as much as could change what was found."""
    read: int = 0
    """Else how many of its latest messages were."""
    messages: int = 0
    """Of how many."""
    back_to: datetime | None = None
    """And when the first run began among them."""


async def find_runs(bus: Bus, wanted: Wanted, path: Path | None, now: datetime) -> Found:
    """Return the runs that are wanted. The index at `path` is brought up to date if that takes some seconds at most.

    Raises `BusUnavailable`, `NoStream`.
    """
    why = ""
    if path is not None:
        try:
            if files.check_ours(path):
                found = await _by_index(bus, wanted, path, now)
                if isinstance(found, Found):
                    return found
                why = found
        except IndexUnusable as error:
            why = str(error)
    return await _by_log(bus, wanted, now, why)


async def _by_index(bus: Bus, wanted: Wanted, path: Path, now: datetime) -> Found | str:
    """Return what the index has; or why it does not do."""
    words = _has_words(path)
    if wanted.text and not words:
        return f"the index {path} has no words (`baton index --no-text` made it)"
    try:
        async with opened(bus, path, words=words, makes=False) as kept:
            await kept.indexer.catch_up(most=AFFORDABLE, newest=True)
            await kept.indexer.remove_gone()
    except IndexBusy:
        if not await _is_kept(bus, path):
            return f"the index {path} is behind the log: whoever keeps it has not caught up yet"
    with files.told(path), contextlib.closing(files.connected(path)) as database:
        files.check_identity(path, database, identity_of(bus, await look(bus), words=words))
        first_seq, end_seq = await bus.log.bounds()
        span = last_of(spans_of(database))
        if span is None:
            return f"the index {path} is empty"
        rows = find(database, wanted, now, span.low)
        return _judged(database, wanted, rows, span.low, (first_seq, end_seq), path)


def _judged(
    database: sqlite3.Connection,
    wanted: Wanted,
    rows: list[IndexRow],
    low_seq: int,
    bounds: tuple[int, int],
    path: Path,
) -> Found | str:
    """Return what was found if nothing that was not read could change it, or more was read than is affordable."""
    first_seq, end_seq = bounds
    read = end_seq - low_seq + 1
    if low_seq <= first_seq or is_enough(database, wanted, rows, low_seq):
        return Found(rows=rows, by_index=True)
    if read < AFFORDABLE:
        return f"the index {path} reaches back over the latest {read:,} messages only"
    return Found(
        rows=rows,
        by_index=True,
        all_read=False,
        read=read,
        messages=end_seq - first_seq + 1,
        back_to=started_at(database, low_seq),
    )


async def _is_kept(bus: Bus, path: Path) -> bool:
    """Wait until whoever keeps the index has written what is in the log now; say whether that was soon."""
    end_seq = await bus.log.end()
    give_up_at = asyncio.get_running_loop().time() + _WAITS_S
    with files.told(path), contextlib.closing(files.connected(path)) as database:
        while (span := last_of(spans_of(database))) is None or span.high < end_seq:
            if asyncio.get_running_loop().time() >= give_up_at:
                return False
            await asyncio.sleep(_LOOKS_AGAIN_S)
    return True


async def _by_log(bus: Bus, wanted: Wanted, now: datetime, why: str) -> Found:
    stream = await look(bus)
    with contextlib.closing(files.in_memory(identity_of(bus, stream))) as database:
        indexer = Indexer(bus, Table(database), stream)

        def enough(low_seq: int) -> bool:
            return is_enough(database, wanted, find(database, wanted, now), low_seq)

        all_read = await indexer.catch_up(most=AFFORDABLE, enough=enough)
        rows = find(database, wanted, now)
        low_seq = span.low if (span := last_of(spans_of(database))) is not None else 0
        all_read = all_read or is_enough(database, wanted, rows, low_seq)
        return Found(
            rows=rows,
            by_index=False,
            why=why,
            all_read=all_read,
            read=indexer.read,
            messages=stream.last_seq - stream.first_seq + 1,
            back_to=None if all_read else started_at(database, low_seq),
        )


def is_enough(database: sqlite3.Connection, wanted: Wanted, rows: list[IndexRow], low_seq: int) -> bool:
    """Say whether no run that began before this sequence could be among the ones that are wanted."""
    if wanted.order == "started" and not wanted.ascending and len(rows) >= wanted.limit:
        return True
    if wanted.since is None:
        return False
    first_at = started_at(database, low_seq)
    return first_at is not None and first_at < wanted.since


def _has_words(path: Path) -> bool:
    with files.told(path), contextlib.closing(files.connected(path)) as database:
        return files.facts(database).get("words") != "False"
