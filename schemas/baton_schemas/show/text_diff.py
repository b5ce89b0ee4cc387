"""Where two texts differ, word by word; line by line where they are long. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal

from msgspec import Struct

WORDS_MAX = 2_000
"""Words of a text that are compared as such, and lines of a longer one: it takes time with their square."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Piece(Struct, frozen=True):
    """A part of both texts, or of one of them."""

    kind: Literal["same", "removed", "added"]
    text: str


def pieces(before: str, after: str) -> list[Piece]:
    """Return both texts in one: what is the same or removed is the first, what is the same or added the second."""
    begin = _alike(before, after)
    begin = max(before.rfind(" ", 0, begin), before.rfind("\n", 0, begin)) + 1  # words are whole
    old, new = before[begin:], after[begin:]
    end = _alike(old[::-1], new[::-1])
    while end and not old[-end].isspace():
        end -= 1
    middle = list(_between(old[: len(old) - end], new[: len(new) - end]))
    found = [Piece("same", before[:begin]), *middle, Piece("same", old[len(old) - end :])]
    return [piece for piece in found if piece.text]


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts begin with that are the same."""
    known, end = 0, min(len(one), len(other))
    while known < end:
        middle = (known + end + 1) // 2
        if one[known:middle] == other[known:middle]:
            known = middle
        else:
            end = middle - 1
    return known


def _between(before: str, after: str) -> Iterator[Piece]:
    for split in (_WORD.findall, lambda text: text.splitlines(keepends=True)):
        old, new = split(before), split(after)
        if len(old) <= WORDS_MAX and len(new) <= WORDS_MAX:
            yield from _matched(old, new)
            return
    yield Piece("removed", before)
    yield Piece("added", after)


def _matched(old: Sequence[str], new: Sequence[str]) -> Iterator[Piece]:
    for _, i, j, k, n in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        removed, added = "".join(old[i:j]), "".join(new[k:n])
        if removed == added:
            yield Piece("same", removed)
            continue
        yield from (Piece("removed", removed), Piece("added", added))
