"""`make bench`: Baton against the raw floor, in one process and one run; prints a table, writes bench.json."""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import structlog
from nats.aio.client import Client
from rich.console import Console
from rich.table import Table

from baton_bus.embedded import embedded

from . import floor, startup, team

ROUNDS = 3
"""Floor and Baton take turns this often, and the median of each counts: the machine's speed drifts."""
TEXT = "x" * 1024
Row = dict[str, object]


async def latency(run: Callable[[int], Awaitable[None]], count: int) -> tuple[float, float]:
    """Return p50 and p99 of runs one at a time, in milliseconds."""
    for index in range(20):
        await run(-1 - index)
    taken: list[float] = []
    for index in range(count):
        started = time.perf_counter()
        await run(index)
        taken.append((time.perf_counter() - started) * 1e3)
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49], cuts[98]


async def throughput(run: Callable[[int], Awaitable[None]], count: int, in_flight: int) -> float:
    """Return runs per second with so many in flight."""
    indices = iter(range(1_000_000, 1_000_000 + count))

    async def keep_one() -> None:
        for index in indices:
            await run(index)

    started = time.perf_counter()
    await asyncio.gather(*(keep_one() for _ in range(in_flight)))
    return count / (time.perf_counter() - started)


async def pipelines(nc: Client, url: str, only: str) -> list[Row]:
    figures: dict[str, list[tuple[float, float, float]]] = {"floor": [], "baton": []}
    body = json.dumps({"text": TEXT}).encode()
    for number in range(ROUNDS):
        if only != "baton":
            async with floor.pipeline(nc, f"floor{number}") as raw:
                figures["floor"].append(await _figures(lambda index, raw=raw: raw.run(str(index), body)))
        async with team.working(url, f"baton{number}", team.pipeline_flow()) as baton:
            figures["baton"].append(await _figures(lambda _, baton=baton: baton.run({"text": TEXT})))
    raw_p50, raw_p99, raw_rate = (statistics.median(column) for column in zip(*(figures["floor"] or [(1, 1, 1)]), strict=True))
    p50, p99, rate = (statistics.median(column) for column in zip(*figures["baton"], strict=True))
    return [
        row("3-step run, one at a time, p50", "ms", raw_p50, p50, 2.5, p50 <= 2.5),
        row("3-step run, one at a time, p99", "ms", raw_p99, p99, None, True),
        row("3-step runs, 64 in flight", "runs/s", raw_rate, rate, "ratio ≥ 0.55", rate / raw_rate >= 0.55),
    ]


async def _figures(run: Callable[[int], Awaitable[None]]) -> tuple[float, float, float]:
    p50, p99 = await latency(run, 500)
    await throughput(run, 500, 64)
    return p50, p99, await throughput(lambda index: run(index + 2_000_000), 6_000, 64)


async def fan_outs(nc: Client, url: str, branches: int, hold_ms: float) -> Row:
    body = json.dumps({"text": TEXT}).encode()
    raw_ms: list[float] = []
    baton_ms: list[float] = []
    for number in range(ROUNDS):
        async with floor.fan_out(nc, f"fanfloor{branches}-{number}", branches) as raw:
            raw_ms.append((await latency_few(lambda index, raw=raw: raw.run(f"r{index}", body)))[0])
        async with team.working(url, f"fanbaton{branches}-{number}", team.fan_out_flow()) as baton:
            given: dict[str, object] = {"text": TEXT, "branches": branches}
            baton_ms.append((await latency_few(lambda _, baton=baton, given=given: baton.run(given)))[0])
    ours = statistics.median(baton_ms)
    return row(f"fan-out of {branches:,} and join", "ms", statistics.median(raw_ms), ours, hold_ms, ours <= hold_ms)


async def latency_few(run: Callable[[int], Awaitable[None]]) -> tuple[float, float]:
    taken: list[float] = []
    for index in range(9):
        started = time.perf_counter()
        await run(index)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken[2:]), max(taken)


async def waiting_agents(nc: Client, url: str) -> Row:
    body = json.dumps({"text": TEXT}).encode()
    async with floor.pipeline(nc, "waitfloor", wait_s=0.2) as raw:
        raw_rate = await throughput(lambda index: raw.run(str(index), body), 200, 200)
    flow = team.pipeline_flow(("wait_first", "wait_second", "wait_third"))
    async with team.working(url, "waitbaton", flow) as baton:
        rate = await throughput(lambda _: baton.run({"text": TEXT}), 200, 200)
    return row("200 runs at once of 3 agents that wait 200 ms", "s", 200 / raw_rate, 200 / rate, 1.0, 200 / rate <= 1)


def row(name: str, unit: str, raw: float | None, baton: float, hold: object, held: bool) -> Row:
    ratio = None if raw is None else (baton / raw if unit == "runs/s" else raw / baton)
    return {"name": name, "unit": unit, "floor": raw, "baton": baton, "ratio": ratio, "hold": hold, "held": held}


def show(rows: list[Row]) -> None:
    table = Table(title="Baton against the raw floor (ratio: 1.00 is as fast as the floor)", title_justify="left")
    for name in ("what", "unit", "floor", "baton", "ratio", "hold", ""):
        table.add_column(name, justify="left" if name in ("what", "unit", "hold", "") else "right")
    for each in rows:
        held = "held" if each["held"] else "NOT HELD"
        hold = "" if each["hold"] is None else str(each["hold"])
        figures = [each["floor"], each["baton"], each["ratio"]]
        shown = ["" if figure is None else f"{figure:,.2f}" for figure in figures]
        table.add_row(str(each["name"]), str(each["unit"]), *shown, hold, held if hold else "")
    Console().print(table)


async def main(only: str) -> list[Row]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as store:
        async with embedded(Path(store)) as server:
            nc = await nats.connect(server.url)
            rows = await pipelines(nc, server.url, only)
            if not only:
                rows.append(await fan_outs(nc, server.url, 100, 45))
                rows.append(await fan_outs(nc, server.url, 1_000, 500))
                rows.append(await waiting_agents(nc, server.url))
            await nc.close()
    if not only:
        rows += startup.measure()
    return rows


if __name__ == "__main__":
    rows = asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else ""))
    show(rows)
    Path("bench.json").write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if all(each["held"] for each in rows) else 1)
