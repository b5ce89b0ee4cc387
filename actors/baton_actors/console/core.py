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
from baton_bus.errors import BusError
from baton_bus.store.bus import Bus
from baton_schemas.wire.words import Here

from .broadcast import Broadcasts
from .examined import Examined
from .feeds import Feeds
from .files import Files
from .index_watch import IndexWatch
from .known_flows import Flows
from .listing import Rows
from .needs import Needs
from .queue_watch import QueueWatch
from .rendering import Rendering
from .streams import Streams
from .tail import Tail

_ASK_EVERY_S = 5.0
"""So often it is asked who is there, while somebody looks."""
_HERE_S = 20.0
"""Who has not said for so long that it is there is not: pages without news are made anew every 15 s."""


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
    workers: str
    """How many processes of workers are there, in words; empty where nobody says so."""
    attention: int = 0


class NoServerUsed(BusError):
    """The console was started for files alone."""

    def __init__(self) -> None:
        super().__init__(
            "This console was started for files, and uses no server. `baton console` shows what runs on one"
        )


class _Served:
    """What a console has that uses a server."""

    def __init__(self, console: Console, client: Client) -> None:
        options = console.options
        self.client = client
        self.hub = Hub(client.bus)
        self.feeds = Feeds(client.bus, self.hub)
        self.index = IndexWatch(options.index, client.bus.settings, words=options.words)
        self.tail = Tail(client.bus, self.hub)
        self.crew = Crew(client.bus)
        self.queues = QueueWatch(client.bus)
        self.examined = Examined(client.bus)
        self.needs = Needs(console)
        self.flows = Flows(console)


class Console:
    """One console."""

    def __init__(self, client: Client | None, options: Options) -> None:
        """Without a client there is no server: then files are all that can be looked at."""
        self.options = options
        self._served = _Served(self, client) if client is not None else None
        self.files = Files()
        self.streams = Streams()
        self.broadcasts = Broadcasts()
        self.rendering = Rendering(console=self, version=version("baton-bus"), where=options.where)
        self.rows = Rows(self.rendering)
        self.who = f"console, {_user()}@{socket.gethostname()}"
        """Who acts, in what is written."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Console]:
        """Have it hear and keep what pages need while the context is open."""
        async with contextlib.AsyncExitStack() as stack:
            if self._served is not None:
                await stack.enter_async_context(self.hub.opened())
                await stack.enter_async_context(self.index.opened())
                await stack.enter_async_context(self.crew.hearing())
                self.crew.ask()
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
    def crew(self) -> Crew:
        """The workers that say they are there."""
        return self._server.crew

    @property
    def queues(self) -> QueueWatch:
        """The queues, as they were last looked at."""
        return self._server.queues

    @property
    def examined(self) -> Examined:
        """What `doctor` says."""
        return self._server.examined

    @property
    def needs(self) -> Needs:
        """What people have to see to."""
        return self._server.needs

    @property
    def flows(self) -> Flows:
        """The flows that are known here."""
        return self._server.flows

    @property
    def _server(self) -> _Served:
        if self._served is None:
            raise NoServerUsed
        return self._served

    def status(self) -> Status:
        """Return how it stands with the server and the index."""
        if self._served is None:
            return Status(connected=True, server="", server_version="", namespace="", index="", workers="")
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
