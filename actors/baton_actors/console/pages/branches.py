"""All branches of a fan-out: as cells, by how long they took, and as a list in which the odd ones come first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import urlencode

from msgspec import Struct
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Given, Page
from baton_actors.console.run_view import RunView
from baton_actors.console.sources import source_of
from baton_schemas.run.refs import parse
from baton_schemas.run.state import RunState, StepState
from baton_schemas.show.branching import (
    Branches,
    BranchStatus,
    Looked,
    Sorted,
    causes_of,
    histogram_of,
    looked_for,
    seconds_of,
)
from baton_schemas.show.errors import told
from baton_schemas.show.excerpt import head_of, text_of
from baton_schemas.wire.messages import Handoff

from .run import number_in

_PAGE = 200
"""Branches in the list at a time."""
_WIDE = 160


class BranchRow(Struct, frozen=True, kw_only=True):
    """One branch in the list."""

    index: int
    step: str
    status: BranchStatus
    attempts: int = 0
    took_s: float | None = None
    since: datetime | None = None
    """Of one that goes on."""
    item: str = ""
    said: str = ""
    """Its error, or the beginning of its output."""
    late: bool = False
    reused: bool = False


def is_fan_out(state: RunState, step: str) -> bool:
    """Say whether a name is that of a fan-out as a whole, of which the log names branches."""
    ref = parse(step)
    if ref.index is not None or ref.key:
        return False
    return any(
        (of := parse(name)).name == ref.name and of.index is not None and of.round == ref.round and not of.key
        for name in state.steps
    )


async def branches_page(console: Console, request: Request) -> Page:
    """Return the branches of the fan-out that the address names."""
    source = await source_of(console, request)
    feed = source.feed
    name, given = request.path_params["step"], Given(request.query_params)
    at = number_in(given["at"], feed, "at")
    view = RunView(source, datetime.now(UTC), at=at)
    branches = view.branches.get(name) or Branches(step=name, branches=(), statuses=())
    looked = Looked(
        statuses=tuple(each for each in given["status"].split(",") if each),
        cause=given["cause"],
        text=given["text"],
        order=given["sort"] or "outliers",  # type: ignore[arg-type] # `looked_for` looks at it
    )
    if wrong := [each for each in looked.statuses if each not in get_args(BranchStatus)]:
        raise ValueError(f"the status {wrong[0]!r} is none of {', '.join(get_args(BranchStatus))}")
    start = int(given["from"]) if given["from"].isdecimal() and len(given["from"]) < 10 else 0
    path = view.path_of(name)

    def with_given(**changed: str) -> str:
        merged = {key: value for key, value in {**given, **changed}.items() if value}
        return f"{path}?{urlencode(merged)}" if merged else path

    # What the parts that follow the run need is worked out when they are made.
    return Page(
        template="branches.html",
        title=f"{name} of {view.run}",
        here=source.here,
        facts={
            **view.facts(),
            "branches": branches,
            "list": _List(view, branches, looked, start),
            "looked": looked,
            "given": given,
            "orders": get_args(Sorted),
            "causes": lambda: causes_of(branches),
            "bins": lambda: histogram_of(branches),
            "with_given": with_given,
        },
        json=lambda: {"run": view.run, "step": name, "counts": branches.counts, "branches": rows_json(view, branches)},
        command=source.command("show", name),
        sources=source.sources if at is None else (),
        stored_at_s=feed.entries[-1].at.timestamp() if feed.entries and source.sources else 0.0,
        paces={"cells": view.paces["cells"], "figures": 0.5, "list": 0.25},
        every_s=view.every_s,
    )


def rows_json(view: RunView, branches: Branches) -> list[dict[str, Any]]:
    """Return all branches as facts."""
    return [
        {
            "step": branches.token(index),
            "status": branches.statuses[index],
            "attempts": step.attempts if step is not None else 0,
            "took_s": seconds_of(step),
            "error": step.error if step is not None else None,
        }
        for index, step in enumerate(branches.branches)
    ]


class _List:
    """The branches that are looked for, a page of them."""

    def __init__(self, view: RunView, branches: Branches, looked: Looked, start: int) -> None:
        self._view, self._branches = view, branches
        self.found = looked_for(branches, looked)
        self.start = min(start, max((len(self.found) - 1) // _PAGE * _PAGE, 0))

    @property
    def before(self) -> int | None:
        """Where the page before begins; None when this is the first."""
        return max(self.start - _PAGE, 0) if self.start else None

    @property
    def after(self) -> int | None:
        """Where the page behind begins; None when this is the last."""
        return self.start + _PAGE if self.start + _PAGE < len(self.found) else None

    @property
    def rows(self) -> list[BranchRow]:
        """The branches of this page, each with its item."""
        shown = self.found[self.start : self.start + _PAGE]
        tokens = {self._branches.token(index) for index in shown}
        items = {
            message.step: head_of(text_of(message.branch.item), _WIDE)
            for entry in self._view.entries
            if isinstance(message := entry.message, Handoff)
            and message.step in tokens
            and message.branch is not None
            and bytes(message.branch.item)
        }
        late = set(self._view.state.late)
        return [self._row(index, items, late) for index in shown]

    def _row(self, index: int, items: dict[str, str], late: set[str]) -> BranchRow:
        step, token = self._branches.branches[index], self._branches.token(index)
        return BranchRow(
            index=index,
            step=token,
            status=self._branches.statuses[index],
            attempts=step.attempts if step is not None else 0,
            took_s=seconds_of(step),
            since=step.queued_at if step is not None and step.ended_at is None and self._view.at is None else None,
            item=items.get(token, ""),
            said=_said(step),
            late=token in late,
            reused=step is not None and step.reused,
        )


def _said(step: StepState | None) -> str:
    if step is None:
        return ""
    if step.error is not None:
        return head_of(told(step.error), _WIDE)
    if step.reason:
        return step.reason
    return head_of(text_of(step.output), _WIDE) if step.output is not None else ""
