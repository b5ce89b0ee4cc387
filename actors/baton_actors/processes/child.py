"""A worker's process as its supervisor sees it: forked from a server that has paid for the imports, watched, buried."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType

import structlog
from msgspec import Struct

from baton_actors.processes.deaths import told
from baton_actors.processes.forks import fork_context, stdout_not_inherited, terminal_signals_blocked
from baton_actors.processes.hearing import Hearing, Tell
from baton_actors.processes.main import RETIRE, WorkerSpec, worker_main
from baton_actors.processes.watchdog import Watch

logger = structlog.get_logger("baton.supervisor")


class End(Struct, frozen=True):
    """How a worker ended."""

    exit_code: int
    """Negative for a signal."""
    how: str
    """The same for people; or that its supervisor killed it, and why."""
    word: str | None
    """What it said of its start: nothing, `""` for being ready, or why it could not."""

    @property
    def reason(self) -> str:
        """Why it could not start; empty if it could, or did not say."""
        return self.word or ""


class Child:
    """One worker's process. Make it with `start`; it has ended when `bury` returns."""

    def __init__(self, actor: str, process: BaseProcess, pipe: Connection, hearing: Hearing) -> None:
        self.actor, self.pid = actor, process.pid or 0
        self.hearing = hearing
        """What it prints. Whoever starts the child begins it, and closes it once it is buried."""
        self._process, self._pipe = process, pipe
        self._word: str | None = None
        self._how = ""

    @classmethod
    def start(cls, actor: str, spec: WorkerSpec, preload: Sequence[str], tell: Tell) -> Child:
        """Start a worker; `preload` names the modules that the fork server imports. Blocks until it has.

        `tell` is given what it prints.
        """
        context = fork_context(preload)
        heard, said = context.Pipe(duplex=False)
        prints, printed = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(target=worker_main, args=(spec, said, printed), name=f"baton {actor}")
        with terminal_signals_blocked(), _no_main_module(), stdout_not_inherited():
            process.start()
        said.close()
        printed.close()
        held = spec.deaths.held_file(process.pid or 0)
        return cls(actor, process, heard, Hearing(prints, actor, held, tell))

    async def watch(self, stuck_s: float, on_ready: Callable[[], None]) -> None:
        """Hear it until it has ended, and kill it when it is silent for `stuck_s` seconds."""

        def on_stuck() -> None:
            self._how = f"killed by its supervisor: it did nothing for {stuck_s:g} s"
            logger.error("worker.stuck", actor=self.actor, pid=self.pid, silent_s=stuck_s)
            self._process.kill()

        watch = Watch(self._pipe, stuck_s=stuck_s, on_ready=on_ready, on_stuck=on_stuck)
        try:
            with watch.listening():
                await _readable(self._process.sentinel)
        finally:
            self._word = watch.word

    def terminate(self) -> None:
        """Tell it to stop."""
        self._process.terminate()

    def retire(self) -> None:
        """Tell it to take no more work, and to end once it has done what it holds."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, RETIRE)

    def end_within(self, wait_s: float) -> bool:
        """Wait for its end, and kill it when it takes longer; say whether it ended by itself."""
        self._process.join(wait_s)
        if self._process.exitcode is not None:
            return True
        self._process.kill()
        return False

    def bury(self) -> End:
        """Wait for its end, and return it."""
        self._process.join()
        exit_code = 1 if self._process.exitcode is None else self._process.exitcode
        self._pipe.close()
        self._process.close()  # should it live after all (the fork server was killed), it now sees its parent gone
        return End(exit_code, self._how or told(exit_code), self._word)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Have multiprocessing not import our `__main__` in the child: no worker needs the command line there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
