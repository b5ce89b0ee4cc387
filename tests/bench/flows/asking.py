"""The handlers of the bench's flows that ask."""

from __future__ import annotations

import asyncio
import time

from baton_actors import Context


async def parent(text: str, ask: int, at_once: bool, again: bool, of: str, context: Context) -> float:
    """Ask so often; return how long it took, in seconds. With `again` the second time counts, over what is recorded."""
    started = time.perf_counter()
    if at_once:
        await context.gather(*(context.ask(of, text=text) for _ in range(ask)))
    else:
        for _ in range(ask):
            await context.ask(of, text=text)
    taken = time.perf_counter() - started
    if again and context.attempt == 1:
        raise RuntimeError("once more, over what is recorded")
    return taken


async def helper(text: str) -> str:
    return text


async def never(text: str) -> str:
    await asyncio.Event().wait()
    return text
