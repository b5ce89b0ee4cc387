"""What a budget adds to each call of a model: what is held before it, and settled after it."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from baton_bus import Settings
from baton_bus.engine.budgets import Budgets
from baton_bus.server.embedded import embedded
from baton_bus.store.bus import open_bus
from baton_schemas.wire.messages import Above
from baton_schemas.wire.money import Amount, Budget

from .rows import Row, row

ROUNDS = 3
CALLS = 1_000
AT_ONCE = 64


async def rows() -> list[Row]:
    """Return the rows of the table; ten seconds."""
    run, day = Budget(usd=1e6), Budget(usd=1e6, usd_per_day=1e6)
    with tempfile.TemporaryDirectory() as store:
        async with (
            embedded(Path(store)) as server,
            open_bus(Settings(url=server.url, namespace="budgets")) as bus,
        ):
            one = [await _added_ms(Budgets(bus), run, f"a{number}") for number in range(ROUNDS)]
            two = [await _added_ms(Budgets(bus), day, f"b{number}") for number in range(ROUNDS)]
            many = [await _added_ms(Budgets(bus), run, f"c{number}", AT_ONCE) for number in range(ROUNDS)]
    return [
        row("what a run's budget adds to a call, p50", "ms", statistics.median(one), most=1.0),
        row("a run's and a day's, p50", "ms", statistics.median(two), most=1.5),
        row(f"a run's, {AT_ONCE} calls at once: a call", "ms", statistics.median(many), most=1.0),
    ]


async def _added_ms(budgets: Budgets, budget: Budget, run: str, at_once: int = 1) -> float:
    """Return what holding and settling take: of one call the median, of several at once their time by the call."""
    own = Above(run=run, flow="flow", budget=budget)
    taken: list[float] = []

    async def call() -> None:
        started = time.perf_counter()
        hold = await budgets.hold(budgets.accounts(run, "flow", own, []), Amount(1_000, 100), run, "step", [])
        hold.paid = Amount(900, 90)
        await budgets.settle(hold)
        taken.append((time.perf_counter() - started) * 1e3)

    async def several() -> None:
        for _ in range(CALLS // at_once):
            await call()

    await call()  # the stream is made
    taken.clear()
    started = time.perf_counter()
    await asyncio.gather(*(several() for _ in range(at_once)))
    return statistics.median(taken) if at_once == 1 else (time.perf_counter() - started) * 1e3 / len(taken)
