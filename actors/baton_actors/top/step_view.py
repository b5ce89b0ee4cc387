"""A step of a run: its branches and what it asked for as a table, and all else that there is to see of it as a text."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from textual.widget import Widget

from baton_actors.console.bell import Bell
from baton_actors.console.feeds import Feed, LiveStep
from baton_bus.client.seen import Read, fetcher, see_read
from baton_bus.errors import UnknownRun
from baton_schemas.errors import FlowUnreadable
from baton_schemas.show.errors import told
from baton_schemas.show.lines import seconds
from baton_schemas.show.step import BranchSeen, ChildSeen, StepSeen, step_of
from baton_schemas.wire.outcomes import Blob

from .drawn import one
from .lines import Lines
from .palette import Palette, mark, state_of
from .rows import Column, Row, Rows
from .step_text import text_of_step
from .view import View

if TYPE_CHECKING:
    from baton_actors.console.core import Console

_FETCH_MAX_BYTES = 8 * 1024 * 1024
"""Of values beside the log that are fetched for one step."""

BELOW = (
    Column(title="  branch, or asked for", wide=22),
    Column(title="status", wide=9),
    Column(title="tries", wide=5, right=True),
    Column(title="time", wide=9, right=True, from_wide=100),
    Column(title="what", wide=10, grows=True),
)


class StepView(View):
    """A step."""

    CSS = """
    StepView > #below { height: auto; max-height: 45%; }
    """
    here = "step"
    hint = "words of this page; n N go to the next, the previous place"

    def __init__(self, console: Console, palette: Palette, run: str, step: str) -> None:
        super().__init__(console, palette)
        self.run, self.step = run, step
        self.command = f"baton show {run} {step}"
        self.feed: Feed | None = None
        self._seen_at = (-1, 0)
        self._seen: StepSeen | None = None
        self._fetched: dict[str, bytes] = {}

    def body(self) -> Sequence[Widget]:
        """Return branches, if there are any, and the text."""
        self.below = Rows(BELOW, self.palette, id="below")
        self.below.display, self.below.follows = False, False
        self.text = Lines(self.palette, id="text")
        return [self.below, self.text]

    def on_mount(self) -> None:
        """Begin with the text: a table comes when there are branches."""
        super().on_mount()
        self.text.focus()

    def hearing(self) -> contextlib.AbstractAsyncContextManager[list[Bell]]:
        """Have the run heard."""
        return self._watching()

    async def look(self) -> tuple[StepSeen, LiveStep | None]:
        """Return what there is to see of it."""
        feed = self.feed
        assert feed is not None
        plan, state = feed.plan, feed.state
        if plan is None:
            raise FlowUnreadable(feed.run, state.result.reason if state.result else "")
        step = step_of(plan, state, self.step)
        running = feed.running().get(step, 0)
        at = (len(feed.entries), running)
        if self._seen is None or self._seen_at != at or state.result is None:
            read = Read(entries=feed.entries, state=state)
            self._seen = await see_read(read, step, self._fetch, self._origin, running=running)
            self._seen_at = at
        live = feed.live.get(step) if self._seen.status in ("queued", "running") else None
        return self._seen, live

    def paint(self, facts: tuple[StepSeen, LiveStep | None]) -> None:
        """Show it."""
        seen, live = facts
        self.entitle(("Step ", "bold"), (seen.label or seen.step, "bold"), (f"  {seen.flow} {seen.run}", "dim"))
        rows = [*map(_of_branch, seen.branches), *map(_of_child, seen.children)]
        if rows and not self.below.display:
            self.below.display = True
            self.below.focus()
        self.below.show(rows)
        self.below.styles.height = len(rows) + 1
        self.text.show(text_of_step(seen, live))
        self.every_s = 1.0 if seen.status in ("queued", "running", "joining") else 60.0
        assert self.feed is not None
        self.stored(self.feed.entries[-1].at.timestamp() if self.feed.entries else 0.0)

    def act_run(self) -> str:
        """Return its run."""
        return self.feed.run if self.feed is not None else ""

    def act_step(self) -> str:
        """Return it."""
        return self.step

    def opened(self, key: str) -> None:
        """Go into a branch, or into what it asked for."""
        self.app.push_screen(StepView(self.console, self.palette, self.run, key))

    def found(self, text: str) -> None:
        """Go to the first place that has these words."""
        if text:
            self.text.focus()
            self.text.scroll_to(y=0, animate=False)
            if not self.text.go_to(text, 1):
                self.app.say(f"{text!r} is nowhere on this page")

    def action_follow(self) -> None:
        """Stay with the end of what it writes."""
        self.text.focus()
        super().action_follow()

    async def _fetch(self, blobs: Sequence[Blob]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return what is kept beside the log; each is fetched once."""
        there = {blob.sha256: self._fetched[blob.sha256] for blob in blobs if blob.sha256 in self._fetched}
        fetch = partial(fetcher(self.console.bus, _FETCH_MAX_BYTES - sum(map(len, there.values()))))
        fetched, lacking = await fetch([blob for blob in blobs if blob.sha256 not in there])
        self._fetched = there | fetched
        return self._fetched, lacking

    async def _origin(self, run: str) -> Read | None:
        try:
            feed = await self.console.feeds.read(run)
        except UnknownRun:
            return None
        return Read(entries=feed.entries, state=feed.state) if feed.run == run else None

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[list[Bell]]:
        async with self.console.feeds.watching(self.run) as feed:
            self.feed = feed
            yield [feed.bell]


def _of_branch(branch: BranchSeen) -> Row:
    failed = branch.status == "failed"
    said = told(branch.error) if branch.error is not None else " ".join(branch.runs[:3])
    return Row(
        key=branch.step,
        cells=(
            (mark(branch.status), (" ", ""), *one(branch.step)),
            one(branch.status, state_of(branch.status) if branch.status != "done" else "dim"),
            one(f"{branch.attempts:,}" if branch.attempts else "", "mind" if branch.attempts > 1 else "dim"),
            (),
            one(said, "failed" if failed else "mind" if branch.error else "dim"),
        ),
        failed=failed,
    )


def _of_child(child: ChildSeen) -> Row:
    failed = child.status == "failed"
    said = told(child.error) if child.error is not None else child.asked
    return Row(
        key=child.step,
        cells=(
            (mark(child.status), (" ", ""), *one(child.label)),
            one(child.status, state_of(child.status) if child.status != "done" else "dim"),
            one(f"{child.attempts:,}" if child.attempts else "", "mind" if child.attempts > 1 else "dim"),
            one(seconds(child.elapsed_s) if child.elapsed_s is not None else "", "dim"),
            one(said, "failed" if failed else "dim"),
        ),
        failed=failed,
    )
