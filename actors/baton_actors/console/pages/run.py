"""A run: how it stands, its steps, and where its time and money went."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Moved, Page, of_run
from baton_schemas.show.lines import one_line
from baton_schemas.show.rows import rows_of
from baton_schemas.show.why import error_of

_LINES = 200


async def run_page(console: Console, request: Request) -> Page:
    """Return a run. One that is named by a part of its id is looked for, and has its whole id in its address."""
    name = request.path_params["run"]
    feed = await console.feeds.read(name)
    if feed.run != name:
        raise Moved(f"/runs/{feed.run}")
    now = datetime.now(UTC)
    state, plan = feed.state, feed.plan
    rows = rows_of(state, plan, running=feed.running(), now=now)
    return Page(
        template="run.html",
        title=f"{state.flow} {feed.run}",
        here="runs",
        facts={
            "state": state,
            "rows": rows,
            "error": error_of(state),
            "now": now,
            "lines": [one_line(entry) for entry in feed.entries[-_LINES:]],
        },
        json={"run": feed.run, "status": state.status, "steps": rows},
        command=f"baton show {feed.run}",
        sources=(of_run(feed.run),),
        stored_at_s=feed.entries[-1].at.timestamp() if feed.entries else 0.0,
    )
