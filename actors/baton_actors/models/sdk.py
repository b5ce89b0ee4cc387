"""The `anthropic` SDK: the only module that imports it. Imported late, by `Models.open`, and for a rehearsal only where
a handler has a client.

Where LLM agents ask, the SDK's own retries are off: they honour any `retry-after` without a cap, hold the step's lease
meanwhile, and nothing of them shows in the log. The worker retries. Clients of handlers are as the SDK makes them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from functools import cache
from typing import Any, TypeVar

import anthropic
import httpx2
from anthropic.types import RawMessageStreamEvent
from opentelemetry import trace

from baton_actors.models.answer_bodies import unanswered
from baton_actors.models.arriving import Arriving
from baton_actors.models.body import body_of
from baton_actors.models.errors import (
    RETRY_AFTER_MAX_S,
    ModelError,
    is_overloaded,
    is_retryable,
    next_step,
    retry_after_s,
)
from baton_actors.models.exchanges import Exchanges
from baton_actors.models.providers import Where
from baton_actors.models.reading import Reading
from baton_actors.models.rehearsal.requests import other_request
from baton_actors.models.sent import RECORDED, Sent, Stopped, Upstream, is_recorded, with_model
from baton_actors.models.spans import MadeCallsOnly, drop
from baton_actors.models.types import DEFAULT_BASE_URL, PLACEHOLDER_KEY, ModelRequest, ModelSettings
from baton_schemas.wire.values import valid_text

_CONNECT_TIMEOUT_S = 10.0
"""A TCP and TLS handshake takes well under a second; ten allow for lost packets, and no more."""

_TIMEOUT = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S)
"""No bound on silence: a model may think for minutes. The call as a whole has one, `timeout_s`."""


_QUOTE_CHARS_MAX = 500
"""Errors go into the log; the error page of some proxy must not, whole."""

Client = anthropic.AsyncAnthropic
Pool = httpx2.AsyncClient
Stream = anthropic.AsyncStream[RawMessageStreamEvent]
T = TypeVar("T")


def make_pool() -> Pool:
    """Make the connections of all clients of a process, with the SDK's own defaults; the caller closes them."""
    return anthropic.DefaultAsyncHttpxClient()


def make_client(settings: ModelSettings, pool: Pool | None = None) -> Client:
    """Make the client for these settings; the caller closes it, and the pool by it. Never asks the environment for
    credentials.

    Raises `ModelError` (`no_credentials`) when a rehearsal was declined and there is nobody to call as.
    """
    settings.check_credentials()
    client = Client(**_whose(settings), max_retries=0, timeout=_TIMEOUT, http_client=pool)
    return client.with_options(open_telemetry={**client.open_telemetry, "propagation": settings.traceparent})


async def chunks(client: Client, where: Where, request: ModelRequest, reading: Reading) -> AsyncGenerator[str, None]:
    """Call the model and yield the text of its answer in chunks, none of them empty; fill `reading`.

    Raises `ModelError` for whatever goes wrong, a stream that ends before the answer does included.
    """
    settings = where.settings
    try:
        stream: Stream = await client.messages.create(**{**body_of(request), "model": where.model}, stream=True)
        async with stream:
            headers = stream.response.headers
            reading.on_headers(headers)
            reading.request_id = headers.get("request-id", "")
            if not headers.get("content-type", "text/event-stream").startswith("text/event-stream"):
                raise ValueError(f"{headers['content-type']} in place of events")
            async for event in stream:
                if text := reading.take(event):
                    yield text
    except anthropic.APIStatusError as error:
        raise _refused(error, settings, request.model, reading, output=bool(request.output)) from error
    except anthropic.APIConnectionError as error:
        raise _unreached(error, settings) from error
    except Exception as error:
        # The SDK lets a cut stream through as httpx2's errors, and bad events as those of json or as
        # whatever reading a missing field raises. All mean the same here: the answer did not arrive.
        raise _broken(_reason(error, settings), settings, reading) from error
    # Whatever its stop reason: without `message_stop` a stream was cut, and what was cut off is unknown.
    if not reading.stop_reason or not reading.whole:
        raise _broken("it ended before the answer did", settings, reading)


@contextlib.contextmanager
def telling(settings: ModelSettings, model: str = "") -> Iterator[None]:
    """Have whatever goes wrong with a request while the context is open be a `ModelError`, whose cause it is."""
    try:
        yield
    except anthropic.APIStatusError as error:
        raise _refused(error, settings, model, Reading()) from error
    except anthropic.APIConnectionError as error:
        raise _unreached(error, settings) from error
    except Exception as error:
        raise _broken(_reason(error, settings), settings, Reading()) from error


def status_of(error: ModelError) -> int:
    """Return with which status a request was answered that came to this; 0 when it was not."""
    return error.__cause__.status_code if isinstance(error.__cause__, anthropic.APIStatusError) else 0


