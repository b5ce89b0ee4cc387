"""Three real nats-servers on loopback that form a cluster, for tests that kill its leaders."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError

from .servers import WAIT_S, NatsServer

_ASK_S = 0.25
"""A server without a meta leader does not answer: it is asked again this soon."""


class Peers:
    """The servers of a cluster, wherever they come from."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self.url = ",".join(urls)

    async def ask(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the JetStream API of any server that lives, until one answers without an error."""
        async with asyncio.timeout(WAIT_S):
            nc = await nats.connect(self.urls, max_reconnect_attempts=-1, error_cb=_say_nothing)
            try:
                while True:
                    with contextlib.suppress(NatsTimeoutError, NatsError, msgspec.DecodeError):
                        answer = await nc.request(f"$JS.API.{subject}", msgspec.json.encode(body or {}), _ASK_S)
                        facts: dict[str, Any] = msgspec.json.decode(answer.data)
                        if "error" not in facts:
                            return facts
                    await asyncio.sleep(0.02)
            finally:
                await nc.close()

    async def leader_name(self, stream: str) -> str:
        """Return the name of the server that leads a stream, once there is one."""
        async with asyncio.timeout(WAIT_S):
            while True:
                name = (await self.ask(f"STREAM.INFO.{stream}"))["cluster"].get("leader")
                if name:
                    return str(name)
                await asyncio.sleep(0.02)

    async def until_current(self, stream: str) -> None:
        """Wait until every replica of a stream has all that its leader has."""
        async with asyncio.timeout(WAIT_S):
            while True:
                info = await self.ask(f"STREAM.INFO.{stream}")
                followers = info["cluster"].get("replicas") or []
                has_all = [each for each in followers if each["current"] and not each.get("lag")]
                if info["cluster"].get("leader") and len(has_all) + 1 == info["config"]["num_replicas"]:
                    return
                await asyncio.sleep(0.02)

    async def step_down(self, stream: str) -> None:
        """Have another server lead a stream. Quicker than a kill: nobody has to notice first."""
        await self.ask(f"STREAM.LEADER.STEPDOWN.{stream}")

    async def until_formed(self) -> None:
        """Wait until the meta leader sees every server as its peer: from then on it can place as many replicas."""
        probe = {"name": "probe", "subjects": ["probe"], "num_replicas": len(self.urls), "storage": "memory"}
        await self.ask("STREAM.CREATE.probe", probe)
        await self.ask("STREAM.DELETE.probe")


class Cluster(Peers):
    """Servers of our own, named n0, n1, n2, …: each with routes to all others, a store and fixed ports."""

    def __init__(self, tmp: Path, size: int, **options: Any) -> None:
        """`options` are keys of each server's configuration."""
        ports = free_ports(2 * size)
        super().__init__([f"nats://127.0.0.1:{port}" for port in ports[:size]])
        routes = [f"nats://127.0.0.1:{port}" for port in ports[size:]]
        self.servers = [
            NatsServer(
                tmp / f"n{index}",
                server_name=f"n{index}",
                listen=f"127.0.0.1:{ports[index]}",
                cluster={"name": "team", "listen": routes[index].removeprefix("nats://"), "routes": routes},
                **options,
            )
            for index in range(size)
        ]

    async def leader(self, stream: str) -> int:
        """Return the index of the server that leads a stream, once there is one."""
        return int((await self.leader_name(stream))[1:])

    async def kill(self, index: int) -> None:
        """SIGKILL one server."""
        await self.servers[index].kill()

    async def start(self, index: int) -> None:
        """Start one server again on its store and ports."""
        await asyncio.to_thread(self.servers[index].start_now)


@asynccontextmanager
async def cluster(tmp: Path, size: int = 3, **options: Any) -> AsyncIterator[Cluster]:
    """Run a cluster that can place a stream with as many replicas as it has servers."""
    ours = Cluster(tmp, size, **options)
    try:
        await asyncio.gather(*(asyncio.to_thread(server.start_now) for server in ours.servers))
        await ours.until_formed()
        yield ours
    finally:
        await asyncio.gather(*(server.stop() for server in ours.servers))


def free_ports(count: int) -> list[int]:
    """Ports that are free now. Each server must know its peers' before any of them listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def _say_nothing(_: Exception) -> None:
    pass
