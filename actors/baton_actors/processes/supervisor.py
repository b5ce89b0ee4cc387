"""The supervisor: keeps the worker processes of flows alive, and ends them, with all that they have started."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import msgspec
import structlog

from baton_actors.agents.loading import FoundFlow
from baton_actors.agents.signatures import asks_models
from baton_actors.models import ModelError, ModelSettings
from baton_actors.processes.child import Child, End
from baton_actors.processes.deaths import Deaths, remembering
from baton_actors.processes.errors import WorkerCannotStart, WorkersKeepDying, WorkersNotReady
from baton_actors.processes.forks import REHEARSAL, SDK
from baton_actors.processes.groups import Groups
from baton_actors.processes.hearing import Tell
from baton_actors.processes.hosting import GRACE_S
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.main import ORPHAN_S, RECYCLE, REFUSED, WorkerSpec
from baton_actors.processes.printed import Printed
from baton_actors.processes.watchdog import STUCK_S
from baton_actors.steps.held import HeldStep
from baton_bus import Settings

RESTARTS_MAX = 10
"""Per worker, where a run waits for it: with the waits below about three minutes of trying."""
_WAIT_FIRST_S, _WAIT_MAX_S = 0.5, 30.0
"""Before a restart: short after one crash, and no load on the machine when each start fails."""
_LIVED_S = 60.0
"""A worker that lived so long had started well: the next restart is a first one."""
_READY_S = 60.0
"""For a worker that is to replace another to take work: seconds, unless a handler's imports are slow."""
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
    agents = [(agent, found.folder) for found in flows for agent in found.flow.agents.values()]
    if any(agent.handler and asks_models(agent, folder) for agent, folder in agents):
        return [SDK, REHEARSAL]  # whichever answers: their files import the SDK
    if any(found.flow.providers for found in flows):
        return [SDK, REHEARSAL]  # some of their models may be asked, and others rehearsed
    return ([REHEARSAL] if rehearses else [SDK]) if any(agent.asks_models for agent, _ in agents) else []


