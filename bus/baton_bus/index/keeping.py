"""Opening an index to be kept, in a file or in memory, and keeping it whatever becomes of the log."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from baton_bus.errors import BusUnavailable, NoStream
from baton_bus.store.bus import Bus

from . import file as files
from .errors import IndexOutdated, LogReplaced
from .file import Identity
from .indexing import Indexer
from .stream import Look, look
from .table import Table

_AGAIN_S = 1.0
"""How soon a log that is away is looked for again."""


class Kept(Struct, frozen=True, kw_only=True):
    """An index that is being kept."""

    indexer: Indexer
    table: Table
    made: str = ""
    """Why one that was there was made anew, as in `it {made}`; empty where it goes on, or there was none."""


@asynccontextmanager
async def opened(
    bus: Bus, path: Path, *, words: bool = True, makes: bool = True, anew: bool = False
) -> AsyncIterator[Kept]:
    """Open the index of a log to be written, while the context is open: nobody else does.

    One that is missing, or cannot be used, is made anew if this `makes` it (in any case `anew`); then all of it is
    looked at, too. Raises
    `IndexBusy`, `IndexForeign`, `IndexLocked`, `IndexUnusable`; `IndexOutdated` when it is not to be made anew; and
    `BusUnavailable`, `NoStream`.
    """
    stream = await look(bus)
    identity = identity_of(bus, stream, words=words)
    with contextlib.ExitStack() as closing:
        with files.opening(path):
            made = _prepare(path, identity, closing, makes=makes, anew=anew)
            database = files.connected(path, writes=True)
            closing.callback(database.close)
            table = Table(database, words=words)
            indexer = Indexer(bus, table, stream)
        with files.told(path):
            yield Kept(indexer=indexer, table=table, made=made)


async def keep(bus: Bus, path: Path, told: Callable[[str], None], *, words: bool = True, anew: bool = False) -> None:
    """Keep an index until cancelled: through a server that is away, and a stream or a file that is made anew.

    Raises as `opened`, but for what is the log's.
    """
    while True:
        try:
            async with opened(bus, path, words=words, anew=anew) as kept:
                anew = False
                told(f"keeps the index {path}" + (f", made anew, as it {kept.made}" if kept.made else ""))
                following = asyncio.create_task(kept.indexer.follow(told), name="follow the log")
                try:
                    await _until_replaced(path, following)
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
        except (LogReplaced, NoStream, BusUnavailable) as error:
            told(str(error))
        await asyncio.sleep(_AGAIN_S)


async def _until_replaced(path: Path, following: asyncio.Task[None]) -> None:
    """Wait while the file is the one that is written: somebody may take it away, to have it made anew."""
    number = _number(path)
    while not following.done():
        await asyncio.wait([following], timeout=_AGAIN_S)
        if _number(path) != number:
            return
    following.result()


def identity_of(bus: Bus, stream: Look, *, words: bool = True) -> Identity:
    """Return which log this is."""
    return Identity(namespace=bus.settings.namespace, created=stream.created, words=words)


def _prepare(path: Path, identity: Identity, closing: contextlib.ExitStack, *, makes: bool, anew: bool) -> str:
    """Take the lock, and have an index there that can be used; return why it was made anew, if it was."""
    there = files.check_ours(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    closing.callback(os.close, files.lock(path))
    if not there and not makes:
        raise IndexOutdated(path, "is empty")
    if anew or not there:
        files.make(path, identity)
        return ""
    try:
        with files.told(path), contextlib.closing(files.connected(path, writes=True, whole=makes)) as database:
            files.check_identity(path, database, identity)
    except IndexOutdated as outdated:
        if not makes:
            raise
        files.make(path, identity)
        return outdated.reason
    return ""


def _number(path: Path) -> int:
    """Return which file is there, by its number; 0 when none is."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0
