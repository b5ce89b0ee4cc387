"""Leases are kept alive from a thread with a connection of its own: a loop that is blocked is no dead worker.

The thread also notices that the loop is blocked, and says by what. Two things stop it as well: a C call that never
lets go of the interpreter's lock, and a process that is stopped. Then leases lapse, as they must.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import structlog
from nats.errors import Error

from baton_bus.jetstream.delivery import Delivery
from baton_bus.jetstream.nats_client import NatsClient, end

BLOCKED_S = 1.0
"""A loop that does not turn for this long is reported: handlers beside the one that blocks it stand still as well."""
_TICK_S = 0.25
"""How often the thread looks while anything is in hand."""
_IDLE_S = 2.5
"""How often it looks while nothing is: a third of the time after which a lease of 15 s is kept is soon enough."""
_CONNECT_S = 5.0
"""How long it tries to connect before it begins anew."""

logger = structlog.get_logger("baton.bus")


class _Watch(NamedTuple):
    held: Mapping[int, Delivery]
    lease_s: float


class LeaseKeeper:
    """Keeps the leases of all consumers of one connection. Make it in the loop that it watches.

    What is in hand for longer than a sixth of its lease has it begun anew at each third. The thread only looks at
    what the loop holds: handing out and settling cost nothing more for its sake.
    """

    def __init__(self, connect: Callable[[], Awaitable[NatsClient]]) -> None:
        """`connect` opens the thread's connection, in the thread's loop, once something is in hand that long."""
        self._connect = connect
        self._watched: dict[int, _Watch] = {}
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        """Belongs to the thread's loop; `_closing` tells the same to whoever asks."""
        self._nc: NatsClient | None = None
        self._opening: asyncio.Task[None] | None = None
        self._asked_at: float | None = None
        """Since when the loop has not answered, by the monotonic clock."""
        self._is_blocked = False

    def watch(self, held: Mapping[int, Delivery], lease_s: float) -> None:
        """Keep alive whatever is in `held`, now or later, until `forget`."""
        self._watched[id(held)] = _Watch(held, lease_s)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="baton leases", daemon=True)
            self._thread.start()

    def forget(self, held: Mapping[int, Delivery]) -> None:
        """Leave what is in `held` to its lease."""
        self._watched.pop(id(held), None)

    async def close(self) -> None:
        """End the thread and its connection."""
        self._closing.set()
        if self._thread is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                if self._thread_loop is not None:
                    self._thread_loop.call_soon_threadsafe(self._ended.set)
            await asyncio.to_thread(self._thread.join, _CONNECT_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except Exception:
            if not self._closing.is_set():
                logger.exception("leases.broken")

    async def _keep(self) -> None:
        self._thread_loop = asyncio.get_running_loop()
        looked_at = time.monotonic()
        try:
            while not self._closing.is_set():
                watched = list(self._watched.values())
                tick_s = min([_TICK_S, *(watch.lease_s / 12 for watch in watched)])
                in_hand = any(watch.held for watch in watched)
                idle_s = min([_IDLE_S, *(watch.lease_s / 6 for watch in watched)])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(tick_s if in_hand else idle_s):
                        await self._ended.wait()
                now = time.monotonic()
                if now - looked_at > BLOCKED_S + _IDLE_S:  # it was not the loop that stood still, but all of us
                    self._asked_at = None
                looked_at = now
                self._watch_loop(now, in_hand)
                for watch in watched:
                    await self._renew(watch, now)
        finally:
            if self._opening is not None:
                await end(self._opening)
            if self._nc is not None:
                with contextlib.suppress(Exception):
                    await self._nc.close()

    async def _renew(self, watch: _Watch, now: float) -> None:
        try:
            held = list(watch.held.values())
        except RuntimeError:  # the loop changed it while we looked; soon we look again
            return
        due = [
            delivery
            for delivery in held
            if now - delivery.held_since > watch.lease_s / 6 and now - delivery.kept_at > watch.lease_s / 3.5
        ]
        needed = due or any(now - delivery.held_since > watch.lease_s / 6 for delivery in held)
        if not needed or not self._is_connected():
            return
        assert self._nc is not None
        for delivery in due:
            with contextlib.suppress(Error):
                await self._nc.send(b"PUB %b  4\r\n+WPI\r\n" % delivery.ack_subject)
                delivery.kept_at = now

    def _is_connected(self) -> bool:
        """Say whether leases can be kept; begin to connect if there is no connection."""
        if self._nc is not None and not self._nc.is_closed:
            return self._nc.is_connected
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
        return False

    async def _open(self) -> None:
        with contextlib.suppress(Error, OSError, TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                self._nc = await self._connect()

    def _watch_loop(self, now: float, in_hand: bool) -> None:
        """Ask the loop for a sign while anything is in hand; report it once when none comes, and once when one does."""
        if self._asked_at is None:
            if in_hand:
                self._asked_at = now
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._turned)
        elif not self._is_blocked and now - self._asked_at > BLOCKED_S:
            self._is_blocked = True
            logger.warning("loop.blocked", seconds=round(now - self._asked_at, 1), by=self._where())

    def _turned(self) -> None:
        """The loop turns."""
        asked_at, self._asked_at = self._asked_at, None
        if self._is_blocked:
            self._is_blocked = False
            logger.warning("loop.free", seconds=round(time.monotonic() - (asked_at or time.monotonic()), 1))

    def _where(self) -> str:
        """Return the line that the loop's thread is at."""
        frame = sys._current_frames().get(self._loop_thread)
        return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame is not None else ""
