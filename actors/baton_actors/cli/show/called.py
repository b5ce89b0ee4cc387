"""What people call the rows of children, and what is said of them beside what is of any step. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace
from rich.text import Text

from baton_actors.cli.text import plain
from baton_schemas.show.rows import Row
from baton_schemas.wire.outcomes import Error

NAMES_WIDE = 32
"""Columns that the names of children may claim at most."""
_INDENT_MAX, _DEEP = 12, 3
"""Columns of an indent; it is two for each level where there are up to so many levels, and one where there are more."""


def called(row: Row) -> str:
    """Return what people call a row: `researcher #3`; how many it stands for if it does."""
    if not row.depth:
        return row.step
    if row.count:
        return f"{row.step} \N{MULTIPLICATION SIGN}{row.count:,}"
    return _spaced(row.step)


def indent(row: Row, deepest: int) -> str:
    """Return what stands before the row of a child: the deeper it is asked, the more, up to half a narrow table."""
    return " " * min(row.depth * (2 if deepest <= _DEEP else 1), _INDENT_MAX)


def asked_text(row: Row, before: str) -> tuple[str, str]:
    """Return what a child was asked, behind `before`, and its style; nothing where that is not known."""
    return (before + plain(row.asked), "dim") if row.asked else ("", "")


def counted(row: Row) -> str:
    """Return how many children of a row are done, and how the others stand; those that failed are told beside."""
    done, left = row.ended - row.failed, row.count - row.ended
    left_as = row.status if row.status in ("queued", "running", "dropped") else "dropped"
    parts = [f"{done:,} done" if done or not (left or row.failed) else "", f"{left:,} {left_as}" if left else ""]
    return ", ".join(part for part in parts if part)


def error_of_child(error: Error, row: Row) -> Error:
    """Return the error of a child with what people call it in place of its name in the log."""
    return replace(error, step=_spaced(row.error_of)) if row.error_of else error


def _spaced(written: str) -> str:
    """Return `researcher #3` for `researcher#3`."""
    name, _, number = written.rpartition("#")
    return f"{name} #{number}" if name else written


def unasked_of(rows: Iterable[Row]) -> list[Text]:
    """Return a line for each step that asked for something once and, done again, does not ask for it now."""
    return [
        Text.assemble(("! ", "yellow"), (plain(called(row)), "bold"), f"  asked before, and not now: {row.unasked:,}")
        for row in rows
        if row.unasked
    ]
