"""Finding runs in an index: which are wanted, and in which order."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from baton_schemas.run.state import RunStatus

from .errors import NoWords
from .file import facts
from .row import IndexRow
from .spans import Span, last_of
from .table import REMOVED, microseconds, spaced, spans_of

Order = Literal["started", "cost", "time", "tokens"]
"""What comes first: the newest, the dearest, what took (or has taken) longest, what read and wrote most."""


class _Sorted(Struct, frozen=True, kw_only=True):
    """How rows come in an order, the most first, from an index that has also what else is mostly asked of them."""

    index: str
    column: str
    which: str = "1"
    """Those that are in it."""
    place: str = ""
    """What is compared with that of others, where it is not the column."""
    key: str = ":key"
    """What the column is compared with."""
    turned: bool = False
    """The least first."""


_SORTED: dict[Order, tuple[_Sorted, ...]] = {
    "cost": (_Sorted(index="runs_by_cost", column="cost"),),
    "tokens": (_Sorted(index="runs_by_tokens", column="tokens"),),
    "time": (
        _Sorted(index="runs_by_time", column="took_us", which="took_us IS NOT NULL"),
        _Sorted(
            index="runs_open",
            column="started_us",
            which="took_us IS NULL",
            place=":now - started_us",
            key=":now - :key",
            turned=True,
        ),
    ),
}
_TURNED = {"ASC": "DESC", "DESC": "ASC", "<": ">", ">": "<"}
_WORDS = "found MATCH :words"
_SEQ_MAX = 2**63 - 1


class Wanted(Struct, frozen=True, kw_only=True):
    """Which runs are looked for: those that all that is given here fits."""

    limit: int
    flow: str = ""
    statuses: tuple[RunStatus, ...] = ()
    waiting: bool = False
    """Only those that wait for people."""
    since: datetime | None = None
    until: datetime | None = None
    """When they began: from then on, and before then."""
    text: str = ""
    """Words, or beginnings of words, that all are in their input, output or error."""
    cause: str = ""
    """The key of what they failed for."""
    parent: str = ""
    """Those that this run asked for; without it, those that nobody's step did."""
    forked_from: str = ""
    """Those that go on from this run."""
    order: Order = "started"
    ascending: bool = False
    """The least of it, or the oldest, first."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for a status that there is not, and `NoWords`."""
        for status in self.statuses:
            if status not in get_args(RunStatus):
                raise ValueError(f"the status {status!r} is none of {', '.join(get_args(RunStatus))}")
        if self.text:
            words_in(self.text)

    @property
    def has_filter(self) -> bool:
        """Whether more is asked than which runs began last."""
        bare = Wanted(limit=self.limit, parent=self.parent)
        return self != bare


def find(
    database: sqlite3.Connection, wanted: Wanted, now: datetime, low_seq: int = 0, *, after: str = ""
) -> list[IndexRow]:
    """Return the runs that are wanted, of those that began at this sequence or later.

    With `after`, those that come after this run in their order: none for one that is not there. `now` is for the time
    of runs that have not ended. Raises as SQLite does.
    """
    conditions, given = _asked(wanted, now, low_seq)
    given |= {"limit": wanted.limit}
    if not after:
        return _first(database, wanted, conditions, given)
    place = _place_of(database, wanted, after, now)
    return _first(database, wanted, conditions, {**given, **place}, past=_Past.AFTER) if place else []


def count(database: sqlite3.Connection, wanted: Wanted, now: datetime) -> dict[str, int]:
    """Return how many runs are wanted, by status: `wanted.limit` in all at most, whichever they are.

    Raises as SQLite does.
    """
    conditions, given = _asked(wanted, now, 0)
    source = "found JOIN runs ON start_seq = found.rowid" if _WORDS in conditions else "runs"
    question = (
        f"SELECT status, count(*) FROM (SELECT status FROM {source} WHERE {' AND '.join(conditions)} LIMIT :limit)"
        " GROUP BY status"
    )
    return dict(database.execute(question, {**given, "limit": wanted.limit}).fetchall())


