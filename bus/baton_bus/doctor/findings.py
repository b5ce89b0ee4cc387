"""What the doctor finds, and how it words spans of time and sizes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "note", "warning", "error"]
"""Nothing to do; worth knowing; something can be lost or stands still; something is lost or refused."""


class Finding(Struct, frozen=True):
    """What was looked at, what it says, and what to do about it."""

    level: Level
    what: str
    says: str
    advice: str = ""


def span(seconds: float) -> str:
    """Return a span of time in the unit that people would use."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def size(size_bytes: int) -> str:
    """Return a size in the unit that people would use."""
    for unit, length in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= length:
            return f"{size_bytes / length:.3g} {unit}"
    return f"{size_bytes} bytes"
