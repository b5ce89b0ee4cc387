"""The steps of a run as a table that fits where it is shown, or in one line where there is no room for one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from baton_actors.cli.show.called import NAMES_WIDE, asked_text, called, counted, indent
from baton_actors.cli.show.console import MARKS
from baton_actors.cli.show.costs import REHEARSED, dollars
from baton_actors.cli.show.step_lines import wait_of
from baton_actors.cli.text import plain
from baton_schemas.show.lines import seconds
from baton_schemas.show.rows import Row

_ASKED_WIDE = 14
"""Columns for what a child was asked, at least: there had better be no columns of tokens than no words of it."""
_LEAST_WIDE = 12
"""Columns of the names of steps, and of how they stand, where there is no room for more."""
_PADDING = 2
"""Columns that rich puts behind each column of a table, also behind the last."""
_ANSWERED = frozenset({"done", "failed", "skipped"})


def steps_table(rows: Sequence[Row]) -> RenderableType:
    """Return the steps of a run. Columns that no row has anything for are left out, and those of tokens and cost where
    there is no room for them: with all of them it fits 80 columns.
    """
    return _Steps(rows)


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
        text = Text(wait_of(row), style="yellow")
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


def _cost(row: Row) -> Text:
    if row.rehearsed:
        return Text(REHEARSED, style="yellow")
    return Text(dollars(row.cost_usd) if row.cost_usd is not None else "")


def _number(value: int) -> Text:
    return Text(f"{value:,}" if value else "")


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


def _of(row: Row) -> str:
    if row.count:
        return f"{row.ended}/{row.count}"
    return f"{row.arrived}/{row.expected}" if row.status == "joining" else row.status
