"""The index of runs: how fast it takes in a log of many kinds of runs, how soon the newest are in, how far it lags."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

from baton_bus import Settings
from baton_bus.index.changing import Committed
from baton_bus.index.keeping import keep, opened
from baton_bus.server.embedded import embedded
from baton_bus.store.bus import Bus, open_bus

from ..indexed import recorded
from . import mixed
from .rows import Row, row

MESSAGES = 300_000
FIRST = 1_000
ROUNDS = 3
LIVE = 200
_PAUSE_S = 0.01
"""Between two messages whose way into the index is measured."""


class _Taken(NamedTuple):
    cpu_s: float
    wall_s: float
    first_s: float
    """Until the newest runs are in."""


async def rows(messages: int = MESSAGES) -> list[Row]:
    """Return the rows of the table; half a minute."""
    with tempfile.TemporaryDirectory() as folder:
        async with embedded(Path(folder) / "log") as server:
            await mixed.fill(server.url, messages)
            async with open_bus(Settings(url=server.url, namespace=mixed.NAMESPACE)) as bus:
                read, taken = [], []
                for number in range(ROUNDS):
                    read.append(await _read_cpu_s(bus))
                    taken.append(await _taken(bus, Path(folder) / f"{number}.sqlite"))
                lags_ms = await _lags_ms(bus, Path(folder) / "0.sqlite")
    cpu_s = statistics.median(each.cpu_s for each in taken)
    wall_s = statistics.median(each.wall_s for each in taken)
    return [
        row("index of mixed runs, for each second of a core", "messages/s", messages / cpu_s, least=50_000),
        row("the same, CPU time against reading alone", "s", cpu_s, floor=statistics.median(read), ratio_max=5),
        row("the same, by the clock, beside the server", "messages/s", messages / wall_s),
        row(f"its first {FIRST:,} runs", "s", statistics.median(each.first_s for each in taken), most=0.5),
        row("from sent to written, p50", "ms", statistics.median(lags_ms)),
        row("from sent to written, p95", "ms", statistics.quantiles(lags_ms, n=20)[-1], most=20),
    ]


async def _read_cpu_s(bus: Bus) -> float:
    began = time.process_time()
    async with aclosing(bus.log.raw_batches()) as log:
        async for _ in log:
            pass
    return time.process_time() - began


async def _taken(bus: Bus, path: Path) -> _Taken:
    first_s = 0.0
    began, cpu_began = time.perf_counter(), time.process_time()
    async with opened(bus, path) as kept:

        def look(low_seq: int) -> bool:
            nonlocal first_s
            if not first_s and kept.reach.runs >= FIRST:
                first_s = time.perf_counter() - began
            return False

        await kept.indexer.catch_up(enough=look)
        return _Taken(time.process_time() - cpu_began, time.perf_counter() - began, first_s)


async def _lags_ms(bus: Bus, path: Path) -> list[float]:
    """Have one run after the other begin while the index is kept, and wait until each has a row."""
    first_subject, first_body = next(sent[0] for sent in recorded(mixed.NAMESPACE))
    template = first_subject.split(".")[3]
    high_seq, came, up_to_date = 0, asyncio.Event(), asyncio.Event()

    def committed(what: Committed) -> None:
        nonlocal high_seq
        high_seq = what.high_seq
        came.set()

    def told(what: str) -> None:
        if what == "up to date":
            up_to_date.set()

    keeping = asyncio.create_task(keep(bus, path, told, committed=committed))
    try:
        await up_to_date.wait()
        lags_ms = []
        for number in range(LIVE):
            run = f"live-{number}"
            body = first_body.replace(template.encode(), run.encode())
            sent = time.perf_counter()
            ack = await bus.js.publish(first_subject.replace(template, run), body)
            while high_seq < ack.seq:
                came.clear()
                await came.wait()
            lags_ms.append((time.perf_counter() - sent) * 1e3)
            await asyncio.sleep(_PAUSE_S)
        return lags_ms
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
