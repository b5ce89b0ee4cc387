"""The messages of a log as people see them: a line each, with the time since the run began. Pure."""

from __future__ import annotations

from datetime import datetime

from rich.table import Table
from rich.text import Text

from baton_schemas.run.state import Entry
from baton_schemas.show.lines import one_line

_KINDS = {
    "handoff": "cyan",
    "reply": "cyan",
    "answer": "cyan",
    "outcome": "green",
    "note": "yellow",
    "parked": "yellow",
    "say": "yellow",
    "result": "bold",
    "unknown": "red",
}
_OFFSET_WIDE = len("   1      +0.000 s  ")
"""Columns of the number and the time of a message in a log."""


def log_line(entry: Entry, started_at: datetime, number: int = 0) -> Text:
    """Return one message of a log with the time since the run began, and its `number` in the run if it is not 0."""
    kind, _, rest = one_line(entry).partition(" ")
    offset_s = (entry.at - started_at).total_seconds()
    before = f"{number:>4}  " if number else ""
    return Text.assemble(before, (f"{offset_s:+10.3f} s  ", "dim"), (kind, _KINDS.get(kind, "")), " " + rest)


def log_rows(entry: Entry, started_at: datetime, number: int) -> Table:
    """Return the same for a terminal: what is too long for a line goes on below where it began."""
    before, after = log_line(entry, started_at, number).divide([_OFFSET_WIDE])
    table = Table.grid()
    table.add_column(width=_OFFSET_WIDE, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(before, after)
    return table
