"""One chaos run: servers, a model, workers and clients, the faults of a schedule, and then the checks."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import time
from collections.abc import AsyncIterator, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nats.errors import Error as NatsError

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_bus import BusError, Settings
from baton_bus.store.bus import Bus, open_bus

from . import raw
from .checker import Checker
from .clients import Clients
from .crew import Crew
from .ground import Ground, one_server, three_servers
from .history import Event, History, say_lags
from .ledger import Ledger
from .live import differences, export, watch_main
from .model import Model, RateLimit
from .outside import Outside
from .raw import Record
from .report import Report, make_report
from .schedule import Fault, schedule
from .worker import FLOWS, WorkerSpec

ALL_FLOWS = (
    *("pipeline", "spread", "panel", "mix", "relay", "hazard", "ask"),
    *("loop", "ways", "lanes", "calls", "people", "nest", "tools", "spend", "park", "batches"),
)
TOGETHER = ("relay", "hazard")
"""Flows whose agents share each process: what one does is felt by those beside it."""
APART = {
    "ask": (("boss", "oracle"), ("driver", "helper", "summer")),
    "loop": (("drafter", "reader", "polisher"), ("looker", "reviewer", "closer")),
    "ways": (("sorter", "praiser", "noter", "pager"), ("clerk", "thanker", "meeter", "ruler", "binder")),
    "lanes": (("lister", "counter"), ("goer", "finisher")),
    "calls": (("talker",), ("typist", "replier")),
    "people": (("desk", "approve", "veto"), ("cashier", "typist", "rate", "closer")),
    "tools": (("clerk", "desk"), ("desk", "planner", "closer")),
    "spend": (("researcher", "talker"), ("researcher", "planner", "closer")),
    "park": (("researcher", "talker"), ("researcher", "planner", "closer")),
    "batches": (("researcher",), ("researcher", "planner", "closer")),
    "nest": (("planner", "runner", "binder"), ("item", "whole")),
}
"""Flows of which one process hosts all agents, and these others some each. All of them play the flows within."""
NAMESPACE = "chaos"
TIMERS = f"{NAMESPACE}-timers"
FAR_S = 60.0
"""A join's deadline from this on is not waited for."""
_LIMIT = RateLimit(6, 0.5, says_when=False)
_READY_S = 90.0
_PAYS_S = 30.0
"""After that, for calls under way: longer than any of the model takes."""
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
    servers: int = 1
    """One, behind a proxy that breaks connections, or a cluster of three."""
    long: bool = False
    """With stalls of 11 and 20 s."""
    full_disk: bool = True
    """Whether the store is on a disk that is filled now and then, where one can be had; on one server."""
    apart: bool = True
    """Whether there are processes that host some agents, beside one a flow that hosts them all: a quiet run does with
    that, as starting them is most of what it takes."""
    forgers: bool = True
    """Whether strangers say what only the server and workers should: that excuses some of what is done again."""


async def run_chaos(options: Options, folder: Path) -> Report:
    """Make a run and check it. Everything that is needed to look into a failure is left in `folder`."""
    history = History(folder / "history.jsonl")
    async with contextlib.AsyncExitStack() as stack:
        if options.servers == 1:
            opening: Any = one_server(folder, history, on_disk=options.full_disk)
        else:
            opening = three_servers(folder, history, NAMESPACE)
        ground: Ground = await stack.enter_async_context(opening)
        live = await _run(options, folder, history, ground)
        return await _check(options, folder, history, ground, live)


async def _check(options: Options, folder: Path, history: History, ground: Ground, live: list[str]) -> Report:
    await ground.calm([NAMESPACE, TIMERS])
    seen = await raw.read_all(ground.sure_url, NAMESPACE)
    raw.save(seen, folder)
    return make_report(Checker(seen, history.events(), options.lease_s), live)


