"""How many runs began in each hour, by how they stand: for a picture of a day."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from msgspec import Struct

HOUR_S = 3_600


class Bar(Struct, frozen=True):
    """The runs that began in an hour."""

    at: datetime
    """When it begins, in UTC."""
    by_status: dict[str, int]

    @property
    def runs(self) -> int:
        """All of them."""
        return sum(self.by_status.values())


def histogram(
    database: sqlite3.Connection, until: datetime, hours: int, *, flow: str = "", nested: bool = False
) -> list[Bar]:
    """Return how many runs began in each of so many hours, the last of which `until` is in, by status.

    Raises as SQLite does.
    """
    last_s = int(until.timestamp()) // HOUR_S * HOUR_S
    first_s = last_s - (hours - 1) * HOUR_S
    bars = [Bar(datetime.fromtimestamp(first_s + number * HOUR_S, UTC), {}) for number in range(hours)]
    question = (
        "SELECT begin_s, status, sum(runs) FROM counts WHERE length_s = :length AND nested = :nested"
        f" AND begin_s >= :first AND begin_s <= :last{' AND flow = :flow' if flow else ''}"
        " GROUP BY begin_s, status"
    )
    given = {"length": HOUR_S, "nested": nested, "first": first_s, "last": last_s, "flow": flow}
    for at, status, runs in database.execute(question, given):
        if runs:
            bars[(at - first_s) // HOUR_S].by_status[status] = runs
    return bars
