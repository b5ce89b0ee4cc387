"""Where in a TOML text a key stands. The parser of the standard library does not say."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BARE = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_PART = re.compile(_BARE)
_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(rf"\s*({_BARE}(?:\s*\.\s*{_BARE})*)\s*=")
_FENCE = re.compile(r'"""|\'\'\'')


def line_of(text: str, place: str, near: str = "") -> int | None:
    """Return the line (from 1) of a key path such as `steps.write.after[0]`, or None.

    A path that is not written out (a key that is missing, one in an inline table) has the line of the
    nearest part of it that is. With `near` it is the first line of its value that has this text in it.
    """
    lines = _lines(text)
    parts = tuple(re.sub(r"\[\d+\]$", "", place).split("."))
    for length in range(len(parts), 0, -1):
        if parts[:length] in lines:
            return _with(text, lines[parts[:length]], _next(lines.values(), lines[parts[:length]]), near)
    return None


def _with(text: str, first: int, end: int | None, near: str) -> int:
    """Return the first of these lines that has `near` in it; `first` if none has, or if nothing is looked for."""
    value = text.splitlines()[first - 1 : end - 1 if end is not None else None]
    return next((number for number, line in enumerate(value, first) if near in line), first)


def _next(lines: Iterable[int], first: int) -> int | None:
    """Return the line of the next key or table after a line, None when there is none."""
    return min((line for line in lines if line > first), default=None)


def _lines(text: str) -> dict[tuple[str, ...], int]:
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        inside = fence
        for mark in _FENCE.findall(line):
            fence = mark if not fence else "" if mark == fence else fence
        if inside:
            continue
        if header := _HEADER.match(line):
            table = _parts(header[1])
            for length in range(1, len(table) + 1):
                lines.setdefault(table[:length], number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(key))
