"""A run: how it stands, its steps, and where its time and money went."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Page
from baton_actors.console.sources import source_of
from baton_schemas.show.lines import one_line
from baton_schemas.show.rows import rows_of
from baton_schemas.show.why import error_of

_LINES = 200


async def run_page(console: Console, request: Request) -> Page:
    """Return a run. One that is named by a part of its id is looked for, and has its whole id in its address."""
    source = await source_of(console, request)
    feed = source.feed
    now = datetime.now(UTC)
    state, plan = feed.state, feed.plan
    rows = rows_of(state, plan, running=feed.running(), now=now)
    return Page(
        template="run.html",
        title=f"{state.flow} {feed.run}",
        here="runs",
        facts={
            "base": source.base,
            "state": state,
            "rows": rows,
            "error": error_of(state),
            "now": now,
            "lines": [one_line(entry) for entry in feed.entries[-_LINES:]],
        },
        json={"run": feed.run, "status": state.status, "steps": rows},
        command=source.command("show"),
        sources=source.sources,
        stored_at_s=feed.entries[-1].at.timestamp() if feed.entries and source.sources else 0.0,
    )
