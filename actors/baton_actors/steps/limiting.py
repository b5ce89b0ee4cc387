"""What models may be asked, as one process knows it: the limits of flows, and what providers said, to it or to others.

Limits are kept over all processes, by the broker's counters (`Rates`) and slots (`Slots`). What a provider says holds
for all who ask the model: whoever hears it says it on, in words that are not stored. They are advice; one that is lost
costs a call that is told to wait. Without a limit, and while no provider says anything, nothing is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from baton_actors.models import Models
from baton_actors.models.pace import Pace
from baton_actors.models.told import KEPT_MAX_S, Told, lower, told_by
from baton_bus.errors import BusError
from baton_bus.store.bus import Bus
from baton_bus.store.rates import BURST_S, Turn
from baton_bus.store.slots import RENEW_S, Slot
from baton_schemas.flow.flow import Limit
from baton_schemas.wire.facts import Place
from baton_schemas.wire.names import TOKEN

SLOT_AGAIN_S = 1.0
"""How soon a slot is looked for again that nobody said is free: the word may be lost, or its holder dead."""
_KNOWN = 0.9
"""Others are not told of what they know to so large a part already."""
_CLOSES_S = 2.0
"""What was taken and not needed is given back in that time, or not at all."""
_READABLE = 40
_SWEEP = 1_000
"""So many are parked between two looks for those whose time has come since."""

logger = structlog.get_logger("baton.worker")


class Limiting:
    """One for each process, in one event loop."""

    def __init__(self, bus: Bus, models: Models | None) -> None:
        self.bus, self._models = bus, models
        self._paces: dict[str, Pace] = {}
        """By token."""
        self._told: dict[str, tuple[Limit, float]] = {}
        """By token: what a provider said, and until when that holds, by the loop's clock."""
        self._lines: dict[str, asyncio.Lock] = {}
        """By token: who looks for a slot. One does, and the others stand behind it."""
        self._freed: dict[str, asyncio.Event] = {}
        self._parked: dict[tuple[str, tuple[Place, ...]], list[Turn]] = {}
        """By run and places: what steps have taken that this process has parked."""
        self._background: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Hear what providers say, to us and to others, while the context is open."""
        live = self.bus.subjects.live
        async with contextlib.AsyncExitStack() as stack:
            if self._models is not None:
                self._models.listen(self.heard_headers)
                stack.callback(self._models.leave, self.heard_headers)
                for what, heard in (("pace", self._hear_pause), ("rate", self._hear_rate), ("slot", self._hear_slot)):
                    await stack.enter_async_context(self.bus.hearing(live("*", what), heard))
            try:
                yield
            finally:
                if self._background:
                    _, late = await asyncio.wait(self._background, timeout=_CLOSES_S)
                    for task in late:
                        task.cancel()

    def pace(self, model: str) -> Pace:
        """Return the gate of a model, which all its calls of this process pass."""
        token = token_of(model)
        pace = self._paces.get(token)
        if pace is None:
            pace = self._paces[token] = Pace(model, tell=lambda pause_s: self._say(token, "pace", b"%.3f" % pause_s))
        return pace

    def limit(self, model: str, own: Limit | None) -> Limit | None:
        """Return what a model may be asked: what the flow says, and its provider did, whichever is less."""
        if not self._told:
            return own
        token = token_of(model)
        said, until = self._told.get(token, (None, 0.0))
        if said is not None and until <= _now_s():
            del self._told[token]
            said = None
        return lower(own, said)

    def heard_headers(self, model: str, headers: Mapping[str, str]) -> None:
        """Take the headers of an answer."""
        told = told_by(headers, self.bus.now_s())
        if told is None:
            return
        token = token_of(model)
        said, until = self._told.get(token, (None, 0.0))
        self._take(token, told)
        if said != told.limit or until - _now_s() < told.for_s * (1 - _KNOWN):
            self._say(token, "rate", msgspec.json.encode(told))

    # ---- rates and slots -----------------------------------------------------------------------------

    async def take(self, model: str, limit: Limit, tokens: int) -> list[Turn]:
        """Take a call of its rates, with so many tokens; it may begin when all of these turns have come.

        Raises the errors of the bus.
        """
        wanted = _rates(model, limit, tokens)
        # Who was told that little is left does not begin with several at once.
        burst_s = 0.0 if token_of(model) in self._told else BURST_S
        return await asyncio.gather(*(self.bus.rates.take(*each, burst_s=burst_s) for each in wanted))

    async def again(self, run: str, places: Sequence[Place]) -> list[Turn]:
        """Return the turns of a call that took these before, and was parked. Raises the errors of the bus."""
        self._parked.pop((run, tuple(places)), None)
        return await asyncio.gather(*map(self.bus.rates.again, places))

    def parked(self, run: str, turns: list[Turn]) -> None:
        """Give back what a step has taken, should its run end while it is parked."""
        now_s = self.bus.now_s()
        self._parked[run, tuple(turn.place for turn in turns)] = turns
        if len(self._parked) % _SWEEP == 0:
            self._parked = {key: of for key, of in self._parked.items() if max(turn.at_s for turn in of) > now_s}

    def run_ended(self, run: str) -> None:
        """Take it that a run has ended, and nothing that is parked of it will be made."""
        if not self._parked:
            return
        for key in [key for key in self._parked if key[0] == run]:
            turns = self._parked.pop(key)
            if min(turn.at_s for turn in turns) > self.bus.now_s():
                self.took(turns, None)

    def took(self, turns: list[Turn], part: float | None) -> None:
        """Say how much of its tokens a call took; None: it was not made."""
        for turn in turns:
            if part is None or turn.name[-1] == _TOKENS:
                self._in_background(turn.took(part or 0.0), "give back")

    @contextlib.asynccontextmanager
    async def slot(self, model: str, limit: Limit, patience_s: float | None) -> AsyncIterator[None]:
        """Be one of those that ask a model at once while the context is open.

        Raises `TimeoutError` when none was free for so long; and the errors of the bus.
        """
        if limit.concurrency is None:
            yield
            return
        token = token_of(model)
        async with asyncio.timeout(patience_s):
            slot = await self._slot(token, limit.concurrency)
        renewing = asyncio.create_task(self._renew(slot), name=f"hold {slot.subject}")
        try:
            yield
        finally:
            renewing.cancel()
            self._in_background(self._free(token, slot), "free a slot")

    async def _slot(self, token: str, count: int) -> Slot:
        freed = self._freed.setdefault(token, asyncio.Event())
        async with self._lines.setdefault(token, asyncio.Lock()):
            while True:
                freed.clear()
                taking = asyncio.ensure_future(self.bus.slots.take(token, count))
                try:
                    slot = await asyncio.shield(taking)
                except asyncio.CancelledError:
                    self._in_background(self._free_late(token, taking), "free a slot")
                    raise
                if slot is not None:
                    return slot
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SLOT_AGAIN_S):
                        await freed.wait()

    async def _renew(self, slot: Slot) -> None:
        held = True
        while held:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(BusError):
                held = await self.bus.slots.renew(slot)
        logger.warning("slot.lost", slot=slot.subject, reason="the bus did not hear of this worker for too long")

    async def _free(self, token: str, slot: Slot) -> None:
        await self.bus.slots.free(slot)
        self._say(token, "slot", b"")

    async def _free_late(self, token: str, taking: asyncio.Future[Slot | None]) -> None:
        slot = await taking
        if slot is not None:
            await self._free(token, slot)

    # ---- words ---------------------------------------------------------------------------------------

    def _say(self, token: str, what: str, body: bytes) -> None:
        self._in_background(self.bus.say(self.bus.subjects.live(token, what), body), f"tell of a {what}")

    def _hear_pause(self, subject: str, body: bytes) -> None:
        pace = self._paces.get(_model_in(subject))
        if pace is not None:
            with contextlib.suppress(ValueError):
                pace.heard(float(body))

    def _hear_rate(self, subject: str, body: bytes) -> None:
        with contextlib.suppress(msgspec.MsgspecError):
            told = msgspec.json.decode(body, type=Told)
            counts = (told.limit.requests_per_minute, told.limit.tokens_per_minute)
            if 0 < told.for_s <= KEPT_MAX_S and all(count is None or count > 0 for count in counts):
                self._take(_model_in(subject), told)

    def _hear_slot(self, subject: str, _: bytes) -> None:
        freed = self._freed.get(_model_in(subject))
        if freed is not None:
            freed.set()

    def _take(self, token: str, told: Told) -> None:
        self._told[token] = (told.limit, _now_s() + told.for_s)

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(_or_not(work), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


_REQUESTS, _TOKENS = "requests", "tokens"


def _rates(model: str, limit: Limit, tokens: int) -> list[tuple[tuple[str, ...], int, int]]:
    """Return the rates that a call takes of: the name of each, how much of it, and what it is in a minute."""
    token, wanted = token_of(model), list[tuple[tuple[str, ...], int, int]]()
    if limit.requests_per_minute is not None:
        wanted.append(((token, _REQUESTS), 1, limit.requests_per_minute))
    if limit.tokens_per_minute is not None:
        wanted.append(((token, _TOKENS), max(tokens, 1), limit.tokens_per_minute))
    return wanted


def token_of(model: str) -> str:
    """Return a model's name as it stands in subjects: itself where it can."""
    if TOKEN.match(model):
        return model
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", model)[:_READABLE]
    return f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:12]}"


def _model_in(subject: str) -> str:
    return subject.split(".")[-2]


async def _or_not(work: Coroutine[Any, Any, None]) -> None:
    """Do it; what the bus refuses is not done."""
    try:
        await work
    except BusError as error:
        logger.warning("limits.not_told", error=str(error))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
