"""The log of a run on its page, some lines at a time: at its end, around a message, or from any line on."""

from __future__ import annotations

from typing import NamedTuple

from baton_schemas.run.state import Entry
from baton_schemas.show.lines import one_line

from .feeds import Feed

LINES = 200
"""Lines on one page of it."""
TAIL = 50
"""Lines that are shown unasked: at its end, or around a message. They are sent anew with each message."""


class LogLine(NamedTuple):
    """One message in the log."""

    number: int
    """From 1, among those of the run."""
    after: str
    """How long after the run began."""
    kind: str
    text: str


class RunLog:
    """What is shown of the log of a run: the lines around message `at`, or those from `start` on, or the last."""

    def __init__(self, feed: Feed, at: int | None, start: int) -> None:
        self._feed, self._at, self.start = feed, at, start
        self.count = len(feed.entries)
        """Messages in all."""

    @property
    def lines(self) -> list[LogLine]:
        """The lines that are shown."""
        shown = self._feed.entries[self.first - 1 : self.first - 1 + self._room]
        return [self.line(self.first + number, entry) for number, entry in enumerate(shown)]

    @property
    def first(self) -> int:
        """The number of the first line that is shown."""
        if self.start:
            return min(self.start, max(self.count, 1))
        if self._at is not None:  # whole pages: stepping through them leaves the lines where they are
            return (self._at - 1) // TAIL * TAIL + 1
        return max(self.count - TAIL + 1, 1)

    @property
    def earlier(self) -> int:
        """The first line of the page before; 0 when this is the first."""
        return max(self.first - LINES, 1) if self.first > 1 else 0

    @property
    def later(self) -> int:
        """The first line of the page behind; 0 when this is the last."""
        later = self.first + self._room
        return later if later <= self.count else 0

    @property
    def last(self) -> LogLine | None:
        """The message after which the run stands as it is shown."""
        number = self.count if self._at is None else self._at
        return self.line(number, self._feed.entries[number - 1]) if number else None

    def line(self, number: int, entry: Entry) -> LogLine:
        """Return a message as a line."""
        kind, _, rest = one_line(entry).partition(" ")
        begin = self._feed.state.started_at
        after = f"+{(entry.at - begin).total_seconds():,.3f} s" if begin is not None else ""
        return LogLine(number, after, kind, rest.strip())

    @property
    def _room(self) -> int:
        return LINES if self.start else TAIL
