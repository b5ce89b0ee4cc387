"""The crash matrix: a run whose worker dies before or after a bus operation ends right, whichever it is."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nats.errors import Error as NatsError

from baton_actors.agents.loading import find_flow
from baton_bus.store.bus import Bus, open_bus
from tests.clients import result_of, start_run
from tests.servers import NatsServer

from . import raw
from .checker import Checker
from .crew import Crew
from .driver import open_deliveries, settings_of, until_ready
from .history import Event, History
from .model import Model
from .outside import Outside
from .worker import FLOWS, WorkerSpec

RUNS = {
    "pipeline": "matrix-12",
    "spread": "matrix-179",
    "mix": "matrix-29",
    "relay": "matrix-98",
    "ask": "matrix-12283",
    "loop": "matrix-1853036",
    "ways": "matrix-23487",
    "lanes": "matrix-115",
    "calls": "matrix-11319",
    "people": "matrix-1263",
    "nest": "matrix-273",
    "tools": "matrix-43015",
    "spend": "matrix-154",
    "park": "matrix-143",
}
"""The flows, and runs of them with retries (one is parked), blobs, timers and a few branches; with what asks itself and
others, sleeps, is parked, fails and is tried again; with two rounds of each of two loops, steps and branches that are
left out or fail, lanes that are full; with calls of handlers' clients: alike, at once, refused, and large; and with
people, events, and runs within runs; with tools that are not idempotent, one of which fails, and a large result; and
with budgets that are enough, or are not until somebody allows more.

