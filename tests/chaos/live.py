"""I4: a process folds the log as it grows; at the end its states must be those of a replay, message for message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from baton_actors.processes import logs
from baton_bus import BusError, Settings
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.run.fold import RunFold, fold
from baton_schemas.run.state import RunState
from baton_schemas.show.export import dump, load

_AGAIN_S = 0.5


def watch_main(settings: Settings, until: Connection, path: str, log: str) -> None:
    """Fold everything up to the sequence that comes through `until`, then write the states to `path`."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), sys.stderr.fileno())
    logs.configure(logs.LogSettings(format="json", level="warning"))
    folds = asyncio.run(_watch(settings, until))
    states = {run: _text(live.state) for run, live in folds.items()}
    Path(path).write_text(json.dumps(states), "utf-8")


async def _watch(settings: Settings, until: Connection) -> dict[str, RunFold]:
    folds: dict[str, RunFold] = defaultdict(RunFold)
    seen = 0

    async def follow(bus: Bus) -> None:
        nonlocal seen
        async for entry in bus.log.follow(bus.subjects.stored()):
            if run := bus.subjects.split(entry.subject).run:
                folds[run].apply(entry)
            seen = entry.seq

    async with contextlib.AsyncExitStack() as stack:
        bus = await _opened(stack, settings)
        following = asyncio.create_task(follow(bus))
        last_seq = await asyncio.to_thread(until.recv)
        while seen < last_seq and not following.done():  # noqa: ASYNC110 (it is following that waits)
            await asyncio.sleep(0.01)
        following.cancel()
    return folds


async def _opened(stack: contextlib.AsyncExitStack, settings: Settings) -> Bus:
    """Reach the server, which may be away by the time that this process has come up."""
    while True:
        try:
            return await stack.enter_async_context(open_bus(settings, name="chaos watcher"))
        except BusError:
            await asyncio.sleep(_AGAIN_S)


async def export(settings: Settings) -> dict[str, list[bytes]]:
    """Return the lines that `baton export` would write of every run."""
    lines: dict[str, list[bytes]] = defaultdict(list)
    async with open_bus(settings, name="chaos export") as bus:
        async for entry in bus.log.read(bus.subjects.stored()):
            if run := bus.subjects.split(entry.subject).run:
                lines[run].append(dump(entry))
    return lines


def differences(path: Path, exported: dict[str, list[bytes]]) -> Iterator[str]:
    """Compare what the watcher wrote with a replay of an export; yield a sentence for each run that differs."""
    live: dict[str, str] = json.loads(path.read_text("utf-8"))
    for run in sorted(live.keys() | exported.keys()):
        replayed = fold(load(line, number) for number, line in enumerate(exported.get(run, []), start=1))
        if live.get(run) != _text(replayed):
            yield f"I4 run {run}: live and replayed state differ"


def _text(state: RunState) -> str:
    return msgspec.json.encode(state).decode()
