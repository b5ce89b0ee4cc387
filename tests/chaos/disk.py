"""A small disk for a server's store, which the driver fills and frees."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_BLOCK = bytes(64 * 1024)


class NoDisk(Exception):
    """A filesystem cannot be mounted here; the message says why."""


class SmallDisk:
    """A filesystem of its own under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take all the room that is left; what the store has stays."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):  # no space left
            while file.write(_BLOCK) == len(_BLOCK):
                pass

    def free(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)

    @property
    def free_bytes(self) -> int:
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize


@contextlib.contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a disk in memory at `path` while the context is open; what is on it is gone afterwards.

    Raises `NoDisk` where that takes rights that we have not.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)], capture_output=True, text=True
        )
    except OSError as error:
        raise NoDisk(f"there is no command `mount`: {error}") from error
    if mounted.returncode != 0:
        raise NoDisk(f"a disk in memory cannot be mounted at {path}: {mounted.stderr.strip()}; it takes root")
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a server that has just ended may not have let go yet.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
