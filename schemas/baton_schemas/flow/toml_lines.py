"""Where in a TOML text a key stands. The parser of the standard library does not say."""

from __future__ import annotations

import re

_BARE = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_PART = re.compile(_BARE)
_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?$")
_KEY = re.compile(rf"\s*({_BARE}(?:\s*\.\s*{_BARE})*)\s*=")
_FENCE = re.compile(r'"""|\'\'\'')


def line_of(text: str, place: str) -> int | None:
    """Return the line (from 1) of a key path such as `steps.write.after[0]`, or None.

    A path that is not written out (a key that is missing, one in an inline table) has the line of the
    nearest part of it that is.
    """
    lines = _lines(text)
    parts = tuple(re.sub(r"\[\d+\]$", "", place).split("."))
    for length in range(len(parts), 0, -1):
        if parts[:length] in lines:
            return lines[parts[:length]]
    return None


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
