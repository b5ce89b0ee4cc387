"""A worker in an OS process of its own that one of its steps kills. It is started again whenever it has died.

`python -m tests.deadly_worker URL NAMESPACE FOLDER`. The item `poison` ends the process, the first time once the steps
beside it have begun; the folder has a file for each process that had begun a step.
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
from baton_schemas.flow.flow import Field, JoinPolicy, Step

from .servers import NatsServer
from .team import Team, flow_of

POISON = "poison"
FLOW = flow_of(
    {
        "each": Step(agent="each", each="texts"),
        "merge": Step(agent="merge", after=["each"], join=JoinPolicy(failed="skip")),
    },
    {"texts": Field(type="list[str]")},
    {"each": {"max_attempts": 2, "concurrency": 8}},
)
LEASE_S = 1.0


async def work(url: str, namespace: str, folder: Path) -> None:
    async def each(item: str) -> str:
        (folder / f"began-{item}-{os.getpid()}").touch()
        if item == POISON:
            while not (folder / "go").exists():  # noqa: ASYNC110 (another process makes the file)
                await asyncio.sleep(0.005)
            os._exit(7)
        while not (folder / "later").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return item.upper()

    settings = Settings(url=url, namespace=namespace, lease_s=LEASE_S)
    async with connect(settings) as client, Team(client, check_flow(FLOW), {"each": each}).process("each"):
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def deadly_worker(server: NatsServer, namespace: str, folder: Path) -> AsyncIterator[list[int]]:
    """Keep one running, as a supervisor does; yield the exit codes of those that died."""
    died: list[int] = []
    keeping = asyncio.create_task(_keep(server, namespace, folder, died))
    try:
        yield died
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep(server: NatsServer, namespace: str, folder: Path, died: list[int]) -> None:
    command = [sys.executable, "-m", "tests.deadly_worker", server.url, namespace, str(folder)]
    while True:
        process = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[1])
        try:
            died.append(await process.wait())
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        (folder / "later").touch()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
