"""What people see of a run that goes on from another: what of the flow has changed, what is reused and done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from baton_actors.cli.text import plain
from baton_schemas.run.changes import Change
from baton_schemas.show.differ_words import told_change
from baton_schemas.show.rows import Row


def changes_line(file: str, changed: Mapping[str, Sequence[Change]], others: Sequence[str]) -> Text:
    """Return what has changed in the flow of a run since: its agents, and steps that are `others`, in words."""
    parts = [f"agent {name} ({told_change(changes)})" for name, changes in changed.items()]
    parts += [f"step {step}" for step in others]
    what = ", ".join(parts) or "nothing that its steps rest on"
    return Text(plain(f"{file} has changed since: {what}"))


def again_line(again: Mapping[str, str]) -> Text:
    """Return which finished steps are done again, and why."""
    return Text(plain("  does again " + ", ".join(f"{step} ({why})" for step, why in again.items())))


def failed_lines(rows: Sequence[Row]) -> list[Text]:
    """Return a line for each fan-out, and each step, whose failures are done again."""
    lines = []
    for row in rows:
        if row.failed and row.count:
            kept = f"{row.ended - row.failed:,} {'is' if row.ended - row.failed == 1 else 'are'} kept"
            them = "it is" if row.failed == 1 else "they are"
            branches = f"{row.failed:,} of {row.count:,} branches of {row.step} failed"
            lines.append(Text(plain(f"{branches}: {them} done again, {kept}")))
        elif row.status == "failed":
            lines.append(Text(plain(f"{row.step} failed: it is done again")))
    return lines
