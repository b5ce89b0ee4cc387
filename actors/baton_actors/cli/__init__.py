"""The command `baton`. Modules are imported by the commands that need them, so that each starts at once."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["main", "script"]

_INTERRUPTED = 128 + signal.SIGINT


def script() -> None:
    """Be the process of the command that `sys.argv` names, and exit with its code.

    Ctrl-C ends it at any moment without a traceback: as long as the command itself has not begun, and only modules are
    imported, there is nothing to put in order; and once it has ended there is nothing left to stop.
    """
    _open_what_is_closed()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored, as in `nohup`
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    try:
        main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open_what_is_closed() -> None:
    """Have all three standard streams, also after `baton … >&-`: else the next file that is opened would be one."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != fd:
                os.dup2(nothing, fd)
                os.close(nothing)
            stream = open(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (it stays open)
            setattr(sys, name, stream)


def main() -> None:
    """Run the command that `sys.argv` names, and exit with its code."""
    from baton_actors.cli.app import main as run

    run()
