"""The calls in a batch: which they are, what each asks, and what is written when it has come to something."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from baton_actors.errors import FileRefused
from baton_actors.models import ModelAnswer, ModelError, ModelRequest
from baton_actors.models.files import check_contents
from baton_actors.steps.calls import as_fact
from baton_actors.steps.files import StepFiles
from baton_actors.steps.plans import Plans
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BlobMissing
from baton_schemas.errors import BadMessage
from baton_schemas.run.asking import answer_to
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.state import known
from baton_schemas.show.asked import Asked
from baton_schemas.show.batching import BatchCall, call_in, custom_id, request_in
from baton_schemas.wire.facts import InBatch, ModelCall, Spent
from baton_schemas.wire.messages import Asked as AskedCause
from baton_schemas.wire.messages import Batch, Handoff
from baton_schemas.wire.names import gatherer_of
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, Work
from baton_schemas.wire.values import clean_text

from .gathering import give_back, write_batch

_AT_ONCE = 32
"""Calls that are read, or results that are written, at the same time."""
_ERROR_MAX = 2_000

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


class Members:
    """Finds and settles the calls of one actor's batches."""

    def __init__(self, engine: Engine, plans: Plans, actor: str, worker: str) -> None:
        """`worker` is how the log calls this process."""
        self._engine, self._bus, self._plans = engine, engine.bus, plans
        self._actor, self._worker = actor, worker
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._files = StepFiles(engine)

    async def of(self, batch: Batch, *, is_begun: bool) -> list[Member]:
        """Return the calls that are claimed for a batch; claim them, unless it may have been sent already.

        Those of runs that have ended by then stay out of it. Raises the errors of the bus, `BlobMissing`.
        """
        seqs = msgspec.json.decode(await self._engine.values.load(batch.blob or batch.members), type=list[int])
        found = await asyncio.gather(*(self._claimed(batch, seq, is_begun) for seq in seqs))
        return [member for member in found if member is not None]

    async def _claimed(self, batch: Batch, seq: int, is_begun: bool) -> Member | None:
        async with self._places:
            child = known(await self._bus.log.at_sure(seq))
            if not isinstance(child, Handoff) or not isinstance(child.cause, AskedCause):  # its run was purged
                return None
            try:
                call = call_in(child)
            except BadMessage as error:
                logger.error("batch.rejected", seq=seq, reason=str(error))
                return None
            root = batch.root or batch.run
            journal = Journal(self._bus, gatherer_of(self._actor), child.run, child.step, self._worker)
            if is_begun:  # all that went with it had been claimed: what has no claim stayed out
                facts = [note.fact for note in await journal.read()]
                claim = next((fact for fact in facts if isinstance(fact, InBatch)), None)
            elif await self.ended(child):
                claim = None
            else:
                stored = await journal.write(InBatch(batch=root, actor=self._actor, count=batch.count))
                claim = stored if isinstance(stored, InBatch) else None
            if claim is None:
                await give_back(self._engine, self._plans, child, call, self._worker)
            if claim is None or claim.batch != root:
                return None
            return Member(seq=seq, child=child, cause=child.cause, call=call)

    async def ended(self, child: Handoff) -> bool:
        """Say whether the run has ended that asked for a call."""
        return await self._engine.ended(child.flow, child.run) is not None

    async def request(self, member: Member) -> ModelRequest:
        """Return what a call asks. Raises `ModelError` for what cannot be asked any more, and the errors of the bus."""
        try:
            data = await self._engine.values.load(request_in(member.child))
            asked = msgspec.json.decode(data, type=Asked)
        except BlobMissing as error:
            raise ModelError(type="request_gone", message=str(error), retryable=False) from error
        fields = {name: getattr(asked, name) for name in Asked.__struct_fields__}
        request = ModelRequest(**fields, timeout_s=member.call.timeout_s, flow=member.child.flow)
        try:
            files = {ref.sha256: await self._files.load(ref) for ref in request.refs}
            if files:
                await asyncio.to_thread(check_contents, request, files)
        except FileRefused as error:
            raise ModelError(type="FileRefused", message=str(error), retryable=False) from error
        return replace(request, files=files)

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
                if not came_to.rehearsed and not await _is_recorded(journal, came_to):
                    await journal.write(_spent(member, "its run had ended when its batch did", came_to))
            else:
                values = self._engine.values
                fact = await as_fact(values, call.request_sha256, call.attempt, came_to, call.held, batch)
                stored = await journal.write(fact)
                if isinstance(stored, ModelCall) and stored.request_id != fact.request_id and not came_to.rehearsed:
                    await journal.write(_spent(member, "another answer was recorded first", came_to))
            if not is_over:
                await self._engine.asking.answer(cause.actor, answer_to(child, outcome, child.start_seq))
            await give_back(self._engine, self._plans, child, call, self._worker)

    async def split(self, batch: Batch, members: Sequence[Member]) -> None:
        """Have a batch be two, of half its calls each."""
        root = batch.root or batch.run
        half = len(members) // 2
        for number, part in enumerate((members[:half], members[half:])):
            seqs = [member.seq for member in part]
            made = Batch(run=f"{batch.run}-{number}", actor=self._actor, count=len(seqs), root=root)
            await write_batch(self._engine, made, seqs)


async def _is_recorded(journal: Journal, answer: ModelAnswer) -> bool:
    """Say whether an answer was recorded before, by whoever had the batch then."""
    facts = [note.fact for note in await journal.read()]
    return any(isinstance(fact, ModelCall) and fact.request_id == answer.request_id for fact in facts)


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
