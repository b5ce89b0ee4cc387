"""The nats-server that Baton starts itself, so that a flow runs on a laptop with only Python installed.

There is one server per data directory, and none but this user may connect to it or read what it keeps.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from baton_bus.errors import ServerFailed
from baton_bus.server import process as processes
from baton_bus.server.health import greeting
from baton_bus.server.keeper import Keeper
from baton_bus.server.lock import Record, password_of, read_record, try_lock
from baton_bus.server.process import await_ready, find_server, log_tail, start_server, start_tied, stop_server

__all__ = ["Embedded", "embedded", "find_server", "start_tied"]


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """A running nats-server of a data directory. `started` is False when another command started it."""

    url: str
    """With the login in it: give it to `Settings`, and print it nowhere."""
    pid: int
    """Of the server as it was first: one that takes its place has another."""
    data_dir: Path
    started: bool

    def __repr__(self) -> str:
        return f"Embedded(pid={self.pid}, data_dir={str(self.data_dir)!r}, started={self.started})"


@asynccontextmanager
async def embedded(data_dir: Path, *, server: str = "", sync_always: bool = False) -> AsyncIterator[Embedded]:
    """Run a nats-server over `data_dir`, or use the one that another command runs there.

    It listens on 127.0.0.1 only, on a port it chooses, for who has the directory's password. Who started it stops it
    on leaving, and should the starter be killed, the server stops by itself; who only uses it never stops it. Should
    it end before, it is started again on the same port by the one that started it, or by one that uses it longer:
    connections mend themselves. `sync_always` has each message on disk before it is acknowledged.

    Raises `ServerNotFound`, or `ServerFailed` with the end of the server's log.
    """
    claim = await _claim(data_dir)
    if isinstance(claim, Record):
        if sync_always and not claim.sync_always:
            advice = "Stop the command that started it, or leave the setting out."
            raise ServerFailed(data_dir, f"pid {claim.pid} runs without sync_always", advice)
        keeper = Keeper(data_dir, find_server(server), claim)
        async with keeper.keeping():
            yield Embedded(url=claim.url, pid=claim.pid, data_dir=data_dir, started=False)
        return
    try:
        executable, password = find_server(server), password_of(data_dir)
    except BaseException:
        os.close(claim)
        raise
    port = _port_of_before(data_dir)
    process = start_server(data_dir, executable, claim, password=password, sync_always=sync_always, port=port)
    try:
        record = await await_ready(data_dir, process, password=password, sync_always=sync_always)
    except BaseException:
        await stop_server(process)
        raise
    async with Keeper(data_dir, executable, record, process).keeping():
        yield Embedded(url=record.url, pid=record.pid, data_dir=data_dir, started=True)


async def _claim(data_dir: Path) -> int | Record:
    """Return the lock, held, when we are to start the server; else the record of the one that answers."""
    deadline = time.monotonic() + processes.START_TIMEOUT_S
    while time.monotonic() < deadline:
        if (lock := try_lock(data_dir)) is not None:
            return lock
        record = read_record(data_dir)
        if record is not None and await greeting(record.port) == record.server_id:
            return record
        await asyncio.sleep(processes.POLL_S)
    record = read_record(data_dir)
    who = f"pid {record.pid}" if record else "another command"
    raise ServerFailed(
        data_dir,
        f"{who} holds the directory but did not answer within {processes.START_TIMEOUT_S:g} s",
        "Stop that process, or use another data directory.",
        log_tail(data_dir),
    )


def _port_of_before(data_dir: Path) -> int:
    """Return the port of the last server here, where others may still call; -1 when there is none, or it is taken."""
    record = read_record(data_dir)
    if record is None:
        return -1
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", record.port))
        except (OSError, OverflowError):
            return -1
    return record.port
