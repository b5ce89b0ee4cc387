"""All runs: what happens now, and one to be found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from textual.widget import Widget

from baton_actors.console.listing import (
    COUNTED_MAX,
    Excluded,
    Query,
    command_of,
    excluded,
    last_at,
    wanted_in,
)
from baton_actors.console.words import between, clock
from baton_bus.index import file as files
from baton_bus.index.counting import counts
from baton_bus.index.finding import Wanted, count, find
from baton_bus.index.row import IndexRow
from baton_bus.index.using import find_runs
from baton_schemas.show.cause import Cause
from baton_schemas.show.costs import cost_of
from baton_schemas.show.summary import Summary, standing_of

from .drawn import one, ticking
from .looking import ERRORS
from .palette import Cell, Palette, mark, state_of, words
from .rows import Column, Row, Rows
from .view import View

if TYPE_CHECKING:
    from baton_actors.console.core import Console

_SHOWN, _SHOWN_MAX = 100, 2_000
"""Rows at first, and at most: more are looked for when one comes to their end."""
_LOG_EVERY_S = 2.0
"""So often the log is read where there is no index yet: each time takes a part of a second or more."""
_NAMES = ("status", "flow", "since", "until", "sort", "of", "waiting", "order")
_STATUSES = ("running", "failed", "expired", "cancelled", "done")
_STRIP_MAX = 12
_ID_WIDE = 9

COLUMNS = (
    Column(title="  run", wide=2 + _ID_WIDE + 1, until_wide=150),
    Column(title="  run", wide=28, from_wide=150),
    Column(title="flow", wide=10, until_wide=100),
    Column(title="flow", wide=16, from_wide=100),
    Column(title="status", wide=10, until_wide=100),
    Column(title="status", wide=16, from_wide=100),
    Column(title="steps", wide=_STRIP_MAX + 1, from_wide=90),
    Column(title="started", wide=8, from_wide=110, until_wide=150),
    Column(title="started", wide=12, from_wide=150),
    Column(title="time", wide=10, right=True),
    Column(title="cost", wide=9, right=True),
    Column(title="again", wide=5, right=True, from_wide=140),
    Column(title="input, or what broke it", wide=10, grows=True),
)


class Listed(Struct, frozen=True, kw_only=True):
    """What the list shows."""

    rows: list[IndexRow]
    by_status: dict[str, int]
    why_none: list[Excluded]
    has_index: bool


def given_in(text: str) -> dict[str, str]:
    """Return what a search asks for: `name=value` for what the list can be filtered by, all else are words."""
    given: dict[str, str] = {}
    sought: list[str] = []
    for word in text.split():
        name, equals, value = word.partition("=")
        if equals and name in _NAMES and value:
            given[name] = value
        else:
            sought.append(word)
    return given | ({"text": " ".join(sought)} if sought else {})


class RunsView(View):
    """The list of runs."""

    here = "runs"
    hint = "words of inputs, outputs and errors, or status=failed flow=… since=1h sort=cost"

    def __init__(self, console: Console, palette: Palette, cause: Cause | None = None) -> None:
        """With a `cause`, those that failed for it."""
        super().__init__(console, palette)
        self.cause = cause
        self.limit = _SHOWN
        self.query_ = Query({})
        self.command = "baton runs"
        self._by_log: tuple[float, Wanted, list[IndexRow]] | None = None

    def body(self) -> Sequence[Widget]:
        """Return the table."""
        self.table = Rows(COLUMNS, self.palette, id="runs")
        return [self.table]

    async def look(self) -> Listed:
        """Return the runs that are wanted."""
        now = datetime.now(UTC)
        wanted = wanted_in(self.query_.given, now, self.limit)
        if self.cause is not None:
            wanted = replace(wanted, cause=self.cause.key)
        database, reach = self.console.index.database, self.console.index.reach()
        if database is None or reach is None or not reach.high_seq:  # nothing is in it yet
            return Listed(rows=await self._of_log(wanted, now), by_status={}, why_none=[], has_index=False)
        with files.told(self.console.index.path):
            rows = find(database, wanted, now)
            if wanted.text or wanted.until or wanted.waiting or wanted.parent or wanted.cause:
                by_status: dict[str, int] = dict(count(database, replace(wanted, statuses=(), limit=COUNTED_MAX), now))
            else:
                by_status = counts(database, since=wanted.since, flow=wanted.flow).by_status
            why_none = excluded(database, self.query_, now) if not rows and self.query_.filters else []
        return Listed(rows=rows, by_status=by_status, why_none=why_none, has_index=True)

    def paint(self, facts: Listed) -> None:
        """Show them."""
        now = datetime.now(UTC)
        chips = [
            each
            for status in _STATUSES
            if facts.by_status.get(status)
            for each in ((f"  {facts.by_status[status]:,} ", "bold"), words(status, status))
        ]
        of = f" that failed with {self.cause.type}" if self.cause is not None else ""
        sought = [("  /", "dim"), (self.sought, "bold")] if self.sought else []
        self.entitle((f"Runs{of}", "bold"), *chips, *sought)
        self.put("said", self._empty(facts) if not facts.rows else [])
        self.every_s = 1.0 if any(row.summary.status == "running" for row in facts.rows) else 10.0
        if not facts.has_index:
            self.every_s = _LOG_EVERY_S
        self.table.show([_row(row.summary, now) for row in facts.rows])
        self.stored(last_at(facts.rows))

    def found(self, text: str) -> None:
        """Filter by this."""
        self.query_ = Query(given_in(text))
        self.command = command_of(self.query_.given)
        self.limit = _SHOWN
        self.table.follow()
        self.again()

    async def action_failure(self, by: int) -> None:
        """Go to the next failure: one that is further back than what is shown is looked for."""
        if by > 0 and self.limit < _SHOWN_MAX and not any(row.failed for row in self.table.rows[self.table.at + 1 :]):
            self.limit = _SHOWN_MAX
            with contextlib.suppress(*ERRORS):
                self.paint(await self.look())
        await super().action_failure(by)

    def act_run(self) -> str:
        """Return the chosen run."""
        return self.table.chosen

    def opened(self, key: str) -> None:
        """Go into a run."""
        from .run_view import RunView

        self.app.push_screen(RunView(self.console, self.palette, key))

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Look for more where one comes to the end of what is there."""
        event.stop()
        if self.table.at >= self.limit - 10 and self.limit < _SHOWN_MAX:
            self.limit = min(self.limit + _SHOWN, _SHOWN_MAX)
            self.again()

    async def _of_log(self, wanted: Wanted, now: datetime) -> list[IndexRow]:
        """Return what the log says, while there is no index."""
        kept = self._by_log
        if kept is None or kept[1] != wanted or time.monotonic() - kept[0] > _LOG_EVERY_S:
            rows = (await find_runs(self.console.bus, wanted, None, now)).rows
            self._by_log = kept = (time.monotonic(), wanted, rows)
        return kept[2]

    def _empty(self, facts: Listed) -> list[Cell]:
        """Say why nothing is there, and what to do next."""
        if facts.why_none:
            without = [one(f"without {each.name}={each.value}: {each.runs:,}") for each in facts.why_none]
            return [one("Nothing fits. / changes what is sought, Esc takes it away."), *without]
        if self.query_.filters or self.cause is not None:
            return [one("Nothing fits. / changes what is sought, Esc takes it away.")]
        where = f" {self.console.options.where}" if self.console.options.where else ""
        made = [] if facts.has_index else [one(f"The index is being made: {self.console.index.why}", "dim")]
        return [
            one("No runs yet. In another terminal, this makes one:"),
            one(f'  baton run ask question="What is a bus?"{where}', "bold"),
            one("Without ANTHROPIC_API_KEY it is rehearsed: no model is called, and nothing is paid.", "dim"),
            *made,
        ]