What handlers do follows from the run's id.
"""
LEASE_S = 0.5
"""The shortest there is: each point waits for one."""
_AT_ONCE = 6
"""Points that are tried at the same time, each in a namespace of its own."""
_END_S = 60.0


class Point(NamedTuple):
    """Where workers die: `before` or `after` an operation, the first worker only or the second as well."""

    flow: str
    deaths: int
    when: str
    where: str
    """The number of an operation of theirs, or `answer` and the key of a child: both die of the same one."""

    def __str__(self) -> str:
        return f"{self.flow}: {self.when} operation {self.where}, {self.deaths} worker(s)"


class Tried(NamedTuple):
    """What one run came to."""

    place: str
    """The operation at which its first worker died; empty when none did."""
    violations: list[str]
    children: list[str]
    """The keys of what was asked for, in their order."""


class Row(NamedTuple):
    """What the points of one flow came to."""

    flow: str
    deaths: int
    operations: int
    """Of a worker that is left alone: the points are before and after each."""
    runs: int
    violations: list[str]
    places: list[str]
    """The operations at which workers died, in the order of the run."""


async def run_matrix(folder: Path, flows: Sequence[str] = tuple(RUNS), deaths: Sequence[int] = (1, 2)) -> list[Row]:
    """Try every point of these flows. What is needed to look into a failure is left in `folder`."""
    server = NatsServer(folder / "nats")
    await asyncio.to_thread(server.start_now)
    try:
        rows = [await _try_all(server, folder, flow, count) for flow in flows for count in deaths]
        return rows + [row for flow in flows if (row := await _try_answers(server, folder, flow)) is not None]
    finally:
        await server.stop()


async def _try_answers(server: NatsServer, folder: Path, flow: str) -> Row | None:
    """Have two workers die of the answer of one and the same child, for each; None in a flow that asks nobody."""
    calm = await _try(server, folder, Point(flow, 0, "before", "answer"))
    if not calm.children:
        return None
    row = Row(flow, 2, len(calm.children), 1, list(calm.violations), [])
    points = [Point(flow, 2, when, f"answer {key}") for key in calm.children for when in ("before", "after")]
    for first in range(0, len(points), 2 * _AT_ONCE):
        some = points[first : first + 2 * _AT_ONCE]
        _count(row, some, await asyncio.gather(*(_try(server, folder, point) for point in some)))
    return row._replace(runs=1 + len(points))


def _count(row: Row, points: Sequence[Point], tried: Sequence[Tried]) -> None:
    for point, one in zip(points, tried, strict=True):
        row.violations.extend(f"{point}, {one.place or 'not reached'}: {violation}" for violation in one.violations)
        if one.place and point.when == "before":
            row.places.append(one.place.removeprefix("before "))


async def _try_all(server: NatsServer, folder: Path, flow: str, deaths: int) -> Row:
    """Try points from the first operation on, until no worker gets that far."""
    row = Row(flow, deaths, 0, 0, [], [])
    number, runs = 1, 0
    while True:
        numbers = range(number, number + _AT_ONCE)
        points = [Point(flow, deaths, when, str(n)) for n in numbers for when in ("before", "after")]
        tried = await asyncio.gather(*(_try(server, folder, point) for point in points))
        runs += len(points)
        _count(row, points, tried)
        number += _AT_ONCE
        if not any(one.place for one in tried):
            return row._replace(operations=len(row.places), runs=runs)


async def _try(server: NatsServer, folder: Path, point: Point) -> Tried:
    """Make one run; return at which operation its first worker died, and what is wrong with it."""
    name = f"{point.flow}-{point.deaths}-{point.when}-{point.where.replace(' ', '-')}"
    history = History(folder / f"{name}.jsonl")
    model = Model(history, random.Random(0), faults=False)
    found = find_flow(str(FLOWS / f"{point.flow}.toml"))
    async with model.serving():
        settings = settings_of(server.url, LEASE_S, namespace=name)
        spec = WorkerSpec(
            flow=found.name,
            agents=tuple(found.plan.actors().values()),
            nested=True,
            settings=settings,
            model_url=model.url,
            history=str(history.path),
            log=str(folder / "workers.log"),
            crash=f"{point.when} {point.where}",
        )
        crew = Crew([spec], history, calm_after=point.deaths)
        run = RUNS[point.flow]
        violations = []
        outside = Outside(name, lambda: server.port, history)
        async with crew.working(), open_bus(settings) as bus:
            async with outside.playing():
                await until_ready(history, 1)
                history.say("submit.sent", run=run, flow=found.name, key=run)
                await start_run(bus, found.plan, {"key": run}, run=run)
                history.say("submit.acknowledged", run=run)
                try:
                    result = await result_of(bus, run, flow=found.name, timeout_s=_END_S)
                    history.say("client.got", run=run, status=result.status)
                    if result.status != "done":
                        violations.append(f"the run is {result.status}, though nothing but a worker has failed")
                except TimeoutError:
                    pass  # the checker says that it is lost
            # What was said at the end is still to be taken or refused, and what is left to be looked at once more.
            violations += [f"I7 {what}" for what in await _settled(bus, name)]
        seen = await _seen(server, name)
    events = history.events()
    violations += Checker(seen, events, LEASE_S).violations
    if violations:
        (folder / name).mkdir()
        raw.save(seen, folder / name)
    keys = [each.rest[0].partition("--k")[2] for each in seen.records if each.kind == "handoff"]
    return Tried(_place(events), violations, [key for key in dict.fromkeys(keys) if key])


async def _settled(bus: Bus, name: str) -> list[str]:
    """Wait until every delivery is settled; return what is not in the end."""
    deadline = time.monotonic() + _END_S
    while True:
        found = ["the server does not say what is open"]
        with contextlib.suppress(NatsError, TimeoutError):
            found = await open_deliveries(bus, (name, f"{name}-timers"))
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.05)


async def _seen(server: NatsServer, name: str) -> raw.Seen:
    """Read what is there; again when a timer, which the server fires by itself, went meanwhile."""
    async with asyncio.timeout(_END_S):
        while True:
            with contextlib.suppress(raw.StreamChanged):
                return await raw.read_all(server.url, name)


def _place(events: list[Event]) -> str:
    return next((event["where"] for event in events if event["what"] == "worker.crashes"), "")
