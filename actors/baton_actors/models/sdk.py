"""The `anthropic` SDK: the only module that imports it. Imported late, by `Models.open`, and not for a rehearsal.

The SDK's own retries are off: they honour any `retry-after` without a cap, hold the step's lease meanwhile,
and nothing of them shows in the log. The worker retries.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

import anthropic
import httpx2
from anthropic.types import MessageParam, TextBlockParam, ToolParam

from baton_actors.models.errors import (
    RETRY_AFTER_MAX_S,
    ModelError,
    is_overloaded,
    is_retryable,
    next_step,
    retry_after_s,
)
from baton_actors.models.reading import Reading
from baton_actors.models.types import DEFAULT_BASE_URL, PLACEHOLDER_KEY, ModelRequest, ModelSettings
from baton_schemas.wire.values import valid_text

_CONNECT_TIMEOUT_S = 10.0
"""A TCP and TLS handshake takes well under a second; ten allow for lost packets, and no more."""

_TIMEOUT = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S)
"""No bound on silence: a model may think for minutes. The call as a whole has one, `timeout_s`."""


_QUOTE_CHARS_MAX = 500
"""Errors go into the log; the error page of some proxy must not, whole."""

Client = anthropic.AsyncAnthropic


def make_client(settings: ModelSettings) -> Client:
    """Make the client for these settings; the caller closes it. Never asks the environment for credentials.

    Raises `ModelError` (`no_credentials`) when a rehearsal was declined and there is nobody to call as.
    """
    settings.check_credentials()
    base_url = settings.base_url or DEFAULT_BASE_URL
    if settings.auth_token and not settings.api_key:
        return Client(auth_token=settings.auth_token, base_url=base_url, max_retries=0, timeout=_TIMEOUT)
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
        system = [{"type": "text", "text": valid_text(request.system), "cache_control": {"type": "ephemeral"}}]
    tools: list[ToolParam] = [
        {"name": tool.name, "description": valid_text(tool.description), "input_schema": tool.input_schema}
        for tool in request.tools
    ]
    try:
        stream = await client.messages.create(
            model=valid_text(request.model),
            max_tokens=request.max_tokens,
            system=system or anthropic.omit,
            messages=_messages(request),
            tools=tools or anthropic.omit,
            stream=True,
        )
        async with stream:
            headers = stream.response.headers
            reading.request_id = headers.get("request-id", "")
            if not headers.get("content-type", "text/event-stream").startswith("text/event-stream"):
                raise ValueError(f"{headers['content-type']} in place of events")
            async for event in stream:
                if text := reading.take(event):
                    yield text
    except anthropic.APIStatusError as error:
        raise _refused(error, settings, request, reading) from error
    except anthropic.APIConnectionError as error:
        raise ModelError(
            type="connection",
            message=f"cannot reach the model API at {settings.host}: {_reason(error.__cause__ or error, settings)}; "
            "check the network and ANTHROPIC_BASE_URL if this goes on",
            retryable=True,
        ) from error
    except Exception as error:
        # The SDK lets a cut stream through as httpx2's errors, and bad events as those of json or as
        # whatever reading a missing field raises. All mean the same here: the answer did not arrive.
        raise _broken(_reason(error, settings), settings, reading) from error
    # Whatever its stop reason: without `message_stop` a stream was cut, and what was cut off is unknown.
    if not reading.stop_reason or not reading.whole:
        raise _broken("it ended before the answer did", settings, reading)


def _messages(request: ModelRequest) -> list[MessageParam]:
    """Return what is said: the prompt, and the turns since, up to whose end it is cached, as each asks with all before.

    What is cached is asked for again in seconds, in the next round.
    """
    prompt: MessageParam = {"role": "user", "content": valid_text(request.prompt)}
    turns: list[Any] = [{"role": turn.role, "content": turn.content} for turn in request.turns]
    if turns and turns[-1]["role"] == "user":
        *before, last = turns[-1]["content"]
        turns[-1] = {"role": "user", "content": [*before, {**last, "cache_control": {"type": "ephemeral"}}]}
    return [prompt, *turns]


def _refused(
    error: anthropic.APIStatusError, settings: ModelSettings, request: ModelRequest, reading: Reading
) -> ModelError:
    """Make the error for a status, or for an `error` event, which comes with the status of its stream."""
    headers = error.response.headers
    status, kind = error.status_code, str(error.type or f"http_{error.status_code}")
    retryable = is_retryable(status, kind, headers)
    credential = "ANTHROPIC_API_KEY" if settings.api_key else "ANTHROPIC_AUTH_TOKEN"
    if not settings.api_key and not settings.auth_token:
        credential = "ANTHROPIC_API_KEY (not set)"
    step = next_step(status, retryable, credential=credential, model=request.model, host=settings.host)
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
        "check the network and ANTHROPIC_BASE_URL if this goes on",
        retryable=True,
        request_id=reading.request_id,
    )
