"""What a program outside uses: start runs, wait for them, find them. `connect` opens it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Raw

from baton_bus.engine.engine import Engine
from baton_bus.errors import LoginRefused, NoServer, NoServerFound, RunPurged
from baton_bus.server.finding import running
from baton_bus.settings import NO_LOGIN, Settings, variable
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.errors import BadFile
from baton_schemas.flow.budgets import budget_of
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import encode_input
from baton_schemas.run.state import RunStatus
from baton_schemas.wire.codec import encode
from baton_schemas.wire.files import File, ref_in, with_made
from baton_schemas.wire.messages import Task
from baton_schemas.wire.money import Budget
from baton_schemas.wire.names import check_token, sortable_id

from . import people
from .files import read_file, refuse_bytes, uploaded
from .people import Waiting
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
        budget: Budget | float | None = None,
        **fields: Any,
    ) -> Run:
        """Start a run; it is durable once this returns. The input is in `fields`, in `input`, or in both.

        With a plan (`find_flow("article").plan`) the run starts at once, with one write. With the name of a flow a task
        is published, which the steward of that flow (`baton up`) makes a run of, now or later; what is wrong with its
        input is then said in its result. Starting twice with the same `run_id` starts one run. With `deadline_s`
        (seconds; the flow's unless given; not for a task) it ends as `expired` if it has not ended by then. `budget` is
        what the run may spend, over what its flow says (for a task: where that is less): a number is in USD.

        A `Path` in the input is the file there, and `File.of(data, name=…)` one of bytes: they are stored first.

        Raises `FlowError` for a budget that cannot be kept, `InputError`, `BadFile`, `BadToken`, `RunExists` (the id
        belongs to another run), `RunPurged`, and the errors of `Publisher.create`.
        """
        run = check_token("run id", run_id) if run_id else sortable_id()
        values = {**(input or {}), **fields}
        if not isinstance(flow, str):
            refuse_bytes(flow.flow, values)
        given = await self.encoded(values)
        name = flow if isinstance(flow, str) else flow.flow.name
        if not run_id:  # one with an id of the caller's may have ended long ago
            await self.results.expect(name, run)
        try:
            if isinstance(flow, str):
                task = encode(Task(input=given, run=run, budget=budget_of(budget)))
                patience_s = self.bus.settings.patience_s
                await self.bus.publisher.append(self.bus.subjects.task(name), task, patience_s=patience_s)
            else:
                if run_id:
                    await self._refuse_purged(name, run)
                await self.engine.runs.start(flow, given, run, deadline_s=deadline_s, budget=budget_of(budget))
        except BaseException:
            self.results.forget(name, run)
            raise
        return Run(self, run, name)

    async def encoded(self, given: Mapping[str, Any]) -> dict[str, Raw]:
        """Return an input as messages carry it; the files in it (`Path`, `File`) are stored by then.

        Raises `BadContent`, `BadFile`, and the errors of `Publisher.create`.
        """
        encoded, made = with_made(encode_input, await uploaded(self.engine.files, given))
        if made:
            await self.engine.files.keep(made)
        return encoded

    async def upload(self, file: Path | bytes, *, name: str = "") -> File:
        """Store a file, and return what stands for it in the input of any run: for one that is given to many.

        `name` is what bytes are called. Raises `BadFile`, and the errors of `Publisher.create`.
        """
        data = await asyncio.to_thread(read_file, file) if isinstance(file, Path) else file
        name = name or (file.name if isinstance(file, Path) else "file")
        return File(await self.engine.files.upload(name, data))

    async def download(self, file: File | Mapping[str, Any]) -> bytes:
        """Return the bytes of a file: a `File`, or what stands for one in an output, `{"file": …}`.

        Raises `BadFile` for what is none, `FileGone`, `BusUnavailable`.
        """
        ref = file.ref if isinstance(file, File) else ref_in(file)
        if ref is None:
            raise BadFile("download", 'found no file; expected {"file": {"name": …, "sha256": …, …}}')
        return await self.engine.files.read(ref)

    async def _refuse_purged(self, flow: str, run: str) -> None:
        """Raise `RunPurged` for the id of a run that was removed a short while ago: late words of it may still come."""
        ended = await self.engine.ended(flow, run)
        if ended is not None and ended.purged:
            raise RunPurged(run)

    def run(self, run_id: str, flow: str = "*") -> Run:
        """Return a run by its id, whether or not there is one; naming its flow makes waiting for it cheaper.

        Raises `BadToken`.
        """
        return Run(self, check_token("run id", run_id), flow)

    async def runs(
        self,
        limit: int = 20,
        *,
        flow: str = "",
        status: RunStatus | None = None,
        parent: str = "",
        children: bool = False,
    ) -> list[RunHead]:
        """Return the runs that began last, the newest first: all, or those of a `flow`, or that stand so (`running`).

        Runs that steps of other runs asked for are left out, unless `children`; with a `parent` they are those of it.

        Raises `BusUnavailable`, `NoStream`.
        """
        return await recent_runs(self.bus, limit, flow=flow, status=status, parent=parent, children=children)

    async def inbox(self, role: str = "") -> list[Waiting]:
        """Return what waits for people, of a role or any, the one that waits longest first; `Run.answer` answers it.

        It reads every question that is in the log, answered or not. Raises `BusUnavailable`, `NoStream`.
        """
        return await people.inbox(self.engine, role)

    async def fork(
        self,
        run: str,
        *,
        plan: Plan | None = None,
        until_seq: int = 0,
        failed: bool = False,
        run_id: str = "",
        budget: Budget | float | None = None,
    ) -> Run:
        """Start a run that goes on from another: see `Run.fork`."""
        new_run = check_token("run id", run_id) if run_id else sortable_id()
        _, first = await self.engine.runs.first(run)
        flow = first.flow if plan is None else plan.flow.name
        if run_id:
            await self._refuse_purged(flow, new_run)
        else:
            await self.results.expect(flow, new_run)
        try:
            await self.engine.runs.fork(
                run, new_run, plan=plan, until_seq=until_seq, failed=failed, budget=budget_of(budget)
            )
        except BaseException:
            self.results.forget(flow, new_run)
            raise
        return Run(self, new_run, flow)


@contextlib.asynccontextmanager
async def connect(settings: Settings | None = None, *, name: str = "", reads: bool = False) -> AsyncIterator[Client]:
    """Open a client: connect, check the server, make the log if it is missing.

    Without settings they come from the environment; when that names no server (`BATON_URL`), it is the embedded one
    that a command runs in the data directory (`BATON_DATA`, else `.baton`), or one at the usual port. Raises `NoServer`
    (`NoServerFound`), `ServerTooOld`, `JetStreamOff`, `StreamMismatch`.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            found = settings or await settings_here()
            bus = await stack.enter_async_context(open_bus(found, name=name, reads=reads))
        except NoServer as error:
            if settings is None and not os.environ.get(variable("url")) and not isinstance(error, LoginRefused):
                raise NoServerFound(error.url, str(data_dir_here()), error.reason) from error
            raise
        client = Client(bus)
        await stack.enter_async_context(client.results.opened())
        yield client


async def settings_here(namespace: str = "") -> Settings:
    """Return the settings of the environment, with the embedded server of the data directory if none is named."""
    given: dict[str, object] = {"namespace": namespace or None}
    if not os.environ.get(variable("url")) and (record := await running(data_dir_here())) is not None:
        given |= {"url": record.url, **NO_LOGIN}  # its URL holds its login
    return Settings.from_environ(**given)


def data_dir_here() -> Path:
    """Return the data directory that commands use here."""
    return Path(os.environ.get("BATON_DATA") or ".baton")
