"""The tables of an index, for whoever writes them: rows of runs with their words, and how far the log has been read."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from .file import facts
from .row import Given, IndexRow
from .spans import Span, joined
from .tallies import Tallies

_EPOCH = datetime.fromtimestamp(0, UTC)
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Scripts that put no spaces between words: each of their characters counts as a word, and a word is a phrase."""
_INSERT = f"INSERT INTO runs VALUES({', '.join(16 * '?')})"
_INSERT_WORDS = "INSERT INTO found(rowid, words) VALUES(?, ?)"
_DELETE_WORDS = "INSERT INTO found(found, rowid, words) VALUES('delete', ?, ?)"

VERSION = "version"
"""The fact that says how often rows were written."""
REMOVED = "deleted"
"""The fact that says where the log began, and how much of it was removed, when that was looked at."""
FORGOT = "forgot"
"""The fact that says up to which version it is not known any more which runs went."""
GONE_KEPT = 10_000
"""Runs that are gone and are told of: whoever comes so late reads all of its list anew."""

encode = msgspec.json.Encoder().encode
_decoded = msgspec.json.Decoder(IndexRow).decode


class _Old(NamedTuple):
    """What is in the table of a run."""

    seq: int
    run: str
    words: str
    row: bytes


class Table:
    """The tables of one open database."""

    def __init__(self, database: sqlite3.Connection, *, words: bool = True) -> None:
        """Without `words` none are kept."""
        self._database, self._words = database, words
        self._tallies = Tallies(database)
        self.version = int(self.fact(VERSION) or 0)
        """Counts the writings in which rows changed: each row has that of its last."""
        self._rows_changed = False

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Do all that is within, or nothing of it: a writer may be killed at any time."""
        self._database.execute("BEGIN IMMEDIATE")
        version = self.version + 1
        try:
            yield
            if changed := self._rows_changed:
                self._tallies.write()
                self.say(VERSION, str(version))
            self._database.execute("COMMIT")
        except BaseException:
            self._tallies.forget()
            self._rows_changed = False
            self._database.execute("ROLLBACK")
            raise
        if changed:
            self.version, self._rows_changed = version, False

    def put(self, given: Sequence[Given]) -> list[str]:
        """Write rows, each in place of the one that its run has; return the runs that have one which begins elsewhere.

        Of those nothing is changed: whoever looks at their logs knows where they begin.
        """
        if not given:
            return []
        self._rows_changed = True
        given = sorted(given, key=lambda each: each[0].start_seq)  # words are written together only as numbers rise
        if not self._words:
            given = [(_without_words(row), "") for row, _ in given]
        values = [_values(row, spaced(words), self.version + 1) for row, words in given]
        self._database.execute("SAVEPOINT rows")
        try:
            self._database.executemany(_INSERT, values)
            self._database.executemany(_INSERT_WORDS, ((each[0], each[-1]) for each in values if each[-1]))
        except sqlite3.IntegrityError:  # some are there already
            self._database.execute("ROLLBACK TO rows")
            return [row.summary.run for (row, _), each in zip(given, values, strict=True) if not self._put(row, each)]
        finally:
            self._database.execute("RELEASE rows")
        for row, _ in given:
            self._tallies.add(row, 1)
        return []

    def drop(self, runs: Iterable[str]) -> int:
        """Remove the rows of these runs; return how many there were."""
        found = [row for run in runs for row in self._where("run = ?", run)]
        return self._drop(found)

    def drop_below(self, seq: int) -> int:
        """Remove the rows of runs that began before this sequence, and forget that it was read."""
        spans = [Span(max(span.low, seq), span.high) for span in self.spans() if span.high >= seq]
        self._write_spans(spans)
        return self._drop(self._where("start_seq < ?", seq))

    def has(self, run: str) -> bool:
        """Say whether there is a row of this run."""
        return bool(self._where("run = ?", run))

    def begins(self) -> dict[str, int]:
        """Return where each run begins, by its id."""
        return dict(self._database.execute("SELECT run, start_seq FROM runs"))

    # ---- how far it reaches ------------------------------------------------------------------------

    def spans(self) -> list[Span]:
        """Return the parts of the log that have been read, in their order."""
        return spans_of(self._database)

    def read(self, span: Span) -> None:
        """Say that this part has been read."""
        self._write_spans(joined([*self.spans(), span]))

    def torn(self) -> set[str]:
        """Return the runs of which later messages were read, and not where they begin."""
        return {run for (run,) in self._database.execute("SELECT run FROM torn")}

    def tear(self, runs: Iterable[str]) -> None:
        """Add to these."""
        self._database.executemany("INSERT OR IGNORE INTO torn VALUES(?)", ((run,) for run in runs))

    def mend(self, runs: Iterable[str]) -> None:
        """Take from these."""
        self._database.executemany("DELETE FROM torn WHERE run = ?", ((run,) for run in runs))

    def fact(self, name: str) -> str:
        """Return what the index says of itself; empty where it says nothing."""
        return facts(self._database).get(name, "")

    def say(self, name: str, value: str) -> None:
        """Have the index say this of itself."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES(?, ?)", (name, value))

    def _write_spans(self, spans: Sequence[Span]) -> None:
        self._database.execute("DELETE FROM spans")
        self._database.executemany("INSERT INTO spans VALUES(?, ?)", spans)

    # ---- one by one --------------------------------------------------------------------------------

    def _put(self, row: IndexRow, values: Sequence[object]) -> bool:
        start_seq, run, text = values[0], values[1], values[-1]
        found = self._where("run = ?", run)
        if any(old.seq != start_seq for old in found):
            return False
        if [old.words for old in found] == [text]:  # the words cost most
            self._tallies.add(_decoded(found[0].row), -1)
            self._database.execute(f"REPLACE{_INSERT.removeprefix('INSERT')}", values)
        else:
            self._remove(found)
            self._database.execute(_INSERT, values)
            if text:
                self._database.execute(_INSERT_WORDS, (start_seq, text))
        self._tallies.add(row, 1)
        return True

    def _where(self, condition: str, value: object) -> list[_Old]:
        found = self._database.execute(f"SELECT start_seq, run, words, row FROM runs WHERE {condition}", (value,))
        return [_Old(*each) for each in found.fetchall()]

    def _drop(self, found: Sequence[_Old]) -> int:
        if found:
            self._rows_changed = True
            self._remove(found)
            self._database.executemany("INSERT INTO gone VALUES(?, ?)", [(self.version + 1, old.run) for old in found])
            self._forget_gone()
        return len(found)

    def _remove(self, found: Sequence[_Old]) -> None:
        for old in found:
            self._tallies.add(_decoded(old.row), -1)
        self._database.executemany(_DELETE_WORDS, [(old.seq, old.words) for old in found if old.words])
        self._database.executemany("DELETE FROM runs WHERE start_seq = ?", [(old.seq,) for old in found])

    def _forget_gone(self) -> None:
        """Keep no more than the latest runs that are gone, and say since when they are known."""
        bound = self._database.execute("SELECT max(rowid) FROM gone").fetchone()[0] - GONE_KEPT
        (last,) = self._database.execute("SELECT max(version) FROM gone WHERE rowid <= ?", (bound,)).fetchone()
        if last is not None:
            self._database.execute("DELETE FROM gone WHERE rowid <= ?", (bound,))
            self.say(FORGOT, str(last))


