"""A model's answer as the fact that is recorded of it, with what is large beside the log."""

from __future__ import annotations

import msgspec

from baton_actors.models import ModelAnswer
from baton_bus.engine.values import Values
from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.outcomes import NULL, Blob


async def as_fact(
    values: Values, digest: str, attempt: int, answer: ModelAnswer, held: str = "", batch: str = ""
) -> ModelCall:
    """Return what is recorded of an answer. Raises the errors of `Values.stored`."""
    value = await values.stored(msgspec.json.encode(answer.text))
    # Only what a conversation goes on with has content.
    content = await values.stored(msgspec.json.encode(answer.content)) if answer.content else NULL
    return ModelCall(
        request_sha256=digest,
        attempt=attempt,
        text=NULL if isinstance(value, Blob) else value,
        blob=value if isinstance(value, Blob) else None,
        content=NULL if isinstance(content, Blob) else content,
        content_blob=content if isinstance(content, Blob) else None,
        stop_reason=answer.stop_reason if answer.content else "",
        container=answer.container,
        model=answer.model,
        truncated=answer.truncated,
        rehearsed=answer.rehearsed,
        request_id=answer.request_id,
        usage=answer.usage,
        cost_usd=answer.cost_usd,
        held=held,
        batch=batch,
    )
