"""Failures by what they have in common: which causes there are, how often, since when, and which runs."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from msgspec import Struct

from baton_schemas.show.cause import Cause

from .finding import first_seq, rows_in

RUNS_SHOWN = 5


class Failures(Struct, frozen=True, kw_only=True):
    """The runs that failed for one cause."""

    cause: Cause
    count: int
    first_at: datetime
    last_at: datetime
    """When the earliest and the latest of them ended, by when they began."""
    runs: list[str]
    """Some of them, the newest first."""


def failures(
    database: sqlite3.Connection, *, since: datetime | None = None, limit: int = 100, runs: int = RUNS_SHOWN
) -> list[Failures]:
    """Return the causes for which runs failed that began from a time on, that of the newest run first.

    Of each so many `runs` are named. Raises as SQLite does.
    """
    low = first_seq(database, since) if since is not None else 0
    if since is None:
        question = (
            "SELECT cause, runs, (SELECT max(start_seq) FROM runs r WHERE r.cause = causes.cause AND r.cause != '')"
            " AS last FROM causes ORDER BY last DESC LIMIT :limit"
        )
    else:
        question = (
            "SELECT cause, count(*), max(start_seq) AS last FROM runs WHERE cause != '' AND start_seq >= :low"
            " GROUP BY cause ORDER BY last DESC LIMIT :limit"
        )
    found = database.execute(question, {"low": low, "limit": limit}).fetchall()
    return [_of(database, cause, count, low, runs) for cause, count, _ in found]


def count_causes(database: sqlite3.Connection, since: datetime) -> int:
    """Return for how many causes runs failed that began from a time on. Raises as SQLite does."""
    question = "SELECT count(DISTINCT cause) FROM runs WHERE cause != '' AND start_seq >= ?"
    (count,) = database.execute(question, (first_seq(database, since),)).fetchone()
    return int(count)


def _of(database: sqlite3.Connection, key: str, count: int, low: int, runs: int) -> Failures:
    flow, step, type_, message = database.execute(
        "SELECT flow, step, type, message FROM causes WHERE cause = ?", (key,)
    ).fetchone()
    where = "FROM runs WHERE cause = ? AND cause != '' AND start_seq >= ? ORDER BY start_seq"
    newest = rows_in(database.execute(f"SELECT row {where} DESC LIMIT ?", (key, low, max(runs, 1))).fetchall())
    (oldest,) = rows_in(database.execute(f"SELECT row {where} LIMIT 1", (key, low)).fetchall())
    ends = [row.summary.ended_at or row.summary.started_at for row in (oldest, newest[0])]
    assert ends[0] is not None
    assert ends[1] is not None
    return Failures(
        cause=Cause(key=key, flow=flow, step=step, type=type_, message=message),
        count=count,
        first_at=ends[0],
        last_at=ends[1],
        runs=[row.summary.run for row in newest[:runs]],
    )
