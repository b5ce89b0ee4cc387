"""The head of a long value, and how large it is: what people are shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from baton_schemas.wire.files import may_name_files, ref_in, with_labels
from baton_schemas.wire.outcomes import Blob, Value

_FILES_SHOWN = 4_000
"""Bytes of a value in which files are looked for, where a few words are all that is shown."""


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
        if may_name_files(data):
            return _with_files(decoded)
        return decoded if isinstance(decoded, str) else msgspec.json.format(data, indent=0).decode()
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return data.decode(errors="replace")


def _with_files(value: Any) -> str:
    """Return a value as text, the files in it as people see them: one alone, a list of them one a line."""
    if (ref := ref_in(value)) is not None:
        return ref.label
    refs = [ref_in(item) for item in value] if isinstance(value, list) else []
    if refs and None not in refs:
        return "\n".join(ref.label for ref in refs if ref is not None)
    return msgspec.json.format(msgspec.json.encode(with_labels(value)), indent=0).decode()


def size(size_bytes: int) -> str:
    """Return a size in the unit that people would use."""
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= length:
            return f"{size_bytes / length:.3g} {unit}"
    return f"{size_bytes} bytes"


def in_words(values: Mapping[str, Value], width: int) -> str:
    """Return named values on one line of so many characters: `topic=tea, depth=3`; of a single one only the value."""
    words = {name: _words(value, width) for name, value in values.items()}
    if len(words) == 1:
        return next(iter(words.values()))
    return head_of(", ".join(f"{name}={value}" for name, value in words.items()), width)


def head_of(text: str, width: int) -> str:
    """Return the beginning of a text on one line of so many characters."""
    words = " ".join(text[: 8 * width].split())
    return words if len(words) <= width and len(text) <= 8 * width else words[: width - 1] + "…"


def _words(value: Value, width: int) -> str:
    if isinstance(value, Blob):
        return f"({size(value.size_bytes)})"
    data = bytes(value)
    if len(data) < _FILES_SHOWN and may_name_files(data):
        return head_of(text_of(data), width)
    # Of what is no text no more is looked at than can be shown.
    return head_of(text_of(data) if data[:1] == b'"' else data[: 8 * width + 1].decode(errors="replace"), width)
