"""The progress of a run while it runs: a live table on a terminal, else one plain line per step that ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from baton_actors.cli.show.called import called
from baton_actors.cli.show.console import MARKS
from baton_actors.cli.show.lost import Lost, with_lost
from baton_actors.cli.show.people import open_lines
from baton_actors.cli.show.run_page import elapsed_of, totals
from baton_actors.cli.show.step_lines import skips_of, waits_of
from baton_actors.cli.show.steps_table import steps_table
from baton_actors.cli.show.streaming import Streaming
from baton_actors.cli.show.words import STEPS_MAX, Spoken, Words, word_line
from baton_actors.cli.text import plain
from baton_bus import BusError
from baton_bus.client.watching import watch_all
from baton_bus.store.bus import Bus
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import RunFold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.errors import told
from baton_schemas.show.lines import seconds
from baton_schemas.show.rows import Row, rows_of
from baton_schemas.show.unfolding import CHILDREN_MAX, room_for
from baton_schemas.wire.messages import Note
from baton_schemas.wire.words import Running, Word

_LOOKS_PER_S = 8
"""How often what is shown is made anew: smooth to the eye, and no load with a thousand branches."""
_REST = 4
"""With ten thousand branches or children a look takes a tenth of a second: this many times longer nobody looks."""
_ROWS_BESIDE = 8
"""Lines of the screen beside the table of steps."""
_TOLD_EVERY_S = 1.0
"""How often what a step says is a new line, where there is no table that shows it."""
_TOLD_MAX = 3
"""Lines of it at one look: of a thousand branches that speak at once, not each is read."""
SETTLE_S = 2.0
"""From the result to the moment when the progress has heard it too: some milliseconds."""
_ENDED = frozenset({"done", "failed", "skipped"})


class Progress:
    """Follows one run and shows it on a console until the context ends."""

    def __init__(
        self,
        bus: Bus,
        plan: Plan,
        run: str,
        console: Console,
        *,
        shows: bool,
        live: bool = True,
        lost: Lost | None = None,
        streaming: Streaming | None = None,
        transient: bool = False,
    ) -> None:
        """With `shows` false it only follows, so that `state` is known at the end; `live` says whether a
        terminal may have a live table, which goes in the end when it is `transient`; `lost` are steps of dead workers.

        `streaming` is given what steps say; then that is told in lines too."""
        self._streaming, self._transient = streaming, transient
        self._words = Words()
        self._words_told: dict[str, tuple[str, float]] = {}
        self._lost, self._live_table = lost or Lost(), live
        self.run = run
        self._bus, self._plan, self._console, self._shows = bus, plan, console, shows
        self._fold = RunFold()
        self._running: dict[str, int] = {}
        self._told: set[str] = set()
        self._counts_told: dict[str, int] = {}
        """By row of children: how many of them were told to have ended."""
        self._waits_told: set[tuple[str, str]] = set()
        self._asked_told: set[str] = set()
        self._ended = asyncio.Event()

    @property
    def state(self) -> RunState:
        """What the log has said so far."""
        return self._fold.state

    @property
    def rows(self) -> list[Row]:
        """The steps as they are now."""
        room = CHILDREN_MAX
        if self._console.is_terminal:  # what is above the screen is not drawn anew
            room = room_for(self._console.height - len(self._plan.order) - _ROWS_BESIDE)
        rows = rows_of(self._fold.state, self._plan, running=self._running, now=self._now, children_max=room)
        return with_lost(rows, self._lost.steps())

    @property
    def _now(self) -> datetime:
        """The time by the clock that dates the messages."""
        return datetime.fromtimestamp(self._bus.now_s(), UTC)

    async def settled(self, patience_s: float | None) -> RunState:
        """Return the state once the result is among what was heard, or after `patience_s` seconds (None: any time)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._ended.wait()
        return self._fold.state

    @contextlib.asynccontextmanager
    async def showing(self) -> AsyncIterator[Progress]:
        """Follow and show while the context is open; what is then shown stays."""
        following = asyncio.create_task(self._follow(), name=f"progress of {self.run}")
        has_table = self._live_table and self._streaming is None and self._console.is_terminal
        shown = self._live() if has_table else self._lines()
        try:
            async with shown if self._shows else contextlib.nullcontext():
                yield self
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        # A bus that is gone is told by who waits for the result; here it only means nothing new to show.
        try:
            with contextlib.suppress(BusError):
                async with aclosing(watch_all(self._bus, self.run)) as events:
                    async for event in events:
                        self._take(event)
        finally:
            self._ended.set()

    def _take(self, event: Entry | Running | Word) -> None:
        if isinstance(event, Entry):
            self._fold.apply(event)
            if isinstance(event.message, Note):
                self._running.pop(event.message.step, None)
                self._words.forget(event.message.step)
                self._lost.found(event.message.step)
            return
        if len(self._running) < STEPS_MAX:
            self._running[event.step] = event.attempt
        self._lost.found(event.step)
        self._words.hear(event)
        if self._streaming is not None and not isinstance(event, Running):
            if self._shows:
                self._tell()  # before a text begins, and has the terminal for itself
            self._streaming.hear(event)

    @contextlib.asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        live = Live(
            console=self._console,
            auto_refresh=False,
            vertical_overflow="visible",
            redirect_stdout=False,
            transient=self._transient,
        )
        live.start()
        try:
            async with _ticking(lambda: live.update(self._page(), refresh=True)):
                yield
        finally:
            with contextlib.suppress(OSError):  # the terminal is gone
                live.stop()

    def _page(self) -> Group:
        state, rows = self._fold.state, self.rows
        head = Text.assemble((self._plan.flow.name, "bold"), (f"  {self.run}", "dim"))
        page: list[RenderableType] = [head, Text(), steps_table(rows), Text(), *skips_of(rows)]
        if state.result is None:  # at the end the command says it, with how the run ended
            page += [*waits_of(rows), *self._words.lines(state)]
            page += [line for lines in open_lines(state).values() for line in lines]
            page.append(Text(f"{totals(state, rows)} · {elapsed_of(state, self._now)}", "dim"))
        return Group(*page)

    @contextlib.asynccontextmanager
    async def _lines(self) -> AsyncIterator[None]:
        async with _ticking(self._tell):
            yield

    def _tell(self) -> None:
        if self._streaming is not None:
            if self._streaming.is_writing:
                return
            self._tell_words()
        rows = self.rows
        ended = {row.step for row in rows if row.status in _ENDED}
        for row in _askers_last(rows):
            key = row.token or f"{row.asker} {row.step}"
            if row.depth and row.count:
                # More of them may come: they are told of when they are twice as many, and when who asks has ended.
                told = self._counts_told.get(key, 0)
                if row.ended > told and (row.ended >= 2 * told or row.asker in ended):
                    self._counts_told[key] = row.ended
                    self._console.print(Text(_line(row)), soft_wrap=True)
            elif row.status in _ENDED and key not in self._told:
                self._told.add(key)
                self._console.print(Text(_line(row)), soft_wrap=True)
            elif row.waits and row.waits_s is None and (key, row.waits) not in self._waits_told:
                self._waits_told.add((key, row.waits))
                for line in waits_of([row]):
                    self._console.print(line, soft_wrap=True)
        for name, lines in open_lines(self._fold.state, self._asked_told).items():
            self._asked_told.add(name)
            for line in lines:
                self._console.print(line, soft_wrap=True)

    def _tell_words(self) -> None:
        now, left = time.monotonic(), _TOLD_MAX
        for step, spoken in self._words.standing(self._fold.state).items():
            told, told_at = self._words_told.get(step, ("", 0.0))
            if left and spoken.says and spoken.says != told and now - told_at >= _TOLD_EVERY_S:
                left -= 1
                self._words_told[step] = spoken.says, now
                self._console.print(word_line(step, Spoken(spoken.attempt, spoken.says)), soft_wrap=True)


