"""What is sent of a page to all who have it open: made once, however many they are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Hashable
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct

from .streams import event, partial

_ROW, _END = '<tr id="', "</tr>"
"""A row that may be put into its place by itself. No text of a page has such a tag: it is escaped."""
_NAME = re.compile(r"[A-Za-z][\w-]*")
"""An id by which it can be found as it is."""

logger = structlog.get_logger("baton.console")


class Sending(Struct, frozen=True):
    """Parts of a page, in the order in which they are put into it."""

    parts: dict[str, str]
    """HTML by name."""
    waits_s: float
    """Since when the first message waits that is shown by this (Unix time, broker's clock); 0 for none."""
    data: bytes
    """The parts as an event, or what of them is other than in the sending before."""


def sending(parts: dict[str, str], waits_s: float = 0.0) -> Sending:
    """Return these parts, to be sent."""
    return Sending(parts, waits_s, event("".join(partial(name, html) for name, html in parts.items())))


def smaller(part: str, before: str, after: str) -> dict[str, str]:
    """Return what is to be sent of a part to whoever has it as it was: by their ids, the rows that are not as they
    were; all of it where more than rows changed, or other rows are there now.
    """
    was, now = before.split(_ROW), after.split(_ROW)
    found: dict[str, str] = {}
    if len(was) != len(now) or was[0] != now[0]:
        return {part: after}
    for old, new in zip(was, now, strict=True):
        if old == new:
            continue
        (name, _, _), (row, end, rest) = new.partition('"'), new.partition(_END)
        same = old.partition('"')[0] == name and old.partition(_END)[2] == rest
        if not same or not _NAME.fullmatch(name) or after.count(f'{_ROW}{name}"') > 1:
            return {part: after}
        found[name] = _ROW + row + end
    return found


class Seat:
    """Where one reader waits. What came while it was busy is merged: of each part it gets the last."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        """Whether there is something to be taken, or nothing more will come."""
        self._left: Sending | None = None

    def put(self, more: Sending) -> None:
        """Have this taken with what is left."""
        left = self._left
        self._left = more if left is None else sending(left.parts | more.parts, left.waits_s or more.waits_s)
        self.came.set()

    def take(self) -> Sending | None:
        """Return what is left; None for nothing."""
        left, self._left = self._left, None
        self.came.clear()
        return left


class Broadcast:
    """One page and who has it open."""

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        self.parts: dict[str, str] = {}
        """All parts as they were sent last."""
        self.gone = ""
        """Why there is no such page any more, as it is told; empty while there is one."""
        self.task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self.task is None or self.task.done()

    def send(self, parts: dict[str, str], waits_s: float, by_row: Container[str] = ()) -> None:
        """Send what has changed; of those named in `by_row` the rows that did, to whoever has the rest."""
        few = {
            name: html
            for part, whole in parts.items()
            for name, html in (
                smaller(part, self.parts.get(part, ""), whole) if part in by_row else {part: whole}
            ).items()
        }
        self.parts |= parts
        more = Sending(parts, waits_s, sending(few).data)
        for seat in self.seats:
            seat.put(more)

    def is_gone(self, why: str) -> None:
        """Tell that there is no such page any more, or (empty) that there is one."""
        if why != self.gone:
            self.gone = why
            for seat in self.seats:
                seat.came.set()


class Broadcasts:
    """The pages that are open."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Broadcast] = {}

    @property
    def pages(self) -> int:
        """How many pages are followed."""
        return len(self._by_key)

    @property
    def seats(self) -> int:
        """How many follow them."""
        return sum(len(each.seats) for each in self._by_key.values())

    @asynccontextmanager
    async def joined(
        self, key: Hashable, work: Callable[[Broadcast], Awaitable[None]]
    ) -> AsyncIterator[tuple[Broadcast, Seat]]:
        """Have a seat at a page while the context is open; `work` sends what changes, as long as anybody has one."""
        there = self._by_key.get(key)
        if there is None or there.is_over:
            there = self._by_key[key] = Broadcast()
            there.task = asyncio.create_task(_worked(there, work), name="follow a page")
        seat = Seat()
        if there.parts:
            seat.put(sending(there.parts))
        there.seats.append(seat)
        try:
            yield there, seat
        finally:
            there.seats.remove(seat)
            if not there.seats:
                if self._by_key.get(key) is there:
                    del self._by_key[key]
                assert there.task is not None
                there.task.cancel()
                await asyncio.gather(there.task, return_exceptions=True)


async def _worked(there: Broadcast, work: Callable[[Broadcast], Awaitable[None]]) -> None:
    try:
        await work(there)
    except Exception:  # of ours: whoever has the page open asks again
        logger.exception("page.not_followed")
    finally:
        for seat in there.seats:
            seat.came.set()
