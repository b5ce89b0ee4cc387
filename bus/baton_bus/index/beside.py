"""Keeping an index in a thread, with an event loop and a connection of its own, beside whoever shows what is in it.

Python's lock lets threads take turns of some milliseconds: while the past of a large log is read, the other loop has
half of a core. Who cannot spare that starts `baton index --follow --json`, and reads a line for each writing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from baton_bus.store.bus import Bus

from .changing import Committed
from .keeping import keep


async def keep_beside(
    opens: Callable[[], AbstractAsyncContextManager[Bus]],
    path: Path,
    told: Callable[[str], None],
    committed: Callable[[Committed], None],
    *,
    words: bool = True,
) -> None:
    """Keep an index as `keep` does, in a thread, until cancelled; `told` and `committed` are called in this loop.

    `opens` is called there, and opens the connection. Raises as `keep`, and as that.
    """
    here = asyncio.get_running_loop()
    stop, begun = asyncio.Event(), here.create_future()

    def tell(call: Callable[..., object], *what: object) -> None:
        with contextlib.suppress(RuntimeError):  # nobody listens any more: that loop is closed
            here.call_soon_threadsafe(call, *what)

    async def until_stopped() -> None:
        there = asyncio.get_running_loop()
        tell(begun.set_result, there)
        async with opens() as bus:
            keeping = asyncio.create_task(
                keep(bus, path, partial(tell, told), words=words, committed=partial(tell, committed))
            )
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait([keeping, stopping], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (keeping, stopping):
                    task.cancel()
                ended, _ = await asyncio.gather(keeping, stopping, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended

    with ThreadPoolExecutor(1, thread_name_prefix="index") as thread:
        kept = here.run_in_executor(thread, lambda: asyncio.run(until_stopped()))
        there = await begun
        try:
            await asyncio.shield(kept)
        finally:
            with contextlib.suppress(RuntimeError):
                there.call_soon_threadsafe(stop.set)
            if not kept.done():
                await asyncio.wait([kept])
