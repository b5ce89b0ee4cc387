"""Joins: the worker's side of a merger's waiting. Stateless, as all that counts is in the log.

Who has arrived is a chain of records, each created where none is yet. Replies that come while a link is written are
taken together in the next one; and while many are missing and few come, a link waits a moment for more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any

import structlog

from baton_actors.errors import ActorError
from baton_bus.engine.engine import Engine
from baton_bus.errors import BusError
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.flow.graph import Plan
from baton_schemas.run.joins import Chain
from baton_schemas.run.lifecycle import Gathered
from baton_schemas.run.refs import replied
from baton_schemas.run.state import Entry, known
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import Join, Reply
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Failed

from .claim import plan_of
from .ends import Ends
from .plans import Plans
from .settlement import Nak, Settlement, Term, settle

JOINS_MAX = 1_000
"""Joins whose chain and replies are kept in hand: the others are read from the log again."""
IN_HAND_BYTES = 64 * 1024 * 1024
"""Replies kept in hand, so that the merger's own process need not read them again."""
GATHER_S = 0.02
"""How long a link waits for more branches: nothing beside what brings them, when they come one by one."""
GATHER_FROM = 16
"""It waits only while more than so many are missing."""
NEWER_RETRY_S = 10.0
"""A message of a later release is given back for so long: for a worker that can read it."""
_BROKEN_RETRY_S = 1.0
_LAGS_S = 0.05
"""When a link is there that was not found: a leader that was paused answers from what it had, until it hears better."""

_Key = tuple[str, str]
_Waiting = list[tuple[Delivery, Reply]]

logger = structlog.get_logger("baton.joiner")


class UnreadableLink(ActorError):
    """A link of a join's chain is none: something else was written in its place. Its run is ended."""

    def __init__(self, subject: str, seq: int) -> None:
        """Where it is in the log."""
        self.subject, self.seq = subject, seq
        super().__init__(
            f"the message at sequence {seq} on {subject} is no link of the join: somebody else wrote there. "
            "See who may publish into the log (deploy/users.conf), then `baton retry` the run."
        )


