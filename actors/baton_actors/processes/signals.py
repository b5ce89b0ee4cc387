"""Signals to the process of a command: each that asks it to stop ends it in order, workers first, then the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator

from baton_schemas.errors import Coded

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OK = 0
"""The exit code of a command that ended well."""


class Interrupted(Coded, Exception):
    """A signal asked the command to stop."""

    def __init__(self, number: int) -> None:
        """`number` of the signal."""
        self.number, self.exit_code = number, 128 + number
        super().__init__(f"stopped by signal {number}")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGINT raise `Interrupted` in what is no coroutine: what it has changed is put back on the way out."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGINT, before)


class Stop:
    """Which signal has asked the command to stop; 0 as long as none has."""

    def __init__(self) -> None:
        self.number = 0
        self.ask: Callable[[int], None] = lambda _: None
        """Does what the signal of this number would."""


def run_to_end(command: Callable[[Stop], Awaitable[int]], *, until_stopped: bool = False) -> int:
    """Run a command and return its exit code.

    SIGINT, SIGTERM and SIGHUP cancel it once; a further SIGINT cancels what it does to stop in order.
    Raises `Interrupted` then, unless it runs `until_stopped` and so has ended well; and whatever it raises.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        return asyncio.run(_guarded(command, until_stopped))
    finally:
        signal.signal(signal.SIGINT, before)  # closing the loop has set Python's own


async def _guarded(command: Callable[[Stop], Awaitable[int]], until_stopped: bool) -> int:
    loop, task, stop = asyncio.get_running_loop(), asyncio.current_task(), Stop()
    assert task is not None

    def on_signal(number: int) -> None:
        if not stop.number or number == signal.SIGINT:
            task.cancel()
        stop.number = stop.number or number

    stop.ask = on_signal
    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` asks for just that
            loop.add_signal_handler(number, on_signal, number)
    try:
        return await command(stop)
    except asyncio.CancelledError:
        if not stop.number:
            raise
        if until_stopped:
            return _OK
        raise Interrupted(stop.number) from None
