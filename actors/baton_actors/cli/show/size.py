"""How large the log is, in one line. Pure."""

from __future__ import annotations

from baton_bus.client.size import LogSize
from baton_bus.doctor.findings import size


def size_line(log: LogSize, free_bytes: int | None) -> str:
    """Return what the log holds, and of how much: its limit, or what the disk has left, where that is known."""
    messages = f"{log.messages:,} message{'' if log.messages == 1 else 's'}"
    parts = [f"log: {messages}, {size(log.size_bytes)}"]
    if log.limit_bytes is not None and not log.limits_account:
        parts[0] += f" of {size(log.limit_bytes)} ({log.size_bytes / log.limit_bytes:.0%})"
    if log.values_bytes:
        parts.append(f"large values: {size(log.values_bytes)}")
    if log.limit_bytes is not None and log.limits_account:
        parts.append(f"limit of the account: {size(log.limit_bytes)}")
    if free_bytes is not None:
        parts.append(f"{size(free_bytes)} free")
    return " · ".join(parts)
