"""Which runs have ended, as far as this process has heard: so that no handler of such a run starts or goes on.

The server says again, on core NATS, which results it has stored. What is heard is advice all the same: it may cancel a
handler, and before a handoff is dropped for its sake the log is read.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

from baton_bus.jetstream.consumer import Delivery
from baton_bus.store.bus import CLOCK_OFF_S, Bus
from baton_bus.store.once import Once
from baton_schemas.flow.graph import Plan

REMEMBERED_MAX = 100_000
"""Runs remembered: those that ended within a lease. Older handoffs are looked up in the log instead."""
_DONE = b'"status":"done"'
_HEAD_BYTES = 400
"""Where the status of a result stands; one that is not found there is taken for an end that matters."""


class Ends:
    """Hears the ends of the runs of some flows, and tells who asked to know."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stack = contextlib.AsyncExitStack()
        self._since_s: dict[str, float] = {}
        """By flow: from when on (by the broker's clock) all its ends were heard."""
        self._heard_of = Once(self._hear)
        self._branches_left: set[str] = set()
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._listeners: list[Callable[[str, str], None]] = []

    def has(self, flow: str, run: str) -> bool:
        """Say whether the end of this run was heard. Another flow's result with its id is that of a refused task."""
        return (flow, run) in self._ended

    def forget(self, flow: str, run: str) -> None:
        """The log says that it has not ended: what was heard was not the server."""
        self._ended.pop((flow, run), None)

    def tell(self, listener: Callable[[str, str], None]) -> None:
        """Call `listener` with the flow and the id of each run that ends from now on."""
        self._listeners.append(listener)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear the ends of runs, of flows that were asked about, while the context is open."""
        self._bus.fresh_from_now()
        async with self._stack:
            yield

    def hears(self, plan: Plan) -> bool:
        """Say whether the ends of this flow are heard already."""
        flow = plan.flow.name
        return flow in self._since_s and (flow in self._branches_left or not plan.leaves_branches)

    async def hear(self, plan: Plan) -> None:
        """Hear the ends of this flow from now on. Raises `BusUnavailable`."""
        flow = plan.flow.name
        if plan.leaves_branches:
            self._branches_left.add(flow)
        if flow not in self._since_s:
            await self._heard_of(flow)

    def is_fresh(self, plan: Plan, delivery: Delivery) -> bool:
        """Say whether nobody can have worked on this, and we would have heard it if its run had ended."""
        since_s = self._since_s.get(plan.flow.name)
        return since_s is not None and delivery.stored_at_s >= since_s and self._bus.is_fresh(delivery)

    async def _hear(self, flow: str) -> None:
        def heard(subject: str, data: bytes) -> None:
            # A run that is done has branches in work only where a join does not wait for all of them, and children
            # only where a handler may ask: it may have gone on without them.
            if flow in self._branches_left or data.find(_DONE, 0, _HEAD_BYTES) < 0:
                self._note(flow, self._bus.subjects.run_of_stored(subject))

        await self._stack.enter_async_context(self._bus.hearing(self._bus.subjects.stored_result(flow), heard))
        self._since_s[flow] = self._bus.now_s() + CLOCK_OFF_S

    def _note(self, flow: str, run: str) -> None:
        self._ended[flow, run] = None
        if len(self._ended) > REMEMBERED_MAX:
            self._ended.popitem(last=False)
        for listener in self._listeners:
            listener(flow, run)
