"""What a step remembers over its attempts: the answers of model calls, recorded before they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from baton_actors.agents.context import Context
from baton_actors.models import ModelAnswer, ModelError
from baton_actors.models.pace import Pace
from baton_actors.models.types import Bound
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BlobMissing, BusError
from baton_schemas.errors import NewerMessage
from baton_schemas.wire.facts import Exchange, ModelCall, Spent, Waits
from baton_schemas.wire.files import File, FileRef
from baton_schemas.wire.messages import Note
from baton_schemas.wire.names import sortable_id
from baton_schemas.wire.outcomes import NULL, Blob, Work

from .exchanges import Recording
from .files import StepFiles
from .not_recorded import NotRecorded
from .tool_records import ToolRecords

T = TypeVar("T")
_AGAIN_S = 2.0
_PROVIDER = "provider"
"""What a step waits for, in its notes."""

logger = structlog.get_logger("baton.worker")


class Memory:
    """The journal of one attempt of one step, as an agent sees it. `notes` are those that earlier attempts left."""

    def __init__(
        self, engine: Engine, journal: Journal, pace: Pace | None, context: Context, notes: Sequence[Note]
    ) -> None:
        """`pace` is the gate of an actor that asks models."""
        self._engine, self._journal, self._pace, self._context = engine, journal, pace, context
        self._files = StepFiles(engine)
        self._calls = {note.fact.request_sha256: note.fact for note in notes if isinstance(note.fact, ModelCall)}
        told = [note.fact.since_s for note in notes if isinstance(note.fact, Waits) and note.fact.what == _PROVIDER]
        self._waits_since_s = min(told, default=0.0)
        self._in_vain: list[ModelError] = []
        self._notes = notes
        self._exchanges: Recording | None = None
        self._tools: ToolRecords | None = None

    @property
    def tools(self) -> ToolRecords:
        """What is recorded of the tools that the step's model calls: few agents have some."""
        if self._tools is None:
            self._tools = ToolRecords(self._engine, self._journal, self._notes)
        return self._tools

    @property
    def _recording(self) -> Recording:
        """The exchanges of a handler's own client: few handlers have one."""
        if self._exchanges is None:
            self._exchanges = Recording(self._engine, self._journal, self._notes)
        return self._exchanges

    async def recall(self, digest: str) -> ModelAnswer | None:
        """Return the recorded answer to a request; None also when its text is gone. Raises `NotRecorded`."""
        call = self._calls.get(digest)
        if call is None:
            return None
        try:
            answer = await self._answer(call)
        except BlobMissing:
            return None
        except BusError as error:
            raise NotRecorded(error) from error
        logger.info("model.recalled", model=call.model)
        return answer

    async def record(self, digest: str, answer: ModelAnswer) -> ModelAnswer:
        """Write an answer into the log; return the one that is recorded, ours or that of whoever asked first.

        It is paid for: while the bus does not take it (the log is full, the server away), it waits and tries again.
        """
        while True:
            try:
                stored = await self._record(digest, answer)
                return answer if stored is None else await self._answer(stored)
            except BlobMissing:
                return answer
            except NewerMessage as error:
                raise NotRecorded(error) from error
            except BusError as error:
                logger.error("model.not_recorded", error=str(error), again_in_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)

    async def _record(self, digest: str, answer: ModelAnswer) -> ModelCall | None:
        """Write an answer into the log; return the one that was there already, if there was one."""
        value = await self._engine.values.stored(msgspec.json.encode(answer.text))
        # Only what a conversation goes on with has content.
        content = await self._engine.values.stored(msgspec.json.encode(answer.content)) if answer.content else NULL
        call = ModelCall(
            request_sha256=digest,
            attempt=self._context.attempt,
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
        )
        stored = await self._journal.write(call)
        return stored if stored is not call and isinstance(stored, ModelCall) else None

    async def recalled(self, digest: str, number: int) -> Exchange | None:
        """Return a recorded exchange of a handler's client, with its body inline. Raises `NotRecorded`."""
        try:
            return await self._recording.recalled(digest, number)
        except BusError as error:
            raise NotRecorded(error) from error

    async def recorded(self, exchange: Exchange) -> Exchange:
        """Write an exchange into the log; return the one that is stored, with its body inline.

        It is paid for: while the bus does not take it (the log is full, the server away), it waits and tries again.
        """
        while True:
            try:
                return await self._recording.recorded(exchange)
            except NewerMessage as error:
                raise NotRecorded(error) from error
            except BusError as error:
                logger.error("model.not_recorded", error=str(error), again_in_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)

    async def load(self, ref: FileRef) -> bytes:
        """Return the bytes of a file. Raises `FileRefused`."""
        return await self._files.load(ref)

    async def keep(self, made: Sequence[File]) -> None:
        """Store the bytes of files that the step made."""
        await self._files.keep(made)

    async def in_turn(self, call: Callable[[], Awaitable[T]], bound: Bound) -> T:
        """Make a model call when the actor may. Raises `ModelError`, `NotRecorded`."""
        if self._pace is None:
            return await call()
        waited_s = self._engine.bus.now_s() - self._waits_since_s if self._waits_since_s else 0.0
        return await self._pace.run(call, waited_s=waited_s, on_wait=self._told_to_wait)

    def spent(self, error: ModelError) -> None:
        """Take what a call that gave no answer was paid all the same; `settle_up` writes it."""
        self._in_vain.append(error)

    @property
    def owes(self) -> bool:
        """Whether there is something that was paid for nothing, and is not written yet."""
        return bool(self._in_vain)

    async def settle_up(self) -> None:
        """Write what was paid for nothing. Raises the errors of `Publisher.create`."""
        while self._in_vain:
            error = self._in_vain.pop()
            if error.usage is not None:
                work = paid_of(error, self._context.attempt)
                await self._journal.write(Spent(id=sortable_id(), reason=f"{error.type}: {error.message}", work=work))

    async def _told_to_wait(self, wait_s: float, error: ModelError | None) -> None:
        try:
            if error is not None:
                self.spent(error)
                await self.settle_up()
            if not self._waits_since_s:
                self._waits_since_s = self._engine.bus.now_s()
                reason = f"the model's provider, which asks for {wait_s:.0f} s"
                attempt = self._context.attempt
                await self._journal.write(
                    Waits(what=_PROVIDER, reason=reason, attempt=attempt, since_s=self._waits_since_s)
                )
        except (BusError, NewerMessage) as refused:
            raise NotRecorded(refused) from refused

    async def _answer(self, call: ModelCall) -> ModelAnswer:
        text = await self._engine.values.load(call.blob or call.text)
        content = await self._engine.values.load(call.content_blob or call.content)
        return ModelAnswer(
            text=msgspec.json.decode(text, type=str),
            model=call.model,
            stop_reason=call.stop_reason,
            container=call.container,
            usage=call.usage,
            cost_usd=call.cost_usd,
            truncated=call.truncated,
            rehearsed=call.rehearsed,
            request_id=call.request_id,
            content=msgspec.json.decode(content, type=list[dict[str, Any]] | None) or [],
        )


def paid_of(error: ModelError, attempt: int) -> Work:
    """Return what a call that failed was paid, as far as its error says."""
    return Work(
        attempt=attempt,
        model=error.model,
        request_id=error.request_id,
        usage=error.usage,
        cost_usd=error.cost_usd,
        request_sha256=error.request_sha256,
    )
