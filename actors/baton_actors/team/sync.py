"""The sync twin: the same team for a program without an event loop, or for a notebook, whose loop is not ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from typing import Any, Self, TypeVar, overload

from baton_actors.team.errors import CalledFromItself, TeamClosed
from baton_actors.team.team import Team, WhichFlow
from baton_bus import File, Run
from baton_bus.client.people import Waiting
from baton_bus.client.runs import RunHead
from baton_schemas.run.state import Entry, RunState, RunStatus
from baton_schemas.wire.messages import Result
from baton_schemas.wire.money import Budget
from baton_schemas.wire.words import Running, Word

T = TypeVar("T")
E = TypeVar("E")


class LoopThread:
    """An event loop in a thread of its own. Any other thread may call."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="baton team", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and return what it returns. An interruption (Ctrl-C) cancels it first.

        Raises what it raises; `TeamClosed`, `CalledFromItself`.
        """
        if threading.current_thread() is self._thread or self._loop.is_closed():
            coroutine.close()
            raise TeamClosed if self._loop.is_closed() else CalledFromItself
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            if not future.done():  # what was raised is this thread's
                future.cancel()

    def close(self) -> None:
        """End the loop and its thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())


class SyncRun:
    """One run. `SyncTeam.start` and `SyncTeam.get` give it."""

    def __init__(self, run: Run, thread: LoopThread) -> None:
        self._run, self._thread = run, thread
        self.id, self.flow = run.id, run.flow

    @overload
    def result(self, timeout_s: float | None = None, *, returns: type[T]) -> T: ...

    @overload
    def result(self, timeout_s: float | None = None, *, returns: Any = Any) -> Any: ...

    def result(self, timeout_s: float | None = None, *, returns: Any = Any) -> Any:
        """Wait for the end of the run and return its output: see `Run.result`."""
        return self._thread.call(self._run.result(timeout_s, returns=returns))

    def ended(self, timeout_s: float | None = None) -> Result:
        """Wait for the end of the run and return its result as the log has it: see `Run.ended`."""
        return self._thread.call(self._run.ended(timeout_s))

    def state(self) -> RunState:
        """Return how the run stands: see `Run.state`."""
        return self._thread.call(self._run.state())

    def events(self) -> Iterator[Entry]:
        """Yield the messages of the run in their order, and then as they come, up to its result."""
        return self._each(self._run.events())

    def watch(self) -> Iterator[Entry | Running | Word]:
        """Yield the same, and between them what its steps say while they are done: see `Run.watch`."""
        return self._each(self._run.watch())

    def answer(self, step: str, value: Any, *, who: str = "", note: str = "", role: str = "") -> bool:
        """Answer a question that this run asks people: see `Run.answer`."""
        return self._thread.call(self._run.answer(step, value, who=who, note=note, role=role))

    def say(self, event: str, value: Any = None, *, who: str = "", note: str = "") -> bool:
        """Tell this run of an event: see `Run.say`."""
        return self._thread.call(self._run.say(event, value, who=who, note=note))

    def cancel(self, reason: str = "cancelled by a client") -> Result:
        """End the run if it has not ended: see `Run.cancel`."""
        return self._thread.call(self._run.cancel(reason))

    def fork(self, *, until_seq: int = 0, run_id: str = "") -> SyncRun:
        """Start a run that goes on from this one: see `Run.fork`."""
        return SyncRun(self._thread.call(self._run.fork(until_seq=until_seq, run_id=run_id)), self._thread)

    def _each(self, events: AsyncGenerator[E, None]) -> Iterator[E]:
        try:
            while (event := self._thread.call(_next(events))) is not None:
                yield event
        finally:
            self._thread.call(events.aclose())


class SyncTeam:
    """Runs flows and looks at runs, as `Team` does, without `await`. Any thread may use it."""

    def __init__(self, team: Team, thread: LoopThread, end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`end` closes the team, in the thread's loop."""
        self._team, self._thread, self._end = team, thread, end
        self._closed = False

    @overload
    def run(
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
    def run(
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

    def run(
        self,
        flow: WhichFlow | None = None,
        /,
        input: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> Any:
        """Run a flow to its end and return its output: see `Team.run`."""
        return self._thread.call(self._team.run(flow, input, **given))

    def start(
        self,
        flow: WhichFlow | None = None,
        /,
        input: Mapping[str, Any] | None = None,
        *,
        run_id: str = "",
        deadline_s: float | None = None,
        budget: Budget | float | None = None,
        **fields: Any,
    ) -> SyncRun:
        """Start a run and return it: see `Team.start`."""
        started = self._team.start(flow, input, run_id=run_id, deadline_s=deadline_s, budget=budget, **fields)
        return SyncRun(self._thread.call(started), self._thread)

    def get(self, run_id: str) -> SyncRun:
        """Return a run by its id, whoever started it. Raises `BadToken`."""
        return SyncRun(self._team.get(run_id), self._thread)

    def runs(self, limit: int = 20, *, flow: str = "", status: RunStatus | None = None) -> list[RunHead]:
        """Return the runs that began last, the newest first: see `Team.runs`."""
        return self._thread.call(self._team.runs(limit, flow=flow, status=status))

    def inbox(self, role: str = "") -> list[Waiting]:
        """Return what waits for people, the one that waits longest first: see `Client.inbox`."""
        return self._thread.call(self._team.inbox(role))

    def download(self, file: File | Mapping[str, Any]) -> bytes:
        """Return the bytes of a file that a run put out: see `Client.download`."""
        return self._thread.call(self._team.download(file))

    def close(self) -> None:
        """Close the team, and end its thread and its server. Doing it twice changes nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._thread.call(self._end())
        finally:
            self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def _next(events: AsyncGenerator[E, None]) -> E | None:
    return await anext(events, None)
