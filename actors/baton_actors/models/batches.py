"""Batches of model calls, as a provider has them; and what each result in one means. Pure but for the interface.

https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from baton_actors.models.answers import check_answer, is_truncated
from baton_actors.models.errors import ModelError, is_retryable
from baton_actors.models.events import as_object, valid
from baton_actors.models.heard import error_type
from baton_actors.models.providers import Where
from baton_actors.models.reading import Reading
from baton_actors.models.texts import without_secrets
from baton_actors.models.types import ModelAnswer, ModelRequest
from baton_schemas.wire.outcomes import Usage
from baton_schemas.wire.values import clean_text, valid_text

Body = Mapping[str, Any]
Price = Callable[[Where, str, Usage], float | None]
"""What a call costs that a model answered."""
_SAID_MAX = 500


class Out(Struct, frozen=True, kw_only=True):
    """A batch as the provider says it stands."""

    id: str
    count: int
    ended: bool
    created_at_s: float
    """In seconds of Unix time by the provider's clock."""
    has_results: bool = True
    """False where they are gone: they are kept for some weeks."""


class NotSent(Exception):
    """A batch could not be sent; `may_be_there` says whether the provider may have it all the same."""

    def __init__(self, error: ModelError, *, status: int = 0, may_be_there: bool = False) -> None:
        """`status` is the answer's; 0 for none."""
        self.error, self.status, self.may_be_there = error, status, may_be_there
        super().__init__(str(error))


class BatchApi(Protocol):
    """The batches of one provider. All raise `ModelError` besides what is said."""

    async def send(self, bodies: Sequence[tuple[str, Body]]) -> Out:
        """Send requests, each with its custom id. Raises `NotSent` only."""

    async def look(self, batch: str) -> Out:
        """Return how a batch stands."""

    def results(self, batch: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield what a batch that has ended came to, by custom id, in no order."""

    def since(self, at_s: float) -> AsyncIterator[Out]:
        """Yield the batches that were made since, the newest first."""

    async def cancel(self, batch: str) -> None:
        """Have the provider do no more of a batch; it ends then."""


def answer_in(request: ModelRequest, result: Mapping[str, Any], where: Where, price: Price) -> ModelAnswer:
    """Return the answer in a result of a batch. Raises `ModelError`, as the call would have live, with its cost."""
    match result.get("type"):
        case "succeeded":
            return _answer(request, result.get("message"), where, price)
        case "errored":
            error = result.get("error")
            type = valid_text(error_type(error))
            inner = error.get("error") if isinstance(error, Mapping) else None
            said = str(inner.get("message") or "") if isinstance(inner, Mapping) else ""
            said = clean_text(without_secrets(said, ()), _SAID_MAX).rstrip(".")
            raise ModelError(
                type=type,
                message=f"{request.model} answered {type} in a batch: {said}",
                retryable=is_retryable(200, type, {}),
            )
        case "expired":
            raise ModelError(
                type="batch_expired",
                message=f"the provider did not get to this call of {request.model} in a day; it was not paid for",
                retryable=True,
            )
        case "canceled":
            raise ModelError(
                type="batch_canceled",
                message=f"somebody has cancelled the batch of this call of {request.model} at the provider",
                retryable=True,
            )
        case other:
            found = valid_text(str(other))[:_SAID_MAX]
            raise ModelError(
                type="broken_answer",
                message=f"a batch has a result of {request.model} that is no answer ({found})",
                retryable=True,
            )


def _answer(request: ModelRequest, message: Any, where: Where, price: Price) -> ModelAnswer:
    reading, text = Reading(), ""
    content: list[dict[str, Any]] = []
    try:
        message = valid(message)
        reading.take(as_object({"type": "message_start", "message": message}))
        for block in message["content"]:
            reading.thought |= block.get("type") in ("thinking", "redacted_thinking")
        text = "".join(block["text"] for block in message["content"] if block.get("type") == "text")
        delta = {key: message.get(key) for key in ("stop_reason", "stop_details", "container")}
        reading.take(as_object({"type": "message_delta", "delta": delta, "usage": message["usage"]}))
        reading.take(as_object({"type": "message_stop"}))
        content = list(message["content"]) if request.converses else []
    except Exception as error:  # whatever reading a missing field raises
        broken = ModelError(
            type="broken_answer",
            message=f"a batch has an answer of {request.model} that cannot be read ({type(error).__name__})",
            retryable=True,
        )
        raise _charged(broken, where, reading, price) from error
    model = reading.model or where.model
    try:
        check_answer(request, reading, text, content)
    except ModelError as error:
        raise _charged(error, where, reading, price) from None
    return ModelAnswer(
        text=clean_text(text, len(text)),
        model=where.named(model),
        stop_reason=reading.stop_reason,
        usage=reading.usage,
        cost_usd=price(where, model, reading.usage),
        truncated=is_truncated(reading),
        rehearsed=where.settings.rehearses,
        request_id=valid_text(str(message.get("id") or ""))[:100],
        content=content,
        container=reading.container,
    )


def _charged(error: ModelError, where: Where, reading: Reading, price: Price) -> ModelError:
    if reading.begun:
        model, usage = reading.model or where.model, reading.usage
        error.took(usage, cost_usd=price(where, model, usage), model=where.named(model), estimated=reading.estimated)
    return error
