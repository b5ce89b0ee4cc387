"""Blobs: values too large for a message, in the object store under the SHA-256 of their bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import NotFoundError
from nats.js.object_store import (
    OBJ_ALL_CHUNKS_PRE_TEMPLATE,
    OBJ_ALL_META_PRE_TEMPLATE,
    OBJ_STREAM_TEMPLATE,
    ObjectStore,
)

from baton_bus.errors import BlobMissing
from baton_bus.jetstream.streams import ensure_made, ensure_replicas, placement
from baton_bus.settings import Settings
from baton_schemas.wire.messages import Blob

CACHE_BYTES = 64 * 1024 * 1024
"""Blobs kept in a process: the branches of a fan-out often read the same few."""
_READ_TIMEOUT_S = 20.0
"""Of one read: a blob of 100 MB over a slow network."""
_READS = 3
"""A blob that is being written a second time can be read in pieces that do not fit: read again."""


class Blobs:
    """Puts and gets blobs. The same bytes are stored once, whoever puts them."""

    def __init__(self, js: JetStreamContext, settings: Settings) -> None:
        self._js, self._settings, self._bucket = js, settings, f"{settings.namespace}-blobs"
        self.stream = OBJ_STREAM_TEMPLATE.format(bucket=self._bucket)
        self._store: ObjectStore | None = None
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0

    async def put(self, data: bytes) -> Blob:
        """Store bytes and return where they are. Raises as `ensure_made`, and nats errors when it refuses."""
        blob = Blob(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        if blob.sha256 in self._cache:
            return blob
        store = self._store or await self._open()
        try:
            await store.get_info(blob.sha256)
        except NotFoundError:
            await self._write(store, blob, data)
        self._remember(blob.sha256, data)
        return blob

    async def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob. Raises `BlobMissing` when they are not there or not what was put."""
        if blob.sha256 in self._cache:
            self._cache.move_to_end(blob.sha256)
            return self._cache[blob.sha256]
        reason = ""
        for attempt in range(_READS):
            try:
                data = await self._read(blob)
            except (NatsError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            else:
                if hashlib.sha256(data).hexdigest() == blob.sha256:
                    self._remember(blob.sha256, data)
                    return data
                reason = f"its {len(data)} bytes have another hash"
            await asyncio.sleep(0.05 * attempt)
        raise BlobMissing(blob.sha256, reason)

    async def _read(self, blob: Blob) -> bytes:
        store = self._store or await self._open()
        async with asyncio.timeout(_READ_TIMEOUT_S):
            return bytes((await store.get(blob.sha256)).data or b"")

    async def _write(self, store: ObjectStore, blob: Blob, data: bytes) -> None:
        try:
            await store.put(blob.sha256, data)
        except NotFoundError:  # the bucket was deleted behind our back, with what we remember of it
            self._cache.clear()
            self._cached_bytes = 0
            await (await self._open()).put(blob.sha256, data)

    async def _open(self) -> ObjectStore:
        """Open the bucket; make it as `create_object_store` does if it is missing. Raises as `ensure_made`."""
        wanted = StreamConfig(
            name=self.stream,
            description="Baton's blobs: values too large for a message",
            subjects=[
                template.format(bucket=self._bucket)
                for template in (OBJ_ALL_CHUNKS_PRE_TEMPLATE, OBJ_ALL_META_PRE_TEMPLATE)
            ],
            discard=DiscardPolicy.NEW,
            num_replicas=self._settings.replicas,
            placement=placement(self._settings),
            allow_rollup_hdrs=True,
            allow_direct=True,
        )
        await ensure_replicas(self._js, self._settings, await ensure_made(self._js, self._settings, wanted))
        self._store = await self._js.object_store(self._bucket)
        return self._store

    def _remember(self, sha256: str, data: bytes) -> None:
        if len(data) > CACHE_BYTES or sha256 in self._cache:
            return
        self._cache[sha256] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)
