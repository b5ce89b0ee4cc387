"""Blobs: values too large for a message, as chunks in a stream of ours, under the SHA-256 of their bytes.

Chunks 1, 2, … hold the bytes; chunk 0 says how many they are and is written last, so that it is there when all is.
Each is written create-only and never purged by a writer. So a writer may be stopped, killed or doubled at any chunk:
the next one completes what is there, and nothing that is there ever changes. How long a chunk is, the first one says:
writers may disagree, when the server's `max_payload` was changed between them.

Whoever puts what is there already leaves a mark (`touched`): what names it is still to come. `baton purge` removes what
no message names any more, and spares what was touched lately. It puts a mark of its own first (`doomed`), and looks for
touches once more; who puts looks for that mark after the touch. So one of the two sees the other: either the blob
stays, or it is written anew behind the mark, and only what is before the mark is removed.

Whom the server lets may purge chunks (`nats stream purge {ns}-blobs --subject '{ns}-blobs.{sha256}.*'`). Permissions to
purge keep clients from it, and not the stream: `deny_delete` and `deny_purge` could never be taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

from baton_bus.errors import (
    BlobMissing,
    BlobWrong,
    BusUnavailable,
    LogFull,
    NoLeader,
    NoStream,
    PublishRefused,
    StreamMismatch,
)
from baton_bus.jetstream.gets import Gets
from baton_bus.jetstream.publisher import EXPECTED, Publisher
from baton_bus.jetstream.reader import Reader
from baton_bus.jetstream.requests import Requests
from baton_bus.jetstream.streams import ensure_made, ensure_replicas, placement
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects
from baton_schemas.wire.outcomes import Blob

from .removing import purge

CACHE_BYTES = 64 * 1024 * 1024
"""Blobs kept in a process: the branches of a fan-out often read the same few."""
CHUNK_BYTES = 128 * 1024
"""What the object stores of NATS clients take too: a slow disk or network does not hold up others for long."""
_BESIDE_BYTES = 1024
"""Left in a message for its subject and headers, where the server's `max_payload` is smaller than a chunk."""
_LEAST_BYTES = 1024
"""No writer makes shorter chunks; one that is planted must not cost a million messages."""
_IN_FLIGHT = 8
"""Chunks written at once: a mebibyte hides the round trip."""
_AGAIN_S = 0.2
_CREATE = {EXPECTED: "0"}
TOUCHED, DOOMED = "touched", "doomed"
"""In place of a chunk's number: who found it there is about to name it; and it is being removed."""
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_FULL = frozenset({10023, 10047, 10002})
"""`insufficient resources` of the cluster, of the server and of the account: there is no room for one more stream."""


TOUCH_AGAIN_S = 60.0
"""A process leaves a mark on a blob no more often than this: the same value may be put a thousand times a second."""
_TOUCHES_KEPT = 1_000


class _Head(Struct, frozen=True):
    """Chunk 0."""

    size_bytes: int
    chunks: int


class Kept(Struct, frozen=True, kw_only=True):
    """What is known of a blob that is stored."""

    size_bytes: int
    written_at: datetime
    touched_at: datetime | None = None
    """When somebody put it last who found it there."""
    touched_seq: int = 0


