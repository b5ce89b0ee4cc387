"""What people see of one step: what it read and was asked, its answer or its error, the attempts at it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from shlex import quote

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from baton_actors.cli.show.console import MARKS
from baton_actors.cli.show.costs import dollars, rehearsal_line
from baton_actors.cli.show.people import asked_lines
from baton_actors.cli.show.saving import cached_of, saving_of
from baton_actors.cli.show.step_lines import error_line
from baton_actors.cli.text import plain, plain_lines
from baton_actors.models.files import tokens_of
from baton_actors.models.saved import saved_by_step
from baton_schemas.show.asked import Asked
from baton_schemas.show.attempts import Attempt
from baton_schemas.show.conversation import Said, called, said_in
from baton_schemas.show.errors import told
from baton_schemas.show.excerpt import excerpt, size, text_of
from baton_schemas.show.lines import seconds
from baton_schemas.show.paid import paid_for
from baton_schemas.show.step import BranchSeen, ChildSeen, StepSeen
from baton_schemas.show.step_words import HASH_SHOWN, came_of, has_prompt, proof_of_prompt, said_of, who_does
from baton_schemas.wire.facts import Exchange, ModelCall
from baton_schemas.wire.outcomes import Blob, Value

_VALUE_LINES, _TEXT_LINES = 3, 20
"""Lines that are shown of each value that was read, and of a prompt or an answer."""
_BRANCHES_MAX = 20
_CHILDREN_MAX, _RECORDED_MAX = 30, 20
"""What a step asked for and recorded, as far as it is shown; `--json` has all."""
_LABEL_WIDE, _STANDS_WIDE, _ASKED_WIDE = 28, 16, 36
"""Columns for what a child is called, at most; how it stands, at least; and what it was asked, at most."""
_TONES = {"good": ("✓", ""), "bad": ("✗", "red"), "mind": ("?", "yellow"), "": ("", "")}
_PROOF_STYLES = {"good": "green", "bad": "red", "mind": "yellow", "": "dim"}
_CALLS_MAX = 10
"""Of workers that are asked at the same time."""
_EXCHANGES_MAX = 20
_TOOLS_MAX, _RESULT_LINES = 30, 3
"""Calls of tools that are shown, and lines of what each gave; `--json` has all."""


def step_page(seen: StepSeen, width: int = 80) -> RenderableType:
    """Return a step as a page of so many columns."""
    parts: list[RenderableType] = [*_header(seen)]
    if seen.branches:
        parts += [Text(), _branches(seen.branches), *_how_to_see_one(seen)]
    page = _Page(seen, max(width - 2, 20))
    for title, content in page.sections():
        parts += [Text(), title, *(Padding(each, (0, 0, 0, 2)) for each in content)]
    if page.was_cut or len(seen.children) > _CHILDREN_MAX:
        parts += [Text(), Text(f"All of it: baton show {plain(seen.run)} {plain(seen.step)} --json", "dim")]
    return Group(*parts)


class _Page:
    """The sections of a page; remembers whether any was cut."""

    def __init__(self, seen: StepSeen, width: int) -> None:
        self.seen, self.width = seen, width
        self.was_cut = False

    def sections(self) -> Iterator[tuple[Text, list[RenderableType]]]:
        seen = self.seen
        if seen.values or seen.missing:
            yield Text("was asked with" if seen.kind else "read", "bold"), self._values(seen.values)
        if seen.asked is not None and seen.asked.system:
            yield Text("system prompt", "bold"), self._text(seen.asked.system)
        if has_prompt(seen):
            proof, asked = proof_of_prompt(seen), seen.asked
            title = Text.assemble(("prompt", "bold"), (f"  {proof.text}", _PROOF_STYLES[proof.tone]))
            yield title, [*self._text(asked.prompt), *_files(asked)] if asked is not None else []
        rounds = [said for call in seen.calls if (said := said_in(call)) is not None and said.calls]
        if rounds:
            has_tools = bool(seen.tools or (seen.asked is not None and seen.asked.provided))
            yield Text("its model called" if has_tools else "asked its workers", "bold"), [self._rounds(rounds)]
        if seen.tools:
            yield Text("tools", "bold"), [self._tools()]
        if seen.people:
            yield Text("asked", "bold"), [line for each in seen.people for line in asked_lines(each)]
        if seen.output is not None:
            if seen.kind != "sleep":  # it puts out nothing
                yield self._output_title(), self._value(seen.output, _TEXT_LINES)
        elif seen.calls:
            call = seen.calls[-1]
            title = Text.assemble(("last answer", "bold"), ("  it is not what the step put out", "dim"))
            yield title, self._value(call.blob or call.text, _TEXT_LINES)
        if seen.children:
            yield _asked_title(seen), [_children(seen.children), *_more_of(seen)]
        if seen.recorded_values:
            yield Text("recorded", "bold"), self._recorded()
        if seen.exchanges:
            yield Text("calls", "bold"), [_exchanges(seen.exchanges)]
        if seen.runs:
            yield Text("runs that it asked for", "bold"), _runs(seen.runs)
        if took := _took(seen):
            yield Text("took", "bold"), [Text(took)]
        tried = [attempt for attempt in seen.attempts if attempt.came_to != "done" or len(seen.attempts) > 1]
        if len(tried) > 1 or (tried and seen.status != "failed"):
            yield Text("attempts", "bold"), [_attempts(tried)]
        if seen.error is not None:
            yield Text("error" if seen.status == "failed" else "last error", "bold red"), self._error()

    def _values(self, values: Mapping[str, Value]) -> list[RenderableType]:
        missing = self.seen.missing
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        gone = (
            [Text(f"{len(missing):,} of its branches are not in the log: {plain(some)}", "yellow")] if missing else []
        )
        return [self._table(values), *gone]

    def _table(self, values: Mapping[str, Value]) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, max_width=24)
        table.add_column(overflow="fold")
        before = self.width
        self.width = max(before - min(max(map(len, values), default=0), 24) - 2, 20)
        for name, value in values.items():
            table.add_row(Text(plain(name), "cyan"), Group(*self._value(value, _VALUE_LINES)))
        self.width = before
        return table

    def _recorded(self) -> list[RenderableType]:
        all_of = self.seen.recorded_values
        named = {
            each.name + (f" ({each.number})" if each.number > 1 else ""): each.value for each in all_of[:_RECORDED_MAX]
        }
        left = len(all_of) - len(named)
        self.was_cut = self.was_cut or left > 0
        return [self._table(named), *([Text(f"and {left:,} more", "dim")] if left else [])]

    def _value(self, value: Value, lines_max: int) -> list[RenderableType]:
        if isinstance(value, Blob):
            why = self.seen.lacking.get(value.sha256, "not fetched")
            self.was_cut = self.was_cut or why != "gone"
            return [Text(f"{size(value.size_bytes)} kept beside the log, {why}: {value.sha256[:HASH_SHOWN]}", "yellow")]
        return self._text(text_of(value), lines_max)

    def _text(self, text: str, lines_max: int = _TEXT_LINES) -> list[RenderableType]:
        shown = excerpt(text.strip("\n") or "(an empty text)", lines_max=lines_max, width=self.width)
        self.was_cut = self.was_cut or not shown.is_whole
        return [
            Text(plain_lines(shown.head), overflow="fold"),
            *([Text(f"… {shown.rest}", "dim")] if shown.rest else []),
        ]

    def _rounds(self, rounds: list[Said]) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="fold")
        width = max(self.width - 4, 20)
        for number, said in enumerate(rounds, 1):
            shown = [called(name, arguments, width) for name, arguments in said.calls[:_CALLS_MAX]]
            left = len(said.calls) - len(shown)
            more = [f"… {left:,} more"] if left else []
            self.was_cut = self.was_cut or left > 0 or any(line.endswith("…") for line in shown)
            table.add_row(f"{number}", Text(plain_lines("\n".join([*shown, *more]))))
        return table

    def _tools(self) -> Table:
        """Return what tools gave, the last ones where they are many."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        left = len(self.seen.tools) - _TOOLS_MAX
        if left > 0:
            self.was_cut = True
            table.add_row("", Text(f"{left:,} more before", "dim"))
        for call in self.seen.tools[-_TOOLS_MAX:]:
            came = came_of(call)
            mark, style = _TONES[came.tone]
            shown = called(call.name, call.arguments if call.arguments is not None else {}, max(self.width - 4, 20))
            self.was_cut = self.was_cut or shown.endswith("…")
            lines: list[RenderableType] = [Text.assemble(plain(shown), (f"  {plain(came.text)}", style or "dim"))]
            if call.result is not None:
                lines += self._value(call.result, _RESULT_LINES)
            table.add_row(Text(mark, style), Group(*lines))
        return table

    def _output_title(self) -> Text:
        seen = self.seen
        title = Text("put out" if (seen.handler or seen.person) and not seen.kind else "answer", "bold")
        if seen.state is not None and seen.state.truncated:
            title.append("  cut off at max_tokens", "yellow")
        return title

    def _error(self) -> list[RenderableType]:
        error = self.seen.error
        assert error is not None
        said = Text(plain(told(error)), overflow="fold")
        return [said, Text(plain_lines(error.traceback), "dim", overflow="fold")] if error.traceback else [said]


