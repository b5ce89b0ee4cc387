"""A run as people see it: how it stands, its steps, what it cost, and what is to be said of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from baton_actors.cli.show.called import unasked_of
from baton_actors.cli.show.console import MARKS
from baton_actors.cli.show.costs import cost_of, dollars, rehearsal_line
from baton_actors.cli.show.people import people_lines
from baton_actors.cli.show.saving import cached_of, saving_of
from baton_actors.cli.show.step_lines import errors_of, skips_of, waits_of
from baton_actors.cli.show.steps_table import steps_table
from baton_actors.cli.text import plain
from baton_actors.models.saved import saved_by_run
from baton_schemas.run.child_runs import runs_asked
from baton_schemas.run.state import RunState
from baton_schemas.show.lines import seconds
from baton_schemas.show.rows import Row
from baton_schemas.show.spans import SpanKind, time_in_words
from baton_schemas.show.summary import Summary, steps_done

_ASKED_MAX = 5
"""Steps of which it is said which runs they asked for."""


def run_page(
    state: RunState,
    rows: Sequence[Row],
    now: datetime | None = None,
    shares: Mapping[SpanKind, float] | None = None,
) -> RenderableType:
    """Return how a run stands: header, steps, totals, and the errors of steps; with `shares`, on what its time went."""
    parts: list[RenderableType] = [
        header(state, now),
        Text(),
        steps_table(rows),
        Text(),
        Text(totals(state, rows), "dim"),
    ]
    if shares:
        parts.append(Text(time_in_words(shares), "dim"))
    parts += waits_of(rows)
    parts += skips_of(rows)
    parts += unasked_of(rows)
    parts += people_lines(state)
    parts += errors_of(rows)
    parts += runs_of(state)
    if state.rehearsed:
        parts.append(rehearsal_line())
    if state.result is not None and state.result.reason:
        parts.append(Text(plain(state.result.reason)))
    if state.foreign:
        parts.append(foreign_line(state.foreign))
    return Group(*parts)


def header(state: RunState, now: datetime | None = None) -> Text:
    """Return what run this is and how it stands: one line, and one more if it goes on from another."""
    mark, style = MARKS[state.status]
    text = Text.assemble((f"{mark} ", style), (plain(state.flow or "?"), "bold"), ("  " + plain(state.run), "dim"))
    text.append(f"  {state.status}", style)
    if elapsed := elapsed_of(state, now):
        text.append(f" {'after' if state.status != 'done' else 'in'} {elapsed}", "dim")
    if state.forked_from:
        text.append(f"\n  forked from {plain(state.forked_from)}", "dim")
    if state.parent:
        text.append(f"\n  asked for by step {plain(state.parent_step)} of run {plain(state.parent)}", "dim")
    return text


def totals(state: RunState, rows: Sequence[Row]) -> str:
    """Return steps, tokens and cost of the whole run: one line."""
    own = [row for row in rows if not row.depth]
    parts = [f"{steps_done(own)} of {len(own)} steps"]
    if children := sum((row.count or 1) * bool(row.depth) + row.hidden for row in rows):
        parts.append(f"{children:,} asked")
    usage = state.usage
    if usage.tokens:
        parts.append(f"{usage.prompt_tokens:,} tokens in{cached_of(usage)}, {usage.output_tokens:,} out")
    if cost := cost_of(state):
        wasted = f", of which {dollars(state.wasted_usd)} for attempts that failed" if state.wasted_usd else ""
        parts.append(cost + wasted)
    if saving := saving_of(saved_by_run(state)):
        parts.append(saving)
    return " · ".join(parts)


def elapsed_of(state: RunState | Summary, now: datetime | None = None) -> str:
    """Return how long a run took, or has taken up to now; nothing when it is not known."""
    end = state.ended_at or now
    if state.started_at is None or end is None:
        return ""
    return seconds(max((end - state.started_at).total_seconds(), 0.0))


def runs_of(state: RunState) -> list[Text]:
    """Return a line for each step that asked for runs of their own, or for some of them, and how to see the others."""
    asked = runs_asked(state)
    lines = []
    for step, runs in list(asked.items())[:_ASKED_MAX]:
        more = f" and {len(runs) - 1:,} more" if len(runs) > 1 else ""
        lines.append(Text(f"{plain(step)} asked for run {plain(runs[0])}{more}", "dim"))
    if len(asked) > _ASKED_MAX or any(len(runs) > 1 for runs in asked.values()):
        count = sum(map(len, asked.values()))
        lines.append(Text(f"all {count:,}: baton runs --of {plain(state.run)}", "dim"))
    return lines


def foreign_line(count: int) -> Text:
    """Say that others wrote results of this run too, and that they count for nothing."""
    those = "a result beside its own" if count == 1 else f"{count:,} results beside its own"
    return Text(f"{those}: written by somebody else, changes nothing (`baton log` shows who)", style="yellow")
