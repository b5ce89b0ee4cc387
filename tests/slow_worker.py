"""A worker in an OS process of its own, for tests that stop or kill it.

`python -m tests.slow_worker URL NAMESPACE FOLDER`. Its handler says in the folder that it has started, and ends
once the folder has a file `go`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from baton_bus import Settings, connect
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Step

from .servers import NatsServer
from .team import Team, flow_of

FLOW = flow_of({"a": Step(agent="a")}, {"text": Field()})
LEASE_S = 1.0


async def work(url: str, namespace: str, folder: Path) -> None:
    async def slow(text: str) -> str:
        (folder / f"started-{os.getpid()}").touch()
        while not (folder / "go").exists():  # noqa: ASYNC110 (another process makes the file)
            await asyncio.sleep(0.02)
        return "the slow one"

    settings = Settings(url=url, namespace=namespace, lease_s=LEASE_S)
    async with connect(settings) as client, Team(client, check_flow(FLOW), {"a": slow}).process():
        (folder / "ready").touch()
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def slow_worker(server: NatsServer, namespace: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one; it is killed at the end."""
    command = [sys.executable, "-m", "tests.slow_worker", server.url, namespace, str(folder)]
    process = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[1])
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
