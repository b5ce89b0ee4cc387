"""Steps that may have killed their last worker: they begin one at a time, so that those beside them are not charged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from baton_schemas.wire.outcomes import Error

from .attempts import Tries

ALONE_S = 10.0
"""A suspect that has run so long lets the next begin: what kills a worker mostly does so at once, and a worker that was
killed with a hundred long steps in hand must not do them one by one."""
ALONE_MODEL_S = 1.0
"""The same for a step that asks a model: no code of the user's runs in it, and its answer takes seconds."""


class Suspects:
    """The suspects of one process."""

    def __init__(self, how_it_died: Callable[[str], str]) -> None:
        self._how_it_died = how_it_died
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def alone(self, asks_models: bool) -> AsyncIterator[None]:
        """Wait for the turn of a suspect, and have it while the context is open, or for some seconds."""
        await self._turn.acquire()
        has_turn = True

        def let_go() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._turn.release()

        later = asyncio.get_running_loop().call_later(ALONE_MODEL_S if asks_models else ALONE_S, let_go)
        try:
            yield
        finally:
            later.cancel()
            let_go()

    def error_of(self, step: str, tries: Tries) -> Error:
        """Return the error of a step whose workers died of it."""
        died = len(tries.died_with)
        how = ", ".join(dict.fromkeys(self._how_it_died(worker) or "no word of how" for worker in tries.died_with))
        times = "once" if died == 1 else f"{died} times"
        message = f"its worker died {times} while doing it ({how})"
        return Error(step=step, type="WorkerLost", message=message, attempts=tries.failed + died)
