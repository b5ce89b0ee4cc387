"""The same work done by Baton: flows whose handlers do nothing, workers, and a client that uses the public API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.processes.hosting import hosting
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.supervisor import Supervisor
from baton_bus import Client, Settings, connect

FLOWS = Path(__file__).parent / "flows"
_LOGS = LogSettings(level="error")


class Team:
    """Workers of every actor of a flow, and a client."""

    def __init__(self, client: Client, found: FoundFlow, pids: list[int]) -> None:
        """`pids` are the processes of the workers; none when they are in this one."""
        self.client, self.bus, self.plan, self.pids = client, client.bus, found.plan, pids

    async def run(self, given: dict[str, object]) -> str:
        """Start a run and wait for its output; return its id."""
        run = await self.client.start(self.plan, given)
        await run.result()
        return run.id


@contextlib.asynccontextmanager
async def in_one_process(
    url: str, namespace: str, flow: str, *, replicas: int = 1, keep: bool = False
) -> AsyncIterator[Team]:
    """Run a team, all of it in this process; its log is deleted at the end unless it is to be kept."""
    found, settings = find_flow(str(FLOWS / f"{flow}.toml")), Settings(url=url, namespace=namespace, replicas=replicas)
    async with connect(settings) as client:
        try:
            async with hosting(client.engine, found, list(found.flow.agents)):
                yield Team(client, found, [])
        finally:
            if not keep:
                await client.bus.js.delete_stream(namespace)


@contextlib.asynccontextmanager
async def as_processes(
    url: str, namespace: str, flow: str, *, replicas: int = 1, keep: bool = False
) -> AsyncIterator[Team]:
    """Run a team with a process for each actor, as `baton up` does; the client is in this process."""
    found, settings = find_flow(str(FLOWS / f"{flow}.toml")), Settings(url=url, namespace=namespace, replicas=replicas)
    async with connect(settings) as client:
        try:
            async with Supervisor([found], settings, restart=True, logs=_LOGS) as supervisor:
                await supervisor.ready()
                yield Team(client, found, list(supervisor.pids))
        finally:
            if not keep:
                await client.bus.js.delete_stream(namespace)
