"""The list of runs as pages show it: what an address asks for, and its rows, each made into HTML once for each version.

A list is sent anew ten times a second while many runs are going on. So what is the same for several pages or from one
sending to the next is kept: rows by their run, and how long runs of a flow take.
"""

from __future__ import annotations

import shlex
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, cast, get_args
from urllib.parse import urlencode

from markupsafe import Markup
from msgspec import Struct

from baton_bus.index.counting import flow_figures
from baton_bus.index.finding import Order, Wanted, count
from baton_bus.index.row import IndexRow
from baton_schemas.run.state import RunStatus
from baton_schemas.show.times import read_since

if TYPE_CHECKING:
    from .rendering import Rendering

SHOWN = 50
"""Rows of a page."""
COUNTED_MAX = 10_000
"""Runs that are counted one by one where no sums are kept: some milliseconds."""
ROWS_KEPT = 1_000
_FIGURES_S = 10.0
"""So long a median is good for: it moves slowly, and costs a sort."""
_FILTERS = ("status", "flow", "text", "since", "until", "waiting", "of")
"""What an address filters by; its order and its place in the list are none."""


def wanted_in(given: Mapping[str, str], now: datetime, limit: int = SHOWN) -> Wanted:
    """Return which runs an address asks for: `-cost` is `cost`, the most first. Raises `ValueError`, `BadTime`."""
    status, sort = given.get("status", ""), given.get("sort", "") or "started"
    order = sort.removeprefix("-")
    if order not in get_args(Order):
        raise ValueError(f"the order {order!r} is none of {', '.join(get_args(Order))}")
    since, until = given.get("since", ""), given.get("until", "")
    return Wanted(
        limit=limit,
        flow=given.get("flow", ""),
        statuses=tuple(cast(RunStatus, each) for each in dict.fromkeys(status.split(",")) if each),
        waiting=bool(given.get("waiting")),
        since=read_since(since, now) if since else None,
        until=read_since(until, now) if until else None,
        text=given.get("text", "").strip(),
        parent=given.get("of", ""),
        order=cast(Order, order),
        ascending=given.get("order") == "asc",
    )


def command_of(given: Mapping[str, str]) -> str:
    """Return the command that lists the same, as far as there is one."""
    options = ("flow", "text", "since", "until", "of")
    parts = ["baton runs", *(f"--{name} {shlex.quote(given[name])}" for name in options if given.get(name))]
    parts += [f"--status {shlex.quote(each)}" for each in given.get("status", "").split(",") if each]
    if given.get("waiting"):
        parts.append("--waiting")
    if given.get("sort"):
        parts.append(f"--sort {shlex.quote(given['sort'].removeprefix('-'))}")
    return " ".join(parts)


class Query:
    """The address of a list: what it asks for, and that of others which ask for a little more or less."""

    def __init__(self, given: Mapping[str, str]) -> None:
        """`given` is what stands after its `?`."""
        self.given = {name: value for name, value in given.items() if value and name != "token"}

    @property
    def filters(self) -> dict[str, str]:
        """What it filters by."""
        return {name: self.given[name] for name in _FILTERS if name in self.given}

    def get(self, name: str) -> str:
        """Return one part; empty where there is none."""
        return self.given.get(name, "")

    def with_(self, **changed: str) -> str:
        """Return the address with some of it changed, from its beginning; what is empty is taken away."""
        kept = {name: value for name, value in self.given.items() if name != "before"}
        merged = {name: value for name, value in {**kept, **changed}.items() if value}
        return "/?" + urlencode(merged) if merged else "/"

    def toggled(self, status: str) -> str:
        """Return the address with a status taken in, or left out if it is in."""
        statuses = [each for each in self.get("status").split(",") if each]
        statuses = [each for each in statuses if each != status] if status in statuses else [*statuses, status]
        return self.with_(status=",".join(statuses))

    def sorted_by(self, order: str) -> str:
        """Return the address with another order, or the same the other way round."""
        same = (self.get("sort").removeprefix("-") or "started") == order
        turned = "asc" if same and self.get("order") != "asc" else ""
        return self.with_(sort=order if order != "started" else "", order=turned)

    @property
    def text(self) -> str:
        """All of it, as it stands after the `?`."""
        return urlencode(self.given)


class Excluded(Struct, frozen=True):
    """A filter without which more would fit."""

    name: str
    value: str
    runs: int
    path: str
    """The list without it."""


def excluded(database: sqlite3.Connection, query: Query, now: datetime) -> list[Excluded]:
    """Return what would be found without each filter by itself, the most first: for a list in which nothing is.

    Raises as SQLite does.
    """
    found = []
    for name, value in query.filters.items():
        left = {key: each for key, each in query.given.items() if key != name}
        runs = sum(count(database, wanted_in(left, now, COUNTED_MAX), now).values())
        if runs:
            found.append(Excluded(name, value, runs, query.with_(**{name: ""})))
    return sorted(found, key=lambda each: -each.runs)


class Rows:
    """Rows as HTML, kept as long as they are the same."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self._kept: OrderedDict[str, tuple[IndexRow, date, float, Markup]] = OrderedDict()
        self._medians: dict[str, float] = {}
        self._read_at = -_FIGURES_S
        self.made = 0
        """How many were made."""

    def html(self, row: IndexRow) -> Markup:
        """Return a row as HTML."""
        run, today = row.summary.run, datetime.now(UTC).astimezone().date()
        median = self._medians.get(row.summary.flow, 0.0)
        kept = self._kept.get(run)
        if kept is not None and kept[:3] == (row, today, median):
            return kept[3]
        self.made += 1
        html = self._rendering.macro("runs_row.html", "row", row=row, share=share_of(row, median), median=median)
        self._kept[run] = (row, today, median, html)
        self._kept.move_to_end(run)
        while len(self._kept) > ROWS_KEPT:
            self._kept.popitem(last=False)
        return html

    def look(self, database: sqlite3.Connection | None) -> None:
        """Read how long runs of each flow take, if it was long ago. Raises as SQLite does."""
        now = time.monotonic()
        if database is not None and now - self._read_at >= _FIGURES_S:
            self._read_at = now
            self._medians = {each.flow: each.p50_s for each in flow_figures(database) if each.p50_s}


def share_of(row: IndexRow, median_s: float) -> float | None:
    """Return how long a run took for its flow, from 0 to 1: the median is half; None where nothing is known of it."""
    begin, end = row.summary.started_at, row.summary.ended_at
    if begin is None or end is None or not median_s:
        return None
    took_s = max((end - begin).total_seconds(), 0.0)
    return min(took_s / (2 * median_s), 1.0)


def last_at(rows: Sequence[IndexRow]) -> float:
    """Return when the last of what these rows say was stored (Unix time); 0 without any."""
    return max((at for row in rows for at in _times(row)), default=0.0)


def first_after(rows: Sequence[IndexRow], at_s: float) -> float:
    """Return when the first of it was stored after this."""
    return min((at for row in rows for at in _times(row) if at > at_s), default=at_s)


def _times(row: IndexRow) -> list[float]:
    """Return when it began and ended, as far as it has."""
    return [at.timestamp() for at in (row.summary.started_at, row.summary.ended_at) if at is not None]