def named(database: sqlite3.Connection, part: str, limit: int) -> list[IndexRow]:
    """Return runs whose ids begin or end so, nested ones too: those that begin so first. Raises as SQLite does."""
    question = "SELECT row FROM runs WHERE run >= ? AND run < ? ORDER BY run DESC LIMIT ?"
    found = rows_in(database.execute(question, (part, part + "\U0010ffff", limit)).fetchall())
    if len(found) < limit:
        # The ids are in an index of their own, which is looked through without the rows.
        question = (
            "SELECT row FROM runs WHERE start_seq IN (SELECT start_seq FROM runs WHERE substr(run, ?) = ?"
            " AND length(run) > ? LIMIT ?) ORDER BY start_seq DESC"
        )
        given = (-len(part), part, len(part), limit - len(found))
        have = {row.start_seq for row in found}
        found += [row for row in rows_in(database.execute(question, given).fetchall()) if row.start_seq not in have]
    return found


class Beside(Struct, frozen=True, kw_only=True):
    """The neighbours of a run in a list."""

    before: IndexRow | None
    """The one above it; None for the first."""
    after: IndexRow | None


def beside(database: sqlite3.Connection, wanted: Wanted, run: str, now: datetime, low_seq: int = 0) -> Beside:
    """Return the runs right before and after one in what `find` would find without a limit.

    The run itself need not be wanted any more: then they are those between which it would be. Without a row it has no
    neighbours. Raises as SQLite does.
    """
    place = _place_of(database, wanted, run, now)
    if not place:
        return Beside(before=None, after=None)
    conditions, given = _asked(wanted, now, low_seq)
    given |= {**place, "limit": 1}
    found = [_first(database, wanted, conditions, given, past=past) for past in (_Past.BEFORE, _Past.AFTER)]
    return Beside(before=next(iter(found[0]), None), after=next(iter(found[1]), None))


def _place_of(database: sqlite3.Connection, wanted: Wanted, run: str, now: datetime) -> dict[str, object]:
    """Return where a run is in an order; nothing for one without a row."""
    keys = {"time": "coalesce(took_us, :now - started_us)", "started": "0"}
    question = f"SELECT start_seq, {keys.get(wanted.order, wanted.order)} FROM runs WHERE run = :run"
    at = database.execute(question, {"run": run, "now": microseconds(now)}).fetchone()
    return {"seq": at[0], "key": at[1]} if at is not None else {}


class _Past(Enum):
    """On which side of a run."""

    BEFORE = "before"
    AFTER = "after"


def _first(
    database: sqlite3.Connection,
    wanted: Wanted,
    conditions: Sequence[str],
    given: dict[str, object],
    past: _Past | None = None,
) -> list[IndexRow]:
    """Return the first runs in an order, or the nearest to one with this `key` and `seq`."""
    up = wanted.ascending != (past is _Past.BEFORE)
    compared, way = (">", "ASC") if up else ("<", "DESC")
    words = _WORDS in conditions
    where = " AND ".join(conditions)
    # Words are found in the order of this number, so that no more of them are looked at than are wanted.
    seq = "found.rowid" if words else "start_seq"
    if wanted.order == "started":
        source = "found JOIN runs ON start_seq = found.rowid" if words else "runs"
        side = f" AND {seq} {compared} :seq" if past is not None else ""
        question = f"SELECT row FROM {source} WHERE {where}{side} ORDER BY {seq} {way} LIMIT :limit"
        return rows_in(database.execute(question, given).fetchall())
    parts = []
    for each in _SORTED[wanted.order]:
        source = "found JOIN runs ON start_seq = found.rowid" if words else f"runs INDEXED BY {each.index}"
        column_way, column_compared = (_TURNED[way], _TURNED[compared]) if each.turned else (way, compared)
        sides = [""]
        if past is not None:
            sides = [
                f" AND {each.column} = {each.key} AND start_seq {compared} :seq",
                f" AND {each.column} {column_compared} {each.key}",
            ]
        parts += [
            f"SELECT * FROM (SELECT {each.place or each.column} AS place, start_seq AS at, row FROM {source}"
            f" WHERE {where} AND {each.which}{side} ORDER BY {each.column} {column_way}, start_seq {way} LIMIT :limit)"
            for side in sides
        ]
    question = f"SELECT row FROM ({' UNION ALL '.join(parts)}) ORDER BY place {way}, at {way} LIMIT :limit"
    return rows_in(database.execute(question, given).fetchall())


