"""Rows of the table, and how latency and throughput are measured."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

Row = dict[str, object]
Run = Callable[[int], Awaitable[None]]
"""Does one run to its end; no index comes twice."""


def row(name: str, unit: str, raw: float | None, baton: float, hold: object, held: bool) -> Row:
    ratio = None if raw is None else (baton / raw if unit == "runs/s" else raw / baton)
    return {"name": name, "unit": unit, "floor": raw, "baton": baton, "ratio": ratio, "hold": hold, "held": held}


async def latency(run: Run, count: int) -> tuple[float, float]:
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


async def throughput(run: Run, count: int, in_flight: int) -> float:
    """Return runs per second with so many in flight."""
    indices = iter(range(1_000_000, 1_000_000 + count))

    async def keep_one() -> None:
        for index in indices:
            await run(index)

    started = time.perf_counter()
    await asyncio.gather(*(keep_one() for _ in range(in_flight)))
    return count / (time.perf_counter() - started)
