"""The steward: turns tasks, which any NATS client may publish, into runs.

A client publishes `{"input": {…}}` to `{ns}.task.{flow}`. The broker's PubAck is its receipt: from then on the
task is in the log, whoever is down. The PubAck's `seq` gives the run id, `task-%012d` (unless the task names one
itself, as `run`), and so where the result will be: `{ns}.result.{flow}.{run}.end`. A task that cannot be run gets
its result there too, `failed`, with the reason.

Each flow has a durable consumer, so a task waits for a steward that knows its flow, as a handoff waits for its
actor, and stewards that know different flows can share a namespace. Tasks of flows that no steward has ever known
are answered too, after a while, by any steward that `answers_unknown`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import structlog

from baton_actors.errors import ActorError
from baton_actors.steps.retries import as_error
from baton_bus.engine.engine import Engine
from baton_bus.errors import PayloadTooLarge, RunExists, UnknownRun
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadContent, BadMessage, BadToken, FlowError, InputError, NewerMessage, nearest
from baton_schemas.flow.budgets import lower
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.codec import decode_task, encode
from baton_schemas.wire.messages import Result
from baton_schemas.wire.names import TOKEN, check_token, run_of_task
from baton_schemas.wire.outcomes import Failed
from baton_schemas.wire.values import check_json

TASKS_IN_HAND = 64
"""Tasks that one steward starts at once: each is one write, so this many hide the round trip of a cluster."""
TASKS_IN_FLIGHT = 1_000
"""Tasks unacked over all stewards, those of unknown flows that wait for their answer included."""
UNKNOWN_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Waits before a task of an unknown flow is answered, 30 s in all: stewards that start together, and a rolling
restart, take less."""
_BROKEN_RETRY_S = 2.0
"""After this a task is tried again that the bus would not take: a full log, no leader."""
_NEWER_RETRY_S = 10.0
"""For a steward of the later release to take it."""
_STOP_S = 2.0
"""For tasks in hand when the steward stops; a redelivery finishes the rest, and starts no second run."""

_BAD = (BadContent, BadMessage, BadToken, FlowError, InputError, PayloadTooLarge, RunExists)
"""What no second try would make good."""

logger = structlog.get_logger("baton.steward")


class NoSuchFlow(ActorError):
    """A task names a flow that no steward in the namespace knows."""

    def __init__(self, flow: str, known: Mapping[str, Plan]) -> None:
        """`flow` as the subject has it; `known` are those of the steward that answers."""
        self.flow = flow
        hint = nearest(flow, known)
        super().__init__(
            f"no steward here knows a flow {flow!r}. {hint}{' ' if hint else ''}"
            "Start it with `baton up`, then publish the task again; a run id of your own must be a new one."
        )


