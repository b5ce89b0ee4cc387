"""A TCP proxy between the workers and nats-server, which cuts connections, and slows or holds what they carry."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Way = Literal["to server", "to clients"]
_WAYS: tuple[Way, Way] = ("to server", "to clients")
_CHUNK_BYTES = 64 * 1024


class Proxy:
    def __init__(self, port: int) -> None:
        """`port` of the server on this machine."""
        self.url = ""
        self._to = port
        self._connections: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._flows = {way: asyncio.Event() for way in _WAYS}
        for event in self._flows.values():
            event.set()
        self._delay_s, self._bytes_per_s = 0.0, 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            self.cut_all()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        """Break every connection without a goodbye."""
        for pair in self._connections:
            for writer in pair:
                writer.transport.abort()

    def cut_one(self, dice: random.Random) -> None:
        """Break one connection without a goodbye."""
        if self._connections:
            for writer in dice.choice(self._connections):
                writer.transport.abort()

    async def hold(self, lasts_s: float, ways: tuple[Way, ...] = _WAYS) -> None:
        """Let nothing through for a while: both sides believe that they are connected.

        With one of the ways a connection is half open: what one side says arrives, and what it is told does not.
        """
        for way in ways:
            self._flows[way].clear()
        try:
            await asyncio.sleep(lasts_s)
        finally:
            for way in ways:
                self._flows[way].set()

    def slow(self, delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        """Make each link slow, either way, until it is called again; 0 is no delay, and no bound.

        What is read at once (up to 64 KiB) is on its way for the delay, and the next is read after that.
        """
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._connections.append(pair)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, "to server")),
            asyncio.create_task(self._pump(far_reader, writer, "to clients")),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps)
        self._tasks.difference_update(pumps)
        self._connections.remove(pair)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await asyncio.sleep(self._delay_s + (len(data) / self._bytes_per_s if self._bytes_per_s else 0.0))
                await self._flows[way].wait()
                if writer.transport.is_closing():
                    break
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
