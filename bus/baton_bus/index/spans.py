"""Spans of sequences: which parts of a log have been read, and which have not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """Sequences from `low` to `high`, both included."""

    low: int
    high: int


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return the same sequences as spans that neither overlap nor touch, in their order."""
    found: list[Span] = []
    for span in sorted(spans):
        if span.low > span.high:
            continue
        if found and span.low <= found[-1].high + 1:
            found[-1] = Span(found[-1].low, max(found[-1].high, span.high))
        else:
            found.append(span)
    return found


def missing(done: Iterable[Span], within: Span) -> list[Span]:
    """Return what of a span is not done, the newest first."""
    left: list[Span] = []
    low = within.low
    for span in joined(done):
        if span.high < low:
            continue
        if span.low > within.high:
            break
        left.append(Span(low, span.low - 1))
        low = span.high + 1
    left.append(Span(low, within.high))
    return [span for span in reversed(left) if span.low <= span.high]


def last_of(done: Sequence[Span]) -> Span | None:
    """Return the newest span, None when nothing is done: what is looked for is in it, or not known."""
    return max(done, default=None)


def windows(span: Span, first: int, most: int) -> Iterable[Span]:
    """Yield a span in pieces from its end on: the first of so many sequences, each further one twice as long."""
    high, length = span.high, first
    while high >= span.low:
        low = max(span.low, high - length + 1)
        yield Span(low, high)
        high, length = low - 1, min(2 * length, most)
