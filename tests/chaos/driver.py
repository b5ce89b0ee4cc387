"""One chaos run: a server, a proxy, a model, workers and clients, the faults of a schedule, and then the checks."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baton_actors.agents.loading import find_flow
from baton_bus import Bus, Settings, connect
from tests.servers import NatsServer

from . import raw
from .checker import Checker
from .clients import Clients
from .crew import Crew
from .history import History, say_lags
from .live import differences, export, watch_main
from .model import Model
from .proxy import Proxy
from .report import Report, make_report
from .schedule import Fault, schedule
from .worker import FLOWS, WorkerSpec

ALL_FLOWS = ("pipeline", "spread", "panel", "mix")
COPIES = 2
"""Processes of each actor."""
NAMESPACE = "chaos"
_READY_S = 90.0
_SETTLE_S = 120.0
"""After the last fault, for all runs to end and every delivery to be settled. A machine may be busy with others."""


@dataclass(frozen=True)
class Options:
    """What a chaos run is made of; the same options give the same submits and faults."""

    seed: int
    runs: int
    kills: int
    lease_s: float = 1.0
    gap_s: float = 0.6
    """Mean wait between two faults."""
    flows: tuple[str, ...] = ALL_FLOWS


async def run_chaos(options: Options, folder: Path) -> Report:
    """Make a run and check it. Everything that is needed to look into a failure is left in `folder`."""
    history = History(folder / "history.jsonl")
    server = NatsServer(folder / "nats")
    await asyncio.to_thread(server.start_now)
    try:
        live = await _run(options, folder, history, server)
        records = await raw.read_stream(server.url, NAMESPACE)
        raw.save(records, folder / "log.jsonl")
        checker = Checker(records, history.events(), options.lease_s)
        return make_report(checker, live)
    finally:
        await server.stop()


async def _run(options: Options, folder: Path, history: History, server: NatsServer) -> list[str]:
    flows = [find_flow(str(FLOWS / f"{name}.toml")) for name in options.flows]
    faults = schedule(options.seed, options.kills, options.lease_s, options.gap_s)
    proxy = Proxy(server.port)
    model = Model(history, random.Random(f"model {options.seed}"), faults=True)
    async with proxy.working(), model.serving():
        settings = settings_of(proxy.url, options.lease_s)
        specs = [
            WorkerSpec(
                flow=flow.name,
                agents=agents,
                settings=settings,
                model_url=model.url,
                history=str(history.path),
                log=str(folder / "workers.log"),
            )
            for flow in flows
            for agents in [(), *((agent,) for agent in flow.plan.actors().values())]
            for _ in range(COPIES)
        ]
        crew = Crew(specs, history)
        async with crew.working(), connect(settings, name="chaos clients") as bus:
            lags = asyncio.create_task(say_lags(history, options.lease_s))
            await until_ready(history, len(specs))
            async with _watching(settings, server, folder) as watcher:
                clients = Clients(bus, flows, history, options.seed, options.runs, faults[-1].at_s if faults else 2.0)
                async with asyncio.TaskGroup() as group:
                    working = group.create_task(clients.work())
                    group.create_task(clients.send_garbage(options.runs // 8))
                    group.create_task(_inject(faults, crew, proxy, server, history, random.Random(options.seed)))
                    group.create_task(_give_up(working, clients, faults))
                blocked = [f"I7 {what}" for what in await _settled(bus)]
                await watcher.finish(bus)
            lags.cancel()
        exported = await export(settings_of(server.url, options.lease_s))
        return [*blocked, *differences(watcher.path, exported)]


def settings_of(url: str, lease_s: float, namespace: str = NAMESPACE) -> Settings:
    """Short times, so that recovery is quick, and a low limit, so that blobs are used."""
    return Settings(url=url, namespace=namespace, lease_s=lease_s, request_timeout_s=1.0, inline_limit_bytes=4096)


async def until_ready(history: History, processes: int) -> None:
    """Wait until so many processes have taken up work."""
    async with asyncio.timeout(_READY_S):
        while sum(event["what"] == "worker.ready" for event in history.events()) < processes:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _inject(
    faults: Iterable[Fault], crew: Crew, proxy: Proxy, server: NatsServer, history: History, dice: random.Random
) -> None:
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            await asyncio.sleep(max(0.0, started + fault.at_s - time.monotonic()))
            victim = crew.victim(fault.aim, _busy(history) if fault.aims_at_busy else set())
            match fault.kind:
                case "kill a worker":
                    crew.kill(victim)
                case "stop a worker":
                    group.create_task(crew.stop_for(victim, fault.lasts_s))
                case "kill the server":
                    history.say("server.killed")
                    await server.kill()
                    await asyncio.sleep(fault.lasts_s)
                    await server.restart()
                    history.say("server.back")
                case "cut all connections":
                    history.say("connections.cut", how_many="all")
                    proxy.cut_all()
                case "cut one connection":
                    history.say("connections.cut", how_many="one")
                    proxy.cut_one(dice)
                case "hold all traffic":
                    history.say("traffic.held")
                    await proxy.hold(fault.lasts_s)
                    history.say("traffic.flows")


def _busy(history: History) -> set[int]:
    """Return the processes in which a handler runs."""
    began = {event["attempt"]: event["pid"] for event in history.events() if event["what"] == "step.began"}
    ended = {event["attempt"] for event in history.events() if event["what"] == "step.ended"}
    return {pid for attempt, pid in began.items() if attempt not in ended}


async def _give_up(working: asyncio.Task[None], clients: Clients, faults: list[Fault]) -> None:
    """Stop waiting for runs that will never end: the checker says which are lost."""
    await asyncio.wait([working], timeout=(faults[-1].at_s if faults else 0.0) + _SETTLE_S)
    if not working.done():
        working.cancel()


async def _settled(bus: Bus) -> list[str]:
    """Wait until every delivery of every consumer is settled; return what is not in the end."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        open_ones = [
            f"{info.name} has {info.num_pending} waiting and {info.num_ack_pending} in hand"
            for stream in (NAMESPACE, f"{NAMESPACE}-timers")
            for info in await bus.js.consumers_info(stream)
            if info.config.durable_name and (info.num_pending or info.num_ack_pending)
        ]
        if not open_ones or time.monotonic() > deadline:
            return open_ones
        await asyncio.sleep(0.1)


class _Watcher:
    def __init__(self, process: Any, until: Any, path: Path) -> None:
        self._process, self._until, self.path = process, until, path

    async def finish(self, bus: Bus) -> None:
        self._until.send((await bus.js.stream_info(NAMESPACE)).state.last_seq)
        await asyncio.to_thread(self._process.join, _SETTLE_S)
        assert self.path.exists(), "the watcher has not seen the end of the log; workers.log says why"


@contextlib.asynccontextmanager
async def _watching(settings: Settings, server: NatsServer, folder: Path) -> AsyncIterator[_Watcher]:
    context: Any = multiprocessing.get_context("forkserver")
    theirs, ours = context.Pipe(duplex=False)
    path = folder / "live.json"
    arguments = (settings, theirs, str(path), str(folder / "workers.log"))
    process = context.Process(target=watch_main, args=arguments, name="chaos watcher")
    await asyncio.to_thread(process.start)
    try:
        yield _Watcher(process, ours, path)
    finally:
        process.kill()
        process.join()
