"""The supervisor: keeps the worker processes of flows alive, and ends them, with all that they have started."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import msgspec
import structlog

from baton_actors.agents.loading import FoundFlow
from baton_actors.models import ModelError, ModelSettings
from baton_actors.processes.child import Child, End
from baton_actors.processes.deaths import Deaths, remembering
from baton_actors.processes.errors import WorkerCannotStart, WorkersKeepDying, WorkersNotReady
from baton_actors.processes.forks import REHEARSAL, SDK
from baton_actors.processes.groups import Groups
from baton_actors.processes.hosting import GRACE_S
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.main import ORPHAN_S, RECYCLE, REFUSED, WorkerSpec
from baton_actors.processes.watchdog import STUCK_S
from baton_bus import Settings

RESTARTS_MAX = 10
"""Per worker, where a run waits for it: with the waits below about three minutes of trying."""
_WAIT_FIRST_S, _WAIT_MAX_S = 0.5, 30.0
"""Before a restart: short after one crash, and no load on the machine when each start fails."""
_LIVED_S = 60.0
"""A worker that lived so long had started well: the next restart is a first one."""
_GOODBYE_S = 3.0
"""After the grace: to give back what is in hand, and to flush the connection."""
_REASONS_MAX = 100
"""Reasons that are remembered as said: more than there are actors on a machine."""

logger = structlog.get_logger("baton.supervisor")


def preload_of(flows: Sequence[FoundFlow]) -> list[str]:
    """Return what workers of these flows import besides what all do: what answers for their models, if they ask any."""
    try:
        rehearses = ModelSettings.from_environ().rehearses
    except ModelError:  # workers say what is wrong with the settings
        rehearses = True
    asks_models = any(agent.asks_models for found in flows for agent in found.flow.agents.values())
    return ([REHEARSAL] if rehearses else [SDK]) if asks_models else []


class Supervisor:
    """Runs the workers of flows while its context is open, and starts those again that die.

    With `restart` it does so for ever; without, `RESTARTS_MAX` times for each worker. The errors
    `WorkerCannotStart` (before it was ready for the first time; without `restart` also later, when the server does not
    let it) and `WorkersKeepDying` cancel the body and come
    out of the `async with`. At the end the workers get SIGTERM and their grace, then SIGKILL, and with each ends
    what its handlers have started.

    Workers see the environment as it was when the fork server of this process began (`forks.py`).
    """

    def __init__(
        self,
        flows: Sequence[FoundFlow],
        settings: Settings,
        *,
        copies: int = 1,
        restart: bool,
        logs: LogSettings | None = None,
        grace_s: float = GRACE_S,
        stuck_s: float = STUCK_S,
    ) -> None:
        """`copies` is the number of processes per actor; `settings` say where the bus is.

        A worker in which nothing runs for `stuck_s` seconds is killed.
        """
        logs = logs or LogSettings.from_environ()
        self._specs = [
            (
                actor,
                WorkerSpec(
                    flow=found.source, agent=agent, settings=settings, logs=logs, grace_s=grace_s, stuck_s=stuck_s
                ),
            )
            for found in flows
            for actor, agent in found.plan.actors().items()
            for _ in range(copies)
        ]
        self._preload = preload_of(flows)
        self._restart, self._grace_s, self._stuck_s = restart, grace_s, stuck_s
        self._waiting = [actor for actor, _ in self._specs]
        self._all_ready = asyncio.Event()
        self._failed = False
        self._live: list[Child] = []
        self._groups = Groups(ORPHAN_S)
        self.deaths = Deaths()
        """How workers died, while the context is open."""
        self._said: deque[str] = deque(maxlen=_REASONS_MAX)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every worker has taken up work once. Raises `WorkersNotReady`, and as `leave_if_failed`."""
        self.leave_if_failed()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_ready.wait()
        except TimeoutError as error:
            raise WorkersNotReady(self._waiting, timeout_s) from error

    def leave_if_failed(self) -> None:
        """Raise `CancelledError`, so that the body ends, when a worker's failure has cancelled it and it goes on.

        To be asked before a wait without an end: of a cancellation that comes just when what is awaited is done,
        `asyncio.wait_for` of Python 3.11, which libraries use, tells nobody.
        """
        if self._failed:
            raise asyncio.CancelledError

    @property
    def pids(self) -> dict[int, str]:
        """The processes that live now: the actor of each by its process id."""
        return {child.pid: child.actor for child in list(self._live)}

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        with (
            remembering() as self.deaths,
            self._groups,
            # One thread: `start` blocks until the fork server has imported all, and processes start one by one.
            ThreadPoolExecutor(1, thread_name_prefix="start workers") as starter,
        ):
            try:
                async with asyncio.TaskGroup() as group:
                    keepers = [group.create_task(self._keep(starter, *spec)) for spec in self._specs]
                    for keeper in keepers:
                        keeper.add_done_callback(self._note_failure)
                    try:
                        yield
                    finally:
                        for keeper in keepers:
                            keeper.cancel()
                        try:
                            await asyncio.gather(*keepers, return_exceptions=True)
                        finally:
                            await asyncio.to_thread(self._stop, starter)
            except BaseExceptionGroup as errors:
                first = errors.exceptions[0]
                raise first from first.__cause__

    async def _keep(self, starter: ThreadPoolExecutor, actor: str, spec: WorkerSpec) -> None:
        """Run one worker, and another whenever it has ended."""
        loop = asyncio.get_running_loop()
        deaths, wait_s, was_ready = 0, _WAIT_FIRST_S, False

        def on_ready() -> None:
            nonlocal was_ready
            self._said.clear()
            if not was_ready:
                was_ready = True
                self._waiting.remove(actor)
                if not self._waiting:
                    self._all_ready.set()

        while True:
            child = await loop.run_in_executor(starter, self._start, actor, spec)
            started = loop.time()
            await child.watch(self._stuck_s, on_ready)
            end = self._bury(child)
            await asyncio.to_thread(self._groups.end, child.pid)
            # Where a run waits for it, what no other try mends is said at once.
            if end.reason and (not was_ready or (end.exit_code == REFUSED and not self._restart)):
                raise WorkerCannotStart(actor, end.reason)
            if end.exit_code == RECYCLE and end.word == "":
                logger.info("worker.recycled", actor=actor)
                continue
            if loop.time() - started > _LIVED_S:
                deaths, wait_s = 0, _WAIT_FIRST_S
            deaths += 1
            if deaths > RESTARTS_MAX and not self._restart:
                raise WorkersKeepDying(actor, deaths, end.exit_code, end.reason)
            self._say(actor, end, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_MAX_S)

    def _note_failure(self, keeper: asyncio.Task[None]) -> None:
        self._failed |= not keeper.cancelled() and keeper.exception() is not None

    def _say(self, actor: str, end: End, wait_s: float) -> None:
        """Say that a worker has died; a reason why it cannot start only once, until one can."""
        if not end.reason:
            logger.warning("worker.died", actor=actor, how=end.how, exit_code=end.exit_code, restart_in_s=wait_s)
        elif end.reason not in self._said:
            self._said.append(end.reason)
            logger.error("worker.cannot_start", actor=actor, reason=end.reason, tried_again_within_s=_WAIT_MAX_S)

    def _start(self, actor: str, spec: WorkerSpec) -> Child:
        child = Child.start(actor, msgspec.structs.replace(spec, deaths=self.deaths), self._preload)
        self._live.append(child)
        self._groups.add(child.pid)
        self.deaths.forget(child.pid)
        return child

    def _bury(self, child: Child) -> End:
        end = child.bury()
        self.deaths.note(child.pid, end.how)
        self._live.remove(child)
        return end

    def _stop(self, starter: ThreadPoolExecutor) -> None:
        starter.shutdown(cancel_futures=True)
        deadline = time.monotonic() + self._grace_s + _GOODBYE_S
        for child in self._live:
            child.terminate()
        stopped = list(self._live)
        for child in stopped:
            if not child.end_within(max(0.0, deadline - time.monotonic())):
                logger.warning("worker.killed", actor=child.actor, grace_s=self._grace_s)
            self._bury(child)
        self._groups.end(*[child.pid for child in stopped])
