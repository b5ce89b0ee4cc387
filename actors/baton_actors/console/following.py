"""Follows a page: makes it again when something came that changes it, and sends the parts that are not as they were."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.requests import Request

from baton_actors.errors import ActorError
from baton_bus.client.hub import EVERYTHING
from baton_bus.errors import BusError
from baton_bus.index.errors import IndexUnusable
from baton_bus.store.log import Stored
from baton_schemas.errors import SchemaError

from .bell import Bell
from .core import Console
from .page import LISTS, LOG, QUEUES, MakePage, Page
from .streams import ASLEEP, KEEPS_ALIVE_S, Stream, event, partial

_EVERY_S = 0.04
"""From one sending to the next at least: 25 a second are smooth to the eye."""
_SHARE = 3.0
"""And at least so many times as long as the last one took: a large page takes at most a quarter of a core."""
_CONNECTED_EVERY_S = 0.25
"""How often it is looked whether the server is there."""


async def follow(console: Console, make: MakePage, request: Request) -> AsyncIterator[bytes]:
    """Yield the parts of a page as events, whenever they change, until its browser is gone or it goes to sleep."""
    stream = console.streams.open()
    try:
        async for data in _events(console, make, request, stream):
            yield data
        yield event("", ASLEEP)
    finally:
        console.streams.close(stream)


async def _events(console: Console, make: MakePage, request: Request, stream: Stream) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    sent: dict[str, str] = {}
    newest_s = 0.0
    page = await _made(console, make, request)
    async with _bells(console, page.sources if page is not None else ()) as bells:
        while not stream.asleep.is_set():
            began, counts = loop.time(), [bell.count for bell in bells]
            connected = console.bus.is_connected
            page = await _made(console, make, request) or page
            if page is not None:
                parts = list(console.rendering.parts(page, request, status=console.status()))
                changed = "".join(partial(name, html) for name, html in parts if sent.get(name) != html)
                sent = dict(parts)
                if page.stored_at_s > newest_s:
                    age_ms = max(console.bus.now_s() - page.stored_at_s, 0.0) * 1_000
                    if newest_s:
                        yield event(f"{age_ms:.1f}", "lag")
                    newest_s = page.stored_at_s
                if changed:
                    yield event(changed)
            took_s = loop.time() - began
            await asyncio.sleep(max(_EVERY_S - took_s, took_s * _SHARE))
            every_s = page.every_s if page is not None and page.every_s else KEEPS_ALIVE_S
            if not await _news(console, bells, counts, stream, every_s, connected):
                yield b": still here\n\n"


async def _made(console: Console, make: MakePage, request: Request) -> Page | None:
    """Return the page as it is now; None when it cannot be made: what is shown stays."""
    try:
        return await make(console, request)
    except IndexUnusable as error:
        console.index.broken(error)
    except (BusError, SchemaError, ActorError, ValueError):
        pass
    return None


async def _news(
    console: Console, bells: Sequence[Bell], counts: Sequence[int], stream: Stream, every_s: float, connected: bool
) -> bool:
    """Wait for something that changes the page, or so long; say whether something came."""
    waiting = [asyncio.create_task(bell.wait(count)) for bell, count in zip(bells, counts, strict=True)]
    waiting.append(asyncio.create_task(stream.asleep.wait()))
    left_s = every_s
    try:
        while left_s > 0:
            done, _ = await asyncio.wait(
                waiting, timeout=min(left_s, _CONNECTED_EVERY_S), return_when=asyncio.FIRST_COMPLETED
            )
            if done or console.bus.is_connected != connected:
                return True
            left_s -= _CONNECTED_EVERY_S
        return False
    finally:
        for task in waiting:
            task.cancel()


@asynccontextmanager
async def _bells(console: Console, sources: Sequence[str]) -> AsyncIterator[list[Bell]]:
    """Have the sources of a page heard while the context is open; yield what rings when one of them has more."""
    async with contextlib.AsyncExitStack() as stack:
        bells: list[Bell] = []
        for source in sources:
            kind, _, run = source.partition(" ")
            with contextlib.suppress(BusError):
                if kind == LISTS:
                    bells.append(console.index.bell)
                elif kind == LOG:
                    bell = Bell()
                    await stack.enter_async_context(console.hub.hearing(EVERYTHING, _ringing(bell)))
                    bells.append(bell)
                elif kind == QUEUES:
                    bells.append(await stack.enter_async_context(console.queues.watching()))
                elif kind == "run":
                    bells.append((await stack.enter_async_context(console.feeds.watching(run))).bell)
        yield bells


def _ringing(bell: Bell) -> Callable[[Stored], None]:
    return lambda _: bell.ring()
