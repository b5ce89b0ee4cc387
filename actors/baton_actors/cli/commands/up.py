"""`baton up`, `actor` and `steward`: actors that go on running."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from baton_actors.agents.loading import FoundFlow, find_agent, find_flow, with_nested
from baton_actors.agents.signatures import asks_models
from baton_actors.cli import completing
from baton_actors.cli import options as o
from baton_actors.cli.beside import console_beside
from baton_actors.cli.command import command
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place, logs
from baton_actors.cli.reloading import reloading, telling_of_changes
from baton_actors.cli.show.console import console
from baton_actors.cli.show.costs import rehearsing_line
from baton_actors.cli.show.said import death_teller, json_teller, teller
from baton_actors.models import ModelSettings
from baton_actors.models.providers import Providers
from baton_actors.processes.forks import begin_imports
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_actors.processes.supervisor import Supervisor, preload_of
from baton_actors.services.clerk import Clerk
from baton_actors.services.steward import Steward
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import open_bus

_READY_S = 60.0
"""For all workers to take work: seconds, unless a handler's imports are slow."""


@command(until_stopped=True)
async def up(
    place: Place,
    flows: o.Flows,
    copies: Annotated[int, typer.Option("--copies", min=1, metavar="N", help="Processes per actor.")] = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start actors anew when the file of their flow or handler changes.")
    ] = False,
    with_console: Annotated[
        bool, typer.Option("--console", help="Serve the console too, in a process of its own; its address is printed.")
    ] = False,
    console_port: Annotated[
        int, typer.Option("--console-port", help="Where it listens; 0 for a free one.", min=0, max=65535)
    ] = 0,
    json: o.Json = False,
) -> int:
    """Keep the actors of flows running.

    Until Ctrl-C or SIGTERM; one that dies is started again. Tasks that clients publish become runs. With --reload, an
    actor whose files change is started anew; what it has begun it does to its end with the code that it had. With
    --console, a console ends with it, and is started again should it end before.
    """
    found = [find_flow(name) for name in flows]
    played = with_nested(found)
    begin_imports(preload_of(played))
    log_settings = logs(level="warning" if sys.stderr.isatty() else "info")  # people see what runs in the table
    out, as_text = console(stderr=True), log_settings.format == "console"
    async with (
        place.server() as settings,
        Supervisor(
            played,
            settings,
            copies=copies,
            restart=True,
            logs=log_settings,
            on_printed=teller(out) if as_text else json_teller(),
            on_death=death_teller(out, settings.lease_s) if as_text else None,
        ) as supervisor,
        open_bus(settings, name="baton up") as bus,
        Steward(Engine(bus), {each.name: each.plan for each in found}).working() as steward,
        _watching(played, supervisor, steward, reload=reload),
        _console(place, console_port, wanted=with_console or bool(console_port)) as console_at,
    ):
        await supervisor.ready(_READY_S)
        if json:
            facts = {"url": settings.shown_url, "namespace": settings.namespace, "rehearses": _rehearse(played)}
            at = {"console": console_at} if console_at else {}
            print_json({**facts, **at, "flows": list(map(_facts, played))})
        else:
            tell(found, settings, place, copies, console_at)
        await asyncio.Event().wait()
    return 0


@command()
def actor(
    place: Place,
    flow: o.Flow,
    actor: Annotated[
        str,
        typer.Argument(
            metavar="ACTOR", help="An agent of the flow, or its actor's name.", autocompletion=completing.agents
        ),
    ],
) -> int:
    """Run one actor in this process.

    It needs a server that runs already: --nats, BATON_URL, or that of `baton up` in the data directory.
    """
    found = find_flow(flow)
    agent = find_agent(found, actor)
    log_settings = logs()
    settings = asyncio.run(_settings(place))
    # It handles signals and ends the process itself.
    worker_main(WorkerSpec(flow=found.source, agent=agent, settings=settings, logs=log_settings))


