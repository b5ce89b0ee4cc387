"""The supervisor's end of what its workers print: lines as they come, and the rest when a worker has ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from baton_actors.processes.printed import LINE_MAX, Printed, read_line
from baton_actors.steps.held import read_ended, read_held

Tell = Callable[[Sequence[Printed]], None]
"""Shows lines to the person, or logs them. It is called in the supervisor's loop."""

_AT_ONCE = 65_536
"""Bytes that are read in one go: what a pipe holds. A worker that prints more waits until it is shown."""
_LAST_READS = 64
"""After its end: more than a pipe holds, and an end even with a daemon of the handler's that never stops writing."""


class Hearing:
    """What one worker prints, from its start until `close`."""

    def __init__(self, pipe: Connection, actor: str, held: Path | None, tell: Tell) -> None:
        """`held` is where the worker says which steps it is doing."""
        self._pipe, self._actor, self._held, self._tell = pipe, actor, held, tell
        self._rest = b""
        self._ended = self._ended_before = 0
        """How many steps the worker had ended before we last read, and before we read the time before."""
        os.set_blocking(pipe.fileno(), False)
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Take lines as they come."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipe.fileno(), self._read)

    def close(self) -> None:
        """Take what has been written so far, and no more: what the worker has left behind may hold the pipe open."""
        if self._loop is not None:
            self._loop.remove_reader(self._pipe.fileno())
        for _ in range(_LAST_READS):
            if not self._read():
                break
        if self._rest:
            self._say([self._rest])
        self._pipe.close()

    def _read(self) -> bool:
        """Read once; say whether there was anything."""
        self._ended_before, self._ended = self._ended, read_ended(self._held) if self._held else 0
        try:
            data = os.read(self._pipe.fileno(), _AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            if self._loop is not None:  # the worker and all that it has started have let go of it
                self._loop.remove_reader(self._pipe.fileno())
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_MAX:
            lines, self._rest = [*lines, self._rest], b""
        if lines:
            self._say(lines)
        return True

    def _say(self, lines: Sequence[bytes]) -> None:
        sole: tuple[str, str] = ("", "")
        if any(not line.startswith(b"\x1e") for line in lines):
            sole = self._sole()
        self._tell([read_line(line, self._actor, sole) for line in lines])

    def _sole(self) -> tuple[str, str]:
        """Return the one step that can have written past Python since we last read; nothing when it may be others."""
        if self._held is None:
            return "", ""
        steps = read_held(self._held)
        none_ended = read_ended(self._held) == self._ended_before
        return (steps[0].run, steps[0].step) if len(steps) == 1 and none_ended else ("", "")
