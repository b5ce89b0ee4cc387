"""Which steps this process is doing right now, where its supervisor can read it whatever becomes of the process.

A file that is mapped into memory: taking a step costs a copy of some bytes and no system call, and what is in it
outlives a SIGKILL.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

SLOTS = 1_024
"""Steps that are kept at once: ten times the default of an agent that waits. What is beyond is done, and not kept."""
_HEAD = 8
"""Bytes before the first of them: how many steps have ended."""
_SLOT = 192
"""Bytes for a run's id and a step's token: 64 characters each, and the index of a branch."""


class HeldStep(Struct, frozen=True):
    """A step that a process is doing, or was doing when it died."""

    run: str
    step: str


class Held:
    """The steps that are being done here. Without a file only this process knows them."""

    def __init__(self, file: Path | None = None) -> None:
        self._map: mmap.mmap | None = None
        if file is not None:
            with contextlib.suppress(OSError), file.open("w+b") as opened:  # the supervisor may be gone
                opened.truncate(_HEAD + SLOTS * _SLOT)
                self._map = mmap.mmap(opened.fileno(), _HEAD + SLOTS * _SLOT)
        self._ended = 0
        self._free = list(range(SLOTS - 1, -1, -1))
        self._steps: dict[int, tuple[str, str]] = {}
        self.on_free: Callable[[str, str], None] | None = None
        """Called with run and step when a step is done."""

    def take(self, run: str, step: str) -> int:
        """Say that a step begins; return what `free` takes."""
        if not self._free:
            return -1
        slot = self._free.pop()
        self._steps[slot] = (run, step)
        if self._map is not None:
            at = _HEAD + slot * _SLOT
            self._map[at : at + _SLOT] = f"{run} {step}".encode().ljust(_SLOT, b"\0")[:_SLOT]
        return slot

    def free(self, slot: int) -> None:
        """Say that it is done."""
        if slot < 0:
            return
        if self._map is not None:
            self._ended += 1
            self._map[:_HEAD] = self._ended.to_bytes(_HEAD, "little")
            self._map[_HEAD + slot * _SLOT] = 0
        run, step = self._steps.pop(slot)
        self._free.append(slot)
        if self.on_free is not None:
            self.on_free(run, step)

    @property
    def only(self) -> tuple[str, str] | None:
        """The run and the step that is being done, if it is just one."""
        steps = list(self._steps.values())
        return steps[0] if len(steps) == 1 else None


def read_held(file: Path) -> list[HeldStep]:
    """Return the steps in another process's file; none when it cannot be read."""
    content = _read(file)
    found = []
    for at in range(_HEAD, len(content), _SLOT):
        run, blank, step = content[at : at + _SLOT].partition(b"\0")[0].decode(errors="replace").partition(" ")
        if blank:
            found.append(HeldStep(run, step))
    return found


def read_ended(file: Path) -> int:
    """Return how many steps have ended in another process, by its file: whether any has from one look to the next."""
    return int.from_bytes(_read(file, _HEAD), "little")


def _read(file: Path, size: int = -1) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(size)
    except OSError:
        return b""