@command(until_stopped=True)
async def steward(place: Place, flows: o.Flows) -> int:
    """Turn the tasks of clients into runs.

    Part of `run` and `up`; this is for actors that run one by one. It needs a server that runs already.
    """
    found = [find_flow(name) for name in flows]
    logs()
    async with (
        place.running_server() as settings,
        open_bus(settings, name="baton steward") as bus,
        Clerk(Engine(bus)).working(),
        Steward(Engine(bus), {each.name: each.plan for each in found}).working(),
    ):
        console(stderr=True).print(f"starts runs of {', '.join(each.name for each in found)}")
        await asyncio.Event().wait()
    return 0


async def _settings(place: Place) -> Settings:
    async with place.running_server() as settings:
        return settings


def _watching(
    found: Sequence[FoundFlow], supervisor: Supervisor, steward: Steward, *, reload: bool
) -> AbstractAsyncContextManager[None]:
    """Look at the files of flows: take up what changes, or say that it has changed."""
    out = console(stderr=True)

    def print_line(line: Text) -> None:
        out.print(line, soft_wrap=not out.is_terminal)

    if reload:
        return reloading(found, supervisor, steward, print_line)
    advice = "they go on with the code that they have; `baton up --reload` takes up changes"
    return telling_of_changes(found, advice, print_line)


@contextlib.asynccontextmanager
async def _console(place: Place, port: int, *, wanted: bool) -> AsyncIterator[str]:
    """Have a console, if one is wanted, while the context is open; yield its address, empty without one."""
    if not wanted:
        yield ""
        return
    out = console(stderr=True)
    async with console_beside(place, port, lambda said: out.print(Text(said, "yellow"))) as address:
        yield address


def tell(flows: Sequence[FoundFlow], settings: Settings, place: Place, copies: int, console_at: str = "") -> None:
    """Say what runs and how to give it work."""
    played = with_nested(flows)
    rehearses = _rehearse(played)
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("flow", "actor", "does it"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for found in played:
        for index, (actor, agent) in enumerate(found.plan.actors().items()):
            table.add_row(Text(found.name if not index else "", "bold"), actor, _by(found, agent, rehearses))
    out = console(stderr=True)
    times = f", {copies} processes per actor" if copies > 1 else ""
    out.print(Text.assemble(("● ", "green"), f"up at {settings.shown_url}{times}; Ctrl-C stops"))
    if console_at:
        out.print(Text(f"  the console is at {console_at}"), soft_wrap=True)
    out.print()
    out.print(table)
    out.print()
    if rehearses:
        out.print(rehearsing_line(), soft_wrap=True)
        out.print()
    where = "" if not place.named else f" --nats {settings.shown_url}"
    for found in flows:
        pairs = " ".join(f"{key}=…" for key, field in found.flow.input.items() if field.required)
        out.print(f"  baton submit{where} {found.source} {pairs} --wait", style="dim", soft_wrap=True)


def _by(found: FoundFlow, agent: str, rehearses: bool) -> Text:
    """Return what does an agent's steps: its handler, or its model; one that rehearses is not asked."""
    told = found.flow.agents[agent]
    if told.person:
        return Text(f"asks {told.person}", "dim")
    if told.flow:
        return Text(f"runs {found.plan.nested[told.flow].flow.name}", "dim")
    if not asks_models(told, found.folder):
        return Text(told.handler, "dim")
    model = Text(told.handler or found.plan.tier(told).model, "dim")
    if told.asks_models and found.flow.providers:
        rehearses = _rehearses(found, found.plan.tier(told).model)
    return model.append(", rehearsed", "yellow") if rehearses else model


def _rehearses(found: FoundFlow, model: str) -> bool:
    providers = Providers(ModelSettings.from_environ())
    providers.know(found.name, found.flow.providers)
    return providers.where(found.name, model).settings.rehearses


def _rehearse(flows: Sequence[FoundFlow]) -> bool:
    """Say whether agents of these flows answer without a model: workers read the same environment as we do."""
    asks = any(asks_models(agent, found.folder) for found in flows for agent in found.flow.agents.values())
    return asks and ModelSettings.from_environ().rehearses


def _facts(found: FoundFlow) -> dict[str, object]:
    return {"flow": found.name, "actors": found.plan.actors()}
