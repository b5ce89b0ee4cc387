"""`baton up`, `actor` and `steward`: actors that go on running."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from baton_actors.agents.loading import FoundFlow, find_agent, find_flow
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place, logs
from baton_actors.cli.view import console
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_actors.processes.supervisor import Supervisor
from baton_actors.services.clerk import Clerk
from baton_actors.services.steward import Steward
from baton_bus import Settings, connect

_READY_S = 60.0
"""For all workers to take work: seconds, unless a handler's imports are slow."""


async def keep_up(place: Place, names: Sequence[str], copies: int, as_json: bool) -> int:
    """Run the actors of these flows, and the steward, until a signal."""
    flows = [find_flow(name) for name in names]
    log_settings = logs(level="warning" if sys.stderr.isatty() else "info")  # people see what runs in the table
    async with (
        place.server() as settings,
        Supervisor(flows, settings, copies=copies, restart=True, logs=log_settings) as supervisor,
        connect(settings, name="baton up") as bus,
        Steward(bus, {found.name: found.plan for found in flows}).working(),
    ):
        await supervisor.ready(_READY_S)
        if as_json:
            print_json({"url": settings.url, "namespace": settings.namespace, "flows": list(map(_facts, flows))})
        else:
            _tell(flows, settings, place, copies)
        await asyncio.Event().wait()
    return 0


def run_actor(place: Place, name: str, actor: str) -> int:
    """Play one actor in this process until a signal. It ends the process itself."""
    found = find_flow(name)
    agent = find_agent(found, actor)
    log_settings = logs()
    settings = asyncio.run(_settings(place))
    worker_main(WorkerSpec(flow=found.source, agent=agent, settings=settings, logs=log_settings))


async def run_steward(place: Place, names: Sequence[str]) -> int:
    """Start runs of these flows from the tasks of clients, until a signal."""
    flows = [find_flow(name) for name in names]
    logs()
    async with (
        place.running_server() as settings,
        connect(settings, name="baton steward") as bus,
        Clerk(bus).working(),
        Steward(bus, {found.name: found.plan for found in flows}).working(),
    ):
        console(stderr=True).print(f"starts runs of {', '.join(found.name for found in flows)}")
        await asyncio.Event().wait()
    return 0


async def _settings(place: Place) -> Settings:
    async with place.running_server() as settings:
        return settings


def _tell(flows: Sequence[FoundFlow], settings: Settings, place: Place, copies: int) -> None:
    """Say what runs and how to give it work."""
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("flow", "actor", "does it"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for found in flows:
        for index, (actor, agent) in enumerate(found.plan.actors().items()):
            by = found.flow.agents[agent].handler or found.plan.tier(found.flow.agents[agent]).model
            table.add_row(Text(found.name if not index else "", "bold"), actor, Text(by, "dim"))
    out = console(stderr=True)
    times = f", {copies} processes per actor" if copies > 1 else ""
    out.print(Text.assemble(("● ", "green"), f"up at {settings.url}{times}; Ctrl-C stops"))
    out.print()
    out.print(table)
    out.print()
    where = "" if not place.named else f" --nats {settings.url}"
    for found in flows:
        pairs = " ".join(f"{key}=…" for key, field in found.flow.input.items() if field.required)
        out.print(f"  baton submit{where} {found.source} {pairs} --wait", style="dim", soft_wrap=True)


def _facts(found: FoundFlow) -> dict[str, object]:
    return {"flow": found.name, "actors": found.plan.actors()}
