"""What an index adds up, and what has changed in it, is what the logs of the runs say, one by one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import get_args

import msgspec
import pytest

from baton_bus import Settings
from baton_bus.client.purge import Choice, plan_purge, purge
from baton_bus.client.runs import read_run, recent_runs
from baton_bus.client.spending import spent_calls
from baton_bus.client.survey import survey
from baton_bus.index import counting, indexing, table
from baton_bus.index import file as files
from baton_bus.index.beside import keep_beside
from baton_bus.index.changing import Changes, Committed, Position, changes_since, position_of
from baton_bus.index.costing import dearest, spend
from baton_bus.index.counting import Counts, counts, flow_figures, line
from baton_bus.index.errors import IndexBusy
from baton_bus.index.failing import failures
from baton_bus.index.finding import Order, Wanted, beside, find, first_seq
from baton_bus.index.keeping import opened
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.run.fold import fold
from baton_schemas.show.cause import cause_of, made
from baton_schemas.show.summary import Summary

from .clients import cancel_run, start_run
from .indexed import indexed, listed, mixed, publish, recorded
from .servers import NatsServer, until
from .test_runs import PLAN

NOW = datetime.now(UTC)
FAILURES = ("failed", "expired")


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        yield bus


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(files.connected(path)) as database:
        yield database


async def grown(bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Summary]:
    """An index that came to be in parts, with rows that changed and went; and what the logs say of each run."""
    monkeypatch.setattr(indexing, "WINDOW", 5)
    monkeypatch.setattr(indexing, "WINDOW_MAX", 40)
    sent = mixed(recorded(bus.settings.namespace), Random(1))
    for part in (sent[:100], sent[100:170], sent[170:]):
        await publish(bus, part)
        await indexed(bus, path)
    before = await listed(bus)
    ended = [run for run, (one, _) in before.items() if one.status == "failed" and not one.parent]
    await purge(bus, plan_purge(await survey(bus), Choice(runs=(ended[0],)), datetime.now(UTC)))
    await indexed(bus, path)
    return {run: one for run, (one, _) in (await listed(bus)).items()}


async def test_counts_are_those_of_the_runs(bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = (await grown(bus, path, monkeypatch)).values()
    roots = [one for one in runs if not one.parent]
    with reading(path) as database:
        assert counts(database) == counted(roots)
        assert counts(database, nested=True) == counted([one for one in runs if one.parent])
        assert counts(database, flow="digest").by_status == counted([o for o in roots if o.flow == "digest"]).by_status
        failed = counts(database, statuses=("failed",))
        assert failed.by_flow == counted([one for one in roots if one.status == "failed"]).by_flow
        assert failed.by_status == counts(database).by_status, "each chip says what it would find"
        assert failed.runs == sum(one.status == "failed" for one in roots) > 0
        for since in (NOW - timedelta(days=40), NOW - timedelta(hours=30), NOW - timedelta(minutes=3)):
            assert counts(database, since=since) == counted(roots)
        assert counts(database, since=datetime.now(UTC) + timedelta(minutes=2)).runs == 0
        for length in get_args(counting.Length):
            points = line(database, NOW - timedelta(minutes=5), datetime.now(UTC) + timedelta(minutes=1), length)
            assert sum(point.runs for point in points) == len(roots)
            assert sum(point.failed for point in points) == sum(one.status in FAILURES for one in roots)
            assert [point.at for point in points] == sorted(point.at for point in points)
        with pytest.raises(ValueError, match="expected at most 2,000: take a longer length than a minute"):
            line(database, NOW - timedelta(days=9), NOW)


def counted(runs: list[Summary]) -> Counts:
    flows = Counter(one.flow for one in runs)
    by_flow = dict(sorted(flows.items(), key=lambda each: (-each[1], each[0])))
    return Counts(by_status=dict(Counter(one.status for one in runs)), by_flow=by_flow, runs=len(runs))


def test_counts_from_a_time_on_take_minutes_hours_and_days_together() -> None:
    """One run in each minute of three days: wherever one begins to count, none is left out or counted twice."""
    begin = datetime(2026, 11, 23, 22, 58, tzinfo=UTC)
    with contextlib.closing(files.in_memory(files.Identity(namespace="n", created="c"))) as database:
        for number in range(3 * 1_440):
            at_s = int(begin.timestamp()) + 60 * number
            for length_s in (60, 3_600, 86_400):
                key = (length_s, at_s // length_s * length_s, "f", "done", 0, 1)
                database.execute(
                    "INSERT INTO counts VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET runs = runs + 1", key
                )
        for minute in (0, 1, 2, 61, 62, 63, 121, 1_440, 1_500, 2_943, 4_319):
            since = begin + timedelta(minutes=minute, seconds=59)
            assert counts(database, since=since).runs == 3 * 1_440 - minute


async def test_figures_of_flows_are_those_of_their_runs(bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = (await grown(bus, path, monkeypatch)).values()
    with reading(path) as database:
        found = flow_figures(database)
        assert flow_figures(database, since=NOW - timedelta(hours=2)) == found
    assert {each.flow: each.runs for each in found} == Counter(one.flow for one in runs)
    for each in found:
        own = [one for one in runs if one.flow == each.flow]
        done = [one for one in own if one.status == "done"]
        ended = len(done) + sum(one.status in FAILURES for one in own)
        assert each.done_share == (len(done) / ended if ended else None)
        took = sorted(
            (one.ended_at - one.started_at).total_seconds() for one in done if one.ended_at and one.started_at
        )
        assert each.sample == len(took)
        assert each.p50_s == (pytest.approx(took[(len(took) + 1) // 2 - 1]) if took else None)
        assert each.p95_s == (pytest.approx(took[-1]) if took else None), "there are fewer than twenty"
        costs = sorted(one.cost_usd for one in done if one.cost_usd is not None)
        assert each.p95_usd == (costs[-1] if costs else None)


async def test_failures_are_grouped_by_what_they_have_in_common(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await grown(bus, path, monkeypatch)
    causes: dict[str, list[Summary]] = {}
    for head in await recent_runs(bus, 1_000, children=True):
        cause = cause_of(fold(await read_run(bus, head)))
        assert (cause is not None) == (head.status in FAILURES)
        if cause is not None:
            causes.setdefault(cause.key, []).append(runs[head.run])
    assert causes
    with reading(path) as database:
        found = failures(database, runs=2)
        assert failures(database, since=NOW - timedelta(hours=1), runs=2) == found
        assert failures(database, since=datetime.now(UTC) + timedelta(hours=1)) == []
        assert [len(each.runs) for each in failures(database, limit=1, runs=0)] == [0]
        (first,) = failures(database, limit=1)
        wanted = Wanted(limit=99, cause=first.cause.key)
        one_by_one = [row.summary.run for row in find(database, wanted, NOW)]
    assert one_by_one == [one.run for one in causes[first.cause.key] if not one.parent]
    assert [each.cause.key for each in found] == list(causes), "that of the newest run first"
    for each in found:
        own = causes[each.cause.key]
        assert (each.count, each.runs) == (len(own), [one.run for one in own[:2]])
        assert (each.first_at, each.last_at) == (own[-1].ended_at, own[0].ended_at)
        assert each.cause.flow == own[0].flow


def test_numbers_and_ids_make_no_other_cause() -> None:
    def key(message: str, step: str = "write") -> str:
        return made("report", step, "ValueError", message).key

    alike = [
        "no row 17 for 01kb00000000000000000fanout after 0.25 s",
        "no row 1,204 for 01kb3q8m7x2v9r5t1y6w4z0n8c after 12 s",
    ]
    assert key(alike[0]) == key(alike[1])
    assert made("report", "write", "ValueError", alike[0]).message == "no row # for # after # s"
    ids = ("6f1c2a34-0b7d-4e2f-9a61-3c5d7e9f1b24", "deadbeef00", "0x7f3a", "2026-11-26T09:00:01")
    assert {made("f", "s", "E", f"in {each}:").message for each in ids} <= {"in #:", "in #-#-#T#:"}
    assert key("no row 1") != key("no table 1")
    assert key("no row 1") != key("no row 1", step="edit")
    assert made("f", "s", "E", "internationalisation of résumés").message == "internationalisation of résumés"
    assert len(made("f", "s", "E", "long " * 9_999).message) <= 200


async def test_what_was_spent_is_what_the_log_says(bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await grown(bus, path, monkeypatch)
    calls = [each async for each in spent_calls(bus)]
    real = [each for each in calls if not each.call.rehearsed]
    assert real
    with reading(path) as database:
        (whole,) = spend(database, ())
        assert whole.calls == len(real)
        assert whole.cost_usd == pytest.approx(sum(one.cost_usd or 0.0 for one in runs.values()))
        assert whole.waste_usd == pytest.approx(sum(one.wasted_usd for one in runs.values()))
        assert whole.prompt_tokens == sum(each.call.usage.prompt_tokens for each in real)
        unpriced = [each for each in real if each.call.cost_usd is None and each.call.usage.tokens]
        assert whole.unpriced == len(unpriced)
        for by, name in (
            ("flow", lambda each: each.flow),
            ("agent", lambda each: each.agent),
            ("model", lambda each: each.call.model),
            ("day", lambda each: each.call.at.date().isoformat()),
        ):
            found = spend(database, (by,))  # type: ignore[arg-type]
            assert {each.on[by]: each.calls for each in found} == Counter(map(name, real)), by  # type: ignore[index]
            assert [each.cost_usd for each in found] == sorted((each.cost_usd for each in found), reverse=True)
        pairs = spend(database, ("flow", "model"))
        assert sum(each.output_tokens for each in pairs) == whole.output_tokens
        today = datetime.now(UTC).date()
        assert spend(database, (), since=today - timedelta(days=1)) == [whole]
        assert spend(database, (), until=today - timedelta(days=1)) == []
        made_up = spend(database, ("flow",), rehearsed=True)
        assert sum(each.calls for each in made_up) == len(calls) - len(real)
        with pytest.raises(ValueError, match="'week' is none of flow, step, agent, model, day"):
            spend(database, ("week",))  # type: ignore[arg-type]
        costs = [row.summary.cost_usd for row in dearest(database, 99)]
        assert costs == sorted((one.cost_usd for one in runs.values() if one.cost_usd), reverse=True)
        assert dearest(database, 99, since=datetime.now(UTC) + timedelta(hours=1)) == []


@pytest.mark.parametrize("order", get_args(Order))
async def test_neighbours_of_a_run_are_those_of_its_place_in_the_list(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch, order: Order
) -> None:
    runs = await grown(bus, path, monkeypatch)
    now = datetime.now(UTC)
    with reading(path) as database:
        for wanted in (
            Wanted(limit=999, order=order),
            Wanted(limit=999, order=order, flow="report", text="tea"),
            Wanted(limit=999, order=order, statuses=("failed", "running"), since=NOW - timedelta(hours=1)),
        ):
            found = [row.summary.run for row in find(database, wanted, now)]
            assert len(found) > 1
            for place, run in enumerate(found):
                both = beside(database, msgspec.structs.replace(wanted, limit=1), run, now)
                assert (both.before and both.before.summary.run) == (found[place - 1] if place else None)
                assert (both.after and both.after.summary.run) == (found[place + 1] if run != found[-1] else None)
        unknown = beside(database, Wanted(limit=1), "no-such-run", now)
        assert (unknown.before, unknown.after) == (None, None)
        newest = next(iter(runs))
        elsewhere = beside(database, Wanted(limit=1, flow="no-such-flow"), newest, now)
        assert (elsewhere.before, elsewhere.after) == (None, None)


async def test_what_changed_since_is_all_that_a_list_needs(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes up the changes has, at any time, what whoever reads it all has."""
    sent = mixed(recorded(bus.settings.namespace), Random(2))
    shown: dict[str, Summary] = {}
    seen = Position(made="", version=0)
    changed = 0
    for begin in range(0, len(sent), 40):
        await publish(bus, sent[begin : begin + 40])
        await indexed(bus, path)
        with reading(path) as database:
            changes = changes_since(database, seen, limit=1_000)
            assert changes.anew == (not seen.made)
            seen, changed = take(shown, changes, database), changed + len(changes.rows)
            assert changes_since(database, seen, limit=0) == Changes(position=seen)
            assert shown == rows_of(database)
    assert changed < 3 * len(shown), "and not more"
    run = next(run for run, one in shown.items() if one.status == "failed")
    await bus.log.purge(bus.subjects.run(run))
    await indexed(bus, path)
    with reading(path) as database:
        changes = changes_since(database, seen, limit=9)
        assert (changes.gone, changes.rows) == ([run], [])
        take(shown, changes, database)
        assert shown == rows_of(database)
        begin_seq = max(row.start_seq for row in find(database, Wanted(limit=1), NOW))
        since_first = Position(made=seen.made, version=0)
        assert changes_since(database, since_first, limit=3).anew, "more than is asked for"
        newest = changes_since(database, since_first, limit=3, low_seq=begin_seq)
        assert [row.start_seq for row in newest.rows] == [begin_seq]
    monkeypatch.setattr(table, "GONE_KEPT", 0)
    await bus.log.purge(bus.subjects.run(next(run for run, one in shown.items() if one.status == "expired")))
    await indexed(bus, path)
    with reading(path) as database:
        assert changes_since(database, seen, limit=9).anew, "it is not known any more what went"
        assert not changes_since(database, position_of(database), limit=9).anew
    await indexed(bus, path, anew=True)
    with reading(path) as database:
        assert changes_since(database, seen, limit=999).anew, "it is another index"


