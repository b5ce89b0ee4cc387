"""Reads the files that a handler is given: awaited in an async one, in a plain one while its thread waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from baton_actors.agents.kinds import Journal
from baton_schemas.wire.files import FileRef, may_name_files, refs_in


class Reads:
    """Reads for one attempt of a handler."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop | None) -> None:
        """`loop` does the reading of a plain handler."""
        self._journal, self._loop = journal, loop
        self._ahead: dict[str, bytes] = {}

    async def ahead(self, values: Iterable[Raw]) -> None:
        """Read what these values name, for a plain handler that has the thread of the loop, in front of a debugger."""
        for value in values:
            for ref in refs_in(msgspec.json.decode(value)) if may_name_files(bytes(value)) else ():
                self._ahead[ref.sha256] = await self._journal.load(ref)

    def read(self, ref: FileRef) -> bytes | Coroutine[Any, Any, bytes]:
        """Return the bytes of a file, or what they are awaited from. Raises `FileRefused` when they are gone."""
        if self._loop is None:
            return self._journal.load(ref)
        if asyncio._get_running_loop() is self._loop:
            return self._ahead[ref.sha256]
        return asyncio.run_coroutine_threadsafe(self._journal.load(ref), self._loop).result()
