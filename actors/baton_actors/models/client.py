"""Calls a model and waits for its whole answer. One `Models` per process, shared by all its actors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self

from baton_actors.models.errors import ModelError
from baton_actors.models.prices import Prices, cost_usd, load_prices
from baton_actors.models.types import ModelAnswer, ModelRequest, ModelSettings

if TYPE_CHECKING:
    from baton_actors.models.sdk import Client, Reading

_TRUNCATED = frozenset({"max_tokens", "model_context_window_exceeded"})


class Models:
    """The way to all models, with one pool of connections. Close it, or use it with `async with`."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self._client: Client | None = None
        self._prices: Prices = {}
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Import the SDK and make the client. The first call does it too; ahead of it, this saves a second.

        Raises `ModelError` (`bad_setting`, `no_credentials`): before any call is made, and paid.
        """
        async with self._opening:
            if self._client is None:
                self._prices = load_prices(self.settings.prices_path)
                # In a thread, as the import takes longer than a second and leases must be kept meanwhile.
                await asyncio.to_thread(import_module, f"{__package__}.sdk")
                from baton_actors.models import sdk

                self._client = sdk.make_client(self.settings)

    async def complete(self, request: ModelRequest, on_chunk: Callable[[str], None] | None = None) -> ModelAnswer:
        """Return the model's whole answer; `on_chunk` gets its text piece by piece as it comes.

        Raises `ModelError`; never tries twice. What `on_chunk` raises ends the call and is raised as it is.
        """
        await self.open()
        assert self._client is not None
        from baton_actors.models import sdk

        reading = sdk.Reading()
        pieces: list[str] = []
        try:
            async with (
                asyncio.timeout(request.timeout_s) as deadline,
                aclosing(sdk.chunks(self._client, self.settings, request, reading)) as chunks,
            ):
                async for chunk in chunks:
                    pieces.append(chunk)
                    if on_chunk is not None:
                        on_chunk(chunk)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ModelError(
                type="timeout",
                message=f"{request.model} at {self.settings.host} did not finish within "
                f"{request.timeout_s:g} s; raise timeout_s or lower max_tokens if this goes on",
                retryable=True,
                request_id=reading.request_id,
            ) from error
        return self._answer(request, reading, "".join(pieces))

    async def aclose(self) -> None:
        """Close the connections. Calls under way fail."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _answer(self, request: ModelRequest, reading: Reading, text: str) -> ModelAnswer:
        if reading.stop_reason == "refusal":
            why = f" ({reading.refusal.rstrip('.')})" if reading.refusal else ""
            raise ModelError(
                type="refusal",
                message=f"{request.model} refused to answer{why}; change the prompt, or try another model",
                retryable=False,
                request_id=reading.request_id,
            )
        model = reading.model or request.model
        rehearsed = self.settings.rehearses
        return ModelAnswer(
            text=text,
            model=model,
            stop_reason=reading.stop_reason,
            usage=reading.usage,
            cost_usd=0.0 if rehearsed else cost_usd(model, reading.usage, self._prices),
            truncated=reading.stop_reason in _TRUNCATED,
            rehearsed=rehearsed,
            request_id=reading.request_id,
        )
