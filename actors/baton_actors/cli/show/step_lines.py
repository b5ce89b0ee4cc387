"""What is said of steps below their table, a line each: what failed, waits, or was skipped. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from baton_actors.cli.show.called import asked_text, called, error_of_child
from baton_actors.cli.show.console import MARKS
from baton_actors.cli.text import plain
from baton_schemas.show.errors import told
from baton_schemas.show.lines import seconds
from baton_schemas.show.rows import Row
from baton_schemas.wire.outcomes import Error


def errors_of(rows: Iterable[Row]) -> list[Text]:
    """Return a line for each step that failed; of a fan-out, one branch stands for the others."""
    failed = [row for row in rows if row.error and (row.failed or row.status == "failed")]
    return [
        Text.assemble(
            ("✗ ", "red"),
            error_line(error_of_child(row.error, row), row.step),
            _others(row),
        )
        for row in failed
        if row.error
    ]


def error_line(error: Error, step: str = "") -> Text:
    """Return what went wrong in which step; `step` is for an error that names none."""
    said = plain(f"  {told(error)}")
    return Text.assemble((plain(error.step or step), "bold"), said)


def _others(row: Row) -> tuple[str, str]:
    """Return how many branches failed besides the one whose error is shown."""
    return (f"  and {row.failed - 1:,} more", "dim") if row.failed > 1 else ("", "")


def waits_of(rows: Iterable[Row]) -> list[Text]:
    """Return a line for each step that waits for something outside: the column of its status has not the room."""
    waits = [row for row in rows if row.waits and row.waits_s is None]
    return [
        Text.assemble(("· ", "yellow"), (plain(called(row)), "bold"), f"  {wait_of(row)}", asked_text(row, ": "))
        for row in waits
    ]


def wait_of(row: Row) -> str:
    """Return what a row waits for; of a fan-out, how many branches do."""
    what = plain(row.waits) + (f" in {seconds(row.waits_s)}" if row.waits_s is not None else "")
    return f"{row.waiting:,} wait for {what}" if row.waiting > 1 else f"{'1 ' if row.waiting else ''}waits for {what}"


def skips_of(rows: Iterable[Row]) -> list[Text]:
    """Return a line for each step that was skipped, with the reason: the way that the run did not take."""
    skipped = [row for row in rows if row.status == "skipped" and row.reason]
    return [Text(plain(f"{MARKS['skipped'][0]} {row.step}  skipped: {row.reason}"), "dim") for row in skipped]
