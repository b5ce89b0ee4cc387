"""A run: how it stands, its steps, what they say just now, and its log or its output."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from msgspec import Raw
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static

from baton_actors.console.bell import Bell
from baton_actors.console.feeds import Feed
from baton_actors.console.words import between
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.costs import cost_of, dollars
from baton_schemas.show.excerpt import head_of, size, text_of
from baton_schemas.show.lines import one_line
from baton_schemas.show.row_words import called, status_in_words
from baton_schemas.show.rows import Row as StepRow
from baton_schemas.show.rows import rows_of
from baton_schemas.show.summary import steps_done, waits_of
from baton_schemas.show.why import why
from baton_schemas.wire.facts import Retry
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.outcomes import Blob, Done, Failed

from .drawn import one, ticking
from .lines import Lines
from .palette import Cell, Palette, mark, state_of
from .rows import Column, Row, Rows
from .view import View

if TYPE_CHECKING:
    from baton_actors.console.core import Console

_SAYS_MAX = 3
"""Steps whose words are shown: those that said something last."""
_WHY_MAX = 300
"""Characters of why it failed: the step has all of it."""
_TEXT_MAX = 64 * 1024
"""Characters of an output that are shown."""
_KINDS = {"result": "bold", "note": "dim", "unknown": "failed", "parked": "mind", "say": "mind"}

STEPS = (
    Column(title="  step", wide=16, grows=True),
    Column(title="status", wide=14, grows=True),
    Column(title="tries", wide=5, right=True),
    Column(title="tokens in", wide=9, right=True, from_wide=100),
    Column(title="out", wide=8, right=True, from_wide=100),
    Column(title="cost", wide=9, right=True),
    Column(title="time", wide=10, right=True),
)
LOG = (
    Column(title="n", wide=5, right=True),
    Column(title="after", wide=11, right=True),
    Column(title="message", wide=20, grows=True),
)


class RunView(View):
    """A run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("3", "part('steps')"),
        Binding("4", "part('log')"),
        Binding("5", "part('output')"),
    ]
    CSS = """
    RunView > #steps { height: auto; max-height: 50%; min-height: 3; }
    RunView > #says { max-height: 3; }
    RunView > #head { max-height: 6; }
    """
    here = "run"
    hint = "words of its log"

    def __init__(self, console: Console, palette: Palette, run: str) -> None:
        super().__init__(console, palette)
        self.run = run
        self.command = f"baton show {run}"
        self.feed: Feed | None = None
        self._lines: list[Row] = []
        self._rows: list[StepRow] = []

    def body(self) -> Sequence[Widget]:
        """Return header, steps, what they say, and the log."""
        self.steps = Rows(STEPS, self.palette, id="steps")
        self.log_ = Rows(LOG, self.palette, id="log", newest="last")
        self.output = Lines(self.palette, id="output")
        self.output.display = False
        # What is written first is a line, so that nothing moves when it comes.
        return [Static(id="head", markup=False), self.steps, Static(id="says", markup=False), self.log_, self.output]

    def hearing(self) -> contextlib.AbstractAsyncContextManager[list[Bell]]:
        """Have the run heard."""
        return self._watching()

    async def look(self) -> Feed:
        """Return the run as it has been heard."""
        assert self.feed is not None
        return self.feed

    def paint(self, facts: Feed) -> None:
        """Show it."""
        now = datetime.now(UTC)
        state = facts.state
        self._rows = rows_of(state, facts.plan, running=facts.running(), now=now)
        self.entitle(("Run ", "bold"), (state.flow or "?", "bold"), (f"  {facts.run}", "dim"))
        self.put("head", _head(state, self._rows, now))
        self.steps.styles.max_height = "50%" if self.size.height > 30 else "40%"
        before = len(self.steps.rows)
        self.steps.show([_step_row(row) for row in self._rows])
        if len(self.steps.rows) != before:
            self.steps.styles.height = len(self.steps.rows) + 1
        self.put("says", _says(facts))
        self._show_log(facts)
        if self.output.display:
            self.output.show(_output_of(state))
        self.every_s = 1.0 if state.status == "running" else 60.0
        self.stored(facts.entries[-1].at.timestamp() if facts.entries else 0.0)

    def act_run(self) -> str:
        """Return this run."""
        return self.feed.run if self.feed is not None else ""

    def act_step(self) -> str:
        """Return the chosen step."""
        return self.steps.chosen

    def opened(self, key: str) -> None:
        """Go into a step; from a message, into the step that it is about."""
        from .step_view import StepView

        step = key
        if self.pane is self.log_ and self.feed is not None:
            entry = next((each for each in self.feed.entries if str(each.seq) == key), None)
            step = str(getattr(entry.message, "step", "")) if entry is not None else ""
            if not step:
                self.app.say("this message is about no step")
                return
        self.app.push_screen(StepView(self.console, self.palette, self.act_run() or self.run, step))

    def found(self, text: str) -> None:
        """Show what in the log has these words."""
        self._lines.clear()
        self.action_part("log")
        self.again()

    def action_part(self, part: str) -> None:
        """Go to the steps, the log, or the output."""
        if part != "steps":
            self.log_.display = part == "log"
            self.output.display = part == "output"
            if part == "output" and self.feed is not None:
                self.output.show(_output_of(self.feed.state))
        {"steps": self.steps, "log": self.log_, "output": self.output}[part].focus()

    def _show_log(self, facts: Feed) -> None:
        """Show the lines of the log: those that are new are made, the others are kept."""
        if len(self._lines) > len(facts.entries):
            self._lines.clear()
        began = facts.head.started_at
        for number in range(len(self._lines), len(facts.entries)):
            self._lines.append(_log_row(facts.entries[number], number + 1, began))
        lines = self._lines
        if self.sought:
            wanted = self.sought.casefold()
            lines = [line for line in lines if wanted in line.cells[2][-1][0].casefold()]
        self.log_.show(lines if lines is not self._lines else list(lines))

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[list[Bell]]:
        async with self.console.feeds.watching(self.run) as feed:
            self.feed = feed
            self.command = f"baton show {feed.run}"
            yield [feed.bell]


