"""What a program outside uses: start runs, wait for them, find them. `connect` opens it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from baton_bus.engine.engine import Engine
from baton_bus.settings import Settings
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import encode_input
from baton_schemas.run.state import RunStatus
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Task
from baton_schemas.wire.names import check_token, sortable_id

from .results import Results
from .run import Run
from .runs import RunHead, recent_runs


class Client:
    """Starts runs and looks at them. Safe for one event loop."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.engine = Engine(bus)
        self.results = Results(bus)

    async def start(
        self,
        flow: Plan | str,
        /,
        input: Mapping[str, Any] | None = None,
        *,
        run_id: str = "",
        deadline_s: float | None = None,
        **fields: Any,
    ) -> Run:
        """Start a run; it is durable once this returns. The input is in `fields`, in `input`, or in both.

        With a plan (`find_flow("article").plan`) the run starts at once, with one write. With the name of a flow a task
        is published, which the steward of that flow (`baton up`) makes a run of, now or later; what is wrong with its
        input is then said in its result. Starting twice with the same `run_id` starts one run. With `deadline_s`
        (seconds; the flow's unless given; not for a task) it ends as `expired` if it has not ended by then.

        Raises `InputError`, `BadToken`, `RunExists` (the id belongs to another run), and the errors of
        `Publisher.create`.
        """
        run = check_token("run id", run_id) if run_id else sortable_id()
        given = encode_input({**(input or {}), **fields})
        name = flow if isinstance(flow, str) else flow.flow.name
        if not run_id:  # one with an id of the caller's may have ended long ago
            await self.results.expect(name, run)
        try:
            if isinstance(flow, str):
                task = encode(Task(input=given, run=run))
                patience_s = self.bus.settings.patience_s
                await self.bus.publisher.append(self.bus.subjects.task(name), task, patience_s=patience_s)
            else:
                await self.engine.start(flow, given, run, deadline_s=deadline_s)
        except BaseException:
            self.results.forget(name, run)
            raise
        return Run(self, run, name)

    def run(self, run_id: str, flow: str = "*") -> Run:
        """Return a run by its id, whether or not there is one; naming its flow makes waiting for it cheaper.

        Raises `BadToken`.
        """
        return Run(self, check_token("run id", run_id), flow)

    async def runs(self, limit: int = 20, *, flow: str = "", status: RunStatus | None = None) -> list[RunHead]:
        """Return the runs that began last, the newest first: all, or those of a `flow`, or that stand so (`running`).

        Raises `BusUnavailable`, `NoStream`.
        """
        return await recent_runs(self.bus, limit, flow=flow, status=status)

    async def fork(self, run: str, *, until_seq: int = 0, run_id: str = "") -> Run:
        """Start a run that goes on from another: see `Run.fork`."""
        new_run = check_token("run id", run_id) if run_id else sortable_id()
        _, first = await self.engine.first(run)
        if not run_id:
            await self.results.expect(first.flow, new_run)
        try:
            await self.engine.fork(run, new_run, until_seq=until_seq)
        except BaseException:
            self.results.forget(first.flow, new_run)
            raise
        return Run(self, new_run, first.flow)


@contextlib.asynccontextmanager
async def connect(settings: Settings | None = None, *, name: str = "", reads: bool = False) -> AsyncIterator[Client]:
    """Open a client: connect, check the server, make the log if it is missing.

    Without settings they come from the environment. Raises `NoServer`, `ServerTooOld`, `JetStreamOff`,
    `StreamMismatch`.
    """
    async with open_bus(settings, name=name, reads=reads) as bus:
        client = Client(bus)
        async with client.results.opened():
            yield client
