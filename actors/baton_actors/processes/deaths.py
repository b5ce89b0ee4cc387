"""How workers died: seen by their supervisor, and left for the worker that goes on with what they held."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from baton_actors.steps.held import HeldStep, read_held

KEPT_MAX = 300
"""Deaths that are remembered: who asks does so within a few leases, and a supervisor has dozens of workers."""


class Deaths(Struct, frozen=True):
    """The deaths of one supervisor's workers: a file for each, in a folder that only this user reads.

    It can be pickled. Without a folder (a worker on its own) nothing is known.
    """

    folder: str = ""

    def note(self, pid: int, how: str) -> None:
        """Keep how this process died. A folder that is gone or full is not worth an error: then nothing is known."""
        with contextlib.suppress(OSError):
            unfinished = Path(self.folder, f".{pid}")
            unfinished.write_text(how, "utf-8")
            unfinished.replace(Path(self.folder, str(pid)))
            for path in self._oldest_first()[:-KEPT_MAX]:
                path.unlink()

    def forget(self, pid: int) -> None:
        """A new worker has this id, which was that of a dead one."""
        with contextlib.suppress(OSError):
            Path(self.folder, str(pid)).unlink()

    def how_it_died(self, worker: str) -> str:
        """Return how a worker died (`signal 9 (SIGKILL)`, `exit code 3`), by its name in the log: see `worker_name`.

        Empty when it is not known: the worker is of another host or another supervisor, or it lives.
        """
        pid = worker.rpartition(":")[2]
        if not self.folder or not pid.isdecimal() or worker != worker_name(int(pid)):
            return ""
        try:
            return Path(self.folder, pid).read_text("utf-8")
        except OSError:
            return ""

    def held_file(self, pid: int) -> Path | None:
        """Return where a worker says which steps it is doing; None without a folder."""
        return Path(self.folder, f"{pid}.held") if self.folder else None

    def held_by(self, pid: int) -> list[HeldStep]:
        """Return the steps that a dead worker was doing, the longest held first, and forget them."""
        file = self.held_file(pid)
        if file is None:
            return []
        held = read_held(file)
        file.unlink(missing_ok=True)
        return held

    def _oldest_first(self) -> list[Path]:
        paths = [path for path in Path(self.folder).iterdir() if path.name.isdecimal()]
        return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


@contextlib.contextmanager
def remembering() -> Iterator[Deaths]:
    """Keep deaths while the context is open."""
    with tempfile.TemporaryDirectory(prefix="baton-", ignore_cleanup_errors=True) as folder:  # its mode is 0700
        yield Deaths(folder)


def worker_name(pid: int) -> str:
    """Return how the log calls the worker with this process id on this host."""
    return f"{socket.gethostname()[:40]}:{pid}"


def told(exit_code: int) -> str:
    """Say how a process ended; a negative `exit_code` is a signal's number, as `multiprocessing` has it."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"signal {-exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:  # a real-time signal
        return f"signal {-exit_code}"
