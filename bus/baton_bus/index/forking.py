"""Which runs go on from which: forks and retries, whoever made them and wherever."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec import Struct

_OVER = """
WITH RECURSIVE over(run) AS (
  SELECT forked_from FROM runs INDEXED BY runs_by_fork
  WHERE forked_from != '' AND status IN ('running', 'done') AND start_seq >= ?
  UNION SELECT forked_from FROM over JOIN runs USING (run) WHERE forked_from != ''
  UNION SELECT runs.run FROM over JOIN runs ON runs.parent = over.run AND runs.parent != '')
SELECT run FROM over
"""


class Fork(Struct, frozen=True):
    """A run that goes on from another."""

    run: str
    status: str


def forks_of(database: sqlite3.Connection, runs: Sequence[str], limit: int = -1) -> dict[str, list[Fork]]:
    """Return the runs that go on from each of these, the newest first, `limit` in all at most (-1: all).

    Those of which there is none are left out. Raises as SQLite does.
    """
    question = (
        "SELECT forked_from, run, status FROM runs WHERE forked_from IN (SELECT value FROM json_each(?))"
        " AND forked_from != '' ORDER BY start_seq DESC LIMIT ?"
    )
    found: dict[str, list[Fork]] = {}
    for origin, run, status in database.execute(question, (msgspec.json.encode(runs).decode(), limit)):
        found.setdefault(origin, []).append(Fork(run, status))
    return found


def gone_on_from(database: sqlite3.Connection, low_seq: int) -> set[str]:
    """Return the runs that somebody has gone on from, in a run that goes on or is done, and in one of its forks where
    that one failed; and what they had asked for.

    `low_seq` is where the first run begins that is asked about: what goes on from it came later. Raises as SQLite does.
    """
    return {run for (run,) in database.execute(_OVER, (low_seq,))}