def _row(summary: Summary, now: datetime) -> Row:
    took = between(summary.started_at, summary.ended_at or now)
    failed = summary.status in ("failed", "expired")
    short = summary.run if len(summary.run) <= _ID_WIDE else "…" + summary.run[-_ID_WIDE + 1 :]
    status = (*one(standing_of(summary), state_of(summary.status)),)
    said = one(summary.error, "failed" if failed else "dim") if summary.error else one(summary.input, "dim")
    cost = one(cost_of(summary), "dim" if summary.rehearsed else "")
    again = one(f"↻{summary.retries:,}", "mind") if summary.retries else ()
    flow, started = one(summary.flow), one(clock(summary.started_at), "dim")
    return Row(
        key=summary.run,
        cells=(
            (mark(summary.status), (" ", ""), *one(short)),
            (mark(summary.status), (" ", ""), *one(summary.run)),
            flow,
            flow,
            status,
            status,
            _strip(summary),
            started,
            started,
            one(ticking(took, is_open=summary.ended_at is None), "dim"),
            cost,
            again,
            said,
        ),
        failed=failed,
    )


def _strip(summary: Summary) -> Cell:
    """Return a mark for each step."""
    marks = [
        ("✗", "mark.failed") if cell.failed and cell.status != "done" else mark(cell.status)
        for cell in summary.cells[:_STRIP_MAX]
    ]
    return (*marks, *([("…", "dim")] if len(summary.cells) > _STRIP_MAX else []))
