"""How long a user waits for the first handler after `baton run`, and what a worker costs at rest."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from . import idle
from .processes import BATON, is_worker, pss_mb, tree
from .rows import Row, row

FLOW = """
name = "clock"
[input]
[agents.clock]
handler = "./clock.py:clock"
[steps.clock]
"""
HANDLER = """
import time

async def clock() -> float:
    return time.time()
"""
ROUNDS = 5


async def rows() -> list[Row]:
    """Return the rows of the table: seconds to the first handler, and memory of an idle worker."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clock.toml").write_text(FLOW)
        (folder / "clock.py").write_text(HANDLER)
        first_s = statistics.median([await asyncio.to_thread(_first_handler_s, folder) for _ in range(ROUNDS)])
        ask_s = statistics.median([await asyncio.to_thread(_ask_s, folder) for _ in range(ROUNDS)])
        async with idle.up(folder, "./clock.toml") as pid:
            idle_mb = max(pss_mb(each) for each in tree(pid) if is_worker(each))
    return [
        row("`baton run` to the first handler's start", "s", first_s, most=2.5),
        row("`baton run ask`, whole, rehearsed", "s", ask_s),
        row("idle worker of a handler, memory", "MB", idle_mb),
    ]


def _first_handler_s(folder: Path) -> float:
    started = time.time()
    run = subprocess.run([*BATON, "run", "./clock.toml"], cwd=folder, capture_output=True, text=True, check=True)
    return float(run.stdout) - started


def _ask_s(folder: Path) -> float:
    started = time.time()
    environ = {**os.environ, "BATON_REHEARSE": "1"}
    subprocess.run([*BATON, "run", "ask", "question=Why?"], cwd=folder, env=environ, capture_output=True, check=True)
    return time.time() - started