class Steward:
    """Starts the runs that tasks ask for. A task that comes twice starts one run."""

    def __init__(self, engine: Engine, plans: Mapping[str, Plan], *, answers_unknown: bool = True) -> None:
        """`plans` by the name of the flow. One that is there for a single run leaves unknown flows to others."""
        self._engine, self._bus = engine, engine.bus
        self._plans, self._answers_unknown = dict(plans), answers_unknown
        self._tasks: set[asyncio.Task[None]] = set()

    def know(self, plan: Plan) -> None:
        """From now on start the runs of a flow that is known already in this version of it; of others, none."""
        if plan.flow.name in self._plans:
            self._plans[plan.flow.name] = plan

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[Steward]:
        """Take tasks while the context is open, which gives the steward itself.

        Raises the errors of the bus when a consumer cannot be made.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._finish)
            subjects = self._bus.subjects
            self._bus.fresh_from_now()
            for flow in self._plans:
                await stack.enter_async_context(self._taking(_consumer(flow), subjects.task(flow), self._start))
            if self._answers_unknown:
                await stack.enter_async_context(self._taking("steward", subjects.tasks(), self._answer_unknown))
            yield self

    @contextlib.asynccontextmanager
    async def _taking(
        self, consumer: str, subject: str, do: Callable[[Delivery], Awaitable[None]]
    ) -> AsyncIterator[None]:
        def on_delivery(delivery: Delivery) -> None:
            task = asyncio.create_task(self._do(do, delivery))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        pulling = self._bus.pulling(consumer, subject, TASKS_IN_HAND, on_delivery, max_ack_pending=TASKS_IN_FLIGHT)
        async with pulling:
            yield

    async def _do(self, do: Callable[[Delivery], Awaitable[None]], delivery: Delivery) -> None:
        try:
            await do(delivery)
        except Exception:
            logger.exception("task.broken", subject=delivery.subject, seq=delivery.seq)
            await delivery.nak(_BROKEN_RETRY_S)

    async def _start(self, delivery: Delivery) -> None:
        """Start the run of a task of a flow that is known, or say in its result why not."""
        flow = self._bus.subjects.split(delivery.subject).who
        run = run_of_task(delivery.seq)
        try:
            check_json(delivery.data, "task")
            task = decode_task(delivery.data, delivery.subject)
            run = check_token("run id", task.run) if task.run else run
            # It may have been answered as unknown before this flow came here: then it has ended.
            # A run id of the sender's own may be one that was purged.
            plan = self._plans[flow]
            if (self._bus.is_fresh(delivery) and not task.run) or await self._engine.ended(flow, run) is None:
                await self._engine.runs.start(plan, task.input, run, budget=lower(plan, task.budget))
                logger.info("task.started", flow=flow, run=run, seq=delivery.seq)
        except NewerMessage as error:
            logger.warning("message.newer", subject=delivery.subject, error=str(error))
            await delivery.nak(_NEWER_RETRY_S)
        except _BAD as error:
            await self._refuse(delivery, flow, run, error)
        else:
            await delivery.ack()

    async def _answer_unknown(self, delivery: Delivery) -> None:
        """Answer a task whose flow no steward knows, once there was time for one to come that does."""
        flow = self._bus.subjects.split(delivery.subject).who
        if not TOKEN.match(flow):
            logger.error("task.of_no_flow", subject=delivery.subject, seq=delivery.seq)
            await delivery.term()
        elif flow in self._plans or await self._is_known(flow):
            await delivery.ack()
        elif delivery.delivered <= len(UNKNOWN_DELAYS_S):
            await delivery.nak(UNKNOWN_DELAYS_S[delivery.delivered - 1])
        else:
            run = run_of_task(delivery.seq)
            with contextlib.suppress(BadMessage, BadToken, NewerMessage):
                run = check_token("run id", decode_task(delivery.data).run or run)
            await self._refuse(delivery, flow, run, NoSuchFlow(flow, self._plans))

    async def _is_known(self, flow: str) -> bool:
        """Say whether any steward of this flow has ever worked here: its consumer takes the task."""
        offset = 0
        while infos := await self._bus.js.consumers_info(self._bus.settings.namespace, offset=offset):
            if any(info.name == _consumer(flow) for info in infos):
                return True
            offset += len(infos)
        return False

    async def _refuse(self, delivery: Delivery, flow: str, run: str, error: Exception) -> None:
        """Write why a task is not run where its sender looks for the result, and take it out of the way."""
        logger.error("task.refused", flow=flow, run=run, seq=delivery.seq, reason=str(error))
        if not await self._is_run_of(flow, run):  # else it has a result of its own, which this must not be
            reason = as_error("", 1, error)
            result = Result(flow=flow, run=run, status="failed", outcome=Failed(error=reason), reason=reason.message)
            await self._bus.create(self._bus.subjects.of("", result), encode(result))
        await delivery.term()

    async def _is_run_of(self, flow: str, run: str) -> bool:
        """Say whether a run of this id has begun, of this very flow."""
        try:
            _, first = await self._engine.runs.first(run)
        except UnknownRun:
            return False
        return first.flow == flow

    async def _finish(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_S)
        for task in self._tasks:
            task.cancel()


def _consumer(flow: str) -> str:
    return f"steward-{flow}"
