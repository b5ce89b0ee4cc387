"""When a schedule comes: in words, and its next times. As the broker reads it: seconds first, in UTC. Pure.

Source: ADR-51 (https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-51.md): six fields, or
`@hourly` and its like, or `@every 5m`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

_NAMED = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_FIELDS = 6
_EVERY = "@every "
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_SPAN_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_YEARS_MAX = 8
"""How far the next time is looked for: 29 February comes within eight years."""


class Cron(Struct, frozen=True, kw_only=True):
    """A schedule that was read: which values each field allows."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    """From 0 for Sunday to 6."""
    any_day: bool
    any_weekday: bool
    """Whether these were left open: where neither is, one of both is enough."""

    def fits_day(self, at: datetime) -> bool:
        """Say whether it comes on a day."""
        if at.month not in self.months:
            return False
        day, weekday = at.day in self.days, at.isoweekday() % 7 in self.weekdays
        return (day and weekday) if self.any_day or self.any_weekday else (day or weekday)


def read_cron(text: str) -> Cron | None:
    """Return a schedule as the broker reads it; None for what is no cron, or none that is known here."""
    fields = _NAMED.get(text.strip().lower(), text).split()
    if len(fields) != _FIELDS:
        return None
    try:
        seconds, minutes, hours, days, months, weekdays = (
            _values(field, low, high, names)
            for field, (low, high), names in zip(fields, _BOUNDS, ((), (), (), (), _MONTHS, _DAYS), strict=True)
        )
    except ValueError:
        return None
    return Cron(
        seconds=seconds,
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=tuple(sorted({day % 7 for day in weekdays})),
        any_day=fields[3][0] in "*?",
        any_weekday=fields[5][0] in "*?",
    )


def every_s(text: str) -> float | None:
    """Return how often `@every 1h30m` comes, in seconds; None for what is none."""
    if not text.startswith(_EVERY):
        return None
    span = text.removeprefix(_EVERY).strip()
    parts = _SPAN.findall(span)
    if not parts or "".join(number + unit for number, unit in parts) != span:
        return None
    return sum(float(number) * _SPAN_S[unit] for number, unit in parts)


def next_times(text: str, after: datetime, count: int, first: datetime | None = None) -> list[datetime]:
    """Return the next times at which a schedule comes after one, in UTC, as many as are asked for, or fewer.

    `first` is the next one as the broker says it: from which `@every` is counted.
    """
    if (span_s := every_s(text)) is not None:
        if first is None or span_s <= 0:
            return []
        return [first + timedelta(seconds=span_s * number) for number in range(count)]
    cron = read_cron(text)
    found: list[datetime] = []
    at: datetime | None = after
    while cron is not None and at is not None and len(found) < count:
        at = _next(cron, at)
        if at is not None:
            found.append(at)
    return found


def cron_in_words(text: str) -> str:
    """Return when a schedule comes, for people: `each day at 06:00 UTC`; the schedule itself where words fail."""
    if (span_s := every_s(text)) is not None:
        return f"every {_span(span_s)}"
    cron = read_cron(text)
    if cron is None:
        return text
    when = _time_of_day(cron)
    if when is None:
        return text
    return " ".join(part for part in (when, _days_of(cron), _months_of(cron)) if part)


def _values(field: str, low: int, high: int, names: Sequence[str]) -> tuple[int, ...]:
    """Return what a field allows. Raises `ValueError`."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        by = int(step) if slash else 1
        if by < 1:
            raise ValueError(field)
        if span in ("*", "?"):
            first, last = low, high if high != _BOUNDS[5][1] else 6
        else:
            begin, dash, end = span.partition("-")
            first = _value(begin, names, low)
            last = _value(end, names, low) if dash else high if slash else first
        if not low <= first <= last <= high:
            raise ValueError(field)
        found.update(range(first, last + 1, by))
    return tuple(sorted(found))


def _value(text: str, names: Sequence[str], low: int) -> int:
    name = text.lower()[:3]
    return names.index(name) + low if name in names else int(text)


def _next(cron: Cron, after: datetime) -> datetime | None:
    """Return the first time after one."""
    at = after.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    until = at.year + _YEARS_MAX
    while at.year <= until:
        if not cron.fits_day(at):
            at = (at + timedelta(days=1)).replace(hour=0, minute=0, second=0)
        elif at.hour not in cron.hours:
            at = (at + timedelta(hours=1)).replace(minute=0, second=0)
        elif at.minute not in cron.minutes:
            at = (at + timedelta(minutes=1)).replace(second=0)
        elif at.second not in cron.seconds:
            at += timedelta(seconds=1)
        else:
            return at
    return None


def _time_of_day(cron: Cron) -> str | None:
    """Return when on a day; None for what has no words."""
    seconds, minutes, hours = cron.seconds, cron.minutes, cron.hours
    all_hours, all_minutes = len(hours) == 24, len(minutes) == 60
    if len(seconds) == 60 and all_minutes and all_hours:
        return "every second"
    if all_minutes and all_hours:
        return f"every {step} s" if (step := _step(seconds, 60)) else _at("each minute", seconds, "second")
    if len(seconds) != 1:
        return None
    second = f":{seconds[0]:02}" if seconds[0] else ""
    if all_hours:
        step = _step(minutes, 60)
        if minutes == (0,) and not second:
            return "every hour"
        return f"every {step} min" if step and not second else _at("each hour", minutes, "minute") + second
    if len(minutes) == 1:
        if (step := _step(hours, 24)) and not minutes[0] and not second:
            return f"every {step} h"
        return "at " + _listed([f"{hour:02}:{minutes[0]:02}{second}" for hour in hours]) + " UTC"
    return None


def _at(each: str, values: Sequence[int], unit: str) -> str:
    return f"{each} at {unit}{'s' if len(values) > 1 else ''} {_listed([str(value) for value in values])}"


def _step(values: Sequence[int], whole: int) -> int:
    """Return the step by which values go from 0 to the end; 0 when they do not."""
    step = values[1] - values[0] if len(values) > 1 else 0
    return step if step and whole % step == 0 and tuple(values) == tuple(range(0, whole, step)) else 0


def _days_of(cron: Cron) -> str:
    weekdays = "" if len(cron.weekdays) == 7 else _weekdays(cron.weekdays)
    days = "" if len(cron.days) == 31 else "on day " + _listed([str(day) for day in cron.days])
    if weekdays and days:
        return f"{days}, or on {weekdays}" if not (cron.any_day or cron.any_weekday) else f"{days}, on {weekdays}"
    if weekdays:
        return f"on {weekdays}"
    if days:
        return f"{days} of {'the month' if len(cron.months) != 12 else 'each month'}"
    return "each day" if len(cron.hours) < 24 and not _step(cron.hours, 24) else ""


def _weekdays(days: Sequence[int]) -> str:
    if tuple(days) == (1, 2, 3, 4, 5):
        return "working days (Monday to Friday)"
    if tuple(days) == (0, 6):
        return "Saturdays and Sundays"
    return _listed([f"{_DAY_NAMES[day]}s" for day in days])


def _months_of(cron: Cron) -> str:
    return "" if len(cron.months) == 12 else "in " + _listed([_MONTH_NAMES[month - 1] for month in cron.months])


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _span(seconds: float) -> str:
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
