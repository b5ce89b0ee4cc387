"""What is said of a row of the steps in a few words: in the box of a graph, or in a column. Pure."""

from __future__ import annotations

from .lines import seconds
from .rows import Row

_OPEN = frozenset({"queued", "running"})


def called(row: Row) -> str:
    """Return what people call a row: `researcher #3`; how many it stands for if it does."""
    if not row.depth:
        return row.step
    if row.count:
        return f"{row.step} \N{MULTIPLICATION SIGN}{row.count:,}"
    name, _, number = row.step.rpartition("#")
    return f"{name} #{number}" if name else row.step


def status_in_words(row: Row) -> str:
    """Return how a row stands: its status, or what it waits for, with what is odd of it."""
    text: str = row.status
    if row.count:
        text = f"{row.ended:,} of {row.count:,}"
        if row.status not in ("done", "running", "queued"):
            text = f"{row.status}, {text}"
    if row.status == "joining":
        text = f"waits, {row.arrived:,} of {row.expected:,}"
    if row.waits and row.status in _OPEN:
        who = f"{row.waiting:,} wait for" if row.waiting > 1 else "waits for"
        text = f"{text} · {who} {row.waits}" if row.count else f"{who} {row.waits}"
    elif row.awaits and row.status in _OPEN and not row.count:
        text = f"asks {row.awaits}"
    notes: list[str] = []
    if row.failed and (row.count or row.depth):
        notes.append(f"{row.failed:,} failed")
    if row.reused:
        notes.append(f"{row.reused:,} reused" if row.reused < row.count else "reused")
    if row.truncated:
        notes.append("cut off")
    return " · ".join([text, *notes])


def facts_in_words(row: Row) -> str:
    """Return one line of facts for a box: how far a fan-out is, what a step waits for, or what it took."""
    if row.count or row.status in ("waiting", "joining", "skipped", "dropped") or row.waits or row.awaits:
        return status_in_words(row)
    parts: list[str] = [row.status] if row.status != "done" else []
    if row.status not in _OPEN and row.elapsed_s is not None:
        parts.append(seconds(row.elapsed_s))
    if row.attempts > 1:
        parts.append(f"{row.attempts} tries")
    if row.reused:
        parts.append("reused")
    elif row.rehearsed:
        parts.append("rehearsed")
    elif row.cost_usd:
        parts.append(f"${row.cost_usd:.4f}" if row.cost_usd < 1 else f"${row.cost_usd:,.2f}")
    return " · ".join(parts) or row.status
