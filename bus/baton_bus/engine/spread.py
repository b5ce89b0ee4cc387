"""The lists that steps fan out over, as the log has them: read once, and kept in hand while branch follows branch."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict

from msgspec import Raw

from baton_bus.store.bus import Bus
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import NotAList, items_of
from baton_schemas.run.branches import list_comes_from
from baton_schemas.run.carry import find, with_outcome
from baton_schemas.run.rounds import in_round, round_of
from baton_schemas.run.state import Entry, known
from baton_schemas.wire.messages import Handoff, OutcomeRecord
from baton_schemas.wire.outcomes import Value

from .values import Values

IN_HAND_BYTES = 64 * 1024 * 1024
"""Lists kept in hand, all in all; the one that was asked for last is kept however large it is, as ten thousand branches
would read it ten thousand times."""
IN_HAND_MAX = 256
"""Lists kept in hand: of so many runs at a time."""

_Key = tuple[str, int, str]


class SpreadLists:
    """Reads the lists on one bus. What the log has of a run never changes, so that what is in hand stays true."""

    def __init__(self, bus: Bus, values: Values) -> None:
        self._bus, self._values = bus, values
        self._in_hand: OrderedDict[_Key, tuple[list[Raw], int]] = OrderedDict()
        self._reading: dict[_Key, asyncio.Lock] = {}
        self.reads = 0
        """How many lists were read so far."""

    async def items(self, plan: Plan, run: str, start_seq: int, fan_out: str) -> list[Raw]:
        """Return the list that a step, with its round, fanned out over in a run; empty when the log has none.

        Raises `BlobMissing`, `NewerMessage`, `BusUnavailable`.
        """
        key = (run, start_seq, fan_out)
        if (found := self._find(key)) is not None:
            return found
        lock = self._reading.setdefault(key, asyncio.Lock())
        try:
            async with lock:  # who comes meanwhile waits for this one reading
                if (found := self._find(key)) is not None:
                    return found
                items, size_bytes = await self._read(plan, run, start_seq, fan_out)
                if items:
                    self._keep(key, items, size_bytes)
                return items
        finally:
            self._reading.pop(key, None)

    def _find(self, key: _Key) -> list[Raw] | None:
        found = self._in_hand.get(key)
        if found is None:
            return None
        self._in_hand.move_to_end(key)
        return found[0]

    def _keep(self, key: _Key, items: list[Raw], size_bytes: int) -> None:
        self._in_hand[key] = (items, size_bytes)
        while len(self._in_hand) > 1 and (
            len(self._in_hand) > IN_HAND_MAX or sum(size for _, size in self._in_hand.values()) > IN_HAND_BYTES
        ):
            self._in_hand.popitem(last=False)

    async def _read(self, plan: Plan, run: str, start_seq: int, fan_out: str) -> tuple[list[Raw], int]:
        self.reads += 1
        step, name = list_comes_from(plan, plan.name_of(fan_out), round_of(fan_out))
        if step:
            entry = await self._last(plan, run, step, plan.name_of(fan_out))
        else:
            entry = await self._bus.log.at_sure(start_seq)
        message = known(entry)
        value: Value | None = None
        if isinstance(message, OutcomeRecord):
            value = find(with_outcome(message.state, plan.name_of(step), message.outcome), name)
        elif isinstance(message, Handoff):
            value = find(message.state, name)
        if value is None:
            return [], 0
        inline = await self._values.load(value)
        with contextlib.suppress(NotAList):  # nothing fanned out over it
            return items_of(plan.step(fan_out).each, inline), len(bytes(inline))
        return [], 0

    async def _last(self, plan: Plan, run: str, step: str, fan_out: str) -> Entry | None:
        """Return the record of what comes right before a fan-out: of a loop that ends there, that of its last round."""
        ends_loop = plan.name_of(step) in plan.loops and plan.loop_of.get(fan_out) != plan.name_of(step)
        last = await self._bus.log.last_sure(self._bus.subjects.outcome(plan.actor(step), run, step))
        for number in range(2, plan.rounds_max(plan.name_of(step)) + 1 if ends_loop else 0):
            token = in_round(plan.name_of(step), number)
            found = await self._bus.log.last_sure(self._bus.subjects.outcome(plan.actor(step), run, token))
            if found is None:
                break
            last = found
        return last
