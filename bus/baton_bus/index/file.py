"""The file of an index: made, looked at before it is used, and held by one writer.

Whose file it is stands in its header (`application_id`), of which release in `user_version`, and of which log in
`facts`. What cannot be used and is ours is made anew, as all of it is in the log; what is not ours is left alone. A
writer holds a lock (flock) beside it, so the kernel says whether there is one, whatever was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from baton_schemas.wire.messages import VERSION

from .errors import BUSY_S, IndexBusy, IndexForeign, IndexLocked, IndexOutdated, IndexUnusable

OURS = 0x42415431
"""`BAT1`, in the header of the file."""
LAYOUT = 100 * VERSION + 3
"""Counts what a row has and how it is made; and the version of the messages that are understood. Else made anew."""
WRITER_CACHE_KB = 32 * 1024
"""Of the file in a writer's memory: rows come in the order of the log, and go to all places of some orders of lists."""
_WAL_PAGES = 4_000
"""Of 4 KiB in the write-ahead log before they go to the file: what a large writing changes, once and not four times."""
MADE = "made"
"""The fact that tells one making of an index from another: versions of rows begin anew with each."""
_ADVICE = "Look at the disk and the rights on it."
_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID = slice(68, 72)
_HEADER_BYTES = 100

_TABLES = """
CREATE TABLE facts(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE spans(low INTEGER PRIMARY KEY, high INTEGER NOT NULL);
CREATE TABLE torn(run TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE runs(
  start_seq INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, flow TEXT NOT NULL, status TEXT NOT NULL,
  parent TEXT NOT NULL, started_us INTEGER NOT NULL, took_us INTEGER, cost_usd REAL, cost REAL NOT NULL,
  tokens INTEGER NOT NULL,
  asks_people INTEGER NOT NULL, cause TEXT NOT NULL, forked_from TEXT NOT NULL, version INTEGER NOT NULL,
  row BLOB NOT NULL, words TEXT NOT NULL);
CREATE INDEX runs_by_status ON runs(status, start_seq);
CREATE INDEX runs_by_flow ON runs(flow, start_seq, status, took_us, cost_usd);
CREATE INDEX runs_by_parent ON runs(parent) WHERE parent != '';
CREATE INDEX runs_by_cause ON runs(cause, start_seq, run) WHERE cause != '';
CREATE INDEX runs_by_fork ON runs(forked_from, start_seq, status) WHERE forked_from != '';
CREATE INDEX runs_by_version ON runs(version, start_seq);
CREATE INDEX runs_by_cost ON runs(cost, start_seq, parent, flow, status, started_us);
CREATE INDEX runs_by_tokens ON runs(tokens, start_seq, parent, flow, status, started_us);
CREATE INDEX runs_by_time ON runs(took_us, start_seq, parent, flow, status, started_us) WHERE took_us IS NOT NULL;
CREATE INDEX runs_open ON runs(started_us, start_seq, parent, flow, status) WHERE took_us IS NULL;
CREATE TABLE gone(version INTEGER NOT NULL, run TEXT NOT NULL);
CREATE INDEX gone_by_version ON gone(version);
CREATE TABLE counts(
  length_s INTEGER, begin_s INTEGER, flow TEXT, status TEXT, nested INTEGER, runs INTEGER NOT NULL,
  PRIMARY KEY(length_s, nested, begin_s, flow, status)) WITHOUT ROWID;
CREATE TABLE causes(
  cause TEXT PRIMARY KEY, flow TEXT NOT NULL, step TEXT NOT NULL, type TEXT NOT NULL, message TEXT NOT NULL,
  runs INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE spent(
  day INTEGER, flow TEXT, step TEXT, agent TEXT, model TEXT, rehearsed INTEGER, calls INTEGER NOT NULL,
  cost INTEGER NOT NULL, waste INTEGER NOT NULL, unpriced INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
  cache_read_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  PRIMARY KEY(day, flow, step, agent, model, rehearsed)) WITHOUT ROWID;
CREATE VIRTUAL TABLE found USING fts5(
  words, content='runs', content_rowid='start_seq', tokenize="unicode61 remove_diacritics 2");
"""


