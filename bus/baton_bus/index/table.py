"""The tables of an index, for whoever writes them: rows of runs with their words, and how far the log has been read."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from .file import facts
from .row import Given, IndexRow
from .spans import Span, joined

_EPOCH = datetime.fromtimestamp(0, UTC)
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Scripts that put no spaces between words: each of their characters counts as a word, and a word is a phrase."""
_INSERT = "INSERT INTO runs VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_WORDS = "INSERT INTO found(rowid, words) VALUES(?, ?)"
_DELETE_WORDS = "INSERT INTO found(found, rowid, words) VALUES('delete', ?, ?)"

encode = msgspec.json.Encoder().encode


class Table:
    """The tables of one open database."""

    def __init__(self, database: sqlite3.Connection, *, words: bool = True) -> None:
        """Without `words` none are kept."""
        self._database, self._words = database, words

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Do all that is within, or nothing of it: a writer may be killed at any time."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def put(self, given: Sequence[Given]) -> list[str]:
        """Write rows, each in place of the one that its run has; return the runs that have one which begins elsewhere.

        Of those nothing is changed: whoever looks at their logs knows where they begin.
        """
        given = sorted(given, key=lambda each: each[0].start_seq)  # the words are written at once only as numbers rise
        if self._words:
            values = [_values(row, spaced(words)) for row, words in given]
        else:
            values = [_values(_without_words(row), "") for row, _ in given]
        self._database.execute("SAVEPOINT rows")
        try:
            self._database.executemany(_INSERT, values)
            self._database.executemany(_INSERT_WORDS, ((each[0], each[-1]) for each in values if each[-1]))
        except sqlite3.IntegrityError:  # some are there already
            self._database.execute("ROLLBACK TO rows")
            return [str(each[1]) for each in values if not self._put(each)]
        finally:
            self._database.execute("RELEASE rows")
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

    def _put(self, values: Sequence[object]) -> bool:
        start_seq, run, text = values[0], values[1], values[-1]
        found = self._where("run = ?", run)
        if any(old_seq != start_seq for old_seq, _ in found):
            return False
        if [old for _, old in found] == [text]:  # the words cost most
            self._database.execute(f"REPLACE{_INSERT.removeprefix('INSERT')}", values)
            return True
        self._drop(found)
        self._database.execute(_INSERT, values)
        if text:
            self._database.execute(_INSERT_WORDS, (start_seq, text))
        return True

    def _where(self, condition: str, value: object) -> list[tuple[int, str]]:
        return self._database.execute(f"SELECT start_seq, words FROM runs WHERE {condition}", (value,)).fetchall()

    def _drop(self, found: Sequence[tuple[int, str]]) -> int:
        self._database.executemany(_DELETE_WORDS, [each for each in found if each[1]])
        self._database.executemany("DELETE FROM runs WHERE start_seq = ?", [(seq,) for seq, _ in found])
        return len(found)


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
    return replace(row, summary=replace(row.summary, input="", error=""))


def _values(row: IndexRow, text: str) -> tuple[object, ...]:
    one = row.summary
    assert one.started_at is not None
    return (
        row.start_seq,
        one.run,
        one.flow,
        one.status,
        one.parent,
        microseconds(one.started_at),
        microseconds(one.ended_at) if one.ended_at is not None else None,
        one.cost_usd,
        one.usage.tokens,
        row.asks_people,
        encode(row),
        text,
    )
