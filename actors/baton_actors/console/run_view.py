"""A run as its pages show it, as it is or as it was after a message: what nobody asks for is not worked out."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Struct

from baton_schemas.run.child_runs import runs_asked
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.boxes import Drawing, drawing_of
from baton_schemas.show.branching import Branches, branches_in
from baton_schemas.show.children import is_child
from baton_schemas.show.costs import cost_of
from baton_schemas.show.errors import told
from baton_schemas.show.excerpt import Excerpt, excerpt, head_of
from baton_schemas.show.layout import layout_of
from baton_schemas.show.lines import one_line, seconds
from baton_schemas.show.row_words import called
from baton_schemas.show.rows import Row, rows_of
from baton_schemas.show.spans import SpanKind, Timeline, shares_of, time_in_words
from baton_schemas.show.strokes import Strokes, gaps_of, strokes_of
from baton_schemas.show.summary import waits_of
from baton_schemas.show.timeline import timeline_of
from baton_schemas.show.why import error_of, why
from baton_schemas.wire.messages import Handoff, Started
from baton_schemas.wire.outcomes import Blob, Done, Error, Value

from .sources import Source
from .words import pretty

LINES = 200
"""Lines of the log on one page of it."""
TAIL = 50
"""Lines that a page shows of it unasked: at its end, or around a message. They are sent anew with each message."""
_WHY_WIDE = 400
_HEAD_LINES, _HEAD_WIDE = 40, 160
"""Of a value, before there is a link to all of it."""
_INPUT_LINES = 8
_SHORT = 120
_SAYS_MAX = 5
"""Steps whose words are shown at once."""
_WROTE_SHOWN = 400
"""Characters, at the end of what a model writes."""
_LOOKED_AT_S = 2.0
_BRANCHES_FAST, _LANES_EACH_S = 2_000, 0.0005


class LogLine(NamedTuple):
    """One message in the log."""

    number: int
    """From 1, among those of the run."""
    after: str
    """How long after the run began."""
    kind: str
    text: str


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


class Says(NamedTuple):
    """What a step says while it is done."""

    step: str
    says: str
    wrote: str
    """The end of what its model has written."""
    left_out: int
    """Characters before that."""


class RunView:
    """What pages show of a run after its first `at` messages; without `at`, of all of it, as it goes on."""

    def __init__(self, source: Source, now: datetime, *, at: int | None = None, log_from: int = 0) -> None:
        feed = source.feed
        self.source, self.feed, self.run = source, feed, feed.run
        self.count = len(feed.entries)
        """Messages in all."""
        self.at = at
        self.number = self.count if at is None else at
        self.now = feed.entries[at - 1].at if at is not None and feed.entries else now
        """Broker's time of what is shown."""
        self.log_from = log_from
        self.path = source.base
        # The one before first: the other goes on from it.
        self._before = feed.state_at(at - 1) if at is not None and at > 1 else None
        self.state: RunState = feed.state if at is None else feed.state_at(at)
        self.plan = feed.plan
        self.running = feed.running() if at is None else {}

    @property
    def entries(self) -> list[Entry]:
        """The messages so far."""
        return self.feed.entries if self.at is None else self.feed.entries[: self.at]

    @cached_property
    def rows(self) -> list[Row]:
        """Its steps, and what they asked for."""
        return rows_of(self.state, self.plan, running=self.running, now=self.now)

    @cached_property
    def changed(self) -> frozenset[str]:
        """The rows that the last message changed, as `key_of` names them; none where the end is followed."""
        if self.at is None:
            return frozenset()
        before = rows_of(self._before, self.plan, now=self.now) if self._before is not None else []
        was = {key_of(row): row for row in before}
        return frozenset(key_of(row) for row in self.rows if was.get(key_of(row)) != row)

    # ---- how it stands ------------------------------------------------------------------------------------

    @property
    def stands(self) -> str:
        """How it stands, in words."""
        state = self.state
        if state.status == "running":
            waits = waits_of(state, self.now)
            return f"running, waits for {waits}" if waits else "running"
        return state.status

    @property
    def may_retry(self) -> bool:
        """Whether there is something to try again: it has ended, and not all of it well."""
        state = self.state
        if state.result is None:
            return False
        return state.status != "done" or any(
            step.status == "failed" and not is_child(step.name) for step in state.steps.values()
        )

    @property
    def why(self) -> str:
        """Why it did not end well, in one sentence."""
        return head_of(why(self.state), _WHY_WIDE) if self.state.status not in ("running", "done") else ""

    @property
    def error(self) -> Error | None:
        """What broke it."""
        return error_of(self.state)

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, or was as is shown; None while it goes on."""
        return self.state.ended_at or (self.now if self.at is not None else None)

    @property
    def cost(self) -> str:
        """What it cost, in words: a lower bound, or rehearsed, where that is so."""
        return cost_of(self.state)

    @cached_property
    def deadline_at(self) -> datetime | None:
        """When it expires; None for never."""
        for entry in self.feed.entries[:1]:
            match entry.message:
                case Handoff(cause=Started(begins=begins)) if begins is not None and begins.deadline_s:
                    return entry.at + timedelta(seconds=min(begins.deadline_s, 1e9))
        return None

    @property
    def child_runs(self) -> list[tuple[str, list[str]]]:
        """The runs that its steps asked for, by step."""
        return list(runs_asked(self.state).items())

    # ---- pictures -----------------------------------------------------------------------------------------

    @cached_property
    def drawing(self) -> Drawing | None:
        """The graph; None when the flow cannot be read."""
        return drawing_of(layout_of(self.plan), self.rows, self.state) if self.plan is not None else None

    @cached_property
    def branches(self) -> dict[str, Branches]:
        """Its fan-outs, by name and round."""
        return branches_in(self.state, self.running)

    @cached_property
    def timeline(self) -> Timeline:
        """Who waited and worked when: of the whole run, whatever message is looked at."""
        return self.feed.once("timeline", lambda: timeline_of(self.feed.entries, self.feed.state))

    @property
    def lanes(self) -> list[Strokes]:
        """The lanes of each step."""
        return self.feed.once("lanes", lambda: strokes_of(self.timeline))

    @property
    def strokes(self) -> str:
        """The timeline for whoever draws it: a list of steps as JSON, see `strokes.py`."""
        return self.feed.once("strokes", self._strokes)

    def _strokes(self) -> str:
        facts = [
            [each.step, each.count, each.lanes, each.within, "" if each.is_child else self.path_of(each.step)]
            for each in self.lanes
        ]
        return msgspec.json.encode(facts).decode()

    @property
    def _heard_at(self) -> datetime:
        """When the last message was stored: what is drawn stays as it is until there is another."""
        return self.feed.entries[-1].at if self.feed.entries else self.now

    @property
    def gaps(self) -> str:
        """Times that are folded where it is drawn, as JSON."""
        return msgspec.json.encode(gaps_of(self.timeline, self._heard_at)).decode()

    @cached_property
    def shares(self) -> dict[SpanKind, float]:
        """On what its time went."""
        until = self._heard_at if self.feed.state.result is None else None
        return self.feed.once("shares", lambda: shares_of(self.timeline, until))

    @property
    def time_in_words(self) -> str:
        """The same in words."""
        return time_in_words(self.shares)

    @property
    def drawn_to(self) -> int | str:
        """When the timeline ends, in milliseconds since the run began; nothing where it goes on."""
        state = self.feed.state
        if state.result is None and self.at is None:
            return ""
        last = self.feed.entries[-1].at if self.feed.entries else None
        return self.ms(state.ended_at or last) or 0

    @property
    def begin_ms(self) -> int:
        """When it began, in milliseconds since 1970."""
        begin = self.feed.state.started_at
        return round(begin.timestamp() * 1_000) if begin is not None else 0

    def at_ms(self) -> int | None:
        """When the message that is looked at was stored, since the run began."""
        return self.ms(self.entries[-1].at) if self.at is not None and self.entries else None

    def ms(self, at: datetime | None) -> int | None:
        """Return a time in milliseconds since the run began."""
        begin = self.feed.state.started_at
        return round((at - begin).total_seconds() * 1_000) if at is not None and begin is not None else None

    # ---- links --------------------------------------------------------------------------------------------

    def path_of(self, step: str) -> str:
        """Return the page of a step."""
        return f"{self.path}/steps/{quote(step, safe='')}"

    def since(self, row: Row) -> datetime | None:
        """Return since when an open row goes on; None for one that has ended, or that nobody has begun."""
        if self.at is not None or row.status not in ("queued", "running", "joining"):
            return None
        if row.count:
            each = self.branches.get(row.step)
            return each.since if each is not None else None
        step = self.state.steps.get(row.token or row.step)
        return step.queued_at if step is not None else None

    @property
    def calls_models(self) -> bool:
        """Whether any row has something to say of models."""
        return any(
            row.model or row.input_tokens or row.output_tokens or row.cost_usd or row.rehearsed for row in self.rows
        )

    # ---- words --------------------------------------------------------------------------------------------

    @property
    def says(self) -> list[Says]:
        """What steps say that are in hand."""
        if self.at is not None or self.state.result is not None:
            return []
        steps = self.state.steps
        found = [
            Says(step, live.says, live.wrote[-_WROTE_SHOWN:], max(len(live.wrote) - _WROTE_SHOWN, 0))
            for step, live in self.feed.live.items()
            if step in steps and steps[step].status == "queued" and (live.says or live.wrote)
        ]
        return found[-_SAYS_MAX:]

    @property
    def lines(self) -> list[LogLine]:
        """The lines of the log that are shown: those around the message that is looked at, or the last."""
        first = self.first_line
        shown = self.feed.entries[first - 1 : first - 1 + self._lines_shown]
        return [self._line(first + number, entry) for number, entry in enumerate(shown)]

    @property
    def _lines_shown(self) -> int:
        return LINES if self.log_from else TAIL

    @property
    def first_line(self) -> int:
        """The number of the first line that is shown."""
        if self.log_from:
            return min(self.log_from, max(self.count, 1))
        if self.at is not None:  # whole pages: stepping through them leaves the lines where they are
            return (self.at - 1) // TAIL * TAIL + 1
        return max(self.count - TAIL + 1, 1)

    @property
    def earlier_line(self) -> int:
        """The first line of the page before; 0 when this is the first."""
        return max(self.first_line - LINES, 1) if self.first_line > 1 else 0

    @property
    def later_line(self) -> int:
        """The first line of the page behind; 0 when this is the last."""
        later = self.first_line + self._lines_shown
        return later if later <= self.count else 0

    def _line(self, number: int, entry: Entry) -> LogLine:
        kind, _, rest = one_line(entry).partition(" ")
        return LogLine(number, self.after(entry), kind, rest.strip())

    def after(self, entry: Entry) -> str:
        """Return how long after the beginning of its run a message was stored."""
        begin = self.feed.state.started_at
        return f"+{(entry.at - begin).total_seconds():,.3f} s" if begin is not None else ""

    @property
    def last_line(self) -> LogLine | None:
        """The message after which it stands so."""
        return self._line(self.number, self.feed.entries[self.number - 1]) if self.number else None

    # ---- values -------------------------------------------------------------------------------------------

    @property
    def input(self) -> list[Shown]:
        """The heads of what went in."""
        given: dict[str, Value] = {**self.state.input, **self.state.input_blobs}
        return [shown(name, value, _INPUT_LINES) for name, value in given.items()]

    @property
    def output(self) -> Shown | None:
        """The head of what came out; None when nothing has."""
        result = self.state.result
        if result is None or result.status != "done" or not isinstance(result.outcome, Done):
            return None
        return shown("output", result.outcome.blob or result.outcome.output, _HEAD_LINES)

    @property
    def final_step(self) -> str:
        """The step whose output that is."""
        if self.plan is None:
            return ""
        return self.plan.implied.get(self.plan.final, self.plan.final)

    @property
    def cause(self) -> Excerpt | None:
        """The head of the error that broke it."""
        return excerpt(told(self.error), lines_max=_HEAD_LINES, width=_HEAD_WIDE) if self.error is not None else None

    # ---- how often ----------------------------------------------------------------------------------------

    @property
    def paces(self) -> dict[str, float]:
        """How often each part may be sent: what is small and drawn more often than tables, and these than what is
        long.
        """
        lanes = len(self.state.steps)
        panels = dict.fromkeys(("head", "scrubber", "graph", "steps", "log", "output"), 0.15)
        cells = 0.04 if lanes <= _BRANCHES_FAST else 0.15
        return {**panels, "cells": cells, "says": 0.1, "timeline": 0.15 + lanes * _LANES_EACH_S, "kin": 2.0}

    @property
    def every_s(self) -> float:
        """How often it is to be made anew although nothing came: what is due, or said no more, is seen by the clock."""
        if self.at is not None or self.state.result is not None:
            return 0.0
        due = any(step.due_at is not None and step.due_at > self.now for step in self.state.steps.values())
        return _LOOKED_AT_S if due or self.running else 0.0

    def facts(self) -> dict[str, Any]:
        """Return what templates are given."""
        return {"view": self, "state": self.state, "run": self.run, "called": called, "key_of": key_of}


def key_of(row: Row) -> str:
    """Return what tells a row from the others of its run."""
    return f"{row.token or row.step} {row.depth} {row.asker}" if row.depth else row.step


def shown(name: str, value: Value, lines_max: int = _HEAD_LINES) -> Shown:
    """Return the head of a value."""
    if isinstance(value, Blob):
        return Shown(name=name, head=Excerpt("", 0, value.size_bytes, is_whole=False), beside=True)
    return Shown(name=name, head=excerpt(pretty(value), lines_max=lines_max, width=_HEAD_WIDE))


def elapsed_in_words(begin: datetime | None, end: datetime | None) -> str:
    """Return how long it was from one time to another; nothing where one is not known."""
    return seconds(max((end - begin).total_seconds(), 0.0)) if begin is not None and end is not None else ""
