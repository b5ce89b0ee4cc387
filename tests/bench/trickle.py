"""A fan-out whose branches end one by one, as calls of models do: what its join costs, and how soon it is shown."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path

from baton_actors.cli.output import state_of
from baton_bus.client.runs import find_run, read_last
from baton_bus.server.embedded import embedded
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of

from . import team
from .processes import BATON
from .rows import Row, row

BRANCHES = 4_500
ROUNDS = 5


async def rows() -> list[Row]:
    """Return the rows of the table; less than a minute."""
    with tempfile.TemporaryDirectory() as store:
        async with (
            embedded(Path(store)) as server,
            team.as_processes(server.url, "trickle", "trickle") as baton,
        ):
            started = time.perf_counter()
            run = await baton.run({"text": "x" * 200, "branches": BRANCHES})
            taken_s = time.perf_counter() - started
            sizes = await _sizes(baton, run)
            read_s = statistics.median([await _read_s(baton, run) for _ in range(ROUNDS)])
            shown_s = statistics.median(
                [await asyncio.to_thread(_shown_s, server.url, "trickle", run) for _ in range(ROUNDS)]
            )
            nothing_s = statistics.median([await asyncio.to_thread(_command_s) for _ in range(ROUNDS)])
    share = 100 * sizes["join"] / sum(sizes.values())
    name = f"{BRANCHES:,} branches over {taken_s:.0f} s"
    return [
        row(f"{name}: records of the join", "% of bytes", share, most=10),
        row(f"{name}: read, fold and rows of `show`", "s", read_s, most=0.3),
        row(f"{name}: `baton show`, whole", "s", shown_s),
        row("`baton --help`, for comparison", "s", nothing_s),
    ]


async def _sizes(baton: team.Team, run: str) -> Counter[str]:
    """Return the bytes of a run's messages by their kind."""
    sizes: Counter[str] = Counter()
    async with aclosing(baton.bus.log.read([baton.bus.subjects.run(run)])) as entries:
        async for entry in entries:
            sizes[baton.bus.subjects.split(entry.subject).kind] += len(entry.data)
    return sizes


async def _read_s(baton: team.Team, run: str) -> float:
    """Do what `show` does between its connection and its drawing; return the seconds."""
    started = time.perf_counter()
    head = await find_run(baton.bus, run)
    state = state_of(head, await read_last(baton.bus, head))
    rows = rows_of(state, plan_of(state))
    taken_s = time.perf_counter() - started
    assert [row.ended for row in rows if row.count] == [BRANCHES]
    return taken_s


def _shown_s(url: str, namespace: str, run: str) -> float:
    environ = {**os.environ, "BATON_NAMESPACE": namespace}
    return _taken_s([*BATON, "show", "--nats", url, run], environ)


def _command_s() -> float:
    return _taken_s([*BATON, "--help"], dict(os.environ))


def _taken_s(command: list[str], environ: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=environ, capture_output=True, check=True)
    return time.perf_counter() - started
