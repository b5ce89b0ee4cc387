"""Sums over rows, written together with them: runs by time, causes of failures, and what was spent on what.

So no page adds up a million rows.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict

from baton_schemas.show.cause import Cause

from .row import IndexRow

LENGTHS_S = (60, 3_600, 86_400)
"""How long the stretches are by which runs are counted, in seconds: those of a month are some thousands."""

_SPENT = ("calls", "cost", "waste", "unpriced", "input_tokens", "cache_read_tokens", "cache_write_tokens")
_SPENT_ON = (*_SPENT, "output_tokens")
_COUNT = "INSERT INTO counts VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET runs = runs + excluded.runs"
_CAUSE = "INSERT INTO causes VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET runs = runs + excluded.runs"
_SPEND = f"INSERT INTO spent VALUES({', '.join((6 + len(_SPENT_ON)) * '?')}) ON CONFLICT DO UPDATE SET " + ", ".join(
    f"{name} = {name} + excluded.{name}" for name in _SPENT_ON
)


class Tallies:
    """What rows that are written change in the sums."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """`database` is an index."""
        self._database = database
        self._counts: defaultdict[tuple[int, str, str, bool], int] = defaultdict(int)
        """By the minute in which runs began, their flow and status, and whether a step of another run asked for it."""
        self._causes: dict[str, Cause] = {}
        self._failed: defaultdict[str, int] = defaultdict(int)
        self._spent: dict[tuple[int, str, str, str, str, bool], list[int]] = {}

    def add(self, row: IndexRow, times: int) -> None:
        """Count a row: 1 time where it comes, -1 where it goes."""
        one = row.summary
        assert one.started_at is not None
        minute = int(one.started_at.timestamp()) // 60
        self._counts[minute, one.flow, one.status, bool(one.parent)] += times
        if row.cause is not None:
            self._causes[row.cause.key] = row.cause
            self._failed[row.cause.key] += times
        for each in row.spent:
            key = (each.day, one.flow, each.step, each.agent, each.model, each.rehearsed)
            sums = self._spent.setdefault(key, [0] * len(_SPENT_ON))
            for place, name in enumerate(_SPENT_ON):
                sums[place] += times * getattr(each, name)

    def write(self) -> None:
        """Write what was counted. Raises as SQLite does."""
        counts: defaultdict[tuple[int, int, str, str, bool], int] = defaultdict(int)
        for (minute, flow, status, nested), runs in self._counts.items():
            for length_s in LENGTHS_S:
                begin_s = 60 * minute // length_s * length_s
                counts[length_s, begin_s, flow, status, nested] += runs
        changed = sorted((*key, runs) for key, runs in counts.items() if runs)
        self._database.executemany(_COUNT, changed)
        if any(each[-1] < 0 for each in changed):
            self._database.executemany(
                "DELETE FROM counts WHERE length_s = ? AND begin_s = ? AND flow = ? AND status = ? AND nested = ?"
                " AND runs = 0",
                [each[:-1] for each in changed],
            )
        causes = [self._causes[key] for key, runs in self._failed.items() if runs]
        self._database.executemany(
            _CAUSE,
            [(each.key, each.flow, each.step, each.type, each.message, self._failed[each.key]) for each in causes],
        )
        self._database.executemany("DELETE FROM causes WHERE cause = ? AND runs = 0", [(each.key,) for each in causes])
        spent = [(*key, *sums) for key, sums in self._spent.items() if any(sums)]
        self._database.executemany(_SPEND, spent)
        self._database.executemany(
            "DELETE FROM spent WHERE day = ? AND flow = ? AND step = ? AND agent = ? AND model = ? AND rehearsed = ?"
            " AND calls = 0",
            [each[:6] for each in spent],
        )
        self.forget()

    def forget(self) -> None:
        """Let go of what was counted."""
        self._counts.clear()
        self._causes.clear()
        self._failed.clear()
        self._spent.clear()
