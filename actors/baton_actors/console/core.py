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
from baton_bus.errors import BusError
from baton_bus.store.bus import Bus

from .feeds import Feeds
from .files import Files
from .index_watch import IndexWatch
from .rendering import Rendering
from .streams import Streams
from .tail import Tail


class Options(Struct, frozen=True, kw_only=True):
    """What `baton console` was told."""

    index: Path = Path()
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


class NoServerUsed(BusError):
    """The console was started for files alone."""

    def __init__(self) -> None:
        super().__init__(
            "This console was started for files, and uses no server. `baton console` shows what runs on one"
        )


class _Served:
    """What a console has that uses a server."""

    def __init__(self, client: Client, options: Options) -> None:
        self.client = client
        self.hub = Hub(client.bus)
        self.feeds = Feeds(client.bus, self.hub)
        self.index = IndexWatch(options.index, client.bus.settings, words=options.words)
        self.tail = Tail(client.bus, self.hub)


class Console:
    """One console."""

    def __init__(self, client: Client | None, options: Options) -> None:
        """Without a client there is no server: then files are all that can be looked at."""
        self.options = options
        self._served = _Served(client, options) if client is not None else None
        self.files = Files()
        self.streams = Streams()
        self.rendering = Rendering(console=self, version=version("baton-bus"), where=options.where)
        self.who = f"console, {_user()}@{socket.gethostname()}"
        """Who acts, in what is written."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Console]:
        """Have it hear and keep what pages need while the context is open."""
        async with contextlib.AsyncExitStack() as stack:
            if self._served is not None:
                await stack.enter_async_context(self.hub.opened())
                await stack.enter_async_context(self.index.opened())
            yield self

    @property
    def has_server(self) -> bool:
        """Whether a server is used; without one only files can be looked at."""
        return self._served is not None

    @property
    def is_connected(self) -> bool:
        """Whether what is shown can be kept up to date: without a server nothing of it changes."""
        return self._served is None or self.bus.is_connected

    # What has to do with the server: each raises `NoServerUsed` when there is none.

    @property
    def client(self) -> Client:
        """The client through which things are done."""
        return self._server.client

    @property
    def bus(self) -> Bus:
        """The bus."""
        return self._server.client.bus

    @property
    def settings(self) -> Settings:
        """The settings of the bus."""
        return self.bus.settings

    @property
    def hub(self) -> Hub:
        """Hears the log and live words."""
        return self._server.hub

    @property
    def feeds(self) -> Feeds:
        """The runs that pages show."""
        return self._server.feeds

    @property
    def index(self) -> IndexWatch:
        """The index, as pages read it."""
        return self._server.index

    @property
    def tail(self) -> Tail:
        """The end of the log, as it comes."""
        return self._server.tail

    @property
    def _server(self) -> _Served:
        if self._served is None:
            raise NoServerUsed
        return self._served

    def status(self) -> Status:
        """Return how it stands with the server and the index."""
        if self._served is None:
            return Status(connected=True, server="", server_version="", namespace="", index="")
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
