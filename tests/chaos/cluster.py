"""What the driver does to a cluster: its servers are killed and come back, or stop for a while and never know."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

from tests.clusters import Cluster

from .history import History


class ClusterFaults:
    """Faults of the servers of a cluster, aimed at the one that leads a stream or at one that follows."""

    def __init__(self, cluster: Cluster, history: History) -> None:
        self._cluster, self._history = cluster, history

    async def leader(self, stream: str) -> str:
        """Return the name of the server that leads a stream, once there is one."""
        return await self._cluster.leader_name(stream)

    async def follower(self, stream: str, dice: random.Random) -> str:
        """Return the name of a server that does not lead a stream."""
        leader = await self.leader(stream)
        return dice.choice([f"n{index}" for index in range(len(self._cluster.servers)) if f"n{index}" != leader])

    async def kill(self, name: str, away_s: float) -> None:
        """SIGKILL a server, and start it again on its store after a while; return once it listens."""
        index = self._index(name)
        self._history.say("server.killed", server=name)
        await self._cluster.kill(index)
        await asyncio.sleep(away_s)
        await self._cluster.start(index)
        self._history.say("server.back", server=name)

    async def stop_for(self, name: str, lasts_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while. What is sent to it meanwhile arrives then."""
        pid = self._cluster.servers[self._index(name)].pid
        self._history.say("server.stopped", server=name)
        with contextlib.suppress(ProcessLookupError):  # it may be killed meanwhile
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(lasts_s)
            finally:
                os.kill(pid, signal.SIGCONT)
        self._history.say("server.continued", server=name)

    def _index(self, name: str) -> int:
        return int(name.removeprefix("n"))