def _header(seen: StepSeen) -> Iterator[Text]:
    mark, style = MARKS[seen.status]
    yield Text.assemble(
        (f"{mark} ", style),
        (plain(seen.label or seen.step), "bold"),
        (f"  {plain(seen.flow)} {plain(seen.run)}", "dim"),
    )
    yield Text(f"  {plain(seen.says)}", style if seen.status in ("failed", "running") else "")
    yield Text(f"  {plain(who_does(seen))}", "dim")
    if seen.asked is not None and seen.asked.output:
        yield Text(f"  {plain('answers with ' + ', '.join(seen.asked.output.get('properties', {})))}", "dim")
    if seen.label:
        yield Text(f"  {plain(seen.step)}", "dim")
    if seen.state is not None and seen.state.question:
        yield Text(f"  {plain(seen.state.question)}", overflow="fold")
    calls: list[ModelCall | Exchange] = [*seen.calls, *seen.exchanges]
    if any(call.rehearsed for call in calls):
        yield Text.assemble("  ", rehearsal_line())


def _runs(runs: list[str]) -> list[RenderableType]:
    """Return the runs, one a line, and how to see one."""
    left = len(runs) - _BRANCHES_MAX
    lines = [Text(plain(run)) for run in runs[:_BRANCHES_MAX]] + ([Text(f"and {left:,} more")] if left > 0 else [])
    return [*lines, Text(f"One of them: baton show {plain(runs[0])}", "dim")]


