"""Real nats-servers for the suite: one to share, and ones that a test may stop, kill and restart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.subscription import Subscription

from baton_bus.server.embedded import find_server, start_tied

WAIT_S = 20.0
"""How long a condition may take before the test fails; on an idle machine all are met within 0.1 s."""


class NatsServer:
    """A nats-server over a store, always on the same port. It ends with the test process at the latest."""

    def __init__(self, store: Path, **options: Any) -> None:
        """`options` are keys of the server's configuration; `jetstream` is added to what we set there."""
        self.store, self.port, self.pid = store, -1, 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start_now(self) -> None:
        """Start, and wait until the server listens."""
        self.store.mkdir(parents=True, exist_ok=True)
        for left_over in self.store.glob("*.ports"):
            left_over.unlink()
        jetstream = {"store_dir": str(self.store), **self._options.get("jetstream", {})}
        ours = {"listen": f"127.0.0.1:{self.port}", "ports_file_dir": str(self.store)}
        config = self.store / "nats.conf"
        config.write_text(json.dumps(ours | self._options | {"jetstream": jetstream}))
        with (self.store / "nats.log").open("ab") as log:
            command = [str(find_server()), "-c", str(config)]
            self._process = start_tied(command, lock=log.fileno(), log=log.fileno())
        deadline = time.monotonic() + WAIT_S
        while not self._listens():
            log_text = (self.store / "nats.log").read_text()
            assert self._process.poll() is None, f"nats-server ended: {log_text}"
            assert time.monotonic() < deadline, f"nats-server is not ready: {log_text}"
            time.sleep(0.005)

    def stop_now(self) -> None:
        """Stop as an operator would, and wait for the end; nothing happens if it has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT_S)

    async def stop(self) -> None:
        await asyncio.to_thread(self.stop_now)

    async def kill(self) -> None:
        """SIGKILL: the server flushes nothing and says goodbye to nobody."""
        os.kill(self.pid, signal.SIGKILL)
        await self.stop()

    async def restart(self) -> None:
        """Start again on the same port and store, stopping first if it runs."""
        await self.stop()
        await asyncio.to_thread(self.start_now)

    def _listens(self) -> bool:
        for path in self.store.glob("*.ports"):  # {executable}_{pid}.ports, written once it listens
            if text := path.read_text():
                self.pid = int(path.stem.rpartition("_")[2])
                self.port = int(json.loads(text)["nats"][0].rpartition(":")[2])
                return True
        return False


@asynccontextmanager
async def nats_server(store: Path, **options: Any) -> AsyncIterator[NatsServer]:
    """Run a server of a test's own, for tests that stop it or need other options."""
    server = NatsServer(store, **options)
    await asyncio.to_thread(server.start_now)
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def peer(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """Have `answer` talk to whoever connects, over a bare socket; yield the address.

    In the end all connections are closed, whatever was being said: one that is left open is told in another test.
    """
    talking: list[asyncio.Task[None]] = []
    open_ones: list[asyncio.Task[None]] = []

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer)

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.append(task)
        talking.append(asyncio.create_task(say(reader, writer)))
        await asyncio.wait(talking[-1:])
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(on_client, "127.0.0.1", 0, backlog=1_000) as server:
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            for task in talking:
                task.cancel()
            await asyncio.gather(*open_ones)
            said = await asyncio.gather(*talking, return_exceptions=True)
            assert [each for each in said if isinstance(each, Exception)] == []  # a cancellation is none


async def subscribed(nc: Client, subject: str, **how: Any) -> Subscription:
    """Subscribe by nats-py, and return once the server knows of it.

    One flush is not enough: its ping overtakes the subscription before it, and on a busy machine one in a hundred
    messages that somebody else sends then is missed.
    """
    subscription = await nc.subscribe(subject, **how)
    await nc.flush()
    await nc.flush()
    return subscription


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fail the test if it does not within `WAIT_S`."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 (other processes set no event of ours)
            await asyncio.sleep(0.005)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
