"""The timeline of a run for whoever draws it: always of the whole run, whatever message is looked at.

It changes with the messages, and with what workers say that they hold, and not with the clock: what goes on is drawn up
to now where it is drawn.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from urllib.parse import quote

import msgspec

from baton_schemas.show.spans import Timeline, shares_of, time_in_words
from baton_schemas.show.strokes import Strokes, gaps_of, strokes_of
from baton_schemas.show.timeline import timeline_of

from .sources import Source


class RunTime:
    """When steps of a run worked and waited."""

    def __init__(self, source: Source, *, follows: bool) -> None:
        """`follows` says whether what goes on is drawn up to now, rather than to the last message."""
        self._source, self._feed, self._follows = source, source.feed, follows

    @cached_property
    def _since(self) -> dict[str, datetime]:
        """Since when what workers have in hand is there, which no log says before it has ended."""
        return self._feed.since()

    @cached_property
    def timeline(self) -> Timeline:
        """Who waited and worked when."""
        feed, since = self._feed, self._since
        return feed.once("timeline", lambda: timeline_of(feed.entries, feed.state, since), since)

    @property
    def lanes(self) -> list[Strokes]:
        """The lanes of each step."""
        return self._feed.once("lanes", lambda: strokes_of(self.timeline), self._since)

    @property
    def strokes(self) -> str:
        """The lanes for whoever draws them: a list of steps as JSON, see `strokes.py`."""
        return self._feed.once("strokes", self._strokes, self._source.base, self._since)

    def _strokes(self) -> str:
        base = f"{self._source.base}/steps/"
        facts = [
            [each.step, each.count, each.lanes, each.within, "" if each.is_child else base + quote(each.step, safe="")]
            for each in self.lanes
        ]
        return msgspec.json.encode(facts).decode()

    @property
    def gaps(self) -> str:
        """Times that are folded where it is drawn, as JSON."""
        return msgspec.json.encode(gaps_of(self.timeline, self._heard_at)).decode()

    @property
    def words(self) -> str:
        """On what its time went, in words."""
        until = self._heard_at if self._feed.state.result is None else None
        return self._feed.once("words", lambda: time_in_words(shares_of(self.timeline, until)), self._since)

    @property
    def end_ms(self) -> int | str:
        """Where it ends, in milliseconds since the run began; nothing where it goes on."""
        state = self._feed.state
        if state.result is None and self._follows:
            return ""
        return self.ms(state.ended_at or self._heard_at) or 0

    @property
    def begin_ms(self) -> int:
        """When the run began, in milliseconds since 1970."""
        begin = self._feed.state.started_at
        return round(begin.timestamp() * 1_000) if begin is not None else 0

    def ms(self, at: datetime | None) -> int | str:
        """Return a time in milliseconds since the run began; nothing where there is none."""
        begin = self._feed.state.started_at
        return round((at - begin).total_seconds() * 1_000) if at is not None and begin is not None else ""

    @property
    def _heard_at(self) -> datetime | None:
        """When the last message was stored: what is drawn stays as it is until there is another."""
        return self._feed.entries[-1].at if self._feed.entries else None
