"""A run as its pages show it, as it is or as it was after a message: what nobody asks for is not worked out."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote

from baton_schemas.run.child_runs import runs_asked
from baton_schemas.run.refs import asked_name, whole
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.boxes import Drawing, drawing_of
from baton_schemas.show.branching import Branches, branches_in
from baton_schemas.show.children import is_child
from baton_schemas.show.costs import cost_of
from baton_schemas.show.errors import told
from baton_schemas.show.excerpt import Excerpt, excerpt, head_of
from baton_schemas.show.layout import layout_of
from baton_schemas.show.row_words import called
from baton_schemas.show.rows import Row, rows_of
from baton_schemas.show.summary import waits_of
from baton_schemas.show.why import error_of, why
from baton_schemas.wire.messages import Handoff, Started
from baton_schemas.wire.outcomes import Done, Error, Value

from .run_log import RunLog
from .run_time import RunTime
from .shown import HEAD_LINES, HEAD_WIDE, Shown, shown
from .sources import Source

_WHY_WIDE = 400
_INPUT_LINES = 8
_SAYS_MAX = 5
"""Steps whose words are shown at once."""
_WROTE_SHOWN = 400
"""Characters, at the end of what a model writes."""
_LOOKED_AT_S = 2.0
_BRANCHES_FAST, _LANES_EACH_S = 2_000, 0.0005


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
        self.log = RunLog(feed, at, log_from)
        self.path = source.base
        # The one before first: the other goes on from it.
        self._before = feed.state_at(at - 1) if at is not None and at > 1 else None
        self.state: RunState = feed.state if at is None else feed.state_at(at)
        self.plan = feed.plan
        self.time = RunTime(source, follows=at is None)
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
        was = self._before.steps if self._before is not None else {}
        # Steps that nothing was said of are the same objects in both.
        names = [name for name, step in self.state.steps.items() if was.get(name) is not step and was.get(name) != step]
        wholes = {whole(name) for name in names} | {asked_name(name) for name in names}
        ends = self.state.result is not None and (self._before is None or self._before.result is None)
        return frozenset(
            key_of(row)
            for row in self.rows
            if (row.token or row.step) in names
            or (row.count and row.step in wholes)
            or (ends and row.status == "dropped")
        )

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
        return shown("output", result.outcome.blob or result.outcome.output, HEAD_LINES)

    @property
    def final_step(self) -> str:
        """The step whose output that is."""
        if self.plan is None:
            return ""
        return self.plan.implied.get(self.plan.final, self.plan.final)

    @property
    def cause(self) -> Excerpt | None:
        """The head of the error that broke it."""
        return excerpt(told(self.error), lines_max=HEAD_LINES, width=HEAD_WIDE) if self.error is not None else None

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
