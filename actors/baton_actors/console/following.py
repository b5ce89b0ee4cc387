"""Follows a page: makes it again when something came that changes it, and sends the parts that are not as they were."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.requests import Request

from baton_actors.errors import ActorError
from baton_bus.errors import BusError, UnknownRun
from baton_bus.index.errors import IndexUnusable
from baton_schemas.errors import SchemaError

from .bell import Bell
from .broadcast import Broadcast
from .core import Console
from .making import make_page
from .page import LISTS, LOG, QUEUES, MakePage, Page
from .streams import ASLEEP, GONE, KEEPS_ALIVE_S, event

_EVERY_S = 0.04
"""From one sending to the next at least: 25 a second are smooth to the eye."""
_SHARE = 3.0
"""And at least so many times as long as the last one took: a large page takes at most a quarter of a core."""
_CONNECTED_EVERY_S = 0.25
"""How often it is looked whether the server is there."""


_GONE = "this run is in the log no more: what is shown is as it was"


async def follow(console: Console, make: MakePage, request: Request) -> AsyncIterator[bytes]:
    """Yield the parts of a page as events, whenever they change, until its browser is gone or it goes to sleep."""
    stream = console.streams.open(getattr(request.state, "browser", ""))
    asleep = asyncio.create_task(stream.asleep.wait(), name="until it is to sleep")
    key = make, request.url.path, request.url.query
    try:
        async with console.broadcasts.joined(key, lambda there: _broadcast(console, make, request, there)) as (
            there,
            seat,
        ):
            told = ""
            while not asleep.done():
                came = asyncio.create_task(seat.came.wait())
                try:
                    await asyncio.wait([came, asleep], timeout=KEEPS_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    came.cancel()
                if told != there.gone:
                    told = there.gone
                    yield event(told, GONE)
                if (more := seat.take()) is not None:
                    yield (_told_lag(more.waits_s, console.bus.now_s()) if more.waits_s else b"") + more.data
                elif there.is_over:
                    return
                elif not asleep.done():
                    yield b": still here\n\n"
        yield event("", ASLEEP)
    finally:
        asleep.cancel()
        console.streams.close(stream)


def _told_lag(waits_s: float, now_s: float) -> bytes:
    """Return the event that says how old is what comes with it, and when that was said: both in milliseconds."""
    return event(f"{max(now_s - waits_s, 0.0) * 1e3:.1f} {now_s * 1e3:.1f}", "lag")


async def _broadcast(console: Console, make: MakePage, request: Request, there: Broadcast) -> None:
    """Send the parts of a page to all who have it open, whenever they change."""
    loop = asyncio.get_running_loop()
    parts, lag = _Parts(), _Lag()
    page: Page | None = None
    while True:
        made = await _made(console, make, request)
        page = made if isinstance(made, Page) else page
        sources = page.sources if page is not None else ()
        async with _bells(console, sources) as bells:
            # What cannot be heard, as the server is away or nothing is there yet, is tried again.
            is_heard = page is not None and len(bells) == len(sources)
            while True:
                began, counts = loop.time(), [bell.count for bell in bells]
                connected = console.is_connected
                made = await _made(console, make, request)
                there.is_gone(_GONE if isinstance(made, UnknownRun) else "")
                page = made if isinstance(made, Page) else page
                if page is not None:
                    due = parts.due(page, began)
                    built = console.rendering.parts(page, request, due, status=console.status())
                    changed = dict(parts.changed(built, began))
                    waits_s = lag.shown(page, changed=bool(changed), whole=not parts.held)
                    if changed:
                        there.send(changed, waits_s, page.by_row)
                took_s = loop.time() - began
                await asyncio.sleep(max(_EVERY_S - took_s, took_s * _SHARE))
                if not is_heard and connected:
                    await asyncio.sleep(_CONNECTED_EVERY_S)
                    break
                left_s = (
                    max(parts.next_at - loop.time(), 0.0) if parts.held else page.every_s if page is not None else 0.0
                )
                await _news(console, bells, counts, left_s or (0.0 if parts.held else KEEPS_ALIVE_S), connected)


class _Parts:
    """What was sent of each part, and when it may be sent again."""

    def __init__(self) -> None:
        self._sent: dict[str, str] = {}
        self._free_at: dict[str, float] = {}
        self._paces: Mapping[str, float] = {}
        self.held: set[str] = set()
        """Parts that were not looked at for it was too soon: there may be more of them."""

    @property
    def next_at(self) -> float:
        """When the first of those that are held may be sent (of the loop's time)."""
        return min((self._free_at[name] for name in self.held), default=0.0)

    def due(self, page: Page, now: float) -> Callable[[str], bool]:
        """Return what says of a part whether it may be sent now."""
        self._paces, self.held = page.paces, set()

        def is_due(name: str) -> bool:
            if self._free_at.get(name, now) <= now:
                return True
            self.held.add(name)
            return False

        return is_due

    def changed(self, made: Iterable[tuple[str, str]], now: float) -> Iterator[tuple[str, str]]:
        """Yield those parts that are not as they were sent."""
        for name, html in made:
            if self._sent.get(name) != html:
                self._sent[name], self._free_at[name] = html, now + self._paces.get(name, 0.0)
                yield name, html


class _Lag:
    """Since when the oldest message waits that is not shown yet."""

    def __init__(self) -> None:
        self._shown_s = self._waits_s = 0.0

    def shown(self, page: Page, *, changed: bool, whole: bool) -> float:
        """Take that a page was sent, `whole` or but for parts that are held; return since when what it shows waited.

        In Unix time; 0 when nothing of it is new.
        """
        if page.stored_at_s > self._shown_s:
            first_s = page.stored_after(self._shown_s) if page.stored_after is not None else page.stored_at_s
            is_first, self._shown_s = not self._shown_s, page.stored_at_s
            self._waits_s = 0.0 if is_first else self._waits_s or first_s
        waits_s = self._waits_s if changed else 0.0
        if changed or whole:  # what changed nothing is not waited for
            self._waits_s = 0.0
        return waits_s


async def _made(console: Console, make: MakePage, request: Request) -> Page | UnknownRun | None:
    """Return the page as it is now, or that its run is gone; None when it cannot be made: what is shown stays."""
    try:
        made = await make_page(console, make, request)
        return made if isinstance(made, Page) else None
    except UnknownRun as error:
        return error
    except IndexUnusable as error:
        console.index.broken(error)
    except (BusError, SchemaError, ActorError, ValueError):
        pass
    return None


async def _news(
    console: Console, bells: Sequence[Bell], counts: Sequence[int], every_s: float, connected: bool
) -> None:
    """Wait for something that changes the page, or so long."""
    waiting = [asyncio.create_task(bell.wait(count)) for bell, count in zip(bells, counts, strict=True)]
    left_s = every_s
    try:
        while left_s > 0:
            within_s = min(left_s, _CONNECTED_EVERY_S)
            if waiting:
                done, _ = await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            else:
                done = set()
                await asyncio.sleep(within_s)
            if done or console.is_connected != connected:
                return
            left_s -= within_s
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
                    bells.append(await stack.enter_async_context(console.tail.watching()))
                elif kind == QUEUES:
                    bells.append(await stack.enter_async_context(console.queues.watching()))
                elif kind == "run":
                    bells.append((await stack.enter_async_context(console.feeds.watching(run))).bell)
        yield bells
