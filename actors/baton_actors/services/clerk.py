"""The clerk: writes what is due (a join's deadline, a step that was parked, the end of a run) into the log, and takes
what people and programs say (`words.py`).

A timer's body is the message itself, so any process can do it, whatever flows it knows. One runs in every worker
process and in `baton steward`; they share a consumer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from msgspec.structs import replace

from baton_bus.engine.engine import Engine
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage, BadToken, NewerMessage
from baton_schemas.run.child_runs import has_to_be_followed
from baton_schemas.run.refs import key_of_child
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import Answer, Handoff, Reply, Result, Task
from baton_schemas.wire.names import check_token, may_stand_in_subject, run_of_firing

from .words import Words

IN_HAND = 64
"""Due messages held at once: each is one short publish."""
_RETRY_S = 2.0
_NEWER_RETRY_S = 10.0
"""For a process of the later release to take it."""

logger = structlog.get_logger("baton.clerk")


class Clerk:
    """Takes due messages and writes each into the log, create-only: doing it twice changes nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._bus = engine, engine.bus
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Take what is due, and what is said, while the context is open."""
        subject = self._bus.subjects.due("*", "*", "*")
        taking = self._bus.pulling("due", subject, IN_HAND, self._on_delivery, max_ack_pending=1000, due=True)
        async with taking as due, Words(self._engine).working():
            try:
                yield
            finally:
                await due.stop()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._take(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, delivery: Delivery) -> None:
        try:
            await self._write(delivery)
        except (BadMessage, BadToken) as error:
            logger.error("due.rejected", subject=delivery.subject, seq=delivery.seq, reason=str(error))
            await delivery.term()
        except NewerMessage as error:
            logger.warning("message.newer", subject=delivery.subject, error=str(error))
            await delivery.nak(_NEWER_RETRY_S)
        except Exception:
            logger.exception("due.broken", subject=delivery.subject, seq=delivery.seq)
            await delivery.nak(_RETRY_S)
        else:
            await delivery.ack()

    async def _write(self, delivery: Delivery) -> None:
        subjects = self._bus.subjects
        parts = subjects.split(delivery.subject)
        match decode(delivery.data, delivery.subject):
            case Reply() | Handoff() | Result() as message:
                for what, token in (("actor", parts.who), ("run id", message.run)):
                    check_token(what, token)
                await self._bus.create(subjects.of(parts.who, message), encode(message))
                if isinstance(message, Result) and has_to_be_followed(message):
                    await self._engine.ended_and_followed(message.flow, message.run)
            case Answer() as answer:
                for what, token in (("actor", parts.who), ("run id", answer.run)):
                    check_token(what, token)
                for token in (answer.step, key_of_child(answer.child)):
                    if not may_stand_in_subject(token):  # that of a child may be longer than a name
                        raise BadToken("step", token)
                if await self._engine.ended(answer.flow, answer.run) is None:  # else nobody waits for it
                    await self._engine.asking.answer(parts.who, answer)
            case Task() as task:
                # The run id follows from the firing: written twice, it still is one run.
                named = replace(task, run=run_of_firing(delivery.stored_at_ns, delivery.seq))
                await self._bus.publisher.append(subjects.task(parts.run), encode(named))
            case _:
                raise BadMessage("expected a handoff, a reply, an answer, a result or a task", delivery.subject)
