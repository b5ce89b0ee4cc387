"""Failures by what they have in common: which causes there are, how often, since when, and which runs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Container
from datetime import datetime
from itertools import islice

import msgspec
from msgspec import Struct

from baton_schemas.show.cause import Cause

from .finding import first_seq, rows_in
from .forking import gone_on_from

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
    database: sqlite3.Connection,
    *,
    since: datetime | None = None,
    limit: int = 100,
    runs: int = RUNS_SHOWN,
    gone_on: bool = True,
) -> list[Failures]:
    """Return the causes for which runs failed that began from a time on, that of the newest run first.

    Of each so many `runs` are named. Without `gone_on`, those are left out that somebody has gone on from: with a fork
    that goes on or is done. Raises as SQLite does.
    """
    low = first_seq(database, since) if since is not None else 0
    over = set[str]() if gone_on else gone_on_from(database, low)
    if since is None and gone_on:
        question = (
            "SELECT cause, runs, (SELECT max(start_seq) FROM runs r WHERE r.cause = causes.cause AND r.cause != '')"
            " AS last, (SELECT min(start_seq) FROM runs r WHERE r.cause = causes.cause AND r.cause != '')"
            " FROM causes ORDER BY last DESC LIMIT :limit"
        )
    else:
        question = (
            "SELECT cause, count(*), max(start_seq) AS last, min(start_seq) FROM runs WHERE cause != ''"
            " AND start_seq >= :low AND run NOT IN (SELECT value FROM json_each(:over))"
            " GROUP BY cause ORDER BY last DESC LIMIT :limit"
        )
    given = {"low": low, "limit": limit, "over": msgspec.json.encode(over).decode()}
    found = database.execute(question, given).fetchall()
    return [
        _of(database, cause, count, (first, last), _named(database, cause, low, runs, over))
        for cause, count, last, first in found
    ]


def count_causes(database: sqlite3.Connection, since: datetime) -> int:
    """Return for how many causes runs failed that began from a time on. Raises as SQLite does."""
    question = "SELECT count(DISTINCT cause) FROM runs WHERE cause != '' AND start_seq >= ?"
    (count,) = database.execute(question, (first_seq(database, since),)).fetchone()
    return int(count)


def _of(database: sqlite3.Connection, key: str, count: int, seqs: tuple[int, int], runs: list[str]) -> Failures:
    flow, step, type_, message = database.execute(
        "SELECT flow, step, type, message FROM causes WHERE cause = ?", (key,)
    ).fetchone()
    found = [database.execute("SELECT row FROM runs WHERE start_seq = ?", (seq,)).fetchone() for seq in seqs]
    ends = [row.summary.ended_at or row.summary.started_at for row in rows_in(found)]
    assert ends[0] is not None
    assert ends[1] is not None
    return Failures(
        cause=Cause(key=key, flow=flow, step=step, type=type_, message=message),
        count=count,
        first_at=ends[0],
        last_at=ends[1],
        runs=runs,
    )


def _named(database: sqlite3.Connection, key: str, low: int, limit: int, over: Container[str]) -> list[str]:
    """Return the newest runs that failed for a cause and are not over."""
    question = "SELECT run FROM runs WHERE cause = ? AND cause != '' AND start_seq >= ? ORDER BY start_seq DESC"
    with contextlib.closing(database.execute(question, (key, low))) as found:
        return list(islice((run for (run,) in found if run not in over), limit))
