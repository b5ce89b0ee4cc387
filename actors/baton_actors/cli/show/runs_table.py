"""Runs as a list: a line each, with how it stands and whom it waits for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from baton_actors.cli.show.console import MARKS
from baton_actors.cli.show.costs import cost_of
from baton_actors.cli.show.people import open_roles
from baton_actors.cli.show.run_page import elapsed_of
from baton_actors.cli.text import plain
from baton_schemas.run.state import RunState

_STANDING_WIDE = 24
"""Columns of how a run stands in a list of runs."""


def runs_table(states: Sequence[RunState], now: datetime) -> Table:
    """Return runs, one a line; it fits 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    # These two give way when the others need room, as in `steps_table`.
    table.add_column(Text("  run", no_wrap=True), min_width=12)
    table.add_column(Text("flow", no_wrap=True), max_width=20)
    table.add_column("status", no_wrap=True, max_width=_STANDING_WIDE)
    table.add_column("started", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    for state in states:
        mark, style = MARKS[state.status]
        table.add_row(
            Text.assemble((f"{mark} ", style), plain(state.run), no_wrap=True, overflow="ellipsis"),
            Text(plain(state.flow), no_wrap=True, overflow="ellipsis"),
            Text(_standing(state), style="" if state.status == "done" else style, no_wrap=True, overflow="ellipsis"),
            Text(_when(state.started_at, now), style="dim"),
            Text(elapsed_of(state, now), style="dim"),
            Text(cost_of(state), style="yellow" if state.rehearsed else ""),
        )
    return table


def _standing(state: RunState) -> str:
    """Return how a run stands, in a few words: also whom it waits for."""
    roles = open_roles(state)
    if not roles:
        return state.status
    return f"waits for {plain(roles[0])}" + (f" and {len(roles) - 1} more" if len(roles) > 1 else "")


def _when(at: datetime | None, now: datetime) -> str:
    """Return the time of a day that is today, else the day, as the user's clock has it."""
    if at is None:
        return ""
    local = at.astimezone()
    return local.strftime("%H:%M" if local.date() == now.astimezone().date() else "%d %b")
