"""The Python agent: does a step by calling a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from baton_actors.agents.branch import branches_value
from baton_actors.agents.clock import Clock
from baton_actors.agents.code_lines import CodeLine
from baton_actors.agents.contained import contained
from baton_actors.agents.handlers import Handler
from baton_actors.agents.kinds import COMPUTING, WAITING, Journal, Performed, StepTask
from baton_actors.agents.threads import Threads
from baton_actors.errors import HandlerHung
from baton_schemas.flow.graph import Plan
from baton_schemas.run.branches import fan_outs


class PythonAgent:
    """A handler as an agent. A plain function runs in one of `threads`."""

    def __init__(self, handler: Handler, threads: Threads) -> None:
        self.handler, self._threads = handler, threads

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

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Call the handler; its time begins when it does, and not while it waits for a thread.

        Raises as `AgentKind.perform` says, and what the handler raises.
        """
        timeout_s = task.plan.timeout_s(task.step)
        if self.handler.is_async:
            told = task.asks.told if self.may_ask else None
            output = await contained(self.handler.call(values_of(task), task.context), timeout_s, told)
        else:
            output = await self._in_thread(task, timeout_s)
        return Performed(output=self.handler.encode(output))

    async def _in_thread(self, task: StepTask, timeout_s: float) -> Any:
        loop = asyncio.get_running_loop()
        call = self.handler.call(values_of(task), replace(task.context, loop=loop))
        hung: list[CodeLine] = []
        async with self._threads.place():
            try:
                async with asyncio.timeout(None) as deadline:

                    def alarm(left_s: float) -> Callable[[], None]:
                        deadline.reschedule(loop.time() + left_s)
                        return lambda: None if deadline.expired() else deadline.reschedule(None)

                    clock = Clock(timeout_s, alarm)
                    task.asks.told(clock, in_thread=True)
                    try:
                        return await self._threads.run(call, hung)
                    finally:
                        clock.end()
            except TimeoutError as error:
                if not deadline.expired():  # it is the handler's own
                    raise
                raise HandlerHung(timeout_s, hung) from error


def values_of(task: StepTask) -> Mapping[str, Raw]:
    """Return what the handler reads, with the branches that it asks for in place of plain lists."""
    if not task.branches:
        return task.values
    asked = {name: branches_value(found.ends, task.items.get(name, [])) for name, found in task.branches.items()}
    return {**task.values, **asked}
