"""A timeline as strokes of a pen: all lanes of a step in one short text, which a page draws. Pure.

A lane is a sign of how it stands, when it began, and then kinds of spans with how long each took, in milliseconds since
the run began: `d1200q350w900` began after 1.2 s, was queued for 350 ms and worked for 900. A last kind without a length
goes on. Lanes are parted by semicolons.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from baton_schemas.run.refs import asked_name, whole

from .children import is_child
from .spans import Lane, SpanKind, Timeline

_KINDS: dict[SpanKind, str] = {
    "working": "w",
    "queued": "q",
    "joining": "j",
    "retry": "y",
    "person": "p",
    "event": "p",
    "agent": "a",
    "flow": "a",
    "batch": "a",
    "sleep": "a",
}
"""What looks different; all else is waiting of some kind."""
_OTHER = "h"
_SIGNS = {"done": "d", "failed": "f", "skipped": "s", "dropped": "s", "queued": "q", "joining": "j"}
_GAP_SHARE, _SHORT_S = 0.2, 2.0
"""Nothing of a run that was over so soon is left out."""
_WITHIN_MAX = 24
"""Lanes of a step up to which what is done within an attempt is drawn: with more there is no room for it."""


class Strokes(Struct, frozen=True, kw_only=True):
    """All lanes of a step, of its branches, or of children of one name."""

    step: str
    count: int
    lanes: str
    within: str = ""
    """Calls of models within: pairs of when each began and how long it took, lanes parted by semicolons."""
    is_child: bool = False
    begin_ms: int = 0
    """When the first of them began, in milliseconds since the run did."""
    end_ms: int | None = None
    """When the last ended; None while one goes on."""
    worked_s: float = 0.0
    waited_s: float = 0.0
    """All of them together, as far as it is over."""


def strokes_of(timeline: Timeline) -> list[Strokes]:
    """Return the lanes of a run, those of one step together, in the order of the log; very many by when they began."""
    groups: dict[tuple[str, bool], list[Lane]] = {}
    for lane in timeline.lanes.values():
        if lane.spans:
            child = is_child(lane.step)
            groups.setdefault((asked_name(lane.step) if child else whole(lane.step), child), []).append(lane)
    zero = timeline.begin
    if zero is None:
        return []
    for lanes in groups.values():
        if len(lanes) > _WITHIN_MAX:  # so one sees the slope of the queue, and who straggles
            lanes.sort(key=lambda lane: lane.spans[0].begin)
    return [
        Strokes(
            step=name,
            count=len(lanes),
            lanes=";".join(_lane(lane, zero) for lane in lanes),
            within=";".join(_within(lane, zero) for lane in lanes) if len(lanes) <= _WITHIN_MAX else "",
            is_child=child,
            **_sums(lanes, zero),
        )
        for (name, child), lanes in groups.items()
    ]


def _sums(lanes: list[Lane], zero: datetime) -> dict[str, Any]:
    """Return when lanes began and ended, and for how long they worked and waited in all."""
    ends = [lane.end for lane in lanes]
    spans = [(span.kind == "working", span.end - span.begin) for lane in lanes for span in lane.spans if span.end]
    worked = sum((length for works, length in spans if works), timedelta()).total_seconds()
    return {
        "begin_ms": min(_ms(lane.spans[0].begin, zero) for lane in lanes),
        "end_ms": None if None in ends else max(_ms(end, zero) for end in ends if end is not None),
        "worked_s": worked,
        "waited_s": sum((length for _, length in spans), timedelta()).total_seconds() - worked,
    }


def gaps_of(timeline: Timeline, end: datetime | None = None) -> list[tuple[int, int]]:
    """Return the times in which nothing works, each more than a fifth of the run, in milliseconds since it began.

    Whoever draws it gives them little room. `end` is up to when it is drawn, where it goes on.
    """
    zero, over = timeline.begin, timeline.end or end
    if zero is None or over is None or (over - zero).total_seconds() < _SHORT_S:
        return []
    works = sorted(
        (_ms(span.begin, zero), _ms(span.end or over, zero))
        for lane in timeline.lanes.values()
        for span in lane.spans
        if span.kind == "working"
    )
    gaps, reached, all_ms = [], 0, _ms(over, zero)
    for begin, until in [*works, (all_ms, all_ms)]:
        if begin - reached > _GAP_SHARE * all_ms:
            gaps.append((reached, begin))
        reached = max(reached, until)
    return gaps


def _lane(lane: Lane, zero: datetime) -> str:
    parts = [_SIGNS.get(lane.status, "q"), str(_ms(lane.spans[0].begin, zero))]
    for span in lane.spans:
        parts.append(_KINDS.get(span.kind, _OTHER))
        if span.end is not None:
            # Lengths of rounded times, so that their sum is the end rounded, however many there are.
            parts.append(str(_ms(span.end, zero) - _ms(span.begin, zero)))
    return "".join(parts)


def _within(lane: Lane, zero: datetime) -> str:
    found = []
    for one in lane.within:
        if one.kind == "model":
            begin = _ms(one.begin, zero)
            found.append(f"{begin}-{_ms(one.end, zero) - begin if one.end is not None else ''}")
    return ",".join(found)


def _ms(at: datetime, zero: datetime) -> int:
    return round((at - zero).total_seconds() * 1_000)