async def _run(options: Options, folder: Path, history: History, ground: Ground) -> list[str]:
    flows = [find_flow(str(FLOWS / f"{name}.toml")) for name in options.flows]
    faults = schedule(options.seed, options.kills, options.lease_s, options.gap_s, ground.kinds, long=options.long)
    model = Model(history, random.Random(f"model {options.seed}"), faults=True)
    async with model.serving():
        settings = settings_of(ground.url, options.lease_s, replicas=ground.replicas)
        specs = [
            WorkerSpec(
                flow=flow.name,
                agents=agents,
                nested=True,
                steward=steward,
                settings=settings,
                model_url=model.url,
                history=str(history.path),
                log=str(folder / "workers.log"),
            )
            for flow in flows
            for agents, steward in _processes(flow, apart=options.apart)
        ]
        crew = Crew(specs, history)
        async with crew.working(), open_bus(settings, name="chaos clients") as bus:
            lags = asyncio.create_task(say_lags(history))
            await until_ready(history, len(specs))
            outside = Outside(NAMESPACE, ground.port, history)
            async with _watching(settings, folder) as watcher, outside.playing():
                spread_s = faults[-1].at_s if faults else 2.0
                clients = Clients(bus, flows, history, options.seed, options.runs, spread_s, ground.port)
                async with asyncio.TaskGroup() as group:
                    working = group.create_task(clients.work())
                    group.create_task(clients.send_garbage(options.runs // 8))
                    group.create_task(clients.forge_words(options.runs // 4 if options.forgers else 0))
                    group.create_task(_inject(faults, crew, ground, model, history, random.Random(options.seed)))
                    group.create_task(_give_up(working, clients, faults))
                blocked = [f"I7 {what}" for what in await _settled(bus, ground, flows, history)]
                await _until_paid(ground, crew, history, flows)
                await watcher.finish(bus)
            lags.cancel()
        exported = await export(settings_of(",".join(ground.sure_url), options.lease_s, replicas=ground.replicas))
        return [*blocked, *differences(watcher.path, exported)]


def _processes(flow: FoundFlow, *, apart: bool) -> list[tuple[tuple[str, ...], bool]]:
    """Return what the processes of a flow host: each agent its own and one all of them, or two that host all."""
    everyone = tuple(flow.plan.actors().values())
    if not apart:
        return [(everyone, True)]
    if flow.name in APART:
        return [(everyone, True), *((agents, False) for agents in APART[flow.name])]
    if flow.name in TOGETHER:
        return [(everyone, True), (everyone, True)]
    return [(everyone, True), *[((agent,), False) for agent in everyone]]


def settings_of(url: str, lease_s: float, namespace: str = NAMESPACE, replicas: int = 1) -> Settings:
    """Short times, so that recovery is quick, and a low limit, so that blobs are used."""
    return Settings(
        url=url,
        namespace=namespace,
        lease_s=lease_s,
        request_timeout_s=1.0,
        inline_limit_bytes=4096,
        replicas=replicas,
    )


async def until_ready(history: History, processes: int) -> None:
    """Wait until so many processes have taken up work."""
    async with asyncio.timeout(_READY_S):
        while sum(event["what"] == "worker.ready" for event in history.events()) < processes:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def _inject(
    faults: Iterable[Fault], crew: Crew, ground: Ground, model: Model, history: History, dice: random.Random
) -> None:
    """Have each fault when its time has come; those of the servers one after the other."""
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            await asyncio.sleep(max(0.0, started + fault.at_s - time.monotonic()))
            history.say("fault", kind=fault.kind)
            victim = crew.victim(fault.aim, busy_with(history.events()) if fault.aims_at_busy else set())
            match fault.kind:
                case "kill a worker":
                    crew.kill(victim)
                case "stop a worker":
                    group.create_task(crew.stop_for(victim, fault.lasts_s))
                case "step a clock":
                    crew.step_clock(victim)
                case "send all workers away":
                    await crew.all_away(fault.lasts_s)
                case "limit the model":
                    group.create_task(model.limit_for(_LIMIT._replace(says_when=fault.aim < 0.5), fault.lasts_s))
                case _:
                    await ground.inject(fault, dice)


def busy_with(events: list[Event], runs: Container[str] | None = None) -> set[int]:
    """Return the processes in which a handler runs, of these runs if they are given."""
    began = {
        event["attempt"]: event["pid"]
        for event in events
        if event["what"] == "step.began" and (runs is None or event["run"] in runs)
    }
    ended = {event["attempt"] for event in events if event["what"] == "step.ended"}
    return {pid for attempt, pid in began.items() if attempt not in ended}


async def _give_up(working: asyncio.Task[None], clients: Clients, faults: list[Fault]) -> None:
    """Stop waiting for runs that will never end: the checker says which are lost."""
    await asyncio.wait([working], timeout=(faults[-1].at_s if faults else 0.0) + _SETTLE_S)
    if not working.done():
        working.cancel()


async def _settled(bus: Bus, ground: Ground, flows: list[FoundFlow], history: History) -> list[str]:
    """Wait until every delivery of every consumer is settled, every timer is, and all accepted runs have their results;
    return what is not so in the end.
    """
    deadline = time.monotonic() + _SETTLE_S
    far = {(flow.plan.actor(join), join) for flow in flows for join in flow.plan.joins if _is_far(flow, join)}
    while True:
        open_ones = ["the servers do not say what is open"]
        with contextlib.suppress(NatsError, BusError, TimeoutError, raw.StreamChanged):
            open_ones = await open_deliveries(bus, (NAMESPACE, TIMERS))
            timers = await raw.read_stream(ground.sure_url, TIMERS)
            open_ones += [f"a timer is still set: {timer.subject}" for timer in timers if _is_open(timer, far)]
            # Nobody has in hand what waits to be allowed more; and its client may have believed a stranger's word.
            open_ones = open_ones or [f"run {run} has no result" for run in await unended(bus, history.events())]
        if not open_ones or time.monotonic() > deadline:
            return open_ones
        await asyncio.sleep(0.2)


async def unended(bus: Bus, events: list[Event]) -> list[str]:
    """Return the runs that were accepted, and have no result in the log."""
    runs = [event["run"] for event in events if event["what"] == "submit.acknowledged"]
    found = await asyncio.gather(*(bus.log.matching_sure([bus.subjects.result("*", run)]) for run in runs))
    return [run for run, results in zip(runs, found, strict=True) if not results]


async def _until_paid(ground: Ground, crew: Crew, history: History, flows: list[FoundFlow]) -> None:
    """Wait until nobody that lives may be amid a call that is to be paid; the checker says what is held in the end.

    Who stood still until others had done its step has no delivery in hand any more, and goes on with its call.
    """
    deadline, limited = time.monotonic() + _PAYS_S, {flow.name for flow in flows if flow.flow.budget}
    while limited and time.monotonic() < deadline:
        events = history.events()
        runs = {event["run"] for event in events if event["what"] == "submit.sent" and event["flow"] in limited}
        with contextlib.suppress(NatsError, TimeoutError, raw.StreamChanged):
            spent = await raw.read_stream(ground.sure_url, f"{NAMESPACE}-spend", missing_is_empty=True)
            if not (busy_with(events, runs) & crew.pids or Ledger(spent).is_held):
                return
        await asyncio.sleep(0.2)


async def open_deliveries(bus: Bus, streams: Iterable[str]) -> list[str]:
    """Return which consumers of these streams have not settled all that there is for them, in words."""
    return [
        f"{info.name} has {info.num_pending} waiting and {info.num_ack_pending} in hand"
        for stream in streams
        for info in await bus.js.consumers_info(stream)
        if info.config.durable_name and (info.num_pending or info.num_ack_pending)
    ]


def _is_far(flow: FoundFlow, join: str) -> bool:
    return (flow.plan.join_policy(join).deadline_s or 0.0) >= FAR_S


def _is_open(timer: Record, far: set[tuple[str, str]]) -> bool:
    return timer.kind == "timer" and (timer.who, timer.rest[0]) not in far


class _Watcher:
    def __init__(self, process: Any, until: Any, path: Path) -> None:
        self._process, self._until, self.path = process, until, path

    async def finish(self, bus: Bus) -> None:
        self._until.send((await bus.js.stream_info(NAMESPACE)).state.last_seq)
        await asyncio.to_thread(self._process.join, _SETTLE_S)
        assert self.path.exists(), "the watcher has not seen the end of the log; workers.log says why"


@contextlib.asynccontextmanager
async def _watching(settings: Settings, folder: Path) -> AsyncIterator[_Watcher]:
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
