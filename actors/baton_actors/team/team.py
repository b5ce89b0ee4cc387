"""`Team`: what a program uses to run flows, whether it plays them itself or others do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from baton_actors.agents.loading import FoundFlow, UnknownFlow, find_flow, with_nested
from baton_actors.team.errors import NoFlowGiven, NotPlayed, OnlyInProcess, TeamClosed
from baton_actors.team.flow import Flow
from baton_bus import BusError, Client, File, Run
from baton_bus.client.people import Waiting
from baton_bus.client.runs import RunHead
from baton_schemas.flow.graph import Plan
from baton_schemas.run.state import RunStatus
from baton_schemas.wire.money import Budget

T = TypeVar("T")

WhichFlow = str | Path | Flow
"""A flow by its name, by the path of its file, or as it was built."""
_CANCEL_S = 2.0
"""How long a call that was given up may take to cancel its run: whoever gave it up does not want to wait."""


class Team:
    """Runs flows and looks at runs. `Baton.local` and `Baton.connect` open one; it belongs to their event loop."""

    def __init__(self, client: Client, flows: Iterable[FoundFlow], *, plays: bool) -> None:
        """`flows` are those that are played here, or (without `plays`) that this team is asked for."""
        self.client = client
        """Everything else that a program may ask of the bus."""
        self._flows = {found.name: found for found in flows}
        self._plays, self._closed = plays, True

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Start runs while the context is open; `Baton` sees to it."""
        self._closed = False
        try:
            yield self
        finally:
            self._closed = True

    @overload
    async def run(
        self,
        flow: WhichFlow | None = None,
        /,
        input: Mapping[str, Any] | None = None,
        *,
        returns: type[T],
        timeout_s: float | None = None,
        run_id: str = "",
        deadline_s: float | None = None,
        budget: Budget | float | None = None,
        cancel_with_caller: bool = False,
        **fields: Any,
    ) -> T: ...

    @overload
    async def run(
        self,
        flow: WhichFlow | None = None,
        /,
        input: Mapping[str, Any] | None = None,
        *,
        returns: Any = Any,
        timeout_s: float | None = None,
        run_id: str = "",
        deadline_s: float | None = None,
        budget: Budget | float | None = None,
        cancel_with_caller: bool = False,
        **fields: Any,
    ) -> Any: ...

    async def run(
        self,
        flow: WhichFlow | None = None,
        /,
        input: Mapping[str, Any] | None = None,
        *,
        returns: Any = Any,
        timeout_s: float | None = None,
        run_id: str = "",
        deadline_s: float | None = None,
        budget: Budget | float | None = None,
        cancel_with_caller: bool = False,
        **fields: Any,
    ) -> Any:
        """Run a flow to its end and return its output, decoded (into `returns`: any type that msgspec knows).

        The flow may be left out where the team has one only. Its input is in `fields`, or in `input` for names that
        this call itself has. A run is durable: it goes on when the waiting is cancelled, or is over after `timeout_s`
        seconds, unless `cancel_with_caller`. With `deadline_s` it ends by itself; `budget` is what it may spend, in
        USD.

        Raises `RunFailed`, `RunCancelled`, `RunExpired`, `UnexpectedOutput`; `TimeoutError`; and as `start`.
        """
        run = await self.start(flow, input, run_id=run_id, deadline_s=deadline_s, budget=budget, **fields)
        try:
            return await run.result(timeout_s, returns=returns)
        except (asyncio.CancelledError, TimeoutError) as error:
            if cancel_with_caller:
                reason = "its caller gave up" if isinstance(error, TimeoutError) else "its caller was cancelled"
                with contextlib.suppress(BusError, TimeoutError):
                    async with asyncio.timeout(_CANCEL_S):
                        await run.cancel(reason)
            raise

    async def start(
        self,
        flow: WhichFlow | None = None,
        /,
        input: Mapping[str, Any] | None = None,
        *,
        run_id: str = "",
        deadline_s: float | None = None,
        budget: Budget | float | None = None,
        **fields: Any,
    ) -> Run:
        """Start a run and return it; it is durable from here on. The same `run_id` starts one run.

        Raises `TeamClosed`, `NoFlowGiven`, `NotPlayed`, `OnlyInProcess`, `FlowError`, and as `Client.start`.
        """
        return await self.client.start(
            self._which(flow), input, run_id=run_id, deadline_s=deadline_s, budget=budget, **fields
        )

    def get(self, run_id: str) -> Run:
        """Return a run by its id, whoever started it. Raises `BadToken`."""
        return self.client.run(run_id)

    async def runs(self, limit: int = 20, *, flow: str = "", status: RunStatus | None = None) -> list[RunHead]:
        """Return the runs that began last, the newest first. Raises as `Client.runs`."""
        return await self.client.runs(limit, flow=flow, status=status)

    async def inbox(self, role: str = "") -> list[Waiting]:
        """Return what waits for people, the one that waits longest first: see `Client.inbox`, and `Run.answer`."""
        return await self.client.inbox(role)

    async def download(self, file: File | Mapping[str, Any]) -> bytes:
        """Return the bytes of a file that a run put out: see `Client.download`."""
        return await self.client.download(file)

    def _which(self, flow: WhichFlow | None) -> Plan | str:
        """Return the flow that is meant: worked out, or its name, for a steward elsewhere that knows it."""
        if self._closed:
            raise TeamClosed
        if flow is None:
            if len(self._flows) != 1:
                raise NoFlowGiven(self._flows)
            return next(iter(self._flows.values())).plan
        if isinstance(flow, str) and flow in self._flows:
            return self._flows[flow].plan
        try:
            found = found_of(flow)
        except UnknownFlow:
            if self._plays:
                raise NotPlayed(str(flow), self._flows) from None
            return str(flow)
        if not self._plays:
            return elsewhere(found).plan
        ours = self._flows.get(found.name)
        if ours is None or ours.plan.digest != found.plan.digest:
            raise NotPlayed(found.name, self._flows)
        return ours.plan


def found_of(flow: WhichFlow) -> FoundFlow:
    """Return a flow that is named, in a file, or built. Raises `UnknownFlow`, `FlowError`, `BadHandler`."""
    return flow.found() if isinstance(flow, Flow) else find_flow(str(flow))


def elsewhere(found: FoundFlow) -> FoundFlow:
    """Return a flow that other processes are to play. Raises `OnlyInProcess` when they cannot."""
    for each in with_nested([found]):
        if each.functions or each.tools:
            own = [name for name, agent in each.flow.agents.items() if agent.handler in each.functions]
            own += [tool.name for tool in each.tools.values()]
            raise OnlyInProcess(each.name, own)
    return found
