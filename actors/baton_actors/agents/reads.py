"""Reads the files that a handler is given: awaited in an async one, in a plain one while its thread waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from baton_actors.agents.kinds import Journal
from baton_actors.errors import FileRefused
from baton_schemas.wire.files import FileRef, may_name_files, refs_in


class Reads:
    """Reads for one attempt of a handler."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop | None) -> None:
        """`loop` does the reading of a plain handler."""
        self._journal: Journal | None = journal
        self._loop = loop
        self._ahead: dict[str, bytes] | None = None

    def close(self) -> None:
        """The handler has ended: what it left behind (tasks, timers, files) holds nothing of its step any more."""
        self._journal = self._ahead = None

    async def ahead(self, values: Iterable[Raw]) -> None:
        """Read what these values name, for a plain handler that has the thread of the loop, in front of a debugger."""
        self._ahead = {}
        for value in values:
            for ref in refs_in(msgspec.json.decode(value)) if may_name_files(bytes(value)) else ():
                self._ahead[ref.sha256] = await self._load(ref)

    def read(self, ref: FileRef) -> bytes | Coroutine[Any, Any, bytes]:
        """Return the bytes of a file, or what they are awaited from.

        Raises `FileRefused` when they are gone, or the handler has ended.
        """
        if self._loop is None:
            return self._load(ref)
        if asyncio._get_running_loop() is self._loop:
            self._of_whom(ref)
            assert self._ahead is not None  # it is in front of a debugger
            return self._ahead[ref.sha256]
        return asyncio.run_coroutine_threadsafe(self._load(ref), self._loop).result()

    async def _load(self, ref: FileRef) -> bytes:
        return await self._of_whom(ref).load(ref)

    def _of_whom(self, ref: FileRef) -> Journal:
        if self._journal is None:
            raise FileRefused(ref.label, "it is read when its handler has ended; read it before, and keep the bytes")
        return self._journal
