"""Times painted over each other, and what is to be seen of them in the end. Pure; `timeline` says what is painted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from heapq import heappop, heappush
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from .spans import Span, SpanKind

FOREVER = datetime.max.replace(tzinfo=UTC)
"""The end of what goes on."""


class Paint(Struct, frozen=True):
    """What a step did, or waited for, at a time."""

    begin: datetime
    end: datetime
    kind: SpanKind
    attempt: int = 0
    reason: str = ""


def flat(paints: Sequence[Paint], begin: datetime, end: datetime) -> Iterator[Span]:
    """Yield what is to be seen of paints between two times, where the later ones cover those before them."""
    order = sorted(range(len(paints)), key=lambda number: paints[number].begin, reverse=True)
    ends = [min(max(at, begin), end) for paint in paints for at in (paint.begin, paint.end)]
    edges = sorted({begin, end, *ends})
    open_: list[int] = []
    last: Span | None = None
    for since, until in pairwise(edges):
        while order and paints[order[-1]].begin <= since:
            heappush(open_, -order.pop())
        while paints[-open_[0]].end <= since:
            heappop(open_)
        top = paints[-open_[0]]
        span = Span(kind=top.kind, begin=since, end=until, attempt=top.attempt, reason=top.reason)
        if last is not None and (last.kind, last.attempt, last.reason) == (span.kind, span.attempt, span.reason):
            last = replace(last, end=until)
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield replace(last, end=None if last.end == FOREVER else last.end)


def joined(times: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Return times as a rising list in which none meets another."""
    found: list[tuple[datetime, datetime]] = []
    for since, until in sorted(times):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(until, found[-1][1]))
        else:
            found.append((since, until))
    return found
