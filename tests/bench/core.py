"""What every change is measured by: pipelines, fan-outs, and agents that wait."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

from baton_bus.server.embedded import embedded

from . import floor, startup, team
from .rows import Figures, Row, Run, figures, median, row, throughput
from .shapes import FanOut, Pipeline

ROUNDS = 3
"""Floor and Baton take turns this often, and the median of each counts: the machine's speed drifts."""
BESIDE = "beside a process per actor by hand"
TEXT = "x" * 1024
BODY = json.dumps({"text": TEXT}).encode()


async def rows() -> list[Row]:
    """Return the rows of the table; two minutes."""
    with tempfile.TemporaryDirectory() as store:
        async with embedded(Path(store)) as server:
            found = await pipelines(server.url)
            for branches, few in ((100, 30), (1_000, 9)):
                found += await fan_outs(server.url, branches, few)
            found += await waiting(server.url)
    return found + await startup.rows()


async def pipelines(url: str) -> list[Row]:
    """Three steps that do nothing."""
    raw: list[Figures] = []
    raw_apart: list[Figures] = []
    apart: list[Figures] = []
    in_one: list[Figures] = []
    for number in range(ROUNDS):
        async with floor.in_one_process(url, f"floor{number}", Pipeline()) as bare:
            raw.append(await figures(of_floor(bare)))
        async with floor.as_processes(url, f"floorapart{number}", Pipeline()) as bare:
            raw_apart.append(await figures(of_floor(bare)))
        async with team.as_processes(url, f"apart{number}", "pipeline") as baton:
            apart.append(await figures(of_team(baton)))
        async with team.in_one_process(url, f"inone{number}", "pipeline") as baton:
            in_one.append(await figures(of_team(baton)))
    base, base_apart, processes, one = median(raw), median(raw_apart), median(apart), median(in_one)
    return [
        row("64 in flight, a process per actor", "runs/s", processes.per_s, floor=base.per_s),
        row(f"64 in flight, {BESIDE}", "runs/s", processes.per_s, floor=base_apart.per_s, ratio_min=0.4),
        row("64 in flight, all in one process", "runs/s", one.per_s, floor=base.per_s),
        row("one run at a time, a process per actor, p50", "ms", processes.p50_ms, floor=base.p50_ms),
        row(f"one run at a time, {BESIDE}, p50", "ms", processes.p50_ms, floor=base_apart.p50_ms, ratio_max=1.7),
        row("one run at a time, a process per actor, p99", "ms", processes.p99_ms, floor=base.p99_ms),
        row("one run at a time, all in one process, p50", "ms", one.p50_ms, floor=base.p50_ms),
    ]


async def fan_outs(url: str, branches: int, runs: int) -> list[Row]:
    """A fan-out and its join; each of its figures is the median of some runs one at a time."""
    shape = FanOut(branches)
    raw: list[float] = []
    raw_apart: list[float] = []
    apart: list[float] = []
    in_one: list[float] = []
    for number in range(ROUNDS):
        async with floor.in_one_process(url, f"fanfloor{branches}-{number}", shape) as bare:
            raw.append(await few_ms(of_floor(bare), runs))
        async with floor.as_processes(url, f"fanfloorapart{branches}-{number}", shape) as bare:
            raw_apart.append(await few_ms(of_floor(bare), runs))
        async with team.as_processes(url, f"fanapart{branches}-{number}", "fan-out") as baton:
            apart.append(await few_ms(of_team(baton, branches=branches), runs))
        async with team.in_one_process(url, f"faninone{branches}-{number}", "fan-out") as baton:
            in_one.append(await few_ms(of_team(baton, branches=branches), runs))
    base, base_apart, processes, one = (statistics.median(each) for each in (raw, raw_apart, apart, in_one))
    name = f"fan-out of {branches:,} and join"
    hold = 2.0 if branches == 1_000 else None
    return [
        row(f"{name}, a process per actor", "ms", processes, floor=base),
        row(f"{name}, {BESIDE}", "ms", processes, floor=base_apart, ratio_max=hold),
        row(f"{name}, all in one process", "ms", one, floor=base),
    ]


async def waiting(url: str) -> list[Row]:
    """200 runs at once of three agents that wait 200 ms each."""
    async with floor.in_one_process(url, "waitfloor", Pipeline(wait_s=0.2)) as bare:
        raw_s = 200 / await throughput(of_floor(bare), 200, 200)
    async with team.as_processes(url, "waits", "waits") as baton:
        told_s = 200 / await throughput(of_team(baton), 200, 200)
    async with team.as_processes(url, "waitsdefault", "waits-default") as baton:
        default_s = 200 / await throughput(of_team(baton), 200, 200)
    name = "200 runs at once of 3 agents that wait 200 ms"
    return [
        row(f"{name}, concurrency set", "s", told_s, floor=raw_s, most=1.0),
        row(f"{name}, as it is by default", "s", default_s, floor=raw_s, most=1.0),
    ]


def of_floor(bare: floor.Floor) -> Run:
    """Return how the floor does a run."""

    async def run(index: int) -> None:
        await bare.run(f"r{index}", BODY)

    return run


def of_team(baton: team.Team, **given: object) -> Run:
    """Return how Baton does a run; each has an id of its own."""

    async def run(_: int) -> None:
        await baton.run({"text": TEXT, **given})

    return run


async def few_ms(run: Run, count: int) -> float:
    """Return the median of some runs one at a time, in milliseconds."""
    taken: list[float] = []
    for index in range(count + 2):
        started = time.perf_counter()
        await run(index)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken[2:])
