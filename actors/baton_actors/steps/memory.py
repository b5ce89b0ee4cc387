"""What a step remembers over its attempts: the answers of model calls, recorded before they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import structlog
from msgspec import Raw

from baton_actors.agents.handlers import Context
from baton_actors.models import ModelAnswer, ModelRequest
from baton_bus import Bus
from baton_schemas.wire.messages import NULL, VERSION, Blob, ModelCall, Note

logger = structlog.get_logger("baton.worker")


class Memory:
    """The model calls of one attempt of one step. `notes` are those that earlier attempts left."""

    def __init__(self, bus: Bus, actor: str, worker: str, context: Context, notes: Sequence[Note]) -> None:
        self._bus, self._actor, self._worker, self._context = bus, actor, worker, context
        self._calls = {note.call.request_sha256: note.call for note in notes if note.call is not None}

    async def recall(self, request: ModelRequest) -> ModelAnswer | None:
        """Return the recorded answer to this very request, or None. Raises `BlobMissing`."""
        call = self._calls.get(_digest(request))
        if call is None:
            return None
        text = await self._bus.blobs.get(call.blob) if call.blob is not None else bytes(call.text)
        logger.info("model.recalled", model=call.model)
        return ModelAnswer(
            text=msgspec.json.decode(text, type=str),
            model=call.model,
            stop_reason="",
            usage=call.usage,
            cost_usd=call.cost_usd,
            truncated=call.truncated,
            rehearsed=call.rehearsed,
            request_id=call.request_id,
        )

    async def record(self, request: ModelRequest, answer: ModelAnswer) -> None:
        """Write an answer into the log. While the log is full it waits. Raises the errors of `Publisher.create`."""
        text = msgspec.json.encode(answer.text)
        large = len(text) > self._bus.settings.inline_limit_bytes
        blob: Blob | None = await self._bus.blobs.put(text) if large else None
        call = ModelCall(
            request_sha256=_digest(request),
            text=NULL if large else Raw(text),
            blob=blob,
            model=answer.model,
            truncated=answer.truncated,
            rehearsed=answer.rehearsed,
            request_id=answer.request_id,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
        )
        note = Note(
            v=VERSION,
            run=self._context.run,
            step=self._context.step,
            type="model",
            attempt=self._context.attempt,
            worker=self._worker,
            call=call,
        )
        await self._bus.note(self._actor, note, waits=True)


def _digest(request: ModelRequest) -> str:
    """Return the hash of what is asked: the model, the prompts and `max_tokens`, but not how long we wait."""
    asked = (request.model, request.system, request.prompt, request.max_tokens)
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
