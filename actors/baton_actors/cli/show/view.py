"""What people see of runs: tables and lines, calm and aligned. Pure: state in, things that rich can print out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from shlex import quote

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from baton_actors.cli.show.called import NAMES_WIDE, asked_text, called, counted, error_of_child, indent, unasked_of
from baton_actors.cli.show.people import open_roles, people_lines
from baton_actors.cli.show.rows import Row
from baton_actors.cli.text import plain
from baton_schemas.run.child_runs import runs_asked
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.children import is_child
from baton_schemas.show.errors import told
from baton_schemas.show.lines import one_line, seconds
from baton_schemas.wire.outcomes import Error, Failed

MARKS = {
    "waiting": ("·", "dim"),
    "queued": ("·", "dim"),
    "joining": ("○", "cyan"),
    "running": ("●", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("\N{EN DASH}", "dim"),
    "dropped": ("\N{EN DASH}", "dim"),
    "cancelled": ("\N{EN DASH}", "yellow"),
    "expired": ("\N{EN DASH}", "yellow"),
}
"""Sign and colour of each status: the sign says the same without the colour."""

_COLOURS = Theme({"green": "color(28)", "cyan": "color(30)", "yellow": "color(136)", "red": "color(160)"})
"""What the names of colours stand for: shades that can be read on black and on white alike. A terminal's own yellow and
cyan vanish on white in many. A test works out their contrast."""

_KINDS = {
    "handoff": "cyan",
    "reply": "cyan",
    "answer": "cyan",
    "outcome": "green",
    "note": "yellow",
    "parked": "yellow",
    "say": "yellow",
    "result": "bold",
    "unknown": "red",
}
_REHEARSED = "rehearsed"
_ASKED_MAX = 5
"""Steps of which it is said which runs they asked for."""
_ASKED_WIDE = 14
"""Columns for what a child was asked, at least: there had better be no columns of tokens than no words of it."""
_LEAST_WIDE = 12
"""Columns of the names of steps, and of how they stand, where there is no room for more."""
_PADDING = 2
"""Columns that rich puts behind each column of a table, also behind the last."""
_ANSWERED = frozenset({"done", "failed", "skipped"})
_STANDING_WIDE = 24
"""Columns of how a run stands in a list of runs."""
_OFFSET_WIDE = len("   1      +0.000 s  ")
"""Columns of the number and the time of a message in a log."""


def console(*, stderr: bool = False) -> Console:
    """Return where a command prints: texts as they are, colours only on a terminal and without NO_COLOR."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, theme=_COLOURS)


