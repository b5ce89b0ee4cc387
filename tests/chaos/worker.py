"""One worker process of a chaos run: hosts actors as `baton actor` does, and says what their handlers do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from msgspec import Struct

import baton_actors.models.sdk  # noqa: F401 (takes a second: once, in the process that the others are forked from)
from baton_actors.agents.kinds import AgentKind, Performed, StepTask
from baton_actors.agents.kinds import Journal as AgentJournal
from baton_actors.agents.loading import find_flow, needs_models, with_nested
from baton_actors.agents.nested import NestedAgent
from baton_actors.agents.orchestrator import OrchestratorAgent
from baton_actors.agents.person import PersonAgent
from baton_actors.agents.prompt import PromptAgent
from baton_actors.agents.python import PythonAgent
from baton_actors.models import ModelAnswer, ModelRequest, Models, ModelSettings
from baton_actors.processes import hosting, logs
from baton_actors.services.steward import Steward
from baton_actors.steps import failing
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.jetstream.consumer import Puller
from baton_bus.jetstream.delivery import Delivery
from baton_bus.store.bus import Bus, open_bus
from baton_bus.store.clock import Clock
from baton_schemas.wire.messages import Note

from . import crash, telling
from .history import History, real_time, say_lags

FLOWS = Path(__file__).with_name("flows")
PARK_FROM_S = 0.3
"""Retries that wait for as long are parked, so that some are in each run of a minute."""
CLOCK_STEP_S = 7200.0
TOO_MANY_HUNG = 70
"""The exit code of a process that begins anew as too many of its handlers hang."""

_read_at: dict[tuple[str, str], float] = {}
"""By run and step: when the notes of earlier attempts were read, before they were."""


class WorkerSpec(Struct, frozen=True, kw_only=True):
    """What a process is to host. It can be pickled."""

    flow: str
    agents: tuple[str, ...]
    """Of the flow."""
    nested: bool = False
    """Host all agents of the flows within it besides."""
    steward: bool = False
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
    failing.PARK_FROM_S = PARK_FROM_S
    telling.tell_to(history)
    _watch_attempts(history)
    _watch_models(history)
    _watch_acks(history)
    _watch_connections(history)
    _let_the_clock_step()
    crash.arm(spec.crash, history)
    asyncio.run(_work(spec, history))


async def _work(spec: WorkerSpec, history: History) -> None:
    found = find_flow(str(FLOWS / f"{spec.flow}.toml"))
    async with contextlib.AsyncExitStack() as stack:
        lags = asyncio.create_task(say_lags(history))
        stack.callback(lags.cancel)
        bus = await stack.enter_async_context(open_bus(spec.settings, name=f"chaos {spec.flow} {spec.agents}"))
        too_many_hang = asyncio.Event()
        if spec.agents:
            models = None
            if needs_models(found, spec.agents):
                settings = ModelSettings(api_key="none", base_url=spec.model_url)
                models = await stack.enter_async_context(Models(settings))
                await models.open()
            hosted = hosting.hosting(Engine(bus), found, spec.agents, models=models)
            too_many_hang = await stack.enter_async_context(hosted)
        for within in with_nested([found])[1:] if spec.nested else ():
            everyone = tuple(within.plan.actors().values())
            await stack.enter_async_context(hosting.hosting(Engine(bus), within, everyone))
        if spec.steward:
            await stack.enter_async_context(Steward(Engine(bus), {found.name: found.plan}).working())
        history.say("worker.ready", flow=spec.flow, agents=spec.agents)
        await too_many_hang.wait()
    os._exit(TOO_MANY_HUNG)  # the threads that hang would keep it


def _watch_attempts(history: History) -> None:
    """Say when a handler, or the asking of anybody else, begins and ends, and what its worker knew of the log."""
    read, numbers = Journal.read, itertools.count()

    async def watched_read(self: Journal) -> list[Note]:
        _read_at[self._run, self._step] = real_time()
        return await read(self)

    def watch(kind: type[PythonAgent | PromptAgent | OrchestratorAgent | PersonAgent | NestedAgent]) -> None:
        perform: Callable[[Any, StepTask, AgentJournal], Awaitable[Performed]] = kind.perform

        async def watched_perform(self: AgentKind, task: StepTask, journal: AgentJournal) -> Performed:
            attempt = f"{os.getpid()}-{next(numbers)}"
            telling.attempt.set(attempt)
            facts: dict[str, Any] = {"attempt": attempt, "run": task.context.run, "step": task.context.step}
            read_at = _read_at.pop((task.context.run, task.context.step), None)
            knew_at, looked = read_at or real_time(), read_at is not None  # at a fresh first delivery there is nothing
            history.say("step.began", number=task.context.attempt, knew_at=knew_at, looked=looked, **facts)
            how = "cancelled"
            try:
                performed = await perform(self, task, journal)
                how = "done"
                return performed
            except Exception as error:
                how = type(error).__name__
                raise
            finally:
                history.say("step.ended", how=how, **facts)

        kind.perform = watched_perform  # type: ignore[method-assign]

    watch(PythonAgent)
    watch(PromptAgent)
    watch(OrchestratorAgent)
    watch(PersonAgent)
    watch(NestedAgent)
    Journal.read = watched_read  # type: ignore[method-assign]


def _watch_models(history: History) -> None:
    """Say which attempt asks a model; the model says itself what it was asked."""
    complete = Models.complete

    async def watched_complete(self: Models, request: ModelRequest, *args: Any, **options: Any) -> ModelAnswer:
        turn = sum(each.role == "assistant" for each in request.turns)
        history.say("step.asks", attempt=telling.attempt.get(), turn=turn)
        return await complete(self, request, *args, **options)

    Models.complete = watched_complete  # type: ignore[method-assign]


def _watch_acks(history: History) -> None:
    """Say of each delivery when it is acked: not later than the word leaves."""
    settle = Puller.settle

    async def watched_settle(self: Puller, delivery: Delivery, body: bytes) -> None:
        if not body:
            history.say("delivery.acked", seq=delivery.seq, kind=self.consumer.rpartition(".")[2].partition("-")[0])
        await settle(self, delivery, body)

    Puller.settle = watched_settle  # type: ignore[method-assign]


def _watch_connections(history: History) -> None:
    lost, back = Bus.on_lost, Bus.on_back

    def watched_lost(self: Bus) -> None:
        history.say("bus.lost")
        lost(self)

    def watched_back(self: Bus) -> None:
        history.say("bus.back")
        back(self)

    Bus.on_lost = watched_lost  # type: ignore[method-assign]
    Bus.on_back = watched_back  # type: ignore[method-assign]


def _let_the_clock_step() -> None:
    """Each SIGUSR1 sets this process's clock two hours on, or back again."""
    steps = itertools.count(1)
    offset_s = 0.0

    def step(*_: object) -> None:
        nonlocal offset_s
        offset_s = CLOCK_STEP_S if next(steps) % 2 else 0.0

    def stepped_time() -> float:
        return real_time() + offset_s

    time.time = stepped_time
    Clock.__init__.__defaults__ = (time.monotonic, stepped_time)
    signal.signal(signal.SIGUSR1, step)


def _end_with_the_driver() -> None:
    parent = parent_process()
    assert parent is not None, "workers are started by the driver"
    wait([parent.sentinel])
    os._exit(1)