def _files(asked: Asked) -> list[RenderableType]:
    """Say about how much the files in a prompt are to a model: an estimate, which the usage of the answer settles."""
    if not asked.refs:
        return []
    count = f"{len(asked.refs):,} files" if len(asked.refs) > 1 else "the file"
    return [Text(f"{count}: at most about {sum(map(tokens_of, asked.refs)):,} tokens of input", "dim")]


def _took(seen: StepSeen) -> str:
    """Return tokens, price and time of a step that asks a model: of all calls, those in vain too."""
    paid = paid_for(seen)
    if paid is None:
        return ""
    usage = paid.usage
    parts = [f"{usage.prompt_tokens:,} tokens in{cached_of(usage)}", f"{usage.output_tokens:,} out"]
    parts += [dollars(paid.cost_usd)] if paid.cost_usd is not None and not paid.rehearsed else []
    parts += [saved] if (saved := saving_of(saved_by_step(paid))) else []
    parts += [seconds(attempt.elapsed_s) for attempt in seen.attempts[-1:] if attempt.elapsed_s]
    ids = [attempt.request_id for attempt in seen.attempts if attempt.request_id]
    return " · ".join([*parts, *(f"request {plain(each)}" for each in ids[-1:])])


def _exchanges(exchanges: list[Exchange]) -> RenderableType:
    """Return the calls of a handler's client: who answered, with what tokens, for what price."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(5):
        table.add_column(overflow="fold")
    for number, exchange in enumerate(exchanges[:_EXCHANGES_MAX], start=1):
        usage = exchange.usage
        read = usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens
        price = dollars(exchange.cost_usd) if exchange.cost_usd is not None else "no known price"
        table.add_row(
            Text(f"{number}", "dim"),
            Text(plain(exchange.model)),
            Text(f"{read:,} + {usage.output_tokens:,} tokens"),
            Text("rehearsed", "yellow") if exchange.rehearsed else Text(price),
            Text(plain(exchange.request_id), "dim"),
        )
    left = len(exchanges) - _EXCHANGES_MAX
    return Group(table, Text(f"and {left:,} more", "dim")) if left > 0 else table


def _attempts(attempts: list[Attempt]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for attempt in attempts:
        time = f" in {seconds(attempt.elapsed_s)}" if attempt.elapsed_s else ""
        table.add_row(str(attempt.number), Text(f"{attempt.came_to}{time}", "dim"), Text(plain(said_of(attempt))))
    return table


def _branches(branches: list[BranchSeen]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    order = {"failed": 0, "running": 1, "queued": 1, "dropped": 2}
    for branch in sorted(branches, key=lambda branch: order.get(branch.status, 3))[:_BRANCHES_MAX]:
        mark, style = MARKS[branch.status]
        error = error_line(branch.error)[len(branch.error.step) :] if branch.error is not None else Text()
        if branch.runs:
            error = Text.assemble((plain(branch.runs[-1]), "dim"), " ", error)
        error.rstrip()
        table.add_row(Text.assemble((f"{mark} ", style), plain(branch.step)), Text(branch.status, style), error)
    return table


def _asked_title(seen: StepSeen) -> Text:
    counts = Counter(child.status for child in seen.children)
    each = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    title = Text.assemble(("asked", "bold"), f"  {len(seen.children):,}: {each}" if len(seen.children) > 1 else "")
    if seen.unasked:
        title.append(f"  asked before, and not now: {seen.unasked:,}", "yellow")
    return title


def _children(children: list[ChildSeen]) -> Table:
    """Return what a step asked for: what failed or is open where there is no room for all, in the order of the log."""
    table = Table.grid(padding=(0, 2, 0, 0))
    shown = _shown(children)
    for wide in (max(len(child.label) for child in shown) + 2, 0):
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=min(wide, _LABEL_WIDE) or _STANDS_WIDE)
    is_any = any(child.error for child in shown)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=_ASKED_WIDE if is_any else None)
    if is_any:
        table.add_column(no_wrap=True, overflow="ellipsis")
    for child in shown:
        mark, style = MARKS[child.status]
        time = f" in {seconds(child.elapsed_s)}" if child.elapsed_s is not None else ""
        by = f" by {child.answered_by}" if child.answered_by else ""
        cells = [
            Text.assemble((f"{mark} ", style), plain(child.label)),
            Text(
                child.status + (", reused" if child.reused else time) + plain(by),
                "" if child.status == "done" else style,
            ),
            Text(plain(child.asked), "dim"),
        ]
        table.add_row(*cells, *([Text(plain(told(child.error)))] if child.error is not None else []))
    return table


def _shown(children: list[ChildSeen]) -> list[ChildSeen]:
    if len(children) <= _CHILDREN_MAX:
        return children
    order = {"failed": 0, "running": 1, "queued": 1, "dropped": 2}
    places = sorted(range(len(children)), key=lambda place: order.get(children[place].status, 3))
    return [children[place] for place in sorted(places[:_CHILDREN_MAX])]


def _more_of(seen: StepSeen) -> list[RenderableType]:
    left = len(seen.children) - _CHILDREN_MAX
    one = next((child for child in seen.children if child.status == "failed"), seen.children[0])
    name = one.label.replace(" #", "#")
    more = [Text(f"and {left:,} more", "dim")] if left > 0 else []
    return [*more, Text(f"One of them: baton show {plain(seen.run)} {quote(plain(name))}", "dim")]


def _how_to_see_one(seen: StepSeen) -> list[RenderableType]:
    left = len(seen.branches) - _BRANCHES_MAX
    more = [Text(f"  and {left:,} more", "dim")] if left > 0 else []
    failed = next((branch.step for branch in seen.branches if branch.status == "failed"), seen.branches[0].step)
    return [*more, Text(), Text(f"One of them: baton show {plain(seen.run)} {plain(failed)}", "dim")]
