"""What asking costs: an agent that asks another which does nothing, against the same two hops written by hand."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

from baton_bus.server.embedded import embedded

from . import floor, team
from .core import BODY, TEXT
from .processes import pss_mb
from .rows import Row, row, throughput
from .shapes import Pipeline

ROUNDS = 3
ASKS = 300
"""Asks one after the other in one step: an ask's own time is its part of them."""
PARENTS, EACH = 64, 20
WAITING = 5_000


async def rows() -> list[Row]:
    """Return the rows of the table; two minutes."""
    with tempfile.TemporaryDirectory() as store:
        async with embedded(Path(store)) as server:
            found = await round_trips(server.url)
            found += await resumed(server.url)
            return found + await waiting(server.url)


async def round_trips(url: str) -> list[Row]:
    """One ask, many at once, and many parents that ask."""
    raw: dict[str, list[float]] = {}
    ours: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        async with floor.as_processes(url, f"askfloor{number}", Pipeline(hops=1, in_hand_max=1024)) as bare:
            for name, value in (await _by_hand(bare)).items():
                raw.setdefault(name, []).append(value)
        async with team.as_processes(url, f"ask{number}", "ask") as baton:
            for name, value in (await _by_asking(baton)).items():
                ours.setdefault(name, []).append(value)
    base, took = ({name: statistics.median(each) for name, each in of.items()} for of in (raw, ours))
    one = "an ask's round trip, p50"
    return [
        # At least 0.6 of the speed of the same by hand.
        row(one, "ms", took["one"], floor=base["one"], ratio_max=round(1 / 0.6, 2), most=1.5),
        row("a gather of 100 asks", "ms", took["100"], floor=base["100"], most=25),
        row("a gather of 1,000 asks", "ms", took["1000"], floor=base["1000"], most=200),
        row(f"asks, {PARENTS} parents in flight", "asks/s", took["many"], floor=base["many"]),
    ]


async def _by_hand(bare: floor.Floor) -> dict[str, float]:
    names = iter(range(10_000_000))

    async def ask() -> None:
        await bare.run(f"r{next(names)}", BODY)

    async def at_once(count: int) -> float:
        return await _ms(asyncio.gather(*(ask() for _ in range(count))))

    for _ in range(50):
        await ask()
    took = [await _ms(ask()) for _ in range(ASKS)]

    async def parent(_: int) -> None:
        for _ in range(EACH):
            await ask()

    return {
        "one": statistics.median(took),
        "100": statistics.median([await at_once(100) for _ in range(15)]),
        "1000": statistics.median([await at_once(1_000) for _ in range(5)]),
        "many": EACH * await throughput(parent, 10 * PARENTS, PARENTS),
    }


async def _by_asking(baton: team.Team) -> dict[str, float]:
    async def s(**given: Any) -> float:
        run = await baton.client.start(baton.plan, {"text": TEXT, **given})
        return float(await run.result())

    async def parent(_: int) -> None:
        await s(ask=EACH)

    await s(ask=50)
    return {
        "one": 1e3 * statistics.median([await s(ask=ASKS) / ASKS for _ in range(3)]),
        "100": 1e3 * statistics.median([await s(ask=100, at_once=True) for _ in range(15)]),
        "1000": 1e3 * statistics.median([await s(ask=1_000, at_once=True) for _ in range(5)]),
        "many": EACH * await throughput(parent, 10 * PARENTS, PARENTS),
    }


async def resumed(url: str) -> list[Row]:
    """A step that is done again, and finds a thousand answers."""
    async with team.as_processes(url, "askagain", "ask") as baton:
        took: list[float] = []
        for _ in range(5):
            run = await baton.client.start(baton.plan, {"text": TEXT, "ask": 1_000, "at_once": True, "again": True})
            took.append(float(await run.result()))
    return [row("a step done again over 1,000 answers, to its last", "s", statistics.median(took), most=0.3)]


async def waiting(url: str) -> list[Row]:
    """What a parent costs that waits for an answer: held by its worker, and parked."""
    found: list[Row] = []
    for flow, how in (("ask", "held"), ("ask-parked", "parked")):
        async with team.as_processes(url, f"askwait-{how}", flow) as baton:
            (parent,) = [pid for pid in baton.pids if "parent" in _title(pid)]
            await _start(baton, 200)  # what is made once is there
            before = pss_mb(parent)
            await _start(baton, WAITING)
            found.append(row(f"a {how} parent, of {WAITING:,}", "kB", 1e3 * (pss_mb(parent) - before) / WAITING))
    return found


async def _start(baton: team.Team, count: int) -> None:
    """Start runs whose step asks for what never answers, and wait until all of them have."""
    before = await _asked(baton)
    for start in range(0, count, 500):
        some = range(start, min(count, start + 500))
        given = {"text": TEXT, "of": "never"}
        await asyncio.gather(*(baton.client.start(baton.plan, given) for _ in some))
    async with asyncio.timeout(120):
        while await _asked(baton) < before + count:  # noqa: ASYNC110 (the broker sets no event of ours)
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)


async def _asked(baton: team.Team) -> int:
    info = await baton.bus.js.consumer_info(
        baton.bus.settings.namespace, f"handoff-{baton.plan.actor_of_agent('never')}"
    )
    return int(info.num_pending or 0) + int(info.num_ack_pending or 0)


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


async def _ms(work: Any) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await work
    return (loop.time() - started) * 1e3
