"""How many runs there are, by status, flow and time; and how those of each flow do. Read from sums, not from rows."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from baton_schemas.run.state import RunStatus
from baton_schemas.show.step_figures import nearest

from .finding import first_seq, rows_in
from .row import IndexRow
from .tallies import LENGTHS_S

Length = Literal["minute", "hour", "day"]
_S: dict[Length, int] = dict(zip(("minute", "hour", "day"), LENGTHS_S, strict=True))
POINTS_MAX = 2_000
"""Points of one line: more than a screen has columns for."""
SAMPLE = 1_000
"""Runs of a flow, the latest, whose times and costs are looked at: to sort all of them would take too long."""
_FAILURES = ("failed", "expired")


class Counts(Struct, frozen=True, kw_only=True):
    """How many runs there are."""

    by_status: dict[str, int]
    by_flow: dict[str, int]
    """The most first."""
    runs: int


class Point(Struct, frozen=True):
    """The runs that began in a minute, an hour, or a day."""

    at: datetime
    """When it begins, in UTC."""
    runs: int
    failed: int
    """Of these, up to now: expired ones too."""


class FlowFigures(Struct, frozen=True, kw_only=True):
    """How the runs of a flow do."""

    flow: str
    runs: int
    by_status: dict[str, int]
    done_share: float | None
    """Of those that ended and were not called off; None when there are none."""
    sample: int
    """The following are of so many runs, the latest of those that are done."""
    p50_s: float | None = None
    p95_s: float | None = None
    """How long they took."""
    p50_usd: float | None = None
    p95_usd: float | None = None
    """What they cost, of those that have a price."""


def counts(
    database: sqlite3.Connection,
    *,
    since: datetime | None = None,
    flow: str = "",
    statuses: Sequence[str] = (),
    nested: bool = False,
) -> Counts:
    """Return how many runs began from a time on, taken down to its minute: by status those of `flow`, by flow those in
    `statuses`, so that each says what would be found if it were chosen.

    With `nested` those that steps of other runs asked for instead. Raises as SQLite does.
    """
    by_status: dict[str, int] = {}
    by_flow: dict[str, int] = {}
    runs = 0
    for (name, status), count in _summed(database, since, nested).items():
        if not flow or name == flow:
            by_status[status] = by_status.get(status, 0) + count
        if not statuses or status in statuses:
            by_flow[name] = by_flow.get(name, 0) + count
        if (not flow or name == flow) and (not statuses or status in statuses):
            runs += count
    by_flow = dict(sorted(by_flow.items(), key=lambda each: (-each[1], each[0])))
    return Counts(by_status=by_status, by_flow=by_flow, runs=runs)


def line(
    database: sqlite3.Connection,
    since: datetime,
    until: datetime,
    length: Length = "minute",
    *,
    flow: str = "",
    nested: bool = False,
) -> list[Point]:
    """Return how many runs began, and how many of them failed, in each minute, hour or day that a time touches.

    Raises `ValueError` for more than `POINTS_MAX` points, and as SQLite does.
    """
    length_s = _S[length]
    begin_s = int(since.timestamp()) // length_s * length_s
    count = max(math.ceil((until.timestamp() - begin_s) / length_s), 0)
    if count > POINTS_MAX:
        raise ValueError(f"{count:,} points, expected at most {POINTS_MAX:,}: take a longer length than a {length}")
    failed = f"sum(CASE WHEN status IN {_FAILURES} THEN runs ELSE 0 END)"
    question = (
        f"SELECT begin_s, sum(runs), {failed} FROM counts WHERE length_s = :length AND nested = :nested"
        f" AND begin_s >= :begin AND begin_s < :end{' AND flow = :flow' if flow else ''} GROUP BY begin_s"
    )
    given = {"length": length_s, "nested": nested, "begin": begin_s, "end": begin_s + count * length_s, "flow": flow}
    found = {at: (runs, lost) for at, runs, lost in database.execute(question, given)}
    times = [begin_s + number * length_s for number in range(count)]
    return [Point(datetime.fromtimestamp(at, UTC), *found.get(at, (0, 0))) for at in times]


def flow_figures(database: sqlite3.Connection, *, since: datetime | None = None) -> list[FlowFigures]:
    """Return how the runs of each flow do that began from a time on, taken down to its minute; nested ones too.

    The flow with most runs comes first. Raises as SQLite does.
    """
    by_flow: dict[str, dict[str, int]] = {}
    for nested in (False, True):
        for (flow, status), count in _summed(database, since, nested).items():
            statuses = by_flow.setdefault(flow, {})
            statuses[status] = statuses.get(status, 0) + count
    found = [_figures(database, flow, statuses, since) for flow, statuses in by_flow.items()]
    return sorted(found, key=lambda each: (-each.runs, each.flow))


def _figures(database: sqlite3.Connection, flow: str, statuses: dict[str, int], since: datetime | None) -> FlowFigures:
    low = first_seq(database, since.replace(second=0, microsecond=0)) if since is not None else 0
    latest = database.execute(
        "SELECT took_us, cost_usd FROM runs INDEXED BY runs_by_flow"
        " WHERE flow = ? AND start_seq >= ? AND status = 'done' ORDER BY start_seq DESC LIMIT ?",
        (flow, low, SAMPLE),
    ).fetchall()
    times = sorted(took / 1e6 for took, _ in latest)
    costs = sorted(cost for _, cost in latest if cost is not None)
    done, failed = statuses.get("done", 0), sum(statuses.get(status, 0) for status in _FAILURES)
    return FlowFigures(
        flow=flow,
        runs=sum(statuses.values()),
        by_status=statuses,
        done_share=done / (done + failed) if done + failed else None,
        sample=len(latest),
        p50_s=nearest(times, 0.5),
        p95_s=nearest(times, 0.95),
        p50_usd=nearest(costs, 0.5),
        p95_usd=nearest(costs, 0.95),
    )


def latest(database: sqlite3.Connection, flow: str, status: RunStatus, limit: int) -> list[IndexRow]:
    """Return the latest runs of a flow that stand so, nested ones too. Raises as SQLite does."""
    question = (
        "SELECT row FROM runs INDEXED BY runs_by_flow WHERE flow = ? AND status = ? ORDER BY start_seq DESC LIMIT ?"
    )
    return rows_in(database.execute(question, (flow, status, limit)).fetchall())


def _summed(database: sqlite3.Connection, since: datetime | None, nested: bool) -> dict[tuple[str, str], int]:
    """Return how many runs began from a time on, by flow and status: days as far as they go, and else less."""
    found: dict[tuple[str, str], int] = {}
    question = (
        "SELECT flow, status, sum(runs) FROM counts WHERE length_s = ? AND nested = ? AND begin_s >= ? AND begin_s < ?"
        " GROUP BY flow, status"
    )
    for length_s, low, high in _stretches(since):
        for flow, status, runs in database.execute(question, (length_s, nested, low, high)):
            found[flow, status] = found.get((flow, status), 0) + runs
    return found


def _stretches(since: datetime | None) -> list[tuple[int, int, int]]:
    """Return lengths, and from when to when those are counted that begin there."""
    end = 2**62
    if since is None:
        return [(LENGTHS_S[-1], -end, end)]
    found = []
    low = int(since.timestamp()) // LENGTHS_S[0] * LENGTHS_S[0]
    for length_s, longer_s in pairwise(LENGTHS_S):
        high = -(-low // longer_s) * longer_s
        found.append((length_s, low, high))
        low = high
    return [*found, (LENGTHS_S[-1], low, end)]
