"""Rows of the table, and how latency and throughput are measured."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

Row = dict[str, object]
Run = Callable[[int], Awaitable[None]]
"""Does one run to its end; no index comes twice."""


def row(
    name: str,
    unit: str,
    baton: float,
    *,
    floor: float | None = None,
    ratio_min: float | None = None,
    ratio_max: float | None = None,
    most: float | None = None,
    least: float | None = None,
) -> Row:
    """Return a line of the table; its ratio is Baton's figure over the floor's. The last four say what is to hold."""
    ratio = None if floor is None else baton / floor
    holds = [
        (f"ratio ≥ {ratio_min}", ratio_min is None or (ratio or 0.0) >= ratio_min),
        (f"ratio ≤ {ratio_max}", ratio_max is None or (ratio or 0.0) <= ratio_max),
        (f"≤ {most}", most is None or baton <= most),
        (f"≥ {least}", least is None or baton >= least),
    ]
    wanted = [
        text for (text, _), bound in zip(holds, (ratio_min, ratio_max, most, least), strict=True) if bound is not None
    ]
    return {
        "name": name,
        "unit": unit,
        "floor": floor,
        "baton": baton,
        "ratio": ratio,
        "hold": ", ".join(wanted) or None,
        "held": all(held for _, held in holds),
    }


class Figures(NamedTuple):
    """What is measured of runs of one kind."""

    p50_ms: float
    p99_ms: float
    per_s: float


async def figures(run: Run, *, single: int = 500, many: int = 6_000, in_flight: int = 64) -> Figures:
    """Measure runs one at a time, and then many at once."""
    p50, p99 = await latency(run, single)
    return Figures(p50, p99, await warm_rate(run, many, in_flight))


def median(measured: Sequence[Figures]) -> Figures:
    """Return the median of each figure."""
    return Figures(*(statistics.median(column) for column in zip(*measured, strict=True)))


async def latency(run: Run, count: int, warm: int = 20) -> tuple[float, float]:
    """Return p50 and p99 of runs one at a time, in milliseconds."""
    for index in range(warm):
        await run(-1 - index)
    taken: list[float] = []
    for index in range(count):
        started = time.perf_counter()
        await run(index)
        taken.append((time.perf_counter() - started) * 1e3)
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49], cuts[98]


async def warm_rate(run: Run, count: int, in_flight: int) -> float:
    """Return runs per second once the first ones are done."""
    await throughput(run, count // 4, in_flight)
    return await throughput(lambda index: run(index + 1_000_000), count, in_flight)


async def throughput(run: Run, count: int, in_flight: int) -> float:
    """Return runs per second with so many in flight."""
    indices = iter(range(1_000_000, 1_000_000 + count))

    async def keep_one() -> None:
        for index in indices:
            await run(index)

    started = time.perf_counter()
    await asyncio.gather(*(keep_one() for _ in range(in_flight)))
    return count / (time.perf_counter() - started)
