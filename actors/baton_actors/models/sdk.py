"""The `anthropic` SDK: the only module that imports it. Imported late, by `Models.open`.

The SDK's own retries are off: they honour any `retry-after` without a cap, hold the step's lease meanwhile,
and nothing of them shows in the log. The worker retries.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx2
from anthropic.types import RawMessageStreamEvent, TextBlockParam

from baton_actors.models.errors import ModelError, is_retryable, next_step, retry_after_s
from baton_actors.models.rehearsal.transport import RehearsalTransport
from baton_actors.models.types import DEFAULT_BASE_URL, PLACEHOLDER_KEY, ModelRequest, ModelSettings
from baton_schemas.wire.messages import Usage

_CONNECT_TIMEOUT_S = 10.0
"""A TCP and TLS handshake takes well under a second; ten allow for lost packets, and no more."""

_TIMEOUT = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S)
"""No bound on silence: a model may think for minutes. The call as a whole has one, `timeout_s`."""


_QUOTE_CHARS_MAX = 500
"""Errors go into the log; the error page of some proxy must not, whole."""

Client = anthropic.AsyncAnthropic


@dataclass
class Reading:
    """What the stream of one answer has said so far."""

    model: str = ""
    stop_reason: str = ""
    refusal: str = ""
    request_id: str = ""
    usage: Usage = field(default_factory=Usage)

    def take(self, event: RawMessageStreamEvent) -> str:
        """Take one event; return the text that it adds, which may be empty."""
        if event.type == "message_start":
            self.model = event.message.model
            self.usage = _usage(event.message.usage, self.usage)
        elif event.type == "content_block_start" and event.content_block.type == "text":
            return event.content_block.text
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            return event.delta.text
        elif event.type == "message_delta":
            self.stop_reason = event.delta.stop_reason or self.stop_reason
            self.usage = _usage(event.usage, self.usage)
            if event.delta.stop_details is not None:
                self.refusal = event.delta.stop_details.explanation or event.delta.stop_details.category or ""
        return ""


def make_client(settings: ModelSettings) -> Client:
    """Make the client for these settings; the caller closes it. Never asks the environment for credentials.

    Raises `ModelError` (`no_credentials`) when a rehearsal was declined and there is nobody to call as.
    """
    if settings.rehearses:
        http = httpx2.AsyncClient(transport=RehearsalTransport(), trust_env=False)
        # A host that cannot exist (RFC 2606): nothing leaves the process, whatever goes wrong.
        url = "https://rehearsal.invalid"
        return Client(api_key="rehearsal", base_url=url, max_retries=0, timeout=_TIMEOUT, http_client=http)
    base_url = settings.base_url or DEFAULT_BASE_URL
    if settings.auth_token and not settings.api_key:
        return Client(auth_token=settings.auth_token, base_url=base_url, max_retries=0, timeout=_TIMEOUT)
    if not settings.api_key and not settings.base_url:
        raise ModelError(
            type="no_credentials",
            message="no credentials for the model API: set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL for a "
            "server that needs none, or unset BATON_REHEARSE to rehearse without a model",
            retryable=False,
        )
    key = settings.api_key or PLACEHOLDER_KEY
    return Client(api_key=key, base_url=base_url, max_retries=0, timeout=_TIMEOUT)


async def chunks(
    client: Client, settings: ModelSettings, request: ModelRequest, reading: Reading
) -> AsyncGenerator[str, None]:
    """Call the model and yield the text of its answer in chunks, none of them empty; fill `reading`.

    Raises `ModelError` for whatever goes wrong, a stream that ends before the answer does included.
    """
    system: list[TextBlockParam] = []
    if request.system:
        system = [{"type": "text", "text": request.system, "cache_control": {"type": "ephemeral"}}]
    try:
        stream = await client.messages.create(
            model=request.model,
            max_tokens=request.max_tokens,
            system=system or anthropic.omit,
            messages=[{"role": "user", "content": request.prompt}],
            stream=True,
        )
        async with stream:
            reading.request_id = stream.response.headers.get("request-id", "")
            async for event in stream:
                if text := reading.take(event):
                    yield text
    except anthropic.APIStatusError as error:
        raise _refused(error, settings, request) from error
    except anthropic.APIConnectionError as error:
        raise ModelError(
            type="connection",
            message=f"cannot reach the model API at {settings.host}: {_reason(error.__cause__ or error)}; "
            "check the network and ANTHROPIC_BASE_URL if this goes on",
            retryable=True,
        ) from error
    except Exception as error:
        # The SDK lets a cut stream through as httpx2's errors, and bad events as those of json or as
        # whatever reading a missing field raises. All mean the same here: the answer did not arrive.
        raise _broken(_reason(error), settings, reading) from error
    if not reading.stop_reason:
        raise _broken("it ended before the answer did", settings, reading)


def _refused(error: anthropic.APIStatusError, settings: ModelSettings, request: ModelRequest) -> ModelError:
    """Make the error for a status, or for an `error` event, which comes with the status of its stream."""
    headers = error.response.headers
    status, kind = error.status_code, str(error.type or f"http_{error.status_code}")
    retryable = is_retryable(status, kind, headers)
    credential = "ANTHROPIC_API_KEY" if settings.api_key else "ANTHROPIC_AUTH_TOKEN"
    if not settings.api_key and not settings.auth_token:
        credential = "ANTHROPIC_API_KEY (not set)"
    step = next_step(status, retryable, credential=credential, model=request.model, host=settings.host)
    said = str(error.api_message or error.message)[:_QUOTE_CHARS_MAX]
    return ModelError(
        type=kind,
        message=f"the model API at {settings.host} answered {status} {kind}: {said.rstrip('.')}; {step}",
        retryable=retryable,
        retry_after_s=retry_after_s(headers, settings.retry_after_max_s, time.time()),
        request_id=error.request_id or "",
    )


def _reason(error: BaseException) -> str:
    """Name an error, with its text if it has one: that of a connect timeout is empty."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:_QUOTE_CHARS_MAX]


def _broken(what: str, settings: ModelSettings, reading: Reading) -> ModelError:
    return ModelError(
        type="broken_answer",
        message=f"the model API at {settings.host} sent a broken stream ({what}); "
        "check the network and ANTHROPIC_BASE_URL if this goes on",
        retryable=True,
        request_id=reading.request_id,
    )


def _usage(said: Any, before: Usage) -> Usage:
    """Return the counts of an event; each is a running total, and one that is left out stays as it was."""

    def count(name: str, old: int) -> int:
        value = getattr(said, name, None)
        return old if value is None else int(value)

    return Usage(
        input_tokens=count("input_tokens", before.input_tokens),
        output_tokens=count("output_tokens", before.output_tokens),
        cache_read_tokens=count("cache_read_input_tokens", before.cache_read_tokens),
        cache_write_tokens=count("cache_creation_input_tokens", before.cache_write_tokens),
    )
