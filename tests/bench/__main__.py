"""`make bench`: Baton against the raw floor, in one process and one run; prints a table, writes bench.json.

It has parts, of which `make bench ARGS="core durable"` measures some: `core`, what every change is measured by;
`durable`, three replicas and flushing at every write; `million`, a log of a million messages.
"""

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

from baton_bus.server.embedded import embedded

from . import durable, floor, million, startup, team
from .rows import Row, Run, latency, row, throughput

ROUNDS = 3
"""Floor and Baton take turns this often, and the median of each counts: the machine's speed drifts."""
TEXT = "x" * 1024


async def pipelines(nc: Client, url: str) -> list[Row]:
    figures: dict[str, list[tuple[float, float, float]]] = {"floor": [], "baton": []}
    body = json.dumps({"text": TEXT}).encode()
    for number in range(ROUNDS):
        async with floor.pipeline(nc, f"floor{number}") as raw:
            figures["floor"].append(await _figures(_raw(raw, body)))
        async with team.working(url, f"baton{number}", team.pipeline_flow()) as baton:
            figures["baton"].append(await _figures(_team(baton, {"text": TEXT})))
    raw_p50, raw_p99, raw_rate = (statistics.median(column) for column in zip(*figures["floor"], strict=True))
    p50, p99, rate = (statistics.median(column) for column in zip(*figures["baton"], strict=True))
    return [
        row("3-step run, one at a time, p50", "ms", raw_p50, p50, 2.5, p50 <= 2.5),
        row("3-step run, one at a time, p99", "ms", raw_p99, p99, None, True),
        row("3-step runs, 64 in flight", "runs/s", raw_rate, rate, "ratio ≥ 0.55", rate / raw_rate >= 0.55),
    ]


def _raw(raw: floor.Floor, body: bytes) -> Run:
    return lambda index: raw.run(f"r{index}", body)


def _team(baton: team.Team, given: dict[str, object]) -> Run:
    return lambda _: baton.run(given)


async def _figures(run: Run) -> tuple[float, float, float]:
    p50, p99 = await latency(run, 500)
    await throughput(run, 500, 64)
    return p50, p99, await throughput(lambda index: run(index + 2_000_000), 6_000, 64)


async def fan_outs(nc: Client, url: str, branches: int, hold_ms: float) -> Row:
    body = json.dumps({"text": TEXT}).encode()
    raw_ms: list[float] = []
    baton_ms: list[float] = []
    for number in range(ROUNDS):
        async with floor.fan_out(nc, f"fanfloor{branches}-{number}", branches) as raw:
            raw_ms.append((await latency_few(_raw(raw, body)))[0])
        async with team.working(url, f"fanbaton{branches}-{number}", team.fan_out_flow()) as baton:
            given: dict[str, object] = {"text": TEXT, "branches": branches}
            baton_ms.append((await latency_few(_team(baton, given)))[0])
    ours = statistics.median(baton_ms)
    return row(f"fan-out of {branches:,} and join", "ms", statistics.median(raw_ms), ours, hold_ms, ours <= hold_ms)


async def latency_few(run: Run) -> tuple[float, float]:
    taken: list[float] = []
    for index in range(9):
        started = time.perf_counter()
        await run(index)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken[2:]), max(taken)


async def waiting_agents(nc: Client, url: str) -> Row:
    body = json.dumps({"text": TEXT}).encode()
    async with floor.pipeline(nc, "waitfloor", wait_s=0.2) as raw:
        raw_rate = await throughput(_raw(raw, body), 200, 200)
    flow = team.pipeline_flow(("wait_first", "wait_second", "wait_third"))
    async with team.working(url, "waitbaton", flow) as baton:
        rate = await throughput(_team(baton, {"text": TEXT}), 200, 200)
    return row("200 runs at once of 3 agents that wait 200 ms", "s", 200 / raw_rate, 200 / rate, 1.0, 200 / rate <= 1)


def show(rows: list[Row]) -> None:
    table = Table(
        title="Baton against the raw floor (ratio: 1.00 is as fast as the floor)", title_justify="left", box=None
    )
    for name in ("what", "unit", "floor", "baton", "ratio", "hold", ""):
        table.add_column(name, justify="right" if name in ("floor", "baton", "ratio") else "left", no_wrap=True)
    for each in rows:
        held = "held" if each["held"] else "NOT HELD"
        hold = "" if each["hold"] is None else str(each["hold"])
        figures = [each["floor"], each["baton"], each["ratio"]]
        shown = ["" if figure is None else f"{figure:,.2f}" for figure in figures]
        table.add_row(str(each["name"]), str(each["unit"]), *shown, hold, held if hold else "")
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)


async def core() -> list[Row]:
    """Return what every change is measured by; less than a minute."""
    with tempfile.TemporaryDirectory() as store:
        async with embedded(Path(store)) as server:
            nc = await nats.connect(server.url)
            rows = await pipelines(nc, server.url)
            rows.append(await fan_outs(nc, server.url, 100, 45))
            rows.append(await fan_outs(nc, server.url, 1_000, 500))
            rows.append(await waiting_agents(nc, server.url))
            await nc.close()
    return rows + startup.measure()


PARTS: dict[str, Callable[[], Awaitable[list[Row]]]] = {
    "core": core,
    "durable": durable.rows,
    "million": million.rows,
}


async def main(parts: list[str]) -> list[Row]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rows: list[Row] = []
    for part in parts:
        print(f"measuring {part} …", file=sys.stderr)
        rows += await PARTS[part]()
    return rows


if __name__ == "__main__":
    parts = sys.argv[1:] or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        sys.exit(f"there is no part {unknown[0]!r} of the bench; known: {', '.join(PARTS)}")
    rows = asyncio.run(main(parts))
    show(rows)
    Path("bench.json").write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if all(each["held"] for each in rows) else 1)