class Joiner:
    """Takes the replies to one merger, keeps their chains, and closes joins."""

    def __init__(self, engine: Engine, actor: str, plans: Plans, ends: Ends) -> None:
        self._engine, self._actor, self._plans, self._ends = engine, actor, plans, ends
        self._waiting: dict[_Key, _Waiting] = {}
        self._came: dict[_Key, asyncio.Event] = {}
        self._busy: dict[_Key, asyncio.Task[None]] = {}
        self._chains: OrderedDict[_Key, Chain] = OrderedDict()
        self._in_hand_bytes: OrderedDict[_Key, int] = OrderedDict()
        self._opening: set[asyncio.Task[None]] = set()
        self.in_hand: dict[_Key, dict[str, Reply]] = {}
        """Replies by join and branch, for the handler of this process to find them."""

    def on_delivery(self, delivery: Delivery) -> None:
        """Take a reply. It is acked once the chain has it."""
        try:
            reply = decode(delivery.data, delivery.subject)
            if not isinstance(reply, Reply):
                raise BadMessage("expected a reply", delivery.subject)
        except BadMessage as error:
            self._in_background(self._settle(delivery, Term(error.reason)))
            return
        except NewerMessage as error:
            logger.warning("message.newer", subject=delivery.subject, error=str(error))
            self._in_background(self._settle(delivery, Nak(NEWER_RETRY_S)))
            return
        key = (reply.run, reply.step)
        self._waiting.setdefault(key, []).append((delivery, reply))
        if key not in self._busy:
            self._busy[key] = asyncio.create_task(self._work(key), name=f"join {key}")
        elif key in self._came:
            self._came[key].set()

    async def stop(self) -> None:
        """Finish the links under way; replies that are in none stay with the broker."""
        await asyncio.gather(*self._busy.values(), *self._opening, return_exceptions=True)

    async def _work(self, key: _Key) -> None:
        try:
            while waiting := self._waiting.pop(key, None):
                try:
                    plan, good = await self._sift(waiting)
                    if plan is not None and good:
                        await self._take(key, plan, good)
                        await self._gather(key, len(good))
                except UnreadableLink as error:
                    logger.error("join.broken", error=str(error), run=key[0], step=key[1])
                    await self._fail(key, waiting, error)
                except NewerMessage as error:
                    logger.warning("message.newer", error=str(error), run=key[0], step=key[1])
                    await self._give_back(key, waiting, NEWER_RETRY_S)
                except BusError as error:
                    logger.error("bus.refuses", error=str(error), run=key[0], step=key[1])
                    await self._give_back(key, waiting)
                except Exception:
                    logger.exception("join.failed", run=key[0], step=key[1])
                    await self._give_back(key, waiting)
        finally:
            del self._busy[key]

    async def _fail(self, key: _Key, waiting: _Waiting, error: UnreadableLink) -> None:
        """End a run whose join cannot close, rather than wait for ever."""
        reply = waiting[0][1]
        try:
            await self._engine.fail(await self._plans.of(reply), reply.run, reply.step, error, reply.start_seq)
        except Exception:
            logger.exception("join.failed", run=key[0], step=key[1])
            await self._give_back(key, waiting)
            return
        for delivery, _ in waiting:
            await delivery.ack()

    async def _give_back(self, key: _Key, waiting: _Waiting, delay_s: float = _BROKEN_RETRY_S) -> None:
        self._chains.pop(key, None)
        for delivery, _ in waiting:
            await delivery.nak(delay_s)

    async def _sift(self, waiting: _Waiting) -> tuple[Plan | None, _Waiting]:
        """Return the replies that the lifecycle could have written; each of the others is rejected by itself."""
        good: _Waiting = []
        plan: Plan | None = None
        for delivery, reply in waiting:
            try:
                plan = await plan_of(self._engine, self._plans, delivery, reply)
            except BadMessage as error:
                await self._settle(delivery, Term(error.reason))
            else:
                good.append((delivery, reply))
        return plan, good

    async def _take(self, key: _Key, plan: Plan, waiting: _Waiting) -> None:
        await self._ends.hear(plan)
        if not await self._has_ended(plan, key[0], waiting):
            # 1. Record who has arrived, and what a failed branch means for the run.
            chain = await self._record(key, plan, waiting)
            fatal = next((reply for _, reply in waiting if _ends_run(plan, reply)), None)
            if fatal is not None:  # a run ends once, by whichever of them
                await self._engine.derive(plan, fatal)
            # 2. Close the join when that is enough. The replies stay leased until it is closed.
            if chain.closed and fatal is None and any(chain.has(reply) for _, reply in waiting):
                await self._engine.apply(plan, Gathered(chain))
        # 3. Ack.
        for delivery, _ in waiting:
            await delivery.ack()

    async def _has_ended(self, plan: Plan, run: str, waiting: _Waiting) -> bool:
        """Say whether the run has ended: then nothing of it may start. A deadline comes when nobody need be there."""
        fresh = all(self._ends.is_fresh(plan, delivery) and reply.source != DEADLINE for delivery, reply in waiting)
        if fresh and not self._ends.has(plan.flow.name, run):
            return False
        return await self._engine.ended_and_followed(plan.flow.name, run)

    async def _record(self, key: _Key, plan: Plan, waiting: _Waiting) -> Chain:
        """Have these replies in the chain, whoever else adds to it too."""
        replies = [reply for _, reply in waiting]
        chain = self._chains.get(key)
        if chain is None:
            chain = Chain(plan, replies[0])
            if not all(self._ends.is_fresh(plan, delivery) for delivery, _ in waiting):
                await self._catch_up(chain)
        subjects = self._engine.bus.subjects
        while (link := chain.link(replies)) is not None:
            subject = subjects.join(self._actor, *key, link.number)
            if await self._engine.bus.create(subject, encode(link)) is not None:
                chain.apply(link)
            else:
                await self._catch_up(chain)
                if chain.number < link.number:
                    entry = await self._engine.bus.log.taken(subject)
                    if entry.seq < chain.head.start_seq:  # it stood there before the run began
                        raise UnreadableLink(subject, entry.seq)
                    await asyncio.sleep(_LAGS_S)
        self._keep(key, chain, waiting)
        return chain

    async def _catch_up(self, chain: Chain) -> None:
        """Fold the links that others wrote since, by the leader's word."""
        subjects, log = self._engine.bus.subjects, self._engine.bus.log
        run, step = chain.head.run, chain.step
        if chain.number:
            while (entry := await log.last_sure(subjects.join(self._actor, run, step, chain.number + 1))) is not None:
                _apply(chain, entry)
            return
        entries = await log.matching_sure([subjects.join(self._actor, run, step, None)], chain.head.start_seq)
        for entry in sorted(entries, key=lambda entry: int(subjects.split(entry.subject).rest[-1])):
            _apply(chain, entry)

    async def _gather(self, key: _Key, came: int) -> None:
        """Wait a moment for more branches, when many are missing and few come at a time."""
        chain = self._chains.get(key)
        if chain is None or chain.closed or came >= GATHER_FROM or chain.missing <= GATHER_FROM:
            return
        arrived = self._came[key] = asyncio.Event()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(GATHER_S, arrived.set)
        until = timer.when()  # the timer must not come before it, or nothing would end the wait
        try:
            while loop.time() < until and len(self._waiting.get(key, ())) < chain.missing:
                await arrived.wait()
                if loop.time() < until:
                    arrived.clear()
        finally:
            timer.cancel()
            del self._came[key]

    def _keep(self, key: _Key, chain: Chain, waiting: _Waiting) -> None:
        self._chains[key] = chain
        self._chains.move_to_end(key)
        if len(self._chains) > JOINS_MAX:
            self._chains.popitem(last=False)
        self.in_hand.setdefault(key, {}).update((replied(reply), reply) for _, reply in waiting)
        size = sum(len(delivery.data) for delivery, _ in waiting)
        self._in_hand_bytes[key] = self._in_hand_bytes.get(key, 0) + size
        while len(self._in_hand_bytes) > JOINS_MAX or sum(self._in_hand_bytes.values()) > IN_HAND_BYTES:
            dropped, _ = self._in_hand_bytes.popitem(last=False)
            self.in_hand.pop(dropped, None)

    async def _settle(self, delivery: Delivery, how: Settlement) -> None:
        try:
            await settle(self._engine, self._actor, delivery, how)
        except BusError as error:
            logger.error("message.not_noted", subject=delivery.subject, seq=delivery.seq, error=str(error))
            await delivery.nak(_BROKEN_RETRY_S)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)


def _apply(chain: Chain, entry: Entry) -> None:
    """Fold a link that is in the log. Raises `NewerMessage`, and `UnreadableLink`: the join cannot go on by itself."""
    link = known(entry)
    if not isinstance(link, Join) or link.number != chain.number + 1:
        raise UnreadableLink(entry.subject, entry.seq)
    try:
        chain.apply(link)
    except ValueError as error:
        raise UnreadableLink(entry.subject, entry.seq) from error


def _ends_run(plan: Plan, reply: Reply) -> bool:
    if not isinstance(reply.outcome, Failed):
        return False
    return reply.outcome.ends_run or plan.on_failed_branch(reply.step, reply.source) == "fail"
