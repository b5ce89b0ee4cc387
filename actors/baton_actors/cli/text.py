"""Text from the log and from arguments, made fit for a terminal. Pure."""

from __future__ import annotations

import textwrap

from baton_schemas.show.plain import plain, plain_lines

__all__ = ["plain", "plain_lines", "wrapped"]


def wrapped(text: str, width: int) -> str:
    """Return text whose long lines are broken between words, below where each began; a long word stays whole."""
    return "\n".join(line if len(line) <= width else _broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line.strip(),
        max(width, len(indent) + 1),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
