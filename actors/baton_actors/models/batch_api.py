"""The provider's batches, by the SDK's client. Imported late, with `sdk.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from baton_actors.models import sdk
from baton_actors.models.batches import Body, NotSent, Out
from baton_actors.models.errors import ModelError, is_overloaded
from baton_actors.models.types import ModelSettings

_LOOK_S = 60.0
"""How long the provider has to say how a batch stands."""
_PAGE = 100
"""Batches that are listed at once."""


class SdkBatches:
    """See `batches.BatchApi`."""

    def __init__(self, client: sdk.Client, settings: ModelSettings) -> None:
        self._batches, self._settings = client.messages.batches, settings

    async def send(self, bodies: Sequence[tuple[str, Body]]) -> Out:
        """Send requests, each with its custom id. Raises `NotSent`."""
        requests: Any = [{"custom_id": name, "params": body} for name, body in bodies]
        try:
            with sdk.telling(self._settings, str(bodies[0][1].get("model", "")) if bodies else ""):
                return _out(await self._batches.create(requests=requests))
        except ModelError as error:
            status = sdk.status_of(error)
            refused = 400 <= status < 500 or (status == 529 and is_overloaded(status, error.type, {}))
            there = not refused and not sdk.never_arrived(error)
            raise NotSent(error, status=status, may_be_there=there) from error

    async def look(self, batch: str) -> Out:
        """Return how a batch stands. Raises `ModelError`."""
        with sdk.telling(self._settings):
            return _out(await self._batches.retrieve(batch, timeout=_LOOK_S))

    async def results(self, batch: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield what a batch came to, by custom id. Raises `ModelError`."""
        with sdk.telling(self._settings):
            found = await self._batches.results(batch)
            try:
                async for line in found:
                    yield line.custom_id, line.result.to_dict(mode="json")
            finally:
                await found.close()

    async def since(self, at_s: float) -> AsyncIterator[Out]:
        """Yield the batches that were made since, the newest first. Raises `ModelError`."""
        with sdk.telling(self._settings):
            async for batch in self._batches.list(limit=_PAGE, timeout=_LOOK_S):
                out = _out(batch)
                if out.created_at_s < at_s:
                    return
                yield out

    async def cancel(self, batch: str) -> None:
        """Have the provider do no more of a batch. Raises `ModelError`."""
        with sdk.telling(self._settings):
            await asyncio.wait_for(self._batches.cancel(batch), _LOOK_S)


def _out(batch: Any) -> Out:
    counts = batch.request_counts
    return Out(
        id=batch.id,
        count=counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired,
        ended=batch.processing_status == "ended",
        created_at_s=batch.created_at.timestamp(),
        has_results=bool(batch.results_url),
    )