@contextlib.asynccontextmanager
async def _ticking(look: Callable[[], None]) -> AsyncIterator[None]:
    async def tick() -> None:
        while True:
            before_s = time.monotonic()
            look()
            await asyncio.sleep(max(1 / _LOOKS_PER_S, _REST * (time.monotonic() - before_s)))

    ticker = asyncio.create_task(tick(), name="progress")
    try:
        yield
    finally:
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
        with contextlib.suppress(OSError):  # the terminal is gone
            look()


def _line(row: Row) -> str:
    """Return `✓ digest  60/60 done in 4.1 s, 1 retry`, for logs and pipes."""
    parts = [f"{row.status} in {seconds(row.elapsed_s)}" if row.elapsed_s is not None else row.status]
    if row.retries:
        parts.append(f"{row.retries} {'retry' if row.retries == 1 else 'retries'}")
    if row.failed and row.count:
        parts.append(f"{row.failed} failed")
    if row.rehearsed:
        parts.append("rehearsed")
    if row.error and row.status == "failed":
        parts.append(plain(told(row.error)))
    if row.reason and row.status == "skipped":
        parts = [plain(f"skipped: {row.reason}")]
    counter = f"  {row.ended}/{row.count}" if row.count else ""
    if row.depth and row.count and row.ended < row.count:
        parts[0] = "so far"
    return f"{MARKS[row.status][0]} {plain(row.step if row.count else called(row))}{counter}  " + ", ".join(parts)


def _askers_last(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows, those of what a step asked for before that of the step: so they end, too."""
    blocks: list[list[Row]] = []
    for row in rows:
        if not row.depth:
            blocks.append([])
        blocks[-1:] = [[*(blocks[-1] if blocks else []), row]]
    for block in blocks:
        yield from sorted(block, key=lambda row: -row.depth)
