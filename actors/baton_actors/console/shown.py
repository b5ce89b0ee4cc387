"""Values as pages show them: the head of what is long, and how much there is of it."""

from __future__ import annotations

from msgspec import Struct

from baton_schemas.show.excerpt import Excerpt, excerpt
from baton_schemas.wire.outcomes import Blob, Value

from .words import pretty

HEAD_LINES, HEAD_WIDE = 40, 160
"""Of a value, before there is a link to all of it."""
_SHORT = 120


class Shown(Struct, frozen=True, kw_only=True):
    """The head of a value."""

    name: str
    head: Excerpt
    beside: bool = False
    """It is kept beside the log."""

    @property
    def is_short(self) -> bool:
        """Whether it is all on one line."""
        return self.head.is_whole and len(self.head.head) <= _SHORT and "\n" not in self.head.head


def shown(name: str, value: Value, lines_max: int = HEAD_LINES) -> Shown:
    """Return the head of a value."""
    if isinstance(value, Blob):
        return Shown(name=name, head=Excerpt("", 0, value.size_bytes, is_whole=False), beside=True)
    return Shown(name=name, head=excerpt(pretty(value), lines_max=lines_max, width=HEAD_WIDE))
