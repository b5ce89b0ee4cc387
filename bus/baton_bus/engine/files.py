"""Files on one bus: their bytes are put beside the log and read from there, and inputs that give some are settled."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from baton_bus.errors import BlobMissing, FileGone
from baton_bus.store.bus import Bus
from baton_schemas.errors import BadFile, InputError
from baton_schemas.flow.flow import Field
from baton_schemas.flow.types import files_in, has_files, type_of, with_files
from baton_schemas.wire.files import File, FileRef, as_value, described
from baton_schemas.wire.given_files import GivenFile, given_in
from baton_schemas.wire.media import PDF, media_type_of
from baton_schemas.wire.outcomes import Blob

from .pdf import pages_of

_AT_ONCE = 32
"""Files put or looked for at the same time: this hides the round trip; each that is put is in memory."""
_SMALL_BYTES = 100_000
_HELD_S = 60.0
"""What this process has put so short a time ago nobody removes: see `SPARED_S` of purging."""
_HELD_MAX = 20_000
_A = TypeVar("_A")
_B = TypeVar("_B")


class Files:
    """Puts and reads files on one bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._held: dict[str, float] = {}
        """When we put the bytes of a file, by the monotonic clock."""

    async def upload(self, name: str, data: bytes, media_type: str = "") -> FileRef:
        """Store the bytes of a file; return what is known of it. Raises `BadFile`, and as `Blobs.put`."""
        ref = await _described(name, data, media_type)
        await self._put(ref, data)
        return ref

    async def keep(self, made: Iterable[File]) -> None:
        """Store the bytes of files that somebody made. Raises as `Blobs.put`."""
        each = {file.ref.sha256: file for file in made if file.data is not None}
        await _at_once(list(each.values()), self._keep)

    async def _keep(self, file: File) -> None:
        assert file.data is not None
        await self._put(file.ref, file.data)

    async def _put(self, ref: FileRef, data: bytes) -> None:
        if self._is_held(ref.sha256):
            return
        await self._bus.blobs.put(data)
        if len(self._held) >= _HELD_MAX:
            self._held.clear()
        self._held[ref.sha256] = time.monotonic()

    def _is_held(self, sha256: str) -> bool:
        return time.monotonic() - self._held.get(sha256, -math.inf) < _HELD_S

    async def read(self, ref: FileRef) -> bytes:
        """Return the bytes of a file. Raises `FileGone` when they are not there, `BusUnavailable`."""
        try:
            return await self._bus.blobs.get(Blob(sha256=ref.sha256, size_bytes=ref.size_bytes))
        except BlobMissing as error:
            raise FileGone(ref.name, str(error)) from error

    async def settled(self, of: str, fields: Mapping[str, Field], given: Mapping[str, Raw]) -> dict[str, Raw]:
        """Return values that fit these fields with each file as the log has it: its bytes are stored by then.

        Those that came with it are put beside the log; those that it names have to be there. `of` is whose fields they
        are. Raises `InputError`, and as `Blobs.put`.
        """
        settled = dict(given)
        for name, field in fields.items():
            if name in given and has_files(field):
                kind, value = type_of(field), msgspec.json.decode(given[name])
                found = await _at_once(list(files_in(value, kind, name)), lambda each: self._settled(of, *each))
                settled[name] = Raw(msgspec.json.encode(with_files(value, kind, iter(map(as_value, found)))))
        return settled

    async def _settled(self, of: str, place: str, value: Any) -> FileRef:
        given = given_in(value)
        try:
            if isinstance(given, GivenFile) and given.data is not None:
                return await self.upload(given.name, given.data, given.media_type)
            return await self._named(given)
        except (BadFile, FileGone) as error:
            raise InputError(of, place, str(error)) from error

    async def _named(self, given: GivenFile | FileRef) -> FileRef:
        """Return a file whose bytes are said to be stored."""
        blob = Blob(sha256=given.sha256, size_bytes=given.size_bytes)
        if not self._is_held(given.sha256) and not await self._bus.blobs.hold(blob):
            reason = f"no {given.size_bytes:,} bytes with the SHA-256 {given.sha256} are stored"
            raise FileGone(given.name, reason)
        if isinstance(given, FileRef):
            return given
        try:
            data = await self._bus.blobs.get(blob)
        except BlobMissing as error:
            raise FileGone(given.name, str(error)) from error
        return await _described(given.name, data, given.media_type)


async def _described(name: str, data: bytes, media_type: str) -> FileRef:
    if media_type_of(data, name) == PDF:
        pages = await asyncio.to_thread(pages_of, data)
        return await asyncio.to_thread(described, name, data, pages=pages, media_type=media_type)
    if len(data) < _SMALL_BYTES:  # a thread costs more
        return described(name, data, media_type=media_type)
    return await asyncio.to_thread(described, name, data, media_type=media_type)


async def _at_once(items: Sequence[_A], do: Callable[[_A], Awaitable[_B]]) -> list[_B]:
    """Do it for each, some at a time; return what came of each, in their order. Raises the first error of any."""
    if len(items) == 1:
        return [await do(items[0])]
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(item: _A) -> _B:
        async with places:
            return await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