class Identity(Struct, frozen=True, kw_only=True):
    """Which log an index is of. A stream that was deleted and made anew has another `created`."""

    namespace: str
    created: str
    """When the stream was made, as the server says it."""
    words: bool = True
    """Whether the index holds words of inputs, outputs and errors."""


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what SQLite says into errors of ours. Raises `IndexUnusable`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = (error.sqlite_errorcode or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise IndexLocked(path) from error
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise IndexUnusable(path, f"cannot be used: {error}", _ADVICE) from error
        raise IndexOutdated(path, f"is damaged ({error})") from error
    except sqlite3.DatabaseError as error:
        raise IndexOutdated(path, f"is damaged ({error})") from error


@contextlib.contextmanager
def opening(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say of a file that is opened into errors of ours. Raises `IndexUnusable`."""
    try:
        with told(path):
            yield
    except OSError as error:
        raise IndexUnusable(path, f"cannot be used: {error.strerror}", _ADVICE) from error


def check_ours(path: Path) -> bool:
    """Say whether there is an index, whole or not; False where there is nothing. Raises `IndexForeign`."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return False
    except IsADirectoryError as error:
        raise IndexForeign(path, "a directory") from error
    if not head:
        return False
    cut = len(head) < _HEADER_BYTES and (head[:16] == _MAGIC[: len(head)])
    if not cut and (head[:16] != _MAGIC or head[_APPLICATION_ID] != OURS.to_bytes(4, "big")):
        raise IndexForeign(path, "a database of another program" if head[:16] == _MAGIC else "no database")
    return True


def lock(path: Path) -> int:
    """Return the lock of a writer as an open file descriptor; the kernel lets go of it with the process.

    Raises `IndexBusy`, `OSError`.
    """
    held = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.read(held, 20)
        os.close(held)
        raise IndexBusy(path, int(pid) if pid.isdigit() else 0) from error
    os.ftruncate(held, 0)
    os.write(held, b"%d" % os.getpid())
    return held


def connected(path: Path, *, writes: bool = False, whole: bool = False) -> sqlite3.Connection:
    """Open the file that is there; with `whole`, all of it is looked at. Raises as SQLite does, and `IndexOutdated`."""
    uri = f"{path.absolute().as_uri()}?mode={'rw' if writes else 'ro'}"
    database = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        (layout,) = database.execute("PRAGMA user_version").fetchone()
        if layout != LAYOUT:
            raise IndexOutdated(path, f"was made by another release (layout {layout}, expected {LAYOUT})")
        if whole and (said := database.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
            raise IndexOutdated(path, f"is damaged ({said})")
        database.execute("PRAGMA synchronous = NORMAL")
        if writes:
            database.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KB}")
            database.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    except BaseException:
        database.close()
        raise
    return database


def check_identity(path: Path, database: sqlite3.Connection, identity: Identity) -> None:
    """Raise `IndexOutdated` when the index is of another log."""
    found = facts(database)
    for name in ("namespace", "created", "words"):
        if (is_now := str(getattr(identity, name))) != (was := found.get(name, "")):
            if name == "words":
                said = "has no words of runs to be searched" if was == "False" else "has words of inputs and outputs"
                raise IndexOutdated(path, said)
            raise IndexOutdated(path, f"is of another log ({name} {was or 'unknown'}, here {is_now})")


def facts(database: sqlite3.Connection) -> dict[str, str]:
    """Return what the index says of itself."""
    return dict(database.execute("SELECT name, value FROM facts"))


def make(path: Path, identity: Identity) -> None:
    """Make an empty index in place of what is there. The caller holds the lock."""
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as database:
        # In the file itself before the write-ahead log takes over: a killed writer leaves what is known as ours.
        database.execute(f"PRAGMA application_id = {OURS}")
        lay_out(database, identity)
        database.execute("PRAGMA journal_mode = WAL")


def in_memory(identity: Identity) -> sqlite3.Connection:
    """Return an index that is in no file, and gone with the connection."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    lay_out(database, identity)
    return database


def lay_out(database: sqlite3.Connection, identity: Identity) -> None:
    """Make the tables, and say of which log they are."""
    database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;")
    said = [(name, str(getattr(identity, name))) for name in identity.__struct_fields__]
    said.append((MADE, secrets.token_hex(8)))
    database.executemany("INSERT INTO facts VALUES(?, ?)", said)
