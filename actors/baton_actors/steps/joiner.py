"""Joins: the worker's side of a merger's waiting. Stateless, as all that counts is in the log.

Replies that come while an update of the join record is in flight are taken together in the next one, so a
thousand cost a few writes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import structlog

from baton_actors.steps.ends import Ends
from baton_actors.steps.plans import Plans
from baton_actors.steps.records import Records
from baton_actors.steps.rejects import reject
from baton_bus import Bus
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage
from baton_schemas.flow.graph import Plan
from baton_schemas.run.joins import arrive, closing
from baton_schemas.run.lifecycle import Routed
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import Failed, Join, Reply
from baton_schemas.wire.names import DEADLINE

JOINS_MAX = 1_000
"""Joins whose record and replies are kept in hand: the others are read from the log again."""
IN_HAND_BYTES = 64 * 1024 * 1024
"""Replies kept in hand, so that the merger's own process need not read them again."""

_Key = tuple[str, str]

logger = structlog.get_logger("baton.joiner")


class Joiner:
    """Takes the replies to one merger, keeps their join records, and closes joins."""

    def __init__(
        self,
        bus: Bus,
        actor: str,
        plans: Plans,
        records: Records,
        ends: Ends,
        in_hand: dict[_Key, dict[str, Reply]],
    ) -> None:
        """Replies go into `in_hand` as well, for the handler of this process to find them there."""
        self._bus, self._actor, self._plans, self._records, self._ends = bus, actor, plans, records, ends
        self._waiting: dict[_Key, list[tuple[Delivery, Reply]]] = {}
        self._busy: dict[_Key, asyncio.Task[None]] = {}
        self._joins: OrderedDict[_Key, tuple[Join, int]] = OrderedDict()
        self._in_hand = in_hand
        self._in_hand_bytes: OrderedDict[_Key, int] = OrderedDict()
        self._opening: set[asyncio.Task[None]] = set()

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a reply. It is acked once the join record has it."""
        try:
            reply = decode(delivery.data, delivery.subject)
            if not isinstance(reply, Reply):
                raise BadMessage("expected a reply", delivery.subject)
        except BadMessage as error:
            self._in_background(reject(self._bus, self._actor, delivery, error))
            return
        key = (reply.run, reply.step)
        self._waiting.setdefault(key, []).append((delivery, reply))
        if key not in self._busy:
            self._busy[key] = asyncio.create_task(self._work(key), name=f"join {key}")

    async def stop(self) -> None:
        """Finish the updates under way; replies that are not in a record stay with the broker."""
        await asyncio.gather(*self._busy.values(), *self._opening, return_exceptions=True)

    async def _work(self, key: _Key) -> None:
        try:
            while waiting := self._waiting.pop(key, None):
                try:
                    if waiting := await self._sift(waiting):
                        await self._take(key, waiting)
                except Exception:
                    logger.exception("join.failed", run=key[0], step=key[1])
                    self._joins.pop(key, None)
                    for delivery, _ in waiting:
                        await delivery.nak(1.0)
        finally:
            del self._busy[key]

    async def _sift(self, waiting: list[tuple[Delivery, Reply]]) -> list[tuple[Delivery, Reply]]:
        """Return the replies that routing could have made; each of the others is rejected by itself."""
        good = []
        for delivery, reply in waiting:
            try:
                self._check(await self._plans.of(reply), delivery.subject, reply)
            except BadMessage as error:
                await reject(self._bus, self._actor, delivery, error)
            else:
                good.append((delivery, reply))
        return good

    def _check(self, plan: Plan, subject: str, reply: Reply) -> None:
        step, branch = reply.step, reply.branch
        if step not in plan.joins or plan.actor(step) != self._actor:
            raise BadMessage(f"step {step!r} of flow {plan.flow.name!r} joins nothing here", subject)
        source = plan.name_of(branch)
        if branch != DEADLINE and (
            source not in plan.sources[step] or (branch != source and not plan.step(source).each)
        ):
            raise BadMessage(f"step {step!r} waits for no branch {branch!r}", subject)
        if subject != self._bus.subjects.of(self._actor, reply):
            raise BadMessage(f"the body is the reply of branch {branch!r} of run {reply.run!r}", subject)

    async def _take(self, key: _Key, waiting: list[tuple[Delivery, Reply]]) -> None:
        plan = await self._plans.of(waiting[0][1])
        if not await self._has_ended(plan, key[0], waiting):
            # 1. Record who has arrived, and what a failed branch means for the run.
            join = await self._update(key, plan, waiting)
            fatal = [reply for _, reply in waiting if _ends_run(plan, reply)]
            for reply in fatal:
                await self._records.follow(plan, reply)
            # 2. Close the join when that is enough. The replies stay leased until it is closed.
            if join.closed and not fatal and any(reply.branch in join.arrived for _, reply in waiting):
                await self._records.record(Routed(self._actor, closing(plan, join)))
                if key[1] in plan.timed_joins:
                    await self._bus.timers.cancel(self._actor, *key)
        # 3. Ack.
        for delivery, _ in waiting:
            await delivery.ack()

    async def _has_ended(self, plan: Plan, run: str, waiting: list[tuple[Delivery, Reply]]) -> bool:
        """Say whether the run has ended: then nothing of it may start. A deadline comes when nobody need be there."""
        if run in self._ends:
            return True
        if all(self._bus.is_fresh(delivery) and reply.branch != DEADLINE for delivery, reply in waiting):
            return False
        return await self._bus.log.last(self._bus.subjects.result(plan.flow.name, run)) is not None

    async def _update(self, key: _Key, plan: Plan, waiting: list[tuple[Delivery, Reply]]) -> Join:
        """Bring the join record up to date with these replies, whoever else writes it too."""
        subject = self._bus.subjects.join(self._actor, *key)
        replies = [(delivery.seq, reply) for delivery, reply in waiting]
        known, seq = self._joins.get(key, (None, 0))
        if known is None and any(delivery.delivered > 1 for delivery, _ in waiting):
            known, seq = await self._read(subject)
        conflicts = 0
        while (join := arrive(plan, known, replies)) != known:
            stored = await self._bus.publisher.update(subject, encode(join), seq)
            if stored is not None:
                seq = stored
                break
            await asyncio.sleep(0.005 * min(conflicts, 20))
            conflicts += 1
            known, seq = await self._read(subject)
        self._keep(key, join, seq, waiting)
        return join

    async def _read(self, subject: str) -> tuple[Join | None, int]:
        entry = await self._bus.log.last(subject)
        if entry is None or not isinstance(entry.message, Join):
            return None, 0
        return entry.message, entry.seq

    def _keep(self, key: _Key, join: Join, seq: int, waiting: list[tuple[Delivery, Reply]]) -> None:
        self._joins[key] = (join, seq)
        self._joins.move_to_end(key)
        if len(self._joins) > JOINS_MAX:
            self._joins.popitem(last=False)
        self._in_hand.setdefault(key, {}).update((reply.branch, reply) for _, reply in waiting)
        size = sum(len(delivery.data) for delivery, _ in waiting)
        self._in_hand_bytes[key] = self._in_hand_bytes.get(key, 0) + size
        while len(self._in_hand_bytes) > JOINS_MAX or sum(self._in_hand_bytes.values()) > IN_HAND_BYTES:
            dropped, _ = self._in_hand_bytes.popitem(last=False)
            self._in_hand.pop(dropped, None)

    def _in_background(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)


def _ends_run(plan: Plan, reply: Reply) -> bool:
    return isinstance(reply.outcome, Failed) and plan.on_failed_branch(reply.step, reply.branch) == "fail"
