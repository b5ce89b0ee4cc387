"""One batch in a worker's hands: what is recorded of it, waiting for it, and its results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from baton_actors.models import ModelError, ModelRequest, Models
from baton_actors.models.batches import BatchApi, NotSent, Out, answer_in
from baton_actors.models.body import body_of
from baton_actors.models.providers import Where
from baton_bus.engine.journal import Journal
from baton_bus.store.bus import Bus
from baton_schemas.show.batching import LOST
from baton_schemas.wire.facts import BatchSending, BatchSent
from baton_schemas.wire.messages import Batch, Note
from baton_schemas.wire.outcomes import Usage

from .members import Member, Members
from .sending import LOOK_S, Halved, InDoubt, Sending, Sent, is_gone

_RETRY_S = 2.0

logger = structlog.get_logger("baton.batches")


class Record(Struct, frozen=True):
    """What is recorded of a batch."""

    sent: BatchSent | None
    sendings: list[BatchSending]

    @classmethod
    def of(cls, notes: Sequence[Note]) -> Record:
        """Return what its notes say."""
        facts = [note.fact for note in notes]
        sent = next((fact for fact in facts if isinstance(fact, BatchSent)), None)
        return cls(sent, sorted((f for f in facts if isinstance(f, BatchSending)), key=lambda fact: fact.number))

    @property
    def is_begun(self) -> bool:
        """Whether it may have been sent."""
        return self.sent is not None or bool(self.sendings)


class OneBatch:
    """That of one delivery."""

    def __init__(
        self,
        bus: Bus,
        models: Models,
        members: Members,
        batch: Batch,
        seq: int,
        calls: Sequence[Member],
        journal: Journal,
    ) -> None:
        """`seq` is where the batch is in the log, `journal` its own."""
        self._bus, self._models, self._all = bus, models, members
        self._batch, self._seq, self._journal = batch, seq, journal
        self._root = batch.root or batch.run
        self._members = {member.id: member for member in calls}
        """Those that have come to nothing yet."""
        self._open = [*calls]
        """Those whose runs have not ended, as far as it was looked."""
        self._requests: dict[str, ModelRequest] = {}
        self._where = self._where_of(calls[0])
        """Where it goes: all of it to one provider."""

    def _where_of(self, member: Member) -> Where:
        where = self._models.where(member.child.flow, member.call.model)
        # What was gathered without a key is rehearsed, whoever has it now.
        return replace(where, settings=replace(where.settings, rehearse=True)) if member.call.rehearsed else where

    async def do(self, record: Record) -> None:
        """Take it to its end. Raises the errors of the bus."""
        await self._read()
        sent = record.sent or await self._send(record.sendings)
        if sent is None:
            return
        if sent.rehearsed:
            await self._rehearse()
            return
        provider = await self._models.batches(self._where)
        while True:
            try:
                out = await self._until_ended(provider, sent.id)
                if out.has_results:
                    async for name, result in provider.results(sent.id):
                        await self._came(name, result)
                break
            except ModelError as error:
                if is_gone(error):
                    break
                logger.warning("batch.waits", batch=self._batch.run, error=str(error))
                await asyncio.sleep(_RETRY_S)
        if self._members:
            logger.warning("batch.lost", batch=self._batch.run, id=sent.id, count=len(self._members))
            lost = f"the provider has no result of it any more in {sent.id}, the batch that it was sent in"
            await self._settle_all(ModelError(type=LOST, message=lost, retryable=True))

    # ---- sending -------------------------------------------------------------------------------------

    async def _send(self, sendings: list[BatchSending]) -> BatchSent | None:
        """Send it, unless it is there; return its record. None when it was split, or its calls have failed."""
        if not self._members:
            return None
        if any(member.call.rehearsed for member in self._members.values()):
            return await self._sent(Sent("", len(self._members)), rehearsed=True)
        provider = await self._models.batches(self._where)
        timeout_s = max(member.call.timeout_s for member in self._members.values())
        sending = Sending(self._bus, provider, self._batch.run, self._seq, self._journal, timeout_s)
        try:
            return await self._sent(await sending.send(self._requests, sendings))
        except InDoubt as doubt:
            await self._settle_all(doubt.error)
        except Halved:
            await self._all.split(self._batch, list(self._members.values()))
        except NotSent as refused:
            await self._settle_all(refused.error)
        return None

    async def _sent(self, sent: Sent, *, rehearsed: bool = False) -> BatchSent:
        fact = BatchSent(id=sent.id, count=sent.size, at_s=self._bus.now_s(), rehearsed=rehearsed)
        stored = await self._journal.write(fact)
        assert isinstance(stored, BatchSent)
        logger.info("batch.sent", batch=self._batch.run, id=stored.id, count=stored.count)
        return stored

    # ---- requests ------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read what is asked; calls that cannot be made any more are settled."""
        for name, member in [*self._members.items()]:
            try:
                request = await self._all.request(member)
                self._requests[name] = replace(request, model=self._where_of(member).model)
            except ModelError as error:
                del self._members[name]
                await self._all.settle(self._root, member, error)

    async def _rehearse(self) -> None:
        from baton_actors.models.rehearsal.requests import rehearsed

        for name, request in [*self._requests.items()]:
            body = msgspec.json.encode(body_of(request))
            status, _, answer = await asyncio.to_thread(rehearsed, body)
            said = msgspec.json.decode(answer)
            await self._came(name, {"type": "succeeded", "message": said} if status < 400 else _errored(said))

    # ---- results -------------------------------------------------------------------------------------

    async def _came(self, name: str, result: Mapping[str, Any]) -> None:
        """Take a result; one that is not ours, or came before, is passed over."""
        member = self._members.pop(name, None)
        if member is None:
            return
        try:
            answer = answer_in(self._requests[name], result, self._where_of(member), self._price)
        except ModelError as error:
            await self._all.settle(self._root, member, error)
        else:
            await self._all.settle(self._root, member, answer)

    def _price(self, where: Where, model: str, usage: Usage) -> float | None:
        return self._models.cost_usd(where, model, usage, batch=True)

    async def _settle_all(self, error: ModelError) -> None:
        members, self._members = self._members, {}
        await asyncio.gather(*(self._all.settle(self._root, member, error) for member in members.values()))

    # ---- waiting -------------------------------------------------------------------------------------

    async def _until_ended(self, provider: BatchApi, id: str) -> Out:
        """Wait until a batch has ended, and return how it stands. Raises `ModelError` when the provider has none."""
        wait_s, is_cancelled = LOOK_S[0], False
        while True:
            try:
                out = await provider.look(id)
                if out.ended:
                    return out
                if not is_cancelled and await self._is_for_nobody():
                    logger.info("batch.cancelled", batch=self._batch.run, id=id)
                    await provider.cancel(id)
                    is_cancelled = True
            except ModelError as error:
                if is_gone(error):
                    raise
                logger.warning("batch.waits", batch=self._batch.run, error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LOOK_S[1])

    async def _is_for_nobody(self) -> bool:
        """Say whether all runs have ended that wait for it; it is looked as far as the first that has not."""
        while self._open:
            if not await self._all.ended(self._open[-1].child):
                return False
            self._open.pop()
        return True


def _errored(said: Any) -> dict[str, Any]:
    return {"type": "errored", "error": said}