def spans_of(database: sqlite3.Connection) -> list[Span]:
    """Return the parts of the log that an index has read, in their order."""
    return [Span(low, high) for low, high in database.execute("SELECT low, high FROM spans ORDER BY low")]


def spaced(text: str) -> str:
    """Return a text as it is searched: with spaces around each character of scripts that have none between words."""
    text = text.replace("\0", " ")
    return text if text.isascii() else _UNSPACED.sub(lambda one: f" {one[0]} ", text.encode(errors="replace").decode())


def microseconds(at: datetime) -> int:
    """Return a time as a number: microseconds of Unix time."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def _without_words(row: IndexRow) -> IndexRow:
    cause = replace(row.cause, message="") if row.cause is not None else None
    return replace(row, summary=replace(row.summary, input="", error=""), cause=cause)


def _values(row: IndexRow, text: str, version: int) -> tuple[object, ...]:
    one = row.summary
    assert one.started_at is not None
    started_us = microseconds(one.started_at)
    return (
        row.start_seq,
        one.run,
        one.flow,
        one.status,
        one.parent,
        started_us,
        microseconds(one.ended_at) - started_us if one.ended_at is not None else None,
        one.cost_usd,
        one.cost_usd or 0.0,
        one.usage.tokens,
        row.asks_people,
        row.cause.key if row.cause is not None else "",
        one.forked_from,
        version,
        encode(row),
        text,
    )
