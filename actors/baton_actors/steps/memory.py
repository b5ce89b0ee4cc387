"""What a step remembers over its attempts: the answers of model calls, recorded before they are used."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from baton_actors.agents.kinds import StepTask
from baton_actors.models import ModelAnswer, ModelError, ModelRequest
from baton_actors.models.caching import Prefix
from baton_actors.models.types import Bound
from baton_bus.engine.journal import Journal
from baton_bus.errors import BlobMissing, BusError
from baton_schemas.errors import NewerMessage
from baton_schemas.show.batching import LOST
from baton_schemas.wire.facts import Exchange, ModelCall, Retry, Spent, Waits
from baton_schemas.wire.files import File, FileRef
from baton_schemas.wire.messages import Note
from baton_schemas.wire.names import sortable_id
from baton_schemas.wire.outcomes import Work

from .asking import StepAsks
from .batching import Batching
from .calls import as_fact
from .claim import Claim
from .exchanges import Recording
from .files import StepFiles
from .not_recorded import NotRecorded
from .paying import Paying, held_now
from .shared import Shared
from .tool_records import ToolRecords
from .turns import Turns

T = TypeVar("T")
_AGAIN_S = 2.0
_OVERTAKEN = "another worker recorded another answer first"
_PROVIDER = "provider"
"""What a step waits for, in its notes."""

logger = structlog.get_logger("baton.worker")


class Memory:
    """The journal of one attempt of one step, as an agent sees it. Its parts are made when they are first needed: most
    agents need none of them."""

    def __init__(self, shared: Shared, work: Claim, journal: Journal, task: StepTask, notes: Sequence[Note]) -> None:
        """`notes` are those that earlier attempts left."""
        self._shared, self._engine, self._work, self._journal = shared, shared.engine, work, journal
        self._task, self._notes = task, notes
        self._in_vain: list[Spent] = []
        self._pays: Paying | None = None

    @cached_property
    def tools(self) -> ToolRecords:
        """What is recorded of the tools that the step's model calls."""
        return ToolRecords(self._engine, self._journal, self._notes)

    @cached_property
    def _recording(self) -> Recording:
        """The exchanges of a handler's own client."""
        return Recording(self._engine, self._journal, self._notes)

    @cached_property
    def _files(self) -> StepFiles:
        return StepFiles(self._engine)

    @cached_property
    def _calls(self) -> dict[str, ModelCall]:
        """The answers that are recorded, by what was asked."""
        return {note.fact.request_sha256: note.fact for note in self._notes if isinstance(note.fact, ModelCall)}

    @cached_property
    def _waits_since_s(self) -> float:
        """When the step was first told to wait by a provider; 0 when it was not."""
        waits = [note.fact for note in self._notes if isinstance(note.fact, Waits) and note.fact.what == _PROVIDER]
        return min((fact.since_s for fact in waits), default=0.0)

    @cached_property
    def _turns(self) -> Turns:
        return Turns(self._shared.limiting, self._work, self._attempt, self._notes)

    @property
    def _paying(self) -> Paying:
        if self._pays is None:
            self._pays = Paying(self._engine, self._work, self._work.handoff.step, self._journal)
        return self._pays

    @cached_property
    def _batching(self) -> Batching | None:
        """That of a step whose calls go in batches."""
        work, asks = self._work, self._task.asks
        policy = work.plan.by_batch(work.handoff.step)
        if policy is None or not isinstance(asks, StepAsks):
            return None
        failed = max((note.fact.attempt for note in self._notes if isinstance(note.fact, Retry)), default=0)
        return Batching(self._engine, asks, work, self._attempt, failed, policy, self._paying)

    @property
    def _attempt(self) -> int:
        return self._task.context.attempt

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

    @property
    def by_batch(self) -> bool:
        """Whether model calls are to be made by `batched`."""
        return self._batching is not None

    async def batched(self, request: ModelRequest, digest: str, bound: Bound) -> ModelAnswer:
        """Have a call made in a batch, and return the answer that is recorded.

        Raises `ModelError`, `NotRecorded`, `OverBudget`, `HeldByOthers`, `UnpricedModel`.
        """
        assert self._batching is not None
        await self._batching.ask(request, digest, bound)
        notes = await self._settling(self._journal.read())
        calls = [note.fact for note in notes if isinstance(note.fact, ModelCall)]
        self._calls.update({call.request_sha256: call for call in calls})
        answer = await self.recall(digest)
        if answer is None:
            message = f"what a batch brought of {request.model} is not stored any more"
            raise ModelError(type=LOST, message=message, retryable=True)
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
        hold = held_now()
        held = hold.id if hold is not None else ""
        call = await as_fact(self._engine.values, digest, self._attempt, answer, held)
        if hold is not None:
            self._paying.recording(hold, functools.partial(self._journal.write, call))
        stored = await self._journal.write(call)
        other = stored if isinstance(stored, ModelCall) and not _is_same(stored, call) else None
        if other is not None and not answer.rehearsed:
            self._in_vain.append(self._spent(_OVERTAKEN, _paid_by(call)))
        if hold is not None:
            self._paying.recorded(hold, call.usage, call.cost_usd, is_ours=other is None)
        return other

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
        hold = held_now()
        if hold is not None:
            exchange = replace(exchange, held=hold.id)
            self._paying.recording(hold, functools.partial(self._recording.recorded, exchange))
        while True:
            try:
                stored = await self._recording.recorded(exchange)
                if hold is not None:
                    is_ours = bytes(stored.body) == bytes(exchange.body)
                    self._paying.recorded(hold, exchange.usage, exchange.cost_usd, is_ours=is_ours)
                return stored
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
        """Make a model call when that may be asked, and there is enough to spend. What it records meanwhile is of it.

        Raises `ModelError`, `NotRecorded`, `Later`, `OverBudget`, `HeldByOthers`, `UnpricedModel`.
        """
        if bound.rehearsed:
            return await call()
        waited_s = self._engine.bus.now_s() - self._waits_since_s if self._waits_since_s else 0.0
        try:
            return await self._turns.in_turn(
                lambda: self._paid(call, bound), bound, waited_s=waited_s, on_wait=self._told_to_wait
            )
        except BusError as error:
            raise NotRecorded(error) from error

    def warmed(self, prefix: Prefix) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Wait until a call with this prefix is to be made, within; call what is given when its answer has begun."""
        return self._shared.warming.warmed(prefix)

    async def _paid(self, call: Callable[[], Awaitable[T]], bound: Bound) -> T:
        """Make it with what it may take held: not while it waits, which may be long."""
        hold = await self._settling(self._paying.hold(bound))
        if hold is None:
            return await call()
        with self._paying.making(hold):
            try:
                answer = await call()
            except ModelError as error:
                # It is noted by itself, with what was held for it: neither a retry nor a failure says it again.
                self.spent(error)
                error.usage = error.cost_usd = None
                if error.overloaded:  # it is made again, with a hold of its own
                    await self._settling(self.settle_up())
                    await self._paying.settle(hold)
                raise
        if self.owes:
            await self._settling(self.settle_up())
        await self._paying.settle(hold)
        return answer

    async def _settling(self, writing: Awaitable[T]) -> T:
        """Return what writing gives. Raises `NotRecorded` when the bus does not let us."""
        try:
            return await writing
        except (BusError, NewerMessage) as error:
            raise NotRecorded(error) from error

    def spent(self, error: ModelError) -> None:
        """Take what a call that gave no answer was paid all the same; `settle_up` writes it."""
        if error.usage is not None:
            work = paid_of(error, self._attempt)
            self._in_vain.append(self._spent(f"{error.type}: {error.message}", work))

    def _spent(self, reason: str, work: Work) -> Spent:
        hold = held_now()
        held = hold.id if hold is not None else ""
        return Spent(id=sortable_id(), reason=reason, work=replace(work, held=held))

    @property
    def owes(self) -> bool:
        """Whether there is something that was paid for nothing, and is not written yet."""
        return bool(self._in_vain)

    async def settle_up(self) -> None:
        """Write what was paid for nothing. Raises the errors of `Publisher.create`."""
        while self._in_vain:
            spent = self._in_vain.pop()
            try:
                await self._journal.write(spent)
            except BaseException:
                self._in_vain.append(spent)  # written twice it is there once, by its id
                raise
            self._paying.paid(spent.work.held, spent.work.usage, spent.work.cost_usd)

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing that `close` would do."""
        return not self._in_vain and (self._pays is None or not self._pays.owes)

    async def close(self) -> None:
        """Write what was paid for nothing, and settle what is held. Raises the errors of the bus."""
        if self._in_vain:
            await self.settle_up()
        if self._pays is not None:
            await self._pays.close()

    async def _told_to_wait(self, wait_s: float, error: ModelError | None) -> None:
        try:
            if error is not None:
                self.spent(error)
                await self.settle_up()
            if not self._waits_since_s:
                self._waits_since_s = self._engine.bus.now_s()
                reason = f"the model's provider, which asks for {wait_s:.0f} s"
                attempt = self._attempt
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


def _is_same(stored: ModelCall, call: ModelCall) -> bool:
    """Say whether what is stored is what we wrote: that we were not told so the first time changes nothing."""
    return (stored.request_id, stored.held, stored.blob) == (call.request_id, call.held, call.blob) and bytes(
        stored.text
    ) == bytes(call.text)


def _paid_by(call: ModelCall) -> Work:
    """Return what a call took whose answer nobody uses."""
    return Work(
        attempt=call.attempt,
        model=call.model,
        request_id=call.request_id,
        usage=call.usage,
        cost_usd=call.cost_usd,
        request_sha256=call.request_sha256,
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
