"""A hub: one consumer of the log and one subscription to live words, however many runs are watched in this process.

Nothing is asked of the server while nobody watches. Whoever watches a run hears of it first and reads it then, so that
nothing falls between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import structlog

from baton_bus.errors import BusError, NotAllowed
from baton_bus.store.bus import Bus
from baton_bus.store.log import Stored
from baton_bus.store.looking import look
from baton_schemas.wire.words import Running, Word, read_running, read_word

from .roll import ask_roll

EVERYTHING = ""
"""In place of a run: all runs."""
_AGAIN_S = 0.5
"""How soon a log that is away is asked again."""
_LOOK_EVERY_S = 2.0
"""How often it is looked whether the log is still the same one, while somebody hears it."""

logger = structlog.get_logger("baton.hub")

OnStored = Callable[[Stored], None]
OnWord = Callable[[str, Running | Word], None]
OnAnew = Callable[[], None]


class _Listener:
    def __init__(self, run: str, on_stored: OnStored, on_word: OnWord | None, on_anew: OnAnew | None) -> None:
        self.run, self.on_stored, self.on_word, self.on_anew = run, on_stored, on_word, on_anew


class Hub:
    """Hears the log and the live words of one namespace, and tells each listener what is of its run."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._by_run: dict[str, list[_Listener]] = {}
        self._following: asyncio.Task[None] | None = None
        self._hears = False
        """Whether live words are heard: what is asked before is asked then."""
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Hub]:
        """Have it hear whatever it is asked for while the context is open."""
        try:
            yield self
        finally:
            await self._stop()

    @asynccontextmanager
    async def hearing(
        self, run: str, on_stored: OnStored, on_word: OnWord | None = None, on_anew: OnAnew | None = None
    ) -> AsyncIterator[None]:
        """Call `on_stored` with each message of a run that is stored from now on, while the context is open.

        And `on_word` with its step and each live word, the first of which say what workers hold of the run already.
        `EVERYTHING` is all runs. Both are called in the loop and must be quick; after a lost connection some messages
        may come twice. When the log was deleted and made anew `on_anew` is called, and then what the new one has, from
        its beginning on. Raises `BusUnavailable`, `NoStream`.
        """
        listener = _Listener(run, on_stored, on_word, on_anew)
        self._by_run.setdefault(run, []).append(listener)
        try:
            await self._ensure()
            if on_word is not None:
                self._ask(run)
            yield
        finally:
            self._by_run[run].remove(listener)
            if not self._by_run[run]:
                del self._by_run[run]
            if not self._by_run:
                await self._stop()

    async def _ensure(self) -> None:
        """Follow the log from its end on, if nobody does; return once what is stored from then on will be heard."""
        async with self._opening:
            if self._following is not None and not self._following.done():
                return
            start_seq = await self.bus.log.end() + 1
            self._following = asyncio.create_task(self._follow(start_seq), name="hub")

    async def _stop(self) -> None:
        async with self._opening:
            if self._following is not None and not self._by_run:
                self._following.cancel()
                await asyncio.gather(self._following, return_exceptions=True)
                self._following = None

    async def _follow(self, start_seq: int) -> None:
        subject = self.bus.subjects.live("*", "*", "*")
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    await stack.enter_async_context(self.bus.hearing(subject, self._on_live, sure=False))
                    break
                except BusError:
                    await asyncio.sleep(_AGAIN_S)
            self._hears = True
            stack.callback(self._hear_no_more)
            for run, listeners in self._by_run.items():
                if any(each.on_word for each in listeners):
                    self._ask(run)
            while True:
                following = asyncio.create_task(self._follow_log(start_seq), name="hub, log")
                try:
                    await self._until_anew()
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                start_seq = 1
                logger.info("hub.log_made_anew")
                for listener in [each for listeners in self._by_run.values() for each in listeners if each.on_anew]:
                    assert listener.on_anew is not None
                    listener.on_anew()

    async def _follow_log(self, next_seq: int) -> None:
        while True:
            try:
                async with aclosing(self.bus.log.raw_follow(next_seq)) as log:
                    async for each in log:
                        next_seq = each.seq + 1
                        self._tell(each)
            except BusError as error:
                logger.info("hub.waits", error=str(error))
            await asyncio.sleep(_AGAIN_S)

    async def _until_anew(self) -> None:
        """Return when the log is not the one that it was: whoever follows that one hears nothing of this one."""
        created = ""
        while True:
            try:
                found = (await look(self.bus)).created
                if created and found != created:
                    return
                created = found
            except NotAllowed:
                await asyncio.Event().wait()  # who may not see it hears it as long as it is the same
            except BusError:
                pass  # it is away
            await asyncio.sleep(_LOOK_EVERY_S)

    def _hear_no_more(self) -> None:
        self._hears = False

    def _ask(self, run: str) -> None:
        """Have workers say what they hold of a run."""
        if self._hears and run != EVERYTHING:
            ask_roll(self.bus, run)

    def _tell(self, each: Stored) -> None:
        for run in (self.bus.subjects.split(each.subject).run, EVERYTHING):
            for listener in tuple(self._by_run.get(run, ())):
                listener.on_stored(each)

    def _on_live(self, subject: str, body: bytes) -> None:
        found = self.bus.subjects.live_of(subject)
        if found is None:
            return
        run, kind, step = found
        listeners = [each for each in (*self._by_run.get(run, ()), *self._by_run.get(EVERYTHING, ())) if each.on_word]
        if not listeners:
            return
        word = read_running(step, body) if kind == "running" else read_word(step, body) if kind == "words" else None
        if word is not None:
            for listener in listeners:
                assert listener.on_word is not None
                listener.on_word(run, word)
