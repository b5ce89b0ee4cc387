"""Times as people write and read them: `2026-11-25T06:00`, `+10m`, `18:30`. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from baton_schemas.errors import SchemaError

_SPAN = re.compile(r"\+(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\Z")


class BadTime(SchemaError):
    """A time cannot be read, or is past."""

    def __init__(self, text: str, reason: str) -> None:
        """`text` as it was given; `reason` says what was expected."""
        self.text, self.reason = text, reason
        super().__init__(f"the time {text!r} {reason}")


def read_time(text: str, now: datetime) -> datetime:
    """Return the time to come that is meant: ISO 8601, local unless it names a zone, or `+1h30m` from now.

    Raises `BadTime`.
    """
    try:
        if span := _SPAN.match(text):
            days, hours, minutes, seconds = (int(part or 0) for part in span.groups())
            at = now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        else:
            at = datetime.fromisoformat(text).astimezone(now.tzinfo)
    except (ValueError, OverflowError) as error:
        known = "2026-11-25T06:00 (local), 2026-11-25T06:00Z (UTC), or +10m, +2h, +1d from now"
        raise BadTime(text, f"cannot be read. Expected {known}") from error
    if at <= now:
        raise BadTime(text, f"is past: it is {now.astimezone():%Y-%m-%d %H:%M:%S} here. `baton submit` starts it now")
    return at


def read_age(text: str) -> timedelta:
    """Return how long ago is meant: `30d`, `12h`, `1d12h`, `90m`. Raises `BadTime`."""
    span = _SPAN.match(f"+{text.removeprefix('+')}")
    try:
        days, hours, minutes, seconds = (int(part or 0) for part in span.groups()) if span else (0, 0, 0, 0)
        age = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        age = timedelta()
    if not age and text != "0s":
        raise BadTime(text, "cannot be read as an age. Expected 30d, 12h, 90m, or 1d12h")
    return age


def read_since(text: str, now: datetime) -> datetime:
    """Return the time that is meant: an age, or a day or time in UTC unless it names a zone. Raises `BadTime`."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - read_age(text)
        except (BadTime, OverflowError) as error:
            raise BadTime(text, "cannot be read. Expected 7d, 12h, or a day as 2026-11-25 (UTC)") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def short_time(at: datetime, now: datetime) -> str:
    """Return a time as the user's clock has it: with its day if that is not today, with its year if not this one."""
    local, here = at.astimezone(), now.astimezone()
    if local.date() == here.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%d %b %H:%M}" if local.year == here.year else f"{local:%d %b %Y %H:%M}"
