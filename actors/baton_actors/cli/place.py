"""Where a command finds the bus: a server that is named, or the embedded one of the data directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec import Struct

from baton_actors.cli.exits import BadArgument, NoRunsHere, NoServerRuns
from baton_actors.processes.logs import LogLevel, LogSettings, configure
from baton_bus import Client, Settings, connect
from baton_bus.server.embedded import embedded
from baton_bus.settings import NO_LOGIN
from baton_bus.store.bus import Bus


class Place(Struct, frozen=True, kw_only=True):
    """What `--nats`, `--namespace` and `--data-dir` say; empty where they say nothing."""

    url: str = ""
    namespace: str = ""
    data_dir: Path = Path(".baton")

    @property
    def named(self) -> bool:
        """Whether a server is named, so that no embedded one is used."""
        return bool(self.url or os.environ.get("BATON_URL"))

    def settings(self, url: str = "") -> Settings:
        """Return the settings of the bus; `url` is that of the embedded server. Raises `BadArgument`."""
        # The embedded server's URL holds its login: what the environment says of another's does not fit it.
        given: dict[str, object] = {"url": url, **NO_LOGIN} if url else {"url": self.url or None}
        try:
            return Settings.from_environ(**given, namespace=self.namespace or None)
        except ValueError as error:
            raise BadArgument(str(error)) from error

    def free_bytes(self) -> int | None:
        """Return how much room the disk of the embedded server has; None where the server is another's."""
        if self.named:
            return None
        try:
            return shutil.disk_usage(self.data_dir).free
        except OSError:
            return None

    def index_file(self, settings: Settings) -> Path:
        """Return where the index of the runs is: beside the embedded server's data, else in the user's cache."""
        if not self.named:
            return self.data_dir / f"index-{settings.namespace}.sqlite"
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        of = hashlib.sha256(f"{settings.shown_url} {settings.api_prefix}".encode()).hexdigest()[:16]
        return Path(cache) / "baton" / f"index-{of}-{settings.namespace}.sqlite"

    @contextlib.asynccontextmanager
    async def server(self) -> AsyncIterator[Settings]:
        """Have a server while the context is open, started here if none is named and none runs."""
        if self.named:
            yield self.settings()
            return
        self.settings()  # a bad setting is told before a directory is made
        async with embedded(self.data_dir, server=_nats_server()) as server:
            yield self.settings(server.url)

    @contextlib.asynccontextmanager
    async def running_server(self) -> AsyncIterator[Settings]:
        """Use a server that runs already, for a command that is of no use with one of its own.

        Raises `NoServerRuns`.
        """
        if self.named:
            yield self.settings()
            return
        if not self.data_dir.is_dir():
            raise NoServerRuns(str(self.data_dir))
        async with embedded(self.data_dir, server=_nats_server()) as server:
            if server.started:
                raise NoServerRuns(str(self.data_dir))
            yield self.settings(server.url)

    @contextlib.asynccontextmanager
    async def bus(self, *, reads: bool = False) -> AsyncIterator[Bus]:
        """Open the bus. A command that only `reads` makes neither a data directory nor a stream.

        Raises `NoRunsHere`, `BusError`.
        """
        async with self.client(reads=reads) as client:
            yield client.bus

    @contextlib.asynccontextmanager
    async def client(self, *, reads: bool = False) -> AsyncIterator[Client]:
        """Open a client, for a command that acts on runs. Raises as `bus`."""
        if reads and not self.named and not self.data_dir.is_dir():
            raise NoRunsHere(str(self.data_dir.absolute()))
        logs(level="error")  # a command that is over in a moment tells its errors itself
        async with self.server() as settings, connect(settings, name="baton command", reads=reads) as client:
            yield client


def _nats_server() -> str:
    """Return the path of the nats-server to start; empty to look for it."""
    return os.environ.get("BATON_SERVER", "")


def logs(level: LogLevel = "info") -> LogSettings:
    """Set up the logs of this process, and return how its workers are to log. Raises `BadArgument`."""
    try:
        settings = LogSettings.from_environ(level=level)
    except ValueError as error:
        raise BadArgument(str(error)) from error
    configure(settings)
    return settings
