"""Agents in front of a debugger: one step at a time, in the thread of the loop, for as long as it takes."""

from __future__ import annotations

import asyncio
import bdb
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from baton_actors.agents.agents import Agents
from baton_actors.agents.contained import contained
from baton_actors.agents.kinds import AgentKind, Journal, Performed, StepTask
from baton_actors.agents.nested import NestedAgent
from baton_actors.agents.python import PythonAgent, values_of
from baton_actors.agents.raising import caught, unwrapped
from baton_actors.agents.threads import Threads
from baton_actors.agents.turns import AsksInTurn, Turn
from baton_actors.errors import HandlerRaised
from baton_actors.models import Models
from baton_schemas.flow.graph import Plan

NO_LIMIT_S = 365 * 24 * 3600.0
"""The time of an attempt whose handler somebody looks at."""
_QUITS = (bdb.BdbQuit, KeyboardInterrupt)
"""What a handler ends with when its person has typed `q` or pressed Ctrl-C."""


class DebuggedAgents(Agents):
    """As `Agents`, but a handler has the thread with the terminal for itself, and no time runs out."""

    def __init__(
        self,
        models: Models | None = None,
        threads: Threads | None = None,
        *,
        on_begin: Callable[[StepTask], None] = lambda _: None,
        on_quit: Callable[[], None] = lambda: None,
        turn: asyncio.Lock | None = None,
    ) -> None:
        """`on_begin` is told of each step; `on_quit` that the person has left the debugger, or stopped a handler.

        `turn` is who is in front of the debugger, where several flows are.
        """
        super().__init__(models, threads)
        self.on_begin, self.on_quit = on_begin, on_quit
        self.turn = turn or asyncio.Lock()

    def of(self, plan: Plan, step: str) -> AgentKind:
        """Return who does a step when it is its turn. Raises `HandlerMissing`."""
        agent = super().of(plan, step)
        # Of a run within a run it is said what its own steps do.
        return agent if isinstance(agent, NestedAgent) else _InTurn(agent, self)


class _InTurn:
    """An agent that does its steps when no other does one; what waits for what it asked does nothing."""

    def __init__(self, agent: AgentKind, among: DebuggedAgents) -> None:
        self._agent, self._among = agent, among

    @property
    def concurrency(self) -> int:
        return self._agent.concurrency

    @property
    def may_ask(self) -> bool:
        """As it may anyway."""
        return self._agent.may_ask

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        return self._agent.asks(plan, step)

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        turn = Turn(self._among.turn)
        asks = AsksInTurn(task.asks, turn)
        task = replace(task, asks=asks, context=replace(task.context, asks=asks))
        try:
            await turn.take()
            self._among.on_begin(task)
            if not isinstance(self._agent, PythonAgent):
                return await self._agent.perform(task, journal)
            try:
                return await self._agent.perform(task, journal, self._run)
            except Exception as error:
                if not isinstance(error.original if isinstance(error, HandlerRaised) else error, _QUITS):
                    raise
                self._among.on_quit()
                await asyncio.Event().wait()  # until we are cancelled
                raise
        finally:
            turn.end()

    async def _run(self, task: StepTask, client: Any, told: Callable[..., None]) -> Any:
        assert isinstance(self._agent, PythonAgent)
        handler = self._agent.handler
        loop = None if handler.is_async else asyncio.get_running_loop()
        call = handler.call(values_of(task), replace(task.context, loop=loop), client)
        if handler.is_async:
            return await contained(call, NO_LIMIT_S)
        if handler.asks_models:  # the loop makes its calls, so it is not to be held up
            return await self._among.threads.run(call)
        return unwrapped(caught(call))
