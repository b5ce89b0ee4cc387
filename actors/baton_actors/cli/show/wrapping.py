"""A text that comes in pieces, with its long lines broken between words as it goes. Pure."""

from __future__ import annotations

import re

from rich.cells import cell_len

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")
_HELD_MAX = 40
"""Characters of a word that are held until it ends: scripts without blanks between words are printed as they come."""


class Wrapping:
    """Breaks lines between words as `text.wrapped` does."""

    def __init__(self, width: int) -> None:
        """`width` in columns."""
        self._width = max(width, 1)
        self._at = 0
        self._blanks = self._word = self._indent = ""

    def add(self, text: str) -> str:
        """Return what can be printed by now; a word that may go on is held, unless it is long."""
        done: list[str] = []
        for part in _PARTS.findall(text):
            if part == "\n":
                done += [self._held(), part]
                self._at, self._blanks, self._indent = 0, "", ""
            elif part.isspace():
                done.append(self._held())
                self._blanks += part
            else:
                self._word += part
                if len(self._word) >= _HELD_MAX:
                    done.append(self._held())
        return "".join(done)

    def end(self) -> str:
        """Return what is held; what comes after begins a line."""
        held = self._held()
        self._at, self._blanks, self._indent = 0, "", ""
        return held

    def _held(self) -> str:
        word, self._word = self._word, ""
        if not word:
            return ""
        blanks, self._blanks = self._blanks, ""
        width = cell_len(word)
        if not self._at:
            self._indent = blanks
        elif blanks and self._at + len(blanks) + width > self._width:
            self._at, blanks = 0, "\n" + self._indent
        self._at += len(blanks.lstrip("\n")) + width
        return blanks + word
