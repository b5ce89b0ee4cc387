"""The processes of a chaos run, and what the driver does to them: each that dies is started again."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Any

from msgspec.structs import replace

from .history import History
from .worker import WorkerSpec, worker_main

RESTART_S = 0.5
"""From the death of a process to the start of the next."""


class Member:
    """One place in the crew, and the process that has it now."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.process: BaseProcess | None = None
        self.deaths = 0
        self.doomed = False
        """Killed, and not yet seen to be dead."""

    @property
    def pid(self) -> int:
        return (self.process.pid or 0) if self.process is not None else 0


class Crew:
    """Workers as processes, forked from one that has paid for the imports."""

    def __init__(self, specs: Sequence[WorkerSpec], history: History, *, calm_after: int = 0) -> None:
        """A process that comes after so many deaths in its place is not made to crash by its spec."""
        self.members = [Member(spec) for spec in specs]
        self._history, self._calm_after = history, calm_after
        self._open = asyncio.Event()
        self._open.set()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="start workers")

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Keep all processes running while the context is open; then kill them."""
        keepers = [asyncio.create_task(self._keep(member)) for member in self.members]
        try:
            yield
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            self._starter.shutdown()
            for member in self.members:
                if member.process is not None:
                    member.process.kill()
                    member.process.join()

    @property
    def pids(self) -> set[int]:
        """The processes that live."""
        return {member.pid for member in self.members if member.pid and not member.doomed}

    def victim(self, aim: float, busy: set[int]) -> Member:
        """Return one of the busy workers if there are any, else one of all that live; `aim` is from 0 to 1."""
        alive = [member for member in self.members if member.pid and not member.doomed]
        aimed_at = [member for member in alive if member.pid in busy] or alive or self.members
        return aimed_at[int(aim * len(aimed_at))]

    def kill(self, member: Member) -> None:
        if member.process is not None:
            self._history.say("worker.killed", victim=member.pid)
            member.doomed = True
            member.process.kill()

    async def all_away(self, lasts_s: float) -> None:
        """Kill every worker, and start none for a while."""
        self._open.clear()
        for member in self.members:
            self.kill(member)
        await asyncio.sleep(lasts_s)
        self._open.set()

    def step_clock(self, member: Member) -> None:
        """Set the clock of a process two hours on, or back."""
        if (pid := member.pid) and not member.doomed:
            self._history.say("clock.stepped", victim=pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    async def stop_for(self, member: Member, lasts_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while: the process never knows."""
        if (pid := member.pid) == 0:
            return
        self._history.say("worker.stopped", victim=pid)
        with contextlib.suppress(ProcessLookupError):  # it may be killed before, or while it is stopped
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(lasts_s)
            if member.pid == pid:
                os.kill(pid, signal.SIGCONT)
        self._history.say("worker.continued", victim=pid)

    async def _keep(self, member: Member) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._open.wait()
            member.doomed = False
            spec = member.spec if member.deaths < self._calm_after else replace(member.spec, crash="")
            member.process = await loop.run_in_executor(self._starter, _start, spec)
            await _readable(member.process.sentinel)
            process, member.process = member.process, None
            process.join()
            self._history.say("worker.died", victim=process.pid, code=process.exitcode)
            member.deaths += 1
            process.close()
            await asyncio.sleep(RESTART_S)


def _start(spec: WorkerSpec) -> BaseProcess:
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker_main.__module__])
    process: BaseProcess = context.Process(target=worker_main, args=(spec,), name=f"chaos {spec.flow} {spec.agents}")
    process.start()
    return process


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)
