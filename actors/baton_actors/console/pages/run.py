"""A run: how it stands, its graph, branches, timeline, steps, log and output, as it is or as it was after a message."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.feeds import Feed
from baton_actors.console.page import Page, wants_json
from baton_actors.console.run_view import RunView
from baton_actors.console.sources import source_of
from baton_actors.models.run_facts import output_in, shown_facts
from baton_bus.client.left import left_alone
from baton_bus.errors import BlobMissing
from baton_bus.index import file as files
from baton_bus.index.errors import IndexUnusable
from baton_bus.index.forking import Fork, forks_of
from baton_schemas.show.timeline import timeline_of
from baton_schemas.wire.outcomes import Blob

_FORKS_MAX = 100
"""Forks of which it is said how many there are."""
_DIGITS_MAX = 12


async def run_page(console: Console, request: Request) -> Page:
    """Return a run. One that is named by a part of its id is looked for, and has its whole id in its address."""
    source = await source_of(console, request)
    feed, given = source.feed, request.query_params
    at = number_in(given.get("at", ""), feed, "at")
    log_from = number_in(given.get("log", ""), feed, "log")
    view = RunView(source, datetime.now(UTC), at=at, log_from=log_from or 0, fits=bool(given.get("fit")))
    return page_of(console, view, json=await facts_of(console, view) if wants_json(request) else None)


async def facts_of(console: Console, view: RunView) -> dict[str, Any]:
    """Return a run as `baton show --json` prints it; with how it was after a message, the number of that, and signs of
    its branches.

    Of a file the output may be lacking, as files have nothing of what is kept beside the log: then it is said why.
    Raises `BlobMissing`, `BusUnavailable`.
    """
    state, plan, source = view.state, view.plan, view.source
    follows, missing = view.at is None, {}
    output = output_in(state.result)
    if isinstance(output, Blob):
        try:
            output = Raw(await source.blob(output))
        except BlobMissing as error:
            if source.can_act:
                raise
            output, missing = None, {"missing": str(error)}
    left = await left_alone(console.bus, plan, state) if source.can_act and follows and plan is not None else []
    timeline = view.time.timeline if follows else timeline_of(view.entries, state)
    facts = shown_facts(state, view.rows, timeline, view.now, output=output, unplayed=[each.actor for each in left])
    if follows:
        return facts | missing
    branches = {name: each.signs for name, each in view.branches.items()}
    return {**facts, **missing, "at": view.number, "late": state.late, "branches": branches}


def page_of(console: Console, view: RunView, **more: Any) -> Page:
    """Return the page of a run as `view` shows it; `more` is in place of what is said here."""
    state, follows = view.state, view.at is None

    facts: dict[str, Any] = {
        "template": "run.html",
        "title": f"{state.flow} {view.run}",
        "here": view.source.here,
        "facts": {**view.facts(), "forks": lambda: forks_in(console, view), "message": None, "is_message": False},
        "command": view.source.command("show" if follows else "replay"),
        "sources": view.source.sources if follows else (),
        "stored_after": lambda at_s: _first_after(view, at_s),
        "stored_at_s": view.entries[-1].at.timestamp() if view.entries and view.source.sources else 0.0,
        "paces": view.paces,
        "every_s": view.every_s,
    }
    return Page(**{**facts, **more, "facts": {**facts["facts"], **more.get("facts", {})}})


def _first_after(view: RunView, at_s: float) -> float:
    entries = view.entries
    found = bisect_right(entries, at_s, key=lambda entry: entry.at.timestamp())
    return entries[min(found, len(entries) - 1)].at.timestamp()


def number_in(text: str, feed: Feed, name: str) -> int | None:
    """Return which message a number names, from 1; None where none is given.

    It may also be a time since the run began, in milliseconds: `1250ms` is the last message until then. Raises
    `ValueError`.
    """
    if not text:
        return None
    count, digits = len(feed.entries), text.removesuffix("ms")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _DIGITS_MAX:
        raise ValueError(f"`{name}={text[:_DIGITS_MAX]}` is no number of a message: expected 1 to {count:,}")
    number = int(digits)
    if digits != text and feed.entries:
        until = feed.entries[0].at + timedelta(milliseconds=number + 0.5)
        return max(bisect_right(feed.entries, until, key=lambda entry: entry.at), 1)
    if not 1 <= number <= count:
        raise ValueError(f"`{name}={text}`: run {feed.run} has {count:,} messages, from 1 on")
    return number


def forks_in(console: Console, view: RunView) -> list[Fork]:
    """Return the runs that go on from this one, as far as the index knows them, the newest first."""
    if not view.source.can_act:
        return []
    database = console.index.database
    if database is None:
        return []
    try:
        with files.told(console.index.path):
            found = forks_of(database, [view.run], _FORKS_MAX)
    except IndexUnusable as error:
        console.index.broken(error)
        return []
    return found.get(view.run, [])
