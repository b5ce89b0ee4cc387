"""Rates that all processes keep together: each call is told by one addition when it may begin, and none is in the way.

It is the generic cell rate algorithm (GCRA) on a counter of the broker. The counter stands for a time: when all that
was taken so far is over, at the rate that it was taken at. A call adds how long its part lasts; the total that it made
says what was before it, and so when it may begin. Nobody asks twice, nobody is woken in vain, and the order is that of
the additions. When the counter lags behind the clock, nobody was here for a while, and it is moved up to it.

A counter is a whole number of any size, and this one has three in it, none of which ever falls (`_Total`):
- what was taken, in nanoseconds of the rate;
- what was given back of it: who took more than it needed says so, and those behind it begin earlier;
- how far it was moved. As that is in the total, each addition tells how far the counter had been moved by then; the
  move is named by it, so that of all who find the counter behind at once, one moves it.

It goes by the broker's clock. Processes that are wrong about it by a second begin a second too late at the most: nobody
moves the counter beyond what the fastest of them believes.

Source: ITU-T I.371, the virtual scheduling algorithm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Self

from baton_schemas.wire.facts import Place
from baton_schemas.wire.names import sortable_id

from .counters import Counters
from .once import Once

BURST_S = 1.0
"""After a pause, what belongs to so many seconds may begin at once. Providers hold 60 a minute to one a second."""
PATIENCE_S = 30.0
"""How long one addition is tried: a call that cannot be counted does not begin."""
_FRESH_S = 60.0
"""What was read longer ago is read again before the counter is moved: well within the time in which ids are known."""
_NS = 1_000_000_000
_MINUTE_NS = 60 * _NS
_BITS = 64
_MASK = (1 << _BITS) - 1
_STREAM = "stream"
_SLACK_NS = _NS // 20
"""Of those before who moved the counter: as much later as their answers came."""
_PART_MAX_NS = 1 << 53
"""A hundred days for one call: a rate under which a call takes longer is not meant."""


class _Total(NamedTuple):
    taken: int
    given_back: int
    moved: int

    @classmethod
    def of(cls, total: int) -> Self:
        return cls(total & _MASK, total >> _BITS & _MASK, total >> 2 * _BITS)


class Turn:
    """When a call may begin. What is behind it moves up as those before it give back."""

    def __init__(self, rates: Rates, name: tuple[str, ...], part_ns: int, at_ns: int, before: int) -> None:
        """`before` is what was ever taken before this."""
        self._rates, self.name, self._part_ns = rates, name, part_ns
        self._at_ns, self._before = at_ns, before

    @property
    def at_s(self) -> float:
        """When, in seconds of Unix time by the broker's clock."""
        return self._at_ns / _NS

    async def look(self) -> None:
        """See whether it is earlier by now. Raises as `Counters.read`."""
        self._at_ns = min(self._at_ns, _at(self._before, await self._rates.total(self.name)))

    @property
    def place(self) -> Place:
        """What it is found again by."""
        return Place(name=self.name, part=str(self._part_ns), at=str(self._at_ns), before=str(self._before))

    async def took(self, part: float) -> None:
        """Say how much of what was taken it really took: 0.5 is half, and 2 is more than was known.

        Raises as `Rates.take`.
        """
        left_ns = self._part_ns - min(int(self._part_ns * part), _PART_MAX_NS)
        if left_ns:
            await self._rates.add(self.name, left_ns << _BITS if left_ns > 0 else -left_ns)


class Rates:
    """The rates of one namespace, by name."""

    def __init__(self, counters: Counters, now_s: Callable[[], float]) -> None:
        """`now_s` tells the time by the broker's clock."""
        self._counters, self._now_s = counters, now_s
        self._making = Once(lambda _: counters.ensure())
        self._moves: dict[str, asyncio.Task[_Total]] = {}

    async def take(self, name: tuple[str, ...], count: int, per_minute: int, *, burst_s: float = BURST_S) -> Turn:
        """Take so much of a rate, and return when that may begin. Whoever takes does it, however long it waits.

        After a pause, what belongs to `burst_s` seconds may begin at once. Each who takes says what the rate is: where
        they differ, each of them takes by its own.

        Raises `StreamMismatch`, `NotAllowed`, and the errors of `Publisher.create`.
        """
        part_ns = _part(count, per_minute)
        while True:
            began_s = self._now_s()
            total = await self.add(name, part_ns)
            before = total.taken - part_ns
            if self._now_s() - began_s > _FRESH_S:
                total = await self.total(name)
            least_ns = int((self._now_s() - burst_s) * _NS)
            if (behind_ns := least_ns - _at(before, total)) > 0:
                total = await self._move(name, total.moved, behind_ns)
            if least_ns - _at(before, total) <= _SLACK_NS:
                return Turn(self, name, part_ns, _at(before, total), before)
            # Somebody behind us moved it, by what was behind for them, and all before them would begin at once. What
            # we took is in the past, and nobody misses it.

    async def again(self, place: Place) -> Turn:
        """Return the turn of whoever took this before, as it is now. Raises as `Counters.read`."""
        turn = Turn(self, place.name, int(place.part), int(place.at), int(place.before))
        await turn.look()
        return turn

    async def total(self, name: tuple[str, ...]) -> _Total:
        """Return where the counter stands. Raises as `Counters.read`."""
        return _Total.of(await self._counters.read(name))

    async def add(self, name: tuple[str, ...], by: int, id: str = "") -> _Total:
        """Add to the counter; return the total. Raises as `take`."""
        if not self._making.has(_STREAM):  # here, and not by each of the hundreds that find it missing
            await self._making(_STREAM)
        return _Total.of((await self._counters.add(name, by, id or sortable_id(), patience_s=PATIENCE_S)).total)

    async def _move(self, name: tuple[str, ...], seen: int, by_ns: int) -> _Total:
        """Move the counter up, unless somebody has who saw the same; return the total."""
        id = f"{'.'.join(name)}.{seen}"
        move = self._moves.get(id)
        if move is None:
            move = self._moves[id] = asyncio.create_task(self.add(name, by_ns << 2 * _BITS, id), name=f"move {id}")
            move.add_done_callback(lambda _: self._moves.pop(id, None))
        return await asyncio.shield(move)


def _part(count: int, per_minute: int) -> int:
    return min(count * _MINUTE_NS // per_minute, _PART_MAX_NS)


def _at(before: int, total: _Total) -> int:
    return total.moved + before - total.given_back
