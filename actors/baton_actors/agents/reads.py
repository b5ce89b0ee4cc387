"""Reads the files that a handler is given: awaited in an async one, in a plain one while its thread waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from baton_actors.agents.asks import AskRefused
from baton_actors.agents.kinds import Journal
from baton_schemas.wire.files import FileRef


class Reads:
    """Reads for one attempt of a handler."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop | None) -> None:
        """`loop` does the reading of a plain handler."""
        self._journal, self._loop = journal, loop

    def read(self, ref: FileRef) -> bytes | Coroutine[Any, Any, bytes]:
        """Return the bytes of a file, or what they are awaited from. Raises `FileRefused` when they are gone."""
        if self._loop is None:
            return self._journal.load(ref)
        if asyncio._get_running_loop() is self._loop:
            where = "in the thread of the loop, as under --debug"
            raise AskRefused(f"a plain handler cannot read files {where}: make it async")
        return asyncio.run_coroutine_threadsafe(self._journal.load(ref), self._loop).result()