class _Steps:
    """The steps of a run as a table, as wide as the console allows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        asks = any(row.depth for row in self._rows)
        for tokens, costs in ((True, True), (False, True), (False, False)):
            table = _steps_table(self._rows, tokens=tokens, costs=costs)
            if _narrowest(table) <= options.max_width - (_PADDING if asks else 0):
                break
        if asks:
            _make_fit(table, options.max_width)
        yield table


def steps_table(rows: Sequence[Row]) -> RenderableType:
    """Return the steps of a run. Columns that no row has anything for are left out, and those of tokens and cost where
    there is no room for them: with all of them it fits 80 columns.
    """
    return _Steps(rows)


def _narrowest(table: Table) -> int:
    """Return the columns that a table needs when those of its columns that may give way do."""
    widths = [
        column.min_width
        if column.min_width and not column.no_wrap
        else max(map(_cells_of, (column.header, *column.cells)))
        for column in table.columns
    ]
    return sum(widths) + 2 * (len(widths) - 1)


def _make_fit(table: Table, width: int) -> None:
    """Narrow the columns that may give way, what steps are called before how they stand: rich would all alike."""
    widths = [max(map(_cells_of, (column.header, *column.cells))) for column in table.columns]
    excess = sum(widths) + _PADDING * len(widths) - width
    may_give_way = [number for number, column in enumerate(table.columns) if column.min_width and not column.no_wrap]
    for least in (0, _LEAST_WIDE):
        for number in may_give_way if excess > 0 else ():
            column, wide = table.columns[number], widths[number]
            widths[number] = column.width = max(wide - excess, least or column.min_width or 0)
            column.min_width = min(column.min_width or 0, column.width)
            excess -= wide - widths[number]


def _cells_of(cell: RenderableType) -> int:
    return cell.cell_len if isinstance(cell, Text) else cell_len(str(cell))


def _steps_table(rows: Sequence[Row], *, tokens: bool = True, costs: bool = True) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    tokens = tokens and any(row.input_tokens or row.output_tokens for row in rows)
    costs = costs and any(row.cost_usd is not None or row.rehearsed for row in rows)
    # These two give way when the others need room: rich narrows columns that may wrap, and their texts do not.
    deepest = max((row.depth for row in rows), default=0)
    names = [len(called(row)) + len(indent(row, deepest)) + 2 + _words_wide(row) for row in rows if row.depth]
    for heading, wide in (("  step", min(max(names, default=0), NAMES_WIDE)), ("status", 16 if names else 0)):
        table.add_column(Text(heading.ljust(16), no_wrap=True, overflow="crop"), min_width=max(wide, 12))
    table.add_column("tries", justify="right", no_wrap=True)
    if tokens:
        table.add_column("tokens in", justify="right", no_wrap=True)
        table.add_column("out", justify="right", no_wrap=True)
    if costs:
        table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True, min_width=7)
    for row in rows:
        cells: list[Text] = [_step(row, deepest), _status(row), _number(row.attempts if row.attempts else 0)]
        if tokens:
            cells += [_number(row.input_tokens), _number(row.output_tokens)]
        if costs:
            cells.append(_cost(row))
        time = seconds(row.elapsed_s) if row.elapsed_s is not None else ""
        table.add_row(*cells, Text(time, style="" if row.status == "running" else "dim"))
    return table


def _words_wide(row: Row) -> int:
    """Return the columns that the first words of what a child was asked take, with the space before them."""
    return min(len(row.asked), _ASKED_WIDE) + 2 if row.asked else 0


def errors_of(rows: Iterable[Row]) -> list[Text]:
    """Return a line for each step that failed; of a fan-out, one branch stands for the others."""
    failed = [row for row in rows if row.error and (row.failed or row.status == "failed")]
    return [
        Text.assemble(
            ("✗ ", "red"),
            error_line(error_of_child(row.error, row), row.step),
            _others(row),
        )
        for row in failed
        if row.error
    ]


def look_at(state: RunState, rows: Iterable[Row]) -> str:
    """Return the command that shows more: of the step that failed, if one did, else of the run."""
    failed = [
        row.error_of or row.error.step or row.step
        for row in rows
        if row.error and (row.failed or row.status == "failed")
    ]
    error = error_of(state)
    step = error.step if error is not None and error.step in state.steps else next(iter(failed), "")
    return plain(f"baton show {state.run} {quote(step) if step else ''}".rstrip())


def waits_of(rows: Iterable[Row]) -> list[Text]:
    """Return a line for each step that waits for something outside: the column of its status has not the room."""
    waits = [row for row in rows if row.waits and row.waits_s is None]
    return [
        Text.assemble(("· ", "yellow"), (plain(called(row)), "bold"), f"  {_waits(row)}", asked_text(row, ": "))
        for row in waits
    ]


def skips_of(rows: Iterable[Row]) -> list[Text]:
    """Return a line for each step that was skipped, with the reason: the way that the run did not take."""
    skipped = [row for row in rows if row.status == "skipped" and row.reason]
    return [Text(plain(f"{MARKS['skipped'][0]} {row.step}  skipped: {row.reason}"), "dim") for row in skipped]


def error_line(error: Error, step: str = "") -> Text:
    """Return what went wrong in which step; `step` is for an error that names none."""
    said = plain(f"  {told(error)}")
    return Text.assemble((plain(error.step or step), "bold"), said)


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
    done = sum(1 for row in own if row.status in ("done", "skipped"))
    parts = [f"{done} of {len(own)} steps"]
    if children := sum((row.count or 1) * bool(row.depth) + row.hidden for row in rows):
        parts.append(f"{children:,} asked")
    read = state.usage.input_tokens + state.usage.cache_read_tokens + state.usage.cache_write_tokens
    if read or state.usage.output_tokens:
        parts.append(f"{read:,} tokens in, {state.usage.output_tokens:,} out")
    if cost := cost_of(state):
        wasted = f", of which {dollars(state.wasted_usd)} for attempts that failed" if state.wasted_usd else ""
        parts.append(cost + wasted)
    return " · ".join(parts)


def cost_of(state: RunState) -> str:
    """Return the price of a run; a lower bound where a price is not known; nothing where no model was called."""
    if not state.cost_usd and not state.unpriced:
        return _REHEARSED if state.rehearsed else "" if state.cost_usd is None else dollars(0.0)
    cost = dollars(state.cost_usd or 0.0)
    return ("at least " if state.unpriced else "") + cost + (f", partly {_REHEARSED}" if state.rehearsed else "")


def dollars(value_usd: float) -> str:
    """Return a price with as many digits as matter: `$0.0042`, `$1.30`."""
    return f"${value_usd:,.2f}" if value_usd >= 1 else f"${value_usd:.4f}"


def elapsed_of(state: RunState, now: datetime | None = None) -> str:
    """Return how long a run took, or has taken up to now; nothing when it is not known."""
    end = state.ended_at or now
    if state.started_at is None or end is None:
        return ""
    return seconds(max((end - state.started_at).total_seconds(), 0.0))


def rehearsal_line() -> Text:
    """Say that what follows was made by no model."""
    return Text("rehearsed: no model was called, set ANTHROPIC_API_KEY to ask Claude", style="yellow")


def rehearsing_line() -> Text:
    """Say that what is to come is made by no model."""
    return Text("rehearses: no model is called, set ANTHROPIC_API_KEY to ask Claude", style="yellow")


def log_line(entry: Entry, started_at: datetime, number: int = 0) -> Text:
    """Return one message of a log with the time since the run began, and its `number` in the run if it is not 0."""
    kind, _, rest = one_line(entry).partition(" ")
    offset_s = (entry.at - started_at).total_seconds()
    before = f"{number:>4}  " if number else ""
    return Text.assemble(before, (f"{offset_s:+10.3f} s  ", "dim"), (kind, _KINDS.get(kind, "")), " " + rest)


def log_rows(entry: Entry, started_at: datetime, number: int) -> Table:
    """Return the same for a terminal: what is too long for a line goes on below where it began."""
    before, after = log_line(entry, started_at, number).divide([_OFFSET_WIDE])
    table = Table.grid()
    table.add_column(width=_OFFSET_WIDE, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(before, after)
    return table


def runs_table(states: Sequence[RunState], now: datetime) -> Table:
    """Return runs, one a line; it fits 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    # These two give way when the others need room, as in `steps_table`.
    table.add_column(Text("  run", no_wrap=True), min_width=12)
    table.add_column(Text("flow", no_wrap=True), max_width=20)
    table.add_column("status", no_wrap=True, max_width=_STANDING_WIDE)
    table.add_column("started", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    for state in states:
        mark, style = MARKS[state.status]
        table.add_row(
            Text.assemble((f"{mark} ", style), plain(state.run), no_wrap=True, overflow="ellipsis"),
            Text(plain(state.flow), no_wrap=True, overflow="ellipsis"),
            Text(_standing(state), style="" if state.status == "done" else style, no_wrap=True, overflow="ellipsis"),
            Text(_when(state.started_at, now), style="dim"),
            Text(elapsed_of(state, now), style="dim"),
            Text(cost_of(state), style="yellow" if state.rehearsed else ""),
        )
    return table


def _standing(state: RunState) -> str:
    """Return how a run stands, in a few words: also whom it waits for."""
    roles = open_roles(state)
    if not roles:
        return state.status
    return f"waits for {plain(roles[0])}" + (f" and {len(roles) - 1} more" if len(roles) > 1 else "")


def run_page(state: RunState, rows: Sequence[Row], now: datetime | None = None) -> RenderableType:
    """Return how a run stands: header, steps, totals, and the errors of steps."""
    parts: list[RenderableType] = [
        header(state, now),
        Text(),
        steps_table(rows),
        Text(),
        Text(totals(state, rows), "dim"),
    ]
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


def why(state: RunState) -> str:
    """Return why a run did not end well, as one sentence."""
    error = error_of(state)
    reason = state.result.reason if state.result else ""
    if error is not None:
        return plain(f"step {error.step!r} failed: {told(error)}")
    return plain(f"the run was {state.status}" + (f": {reason}" if reason else ""))


def error_of(state: RunState) -> Error | None:
    """Return the error of the step that broke the run; None when none did."""
    result = state.result
    if result is None or result.status == "done":
        return None
    if isinstance(result.outcome, Failed):
        return result.outcome.error
    # That a child failed breaks no run: who asked for it does, or goes on.
    failed = [
        step
        for step in state.steps.values()
        if step.status == "failed" and step.ended_at is not None and not is_child(step.name)
    ]
    first = min(failed, key=lambda step: step.ended_at or datetime.max, default=None)
    return first.error if first else None


def in_brief(rows: Sequence[Row]) -> str:
    """Return how the steps stand in one line, for where there is no room for a table."""
    asked: dict[str, tuple[int, int]] = {}
    step = ""
    for row in rows:  # those below a step follow it
        step = step if row.depth else row.step
        done, count = asked.get(step, (0, 0))
        if row.depth:
            ended = row.ended if row.count else row.status in _ANSWERED
            asked[step] = done + ended, count + (row.count or 1)
    return (
        "  ".join(
            f"{row.step} {_of(row)}" + (" (asked {}/{})".format(*asked[row.step]) if row.step in asked else "")
            for row in rows
            if row.status != "waiting" and not row.depth
        )
        or "nothing yet"
    )


def _when(at: datetime | None, now: datetime) -> str:
    """Return the time of a day that is today, else the day, as the user's clock has it."""
    if at is None:
        return ""
    local = at.astimezone()
    return local.strftime("%H:%M" if local.date() == now.astimezone().date() else "%d %b")


def _of(row: Row) -> str:
    if row.count:
        return f"{row.ended}/{row.count}"
    return f"{row.arrived}/{row.expected}" if row.status == "joining" else row.status


def _step(row: Row, deepest: int) -> Text:
    mark, style = MARKS[row.status]
    text = Text.assemble(
        indent(row, deepest), (f"{mark} ", style), plain(called(row)), no_wrap=True, overflow="ellipsis"
    )
    if row.count and not row.depth:
        text.append(f"  {row.ended}/{row.count}", "bold" if row.status == "running" else "")
    if row.hidden:
        text.append(f"  asks {row.hidden:,} more", "dim")
    text.append(*asked_text(row, "  "))
    return text


def _status(row: Row) -> Text:
    style = MARKS[row.status][1]
    text = Text(row.status, style="" if row.status == "done" else style)
    if row.depth and row.count:
        text = Text(counted(row), style="" if row.status == "done" else style)
    if row.waits and row.status in ("queued", "running"):
        text = Text(_waits(row), style="yellow")
    elif row.awaits and row.status in ("queued", "running") and not row.count:
        text = Text(f"asks {plain(row.awaits)}", style="cyan")
    if row.status == "joining":
        text = Text(f"waits, {row.arrived} of {row.expected}", style="dim")
    if row.failed and (row.status != "failed" or row.depth):
        text.append((", " if text.plain else "") + f"{row.failed:,} failed", "red")
    if row.reused:
        text.append(f", {row.reused} reused" if row.reused < row.count else ", reused", "dim")
    if row.truncated:
        text.append(", cut off", "yellow")
    if row.status in ("queued", "running") and row.retries and not row.waits:
        times = "retry" if row.retries == 1 else "retries"
        text.append(f", {row.retries} {times}", "yellow")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _waits(row: Row) -> str:
    """Return what a row waits for; of a fan-out, how many branches do."""
    what = plain(row.waits) + (f" in {seconds(row.waits_s)}" if row.waits_s is not None else "")
    return f"{row.waiting:,} wait for {what}" if row.waiting > 1 else f"{'1 ' if row.waiting else ''}waits for {what}"


def _others(row: Row) -> tuple[str, str]:
    """Return how many branches failed besides the one whose error is shown."""
    return (f"  and {row.failed - 1:,} more", "dim") if row.failed > 1 else ("", "")


def _cost(row: Row) -> Text:
    if row.rehearsed:
        return Text(_REHEARSED, style="yellow")
    return Text(dollars(row.cost_usd) if row.cost_usd is not None else "")


def _number(value: int) -> Text:
    return Text(f"{value:,}" if value else "")
