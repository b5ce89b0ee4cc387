"""The Python agent: does a step by calling a handler."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from msgspec import Raw
from msgspec.structs import replace

from baton_actors.agents.branch import branches_value
from baton_actors.agents.clock import Clock
from baton_actors.agents.code_lines import CodeLine
from baton_actors.agents.contained import contained
from baton_actors.agents.handlers import Handler
from baton_actors.agents.kinds import COMPUTING, WAITING, Journal, Performed, StepTask
from baton_actors.agents.reads import Reads
from baton_actors.agents.threads import Threads
from baton_actors.errors import HandlerHung
from baton_actors.models import Models
from baton_actors.models.exchanges import Exchanges
from baton_actors.models.sent import Overtaken
from baton_schemas.flow.graph import Plan
from baton_schemas.run.branches import fan_outs
from baton_schemas.wire.facts import Exchange
from baton_schemas.wire.files import read_by, with_made
from baton_schemas.wire.outcomes import total

Run = Callable[[StepTask, Any, Callable[..., None]], Awaitable[Any]]
"""Calls the handler for a task, with a client or None, tells the clock of it, and returns what it returns."""

logger = structlog.get_logger("baton.worker")


class PythonAgent:
    """A handler as an agent. A plain function runs in one of `threads`; one that asks models needs `models`."""

    def __init__(self, handler: Handler, threads: Threads, models: Models | None = None) -> None:
        self.handler, self._threads, self._models = handler, threads, models
        self._is_simple = handler.is_async and not handler.takes_context and not handler.asks_models
        """Whether it does nothing but compute and wait: then nothing but its time-out is to be seen to."""

    @property
    def concurrency(self) -> int:
        """What is async waits; what is not has a thread for each step."""
        return WAITING if self.handler.is_async else COMPUTING

    @property
    def may_ask(self) -> bool:
        """Only through the `Context`."""
        return self.handler.takes_context

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """Those that the handler's parameters ask for as `list[Branch[T]]`."""
        return self.handler.asks(fan_outs(plan, step))

    async def perform(self, task: StepTask, journal: Journal, run: Run | None = None) -> Performed:
        """Call the handler; its time begins when it does, and not while it waits for a thread.

        It stands still while the official client, where the handler has that, waits for its provider or the log. `run`
        calls it in another way. Raises as `AgentKind.perform` says, and what the handler raises.
        """
        reads = Reads(journal, None if self.handler.is_async else asyncio.get_running_loop())
        read_by(reads)
        used: Sequence[Exchange] = ()
        try:
            if run is None and self._is_simple:
                call = self.handler.call(values_of(task), task.context)
                output = await contained(call, task.plan.timeout_s(task.step))
            else:
                if run is not None and not self.handler.is_async:
                    await reads.ahead(values_of(task).values())
                output, used = await self._run_with_all(task, journal, run or self._run)
            data, made = with_made(self.handler.encode, output)
            if made:
                await journal.keep(made)
        finally:
            reads.close()
        return _performed(data, used) if used else Performed(output=data)

    async def _run_with_all(self, task: StepTask, journal: Journal, run: Run) -> tuple[Any, Sequence[Exchange]]:
        """Return what the handler puts out, with all that it asks for, and the calls of its client."""
        if not self.handler.asks_models:
            return await run(task, None, task.asks.told), ()
        while True:
            try:
                return await self._with_client(task, journal, run)
            except Overtaken as error:
                logger.info("handler.begins_again", why=str(error))

    async def _with_client(self, task: StepTask, journal: Journal, run: Run) -> tuple[Any, Sequence[Exchange]]:
        assert self._models is not None
        own = Exchanges(self._models, journal, task.context.attempt, task.asks.busy, flow=task.plan.flow.name)
        async with own as exchanges:
            client = await self._models.client_for(exchanges, plain=not self.handler.is_async)

            def told(clock: Clock, **more: Any) -> None:
                exchanges.clock = clock
                task.asks.told(clock, **more)

            try:
                output = await run(task, client, told)
            except Exception:
                exchanges.check()
                raise
            exchanges.check()
        return output, exchanges.used

    async def _run(self, task: StepTask, client: Any, told: Callable[..., None]) -> Any:
        timeout_s = task.plan.timeout_s(task.step)
        if self.handler.is_async:
            call = self.handler.call(values_of(task), task.context, client)
            return await contained(call, timeout_s, told if self.handler.asks_models or self.may_ask else None)
        loop = asyncio.get_running_loop()
        call = self.handler.call(values_of(task), replace(task.context, loop=loop), client)
        hung: list[CodeLine] = []
        async with self._threads.place():
            try:
                async with asyncio.timeout(None) as deadline:

                    def alarm(left_s: float) -> Callable[[], None]:
                        deadline.reschedule(loop.time() + left_s)
                        return lambda: None if deadline.expired() else deadline.reschedule(None)

                    clock = Clock(timeout_s, alarm)
                    told(clock, in_thread=True)
                    try:
                        return await self._threads.run(call, hung)
                    finally:
                        clock.end()
            except TimeoutError as error:
                if not deadline.expired():  # it is the handler's own
                    raise
                raise HandlerHung(timeout_s, hung) from error


def _performed(output: bytes, used: Sequence[Exchange]) -> Performed:
    """Return what a handler put out, with what its calls took: there are some."""
    prices = [exchange.cost_usd for exchange in used if exchange.cost_usd is not None]
    last = used[-1]
    return Performed(
        output=output,
        model=last.model,
        rehearsed=any(exchange.rehearsed for exchange in used),
        request_id=last.request_id,
        usage=total([exchange.usage for exchange in used]),
        cost_usd=math.fsum(prices) if prices else None,
    )


def values_of(task: StepTask) -> Mapping[str, Raw]:
    """Return what the handler reads, with the branches that it asks for in place of plain lists."""
    if not task.branches:
        return task.values
    asked = {name: branches_value(found.ends, task.items.get(name, [])) for name, found in task.branches.items()}
    return {**task.values, **asked}
