"""Runs as pages show them: each is read once, kept up to date while a page shows it, and shared by all that do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

from msgspec.structs import replace

from baton_bus.client.hub import Hub
from baton_bus.client.roll import held_of
from baton_bus.client.runs import RunHead, find_run, read_run
from baton_bus.errors import BusUnavailable
from baton_bus.store.bus import Bus
from baton_bus.store.log import Stored
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import RunFold
from baton_schemas.run.state import Entry, RunState, read_entry
from baton_schemas.show.plan import plan_of
from baton_schemas.wire.messages import Result
from baton_schemas.wire.words import Running, Said, Word, Wrote

from .bell import Bell
from .words import unix_us

_KEPT_MAX = 20
"""Runs that are kept when nobody looks at them any more: going back to one is at once, and a page whose stream begins
has read it already."""
_KEPT_MESSAGES_MAX, _KEPT_BYTES_MAX = 15_000, 64 * 1024 * 1024
"""Of all of these, but for the last run: messages are some 25 MB, what is in them comes to that."""
_SAYS_S = 5.0
"""A worker says every two seconds what it is doing; who has said nothing for so long does nothing."""
_MARK_EVERY = 512
"""Messages after which a fold of a run's past is kept: going back one message takes some milliseconds at the most."""
_ROLL_S = 0.05
"""How long workers are waited for to say what they hold of a run that nobody watches yet."""
_STEPS_MAX = 20_000
"""Steps of which words are kept: anybody may have written one."""
_WROTE_CHARS = 4_000
"""Of what a model writes just now, so much of the end is kept."""


T = TypeVar("T")


class LiveStep:
    """What is heard of a step while it is done."""

    __slots__ = ("at", "attempt", "says", "since", "wrote")

    def __init__(self) -> None:
        self.at, self.attempt, self.says, self.wrote = 0.0, 0, "", ""
        self.since: datetime | None = None
        """When the attempt came into its worker's hands; None when an older worker does not say so."""


class Feed:
    """A run, as far as it has been heard."""

    def __init__(self, head: RunHead) -> None:
        self.head = head
        self.bell = Bell()
        """Rung when there is more."""
        self.entries: list[Entry] = []
        self.live: dict[str, LiveStep] = {}
        self._fold = RunFold()
        self._state: RunState | None = None
        self._past = _Past()
        self._made: dict[str, tuple[tuple[object, ...], Any]] = {}
        self._plan: Plan | None = None
        self._plan_at = -1
        self.ended = False
        self.gone = False
        """It was removed from the log, or its log is another: what is here is of the past."""
        self.size_bytes = 0
        """Of its messages."""

    @property
    def run(self) -> str:
        """Its id."""
        return self.head.run

    @property
    def state(self) -> RunState:
        """How it stands. Its id is the one that it was found by: what its messages say may be anything."""
        if self._state is None:
            self._state = self._named(self._fold.state)
        return self._state

    @property
    def plan(self) -> Plan | None:
        """Its flow, worked out; None when it cannot be read."""
        if self._plan is None and self._plan_at != len(self.entries):
            self._plan, self._plan_at = plan_of(self._fold.state), len(self.entries)
        return self._plan

    def once(self, name: str, make: Callable[[], T], *also: object) -> T:
        """Return what follows from the messages so far, and from what is given `also`: made once for the same of these,
        whatever page asks for it.
        """
        given = (len(self.entries), *also)
        if name not in self._made or self._made[name][0] != given:
            self._made[name] = (given, make())
        return self._made[name][1]  # type: ignore[no-any-return] # by its name

    def state_at(self, number: int) -> RunState:
        """Return how it stood after so many of its messages."""
        if number >= len(self.entries):
            return self.state
        return self._named(self._past.fold_to(self.entries, number).state)

    def running(self) -> dict[str, int]:
        """Return the attempts that workers say they are making, by step."""
        now = time.monotonic()
        steps = self.state.steps if self.live else {}
        return {
            step: live.attempt
            for step, live in self.live.items()
            if now - live.at < _SAYS_S and step in steps and steps[step].status == "queued"
        }

    def queued(self) -> set[str]:
        """Return the steps that a worker may be doing, as far as the log tells."""
        if self.ended:
            return set()
        steps = self.state.steps.items()
        return {name for name, step in steps if step.status == "queued" and step.asked in (None, "agent")}

    def since(self) -> dict[str, datetime]:
        """Return since when these attempts are being made, as far as workers say so, by step."""
        begun = {step: self.live[step].since for step in self.running()}
        return {step: at for step, at in begun.items() if at is not None}

    def apply(self, entry: Entry) -> bool:
        """Take the next message in; return whether it was new."""
        if self.entries and entry.seq <= self.entries[-1].seq:
            return False
        self.entries.append(entry)
        self.size_bytes += len(entry.data)
        self._fold.apply(entry)
        self._state = None
        if isinstance(entry.message, Result):
            self.ended = True
            self.gone = self.gone or entry.message.purged
        return True

    def hear(self, word: Running | Word) -> None:
        """Take a live word in."""
        live = self.live.get(word.step)
        if live is None:
            if len(self.live) >= _STEPS_MAX:
                return
            live = self.live[word.step] = LiveStep()
        if word.attempt != live.attempt:
            live.says = live.wrote = ""
            live.since = None
        live.at, live.attempt = time.monotonic(), word.attempt
        match word:
            case Said(text=text):
                live.says = text
            case Running(says=says, since_us=since_us):
                live.says = says or live.says
                live.since = unix_us(since_us) or live.since
            case Wrote(text=text):
                live.wrote = (live.wrote + text)[-_WROTE_CHARS:]

    def _named(self, state: RunState) -> RunState:
        return replace(state, run=self.head.run, flow=state.flow or self.head.flow)