def take(shown: dict[str, Summary], changes: Changes, database: sqlite3.Connection) -> Position:
    if changes.anew:
        shown.clear()
        shown.update(rows_of(database))
    for run in changes.gone:
        shown.pop(run, None)
    shown.update((row.summary.run, row.summary) for row in changes.rows)
    return changes.position


def rows_of(database: sqlite3.Connection) -> dict[str, Summary]:
    rows = find(database, Wanted(limit=999), NOW)
    nested = [find(database, Wanted(limit=999, parent=row.summary.run), NOW) for row in rows]
    return {row.summary.run: row.summary for row in [*rows, *(each for found in nested for each in found)]}


async def test_whoever_keeps_it_tells_of_each_writing_at_once(bus: Bus, path: Path) -> None:
    """In a thread beside this loop: what is told is in the file by then, soon after the server has it."""
    await publish(bus, mixed(recorded(bus.settings.namespace), Random(3)))
    heard: list[tuple[Committed, int]] = []
    told: list[str] = []

    def committed(what: Committed) -> None:
        with reading(path) as database:
            heard.append((what, position_of(database).version))

    keeping = asyncio.create_task(keep_beside(partial(open_bus, bus.settings), path, told.append, committed))
    try:
        await until(lambda: "up to date" in told)
        lags_s = []
        for number in range(5):
            seq = (await start_run(bus, PLAN, {"q": "live"}, run=f"live-{number}")) and await bus.log.end()
            stored = time.monotonic()
            await until(lambda seq=seq: heard[-1][0].high_seq >= seq)  # type: ignore[misc]
            lags_s.append(time.monotonic() - stored)
        assert min(lags_s) < 0.25
        assert all(now >= what.position.version for what, now in heard)
        assert heard[-1][0].stored_at is not None
        with pytest.raises(IndexBusy):
            async with opened(bus, path):
                pass
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert keeping.cancelled()
    async with opened(bus, path) as kept:
        assert kept.reach.high_seq == await bus.log.end(), "it let go of the file, and all is there"


async def test_what_keeps_a_thread_from_it_is_raised(bus: Bus, path: Path) -> None:
    await start_run(bus, PLAN, {"q": "one"}, run="r1")
    async with opened(bus, path):
        with pytest.raises(IndexBusy):
            await keep_beside(partial(open_bus, bus.settings), path, lambda what: None, lambda what: None)


async def test_times_lead_to_the_first_run_that_began_then(bus: Bus, path: Path) -> None:
    for number in range(5):
        await start_run(bus, PLAN, {"q": "one"}, run=f"r{number}")
        await cancel_run(bus, f"r{number}")
    await indexed(bus, path)
    with reading(path) as database:
        for row in find(database, Wanted(limit=9), NOW):
            assert row.summary.started_at is not None
            assert first_seq(database, row.summary.started_at) <= row.start_seq
            assert first_seq(database, row.summary.started_at + timedelta(microseconds=1)) > row.start_seq
        assert first_seq(database, NOW - timedelta(days=1)) <= 1
