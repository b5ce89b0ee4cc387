"""What durability costs: three replicas, and a flush to disk before each acknowledgement, each against its own floor.

Where the directory for temporary files is in memory, set TMPDIR to one on a disk.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.clusters import cluster
from tests.servers import nats_server

from . import floor, team
from .core import of_floor, of_team
from .rows import Row, row, warm_rate
from .shapes import Pipeline

ROUNDS = 3
IN_FLIGHT = 64
ON_ONE_MIN, ON_THREE_MIN = 0.8, 0.55


async def rows() -> list[Row]:
    """Return the rows of the table; two minutes."""
    return [*await fsync(), *await replicas(), *await fsync_on_three()]


async def replicas(runs: int = 1_500) -> list[Row]:
    """Three servers on this machine, one log with three replicas."""
    with tempfile.TemporaryDirectory() as store:
        async with cluster(Path(store)) as three:
            return await compare("three replicas", three.url, 3, runs, ON_THREE_MIN)


async def fsync(runs: int = 1_000) -> list[Row]:
    """One server that flushes each message to its disk before it acknowledges it."""
    with tempfile.TemporaryDirectory() as store:
        async with nats_server(Path(store), jetstream={"sync_interval": "always"}) as server:
            return await compare("fsync on every write", server.url, 1, runs, ON_ONE_MIN)


async def fsync_on_three(runs: int = 500) -> list[Row]:
    """Three servers that do so; here they share one disk, which no cluster should."""
    with tempfile.TemporaryDirectory() as store:
        async with cluster(Path(store), jetstream={"sync_interval": "always"}) as three:
            return await compare("both", three.url, 3, runs, ON_THREE_MIN)


async def compare(name: str, url: str, copies: int, runs: int, least: float) -> list[Row]:
    """Let floor and Baton take turns; the median of each counts."""
    raw: list[float] = []
    apart: list[float] = []
    in_one: list[float] = []
    for number in range(ROUNDS):
        async with floor.in_one_process(url, f"floor{number}", Pipeline(), replicas=copies) as bare:
            raw.append(await warm_rate(of_floor(bare), runs, IN_FLIGHT))
        async with team.as_processes(url, f"apart{number}", "pipeline", replicas=copies) as baton:
            apart.append(await warm_rate(of_team(baton), runs, IN_FLIGHT))
        async with team.in_one_process(url, f"inone{number}", "pipeline", replicas=copies) as baton:
            in_one.append(await warm_rate(of_team(baton), runs, IN_FLIGHT))
    base, processes, one = (statistics.median(each) for each in (raw, apart, in_one))
    return [
        row(f"64 in flight, {name}, a process per actor", "runs/s", processes, floor=base, ratio_min=least),
        row(f"64 in flight, {name}, all in one process", "runs/s", one, floor=base),
    ]
