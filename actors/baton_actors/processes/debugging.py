"""All actors of a flow in this one process, so that `breakpoint()` has the terminal: what `baton run --debug` does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pdb
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import CodeType, FrameType
from typing import Any

from baton_actors.agents import contained
from baton_actors.agents.debugged import DebuggedAgents
from baton_actors.agents.kinds import StepTask
from baton_actors.agents.loading import FoundFlow, needs_models, with_nested
from baton_actors.agents.raising import caught
from baton_actors.models import Models, ModelSettings
from baton_actors.processes.hosting import hosting
from baton_actors.processes.logs import LogSettings, carry_logging
from baton_bus.engine.engine import Engine

_HANDLERS: tuple[CodeType, ...] = (
    contained._run.__code__,
    contained._Guarded.send.__code__,
    contained._Guarded.throw.__code__,
    caught.__code__,
)
"""What calls the code of handlers: whatever runs below one of these is theirs."""


@contextlib.asynccontextmanager
async def debugging(
    engine: Engine,
    found: FoundFlow,
    logs: LogSettings,
    *,
    on_begin: Callable[[StepTask], None],
    quits: Callable[[], None],
    grace_s: float,
) -> AsyncIterator[None]:
    """Play all actors of the flow here while the context is open, one step at a time; `on_begin` is told of each.

    `quits` is called when the person wants it to end, in the loop.

    No attempt times out, and leases are kept from a thread, however long somebody sits at the prompt. What handlers
    print goes to stderr. Ctrl-C at the prompt is the debugger's, in a handler it ends that, and so the command. Raises
    as `hosting`.
    """
    async with contextlib.AsyncExitStack() as stack:
        models = None
        played = with_nested([found])
        if any(map(needs_models, played)):
            models = await stack.enter_async_context(Models(ModelSettings.from_environ()))
            for each in played:
                models.providers.know(each.name, each.flow.providers)
            await models.open()
        carry_logging(logs)
        stack.enter_context(_stdout_is_stderr())
        stack.enter_context(_debugger())
        stack.enter_context(_interrupts(quits))

        turn = asyncio.Lock()

        def agents(models: Models | None) -> DebuggedAgents:
            return DebuggedAgents(models, on_begin=on_begin, on_quit=quits, turn=turn)

        for each in played:
            names = list(each.flow.agents)
            await stack.enter_async_context(
                hosting(engine, each, names, models=models, grace_s=grace_s, make_agents=agents)
            )
        yield


@contextlib.contextmanager
def _stdout_is_stderr() -> Iterator[None]:
    """Have what is printed go to stderr, by subprocesses and C code too: stdout is for the output of the run."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _debugger() -> Iterator[None]:
    """Have `pdb` leave SIGINT to us: its own handler would stop anywhere in our loop, with no way back."""
    before = pdb.set_trace

    def set_trace(*, header: str | None = None, **_: Any) -> None:
        debugger = pdb.Pdb(nosigint=True)
        if header is not None:
            debugger.message(header)
        debugger.set_trace(sys._getframe(1))

    pdb.set_trace = set_trace
    try:
        yield
    finally:
        pdb.set_trace = before


@contextlib.contextmanager
def _interrupts(quits: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C be heard in handlers, where the loop does not turn; elsewhere it `quits`."""
    loop = asyncio.get_running_loop()

    def on_interrupt(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code in _HANDLERS:
                raise KeyboardInterrupt
            frame = frame.f_back
        loop.call_soon_threadsafe(quits)

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    loop.remove_signal_handler(signal.SIGINT)
    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # so that none is missed by what is in between
        loop.add_signal_handler(signal.SIGINT, quits)