def never_arrived(error: ModelError) -> bool:
    """Say whether a request that came to this was not sent at all: there was no connection."""
    cause = error.__cause__
    return isinstance(cause, anthropic.APIConnectionError) and isinstance(
        cause.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout
    )


def _unreached(error: anthropic.APIConnectionError, settings: ModelSettings) -> ModelError:
    return ModelError(
        type="connection",
        message=f"cannot reach the model API at {settings.host}: {_reason(error.__cause__ or error, settings)}; "
        f"check the network and {settings.address} if this goes on",
        retryable=True,
    )


def _refused(
    error: anthropic.APIStatusError, settings: ModelSettings, model: str, reading: Reading, *, output: bool = False
) -> ModelError:
    """Make the error for a status, or for an `error` event, which comes with the status of its stream."""
    headers = error.response.headers
    reading.on_headers(headers)
    status, kind = error.status_code, settings.hide(str(error.type or f"http_{error.status_code}"))
    retryable = is_retryable(status, kind, headers)
    step = next_step(
        status,
        retryable,
        credential=settings.credential,
        model=model,
        address=settings.address,
        host=settings.host,
        output=output,
    )
    overloaded = is_overloaded(status, kind, headers)
    cap_s = RETRY_AFTER_MAX_S if overloaded else settings.retry_after_max_s
    said = _quote(str(error.api_message or error.message), settings)
    return ModelError(
        type=kind,
        message=f"the model API at {settings.host} answered {status} {kind}: {said.rstrip('.')}; {step}",
        retryable=retryable,
        overloaded=overloaded,
        retry_after_s=retry_after_s(headers, cap_s, time.time()),
        request_id=error.request_id or reading.request_id,
    )


def _reason(error: BaseException, settings: ModelSettings) -> str:
    """Name an error, with its text if it has one: that of a connect timeout is empty."""
    return _quote(f"{type(error).__name__}: {error}".removesuffix(": "), settings)


def _quote(said: str, settings: ModelSettings) -> str:
    """Return what others said as our errors may say it: without secrets, valid, and not too long."""
    return valid_text(settings.hide(said))[:_QUOTE_CHARS_MAX]


def _broken(what: str, settings: ModelSettings, reading: Reading) -> ModelError:
    return ModelError(
        type="broken_answer",
        message=f"the model API at {settings.host} sent a broken stream ({what}); "
        f"check the network and {settings.address} if this goes on",
        retryable=True,
        request_id=reading.request_id,
    )


# ---- clients of handlers ---------------------------------------------------------------------------


def client_of(settings: ModelSettings, exchanges: Exchanges) -> anthropic.AsyncAnthropic:
    """Make the client of one attempt of an async handler. Where calls are rehearsed, none leaves."""
    client = anthropic.DefaultAsyncHttpxClient(transport=_Transport(exchanges))
    return anthropic.AsyncAnthropic(**_whose(settings), http_client=client, open_telemetry=_telemetry(settings))


def plain_client_of(settings: ModelSettings, exchanges: Exchanges) -> anthropic.Anthropic:
    """Make the client of one attempt of a plain handler, for use in any thread but that of the running loop."""
    transport = _PlainTransport(_Transport(exchanges), asyncio.get_running_loop())
    client = anthropic.DefaultHttpxClient(transport=transport)
    return anthropic.Anthropic(**_whose(settings), http_client=client, open_telemetry=_telemetry(settings))


def _whose(settings: ModelSettings) -> dict[str, Any]:
    """Return as whom a client calls, and where. With one of these it does not ask the environment."""
    whose = {"base_url": settings.base_url or DEFAULT_BASE_URL}
    if settings.auth_token and not settings.api_key:
        return {**whose, "auth_token": settings.auth_token}
    key = settings.api_key or PLACEHOLDER_KEY
    if settings.provider:  # the SDK sends keys as tokens
        return {**whose, "api_key": key, "default_headers": {"X-Api-Key": key, "Authorization": anthropic.Omit()}}
    return {**whose, "api_key": key}


def _telemetry(settings: ModelSettings) -> Any:
    """Return what is traced: all that the environment says of a rehearsal is not so, as nobody is called."""
    if settings.rehearses:
        return False
    said = _said_of_telemetry()
    if not said["traces"]["enabled"]:
        return False
    return {**said, "tracer_provider": MadeCallsOnly(), "propagation": settings.traceparent}


@cache
def _said_of_telemetry() -> Any:
    """Return what the environment says of it (`ANTHROPIC_OPEN_TELEMETRY…`), as the SDK reads it."""
    return anthropic.AsyncAnthropic(
        api_key=PLACEHOLDER_KEY, http_client=httpx2.AsyncClient(transport=httpx2.AsyncBaseTransport())
    ).open_telemetry


