"""What a prefix in common costs: a fan-out over a large document, uncached, as its branches come, and with one first.

Against a stand-in that keeps the books as the API does (`tests/prompt_cache.py`), so the figures are dollars by its own
prices, of answers of a few tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.models import Models
from baton_actors.processes.hosting import hosting
from baton_bus import Client, Settings, connect
from baton_bus.server.embedded import embedded
from tests.caching_server import CachingServer, caching_server

from .rows import Row, row

BRANCHES = 500
WORD = "It was a dark and stormy night. "
DOCUMENT = WORD * (50_000 * 4 // len(WORD))
"""50,000 tokens as the stand-in counts them; the model keeps 4,096 at the least."""
BEGINS_AFTER_S = 1.0
"""How long the stand-in reads before an answer begins."""
PROCESSES = 2
FLOW = """
name = "prefix"
input = {{ document = "str", topics = "list[str]" }}

[agents.reader]
model = "claude-haiku-4-5"
max_tokens = 100
cache = "{cache}"
prompt = "{{document}}\\n\\nWhat does it say on {{item}}?"

[steps.read]
agent = "reader"
each = "topics"
warm = {warm}
"""


async def rows() -> list[Row]:
    """Return the rows of the table; a minute."""
    with tempfile.TemporaryDirectory() as folder:
        async with embedded(Path(folder)) as server:
            off = await _fan_out(server.url, "off", "false", Path(folder))
            cold = await _fan_out(server.url, "5m", "false", Path(folder))
            warm = await _fan_out(server.url, "5m", "true", Path(folder))
    what = f"{BRANCHES} branches with {len(DOCUMENT) // 4:,} tokens in common"
    return [
        row(f"{what}, marked", "USD", cold[0], floor=off[0], ratio_max=1.0),
        row(f"{what}, warm", "USD", warm[0], floor=off[0], ratio_max=0.11),
        row("calls that wrote into the cache, marked", "calls", cold[1]),
        row("calls that wrote into the cache, warm", "calls", warm[1], most=1),
        row("all of them, warm against marked", "s", warm[2], floor=cold[2]),
    ]


async def _fan_out(url: str, cache: str, warm: str, folder: Path) -> tuple[float, int, float]:
    """Return what a run cost in USD, how many of its calls wrote, and how long it took in seconds."""
    path = folder / "prefix.toml"
    path.write_text(FLOW.format(cache=cache, warm=warm))
    found = find_flow(str(path))
    topics = [f"topic {number}" for number in range(BRANCHES)]
    with _elsewhere() as api:
        async with _playing(Settings(url=url, namespace=f"prefix-{cache}-{warm}"), found, api) as client:
            began = time.perf_counter()
            run = await client.start(found.plan, {"document": DOCUMENT, "topics": topics})
            await run.result()
            took_s = time.perf_counter() - began
        assert len(api.took) == BRANCHES
        return api.cost_usd, api.writes, took_s


@contextlib.asynccontextmanager
async def _playing(settings: Settings, found: FoundFlow, api: CachingServer) -> AsyncIterator[Client]:
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(settings))
        for _ in range(PROCESSES):  # as far as they know of each other
            own = await stack.enter_async_context(connect(settings))
            models = await stack.enter_async_context(Models(api.settings))
            await models.open()
            await stack.enter_async_context(hosting(own.engine, found, list(found.flow.agents), models=models))
        yield client


@contextlib.contextmanager
def _elsewhere() -> Iterator[CachingServer]:
    """Run the stand-in in a loop of another thread."""
    ready, done = threading.Event(), threading.Event()
    api: list[CachingServer] = []

    async def serve() -> None:
        async with caching_server(BEGINS_AFTER_S) as started:
            api.append(started)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield api[0]
    finally:
        done.set()
        thread.join()
