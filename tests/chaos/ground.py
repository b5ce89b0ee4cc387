"""What a chaos run stands on: one server behind a proxy, or a cluster of three, and what may happen to either."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

from tests.clusters import Cluster, cluster
from tests.servers import NatsServer

from .cluster import ClusterFaults
from .disk import NoDisk, SmallDisk, small_disk
from .history import History
from .proxy import Proxy
from .schedule import CLUSTER, DISK, ONE_SERVER, Fault

DISK_BYTES = 96 * 1024 * 1024
_SLOW_S = 0.05


class Ground(Protocol):
    """The servers, as the driver sees them."""

    kinds: Mapping[str, int]
    """Faults that are possible here, and how often each comes."""
    replicas: int

    @property
    def url(self) -> str:
        """For workers and clients."""

    @property
    def sure_url(self) -> list[str]:
        """For the checker: nothing stands in between."""

    def port(self) -> int:
        """Of a server, for strangers."""

    async def inject(self, fault: Fault, dice: random.Random) -> None:
        """Have a fault of the servers, or of what leads to them; return when it is over."""

    async def calm(self, streams: list[str]) -> None:
        """Wait until the servers have caught up with each other."""


class OneServer:
    """One server on a store of its own, which may be a small disk."""

    replicas = 1

    def __init__(self, server: NatsServer, proxy: Proxy, history: History, disk: SmallDisk | None) -> None:
        self._server, self._proxy, self._history, self._disk = server, proxy, history, disk
        self.kinds = ONE_SERVER | (DISK if disk is not None else {})

    @property
    def url(self) -> str:
        return self._proxy.url

    @property
    def sure_url(self) -> list[str]:
        return [self._server.url]

    def port(self) -> int:
        return self._server.port

    async def inject(self, fault: Fault, dice: random.Random) -> None:
        say = self._history.say
        match fault.kind:
            case "kill the server":
                await self._restart_after(fault.lasts_s)
            case "stall the server":
                say("server.stopped")
                await _stop_for(self._server.pid, fault.lasts_s)
                say("server.continued")
            case "cut all connections":
                say("connections.cut", how_many="all")
                self._proxy.cut_all()
            case "cut one connection":
                say("connections.cut", how_many="one")
                self._proxy.cut_one(dice)
            case "hold all traffic":
                say("traffic.held")
                await self._proxy.hold(fault.lasts_s)
                say("traffic.flows")
            case "hold what clients are told":
                say("traffic.held")
                await self._proxy.hold(fault.lasts_s, ("to clients",))
                say("traffic.flows")
            case "slow all traffic":
                say("traffic.held")
                self._proxy.slow(_SLOW_S)
                await asyncio.sleep(fault.lasts_s)
                self._proxy.slow()
                say("traffic.flows")
            case "fill the disk":
                assert self._disk is not None
                say("disk.filled")
                self._disk.fill()
                await asyncio.sleep(fault.lasts_s)
                self._disk.free()
                await self._restart_after(0.0)  # JetStream stays off until then, as it does for operators
                say("disk.freed")

    async def calm(self, streams: list[str]) -> None:
        """One server has nobody to catch up with."""

    async def _restart_after(self, away_s: float) -> None:
        self._history.say("server.killed")
        await self._server.kill()
        await asyncio.sleep(away_s)
        await self._server.restart()
        self._history.say("server.back")


class ThreeServers:
    """A cluster of three, in which one server at a time is killed or stopped."""

    replicas = 3
    kinds = CLUSTER

    def __init__(self, ours: Cluster, history: History, stream: str) -> None:
        self._cluster, self._faults, self._stream = ours, ClusterFaults(ours, history), stream

    @property
    def url(self) -> str:
        return ",".join(self._cluster.urls)

    @property
    def sure_url(self) -> list[str]:
        return list(self._cluster.urls)

    def port(self) -> int:
        return random.choice(self._cluster.servers).port

    async def inject(self, fault: Fault, dice: random.Random) -> None:
        leads = fault.kind.endswith("leader")
        name = await self._faults.leader(self._stream) if leads else await self._faults.follower(self._stream, dice)
        if fault.kind.startswith("kill"):
            await self._faults.kill(name, fault.lasts_s)
        else:
            await self._faults.stop_for(name, fault.lasts_s)
        # Two that are away at once are no cluster: the next fault finds all of it together.
        await self._cluster.until_current(self._stream)

    async def calm(self, streams: list[str]) -> None:
        for stream in streams:
            await self._cluster.until_current(stream)


@contextlib.asynccontextmanager
async def one_server(folder: Path, history: History, *, on_disk: bool) -> AsyncIterator[OneServer]:
    """Start a server behind a proxy; on a small disk, if that is asked for and can be had."""
    with contextlib.ExitStack() as stack:
        disk = None
        if on_disk:
            try:
                disk = stack.enter_context(small_disk(folder / "disk", DISK_BYTES))
            except NoDisk as error:
                print(f"  without a full disk: {error}", flush=True)
        server = NatsServer(disk.path / "nats" if disk is not None else folder / "nats")
        await asyncio.to_thread(server.start_now)
        try:
            proxy = Proxy(server.port)
            async with proxy.working():
                yield OneServer(server, proxy, history, disk)
        finally:
            await server.stop()


@contextlib.asynccontextmanager
async def three_servers(folder: Path, history: History, stream: str) -> AsyncIterator[ThreeServers]:
    """Start a cluster."""
    async with cluster(folder / "cluster") as ours:
        yield ThreeServers(ours, history, stream)


async def _stop_for(pid: int, lasts_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(lasts_s)
        finally:
            os.kill(pid, signal.SIGCONT)
