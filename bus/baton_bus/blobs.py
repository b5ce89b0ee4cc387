"""Blobs: values too large for a message, in the object store under the SHA-256 of their bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import BucketNotFoundError, NotFoundError
from nats.js.object_store import ObjectStore

from baton_schemas.messages import Blob

from .errors import BlobMissing
from .settings import Settings

CACHE_BYTES = 64 * 1024 * 1024
"""Blobs kept in a process: the branches of a fan-out often read the same few."""
_READ_TIMEOUT_S = 20.0
"""Of one read: a blob of 100 MB over a slow network."""
_READS = 3
"""A blob that is being written a second time can be read in pieces that do not fit: read again."""


class Blobs:
    """Puts and gets blobs. The same bytes are stored once, whoever puts them."""

    def __init__(self, js: JetStreamContext, settings: Settings) -> None:
        self._js, self._bucket, self._replicas = js, f"{settings.namespace}-blobs", settings.replicas
        self._store: ObjectStore | None = None
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0

    async def put(self, data: bytes) -> Blob:
        """Store bytes and return where they are. Raises nats errors when the object store refuses."""
        blob = Blob(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        if blob.sha256 in self._cache:
            return blob
        store = self._store or await self._open()
        try:
            await store.get_info(blob.sha256)
        except NotFoundError:
            await store.put(blob.sha256, data)
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
            except (NatsError, TimeoutError, BucketNotFoundError) as error:
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

    async def _open(self) -> ObjectStore:
        try:
            self._store = await self._js.object_store(self._bucket)
        except BucketNotFoundError:
            self._store = await self._js.create_object_store(self._bucket, replicas=self._replicas)
        return self._store

    def _remember(self, sha256: str, data: bytes) -> None:
        if len(data) > CACHE_BYTES or sha256 in self._cache:
            return
        self._cache[sha256] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)
