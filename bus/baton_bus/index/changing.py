"""What has changed in an index since it was looked at: for a list that is kept on a screen."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from msgspec import Struct

from .file import MADE, facts
from .finding import rows_in
from .row import IndexRow
from .table import FORGOT, VERSION


class Position(Struct, frozen=True, kw_only=True):
    """Which writing of which index: what comes after it has not been seen."""

    made: str
    """Another for each time that an index is made anew."""
    version: int


class Committed(Struct, frozen=True, kw_only=True):
    """Something was written, and who opens the index now finds it."""

    position: Position
    high_seq: int
    """Up to where the newest part of the log is read."""
    stored_at: datetime | None = None
    """When the server stored the last of the messages that came; None when they were read from what was there."""


class Changes(Struct, frozen=True, kw_only=True):
    """What has changed."""

    position: Position
    """Where it stands now: to be asked with the next time."""
    rows: list[IndexRow] = []
    """Those that came or changed, in the order in which they did."""
    gone: list[str] = []
    """Runs whose rows went; what is among the rows too has come again."""
    anew: bool = False
    """Too much has changed to be told, or it is another index: all that is shown is to be read again."""


def position_of(database: sqlite3.Connection) -> Position:
    """Return where an index stands. Raises as SQLite does."""
    return _position(facts(database))


def changes_since(database: sqlite3.Connection, seen: Position, *, limit: int, low_seq: int = 0) -> Changes:
    """Return what has changed since, at most so many rows, of runs that began at this sequence or later.

    With `low_seq` whoever shows the newest runs is not told of old ones, that are read meanwhile. Raises as SQLite
    does.
    """
    database.execute("BEGIN")
    try:
        said = facts(database)
        now = _position(said)
        if now == seen:
            return Changes(position=now)
        if now.made != seen.made or seen.version > now.version or seen.version < int(said.get(FORGOT, 0)):
            return Changes(position=now, anew=True)
        rows = database.execute(
            "SELECT row FROM runs INDEXED BY runs_by_version WHERE version > ? AND start_seq >= ?"
            " ORDER BY version, start_seq LIMIT ?",
            (seen.version, low_seq, limit + 1),
        ).fetchall()
        question = "SELECT run FROM gone WHERE version > ? LIMIT ?"
        gone = [run for (run,) in database.execute(question, (seen.version, limit + 1))]
    finally:
        database.execute("COMMIT")
    if len(rows) > limit or len(gone) > limit:
        return Changes(position=now, anew=True)
    return Changes(position=now, rows=rows_in(rows), gone=gone)


def _position(said: dict[str, str]) -> Position:
    return Position(made=said.get(MADE, ""), version=int(said.get(VERSION, 0)))