class Blobs:
    """Puts and gets blobs of one namespace. The same bytes are stored once, whoever puts them."""

    def __init__(self, js: JetStreamContext, requests: Requests, settings: Settings) -> None:
        self._js, self._settings = js, settings
        self._subjects = Subjects(settings.namespace)
        self.stream = f"{settings.namespace}-blobs"
        self._publisher = Publisher(js._nc, requests, self.stream)
        self._requests = requests
        self._gets = Gets(js._nc, requests, self.stream, None)
        self._reader = Reader(js._nc, requests, self._gets.waiting(settings.patience_s), settings.patience_s)
        self._ensured = False
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._touched: OrderedDict[str, float] = OrderedDict()
        """When we touched a blob last, by the monotonic clock."""

    async def put(self, data: bytes, *, waits: bool = False) -> Blob:
        """Store bytes and return where they are. One that is there already costs one small read.

        It is tried for `patience_s`, or, if it `waits`, for as long as it takes. Raises `BusUnavailable`, `LogFull`,
        `PublishRefused`, `StreamMismatch`, and as `ensure_made`.
        """
        blob = Blob(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        async with self._alone(blob), self._patient("store a blob", waits):
            while True:
                await self._ensure_once()
                try:
                    if not await self._is_there(blob):
                        await self._write(blob, data)
                    elif await self._touch(blob):
                        await self._write_anew(blob, data)
                    break
                except NoStream:  # deleted behind our back, with what we remember of it
                    self._ensured = False
                    self._cache.clear()
                    self._cached_bytes = 0
        self._remember(blob.sha256, data)
        return blob

    async def hold(self, blob: Blob) -> bool:
        """Say whether all of a blob is stored, by the leader's word. If so it stays for now: a message is to name it.

        Raises `BusUnavailable`.
        """
        if not _SHA256.match(blob.sha256):
            return False
        async with self._alone(blob), self._patient("look for a blob", False):
            try:
                head = await self._gets.last_sure(self._subjects.blob(blob.sha256, 0))
                if head is None or self._head(blob, head.data).size_bytes != blob.size_bytes:
                    return False
                return not await self._touch(blob)
            except (NoStream, BlobWrong):
                return False

    async def get(self, blob: Blob, *, waits: bool = False) -> bytes:
        """Return the bytes of a blob.

        Raises `BlobMissing` when the leader says that they are not there, `BlobWrong` when they are not what was put;
        and `BusUnavailable` after `patience_s`, unless it `waits` for as long as it takes.
        """
        if not _SHA256.match(blob.sha256):
            raise BlobMissing(blob.sha256, "that is no SHA-256")
        async with self._alone(blob):
            if (data := self._cache.get(blob.sha256)) is not None:
                self._cache.move_to_end(blob.sha256)
                return data
            async with self._patient("read a blob", waits):
                try:
                    data = await self._read(blob)
                except NoStream as error:
                    raise BlobMissing(blob.sha256, str(error)) from error
            self._remember(blob.sha256, data)
            return data

    # ---- removing ----------------------------------------------------------------------------------

    async def kept(self) -> dict[str, Kept]:
        """Return what is stored, by its SHA-256. Raises `BusUnavailable`."""
        found: dict[str, Kept] = {}
        try:
            for mark in (0, TOUCHED):
                async with aclosing(self._reader.read(self._subjects.blob("*", mark))) as read:
                    async for each in read:
                        sha256 = self._subjects.blob_of(each.subject)
                        if mark == 0:
                            size = 0
                            with contextlib.suppress(msgspec.DecodeError):
                                size = msgspec.json.decode(each.data, type=_Head).size_bytes
                            found[sha256] = Kept(size_bytes=size, written_at=each.at)
                        elif sha256 in found:
                            found[sha256] = replace(found[sha256], touched_at=each.at, touched_seq=each.seq)
        except NoStream:
            pass
        return found

    async def doom(self, sha256: str, touched_seq: int) -> int:
        """Mark a blob as one that is being removed; return the sequence of the mark.

        0 when somebody has touched it since `touched_seq`: then it stays. Raises the errors of `Publisher.create`.
        """
        doomed_seq = await self._publisher.append(
            self._subjects.blob(sha256, DOOMED), b"", patience_s=self._settings.patience_s
        )
        touched = await self._gets.last_sure(self._subjects.blob(sha256, TOUCHED))
        if touched is not None and touched.seq > touched_seq:
            await self.spare(sha256)
            return 0
        return doomed_seq

    async def spare(self, sha256: str) -> None:
        """Take the mark away: somebody names the blob after all. Raises as `remove`."""
        await self._purge(self._subjects.blob(sha256, DOOMED), 0)

    async def remove(self, sha256: str, doomed_seq: int) -> None:
        """Remove what was written before the mark, and the mark. Raises `NotAllowed`, `BusUnavailable`."""
        await self._purge(self._subjects.blob(sha256, "*"), doomed_seq + 1)

    async def _purge(self, pattern: str, below_seq: int) -> None:
        await purge(self._requests, self.stream, pattern, self._settings.patience_s, below_seq=below_seq)

    async def ensure(self) -> None:
        """Make the stream of blobs if it is missing. Doing it twice changes nothing. Raises as `put`."""
        wanted = StreamConfig(
            name=self.stream,
            description="Baton's blobs: values too large for a message",
            subjects=self._subjects.blobs(),
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            num_replicas=self._settings.replicas,
            placement=placement(self._settings),
            allow_direct=True,
            allow_rollup_hdrs=False,
        )
        try:
            found = await ensure_made(self._js, self._settings, wanted)
            await ensure_replicas(self._js, self._settings, found)
        except APIError as error:
            description = str(error.description)
            if error.err_code in _FULL:
                raise LogFull(self.stream, description) from error
            raise PublishRefused(self.stream, error.err_code or 0, description) from error
        if (found.subjects or []) != wanted.subjects:
            raise StreamMismatch(self.stream, "subjects", found.subjects, wanted.subjects)

    async def _is_there(self, blob: Blob) -> bool:
        """Say whether all of it is stored. A replica that lags may not know: then it is written again, in vain."""
        return await self._gets.last(self._subjects.blob(blob.sha256, 0)) is not None

    async def _touch(self, blob: Blob) -> bool:
        """Say that what names it is to come; return whether it must be written anew, as it is being removed."""
        now = time.monotonic()
        if now - self._touched.get(blob.sha256, -math.inf) > TOUCH_AGAIN_S:
            await self._publisher.append(self._subjects.blob(blob.sha256, TOUCHED), b"")
            self._touched[blob.sha256] = now
            self._touched.move_to_end(blob.sha256)
            if len(self._touched) > _TOUCHES_KEPT:
                self._touched.popitem(last=False)
        return await self._is_doomed(blob)

    async def _is_doomed(self, blob: Blob) -> bool:
        head, doomed = self._subjects.blob(blob.sha256, 0), self._subjects.blob(blob.sha256, DOOMED)
        found = {each.subject: each.seq for each in await self._gets.matching_sure([head, doomed])}
        return head not in found or found.get(doomed, 0) > found[head]

    async def _ensure_once(self) -> None:
        while not self._ensured:
            try:
                await self.ensure()
                self._ensured = True
            except (NatsError, TimeoutError, NoLeader):
                await asyncio.sleep(_AGAIN_S)

    async def _write(self, blob: Blob, data: bytes) -> None:
        """Write the chunks that are not there. Raises `NoStream` and the errors of `Publisher.create`."""
        size = self._chunk_bytes()
        # 1. The first chunk, which decides how long the others are.
        first = self._subjects.blob(blob.sha256, 1)
        if await self._publisher.create(first, data[:size]) is None:
            there = await self._gets.last_sure(first)
            if there is None:
                raise NoStream(self.stream)  # purged at this moment: begin again
            if await self._gets.last_sure(self._subjects.blob(blob.sha256, DOOMED)) is not None:
                await self._write_anew(blob, data)
                return
            size = self._size(blob, there.data, data)
        # 2. The others.
        chunks = _chunks(data, size)
        for start in range(1, len(chunks), _IN_FLIGHT):
            await self._write_at_once(blob, start + 1, chunks[start : start + _IN_FLIGHT], _CREATE)
        # 3. That they are all there.
        head = _Head(size_bytes=len(data), chunks=len(chunks))
        await self._publisher.create(self._subjects.blob(blob.sha256, 0), msgspec.json.encode(head))

    async def _write_anew(self, blob: Blob, data: bytes) -> None:
        """Write all of it once more, behind the mark of whoever is removing it."""
        chunks = _chunks(data, self._chunk_bytes())
        for start in range(0, len(chunks), _IN_FLIGHT):
            await self._write_at_once(blob, start + 1, chunks[start : start + _IN_FLIGHT], None)
        head = _Head(size_bytes=len(data), chunks=len(chunks))
        await self._publisher.append(self._subjects.blob(blob.sha256, 0), msgspec.json.encode(head))

    def _chunk_bytes(self) -> int:
        return min(CHUNK_BYTES, self._js._nc.max_payload - _BESIDE_BYTES)

    async def _write_at_once(
        self, blob: Blob, first: int, chunks: Sequence[bytes], headers: Mapping[str, str] | None
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index, chunk in enumerate(chunks, first):
                    subject = self._subjects.blob(blob.sha256, index)
                    group.create_task(self._publisher.publish(subject, chunk, headers))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    @staticmethod
    def _size(blob: Blob, there: bytes, data: bytes) -> int:
        """Return how long the chunks are of which this is the first that is there. Raises `BlobWrong`."""
        if not data.startswith(there) or len(there) < min(len(data), _LEAST_BYTES):
            raise BlobWrong(blob.sha256, f"its first chunk has {len(there)} bytes that are none of its")
        return len(there) or 1

    async def _read(self, blob: Blob) -> bytes:
        """Return the bytes that are stored. Raises `BlobMissing`, `BlobWrong`, `NoStream`."""
        head = self._head(blob, await self._chunk(blob, 0))
        subjects = [self._subjects.blob(blob.sha256, index) for index in range(1, head.chunks + 1)]
        found, _ = await self._gets.matching(subjects)
        chunks = {each.subject: each.data for each in found}
        data = b"".join(
            [
                chunks[subject] if subject in chunks else await self._chunk(blob, index)
                for index, subject in enumerate(subjects, 1)
            ]
        )
        if hashlib.sha256(data).hexdigest() != blob.sha256:
            raise BlobWrong(blob.sha256, f"the {len(data)} bytes under its name have another hash")
        return data

    async def _chunk(self, blob: Blob, index: int) -> bytes:
        """Return one chunk, or what the leader says."""
        subject = self._subjects.blob(blob.sha256, index)
        found = await self._gets.last(subject)
        if found is None and not await self._gets.is_alone():
            found = await self._gets.last_sure(subject)
        if found is None:
            what = f"chunk {index} of it" if index else "it"
            raise BlobMissing(blob.sha256, f"the stream {self.stream!r} does not have {what}")
        return found.data

    @staticmethod
    def _head(blob: Blob, data: bytes) -> _Head:
        try:
            head = msgspec.json.decode(data, type=_Head)
        except msgspec.DecodeError as error:
            raise BlobWrong(blob.sha256, f"what is said of its chunks cannot be read ({error})") from error
        if head.size_bytes != blob.size_bytes or not 0 < head.chunks <= max(head.size_bytes, 1):
            said = f"{head.size_bytes} bytes in {head.chunks} chunks"
            raise BlobWrong(blob.sha256, f"{said} are said to be under its name; expected {blob.size_bytes} bytes")
        return head

    @contextlib.asynccontextmanager
    async def _alone(self, blob: Blob) -> AsyncIterator[None]:
        """Let one task of this process at a blob: who comes second finds it there."""
        lock = self._busy.setdefault(blob.sha256, asyncio.Lock())
        async with lock:
            yield

    @contextlib.asynccontextmanager
    async def _patient(self, what: str, waits: bool) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(None if waits else self._settings.patience_s) as patience:
                yield
        except TimeoutError as error:
            if not patience.expired():
                raise
            raise BusUnavailable(what, self._settings.patience_s) from error

    def _remember(self, sha256: str, data: bytes) -> None:
        if len(data) > CACHE_BYTES or sha256 in self._cache:
            return
        self._cache[sha256] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)


def _chunks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)] or [b""]
