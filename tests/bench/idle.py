"""What an idle `baton up` costs: CPU time of all its processes over a while, and memory of its workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from .processes import BATON, cpu_s, is_server, is_worker, pss_mb, tree
from .rows import Row, row

SETTLED_S = 5.0
WINDOW_S = 30.0
"""How long it is watched: the CPU time is told in hundredths of a second."""
FLOWS = ("article", "report")


async def rows() -> list[Row]:
    """Return the rows of the table; less than a minute."""
    with tempfile.TemporaryDirectory() as folder:
        async with up(Path(folder), *FLOWS) as pid:
            await asyncio.sleep(SETTLED_S)
            pids = tree(pid)
            servers = [each for each in pids if is_server(each)]
            before_s, server_before_s, begun = cpu_s(pids), cpu_s(servers), time.monotonic()
            await asyncio.sleep(WINDOW_S)
            taken_s = time.monotonic() - begun
            whole = 100 * (cpu_s(pids) - before_s) / taken_s
            server = 100 * (cpu_s(servers) - server_before_s) / taken_s
            workers = [each for each in pids if is_worker(each)]
            largest_mb = max(map(pss_mb, workers))
    name = f"idle `baton up {' '.join(FLOWS)}`"
    return [
        row(f"{name}, {len(workers)} workers and server", "% of a core", whole, most=1.0),
        row(f"{name}, of which the server", "% of a core", server),
        row("idle worker of an LLM agent, memory", "MB", largest_mb),
    ]


@contextlib.asynccontextmanager
async def up(folder: Path, *flows: str) -> AsyncIterator[int]:
    """Run `baton up` in a folder of its own, models rehearsed; it is up when the context begins."""
    process = await asyncio.create_subprocess_exec(
        *BATON,
        "up",
        *flows,
        "--json",
        cwd=folder,
        env={**os.environ, "BATON_REHEARSE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        if not await process.stdout.readline():
            sys.exit(f"`baton up {' '.join(flows)}` did not come up")
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
