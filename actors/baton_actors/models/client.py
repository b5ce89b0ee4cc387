"""Calls a model and waits for its whole answer. One `Models` per process, shared by all its actors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from importlib import import_module
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace

from baton_actors.models.answers import check_answer, is_truncated
from baton_actors.models.errors import ModelError
from baton_actors.models.prices import Prices, bound_usd, cost_usd, endless, load_prices
from baton_actors.models.providers import Providers, Where
from baton_actors.models.reading import Reading
from baton_actors.models.types import Bound, ModelAnswer, ModelRequest, ModelSettings
from baton_schemas.wire.outcomes import Usage

if TYPE_CHECKING:
    from baton_actors.models.batches import BatchApi
    from baton_actors.models.exchanges import Exchanges
    from baton_actors.models.sdk import Client, Pool

Listener = Callable[[str, Mapping[str, str]], None]
"""Hears the model and the headers of an answer."""


class Models:
    """The way to all models, with one pool of connections. Close it, or use it with `async with`."""

    def __init__(self, settings: ModelSettings, environ: Mapping[str, str] | None = None) -> None:
        """`environ` has the keys of providers; by default that of the process."""
        self.settings = settings
        self.providers = Providers(settings, environ)
        self._clients: dict[ModelSettings, Client] = {}
        self._pool: Pool | None = None
        self._prices = Prices()
        self._is_open = False
        self._opening = asyncio.Lock()
        self._listening: list[Listener] = []

    async def open(self) -> None:
        """Import the SDK and make the client, unless calls are rehearsed. The first call does it too; ahead of it, this
        saves a second.

        Raises `ModelError` (`bad_setting`, `no_credentials`): before any call is made, and paid.
        """
        async with self._opening:
            if self._is_open:
                return
            self._prices = load_prices(self.settings.prices_path)
            if self.settings.rehearses:
                pass
            else:
                if not self.providers:  # else whoever asks the one that the environment names is told
                    self.settings.check_credentials()
                await self._with_sdk()
            self._is_open = True

    def where(self, flow: str, model: str) -> Where:
        """Return where a model is asked that a flow names."""
        return self.providers.where(flow, model)

    def listen(self, heard: Listener) -> None:
        """Call `heard` with the model and the headers of each answer, once they are there."""
        self._listening.append(heard)

    def leave(self, heard: Listener) -> None:
        """Call it no more."""
        self._listening.remove(heard)

    def heard(self, model: str, headers: Mapping[str, str]) -> None:
        """Tell who listens of the headers of an answer."""
        for heard in self._listening:
            heard(model, headers)

    async def pool(self) -> Pool:
        """Return the connections of all clients."""
        return (await self._with_sdk())[1]

    async def complete(
        self,
        request: ModelRequest,
        on_chunk: Callable[[str], None] | None = None,
        on_cut: Callable[[ModelError], None] | None = None,
        on_begun: Callable[[], None] = lambda: None,
    ) -> ModelAnswer:
        """Return the model's whole answer; `on_chunk` gets its text piece by piece as it comes, once `on_begun` was
        called.

        Raises `ModelError`, with what the call took; never tries twice. What counts as an answer says
        `answers.py`. What `on_chunk` raises ends the call and is raised as it is. When that or a cancellation
        ends a call whose answer had begun, `on_cut` is told by a `ModelError` (`cancelled`) what it took.
        """
        await self.open()
        where = self.where(request.flow, request.model)
        where.settings.check_credentials()
        name = where.named(where.model)
        reading = Reading(
            with_content=request.converses,
            on_headers=lambda headers: self.heard(name, headers),
            on_begun=on_begun,
        )
        try:
            text = await self._read(where, request, reading, on_chunk)
            content = reading.content.blocks() if reading.content is not None else []
            check_answer(request, reading, text, content)
        except ModelError as error:
            self._charge(error, where, reading)
            raise
        except BaseException as error:
            if on_cut is not None and reading.begun:
                on_cut(self._cut(error, where, reading))
            raise
        model = reading.model or where.model
        return ModelAnswer(
            text=text,
            model=where.named(model),
            stop_reason=reading.stop_reason,
            usage=reading.usage,
            cost_usd=self.cost_usd(where, model, reading.usage),
            truncated=is_truncated(reading),
            rehearsed=where.settings.rehearses,
            request_id=reading.request_id,
            content=content,
            container=reading.container,
        )

    async def client_for(self, exchanges: Exchanges, *, plain: bool) -> Any:
        """Return the official client for one attempt of a handler: `AsyncAnthropic`, or `Anthropic` for a plain one.

        It need not be closed. Raises as `open`.
        """
        await self.open()
        sdk, _ = await self._with_sdk()
        make = sdk.plain_client_of if plain else sdk.client_of
        return make(self.settings, exchanges)

    async def batches(self, where: Where) -> BatchApi:
        """Return the way to a provider's batches, where calls are not rehearsed. Raises `ModelError`."""
        await self.open()
        where.settings.check_credentials()
        sdk, pool = await self._with_sdk()
        from baton_actors.models.batch_api import SdkBatches

        client = self._clients.get(where.settings)
        if client is None:
            client = self._clients[where.settings] = sdk.make_client(where.settings, pool)
        return SdkBatches(client, where.settings)

    def cost_usd(self, where: Where, model: str, usage: Usage, *, batch: bool = False) -> float | None:
        """Return the list price of a call that `model` answered; None without a price, 0.0 for a rehearsal.

        A provider's models are priced by their names with it: what others sell a model for, this one need not.
        """
        if where.settings.rehearses:
            return 0.0
        named = cost_usd(where.named(model), usage, self._prices, batch=batch)
        if named is None and where.provider:
            return cost_usd(where.named(where.model), usage, self._prices, batch=batch)
        return named

    async def priced(self, bound: Bound, where: Where, *, batch: bool = False) -> Bound:
        """Return what a call may take, with what that costs. Raises as `open`."""
        await self.open()
        if where.settings.rehearses:
            return replace(bound, cost_usd=0.0, rehearsed=True)
        usd = bound_usd(bound, self._prices, batch=batch)
        return replace(bound, cost_usd=usd, endless=endless(bound, self._prices))

    async def aclose(self) -> None:
        """Close the connections. Calls under way fail."""
        pool, self._pool, self._is_open = self._pool, None, False
        self._clients = {}
        if pool is not None:
            await pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _with_sdk(self) -> tuple[ModuleType, Pool]:
        # In a thread, as the import takes longer than a second and leases must be kept meanwhile.
        await asyncio.to_thread(import_module, f"{__package__}.sdk")
        from baton_actors.models import sdk

        if self._pool is None:
            self._pool = sdk.make_pool()
        return sdk, self._pool

    async def _chunks(self, where: Where, request: ModelRequest, reading: Reading) -> AsyncGenerator[str, None]:
        """Return what yields the text of the answer in chunks: of a model, or of a rehearsal; see `sdk.chunks`."""
        if where.settings.rehearses:
            from baton_actors.models.rehearsal import model

            return model.chunks(request, reading)
        sdk, pool = await self._with_sdk()
        client = self._clients.get(where.settings)
        if client is None:
            client = self._clients[where.settings] = sdk.make_client(where.settings, pool)
        made: AsyncGenerator[str, None] = sdk.chunks(client, where, request, reading)
        return made

    async def _read(
        self, where: Where, request: ModelRequest, reading: Reading, on_chunk: Callable[[str], None] | None
    ) -> str:
        pieces: list[str] = []
        chunks = await self._chunks(where, request, reading)
        try:
            async with asyncio.timeout(request.timeout_s) as deadline, aclosing(chunks):
                async for chunk in chunks:
                    pieces.append(chunk)
                    if on_chunk is not None:
                        on_chunk(chunk)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ModelError(
                type="timeout",
                message=f"{request.model} at {where.settings.host} did not finish within "
                f"{request.timeout_s:g} s; raise timeout_s or lower max_tokens if this goes on",
                retryable=True,
                request_id=reading.request_id,
            ) from error
        return "".join(pieces)

    def _charge(self, error: ModelError, where: Where, reading: Reading) -> None:
        """Put what was paid on the error. A call that failed before its answer began cost nothing we know of."""
        if reading.begun:
            model, usage = reading.model or where.model, reading.usage
            cost = self.cost_usd(where, model, usage)
            error.took(usage, cost_usd=cost, model=where.named(model), estimated=reading.estimated)

    def _cut(self, cause: BaseException, where: Where, reading: Reading) -> ModelError:
        cut = ModelError(
            type="cancelled",
            message=f"the call of {where.named(where.model)} at {where.settings.host} was ended by "
            f"{type(cause).__name__}",
            retryable=True,
            request_id=reading.request_id,
        )
        self._charge(cut, where, reading)
        return cut
