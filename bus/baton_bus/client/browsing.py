"""Looking through the whole log: some messages from a place on, or before it, that fit what is asked for."""

from __future__ import annotations

from contextlib import aclosing

from msgspec import Struct

from baton_bus.store.log import Log, Stored
from baton_schemas.run.refs import name_of
from baton_schemas.run.state import Entry, read_entry
from baton_schemas.show.lines import one_line

LOOKED_MAX = 50_000
"""Messages that are looked at for one page: less than a second's reading."""
_WINDOW = 1_000
_WINDOW_MAX = 20_000
_SEARCHED_MAX = 10_000
"""Bytes of a message that a search looks at."""


class Sought(Struct, frozen=True, kw_only=True):
    """Which messages are meant; what is empty says nothing."""

    kind: str = ""
    """`handoff`, `note`, …"""
    flow: str = ""
    step: str = ""
    """A step of a flow, with all its branches and rounds; or the token of one of these."""
    text: str = ""
    """Something that a message says, whatever the case of its letters."""

    @property
    def is_any(self) -> bool:
        """Whether all messages are meant."""
        return self == Sought()

    def fits(self, stored: Stored) -> Entry | None:
        """Return a message if it is meant."""
        tokens = stored.subject.split(".")
        if self.kind and tokens[1:2] != [self.kind]:
            return None
        entry = read_entry(stored.seq, stored.at, stored.subject, stored.data)
        if self.flow and not self._is_of_flow(entry, tokens[2] if len(tokens) > 2 else ""):
            return None
        if self.step:
            step = str(getattr(entry.message, "step", "")) or (tokens[4] if len(tokens) > 4 else "")
            if self.step not in (step, name_of(step), getattr(entry.message, "child", "")):
                return None
        return entry if not self.text or self.text.casefold() in _searched(entry) else None

    def _is_of_flow(self, entry: Entry, who: str) -> bool:
        flow = getattr(entry.message, "flow", "")
        return flow == self.flow if flow else who == self.flow or who.startswith(f"{self.flow}-")


class Found(Struct, frozen=True, kw_only=True):
    """What was found, in the order of the log."""

    entries: list[Entry]
    first_seq: int
    last_seq: int
    """The messages that were looked at: all from one to the other."""


def _searched(entry: Entry) -> str:
    return f"{one_line(entry)} {entry.subject} {entry.data[:_SEARCHED_MAX].decode(errors='replace')}".casefold()


async def before(log: Log, sought: Sought, seq: int, limit: int) -> Found:
    """Return the last of the messages before a sequence that are meant, at most so many.

    No more than `LOOKED_MAX` are looked at. Raises `BusUnavailable`, `NoStream`.
    """
    first, _ = await log.bounds()
    found: list[Entry] = []
    end, window = seq - 1, limit if sought.is_any else _WINDOW
    at_least = max(first, seq - LOOKED_MAX)
    at = seq
    while len(found) < limit and end >= at_least:
        start = max(end - window + 1, at_least)
        async with aclosing(log.raw(start, end)) as read:
            found = [entry async for each in read if (entry := sought.fits(each)) is not None] + found
        at, end, window = start, start - 1, min(window * 4, _WINDOW_MAX)
    if len(found) > limit:
        found = found[-limit:]
        at = found[0].seq
    return Found(entries=found, first_seq=at, last_seq=seq - 1)


async def onward(log: Log, sought: Sought, seq: int, limit: int) -> Found:
    """Return the first of the messages from a sequence on that are meant, at most so many. As `before` else."""
    first, last = await log.bounds()
    seq = max(seq, first)
    end = min(last, seq + LOOKED_MAX - 1)
    found: list[Entry] = []
    if seq > end:
        return Found(entries=[], first_seq=seq, last_seq=last)
    async with aclosing(log.raw(seq, end)) as read:
        async for each in read:
            if (entry := sought.fits(each)) is not None:
                found.append(entry)
                if len(found) >= limit:
                    end = entry.seq
                    break
    return Found(entries=found, first_seq=seq, last_seq=end)
