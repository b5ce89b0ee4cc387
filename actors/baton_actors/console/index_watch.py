"""The index as pages use it: kept by a process of its own, read here, and heard of as soon as it has more.

The two talk by the file alone, so that nothing can disagree with it: SQLite says in a number whether somebody has
written (`PRAGMA data_version`), and that is looked at while somebody looks at a page that needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from baton_bus.index import file as files
from baton_bus.index.errors import IndexOutdated, IndexUnusable
from baton_bus.index.finding import Reach, reach_of
from baton_bus.settings import Settings

from .bell import Bell
from .keeping import COMMAND, KeepThis

_LOOK_EVERY_S = 0.025
"""How often it is looked whether there is more: some microseconds each."""
_REACH_EVERY_S = 0.25
"""How often it is looked how far it reaches while it is written: that counts its runs."""
_AGAIN_S = 1.0
"""How soon whoever keeps the index is started again when it has ended: another console may have kept it."""

logger = structlog.get_logger("baton.console")


class IndexWatch:
    """Reads an index that another process keeps."""

    def __init__(self, path: Path, settings: Settings, *, words: bool = True) -> None:
        """`words` are those of inputs, outputs and errors, which `--text` finds."""
        self.path = path
        self._order = KeepThis(settings=settings, path=str(path.absolute()), words=words)
        self.bell = Bell()
        """Rung when the index has more."""
        self._database: sqlite3.Connection | None = None
        self._opened = 0
        self._version = (-1, -1, -1)
        self._reach: Reach | None = None
        self._reach_of, self._reach_at = self._version, 0.0
        self.why = "the index is being made"
        """Why there is none to be read."""
        self.says = ""
        """What its keeper said last."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[IndexWatch]:
        """Have it kept, and look at it, while the context is open."""
        tasks = [
            asyncio.create_task(self._have_it_kept(), name="keep the index"),
            asyncio.create_task(self._look(), name="look at the index"),
        ]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._close()

    @property
    def database(self) -> sqlite3.Connection | None:
        """The index, to be read; None while there is none: `why` says why."""
        if self._database is None:
            try:
                if files.check_ours(self.path):
                    with files.told(self.path):
                        self._database = files.connected(self.path)
                        self._opened += 1
            except IndexOutdated:
                self.why = "the index is being made anew"  # whoever keeps it sees that, too
            except IndexUnusable as error:
                self.why = str(error)
        return self._database

    def reach(self) -> Reach | None:
        """Return how far it reaches, or did a moment ago; None while there is none."""
        database = self.database
        if database is None:
            return None
        now = time.monotonic()
        if self._reach is not None and (self._reach_of == self._version or now - self._reach_at < _REACH_EVERY_S):
            return self._reach
        try:
            with files.told(self.path):
                self._reach, self._reach_of, self._reach_at = reach_of(database), self._version, now
                return self._reach
        except IndexUnusable as error:
            self.broken(error)
            return None

    def broken(self, error: IndexUnusable) -> None:
        """Read it anew: whoever keeps it has made another, or will."""
        self.why = str(error)
        self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = self._reach = None

    async def _look(self) -> None:
        while True:
            version = self._seen()
            if version != self._version:
                if version[0] != self._version[0]:
                    self._close()  # another file stands in its place
                self._version = version
                self.bell.ring()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _seen(self) -> tuple[int, int, int]:
        """Return which file is there, in which connection it is read, and how often others wrote to it since."""
        try:
            number = self.path.stat().st_ino
        except OSError:
            return (0, 0, 0)
        database = self.database
        if database is None:
            return (number, 0, 0)
        try:
            return (number, self._opened, int(database.execute("PRAGMA data_version").fetchone()[0]))
        except sqlite3.Error:
            self._close()
            return (number, 0, 0)

    async def _have_it_kept(self) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(msgspec.json.encode(self._order) + b"\n")
                while line := await process.stdout.readline():
                    self.says = line.decode(errors="replace").strip()
                    self.bell.ring()
            except OSError as error:  # it died before it was told
                self.says = str(error)
            finally:
                process.stdin.close()
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
            logger.warning("index.keeper_ended", code=process.returncode, says=self.says)
            await asyncio.sleep(_AGAIN_S)
