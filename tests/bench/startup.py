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
        asked = [await asyncio.to_thread(_ask_s, folder) for _ in range(ROUNDS)]
        answer_s, whole_s = (statistics.median(each) for each in zip(*asked, strict=True))
        async with idle.up(folder, "./clock.toml") as pid:
            idle_mb = max(pss_mb(each) for each in tree(pid) if is_worker(each))
    return [
        row("`baton run` to the first handler's start", "s", first_s, most=2.5),
        row("`baton run ask` to its rehearsed answer", "s", answer_s, most=1.0),
        row("`baton run ask`, whole, rehearsed", "s", whole_s),
        row("idle worker of a handler, memory", "MB", idle_mb),
    ]


def _first_handler_s(folder: Path) -> float:
    started = time.time()
    run = subprocess.run([*BATON, "run", "./clock.toml"], cwd=folder, capture_output=True, text=True, check=True)
    return float(run.stdout) - started


def _ask_s(folder: Path) -> tuple[float, float]:
    """Return the seconds to the first line of the answer, and to the end of the command."""
    started = time.monotonic()
    environ = {**os.environ, "BATON_REHEARSE": "1"}
    command = [*BATON, "run", "ask", "question=Why?"]
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout is not None and run.stdout.readline()
        answer_s = time.monotonic() - started
        assert run.wait() == 0
    return answer_s, time.monotonic() - started
