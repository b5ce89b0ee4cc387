"""A worker whose calls go in batches, in an OS process of its own, for tests that kill it.

`python -m tests.batch_worker URL NAMESPACE MODELS`, the last being where the API is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from baton_actors import Flow
from baton_actors.agents.loading import FoundFlow
from baton_actors.batches import one, sending
from baton_bus import Settings

from .dying import MORTAL
from .model_servers import settings_for
from .sdk_clients import HAIKU
from .servers import NatsServer


def two() -> FoundFlow:
    """A flow with a budget whose step has two branches: their calls go in one batch."""
    flow = Flow("two", input={"items": "list[str]"}, budget={"usd": 1.0, "tokens": 10_000})
    policy = {"count": 2, "seconds": 0.1}
    given: dict[str, Any] = {"model": HAIKU, "max_tokens": 100, "delivery": "batch", "batch": policy, "timeout_s": 1.0}
    flow.ask("tell", "Of {item}.", each="items", **given)
    return flow.found()


async def work(url: str, namespace: str, api: str) -> None:
    from .test_budget_crashes import working

    setattr(one, "LOOK_S", (0.05, 0.1))  # noqa: B010 (imported there by name)
    setattr(sending, "LOOK_S", (0.05, 0.1))  # noqa: B010
    async with working(Settings(url=url, namespace=namespace, **MORTAL), two(), settings_for(api)):
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def batch_worker(server: NatsServer, namespace: str, api: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one; it is killed at the end."""
    command = [sys.executable, "-m", "tests.batch_worker", server.url, namespace, api]
    process = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[1])
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:4]))
