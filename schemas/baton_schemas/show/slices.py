"""Long texts a part at a time, with what in them is marked; and bytes that are no text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from baton_schemas.flow.prompts import Filled

SLICE = 64 * 1024
"""Characters of a text that are shown at once."""
_BYTES_A_LINE = 16


class Slice(Struct, frozen=True, kw_only=True):
    """A part of a text."""

    pieces: tuple[Filled, ...]
    """In their order; those that no placeholder names are not marked."""
    start: int
    end: int
    total: int
    """Of characters of the text, of which this is `[start:end]`."""

    @property
    def text(self) -> str:
        """All of the part."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the text."""
        return self.start == 0 and self.end == self.total

    @property
    def next(self) -> int | None:
        """Where the next part begins; None for the last one."""
        return self.end if self.end < self.total else None

    @property
    def before(self) -> int | None:
        """Where the part before begins; None for the first one."""
        return max(self.start - SLICE, 0) if self.start else None


def slice_of(text: str | Sequence[Filled], start: int = 0, length: int = SLICE) -> Slice:
    """Return so many characters of a text from one on; a start that is past its end gives its last part."""
    pieces = [Filled(text)] if isinstance(text, str) else text
    total = sum(len(piece.text) for piece in pieces)
    if start >= total:
        start = max(total - 1, 0) // length * length
    start = max(start, 0)
    found: list[Filled] = []
    at = 0
    for piece in pieces:
        part = piece.text[max(start - at, 0) : max(start + length - at, 0)]
        if part:
            found.append(Filled(part, piece.placeholder))
        at += len(piece.text)
        if at >= start + length:
            break
    return Slice(pieces=tuple(found), start=start, end=min(start + length, total), total=total)


def hex_lines(data: bytes, max_bytes: int = 512) -> list[str]:
    """Return the beginning of bytes as people look at them: place, sixteen bytes in hex, and what of them is ASCII."""
    lines = []
    for start in range(0, min(len(data), max_bytes), _BYTES_A_LINE):
        part = data[start : start + _BYTES_A_LINE]
        ascii_ = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{start:06x}  {part.hex(' '):<{3 * _BYTES_A_LINE - 1}}  {ascii_}")
    return lines
