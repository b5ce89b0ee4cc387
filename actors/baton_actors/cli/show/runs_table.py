"""Runs as a list: a line each, with how it stands, whom it waits for, and what went in or why it failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from baton_actors.cli.show.console import MARKS
from baton_actors.cli.show.costs import cost_of
from baton_actors.cli.show.run_page import elapsed_of
from baton_actors.cli.text import plain
from baton_schemas.show.summary import Summary, standing_of

_STANDING_WIDE = 24
"""Columns of how a run stands in a list of runs."""
_WIDE = 110
"""Columns from which on there is room for more than fits 80."""


def runs_table(summaries: Sequence[Summary], now: datetime, width: int = 80) -> Table:
    """Return runs, one a line; it fits 80 columns. Where there are many more, steps and input are told too."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    # These two give way when the others need room, as in `steps_table`.
    table.add_column(Text("  run", no_wrap=True), min_width=12)
    table.add_column(Text("flow", no_wrap=True), max_width=20)
    table.add_column("status", no_wrap=True, max_width=_STANDING_WIDE)
    if wide := width >= _WIDE:
        table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("started", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    if wide:
        table.add_column("input, or what broke it", no_wrap=True, ratio=1)
    for summary in summaries:
        mark, style = MARKS[summary.status]
        cells = [
            Text.assemble((f"{mark} ", style), plain(summary.run), no_wrap=True, overflow="ellipsis"),
            Text(plain(summary.flow), no_wrap=True, overflow="ellipsis"),
            Text(
                plain(standing_of(summary)),
                style="" if summary.status == "done" else style,
                no_wrap=True,
                overflow="ellipsis",
            ),
            Text(_when(summary.started_at, now), style="dim"),
            Text(elapsed_of(summary, now), style="dim"),
            Text(cost_of(summary), style="yellow" if summary.rehearsed else ""),
        ]
        if wide:
            cells.insert(3, Text(f"{summary.steps_done}/{summary.steps}", "dim"))
            said = Text(plain(summary.error or summary.input), "red" if summary.status == "failed" else "dim")
            said.no_wrap, said.overflow = True, "ellipsis"
            cells.append(said)
        table.add_row(*cells)
    return table


def _when(at: datetime | None, now: datetime) -> str:
    """Return the time of a day that is today, else the day, as the user's clock has it."""
    if at is None:
        return ""
    local = at.astimezone()
    return local.strftime("%H:%M" if local.date() == now.astimezone().date() else "%d %b")
