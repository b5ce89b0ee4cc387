"""Async handlers, each in a task of its own: what it raises, cancels or goes on with stays within its own step."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from baton_actors.agents.alarms import Alarms
from baton_actors.agents.clock import Clock
from baton_actors.agents.code_lines import CodeLine, lines_of_task
from baton_actors.agents.raising import unwrapped
from baton_actors.errors import HandlerHung, HandlerRaised

CLEAN_UP_S = 5.0
"""What a handler gets for its clean-up once it is cancelled or timed out: enough to close connections in good order.
One that still goes on is left to itself, so that it does not hold its place for ever."""

logger = structlog.get_logger("baton.worker")
_in_handler: contextvars.ContextVar[bool] = contextvars.ContextVar("in_handler", default=False)


_alarms: Alarms | None = None
"""Those of the loop that asked last: a process mostly has one."""
_going_on: set[asyncio.Task[None]] = set()
"""Those that were left to themselves: the loop's own references are weak."""


async def contained(call: Callable[[], Any], timeout_s: float, told: Callable[[Clock], None] | None = None) -> Any:
    """Call the user's code in a task of its own, await what it makes if that can be awaited, and return its result.

    Only `Exception`s come out (`HandlerRaised` for anything else, such as `SystemExit` or a cancellation that nobody
    asked for), `HandlerHung` when `timeout_s` ran out, and `CancelledError` when the caller itself was cancelled:
    whatever the clean-up then raised or returned. `told` is given the clock, which may be paused.

    A task of its own, as only so it is sure who was cancelled: before Python 3.13 a `TaskGroup` that fails leaves a
    cancellation behind in its task (https://github.com/python/cpython/issues/116720).
    """
    loop = asyncio.get_running_loop()
    alarms = _alarms_of(loop)
    ended: asyncio.Future[Any] = loop.create_future()
    task = asyncio.Task(_run(call, ended), loop=loop)
    timed_out = False
    hung: list[CodeLine] = []

    def time_out() -> None:
        nonlocal timed_out
        if not ended.done():
            hung.extend(lines_of_task(task))
        timed_out = ended.cancel()

    if told is None:
        cancel = alarms.set(timeout_s, time_out)
    else:
        clock = Clock(timeout_s, lambda left_s: alarms.set(left_s, time_out))
        told(clock)
        cancel = clock.end
    try:
        return unwrapped(await ended)
    except asyncio.CancelledError:  # of the waiting: what the handler raised comes as a result
        task.cancel()
        await asyncio.wait([task], timeout=CLEAN_UP_S)
        if not task.done():
            _going_on.add(task)
            task.add_done_callback(_going_on.discard)
            logger.warning("handler.goes_on", after_s=CLEAN_UP_S, why="it was cancelled and did not end")
        if not timed_out:
            raise
        raise HandlerHung(timeout_s, hung) from None
    finally:
        cancel()


def guard_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Keep what the tasks of handlers raise from ending the loop: a `SystemExit` in any task ends `run` otherwise.

    Tasks made outside of handlers are left as they are, and so is a loop that has a task factory of its own.
    """
    if loop.get_task_factory() is None:
        loop.set_task_factory(_task)


def _alarms_of(loop: asyncio.AbstractEventLoop) -> Alarms:
    """Return the alarms of a loop, which is made ready for handlers when it is first asked for."""
    global _alarms
    if _alarms is None or _alarms.loop is not loop:
        guard_tasks(loop)
        _alarms = Alarms(loop)
    return _alarms


async def _run(call: Callable[[], Any], ended: asyncio.Future[Any]) -> None:
    _in_handler.set(True)
    try:
        result = call()
        if inspect.isawaitable(result):
            result = await result
    except BaseException as error:
        result = HandlerRaised(error)
    if not ended.done():
        ended.set_result(result)


def _task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(_Guarded(coro) if _in_handler.get() else coro, loop=loop, **options)


class _Guarded(Coroutine[Any, Any, Any]):
    """A coroutine whose `KeyboardInterrupt` and `SystemExit` are ordinary errors."""

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def send(self, value: Any) -> Any:
        try:
            return self._inner.send(value)
        except (KeyboardInterrupt, SystemExit) as error:
            raise HandlerRaised(error) from error

    def throw(self, *error: Any) -> Any:
        try:
            return self._inner.throw(*error)
        except (KeyboardInterrupt, SystemExit) as raised:
            raise HandlerRaised(raised) from raised

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()
