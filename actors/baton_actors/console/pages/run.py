"""A run: how it stands, its graph, branches, timeline, steps, log and output, as it is or as it was after a message."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from baton_actors.console.core import Console
from baton_actors.console.feeds import Feed
from baton_actors.console.page import Page
from baton_actors.console.run_view import RunView
from baton_actors.console.sources import source_of
from baton_bus.index import file as files
from baton_bus.index.errors import IndexUnusable
from baton_bus.index.finding import Wanted, find
from baton_schemas.run.state import Entry
from baton_schemas.show.export import dump

_FORKS_AMONG = 200
"""Later runs of the same flow among which forks are looked for."""
_DIGITS_MAX = 12
_CHUNK_BYTES = 64 * 1024


async def run_page(console: Console, request: Request) -> Page:
    """Return a run. One that is named by a part of its id is looked for, and has its whole id in its address."""
    source = await source_of(console, request)
    feed, given = source.feed, request.query_params
    at = number_in(given.get("at", ""), feed, "at")
    log_from = number_in(given.get("log", ""), feed, "log")
    view = RunView(source, datetime.now(UTC), at=at, log_from=log_from or 0)
    return page_of(console, view)


def page_of(console: Console, view: RunView, **more: Any) -> Page:
    """Return the page of a run as `view` shows it; `more` is in place of what is said here."""
    state, follows = view.state, view.at is None

    def steps() -> dict[str, Any]:
        return {
            "run": view.run,
            "flow": state.flow,
            "status": state.status,
            "at": view.number,
            "messages": view.count,
            "why": view.why,
            "error": view.error,
            "started_at": state.started_at,
            "ended_at": state.ended_at,
            "cost_usd": state.cost_usd,
            "wasted_usd": state.wasted_usd,
            "unpriced": state.unpriced,
            "rehearsed": state.rehearsed,
            "usage": state.usage,
            "parent": state.parent,
            "forked_from": state.forked_from,
            "steps": view.rows,
            "branches": {name: each.signs for name, each in view.branches.items()},
            "late": state.late,
        }

    facts: dict[str, Any] = {
        "template": "run.html",
        "title": f"{state.flow} {view.run}",
        "here": view.source.here,
        "facts": {**view.facts(), "forks": lambda: forks_of(console, view), "message": None, "is_message": False},
        "json": steps,
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


def forks_of(console: Console, view: RunView) -> list[str]:
    """Return the runs that go on from this one, as far as the index knows them, the newest first."""
    if not view.source.can_act:
        return []
    database = console.index.database
    if database is None:
        return []
    wanted = Wanted(limit=_FORKS_AMONG, flow=view.state.flow, since=view.state.started_at)
    try:
        with files.told(console.index.path):
            rows = find(database, wanted, view.now)
    except IndexUnusable as error:
        console.index.broken(error)
        return []
    return [row.summary.run for row in rows if row.summary.forked_from == view.run]


async def export_page(console: Console, request: Request) -> Response:
    """Return a run as JSON lines, to be kept: what `baton export` writes."""
    feed = (await source_of(console, request)).feed
    return StreamingResponse(
        _lines(tuple(feed.entries)),
        media_type="application/x-ndjson",
        headers={"content-disposition": f'attachment; filename="{feed.run}.jsonl"'},
    )


async def _lines(entries: Sequence[Entry]) -> AsyncIterator[bytes]:
    """Yield entries as lines, many at a time; others are answered between."""
    lines, size = [], 0
    for entry in entries:
        lines.append(dump(entry))
        size += len(lines[-1])
        if size >= _CHUNK_BYTES:
            yield b"".join(lines)
            lines, size = [], 0
            await asyncio.sleep(0)
    yield b"".join(lines)
