"""Threads for plain handlers, which can be abandoned: nobody can stop a thread, so nobody waits for one that hangs.

Not anyio's (`abandon_on_cancel`): its threads are no daemons, so that a process with one that hangs cannot end, and it
does not say how many were abandoned. Not a `ThreadPoolExecutor`: one that hangs keeps its place in it for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import structlog

from baton_actors.agents.code_lines import CodeLine, lines_of_thread
from baton_actors.agents.raising import caught, unwrapped
from baton_actors.errors import HandlerRaised

T = TypeVar("T")

LIMIT = 1_000
"""Calls at once. `concurrency` is the bound that counts; this one is for a process that hosts many agents."""
HUNG_MAX = 16
"""Threads that may hang at once before the process should be started anew: each holds its stack, its values, and its
connections, and a handler that hangs once mostly hangs again."""

logger = structlog.get_logger("baton.worker")
_numbers = itertools.count(1)


class Threads:
    """Threads of one event loop. A call first gets a place (`place`), then its time begins (`run`)."""

    def __init__(self, limit: int = LIMIT, *, hung_max: int = HUNG_MAX) -> None:
        """`limit` is how many calls run at once; what was abandoned does not count."""
        self._hung_max = hung_max
        self._places = asyncio.Semaphore(limit)
        self._idle: list[_Thread] = []
        self._closed = False
        self.abandoned = 0
        """Calls that nobody waits for any more and that have not ended."""
        self.too_many = asyncio.Event()
        """Set for good as soon as more than `hung_max` are abandoned: finish what is in hand, and start anew."""

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for one of `limit` places and hold it."""
        async with self._places:
            yield

    async def run(self, call: Callable[[], T], hung: list[CodeLine] | None = None) -> T:
        """Run a call in a thread, with the caller's context variables, and return what it returns.

        When the waiting is cancelled, the thread is abandoned, at once; `hung` is given the lines that it is at. Raises
        what the call raises: `Exception`s as they are, all else as `HandlerRaised`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        thread = self._idle.pop() if self._idle else _Thread()
        context = contextvars.copy_context()

        def ended(result: object) -> None:
            if future.done():
                self.abandoned -= 1
            else:
                future.set_result(result)
            if self._closed:
                thread.work.put(None)
            else:
                self._idle.append(thread)

        def work() -> None:
            result = context.run(caught, call)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(ended, result)

        thread.work.put(work)
        try:
            result: T | HandlerRaised = await future
        except asyncio.CancelledError:
            if future.cancelled():
                if hung is not None:
                    hung.extend(lines_of_thread(thread.ident))
                self._abandon()
            raise
        return unwrapped(result)

    def close(self) -> None:
        """Let the threads end that have nothing to do, now or later. Those that hang end with the process."""
        self._closed = True
        while self._idle:
            self._idle.pop().work.put(None)

    def _abandon(self) -> None:
        self.abandoned += 1
        logger.warning("handler.abandoned", abandoned=self.abandoned)
        if self.abandoned > self._hung_max:
            self.too_many.set()


class _Thread:
    """One thread, which does what is put into `work` until it gets None."""

    def __init__(self) -> None:
        self.work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        thread = threading.Thread(target=self._run, name=f"handler-{next(_numbers)}", daemon=True)
        thread.start()
        self.ident = thread.ident

    def _run(self) -> None:
        while (work := self.work.get()) is not None:
            work()
            del work  # an idle thread keeps no values alive