class _Past:
    """Folds of a run's beginnings: whoever steps through its messages goes on from the last one, or from a mark."""

    def __init__(self) -> None:
        self._marks: dict[int, RunFold] = {0: RunFold()}
        self._last, self._number = RunFold(), 0

    def fold_to(self, entries: Sequence[Entry], number: int) -> RunFold:
        """Return the fold of the first `number` entries; the next call goes on with it."""
        mark = max(at for at in self._marks if at <= number)
        if not mark <= self._number <= number:
            self._last, self._number = self._marks[mark].copied(), mark
        for entry in entries[self._number : number]:
            self._last.apply(entry)
            self._number += 1
            if self._number % _MARK_EVERY == 0 and self._number not in self._marks:
                self._marks[self._number] = self._last.copied()
        return self._last


class Feeds:
    """The runs that pages show."""

    def __init__(self, bus: Bus, hub: Hub) -> None:
        self._bus, self._hub = bus, hub
        self._kept: OrderedDict[str, Feed] = OrderedDict()
        self._watched: dict[str, tuple[Feed, contextlib.AsyncExitStack, int]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def read(self, name: str) -> Feed:
        """Return a run as it is now. Raises `UnknownRun`, `AmbiguousRun`, `RunPurged`, `BusUnavailable`, `NoStream`."""
        watched = self._watched.get(name)
        if watched is not None and not watched[0].gone:
            return watched[0]
        if (kept := await self._kept_as_it_is(name)) is not None:
            self._kept.move_to_end(name)
            return kept
        feed = Feed(await find_run(self._bus, name))
        await self._fill(feed)
        if queued := feed.queued():
            for word in (await held_of(self._bus, feed.run, queued, len(queued), _ROLL_S)).values():
                feed.hear(word)
        self._keep(feed)
        return feed

    @asynccontextmanager
    async def watching(self, run: str) -> AsyncIterator[Feed]:
        """Keep a run up to date while the context is open; `bell` says when there is more. Raises as `read`."""
        lock = self._locks.setdefault(run, asyncio.Lock())
        async with lock:
            feed, stack, count = self._watched.get(run) or await self._begin(run)
            self._watched[run] = (feed, stack, count + 1)
        try:
            yield feed
        finally:
            async with lock:
                feed, stack, count = self._watched[run]
                if count > 1:
                    self._watched[run] = (feed, stack, count - 1)
                else:
                    del self._watched[run]
                    self._locks.pop(run, None)
                    await stack.aclose()
                    self._keep(feed)

    async def _begin(self, run: str) -> tuple[Feed, contextlib.AsyncExitStack, int]:
        kept = await self._kept_as_it_is(run)  # it stays there, for pages that are asked for in the meantime
        feed = kept or Feed(await find_run(self._bus, run))
        early: list[Stored] = []
        filled = False

        def on_stored(each: Stored) -> None:
            if not filled:
                early.append(each)
            elif feed.apply(_entry(each)):
                feed.bell.ring()

        def on_word(run: str, word: Running | Word) -> None:
            feed.hear(word)
            feed.bell.ring()

        def on_anew() -> None:
            feed.gone = True
            feed.bell.ring()

        async with contextlib.AsyncExitStack() as stack:
            # Hear first, then read: nothing falls between.
            await stack.enter_async_context(self._hub.hearing(feed.run, on_stored, on_word, on_anew))
            await self._fill(feed)
            for each in early:
                feed.apply(_entry(each))
            filled = True
            return feed, stack.pop_all(), 0
        raise AssertionError

    async def _fill(self, feed: Feed) -> None:
        """Read what of a run is in the log."""
        start = feed.entries[-1].seq + 1 if feed.entries else feed.head.start_seq
        for entry in await read_run(self._bus, replace(feed.head, start_seq=start)):
            feed.apply(entry)

    async def _kept_as_it_is(self, run: str) -> Feed | None:
        """Return a run that is kept, with what came since; None when the log does not have it as it is kept.

        It is shown as it was while the server is away. Raises `NoStream`.
        """
        kept = self._kept.get(run)
        if kept is None or not self._bus.is_connected:
            return kept
        try:
            if await self._brought_up(kept):
                return kept
        except BusUnavailable:
            return kept
        if self._kept.get(run) is kept:
            del self._kept[run]
        return None

    async def _brought_up(self, kept: Feed) -> bool:
        """Read what came since of a run that is kept; return False when it was removed, or the log is another one."""
        if kept.gone:
            return False
        mine, log = kept.entries[-1], self._bus.log
        last = await log.last_sure(self._bus.subjects.run(kept.run))
        if last is None or last.seq < mine.seq:
            return False
        if last.seq == mine.seq:
            return last.at == mine.at
        there = await log.at_sure(mine.seq)
        if there is None or there.at != mine.at:
            return False
        count = len(kept.entries)
        await self._fill(kept)
        if len(kept.entries) > count:
            kept.bell.ring()
        return not kept.gone

    def _keep(self, feed: Feed) -> None:
        """Keep one that nobody watches, to be looked at again; one that is gone is not."""
        if feed.gone or not feed.entries:
            self._kept.pop(feed.run, None)
            return
        self._kept[feed.run] = feed
        self._kept.move_to_end(feed.run)
        while len(self._kept) > 1 and (
            len(self._kept) > _KEPT_MAX
            or sum(len(each.entries) for each in self._kept.values()) > _KEPT_MESSAGES_MAX
            or sum(each.size_bytes for each in self._kept.values()) > _KEPT_BYTES_MAX
        ):
            self._kept.popitem(last=False)


def _entry(each: Stored) -> Entry:
    return read_entry(each.seq, each.at, each.subject, each.data)