def _head(state: RunState, rows: Sequence[StepRow], now: datetime) -> list[Cell]:
    """Return how a run stands, what it cost, and why it did not end well."""
    took = between(state.started_at, state.ended_at or now)
    own = [row for row in rows if not row.depth]
    after = "in" if state.status == "done" else "after"
    waits = waits_of(state, now)
    facts = [
        f"{after} {ticking(took, is_open=state.ended_at is None)}" if took is not None else "",
        f"{steps_done(own)} of {len(own)} steps",
        f"{state.usage.prompt_tokens:,} tokens in, {state.usage.output_tokens:,} out" if state.usage.tokens else "",
        cost_of(state),
        f"{dollars(state.wasted_usd)} of it in vain" if state.wasted_usd else "",
    ]
    said = f"waits for {waits}" if waits else state.status
    lines: list[Cell] = [
        (
            mark(state.status),
            (" ", ""),
            *one(said, state_of(state.status)),
            (" " + " · ".join(fact for fact in facts if fact), ""),
        )
    ]
    if state.status not in ("running", "done"):
        lines.append(one(head_of(why(state), _WHY_MAX), "failed"))
    if state.forked_from:
        lines.append(one(f"forked from {state.forked_from}", "dim"))
    if state.parent:
        lines.append(one(f"asked for by step {state.parent_step} of run {state.parent}", "dim"))
    if state.rehearsed:
        lines.append(one("rehearsed: no model was called, set ANTHROPIC_API_KEY to ask Claude", "mind"))
    return lines


def _step_row(row: StepRow) -> Row:
    failed = row.status == "failed" or bool(row.failed)
    took = row.elapsed_s
    is_open = row.status in ("queued", "running", "joining")
    said = status_in_words(row)
    if row.error and failed:
        said = f"{said}: {row.error.type}: {row.error.message}"
    elif row.status in ("queued", "running") and row.retries and not row.waits:
        said = f"{said} ↻{row.retries}"
    cost = "rehearsed" if row.rehearsed else dollars(row.cost_usd) if row.cost_usd is not None else ""
    asked: Cell = one(f"  {row.asked}", "dim") if row.asked else ()
    shown = "failed" if failed and row.status != "running" else state_of(row.status)
    return Row(
        key=row.token or row.step,
        cells=(
            (("  " * min(row.depth, 6), ""), mark(row.status), (" ", ""), *one(called(row)), *asked),
            one(said, "failed" if failed else "dim" if shown in ("waiting", "done") else shown),
            one(f"{row.attempts:,}" if row.attempts else "", "mind" if row.attempts > 1 else "dim"),
            one(f"{row.input_tokens:,}" if row.input_tokens else "", "dim"),
            one(f"{row.output_tokens:,}" if row.output_tokens else "", "dim"),
            one(cost, "dim" if row.rehearsed else ""),
            one(ticking(took, is_open=is_open), "" if is_open else "dim"),
        ),
        failed=failed,
    )


def _log_row(entry: Entry, number: int, began: datetime) -> Row:
    line = one_line(entry)
    kind = line.partition(" ")[0]
    message = entry.message
    failed = isinstance(getattr(message, "outcome", None), Failed) or (
        (isinstance(message, Note) and isinstance(message.fact, Retry))
        or (isinstance(message, Result) and message.status in ("failed", "expired"))
    )
    return Row(
        key=str(entry.seq),
        cells=(
            one(f"{number:,}", "dim"),
            one(f"{(entry.at - began).total_seconds():+.3f} s", "dim"),
            one(line, "failed" if failed else _KINDS.get(kind, "")),
        ),
        failed=failed,
    )


def _says(feed: Feed) -> list[Cell]:
    """Return what steps say, or write, just now."""
    running = feed.running()
    heard = [(live.at, step, live) for step, live in feed.live.items() if step in running and (live.says or live.wrote)]
    last = sorted(heard, key=lambda each: each[0])[-_SAYS_MAX:]
    return [
        (mark("running"), (" ", ""), *one(step, "bold"), *one(f"  {live.says or _end_of(live.wrote)}"))
        for _, step, live in sorted(last, key=lambda each: each[1])
    ]


def _end_of(text: str) -> str:
    """Return the end of what a model writes, in a line."""
    words = " ".join(text.split())
    return words if len(words) <= 160 else "…" + words[-160:]


def _output_of(state: RunState) -> list[Cell]:
    """Return what a run put out, or why it put nothing out."""
    outcome = state.result.outcome if state.result is not None else None
    if state.result is None:
        return [one("It has not ended: what it puts out comes here.", "dim")]
    if not isinstance(outcome, Done):
        return [one(why(state), "failed")]
    value: Raw | Blob | None = outcome.blob if outcome.blob is not None else outcome.output
    if isinstance(value, Blob):
        return [one(f"{size(value.size_bytes)}, kept beside the log: `baton show {state.run}` prints it", "mind")]
    text = text_of(value) if value is not None else ""
    lines = [one(line) for line in text[:_TEXT_MAX].expandtabs().split("\n")]
    if len(text) > _TEXT_MAX:
        lines.append(
            one(f"… {size(len(text.encode(errors='replace')))} in all: `baton show {state.run}` prints it", "dim")
        )
    return lines
