"""Ctrl-C at any moment: while modules are imported, while a connection is made, and when an answer comes with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from nats.aio.transport import TcpTransport

from baton_bus import Settings
from baton_bus.jetstream.connection import opened
from baton_bus.jetstream.nats_client import NatsClient
from baton_bus.store.bus import open_bus

from .commands import WAIT_S, WORDS, environ
from .servers import NatsServer, nats_server, until
from .wired import wired

INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from baton_actors.cli import script
script()
"""


@pytest.mark.parametrize("module", ["typer", "msgspec", "asyncio", "nats", "baton_actors.cli.commands.run"])
def test_ctrl_c_while_modules_are_imported_ends_at_once_without_a_traceback(tmp_path: Path, module: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(module=module), "run", WORDS, "text=a"],
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        timeout=WAIT_S,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_command_imports_next_to_nothing_before_it_minds_ctrl_c() -> None:
    listed = "import sys; before = set(sys.modules); import baton_actors.cli; print(*set(sys.modules) - before)"
    modules = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True).stdout.split()
    assert {module for module in modules if "." in module or module.startswith("baton")} <= {
        "baton_actors",
        "baton_actors.cli",
    }
    assert len(modules) < 25


def test_ctrl_c_at_a_page_of_replay_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "baton_actors.cli", "run", WORDS, "text=a", "--run", "r1"],
        cwd=tmp_path,
        env=environ(),
        check=True,
        capture_output=True,
    )
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-m", "baton_actors.cli", "replay", "r1"],
        cwd=tmp_path,
        env=environ(TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    while b"message 1 of" not in seen:
        seen += os.read(ours, 4096)
    command.send_signal(signal.SIGINT)
    while b"\x1b[?1049l" not in seen:  # the other screen is left
        seen += os.read(ours, 4096)
    assert command.wait(WAIT_S) == 130
    os.close(ours)
    assert b"Traceback" not in seen


async def test_cancellation_that_comes_with_an_answer_is_not_lost(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        asking = asyncio.create_task(bus.nc.request("$JS.API.INFO", timeout=WAIT_S))
        while not bus.nc._resp_map:  # noqa: ASYNC110 (the library sets no event of ours)
            await asyncio.sleep(0)
        answer = next(iter(bus.nc._resp_map.values()))
        answer.add_done_callback(lambda _: asking.cancel())
        with pytest.raises(asyncio.CancelledError):
            await asking
        flushing = asyncio.create_task(bus.nc.flush())
        while not bus.nc._pongs:  # noqa: ASYNC110
            await asyncio.sleep(0)
        bus.nc._pongs[0].add_done_callback(lambda _: flushing.cancel())
        with pytest.raises(asyncio.CancelledError):
            await flushing


async def test_connection_that_is_closed_while_it_is_mended_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its new socket comes together with the cancellation, which `asyncio.wait_for` then drops."""
    is_mended, connect = asyncio.Event(), TcpTransport.connect

    async def unheeding(self: TcpTransport, *args: Any, **more: Any) -> None:
        is_mended.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        monkeypatch.setattr(TcpTransport, "connect", connect)
        await connect(self, *args, **more)

    before = asyncio.all_tasks()
    async with nats_server(tmp_path) as server:
        async with opened(Settings(url=server.url), name="t", on_lost=lambda: None, on_back=lambda: None) as nc:
            monkeypatch.setattr(TcpTransport, "connect", unheeding)
            await server.restart()
            await is_mended.wait()
        assert nc.is_closed
        assert asyncio.all_tasks() == before


async def test_connection_for_leases_that_is_made_while_it_is_no_longer_needed_is_closed(
    server: NatsServer, namespace: str
) -> None:
    """Also when its socket comes together with the cancellation."""
    is_begun, made = threading.Event(), NatsClient()

    async def unheeding() -> NatsClient:
        is_begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await made.connect(server.url)
        return made

    async with wired(server.url, namespace) as t:
        assert t.nc.leases is not None
        t.nc.leases._connect = unheeding
        async with t.pulling(1, lambda _: None, lease_s=0.6):
            await t.fill(1)
            await until(is_begun.is_set)
        await t.js.delete_stream(namespace)
    assert made.is_closed


async def test_connection_that_is_given_up_while_it_is_made_leaves_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()  # up to its end
        writer.close()
        hung_up.set()

    called, hung_up = asyncio.Event(), asyncio.Event()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        before = asyncio.all_tasks()

        async def connect() -> None:
            settings = Settings(url=f"nats://127.0.0.1:{port}")
            async with opened(settings, name="t", on_lost=lambda: None, on_back=lambda: None):
                raise AssertionError("nobody has greeted us")

        connecting = asyncio.create_task(connect())
        await called.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await hung_up.wait()
        await asyncio.sleep(0)  # the task of `silent` ends with it
        assert asyncio.all_tasks() == before
