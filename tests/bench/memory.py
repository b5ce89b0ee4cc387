"""Whether memory stays flat: a hundred thousand runs by one client, its workers and one server."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from baton_bus.server.embedded import embedded

from . import team
from .core import of_team
from .processes import pss_mb, rss_mb
from .rows import Row, row, throughput

FIRST, ALL = 20_000, 100_000
"""Runs after which memory is looked at: by the first, caches and pools have their size."""
GROWS_MAX = 1.15
"""Of clients and workers: what grows with each run would be four times as much."""


async def rows(first: int = FIRST, all_: int = ALL) -> list[Row]:
    """Return the rows of the table; two minutes."""
    with tempfile.TemporaryDirectory() as store:
        async with (
            embedded(Path(store)) as server,
            team.as_processes(server.url, "memory", "pipeline") as baton,
        ):
            run, pids = of_team(baton), [os.getpid(), *baton.pids]
            await throughput(run, first, 64)
            before, server_before = [pss_mb(pid) for pid in pids], rss_mb(server.pid)
            print(f"after {first:,} runs: {_told(before)}, server {server_before:.0f} MB", file=sys.stderr)
            await throughput(run, all_ - first, 64)
            after, server_after = [pss_mb(pid) for pid in pids], rss_mb(server.pid)
            print(f"after {all_:,} runs: {_told(after)}, server {server_after:.0f} MB", file=sys.stderr)
    thousands = 4 * (all_ - first) / 1_000
    name = f"memory after {all_:,} runs, over that after {first:,}"
    return [
        row(f"{name}: client", "MB", after[0], floor=before[0], ratio_max=GROWS_MAX),
        row(f"{name}: largest worker", "MB", max(after[1:]), floor=max(before[1:]), ratio_max=GROWS_MAX),
        row(f"{name}: server", "MB", server_after, floor=server_before),
        row(
            "server, for each thousand messages that its log holds",
            "kB",
            256 * (server_after - server_before) / thousands,
        ),
    ]


def _told(sizes: Sequence[float]) -> str:
    client, *workers = sizes
    return f"client {client:.1f} MB, workers {', '.join(f'{size:.1f}' for size in workers)} MB"
