"""Keeping an embedded server: one that ends is started again on its port, and one that its full disk stopped too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from baton_bus.errors import ServerFailed
from baton_bus.server.health import health
from baton_bus.server.lock import Record, try_lock
from baton_bus.server.process import KEEPER, await_ready, start_server, stop_server

LOOK_S = 0.2
"""Between two looks at whether our server has ended; clients mend connections in 0.2 s steps."""
HEIR_LOOK_S = 0.25
"""Between two looks at whether the server of another command is gone: the one that started it comes first."""
HEALTH_S = 2.0
"""Between two questions to our server how it is."""
STUCK_S, STUCK_LOOK_S = 3.0, 0.25
"""A server says for a moment that it is not well while a stream is made or deleted: it is stuck once it has said so for
so long, each time that it was asked."""
SETTLED_S = 5.0
"""A server that ended sooner than this is likely to do so again: each next one is waited for twice as long."""
AGAIN_S = 0.1
"""Before a server that ended is started again, where it is likely to end again."""
AGAIN_MAX_S = 5.0
"""The longest wait before a server is started again: whoever repairs what is broken should see it soon."""
ROOM_BYTES = 16 * 1024 * 1024
"""Free space with which a server that ran out of it is worth starting again: some blocks of the log (8 MB)."""
RESTART_S = 30.0
"""From a restart of a server that was stuck to the next: what it does not mend, it would not mend more often."""

logger = structlog.get_logger("baton.bus")


class Keeper:
    """Sees to it that a server runs over a data directory, here or in another command, always on the same port."""

    def __init__(
        self, data_dir: Path, server: Path, record: Record, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        """`process` is the server that we have started; None when another command runs one."""
        self._data_dir, self._server, self._record, self._process = data_dir, server, record, process
        self._started_at = time.monotonic()
        self._again_s = 0.0
        self._restart_after = 0.0

    @contextlib.asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Keep the server while the context is open; stop it on leaving if it is ours."""
        task = asyncio.create_task(self._keep(), name="keeper of the server")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if self._process is not None:
                await stop_server(self._process)

    async def _keep(self) -> None:
        while True:
            try:
                if self._process is None:
                    await self._take_over()
                else:
                    await self._watch(self._process)
            except (ServerFailed, OSError) as error:
                if self._process is not None:
                    await stop_server(self._process)
                    self._process = None
                await self._back_off("server.not_started", error=str(error))

    async def _take_over(self) -> None:
        """Wait until nobody runs the server, and start it. Raises `ServerFailed`."""
        while (lock := try_lock(self._data_dir)) is None:  # noqa: ASYNC110 (other processes set no event of ours)
            await asyncio.sleep(HEIR_LOOK_S)
        port, password, sync_always = self._record.port, self._record.password, self._record.sync_always
        self._started_at = time.monotonic()
        self._process = start_server(
            self._data_dir, self._server, lock, password=password, sync_always=sync_always, port=port
        )
        self._record = await await_ready(self._data_dir, self._process, password=password, sync_always=sync_always)
        logger.warning("server.started_again", data_dir=str(self._data_dir), port=port)

    async def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Return once our server has ended, or was stopped because it was stuck and may go on now."""
        asked_at, stuck_since, said = time.monotonic(), None, False
        while process.poll() is None:
            await asyncio.sleep(LOOK_S)
            if time.monotonic() - asked_at < (HEALTH_S if stuck_since is None else STUCK_LOOK_S):
                continue
            asked_at = time.monotonic()
            how = await health(self._record.port, KEEPER, self._record.password, self._record.server_id)
            if how != "stuck":
                stuck_since = None
                continue
            stuck_since = stuck_since or asked_at
            if asked_at - stuck_since < STUCK_S:
                continue
            free_bytes = _free_bytes(self._data_dir)
            if free_bytes >= ROOM_BYTES and time.monotonic() >= self._restart_after:
                logger.warning("server.restarts", data_dir=str(self._data_dir), free_bytes=free_bytes)
                await stop_server(process)
                self._process, self._restart_after = None, time.monotonic() + RESTART_S
                return
            if free_bytes < ROOM_BYTES and not said:
                advice = "free some space: the server goes on by itself, and nothing that was accepted is lost"
                logger.error("disk.full", data_dir=str(self._data_dir), free_bytes=free_bytes, advice=advice)
                said = True
        await stop_server(process)  # it has ended: this closes our end of its lifeline
        self._process = None
        await self._back_off("server.ended", exit_code=process.returncode)

    async def _back_off(self, event: str, **facts: object) -> None:
        """Say what happened to the server, and wait the longer, the sooner it happened again."""
        lived_s = time.monotonic() - self._started_at
        self._again_s = 0.0 if lived_s > SETTLED_S else min(AGAIN_MAX_S, self._again_s * 2 or AGAIN_S)
        logger.error(event, data_dir=str(self._data_dir), again_in_s=self._again_s, **facts)
        await asyncio.sleep(self._again_s)


def _free_bytes(data_dir: Path) -> int:
    """Return the free space of the directory's disk, in bytes, for a user without privileges."""
    disk = os.statvfs(data_dir)
    return disk.f_bavail * disk.f_frsize
