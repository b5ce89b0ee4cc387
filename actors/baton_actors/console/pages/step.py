"""A step: what it read, was asked and answered, the attempts at it, what it asked for, and who read what it put out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Given, Page
from baton_actors.console.sources import source_of
from baton_actors.console.step_view import StepView
from baton_schemas.errors import FlowUnreadable
from baton_schemas.show.step import step_of
from baton_schemas.show.step_facts import step_facts

from .branches import branches_page, is_fan_out


async def step_page(console: Console, request: Request) -> Page:
    """Return a step, a branch of one (`digest-7`), or what one asked for (`researcher#3`).

    The name of a whole fan-out leads to the page of its branches.
    """
    source = await source_of(console, request)
    feed = source.feed
    if feed.plan is None:
        raise FlowUnreadable(feed.run, feed.state.result.reason if feed.state.result else "")
    name = request.path_params["step"]
    step = step_of(feed.plan, feed.state, name)
    if is_fan_out(feed.state, step):
        return await branches_page(console, request)
    seen = await source.see(step)
    view = StepView(source, seen, feed.plan, Given(request.query_params), datetime.now(UTC))
    if view.as_ == "rendered":
        await asyncio.to_thread(lambda: view.answer)  # a table of many columns takes seconds
    live = feed.live.get(step) if seen.status in ("queued", "running") else None
    return Page(
        template="step.html",
        title=f"{view.name} of {seen.flow} {feed.run}",
        here=source.here,
        facts={"view": view, "seen": seen, "base": source.base, "live": live},
        json=step_facts(seen, view.saved_usd),
        command=source.command("show", name),
        sources=source.sources if feed.state.result is None else (),
        stored_at_s=feed.entries[-1].at.timestamp() if feed.entries and source.sources else 0.0,
    )