class _Keeper:
    """Keeps one worker of an actor: whose process it is now, and whether another is to follow it."""

    def __init__(self, actor: str, spec: WorkerSpec) -> None:
        self.actor, self.spec = actor, spec
        self.task: asyncio.Task[None] | None = None
        self.child: Child | None = None
        self.is_ready: asyncio.Future[str] | None = None
        """Of one that is to replace another: `""` once it takes work, or why it cannot."""
        self.retired = False


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """A worker has died, and another takes its place."""

    actor: str
    end: End
    held: tuple[HeldStep, ...]
    """What it was doing."""
    restart_s: float
    """When the other one is started, in seconds."""


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
        on_printed: Tell | None = None,
        on_death: Callable[[Death], None] | None = None,
    ) -> None:
        """`copies` is the number of processes per actor; `settings` say where the bus is.

        A worker in which nothing runs for `stuck_s` seconds is killed. `on_printed` is given what handlers print, which
        else goes to stderr; `on_death` is told of each worker that dies, in place of the log.
        """
        logs = logs or LogSettings.from_environ()
        self._like = WorkerSpec(flow="", agent="", settings=settings, logs=logs, grace_s=grace_s, stuck_s=stuck_s)
        self._copies = copies
        self._keepers = [keeper for found in flows for keeper in self._keepers_of(found)]
        self._preload = preload_of(flows)
        self._restart, self._grace_s, self._stuck_s = restart, grace_s, stuck_s
        self._waiting = [keeper.actor for keeper in self._keepers]
        self._all_ready = asyncio.Event()
        self._failed = False
        self._live: list[Child] = []
        self._retiring: set[_Keeper] = set()
        """Whose workers still hold work that they began before others took their place."""
        self._start_keeper: Callable[[_Keeper], asyncio.Task[None]] | None = None
        self._groups = Groups(ORPHAN_S)
        self.deaths = Deaths()
        """How workers died, while the context is open."""
        self._said: deque[str] = deque(maxlen=_REASONS_MAX)
        self._tell, self._on_death = on_printed or _to_stderr, on_death
        self._ended: list[Child] = []
        """Dead workers whose last words are not taken yet."""
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
    def starting(self) -> list[str]:
        """The actors of workers that have not taken up work yet, one for each."""
        return list(self._waiting)

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
                    for keeper in self._keepers:
                        keeper.task = group.create_task(self._keep(starter, keeper))
                        keeper.task.add_done_callback(self._note_failure)
                    self._start_keeper = lambda keeper: group.create_task(self._keep(starter, keeper))
                    try:
                        yield
                    finally:
                        self._start_keeper = None
                        tasks = [each.task for each in (*self._keepers, *self._retiring) if each.task is not None]
                        for task in tasks:
                            task.cancel()
                        try:
                            await asyncio.gather(*tasks, return_exceptions=True)
                        finally:
                            await asyncio.to_thread(self._stop, starter)
                            self._hear_last_words()
            except BaseExceptionGroup as errors:
                first = errors.exceptions[0]
                raise first from first.__cause__

    async def reload(self, found: FoundFlow, agents: Collection[str]) -> None:
        """Have these agents of a flow played by new workers, which find its files as they are now.

        An old one goes on until a new one takes its work, and then lets go of what it holds as that is done. Agents
        that the flow has besides are left as they are, those that it has no more are retired. Raises
        `WorkerCannotStart`, `WorkersNotReady`: then the old ones go on.
        """
        ours = [keeper for keeper in self._keepers if keeper.spec.flow == found.source]
        new = [keeper for keeper in self._keepers_of(found) if keeper.spec.agent in agents]
        assert self._start_keeper is not None, "a supervisor reloads while its context is open"
        for keeper in new:
            keeper.is_ready = asyncio.get_running_loop().create_future()
            keeper.task = self._start_keeper(keeper)
        self._keepers += new
        try:
            async with asyncio.timeout(_READY_S):
                for keeper in new:
                    assert keeper.is_ready is not None
                    if reason := await keeper.is_ready:
                        raise WorkerCannotStart(keeper.actor, reason)
        except TimeoutError as error:
            self._retire(new)
            raise WorkersNotReady([keeper.actor for keeper in new], _READY_S) from error
        except BaseException:
            self._retire(new)
            raise
        actors = found.plan.actors()
        replaced = {keeper.actor for keeper in new}
        self._retire([keeper for keeper in ours if keeper.actor in replaced or keeper.actor not in actors])

    def _keepers_of(self, found: FoundFlow) -> list[_Keeper]:
        like = msgspec.structs.replace(self._like, flow=found.source)
        if found.recorded:
            like = msgspec.structs.replace(like, body=found.plan.body, folder=found.folder)
        return [
            _Keeper(actor, msgspec.structs.replace(like, agent=agent, actor=actor))
            for actor, agent in found.plan.actors().items()
            for _ in range(self._copies)
        ]

    def _retire(self, keepers: Sequence[_Keeper]) -> None:
        """Have the workers of these end when they have done what they hold, and start none in their place."""
        for keeper in keepers:
            keeper.retired = True
            self._keepers.remove(keeper)
            if keeper.task is not None and not keeper.task.done():
                self._retiring.add(keeper)
            if keeper.child is not None:
                keeper.child.retire()

    async def _keep(self, starter: ThreadPoolExecutor, keeper: _Keeper) -> None:
        """Run one worker, and another whenever it has ended, until it is retired."""
        loop, actor = asyncio.get_running_loop(), keeper.actor
        deaths, wait_s, was_ready = 0, _WAIT_FIRST_S, False

        def on_ready() -> None:
            nonlocal was_ready
            self._said.clear()
            if not was_ready:
                was_ready = True
                self._on_ready(keeper)

        while not keeper.retired:
            child = keeper.child = await loop.run_in_executor(starter, self._start, actor, keeper.spec)
            started = loop.time()
            child.hearing.begin()
            if keeper.retired:  # while it was being started
                child.retire()
            await child.watch(self._stuck_s, on_ready)
            keeper.child = None
            end = self._bury(child)
            self._hear_last_words()
            held = self.deaths.held_by(child.pid)
            await asyncio.to_thread(self._groups.end, child.pid)
            if keeper.is_ready is not None and not keeper.is_ready.done():
                keeper.is_ready.set_result(end.reason or end.how)  # the one that it was to replace goes on
                return
            if keeper.retired:
                logger.info("worker.retired", actor=actor)
                break
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
            self._say(Death(actor=actor, end=end, held=tuple(held), restart_s=wait_s))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _WAIT_MAX_S)
        self._retiring.discard(keeper)

    def _on_ready(self, keeper: _Keeper) -> None:
        if keeper.is_ready is not None:
            if not keeper.is_ready.done():
                keeper.is_ready.set_result("")
            return
        self._waiting.remove(keeper.actor)
        if not self._waiting:
            self._all_ready.set()

    def _note_failure(self, keeper: asyncio.Task[None]) -> None:
        self._failed |= not keeper.cancelled() and keeper.exception() is not None

    def _say(self, death: Death) -> None:
        """Say that a worker has died; a reason why it cannot start only once, until one can."""
        actor, end = death.actor, death.end
        if end.reason:
            if end.reason not in self._said:
                self._said.append(end.reason)
                logger.error("worker.cannot_start", actor=actor, reason=end.reason, tried_again_within_s=_WAIT_MAX_S)
        elif self._on_death is not None:
            self._on_death(death)
        else:
            held = [f"{step.run} {step.step}" for step in death.held]
            logger.warning(
                "worker.died",
                actor=actor,
                how=end.how,
                exit_code=end.exit_code,
                did=held,
                restart_in_s=death.restart_s,
            )

    def _hear_last_words(self) -> None:
        while self._ended:
            self._ended.pop().hearing.close()

    def _start(self, actor: str, spec: WorkerSpec) -> Child:
        child = Child.start(actor, msgspec.structs.replace(spec, deaths=self.deaths), self._preload, self._tell)
        self._live.append(child)
        self._groups.add(child.pid)
        self.deaths.forget(child.pid)
        return child

    def _bury(self, child: Child) -> End:
        end = child.bury()
        self.deaths.note(child.pid, end.how)
        self._live.remove(child)
        self._ended.append(child)
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


def _to_stderr(lines: Sequence[Printed]) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("".join(line.text + "\n" if line.is_log else f"{line.who} | {line.text}\n" for line in lines))
        sys.stderr.flush()
