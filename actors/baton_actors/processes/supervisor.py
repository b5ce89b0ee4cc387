"""The supervisor: one OS process per actor, forked from one server that has paid for the imports, and kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType, TracebackType
from typing import Any, Self

import structlog

from baton_actors.agents.loading import FoundFlow
from baton_actors.errors import ActorError
from baton_actors.processes.hosting import GRACE_S
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_bus import Settings

RESTARTS_MAX = 10
"""Per worker, where a run waits for it: with the waits below about three minutes of trying."""
_WAIT_FIRST_S, _WAIT_MAX_S = 0.5, 30.0
"""Before a restart: short after one crash, and no load on the machine when each start fails."""
_LIVED_S = 60.0
"""A worker that lived so long had started well: the next restart is a first one."""
_GOODBYE_S = 3.0
"""After the grace: to give back what is in hand, and to flush the connection."""
_SDK = "baton_actors.models.sdk"
"""Imports the model API's SDK, which takes more than a second: once, in the fork server."""

logger = structlog.get_logger("baton.supervisor")


class WorkerCannotStart(ActorError):
    """A worker said why it cannot take work."""

    def __init__(self, actor: str, reason: str) -> None:
        """`reason` is the worker's own error, which says what to do."""
        self.actor, self.reason = actor, reason
        super().__init__(f"the worker of {actor!r} cannot start: {reason}")


class WorkersKeepDying(ActorError):
    """A worker has died more often than it is worth trying."""

    def __init__(self, actor: str, deaths: int, exit_code: int) -> None:
        """`exit_code` of the last one; negative for a signal."""
        self.actor, self.deaths, self.exit_code = actor, deaths, exit_code
        how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        super().__init__(
            f"the worker of {actor!r} died {deaths} times, the last time with {how}. What it wrote to stderr "
            "says why; signal 9 without a word is mostly the kernel short of memory. What it held is kept in the log."
        )


class WorkersNotReady(ActorError):
    """Not all workers took work in time."""

    def __init__(self, actors: Sequence[str], waited_s: float) -> None:
        """`actors` are those that are missing."""
        self.actors, self.waited_s = tuple(actors), waited_s
        super().__init__(
            f"not ready after {waited_s:g} s: {', '.join(actors)}. "
            "Look for a handler module that is slow to import, or a machine short of memory."
        )


class Supervisor:
    """Runs the workers of flows while its context is open, and starts those again that die.

    With `restart` it does so for ever; without, `RESTARTS_MAX` times for each worker. The errors
    `WorkerCannotStart` (before it was ready for the first time) and `WorkersKeepDying` cancel the body and come
    out of the `async with`. At the end the workers get SIGTERM and their grace, then SIGKILL.

    Workers see the environment as it was when the first supervisor of this process started one.
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
    ) -> None:
        """`copies` is the number of processes per actor; `settings` say where the bus is."""
        logs = logs or LogSettings.from_environ()
        self._specs = [
            (actor, WorkerSpec(flow=found.source, agent=agent, settings=settings, logs=logs, grace_s=grace_s))
            for found in flows
            for actor, agent in found.plan.actors().items()
            for _ in range(copies)
        ]
        asks_models = any(not agent.handler for found in flows for agent in found.flow.agents.values())
        self._preload = [worker_main.__module__, *([_SDK] if asks_models else [])]
        self._restart, self._grace_s = restart, grace_s
        self._waiting = [actor for actor, _ in self._specs]
        self._all_ready = asyncio.Event()
        self._live: dict[BaseProcess, str] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every worker has taken up work once. Raises `WorkersNotReady`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_ready.wait()
        except TimeoutError as error:
            raise WorkersNotReady(self._waiting, timeout_s) from error

    @property
    def pids(self) -> dict[int, str]:
        """The processes that live now: the actor of each by its process id."""
        return {process.pid: actor for process, actor in list(self._live.items()) if process.pid}

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        # One thread: `start` blocks until the fork server has imported all, and processes start one by one.
        with ThreadPoolExecutor(1, thread_name_prefix="start workers") as starter:
            try:
                async with asyncio.TaskGroup() as group:
                    keepers = [group.create_task(self._keep(starter, *spec)) for spec in self._specs]
                    try:
                        yield
                    finally:
                        for keeper in keepers:
                            keeper.cancel()
                        await asyncio.to_thread(self._stop, starter)
            except BaseExceptionGroup as errors:
                first = errors.exceptions[0]
                raise first from first.__cause__

    async def _keep(self, starter: ThreadPoolExecutor, actor: str, spec: WorkerSpec) -> None:
        """Run one worker, and another whenever it has died."""
        loop = asyncio.get_running_loop()
        deaths, wait_s, was_ready = 0, _WAIT_FIRST_S, False
        while True:
            process, heard = await loop.run_in_executor(starter, self._start, actor, spec)
            started = loop.time()
            word = await _first_word(heard)
            if word == "" and not was_ready:
                was_ready = True
                self._waiting.remove(actor)
                if not self._waiting:
                    self._all_ready.set()
            elif word and not was_ready:
                raise WorkerCannotStart(actor, word)
            await _readable(process.sentinel)
            exit_code = self._bury(process)
            deaths += 1
            if deaths > RESTARTS_MAX and not self._restart:
                raise WorkersKeepDying(actor, deaths, exit_code)
            if loop.time() - started > _LIVED_S:
                wait_s = _WAIT_FIRST_S
            logger.warning("worker.died", actor=actor, exit_code=exit_code, reason=word or "", restart_in_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_MAX_S)

    def _start(self, actor: str, spec: WorkerSpec) -> tuple[BaseProcess, Connection]:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(method)
        context.set_forkserver_preload(self._preload)
        heard, ready = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(target=worker_main, args=(spec, ready), name=f"baton {actor}")
        with _terminal_signals_blocked(), _no_main_module():
            process.start()
        self._live[process] = actor
        ready.close()
        return process, heard

    def _bury(self, process: BaseProcess) -> int:
        process.join()
        exit_code = process.exitcode
        del self._live[process]
        process.close()  # should it live after all (the fork server was killed), it now sees its parent gone
        return 1 if exit_code is None else exit_code

    def _stop(self, starter: ThreadPoolExecutor) -> None:
        starter.shutdown(cancel_futures=True)
        deadline = time.monotonic() + self._grace_s + _GOODBYE_S
        for process in self._live:
            process.terminate()
        for process in list(self._live):
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                logger.warning("worker.killed", actor=self._live[process], grace_s=self._grace_s)
                process.kill()
            self._bury(process)


async def _first_word(heard: Connection) -> str | None:
    """Return what a worker says of its start, or None when it ends without a word."""
    try:
        await _readable(heard.fileno())
        word: str = heard.recv()
    except EOFError:
        return None
    finally:
        heard.close()
    return word


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)


@contextlib.contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Have what is started now not hear Ctrl-C and hang-up, from its first instant: we get them, and stop it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Have multiprocessing not import our `__main__` in the child: no worker needs the command line there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
