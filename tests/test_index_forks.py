"""What goes on from what, as an index has it: forks of a run, and failures that nobody need see to any more."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from msgspec.structs import replace

from baton_bus.index import file as files
from baton_bus.index.failing import failures
from baton_bus.index.file import Identity
from baton_bus.index.finding import Wanted, find
from baton_bus.index.forking import forks_of, gone_on_from
from baton_bus.index.row import IndexRow
from baton_bus.index.table import Table
from baton_schemas.run.state import RunStatus
from baton_schemas.show.cause import Cause
from baton_schemas.show.summary import Summary, summarise

AT = datetime(2026, 1, 1, tzinfo=UTC)
OPEN = ("running", "done")
OPEN_OR_FAILED: tuple[RunStatus, ...] = ("running", "failed", "done")


def row(seq: int, status: RunStatus, *, forked_from: str = "", parent: str = "") -> IndexRow:
    """A run called `r` and its sequence."""
    key = "abc"[seq % 3]
    cause = Cause(key=key, flow="f", step="s", type="ValueError", message=f"no {key}") if status == "failed" else None
    one: Summary = replace(
        summarise([]),
        run=f"r{seq}",
        flow="f",
        status=status,
        started_at=AT + timedelta(minutes=seq),
        ended_at=None if status == "running" else AT + timedelta(minutes=seq, seconds=5),
        forked_from=forked_from,
        parent=parent,
    )
    return IndexRow(start_seq=seq, summary=one, cause=cause)


def over_in(rows: Sequence[IndexRow], low_seq: int) -> set[str]:
    """What nobody need see to: a fork that failed counts as far as somebody went on from it."""
    over: set[str] = set()
    for _ in rows:
        over |= {
            each.summary.forked_from
            for each in rows
            if each.summary.forked_from
            and ((each.summary.status in OPEN and each.start_seq >= low_seq) or each.summary.run in over)
        }
        over |= {each.summary.run for each in rows if each.summary.parent in over}
    return over


@pytest.mark.parametrize("seed", range(8))
def test_failures_that_were_gone_on_from_are_left_out_and_forks_are_found(seed: int) -> None:
    choose = Random(seed)
    rows: list[IndexRow] = []
    for seq in range(1, 120):
        before = choose.choice(rows).summary.run if rows else ""
        kin = choose.choice(("", "", "forked_from", "parent"))
        status: RunStatus = choose.choice(("failed", "failed", "failed", "running", "done", "cancelled"))
        forked_from, parent = (before if kin == name else "" for name in ("forked_from", "parent"))
        rows.append(row(seq, status, forked_from=forked_from, parent=parent))
    over = over_in(rows, 0)
    with contextlib.closing(files.in_memory(Identity(namespace="n", created="c"))) as database:
        table = Table(database)
        with table.changing():
            assert table.put([(each, "") for each in rows]) == []
        assert gone_on_from(database, 0) == over
        left = [each for each in reversed(rows) if each.cause is not None and each.summary.run not in over]
        found = failures(database, gone_on=False, runs=4)
        assert [each.cause.key for each in found] == list(dict.fromkeys(each.cause.key for each in left if each.cause))
        for each in found:
            own = [one.summary for one in left if one.cause == each.cause]
            assert (each.count, each.runs) == (len(own), [one.run for one in own[:4]])
            assert (each.first_at, each.last_at) == (own[-1].ended_at, own[0].ended_at)
        since = AT + timedelta(minutes=60)
        later = [one for one in rows if one.start_seq >= 60 and one.cause is not None]
        over_later = over_in(rows, 60)
        assert sum(each.count for each in failures(database, since=since, gone_on=False)) == len(
            [one for one in later if one.summary.run not in over_later]
        )
        assert sum(each.count for each in failures(database)) == len([one for one in rows if one.cause is not None])
        names = [one.summary.run for one in rows]
        kept = forks_of(database, names)
        for name in names:
            forks = [one.summary for one in reversed(rows) if one.summary.forked_from == name]
            assert [(fork.run, fork.status) for fork in kept.get(name, [])] == [(one.run, one.status) for one in forks]
            wanted = Wanted(limit=200, forked_from=name)
            assert [each.summary.run for each in find(database, wanted, AT)] == [one.run for one in forks]


def test_fork_that_changes_how_it_stands_changes_what_is_left_of_failures() -> None:
    with contextlib.closing(files.in_memory(Identity(namespace="n", created="c"))) as database:
        table = Table(database)
        counts = []
        with table.changing():
            table.put([(row(3, "failed"), "")])
        for status in OPEN_OR_FAILED:
            with table.changing():
                table.put([(row(4, status, forked_from="r3"), "")])
            counts.append(sum(each.count for each in failures(database, gone_on=False)))
        with table.changing():
            table.drop(["r4"])
        counts.append(sum(each.count for each in failures(database, gone_on=False)))
    assert counts == [0, 2, 0, 1], "a fork that failed, too, is a failure of its own"
