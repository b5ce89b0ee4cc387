"""One worker process of a chaos run: hosts actors as `baton actor` does, and says what their handlers do."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import os
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from msgspec import Raw, Struct

import baton_actors.models.sdk  # noqa: F401 (takes a second: once, in the process that the others are forked from)
from baton_actors.agents.handlers import Context
from baton_actors.agents.loading import find_flow
from baton_actors.agents.performing import Performed, Performer
from baton_actors.models import ModelAnswer, ModelRequest, Models, ModelSettings
from baton_actors.processes import hosting, logs
from baton_actors.services.steward import Steward
from baton_actors.steps.memory import Memory
from baton_bus import Bus, Settings, connect
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import Note

from . import crash
from .history import History, say_lags

FLOWS = Path(__file__).with_name("flows")

_read_at: contextvars.ContextVar[float] = contextvars.ContextVar("when the notes of earlier attempts were read")
_attempt: contextvars.ContextVar[str] = contextvars.ContextVar("the attempt that this task makes")


class WorkerSpec(Struct, frozen=True, kw_only=True):
    """What a process is to host. It can be pickled."""

    flow: str
    agents: tuple[str, ...]
    """Of the flow; none for its steward."""
    settings: Settings
    model_url: str
    history: str
    """Path of the history."""
    log: str
    """Path of the file that takes the process's own log."""
    crash: str = ""
    """Kill the process at a bus operation: see `crash.py`."""


def worker_main(spec: WorkerSpec) -> None:
    """Work until killed, or until the driver is gone."""
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    os.dup2(os.open(spec.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), sys.stderr.fileno())
    logs.configure(logs.LogSettings(format="json", level="warning"))
    history = History(Path(spec.history))
    _watch_attempts(history)
    _watch_models(history)
    crash.arm(spec.crash, history)
    asyncio.run(_work(spec, history))


async def _work(spec: WorkerSpec, history: History) -> None:
    found = find_flow(str(FLOWS / f"{spec.flow}.toml"))
    async with contextlib.AsyncExitStack() as stack:
        lags = asyncio.create_task(say_lags(history, spec.settings.lease_s))
        stack.callback(lags.cancel)
        bus = await stack.enter_async_context(connect(spec.settings, name=f"chaos {spec.flow} {spec.agents}"))
        if spec.agents:
            models = None
            if not all(found.flow.agents[agent].handler for agent in spec.agents):
                settings = ModelSettings(api_key="none", base_url=spec.model_url)
                models = await stack.enter_async_context(Models(settings))
                await models.open()
            await stack.enter_async_context(hosting.hosting(bus, found, spec.agents, models=models))
        else:
            await stack.enter_async_context(Steward(bus, {found.name: found.plan}).working())
        history.say("worker.ready", flow=spec.flow, agents=spec.agents)
        await asyncio.Event().wait()


def _watch_attempts(history: History) -> None:
    """Say when a handler, or the asking of a model, begins and ends, and what its worker knew from the log then."""
    perform, notes, numbers = Performer.perform, Bus.notes, itertools.count()

    async def watched_notes(self: Bus, actor: str, run: str, step: str) -> list[Note]:
        _read_at.set(time.time())
        return await notes(self, actor, run, step)

    async def watched_perform(
        self: Performer, plan: Plan, step: str, values: Mapping[str, Raw], context: Context, memory: Memory
    ) -> Performed:
        attempt = f"{os.getpid()}-{next(numbers)}"
        _attempt.set(attempt)
        facts: dict[str, Any] = {"attempt": attempt, "run": context.run, "step": context.step}
        history.say("step.began", number=context.attempt, knew_at=_read_at.get(time.time()), **facts)
        how = "cancelled"
        try:
            performed = await perform(self, plan, step, values, context, memory)
            how = "done"
            return performed
        except Exception as error:
            how = type(error).__name__
            raise
        finally:
            history.say("step.ended", how=how, **facts)

    Performer.perform = watched_perform  # type: ignore[method-assign]
    Bus.notes = watched_notes  # type: ignore[method-assign]


def _watch_models(history: History) -> None:
    """Say which attempt asks a model; the model says itself what it was asked."""
    complete = Models.complete

    async def watched_complete(self: Models, request: ModelRequest, on_chunk: Any = None) -> ModelAnswer:
        history.say("step.asks", attempt=_attempt.get())
        return await complete(self, request, on_chunk)

    Models.complete = watched_complete  # type: ignore[method-assign]


def _end_with_the_driver() -> None:
    parent = parent_process()
    assert parent is not None, "workers are started by the driver"
    wait([parent.sentinel])
    os._exit(1)
