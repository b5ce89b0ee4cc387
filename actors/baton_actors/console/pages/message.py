"""One message of a run: what it brought and what it says, byte for byte, and how the run stood after it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Page
from baton_actors.console.run_view import RunView
from baton_actors.console.shown import Shown, shown
from baton_actors.console.sources import source_of
from baton_schemas.show.brought import Brought, blobs_named, brought_by
from baton_schemas.show.errors import told
from baton_schemas.show.excerpt import Excerpt, excerpt
from baton_schemas.show.lines import is_rehearsed

from .run import number_in, page_of

_SMALL_BYTES = 64 * 1024
"""Values beside the log that are shown with a message."""
_LINES, _WIDE = 40, 160
"""Of an error: the page of its step has all of it."""
_WINDOW_CHARS = 64 * 1024
"""Of a long message, so much at a time."""


class BroughtShown(Struct, frozen=True, kw_only=True):
    """What a message brought, as a page shows it."""

    step: str
    what: str
    shown: Shown | None = None
    error: Excerpt | None = None


async def message_page(console: Console, request: Request) -> Page:
    """Return a run as it stood after one of its messages, with that message."""
    source = await source_of(console, request)
    feed = source.feed
    number = number_in(request.path_params["number"], feed, "message") or 1
    view = RunView(source, datetime.now(UTC), at=number)
    entry = feed.entries[number - 1]
    fetched, _ = await source.fetch([blob for blob in blobs_named(entry.message) if blob.size_bytes <= _SMALL_BYTES])
    brought = brought_by(view.plan, feed.entries, number, fetched)
    headers = await source.headers(entry.seq)
    text = _as_text(entry.data)
    begin = min(int(start), len(text)) if (start := request.query_params.get("from", "0")).isdecimal() else 0
    message = {
        "entry": entry,
        "line": view.log.last,
        "rehearsed": is_rehearsed(entry),
        "brought": [_shown(each) for each in brought],
        "headers": headers,
        "text": text[begin : begin + _WINDOW_CHARS],
        "begin": begin,
        "next": begin + _WINDOW_CHARS if begin + _WINDOW_CHARS < len(text) else 0,
        "chars": len(text),
    }

    def facts() -> dict[str, Any]:
        return {
            "run": view.run,
            "number": number,
            "seq": entry.seq,
            "at": entry.at,
            "subject": entry.subject,
            "headers": message["headers"],
            "message": Raw(entry.data) if _is_json(entry.data) else None,
            "text": None if _is_json(entry.data) else entry.data.decode(errors="replace"),
            "changed": sorted(view.changed),
            "status": view.state.status,
            "steps": view.rows,
        }

    return page_of(
        console,
        view,
        template="message.html",
        title=f"Message {number} of {view.run}",
        facts={"message": message, "is_message": True},
        json=facts,
        command=f"baton replay {view.run}",
    )


def _shown(brought: Brought) -> BroughtShown:
    return BroughtShown(
        step=brought.step,
        what=brought.what,
        shown=shown(brought.what, brought.value) if brought.value is not None else None,
        error=excerpt(told(brought.error), lines_max=_LINES, width=_WIDE) if brought.error is not None else None,
    )


def _as_text(data: bytes) -> str:
    """Return a message as JSON that people can read, or as the text that it is."""
    if _is_json(data):
        return msgspec.json.format(data, indent=2).decode(errors="replace")
    return data.decode(errors="replace")


def _is_json(data: bytes) -> bool:
    try:
        data.decode()
        msgspec.json.decode(data)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return False
    return True
