"""Playing flows inside this process: the log, the actors, and a team to use them, for as long as a context is open."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import EllipsisType

import structlog
from msgspec.structs import replace

from baton_actors.agents.loading import FoundFlow, load_handlers, load_tools, needs_models, with_nested
from baton_actors.models import Models, ModelSettings
from baton_actors.processes.hosting import hosting
from baton_actors.processes.logs import LogSettings, configure
from baton_actors.services.steward import Steward
from baton_actors.team.team import Team
from baton_bus import Settings, connect
from baton_bus.client.client import data_dir_here, settings_here
from baton_bus.server.embedded import embedded
from baton_bus.settings import NO_LOGIN

DataDir = str | os.PathLike[str] | None | EllipsisType
"""Where the embedded server keeps its data: `...` is where commands do, None a directory that is removed at the end."""


@contextlib.asynccontextmanager
async def playing(
    flows: Sequence[FoundFlow],
    *,
    url: str,
    data_dir: DataDir,
    namespace: str,
    rehearse: bool | None,
    grace_s: float,
) -> AsyncIterator[Team]:
    """Have a log, and play these flows on it, while the context is open; see `Baton.local`."""
    played = with_nested(flows)
    for found in played:  # what is wrong with a handler is told before a server is started
        load_handlers(found)
        load_tools(found)
    _log_warnings()
    async with contextlib.AsyncExitStack() as stack:
        settings = await stack.enter_async_context(_log(url, data_dir, namespace))
        client = await stack.enter_async_context(connect(settings, name="baton local"))
        models = None
        if any(map(needs_models, played)):
            asked = ModelSettings.from_environ()
            models = Models(asked if rehearse is None else replace(asked, rehearse=rehearse))
            await stack.enter_async_context(models)
            for found in played:
                models.providers.know(found.name, found.flow.providers)
            await models.open()
        for found in played:
            await stack.enter_async_context(
                hosting(client.engine, found, list(found.flow.agents), models=models, grace_s=grace_s)
            )
        plans = {found.name: found.plan for found in flows}
        await stack.enter_async_context(Steward(client.engine, plans, answers_unknown=False).working())
        async with Team(client, flows, plays=True).opened() as team:
            yield team


@contextlib.asynccontextmanager
async def asking(
    flows: Sequence[FoundFlow], url: str, namespace: str, settings: Settings | None
) -> AsyncIterator[Team]:
    """Have a team that others play, while the context is open; see `Baton.connect`."""
    _log_warnings()
    if settings is None and url:
        settings = Settings.from_environ(url=url, namespace=namespace or None)
    elif settings is None and namespace:
        settings = await settings_here(namespace)
    async with connect(settings, name="baton client") as client, Team(client, flows, plays=False).opened() as team:
        yield team


@contextlib.asynccontextmanager
async def _log(url: str, data_dir: DataDir, namespace: str) -> AsyncIterator[Settings]:
    """Have a server while the context is open: one that is named, or the embedded one of a data directory."""
    if url or (data_dir is ... and os.environ.get("BATON_URL")):
        yield Settings.from_environ(url=url or None, namespace=namespace or None)
        return
    Settings.from_environ(url="nats://127.0.0.1", namespace=namespace or None)  # a bad setting is told first
    with contextlib.ExitStack() as stack:
        if data_dir is None:
            folder = tempfile.TemporaryDirectory(prefix="baton-log-", ignore_cleanup_errors=True)
            place = Path(stack.enter_context(folder))
        else:
            place = data_dir_here() if isinstance(data_dir, EllipsisType) else Path(data_dir)
        async with embedded(place, server=os.environ.get("BATON_SERVER", "")) as server:
            # Its URL holds its login: what the environment says of another's does not fit it.
            yield Settings.from_environ(url=server.url, **NO_LOGIN, namespace=namespace or None)


def _log_warnings() -> None:
    """Have our warnings on stderr, in a program that has not set up structlog itself: its own set-up stays."""
    if not structlog.is_configured():
        configure(LogSettings.from_environ(level="warning"))
