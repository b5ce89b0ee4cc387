"""Where the run of a page is from: the log, or an exported file. Pages are the same for both.

A page asks for its run here. It gets the run as it has been heard, the beginning of the addresses of all its pages
(`base`), and what fetches values from beside the log; so that nothing of a page knows where a run is from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request

from baton_bus.client.seen import Read, fetcher, see_read
from baton_bus.errors import BlobMissing, UnknownRun
from baton_schemas.show.step import StepSeen
from baton_schemas.wire.outcomes import Blob

from .feeds import Feed
from .files import OpenFile
from .page import Moved, of_run

if TYPE_CHECKING:
    from .core import Console

FILE = "file:"
"""How the name of a file begins where a run could stand too: no id of a run has a colon."""
FETCH_MAX_BYTES = 64 * 1024 * 1024
"""Of values beside the log that are fetched to be shown at once: as many as one value may have."""
NOT_IN_FILE = "not in the file"


class Source(ABC):
    """A run, and where it is from."""

    feed: Feed
    base: str
    """How the addresses of its pages begin: `/runs/{run}`."""
    name: str
    """What stands for it in the address of a comparison."""
    sources: tuple[str, ...] = ()
    """What changes its pages: see `page.Page.sources`."""
    can_act: bool = False
    """Whether something can be done with it: forked, cancelled."""
    here: str = "runs"
    """Which link of the top bar its pages belong to."""

    @abstractmethod
    async def fetch(self, blobs: Sequence[Blob]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return what is kept beside the log by its SHA-256, and why what is lacking was not fetched."""

    @abstractmethod
    async def blob(self, blob: Blob) -> bytes:
        """Return one value, however large. Raises `BlobMissing`, `BusUnavailable`."""

    @abstractmethod
    async def headers(self, seq: int) -> dict[str, str] | None:
        """Return the headers with which a message was stored; None where they are not known."""

    @abstractmethod
    async def origin(self, run: str) -> Read | None:
        """Return the run that this one goes on from; None where it is not at hand."""

    @abstractmethod
    def command(self, what: str, *arguments: str) -> str:
        """Return the command that says of this run what `baton WHAT RUN ARGUMENTS` does; empty where none does."""

    async def see(self, step: str) -> StepSeen:
        """Return all that there is to see of a step. Raises `UnknownStep`, `FlowUnreadable`, `BusUnavailable`."""
        feed = self.feed
        read = Read(entries=feed.entries, state=feed.state)
        running = feed.running().get(step, 0)
        return await see_read(read, step, self.fetch, self.origin, running=running)


class _OfLog(Source):
    can_act = True

    def __init__(self, console: Console, feed: Feed) -> None:
        self._console = console
        self.feed, self.name = feed, feed.run
        self.base = f"/runs/{quote(feed.run, safe='')}"
        self.sources = (of_run(feed.run),)

    async def fetch(self, blobs: Sequence[Blob]) -> tuple[dict[str, bytes], dict[str, str]]:
        return await fetcher(self._console.bus, FETCH_MAX_BYTES)(blobs)

    async def blob(self, blob: Blob) -> bytes:
        return await self._console.bus.blobs.get(blob)

    async def headers(self, seq: int) -> dict[str, str] | None:
        stored = await self._console.bus.log.stored(seq)
        return dict(stored.headers) if stored is not None else None

    async def origin(self, run: str) -> Read | None:
        try:
            feed = await self._console.feeds.read(run)
        except UnknownRun:
            return None
        return Read(entries=feed.entries, state=feed.state) if feed.run == run else None

    def command(self, what: str, *arguments: str) -> str:
        return " ".join(["baton", what, self.feed.run, *arguments])


class _OfFile(Source):
    here = "files"

    def __init__(self, file: OpenFile) -> None:
        self.feed = file.feed
        self.base = f"/files/{file.name}"
        self.name = FILE + file.name
        self._shown = file.shown

    async def fetch(self, blobs: Sequence[Blob]) -> tuple[dict[str, bytes], dict[str, str]]:
        return {}, {blob.sha256: NOT_IN_FILE for blob in blobs}

    async def blob(self, blob: Blob) -> bytes:
        raise BlobMissing(blob.sha256, "a file has the messages of a run, and nothing of what is kept beside the log")

    async def headers(self, seq: int) -> dict[str, str] | None:
        return None

    async def origin(self, run: str) -> Read | None:
        return None

    def command(self, what: str, *arguments: str) -> str:
        return f"baton replay {self._shown}" if what in ("show", "log", "replay") else ""


async def source_of(console: Console, request: Request) -> Source:
    """Return the run that an address is about: `/runs/{run}/…`, or `/files/{file}/…`.

    One that is named by a part of its id has its whole id in its address: raises `Moved`. Raises as `Feeds.read`, and
    `HTTPException` when no such file is open.
    """
    name = request.path_params.get("run")
    if name is None:
        return file_named(console, request.path_params["file"])
    feed = await console.feeds.read(name)
    if feed.run != name:
        rest = request.url.path.removeprefix("/runs/").partition("/")[2]
        query = f"?{request.url.query}" if request.url.query else ""
        raise Moved(f"/runs/{feed.run}" + (f"/{quote(rest)}" if rest else "") + query)
    return _OfLog(console, feed)


async def source_named(console: Console, name: str) -> Source:
    """Return the run of an id, or of a part of one; or the file of `file:NAME`. Raises as `source_of`, but `Moved`."""
    if name.startswith(FILE):
        return file_named(console, name.removeprefix(FILE))
    return _OfLog(console, await console.feeds.read(name))


def file_named(console: Console, name: str) -> Source:
    """Return the run of a file that is open. Raises `HTTPException`."""
    file = console.files.get(name)
    if file is None:
        raise HTTPException(404, f"no file {name!r} is open here: open it again on the page of files")
    return _OfFile(file)
