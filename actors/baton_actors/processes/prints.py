"""What is printed in a worker's process goes to its supervisor, line by line, each marked with the step that did it.

Descriptors 1 and 2 are a pipe to the supervisor, so that what C code and subprocesses write comes too. `sys.stdout` and
`sys.stderr` write to it as well, and know the step, as threads of handlers have its context.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from baton_actors.processes.printed import LINE_MAX, LOG, mark
from baton_actors.steps.logged import fields

_ATOMIC = 4_000
"""Bytes that a pipe takes in one piece (`PIPE_BUF` is 4096 on Linux): lines of threads and subprocesses do not mix."""


def take_over(write_fd: int, only: Callable[[], tuple[str, str] | None]) -> Callable[[str, str], None]:
    """Have all that this process prints go to this pipe.

    `only` says which step is meant where no context does: the one that is being done, if it is just one. Returns what
    writes the lines of a step, by its run and name, that have no line break yet: for when it ends.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as the fork server gives it to us
            stream.flush()
    os.dup2(write_fd, 1)
    os.dup2(write_fd, 2)
    out, err = _Marking(1, "<stdout>", only), _Marking(2, "<stderr>", only)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = out, err  # type: ignore[misc]

    def end_lines(run: str, step: str) -> None:
        if out.open_lines or err.open_lines:
            out.end_lines(mark(run, step))
            err.end_lines(mark(run, step))

    return end_lines


class _Marking(io.TextIOWrapper):
    """A text stream over a descriptor, which writes whole lines, each with its mark.

    What goes to its `buffer` or its descriptor goes there as it is.
    """

    def __init__(self, fd: int, name: str, only: Callable[[], tuple[str, str] | None]) -> None:
        raw = io.FileIO(fd, "w", closefd=False)
        unbuffered = io.BufferedWriter(raw, buffer_size=1)  # so that bytes come in their place among the lines
        super().__init__(unbuffered, "utf-8", "backslashreplace", line_buffering=True)
        self._fd, self._name, self._only = fd, name, only
        self._lock = threading.RLock()  # a signal handler may print, too
        self.open_lines: dict[str, str] = {}
        """What has no line break yet, by its mark."""

    @property
    def name(self) -> str:
        return self._name

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        said = fields()
        step = (said["run"], said["step"]) if "step" in said else self._only()
        self._lines(mark(*step) if step else mark("", ""), text)
        return len(text)

    def write_log(self, text: str) -> None:
        """Write lines of Baton's logs."""
        self._lines(LOG, text)

    def flush(self) -> None:
        self.buffer.flush()

    def end_lines(self, begin: str = "") -> None:
        """Write what has no line break yet: what has this mark, or all."""
        with self._lock:
            for each in [begin] if begin else list(self.open_lines):
                if text := self.open_lines.pop(each, ""):
                    self._send(f"{each}{text}\n")

    def _lines(self, begin: str, text: str) -> None:
        with self._lock:
            text = self.open_lines.pop(begin, "") + text
            lines = text.split("\n")
            rest = lines.pop()
            if len(rest) > LINE_MAX:
                lines, rest = [*lines, rest], ""
            if rest:
                self.open_lines[begin] = rest.rpartition("\r")[2] if not rest.endswith("\r") else rest
            if lines:
                self._send("".join(f"{begin}{line}\n" for line in lines))

    def _send(self, text: str) -> None:
        if not text:
            return
        data = text.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):  # nobody hears us any more: that is no failure of the step
            while data:
                end = data.rfind(b"\n", 0, _ATOMIC) + 1 or data.find(b"\n") + 1
                piece, data = data[:end], data[end:]
                while piece:
                    piece = piece[os.write(self._fd, piece) :]


def pass_over(*_: object, **__: object) -> None:
    """What `breakpoint()` does where there is no terminal: it says where there is one."""
    frame = sys._getframe(1)
    where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
    print(f"breakpoint() at {where} is passed over: no terminal here. `baton run --debug` stops there", file=sys.stderr)


def flush_all() -> None:
    """Write what has no line break yet: the process ends. Handlers may have closed or replaced what there was."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            getattr(stream, "end_lines", stream.flush)()
            stream.flush()
