"""Batches of model calls on their way: each is sent once, looked after until it has ended, and its results are given to
the steps that wait for them.

One worker has a batch at a time, by its lease; another goes on where one has died, by the record:
1. Each call is claimed for the batch. One that another batch has claimed is left to that.
2. It is recorded that the batch is about to be sent. 3. It is sent. 4. Its id at the provider is recorded.
5. It is looked at until it has ended. 6. Each result is noted in the journal of its step, and the step is answered.
7. The ack.
The API knows no idempotency for 3. So whoever finds 2 without 4 looks among the provider's batches for ours, by how many
calls it has and what those are called, and sends again only when there is none (decision 16).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from baton_actors.errors import FileRefused
from baton_actors.models import ModelAnswer, ModelError, ModelRequest, Models
from baton_actors.models.batches import NotSent, Out, Provider, answer_in
from baton_actors.models.body import body_of
from baton_actors.models.files import check_contents
from baton_actors.steps.calls import as_fact
from baton_actors.steps.files import StepFiles
from baton_actors.steps.plans import Plans
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BlobMissing, BusError
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.run.asking import answer_to
from baton_schemas.run.batching import LOST, BatchCall, call_in, custom_id, request_in
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.state import known
from baton_schemas.show.asked import Asked
from baton_schemas.wire.codec import decode
from baton_schemas.wire.facts import BatchSending, BatchSent, InBatch, ModelCall, Spent
from baton_schemas.wire.messages import Asked as AskedCause
from baton_schemas.wire.messages import Batch, Handoff, Note
from baton_schemas.wire.names import BATCH, gatherer_of, sender_of, sortable_id
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, Work
from baton_schemas.wire.values import clean_text

from .gatherer import write_batch

IN_HAND = 64
"""Batches that one process looks after at once."""
IN_FLIGHT = 10_000
"""Batches that are out, over all processes."""
_AT_ONCE = 32
"""Results that are written at the same time."""
LOOK_S = (1.0, 60.0)
"""How soon it is looked again how a batch stands: first, and at last. Most end within the hour."""
SEND_MAX_S = 600.0
"""How long sending may take, whatever the steps' own time is."""
_CLOCKS_S = 60.0
"""How far the provider's clock may be from the broker's."""
_RETRY_S = 2.0
_RETRY_MAX_S = 60.0
_NEWER_RETRY_S = 10.0
_ERROR_MAX = 2_000
_SPLITS = frozenset({400, 413, 422})
"""Statuses that say that there is something wrong with a batch, and not with who sends it: one of its calls, mostly."""

logger = structlog.get_logger("baton.batches")


class Member(Struct, frozen=True, kw_only=True):
    """A call in a batch."""

    seq: int
    child: Handoff
    cause: AskedCause
    call: BatchCall

    @property
    def id(self) -> str:
        """What it is called in the batch."""
        return custom_id(self.child.run, self.child.step)


class _Doubtful(Exception):
    """A batch may be there, and nobody can say."""

    def __init__(self, error: ModelError) -> None:
        self.error = error
        super().__init__(str(error))


