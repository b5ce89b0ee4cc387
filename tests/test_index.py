"""The index of the runs says of each what its log says, however it came to be; `find_runs` finds the same without."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baton_bus import Settings
from baton_bus.client.purge import Choice, plan_purge, purge
from baton_bus.client.survey import survey
from baton_bus.errors import BusUnavailable
from baton_bus.index import file as files
from baton_bus.index import indexing, projecting, using
from baton_bus.index.errors import IndexBusy
from baton_bus.index.finding import Order, Wanted
from baton_bus.index.keeping import keep, opened
from baton_bus.index.spans import Span, joined, missing, windows
from baton_bus.index.table import spans_of
from baton_bus.index.using import find_runs
from baton_bus.jetstream import reader
from baton_bus.jetstream.gets import Stored
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.flow import Flow
from baton_schemas.run.fold import fold
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Result

from .clients import cancel_run, start_run
from .indexed import EVERY, Sent, fitting, found_in, indexed, listed, mixed, publish, recorded, said_by, simulated_runs
from .servers import NatsServer, until
from .strategies import flows
from .test_runs import PLAN

NOW = datetime.now(UTC)


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        yield bus


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows in which hardly a run is whole."""
    monkeypatch.setattr(indexing, "WINDOW", 5)
    monkeypatch.setattr(indexing, "WINDOW_MAX", 40)
    monkeypatch.setattr(indexing, "_AT_ONCE", 3)


def all_recorded(bus: Bus, seed: int = 1) -> Sent:
    return mixed(recorded(bus.settings.namespace), Random(seed))


async def said(bus: Bus) -> dict[str, object]:
    return {run: summary for run, (summary, _) in (await listed(bus)).items()}


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("held_max_bytes", [projecting.HELD_MAX_BYTES, 4_000, 0])
async def test_it_says_of_each_run_what_its_log_says(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch, held_max_bytes: int
) -> None:
    monkeypatch.setattr(projecting, "HELD_MAX_BYTES", held_max_bytes)
    await publish(bus, all_recorded(bus))
    rows = await indexed(bus, path)
    assert rows == await said(bus)
    assert list(rows) == list(await said(bus))
    assert len(rows) > 15


@pytest.mark.parametrize("window_max_bytes", [0, 2_000])
async def test_window_that_is_too_much_to_be_held_is_folded_as_it_comes(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch, window_max_bytes: int
) -> None:
    monkeypatch.setattr(projecting, "WINDOW_MAX_BYTES", window_max_bytes)
    monkeypatch.setattr(reader, "_BATCH", 7)
    monkeypatch.setattr(indexing, "WINDOW", 90)
    await publish(bus, all_recorded(bus))
    assert await indexed(bus, path) == await said(bus)


@given(flows(steps_max=4), st.randoms(use_true_random=False))
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_both_ways_find_the_same_simulated_runs(
    server: NatsServer, tmp_path_factory: pytest.TempPathFactory, flow: Flow, choose: Random
) -> None:
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    wanted = [
        EVERY,
        Wanted(limit=3, statuses=("failed", "cancelled")),
        Wanted(limit=4, order="cost"),
        Wanted(limit=4, order="tokens", flow=flow.name),
        Wanted(limit=9, text="agai"),
        Wanted(limit=9, flow="other"),
    ]

    async def both() -> None:
        namespace = f"t{choose.randrange(10**12)}"
        async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
            await publish(bus, mixed(simulated_runs(namespace, flow, choose, 7), choose))
            runs = await listed(bus)
            assert await indexed(bus, path) == {run: summary for run, (summary, _) in runs.items()}
            for each in wanted:
                await assert_found(bus, path, each)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(indexing, "WINDOW", 6)
        patched.setattr(indexing, "WINDOW_MAX", 48)
        asyncio.run(both())


