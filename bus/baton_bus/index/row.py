"""A run as an index has it: the summary that each list shows, where it begins, and the words that it is found by."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from baton_bus.client.runs import RunHead, actors_of
from baton_bus.jetstream.gets import Stored
from baton_schemas.run.fold import RunFold
from baton_schemas.run.state import Entry, RunState, read_entry
from baton_schemas.show.cause import Cause, cause_of
from baton_schemas.show.plan import plan_of
from baton_schemas.show.spending import PaidCall, Spending
from baton_schemas.show.spent_on import SpentOn, spent_on
from baton_schemas.show.summary import Summary, searchable, summary_of
from baton_schemas.wire.messages import Handoff, Result


class IndexRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run as an index has it."""

    start_seq: int
    """Stream sequence of the message that it begins with."""
    summary: Summary
    actors: tuple[str, ...] = ()
    """Who appears in the subjects of its messages; empty when its flow cannot be read."""
    asks_people: bool = False
    """Whether it waits for a person."""
    cause: Cause | None = None
    """Why it failed, as others may have too."""
    spent: tuple[SpentOn, ...] = ()
    """What it was that cost."""

    @property
    def head(self) -> RunHead:
        """Where the run begins, for whoever reads it."""
        summary = self.summary
        assert summary.started_at is not None
        return RunHead(
            run=summary.run,
            flow=summary.flow,
            start_seq=self.start_seq,
            started_at=summary.started_at,
            actors=self.actors,
            status=summary.status,
            ended_at=summary.ended_at,
            parent=summary.parent,
        )


Given = tuple[IndexRow, str]
"""A row and its words."""


class Folding:
    """One run, as far as it is folded: as `show` does it, so that both say the same."""

    __slots__ = (
        "_calls",
        "_fold",
        "_spending",
        "actors",
        "ended",
        "flow",
        "purged",
        "size_bytes",
        "start_seq",
        "up_to_seq",
    )

    def __init__(self, first: Entry) -> None:
        """`first` is the message that it begins with."""
        self._fold, self._spending, self._calls = RunFold(), Spending(), list[PaidCall]()
        self.start_seq, self.up_to_seq, self.size_bytes = first.seq, 0, 0
        self.ended = self.purged = False
        message = first.message
        self.actors = actors_of(message) if isinstance(message, Handoff) else ()
        self.flow = message.flow if isinstance(message, Handoff | Result) else ""
        self.apply(first)

    def apply(self, entry: Entry) -> None:
        """Fold the next message. One that was folded before changes nothing."""
        if entry.seq <= self.up_to_seq:
            return
        self._fold.apply(entry)
        if calls := self._spending.take(entry):
            self._calls += calls
        self.up_to_seq = entry.seq
        self.size_bytes += len(entry.data)
        if type(entry.message) is Result:
            self.ended, self.purged = True, self.purged or entry.message.purged

    def take(self, some: Iterable[Stored]) -> None:
        """Fold messages as they are stored."""
        apply = self.apply
        for seq, at, subject, data, _ in some:
            apply(read_entry(seq, at, subject, data))

    def given(self, run: str) -> Given:
        """Return the row as it is now, and its words. Its id is that of its subjects: messages may say anything."""
        state = self._fold.unpaid()
        state = replace(state, run=run, flow=state.flow or self.flow)
        calls = [*self._calls, *self._spending.rest()]
        row = IndexRow(
            start_seq=self.start_seq,
            summary=summary_of(state, calls),
            actors=self.actors,
            asks_people=_asks_people(state),
            cause=cause_of(state),
            spent=spent_on(calls, plan_of(state)) if calls else (),
        )
        return row, searchable(state)


def _asks_people(state: RunState) -> bool:
    return state.result is None and any(
        step.asked == "person" and step.status == "queued" for step in state.steps.values()
    )
