"""Words of the pages: times, sums, marks and shapes, the same as the commands use. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from baton_schemas.show.errors import told
from baton_schemas.show.excerpt import size
from baton_schemas.show.lines import seconds
from baton_schemas.show.marks import MARKS
from baton_schemas.show.row_words import called, facts_in_words, status_in_words
from baton_schemas.wire.money import shown_usd

CLASSES = {
    "queued": "waiting",
    "joining": "running",
    "skipped": "stopped",
    "dropped": "stopped",
    "cancelled": "stopped",
    "expired": "stopped",
}
"""The classes of colours that statuses share."""
_BRANCH_MARKS = {"retry": "\N{CLOCKWISE OPEN CIRCLE ARROW}", "stopped": MARKS["dropped"]}
_SMALLEST_USD = 0.0001
_SHAPELESS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SIGNS = {chr(code): chr(0x2400 + code) for code in range(0x20)} | {"\x7f": "\u2421"}
"""Unicode has a picture of each control character of ASCII."""


def mark(status: str) -> str:
    """Return the sign of a status."""
    return MARKS.get(status) or _BRANCH_MARKS.get(status, MARKS["waiting"])


def css(status: str) -> str:
    """Return the class of a status."""
    return CLASSES.get(status, status)


def took(value: float | None) -> str:
    """Return a length of time: `4.2 s`, `3 min 10 s`; nothing where there is none."""
    return seconds(value) if value is not None else ""


def between(begin: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds from one time to another; None where one is not known."""
    return max((end - begin).total_seconds(), 0.0) if begin is not None and end is not None else None


def dollars(value: float | None) -> str:
    """Return a sum: `$0.0123`; nothing where there is none."""
    if value is None:
        return ""
    if value == 0:
        return "$0"
    if 0 < value < _SMALLEST_USD:
        return "<$0.0001"
    return f"${value:,.4f}" if value < 1 else f"${value:,.2f}"


def number(value: float | None) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}" if value is not None else ""


def clock(at: datetime | None) -> str:
    """Return a time of day that is today, else with its day, by the clock of this machine."""
    if at is None:
        return ""
    local = at.astimezone()
    today = datetime.now(UTC).astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%d %b %H:%M}"


def iso(at: datetime | None) -> str:
    """Return a time as machines read it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds") if at is not None else ""


def unix_us(value: int) -> datetime | None:
    """Return a time that is given in microseconds of Unix time; None for one that is none."""
    try:
        return datetime.fromtimestamp(value / 1e6, UTC) if value else None
    except (OverflowError, ValueError, OSError):
        return None


def in_url(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")


def visible(value: Any) -> Any:
    """Return a text with a sign in place of what has no shape or changes that of others: nothing hides in a page.

    These are control characters, those that turn the direction of a line, and halves of characters. What is no text,
    and what was made safe already, stays as it is.
    """
    if not isinstance(value, str) or hasattr(value, "__html__") or not _SHAPELESS.search(value):
        return value
    return _SHAPELESS.sub(lambda found: _SIGNS.get(found[0], "\N{REPLACEMENT CHARACTER}"), value)


def pretty(value: Any) -> str:
    """Return a value as JSON that people can read, the text of a JSON string, or the text that it is."""
    if isinstance(value, Raw):
        data = bytes(value)
        try:
            decoded = msgspec.json.decode(data)
        except (ValueError, RecursionError):
            return data.decode(errors="replace")
        return decoded if isinstance(decoded, str) else msgspec.json.format(data, indent=2).decode(errors="replace")
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def cut(text: str, wide: int) -> str:
    """Return a text, or its beginning with an ellipsis where it is wider than so many characters."""
    return text if len(text) <= wide else text[: wide - 1] + "…"


def as_json(value: Any) -> str:
    """Return a value as JSON on one line: text, which is escaped as any text is."""
    return msgspec.json.encode(value).decode()


FILTERS = {
    "mark": mark,
    "css": css,
    "took": took,
    "dollars": dollars,
    "usd": shown_usd,
    "number": number,
    "clock": clock,
    "iso": iso,
    "unix_us": unix_us,
    "in_url": in_url,
    "pretty": pretty,
    "cut": cut,
    "as_json": as_json,
    "called": called,
    "facts_of": facts_in_words,
    "status_of": status_in_words,
    "told": told,
    "size": size,
}