@pytest.mark.parametrize("order", get_args(Order))
async def test_both_ways_find_the_same_recorded_runs(bus: Bus, path: Path, order: Order) -> None:
    sent = all_recorded(bus)
    await publish(bus, sent[: len(sent) // 2])
    middle = datetime.now(UTC)
    await publish(bus, sent[len(sent) // 2 :])
    await indexed(bus, path)
    wanted = Wanted(limit=1_000, order=order)
    for each in (
        wanted,
        msgspec.structs.replace(wanted, limit=3),
        msgspec.structs.replace(wanted, statuses=("failed",)),
        msgspec.structs.replace(wanted, statuses=("done", "expired"), limit=2),
        msgspec.structs.replace(wanted, flow="report"),
        msgspec.structs.replace(wanted, since=middle),
        msgspec.structs.replace(wanted, until=middle),
        msgspec.structs.replace(wanted, text="tea lea"),
        msgspec.structs.replace(wanted, text="TEA"),
        msgspec.structs.replace(wanted, text="no-such-word"),
    ):
        await assert_found(bus, path, each)


async def assert_found(bus: Bus, path: Path, wanted: Wanted) -> None:
    now = datetime.now(UTC)
    runs = await listed(bus)
    expected = fitting(runs, wanted, now)
    for place in (path, None):
        found = await find_runs(bus, wanted, place, now)
        assert [row.summary.run for row in found.rows] == expected, wanted
        assert all(row.summary == runs[row.summary.run][0] for row in found.rows)
        assert (found.by_index, found.why, found.all_read) == (place is not None, "", True)


async def test_runs_that_wait_for_people_are_found_until_they_do_not(bus: Bus, path: Path) -> None:
    for sent in recorded(bus.settings.namespace):
        asks = next((place for place, (_, body) in enumerate(sent) if b'"kind":"person"' in body), len(sent))
        await publish(bus, sent[: asks + 1])
    waiting = [
        run
        for run in await listed(bus)
        for state in [fold(await bus.log.run(run))]
        if state.result is None
        and any(step.asked == "person" and step.status == "queued" for step in state.steps.values())
    ]
    assert waiting
    await indexed(bus, path)
    for place in (path, None):
        found = await find_runs(bus, Wanted(limit=99, waiting=True), place, NOW)
        assert [row.summary.run for row in found.rows] == waiting
        assert all(row.head.run == row.summary.run and row.head.actors for row in found.rows)
    for run in waiting:
        await cancel_run(bus, run)
    for place in (path, None):
        assert (await find_runs(bus, Wanted(limit=99, waiting=True), place, NOW)).rows == []


@pytest.mark.usefixtures("small_windows")
async def test_whoever_is_broken_off_goes_on_where_that_was(bus: Bus, path: Path) -> None:
    """Between the writings of two windows, with runs that began before and went on since."""
    sent = all_recorded(bus)
    parts = [sent[at : at + len(sent) // 4 + 1] for at in range(0, len(sent), len(sent) // 4 + 1)]
    read = 0
    for part in parts:
        await publish(bus, part)
        async with opened(bus, path) as kept:
            await kept.indexer.catch_up(most=len(part) // 2)
            read += kept.indexer.read
    async with opened(bus, path) as kept:
        assert not kept.made
        assert await kept.indexer.catch_up()
        read += kept.indexer.read
    assert said_by(path) == await said(bus)
    assert read == len(sent), "nothing was read twice in passing"


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("folds_max", [1, 4_000])
async def test_what_comes_is_taken_up_while_what_was_before_is_read(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch, folds_max: int
) -> None:
    monkeypatch.setattr(projecting, "FOLDS_MAX", folds_max)
    sent = all_recorded(bus)
    half = len(sent) // 2
    await publish(bus, sent[:half])
    async with following(bus, path):
        for message in sent[half:]:
            await publish(bus, [message])
        await until(lambda: reaches(path) == len(sent))
        assert said_by(path) == await said(bus)
        found = await find_runs(bus, Wanted(limit=5, statuses=("failed",)), path, NOW)
        assert (found.by_index, found.why) == (True, ""), "beside whoever writes it"
        with pytest.raises(IndexBusy):
            async with opened(bus, path):
                pass


def reaches(path: Path) -> int:
    if not path.exists() or not path.stat().st_size:
        return 0
    with contextlib.suppress(Exception), contextlib.closing(files.connected(path)) as database:
        spans = spans_of(database)
        return spans[-1].high if spans and spans[0].low == 1 and len(spans) == 1 else 0
    return 0


@contextlib.asynccontextmanager
async def following(bus: Bus, path: Path) -> AsyncIterator[list[str]]:
    told: list[str] = []
    task = asyncio.create_task(keep(bus, path, told.append))
    try:
        yield told
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_runs_that_were_purged_are_gone_from_it(bus: Bus, path: Path) -> None:
    await publish(bus, all_recorded(bus))
    before = await indexed(bus, path)
    ended = [run for run, one in before.items() if one.status != "running" and not one.parent]
    await purge(bus, plan_purge(await survey(bus), Choice(runs=(ended[0], ended[1])), datetime.now(UTC)))
    rows = await indexed(bus, path)
    assert before.keys() - rows.keys() >= {ended[0], ended[1]}
    assert rows == await said(bus)


@pytest.mark.parametrize("follows", [False, True])
async def test_runs_whose_messages_somebody_removed_are_gone_from_it(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch, follows: bool
) -> None:
    monkeypatch.setattr(indexing, "CHECK_S", 0.1)
    await publish(bus, all_recorded(bus))
    before = await indexed(bus, path)
    gone, *_ = before
    async with following(bus, path) if follows else contextlib.nullcontext():
        if follows:
            await until(lambda: reaches(path) > 0)
        await bus.log.purge(bus.subjects.run(gone))
        if follows:
            await until(lambda: gone not in said_by(path))
    assert await indexed(bus, path) == await said(bus)
    assert gone not in said_by(path)


async def test_stream_that_was_made_anew_has_an_index_made_anew(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "CHECK_S", 0.1)
    sent = all_recorded(bus)
    await publish(bus, sent)
    old = await indexed(bus, path)
    async with following(bus, path) as told:
        await until(lambda: "up to date" in told)
        await bus.js.delete_stream(bus.settings.namespace)
        async with open_bus(bus.settings):
            await publish(bus, sent[:9])
            await until(lambda: any("made anew" in line for line in told))
            await until(lambda: reaches(path) == 9)
            assert said_by(path) == await said(bus)
            assert len(said_by(path)) < len(old)


async def test_messages_of_a_later_release_make_no_difference_between_both_ways(bus: Bus, path: Path) -> None:
    sent = all_recorded(bus)
    newer = [(subject, body.replace(b'"kind"', b'"v":99,"kind"', 1)) for subject, body in sent[::5]]
    others = [each for number, each in enumerate(sent) if number % 5]
    await publish(bus, [*others, *newer, (f"{bus.settings.namespace}.result.x.odd.end", b"\xff no message")])
    await indexed(bus, path)
    for wanted in (EVERY, Wanted(limit=5, order="cost"), Wanted(limit=50, statuses=("running",))):
        await assert_found(bus, path, wanted)


async def test_branch_of_a_step_that_has_none_is_shown_and_stops_nobody(bus: Bus, path: Path) -> None:
    """A stranger may name one."""
    (pipeline,) = [sent for sent in recorded(bus.settings.namespace) if b"pipe" in sent[0][1] and len(sent) == 4][:1]
    subject, body = pipeline[1]
    forged = (subject.replace(".write.", ".write-7."), body.replace(b'"step":"write"', b'"step":"write-7"'))
    await publish(bus, [*pipeline, forged])
    rows = await indexed(bus, path)
    assert rows == await said(bus)
    ((run, one),) = rows.items()
    assert [(cell.step, cell.status) for cell in one.cells][1] == ("write", "done")
    state = fold(await bus.log.run(run))
    shown = rows_of(state, plan_of(state))
    assert [row.status for row in shown if row.step == "write"] == ["done"]


def test_run_that_is_purged_while_it_is_read_has_no_row() -> None:
    """Before, between and after its messages are folded."""
    sent = recorded("n")[0]
    run = sent[0][0].split(".")[3]
    stored = [Stored(seq, NOW, subject, body, b"") for seq, (subject, body) in enumerate(sent, start=1)]
    tomb = encode(Result(run=run, flow="f", status="cancelled", purged=True))
    for heard_after in ("nothing", "take", "fold"):
        projector = projecting.Projector()
        purged = Stored(99, NOW, f"n.result.f.{run}.end", tomb, b"")
        if heard_after == "nothing":
            projector.hear(purged)
        projector.take(stored)
        if heard_after == "take":
            projector.hear(purged)
        projector.fold_some(1)
        if heard_after == "fold":
            projector.hear(purged)
        projector.end_window()
        assert projector.gone == {run}
        assert (projector.ready, projector.unknown) == ({}, {run}), "its log is asked what is left"


async def test_what_is_affordable_is_said(bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "WINDOW", 10)
    monkeypatch.setattr(indexing, "WINDOW_MAX", 10)
    monkeypatch.setattr(using, "AFFORDABLE", 30)
    sent = [message for run in recorded(bus.settings.namespace) for message in run]
    await publish(bus, sent)
    wanted = Wanted(limit=1_000, text="tea")
    found = await find_runs(bus, wanted, None, NOW)
    assert (found.all_read, found.read, found.messages) == (False, 30, len(sent))
    assert found.back_to is None or found.back_to < datetime.now(UTC)
    soon = await find_runs(bus, Wanted(limit=1, order="started"), None, NOW)
    assert len(soon.rows) == 1
    assert soon.all_read, "no earlier run can be the latest"
    later = await find_runs(bus, Wanted(limit=9, since=datetime.now(UTC) + timedelta(days=1)), None, NOW)
    assert (later.all_read, later.rows) == (True, [])
    assert later.read < 30, "what began earlier was not looked at"
    async with opened(bus, path) as kept:
        await kept.indexer.catch_up(most=10)
    behind = await find_runs(bus, wanted, path, NOW)
    assert not behind.by_index
    assert "reaches back over the latest 10 messages only" in behind.why


async def test_words_are_found_whatever_is_asked_and_written(bus: Bus, path: Path) -> None:
    texts = {
        "english": 'The Zürich office of ACME-Corp, said: "don\'t"',
        "japanese": "日本語のテキスト",
        "odd": "NUL\0 and \u202e bidi, <script>alert(1)</script>",
    }
    for run, text in texts.items():
        await start_run(bus, PLAN, {"q": text}, run=run)
    await indexed(bus, path)
    asked = {
        "zurich": ["english"],
        "acme corp": ["english"],
        "acme-co": ["english"],
        "don't": ["english"],
        '"don': ["english"],
        "本語": ["japanese"],
        "script alert": ["odd"],
        "a* OR b": [],
        "q:zurich NEAR(x": [],
        "cme": [],
    }
    for text, runs in asked.items():
        for place in (path, None):
            found = await find_runs(bus, Wanted(limit=9, text=text), place, NOW)
            assert [row.summary.run for row in found.rows] == runs, text
    assert found_in(path, Wanted(limit=9, text="zürich")) == ["english"]
    with pytest.raises(ValueError, match="has no word"):
        Wanted(limit=1, text=" -- ")
    with pytest.raises(ValueError, match="the status 'gone' is none of"):
        Wanted(limit=1, statuses=("gone",))  # type: ignore[arg-type]


async def test_server_that_is_away_is_waited_for(
    namespace: str, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = NatsServer(tmp_path / "nats")
    own.start_now()
    try:
        async with open_bus(Settings(url=own.url, namespace=namespace, patience_s=0.5)) as bus:
            sent = all_recorded(bus)
            await publish(bus, sent[:20])
            async with following(bus, path) as told:
                await until(lambda: reaches(path) == 20)
                await own.stop()
                await until(lambda: not bus.is_connected)
                with pytest.raises(BusUnavailable):
                    await bus.log.end()
                await asyncio.to_thread(own.start_now)
                await bus.connected()
                await publish(bus, sent[20:])
                await until(lambda: reaches(path) == len(sent))
                assert told
            assert said_by(path) == await said(bus)
    finally:
        own.stop_now()


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20))), st.integers(1, 40), st.integers(0, 60))
def test_spans_say_what_was_read_and_what_was_not(parts: list[tuple[int, int]], low: int, length: int) -> None:
    done = [Span(begin, begin + more) for begin, more in parts]
    within = Span(low, low + length)
    read = {seq for span in done for seq in range(span.low, span.high + 1)}
    assert {seq for span in joined(done) for seq in range(span.low, span.high + 1)} == read
    left = missing(done, within)
    assert [seq for span in left for seq in range(span.low, span.high + 1)] == [
        seq for span in left for seq in sorted(set(range(span.low, span.high + 1)) - read)
    ]
    assert {seq for span in left for seq in range(span.low, span.high + 1)} == set(range(low, low + length + 1)) - read
    assert left == sorted(left, reverse=True)
    pieces = [piece for span in left for piece in windows(span, 3, 8)]
    assert joined(pieces) == joined(left)
