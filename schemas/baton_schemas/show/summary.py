"""A run as one row: what went in, how it stands, what it took, whatever shows it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from msgspec import Raw, Struct

from baton_schemas.run.fold import RunFold
from baton_schemas.run.refs import asked_name
from baton_schemas.run.state import Entry, RunState, RunStatus
from baton_schemas.wire.outcomes import Usage

from .children import Children
from .excerpt import head_of, in_words, text_of
from .plan import plan_of
from .rows import Row, RowStatus, Standing, standings_of
from .spending import PaidCall, Spending, summed
from .unfolding import waits_of_step
from .why import error_of, why

INPUT_WIDE = 80
"""Characters of what went in: a line of a list."""
_ERROR_WIDE = 300
_TEXT_MAX = 2_000
"""Characters of each of input, error and output that a search finds: more of them make an index larger than its log."""
_CELLS_KEPT = 1_024
"""Cells of steps without branches: those of a few flows in a few statuses come again and again."""
_OVER = ("done", "skipped")
_BY_WORKERS = (None, "agent")
"""Kinds of steps that workers do; people, the clock and other runs make no attempts here."""


class Cell(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step of the flow among those of a run: one mark in a strip, whose branches are counted."""

    step: str
    status: RowStatus
    count: int = 0
    """How many branches it has; 0 for one that is no fan-out."""
    ended: int = 0
    failed: int = 0


class Summary(Struct, frozen=True, kw_only=True):
    """A run as one row."""

    run: str
    flow: str
    status: RunStatus
    input: str
    """In a few words."""
    started_at: datetime | None
    ended_at: datetime | None
    steps_done: int
    """Done or skipped, what was reused included."""
    steps: int
    """Of how many: those of the flow, each fan-out as one, those of a loop by round as far as they have begun."""
    cells: tuple[Cell, ...]
    """These, in the order in which they are done."""
    asked: int
    """What its steps asked for: agents, flows, people, sleeps, events."""
    attempts: int
    """At all its steps, branches and what they asked for, as far as the log tells; what was reused is left out."""
    retries: int
    cost_usd: float | None
    """What was paid in this run for calls of models, whatever came of them; None when nothing has a price."""
    wasted_usd: float
    """What of it was in vain: failed attempts, calls that were cut off or came second."""
    unpriced: int
    """Calls without a known price: when not 0, the cost is a lower bound."""
    usage: Usage
    rehearsed: bool
    """Whether the rehearsal model answered any step."""
    waits: str
    """What it waits for, people first: `editors and 2 more`; empty when nothing says that it does."""
    error: str
    """Why it did not end well, in a line."""
    forked_from: str
    parent: str
    """The run that asked for this one, and its step that did."""
    parent_step: str
    messages: int


class SummaryFold:
    """Takes the entries of one run, in the order of the log, and says at any time how its row stands."""

    def __init__(self) -> None:
        self._fold, self._spending = RunFold(), Spending()
        self._calls: list[PaidCall] = []
        self._seen: set[int] = set()

    def apply(self, entry: Entry) -> None:
        """Take one entry; one that was taken before changes nothing."""
        if entry.seq not in self._seen:
            self._seen.add(entry.seq)
            self._fold.apply(entry)
            self._calls += self._spending.take(entry)

    def summary(self, now: datetime | None = None) -> Summary:
        """Return the row after the entries so far; with `now`, what is due is not waited for."""
        return summary_of(self._fold.state, [*self._calls, *self._spending.rest()], now)


def summarise(entries: Iterable[Entry], now: datetime | None = None) -> Summary:
    """Return a run as one row; `entries` are all of it, in the order of the log."""
    fold = SummaryFold()
    for entry in entries:
        fold.apply(entry)
    return fold.summary(now)


def summary_of(state: RunState, calls: Iterable[PaidCall], now: datetime | None = None) -> Summary:
    """Return a run as one row, from its state and the calls that its log tells of."""
    standings = standings_of(state, plan_of(state), now)
    paid = list(calls)
    spent = summed(paid)
    ours = [step for step in state.steps.values() if not step.reused and step.asked in _BY_WORKERS]
    return Summary(
        run=state.run,
        flow=state.flow,
        status=state.status,
        input=in_words({**state.input, **state.input_blobs}, INPUT_WIDE),
        started_at=state.started_at,
        ended_at=state.ended_at,
        steps_done=sum([each.status in _OVER for each in standings]),
        steps=len(standings),
        cells=tuple([_cell(each) for each in standings]),
        asked=len(Children(state).by_token),
        attempts=sum([step.attempts for step in ours]),
        retries=sum([step.retries for step in ours]),
        cost_usd=spent.cost_usd if any(call.cost_usd is not None for call in paid) else None,
        wasted_usd=spent.waste_usd,
        unpriced=sum(1 for call in paid if call.cost_usd is None and not call.rehearsed and call.usage.tokens),
        usage=spent.usage,
        rehearsed=state.rehearsed or any(call.rehearsed for call in paid),
        waits=waits_of(state, now),
        error=head_of(why(state), _ERROR_WIDE) if state.status not in ("running", "done") else "",
        forked_from=state.forked_from,
        parent=state.parent,
        parent_step=state.parent_step,
        messages=state.messages,
    )


def steps_done(rows: Iterable[Row]) -> int:
    """Return how many steps of a flow are done or skipped, each fan-out counting as one."""
    return sum(1 for row in rows if not row.depth and row.status in _OVER)


def waits_of(state: RunState, now: datetime | None = None) -> str:
    """Return what a run waits for, in a few words: people before events, and these before all else."""
    if state.result is not None:
        return ""
    children = Children(state)
    people: dict[str, None] = {}
    events: dict[str, None] = {}
    others: dict[str, None] = {}
    for step in state.steps.values():
        if step.status != "queued":
            continue
        if step.asked == "person":
            people[asked_name(step.name)] = None
        elif step.asked == "event":
            events[f"the event {asked_name(step.name)}"] = None
        elif found := waits_of_step(step, [each for each in children.of(step.name) if each.is_open], now):
            others[found[0]] = None
    found_all = [*people, *events, *(why for why in others if why not in people and why not in events)]
    return found_all[0] + (f" and {len(found_all) - 1:,} more" if len(found_all) > 1 else "") if found_all else ""


def searchable(state: RunState) -> str:
    """Return the texts by which a run is looked for: its input, its output and its error, as far as they are inline."""
    texts = [text_of(value) for value in state.input.values()]
    output = getattr(state.result.outcome, "output", None) if state.result is not None else None
    if isinstance(output, Raw):
        texts.append(text_of(output))
    error = error_of(state)
    texts += [error.message] if error is not None else []
    return "\n".join(text[:_TEXT_MAX] for text in texts if text != "null")


def _cell(one: Standing) -> Cell:
    if not one.count:
        return _plain_cell(one.step, one.status)
    return Cell(step=one.step, status=one.status, count=one.count, ended=one.ended, failed=one.failed)


@lru_cache(maxsize=_CELLS_KEPT)
def _plain_cell(step: str, status: RowStatus) -> Cell:
    return Cell(step=step, status=status)


def standing_of(summary: Summary) -> str:
    """Return how a run stands, in a few words: also whom it waits for."""
    return f"waits for {summary.waits}" if summary.waits else summary.status
