"""What all pages share: the client, what is heard of runs, the index, the templates, and how these stand."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from getpass import getuser
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

from baton_bus import Client, Settings
from baton_bus.client.hub import Hub

from .broadcast import Broadcasts
from .feeds import Feeds
from .index_watch import IndexWatch
from .rendering import Rendering
from .streams import Streams


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
        self.broadcasts = Broadcasts()
        self.rendering = Rendering(console=self, version=version("baton-bus"), where=options.where)
        self.who = f"console, {_user()}@{socket.gethostname()}"
        """Who acts, in what is written."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Console]:
        """Have it hear and keep what pages need while the context is open."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.hub.opened())
            await stack.enter_async_context(self.index.opened())
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
        )

    def _index_in_words(self) -> str:
        reach = self.index.reach()
        if reach is None:
            return self.index.why
        if reach.low_seq <= 1:
            return "index complete"
        back = f" back to {reach.back_to.astimezone():%d %b %H:%M}" if reach.back_to is not None else ""
        return f"index reaches{back}" if back else "index is being made"


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "somebody"
