"""A fan-out of 500 against a provider with limits, and what it costs to keep to them."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baton_bus import Client, Settings
from baton_bus.server.embedded import embedded
from baton_bus.store.bus import open_bus
from baton_schemas.wire.facts import Retry
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.outcomes import Done

from ..limits_server import BURST_S, Rated, rated
from . import team
from .rows import Row, row

BRANCHES = 500
PER_S = 25
"""In place of a minute: the limits of providers are per minute, and the bench is not to take an hour."""
CALLS = 300


async def rows() -> list[Row]:
    """Return the rows of the table; a minute."""
    with tempfile.TemporaryDirectory() as store:
        async with embedded(Path(store)) as server, rated(PER_S) as provider:
            with _asking(provider):
                found = await _fan_out(server.url, provider, "limited")
                provider.begin_anew()
                found += await _fan_out(server.url, provider, "wide")
            return found + await _overhead(server.url)


async def _fan_out(url: str, provider: Rated, flow: str) -> list[Row]:
    """Ask once for each of 500 items; the provider takes 25 a second, and says so."""
    given: dict[str, object] = {"items": [f"thing {number}" for number in range(BRANCHES)]}
    async with team.as_processes(url, flow, flow) as baton:
        begun = time.perf_counter()
        run = await baton.run(given)
        took_s = time.perf_counter() - begun
        burnt = await _burnt(baton.client, run)
    limited = flow == "limited"
    how = f"500 calls at {PER_S} a second, {'limits in the flow' if limited else 'by what the provider says'}"
    # The first ones come at once: a second's worth of the limit's, or all that the provider had saved up.
    ideal_s = BRANCHES / PER_S - (1.0 if limited else BURST_S)
    return [
        row(f"{how}: wall time against the ideal", "s", took_s, floor=ideal_s, ratio_max=1.15 if limited else 1.5),
        row(f"{how}: told to wait (429)", "calls", float(_refused(provider)), most=0 if limited else 250),
        row(f"{how}: attempts burnt", "attempts", float(burnt), most=0),
    ]


async def _overhead(url: str) -> list[Row]:
    """What a call pays for being counted: all that is written for it, one after the other."""
    taken_ms: list[float] = []
    rates = [("m", "requests"), ("m", "tokens")]
    async with open_bus(Settings(url=url, namespace="overhead")) as bus:
        for _ in range(CALLS):
            begun = time.perf_counter()
            turns = await asyncio.gather(*(bus.rates.take(name, 10, 10**9) for name in rates))
            slot = await bus.slots.take("m", 50)
            assert slot is not None
            await asyncio.gather(bus.slots.free(slot), turns[1].took(0.5))
            taken_ms.append((time.perf_counter() - begun) * 1e3)
    return [row("two rates and a place of a call, p50", "ms", statistics.median(taken_ms), most=1)]


@contextmanager
def _asking(provider: Rated) -> Iterator[None]:
    """Have workers that begin now ask this provider."""
    asked = {"ANTHROPIC_API_KEY": "any", "ANTHROPIC_BASE_URL": provider.url, "BATON_REHEARSE": "0"}
    before = dict(os.environ)
    os.environ.update(asked)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def _burnt(client: Client, run: str) -> int:
    """Return how many attempts came to nothing."""
    log = [entry.message for entry in await client.bus.log.run(run)]
    results = [message for message in log if isinstance(message, Result)]
    assert isinstance(results[0].outcome, Done), results
    return sum(isinstance(message, Note) and isinstance(message.fact, Retry) for message in log)


def _refused(provider: Rated) -> int:
    assert len(provider.answered_at) == BRANCHES
    return len(provider.refused_at)
