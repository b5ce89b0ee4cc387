"""A worker's process: one OS process that hosts one actor, until it is told to stop or its parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import multiprocessing
import os
import pdb
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NoReturn

import structlog
from msgspec import Struct
from setproctitle import setproctitle

from baton_actors.agents.loading import find_agent, find_flow, needs_models, recorded_flow
from baton_actors.errors import ActorError
from baton_actors.models import ModelError, Models, ModelSettings
from baton_actors.processes import garbage, groups
from baton_actors.processes.deaths import Deaths
from baton_actors.processes.hosting import GRACE_S, hosting
from baton_actors.processes.logs import LogSettings, carry_logging, configure, without_secrets
from baton_actors.processes.prints import flush_all, pass_over, take_over
from baton_actors.processes.watchdog import STUCK_S, Line, beat_s, tell_if_stuck
from baton_actors.processes.worker import Retires
from baton_actors.steps.held import Held
from baton_bus import BusError, Settings
from baton_bus.engine.engine import Engine
from baton_bus.errors import AccountFull, LoginRefused, NotAllowed
from baton_bus.store.bus import open_bus
from baton_schemas.errors import SchemaError

CANNOT_START = 2
"""Exit code of a worker that did not get as far as taking work."""
REFUSED = 77
"""Exit code of one that the server does not let take work, today and tomorrow: EX_NOPERM of sysexits.h."""
RECYCLE = 75
"""Exit code of a worker that wants to be started anew, and is at once: EX_TEMPFAIL of sysexits.h."""
RETIRE = signal.SIGUSR1
"""Tells a worker that another one has taken its place: from now on this one takes no work."""
ORPHAN_S = 2.0
"""From the death of the parent to our own at the latest. What is given back by then need not wait for a lease."""
_EXPECTED = (ActorError, BusError, ModelError, SchemaError)
_REFUSALS = (NotAllowed, LoginRefused, AccountFull)
"""What no other try mends: somebody has to change the server's configuration, or ours."""

logger = structlog.get_logger("baton.process")


class WorkerSpec(Struct, frozen=True, kw_only=True):
    """What a worker's process is to host. It can be pickled."""

    flow: str
    """For `find_flow`."""
    body: bytes = b""
    """The flow itself as JSON, when it is that of a run and not what is in its file now."""
    folder: Path = Path()
    """Where the handlers of that are."""
    agent: str
    """An agent of the flow, or its actor."""
    settings: Settings
    logs: LogSettings
    actor: str = ""
    """How `ps` calls it; the agent without one."""
    grace_s: float = GRACE_S
    """How long steps in hand may go on after SIGTERM, in seconds."""
    deaths: Deaths = Deaths()
    """Where the supervisor says how other workers of its died."""
    stuck_s: float = STUCK_S
    """For how long nothing may run in the process before its supervisor kills it, in seconds."""


def worker_main(
    spec: WorkerSpec,
    supervisor: Connection | None = None,
    printed: Connection | None = None,
    *,
    recycle: asyncio.Event | None = None,
) -> NoReturn:
    """Host one actor, and end the process: 0 after a stop, `RECYCLE`, `CANNOT_START`, `REFUSED`, or 1 when something
    broke.

    Alone it stops on SIGTERM, SIGINT and SIGHUP. With a `supervisor` it leaves the terminal's signals to that
    one, tells it `""` when it takes work, or else the reason why it cannot, and then that it lives; it stops when
    the parent is gone; what is printed here goes to `printed`. Alone, the reason is one line on stderr, and nobody
    kills it when it is stuck.

    Once `recycle` is set it gives back what it cannot finish in its grace, and ends. On `RETIRE` it takes no more work,
    and ends once it has done what it holds, however long that takes. What handlers have started
    ends with it (see `groups`).
    """
    line = None
    held = Held(spec.deaths.held_file(os.getpid()))
    setproctitle(f"baton: worker of {spec.actor or spec.agent}")
    if printed is not None:
        held.on_free = take_over(printed.fileno(), lambda: held.only)
        printed.close()
        faulthandler.enable(all_threads=False)  # a crash in C code says where
        sys.breakpointhook = pdb.set_trace = pass_over
    if supervisor is not None:
        groups.lead()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        line = Line(supervisor)
    configure(spec.logs)
    carry_logging(spec.logs)
    code = 1
    try:
        code = asyncio.run(_work(spec, line, recycle or asyncio.Event(), held))
    except _EXPECTED as error:
        code = REFUSED if isinstance(error, _REFUSALS) else CANNOT_START
        reason = without_secrets(str(error))
        if line is None:
            print(f"baton: {reason}", file=sys.stderr)
        else:
            line.tell(reason)
    except Exception:
        logger.exception("worker.broken", flow=spec.flow, agent=spec.agent)
    flush_all()
    if line is None:
        groups.end_descendants()
    # A plain handler whose step was given back may still run in its thread, and Python would wait for it.
    os._exit(code)


async def _work(spec: WorkerSpec, line: Line | None, recycle: asyncio.Event, held: Held) -> int:
    stop, retire = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(RETIRE, retire.set)
    if line is None:
        loop.add_signal_handler(signal.SIGINT, stop.set)
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    else:
        threading.Thread(target=_beat, args=(line, loop, stop, spec.stuck_s), name="beats", daemon=True).start()
    found = recorded_flow(spec.body, spec.folder, spec.flow) if spec.body else find_flow(spec.flow)
    agent = find_agent(found, spec.agent)
    async with contextlib.AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(spec.settings, name=f"baton {found.name} {agent}"))
        models, rehearses = None, {}
        if needs_models(found, [agent]):
            models = await stack.enter_async_context(Models(ModelSettings.from_environ()))
            rehearses = {"rehearses": True} if models.settings.rehearses else {}
            models.providers.know(found.name, found.flow.providers)
            await models.open()
        hosted = hosting(
            Engine(bus),
            found,
            [agent],
            models=models,
            grace_s=spec.grace_s,
            how_it_died=spec.deaths.how_it_died,
            retires=Retires(retire, stop),
            held=held,
        )
        too_many = await stack.enter_async_context(hosted)
        garbage.look_seldom()
        if line is not None:
            line.tell("")
        logger.info("worker.ready", flow=found.name, agent=agent, **rehearses)
        await _either(stop, retire, recycle, too_many)
        recycles = not (stop.is_set() or retire.is_set())
        logger.info("worker.recycles" if recycles else "worker.stops", flow=found.name, agent=agent)
    return RECYCLE if recycles else 0


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiting in waits:
            waiting.cancel()


def _beat(line: Line, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, stuck_s: float) -> None:
    """Tell the supervisor that we live, and stop when it has died, by whatever means.

    From a thread, as a handler may block the loop.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child has a supervisor"
    tell_if_stuck(stuck_s)
    while not wait([parent.sentinel], beat_s(stuck_s)):
        line.beat()
        tell_if_stuck(stuck_s)
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are as good as gone
        loop.call_soon_threadsafe(stop.set)
    time.sleep(ORPHAN_S)
    os._exit(1)
