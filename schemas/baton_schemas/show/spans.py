"""Who waited and worked when: a lane for each step, branch and child of a run, and where its time went. Pure.

`timeline.py` makes lanes of a log.
All times are the broker's, of when it stored what happened. A worker tells of an attempt at its end, and how long that
took, so its beginning is put as long before; where a log tells of no length, work begins with its first sign. While
a step waits for what it asked, it does not count as working: who was asked has a lane of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

from baton_schemas.run.state import StepStatus

from .attempts import CameTo
from .lines import seconds

Waiting = Literal[
    "joining",
    "queued",
    "retry",
    "provider",
    "limits",
    "handler",
    "budget",
    "person",
    "event",
    "sleep",
    "agent",
    "flow",
    "batch",
    "other",
]
"""For what a step waits: `joining` for those that come before it, `queued` for a worker, `retry` for the next attempt,
`handler` for a worker that has its code, `batch` for a model that is asked in one; `person` to `flow` for what it
asked, or is."""
SpanKind = Literal["working", Waiting]
Ended = Literal[CameTo, "parked", "dropped", ""]
"""What an attempt came to. `parked`: it is held by nobody until it is answered. `dropped`: its run ended before it did.
Empty: it goes on."""


_SAYS: dict[SpanKind, str] = {
    "working": "working",
    "joining": "waiting for branches",
    "queued": "waiting for a worker",
    "retry": "waiting for a retry",
    "provider": "waiting for a model's provider",
    "limits": "waiting for the limits of the flow",
    "handler": "waiting for a worker that has the code",
    "budget": "waiting for more to spend",
    "person": "waiting for people",
    "event": "waiting for events",
    "sleep": "asleep",
    "agent": "waiting for agents",
    "flow": "waiting for other runs",
    "batch": "waiting for a batch of model calls",
    "other": "waiting",
}
_SAID_MAX = 4
"""Things on which time went that are named: a line of them."""


class Span(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A time in which a step worked, or waited for one thing. Those of a lane follow upon each other without a gap."""

    kind: SpanKind
    begin: datetime
    end: datetime | None = None
    """None while it goes on."""
    attempt: int = 0
    """Of work: which attempt; 0 where the log does not say."""
    reason: str = ""
    """What it waits for, in words, where the log has some."""


class Try(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt at a step, from when a worker took it in hand to what it came to; it may wait within that."""

    number: int
    begin: datetime
    end: datetime | None = None
    came_to: Ended = ""
    worker: str = ""
    error: str = ""
    """Why it failed, in a line."""


class Within(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a step did while it was in hand: a call of a model or a tool, or something that it asked."""

    kind: Literal["model", "tool", "asked"]
    name: str
    """Of the model or the tool; of what was asked, its token, which has a lane too."""
    begin: datetime
    end: datetime | None = None
    is_exact: bool = True
    """Whether the log says when it began; else it did at `begin` at the earliest."""
    failed: bool = False
    rehearsed: bool = False


class Lane(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step, or one branch or child, over time."""

    step: str
    status: StepStatus
    spans: tuple[Span, ...] = ()
    tries: tuple[Try, ...] = ()
    within: tuple[Within, ...] = ()
    reused: bool = False
    """It was done in the run that this one goes on from, and takes no time here."""

    @property
    def begin(self) -> datetime | None:
        """When it first waited or worked; None when the log does not say that it did."""
        return self.spans[0].begin if self.spans else None

    @property
    def end(self) -> datetime | None:
        """When it ended; None when it has not."""
        return self.spans[-1].end if self.spans else None

    def seconds(self, kind: SpanKind, now: datetime | None = None) -> float:
        """Return how long it worked, or waited for one thing; what goes on counts up to `now`, if that is given."""
        spans = [(span.begin, span.end or now) for span in self.spans if span.kind == kind]
        return sum((end - begin).total_seconds() for begin, end in spans if end is not None and end > begin)


class Timeline(Struct, frozen=True, kw_only=True):
    """A run over time."""

    run: str
    begin: datetime | None
    end: datetime | None
    """None while it goes on."""
    lanes: dict[str, Lane]
    """By step, in the order in which the log names them."""


_FIRST: tuple[SpanKind, ...] = (
    *("working", "person", "event", "budget", "handler", "provider", "limits", "retry", "sleep"),
    *("batch", "flow", "agent", "other", "queued", "joining"),
)
"""What counts, where several things go on at once: the first of these."""


def shares_of(timeline: Timeline, now: datetime | None = None) -> dict[SpanKind, float]:
    """Return on what the time of a run went, in seconds, the most first: together they are no more than it took.

    It works as long as any of its steps does; else it waits for what people can do something about, if for anything.
    """
    changes: list[tuple[datetime, int, int]] = []
    place = {kind: number for number, kind in enumerate(_FIRST)}
    for lane in timeline.lanes.values():
        for span in lane.spans:
            ends = [end for end in (span.end or now, timeline.end) if end is not None]
            end = min(ends, default=span.begin)  # a step may go on for a moment when its run has ended
            if end > span.begin:
                changes += [(span.begin, 1, place[span.kind]), (end, -1, place[span.kind])]
    changes.sort()
    going, sums = [0] * len(_FIRST), [0.0] * len(_FIRST)
    last: datetime | None = None
    for at, step, kind in changes:
        if last is not None and at > last:
            first = next((number for number, count in enumerate(going) if count), None)
            if first is not None:
                sums[first] += (at - last).total_seconds()
        last = at
        going[kind] += step
    shares = {kind: sums[number] for number, kind in enumerate(_FIRST) if sums[number] > 0}
    return dict(sorted(shares.items(), key=lambda each: -each[1]))


def time_in_words(shares: Mapping[SpanKind, float]) -> str:
    """Return on what time went: `9.1 s working, 2.2 s waiting for a worker`; empty where the log tells of nothing."""
    return ", ".join(f"{seconds(took_s)} {_SAYS[kind]}" for kind, took_s in list(shares.items())[:_SAID_MAX])
