"""The head of a long value, and how large it is: what people are shown of it."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct


class Excerpt(Struct, frozen=True):
    """The beginning of a text, or all of it."""

    head: str
    lines_left: int
    """Lines that are left out; 0 also where only the last one shown is not whole."""
    size_bytes: int
    """Of the whole text, in UTF-8."""
    is_whole: bool

    @property
    def rest(self) -> str:
        """What is left out, in words: `12 more lines, 4.1 KiB in all`; empty when nothing is."""
        if self.is_whole:
            return ""
        more = f"{self.lines_left:,} more {'line' if self.lines_left == 1 else 'lines'}, " if self.lines_left else ""
        return f"{more}{size(self.size_bytes)} in all"


def excerpt(text: str, *, lines_max: int, width: int) -> Excerpt:
    """Return the beginning of a text: at most so many lines of at most so many characters, longer ones being folded."""
    shown: list[str] = []
    left, cut = lines_max, False
    lines = text.split("\n")
    for line in lines:
        if left <= 0:
            break
        if len(line) > left * width:
            shown.append(line[: left * width - 1] + "…")
            left, cut = 0, True
            break
        shown.append(line)
        left -= max(-(-len(line) // width), 1)
    whole = not cut and len(shown) == len(lines)
    return Excerpt("\n".join(shown), len(lines) - len(shown), len(text.encode(errors="replace")), whole)


def text_of(value: Raw | bytes) -> str:
    """Return a JSON value as text: a string as it is, anything else as JSON on one line.

    What is no JSON, as a stranger may have published it, is returned as it is, in UTF-8.
    """
    data = bytes(value)
    try:
        decoded = msgspec.json.decode(data)
        return decoded if isinstance(decoded, str) else msgspec.json.format(data, indent=0).decode()
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return data.decode(errors="replace")


def size(size_bytes: int) -> str:
    """Return a size in the unit that people would use."""
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= length:
            return f"{size_bytes / length:.3g} {unit}"
    return f"{size_bytes} bytes"
