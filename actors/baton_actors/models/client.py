"""Calls a model and waits for its whole answer. One `Models` per process, shared by all its actors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace

from baton_actors.models.answers import check_answer, is_truncated
from baton_actors.models.errors import ModelError
from baton_actors.models.prices import Prices, bound_usd, cost_usd, endless, load_prices
from baton_actors.models.reading import Reading
from baton_actors.models.types import Bound, ModelAnswer, ModelRequest, ModelSettings
from baton_schemas.wire.outcomes import Usage

if TYPE_CHECKING:
    from baton_actors.models.exchanges import Exchanges
    from baton_actors.models.sdk import Client, Pool

_Chunks = Callable[[ModelRequest, Reading], AsyncGenerator[str, None]]
"""Calls a model, or rehearses, and yields the text of the answer in chunks; see `sdk.chunks`."""


class Models:
    """The way to all models, with one pool of connections. Close it, or use it with `async with`."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self._client: Client | None = None
        self._pool: Pool | None = None
        self._has_sdk = False
        self._chunks: _Chunks | None = None
        self._prices = Prices()
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Import the SDK and make the client, unless calls are rehearsed. The first call does it too; ahead of it, this
        saves a second.

        Raises `ModelError` (`bad_setting`, `no_credentials`): before any call is made, and paid.
        """
        async with self._opening:
            if self._chunks is not None:
                return
            self._prices = load_prices(self.settings.prices_path)
            if self.settings.rehearses:
                from baton_actors.models.rehearsal import model

                self._chunks = model.chunks
                return
            # In a thread, as the import takes longer than a second and leases must be kept meanwhile.
            await asyncio.to_thread(import_module, f"{__package__}.sdk")
            from baton_actors.models import sdk

            self.settings.check_credentials()
            self._pool = sdk.make_pool()
            self._client = client = sdk.make_client(self.settings, self._pool)
            self._chunks = lambda request, reading: sdk.chunks(client, self.settings, request, reading)

    async def complete(
        self,
        request: ModelRequest,
        on_chunk: Callable[[str], None] | None = None,
        on_cut: Callable[[ModelError], None] | None = None,
    ) -> ModelAnswer:
        """Return the model's whole answer; `on_chunk` gets its text piece by piece as it comes.

        Raises `ModelError`, with what the call took; never tries twice. What counts as an answer says
        `answers.py`. What `on_chunk` raises ends the call and is raised as it is. When that or a cancellation
        ends a call whose answer had begun, `on_cut` is told by a `ModelError` (`cancelled`) what it took.
        """
        await self.open()
        reading = Reading(with_content=request.converses)
        try:
            text = await self._read(request, reading, on_chunk)
            content = reading.content.blocks() if reading.content is not None else []
            check_answer(request, reading, text, content)
        except ModelError as error:
            self._charge(error, request, reading)
            raise
        except BaseException as error:
            if on_cut is not None and reading.begun:
                on_cut(self._cut(error, request, reading))
            raise
        model = reading.model or request.model
        return ModelAnswer(
            text=text,
            model=model,
            stop_reason=reading.stop_reason,
            usage=reading.usage,
            cost_usd=self.cost_usd(model, reading.usage),
            truncated=is_truncated(reading),
            rehearsed=self.settings.rehearses,
            request_id=reading.request_id,
            content=content,
            container=reading.container,
        )

    async def client_for(self, exchanges: Exchanges, *, plain: bool) -> Any:
        """Return the official client for one attempt of a handler: `AsyncAnthropic`, or `Anthropic` for a plain one.

        It need not be closed. Raises as `open`.
        """
        await self.open()
        if not self._has_sdk:
            await asyncio.to_thread(import_module, f"{__package__}.sdk")
            self._has_sdk = True
        from baton_actors.models import sdk

        make = sdk.plain_client_of if plain else sdk.client_of
        return make(self.settings, self._pool, exchanges)

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """Return the list price of a call; None for a model without a price, 0.0 for a rehearsal."""
        return 0.0 if self.settings.rehearses else cost_usd(model, usage, self._prices)

    async def priced(self, bound: Bound) -> Bound:
        """Return what a call may take, with what that costs. Raises as `open`."""
        await self.open()
        if self.settings.rehearses:
            return replace(bound, cost_usd=0.0, rehearsed=True)
        return replace(bound, cost_usd=bound_usd(bound, self._prices), endless=endless(bound, self._prices))

    async def aclose(self) -> None:
        """Close the connections. Calls under way fail."""
        client, self._client, self._chunks, self._pool = self._client, None, None, None
        if client is not None:
            await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _read(self, request: ModelRequest, reading: Reading, on_chunk: Callable[[str], None] | None) -> str:
        assert self._chunks is not None
        pieces: list[str] = []
        try:
            async with (
                asyncio.timeout(request.timeout_s) as deadline,
                aclosing(self._chunks(request, reading)) as chunks,
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
        return "".join(pieces)

    def _charge(self, error: ModelError, request: ModelRequest, reading: Reading) -> None:
        """Put what was paid on the error. A call that failed before its answer began cost nothing we know of."""
        if reading.begun:
            model, usage = reading.model or request.model, reading.usage
            cost = self.cost_usd(model, usage)
            error.took(usage, cost_usd=cost, model=model, estimated=reading.estimated)

    def _cut(self, cause: BaseException, request: ModelRequest, reading: Reading) -> ModelError:
        cut = ModelError(
            type="cancelled",
            message=f"the call of {request.model} at {self.settings.host} was ended by {type(cause).__name__}",
            retryable=True,
            request_id=reading.request_id,
        )
        self._charge(cut, request, reading)
        return cut
