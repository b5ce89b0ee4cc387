"""Something that is done once for each key, whoever asks for it first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Once:
    """Does it, and lets all who ask meanwhile wait for it. What failed is done again for whoever asks next."""

    def __init__(self, do: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._do = do
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def has(self, key: str) -> bool:
        """Say whether it is done: then nobody need wait for it."""
        task = self._tasks.get(key)
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    async def __call__(self, key: str) -> None:
        """Return when it is done. Raises what doing it raised."""
        task = self._tasks.get(key)
        if task is None or (task.done() and not self.has(key)):
            task = self._tasks[key] = asyncio.create_task(self._do(key), name=f"once for {key}")
        await asyncio.shield(task)
