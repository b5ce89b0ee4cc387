"""One branch first: it writes what all have in common into the provider's cache, and the others then read it there.

The provider has what a call wrote once the first answer begins; calls that begin before that write it once more, each
for more than it would have cost without a cache. So whoever comes first leads, and the others wait until its answer has
begun. Within one process they stand behind a lock. Over all processes there is a slot of the broker (`Slots`) for each
such prefix: who has it leads, and leaves in it, for as long as the provider keeps the prefix, that it is there.

Nothing depends on it but money. A leader that fails lets go, and the next one leads; one that dies is missed when its
slot is free, `HELD_S` later; and after `WAIT_MAX_S`, or when the bus does not answer, a call is made as it is. Who
waits has nothing that others could wait for: neither its turn at a model with limits, nor a part of a budget.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog

from baton_actors.models.caching import Prefix
from baton_bus.errors import BusError
from baton_bus.store.slots import RENEW_S, Slot, Slots

WAIT_MAX_S = 60.0
"""How long a call waits for others at the most: no model takes so long to begin, and steps are not held for nothing."""
LOOK_S = 0.25
"""How soon the leader in another process is looked for again; of all that wait in a process, one looks."""
_KNOWN_S = 60.0
"""For how long one process goes by what it knows: what is used is kept on, and one look costs a millisecond."""
_KEPT = 0.9
"""Of the time for which a provider keeps a prefix: what is left there after that is not relied upon."""
_CLOSES_S = 2.0
_WRITTEN = b"written"

logger = structlog.get_logger("baton.worker")


class _Known:
    """What one process knows of a prefix."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        """Whoever has it leads, or looks for who does."""
        self.until_s = 0.0
        """Until then the prefix is there, by the loop's clock."""
        self.users = 0
        """Calls that are made, or wait."""


class Warming:
    """One for each process, in one event loop."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._known: dict[str, _Known] = {}
        self._background: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def warmed(self, prefix: Prefix) -> AsyncIterator[Callable[[], None]]:
        """Wait until a call with this prefix is to be made; it is made within. What is given is called when its answer
        has begun.
        """
        if (known := self._known.get(prefix.name)) is None:
            self._known = {name: each for name, each in self._known.items() if each.users or each.until_s > _now_s()}
            known = self._known[prefix.name] = _Known()
        known.users += 1
        try:
            leads = await self._may_lead(prefix, known)
            if not leads:
                yield _nothing
                return
            lead = _Lead(self, prefix, known, await self._slot(prefix, known))
            try:
                yield lead.begun
            finally:
                lead.end()
        finally:
            known.users -= 1

    async def close(self) -> None:
        """Say what is still to be said to others, or leave it."""
        if self._background:
            _, late = await asyncio.wait(self._background, timeout=_CLOSES_S)
            for task in late:
                task.cancel()

    async def _may_lead(self, prefix: Prefix, known: _Known) -> bool:
        """Wait until the prefix is there (False), or nobody leads in this process: then the lock is ours.

        False too when that takes too long.
        """
        if known.until_s > _now_s():
            return False
        try:
            async with asyncio.timeout(WAIT_MAX_S):
                await known.lock.acquire()
        except TimeoutError:
            logger.warning("model.cold", reason=f"no first branch has begun to be answered for {WAIT_MAX_S:g} s")
            return False
        if known.until_s > _now_s():
            known.lock.release()
            return False
        return True

    async def _slot(self, prefix: Prefix, known: _Known) -> Slot | None:
        """Return the slot of the prefix once it is ours; None when the prefix is there, or nobody can be waited for.

        Who has none leads nobody outside this process.
        """
        ends_s = _now_s() + WAIT_MAX_S
        try:
            while _now_s() < ends_s:
                slot = await self._slots.take(_of(prefix), 1)
                if slot is not None:
                    return slot
                if await self._slots.said(_of(prefix)) == _WRITTEN:
                    self.written(prefix, known)
                    return None
                await asyncio.sleep(LOOK_S)
        except BusError as error:
            logger.warning("model.cold", reason=str(error))
        except BaseException:
            known.lock.release()
            raise
        return None

    def written(self, prefix: Prefix, known: _Known) -> None:
        """Let those go on that wait in this process."""
        known.until_s = _now_s() + min(_KNOWN_S, prefix.kept_s * _KEPT)

    async def leave(self, slot: Slot, prefix: Prefix) -> None:
        """Leave word for other processes that the prefix is there."""
        await self._slots.leave(slot, _WRITTEN, int(prefix.kept_s * _KEPT))

    async def hold(self, slot: Slot) -> None:
        """Hold a slot until this is cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(BusError):
                await self._slots.renew(slot)

    async def free(self, slot: Slot) -> None:
        """Let another one lead."""
        await self._slots.free(slot)

    def in_background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Do it beside the call; what the bus refuses is not done."""
        task = asyncio.create_task(_or_not(work), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


class _Lead:
    """The one whose call is made first in this process, and, with a slot, in all."""

    def __init__(self, warming: Warming, prefix: Prefix, known: _Known, slot: Slot | None) -> None:
        self._warming, self._prefix, self._known, self._slot = warming, prefix, known, slot
        self._holding = asyncio.create_task(warming.hold(slot), name="hold a prefix") if slot is not None else None
        self._leads = True
        if known.until_s > _now_s():  # another process has written it
            self._let_go()

    def begun(self) -> None:
        """The answer has begun: the prefix is there."""
        if not self._leads:
            return
        self._warming.written(self._prefix, self._known)
        self._let_go()
        if self._slot is not None:
            self._warming.in_background(self._warming.leave(self._slot, self._prefix), "tell of a prefix")

    def end(self) -> None:
        """The call has ended; one whose answer never began lets the next one lead."""
        if not self._leads:
            return
        self._let_go()
        if self._slot is not None:
            self._warming.in_background(self._warming.free(self._slot), "free a prefix")

    def _let_go(self) -> None:
        self._leads = False
        self._known.lock.release()
        if self._holding is not None:
            self._holding.cancel()


def _of(prefix: Prefix) -> str:
    return f"prefix-{prefix.name}"


def _nothing() -> None: ...


async def _or_not(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except BusError as error:
        logger.warning("model.prefix_not_told", error=str(error))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
