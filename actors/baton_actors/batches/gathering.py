"""Gathering: takes the model calls of an actor that are to go in batches, until there are so many, or for so long.

A batch that is gathered is one message in the log, which names where its calls are; from then on nobody holds them
(`batches.py` sends it). Who dies between that and the acks has them gathered twice: each goes with the batch that
claims it first, and with no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NamedTuple

import msgspec
import structlog

from baton_actors.models import Models
from baton_actors.steps.plans import Plans
from baton_actors.steps.settlement import Ack, Nak, Settlement, Term, settle
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BusError
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.flow.limits import BATCH_COUNT_MAX
from baton_schemas.run.fits import misplaced
from baton_schemas.show.batching import BatchCall, call_in
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.facts import InBatch
from baton_schemas.wire.messages import Asked, Batch, Handoff, Note
from baton_schemas.wire.names import gatherer_of, sortable_id
from baton_schemas.wire.outcomes import NULL, Blob

SIZE_MAX_BYTES = 128_000_000
"""Half of what the API takes in a batch: it is in our memory when it is sent, more than once."""
_RETRY_S = 2.0
_NEWER_RETRY_S = 10.0
"""For a process of the later release, or of one with a key, to take it."""

logger = structlog.get_logger("baton.batches")


_Key = tuple[bool, str]
"""What goes together: whether it is rehearsed, and whose model it is."""


class _Member(NamedTuple):
    delivery: Delivery
    most: int
    due_s: float
    size_bytes: int


class Gatherer:
    """That of one actor, in one process; those of all processes share a consumer."""

    def __init__(self, engine: Engine, actor: str, in_hand: int, models: Models, plans: Plans, worker: str) -> None:
        """`in_hand` bounds the calls that are held while they are gathered; `worker` is how the log calls us."""
        self._engine, self._bus, self._actor, self._in_hand = engine, engine.bus, actor, in_hand
        self._models, self._plans, self._worker = models, plans, worker
        self._pools: dict[_Key, list[_Member]] = {}
        self._timers: dict[_Key, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Gather while the context is open; what is not in a batch by then is given back."""
        subject = self._bus.subjects.gathered(self._actor)
        name, most = f"batch-{self._actor}", BATCH_COUNT_MAX
        async with self._bus.pulling(name, subject, self._in_hand, self._on_delivery, max_ack_pending=most) as puller:
            try:
                yield
            finally:
                await puller.stop()
                for timer in self._timers.values():
                    timer.cancel()
                while self._tasks:
                    await asyncio.gather(*self._tasks, return_exceptions=True)
                for pool in self._pools.values():
                    for member in pool:
                        with contextlib.suppress(BusError):
                            await member.delivery.nak()
                    pool.clear()

    def _on_delivery(self, delivery: Delivery) -> None:
        self._begin(self._take(delivery))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, delivery: Delivery) -> None:
        try:
            how = await self._what_becomes_of(delivery)
            if how is not None:
                await settle(self._engine, gatherer_of(self._actor), delivery, how)
        except Exception:
            logger.exception("batch.broken", subject=delivery.subject, seq=delivery.seq)
            await delivery.nak(_RETRY_S)

    async def _what_becomes_of(self, delivery: Delivery) -> Settlement | None:
        """Put a call to those that are gathered; return what becomes of one that is not."""
        try:
            child = decode(delivery.data, delivery.subject)
            if not isinstance(child, Handoff):
                raise BadMessage("expected a handoff", delivery.subject)
            call = call_in(child)
            who = gatherer_of(self._actor)
            if wrong := misplaced(child, delivery.subject, lambda: self._bus.subjects.of(who, child)):
                raise BadMessage(wrong, delivery.subject)
            where = self._models.where(child.flow, call.model)
            plan = await self._plans.of(child)
            lacks = self._models.providers.lacks(plan.flow.name, plan.flow.providers, call.model)
            if lacks or (not call.rehearsed and where.settings.rehearses):
                logger.warning("batch.no_key", run=child.run, step=child.step, provider=lacks or where.provider)
                return Nak(_NEWER_RETRY_S)
            if not self._bus.is_fresh(delivery) and await self._is_over(child, call):
                return Ack()
        except BadMessage as error:
            return Term(error.reason)
        except NewerMessage as error:
            logger.warning("message.newer", subject=delivery.subject, error=str(error))
            return Nak(_NEWER_RETRY_S)
        except BusError as error:
            logger.error("bus.refuses", error=str(error), subject=delivery.subject)
            return Nak(_RETRY_S)
        due_s = delivery.stored_at_s + call.seconds
        self._add((call.rehearsed, where.provider), _Member(delivery, call.count, due_s, call.size_bytes))
        return None

    async def _is_over(self, child: Handoff, call: BatchCall) -> bool:
        """Say whether a call is in a batch already, or nobody waits for it any more: then nothing is held for it.

        Raises the errors of the bus.
        """
        subject = self._bus.subjects.note(gatherer_of(self._actor), child.run, child.step, "batch")
        found, ended = await asyncio.gather(self._bus.log.last_sure(subject), self._engine.ended(child.flow, child.run))
        claimed = found is not None and isinstance(found.message, Note) and isinstance(found.message.fact, InBatch)
        if ended is not None and not claimed:
            await give_back(self._engine, self._plans, child, call, self._worker)
        return claimed or ended is not None

    def _add(self, key: _Key, member: _Member) -> None:
        pool = self._pools.setdefault(key, [])
        if pool and sum(each.size_bytes for each in pool) + member.size_bytes > SIZE_MAX_BYTES:
            self._close(key)
            pool = self._pools.setdefault(key, [])
        pool.append(member)
        if len(pool) >= min(each.most for each in pool):
            self._close(key)
            return
        if key in self._timers:
            self._timers[key].cancel()
        wait_s = max(min(each.due_s for each in pool) - self._bus.now_s(), 0.0)
        self._timers[key] = asyncio.get_running_loop().call_later(wait_s, self._close, key)

    def _close(self, key: _Key) -> None:
        pool = self._pools.pop(key, [])
        if key in self._timers:
            self._timers.pop(key).cancel()
        if pool:
            self._begin(self._gather(pool))

    async def _gather(self, members: list[_Member]) -> None:
        """Write a batch, and let go of its calls. While the bus does not let us, they stay ours."""
        batch = f"batch-{sortable_id()}"
        seqs = sorted(member.delivery.seq for member in members)
        while True:
            try:
                # 1. The batch, which has them from now on.
                await write_batch(self._engine, Batch(run=batch, actor=self._actor, count=len(seqs)), seqs)
                break
            except BusError as error:
                logger.error("bus.refuses", error=str(error), batch=batch)
                await asyncio.sleep(_RETRY_S)
        logger.info("batch.gathered", batch=batch, count=len(seqs))
        for member in members:  # 2. The acks.
            try:
                await member.delivery.ack()
            except BusError as error:
                logger.error("bus.refuses", error=str(error), batch=batch)


async def write_batch(engine: Engine, batch: Batch, seqs: list[int]) -> None:
    """Write a batch whose calls are at these sequences; twice changes nothing. Raises the errors of the bus."""
    members = await engine.values.stored(msgspec.json.encode(seqs))
    batch = msgspec.structs.replace(
        batch,
        members=NULL if isinstance(members, Blob) else members,
        blob=members if isinstance(members, Blob) else None,
    )
    await engine.bus.create(engine.bus.subjects.batch(batch.actor, batch.run), encode(batch))


async def give_back(engine: Engine, plans: Plans, child: Handoff, call: BatchCall, worker: str) -> None:
    """Settle what is held for a call, by what the journal of its step has of it; twice changes nothing.

    Raises the errors of the bus.
    """
    cause = child.cause
    if call.held and isinstance(cause, Asked):
        journal = Journal(engine.bus, cause.actor, child.run, cause.step, worker)
        await engine.budgets.mend(await plans.of(child), child.start_seq, child.run, child.step, journal)
