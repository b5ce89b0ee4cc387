"""The command as its users start it, and what processes cost: their CPU time and memory, as Linux tells it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

BATON = [sys.executable, "-m", "baton_actors.cli"]
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return a process and all that come from it."""
    children: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and (fields := _stat(int(each.name))):
            children.setdefault(int(fields[1]), []).append(int(each.name))
    found = [pid]
    for parent in found:  # grows as it goes
        found += children.get(parent, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used, in seconds; of one that has ended, none."""
    return sum(int(fields[11]) + int(fields[12]) for pid in pids if (fields := _stat(pid))) / _TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process, in MB."""
    return _kb(f"/proc/{pid}/status", "VmRSS:") / 1024


def pss_mb(pid: int) -> float:
    """Return the memory of a process, its part of what it shares included, in MB."""
    return _kb(f"/proc/{pid}/smaps_rollup", "Pss:") / 1024


def is_server(pid: int) -> bool:
    """Say whether a process is a nats-server."""
    return "nats-server" in _command(pid).split("\0")[0]


def is_worker(pid: int) -> bool:
    """Say whether a process is a worker, by what it is called in `ps`."""
    return _command(pid).startswith("baton: worker of")


def is_browser(pid: int) -> bool:
    """Say whether a process is a browser's."""
    return "chrom" in _command(pid).split("\0")[0]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """Return the fields of a process from its state on; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _kb(path: str, name: str) -> int:
    lines = Path(path).read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
