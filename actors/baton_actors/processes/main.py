"""A worker's process: one OS process that hosts one actor, until it is told to stop or its parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection, wait
from typing import NoReturn

import structlog
from msgspec import Struct

from baton_actors.agents.loading import find_agent, find_flow
from baton_actors.errors import ActorError
from baton_actors.models import ModelError, Models, ModelSettings
from baton_actors.processes.hosting import GRACE_S, hosting
from baton_actors.processes.logs import LogSettings, configure
from baton_bus import BusError, Settings, connect
from baton_schemas.errors import SchemaError

CANNOT_START = 2
"""Exit code of a worker that did not get as far as taking work."""
ORPHAN_S = 2.0
"""From the death of the parent to our own at the latest. What is given back by then need not wait for a lease."""
_EXPECTED = (ActorError, BusError, ModelError, SchemaError)

logger = structlog.get_logger("baton.process")


class WorkerSpec(Struct, frozen=True, kw_only=True):
    """What a worker's process is to host. It can be pickled."""

    flow: str
    """For `find_flow`."""
    agent: str
    """An agent of the flow, or its actor."""
    settings: Settings
    logs: LogSettings
    grace_s: float = GRACE_S
    """How long steps in hand may go on after SIGTERM, in seconds."""


def worker_main(spec: WorkerSpec, supervisor: Connection | None = None) -> NoReturn:
    """Host one actor, and end the process: 0 after a stop, `CANNOT_START`, or 1 when something broke.

    Alone it stops on SIGTERM, SIGINT and SIGHUP. With a `supervisor` it leaves the terminal's signals to that
    one, tells it `""` when it takes work, or else the reason why it cannot, and stops when the parent is gone.
    Alone, the reason is one line on stderr.
    """
    if supervisor is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure(spec.logs)
    code = 1
    try:
        asyncio.run(_work(spec, supervisor))
        code = 0
    except _EXPECTED as error:
        code = CANNOT_START
        if supervisor is None:
            print(f"baton: {error}", file=sys.stderr)
        else:
            _tell(supervisor, str(error))
    except Exception:
        logger.exception("worker.broken", flow=spec.flow, agent=spec.agent)
    sys.stdout.flush()
    sys.stderr.flush()
    # A plain handler whose step was given back may still run in its thread, and Python would wait for it.
    os._exit(code)


async def _work(spec: WorkerSpec, supervisor: Connection | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if supervisor is None:
        loop.add_signal_handler(signal.SIGINT, stop.set)
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    else:
        threading.Thread(target=_end_with_parent, args=(loop, stop), name="parent", daemon=True).start()
    found = find_flow(spec.flow)
    agent = find_agent(found, spec.agent)
    async with contextlib.AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(spec.settings, name=f"baton {found.name} {agent}"))
        models = None
        if not found.flow.agents[agent].handler:
            models = await stack.enter_async_context(Models(ModelSettings.from_environ()))
            await models.open()
        await stack.enter_async_context(hosting(bus, found, [agent], models=models, grace_s=spec.grace_s))
        if supervisor is not None:
            _tell(supervisor, "")
        logger.info("worker.ready", flow=found.name, agent=agent)
        await stop.wait()
        logger.info("worker.stops", flow=found.name, agent=agent)


def _end_with_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the parent has died, by whatever means; from a thread, as a handler may block the loop."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child has a supervisor"
    wait([parent.sentinel])
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are as good as gone
        loop.call_soon_threadsafe(stop.set)
    time.sleep(ORPHAN_S)
    os._exit(1)


def _tell(supervisor: Connection, word: str) -> None:
    with contextlib.suppress(OSError):  # the parent is gone
        supervisor.send(word)
