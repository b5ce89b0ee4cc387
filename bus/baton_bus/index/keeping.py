"""Opening an index to be kept, in a file or in memory, and keeping it whatever becomes of the log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from baton_bus.errors import BusUnavailable, NoStream
from baton_bus.store.bus import Bus
from baton_bus.store.looking import Look, look

from . import file as files
from .changing import Committed
from .errors import IndexBusy, IndexOutdated, LogReplaced
from .file import Identity
from .finding import Reach, reach_of
from .indexing import Indexer
from .table import Table

WAIT_S = 1.5
"""How long whoever is to keep an index waits for another writer: one that brings it up to date needs less."""
_LOCK_AGAIN_S = 0.05
_AGAIN_S = 1.0
"""How soon a log that is away is looked for again."""


class Kept(Struct, frozen=True, kw_only=True):
    """An index that is being kept."""

    indexer: Indexer
    database: sqlite3.Connection
    made: str = ""
    """Why one that was there was made anew, as in `it {made}`; empty where it goes on, or there was none."""

    @property
    def reach(self) -> Reach:
        """How far it reaches now."""
        return reach_of(self.database)


@asynccontextmanager
async def opened(
    bus: Bus,
    path: Path,
    *,
    words: bool = True,
    makes: bool = True,
    anew: bool = False,
    wait_s: float = 0.0,
    committed: Callable[[Committed], None] = lambda what: None,
) -> AsyncIterator[Kept]:
    """Open the index of a log to be written, while the context is open: nobody else does.

    One that is missing, or cannot be used, is made anew if this `makes` it (in any case `anew`); then all of it is
    looked at, too. Another writer is waited for so long: some only bring it up to date. `committed` is called after
    each writing, in this loop, and must be quick. Raises `IndexBusy`, `IndexForeign`, `IndexLocked`, `IndexUnusable`;
    `IndexOutdated` when it is not to be made anew; and `BusUnavailable`, `NoStream`.
    """
    stream = await look(bus)
    identity = identity_of(bus, stream, words=words)
    with contextlib.ExitStack() as closing:
        closing.callback(os.close, await _locked(path, wait_s))
        with files.opening(path):
            made = _prepare(path, identity, makes=makes, anew=anew)
            database = files.connected(path, writes=True)
            closing.callback(database.close)
            indexer = Indexer(bus, Table(database, words=words), stream, committed)
        with files.told(path):
            yield Kept(indexer=indexer, database=database, made=made)


async def keep(
    bus: Bus,
    path: Path,
    told: Callable[[str], None],
    *,
    words: bool = True,
    anew: bool = False,
    committed: Callable[[Committed], None] = lambda what: None,
) -> None:
    """Keep an index until cancelled: through a server that is away, and a stream or a file that is made anew.

    Raises as `opened`, but for what is the log's.
    """
    while True:
        try:
            async with opened(bus, path, words=words, anew=anew, wait_s=WAIT_S, committed=committed) as kept:
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
        except IndexOutdated as error:  # while it was written: what is left of it is not looked at
            anew = True
            told(str(error))
        await asyncio.sleep(_AGAIN_S)


async def _until_replaced(path: Path, following: asyncio.Task[None]) -> None:
    """Wait while the file is the one that is written: somebody may take it away, to have it made anew.

    Who writes may not notice for long that it was cut off, as what it needs is in memory. Raises `IndexOutdated` then.
    """
    number, size = _found(path)
    while not following.done():
        await asyncio.wait([following], timeout=_AGAIN_S)
        found, size_now = _found(path)
        if found != number:
            return
        if size_now < size:  # beside a write-ahead log it only grows
            raise IndexOutdated(path, "was cut off")
        size = size_now
    following.result()


def identity_of(bus: Bus, stream: Look, *, words: bool = True) -> Identity:
    """Return which log this is."""
    return Identity(namespace=bus.settings.namespace, created=stream.created, words=words)


async def _locked(path: Path, wait_s: float) -> int:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + wait_s
    while True:
        try:
            return _lock(path)
        except IndexBusy:
            if loop.time() >= give_up_at:
                raise
        await asyncio.sleep(_LOCK_AGAIN_S)


def _lock(path: Path) -> int:
    with files.opening(path):
        files.check_ours(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return files.lock(path)


def _prepare(path: Path, identity: Identity, *, makes: bool, anew: bool) -> str:
    """Have an index there that can be used; return why one that was there was made anew, if it was."""
    there = files.check_ours(path)
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


def _found(path: Path) -> tuple[int, int]:
    """Return which file is there, by its number, and its size in bytes; zeros when none is."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_ino, found.st_size)
