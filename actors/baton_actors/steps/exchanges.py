"""The exchanges of a handler's own client in the journal of its step: found again, and written before they are used."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw
from msgspec.structs import replace

from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BlobMissing
from baton_schemas.wire.facts import Exchange
from baton_schemas.wire.messages import Note
from baton_schemas.wire.outcomes import NULL, Blob


class Recording:
    """Those of one attempt. `notes` are what earlier attempts left."""

    def __init__(self, engine: Engine, journal: Journal, notes: Sequence[Note]) -> None:
        self._engine, self._journal = engine, journal
        found = [note.fact for note in notes if isinstance(note.fact, Exchange)]
        self._known = {(exchange.request_sha256, exchange.number): exchange for exchange in found}

    async def recalled(self, digest: str, number: int) -> Exchange | None:
        """Return a recorded exchange with its body inline; None also when its body is gone.

        Raises the errors of the bus.
        """
        known = self._known.get((digest, number))
        try:
            return await self._whole(known) if known is not None else None
        except BlobMissing:
            return None

    async def recorded(self, exchange: Exchange) -> Exchange:
        """Write an exchange; return the one that is stored, ours or another worker's, with its body inline.

        Raises the errors of `Journal.write`, and those of the blobs.
        """
        value = await self._engine.values.stored(bytes(exchange.body))
        is_large = isinstance(value, Blob)
        ours = replace(exchange, body=NULL if is_large else value, blob=value if is_large else None)
        stored = await self._journal.write(ours)
        if stored is ours or not isinstance(stored, Exchange) or stored.request_sha256 != exchange.request_sha256:
            return exchange
        try:
            return await self._whole(stored)
        except BlobMissing:
            return exchange

    async def _whole(self, exchange: Exchange) -> Exchange:
        if exchange.blob is None:
            return exchange
        return replace(exchange, body=Raw(bytes(await self._engine.values.load(exchange.blob))), blob=None)
