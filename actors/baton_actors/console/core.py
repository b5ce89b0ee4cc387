"""What all pages share: the client, what is heard of runs, the index, the templates, and how these stand."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from getpass import getuser
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

from baton_bus import Client, Settings
from baton_bus.client.hub import Hub
from baton_bus.client.roll import Crew
from baton_schemas.wire.words import Here

from .examined import Examined
from .feeds import Feeds
from .index_watch import IndexWatch
from .known_flows import Flows
from .listing import Rows
from .needs import Needs
from .queue_watch import QueueWatch
from .rendering import Rendering
from .streams import Streams

_ASK_EVERY_S = 5.0
"""So often it is asked who is there, while somebody looks."""
_HERE_S = 20.0
"""Who has not said for so long that it is there is not: pages without news are made anew every 15 s."""


class Options(Struct, frozen=True, kw_only=True):
    """What `baton console` was told."""

    index: Path
    words: bool = True
    """Whether the index holds words of inputs, outputs and errors."""
    read_only: bool = False
    where: str = ""
    """Options of commands that lead to the same server: `--nats …`."""
    data_dir: Path | None = None
    """Of the embedded server; None where it is another's."""


class Status(Struct, frozen=True, kw_only=True):
    """What the bar at the bottom says."""

    connected: bool
    server: str
    server_version: str
    namespace: str
    index: str
    workers: str
    """How many processes of workers are there, in words; empty where nobody says so."""
    attention: int = 0


class Console:
    """One console."""

    def __init__(self, client: Client, options: Options) -> None:
        self.client, self.options = client, options
        self.bus = client.bus
        self.settings: Settings = client.bus.settings
        self.hub = Hub(self.bus)
        self.feeds = Feeds(self.bus, self.hub)
        self.index = IndexWatch(options.index, self.settings, words=options.words)
        self.streams = Streams()
        self.needs = Needs(self)
        self.flows = Flows(self)
        self.rendering = Rendering(console=self, version=version("baton-bus"), where=options.where)
        self.rows = Rows(self.rendering)
        self.crew = Crew(self.bus)
        self.queues = QueueWatch(self.bus)
        self.examined = Examined(self.bus)
        self.who = f"console, {_user()}@{socket.gethostname()}"
        """Who acts, in what is written."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Console]:
        """Have it hear and keep what pages need while the context is open."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.hub.opened())
            await stack.enter_async_context(self.index.opened())
            await stack.enter_async_context(self.crew.hearing())
            self.crew.ask()
            yield self

    def status(self) -> Status:
        """Return how it stands with the server and the index."""
        nc = self.bus.nc
        return Status(
            connected=self.bus.is_connected,
            server=self.settings.shown_url,
            server_version=str(nc._server_info.get("version", "")) if self.bus.is_connected else "",
            namespace=self.settings.namespace,
            index=self._index_in_words(),
            workers=self._workers_in_words(),
            attention=self.needs.count(),
        )

    def workers(self) -> list[Here]:
        """Return who says that they are there, and ask again if that was long ago."""
        if time.monotonic() - self.crew.asked_at > _ASK_EVERY_S:
            self.crew.ask()
        return self.crew.here(_HERE_S)

    def _workers_in_words(self) -> str:
        count = len(self.workers())
        return f"{count:,} worker{'' if count == 1 else 's'}" if count else ""

    def _index_in_words(self) -> str:
        reach = self.index.reach()
        if reach is None:
            return self.index.why
        if reach.is_whole:
            return "index complete"
        back = f" back to {reach.back_to.astimezone():%d %b %H:%M}" if reach.back_to is not None else ""
        return f"index reaches{back}" if back else "index is being made"


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "somebody"