class Batches:
    """Those of one actor, in one process."""

    def __init__(self, engine: Engine, plans: Plans, models: Models, actor: str, worker: str) -> None:
        """`worker` is how the log calls this process."""
        self._engine, self._bus, self._plans, self._models = engine, engine.bus, plans, models
        self._actor, self._worker = actor, worker
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._files = StepFiles(engine)
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Take batches while the context is open; those that are out then go on elsewhere."""
        subject, name = self._bus.subjects.batch(self._actor, "*"), f"batches-{self._actor}"
        async with self._bus.pulling(name, subject, IN_HAND, self._on_delivery, max_ack_pending=IN_FLIGHT) as puller:
            try:
                yield
            finally:
                await puller.stop()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._take(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, delivery: Delivery) -> None:
        try:
            while True:
                try:
                    await self._do(delivery)
                    await delivery.ack()
                    return
                except BusError as error:
                    logger.error("bus.refuses", error=str(error), subject=delivery.subject, seq=delivery.seq)
                    await asyncio.sleep(_RETRY_S)
        except asyncio.CancelledError:  # at once, to whoever goes on with it
            with contextlib.suppress(BusError):
                await delivery.nak()
            raise
        except BadMessage as error:
            logger.error("batch.rejected", subject=delivery.subject, seq=delivery.seq, reason=str(error))
            await delivery.term()
        except NewerMessage as error:
            logger.warning("message.newer", subject=delivery.subject, error=str(error))
            await delivery.nak(_NEWER_RETRY_S)
        except Exception:
            logger.exception("batch.broken", subject=delivery.subject, seq=delivery.seq)
            await delivery.nak(_NEWER_RETRY_S)

    async def _do(self, delivery: Delivery) -> None:
        batch = decode(delivery.data, delivery.subject)
        if not isinstance(batch, Batch) or self._bus.subjects.batch(self._actor, batch.run) != delivery.subject:
            raise BadMessage("expected a batch, on its own subject", delivery.subject)
        journal = Journal(self._bus, sender_of(self._actor), batch.run, BATCH, self._worker)
        facts = [note.fact for note in await journal.read()]
        sent = next((fact for fact in facts if isinstance(fact, BatchSent)), None)
        sendings = [fact for fact in facts if isinstance(fact, BatchSending)]
        members = await self._members(batch, are_all_needed=bool(sent or sendings))
        if members:
            await _OneBatch(self, batch, delivery.seq, members, journal).do(sent, sendings)

    # ---- 1. whose ------------------------------------------------------------------------------------

    async def _members(self, batch: Batch, *, are_all_needed: bool) -> list[Member]:
        """Return the calls that are claimed for a batch. Raises the errors of the bus, `BlobMissing`."""
        seqs = msgspec.json.decode(await self._engine.values.load(batch.blob or batch.members), type=list[int])
        found = await asyncio.gather(*(self._claimed(batch, seq, are_all_needed) for seq in seqs))
        return [member for member in found if member is not None]

    async def _claimed(self, batch: Batch, seq: int, are_all_needed: bool) -> Member | None:
        async with self._places:
            child = known(await self._bus.log.at_sure(seq))
            if not isinstance(child, Handoff) or not isinstance(child.cause, AskedCause):  # its run was purged
                return None
            try:
                call = call_in(child)
            except BadMessage as error:
                logger.error("batch.rejected", seq=seq, reason=str(error))
                return None
            if not are_all_needed and await self.ended(child):
                return None
            root = batch.root or batch.run
            journal = Journal(self._bus, gatherer_of(self._actor), child.run, child.step, self._worker)
            claim = await journal.write(InBatch(batch=root, actor=self._actor, count=batch.count))
            if not isinstance(claim, InBatch) or claim.batch != root:
                return None
            return Member(seq=seq, child=child, cause=child.cause, call=call)

    async def ended(self, child: Handoff) -> bool:
        """Say whether the run has ended that asked for a call."""
        return await self._engine.ended(child.flow, child.run) is not None

    # ---- 3. what is sent -----------------------------------------------------------------------------

    async def request(self, member: Member) -> ModelRequest:
        """Return what a call asks. Raises `ModelError` for what cannot be asked any more, and the errors of the bus."""
        try:
            data = await self._engine.values.load(request_in(member.child))
            asked = msgspec.json.decode(data, type=Asked)
        except BlobMissing as error:
            raise ModelError(type="request_gone", message=str(error), retryable=False) from error
        fields = {name: getattr(asked, name) for name in Asked.__struct_fields__}
        request = ModelRequest(**fields, timeout_s=member.call.timeout_s)
        try:
            files = {ref.sha256: await self._files.load(ref) for ref in request.refs}
            if files:
                await asyncio.to_thread(check_contents, request, files)
        except FileRefused as error:
            raise ModelError(type="FileRefused", message=str(error), retryable=False) from error
        return replace(request, files=files)

    # ---- 6. what comes of it -------------------------------------------------------------------------

    async def settle(self, batch: str, member: Member, came_to: ModelAnswer | ModelError) -> None:
        """Note what a call brought, and answer the step that waits for it. Doing it twice changes nothing."""
        async with self._places:
            child, cause, call = member.child, member.cause, member.call
            journal = Journal(self._bus, cause.actor, child.run, cause.step, self._worker)
            is_over = await self.ended(child)
            outcome: Outcome = Done()
            if isinstance(came_to, ModelError):
                said = clean_text(str(came_to), _ERROR_MAX)
                error = Error(
                    step=child.step,
                    type=came_to.type,
                    message=said,
                    attempts=call.attempt,
                    request_id=came_to.request_id,
                    retryable=came_to.retryable,
                )
                outcome = Failed(error=error)
                if came_to.usage is not None:
                    await journal.write(_spent(member, f"{came_to.type}: {said}", came_to))
            elif is_over:
                if not came_to.rehearsed:
                    await journal.write(_spent(member, "its run had ended when its batch did", came_to))
            else:
                values = self._engine.values
                fact = await as_fact(values, call.request_sha256, call.attempt, came_to, call.held, batch)
                stored = await journal.write(fact)
                if isinstance(stored, ModelCall) and stored.request_id != fact.request_id and not came_to.rehearsed:
                    await journal.write(_spent(member, "another answer was recorded first", came_to))
            if not is_over:
                await self._engine.asking.answer(cause.actor, answer_to(child, outcome, child.start_seq))
            if call.held:
                plan = await self._plans.of(child)
                await self._engine.budgets.mend(plan, child.start_seq, child.run, child.step, journal)

    @property
    def models(self) -> Models:
        """Who is asked."""
        return self._models

    @property
    def bus(self) -> Any:
        """Where it is recorded."""
        return self._bus

    async def split(self, batch: Batch, members: Sequence[Member]) -> None:
        """Have a batch be two, of half its calls each."""
        root = batch.root or batch.run
        half = len(members) // 2
        for number, part in enumerate((members[:half], members[half:])):
            seqs = [member.seq for member in part]
            made = Batch(run=f"{batch.run}-{number}", actor=self._actor, count=len(seqs), root=root)
            await write_batch(self._engine, made, seqs)


class _OneBatch:
    """One batch in this worker's hands."""

    def __init__(self, batches: Batches, batch: Batch, seq: int, members: list[Member], journal: Journal) -> None:
        """`seq` is where the batch is in the log."""
        self._all, self._bus, self._models = batches, batches.bus, batches.models
        self._batch, self._seq, self._journal = batch, seq, journal
        self._root = batch.root or batch.run
        self._members = {member.id: member for member in members}
        self._open = [*members]
        """Those whose runs have not ended, as far as it was looked."""
        self._requests: dict[str, ModelRequest] = {}

    async def do(self, sent: BatchSent | None, sendings: list[BatchSending]) -> None:
        """Take it to its end. Raises the errors of the bus."""
        await self._read()
        if sent is None:
            try:
                sent = await self._send(sendings)
            except _Doubtful as doubt:
                await self._settle_all(doubt.error)
                return
            if sent is None:
                return
        if sent.rehearsed:
            await self._rehearse()
            return
        provider = await self._models.batches()
        try:
            out = await self._until_ended(provider, sent.id)
            if out is not None and out.has_results:
                async for name, result in provider.results(sent.id):
                    await self._came(name, result)
        except ModelError as error:
            if _is_gone(error):
                logger.warning("batch.lost", batch=self._batch.run, id=sent.id)
            else:  # a stream of results that breaks is read again
                logger.warning("batch.results", batch=self._batch.run, error=str(error))
                await asyncio.sleep(_RETRY_S)
                await self.do(sent, sendings)
                return
        lost = ModelError(type=LOST, message=f"the provider has no results of batch {sent.id} any more", retryable=True)
        await self._settle_all(lost)

    # ---- requests ------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read what is asked; calls that cannot be made any more are settled."""
        for name, member in [*self._members.items()]:
            try:
                self._requests[name] = await self._all.request(member)
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
            answer = answer_in(self._requests[name], result, self._price, rehearsed=member.call.rehearsed)
        except ModelError as error:
            await self._all.settle(self._root, member, error)
        else:
            await self._all.settle(self._root, member, answer)

    def _price(self, model: str, usage: Any) -> float | None:
        return self._models.cost_usd(model, usage, batch=True)

    async def _settle_all(self, error: ModelError) -> None:
        members, self._members = self._members, {}
        await asyncio.gather(*(self._all.settle(self._root, member, error) for member in members.values()))

    # ---- sending -------------------------------------------------------------------------------------

    async def _send(self, sendings: list[BatchSending]) -> BatchSent | None:
        """Send the batch, unless it is there; return its record. None when it was split, or its calls have failed.

        Raises `_Doubtful`, and the errors of the bus.
        """
        if not self._members:
            return None
        if any(member.call.rehearsed for member in self._members.values()):
            return await self._sent("", rehearsed=True)
        provider = await self._models.batches()
        tries = 0
        while True:
            if sendings:
                found = await self._found(provider, sendings)
                if found is not None:
                    return await self._sent(found)
            sending = await self._begin_sending(len(sendings) + 1)
            sendings = [*sendings, sending]
            if not self._is_ours(sending):
                continue  # another worker's: it may be there
            try:
                async with asyncio.timeout(self._send_s):
                    bodies = [(name, body_of(request)) for name, request in self._requests.items()]
                    out = await provider.send([each for each in bodies if each[0] in self._members])
                return await self._sent(out.id)
            except TimeoutError:
                logger.warning("batch.in_doubt", batch=self._batch.run, error="it was not sent in its time")
            except NotSent as failed:
                error = failed.error
                if failed.may_be_there:
                    logger.warning("batch.in_doubt", batch=self._batch.run, error=str(error))
                    continue
                if not (error.overloaded or error.retryable):
                    await self._refused(failed)
                    return None
                # It is sure that it is not there: it is sent again, after a wait that is nobody's attempt.
                sendings = await self._again(sendings)
                wait_s = max(error.retry_after_s or 0.0, min(_RETRY_S * 2.0**tries, _RETRY_MAX_S))
                tries += 1
                logger.warning("batch.waits", batch=self._batch.run, error=str(error), again_in_s=wait_s)
                await asyncio.sleep(wait_s * random.uniform(1.0, 1.2))

    @property
    def _send_s(self) -> float:
        return min(max(member.call.timeout_s for member in self._members.values()), SEND_MAX_S)

    async def _begin_sending(self, number: int) -> BatchSending:
        self._own = sortable_id()
        now_s = self._bus.now_s()
        sending = BatchSending(
            number=number,
            count=len(self._members),
            id=self._own,
            at_s=now_s,
            until_s=now_s + self._send_s + self._bus.settings.lease_s,
        )
        stored = await self._journal.write(sending)
        assert isinstance(stored, BatchSending)
        return stored

    def _is_ours(self, sending: BatchSending) -> bool:
        """Say whether a beginning is ours, and it is not too late to send: others may be looking for it soon."""
        in_time = self._bus.now_s() < sending.at_s + self._bus.settings.lease_s
        return sending.id == self._own and in_time

    async def _again(self, sendings: list[BatchSending]) -> list[BatchSending]:
        """Take it that what was sent last is not there: nobody need look for it now."""
        return [*sendings[:-1], replace(sendings[-1], count=0)]

    async def _sent(self, id: str, *, rehearsed: bool = False) -> BatchSent:
        fact = BatchSent(id=id, count=len(self._members), at_s=self._bus.now_s(), rehearsed=rehearsed)
        stored = await self._journal.write(fact)
        assert isinstance(stored, BatchSent)
        logger.info("batch.sent", batch=self._batch.run, id=stored.id, count=stored.count)
        return stored

    async def _refused(self, failed: NotSent) -> None:
        if failed.status in _SPLITS and len(self._members) > 1:
            logger.warning("batch.split", batch=self._batch.run, error=str(failed.error))
            await self._all.split(self._batch, list(self._members.values()))
        else:
            await self._settle_all(failed.error)

    # ---- in doubt ------------------------------------------------------------------------------------

    async def _found(self, provider: Provider, sendings: list[BatchSending]) -> str | None:
        """Return the provider's id of the batch, if one of these sendings has arrived. Raises `_Doubtful`."""
        doubtful = [sending for sending in sendings if sending.count]
        if not doubtful:
            return None
        await asyncio.sleep(max(doubtful[-1].until_s - self._bus.now_s(), 0.0))
        since_s = min(sending.at_s for sending in doubtful) - _CLOCKS_S
        counts = {sending.count for sending in doubtful}
        tried: set[str] = set()
        wait_s = LOOK_S[0]
        while True:
            try:
                outs = [out async for out in provider.since(since_s) if out.count in counts and out.id not in tried]
                others = await self._of_others()
                waits = False
                for out in outs:
                    if out.id in others:
                        continue
                    if not out.ended:
                        waits = True
                    elif await self._is_in(provider, out):
                        return out.id
                    else:
                        tried.add(out.id)
                if not waits:
                    return None
            except ModelError as error:
                if _is_gone(error) or not error.retryable:
                    raise _Doubtful(_in_doubt(error)) from error
                logger.warning("batch.in_doubt", batch=self._batch.run, error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LOOK_S[1])

    async def _is_in(self, provider: Provider, out: Out) -> bool:
        """Say whether a batch that has ended is ours, by what its calls are called."""
        if not out.has_results:
            return False
        async for name, _ in provider.results(out.id):
            return name in self._requests
        return False

    async def _of_others(self) -> set[str]:
        """Return the batches at the provider of which it is recorded whose they are."""
        pattern = self._bus.subjects.note("*", "*", BATCH, "sent")
        entries = await self._bus.log.matching_sure([pattern], self._seq)
        notes = [entry.message for entry in entries if isinstance(entry.message, Note)]
        return {note.fact.id for note in notes if isinstance(note.fact, BatchSent)}

    # ---- waiting -------------------------------------------------------------------------------------

    async def _until_ended(self, provider: Provider, id: str) -> Out | None:
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
                if _is_gone(error):
                    raise
                logger.warning("batch.waits", batch=self._batch.run, error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LOOK_S[1])

    async def _is_for_nobody(self) -> bool:
        """Say whether all runs have ended that wait for it: looked at one after the other, to the first that has not."""
        while self._open:
            if not await self._all.ended(self._open[-1].child):
                return False
            self._open.pop()
        return True


def _is_gone(error: ModelError) -> bool:
    return error.type == "not_found_error" or error.type == "http_404"


def _errored(said: Any) -> dict[str, Any]:
    return {"type": "errored", "error": said}


def _in_doubt(error: ModelError) -> ModelError:
    return ModelError(
        type="batch_in_doubt",
        message="the batch of this call may have been sent before its worker died, and the provider does not say which "
        f"batches it has ({error}); it is not sent twice: `baton retry` asks again, once you have looked",
        retryable=False,
    )


def _spent(member: Member, reason: str, took: ModelAnswer | ModelError) -> Spent:
    work = Work(
        attempt=member.call.attempt,
        model=took.model,
        request_id=took.request_id,
        usage=took.usage,
        cost_usd=took.cost_usd,
        request_sha256=member.call.request_sha256,
        held=member.call.held,
    )
    return Spent(id=key_of_child(member.child.step), reason=reason, work=work)