def _asked(wanted: Wanted, now: datetime, low_seq: int) -> tuple[list[str], dict[str, object]]:
    """Return what must hold of each row, and the values that this names."""
    conditions = ["parent = :parent"]
    if low_seq:
        conditions.append("start_seq >= :low")
    if wanted.flow:
        conditions.append("flow = :flow")
    if wanted.statuses:
        # Each status is one of ours: nothing of what people write gets into the question.
        conditions.append(f"status IN ({', '.join(repr(status) for status in wanted.statuses)})")
    if wanted.waiting:
        conditions.append("asks_people")
    if wanted.cause:
        conditions.append("cause = :cause AND cause != ''")
    if wanted.forked_from:
        conditions.append("forked_from = :forked_from AND forked_from != ''")
    if wanted.since is not None:
        conditions.append("started_us >= :since")
    if wanted.until is not None:
        conditions.append("started_us < :until")
    if wanted.text:
        conditions.append(_WORDS)
    given: dict[str, object] = {
        "parent": wanted.parent,
        "low": min(low_seq, _SEQ_MAX),
        "flow": wanted.flow,
        "cause": wanted.cause,
        "forked_from": wanted.forked_from,
        "since": microseconds(wanted.since) if wanted.since is not None else None,
        "until": microseconds(wanted.until) if wanted.until is not None else None,
        "words": words_in(wanted.text) if wanted.text else "",
        "now": microseconds(now),
    }
    return conditions, given


def rows_in(found: Sequence[tuple[bytes]]) -> list[IndexRow]:
    """Return rows as they were written."""
    return [msgspec.json.decode(row, type=IndexRow) for (row,) in found]


def words_in(text: str) -> str:
    """Return a question for SQLite (FTS5) of a text: each word of it, or the beginning of one. Raises `NoWords`.

    What has a meaning in such questions is quoted, so that it means itself.
    """
    words = [word for word in text.replace("\0", " ").split() if any(map(str.isalnum, word))]
    if not words:
        raise NoWords(text)
    quoted = (spaced(word).replace('"', '""') for word in words)
    return " AND ".join(f'"{word}" *' for word in quoted)


class Reach(Struct, frozen=True, kw_only=True):
    """How far an index reaches: all runs are in it that began from `low_seq` to `high_seq`."""

    namespace: str
    created: str
    """When the stream was made whose sequences these are."""
    low_seq: int
    high_seq: int
    """Of the newest part that was read without a gap; from 1 to 0 when nothing was."""
    back_to: datetime | None
    """When the first run in it began."""
    spans: list[Span]
    """All parts that were read."""
    runs: int
    first_seq: int = 1
    """Of the log: what was before is gone."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing older is to be read."""
        return self.low_seq <= self.first_seq and self.high_seq > 0


def reach_of(database: sqlite3.Connection) -> Reach:
    """Return how far an index reaches. Raises as SQLite does."""
    said, spans = facts(database), spans_of(database)
    newest = last_of(spans) or Span(1, 0)
    (runs,) = database.execute("SELECT count(*) FROM runs").fetchone()
    return Reach(
        namespace=said.get("namespace", ""),
        created=said.get("created", ""),
        low_seq=newest.low,
        high_seq=newest.high,
        back_to=started_at(database, newest.low),
        spans=spans,
        runs=runs,
        first_seq=max(int(said.get(REMOVED, "1").split()[0]), 1),
    )


def started_at(database: sqlite3.Connection, seq: int) -> datetime | None:
    """Return when the first run began that the index has from this sequence on."""
    with contextlib.suppress(StopIteration):
        question = "SELECT row FROM runs WHERE start_seq >= ? ORDER BY start_seq LIMIT 1"
        return next(iter(rows_in(database.execute(question, (seq,)).fetchall()))).summary.started_at
    return None


def first_seq(database: sqlite3.Connection, since: datetime) -> int:
    """Return the sequence from which on runs began at this time or later: the server stores in the order of time."""
    low, high = 0, database.execute("SELECT coalesce(max(start_seq), 0) + 1 FROM runs").fetchone()[0]
    at_us = microseconds(since)
    while low < high:
        middle = (low + high) // 2
        question = "SELECT start_seq, started_us FROM runs WHERE start_seq >= ? ORDER BY start_seq LIMIT 1"
        found = database.execute(question, (middle,)).fetchone()
        if found is None or found[1] >= at_us:
            high = middle
        else:
            low = found[0] + 1
    return int(low)
