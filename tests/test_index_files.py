"""The file of an index: made anew when it cannot be used, left alone when it is not ours, written by one at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from baton_bus import Settings
from baton_bus.index import errors
from baton_bus.index import file as files
from baton_bus.index.errors import IndexBusy, IndexForeign, IndexLocked, IndexUnusable
from baton_bus.index.finding import Wanted
from baton_bus.index.keeping import opened
from baton_bus.index.using import Found, find_runs
from baton_bus.store.bus import Bus, open_bus

from .clients import start_run
from .indexed import indexed, said_by
from .servers import WAIT_S, NatsServer
from .test_runs import PLAN

NOW = datetime.now(UTC)
RUNS = ("r1", "r2", "r3")


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    """A log of three runs."""
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        for run in RUNS:
            await start_run(bus, PLAN, {"q": f"what is {run}"}, run=run)
        yield bus


@pytest.fixture
async def path(bus: Bus, tmp_path: Path) -> Path:
    """An index of it."""
    path = tmp_path / "somewhere" / "index.sqlite"
    await indexed(bus, path)
    return path


async def found(bus: Bus, path: Path, wanted: Wanted | None = None) -> Found:
    return await find_runs(bus, wanted or Wanted(limit=9, text="what"), path, NOW)


def names(found: Found) -> list[str]:
    return [row.summary.run for row in found.rows]


def read(path: Path) -> bytes:
    return path.read_bytes()


def files_of(path: Path) -> dict[str, Path]:
    return {each.name: each for each in path.parent.iterdir()}


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 11)


def cut_to_ten(path: Path) -> None:
    os.truncate(path, 10)


def scribble(path: Path) -> None:
    """Over all but the header."""
    data = bytearray(path.read_bytes())
    data[200:] = b"\xa5" * (len(data) - 200)
    path.write_bytes(data)


def of_another_release(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {files.LAYOUT + 1}")


def of_another_log(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE facts SET value = '2020' WHERE name = 'created'")
        database.commit()


def without_a_table(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE facts")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (cut_in_half, "is damaged"),
        (cut_to_ten, "is damaged"),
        (scribble, "is damaged"),
        (of_another_release, "made by another release"),
        (of_another_log, "is of another log"),
        (without_a_table, "is damaged"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
async def test_index_that_cannot_be_used_is_told_and_made_anew(bus: Bus, path: Path, harm: object, says: str) -> None:
    assert callable(harm)
    harm(path)
    by_log = await found(bus, path)
    assert (names(by_log), by_log.by_index) == (["r3", "r2", "r1"], False)
    assert says in by_log.why
    assert "`baton index` makes it anew" in by_log.why
    async with opened(bus, path) as kept:
        assert says in kept.made
        await kept.indexer.catch_up()
    again = await found(bus, path)
    assert (names(again), again.by_index, again.why) == (["r3", "r2", "r1"], True, "")


async def test_index_that_is_empty_or_gone_is_made(bus: Bus, path: Path) -> None:
    os.truncate(path, 0)
    assert names(await found(bus, path)) == ["r3", "r2", "r1"]
    await indexed(bus, path)
    files_of(path).pop(path.name).unlink()
    assert names(await found(bus, path)) == ["r3", "r2", "r1"]
    assert path.name not in files_of(path), "who only looks makes none"
    assert set(await indexed(bus, path)) == set(RUNS)


async def test_what_is_not_ours_stays_as_it_is(bus: Bus, tmp_path: Path) -> None:
    text, database, folder = tmp_path / "notes.txt", tmp_path / "other.sqlite", tmp_path / "folder"
    text.write_text("These are my notes, and they are longer than the header of a database. " * 3)
    with contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE mine(value)")
    folder.mkdir()
    for path, is_what in ((text, "no database"), (database, "a database of another program"), (folder, "a directory")):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(IndexForeign, match=f"is {is_what}.*move the file away"):
            async with opened(bus, path):
                pass
        by_log = await found(bus, path)
        assert (names(by_log), by_log.by_index) == (["r3", "r2", "r1"], False)
        assert is_what in by_log.why
        assert (path.read_bytes() if path.is_file() else b"") == before


async def test_index_that_another_program_has_locked_is_told(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BUSY_S", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("INSERT INTO facts VALUES('mine', 1)")
        with pytest.raises(IndexLocked, match="was locked by another program"):
            async with opened(bus, path) as kept:
                await kept.indexer.catch_up()
        by_log = await found(bus, path)
        assert (names(by_log), by_log.by_index) == (["r3", "r2", "r1"], False)
        assert "locked by another program" in by_log.why
        other.execute("ROLLBACK")
    assert (await found(bus, path)).by_index


async def test_folder_that_cannot_be_made_is_told(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IndexUnusable, match=r"cannot be used: .*Look at the disk"):
        async with opened(bus, tmp_path / "file" / "index.sqlite"):
            pass


def killed_later(path: Path) -> subprocess.Popen[str]:
    """A writer in another process, in the middle of a change."""
    code = (
        "import sys, pathlib, time; from baton_bus.index import file; p = pathlib.Path(sys.argv[1]); file.lock(p);"
        "d = file.connected(p, writes=True); d.execute('BEGIN IMMEDIATE'); d.execute('DELETE FROM runs');"
        "print('held', flush=True); time.sleep(60)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)


async def test_one_writer_at_a_time_and_the_kernel_lets_go_of_one_that_is_killed(bus: Bus, path: Path) -> None:
    other = killed_later(path)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(IndexBusy, match=f"is kept by pid {other.pid} already"):
            async with opened(bus, path):
                pass
        beside = await found(bus, path)
        assert (names(beside), beside.by_index) == (["r3", "r2", "r1"], True), "whoever writes hinders no reader"
        await start_run(bus, PLAN, {"q": "what else"}, run="r4")
        os.kill(other.pid, signal.SIGKILL)
    finally:
        other.kill()
        other.communicate(timeout=WAIT_S)
    after = await found(bus, path)
    assert (names(after), after.by_index) == (["r4", "r3", "r2", "r1"], True)
    assert set(said_by(path)) == {*RUNS, "r4"}, "what was not written whole is not written"


async def test_index_that_somebody_keeps_and_that_is_behind_is_not_used(
    bus: Bus, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_bus.index.using._WAITS_S", 0.1)
    await start_run(bus, PLAN, {"q": "what else"}, run="r4")
    lock = files.lock(path)
    try:
        by_log = await found(bus, path)
    finally:
        os.close(lock)
    assert (names(by_log), by_log.by_index) == (["r4", "r3", "r2", "r1"], False)
    assert "is behind the log" in by_log.why


async def test_index_without_words_says_so(bus: Bus, path: Path) -> None:
    assert b"what is" in read(path)
    rows = await indexed(bus, path, words=False)
    assert set(rows) == set(RUNS)
    assert b"what is" not in read(path)
    by_log = await found(bus, path)
    assert (names(by_log), by_log.by_index) == (["r3", "r2", "r1"], False)
    assert "has no words" in by_log.why
    assert (await found(bus, path, Wanted(limit=1, flow="ask"))).by_index


async def test_index_is_for_this_user_alone(path: Path) -> None:
    files_there = list(path.parent.iterdir())
    assert path in files_there
    assert {file.stat().st_mode & 0o077 for file in [path.parent, *files_there]} == {0}


def test_each_error_says_what_to_do(tmp_path: Path) -> None:
    said = [
        str(errors.IndexBusy(tmp_path, 0)),
        str(errors.IndexForeign(tmp_path, "a directory")),
        str(errors.IndexLocked(tmp_path)),
        str(errors.IndexOutdated(tmp_path, "is damaged")),
        str(errors.LogReplaced("baton")),
    ]
    assert all(line.endswith(".") and str(tmp_path if "stream" not in line else "baton") in line for line in said)
