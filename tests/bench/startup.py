"""How long a user waits for the first handler after `baton run`, and what a worker costs at rest."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
BATON = [sys.executable, "-m", "baton_actors.cli"]
ROUNDS = 5


def measure() -> list[dict[str, object]]:
    """Return rows for the table: seconds to the first handler, and memory of idle workers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clock.toml").write_text(FLOW)
        (folder / "clock.py").write_text(HANDLER)
        first = statistics.median(_first_handler_s(folder) for _ in range(ROUNDS))
        ask = statistics.median(_ask_s(folder) for _ in range(ROUNDS))
        plain_mb = _idle_mb(folder, "./clock.toml")
        model_mb = _idle_mb(folder, "ask")
    return [
        _row("`baton run` to the first handler's start", "s", first, 2.5),
        _row("`baton run ask`, whole, rehearsed", "s", ask, None),
        _row("idle worker of a handler, memory", "MB", plain_mb, None),
        _row("idle worker of an LLM agent, memory", "MB", model_mb, None),
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


def _idle_mb(folder: Path, flow: str) -> float:
    """Return the proportional set size of the largest worker process of `baton up`, in MB (Linux)."""
    environ = {**os.environ, "BATON_REHEARSE": "1"}
    up = subprocess.Popen([*BATON, "up", flow], cwd=folder, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        sizes: list[float] = []
        while time.monotonic() < deadline:
            sizes = [_pss_mb(pid) for pid in _workers(up.pid)]
            submitted = subprocess.run(
                [*BATON, "submit", flow, *(["question=Why?"] if flow == "ask" else []), "--wait"],
                cwd=folder,
                env=environ,
                capture_output=True,
            )
            if submitted.returncode == 0 and sizes:
                return max(_pss_mb(pid) for pid in _workers(up.pid))
        raise RuntimeError(f"no worker of {flow} came up")
    finally:
        up.send_signal(signal.SIGTERM)
        up.communicate(timeout=30)


def _workers(parent: int) -> list[int]:
    """Return the processes two levels below: the parent's fork server, and the workers that it made."""
    return [pid for server in _children(parent) for pid in _children(server) if _is_python(pid)]


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def _is_python(pid: int) -> bool:
    return "python" in Path(f"/proc/{pid}/cmdline").read_text()


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _row(name: str, unit: str, baton: float, hold: float | None) -> dict[str, object]:
    held = hold is None or baton <= hold
    return {"name": name, "unit": unit, "floor": None, "baton": baton, "ratio": None, "hold": hold, "held": held}
