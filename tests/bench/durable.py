"""What durability costs: three replicas, and a flush to disk before each acknowledgement, each against its own floor.

Where the directory for temporary files is in memory, set TMPDIR to one on a disk.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

import nats

from tests.clusters import cluster
from tests.servers import nats_server

from . import floor, team
from .rows import Row, Run, row, throughput

ROUNDS = 3
IN_FLIGHT = 64
HOLD = 0.55
TEXT = "x" * 1024
BODY = json.dumps({"text": TEXT}).encode()


async def rows() -> list[Row]:
    """Return the rows of the table; about a minute."""
    return [await replicas(), await fsync(), await fsync_on_three()]


async def replicas(runs: int = 1_500) -> Row:
    """Three servers on this machine, one log with three replicas."""
    with tempfile.TemporaryDirectory() as store:
        async with cluster(Path(store)) as three:
            return await compare("3-step runs, 64 in flight, three replicas", three.url, 3, runs)


async def fsync(runs: int = 1_000) -> Row:
    """One server that flushes each message to its disk before it acknowledges it."""
    with tempfile.TemporaryDirectory() as store:
        async with nats_server(Path(store), jetstream={"sync_interval": "always"}) as server:
            return await compare("3-step runs, 64 in flight, fsync on every write", server.url, 1, runs)


async def fsync_on_three(runs: int = 500) -> Row:
    """Three servers that do so; here they share one disk, which no cluster should."""
    with tempfile.TemporaryDirectory() as store:
        async with cluster(Path(store), jetstream={"sync_interval": "always"}) as three:
            return await compare("3-step runs, 64 in flight, both", three.url, 3, runs)


async def compare(name: str, url: str, copies: int, runs: int) -> Row:
    """Let floor and Baton take turns; the median of each counts."""
    raw_rates, rates = [], []
    nc = await nats.connect(url.split(","))
    for number in range(ROUNDS):
        async with floor.pipeline(nc, f"floor{number}", replicas=copies) as raw:
            raw_rates.append(await warm_rate(raw_runs(raw), runs))
        async with team.working(url, f"baton{number}", team.pipeline_flow(), replicas=copies) as baton:
            rates.append(await warm_rate(team_runs(baton), runs))
    await nc.close()
    raw_rate, rate = statistics.median(raw_rates), statistics.median(rates)
    return row(name, "runs/s", raw_rate, rate, f"ratio ≥ {HOLD}", rate / raw_rate >= HOLD)


def raw_runs(raw: floor.Floor) -> Run:
    return lambda index: raw.run(f"r{index}", BODY)


def team_runs(baton: team.Team) -> Run:
    return lambda _: baton.run({"text": TEXT})


async def warm_rate(run: Run, runs: int) -> float:
    """Return runs per second once the first ones are done."""
    await throughput(run, runs // 4, IN_FLIGHT)
    return await throughput(lambda index: run(index + 1_000_000), runs, IN_FLIGHT)