class _Transport(httpx2.AsyncBaseTransport):
    """Hands what is recorded to the exchanges of an attempt, and lets all else through."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if is_recorded(request.method, request.url.path):
            arriving = await self.exchange(request, await request.aread())
            return httpx2.Response(arriving.status, headers=arriving.headers, stream=_Body(arriving))
        response = await self.other(request, await request.aread() if _is_json(request) else None)
        return httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)

    async def exchange(self, request: httpx2.Request, body: bytes) -> Arriving:
        """Return the answer to a request that is recorded."""
        url, span = request.url, trace.get_current_span()

        async def send(where: Where) -> Upstream:
            response = await self._send(_addressed(request, body, where))
            return Upstream(response.status_code, response.headers, response.aiter_bytes(), response.aclose)

        path = RECORDED + (f"?{url.query.decode()}" if url.query else "")
        return await self._exchanges.send(Sent(path=path, body=body, send=send, on_recalled=lambda: drop(span)))

    async def other(self, request: httpx2.Request, body: bytes | None) -> httpx2.Response:
        """Return the answer to any other request, not yet read: one that names a model goes where that is."""
        where = self._exchanges.where_of(body or b"")
        if where.settings.rehearses:
            status, headers, answer = other_request(request.url.path)
            return httpx2.Response(status, headers=headers, content=answer)
        try:
            where.settings.check_credentials()
        except ModelError as error:
            status, headers, answer = unanswered(error)
            return httpx2.Response(status, headers=headers, content=answer)
        return await self._send(request if body is None else _addressed(request, body, where))

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        pool: Pool = await self._exchanges.pool()
        return await pool.send(request, stream=True, follow_redirects=False)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, arriving: Arriving) -> None:
        self._arriving = arriving

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._arriving.next():
            yield piece

    async def aclose(self) -> None:
        await self._arriving.close()


class _PlainTransport(httpx2.BaseTransport):
    """The same for the threads of plain handlers: the loop does it, and they wait."""

    def __init__(self, transport: _Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        if is_recorded(request.method, request.url.path):
            arriving = self.wait(self._transport.exchange(request, body))
            return httpx2.Response(arriving.status, headers=arriving.headers, stream=_PlainBody(arriving, self))
        response = self.wait(self._transport.other(request, body))
        return httpx2.Response(
            response.status_code, headers=response.headers, stream=_PlainPassed(response.stream, self)
        )

    def wait(self, doing: Coroutine[Any, Any, T]) -> T:
        """Have the loop do something; return what it gives."""
        if asyncio._get_running_loop() is self._loop:
            doing.close()
            raise RuntimeError("this client is for plain functions; in async code use anthropic.AsyncAnthropic")
        try:
            return asyncio.run_coroutine_threadsafe(doing, self._loop).result()
        except concurrent.futures.CancelledError as error:  # the attempt has ended
            raise Stopped from error


class _PlainBody(httpx2.SyncByteStream):
    def __init__(self, arriving: Arriving, transport: _PlainTransport) -> None:
        self._arriving, self._transport = arriving, transport

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._transport.wait(self._arriving.next()):
            yield piece

    def close(self) -> None:
        self._transport.wait(self._arriving.close())


class _PlainPassed(httpx2.SyncByteStream):
    def __init__(self, stream: Any, transport: _PlainTransport) -> None:
        self._stream, self._transport = stream, transport

    def __iter__(self) -> Iterator[bytes]:
        chunks = aiter(self._stream)
        while (chunk := self._transport.wait(_next(chunks))) is not None:
            yield chunk

    def close(self) -> None:
        self._transport.wait(self._stream.aclose())


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


def _is_json(request: httpx2.Request) -> bool:
    return request.headers.get("content-type", "").startswith("application/json")


def _addressed(request: httpx2.Request, body: bytes, where: Where) -> httpx2.Request:
    """Return a request that can be sent, and sent again, from the loop: to where its model is, as whom that knows."""
    url, headers = request.url, request.headers
    if where.provider:
        settings = where.settings
        url = httpx2.URL(settings.base_url.rstrip("/") + _from_version(url))
        headers = httpx2.Headers([pair for pair in headers.multi_items() if pair[0].lower() not in _OF_ITS_CLIENT])
        if settings.auth_token:
            headers["authorization"] = f"Bearer {settings.auth_token}"
        else:
            headers["x-api-key"] = settings.api_key or PLACEHOLDER_KEY
        body = with_model(body, where.model)
    return httpx2.Request(request.method, url, headers=headers, content=body, extensions=request.extensions)


_OF_ITS_CLIENT = frozenset({"x-api-key", "authorization", "host", "content-length", "cookie"})
"""Headers that are for the server which the client was made for, and for no other."""


def _from_version(url: httpx2.URL) -> str:
    """Return the path of a request from `/v1/` on, whatever base it had, with its query."""
    path = url.raw_path.decode()
    return path[max(path.find("/v1/"), 0) :]
