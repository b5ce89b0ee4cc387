"""The pipe between a worker and its supervisor: its first word, and beats, so that one that is stuck is found.

Beats come from a thread, so a blocked event loop is no reason to kill: the leases are kept then, and the loop may go
on. When no thread runs at all (a regular expression or C code that keeps the GIL, a stopped process), no lease is
kept and no signal is heard: the steps have gone to others, and only SIGKILL makes room for a new worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

STUCK_S = 60.0
"""A worker that is silent for so long is killed: four leases, and far longer than a machine under load needs."""
_BEATS = 12
"""Beats within that time: each is work on either side, of a process that may have nothing else to do."""


def beat_s(stuck_s: float) -> float:
    """Return the time between two beats of a worker that is stuck when it is silent for `stuck_s`, in seconds."""
    return stuck_s / _BEATS


class Line:
    """The worker's end. Threads may share it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def tell(self, word: str) -> None:
        """Say `""` for being ready, else the reason why not. Whoever would hear it may be gone."""
        self._send(word)

    def beat(self) -> None:
        """Say that something runs here."""
        self._send(None)

    def _send(self, said: str | None) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._pipe.send(said)


def tell_if_stuck(stuck_s: float) -> None:
    """Write to stderr where all threads are unless this is called again within half of `stuck_s`.

    CPython's own watchdog does it, which needs no GIL: when we are killed for being stuck, this says where.
    """
    faulthandler.dump_traceback_later(stuck_s / 2)


class Watch:
    """The supervisor's end. What the worker said of its start is in `word`; None as long as it has said nothing."""

    def __init__(
        self, pipe: Connection, *, stuck_s: float, on_ready: Callable[[], None], on_stuck: Callable[[], None]
    ) -> None:
        """`stuck_s` is the silence after which a worker is stuck: some beats at least."""
        self.word: str | None = None
        self._pipe, self._stuck_s, self._on_ready, self._on_stuck = pipe, stuck_s, on_ready, on_stuck
        self._silent_s = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the worker while the context is open."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe.fileno(), self._hear)
        ticker = loop.create_task(self._tick(), name="watchdog")
        try:
            yield
        finally:
            ticker.cancel()
            loop.remove_reader(self._pipe.fileno())

    def _hear(self) -> None:
        try:
            while self._pipe.poll():  # all of it: the worker's end is seen right after its last word
                said: str | None = self._pipe.recv()
                self._silent_s = 0.0
                if said is not None:
                    self.word = said
                if said == "":
                    self._on_ready()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())

    async def _tick(self) -> None:
        """Count silence in ticks of ours: while we do not run ourselves (a laptop asleep, a stop), none pass."""
        tick_s = beat_s(self._stuck_s)
        while self._silent_s < self._stuck_s:
            await asyncio.sleep(tick_s)
            self._silent_s += tick_s
        self._on_stuck()
