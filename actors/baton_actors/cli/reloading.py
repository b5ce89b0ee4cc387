"""Files of flows that change while their actors are up: taken up, or said to be newer than the code that runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from rich.text import Text

from baton_actors.agents.files import syntax_error
from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.cli.text import plain
from baton_actors.errors import ActorError
from baton_actors.processes.freshness import SELDOM_S, FilesChanged, Freshness, watch
from baton_actors.processes.supervisor import Supervisor
from baton_actors.services.steward import Steward
from baton_schemas.errors import SchemaError

Tell = Callable[[Text], None]
_KEEPS = "goes on with the code that it has"


@contextlib.asynccontextmanager
async def telling_of_changes(flows: Sequence[FoundFlow], advice: str, tell: Tell) -> AsyncIterator[None]:
    """Say once of each change of a file that workers are older, while the context is open."""

    async def on_change(flow: Freshness, changed: FilesChanged) -> None:
        flow.took_up(flow.found)  # each change is told once
        have = "have" if len(changed.files) > 1 else "has"
        said = f"{changed.names} {have} changed since its workers began: {advice}"
        tell(Text.assemble(("· ", "yellow"), plain(said)))

    async with _watching(flows, on_change, SELDOM_S):
        yield


@contextlib.asynccontextmanager
async def reloading(
    flows: Sequence[FoundFlow], supervisor: Supervisor, steward: Steward, tell: Tell
) -> AsyncIterator[None]:
    """Start workers anew whose files change, while the context is open; with a mistake in them the old ones go on."""

    async def on_change(flow: Freshness, changed: FilesChanged) -> None:
        try:
            found = _mended(changed)
            if changed.agents:
                await supervisor.reload(found, changed.agents)
        except (ActorError, SchemaError) as error:
            tell(Text.assemble(("✗ ", "red"), plain(f"{error}")))
            tell(Text(plain(f"  {flow.found.name} {_KEEPS}"), "dim"))
            return
        flow.took_up(found)
        steward.know(found.plan)
        actors = [actor for actor, agent in found.plan.actors().items() if agent in changed.agents]
        tell(Text.assemble(("↻ ", "green"), plain(f"{changed.names} changed: {', '.join(actors)} began anew")))

    async with _watching(flows, on_change):
        yield


class CannotReload(ActorError):
    """The files of a flow that is up are such that no worker could begin with them."""

    def __init__(self, reason: str) -> None:
        """`reason` says where and what."""
        self.reason = reason
        super().__init__(reason)


def _mended(changed: FilesChanged) -> FoundFlow:
    """Return the flow as its files are now. Raises `CannotReload`, `FlowError`, `UnknownFlow`."""
    for file in changed.files:
        if file.suffix == ".py" and (error := syntax_error(file)):
            raise CannotReload(error)
    found = find_flow(changed.found.source)
    if found.name != changed.found.name:
        raise CannotReload(f"the flow in {changed.names} is now called {found.name!r}: start `baton up` again for it")
    return found


@contextlib.asynccontextmanager
async def _watching(
    flows: Sequence[FoundFlow],
    on_change: Callable[[Freshness, FilesChanged], Awaitable[None]],
    looks_s: float | None = None,
) -> AsyncIterator[None]:
    fresh = [Freshness(found) for found in flows]
    watcher = asyncio.create_task(watch(fresh, on_change, looks_s), name="files of flows")
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
