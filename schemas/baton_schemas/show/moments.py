"""Moments a while before or after others: what a stranger wrote may be any number. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def before(at: datetime, elapsed_s: float) -> datetime:
    """Return the time so many seconds earlier; the same one where there is no such time, or it would be later."""
    return after(at, -elapsed_s) if elapsed_s > 0 else at


def after(at: datetime, delay_s: float) -> datetime:
    """Return the time so many seconds later; the same one where there is no such time."""
    try:
        return at + timedelta(seconds=delay_s)
    except (OverflowError, ValueError):
        return at


def since(unix_s: float, earliest: datetime, latest: datetime) -> datetime:
    """Return a time in seconds of Unix time, within these two; the latest for 0, and where there is no such time."""
    try:
        return min(max(datetime.fromtimestamp(unix_s, UTC), earliest), latest) if unix_s else latest
    except (OverflowError, ValueError, OSError):
        return latest
