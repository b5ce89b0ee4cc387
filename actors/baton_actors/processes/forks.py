"""The fork server: workers are forked from a process that has paid for their imports. It imports while others begin."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from typing import Any

WORKER = "baton_actors.processes.main"
"""What every worker imports. By name, as importing it here is just what a command need not wait for."""
_ITSELF = "baton_actors.processes.fork_server"
REHEARSAL = "baton_actors.models.rehearsal.model"
"""What answers in place of a model."""
SDK = "baton_actors.models.sdk"
"""Imports the model API's SDK, which takes most of a second: once, in the fork server, and not for a rehearsal."""


def fork_context(preload: Sequence[str] = ()) -> Any:
    """Return how workers are started: by a fork server that has imported these modules too, where there is one."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    context.set_forkserver_preload([_ITSELF, WORKER, *preload])
    return context


def begin_imports(preload: Sequence[str] = ()) -> None:
    """Start the fork server now, so that it imports while the rest of the command begins. Does not wait for it.

    One that runs already is left as it is: what it has not imported, workers import themselves.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        fork_context(preload)
        with terminal_signals_blocked(), stdout_not_inherited():
            forkserver.ensure_running()


@contextlib.contextmanager
def terminal_signals_blocked() -> Iterator[None]:
    """Have what is started now not hear Ctrl-C and hang-up, from its first instant: we get them, and stop it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def stdout_not_inherited() -> Iterator[None]:
    """Have the fork server, and the tracker that comes with it, not get our stdout: `baton run … | jq` waits for the
    last who has it. What these two leave behind ends some time after us.
    """
    try:
        os.set_inheritable(1, False)
    except OSError:  # we have none
        yield
        return
    try:
        yield
    finally:
        os.set_inheritable(1, True)
